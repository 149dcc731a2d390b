// The state of a vCPU after power-on or INIT (Intel SDM volume 3, table 9-1).

import type { Slot } from '../../ir/ir.ts';
import { msrReset } from './msr.ts';
import * as st from './state.ts';
import { S } from './state.ts';

/** SMBASE after power-on (SDM volume 3, section 32.4). */
export const SMBASE = 0x30000;

/** Slots that tell where a vCPU's tables lie, by name: they stay over a reset and belong to no saved state. */
export const STAYS: ReadonlySet<string> = new Set(
  [
    st.tlb,
    st.tlbSystem,
    st.tlbNone,
    st.fusedMadd,
    st.absent,
    st.cr4Absent,
    st.reservedChange,
    ...st.tlbs,
    st.jumpCache,
    st.ramBase,
    st.ramLow,
    st.ramHigh,
    st.ramSplit,
    st.addendShift,
    st.slotTable,
    st.codeMap,
    st.dirtyMap,
    st.openMap,
    st.blockTable,
    st.codePieces,
    st.cpuIndex,
    st.kick,
    st.storing,
    st.guestDebug,
    st.monitorLine,
    st.monitorSum,
    st.hostThread,
    st.hostEntered,
    ...st.epochs,
    st.cellKey,
    st.cellChain,
    st.lowerGlobal,
    st.callTop,
  ].map((s) => s.name),
);

/** What INIT leaves as it is: floating-point and vector state, model-specific registers but for EFER and DEBUGCTL, and what the host counts. */
const KEPT: readonly Slot[] = [
  ...st.fpr.flatMap(({ mant, exp }) => [mant, exp]),
  ...[st.fpTop, st.fpSw, st.fpCw, st.fpValid, st.fpIp, st.fpDp, st.fpOpcode, st.mxcsr, ...st.xmm, ...st.ymmHigh, st.xcr0],
  ...[st.star, st.lstar, st.cstar, st.sfmask, st.kernelGsBase, st.sysenterCs, st.sysenterEsp, st.sysenterEip],
  ...[st.pat, st.tscAux, st.tscOffset, st.tscAdjust, st.miscEnable, st.hwcr, st.deCfg, st.pkru, st.pkrs],
  ...[...st.mtrrVariable, ...st.mtrrFixed, st.mtrrDefault, st.mcgCtl, ...st.mcCtl, ...st.mcAbout],
  ...[...st.pmCounter, ...st.pmSelect, ...st.pmFixed, st.pmFixedControl, st.pmControl, st.pmStatus],
  ...[st.smbase, st.smiPending, st.instructions, st.inRegions, ...st.counters],
];
/** Bits of CR0 that it leaves alone, too: CD and NW. */
const CACHES = 0x60000000n;

/** Segment attributes (see `segAttr`) of real mode: present, accessed, writable data, or code. */
const DATA = 0x93;
const CODE = 0x9b;

/** Offset and length of what is zero after a reset but for a few slots, joined where they touch. */
const ZEROED: readonly (readonly [number, number])[] = (() => {
  const runs: [number, number][] = [];
  const places = Object.values(st.stateSlots).filter((slot) => !STAYS.has(slot.name));
  for (const { offset, access } of places.sort((a, b) => a.offset - b.offset)) {
    const last = runs.at(-1);
    if (last && offset <= last[0] + last[1]) last[1] = Math.max(last[1], offset + access.bits / 8 - last[0]);
    else runs.push([offset, access.bits / 8]);
  }
  return runs;
})();

/** Puts the vCPU whose state lies at `env` into its reset state. */
export function resetState(view: DataView, env: number): void {
  for (const [offset, length] of ZEROED) new Uint8Array(view.buffer, view.byteOffset + env + offset, length).fill(0);
  const set = (slot: Slot, value: number | bigint): void => {
    if (slot.access.bits === 64) view.setBigUint64(env + slot.offset, BigInt.asUintN(64, BigInt(value)), true);
    else view.setUint32(env + slot.offset, Number(value) >>> 0, true);
  };
  set(st.gpr[st.R.rdx], 0x60fb1);
  set(st.rip, 0xfff0);
  set(st.fZ, 1);
  set(st.fN, 1);
  set(st.cr0, 0x60000010);
  for (let n = 0; n < 8; n++) {
    set(st.segLimit[n], 0xffff);
    set(st.segAttr[n], n === S.cs ? CODE : n === S.ldtr ? 0x82 : n === S.tr ? 0x8b : DATA);
  }
  set(st.segSelector[S.cs], 0xf000);
  set(st.segBase[S.cs], 0xffff0000n);
  set(st.gdtLimit, 0xffff);
  set(st.idtLimit, 0xffff);
  set(st.dr[6], 0xffff0ff0n);
  set(st.dr[7], 0x400);
  for (const [slot, value] of msrReset) set(slot, value);
  set(st.fpCw, 0x40);
  set(st.mxcsr, 0x1f80);
  set(st.xcr0, 1);
  set(st.spMask, 0xffff);
  set(st.smbase, SMBASE);
}

/** Puts the vCPU whose state lies at `env` into the state after an INIT: what `KEPT` names stays. */
export function initState(view: DataView, env: number): void {
  const bytes = (slot: Slot): Uint8Array =>
    new Uint8Array(view.buffer, view.byteOffset + env + slot.offset, slot.access.bits / 8);
  const before = KEPT.map((slot) => bytes(slot).slice());
  const caches = view.getBigUint64(env + st.cr0.offset, true) & CACHES;
  resetState(view, env);
  for (const [n, slot] of KEPT.entries()) bytes(slot).set(before[n]!);
  view.setBigUint64(env + st.cr0.offset, 0x10n | caches, true);
}
