// A local APIC, xAPIC and x2APIC: its interrupts, local vectors and interprocessor interrupts. Intel SDM volume 3A (order 253668), chapter 11.
import type { Arena } from '../bits/arena.ts';
import { highestBit } from '../bits/fields.ts';
import type { Clock, Timed } from '../bus/clock.ts';
import type { Report } from '../bus/events.ts';
import type { GuestMemory } from '../bus/memory.ts';
import type { MsrHandler } from '../bus/msr.ts';
import type { Handler, Mapper } from '../bus/space.ts';
import { type ApicBus, delivery } from './apic-bus.ts';
import { lapicMsrs, lapicRegisters } from './lapic-registers.ts';
import { type LapicState, lapicLayout, lvt, lvtMasked, lvtWritable, remoteIrr, timerTscDeadline } from './lapic-state.ts';
import { LapicTimer, type Tsc } from './lapic-timer.ts';

/** Bits of what `takeEvents` returns; the SIPI's vector is in bits 15:8. */
export const event = { nmi: 1, init: 2, smi: 4, sipi: 8, nmiAgain: 16 } as const;
/** The start page (address bits 19:12) of a SIPI in `events`; -1 when there is none. */
export const sipiVector = (events: number): number => (events & event.sipi ? (events >>> 8) & 0xff : -1);

/** Bits of IA32_APIC_BASE, MSR 0x1B. */
const base = { bsp: 0x100, x2: 0x400, enable: 0x800 } as const;
const svrEnabled = 0x100;
const svrNoBroadcast = 0x1000;
const errors = { sendVector: 0x20, receiveVector: 0x40 } as const;

/** What an 8259A pair gives to the CPU that its output reaches. */
export interface ExtInt {
  /** The interrupt acknowledge cycle: the vector. */
  acknowledge(): number;
}

export interface LapicOptions {
  readonly arena: Arena;
  readonly bus: ApicBus;
  /** Index of the vCPU in the machine. */
  readonly cpu: number;
  /** Initial APIC ID; the vCPU's index when absent. */
  readonly apicId?: number;
  readonly clock: Clock;
  readonly tsc: Tsc;
  readonly pic?: ExtInt;
  readonly memory?: GuestMemory;
  /** Makes the vCPU look at `pending` and `takeEvents` soon. Callable from any thread, with or without the lock. */
  readonly kick: (cpu: number) => void;
  /** The timer's `next()` may have become earlier. */
  readonly retime?: () => void;
  /** The MMIO page moved, came or went. */
  readonly moved?: () => void;
  readonly report?: Report;
  /** Physical address bits, for the reserved bits of IA32_APIC_BASE; 46 when absent. */
  readonly physBits?: number;
  /** What CPUID offers; both when absent. Without `x2apic` the mode cannot be entered, without `tscDeadline` its register is none. */
  readonly features?: { readonly x2apic: boolean; readonly tscDeadline: boolean };
}

export class Lapic implements Timed {
  readonly cpu: number;
  readonly apicId: number;
  readonly s: LapicState;
  readonly timer: LapicTimer;
  /** The xAPIC page. */
  readonly mmio: Handler;
  /** IA32_APIC_BASE (0x1B), IA32_TSC_DEADLINE (0x6E0) and the x2APIC's 0x800 to 0x83F. */
  readonly msrs: MsrHandler;
  readonly bus: ApicBus;
  readonly #pic: ExtInt | undefined;
  readonly #memory: GuestMemory | undefined;
  readonly #kick: (cpu: number) => void;
  readonly #moved: () => void;
  readonly #reservedBase: bigint;
  readonly #timerWritable: number;
  /** Whether IA32_TSC_DEADLINE is there. */
  readonly tscDeadline: boolean;

  /** Joins `bus`. Call `reset` once per machine, not per thread. */
  constructor(o: LapicOptions) {
    this.cpu = o.cpu;
    this.apicId = o.apicId ?? o.cpu;
    this.bus = o.bus;
    this.s = o.arena.alloc(lapicLayout, String(o.cpu));
    this.timer = new LapicTimer(this.s, o.clock, o.tsc, () => this.raise(lvt.timer), o.retime ?? (() => {}));
    this.#pic = o.pic;
    this.#memory = o.memory;
    this.#kick = o.kick;
    this.#moved = o.moved ?? (() => {});
    const { x2apic, tscDeadline } = o.features ?? { x2apic: true, tscDeadline: true };
    this.#reservedBase = ~((1n << BigInt(o.physBits ?? 46)) - 1n) | (x2apic ? 0x2ffn : 0x6ffn);
    this.tscDeadline = tscDeadline;
    this.#timerWritable = tscDeadline ? lvtWritable[lvt.timer] : lvtWritable[lvt.timer] & ~timerTscDeadline;
    this.mmio = lapicRegisters.bind(this, o.report);
    this.msrs = lapicMsrs(this);
    o.bus.lapics.push(this);
  }

  /** Power-on state: enabled as an xAPIC at 0xFEE0_0000. The first vCPU is the bootstrap processor. */
  reset(): void {
    this.s.baseLow = 0xfee0_0000 | base.enable | (this.cpu === 0 ? base.bsp : 0);
    this.s.baseHigh = 0;
    this.s.id = this.apicId;
    Atomics.store(this.s.events, 0, 0);
    Atomics.store(this.s.lines, 0, 0);
    this.init();
    this.#moved();
  }

  /** State after INIT, SDM 3A, section 11.4.7.3: as after power-on, but the ID and the base stay. */
  init(): void {
    const s = this.s;
    for (let i = 0; i < 8; i++) {
      Atomics.store(s.irr, i, 0);
      Atomics.store(s.tmr, i, 0);
      Atomics.store(s.isr, i, 0);
    }
    Atomics.store(s.errors, 0, 0);
    s.tpr = 0;
    s.dfr = 0xffff_ffff;
    s.ldr = this.mode === 'x2apic' ? x2Ldr(this.apicId) : 0;
    s.svr = 0xff;
    s.esr = 0;
    s.icrLow = 0;
    s.icrHigh = 0;
    s.lvt.fill(lvtMasked);
    // The BIOS would open the virtual wire; until then the 8259As reach the CPU through LINT0 all the same (KVM does so too).
    if (this.cpu === 0) s.lvt[lvt.lint0] = 0x700;
    s.pvEoi = 0;
    s.pvEoiArmed = 0;
    this.timer.reset();
  }

  get mode(): 'off' | 'xapic' | 'x2apic' {
    const low = this.s.baseLow;
    return (low & base.enable) === 0 ? 'off' : (low & base.x2) === 0 ? 'xapic' : 'x2apic';
  }

  /** Hardware and software enabled. */
  get enabled(): boolean {
    return (this.s.baseLow & base.enable) !== 0 && (this.s.svr & svrEnabled) !== 0;
  }

  /** 8 bits as an xAPIC, 32 bits as an x2APIC. */
  get id(): number {
    return this.s.id;
  }
  get ldr(): number {
    return this.s.ldr;
  }
  get dfr(): number {
    return this.s.dfr;
  }

  /** Processor priority, SDM 3A, section 11.8.3.1. */
  get ppr(): number {
    const inService = Math.max(0, highest(this.s.isr)) & 0xf0;
    const tpr = this.s.tpr;
    return (tpr & 0xf0) >= inService ? tpr : inService;
  }

  /** CR8: bits 7:4 of the task priority, 0 to 15. Called by the vCPU itself. */
  get tpr(): number {
    return this.s.tpr >>> 4;
  }
  set tpr(value: number) {
    this.setTaskPriority((value & 15) << 4);
  }

  setTaskPriority(value: number): void {
    const lowered = value < this.s.tpr;
    this.s.tpr = value & 0xff;
    if (lowered) this.#recheck();
  }

  // ── What the vCPU's loop asks; lock-free, on the vCPU's own thread ──

  /** True when an interrupt waits that priorities let through; EFLAGS.IF is the caller's. */
  pending(): boolean {
    if (this.s.pvEoiArmed !== 0) this.#settlePvEoi();
    return this.#deliverable() >= 0 || this.#extInt();
  }

  /** NMI, INIT, SMI and SIPI since the last call, as bits of `event`; 0, by one load, when there is nothing. */
  takeEvents(): number {
    return this.s.events[0] === 0 ? 0 : Atomics.exchange(this.s.events, 0, 0);
  }

  /**
   * The interrupt acknowledge: the vector, which is now in service. With the board's lock held.
   * The spurious vector when nothing waits any more.
   */
  acknowledge(): number {
    const s = this.s;
    if (s.pvEoiArmed !== 0) this.#settlePvEoi();
    if (this.#extInt()) return this.#pic!.acknowledge();
    const vector = this.#deliverable();
    if (vector < 0) return s.svr & 0xff;
    const alone = highest(s.isr) < 0;
    const bit = 1 << (vector & 31);
    Atomics.and(s.irr, vector >>> 5, ~bit);
    Atomics.or(s.isr, vector >>> 5, bit);
    if (s.pvEoi !== 0) this.#offerPvEoi(alone && (s.tmr[vector >>> 5]! & bit) === 0 && highest(s.irr) < 0);
    return vector;
  }

  // ── Interrupts that arrive; lock-free, from any thread ──

  /** Takes a message by its delivery mode. False when it is dropped. */
  accept(mode: number, vector: number, level: boolean): boolean {
    switch (mode) {
      case delivery.fixed:
      case delivery.lowest:
        return this.#fixed(vector, level);
      case delivery.smi:
        return this.#event(event.smi);
      case delivery.nmi:
        return this.#event(event.nmi);
      case delivery.init:
        return this.#event(event.init);
      case delivery.sipi:
        return this.#sipi(vector);
      case delivery.extInt:
        this.#kick(this.cpu);
        return true;
      default:
        return false;
    }
  }

  /** The level of LINT0 (the 8259As' output) or LINT1 (NMI). With the board's lock held. */
  lint(n: 0 | 1, level: 0 | 1): void {
    const before = level ? Atomics.or(this.s.lines, 0, 1 << n) : Atomics.and(this.s.lines, 0, ~(1 << n));
    if (level && (before & (1 << n)) === 0) {
      if (this.mode !== 'off') this.raise(n === 0 ? lvt.lint0 : lvt.lint1);
      else if (n === 0) this.#kick(this.cpu);
      else this.#event(event.nmi);
    }
  }

  /** A local interrupt source fires: delivers what its vector says. With the board's lock held. */
  raise(index: number): void {
    const entry = this.s.lvt[index]!;
    if (entry & lvtMasked) return;
    const vector = entry & 0xff;
    if (index === lvt.timer || index === lvt.error) {
      this.#fixed(vector, false);
      return;
    }
    const mode = (entry >>> 8) & 7;
    if (mode === delivery.init || mode === delivery.sipi || mode === delivery.lowest) return;
    const level = index === lvt.lint0 && mode === delivery.fixed && (entry & 0x8000) !== 0;
    if (level) this.s.lvt[index] = entry | remoteIrr;
    if (index === lvt.perf) this.s.lvt[index] = entry | lvtMasked;
    this.accept(mode, vector, level);
  }

  /** A performance counter ran over. Intel's processors mask the vector then (11.5.1). With the board's lock held. */
  overflow(masks: boolean): void {
    const before = this.s.lvt[lvt.perf]!;
    this.raise(lvt.perf);
    if (!masks) this.s.lvt[lvt.perf] = before;
  }

  // ── What the guest writes; with the board's lock held ──

  /** End of interrupt: of the one in service with the highest vector. */
  eoi(): void {
    const s = this.s;
    if (s.pvEoiArmed !== 0) {
      s.pvEoiArmed = 0;
      this.#memory?.write8(s.pvEoi, this.#memory.read8(s.pvEoi) & ~1);
    }
    const vector = highest(s.isr);
    if (vector < 0) return;
    const bit = 1 << (vector & 31);
    Atomics.and(s.isr, vector >>> 5, ~bit);
    if ((s.tmr[vector >>> 5]! & bit) !== 0) {
      const line = s.lvt[lvt.lint0]!;
      if (line & remoteIrr && (line & 0xff) === vector) {
        s.lvt[lvt.lint0] = line & ~remoteIrr;
        if (s.lines[0]! & 1) this.raise(lvt.lint0);
      }
      if ((s.svr & svrNoBroadcast) === 0) this.bus.eoi(vector);
    }
    this.#recheck();
  }

  /** A write of the interrupt command register, SDM 3A, section 11.6.1. `high` holds the destination as the mode has it. */
  command(high: number, low: number): void {
    this.s.icrHigh = high;
    this.s.icrLow = low & 0xc_cfff;
    const wide = this.mode === 'x2apic';
    const mode = (low >>> 8) & 7;
    const vector = low & 0xff;
    const level = (low & 0x8000) !== 0;
    if (mode === delivery.extInt || mode === 3) return;
    // INIT level de-assert: only ancient processors act on it.
    if (mode === delivery.init && level && (low & 0x4000) === 0) return;
    if ((mode === delivery.fixed || mode === delivery.lowest) && vector < 16) {
      this.error(errors.sendVector);
      return;
    }
    // Of interprocessor interrupts only INIT has a trigger mode; the rest are edges.
    switch ((low >>> 18) & 3) {
      case 0:
        this.bus.send(wide ? high : high >>> 24, (low & 0x800) !== 0, mode, vector, false, wide);
        return;
      case 1:
        if (mode === delivery.fixed) this.accept(mode, vector, false);
        return;
      case 2:
        this.bus.broadcast(mode, vector, false);
        return;
      default:
        this.bus.broadcast(mode, vector, false, this);
    }
  }

  setSpurious(value: number): void {
    this.s.svr = value & 0x13ff;
    if ((value & svrEnabled) === 0) for (let i = 0; i < 6; i++) this.s.lvt[i] = this.s.lvt[i]! | lvtMasked;
    else this.#recheck();
  }

  setLvt(index: number, value: number): void {
    const s = this.s;
    if (index === lvt.timer) this.timer.catchUp();
    const writable = index === lvt.timer ? this.#timerWritable : lvtWritable[index]!;
    let entry = (value & writable) | (s.lvt[index]! & remoteIrr);
    if ((s.svr & svrEnabled) === 0) entry |= lvtMasked;
    if (index === lvt.timer) this.timer.modeChanges(s.lvt[index]!, entry);
    s.lvt[index] = entry;
    if (index === lvt.lint0) this.#recheck();
  }

  /** Errors show up in ESR at the next write to it, and fire the error vector at once. */
  error(bits: number): void {
    const before = Atomics.or(this.s.errors, 0, bits);
    if ((before & bits) !== bits && (this.s.lvt[lvt.error]! & 0xff) >= 16) this.raise(lvt.error);
  }

  /** IA32_APIC_BASE. False for reserved bits and for transitions that SDM 3A, section 11.12.5, does not have. */
  setBase(value: bigint): boolean {
    if ((value & this.#reservedBase) !== 0n) return false;
    const was = this.mode;
    const low = Number(value & 0xffff_ffffn);
    const on = (low & base.enable) !== 0;
    const x2 = (low & base.x2) !== 0;
    if ((x2 && !on) || (was === 'off' && x2) || (was === 'x2apic' && on && !x2)) return false;
    this.s.baseLow = low;
    this.s.baseHigh = Number(value >> 32n);
    if (this.mode !== was) {
      if (x2) {
        this.s.id = this.apicId;
        this.s.ldr = x2Ldr(this.apicId);
      } else if (!on) {
        this.init();
        if (this.s.lines[0]! & 1) this.#kick(this.cpu);
      } else this.s.id = this.apicId & 0xff;
    }
    this.#moved();
    return true;
  }

  /** IA32_APIC_BASE as it reads. */
  get baseMsr(): bigint {
    return (BigInt(this.s.baseHigh) << 32n) | BigInt(this.s.baseLow);
  }

  /** For `AddressSpace.movable` of this vCPU's own address space: the xAPIC page, where it is. */
  readonly mapper: Mapper = (map) => {
    if (this.mode !== 'xapic') return;
    const page =
      this.s.baseHigh * 2 ** 32 + (this.s.baseLow & 0xffff_f000) + ((this.s.baseLow & 0x8000_0000) !== 0 ? 2 ** 32 : 0);
    map({ base: page, length: 0x1000, name: 'apic-msi', handler: this.mmio });
  };

  /** MSR_KVM_EOI_EN: the word's guest-physical address, 0 for none. */
  setPvEoi(address: number): void {
    // An end that the guest has given through the old word counts; an offer in it that is left does not any more.
    if (this.s.pvEoiArmed !== 0) this.#settlePvEoi();
    if (this.s.pvEoiArmed !== 0) this.#offerPvEoi(false);
    this.s.pvEoi = address;
  }

  next(): number {
    return this.s.expires;
  }

  tick(now: number): void {
    this.timer.tick(now);
  }

  // ── Inside ──

  /** The vector that priorities let through, -1 for none. */
  #deliverable(): number {
    if (!this.enabled) return -1;
    const vector = highest(this.s.irr);
    return vector >= 0 && (vector & 0xf0) > (this.ppr & 0xf0) ? vector : -1;
  }

  /** True when the 8259As ask and LINT0 (or an APIC that is off) lets them through. */
  #extInt(): boolean {
    if ((this.s.lines[0]! & 1) === 0 || this.#pic === undefined) return false;
    if (this.mode === 'off') return true;
    const entry = this.s.lvt[lvt.lint0]!;
    return (entry & lvtMasked) === 0 && ((entry >>> 8) & 7) === delivery.extInt;
  }

  #recheck(): void {
    if (this.pending()) this.#kick(this.cpu);
  }

  #fixed(vector: number, level: boolean): boolean {
    if (vector < 16) {
      this.error(errors.receiveVector);
      return false;
    }
    if (!this.enabled) return false;
    const word = vector >>> 5;
    const bit = 1 << (vector & 31);
    if (level) Atomics.or(this.s.tmr, word, bit);
    else if (this.s.tmr[word]! & bit) Atomics.and(this.s.tmr, word, ~bit);
    Atomics.or(this.s.irr, word, bit);
    this.#kick(this.cpu);
    return true;
  }

  #event(bit: number): boolean {
    const before = Atomics.or(this.s.events, 0, bit);
    // Two NMIs may be on their way.
    if (bit === event.nmi && before & event.nmi) Atomics.or(this.s.events, 0, event.nmiAgain);
    this.#kick(this.cpu);
    return true;
  }

  #sipi(vector: number): boolean {
    const { events } = this.s;
    for (;;) {
      const old = Atomics.load(events, 0);
      if (Atomics.compareExchange(events, 0, old, (old & 0xff) | event.sipi | (vector << 8)) === old) break;
    }
    this.#kick(this.cpu);
    return true;
  }

  /** Tells the guest, in its word, whether clearing it is enough to end the interrupt. */
  #offerPvEoi(offer: boolean): void {
    const word = this.#memory?.slice(this.s.pvEoi, 1);
    if (word === undefined) return;
    word[0] = offer ? word[0]! | 1 : word[0]! & ~1;
    this.#memory!.written(this.s.pvEoi, 1);
    this.s.pvEoiArmed = offer ? 1 : 0;
  }

  /** Runs between two instructions of the guest: ends what the guest has ended; takes the offer back when others wait for a real EOI. */
  #settlePvEoi(): void {
    const word = this.#memory?.slice(this.s.pvEoi, 1);
    if (word === undefined) return;
    if ((word[0]! & 1) === 0) {
      this.s.pvEoiArmed = 0;
      const vector = highest(this.s.isr);
      if (vector >= 0) Atomics.and(this.s.isr, vector >>> 5, ~(1 << (vector & 31)));
    } else if (highest(this.s.irr) >= 0) {
      word[0] = word[0]! & ~1;
      this.#memory!.written(this.s.pvEoi, 1);
      this.s.pvEoiArmed = 0;
    }
  }
}

/** Highest vector of a 256-bit register, -1 for none. */
function highest(words: Int32Array): number {
  for (let i = 7; i >= 0; i--) {
    const w = words[i]!;
    if (w !== 0) return (i << 5) + highestBit(w);
  }
  return -1;
}

/** Logical ID of an x2APIC, SDM 3A, section 11.12.10.2: cluster in the high half, one bit in the low. */
const x2Ldr = (id: number): number => (((id >>> 4) << 16) | (1 << (id & 15))) >>> 0;
