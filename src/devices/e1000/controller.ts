// An Intel 82540EM Ethernet controller as processors see it: registers, EEPROM, PHY, interrupts. Frames are carried by the I/O thread, see
// io.ts. Intel PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual (8254x SDM), chapter 13.

import type { Arena } from '../../bits/arena.ts';
import { struct, type ViewOf } from '../../bits/struct.ts';
import type { Report } from '../../bus/events.ts';
import { type Register, registers, ro, rw, wo } from '../../bus/registers.ts';
import type { Handler } from '../../bus/space.ts';
import { Eeprom, eepromLayout, eepromWords } from './eeprom.ts';

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
export const ctrl = { reset: 1 << 26, vlan: 1 << 30 } as const;
export const rctl = {
  enable: 2,
  unicast: 8,
  multicast: 16,
  long: 32,
  broadcast: 1 << 15,
  vlanFilter: 1 << 18,
  stripCrc: 1 << 26,
} as const;
export const tctl = { enable: 2, padShort: 8 } as const;
const LINK_UP = 2;
/** Full duplex, 1,000 Mbit/s by detection, and what other bits read as. */
const STATUS = 0x8008_0781;

/** What a context descriptor has set: one for plain packets, one for those that are to be cut (section 3.3.6). */
const contextLayout = struct({
  ipStart: 'u8',
  ipOffset: 'u8',
  ipEnd: 'u16',
  start: 'u8',
  offset: 'u8',
  end: 'u16',
  /** Bytes of payload after the header, of the header, and of one segment's payload. */
  payload: 'u32',
  header: 'u8',
  segment: 'u16',
  ipv4: 'u8',
  tcp: 'u8',
});
export type TxContext = ViewOf<typeof contextLayout>;

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
    rdbal: 'u32',
    rdbah: 'u32',
    rdlen: 'u32',
    rdh: 'u32',
    rdt: 'u32',
    rdtr: 'u32',
    rxdctl: 'u32',
    radv: 'u32',
    rsrpd: 'u32',
    tdbal: 'u32',
    tdbah: 'u32',
    tdlen: 'u32',
    tdh: 'u32',
    tdt: 'u32',
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
    phy: ['u16', 32],
    multicast: ['u32', 128],
    addresses: ['u32', 32],
    vlans: ['u32', 128],
    statistics: ['u32', 64],
    eeprom: eepromLayout,
    /** Plain, then for segmentation. */
    context: [contextLayout, 2],
  },
  { name: 'e1000', version: 1 },
);
export type E1000State = ViewOf<typeof e1000Layout>;

/** Statistics by their place behind 0x4000 (section 13.7). */
export const statistic = {
  missed: 0x10,
  rxGood: 0x74,
  rxBroadcast: 0x78,
  rxMulticast: 0x7c,
  txGood: 0x80,
  rxOctets: 0x88,
  txOctets: 0x90,
  rxNoBuffer: 0xa0,
  rxAllOctets: 0xc0,
  txAllOctets: 0xc8,
  rxAll: 0xd0,
  txAll: 0xd4,
  txMulticast: 0xf0,
  txBroadcast: 0xf4,
} as const;
const STATISTICS = 0x4000;
/** Counters of 64 bits by the place of their low word: reading the high one clears both. */
const WIDE: readonly number[] = [statistic.rxOctets, statistic.txOctets, statistic.rxAllOctets, statistic.txAllOctets];

/** Registers of the PHY (IEEE 802.3 clause 22; Marvell 88E1000). */
const phy = {
  control: 0,
  status: 1,
  id1: 2,
  id2: 3,
  advertise: 4,
  partner: 5,
  control1000: 9,
  status1000: 10,
  special: 16,
  specialStatus: 17,
} as const;
const phyLink = { link: 4, negotiated: 0x20 } as const;

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
    [0x2804, 'rdbah'],
    [0x2820, 'rdtr'],
    [0x2828, 'rxdctl'],
    [0x282c, 'radv'],
    [0x2c00, 'rsrpd'],
    [0x3804, 'tdbah'],
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
/** One register for each word of an array. */
const words = (offset: number, count: number, name: 'multicast' | 'addresses' | 'vlans'): Register<E1000>[] =>
  Array.from({ length: count }, (_, n) =>
    rw<E1000>(
      offset + 4 * n,
      4,
      `${name}[${n}]`,
      (d) => d.s[name][n]!,
      (d, v) => {
        d.s[name][n] = v;
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
  rw(0x2800, 4, 'RDBAL', (d) => d.s.rdbal, (d, v) => { d.s.rdbal = v & ~15; }),
  rw(0x2808, 4, 'RDLEN', (d) => d.s.rdlen, (d, v) => { d.s.rdlen = v & 0xf_ff80; }),
  rw(0x2810, 4, 'RDH', (d) => d.s.rdh, (d, v) => { d.s.rdh = v & 0xffff; }),
  rw(0x2818, 4, 'RDT', (d) => d.s.rdt, (d, v) => d.setTail('rdt', v)),
  rw(0x3800, 4, 'TDBAL', (d) => d.s.tdbal, (d, v) => { d.s.tdbal = v & ~15; }),
  rw(0x3808, 4, 'TDLEN', (d) => d.s.tdlen, (d, v) => { d.s.tdlen = v & 0xf_ff80; }),
  rw(0x3810, 4, 'TDH', (d) => d.s.tdh, (d, v) => { d.s.tdh = v & 0xffff; }),
  rw(0x3818, 4, 'TDT', (d) => d.s.tdt, (d, v) => d.setTail('tdt', v)),
  ro(0x5810, 4, 'WUS', () => 0),
  ...Array.from({ length: 64 }, (_, n) => ro<E1000>(STATISTICS + 4 * n, 4, `statistics[${n}]`, (d) => d.takeStatistic(4 * n))),
  ...words(0x5200, 128, 'multicast'),
  ...words(0x5400, 32, 'addresses'),
  ...words(0x5600, 128, 'vlans'),
]); // biome-ignore format: one line each

export class E1000 {
  readonly s: E1000State;
  readonly eeprom: Eeprom;
  readonly handler: Handler;
  /** The window of ports: an address, and the register there (section 13.2.1). */
  readonly portHandler: Handler;
  readonly #o: E1000Options;

  constructor(o: E1000Options) {
    this.#o = o;
    this.s = o.arena.alloc(e1000Layout, o.name);
    this.eeprom = new Eeprom(this.s.eeprom, eepromWords(o.mac, VENDOR, DEVICE, SUBSYSTEM));
    this.handler = map.bind(this, o.report);
    const { s, handler } = this;
    const ports = registers<E1000State>('e1000 ports', 64, [
      rw(0, 4, 'IOADDR', 'ioAddress'),
      rw(
        4,
        4,
        'IODATA',
        () => (s.ioAddress < E1000_BAR - 3 ? handler.read(s.ioAddress & ~3, 4) : 0),
        (_, v) => {
          if (s.ioAddress < E1000_BAR - 3) handler.write(s.ioAddress & ~3, 4, v);
        },
      ),
    ]);
    this.portHandler = ports.bind(s, o.report);
  }

  /** Power-on state; the cable stays as it is. With the board's lock held, as all here. */
  reset(): void {
    const { s } = this;
    const { cable, epoch } = s;
    s.ioAddress = 0;
    this.eeprom.reset();
    this.#resetMac();
    s.phy.fill(0);
    s.phy[phy.control] = 0x1140;
    s.phy[phy.status] = 0x7949;
    s.phy[phy.id1] = 0x0141;
    s.phy[phy.id2] = 0x0c20;
    s.phy[phy.advertise] = 0x0de1;
    s.phy[phy.partner] = 0x41e1;
    s.phy[phy.control1000] = 0x0e00;
    s.phy[phy.status1000] = 0x3c00;
    s.phy[phy.special] = 0x0360;
    s.phy[phy.specialStatus] = 0xac00;
    s.cable = cable;
    s.epoch = epoch + 1;
    this.#link();
  }
  #resetMac(): void {
    const { s } = this;
    for (const name of ['mdic', 'eerd', 'icr', 'itr', 'ims', 'rctl', 'tctl', 'ctrlExt', 'rdh', 'rdt', 'tdh', 'tdt'] as const)
      s[name] = 0;
    for (const name of ['rdbal', 'rdbah', 'rdlen', 'tdbal', 'tdbah', 'tdlen', 'rdtr', 'radv', 'tidv', 'tadv'] as const)
      s[name] = 0;
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
    for (const c of s.context)
      Object.assign(c, {
        ipStart: 0,
        ipOffset: 0,
        ipEnd: 0,
        start: 0,
        offset: 0,
        end: 0,
        payload: 0,
        header: 0,
        segment: 0,
        ipv4: 0,
        tcp: 0,
      });
    s.epoch++;
    this.#drive();
  }
  /** What registers say of the link. */
  #link(): void {
    const { s } = this;
    s.status = STATUS | (s.cable ? LINK_UP : 0);
    const up = phyLink.link | phyLink.negotiated;
    s.phy[phy.status] = s.cable ? s.phy[phy.status]! | up : s.phy[phy.status]! & ~up;
    const real = 0x0400;
    s.phy[phy.specialStatus] = s.cable ? s.phy[phy.specialStatus]! | real : s.phy[phy.specialStatus]! & ~real;
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
  setTail(name: 'rdt' | 'tdt', value: number): void {
    this.s[name] = value & 0xffff;
    this.#o.ring();
  }
  /** A word of the EEPROM (section 13.4.4). */
  readWord(value: number): void {
    const [start, done] = [1, 0x10];
    this.s.eerd = value & start ? ((this.eeprom.word((value >>> 8) & 0xff) << 16) | (value & 0xff00) | done) >>> 0 : value;
  }
  takeStatistic(at: number): number {
    const { statistics } = this.s;
    const value = statistics[at / 4]!;
    if (!WIDE.includes(at)) statistics[at / 4] = 0;
    if (WIDE.includes(at - 4)) statistics[at / 4 - 1] = 0;
    return value;
  }
  /** Adds to a counter, which stays at its end. */
  count(at: number, n = 1): void {
    const { statistics } = this.s;
    const sum = statistics[at / 4]! + n;
    if (WIDE.includes(at)) {
      statistics[at / 4] = sum >>> 0;
      if (sum >= 2 ** 32) statistics[at / 4 + 1] = statistics[at / 4 + 1]! + 1;
    } else statistics[at / 4] = Math.min(sum, 0xffff_ffff);
  }
  /** A read or write of the PHY (section 13.4.6). */
  manage(value: number): void {
    const { s } = this;
    const [write, read] = [1, 2];
    const [ready, interrupt, failed] = [1 << 28, 1 << 29, 1 << 30];
    const operation = (value >>> 26) & 3;
    const at = (value >>> 16) & 31;
    let result = value;
    if (((value >>> 21) & 31) !== 1) result |= failed;
    else if (operation === read) result = (value & ~0xffff) | s.phy[at]!;
    else if (operation === write) this.#writePhy(at, value & 0xffff);
    s.mdic = (result | ready) >>> 0;
    if (value & interrupt) this.raise(cause.mdio);
  }
  #writePhy(at: number, value: number): void {
    const { s } = this;
    const readOnly: readonly number[] = [phy.status, phy.id1, phy.id2, phy.partner, phy.status1000, phy.specialStatus];
    if (readOnly.includes(at)) return;
    if (at !== phy.control) {
      s.phy[at] = value;
      return;
    }
    // Reset and the start of negotiation read as done.
    const [reset, restart] = [0x8000, 0x0200];
    s.phy[phy.control] = value & ~(reset | restart);
    if (value & (reset | restart)) {
      this.#link();
      this.raise(cause.link);
    }
  }
}
