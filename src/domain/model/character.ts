// Character devices: `<serial>`, `<parallel>`, `<console>`, `<channel>`, `<smartcard>`, `<redirdev>` (libvirt 9.0, formatdomain "Consoles, serial, parallel & channel devices").
import {
  allKept,
  attribute,
  child,
  children,
  element,
  type Field,
  kept,
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
import { internalError, unsupported, xmlError } from '../errors.ts';
import { deviceInfo } from './common.ts';

const backendTypes = [
  ...(['null', 'vc', 'pty', 'dev', 'file', 'pipe', 'stdio', 'udp', 'tcp', 'unix', 'spicevmc', 'spiceport'] as const),
  ...(['nmdm', 'qemu-vdagent', 'dbus'] as const),
] as const;
export type BackendType = (typeof backendTypes)[number];

const source = element('source', {
  mode: attribute('mode', oneOf('connect', 'bind')),
  host: attribute('host', string),
  service: attribute('service', string),
  path: attribute('path', string),
  channel: attribute('channel', string),
  master: attribute('master', string),
  slave: attribute('slave', string),
  append: attribute('append', onOff),
  tls: attribute('tls', yesNo),
  reconnect: child(element('reconnect', { enabled: attribute('enabled', yesNo), timeout: attribute('timeout', unsigned) })),
  seclabels: allKept('seclabel'),
});
export type CharacterSource = Value<typeof source>;

const type: Field<BackendType> = required('type', oneOf(...backendTypes), {
  invalid: (text) => unsupported(`unknown type presented to host for character device: ${text}`),
  missing: () => unsupported('unknown type presented to host for character device: (null)'),
});

/** What is on the host's side of any character device. */
const backend = {
  sources: children(source),
  protocol: child(element('protocol', { type: required('type', oneOf('raw', 'telnet', 'telnets', 'tls')) })),
  log: child(element('log', { file: required('file', string), append: attribute('append', onOff) })),
};

export interface CharacterBackend {
  type: BackendType;
  sources: CharacterSource[];
  protocol?: { type: string };
  log?: { file: string; append?: 'on' | 'off' };
}

/** Where the other end is: the `connect` or only source; udp has two. */
export const endpoint = (device: CharacterBackend, mode?: 'bind' | 'connect'): CharacterSource | undefined =>
  mode ? device.sources.find((one) => one.mode === mode) : device.sources[0];

/** @throws DomainXmlError when the source lacks what its type needs. */
function checkBackend(device: CharacterBackend): void {
  const [first] = device.sources;
  switch (device.type) {
    case 'file':
    case 'dev':
    case 'pipe':
      if (first?.path === undefined) throw internalError('Missing source path attribute for char device');
      break;
    case 'tcp':
      if (first?.host === undefined) throw internalError('Missing source host attribute for char device');
      if (first.service === undefined) throw internalError('Missing source service attribute for char device');
      device.protocol ??= { type: 'raw' };
      break;
    case 'udp':
      if ((endpoint(device, 'connect') ?? first)?.service === undefined) {
        throw internalError('Missing source service attribute for char device');
      }
      // libvirt prints the bound end first.
      device.sources.sort((a, b) => Number(b.mode === 'bind') - Number(a.mode === 'bind'));
      break;
    case 'spiceport':
      if (first?.channel === undefined) throw internalError('Missing source channel attribute for char device');
      break;
    case 'nmdm':
      if (first?.master === undefined || first.slave === undefined) {
        throw internalError('Missing master path attribute for nmdm device');
      }
      break;
  }
}

const checked = <T extends CharacterBackend>(value: T): T => {
  checkBackend(value);
  return value;
};

const unknownTarget = {
  invalid: (text: string) => unsupported(`unknown target type '${text}' specified for character device`),
};

export const serial = refine(
  element('serial', {
    type,
    ...backend,
    target: child(
      element('target', {
        type: attribute('type', oneOf('isa-serial', 'usb-serial', 'pci-serial', 'isa-debug', 'system-serial'), unknownTarget),
        port: attribute('port', unsigned),
        model: child(element('model', { name: required('name', string) })),
      }),
    ),
    ...deviceInfo,
  }),
  checked,
);
export type Serial = Value<typeof serial>;

export const parallel = refine(
  element('parallel', {
    type,
    ...backend,
    target: child(element('target', { type: attribute('type', string), port: attribute('port', unsigned) })),
    ...deviceInfo,
  }),
  checked,
);
export type Parallel = Value<typeof parallel>;

const consoleTargets = ['serial', 'xen', 'uml', 'virtio', 'lxc', 'openvz', 'sclp', 'sclplm', 'isa-serial'] as const;

export const consoleDevice = refine(
  element('console', {
    type,
    tty: attribute('tty', string),
    ...backend,
    target: child(
      element('target', {
        type: withDefault(attribute('type', oneOf(...consoleTargets), unknownTarget), 'serial' as const),
        port: attribute('port', unsigned),
        model: kept('model'),
      }),
    ),
    ...deviceInfo,
  }),
  checked,
);
export type ConsoleDevice = Value<typeof consoleDevice>;

export const channel = refine(
  element('channel', {
    type,
    ...backend,
    target: child(
      element('target', {
        type: required('type', oneOf('guestfwd', 'virtio', 'xen', 'none'), unknownTarget),
        name: attribute('name', string),
        address: attribute('address', string),
        port: attribute('port', string),
        state: attribute('state', oneOf('connected', 'disconnected')),
      }),
    ),
    ...deviceInfo,
  }),
  (value) => {
    if (!value.target) throw xmlError('target type must be specified for channel device');
    if (value.target.type === 'guestfwd') {
      if (value.target.address === undefined) throw xmlError('guestfwd channel does not define a target address');
      if (value.target.port === undefined) throw xmlError('guestfwd channel does not define a target port');
    }
    if (value.type === 'spicevmc' && value.target.type === 'virtio') value.target.name ??= 'com.redhat.spice.0';
    return checked(value);
  },
);
export type Channel = Value<typeof channel>;

/** A redirected device's or smartcard's type may be absent, so it has its own field. */
const optionalType = attribute('type', oneOf(...backendTypes));

export const smartcard = element('smartcard', {
  mode: required('mode', oneOf('host', 'host-certificates', 'passthrough')),
  type: optionalType,
  ...backend,
  certificates: allKept('certificate'),
  database: kept('database'),
  ...deviceInfo,
});
export type Smartcard = Value<typeof smartcard>;

export const redirdev = refine(
  element('redirdev', { bus: withDefault(attribute('bus', oneOf('usb')), 'usb' as const), type, ...backend, ...deviceInfo }),
  checked,
);
export type Redirdev = Value<typeof redirdev>;
