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

/** The words for a card with this address: those of the 82540EM, or `more` by their places. */
export function eepromWords(mac: readonly number[], vendor: number, device: number, subsystem: number): Uint16Array {
  return summed(mac, {
    // Initialization control word 1: the signature of a valid EEPROM, IDs are to be loaded.
    10: 0x4003,
    11: subsystem,
    12: 0x1af4,
    13: device,
    14: vendor,
    // Initialization control word 2: symmetric flow control.
    15: 0x3000,
  });
}
/** The words of an 82574's NVM (82574 Data Sheet, chapter 6). */
export const nvmWords = (mac: readonly number[], vendor: number, device: number, subsystem: readonly [number, number]) =>
  summed(mac, {
    // Compatibility: a network card, not on a mainboard.
    3: 0x0420,
    // Initialization control word 1: IDs are to be loaded.
    10: 0x026b,
    11: subsystem[1],
    12: subsystem[0],
    13: device,
    14: vendor,
    // Initialization control word 2: power management, the signature of a valid NVM.
    15: 0x8058,
  });

/** Words with an address in front and a checksum at the end. */
function summed(mac: readonly number[], words: Readonly<Record<number, number>>): Uint16Array {
  const w = new Uint16Array(WORDS);
  for (const [at, value] of Object.entries(words)) w[Number(at)] = value;
  for (let n = 0; n < 3; n++) w[n] = mac[2 * n]! | (mac[2 * n + 1]! << 8);
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
