import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Builder } from './builder.ts';
import type { Callee, Func, Slot, Stmt, Value } from './ir.ts';
import { accesses, pureOp } from './ops.ts';
import { printFunc } from './print.ts';
import { verify } from './verify.ts';

const x: Slot = { name: 'x', offset: 8, access: accesses.i64 };
const y: Slot = { name: 'y', offset: 16, access: accesses.i32 };
const build = (f: (b: Builder) => void, result: Func['result'] = null): Func => {
  const b = new Builder();
  f(b);
  return b.finish('sample', ['i32', 'f64'], result);
};
const faulty: Callee = { name: 'faulty', params: ['i64'], result: 'i32', faults: true, host: false };

const good = (b: Builder): void => {
  const n = b.variable(b.param(0, 'i32'));
  b.loop((again) => {
    const k = b.getVar(n);
    b.if(
      b.ltu(k, b.i32(100000)),
      () => b.set(x, b.add(b.get(x), b.extu(b.mul(k, k)))),
      () => b.store('i64', b.i64(0x123456789), b.get(x), { space: 'system' }),
    );
    b.setVar(n, b.sub(k, b.i32(1)));
    b.br(again, b.getVar(n));
  });
  b.set(y, b.call(faulty, b.load('i64.16u', b.get(x), { forWrite: true })));
  b.set(
    y,
    b.select(
      b.get(y),
      b.op('i32.trunc_sat_f64_s', b.param(1, 'f64')),
      b.lane('i32x4.extract_lane', [2], b.v128(new Uint8Array(16))),
    ),
  );
  b.leave('exit', null, 3);
};

test('well-formed IR is accepted and prints one statement a line', () => {
  const f = build(good);
  verify(f, { as: 'instruction' });
  assert.equal(
    printFunc(f),
    `func sample(p0: i32, p1: f64) {
  x0 := p0
  loop0 {
    v0 = var x0
    v1 = i32.lt_u v0, 0x186a0
    if v1 {
      v2 = get x
      v3 = i32.mul v0, v0
      v4 = i64.extend_i32_u v3
      v5 = i64.add v2, v4
      set x, v5
    } else {
      v6 = get x
      store i64 0x123456789L, v6 system
    }
    v7 = i32.sub v0, 1
    x0 := v7
    v8 = var x0
    br loop0 if v8
  }
  v9 = get x
  v10 = load i64.16u v9 for write
  v11 = faulty(v10) faults
  set y, v11
  v12 = get y
  v13 = i32.trunc_sat_f64_s p1
  v14 = i32x4.extract_lane[2] v128[00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00]
  v15 = select v12 ? v13 : v14
  set y, v15
  leave exit #3
}
`,
  );
});

test('text does not depend on the ids of nodes', () => {
  const b = new Builder();
  for (let i = 0; i < 100; i++) b.i32(i);
  good(b);
  assert.equal(printFunc(b.finish('sample', ['i32', 'f64'], null)), printFunc(build(good)));
});

test('each way of being malformed is named', () => {
  const pure = (name: string, ...args: Value[]): Value => ({
    kind: 'pure',
    id: 999,
    type: pureOp(name).result,
    op: pureOp(name),
    args,
    lanes: [],
    uses: 0,
  });
  const cases: [RegExp, Func, Parameters<typeof verify>[1]?][] = [
    [/slot x has type i32, i64 is needed/, build((b) => b.set(x, b.i32(1)))],
    [/operand 1 of i64.add has type i32/, build((b) => b.set(x, pure('i64.add', b.i64(1), b.i32(1))))],
    [/i32.add has 1 operands/, build((b) => b.set(y, pure('i32.add', b.i32(1))))],
    [/lanes \[4\]/, build((b) => b.set(y, b.lane('i32x4.extract_lane', [4], b.v128(new Uint8Array(16)))))],
    [/parameter 0 has type i32/, build((b) => b.set(x, b.param(0, 'i64')))],
    [
      /used where it is not defined/,
      build((b) => {
        let inner: Value = b.i64(0);
        b.if(b.get(y), () => void (inner = b.get(x)));
        b.set(x, inner);
      }),
    ],
    [/may end without its result/, build((b) => b.if(b.get(y), () => b.ret(b.i32(1))), 'i32'), { as: 'subroutine' }],
    [/returns nothing/, build((b) => b.ret(), 'i32'), { as: 'subroutine' }],
    [/ends by jump/, build((b) => b.leave('jump', b.i64(1))), { as: 'subroutine', faults: true }],
    [/that does not fault ends by fault/, build((b) => b.leave('fault')), { as: 'subroutine' }],
    [/load of guest memory/, build((b) => b.set(x, b.load('i64', b.i64(1)))), { as: 'subroutine' }],
    [/calls faulty/, build((b) => b.do(faulty, b.i64(1))), { as: 'subroutine' }],
    [/instruction ends by return/, build((b) => b.ret()), { as: 'instruction' }],
    [/gets 0 arguments/, build((b) => b.do(faulty))],
    [/jump needs a target/, build((b) => b.leave('jump', b.i32(1)))],
    [
      /follows an unconditional/,
      {
        name: 'sample',
        params: [],
        result: null,
        body: [{ kind: 'leave', how: 'next', value: null, reason: 0 }, ...build((b) => b.set(y, b.i32(1))).body],
      },
    ],
    [
      /not around it/,
      {
        name: 'sample',
        params: [],
        result: null,
        body: [{ kind: 'br', label: { id: 1, kind: 'loop' }, cond: null } satisfies Stmt],
      },
    ],
  ];
  for (const [message, func, options] of cases) assert.throws(() => verify(func, options), message);
});
