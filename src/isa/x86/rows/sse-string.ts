// SSE4.2: PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM (Intel SDM volume 2, section 4.1) and CRC32.

import type { Value } from '../../../ir/ir.ts';
import { type Emit, type InsnEmit, type Operand, type Size, typeOf } from '../emit.ts';
import { insn, type Row } from '../row.ts';
import { fA, fC, fN, fO, fZ, R, xmm } from '../state.ts';
import { type Sub, sub } from '../sub.ts';
import { choice, maskOf, SSE, zeroVec } from './sse.ts';

// -- string comparison; immediate: bit 0 words, bit 1 signed, bits 2–3 aggregation, bits 4–5 polarity, bit 6 output

/** 1 << n less 1, for n of 0 to 16. */
const ones = (c: Emit, n: Value): Value => c.b.sub(c.b.shl(c.b.i32(1), n), c.b.i32(1));

/** Comparison of all elements of one width: `a` the destination with `la` valid elements, `s` the source with the mask `valid`. */
function aggregate(c: Emit, shape: 'i8x16' | 'i16x8', imm: Value, a: Value, s: Value, la: Value, lb: Value): Value {
  const b = c.b;
  const words = shape === 'i16x8';
  const full = words ? 0xff : 0xffff;
  const valid = ones(c, lb);
  const bits = (op: string, x: Value, y: Value): Value => b.op(`${shape}.bitmask`, b.op(`${shape}.${op}`, x, y));
  /** Element `i` of the destination in all lanes. */
  const element = (i: Value): Value => {
    if (!words) return b.op('i8x16.swizzle', a, b.op('i8x16.splat', i));
    const at = b.mul(i, b.i32(0x0202));
    return b.op('i8x16.swizzle', a, b.op('i16x8.splat', b.add(at, b.i32(0x0100))));
  };
  const result = b.variable(b.i32(0));
  const i = b.variable(b.i32(0));
  const loop = (step: number, body: (index: Value) => void): void => {
    b.loop((again) => {
      const index = b.getVar(i);
      b.if(b.leu(b.add(index, b.i32(step)), la), () => {
        body(index);
        b.setVar(i, b.add(index, b.i32(step)));
        b.br(again);
      });
    });
  };
  const add = (found: Value): void => b.setVar(result, b.or(b.getVar(result), found));
  choice(c, 'i32', b.and(b.shru(imm, b.i32(2)), b.i32(3)), [
    // Equal any: elements of the source that occur in the destination.
    () => {
      loop(1, (index) => add(bits('eq', element(index), s)));
      b.setVar(result, b.and(b.getVar(result), valid));
      return b.i32(0);
    },
    // Ranges: pairs of bounds in the destination.
    () => {
      const within = (sign: 's' | 'u', low: Value, high: Value): Value =>
        b.and(bits(`ge_${sign}`, s, low), bits(`le_${sign}`, s, high));
      loop(2, (index) => {
        const low = element(index);
        const high = element(b.add(index, b.i32(1)));
        add(c.choose('i32', b.and(imm, b.i32(2)), () => within('s', low, high), () => within('u', low, high))); // biome-ignore format: one call
      });
      b.setVar(result, b.and(b.getVar(result), valid));
      return b.i32(0);
    },
    // Equal each: equal at the same place; two invalid elements are equal.
    () => {
      const inA = ones(c, la);
      const equal = b.and(b.and(bits('eq', a, s), inA), valid);
      const neither = b.and(b.not(b.or(inA, valid)), b.i32(full));
      b.setVar(result, b.or(equal, neither));
      return b.i32(0);
    },
    // Equal ordered: places where the destination starts as a substring; it may go on past the end.
    () => {
      b.setVar(result, b.i32(full));
      loop(1, (index) => {
        const equal = b.shru(b.and(bits('eq', element(index), s), valid), index);
        const beyond = b.not(b.shru(b.i32(full), index));
        b.setVar(result, b.and(b.getVar(result), b.or(equal, beyond)));
      });
      return b.i32(0);
    },
  ]);
  const found = b.getVar(result);
  // Polarity: negative, or negative for valid elements only.
  const flip = b.select(b.and(imm, b.i32(0x20)), valid, b.i32(full));
  return b.xor(found, b.select(b.and(imm, b.i32(0x10)), flip, b.i32(0)));
}

/** (destination, source, their lengths in elements, immediate): IntRes2, one bit per element. */
const compareStrings: Sub = sub(
  'sse.compare_strings',
  ['v128', 'v128', 'i32', 'i32', 'i32'],
  'i32',
  {},
  (c, a, s, la, lb, imm) => {
    const b = c.b;
    b.if(b.and(imm, b.i32(1)), () => b.ret(aggregate(c, 'i16x8', imm, a, s, la, lb)));
    b.ret(aggregate(c, 'i8x16', imm, a, s, la, lb));
  },
);
/** (vector, immediate): elements before the first zero. */
const implicitLength: Sub = sub('sse.implicit_length', ['v128', 'i32'], 'i32', {}, (c, x, imm) => {
  const b = c.b;
  const zero = zeroVec(c);
  const bytes = b.op('i8x16.bitmask', b.op('i8x16.eq', x, zero));
  const words = b.op('i16x8.bitmask', b.op('i16x8.eq', x, zero));
  const isWords = b.and(imm, b.i32(1));
  b.ret(b.ctz(b.select(isWords, b.or(words, b.i32(0x100)), b.or(bytes, b.i32(0x10000)))));
});
/** A length in a register: its magnitude, at most the number of elements. */
function explicitLength(c: InsnEmit, register: number, size: 32 | 64, limit: Value): Value {
  const b = c.b;
  const x = c.reg(register, size);
  const magnitude = b.select(b.lts(x, b.int(x.type, 0)), b.neg(x), x);
  return b.select(b.ltu(magnitude, b.fit(x.type as 'i32', limit)), b.wrap(magnitude), limit);
}

function stringRow(opcode: string, asm: string, lengths: 0 | 32 | 64, output: 'index' | 'mask'): Row {
  return insn(opcode, `${asm} Vx,Wu,Ib`, lengths === 64 ? { ...SSE, mode: 'long' } : SSE, (c, d, s, i) => {
    const b = c.b;
    const y = c.readVec(s, 'v128');
    const x = c.readVec(d, 'v128');
    const imm = c.imm(i);
    const count = b.shru(b.i32(16), b.and(imm, b.i32(1)));
    const [la, lb] =
      lengths === 0
        ? [c.call(implicitLength, x, imm), c.call(implicitLength, y, imm)]
        : [explicitLength(c, R.rax, lengths, count), explicitLength(c, R.rdx, lengths, count)];
    const found = c.call(compareStrings, x, y, la, lb, imm);
    if (output === 'index') {
      const first = b.ctz(b.or(found, b.shl(b.i32(1), count)));
      const last = b.select(found, b.sub(b.i32(31), b.clz(found)), count);
      c.setReg(R.rcx, 32, b.select(b.and(imm, b.i32(0x40)), last, first));
    } else {
      c.set(
        xmm[0],
        c.choose(
          'v128',
          b.and(imm, b.i32(0x40)),
          () => c.choose('v128', b.and(imm, b.i32(1)), () => maskOf(c, 16, found), () => maskOf(c, 8, found)),
          () => b.lane('i32x4.replace_lane', [0], zeroVec(c), found),
        ),
      ); // biome-ignore format: one call
    }
    if (!c.flagsLive) return;
    c.set(fC, b.ne(found, b.i32(0)));
    c.set(fZ, b.extu(b.geu(lb, count)));
    // SF at the top; a low byte of 1 keeps PF clear.
    c.set(fN, b.or(b.shl(b.extu(b.ltu(la, count)), b.i64(63)), b.i64(1)));
    c.set(fO, b.neg(b.and(found, b.i32(1))));
    c.set(fA, b.i32(0));
  });
}

// -- CRC32: polynomial 11EDC6F41H, bits reflected

/** The remainder that the single bit `bit` of a message's last `width` bits leaves. */
function crcOfBit(bit: number, width: number): number {
  let crc = bit < 32 ? (1 << bit) >>> 0 : 0;
  let rest = bit >= 32 ? 2 ** (bit - 32) : 0;
  for (let i = 0; i < width; i++) {
    const out = crc & 1;
    crc = ((crc >>> 1) | (rest & 1 ? 0x80000000 : 0)) >>> 0;
    rest = Math.floor(rest / 2);
    if (out) crc = (crc ^ 0x82f63b78) >>> 0;
  }
  return crc;
}
/** (v): the remainder of the low `width` bits of v (i32, i64 for 64): linear in its bits, four of them at a time. */
const crcOf = (width: Size): Sub =>
  sub(`crc32.${width}`, [typeOf(width)], 'i32', {}, (c, v) => {
    const b = c.b;
    const quad = (of: (i: number) => number): Value =>
      b.v128(new Uint8Array(Uint32Array.from({ length: 4 }, (_, i) => of(i)).buffer));
    let sum = zeroVec(c);
    for (let base = 0; base < width; base += 32) {
      const part = b.op('i32x4.splat', base ? b.wrap(b.shru(v, b.i64(32))) : b.wrap(v));
      for (let at = 0; at < Math.min(width, 32); at += 4) {
        const chosen = quad((i) => 2 ** (at + i));
        const isSet = b.op('i32x4.eq', b.op('v128.and', part, chosen), chosen);
        sum = b.op('v128.xor', sum, b.op('v128.and', isSet, quad((i) => crcOfBit(base + at + i, width)))); // biome-ignore format: one call
      }
    }
    const lane = (i: number): Value => b.lane('i32x4.extract_lane', [i], sum);
    b.ret(b.xor(b.xor(lane(0), lane(1)), b.xor(lane(2), lane(3))));
  });
const crcs: Readonly<Record<Size, Sub>> = { 8: crcOf(8), 16: crcOf(16), 32: crcOf(32), 64: crcOf(64) };

const crc32 = (c: InsnEmit, d: Operand, s: Operand): void => {
  const b = c.b;
  const width = s.bits as Size;
  const data = c.read(s);
  const old = b.wrap(c.read(d));
  const mixed = b.xor(b.fit(typeOf(width) as 'i32', old), data);
  const rest = c.call(crcs[width], mixed);
  const result = width < 32 ? b.xor(rest, b.shru(old, b.i32(width))) : rest;
  c.write(d, b.fit(d.bits === 64 ? 'i64' : 'i32', result));
};

export const sseStringRows: readonly Row[] = [
  stringRow('66 0F 3A 60', 'pcmpestrm', 32, 'mask'),
  stringRow('66 0F 3A 61', 'pcmpestri', 32, 'index'),
  stringRow('66 REX.W 0F 3A 60', 'pcmpestrm', 64, 'mask'),
  stringRow('66 REX.W 0F 3A 61', 'pcmpestri', 64, 'index'),
  stringRow('66 0F 3A 62', 'pcmpistrm', 0, 'mask'),
  stringRow('66 0F 3A 63', 'pcmpistri', 0, 'index'),
  insn('F2 0F 38 F0', 'crc32 Gy,Eb', crc32),
  insn('F2 0F 38 F1', 'crc32 Gy,Ev', crc32),
];
