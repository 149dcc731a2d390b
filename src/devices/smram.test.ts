import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SLOT_TABLE_BYTES, SlotTable, Smram, smramHides } from '../bits/slot-table.ts';
import { MemorySlots } from '../bus/slots.ts';
import { PciFunction } from './pci-function.ts';
import { SmiFeatures } from './smi.ts';
import { SmramControl } from './smram.ts';
import { testBoard } from './testing.ts';

const MIB = 1 << 20;
const LOW = 64 * MIB;

function rig(kind: 'q35' | 'i440fx' = 'q35') {
  const b = testBoard();
  const buffer = new SharedArrayBuffer(SLOT_TABLE_BYTES + LOW / 4096);
  const slots = new MemorySlots(buffer, { ramBase: 0, ramLow: LOW, ramHigh: 0, guestBytes: LOW, plugBase: 0, plugBytes: 0, plugMap: 0, extraBytes: 0, slots: 0, codeMap: SLOT_TABLE_BYTES }, () => {}); // biome-ignore format: one object
  const f = new PciFunction({ arena: b.arena, name: 'bridge', vendor: 1, device: 1, classCode: 0x06_0000 });
  const control = new SmramControl(f, kind, { arena: b.arena, slots, extendedTseg: 16, ramLow: LOW });
  f.reset();
  control.reset();
  const view = new DataView(buffer);
  return {
    f,
    control,
    tseg: () => view.getInt32(SlotTable.tseg, true),
    flags: () => view.getInt32(SlotTable.smram, true),
    hides: (from: number, to: number) => smramHides(view, 0, LOW, from, to),
  };
}

test('TSEG is as large as its field says, once SMRAM is enabled, and out of the reach of devices', () => {
  const r = rig();
  r.f.write(0x9e, 1, 0x01);
  assert.equal(r.tseg(), 0, 'SMRAM is not enabled yet');
  r.f.write(0x9d, 1, 0x0a);
  for (const [field, mib] of [[0, 1], [1, 2], [2, 8], [3, 16]] as const) {
    r.f.write(0x9e, 1, 1 | (field << 1));
    assert.equal(r.tseg(), mib * MIB);
  } // biome-ignore format: pairs
  assert.equal(r.f.read(0x9e, 1), 0x3f);
  assert.equal(r.hides(LOW - 16 * MIB - 8, LOW - 16 * MIB), false);
  assert.equal(r.hides(LOW - 16 * MIB - 8, LOW - 16 * MIB + 1), true);
  assert.equal(r.hides(LOW, LOW + 8), false);
  r.f.write(0x50, 2, 0xffff);
  assert.equal(r.f.read(0x50, 2), 16);
});

test('a lock holds until reset: SMRAM is closed and TSEG stays', () => {
  const r = rig();
  r.f.write(0x9d, 1, 0x4a);
  assert.equal(r.flags(), Smram.open | Smram.low);
  assert.equal(r.hides(0xa0000, 0xa0001), false);
  r.f.write(0x9e, 1, 0x01);
  r.f.write(0x9d, 1, 0x5a);
  assert.equal(r.flags(), Smram.low, 'locking closes it');
  assert.equal(r.hides(0xbffff, 0xc0000), true);
  r.f.write(0x9d, 1, 0x40);
  r.f.write(0x9e, 1, 0);
  assert.equal(r.f.read(0x9d, 1), 0x1a);
  assert.equal(r.tseg(), MIB);
  r.f.reset();
  r.control.reset();
  assert.deepEqual([r.flags(), r.tseg(), r.f.read(0x9d, 1)], [0, 0, 2]);
});

test('the i440FX has its register elsewhere, and no lock', () => {
  const r = rig('i440fx');
  r.f.write(0x72, 1, 0x1a);
  r.f.write(0x72, 1, 0x4a);
  assert.equal(r.flags(), Smram.open | Smram.low);
  assert.equal(r.tseg(), 0);
});

test('what firmware asks of SMIs is granted when it looks, once', () => {
  const features = new SmiFeatures(testBoard().arena);
  features.reset();
  const files = new Map(features.files());
  const requested = files.get('etc/smi/requested-features')!.data as Uint8Array;
  const ok = files.get('etc/smi/features-ok')!;
  const looks = (): number => {
    ok.selected!();
    return (ok.data as Uint8Array)[0]!;
  };
  requested[0] = 2;
  assert.equal(looks(), 0, 'there is no such feature');
  requested[0] = 1;
  assert.equal(features.broadcast, false);
  assert.equal(looks(), 1);
  assert.equal(features.broadcast, true);
  requested[0] = 0;
  assert.equal(looks(), 1);
  assert.equal(features.broadcast, true);
  features.reset();
  assert.equal(features.broadcast, false);
});
