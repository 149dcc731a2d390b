// LZ4 decompression: the block format and the "legacy frame" that `lz4 -l` writes and Linux kernels carry.
// lz4 project, doc/lz4_Block_format.md and doc/lz4_Frame_format.md, "Legacy frame" (2022).

const bad = (why: string): never => {
  throw new Error(`Cannot decompress LZ4 data: ${why}`);
};

/** Decodes one block from `source`[from, end) into `out` at `position`; returns the position after its last byte. */
const decodeBlock = (source: Uint8Array, from: number, end: number, out: Uint8Array, position: number): number => {
  const start = position;
  let at = from;
  let to = position;
  while (at < end) {
    const token = source[at++]!;
    let literals = token >> 4;
    if (literals === 15) {
      let more = 255;
      while (more === 255 && at < end) literals += more = source[at++]!;
    }
    if (literals > end - at) bad(`${literals} literal bytes wanted, ${end - at} are left`);
    if (literals > out.length - to) bad(`more than the announced ${out.length} bytes come out`);
    if (literals > 24) {
      out.set(source.subarray(at, at + literals), to);
      at += literals;
      to += literals;
    } else {
      for (const stop = to + literals; to < stop; ) out[to++] = source[at++]!;
    }
    if (at >= end) break; // the last sequence has literals only
    if (end - at < 2) bad('it ends inside a match offset');
    const distance = source[at]! | (source[at + 1]! << 8);
    at += 2;
    if (distance === 0 || distance > to - start) bad(`a match offset of ${distance} after ${to - start} bytes`);
    let length = (token & 15) + 4;
    if (length === 19) {
      let more = 255;
      while (more === 255 && at < end) length += more = source[at++]!;
    }
    if (length > out.length - to) bad(`more than the announced ${out.length} bytes come out`);
    if (length > 48 && distance >= length) {
      out.copyWithin(to, to - distance, to - distance + length);
      to += length;
    } else {
      for (const stop = to + length; to < stop; to++) out[to] = out[to - distance]!;
    }
  }
  return to;
};

/**
 * Decompresses a legacy frame that holds `size` bytes: magic 0x184C2102, then blocks of a u32 length and data.
 * @throws on damaged data or when it holds more or fewer bytes
 */
export const decompressLz4Legacy = (source: Uint8Array, size: number): Uint8Array => {
  const view = new DataView(source.buffer, source.byteOffset, source.length);
  if (source.length < 4 || view.getUint32(0, true) !== 0x184c2102) bad('no legacy frame magic at its start');
  const out = new Uint8Array(size);
  let to = 0;
  let at = 4;
  while (to < size && at + 4 <= source.length) {
    const length = view.getUint32(at, true);
    at += 4;
    if (length > source.length - at) bad(`a block of ${length} bytes wanted, ${source.length - at} are left`);
    to = decodeBlock(source, at, at + length, out, to);
    at += length;
  }
  if (to !== size) bad(`${to} bytes came out, ${size} were announced`);
  return out;
};
