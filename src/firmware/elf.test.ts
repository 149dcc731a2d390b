import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadElf, parseElf, physicalEntry } from './elf.ts';
import { fakeElf, fakeNote, fakeRam } from './testing.ts';

const MIB = 1 << 20;
const code = Uint8Array.from([1, 2, 3, 4, 5]);

test("Node's buffers, which have a method `copy`, are files in memory", () => {
  const file = fakeElf(64, 0x100000, [{ virtual: 0x100000, physical: 0x100000, data: code }]);
  const buffer = Buffer.from(file);
  assert.deepEqual(loadElf(fakeRam(4 * MIB), buffer, parseElf(buffer), 'kernel'), {
    start: 0x100000,
    end: 0x100000 + code.length,
  });
});

for (const bits of [32, 64] as const) {
  test(`an ELF${bits} file is loaded by physical address and its bss is cleared`, () => {
    const file = fakeElf(bits, 0xc010_0002, [
      { virtual: 0xc010_0000, physical: 0x100000, data: code, memorySize: 0x2_0005 },
      { virtual: 0xc030_0000, physical: 0x300000, memorySize: 16 },
      { physical: 0, type: 4, data: fakeNote('Test', 7, Uint8Array.from([9, 8])) },
    ]);
    const image = parseElf(file);
    const ram = fakeRam(4 * MIB);
    assert.deepEqual(loadElf(ram, file, image, 'kernel'), { start: 0x100000, end: 0x300010 });
    assert.deepEqual(ram.bytes(0x100000, 5), code);
    assert.ok(ram.bytes(0x100005, 0x2_0000).every((b) => b === 0));
    assert.equal(ram.bytes(0x120005, 1)[0], 0xcc);
    assert.ok(ram.bytes(0x300000, 16).every((b) => b === 0));
    assert.equal(physicalEntry(image), 0x100002);
    assert.deepEqual(image.notes, [{ name: 'Test', type: 7, data: Uint8Array.from([9, 8]) }]);
  });
}

test('a segment above 4 GiB goes to the upper RAM', () => {
  const file = fakeElf(64, 0x1_0000_0001, [{ physical: 0x1_0000_0000, data: code }]);
  const ram = fakeRam(MIB, MIB);
  loadElf(ram, file, parseElf(file), 'kernel');
  assert.deepEqual(ram.bytes(0x1_0000_0000, 5), code);
  assert.equal(physicalEntry(parseElf(file)), 0x1_0000_0001);
});

test('segments outside of RAM or over reserved areas are refused, before anything is written', () => {
  const attempt = (physical: number, memorySize: number | bigint): void => {
    const file = fakeElf(64, physical, [
      { physical: 0x100000, data: code },
      { physical, memorySize },
    ]);
    const ram = fakeRam(4 * MIB);
    try {
      loadElf(ram, file, parseElf(file), 'kernel');
    } finally {
      assert.equal(ram.bytes(0x100000, 1)[0], 0xcc);
    }
  };
  assert.throws(
    () => attempt(0x3f_f000, 0x1001),
    /needs 0x3ff000–0x400000, the guest has 4.0 MiB of RAM from 0; give it more memory/,
  );
  assert.throws(() => attempt(0x200000, 1n << 50n), /give it more memory/);
  assert.throws(() => attempt(0x1000, 16), /addresses below 0x30000 are used by the loader/);
  assert.throws(() => attempt(0x9f000, 0x2000), /VGA and BIOS area/);
  assert.throws(() => attempt(0xf_ffff_ffff, 1), /give it more memory/);
});

test('many segments that fit one by one but not together are refused', () => {
  const file = fakeElf(
    64,
    0x100000,
    Array.from({ length: 1000 }, () => ({ physical: 0x100000, memorySize: 2 * MIB })),
  );
  assert.throws(
    () => loadElf(fakeRam(4 * MIB), file, parseElf(file), 'kernel'),
    /2000.0 MiB together, more than the guest's RAM/,
  );
});

test('files that are no x86 executable are refused by what they are', () => {
  const file = (change: (view: DataView) => void): Uint8Array => {
    const bytes = fakeElf(64, 0x100000, [{ physical: 0x100000, data: code }]);
    change(new DataView(bytes.buffer));
    return bytes;
  };
  assert.throws(() => parseElf(new Uint8Array(100)), /no ELF magic/);
  assert.throws(() => parseElf(file((v) => v.setUint8(4, 3))), /class 3, accepted are 1 \(32 bits\) and 2/);
  assert.throws(() => parseElf(file((v) => v.setUint8(5, 2))), /big-endian/);
  assert.throws(() => parseElf(file((v) => v.setUint16(16, 1, true))), /type 1, accepted are 2/);
  assert.throws(() => parseElf(file((v) => v.setUint16(18, 183, true))), /for aarch64, accepted are i386 and x86-64/);
  assert.throws(() => parseElf(file((v) => v.setUint16(56, 0, true))), /no program headers/);
  assert.throws(() => parseElf(file((v) => v.setUint16(56, 0xffff, true))), /65535 program headers at 0x40 lie behind its end/);
  assert.throws(() => parseElf(file((v) => v.setBigUint64(32, 2n ** 64n - 1n, true))), /lie behind its end/);
  assert.throws(() => parseElf(file((v) => v.setUint16(54, 8, true))), /have 8 bytes each, at least 56/);
  assert.throws(
    () => parseElf(file((v) => v.setBigUint64(64 + 8, 2n ** 63n, true))),
    /program header 0 wants 0x5 bytes at 0x8000000000000000/,
  );
  assert.throws(
    () => parseElf(file((v) => v.setBigUint64(64 + 40, 4n, true))),
    /more bytes in the file \(5\) than in memory \(4\)/,
  );
  assert.throws(() => parseElf(file((v) => v.setBigUint64(64 + 24, 2n ** 60n, true))), /wants physical address/);
  assert.throws(() => parseElf(file((v) => v.setUint32(64, 2, true))), /no segment to load/);
  assert.throws(
    () => physicalEntry(parseElf(file((v) => v.setBigUint64(24, 5n, true)))),
    /entry point 0x5 is in none of its segments/,
  );
});

test('no truncation and no single changed byte of the headers does more than end in an Error', () => {
  const good = fakeElf(32, 0x100000, [
    { physical: 0x100000, data: code },
    { physical: 0, type: 4, data: fakeNote('Xen', 18, new Uint8Array(4)) },
  ]);
  const attempt = (bytes: Uint8Array): void => {
    try {
      const image = parseElf(bytes);
      loadElf(fakeRam(2 * MIB), bytes, image, 'kernel');
      physicalEntry(image);
    } catch (error) {
      assert.match(String(error), /^Error: Cannot /);
    }
  };
  for (let length = 0; length < good.length; length++) attempt(good.subarray(0, length));
  for (let at = 4; at < good.length; at++) {
    for (const value of [0, 1, 0x7f, 0x80, 0xff]) {
      const bytes = good.slice();
      bytes[at] = value;
      attempt(bytes);
    }
  }
});
