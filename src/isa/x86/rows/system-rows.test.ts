import assert from 'node:assert/strict';
import { test } from 'node:test';
import { updateContext } from '../context.ts';
import * as st from '../state.ts';
import { R, S, X } from '../state.ts';
import { descriptor, GDT, HANDLER, LDT, Sel, STACK0, STACK3, System, segmentRegister, TSS } from '../test-system.ts';

const CODE = 0x20000;

/** Runs an instruction and gives the flags after it. */
function stepFlags(s: System): number {
  s.m.step();
  return s.m.flags;
}

// -- flags

test('PUSHF hides RF and VM; POPF at CPL 0 takes everything else', () => {
  const s = new System('long', 0, [0x9c, 0x9d]);
  s.m.flags = 0x10000 | 0x246;
  s.m.step();
  assert.deepEqual(s.stack(8, 1), [0x246]);
  s.m.setReg(R.rsp, s.m.reg(R.rsp) + 8n);
  s.push(8, 0x247ed7);
  s.m.step();
  assert.equal(s.m.flags, 0x247ed7);
});

test('POPF at CPL 3 keeps IOPL, and IF unless IOPL is 3', () => {
  const s = new System('long', 3, [0x9d, 0x9d]);
  s.push(8, 0x3000, 0x3000);
  s.m.step();
  assert.equal(s.m.flags, 0x202);
  s.m.set(st.sysFlags, 0x3200);
  s.m.step();
  assert.equal(s.m.flags, 0x3002);
});

test('POPF of 16 bits leaves the upper flags', () => {
  const s = new System('long', 0, [0x66, 0x9d]);
  s.m.flags = 0x40202;
  s.push(2, 0x0003);
  s.m.step();
  assert.equal(s.m.flags, 0x40003);
});

test('POPF that changes AC selects the TLB; one that changes TF looks the code up again', () => {
  const s = new System('long', 0, [0x9d, 0x9d]);
  s.m.set(st.cr4, (s.m.get(st.cr4) as bigint) | (1n << 21n));
  s.m.call(updateContext);
  assert.equal(s.m.get(st.tlb), s.m.get(st.tlbs[0]!));
  s.push(8, 0x40002, 0x40102);
  assert.equal(s.m.step().outcome.how, 'next');
  assert.equal(s.m.get(st.tlb), s.m.get(st.tlbs[1]!));
  assert.equal(s.m.step().outcome.how, 'resync');
});

test('CLI and STI obey IOPL; STI holds interrupts off for one instruction where they were off', () => {
  const s = new System('long', 0, [0xfa, 0xfb, 0xfb]);
  s.m.step();
  assert.equal(s.m.flags, 2);
  s.m.step();
  assert.deepEqual([s.m.flags, s.m.get(st.shadow)], [0x202, st.Shadow.sti]);
  s.m.set(st.shadow, 0);
  s.m.step();
  assert.equal(s.m.get(st.shadow), 0);
  for (const code of [[0xfa], [0xfb]]) {
    const u = new System('long', 3, code);
    u.m.step();
    assert.deepEqual(u.m.pending, { vector: X.gp, error: 0 });
  }
});

test('with CR4.PVI, CLI and STI at CPL 3 work on VIF, and STI with VIP is #GP', () => {
  const s = new System('protected', 3, [0xfb, 0xfa, 0xfb]);
  s.m.set(st.cr4, 2n);
  s.m.step();
  assert.equal(s.m.flags, 0x80202);
  s.m.step();
  assert.equal(s.m.flags, 0x202);
  s.m.set(st.sysFlags, 0x100200);
  s.m.step();
  assert.deepEqual(s.m.pending, { vector: X.gp, error: 0 });
});

test('virtual-8086 mode: PUSHF, POPF, CLI and IRET are #GP(0) below IOPL 3, and plain with IOPL 3', () => {
  for (const code of [0x9c, 0x9d, 0xfa, 0xfb, 0xcf]) {
    const s = new System('protected', 3, [code]);
    s.v86(0);
    s.m.step();
    assert.deepEqual(s.m.pending, { vector: X.gp, error: 0 });
  }
  const s = new System('protected', 3, [0x9c, 0xfa, 0x9d, 0xcf]);
  s.v86(3);
  s.m.step();
  assert.deepEqual(s.read(0x37fe, 2, 1), [0x3202]);
  s.m.step();
  assert.equal(s.m.flags, 0x23002);
  s.m.step();
  assert.equal(s.m.flags, 0x23202);
  [0x123, 0x2100, 0x0003].forEach((v, i) => {
    s.write16(0x3800 + 2 * i, v);
  });
  s.m.step();
  assert.deepEqual(s.where, [0x2100, 0x123, 3]);
  assert.deepEqual([s.m.flags, s.m.reg(R.rsp)], [0x23003, 0x806n]);
});

test('virtual-8086 mode with CR4.VME: PUSHF, POPF, CLI, STI and IRET work on VIF', () => {
  const s = new System('protected', 3, [0xfb, 0x9c, 0xfa, 0x9d, 0x66, 0x9c]);
  s.v86(0, true);
  s.m.step();
  assert.equal(s.m.flags, 0xa0202);
  s.m.step();
  assert.deepEqual(s.read(0x37fe, 2, 1), [0x3202]);
  s.m.step();
  assert.equal(s.m.flags, 0x20202);
  s.m.step();
  assert.equal(s.m.flags, 0xa0202);
  s.m.step();
  assert.deepEqual(s.m.pending, { vector: X.gp, error: 0 }, '32 bits are not virtual');
  const t = new System('protected', 3, [0xcf]);
  t.v86(0, true);
  t.m.set(st.sysFlags, 0x120202);
  [0x123, 0x2100, 0x0203].forEach((v, i) => {
    t.write16(0x3800 + 2 * i, v);
  });
  t.m.step();
  assert.deepEqual(t.m.pending, { vector: X.gp, error: 0 }, 'VIP waits');
  t.m.set(st.sysFlags, 0x20202);
  t.m.step();
  assert.deepEqual(t.where, [0x2100, 0x123, 3]);
  assert.equal(t.m.flags, 0xa0203);
});

test('LAHF, SAHF, CMC, CLC, STC, CLD, STD', () => {
  const s = new System('long', 3, [0x9f, 0x9e, 0xf5, 0xf9, 0xf8, 0xfd, 0xfc]);
  s.m.flags = 0x202 | 0x8d5;
  s.m.setReg(R.rax, 0x1234567890abcdefn);
  s.m.step();
  assert.equal(s.m.reg(R.rax), 0x1234567890abd7efn);
  s.m.setReg(R.rax, 0x4000);
  s.m.step();
  assert.equal(s.m.flags & 0x8d5, 0x840);
  const carries = [1, 1, 0].map(() => stepFlags(s) & 1);
  assert.deepEqual(carries, [1, 1, 0]);
  s.m.step();
  assert.equal(s.m.flags & 0x400, 0x400);
  s.m.step();
  assert.equal(s.m.flags & 0x400, 0);
});

// -- system calls

function calls(code: number[], cpl: 0 | 3 = 3): System {
  const s = new System('long', cpl, code);
  // SYSRET to 64-bit code takes CS + 16 and SS + 8 from this base.
  s.m.set(st.star, (0x23n << 48n) | (BigInt(Sel.code0) << 32n));
  s.m.set(st.lstar, 0xffffffff81000000n - (1n << 64n));
  s.m.set(st.cstar, 0x5000n);
  s.m.set(st.sfmask, 0x47700n);
  return s;
}

test('SYSCALL saves RIP and RFLAGS, masks flags and enters flat 64-bit ring 0 code on the same stack', () => {
  const s = calls([0x0f, 0x05]);
  s.m.flags = 0x40a47;
  s.m.step();
  assert.deepEqual(s.where, [Sel.code0, Number(0xffffffff81000000n), 0]);
  assert.deepEqual([s.m.reg(R.rcx), s.m.reg(R.r11)], [BigInt(CODE + 2), 0x40a47n]);
  assert.equal(s.m.flags, 0x847);
  assert.deepEqual([s.selector(S.ss), s.m.get(st.segAttr[S.cs]!), s.m.get(st.segAttr[S.ss]!)], [Sel.code0 + 8, 0xa09b, 0xc093]);
  assert.equal(s.m.reg(R.rsp), BigInt(STACK3 - 0x100));
  assert.equal(s.m.get(st.ctx), st.Ctx.long | st.Ctx.protected);
});

test('SYSRET returns to 64-bit code, or with 32 bits to compatibility code', () => {
  const s = calls([0x48, 0x0f, 0x07], 0);
  s.m.setReg(R.rcx, 0x7fff_1234_5678n);
  s.m.setReg(R.r11, 0x30202 | 0x8d5);
  s.m.step();
  assert.deepEqual(s.where, [0x33, 0x7fff_1234_5678, 3]);
  assert.deepEqual([s.selector(S.ss), s.m.get(st.segAttr[S.cs]!), s.m.flags], [0x2b, 0xa0fb, 0x202 | 0x8d5]);
  const t = calls([0x0f, 0x07], 0);
  t.m.setReg(R.rcx, 0x9_0000_1234n);
  t.m.setReg(R.r11, 0x202);
  t.m.step();
  assert.deepEqual(t.where, [0x23, 0x1234, 3]);
  assert.equal(Number(t.m.get(st.ctx)) & ~st.Ctx.flat, st.Ctx.big | st.Ctx.protected | st.Ctx.user);
});

test('SYSCALL from compatibility code enters at CSTAR', () => {
  const s = calls([0x0f, 0x05]);
  s.m.compatibilityMode(3);
  s.m.step();
  assert.deepEqual(s.where, [Sel.code0, 0x5000, 0]);
});

test('SYSCALL and SYSRET need EFER.SCE, SYSRET CPL 0 and a canonical RCX', () => {
  const s = calls([0x0f, 0x05]);
  s.m.set(st.efer, 0xd00n);
  s.m.step();
  assert.deepEqual(s.m.pending, { vector: X.ud, error: -1 });
  const t = calls([0x48, 0x0f, 0x07]);
  t.m.step();
  assert.deepEqual(t.m.pending, { vector: X.gp, error: 0 });
  const u = calls([0x48, 0x0f, 0x07], 0);
  u.m.setReg(R.rcx, 0x8000_0000_0000n);
  u.m.step();
  assert.deepEqual(u.m.pending, { vector: X.gp, error: 0 });
});

test('SYSENTER and SYSEXIT in protected and in IA-32e mode', () => {
  for (const mode of ['protected', 'long'] as const) {
    const s = new System(mode, 3, [0x0f, 0x34]);
    s.m.poke(HANDLER, mode === 'long' ? [0x48, 0x0f, 0x35] : [0x0f, 0x35]);
    s.m.set(st.sysenterCs, BigInt(Sel.code0));
    s.m.set(st.sysenterEsp, BigInt(STACK0));
    s.m.set(st.sysenterEip, BigInt(HANDLER));
    s.m.step();
    assert.deepEqual(s.where, [Sel.code0, HANDLER, 0]);
    assert.deepEqual([s.m.reg(R.rsp), s.m.flags, s.selector(S.ss)], [BigInt(STACK0), 2, Sel.code0 + 8]);
    s.m.setReg(R.rdx, CODE);
    s.m.setReg(R.rcx, STACK3);
    s.m.step();
    const cs = Sel.code0 + (mode === 'long' ? 32 : 16);
    assert.deepEqual(s.where, [cs | 3, CODE, 3]);
    assert.deepEqual([s.selector(S.ss), s.m.reg(R.rsp)], [(cs + 8) | 3, BigInt(STACK3)]);
  }
  const s = new System('protected', 3, [0x0f, 0x34]);
  s.m.step();
  assert.deepEqual(s.m.pending, { vector: X.gp, error: 0 });
});

// -- segment instructions

test('PUSH and POP of segment registers use the operand size', () => {
  const s = new System('protected', 0, [0x1e, 0x07, 0x66, 0x0f, 0xa0, 0x0f, 0xa9]); // push ds; pop es; push fs (16); pop gs
  segmentRegister(s.m, S.es, 0, 0n, 0, 0x10000);
  s.m.step();
  assert.deepEqual(s.stack(4, 1), [Sel.data0]);
  s.m.step();
  assert.deepEqual([s.selector(S.es), s.m.reg(R.rsp)], [Sel.data0, BigInt(STACK0 - 0x100)]);
  s.m.set(st.segSelector[S.fs]!, Sel.data16);
  s.m.step();
  assert.deepEqual([s.stack(2, 1), s.m.reg(R.rsp)], [[Sel.data16], BigInt(STACK0 - 0x102)]);
});

test('POP SS moves the pointer by the old stack and holds interrupts off', () => {
  const s = new System('protected', 0, [0x17]);
  s.push(4, Sel.data16);
  s.m.step();
  assert.deepEqual([s.selector(S.ss), s.m.reg(R.rsp), s.m.get(st.shadow)], [Sel.data16, BigInt(STACK0 - 0x100), st.Shadow.stack]);
});

test('a POP that faults moves nothing', () => {
  const s = new System('protected', 0, [0x1f]);
  s.push(4, Sel.absent);
  s.m.step();
  assert.deepEqual(s.m.pending, { vector: X.np, error: Sel.absent });
  assert.equal(s.m.reg(R.rsp), BigInt(STACK0 - 0x104));
});

test('MOV from a segment register: zero-extended to a register, 16 bits to memory', () => {
  const s = new System('long', 0, [0x48, 0x8c, 0xd8, 0x8c, 0x1b, 0x66, 0x8c, 0xd9]); // mov rax, ds; mov [rbx], ds; mov cx, ds
  s.m.setReg(R.rax, -1n);
  s.m.setReg(R.rcx, -1n);
  s.m.setReg(R.rbx, 0x25000);
  s.write32(0x25000, 0x77777777);
  for (let i = 0; i < 3; i++) s.m.step();
  assert.deepEqual([s.m.reg(R.rax), s.m.reg(R.rcx)], [BigInt(Sel.data0), 0xffffffffffff0000n + BigInt(Sel.data0)]);
  assert.deepEqual(s.read(0x25000, 4, 1), [0x77770000 + Sel.data0]);
});

test('LDS and LFS load offset and segment, or nothing', () => {
  const s = new System('protected', 0, [0xc5, 0x03, 0x0f, 0xb4, 0x0b]); // lds eax, [ebx]; lfs ecx, [ebx]
  s.m.setReg(R.rbx, 0x25000);
  s.write32(0x25000, 0x12345678);
  s.write16(0x25004, Sel.data16);
  s.m.step();
  assert.deepEqual([s.m.reg(R.rax), s.selector(S.ds), s.m.get(st.segBase[S.ds]!)], [0x12345678n, Sel.data16, 0x1000n]);
  s.write16(0x3004, Sel.absent);
  s.m.setReg(R.rbx, 0x2000);
  s.m.step();
  assert.deepEqual(s.m.pending, { vector: X.np, error: Sel.absent });
  assert.equal(s.m.reg(R.rcx), 0n);
});

test('LLDT and LTR in protected mode, and with 16-byte descriptors in IA-32e mode', () => {
  for (const mode of ['protected', 'long'] as const) {
    const s = new System(mode, 0, [0x0f, 0x00, 0xd0, 0x0f, 0x00, 0xd9, 0x0f, 0x00, 0xc3, 0x0f, 0x00, 0xce]); // lldt ax; ltr cx; sldt ebx; str esi
    s.describe(Sel.ldt, descriptor(LDT, 0x1f, 0x82, 0), mode === 'long' ? 0xffff8000n : undefined);
    s.describe(Sel.tss2, descriptor(TSS, 0x67, 0x89, 0), mode === 'long' ? 0xffffffffn : undefined);
    s.m.setReg(R.rax, Sel.ldt);
    s.m.setReg(R.rcx, Sel.tss2);
    for (let i = 0; i < 4; i++) s.m.step();
    assert.equal(s.m.pending, null);
    assert.deepEqual([s.m.reg(R.rbx), s.m.reg(R.rsi)], [BigInt(Sel.ldt), BigInt(Sel.tss2)]);
    const high = mode === 'long' ? [0xffff8000n << 32n, 0xffffffffn << 32n] : [0n, 0n];
    assert.equal(BigInt.asUintN(64, s.m.get(st.segBase[S.ldtr]!) as bigint), high[0]! + BigInt(LDT));
    assert.equal(BigInt.asUintN(64, s.m.get(st.segBase[S.tr]!) as bigint), high[1]! + BigInt(TSS));
    assert.equal(s.m.peek(GDT + Sel.tss2 + 5, 1)[0], 0x8b);
    assert.equal(s.m.get(st.segAttr[S.tr]!), 0x8b);
  }
});

test('LLDT and LTR refuse a base that is not canonical, of as many bits as the processor has, and change nothing', () => {
  for (const [code, selector, type] of [[[0x0f, 0x00, 0xd0], Sel.ldt, 0x82], [[0x0f, 0x00, 0xd8], Sel.tss2, 0x89]] as const) {
    for (const [upper, absent, good] of [[0x8000n, 0x1000, false], [0xff808000n, 0x1000, false], [0xffff8000n, 0x1000, true], [0x8000n, 0, true], [0x1000000n, 0, false]] as const) {
      const s = new System('long', 0, [...code]);
      s.m.set(st.cr4Absent, absent);
      s.describe(selector, descriptor(0x1234, 0x67, type, 0), upper);
      const before = [s.m.get(st.segBase[S.ldtr]!), s.m.get(st.segBase[S.tr]!)];
      s.m.setReg(R.rax, selector);
      s.m.step();
      assert.deepEqual(s.m.pending, good ? null : { vector: X.gp, error: selector });
      if (!good) assert.deepEqual([s.m.get(st.segBase[S.ldtr]!), s.m.get(st.segBase[S.tr]!), s.m.peek(GDT + selector + 5, 1)[0]], [...before, type]);
    }
  }
}); // biome-ignore format: tables

test('LLDT and LTR check privilege, type, presence and mode', () => {
  const lldt = [0x0f, 0x00, 0xd0];
  const ltr = [0x0f, 0x00, 0xd8];
  const cases: [number[], 'real' | 'protected', 0 | 3, number, number, number][] = [
    [lldt, 'real', 0, Sel.ldt, X.ud, -1],
    [ltr, 'protected', 3, Sel.tss2, X.gp, 0],
    [lldt, 'protected', 0, Sel.data0, X.gp, Sel.data0],
    [lldt, 'protected', 0, 0x54, X.gp, 0x54],
    [ltr, 'protected', 0, 0, X.gp, 0],
    [ltr, 'protected', 0, Sel.tss, X.gp, Sel.tss],
  ];
  for (const [code, mode, cpl, selector, vector, error] of cases) {
    const s = new System(mode, cpl, code);
    s.m.setReg(R.rax, selector);
    s.m.step();
    assert.deepEqual(s.m.pending, { vector, error });
  }
  const s = new System('protected', 0, lldt);
  s.m.step();
  assert.equal(s.m.get(st.segAttr[S.ldtr]!), 0x10000);
});

test('LAR and LSL show what the program may see, and set ZF', () => {
  const s = new System('protected', 3, [0x0f, 0x02, 0xc8, 0x0f, 0x03, 0xd0]); // lar ecx, eax; lsl edx, eax
  const look = (selector: number): [boolean, bigint, bigint] => {
    s.m.rip = CODE;
    s.m.setReg(R.rax, selector);
    s.m.setReg(R.rcx, 7);
    s.m.setReg(R.rdx, 7);
    s.m.step();
    const zf = (s.m.flags & 0x40) !== 0;
    s.m.step();
    return [zf, s.m.reg(R.rcx), s.m.reg(R.rdx)];
  };
  assert.deepEqual(look(Sel.data3), [true, 0xc0f300n, 0xffffffffn]);
  assert.deepEqual(look(Sel.data0), [false, 7n, 7n]);
  assert.deepEqual(look(Sel.conforming), [true, 0xc09f00n, 0xffffffffn]);
  assert.deepEqual(look(0), [false, 7n, 7n]);
  assert.deepEqual(look(0x1000), [false, 7n, 7n]);
  s.describe(Sel.tss2, descriptor(TSS, 0x67, 0xe9, 0));
  assert.deepEqual(look(Sel.tss2), [true, 0xe900n, 0x67n]);
});

test('VERR and VERW tell readable from writable', () => {
  const s = new System('protected', 3, [0x0f, 0x00, 0xe0, 0x0f, 0x00, 0xe8]); // verr ax; verw ax
  const look = (selector: number): number[] => {
    s.m.rip = CODE;
    s.m.setReg(R.rax, selector);
    return [0, 1].map(() => (stepFlags(s) >> 6) & 1);
  };
  assert.deepEqual(look(Sel.data3), [1, 1]);
  assert.deepEqual(look(Sel.code3), [1, 0]);
  assert.deepEqual(look(Sel.data0), [0, 0]);
  assert.deepEqual(look(Sel.tss), [0, 0]);
  s.describe(Sel.data3, descriptor(0, 0xfffff, 0xf1, 0xc));
  assert.deepEqual(look(Sel.data3), [1, 0]);
  s.describe(Sel.code3, descriptor(0, 0xfffff, 0xf9, 0xc));
  assert.deepEqual(look(Sel.code3), [0, 0]);
});

test('ARPL raises the RPL to that of its source', () => {
  const s = new System('protected', 3, [0x63, 0xc8, 0x63, 0xc8]); // arpl ax, cx
  s.m.setReg(R.rax, 0xabcd0010);
  s.m.setReg(R.rcx, 3);
  s.m.step();
  assert.deepEqual([s.m.reg(R.rax), s.m.flags & 0x40], [0xabcd0013n, 0x40]);
  s.m.step();
  assert.deepEqual([s.m.reg(R.rax), s.m.flags & 0x40], [0xabcd0013n, 0]);
});

// -- BOUND, INTO, INT1

test('BOUND compares as signed numbers, both bounds included', () => {
  const s = new System('protected', 0, [0x62, 0x03]); // bound eax, [ebx]
  s.m.setReg(R.rbx, 0x25000);
  s.write32(0x25000, -5);
  s.write32(0x25004, 5);
  for (const [value, bad] of [[-5, false], [5, false], [6, true], [-6, true]] as const) {
    s.m.rip = CODE;
    s.m.setReg(R.rax, BigInt.asUintN(32, BigInt(value)));
    s.m.step();
    assert.deepEqual(s.m.pending, bad ? { vector: X.br, error: -1 } : null);
  }
}); // biome-ignore format: pairs

test('INTO traps on overflow only; INT1 needs no DPL', () => {
  const s = new System('protected', 3, [0xce, 0xce]);
  s.vector(X.of, { dpl: 3 });
  assert.equal(s.m.step().outcome.how, 'next');
  s.m.flags = 0xa02;
  s.m.step();
  assert.deepEqual(s.where, [Sel.code0, HANDLER + 16 * X.of, 0]);
  assert.equal(s.stack(4, 1)[0], CODE + 2);
  const t = new System('protected', 3, [0xf1]);
  t.vector(X.db);
  t.m.step();
  assert.deepEqual(t.where, [Sel.code0, HANDLER + 16, 0]);
  assert.equal(t.stack(4, 1)[0], CODE + 1);
});
