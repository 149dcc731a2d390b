// The KVM API as data: ioctls by number, direction, structure and the capability that they need, the structures' layouts, and exit
// reasons. Linux 6.1, Documentation/virt/kvm/api.rst and include/uapi/linux/kvm.h.

import { struct, type ViewOf } from '../../bits/struct.ts';

// -- structures

/** `struct kvm_regs`. */
export const regsLayout = struct({
  rax: 'u64', rbx: 'u64', rcx: 'u64', rdx: 'u64', rsi: 'u64', rdi: 'u64', rsp: 'u64', rbp: 'u64',
  r8: 'u64', r9: 'u64', r10: 'u64', r11: 'u64', r12: 'u64', r13: 'u64', r14: 'u64', r15: 'u64', rip: 'u64', rflags: 'u64',
}); // biome-ignore format: a table
export type Regs = ViewOf<typeof regsLayout>;

/** `struct kvm_segment`. */
export const segmentLayout = struct({
  base: 'u64', limit: 'u32', selector: 'u16', type: 'u8', present: 'u8', dpl: 'u8', db: 'u8', s: 'u8', l: 'u8', g: 'u8', avl: 'u8',
  unusable: 'u8', padding: 'u8',
}); // biome-ignore format: a table
export type Segment = ViewOf<typeof segmentLayout>;

const tableLayout = struct({ base: 'u64', limit: 'u16', padding: ['u16', 3] });

/** `struct kvm_sregs`. */
export const sregsLayout = struct({
  cs: segmentLayout, ds: segmentLayout, es: segmentLayout, fs: segmentLayout, gs: segmentLayout, ss: segmentLayout,
  tr: segmentLayout, ldt: segmentLayout, gdt: tableLayout, idt: tableLayout,
  cr0: 'u64', cr2: 'u64', cr3: 'u64', cr4: 'u64', cr8: 'u64', efer: 'u64', apicBase: 'u64', interrupts: ['u64', 4],
}); // biome-ignore format: a table
export type Sregs = ViewOf<typeof sregsLayout>;

/** `struct kvm_userspace_memory_region`. */
export const memoryRegionLayout = struct({ slot: 'u32', flags: 'u32', gpa: 'u64', size: 'u64', hva: 'u64' });
/** `struct kvm_dirty_log`; `bitmap` is an address. */
/** `struct kvm_dirty_gfn`, an entry of a vCPU's dirty ring, with bits of `flags`: written; taken. The ring is mapped from `DIRTY_RING_AT` of the vCPU on. */
export const dirtyGfnLayout = struct({ flags: 'u32', slot: 'u32', page: 'u32', pageHigh: 'u32' });
export const gfnFlag = { dirty: 1, reset: 2 } as const;
export const DIRTY_RING_AT = 64 * 4096;
export const dirtyLogLayout = struct({ slot: 'u32', padding: 'u32', bitmap: 'u64' });
/** `struct kvm_irq_level`, `struct kvm_msi`, `struct kvm_enable_cap`. */
export const irqLevelLayout = struct({ irq: 'u32', level: 'u32' });
export const msiLayout = struct({
  addressLow: 'u32',
  addressHigh: 'u32',
  data: 'u32',
  flags: 'u32',
  devid: 'u32',
  pad: ['u8', 12],
});
export const enableCapLayout = struct({ cap: 'u32', flags: 'u32', args: ['u64', 4], pad: ['u8', 64] });
/** `struct kvm_ioeventfd` and `struct kvm_irqfd`. */
export const ioeventfdLayout = struct({ datamatch: 'u64', addr: 'u64', len: 'u32', fd: 'i32', flags: 'u32', pad: ['u8', 36] });
/** Flags of `struct kvm_ioeventfd`: only where `datamatch` is written; a port; taken back. */
export const ioeventfdFlag = { datamatch: 1, pio: 2, deassign: 4 } as const;
export const irqfdLayout = struct({ fd: 'u32', gsi: 'u32', flags: 'u32', resamplefd: 'u32', pad: ['u8', 16] });
/** `struct kvm_irqchip`: which chip, and its state (devices/kernel-chips.ts has what it means); `struct kvm_pit_state2`. */
export const irqchipLayout = struct({ chip: 'u32', pad: 'u32', state: ['u8', 512] });
export const chipId = { pic: 0, secondPic: 1, ioapic: 2 } as const;
export const PIT_BYTES = 112;
/** `struct kvm_irq_routing_entry`: an input of a chip, or a message. The header before the entries is count and flags. */
export const routeLayout = struct({ gsi: 'u32', type: 'u32', flags: 'u32', pad: 'u32', union: ['u32', 8] });
export const routeType = { irqchip: 1, msi: 2 } as const;
export const ROUTES_HEADER = 8;
/** In `flags` of `struct kvm_pit_config`: port 61h is the kernel's, too. */
export const PIT_SPEAKER_DUMMY = 1;
/** `struct kvm_pit_config`, `struct kvm_clock_data`, `struct kvm_mp_state`. */
export const pitConfigLayout = struct({ flags: 'u32', pad: ['u32', 15] });
/** `struct kvm_reinject_control`: whether the kernel's PIT gives later what the guest has not taken in time. */
export const reinjectControlLayout = struct({ reinject: 'u8', pad: ['u8', 31] });
export const clockDataLayout = struct({
  clock: 'u64', flags: 'u32', pad0: 'u32', realtime: 'u64', hostTsc: 'u64', pad: ['u32', 4],
}); // biome-ignore format: a table
export const mpStateLayout = struct({ state: 'u32' });

/** `struct kvm_vcpu_events`. */
export const eventsLayout = struct({
  exceptionInjected: 'u8', exceptionNr: 'u8', exceptionHasError: 'u8', exceptionPending: 'u8', exceptionError: 'u32',
  interruptInjected: 'u8', interruptNr: 'u8', interruptSoft: 'u8', interruptShadow: 'u8',
  nmiInjected: 'u8', nmiPending: 'u8', nmiMasked: 'u8', nmiPad: 'u8',
  sipiVector: 'u32', flags: 'u32',
  smiSmm: 'u8', smiPending: 'u8', smiInsideNmi: 'u8', smiLatchedInit: 'u8',
  tripleFault: 'u8', reserved: ['u8', 26], exceptionHasPayload: 'u8', exceptionPayload: 'u64',
}); // biome-ignore format: a table
export type Events = ViewOf<typeof eventsLayout>;
/** Bits of `flags`: which of the optional fields count. */
export const eventsFlag = { nmiPending: 1, sipiVector: 2, shadow: 4, smm: 8, payload: 16, tripleFault: 32 } as const;
/** Bits of `interruptShadow`. */
export const shadowBit = { movSs: 1, sti: 2 } as const;

/** `struct kvm_translation`. */
export const translationLayout = struct({
  linear: 'u64', physical: 'u64', valid: 'u8', writable: 'u8', user: 'u8', pad: ['u8', 5],
}); // biome-ignore format: a table
/** `struct kvm_debugregs`. */
export const debugRegsLayout = struct({ db: ['u64', 4], dr6: 'u64', dr7: 'u64', flags: 'u64', reserved: ['u64', 9] });
/** `struct kvm_guest_debug`, with bits of `control`. */
export const debugControl = { enable: 1, singleStep: 2, softwareBreakpoints: 0x10000, hardwareBreakpoints: 0x20000 } as const;
export const guestDebugLayout = struct({ control: 'u32', pad: 'u32', debugreg: ['u64', 8] });
/** One of `struct kvm_msrs`' entries; the header before them is count and padding. */
export const msrEntryLayout = struct({ index: 'u32', reserved: 'u32', data: 'u64' });
export const MSRS_HEADER = 8;
/** One of `struct kvm_cpuid2`'s entries; the header before them is count and padding. */
export const cpuidEntryLayout = struct({
  leaf: 'u32', subleaf: 'u32', flags: 'u32', eax: 'u32', ebx: 'u32', ecx: 'u32', edx: 'u32', padding: ['u32', 3],
}); // biome-ignore format: a table
export const CPUID_HEADER = 8;
/** In `flags`: the entry is for this subleaf only. */
export const CPUID_SUBLEAF = 1;
/** One of `struct kvm_xcrs`' entries; count and flags come before the 16, 16 words after them. */
export const xcrsLayout = struct({
  count: 'u32', flags: 'u32', xcr: [struct({ xcr: 'u32', reserved: 'u32', value: 'u64' }), 16], padding: ['u64', 16],
}); // biome-ignore format: a table
/** `struct kvm_xsave`: the XSAVE area in its standard format. */
export const XSAVE_BYTES = 4096;
/** `struct kvm_lapic_state`: the registers as the xAPIC's page has them. */
export const LAPIC_BYTES = 1024;

/** The start of `struct kvm_run`, and the parts of its union by exit reason, which all begin at 32. What frequent exits read has halves: no bigint is made. */
export const runLayout = struct({
  requestInterruptWindow: 'u8', immediateExit: 'u8', padding: ['u8', 6], exitReason: 'u32', readyForInjection: 'u8', ifFlag: 'u8',
  flags: 'u16', cr8: 'u32', cr8High: 'u32', apicBase: 'u64',
}); // biome-ignore format: a table
export type Run = ViewOf<typeof runLayout>;
export const RUN_UNION = 32;
export const runIoLayout = struct({ direction: 'u8', size: 'u8', port: 'u16', count: 'u32', dataOffset: 'u32', dataHigh: 'u32' });
export const runMmioLayout = struct({ gpa: 'u32', gpaHigh: 'u32', data: ['u8', 8], length: 'u32', isWrite: 'u8' });
export const runInternalLayout = struct({ suberror: 'u32', count: 'u32', data: ['u64', 16] });
export const runFailLayout = struct({ reason: 'u64', cpu: 'u32' });
export const runMsrLayout = struct({ error: 'u8', pad: ['u8', 7], reason: 'u32', index: 'u32', data: 'u64' });
export const runEventLayout = struct({ type: 'u32', count: 'u32', data: ['u64', 16] });
export const runEoiLayout = struct({ vector: 'u8' });
export const runDebugLayout = struct({ exception: 'u32', pad: 'u32', pc: 'u64', dr6: 'u64', dr7: 'u64' });
export const runHypercallLayout = struct({ nr: 'u64', args: ['u64', 6], result: 'u64', flags: 'u64' });

/** Addresses whose writes the kernel keeps (`kvm_coalesced_mmio_zone`). */
export const coalescedZoneLayout = struct({ addr: 'u64', size: 'u32', pio: 'u32' });
/** Where it keeps them (`kvm_coalesced_mmio_ring`), in a page of each vCPU's run area: writes from `first` up to `last` wait. */
export const coalescedRingLayout = struct({ first: ['u32', 1], last: ['u32', 1] });
export const coalescedWriteLayout = struct({ addr: 'u64', len: 'u32', pio: 'u32', data: ['u8', 8] });
/** `COALESCED_MMIO_MAX`, for pages of 4 KiB. */
export const COALESCED_WRITES = Math.floor((4096 - coalescedRingLayout.size) / coalescedWriteLayout.size);

/** An attribute of a vCPU, whose value is at `addr`; Documentation/virt/kvm/devices/vcpu.rst. */
export const deviceAttrLayout = struct({ flags: 'u32', group: 'u32', attr: 'u64', addr: 'u64' });
/** What is added to the host's counter, scaled, for the guest's (64 bits, signed). */
export const tscOffsetAttr = { group: 0, attr: 0n } as const;

// -- capabilities

/** Capabilities by their numbers. */
export const cap = {
  irqchip: 0, userMemory: 3, setTssAddr: 4, extCpuid: 7, nrVcpus: 9, nrMemslots: 10, mpState: 14, coalescedMmio: 15, syncMmu: 16,
  destroyMemoryRegionWorks: 21, userNmi: 22, setGuestDebug: 23, reinjectControl: 24, irqRouting: 25, irqfd: 32, pit2: 33, setBootCpuId: 34, pitState2: 35,
  ioeventfd: 36, setIdentityMapAddr: 37, adjustClock: 39, internalErrorData: 40, vcpuEvents: 41, debugregs: 50, xsave: 55, xcrs: 56,
  tscControl: 60, getTscKhz: 61, maxVcpus: 66, readonlyMem: 81, checkExtensionVm: 105, enableCapVm: 98, tscDeadlineTimer: 72, kvmclockCtrl: 76,
  signalMsi: 77, syncRegs: 74, splitIrqchip: 121, immediateExit: 136, x2apicApi: 129, x86UserSpaceMsr: 188, x86MsrFilter: 189,
  coalescedPio: 162, dirtyLogRing: 192, maxVcpuId: 128, xsave2: 208, exitHypercall: 201, tripleFaultEvent: 218,
} as const; // biome-ignore format: a table
export type CapName = keyof typeof cap;

// -- ioctls

type Direction = 'none' | 'in' | 'out' | 'inout';
const directionBits: Readonly<Record<Direction, number>> = { none: 0, in: 1, out: 2, inout: 3 };

/** One ioctl. `in`: the kernel reads the structure; `out`: it writes it. */
export interface Ioctl {
  readonly name: string;
  readonly request: number;
  readonly needs?: CapName;
}

/** Type byte of KVM's ioctls. */
const KVMIO = 0xae;
/** An ioctl's request: direction, size, type and number, asm-generic/ioctl.h. */
const request = (nr: number, direction: Direction, size: number): number =>
  ((directionBits[direction] << 30) | (size << 16) | (KVMIO << 8) | nr) >>> 0;

type Row = readonly [nr: number, direction: Direction, size: number, needs?: CapName];
const rows = {
  getApiVersion: [0x00, 'none', 0],
  createVm: [0x01, 'none', 0],
  checkExtension: [0x03, 'none', 0],
  getVcpuMmapSize: [0x04, 'none', 0],
  getSupportedCpuid: [0x05, 'inout', 8, 'extCpuid'],
  createVcpu: [0x41, 'none', 0],
  getDirtyLog: [0x42, 'in', dirtyLogLayout.size],
  setMemoryRegion: [0x46, 'in', memoryRegionLayout.size, 'userMemory'],
  setTssAddr: [0x47, 'none', 0, 'setTssAddr'],
  setIdentityMapAddr: [0x48, 'in', 8, 'setIdentityMapAddr'],
  createIrqchip: [0x60, 'none', 0, 'irqchip'],
  reinjectControl: [0x71, 'none', 0, 'reinjectControl'],
  getIrqchip: [0x62, 'inout', irqchipLayout.size, 'irqchip'],
  // Declared as if the kernel wrote it.
  setIrqchip: [0x63, 'out', irqchipLayout.size, 'irqchip'],
  irqLine: [0x61, 'in', irqLevelLayout.size, 'irqchip'],
  setGsiRouting: [0x6a, 'in', 8, 'irqRouting'],
  registerCoalesced: [0x67, 'in', coalescedZoneLayout.size, 'coalescedMmio'],
  irqfd: [0x76, 'in', irqfdLayout.size, 'irqfd'],
  createPit2: [0x77, 'in', pitConfigLayout.size, 'pit2'],
  setBootCpuId: [0x78, 'none', 0, 'setBootCpuId'],
  ioeventfd: [0x79, 'in', ioeventfdLayout.size, 'ioeventfd'],
  setClock: [0x7b, 'in', clockDataLayout.size, 'adjustClock'],
  getClock: [0x7c, 'out', clockDataLayout.size, 'adjustClock'],
  run: [0x80, 'none', 0],
  getRegs: [0x81, 'out', regsLayout.size],
  setRegs: [0x82, 'in', regsLayout.size],
  getSregs: [0x83, 'out', sregsLayout.size],
  setSregs: [0x84, 'in', sregsLayout.size],
  translate: [0x85, 'inout', translationLayout.size],
  interrupt: [0x86, 'in', 4],
  getMsrs: [0x88, 'inout', MSRS_HEADER],
  setMsrs: [0x89, 'in', MSRS_HEADER],
  setSignalMask: [0x8b, 'in', 4],
  getLapic: [0x8e, 'out', LAPIC_BYTES, 'irqchip'],
  setLapic: [0x8f, 'in', LAPIC_BYTES, 'irqchip'],
  setCpuid2: [0x90, 'in', CPUID_HEADER, 'extCpuid'],
  getMpState: [0x98, 'out', mpStateLayout.size, 'mpState'],
  setMpState: [0x99, 'in', mpStateLayout.size, 'mpState'],
  nmi: [0x9a, 'none', 0, 'userNmi'],
  setGuestDebug: [0x9b, 'in', guestDebugLayout.size, 'setGuestDebug'],
  getVcpuEvents: [0x9f, 'out', eventsLayout.size, 'vcpuEvents'],
  setVcpuEvents: [0xa0, 'in', eventsLayout.size, 'vcpuEvents'],
  getPit2: [0x9f, 'out', PIT_BYTES, 'pitState2'],
  setPit2: [0xa0, 'in', PIT_BYTES, 'pitState2'],
  getDebugregs: [0xa1, 'out', debugRegsLayout.size, 'debugregs'],
  setDebugregs: [0xa2, 'in', debugRegsLayout.size, 'debugregs'],
  setTscKhz: [0xa2, 'none', 0, 'tscControl'],
  getTscKhz: [0xa3, 'none', 0, 'getTscKhz'],
  enableCap: [0xa3, 'in', enableCapLayout.size],
  getXsave: [0xa4, 'out', XSAVE_BYTES, 'xsave'],
  setXsave: [0xa5, 'in', XSAVE_BYTES, 'xsave'],
  signalMsi: [0xa5, 'in', msiLayout.size, 'signalMsi'],
  getXcrs: [0xa6, 'out', xcrsLayout.size, 'xcrs'],
  setXcrs: [0xa7, 'in', xcrsLayout.size, 'xcrs'],
  resetDirtyRings: [0xc7, 'none', 0, 'dirtyLogRing'],
  kvmclockCtrl: [0xad, 'none', 0, 'kvmclockCtrl'],
  setDeviceAttr: [0xe1, 'in', deviceAttrLayout.size],
  getDeviceAttr: [0xe2, 'in', deviceAttrLayout.size],
} as const satisfies Readonly<Record<string, Row>>;
export type IoctlName = keyof typeof rows;

/** All ioctls by name. */
export const ioctls = Object.fromEntries(
  Object.entries(rows).map(([name, [nr, direction, size, needs]]: [string, Row]) => [
    name,
    { name, request: request(nr, direction, size), ...(needs ? { needs } : {}) },
  ]),
) as Readonly<Record<IoctlName, Ioctl>>;

// -- exits

/** Exit reasons by number, as `kvm_run.exit_reason` has them. */
export const exitReasons = [
  'unknown', 'exception', 'io', 'hypercall', 'debug', 'hlt', 'mmio', 'irqWindowOpen', 'shutdown', 'failEntry', 'intr', 'setTpr',
  'tprAccess', 's390Sieic', 's390Reset', 'dcr', 'nmi', 'internalError', 'osi', 'paprHcall', 's390Ucontrol', 'watchdog', 's390Tsch', 'epr',
  'systemEvent', 's390Stsi', 'ioapicEoi', 'hyperv', 'armNisv', 'x86Rdmsr', 'x86Wrmsr', 'dirtyRingFull', 'apResetHold', 'x86BusLock',
] as const; // biome-ignore format: a table
export type ExitReason = (typeof exitReasons)[number];

/** `suberror` of an internal error: the kernel could not emulate an instruction. */
export const SUBERROR_EMULATION = 1;
/** Memory region flags. */
export const regionFlag = { logDirty: 1, readonly: 2 } as const;
/** `mp_state`: a vCPU runs, waits for INIT, holds INIT until SIPI, is halted. */
export const mpState = { runnable: 0, uninitialized: 1, initReceived: 2, halted: 3, sipiReceived: 4 } as const;
/** Errno values that ioctls give. */
export const errno = { EINTR: 4, EAGAIN: 11, EFAULT: 14, EBUSY: 16, EINVAL: 22, ENOENT: 2, EACCES: 13 } as const;

/** A structure of its own: its bytes and a view of them. */
export function block<V>(layout: { readonly size: number; view(buffer: ArrayBufferLike, offset: number): V }): {
  readonly bytes: Uint8Array;
  readonly view: V;
} {
  const bytes = new Uint8Array(layout.size);
  return { bytes, view: layout.view(bytes.buffer, 0) };
}
