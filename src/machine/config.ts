// The configuration of a machine as plain data: what every thread of the machine is given to build the same board.

import type { KvmFeature } from '../devices/kvm-pv.ts';
import type { DeviceConfig } from './device-type.ts';
import type { MicrovmParts } from './microvm.ts';
import type { FirmwareShape } from './rom.ts';

/** Kilohertz of the time-stamp counter: 1 GHz, so that it counts nanoseconds. */
export const TSC_KHZ = 1_000_000;

/** Boards by QEMU's names. */
export type MachineKind = 'pc' | 'q35' | 'microvm';

/** The guest's NUMA nodes. */
export interface NumaConfig {
  /** Bytes of each node, which take the RAM in this order; their sum is the machine's memory. */
  readonly nodes: readonly number[];
  /** Node of each possible vCPU. */
  readonly cpus: readonly number[];
  /** Distances (10 to 255) between all pairs, row by row; the guest is told none when left out. */
  readonly distances?: readonly number[];
}

export interface MachineConfig {
  /** Possible vCPUs. */
  readonly cpus: number;
  /** The first so many are there from the start, the others come by `device_add`; all are there when this is left out. */
  readonly present?: number;
  /** How the vCPUs are arranged; cores of one socket when this is left out. */
  readonly topology?: { readonly sockets: number; readonly cores: number; readonly threads: number };
  /** ACPI tables are there; they are when this is left out. */
  readonly acpi?: boolean;
  /** Bytes of RAM. */
  readonly memory: number;
  /** Memory can be plugged in: so many modules, so many bytes in all. */
  readonly memoryHotplug?: { readonly slots: number; readonly bytes: number };
  /** NUMA nodes; the machine has no such when this is left out. */
  readonly numa?: NumaConfig;
  /** CPU model and feature changes, as QEMU writes them: `max`, `qemu64,+avx`. */
  readonly cpuModel: string;
  /** Paravirtual features that the guest sees; none hides KVM. */
  readonly paravirtual: readonly KvmFeature[];
  /** Board; q35 without its disk controller when left out. */
  readonly machine?: MachineKind;
  /** Of a microvm: parts that are not as usual; `pit` of any board. */
  readonly microvm?: Partial<MicrovmParts>;
  /** Sizes of the firmware's images; a machine without firmware is started with a kernel. */
  readonly firmware?: FirmwareShape;
  /** The guest gets files through fw_cfg; with firmware it always may. */
  readonly fwCfgFiles?: boolean;
  /** What the firmware is to try, in order: QEMU's letters of drives (`a` floppy, `c` disk, `d` CD-ROM, `n` network); `cad` when left out. */
  readonly bootOrder?: string | undefined;
  /** The same until the machine's first reset. */
  readonly bootOnce?: string | undefined;
  /** The firmware tries nothing but devices with a `bootindex`. */
  readonly bootStrict?: boolean;
  /** ms after which firmware that has found nothing to boot begins anew; -1 never, which is the default. */
  readonly rebootTimeout?: number | undefined;
  /** The firmware shows a boot menu, for so many ms where that is given. */
  readonly bootMenu?: { readonly on: boolean; readonly timeout?: number } | undefined;
  /** There is no display: firmware is to use the serial port. */
  readonly noGraphic?: boolean | undefined;
  /** Devices beside those of the board, in order. */
  readonly devices?: readonly DeviceConfig[];
  /** Memory back-ends that are devices', not guest RAM: bytes by id. */
  readonly memdevs?: Readonly<Record<string, number>>;
  /** What runs the vCPUs; the translator when left out. */
  readonly accel?: 'dbt' | 'kvm';
  /** The translator is to translate every block before it runs for the first time, on the vCPU's thread: slow, for tests. */
  readonly eager?: boolean;
  /** Translated code is kept for later machines and taken from earlier ones: only taken, or neither. */
  readonly translationCache?: 'read' | 'off';
  /**
   * Under `kvm`: which interrupt controllers are in the kernel: none, the local APICs, or all of them and the PIT. When this is left out: all, of a microvm the
   * local APICs, with system management mode none. The translator's are always the board's.
   */
  readonly irqchip?: 'off' | 'split' | 'on';
  /** Under `kvm`: entries of each vCPU's ring of written pages, a power of two; bitmaps without. */
  readonly dirtyRing?: number;
  /**
   * The vendor of the host's processor, where KVM runs the guest: CPUID names it unless the CPU model says `vendor=`, since SYSCALL and SYSENTER in
   * compatibility mode go by the real one. As QEMU does it.
   */
  readonly hostVendor?: string;
  /** Width of the physical addresses that the host's processor has, where KVM runs the guest: that of the models `max` and `host`, and where `host-phys-bits=on` says so. */
  readonly hostPhysicalBits?: number;
  /** Frequency of the time-stamp counter in kHz, where it is not `TSC_KHZ`. */
  readonly tscKhz?: number;
  /** There is system management mode, which the translator has under KVM, too; MiB of q35's extended TSEG, 16 when left out. */
  readonly smm?: boolean;
  readonly extendedTseg?: number;
  /** Of q35: its disk controller and its SMBus are there; both are when left out. */
  readonly sata?: boolean;
  readonly smbus?: boolean;
  /** The HPET is there; it is when this is left out. */
  readonly hpet?: boolean;
  readonly timers?: TimerConfig;
  /** False: the guest cannot suspend to RAM. */
  readonly sleep?: boolean;
  /** VMware's backdoor and its mouse are there; not on a microvm, and not when left out. */
  readonly vmport?: boolean;
  /** Serial ports that are there, by number 0 to 3 (COM1 to COM4); all when left out. */
  readonly serial?: readonly number[];
  /** The machine's UUID in SMBIOS, in text form; not set when left out. */
  readonly uuid?: string;
  /** Seconds to add to the host's wall clock (the RTC's base). */
  readonly rtcOffset: number;
  /** Trace categories of `-d`. */
  readonly trace: readonly string[];
}

/** What `-rtc driftfix=` and `-global` say of the timers. */
export interface TimerConfig {
  /** The HPET interrupts by messages, too. */
  readonly hpetMsi?: boolean;
  /** The RTC makes up for periodic interrupts that merged into one. */
  readonly rtcSlew?: boolean;
  /** Under `kvm`, with the PIT in the kernel: its interrupts that the guest has not taken in time are lost, not given later. */
  readonly pitDiscards?: boolean;
}

/** What a machine asks of whoever runs it. */
export type MachineEvent =
  | { readonly kind: 'reset' }
  | { readonly kind: 'powerOff' }
  /** A triple fault. */
  | { readonly kind: 'shutdown' }
  /** `isa-debug-exit`: the process's exit code. */
  | { readonly kind: 'exit'; readonly code: number };

/** What the board asks of it. */
export type BoardEvent =
  | MachineEvent
  /** The guest's kernel says that it has crashed, or that another one takes over after a crash. */
  | { readonly kind: 'panic'; readonly what: 'panicked' | 'crashLoaded' }
  /** A vCPU has met a breakpoint of a debugger; the others are being held. */
  | { readonly kind: 'debug'; readonly cpu: number }
  /** The guest suspends to RAM (S3). */
  | { readonly kind: 'suspend' }
  /** The guest has let go of a device, by its path: it is to be removed. */
  | { readonly kind: 'eject'; readonly path: string };
