// How interrupt messages find local APICs: destination modes, shorthands, lowest priority, MSI. Intel SDM volume 3A (order 253668), sections 11.6.2, 11.10 and 11.11.
import type { Msi, MsiSink } from '../bus/irq.ts';
import type { Lapic } from './lapic.ts';

/** Delivery modes, SDM 3A, section 11.6.1. */
export const delivery = { fixed: 0, lowest: 1, smi: 2, nmi: 4, init: 5, sipi: 6, extInt: 7 } as const;

/** Who hears of a level-triggered interrupt's end. */
export interface EoiListener {
  /** The board's lock is held. */
  eoi(vector: number): void;
  /** The local APICs are elsewhere now. */
  rerouted(): void;
}

/** The board's other interrupt controllers and its timer, where an accelerator keeps them: the wires that lead to them. */
export interface RemoteChips {
  /** Input n, 0 to 15, of the pair of 8259As. */
  pic(n: number, level: 0 | 1): void;
  /** Pin n, 0 to 23, of the I/O APIC. */
  pin(n: number, level: 0 | 1): void;
  /** Whether the timer's interrupt is cut, since the HPET stands in for it. */
  cutTimer(cut: boolean): void;
}

/** Local APICs that an accelerator keeps: messages go there, and it must know where the I/O APIC's pins point. */
export interface RemoteApics {
  /** True when at least one local APIC took the message. */
  msi(address: number, data: number): boolean;
  /** The messages of the I/O APIC's pins; `undefined` for a masked one. */
  routes(pins: readonly (Msi | undefined)[]): void;
  /** The chips of the board that it keeps, too. */
  readonly chips?: RemoteChips;
}

/** The local APICs of one machine, in order of their vCPUs. Sending is lock-free. */
export class ApicBus {
  readonly lapics: Lapic[] = [];
  #remote: RemoteApics | undefined;
  readonly #listeners: EoiListener[] = [];

  /** With `remote`, the local APICs of this bus hear nothing. */
  constructor(remote?: RemoteApics) {
    this.#remote = remote;
  }

  get remote(): RemoteApics | undefined {
    return this.#remote;
  }
  /** Local APICs move to an accelerator, or back. With the board's lock held and the vCPUs held. */
  set remote(remote: RemoteApics | undefined) {
    this.#remote = remote;
    for (const l of this.#listeners) l.rerouted();
  }

  /** Called by the I/O APICs when they are made. */
  listen(listener: EoiListener): void {
    this.#listeners.push(listener);
  }

  /** Whether a local APIC of this bus has `vector` requested or in service. */
  holds(vector: number): boolean {
    const [word, bit] = [vector >>> 5, 1 << (vector & 31)];
    return this.lapics.some(({ s }) => ((s.irr[word]! | s.isr[word]!) & bit) !== 0);
  }

  /** Ends level-triggered interrupt `vector` at every I/O APIC. */
  eoi(vector: number): void {
    for (const l of this.#listeners) l.eoi(vector);
  }

  /**
   * Sends one message. `destination` is 8 bits wide, or 32 where `wide` (an x2APIC's IPI, or an MSI with an extended
   * destination). True when at least one local APIC took it.
   */
  send(destination: number, logical: boolean, mode: number, vector: number, level: boolean, wide = false): boolean {
    if (this.remote) {
      const { address, data } = messageOf(destination, logical, mode, vector, level);
      return this.remote.msi(address, data);
    }
    return this.#sendHere(destination, logical, mode, vector, level, wide);
  }
  #sendHere(destination: number, logical: boolean, mode: number, vector: number, level: boolean, wide: boolean): boolean {
    if (mode === delivery.lowest) {
      const target = this.#lowest(destination, logical, vector, wide);
      return target?.accept(delivery.fixed, vector, level) ?? false;
    }
    let taken = false;
    for (const l of this.lapics) {
      if (matches(l, destination, logical, wide)) taken = l.accept(mode, vector, level) || taken;
    }
    return taken;
  }

  /** Sends to all, or to all but `except`. */
  broadcast(mode: number, vector: number, level: boolean, except?: Lapic): void {
    for (const l of this.lapics) {
      if (l !== except) l.accept(mode === delivery.lowest ? delivery.fixed : mode, vector, level);
    }
  }

  /**
   * An MSI: a write of `data` to `address` 0xFEEx_xxxx; other addresses are ignored. Bits 11:5 of the address extend the
   * destination to 15 bits (KVM's MSI_EXT_DEST_ID); they are zero otherwise.
   */
  readonly deliverMsi: MsiSink = (address, data) => {
    if (Math.floor(address / 0x10_0000) !== 0xfee) return;
    if (this.remote) {
      this.remote.msi(address, data);
      return;
    }
    this.deliverHere(address, data);
  };
  /** The same, to the local APICs of this bus wherever others are. True when at least one took it. */
  deliverHere(address: number, data: number): boolean {
    const low = address % 0x10_0000;
    // Bits 63:40 are as `messageOf` has them.
    const extended = ((low >>> 5) & 0x7f) << 8 || Math.floor(address / 2 ** 40) << 8;
    const destination = ((low >>> 12) | extended) >>> 0;
    // With the redirection hint clear, the message goes to the one named, whatever the destination mode bit says of logical.
    const logical = (low & 4) !== 0;
    return this.#sendHere(destination, logical, (data >>> 8) & 7, data & 0xff, (data & 0x8000) !== 0, extended !== 0);
  }

  #lowest(destination: number, logical: boolean, vector: number, wide: boolean): Lapic | undefined {
    let best: Lapic[] = [];
    let lowest = 0x100;
    for (const l of this.lapics) {
      if (!l.enabled || !matches(l, destination, logical, wide)) continue;
      const priority = l.ppr & 0xf0;
      if (priority < lowest) {
        lowest = priority;
        best = [l];
      } else if (priority === lowest) best.push(l);
    }
    // Equals share the load by vector, which needs no state and keeps each interrupt on one vCPU.
    return best[vector % best.length];
  }
}

/** An interrupt as a message: SDM 3A, section 11.11. Destinations beyond 8 bits go to address bits 63:40, as KVM's x2APIC interface has them. */
export function messageOf(destination: number, logical: boolean, mode: number, vector: number, level: boolean): Msi {
  const low = 0xfee0_0000 + (destination & 0xff) * 0x1000 + (mode === delivery.lowest ? 8 : 0) + (logical ? 4 : 0);
  const high = (destination & ~0xff) >>> 0;
  return { address: high * 2 ** 32 + low, data: vector | (mode << 8) | 0x4000 | (level ? 0x8000 : 0) };
}

function matches(l: Lapic, destination: number, logical: boolean, wide: boolean): boolean {
  const mode = l.mode;
  if (mode === 'off') return destination === l.apicId && !logical;
  if (destination === (wide ? 0xffff_ffff : 0xff)) return true;
  if (!logical) return destination === l.id;
  if (mode === 'x2apic') {
    const ldr = l.ldr;
    return destination >>> 16 === ldr >>> 16 && (destination & ldr & 0xffff) !== 0;
  }
  if (destination > 0xff) return false;
  const own = l.ldr >>> 24;
  if (l.dfr >>> 28 === 0xf) return (own & destination) !== 0;
  const cluster = destination >>> 4;
  return (cluster === own >>> 4 || cluster === 0xf) && (own & destination & 0xf) !== 0;
}
