// A vCPU's state between the slots that both accelerators share (isa/x86/state.ts) and the kernel's structures. The slots are the one
// format that snapshots, debuggers and the translator know; here they are put into a KVM vCPU and taken out of it.
// Linux 6.1, Documentation/virt/kvm/api.rst, KVM_GET_REGS to KVM_SET_XCRS; XSAVE area: Intel SDM volume 1, section 13.4.

import { type PortRegisters, wholeRegister, withPortRegisters } from '../../bus/port-registers.ts';
import type { Slot } from '../../ir/ir.ts';
import { readRflags, writeRflags } from '../../isa/x86/rflags.ts';
import { At } from '../../isa/x86/rows/xsave.ts';
import * as st from '../../isa/x86/state.ts';
import { S } from '../../isa/x86/state.ts';
import { block, debugRegsLayout, deviceAttrLayout, errno, eventsFlag, eventsLayout, type IoctlName, ioctls, MSRS_HEADER, msrEntryLayout, regsLayout, type Segment,
  shadowBit, sregsLayout, tscOffsetAttr, XSAVE_BYTES, xcrsLayout, } from './abi.ts'; // biome-ignore format: one list
import type { CpuidEntry } from './cpuid.ts';
import type { KvmHost } from './host.ts';

/** MSRs that live in slots, by index. */
const msrSlots: readonly (readonly [number, Slot])[] = [
  [0x174, st.sysenterCs], [0x175, st.sysenterEsp], [0x176, st.sysenterEip], [0x1a0, st.miscEnable], [0x277, st.pat],
  [0x2ff, st.mtrrDefault], ...st.mtrrVariable.map((slot, n) => [0x200 + n, slot] as const),
  ...[0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f].map((n, i) => [n, st.mtrrFixed[i]!] as const),
  [0xc0000081, st.star], [0xc0000082, st.lstar], [0xc0000083, st.cstar], [0xc0000084, st.sfmask],
  [0xc0000102, st.kernelGsBase], [0xc0000103, st.tscAux],
]; // biome-ignore format: pairs
const IA32_TSC = 0x10;
const IA32_TSC_ADJUST = 0x3b;
const TSC_TRIES = 3;

const segments = [
  ['es', S.es], ['cs', S.cs], ['ss', S.ss], ['ds', S.ds], ['fs', S.fs], ['gs', S.gs], ['ldt', S.ldtr], ['tr', S.tr],
] as const; // biome-ignore format: pairs

const registers = Object.keys(st.R) as (keyof typeof st.R)[];

const controls = [['cr0', st.cr0], ['cr2', st.cr2], ['cr3', st.cr3], ['cr4', st.cr4], ['efer', st.efer]] as const; // biome-ignore format: pairs

/** Components of the area that have slots: x87, SSE, AVX, PKRU. */
const KEPT = 0x207n;
/** What the guest turns on in XCR0, by bits, as CPU features name it: without SSE's there is no XSAVE at all. */
const components = [
  [2n, 'xsave'],
  [4n, 'avx'],
  [0x200n, 'pku'],
] as const;
const TOP = 11;
const UNUSABLE = 1 << 16;
const CR0_PE = 1n;
const RFLAGS_VM = 1n << 17n;

/** Moves the state of one vCPU. `env` is the place of its slots. */
export class KvmState {
  readonly #host: KvmHost;
  readonly #fd: number;
  readonly #view: DataView;
  readonly #env: number;
  /** Components of XCR0 that this kernel lets a guest have. */
  readonly #components: bigint;
  /** MSRs that this kernel has. */
  readonly #msrs: readonly (readonly [number, Slot])[];
  readonly #hasAdjust: boolean;
  readonly #tsc: () => bigint;

  readonly #regs = block(regsLayout);
  readonly #sregs = block(sregsLayout);
  readonly #events = block(eventsLayout);
  readonly #debug = block(debugRegsLayout);
  readonly #xcrs = block(xcrsLayout);
  readonly #xsave = new Uint8Array(XSAVE_BYTES);

  constructor(o: {
    readonly host: KvmHost;
    readonly fd: number;
    readonly view: DataView;
    readonly env: number;
    readonly components: bigint;
    /** The counter that tscOffset is added to. */
    readonly tsc: () => bigint;
  }) {
    this.#host = o.host;
    this.#fd = o.fd;
    this.#view = o.view;
    this.#env = o.env;
    this.#components = o.components;
    this.#tsc = o.tsc;
    this.#msrs = msrSlots.filter(([index]) => this.#readMsr(index) !== undefined);
    this.#hasAdjust = this.#readMsr(IA32_TSC_ADJUST) !== undefined;
  }

  /**
   * Throws where the slots hold what the kernel cannot keep: components of XSAVE's state that the guest has turned on, and this KVM has not. The
   * guest's next XRSTOR would fault.
   */
  check(): void {
    checkComponents(this.#get(st.xcr0), this.#components);
  }

  /**
   * Everything from the slots into the kernel. Without `apic` the local APIC, which stays there, keeps its mode and its priority. Where the guest's counter may
   * not go on as the kernel has it, `tscBase` is a word that all vCPUs share, 0 at first: see `#setTsc`. `nmi`: the slots have the NMI that waits.
   */
  store(apic: { readonly base: bigint; readonly tpr: number } | undefined, nmi: boolean, tscBase?: BigInt64Array): void {
    this.#storeSystem(apic);
    this.#storeRegisters();
    this.#storeFloat();
    this.#storeMsrs(tscBase);
    const d = this.#debug.view;
    st.dr.slice(0, 4).forEach((slot, n) => {
      d.db[n] = this.#get(slot);
    });
    d.dr6 = this.#get(st.dr[6]!);
    d.dr7 = this.#get(st.dr[7]!);
    this.#call('setDebugregs', this.#debug.bytes);
    const e = this.#events;
    e.bytes.fill(0);
    // Another vCPU may have sent one since `load`.
    e.view.flags = eventsFlag.shadow | (nmi ? eventsFlag.nmiPending : 0);
    e.view.interruptShadow = this.#get(st.shadow) !== 0n ? shadowBit.sti : 0;
    e.view.nmiMasked = this.#get(st.nmiBlocked) !== 0n ? 1 : 0;
    this.#call('setVcpuEvents', e.bytes);
  }

  /**
   * Everything from the kernel into the slots. Returns the vector of the interrupt that was being delivered, or 0, and whether an NMI was or waits: what else
   * was begun begins again with the instruction that caused it.
   */
  load(): { readonly vector: number; readonly nmi: boolean } {
    this.#loadSystem();
    this.#loadRegisters();
    this.#loadFloat();
    for (const [index, slot] of this.#msrs) this.#set(slot, this.#readMsr(index) ?? 0n);
    const ahead = this.#tscAhead();
    if (ahead !== undefined) this.#set(st.tscOffset, ahead);
    if (this.#hasAdjust) this.#set(st.tscAdjust, this.#readMsr(IA32_TSC_ADJUST) ?? 0n);
    this.#call('getDebugregs', this.#debug.bytes);
    const d = this.#debug.view;
    st.dr.slice(0, 4).forEach((slot, n) => this.#set(slot, d.db[n]!));
    this.#set(st.dr[6]!, d.dr6);
    this.#set(st.dr[7]!, d.dr7);
    this.#call('getVcpuEvents', this.#events.bytes);
    const e = this.#events.view;
    this.#set(st.shadow, e.interruptShadow !== 0 ? 1n : 0n);
    this.#set(st.nmiBlocked, e.nmiMasked !== 0 ? 1n : 0n);
    const vector = e.interruptInjected && !e.interruptSoft ? e.interruptNr : 0;
    return { vector, nmi: e.nmiInjected !== 0 || e.nmiPending !== 0 };
  }

  /** Has the kernel deliver the interrupt `vector`, which was acknowledged elsewhere. */
  inject(vector: number): void {
    this.#call('getVcpuEvents', this.#events.bytes);
    const e = this.#events.view;
    e.interruptInjected = 1;
    e.interruptNr = vector;
    e.interruptSoft = 0;
    // Not of an NMI, which may have come since they were read.
    e.flags = eventsFlag.shadow;
    this.#call('setVcpuEvents', this.#events.bytes);
  }

  /** RIP as the kernel has it. */
  rip(): bigint {
    this.#call('getRegs', this.#regs.bytes);
    return this.#regs.view.rip;
  }

  /** Has the registers answer an access to a port; what EAX is then. */
  callPort(call: (registers: PortRegisters) => void): number {
    this.#call('getRegs', this.#regs.bytes);
    const r = this.#regs.view;
    withPortRegisters(
      (name) => r[wholeRegister[name]],
      (name, value) => {
        r[wholeRegister[name]] = value;
      },
      call,
    );
    this.#call('setRegs', this.#regs.bytes);
    return Number(BigInt.asUintN(32, r.rax));
  }

  /** The linear address of the next instruction, as the kernel has it. */
  linearRip(): bigint {
    const rip = this.rip();
    this.#call('getSregs', this.#sregs.bytes);
    const { cs } = this.#sregs.view;
    return cs.l ? rip : BigInt.asUintN(32, cs.base + rip);
  }

  // -- parts

  #storeRegisters(): void {
    const r = this.#regs.view;
    registers.forEach((name, n) => {
      r[name] = this.#get(st.gpr[n]!);
    });
    r.rip = this.#get(st.rip);
    r.rflags = readRflags(this.#view, this.#env);
    this.#call('setRegs', this.#regs.bytes);
  }
  #loadRegisters(): void {
    this.#call('getRegs', this.#regs.bytes);
    const r = this.#regs.view;
    registers.forEach((name, n) => this.#set(st.gpr[n]!, r[name]));
    this.#set(st.rip, r.rip);
    writeRflags(this.#view, this.#env, r.rflags);
    const real = (this.#get(st.cr0) & CR0_PE) === 0n;
    const cpl = real ? 0n : r.rflags & RFLAGS_VM ? 3n : (this.#get(st.segAttr[S.ss]!) >> 5n) & 3n;
    this.#set(st.cpl, cpl);
  }

  #storeSystem(apic: { readonly base: bigint; readonly tpr: number } | undefined): void {
    const s = this.#sregs.view;
    if (!apic) this.#call('getSregs', this.#sregs.bytes);
    for (const [name, n] of segments) {
      const seg: Segment = s[name];
      const attr = Number(this.#get(st.segAttr[n]!));
      seg.base = this.#get(st.segBase[n]!);
      seg.limit = Number(this.#get(st.segLimit[n]!));
      seg.selector = Number(this.#get(st.segSelector[n]!));
      seg.type = attr & 15;
      seg.s = (attr >> 4) & 1;
      seg.dpl = (attr >> 5) & 3;
      seg.present = (attr >> 7) & 1;
      seg.avl = (attr >> 12) & 1;
      seg.l = (attr >> 13) & 1;
      seg.db = (attr >> 14) & 1;
      seg.g = (attr >> 15) & 1;
      seg.unusable = attr & UNUSABLE ? 1 : 0;
      // Intel's processors want a busy TSS in TR at entry, and what an unusable LDTR cannot harm.
      if (name === 'tr') seg.type |= 2;
    }
    s.gdt.base = this.#get(st.gdtBase);
    s.gdt.limit = Number(this.#get(st.gdtLimit));
    s.idt.base = this.#get(st.idtBase);
    s.idt.limit = Number(this.#get(st.idtLimit));
    for (const [name, slot] of controls) s[name] = this.#get(slot);
    if (apic) {
      s.cr8 = BigInt(apic.tpr);
      s.apicBase = apic.base;
    }
    s.interrupts.fill(0n);
    this.#call('setSregs', this.#sregs.bytes);
    const x = this.#xcrs.view;
    x.count = 1;
    x.xcr[0]!.xcr = 0;
    x.xcr[0]!.value = (this.#get(st.xcr0) & this.#components) | 1n;
    // A kernel on a host without XSAVE has no extended control registers.
    this.#host.ioctl(this.#fd, ioctls.setXcrs.request, this.#xcrs.bytes);
  }
  #loadSystem(): void {
    this.#call('getSregs', this.#sregs.bytes);
    const s = this.#sregs.view;
    for (const [name, n] of segments) {
      const g: Segment = s[name];
      const attr =
        (g.type & 15) | (g.s << 4) | (g.dpl << 5) | (g.present << 7) | (g.avl << 12) | (g.l << 13) | (g.db << 14) | (g.g << 15);
      this.#set(st.segBase[n]!, g.base);
      this.#set(st.segLimit[n]!, BigInt(g.limit));
      this.#set(st.segSelector[n]!, BigInt(g.selector));
      this.#set(st.segAttr[n]!, BigInt(attr | (g.unusable || !g.present ? UNUSABLE : 0)));
    }
    this.#set(st.gdtBase, s.gdt.base);
    this.#set(st.gdtLimit, BigInt(s.gdt.limit));
    this.#set(st.idtBase, s.idt.base);
    this.#set(st.idtLimit, BigInt(s.idt.limit));
    for (const [name, slot] of controls) this.#set(slot, s[name]);
    if (this.#host.ioctl(this.#fd, ioctls.getXcrs.request, this.#xcrs.bytes) >= 0 && this.#xcrs.view.count > 0) {
      this.#set(st.xcr0, this.#xcrs.view.xcr[0]!.value);
    }
  }

  #storeFloat(): void {
    const area = this.#xsave;
    const d = new DataView(area.buffer);
    area.fill(0);
    const top = Number(this.#get(st.fpTop));
    d.setUint16(At.cw, Number(this.#get(st.fpCw)), true);
    d.setUint16(At.sw, Number(this.#get(st.fpSw)) | (top << TOP), true);
    d.setUint8(At.tags, Number(this.#get(st.fpValid)));
    d.setUint16(At.opcode, Number(this.#get(st.fpOpcode)), true);
    d.setBigUint64(At.ip, this.#get(st.fpIp), true);
    d.setBigUint64(At.dp, this.#get(st.fpDp), true);
    d.setUint32(At.mxcsr, Number(this.#get(st.mxcsr)) & 0xffff, true);
    for (let i = 0; i < 8; i++) {
      const r = st.fpr[(top + i) & 7]!;
      d.setBigUint64(At.st + 16 * i, this.#get(r.mant), true);
      d.setUint16(At.st + 16 * i + 8, Number(this.#get(r.exp) & 0xffffn), true);
    }
    this.#copyVectors(st.xmm, At.xmm, 'out');
    this.#copyVectors(st.ymmHigh, At.avx, 'out');
    d.setUint32(At.pkru, Number(this.#get(st.pkru)), true);
    d.setBigUint64(At.header, KEPT & this.#components, true);
    this.#call('setXsave', area);
  }
  #loadFloat(): void {
    const area = this.#xsave;
    const d = new DataView(area.buffer);
    this.#call('getXsave', area);
    const bv = d.getBigUint64(At.header, true);
    if ((bv & 1n) === 0n) {
      // The x87's initial state: what the area holds of it does not count.
      area.fill(0, At.st, At.xmm);
      area.fill(0, 0, At.mxcsr);
      d.setUint16(At.cw, 0x37f, true);
    }
    if ((bv & 2n) === 0n) area.fill(0, At.xmm, At.header);
    if ((bv & 4n) === 0n) area.fill(0, At.avx, At.avx + 256);
    this.#set(st.pkru, (bv & 0x200n) === 0n ? 0n : BigInt(d.getUint32(At.pkru, true)));
    const sw = d.getUint16(At.sw, true);
    const top = (sw >> TOP) & 7;
    this.#set(st.fpCw, BigInt(d.getUint16(At.cw, true)));
    this.#set(st.fpSw, BigInt(sw & ~(7 << TOP)));
    this.#set(st.fpTop, BigInt(top));
    this.#set(st.fpValid, BigInt(d.getUint8(At.tags)));
    this.#set(st.fpOpcode, BigInt(d.getUint16(At.opcode, true)));
    this.#set(st.fpIp, d.getBigUint64(At.ip, true));
    this.#set(st.fpDp, d.getBigUint64(At.dp, true));
    const exact = this.#get(st.mxcsr) & (1n << 31n);
    this.#set(st.mxcsr, BigInt(d.getUint32(At.mxcsr, true) & 0xffff) | exact);
    for (let i = 0; i < 8; i++) {
      const r = st.fpr[(top + i) & 7]!;
      this.#set(r.mant, d.getBigUint64(At.st + 16 * i, true));
      this.#set(r.exp, BigInt(d.getUint16(At.st + 16 * i + 8, true)));
    }
    this.#copyVectors(st.xmm, At.xmm, 'in');
    this.#copyVectors(st.ymmHigh, At.avx, 'in');
  }
  #copyVectors(slots: readonly Slot[], place: number, way: 'in' | 'out'): void {
    const d = new DataView(this.#xsave.buffer);
    slots.forEach((slot, n) => {
      for (const half of [0, 8]) {
        const here = this.#env + slot.offset + half;
        const there = place + 16 * n + half;
        if (way === 'in') this.#view.setBigUint64(here, d.getBigUint64(there, true), true);
        else d.setBigUint64(there, this.#view.getBigUint64(here, true), true);
      }
    });
  }

  #storeMsrs(tscBase: BigInt64Array | undefined): void {
    for (const [index, slot] of this.#msrs) this.writeMsr(index, this.#get(slot));
    if (!tscBase || !this.#setTsc(tscBase)) this.writeMsr(IA32_TSC, BigInt.asUintN(64, this.#tsc() + this.#get(st.tscOffset)));
    if (this.#hasAdjust) this.writeMsr(IA32_TSC_ADJUST, this.#get(st.tscAdjust));
  }
  /**
   * The counter as the slots have it, by the offset that the kernel adds: of IA32_TSC it takes a value within a second of what it expects for that. The first
   * vCPU to come measures for all, what the board's counter is ahead of the host's, so that counters that are one stay one. False where the kernel has no
   * such attribute.
   */
  #setTsc(tscBase: BigInt64Array): boolean {
    if (Atomics.load(tscBase, 0) === 0n) {
      const offset = this.#tscAttr('getDeviceAttr', 0n);
      const ahead = this.#tscAhead();
      if (offset === undefined || ahead === undefined) return false;
      Atomics.compareExchange(tscBase, 0, 0n, BigInt.asIntN(64, offset - ahead) || 1n);
    }
    return this.#tscAttr('setDeviceAttr', Atomics.load(tscBase, 0) + this.#get(st.tscOffset)) !== undefined;
  }
  /** The kernel's offset, read or written; undefined where it has none. */
  #tscAttr(call: 'getDeviceAttr' | 'setDeviceAttr', value: bigint): bigint | undefined {
    const word = BigInt64Array.of(value);
    const { bytes, view } = block(deviceAttrLayout);
    view.group = tscOffsetAttr.group;
    view.attr = tscOffsetAttr.attr;
    view.addr = this.#host.address(new Uint8Array(word.buffer));
    return this.#host.ioctl(this.#fd, ioctls[call].request, bytes) < 0 ? undefined : word[0];
  }
  /** How far the guest's counter is ahead of the board's. The host may run others between two looks: the best of some tries counts. */
  #tscAhead(): bigint | undefined {
    let ahead: bigint | undefined;
    let best: bigint | undefined;
    for (let n = 0; n < TSC_TRIES; n++) {
      const before = this.#tsc();
      const value = this.#readMsr(IA32_TSC);
      if (value === undefined) return undefined;
      const window = this.#tsc() - before;
      if (best !== undefined && window >= best) continue;
      best = window;
      ahead = value - before - window / 2n;
    }
    return ahead;
  }
  /** One MSR's value; undefined where the kernel has no such MSR. */
  #readMsr(index: number): bigint | undefined {
    const { bytes, entry } = oneMsr(index, 0n);
    return this.#host.ioctl(this.#fd, ioctls.getMsrs.request, bytes) === 1 ? entry.data : undefined;
  }
  /** Writes one MSR; false where the kernel refuses. */
  writeMsr(index: number, value: bigint): boolean {
    return this.#host.ioctl(this.#fd, ioctls.setMsrs.request, oneMsr(index, value).bytes) === 1;
  }
  readMsr(index: number): bigint | undefined {
    return this.#readMsr(index);
  }

  #call(name: IoctlName, bytes: Uint8Array): void {
    const result = this.#host.ioctl(this.#fd, ioctls[name].request, bytes);
    if (result < 0) {
      throw new Error(
        `Cannot ${name} of a KVM vCPU: error ${-result}${-result === errno.EINVAL ? ' (a value is not accepted)' : ''}`,
      );
    }
  }
  #get(slot: Slot): bigint {
    const at = this.#env + slot.offset;
    return slot.access.bits === 64 ? this.#view.getBigUint64(at, true) : BigInt(this.#view.getUint32(at, true));
  }
  #set(slot: Slot, value: bigint): void {
    const at = this.#env + slot.offset;
    if (slot.access.bits === 64) this.#view.setBigUint64(at, BigInt.asUintN(64, value), true);
    else this.#view.setUint32(at, Number(BigInt.asUintN(32, value)), true);
  }
}

/** Components of XCR0 that a kernel lets a guest have. */
export const keptComponents = (supported: readonly CpuidEntry[]): bigint =>
  BigInt(supported.find((e) => e.leaf === 0xd && !e.subleaf)?.values[0] ?? 1);

/** Throws where a guest that has turned on `xcr0` uses what a kernel that keeps `kept` does not. */
export function checkComponents(xcr0: bigint, kept: bigint): void {
  const lacking = xcr0 & ~kept;
  if (lacking === 0n) return;
  const named = components.filter(([bit]) => lacking & bit).map(([, name]) => name);
  const names = named[0] === 'xsave' ? ['xsave'] : named;
  const without = names.length > 0 ? `, such as -cpu max${names.map((name) => `,-${name}`).join('')}` : '';
  throw new Error(
    `Cannot run the guest on this KVM: it uses state that KVM does not keep here (${names.join(', ') || `XCR0 0x${lacking.toString(16)}`}); accepted is a CPU model without it${without}`,
  );
}

function oneMsr(index: number, value: bigint) {
  const bytes = new Uint8Array(MSRS_HEADER + msrEntryLayout.size);
  new DataView(bytes.buffer).setUint32(0, 1, true);
  const entry = msrEntryLayout.view(bytes.buffer, MSRS_HEADER);
  entry.index = index;
  entry.data = value;
  return { bytes, entry };
}
