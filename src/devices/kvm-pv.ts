// KVM's paravirtual interface of one vCPU: clock, EOI, steal time, asynchronous page faults, and the hypercalls. Linux 6.1, Documentation/virt/kvm/x86/{cpuid,msr,hypercalls}.rst.
import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { Clock, WallClock } from '../bus/clock.ts';
import type { GuestMemory } from '../bus/memory.ts';
import type { MsrHandler } from '../bus/msr.ts';
import { delivery } from './apic-bus.ts';
import type { Lapic } from './lapic.ts';
import type { Tsc } from './lapic-timer.ts';

/** Bits of CPUID 0x4000_0001 EAX that this implements. */
export const kvmFeature = {
  clocksource: 1 << 0,
  nopIoDelay: 1 << 1,
  clocksource2: 1 << 3,
  asyncPf: 1 << 4,
  stealTime: 1 << 5,
  pvEoi: 1 << 6,
  pvUnhalt: 1 << 7,
  pvTlbFlush: 1 << 9,
  sendIpi: 1 << 11,
  pollControl: 1 << 12,
  schedYield: 1 << 13,
  asyncPfInt: 1 << 14,
  msiExtDestId: 1 << 15,
  clocksourceStable: 1 << 24,
} as const;
export type KvmFeature = keyof typeof kvmFeature;

/** Their names on a command line, as in QEMU; `kvm-hint-dedicated` is a hint and no feature of this interface. */
export const kvmFeatureNames: Readonly<Record<string, readonly KvmFeature[]>> = {
  kvmclock: ['clocksource', 'clocksource2'],
  'kvm-nopiodelay': ['nopIoDelay'],
  'kvm-asyncpf': ['asyncPf'],
  'kvm-steal-time': ['stealTime'],
  'kvm-pv-eoi': ['pvEoi'],
  'kvm-pv-unhalt': ['pvUnhalt'],
  'kvm-pv-tlb-flush': ['pvTlbFlush'],
  'kvm-pv-ipi': ['sendIpi'],
  'kvm-poll-control': ['pollControl'],
  'kvm-pv-sched-yield': ['schedYield'],
  'kvm-asyncpf-int': ['asyncPfInt'],
  'kvm-msi-ext-dest-id': ['msiExtDestId'],
  'kvmclock-stable-bit': ['clocksourceStable'],
};

/** All of them. */
export const kvmAllFeatures: readonly KvmFeature[] = Object.keys(kvmFeature) as KvmFeature[];

export interface CpuidLeaf {
  readonly leaf: number;
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

/** CPUID leaves 0x4000_0000 ("KVMKVMKVM") and 0x4000_0001. */
export function kvmCpuid(features: readonly KvmFeature[]): readonly CpuidLeaf[] {
  return [
    { leaf: 0x4000_0000, eax: 0x4000_0001, ebx: 0x4b4d_564b, ecx: 0x564b_4d56, edx: 0x4d },
    { leaf: 0x4000_0001, eax: featureBits(features), ebx: 0, ecx: 0, edx: 0 },
  ];
}
const featureBits = (features: readonly KvmFeature[]): number => features.reduce((bits, f) => bits | kvmFeature[f], 0) >>> 0;

export const kvmMsr = {
  wallClockOld: 0x11,
  systemTimeOld: 0x12,
  wallClock: 0x4b56_4d00,
  systemTime: 0x4b56_4d01,
  asyncPf: 0x4b56_4d02,
  stealTime: 0x4b56_4d03,
  eoi: 0x4b56_4d04,
  pollControl: 0x4b56_4d05,
  asyncPfInt: 0x4b56_4d06,
  asyncPfAck: 0x4b56_4d07,
  first: 0x4b56_4d00,
  last: 0x4b56_4dff,
} as const;

export const kvmPvLayout = struct(
  {
    wallClock: 'u64',
    systemTime: 'u64',
    stealTime: 'u64',
    eoi: 'u64',
    pollControl: 'u64',
    asyncPf: 'u64',
    asyncPfInt: 'u64',
    /** The guest is to be told that all pages are there, once it has acknowledged what it was told last. */
    allReady: 'u8',
    /** ns during which the vCPU wanted to run and did not, not yet written to the guest. */
    stolen: 'f64',
    /** KICK_CPU has been called for this vCPU. */
    unhalted: ['i32', 1],
  },
  { name: 'kvm-pv', version: 2 },
);

/** Byte of the steal time structure that says whether the vCPU runs, and its bits. */
const preemptedAt = 16;
const preempted = { yes: 1, flushTlb: 2 } as const;

/** Bits of the register for asynchronous page faults; where its structure says which page is there, and what means all of them. */
const asyncPf = { enabled: 1n, byInterrupt: 8n, reserved: 0x34n, tokenAt: 4, all: 0xffff_ffff } as const;

export interface KvmPvOptions {
  readonly arena: Arena;
  readonly lapic: Lapic;
  readonly memory: GuestMemory;
  readonly clock: Clock;
  readonly wall: WallClock;
  /** The vCPU's own counter. */
  readonly tsc: Tsc;
  /** TSC frequency in kHz. */
  readonly tscKhz: number;
  readonly features: readonly KvmFeature[];
}

export class KvmPv {
  readonly s: ViewOf<typeof kvmPvLayout>;
  readonly lapic: Lapic;
  readonly tsc: Tsc;
  /** MSRs 0x11, 0x12 and 0x4B56_4D00 to 0x4B56_4DFF. */
  readonly msrs: MsrHandler;
  readonly #o: KvmPvOptions;
  readonly #features: number;
  readonly #scale: { readonly mul: number; readonly shift: number };

  constructor(o: KvmPvOptions) {
    this.#o = o;
    this.lapic = o.lapic;
    this.tsc = o.tsc;
    this.s = o.arena.alloc(kvmPvLayout, String(o.lapic.cpu));
    this.#features = featureBits(o.features);
    this.#scale = pvclockScale(o.tscKhz);
    this.msrs = { read: (msr) => this.#read(msr), write: (msr, value) => this.#write(msr, value) };
  }

  reset(): void {
    const s = this.s;
    s.wallClock = 0n;
    s.systemTime = 0n;
    s.stealTime = 0n;
    s.eoi = 0n;
    s.pollControl = 1n;
    s.asyncPf = 0n;
    s.asyncPfInt = 0n;
    s.allReady = 0;
    s.stolen = 0;
    Atomics.store(s.unhalted, 0, 0);
  }

  has(f: KvmFeature): boolean {
    return (this.#features & kvmFeature[f]) !== 0;
  }

  /** False when the guest polls by itself and asks the host not to. */
  get hostPolls(): boolean {
    return (this.s.pollControl & 1n) !== 0n;
  }

  /** Writes the clock structure again: after the TSC was set, or the state was elsewhere. */
  updateClock(): void {
    if ((this.s.systemTime & 1n) === 0n) return;
    const at = Number(this.s.systemTime & ~1n);
    const { memory, tsc } = this.#o;
    // One point for all vCPUs, the clock's zero: then their times agree to the last bit, as the stable flag promises.
    const stable = this.has('clocksourceStable') ? 1 : 0;
    this.#versioned(at, () => {
      memory.write64(at + 8, BigInt.asUintN(64, tsc.tscAt(0)));
      memory.write64(at + 16, 0n);
      memory.write32(at + 24, this.#scale.mul);
      memory.write8(at + 28, this.#scale.shift & 0xff);
      memory.write8(at + 29, stable);
    });
  }

  /** Keeps a register that an accelerator serves itself; the guest's memory is its business, too. */
  keep(msr: number, value: bigint): void {
    const { s } = this;
    if (msr === kvmMsr.wallClock) s.wallClock = value;
    else if (msr === kvmMsr.systemTime) s.systemTime = value;
    else if (msr === kvmMsr.stealTime) s.stealTime = value;
    else if (msr === kvmMsr.eoi) s.eoi = value;
    else if (msr === kvmMsr.pollControl) s.pollControl = value;
    else if (msr === kvmMsr.asyncPf) s.asyncPf = value;
    else if (msr === kvmMsr.asyncPfInt) s.asyncPfInt = value;
  }
  /** The registers are served here again, with what was kept. */
  takeOver(): void {
    this.updateClock();
    this.lapic.setPvEoi(this.s.eoi & 1n ? Number(this.s.eoi & ~3n) : 0);
    this.#allReady();
  }
  /** Pages that the guest waits for are there: it waits for none that this serves. It may have been told of some elsewhere. */
  #allReady(): void {
    const { s } = this;
    s.allReady = 0;
    if (!(s.asyncPf & asyncPf.enabled) || !(s.asyncPf & asyncPf.byInterrupt)) return;
    const { memory } = this.#o;
    const at = Number(s.asyncPf & ~0x3fn) + asyncPf.tokenAt;
    if (memory.read32(at) !== 0) {
      s.allReady = 1;
      return;
    }
    memory.write32(at, asyncPf.all);
    this.lapic.accept(delivery.fixed, Number(s.asyncPfInt), false);
  }

  /** The vCPU stops running for a while (HLT, or the host takes it off): others may leave its TLB flushes to `resumed`. */
  paused(): void {
    const state = this.#preempted();
    if (state !== undefined) Atomics.store(state, 0, preempted.yes);
  }

  /** The vCPU runs again, after it waited `stolen` ns for the host. True when it must flush its TLB first. */
  resumed(stolen = 0): boolean {
    const s = this.s;
    const state = this.#preempted();
    if (state === undefined) return false;
    const before = Atomics.exchange(state, 0, 0);
    s.stolen += stolen;
    if (s.stolen > 0) {
      const at = Number(s.stealTime & ~0x3fn);
      const { memory } = this.#o;
      const whole = Math.floor(s.stolen);
      this.#versioned(at + 8, () => memory.write64(at, memory.read64(at) + BigInt(whole)));
      s.stolen -= whole;
    }
    return this.has('pvTlbFlush') && (before & preempted.flushTlb) !== 0;
  }

  /** True once after another vCPU has called KICK_CPU for this one: HLT ends even without an interrupt. */
  takeUnhalt(): boolean {
    return this.s.unhalted[0] !== 0 && Atomics.exchange(this.s.unhalted, 0, 0) !== 0;
  }

  #preempted(): Uint8Array | undefined {
    return this.s.stealTime & 1n ? this.#o.memory.slice(Number(this.s.stealTime & ~0x3fn) + preemptedAt, 1) : undefined;
  }

  #read(msr: number): bigint | undefined {
    const s = this.s;
    switch (msr) {
      case kvmMsr.wallClockOld:
        return this.has('clocksource') ? s.wallClock : undefined;
      case kvmMsr.systemTimeOld:
        return this.has('clocksource') ? s.systemTime : undefined;
      case kvmMsr.wallClock:
        return this.has('clocksource2') ? s.wallClock : undefined;
      case kvmMsr.systemTime:
        return this.has('clocksource2') ? s.systemTime : undefined;
      case kvmMsr.stealTime:
        return this.has('stealTime') ? s.stealTime : undefined;
      case kvmMsr.eoi:
        return this.has('pvEoi') ? s.eoi : undefined;
      case kvmMsr.pollControl:
        return this.has('pollControl') ? s.pollControl : undefined;
      case kvmMsr.asyncPf:
        return this.has('asyncPf') ? s.asyncPf : undefined;
      case kvmMsr.asyncPfInt:
        return this.has('asyncPfInt') ? s.asyncPfInt : undefined;
      case kvmMsr.asyncPfAck:
        return this.has('asyncPfInt') ? 0n : undefined;
      default:
        return undefined;
    }
  }

  #write(msr: number, value: bigint): boolean {
    const s = this.s;
    if (this.#read(msr) === undefined) return false;
    switch (msr) {
      case kvmMsr.wallClockOld:
      case kvmMsr.wallClock:
        s.wallClock = value;
        this.#writeWallClock();
        return true;
      case kvmMsr.systemTimeOld:
      case kvmMsr.systemTime:
        s.systemTime = value;
        this.updateClock();
        return true;
      case kvmMsr.stealTime:
        if (value & 0x3en) return false;
        s.stealTime = value;
        s.stolen = 0;
        return true;
      case kvmMsr.eoi:
        if (value & 2n) return false;
        s.eoi = value;
        this.lapic.setPvEoi(value & 1n ? Number(value & ~3n) : 0);
        return true;
      case kvmMsr.pollControl:
        if (value & ~1n) return false;
        s.pollControl = value;
        return true;
      case kvmMsr.asyncPf:
        // No page of the guest is ever waited for here: all that is kept is where it wants to be told.
        if (value & asyncPf.reserved || (value & asyncPf.byInterrupt && !this.has('asyncPfInt'))) return false;
        s.asyncPf = value;
        return true;
      case kvmMsr.asyncPfInt:
        if (value >> 8n) return false;
        s.asyncPfInt = value;
        return true;
      case kvmMsr.asyncPfAck:
        if (value & 1n && s.allReady) this.#allReady();
        return true;
      default:
        return false;
    }
  }

  /** The wall clock at the clock's zero, which the guest adds its system time to. */
  #writeWallClock(): void {
    const at = Number(this.s.wallClock);
    const { memory, wall, clock } = this.#o;
    if (at === 0) return;
    const zero = wall.epochSeconds() - clock.now() / 1e9;
    this.#versioned(at, () => {
      memory.write32(at + 4, Math.floor(zero) >>> 0);
      memory.write32(at + 8, Math.floor((zero - Math.floor(zero)) * 1e9));
    });
  }

  /** Version protocol: odd while the structure changes. */
  #versioned(at: number, change: () => void): void {
    const { memory } = this.#o;
    const version = (memory.read32(at) | 1) >>> 0;
    memory.write32(at, version);
    change();
    memory.write32(at, (version + 1) >>> 0);
  }
}

/** Multiplier and shift by which a guest turns TSC counts into ns: `((counts << shift) * mul) >> 32`. */
export function pvclockScale(tscKhz: number): { mul: number; shift: number } {
  const hz = BigInt(Math.round(tscKhz * 1000));
  let shift = 0;
  while (1_000_000_000n >= hz << BigInt(Math.max(0, shift)) && shift < 31) shift++;
  while (1_000_000_000n << BigInt(1 - shift) < hz && shift > -31) shift--;
  return { mul: Number((1_000_000_000n << BigInt(32 - shift)) / hz), shift };
}
