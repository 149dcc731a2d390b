// What a VGA shows: text, planar, CGA-like and 256-colour modes and those of VBE, line by line as pixels. IBM PS/2 Hardware Interface Technical Reference (1992), "Video Subsystem"; sizes as QEMU shows them.
import type { PixelTarget } from '../../bits/pixels.ts';
import { dac8, Vbe, type VgaState, vbeOn } from './state.ts';
import type { Vga } from './vga.ts';

/** Palette index bits for a character code between B0 and DF: its ninth column repeats the eighth. */
const isLine = (code: number): boolean => code >= 0xb0 && code <= 0xdf;
interface Picture {
  readonly width: number;
  readonly height: number;
  /** Draws line `y` into `out`, which has `width` pixels. */
  line(y: number, out: Uint32Array): void;
}

/** Lines of a cursor or of blinking characters are visible in half of the time. */
export interface Blink {
  /** Of 0 and 1, as the cursor has it (every 16 frames on the original) and as characters have it (every 32). */
  readonly cursor: boolean;
  readonly characters: boolean;
}

/** Draws what `vga` shows now into `target`, which is given the picture's size first. */
export function drawVga(vga: Vga, target: PixelTarget, blink: Blink): void {
  const picture = pictureOf(vga, blink, target);
  target.resize(picture.width, picture.height);
  const out = new Uint32Array(picture.width);
  for (let y = 0; y < picture.height; y++) {
    picture.line(y, out);
    target.line(y, out);
  }
}

/** Draws a linear frame of 32 bits for each pixel: displays without VGA registers. */
export function drawLinear(
  vram: Uint8Array,
  frame: { width: number; height: number; start: number; line: number; bpp: number },
  target: PixelTarget,
): void {
  const { width, height } = frame;
  target.resize(width, height);
  const draw = linear(vram, frame.bpp, new Uint32Array(256));
  const out = new Uint32Array(width);
  for (let y = 0; y < height; y++) {
    draw(frame.start + y * frame.line, out);
    target.line(y, out);
  }
}

function pictureOf(vga: Vga, blink: Blink, before: { width: number; height: number }): Picture {
  const { s } = vga;
  // With the screen off the size stays.
  if (!(s.arIndex & 0x20)) return { width: before.width, height: before.height, line: (_, out) => void out.fill(0) };
  if (!(s.gr[6]! & 1)) return text(vga, blink);
  return graphics(vga);
}

/** The DAC's entries as pixels; six bits become eight by repeating the lowest, as QEMU has it. */
function colours(s: VgaState): Uint32Array {
  const wide = dac8(s);
  const part = (v: number): number => (wide ? v : ((v & 0x3f) << 2) | ((v & 1) * 3));
  const out = new Uint32Array(256);
  for (let i = 0; i < 256; i++)
    out[i] = (part(s.palette[3 * i]!) << 16) | (part(s.palette[3 * i + 1]!) << 8) | part(s.palette[3 * i + 2]!);
  return out;
}

/** The 16 colours that go through the attribute controller. */
function sixteen(s: VgaState): Uint32Array {
  const all = colours(s);
  return Uint32Array.from({ length: 16 }, (_, i) => {
    const v = s.ar[i]!;
    return all[s.ar[0x10]! & 0x80 ? ((s.ar[0x14]! & 0x0f) << 4) | (v & 0x0f) : ((s.ar[0x14]! & 0x0c) << 4) | (v & 0x3f)]!;
  });
}

const lastLine = (s: VgaState): number => s.cr[0x12]! | ((s.cr[7]! & 2) << 7) | ((s.cr[7]! & 0x40) << 3);
const lineCompare = (s: VgaState): number => s.cr[0x18]! | ((s.cr[7]! & 0x10) << 4) | ((s.cr[9]! & 0x40) << 3);
const startAddress = (s: VgaState): number => (s.cr[0x0d]! | (s.cr[0x0c]! << 8)) * 4;
const lineBytes = (s: VgaState): number => s.cr[0x13]! << 3;

// ── Text ──

/** Where the font lies that bits 5, 3, 2 (or 4, 1, 0) of the character map register choose: plane 2 of its 8 KiB of addresses. */
const fontAt = (high: number, low: number): number => ((((high & 1) | ((low << 1) & 6)) * 8192) << 2) + 2;

function text(vga: Vga, blink: Blink): Picture {
  const { s, vram } = vga;
  const { cr, sr, ar } = s;
  const charHeight = (cr[9]! & 0x1f) + 1;
  const wide = sr[1]! & 8 ? 2 : 1;
  const charWidth = wide === 2 ? 16 : sr[1]! & 1 ? 8 : 9;
  const columns = cr[1]! + 1;
  // A frame of 100 lines of characters is the one mode whose lines are scanned twice without the registers saying so.
  const rows = cr[6] === 100 ? 100 : Math.max(1, Math.floor((lastLine(s) + 1) / charHeight));
  const palette = sixteen(s);
  const fonts = [fontAt(sr[3]! >>> 4, sr[3]!), fontAt(sr[3]! >>> 5, sr[3]! >>> 2)] as const;
  const blinks = (ar[0x10]! & 8) !== 0;
  const start = startAddress(s);
  const pitch = lineBytes(s);
  const split = Math.floor((lineCompare(s) + 1) / charHeight);
  const cursor = (cr[0x0e]! << 8) | cr[0x0f]!;
  const [cursorFirst, cursorLast] = [cr[0x0a]! & 0x1f, cr[0x0b]! & 0x1f];
  const cursorOn = !(cr[0x0a]! & 0x20) && blink.cursor;
  const size = vram.length;
  return {
    width: columns * charWidth,
    height: rows * charHeight,
    line(y, out) {
      const row = Math.floor(y / charHeight);
      const scan = y % charHeight;
      const at = row >= split ? (row - split) * pitch : start + row * pitch;
      let x = 0;
      for (let column = 0; column < columns; column++) {
        const cell = (at + column * 4) % size;
        const code = vram[cell]!;
        const attribute = vram[cell + 1]!;
        // Bit 3 of the attribute chooses the second font where there are two.
        const font = fonts[attribute & 8 ? 1 : 0]!;
        let bits = vram[(font + (code * 32 + scan) * 4) % size]!;
        const back = palette[blinks ? (attribute >>> 4) & 7 : attribute >>> 4]!;
        let fore = palette[attribute & 15]!;
        if (blinks && attribute & 0x80 && !blink.characters) fore = back;
        if (cursorOn && cell >>> 2 === cursor && scan >= cursorFirst && scan <= cursorLast) bits = 0x1ff;
        for (let i = 7; i >= 0; i--) {
          const pixel = bits & (1 << i) ? fore : back;
          out[x++] = pixel;
          if (wide === 2) out[x++] = pixel;
        }
        if (charWidth === 9) {
          const ninth = bits > 0xff || (bits & 1 && isLine(code) && ar[0x10]! & 4);
          out[x++] = ninth ? fore : back;
        }
      }
    },
  };
}

// ── Graphics ──

type LineDrawer = (at: number, out: Uint32Array) => void;

function graphics(vga: Vga): Picture {
  const { s, vram } = vga;
  const on = vbeOn(s);
  const width = on ? s.vbe[Vbe.xres]! : (s.cr[1]! + 1) * 8;
  const height = on ? s.vbe[Vbe.yres]! : lastLine(s) + 1;
  const start = on ? s.vbeStart : startAddress(s);
  const pitch = on ? s.vbeLine : lineBytes(s);
  const shift = (s.gr[5]! >>> 5) & 3;
  const doubled = s.cr[9]! & 0x80 ? 2 : 1;
  // Each line of memory is scanned so many times; CGA-like modes count their lines by the character's height instead.
  const scans = on ? 1 : !(s.cr[0x17]! & 1) ? doubled : ((s.cr[9]! & 0x1f) + 1) * doubled;
  const halved = shift < 2 && (s.sr[1]! & 8) !== 0;
  const draw = drawer(vga, shift, on ? s.vbe[Vbe.bpp]! : 0, halved);
  const split = lineCompare(s);
  // Two bits of the scan line take the place of address bits 13 and 14 where the CRT controller's mode register says so.
  const wrap = s.cr[0x17]! & 3;
  const swapped = 14 + ((s.cr[0x17]! >>> 6) & 1);
  return {
    width: halved ? width * 2 : width,
    height,
    line(y, out) {
      const from = y > split ? y - split - 1 : y;
      const scan = Math.floor(from / scans);
      let at = (y > split ? 0 : start) + linesBefore(scan, wrap) * pitch;
      if (!(wrap & 1)) at = (at & ~(1 << swapped)) | ((scan & 1) << swapped);
      if (!(wrap & 2)) at = (at & ~0x8000) | ((scan & 2) << 14);
      draw(at % vram.length, out);
    },
  };
}

/** Lines of memory before scan line `scan`, where bits of it that `wrap` lacks are address bits instead. */
function linesBefore(scan: number, wrap: number): number {
  switch (wrap) {
    case 3:
      return scan;
    case 2:
      return scan >>> 1;
    case 1:
      return (scan >>> 2) * 2 + Math.max(0, (scan & 3) - 2);
    default:
      return scan >>> 2;
  }
}

function drawer(vga: Vga, shift: number, bpp: number, halved: boolean): LineDrawer {
  const { s, vram } = vga;
  const plane = s.ar[0x12]! & 15;
  if (shift === 0) return planar(vram, sixteen(s), plane, halved);
  if (shift === 1) return cga(vram, sixteen(s), plane, halved);
  if (bpp === 0) {
    // Mode 13h and its kin: each byte is two pixels wide.
    const all = colours(s);
    return (at, out) => {
      for (let x = 0; x < out.length; x += 2) out[x] = out[x + 1] = all[vram[(at + (x >>> 1)) % vram.length]!]!;
    };
  }
  return linear(vram, bpp, colours(s));
}

/** Four planes, a bit of each for a pixel. */
function planar(vram: Uint8Array, palette: Uint32Array, mask: number, halved: boolean): LineDrawer {
  return (at, out) => {
    for (let x = 0; x < out.length; at += 4) {
      const a = at % vram.length;
      const [p0, p1, p2, p3] = [vram[a]!, vram[a + 1]!, vram[a + 2]!, vram[a + 3]!];
      for (let i = 7; i >= 0; i--) {
        const index = ((p0 >>> i) & 1) | (((p1 >>> i) & 1) << 1) | (((p2 >>> i) & 1) << 2) | (((p3 >>> i) & 1) << 3);
        const pixel = palette[index & mask]!;
        out[x++] = pixel;
        if (halved) out[x++] = pixel;
      }
    }
  };
}

/** Two bits for a pixel: four pixels of planes 0 and 2, then four of planes 1 and 3. */
function cga(vram: Uint8Array, palette: Uint32Array, mask: number, halved: boolean): LineDrawer {
  return (at, out) => {
    for (let x = 0; x < out.length; at += 4) {
      for (let half = 0; half < 2; half++) {
        const a = (at + half) % vram.length;
        const [low, high] = [vram[a]!, vram[(a + 2) % vram.length]!];
        for (let i = 6; i >= 0; i -= 2) {
          const pixel = palette[(((low >>> i) & 3) | (((high >>> i) & 3) << 2)) & mask]!;
          out[x++] = pixel;
          if (halved) out[x++] = pixel;
        }
      }
    }
  };
}

/** Colours by 16-bit pixel. */
function table(colour: (v: number) => number): Uint32Array {
  const out = new Uint32Array(0x10000);
  for (let v = 0; v < out.length; v++) out[v] = colour(v);
  return out;
}

/** Pixels one after the other. Lines that reach over the end of the memory go on at its start. */
function linear(vram: Uint8Array, bpp: number, palette: Uint32Array): LineDrawer {
  const size = vram.length;
  const words = new Uint32Array(vram.buffer, vram.byteOffset, size >>> 2);
  const byte = (at: number): number => vram[at % size]!;
  // With five bits for each colour the lowest three stay clear, as in QEMU.
  const five = (v: number): number => ((v & 31) << 3) | (bpp === 16 ? (v & 31) >>> 2 : 0);
  switch (bpp) {
    case 32:
      return (at, out) => {
        if (at % 4 === 0 && at + out.length * 4 <= size) {
          const first = at >>> 2;
          for (let x = 0; x < out.length; x++) out[x] = words[first + x]! & 0xffffff;
        } else for (let x = 0; x < out.length; x++, at += 4) out[x] = byte(at) | (byte(at + 1) << 8) | (byte(at + 2) << 16);
      };
    case 24:
      return (at, out) => {
        for (let x = 0; x < out.length; x++, at += 3) out[x] = byte(at) | (byte(at + 1) << 8) | (byte(at + 2) << 16);
      };
    case 16:
    case 15: {
      const colours = table((v) => {
        const green = bpp === 16 ? (((v >>> 5) & 63) << 2) | ((v >>> 9) & 3) : five(v >>> 5);
        return (five(v >>> (bpp === 16 ? 11 : 10)) << 16) | (green << 8) | five(v);
      });
      const halves = new Uint16Array(vram.buffer, vram.byteOffset, size >>> 1);
      return (at, out) => {
        if (at % 2 === 0 && at + out.length * 2 <= size) {
          const first = at >>> 1;
          for (let x = 0; x < out.length; x++) out[x] = colours[halves[first + x]!]!;
        } else for (let x = 0; x < out.length; x++, at += 2) out[x] = colours[byte(at) | (byte(at + 1) << 8)]!;
      };
    }
    default:
      return (at, out) => {
        if (at + out.length <= size) for (let x = 0; x < out.length; x++) out[x] = palette[vram[at + x]!]!;
        else for (let x = 0; x < out.length; x++) out[x] = palette[byte(at + x)]!;
      };
  }
}
