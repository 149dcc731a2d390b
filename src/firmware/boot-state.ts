// The three CPU states in which direct boot enters a kernel, with the GDT and page tables that they need in guest RAM.
// Linux Documentation/arch/x86/boot.rst, "32-bit Boot Protocol" and "64-bit Boot Protocol";
// descriptor encoding: Intel SDM 3A, sections 3.4.5 and 8.2.3; paging: section 4.5.

import { GDT_ADDRESS, PAGE_TABLES_ADDRESS } from './layout.ts';
import { type BootState, hex, type LoadTarget, type SegmentState, type TableRegister } from './target.ts';

const CODE = 0xb;
const DATA = 0x3;

const flat = (selector: number, type: number, mode: 'code64' | '32'): SegmentState => ({
  selector,
  base: 0,
  limit: 0xffff_ffff,
  type,
  present: 1,
  dpl: 0,
  s: 1,
  db: mode === '32' ? 1 : 0,
  l: mode === 'code64' ? 1 : 0,
  g: 1,
});

const realMode = (selector: number, type: number): SegmentState => ({
  selector,
  base: selector * 16,
  limit: 0xffff,
  type,
  present: 1,
  dpl: 0,
  s: 1,
  db: 0,
  l: 0,
  g: 0,
});

const system = (selector: number, type: number, limit: number): SegmentState => ({
  selector,
  base: 0,
  limit,
  type,
  present: 1,
  dpl: 0,
  s: 0,
  db: 0,
  l: 0,
  g: 0,
});

const noLdt: SegmentState = { ...system(0, 2, 0), present: 0 };

/** The 8-byte descriptor whose cached form is `segment`. */
export const encodeDescriptor = (segment: SegmentState): bigint => {
  const limit = BigInt(segment.g ? Math.floor(segment.limit / 4096) : segment.limit);
  const base = BigInt(segment.base);
  const access = BigInt(segment.type | (segment.s << 4) | (segment.dpl << 5) | (segment.present << 7));
  const flags = BigInt((segment.l << 1) | (segment.db << 2) | (segment.g << 3));
  return (
    (limit & 0xffffn) |
    ((base & 0xff_ffffn) << 16n) |
    (access << 40n) |
    ((limit >> 16n) << 48n) |
    (flags << 52n) |
    ((base >> 24n) << 56n)
  );
};

const writeGdt = (target: LoadTarget, ...segments: SegmentState[]): { base: number; limit: number } => {
  const last = Math.max(...segments.map((s) => s.selector));
  // A 64-bit TSS descriptor takes two slots; the upper one holds base bits 63:32, which are 0 here.
  const bytes = new Uint8Array(last + 16);
  const view = new DataView(bytes.buffer);
  for (const segment of segments) view.setBigUint64(segment.selector, encodeDescriptor(segment), true);
  target.write(GDT_ADDRESS, bytes);
  return { base: GDT_ADDRESS, limit: bytes.length - 1 };
};

/** Maps [0, 4 GiB) to itself with 2 MiB pages, writable and executable; returns the PML4's address for CR3. */
export const writeIdentityTables = (target: LoadTarget): number => {
  const bytes = new Uint8Array(6 * 4096);
  const view = new DataView(bytes.buffer);
  const page = (n: number): number => PAGE_TABLES_ADDRESS + n * 4096;
  view.setUint32(0, page(1) | 3, true);
  for (let gib = 0; gib < 4; gib++) view.setUint32(4096 + gib * 8, page(2 + gib) | 3, true);
  for (let large = 0; large < 2048; large++) view.setUint32(8192 + large * 8, large * 0x200000 + 0x83, true);
  target.write(PAGE_TABLES_ADDRESS, bytes);
  return PAGE_TABLES_ADDRESS;
};

type Registers = Partial<Pick<BootState, 'rax' | 'rbx' | 'rcx' | 'rdx' | 'rsi' | 'rdi' | 'rbp' | 'rsp'>>;
const none: Required<Registers> = { rax: 0, rbx: 0, rcx: 0, rdx: 0, rsi: 0, rdi: 0, rbp: 0, rsp: 0 };
const emptyIdt = { base: 0, limit: 0 };
/** The vectors of real mode, as the processor is reset and a BIOS leaves it (SDM 3A, section 10.1.1). */
export const realModeIdt: TableRegister = { base: 0, limit: 0x3ff };

/** 64-bit mode, paging on with [0, 4 GiB) mapped one to one, __BOOT_CS = 0x10, __BOOT_DS = 0x18, interrupts off. */
export const long64State = (target: LoadTarget, kernel: string, rip: number, registers: Registers): BootState => {
  const cs = flat(0x10, CODE, 'code64');
  const data = flat(0x18, DATA, '32');
  const tr = system(0x20, 0xb, 0x67);
  return {
    mode: 'long64',
    kernel,
    rip,
    rflags: 2,
    ...none,
    ...registers,
    cs,
    ds: data,
    es: data,
    fs: data,
    gs: data,
    ss: data,
    tr,
    ldt: noLdt,
    gdt: writeGdt(target, cs, data, tr),
    idt: emptyIdt,
    cr0: 0x8000_0011,
    cr3: writeIdentityTables(target),
    cr4: 0x20,
    efer: 0x500,
  };
};

/** 32-bit protected mode, paging off, flat 4 GiB segments, interrupts off. `rip` is below 4 GiB. */
export const protected32State = (target: LoadTarget, kernel: string, rip: number, registers: Registers): BootState => {
  if (rip >= 2 ** 32) throw new Error(`Cannot boot ${kernel}: its 32-bit entry is at ${hex(rip)}, it must be below 4 GiB`);
  const cs = flat(0x10, CODE, '32');
  const data = flat(0x18, DATA, '32');
  const tr = system(0x20, 0xb, 0x67);
  return {
    mode: 'protected32',
    kernel,
    rip,
    rflags: 2,
    ...none,
    ...registers,
    cs,
    ds: data,
    es: data,
    fs: data,
    gs: data,
    ss: data,
    tr,
    ldt: noLdt,
    gdt: writeGdt(target, cs, data, tr),
    idt: emptyIdt,
    cr0: 0x11,
    cr3: 0,
    cr4: 0,
    efer: 0,
  };
};

/** Real mode at `codeSegment`:0, every data segment and the stack at `dataSegment`, interrupts off. */
export const real16State = (kernel: string, codeSegment: number, dataSegment: number, rsp: number): BootState => {
  const data = realMode(dataSegment, DATA);
  return {
    mode: 'real16',
    kernel,
    rip: 0,
    rflags: 2,
    ...none,
    rsp,
    cs: realMode(codeSegment, CODE),
    ds: data,
    es: data,
    fs: data,
    gs: data,
    ss: data,
    tr: system(0, 0xb, 0xffff),
    ldt: system(0, 2, 0xffff),
    gdt: { base: 0, limit: 0xffff },
    idt: realModeIdt,
    cr0: 0x10,
    cr3: 0,
    cr4: 0,
    efer: 0,
  };
};
