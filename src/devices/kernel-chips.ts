// The state of the PC's interrupt controllers and its timer as KVM_GET_IRQCHIP and KVM_GET_PIT2 carry it, to and from the board's chips. Linux 6.1,
// arch/x86/include/uapi/asm/kvm.h, and arch/x86/kvm/{i8259,ioapic,i8254}.c for what the fields mean.

import { struct } from '../bits/struct.ts';
import { type Ioapic, ioapicPins } from './ioapic.ts';
import type { Pic } from './pic.ts';
import type { Pit } from './pit.ts';

/** `struct kvm_pic_state`. */
export const kernelPicLayout = struct({
  lastIrr: 'u8', irr: 'u8', imr: 'u8', isr: 'u8', priorityAdd: 'u8', irqBase: 'u8', readRegSelect: 'u8', poll: 'u8', specialMask: 'u8', initState: 'u8',
  autoEoi: 'u8', rotateOnAutoEoi: 'u8', specialFullyNestedMode: 'u8', init4: 'u8', elcr: 'u8', elcrMask: 'u8',
}); // biome-ignore format: a table
/** `struct kvm_ioapic_state`; the entries' halves apart. */
export const kernelIoapicLayout = struct({
  base: 'u64', select: 'u32', id: 'u32', irr: 'u32', pad: 'u32', entries: ['u32', 2 * ioapicPins],
}); // biome-ignore format: a table
/** `struct kvm_pit_channel_state` and `struct kvm_pit_state2`. */
const kernelChannelLayout = struct({
  count: 'u32', latchedCount: 'u16', countLatched: 'u8', statusLatched: 'u8', status: 'u8', readState: 'u8', writeState: 'u8', writeLatch: 'u8',
  rwMode: 'u8', mode: 'u8', bcd: 'u8', gate: 'u8', countLoadTime: 'i64',
}); // biome-ignore format: a table
export const kernelPitLayout = struct({ channels: [kernelChannelLayout, 3], flags: 'u32', reserved: ['u32', 9] });

/** Where 'rw' states are of an access of two bytes: low and high alone, then the first and the second of both. */
const Rw = { low: 1, high: 2, first: 3, second: 4 } as const;
/** Inputs that ELCR can make level-triggered. */
const ELCR_MASK = [0xf8, 0xde] as const;
const IOAPIC_BASE = 0xfec00000n;
/** The mode of a channel that was never programmed. */
const UNSET = 0xff;
const PIT_HPET_LEGACY = 1;
const PIT_SPEAKER_ON = 2;

/** 8259A `n` of the pair. Wires that are high are left for whoever raises them: `lastIrr` has none. */
export function savePic(pic: Pic, n: 0 | 1): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(kernelPicLayout.size);
  const c = pic.s.chips[n]!;
  Object.assign(kernelPicLayout.view(bytes.buffer, 0), {
    irr: c.irr, imr: c.imr, isr: c.isr, priorityAdd: c.top, irqBase: c.base, readRegSelect: c.readIsr, poll: c.poll, specialMask: c.specialMask,
    initState: Math.max(0, c.icw - 1), autoEoi: c.autoEoi, rotateOnAutoEoi: c.rotateAuto, specialFullyNestedMode: c.fullyNested, init4: c.needs4,
    elcr: c.elcr, elcrMask: ELCR_MASK[n],
  }); // biome-ignore format: one object
  return bytes;
}
/** The levels of its wires stay as the board knows them. */
export function loadPic(pic: Pic, n: 0 | 1, bytes: Uint8Array): void {
  const k = kernelPicLayout.view(bytes.buffer, bytes.byteOffset);
  Object.assign(pic.s.chips[n]!, {
    irr: k.irr, imr: k.imr, isr: k.isr, top: k.priorityAdd & 7, base: k.irqBase, readIsr: k.readRegSelect, poll: k.poll, specialMask: k.specialMask,
    icw: k.initState === 0 ? 0 : k.initState + 1, autoEoi: k.autoEoi, rotateAuto: k.rotateOnAutoEoi, fullyNested: k.specialFullyNestedMode,
    needs4: k.init4, elcr: k.elcr,
  }); // biome-ignore format: one object
}

/** Wires that are high are left for whoever raises them. */
export function saveIoapic({ s }: Ioapic): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(kernelIoapicLayout.size);
  const k = kernelIoapicLayout.view(bytes.buffer, 0);
  k.base = IOAPIC_BASE;
  k.select = s.select;
  k.id = s.id >>> 24;
  for (let n = 0; n < ioapicPins; n++) {
    k.entries[2 * n] = s.low[n]!;
    k.entries[2 * n + 1] = s.high[n]!;
  }
  return bytes;
}
export function loadIoapic({ s }: Ioapic, bytes: Uint8Array): void {
  const k = kernelIoapicLayout.view(bytes.buffer, bytes.byteOffset);
  s.select = k.select;
  s.id = (k.id & 15) << 24;
  for (let n = 0; n < ioapicPins; n++) {
    s.low[n] = k.entries[2 * n]!;
    s.high[n] = k.entries[2 * n + 1]!;
  }
}

/** `ahead`: ns by which the kernel's monotonic clock is ahead of the guest's. `cut`: the HPET stands in for channel 0. */
export function savePit({ s }: Pit, ahead: bigint, cut: boolean): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(kernelPitLayout.size);
  const k = kernelPitLayout.view(bytes.buffer, 0);
  s.channels.forEach((c, n) => {
    const state = (second: number): number => (c.access === 3 ? (second ? Rw.second : Rw.first) : c.access);
    Object.assign(k.channels[n]!, {
      count: c.count, latchedCount: c.latch, countLatched: c.latched === 2 ? Rw.first : c.latched === 0 ? 0 : c.access === 1 ? Rw.low : Rw.high,
      statusLatched: c.statusLatched, status: c.status, readState: state(c.readHigh), writeState: state(c.writeHigh), writeLatch: c.low,
      rwMode: c.access, mode: c.count === 0 && c.served === 0 ? UNSET : c.mode, bcd: c.bcd, gate: c.gate,
      countLoadTime: BigInt(Math.floor(c.start)) + ahead,
    }); // biome-ignore format: one object
  });
  k.flags = (cut ? PIT_HPET_LEGACY : 0) | (s.speaker & 2 ? PIT_SPEAKER_ON : 0);
  return bytes;
}
/** `now`: the guest's time, in ns. */
export function loadPit({ s }: Pit, bytes: Uint8Array, ahead: bigint, now: number): void {
  const k = kernelPitLayout.view(bytes.buffer, bytes.byteOffset);
  k.channels.forEach((from, n) => {
    const set = from.mode !== UNSET;
    Object.assign(s.channels[n]!, {
      start: Number(from.countLoadTime - ahead), served: set ? now : 0, count: set ? from.count : 0, frozen: set ? from.count : 0,
      latch: from.latchedCount, latched: from.countLatched === 0 ? 0 : from.countLatched === Rw.first ? 2 : 1, status: from.status,
      statusLatched: from.statusLatched, mode: set ? from.mode : 3, bcd: from.bcd, access: from.rwMode || 3, low: from.writeLatch,
      readHigh: from.readState === Rw.second ? 1 : 0, writeHigh: from.writeState === Rw.second ? 1 : 0, gate: from.gate, running: set ? 1 : 0,
    }); // biome-ignore format: one object
  });
  s.speaker = (k.channels[2]!.gate & 1) | (k.flags & PIT_SPEAKER_ON ? 2 : 0);
}
