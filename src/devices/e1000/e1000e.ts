// An Intel 82574L Ethernet controller as processors see it: registers, NVM, PHY, two queues each way, interrupts. Frames are carried by the
// I/O thread, see io.ts. Intel 82574 GbE Controller Family Data Sheet, chapter 10.

import type { Arena } from '../../bits/arena.ts';
import { struct, type ViewOf } from '../../bits/struct.ts';
import type { Report } from '../../bus/events.ts';
import { type Register, registers, ro, rw, wo } from '../../bus/registers.ts';
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
  type ReceiveFormat,
  rctl,
  ringLayout,
  ringRegisters,
  Statistics,
  type Steering,
  statisticRegisters,
  tctl,
  words,
} from './card.ts';
import { nvmWords } from './eeprom.ts';
import { cause, Interrupts, type InterruptWays } from './interrupts.ts';
import { bm82574, Phy, phyWords } from './phy.ts';
import { steer } from './rss.ts';

export const E1000E_BAR = 0x2_0000;
export const E1000E_PORTS = 32;
export const E1000E_DEVICE = 0x10d3;
/** Subsystem vendor and device. */
export const E1000E_SUBSYSTEM = [0x8086, 0x0000] as const;
const VENDOR = 0x8086;

/** Full duplex, 1,000 Mbit/s; and while the card may use the bus. */
const STATUS = 0x281;
const MASTER = 0x8_0000;
const PHY_WAS_RESET = 0x400;
const EEC = 0x300;
const WORDS = 64;

/** Registers that hold what was written: offset, name, value after a reset, bits that are kept. */
const held: readonly (readonly [offset: number, name: string, reset: number, mask: number])[] = [
  [0x1c, 'FLA', 0, 0xffff_ffff],
  [0x28, 'FCAL', 0, 0xffff_ffff],
  [0x2c, 'FCAH', 0, 0xffff],
  [0x30, 'FCT', 0, 0xffff],
  [0xc4, 'ITR', 0, 0xffff],
  ...[0, 1, 2, 3, 4].map((n) => [0xe8 + 4 * n, `EITR${n}`, 0, 0xffff] as const),
  [0x170, 'FCTTV', 0, 0xffff],
  [0x410, 'TIPG', 0x60_2008, 0xffff_ffff],
  [0x458, 'AIT', 0, 0xffff],
  [0xe00, 'LEDCTL', 0x6_8302, 0xffff_ffff],
  [0xf00, 'EXTCNF_CTRL', 8, 0xffff_ffff],
  [0xf08, 'EXTCNF_SIZE', 0, 0xffff_ffff],
  [0xf10, 'POEMB', 0x30d, 0xffff_ffff],
  [0x1000, 'PBA', 0x14_0014, 0xffff_ffff],
  [0x1008, 'PBS', 0x28, 0x3f],
  [0x1010, 'EEMNGCTL', 0x8000_0000, 0xffff_ffff],
  [0x1028, 'FLASHT', 2, 0xffff],
  [0x102c, 'EEWR', 2, 0],
  [0x1030, 'FLSWCTL', 0xc000_0000, 0xffff_ffff],
  [0x1034, 'FLSWDATA', 0, 0xffff_ffff],
  [0x1038, 'FLSWCNT', 0, 0xffff_ffff],
  [0x103c, 'FLOP', 0, 0xffff_ffff],
  [0x1050, 'FLOL', 1, 0xffff_ffff],
  [0x2160, 'FCRTL', 0, 0x8000_fff8],
  [0x2168, 'FCRTH', 0, 0xfff8],
  [0x2820, 'RDTR', 0, 0xffff],
  [0x2828, 'RXDCTL0', 0x1_0000, 0xffff_ffff],
  [0x282c, 'RADV', 0, 0xffff],
  [0x2928, 'RXDCTL1', 0x1_0000, 0xffff_ffff],
  [0x2c00, 'RSRPD', 0, 0xfff],
  [0x2c08, 'RAID', 0, 0xffff],
  [0x3820, 'TIDV', 0, 0xffff],
  [0x3828, 'TXDCTL0', 0, 0xffff_ffff],
  [0x382c, 'TADV', 0, 0xffff],
  [0x3840, 'TARC0', 0x403, 0x7800_07ff],
  [0x3928, 'TXDCTL1', 0, 0xffff_ffff],
  [0x3940, 'TARC1', 0x403, 0x7800_07ff],
  [0x4100, 'IAC', 0, 0xffff_ffff],
  [0x5000, 'RXCSUM', 0x300, 0xffff_ffff],
  [0x5800, 'WUC', 0, 0xffff_ffff],
  [0x5808, 'WUFC', 0, 0xffff_ffff],
  [0x5820, 'MANC', 0x1000_0000, 0xffff_ffff],
  [0x5828, 'MFVAL', 0, 0xffff_ffff],
  [0x5838, 'IPAV', 0, 0xffff_ffff],
  ...[0, 1, 2, 3, 4, 5, 6].map((n) => [0x5840 + 4 * n, `IP4AT${n}`, 0, 0xffff_ffff] as const),
  [0x5860, 'MANC2H', 0, 0xffff_ffff],
  ...Array.from({ length: 12 }, (_, n) => [0x5880 + 4 * n, `IP6AT${n}`, 0, 0xffff_ffff] as const),
  [0x5b00, 'GCR', 0x680_0200, 0xffff_ffff],
  [0x5b08, 'FUNCTAG', 0, 0xffff_ffff],
  ...[0, 1, 2, 3].map((n) => [0x5b10 + 4 * n, `GSCL${n}`, 0, 0xffff_ffff] as const),
  [0x5b30, 'FACTPS', 0x2000_0004, 0xffff_ffff],
  [0x5b64, 'GCR2', 0, 0xffff_ffff],
  [0x5b68, 'PBACLR', 0, 0x1f],
  ...Array.from({ length: 11 }, (_, n) => [0x5f00 + 4 * n, `FFLT${n}`, 0, 0x7ff] as const),
  // Time stamps are not taken, but their registers keep what was written.
  ...[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12].map((n) => [0xb600 + 4 * n, `TIMESYNC${n}`, 0, 0xffff_ffff] as const),
  [0xb634, 'RXMTRL', 0x88f7, 0xffff_ffff],
  [0xb638, 'RXUDP', 0x319, 0xffff_ffff],
];

export const e1000eLayout = struct(
  {
    ctrl: 'u32',
    eec: 'u32',
    eerd: 'u32',
    ctrlExt: 'u32',
    mdic: 'u32',
    vet: 'u32',
    icr: 'u32',
    ims: 'u32',
    iam: 'u32',
    eiac: 'u32',
    ivar: 'u32',
    told: 'u32',
    rctl: 'u32',
    tctl: 'u32',
    psrctl: 'u32',
    rfctl: 'u32',
    mrqc: 'u32',
    swsm: 'u32',
    phyReset: 'u32',
    ioAddress: 'u32',
    /** Of the network: 1 while the cable is in. */
    cable: 'u32',
    /** Counted up at each reset. */
    epoch: 'u32',
    held: ['u32', held.length],
    tx: [ringLayout, 2],
    rx: [ringLayout, 2],
    phy: ['u16', phyWords(bm82574)],
    multicast: ['u32', 128],
    addresses: ['u32', 32],
    vlans: ['u32', 128],
    statistics: ['u32', 64],
    indirection: ['u32', 32],
    key: ['u32', 10],
    /** For each queue: plain, then for segmentation. */
    context: [contextLayout, 4],
  },
  { name: 'e1000e', version: 1 },
);
export type E1000eState = ViewOf<typeof e1000eLayout>;

export interface E1000eOptions {
  readonly arena: Arena;
  readonly name: string;
  readonly mac: readonly number[];
  /** Wakes the I/O thread. */
  readonly ring: () => void;
  readonly interrupts: InterruptWays;
  readonly report?: Report;
}

const plain = (offset: number, name: string, field: keyof E1000eState & string, mask = 0xffff_ffff): Register<E1000e> =>
  rw<E1000e>(
    offset,
    4,
    name,
    (d) => d.s[field] as number,
    (d, v) => {
      (d.s as Record<string, unknown>)[field] = v & mask;
    },
  );

const map = registers<E1000e>('e1000e', E1000E_BAR, [
  ...held.map(([offset, name, , mask], n) =>
    rw<E1000e>(
      offset,
      4,
      name,
      (d) => d.s.held[n]!,
      (d, v) => {
        d.s.held[n] = v & mask;
      },
    ),
  ),
  ...[0, 4].map((at) => rw<E1000e>(at, 4, at ? 'CTRL_DUP' : 'CTRL', (d) => d.s.ctrl, (d, v) => d.setControl(v))),
  rw(0x08, 4, 'STATUS', (d) => d.status, (d) => { d.s.phyReset = 0; }, 'zero'),
  rw(0x10, 4, 'EEC', (d) => d.eec, (d, v) => { d.s.eec = v; }),
  rw(0x14, 4, 'EERD', (d) => d.s.eerd, (d, v) => d.readWord(v)),
  rw(0x18, 4, 'CTRL_EXT', (d) => d.s.ctrlExt, (d, v) => d.setControlExtended(v)),
  rw(0x20, 4, 'MDIC', (d) => d.s.mdic, (d, v) => d.manage(v)),
  plain(0x38, 'VET', 'vet', 0xffff),
  rw(0xc0, 4, 'ICR', (d) => d.interrupts.read(), (d, v) => d.interrupts.clear(v), 'zero'),
  rw(0xc8, 4, 'ICS', (d) => d.s.icr, (d, v) => d.interrupts.raise(v), 'zero'),
  rw(0xd0, 4, 'IMS', (d) => d.s.ims, (d, v) => d.interrupts.unmask(v), 'zero'),
  wo(0xd8, 4, 'IMC', (d, v) => d.interrupts.mask(v)),
  plain(0xdc, 'EIAC', 'eiac'),
  plain(0xe0, 'IAM', 'iam'),
  plain(0xe4, 'IVAR', 'ivar'),
  rw(0x100, 4, 'RCTL', (d) => d.s.rctl, (d, v) => d.setReceive(v)),
  rw(0x400, 4, 'TCTL', (d) => d.s.tctl, (d, v) => d.setTransmit(v)),
  plain(0x2170, 'PSRCTL', 'psrctl'),
  ...[0, 1].flatMap((q) => [
    ...ringRegisters<E1000e>(0x2800 + 0x100 * q, `RD${q}`, (d) => d.s.rx[q]!, (d) => d.ring()),
    ...ringRegisters<E1000e>(0x3800 + 0x100 * q, `TD${q}`, (d) => d.s.tx[q]!, (d) => d.ring()),
  ]),
  plain(0x5008, 'RFCTL', 'rfctl'),
  ro(0x5810, 4, 'WUS', () => 0),
  plain(0x5818, 'MRQC', 'mrqc'),
  rw(0x5b50, 4, 'SWSM', (d) => d.takeSemaphore(), (d, v) => { d.s.swsm = v; }),
  ro(0x5b54, 4, 'FWSM', () => 0),
  ...statisticRegisters<E1000e>(),
  ...words<E1000e>(0x5200, 128, 'MTA', (d) => d.s.multicast),
  ...words<E1000e>(0x5400, 32, 'RA', (d) => d.s.addresses),
  ...words<E1000e>(0x5600, 128, 'VFTA', (d) => d.s.vlans),
  ...words<E1000e>(0x5c00, 32, 'RETA', (d) => d.s.indirection),
  ...words<E1000e>(0x5c80, 10, 'RSSRK', (d) => d.s.key),
]); // biome-ignore format: one line each

export class E1000e implements Card {
  readonly s: E1000eState;
  readonly statistics: Statistics;
  readonly phy: Phy;
  readonly interrupts: Interrupts;
  readonly handler: Handler;
  /** The window of ports: an address, and the register there (section 10.1.1.2). */
  readonly portHandler: Handler;
  readonly #o: E1000eOptions;
  readonly #nvm: Uint16Array;
  readonly #rss: { readonly mrqc: number; readonly indirection: Uint8Array; readonly key: Uint8Array };

  constructor(o: E1000eOptions) {
    this.#o = o;
    const s = o.arena.alloc(e1000eLayout, o.name);
    this.s = s;
    this.statistics = new Statistics(s.statistics);
    this.interrupts = new Interrupts(s, o.interrupts);
    this.phy = new Phy(s.phy, bm82574, () => {
      this.phy.link(s.cable !== 0);
      this.interrupts.raise(cause.link);
    });
    this.#nvm = nvmWords(o.mac, VENDOR, E1000E_DEVICE, E1000E_SUBSYSTEM);
    const bytes = (a: Uint32Array): Uint8Array => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);
    this.#rss = {
      get mrqc() {
        return s.mrqc;
      },
      indirection: bytes(s.indirection),
      key: bytes(s.key),
    };
    this.handler = map.bind(this, o.report);
    const { handler } = this;
    this.portHandler = portWindow({
      name: 'e1000e ports',
      bytes: E1000E_PORTS,
      bar: E1000E_BAR,
      state: s,
      handler,
      report: o.report,
    });
  }

  /** Power-on state; the cable stays as it is. With the board's lock held, as all here. */
  reset(): void {
    this.s.ioAddress = 0;
    this.#resetMac();
    this.phy.reset();
    this.phy.link(this.s.cable !== 0);
  }
  #resetMac(): void {
    const { s } = this;
    for (const name of ['eerd', 'ctrlExt', 'mdic', 'icr', 'ims', 'iam', 'eiac', 'ivar', 'told', 'rctl', 'tctl'] as const)
      s[name] = 0;
    for (const name of ['rfctl', 'mrqc', 'swsm', 'phyReset'] as const) s[name] = 0;
    Object.assign(s, { ctrl: 0x0014_0241, eec: EEC, eerd: 2, vet: 0x8100, psrctl: 0x0004_0402 });
    for (const [n, row] of held.entries()) s.held[n] = row[2];
    for (const ring of [...s.tx, ...s.rx]) Object.assign(ring, noRing);
    for (const c of s.context) Object.assign(c, noContext);
    for (const list of [s.statistics, s.multicast, s.vlans, s.addresses, s.indirection, s.key]) list.fill(0);
    // The first address comes from the NVM, and is valid.
    s.addresses[0] = this.#nvm[0]! | (this.#nvm[1]! << 16);
    s.addresses[1] = this.#nvm[2]! | (1 << 31);
    s.epoch++;
    this.interrupts.update();
  }
  /** There is a network, before the guest runs. */
  connect(): void {
    this.s.cable = 1;
    this.phy.link(true);
  }
  /** The cable was put in or pulled. */
  setCable(up: boolean): void {
    this.s.cable = up ? 1 : 0;
    this.phy.link(up);
    this.interrupts.raise(cause.link);
  }

  // -- for the I/O side

  get format(): ReceiveFormat {
    const [extended, split] = [1 << 15, 1 << 10];
    if (!(this.s.rfctl & extended)) return 'legacy';
    return (this.s.rctl & 0xc00) === split ? 'split' : 'extended';
  }
  get buffers(): readonly number[] {
    const { rctl: control, psrctl } = this.s;
    if (this.format === 'split')
      return [
        (psrctl & 0x7f) << 7,
        ((psrctl >>> 8) & 0x3f) << 10,
        ((psrctl >>> 16) & 0x3f) << 10,
        ((psrctl >>> 24) & 0x3f) << 10,
      ];
    const flexible = (control >>> 27) & 15;
    return [flexible > 0 ? flexible << 10 : bufferSize(control)];
  }
  steer(frame: Uint8Array): Steering {
    return steer(this.#rss, frame);
  }
  get #byQueue(): boolean {
    return this.#o.interrupts.mode() === 'msix';
  }
  sent(queue: number, reported: boolean): void {
    const { head, tail } = this.s.tx[queue]!;
    const written = reported ? (this.#byQueue ? cause.txQueue[queue]! : cause.txWritten) : 0;
    this.interrupts.raise(written | (head === tail ? cause.txEmpty : 0));
  }
  received(queue: number, low: boolean): void {
    this.interrupts.raise(this.#byQueue ? cause.rxQueue[queue]! : cause.rxTimer | (low ? cause.rxLow : 0));
  }
  overrun(): void {
    this.interrupts.raise(cause.rxOverrun);
  }
  /** The driver has moved a tail. */
  ring(): void {
    this.#o.ring();
  }

  // -- registers that do something

  get status(): number {
    const { s } = this;
    return STATUS | (s.cable ? LINK_UP : 0) | (s.ctrl & ctrl.masterOff ? 0 : MASTER) | (s.phyReset ? PHY_WAS_RESET : 0);
  }
  /** The driver gets the NVM when it asks for it. */
  get eec(): number {
    const [request, grant] = [0x40, 0x80];
    return (this.s.eec & ~(0x7800 | grant)) | EEC | (this.s.eec & request ? grant : 0);
  }
  setControl(value: number): void {
    const phyReset = 0x8000_0000;
    if (value & ctrl.reset) {
      this.#resetMac();
      return;
    }
    if (value & phyReset) {
      this.s.phyReset = 1;
      this.phy.reset();
      this.phy.link(this.s.cable !== 0);
    }
    this.s.ctrl = value;
  }
  /** Reading the NVM anew, and testing the link's detection, end at once. */
  setControlExtended(value: number): void {
    this.s.ctrlExt = value & ~0x3000;
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
  /** A word of the NVM (section 10.2.2.4). */
  readWord(value: number): void {
    const [start, done] = [1, 2];
    const at = (value >>> 2) & 0x3fff;
    const kept = value & 0xfffc;
    this.s.eerd = value & start && at < WORDS ? ((this.#nvm[at]! << 16) | kept | done) >>> 0 : kept;
  }
  manage(value: number): void {
    const interrupt = 1 << 29;
    this.s.mdic = this.phy.manage(value);
    if (value & interrupt) this.interrupts.raise(cause.mdio);
  }
  /** The semaphore between software and firmware: who reads it as free has it (section 10.2.6.10). */
  takeSemaphore(): number {
    const { swsm } = this.s;
    this.s.swsm |= 1;
    return swsm;
  }
}
