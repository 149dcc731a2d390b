// `<cpu>` against a CPU map: which features a description asks for, whether a CPU has them, and the model with the fewest changes that says it.
// libvirt 9.0's answers to virConnectCompareCPU, virConnectBaselineCPU and theirs for hypervisors (formatdomain, "CPU model and topology").
import { internalError, unsupported, xmlError } from '../errors.ts';
import { type Cpu, cpu as cpuCodec } from '../model/system.ts';
import { childNamed, formatXml, parseRoot, textOf } from '../xml.ts';
import { type CpuFeature, type CpuMap, type CpuModel, dynamicFeatures } from './map.ts';

/** A CPU by what it has. */
export interface CpuData {
  readonly vendor?: string;
  readonly signature?: { readonly family: number; readonly model: number; readonly stepping?: number };
  readonly features: ReadonlySet<string>;
}

/** A CPU that somebody has described. */
export interface CpuDescription {
  /** A host's, as in capabilities: policies mean nothing there. */
  readonly kind: 'host' | 'guest';
  readonly arch?: string;
  readonly cpu: Cpu;
}

const policies = ['force', 'require', 'optional', 'disable', 'forbid'] as const;
export type Policy = (typeof policies)[number];

/** A model with what is different from it. */
export interface DecodedCpu {
  readonly model: string;
  readonly vendor?: string;
  readonly features: readonly { readonly policy: 'require' | 'disable'; readonly name: string }[];
}

/** `kind`: what it has to be; left out, a document with an architecture describes a host. @throws DomainXmlError */
export function parseCpu(text: string, kind?: 'host'): CpuDescription {
  const tree = parseRoot(text, 'cpu', 'CPU_definition');
  const arch = childNamed(tree, 'arch');
  if (kind === undefined && !arch) {
    const cpu = cpuCodec.parse(tree);
    if (cpu.model?.name === undefined && (cpu.mode ?? 'custom') === 'custom') throw xmlError('Missing CPU model name');
    return { kind: 'guest', cpu };
  }
  if (tree.attributes['mode'] !== undefined) throw unsupported('Attribute mode is only allowed for guest CPU');
  if (!arch) throw xmlError('Missing CPU architecture');
  const cpu = cpuCodec.parse(tree);
  if (cpu.model?.name === undefined) throw xmlError('Missing CPU model name');
  return { kind: 'host', arch: textOf(arch), cpu };
}

function findModel(map: CpuMap, name: string): CpuModel {
  const found = map.models.get(name);
  if (!found) throw internalError(`Unknown CPU model ${name}`);
  return found;
}

/** Features that a description names with one of the policies. @throws DomainXmlError for an unknown feature or model */
export function featuresWith(map: CpuMap, { cpu, kind }: CpuDescription, wanted: readonly Policy[]): Set<string> {
  const model = cpu.model?.name === undefined ? undefined : findModel(map, cpu.model.name);
  const result = new Set(wanted.includes('require') ? model?.features : []);
  for (const { name, policy = 'require' } of cpu.features) {
    const feature = map.featureName(name);
    if (feature === undefined) throw internalError(`Unknown CPU feature ${name}`);
    if (wanted.includes(kind === 'host' ? 'require' : policy)) result.add(feature);
    else if (wanted.includes('require')) result.delete(feature);
  }
  return result;
}

/** What a described CPU has. */
export function dataOf(map: CpuMap, description: CpuDescription): CpuData {
  const { cpu } = description;
  const vendor = cpu.vendor ?? (cpu.model?.name === undefined ? undefined : findModel(map, cpu.model.name).vendor);
  return {
    ...(vendor !== undefined && { vendor }),
    features: featuresWith(map, description, ['force', 'require']),
  };
}

const without = (a: Iterable<string>, ...others: readonly ReadonlySet<string>[]): string[] =>
  [...a].filter((one) => !others.some((other) => other.has(one)));

/** In the map's order. */
const ordered = (map: CpuMap, names: Iterable<string>): string[] => {
  const set = new Set(names);
  return [...map.features.keys()].filter((name) => set.has(name));
};

export type Comparison =
  | { readonly result: 'incompatible'; readonly why: string }
  | { readonly result: 'identical' | 'superset' };

/** Whether `host` can be what is described. @throws DomainXmlError for what the map does not know */
export function compareCpu(map: CpuMap, host: CpuData, wanted: CpuDescription, archs: readonly string[]): Comparison {
  const no = (why: string): Comparison => ({ result: 'incompatible', why });
  const { cpu, arch } = wanted;
  if (arch !== undefined && !archs.includes(arch)) return no(`CPU arch ${arch} does not match host arch`);
  if (cpu.vendor !== undefined && cpu.vendor !== host.vendor) {
    return no(`host CPU vendor does not match required CPU vendor ${cpu.vendor}`);
  }
  const required = featuresWith(map, wanted, ['require']);
  const list = (names: Iterable<string>): string => ordered(map, names).join(', ');
  const only = (policy: Policy): Set<string> => featuresWith(map, wanted, [policy]);
  const [forced, optional, disabled, forbidden] = [only('force'), only('optional'), only('disable'), only('forbid')];
  const provided = [...forbidden].filter((name) => host.features.has(name));
  if (provided.length > 0) return no(`Host CPU provides forbidden features: ${list(provided)}`);
  const missing = without(required, host.features);
  if (missing.length > 0) return no(`Host CPU does not provide required features: ${list(missing)}`);
  const extra = without(host.features, required, optional, disabled, forced);
  if (extra.length === 0) return { result: 'identical' };
  if (cpu.match === 'strict') return no(`Host CPU does not strictly match guest CPU: Extra features: ${list(extra)}`);
  return { result: 'superset' };
}

/** A model that may be named, with the features that its emulator cannot give it. */
export interface UsableModel {
  readonly name: string;
  readonly blockers: readonly string[];
}

export interface DecodeOptions {
  readonly kind: 'host' | 'guest';
  /** Taken when it will do at all. */
  readonly preferred?: string | undefined;
  /** Only these. */
  readonly models?: readonly UsableModel[] | undefined;
  /** Leaves out what cannot be moved. */
  readonly migratable?: boolean;
}

function candidateOf(map: CpuMap, data: CpuData, model: CpuModel, usable: UsableModel | undefined, kind: string): DecodedCpu {
  const blocked = (usable?.blockers ?? []).flatMap((name) => map.featureName(name) ?? []);
  const has = new Set(without(data.features, new Set(blocked)));
  const require = ordered(map, without(has, model.features));
  const lacking = ordered(map, without(model.features, has));
  const disable = new Set([...lacking, ...blocked]);
  if (kind === 'guest') for (const name of model.removed) if (!has.has(name)) disable.add(name);
  return {
    model: model.name,
    ...(data.vendor !== undefined && { vendor: data.vendor }),
    features: [
      ...require.map((name) => ({ policy: 'require' as const, name })),
      ...[...disable].map((name) => ({ policy: 'disable' as const, name })),
    ],
  };
}

const hasSignature = (model: CpuModel, signature: CpuData['signature']): boolean =>
  model.signatures.some(({ family, model, steppings: [first, last] = [0, Number.POSITIVE_INFINITY] }) => {
    const stepping = signature?.stepping ?? first;
    return family === signature?.family && model === signature.model && stepping >= first && stepping <= last;
  });

/** The model that describes a CPU best: of its family and model if there is one, then with the fewest features said. */
export function decodeCpu(map: CpuMap, data: CpuData, options: DecodeOptions): DecodedCpu | undefined {
  const features = without(
    data.features,
    options.kind === 'guest' ? dynamicFeatures : new Set<string>(),
    new Set([...map.features.values()].filter((one) => options.migratable && !one.migratable).map((one) => one.name)),
  );
  const wanted = { ...data, features: new Set(features) };
  let best: { readonly model: CpuModel; readonly cpu: DecodedCpu } | undefined;
  for (const model of [...map.models.values()].reverse()) {
    const usable = options.models?.find((one) => one.name === model.name);
    if (options.models && !usable) continue;
    if (!(options.kind === 'host' ? model.host : model.guest)) continue;
    if (model.vendor !== undefined && data.vendor !== undefined && model.vendor !== data.vendor) continue;
    const cpu = candidateOf(map, wanted, model, usable, options.kind);
    if (options.kind === 'host' && cpu.features.some((one) => one.policy === 'disable')) continue;
    if (model.name === options.preferred) return cpu;
    if (best) {
      const [is, was] = [hasSignature(model, data.signature), hasSignature(best.model, data.signature)];
      if (was && !is) continue;
      if (is === was && cpu.features.length >= best.cpu.features.length) continue;
    }
    best = { model, cpu };
  }
  return best?.cpu;
}

export interface BaselineOptions {
  readonly models?: readonly UsableModel[] | undefined;
  /** All features that an emulator knows; others are left out. */
  readonly known?: readonly string[] | undefined;
  readonly migratable: boolean;
}

/** What a baseline cannot be made of: `operationFailed` in libvirt. */
export class BaselineError extends Error {}

function commonVendor(map: CpuMap, cpus: readonly CpuDescription[]): string | undefined {
  let common: string | undefined;
  for (const [at, { cpu }] of cpus.entries()) {
    if (cpu.vendor !== undefined && !map.vendors.has(cpu.vendor)) throw new BaselineError(`Unknown CPU vendor ${cpu.vendor}`);
    // libvirt looks at the vendor of the first model only when the document says it.
    const vendor = cpu.vendor ?? (at === 0 ? undefined : findModel(map, cpu.model!.name!).vendor);
    if (vendor !== undefined && common !== undefined && vendor !== common) throw new BaselineError('CPU vendors do not match');
    common ??= vendor;
  }
  return common;
}

/** The CPU that all of them can be; `fixed` when they all name its model. @throws BaselineError, DomainXmlError */
export function baselineCpu(
  map: CpuMap,
  cpus: readonly CpuDescription[],
  options: BaselineOptions,
): { readonly cpu: DecodedCpu; readonly fixed: boolean } {
  const sets = cpus.map((one) => dataOf(map, one).features);
  const known = options.known && new Set(options.known.flatMap((name) => map.featureName(name) ?? []));
  const features = [...sets[0]!].filter((name) => sets.every((set) => set.has(name)) && (known?.has(name) ?? true));
  const vendor = commonVendor(map, cpus);
  const model = cpus[0]!.cpu.model?.name;
  const preferred = cpus.every((one) => one.cpu.model?.name === model) ? model : undefined;
  if (features.length === 0) throw new BaselineError('CPUs are incompatible');
  const data = { ...(vendor !== undefined && { vendor }), features: new Set(features) };
  const cpu = decodeCpu(map, data, { kind: 'guest', preferred, models: options.models, migratable: options.migratable });
  if (!cpu) throw new BaselineError('Cannot find suitable CPU model for given data');
  // A vendor is promised only when each of them has it.
  const agreed = cpus.every((one) => one.cpu.vendor !== undefined);
  const { vendor: _, ...nobodys } = cpu;
  return { cpu: agreed ? cpu : nobodys, fixed: cpu.model === preferred };
}

/** The same CPU with all features of its model said, by name. */
export function expandCpu(map: CpuMap, cpu: DecodedCpu, leaveOut: (feature: CpuFeature) => boolean): DecodedCpu {
  const all = new Map<string, 'require' | 'disable'>();
  for (const name of findModel(map, cpu.model).features) {
    const feature = map.features.get(name);
    if (feature && !leaveOut(feature)) all.set(name, 'require');
  }
  for (const { name, policy } of cpu.features) all.set(name, policy);
  const names = [...all.keys()].sort();
  return { ...cpu, features: names.map((name) => ({ policy: all.get(name)!, name })) };
}

/** `<cpu>` of a guest. */
export const formatCpu = (cpu: DecodedCpu, fallback: 'allow' | 'forbid'): string =>
  formatXml(
    cpuCodec.format({
      mode: 'custom',
      match: 'exact',
      model: { name: cpu.model, fallback },
      ...(cpu.vendor !== undefined && { vendor: cpu.vendor }),
      features: cpu.features.map((one) => ({ ...one })),
    }),
  );
