// Hyper-V's paravirtual interface: identity and hypercall page, reference time, virtual processors' indexes and local APICs by MSR, and reset.
// Hypervisor Top-Level Functional Specification 6.0b, chapters 3 (hypercalls), 7 (virtual processors), 10 (local APIC), 12 (timers) and
// appendix F; what it leaves open is as Linux 6.1's KVM has it.

import type { Arena } from '../bits/arena.ts';
import { struct } from '../bits/struct.ts';
import type { Clock } from '../bus/clock.ts';
import type { GuestMemory } from '../bus/memory.ts';
import type { MsrHandler } from '../bus/msr.ts';
import type { Lapic } from './lapic.ts';
import type { Tsc } from './lapic-timer.ts';

/** The features that this serves; names as `-cpu hv-…` has them. */
type Feature = 'relaxed' | 'vapic' | 'time' | 'vpindex' | 'reset' | 'frequencies';

export const hypervMsr = {
  guestOsId: 0x4000_0000,
  hypercall: 0x4000_0001,
  vpIndex: 0x4000_0002,
  reset: 0x4000_0003,
  timeRefCount: 0x4000_0020,
  referenceTsc: 0x4000_0021,
  tscFrequency: 0x4000_0022,
  apicFrequency: 0x4000_0023,
  eoi: 0x4000_0070,
  icr: 0x4000_0071,
  tpr: 0x4000_0072,
  vpAssistPage: 0x4000_0073,
  first: 0x4000_0000,
  last: 0x4000_00ff,
} as const;

const sharedLayout = struct(
  { guestOsId: 'u64', hypercall: 'u64', referenceTsc: 'u64', sequence: 'u32' },
  { name: 'hyperv', version: 1 },
);
const cpuLayout = struct({ vpAssistPage: 'u64' }, { name: 'hyperv-cpu', version: 1 });

const ENABLE = 1n;
const PAGE = ~0xfffn;
const APIC_BUS_HZ = 1_000_000_000n;
/** ns of one unit of reference time. */
const UNIT = 100;
/** Hypercalls, and how they end. */
const NOTIFY_LONG_SPIN_WAIT = 8n;
const status = { success: 0n, invalidCode: 2n } as const;

export interface HypervOptions {
  readonly arena: Arena;
  readonly lapics: readonly Lapic[];
  /** Of each vCPU. */
  readonly tsc: (cpu: number) => Tsc;
  readonly tscKhz: number;
  readonly clock: Clock;
  readonly memory: GuestMemory;
  readonly features: ReadonlySet<Feature>;
  /** The processor knows VMMCALL, not VMCALL. */
  readonly amd: boolean;
  readonly reset: () => void;
}

/** Of a whole machine; all with the board's lock held. */
export class HypervPv {
  /** MSRs 0x4000_0000 to 0x4000_00ff of each vCPU. */
  readonly msrs: readonly MsrHandler[];
  readonly #o: HypervOptions;
  readonly #s;
  readonly #cpus;

  constructor(o: HypervOptions) {
    this.#o = o;
    this.#s = o.arena.alloc(sharedLayout);
    this.#cpus = o.lapics.map((lapic) => o.arena.alloc(cpuLayout, String(lapic.cpu)));
    this.msrs = o.lapics.map((_, cpu) => ({
      read: (msr) => this.#read(cpu, msr),
      write: (msr, value) => this.#write(cpu, msr, value),
    }));
  }

  reset(): void {
    Object.assign(this.#s, { guestOsId: 0n, hypercall: 0n, referenceTsc: 0n, sequence: 0 });
    for (const s of this.#cpus) s.vpAssistPage = 0n;
  }

  /** The guest has said who it is: hypercalls are Hyper-V's, not KVM's. */
  get entered(): boolean {
    return this.#s.guestOsId !== 0n;
  }

  /** The result of a hypercall, for RAX; undefined for #UD. In 64-bit mode RCX holds what is called, elsewhere EDX:EAX. */
  hypercall(rax: bigint, rcx: bigint, cpl: number, long: boolean): bigint | undefined {
    if (cpl !== 0) return undefined;
    const code = (long ? rcx : rax) & 0xffffn;
    return code === NOTIFY_LONG_SPIN_WAIT ? status.success : status.invalidCode;
  }

  /** The page of reference time once more, after the first vCPU's counter was set. */
  updateTime(): void {
    const { referenceTsc } = this.#s;
    if (!(referenceTsc & ENABLE)) return;
    const { memory, tscKhz, tsc, clock } = this.#o;
    const at = Number(referenceTsc & PAGE);
    // Units are `(counter * scale >> 64) + offset`.
    const scale = (10_000n << 64n) / BigInt(Math.round(tscKhz));
    memory.write32(at, 0);
    // A counter too slow for the scale's width: the sequence 0 sends the guest to the register.
    if (scale >> 64n !== 0n) return;
    const now = clock.now();
    const units = BigInt(Math.floor(now / UNIT));
    memory.write64(at + 8, scale);
    memory.write64(at + 16, BigInt.asUintN(64, units - ((tsc(0).tscAt(now) * scale) >> 64n)));
    this.#s.sequence = (this.#s.sequence % 0xffff_fffe) + 1;
    memory.write32(at, this.#s.sequence);
  }

  #read(cpu: number, msr: number): bigint | undefined {
    const { clock, tscKhz, features, lapics } = this.#o;
    const lapic = lapics[cpu]!;
    switch (msr) {
      case hypervMsr.guestOsId:
        return this.#s.guestOsId;
      case hypervMsr.hypercall:
        return this.#s.hypercall;
      case hypervMsr.vpIndex:
        return features.has('vpindex') ? BigInt(cpu) : undefined;
      case hypervMsr.reset:
        return features.has('reset') ? 0n : undefined;
      case hypervMsr.timeRefCount:
        return features.has('time') ? BigInt(Math.floor(clock.now() / UNIT)) : undefined;
      case hypervMsr.referenceTsc:
        return features.has('time') ? this.#s.referenceTsc : undefined;
      case hypervMsr.tscFrequency:
        return features.has('frequencies') ? BigInt(Math.round(tscKhz)) * 1000n : undefined;
      case hypervMsr.apicFrequency:
        return features.has('frequencies') ? APIC_BUS_HZ : undefined;
      case hypervMsr.icr:
        return features.has('vapic') ? (BigInt(lapic.s.icrHigh >>> 0) << 32n) | BigInt(lapic.s.icrLow >>> 0) : undefined;
      case hypervMsr.tpr:
        return features.has('vapic') ? BigInt(lapic.s.tpr) : undefined;
      // Guests set it whatever they were offered.
      case hypervMsr.vpAssistPage:
        return this.#cpus[cpu]!.vpAssistPage;
      default:
        return undefined;
    }
  }

  #write(cpu: number, msr: number, value: bigint): boolean {
    const { memory, features, lapics, reset } = this.#o;
    const s = this.#s;
    const lapic = lapics[cpu]!;
    if (msr !== hypervMsr.eoi && this.#read(cpu, msr) === undefined) return false;
    switch (msr) {
      case hypervMsr.guestOsId:
        s.guestOsId = value;
        if (value === 0n) s.hypercall &= ~ENABLE;
        return true;
      case hypervMsr.hypercall:
        // Nobody who has not said who he is.
        if (s.guestOsId === 0n) return true;
        s.hypercall = value;
        if (value & ENABLE) this.#hypercallPage(Number(value & PAGE));
        return true;
      case hypervMsr.reset:
        if (value & 1n) reset();
        return true;
      case hypervMsr.referenceTsc:
        s.referenceTsc = value;
        this.updateTime();
        return true;
      case hypervMsr.eoi:
        if (features.has('vapic')) lapic.eoi();
        return features.has('vapic');
      case hypervMsr.icr:
        lapic.command(Number(value >> 32n), Number(value & 0xffff_ffffn));
        return true;
      case hypervMsr.tpr:
        if (value >> 8n) return false;
        lapic.setTaskPriority(Number(value));
        return true;
      case hypervMsr.vpAssistPage: {
        const at = Number(value & PAGE);
        this.#cpus[cpu]!.vpAssistPage = value;
        if (value & ENABLE) memory.write32(at, 0);
        // Its first word is where the hypervisor offers to leave out the end of an interrupt, as KVM's is.
        lapic.setPvEoi(value & ENABLE ? at : 0);
        return true;
      }
      default:
        return false;
    }
  }

  /** VMCALL or VMMCALL, and a near return. */
  #hypercallPage(at: number): void {
    const { memory, amd } = this.#o;
    [0x0f, 0x01, amd ? 0xd9 : 0xc1, 0xc3].forEach((byte, i) => void memory.write8(at + i, byte));
  }
}
