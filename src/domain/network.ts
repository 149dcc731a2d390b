// `<network>`: forwarding, bridge, addresses, DHCP and DNS of a virtual network (libvirt 9.0, formatnetwork).
import { ipNumber, isIp, prefixOfMask } from './addresses.ts';
import {
  allKept,
  attribute,
  child,
  children,
  element,
  kept,
  leaf,
  oneOf,
  refine,
  string,
  unsigned,
  type Value,
  withDefault,
  yesNo,
} from './codec.ts';
import { uuidField } from './domain.ts';
import { type DefineContext, randomMac, randomUuid } from './emulator.ts';
import { DomainXmlError, errorCode, internalError, unsupported, xmlError } from './errors.ts';
import { standingOpen } from './model/sizes.ts';
import { childNamed, formatXml, parseRoot, textOf } from './xml.ts';

const modes = ['none', 'nat', 'route', 'open', 'bridge', 'private', 'vepa', 'passthrough', 'hostdev'] as const;
export type ForwardMode = (typeof modes)[number];

const forward = element('forward', {
  dev: attribute('dev', string),
  mode: withDefault(
    attribute('mode', oneOf(...modes), { invalid: (text) => unsupported(`unknown forwarding type '${text}'`) }),
    'nat' as const,
  ),
  managed: attribute('managed', yesNo),
  driver: kept('driver'),
  nat: child(
    element('nat', {
      ipv6: attribute('ipv6', yesNo),
      address: child(element('address', { start: attribute('start', string), end: attribute('end', string) })),
      port: child(element('port', { start: attribute('start', unsigned), end: attribute('end', unsigned) })),
    }),
  ),
  interfaces: children(element('interface', { dev: attribute('dev', string), connections: attribute('connections', unsigned) })),
  addresses: allKept('address'),
  pf: kept('pf'),
});

const range = element('range', { start: attribute('start', string), end: attribute('end', string), lease: kept('lease') });
const host = element('host', {
  id: attribute('id', string),
  mac: attribute('mac', string),
  name: attribute('name', string),
  ip: attribute('ip', string),
  lease: kept('lease'),
});

const ip = standingOpen(
  element('ip', {
    family: attribute('family', oneOf('ipv4', 'ipv6')),
    address: attribute('address', string),
    netmask: attribute('netmask', string),
    prefix: attribute('prefix', unsigned),
    localPtr: attribute('localPtr', yesNo),
    tftp: child(element('tftp', { root: attribute('root', string) })),
    dhcp: child(
      element('dhcp', {
        ranges: children(range),
        hosts: children(host),
        bootp: child(element('bootp', { file: attribute('file', string), server: attribute('server', string) })),
      }),
    ),
  }),
);

const route = element('route', {
  family: attribute('family', oneOf('ipv4', 'ipv6')),
  address: attribute('address', string),
  netmask: attribute('netmask', string),
  prefix: attribute('prefix', unsigned),
  gateway: attribute('gateway', string),
  metric: attribute('metric', unsigned),
});

const portgroup = standingOpen(
  element('portgroup', {
    name: attribute('name', string),
    default: attribute('default', yesNo),
    trustGuestRxFilters: attribute('trustGuestRxFilters', yesNo),
    virtualport: kept('virtualport'),
    bandwidth: kept('bandwidth'),
    vlan: kept('vlan'),
    port: kept('port'),
  }),
);

const root = refine(
  element('network', {
    ipv6: attribute('ipv6', yesNo),
    connections: attribute('connections', unsigned),
    trustGuestRxFilters: attribute('trustGuestRxFilters', yesNo),
    name: leaf('name', string),
    uuid: uuidField,
    title: leaf('title', string),
    description: leaf('description', string),
    metadata: kept('metadata'),
    forward: child(forward),
    bridge: child(
      element('bridge', {
        name: attribute('name', string),
        zone: attribute('zone', string),
        stp: attribute('stp', string),
        delay: attribute('delay', string),
        macTableManager: attribute('macTableManager', oneOf('kernel', 'libvirt')),
      }),
    ),
    mtu: child(element('mtu', { size: attribute('size', unsigned) })),
    mac: child(element('mac', { address: attribute('address', string) })),
    domain: child(
      element('domain', {
        name: attribute('name', string),
        localOnly: attribute('localOnly', yesNo),
        register: attribute('register', yesNo),
      }),
    ),
    dns: kept('dns'),
    vlan: kept('vlan'),
    bandwidth: kept('bandwidth'),
    ips: children(ip),
    routes: children(route),
    virtualport: kept('virtualport'),
    portgroups: children(portgroup),
    port: kept('port'),
    dnsmasqOptions: kept('dnsmasq:options'),
  }),
  (value) => value,
);
type NetworkDocument = Value<typeof root>;

/** A network definition. */
export interface Network extends NetworkDocument {
  name: string;
}

/** What a network does with packets that leave it. */
export const forwardMode = (network: Network): ForwardMode => network.forward?.mode ?? 'none';

/** Networks for which the daemon makes a bridge and serves addresses. */
const hasOwnBridge = (network: Network): boolean => ['none', 'nat', 'route', 'open'].includes(forwardMode(network));

/** @throws DomainXmlError with libvirt's code and message. */
export function parseNetwork(text: string): Network {
  const tree = parseRoot(text, 'network', 'network_definition');
  const named = childNamed(tree, 'name');
  const name = named && textOf(named);
  if (!name) throw new DomainXmlError(errorCode.noName, '');
  const value = root.parse(tree);
  if (name.includes('/')) throw new DomainXmlError(errorCode.malformed, 'invalid char in name: /');
  const network: Network = { ...value, name };
  if (value.mac?.address !== undefined && !/^[0-9a-f]{1,2}(:[0-9a-f]{1,2}){5}$/i.test(value.mac.address)) {
    throw xmlError(`Invalid bridge mac address '${value.mac.address}' in network '${name}'`);
  }
  if (network.domain && network.domain.name === undefined) delete network.domain;
  for (const one of network.portgroups) if (!one.name) throw xmlError('Missing required name attribute in portgroup');
  for (const one of network.ips) checkIp(one, name);
  for (const one of network.routes) checkRoute(one, name);
  checkForward(network);
  return network;
}

function checkIp(one: Network['ips'][number], name: string): void {
  const { address, netmask, prefix } = one;
  if (address === undefined || !isIp(address)) throw xmlError(`Invalid address '${address ?? ''}' in network '${name}'`);
  const v6 = address.includes(':');
  const family = v6 ? 'IPv6' : 'IPv4';
  if (one.family === 'ipv6' && !v6)
    throw unsupported(`family 'ipv6' specified for non-IPv6 address '${address}' in network '${name}'`);
  if (one.family === 'ipv4' && v6)
    throw unsupported(`family 'ipv4' specified for non-IPv4 address '${address}' in network '${name}'`);
  if (prefix !== undefined && prefix > (v6 ? 128 : 32))
    throw unsupported(`Invalid ${family} prefix '${prefix}' in network '${name}'`);
  if (netmask !== undefined && (v6 || !isIp(netmask)))
    throw unsupported(`Invalid netmask '${netmask}' for address '${address}' in network '${name}'`);
  const bits = prefix ?? (netmask === undefined ? undefined : prefixOfMask(netmask));
  for (const { start, end } of one.dhcp?.ranges ?? []) checkRange(start, end, address, bits, name);
  for (const given of one.dhcp?.hosts ?? []) {
    if (given.mac === undefined && given.name === undefined && given.id === undefined) {
      throw xmlError(`Static host definition in ${family} network '${name}' must have mac or name attribute`);
    }
    if (given.ip !== undefined && !isIp(given.ip)) {
      throw xmlError(`Invalid IP address in static host definition for network '${name}'`);
    }
  }
}

function checkRange(
  start: string | undefined,
  end: string | undefined,
  address: string,
  bits: number | undefined,
  name: string,
): void {
  for (const [which, value] of Object.entries({ start, end })) {
    if (value === undefined) throw xmlError(`Missing '${which}' attribute in dhcp range for network '${name}'`);
    if (!isIp(value)) throw xmlError(`Invalid dhcp range ${which} address '${value}' in network '${name}'`);
  }
  const [from, to, own] = [ipNumber(start!), ipNumber(end!), ipNumber(address)];
  if (from > to) throw internalError(`range ${start} - ${end} is reversed `);
  if (bits === undefined) return;
  const rest = BigInt((address.includes(':') ? 128 : 32) - bits);
  if (from >> rest !== own >> rest || to >> rest !== own >> rest) {
    throw internalError(`range ${start} - ${end} is not entirely within network ${address}/${bits}`);
  }
}

function checkRoute(one: Network['routes'][number], name: string): void {
  if (one.address === undefined) throw xmlError(`${name}: Missing required address attribute in route definition`);
  if (one.gateway === undefined) throw xmlError(`${name}: Missing required gateway attribute in route definition`);
}

function checkForward(network: Network): void {
  const { name, forward: given, bridge } = network;
  if (!given) return;
  const [first] = given.interfaces;
  if (given.dev !== undefined) {
    if (first?.dev !== undefined && first.dev !== given.dev) {
      throw xmlError(`<forward dev='${given.dev}'> must match first <interface dev='${first.dev}'/> in network ${name}`);
    }
    if (!first) given.interfaces.push({ dev: given.dev });
  } else if (first?.dev !== undefined) given.dev = first.dev;
  switch (given.mode) {
    case 'nat':
    case 'route':
    case 'open':
      if (network.ips.length === 0) {
        throw xmlError(`${given.mode} forwarding requested, but no IP address provided for network '${name}'`);
      }
      break;
    case 'bridge':
      if (bridge?.name !== undefined && given.interfaces.length > 0) {
        throw xmlError(
          `A network with forward mode='${given.mode}' can specify a bridge name or a forward dev, but not both (network '${name}')`,
        );
      }
      break;
    case 'none':
      delete network.forward;
      break;
  }
}

export interface NetworkContext {
  random: DefineContext['random'];
  /** A bridge name that nothing has: `virbr0`, `virbr1`, … */
  freeBridge(): string;
}

/** Fills in what a definition may leave open, in place: UUID, bridge and its MAC address. */
export function completeNetwork(network: Network, context: NetworkContext): Network {
  network.uuid ??= randomUuid(context.random);
  if (!hasOwnBridge(network)) return network;
  const { bridge } = network;
  network.bridge = {
    ...bridge,
    name: bridge?.name ?? context.freeBridge(),
    stp: bridge?.stp === 'off' ? 'off' : 'on',
    delay: bridge?.delay ?? '0',
  };
  network.mac ??= { address: randomMac(context.random) };
  return network;
}

/** The network's XML text as libvirt prints it. */
export const formatNetwork = (network: Network): string => formatXml(root.format(network));
