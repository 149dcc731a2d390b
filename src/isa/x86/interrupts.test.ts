import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deliverPending, interrupt } from './exceptions.ts';
import { Kind } from './gate.ts';
import { deliver } from './interrupts.ts';
import * as st from './state.ts';
import { Exit, R, S, X } from './state.ts';
import { descriptor, HANDLER, IDT, Sel, STACK_IST, STACK0, STACK3, System, TSS } from './test-system.ts';

const handler = (n: number): number => HANDLER + 16 * n;
const RIP = 0x20000;

/** Delivers `vector` with `error` as a hardware exception. */
function except(s: System, vector: number, error = -1): void {
  s.raise(vector, error);
  s.m.call(deliverPending);
}

// -- 64-bit

test('64-bit: an exception from user code switches to RSP0 and pushes SS, RSP, RFLAGS with RF, CS, RIP and the error code', () => {
  const s = new System('long', 3);
  s.vector(X.pf);
  s.m.setReg(R.rsp, STACK3 - 0x103);
  s.m.flags = 0x4302 | 0x8d5;
  except(s, X.pf, 6);
  assert.deepEqual(s.where, [Sel.long0, handler(X.pf), 0]);
  assert.equal(s.m.reg(R.rsp), BigInt(STACK0 - 48));
  assert.deepEqual(s.stack(8, 6), [6, RIP, Sel.long3, 0x14302 | 0x8d7, STACK3 - 0x103, Sel.data3]);
  assert.equal(s.m.flags & 0x4300, 0);
  assert.deepEqual([s.selector(S.ss), s.m.get(st.segAttr[S.ss]!)], [0, 0x10000]);
  assert.equal(s.m.pending, null);
  assert.equal(s.m.get(st.ctx), st.Ctx.long | st.Ctx.protected);
});

test('64-bit: a trap gate keeps IF, and the current stack is aligned to 16 bytes', () => {
  const s = new System('long', 0);
  s.vector(X.de, { type: 15 });
  s.m.setReg(R.rsp, STACK0 - 0x104);
  except(s, X.de);
  assert.deepEqual(s.where, [Sel.long0, handler(X.de), 0]);
  assert.equal(s.m.reg(R.rsp), BigInt(STACK0 - 0x110 - 40));
  assert.deepEqual(s.stack(8, 5), [RIP, Sel.long0, 0x10202, STACK0 - 0x104, Sel.data0]);
  assert.equal(s.m.flags & 0x200, 0x200);
  assert.equal(s.selector(S.ss), Sel.data0);
});

test('64-bit: the interrupt stack table is used without a change of privilege, and the target has 64 bits', () => {
  const s = new System('long', 0);
  s.vector(X.nmi, { ist: 1, upper: 0xffff8000n });
  s.m.call(interrupt, X.nmi);
  assert.equal(s.m.rip, 0xffff8000_00000000n + BigInt(handler(X.nmi)));
  assert.equal(s.m.reg(R.rsp), BigInt(STACK_IST - 40));
  assert.deepEqual(s.stack(8, 3), [RIP, Sel.long0, 0x202]);
  assert.equal(s.m.get(st.nmiBlocked), 1);
});

test('64-bit: INT n needs a gate with DPL of at least CPL, INT3 likewise, and pushes the address after it', () => {
  const s = new System('long', 3, [0xcd, 0x80, 0xcc]);
  s.vector(0x80);
  s.vector(3);
  s.m.step();
  assert.deepEqual(s.m.pending, { vector: X.gp, error: 0x80 * 8 + 2 });
  s.m.rip = RIP + 2;
  s.m.step();
  assert.deepEqual(s.m.pending, { vector: X.gp, error: 3 * 8 + 2 });
  s.vector(0x80, { dpl: 3 });
  s.m.rip = RIP;
  s.m.clearPending();
  assert.equal(s.m.step().outcome.how, 'jump');
  assert.deepEqual(s.where, [Sel.long0, handler(0x80), 0]);
  assert.deepEqual(s.stack(8, 3), [RIP + 2, Sel.long3, 0x202]);
});

test('64-bit: what is wrong with gate or code segment gives the error code with IDT and EXT bits', () => {
  const cases: [(s: System) => void, number, number][] = [
    [(s) => s.m.set(st.idtLimit, 0x2f), X.gp, 3 * 8 + 3],
    [(s) => s.vector(3, { type: 6 }), X.gp, 3 * 8 + 3],
    [(s) => s.vector(3, { present: false }), X.np, 3 * 8 + 3],
    [(s) => s.vector(3, { selector: 0 }), X.gp, 1],
    [(s) => s.vector(3, { selector: 0x1000 }), X.gp, 0x1001],
    [(s) => s.vector(3, { selector: 0x2c }), X.gp, 0x2d],
    [(s) => s.vector(3, { selector: Sel.data0 }), X.gp, Sel.data0 | 1],
    [(s) => s.vector(3, { selector: Sel.code0 }), X.gp, Sel.code0 | 1],
    [(s) => s.describe(Sel.long0, descriptor(0, 0xfffff, 0x1b, 0xa)), X.np, Sel.long0 | 1],
    [(s) => s.vector(3, { upper: 0x8000n }), X.gp, 1],
    [(s) => s.m.set(st.segLimit[S.tr]!, 10), X.ts, Sel.tss | 1],
    [(s) => s.write64(TSS + 4, 0x8000_0000_0000n), X.ss, 1],
  ];
  for (const [spoil, vector, error] of cases) {
    const s = new System('long', 3);
    s.vector(3);
    spoil(s);
    s.m.call(deliver, 3, -1, Kind.external, BigInt(RIP));
    assert.deepEqual(s.m.pending, { vector, error });
    assert.deepEqual(s.where, [Sel.long3, RIP, 3]);
    assert.equal(s.m.reg(R.rsp), BigInt(STACK3 - 0x100));
  }
});

test('64-bit: the accessed bit of the handler code segment is set in the GDT', () => {
  const s = new System('long', 3);
  s.vector(3);
  s.describe(Sel.long0, descriptor(0, 0xfffff, 0x9a, 0xa));
  except(s, 3);
  assert.equal(s.read(0x10000 + Sel.long0 + 5, 2, 1)[0]! & 0xff, 0x9b);
});

// -- 32- and 16-bit

test('protected mode: an inner 32-bit gate takes SS0:ESP0 from the TSS', () => {
  const s = new System('protected', 3);
  s.vector(X.gp);
  except(s, X.gp, 0x1234);
  assert.deepEqual(s.where, [Sel.code0, handler(X.gp), 0]);
  assert.equal(s.m.reg(R.rsp), BigInt(STACK0 - 24));
  assert.deepEqual(s.stack(4, 6), [0x1234, RIP, Sel.code3, 0x10202, STACK3 - 0x100, Sel.data3]);
  assert.equal(s.selector(S.ss), Sel.data0);
  assert.equal(s.m.flags & 0x200, 0);
  assert.equal(s.m.get(st.spMask), 0xffffffffn);
});

test('protected mode: a 16-bit trap gate pushes words and cuts the target', () => {
  const s = new System('protected', 0);
  s.vector(5, { type: 7 });
  except(s, 5);
  assert.deepEqual(s.where, [Sel.code0, handler(5) & 0xffff, 0]);
  assert.deepEqual(s.stack(2, 3), [RIP & 0xffff, Sel.code0, 0x202]);
  assert.equal(s.m.flags & 0x200, 0x200);
});

test('protected mode: INT n to a conforming segment stays at CPL 3 on the user stack', () => {
  const s = new System('protected', 3, [0xcd, 0x40]);
  s.vector(0x40, { selector: Sel.conforming, dpl: 3 });
  s.m.step();
  assert.deepEqual(s.where, [Sel.conforming | 3, handler(0x40), 3]);
  assert.deepEqual(s.stack(4, 3), [RIP + 2, Sel.code3, 0x202]);
});

test('protected mode: a 16-bit TSS gives SP0 and SS0', () => {
  const s = new System('protected', 3);
  s.vector(3);
  s.m.set(st.segAttr[S.tr]!, 0x83);
  s.write16(TSS + 2, 0x4000);
  s.write16(TSS + 4, Sel.data0);
  except(s, 3);
  assert.equal(s.m.reg(R.rsp), 0x4000n - 20n);
});

/** A handler less privileged than the interrupted code. */
function outward(s: System): void {
  s.vector(3, { selector: Sel.code3 });
  s.m.set(st.cpl, 0);
}

test('protected mode: a bad stack from the TSS is #TS or #SS with its selector', () => {
  const cases: [(s: System) => void, number, number][] = [
    [(s) => s.write32(TSS + 8, 0), X.ts, 1],
    [(s) => s.write32(TSS + 8, Sel.data3), X.ts, (Sel.data3 & ~3) | 1],
    [(s) => s.write32(TSS + 8, Sel.code0), X.ts, Sel.code0 | 1],
    [(s) => s.write32(TSS + 8, Sel.absent), X.ss, Sel.absent | 1],
    [(s) => s.m.set(st.segLimit[S.tr]!, 8), X.ts, Sel.tss | 1],
    [(s) => s.describe(Sel.data0, descriptor(0, 0x1000, 0x93, 4)), X.ss, Sel.data0 | 1],
    [(s) => s.vector(3, { type: 12 }), X.gp, 3 * 8 + 3],
    [outward, X.gp, (Sel.code3 & ~3) | 1],
  ];
  for (const [spoil, vector, error] of cases) {
    const s = new System('protected', 3);
    s.vector(3);
    spoil(s);
    s.m.call(deliver, 3, -1, Kind.external, BigInt(RIP));
    assert.deepEqual(s.m.pending, { vector, error });
  }
});

test('INT n in virtual-8086 mode with IOPL 3 saves the segments and clears them', () => {
  const s = new System('protected', 3, [0xcd, 0x40]);
  s.vector(0x40, { dpl: 3 });
  s.v86(3);
  [S.es, S.ds, S.fs, S.gs].forEach((n, i) => {
    s.m.set(st.segSelector[n]!, 0x100 + i);
  });
  s.m.step();
  assert.deepEqual(s.where, [Sel.code0, handler(0x40), 0]);
  assert.deepEqual(s.stack(4, 9), [2, 0x2000, 0x23202, 0x800, 0x300, 0x100, 0x101, 0x102, 0x103]);
  assert.deepEqual([s.selector(S.ds), s.m.get(st.segAttr[S.ds]!)], [0, 0x10000]);
  assert.equal(s.m.flags & 0x20000, 0);
});

test('an interrupt of virtual-8086 mode through a gate that is not for ring 0 is #GP', () => {
  const s = new System('protected', 3);
  s.vector(0x40, { selector: Sel.conforming });
  s.v86(3);
  s.m.call(interrupt, 0x40);
  assert.deepEqual(s.m.pending, { vector: X.gp, error: Sel.conforming | 1 });
});

test('virtual-8086 mode below IOPL 3: INT n is #GP(0), and with CR4.VME goes through the bitmap to the program itself', () => {
  const s = new System('protected', 3, [0xcd, 0x40]);
  s.v86(0);
  s.m.step();
  assert.deepEqual(s.m.pending, { vector: X.gp, error: 0 });
  s.v86(0, true);
  s.m.set(st.sysFlags, 0xa0202);
  s.write16(TSS + 0x66, 0x88);
  s.write32(0x40 * 4, 0x2100_0034);
  s.m.step();
  assert.deepEqual([s.selector(S.cs), Number(s.m.rip)], [0x2100, 0x34]);
  assert.deepEqual(s.read(0x3000 + 0x7fa, 2, 3), [2, 0x2000, 0x3202]);
  assert.equal(s.m.flags & 0x80200, 0x200);
  s.v86(0, true);
  s.m.poke(TSS + 0x68 + 8, [1]);
  s.m.step();
  assert.deepEqual(s.m.pending, { vector: X.gp, error: 0 });
});

// -- real mode

test('real mode: an interrupt pushes FLAGS, CS and IP and goes through the vector table', () => {
  const s = new System('real', 0, [0xcd, 0x21]);
  s.write32(0x21 * 4, 0x3000_0123);
  s.m.flags = 0x4746;
  s.m.step();
  assert.deepEqual([s.selector(S.cs), Number(s.m.rip)], [0x3000, 0x123]);
  assert.equal(s.m.get(st.segBase[S.cs]!), 0x30000n);
  assert.deepEqual(s.read(0x8000 - 6, 2, 3), [2, 0x2000, 0x4746]);
  assert.equal(s.m.reg(R.rsp), 0x8000n - 6n);
  assert.equal(s.m.flags & 0x4700, 0x4400);
});

test('real mode: a vector beyond the table becomes a double fault, then shutdown', () => {
  const s = new System('real', 0);
  s.m.set(st.idtLimit, 0x1f);
  s.raise(X.gp, 0);
  for (let i = 0; i < 3; i++) s.m.call(deliverPending);
  assert.equal(s.m.get(st.exitReason), Exit.shutdown);
});

// -- combining exceptions

test('a contributory exception while another is delivered makes a double fault, error code 0', () => {
  const s = new System('long', 3);
  s.vector(X.df);
  except(s, X.np, 0x18);
  assert.deepEqual(s.m.pending, { vector: X.gp, error: X.np * 8 + 3 });
  s.m.call(deliverPending);
  assert.deepEqual(s.where, [Sel.long0, handler(X.df), 0]);
  assert.deepEqual(s.stack(8, 2), [0, RIP]);
  assert.equal(s.m.get(st.excDelivering), 0);
});

test('a contributory exception while a benign one is delivered is delivered itself', () => {
  const s = new System('long', 3);
  s.vector(X.gp);
  except(s, X.ud);
  s.m.call(deliverPending);
  assert.deepEqual(s.where, [Sel.long0, handler(X.gp), 0]);
  assert.deepEqual(s.stack(8, 2), [X.ud * 8 + 3, RIP]);
});

test('a page fault while a page fault is delivered makes a double fault; a page fault after #GP does not', () => {
  for (const [first, last] of [
    [X.pf, X.df],
    [X.gp, X.pf],
  ] as const) {
    const s = new System('long', 3);
    s.vector(first);
    s.vector(last, { ist: 1 });
    s.write64(TSS + 4, 0x900000n);
    except(s, first, 0);
    assert.equal(s.m.pending?.vector, X.pf);
    s.m.call(deliverPending);
    assert.deepEqual(s.where, [Sel.long0, handler(last), 0]);
  }
});

test('a fault while a double fault is delivered shuts the vCPU down', () => {
  const s = new System('long', 0);
  s.m.set(st.idtLimit, 0);
  s.raise(X.ud);
  for (let i = 0; i < 4 && s.m.get(st.exitReason) === 0; i++) s.m.call(deliverPending);
  assert.equal(s.m.get(st.exitReason), Exit.shutdown);
  assert.equal(s.m.pending, null);
  assert.equal(s.read(IDT, 8, 1)[0], 0);
});
