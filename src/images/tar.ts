// Reader of tar archives: POSIX.1-2017 pax "ustar Interchange Format" and "pax Extended Header", and GNU tar's long names and base-256 numbers.

/** One entry. `path` is relative, without `.` or `..` segments; `data` is a view of the archive's own bytes (empty unless a file). */
export type TarEntry = {
  readonly path: string;
  readonly type: 'file' | 'link' | 'symlink' | 'char' | 'block' | 'dir' | 'fifo';
  /** Permission bits, 0 to 0o7777. */
  readonly mode: number;
  /** Target of a link as the archive spells it; empty for other types. */
  readonly target: string;
  readonly data: Uint8Array;
};

const BLOCK = 512;
const TYPES: Readonly<Record<string, TarEntry['type']>> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'dir',
  '6': 'fifo',
};

/**
 * Entries of an uncompressed tar archive, in order. The root directory itself (`./`) is left out.
 * @throws Error on a wrong checksum, a truncated entry, an unknown type, or a path that is absolute or climbs with `..`.
 */
export function* readTar(bytes: Uint8Array): Generator<TarEntry> {
  const decoder = new TextDecoder();
  const field = (at: number, length: number) => {
    const raw = bytes.subarray(at, at + length);
    const end = raw.indexOf(0);
    return decoder.decode(end < 0 ? raw : raw.subarray(0, end));
  };
  const everywhere = new Map<string, string>();
  let next = new Map<string, string>();
  for (let at = 0; at + BLOCK <= bytes.length; ) {
    const header = bytes.subarray(at, at + BLOCK);
    if (header.every((byte) => byte === 0)) return;
    if (checksum(header) !== octal(header, 148, 8))
      throw new Error(`Cannot read tar archive: wrong header checksum at offset ${at}`);
    const flag = String.fromCharCode(header[156]!);
    const extended = flag === 'x' || flag === 'g' || flag === 'L' || flag === 'K';
    const pax = (key: string) => (extended ? undefined : (next.get(key) ?? everywhere.get(key)));
    const size = Number(pax('size') ?? octal(header, 124, 12));
    const start = at + BLOCK;
    if (!Number.isSafeInteger(size) || size < 0 || start + size > bytes.length) {
      throw new Error(`Cannot read tar archive: entry at offset ${at} holds ${size} bytes, ${bytes.length - start} are left`);
    }
    const data = bytes.subarray(start, start + size);
    const header0 = at;
    at = start + Math.ceil(size / BLOCK) * BLOCK;
    if (flag === 'x' || flag === 'g') {
      for (const [key, value] of paxRecords(data)) (flag === 'x' ? next : everywhere).set(key, value);
      continue;
    }
    if (flag === 'L' || flag === 'K') {
      next.set(flag === 'L' ? 'path' : 'linkpath', decoder.decode(data).replace(/\0.*$/s, ''));
      continue;
    }
    const type = TYPES[flag];
    if (!type)
      throw new Error(
        `Cannot read tar archive: entry at offset ${header0} has type "${flag}", accepted are 0 to 7 and pax and GNU headers`,
      );
    // The prefix field exists in ustar only: GNU's older magic ("ustar  ") keeps other things there.
    const prefix = field(header0 + 257, 8) === 'ustar' ? field(header0 + 345, 155) : '';
    const name = field(header0, 100);
    const path = safePath(pax('path') ?? (prefix ? `${prefix}/${name}` : name));
    const target = pax('linkpath') ?? field(header0 + 157, 100);
    next = new Map();
    if (path === '') continue;
    yield {
      path,
      type,
      mode: octal(header, 100, 8) & 0o7777,
      target: type === 'symlink' || type === 'link' ? target : '',
      data: type === 'file' ? data : new Uint8Array(0),
    };
  }
}

/**
 * A path of an archive, made relative and normal; empty for the root.
 * @throws Error when it is absolute or has a `..` segment.
 */
export function safePath(path: string): string {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  if (path.startsWith('/') || parts.includes('..') || path.includes('\0')) {
    throw new Error(`Cannot take "${path}" from archive: accepted are relative paths without ".."`);
  }
  return parts.join('/');
}

function checksum(header: Uint8Array): number {
  let sum = 8 * 0x20;
  for (let i = 0; i < BLOCK; i++) if (i < 148 || i >= 156) sum += header[i]!;
  return sum;
}

/** A number field: octal text, or GNU's big-endian base-256 when the top bit is set. NaN when it is neither. */
function octal(header: Uint8Array, at: number, length: number): number {
  if (header[at]! & 0x80) {
    let value = header[at]! & 0x3f;
    for (let i = 1; i < length; i++) value = value * 256 + header[at + i]!;
    return value;
  }
  const text = String.fromCharCode(...header.subarray(at, at + length))
    .replace(/[\0 ]+$/, '')
    .trimStart();
  if (text === '') return 0;
  return /^[0-7]+$/.test(text) ? Number.parseInt(text, 8) : Number.NaN;
}

/** Records `LENGTH KEY=VALUE\n` of a pax header; LENGTH counts the bytes of the whole record. */
function* paxRecords(data: Uint8Array): Generator<[string, string]> {
  const decoder = new TextDecoder();
  for (let at = 0; at < data.length; ) {
    const space = data.indexOf(0x20, at);
    const length = Number(decoder.decode(data.subarray(at, space < 0 ? at : space)));
    const record = space < 0 ? '' : decoder.decode(data.subarray(space + 1, at + length - 1));
    const equals = record.indexOf('=');
    if (!(length > 0) || at + length > data.length || equals < 1)
      throw new Error(`Cannot read tar archive: bad pax record at byte ${at} of its header`);
    yield [record.slice(0, equals), record.slice(equals + 1)];
    at += length;
  }
}
