// The options of `-netdev user` and what they mean together. QEMU 7.2 system manual, "Network options".
import {
  type Address,
  formatAddress,
  hostAddress,
  inPrefix,
  maskOf,
  networkOf,
  parseAddress,
  parseIpv4,
  parseIpv6,
  sameAddress,
} from './address.ts';
import { get32 } from './bytes.ts';
import type { HostAddress } from './host.ts';

/** `hostfwd=`: what comes to the host's address goes to the guest's. A unix path is for TCP only. */
export interface HostForward {
  readonly protocol: 'tcp' | 'udp';
  readonly host: HostAddress;
  readonly guest: Address;
  readonly port: number;
}

/** `guestfwd=`: what the guest opens to a virtual server goes to the host's address, one connection each. */
export interface GuestForward {
  readonly server: Address;
  readonly port: number;
  readonly to: HostAddress;
}

export interface Subnet {
  readonly network: Address;
  readonly prefix: number;
  /** The router's, through which the guest also reaches the host. */
  readonly host: Address;
  readonly dns: Address;
}

export interface UserNetOptions {
  readonly ipv4: (Subnet & { readonly dhcpStart: Address }) | undefined;
  readonly ipv6: Subnet | undefined;
  readonly restrict: boolean;
  readonly hostname: string | undefined;
  readonly domainName: string | undefined;
  readonly dnsSearch: readonly string[];
  readonly tftpServerName: string | undefined;
  readonly bootfile: string | undefined;
  /** The folder whose files the guest may read by TFTP from the router. */
  readonly tftp: string | undefined;
  readonly hostForwards: readonly HostForward[];
  readonly guestForwards: readonly GuestForward[];
  /** Largest IP packet of a frame, 1280 to 65535. The device's MTU must not be smaller. */
  readonly mtu: number;
  /** Host sockets at once; the one longest unused is closed for one more. */
  readonly maxTcp: number;
  readonly maxUdp: number;
}

const bad = (what: string, found: string, accepted: string): Error =>
  new Error(`Cannot parse ${what}: '${found}', ${accepted} is accepted`);

function onOff(key: string, text: string): boolean {
  if (['on', 'yes', 'y', 'true'].includes(text)) return true;
  if (['off', 'no', 'n', 'false'].includes(text)) return false;
  throw bad(key, text, 'on or off');
}

function ipv4(key: string, text: string): Address {
  const a = parseIpv4(text);
  if (a === undefined) throw bad(key, text, 'an IPv4 address');
  return a;
}

function ipv6(key: string, text: string): Address {
  const a = parseIpv6(text);
  if (a === undefined) throw bad(key, text, 'an IPv6 address');
  return a;
}

function portOf(key: string, text: string, least: number): number {
  const n = Number(text);
  if (!/^\d+$/.test(text) || n < least || n > 65_535) throw bad(key, text, `a port, ${least} to 65535,`);
  return n;
}

/** Prefix length of `net=`: a number, a mask, or for a bare address what its class would have. */
function ipv4Prefix(network: Address, text: string | undefined): number {
  if (text === undefined) return network[0] < 128 ? 8 : network[0] < 192 ? 16 : 24;
  if (/^\d+$/.test(text) && Number(text) <= 30 && Number(text) >= 4) return Number(text);
  const mask = parseIpv4(text);
  const length = mask === undefined ? -1 : Math.clz32(~get32(mask, 0));
  if (mask === undefined || length < 4 || length > 30 || maskOf(length) !== get32(mask, 0)) {
    throw bad('net', text, 'a mask of 4 to 30 bits');
  }
  return length;
}

function ipv4Net(get: (key: string) => string | undefined): UserNetOptions['ipv4'] {
  const [net, mask] = (get('net') ?? '10.0.2.0/24').split('/');
  const given = ipv4('net', net);
  const prefix = ipv4Prefix(given, mask);
  const network = networkOf(given, prefix);
  const inside = (key: string, host: number): Address => {
    const text = get(key);
    const a = text === undefined ? hostAddress(network, host) : ipv4(key, text);
    if (!inPrefix(a, network, prefix)) throw bad(key, formatAddress(a), `an address in ${formatAddress(network)}/${prefix}`);
    return a;
  };
  const small = prefix > 27;
  const out = { network, prefix, host: inside('host', 2), dns: inside('dns', 3), dhcpStart: inside('dhcpstart', small ? 4 : 15) };
  if (sameAddress(out.host, out.dns)) throw bad('dns', formatAddress(out.dns), 'an address that differs from host=');
  return out;
}

function ipv6Net(get: (key: string) => string | undefined): Subnet {
  const [net, length] = (get('ipv6-net') ?? `${get('ipv6-prefix') ?? 'fec0::'}/${get('ipv6-prefixlen') ?? 64}`).split('/');
  const prefix = Number(length ?? 64);
  // Stateless configuration needs 64 bits for the interface (RFC 4862, section 5.5.3).
  if (prefix !== 64) throw bad('ipv6-net', `${net}/${length}`, 'a prefix of 64 bits');
  const network = networkOf(ipv6('ipv6-net', net), prefix);
  const inside = (key: string, host: number): Address => {
    const text = get(key);
    const a = text === undefined ? hostAddress(network, host) : ipv6(key, text);
    if (!inPrefix(a, network, prefix)) throw bad(key, formatAddress(a), `an address in ${formatAddress(network)}/${prefix}`);
    return a;
  };
  const out = { network, prefix, host: inside('ipv6-host', 2), dns: inside('ipv6-dns', 3) };
  if (sameAddress(out.host, out.dns)) throw bad('ipv6-dns', formatAddress(out.dns), 'an address that differs from ipv6-host=');
  return out;
}

const unbracket = (text: string): string => text.replace(/^\[(.*)\]$/, '$1');

/** `[tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport` or `unix:path-[guestaddr]:guestport`; `guest` where no address is given. */
export function parseHostForward(text: string, guest: Address | undefined): HostForward {
  const form = '[tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport or unix:path-[guestaddr]:guestport';
  const m = /^(?:(tcp|udp)?:(\[[^\]]*\]|[^:[\]]*):(\d+)|unix:(.+))-(\[[^\]]*\]|[^:[\]]*):(\d+)$/.exec(text);
  if (m === null) throw bad('hostfwd', text, form);
  const [, protocol, address, port, path, to, toPort] = m;
  const host = unbracket(address ?? '');
  if (host !== '' && parseAddress(host) === undefined) throw bad('hostfwd', text, 'a numeric host address');
  const target = to === '' ? guest : parseAddress(unbracket(to));
  if (target === undefined)
    throw bad('hostfwd', text, to === '' ? 'a guest address where IPv4 is off' : 'a numeric guest address');
  return {
    protocol: protocol === 'udp' ? 'udp' : 'tcp',
    host: path === undefined ? { host: host === '' ? '0.0.0.0' : host, port: portOf('hostfwd', port, 0) } : { path },
    guest: target,
    port: portOf('hostfwd', toPort, 1),
  };
}

/** `[tcp]:server:port-tcp:host:port` or `…-unix:path`. */
export function parseGuestForward(text: string): GuestForward {
  const m = /^(?:tcp)?:(\[[^\]]*\]|[^:[\]]*):(\d+)-(?:tcp:(\[[^\]]*\]|[^:[\]]*):(\d+)|unix:([^,]+))$/.exec(text);
  if (m === null) throw bad('guestfwd', text, '[tcp]:server:port-tcp:host:port or [tcp]:server:port-unix:path');
  const [, server, port, host, hostPort, path] = m;
  const address = parseAddress(unbracket(server));
  if (address === undefined) throw bad('guestfwd', text, 'a numeric server address');
  const to = path === undefined ? { host: unbracket(host), port: portOf('guestfwd', hostPort, 1) } : { path };
  return { server: address, port: portOf('guestfwd', port, 1), to };
}

const single = [
  'ipv4',
  'ipv6',
  'net',
  'host',
  'dns',
  'dhcpstart',
  'ipv6-net',
  'ipv6-prefix',
  'ipv6-prefixlen',
  'ipv6-host',
  'ipv6-dns',
  'restrict',
  'hostname',
  'domainname',
  'tftp-server-name',
  'bootfile',
  'tftp',
] as const; // prettier-ignore
const many = ['dnssearch', 'hostfwd', 'guestfwd'] as const;

/**
 * Reads the options behind `-netdev user,id=…`, as key and value in their order. Throws by name what is not known (smb is not
 * supported) and what is not valid. `net=` may be any private network.
 */
export function parseUserNet(pairs: readonly (readonly [string, string])[] = []): UserNetOptions {
  for (const [key, value] of pairs) {
    if (!(single as readonly string[]).includes(key) && !(many as readonly string[]).includes(key)) {
      throw new Error(
        `Cannot use ${key}=${value} with -netdev user: not supported; known are ${[...single, ...many].join(', ')}`,
      );
    }
  }
  const all = (key: string): string[] => pairs.filter(([k]) => k === key).map(([, v]) => v);
  const get = (key: string): string | undefined => all(key).at(-1);
  const on4 = get('ipv4') === undefined ? undefined : onOff('ipv4', get('ipv4')!);
  const on6 = get('ipv6') === undefined ? undefined : onOff('ipv6', get('ipv6')!);
  // One alone switched on means the other is off; one alone switched off, the other on.
  const use4 = on4 ?? on6 !== true;
  const use6 = on6 ?? on4 !== true;
  if (!use4 && !use6) throw bad('ipv4 and ipv6', 'off', 'at least one that is on');
  const v4 = use4 ? ipv4Net(get) : undefined;
  const v6 = use6 ? ipv6Net(get) : undefined;
  const guestForwards = all('guestfwd').map(parseGuestForward);
  for (const f of guestForwards) {
    const inside =
      (v4 !== undefined && inPrefix(f.server, v4.network, v4.prefix)) ||
      (v6 !== undefined && inPrefix(f.server, v6.network, v6.prefix));
    if (!inside) throw bad('guestfwd', formatAddress(f.server), "an address in the guest's network");
  }
  return {
    ipv4: v4,
    ipv6: v6,
    restrict: get('restrict') !== undefined && onOff('restrict', get('restrict')!),
    hostname: get('hostname'),
    domainName: get('domainname'),
    dnsSearch: all('dnssearch'),
    tftpServerName: get('tftp-server-name'),
    bootfile: get('bootfile'),
    tftp: get('tftp'),
    hostForwards: all('hostfwd').map((f) => parseHostForward(f, v4?.dhcpStart)),
    guestForwards,
    mtu: 1500,
    maxTcp: 512,
    maxUdp: 256,
  };
}
