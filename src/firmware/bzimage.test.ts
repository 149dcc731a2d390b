import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadBzImage } from './bzimage.ts';
import { buildE820 } from './e820.ts';
import { STRINGS_ADDRESS, ZERO_PAGE_ADDRESS } from './layout.ts';
import { extractVmlinux } from './payload.ts';
import { HDR, parseSetupHeader } from './setup-header.ts';
import { GIB4, inMemory, type LoadTarget } from './target.ts';
import { type FakeBzImage, fakeBzImage, fakeElf, fakeRam, withSize } from './testing.ts';

const MIB = 1 << 20;
const options = (ram: LoadTarget, more: object = {}) => ({ append: 'console=ttyS0', memoryMap: buildE820(ram), ...more });
const initrd = Uint8Array.from({ length: 5000 }, (_, i) => i);

test('the 64-bit entry: code at 1 MiB, RSI at a zero page with header, memory map, command line and RSDP', () => {
  const ram = fakeRam(4 * MIB);
  const file = fakeBzImage();
  const state = loadBzImage(ram, file, options(ram, { rsdp: 0xe0000 }));
  assert.equal(state.mode, 'long64');
  assert.equal(state.kernel, 'Linux 6.9-fake, compressed, 64-bit entry');
  assert.equal(state.rip, 0x100200);
  assert.equal(state.rsi, ZERO_PAGE_ADDRESS);
  assert.deepEqual(ram.bytes(0x100000, file.length - 1536), file.subarray(1536));
  const page = ram.view(state.rsi, 4096);
  assert.equal(page.getUint32(HDR.magic, true), 0x5372_6448);
  assert.equal(page.getUint8(HDR.typeOfLoader), 0xff);
  assert.equal(page.getUint16(HDR.vidMode, true), 0xffff);
  assert.equal(page.getUint32(HDR.code32Start, true), 0x100000);
  assert.equal(ram.text(page.getUint32(HDR.cmdLinePtr, true)), 'console=ttyS0');
  assert.equal(page.getBigUint64(0x070, true), 0xe0000n);
  assert.equal(page.getUint8(0x1e8), 4);
  assert.equal(page.getBigUint64(0x2d0 + 60, true), 0x100000n);
  assert.equal(page.getBigUint64(0x2d0 + 68, true), BigInt(3 * MIB));
  assert.equal(page.getUint32(0x1e0, true), 3 * 1024);
  assert.equal(page.getUint32(HDR.ramdiskSize, true), 0);
  assert.equal(page.getUint8(0x00f), 0, 'no screen');
  assert.ok(ram.bytes(state.rsi, 0x70).every((b) => b === 0));
});

test('a VGA text screen is announced when there is one, and a random seed is passed as setup_data', () => {
  const ram = fakeRam(4 * MIB);
  loadBzImage(ram, fakeBzImage(), options(ram, { vgaText: true, rngSeed: Uint8Array.from([1, 2, 3]) }));
  const page = ram.view(ZERO_PAGE_ADDRESS, 4096);
  assert.deepEqual([page.getUint8(6), page.getUint8(7), page.getUint8(14), page.getUint16(16, true)], [3, 80, 25, 16]);
  const data = Number(page.getBigUint64(HDR.setupData, true));
  assert.deepEqual([...ram.bytes(data, 19)], [0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 3, 0, 0, 0, 1, 2, 3]);
});

test('the 32-bit entry is taken where the kernel has no other, or on request', () => {
  const ram = fakeRam(4 * MIB);
  for (const [fields, more] of [
    [{ xloadflags: 0 }, {}],
    [{ version: 0x20b }, {}],
    [{}, { entry: 'protected32' }],
  ] as [FakeBzImage, object][]) {
    const state = loadBzImage(ram, fakeBzImage(fields), options(ram, more));
    assert.deepEqual(
      [state.mode, state.rip, state.rsi, state.cr0, state.efer],
      ['protected32', 0x100000, ZERO_PAGE_ADDRESS, 0x11, 0],
    );
  }
  assert.throws(
    () => loadBzImage(ram, fakeBzImage({ xloadflags: 0 }), options(ram, { entry: 'long64' })),
    /no 64-bit entry \(XLF_KERNEL_64\)/,
  );
});

test('the 16-bit entry runs the setup code with its header filled in', () => {
  const ram = fakeRam(4 * MIB);
  const state = loadBzImage(ram, fakeBzImage(), options(ram, { entry: 'real16', initrd }));
  assert.deepEqual([state.mode, state.cs.selector, state.cs.base, state.rip], ['real16', 0x1020, 0x10200, 0]);
  assert.deepEqual([state.ds.selector, state.ss.base, state.rsp, state.cr0 & 1], [0x1000, 0x10000, 0xe000, 0]);
  const setup = ram.view(0x10000, 1536);
  assert.equal(setup.getUint16(HDR.bootFlag, true), 0xaa55);
  assert.equal(setup.getUint8(HDR.loadflags), 0x81);
  assert.equal(setup.getUint16(HDR.heapEndPtr, true), 0xde00);
  assert.equal(ram.text(setup.getUint32(HDR.cmdLinePtr, true)), 'console=ttyS0');
  assert.equal(setup.getUint32(HDR.ramdiskSize, true), initrd.length);
});

test('the initrd goes to the highest page that RAM and initrd_addr_max allow', () => {
  const place = (fields: FakeBzImage, ram = fakeRam(8 * MIB), more: object = {}): number => {
    loadBzImage(ram, fakeBzImage(fields), options(ram, { initrd, ...more }));
    const page = ram.view(ZERO_PAGE_ADDRESS, 4096);
    const at = page.getUint32(HDR.ramdiskImage, true) + page.getUint32(0x0c0, true) * GIB4;
    assert.equal(page.getUint32(HDR.ramdiskSize, true), initrd.length);
    assert.deepEqual(ram.bytes(at, initrd.length), initrd);
    return at;
  };
  assert.equal(place({}), 8 * MIB - 8192);
  assert.equal(place({ xloadflags: 1, initrdAddrMax: 0x3f_ffff }), 4 * MIB - 8192);
  assert.equal(place({ initrdAddrMax: 0x3f_ffff }), 8 * MIB - 8192, 'XLF_CAN_BE_LOADED_ABOVE_4G lifts the limit');
  const memoryMap = buildE820({ ramBelow4G: 8 * MIB, ramAbove4G: 0, reserved: [{ start: 7 * MIB, size: MIB, type: 3 }] });
  assert.equal(place({}, fakeRam(8 * MIB), { memoryMap }), 7 * MIB - 8192);
  // No room below 4 GiB beside the kernel: only a kernel that says so gets it above.
  assert.equal(place({ initSize: 2 * MIB }, fakeRam(4 * MIB, MIB)), GIB4 + MIB - 8192);
  assert.throws(() => place({ initSize: 2 * MIB, xloadflags: 1 }, fakeRam(4 * MIB, MIB)), /Cannot load initrd: it has 4.9 KiB/);
});

test('what does not fit is refused in one line', () => {
  const ram = fakeRam(4 * MIB);
  const attempt = (fields: FakeBzImage, more: object = {}) => loadBzImage(ram, fakeBzImage(fields), options(ram, more));
  assert.throws(
    () => attempt({ initSize: MIB }, { initrd: new Uint8Array(MIB + 1) }),
    /^Error: Cannot load initrd: it has 1.0 MiB, the largest free RAM from the kernel's end at 0x300000 up to 0x[0-9a-f]+ has 1.0 MiB; give the guest more memory$/,
  );
  assert.throws(
    () => attempt({ initSize: 2 * MIB + 1 }),
    /Cannot load kernel: it needs 0x100000–0x400000, the guest has 4.0 MiB/,
  );
  assert.throws(() => attempt({ cmdlineSize: 12 }), /Cannot pass kernel command line: it has 13 bytes, the kernel accepts 12/);
  assert.throws(() => attempt({}, { append: 'a\0b' }), /NUL character/);
  assert.equal(attempt({ cmdlineSize: 13 }).rsi, ZERO_PAGE_ADDRESS);
});

test('foreign, old and truncated files are refused by what they are', () => {
  const file = fakeBzImage();
  assert.throws(() => parseSetupHeader(new Uint8Array(4096)), /no boot signature/);
  assert.throws(() => parseSetupHeader(file.subarray(0, 0x204)), /no boot signature/);
  assert.throws(
    () => parseSetupHeader(file.subarray(0, 0x240)),
    /the file ends after 576 bytes, inside its 1.5 KiB of setup code/,
  );
  assert.throws(
    () => parseSetupHeader(file.subarray(0, 1536 + 100)),
    /truncated: 1.0 KiB of kernel announced, 100 bytes are there/,
  );
  assert.throws(() => parseSetupHeader(fakeBzImage({ version: 0x201 })), /boot protocol 2.01, accepted is 2.02 and newer/);
  assert.throws(() => parseSetupHeader(fakeBzImage({ loadflags: 0 })), /it is a zImage/);
  const outside = file.slice();
  new DataView(outside.buffer).setUint32(HDR.payloadLength, 5000, true);
  assert.throws(() => parseSetupHeader(outside), /its payload ends at/);
});

test('no single changed byte of the header does more than end in an Error', () => {
  const good = fakeBzImage();
  for (let at = HDR.setupSects; at < 0x26c; at++) {
    for (const value of [0, 0x7f, 0xff]) {
      const bytes = good.slice();
      bytes[at] = value;
      const ram = fakeRam(4 * MIB);
      try {
        loadBzImage(ram, bytes, options(ram, { initrd }));
      } catch (error) {
        assert.match(String(error), /^Error: Cannot /, `byte 0x${at.toString(16)} = ${value}`);
      }
    }
  }
});

const vmlinux = fakeElf(64, 0x200010, [
  { virtual: 0xffff_ffff_8120_0000n, physical: 0x200000, data: Uint8Array.from({ length: 64 }, (_, i) => i), memorySize: 128 },
]);
/** An LZ4 block of literals only. */
const lz4 = (data: Uint8Array): Uint8Array => {
  const block = [0xf0, ...new Array<number>(Math.floor((data.length - 15) / 255)).fill(255), (data.length - 15) % 255, ...data];
  return Uint8Array.from([0x02, 0x21, 0x4c, 0x18, block.length & 0xff, block.length >> 8, 0, 0, ...block]);
};

test('an LZ4 payload is decompressed on the host and entered at the address of its ELF header', () => {
  const ram = fakeRam(4 * MIB);
  const file = fakeBzImage({ payload: withSize(lz4(vmlinux), vmlinux.length) });
  assert.deepEqual(extractVmlinux(file), vmlinux);
  const state = loadBzImage(ram, file, options(ram, { initrd }));
  assert.deepEqual([state.mode, state.rip, state.rsi], ['long64', 0x200010, ZERO_PAGE_ADDRESS]);
  assert.equal(state.kernel, 'Linux 6.9-fake, uncompressed, 64-bit entry');
  assert.equal(ram.bytes(0x200001, 1)[0], 1);
  assert.equal(ram.bytes(0x200050, 1)[0], 0, 'bss');
  const page = ram.view(ZERO_PAGE_ADDRESS, 4096);
  assert.equal(page.getUint32(HDR.magic, true), 0x5372_6448);
  assert.equal(page.getUint16(HDR.version, true), 0x20f);
  assert.equal(ram.bytes(0x100000, 1)[0], 0xcc, 'the compressed kernel is not loaded');
  assert.equal(ram.text(STRINGS_ADDRESS), 'console=ttyS0');
});

test('other formats go to the given decompressor, and without one the guest decompresses', () => {
  const calls: [string, number, number][] = [];
  const decompress = (format: string, bytes: Uint8Array, size: number) => {
    calls.push([format, bytes.length, size]);
    return format === 'bzip2' ? undefined : vmlinux;
  };
  const ram = fakeRam(4 * MIB);
  const boot = (magic: number[], more: object = {}) =>
    loadBzImage(
      ram,
      fakeBzImage({ payload: withSize(Uint8Array.from([...magic, 9, 9]), 777) }),
      options(ram, { decompress, ...more }),
    ).rip;
  assert.equal(boot([0x28, 0xb5, 0x2f, 0xfd]), 0x200010);
  assert.equal(boot([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]), 0x200010);
  assert.equal(boot([0x1f, 0x8b]), 0x200010);
  assert.equal(boot([0x42, 0x5a, 0x68]), 0x100200, 'bzip2 is left to the guest');
  assert.equal(boot([1, 2, 3]), 0x100200, 'an unknown payload is left to the guest');
  assert.equal(boot([0x28, 0xb5, 0x2f, 0xfd], { decompress: undefined }), 0x100200);
  assert.equal(boot([0x28, 0xb5, 0x2f, 0xfd], { inGuest: true }), 0x100200);
  assert.equal(boot([1, 2, 3], { vmlinux: inMemory(vmlinux) }), 0x200010, "the caller's own vmlinux is taken");
  assert.deepEqual(calls, [
    ['zstd', 6, 777],
    ['xz', 8, 777],
    ['gzip', 8, 777],
    ['bzip2', 5, 777],
  ]);
});

test('an i386 kernel is decompressed on the host too; a 64-bit kernel is not when its 32-bit entry is asked for', () => {
  const ram = fakeRam(4 * MIB);
  const vmlinux32 = fakeElf(32, 0x200004, [{ virtual: 0xc120_0000, physical: 0x200000, data: new Uint8Array(300) }]);
  const i386 = fakeBzImage({ xloadflags: 0, payload: withSize(lz4(vmlinux32), vmlinux32.length) });
  const state = loadBzImage(ram, i386, options(ram));
  assert.deepEqual([state.mode, state.rip, state.rsi], ['protected32', 0x200004, ZERO_PAGE_ADDRESS]);
  const payload = withSize(lz4(vmlinux), vmlinux.length);
  assert.equal(loadBzImage(ram, fakeBzImage({ payload }), options(ram, { entry: 'protected32' })).rip, 0x100000);
  assert.equal(loadBzImage(ram, fakeBzImage({ xloadflags: 0, payload }), options(ram)).rip, 0x100000);
});

test('a damaged LZ4 payload is an error, not a boot into garbage', () => {
  const broken = lz4(vmlinux);
  broken[4] = 0xff;
  assert.throws(() => extractVmlinux(fakeBzImage({ payload: withSize(broken, vmlinux.length) })), /Cannot decompress LZ4 data/);
});
