import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../../bits/arena.ts';
import { slotAt } from '../../bits/slot-table.ts';
import { MemorySlots } from '../../bus/slots.ts';
import { edid } from './edid.ts';
import { vgaMmio } from './mmio.ts';
import { modes, setMode, shot, testVga } from './testing.ts';
import { Vga } from './vga.ts';

const WHITE = 0xffffff;
const GREY = 0xa8a8a8;

/** A glyph whose lines are all `bits`, by way of the window as the BIOS loads fonts. */
function glyph(vga: Vga, code: number, bits: number): void {
  setMode(vga, modes.text);
  for (const [port, index, value] of [
    [0x3c4, 2, 4],
    [0x3c4, 4, 7],
    [0x3ce, 5, 0],
    [0x3ce, 6, 4],
  ] as const) {
    vga.writePort(port, index);
    vga.writePort(port + 1, value);
  }
  for (let line = 0; line < 16; line++) vga.window.write(code * 32 + line, 1, bits);
  setMode(vga, modes.text);
}

test('text is drawn with the font of plane 2, nine columns to a character', () => {
  const vga = testVga();
  glyph(vga, 0x41, 0x81);
  glyph(vga, 0xdb, 0xff);
  vga.window.write(0x18000, 2, 0x0741);
  vga.window.write(0x18002, 2, 0x1fdb);
  const { width, height, pixels } = shot(vga);
  assert.deepEqual([width, height], [720, 400]);
  assert.deepEqual([...pixels[0]!.subarray(0, 9)], [GREY, 0, 0, 0, 0, 0, 0, GREY, 0]);
  // Line drawing characters reach into the ninth column.
  assert.deepEqual([...new Set(pixels[0]!.subarray(9, 18))], [WHITE]);
  assert.equal(pixels[16]![0], 0);
});

test('the cursor covers its lines while it is shown, and attribute bit 7 blinks', () => {
  const vga = testVga();
  glyph(vga, 0x41, 0xff);
  vga.window.write(0x18000, 2, 0x8741);
  const at = (blink: { cursor: boolean; characters: boolean }, y: number) => shot(vga, blink).pixels[y]![0];
  assert.equal(at({ cursor: false, characters: true }, 0), GREY);
  assert.equal(at({ cursor: false, characters: false }, 0), 0);
  assert.equal(at({ cursor: true, characters: false }, 12), 0);
  vga.window.write(0x18000, 2, 0x0720);
  assert.equal(at({ cursor: true, characters: true }, 14), GREY);
  assert.equal(at({ cursor: true, characters: true }, 12), 0);
  vga.writePort(0x3d4, 0x0a);
  vga.writePort(0x3d5, 0x2d);
  assert.equal(at({ cursor: true, characters: true }, 14), 0, 'CR0A bit 5 turns it off');
});

test('planar writes go through mask, set/reset, rotation and latches', () => {
  const vga = testVga();
  setMode(vga, modes.mode12);
  const gfx = (index: number, value: number) => {
    vga.writePort(0x3ce, index);
    vga.writePort(0x3cf, value);
  };
  // Write mode 2 puts a colour into the bits of the mask.
  gfx(5, 2);
  gfx(8, 0xf0);
  vga.window.read(0, 1);
  vga.window.write(0, 1, 0x0c);
  assert.deepEqual([...vga.vram.subarray(0, 4)], [0, 0, 0xf0, 0xf0]);
  const { width, height, pixels } = shot(vga);
  assert.deepEqual([width, height], [640, 480]);
  assert.deepEqual([...pixels[0]!.subarray(0, 5)], [0xff5757, 0xff5757, 0xff5757, 0xff5757, 0]);
  // Write mode 1 copies the latches, write mode 0 with XOR turns bits.
  gfx(5, 1);
  vga.window.read(0, 1);
  vga.window.write(10, 1, 0);
  assert.deepEqual([...vga.vram.subarray(40, 44)], [0, 0, 0xf0, 0xf0]);
  gfx(5, 0);
  gfx(8, 0xff);
  gfx(3, 0x18);
  vga.window.read(10, 1);
  vga.window.write(10, 1, 0x81);
  assert.deepEqual([...vga.vram.subarray(40, 44)], [0x81, 0x81, 0x71, 0x71]);
  // Read mode 1 compares colours where planes count.
  gfx(5, 8);
  gfx(2, 0x0c);
  gfx(7, 0x0f);
  assert.equal(vga.window.read(0, 1), 0xf0);
});

test('mode 13h is 320 by 200 bytes, each shown twice as wide and high', () => {
  const vga = testVga();
  setMode(vga, modes.mode13);
  vga.window.write(320 * 3 + 5, 1, 0x3f);
  const { width, height, pixels } = shot(vga);
  assert.deepEqual([width, height], [640, 400]);
  assert.deepEqual([...pixels[6]!.subarray(9, 13)], [0, WHITE, WHITE, 0]);
  assert.deepEqual([...pixels[7]!.subarray(9, 13)], [0, WHITE, WHITE, 0]);
  assert.equal(pixels[8]![10], 0);
});

test('CGA modes have odd lines in their second half and two bits for a pixel', () => {
  const vga = testVga();
  setMode(vga, modes.mode4);
  vga.window.write(0x18000, 1, 0b11_10_01_00);
  vga.window.write(0x18000 + 0x2000, 1, 0xff);
  const { width, height, pixels } = shot(vga);
  assert.deepEqual([width, height], [640, 400]);
  const colours = [...pixels[0]!.subarray(0, 8)];
  assert.equal(new Set(colours).size, 4);
  assert.equal(colours[0], colours[1]);
  assert.equal(new Set(pixels[2]!.subarray(0, 8)).size, 1);
  assert.equal(pixels[2]![0], colours[0]);
});

test('VBE modes have their size, and what does not fit is made to', () => {
  const vga = testVga(16);
  const set = (index: number, value: number) => vga.writeVbe(index, value);
  const mode = (width: number, height: number, bpp: number) => {
    set(4, 0);
    set(1, width);
    set(2, height);
    set(3, bpp);
    set(4, 0x41);
  };
  vga.readPort(0x3da);
  vga.writePort(0x3c0, 0x20);
  mode(1024, 768, 32);
  const view = new DataView(vga.vram.buffer);
  view.setUint32(4 * (1024 * 5 + 7), 0xff123456, true);
  let s = shot(vga);
  assert.deepEqual([s.width, s.height, s.pixels[5]![7]], [1024, 768, 0x123456]);
  // The screen scrolls in a virtual one.
  set(6, 2048);
  set(8, 1);
  set(9, 2);
  view.setUint32(4 * (2048 * 2 + 1), 0x00abcdef, true);
  s = shot(vga);
  assert.equal(s.pixels[0]![0], 0xabcdef);
  mode(800, 600, 16);
  view.setUint16(0, 0xf81f, true);
  assert.equal(shot(vga).pixels[0]![0], 0xff00ff);
  mode(640, 480, 24);
  vga.vram.set([1, 2, 3]);
  assert.equal(shot(vga).pixels[0]![0], 0x030201);
  mode(16000, 12000, 32);
  assert.ok(vga.readVbe(2) * vga.readVbe(6) * 4 <= vga.vram.length);
  set(4, 2);
  assert.deepEqual([vga.readVbe(1), vga.readVbe(2), vga.readVbe(3)], [16000, 12000, 32]);
  assert.equal(vga.readVbe(10), 256);
});

test('VBE modes of 4 bits are planar: writes go through the map mask, also behind a mode of bytes', () => {
  const vga = testVga(4);
  setMode(vga, modes.mode12);
  const mode = (bpp: number): void => {
    for (const [index, value] of [
      [4, 0],
      [1, 800],
      [2, 600],
      [3, bpp],
      [4, 0x41],
    ] as const)
      vga.writeVbe(index, value);
  };
  for (const before of [undefined, 8]) {
    if (before !== undefined) mode(before);
    mode(4);
    // A line has 100 bytes of each plane; eight pixels have the colours 0 to 7 where each plane takes its byte.
    for (const [plane, byte] of [0b01010101, 0b00110011, 0b00001111].entries()) {
      vga.writePort(0x3c4, 2);
      vga.writePort(0x3c5, 1 << plane);
      vga.window.write(100, 1, byte);
    }
    const { width, height, pixels } = shot(vga);
    assert.deepEqual([width, height], [800, 600]);
    assert.deepEqual([...pixels[1]!.subarray(0, 9)], [0, 0xa8, 0xa800, 0xa8a8, 0xa80000, 0xa800a8, 0xa85700, GREY, 0]);
    assert.ok(pixels[0]!.every((p) => p === 0));
  }
});

test('a reset keeps the picture in memory, and shows none', () => {
  const vga = testVga();
  vga.vram.fill(7, 0x80000, 0x80004);
  vga.reset();
  assert.deepEqual([...vga.vram.subarray(0x7ffff, 0x80005)], [0, 7, 7, 7, 7, 0]);
  assert.ok(shot(vga).pixels.every((line) => line.every((p) => p === 0)));
});

test('the window is plain memory where no plane is masked, and the bus elsewhere', () => {
  const buffer = new SharedArrayBuffer(0x130_0000);
  const places = {
    ramBase: 0x10000,
    ramLow: 0x10_0000,
    ramHigh: 0,
    guestBytes: 0x20_0000,
    plugBase: 0,
    plugBytes: 0,
    plugMap: 0,
    extraBytes: 1 << 20,
    slots: 0,
    codeMap: 0x2000,
  };
  const slots = new MemorySlots(buffer, places, () => {});
  const view = new DataView(buffer);
  const host = slots.alloc('vram', 1 << 20);
  const vga = new Vga({
    arena: new Arena(new SharedArrayBuffer(64 << 10)),
    name: 'vga',
    vram: new Uint8Array(buffer, host, 1 << 20),
    host,
    slots,
  });
  vga.reset();
  setMode(vga, modes.mode12);
  assert.equal(slotAt(view, 0, 0xa0000), -1);
  setMode(vga, modes.mode13);
  assert.deepEqual([slotAt(view, 0, 0xa0000), slotAt(view, 0, 0xaf000)], [host, host + 0xf000]);
  assert.equal(slotAt(view, 0, 0xb0000), -1);
  vga.writeVbe(5, 3);
  assert.equal(slotAt(view, 0, 0xa0000), host + 0x30000);
});

test('a card tells its monitor, and its registers are in its BAR as well', () => {
  const vga = testVga();
  const block = edid({ width: 1280, height: 800, vendor: 'RHT', product: 0x1234, name: 'Nonroot Monitor' });
  assert.equal(block.reduce((sum, b) => sum + b, 0) % 256, 0);
  const bar = vgaMmio(vga, block, true);
  assert.equal(bar.read(0, 4), 0xffffff00);
  bar.write(0x500 + 2, 2, 640);
  assert.equal(vga.readVbe(1), 640);
  bar.write(0x408, 1, 7);
  assert.equal(vga.readPort(0x3c8), 7);
  assert.equal(bar.read(0x604, 4), 0x1e1e1e1e);
});

test('no sequence of register writes makes a picture that cannot be drawn', () => {
  for (let seed = 1; seed <= 40; seed++) {
    const vga = testVga();
    let x = seed;
    const random = (n: number): number => {
      x = (Math.imul(x, 1103515245) + 12345) >>> 0;
      return (x >>> 8) % n;
    };
    for (let i = 0; i < 400; i++) {
      const kind = random(10);
      if (kind < 6) vga.writePort(0x3b0 + random(48), random(256));
      else if (kind < 8) vga.writeVbe(random(16), random(4) ? random(1024) : random(65536));
      else if (kind < 9) vga.window.write(random(0x1fffd), 4, random(0xffffff));
      else vga.window.read(random(0x1fffd), 4);
    }
    vga.readPort(0x3da);
    vga.readPort(0x3ba);
    vga.writePort(0x3c0, 0x20);
    // Large pictures are drawn in part: every line has the same code.
    const target = {
      width: 640,
      height: 480,
      lines: 0,
      resize(width: number, height: number) {
        assert.ok(width > 0 && height > 0 && width * height <= 16000 * 12000, `seed ${seed}: ${width}x${height}`);
      },
      line(_: number, pixels: Uint32Array) {
        assert.ok(
          pixels.every((p) => p <= 0xffffff),
          `seed ${seed}`,
        );
      },
    };
    const s = shot(vga);
    target.resize(s.width, s.height);
    for (const [y, line] of s.pixels.entries()) if (y < 50) target.line(y, line);
  }
});
