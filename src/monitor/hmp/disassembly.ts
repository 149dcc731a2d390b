// `x/i` and `xp/i`: instructions as the vCPU would decode them in its present mode.

import { Decode, decode, Insn } from '../../isa/x86/decode.ts';
import { instructionText } from '../../isa/x86/disassemble.ts';
import { allRows } from '../../isa/x86/rows/all.ts';
import { Attr } from '../../isa/x86/segments.ts';
import { Ctx } from '../../isa/x86/state.ts';
import { buildTables } from '../../isa/x86/table.ts';
import type { Emulator } from '../emulator.ts';
import { readPhysical, VcpuMemory } from '../guest-memory.ts';
import { hex } from './command.ts';

/** Longest instruction, and bytes that are shown before the text. */
const LONGEST = 15;
const SHOWN = 8;
const LMA = 0x400n;

/** The context of decoding that the vCPU's registers tell. */
function contextOf(r: Readonly<Record<string, bigint>>): number {
  const attr = Number(r['cs.attr'] ?? 0n);
  const long = ((r['efer'] ?? 0n) & LMA) !== 0n && (attr & Attr.long) !== 0;
  const isProtected = ((r['cr0'] ?? 0n) & 1n) !== 0n;
  const v86 = isProtected && ((r['rflags'] ?? 0n) & 0x2_0000n) !== 0n;
  return (long ? Ctx.long : 0) | (attr & Attr.big ? Ctx.big : 0) | (isProtected ? Ctx.protected : 0) | (v86 ? Ctx.v86 : 0);
}

/** Lines as QEMU's: address, bytes, text; further bytes of a long instruction below. */
export function disassembly(e: Emulator, start: bigint, count: number, physical: boolean): string {
  const cpu = e.currentCpu;
  const tables = buildTables(allRows);
  const context = contextOf(e.running.registers(cpu));
  const virtual = new VcpuMemory(e.running, cpu);
  const insn = new Insn();
  const bytes = new Uint8Array(LONGEST);
  const lines: string[] = [];
  let address = start;
  for (let n = 0; n < count; n++) {
    let have = 0;
    for (; have < LONGEST; have++) {
      const at = BigInt.asUintN(64, address + BigInt(have));
      const gpa = physical ? Number(at) : virtual.translate(at);
      const byte = gpa === undefined ? undefined : readPhysical(e.running.board, cpu, gpa, 1);
      if (!byte) break;
      bytes[have] = byte[0]!;
    }
    const head = `0x${hex(address, 8)}:`;
    const result = decode(tables, bytes, 0, have, context, insn);
    if (have === 0 || result === Decode.truncated) return [...lines, `${head} unable to read memory`].join('\n');
    const ok = result === Decode.ok;
    const length = ok ? insn.length : 1;
    const [mnemonic, rest] = ok ? split(instructionText(insn, address)) : ['.byte', `0x${hex(bytes[0]!, 2)}`];
    const part = (from: number): string =>
      Array.from(bytes.subarray(from, Math.min(length, from + SHOWN)), (b) => ` ${hex(b, 2)}`).join('');
    lines.push(`${head} ${part(0).padEnd(SHOWN * 3)}  ${mnemonic.padEnd(8)} ${rest}`);
    for (let from = SHOWN; from < length; from += SHOWN) lines.push(`0x${hex(address + BigInt(from), 8)}: ${part(from)}`);
    address = BigInt.asUintN(64, address + BigInt(length));
  }
  return lines.join('\n');
}

/** A mnemonic with its prefixes, and its operands. */
function split(text: string): [string, string] {
  const [, name = '', rest = ''] = /^((?:(?:lock|repn?e?) )?\S+) ?(.*)$/.exec(text) ?? [];
  return [name, rest];
}
