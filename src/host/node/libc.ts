// Calls of Linux that Node has not, through koffi: sockets with descriptors, pseudo-terminals, tap devices, extended attributes. Undefined elsewhere.

import { loadKoffi } from './koffi.ts';

export interface Libc {
  dup(fd: number): number;
  close(fd: number): number;
  shutdown(fd: number, how: number): number;
  /** Waits for bytes: up to `size` with the descriptors that came along; none at the end or on an error. */
  receive(fd: number, size: number): { readonly bytes: Uint8Array; readonly fds: readonly number[] };
  /** Waits `timeout` ms (-1: for good) until one of the descriptors has bytes or its other end is gone; which ones, in their order. */
  readable(fds: readonly number[], timeout: number): readonly boolean[];
  /** A pipe's end to read and its end to write. */
  pipe(): readonly [number, number];
  /** An ioctl with a structure that is read and written in place; an error number, or 0. */
  ioctl(fd: number, request: number, data: Uint8Array | number): number;
  /** An ioctl that answers with a number; -1 on an error. */
  ioctlResult(fd: number, request: number, data: Uint8Array | number): number;
  /** True when nobody has the other side of a terminal or pipe open. */
  hungUp(fd: number): boolean;
  /** A new pseudo-terminal in raw mode; undefined when the host has none. */
  openPty(): { readonly fd: number; readonly path: string } | undefined;
  /** An extended attribute of what a path leads to, of up to `size` bytes; a negative error number. */
  getxattr(path: string, name: string, size: number): Uint8Array | number;
  /** Sets one; an error number, or 0. */
  setxattr(path: string, name: string, value: Uint8Array): number;
}

interface Koffi {
  load(path: string): { func(signature: string): (...args: unknown[]) => number };
  address(view: Uint8Array): bigint;
  errno(): number;
}

const O_RDWR = 2;
const O_NOCTTY = 0o400;
const O_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CMSG_CLOEXEC = 0x40000000;
const MSG_DONTWAIT = 0x40;
const EINTR = 4;
const EAGAIN = 11;
const POLLIN = 1;
const POLLHUP = 0x10;
const TCSANOW = 0;
/** Descriptors in one message, at most: QEMU takes 16. */
const MAX_FDS = 16;

/** The calls of this host. */
export function libc(): Libc | undefined {
  if (process.platform !== 'linux' || process.arch !== 'x64') return undefined;
  try {
    return bind(loadKoffi<Koffi>());
  } catch {
    return undefined;
  }
}

function bind(koffi: Koffi): Libc {
  const c = koffi.load('libc.so.6');
  const dup = c.func('int dup(int fd)');
  const close = c.func('int close(int fd)');
  const shutdown = c.func('int shutdown(int fd, int how)');
  const recvmsg = c.func('int64_t recvmsg(int fd, void *message, int flags)');
  const poll = c.func('int poll(void *fds, uint64_t count, int timeout)');
  const openpt = c.func('int posix_openpt(int flags)');
  const grantpt = c.func('int grantpt(int fd)');
  const unlockpt = c.func('int unlockpt(int fd)');
  const ptsname = c.func('int ptsname_r(int fd, void *name, uint64_t size)');
  const open = c.func('int open(const char *path, int flags, int mode)');
  const tcgetattr = c.func('int tcgetattr(int fd, void *attributes)');
  const tcsetattr = c.func('int tcsetattr(int fd, int when, void *attributes)');
  const cfmakeraw = c.func('void cfmakeraw(void *attributes)');

  const getxattr = c.func('int64_t getxattr(const char *path, const char *name, void *value, uint64_t size)');
  const setxattr = c.func('int setxattr(const char *path, const char *name, void *value, uint64_t size, int flags)');

  /** What poll(2) says of one descriptor. */
  const ready = (fd: number, events: number, timeout: number): number => {
    const entry = new Uint8Array(8);
    const view = new DataView(entry.buffer);
    view.setInt32(0, fd, true);
    view.setInt16(4, events, true);
    return poll(entry, 1, timeout) > 0 ? view.getInt16(6, true) : 0;
  };

  const pipe2 = c.func('int pipe2(void *fds, int flags)');
  const ioctlPointer = c.func('int ioctl(int fd, uint64_t request, void *data)');
  const ioctlValue = c.func('int ioctl(int fd, uint64_t request, uint64_t value)');

  const ioctlResult = (fd: number, request: number, data: Uint8Array | number): number =>
    typeof data === 'number' ? ioctlValue(fd, request, data) : ioctlPointer(fd, request, data);

  return {
    readable(fds, timeout) {
      const view = new DataView(new ArrayBuffer(8 * fds.length));
      fds.forEach((fd, i) => {
        view.setInt32(8 * i, fd, true);
        view.setInt16(8 * i + 4, POLLIN, true);
      });
      poll(new Uint8Array(view.buffer), fds.length, timeout);
      return fds.map((_, i) => view.getInt16(8 * i + 6, true) !== 0);
    },
    pipe() {
      const fds = new Int32Array(2);
      if (pipe2(new Uint8Array(fds.buffer), O_CLOEXEC) !== 0) throw new Error(`Cannot make a pipe: error ${koffi.errno()}`);
      return [fds[0]!, fds[1]!];
    },
    ioctl: (fd, request, data) => (ioctlResult(fd, request, data) < 0 ? koffi.errno() : 0),
    ioctlResult,
    dup: (fd) => dup(fd),
    close: (fd) => close(fd),
    shutdown: (fd, how) => shutdown(fd, how),
    receive(fd, size) {
      const data = new Uint8Array(size);
      const control = new Uint8Array(16 + 4 * MAX_FDS + 8);
      const vector = new BigUint64Array([koffi.address(data), BigInt(size)]);
      // struct msghdr: name, name length, iovec, count, control, its length, flags.
      const header = new BigUint64Array(7);
      let got: number;
      do {
        // The descriptor stays as Node has it, which never waits: poll does.
        ready(fd, POLLIN, -1);
        header[2] = koffi.address(new Uint8Array(vector.buffer));
        header[3] = 1n;
        header[4] = koffi.address(control);
        header[5] = BigInt(control.length);
        got = Number(recvmsg(fd, new Uint8Array(header.buffer), MSG_CMSG_CLOEXEC | MSG_DONTWAIT));
      } while (got < 0 && [EINTR, EAGAIN].includes(koffi.errno()));
      const fds: number[] = [];
      const words = new DataView(control.buffer);
      const length = got < 0 ? 0 : Number(header[5]);
      for (let at = 0; at + 16 <= length; ) {
        const size = Number(words.getBigUint64(at, true));
        if (size < 16) break;
        if (words.getInt32(at + 8, true) === SOL_SOCKET && words.getInt32(at + 12, true) === SCM_RIGHTS) {
          for (let p = at + 16; p + 4 <= Math.min(at + size, length); p += 4) fds.push(words.getInt32(p, true));
        }
        at += (size + 7) & ~7;
      }
      return { bytes: data.slice(0, Math.max(got, 0)), fds };
    },
    hungUp: (fd) => (ready(fd, 0, 0) & POLLHUP) !== 0,
    openPty() {
      const fd = openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
      if (fd < 0) return undefined;
      const name = new Uint8Array(64);
      const other =
        grantpt(fd) === 0 && unlockpt(fd) === 0 && ptsname(fd, name, name.length) === 0
          ? open(text(name), O_RDWR | O_NOCTTY | O_CLOEXEC, 0)
          : -1;
      if (other < 0) {
        close(fd);
        return undefined;
      }
      const attributes = new Uint8Array(64);
      tcgetattr(other, attributes);
      cfmakeraw(attributes);
      tcsetattr(other, TCSANOW, attributes);
      // From now on the terminal reads as hung up until somebody opens it.
      close(other);
      return { fd, path: text(name) };
    },
    getxattr(path, name, size) {
      const value = new Uint8Array(size);
      const got = Number(getxattr(path, name, value, size));
      return got < 0 ? -koffi.errno() : value.subarray(0, got);
    },
    setxattr: (path, name, value) => (setxattr(path, name, value, value.length, 0) === 0 ? 0 : koffi.errno()),
  };
}

const text = (bytes: Uint8Array): string => Buffer.from(bytes.subarray(0, bytes.indexOf(0))).toString();
