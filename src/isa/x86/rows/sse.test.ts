import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { updateContext } from '../context.ts';
import { EvalMachine } from '../eval-machine.ts';
import * as st from '../state.ts';
import { R, X } from '../state.ts';
import { sseCompareRows } from './sse-compare.ts';
import { sseConvertRows } from './sse-convert.ts';
import { sseFloatRows } from './sse-float.ts';
import { sseIntRows } from './sse-int.ts';
import { sseMoveRows } from './sse-move.ts';
import { sseShuffleRows } from './sse-shuffle.ts';
import { sseStringRows } from './sse-string.ts';

const rows = [
  ...sseMoveRows, ...sseFloatRows, ...sseCompareRows, ...sseConvertRows, ...sseIntRows, ...sseShuffleRows, ...sseStringRows,
]; // biome-ignore format: one list
const CODE = 0x400000n;
const DATA = 0x5000000000n;
const EXACT = 0x8000_0000 | 0;

const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'));
const hex = (b: unknown): string => Buffer.from(b as Uint8Array).toString('hex');

function machine(): EvalMachine {
  const m = new EvalMachine(rows);
  m.longMode(3);
  m.map(CODE, 4096, false);
  m.map(DATA, 4096);
  return m;
}
const shared = machine();
const code = (m: EvalMachine, ...list: number[]): void => {
  m.poke(CODE, [...list, ...new Array(16 - list.length).fill(0x90)]);
  m.rip = CODE;
};
/** Four binary32 lanes, or two binary64 lanes. */
const singles = (...x: number[]): Uint8Array => new Uint8Array(Float32Array.from(x).buffer);
const lanes = (m: EvalMachine, n: number): number[] => [...new Float32Array((m.get(st.xmm[n]!) as Uint8Array).slice().buffer)];

const golden = readFileSync(join(import.meta.dirname, 'sse.golden.txt'), 'utf8')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
  .map((line) => {
    const [head, tail] = line.split('->');
    const [name, text, ...inputs] = head!.trim().split(' ');
    const fields = (list: string[]): Map<string, string> => new Map(list.map((f) => f.split('=') as [string, string]));
    return { name: name!, code: bytes(text!), inputs: fields(inputs), changes: fields(tail!.trim().split(' ').filter(Boolean)) };
  });

/** Runs one golden case and gives all that the host's run gives, as the same text. */
function run(m: EvalMachine, one: (typeof golden)[number], exact: boolean): Map<string, string> {
  const input = (name: string, zero: string): string => one.inputs.get(name) ?? zero;
  const control = Number.parseInt(input('mxcsr', '1f80'), 16);
  m.set(st.mxcsr, control | (exact ? EXACT : 0));
  for (const n of [0, 1]) m.set(st.xmm[n]!, bytes(input(`xmm${n}`, '00'.repeat(16))));
  for (const n of [0, 1])
    m.set(st.fpr[n]!.mant, new DataView(bytes(input(`mm${n}`, '00'.repeat(8))).buffer).getBigInt64(0, true));
  const general = ['rax', 'rcx', 'rdx', 'rdi'] as const;
  for (const r of general) m.setReg(R[r], BigInt(`0x${input(r, '0')}`));
  m.setReg(R.rbx, DATA);
  m.set(st.fpTop, 0);
  m.set(st.fpValid, 0xff);
  m.flags = 2;
  m.poke(DATA, bytes(input('mem', '00'.repeat(16))));
  code(m, ...one.code);
  const before = new Map<string, string>();
  const snapshot = (into: Map<string, string>): void => {
    into.set('mxcsr', ((m.get(st.mxcsr) as number) & 0xffff).toString(16));
    into.set('xmm0', hex(m.get(st.xmm[0]!)));
    for (const n of [0, 1]) {
      const v = Buffer.alloc(8);
      v.writeBigInt64LE(m.get(st.fpr[n]!.mant) as bigint);
      into.set(`mm${n}`, v.toString('hex'));
    }
    for (const r of general) into.set(r, m.reg(R[r]).toString(16));
    into.set('flags', (m.flags & 0x8d5).toString(16));
    into.set('mem', hex(m.peek(DATA, 16)));
  };
  snapshot(before);
  const step = m.step();
  const after = new Map<string, string>();
  snapshot(after);
  const changes = new Map([...after].filter(([name, value]) => before.get(name) !== value));
  if (step.outcome.how === 'fault') changes.set('trap', String(m.pending!.vector));
  m.clearPending();
  return changes;
}
const sorted = (m: Map<string, string>): [string, string][] => [...m].sort(([a], [b]) => (a < b ? -1 : 1));

test('every instruction does what the recorded CPU did, MXCSR flags and exceptions included', () => {
  for (const one of golden) assert.deepEqual(sorted(run(shared, one, true)), sorted(one.changes), `${one.name} ${hex(one.code)}`);
});

test('the fast path gives the same results, without sticky flags', () => {
  for (const one of golden) {
    const wanted = new Map(one.changes);
    const found = run(shared, one, false);
    if (one.name !== 'ldmxcsr') {
      wanted.delete('mxcsr');
      found.delete('mxcsr');
    }
    assert.deepEqual(sorted(found), sorted(wanted), `${one.name} ${hex(one.code)}`);
  }
});

test('every row but the approximations and the 64-bit twins has a recorded case', () => {
  const names = new Set(golden.map((g) => g.name));
  const missing = rows.map((r) => r.asm.split(' ')[0]!).filter((n) => !names.has(n));
  assert.deepEqual([...new Set(missing)].sort(), ['rcpps', 'rcpss', 'rsqrtps', 'rsqrtss']);
});

test('reciprocals are within their promised error and treat special values as documented', () => {
  const m = shared;
  m.set(st.mxcsr, 0x1f80);
  const source = [3, -1e-3, 12345.678, 2.5e30];
  m.set(st.xmm[1]!, singles(...source));
  for (const [opcode, f] of [[0x53, (x: number) => 1 / x], [0x52, (x: number) => 1 / Math.sqrt(x)]] as const) {
    code(m, 0x0f, opcode, 0xc1);
    m.step();
    lanes(m, 0).forEach((r, i) => {
      const exact = f(source[i]!);
      if (Number.isNaN(exact)) assert.ok(Number.isNaN(r));
      else assert.ok(Math.abs(r / exact - 1) <= 1.5 * 2 ** -12, `${r} for ${source[i]}`);
    });
  } // biome-ignore format: a table
  m.set(st.xmm[1]!, new Uint8Array(Uint32Array.of(1, 0x80000001, 0x7f800000, 0x7f7fffff).buffer));
  code(m, 0x0f, 0x53, 0xc1);
  m.step();
  assert.deepEqual(lanes(m, 0), [Infinity, -Infinity, 0, 0], 'denormals count as zeros, tiny results as well');
});

test('an unmasked exception leaves the destination alone and is #XM, or #UD without CR4.OSXMMEXCPT', () => {
  const m = machine();
  const [one, zero] = [singles(1, 1, 1, 1), singles(0, 1, 1, 1)];
  for (const [extra, vector] of [[0x400n, X.xm], [0n, X.ud]] as const) {
    m.set(st.cr4, ((m.get(st.cr4) as bigint) & ~0x400n) | extra);
    m.set(st.mxcsr, 0x1f80 & ~0x200);
    m.set(st.xmm[0]!, one);
    m.set(st.xmm[1]!, zero);
    code(m, 0x0f, 0x5e, 0xc1); // divps xmm0, xmm1
    assert.equal(m.step().outcome.how, 'fault');
    assert.equal(m.pending!.vector, vector);
    assert.deepEqual(lanes(m, 0), [1, 1, 1, 1]);
    assert.equal((m.get(st.mxcsr) as number) & 0x3f, 4);
  } // biome-ignore format: a table
});

test('an unaligned 128-bit operand is #GP, but not for the moves that allow it', () => {
  const m = shared;
  m.setReg(R.rbx, DATA + 8n);
  code(m, 0x66, 0x0f, 0xfe, 0x03); // paddd xmm0, [rbx]
  m.step();
  assert.deepEqual(m.pending, { vector: X.gp, error: 0 });
  m.clearPending();
  code(m, 0xf3, 0x0f, 0x6f, 0x03); // movdqu xmm0, [rbx]
  assert.equal(m.step().outcome.how, 'next');
});

test('MMX instructions deliver a pending x87 exception, else set TOP to 0 and all tags valid', () => {
  const m = machine();
  m.set(st.fpTop, 5);
  m.set(st.fpValid, 0x11);
  m.set(st.fpSw, 0x8081);
  m.setReg(R.rax, 0x1234_5678_9abcn);
  code(m, 0x48, 0x0f, 0x6e, 0xd8); // movq mm3, rax
  m.step();
  assert.equal(m.pending?.vector, X.mf);
  assert.equal(m.get(st.fpTop), 5);
  m.clearPending();
  m.set(st.fpSw, 0);
  m.step();
  assert.deepEqual([m.get(st.fpTop), m.get(st.fpValid)], [0, 0xff]);
  assert.deepEqual([m.get(st.fpr[3]!.mant), m.get(st.fpr[3]!.exp)], [0x1234_5678_9abcn, 0xffffn]);
});

test('with CR0.TS the instructions are #NM, with CR0.EM #UD', () => {
  const m = machine();
  for (const [bit, vector] of [[8n, X.nm], [4n, X.ud]] as const) {
    m.set(st.cr0, ((m.get(st.cr0) as bigint) & ~12n) | bit);
    m.call(updateContext);
    for (const list of [[0x0f, 0x58, 0xc1], [0x0f, 0xfc, 0xc1]]) {
      code(m, ...list);
      m.step();
      assert.equal(m.pending?.vector, vector);
      m.clearPending();
    }
  } // biome-ignore format: a table
});

test('LDMXCSR refuses reserved bits and keeps the exact mode, which STMXCSR does not show', () => {
  const m = machine();
  m.set(st.mxcsr, 0x1f80 | EXACT);
  m.setReg(R.rbx, DATA);
  m.poke(DATA, [0, 0, 1, 0]);
  code(m, 0x0f, 0xae, 0x13); // ldmxcsr [rbx]
  m.step();
  assert.deepEqual(m.pending, { vector: X.gp, error: 0 });
  m.clearPending();
  m.poke(DATA, [0xc0, 0x9f, 0, 0]);
  m.step();
  assert.equal(m.get(st.mxcsr), 0x9fc0 | EXACT);
  code(m, 0x0f, 0xae, 0x1b); // stmxcsr [rbx]
  m.step();
  assert.deepEqual([...m.peek(DATA, 4)], [0xc0, 0x9f, 0, 0]);
});
