// CPU models and feature names as users write them (`-cpu max,+pcid,-avx`; names and models as in QEMU), and where CPUID shows each
// feature (Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E).

/** The CPUID words that hold feature bits. */
export type FeatureWord =
  | '1.ecx'
  | '1.edx'
  | '6.eax'
  | '7.ebx'
  | '7.ecx'
  | '7.edx'
  | 'd1.eax'
  | '80000001.ecx'
  | '80000001.edx'
  | '80000007.edx'
  | '80000008.ebx';

// Names by bit from 0; `-` for a bit that has none here.
const words: Readonly<Record<FeatureWord, string>> = {
  '1.edx': 'fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - ds acpi mmx fxsr sse sse2 ss ht tm ia64 pbe',
  '1.ecx': 'pni pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid - fma cx16 xtpr pdcm - pcid dca sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave - avx f16c rdrand hypervisor',
  '6.eax': '- - arat',
  '7.ebx': 'fsgsbase tsc-adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm - - mpx - avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel-pt avx512pf avx512er avx512cd sha-ni avx512bw avx512vl',
  '7.ecx': '- avx512vbmi umip pku - waitpkg avx512vbmi2 - gfni vaes vpclmulqdq avx512vnni avx512bitalg - avx512-vpopcntdq - la57 - - - - - rdpid - bus-lock-detect cldemote - movdiri movdir64b',
  '7.edx': '- - - - fsrm - - - - - md-clear - - - serialize - - - - - - - amx-bf16 - amx-tile amx-int8 spec-ctrl stibp - arch-capabilities core-capability ssbd',
  'd1.eax': 'xsaveopt xsavec xgetbv1 xsaves',
  '80000001.ecx': 'lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce - nodeid-msr - tbm topoext perfctr-core perfctr-nb',
  '80000001.edx': '- - - - - - - - - - - syscall - - - - - - - - nx - mmxext - - fxsr-opt pdpe1gb rdtscp - lm 3dnowext 3dnow',
  '80000007.edx': '- - - - - - - - invtsc',
  '80000008.ebx': 'clzero - xsaveerptr - - - - - - wbnoinvd - - ibpb',
}; // biome-ignore format: one word each

const places = new Map<string, { word: FeatureWord; bit: number }>();
for (const [word, names] of Object.entries(words)) {
  names.split(' ').forEach((name, bit) => {
    if (name !== '-') places.set(name, { word: word as FeatureWord, bit });
  });
}

const synonyms: Readonly<Record<string, string>> = {
  sse3: 'pni', 'sse4-1': 'sse4.1', 'sse4-2': 'sse4.2', sse4_1: 'sse4.1', sse4_2: 'sse4.2', lzcnt: 'abm', i64: 'lm', xd: 'nx', ffxsr: 'fxsr-opt', cx16b: 'cx16',
}; // biome-ignore format: pairs

/** What the instruction rows and the system architecture here implement. A test holds the instructions among them against the rows. */
const SUPPORTED = new Set(
  (
    'fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ' +
    'pni ssse3 cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline xsave rdrand hypervisor arat ' +
    'fsgsbase tsc-adjust smep erms invpcid rdseed adx smap clflushopt clwb rdpid xsaveopt xsavec xgetbv1 xsaves ' +
    'avx avx2 fma f16c bmi1 bmi2 aes pclmulqdq sha-ni gfni vaes vpclmulqdq ' +
    'syscall nx mmxext pdpe1gb rdtscp lm lahf-lm abm 3dnowprefetch topoext invtsc'
  ).split(' '),
);

const PENTIUM_PRO = 'fpu de pse tsc msr pae mce cx8 apic sep pge cmov pat mmx fxsr sse sse2';
const QEMU64 = `${PENTIUM_PRO} mtrr mca pse36 clflush pni cx16 syscall nx lm lahf-lm hypervisor`;
const V1 = `${PENTIUM_PRO} mtrr mca pse36 clflush syscall nx lm hypervisor x2apic tsc-deadline arat`;
const V2 = `${V1} cx16 lahf-lm popcnt pni sse4.1 sse4.2 ssse3`;
const V3 = `${V2} avx avx2 bmi1 bmi2 f16c fma abm movbe xsave`;

/** Without tags in the TLB, PCID costs more flushes than it saves: `max` leaves it to `+pcid`. */
const MAX = [...SUPPORTED].filter((name) => name !== 'pcid').join(' ');

interface Definition {
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
  readonly brand: string;
  readonly features: string;
}

const BRAND = 'QEMU Virtual CPU version 2.5+';
const models: Readonly<Record<string, Definition>> = {
  qemu32: { family: 6, model: 6, stepping: 3, brand: BRAND, features: `${PENTIUM_PRO} pni hypervisor` },
  qemu64: { family: 15, model: 107, stepping: 1, brand: BRAND, features: QEMU64 },
  'x86-64-v1': { family: 15, model: 107, stepping: 1, brand: BRAND, features: V1 },
  'x86-64-v2': { family: 15, model: 107, stepping: 1, brand: BRAND, features: V2 },
  'x86-64-v3': { family: 15, model: 107, stepping: 1, brand: BRAND, features: V3 },
  max: { family: 15, model: 107, stepping: 1, brand: 'Nonroot virtual CPU', features: MAX },
};

/** Names of the models, for `-cpu help`. */
export const cpuModels: readonly string[] = Object.keys(models);
/** Names of all features, for `-cpu help`. */
export const cpuFeatures: readonly string[] = [...places.keys()];

/** A model with features added and removed. */
export interface CpuModel {
  readonly name: string;
  readonly vendor: string;
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
  /** Shown as the processor's name, at most 47 characters. */
  readonly brand: string;
  readonly features: ReadonlySet<string>;
  /** Features that the model or the user asks for and that are not implemented: they are not in `features`. */
  readonly missing: readonly string[];
}

/**
 * A model by name, with changes such as `+pcid` and `-sse4.2` (underscores count as hyphens). Throws for names that are not known;
 * what is known and not implemented is listed in `missing`.
 */
export function cpuModel(name: string, changes: readonly string[] = []): CpuModel {
  const definition = models[name];
  if (!definition) throw new Error(`Cannot use CPU model ${name}: accepted are ${cpuModels.join(', ')}`);
  const wanted = new Set(definition.features.split(' '));
  for (const change of changes) {
    const sign = change[0];
    const given = change.slice(1);
    const hyphens = given.replaceAll('_', '-');
    const feature = synonyms[given] ?? synonyms[hyphens] ?? hyphens;
    if ((sign !== '+' && sign !== '-') || !places.has(feature)) {
      throw new Error(`Cannot change CPU feature "${change}": accepted are + or - and one of ${cpuFeatures.join(' ')}`);
    }
    if (sign === '+') wanted.add(feature);
    else wanted.delete(feature);
  }
  const { family, model, stepping, brand } = definition;
  const features = new Set([...wanted].filter((f) => SUPPORTED.has(f)));
  const missing = [...wanted].filter((f) => !SUPPORTED.has(f));
  return { name, vendor: 'AuthenticAMD', family, model, stepping, brand, features, missing };
}

/** The bits of one CPUID word that a set of features gives, unsigned. */
export function featureBits(features: ReadonlySet<string>, word: FeatureWord): number {
  let bits = 0;
  for (const name of features) {
    const place = places.get(name);
    if (place?.word === word) bits |= 1 << place.bit;
  }
  return bits >>> 0;
}
