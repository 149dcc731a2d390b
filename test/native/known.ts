// Differences from the host that the architecture leaves open: what a processor does with state and addresses when an instruction
// faults in its middle. Each entry names the effects that are not compared, and why.

import type { Case, Result } from './case.ts';
import { hostIsAmd } from './native.ts';

interface Known {
  /** AMD's processors differ so from Intel's, which the emulator follows; only there it is excused. */
  readonly amd?: true;
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
/** Vectors that agree in each 32 bits, or have a NaN there both, of either precision. */
const alikeButNaNs = (a: bigint, b: bigint): boolean =>
  [0n, 32n, 64n, 96n].every((at) => {
    const [x, y] = [(a >> at) & 0xffffffffn, (b >> at) & 0xffffffffn];
    const isNaN32 = (v: bigint): boolean => (v & 0x7fffffffn) > 0x7f800000n;
    const isNaN64 = (v: bigint): boolean => ((v >> (at & 64n)) & 0x7fffffffffffffffn) > 0x7ff0000000000000n;
    return x === y || (isNaN32(x) && isNaN32(y)) || (isNaN64(a) && isNaN64(b));
  });
const C1_PE_UE = 0x230;

const faulted = (expected: Result, found: Result): boolean => expected.vector !== 3 && found.vector === expected.vector;

const all: readonly Known[] = [
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
    when: (expected, found) => expected.vector !== 3 && found.vector !== 3,
  },
  {
    why: 'transcendental functions may be off by one in the last place, and so round the other way or underflow (SDM volume 1, section 8.3.10)',
    effects: /^(st\d|fsw)$/,
    code: /^d9(f[01239]|fb|fe|ff)/,
    when: (expected, found) =>
      expected.vector === 3 &&
      ((expected.state.fp.fsw ^ found.state.fp.fsw) & ~C1_PE_UE) === 0 &&
      expected.state.fp.all('st').every((value, i) => near(value, found.state.fp.get('st', i))),
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
      [
        [expected, found],
        [found, expected],
      ].some(([a, b]) => (a!.vector === 12 || a!.vector === 13) && b!.vector === 14 && b!.address >> 4n === 0xfffffffn),
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
  {
    amd: true,
    why: 'a gather that faults has changed its mask here, and as yet has not there',
    effects: /^[xy]mm\d+$/,
    code: /^c4....9[0-3]/,
    when: faulted,
  },
  {
    amd: true,
    why: 'PREFETCH and PREFETCHW of a register are undefined there (APM volume 3), and reserved NOPs here',
    effects: /./,
    code: /^0f0d[c-f]/,
    when: (expected) => expected.vector === 6,
  },
  {
    amd: true,
    why: 'operands of the SHA extensions may be misaligned there (APM volume 4, table of exceptions), and not here',
    effects: /./,
    code: /^0f38c[89a-d]|^0f3acc/,
    when: (_, found) => found.vector === 13,
  },
  {
    amd: true,
    why: 'VEX.W outside 64-bit code: undefined in VPEXTRD and VPINSRD there, ignored here',
    effects: /./,
    code: /^c4..[89a-f].(16|22)/,
    when: (expected) => expected.vector === 6,
  },
  {
    amd: true,
    why: 'a store of converted numbers that faults has set flags in MXCSR here, and not there',
    effects: /^(mxcsr|vector|address|error)$/,
    code: /^c4....1d/,
    when: (expected, found) => expected.vector >= 12 && expected.vector <= 14 && found.vector >= 12,
  },
  {
    amd: true,
    why: 'a masked load whose first bytes lie within the segment checks no more of it there, and all that the mask names here',
    effects: /./,
    code: /^c4....(2[cd]|8c)/,
    when: (expected, found) => (expected.vector === 3 || expected.vector === 14) && (found.vector === 12 || found.vector === 13),
  },
  {
    amd: true,
    why: 'a masked operand that the mask names beyond the end of its segment faults on family 26, where lanes wrap at 64 KiB on families before and here',
    effects: /./,
    code: /^c4....(2[c-f]|8[ce])/,
    when: (expected, found) =>
      (expected.vector === 12 || expected.vector === 13) &&
      (found.vector === 3 || found.vector === 14 || found.state.rip !== expected.state.rip),
  },
  {
    amd: true,
    why: 'lanes of a masked operand wrap at 64 KiB where addresses have 16 bits there, and lie one after another here',
    effects: /^address$/,
    code: /^c4....(2[c-f]|8[ce])/,
    when: (expected, found) => faulted(expected, found) && (expected.address ^ found.address) === 0x10000n,
  },
  {
    amd: true,
    why: 'bit 17 of MXCSR is that of misaligned SSE operands there (APM volume 2, section 11.1.1, MISALIGNSSE), and reserved here',
    effects: /./,
    code: /^0fae|^c5..ae|^c4....ae/,
    when: (expected, found) => expected.vector === 3 && found.vector === 13 && (expected.state.fp.mxcsr & 0x2_0000) !== 0,
  },
  {
    amd: true,
    why: 'an x87 store that an unmasked exception suppresses checks its operand there, and not here',
    effects: /./,
    code: /^d[9bdf]/,
    when: (expected, found) => expected.vector >= 12 && expected.vector <= 14 && (found.state.fp.fsw & 0x80) !== 0,
  },
  {
    amd: true,
    why: 'MOVNTSS and MOVNTSD, of SSE4A, are undefined here',
    effects: /./,
    code: /^0f2b/,
    when: (_, found) => found.vector === 6,
  },
  {
    why: 'an INTO or INT1 that a leap into the middle of an instruction found: they enter the kernel of the host, and not that of the machine here',
    effects: /./,
    code: /^(ce|f1)/,
    when: (expected) => expected.vector === 4 || expected.vector === 1,
  },
  {
    amd: true,
    why: 'which of two operands of a comparison of strings is read first',
    effects: /^(vector|address|error)$/,
    code: /^a[67]/,
    when: (expected, found) => expected.vector !== 3 && found.vector !== 3 && found.state.rip === expected.state.rip,
  },
  {
    amd: true,
    why: 'which of two NaNs a dot product ends with depends on the order of its sums',
    effects: /^[xy]mm\d+$/,
    code: /^0f3a4[01]|^c4....4[01]/,
    when: (expected, found) =>
      expected.vector === 3 &&
      (['xmm', 'ymm'] as const).every((k) => expected.state.fp.all(k).every((v, i) => alikeButNaNs(v, found.state.fp.get(k, i)))),
  },
  {
    amd: true,
    why: "AMD's MXCSR has bit 17, misaligned accesses (APM volume 1, section 4.2.2), which is reserved elsewhere: loading it faults",
    effects: /./,
    code: /./,
    when: (expected, found) => (expected.state.fp.mxcsr & 0x20000) !== 0 && found.vector === 13,
  },
  {
    amd: true,
    why: 'a misaligned operand on a page that is not there: which of the two faults comes first',
    effects: /^(vector|address|error)$/,
    code: /./,
    when: (expected, found) => expected.vector === 14 && found.vector === 13 && found.state.rip === expected.state.rip,
  },
];
const list = all.filter((k) => !k.amd || hostIsAmd);

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
  const at = (r: Result): string => opcodeAt(c, r.vector === 3 ? c.state.rip : r.state.rip);
  const codes = [
    at(expected),
    ...(expected.state.rip === found.state.rip && expected.vector === found.vector ? [] : [at(found)]),
  ];
  return list.filter((k) => codes.some((code) => k.code.test(code)) && k.when(expected, found)).map((k) => k.effects);
}
