import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadKernel } from './detect.ts';
import { ZERO_PAGE_ADDRESS } from './layout.ts';
import { fakeBzImage, fakeElf, fakeNote, fakeRam } from './testing.ts';

const MIB = 1 << 20;
const code = Uint8Array.from([0x90, 0xf4]);
const note = { physical: 0, type: 4, data: fakeNote('Xen', 18, Uint8Array.from([0, 0, 0x10, 0])) };
const multiboot = (flags: number, ...addresses: number[]): Uint8Array<ArrayBuffer> => {
  const header = Uint32Array.from([0x1bad_b002, flags, -(0x1bad_b002 + flags), ...addresses]);
  return new Uint8Array(header.buffer);
};

test('a bzImage is booted by the Linux protocol', () => {
  const state = loadKernel(fakeRam(4 * MIB), { kernel: fakeBzImage(), append: 'quiet' });
  assert.deepEqual([state.mode, state.rsi], ['long64', ZERO_PAGE_ADDRESS]);
});

test('a vmlinux is entered in 64-bit mode with a zero page made for it', () => {
  const ram = fakeRam(4 * MIB);
  const kernel = fakeElf(64, 0x100000, [{ virtual: 0xffff_ffff_8100_0000n, physical: 0x100000, data: code }]);
  const state = loadKernel(ram, { kernel, append: 'a=b', initrd: Uint8Array.from([1, 2, 3]) });
  assert.deepEqual([state.mode, state.rip, state.rsi], ['long64', 0x100000, ZERO_PAGE_ADDRESS]);
  const page = ram.view(ZERO_PAGE_ADDRESS, 4096);
  assert.deepEqual([page.getUint16(0x1fe, true), page.getUint32(0x202, true)], [0xaa55, 0x5372_6448]);
  assert.equal(ram.text(page.getUint32(0x228, true)), 'a=b');
  assert.deepEqual([page.getUint32(0x218, true), page.getUint32(0x21c, true)], [4 * MIB - 4096, 3]);
});

test('an i386 vmlinux is entered in 32-bit mode', () => {
  const kernel = fakeElf(32, 0x100000, [{ virtual: 0xc010_0000, physical: 0x100000, data: code }]);
  const state = loadKernel(fakeRam(4 * MIB), { kernel });
  assert.deepEqual([state.mode, state.rip, state.rsi], ['protected32', 0x100000, ZERO_PAGE_ADDRESS]);
});

test('a PVH kernel finds its start information behind EBX', () => {
  for (const bits of [32, 64] as const) {
    const ram = fakeRam(4 * MIB, MIB);
    const kernel = fakeElf(bits, 0x100000, [{ virtual: 0xc010_0000, physical: 0x100000, data: code }, note]);
    const state = loadKernel(ram, { kernel, append: 'root=x', initrd: Uint8Array.from([7, 8]), rsdp: 0xe0000 });
    assert.deepEqual([state.mode, state.rip, state.cr0, state.rflags], ['protected32', 0x100000, 0x11, 2]);
    const info = ram.view(state.rbx, 56);
    const pointer = (at: number): number => Number(info.getBigUint64(at, true));
    assert.deepEqual([info.getUint32(0, true), info.getUint32(4, true), info.getUint32(12, true)], [0x336e_c578, 1, 1]);
    const module = ram.view(pointer(16), 32);
    assert.deepEqual([...ram.bytes(Number(module.getBigUint64(0, true)), 2)], [7, 8]);
    assert.equal(module.getBigUint64(8, true), 2n);
    assert.equal(ram.text(pointer(24)), 'root=x');
    assert.equal(pointer(32), 0xe0000);
    assert.equal(info.getUint32(48, true), 5);
    const last = ram.view(pointer(40) + 4 * 24, 24);
    assert.deepEqual(
      [last.getBigUint64(0, true), last.getBigUint64(8, true), last.getUint32(16, true)],
      [1n << 32n, BigInt(MIB), 1],
    );
  }
});

test('a multiboot ELF gets its information structure, with memory map, command line and modules', () => {
  const ram = fakeRam(4 * MIB);
  const text = new Uint8Array(32);
  text.set(multiboot(3));
  const kernel = fakeElf(32, 0x10000c, [{ physical: 0x100000, data: text, memorySize: 0x1001 }]);
  const modules = [
    { bytes: Uint8Array.from([1]), commandLine: 'one' },
    { bytes: Uint8Array.from([2, 2]), commandLine: 'two args' },
  ];
  const state = loadKernel(ram, { kernel, name: 'test.elf', append: '-v', modules });
  assert.deepEqual([state.mode, state.rip, state.rax], ['protected32', 0x10000c, 0x2bad_b002]);
  const info = ram.view(state.rbx, 120);
  const word = (at: number): number => info.getUint32(at, true);
  assert.equal(word(0), 0x24d);
  assert.deepEqual([word(4), word(8)], [639, 3 * 1024]);
  assert.equal(ram.text(word(16)), 'test.elf -v');
  assert.equal(word(20), 2);
  const list = ram.view(word(24), 32);
  assert.deepEqual([list.getUint32(0, true), list.getUint32(4, true)], [0x102000, 0x102001]);
  assert.deepEqual([list.getUint32(16, true), list.getUint32(20, true)], [0x103000, 0x103002]);
  assert.equal(ram.text(list.getUint32(24, true)), 'two args');
  assert.equal(ram.bytes(0x103000, 1)[0], 2);
  assert.equal(word(44), 4 * 24);
  const map = ram.view(word(48), word(44));
  assert.deepEqual([map.getUint32(72, true), map.getBigUint64(76, true), map.getUint32(92, true)], [20, 0x100000n, 1]);
  assert.equal(ram.text(word(64)), 'nonroot');
});

test('a multiboot file that is no ELF is loaded by the addresses in its header', () => {
  const ram = fakeRam(4 * MIB);
  const file = new Uint8Array(256).fill(0x11);
  file.set(multiboot(0x10000, 0x200020, 0x200010, 0x200050, 0x200080, 0x200040), 32);
  const state = loadKernel(ram, { kernel: file, initrd: Uint8Array.from([5]) });
  assert.equal(state.rip, 0x200040);
  assert.deepEqual(ram.bytes(0x200010, 0x40), file.subarray(16, 16 + 0x40));
  assert.ok(
    ram.bytes(0x200050, 0x30).every((b) => b === 0),
    'bss',
  );
  assert.equal(ram.bytes(0x200080, 1)[0], 0xcc);
  assert.equal(ram.view(state.rbx, 120).getUint32(20, true), 1);
  const bad = (at: number, value: number): (() => void) => {
    const other = file.slice();
    new DataView(other.buffer).setUint32(32 + at, value, true);
    return () => loadKernel(fakeRam(4 * MIB), { kernel: other });
  };
  assert.throws(bad(16, 0x20_0021), /load address 0x200021 lies before the file/);
  assert.throws(bad(16, 0), /lies before the file/);
  assert.throws(bad(20, 0x30_0000), /its load end 0x300000 does not match the file/);
  assert.throws(bad(24, 0x20_0011), /its bss ends at 0x200011, before/);
  assert.throws(bad(24, 0x7fff_ffff), /give it more memory/);
  assert.throws(bad(28, 0x10), /its entry 0x10 is not in the loaded bytes/);
});

test('a multiboot kernel in low memory is told behind itself, and finds the vectors of real mode', () => {
  const ram = fakeRam(4 * MIB);
  const text = new Uint8Array(0x100);
  text.set(multiboot(0));
  const kernel = fakeElf(32, 0x8000, [{ physical: 0x8000, data: text, memorySize: 0x1f000 }]);
  const state = loadKernel(ram, { kernel, append: '-v', modules: [{ bytes: Uint8Array.from([7]), commandLine: 'one' }] });
  assert.deepEqual([state.rip, state.idt], [0x8000, { base: 0, limit: 0x3ff }]);
  assert.deepEqual(ram.bytes(0x8000, 0x100), text);
  assert.ok(ram.bytes(0x8100, 0x1ef00).every((b) => b === 0));
  const info = ram.view(state.rbx, 120);
  const list = ram.view(info.getUint32(24, true), 16);
  assert.equal(ram.text(info.getUint32(16, true)), 'kernel -v');
  assert.equal(ram.bytes(list.getUint32(0, true), 1)[0], 7);
  assert.ok(state.rbx >= 0x27000 && list.getUint32(0, true) >= 0x27000);
  const low = fakeElf(32, 0x1000, [{ physical: 0x1000, data: text }]);
  assert.throws(() => loadKernel(fakeRam(4 * MIB), { kernel: low }), /addresses below 0x2000 are used by the loader/);
});

test('a multiboot kernel that requires unknown features is refused', () => {
  const file = new Uint8Array(64);
  file.set(multiboot(0x8));
  assert.throws(() => loadKernel(fakeRam(4 * MIB), { kernel: file }), /requires features 0x8, known are 0x7/);
});

test('anything else is refused with what was found and what is accepted', () => {
  const refuse = (kernel: Uint8Array, what: RegExp): void => {
    assert.throws(
      () => loadKernel(fakeRam(4 * MIB), { kernel }),
      (error: Error) => {
        assert.match(error.message, what);
        assert.match(error.message, /accepted are Linux bzImage and vmlinux, PVH ELF and multiboot 1$/);
        return true;
      },
    );
  };
  refuse(new Uint8Array(0), /an empty file/);
  refuse(Uint8Array.from([0x1f, 0x8b, 8, 0]), /a gzip file \(decompress it first\)/);
  refuse(Uint8Array.from([0x4d, 0x5a, 0, 0]), /an EFI or DOS program/);
  refuse(new TextEncoder().encode('#!/bin/sh\n'), /a file of 10 bytes that begins with 23 21 2f 62/);
  refuse(fakeElf(64, 0x400000, [{ physical: 0x400000, data: code }]), /an ELF64 file without PVH note or multiboot header/);
});
