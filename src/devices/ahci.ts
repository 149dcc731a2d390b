// A serial ATA host controller as processors see it: generic and port registers, interrupts. Commands are carried out by the I/O thread,
// see ahci-io.ts. Serial ATA AHCI Specification 1.3.1, chapter 3.

import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { Report } from '../bus/events.ts';
import type { IrqLine } from '../bus/irq.ts';
import { type Register, registers, ro, rw, w1c } from '../bus/registers.ts';
import type { Handler } from '../bus/space.ts';
import type { AtaDevice } from './ata/device.ts';

export const AHCI_PORTS = 6;
export const AHCI_SLOTS = 32;
/** Bytes of the memory BAR. */
export const AHCI_BAR = 0x1000;

export const ahciPortLayout = struct({
  clb: 'u32',
  clbu: 'u32',
  fb: 'u32',
  fbu: 'u32',
  is: 'u32',
  ie: 'u32',
  cmd: 'u32',
  tfd: 'u32',
  sig: 'u32',
  ssts: 'u32',
  sctl: 'u32',
  serr: 'u32',
  sact: 'u32',
  ci: 'u32',
  /** Slots whose commands the I/O thread has taken. */
  taken: 'u32',
  /** Counted up when all that is under way is dropped. */
  epoch: 'u32',
  /** A software reset was begun. */
  resetting: 'u8',
});
export const ahciLayout = struct(
  { ghc: 'u32', is: 'u32', index: 'u32', ports: [ahciPortLayout, AHCI_PORTS] },
  { name: 'ahci', version: 1 },
);
export type AhciPort = ViewOf<typeof ahciPortLayout>;

/** Six ports, 32 slots, first generation, native command queuing, AHCI only, 64-bit addresses. */
const CAP = (AHCI_PORTS - 1) | (31 << 8) | (1 << 18) | (1 << 20) | (1 << 30) | (1 << 31);
const ghc = { reset: 1, interrupts: 2, ahci: 2 ** 31 } as const;
export const pxCmd = {
  start: 1,
  spinUp: 2,
  power: 4,
  override: 8,
  fisReceive: 0x10,
  fisRunning: 0x4000,
  running: 0x8000,
  atapi: 1 << 24,
} as const;
/** Bits of PxCMD that software writes. */
const CMD_WRITABLE = 0xf300_0017;
export const pxIs = {
  d2h: 1,
  pioSetup: 2,
  dmaSetup: 4,
  setBits: 8,
  connect: 0x40,
  phyChange: 1 << 22,
  taskFile: 1 << 30,
  hostData: 1 << 28,
} as const;
/** A device is there, communication is established, first generation, active. */
const LINKED = 0x113;

export interface AhciOptions {
  readonly arena: Arena;
  readonly name: string;
  readonly irq: IrqLine;
  /** Wakes the I/O thread. */
  readonly ring: () => void;
  /** Carries out what can be at once of the slots of a port; true where nothing is left for the I/O thread. */
  readonly atOnce?: (port: number, bits: number) => boolean;
  readonly report?: Report;
}

export class Ahci {
  readonly s: ViewOf<typeof ahciLayout>;
  readonly devices: (AtaDevice | undefined)[] = new Array(AHCI_PORTS).fill(undefined);
  readonly handler: Handler;
  readonly #o: AhciOptions;

  constructor(o: AhciOptions) {
    this.#o = o;
    this.s = o.arena.alloc(ahciLayout, o.name);
    this.handler = ahciRegisters.bind(this, o.report);
  }

  reset(): void {
    const { s } = this;
    s.ghc = ghc.ahci;
    s.is = 0;
    s.index = 0;
    s.ports.forEach((p, n) => {
      Object.assign(p, { clb: 0, clbu: 0, fb: 0, fbu: 0, is: 0, ie: 0, cmd: 0, sctl: 0, serr: 0 });
      this.link(n);
    });
    this.#drive();
  }

  /** The link of a port comes up: with the signature of what is there. Everything under way is dropped. */
  link(n: number): void {
    const p = this.s.ports[n]!;
    const device = this.devices[n];
    p.epoch++;
    Object.assign(p, { sact: 0, ci: 0, taken: 0, resetting: 0 });
    p.ssts = device ? LINKED : 0;
    p.sig = device ? ((device.signature & 0xff_ff00) << 8) | 0x0101 : 0xffff_ffff;
    p.tfd = device ? (device.packet ? 0x0100 : 0x0150) : 0x7f;
    if (device?.packet) p.cmd |= pxCmd.atapi;
  }

  /** Sets bits of a port's interrupt status. With the board's lock held. */
  raise(n: number, bits: number): void {
    const p = this.s.ports[n]!;
    p.is = (p.is | bits) >>> 0;
    this.#look(n);
    this.#drive();
  }

  #look(n: number): void {
    const p = this.s.ports[n]!;
    if (p.is & p.ie) this.s.is = (this.s.is | (1 << n)) >>> 0;
  }

  #drive(): void {
    this.#o.irq.set(this.s.is !== 0 && this.s.ghc & ghc.interrupts ? 1 : 0);
  }

  // ── Registers' effects ──

  setGhc(value: number): void {
    if (value & ghc.reset) {
      this.reset();
      return;
    }
    this.s.ghc = (ghc.ahci | (value & ghc.interrupts)) >>> 0;
    this.#drive();
  }

  clearIs(ones: number): void {
    this.s.is = (this.s.is & ~ones) >>> 0;
    // Ports that still have a cause show again.
    for (let n = 0; n < AHCI_PORTS; n++) this.#look(n);
    this.#drive();
  }

  clearPortIs(n: number, ones: number): void {
    const p = this.s.ports[n]!;
    p.is = (p.is & ~ones) >>> 0;
    this.#drive();
  }

  setPortIe(n: number, value: number): void {
    this.s.ports[n]!.ie = value & 0xfdc0_00ff;
    this.#look(n);
    this.#drive();
  }

  setCommand(n: number, value: number): void {
    const p = this.s.ports[n]!;
    const was = p.cmd;
    let cmd = (value & CMD_WRITABLE) | (was & pxCmd.atapi);
    if (value & pxCmd.override) p.tfd &= ~0x88;
    if (cmd & pxCmd.fisReceive) cmd |= pxCmd.fisRunning;
    if (cmd & pxCmd.start) cmd |= pxCmd.running;
    else if (was & pxCmd.running) {
      // Stopping drops what was issued. The list runs until nothing of it is under way.
      cmd |= pxCmd.running;
      p.epoch++;
      Object.assign(p, { ci: 0, sact: 0, taken: 0 });
    }
    p.cmd = cmd >>> 0;
    // Only now: the I/O thread may look before this returns.
    if (p.ci !== 0 || (cmd & (pxCmd.start | pxCmd.running)) === pxCmd.running) this.#o.ring();
  }

  /** Nothing of a port is under way. With the board's lock held. */
  stopped(n: number): void {
    const p = this.s.ports[n]!;
    if (!(p.cmd & pxCmd.start)) p.cmd = (p.cmd & ~pxCmd.running) >>> 0;
  }

  setControl(n: number, value: number): void {
    const p = this.s.ports[n]!;
    const was = p.sctl;
    p.sctl = value & 0xfff;
    // DET going from 1 to 0 ends a COMRESET; 4 takes the port off line.
    if ((was & 15) === 1 && (value & 15) === 0) {
      this.link(n);
      if (this.devices[n]) this.raise(n, p.cmd & pxCmd.fisReceive ? pxIs.d2h | pxIs.connect : pxIs.connect);
    } else if ((value & 15) === 4) p.ssts = 4;
    else if ((value & 15) === 1) {
      p.epoch++;
      Object.assign(p, { ci: 0, sact: 0, taken: 0, ssts: 0 });
    }
  }

  issue(n: number, bits: number): void {
    const p = this.s.ports[n]!;
    if (!(p.cmd & pxCmd.start)) return;
    const fresh = (bits & ~p.ci) >>> 0;
    p.ci = (p.ci | bits) >>> 0;
    if (!this.#o.atOnce?.(n, fresh)) this.#o.ring();
  }
}

const portRows = (n: number): Register<Ahci>[] => {
  const base = 0x100 + 0x80 * n;
  const port = (d: Ahci): AhciPort => d.s.ports[n]!;
  const field = (offset: number, name: string, key: 'clb' | 'clbu' | 'fb' | 'fbu', mask: number): Register<Ahci> =>
    rw(
      base + offset,
      4,
      `P${n}${name}`,
      (d) => port(d)[key],
      (d, v) => {
        port(d)[key] = (v & mask) >>> 0;
      },
    );
  return [
    field(0x00, 'CLB', 'clb', ~0x3ff),
    field(0x04, 'CLBU', 'clbu', ~0),
    field(0x08, 'FB', 'fb', ~0xff),
    field(0x0c, 'FBU', 'fbu', ~0),
    w1c(
      base + 0x10,
      4,
      `P${n}IS`,
      (d) => port(d).is,
      (d, v) => d.clearPortIs(n, v),
    ),
    rw(
      base + 0x14,
      4,
      `P${n}IE`,
      (d) => port(d).ie,
      (d, v) => d.setPortIe(n, v),
    ),
    rw(
      base + 0x18,
      4,
      `P${n}CMD`,
      (d) => port(d).cmd,
      (d, v) => d.setCommand(n, v),
    ),
    ro(base + 0x20, 4, `P${n}TFD`, (d) => port(d).tfd),
    ro(base + 0x24, 4, `P${n}SIG`, (d) => port(d).sig),
    ro(base + 0x28, 4, `P${n}SSTS`, (d) => port(d).ssts),
    rw(
      base + 0x2c,
      4,
      `P${n}SCTL`,
      (d) => port(d).sctl,
      (d, v) => d.setControl(n, v),
    ),
    w1c(
      base + 0x30,
      4,
      `P${n}SERR`,
      (d) => port(d).serr,
      (d, v) => {
        port(d).serr &= ~v;
      },
    ),
    rw(
      base + 0x34,
      4,
      `P${n}SACT`,
      (d) => port(d).sact,
      (d, v) => {
        port(d).sact = (port(d).sact | v) >>> 0;
      },
      'zero',
    ),
    rw(
      base + 0x38,
      4,
      `P${n}CI`,
      (d) => port(d).ci,
      (d, v) => d.issue(n, v),
      'zero',
    ),
  ];
};

/** Offsets in the memory BAR. */
export const ahciRegisters = registers<Ahci>('ahci', AHCI_BAR, [
  // Firmware may write CAP and PI, once on real chips; here they are as they are.
  rw(
    0x00,
    4,
    'CAP',
    () => CAP >>> 0,
    () => {},
  ),
  rw(
    0x04,
    4,
    'GHC',
    (d) => d.s.ghc,
    (d, v) => d.setGhc(v),
  ),
  w1c(
    0x08,
    4,
    'IS',
    (d) => d.s.is,
    (d, v) => d.clearIs(v),
  ),
  rw(
    0x0c,
    4,
    'PI',
    () => (1 << AHCI_PORTS) - 1,
    () => {},
  ),
  ro(0x10, 4, 'VS', () => 0x1_0000),
  // Features that are not there: command coalescing, enclosure management, extended capabilities, hand-off from the BIOS.
  ...(['CCC_CTL', 'CCC_PORTS', 'EM_LOC', 'EM_CTL', 'CAP2', 'BOHC'] as const).map((name, i) =>
    rw<Ahci>(
      0x14 + 4 * i,
      4,
      name,
      () => 0,
      () => {},
    ),
  ),
  ...Array.from({ length: AHCI_PORTS }, (_, n) => portRows(n)).flat(),
]);

/** The index and data ports of the I/O BAR, at their fixed places in its 32 bytes. */
export const ahciIndexed = (d: Ahci): Handler => ({
  max: 4,
  read: (offset, size) => {
    if (offset === 0x10 && size === 4) return d.s.index;
    return offset === 0x14 && size === 4 ? d.handler.read(d.s.index, 4) : 0;
  },
  write: (offset, size, value) => {
    if (offset === 0x10 && size === 4) d.s.index = value & (AHCI_BAR - 4);
    else if (offset === 0x14 && size === 4) d.handler.write(d.s.index, 4, value);
  },
});
