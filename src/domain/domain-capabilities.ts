// `<domainCapabilities>`: what one emulator, machine and accelerator can do (libvirt 9.0, formatdomaincaps).
import { formatXml, newElement, type XmlElement } from './xml.ts';

/** Named lists of values, in order. */
export type Enums = Readonly<Record<string, readonly string[]>>;

export interface CpuModel {
  name: string;
  usable: 'yes' | 'no' | 'unknown';
  vendor?: string;
  deprecated?: boolean;
  /** Features of the model that the host has not. */
  blockers?: readonly string[];
}

export interface DomainCapabilities {
  emulator: string;
  domainType: 'qemu' | 'kvm';
  machine: string;
  arch: string;
  maxVcpus: number;
  iothreads: boolean;
  firmware: {
    /** `efi`, `bios`: what `<os firmware=…>` may name. */
    kinds: readonly string[];
    loaders: readonly string[];
    enums: Enums;
  };
  cpu: {
    /** Empty when the mode is not there. */
    hostPassthrough?: readonly string[];
    maximum?: readonly string[];
    hostModel?: {
      model: string;
      fallback: 'allow' | 'forbid';
      vendor?: string;
      maxphysaddr?: XmlElement;
      features: readonly { policy: string; name: string }[];
    };
    custom: readonly CpuModel[];
  };
  memoryBacking: Enums;
  /** `disk`, `graphics`, `video`, … with their enums, in libvirt's order; undefined for a kind that is not supported. */
  devices: Readonly<Record<string, Enums | undefined>>;
  /** `gic`, `vmcoreinfo`, … in libvirt's order. */
  features: Readonly<Record<string, boolean | Enums>>;
}

const yesNo = (value: boolean): string => (value ? 'yes' : 'no');
const text = (name: string, value: string): XmlElement => newElement(name, {}, [value]);

const enumElements = (enums: Enums): XmlElement[] =>
  Object.entries(enums).map(([name, values]) =>
    newElement(
      'enum',
      { name },
      values.map((value) => text('value', value)),
    ),
  );

const supported = (name: string, enums: Enums | undefined): XmlElement =>
  newElement(name, { supported: yesNo(enums !== undefined) }, enums && enumElements(enums));

function osElement({ firmware }: DomainCapabilities): XmlElement {
  const loaders = firmware.loaders.map((path) => text('value', path));
  const loader = newElement('loader', { supported: 'yes' }, [...loaders, ...enumElements(firmware.enums)]);
  return newElement('os', { supported: 'yes' }, [...enumElements({ firmware: firmware.kinds }), loader]);
}

function modelElements(model: CpuModel): XmlElement[] {
  const attributes: Record<string, string> = { usable: model.usable };
  if (model.deprecated) attributes['deprecated'] = 'yes';
  if (model.vendor !== undefined) attributes['vendor'] = model.vendor;
  const named = newElement('model', attributes, [model.name]);
  if (!model.blockers?.length) return [named];
  const blockers = model.blockers.map((name) => newElement('feature', { name }));
  return [named, newElement('blockers', { model: model.name }, blockers)];
}

function cpuElement({ cpu }: DomainCapabilities): XmlElement {
  const mode = (name: string, there: boolean, nodes: XmlElement[] = []): XmlElement =>
    newElement('mode', { name, supported: yesNo(there) }, nodes);
  const migratable = (name: string, values: readonly string[] | undefined): XmlElement[] =>
    values ? enumElements({ [name]: values }) : [];
  const { hostModel } = cpu;
  const model = hostModel && [
    newElement('model', { fallback: hostModel.fallback }, [hostModel.model]),
    ...(hostModel.vendor === undefined ? [] : [text('vendor', hostModel.vendor)]),
    ...(hostModel.maxphysaddr ? [hostModel.maxphysaddr] : []),
    ...hostModel.features.map((one) => newElement('feature', { ...one })),
  ];
  return newElement('cpu', {}, [
    mode('host-passthrough', cpu.hostPassthrough !== undefined, migratable('hostPassthroughMigratable', cpu.hostPassthrough)),
    mode('maximum', cpu.maximum !== undefined, migratable('maximumMigratable', cpu.maximum)),
    mode('host-model', hostModel !== undefined, model),
    mode('custom', cpu.custom.length > 0, cpu.custom.flatMap(modelElements)),
  ]);
}

const featureElement = (name: string, value: boolean | Enums): XmlElement =>
  typeof value === 'boolean' ? newElement(name, { supported: yesNo(value) }) : supported(name, value);

/** The document that `connectGetDomainCapabilities` answers. */
export function formatDomainCapabilities(given: DomainCapabilities): string {
  const tree = newElement('domainCapabilities', {}, [
    text('path', given.emulator),
    text('domain', given.domainType),
    text('machine', given.machine),
    text('arch', given.arch),
    newElement('vcpu', { max: String(given.maxVcpus) }),
    newElement('iothreads', { supported: yesNo(given.iothreads) }),
    osElement(given),
    cpuElement(given),
    supported('memoryBacking', given.memoryBacking),
    newElement(
      'devices',
      {},
      Object.entries(given.devices).map(([name, enums]) => supported(name, enums)),
    ),
    newElement(
      'features',
      {},
      Object.entries(given.features).map(([name, value]) => featureElement(name, value)),
    ),
  ]);
  return formatXml(tree);
}
