// How a guest reaches a local APIC: the xAPIC page and the MSRs. Intel SDM volume 3A (order 253668), tables 11-1 and 11-6.
import type { MsrHandler } from '../bus/msr.ts';
import { type Register, registers, ro, rw, wo } from '../bus/registers.ts';
import type { Lapic } from './lapic.ts';
import { lvt, lvtWritable } from './lapic-state.ts';

/** Version 0x14, six local vectors, EOI-broadcast suppression. */
const version = 0x0105_0014;

const vectors = (at: number, name: 'ISR' | 'TMR' | 'IRR', words: (l: Lapic) => Int32Array): Register<Lapic>[] =>
  Array.from({ length: 8 }, (_, i) => ro(at + 0x10 * i, 4, `${name}${i}`, (l) => words(l)[i]!));

const localVector = (at: number, name: string, index: number): Register<Lapic> =>
  rw(
    at,
    4,
    name,
    (l) => l.s.lvt[index]!,
    (l, v) => l.setLvt(index, v),
  );

const rows: Register<Lapic>[] = [
  rw(
    0x020,
    4,
    'ID',
    (l) => (l.mode === 'x2apic' ? l.s.id : l.s.id << 24),
    (l, v) => {
      l.s.id = v >>> 24;
    },
  ),
  ro(0x030, 4, 'Version', () => version),
  rw(
    0x080,
    4,
    'TPR',
    (l) => l.s.tpr,
    (l, v) => l.setTaskPriority(v & 0xff),
  ),
  ro(0x090, 4, 'APR', () => 0),
  ro(0x0a0, 4, 'PPR', (l) => l.ppr),
  wo(0x0b0, 4, 'EOI', (l) => l.eoi()),
  ro(0x0c0, 4, 'RRD', () => 0),
  rw(
    0x0d0,
    4,
    'LDR',
    (l) => l.s.ldr,
    (l, v) => {
      l.s.ldr = v & 0xff00_0000;
    },
  ),
  rw(
    0x0e0,
    4,
    'DFR',
    (l) => l.s.dfr,
    (l, v) => {
      l.s.dfr = v | 0x0fff_ffff;
    },
  ),
  rw(
    0x0f0,
    4,
    'SVR',
    (l) => l.s.svr,
    (l, v) => l.setSpurious(v),
  ),
  ...vectors(0x100, 'ISR', (l) => l.s.isr),
  ...vectors(0x180, 'TMR', (l) => l.s.tmr),
  ...vectors(0x200, 'IRR', (l) => l.s.irr),
  rw(
    0x280,
    4,
    'ESR',
    (l) => l.s.esr,
    (l) => {
      l.s.esr = Atomics.exchange(l.s.errors, 0, 0);
    },
  ),
  rw(
    0x300,
    4,
    'ICR low',
    (l) => l.s.icrLow,
    (l, v) => l.command(l.s.icrHigh, v),
  ),
  rw(
    0x310,
    4,
    'ICR high',
    (l) => l.s.icrHigh,
    (l, v) => {
      l.s.icrHigh = v & 0xff00_0000;
    },
  ),
  localVector(0x320, 'LVT timer', lvt.timer),
  localVector(0x330, 'LVT thermal', lvt.thermal),
  localVector(0x340, 'LVT performance', lvt.perf),
  localVector(0x350, 'LVT LINT0', lvt.lint0),
  localVector(0x360, 'LVT LINT1', lvt.lint1),
  localVector(0x370, 'LVT error', lvt.error),
  rw(
    0x380,
    4,
    'Initial count',
    (l) => l.s.initialCount,
    (l, v) => l.timer.setInitialCount(v),
  ),
  ro(0x390, 4, 'Current count', (l) => l.timer.currentCount),
  rw(
    0x3e0,
    4,
    'Divide configuration',
    (l) => l.s.divide,
    (l, v) => l.timer.setDivide(v),
  ),
];

export const lapicRegisters = registers<Lapic>('lapic', 0x1000, rows);

const msrBase = 0x1b;
const msrTscDeadline = 0x6e0;
const icr = 0x30;
const selfIpi = 0x3f;
/** Registers of the page that an x2APIC does not have. */
const absent = new Set([0x09, 0x0c, 0x0e, 0x31]);
/** Bits that an x2APIC lets one write, by register; the rest raise #GP. */
const writable = new Map<number, number>([
  [0x08, 0xff],
  [0x0b, 0],
  [0x0f, 0x13ff],
  [0x28, 0],
  ...lvtWritable.map((bits, i): [number, number] => [0x32 + i, bits]),
  [0x38, 0xffff_ffff],
  [0x3e, 0xb],
]);

/** MSR 0x1B, 0x6E0 and, as an x2APIC, 0x800 to 0x83F. */
export function lapicMsrs(l: Lapic): MsrHandler {
  const page = lapicRegisters.bind(l);
  const readable = new Set(lapicRegisters.list.filter((r) => r.access !== 'wo').map((r) => r.offset >>> 4));
  return {
    read(msr) {
      if (msr === msrBase) return l.baseMsr;
      if (msr === msrTscDeadline) return l.tscDeadline ? l.timer.deadline : undefined;
      const r = msr - 0x800;
      if (l.mode !== 'x2apic' || !readable.has(r) || absent.has(r)) return undefined;
      const low = BigInt(page.read(r << 4, 4));
      return r === icr ? (BigInt(l.s.icrHigh) << 32n) | low : low;
    },
    write(msr, value) {
      if (msr === msrBase) return l.setBase(value);
      if (msr === msrTscDeadline) {
        if (!l.tscDeadline) return false;
        l.timer.deadline = value;
        return true;
      }
      const r = msr - 0x800;
      if (l.mode !== 'x2apic') return false;
      const low = Number(value & 0xffff_ffffn);
      const high = Number(value >> 32n);
      if (r === icr) {
        if ((low & ~0xc_cfff) !== 0) return false;
        l.command(high, low);
        return true;
      }
      if (high !== 0) return false;
      if (r === selfIpi) {
        if (low > 0xff) return false;
        l.command(0, 0x4_0000 | low);
        return true;
      }
      const allowed = writable.get(r);
      if (allowed === undefined || (low & ~allowed) !== 0) return false;
      page.write(r << 4, 4, low);
      return true;
    },
  };
}
