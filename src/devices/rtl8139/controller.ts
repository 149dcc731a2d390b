// A Realtek RTL8139C+ Ethernet controller as processors see it: registers, EEPROM, interrupts. Frames are carried by the I/O thread, see
// io.ts. Realtek RTL8139C+ data sheet, chapters 5 and 9.

import type { Arena } from '../../bits/arena.ts';
import { struct, type ViewOf } from '../../bits/struct.ts';
import type { Clock } from '../../bus/clock.ts';
import type { Report } from '../../bus/events.ts';
import { type Register, registers, ro, rw, wo } from '../../bus/registers.ts';
import type { Handler } from '../../bus/space.ts';
import { Eeprom, eecd, eepromLayout } from '../e1000/eeprom.ts';

export const RTL8139_BAR = 256;
export const RTL8139 = { vendor: 0x10ec, device: 0x8139, revision: 0x20 } as const;

/** Causes of interrupts (section 5.8). */
export const cause = { rxOk: 1, rxError: 2, txOk: 4, txError: 8, rxOverflow: 0x10, link: 0x20, rxFifo: 0x40, txNone: 0x80, software: 0x100 } as const; // biome-ignore format: one line
export const command = { empty: 1, transmit: 4, receive: 8, reset: 0x10 } as const;
/** Receive configuration (section 5.12): what is accepted, and the ring's form. */
export const rcr = { all: 1, unicast: 2, multicast: 4, broadcast: 8, noWrap: 0x80 } as const;
/** C+ command register (section 9.2). */
export const cplus = { transmit: 1, receive: 2, checksum: 0x20, vlan: 0x40 } as const;
/** Status of a transmit descriptor (section 5.3). */
export const tsd = { own: 1 << 13, ok: 1 << 15, size: 0x1fff } as const;
const CAUSES = 0xe1ff;
const VERSION = 0x7480_0000;
const NOT_LINKED = 4;
const HERTZ_PER_NS = 33 / 1000;

export const rtl8139Layout = struct(
  {
    id: ['u8', 8],
    multicast: ['u8', 8],
    /** Of mode C: status and address of four descriptors. In mode C+ the addresses are those of two rings. */
    txStatus: ['u32', 4],
    txAddress: ['u32', 4],
    rxBuffer: 'u32',
    command: 'u8',
    capr: 'u16',
    cbr: 'u16',
    imr: 'u16',
    isr: 'u16',
    tcr: 'u32',
    rcr: 'u32',
    missed: 'u32',
    /** ns when the timer was at 0, and what it is compared with. */
    timerBase: 'f64',
    timerInt: 'u32',
    mode9346: 'u8',
    config: ['u8', 6],
    media: 'u8',
    multiInt: 'u16',
    bmcr: 'u16',
    advertise: 'u16',
    cscr: 'u16',
    cplus: 'u16',
    rxRing: ['u32', 2],
    /** The next transmit descriptor of mode C; the places in the rings of C+. */
    txNext: 'u8',
    txAt: 'u32',
    txPriorityAt: 'u32',
    rxAt: 'u32',
    polls: 'u8',
    cable: 'u32',
    /** Counted up at each reset. */
    epoch: 'u32',
    eeprom: eepromLayout,
  },
  { name: 'rtl8139', version: 1 },
);
export type Rtl8139State = ViewOf<typeof rtl8139Layout>;

export interface Rtl8139Options {
  readonly arena: Arena;
  readonly name: string;
  readonly mac: readonly number[];
  readonly clock: Clock;
  /** Wakes the I/O thread. */
  readonly ring: () => void;
  readonly wire: (level: 0 | 1) => void;
  readonly report?: Report;
}

/** Bits of CONFIG0 to CONFIG5 that can be written while the EEPROM mode allows it, and where they are. */
const configs: readonly (readonly [at: number, writable: number, initial: number])[] = [
  [0x51, 0, 0], [0x52, 0xf3, 0x0c], [0x59, 0x70, 0x01], [0x5a, 0xf5, 0], [0xd8, 0x7f, 0],
]; // biome-ignore format: one table
const UNLOCKED = 0xc0;

const bytes = (at: number, name: 'id' | 'multicast'): Register<Rtl8139>[] =>
  Array.from({ length: 8 }, (_, n) => rw<Rtl8139>(at + n, 1, `${name}${n}`, (d) => d.s[name][n]!, (d, v) => { d.s[name][n] = v; })); // biome-ignore format: one line

const map = registers<Rtl8139>('rtl8139', RTL8139_BAR, [
  ...bytes(0x00, 'id'),
  ...bytes(0x08, 'multicast'),
  ...[0, 1, 2, 3].flatMap((n): Register<Rtl8139>[] => [
    rw(0x10 + 4 * n, 4, `TSD${n}`, (d) => d.s.txStatus[n]!, (d, v) => d.transmit(n, v)),
    rw(0x20 + 4 * n, 4, `TSAD${n}`, (d) => d.s.txAddress[n]!, (d, v) => d.setAddress(n, v)),
  ]),
  rw(0x30, 4, 'RBSTART', (d) => d.s.rxBuffer, (d, v) => { d.s.rxBuffer = v; d.s.cbr = 0; }),
  rw(0x37, 1, 'CR', (d) => d.command, (d, v) => d.setCommand(v)),
  rw(0x38, 2, 'CAPR', (d) => (d.s.capr - 16) & 0xffff, (d, v) => d.setRead(v)),
  ro(0x3a, 2, 'CBR', (d) => d.s.cbr),
  rw(0x3c, 2, 'IMR', (d) => d.s.imr, (d, v) => d.setMask(v)),
  rw(0x3e, 2, 'ISR', (d) => d.s.isr, (d, v) => d.clear(v), 'zero'),
  rw(0x40, 4, 'TCR', (d) => d.s.tcr, (d, v) => { d.s.tcr = VERSION | (v & 0x030f_07f0); }),
  rw(0x44, 4, 'RCR', (d) => d.s.rcr, (d, v) => d.setReceive(v)),
  rw(0x48, 4, 'TCTR', (d) => d.timer, (d) => d.restartTimer(), 'zero'),
  rw(0x4c, 4, 'MPC', (d) => d.s.missed, (d) => { d.s.missed = 0; }, 'zero'),
  rw(0x50, 1, '9346CR', (d) => d.eepromWires, (d, v) => { d.eepromWires = v; }),
  ...configs.map(([at, writable], n) => rw<Rtl8139>(at, 1, `CONFIG${n}`, (d) => d.s.config[n]!, (d, v) => d.configure(n, writable, v))),
  rw(0x54, 4, 'TIMERINT', (d) => d.s.timerInt, (d, v) => { d.s.timerInt = v; }),
  rw(0x58, 1, 'MSR', (d) => d.media, (d, v) => { d.s.media = v & 0xc0; }),
  ro(0x5b, 1, 'HLTCLK', () => 1),
  rw(0x5c, 2, 'MULINT', (d) => d.s.multiInt, (d, v) => { d.s.multiInt = v & 0xfff; }),
  ro(0x5e, 1, 'RERID', () => 0x20),
  ro(0x60, 2, 'TSAD', (d) => d.summary),
  rw(0x62, 2, 'BMCR', (d) => d.s.bmcr, (d, v) => { d.s.bmcr = v & 0x1300 & ~0x100; }),
  ro(0x64, 2, 'BMSR', (d) => (d.s.cable ? 0x782d : 0x7809)),
  rw(0x66, 2, 'ANAR', (d) => d.s.advertise, (d, v) => { d.s.advertise = v; }),
  ro(0x68, 2, 'ANLPAR', () => 0x05e1),
  ro(0x6a, 2, 'ANER', () => 1),
  rw(0x74, 2, 'CSCR', (d) => d.s.cscr, (d, v) => { d.s.cscr = v; }),
  wo(0xd9, 1, 'TPPOLL', (d, v) => d.poll(v)),
  rw(0xe0, 2, 'CPCR', (d) => d.s.cplus, (d, v) => { d.s.cplus = v & 0x7b; }),
  rw(0xe2, 2, 'INTRMITIGATE', () => 0, () => {}),
  rw(0xe4, 4, 'RDSARL', (d) => d.s.rxRing[0]!, (d, v) => { d.s.rxRing[0] = v & ~0xff; d.s.rxAt = 0; }),
  rw(0xe8, 4, 'RDSARH', (d) => d.s.rxRing[1]!, (d, v) => { d.s.rxRing[1] = v; }),
  rw(0xec, 1, 'ETTHR', () => 0, () => {}),
]); // biome-ignore format: one line each

export class Rtl8139 {
  readonly s: Rtl8139State;
  readonly handler: Handler;
  readonly #o: Rtl8139Options;
  readonly #eeprom: Eeprom;

  constructor(o: Rtl8139Options) {
    this.#o = o;
    this.s = o.arena.alloc(rtl8139Layout, o.name);
    this.#eeprom = new Eeprom(this.s.eeprom, words(o.mac));
    this.handler = map.bind(this, o.report);
  }

  /** Power-on state; the cable stays as it is. With the board's lock held, as all here. */
  reset(): void {
    this.#eeprom.reset();
    this.s.mode9346 = 0;
    this.s.timerBase = this.#o.clock.now();
    this.#resetChip();
    this.s.id.set(this.#o.mac.slice(0, 6));
  }
  /** What the reset bit of the command register does. */
  #resetChip(): void {
    const { s } = this;
    Object.assign(s, { rxBuffer: 0, command: 0, capr: 0, cbr: 0, imr: 0, isr: 0, tcr: VERSION, rcr: 0, missed: 0, timerInt: 0 });
    Object.assign(s, { media: 0xd0 & 0xc0, multiInt: 0, bmcr: 0x1000, advertise: 0x05e1, cscr: 0x0340, cplus: 0 });
    Object.assign(s, { txNext: 0, txAt: 0, txPriorityAt: 0, rxAt: 0, polls: 0 });
    s.txStatus.fill(tsd.own);
    s.txAddress.fill(0);
    s.rxRing.fill(0);
    s.multicast.fill(0);
    for (const [n, [, , initial]] of configs.entries()) s.config[n] = initial;
    s.epoch++;
    this.#drive();
  }
  connect(): void {
    this.s.cable = 1;
  }
  setCable(up: boolean): void {
    this.s.cable = up ? 1 : 0;
    this.raise(cause.link);
  }

  // -- interrupts

  raise(causes: number): void {
    this.s.isr |= causes;
    this.#drive();
  }
  clear(ones: number): void {
    this.s.isr &= ~ones;
    this.#drive();
    this.#o.ring();
  }
  setMask(mask: number): void {
    this.s.imr = mask & CAUSES;
    this.#drive();
  }
  #drive(): void {
    this.#o.wire(this.s.isr & this.s.imr ? 1 : 0);
  }

  // -- registers that do something

  /** Bytes of the ring of mode C. */
  get ringSize(): number {
    return 8192 << ((this.s.rcr >>> 11) & 3);
  }
  get receivesByRing(): boolean {
    return (this.s.cplus & cplus.receive) !== 0;
  }
  get command(): number {
    const { s } = this;
    return s.command | (s.cbr === s.capr % this.ringSize ? command.empty : 0);
  }
  setCommand(value: number): void {
    if (value & command.reset) {
      this.#resetChip();
      return;
    }
    this.s.command = value & (command.transmit | command.receive);
    this.#o.ring();
  }
  setRead(value: number): void {
    this.s.capr = (value + 16) & 0xffff;
    this.#o.ring();
  }
  setReceive(value: number): void {
    this.s.rcr = value & 0x0f03_ffbf;
    this.s.rcr = (this.s.rcr & ~rcr.noWrap) | (value & rcr.noWrap);
    this.#o.ring();
  }
  transmit(n: number, value: number): void {
    // What a driver writes as its own waits to be sent.
    this.s.txStatus[n] = value & 0x00ff_3fff;
    if (!(value & tsd.own)) this.#o.ring();
  }
  setAddress(n: number, value: number): void {
    this.s.txAddress[n] = value;
    if (n === 0) this.s.txAt = 0;
    if (n === 2) this.s.txPriorityAt = 0;
  }
  poll(value: number): void {
    const software = 1;
    this.s.polls |= value & 0xc0;
    if (value & software) this.raise(cause.software);
    this.#o.ring();
  }
  configure(n: number, writable: number, value: number): void {
    if ((this.s.mode9346 & UNLOCKED) !== UNLOCKED) return;
    this.s.config[n] = (this.s.config[n]! & ~writable) | (value & writable);
  }
  get media(): number {
    return this.s.media | 0x10 | (this.s.cable ? 0 : NOT_LINKED);
  }
  get timer(): number {
    return Math.floor((this.#o.clock.now() - this.s.timerBase) * HERTZ_PER_NS) >>> 0;
  }
  restartTimer(): void {
    this.s.timerBase = this.#o.clock.now();
  }
  /** OWN, TABT, TUN and TOK of the four descriptors (section 5.20). */
  get summary(): number {
    return this.s.txStatus.reduce((bits, v, n) => bits | (v & tsd.own ? 1 << n : 0) | (v & tsd.ok ? 1 << (12 + n) : 0), 0);
  }

  /** The wires of the EEPROM are this register's lowest bits while bit 7 alone is set. */
  get eepromWires(): number {
    const [programming, out] = [0x80, 1];
    const { mode9346 } = this.s;
    return (mode9346 & UNLOCKED) === programming && this.#eeprom.read() & eecd.dataOut ? mode9346 | out : mode9346;
  }
  set eepromWires(value: number) {
    const [programming, select, clock, dataIn] = [0x80, 8, 4, 2];
    this.s.mode9346 = value & 0xce;
    const on = (value & UNLOCKED) === programming;
    this.#eeprom.write(
      on ? (value & clock ? eecd.clock : 0) | (value & select ? eecd.select : 0) | (value & dataIn ? eecd.dataIn : 0) : 0,
    );
    // The address is loaded from the EEPROM again.
    if ((value & UNLOCKED) === 0x40) {
      this.s.id.set(this.#o.mac.slice(0, 6));
      this.s.mode9346 = 0;
    }
  }
}

/** The EEPROM's words: a signature, the IDs, the address. */
function words(mac: readonly number[]): Uint16Array {
  const w = new Uint16Array(64);
  w.set([0x8129, RTL8139.vendor, RTL8139.device]);
  for (let n = 0; n < 3; n++) w[7 + n] = mac[2 * n]! | (mac[2 * n + 1]! << 8);
  return w;
}
