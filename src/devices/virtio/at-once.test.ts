import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../../bits/arena.ts';
import { addPlace, directLayout, forgetPlaces, hasPlace, placeOf } from '../direct.ts';
import type { Chain } from './chain.ts';
import { TestQueue, type VirtioRig, virtioRig } from './testing.ts';

/** A device that fills requests of up to 1,000 bytes at the doorbell, and its driver. */
function rig(packed: boolean, carry?: (chain: Chain) => number): { r: VirtioRig; q: TestQueue; left: Chain[] } {
  const atOnce = (chain: Chain): number =>
    chain.in.length > 1000 ? -1 : chain.in.write(0, new Uint8Array(chain.in.length).fill(7));
  const config = { length: 0, read: () => 0 };
  const r = virtioRig({ id: 2, queues: [16], features: 0n, config, atOnce: carry ?? atOnce }, { packed });
  const left: Chain[] = [];
  r.core.serve(0, (n) => left.push(...r.core.take(n)));
  r.bells.hear();
  return { r, q: new TestQueue(r, 0, packed), left };
}
const kick = (r: VirtioRig): void => r.lock.run(() => r.core.kick(0));

for (const packed of [false, true]) {
  const kind = packed ? 'packed' : 'split';
  test(`${kind}: what is carried out at the doorbell is done when the driver goes on, and the I/O side sees nothing of it`, () => {
    const { r, q, left } = rig(packed);
    const ids = [0, 1].map((n) => q.add([{ gpa: r.data + 512 * n, length: 512, write: true }]));
    kick(r);
    assert.deepEqual(
      q.used(),
      ids.map((id) => [id, 512]),
    );
    assert.ok(r.bytes.subarray(r.data, r.data + 1024).every((b) => b === 7));
    assert.equal(r.interrupts.queue, 1);
    r.bells.hear();
    assert.equal(left.length, 0);
    assert.equal(r.core.inFlight, 0);
  });

  test(`${kind}: what is not, and all behind it, is left to the I/O side in order`, () => {
    const { r, q, left } = rig(packed);
    const small = { gpa: r.data, length: 512, write: true };
    const ids = [q.add([small]), q.add([{ gpa: r.data, length: 4096, write: true }]), q.add([small])];
    kick(r);
    assert.deepEqual(q.used(), [[ids[0], 512]]);
    r.bells.hear();
    assert.deepEqual(
      left.map((c) => c.in.length),
      [4096, 512],
    );
    // While it has something under way, nothing is done at the doorbell.
    const later = q.add([small]);
    kick(r);
    assert.deepEqual(q.used(), []);
    r.bells.hear();
    r.core.give(
      0,
      left.map((chain) => [chain, 1]),
    );
    assert.deepEqual(
      q.used(),
      [ids[1], ids[2], later].map((id) => [id, 1]),
    );
    q.add([small]);
    kick(r);
    assert.equal(q.used().length, 1);
  });
}

test('a notification keeps the board no longer than some requests, and none that breaks the rules throws', () => {
  const { r, q, left } = rig(false);
  const two = new TestQueue(r, 0, false);
  for (let n = 0; n < 2; n++) q.add([{ gpa: r.data, length: 16, write: true }]);
  kick(r);
  assert.equal(q.used().length, 2);
  const big = rig(true, (chain) => chain.in.length);
  for (let n = 0; n < 16; n++) big.q.add([{ gpa: big.r.data, length: 4, write: true }]);
  kick(big.r);
  assert.equal(big.q.used().length, 8);
  big.r.bells.hear();
  assert.equal(big.left.length, 8);
  two.add([{ gpa: 2 ** 40, length: 16, write: true }]);
  r.view.setUint16(r.areas(0).driver + 2, 3, true);
  kick(r);
  assert.equal(left.length, 0);
  assert.equal(r.reports.length, 1);
});

test('requests that come to the bound together and are all there are do not wake the I/O side', () => {
  const { r, q, left } = rig(false, (chain) => chain.in.length + (1 << 19));
  for (let round = 0; round < 3; round++) {
    for (let n = 0; n < 2; n++) q.add([{ gpa: r.data, length: 16, write: true }]);
    kick(r);
    assert.equal(q.used().length, 2, 'at the doorbell');
  }
  r.bells.hear();
  assert.equal(left.length, 0);
});

test('no accelerator rings in the place of a doorbell where requests are carried out, and what it rang before is heard', () => {
  let serves = false;
  const config = { length: 0, read: () => 0 };
  const atOnce = (chain: Chain): number => chain.in.length;
  const r = virtioRig({ id: 2, queues: [16, 16], features: 0n, config, atOnce, servesAtOnce: () => serves });
  const heard: number[] = [];
  for (const n of [0, 1]) r.core.serve(n, () => heard.push(n));
  r.bells.hear();
  heard.length = 0;
  const told = (): number[] => r.core.bells().map(({ queue }) => queue);
  assert.deepEqual(told(), [0, 1]);
  serves = true;
  assert.deepEqual(told(), []);
  r.lock.run(() => r.core.atOnceChanged());
  assert.equal(r.told, 1);
  r.bells.hear();
  assert.deepEqual(heard, [0, 1], 'a notification may have ended in the accelerator');
  serves = false;
  r.lock.run(() => r.core.atOnceChanged());
  assert.equal(r.told, 2);
  assert.deepEqual(told(), [0, 1]);
});

test('places of a disk are found by range, replaced in turn, and forgotten together', () => {
  const s = new Arena(new SharedArrayBuffer(4096)).alloc(directLayout);
  assert.equal(placeOf(s, 0, 1), undefined);
  assert.equal(hasPlace(s), false);
  for (let n = 0; n < 20; n++) addPlace(s, { start: n * 100, length: 100, at: n * 1000, fd: n });
  assert.equal(placeOf(s, 350, 10), undefined, 'the first ones had to go');
  assert.equal(placeOf(s, 450, 50)?.fd, 4);
  assert.equal(placeOf(s, 450, 51), undefined, 'no range of two places');
  assert.equal(placeOf(s, 1950, 50)?.at, 19000);
  assert.equal(hasPlace(s), true);
  forgetPlaces(s);
  assert.equal(hasPlace(s), false);
  assert.equal(placeOf(s, 1950, 50), undefined);
});
