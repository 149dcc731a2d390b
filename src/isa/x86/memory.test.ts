import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  cmpxchgSlow,
  hostSpan,
  loadSlow,
  loadVectorSlow,
  probeRead,
  probeWrite,
  RMW,
  rmwSlow,
  storeSlow,
  storeVectorSlow,
} from './memory.ts';
import { How } from './mmu.ts';
import * as st from './state.ts';
import { TestMachine } from './test-machine.ts';

/** 4-level paging; pages 5 and 6 are RAM at 0x9000 and 0xb000, page 7 is absent, 8 read-only at 0xd000, 9 MMIO at 0xfee00000. */
function machine(): TestMachine {
  const m = new TestMachine();
  m.mode('4-level', { efer: 0x800 });
  m.write64(0x1000, 0x2007n);
  m.write64(0x2000, 0x3007n);
  m.write64(0x3000, 0x4007n);
  m.write64(0x4000 + 8 * 5, 0x9003n);
  m.write64(0x4000 + 8 * 6, 0xb003n);
  m.write64(0x4000 + 8 * 8, 0xd001n);
  m.write64(0x4000 + 8 * 9, 0xfee00003n);
  m.write64(0x4000 + 8 * 10, 0xe003n);
  return m;
}
const load = (m: TestMachine, addr: bigint, how: number): bigint | null => {
  const r = m.run(loadSlow, addr, how);
  return r.how === 'fault' ? null : BigInt.asUintN(64, r.value as bigint);
};

test('loads of each size are zero-extended', () => {
  const m = machine();
  m.write64(0x9010, 0xf1f2f3f4f5f6f7f8n);
  assert.equal(load(m, 0x5010n, 0), 0xf8n);
  assert.equal(load(m, 0x5010n, 1), 0xf7f8n);
  assert.equal(load(m, 0x5010n, 2), 0xf5f6f7f8n);
  assert.equal(load(m, 0x5011n, 3), 0x00f1f2f3f4f5f6f7n);
});

test('stores write their bytes only', () => {
  const m = machine();
  m.run(storeSlow, 0x5010n, -1n, 1);
  assert.equal(m.read64(0x9010), 0xffffn);
  m.run(storeSlow, 0x5010n, 0x1122334455667788n, 3);
  m.run(storeSlow, 0x5010n, 0x99n, 0);
  assert.equal(m.read64(0x9010), 0x1122334455667799n);
});

test('an access across two pages joins their bytes', () => {
  const m = machine();
  m.run(storeSlow, 0x5ffdn, 0x8877665544332211n, 3);
  assert.deepEqual([m.read8(0x9ffd), m.read8(0x9fff), m.read8(0xb000), m.read8(0xb004)], [0x11, 0x33, 0x44, 0x88]);
  assert.equal(load(m, 0x5ffdn, 3), 0x8877665544332211n);
  assert.equal(load(m, 0x5fffn, 1), 0x4433n);
});

test('an access across two pages reports the page that faults by the first byte in it, and writes nothing', () => {
  const m = machine();
  assert.equal(m.run(storeSlow, 0x6ffen, -1n, 2).how, 'fault');
  assert.deepEqual(m.exception(), { vector: 14, error: 2 });
  assert.equal(m.u64(st.cr2), 0x7000n);
  assert.equal(m.read8(0xbffe), 0);
  assert.equal(load(m, 0x7ffen, 3), null);
  assert.deepEqual(m.exception(), { vector: 14, error: 0 });
  assert.equal(m.u64(st.cr2), 0x7ffen);
});

test('legacy code wraps at 4 GiB where an access crosses the end', () => {
  const m = new TestMachine();
  m.mode('32-bit');
  m.write32(0x1000, 0x2003);
  m.write32(0x1000 + 4 * 1023, 0x2003);
  m.write32(0x2000, 0x9003);
  m.write32(0x2000 + 4 * 1023, 0xb003);
  m.run(storeSlow, 0xfffffffen, 0x44332211n, 2);
  assert.deepEqual([m.read8(0xbfff), m.read8(0x9000), m.read8(0x9001)], [0x22, 0x33, 0x44]);
});

test('a load that will write needs write permission', () => {
  const m = machine();
  assert.equal(load(m, 0x8000n, 3), 0n);
  assert.equal(load(m, 0x8000n, 3 | How.write), null);
  assert.deepEqual(m.exception(), { vector: 14, error: 3 });
});

test('MMIO reads and writes go to the host with size and physical address, unaligned parts byte by byte', () => {
  const m = machine();
  assert.equal(load(m, 0x9120n, 2), 0x44332211n);
  m.run(storeSlow, 0x9124n, 0x1234n, 1);
  assert.deepEqual(m.calls, [['mmioRead', 0xfee00120n, 4], ['mmioWrite', 0xfee00124n, 0x1234n, 2]]);
  m.calls.length = 0;
  m.run(storeSlow, 0x9ffen, 0x44332211n, 2);
  assert.deepEqual(m.calls, [['mmioWrite', 0xfee00ffen, 0x11n, 1], ['mmioWrite', 0xfee00fffn, 0x22n, 1]]);
  assert.deepEqual([m.read8(0xe000), m.read8(0xe001)], [0x33, 0x44]);
}); // biome-ignore format: calls

test('a store to decoded code is done and told, and leaves the slow path once the code is gone', () => {
  const m = machine();
  m.setCode(0x9000, 1);
  m.run(storeSlow, 0x5010n, 0x7788n, 1);
  m.run(storeSlow, 0x5ffen, 0x44332211n, 2);
  assert.equal(m.read32(0x9010), 0x7788);
  assert.deepEqual(m.calls, [['codeWrite', 0x9010n, 2], ['codeWrite', 0x9ffen, 1], ['codeWrite', 0x9fffn, 1]]);
  const tag = (m.get(st.tlbs[1]!) as number) + 5 * 16;
  assert.equal(m.memory.getBigUint64(tag, true), 0x5001n);
  m.setCode(0x9000, 0);
  m.run(storeSlow, 0x5010n, 0n, 1);
  assert.equal(m.calls.length, 3);
  assert.equal(m.memory.getBigUint64(tag, true), 0x5000n);
}); // biome-ignore format: calls

test('each read-modify-write operator gives the old value and stores the new one', () => {
  const cases: [keyof typeof RMW, bigint][] = [['add', 0x0an], ['sub', 0xfcn], ['and', 0x03n], ['or', 0x07n], ['xor', 0x04n], ['xchg', 0x07n]];
  for (const [op, result] of cases) {
    for (const at of [0x5010n, 0x5fffn]) {
      const m = machine();
      const bytes = at === 0x5010n ? 0 : 1;
      m.run(storeSlow, at, 0x03n, bytes);
      assert.equal(m.run(rmwSlow, at, 0x07n, (RMW[op] << 8) | bytes).value, 3n);
      const expected = bytes && op === 'sub' ? 0xfffcn : result;
      assert.equal(load(m, at, bytes), expected, `${op} at ${at}`);
      assert.equal(load(m, at + 2n, 0), 0n);
    }
  }
}); // biome-ignore format: pairs

test('a misaligned read-modify-write within 8 aligned bytes leaves its neighbours to other vCPUs', () => {
  const m = machine();
  const cas = m.hosts.cas!;
  let calls = 0;
  m.run(storeSlow, 0x5011n, 0xfffen, 1);
  m.hosts.cas = (ptr, ...rest) => {
    if (calls++ === 0) m.write8(0x9010, 0x77);
    return cas(ptr!, ...rest);
  };
  assert.equal(m.run(rmwSlow, 0x5011n, 3n, 1).value, 0xfffen);
  assert.equal(m.read32(0x9010), 0x00_0001_77);
  assert.equal(calls, 2);
});

test('an aligned read-modify-write that another vCPU overtakes is done again', () => {
  const m = machine();
  const cas = m.hosts.cas!;
  let first = true;
  m.run(storeSlow, 0x5010n, 5n, 3);
  m.hosts.cas = (ptr, ...rest) => {
    if (first) m.write64(0x9010, 100n);
    first = false;
    return cas(ptr!, ...rest);
  };
  assert.equal(m.run(rmwSlow, 0x5010n, 1n, 3).value, 100n);
  assert.equal(m.read64(0x9010), 101n);
});

test('compare-and-exchange writes where the values agree, aligned, misaligned, across pages and in MMIO', () => {
  for (const at of [0x5010n, 0x5011n, 0x5ffdn]) {
    const m = machine();
    m.run(storeSlow, at, 0xaabbccddn, 2);
    assert.equal(m.run(cmpxchgSlow, at, 1n, 2n, 2).value, 0xaabbccddn);
    assert.equal(load(m, at, 2), 0xaabbccddn);
    assert.equal(m.run(cmpxchgSlow, at, 0xaabbccddn, 2n, 2).value, 0xaabbccddn);
    assert.equal(load(m, at, 2), 2n);
  }
  const m = machine();
  assert.equal(m.run(cmpxchgSlow, 0x9000n, 0x11n, 2n, 0).value, 0x11n);
  assert.deepEqual(m.calls.at(-1), ['mmioWrite', 0xfee00000n, 2n, 1]);
  assert.equal(m.run(cmpxchgSlow, 0x8000n, 1n, 2n, 3).how, 'fault');
  assert.deepEqual(m.exception(), { vector: 14, error: 3 });
});

test('atomics on decoded code are told when they write', () => {
  const m = machine();
  m.setCode(0x9000, 1);
  m.run(cmpxchgSlow, 0x5010n, 1n, 2n, 3);
  assert.deepEqual(m.calls, []);
  m.run(cmpxchgSlow, 0x5010n, 0n, 2n, 3);
  m.run(rmwSlow, 0x5010n, 1n, 2);
  assert.deepEqual(m.calls, [['codeWrite', 0x9010n, 8], ['codeWrite', 0x9010n, 4]]);
}); // biome-ignore format: calls

test('a probe visits every page of its range', () => {
  const m = machine();
  assert.equal(m.run(probeWrite, 0x5ff0n, 0x1010, 0).how, 'return');
  assert.equal(m.run(probeWrite, 0x5ff0n, 0x1011, 0).how, 'fault');
  assert.deepEqual(m.exception(), { vector: 14, error: 2 });
  assert.equal(m.u64(st.cr2), 0x7000n);
  assert.equal(m.run(probeRead, 0x8ff8n, 8, 0).how, 'return');
  assert.equal(m.run(probeWrite, 0x8ff8n, 1, 0).how, 'fault');
});

test('a vector is stored whole or not at all, and only where all that it asks for may be written', () => {
  const m = machine();
  const value = Uint8Array.from({ length: 16 }, (_, i) => i + 1);
  assert.equal(m.run(storeVectorSlow, 0x5ff8n, value, 16, 0).how, 'return');
  assert.deepEqual(m.run(loadVectorSlow, 0x5ff8n, 0).value, value);
  assert.deepEqual([m.read8(0x9ff8), m.read8(0xb007)], [1, 16]);
  // The page behind is missing.
  for (const [at, span] of [
    [0x6ff8n, 16],
    [0x6ff0n, 32],
  ] as const) {
    assert.equal(m.run(storeVectorSlow, at, value, span, 0).how, 'fault');
    assert.deepEqual(m.exception(), { vector: 14, error: 2 });
    assert.equal(m.u64(st.cr2), 0x7000n);
  }
  assert.deepEqual([m.read64(0xbff0), m.read64(0xbff8)], [0n, 0n]);
});

test('a span is the host address of plain RAM, and 0 for MMIO', () => {
  const m = machine();
  m.setCode(0xb000, 4);
  assert.equal(m.run(hostSpan, 0x5123n, How.write).value, BigInt(m.host(0x9123)));
  assert.equal(m.run(hostSpan, 0x6123n, 0).value, BigInt(m.host(0xb123)));
  assert.equal(m.run(hostSpan, 0x6123n, How.write).value, BigInt(m.host(0xb123)));
  assert.equal(m.run(hostSpan, 0x9123n, 0).value, 0n);
  assert.equal(m.run(hostSpan, 0x7123n, 0).how, 'fault');
});

test('where writes are logged, the first store to a page is noted, and later ones are fast', () => {
  const m = machine();
  const map = 0xa0000;
  m.set(st.dirtyMap, map);
  const clean = (gpa: number): boolean => m.memory.getUint8(map + (gpa >>> 12)) === 1;
  const tag = (addr: number): bigint => m.memory.getBigUint64((m.get(st.tlb) as number) + (addr >>> 12) * 16, true) & 0xfffn;
  for (const gpa of [0x4000, 0x9000, 0xb000]) m.memory.setUint8(map + (gpa >>> 12), 1);
  // The entry's dirty bit must be set first, so that the load's entry could let stores through.
  m.write64(0x4000 + 8 * 5, 0x9063n);
  assert.equal(load(m, 0x5010n, 3), 0n);
  assert.deepEqual([clean(0x9000), tag(0x5000)], [true, 1n]);
  m.run(storeSlow, 0x5010n, 1n, 3);
  assert.deepEqual([clean(0x9000), tag(0x5000)], [false, 0n]);
  // A store that fills the TLB itself; accessed and dirty bits are writes to the table's page.
  m.run(storeSlow, 0x6010n, 1n, 3);
  assert.deepEqual([clean(0xb000), tag(0x6000), clean(0x4000)], [false, 0n, false]);
});
