// A VGA with its memory for tests, and a target that keeps the picture.
import { Arena } from '../../bits/arena.ts';
import type { PixelTarget } from '../../bits/pixels.ts';
import { drawVga } from './render.ts';
import { Vga } from './vga.ts';

export interface Shot extends PixelTarget {
  /** Row by row. */
  readonly pixels: readonly Uint32Array[];
}

/** A VGA of `mib` MiB after its reset. */
export function testVga(mib = 1): Vga {
  const buffer = new SharedArrayBuffer(64 << 10);
  const vga = new Vga({
    arena: new Arena(buffer),
    name: 'vga',
    vram: new Uint8Array(new SharedArrayBuffer(mib << 20)),
    host: 0,
  });
  vga.reset();
  return vga;
}

/** What it shows. */
export function shot(vga: Vga, blink = { cursor: false, characters: true }): Shot {
  const pixels: Uint32Array[] = [];
  const target = {
    width: 640,
    height: 480,
    pixels,
    resize(width: number, height: number) {
      target.width = width;
      target.height = height;
      pixels.length = 0;
    },
    line(y: number, line: Uint32Array) {
      pixels[y] = line.slice();
    },
  };
  drawVga(vga, target, blink);
  return target;
}

/** Register values of the BIOS's standard modes: miscellaneous output, sequencer, CRT, graphics, attribute controller (IBM's tables). */
export const modes = {
  /** 80 by 25 characters of 9 by 16. */
  text: {
    misc: 0x67,
    seq: [0x03, 0x00, 0x03, 0x00, 0x02],
    crt: [0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0, 0, 0, 0, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff],
    gfx: [0, 0, 0, 0, 0, 0x10, 0x0e, 0x0f, 0xff],
    attr: [0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0, 0x0f, 0x08, 0],
  },
  /** 640 by 480, 16 colours in four planes. */
  mode12: {
    misc: 0xe3,
    seq: [0x03, 0x01, 0x0f, 0x00, 0x06],
    crt: [0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0, 0x40, 0, 0, 0, 0, 0, 0, 0xea, 0x8c, 0xdf, 0x28, 0, 0xe7, 0x04, 0xe3, 0xff],
    gfx: [0, 0, 0, 0, 0, 0, 0x05, 0x0f, 0xff],
    attr: [0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x01, 0, 0x0f, 0, 0],
  },
  /** 320 by 200, 256 colours, chained. */
  mode13: {
    misc: 0x63,
    seq: [0x03, 0x01, 0x0f, 0x00, 0x0e],
    crt: [0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0, 0x41, 0, 0, 0, 0, 0, 0, 0x9c, 0x8e, 0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff],
    gfx: [0, 0, 0, 0, 0, 0x40, 0x05, 0x0f, 0xff],
    attr: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x41, 0, 0x0f, 0, 0],
  },
  /** 320 by 200, four colours, as CGA. */
  mode4: {
    misc: 0x63,
    seq: [0x03, 0x09, 0x03, 0x00, 0x02],
    crt: [0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0, 0xc1, 0, 0, 0, 0, 0, 0, 0x9c, 0x8e, 0x8f, 0x14, 0, 0x96, 0xb9, 0xa2, 0xff],
    gfx: [0, 0, 0, 0, 0, 0x30, 0x0f, 0x0f, 0xff],
    attr: [0, 0x13, 0x15, 0x17, 2, 4, 6, 7, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x01, 0, 0x03, 0, 0],
  },
} as const; // biome-ignore format: by the tables' lines

/** Sets a mode by its ports, with a palette of 64 colours as the BIOS sets it. */
export function setMode(vga: Vga, m: (typeof modes)[keyof typeof modes]): void {
  vga.writePort(0x3c2, m.misc);
  const indexed = (index: number, values: readonly number[]): void => {
    for (const [i, v] of values.entries()) {
      vga.writePort(index, i);
      vga.writePort(index + 1, v);
    }
  };
  indexed(0x3c4, m.seq);
  vga.writePort(0x3d4, 0x11);
  vga.writePort(0x3d5, 0);
  indexed(0x3d4, m.crt);
  indexed(0x3ce, m.gfx);
  vga.readPort(0x3da);
  for (const [i, v] of m.attr.entries()) {
    vga.writePort(0x3c0, i);
    vga.writePort(0x3c0, v);
  }
  vga.writePort(0x3c0, 0x20);
  vga.writePort(0x3c8, 0);
  for (let i = 0; i < 256; i++)
    for (const [high, low] of [
      [4, 32],
      [2, 16],
      [1, 8],
    ] as const)
      vga.writePort(0x3c9, (i & high ? 42 : 0) + (i & low ? 21 : 0));
}
