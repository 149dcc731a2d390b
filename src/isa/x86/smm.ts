// System management mode: what an SMI saves in SMRAM and where it leads, and how RSM comes back (Intel SDM volume 3, chapter 32; the
// save area is that of AMD64's processors, AMD APM volume 2, section 10.2.3, which QEMU, KVM and firmware for them use).

import type { Slot } from '../../ir/ir.ts';
import { CR0, CR4, EFER } from './control.ts';
import { readRflags, writeRflags } from './rflags.ts';
import { Attr } from './segments.ts';
import * as st from './state.ts';
import { Activity, S, Smm } from './state.ts';

/** Where a vCPU's save area and its entry point lie, from SMBASE. */
const AREA = 0x8000;
export const SMM_ENTRY = 0x8000;
/** Revision 0x64 of the save area; bit 17: SMBASE can be changed. */
const REVISION = 0x2_0064n;
const RELOCATION = 0x2_0000n;
/** Base 0, limit 4 GiB, data that can be read and written: every segment after an SMI, CS but for its base. */
const FLAT_ATTR = 0x8093n;
const VM = 1n << 17n;
/** Bits of a segment's attributes in the area; a segment that is not present there is unusable. */
const ATTR = 0xf0ffn;

/** Reads 1, 2, 4 or 8 bytes of guest-physical memory below 4 GiB, as the vCPU sees it in system management mode. */
export type ReadPhysical = (gpa: number, bytes: number) => bigint;

/** A vCPU's state: the bytes of `view` from `env` on. */
export interface VcpuState {
  readonly view: DataView;
  readonly env: number;
}

const get = ({ view, env }: VcpuState, { offset, access }: Slot): bigint =>
  access.bits === 64 ? view.getBigUint64(env + offset, true) : BigInt(view.getUint32(env + offset, true));
function set({ view, env }: VcpuState, { offset, access }: Slot, value: bigint): void {
  if (access.bits === 64) view.setBigUint64(env + offset, BigInt.asUintN(64, value), true);
  else view.setUint32(env + offset, Number(BigInt.asUintN(32, value)), true);
}

/** Something of the state in the save area: its place from SMBASE + 0x8000, and its bytes. */
interface Field {
  readonly at: number;
  readonly bytes: 1 | 2 | 4 | 8;
  readonly save: (s: VcpuState) => bigint;
  /** Absent where RSM takes nothing from here, or takes it apart from the rest. */
  readonly load?: (s: VcpuState, value: bigint) => void;
}
const field = (at: number, bytes: Field['bytes'], slot: Slot): Field => ({
  at,
  bytes,
  save: (s) => get(s, slot),
  load: (s, value) => set(s, slot, value),
});

function segment(at: number, n: number): Field[] {
  return [
    field(at, 2, st.segSelector[n]!),
    {
      at: at + 2,
      bytes: 2,
      save(s) {
        const attr = get(s, st.segAttr[n]!);
        return attr & ATTR & (attr & BigInt(Attr.unusable) ? ~BigInt(Attr.present) : ~0n);
      },
      load: (s, value) => set(s, st.segAttr[n]!, (value & ATTR) | (value & BigInt(Attr.present) ? 0n : BigInt(Attr.unusable))),
    },
    field(at + 4, 4, st.segLimit[n]!),
    field(at + 8, 8, st.segBase[n]!),
  ];
}

const fields: readonly Field[] = [
  ...[S.es, S.cs, S.ss, S.ds, S.fs, S.gs].flatMap((n, i) => segment(0x7e00 + 16 * i, n)),
  field(0x7e64, 4, st.gdtLimit),
  field(0x7e68, 8, st.gdtBase),
  ...segment(0x7e70, S.ldtr),
  field(0x7e84, 4, st.idtLimit),
  field(0x7e88, 8, st.idtBase),
  ...segment(0x7e90, S.tr),
  // Auto-halt restart: 1 where HLT was left; what is not 0 when RSM comes halts again.
  {
    at: 0x7ec9,
    bytes: 1,
    save: (s) => (get(s, st.activity) === BigInt(Activity.halted) ? 1n : 0n),
    load: (s, value) => set(s, st.activity, BigInt(value === 0n ? Activity.running : Activity.halted)),
  },
  field(0x7ed0, 8, st.efer),
  { at: 0x7efc, bytes: 4, save: () => REVISION },
  { at: 0x7f00, bytes: 4, save: (s) => get(s, st.smbase) },
  field(0x7f48, 4, st.cr4),
  field(0x7f50, 8, st.cr3),
  field(0x7f58, 4, st.cr0),
  field(0x7f60, 4, st.dr[7]!),
  field(0x7f68, 4, st.dr[6]!),
  {
    at: 0x7f70,
    bytes: 4,
    save: ({ view, env }) => readRflags(view, env),
    load: ({ view, env }, value) => writeRflags(view, env, value),
  },
  field(0x7f78, 8, st.rip),
  ...st.gpr.map((slot, n) => field(0x7ff8 - 8 * n, 8, slot)),
];

/** What an SMI saves: to be written to guest-physical memory once the vCPU is in the mode. */
export type SaveArea = readonly (readonly [gpa: number, bytes: number, value: bigint])[];

/**
 * Takes the vCPU into system management mode (32.3, 32.5) and returns what is to be written then. Whoever calls it brings up to date
 * what hangs on the registers.
 */
export function enterSmm(s: VcpuState): SaveArea {
  const base = Number(get(s, st.smbase));
  const area = fields.map((f) => [base + AREA + f.at, f.bytes, f.save(s)] as const);
  set(s, st.smiPending, 0n);
  set(s, st.smm, BigInt(Smm.in | (get(s, st.nmiBlocked) === 0n ? 0 : Smm.nmiBlocked)));
  set(s, st.nmiBlocked, 1n);
  set(s, st.activity, BigInt(Activity.running));
  set(s, st.shadow, 0n);
  set(s, st.stepTrap, 0n);
  set(s, st.efer, 0n);
  writeRflags(s.view, s.env, 2n);
  set(s, st.rip, BigInt(SMM_ENTRY));
  set(s, st.cr0, get(s, st.cr0) & 0xffff_ffffn & ~BigInt((CR0.pe | CR0.em | CR0.ts | CR0.pg) >>> 0));
  set(s, st.cr4, 0n);
  set(s, st.dr[7]!, 0x400n);
  set(s, st.cpl, 0n);
  for (const n of [S.es, S.cs, S.ss, S.ds, S.fs, S.gs]) {
    set(s, st.segSelector[n]!, n === S.cs ? BigInt((base >>> 4) & 0xffff) : 0n);
    set(s, st.segBase[n]!, n === S.cs ? BigInt(base) : 0n);
    set(s, st.segLimit[n]!, 0xffff_ffffn);
    set(s, st.segAttr[n]!, FLAT_ATTR);
  }
  return area;
}

/** True where the control registers can be as they are: else RSM shuts the processor down (32.4.3). */
function consistent(s: VcpuState): boolean {
  const has = (slot: Slot, bit: number): boolean => (get(s, slot) & BigInt(bit >>> 0)) !== 0n;
  const paging = has(st.cr0, CR0.pg);
  if (paging && !has(st.cr0, CR0.pe)) return false;
  if (has(st.cr0, CR0.nw) && !has(st.cr0, CR0.cd)) return false;
  const known = BigInt(Object.values(CR4).reduce((a, b) => a | b, 0)) & ~get(s, st.cr4Absent);
  if ((get(s, st.cr4) & ~known) !== 0n) return false;
  if (has(st.efer, EFER.lme) && paging && !has(st.cr4, CR4.pae)) return false;
  return !(has(st.cr4, CR4.pcide) && !(has(st.efer, EFER.lme) && paging));
}

/**
 * RSM: puts back what the save area says and leaves the mode; false where the processor shuts down. Whoever calls it brings up to date what
 * hangs on the registers.
 */
export function leaveSmm(s: VcpuState, read: ReadPhysical): boolean {
  const area = Number(get(s, st.smbase)) + AREA;
  const cr0 = (CR0.pe | CR0.mp | CR0.em | CR0.ts | CR0.ne | CR0.wp | CR0.am | CR0.nw | CR0.cd | CR0.pg) >>> 0;
  const values = fields.map((f) => read(area + f.at, f.bytes));
  if (read(area + 0x7efc, 4) & RELOCATION) set(s, st.smbase, read(area + 0x7f00, 4));
  for (const [i, f] of fields.entries()) f.load?.(s, values[i]!);
  set(s, st.cr0, (get(s, st.cr0) & BigInt(cr0)) | BigInt(CR0.et));
  // Long mode is on where both say so.
  const long = (get(s, st.efer) & BigInt(EFER.lme)) !== 0n && (get(s, st.cr0) & BigInt(CR0.pg >>> 0)) !== 0n;
  const efer = get(s, st.efer) & BigInt(EFER.sce | EFER.lme | EFER.nxe);
  set(s, st.efer, long ? efer | BigInt(EFER.lma) : efer);
  set(s, st.dr[6]!, (get(s, st.dr[6]!) & 0xe00fn) | 0xffff_0ff0n);
  set(s, st.dr[7]!, (get(s, st.dr[7]!) & 0xffff_23ffn) | 0x400n);
  const rflags = readRflags(s.view, s.env);
  if (long) writeRflags(s.view, s.env, rflags & ~VM);
  if (!long || (get(s, st.segAttr[S.cs]!) & BigInt(Attr.long)) === 0n) set(s, st.rip, get(s, st.rip) & 0xffff_ffffn);
  const v86 = !long && (rflags & VM) !== 0n;
  const isProtected = (get(s, st.cr0) & BigInt(CR0.pe)) !== 0n;
  set(s, st.cpl, v86 ? 3n : isProtected ? (get(s, st.segAttr[S.ss]!) >> 5n) & 3n : 0n);
  set(s, st.nmiBlocked, get(s, st.smm) & BigInt(Smm.nmiBlocked) ? 1n : 0n);
  set(s, st.smm, 0n);
  set(s, st.shadow, 0n);
  set(s, st.stepTrap, 0n);
  return consistent(s);
}
