// An Intel 82540EM Ethernet controller as processors see it: registers, EEPROM, PHY, interrupts. Frames are carried by the I/O thread, see
// io.ts. Intel PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual (8254x SDM), chapter 13.

import type { Arena } from '../../bits/arena.ts';
import { struct, type ViewOf } from '../../bits/struct.ts';
import type { Report } from '../../bus/events.ts';
import { registers, ro, rw, wo } from '../../bus/registers.ts';
import type { Handler } from '../../bus/space.ts';
import {
  bufferSize,
  type Card,
  contextLayout,
  ctrl,
  LINK_UP,
  noContext,
  noRing,
  portWindow,
  rctl,
  ringLayout,
  ringRegisters,
  Statistics,
  type Steering,
  statisticRegisters,
  tctl,
  unsteered,
  words,
} from './card.ts';
import { Eeprom, eepromLayout, eepromWords } from './eeprom.ts';
import { m88e1000, Phy, phyWords } from './phy.ts';

export const E1000_BAR = 0x2_0000;
export const VENDOR = 0x8086;
export const DEVICE = 0x100e;
export const SUBSYSTEM = 0x1100;

/** Causes of interrupts (section 13.4.17). */
export const cause = {
  txWritten: 1 << 0,
  txEmpty: 1 << 1,
  link: 1 << 2,
  rxLow: 1 << 4,
  rxOverrun: 1 << 6,
  rxTimer: 1 << 7,
  mdio: 1 << 9,
} as const;
/** Full duplex, 1,000 Mbit/s by detection, and what other bits read as. */
const STATUS = 0x8008_0781;

export const e1000Layout = struct(
  {
    ctrl: 'u32',
    status: 'u32',
    ctrlExt: 'u32',
    mdic: 'u32',
    eerd: 'u32',
    fcal: 'u32',
    fcah: 'u32',
    fct: 'u32',
    vet: 'u32',
    icr: 'u32',
    itr: 'u32',
    ims: 'u32',
    rctl: 'u32',
    fcttv: 'u32',
    txcw: 'u32',
    tctl: 'u32',
    tipg: 'u32',
    aifs: 'u32',
    ledctl: 'u32',
    pba: 'u32',
    fcrtl: 'u32',
    fcrth: 'u32',
    rdtr: 'u32',
    rxdctl: 'u32',
    radv: 'u32',
    rsrpd: 'u32',
    tidv: 'u32',
    txdctl: 'u32',
    tadv: 'u32',
    tspmt: 'u32',
    rxcsum: 'u32',
    wuc: 'u32',
    wufc: 'u32',
    manc: 'u32',
    ioAddress: 'u32',
    /** Of the network: 1 while the cable is in. */
    cable: 'u32',
    /** Counted up at each reset. */
    epoch: 'u32',
    tx: [ringLayout, 1],
    rx: [ringLayout, 1],
    phy: ['u16', phyWords(m88e1000)],
    multicast: ['u32', 128],
    addresses: ['u32', 32],
    vlans: ['u32', 128],
    statistics: ['u32', 64],
    eeprom: eepromLayout,
    /** Plain, then for segmentation. */
    context: [contextLayout, 2],
  },
  { name: 'e1000', version: 2 },
);
export type E1000State = ViewOf<typeof e1000Layout>;

export interface E1000Options {
  readonly arena: Arena;
  readonly name: string;
  readonly mac: readonly number[];
  /** Wakes the I/O thread. */
  readonly ring: () => void;
  /** The level of the INTx wire. */
  readonly wire: (level: 0 | 1) => void;
  readonly report?: Report;
}

/** Registers that hold what was written. */
const plain = (
  [
    [0x18, 'ctrlExt'],
    [0x28, 'fcal'],
    [0x2c, 'fcah'],
    [0x30, 'fct'],
    [0x38, 'vet'],
    [0xc4, 'itr'],
    [0x170, 'fcttv'],
    [0x178, 'txcw'],
    [0x410, 'tipg'],
    [0x458, 'aifs'],
    [0xe00, 'ledctl'],
    [0x1000, 'pba'],
    [0x2160, 'fcrtl'],
    [0x2168, 'fcrth'],
    [0x2820, 'rdtr'],
    [0x2828, 'rxdctl'],
    [0x282c, 'radv'],
    [0x2c00, 'rsrpd'],
    [0x3820, 'tidv'],
    [0x3828, 'txdctl'],
    [0x382c, 'tadv'],
    [0x3830, 'tspmt'],
    [0x5000, 'rxcsum'],
    [0x5800, 'wuc'],
    [0x5808, 'wufc'],
    [0x5820, 'manc'],
  ] as const
).map(([offset, name]) =>
  rw<E1000>(
    offset,
    4,
    name.toUpperCase(),
    (d) => d.s[name],
    (d, v) => {
      d.s[name] = v;
    },
  ),
);
const map = registers<E1000>('e1000', E1000_BAR, [
  ...plain,
  rw(0x00, 4, 'CTRL', (d) => d.s.ctrl, (d, v) => d.setControl(v)),
  ro(0x08, 4, 'STATUS', (d) => d.s.status),
  rw(0x10, 4, 'EECD', (d) => d.eeprom.read(), (d, v) => d.eeprom.write(v)),
  rw(0x14, 4, 'EERD', (d) => d.s.eerd, (d, v) => d.readWord(v)),
  rw(0x20, 4, 'MDIC', (d) => d.s.mdic, (d, v) => d.manage(v)),
  rw(0xc0, 4, 'ICR', (d) => d.takeCauses(), (d, v) => d.clearCauses(v), 'zero'),
  wo(0xc8, 4, 'ICS', (d, v) => d.raise(v)),
  rw(0xd0, 4, 'IMS', (d) => d.s.ims, (d, v) => d.setMask(d.s.ims | v), 'zero'),
  wo(0xd8, 4, 'IMC', (d, v) => d.setMask(d.s.ims & ~v)),
  rw(0x100, 4, 'RCTL', (d) => d.s.rctl, (d, v) => d.setReceive(v)),
  ro(0x180, 4, 'RXCW', () => 0),
  rw(0x400, 4, 'TCTL', (d) => d.s.tctl, (d, v) => d.setTransmit(v)),
  ...ringRegisters<E1000>(0x2800, 'RD', (d) => d.s.rx[0]!, (d) => d.ring()),
  ...ringRegisters<E1000>(0x3800, 'TD', (d) => d.s.tx[0]!, (d) => d.ring()),
  ro(0x5810, 4, 'WUS', () => 0),
  ...statisticRegisters<E1000>(),
  ...words<E1000>(0x5200, 128, 'multicast', (d) => d.s.multicast),
  ...words<E1000>(0x5400, 32, 'addresses', (d) => d.s.addresses),
  ...words<E1000>(0x5600, 128, 'vlans', (d) => d.s.vlans),
]); // biome-ignore format: one line each

export class E1000 implements Card {
  readonly s: E1000State;
  readonly statistics: Statistics;
  readonly phy: Phy;
  readonly format = 'legacy';
  readonly eeprom: Eeprom;
  readonly handler: Handler;
  /** The window of ports: an address, and the register there (section 13.2.1). */
  readonly portHandler: Handler;
  readonly #o: E1000Options;

  constructor(o: E1000Options) {
    this.#o = o;
    this.s = o.arena.alloc(e1000Layout, o.name);
    this.statistics = new Statistics(this.s.statistics);
    this.phy = new Phy(this.s.phy, m88e1000, () => {
      this.#link();
      this.raise(cause.link);
    });
    this.eeprom = new Eeprom(this.s.eeprom, eepromWords(o.mac, VENDOR, DEVICE, SUBSYSTEM));
    this.handler = map.bind(this, o.report);
    const { s, handler } = this;
    this.portHandler = portWindow({ name: 'e1000 ports', bytes: 64, bar: E1000_BAR, state: s, handler, report: o.report });
  }

  /** Power-on state; the cable stays as it is. With the board's lock held, as all here. */
  reset(): void {
    const { s } = this;
    const { cable, epoch } = s;
    s.ioAddress = 0;
    this.eeprom.reset();
    this.#resetMac();
    this.phy.reset();
    s.cable = cable;
    s.epoch = epoch + 1;
    this.#link();
  }
  #resetMac(): void {
    const { s } = this;
    for (const name of ['mdic', 'eerd', 'icr', 'itr', 'ims', 'rctl', 'tctl', 'ctrlExt'] as const) s[name] = 0;
    for (const name of ['rdtr', 'radv', 'tidv', 'tadv'] as const) s[name] = 0;
    for (const ring of [...s.tx, ...s.rx]) Object.assign(ring, noRing);
    for (const name of ['fcal', 'fcah', 'fct', 'fcttv', 'fcrtl', 'fcrth', 'txcw', 'tipg', 'aifs', 'rsrpd', 'tspmt'] as const)
      s[name] = 0;
    for (const name of ['rxdctl', 'txdctl', 'wuc', 'wufc'] as const) s[name] = 0;
    Object.assign(s, { ctrl: 0x0014_0240, ledctl: 0x602, pba: 0x0010_0030, manc: 0x2300, vet: 0x8100, rxcsum: 0x300 });
    s.statistics.fill(0);
    s.multicast.fill(0);
    s.vlans.fill(0);
    s.addresses.fill(0);
    // The first address comes from the EEPROM, and is valid.
    const [w0, w1, w2] = [0, 1, 2].map((n) => this.eeprom.word(n));
    s.addresses[0] = w0! | (w1! << 16);
    s.addresses[1] = w2! | (1 << 31);
    for (const c of s.context) Object.assign(c, noContext);
    s.epoch++;
    this.#drive();
  }
  /** What registers say of the link. */
  #link(): void {
    const { s } = this;
    s.status = STATUS | (s.cable ? LINK_UP : 0);
    this.phy.link(s.cable !== 0);
  }
  /** There is a network, before the guest runs. */
  connect(): void {
    this.s.cable = 1;
    this.#link();
  }
  /** The cable was put in or pulled. */
  setCable(up: boolean): void {
    this.s.cable = up ? 1 : 0;
    this.#link();
    this.raise(cause.link);
  }

  // -- for the I/O side

  get buffers(): readonly number[] {
    return [bufferSize(this.s.rctl)];
  }
  steer(): Steering {
    return unsteered;
  }
  sent(queue: number, reported: boolean): void {
    const { head, tail } = this.s.tx[queue]!;
    this.raise((reported ? cause.txWritten : 0) | (head === tail ? cause.txEmpty : 0));
  }
  received(_: number, low: boolean): void {
    this.raise(cause.rxTimer | (low ? cause.rxLow : 0));
  }
  overrun(): void {
    this.raise(cause.rxOverrun);
  }
  /** The driver has moved a tail. */
  ring(): void {
    this.#o.ring();
  }

  // -- interrupts

  raise(causes: number): void {
    this.s.icr |= causes & 0x1_ffff;
    this.#drive();
  }
  takeCauses(): number {
    const { icr } = this.s;
    this.s.icr = 0;
    this.#drive();
    return icr;
  }
  clearCauses(ones: number): void {
    this.s.icr &= ~ones;
    this.#drive();
  }
  setMask(mask: number): void {
    this.s.ims = mask & 0x1_ffff;
    this.#drive();
  }
  #drive(): void {
    this.#o.wire(this.s.icr & this.s.ims ? 1 : 0);
  }

  // -- registers that do something

  setControl(value: number): void {
    if (value & ctrl.reset) {
      this.#resetMac();
      this.#link();
      return;
    }
    // The PHY's reset ends at once, too.
    this.s.ctrl = value & 0x7fff_ffff;
  }
  setReceive(value: number): void {
    const before = this.s.rctl;
    this.s.rctl = value;
    if (value & ~before & rctl.enable) this.#o.ring();
  }
  setTransmit(value: number): void {
    this.s.tctl = value;
    if (value & tctl.enable) this.#o.ring();
  }
  /** A word of the EEPROM (section 13.4.4). */
  readWord(value: number): void {
    const [start, done] = [1, 0x10];
    this.s.eerd = value & start ? ((this.eeprom.word((value >>> 8) & 0xff) << 16) | (value & 0xff00) | done) >>> 0 : value;
  }
  /** A read or write of the PHY (section 13.4.6). */
  manage(value: number): void {
    const interrupt = 1 << 29;
    this.s.mdic = this.phy.manage(value);
    if (value & interrupt) this.raise(cause.mdio);
  }
}
