// `info mem` and `info tlb`: what a vCPU's page tables map. Intel SDM volume 3, chapter 4; the lines are QEMU's.

import * as st from '../../isa/x86/state.ts';
import type { RunningMachine } from '../../machine/running.ts';
import { readSlot } from '../guest-memory.ts';
import { hex } from './command.ts';

/** A page that is mapped: its last entry, and the rights that all levels give together. */
interface Mapping {
  readonly linear: bigint;
  readonly size: bigint;
  readonly entry: bigint;
  readonly rights: bigint;
}
const Bit = { present: 1n, writable: 2n, user: 4n, large: 0x80n } as const;
const RIGHTS = Bit.present | Bit.writable | Bit.user;
const ADDRESS = 0xf_ffff_ffff_f000n;
/** Pages that are listed: a guest may map more than anybody reads. */
const MOST = 200_000;

/** All pages in the order of their addresses; undefined without paging. */
function* mappings(machine: RunningMachine, cpu: number): Generator<Mapping> {
  const state = machine.vcpuState(cpu);
  const { memory } = machine.board;
  const [cr3, cr4] = [readSlot(state, st.cr3), readSlot(state, st.cr4)];
  const long = (readSlot(state, st.efer) & 0x400n) !== 0n;
  const pae = (cr4 & 0x20n) !== 0n;
  const levels = long ? ((cr4 & 0x1000n) === 0n ? 4 : 5) : pae ? 3 : 2;
  const bits = pae ? 9 : 10;
  const read = (at: bigint): bigint => (pae ? memory.read64(Number(at)) : BigInt(memory.read32(Number(at))));
  function* walk(table: bigint, level: number, linear: bigint, above: bigint): Generator<Mapping> {
    const shift = BigInt(12 + bits * (level - 1));
    const top = level === 3 && !long;
    for (let n = 0n; n < (top ? 4n : 1n << BigInt(bits)); n++) {
      const entry = read(table + n * (pae ? 8n : 4n));
      if ((entry & Bit.present) === 0n) continue;
      const at = linear | (n << shift);
      // Entries of PAE's top level have no rights.
      const rights = above & (top ? RIGHTS : entry);
      const large = (entry & Bit.large) !== 0n && (pae ? level <= 3 && !top : (cr4 & 0x10n) !== 0n);
      if (level === 1 || (level > 1 && large)) yield { linear: at, size: 1n << shift, entry, rights };
      else yield* walk(entry & ADDRESS, level - 1, at, rights);
    }
  }
  const wide = BigInt(levels * 9 + 12);
  for (const m of walk(cr3 & (long ? ADDRESS : pae ? 0xffff_ffe0n : 0xffff_f000n), levels, 0n, RIGHTS))
    yield long ? { ...m, linear: BigInt.asUintN(64, BigInt.asIntN(Number(wide), m.linear)) } : m;
}

const paged = (machine: RunningMachine, cpu: number): boolean => (readSlot(machine.vcpuState(cpu), st.cr0) & (1n << 31n)) !== 0n;

/** Ranges of pages with the same rights. */
export function memText(machine: RunningMachine, cpu: number): string {
  if (!paged(machine, cpu)) return 'PG disabled';
  const lines: string[] = [];
  let start = 0n;
  let end = 0n;
  let rights = 0n;
  const put = (): void => {
    if (rights === 0n) return;
    const letters = `${rights & Bit.user ? 'u' : '-'}r${rights & Bit.writable ? 'w' : '-'}`;
    lines.push(`${hex(start, 16)}-${hex(BigInt.asUintN(64, end), 16)} ${hex(end - start, 16)} ${letters}`);
  };
  for (const m of mappings(machine, cpu)) {
    if (m.linear !== end || m.rights !== rights) {
      put();
      start = m.linear;
      rights = m.rights;
    }
    end = m.linear + m.size;
    if (lines.length >= MOST) return [...lines, `… more than ${MOST} ranges`].join('\n');
  }
  put();
  return lines.join('\n');
}

/** Letters of an entry's bits, from the left. */
const letters: readonly (readonly [string, bigint])[] = [
  ['X', 1n << 63n],
  ['G', 0x100n],
  ['P', Bit.large],
  ['D', 0x40n],
  ['A', 0x20n],
  ['C', 0x10n],
  ['T', 8n],
  ['U', Bit.user],
  ['W', Bit.writable],
];

/** One line for each page. */
export function tlbText(machine: RunningMachine, cpu: number): string {
  if (!paged(machine, cpu)) return 'PG disabled';
  const lines: string[] = [];
  for (const { linear, size, entry } of mappings(machine, cpu)) {
    if (lines.length >= MOST) return [...lines, `… more than ${MOST} pages`].join('\n');
    const flags = letters.map(([letter, bit]) => (entry & bit ? letter : '-')).join('');
    lines.push(`${hex(linear, 16)}: ${hex(entry & ADDRESS & ~(size - 1n), 16)} ${flags}`);
  }
  return lines.join('\n');
}
