// AVX and AVX2 instructions that SSE does not have: broadcasts, permutations over both halves, blends by a register, masked moves,
// shifts by lane, gathers, comparisons with 32 predicates (Intel SDM volume 2).

import type { Value } from '../../../ir/ir.ts';
import type { Emit, InsnEmit, Operand } from '../emit.ts';
import { insn, type Row } from '../row.ts';
import { softCompare } from '../softfloat.ts';
import { Order, type Width } from '../softfloat-core.ts';
import { fA, fC, fN, fO, fZ, xmm, ymmHigh } from '../state.ts';
import { type Sub, sub } from '../sub.ts';
import { bytes, highHalf, join, laneShape, lanes32, lowHalf, maskOf, shuffle, zeroVec } from './sse.ts';
import { bitsOf, exact, forWidths, guarded, laneBits, packedForm, scalarForm, shapes, widths, withLane } from './sse-math.ts';
import { AVX, halvesOf, readAll, writeAll } from './vex.ts';

// -- broadcasts and 128-bit parts

const broadcast = (opcode: string, name: string, code: string, of: (c: InsnEmit, s: Operand) => Value): Row =>
  insn(opcode, `${name} Vx,${code}`, AVX, (c, d, s) => {
    const v = of(c, s);
    writeAll(c, d, halvesOf(c).map(() => v)); // biome-ignore format: one call
  });
const splat = {
  8: (c: InsnEmit, s: Operand): Value => c.b.op('i8x16.splat', c.readVec(s, 'i32.8u')),
  16: (c: InsnEmit, s: Operand): Value => c.b.op('i16x8.splat', c.readVec(s, 'i32.16u')),
  32: (c: InsnEmit, s: Operand): Value => c.b.op('i32x4.splat', c.readVec(s, 'i32')),
  64: (c: InsnEmit, s: Operand): Value => c.b.op('i64x2.splat', c.readVec(s, 'i64')),
  128: (c: InsnEmit, s: Operand): Value => c.readVec(s, 'v128'),
} as const;
const broadcastRows = [
  broadcast('VEX.66.0F38.W0 18', 'vbroadcastss', 'Wd', splat[32]),
  broadcast('VEX.256.66.0F38.W0 19', 'vbroadcastsd', 'Wq', splat[64]),
  broadcast('VEX.256.66.0F38.W0 1A', 'vbroadcastf128', 'Mu', splat[128]),
  broadcast('VEX.256.66.0F38.W0 5A', 'vbroadcasti128', 'Mu', splat[128]),
  broadcast('VEX.66.0F38.W0 78', 'vpbroadcastb', 'Wb', splat[8]),
  broadcast('VEX.66.0F38.W0 79', 'vpbroadcastw', 'Ww', splat[16]),
  broadcast('VEX.66.0F38.W0 58', 'vpbroadcastd', 'Wd', splat[32]),
  broadcast('VEX.66.0F38.W0 59', 'vpbroadcastq', 'Wq', splat[64]),
];
const bit = (c: Emit, v: Value, n: number): Value => c.b.and(c.b.shru(v, c.b.i32(n)), c.b.i32(1));
const insert128 = (opcode: string, name: string): Row =>
  insn(`VEX.256.66.0F3A.W0 ${opcode}`, `${name} Vx,Hx,Wu,Ib`, AVX, (c, d, h, s, i) => {
    const v = c.readVec(s, 'v128');
    const high = bit(c, c.imm(i), 0);
    c.writeHalves(d, c.b.select(high, c.readHalf(h, 0), v), c.b.select(high, v, c.readHalf(h, 1)));
  });
const extract128 = (opcode: string, name: string): Row =>
  insn(`VEX.256.66.0F3A.W0 ${opcode}`, `${name} Wu,Vx,Ib`, AVX, (c, d, s, i) => {
    const v = c.b.select(bit(c, c.imm(i), 0), c.readHalf(s, 1), c.readHalf(s, 0));
    if (d.isMemory) c.writeVec(d, 'v128', v);
    else c.writeHalves(d, v, null);
  });
const permute128 = (opcode: string, name: string): Row =>
  insn(`VEX.256.66.0F3A.W0 ${opcode}`, `${name} Vx,Hx,Wu,Ib`, AVX, (c, d, h, s, i) => {
    const b = c.b;
    const y = readAll(c, s);
    const x = readAll(c, h);
    const imm = c.imm(i);
    const half = (at: number): Value => {
      const high = bit(c, imm, at);
      const from = b.select(bit(c, imm, at + 1), b.select(high, y[1]!, y[0]!), b.select(high, x[1]!, x[0]!));
      return b.select(bit(c, imm, at + 3), zeroVec(c), from);
    };
    c.writeHalves(d, half(0), half(4));
  });

// -- permutations

/** Byte indices from the low bits of 32-bit lanes. */
const indices32 = (c: Emit, v: Value): Value =>
  c.b.op('i32x4.add', c.b.op('i32x4.mul', c.b.op('v128.and', v, lanes32(c, 3)), lanes32(c, 0x04040404)), lanes32(c, 0x03020100));
const permilps = (c: Emit, x: Value, control: Value): Value => c.b.op('i8x16.swizzle', x, indices32(c, control));
/** Bit 1 of each 64-bit lane of the control chooses the half. */
function permilpd(c: Emit, x: Value, control: Value): Value {
  const b = c.b;
  const upper = b.op('i64x2.shr_s', b.op('i64x2.shl', control, b.i32(62)), b.i32(63));
  const splatHalf = (half: number): Value => shuffle(c, bytes(8, [half, half]), x, x);
  return b.op('v128.bitselect', splatHalf(1), splatHalf(0), upper);
}
const permilRows = [
  ...([['0C', 'vpermilps', permilps], ['0D', 'vpermilpd', permilpd]] as const).map(([opcode, name, f]) =>
    insn(`VEX.66.0F38.W0 ${opcode}`, `${name} Vx,Hx,Wu`, AVX, (c, d, h, s) => {
      const control = readAll(c, s);
      writeAll(c, d, control.map((v, k) => f(c, c.readHalf(h, k as 0 | 1), v))); // biome-ignore format: one call
    }),
  ), // biome-ignore format: a table
  insn('VEX.66.0F3A.W0 04', 'vpermilps Vx,Wu,Ib', AVX, (c, d, s, i) => {
    const imm = c.b.op('i32x4.splat', c.imm(i));
    const control = [0, 2, 4, 6].reduce(
      (v, n, lane) => c.b.lane('i32x4.replace_lane', [lane], v, c.b.shru(c.imm(i), c.b.i32(n))),
      imm,
    );
    writeAll(c, d, readAll(c, s).map((x) => permilps(c, x, control))); // biome-ignore format: one call
  }),
  insn('VEX.66.0F3A.W0 05', 'vpermilpd Vx,Wu,Ib', AVX, (c, d, s, i) => {
    const b = c.b;
    const results = readAll(c, s).map((x, k) => {
      const lane = (n: number): Value => b.extu(b.shl(bit(c, c.imm(i), 2 * k + n), b.i32(1)));
      return permilpd(c, x, join(c, lane(0), lane(1)));
    });
    writeAll(c, d, results);
  }),
];
const permuteDoubles = (opcode: string, name: string): Row =>
  insn(`VEX.256.66.0F38.W0 ${opcode}`, `${name} Vx,Hx,Wu`, AVX, (c, d, h, s) => {
    const b = c.b;
    const [low, high] = readAll(c, s) as [Value, Value];
    const results = readAll(c, h).map((index) => {
      const upper = b.op('i32x4.shr_s', b.op('i32x4.shl', index, b.i32(29)), b.i32(31));
      return b.op('v128.bitselect', permilps(c, high, index), permilps(c, low, index), upper);
    });
    writeAll(c, d, results);
  });
const permuteQuads = (opcode: string, name: string): Row =>
  insn(`VEX.256.66.0F3A.W1 ${opcode}`, `${name} Vx,Wu,Ib`, AVX, (c, d, s, i) => {
    const b = c.b;
    const [low, high] = readAll(c, s) as [Value, Value];
    const quad = (n: number): Value => {
      const from = b.select(bit(c, c.imm(i), 2 * n + 1), high, low);
      return b.select(bit(c, c.imm(i), 2 * n), highHalf(c, from), lowHalf(c, from));
    };
    c.writeHalves(d, join(c, quad(0), quad(1)), join(c, quad(2), quad(3)));
  });

// -- blends

const blendBy = (opcode: string, name: string, shape: string, width: number): Row =>
  insn(`VEX.66.0F3A.W0 ${opcode}`, `${name} Vx,Hx,Wu,Lx`, AVX, (c, d, h, s, l) => {
    const y = readAll(c, s);
    const results = y.map((v, k) => {
      const half = k as 0 | 1;
      const mask = c.b.op(`${shape}.shr_s`, c.readHalf(l, half), c.b.i32(width - 1));
      return c.b.op('v128.bitselect', v, c.readHalf(h, half), mask);
    });
    writeAll(c, d, results);
  });
const blendDoubles = insn('VEX.66.0F3A.W0 02', 'vpblendd Vx,Hx,Wu,Ib', AVX, (c, d, h, s, i) => {
  const results = readAll(c, s).map((y, k) => {
    const mask = maskOf(c, 32, c.b.and(c.b.shru(c.imm(i), c.b.i32(4 * k)), c.b.i32(15)));
    return c.b.op('v128.bitselect', y, c.readHalf(h, k as 0 | 1), mask);
  });
  writeAll(c, d, results);
});

// -- tests

function test(c: InsnEmit, d: Operand, s: Operand, sign: Value | null): void {
  const b = c.b;
  const y = readAll(c, s);
  const x = readAll(c, d);
  if (!c.flagsLive) return;
  const any = (op: string): Value =>
    y
      .map((v, k) => b.op(op, v, x[k]!))
      .map((v) => b.op('v128.any_true', sign ? b.op('v128.and', v, sign) : v))
      .reduce((p, q) => b.or(p, q));
  c.set(fZ, b.extu(any('v128.and')));
  c.set(fC, b.eqz(any('v128.andnot')));
  c.set(fN, b.i64(1));
  c.set(fO, b.i32(0));
  c.set(fA, b.i32(0));
}
const signs32 = (c: Emit): Value => lanes32(c, 0x80000000);
const signs64 = (c: Emit): Value => lanes32(c, 0, 0x80000000);
const testRows = [
  insn('VEX.66.0F38 17', 'vptest Vx,Wu', AVX, (c, d, s) => test(c, d, s, null)),
  insn('VEX.66.0F38.W0 0E', 'vtestps Vx,Wu', AVX, (c, d, s) => test(c, d, s, signs32(c))),
  insn('VEX.66.0F38.W0 0F', 'vtestpd Vx,Wu', AVX, (c, d, s) => test(c, d, s, signs64(c))),
];

// -- masked moves: lanes whose mask is clear are not touched, and read as zero

const maskedLoad = forWidths((w) =>
  sub(`vex.masked_load${w}`, ['i64', 'v128'], 'v128', { faults: true }, (c, address, mask) => {
    const b = c.b;
    const shape = laneShape[w];
    const result = b.variable(zeroVec(c));
    for (let i = 0; i < 128 / w; i++) {
      b.if(bit(c, b.op(`${shape}.bitmask`, mask), i), () => {
        const v = b.load(w === 64 ? 'i64' : 'i32', b.add(address, b.i64((i * w) / 8)));
        b.setVar(result, b.lane(`${shape}.replace_lane`, [i], b.getVar(result), v));
      });
    }
    b.ret(b.getVar(result));
  }),
);
/** (address, data, mask): with `store` writes the lanes, else raises what that would raise. */
const maskedWrite = (name: string, w: Width, store: boolean): Sub =>
  sub(`vex.masked_${name}${w}`, ['i64', 'v128', 'v128'], null, { faults: true }, (c, address, data, mask) => {
    const b = c.b;
    const shape = laneShape[w];
    const access = w === 64 ? 'i64' : 'i32';
    for (let i = 0; i < 128 / w; i++) {
      b.if(bit(c, b.op(`${shape}.bitmask`, mask), i), () => {
        const at = b.add(address, b.i64((i * w) / 8));
        if (store) b.store(access, at, b.lane(`${shape}.extract_lane`, [i], data));
        else b.load(access, at, { forWrite: true });
      });
    }
    b.ret();
  });
/** What cannot be written faults before anything is. */
const maskedStore = forWidths((w) => [maskedWrite('probe', w, false), maskedWrite('store', w, true)] as const);
/** Where segments have limits, each lane that the mask names has an address of its own, which is checked, and no other. Calls `each` for these with the address. */
function eachLimited(
  c: InsnEmit,
  o: Operand,
  w: Width,
  masks: Value[],
  write: boolean,
  each: (at: Value, half: 0 | 1, i: number) => void,
): void {
  const b = c.b;
  const lanes = 128 / w;
  masks.forEach((mask, half) => {
    const named = b.op(`${laneShape[w]}.bitmask`, mask);
    for (let i = 0; i < lanes; i++) {
      const offset = c.cutAddress(b.add(c.effective(o), b.i64(((half * lanes + i) * w) / 8)));
      b.if(bit(c, named, i), () => each(c.linearData(offset, w / 8, write), half as 0 | 1, i));
    }
  });
}
function maskedRows(load: string, store: string, name: string, w: Width, wbit: string): Row[] {
  const access = w === 64 ? 'i64' : 'i32';
  const shape = laneShape[w];
  return [
    insn(`VEX.66.0F38.${wbit} ${load} /m`, `${name} Vx,Hx,Mu`, AVX, (c, d, h, s) => {
      const b = c.b;
      const masks = readAll(c, h);
      if (!c.long && !c.flatIn()) {
        const results = masks.map(() => b.variable(zeroVec(c)));
        eachLimited(c, s, w, masks, false, (at, half, i) => {
          const result = results[half]!;
          b.setVar(result, b.lane(`${shape}.replace_lane`, [i], b.getVar(result), b.load(access, at)));
        });
        writeAll(c, d, results.map((r) => b.getVar(r))); // biome-ignore format: one call
        return;
      }
      const address = c.linear(s, c.wide ? 32 : 16, false);
      const at = (k: number): Value => (k ? b.add(address, b.i64(16)) : address);
      writeAll(c, d, masks.map((m, k) => c.call(maskedLoad[w], at(k), m))); // biome-ignore format: one call
    }),
    insn(`VEX.66.0F38.${wbit} ${store} /m`, `${name} Mu,Hx,Vx`, AVX, (c, d, h, s) => {
      const b = c.b;
      const masks = readAll(c, h);
      if (!c.long && !c.flatIn()) {
        eachLimited(c, d, w, masks, true, (at) => b.load(access, at, { forWrite: true }));
        eachLimited(c, d, w, masks, true, (at, half, i) =>
          b.store(access, at, b.lane(`${shape}.extract_lane`, [i], c.readHalf(s, half))),
        );
        return;
      }
      const address = c.linear(d, c.wide ? 32 : 16, true);
      for (const target of maskedStore[w])
        masks.forEach((m, k) => {
          c.do(target, k ? b.add(address, b.i64(16)) : address, c.readHalf(s, k as 0 | 1), m);
        });
    }),
  ];
}

// -- shifts by counts of their own

function shiftLanes(c: Emit, w: 32 | 64, op: 'shl' | 'shr_u' | 'shr_s', x: Value, counts: Value): Value {
  const b = c.b;
  const shape = laneShape[w];
  let r = x;
  for (let i = 0; i < 128 / w; i++) {
    const v = b.lane(`${shape}.extract_lane`, [i], x);
    const n = b.lane(`${shape}.extract_lane`, [i], counts);
    const inside = b.ltu(n, b.int(n.type, w));
    const shifted =
      op === 'shl'
        ? b.select(inside, b.shl(v, n), b.int(v.type, 0))
        : op === 'shr_u'
          ? b.select(inside, b.shru(v, n), b.int(v.type, 0))
          : b.shrs(v, b.select(inside, n, b.int(n.type, w - 1)));
    r = b.lane(`${shape}.replace_lane`, [i], r, shifted);
  }
  return r;
}
const shiftRow = (opcode: string, name: string, w: 32 | 64, op: 'shl' | 'shr_u' | 'shr_s'): Row =>
  insn(`VEX.66.0F38.${w === 64 ? 'W1' : 'W0'} ${opcode}`, `${name} Vx,Hx,Wu`, AVX, (c, d, h, s) => {
    const counts = readAll(c, s);
    writeAll(c, d, counts.map((n, k) => shiftLanes(c, w, op, c.readHalf(h, k as 0 | 1), n))); // biome-ignore format: one call
  });

// -- gathers: each element that has been read clears its mask, so that a fault can be resumed

function gather(opcode: string, name: string, element: Width, index: Width): Row {
  const shape = laneShape[element];
  return insn(`VEX.66.0F38.${element === 64 ? 'W1' : 'W0'} ${opcode} /m`, `${name} Vx,Mvs,Hx`, AVX, (c, d, m, h) => {
    const b = c.b;
    const indices = c.vectorIndex();
    const base = c.effective(m);
    const count = (c.wide ? 256 : 128) / Math.max(element, index);
    const indexAt = (i: number): Value => {
      const per = 128 / index;
      const from = i < per ? indices.low : indices.high;
      if (index === 64) return b.lane('i64x2.extract_lane', [i % per], from);
      return b.exts(b.lane('i32x4.extract_lane', [i % per], from));
    };
    const perHalf = 128 / element;
    const two = count > perHalf;
    // The mask is spread over its lanes first.
    const spread = (half: 0 | 1): Value => c.b.op(`${shape}.shr_s`, c.readHalf(h, half), b.i32(element - 1));
    c.writeHalves(h, spread(0), c.wide ? spread(1) : null);
    for (let i = 0; i < count; i++) {
      const half = (i >= perHalf ? 1 : 0) as 0 | 1;
      const lane = i % perHalf;
      const mask = c.readHalf(h, half);
      const wanted = b.lts(b.lane(`${shape}.extract_lane`, [lane], mask), element === 64 ? b.i64(0) : b.i32(0));
      b.if(wanted, () => {
        const offset = c.cutAddress(b.add(base, b.shl(indexAt(i), indices.scale)));
        const v = b.load(element === 64 ? 'i64' : 'i32', c.linearData(offset, element / 8, false));
        const put = (o: Operand, value: Value, both: boolean): void => {
          const changed = b.lane(`${shape}.replace_lane`, [lane], c.readHalf(o, half), value);
          const other = both ? c.readHalf(o, half ? 0 : 1) : null;
          c.writeHalves(o, half ? other! : changed, half ? changed : other);
        };
        put(d, v, c.wide);
        put(h, element === 64 ? b.i64(0) : b.i32(0), c.wide);
      });
    }
    // What lies above the elements becomes zero.
    let low = c.readHalf(d, 0);
    if (count * element < 128) low = b.lane('i64x2.replace_lane', [1], low, b.i64(0));
    c.writeHalves(d, low, two ? c.readHalf(d, 1) : null);
    c.writeHalves(h, zeroVec(c), null);
  });
}

// -- comparisons: five bits of predicate

/** Orders that fulfil predicates 0 to 15 (16 to 31 are the same, with the other attitude to quiet NaNs). */
const accepted = [
  Order.equal, Order.less, Order.less | Order.equal, Order.unordered,
  Order.less | Order.greater | Order.unordered, Order.equal | Order.greater | Order.unordered, Order.greater | Order.unordered, Order.less | Order.equal | Order.greater,
  Order.equal | Order.unordered, Order.less | Order.unordered, Order.less | Order.equal | Order.unordered, 0,
  Order.less | Order.greater, Order.equal | Order.greater, Order.greater, 15,
]; // biome-ignore format: a table
/** Predicates that raise IE for quiet NaNs: a bit for each of the 32. */
const SIGNALS = 0x9999_6666;
const table64 = accepted.reduce((v, set, i) => v | (BigInt(set) << BigInt(4 * i)), 0n);
function compareLane(c: Emit, w: Width, mode: Value, x: Value, y: Value, p: Value): Value {
  const b = c.b;
  const signal = b.and(b.shru(b.i32(SIGNALS | 0), p), b.i32(1));
  const found = c.call(softCompare[w], mode, x, y, signal);
  const set = b.wrap(b.shru(b.i64(table64), b.extu(b.shl(b.and(p, b.i32(15)), b.i32(2)))));
  return b.ne(b.and(b.and(found, set), b.i32(15)), b.i32(0));
}
const cmpExact = {
  scalar: forWidths((w) =>
    exact(`vcmp.f${w}`, ['i64', 'i64', 'i32'], 'i64', (c, mode, x, y, p) => c.b.neg(c.b.extu(compareLane(c, w, mode, x, y, p)))),
  ),
  packed: forWidths((w) =>
    exact(`vcmp.${shapes[w].name}`, ['v128', 'v128', 'i32'], 'v128', (c, mode, x, y, p) => {
      let r = x;
      for (let i = 0; i < shapes[w].count; i++) {
        r = withLane(c, w, i, r, c.b.neg(c.b.extu(compareLane(c, w, mode, laneBits(c, w, i, x), laneBits(c, w, i, y), p))));
      }
      return r;
    }),
  ),
};
/** The fast path: equal, less, greater lanes; what is none of them is unordered. */
function compareFast(c: Emit, w: Width, x: Value, y: Value, p: Value): Value {
  const b = c.b;
  const { name } = shapes[w];
  const set = b.wrap(b.shru(b.i64(table64), b.extu(b.shl(b.and(p, b.i32(15)), b.i32(2)))));
  const where = (order: number): Value => b.op('i32x4.splat', b.neg(b.ne(b.and(set, b.i32(order)), b.i32(0))));
  const less = b.op(`${name}.lt`, x, y);
  const greater = b.op(`${name}.gt`, x, y);
  const equal = b.op(`${name}.eq`, x, y);
  const ordered = b.op('v128.or', b.op('v128.or', less, greater), equal);
  const parts = [b.op('v128.and', less, where(Order.less)), b.op('v128.and', greater, where(Order.greater)), b.op('v128.and', equal, where(Order.equal)), b.op('v128.andnot', where(Order.unordered), ordered)]; // biome-ignore format: one list
  return parts.reduce((v, part) => b.op('v128.or', v, part));
}
const cmpRows = widths.flatMap((w) => [
  insn(`VEX.${packedForm[w].prefix}.0F C2`, `vcmp${packedForm[w].suffix} Vx,Hx,Wu,Ib`, AVX, (c, d, h, s, i) => {
    const p = c.b.and(c.imm(i), c.b.i32(31));
    const results = readAll(c, s).map((y, k) => {
      const x = c.readHalf(h, k as 0 | 1);
      return guarded(c, 'v128', () => compareFast(c, w, x, y, p), () => c.call(cmpExact.packed[w], x, y, p)); // biome-ignore format: one call
    });
    writeAll(c, d, results);
  }),
  insn(
    `VEX.${scalarForm[w].prefix}.0F C2`,
    `vcmp${scalarForm[w].suffix} Vx,Hx,${scalarForm[w].source},Ib`,
    AVX,
    (c, d, h, s, i) => {
      const b = c.b;
      const p = b.and(c.imm(i), b.i32(31));
      const { type, name } = shapes[w];
      const y = c.readVec(s, type);
      const x = c.readVec(h, 'v128');
      const wide = b.op(`${name}.splat`, y);
      const lane = `${name}.extract_lane`;
      const fast = (): Value => compareFast(c, w, x, wide, p);
      const slow = (): Value => b.op('i64x2.splat', c.call(cmpExact.scalar[w], bitsOf(c, b.lane(lane, [0], x)), bitsOf(c, y), p));
      const r = guarded(c, 'v128', fast, slow);
      const int = w === 64 ? 'i64x2' : 'i32x4';
      c.writeHalves(d, b.lane(`${int}.replace_lane`, [0], x, b.lane(`${int}.extract_lane`, [0], r)), null);
    },
  ),
]);

// -- clearing

/** VZEROALL where VEX.L is set, else VZEROUPPER: eight registers outside 64-bit mode. */
export const zeroRow = insn('VEX.NP.0F 77', 'vzero', AVX, (c) => {
  const zero = c.b.variable(zeroVec(c));
  const count = c.long ? 16 : 8;
  for (let n = 0; n < count; n++) {
    c.set(ymmHigh[n]!, c.b.getVar(zero));
    if (c.wide) c.set(xmm[n]!, c.b.getVar(zero));
  }
});

export const vexLaneRows: readonly Row[] = [
  ...broadcastRows,
  insert128('18', 'vinsertf128'),
  insert128('38', 'vinserti128'),
  extract128('19', 'vextractf128'),
  extract128('39', 'vextracti128'),
  permute128('06', 'vperm2f128'),
  permute128('46', 'vperm2i128'),
  ...permilRows,
  permuteDoubles('36', 'vpermd'),
  permuteDoubles('16', 'vpermps'),
  permuteQuads('00', 'vpermq'),
  permuteQuads('01', 'vpermpd'),
  blendBy('4A', 'vblendvps', 'i32x4', 32),
  blendBy('4B', 'vblendvpd', 'i64x2', 64),
  blendBy('4C', 'vpblendvb', 'i8x16', 8),
  blendDoubles,
  ...testRows,
  ...maskedRows('2C', '2E', 'vmaskmovps', 32, 'W0'),
  ...maskedRows('2D', '2F', 'vmaskmovpd', 64, 'W0'),
  ...maskedRows('8C', '8E', 'vpmaskmovd', 32, 'W0'),
  ...maskedRows('8C', '8E', 'vpmaskmovq', 64, 'W1'),
  shiftRow('47', 'vpsllvd', 32, 'shl'),
  shiftRow('47', 'vpsllvq', 64, 'shl'),
  shiftRow('45', 'vpsrlvd', 32, 'shr_u'),
  shiftRow('45', 'vpsrlvq', 64, 'shr_u'),
  shiftRow('46', 'vpsravd', 32, 'shr_s'),
  gather('90', 'vpgatherdd', 32, 32),
  gather('90', 'vpgatherdq', 64, 32),
  gather('91', 'vpgatherqd', 32, 64),
  gather('91', 'vpgatherqq', 64, 64),
  gather('92', 'vgatherdps', 32, 32),
  gather('92', 'vgatherdpd', 64, 32),
  gather('93', 'vgatherqps', 32, 64),
  gather('93', 'vgatherqpd', 64, 64),
  ...cmpRows,
  zeroRow,
];
