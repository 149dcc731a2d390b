// Bochs's VBE extension of a VGA: mode, bank and virtual screen by index and data registers ("VBE DISPI", vbe_display_api.txt), with the limits that QEMU puts on them.
import { VBE_MAX, VBE_REGISTERS, Vbe, VbeEnable, type VgaState, vbeOn } from './state.ts';

const ID_LAST = 0xb0c5;
const ID_FIRST = 0xb0c0;

/** Register `index` as the guest reads it. */
export function readVbe(s: VgaState, index: number, vramBytes: number): number {
  if (index >= VBE_REGISTERS) return 0;
  if (index === Vbe.memory64k) return vramBytes >>> 16;
  if (s.vbe[Vbe.enable]! & VbeEnable.getCaps) {
    if (index === Vbe.xres) return VBE_MAX.xres;
    if (index === Vbe.yres) return VBE_MAX.yres;
    if (index === Vbe.bpp) return VBE_MAX.bpp;
  }
  return s.vbe[index]!;
}

/** A write of the guest to register `index`; `clear` zeroes bytes of video memory from its start. */
export function writeVbe(s: VgaState, index: number, value: number, vramBytes: number, clear: (bytes: number) => void): void {
  const r = s.vbe;
  switch (index) {
    case Vbe.id:
      if (value >= ID_FIRST && value <= ID_LAST) r[index] = value;
      return;
    case Vbe.xres:
    case Vbe.yres:
    case Vbe.bpp:
    case Vbe.virtWidth:
    case Vbe.xOffset:
    case Vbe.yOffset:
      r[index] = value;
      fit(s, vramBytes);
      forceVga(s);
      return;
    case Vbe.bank: {
      const mask = Math.max(1, vramBytes >>> 16) - 1;
      r[index] = value & mask;
      s.bank = r[index]! * 0x10000;
      return;
    }
    case Vbe.enable: {
      const turnsOn = (value & VbeEnable.on) !== 0 && !vbeOn(s);
      if (turnsOn) {
        r[Vbe.virtWidth] = 0;
        r[Vbe.xOffset] = 0;
        r[Vbe.yOffset] = 0;
        r[index] = r[index]! | VbeEnable.on;
        fit(s, vramBytes);
        forceVga(s);
        if (!(value & VbeEnable.keep)) clear(Math.min(vramBytes, r[Vbe.yres]! * s.vbeLine));
      } else if (!(value & VbeEnable.on)) s.bank = 0;
      r[index] = value;
      return;
    }
    default:
  }
}

/** Bits of a pixel in memory; 0 for depths that there are not. */
const bitsOf = (bpp: number): number =>
  bpp === 15 ? 16 : bpp === 4 || bpp === 8 || bpp === 16 || bpp === 24 || bpp === 32 ? bpp : 0;

/** Makes what the guest asked for fit into the video memory. */
function fit(s: VgaState, vramBytes: number): void {
  const r = s.vbe;
  if (!vbeOn(s)) return;
  const bits = bitsOf(r[Vbe.bpp]!) || 8;
  if (bitsOf(r[Vbe.bpp]!) === 0) r[Vbe.bpp] = 8;
  // With 4 bits a byte of each of four planes makes 8 pixels, and planes lie side by side in memory.
  const bytes = (pixels: number): number => Math.floor((pixels * bits) / 8);
  r[Vbe.xres] = Math.max(8, Math.min(VBE_MAX.xres, r[Vbe.xres]! & ~7));
  r[Vbe.virtWidth] = Math.max(r[Vbe.xres]!, Math.min(VBE_MAX.xres, r[Vbe.virtWidth]! & ~7));
  let line = bytes(r[Vbe.virtWidth]!);
  if (line > vramBytes) {
    r[Vbe.xres] = 8;
    r[Vbe.virtWidth] = 8;
    line = bytes(8);
  }
  const lines = Math.floor(vramBytes / line);
  r[Vbe.yres] = Math.max(1, Math.min(VBE_MAX.yres, lines, r[Vbe.yres]!));
  r[Vbe.virtHeight] = Math.min(0xffff, lines);
  // A part of a screen that would lie behind the end of the memory moves the screen back.
  if (r[Vbe.xOffset]! + r[Vbe.xres]! > r[Vbe.virtWidth]!) r[Vbe.xOffset] = r[Vbe.virtWidth]! - r[Vbe.xres]!;
  if (r[Vbe.yOffset]! + r[Vbe.yres]! > lines) r[Vbe.yOffset] = lines - r[Vbe.yres]!;
  s.vbeLine = line;
  s.vbeStart = Math.min(vramBytes - 1, r[Vbe.yOffset]! * line + bytes(r[Vbe.xOffset]!));
}

/** Puts the VGA's own registers into the state that belongs to the VBE mode: a window of 64 KiB at A0000, no tricks of addressing. */
function forceVga(s: VgaState): void {
  if (!vbeOn(s)) return;
  const { gr, sr, cr, vbe } = s;
  gr[6] = (gr[6]! & ~0x0c) | 5;
  cr[0x17] = cr[0x17]! | 3;
  cr[0x13] = s.vbeLine >>> 3;
  cr[0x01] = (vbe[Vbe.xres]! >>> 3) - 1;
  const last = vbe[Vbe.yres]! - 1;
  cr[0x12] = last;
  cr[0x07] = (cr[0x07]! & ~0x42) | ((last >>> 7) & 2) | ((last >>> 3) & 0x40) | 0x10;
  cr[0x18] = 0xff;
  cr[0x09] = (cr[0x09]! & ~0x9f) | 0x40;
  const planar = vbe[Vbe.bpp] === 4;
  if (planar) {
    sr[1] = sr[1]! & ~8;
    gr[5] = gr[5]! & ~0x60;
  } else {
    sr[2] = sr[2]! | 0x0f;
    gr[5] = (gr[5]! & ~0x60) | 0x40;
  }
  sr[4] = planar ? sr[4]! & ~8 : sr[4]! | 8;
}
