// `info pic` and `info lapic`: the interrupt controllers, in QEMU 7.2's words.

import type { Lapic } from '../../devices/lapic.ts';
import { lvt } from '../../devices/lapic-state.ts';
import type { Board } from '../../machine/board.ts';
import { hex } from './command.ts';

const ioapicModes = ['fixed', 'lowest', 'SMI', '...', 'NMI', 'INIT', '...', 'extINT'];
const lapicModes = ['Fixed', '...', 'SMI', '...', 'NMI', 'INIT', '...', 'ExtINT'];
const shorthands = ['no-shorthand', 'self', 'all-self', 'all'];
const Bit = { logical: 0x800, activeLow: 0x2000, remoteIrr: 0x4000, level: 0x8000, masked: 0x1_0000, pending: 0x1000 } as const;

/** Numbers of the bits that are set, as QEMU lists them. */
const listed = (numbers: readonly number[]): string =>
  numbers.length === 0 ? '(none)' : numbers.map((n) => `${String(n).padEnd(2)} `).join('');

function ioapicText(board: Board, n: number): string[] {
  const { select, id, low, high, levels } = board.ioapics[n]!.s;
  const redirection = select >= 0x10 && select < 0x10 + 2 * low.length ? ` (redir[${(select - 0x10) >> 1}])` : '';
  const pins = [...low.keys()];
  return [
    `ioapic${n}: ver=0x20 id=${`0x${hex((id >>> 24) & 15, 2)}`} sel=0x${hex(select & 0xff, 2)}${redirection}`,
    ...pins.map((pin) => {
      const [l, h] = [low[pin]!, high[pin]!];
      const destination = l & Bit.logical ? h >>> 24 : (h >>> 24) & 15;
      const parts = [
        l & Bit.activeLow ? 'active-lo' : 'active-hi',
        (l & Bit.level ? 'level' : 'edge').padEnd(5),
        (l & Bit.masked ? 'masked' : '').padEnd(6),
        ioapicModes[(l >>> 8) & 7]!.padEnd(6),
        l & Bit.logical ? 'logical' : 'physical',
      ];
      return `  pin ${String(pin).padEnd(2)} 0x${hex(h, 8)}${hex(l, 8)} dest=${destination.toString(16)} vec=${String(l & 0xff).padEnd(3)} ${parts.join(' ')}`;
    }),
    `  IRR      ${listed(pins.filter((pin) => (levels >>> pin) & 1))}`,
    `  Remote IRR ${listed(pins.filter((pin) => low[pin]! & Bit.remoteIrr))}`,
  ];
}

export function picText(board: Board): string {
  const lines = board.ioapics.flatMap((_, n) => ioapicText(board, n));
  for (const n of [1, 0]) {
    const c = board.pic.chip(n);
    const two = (value: number): string => hex(value, 2);
    lines.push(
      `pic${n}: irr=${two(c.irr)} imr=${two(c.imr)} isr=${two(c.isr)} hprio=${c.top} irq_base=${two(c.base)} rr_sel=${c.readIsr} elcr=${two(c.elcr)} fnm=${c.fullyNested}`,
    );
  }
  return lines.join('\n');
}

function vectorLine(name: string, value: number, timer = ''): string {
  const mode = (value >>> 8) & 7;
  const parts = [
    value & Bit.activeLow ? 'active-lo' : 'active-hi',
    (value & Bit.level ? 'level' : 'edge').padEnd(5),
    (value & Bit.masked ? 'masked' : '').padEnd(6),
    (value & Bit.pending ? 'pending' : '').padEnd(7),
    timer.padEnd(12),
    lapicModes[mode]!.padEnd(6),
  ];
  return `${name}\t 0x${hex(value, 8)} ${parts.join(' ')}${mode === 4 ? '' : ` (vec ${value & 0xff})`}`;
}

function vectors(words: Int32Array, levels: Int32Array): string {
  const set = (of: Int32Array, n: number): boolean => ((of[n >> 5]! >>> (n & 31)) & 1) !== 0;
  const list = Array.from({ length: 256 }, (_, n) => n).filter((n) => set(words, n));
  return list.length === 0 ? '(none)' : list.map((n) => `${n}${set(levels, n) ? '(level)' : ''} `).join('');
}

/** `ICR2`'s line: where the last interrupt went. */
function destination(high: number, low: number, dfr: number, x2apic: boolean): string {
  const text = `ICR2\t 0x${hex(high, 8)}`;
  if ((low >>> 18) & 3) return text;
  const to = x2apic ? high : high >>> 24;
  if ((low & Bit.logical) === 0)
    return to === (x2apic ? 0xffff_ffff : 0xff) ? `${text} broadcast` : `${text} cpu ${to} (${x2apic ? 'X2APIC' : 'APIC'} ID)`;
  const flat = dfr >>> 28 === 15;
  return `${text} ${x2apic || !flat ? `cluster ${x2apic ? to >>> 16 : to >>> 4} mask ${hex(x2apic ? to & 0xffff : to & 15, x2apic ? 4 : 1)}` : `mask ${hex(to, 2)}`} (APIC ID)`;
}

export function lapicText(cpu: number, lapic: Lapic): string {
  const { s } = lapic;
  const timer = s.lvt[lvt.timer]!;
  const timerMode = ['one-shot', 'periodic', 'tsc-deadline', ''][(timer >>> 17) & 3]!;
  // Bits 0, 1 and 3 of the divide register, plus one, as a power of two; 7 divides by one.
  const shift = ((s.divide & 3) | ((s.divide >>> 1) & 4)) + 1;
  const x2apic = (s.baseLow & 0xc00) === 0xc00;
  const { icrLow, icrHigh } = s;
  const icr = [
    icrLow & Bit.logical ? 'logical' : 'physical',
    icrLow & 0x8000 ? 'level' : 'edge',
    icrLow & 0x4000 ? 'assert' : 'de-assert',
    shorthands[(icrLow >>> 18) & 3],
  ];
  return [
    `dumping local APIC state for CPU ${cpu} \n`,
    vectorLine('LVT0', s.lvt[lvt.lint0]!),
    vectorLine('LVT1', s.lvt[lvt.lint1]!),
    vectorLine('LVTPC', s.lvt[lvt.perf]!),
    vectorLine('LVTERR', s.lvt[lvt.error]!),
    vectorLine('LVTTHMR', s.lvt[lvt.thermal]!),
    vectorLine('LVTT', timer, timerMode),
    `Timer\t DCR=0x${s.divide.toString(16)} (divide by ${1 << (shift & 7)}) initial_count = ${s.initialCount} current_count = ${lapic.timer.currentCount}`,
    `SPIV\t 0x${hex(s.svr, 8)} APIC ${s.svr & 0x100 ? 'enabled' : 'disabled'}, focus=${s.svr & 0x200 ? 'on' : 'off'}, spurious vec ${s.svr & 0xff}`,
    `ICR\t 0x${hex(icrLow, 8)} ${icr.join(' ')}`,
    destination(icrHigh, icrLow, s.dfr, x2apic),
    `ESR\t 0x${hex(s.esr, 8)}`,
    `ISR\t ${vectors(s.isr, s.tmr)}`,
    `IRR\t ${vectors(s.irr, s.tmr)}`,
    '',
    `APR 0x00 TPR 0x${hex(s.tpr & 0xff, 2)} DFR 0x${hex(s.dfr >>> 28, 2)} LDR 0x${hex(x2apic ? s.ldr : s.ldr >>> 24, 2)} PPR 0x${hex(lapic.ppr, 2)}`,
  ].join('\n');
}
