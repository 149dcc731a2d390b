// Decompressing .xz files with the filters that Linux kernels use: LZMA2, alone or behind the x86 branch filter.
// The xz project's doc/xz-file-format.txt, version 1.2.1: sections 2 (stream), 3 (block), 5.3 (filters), 6 (CRC32).

import { crc32 } from '../bits/crc32.ts';
import { decodeLzma2 } from './lzma.ts';

const bad = (why: string): never => {
  throw new Error(`Cannot decompress xz data: ${why}`);
};

const FILTER_X86 = 0x04;
const FILTER_LZMA2 = 0x21;
/** Bytes of the integrity check by its type. */
const checkSize = (type: number): number => (type === 0 ? 0 : 4 << Math.floor((type - 1) / 3));

const isSign = (byte: number): boolean => byte === 0 || byte === 0xff;

/**
 * Undoes the x86 branch filter in place on bytes[from, to): the operand of E8 and E9 (call, jmp rel32) was made absolute
 * where its top byte is a sign extension. `recent` has a bit for each of the last three bytes that was such an opcode but
 * was not converted: an opcode that may itself be part of an operand is only converted in the cases that the encoder's
 * own rule allows.
 */
export const undoX86 = (bytes: Uint8Array, from: number, to: number): void => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let recent = 0;
  let last = from - 1;
  for (let at = from; at + 4 < to; at++) {
    if ((bytes[at]! & 0xfe) !== 0xe8) continue;
    const gap = at - last;
    last = at;
    recent = gap > 3 ? 0 : (recent << (gap - 1)) & 7;
    // How many operand bytes, from the top, the oldest remembered opcode overlaps.
    const overlap = recent === 0 ? 0 : recent === 1 ? 1 : recent < 4 ? 2 : 3;
    const allowed = recent === 0 || recent === 1 || recent === 2 || recent === 4;
    if (recent !== 0 && (!allowed || isSign(bytes[at + 4 - overlap]!))) {
      recent = ((recent << 1) | 1) & 7;
      continue;
    }
    if (!isSign(bytes[at + 4]!)) {
      recent = ((recent << 1) | 1) & 7;
      continue;
    }
    const next = at - from + 5;
    let target = (view.getInt32(at + 1, true) - next) | 0;
    if (recent !== 0) {
      const shift = overlap * 8;
      while (isSign((target >>> (24 - shift)) & 0xff)) target = ((target ^ (2 ** (32 - shift) - 1)) - next) | 0;
    }
    view.setInt32(at + 1, (target << 7) >> 7, true);
    at += 4;
    last = at - 4;
    recent = 0;
  }
};

/** A variable-length integer (1.2); at most 2^53. */
const variable = (bytes: Uint8Array, at: number): { value: number; at: number } => {
  let value = 0;
  for (let i = 0; i < 7; i++) {
    const byte = bytes[at + i];
    if (byte === undefined) return bad('it ends inside a number');
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return { value, at: at + i + 1 };
  }
  return bad('a number beyond 2^49');
};

/** The filter ids of the block header at `start`; throws when it is damaged. */
const readFilters = (bytes: Uint8Array, start: number, end: number): number[] => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (end > bytes.length) bad('it ends inside a block header');
  if (crc32(bytes, start, end - 4) !== view.getUint32(end - 4, true)) bad('a block header has a wrong checksum');
  const flags = bytes[start + 1]!;
  let at = start + 2;
  if (flags & 0x40) at = variable(bytes, at).at;
  if (flags & 0x80) at = variable(bytes, at).at;
  const filters: number[] = [];
  for (let i = 0; i <= (flags & 3); i++) {
    const id = variable(bytes, at);
    const properties = variable(bytes, id.at);
    at = properties.at + properties.value;
    if (id.value === FILTER_X86 && properties.value !== 0) bad('an x86 filter with a start offset');
    filters.push(id.value);
  }
  return filters;
};

/**
 * Decompresses one .xz stream of `size` bytes. CRC32 is verified; other checks are skipped.
 * @throws on damaged data, on other filters, and when it holds more or fewer bytes
 */
export const decompressXz = (source: Uint8Array, size: number): Uint8Array => {
  const view = new DataView(source.buffer, source.byteOffset, source.length);
  const magic = [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00];
  if (source.length < 24 || magic.some((byte, i) => source[i] !== byte)) bad('no xz magic at its start');
  if (crc32(source, 6, 8) !== view.getUint32(8, true)) bad('the stream header has a wrong checksum');
  const check = source[7]! & 15;
  const out = new Uint8Array(size);
  let at = 12;
  let to = 0;
  while (at < source.length && source[at] !== 0) {
    const header = (source[at]! + 1) * 4;
    const filters = readFilters(source, at, at + header);
    const x86 = filters.length === 2 && filters[0] === FILTER_X86;
    if (filters.at(-1) !== FILTER_LZMA2 || (filters.length > 1 && !x86)) {
      bad(
        `filters ${filters.map((f) => `0x${f.toString(16)}`).join(', ')}, accepted are LZMA2 (0x21), alone or behind x86 (0x4)`,
      );
    }
    const from = to;
    const data = at + header;
    ({ at, to } = decodeLzma2(source, data, out, to));
    if (x86) undoX86(out, from, to);
    at = data + Math.ceil((at - data) / 4) * 4;
    if (at + checkSize(check) > source.length) bad('it ends inside a block');
    if (check === 1 && crc32(out, from, to) !== view.getUint32(at, true)) bad('the data has a wrong checksum');
    at += checkSize(check);
  }
  if (to !== size) bad(`${to} bytes came out, ${size} were announced`);
  return out;
};
