// What a processor has, by what it says of itself: CPUID (Intel SDM 2A, "CPUID—CPU Identification"; AMD APM 3, appendix E) and MSRs, read through
// a map of features.
import type { CpuData } from './cpu.ts';
import { type CpuMap, cpuidRegisters, type FeatureBits } from './map.ts';

type Registers = Readonly<Record<(typeof cpuidRegisters)[number], number>>;

/** A processor that can be asked. Registers are unsigned. */
export interface CpuSource {
  cpuid(leaf: number, subleaf?: number): Registers;
  /** Undefined where it cannot be read. */
  msr(index: number): bigint | undefined;
}

const EXTENDED = 0x8000_0000;
const STRUCTURED = 7;
const TSX = ['hle', 'rtm'];

const characters = (...words: readonly number[]): string =>
  words.map((word) => String.fromCharCode(...[0, 8, 16, 24].map((at) => (word >>> at) & 0xff))).join('');

/** Family, model and stepping of leaf 1. */
function signatureOf(eax: number): { family: number; model: number; stepping: number } {
  return {
    family: ((eax >>> 8) & 0xf) + ((eax >>> 20) & 0xff),
    model: ((eax >>> 4) & 0xf) | ((eax >>> 12) & 0xf0),
    stepping: eax & 0xf,
  };
}

/** Haswell's transactions, which do not work; a kernel that keeps them from programs does not keep them from CPUID. */
const brokenTransactions = (vendor: string | undefined, { family, model, stepping }: ReturnType<typeof signatureOf>): boolean =>
  vendor === 'Intel' && family === 6 && ([60, 69, 70].includes(model) || (model === 63 && stepping < 4));

/** Vendor, family, model and all features of the map that the processor has. */
export function identifyCpu(map: CpuMap, source: CpuSource): CpuData {
  const basic = source.cpuid(0);
  const limits = { basic: basic.eax, extended: source.cpuid(EXTENDED).eax };
  const vendor = map.vendorName(characters(basic.ebx, basic.edx, basic.ecx));
  const signature = signatureOf(source.cpuid(1).eax);
  // Beyond its last leaf a processor answers with something else.
  const answers = (leaf: number, subleaf: number): boolean =>
    leaf <= (leaf >= EXTENDED ? limits.extended : limits.basic) &&
    (leaf !== STRUCTURED || subleaf <= source.cpuid(STRUCTURED).eax);
  const known = new Map<string, Registers>();
  const leafOf = (leaf: number, subleaf: number): Registers => {
    const key = `${leaf} ${subleaf}`;
    const found = known.get(key) ?? source.cpuid(leaf, subleaf);
    known.set(key, found);
    return found;
  };
  const cpuidHas = (bits: FeatureBits): boolean => {
    if ('msr' in bits || !answers(bits.leaf, bits.subleaf)) return false;
    const found = leafOf(bits.leaf, bits.subleaf);
    return cpuidRegisters.every((name) => (found[name] & bits.masks[name]) >>> 0 === bits.masks[name]);
  };
  const features = new Set<string>();
  for (const { name, bits } of map.features.values()) if (bits.length > 0 && bits.every(cpuidHas)) features.add(name);
  // The MSRs of features are there when this one says so.
  if (features.has('arch-capabilities')) {
    const msrs = new Map<number, bigint>();
    for (const { name, bits } of map.features.values()) {
      const [one] = bits;
      if (one === undefined || !('msr' in one)) continue;
      const value = msrs.get(one.msr) ?? source.msr(one.msr) ?? 0n;
      msrs.set(one.msr, value);
      if ((value & one.mask) === one.mask) features.add(name);
    }
  }
  if (brokenTransactions(vendor, signature)) for (const name of TSX) features.delete(name);
  return { ...(vendor !== undefined && { vendor }), signature, features };
}
