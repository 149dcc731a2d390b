import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pci } from '../pci-function.ts';
import type { VirtioModel } from './core.ts';
import { type VirtioMode, VirtioPci } from './pci.ts';
import { virtioRig } from './testing.ts';

const model: VirtioModel = { id: 4, queues: [8], features: 0n, config: { length: 0, read: () => 0 } };

function functionOf(mode: VirtioMode) {
  const rig = virtioRig(model);
  const device = new VirtioPci({
    arena: rig.arena,
    name: 'rng',
    core: rig.core,
    mode,
    classCode: 0x00_ff00,
    vectors: 2,
    multifunction: false,
    msi: () => {},
  });
  rig.lock.run(() => device.reset());
  const { f } = device;
  const capabilities: number[] = [];
  for (let at = f.read(pci.capabilities, 1); at !== 0; at = f.read(at + 1, 1))
    capabilities.push(f.read(at, 1) === 9 ? f.read(at + 3, 1) : -f.read(at, 1));
  return {
    device: f.read(2, 2),
    revision: f.read(8, 1),
    capabilities: capabilities.sort((a, b) => a - b),
    bars: f.bars.map((bar) => `${bar.index} ${bar.kind}`),
  };
}

test('a function has the interfaces of its mode: legacy alone, modern alone, or both', () => {
  const MSIX = -0x11;
  assert.deepEqual(functionOf('modern'), {
    device: 0x1044,
    revision: 1,
    capabilities: [MSIX, 1, 2, 3, 4, 5],
    bars: ['1 mem32', '4 mem64'],
  });
  assert.deepEqual(functionOf('transitional'), {
    device: 0x1005,
    revision: 0,
    capabilities: [MSIX, 1, 2, 3, 4, 5],
    bars: ['0 io', '1 mem32', '4 mem64'],
  });
  assert.deepEqual(functionOf('legacy'), { device: 0x1005, revision: 0, capabilities: [MSIX], bars: ['0 io', '1 mem32'] });
});

test('notifications that only ring are told to accelerators once the driver is at work, and not with ioeventfd=off', () => {
  const bellsOf = (ioeventfd: boolean): [string, number, number | undefined][] => {
    const rig = virtioRig({ ...model, queues: [8, 8] });
    let told = 0;
    const device = new VirtioPci({
      arena: rig.arena, name: 'rng', core: rig.core, mode: 'transitional', classCode: 0x00_ff00, vectors: 2, multifunction: false,
      msi: () => {}, ioeventfd,
    }); // biome-ignore format: one object
    const bells = () =>
      device.f.bars.flatMap(({ kind, handler }) =>
        (handler.bells?.() ?? []).map((b): [string, number, number | undefined] => {
          Atomics.store(b.words.kicked, 0, 0);
          if (b.match === undefined) handler.write(b.offset, b.size, 0);
          else handler.write(b.offset, b.size, b.match);
          // What the handler does and what the words say is the same.
          told += Atomics.load(b.words.kicked, 0);
          return [kind, b.offset, b.match];
        }),
      );
    rig.lock.run(() => device.reset());
    assert.deepEqual(bells(), []);
    rig.start();
    const found = bells();
    assert.equal(told, found.length);
    return found;
  };
  assert.deepEqual(bellsOf(true), [['io', 16, 0], ['io', 16, 1], ['mem64', 0x3000, undefined], ['mem64', 0x3004, undefined]]); // biome-ignore format: one list
  assert.deepEqual(bellsOf(false), []);
});
