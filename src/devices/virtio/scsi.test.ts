import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fill } from '../scsi/perform.ts';
import { ScsiTarget } from '../scsi/target.ts';
import { memoryStore } from '../scsi/testing.ts';
import { RESPONSE_BYTES, scsiModel } from './scsi.ts';
import { ScsiIo, type ScsiUnit, scsiReadAtOnce } from './scsi-io.ts';
import { TestQueue, virtioRig } from './testing.ts';

const REQUESTS = 2;

test('reads of units whose bytes are at hand are done when the driver goes on; all else is left to the I/O side', async () => {
  const disk = Uint8Array.from({ length: 1 << 18 }, (_, i) => (i >> 9) ^ (i * 7));
  const units: ScsiUnit[] = [];
  const options = { queues: 1, queueSize: 64, maxSectors: 0xffff, commandsPerLun: 128, hotplug: true, change: true };
  const model = scsiModel(options, {
    atOnce: (chain, queue) => scsiReadAtOnce(units, chain, queue),
    servesAtOnce: () => units.some((u) => u.direct.some()),
  });
  const r = virtioRig(model);
  const medium = memoryStore(disk);
  const device = new ScsiTarget({
    ...{ arena: r.arena, name: 'd', kind: 'disk', vendor: 'QEMU', product: 'QEMU HARDDISK', version: '2.5+', serial: '' },
    ...{ blockSize: 512, medium: () => medium },
  });
  device.reset();
  const near = disk.length / 2;
  units.push({
    ...{ target: 0, lun: 0, device, store: () => medium, held: () => new Promise<void>(() => {}) },
    direct: {
      has: (offset, length) => offset + length <= near,
      some: () => true,
      read(offset, length, pieces) {
        const to = offset + length <= near ? pieces() : undefined;
        if (to) fill(to, disk.subarray(offset, offset + length));
        return to !== undefined;
      },
    },
  });
  const io = new ScsiIo(r.core, 1, () => units);
  r.bells.hear();
  const q = new TestQueue(r, REQUESTS, false);
  const request = (target: number, cdb: readonly number[], length: number): void => {
    r.bytes.fill(0, r.data, r.data + 0x2000);
    r.bytes.set([1, target, 0x40, 0], r.data);
    r.bytes.set(cdb, r.data + 19);
    q.add([
      { gpa: r.data, length: 51 },
      { gpa: r.data + 0x100, length: RESPONSE_BYTES, write: true },
      { gpa: r.data + 0x1000, length, write: true },
    ]);
    r.lock.run(() => r.core.kick(REQUESTS));
  };
  /** What was written at the doorbell, and what was in the end, with the status and the residual. */
  const outcome = async (): Promise<readonly number[]> => {
    const now = q.used()[0]?.[1] ?? -1;
    r.bells.hear();
    await io.drain();
    const [end = now] = q.used().map(([, written]) => written);
    return [now, end, r.bytes[r.data + 0x10a]!, r.view.getUint32(r.data + 0x104, true)];
  };
  const read10 = (lba: number, blocks: number): number[] => [0x28, 0, 0, 0, lba >> 8, lba & 255, 0, 0, blocks];
  const all = RESPONSE_BYTES + 1024;
  request(0, read10(3, 2), 1024);
  assert.deepEqual(await outcome(), [-1, RESPONSE_BYTES, 2, 0], 'its attention is told first');
  request(0, read10(3, 2), 1024);
  assert.deepEqual(await outcome(), [all, all, 0, 0]);
  assert.deepEqual(r.bytes.slice(r.data + 0x1000, r.data + 0x1400), disk.slice(1536, 2560));
  request(0, read10(3, 2), 2048);
  assert.deepEqual(await outcome(), [all, all, 0, 1024], 'more room than bytes');
  request(0, read10(3, 2), 512);
  assert.deepEqual(await outcome(), [-1, RESPONSE_BYTES + 512, 0, 0], 'less room than bytes');
  request(0, read10(300, 2), 1024);
  assert.deepEqual(await outcome(), [-1, all, 0, 0], 'not at hand');
  request(0, read10(511, 2), 1024);
  assert.deepEqual(await outcome(), [-1, RESPONSE_BYTES, 2, 0], 'not on the medium');
  request(1, read10(3, 2), 1024);
  assert.equal((await outcome())[0], -1, 'no such unit');
});
