import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seeded } from '../../bits/testing.ts';
import type { VirtioModel } from './core.ts';
import { emptyVirtioMmio, VirtioMmio } from './mmio.ts';
import { Status } from './state.ts';
import { RAM_BYTES, TestQueue, virtioRig } from './testing.ts';

let config = 7;
const model: VirtioModel = {
  id: 4,
  queues: [64, 16],
  features: 5n,
  config: { length: 4, read: (offset) => (offset === 1 ? config : 0), write: (offset, byte) => offset === 1 && (config = byte) },
};

function transport(legacy: boolean) {
  const rig = virtioRig(model);
  const line = { level: 0 };
  const mmio = new VirtioMmio({
    arena: rig.arena,
    name: 'mmio',
    core: rig.core,
    line: { set: (level) => void (line.level = level) },
    legacy,
  });
  rig.lock.run(() => mmio.reset());
  const read = (offset: number, size = 4): number => rig.lock.run(() => mmio.handler.read(offset, size));
  const write = (offset: number, value: number, size = 4): void => rig.lock.run(() => mmio.handler.write(offset, size, value));
  return { rig, line, mmio, read, write };
}

/** As Linux's driver does it (drivers/virtio/virtio_mmio.c), queue 0 at its place of the rig. */
function start({ rig, read, write }: ReturnType<typeof transport>, legacy: boolean): void {
  write(0x70, 0);
  write(0x70, Status.acknowledge | Status.driver);
  write(0x14, 1);
  assert.equal(read(0x10) & 1, legacy ? 0 : 1, 'VIRTIO_F_VERSION_1 is of the current interface');
  write(0x14, 0);
  assert.equal(read(0x10) & 0xff, 5);
  write(0x24, 1);
  write(0x20, 1);
  write(0x24, 0);
  write(0x20, 4);
  if (!legacy) {
    write(0x70, read(0x70) | Status.featuresOk);
    assert.ok(read(0x70) & Status.featuresOk);
  }
  write(0x30, 0);
  assert.equal(read(0x34), 64);
  write(0x38, 64);
  const { desc, driver, device } = rig.areas(0);
  if (legacy) {
    write(0x28, 4096);
    write(0x3c, 4096);
    assert.equal(read(0x40), 0);
    write(0x40, 16);
    assert.equal(read(0x40), 16);
  } else {
    for (const [offset, address] of [[0x80, desc], [0x90, driver], [0xa0, device]] as const) {
      write(offset, address);
      write(offset + 4, 0);
    } // biome-ignore format: a table
    assert.equal(read(0x44), 0);
    write(0x44, 1);
  }
  write(0x70, read(0x70) | Status.driverOk);
}

test('the current registers drive a queue, its interrupt and the configuration', () => {
  const t = transport(false);
  const { rig, line, read, write } = t;
  assert.deepEqual([read(0), read(4), read(8), read(12)], [0x7472_6976, 2, 4, 0x554d_4551]);
  start(t, false);
  const queue = new TestQueue(rig, 0, false);
  rig.core.take(0);
  const id = queue.add([{ gpa: rig.data, length: 8, write: true }]);
  let served = 0;
  rig.core.serve(0, () => {
    for (const chain of rig.core.take(0)) {
      served++;
      rig.core.give(0, [[chain, chain.in.write(0, Uint8Array.of(1, 2))]]);
    }
  });
  write(0x50, 0);
  rig.bells.hear();
  assert.deepEqual([served, queue.used()], [1, [[id, 2]]]);
  assert.deepEqual([line.level, read(0x60)], [1, 1]);
  write(0x64, 1);
  assert.deepEqual([line.level, read(0x60)], [0, 0]);
  // Registers have 32 bits; the configuration is bytes.
  assert.equal(read(0x60, 1), 0);
  write(0x101, 9, 1);
  assert.deepEqual([read(0x101, 1), read(0x100, 4), read(0x1f0, 4)], [9, 0x900, 0]);
  const before = read(0xfc);
  rig.lock.run(() => rig.core.configChanged());
  assert.deepEqual([read(0xfc), read(0x60), line.level], [before + 1, 3, 1]);
  assert.equal(read(0xb0), 0xffff_ffff);
  write(0x44, 0);
  assert.equal(read(0x44), 0);
  write(0x70, 0);
  assert.deepEqual([read(0x70), line.level], [0, 0]);
});

test('the legacy registers place a queue by page and alignment', () => {
  const t = transport(true);
  const { rig, read, write, line } = t;
  assert.equal(read(4), 1);
  start(t, true);
  const { s } = rig.core.queues[0]!;
  assert.deepEqual([s.desc, s.driver, s.device, s.enabled], [0x10000, 0x10400, 0x11000, 1]);
  assert.equal(rig.core.features, 4n);
  rig.lock.run(() => rig.core.configChanged());
  assert.equal(line.level, 1);
  write(0x40, 0);
  assert.deepEqual([read(0x40), read(0x70), line.level], [0, 0, 0]);
});

test('an empty transport says what it is and nothing else', () => {
  const empty = emptyVirtioMmio(false);
  assert.deepEqual([empty.read(0, 4), empty.read(4, 4), empty.read(8, 4), empty.read(0x100, 4)], [0x7472_6976, 2, 0, 0]);
  empty.write(0x50, 4, 0);
});

test('whatever is written into the registers of a transport, nothing throws and nothing outside RAM is touched', (t) => {
  const seed = Number(process.env['SEED'] ?? 1);
  t.diagnostic(`SEED=${seed}`);
  const random = seeded(seed);
  const values = [0, 1, 2, 3, 4, 7, 8, 11, 15, 16, 64, 65, 4096, RAM_BYTES - 16, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
  for (let round = 0; round < 120; round++) {
    const legacy = (round & 1) === 1;
    const rig = transport(legacy);
    if (random(3) > 0) start(rig, legacy);
    for (let n = 0; n < 8192; n += 1 + random(64)) rig.rig.view.setUint16(2 * n, values[random(values.length)]! & 0xffff, true);
    for (let n = 0; n < 200; n++) {
      const offset = random(4) ? 4 * random(0x40) : random(0x200);
      const size = random(5) ? 4 : [1, 2][random(2)]!;
      if (random(3)) rig.write(offset, random(3) ? values[random(values.length)]! : random(2 ** 32), size);
      else assert.ok(rig.read(offset, size) >= 0);
      if (random(8) === 0) {
        const queue = random(2);
        const chains = rig.rig.core.take(queue);
        for (const chain of chains) chain.in.write(0, chain.out.bytes(0, 16));
        rig.rig.core.give(
          queue,
          chains.map((c) => [c, 0] as const),
        );
      }
    }
    assert.equal(rig.rig.core.inFlight, 0);
  }
});
