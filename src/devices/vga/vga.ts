// A VGA: ports 3B0 to 3DF, the window at A0000 to BFFFF over four planes, and Bochs's VBE registers. IBM PS/2 Hardware Interface Technical Reference (1992), "Video Subsystem"; where that leaves room, QEMU's behaviour.
//
// Video memory is one array: planar address a has its four bytes at 4 * a, plane 0 first; chain-4 and linear accesses address the bytes
// as they lie. So the linear frame buffer is plain memory, and so is the window while it is chained and no plane is masked.
import type { Arena } from '../../bits/arena.ts';
import { ones } from '../../bits/fields.ts';
import type { MemorySlots } from '../../bus/slots.ts';
import type { Handler } from '../../bus/space.ts';
import { Vbe, type VgaState, vgaLayout } from './state.ts';
import { readVbe, writeVbe } from './vbe.ts';

const srMask = [0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0x00, 0x00, 0xff] as const;
const grMask = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff, 0, 0, 0, 0, 0, 0, 0] as const;
/** Vertical retrace and display disabled, in status 1. */
const retrace = 0x09;
const CHAIN4 = 8;
const WINDOW_PAGE = 0xa0;
const WINDOW_PAGES = 32;

/** Bits 0 to 3 of a value as four bytes of ones or zeros. */
const planes = Uint32Array.from({ length: 16 }, (_, v) =>
  [0, 1, 2, 3].reduce((m, p) => (v & (1 << p) ? m | (0xff << (8 * p)) : m), 0),
);
/** A byte in all four planes. */
const spread = (byte: number): number => Math.imul(byte, 0x01010101);
const rotate = (byte: number, by: number): number => ((byte >>> by) | (byte << (8 - by))) & 0xff;

/** What the window at A0000 shows: first byte, length; nothing else is decoded. */
const windows = [
  [0, 0x20000],
  [0, 0x10000],
  [0x10000, 0x8000],
  [0x18000, 0x8000],
] as const;

/** Where ranges of addresses are mapped. */
interface Ranges {
  map(base: number, length: number, handler: Handler, name: string): void;
}

export interface VgaOptions {
  readonly arena: Arena;
  readonly name: string;
  /** The video memory: a power of two of at least 256 KiB, and where it lies (an offset in the shared memory). */
  readonly vram: Uint8Array;
  readonly host: number;
  /** Where the window is made plain memory; absent for cards without legacy ranges. */
  readonly slots?: MemorySlots;
}

export class Vga {
  readonly s: VgaState;
  readonly vram: Uint8Array;
  /** The same by planar address. */
  readonly #words: Uint32Array;
  readonly #o: VgaOptions;

  constructor(o: VgaOptions) {
    this.#o = o;
    this.s = o.arena.alloc(vgaLayout, o.name);
    this.vram = o.vram;
    this.#words = new Uint32Array(o.vram.buffer, o.vram.byteOffset, o.vram.length >>> 2);
  }

  /** Registers as after power-on; memory keeps its picture, as QEMU's does. */
  reset(): void {
    const { s } = this;
    for (const a of [s.sr, s.gr, s.ar, s.cr, s.palette, s.dacCache, s.vbe]) a.fill(0);
    s.srIndex = s.grIndex = s.arIndex = s.arData = s.crIndex = 0;
    s.misc = s.feature = s.status1 = 0;
    s.dacState = s.dacRead = s.dacWrite = s.dacPart = 0;
    s.latch = s.bank = s.vbeIndex = s.vbeLine = s.vbeStart = 0;
    s.vbe[Vbe.id] = 0xb0c5;
    this.remap();
  }

  /** Puts the window's mapping where the registers say. */
  remap(): void {
    const { slots, host } = this.#o;
    if (slots === undefined) return;
    const { s } = this;
    const [first, length] = windows[(s.gr[6]! >>> 2) & 3]!;
    const from = length === 0x10000 ? s.bank : 0;
    const plain = s.sr[4]! & CHAIN4 && s.sr[2] === 0x0f && from + length <= this.vram.length;
    const [before, pages] = [first >>> 12, length >>> 12];
    if (!plain) {
      slots.low(WINDOW_PAGE, WINDOW_PAGES, 'bus');
      return;
    }
    slots.low(WINDOW_PAGE, before, 'bus');
    slots.low(WINDOW_PAGE + before, pages, host + from);
    slots.low(WINDOW_PAGE + before + pages, WINDOW_PAGES - before - pages, 'bus');
  }

  /** Ports 3B0 to 3DF without those of other devices, and VBE's 1CE to 1D0. */
  map(ports: Ranges): void {
    for (const [base, length] of [
      [0x3b4, 2],
      [0x3ba, 1],
      [0x3c0, 16],
      [0x3d4, 2],
      [0x3da, 1],
    ] as const) {
      const handler: Handler = {
        max: 1,
        read: (offset) => this.readPort(base + offset),
        write: (offset, _, value) => this.writePort(base + offset, value),
      };
      ports.map(base, length, handler, 'vga');
    }
    this.mapVbe(ports);
  }

  /** Ports 1CE (index), 1CF and 1D0 (data). */
  mapVbe(ports: Ranges): void {
    const handler: Handler = {
      max: 2,
      read: (offset, size) => (size !== 2 ? ones(size) : offset === 0 ? this.s.vbeIndex : this.readVbe(this.s.vbeIndex)),
      write: (offset, size, value) => {
        if (size !== 2) return;
        if (offset === 0) this.s.vbeIndex = value;
        else this.writeVbe(this.s.vbeIndex, value);
      },
    };
    ports.map(0x1ce, 4, handler, 'vbe');
  }

  /** The window: bytes one after the other, as the planes' logic takes them. */
  readonly window: Handler = {
    read: (offset, size) => {
      let value = 0;
      for (let i = 0; i < size; i++) value |= this.#readByte(offset + i) << (8 * i);
      return value >>> 0;
    },
    write: (offset, size, value) => {
      for (let i = 0; i < size; i++) this.#writeByte(offset + i, (value >>> (8 * i)) & 0xff);
    },
  };

  // ── Ports ──

  /** The CRT controller and status 1 are at 3Bx or 3Dx; the other place is empty. */
  #absent(port: number): boolean {
    return this.s.misc & 1 ? port >= 0x3b0 && port <= 0x3bf : port >= 0x3d0 && port <= 0x3df;
  }

  readPort(port: number): number {
    const { s } = this;
    if (this.#absent(port)) return 0xff;
    switch (port) {
      case 0x3c0:
        return s.arData ? 0 : s.arIndex;
      case 0x3c1: {
        const index = s.arIndex & 0x1f;
        return index < 21 ? s.ar[index]! : 0;
      }
      case 0x3c4:
        return s.srIndex;
      case 0x3c5:
        return s.sr[s.srIndex]!;
      case 0x3c7:
        return s.dacState;
      case 0x3c8:
        return s.dacWrite;
      case 0x3c9: {
        const value = s.palette[s.dacRead * 3 + s.dacPart]!;
        if (++s.dacPart === 3) {
          s.dacPart = 0;
          s.dacRead++;
        }
        return value;
      }
      case 0x3ca:
        return s.feature;
      case 0x3cc:
        return s.misc;
      case 0x3ce:
        return s.grIndex;
      case 0x3cf:
        return s.gr[s.grIndex]!;
      case 0x3b4:
      case 0x3d4:
        return s.crIndex;
      case 0x3b5:
      case 0x3d5:
        return s.cr[s.crIndex]!;
      case 0x3ba:
      case 0x3da:
        // Whoever waits for a retrace, or for its end, sees it at the next look.
        s.status1 ^= retrace;
        s.arData = 0;
        return s.status1;
      default:
        return 0;
    }
  }

  writePort(port: number, value: number): void {
    const { s } = this;
    if (this.#absent(port)) return;
    switch (port) {
      case 0x3c0:
        if (s.arData) this.#attribute(s.arIndex & 0x1f, value);
        else s.arIndex = value & 0x3f;
        s.arData ^= 1;
        return;
      case 0x3c2:
        s.misc = value & ~0x10;
        return;
      case 0x3c4:
        s.srIndex = value & 7;
        return;
      case 0x3c5:
        s.sr[s.srIndex] = value & srMask[s.srIndex]!;
        this.remap();
        return;
      case 0x3c7:
        s.dacRead = value;
        s.dacPart = 0;
        s.dacState = 3;
        return;
      case 0x3c8:
        s.dacWrite = value;
        s.dacPart = 0;
        s.dacState = 0;
        return;
      case 0x3c9:
        s.dacCache[s.dacPart] = value;
        if (++s.dacPart === 3) {
          s.palette.set(s.dacCache.subarray(0, 3), s.dacWrite * 3);
          s.dacPart = 0;
          s.dacWrite++;
        }
        return;
      case 0x3ce:
        s.grIndex = value & 0x0f;
        return;
      case 0x3cf:
        s.gr[s.grIndex] = value & grMask[s.grIndex]!;
        this.remap();
        return;
      case 0x3b4:
      case 0x3d4:
        s.crIndex = value;
        return;
      case 0x3b5:
      case 0x3d5:
        this.#crt(s.crIndex, value);
        return;
      case 0x3ba:
      case 0x3da:
        s.feature = value & 0x10;
        return;
      default:
    }
  }

  #attribute(index: number, value: number): void {
    const { ar } = this.s;
    if (index < 0x10) ar[index] = value & 0x3f;
    else if (index === 0x10) ar[index] = value & ~0x10;
    else if (index === 0x11) ar[index] = value;
    else if (index === 0x12) ar[index] = value & 0x3f;
    else if (index === 0x13 || index === 0x14) ar[index] = value & 0x0f;
  }

  #crt(index: number, value: number): void {
    const { cr } = this.s;
    // CR11's bit 7 protects CR0 to CR7, but for the line compare's bit.
    if (cr[0x11]! & 0x80 && index <= 7) {
      if (index === 7) cr[7] = (cr[7]! & ~0x10) | (value & 0x10);
      return;
    }
    cr[index] = value;
  }

  readVbe(index: number): number {
    return readVbe(this.s, index, this.vram.length);
  }

  writeVbe(index: number, value: number): void {
    writeVbe(this.s, index, value, this.vram.length, (bytes) => this.vram.fill(0, 0, bytes));
    this.remap();
  }

  // ── The window ──

  /** Address within the planes or the chained memory; -1 where the window is closed. */
  #address(offset: number): number {
    const map = (this.s.gr[6]! >>> 2) & 3;
    const [first, length] = windows[map]!;
    const at = offset - first;
    if (at < 0 || at >= length) return -1;
    return map === 1 ? at + this.s.bank : at;
  }

  #readByte(offset: number): number {
    const { s, vram } = this;
    const at = this.#address(offset);
    if (at < 0) return 0xff;
    if (s.sr[4]! & CHAIN4) return vram[at] ?? 0xff;
    if (s.gr[5]! & 0x10) return vram[((at & ~1) << 1) | (s.gr[4]! & 2) | (at & 1)] ?? 0xff;
    if (at >= this.#words.length) return 0xff;
    s.latch = this.#words[at]!;
    if (!(s.gr[5]! & 8)) return (s.latch >>> (8 * s.gr[4]!)) & 0xff;
    // Read mode 1: bits where all planes that count have the colour to compare with.
    const differs = (s.latch ^ planes[s.gr[2]!]!) & planes[s.gr[7]!]!;
    return ~(differs | (differs >>> 8) | (differs >>> 16) | (differs >>> 24)) & 0xff;
  }

  #writeByte(offset: number, byte: number): void {
    const { s, vram } = this;
    const at = this.#address(offset);
    if (at < 0) return;
    const mapMask = s.sr[2]!;
    if (s.sr[4]! & CHAIN4) {
      if (mapMask & (1 << (at & 3)) && at < vram.length) vram[at] = byte;
      return;
    }
    if (s.gr[5]! & 0x10) {
      const plane = (s.gr[4]! & 2) | (at & 1);
      const to = ((at & ~1) << 1) | plane;
      if (mapMask & (1 << plane) && to < vram.length) vram[to] = byte;
      return;
    }
    if (at >= this.#words.length) return;
    const mask = planes[mapMask]!;
    this.#words[at] = (this.#words[at]! & ~mask) | (this.#combined(byte) & mask);
  }

  /** What write mode, rotation, set/reset, function and bit mask make of a byte and the latches. */
  #combined(byte: number): number {
    const { s } = this;
    const { gr, latch } = s;
    let bits = gr[8]!;
    let value: number;
    switch (gr[5]! & 3) {
      case 0: {
        const set = planes[gr[1]!]!;
        value = (spread(rotate(byte, gr[3]! & 7)) & ~set) | (planes[gr[0]!]! & set);
        break;
      }
      case 1:
        return latch;
      case 2:
        value = planes[byte & 15]!;
        break;
      default:
        bits &= rotate(byte, gr[3]! & 7);
        value = planes[gr[0]!]!;
    }
    const how = gr[3]! >>> 3;
    if (how === 1) value &= latch;
    else if (how === 2) value |= latch;
    else if (how === 3) value ^= latch;
    const mask = spread(bits);
    return (value & mask) | (latch & ~mask);
  }
}
