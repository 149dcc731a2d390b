// A vCPU on KVM: enters the guest, serves what makes it leave, and injects what the board has. Its state can be had in the slots that the
// translator uses too (state.ts), so that a guest may move between the two. Linux 6.1, Documentation/virt/kvm/api.rst, KVM_RUN and "The
// kvm_run structure".

import { pluggedAt } from '../../bits/slot-table.ts';
import { initState, resetState } from '../../isa/x86/reset.ts';
import { readRflags } from '../../isa/x86/rflags.ts';
import * as st from '../../isa/x86/state.ts';
import { Activity, GuestDebug } from '../../isa/x86/state.ts';
import type { MemoryLayout, Vcpu, VcpuBus, VcpuExit } from '../accel.ts';
import { Area } from '../dbt/layout.ts';
import { readSlot, writeSlot } from '../slots.ts';
import { block, debugControl, type ExitReason, errno, exitReasons, guestDebugLayout, type IoctlName, ioctls, LAPIC_BYTES, mpState, mpStateLayout, RUN_UNION, type Run, runDebugLayout, runEoiLayout,
  runFailLayout, runInternalLayout, runIoLayout, runLayout, runMmioLayout, SUBERROR_EMULATION, translationLayout, } from './abi.ts'; // biome-ignore format: one list
import { CoalescedRing, type PortWrite } from './coalesced.ts';
import { ExitCounters } from './counters.ts';
import { guestCpuid, lackingFeatures, setCpuid } from './cpuid.ts';
import { DirtyRing } from './dirty-ring.ts';
import { giveBack, type Holding, holdingOf } from './holdings.ts';
import { KvmState, keptComponents } from './state.ts';
import type { KvmVm } from './vm.ts';

/** MSRs of the paravirtual interface that both the kernel and the board keep. */
const PARAVIRTUAL = [0x4b564d00, 0x4b564d01, 0x4b564d03, 0x4b564d04, 0x4b564d05, 0x4b564d06, 0x4b564d02] as const;
const IA32_APIC_BASE = 0x1b;
const IA32_TSC_DEADLINE = 0x6e0;
const IF = 0x200n;
/** Where an MMIO exit has its data in the run area. */
const MMIO_DATA = RUN_UNION + 8;
/** The kernel's states by `Activity`. */
const mpStates = [mpState.runnable, mpState.halted, mpState.uninitialized];
/** Longest time for which a write to a coalesced port waits: the reset control register lies among them, and who has written it may wait. */
const COALESCED_NS = 250e6;
/** Bits of leaf 0x40000001 that need the local APIC in the kernel: asynchronous page faults, EOI, unhalt, IPIs. */
const NEEDS_KERNEL_APIC = (1 << 4) | (1 << 6) | (1 << 7) | (1 << 10) | (1 << 11) | (1 << 14);

/** The board's local APIC as registers, to be filled from the kernel's and put back. */
export interface BoardApic {
  /** The register page (`struct kvm_lapic_state`), IA32_TSC_DEADLINE. */
  save(): { readonly page: Uint8Array; readonly deadline: bigint };
  load(base: bigint, page: Uint8Array, deadline: bigint): void;
  /** Nothing pending, no timer: the kernel's counts. */
  clear(): void;
}

/** Slots of which the kernel has nothing. */
const BESIDE: ReadonlySet<string> = new Set(['smm', 'smbase', 'smiPending', 'initPending']);
/** Instructions that the translator executes at a time in system management mode: so many at most are the guest's own, once it has left. */
const MANAGED_SLICE = 2_000;

export interface KvmVcpuOptions {
  readonly vm: KvmVm;
  readonly memory: SharedArrayBuffer;
  readonly layout: MemoryLayout;
  readonly index: number;
  readonly bus: VcpuBus;
  /** The board's local APIC, which stands for the kernel's while the vCPU does not run; where the kernel keeps it. */
  readonly apic?: BoardApic;
  /** The state in the slots counts; else the vCPU is reset. */
  readonly keep?: boolean;
  /** Frequency of the guest's time-stamp counter. */
  readonly tscKhz?: number;
  /** Told of pages that the guest has written, by slot, where the machine has dirty rings. */
  readonly written?: (slot: number, page: number) => void;
  /** Carries out writes to coalesced ports that `take` gives, with the board's lock held; where the machine has such ports. */
  readonly coalesced?: (take: () => PortWrite | undefined) => void;
  /** The same vCPU on the translator: executes what the kernel cannot. It is told before each use that state and memory changed. */
  readonly assist?: () => Vcpu & { forget(): void };
  /** Tells of an instruction that was handed to the translator. */
  readonly trace?: (text: string) => void;
}

/** Where RAM of a guest-physical address lies in the machine's memory. */
function hostOf(view: DataView, { ramBase, ramLow, ramHigh, ramHighBase, slots }: MemoryLayout, gpa: bigint): number | undefined {
  const at = Number(gpa);
  if (at < ramLow) return ramBase + at;
  const isRam = (at >= 2 ** 32 && at < 2 ** 32 + ramHigh) || pluggedAt(view, slots, at);
  return isRam ? ramHighBase + at - 2 ** 32 : undefined;
}

/**
 * The descriptor of vCPU `index`, made where there is none; or a negative error. From then on the kernel has its local APIC, as after power-on, and, once
 * another vCPU has brought its state, keeps an INIT and a SIPI that it is sent until its thread comes (`KvmVcpu.load`).
 */
export function makeVcpu({ host, share }: KvmVm, held: Holding, index: number): number {
  if (held.fd > 0) return held.fd;
  const fd = host.ioctl(share.vm, ioctls.createVcpu.request, index);
  if (fd > 0) held.fd = fd;
  return fd;
}

export class KvmVcpu implements Vcpu {
  readonly exits: ExitCounters;
  readonly instructions = 0;
  /** Features of the machine's CPU model that this KVM has not. */
  readonly lacking: readonly string[];
  readonly fd: number;
  readonly #o: KvmVcpuOptions;
  readonly #bus: VcpuBus;
  readonly #view: DataView;
  readonly #words: Int32Array;
  readonly #env: number;
  readonly #area: ArrayBuffer;
  readonly #bytes: DataView;
  readonly #run: Run;
  readonly #state: KvmState;
  readonly #ring: DirtyRing | undefined;
  readonly #held: Holding;
  readonly #kernelApic: boolean;
  readonly #kernelPic: boolean;
  readonly #thread: number;
  readonly #io;
  readonly #mmio;
  readonly #apic = new Uint8Array(LAPIC_BYTES);
  /** The slots hold the state, and the kernel's is old; else the kernel's counts, and the slots may be old. */
  #inSlots = true;
  #slotsFresh = true;
  /** An access that the kernel completes at the next entry. */
  #unfinished = false;
  #halted = false;
  /** The slots have an NMI that the kernel has not delivered yet. */
  #nmiTold = false;
  /** The board's local APIC has the registers; and they are others than the kernel's, which counts where they are not. */
  #apicOnBoard = true;
  #apicChanged = true;
  /** A debugger outside of the guest has something set in the kernel; DR6 of the last stop for it. */
  #debugged = false;
  #stoppedDr6: bigint | undefined;
  readonly #coalesced: CoalescedRing | undefined;
  readonly #takeCoalesced = (): PortWrite | undefined => this.#coalesced!.take();
  /** The translator executes a little for this vCPU, whose local APIC stays in the kernel. */
  #assisting = false;
  /** The translator has this vCPU in system management mode, and knows the state as the slots have it. */
  #managed = false;

  constructor(o: KvmVcpuOptions) {
    const { vm, layout, memory, index, bus } = o;
    const { host, share } = vm;
    this.#o = o;
    this.#bus = bus;
    this.#env = layout.vcpuBase + index * layout.vcpuBytes;
    this.exits = new ExitCounters(memory, this.#env + Area.exits);
    this.#view = new DataView(memory);
    this.#words = new Int32Array(memory);
    this.#kernelApic = share.irqchip !== 'off';
    this.#kernelPic = share.irqchip === 'on';
    const held = holdingOf(memory, layout, index);
    const fd = makeVcpu(vm, held, index);
    if (fd < 0) throw new Error(`Cannot make vCPU ${index} on KVM: error ${-fd}`);
    this.fd = fd;
    this.#held = held;
    this.#area = host.map(fd, share.runBytes);
    held.area = host.address(new Uint8Array(this.#area));
    held.areaBytes = share.runBytes;
    if (share.coalesced !== undefined && o.coalesced) this.#coalesced = new CoalescedRing(this.#area, share.coalesced);
    if (share.dirtyRing !== undefined) this.#ring = new DirtyRing(host, fd, share.dirtyRing, held);
    this.#bytes = new DataView(this.#area);
    this.#run = runLayout.view(this.#area, 0);
    this.#io = runIoLayout.view(this.#area, RUN_UNION);
    this.#mmio = runMmioLayout.view(this.#area, RUN_UNION);
    const model = (leaf: number, subleaf: number): readonly [number, number, number, number] => {
      const values = bus.cpuid(leaf, subleaf, { cr4: 0n, xcr0: 1n, cpl: 0 });
      if (leaf !== 0x40000001 || this.#kernelApic) return values;
      return [values[0] & ~NEEDS_KERNEL_APIC, values[1], values[2], values[3]];
    };
    const table = guestCpuid(model, vm.supported, this.#kernelApic);
    this.lacking = lackingFeatures(model, table);
    setCpuid(host, fd, table);
    this.#state = new KvmState({
      host,
      fd,
      view: this.#view,
      env: this.#env,
      components: keptComponents(vm.supported),
      tsc: () => bus.tsc(),
    });
    const result = host.ioctl(fd, ioctls.setSignalMask.request, host.runMask());
    if (result < 0) throw new Error(`Cannot set the signals of a KVM vCPU: error ${-result}`);
    this.#thread = host.prepareThread();
    held.timer = host.timer() + 1;
    if (o.tscKhz !== undefined && vm.has('tscControl') > 0) host.ioctl(fd, ioctls.setTscKhz.request, o.tscKhz);
    if (!o.keep) this.reset();
    Atomics.store(this.#words, this.#word(st.hostThread), this.#thread);
  }

  /** Ends the vCPU, on its thread: nobody may use it afterwards. The kernel's part of it is gone when the machine is, too. */
  close(): void {
    const { host } = this.#o.vm;
    Atomics.store(this.#words, this.#word(st.hostThread), 0);
    host.endThread();
    this.#held.timer = 0;
    giveBack(host, this.#held);
  }

  // -- Vcpu

  reset(): void {
    if (!this.#inSlots) this.#finish();
    resetState(this.#view, this.#env);
    this.#begin();
  }
  init(): void {
    this.publish();
    initState(this.#view, this.#env);
    this.#begin();
  }
  #begin(): void {
    this.#view.setInt32(this.#env + st.ramBase.offset, this.#o.layout.ramBase, true);
    Atomics.store(this.#words, this.#word(st.hostThread), this.#thread);
    this.#inSlots = true;
    this.#slotsFresh = true;
    this.#managed = false;
    this.#halted = false;
    this.#apicOnBoard = true;
    this.#apicChanged = true;
  }
  /** True where INIT and SIPI are the kernel's business. */
  get startsItself(): boolean {
    return this.#kernelApic;
  }
  sync(): void {
    this.#inSlots = true;
    this.#managed = false;
  }
  smi(): void {
    Atomics.store(this.#words, this.#word(st.smiPending), 1);
  }
  nmi(): void {
    this.#dropTold();
    Atomics.store(this.#words, this.#word(st.nmiPending), 1);
  }
  get(name: string): bigint {
    if (!BESIDE.has(name)) this.publish();
    const slot = st.stateSlots[name];
    if (!slot) throw new Error(`Cannot read vCPU state ${name}: there is no slot of that name`);
    return readSlot(this.#view, this.#env + slot.offset, slot.access);
  }
  set(name: string, value: bigint): void {
    const beside = BESIDE.has(name);
    if (!beside) this.publish();
    const slot = st.stateSlots[name];
    if (!slot) throw new Error(`Cannot write vCPU state ${name}: there is no slot of that name`);
    writeSlot(this.#view, this.#env + slot.offset, slot.access, value);
    this.#managed = false;
    if (!beside) this.#inSlots = true;
  }
  publish(): void {
    this.#takeRing();
    if (this.#inSlots || this.#slotsFresh) return;
    this.#finish();
    // First: an INIT or SIPI that waits in the kernel takes effect here, and changes registers.
    const activity = this.#activity();
    const begun = this.#state.load();
    this.#nmiTold = begun.nmi;
    if (begun.nmi) Atomics.store(this.#words, this.#word(st.nmiPending), 1);
    Atomics.store(this.#words, this.#word(st.inFlight), begun.vector);
    Atomics.store(this.#words, this.#word(st.activity), activity);
    if (this.#kernelApic && this.#o.apic && !this.#assisting) {
      this.#call('getLapic', this.#apic);
      this.#o.apic.load(this.#state.readMsr(IA32_APIC_BASE) ?? 0n, this.#apic, this.#state.readMsr(IA32_TSC_DEADLINE) ?? 0n);
      this.#apicOnBoard = true;
    }
    for (const index of PARAVIRTUAL) {
      const value = this.#state.readMsr(index);
      if (value !== undefined) this.#bus.keepMsr?.(index, value);
    }
    if (this.#stoppedDr6 !== undefined) writeSlot(this.#view, this.#env + st.dr[6]!.offset, st.dr[6]!.access, this.#stoppedDr6);
    this.#slotsFresh = true;
  }

  #takeRing(): number {
    return this.#ring?.take((slot, page) => this.#o.written?.(slot, page)) ?? 0;
  }

  /** Throws, with one line, where the state in the slots cannot be had on this KVM. */
  check(): void {
    this.#state.check();
  }
  /** The slots hold the state, whoever changed it; the kernel's is old. */
  takeOver(): void {
    // Slots that were put in, or emptied by a reset under the translator, do not know this thread.
    Atomics.store(this.#words, this.#word(st.hostThread), this.#thread);
    this.#inSlots = true;
    this.#slotsFresh = true;
    this.#managed = false;
    this.#apicOnBoard = true;
    this.#apicChanged = true;
  }
  /**
   * Brings state that the slots hold to the kernel now: what comes to its local APIC from here on is kept. With `tscBase`, which is as for `KvmState.store`,
   * the time-stamp counter is the slots', not what the kernel expects. `asMade`: the local APIC stays as the kernel has made it, with what it was sent since.
   */
  load(tscBase?: BigInt64Array, asMade = false): void {
    if (!this.#inSlots) return;
    this.#enter(tscBase, asMade);
    // `publish` asks the kernel for what is being delivered.
    this.#injectBegun();
    // What comes before the guest runs shows in the next look at the state.
    this.#slotsFresh = false;
  }
  /** As `publish`, though nothing ran since: interrupts may have come. */
  refresh(): void {
    if (!this.#inSlots) this.#slotsFresh = false;
    this.publish();
  }

  /** The kernel still has the NMI that `publish` told of. */
  #dropTold(): void {
    if (this.#nmiTold && !this.#inSlots) Atomics.store(this.#words, this.#word(st.nmiPending), 0);
    this.#nmiTold = false;
  }

  run(slice: number, ns: number): VcpuExit {
    const { host } = this.#o.vm;
    this.#dropTold();
    if (this.#manages()) return this.#manage(Math.min(slice, MANAGED_SLICE));
    host.interruptIn(this.#coalesced && this.#o.index === 0 ? Math.min(ns, COALESCED_NS) : ns);
    const kick = this.#word(st.kick);
    const entered = this.#word(st.hostEntered);
    for (;;) {
      if (this.#inSlots) this.#enter();
      else if (this.#kernelApic && this.#apicOnBoard) this.#apicBack(false);
      if (this.#halted && !this.#wakes()) return 'hlt';
      this.#halted = false;
      this.#inject();
      // A kick from here on either is seen at once or ends the run.
      Atomics.store(this.#words, entered, 1);
      const kicked = Atomics.exchange(this.#words, kick, 0) !== 0;
      this.#slotsFresh = false;
      const result = kicked ? -errno.EINTR : host.ioctl(this.fd, ioctls.run.request, 0);
      Atomics.store(this.#words, entered, 0);
      if (this.#coalesced && !this.#coalesced.empty) this.#o.coalesced!(this.#takeCoalesced);
      if (!kicked) this.#unfinished = false;
      if (!this.#kernelApic) this.#bus.tpr = this.#run.cr8 & 15;
      if (result < 0) {
        if (result !== -errno.EINTR && result !== -errno.EAGAIN) throw new Error(`Cannot run a KVM vCPU: error ${-result}`);
        if (!kicked) host.clearInterrupt();
        this.exits.count('interrupted');
        return 'interrupted';
      }
      const reason = exitReasons[this.#run.exitReason] ?? 'unknown';
      const sample = this.exits.count(reason);
      const from = sample > 0 ? performance.now() : 0;
      const exit = this.#serve(reason);
      if (sample > 0) this.exits.took(reason, (performance.now() - from) * 1e6 * sample);
      if (exit) return exit;
    }
  }

  // -- system management mode

  /** An SMI waits, or the vCPU is in the mode. */
  #manages(): boolean {
    return Atomics.load(this.#words, this.#word(st.smiPending)) !== 0 || Atomics.load(this.#words, this.#word(st.smm)) !== 0;
  }
  /** The translator takes the vCPU into the mode, or on in it: it sees SMRAM, which no region of KVM's shows. All local APICs are the board's. */
  #manage(slice: number): VcpuExit {
    this.publish();
    const dbt = this.#o.assist?.();
    if (!dbt) throw new Error('Cannot go on with a KVM vCPU: nobody has its system management mode');
    if (!this.#managed) {
      // Code that it knew may have been written to since by vCPUs that KVM runs.
      dbt.forget();
      dbt.sync();
    }
    this.exits.count('assist');
    const exit = dbt.run(slice, 0);
    this.#inSlots = true;
    this.#slotsFresh = true;
    this.#managed = this.#manages();
    return exit;
  }

  // -- into the guest

  #enter(tscBase?: BigInt64Array, asMade = false): void {
    // Where the translator has executed a little, the local APIC has stayed in the kernel: the board's knows nothing of it.
    const stays = this.#kernelApic && !this.#apicOnBoard;
    const apic = stays ? undefined : { base: this.#bus.rdmsr(IA32_APIC_BASE) ?? 0xfee00900n, tpr: this.#bus.tpr };
    this.#state.store(apic, !stays || this.#nmiTold, tscBase);
    this.#nmiTold = false;
    for (const index of PARAVIRTUAL) {
      const value = this.#bus.rdmsr(index);
      if (value !== undefined) this.#state.writeMsr(index, value);
    }
    if (this.#kernelApic) {
      this.#apicBack(this.#apicChanged && !asMade);
      if (!asMade) this.#setMpState(mpStates[Atomics.load(this.#words, this.#word(st.activity))] ?? mpState.runnable);
    } else this.#halted = Atomics.load(this.#words, this.#word(st.activity)) === Activity.halted;
    this.#debug();
    this.#inSlots = false;
  }

  /** What a debugger has set in the slots (`GuestDebug`, its DR0 to DR3 and DR7), for the kernel: KVM_SET_GUEST_DEBUG. */
  #debug(): void {
    this.#stoppedDr6 = undefined;
    const owned = Atomics.load(this.#words, this.#word(st.guestDebug));
    if (owned === 0 && !this.#debugged) return;
    const { bytes, view } = block(guestDebugLayout);
    const { step, bp, registers } = GuestDebug;
    view.control =
      (owned ? debugControl.enable : 0) |
      (owned & step ? debugControl.singleStep : 0) |
      (owned & bp ? debugControl.softwareBreakpoints : 0) |
      (owned & registers ? debugControl.hardwareBreakpoints : 0);
    if (owned & registers) {
      for (const n of [0, 1, 2, 3, 7]) view.debugreg[n] = readSlot(this.#view, this.#env + st.dr[n]!.offset, st.dr[n]!.access);
    }
    this.#call('setGuestDebug', bytes);
    this.#debugged = owned !== 0;
  }

  /** The kernel's local APIC counts again; `changed`: with the registers that the board's has now. */
  #apicBack(changed: boolean): void {
    const { apic } = this.#o;
    if (!apic) return;
    if (changed) {
      const { page, deadline } = apic.save();
      this.#call('setLapic', page);
      this.#state.writeMsr(IA32_TSC_DEADLINE, deadline);
    }
    apic.clear();
    this.#apicOnBoard = false;
    this.#apicChanged = false;
  }

  /** Whether a halted vCPU has a reason to go on; with the local APIC in the kernel it halts there. */
  #wakes(): boolean {
    const waits = (slot: { readonly offset: number }): boolean => Atomics.load(this.#words, this.#word(slot)) !== 0;
    return waits(st.nmiPending) || waits(st.inFlight) || this.#bus.takeUnhalt() || (this.#interruptible() && this.#bus.pending());
  }
  #activity(): number {
    if (!this.#kernelApic) return this.#halted ? Activity.halted : Activity.running;
    const { bytes, view } = block(mpStateLayout);
    this.#call('getMpState', bytes);
    return view.state === mpState.halted
      ? Activity.halted
      : view.state === mpState.runnable
        ? Activity.running
        : Activity.waitsForSipi;
  }
  #interruptible(): boolean {
    return this.#slotsFresh ? (readRflags(this.#view, this.#env) & IF) !== 0n : this.#run.ifFlag !== 0;
  }
  #inject(): void {
    const run = this.#run;
    if (!this.#kernelApic) run.cr8 = this.#bus.tpr;
    run.requestInterruptWindow = 0;
    if (Atomics.exchange(this.#words, this.#word(st.nmiPending), 0) !== 0) this.#call('nmi', 0);
    if (this.#injectBegun()) return;
    if (this.#kernelPic || !this.#bus.pending()) return;
    if (run.readyForInjection) {
      const vector = this.#bus.acknowledge();
      if (vector >= 0) this.#interrupt(vector);
    } else run.requestInterruptWindow = 1;
  }
  /** Whether an interrupt was being delivered, which the kernel has now. */
  #injectBegun(): boolean {
    const begun = Atomics.exchange(this.#words, this.#word(st.inFlight), 0);
    if (begun !== 0) this.#interrupt(begun);
    return begun !== 0;
  }
  /** Has the kernel deliver an interrupt that was acknowledged elsewhere. */
  #interrupt(vector: number): void {
    if (this.#kernelApic) {
      // Among the events, where `publish` finds it again: what KVM_INTERRUPT leaves beside a local APIC in the kernel is told by nothing until
      // the guest takes it, and a vCPU that was moved or saved before would lose it, acknowledged. A vCPU that halts does not look there.
      this.#state.inject(vector);
      if (this.#activity() === Activity.halted) this.#setMpState(mpState.runnable);
    } else {
      const bytes = new Uint8Array(4);
      new DataView(bytes.buffer).setUint32(0, vector, true);
      this.#call('interrupt', bytes);
      this.#halted = false;
    }
    this.#run.readyForInjection = 0;
  }
  #setMpState(state: number): void {
    const { bytes, view } = block(mpStateLayout);
    view.state = state;
    this.#call('setMpState', bytes);
  }

  // -- out of the guest

  /** Serves the exit; undefined where the guest goes on at once. */
  #serve(reason: ExitReason): VcpuExit | undefined {
    switch (reason) {
      case 'io':
        this.#portAccess();
        return undefined;
      case 'mmio':
        this.#mmioAccess();
        return undefined;
      case 'hlt':
        this.#halted = true;
        return this.#wakes() ? undefined : 'hlt';
      case 'dirtyRingFull':
        // A KVM that emulates many instructions at a go may write more than the ring holds, and never finds room again.
        if (this.#takeRing() === 0)
          throw new Error(
            `Cannot go on with a KVM vCPU: its dirty ring is full and holds nothing at ${this.#where()}; a larger dirty-ring-size, or none, may be accepted`,
          );
        this.#o.vm.resetDirtyRings();
        return undefined;
      case 'irqWindowOpen':
      case 'setTpr':
        return undefined;
      case 'intr':
        return 'interrupted';
      case 'shutdown':
        return 'shutdown';
      case 'ioapicEoi':
        this.#bus.eoi?.(runEoiLayout.view(this.#area, RUN_UNION).vector);
        return undefined;
      case 'debug':
        this.#stoppedDr6 = runDebugLayout.view(this.#area, RUN_UNION).dr6;
        return 'debug';
      case 'internalError':
        return this.#internalError();
      case 'failEntry':
        throw new Error(
          `Cannot enter the guest: the processor refuses its state (reason 0x${runFailLayout.view(this.#area, RUN_UNION).reason.toString(16)}) at ${this.#where()}`,
        );
      default:
        throw new Error(
          `Cannot go on with a KVM vCPU: it left with reason ${this.#run.exitReason} (${reason}) at ${this.#where()}`,
        );
    }
  }

  #portAccess(): void {
    const { direction, size, port, count } = this.#io;
    let at = this.#io.dataOffset;
    for (let n = 0; n < count; n++, at += size) {
      if (port === this.#bus.calledPort) {
        const eax = this.#state.callPort((registers) => this.#bus.callPort!(registers));
        if (direction !== 1) this.#put(at, size, eax);
      } else if (direction === 1) this.#bus.portOut(port, size, this.#value(at, size));
      else this.#put(at, size, this.#bus.portIn(port, size));
    }
    this.#unfinished = true;
  }

  #mmioAccess(): void {
    const { gpa, gpaHigh, length, isWrite } = this.#mmio;
    const address = gpaHigh * 2 ** 32 + gpa;
    // The kernel hands over accesses of any length up to 8; the board takes powers of two.
    for (let at = 0; at < length; ) {
      let size = 8;
      while (size > length - at || (address + at) % size !== 0) size >>= 1;
      if (isWrite) {
        this.#bus.mmioWrite(address + at, size, this.#mmioData(at, size));
      } else {
        const value = this.#bus.mmioRead(address + at, size);
        if (size === 8) this.#bytes.setBigUint64(MMIO_DATA, value, true);
        else this.#put(MMIO_DATA + at, size, Number(value));
      }
      at += size;
    }
    this.#unfinished = true;
  }

  #mmioData(at: number, size: number): bigint {
    if (size === 8) return this.#bytes.getBigUint64(MMIO_DATA, true);
    return BigInt(this.#value(MMIO_DATA + at, size));
  }
  /** 1, 2 or 4 bytes of the run area. */
  #value(at: number, size: number): number {
    const d = this.#bytes;
    return size === 1 ? d.getUint8(at) : size === 2 ? d.getUint16(at, true) : d.getUint32(at, true);
  }
  #put(at: number, size: number, value: number): void {
    const d = this.#bytes;
    if (size === 1) d.setUint8(at, value);
    else if (size === 2) d.setUint16(at, value, true);
    else d.setUint32(at, value, true);
  }

  #internalError(): VcpuExit | undefined {
    const { suberror, count, data } = runInternalLayout.view(this.#area, RUN_UNION);
    const assist = this.#o.assist;
    if (suberror !== SUBERROR_EMULATION || !assist) {
      const bytes = `instruction bytes ${this.#instruction(data, count)}`;
      if (suberror === SUBERROR_EMULATION)
        throw new Error(`Cannot go on with a KVM vCPU: it cannot emulate an instruction at ${this.#where()}, ${bytes}`);
      const words = [...data.slice(0, Math.min(count, 16))].map((w) => `0x${w.toString(16)}`).join(' ');
      throw new Error(
        `Cannot go on with a KVM vCPU: internal error ${suberror} at ${this.#where()}, ${bytes}, data ${words || 'none'}`,
      );
    }
    this.exits.count('assist');
    this.#assisting = true;
    this.publish();
    const dbt = assist();
    dbt.forget();
    dbt.sync();
    const from = this.get('rip');
    const exit = dbt.run(1, 0);
    this.#assisting = false;
    this.#o.trace?.(`the translator executed what KVM cannot at 0x${from.toString(16)}`);
    this.#inSlots = true;
    this.#slotsFresh = true;
    // With the local APIC in the kernel it halts there.
    if (exit === 'hlt' && !this.#kernelApic) {
      this.#halted = true;
      return this.#wakes() ? undefined : 'hlt';
    }
    return exit === 'shutdown' ? 'shutdown' : undefined;
  }

  /** Has the kernel complete an access that the board has served, without running the guest. One instruction may make several. */
  #finish(): void {
    while (this.#unfinished) {
      this.#run.immediateExit = 1;
      const result = this.#o.vm.host.ioctl(this.fd, ioctls.run.request, 0);
      this.#run.immediateExit = 0;
      this.#unfinished = false;
      const reason = result < 0 ? undefined : exitReasons[this.#run.exitReason];
      if (reason === 'io') this.#portAccess();
      else if (reason === 'mmio') this.#mmioAccess();
    }
  }

  /**
   * The bytes of the instruction that KVM failed on: what the kernel tells, else what lies at RIP. api.rst, KVM_EXIT_INTERNAL_ERROR,
   * KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES: data[0] are flags, the low byte of data[1] the count, and the bytes follow it.
   */
  #instruction(data: BigUint64Array, count: number): string {
    const hex = (bytes: Uint8Array): string => [...bytes].map((b) => b.toString(16).padStart(2, '0')).join(' ');
    const raw = new Uint8Array(data.buffer, data.byteOffset + 8, 16);
    if (count >= 3 && (data[0]! & 1n) !== 0n && raw[0]! > 0 && raw[0]! <= 15) return hex(raw.subarray(1, 1 + raw[0]!));
    const physical = this.#physical(this.#state.linearRip());
    const at = physical === undefined ? undefined : hostOf(this.#view, this.#o.layout, physical);
    return at === undefined ? 'unknown' : hex(new Uint8Array(this.#view.buffer, at, Math.min(15, 4096 - (at & 0xfff))));
  }
  /** Guest-physical address of a linear one, as the kernel walks the guest's tables; undefined where nothing is mapped. */
  #physical(linear: bigint): bigint | undefined {
    const { bytes, view } = block(translationLayout);
    view.linear = linear;
    const result = this.#o.vm.host.ioctl(this.fd, ioctls.translate.request, bytes);
    return result >= 0 && view.valid !== 0 ? view.physical : undefined;
  }

  #where(): string {
    return `rip 0x${this.#state.rip().toString(16)}`;
  }
  #word(slot: { readonly offset: number }): number {
    return (this.#env + slot.offset) >> 2;
  }
  #call(name: IoctlName, argument: number | Uint8Array): void {
    const result = this.#o.vm.host.ioctl(this.fd, ioctls[name].request, argument);
    if (result < 0) throw new Error(`Cannot ${name} of a KVM vCPU: error ${-result}`);
  }
}
