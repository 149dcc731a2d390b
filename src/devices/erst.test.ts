import assert from 'node:assert/strict';
import { test } from 'node:test';
import { erstAction as a, ERST_EXECUTE } from '../bits/erst.ts';
import { Erst, openErstStorage } from './erst.ts';
import { testBoard } from './testing.ts';

const SLOT = 4096;
const status = { success: 0n, noSpace: 1n, failed: 3n, empty: 4n, notFound: 5n };

/** A store on `storage`, driven as the table tells. */
function storeOn(storage: Uint8Array) {
  const slot = openErstStorage(storage, SLOT);
  const exchange = new Uint8Array(slot);
  const view = new DataView(exchange.buffer);
  const store = new Erst({ ...{ arena: testBoard().arena, name: 'e', storage, exchange, report: () => {} }, range: () => 0xfebf_0000, changed: () => {} }); // biome-ignore format: one line
  store.reset();
  const { handler } = store;
  const act = (action: number): void => handler.write(0, 4, action);
  const give = (action: number, value: bigint): void => {
    handler.write(8, 4, Number(value & 0xffff_ffffn));
    handler.write(12, 4, Number(value >> 32n));
    act(action);
  };
  const take = (action: number): bigint => {
    act(action);
    return (BigInt(handler.read(12, 4)) << 32n) | BigInt(handler.read(8, 4));
  };
  const run = (operation: number): bigint => {
    act(operation);
    give(a.execute, BigInt(ERST_EXECUTE));
    assert.equal(take(a.checkBusy), 0n);
    const found = take(a.getStatus);
    act(a.end);
    return found;
  };
  return {
    ...{ store, exchange, view, act, give, take, run, slot },
    write(identifier: bigint, fill: number, length = 200, offset = 0): bigint {
      exchange.fill(fill, offset);
      if (offset + 104 <= exchange.length) {
        view.setUint32(offset + 20, length, true);
        view.setBigUint64(offset + 96, identifier, true);
      }
      give(a.setOffset, BigInt(offset));
      return run(a.beginWrite);
    },
    read(identifier: bigint): bigint {
      give(a.setOffset, 0n);
      give(a.setIdentifier, identifier);
      exchange.fill(0);
      return run(a.beginRead);
    },
    clear(identifier: bigint): bigint {
      give(a.setIdentifier, identifier);
      return run(a.beginClear);
    },
  };
}

test('a store keeps records by their identifiers, replaces, lists and clears them', () => {
  const storage = new Uint8Array(8 * SLOT);
  const s = storeOn(storage);
  assert.equal(s.read(0n), status.empty);
  assert.equal(s.take(a.getIdentifier), 2n ** 64n - 1n);
  assert.equal(s.write(0x1_0000_0001n, 1), status.success);
  assert.equal(s.write(0x1_0000_0002n, 2), status.success);
  assert.equal(s.write(0x1_0000_0001n, 3), status.success);
  assert.equal(s.take(a.getCount), 2n);
  assert.deepEqual([0, 1, 2, 3].map(() => s.take(a.getIdentifier)), [0x1_0000_0001n, 0x1_0000_0002n, 2n ** 64n - 1n, 0x1_0000_0001n]); // biome-ignore format: one line
  assert.equal(s.read(0x1_0000_0002n), status.success);
  assert.deepEqual([s.exchange[0], s.exchange[199], s.exchange[200]], [2, 2, 0]);
  assert.equal(s.read(0n), status.success);
  assert.equal(s.exchange[0], 3, 'the first one, as it was replaced');
  assert.equal(s.read(7n), status.notFound);
  assert.equal(s.clear(0x1_0000_0001n), status.success);
  assert.equal(s.clear(0x1_0000_0001n), status.notFound);
  assert.equal(s.take(a.getCount), 1n);
  // Another machine with the same storage.
  const next = storeOn(storage);
  assert.equal(next.read(0n), status.success);
  assert.equal(next.exchange[0], 2);
});

test('the storage is QEMU’s: magic, sizes, version, count and map, then slots filled up with ones', () => {
  const storage = new Uint8Array(8 * SLOT);
  storeOn(storage).write(0x1122_3344_5566_7788n, 5);
  const v = new DataView(storage.buffer);
  assert.equal(new TextDecoder().decode(storage.subarray(0, 8)), 'ERSTSTOR');
  assert.deepEqual([v.getUint32(8, true), v.getUint32(12, true), v.getUint32(16, true), v.getUint32(20, true)], [SLOT, SLOT, 0x100, 1]); // biome-ignore format: one line
  assert.deepEqual([v.getBigUint64(24, true), v.getBigUint64(32, true)], [0n, 0x1122_3344_5566_7788n]);
  assert.deepEqual([storage[SLOT], storage[SLOT + 199], storage[SLOT + 200], storage[2 * SLOT - 1], storage[2 * SLOT]], [5, 5, 255, 255, 0]); // biome-ignore format: one line
});

test('records without room, without a name or of wrong lengths are refused; so is a storage that is full', () => {
  const s = storeOn(new Uint8Array(4 * SLOT));
  for (const identifier of [0n, 2n ** 64n - 1n]) assert.equal(s.write(identifier, 1), status.failed);
  for (const length of [0, 127, SLOT + 1, 0xffff_ffff]) assert.equal(s.write(1n, 1, length), status.failed);
  assert.equal(s.write(1n, 1, 200, SLOT - 128), status.failed, 'longer than what is left of the buffer');
  assert.equal(s.write(1n, 1, 200, SLOT - 127), status.failed);
  assert.equal(s.write(1n, 1, 128, SLOT - 128), status.success);
  assert.equal(s.write(2n, 1, SLOT), status.success);
  assert.equal(s.write(3n, 1), status.success);
  assert.equal(s.write(4n, 1), status.noSpace);
  assert.equal(s.write(2n, 2), status.success, 'in its own place');
  // What nothing is executed by.
  s.act(a.beginClear);
  s.give(a.setIdentifier, 2n);
  s.give(a.execute, 0n);
  assert.equal(s.take(a.getCount), 3n);
  assert.deepEqual([s.take(a.getRange), s.take(a.getRangeLength), s.take(a.getRangeAttributes)], [0xfebf_0000n, BigInt(SLOT), 0n]); // biome-ignore format: one line
});

test('a storage that is damaged, or of another size, is refused with what is accepted', () => {
  const damaged = (change: (v: DataView) => void, bytes = 4 * SLOT): Uint8Array => {
    const storage = new Uint8Array(bytes);
    openErstStorage(storage, SLOT);
    change(new DataView(storage.buffer));
    return storage;
  };
  const open = (storage: Uint8Array) => () => openErstStorage(storage, 8192);
  assert.equal(
    openErstStorage(
      damaged(() => {}),
      8192,
    ),
    SLOT,
    'its own',
  );
  assert.throws(open(damaged((v) => v.setUint8(0, 0x46))), /header is invalid/);
  assert.throws(open(damaged((v) => v.setUint16(16, 2, true))), /header is invalid/);
  assert.throws(open(damaged((v) => v.setUint16(18, 2, true))), /header is invalid/);
  assert.throws(open(damaged((v) => v.setUint32(12, 0, true))), /records from byte 0 on, accepted is 4096/);
  assert.throws(open(damaged((v) => v.setUint32(8, 0, true))), /record_size 0 is invalid/);
  assert.throws(open(damaged((v) => v.setUint32(8, 0x8000_0000, true))), /multiple of record size/);
  assert.throws(open(new Uint8Array(5 * SLOT)), /multiple of record size \(8KiB\)/);
  assert.throws(() => openErstStorage(new Uint8Array(SLOT), 5000), /record_size 5000 is invalid/);
  // One that begins beyond the storage has no places, and is none the less safe.
  const none = storeOn(damaged((v) => v.setUint32(12, 0x8000_0000, true)));
  assert.equal(none.write(1n, 1), status.noSpace);
  assert.equal(none.read(0n), status.empty);
});
