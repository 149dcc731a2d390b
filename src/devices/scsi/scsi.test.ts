import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../../bits/arena.ts';
import { perform, type ScsiResult } from './perform.ts';
import { ScsiTarget, type TargetOptions } from './target.ts';
import { memoryStore } from './testing.ts';

function rig(kind: 'disk' | 'cdrom', bytes: Uint8Array | undefined, more: Partial<TargetOptions> = {}) {
  let medium = bytes && memoryStore(bytes, kind === 'cdrom');
  const target = new ScsiTarget({
    arena: new Arena(new SharedArrayBuffer(4096)),
    name: 'test',
    kind,
    vendor: 'QEMU',
    product: kind === 'cdrom' ? 'QEMU DVD-ROM' : 'QEMU HARDDISK',
    version: '2.5+',
    serial: 'QM00001',
    blockSize: kind === 'cdrom' ? 2048 : 512,
    medium: () => medium,
    ...more,
  });
  target.reset();
  target.s.attention = 0;
  return {
    target,
    get medium() {
      return medium;
    },
    set medium(m) {
      medium = m;
    },
    async run(cdb: number[], out: Uint8Array = new Uint8Array(0), room = 65536): Promise<ScsiResult & { data: Uint8Array }> {
      const data = new Uint8Array(room);
      const result = await perform(target.plan(Uint8Array.from(cdb)), target.medium && medium, { in: [data], out: [out] });
      target.finish(result.sense);
      return { ...result, data: data.subarray(0, result.transferred) };
    },
  };
}

const ascii = (bytes: Uint8Array): string => String.fromCharCode(...bytes);

test('a disk tells its identity, serial number and capacity', async () => {
  const { run } = rig('disk', new Uint8Array(1 << 20));
  const { data } = await run([0x12, 0, 0, 0, 36, 0]);
  assert.equal(ascii(data.subarray(8)), 'QEMU    QEMU HARDDISK   2.5+');
  assert.equal(ascii((await run([0x12, 1, 0x80, 0, 255, 0])).data.subarray(4)), 'QM00001');
  assert.deepEqual([...(await run([0x12, 1, 0, 0, 255, 0])).data], [0, 0, 0, 6, 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
  assert.deepEqual([...(await run([0x25])).data], [0, 0, 7, 0xff, 0, 0, 2, 0]);
  const long = await run([0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32]);
  assert.deepEqual([...long.data.subarray(0, 12)], [0, 0, 0, 0, 0, 0, 7, 0xff, 0, 0, 2, 0]);
});

test('what is written is read back by every form of READ, and ends of the medium hold', async () => {
  const r = rig('disk', new Uint8Array(1 << 20));
  const block = Uint8Array.from({ length: 1024 }, (_, i) => i * 7);
  assert.equal((await r.run([0x2a, 0, 0, 0, 0, 5, 0, 0, 2, 0], block)).status, 0);
  for (const cdb of [
    [0x08, 0, 0, 5, 2, 0],
    [0x28, 0, 0, 0, 0, 5, 0, 0, 2, 0],
    [0xa8, 0, 0, 0, 0, 5, 0, 0, 0, 2],
    [0x88, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2],
  ])
    assert.deepEqual((await r.run(cdb)).data, block);
  const past = await r.run([0x28, 0, 0, 0, 7, 0xff, 0, 0, 2, 0]);
  assert.deepEqual([past.status, past.sense], [2, { key: 5, asc: 0x21, ascq: 0 }]);
  assert.deepEqual(
    [...(await r.run([3, 0, 0, 0, 18, 0])).data.subarray(0, 14)],
    [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x21, 0],
  );
  assert.equal((await r.run([3, 0, 0, 0, 18, 0])).data[2], 0, 'sense data are gone once they were taken');
  assert.equal(r.medium?.flushes, 0);
  await r.run([0x2a, 8, 0, 0, 0, 5, 0, 0, 1, 0], block.subarray(0, 512));
  await r.run([0x35]);
  assert.equal(r.medium?.flushes, 2, 'FUA and SYNCHRONIZE CACHE reach the medium');
});

test('WRITE SAME, UNMAP and VERIFY check their parameters', async () => {
  const bytes = new Uint8Array(1 << 16).fill(9);
  const r = rig('disk', bytes);
  await r.run([0x93, 8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3], new Uint8Array(512));
  assert.deepEqual([bytes[1023], bytes[1024], bytes[2559], bytes[2560]], [9, 0, 0, 9]);
  const list = new Uint8Array(24);
  list.set([0, 22, 0, 16]);
  list.set([0, 0, 0, 0, 0, 0, 0, 126, 0, 0, 0, 4], 8);
  assert.deepEqual((await r.run([0x42, 0, 0, 0, 0, 0, 0, 0, 24], list)).sense, { key: 5, asc: 0x21, ascq: 0 });
  list[19] = 2;
  assert.equal((await r.run([0x42, 0, 0, 0, 0, 0, 0, 0, 24], list)).status, 0);
  assert.equal((await r.run([0x2f, 2, 0, 0, 0, 0, 0, 0, 1, 0], bytes.slice(0, 512))).status, 0);
  assert.equal((await r.run([0x2f, 2, 0, 0, 0, 0, 0, 0, 1, 0], new Uint8Array(512))).sense?.key, 14);
});

test('a CD-ROM has a table of contents, a tray that can be locked, and tells of a new medium once', async () => {
  const r = rig('cdrom', new Uint8Array(2048 * 400), { atapi: true });
  assert.deepEqual([...(await r.run([0x25])).data], [0, 0, 1, 0x8f, 0, 0, 8, 0]);
  const toc = (await r.run([0x43, 0, 0, 0, 0, 0, 0, 0, 255])).data;
  assert.deepEqual([...toc], [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x16, 0xaa, 0, 0, 0, 1, 0x90]);
  assert.equal((await r.run([0x2a, 0, 0, 0, 0, 0, 0, 0, 1])).sense?.asc, 0x20, 'there is no WRITE');
  await r.run([0x1e, 0, 0, 0, 1]);
  assert.deepEqual((await r.run([0x1b, 0, 0, 0, 2])).sense, { key: 5, asc: 0x53, ascq: 2 });
  assert.equal(r.target.moveTray(true), false);
  assert.equal((await r.run([0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8])).data[4], 1, 'the request to eject is reported');
  await r.run([0x1e, 0, 0, 0, 0]);
  await r.run([0x1b, 0, 0, 0, 2]);
  assert.deepEqual((await r.run([0x25])).sense, { key: 2, asc: 0x3a, ascq: 2 });
  await r.run([0x1b, 0, 0, 0, 3]);
  assert.equal((await r.run([0])).sense?.asc, 0x28);
  assert.equal((await r.run([0])).status, 0);
  r.medium = undefined;
  r.target.mediumChanged();
  assert.equal((await r.run([0])).sense?.asc, 0x3a);
});

test('no command block makes a target throw or a transfer leave the medium', async () => {
  let seed = 20260101;
  const random = (n: number): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed >>> 8) % n;
  };
  for (const kind of ['disk', 'cdrom'] as const) {
    const r = rig(kind, new Uint8Array(1 << 16));
    for (let i = 0; i < 4000; i++) {
      const cdb = Array.from({ length: 16 }, () => (random(3) ? random(4) : random(256)));
      cdb[0] = random(256);
      const result = await r.run(
        cdb,
        Uint8Array.from({ length: random(600) }, () => random(256)),
        random(5000),
      );
      assert.ok(result.status === 0 || result.sense !== undefined, `seed case ${i}: ${cdb}`);
      assert.notEqual(result.sense?.key, 3, `case ${i}: ${cdb}`);
      assert.notEqual(result.sense?.asc, 0x0c, `case ${i}: ${cdb}`);
    }
  }
});
