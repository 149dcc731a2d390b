// Differences from the host that the architecture leaves open: what a processor does with state and addresses when an instruction
// faults in its middle. Each entry names the effects that are not compared, and why.

import type { Case, Result } from './case.ts';

interface Known {
  readonly why: string;
  /** Names of effects (`vector`, `address`, `flags`, `fsw`, …) that may differ. */
  readonly effects: RegExp;
  /** Applies to an instruction whose bytes without prefixes are these (hexadecimal), ending so on the host. */
  readonly code: RegExp;
  readonly when: (expected: Result, found: Result) => boolean;
}

/** An 80-bit number on a scale where neighbours differ by one. */
const ordinal = (x: bigint): bigint => ((x >> 64n) << 63n) | (x & ((1n << 63n) - 1n));
const near = (a: bigint, b: bigint): boolean => {
  const distance = ordinal(a) - ordinal(b);
  return distance >= -1n && distance <= 1n;
};
const C1_PE_UE = 0x230;

const faulted = (expected: Result, found: Result): boolean => expected.vector !== 3 && found.vector === expected.vector;

const list: readonly Known[] = [
  {
    why: 'flags of a repeated compare that faults half-way are overwritten when it is resumed',
    effects: /^flags$/,
    code: /^a[67e]|^af/,
    when: faulted,
  },
  {
    why: 'a faulting MMX instruction may or may not have made its transition to MMX state',
    effects: /^(fsw|ftw|st\d)$/,
    code: /^0f([67e]|d[0-9a-f]|f[1-9a-f]|2[acd]|c[456]|38[01])/,
    when: faulted,
  },
  {
    why: 'transcendental functions may be off by one in the last place, and so round the other way or underflow (SDM volume 1, section 8.3.10)',
    effects: /^(st\d|fsw)$/,
    code: /^d9(f[01239]|fb|fe|ff)/,
    when: (expected, found) =>
      expected.vector === 3 &&
      ((expected.state.fp.fsw ^ found.state.fp.fsw) & ~C1_PE_UE) === 0 &&
      expected.state.fp.st.every((value, i) => near(value, found.state.fp.st[i]!)),
  },
  {
    why: 'which end of a long operand is touched first, and how much of it is written before a fault, is not specified',
    effects: /^(vector|address|error|m.*)$/,
    code: /^d[9bdf]|^0fae|^0ff7/,
    when: (expected, found) => expected.vector >= 12 && expected.vector <= 14 && found.vector >= 12 && found.vector <= 14,
  },
  {
    why: 'MASKMOVQ and MASKMOVDQU with an empty mask may fault or not (SDM volume 2, MASKMOVDQU)',
    effects: /./,
    code: /^0ff7|^c5..f7|^c4....f7/,
    when: (expected, found) => (expected.vector === 14 || expected.vector === 13) && found.state.rip !== expected.state.rip,
  },
  {
    why: 'whether an access that wraps at 4 GiB exceeds a limit of 4 GiB is left open (SDM volume 3, section 5.3)',
    effects: /./,
    code: /./,
    when: (expected, found) =>
      (found.vector === 12 || found.vector === 13) && expected.vector === 14 && expected.address >> 4n === 0xfffffffn,
  },
  {
    why: 'a near branch to a non-canonical address raises #GP at its target here, and at the branch on Intel processors',
    effects: /^(rip|rsp|m.*)$/,
    code: /^c[23]|^ff/,
    when: (expected, found) => expected.vector === 13 && found.vector === 13,
  },
  {
    why: 'POPA that faults half-way may have loaded some registers',
    effects: /^r(ax|cx|dx|bx|bp|si|di)$/,
    code: /^61/,
    when: faulted,
  },
  {
    why: 'an x87 store that an unmasked exception suppresses checks its operand here, and not on processors',
    effects: /./,
    code: /^d[9bdf]/,
    when: (expected, found) =>
      expected.vector === 3 && (expected.state.fp.fsw & 0x80) !== 0 && found.vector >= 12 && found.vector <= 14,
  },
  {
    why: 'a misaligned 128-bit operand beyond the stack segment: which of the two faults comes first',
    effects: /^vector$/,
    code: /./,
    when: (expected, found) => expected.vector + found.vector === 25 && expected.state.rip < 0x10000n,
  },
  {
    why: 'which lane of a masked store that faults is reported is not specified',
    effects: /^(vector|address|error)$/,
    code: /^c4....(2[ef]|8e|f7)|^c5..f7/,
    when: (expected, found) => [expected, found].every((r) => r.vector >= 12 && r.vector <= 14),
  },
  {
    why: 'where the lower half of a 256-bit operation raises #XM, flags of the upper half are not in MXCSR',
    effects: /^mxcsr$/,
    code: /^c[45]/,
    when: (expected, found) => expected.vector === 19 && found.vector === 19,
  },
];

/** Opcode and what follows of the instruction at `rip`, without prefixes; empty outside the code. */
function opcodeAt(c: Case, rip: bigint): string {
  const at = Number(rip - c.state.rip);
  if (at < 0 || at >= c.code.length) return '';
  const hex = Buffer.from(c.code.subarray(at)).toString('hex');
  return hex.replace(c.mode === 64 ? /^(66|67|f[023]|[23][6e]|6[45])*(4.)?/ : /^(66|67|f[023]|[23][6e]|6[45])*/, '');
}

/** Patterns of the effects that need not agree in this case. */
export function excuses(c: Case, expected: Result, found: Result): RegExp[] {
  // Where nothing faulted, the first instruction stands for all.
  const code = opcodeAt(c, expected.vector === 3 ? c.state.rip : expected.state.rip);
  return list.filter((k) => k.code.test(code) && k.when(expected, found)).map((k) => k.effects);
}
