// Builders of small ar and tar archives for tests: the same formats that ar.ts and tar.ts read, written independently of them.

const encoder = new TextEncoder();

/** Bytes in a row. */
export function join(...parts: readonly (Uint8Array | string)[]): Uint8Array<ArrayBuffer> {
  const bytes = parts.map((part) => (typeof part === 'string' ? encoder.encode(part) : part));
  const out = new Uint8Array(bytes.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of bytes) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** An ar archive. */
export function makeAr(members: Readonly<Record<string, Uint8Array | string>>): Uint8Array<ArrayBuffer> {
  const parts: (Uint8Array | string)[] = ['!<arch>\n'];
  for (const [name, content] of Object.entries(members)) {
    const data = join(content);
    const header = `${name.padEnd(16)}${'0'.padEnd(12)}${'0'.padEnd(6)}${'0'.padEnd(6)}${'100644'.padEnd(8)}${String(data.length).padEnd(10)}\`\n`;
    parts.push(header, data, data.length % 2 ? '\n' : '');
  }
  return join(...parts);
}

/** Fields of a tar header that a test sets. */
export type TarFields = {
  name: string;
  data?: Uint8Array | string;
  type?: string;
  link?: string;
  mode?: string;
  prefix?: string;
  size?: string;
};

/** One tar entry: header block and padded data. */
export function makeTarEntry({
  name,
  data = '',
  type = '0',
  link = '',
  mode = '0000644',
  prefix = '',
  size,
}: TarFields): Uint8Array<ArrayBuffer> {
  const body = join(data);
  const header = new Uint8Array(512);
  const put = (text: string, at: number) => header.set(encoder.encode(text), at);
  put(name, 0);
  put(mode, 100);
  put(size ?? body.length.toString(8).padStart(11, '0'), 124);
  put('        ', 148);
  put(type, 156);
  put(link, 157);
  put('ustar\x0000', 257);
  put(prefix, 345);
  const sum = header.reduce((total, byte) => total + byte, 0);
  put(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return join(header, body, new Uint8Array((512 - (body.length % 512)) % 512));
}

/** A tar archive. */
export function makeTar(...entries: readonly TarFields[]): Uint8Array<ArrayBuffer> {
  return join(...entries.map(makeTarEntry), new Uint8Array(1024));
}

/** A 64-bit little-endian ELF file with one .modinfo section, as a kernel module has. */
export function makeModule(info: readonly string[]): Uint8Array<ArrayBuffer> {
  const modinfo = encoder.encode(info.map((entry) => `${entry}\0`).join(''));
  const names = encoder.encode('\0.modinfo\0.shstrtab\0');
  const table = Math.ceil((64 + modinfo.length + names.length) / 8) * 8;
  const out = new Uint8Array(table + 3 * 64);
  const view = new DataView(out.buffer);
  out.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  out.set(modinfo, 64);
  out.set(names, 64 + modinfo.length);
  view.setBigUint64(0x28, BigInt(table), true);
  for (const [at, value] of [
    [0x3a, 64],
    [0x3c, 3],
    [0x3e, 2],
  ] as const)
    view.setUint16(at, value, true);
  const section = (index: number, name: number, offset: number, size: number) => {
    view.setUint32(table + index * 64, name, true);
    view.setBigUint64(table + index * 64 + 0x18, BigInt(offset), true);
    view.setBigUint64(table + index * 64 + 0x20, BigInt(size), true);
  };
  section(1, 1, 64, modinfo.length);
  section(2, 10, 64 + modinfo.length, names.length);
  return out;
}
