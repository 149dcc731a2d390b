// What a CPU model lacks: bits of CR4 that must stay clear and instructions that are undefined (Intel SDM volume 3, section 2.5).

import { CR4 } from './control.ts';
import { type FeatureWord, featurePlace } from './cpu-model.ts';
import { Absent } from './state.ts';

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

/** `absent` and `cr4Absent` for a processor whose CPUID answers so; one without leaf 1 lacks nothing. */
export function lacking(cpuid: (leaf: number, subleaf: number) => readonly number[]): { absent: number; cr4: number } {
  if (cpuid(0, 0)[0] === 0) return { absent: 0, cr4: 0 };
  const [, , ecx1, edx1] = cpuid(1, 0);
  const [, ebx7, ecx7] = cpuid(7, 0);
  const edx81 = cpuid(0x80000001, 0)[3];
  const words: Partial<Record<FeatureWord, number>> = {
    '1.ecx': ecx1,
    '1.edx': edx1,
    '7.ebx': ebx7,
    '7.ecx': ecx7,
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
  return { absent, cr4 };
}
