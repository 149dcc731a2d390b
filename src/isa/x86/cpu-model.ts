// CPU models and feature names as users write them (`-cpu max,+pcid,-avx`; names and models as in QEMU), and where CPUID shows each
// feature (Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E).

import { type Hyperv, hypervOf } from './hyperv.ts';
/** Width of physical addresses of 64-bit models, unless the user says another one. */
export const PHYSICAL_BITS = 40;

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
  '7.ecx': '- avx512vbmi umip pku - waitpkg avx512vbmi2 - gfni vaes vpclmulqdq avx512vnni avx512bitalg - avx512-vpopcntdq - la57 - - - - - rdpid - bus-lock-detect cldemote - movdiri movdir64b - - pks',
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
    'la57 monitor fsgsbase tsc-adjust smep erms invpcid rdseed adx smap clflushopt clwb rdpid umip pku pks xsaveopt xsavec xgetbv1 xsaves ' +
    'avx avx2 fma f16c bmi1 bmi2 aes pclmulqdq sha-ni gfni vaes vpclmulqdq ' +
    'syscall nx mmxext pdpe1gb rdtscp lm lahf-lm abm 3dnowprefetch topoext invtsc'
  ).split(' '),
);

const PENTIUM_PRO = 'fpu de pse tsc msr pae mce cx8 apic sep pge cmov pat mmx fxsr sse sse2';
const QEMU64 = `${PENTIUM_PRO} mtrr mca pse36 clflush pni cx16 syscall nx lm lahf-lm hypervisor`;
const V1 = `${PENTIUM_PRO} mtrr mca pse36 clflush syscall nx lm hypervisor x2apic tsc-deadline arat`;
const V2 = `${V1} cx16 lahf-lm popcnt pni sse4.1 sse4.2 ssse3`;
const V3 = `${V2} avx avx2 bmi1 bmi2 f16c fma abm movbe xsave`;

/** Without tags in the TLB, PCID costs more flushes than it saves, and a fifth level costs every walk: and MWAIT wakes later than HLT: `max` leaves them to the user. */
const MAX = [...SUPPORTED].filter((name) => !/^(pcid|la57|monitor)$/.test(name)).join(' ');

/** Features that are nothing without the first one; after QEMU's `feature_dependencies`. */
const NEEDED: readonly (readonly [needed: string, by: readonly string[]])[] = [
  ['xsave', ['xsaveopt', 'xsavec', 'xgetbv1', 'xsaves', 'avx']],
  ['avx', ['avx2', 'fma', 'f16c', 'vaes', 'vpclmulqdq']],
];

interface Definition {
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
  readonly brand: string;
  readonly features: string;
  readonly vendor?: string;
}

const BRAND = 'QEMU Virtual CPU version 2.5+';
const INTEL = 'GenuineIntel';
/** What every 64-bit processor has. */
const BASE64 = `${PENTIUM_PRO} vme mtrr mca pse36 clflush syscall nx lm hypervisor`;

/** Intel's generations, each with what it adds to the one before. */
const intel: Readonly<Record<string, Definition>> = (() => {
  const found: Record<string, Definition> = {};
  let features = BASE64;
  for (const [name, model, stepping, brand, more] of [
    ['Conroe', 15, 3, 'Intel Celeron_4x0 (Conroe/Merom Class Core 2)', 'pni ssse3 lahf-lm'],
    ['Penryn', 23, 3, 'Intel Core 2 Duo P9xxx (Penryn Class Core 2)', 'cx16 sse4.1'],
    ['Nehalem', 26, 3, 'Intel Core i7 9xx (Nehalem Class Core i7)', 'sse4.2 popcnt'],
    ['Westmere', 44, 1, 'Westmere E56xx/L56xx/X56xx (Nehalem-C)', 'aes pclmulqdq arat'],
    ['SandyBridge', 42, 1, 'Intel Xeon E312xx (Sandy Bridge)', 'avx xsave xsaveopt tsc-deadline x2apic rdtscp'],
    ['IvyBridge', 58, 9, 'Intel Xeon E3-12xx v2 (Ivy Bridge)', 'f16c rdrand fsgsbase smep erms'],
    ['Haswell', 60, 4, 'Intel Core Processor (Haswell)', 'fma movbe avx2 bmi1 bmi2 pcid invpcid abm hle rtm'],
    ['Broadwell', 61, 2, 'Intel Core Processor (Broadwell)', 'rdseed adx smap 3dnowprefetch'],
    ['Skylake-Client', 94, 3, 'Intel Core Processor (Skylake)', 'xsavec xgetbv1'],
    ['Skylake-Server', 85, 4, 'Intel Xeon Processor (Skylake)', 'clwb pdpe1gb avx512f avx512dq avx512cd avx512bw avx512vl'],
    ['Cascadelake-Server', 85, 6, 'Intel Xeon Processor (Cascadelake)', 'clflushopt pku avx512vnni'],
    ['Icelake-Server', 106, 0, 'Intel Xeon Processor (Icelake)', 'umip la57 gfni vaes vpclmulqdq sha-ni rdpid xsaves fsrm avx512ifma avx512vbmi avx512vbmi2 avx512bitalg avx512-vpopcntdq'],
  ] as const) {
    features += ` ${more}`;
    found[name] = { family: 6, model, stepping, brand, features, vendor: INTEL };
  } // biome-ignore format: a table
  return found;
})();
const K8 = `${BASE64} pni`;
const EPYC = `${BASE64} pni cx16 lahf-lm sse4.1 sse4.2 ssse3 popcnt movbe aes pclmulqdq avx avx2 fma f16c bmi1 bmi2 abm adx rdseed rdrand smap smep fsgsbase sha-ni xsave xsaveopt xsavec xgetbv1 clflushopt arat 3dnowprefetch mmxext pdpe1gb rdtscp topoext`;
/** AMD's: families as they read. */
const amd: Readonly<Record<string, Definition>> = {
  Opteron_G1: { family: 15, model: 6, stepping: 1, brand: 'AMD Opteron 240 (Gen 1 Class Opteron)', features: K8 },
  Opteron_G2: { family: 15, model: 6, stepping: 1, brand: 'AMD Opteron 22xx (Gen 2 Class Opteron)', features: `${K8} cx16 lahf-lm` },
  Opteron_G3: { family: 16, model: 2, stepping: 3, brand: 'AMD Opteron 23xx (Gen 3 Class Opteron)', features: `${K8} cx16 lahf-lm popcnt abm rdtscp` },
  EPYC: { family: 23, model: 1, stepping: 2, brand: 'AMD EPYC Processor', features: EPYC },
  'EPYC-Rome': { family: 23, model: 49, stepping: 0, brand: 'AMD EPYC-Rome Processor', features: `${EPYC} clwb rdpid umip xsaves` },
  'EPYC-Milan': { family: 25, model: 1, stepping: 1, brand: 'AMD EPYC-Milan Processor', features: `${EPYC} clwb rdpid umip xsaves pcid invpcid erms fsrm pku vaes vpclmulqdq` },
}; // biome-ignore format: a table

const models: Readonly<Record<string, Definition>> = {
  qemu32: { family: 6, model: 6, stepping: 3, brand: BRAND, features: `${PENTIUM_PRO} pni hypervisor` },
  qemu64: { family: 15, model: 107, stepping: 1, brand: BRAND, features: QEMU64 },
  kvm32: { family: 15, model: 6, stepping: 1, brand: 'Common 32-bit KVM processor', features: `${PENTIUM_PRO} vme mtrr mca pse36 clflush pni hypervisor`, vendor: INTEL },
  kvm64: { family: 15, model: 6, stepping: 1, brand: 'Common KVM processor', features: `${BASE64} pni cx16`, vendor: INTEL },
  core2duo: { family: 6, model: 15, stepping: 11, brand: 'Intel(R) Core(TM)2 Duo CPU     T7700  @ 2.40GHz', features: `${BASE64} pni ssse3 cx16 lahf-lm`, vendor: INTEL },
  ...intel,
  ...amd,
  'x86-64-v1': { family: 15, model: 107, stepping: 1, brand: BRAND, features: V1 },
  'x86-64-v2': { family: 15, model: 107, stepping: 1, brand: BRAND, features: V2 },
  'x86-64-v3': { family: 15, model: 107, stepping: 1, brand: BRAND, features: V3 },
  base: { family: 0, model: 0, stepping: 0, brand: '', features: 'hypervisor' },
  max: { family: 15, model: 107, stepping: 1, brand: 'Nonroot virtual CPU', features: MAX },
  host: { family: 15, model: 107, stepping: 1, brand: 'Nonroot virtual CPU', features: MAX },
}; // biome-ignore format: a table

/** Models that have performance counters, and the width of the host's addresses, without being asked for them. */
const AS_HOST: ReadonlySet<string> = new Set(['max', 'host']);

/** Names of the models, for `-cpu help`. */
export const cpuModels: readonly string[] = Object.keys(models);
/** Where CPUID shows a feature. Throws for a name that is none. */
export function featurePlace(name: string): { readonly word: FeatureWord; readonly bit: number } {
  const place = places.get(name);
  if (!place) throw new Error(`Cannot find CPU feature ${name}`);
  return place;
}

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
  /** Width of physical addresses, as CPUID tells it: 40, of 32-bit processors 36 or 32, or what the user says. */
  readonly physicalBits: number;
  /** The user says how wide physical addresses are. */
  readonly ownWidth?: boolean;
  /** Where a host runs the guest itself, its width is taken (`physicalBitsOn`), and this one at most, where it is not 0. */
  readonly hostPhysicalBits: boolean;
  readonly hostPhysicalBitsLimit?: number;
  /** Whether there are performance counters. */
  readonly pmu: boolean;
  /** Most leaves that CPUID tells of, basic and extended; undefined for all that it has. */
  readonly level?: number;
  readonly xlevel?: number;
  /** CPUID has no leaf 0xB. */
  readonly withoutTopology?: boolean;
  /** The hypervisor's leaves name the translator, where there is no paravirtual interface. */
  readonly withoutName?: boolean;
  /** Hyper-V's interface, beside KVM's or without it. */
  readonly hyperv?: Hyperv;
  /** vCPUs have processors to themselves, the guest is told (KVM_HINTS_REALTIME). */
  readonly dedicated?: boolean;
  /** Features that the model or the user asks for and that are not implemented: they are not in `features`. */
  readonly missing: readonly string[];
}

/** Last leaves of CPUID. */
export const LAST_BASIC = 0x1f;
export const LAST_EXTENDED = 0x8000001e;

/** Versions and variants that QEMU has of a model: `-v2`, `-noTSX`, `-IBRS`. They share a definition here. */
const VARIANT = /(-(v\d+|noTSX|IBRS|IBPB))+$/;

/** A property with a value, as `vendor=GenuineIntel`: what it makes of the model. Throws for values that are not accepted. */
function property(key: string, value: string): Partial<CpuModel> {
  const number = (most: number): number => {
    const n = Number(value);
    if (value === '' || !Number.isInteger(n) || n < 0 || n > most)
      throw new Error(`Cannot set CPU property ${key}=${value}: accepted are 0 to ${most}`);
    return n;
  };
  switch (key) {
    case 'vendor':
      if (value.length !== 12) throw new Error(`Cannot set CPU property vendor=${value}: accepted are 12 characters`);
      return { vendor: value };
    case 'family':
      return { family: number(0x10e) };
    case 'model':
      return { model: number(255) };
    case 'stepping':
      return { stepping: number(15) };
    case 'model-id':
      return { brand: value.slice(0, 47) };
    // QEMU raises the first to the second where a feature needs more; here all leaves are there.
    case 'level':
      return { level: number(LAST_BASIC) };
    case 'xlevel':
      return { xlevel: number(LAST_EXTENDED) };
    case 'min-level':
    case 'min-xlevel':
      number(0xffff_ffff);
      return {};
    case 'phys-bits':
      if (value === '0') return {};
      if (!(Number(value) >= 32 && Number(value) <= 52 && /^\d+$/.test(value)))
        throw new Error(`Cannot set CPU property phys-bits=${value}: accepted are 32 to 52, and 0 for the model's`);
      return { physicalBits: Number(value), ownWidth: true };
    case 'host-phys-bits-limit':
      return { hostPhysicalBitsLimit: number(52) };
    default:
      if (key in SWITCHES || WITHOUT_EFFECT.test(`+${key}`))
        throw new Error(`Cannot set CPU property ${key}=${value}: accepted are on and off`);
      throw new Error(
        `Cannot set CPU property ${key}: accepted are vendor, family, model, stepping, model-id, level, xlevel, phys-bits, host-phys-bits-limit and tsc-frequency`,
      );
  }
}
/** Properties that change nothing here. */
const WITHOUT_EFFECT = /^[+-](migratable|host-cache-info|l3-cache|legacy-cache|full-cpuid-auto-level|fill-mtrr-mask)$/;
/** Switches of what is told, with what each makes of the model. */
const SWITCHES: Readonly<Record<string, (on: boolean) => Partial<CpuModel>>> = {
  pmu: (on) => ({ pmu: on }),
  'host-phys-bits': (on) => ({ hostPhysicalBits: on }),
  'cpuid-0xb': (on) => ({ withoutTopology: !on }),
  'tcg-cpuid': (on) => ({ withoutName: !on }),
  'kvm-hint-dedicated': (on) => ({ dedicated: on }),
};

/**
 * A model by name, with changes such as `+pcid`, `-sse4.2` (underscores count as hyphens) and `vendor=GenuineIntel`. Throws for names that are
 * not known; what is known and not implemented is listed in `missing`.
 */
export function cpuModel(name: string, changes: readonly string[] = []): CpuModel {
  const plain = name.replace(VARIANT, '');
  const definition = models[name] ?? models[plain];
  if (!definition) throw new Error(`Cannot use CPU model ${name}: accepted are ${cpuModels.join(', ')}`);
  const wanted = new Set(definition.features.split(' '));
  if (name.includes('-noTSX')) for (const f of ['hle', 'rtm']) wanted.delete(f);
  let set: Partial<CpuModel> = {};
  const { hyperv, missing: absent, rest } = hypervOf(changes);
  for (const change of rest) {
    const [key, value] = change.split('=') as [string, string | undefined];
    if (value !== undefined) {
      set = { ...set, ...property(key.replaceAll('_', '-'), value) };
      continue;
    }
    if (WITHOUT_EFFECT.test(change.replaceAll('_', '-'))) continue;
    const sign = change[0];
    const given = change.slice(1);
    const hyphens = given.replaceAll('_', '-');
    if (SWITCHES[hyphens] && (sign === '+' || sign === '-')) {
      set = { ...set, ...SWITCHES[hyphens](sign === '+') };
      continue;
    }
    const feature = synonyms[given] ?? synonyms[hyphens] ?? hyphens;
    if ((sign !== '+' && sign !== '-') || !places.has(feature)) {
      throw new Error(`Cannot change CPU feature "${change}": accepted are + or - and one of ${cpuFeatures.join(' ')}`);
    }
    if (sign === '+') wanted.add(feature);
    else wanted.delete(feature);
  }
  const { family, model, stepping, brand } = definition;
  const features = new Set([...wanted].filter((f) => SUPPORTED.has(f)));
  for (const [needed, by] of NEEDED) if (!features.has(needed)) for (const name of by) features.delete(name);
  const long = features.has('lm');
  if (!long && set.physicalBits !== undefined)
    throw new Error(`Cannot set CPU property phys-bits=${set.physicalBits}: accepted with 64-bit models only`);
  const missing = [...[...wanted].filter((f) => !SUPPORTED.has(f)), ...absent];
  return {
    name,
    vendor: definition.vendor ?? 'AuthenticAMD',
    family,
    model,
    stepping,
    brand,
    features,
    physicalBits: long ? PHYSICAL_BITS : features.has('pae') || features.has('pse36') ? 36 : 32,
    hostPhysicalBits: AS_HOST.has(name),
    pmu: AS_HOST.has(name),
    missing,
    ...(hyperv ? { hyperv } : {}),
    ...set,
  };
}

/**
 * The width of a model's physical addresses where a host that has `host` bits runs it itself (undefined: a translator runs it). As with QEMU the host's goes before one
 * that the user says, which `host-phys-bits=off` lets count with `max` and `host`.
 */
export function physicalBitsOn(model: CpuModel, host: number | undefined): number {
  if (host === undefined || !model.hostPhysicalBits || !model.features.has('lm')) return model.physicalBits;
  return Math.min(host, model.hostPhysicalBitsLimit || host);
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
