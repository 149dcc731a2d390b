import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EvalMachine } from './eval-machine.ts';
import { softAdd, softCompare, softDiv, softMul, softSqrt, softSub } from './softfloat.ts';
import { softFromInt, softNarrow, softRound, softToInt, softWiden } from './softfloat-convert.ts';
import { Flag, Order, type Width } from './softfloat-core.ts';
import { sseFlags } from './state.ts';
import type { Sub } from './sub.ts';

const m = new EvalMachine([]);
const DEFAULT = 0x1f80;
const mode = (rc: number): number => DEFAULT | (rc << 13);

/** Runs a subroutine; gives its result as an unsigned number and the flags. */
function run(s: Sub, ...args: (number | bigint)[]): { r: bigint; flags: number } {
  m.set(sseFlags, 0);
  const r = m.call(s, ...args.map((a, i) => (s.params[i] === 'i64' ? BigInt.asIntN(64, BigInt(a)) : Number(a) | 0)));
  return { r: BigInt.asUintN(64, BigInt(r as number | bigint)), flags: m.get(sseFlags) as number };
}

const view = new DataView(new ArrayBuffer(8));
function bits(w: Width, x: number): bigint {
  if (w === 64) view.setFloat64(0, x);
  else view.setFloat32(0, x);
  return w === 64 ? view.getBigUint64(0) : BigInt(view.getUint32(0));
}
function value(w: Width, b: bigint): number {
  if (w === 64) {
    view.setBigUint64(0, b);
    return view.getFloat64(0);
  }
  view.setUint32(0, Number(b));
  return view.getFloat32(0);
}

const SEED = 20261123;
let state = SEED;
function random(): number {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
const word = (): number => Math.floor(random() * 2 ** 32);
/** A number that is not a NaN: any pattern, or exponents close enough together to interact. */
function number(w: Width): number {
  for (;;) {
    const wild = random() < 0.4;
    const top = w === 64 ? 1023 : 127;
    const field = Math.floor(wild ? random() * (2 * top + 2) : top - 4 + random() * 30);
    const sign = random() < 0.5 ? -1 : 1;
    const fraction = random() < 0.3 ? Math.floor(random() * 16) / 16 : random();
    if (field === 2 * top + 1) return sign * Infinity;
    const x = sign * (field === 0 ? fraction * 2 ** (1 - top) : (1 + fraction) * 2 ** (field - top));
    if (!Number.isNaN(x)) return w === 64 ? x : Math.fround(x);
  }
}
const fit = (w: Width, x: number): number => (w === 64 ? x : Math.fround(x));

const operations: [string, Readonly<Record<Width, Sub>>, (x: number, y: number) => number][] = [
  ['add', softAdd, (x, y) => x + y],
  ['sub', softSub, (x, y) => x - y],
  ['mul', softMul, (x, y) => x * y],
  ['div', softDiv, (x, y) => x / y],
];

test(`rounded to nearest, arithmetic gives what the host's floating point gives (seed ${SEED})`, () => {
  for (const w of [32, 64] as const) {
    for (const [name, op, f] of operations) {
      for (let i = 0; i < 400; i++) {
        const [x, y] = [number(w), number(w)];
        // A binary64 result rounded once more to binary32 is the right one: 53 bits are more than twice 24 plus 2.
        const wanted = fit(w, f(x, y));
        const { r } = run(op[w], DEFAULT, bits(w, x), bits(w, y));
        if (Number.isNaN(wanted)) assert.equal(r, w === 64 ? 0xfff8000000000000n : 0xffc00000n, `${name}${w} ${x} ${y}`);
        else assert.equal(r, bits(w, wanted), `${name}${w} ${x} ${y}`);
      }
    }
    for (let i = 0; i < 200; i++) {
      const x = Math.abs(number(w));
      assert.equal(run(softSqrt[w], DEFAULT, bits(w, x)).r, bits(w, fit(w, Math.sqrt(x))), `sqrt${w} ${x}`);
    }
  }
});

/** The exact quotient or product of finite numbers as a fraction of integers. */
function fraction(x: number): [bigint, bigint] {
  const b = bits(64, x);
  const field = Number((b >> 52n) & 0x7ffn);
  const m = (b & ((1n << 52n) - 1n)) | (field ? 1n << 52n : 0n);
  const e = Math.max(field, 1) - 1075;
  const n = x < 0 || Object.is(x, -0) ? -m : m;
  return e >= 0 ? [n << BigInt(e), 1n] : [n, 1n << BigInt(-e)];
}
const less = ([a, b]: [bigint, bigint], [c, d]: [bigint, bigint]): boolean => a * d < c * b;

test('directed rounding brackets the exact result by neighbours, and PE says whether it is one', () => {
  const exact: Record<string, (x: [bigint, bigint], y: [bigint, bigint]) => [bigint, bigint]> = {
    add: ([a, b], [c, d]) => [a * d + c * b, b * d],
    sub: ([a, b], [c, d]) => [a * d - c * b, b * d],
    mul: ([a, b], [c, d]) => [a * c, b * d],
    div: ([a, b], [c, d]) => (c < 0n ? [-a * d, -b * c] : [a * d, b * c]),
  };
  for (const w of [32, 64] as const) {
    for (const [name, op] of operations) {
      for (let i = 0; i < 150; i++) {
        const [x, y] = [number(w), number(w)];
        if (!Number.isFinite(x) || !Number.isFinite(y) || (name === 'div' && y === 0)) continue;
        const truth = exact[name]!(fraction(x), fraction(y));
        const [down, up, cut] = [1, 2, 3].map((rc) => run(op[w], mode(rc), bits(w, x), bits(w, y)));
        const [low, high] = [value(w, down!.r), value(w, up!.r)];
        const what = `${name}${w} ${x} ${y}`;
        if (Number.isFinite(low)) assert.ok(!less(truth, fraction(low)), what);
        if (Number.isFinite(high)) assert.ok(!less(fraction(high), truth), what);
        if (low === high) assert.equal(down!.flags & Flag.pe, 0, what);
        else {
          assert.equal(down!.flags & up!.flags & Flag.pe, Flag.pe, what);
          const key = (b: bigint): bigint => {
            const half = 1n << BigInt(w - 1);
            return b >= half ? half - b : b;
          };
          assert.equal(key(up!.r) - key(down!.r), 1n, what);
        }
        assert.equal(cut!.r, truth[0] < 0n ? up!.r : down!.r === up!.r ? up!.r : down!.r, what);
      }
    }
  }
});

test('denormals: DAZ takes them as zeros, FTZ gives zeros, and DE and UE are found', () => {
  const tiny = bits(64, 2 ** -1070);
  assert.equal(run(softMul[64], DEFAULT, tiny, bits(64, 2)).flags, Flag.de);
  assert.deepEqual(run(softMul[64], DEFAULT | 0x40, tiny, bits(64, 2)), { r: 0n, flags: 0 });
  assert.deepEqual(run(softMul[64], DEFAULT | 0x8000, bits(64, -(2 ** -1000)), bits(64, 2 ** -60)), {
    r: 1n << 63n,
    flags: Flag.ue | Flag.pe,
  });
  assert.deepEqual(run(softMul[64], DEFAULT, bits(64, 2 ** -1000), bits(64, 2 ** -60)), { r: bits(64, 2 ** -1060), flags: 0 });
});

test('zeros of opposite sign add to +0, rounding down to −0', () => {
  for (const rc of [0, 1, 2, 3]) {
    assert.equal(run(softAdd[32], mode(rc), bits(32, 1), bits(32, -1)).r, rc === 1 ? 0x80000000n : 0n);
  }
});

test('NaNs: the first operand wins, signalling ones are quieted with IE', () => {
  const quiet = 0x7ff8000000000123n;
  const signalling = 0xfff0000000000456n;
  assert.deepEqual(run(softAdd[64], DEFAULT, quiet, bits(64, 1)), { r: quiet, flags: 0 });
  assert.deepEqual(run(softSub[64], DEFAULT, bits(64, 1), signalling), { r: signalling | (1n << 51n), flags: Flag.ie });
  assert.deepEqual(run(softMul[64], DEFAULT, quiet, signalling), { r: quiet, flags: Flag.ie });
  assert.deepEqual(run(softMul[64], DEFAULT, bits(64, 0), bits(64, Infinity)), { r: 0xfff8000000000000n, flags: Flag.ie });
  assert.deepEqual(run(softDiv[32], DEFAULT, bits(32, -3), 0n), { r: bits(32, -Infinity), flags: Flag.ze });
});

test('comparison orders all numbers, and zeros of both signs are equal', () => {
  for (const w of [32, 64] as const) {
    for (let i = 0; i < 300; i++) {
      const [x, y] = random() < 0.1 ? [0, -0] : [number(w), random() < 0.1 ? number(w) : -number(w)];
      const wanted = x < y ? Order.less : x > y ? Order.greater : Order.equal;
      assert.equal(run(softCompare[w], DEFAULT, bits(w, x), bits(w, y), 0).r, BigInt(wanted), `${x} ${y}`);
    }
  }
});

test('conversions to integers round as told and give the indefinite with IE beyond the range', () => {
  const rounders = [
    (x: number) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)),
    Math.floor,
    Math.ceil,
    Math.trunc,
  ];
  for (let i = 0; i < 400; i++) {
    const rc = i & 3;
    const x = random() < 0.3 ? Math.floor(random() * 40 - 20) / 2 : (random() - 0.5) * 2 ** Math.floor(random() * 40);
    const whole = rounders[rc]!(x);
    const { r, flags } = run(softToInt[32][64], DEFAULT, rc, bits(64, x));
    const fits = whole >= -(2 ** 31) && whole < 2 ** 31;
    assert.equal(Number(BigInt.asIntN(32, r)), fits ? whole + 0 : -(2 ** 31), `${x} ${rc}`);
    assert.equal(flags, fits ? (whole === x ? 0 : Flag.pe) : Flag.ie, `${x} ${rc}`);
    const integral = run(softRound[64], DEFAULT, rc, 0, bits(64, x));
    assert.equal(value(64, integral.r) + 0, whole + 0, `${x} ${rc}`);
  }
  assert.deepEqual(run(softToInt[64][64], DEFAULT, 0, bits(64, -(2 ** 63))), { r: 1n << 63n, flags: 0 });
  assert.deepEqual(run(softToInt[64][64], DEFAULT, 0, bits(64, 2 ** 63)), { r: 1n << 63n, flags: Flag.ie });
});

test('conversions between widths and from integers agree with the host', () => {
  for (let i = 0; i < 400; i++) {
    const x = number(64) * (random() < 0.5 ? 1 : 2 ** -100);
    assert.equal(run(softNarrow, DEFAULT, bits(64, x)).r, bits(32, Math.fround(x)), `${x}`);
    const y = number(32);
    assert.equal(run(softWiden, DEFAULT, bits(32, y)).r, bits(64, y), `${y}`);
    const n = BigInt.asIntN(64, (BigInt(word()) << 32n) | BigInt(word())) >> BigInt(Math.floor(random() * 64));
    assert.equal(run(softFromInt[64], DEFAULT, n).r, bits(64, Number(n)), `${n}`);
  }
  assert.equal(run(softFromInt[32], DEFAULT, -(1n << 63n)).r, bits(32, -(2 ** 63)));
});
