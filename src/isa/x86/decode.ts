// From instruction bytes to a decoded instruction (Intel SDM volume 2, chapter 2): prefixes, opcode, ModRM, SIB, displacement,
// immediates. Decodes at most 15 bytes; what no row claims is reported as undefined.

import { bitsOf } from './operand.ts';
import { Ctx } from './state.ts';
import type { RowInfo, Tables } from './table.ts';

/** Result of decoding. */
export const Decode = { ok: 0, undefined: 1, tooLong: 2, truncated: 3 } as const;

/** A decoded instruction. One object is reused: copy what must live longer. */
export class Insn {
  row!: RowInfo;
  /** Length in bytes, 1 to 15. */
  length = 0;
  /** Operand and address size in bits. */
  size = 32;
  addressSize = 32;
  lock = false;
  rep: 0 | 2 | 3 = 0;
  rex = 0;
  modrm = 0;
  /** ModRM.mod is not 3. */
  isMemory = false;
  /** Register numbers with REX applied: ModRM.reg, ModRM.rm or the opcode's low bits. */
  reg = 0;
  rm = 0;
  /** Address: register numbers or -1; base 16 is the instruction pointer. */
  base = -1;
  index = -1;
  scale = 0;
  disp = 0;
  /** Upper half of a 64-bit moffs address. */
  dispHigh = 0;
  /** Segment of the memory operand, and the override prefix or -1. */
  segment = 3;
  override = -1;
  /** Immediate in two halves, sign- or zero-extended to 64 bits as its code says; and a second immediate. */
  immLow = 0;
  immHigh = 0;
  imm2 = 0;
  /** VEX.vvvv as a register number, and VEX.L. */
  vvvv = 0;
  wide = false;
}

// Base, index and default segment of 16-bit addressing forms.
const BASE16 = [3, 3, 5, 5, -1, -1, 5, 3];
const INDEX16 = [6, 7, 6, 7, 6, 7, -1, -1];

/** Why there are no more bytes than up to `limit`. */
const short = (limit: number, at: number): number => (limit === at + 15 ? Decode.tooLong : Decode.truncated);

/**
 * Decodes the instruction at `bytes[at]`, reading no further than `end`. Gives a `Decode` result; on `truncated` the caller may have
 * more bytes on the next page.
 */
export function decode(tables: Tables, bytes: Uint8Array, at: number, end: number, ctx: number, out: Insn): number {
  const long = (ctx & Ctx.long) !== 0;
  const limit = Math.min(end, at + 15);
  let p = at;
  let opsize = false;
  let adsize = false;
  let rex = 0;
  let rep: 0 | 2 | 3 = 0;
  out.lock = false;
  out.override = -1;
  let op = 0;
  for (;;) {
    if (p >= limit) return short(limit, at);
    op = bytes[p++];
    if (op === 0x66) opsize = true;
    else if (op === 0x67) adsize = true;
    else if (op === 0xf3) rep = 3;
    else if (op === 0xf2) rep = 2;
    else if (op === 0xf0) out.lock = true;
    else if (op === 0x26) out.override = 0;
    else if (op === 0x2e) out.override = 1;
    else if (op === 0x36) out.override = 2;
    else if (op === 0x3e) out.override = 3;
    else if (op === 0x64) out.override = 4;
    else if (op === 0x65) out.override = 5;
    else if (long && (op & 0xf0) === 0x40) {
      // REX counts only directly before the opcode.
      rex = op;
      if (p >= limit) return short(limit, at);
      const next = bytes[p];
      if (
        next === 0x66 ||
        next === 0x67 ||
        next === 0xf2 ||
        next === 0xf3 ||
        next === 0xf0 ||
        (next & 0xe7) === 0x26 ||
        (next & 0xfe) === 0x64 ||
        (next & 0xf0) === 0x40
      )
        rex = 0;
    } else break;
  }
  if (long && out.override < 4) out.override = -1;
  let map = 0;
  let pp = -1;
  out.vvvv = 0;
  out.wide = false;
  if ((op & 0xfe) === 0xc4 && (long || (p < limit && bytes[p] >= 0xc0 && (ctx & (Ctx.protected | Ctx.v86)) === Ctx.protected))) {
    if (p + (op & 1 ? 1 : 2) > limit) return short(limit, at);
    // VEX takes the place of all these.
    if (opsize || rep || rex || out.lock) return Decode.undefined;
    const first = bytes[p++];
    rex = 0x40 | (first & 0x80 ? 0 : 4);
    map = 1;
    let last = first;
    if (op === 0xc4) {
      map = first & 31;
      if (map < 1 || map > 3) return Decode.undefined;
      last = bytes[p++];
      rex |= (first & 0x40 ? 0 : 2) | (first & 0x20 ? 0 : 1) | (last & 0x80 ? 8 : 0);
    }
    if (!long) rex &= 8;
    out.vvvv = (~last >> 3) & (long ? 15 : 7);
    out.wide = (last & 4) !== 0;
    pp = last & 3;
    map += 4;
    if (p >= limit) return short(limit, at);
    op = bytes[p++];
  } else if (op === 0x0f) {
    if (p >= limit) return short(limit, at);
    op = bytes[p++];
    map = 1;
    if (op === 0x38 || op === 0x3a) {
      map = op === 0x38 ? 2 : 3;
      if (p >= limit) return short(limit, at);
      op = bytes[p++];
    }
  }
  // F3 90 is PAUSE; with REX.B it exchanges with r8, and F3 means nothing.
  const repeats = rep === 3 && !(op === 0x90 && map === 0 && rex & 1);
  const prefix = pp >= 0 ? pp : repeats ? 2 : rep === 2 ? 3 : opsize ? 1 : 0;
  let index = tables.first[long ? 1 : 0][(map * 4 + prefix) * 256 + op];
  if (index === -1) return Decode.undefined;
  if (index < -1) {
    if (p >= limit) return short(limit, at);
    index = tables.second[-2 - index][(rex & 8 ? 256 : 0) + bytes[p]];
    if (index === -1) return Decode.undefined;
  }
  const row = tables.rows[index];
  if (pp >= 0 && ((row.wide >= 0 && out.wide !== (row.wide === 1)) || (!row.vvvv && out.vvvv !== 0))) return Decode.undefined;
  out.row = row;
  out.rex = rex;
  out.rep = rep;
  if (pp >= 0) {
    out.size = long && rex & 8 ? 64 : 32;
    const wide = long || (ctx & Ctx.big) !== 0;
    out.addressSize = long ? (adsize ? 32 : 64) : wide !== adsize ? 32 : 16;
  } else if (long) {
    if (row.defaultSize === 'f64') out.size = 64;
    else if (rex & 8) out.size = 64;
    else if (opsize) out.size = 16;
    else out.size = row.defaultSize === 'd64' ? 64 : 32;
    out.addressSize = adsize ? 32 : 64;
  } else {
    const big = (ctx & Ctx.big) !== 0;
    out.size = big !== opsize ? 32 : 16;
    out.addressSize = big !== adsize ? 32 : 16;
  }
  // A gather needs its index.
  if (row.vsib && p < limit && (bytes[p] & 7) !== 4) return Decode.undefined;
  // A mandatory 66 prefix is no operand size, except in front of integer operands (CRC32, MOVBE with F2: 66 comes in addition).
  if (row.prefix === 1 && out.size === 16 && !row.sized) out.size = 32;
  // 90 is NOP, not XCHG EAX,EAX that would clear the upper half of RAX.
  if (long && op === 0x90 && map === 0 && (rex & 1) === 0) out.size = 64;
  out.isMemory = false;
  out.base = -1;
  out.index = -1;
  out.scale = 0;
  out.disp = 0;
  out.dispHigh = 0;
  out.segment = 3;
  if (row.hasModrm) {
    if (p >= limit) return short(limit, at);
    const modrm = bytes[p++];
    out.modrm = modrm;
    const mod = modrm >> 6;
    out.reg = ((modrm >> 3) & 7) | (rex & 4 ? 8 : 0);
    const rm = modrm & 7;
    // MOV CR/DR take a register whatever ModRM.mod says.
    if (mod === 3 || row.form === 'reg') out.rm = rm | (rex & 1 ? 8 : 0);
    else {
      out.isMemory = true;
      let dispSize = mod === 1 ? 1 : mod === 2 ? 4 : 0;
      if (out.addressSize === 16) {
        out.base = BASE16[rm];
        out.index = INDEX16[rm];
        if (out.base === -1) {
          out.base = out.index;
          out.index = -1;
        }
        if (mod === 2) dispSize = 2;
        if (mod === 0 && rm === 6) {
          out.base = -1;
          dispSize = 2;
        }
        if (out.base === 5) out.segment = 2;
      } else {
        let base = rm;
        if (rm === 4) {
          if (p >= limit) return short(limit, at);
          const sib = bytes[p++];
          base = sib & 7;
          const idx = ((sib >> 3) & 7) | (rex & 2 ? 8 : 0);
          if (idx !== 4 || row.vsib) {
            out.index = idx;
            out.scale = sib >> 6;
          }
          if (base === 5 && mod === 0) {
            base = -1;
            dispSize = 4;
          }
        } else if (rm === 5 && mod === 0) {
          base = long ? 16 : -1;
          dispSize = 4;
        }
        out.base = base === 16 || base < 0 ? base : base | (rex & 1 ? 8 : 0);
        if (base === 4 || (base === 5 && out.base < 8) || (base === 5 && out.base === 5)) {
          if (out.base === 4 || out.base === 5) out.segment = 2;
        }
      }
      if (p + dispSize > limit) return short(limit, at);
      if (dispSize === 1) out.disp = (bytes[p] << 24) >> 24;
      else if (dispSize === 2) out.disp = ((bytes[p] | (bytes[p + 1] << 8)) << 16) >> 16;
      else if (dispSize === 4) out.disp = bytes[p] | (bytes[p + 1] << 8) | (bytes[p + 2] << 16) | (bytes[p + 3] << 24);
      p += dispSize;
    }
  } else {
    out.modrm = 0;
    out.reg = 0;
    out.rm = (op & 7) | (rex & 1 ? 8 : 0);
  }
  if (op === 0x90 && map === 0 && pp < 0 && out.rm === 0 && !(rep === 3) && tables.nop) out.row = tables.nop;
  for (const s of row.trailing) {
    if (s.from !== 'moffs') {
      let bits = bitsOf(s.immWidth, out.size);
      // Near branches in 64-bit code have 32-bit displacements whatever the prefixes say.
      if (s.from === 'rel' && s.immWidth === 'z' && long) bits = 32;
      const n = bits >> 3;
      if (p + n > limit) return short(limit, at);
      let low = 0;
      let high = 0;
      if (n === 1) low = bytes[p];
      else if (n === 2) low = bytes[p] | (bytes[p + 1] << 8);
      else {
        low = bytes[p] | (bytes[p + 1] << 8) | (bytes[p + 2] << 16) | (bytes[p + 3] << 24);
        if (n === 8) high = bytes[p + 4] | (bytes[p + 5] << 8) | (bytes[p + 6] << 16) | (bytes[p + 7] << 24);
      }
      p += n;
      if (s.signed && n < 8) {
        if (n < 4) low = (low << (32 - bits)) >> (32 - bits);
        high = low >> 31;
      }
      // Operand values of 8 and 16 bits are zero-extended everywhere.
      if (s.from === 'imm' && s.width !== 8 && out.size === 16) {
        low &= 0xffff;
        high = 0;
      }
      if (s.from === 'imm2') out.imm2 = low;
      else {
        out.immLow = low;
        out.immHigh = high;
      }
    } else {
      const n = out.addressSize >> 3;
      if (p + n > limit) return short(limit, at);
      out.disp =
        n === 2 ? bytes[p] | (bytes[p + 1] << 8) : bytes[p] | (bytes[p + 1] << 8) | (bytes[p + 2] << 16) | (bytes[p + 3] << 24);
      out.dispHigh = n === 8 ? bytes[p + 4] | (bytes[p + 5] << 8) | (bytes[p + 6] << 16) | (bytes[p + 7] << 24) : 0;
      out.isMemory = true;
      p += n;
    }
  }
  if (out.override >= 0) out.segment = out.override;
  // POP to memory addresses with the stack pointer after the pop.
  if (out.isMemory && out.base === 4 && row.mnemonic === 'pop') out.disp += out.size / 8;
  out.length = p - at;
  // Destination, index and mask of a gather must be three registers.
  if (row.vsib && (out.addressSize === 16 || out.reg === out.vvvv || out.reg === out.index || out.index === out.vvvv))
    return Decode.undefined;
  if (out.lock && !(row.lockable && out.isMemory)) return Decode.undefined;
  return Decode.ok;
}
