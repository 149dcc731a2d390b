// Whether an access to an address that is not canonical was one through SS, which raises #SS(0) and not #GP(0) (Intel SDM volume 3,
// section 6.15, interrupts 12 and 13). Asked when the fault is delivered, so that no access has to say it.

import { Decode, decode, Insn } from './decode.ts';
import { Ctx, R, S } from './state.ts';
import type { Tables } from './table.ts';

/** An operand reaches no further than this. */
const REACH = 512n;
const within = (address: bigint, from: bigint): boolean => BigInt.asUintN(64, address - from) < REACH;

/** `bytes`: the instruction, at `rip`; `reg` gives a general register, `base` that of a segment. */
export function throughStack(
  tables: Tables,
  bytes: Uint8Array,
  rip: bigint,
  ctx: number,
  address: bigint,
  reg: (n: number) => bigint,
  base: (segment: number) => bigint,
): boolean {
  const insn = new Insn();
  if ((ctx & Ctx.long) === 0 || decode(tables, bytes, 0, bytes.length, ctx, insn) !== Decode.ok) return false;
  if (insn.row.vsib) return insn.segment === S.ss;
  if (insn.isMemory) {
    let at = BigInt(insn.disp);
    if (insn.base === 16) at += rip + BigInt(insn.length);
    else if (insn.base >= 0) at += reg(insn.base);
    if (insn.index >= 0) at += reg(insn.index) << BigInt(insn.scale);
    if (insn.addressSize === 32) at = BigInt.asUintN(32, at);
    if (insn.segment >= S.fs) at += base(insn.segment);
    // Bit strings reach far beyond their operand's address; only these use the stack besides.
    if (within(address, at) || !/^(push|pop|call|enter)/.test(insn.row.mnemonic)) return insn.segment === S.ss;
  }
  // What is left reaches memory by the stack pointer, or by the registers of string instructions.
  if (insn.row.row.options.rep || insn.row.mnemonic === 'xlatb') return false;
  return within(address + 64n, reg(R.rsp)) || within(address + 64n, reg(R.rbp));
}
