// The smaller devices: file systems, host devices, watchdog, balloon, random numbers, TPM, panic, vsock, memory, IOMMU (libvirt 9.0, formatdomain "Devices").
import {
  allKept,
  attribute,
  child,
  children,
  content,
  element,
  flag,
  kept,
  oneOf,
  onOff,
  positive,
  refine,
  required,
  string,
  unsigned,
  type Value,
  withDefault,
  yesNo,
} from '../codec.ts';
import { DomainXmlError, errorCode, internalError, unsupported, xmlError } from '../errors.ts';
import { deviceInfo, memoryField, virtioDriver, virtioOptions } from './common.ts';

const virtioModels = oneOf('virtio', 'virtio-transitional', 'virtio-non-transitional');

export const filesystem = refine(
  element('filesystem', {
    type: withDefault(attribute('type', oneOf('mount', 'block', 'file', 'template', 'ram', 'bind', 'volume')), 'mount' as const),
    model: attribute('model', virtioModels),
    accessmode: attribute('accessmode', oneOf('passthrough', 'mapped', 'squash')),
    multidevs: attribute('multidevs', oneOf('default', 'remap', 'forbid', 'warn')),
    fmode: attribute('fmode', string),
    dmode: attribute('dmode', string),
    driver: child(
      element('driver', {
        type: attribute('type', oneOf('path', 'handle', 'loop', 'nbd', 'ploop', 'virtiofs', 'mtp')),
        format: attribute('format', string),
        wrpolicy: attribute('wrpolicy', oneOf('immediate')),
        queue: attribute('queue', positive),
        ...virtioOptions,
      }),
    ),
    binary: kept('binary'),
    source: child(
      element('source', { dir: attribute('dir', string), socket: attribute('socket', string), file: attribute('file', string) }),
    ),
    target: child(element('target', { dir: required('dir', string) })),
    readonly: flag('readonly'),
    spaceHardLimit: kept('space_hard_limit'),
    spaceSoftLimit: kept('space_soft_limit'),
    ...deviceInfo,
  }),
  (value) => {
    if (value.target) return value;
    throw new DomainXmlError(errorCode.noTarget, ` ${value.source?.dir ?? value.source?.file ?? ''}`);
  },
);
export type Filesystem = Value<typeof filesystem>;

export const hostdev = refine(
  element('hostdev', {
    mode: withDefault(attribute('mode', oneOf('subsystem', 'capabilities')), 'subsystem' as const),
    type: required('type', oneOf('usb', 'pci', 'scsi', 'scsi_host', 'mdev', 'storage', 'misc', 'net'), {
      missing: () => xmlError('missing source address type'),
      invalid: (text) => unsupported(`unknown host device source address type '${text}'`),
    }),
    managed: attribute('managed', yesNo),
    model: attribute('model', string),
    display: attribute('display', onOff),
    ramfb: attribute('ramfb', onOff),
    driver: child(element('driver', { name: attribute('name', string) })),
    source: kept('source'),
    readonly: flag('readonly'),
    shareable: flag('shareable'),
    ...deviceInfo,
  }),
  (value) => {
    if (!value.source) throw xmlError(`Missing <source> element in hostdev device`);
    if (value.type === 'usb' || value.type === 'pci') value.managed ??= 'no';
    return value;
  },
);
export type Hostdev = Value<typeof hostdev>;

export const watchdog = element('watchdog', {
  model: required('model', oneOf('i6300esb', 'ib700', 'diag288'), {
    missing: () => internalError('watchdog must contain model name'),
    invalid: (text) => unsupported(`unknown watchdog model '${text}'`),
  }),
  action: withDefault(
    attribute('action', oneOf('reset', 'shutdown', 'poweroff', 'pause', 'dump', 'none', 'inject-nmi'), {
      invalid: (text) => unsupported(`unknown watchdog action '${text}'`),
    }),
    'reset' as const,
  ),
  ...deviceInfo,
});
export type Watchdog = Value<typeof watchdog>;

export const memballoon = element('memballoon', {
  model: required('model', oneOf('virtio', 'virtio-transitional', 'virtio-non-transitional', 'xen', 'none')),
  autodeflate: attribute('autodeflate', onOff),
  freePageReporting: attribute('freePageReporting', onOff),
  stats: child(element('stats', { period: required('period', unsigned) })),
  driver: child(virtioDriver),
  ...deviceInfo,
});
export type Memballoon = Value<typeof memballoon>;

export const rng = refine(
  element('rng', {
    model: required('model', virtioModels, { invalid: (text) => unsupported(`unknown RNG model '${text}'`) }),
    rate: child(element('rate', { bytes: required('bytes', positive), period: attribute('period', positive) })),
    backend: child(
      element('backend', {
        model: required('model', oneOf('random', 'egd', 'builtin'), {
          missing: () => xmlError('missing RNG device backend model'),
          invalid: (text) => unsupported(`unknown RNG backend model '${text}'`),
        }),
        type: attribute('type', string),
        sources: allKept('source'),
        protocol: kept('protocol'),
        path: content(string),
      }),
    ),
    driver: child(virtioDriver),
    ...deviceInfo,
  }),
  (value) => {
    if (!value.backend) throw xmlError('only one RNG backend is supported');
    return value;
  },
);
export type Rng = Value<typeof rng>;

export const tpm = refine(
  element('tpm', {
    model: attribute('model', oneOf('tpm-tis', 'tpm-crb', 'tpm-spapr', 'spapr-tpm-proxy')),
    backend: kept('backend'),
    ...deviceInfo,
  }),
  (value) => {
    if (!value.backend) throw xmlError('missing TPM device backend');
    return value;
  },
);
export type Tpm = Value<typeof tpm>;

export const panic = element('panic', {
  model: attribute('model', oneOf('default', 'pseries', 'isa', 'hyperv', 's390', 'pvpanic'), {
    invalid: (text) => unsupported(`unknown panic model '${text}'`),
  }),
  ...deviceInfo,
});
export type Panic = Value<typeof panic>;

export const vsock = element('vsock', {
  model: attribute('model', virtioModels),
  cid: child(element('cid', { auto: attribute('auto', yesNo), address: attribute('address', unsigned) })),
  driver: child(virtioDriver),
  ...deviceInfo,
});
export type Vsock = Value<typeof vsock>;

export const shmem = element('shmem', {
  name: required('name', string),
  role: attribute('role', oneOf('master', 'peer')),
  model: child(element('model', { type: required('type', oneOf('ivshmem', 'ivshmem-plain', 'ivshmem-doorbell')) })),
  size: kept('size'),
  server: kept('server'),
  msi: kept('msi'),
  ...deviceInfo,
});
export type Shmem = Value<typeof shmem>;

export const memoryDevice = element('memory', {
  model: required('model', oneOf('dimm', 'nvdimm', 'virtio-pmem', 'virtio-mem', 'sgx-epc')),
  access: attribute('access', oneOf('shared', 'private')),
  discard: attribute('discard', yesNo),
  uuid: kept('uuid'),
  source: kept('source'),
  target: child(
    element('target', {
      size: memoryField('size'),
      node: kept('node'),
      block: memoryField('block'),
      requested: memoryField('requested'),
      current: memoryField('current'),
      label: kept('label'),
      readonly: flag('readonly'),
    }),
  ),
  ...deviceInfo,
});
export type MemoryDevice = Value<typeof memoryDevice>;

export const iommu = element('iommu', {
  model: required('model', oneOf('intel', 'smmuv3', 'virtio')),
  driver: child(
    element('driver', {
      intremap: attribute('intremap', onOff),
      cachingMode: attribute('caching_mode', onOff),
      eim: attribute('eim', onOff),
      iotlb: attribute('iotlb', onOff),
      awBits: attribute('aw_bits', unsigned),
    }),
  ),
  ...deviceInfo,
});
export type Iommu = Value<typeof iommu>;

/** Kept whole: the elements below `<devices>` that are only carried along. */
export const commandLineArgument = element('qemu:arg', { value: required('value', string) });
export const commandLineVariable = element('qemu:env', { name: required('name', string), value: attribute('value', string) });
export const qemuCommandLine = element('qemu:commandline', {
  args: children(commandLineArgument),
  env: children(commandLineVariable),
});
