// The EEPROM of the e1000: its words, and the wires to it, which drivers move bit by bit. Intel 8254x Software Developer's Manual,
// chapter 5; Microchip 93C46 data sheet.

import { struct, type ViewOf } from '../../bits/struct.ts';

const WORDS = 64;
/** All words add up to this (section 5.6.35). */
const SUM = 0xbaba;
/** EECD's bits (section 13.4.3). */
export const eecd = { clock: 1, select: 2, dataIn: 4, dataOut: 8, request: 0x40, grant: 0x80, present: 0x100 } as const;
/** Start bit, two of the operation, six of the address. */
const COMMAND_BITS = 9;
const READ = 0b110;

export const eepromLayout = struct({ wires: 'u32', bits: 'u32', command: 'u32', out: 'u32' });

/** The words for a card with this address. */
export function eepromWords(mac: readonly number[], vendor: number, device: number, subsystem: number): Uint16Array {
  const w = new Uint16Array(WORDS);
  for (let n = 0; n < 3; n++) w[n] = mac[2 * n]! | (mac[2 * n + 1]! << 8);
  // Initialization control word 1: the signature of a valid EEPROM, IDs are to be loaded.
  w[0x0a] = 0x4003;
  w[0x0b] = subsystem;
  w[0x0c] = 0x1af4;
  w[0x0d] = device;
  w[0x0e] = vendor;
  // Initialization control word 2: symmetric flow control.
  w[0x0f] = 0x3000;
  const sum = w.reduce((a, b) => a + b, 0);
  w[WORDS - 1] = SUM - sum;
  return w;
}

/** The chip behind EECD. */
export class Eeprom {
  readonly #s: ViewOf<typeof eepromLayout>;
  readonly #words: Uint16Array;

  constructor(s: ViewOf<typeof eepromLayout>, words: Uint16Array) {
    this.#s = s;
    this.#words = words;
  }
  reset(): void {
    Object.assign(this.#s, { wires: 0, bits: 0, command: 0, out: 0 });
  }
  word(address: number): number {
    return this.#words[address % WORDS]!;
  }
  read(): number {
    const { wires, out } = this.#s;
    return wires | eecd.present | (wires & eecd.request ? eecd.grant : 0) | (out ? eecd.dataOut : 0);
  }
  write(value: number): void {
    const s = this.#s;
    const before = s.wires;
    s.wires = value & (eecd.clock | eecd.select | eecd.dataIn | eecd.request);
    if (!(s.wires & eecd.select)) {
      s.bits = s.command = s.out = 0;
      return;
    }
    if (!(s.wires & eecd.clock) || before & eecd.clock) return;
    if (s.bits < COMMAND_BITS) {
      const bit = s.wires & eecd.dataIn ? 1 : 0;
      // Nothing begins before the start bit.
      if (s.bits === 0 && bit === 0) return;
      s.command = (s.command << 1) | bit;
      s.bits++;
      s.out = 0;
      return;
    }
    if (s.command >>> 6 !== READ) return;
    // One word after another, the highest bit first.
    const n = s.bits - COMMAND_BITS;
    s.out = (this.word((s.command & 63) + Math.floor(n / 16)) >>> (15 - (n % 16))) & 1;
    s.bits = COMMAND_BITS + ((n + 1) % (16 * WORDS));
  }
}
