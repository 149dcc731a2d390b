// Runs cases on the translator, on a whole vCPU in long mode: user pages under real page tables, exceptions through an IDT into
// handlers that are one HLT each. So paging, privilege changes and delivery are compared as well.

import { emptyBus, type MemoryLayout } from '../../src/accel/accel.ts';
import { createEngine, createVm, mainModule } from '../../src/accel/dbt/dbt.ts';
import { ALL_FLAGS, type Handler, Handlers } from '../../src/accel/dbt/handlers.ts';
import { Area, createMemory, layoutOf } from '../../src/accel/dbt/layout.ts';
import { Mailbox, Request } from '../../src/accel/dbt/mailbox.ts';
import { type RegionMaker, type RegionWish, type Translation, translate } from '../../src/accel/dbt/translate.ts';
import { DbtVcpu } from '../../src/accel/dbt/vcpu.ts';
import { type Datum, readDatum, writeDatum } from '../../src/ir/datum.ts';
import type { Slot } from '../../src/ir/ir.ts';
import { Decode, decode, Insn } from '../../src/isa/x86/decode.ts';
import { resetState } from '../../src/isa/x86/reset.ts';
import * as st from '../../src/isa/x86/state.ts';
import { S } from '../../src/isa/x86/state.ts';
import { type Case, CODE, CODE_BYTES, codePlace, DATA, DATA_BYTES, EDGE, GS_BASE, type Result, WRITABLE_BYTES } from './case.ts';
import { DataPages, putRegisters, type Runner, SEGMENTS, selectorOf, setSegments16, takeRegisters } from './evaluator.ts';

// Guest-physical places from the machine's `physical` on; system pages are mapped one to one from SYSTEM on.
const PML4 = 0x1000;
const TABLES = 0x2000;
const GDT = 0x10000;
const IDT = 0x11000;
const TSS = 0x12000;
const STACK_TOP = 0x14000;
const HANDLERS = 0x15000;
const DATA_AT = 0x20000;
/** Code lies in another frame in each case: translation gives up pages that keep changing. */
const CODE_FRAMES = 0x100000;
const MEMORY = 24 << 20;
const FRAMES = (MEMORY - CODE_FRAMES) / CODE_BYTES;
/** Cases after which the machine is made anew. */
const RENEW = FRAMES * 3;
/** Where memory has 64-bit addresses: bytes of it, and the place whose host address is beyond 4 GiB as well. */
const WIDE_MEMORY = 5 * 2 ** 30;
const WIDE_PHYSICAL = 2 ** 32 + 2.5 * 2 ** 30;
/** Linear address of the machine's `physical`. */
const SYSTEM = 0xffff_8000_0000_0000n;
/** Instructions, roughly, after which a case counts as endless. */
const BUDGET = 300_000;
/** Regions that wait for a module of their own: a vCPU asks for 64 at most, and a case may ask for many. */
const WISHES = 32;
/** Vectors that push an error code. */
const WITH_ERROR = new Set([8, 10, 11, 12, 13, 14, 17]);

/** One vCPU and its memory. */
interface Machine {
  readonly vcpu: DbtVcpu;
  readonly view: DataView;
  readonly layout: MemoryLayout;
  readonly mailbox: Mailbox;
  /** Where everything lies: guest-physical and host address. */
  readonly physical: number;
  readonly host: number;
  /** Guest-physical places of the page table entries of the first code page. */
  codeTables: readonly number[];
}

/** Makes a module of all regions that were wished for, when it is told to. */
class Batch implements RegionMaker {
  readonly #translation: Translation;
  readonly #bytes: Uint8Array;
  #wishes: RegionWish[] = [];
  #ready: ReturnType<RegionMaker['receive']>;

  constructor(translation: Translation, bytes: Uint8Array) {
    this.#translation = translation;
    this.#bytes = bytes;
  }
  get size(): number {
    return this.#wishes.length;
  }
  wish(wish: RegionWish): void {
    this.#wishes.push(wish);
  }
  translate(): void {
    const { batch, code } = translate(this.#translation, this.#wishes, this.#bytes);
    this.#wishes = [];
    this.#ready = { batch, module: code && new WebAssembly.Module(code) };
  }
  receive(): ReturnType<RegionMaker['receive']> {
    const ready = this.#ready;
    this.#ready = undefined;
    return ready;
  }
}

export class Translator implements Runner {
  readonly name: string;
  readonly #wide: boolean;
  /** Regions leave flags that the next block overwrites as they were. */
  readonly flagsAtFaults: boolean;
  #machine!: Machine;
  /** Where regions are translated: all that cases reach in tier 0 at first, many in one module, before these run again. */
  #batch: Batch | undefined;
  /** Frames of the cases that have been through that, and what tier 0 made of them. */
  #rehearsed = new Map<Case, { readonly frame: number; readonly result: Result | Error }>();
  #cases = 0;
  /** What machines are made of is built once. */
  readonly #engine = createEngine();
  readonly #main: WebAssembly.Module;
  readonly #data = new DataPages();

  /** `tier2`: every block that a case reaches is translated before it runs. `wide`: in memory beyond 4 GiB. */
  constructor(name: 'tier0' | 'tier2' | 'tier0 wide' | 'tier2 wide' = 'tier0') {
    this.name = name;
    this.#wide = name.endsWith('wide');
    this.flagsAtFaults = name.startsWith('tier0');
    this.#main = new WebAssembly.Module(mainModule(this.#engine, this.#wide));
    this.#boot();
  }

  #boot(): void {
    const layout = layoutOf(this.#wide ? WIDE_MEMORY : MEMORY, 1);
    const memory = createMemory(layout);
    const regions = this.name.startsWith('tier2');
    const { tables, handlers, library } = this.#engine;
    const available = new Set(WebAssembly.Module.exports(this.#main).map((e) => e.name));
    const image = { initial: layout.pages, maximum: layout.pages };
    const translation = {
      tables,
      handlers: new Handlers(library, handlers),
      library,
      available,
      memory: image,
      env: layout.vcpuBase,
    };
    this.#batch = regions ? new Batch(translation, new Uint8Array(memory.buffer)) : undefined;
    const vm = createVm(this.#engine, memory, layout, 1, this.#main, {
      regions: regions ? 'always' : 'off',
      ...(this.#batch && { maker: this.#batch }),
    });
    const vcpu = new DbtVcpu(vm, 0, emptyBus());
    this.#machine = {
      vcpu,
      view: new DataView(memory.buffer),
      layout,
      mailbox: new Mailbox(memory.buffer, layout.vcpuBase + Area.mailbox, () => undefined),
      physical: this.#wide ? WIDE_PHYSICAL : 0,
      host: this.#wide ? layout.ramHighBase + WIDE_PHYSICAL - 2 ** 32 : layout.ramBase,
      codeTables: [],
    };
    this.#prepare();
  }

  #set(slot: Slot, value: Datum): void {
    const fit = slot.access.type === 'i64' && typeof value === 'number' ? BigInt(value) : value;
    writeDatum(this.#machine.view, this.#machine.layout.vcpuBase + slot.offset, slot.access, fit);
  }
  #get(slot: Slot): Datum {
    return readDatum(this.#machine.view, this.#machine.layout.vcpuBase + slot.offset, slot.access);
  }
  #quad(gpa: number, value: bigint): void {
    this.#machine.view.setBigUint64(this.#machine.host + gpa, value, true);
  }
  #ram(gpa: number, length: number): Uint8Array {
    return new Uint8Array(this.#machine.view.buffer, this.#machine.host + gpa, length);
  }

  /** Page tables, descriptor tables, handlers. */
  #prepare(): void {
    let next = TABLES;
    const entries = new Map<string, number>();
    const map = (linear: bigint, gpa: number, flags: bigint): number => {
      let table = PML4;
      for (const shift of [39n, 30n, 21n]) {
        const key = `${shift} ${linear >> shift}`;
        let below = entries.get(key);
        if (!below) {
          below = next;
          next += 0x1000;
          entries.set(key, below);
          this.#quad(table + Number((linear >> shift) & 511n) * 8, BigInt(this.#machine.physical + below) | 7n);
        }
        table = below;
      }
      const at = table + Number((linear >> 12n) & 511n) * 8;
      this.#quad(at, BigInt(this.#machine.physical + gpa) | flags);
      return at;
    };
    const NX = 1n << 63n;
    for (let p = GDT; p < DATA_AT; p += 0x1000) map(SYSTEM + BigInt(p), p, 3n);
    this.#machine.codeTables = [BigInt(CODE), EDGE].map((at) => map(at, CODE_FRAMES, 5n));
    for (let p = 0; p < DATA_BYTES; p += 0x1000) map(BigInt(DATA + p), DATA_AT + p, (p < WRITABLE_BYTES ? 7n : 5n) | NX);
    this.#quad(GDT + 0x10, 0x00209a00_00000000n);
    for (let vector = 0; vector < 32; vector++) {
      const target = SYSTEM + BigInt(HANDLERS + vector * 16);
      const type = vector === 3 ? 0xee00n : 0x8e00n;
      this.#quad(IDT + vector * 16, (target & 0xffffn) | (0x10n << 16n) | (type << 32n) | (((target >> 16n) & 0xffffn) << 48n));
      this.#quad(IDT + vector * 16 + 8, target >> 32n);
      this.#ram(HANDLERS + vector * 16, 1)[0] = 0xf4;
    }
    this.#quad(TSS + 4, SYSTEM + BigInt(STACK_TOP));
    // The I/O permission map lies beyond the limit: no port is open.
    this.#quad(TSS + 0x60, 0x68n << 48n);
  }

  #enter(c: Case): void {
    const set = (slot: Slot, value: Datum): void => this.#set(slot, value);
    resetState(this.#machine.view, this.#machine.layout.vcpuBase);
    set(st.cr0, 0x8005_0033n);
    set(st.cr3, BigInt(this.#machine.physical + PML4));
    set(st.cr4, 0x406f0n);
    set(st.xcr0, 7n);
    set(st.efer, 0xd01n);
    set(st.gdtBase, BigInt.asIntN(64, SYSTEM + BigInt(GDT)));
    set(st.gdtLimit, 0x17);
    set(st.idtBase, BigInt.asIntN(64, SYSTEM + BigInt(IDT)));
    set(st.idtLimit, 32 * 16 - 1);
    set(st.segBase[S.tr]!, BigInt.asIntN(64, SYSTEM + BigInt(TSS)));
    set(st.segLimit[S.tr]!, 0x67);
    set(st.segAttr[S.tr]!, 0x8b);
    const long = c.mode === 64;
    for (const n of SEGMENTS) {
      set(st.segBase[n]!, 0n);
      set(st.segLimit[n]!, -1);
      set(st.segAttr[n]!, n === S.cs ? (long ? 0xa0fb : 0xc0fb) : 0xc0f3);
      set(st.segSelector[n]!, selectorOf(c.mode, n));
    }
    if (c.mode === 16) setSegments16(set);
    set(st.segBase[S.gs]!, long ? BigInt(GS_BASE) : 0n);
    set(st.cpl, 3);
    set(st.rip, c.state.rip);
    const { flags } = c.state;
    set(st.fC, flags & 1);
    set(st.fA, flags & 16);
    set(st.fZ, flags & 64 ? 0 : 1);
    set(st.fN, BigInt.asIntN(64, (flags & 128 ? 1n << 63n : 0n) | (flags & 4 ? 0n : 1n)));
    set(st.fO, flags & 0x800 ? -1 : 0);
    set(st.sysFlags, flags & 0x3f7700);
    putRegisters(this.#machine.view, this.#machine.layout.vcpuBase, c.state);
    this.#machine.vcpu.sync();
  }

  /** The handlers that the code needs as it stands, in one module instead of one for each block. */
  prepare(cases: readonly Case[]): void {
    const { tables, handlers } = this.#engine;
    const bytes = new Uint8Array(80);
    for (const c of cases) {
      bytes.fill(0xcc).set(c.code);
      this.#enter(c);
      const ctx = this.#get(st.ctx) as number;
      const insns: Insn[] = [];
      for (let at = 0; at <= c.code.length; ) {
        const insn = new Insn();
        if (decode(tables, bytes, at, bytes.length, ctx, insn) !== Decode.ok) break;
        insns.push(insn);
        at += insn.length;
      }
      let live = ALL_FLAGS;
      let next: Handler | undefined;
      for (const insn of insns.reverse()) {
        let handler = handlers.of(insn, ctx);
        if (handler.ends) live = ALL_FLAGS;
        if (handler.writes !== 0 && (handler.writes & live) === 0) handler = handlers.of(insn, ctx, false);
        live = handler.faults ? ALL_FLAGS : (live & ~handler.kills) | handler.reads;
        if (next) handlers.pairOf(handler, next);
        next = handler;
      }
    }
    if (this.#batch) this.#rehearse(cases);
  }

  /** Has all that the cases reach translated: they run in tier 0, which asks for a region of each block that it meets. */
  #rehearse(cases: readonly Case[]): void {
    this.#renew(cases.length);
    this.#rehearsed = new Map();
    for (const c of cases) {
      const frame = this.#place(c);
      let result: Result | Error;
      try {
        result = this.#execute(c, frame);
      } catch (e) {
        result = e as Error;
      }
      this.#rehearsed.set(c, { frame, result });
      if (this.#batch!.size >= WISHES) this.#batch!.translate();
    }
    if (this.#batch!.size > 0) this.#batch!.translate();
  }

  run(c: Case): Result {
    if (!this.#batch) {
      this.#renew(1);
      return this.#execute(c, this.#place(c));
    }
    return this.#execute(c, this.#rehearsal(c).frame);
  }
  #rehearsal(c: Case): { readonly frame: number; readonly result: Result | Error } {
    if (!this.#rehearsed.has(c)) this.#rehearse([c]);
    return this.#rehearsed.get(c)!;
  }
  /** Tier 0 as it meets the cases of a `tier2`: comparisons that cost nothing beside that. */
  get first(): Runner {
    return {
      name: this.name.replace('tier2', 'tier0'),
      flagsAtFaults: true,
      run: (c) => {
        const { result } = this.#rehearsal(c);
        if (result instanceof Error) throw result;
        return result;
      },
    };
  }

  /** Makes the machine anew where so many cases more are too many for it. */
  #renew(cases: number): void {
    if (this.#cases + cases <= RENEW) return;
    this.#boot();
    this.#cases = 0;
  }

  /** Puts the code of a case into a frame of its own. */
  #place(c: Case): number {
    const frame = CODE_FRAMES + (++this.#cases % FRAMES) * CODE_BYTES;
    const { host, layout, mailbox } = this.#machine;
    this.#ram(frame, CODE_BYTES).fill(0xcc);
    this.#ram(frame + codePlace(c.mode, c.state.rip), c.code.length).set(c.code);
    for (let p = 0; p < CODE_BYTES; p += 0x1000) mailbox.post(Request.changed, (host + frame + p - layout.ramBase) / 4096);
    return frame;
  }

  #execute(c: Case, frame: number): Result {
    const { layout, vcpu } = this.#machine;
    this.#ram(DATA_AT, DATA_BYTES).set(this.#data.of(c));
    for (let p = 0; p < CODE_BYTES; p += 0x1000)
      for (const table of this.#machine.codeTables) this.#quad(table + p / 512, BigInt(this.#machine.physical + frame + p) | 5n);
    this.#enter(c);
    const end = vcpu.instructions + BUDGET;
    let exit = vcpu.run(BUDGET);
    // Slow calls and changed code end a slice early.
    for (let i = 0; exit === 'interrupted' && vcpu.instructions < end && i < 1000; i++) exit = vcpu.run(end - vcpu.instructions);
    if (exit === 'shutdown') throw new Error('triple fault');
    const state = takeRegisters(this.#machine.view, layout.vcpuBase);
    const vector =
      exit === 'hlt' ? Math.floor((Number(BigInt.asUintN(64, this.#get(st.rip) as bigint) - SYSTEM) - HANDLERS) / 16) : -1;
    const pushed = STACK_TOP - (WITH_ERROR.has(vector) ? 48 : 40);
    const word = (i: number): bigint => this.#machine.view.getBigUint64(this.#machine.host + pushed + i * 8, true);
    const first = WITH_ERROR.has(vector) ? 1 : 0;
    state.gpr[4] = word(first + 3);
    state.rip = word(first);
    state.flags = Number(word(first + 2));
    return {
      vector,
      error: first ? Number(word(0)) : 0,
      address: BigInt.asUintN(64, this.#get(st.cr2) as bigint),
      state,
      changes: this.#data.changes(this.#ram(DATA_AT, DATA_BYTES)),
    };
  }
}
