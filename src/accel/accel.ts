// The interface of accelerators, shaped like the KVM API: a VM with memory, vCPUs that run until something needs the board.
// Boards are written against this; `dbt` (our translator) and `kvm` implement it.

import type { PortRegisters } from '../bus/port-registers.ts';
import type { PmuKind } from '../isa/x86/pmu.ts';

/** Most vCPUs of a machine. */
export const VCPUS_MAX = 64;

/** What a vCPU asks of the board while it runs. Called on the vCPU's thread. */
export interface VcpuBus {
  /** Port input of 1, 2 or 4 bytes. */
  portIn(port: number, bytes: number): number;
  portOut(port: number, bytes: number, value: number): void;
  /** A port that, read or written, is called with the general registers instead: EAX is what is read. */
  readonly calledPort?: number | undefined;
  callPort?(registers: PortRegisters): void;
  /** Reads of guest-physical addresses outside RAM, 1, 2, 4 or 8 bytes. */
  mmioRead(gpa: number, bytes: number): bigint;
  mmioWrite(gpa: number, bytes: number, value: bigint): void;
  /** MSRs that the accelerator does not keep itself; undefined or false means #GP. */
  rdmsr(msr: number): bigint | undefined;
  wrmsr(msr: number, value: bigint): boolean;
  /** As `wrmsr`, for an accelerator that does itself what the register has the board do: it is kept, and nothing else happens. */
  keepMsr?(msr: number, value: bigint): void;
  /** EAX, EBX, ECX, EDX; `state` is what some leaves depend on. */
  cpuid(leaf: number, subleaf: number, state: CpuidState): readonly [number, number, number, number];
  /** A paravirtual call: number, arguments, CPL, whether in 64-bit code; undefined where there is no such interface (#UD). */
  hypercall(nr: bigint, args: readonly bigint[], cpl: number, long?: boolean): bigint | undefined;
  /** The time-stamp counter that all vCPUs share; and as a number, where that is at hand. */
  tsc(): bigint;
  ticks?(): number;
  /** The guest has set this vCPU's own counter: what goes by it counts anew. */
  tscChanged?(): void;
  /** Features that the CPU model has, by name; all where it is not said. */
  readonly features?: ReadonlySet<string>;
  /** The performance counters that the CPU model has; and what a counter calls that runs over. */
  readonly pmu?: PmuKind;
  overflow?(): void;
  /** 64 random bits. */
  random(): bigint;
  /** CR8. */
  tpr: number;
  /** A vector could be taken now, leaving RFLAGS.IF aside. */
  pending(): boolean;
  /** Takes another vCPU's call to go on from HLT whatever RFLAGS.IF says (paravirtual spinlocks); false when there was none. */
  takeUnhalt(): boolean;
  /** True while an NMI, INIT or SIPI waits that the vCPU's loop has not taken: it comes before interrupts. */
  attention?(): boolean;
  /** Takes the highest vector (0–255), or -1 when none is left. */
  acknowledge(): number;
  /** A local APIC that the accelerator keeps has ended a level-triggered interrupt. */
  eoi?(vector: number): void;
}

/** A bus to which nothing is attached. */
export const emptyBus = (): VcpuBus => ({
  portIn: () => -1,
  portOut: () => undefined,
  mmioRead: () => -1n,
  mmioWrite: () => undefined,
  rdmsr: () => undefined,
  wrmsr: () => false,
  cpuid: () => [0, 0, 0, 0],
  hypercall: () => undefined,
  tsc: () => 0n,
  random: () => 0n,
  tpr: 0,
  pending: () => false,
  takeUnhalt: () => false,
  acknowledge: () => -1,
});

/** Guest state that CPUID reports. */
export interface CpuidState {
  readonly cr4: bigint;
  readonly xcr0: bigint;
  readonly cpl: number;
}

/** Why `run` came back. */
export type VcpuExit =
  /** The slice is over or another thread kicked: look at timers and requests. */
  | 'interrupted'
  /** HLT: nothing to do until an interrupt. */
  | 'hlt'
  /** MWAIT: nothing to do until an interrupt or another's store; to be run again soon, since nobody tells of that. */
  | 'wait'
  /** Triple fault. */
  | 'shutdown'
  /** A breakpoint or step of a debugger outside of the guest. */
  | 'debug';

/** One virtual CPU. It belongs to the thread that made it; only `kick` words in shared memory are touched by others. */
export interface Vcpu {
  /** Runs until an exit. `slice` bounds it, roughly, in instructions, `ns` in time: each accelerator goes by the one that it can measure. */
  run(slice: number, ns: number): VcpuExit;
  /** A non-maskable interrupt is taken before the next instruction. */
  nmi(): void;
  /** A system management interrupt is taken before the next instruction. */
  smi(): void;
  /** Reads or writes a register or other state by name: the names of the state's slots. */
  get(name: string): bigint;
  set(name: string, value: bigint): void;
  /** Tells the accelerator that mode, paging or segments were changed from outside. */
  sync(): void;
  /** Puts state that the accelerator keeps elsewhere into the slots, for readers on other threads. */
  publish(): void;
  /** As `publish`, of a vCPU that is held and published: what others have sent it since. */
  refresh(): void;
  /** INIT and SIPI are the accelerator's business, since it keeps the local APICs. */
  readonly startsItself: boolean;
  /** State after power-on, and after INIT, which leaves some of it alone (Intel SDM volume 3, section 10.1.1). */
  reset(): void;
  init(): void;
  /** Instructions retired since creation, as far as the accelerator counts them. */
  readonly instructions: number;
}

/** The gap below 4 GiB for devices starts here at the latest. */
export const LOW_RAM_MAX = 0x8000_0000;

/** Where memory is plugged in beside `memory` bytes of RAM: at the next GiB behind what of it lies above 4 GiB. */
export const plugBaseOf = (memory: number): number => 2 ** 32 + Math.ceil(Math.max(0, memory - LOW_RAM_MAX) / 2 ** 30) * 2 ** 30;

/** Where everything lies in the machine's one shared memory (host addresses, bytes). */
export interface MemoryLayout {
  /** Guest RAM below 4 GiB at `ramBase`, then `extraBytes`, then the rest (from 4 GiB up) at `ramHighBase`, without gaps. */
  readonly ramBase: number;
  readonly ramLow: number;
  readonly ramHigh: number;
  readonly ramHighBase: number;
  /**
   * Where memory can be plugged in: guest-physical address and bytes, 0 for nowhere. It lies at `ramHighBase` + address − 4 GiB, behind RAM and what is
   * left free to come to that address. Which of it is there says the map at `plugMap` (bits/slot-table.ts).
   */
  readonly plugBase: number;
  readonly plugBytes: number;
  readonly plugMap: number;
  /** Bytes from `ramBase` on that the guest may ever reach; the maps by page have an entry for each of their pages. */
  readonly guestBytes: number;
  /** State block and private area of vCPU n at `vcpuBase + n * vcpuBytes`. */
  readonly vcpuBase: number;
  readonly vcpuBytes: number;
  /** Memory for what is RAM-like and not guest RAM (video memory, ROM), behind the RAM below 4 GiB: bytes. See bus/slots.ts. */
  readonly extraBytes: number;
  /** The table of memory slots: see bits/slot-table.ts. */
  readonly slots: number;
  /** What of it KVM has: see kvm/regions.ts. */
  readonly regions: number;
  /** Doorbells that KVM rings: see kvm/doorbells.ts. */
  readonly doorbells: number;
  /** What vCPUs on KVM hold of the kernel: see kvm/holdings.ts. */
  readonly holdings: number;
  /** One byte for each page of RAM and of what lies in between. */
  readonly codeMap: number;
  /** One byte for each page of RAM: 1 while it is clean and its next write is to be logged, by a 0. All 0 while nothing is logged. */
  readonly dirtyMap: number;
  /** One byte for each page of RAM and of what lies in between: 1 once a vCPU's TLB has let stores to it through. */
  readonly openMap: number;
  /** State of the devices. */
  readonly devices: number;
  readonly deviceBytes: number;
  /** WebAssembly pages of 64 KiB in all. */
  readonly pages: number;
}
