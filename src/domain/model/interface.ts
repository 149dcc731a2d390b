// `<interface>` (libvirt 9.0, formatdomain "Network interfaces").
import {
  allKept,
  attribute,
  child,
  children,
  element,
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
import { internalError, unsupported, xmlError } from '../errors.ts';
import { deviceInfo, virtioOptions } from './common.ts';

const interfaceTypes = [
  ...(['user', 'ethernet', 'vhostuser', 'server', 'client', 'mcast', 'udp', 'network', 'bridge', 'internal'] as const),
  ...(['direct', 'hostdev', 'vdpa', 'null', 'vds'] as const),
] as const;
export type InterfaceType = (typeof interfaceTypes)[number];

const source = element('source', {
  network: attribute('network', string),
  portgroup: attribute('portgroup', string),
  portid: attribute('portid', string),
  bridge: attribute('bridge', string),
  type: attribute('type', string),
  path: attribute('path', string),
  dev: attribute('dev', string),
  mode: attribute('mode', string),
  name: attribute('name', string),
  address: attribute('address', string),
  port: attribute('port', unsigned, { invalid: () => internalError("Missing 'port' attribute in <source>") }),
  local: child(element('local', { address: attribute('address', string), port: attribute('port', unsigned) })),
  reconnect: kept('reconnect'),
  pci: kept('address'),
  ips: allKept('ip'),
  routes: allKept('route'),
});

const driver = element('driver', {
  name: attribute('name', oneOf('qemu', 'vhost', 'vfio', 'kvm', 'xen')),
  txmode: attribute('txmode', oneOf('iothread', 'timer')),
  ioeventfd: attribute('ioeventfd', onOff),
  eventIdx: attribute('event_idx', onOff),
  queues: attribute('queues', unsigned),
  rxQueueSize: attribute('rx_queue_size', unsigned),
  txQueueSize: attribute('tx_queue_size', unsigned),
  rss: attribute('rss', onOff),
  rssHashReport: attribute('rss_hash_report', onOff),
  ...virtioOptions,
  host: kept('host'),
  guest: kept('guest'),
});

const ip = element('ip', {
  address: required('address', string),
  family: attribute('family', oneOf('ipv4', 'ipv6')),
  prefix: attribute('prefix', unsigned),
  peer: attribute('peer', string),
});

const macPattern = /^[0-9a-f]{1,2}(:[0-9a-f]{1,2}){5}$/i;

/** A MAC address in lower case with two digits each. @throws DomainXmlError when it is not one, or a multicast one. */
export function parseMac(text: string): string {
  if (!macPattern.test(text)) throw xmlError(`unable to parse mac address '${text}'`);
  const bytes = text.split(':').map((byte) => Number.parseInt(byte, 16));
  const normal = bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':');
  if (bytes[0]! & 1) throw xmlError(`expected unicast mac address, found multicast '${normal}'`);
  return normal;
}

export const networkInterface = refine(
  element('interface', {
    type: withDefault(attribute('type', oneOf(...interfaceTypes)), 'user' as const),
    trustGuestRxFilters: attribute('trustGuestRxFilters', yesNo),
    managed: attribute('managed', yesNo),
    mac: child(
      element('mac', {
        address: required('address', string),
        type: attribute('type', oneOf('generated', 'static')),
        check: attribute('check', yesNo),
      }),
    ),
    source: child(source),
    ips: children(ip),
    routes: allKept('route'),
    script: kept('script'),
    downscript: kept('downscript'),
    backenddomain: kept('backenddomain'),
    vlan: kept('vlan'),
    virtualport: kept('virtualport'),
    bandwidth: kept('bandwidth'),
    target: child(element('target', { dev: attribute('dev', string), managed: attribute('managed', yesNo) })),
    guest: kept('guest'),
    model: child(element('model', { type: required('type', string) })),
    driver: child(driver),
    backend: kept('backend'),
    filterref: kept('filterref'),
    tune: kept('tune'),
    link: child(
      element('link', {
        state: required('state', oneOf('up', 'down'), {
          invalid: (text) => unsupported(`unknown interface link state '${text}'`),
        }),
      }),
    ),
    mtu: child(element('mtu', { size: required('size', positive) })),
    coalesce: kept('coalesce'),
    port: kept('port'),
    teaming: kept('teaming'),
    ...deviceInfo,
  }),
  (value) => {
    if (value.mac) value.mac.address = parseMac(value.mac.address);
    // One queue is what there is without the attribute, and libvirt does not print it.
    if (value.driver?.queues === 1) delete value.driver.queues;
    for (const one of value.ips) one.family ??= one.address.includes(':') ? 'ipv6' : 'ipv4';
    checkSource(value.type, value.source);
    return value;
  },
);
export type NetworkInterface = Value<typeof networkInterface>;

function checkSource(type: InterfaceType, given: Value<typeof source> | undefined): void {
  if (type === 'user' || type === 'ethernet' || type === 'null') return;
  if (!given) throw xmlError(`interface type='${type}' requires a 'source' element`);
  const needs: Partial<Record<InterfaceType, 'network' | 'bridge' | 'dev' | 'path' | 'port' | 'name'>> = {
    ...{ network: 'network', bridge: 'bridge', direct: 'dev', vhostuser: 'path', vdpa: 'dev', internal: 'name' },
    ...{ server: 'port', client: 'port', mcast: 'port', udp: 'port' },
  };
  const needed = needs[type];
  if (needed && given[needed] === undefined) {
    throw xmlError(`Missing required attribute '${needed}' in element 'source'`);
  }
}

/** The models of a virtio network card. */
export const isVirtioNet = (one: NetworkInterface): boolean =>
  ['virtio', 'virtio-transitional', 'virtio-non-transitional'].includes(one.model?.type ?? '');
