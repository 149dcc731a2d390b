// A whole board with one vCPU in one thread, under a clock of its own, for guests that mean harm: everything that a guest must not reach
// is filled with a pattern, and what the engine relies on can be checked at any time.

import assert from 'node:assert/strict';
import type { MemoryLayout, Vcpu } from '../../src/accel/accel.ts';
import { createEngine, createVm, type Engine, mainModule } from '../../src/accel/dbt/dbt.ts';
import { Area, createMemory, layoutOf } from '../../src/accel/dbt/layout.ts';
import { Mailbox, Request } from '../../src/accel/dbt/mailbox.ts';
import { DbtVcpu } from '../../src/accel/dbt/vcpu.ts';
import { SLOT_TABLE_BYTES } from '../../src/bits/slot-table.ts';
import { kvmAllFeatures } from '../../src/devices/kvm-pv.ts';
import * as st from '../../src/isa/x86/state.ts';
import { TLB_ENTRIES, TLB_ENTRY_BYTES } from '../../src/isa/x86/state.ts';
import { type Board, buildBoard } from '../../src/machine/board.ts';
import type { BoardEvent, MachineConfig } from '../../src/machine/config.ts';
import { kicker, runVcpu, vcpuBus } from '../../src/machine/vcpu-loop.ts';
import { Random } from './asm.ts';

/** Bytes of guest RAM. */
export const RAM = 8 << 20;
const GUARD = 64 << 10;
const PATTERN = 0xc5;
/** Bytes at the start of memory that belong to the engine. */
const SHARED_WORDS = 128;

/** How the vCPU translates. */
export type Tier = 'off' | 'always';

/** How a run ended: the bound was reached, nothing will ever wake the vCPU, or a triple fault. */
export type Outcome = 'running' | 'idle' | 'shutdown';

export interface RunOptions {
  /** Times that the vCPU is entered. */
  readonly turns?: number;
  /** Instructions of each, roughly. */
  readonly slice?: number;
  /** Called after each. */
  readonly after?: () => void;
  /** Stops when this is true. */
  readonly until?: () => boolean;
}

/** The machine's usual layout with a guard before and behind each part. */
function guardedLayout(cpus: number): { layout: MemoryLayout; guards: readonly (readonly [number, number])[] } {
  const plain = layoutOf(RAM, cpus);
  const devices = plain.vcpuBase + cpus * plain.vcpuBytes + GUARD;
  const slots = devices + plain.deviceBytes + GUARD;
  const codeMap = slots + GUARD;
  const dirtyMap = codeMap + RAM / 4096;
  const codeEnd = dirtyMap + RAM / 4096;
  const ramBase = Math.ceil(codeEnd / GUARD) * GUARD + GUARD;
  const pages = (ramBase + RAM + GUARD) / 65536;
  const layout = { ...plain, devices, slots, codeMap, dirtyMap, ramBase, pages };
  const guards = [
    // The words that all vCPUs of a machine share come first: see SPLIT_LOCK.
    [SHARED_WORDS, plain.vcpuBase],
    [plain.vcpuBase + cpus * plain.vcpuBytes, devices],
    [devices + plain.deviceBytes, slots],
    [slots + SLOT_TABLE_BYTES, codeMap],
    [codeEnd, ramBase],
    [ramBase + RAM, ramBase + RAM + GUARD],
  ] as const;
  return { layout, guards };
}

export class Rig {
  readonly board: Board;
  readonly vcpu: DbtVcpu;
  readonly ram: Uint8Array;
  readonly view: DataView;
  readonly layout: MemoryLayout;
  /** Index of the vCPU that runs; those before it stand still. */
  readonly cpu: number;
  /** Guest time in ns; it goes on a little whenever somebody looks. */
  readonly time = { ns: 0 };
  /** What the guest asked for. */
  readonly events: BoardEvent[] = [];
  /** What it wrote to the serial ports. */
  console = '';
  #random = new Random(0);
  readonly #bytes: Uint8Array;
  readonly #guards: readonly (readonly [number, number])[];
  readonly #mailbox: Mailbox;

  constructor(tier: Tier, engine: Engine = createEngine(), modules: Map<string, WebAssembly.Module> = new Map(), cpu = 0) {
    const { layout, guards } = guardedLayout(cpu + 1);
    this.cpu = cpu;
    this.layout = layout;
    this.#guards = guards;
    const memory = createMemory(layout);
    this.#bytes = new Uint8Array(memory.buffer);
    for (const [from, to] of guards) this.#bytes.fill(PATTERN, from, to);
    this.ram = this.#bytes.subarray(layout.ramBase, layout.ramBase + RAM);
    this.view = new DataView(memory.buffer, layout.ramBase, RAM);
    const config: MachineConfig = {
      cpus: cpu + 1,
      memory: RAM,
      cpuModel: 'max',
      paravirtual: kvmAllFeatures,
      devices: [{ driver: 'isa-debug-exit', iobase: 0xf4, iosize: 4 }, { driver: 'pc-testdev' }],
      rtcOffset: 0,
      trace: [],
    };
    const clock = { now: () => (this.time.ns += 200) };
    this.board = buildBoard({
      config,
      buffer: memory.buffer as ArrayBufferLike as SharedArrayBuffer,
      layout,
      thread: 1,
      clock,
      wall: { epochSeconds: () => 1.7e9 + this.time.ns / 1e9 },
      kick: kicker(memory.buffer as ArrayBufferLike as SharedArrayBuffer, layout),
      event: (event) => {
        if (this.events.length < 100) this.events.push(event);
      },
      report: () => {},
    });
    const module = modules.get(`main ${cpu}`) ?? new WebAssembly.Module(mainModule(engine));
    modules.set(`main ${cpu}`, module);
    const vm = createVm(engine, memory, layout, cpu + 1, module, { regions: tier });
    this.vcpu = new DbtVcpu(
      vm,
      cpu,
      vcpuBus(this.board, cpu, () => this.#random.u64()),
    );
    this.#mailbox = new Mailbox(
      memory.buffer as ArrayBufferLike as SharedArrayBuffer,
      layout.vcpuBase + cpu * layout.vcpuBytes + Area.mailbox,
      () => {},
    );
    this.reset();
  }

  /** Power-on state with empty RAM; what the vCPU has decoded is forgotten. */
  reset(seed = 0): void {
    this.#random = new Random(seed);
    this.time.ns = 1e6;
    this.events.length = 0;
    this.console = '';
    for (let page = 0; page < RAM >> 12; page++) {
      if (this.#bytes[this.layout.codeMap + page] !== 0) this.#mailbox.post(Request.changed, page);
    }
    this.ram.fill(0);
    this.board.reset();
    this.vcpu.reset();
  }

  /** Copies bytes to a guest-physical address. */
  put(gpa: number, bytes: Uint8Array): void {
    this.ram.set(bytes, gpa);
  }
  quad(gpa: number, value: bigint): void {
    this.view.setBigUint64(gpa, BigInt.asUintN(64, value), true);
  }
  get(name: string): bigint {
    return this.vcpu.get(name);
  }
  /** Registers and other state by name. */
  set(values: Readonly<Record<string, bigint | number>>): void {
    for (const [name, value] of Object.entries(values)) this.vcpu.set(name, BigInt(value));
    this.vcpu.sync();
  }

  /** Real mode at 0000:`ip`, stack at 0000:7000. */
  real(ip: number): void {
    const segments = ['es', 'cs', 'ss', 'ds', 'fs', 'gs'].flatMap((s): [string, number][] => [
      [`${s}.selector`, 0],
      [`${s}.base`, 0],
    ]);
    this.set({ ...Object.fromEntries(segments), rip: ip, rsp: 0x7000, 'idtr.base': 0, 'idtr.limit': 0x3ff });
  }
  /** Flat 32-bit protected mode without paging; GDT at 0x1000, IDT at 0x2000 with all gates to `handler`, TSS at 0x3000. */
  flat(ip: number, handler: number): void {
    this.#tables(false);
    for (let v = 0; v < 256; v++) this.quad(0x2000 + v * 8, this.#gate(handler, 0x8, 0x8e00n));
    this.#flatSegments(0xc09b);
    this.set({ cr0: 0x11, rip: ip, rsp: 0x7000, 'idtr.base': 0x2000, 'idtr.limit': 0x7ff, sysFlags: 0 });
  }
  /**
   * 64-bit mode: the first GiB mapped one to one, and again at 0xFFFF_8000_0000_0000, by pages of 2 MiB except for the first 2 MiB (4 KiB
   * pages). PML4 at 0x10000. GDT, IDT and TSS as `flat`, all gates to `handler`.
   */
  long(ip: number, handler: number): void {
    this.#tables(true);
    for (let v = 0; v < 256; v++) {
      this.quad(0x4000 + v * 16, this.#gate(handler, 0x8, 0x8e00n));
      this.quad(0x4000 + v * 16 + 8, BigInt(handler) >> 32n);
    }
    const [pml4, pdpt, pd, pt] = [0x10000, 0x11000, 0x12000, 0x13000] as const;
    this.quad(pml4, BigInt(pdpt) | 7n);
    this.quad(pml4 + 256 * 8, BigInt(pdpt) | 7n);
    this.quad(pdpt, BigInt(pd) | 7n);
    this.quad(pdpt + 3 * 8, 0xc000_0087n);
    for (let n = 0; n < 512; n++) this.quad(pd + n * 8, n === 0 ? BigInt(pt) | 7n : BigInt(n << 21) | 0x87n);
    for (let n = 0; n < 512; n++) this.quad(pt + n * 8, BigInt(n << 12) | 7n);
    this.#flatSegments(0xa09b);
    this.set({
      cr0: 0x8000_0033n,
      cr3: pml4,
      cr4: 0x6b0,
      efer: 0xd01,
      rip: ip,
      rsp: 0x7000,
      'idtr.base': 0x4000,
      'idtr.limit': 0xfff,
      sysFlags: 0,
    });
  }
  #gate(handler: number, selector: number, type: bigint): bigint {
    const h = BigInt(handler);
    return (h & 0xffffn) | (BigInt(selector) << 16n) | (type << 32n) | (((h >> 16n) & 0xffffn) << 48n);
  }
  /** RAM full of HLT, but for the tables. GDT: 8 code, 10 data, 18 and 20 those of CPL 3, 28 TSS. */
  #tables(long: boolean): void {
    this.ram.fill(0xf4);
    this.ram.fill(0, 0x3000, 0x4000);
    this.ram.fill(0, 0x10000, 0x14000);
    const code = long ? 0x00af_9b00_0000_ffffn : 0x00cf_9b00_0000_ffffn;
    const entries = [0n, code, 0x00cf_9300_0000_ffffn, code | (0x60n << 40n), 0x00cf_f300_0000_ffffn, 0x0000_8900_3000_0fffn, 0n];
    for (const [n, e] of entries.entries()) this.quad(0x1000 + n * 8, e);
    // Stacks of CPL 0: ESP0 and SS0 of the 32-bit TSS, or RSP0; the I/O map lies beyond the limit.
    this.view.setUint32(0x3004, 0x7000, true);
    this.view.setUint32(0x3008, long ? 0 : 0x10, true);
    this.view.setUint16(0x3066, 0xffff, true);
  }
  #flatSegments(codeAttributes: number): void {
    for (const s of ['es', 'cs', 'ss', 'ds', 'fs', 'gs']) {
      this.set({
        [`${s}.selector`]: s === 'cs' ? 8 : 0x10,
        [`${s}.base`]: 0,
        [`${s}.limit`]: 0xffff_ffff,
        [`${s}.attr`]: s === 'cs' ? codeAttributes : 0xc093,
      });
    }
    this.set({
      'gdtr.base': 0x1000,
      'gdtr.limit': 0x37,
      'tr.selector': 0x28,
      'tr.base': 0x3000,
      'tr.limit': 0xfff,
      'tr.attr': 0x8b,
      cpl: 0,
    });
  }

  /** Runs the vCPU in the board's own loop. Sleeping takes no time: the clock jumps to the next timer. */
  run(o: RunOptions = {}): Outcome {
    const { vcpu, board } = this;
    const { stop } = board.control;
    let left = o.turns ?? 20;
    let outcome: Outcome = 'running';
    const bounded: Vcpu = {
      run: (slice) => {
        const exit = vcpu.run(Math.min(slice, o.slice ?? 20_000));
        for (const u of board.uarts) {
          if (u.output.available > 0)
            this.console = (this.console + Buffer.from(u.output.read()).toString('latin1')).slice(-4096);
          board.lock.run(() => u.drained());
        }
        o.after?.();
        if (--left <= 0 || o.until?.()) Atomics.store(stop, 0, 1);
        if (exit !== 'hlt') return exit;
        const next = Math.min(board.lapics[this.cpu]!.next(), board.timers.next());
        if (next === Number.POSITIVE_INFINITY) {
          outcome = 'idle';
          Atomics.store(stop, 0, 1);
        } else this.time.ns = Math.max(this.time.ns, next);
        return 'interrupted';
      },
      nmi: () => vcpu.nmi(),
      smi: () => vcpu.smi(),
      get: (name) => vcpu.get(name),
      set: (name, value) => vcpu.set(name, value),
      sync: () => vcpu.sync(),
      publish: () => vcpu.publish(),
      refresh: () => vcpu.refresh(),
      startsItself: false,
      reset: () => vcpu.reset(),
      init: () => vcpu.init(),
      get instructions() {
        return vcpu.instructions;
      },
    };
    Atomics.store(stop, 0, 0);
    runVcpu(board, bounded, this.cpu, () => {
      outcome = 'shutdown';
    });
    return outcome;
  }

  /** Throws unless all that a guest must not touch is as it was, and the vCPU is in a state that a CPU can be in. */
  check(): void {
    const { vcpuBytes, ramBase } = this.layout;
    const vcpuBase = this.layout.vcpuBase + this.cpu * vcpuBytes;
    for (const [from, to] of this.#guards) {
      const at = this.#bytes.subarray(from, to).findIndex((b) => b !== PATTERN);
      assert.equal(at, -1, `host memory at 0x${(from + at).toString(16)} was written`);
    }
    const state = new DataView(this.#bytes.buffer, vcpuBase, vcpuBytes);
    for (let n = 0; n < 3; n++) {
      for (let i = 0; i < TLB_ENTRIES; i++) {
        const entry = Area.tlbs + (n * TLB_ENTRIES + i) * TLB_ENTRY_BYTES;
        const tag = state.getUint32(entry, true);
        if (((tag >>> 12) & (TLB_ENTRIES - 1)) !== i) continue;
        const page = (((tag & ~0xfff) + state.getInt32(entry + 8, true)) >>> 0) - ramBase;
        assert.ok(page >= 0 && page <= RAM - 4096 && page % 4096 === 0, `entry ${i} of TLB ${n} leads out of RAM: ${page}`);
      }
    }
    const word = (slot: { offset: number }): number => state.getUint32(slot.offset, true);
    assert.equal(word(st.ramBase), ramBase);
    assert.equal(word(st.ramLow), RAM);
    assert.equal(word(st.ramHigh), 0);
    assert.equal(word(st.codeMap), this.layout.codeMap);
    assert.equal(word(st.jumpCache), vcpuBase + Area.jumpCache);
    assert.equal(state.getBigUint64(st.zero.offset, true), 0n, 'the slot that is always zero');
    assert.ok(word(st.cpl) <= 3, 'CPL');
    assert.equal(this.board.lock.owner, 0, 'the lock is held');
    const [cr0, cr4, efer] = [this.get('cr0'), this.get('cr4'), this.get('efer')];
    assert.ok(!(cr0 & 0x8000_0000n) || cr0 & 1n, 'paging without protection');
    assert.ok(!(efer & 0x400n) || (cr0 & 0x8000_0000n && cr4 & 0x20n && efer & 0x100n), 'EFER.LMA without paging');
    assert.ok(!(efer & 0x100n) || !(cr0 & 0x8000_0000n) || efer & 0x400n, 'EFER.LME and paging without LMA');
  }
}
