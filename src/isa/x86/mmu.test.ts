import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemorySlots } from '../../bus/slots.ts';
import { loadSlow, storeSlow } from './memory.ts';
import { fetchTranslate, How, OUTSIDE, pageAddress, physicalOf, ramAddress, tlbFill } from './mmu.ts';
import * as st from './state.ts';
import { TestMachine } from './test-machine.ts';

const NXE = 0x800;
const NX = 1n << 63n;
const PSE = 0x10;
const PGE = 0x80;
const SMEP = 1 << 20;
const SMAP = 1 << 21;
const AC = 1 << 18;
const pf = (error: number): { vector: number; error: number } => ({ vector: 14, error });
const GP = { vector: 13, error: 0 };

/** 4-level paging with 4 KiB pages: linear page n of the first 2 MiB has its entry at 0x4000 + 8n. */
function long(flags: bigint, options: { cr4?: number; efer?: number; wp?: boolean } = {}): TestMachine {
  const m = new TestMachine();
  m.mode('4-level', { efer: NXE, ...options });
  m.write64(0x1000, 0x2007n);
  m.write64(0x2000, 0x3007n);
  m.write64(0x3000, 0x4007n);
  m.write64(0x4000 + 8 * 5, 0x9000n | flags);
  return m;
}
const ADDR = 0x5123n;

function refused(m: TestMachine, addr: bigint, how: number): { vector: number; error: number | null } {
  assert.equal(m.translate(addr, how), null);
  const e = m.exception();
  assert.ok(e);
  return e;
}

test('without paging a linear address is the physical one, cut to 32 bits', () => {
  const m = new TestMachine();
  m.mode('unpaged');
  assert.equal(m.translate(0x12345n), 0x12345n);
  assert.equal(m.translate(0x1_0001_2345n), 0x12345n);
});

test('4-level paging maps 4 KiB, 2 MiB and 1 GiB pages', () => {
  const m = long(3n);
  assert.equal(m.translate(ADDR), 0x9123n);
  m.write64(0x3008, (0x40_0000_0083n & ~0x1fffffn) | 0x83n);
  assert.equal(m.translate(0x345678n), 0x40_0014_5678n);
  m.write64(0x2008, 0x80_4000_0083n);
  assert.equal(m.translate(0x5234_5678n), 0x80_5234_5678n);
});

test('4-level paging uses all four indices and the upper half', () => {
  const m = long(3n);
  m.write64(0x1000 + 8 * 511, 0x2007n);
  m.write64(0x2000 + 8 * 510, 0x3007n);
  m.write64(0x3000 + 8 * 3, 0x4007n);
  assert.equal(m.translate(0xffffffff80600000n + ADDR), 0x9123n);
});

test('an address that is not canonical gives #GP(0), and CR2 stays', () => {
  const m = long(3n);
  m.set(st.cr2, 7n);
  assert.deepEqual(refused(m, 0x8000_0000_0000n, 0), GP);
  assert.deepEqual(refused(m, 0xffff_7fff_ffff_f000n, How.fetch), GP);
  assert.equal(m.u64(st.cr2), 7n);
});

test('an entry that is not present at any level gives #PF with the kind of access and CR2', () => {
  for (const [at, cpl] of [[0x1000, 0], [0x2000, 3], [0x3000, 0], [0x4028, 3]]) {
    const m = long(7n);
    m.privilege(cpl!);
    m.write64(at!, m.read64(at!) & ~1n);
    const user = cpl === 3 ? 4 : 0;
    assert.deepEqual(refused(m, ADDR, 0), pf(user));
    assert.equal(m.u64(st.cr2), ADDR);
    assert.deepEqual(refused(m, ADDR, How.write), pf(user | 2));
    assert.deepEqual(refused(m, ADDR, How.fetch), pf(user | 16));
    assert.deepEqual(refused(m, ADDR, How.system), pf(0));
  }
}); // biome-ignore format: pairs

test('the fetch bit of the error code needs NXE or SMEP', () => {
  const m = long(2n, { efer: 0 });
  assert.deepEqual(refused(m, ADDR, How.fetch), pf(0));
  m.mode('4-level', { cr4: SMEP });
  assert.deepEqual(refused(m, ADDR, How.fetch), pf(16));
});

test('a user access needs the user bit at every level', () => {
  for (const at of [0x1000, 0x2000, 0x3000, 0x4028]) {
    const m = long(7n);
    m.privilege(3);
    assert.equal(m.translate(ADDR), 0x9123n);
    m.write64(at, m.read64(at) & ~4n);
    assert.deepEqual(refused(m, ADDR, 0), pf(5));
    assert.equal(m.translate(ADDR, How.system), 0x9123n);
  }
});

test('a user write needs the write bit at every level', () => {
  for (const at of [0x1000, 0x2000, 0x3000, 0x4028]) {
    const m = long(7n);
    m.privilege(3);
    assert.equal(m.translate(ADDR, How.write), 0x9123n);
    m.write64(at, m.read64(at) & ~2n);
    assert.deepEqual(refused(m, ADDR, How.write), pf(7));
    assert.equal(m.translate(ADDR), 0x9123n);
  }
});

test('a supervisor write to a read-only page faults with CR0.WP only', () => {
  const m = long(5n);
  assert.deepEqual(refused(m, ADDR, How.write), pf(3));
  m.mode('4-level', { wp: false });
  assert.equal(m.translate(ADDR, How.write), 0x9123n);
  m.privilege(3);
  assert.deepEqual(refused(m, ADDR, How.write), pf(7));
});

test('NX at any level refuses fetches only', () => {
  for (const at of [0x1000, 0x2000, 0x3000, 0x4028]) {
    const m = long(3n);
    m.write64(at, m.read64(at) | NX);
    assert.equal(m.translate(ADDR, How.write), 0x9123n);
    assert.deepEqual(refused(m, ADDR, How.fetch), pf(17));
  }
});

test('bit 63 without NXE, PS in a PML4 entry and bits above the physical width are reserved', () => {
  const m = long(3n, { efer: 0 });
  m.write64(0x4028, 0x9003n | NX);
  assert.deepEqual(refused(m, ADDR, 0), pf(9));
  m.write64(0x4028, 0x9003n | (1n << 40n));
  assert.deepEqual(refused(m, ADDR, How.write), pf(11));
  m.write64(0x4028, 0x9003n | (1n << 52n));
  assert.equal(m.translate(ADDR), 0x9123n);
  m.write64(0x1000, 0x2087n);
  assert.deepEqual(refused(m, ADDR, 0), pf(9));
  m.write64(0x1000, 0x2007n);
  m.write64(0x3000, 0x2087n);
  assert.deepEqual(refused(m, ADDR, 0), pf(9));
});

test('the address bits of a large page below its size are reserved, but for PAT', () => {
  const m = long(3n);
  for (const [at, addr, good, bad] of [
    [0x3008, 0x20_0000n, 0x20_1083n, 0x20_2083n],
    [0x2008, 0x4000_0000n, 0x4000_1083n, 0x4000_2083n],
    [0x2008, 0x4000_0000n, 0x4000_1083n, 0x6000_0083n],
  ] as const) {
    m.write64(at, good);
    assert.equal(m.translate(addr), good & ~0x1fffn);
    m.write64(at, bad);
    assert.deepEqual(refused(m, addr, 0), pf(9));
  }
});

test('a 32-bit page table outside RAM maps the last page, and nothing is written', () => {
  const m = new TestMachine();
  m.mode('32-bit');
  m.write32(0x1000, 0x80000023);
  m.hosts.cas = () => assert.fail('there is no entry to change');
  assert.equal(m.translate(0x123n, How.write), 0xfffff123n);
});

test('page tables outside RAM read as all ones and fault as reserved', () => {
  const m = long(3n);
  m.write64(0x3000, 0x8000_0007n);
  assert.deepEqual(refused(m, ADDR, 0), pf(9));
});

test('SMEP refuses supervisor fetches from user pages', () => {
  const m = long(7n, { cr4: SMEP });
  assert.equal(m.translate(ADDR), 0x9123n);
  assert.deepEqual(refused(m, ADDR, How.fetch), pf(17));
  m.privilege(3);
  assert.equal(m.translate(ADDR, How.fetch), 0x9123n);
});

test('SMAP refuses supervisor data accesses to user pages but for explicit ones with RFLAGS.AC', () => {
  const m = long(7n, { cr4: SMAP });
  assert.deepEqual(refused(m, ADDR, 0), pf(1));
  assert.deepEqual(refused(m, ADDR, How.write), pf(3));
  assert.equal(m.translate(ADDR, How.fetch), 0x9123n);
  m.set(st.sysFlags, AC);
  assert.equal(m.translate(ADDR, How.write), 0x9123n);
  assert.deepEqual(refused(m, ADDR, How.system), pf(1));
  m.privilege(3);
  assert.equal(m.translate(ADDR), 0x9123n);
  assert.deepEqual(refused(m, ADDR, How.system | How.write), pf(3));
});

test('accessed bits are set on the way and the dirty bit by a write, on the leaf alone', () => {
  const m = long(3n);
  m.translate(ADDR);
  for (const at of [0x1000, 0x2000, 0x3000, 0x4028]) assert.equal(m.read64(at) & 0x60n, 0x20n);
  m.translate(ADDR, How.write);
  assert.equal(m.read64(0x4028), 0x9063n);
  assert.equal(m.read64(0x3000), 0x4027n);
});

test('an access that is refused leaves accessed and dirty of the leaf alone', () => {
  const m = long(1n);
  refused(m, ADDR, How.write);
  assert.equal(m.read64(0x4028), 0x9001n);
});

test('an entry that another vCPU changes during the walk is read again', () => {
  const m = long(3n);
  const cas = m.hosts.cas!;
  m.hosts.cas = (ptr, ...rest) => {
    if (ptr === BigInt(m.host(0x4028))) m.write64(0x4028, 0xa023n);
    return cas(ptr!, ...rest);
  };
  assert.equal(m.translate(ADDR), 0xa123n);
});

test('32-bit paging maps 4 KiB pages, and 4 MiB pages with CR4.PSE', () => {
  const m = new TestMachine();
  m.mode('32-bit');
  m.write32(0x1000 + 4 * 0x300, 0x2083);
  m.write32(0x2000 + 4 * 5, 0x9003);
  assert.equal(m.translate(0xc0005123n), 0x9123n);
  assert.equal(m.read32(0x1000 + 4 * 0x300), 0x20a3);
  assert.equal(m.read32(0x2000 + 4 * 5), 0x9023);
  m.mode('32-bit', { cr4: PSE });
  m.write32(0x1000 + 4 * 0x300, 0x00c00083);
  assert.equal(m.translate(0xc0005123n, How.write), 0xc05123n);
  assert.equal(m.read32(0x1000 + 4 * 0x300), 0x00c000e3);
  m.write32(0x1000 + 4 * 0x300, 0x00c00083 | (0xab << 13));
  assert.equal(m.translate(0xc0005123n), 0xab_00c0_5123n);
  m.write32(0x1000 + 4 * 0x300, 0x00e00083);
  assert.deepEqual(refused(m, 0xc0005123n, 0), pf(9));
});

test('32-bit paging checks user and write bits of both levels', () => {
  for (const [at, bit, how, error] of [[0x1000, 4, 0, 5], [0x2014, 4, 0, 5], [0x1000, 2, How.write, 7], [0x2014, 2, How.write, 7]]) {
    const m = new TestMachine();
    m.mode('32-bit');
    m.write32(0x1000, 0x2007);
    m.write32(0x2014, 0x9007);
    m.privilege(3);
    assert.equal(m.translate(ADDR, how), 0x9123n);
    m.write32(at!, m.read32(at!) & ~bit!);
    assert.deepEqual(refused(m, ADDR, how!), pf(error!));
  }
}); // biome-ignore format: tuples

test('PAE paging maps 4 KiB and 2 MiB pages; the pointer table has no rights', () => {
  const m = new TestMachine();
  m.mode('pae', { cr3: 0x1020, efer: NXE });
  m.write64(0x1020 + 8 * 3, 0x2001n);
  m.write64(0x2000, 0x3007n);
  m.write64(0x3000 + 8 * 5, 0x9007n);
  m.privilege(3);
  assert.equal(m.translate(0xc0005123n, How.write), 0x9123n);
  assert.equal(m.read64(0x1038), 0x2001n);
  m.write64(0x2008, 0x12_3460_0087n);
  assert.equal(m.translate(0xc0205123n, How.fetch), 0x12_3460_5123n);
  m.write64(0x2008, 0x12_3460_0087n | NX);
  assert.deepEqual(refused(m, 0xc0205123n, How.fetch), pf(21));
  m.write64(0x2008, 0x12_3460_0087n | (1n << 52n));
  assert.deepEqual(refused(m, 0xc0205123n, 0), pf(13));
  m.write64(0x1038, 0x2003n);
  assert.deepEqual(refused(m, 0xc0005123n, 0), pf(13));
  m.write64(0x1038, 0x2000n);
  assert.deepEqual(refused(m, 0xc0005123n, 0), pf(4));
});

test('RAM lies below the hole and from 4 GiB; elsewhere there is none', () => {
  const m = new TestMachine();
  assert.equal(m.run(ramAddress, 0x2fffffn).value, BigInt(m.host(0x2fffff)));
  assert.equal(m.run(ramAddress, 0x300000n).value, 0n);
  assert.equal(m.run(ramAddress, 0x1_0000_0000n).value, BigInt(m.host(0x300000)));
  assert.equal(m.run(ramAddress, 0x1_0001_0000n).value, 0n);
  assert.equal(m.run(ramAddress, 0xff_ffff_ffffn).value, 0n);
  assert.equal(m.run(physicalOf, BigInt(m.host(0x1234))).value, 0x1234n);
  assert.equal(m.run(physicalOf, BigInt(m.host(0x300010))).value, 0x1_0000_0010n);
});

test('a fetch gives the physical address, or -1 with the fault pending', () => {
  const m = long(3n);
  assert.equal(m.run(fetchTranslate, ADDR).value, 0x9123n);
  assert.equal(m.run(fetchTranslate, 0x6000n).value, -1n);
  assert.deepEqual(m.exception(), pf(16));
});

test('a fetch from a non-global page of the upper half is remembered', () => {
  const m = long(0x103n, { cr4: PGE });
  m.write64(0x1000 + 8 * 511, 0x2007n);
  m.run(fetchTranslate, ADDR);
  m.run(fetchTranslate, 0xffffff8000000000n + ADDR);
  assert.equal(m.get(st.upperNonGlobal), 0);
  m.write64(0x4028, 0x9003n);
  m.run(fetchTranslate, ADDR);
  assert.equal(m.get(st.upperNonGlobal), 0);
  m.run(fetchTranslate, 0xffffff8000000000n + ADDR);
  assert.equal(m.get(st.upperNonGlobal), 1);
});

/** The TLB entry of `addr` in TLB `n`: tag, host address that it gives, flags. */
function entry(m: TestMachine, n: number, addr: bigint): { tag: bigint; host: number; flags: number } {
  const at = (m.get(st.tlbs[n]!) as number) + Number((addr >> 12n) & 4095n) * 16;
  const addend = m.memory.getInt32(at + 8, true);
  return {
    tag: m.memory.getBigUint64(at, true),
    host: (Number(addr & 0xffffffffn) + addend) >>> 0,
    flags: m.memory.getInt32(at + 12, true) & 7,
  };
}

test('a filled entry gives the host address, and lets stores through once the page is dirty', () => {
  const m = long(3n);
  assert.equal(m.run(tlbFill, ADDR, 0).value, BigInt(m.host(0x9123)));
  assert.deepEqual(entry(m, 1, ADDR), { tag: 0x5001n, host: m.host(0x9123), flags: 0 });
  m.run(tlbFill, ADDR, How.write);
  assert.deepEqual(entry(m, 1, ADDR), { tag: 0x5000n, host: m.host(0x9123), flags: 4 });
});

test('a page of decoded code is entered as slow for stores', () => {
  const m = long(0x43n);
  m.setCode(0x9000, 2);
  m.run(tlbFill, ADDR, How.write);
  assert.deepEqual(entry(m, 1, ADDR), { tag: 0x5001n, host: m.host(0x9123), flags: 4 });
});

test('user, open and guarded supervisor accesses fill different TLBs', () => {
  const m = long(7n, { cr4: SMAP });
  m.set(st.sysFlags, AC);
  m.privilege(0);
  m.run(tlbFill, ADDR, 0);
  assert.equal(entry(m, 1, ADDR).tag, 0x5001n);
  assert.notEqual(entry(m, 0, ADDR).tag, 0x5001n);
  m.privilege(3);
  m.run(tlbFill, ADDR, 0);
  assert.equal(entry(m, 2, ADDR).tag, 0x5001n);
  m.write64(0x4028, 0x9003n);
  m.run(tlbFill, ADDR, How.system);
  assert.equal(entry(m, 0, ADDR).tag, 0x5001n);
});

test('what is not RAM gives the physical address and stays out of the TLB', () => {
  const m = long(3n);
  m.write64(0x4028, 0xfee00003n);
  assert.equal(BigInt.asUintN(64, m.run(tlbFill, ADDR, 0).value as bigint), OUTSIDE | 0xfee00123n);
  assert.notEqual(entry(m, 1, ADDR).tag & ~0xfffn, 0x5000n);
});

test('memory slots and pages of the first MiB lead to other bytes, or to the bus', () => {
  const m = new TestMachine();
  // The table and the bytes lie in RAM here, where nothing else uses them.
  const table = m.host(0x200000);
  const slots = new MemorySlots(m.memory.buffer, { ramBase: m.host(0), ramLow: 0x300000, ramHigh: 0x10000, guestBytes: 0x310000, plugBase: 0, plugBytes: 0, plugMap: 0, extraBytes: 0, slots: table, codeMap: 0x80000 }, () => {}); // biome-ignore format: one object
  assert.equal(m.run(pageAddress, 0xfd000000n).value, 0n);
  m.set(st.slotTable, table);
  assert.equal(m.run(pageAddress, 0xa0000n).value, BigInt(m.host(0xa0000)));
  slots.low(0xa0, 1, 'bus');
  slots.low(0xa1, 1, m.host(0x210000), true);
  const slot = slots.slot('vram');
  slot.map(0x1_4000_0000, 0x2000, m.host(0x212000));
  assert.equal(m.run(pageAddress, 0xa0000n).value, 0n);
  assert.equal(m.run(pageAddress, 0xa1000n).value, BigInt(m.host(0x210001)));
  assert.equal(m.run(pageAddress, 0xa2000n).value, BigInt(m.host(0xa2000)));
  assert.equal(m.run(pageAddress, 0x1_4000_1000n).value, BigInt(m.host(0x213000)));
  assert.equal(m.run(pageAddress, 0x1_4000_2000n).value, 0n);

  // Unpaged: linear addresses are physical ones.
  assert.equal(m.run(tlbFill, 0xa1234n, 0).value, BigInt(m.host(0x210234)));
  assert.equal(BigInt.asUintN(64, m.run(tlbFill, 0xa1234n, How.write).value as bigint), OUTSIDE | 0xa1234n);
  m.memory.setUint32(m.host(0x210234), 0x1234_5678, true);
  assert.equal(m.run(loadSlow, 0xa1234n, 2).value, 0x1234_5678n);
  m.run(storeSlow, 0xa1234n, 7n, 2);
  assert.equal(m.memory.getUint32(m.host(0x210234), true), 0x1234_5678, 'a write to a read-only page goes to the bus');
  assert.deepEqual(m.calls.at(-1), ['mmioWrite', 0xa1234n, 7n, 4]);
});
