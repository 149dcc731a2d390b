import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Slot } from '../../../ir/ir.ts';
import * as st from '../state.ts';
import { Absent, Ctx, R, S } from '../state.ts';
import { buildTables } from '../table.ts';
import { TestMachine } from '../test-machine.ts';
import { controlRows } from './control.ts';

const tables = buildTables(controlRows);
const GP = { vector: 13, error: 0 };
const UD = { vector: 6, error: null };

const MOV_TO = [0x0f, 0x22];
const MOV_FROM = [0x0f, 0x20];
const modrm = (reg: number, rm: number): number => 0xc0 | (reg << 3) | rm;

/** Runs an instruction; gives the exception, or null where it ends well. */
function exec(m: TestMachine, ...bytes: number[]): ReturnType<TestMachine['exception']> {
  const end = m.exec(tables, ...bytes);
  assert.notEqual(end, 'undefined');
  const e = m.exception();
  assert.equal(e !== null, end !== 'undefined' && end.how === 'fault');
  return e;
}
/** MOV CRn, RAX. */
function write(m: TestMachine, n: number, value: bigint): ReturnType<TestMachine['exception']> {
  m.set(st.gpr[R.rax]!, BigInt.asIntN(64, value));
  return n < 8 ? exec(m, ...MOV_TO, modrm(n, 0)) : exec(m, 0x44, ...MOV_TO, modrm(n & 7, 0));
}
function read(m: TestMachine, n: number): bigint {
  assert.equal(n < 8 ? exec(m, ...MOV_FROM, modrm(n, 1)) : exec(m, 0x44, ...MOV_FROM, modrm(n & 7, 1)), null);
  return m.u64(st.gpr[R.rcx]!);
}
function long(options: Parameters<TestMachine['mode']>[1] = {}): TestMachine {
  const m = new TestMachine();
  m.mode('4-level', options);
  m.identity();
  return m;
}
/** Whether the page at 0x5000 is in the TLB for supervisor accesses, after a load put it there. */
function touch(m: TestMachine): () => boolean {
  m.write64(0x5000, 1n);
  m.exec(tables, 0x0f, 0x01, 0x14, 0x25, 0x00, 0x50, 0x00, 0x00); // lgdt [0x5000]
  const at = (m.get(st.tlb) as number) + 5 * 16;
  const held = (): boolean => m.memory.getBigUint64(at, true) >> 12n === 5n;
  assert.equal(held(), true);
  return held;
}

test('control registers are read back, and others do not exist', () => {
  const m = long();
  assert.equal(read(m, 0), 0x80010011n);
  assert.equal(read(m, 3), 0x1000n);
  assert.equal(read(m, 4), 0x220n);
  assert.equal(write(m, 2, 0xffff800012345678n), null);
  assert.equal(read(m, 2), 0xffff800012345678n);
  for (const n of [1, 5, 6, 7]) {
    assert.deepEqual(exec(m, ...MOV_FROM, modrm(n, 0)), UD);
    assert.deepEqual(write(m, n, 0n), UD);
  }
});

test('control registers are privileged', () => {
  const m = long();
  m.privilege(3);
  assert.deepEqual(exec(m, ...MOV_FROM, modrm(0, 0)), GP);
  assert.deepEqual(write(m, 3, 0n), GP);
  assert.equal(m.u64(st.cr3), 0x1000n);
});

test('outside 64-bit code a move has 32 bits', () => {
  const m = new TestMachine();
  m.mode('unpaged');
  m.set(st.gpr[R.rcx]!, -1n);
  m.set(st.cr3, 0x12345000n);
  assert.equal(read(m, 3), 0x12345000n);
  assert.equal(write(m, 2, 0xffff_ffff_0000_1234n), null);
  assert.equal(m.u64(st.cr2), 0x1234n);
});

test('CR0 refuses PG without PE, NW without CD, and bits above 31; other reserved bits are ignored and ET is one', () => {
  const m = new TestMachine();
  m.mode('unpaged', { wp: false });
  assert.deepEqual(write(m, 0, 0x80000000n), GP);
  assert.deepEqual(write(m, 0, 0x20000001n), GP);
  assert.equal(write(m, 0, 0x60000001n | 0x1ff0_ff80n), null);
  assert.equal(m.u64(st.cr0), 0x60000011n);
  const l = long();
  assert.deepEqual(write(l, 0, 0x1_8001_0011n), GP);
});

test('writing CR0 updates the context and ends in a new look-up', () => {
  const m = new TestMachine();
  assert.equal(m.get(st.ctx), Ctx.fpTrap | Ctx.limited);
  m.set(st.gpr[R.rax]!, 1n);
  const end = m.exec(tables, ...MOV_TO, modrm(0, 0));
  assert.ok(end !== 'undefined' && end.how === 'resync');
  assert.equal(m.get(st.ctx), Ctx.protected | Ctx.fpTrap | Ctx.limited);
});

test('IA-32e mode begins when paging is enabled with LME, and needs PAE and a code segment without L', () => {
  const start = (cr4: bigint, cs: number): [TestMachine, ReturnType<TestMachine['exception']>] => {
    const m = new TestMachine();
    m.mode('unpaged', { wp: false });
    m.set(st.efer, 0x100n);
    m.set(st.cr4, cr4);
    m.set(st.segAttr[S.cs]!, cs);
    return [m, write(m, 0, 0x80000011n)];
  };
  assert.deepEqual(start(0n, 0xc09b)[1], GP);
  assert.deepEqual(start(0x20n, 0xa09b)[1], GP);
  const [m, ok] = start(0x20n, 0xc09b);
  assert.equal(ok, null);
  assert.equal(m.u64(st.efer), 0x500n);
  assert.equal(write(m, 0, 0x11n), null);
  assert.equal(m.u64(st.efer), 0x100n);
});

test('64-bit code cannot disable paging, nor can anyone with PCIDs, nor PAE in IA-32e mode', () => {
  assert.deepEqual(write(long(), 0, 0x10011n), GP);
  assert.equal(write(long({ legacyCode: true }), 0, 0x10011n), null);
  assert.deepEqual(write(long({ legacyCode: true, cr4: 1 << 17 }), 0, 0x10011n), GP);
  assert.deepEqual(write(long(), 4, 0x200n), GP);
});

test('PAE paging refuses pointer table entries with reserved bits, in CR0, CR3 and CR4', () => {
  const m = new TestMachine();
  m.mode('unpaged', { cr4: 0x20, wp: false });
  m.write64(0x1008, 0x2003n);
  assert.deepEqual(write(m, 0, 0x80000011n), GP);
  m.write64(0x1008, 0x2002n);
  assert.equal(write(m, 0, 0x80000011n), null);
  m.write64(0x2018, (1n << 40n) | 1n);
  assert.deepEqual(write(m, 3, 0x2000n), GP);
  assert.equal(m.u64(st.cr3), 0x1000n);
  m.write64(0x1008, 0x2003n);
  assert.deepEqual(write(m, 4, 0x2b0n), GP);
});

test('a change of PG, PE or WP empties the TLB, one of TS does not', () => {
  const m = long();
  let held = touch(m);
  write(m, 0, 0x80010019n);
  assert.equal(held(), true);
  assert.equal((m.get(st.ctx) as number) & Ctx.fpTrap, Ctx.fpTrap);
  held = touch(m);
  write(m, 0, 0x80000011n);
  assert.equal(held(), false);
});

test('writing CR3 drops what is not global', () => {
  const m = long({ cr4: 0x80 });
  let held = touch(m);
  write(m, 3, 0x1000n);
  assert.equal(held(), false);
  m.identity(0x183n);
  held = touch(m);
  write(m, 3, 0x1000n);
  assert.equal(held(), true);
  write(m, 4, 0x220n);
  assert.equal(held(), false);
});

test('CR3 in IA-32e mode refuses bits above the physical width', () => {
  const m = long();
  assert.deepEqual(write(m, 3, 1n << 40n), GP);
  assert.deepEqual(write(m, 3, 1n << 63n), GP);
  assert.equal(write(m, 3, 0xff_ffff_f018n), null);
});

test('with PCIDs, bit 63 keeps the TLB for the same PCID only and is not stored', () => {
  const m = long({ cr4: 1 << 17 });
  let held = touch(m);
  assert.equal(write(m, 3, (1n << 63n) | 0x1000n), null);
  assert.equal(m.u64(st.cr3), 0x1000n);
  assert.equal(held(), true);
  write(m, 3, (1n << 63n) | 0x1007n);
  assert.equal(held(), false);
  held = touch(m);
  write(m, 3, 0x1007n);
  assert.equal(held(), false);
});

test('CR4 refuses reserved bits, and PCIDE outside IA-32e mode or with a PCID in CR3', () => {
  const m = long();
  for (const bit of [12n, 13n, 14n, 19n, 23n, 31n, 40n]) assert.deepEqual(write(m, 4, 0x220n | (1n << bit)), GP, `bit ${bit}`);
  assert.equal(write(m, 4, 0x20220n), null);
  m.set(st.cr4Absent, 1 << 17);
  assert.deepEqual(write(m, 4, 0x20220n), GP, 'a bit that the CPU model lacks');
  const other = long({ cr3: 0x1001 });
  assert.deepEqual(write(other, 4, 0x20220n), GP);
  const legacy = new TestMachine();
  legacy.mode('unpaged');
  assert.deepEqual(write(legacy, 4, 0x20000n), GP);
});

test('a change of what pages allow or how they are walked empties the TLB', () => {
  for (const bit of [4n, 7n, 20n, 21n, 22n]) {
    const m = long();
    const held = touch(m);
    assert.equal(write(m, 4, 0x220n | 4n), null);
    assert.equal(held(), true);
    assert.equal(write(m, 4, 0x220n | (1n << bit)), null);
    assert.equal(held(), false, `bit ${bit}`);
  }
});

test('CR8 is asked of the local APIC', () => {
  const m = long();
  m.hosts.tprRead = () => 7;
  assert.equal(read(m, 8), 7n);
  assert.equal(write(m, 8, 9n), null);
  assert.deepEqual(m.calls, [['tprWrite', 9]]);
  assert.deepEqual(write(m, 8, 16n), GP);
});

test('debug registers: 4 and 5 are 6 and 7 without DE, fixed bits are fixed', () => {
  const m = long();
  const put = (n: number, value: bigint): ReturnType<TestMachine['exception']> => {
    m.set(st.gpr[R.rax]!, BigInt.asIntN(64, value));
    return exec(m, 0x0f, 0x23, modrm(n, 0));
  };
  const get = (n: number): bigint => {
    assert.equal(exec(m, 0x0f, 0x21, modrm(n, 1)), null);
    return m.u64(st.gpr[R.rcx]!);
  };
  for (const n of [0, 1, 2, 3]) assert.equal(put(n, 0xffff_8000_0000_0000n + BigInt(n)), null);
  assert.equal(get(2), 0xffff_8000_0000_0002n);
  assert.equal(put(4, 0n), null);
  assert.equal(get(6), 0xffff0ff0n);
  assert.equal(put(6, 0xffffffffn), null);
  assert.equal(get(4), 0xffffefffn);
  assert.equal(put(7, 0xffffd3ffn), null);
  assert.equal(get(7), 0xffff07ffn);
  assert.equal(put(5, 1n), null);
  assert.equal(get(7), 0x401n);
  assert.equal((m.get(st.ctx) as number) & Ctx.step, Ctx.step);
  assert.deepEqual(put(7, 1n << 32n), GP);
  assert.deepEqual(put(6, 1n << 32n), GP);
  m.set(st.cr4, 0x228n);
  assert.deepEqual(put(4, 0n), UD);
  assert.equal(put(7, 0x2400n), null);
  assert.deepEqual(put(0, 0n), { vector: 1, error: null });
  assert.equal(m.u64(st.dr[6]!) & 0x2000n, 0x2000n);
  assert.equal(put(0, 0n), null);
});

test('LMSW cannot clear PE, SMSW has the size of its operand', () => {
  const m = new TestMachine();
  m.mode('unpaged');
  m.set(st.gpr[R.rax]!, 0x000en);
  assert.equal(exec(m, 0x0f, 0x01, 0xf0), null);
  assert.equal(m.u64(st.cr0), 0x1001fn);
  m.set(st.gpr[R.rcx]!, -1n);
  assert.equal(exec(m, 0x66, 0x0f, 0x01, 0xe1), null);
  assert.equal(m.u64(st.gpr[R.rcx]!), 0xffffffffffff001fn);
  assert.equal(exec(m, 0x0f, 0x01, 0xe1), null);
  assert.equal(m.u64(st.gpr[R.rcx]!), 0x1001fn);
  assert.equal(exec(m, 0x0f, 0x06), null);
  assert.equal(m.u64(st.cr0), 0x10017n);
});

test('UMIP keeps users from SGDT, SIDT and SMSW', () => {
  for (const [cr4, expected] of [[0, null], [0x800, GP]] as const) {
    const m = long({ cr4 });
    m.identity(0x87n);
    m.privilege(3);
    assert.deepEqual(exec(m, 0x0f, 0x01, 0xe1), expected);
    assert.deepEqual(exec(m, 0x0f, 0x01, 0x04, 0x25, 0, 0x50, 0, 0), expected);
    assert.deepEqual(exec(m, 0x0f, 0x01, 0x0c, 0x25, 0, 0x50, 0, 0), expected);
  }
}); // biome-ignore format: pairs

test('descriptor table registers are loaded and stored in 10 bytes, with a canonical base', () => {
  const m = long();
  m.write64(0x5000, (0x8877_6655_4433_00ffn & 0xffffn) | ((0xffff_8000_1234_5678n << 16n) & 0xffffffffffffffffn));
  m.write64(0x5008, 0xffffn);
  const [base, limit]: [Slot, Slot] = [st.idtBase, st.idtLimit];
  assert.equal(exec(m, 0x0f, 0x01, 0x1c, 0x25, 0, 0x50, 0, 0), null);
  assert.equal(m.u64(base), 0xffff_8000_1234_5678n);
  assert.equal(m.get(limit), 0x00ff);
  assert.equal(exec(m, 0x0f, 0x01, 0x0c, 0x25, 0, 0x60, 0, 0), null);
  assert.equal(m.read64(0x6000), m.read64(0x5000));
  assert.equal(m.read64(0x6008), 0xffffn);
  m.write64(0x5008, 0x1234n);
  assert.deepEqual(exec(m, 0x0f, 0x01, 0x1c, 0x25, 0, 0x50, 0, 0), GP);
  m.privilege(3);
  assert.deepEqual(exec(m, 0x0f, 0x01, 0x14, 0x25, 0, 0x50, 0, 0), GP);
});

test('INVLPG drops a page, and is privileged', () => {
  const m = long();
  const held = touch(m);
  assert.equal(exec(m, 0x0f, 0x01, 0x3c, 0x25, 0x00, 0x60, 0x80, 0x00), null);
  assert.equal(held(), true);
  assert.equal(exec(m, 0x0f, 0x01, 0x3c, 0x25, 0x23, 0x51, 0x00, 0x00), null);
  assert.equal(held(), false);
  m.privilege(3);
  assert.deepEqual(exec(m, 0x0f, 0x01, 0x3c, 0x25, 0, 0x50, 0, 0), GP);
});

test('INVPCID has four types, and checks type, descriptor and address', () => {
  const invpcid = (m: TestMachine, type: bigint, pcid: bigint, addr: bigint): ReturnType<TestMachine['exception']> => {
    m.write64(0x7000, pcid);
    m.write64(0x7008, addr);
    m.set(st.gpr[R.rax]!, type);
    return exec(m, 0x66, 0x0f, 0x38, 0x82, 0x04, 0x25, 0, 0x70, 0, 0);
  };
  const m = long({ cr4: 0x80 });
  const cases: [bigint, bigint, bigint, boolean, boolean][] = [
    // Type, PCID, address; kept where not global, kept where global.
    [0n, 0n, 0x5000n, false, false],
    [0n, 0n, 0x40_5000n, true, true],
    [1n, 0n, 0n, false, true],
    [2n, 0n, 0n, false, false],
    [3n, 0n, 0n, false, true],
  ];
  for (const [type, pcid, addr, plain, global] of cases) {
    m.identity(0x83n);
    let held = touch(m);
    assert.equal(invpcid(m, type, pcid, addr), null);
    assert.equal(held(), plain, `type ${type}`);
    exec(m, 0x0f, 0x01, 0x3c, 0x25, 0, 0x50, 0, 0);
    m.identity(0x183n);
    held = touch(m);
    assert.equal(invpcid(m, type, pcid, addr), null);
    assert.equal(held(), global, `type ${type}, global`);
    exec(m, 0x0f, 0x01, 0x3c, 0x25, 0, 0x50, 0, 0);
  }
  assert.deepEqual(invpcid(m, 4n, 0n, 0n), GP);
  assert.deepEqual(invpcid(m, 2n, 0x1000n, 0n), GP);
  assert.deepEqual(invpcid(m, 0n, 1n, 0n), GP);
  // Of as many bits as the processor has, whatever the paging.
  assert.equal(invpcid(m, 0n, 0n, 1n << 47n), null);
  assert.deepEqual(invpcid(m, 0n, 0n, 1n << 56n), GP);
  m.set(st.cr4Absent, 0x1000);
  assert.deepEqual(invpcid(m, 0n, 0n, 1n << 47n), GP);
});

test('XCR0 takes what CPUID offers, with x87 always and AVX only with SSE', () => {
  const m = long({ cr4: 1 << 18 });
  m.hosts.cpuid = () => {
    m.set(st.cpuidResult[0]!, 7);
    m.set(st.cpuidResult[3]!, 0);
    return undefined;
  };
  const xsetbv = (value: bigint, index = 0n): ReturnType<TestMachine['exception']> => {
    m.set(st.gpr[R.rax]!, value);
    m.set(st.gpr[R.rcx]!, index);
    return exec(m, 0x0f, 0x01, 0xd1);
  };
  for (const good of [1n, 3n, 7n]) {
    assert.equal(xsetbv(good), null);
    m.set(st.gpr[R.rcx]!, 0n);
    assert.equal(exec(m, 0x0f, 0x01, 0xd0), null);
    assert.equal(m.u64(st.gpr[R.rax]!), good);
  }
  for (const bad of [0n, 2n, 5n, 9n]) assert.deepEqual(xsetbv(bad), GP);
  assert.deepEqual(xsetbv(1n, 1n), GP);
  m.set(st.gpr[R.rcx]!, 2n);
  assert.deepEqual(exec(m, 0x0f, 0x01, 0xd0), GP);
  m.set(st.gpr[R.rcx]!, 1n);
  assert.equal(exec(m, 0x0f, 0x01, 0xd0), null);
  m.set(st.absent, Absent.xgetbv1);
  assert.deepEqual(exec(m, 0x0f, 0x01, 0xd0), GP);
  m.set(st.cr4, 0x220n);
  assert.deepEqual(exec(m, 0x0f, 0x01, 0xd0), UD);
  assert.deepEqual(xsetbv(1n), UD);
});
