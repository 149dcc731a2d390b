// What x86 CPU models and features are called, and which features a model has: libvirt's map (its files under cpu_map, which come with the
// client library), or what an emulator says of its models when that is not on the host.
import { elementsOf, type XmlElement } from '../xml.ts';

export const cpuidRegisters = ['eax', 'ebx', 'ecx', 'edx'] as const;

/** Where a processor says that it has a feature: all these bits are set in what a leaf of CPUID answers, or in an MSR. */
export type FeatureBits =
  | {
      readonly leaf: number;
      readonly subleaf: number;
      readonly masks: Readonly<Record<(typeof cpuidRegisters)[number], number>>;
    }
  | { readonly msr: number; readonly mask: bigint };

export interface CpuFeature {
  readonly name: string;
  /** None when only the name is known. */
  readonly bits: readonly FeatureBits[];
  /** Other spellings: QEMU's and Linux's. */
  readonly aliases: readonly string[];
  /** A guest that has it can be moved to another host. */
  readonly migratable: boolean;
}

export interface CpuSignature {
  readonly family: number;
  readonly model: number;
  /** Left out, all of them; a model may be of some steppings only. */
  readonly steppings?: readonly [number, number];
}

export interface CpuModel {
  readonly name: string;
  readonly vendor?: string;
  readonly signatures: readonly CpuSignature[];
  readonly features: ReadonlySet<string>;
  /** Features of older definitions of the model: guests say of each whether they have it. */
  readonly removed: readonly string[];
  /** May describe a host's CPU, a guest's. */
  readonly host: boolean;
  readonly guest: boolean;
}

export interface CpuMap {
  /** By name, in the order in which features are listed. */
  readonly features: ReadonlyMap<string, CpuFeature>;
  /** By name, older models first. */
  readonly models: ReadonlyMap<string, CpuModel>;
  /** From names (`AMD`) to what CPUID says (`AuthenticAMD`). */
  readonly vendors: ReadonlyMap<string, string>;
  /** The map's name of a feature in anybody's spelling; undefined when it has none. */
  featureName(spelling: string): string | undefined;
  vendorName(id: string): string | undefined;
}

/** Spellings that punctuation does not explain. */
const kernelNames: Readonly<Record<string, string>> = { tsc_deadline_timer: 'tsc-deadline', nonstop_tsc: 'invtsc' };
const plain = (name: string): string => name.replace(/[-_.]/g, '');

/** What an operating system switches on for itself; it says nothing about what the CPU is. */
export const dynamicFeatures: ReadonlySet<string> = new Set(['osxsave', 'ospke']);

export function makeMap(
  features: readonly CpuFeature[],
  models: readonly CpuModel[],
  vendors: ReadonlyMap<string, string>,
): CpuMap {
  const spellings = new Map<string, string>();
  for (const { name, aliases } of [...features].reverse()) {
    for (const spelling of [...aliases, name]) spellings.set(plain(spelling), name);
  }
  const ids = new Map([...vendors].map(([name, id]) => [id, name]));
  return {
    features: new Map(features.map((one) => [one.name, one])),
    models: new Map(models.map((one) => [one.name, one])),
    vendors,
    featureName: (spelling) => spellings.get(plain(kernelNames[spelling] ?? spelling)),
    vendorName: (id) => ids.get(id),
  };
}

const named = (tree: XmlElement, name: string): XmlElement[] => elementsOf(tree).filter((one) => one.name === name);
const nameOf = (element: XmlElement): string => element.attributes['name'] ?? '';

function readFeature(tree: XmlElement): CpuFeature {
  const { migratable } = tree.attributes;
  const number = (text: string | undefined): number => Number(text ?? 0);
  const cpuid = named(tree, 'cpuid').map(
    ({ attributes: { eax_in, ecx_in, eax, ebx, ecx, edx } }): FeatureBits => ({
      leaf: number(eax_in),
      subleaf: number(ecx_in),
      masks: { eax: number(eax), ebx: number(ebx), ecx: number(ecx), edx: number(edx) },
    }),
  );
  const msrs = named(tree, 'msr').map(
    ({ attributes: { index, eax, edx } }): FeatureBits => ({
      msr: number(index),
      mask: (BigInt(number(edx)) << 32n) | BigInt(number(eax)),
    }),
  );
  return {
    name: nameOf(tree),
    bits: [...cpuid, ...msrs],
    aliases: named(tree, 'alias').map(nameOf),
    migratable: migratable !== 'no',
  };
}

/** `5-7`, or one number. */
function readSteppings(text: string | undefined): Pick<CpuSignature, 'steppings'> {
  if (text === undefined) return {};
  const [first = 0, last = first] = text.split('-').map(Number);
  return { steppings: [first, last] };
}

function readModel(tree: XmlElement, earlier: ReadonlyMap<string, CpuModel>): CpuModel {
  const base = earlier.get(named(tree, 'model').map(nameOf)[0] ?? '');
  const [decode] = named(tree, 'decode');
  const vendor = named(tree, 'vendor').map(nameOf)[0] ?? base?.vendor;
  const own = named(tree, 'feature');
  const signatures = named(tree, 'signature').map(({ attributes }) => ({
    family: Number(attributes['family']),
    model: Number(attributes['model']),
    ...readSteppings(attributes['stepping']),
  }));
  const removed = own.filter((one) => one.attributes['removed'] === 'yes').map(nameOf);
  return {
    name: nameOf(tree),
    ...(vendor !== undefined && { vendor }),
    signatures: signatures.length > 0 ? signatures : (base?.signatures ?? []),
    features: new Set([...(base?.features ?? []), ...own.map(nameOf).filter((name) => !removed.includes(name))]),
    removed: [...(base?.removed ?? []), ...removed],
    host: decode?.attributes['host'] !== 'off',
    guest: decode?.attributes['guest'] !== 'off',
  };
}

/** libvirt's map of an architecture (`x86`). `read` parses a file of the folder by its name. @throws what `read` throws */
export async function readMap(arch: string, read: (file: string) => Promise<XmlElement>): Promise<CpuMap> {
  const features: CpuFeature[] = [];
  const models = new Map<string, CpuModel>();
  const vendors = new Map<string, string>();
  const visit = async (tree: XmlElement): Promise<void> => {
    for (const element of elementsOf(tree)) {
      if (element.name === 'include') await visit(await read(element.attributes['filename'] ?? ''));
      else if (element.name === 'vendor') vendors.set(nameOf(element), element.attributes['string'] ?? '');
      else if (element.name === 'feature') features.push(readFeature(element));
      else if (element.name === 'model') models.set(nameOf(element), readModel(element, models));
    }
  };
  const index = await read('index.xml');
  for (const one of named(index, 'arch').filter((found) => nameOf(found) === arch)) await visit(one);
  return makeMap(features, [...models.values()], vendors);
}

/** A CPU as an emulator expands it: its features by the emulator's names. */
export interface ExpandedCpu {
  readonly vendor: string;
  readonly family: number;
  readonly model: number;
  readonly features: readonly string[];
}

const knownVendors = new Map([
  ['Intel', 'GenuineIntel'],
  ['AMD', 'AuthenticAMD'],
  ['Hygon', 'HygonGenuine'],
]);

/** Features that the emulator or its accelerator adds to every model. */
const everywhere: ReadonlySet<string> = new Set(['hypervisor']);

/** A map from an emulator's models, newest first as emulators list them, and the names of all features that it knows. */
export function mapOfEmulator(models: Readonly<Record<string, ExpandedCpu>>, features: readonly string[]): CpuMap {
  const ids = new Map([...knownVendors].map(([name, id]) => [id, name]));
  const list = Object.entries(models).map(([name, cpu]): CpuModel => {
    const vendor = ids.get(cpu.vendor);
    return {
      name,
      // Models that say "AMD" for want of anything better are nobody's.
      ...(vendor !== undefined && !/^(qemu|kvm|max$|base$|\d|pentium)/.test(name) && { vendor }),
      signatures: [{ family: cpu.family, model: cpu.model }],
      features: new Set(cpu.features.filter((one) => !everywhere.has(one))),
      removed: [],
      host: true,
      guest: true,
    };
  });
  return makeMap(
    features.map((name) => ({ name, bits: [], aliases: [], migratable: !['invtsc', 'xsaves'].includes(name) })),
    list.reverse(),
    knownVendors,
  );
}
