// The PCI Express capability of root ports with a slot that takes hot-plugged devices, and of devices behind them.
// PCI Express Base Specification 3.0, sections 6.7 and 7.8.
import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { IrqLine } from '../bus/irq.ts';
import type { PciFunction } from './pci-function.ts';

const CAPABILITY = 0x10;
/** Bytes of version 2 without ID and link. */
const LENGTH = 0x3a;
/** Offsets in the capability. */
const at = { linkStatus: 0x12, slotControl: 0x18, slotStatus: 0x1a } as const;
const status = { button: 1, presenceChanged: 8, commandDone: 0x10, present: 0x40, linkChanged: 0x100 } as const;
const control = { commandDone: 0x10, interrupts: 0x20, indicator: 0x300, indicatorOff: 0x300, powerOff: 0x400 } as const;
/** 16 GT/s, one lane. */
const LINK = 0x14;
const linkActive = 0x2000;

const half = (v: number): number[] => [v & 0xff, (v >>> 8) & 0xff];
const word = (v: number): number[] => [...half(v & 0xffff), ...half(v >>> 16)];

/** Makes a function an Express endpoint. */
export function addEndpoint(f: PciFunction): void {
  const data = new Array<number>(LENGTH).fill(0);
  const set = (offset: number, bytes: readonly number[]): void => void data.splice(offset - 2, bytes.length, ...bytes);
  const writable = new Array<number>(LENGTH).fill(0);
  set(2, half(2));
  set(4, word(0x8000));
  set(0x0c, word(LINK));
  set(at.linkStatus, half(LINK));
  writable.splice(6, 2, 0x0f, 0x70);
  writable.splice(0x0e, 2, 0xc3, 0x03);
  f.addCapability(CAPABILITY, data, writable);
}

/** Makes a function an Express endpoint by version 1 of the capability, at `offset`: of the root complex itself, or behind a port. */
export function addEndpointV1(f: PciFunction, offset: number, integrated: boolean): void {
  const LINK_V1 = 0x411;
  f.startCapabilitiesAt(offset);
  f.addCapability(
    CAPABILITY,
    [...half(1 | (integrated ? 0x90 : 0)), ...word(0x8000), ...word(0), ...word(LINK_V1), ...word(0x0011_0000)],
    [0, 0, 0, 0, 0, 0, 0x0f, 0x70, 0, 0, 0, 0, 0, 0, 0xc3, 0x03],
  );
}

/** Slot control as it was before the last write. */
export const rootPortLayout = struct({ control: 'u16' }, { name: 'root-port', version: 1 });

export interface RootPortOptions {
  readonly arena: Arena;
  readonly name: string;
  readonly f: PciFunction;
  readonly irq: IrqLine;
  /** Numbers of the port and of its slot. */
  readonly port: number;
  readonly slot: number;
  readonly hotplug: boolean;
  /** Whether a device is in the slot. */
  readonly occupied: () => boolean;
  /** The guest has turned the slot's power off: what is in it may go. */
  readonly release: () => void;
}

/** The slot of a root port. */
export class RootPort {
  readonly #o: RootPortOptions;
  readonly #at: number;
  readonly #s: ViewOf<typeof rootPortLayout>;

  constructor(o: RootPortOptions) {
    this.#o = o;
    this.#s = o.arena.alloc(rootPortLayout, o.name);
    const data = new Array<number>(LENGTH).fill(0);
    const writable = new Array<number>(LENGTH).fill(0);
    const set = (offset: number, bytes: readonly number[]): void => void data.splice(offset - 2, bytes.length, ...bytes);
    const write = (offset: number, bytes: readonly number[]): void => void writable.splice(offset - 2, bytes.length, ...bytes);
    // Version 2, root port with a slot.
    set(2, half(0x142));
    set(4, word(0x8000));
    write(8, [0x0f, 0x00]);
    // The link says when it is up.
    set(0x0c, word(LINK | 0x10_0000 | (o.port << 24)));
    write(0x10, [0xd3, 0x0f]);
    set(at.linkStatus, half(LINK));
    // Attention button, power controller, both indicators, hot-plug; slot number.
    set(0x14, word((o.hotplug ? 0x1b | 0x40 : 0) | (o.slot << 19)));
    set(at.slotControl, half(o.hotplug ? 0x3c0 : 0));
    write(at.slotControl, [0xff, 0x17]);
    write(0x1c, [0x1f, 0x00]);
    set(0x24, word(0x20));
    write(0x28, [0x20, 0x00]);
    this.#at = o.f.addCapability(CAPABILITY, data, writable);
    o.f.clearable(this.#at + at.slotStatus, [status.button | status.presenceChanged | status.commandDone | 6, 1]);
    o.f.onWrite((offset, size) => {
      const first = this.#at + at.slotControl;
      if (offset < first + 4 && offset + size > first) this.#written(offset < first + 2);
    });
  }

  /** After the function's reset: what is in the slot is seen. */
  reset(): void {
    this.#presence();
    // The power of an empty slot is off.
    if (this.#o.hotplug && !this.#o.occupied()) this.#setControl(this.#control | control.powerOff);
    this.#s.control = this.#control;
  }

  #setControl(value: number): void {
    this.#o.f.poke(this.#at + at.slotControl, 2, value);
  }
  get #control(): number {
    return this.#o.f.read(this.#at + at.slotControl, 2);
  }
  get #status(): number {
    return this.#o.f.read(this.#at + at.slotStatus, 2);
  }

  #presence(): void {
    const { f, occupied } = this.#o;
    f.poke(this.#at + at.slotStatus, 2, (this.#status & ~status.present) | (occupied() ? status.present : 0));
    f.poke(this.#at + at.linkStatus, 2, occupied() ? LINK | linkActive : LINK);
  }

  /** Something was put into the slot, or taken out of it. With the board's lock held, on one thread. */
  changed(plugged: boolean): void {
    this.#presence();
    this.#events(status.presenceChanged | status.linkChanged | (plugged ? status.button : 0));
  }

  /** Presses the attention button: asks the guest to let go. False where it has the power off already. */
  press(): boolean {
    if (this.#isOff(this.#control)) return false;
    this.#events(status.button);
    return true;
  }

  #isOff(value: number): boolean {
    return (value & control.powerOff) !== 0 && (value & control.indicator) === control.indicatorOff;
  }

  #events(bits: number): void {
    this.#o.f.poke(this.#at + at.slotStatus, 2, this.#status | bits);
    this.#drive();
  }

  /** Bits of slot control that enable an event have the places of the events in slot status, but for that of the link. */
  #drive(): void {
    const { irq } = this.#o;
    const enabled = (this.#control & 0x1f) | (this.#control & 0x1000 ? status.linkChanged : 0);
    irq.set(this.#control & control.interrupts && this.#status & enabled ? 1 : 0);
  }

  #written(toControl: boolean): void {
    if (toControl) {
      const { occupied, release } = this.#o;
      // A command is over as soon as it is written.
      this.#o.f.poke(this.#at + at.slotStatus, 2, this.#status | status.commandDone);
      // What was off before stays: it may be about to be turned on for what was just put in.
      if (this.#isOff(this.#control) && !this.#isOff(this.#s.control) && occupied()) release();
      this.#s.control = this.#control;
    }
    this.#drive();
  }
}
