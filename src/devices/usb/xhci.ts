// An xHCI host controller: its registers, ports and interrupters. eXtensible Host Controller Interface for Universal Serial Bus, revision 1.2, chapter 5.
//
// Registers are served on the thread that touches them. Commands and transfers are carried out on the I/O thread (xhci-rings.ts),
// which the doorbells wake.
import type { Arena } from '../../bits/arena.ts';
import type { Doorbell } from '../../bus/doorbell.ts';
import type { Handler } from '../../bus/space.ts';
import type { UsbDevice } from './device.ts';
import { UsbPort } from './port.ts';
import {
  BUSY,
  Command,
  EpState,
  Iman,
  INTERRUPTERS,
  Link,
  Portsc,
  Ring,
  SLOTS,
  Status,
  speedIds,
  type XhciState,
  xhciLayout,
} from './xhci-state.ts';

export const XHCI_BYTES = 0x4000;
/** MSI-X table and pending bits in the BAR. */
export const XHCI_MSIX = 0x3000;
const CAPABILITIES = 0x20;
const OPERATIONAL = 0x40;
const PORTS = 0x440;
const RUNTIME = 0x1000;
const DOORBELLS = 0x2000;
/** A frame of 1 ms is eight microframes. */
const MICROFRAME_NS = 125_000;

export interface XhciOptions {
  readonly arena: Arena;
  readonly name: string;
  /** USB 2 and USB 3 ports. */
  readonly p2: number;
  readonly p3: number;
  readonly bell: Doorbell;
  /** ns. */
  readonly now: () => number;
  /** Sends interrupter `n`'s message; false where MSI-X is off. */
  readonly message: (n: number) => boolean;
  readonly intx: (level: 0 | 1) => void;
}

export class Xhci {
  readonly s: XhciState;
  readonly o: XhciOptions;
  /** USB 2 ports; port n is number `p3 + n + 1` to the guest. */
  readonly ports: readonly UsbPort[];
  /** On the I/O thread: a device has news for an endpoint (bit 7 for IN). */
  woken: (device: UsbDevice, endpoint: number) => void = () => {};

  constructor(o: XhciOptions) {
    this.o = o;
    this.s = o.arena.alloc(xhciLayout, o.name);
    this.ports = Array.from({ length: o.p2 }, (_, n) => new UsbPort(String(n + 1), ['low', 'full', 'high']));
    this.ports.forEach((port, n) => {
      port.owner = {
        connected: (there) => this.#connected(o.p3 + n, there),
        wake: (device, endpoint) => this.woken(device, endpoint),
      };
    });
  }

  get portCount(): number {
    return this.o.p2 + this.o.p3;
  }
  /** The port of a number that the guest counts from 1; undefined for USB 3 ports, into which nothing plugs. */
  portNumbered(n: number): UsbPort | undefined {
    return this.ports[n - 1 - this.o.p3];
  }

  /** State after power-on and after a reset by the guest. */
  reset(): void {
    const { s } = this;
    s.command = 0;
    s.status = Status.halted;
    s.notification = s.config = 0;
    s.crcr = s.dcbaap = s.ring = 0;
    s.ringOn = s.ringCycle = 0;
    Atomics.store(s.rung, 0, 0);
    s.portNews = 0;
    for (const i of s.interrupters) {
      i.iman = i.imod = i.erstsz = i.size = i.index = 0;
      i.erstba = i.erdp = i.start = 0;
      i.cycle = 1;
    }
    for (const slot of s.slots) {
      slot.on = slot.addressed = 0;
      Atomics.store(slot.rung, 0, 0);
      for (const e of slot.endpoints) {
        e.on = 0;
        e.state = EpState.disabled;
      }
    }
    for (let n = 0; n < this.portCount; n++) {
      s.portsc[n] = Portsc.power | (Link.rxDetect << Portsc.linkShift);
      this.#connected(n, this.portNumbered(n + 1)?.device !== undefined);
    }
    this.o.intx(0);
  }

  // ── Ports ──

  #connected(n: number, there: boolean): void {
    const { s } = this;
    const was = s.portsc[n]!;
    if (((was & Portsc.connected) !== 0) === there) return;
    const device = this.portNumbered(n + 1)?.device;
    const kept = (was & (Portsc.wake | Portsc.changes)) | Portsc.power | Portsc.connectChange;
    if (there && device)
      s.portsc[n] = kept | Portsc.connected | (speedIds[device.speed] << Portsc.speedShift) | (Link.polling << Portsc.linkShift);
    else s.portsc[n] = kept | (Link.rxDetect << Portsc.linkShift) | (was & Portsc.enabled ? Portsc.enableChange : 0);
    this.#portNews(n);
  }

  /** A change of port `n` is to be told. */
  #portNews(n: number): void {
    this.s.portNews |= 1 << n;
    this.o.bell.ring();
  }

  #writePort(n: number, value: number): void {
    const { s } = this;
    const old = s.portsc[n]!;
    let now = (old & ~Portsc.wake & ~(value & Portsc.changes)) | (value & Portsc.wake);
    if (value & Portsc.enabled) now &= ~Portsc.enabled;
    const link = (value & Portsc.linkMask) >>> Portsc.linkShift;
    if (value & Portsc.linkWrite) {
      const oldLink = (old & Portsc.linkMask) >>> Portsc.linkShift;
      const becomes = (l: number): void => {
        now = (now & ~Portsc.linkMask) | (l << Portsc.linkShift);
      };
      if (link === Link.u3 && oldLink < Link.u3) becomes(Link.u3);
      else if (link === Link.resume && oldLink === Link.u3) becomes(Link.resume);
      else if (link === Link.u0 && oldLink !== Link.u0 && old & Portsc.enabled) {
        becomes(Link.u0);
        now |= Portsc.linkChange;
      }
    }
    s.portsc[n] = now;
    const device = this.portNumbered(n + 1)?.device;
    if (value & (Portsc.reset | Portsc.warmReset) && device) {
      device.reset();
      s.portsc[n] =
        (now & ~Portsc.linkMask) | Portsc.enabled | (speedIds[device.speed] << Portsc.speedShift) | Portsc.resetChange;
      this.#portNews(n);
    } else if (now & ~old & Portsc.linkChange) this.#portNews(n);
  }

  // ── Interrupters ──

  /** Event ring `n` has a new event for the guest. */
  raise(n: number): void {
    const { s, o } = this;
    const i = s.interrupters[n]!;
    const wasBusy = (i.erdp & BUSY) !== 0;
    i.erdp = withBusy(i.erdp);
    i.iman |= Iman.pending;
    s.status |= Status.event;
    if (wasBusy || !(i.iman & Iman.enable) || !(s.command & Command.interrupts)) return;
    // A message says it once: the pending bit is for wires.
    if (o.message(n)) i.iman &= ~Iman.pending;
    else this.drive();
  }

  /** The wire, where there are no messages: interrupter 0 only. */
  drive(): void {
    const { s, o } = this;
    const i = s.interrupters[0]!;
    const level = i.iman & Iman.pending && i.iman & Iman.enable && s.command & Command.interrupts ? 1 : 0;
    o.intx(level);
  }

  #imanWritten(n: number, value: number): void {
    const i = this.s.interrupters[n]!;
    if (value & Iman.pending) i.iman &= ~Iman.pending;
    i.iman = (i.iman & ~Iman.enable) | (value & Iman.enable);
    if (n === 0) this.drive();
  }

  #erdpWritten(n: number, value: number): void {
    const i = this.s.interrupters[n]!;
    const clears = ((value % 16) & BUSY) !== 0;
    const clean = value - (value % 16) + (value % 8);
    i.erdp = ((i.erdp % 16) & BUSY) !== 0 && !clears ? clean + BUSY : clean;
    // Events that came while the guest was busy, and which it has not seen, interrupt again.
    const place = (clean - (clean % 16) - i.start) / 16;
    if (clears && place >= 0 && place < i.size && place !== i.index) this.raise(n);
    this.o.bell.ring();
  }

  #ringSet(n: number): void {
    const i = this.s.interrupters[n]!;
    i.index = 0;
    i.cycle = 1;
    i.size = 0;
    i.start = 0;
    this.o.bell.ring();
  }

  // ── Registers ──

  /** BAR 0 below MSI-X's table. */
  readonly handler: Handler = {
    read: (offset, size) => {
      if (size !== 4) {
        const word = this.#read(offset & ~3);
        return (word >>> (8 * (offset & 3))) & (size === 1 ? 0xff : 0xffff);
      }
      return this.#read(offset) >>> 0;
    },
    write: (offset, size, value) => {
      if (size === 4 && offset % 4 === 0) this.#write(offset, value);
    },
  };

  #read(at: number): number {
    if (at < OPERATIONAL) return this.#capability(at);
    if (at < PORTS) return this.#operational(at - OPERATIONAL);
    if (at < RUNTIME) {
      const n = (at - PORTS) >>> 4;
      return n < this.portCount && (at & 15) === 0 ? this.s.portsc[n]! : 0;
    }
    return at < DOORBELLS ? this.#runtime(at - RUNTIME) : 0;
  }

  #capability(at: number): number {
    const { p2, p3 } = this.o;
    switch (at) {
      case 0:
        return 0x0100_0000 | OPERATIONAL;
      case 4:
        return (this.portCount << 24) | (INTERRUPTERS << 8) | SLOTS;
      case 8:
        return 0x0f;
      case 0x10:
        // 64-bit addresses; extended capabilities.
        return ((CAPABILITIES / 4) << 16) | 1;
      case 0x14:
        return DOORBELLS;
      case 0x18:
        return RUNTIME;
      // Supported protocols, section 7.2: USB 3 ports come first.
      case CAPABILITIES:
        return 0x02000402;
      case CAPABILITIES + 4:
      case CAPABILITIES + 0x14:
        return 0x20425355;
      case CAPABILITIES + 8:
        return (p2 << 8) | (p3 + 1);
      case CAPABILITIES + 0x10:
        return 0x03000002;
      case CAPABILITIES + 0x18:
        return (p3 << 8) | 1;
      default:
        return 0;
    }
  }

  #operational(at: number): number {
    const { s } = this;
    switch (at) {
      case 0:
        return s.command;
      case 4:
        return s.status;
      case 8:
        return 1;
      case 0x14:
        return s.notification;
      case 0x18:
        return s.ringOn ? Ring.running : 0;
      case 0x30:
        return low(s.dcbaap);
      case 0x34:
        return high(s.dcbaap);
      case 0x38:
        return s.config;
      default:
        return 0;
    }
  }

  #runtime(at: number): number {
    if (at === 0) return Math.floor(this.o.now() / MICROFRAME_NS) & 0x3fff;
    const n = (at - 0x20) >>> 5;
    if (at < 0x20 || n >= INTERRUPTERS) return 0;
    const i = this.s.interrupters[n]!;
    switch (at & 0x1f) {
      case 0:
        return i.iman;
      case 4:
        return i.imod;
      case 8:
        return i.erstsz;
      case 0x10:
        return low(i.erstba);
      case 0x14:
        return high(i.erstba);
      case 0x18:
        return low(i.erdp);
      case 0x1c:
        return high(i.erdp);
      default:
        return 0;
    }
  }

  #write(at: number, value: number): void {
    const { s } = this;
    if (at >= DOORBELLS) {
      this.#doorbell((at - DOORBELLS) >>> 2, value);
      return;
    }
    if (at >= RUNTIME) {
      this.#writeRuntime(at - RUNTIME, value);
      return;
    }
    if (at >= PORTS) {
      const n = (at - PORTS) >>> 4;
      if (n < this.portCount && (at & 15) === 0) this.#writePort(n, value);
      return;
    }
    switch (at - OPERATIONAL) {
      case 0:
        this.#writeCommand(value);
        return;
      case 4:
        s.status &= ~(value & (Status.hostError | Status.event | Status.port | Status.saveError));
        return;
      case 0x14:
        s.notification = value & 0xffff;
        return;
      case 0x18:
        s.crcr = withLow(s.crcr, value);
        return;
      case 0x1c:
        this.#writeRing(withHigh(s.crcr, value));
        return;
      case 0x30:
        s.dcbaap = withLow(s.dcbaap, value & ~0x3f);
        return;
      case 0x34:
        s.dcbaap = withHigh(s.dcbaap, value);
        return;
      case 0x38:
        s.config = value & 0xff;
        return;
      default:
    }
  }

  #writeCommand(value: number): void {
    const { s } = this;
    const was = s.command;
    s.command = value & 0x0c0f;
    if (value & Command.reset) {
      this.reset();
      return;
    }
    if (value & ~was & Command.run) {
      s.status &= ~Status.halted;
      this.o.bell.ring();
    } else if (was & ~value & Command.run) {
      s.status |= Status.halted;
      s.ringOn = 0;
    }
    this.drive();
  }

  #writeRing(crcr: number): void {
    const { s } = this;
    s.crcr = crcr;
    const flags = crcr % 64;
    if (flags & (Ring.stop | Ring.abort) && s.ringOn) {
      s.ringOn = 0;
      // The other thread tells that the ring stands.
      Atomics.or(s.rung, 0, 2);
      this.o.bell.ring();
      return;
    }
    s.ring = crcr - flags;
    s.ringCycle = flags & Ring.cycle;
  }

  #writeRuntime(at: number, value: number): void {
    const n = (at - 0x20) >>> 5;
    if (at < 0x20 || n >= INTERRUPTERS) return;
    const i = this.s.interrupters[n]!;
    switch (at & 0x1f) {
      case 0:
        this.#imanWritten(n, value);
        return;
      case 4:
        i.imod = value;
        return;
      case 8:
        i.erstsz = value & 0xffff;
        return;
      case 0x10:
        i.erstba = withLow(i.erstba, value & ~0x3f);
        return;
      case 0x14:
        i.erstba = withHigh(i.erstba, value);
        this.#ringSet(n);
        return;
      case 0x18:
        // The high half may follow; the low one has the busy bit.
        this.#erdpWritten(n, withLow(i.erdp, value));
        return;
      case 0x1c: {
        i.erdp = withHigh(i.erdp, value);
        this.o.bell.ring();
        return;
      }
      default:
    }
  }

  #doorbell(slot: number, value: number): void {
    const { s } = this;
    if (s.status & Status.halted) return;
    if (slot === 0) {
      if (value !== 0) return;
      s.ringOn = 1;
      Atomics.or(s.rung, 0, 1);
    } else {
      const target = value & 0xff;
      if (slot > SLOTS || target === 0 || target > 31 || !s.slots[slot]!.on) return;
      Atomics.or(s.slots[slot]!.rung, 0, (1 << target) | 0);
    }
    this.o.bell.ring();
  }
}

const low = (a: number): number => (a % 2 ** 32) >>> 0;
const high = (a: number): number => Math.floor(a / 2 ** 32) >>> 0;
/** Addresses have at most 52 bits: more could not be kept exactly, and there is nothing. */
const withLow = (a: number, v: number): number => high(a) * 2 ** 32 + (v >>> 0);
const withHigh = (a: number, v: number): number => (v & 0xfffff) * 2 ** 32 + low(a);
const withBusy = (a: number): number => ((a % 16) & BUSY ? a : a + BUSY);
