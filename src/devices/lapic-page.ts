// A local APIC's state as the 1,024-byte register page that KVM_GET_LAPIC and KVM_SET_LAPIC carry. Linux 6.1, Documentation/virt/kvm/api.rst, sections 4.57 and 4.58.
import type { Lapic } from './lapic.ts';
import { lvt } from './lapic-state.ts';

export const lapicPageSize = 0x400;
const offsets = {
  id: 0x20,
  tpr: 0x80,
  ldr: 0xd0,
  dfr: 0xe0,
  svr: 0xf0,
  isr: 0x100,
  tmr: 0x180,
  irr: 0x200,
  esr: 0x280,
  icrLow: 0x300,
  icrHigh: 0x310,
  initial: 0x380,
  current: 0x390,
  divide: 0x3e0,
} as const;
/** Offsets of the local vectors, in the order of `lvt`. */
const vectors: Readonly<Record<keyof typeof lvt, number>> = {
  timer: 0x320,
  thermal: 0x330,
  perf: 0x340,
  lint0: 0x350,
  lint1: 0x360,
  error: 0x370,
};

const arrays = [offsets.isr, offsets.tmr, offsets.irr].flatMap((at) => Array.from({ length: 8 }, (_, n) => at + 16 * n));
/** Every register of the page that can be read. */
const places: readonly number[] = [...new Set([...Object.values(offsets), ...Object.values(vectors), ...arrays, 0x30, 0xa0])];

/** A local APIC's registers, those of one moment, but its mode (IA32_APIC_BASE, MSR 0x1B). */
export interface LapicRegisters {
  readonly page: Uint8Array;
  /** IA32_TSC_DEADLINE, MSR 0x6E0; 0 outside of its mode. */
  readonly deadline: bigint;
}

/** With the board's lock held. */
export function saveLapicPage(l: Lapic): LapicRegisters {
  // Who takes the registers over does not know of an end that the guest has given, or may still give, in memory alone.
  l.setPvEoi(l.s.pvEoi);
  const page = new Uint8Array(lapicPageSize);
  const view = new DataView(page.buffer);
  return l.timer.still(() => {
    for (const at of places) view.setUint32(at, l.mmio.read(at, 4), true);
    return { page, deadline: l.timer.deadline };
  });
}

/** Takes the registers over, into a local APIC without requests; IA32_APIC_BASE must have been set before. With the board's lock held. */
export function loadLapicPage(l: Lapic, { page, deadline }: LapicRegisters): void {
  if (page.length !== lapicPageSize)
    throw new Error(`Cannot load a local APIC from ${page.length} bytes: it has ${lapicPageSize}`);
  const view = new DataView(page.buffer, page.byteOffset, page.length);
  const at = (offset: number): number => view.getUint32(offset, true);
  const { s } = l;
  s.id = l.mode === 'x2apic' ? at(offsets.id) : at(offsets.id) >>> 24;
  s.tpr = at(offsets.tpr);
  s.ldr = at(offsets.ldr);
  s.dfr = at(offsets.dfr);
  s.svr = at(offsets.svr);
  s.esr = at(offsets.esr);
  s.icrLow = at(offsets.icrLow);
  s.icrHigh = at(offsets.icrHigh);
  for (let i = 0; i < 8; i++) {
    Atomics.store(s.isr, i, at(offsets.isr + 16 * i) | 0);
    Atomics.store(s.tmr, i, at(offsets.tmr + 16 * i) | 0);
    // Requests that have come meanwhile stay.
    Atomics.or(s.irr, i, at(offsets.irr + 16 * i) | 0);
  }
  for (const [name, index] of Object.entries(lvt)) s.lvt[index] = at(vectors[name as keyof typeof lvt]);
  l.timer.load(at(offsets.initial), at(offsets.current), at(offsets.divide));
  l.timer.deadline = deadline;
}
