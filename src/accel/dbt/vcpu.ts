// A vCPU on the translator: the WebAssembly instance, the host functions that guest code calls, and the loop around them.

import { LowPage, pluggedAt, READ_ONLY, SlotTable, slotAt, slotOf, smramAt } from '../../bits/slot-table.ts';
import { wholeRegister, withPortRegisters } from '../../bus/port-registers.ts';
import { lacking } from '../../isa/x86/absent.ts';
import { edgeContextAt } from '../../isa/x86/canonical.ts';
import { blockKey, blockOffset, Jump, Known } from '../../isa/x86/fetch.ts';
import { How, reservedChangeOf } from '../../isa/x86/mmu.ts';
import { Pmu } from '../../isa/x86/pmu.ts';
import { Rec } from '../../isa/x86/record.ts';
import { initState, resetState } from '../../isa/x86/reset.ts';
import { enterSmm, leaveSmm } from '../../isa/x86/smm.ts';
import { throughStack } from '../../isa/x86/stack-access.ts';
import * as st from '../../isa/x86/state.ts';
import {
  Activity,
  Ctx,
  Exit,
  GuestDebug,
  S,
  SHADOWED_SHIFT,
  TLB_ENTRIES,
  TLB_ENTRY_BYTES,
  Trap,
  X,
} from '../../isa/x86/state.ts';
import type { Tables } from '../../isa/x86/table.ts';
import { JUMP_GROUP_SHIFT, jumpOffset } from '../../isa/x86/tlb.ts';
import { isWide } from '../../wasm/module.ts';
import { relaxedMaddIsFused } from '../../wasm/probe.ts';
import type { MemoryLayout, Vcpu, VcpuBus, VcpuExit } from '../accel.ts';
import { readSlot, writeSlot } from '../slots.ts';
import { TABLE_ENTRIES } from './chain.ts';
import { type Block, CodeCache } from './code.ts';
import { CodePages } from './code-pages.ts';
import { type CounterName, Counters } from './counters.ts';
import type { Handler, Handlers } from './handlers.ts';
import type { KeptRegions } from './kept.ts';
import { Area, RECORD_ARENA } from './layout.ts';
import type { Library } from './library.ts';
import { Mailbox, Request } from './mailbox.ts';
import type { Reach } from './region.ts';
import { Regions } from './regions.ts';
import { ARRIVAL_ENTRIES, buildHandlers, type HandlerModule, Kick, type Named } from './tier0.ts';
import type { RegionMaker } from './translate.ts';

const IF = 0x200;

/** By how many bits instructions of regions count for less in a slice: the first that leaves enough time before something is due, in ns. */
const REGION_SHIFTS = [
  [1_000_000, 3],
  [250_000, 2],
  [0, 0],
] as const;
/** Returns from the loop between two times that the counters are brought up to date while the guest goes on. */
const COUNT_EVERY = 8;
/** Slow calls of a guest (ports, MMIO, decoding) after which it is left for a look at timers: a slice counts instructions, not time. */
const CALLS_MAX = 512;
/** An instruction pointer that no guest has: the bottom of the shadow stack. */
const NOWHERE = 1n << 62n;

/** Handlers that are functions, made in one go, with their compiled module. */
export interface ColdHandlers {
  readonly handlers: readonly Handler[];
  readonly made: HandlerModule;
  readonly module: WebAssembly.Module;
}

/** What all vCPUs of a machine share. */
export interface DbtVm {
  readonly memory: WebAssembly.Memory;
  readonly layout: MemoryLayout;
  readonly cpus: number;
  readonly tables: Tables;
  /** Compiled main module (tier0.ts), and the handlers whose numbers it uses. */
  readonly main: WebAssembly.Module;
  readonly library: Library;
  readonly handlers: Handlers;
  readonly hotCount: number;
  /** Handlers that were made ahead, behind the hot ones. */
  readonly cold?: ColdHandlers;
  /** Traces an event of the guest: undefined opcodes and the like. */
  readonly trace?: (text: string) => void;
  /** When regions are translated: never, once samples say that code is hot, or at its first execution (for tests). */
  readonly regions: 'off' | 'hot' | 'always';
  /** How far the first region of a block goes, where it is not as usual. */
  readonly reach?: Reach;
  /** Translates regions on another thread; without it, the vCPU does it itself. One for each vCPU. */
  readonly maker?: RegionMaker;
  /** Regions of earlier runs. */
  readonly kept?: KeptRegions;
  /** The host's time in ms. */
  now(): number;
}

type Exports = Record<string, (...args: (number | bigint)[]) => number & bigint>;

export class DbtVcpu implements Vcpu {
  readonly index: number;
  readonly #vm: DbtVm;
  readonly #env: number;
  readonly #view: DataView;
  readonly #words: Int32Array;
  readonly #quads: BigInt64Array;
  readonly #bytes: Uint8Array;
  readonly #pages: CodePages;
  readonly #code: CodeCache;
  readonly #regions: Regions;
  readonly #table: WebAssembly.Table;
  readonly exports: Exports;
  readonly #bus: VcpuBus;
  readonly #hosts: WebAssembly.ModuleImports;
  readonly #boxes: Mailbox[];
  /** All decoded code is to be dropped before the guest goes on. */
  #forget = false;
  instructions = 0;
  readonly #pmu: Pmu | undefined;
  /** Of `instructions` and `repeats`, what the performance counters have seen; a register that is to be read or written then. */
  #counted = 0;
  #repeats = 0;
  #asked: { readonly msr: number; readonly value?: bigint } | { readonly counter: number } | undefined;
  /** What it counts, for any thread to see. */
  readonly counters: Counters;

  /** `keep`: the state in the slots counts; else the vCPU is reset. */
  constructor(vm: DbtVm, index: number, bus: VcpuBus, keep = false) {
    this.index = index;
    this.#vm = vm;
    this.#bus = bus;
    const { layout, memory } = vm;
    const buffer = memory.buffer as ArrayBufferLike as SharedArrayBuffer;
    this.#env = layout.vcpuBase + index * layout.vcpuBytes;
    this.#view = new DataView(buffer);
    this.#words = new Int32Array(buffer);
    this.#quads = new BigInt64Array(buffer);
    this.#bytes = new Uint8Array(buffer);
    this.#pages = new CodePages(buffer, layout, this.#env);
    this.#boxes = Array.from({ length: vm.cpus }, (_, n) => {
      const area = layout.vcpuBase + n * layout.vcpuBytes;
      return new Mailbox(buffer, area + Area.mailbox, () => Atomics.or(this.#words, (area + st.kick.offset) >> 2, Kick.now));
    });
    const i32 = (slot: { offset: number }, value: number): void => this.#view.setInt32(this.#env + slot.offset, value, true);
    i32(st.ramBase, layout.ramBase);
    i32(st.ramLow, layout.ramLow);
    this.#view.setBigInt64(this.#env + st.ramHigh.offset, BigInt(layout.ramHigh), true);
    i32(st.ramSplit, layout.ramHighBase);
    i32(st.addendShift, isWide(layout.pages) ? 12 : 0);
    i32(st.slotTable, layout.slots);
    i32(st.codeMap, layout.codeMap);
    i32(st.dirtyMap, layout.dirtyMap);
    i32(st.openMap, layout.openMap);
    i32(st.blockTable, this.#env + Area.blocks);
    i32(st.codePieces, this.#env + Area.pieces);
    i32(st.cpuIndex, index);
    i32(st.jumpCache, this.#env + Area.jumpCache);
    for (let n = 0; n < 3; n++) i32(st.tlbs[n], this.#env + Area.tlbs + n * TLB_ENTRIES * TLB_ENTRY_BYTES);
    i32(st.tlbSystem, this.#env + Area.tlbs);
    i32(st.fusedMadd, relaxedMaddIsFused() ? 1 : 0);
    const { absent, cr4, physicalBits } = lacking((leaf, subleaf) => bus.cpuid(leaf, subleaf, { cr4: 0n, xcr0: 1n, cpl: 0 }));
    i32(st.absent, absent);
    i32(st.cr4Absent, cr4);
    this.#view.setBigInt64(this.#env + st.reservedChange.offset, reservedChangeOf(physicalBits), true);
    // The fourth TLB never holds anything.
    const none = this.#env + Area.tlbs + 3 * TLB_ENTRIES * TLB_ENTRY_BYTES;
    i32(st.tlbNone, none);
    for (let n = 0; n < TLB_ENTRIES; n++)
      this.#view.setBigInt64(none + n * TLB_ENTRY_BYTES, BigInt(n ^ (TLB_ENTRIES / 2)) << 12n, true);

    this.#table = new WebAssembly.Table({ element: 'anyfunc', initial: TABLE_ENTRIES, maximum: TABLE_ENTRIES });
    this.counters = new Counters(buffer, this.#env + Area.counters);
    this.#pmu = bus.pmu && new Pmu(this.#view, this.#env, bus.pmu);
    this.#hosts = this.#hostFunctions();
    const instance = new WebAssembly.Instance(vm.main, { env: { memory, table: this.#table }, host: this.#hosts });
    this.exports = { ...instance.exports } as Exports;
    this.#code = new CodeCache(
      buffer,
      { start: this.#env + Area.records, end: this.#env + Area.records + RECORD_ARENA },
      vm.tables,
      vm.handlers,
      {
        hostPage: (gpa) => this.#hostPage(gpa),
        claimPage: (gpa, host) => this.#claim(gpa, host),
        install: () => this.#install(),
        nextPage: () => this.#nextPage(),
        full: () => this.#forgetSoon(),
        dropped: () => this.#dropped(),
        undefined: (bytes) => this.#undefined(bytes),
        pieces: (gpa, lower, upper) => this.#pieces(gpa, lower, upper),
        release: (index) => this.#regions.release(index),
      },
    );
    this.#installed = vm.hotCount;
    if (vm.cold) this.#add(vm.cold.handlers, vm.cold.made, vm.cold.module);
    this.#regions = new Regions(vm, this.#env, this.#table, this.exports, this.#hosts, this.#code, {
      hostPage: (gpa) => this.#hostPage(gpa),
      claimPage: (gpa, host) => this.#claim(gpa, host),
      peek: (linear) => this.#peek(linear),
      full: () => this.#forgetSoon(),
    });
    if (keep) this.sync();
    else this.reset();
  }

  // -- Vcpu

  reset(): void {
    resetState(this.#view, this.#env);
    this.#pmu?.reset();
    this.#begin();
  }
  init(): void {
    initState(this.#view, this.#env);
    this.#pmu?.changed();
    this.#begin();
  }
  #begin(): void {
    this.#setWord(st.callTop.offset, this.#env + Area.shadow);
    this.#view.setBigUint64(this.#env + Area.shadow, NOWHERE, true);
    this.#showSmram();
    this.exports.updateContext(this.#env);
    this.exports.flushAll(this.#env);
  }
  sync(): void {
    this.#pmu?.changed();
    this.#showSmram();
    this.exports.loadPointers(this.#env);
    this.exports.updateWatch(this.#env);
    this.exports.updateContext(this.#env);
    this.exports.flushAll(this.#env);
  }
  nmi(): void {
    // One may wait behind another that has not been taken yet, but only one behind a handler that runs.
    const most = this.#word(st.nmiBlocked.offset) !== 0 ? 1 : 2;
    this.#setWord(st.nmiPending.offset, Math.min(this.#word(st.nmiPending.offset) + 1, most));
  }
  smi(): void {
    this.#setWord(st.smiPending.offset, 1);
  }
  readonly startsItself = false;
  /** All state is in the slots at any time between two runs. */
  publish(): void {
    this.#count();
  }
  refresh(): void {}
  /** Memory was changed behind the translator's back: all that it has decoded is dropped before the guest goes on. */
  forget(): void {
    this.#forget = true;
  }
  get(name: string): bigint {
    const slot = st.stateSlots[name];
    if (!slot) throw new Error(`Cannot read vCPU state ${name}: there is no slot of that name`);
    return readSlot(this.#view, this.#env + slot.offset, slot.access);
  }
  set(name: string, value: bigint): void {
    const slot = st.stateSlots[name];
    if (!slot) throw new Error(`Cannot write vCPU state ${name}: there is no slot of that name`);
    writeSlot(this.#view, this.#env + slot.offset, slot.access, value);
  }
  /** Counters of decoding. */
  get codeStats(): CodeCache['stats'] {
    return this.#code.stats;
  }

  run(slice: number, ns = 0): VcpuExit {
    const box = this.#boxes[this.index];
    box.setRunning(true);
    try {
      for (;;) {
        Atomics.and(this.#words, (this.#env + st.kick.offset) >> 2, 0);
        this.#unstep();
        this.#setWord(st.codeChanged.offset, 0);
        this.#code.resume();
        this.#code.tidy();
        this.#serve();
        this.#lookAtSlots();
        this.#regions.look();
        if (this.#forget) {
          this.#forget = false;
          this.#code.flush();
        }
        if (this.#word(st.activity.offset) !== Activity.running && !this.#wakes()) return 'hlt';
        if (this.#smi && this.#entersSmm()) this.#enterSmm();
        this.#setWord(st.activity.offset, Activity.running);
        if (!this.#inject()) return 'shutdown';
        this.#setWord(st.exitReason.offset, Exit.none);
        const loop = this.#word(st.ctx.offset) & Ctx.long ? this.exports.run : this.exports.runLegacy;
        // Performance counters count each instruction as one.
        const counting = this.#pmu?.runs === true;
        const most = counting ? Math.max(1, Math.min(slice, this.#pmu!.left())) : slice;
        const shift = counting ? 0 : REGION_SHIFTS.find(([least]) => ns >= least)![1];
        this.#setWord(st.regionShift.offset, shift);
        this.#behind = most << shift;
        this.#setWord(st.noted.offset, 0);
        this.#setWord(st.spared.offset, 0);
        const user = this.#word(st.cpl.offset) === 3;
        const used = most - loop(this.#env, most);
        const ran = used + this.#word(st.spared.offset);
        this.instructions += ran;
        slice -= used;
        const reason = this.#word(st.exitReason.offset);
        if (this.#pmu) this.#countEvents(this.#pmu, user);
        this.counters.exit(reason);
        if (reason === Exit.hot) {
          this.#hot();
          continue;
        }
        if (reason === Exit.mode) continue;
        // A counter was to overflow before the end of the slice. (Faults one after the other leave early, too, and use up nothing.)
        if (reason === Exit.pmc || (reason === Exit.budget && used >= most && slice > 0)) continue;
        if (this.#vm.regions === 'hot') this.#sample(reason === Exit.budget);
        if (reason === Exit.shutdown) return 'shutdown';
        if (reason === Exit.debug) return 'debug';
        if (reason === Exit.rsm) {
          if (!this.#leaveSmm()) return 'shutdown';
          // An INIT that has waited is the board's.
          if (slice <= 0 || this.#word(st.initPending.offset) !== 0) return 'interrupted';
          continue;
        }
        if (reason === Exit.hlt) {
          this.#setWord(st.activity.offset, Activity.halted);
          this.#setWord(st.shadow.offset, 0);
          if (this.#smi) continue;
          if (!this.#wakes() && !this.#traps) return 'hlt';
          this.#setWord(st.activity.offset, Activity.running);
          if (slice <= 0) return 'interrupted';
        } else if (reason === Exit.wait) {
          this.#setWord(st.shadow.offset, 0);
          if (!this.#nmi && !this.#smi && !this.#bus.pending()) return 'wait';
        } else if (reason === Exit.budget || slice <= 0) return 'interrupted';
        else if (reason === Exit.kick && (this.#bus.attention?.() || (!box.waiting && !this.#takesInterrupts())))
          return 'interrupted';
      }
    } finally {
      box.setRunning(false);
      if (++this.#runs % COUNT_EVERY === 0 || this.#word(st.exitReason.offset) !== Exit.budget) this.#count();
    }
  }
  /** Counts what has run, at CPL 3 or below, and serves the access to a counter that the vCPU was left for. */
  #countEvents(pmu: Pmu, user: boolean): void {
    const repeats = this.#word(st.repeats.offset);
    const ran = this.instructions - this.#counted - ((repeats - this.#repeats) | 0);
    this.#counted = this.instructions;
    this.#repeats = repeats;
    if (pmu.advance(ran, user)) this.#bus.overflow?.();
    const asked = this.#asked;
    if (asked === undefined) return;
    this.#asked = undefined;
    this.#setWord(st.pmAsked.offset, 0);
    if ('value' in asked) pmu.write(asked.msr, asked.value!);
    else {
      const value = 'msr' in asked ? pmu.read(asked.msr) : (pmu.counter(asked.counter) ?? 0n);
      this.#quads[(this.#env + st.gpr[st.R.rax].offset) >> 3] = value & 0xffffffffn;
      this.#quads[(this.#env + st.gpr[st.R.rdx].offset) >> 3] = value >> 32n;
    }
  }
  #runs = 0;
  /** Instructions that may have run since `instructions` was brought up to date. */
  #behind = 0;
  /** Brings the counters up to date. */
  #count(): void {
    const { counters } = this;
    const { blocks, instructions, invalidated, flushes } = this.#code.stats;
    const regions = this.#regions.stats;
    counters.set('instructions', this.instructions);
    counters.set('tsc', this.#clockReads);
    counters.set('inRegions', Number(this.#quad(st.inRegions.offset)));
    counters.set('blocks', blocks);
    counters.set('decoded', instructions);
    counters.set('invalidated', invalidated);
    counters.set('flushes', flushes);
    counters.set('regions', regions.made);
    counters.set('kept', regions.kept);
    counters.set('regionInstructions', regions.instructions);
    counters.set('modules', regions.modules);
    counters.set('released', regions.released);
    counters.set('regionMs', regions.ms);
    for (const { name, offset } of st.counters) counters.set(name as CounterName, this.#word(offset) >>> 0);
  }

  /** Takes back what was noted for an instruction that the loop was left before: it has not run. */
  #unstep(): void {
    const reason = this.#word(st.exitReason.offset);
    const noted = this.#word(st.stepTrap.offset);
    if (noted === 0 || (reason !== Exit.budget && reason !== Exit.kick && reason !== Exit.hot && reason !== Exit.mode)) return;
    if (noted & Trap.resumed) this.#setWord(st.sysFlags.offset, this.#word(st.sysFlags.offset) | 0x10000);
    if (noted & Trap.shadowed) this.#setWord(st.shadow.offset, (noted & Trap.shadowed) >> SHADOWED_SHIFT);
    this.#setWord(st.stepTrap.offset, noted & Trap.hits);
  }

  // -- interrupts

  get #nmi(): boolean {
    return this.#word(st.nmiPending.offset) !== 0;
  }
  /** Whether an SMI waits that is not held off. */
  get #smi(): boolean {
    return this.#word(st.smiPending.offset) !== 0 && this.#word(st.smm.offset) === 0;
  }
  /** Whether it may come before the next instruction; else it is looked at after that. */
  #entersSmm(): boolean {
    if (this.#word(st.guestDebug.offset) & GuestDebug.step) return false;
    const shadow = this.#word(st.shadow.offset) !== 0;
    if (!shadow && this.#word(st.inFlight.offset) === 0) return true;
    if (shadow) this.exports.stepShadow(this.#env);
    Atomics.or(this.#words, (this.#env + st.kick.offset) >> 2, Kick.now);
    return false;
  }
  #enterSmm(): void {
    const area = enterSmm({ view: this.#view, env: this.#env });
    this.sync();
    // No paging is on now.
    for (const [gpa, bytes, value] of area)
      this.exports.storeSlow(this.#env, BigInt(gpa), BigInt.asIntN(64, value), Math.log2(bytes) | How.system);
  }
  /** False where the processor shuts down. */
  #leaveSmm(): boolean {
    const fits = leaveSmm({ view: this.#view, env: this.#env }, (gpa, bytes) => {
      let value = 0n;
      for (let n = bytes - 1; n >= 0; n--) {
        const at = (gpa + n) % 2 ** 32;
        const host = this.#hostPage(at - (at % 4096));
        value = (value << 8n) | BigInt(host < 0 ? 0xff : this.#bytes[host + (at % 4096)]);
      }
      return value;
    });
    this.sync();
    // What waited for the mode's end.
    if (this.#nmi || this.#smi) Atomics.or(this.#words, (this.#env + st.kick.offset) >> 2, Kick.now);
    return fits;
  }
  /** Brings what RAM shows below 4 GiB in line with the mode. */
  #showSmram(): void {
    const { ramLow, slots } = this.#vm.layout;
    const hidden = this.#word(st.smm.offset) !== 0 ? 0 : this.#words[(slots + SlotTable.tseg) >> 2];
    this.#setWord(st.ramLow.offset, ramLow - hidden);
  }
  /** Whether a debug trap comes after the instruction that was just run. */
  get #traps(): boolean {
    return (this.#word(st.stepTrap.offset) & (Trap.step | Trap.hits)) !== 0;
  }
  /** Whether a halted vCPU has a reason to go on. */
  #wakes(): boolean {
    return (
      (this.#nmi && this.#word(st.nmiBlocked.offset) === 0) ||
      this.#smi ||
      this.#word(st.inFlight.offset) !== 0 ||
      this.#bus.takeUnhalt() ||
      this.#takesInterrupts()
    );
  }
  /** Whether an interrupt waits that RFLAGS.IF lets through. */
  #takesInterrupts(): boolean {
    return (this.#word(st.sysFlags.offset) & IF) !== 0 && this.#bus.pending();
  }
  /** Delivers an NMI or interrupt if there is one; false on a triple fault. */
  #inject(): boolean {
    if (this.#word(st.guestDebug.offset) & GuestDebug.step) return true;
    const shadow = this.#word(st.shadow.offset) !== 0;
    const begun = this.#word(st.inFlight.offset);
    if (begun !== 0) {
      this.#setWord(st.inFlight.offset, 0);
      return this.#deliver(begun);
    }
    if (this.#nmi && !shadow && this.#word(st.nmiBlocked.offset) === 0) {
      this.#setWord(st.nmiPending.offset, this.#word(st.nmiPending.offset) - 1);
      if (!this.#deliver(X.nmi)) return false;
      // A second one waits for the handler's end.
      if (this.#nmi || this.#bus.pending()) Atomics.or(this.#words, (this.#env + st.kick.offset) >> 2, Kick.waiting);
      return true;
    }
    // In this order: an NMI that was sent before an interrupt is seen where that is.
    const waits = this.#bus.pending();
    if (this.#bus.attention?.()) {
      Atomics.or(this.#words, (this.#env + st.kick.offset) >> 2, Kick.now);
      return true;
    }
    if (!this.#nmi && !waits) return true;
    if ((this.#word(st.sysFlags.offset) & IF) !== 0 && !shadow && waits) {
      const vector = this.#bus.acknowledge();
      if (vector >= 0 && !this.#deliver(vector)) return false;
      // Another one may have come meanwhile and been taken, an NMI before it.
      if (this.#bus.attention?.()) Atomics.or(this.#words, (this.#env + st.kick.offset) >> 2, Kick.now);
    }
    if (shadow && (this.#word(st.sysFlags.offset) & IF) !== 0) this.exports.stepShadow(this.#env);
    // What is still pending is looked at again when IF allows it.
    if (this.#nmi || this.#bus.pending()) Atomics.or(this.#words, (this.#env + st.kick.offset) >> 2, Kick.waiting);
    return true;
  }
  #deliver(vector: number): boolean {
    this.exports.interrupt(this.#env, vector);
    if (this.#word(st.exc.offset) !== 0) this.exports.deliverAll(this.#env);
    return this.#word(st.exitReason.offset) !== Exit.shutdown;
  }

  // -- code

  #installed = 0;
  #install(): void {
    // The list is shared: take all that this instance has not got yet.
    const fresh = this.#vm.handlers.list.slice(this.#installed);
    if (fresh.length === 0) return;
    this.counters.add('handlerModules');
    const { layout, library } = this.#vm;
    const limits = { initial: layout.pages, maximum: layout.pages };
    const made = buildHandlers(library, fresh, this.exports, limits);
    this.#add(fresh, made, new WebAssembly.Module(made.bytes));
  }
  #add(fresh: readonly Handler[], { imports, hosts, exports }: HandlerModule, module: WebAssembly.Module): void {
    const pick = (list: readonly Named[], from: WebAssembly.ModuleImports): WebAssembly.ModuleImports =>
      Object.fromEntries(list.map((c) => [c.name, from[c.name]]));
    const instance = new WebAssembly.Instance(module, {
      env: { memory: this.#vm.memory },
      host: pick(hosts, this.#hosts),
      main: pick(imports, this.exports),
    });
    for (const h of fresh) this.#table.set(h.number, instance.exports[`h${h.number}`]);
    for (const s of exports) this.exports[s.name] = instance.exports[s.name] as Exports[string];
    this.#installed += fresh.length;
  }

  /** Counters of the translated tier. */
  get regionStats(): Regions['stats'] {
    return this.#regions.stats;
  }
  /** Place of the entry of a linear address in the jump cache. */
  #jumpOffset(low: number, high: number): number {
    const whole = this.#word(st.halves.offset) === 0;
    return jumpOffset(low, high, whole ? high >>> 31 : low >= 0xc0000000 ? 1 : 0);
  }
  /** The block at `rip`, as far as the jump cache knows it. */
  #here(rip = this.#quad(st.rip.offset)): Block | undefined {
    const ctx = this.#word(st.ctx.offset);
    const linear = this.#linear(rip);
    const low = Number(linear & 0xffffffffn);
    const high = Number(linear >> 32n) | 0;
    const view = this.#view;
    let entry = this.#env + Area.jumpCache + this.#jumpOffset(low, high);
    const holds = (at: number): boolean =>
      view.getUint32(at + Jump.address, true) === low && view.getInt32(at + Jump.address + 4, true) === high;
    if (!holds(entry)) entry ^= Jump.bytes;
    const block = holds(entry) ? this.#code.at(view.getInt32(entry + Jump.record, true)) : undefined;
    return block?.ctx === ctx ? block : undefined;
  }
  /** What is hot: where regions have run for long in the slice that has ended, and where it ended, if it was over. */
  #sample(over: boolean): void {
    const noted = this.#word(st.noted.offset);
    for (let n = Math.max(0, noted - st.notes.length); n < noted; n++)
      this.#sampleAt(this.#quad(st.notes[n & (st.notes.length - 1)].offset), true);
    if (over) this.#sampleAt(this.#quad(st.rip.offset), false);
  }
  #sampleAt(rip: bigint, left: boolean): void {
    const block = this.#here(rip);
    if (block) this.#regions.sample(block, () => this.#herePage(rip), left);
  }
  /** Linear address of the page at `rip`. */
  #herePage(rip = this.#quad(st.rip.offset)): bigint {
    return BigInt.asIntN(64, this.#linear(rip) & ~0xfffn);
  }
  /** Tier 0 reports a block that is jumped to often. */
  #hot(): void {
    const block = this.#here();
    if (!block) return;
    new Uint16Array(this.#view.buffer, this.#env + Area.arrivals, ARRIVAL_ENTRIES)[(block.record >>> 5) & (ARRIVAL_ENTRIES - 1)] =
      0;
    if (this.#vm.regions === 'hot') this.#regions.arrived(block, this.#herePage());
  }
  /** Guest-physical page of a linear address of code, or -1; nothing is raised. */
  #peek(linear: bigint): number {
    const gpa = this.#quiet(() => this.exports.fetchTranslate(this.#env, BigInt.asIntN(64, linear)));
    return gpa === null ? -1 : Math.floor(Number(gpa) / 4096) * 4096;
  }
  /** The host function `resolve`: see fetch.ts. */
  #resolve(): number {
    this.#called('resolve');
    const env = this.#env;
    const ctx = this.#word(st.ctx.offset);
    let linear = this.#quad(st.rip.offset);
    if (!(ctx & Ctx.long)) linear = (linear + this.#quad(st.segBase[S.cs].offset)) & 0xffffffffn;
    if (ctx & Ctx.step) {
      this.exports.stepBegin(env, linear);
      if (this.#word(st.exc.offset) !== 0) return 0;
    }
    const gpa = this.exports.fetchTranslate(env, linear);
    if (this.#word(st.exc.offset) !== 0) return 0;
    const place = Number(gpa);
    const ip = this.#quad(st.rip.offset);
    const limit = ctx & Ctx.limited ? BigInt(this.#word(st.segLimit[S.cs].offset) >>> 0) : null;
    const close = limit !== null && ip - (linear & 0xfffn) + 0xfffn > limit;
    const low = Number(linear & 0xffffffffn);
    const high = Number(linear >> 32n) | 0;
    const edge = edgeContextAt(low, high);
    const record = this.#code.find(place, ctx | (close ? Ctx.step : edge));
    const kind = this.#code.kind;
    if (limit !== null && record !== 0 && (close || kind !== 'page')) {
      // The instruction itself may reach over the limit.
      const length = this.#view.getUint8(record + Rec.length);
      if (ip + BigInt(length) - 1n > limit) {
        this.#setWord(st.excError.offset, 0);
        this.#setWord(st.exc.offset, X.gp + 1);
        return 0;
      }
    }
    if (this.#vm.regions === 'always' && kind !== 'once' && edge === 0) {
      const block = this.#code.at(record);
      if (block) this.#regions.translate(block, this.#herePage());
    }
    if (this.#vm.kept && kind === 'page' && edge === 0) {
      const block = this.#code.fresh;
      if (block) this.#regions.decoded(block, () => this.#herePage());
    }
    if (kind === 'page') {
      const entry = env + Area.blocks + blockOffset(place, ctx | edge);
      // What was here moves next door, here as below.
      if (this.#view.getInt32(entry + Known.record, true) !== 0)
        this.#bytes.copyWithin(entry ^ Known.bytes, entry, entry + Known.bytes);
      const [lower, upper] = blockKey(place, ctx | edge);
      this.#view.setInt32(entry + Known.key, lower, true);
      this.#view.setInt32(entry + Known.key + 4, upper, true);
      this.#view.setInt32(entry + Known.record, record, true);
    }
    if (kind !== 'once') {
      const offset = this.#jumpOffset(low, high);
      const entry = env + Area.jumpCache + offset;
      const view = this.#view;
      if (view.getInt32(entry + Jump.record, true) !== 0) this.#bytes.copyWithin(entry ^ Jump.bytes, entry, entry + Jump.bytes);
      view.setUint32(entry + Jump.address, low, true);
      view.setInt32(entry + Jump.address + 4, high, true);
      view.setInt32(entry + Jump.ctx, ctx, true);
      view.setInt32(entry + Jump.record, record, true);
      const group = (offset >>> JUMP_GROUP_SHIFT) & 63;
      this.#words[((env + st.jumpGroups.offset) >> 2) + (group >> 5)] |= 1 << group;
    }
    return record;
  }
  #nextPage(): number {
    const ctx = this.#word(st.ctx.offset);
    let linear = this.#quad(st.rip.offset);
    if (!(ctx & Ctx.long)) linear = (linear + this.#quad(st.segBase[S.cs].offset)) & 0xffffffffn;
    linear = BigInt.asIntN(64, (linear & ~0xfffn) + 0x1000n);
    if (!(ctx & Ctx.long)) linear &= 0xffffffffn;
    const gpa = this.exports.fetchTranslate(this.#env, linear);
    return this.#word(st.exc.offset) !== 0 ? -1 : Math.floor(Number(gpa) / 4096) * 4096;
  }
  /** Linear address of an offset in the code segment. */
  #linear(ip: bigint): bigint {
    if (this.#word(st.ctx.offset) & Ctx.long) return ip;
    return (ip + this.#quad(st.segBase[S.cs].offset)) & 0xffffffffn;
  }
  /** What a call gives, or null where it left an exception pending, which is taken back. */
  #quiet(call: () => bigint): bigint | null {
    const before = [this.#word(st.exc.offset), this.#word(st.excError.offset), this.#quad(st.cr2.offset)] as const;
    this.#setWord(st.exc.offset, 0);
    const value = call();
    const failed = this.#word(st.exc.offset) !== 0;
    this.#setWord(st.exc.offset, before[0]);
    this.#setWord(st.excError.offset, before[1]);
    this.#quads[(this.#env + st.cr2.offset) >> 3] = before[2];
    return failed ? null : value;
  }
  /** Up to 15 bytes of code at `rip`. */
  #instruction(): Uint8Array {
    const out = new Uint8Array(15);
    const start = this.#linear(this.#quad(st.rip.offset));
    for (let n = 0; n < 15; n++) {
      const gpa = this.#quiet(() => this.exports.fetchTranslate(this.#env, BigInt.asIntN(64, start + BigInt(n))));
      const host = gpa === null ? -1 : this.#hostPage(Math.floor(Number(gpa) / 4096) * 4096);
      if (gpa === null || host < 0) return out.subarray(0, n);
      out[n] = this.#bytes[host + Number(gpa & 0xfffn)];
    }
    return out;
  }
  #dropped(): void {
    const start = this.#env + Area.jumpCache;
    this.#bytes.fill(0, start, start + st.JUMP_ENTRIES * st.JUMP_ENTRY_BYTES);
    const blocks = this.#env + Area.blocks;
    this.#bytes.fill(0, blocks, blocks + st.BLOCK_ENTRIES * st.BLOCK_ENTRY_BYTES);
    this.#pages.dropAll();
  }
  #undefined(bytes: Uint8Array): void {
    if (!this.#vm.trace) return;
    const ip = BigInt.asUintN(64, this.#quad(st.rip.offset)).toString(16);
    const text = [...bytes].map((b) => b.toString(16).padStart(2, '0')).join(' ');
    this.#vm.trace(`vCPU ${this.index}: undefined opcode at ${ip}: ${text}`);
  }
  #hostPage(gpa: number): number {
    const { ramBase, ramHigh, ramHighBase, slots } = this.#vm.layout;
    if (smramAt(this.#view, slots, gpa, this.#word(st.smm.offset) !== 0)) return ramBase + gpa;
    const slot = slotAt(this.#view, slots, gpa);
    if (slot === LowPage.bus) return -1;
    if (slot !== LowPage.ram) return (slot & ~READ_ONLY) >>> 0;
    if (gpa < this.#word(st.ramLow.offset) >>> 0) return ramBase + gpa;
    const above = gpa - 2 ** 32;
    return (above >= 0 && above < ramHigh) || pluggedAt(this.#view, slots, gpa) ? ramHighBase + above : -1;
  }
  /** Number of a page of RAM, from `ramBase` on. */
  #pageNumber(host: number): number {
    return Math.floor((host - this.#vm.layout.ramBase) / 4096);
  }
  /** Guest-physical address of a page by its number from `ramBase`; -1 where no address leads there now. */
  #pageAddress(page: number): number {
    const { ramBase, ramLow, ramHighBase, slots } = this.#vm.layout;
    const at = page * 4096;
    if (at < ramLow) return at;
    const host = ramBase + at;
    return host >= ramHighBase ? host - ramHighBase + 2 ** 32 : slotOf(this.#view, slots, host);
  }
  #slotsSeen = -1;
  #slotCodeSeen = -1;
  /** Forgets what memory slots were like, where they have changed. */
  #lookAtSlots(): void {
    const table = this.#vm.layout.slots;
    const generation = Atomics.load(this.#words, (table + SlotTable.generation) >> 2);
    if (generation === this.#slotsSeen) return;
    this.#slotsSeen = generation;
    this.#showSmram();
    this.exports.flushAll(this.#env);
    const code = Atomics.load(this.#words, (table + SlotTable.codeGeneration) >> 2);
    if (code !== this.#slotCodeSeen) this.#forgetSoon();
    this.#slotCodeSeen = code;
  }
  /** This vCPU is about to decode code of a page: from now on nobody writes to it without saying so. */
  #claim(_gpa: number, host: number): void {
    if (host < 0) return;
    const page = this.#pageNumber(host);
    if (!this.#pages.claim(page)) return;
    // Another vCPU may be about to let stores through that it has not noted yet.
    if (this.#vm.cpus === 1 && this.#bytes[this.#vm.layout.openMap + page] === 0) return;
    this.exports.protectPage(this.#env, BigInt(host));
    this.#tellOthers(Request.protect, page, true);
  }
  /** Notes which pieces of the page at `gpa` hold code: see `Pieces` in isa/x86/memory.ts. */
  #pieces(gpa: number, lower: number, upper: number): void {
    const host = this.#hostPage(gpa);
    if (host < 0) return;
    this.#pages.note(this.#pageNumber(host), gpa, lower, upper);
  }
  #tellOthers(kind: number, page: number, wait: boolean): void {
    for (let n = 0; n < this.#vm.cpus; n++) {
      if (n === this.index) continue;
      const number = this.#boxes[n].post(kind, page);
      // While waiting, serve: the other one may be waiting for us.
      if (wait) while (!this.#boxes[n].done(number)) this.#serve();
    }
  }
  #serve(): void {
    const { ramBase } = this.#vm.layout;
    this.#boxes[this.index].drain(
      (kind, page) => {
        if (kind === Request.protect) this.exports.protectPage(this.#env, BigInt(ramBase + page * 4096));
        else {
          const gpa = this.#pageAddress(page);
          if (gpa >= 0) this.#changed(gpa, 4096);
        }
      },
      () => {
        this.exports.flushAll(this.#env);
        this.#forgetSoon();
      },
    );
  }
  /** Decoding may be under way right now: the code goes when the loop comes round. */
  #forgetSoon(): void {
    this.#forget = true;
    Atomics.or(this.#words, (this.#env + st.kick.offset) >> 2, Kick.now);
  }
  /** The instruction that stores is the last one before the vCPU is left. In a region the flag says so, in tier 0 the record. */
  #stopHere(): void {
    this.#setWord(st.codeChanged.offset, 1);
    const record = this.#word(st.storing.offset);
    if (record === 0) return;
    const place = this.#view.getUint16(record + Rec.place, true);
    const linear = this.#linear(this.#quad(st.pageBase.offset) + BigInt(place));
    const gpa = this.#quiet(() => this.exports.fetchTranslate(this.#env, BigInt.asIntN(64, linear)));
    if (gpa !== null) this.#code.pause(Number(gpa));
  }
  /** Own decoded code overlaps changed bytes. */
  #changed(gpa: number, bytes: number): void {
    for (let at = gpa; at < gpa + bytes; at = Math.floor(at / 4096) * 4096 + 4096) {
      const length = Math.min(gpa + bytes, Math.floor(at / 4096) * 4096 + 4096) - at;
      if (this.#code.written(at, length)) continue;
      const host = this.#hostPage(Math.floor(at / 4096) * 4096);
      if (host >= 0) this.#pages.written(this.#pageNumber(host));
    }
  }
  /** Reads of the time-stamp counter. */
  #clockReads = 0;
  #calls = 0;
  /** The registers answer; what EAX is then. */
  #callPort(): number {
    withPortRegisters(
      (name) => this.#quad(st.gpr[st.R[wholeRegister[name]]].offset),
      (name, value) => {
        this.#quads[(this.#env + st.gpr[st.R[wholeRegister[name]]].offset) >> 3] = value;
      },
      (registers) => this.#bus.callPort!(registers),
    );
    return this.#word(st.gpr[st.R.rax].offset);
  }
  /** One more slow call. */
  #called(name: CounterName): void {
    this.counters.add(name);
    if (++this.#calls % CALLS_MAX === 0) Atomics.or(this.#words, (this.#env + st.kick.offset) >> 2, Kick.now);
  }

  // -- state access

  #word(offset: number): number {
    return this.#words[(this.#env + offset) >> 2];
  }
  #setWord(offset: number, value: number): void {
    this.#words[(this.#env + offset) >> 2] = value;
  }
  #quad(offset: number): bigint {
    return this.#quads[(this.#env + offset) >> 3];
  }

  // -- host functions

  #hostFunctions(): WebAssembly.ModuleImports {
    const bus = this.#bus;
    const pmu = this.#pmu;
    const leaveSoon = (): void => void Atomics.or(this.#words, (this.#env + st.kick.offset) >> 2, Kick.now);
    const ticks = bus.ticks ?? ((): number => Number(bus.tsc()));
    const gp = (): void => {
      this.#setWord(st.excError.offset, 0);
      this.#setWord(st.exc.offset, X.gp + 1);
    };
    return {
      resolve: () => this.#resolve(),
      validateRegion: (index: number) => this.#regions.validate(index),
      manyMisses: (cell: number) => this.#regions.manyMisses(cell, this.instructions, this.#behind),
      manyTargets: (site: number) => this.#regions.manyTargets(site),
      codeWrite: (gpa: bigint, bytes: number) => {
        this.#called('codeWrite');
        const at = Number(gpa);
        const released = this.regionStats.released;
        this.#changed(at, bytes);
        if (this.regionStats.released !== released) {
          // It may be the region that runs: that one ends at its next instruction.
          this.#setWord(st.codeChanged.offset, 1);
          Atomics.or(this.#words, (this.#env + st.kick.offset) >> 2, Kick.now);
        }
        const host = this.#hostPage(Math.floor(at / 4096) * 4096);
        const page = this.#pageNumber(host);
        if (this.#vm.cpus > 1 && host >= 0 && this.#pages.othersHold(page)) this.#tellOthers(Request.changed, page, false);
      },
      cas: (address: bigint, expected: bigint, value: bigint, log2: number): bigint => {
        const at = Number(address);
        if (log2 === 3) return Atomics.compareExchange(this.#quads, at / 8, expected, value);
        if (log2 === 2)
          return BigInt(
            Atomics.compareExchange(
              this.#words,
              at / 4,
              Number(BigInt.asIntN(32, expected)),
              Number(BigInt.asIntN(32, value)),
            ) >>> 0,
          );
        const bytes = log2 === 1 ? new Uint16Array(this.#vm.memory.buffer, at, 1) : new Uint8Array(this.#vm.memory.buffer, at, 1);
        const mask = log2 === 1 ? 0xffffn : 0xffn;
        return BigInt(Atomics.compareExchange(bytes, 0, Number(expected & mask), Number(value & mask)));
      },
      mmioRead: (gpa: bigint, bytes: number): bigint => {
        this.#called('mmio');
        return BigInt.asIntN(64, bus.mmioRead(Number(gpa), bytes));
      },
      mmioWrite: (gpa: bigint, value: bigint, bytes: number): void => {
        this.#called('mmio');
        bus.mmioWrite(Number(gpa), bytes, BigInt.asUintN(64, value));
        this.#lookAtSlots();
        // An interrupt or NMI that this store has brought comes before the next instruction, not at the end of the block.
        if (
          this.#word(st.kick.offset) !== 0 &&
          (this.#takesInterrupts() || (this.#nmi && this.#word(st.nmiBlocked.offset) === 0) || this.#bus.attention?.())
        ) {
          // The shadow of an instruction before this one is over.
          this.#setWord(st.shadow.offset, 0);
          this.#stopHere();
        }
      },
      portIn: (port: number, bytes: number): number => {
        this.#called('ports');
        if ((port & 0xffff) === bus.calledPort) return this.#callPort();
        return bus.portIn(port & 0xffff, bytes);
      },
      portOut: (port: number, value: number, bytes: number): void => {
        this.#called('ports');
        if ((port & 0xffff) === bus.calledPort) this.#callPort();
        else bus.portOut(port & 0xffff, bytes, value >>> 0);
        this.#lookAtSlots();
      },
      rdmsr: (msr: number): bigint => {
        this.#called('msr');
        if (pmu?.owns(msr >>> 0)) {
          this.#asked = { msr: msr >>> 0 };
          this.#setWord(st.pmAsked.offset, 1);
          return 0n;
        }
        const value = bus.rdmsr(msr >>> 0);
        if (value === undefined) gp();
        return BigInt.asIntN(64, value ?? 0n);
      },
      wrmsr: (msr: number, value: bigint): void => {
        this.#called('msr');
        if (pmu?.owns(msr >>> 0)) {
          const bits = BigInt.asUintN(64, value);
          if (!pmu.accepts(msr >>> 0, bits)) gp();
          else {
            this.#asked = { msr: msr >>> 0, value: bits };
            leaveSoon();
          }
          return;
        }
        if (!bus.wrmsr(msr >>> 0, BigInt.asUintN(64, value))) gp();
      },
      rdpmc: (counter: number): void => {
        if (pmu?.counter(counter >>> 0) === undefined) gp();
        else this.#asked = { counter: counter >>> 0 };
      },
      leaveSoon,
      tscChanged: () => bus.tscChanged?.(),
      usesStack: (address: bigint): number => {
        const reg = (offset: number): bigint => BigInt.asUintN(64, this.#quad(offset));
        const bytes = this.#instruction();
        const ctx = this.#word(st.ctx.offset);
        const rip = this.#quad(st.rip.offset);
        const stack = throughStack(this.#vm.tables, bytes, rip, ctx, address, (n) => reg(st.gpr[n].offset), (n) => reg(st.segBase[n].offset)); // biome-ignore format: one call
        return stack ? 1 : 0;
      },
      stopSoon: () => {
        // Records of the running page become stale, so that the next one is looked up.
        const linear = this.#linear(this.#quad(st.pageBase.offset));
        const gpa = this.#quiet(() => this.exports.fetchTranslate(this.#env, BigInt.asIntN(64, linear & ~0xfffn)));
        if (gpa !== null) this.#changed(Number(gpa & ~0xfffn), 4096);
        this.#setWord(st.codeChanged.offset, 1);
        Atomics.or(this.#words, (this.#env + st.kick.offset) >> 2, Kick.now);
      },
      watchChanged: (loads: number) => {
        // Regions look for a change of code after stores only.
        this.#regions.forbidden = loads !== 0;
        if (loads !== 0) this.#forgetSoon();
      },
      tsc: (): number => {
        this.#clockReads++;
        return ticks();
      },
      random: (): bigint => BigInt.asIntN(64, bus.random()),
      tprRead: (): number => bus.tpr,
      tprWrite: (value: number): void => {
        bus.tpr = value & 15;
        Atomics.or(this.#words, (this.#env + st.kick.offset) >> 2, Kick.now);
      },
      cpuid: (leaf: number, subleaf: number): void => {
        this.#called('other');
        // A serialising instruction: see `fence` in memory.ts.
        Atomics.add(this.#words, st.FENCE >> 2, 0);
        const state = { cr4: this.#quad(st.cr4.offset), xcr0: this.#quad(st.xcr0.offset), cpl: this.#word(st.cpl.offset) };
        const result = bus.cpuid(leaf >>> 0, subleaf >>> 0, state);
        st.cpuidResult.forEach((slot, i) => this.#setWord(slot.offset, result[i] | 0));
      },
      hypercall: (): void => {
        this.#called('other');
        const reg = (n: number): bigint => BigInt.asUintN(64, this.#quad(st.gpr[n].offset));
        const { rax, rbx, rcx, rdx, rsi } = st.R;
        const long = (this.#word(st.ctx.offset) & st.Ctx.long) !== 0;
        const result = bus.hypercall(reg(rax), [reg(rbx), reg(rcx), reg(rdx), reg(rsi)], this.#word(st.cpl.offset), long);
        if (result === undefined) {
          this.#setWord(st.excError.offset, -1);
          this.#setWord(st.exc.offset, X.ud + 1);
        } else this.#quads[(this.#env + st.gpr[rax].offset) >> 3] = BigInt.asIntN(64, result);
      },
    };
  }
}
