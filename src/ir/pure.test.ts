// Holds the TypeScript meaning of every pure operation against V8: one WebAssembly function per operation, edge values.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Datum, f32Bits, f64Bits, readDatum, sameDatum, writeDatum } from './datum.ts';
import { accesses, type PureOp, pureOps, type Type } from './ops.ts';
import { pureFunction } from './pure.ts';

const RESULT = 64;

function leb(n: number): number[] {
  const out: number[] = [];
  for (; n > 0x7f; n >>>= 7) out.push((n & 0x7f) | 0x80);
  return [...out, n];
}
function signedLeb(n: number): number[] {
  const out: number[] = [];
  for (; n < -0x40 || n > 0x3f; n >>= 7) out.push((n & 0x7f) | 0x80);
  return [...out, n & 0x7f];
}
const section = (id: number, body: number[]): number[] => [id, ...leb(body.length), ...body];
const opcode = (code: number): number[] =>
  code >= 0x20000 ? [0xfc, ...leb(code - 0x20000)] : code >= 0x10000 ? [0xfd, ...leb(code - 0x10000)] : [code];

/** A module whose exported function `f` reads operands at 0, 16, 32 and writes the result at `RESULT`. */
function compile(op: PureOp, lanes: readonly number[], memory: WebAssembly.Memory): () => void {
  const load = (type: Type): number[] => [...opcode(accesses[type].load), 0, 0];
  const code = [0, 0x41, ...signedLeb(RESULT)];
  op.args.forEach((type, i) => {
    code.push(0x41, i * 16, ...load(type));
  });
  code.push(...opcode(op.code), ...lanes, ...opcode(accesses[op.result].store), 0, 0, 0x0b);
  const bytes = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, ...section(1, [1, 0x60, 0, 0]), ...section(2, [1, 1, 0x6d, 1, 0x6d, 2, 0, 1])];
  bytes.push(...section(3, [1, 0]), ...section(7, [1, 1, 0x66, 0, 0]), ...section(10, [1, ...leb(code.length), ...code]));
  return new WebAssembly.Instance(new WebAssembly.Module(Uint8Array.from(bytes)), { m: { m: memory } }).exports[
    'f'
  ] as () => void;
}

const I32 = [
  0, 1, -1, 2, 5, 31, 32, 33, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0x7fffffff, -0x80000000, -0x7fffffff, 0x12345678, 0x01000001,
];
const I64 = [...I32.map(BigInt), 63n, 64n, 0xffffffffn, 0x100000000n, (1n << 53n) + 1n, (1n << 63n) - 1n, -(1n << 63n), -(1n << 63n) + 1n,
  0x0123456789abcdefn, 0x4000004000000001n, 0x8000008000000000n - (1n << 64n), 0x7fffffbfffffffffn].map((x) => BigInt.asIntN(64, x)); // biome-ignore format: a table
const F64 = [0, -0, 0.5, -0.5, 1, -1, 1.5, 2.5, -2.5, 1 / 3, 1e10, -1e10, 2147483647, 2147483648, -2147483648, -2147483649, 4294967295, 4294967296,
  2 ** 52 + 1, 2 ** 53, 2 ** 63, -(2 ** 63), 2 ** 64, 1e300, -1e300, 5e-324, 1e-310, 2 ** -149, 2 ** -126, 1e-45, 3.4028235677973366e38, Infinity, -Infinity]; // biome-ignore format: a table
const F32_BITS = [0x7fc00000, 0x7f800001, -0x400000, 0x7fc12345, -0x7fff0000];
const F64_BITS = [0x7ff8000000000000n, 0x7ff0000000000001n, -0x8000000000000n, 0x7ff8123456789abcn];

const edges: Readonly<Record<Type, readonly Datum[]>> = {
  i32: I32,
  i64: I64,
  f32: [...F64.map((x) => f32Bits(x)), ...F32_BITS],
  f64: [...F64.map((x) => f64Bits(x)), ...F64_BITS],
  v128: vectors(),
};

/** Vectors made of edge values of every lane type, and their rotations so that low and high lanes both meet them. */
function vectors(): Uint8Array[] {
  const out: Uint8Array[] = [];
  const fill = (put: (d: DataView) => void): void => {
    const v = new Uint8Array(16);
    put(new DataView(v.buffer));
    out.push(v);
  };
  for (let i = 0; i < 12; i++) {
    fill((d) => [0, 1, 2, 3].forEach((k) => void d.setInt32(k * 4, I32[(i * 3 + k) % I32.length]!, true)));
    fill((d) => [0, 1].forEach((k) => void d.setBigInt64(k * 8, I64[(i * 5 + k) % I64.length]!, true)));
    fill((d) => [0, 1, 2, 3].forEach((k) => void d.setFloat32(k * 4, F64[(i * 3 + k) % F64.length]!, true)));
    fill((d) => [0, 1].forEach((k) => void d.setFloat64(k * 8, F64[(i * 3 + k) % F64.length]!, true)));
    fill((d) =>
      [0, 1, 2, 3, 4, 5, 6, 7].forEach(
        (k) => void d.setInt16(k * 2, [0, 1, -1, 0x7fff, -0x8000, 255, 256, -129, 128, 77][(i + k) % 10]!, true),
      ),
    );
    fill((d) => [...Array(16).keys()].forEach((k) => void d.setUint8(k, [0, 1, 255, 127, 128, 15, 16, 129, 37][(i + k) % 9]!)));
  }
  fill((d) => [0, 1, 2, 3].forEach((k) => void d.setInt32(k * 4, F32_BITS[k]!, true)));
  fill((d) => [0, 1].forEach((k) => void d.setBigInt64(k * 8, F64_BITS[k]!, true)));
  fill((d) => [0, 1, 2, 3, 4, 5, 6, 7].forEach((k) => void d.setInt16(k * 2, -0x8000, true)));
  return out;
}

const isNaN32 = (x: number): boolean => (x & 0x7fffffff) > 0x7f800000;
const isNaN64 = (x: bigint): boolean => (x & 0x7fffffffffffffffn) > 0x7ff0000000000000n;

/** Equal, or, where arithmetic may choose among NaNs, NaNs in the same lanes. */
function agree(op: PureOp, a: Datum, b: Datum): boolean {
  if (sameDatum(a, b)) return true;
  if (/abs|neg|copysign|reinterpret|pmin|pmax|lane|splat/.test(op.name)) return false;
  if (op.result === 'f32') return isNaN32(a as number) && isNaN32(b as number);
  if (op.result === 'f64') return isNaN64(a as bigint) && isNaN64(b as bigint);
  const width = /^f(32|64)x/.exec(op.name)?.[1];
  if (op.result !== 'v128' || !width) return false;
  const [x, y] = [a, b].map((v) => new DataView((v as Uint8Array).buffer));
  if (width === '32')
    return [0, 4, 8, 12].every((i) => {
      const [p, q] = [x!.getInt32(i, true), y!.getInt32(i, true)];
      return p === q || (isNaN32(p) && isNaN32(q));
    });
  return [0, 8].every((i) => {
    const [p, q] = [x!.getBigInt64(i, true), y!.getBigInt64(i, true)];
    return p === q || (isNaN64(p) && isNaN64(q));
  });
}

function* operands(op: PureOp): Generator<Datum[]> {
  const [a, b, c] = op.args.map((t) => edges[t]);
  for (const [i, x] of a!.entries()) {
    if (!b) yield [x];
    else {
      // Pairs of vectors grow quickly: a third of them, different for each row.
      const step = op.args[1] === 'v128' && op.args[0] === 'v128' ? 5 : 1;
      for (let j = i % step; j < b.length; j += step) yield c ? [x, b[j]!, c[(i + j) % c.length]!] : [x, b[j]!];
    }
  }
}

function laneSets(op: PureOp): number[][] {
  if (op.lanes === 0) return [[]];
  if (op.lanes === 16) return [[0, 16, 1, 17, 2, 18, 3, 19, 31, 15, 30, 14, 0, 0, 16, 31]];
  const count = Number(/x(\d+)\./.exec(op.name)![1]);
  return [0, 1, count - 1].map((n) => [n]);
}

test('every pure operation gives what V8 gives on edge values', () => {
  const memory = new WebAssembly.Memory({ initial: 1 });
  const view = new DataView(memory.buffer);
  let cases = 0;
  for (const op of pureOps) {
    for (const lanes of laneSets(op)) {
      const run = compile(op, lanes, memory);
      for (const args of operands(op)) {
        args.forEach((a, i) => void writeDatum(view, i * 16, accesses[op.args[i]!], a));
        let expected: Datum | 'trap';
        try {
          run();
          expected = readDatum(view, RESULT, accesses[op.result]);
        } catch {
          expected = 'trap';
        }
        let found: Datum | 'trap';
        try {
          found = pureFunction(op)(args, lanes);
        } catch (e) {
          if (!/^Cannot divide/.test((e as Error).message)) throw e;
          found = 'trap';
        }
        const same = expected === 'trap' || found === 'trap' ? expected === found : agree(op, expected, found);
        assert.ok(same, `${op.name} ${lanes} of ${args.join(' | ')}: V8 ${expected}, here ${found}`);
        cases++;
      }
    }
  }
  assert.ok(cases > 30_000, `${cases} cases`);
});

test('a NaN that arithmetic produces is the canonical one, and moves keep every payload', () => {
  const op = (name: string): PureOp => pureOps.find((o) => o.name === name)!;
  assert.equal(pureFunction(op('f32.add'))([0x7f800001, 0], []), 0x7fc00000);
  assert.equal(pureFunction(op('f64.neg'))([0x7ff0000000000001n], []), BigInt.asIntN(64, 0xfff0000000000001n));
  assert.equal(pureFunction(op('i32.reinterpret_f32'))([0x7f800001], []), 0x7f800001);
});
