// `<domain>` as a typed value: parsed with what is unknown kept, printed in libvirt's order (libvirt 9.0, formatdomain).
import {
  allKept,
  attribute,
  child,
  children,
  content,
  element,
  type Field,
  integer,
  kept,
  leaf,
  oneOf,
  refine,
  string,
  unsigned,
  type Value,
  withDefault,
} from './codec.ts';
import { DomainXmlError, errorCode, internalError, unsupported, xmlError } from './errors.ts';
import { channel, consoleDevice, parallel, redirdev, serial, smartcard } from './model/character.ts';
import { memoryField, sizeInKib } from './model/common.ts';
import { controller, hub } from './model/controller.ts';
import {
  filesystem,
  hostdev,
  iommu,
  memballoon,
  memoryDevice,
  panic,
  qemuCommandLine,
  rng,
  shmem,
  tpm,
  vsock,
  watchdog,
} from './model/devices.ts';
import { disk } from './model/disk.ts';
import { audio, graphics, input, sound, video } from './model/display.ts';
import { networkInterface } from './model/interface.ts';
import { clock, cpu, features, memoryBacking, onCrash, onPoweroff, onReboot, os, pm, seclabel, sysinfo } from './model/system.ts';
import { vcpusField } from './model/vcpus.ts';
import { formatXml, newElement, parseRoot, qemuNamespace, textOf, type XmlElement } from './xml.ts';

/** Devices by kind, in the order in which libvirt prints them. */
export const devices = element('devices', {
  emulator: leaf('emulator', string),
  disks: children(disk),
  controllers: children(controller),
  leases: allKept('lease'),
  filesystems: children(filesystem),
  interfaces: children(networkInterface),
  smartcards: children(smartcard),
  serials: children(serial),
  parallels: children(parallel),
  consoles: children(consoleDevice),
  channels: children(channel),
  inputs: children(input),
  tpms: children(tpm),
  graphics: children(graphics),
  sounds: children(sound),
  audios: children(audio),
  videos: children(video),
  hostdevs: children(hostdev),
  redirdevs: children(redirdev),
  redirfilter: kept('redirfilter'),
  hubs: children(hub),
  watchdogs: children(watchdog),
  memballoons: children(memballoon),
  rngs: children(rng),
  nvram: kept('nvram'),
  panics: children(panic),
  shmems: children(shmem),
  memories: children(memoryDevice),
  cryptos: allKept('crypto'),
  iommus: children(iommu),
  vsocks: children(vsock),
});
export type Devices = Value<typeof devices>;

const maxMemory: Field<{ kib: number; slots: number } | undefined> = {
  take(source) {
    const found = source.children.find((one) => one.name === 'maxMemory');
    if (!found) return undefined;
    source.children = source.children.filter((one) => one.name !== 'maxMemory');
    const slots = Number(found.attributes['slots'] ?? 0);
    if (!Number.isInteger(slots) || slots < 0) throw xmlError('Failed to parse memory slot count');
    return { kib: sizeInKib(textOf(found), found.attributes['unit'], './maxMemory[1]'), slots };
  },
  put(value, out) {
    if (value) out.nodes.push(newElement('maxMemory', { slots: String(value.slots), unit: 'KiB' }, [String(value.kib)]));
  },
};

const vcpu = element('vcpu', {
  placement: withDefault(attribute('placement', oneOf('static', 'auto')), 'static' as const),
  cpuset: attribute('cpuset', string),
  current: attribute('current', unsigned, { invalid: () => xmlError('current vcpus count must be an integer') }),
  count: content({ ...unsigned, parse: (text) => vcpuCount(text) }),
});

function vcpuCount(text: string): number {
  const count = unsigned.parse(text);
  if (count === undefined) throw xmlError('maximum vcpus count must be an integer');
  return count;
}

const uuidPattern = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i;

/** A UUID in lower case with dashes. @throws DomainXmlError when it is not one. */
export function parseUuid(text: string): string {
  if (!uuidPattern.test(text.trim())) throw internalError('malformed uuid element');
  const digits = text.trim().replaceAll('-', '').toLowerCase();
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
export const uuidField: Field<string | undefined> = leaf('uuid', { parse: parseUuid, format: (value) => value });

export const virtTypes = ['qemu', 'kvm'] as const;

const root = refine(
  element('domain', {
    type: attribute('type', oneOf(...virtTypes), {
      invalid: (text) => unsupported(`invalid domain type ${text}`),
    }),
    id: attribute('id', integer),
    name: leaf('name', string),
    uuid: uuidField,
    genid: kept('genid'),
    title: leaf('title', string),
    description: leaf('description', string),
    metadata: kept('metadata'),
    maxMemory,
    memory: memoryField('memory'),
    currentMemory: memoryField('currentMemory'),
    blkiotune: kept('blkiotune'),
    memtune: kept('memtune'),
    memoryBacking: child(memoryBacking),
    vcpu: child(vcpu),
    vcpus: vcpusField,
    iothreads: leaf('iothreads', unsigned, { invalid: (text) => xmlError(`invalid iothreads count '${text}'`) }),
    iothreadids: kept('iothreadids'),
    defaultiothread: kept('defaultiothread'),
    cputune: kept('cputune'),
    numatune: kept('numatune'),
    resource: kept('resource'),
    sysinfos: children(sysinfo),
    bootloader: kept('bootloader'),
    os: child(os),
    idmap: kept('idmap'),
    features: child(features),
    cpu: child(cpu),
    clock: child(clock),
    onPoweroff,
    onReboot,
    onCrash,
    onLockfailure: kept('on_lockfailure'),
    pm: child(pm),
    perf: kept('perf'),
    throttlegroups: kept('throttlegroups'),
    devices: child(devices),
    seclabels: children(seclabel),
    keywrap: kept('keywrap'),
    launchSecurity: kept('launchSecurity'),
    commandLine: child(qemuCommandLine),
    qemuCapabilities: kept('qemu:capabilities'),
    qemuOverride: kept('qemu:override'),
    qemuDeprecation: kept('qemu:deprecation'),
  }),
  (value) => value,
);

/** A domain as it is written, before defaults; `completeDomain` makes a definition of it. Sizes are in KiB. */
export type DomainDocument = Value<typeof root>;

const emptyDevices = (): Devices => devices.parse(newElement('devices'));

/** A domain with the parts that every domain has. */
export interface Domain extends DomainDocument {
  type: (typeof virtTypes)[number];
  name: string;
  os: NonNullable<DomainDocument['os']>;
  devices: Devices;
  vcpu: { placement: 'static' | 'auto'; count: number; cpuset?: string; current?: number };
}

/** The value of a `<domain>` element. @throws DomainXmlError naming what is wrong. */
export function readDomain(tree: XmlElement): Domain {
  const value = root.parse(tree);
  if (value.type === undefined) throw internalError('missing domain type attribute');
  if (!value.name) throw new DomainXmlError(errorCode.noName, '');
  if (value.name.includes('/')) throw xmlError(`name ${value.name} cannot contain '/'`);
  if (value.name.includes('\n')) throw xmlError(`name ${value.name.replaceAll('\n', '\\n')} cannot contain '\\n'`);
  if (value.title?.includes('\n')) throw xmlError("Domain title can't contain newlines");
  if (!value.os?.type?.name) throw xmlError('an os <type> must be specified');
  const { type, name } = value;
  const count = value.vcpu?.count ?? 1;
  if (tree.nodes.length > 0) declareMetadataNamespaces(value.metadata, tree);
  return {
    ...value,
    type,
    name,
    os: value.os,
    devices: value.devices ?? emptyDevices(),
    vcpu: { placement: 'static', ...value.vcpu, count },
  };
}

/** Metadata is handed out alone, so the prefixes that the root declares move to where they are used. */
function declareMetadataNamespaces(metadata: XmlElement | undefined, tree: XmlElement): void {
  for (const one of metadata?.nodes ?? []) {
    if (typeof one === 'string') continue;
    const [prefix, local] = one.name.split(':');
    const uri = local === undefined ? undefined : tree.attributes[`xmlns:${prefix}`];
    if (uri !== undefined) one.attributes[`xmlns:${prefix}`] ??= uri;
  }
}

/** @throws DomainXmlError with libvirt's code and message: 35 when `text` is not XML, 27 and others for its content. */
export const parseDomain = (text: string): Domain => readDomain(parseRoot(text, 'domain', 'domain_definition'));

export interface FormatOptions {
  /** Print secrets (`VIR_DOMAIN_XML_SECURE`): the passwords of graphics. */
  secure?: boolean;
}

/** The `<domain>` element as libvirt prints it. */
export function domainElement(domain: Domain, options: FormatOptions = {}): XmlElement {
  const shown: DomainDocument = { ...domain };
  if (!options.secure && domain.devices.graphics.some((one) => one.passwd !== undefined)) {
    const shownGraphics = domain.devices.graphics.map(({ passwd: _, passwdValidTo: __, ...one }) => one);
    shown.devices = { ...domain.devices, graphics: shownGraphics };
  }
  const tree = root.format(shown);
  const usesQemu = tree.nodes.some((node) => typeof node !== 'string' && node.name.startsWith('qemu:'));
  if (usesQemu) tree.attributes['xmlns:qemu'] = qemuNamespace;
  return tree;
}

/** The domain's XML text; what was parsed and not understood is in it. */
export const formatDomain = (domain: Domain, options: FormatOptions = {}): string => formatXml(domainElement(domain, options));
