import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeDescriptor, long64State, protected32State, real16State } from './boot-state.ts';
import { fakeRam } from './testing.ts';

test('the GDT in guest RAM holds the descriptors that the segment registers have cached', () => {
  const ram = fakeRam(1 << 20);
  for (const make of [long64State, protected32State]) {
    const state = make(ram, 'k', 0x100000, {});
    const gdt = ram.view(state.gdt.base, state.gdt.limit + 1);
    for (const segment of [state.cs, state.ds, state.es, state.fs, state.gs, state.ss, state.tr]) {
      assert.equal(gdt.getBigUint64(segment.selector, true), encodeDescriptor(segment));
    }
    assert.equal(gdt.getBigUint64(0, true), 0n);
    assert.equal(gdt.getBigUint64(state.tr.selector + 8, true), 0n, 'upper half of the TSS descriptor');
    assert.deepEqual([state.cs.selector, state.ds.selector, state.rflags], [0x10, 0x18, 2]);
  }
});

test('descriptors are encoded as the manual has them', () => {
  const ram = fakeRam(1 << 20);
  assert.equal(encodeDescriptor(long64State(ram, 'k', 0, {}).cs), 0x00af_9b00_0000_ffffn);
  assert.equal(encodeDescriptor(protected32State(ram, 'k', 0, {}).cs), 0x00cf_9b00_0000_ffffn);
  assert.equal(encodeDescriptor(protected32State(ram, 'k', 0, {}).ss), 0x00cf_9300_0000_ffffn);
  assert.equal(encodeDescriptor(real16State('k', 0x1020, 0x1000, 0).cs), 0x0000_9b01_0200_ffffn);
});

test('the page tables of the 64-bit state map every 2 MiB page below 4 GiB to itself', () => {
  const ram = fakeRam(1 << 20);
  const { cr3, cr4, cr0, efer } = long64State(ram, 'k', 0, {});
  assert.deepEqual([cr0, cr4, efer], [0x8000_0011, 0x20, 0x500]);
  const entry = (table: number, index: number): number => Number(ram.view(table + index * 8, 8).getBigUint64(0, true));
  const directory = entry(cr3, 0);
  assert.equal(directory & 0xfff, 3);
  assert.equal(entry(cr3, 1), 0);
  for (let address = 0; address < 2 ** 32; address += 2 ** 21) {
    const gib = Math.floor(address / 2 ** 30);
    const middle = entry(directory - 3, gib);
    assert.equal(middle & 0xfff, 3);
    assert.equal(entry(middle - 3, (address / 2 ** 21) % 512), address + 0x83);
  }
  assert.equal(entry(directory - 3, 4), 0);
});
