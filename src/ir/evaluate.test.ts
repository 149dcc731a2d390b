import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Builder } from './builder.ts';
import { type Datum, readDatum, writeDatum } from './datum.ts';
import { combine, evaluate, type GuestMemory, type HostFunction, type Outcome, type Surroundings } from './evaluate.ts';
import type { Callee, Func, Slot } from './ir.ts';
import { type AccessName, accesses } from './ops.ts';

const ENV = 64;
const slot = (name: string, offset: number, access: AccessName): Slot => ({ name, offset, access: accesses[access] });
const exc = slot('exc', 0, 'i32');
const x = slot('x', 8, 'i64');
const y = slot('y', 16, 'i32');
const v = slot('v', 32, 'v128');
const callee = (name: string, more: Partial<Callee> = {}): Callee => ({
  name,
  params: [],
  result: null,
  faults: false,
  host: false,
  ...more,
});

/** 256 bytes of state and host memory, 64 bytes of guest memory at linear 0x1000; anything else is a fault. */
function bench(functions: Record<string, Func | HostFunction> = {}): Surroundings & { guestBytes: DataView } {
  const memory = new DataView(new ArrayBuffer(256));
  const guestBytes = new DataView(new ArrayBuffer(64));
  const at = (addr: bigint, bits: number): number | null => {
    const offset = Number(addr - 0x1000n);
    if (offset >= 0 && offset + bits / 8 <= 64) return offset;
    memory.setInt32(ENV + exc.offset, 15, true);
    return null;
  };
  const guest: GuestMemory = {
    load: (access, addr) => {
      const offset = at(addr, access.bits);
      return offset === null ? (access.type === 'i64' ? 0n : 0) : readDatum(guestBytes, offset, access);
    },
    store: (access, addr, value) => {
      const offset = at(addr, access.bits);
      if (offset !== null) writeDatum(guestBytes, offset, access, value);
    },
    rmw: (op, access, addr, value) => {
      const offset = at(addr, access.bits)!;
      const old = readDatum(guestBytes, offset, access);
      writeDatum(guestBytes, offset, access, combine(op, access, old, value));
      return old;
    },
    cmpxchg: (access, addr, expected, value) => {
      const offset = at(addr, access.bits)!;
      const old = readDatum(guestBytes, offset, access);
      if (old === expected) writeDatum(guestBytes, offset, access, value);
      return old;
    },
  };
  return { memory, env: ENV, excOffset: exc.offset, guest, guestBytes, resolve: (c) => functions[c.name]!, maxSteps: 10_000 };
}

/** Builds and runs a function; gives the outcome. */
function run(around: Surroundings, build: (b: Builder) => void, args: readonly Datum[] = []): Outcome {
  const b = new Builder();
  build(b);
  return evaluate(b.finish('test', [], null), args, around);
}

test('a slot is read where its statement stands, not where the value is used', () => {
  const t = bench();
  run(t, (b) => {
    const before = b.get(x);
    b.set(x, b.i64(7));
    b.set(y, b.wrap(b.add(before, b.i64(1))));
  });
  assert.equal(t.memory.getBigInt64(ENV + x.offset, true), 7n);
  assert.equal(t.memory.getInt32(ENV + y.offset, true), 1);
});

test('loops recompute what depends on variables, and leave at the end of their body', () => {
  const t = bench();
  run(t, (b) => {
    const n = b.variable(b.i32(5));
    const sum = b.variable(b.i64(0));
    b.loop((again) => {
      const k = b.getVar(n);
      b.setVar(sum, b.add(b.getVar(sum), b.extu(b.mul(k, k))));
      b.setVar(n, b.sub(k, b.i32(1)));
      b.br(again, b.ne(b.getVar(n), b.i32(0)));
    });
    b.set(x, b.getVar(sum));
  });
  assert.equal(t.memory.getBigInt64(ENV + x.offset, true), 55n);
});

test('a branch to a block goes to its end, past inner blocks', () => {
  const t = bench();
  run(t, (b) => {
    b.block((outer) => {
      b.block(() => {
        b.set(y, b.i32(1));
        b.br(outer);
      });
      b.set(y, b.i32(2));
    });
    b.set(x, b.i64(3));
  });
  assert.deepEqual([t.memory.getInt32(ENV + y.offset, true), t.memory.getBigInt64(ENV + x.offset, true)], [1, 3n]);
});

test('every way out is given back with its value and reason', () => {
  for (const how of ['fault', 'next', 'repeat', 'branch', 'resync'] as const)
    assert.equal(run(bench(), (b) => b.leave(how)).how, how);
  assert.deepEqual(
    run(bench(), (b) => b.leave('jump', b.i64(0x1234))),
    { how: 'jump', value: 0x1234n, reason: 0 },
  );
  assert.deepEqual(
    run(bench(), (b) => b.leave('exit', null, 3)),
    { how: 'exit', value: null, reason: 3 },
  );
  assert.equal(run(bench(), () => undefined).how, 'next');
});

test('a guest access that faults ends the function before its next statement', () => {
  const t = bench();
  const end = run(t, (b) => {
    b.set(y, b.wrap(b.load('i64', b.i64(0x1038))));
    b.set(x, b.load('i64', b.i64(0x1039)));
  });
  assert.equal(end.how, 'fault');
  assert.equal(t.memory.getInt32(ENV + exc.offset, true), 15);
  assert.equal(t.memory.getBigInt64(ENV + x.offset, true), 0n);
});

test('read-modify-write and compare-and-exchange give the old value', () => {
  const t = bench();
  t.guestBytes.setUint8(3, 0xf0);
  run(t, (b) => {
    const old = b.rmw('add', 'i32.8u', b.i64(0x1003), b.i32(0x20));
    const found = b.cmpxchg('i32.8u', b.i64(0x1003), b.i32(0x10), b.i32(0x55));
    b.set(y, b.add(old, found));
  });
  assert.equal(t.memory.getInt32(ENV + y.offset, true), 0x100);
  assert.equal(t.guestBytes.getUint8(3), 0x55);
});

test('a fault inside a subroutine unwinds the caller, one that it clears does not', () => {
  const s = new Builder();
  s.set(exc, s.param(0, 'i32'));
  s.if(s.ne(s.param(0, 'i32'), s.i32(0)), () => s.leave('fault'));
  s.ret(s.i32(9));
  const faulty = s.finish('faulty', ['i32'], 'i32');
  const c = callee('faulty', { params: ['i32'], result: 'i32', faults: true });
  for (const [arg, how, result] of [
    [0, 'next', 9],
    [4, 'fault', 0],
  ] as const) {
    const t = bench({ faulty });
    const end = run(t, (b) => b.set(y, b.call(c, b.i32(arg))));
    assert.deepEqual([end.how, t.memory.getInt32(ENV + y.offset, true)], [how, result]);
  }
});

test('host functions receive and give values', () => {
  const t = bench({ mix: (a, b) => (a as bigint) + BigInt(b as number) });
  run(t, (b) => b.set(x, b.call(callee('mix', { params: ['i64', 'i32'], result: 'i64', host: true }), b.i64(40), b.i32(2))));
  assert.equal(t.memory.getBigInt64(ENV + x.offset, true), 42n);
});

test('a value of an arm that was not left behind is not visible after it', () => {
  assert.throws(
    () =>
      run(bench(), (b) => {
        let inner = b.i64(0);
        b.if(b.eqz(b.get(y)), () => {
          inner = b.get(x);
        });
        b.set(x, inner);
      }),
    /not defined here/,
  );
});

test('copy, fill and raw accesses reach host memory beyond the state', () => {
  const t = bench();
  run(t, (b) => {
    b.fill(b.i32(128), b.i32(0xab), b.i32(8));
    b.copy(b.i32(132), b.i32(130), b.i32(8));
    b.setRaw('i32', b.add(b.env, b.i32(y.offset)), b.raw('i32.8s', b.i32(120), 8));
    b.set(v, b.raw('v128', b.i32(128)));
  });
  assert.equal(t.memory.getInt32(ENV + y.offset, true), -0x55);
  assert.equal(t.memory.getBigUint64(ENV + v.offset, true), 0xababababababababn);
  assert.equal(t.memory.getBigUint64(ENV + v.offset + 8, true), 0xababn);
});

test('an endless loop is given up', () => {
  assert.throws(() => run(bench(), (b) => b.loop((again) => b.br(again))), /too many steps/);
});
