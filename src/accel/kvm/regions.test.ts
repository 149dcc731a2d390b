import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Smram } from '../../bits/slot-table.ts';
import { MemorySlots } from '../../bus/slots.ts';
import { createMemory, layoutOf } from '../dbt/layout.ts';
import { KvmRegions, wantedRegions } from './regions.ts';
import type { KvmVm } from './vm.ts';

const layout = layoutOf(16 << 20, 1, 1 << 20);
const memory = createMemory(layout);
const buffer = memory.buffer as ArrayBufferLike as SharedArrayBuffer;
const slots = new MemorySlots(buffer, layout, () => {});

/** What KVM was told, as a map of slots. */
function recorder() {
  const installed = new Map<number, string>();
  const calls: string[] = [];
  const vm = {
    share: {},
    setRegion(slot: number, gpa: number, bytes: Uint8Array | undefined, flags: { readonly?: boolean } = {}) {
      if (bytes) assert.ok(!installed.has(slot), `slot ${slot} is in use`);
      const text = `${gpa.toString(16)}+${(bytes?.length ?? 0).toString(16)}${flags.readonly ? ' ro' : ''}`;
      calls.push(text);
      if (bytes) installed.set(slot, text);
      else installed.delete(slot);
    },
  };
  return { vm: vm as unknown as KvmVm, calls, installed };
}

test('RAM is one region below 640 KiB, parts that can change from there to 1 MiB, and the rest', () => {
  slots.reset();
  slots.low(0xa0, 32, 'bus');
  const regions = wantedRegions(new DataView(buffer), layout).map((r) => `${r.gpa.toString(16)}+${r.length.toString(16)}`);
  assert.equal(regions[0], '0+a0000');
  assert.equal(regions.length, 1 + 16 + 1);
  assert.equal(regions.at(-1), '100000+f00000');
});

test('a change reaches KVM as just the regions that it concerns, and no slot is used twice', () => {
  slots.reset();
  slots.low(0xa0, 32, 'bus');
  const { vm, calls, installed } = recorder();
  const regions = new KvmRegions(vm, buffer, layout);
  regions.update();
  assert.equal(installed.size, 18);
  calls.length = 0;
  slots.low(0xf0, 4, 'ram', true);
  const flash = slots.slot('flash');
  flash.map(0xfffc0000, 0x10000, layout.ramBase + layout.ramLow, true);
  regions.update();
  assert.deepEqual(calls, ['f0000+0', 'f0000+4000 ro', 'fffc0000+10000 ro']);
  calls.length = 0;
  flash.unmap();
  regions.update();
  assert.deepEqual(calls, ['fffc0000+0']);
  calls.length = 0;
  regions.update();
  assert.deepEqual(calls, []);
});

test('SMRAM is RAM while it is open, and what is shown in system management mode alone is no region', () => {
  slots.reset();
  slots.low(0xa0, 32, 'bus');
  const look = (): string[] =>
    wantedRegions(new DataView(buffer), layout).map((r) => `${r.gpa.toString(16)}+${r.length.toString(16)}`);
  const closed = look();
  slots.smram(Smram.open, 0);
  assert.deepEqual(look(), ['0+a0000', 'a0000+10000', 'b0000+10000', ...closed.slice(1)]);
  slots.smram(Smram.low, 1 << 20);
  assert.deepEqual(look(), [...closed.slice(0, -1), '100000+e00000']);
  slots.smram(0, 0);
  assert.deepEqual(look(), closed);
  // Parts that may be hidden come and go by themselves.
  const parts = (): string[] =>
    wantedRegions(
      new DataView(buffer),
      layout,
      [1, 2, 8].map((mib) => mib << 20),
    )
      .slice(17)
      .map((r) => `${r.gpa.toString(16)}+${r.length.toString(16)}`);
  const all = ['100000+700000', '800000+600000', 'e00000+100000', 'f00000+100000'];
  for (const [mib, left] of [[0, 4], [1, 3], [2, 2], [8, 1]] as const) {
    slots.smram(0, mib << 20);
    assert.deepEqual(parts(), all.slice(0, left));
  } // biome-ignore format: pairs
  slots.smram(0, 3 << 20);
  assert.deepEqual(parts(), ['100000+700000', '800000+500000']);
  slots.smram(0, 0);
});
