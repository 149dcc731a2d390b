// The domain's machine: firmware and boot, features, CPU, clock, power management (libvirt 9.0, formatdomain "Operating system booting" to "Time keeping").
import {
  allKept,
  attribute,
  type Codec,
  child,
  children,
  content,
  element,
  type Field,
  integer,
  kept,
  leaf,
  oneOf,
  onOff,
  refine,
  required,
  string,
  unsigned,
  type Value,
  withDefault,
  yesNo,
} from '../codec.ts';
import { unsupported, xmlError } from '../errors.ts';
import { settleCells } from '../numa.ts';
import { elementsOf, newElement, type XmlElement } from '../xml.ts';
import { sizeInKib } from './common.ts';

export const os = element('os', {
  firmware: attribute('firmware', oneOf('efi', 'bios')),
  type: child(element('type', { arch: attribute('arch', string), machine: attribute('machine', string), name: content(string) })),
  firmwareFeatures: kept('firmware'),
  loader: child(
    element('loader', {
      readonly: attribute('readonly', yesNo),
      secure: attribute('secure', yesNo),
      type: attribute('type', oneOf('rom', 'pflash')),
      format: attribute('format', string),
      stateless: attribute('stateless', yesNo),
      path: content(string),
    }),
  ),
  nvram: child(
    element('nvram', {
      type: attribute('type', string),
      template: attribute('template', string),
      format: attribute('format', string),
      source: kept('source'),
      path: content(string),
    }),
  ),
  kernel: leaf('kernel', string),
  initrd: leaf('initrd', string),
  cmdline: leaf('cmdline', string),
  dtb: leaf('dtb', string),
  acpi: kept('acpi'),
  boot: children(element('boot', { dev: required('dev', oneOf('fd', 'cdrom', 'hd', 'network')) })),
  bootmenu: child(element('bootmenu', { enable: required('enable', yesNo), timeout: attribute('timeout', unsigned) })),
  smbios: child(element('smbios', { mode: required('mode', oneOf('emulate', 'host', 'sysinfo')) })),
  bios: child(element('bios', { useserial: attribute('useserial', yesNo), rebootTimeout: attribute('rebootTimeout', integer) })),
});
export type Os = Value<typeof os>;

/** The features that libvirt knows, in the order in which it prints them. */
const featureNames = [
  ...['acpi', 'apic', 'pae', 'hap', 'viridian', 'privnet', 'hyperv', 'kvm', 'pvspinlock', 'capabilities', 'pmu'],
  ...['vmport', 'gic', 'smm', 'ioapic', 'hpt', 'vmcoreinfo', 'htm', 'nested-hv', 'msrs', 'ccf-assist', 'xen'],
  ...['cfpc', 'sbbc', 'ibs', 'tcg', 'async-teardown'],
];

/** `<features>`: the feature elements by name, each as it was written. */
export const features: Codec<Map<string, XmlElement>> = {
  name: 'features',
  parse(tree) {
    const found = new Map<string, XmlElement>();
    for (const feature of elementsOf(tree)) {
      if (!featureNames.includes(feature.name)) throw unsupported(`unexpected feature '${feature.name}'`);
      // The mode that libvirt prints where the document gives none.
      if (feature.name === 'hyperv') feature.attributes['mode'] ??= 'custom';
      found.set(feature.name, feature);
    }
    return found;
  },
  format: (value) =>
    newElement(
      'features',
      {},
      featureNames.flatMap((name) => value.get(name) ?? []),
    ),
};

export type FeatureState = 'on' | 'off' | undefined;

/** Whether a feature element is present, and on unless its `state` says `off`. */
export function featureState(found: Map<string, XmlElement> | undefined, name: string): FeatureState {
  const feature = found?.get(name);
  if (!feature) return undefined;
  return feature.attributes['state'] === 'off' ? 'off' : 'on';
}

const cell = refine(
  element('cell', {
    id: attribute('id', unsigned),
    cpus: attribute('cpus', string),
    memory: attribute('memory', string),
    unit: attribute('unit', string),
    memAccess: attribute('memAccess', oneOf('shared', 'private')),
    discard: attribute('discard', yesNo),
    distances: child(
      element('distances', {
        siblings: children(element('sibling', { id: required('id', unsigned), value: required('value', unsigned) })),
      }),
    ),
  }),
  (value) => {
    if (value.memory === undefined) throw xmlError("missing element or attribute './@memory'");
    const kib = sizeInKib(value.memory, value.unit, './cpu/numa/cell/@memory');
    return { ...value, memory: String(kib), unit: 'KiB' };
  },
);

/** Printed attributes always in the same order: policy, name. */
const cpuFeature = element('feature', {
  policy: attribute('policy', oneOf('force', 'require', 'optional', 'disable', 'forbid')),
  name: required('name', string),
});

const cpuMatch: Field<'minimum' | 'exact' | 'strict' | undefined> = attribute('match', oneOf('minimum', 'exact', 'strict'));

export const cpu = refine(
  element('cpu', {
    mode: attribute('mode', oneOf('custom', 'host-model', 'host-passthrough', 'maximum'), {
      invalid: (text) => unsupported(`Invalid mode attribute '${text}'`),
    }),
    match: cpuMatch,
    check: attribute('check', oneOf('none', 'partial', 'full')),
    migratable: attribute('migratable', onOff),
    model: child(
      element('model', {
        fallback: attribute('fallback', oneOf('allow', 'forbid')),
        vendorId: attribute('vendor_id', string),
        name: content(string),
      }),
    ),
    vendor: leaf('vendor', string),
    topology: child(
      element('topology', {
        sockets: required('sockets', unsigned),
        dies: withDefault(attribute('dies', unsigned), 1),
        cores: required('cores', unsigned),
        threads: required('threads', unsigned),
      }),
    ),
    cache: kept('cache'),
    maxphysaddr: kept('maxphysaddr'),
    features: children(cpuFeature),
    numa: child(element('numa', { cells: children(cell), interconnects: kept('interconnects') })),
  }),
  (value, tree) => {
    const hasModel = value.model?.name !== undefined;
    if (!hasModel && value.features.length > 0 && (value.mode ?? 'custom') === 'custom') {
      throw xmlError('Non-empty feature list specified without CPU model');
    }
    if (value.mode === undefined && hasModel) value.mode = 'custom';
    if (value.mode === 'custom' && hasModel && value.match === undefined && tree.attributes['match'] === undefined) {
      value.match = 'exact';
    }
    if (value.mode === 'custom' && value.model) value.model.fallback ??= 'allow';
    for (const feature of value.features) feature.policy ??= 'require';
    if (value.numa) value.numa.cells = settleCells(value.numa.cells);
    return value;
  },
);
export type Cpu = Value<typeof cpu>;

const timer = element('timer', {
  name: required('name', oneOf('platform', 'pit', 'rtc', 'hpet', 'tsc', 'kvmclock', 'hypervclock', 'armvtimer')),
  present: attribute('present', yesNo),
  tickpolicy: attribute('tickpolicy', oneOf('delay', 'catchup', 'merge', 'discard')),
  track: attribute('track', oneOf('boot', 'guest', 'wall', 'realtime')),
  frequency: attribute('frequency', unsigned),
  mode: attribute('mode', oneOf('auto', 'native', 'emulate', 'paravirt', 'smpsafe', 'network')),
  catchup: kept('catchup'),
});

/** Seconds, or `reset`; dates end before the year 10000. */
const adjustment = {
  parse: (text: string) => (text === 'reset' || /^-?\d{1,11}$/.test(text) ? text : undefined),
  format: (value: string) => value,
};
const latestSecond = 253402300799;
const second = {
  ...unsigned,
  parse: (text: string) => (Number(text) <= latestSecond ? unsigned.parse(text) : undefined),
};

export const clock = element('clock', {
  offset: withDefault(
    attribute('offset', oneOf('utc', 'localtime', 'variable', 'timezone', 'absolute'), {
      invalid: (text) => unsupported(`unknown clock offset '${text}'`),
    }),
    'utc' as const,
  ),
  adjustment: attribute('adjustment', adjustment, { invalid: (text) => xmlError(`unknown clock adjustment '${text}'`) }),
  basis: attribute('basis', oneOf('utc', 'localtime')),
  timezone: attribute('timezone', string),
  start: attribute('start', second),
  timers: children(timer),
});
export type Clock = Value<typeof clock>;

const sleep = (name: string) => child(element(name, { enabled: attribute('enabled', yesNo) }));
export const pm = element('pm', { mem: sleep('suspend-to-mem'), disk: sleep('suspend-to-disk') });

const lifecycleActions = ['destroy', 'restart', 'rename-restart', 'preserve'] as const;
const lifecycle = <const T extends string>(name: string, fallback: T, values: readonly T[]) =>
  withDefault(leaf(name, oneOf(...values), { invalid: (text) => unsupported(`unknown ${name} action: ${text}`) }), fallback);
export const onPoweroff = lifecycle('on_poweroff', 'destroy', lifecycleActions);
export const onReboot = lifecycle('on_reboot', 'restart', lifecycleActions);
export const onCrash = lifecycle('on_crash', 'destroy', [...lifecycleActions, 'coredump-destroy', 'coredump-restart']);

export const sysinfo = element('sysinfo', {
  type: withDefault(attribute('type', oneOf('smbios', 'fwcfg')), 'smbios' as const),
  bios: kept('bios'),
  system: kept('system'),
  baseBoard: allKept('baseBoard'),
  chassis: kept('chassis'),
  processor: allKept('processor'),
  memoryDevice: allKept('memory_device'),
  oemStrings: kept('oemStrings'),
  entries: allKept('entry'),
});
export type Sysinfo = Value<typeof sysinfo>;

export const memoryBacking = element('memoryBacking', {
  hugepages: kept('hugepages'),
  nosharepages: kept('nosharepages'),
  locked: kept('locked'),
  source: child(element('source', { type: required('type', oneOf('anonymous', 'file', 'memfd')) })),
  access: child(element('access', { mode: required('mode', oneOf('shared', 'private')) })),
  allocation: kept('allocation'),
  discard: kept('discard'),
});
export type MemoryBacking = Value<typeof memoryBacking>;

export const seclabel = refine(
  element('seclabel', {
    type: withDefault(attribute('type', oneOf('none', 'dynamic', 'static')), 'dynamic' as const),
    model: attribute('model', string),
    relabel: attribute('relabel', yesNo),
    label: leaf('label', string),
    baselabel: leaf('baselabel', string),
    imagelabel: leaf('imagelabel', string),
  }),
  (value) => value,
);
