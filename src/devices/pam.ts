// Programmable attribute map: whether the pages from 0xC0000 to 0xFFFFF are RAM, RAM that cannot be written, or what is on the bus: ROM.
// Intel 440FX datasheet (290549), section 3.2.18; Intel 3 Series Express Chipset datasheet (316966), section 5.1.18.
import type { MemorySlots } from '../bus/slots.ts';

/** First register: 0x59 on i440FX, 0x90 on Q35. */
export const pamRegister = { i440fx: 0x59, q35: 0x90 } as const;
export const PAM_COUNT = 7;
/** Bits of the seven registers that can be written. */
export const pamWritable: readonly number[] = [0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33];
const readRam = 1;
const writeRam = 2;
const PAGE = 4096;

/** The areas that registers describe: register, shift of its field, first page and pages. */
export const pamAreas: readonly (readonly [register: number, shift: number, page: number, pages: number])[] = [
  [0, 4, 0xf0, 16],
  ...Array.from({ length: 12 }, (_, i) => [1 + (i >> 1), (i & 1) * 4, 0xc0 + 4 * i, 4] as const),
];

/** An image of ROM that also shows below 1 MiB: its last 128 KiB, or all of it. */
export interface LowRom {
  /** Host address and bytes, a multiple of 4,096. */
  readonly host: number;
  readonly length: number;
}

/**
 * Makes memory what the registers say. An area that is written to RAM but read from the bus is the bus alone, as on QEMU: nothing that
 * is known copies itself like that. With the board's lock held.
 */
export function applyPam(slots: MemorySlots, register: (n: number) => number, rom: LowRom | undefined): void {
  for (const [index, shift, page, pages] of pamAreas) {
    const attributes = (register(index) >>> shift) & 3;
    if (attributes & readRam) slots.low(page, pages, 'ram', (attributes & writeRam) === 0);
    else {
      const above = (0x100 - page) * PAGE;
      if (rom !== undefined && above <= Math.min(rom.length, 0x2_0000))
        slots.low(page, pages, rom.host + rom.length - above, true);
      else slots.low(page, pages, 'bus');
    }
  }
}
