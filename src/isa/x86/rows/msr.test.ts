import assert from 'node:assert/strict';
import { test } from 'node:test';
import { f64Bits } from '../../../ir/datum.ts';
import * as st from '../state.ts';
import { Absent, R, S } from '../state.ts';
import { buildTables } from '../table.ts';
import { TestMachine } from '../test-machine.ts';
import { msrRows } from './msr.ts';

const tables = buildTables(msrRows);
const GP = { vector: 13, error: 0 };
const UD = { vector: 6, error: null };
const ALL = 0xffff_ffff_ffff_ffffn;

function exec(m: TestMachine, ...bytes: number[]): ReturnType<TestMachine['exception']> {
  assert.notEqual(m.exec(tables, ...bytes), 'undefined');
  return m.exception();
}
function long(options: Parameters<TestMachine['mode']>[1] = {}): TestMachine {
  const m = new TestMachine();
  m.mode('4-level', options);
  m.identity();
  return m;
}
function wrmsr(m: TestMachine, msr: number, value: bigint): ReturnType<TestMachine['exception']> {
  // The upper halves of the registers do not count.
  m.set(st.gpr[R.rcx]!, 0x7777_0000_0000n | BigInt(msr));
  m.set(st.gpr[R.rax]!, 0x7777_0000_0000n | (value & 0xffffffffn));
  m.set(st.gpr[R.rdx]!, 0x7777_0000_0000n | ((value >> 32n) & 0xffffffffn));
  return exec(m, 0x0f, 0x30);
}
function rdmsr(m: TestMachine, msr: number): bigint | ReturnType<TestMachine['exception']> {
  m.set(st.gpr[R.rcx]!, BigInt(msr));
  m.set(st.gpr[R.rax]!, -1n);
  m.set(st.gpr[R.rdx]!, -1n);
  const e = exec(m, 0x0f, 0x32);
  return e ?? (m.u64(st.gpr[R.rdx]!) << 32n) | m.u64(st.gpr[R.rax]!);
}

test('registers kept in the state are read back as written', () => {
  const m = long();
  const value = 0x0000_1234_5678_9abcn;
  const kept = [0x174, 0x175, 0x176, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000100, 0xc0000101, 0xc0000102, 0x1a0, 0xc0010015];
  kept.forEach((msr, i) => {
    assert.equal(wrmsr(m, msr, value + BigInt(i)), null);
  });
  kept.forEach((msr, i) => {
    assert.equal(rdmsr(m, msr), value + BigInt(i), msr.toString(16));
  });
  assert.equal(m.u64(st.lstar), value + 4n);
  assert.equal(m.u64(st.segBase[S.fs]!), value + 6n);
  assert.equal(m.u64(st.kernelGsBase), value + 8n);
});

test('addresses must be canonical: of 57 bits where the processor has 5-level paging, else of 48', () => {
  const m = long();
  for (const msr of [0x175, 0x176, 0xc0000082, 0xc0000083, 0xc0000100, 0xc0000101, 0xc0000102]) {
    m.set(st.cr4Absent, 1 << 12);
    assert.deepEqual(wrmsr(m, msr, 1n << 47n), GP);
    assert.equal(wrmsr(m, msr, 0xffff_8000_0000_0000n), null);
    m.set(st.cr4Absent, 0);
    assert.equal(wrmsr(m, msr, 1n << 47n), null);
    assert.deepEqual(wrmsr(m, msr, 1n << 56n), GP);
  }
});

test('registers of 32 bits refuse more', () => {
  const m = long();
  for (const msr of [0xc0000084, 0xc0000103]) {
    assert.deepEqual(wrmsr(m, msr, 1n << 32n), GP);
    assert.equal(wrmsr(m, msr, 0xffffffffn), null);
    assert.equal(rdmsr(m, msr), 0xffffffffn);
  }
});

test('EFER keeps LMA, refuses reserved bits, and LME while paging; NXE empties the TLB', () => {
  const m = long();
  const flushes = m.get(st.counters[3]!) as number;
  assert.equal(wrmsr(m, 0xc0000080, 0x101n), null);
  assert.equal(rdmsr(m, 0xc0000080), 0x501n);
  assert.equal(m.get(st.counters[3]!), flushes);
  assert.equal(wrmsr(m, 0xc0000080, 0xd01n), null);
  assert.equal(m.get(st.counters[3]!), flushes + 1);
  assert.deepEqual(wrmsr(m, 0xc0000080, 0xc01n), GP);
  for (const bit of [1n, 7n, 9n, 12n, 14n, 40n]) assert.deepEqual(wrmsr(m, 0xc0000080, 0xd01n | (1n << bit)), GP, `bit ${bit}`);
  const legacy = new TestMachine();
  legacy.mode('unpaged');
  assert.equal(wrmsr(legacy, 0xc0000080, 0x500n), null);
  assert.equal(rdmsr(legacy, 0xc0000080), 0x100n);
});

test('registers and bits of EFER that no feature of the processor brings raise #GP', () => {
  const cases = [
    ['syscall', [0xc0000081], 1n],
    ['lm', [0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102], 0x100n],
    ['nx', [], 0x800n],
    ['tsc-adjust', [0x3b], 0n],
    ['xsaves', [0xda0], 0n],
    ['pks', [0x6e1], 0n],
  ] as const; // biome-ignore format: a table
  for (const [feature, registers, bit] of cases) {
    const m = new TestMachine();
    m.mode('unpaged');
    const refused = (want: typeof GP | null): void => {
      for (const msr of registers) {
        assert.deepEqual(wrmsr(m, msr, 0n), want, `${feature}: 0x${msr.toString(16)}`);
        assert.deepEqual(rdmsr(m, msr), want ?? 0n, `${feature}: 0x${msr.toString(16)}`);
      }
      if (bit !== 0n) assert.deepEqual(wrmsr(m, 0xc0000080, bit), want, feature);
    };
    refused(null);
    m.set(st.absent, Absent[feature]);
    refused(GP);
    assert.equal(wrmsr(m, 0xc0000080, 0x901n & ~bit), null);
  }
});

test('IA32_TSC_AUX is there for either of RDTSCP and RDPID', () => {
  const m = long();
  for (const absent of [Absent.rdtscp, Absent.rdpid]) {
    m.set(st.absent, absent);
    assert.equal(wrmsr(m, 0xc0000103, 5n), null);
  }
  m.set(st.absent, Absent.rdtscp | Absent.rdpid);
  assert.deepEqual(wrmsr(m, 0xc0000103, 5n), GP);
  assert.deepEqual(rdmsr(m, 0xc0000103), GP);
});

test('PAT and MTRRs accept memory types only', () => {
  const m = long();
  assert.equal(wrmsr(m, 0x277, 0x0007_0605_0401_0406n), null);
  for (const bad of [2n, 3n, 8n, 0x80n]) for (const byte of [0n, 7n]) assert.deepEqual(wrmsr(m, 0x277, bad << (8n * byte)), GP);
  for (const msr of [0x250, 0x258, 0x259, 0x268, 0x26f]) {
    assert.equal(wrmsr(m, msr, 0x0605_0401_0006_0600n + BigInt(msr & 1)), null);
    assert.equal(rdmsr(m, msr), 0x0605_0401_0006_0600n + BigInt(msr & 1));
    assert.deepEqual(wrmsr(m, msr, 7n << 56n), GP);
    assert.deepEqual(wrmsr(m, msr, 2n), GP);
  }
  for (let i = 0; i < 8; i++) {
    assert.equal(wrmsr(m, 0x200 + 2 * i, (BigInt(i) << 20n) | 6n), null);
    assert.equal(wrmsr(m, 0x201 + 2 * i, 0xff_fff0_0800n), null);
  }
  for (let i = 0; i < 8; i++) assert.equal(rdmsr(m, 0x200 + 2 * i), (BigInt(i) << 20n) | 6n);
  assert.equal(rdmsr(m, 0x20f), 0xff_fff0_0800n);
  assert.deepEqual(wrmsr(m, 0x200, 1n << 40n), GP);
  assert.deepEqual(wrmsr(m, 0x200, 7n), GP);
  assert.deepEqual(wrmsr(m, 0x201, 6n), GP);
  assert.equal(wrmsr(m, 0x2ff, 0xc06n), null);
  assert.equal(rdmsr(m, 0x2ff), 0xc06n);
  assert.deepEqual(wrmsr(m, 0x2ff, 0x1000n), GP);
  assert.deepEqual(wrmsr(m, 0xfe, 0n), GP);
});

test('ten machine check banks are there and empty', () => {
  const m = long();
  for (const msr of [0x17a, 0x400, 0x427]) assert.equal(rdmsr(m, msr), 0n);
  assert.equal(Number(rdmsr(m, 0x179)) & 0xff, 10);
  assert.equal(wrmsr(m, 0x401, 0n), null);
  assert.deepEqual(wrmsr(m, 0x401, 1n), GP);
  assert.equal(wrmsr(m, 0x404, -1n), null);
  assert.equal(rdmsr(m, 0x404), (1n << 64n) - 1n);
  // What Linux writes to bank 4 on the K8 that the model qemu64 is.
  assert.equal(wrmsr(m, 0x410, ~0x400n), null);
  assert.equal(rdmsr(m, 0x410), BigInt.asUintN(64, ~0x400n));
  for (const value of [1n, 0x400n, ~0x800n]) assert.deepEqual(wrmsr(m, 0x410, value), GP, value.toString(16));
});

test('other registers are asked of the host, which may refuse', () => {
  const m = long();
  m.hosts.rdmsr = (msr) => {
    m.calls.push(['rdmsr', msr!]);
    if (msr === 0x1b) return 0xfee00900n;
    m.set(st.exc, 14);
    m.set(st.excError, 0);
    return 0n;
  };
  assert.equal(rdmsr(m, 0x1b), 0xfee00900n);
  const others = [0, 0x11, 0x3c, 0x173, 0x177, 0x210, 0x251, 0x480, 0x832, 0xc000007f, 0xc0000085, 0xc0000104, 0xffffffff];
  for (const msr of others) assert.deepEqual(rdmsr(m, msr), GP, msr.toString(16));
  assert.deepEqual(m.calls.map((call) => call[1]), [0x1b, ...others.map((msr) => msr | 0)]);
  m.calls.length = 0;
  assert.equal(wrmsr(m, 0x6e0, 0x1_2345_6789n), null);
  assert.deepEqual(m.calls, [['wrmsr', 0x6e0, 0x1_2345_6789n]]);
}); // biome-ignore format: lists

test('RDMSR and WRMSR are privileged', () => {
  const m = long();
  m.privilege(3);
  assert.deepEqual(wrmsr(m, 0x174, 1n), GP);
  assert.deepEqual(rdmsr(m, 0x174), GP);
});

test('the time stamp is the host counter and the offset that writes to TSC and TSC_ADJUST make', () => {
  const m = long();
  m.hosts.tsc = () => f64Bits(2 ** 32);
  const rdtsc = (): bigint => {
    assert.equal(exec(m, 0x0f, 0x31), null);
    return (m.u64(st.gpr[R.rdx]!) << 32n) | m.u64(st.gpr[R.rax]!);
  };
  assert.equal(rdtsc(), 0x1_0000_0000n);
  assert.equal(wrmsr(m, 0x10, 5n), null);
  assert.equal(rdtsc(), 5n);
  assert.equal(rdmsr(m, 0x10), 5n);
  assert.equal(rdmsr(m, 0x3b), (5n - 0x1_0000_0000n) & ALL);
  assert.equal(wrmsr(m, 0x3b, 0n), null);
  assert.equal(rdtsc(), 0x1_0000_0000n);
  m.set(st.tscAux, 3n);
  assert.equal(exec(m, 0x0f, 0x01, 0xf9), null);
  assert.equal(m.u64(st.gpr[R.rcx]!), 3n);
  assert.equal(exec(m, 0xf3, 0x0f, 0xc7, 0xf8), null);
  assert.equal(m.u64(st.gpr[R.rax]!), 3n);
});

test('CR4.TSD keeps users from the time stamp', () => {
  const m = long({ cr4: 4 });
  m.hosts.tsc = () => f64Bits(1);
  assert.equal(exec(m, 0x0f, 0x31), null);
  m.privilege(3);
  assert.deepEqual(exec(m, 0x0f, 0x31), GP);
  assert.deepEqual(exec(m, 0x0f, 0x01, 0xf9), GP);
  assert.deepEqual(exec(m, 0x0f, 0x33), GP);
});

test('CPUID writes four registers and clears their upper halves', () => {
  const m = long();
  m.hosts.cpuid = (leaf, subleaf) => {
    m.calls.push(['cpuid', leaf!, subleaf!]);
    [-1, 2, 3, 4].forEach((v, i) => {
      m.set(st.cpuidResult[i]!, v);
    });
    return undefined;
  };
  for (const n of [R.rax, R.rbx, R.rcx, R.rdx]) m.set(st.gpr[n]!, -1n);
  m.set(st.gpr[R.rax]!, 7n);
  assert.equal(exec(m, 0x0f, 0xa2), null);
  assert.deepEqual(m.calls, [['cpuid', 7, -1]]);
  assert.deepEqual([R.rax, R.rbx, R.rcx, R.rdx].map((n) => m.u64(st.gpr[n]!)), [0xffffffffn, 2n, 3n, 4n]);
}); // biome-ignore format: lists

test('SWAPGS exchanges the bases, at CPL 0 and in 64-bit code only', () => {
  const m = long();
  m.set(st.segBase[S.gs]!, 1n);
  m.set(st.kernelGsBase, 2n);
  assert.equal(exec(m, 0x0f, 0x01, 0xf8), null);
  assert.deepEqual([m.u64(st.segBase[S.gs]!), m.u64(st.kernelGsBase)], [2n, 1n]);
  m.privilege(3);
  assert.deepEqual(exec(m, 0x0f, 0x01, 0xf8), GP);
  const legacy = new TestMachine();
  assert.equal(legacy.exec(tables, 0x0f, 0x01, 0xf8), 'undefined');
}); // biome-ignore format: lists

test('FS and GS bases are read and written at any level with CR4.FSGSBASE', () => {
  const m = long({ cr4: 1 << 16 });
  m.privilege(3);
  m.set(st.gpr[R.rax]!, 0xffff_8000_1234_5678n - (1n << 64n));
  assert.equal(exec(m, 0xf3, 0x48, 0x0f, 0xae, 0xd0), null); // wrfsbase rax
  assert.equal(m.u64(st.segBase[S.fs]!), 0xffff_8000_1234_5678n);
  assert.equal(exec(m, 0xf3, 0x0f, 0xae, 0xd8), null); // wrgsbase eax
  assert.equal(m.u64(st.segBase[S.gs]!), 0x1234_5678n);
  assert.equal(exec(m, 0xf3, 0x48, 0x0f, 0xae, 0xc1), null); // rdfsbase rcx
  assert.equal(m.u64(st.gpr[R.rcx]!), 0xffff_8000_1234_5678n);
  assert.equal(exec(m, 0xf3, 0x0f, 0xae, 0xc1), null); // rdfsbase ecx
  assert.equal(m.u64(st.gpr[R.rcx]!), 0x1234_5678n);
  m.set(st.gpr[R.rax]!, 1n << 56n);
  assert.deepEqual(exec(m, 0xf3, 0x48, 0x0f, 0xae, 0xd0), GP);
  m.set(st.cr4, 0x220n);
  assert.deepEqual(exec(m, 0xf3, 0x0f, 0xae, 0xc1), UD);
});
