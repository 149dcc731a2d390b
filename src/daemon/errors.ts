// Whatever a handler throws becomes one of libvirt's errors, with its code, part and words.
import { DiskError } from '../disk/block.ts';
import { DomainXmlError } from '../domain/errors.ts';
import { type ErrorDomain, errorDomains, LibvirtError, libvirtError } from '../rpc/libvirt/errors.ts';
import { QmpError } from '../rpc/qmp/error.ts';

/** What the host's files and processes fail with: `code` is the name of an errno. */
interface SystemError extends Error {
  readonly code: string;
}
const isSystemError = (error: unknown): error is SystemError =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' && /^E[A-Z0-9]+$/.test(error.code);

/** Words of strerror(3). */
const errnoWords: Readonly<Record<string, string>> = {
  ENOENT: 'No such file or directory',
  EACCES: 'Permission denied',
  EPERM: 'Operation not permitted',
  EEXIST: 'File exists',
  ENOTDIR: 'Not a directory',
  EISDIR: 'Is a directory',
  ENOSPC: 'No space left on device',
  ENOTEMPTY: 'Directory not empty',
  ECONNREFUSED: 'Connection refused',
  EROFS: 'Read-only file system',
  ENAMETOOLONG: 'File name too long',
  EINVAL: 'Invalid argument',
  EADDRINUSE: 'Address already in use',
  EADDRNOTAVAIL: 'Cannot assign requested address',
  EMFILE: 'Too many open files',
  ENOTSUP: 'Operation not supported',
};

/** The errno's words for a failure of the host. */
export const reasonOf = (error: unknown): string =>
  isSystemError(error) ? (errnoWords[error.code] ?? error.message) : error instanceof Error ? error.message : String(error);

/** `what: No such file or directory`. */
export const systemError = (from: ErrorDomain, what: string, error: unknown): LibvirtError =>
  libvirtError('systemError', from, `${what}: ${reasonOf(error)}`);

/** A QMP command that failed, in libvirt's words. */
export const qmpFailed = (command: string, error: unknown): LibvirtError =>
  error instanceof QmpError
    ? libvirtError('internalError', 'qemu', `unable to execute QEMU command '${command}': ${error.message}`)
    : libvirtError('internalError', 'qemu', error instanceof Error ? error.message : String(error));

/** The error that goes over the wire; undefined for one that is the daemon's own fault. */
export function asLibvirt(error: unknown, from: ErrorDomain): LibvirtError | undefined {
  if (error instanceof LibvirtError) return error;
  if (error instanceof DomainXmlError) return new LibvirtError(error.code, errorDomains[from], error.message);
  if (error instanceof DiskError) return libvirtError('internalError', 'storage', error.message);
  if (error instanceof QmpError) return libvirtError('internalError', 'qemu', error.message);
  if (isSystemError(error)) return libvirtError('systemError', from, reasonOf(error));
  return undefined;
}

type AnyHandler = (...args: never[]) => unknown;

/** The same handlers, with what they throw made libvirt's. */
export function translateErrors<H extends Readonly<Record<string, AnyHandler | undefined>>>(from: ErrorDomain, handlers: H): H {
  const wrapped = Object.entries(handlers).map(([name, handler]) => [
    name,
    async (...args: never[]) => {
      try {
        return await handler!(...args);
      } catch (error) {
        throw asLibvirt(error, from) ?? error;
      }
    },
  ]);
  return Object.fromEntries(wrapped) as H;
}

export const operationInvalid = (detail: string): LibvirtError => libvirtError('operationInvalid', 'qemu', detail);
export const notRunning = (): LibvirtError => operationInvalid('domain is not running');
export const invalidArgument = (detail: string): LibvirtError => libvirtError('invalidArg', 'qemu', detail);

/** Refuses flags that are not among the accepted ones, as libvirt words it. */
export function checkFlags(name: string, flags: number, accepted: number): void {
  const extra = (flags & ~accepted) >>> 0;
  if (extra !== 0) throw libvirtError('invalidArg', 'qemu', `unsupported flags (0x${extra.toString(16)}) in function ${name}`);
}
