import assert from 'node:assert/strict';
import { closeSync, fstatSync, ftruncateSync, openSync, readdirSync, readSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { seeded } from '../../bits/testing.ts';
import { nativeFiles } from './file-native.ts';
import { inFolder } from './file-testing.ts';
import {
  anonymousFile,
  type FrozenMemory,
  fileOf,
  frozenIn,
  GuestMemory,
  openFrozen,
  sealedCopy,
  sharesMemory,
} from './frozen-memory.ts';

const PAGE = 4096;
const BYTES = 16 << 20;
const PAGES = BYTES / PAGE;

/** Zeros at a page's start in shared memory, as a machine has them. */
function memory(): Uint8Array {
  const { buffer } = new WebAssembly.Memory({ initial: BYTES / 65536 + 1, maximum: BYTES / 65536 + 1, shared: true });
  return new Uint8Array(buffer, 65536, BYTES);
}
const openFiles = (): number => readdirSync('/proc/self/fd').length;

test('memory is shared where this host has the calls for it', () => {
  assert.equal(sharesMemory(), nativeFiles() !== undefined);
});

test('whatever is written, frozen and gone on from in turn, each keeps its own contents', {
  skip: !sharesMemory() && 'no shared memory here',
}, () => {
  const below = seeded(20261126);
  const files = openFiles();
  /** Machines and moments, each with a copy of what it has to hold. */
  const machines = [{ guest: new GuestMemory(memory(), true), holds: new Uint8Array(BYTES) }];
  const moments: { frozen: FrozenMemory; holds: Uint8Array }[] = [];
  const write = ({ guest, holds }: (typeof machines)[0]): void => {
    for (let n = below(400); n > 0; n--) {
      const at = below(PAGES) * PAGE + below(PAGE);
      const bytes = new Uint8Array(1 + below(3 * PAGE)).fill(below(256));
      const part = bytes.subarray(0, BYTES - at);
      guest.bytes.set(part, at);
      holds.set(part, at);
    }
  };
  const check = (a: Uint8Array, b: Uint8Array): void => {
    const differ = Buffer.compare(Buffer.from(a.buffer, a.byteOffset, BYTES), b) !== 0;
    if (differ) assert.fail(`page ${a.findIndex((x, i) => x !== b[i]) / PAGE} differs`);
  };
  for (let round = 0; round < 60; round++) {
    const machine = machines[below(machines.length)]!;
    write(machine);
    moments.push({ frozen: machine.guest.freeze(), holds: machine.holds.slice() });
    check(machine.guest.bytes, machine.holds);
    if (below(3) === 0) write(machine);
    const moment = moments[below(moments.length)]!;
    const other = machines.length < 3 ? new GuestMemory(memory(), true) : machines.splice(below(machines.length), 1)[0]!.guest;
    other.take(moment.frozen);
    machines.push({ guest: other, holds: moment.holds.slice() });
    check(other.bytes, moment.holds);
    if (moments.length > 4) moments.splice(below(moments.length), 1)[0]!.frozen.close();
    assert.ok(openFiles() - files < 300, `${openFiles()} files are open`);
  }
  for (const { guest, holds } of machines) check(guest.bytes, holds);
  for (const { guest } of machines) guest.close();
  for (const { frozen } of moments) frozen.close();
  assert.equal(openFiles(), files, 'all files are closed');
});

test('a file of frozen memory has holes for zeros, and is read into machines', () =>
  inFolder(async (folder) => {
    const guest = new GuestMemory(memory(), true);
    guest.bytes.fill(7, 5 * PAGE, 6 * PAGE);
    guest.freeze().close();
    guest.bytes[9 * PAGE] = 9;
    const frozen = guest.freeze();
    const path = join(folder, 'memory');
    const fd = openSync(path, 'w');
    frozen.copyTo(fd, PAGE);
    closeSync(fd);
    assert.ok(statSync(path).blocks * 512 < 1 << 20);
    const other = new GuestMemory(memory(), true);
    other.take(openFrozen(path, PAGE, BYTES));
    assert.deepEqual(
      [4, 5, 6, 9].map((page) => other.bytes[page * PAGE]),
      [0, 7, 0, 9],
    );
    other.bytes[PAGE] = 1;
    const again = other.freeze();
    assert.equal(Buffer.compare(other.bytes.slice(), guest.bytes.slice().fill(1, PAGE, PAGE + 1)), 0);
    again.close();
    assert.throws(() => openFrozen(path, 2 * PAGE, BYTES), /too short/);
  }));

test('a sealed copy stays as it is, whoever has it or what it is a copy of', {
  skip: !sharesMemory() && 'no shared memory here',
}, () => {
  const files = openFiles();
  const from = anonymousFile();
  ftruncateSync(from, BYTES);
  writeSync(from, Buffer.alloc(PAGE, 3), 0, PAGE, 2 * PAGE);
  const copy = sealedCopy(from, BYTES);
  writeSync(from, Buffer.alloc(PAGE, 4), 0, PAGE, 2 * PAGE);
  assert.ok(fstatSync(copy).blocks * 512 <= 2 * PAGE, 'zeros take no place');
  // By its descriptor, and opened anew.
  const again = openSync(`/proc/self/fd/${copy}`, 'r+');
  for (const fd of [copy, again]) {
    assert.throws(() => writeSync(fd, Buffer.alloc(1), 0, 1, 0), /EPERM/);
    assert.throws(() => ftruncateSync(fd, 0), /EPERM/);
  }
  const guest = new GuestMemory(memory(), true);
  const frozen = frozenIn(again, 0, BYTES, 'the copy');
  guest.take(frozen);
  frozen.close();
  assert.equal(guest.bytes[2 * PAGE], 3);
  guest.bytes[2 * PAGE] = 5;
  const byte = Buffer.alloc(1);
  readSync(copy, byte, 0, 1, 2 * PAGE);
  assert.equal(byte[0], 3, 'who goes on from it has copies of its own');
  assert.throws(() => sealedCopy(from, BYTES - 1), /bytes at most/);
  ftruncateSync(from, BYTES - 1);
  assert.throws(() => sealedCopy(from, BYTES), /whole pages/);
  guest.close();
  closeSync(from);
  closeSync(copy);
  assert.equal(openFiles(), files, 'all files are closed');
});

test('memory that lies in several files is in none that another process could have', {
  skip: !sharesMemory() && 'no shared memory here',
}, () => {
  const guest = new GuestMemory(memory(), true);
  const first = guest.freeze();
  assert.equal(fileOf(first)?.offset, 0);
  guest.bytes[3 * PAGE] = 1;
  const second = guest.freeze();
  assert.equal(fileOf(second), undefined);
  for (const one of [first, second, guest]) one.close();
});
