// Writer of cpio archives in the "newc" format that Linux unpacks as its initramfs: Linux Documentation/driver-api/early-userspace/buffer-format.rst.

import { safePath } from './tar.ts';

/** One file of an initramfs. Owner is root and the time is 0, so that equal input makes equal bytes. */
export type CpioEntry = { readonly path: string; readonly mode: number } & (
  | { readonly type: 'dir' }
  | { readonly type: 'file'; readonly data: Uint8Array }
  | { readonly type: 'symlink'; readonly target: string }
  | { readonly type: 'char' | 'block'; readonly major: number; readonly minor: number }
);

const KIND: Readonly<Record<CpioEntry['type'], number>> = {
  dir: 0o040000,
  file: 0o100000,
  symlink: 0o120000,
  char: 0o020000,
  block: 0o060000,
};

/** Bytes to which an archive is padded: archives in a row must start 4-byte aligned, and 512 is what cpio tools write. */
export const CPIO_ALIGN = 512;

/** A directory, permission 0755. */
export const dir = (path: string): CpioEntry => ({ path, mode: 0o755, type: 'dir' });
/** A file of text or bytes; permission 0644 unless told. */
export const file = (path: string, data: Uint8Array | string, mode = 0o644): CpioEntry => ({
  path,
  mode,
  type: 'file',
  data: typeof data === 'string' ? new TextEncoder().encode(data) : data,
});
/** A symbolic link. */
export const symlink = (path: string, target: string): CpioEntry => ({ path, mode: 0o777, type: 'symlink', target });

/**
 * A newc archive of the entries in the given order, each missing parent directory put in front of its first child.
 * The length is a multiple of 512, so archives may be concatenated.
 * @throws Error for a path that is absolute, empty, climbs, or occurs twice.
 */
export function writeCpio(entries: Iterable<CpioEntry>): Uint8Array<ArrayBuffer> {
  const all = withParents(entries);
  const encoder = new TextEncoder();
  const records = all.map((entry) => ({ entry, name: encoder.encode(`${entry.path}\0`), body: body(entry, encoder) }));
  const end = encoder.encode('TRAILER!!!\0');
  let length = align(110 + end.length, 4);
  for (const { name, body } of records) length += align(110 + name.length, 4) + align(body.length, 4);
  const out = new Uint8Array(align(length, CPIO_ALIGN));
  let at = 0;
  const write = (
    name: Uint8Array,
    data: Uint8Array,
    inode: number,
    mode: number,
    links: number,
    major: number,
    minor: number,
  ) => {
    // c_magic, then: inode, mode, uid, gid, links, mtime, size, device (2), special device (2), name size, checksum (0).
    const fields = [inode, mode, 0, 0, links, 0, data.length, 0, 0, major, minor, name.length, 0];
    out.set(encoder.encode(`070701${fields.map((value) => value.toString(16).toUpperCase().padStart(8, '0')).join('')}`), at);
    out.set(name, at + 110);
    out.set(data, (at = align(at + 110 + name.length, 4)));
    at = align(at + data.length, 4);
  };
  for (const [index, { entry, name, body }] of records.entries()) {
    const special = entry.type === 'char' || entry.type === 'block' ? entry : { major: 0, minor: 0 };
    const mode = KIND[entry.type] | (entry.mode & 0o7777);
    write(name, body, index + 1, mode, entry.type === 'dir' ? 2 : 1, special.major, special.minor);
  }
  write(end, new Uint8Array(0), 0, 0, 1, 0, 0);
  return out;
}

function body(entry: CpioEntry, encoder: TextEncoder): Uint8Array {
  if (entry.type === 'file') return entry.data;
  return entry.type === 'symlink' ? encoder.encode(entry.target) : new Uint8Array(0);
}

function withParents(entries: Iterable<CpioEntry>): CpioEntry[] {
  const seen = new Map<string, CpioEntry>();
  for (const entry of entries) {
    const path = safePath(entry.path);
    if (path === '') throw new Error('Cannot write cpio archive: an entry has an empty path');
    const parts = path.split('/');
    for (let i = 1; i < parts.length; i++) {
      const parent = parts.slice(0, i).join('/');
      if (!seen.has(parent)) seen.set(parent, dir(parent));
    }
    // A directory may be named again after it was made as a parent: the explicit mode wins.
    const before = seen.get(path);
    if (before && !(before.type === 'dir' && entry.type === 'dir'))
      throw new Error(`Cannot write cpio archive: "${path}" occurs twice`);
    seen.set(path, { ...entry, path });
  }
  return [...seen.values()];
}

const align = (value: number, to: number) => Math.ceil(value / to) * to;
