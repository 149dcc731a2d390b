// What a CPU model lacks: bits of CR4 that must stay clear and instructions that are undefined (Intel SDM volume 3, section 2.5).

import { CR4 } from './control.ts';
import { type FeatureWord, featurePlace, PHYSICAL_BITS } from './cpu-model.ts';
import { Absent } from './state.ts';
import { type RowInfo, restrictTables, type Tables } from './table.ts';

/** Bits of CR4 by the feature that allows them. */
const control: readonly (readonly [bits: number, feature: string])[] = [
  [CR4.vme | CR4.pvi, 'vme'],
  [CR4.tsd, 'tsc'],
  [CR4.de, 'de'],
  [CR4.pse, 'pse'],
  [CR4.pae, 'pae'],
  [CR4.mce, 'mce'],
  [CR4.pge, 'pge'],
  [CR4.osfxsr, 'fxsr'],
  [CR4.osxmmexcpt, 'sse'],
  [CR4.umip, 'umip'],
  [CR4.la57, 'la57'],
  [CR4.fsgsbase, 'fsgsbase'],
  [CR4.pcide, 'pcid'],
  [CR4.osxsave, 'xsave'],
  [CR4.smep, 'smep'],
  [CR4.smap, 'smap'],
  [CR4.pke, 'pku'],
  [CR4.pks, 'pks'],
];

/** Mnemonics that a feature brings, but for MMX, SSE and SSE2 (`early`). VEX forms need `avx` besides; LZCNT and TZCNT are BSR and BSF without theirs. */
const instructions: readonly (readonly [feature: string, mnemonics: RegExp])[] = [
  ['cx8', /^cmpxchg8b$/],
  ['cmov', /^f?cmov|^fu?comip?$/],
  ['sep', /^sys(enter|exit)/],
  ['clflush', /^clflush$/],
  ['fxsr', /^fx(save|rstor)/],
  ['sse', /^sfence$/],
  ['sse2', /^([lm]fence|movnti)$/],
  ['cx16', /^cmpxchg16b$/],
  ['pni', /^(addsubp|haddp|hsubp|movshdup|movsldup|movddup|lddqu|fisttp)/],
  ['ssse3', /^(pshufb|phadd|phsub|pmaddubsw|psign|pmulhrsw|pabs|palignr)/],
  ['sse4.1', /^(blendv?p|pblend|dpp|extractps|insertps|mpsadbw|packusdw|pmaxs[bd]|pmaxu[wd]|pmins[bd]|pminu[wd]|pmov[sz]x|pmuldq|pmulld|ptest|round[ps]|phminposuw|pextr[bdq]|pinsr[bdq]|pcmpeqq|movntdqa)/],
  ['sse4.2', /^(pcmp[ei]str|pcmpgtq|crc32)/],
  ['popcnt', /^popcnt/],
  ['movbe', /^movbe/],
  ['aes', /^v?aes/],
  ['pclmulqdq', /^v?pclmulqdq/],
  ['sha-ni', /^sha(1|256)/],
  ['gfni', /^v?gf2p8/],
  ['rdrand', /^rdrand/],
  ['rdseed', /^rdseed/],
  ['adx', /^ad[co]x/],
  ['abm', /^lzcnt/],
  ['bmi1', /^(andn|bextr|blsi|blsmsk|blsr|tzcnt)$/],
  ['bmi2', /^(bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx)$/],
  ['fma', /^vfn?m(add|sub)/],
  ['f16c', /^vcvt(ph2ps|ps2ph)/],
  ['avx2', /^v(pbroadcast|broadcasti|inserti|extracti|perm2i|perm[dq]|permp[sd]|pblendd|ps[lr][la]v|p?gather|pmaskmov)/],
  ['avx', /^v/],
  ['xsave', /^(xsave|xrstor|xgetbv|xsetbv)/],
  ['xsaveopt', /^xsaveopt/],
  ['xsavec', /^xsavec/],
  ['xsaves', /^(xsaves|xrstors)/],
  ['clflushopt', /^clflushopt/],
  ['clwb', /^clwb/],
]; // biome-ignore format: a table
/** Mnemonics in V that are no AVX. */
const NOT_AVX = /^(verr|verw|vmcall|vmmcall)$/;

/** What SSE brings on its own registers (single precision), and on those of MMX, as AMD's extension of MMX does. */
const SSE =
  /^(mov(a|u|l|h|hl|lh|nt|msk)ps|movss|(add|sub|mul|div|min|max|r?sqrt|rcp|cmp)[ps]s|(andn?|x?or|shuf|unpck[lh])ps|u?comiss|cvt(pi2ps|t?ps2pi|si2ss|t?ss2si)|(ld|st)mxcsr)$/;
const SSE_MMX = /^(pavg[bw]|p(ext|ins)rw|pm(ax|in)(sw|ub)|pmovmskb|pmulhuw|psadbw|pshufw|maskmovq|movntq)$/;
/** What SSE2 brings on the registers of MMX. */
const SSE2_MMX = /^(paddq|psubq|pmuludq)$/;
/** Of MMX, SSE and SSE2: whether these features have a row that no later one brings. Their mnemonics are often the same. */
function early({ fp, mnemonic }: RowInfo, has: (feature: string) => boolean): boolean {
  if (fp === 'sse') return has(SSE.test(mnemonic) ? 'sse' : 'sse2');
  if (fp !== 'mmx' || !has('mmx')) return fp !== 'mmx';
  if (SSE_MMX.test(mnemonic)) return has('sse') || has('mmxext');
  return !SSE2_MMX.test(mnemonic) || has('sse2');
}

/** AVX has these of 128 bits alone, and the 256-bit forms are the feature's. */
const wide: readonly (readonly [feature: string, mnemonics: RegExp])[] = [
  ['vaes', /^vaes/],
  ['vpclmulqdq', /^vpclmulqdq/],
  ['avx2', /^v(p(?!clmul|test|ermilp)|mpsadbw|movntdqa)/],
];
/** AVX broadcasts from memory alone. */
const BROADCAST = /^vbroadcasts[sd]$/;

/** What a processor with some features has of a row: all of it, some of its encodings, or nothing (null). */
function partOf(row: RowInfo, has: (feature: string) => boolean): RowInfo | null {
  const { mnemonic } = row;
  if (NOT_AVX.test(mnemonic)) return row;
  const brought = instructions.filter(([, mnemonics]) => mnemonics.test(mnemonic));
  // PEXTRW to memory, with an opcode of three bytes.
  const later = mnemonic === 'pextrw' && row.map === 3 ? ['sse4.1'] : brought.map(([feature]) => feature);
  if (later.length > 0 ? !later.every(has) || (row.fp === 'mmx' && !has('mmx')) : !early(row, has)) return null;
  if (/^[ls]ahf$/.test(mnemonic)) return has('lahf-lm') ? row : { ...row, mode: 'legacy' };
  if (row.wide < 0 && wide.some(([feature, mnemonics]) => mnemonics.test(mnemonic) && !has(feature))) return { ...row, wide: 0 };
  return BROADCAST.test(mnemonic) && !has('avx2') ? { ...row, form: 'mem' } : row;
}

/** The features that rows ask for. */
const asked = new Set([...instructions.map(([f]) => f), ...wide.map(([f]) => f), 'mmx', 'lahf-lm']);

/** The tables of a processor with these features only: instructions of others are undefined. */
export function tablesFor(tables: Tables, features: ReadonlySet<string>): Tables {
  const has = (feature: string): boolean => features.has(feature);
  return [...asked].every(has) ? tables : restrictTables(tables, (row) => partOf(row, has));
}

/** `absent`, `cr4Absent` and the width of physical addresses for a processor whose CPUID answers so; one without leaf 1 lacks nothing. */
export function lacking(cpuid: (leaf: number, subleaf: number) => readonly number[]): {
  absent: number;
  cr4: number;
  physicalBits: number;
} {
  const physicalBits = cpuid(0x80000008, 0)[0]! & 0xff || PHYSICAL_BITS;
  if (cpuid(0, 0)[0] === 0) return { absent: 0, cr4: 0, physicalBits };
  const [, , ecx1, edx1] = cpuid(1, 0);
  const [, ebx7, ecx7] = cpuid(7, 0);
  const edx81 = cpuid(0x80000001, 0)[3];
  const words: Partial<Record<FeatureWord, number>> = {
    '1.ecx': ecx1,
    '1.edx': edx1,
    '7.ebx': ebx7,
    '7.ecx': ecx7,
    'd1.eax': cpuid(0xd, 1)[0],
    '80000001.edx': edx81,
  };
  const has = (feature: string): boolean => {
    const { word, bit } = featurePlace(feature);
    return (((words[word] ?? 0) >>> bit) & 1) === 1;
  };
  let absent = 0;
  for (const [name, bit] of Object.entries(Absent)) if (!has(name)) absent |= bit;
  let cr4 = 0;
  for (const [bits, feature] of control) if (!has(feature)) cr4 |= bits;
  return { absent, cr4, physicalBits };
}
