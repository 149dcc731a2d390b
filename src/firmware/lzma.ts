// LZMA decoding, for the .lzma file format and as the coder inside LZMA2.
// Igor Pavlov, LZMA specification (lzma-specification.txt, 2015); the .lzma header: its section "lzma file format";
// LZMA2 chunks: the xz project's doc/xz-file-format.txt 1.2.1, section 5.3.1, and xz's description of the chunk headers.

const bad = (why: string): never => {
  throw new Error(`Cannot decompress LZMA data: ${why}`);
};

/** Where each group of probabilities begins in the one array that holds all. */
const IS_MATCH = 0;
const IS_REP = IS_MATCH + 12 * 16;
const IS_REP0 = IS_REP + 12;
const IS_REP1 = IS_REP0 + 12;
const IS_REP2 = IS_REP1 + 12;
const IS_REP0_LONG = IS_REP2 + 12;
const POS_SLOT = IS_REP0_LONG + 12 * 16;
const POS_SPECIAL = POS_SLOT + 4 * 64;
const POS_ALIGN = POS_SPECIAL + 128;
const MATCH_LENGTH = POS_ALIGN + 16;
const LENGTH_SIZE = 2 + 16 * 8 + 16 * 8 + 256;
const REP_LENGTH = MATCH_LENGTH + LENGTH_SIZE;
const LITERAL = REP_LENGTH + LENGTH_SIZE;

/** Decoder state over a whole output array, which is also the dictionary. */
class Lzma {
  readonly source: Uint8Array;
  readonly out: Uint8Array;
  /** Next byte to read, next byte to write, and where the dictionary begins. */
  at = 0;
  to = 0;
  dictionary = 0;
  private probs = new Uint16Array(0);
  private range = 0;
  private code = 0;
  private state = 0;
  private rep0 = 0;
  private rep1 = 0;
  private rep2 = 0;
  private rep3 = 0;
  private lc = 0;
  private lpMask = 0;
  private pbMask = 0;

  constructor(source: Uint8Array, out: Uint8Array) {
    this.source = source;
    this.out = out;
  }

  setProperties(byte: number, most: number): void {
    if (byte >= 225) bad(`properties byte ${byte}, accepted is 0 to 224`);
    const lc = byte % 9;
    const lp = Math.floor(byte / 9) % 5;
    if (lc + lp > most) bad(`${lc} literal context and ${lp} literal position bits, accepted are ${most} together`);
    this.lc = lc;
    this.lpMask = (1 << lp) - 1;
    this.pbMask = (1 << Math.floor(byte / 45)) - 1;
    this.probs = new Uint16Array(LITERAL + (0x300 << (lc + lp)));
  }

  resetState(): void {
    if (this.probs.length === 0) bad('data before its properties');
    this.probs.fill(1024);
    this.state = 0;
    this.rep0 = this.rep1 = this.rep2 = this.rep3 = 0;
  }

  startRange(): void {
    const { source, at } = this;
    if (at + 5 > source.length) bad('it ends inside the range coder start');
    if (source[at] !== 0) bad('the range coder does not start with a zero byte');
    this.range = -1;
    this.code = (source[at + 1]! << 24) | (source[at + 2]! << 16) | (source[at + 3]! << 8) | source[at + 4]!;
    this.at = at + 5;
  }

  private bit(index: number): 0 | 1 {
    const probability = this.probs[index]!;
    const bound = Math.imul(this.range >>> 11, probability);
    let result: 0 | 1;
    if (this.code >>> 0 < bound >>> 0) {
      this.range = bound;
      this.probs[index] = probability + ((2048 - probability) >> 5);
      result = 0;
    } else {
      this.range = (this.range - bound) | 0;
      this.code = (this.code - bound) | 0;
      this.probs[index] = probability - (probability >> 5);
      result = 1;
    }
    if (this.range >>> 0 < 0x100_0000) {
      this.range <<= 8;
      this.code = (this.code << 8) | this.source[this.at++]!;
    }
    return result;
  }

  private tree(base: number, bits: number): number {
    let node = 1;
    for (let i = 0; i < bits; i++) node = (node << 1) | this.bit(base + node);
    return node - (1 << bits);
  }

  private reverseTree(base: number, bits: number): number {
    let node = 1;
    let value = 0;
    for (let i = 0; i < bits; i++) {
      const bit = this.bit(base + node);
      node = (node << 1) | bit;
      value |= bit << i;
    }
    return value;
  }

  private direct(bits: number): number {
    let value = 0;
    for (let i = 0; i < bits; i++) {
      this.range >>>= 1;
      const over = this.code >>> 0 >= this.range >>> 0;
      if (over) this.code = (this.code - this.range) | 0;
      value = (value << 1) | (over ? 1 : 0);
      if (this.range >>> 0 < 0x100_0000) {
        this.range <<= 8;
        this.code = (this.code << 8) | this.source[this.at++]!;
      }
    }
    return value;
  }

  private length(base: number, posState: number): number {
    if (this.bit(base) === 0) return 2 + this.tree(base + 2 + posState * 8, 3);
    if (this.bit(base + 1) === 0) return 10 + this.tree(base + 130 + posState * 8, 3);
    return 18 + this.tree(base + 258, 8);
  }

  private distance(length: number): number {
    const slot = this.tree(POS_SLOT + Math.min(length - 2, 3) * 64, 6);
    if (slot < 4) return slot;
    const low = (slot >> 1) - 1;
    const high = (2 | (slot & 1)) << low;
    // The trees of slots 4 to 13 lie one behind the other: each begins at its first distance less its slot.
    if (slot < 14) return high + this.reverseTree(POS_SPECIAL + high - slot, low);
    return ((high + (this.direct(low - 4) << 4)) >>> 0) + this.reverseTree(POS_ALIGN, 4);
  }

  private literal(): void {
    const { out, to } = this;
    const previous = to > this.dictionary ? out[to - 1]! : 0;
    const base = LITERAL + 0x300 * ((((to - this.dictionary) & this.lpMask) << this.lc) + (previous >> (8 - this.lc)));
    let symbol = 1;
    if (this.state >= 7) {
      let match = out[to - this.rep0 - 1]!;
      while (symbol < 0x100) {
        const matchBit = (match >> 7) & 1;
        match <<= 1;
        const bit = this.bit(base + ((1 + matchBit) << 8) + symbol);
        symbol = (symbol << 1) | bit;
        if (matchBit !== bit) break;
      }
    }
    while (symbol < 0x100) symbol = (symbol << 1) | this.bit(base + symbol);
    out[to] = symbol;
    this.to = to + 1;
    this.state = this.state < 4 ? 0 : this.state < 10 ? this.state - 3 : this.state - 6;
  }

  private repeatDistance(posState: number): number {
    const { state } = this;
    if (this.bit(IS_REP0 + state) === 0) {
      if (this.bit(IS_REP0_LONG + state * 16 + posState) === 0) {
        this.state = state < 7 ? 9 : 11;
        return 1;
      }
    } else {
      let chosen = this.rep1;
      if (this.bit(IS_REP1 + state) !== 0) {
        chosen = this.rep2;
        if (this.bit(IS_REP2 + state) !== 0) {
          chosen = this.rep3;
          this.rep3 = this.rep2;
        }
        this.rep2 = this.rep1;
      }
      this.rep1 = this.rep0;
      this.rep0 = chosen;
    }
    this.state = state < 7 ? 8 : 11;
    return this.length(REP_LENGTH, posState);
  }

  /** Decodes until `limit` bytes are in `out`; returns false when an end marker came first. */
  run(limit: number): boolean {
    const { out, source } = this;
    while (this.to < limit) {
      // Reading behind the end gives zero bits, so it is enough to look once per symbol.
      if (this.at > source.length) bad('it ends too early');
      const posState = (this.to - this.dictionary) & this.pbMask;
      if (this.bit(IS_MATCH + this.state * 16 + posState) === 0) {
        this.literal();
        continue;
      }
      let length: number;
      if (this.bit(IS_REP + this.state) !== 0) length = this.repeatDistance(posState);
      else {
        this.rep3 = this.rep2;
        this.rep2 = this.rep1;
        this.rep1 = this.rep0;
        length = this.length(MATCH_LENGTH, posState);
        this.state = this.state < 7 ? 7 : 10;
        this.rep0 = this.distance(length);
        if (this.rep0 === 0xffff_ffff) return false;
      }
      const back = this.rep0 + 1;
      if (back > this.to - this.dictionary) bad(`a match ${back} bytes back after ${this.to - this.dictionary} bytes`);
      if (length > limit - this.to) bad('a match goes beyond the announced size');
      const stop = this.to + length;
      for (let to = this.to; to < stop; to++) out[to] = out[to - back]!;
      this.to = stop;
    }
    return true;
  }
}

/**
 * Decompresses a .lzma file of `size` bytes; its own size field may say "unknown".
 * @throws on damaged data, or when it holds fewer bytes
 */
export const decompressLzma = (source: Uint8Array, size: number): Uint8Array => {
  if (source.length < 18) bad(`${source.length} bytes, at least 18 are needed`);
  const out = new Uint8Array(size);
  const lzma = new Lzma(source, out);
  lzma.setProperties(source[0]!, 12);
  lzma.resetState();
  lzma.at = 13;
  lzma.startRange();
  if (!lzma.run(size)) bad(`${lzma.to} bytes came out, ${size} were announced`);
  return out;
};

/** Decodes LZMA2 chunks from `source` at `at` into `out` at `to`; returns the positions behind the last byte of each. */
export const decodeLzma2 = (source: Uint8Array, at: number, out: Uint8Array, to: number): { at: number; to: number } => {
  const lzma = new Lzma(source, out);
  lzma.at = at;
  lzma.to = lzma.dictionary = to;
  for (let first = true; ; first = false) {
    const control = source[lzma.at++];
    if (control === undefined) return bad('it ends where a chunk should begin');
    if (control === 0) return { at: lzma.at, to: lzma.to };
    if (control > 2 && control < 0x80) bad(`chunk type ${control}`);
    const compressed = control >= 0x80;
    const header = lzma.at;
    if (header + (compressed ? 5 : 2) > source.length) bad('it ends inside a chunk header');
    const resets = compressed ? (control >> 5) & 3 : control === 1 ? 3 : 0;
    if (resets === 3) lzma.dictionary = lzma.to;
    else if (first) bad('the first chunk does not reset the dictionary');
    const unpacked = ((source[header]! << 8) | source[header + 1]!) + 1 + (compressed ? (control & 0x1f) << 16 : 0);
    if (unpacked > out.length - lzma.to) bad(`more than the announced ${out.length} bytes come out`);
    if (!compressed) {
      lzma.at = header + 2 + unpacked;
      if (lzma.at > source.length) bad('it ends inside a chunk');
      out.set(source.subarray(header + 2, lzma.at), lzma.to);
      lzma.to += unpacked;
      continue;
    }
    const end = header + 4 + ((source[header + 2]! << 8) | source[header + 3]!) + 1 + (resets >= 2 ? 1 : 0);
    lzma.at = header + 4;
    if (resets >= 2) lzma.setProperties(source[lzma.at++]!, 4);
    if (resets >= 1) lzma.resetState();
    lzma.startRange();
    if (!lzma.run(lzma.to + unpacked)) bad('an end marker inside a chunk');
    if (lzma.at !== end) bad('a chunk does not end where its header says');
  }
};
