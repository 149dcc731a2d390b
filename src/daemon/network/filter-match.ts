// What one match of a filter's rule, such as `<ip srcipaddr='$IP'/>`, is in nftables' words. libvirt 9.0 formatnwfilter; nft(8), families bridge and inet.
import type { XmlElement } from '../../domain/xml.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';

/** The value of an attribute with its variables put in. A set of nftables' begins with `@`. */
export type Resolve = (value: string) => string;

interface Attribute {
  /** The expression that is compared; of a port without its protocol. */
  readonly of: string;
  readonly kind: 'mac' | 'ipv4' | 'ipv6' | 'number' | 'port' | 'protocol' | 'opcode';
  /** The attribute with its mask. */
  readonly mask?: string;
  /** The attribute with the last of a range. */
  readonly end?: string;
}
type Attributes = Readonly<Record<string, Attribute>>;

const ethernet: Attributes = {
  srcmacaddr: { of: 'ether saddr', kind: 'mac', mask: 'srcmacmask' },
  dstmacaddr: { of: 'ether daddr', kind: 'mac', mask: 'dstmacmask' },
};
const ports: Attributes = {
  srcportstart: { of: 'sport', kind: 'port', end: 'srcportend' },
  dstportstart: { of: 'dport', kind: 'port', end: 'dstportend' },
};
/** Fields of ARP and RARP by their places: nft's own words are for ARP alone. RFC 826. */
const resolution: Attributes = {
  hwtype: { of: '@nh,0,16', kind: 'number' },
  protocoltype: { of: '@nh,16,16', kind: 'number' },
  opcode: { of: '@nh,48,16', kind: 'opcode' },
  arpsrcmacaddr: { of: '@nh,64,48', kind: 'mac' },
  arpsrcipaddr: { of: '@nh,112,32', kind: 'ipv4', mask: 'arpsrcipmask' },
  arpdstmacaddr: { of: '@nh,144,48', kind: 'mac' },
  arpdstipaddr: { of: '@nh,192,32', kind: 'ipv4', mask: 'arpdstipmask' },
};
const addresses = (word: 'ip' | 'ip6', kind: 'ipv4' | 'ipv6'): Attributes => ({
  srcipaddr: { of: `${word} saddr`, kind, mask: 'srcipmask' },
  dstipaddr: { of: `${word} daddr`, kind, mask: 'dstipmask' },
  dscp: { of: `${word} dscp`, kind: 'number' },
});

interface Protocol {
  /** What has to hold of every packet of it. */
  readonly is: string;
  readonly attributes: Attributes;
  /** Above Ethernet, with connections: the rule belongs to what a firewall of addresses does. */
  readonly tracked?: boolean;
}
const transport = (name: string, number: string, more: Attributes = {}): readonly (readonly [string, Protocol])[] => [
  [
    name,
    {
      is: `ether type ip${number === '' ? '' : ` ip protocol ${number}`}`,
      attributes: { ...onlySource, ...addresses('ip', 'ipv4'), ...more },
      tracked: true,
    },
  ],
  [
    `${name === 'icmp' ? 'icmpv6' : name}${name === 'icmp' ? '' : '-ipv6'}`,
    {
      is: `ether type ip6${number === '' ? '' : ` meta l4proto ${number === '1' ? '58' : number}`}`,
      attributes: { ...onlySource, ...addresses('ip6', 'ipv6'), ...more },
      tracked: true,
    },
  ],
];
const onlySource: Attributes = { srcmacaddr: ethernet['srcmacaddr']! };
const icmp: Attributes = { type: { of: '@th,0,8', kind: 'number' }, code: { of: '@th,8,8', kind: 'number' } };

const protocols: ReadonlyMap<string, Protocol> = new Map<string, Protocol>([
  ['mac', { is: '', attributes: { ...ethernet, protocolid: { of: 'ether type', kind: 'protocol' } } }],
  ['vlan', { is: 'ether type vlan', attributes: { ...ethernet, vlanid: { of: 'vlan id', kind: 'number' } } }],
  ['stp', { is: 'ether daddr 01:80:c2:00:00:00', attributes: onlySource }],
  ['arp', { is: 'ether type arp', attributes: { ...ethernet, ...resolution } }],
  ['rarp', { is: 'ether type 0x8035', attributes: { ...ethernet, ...resolution } }],
  [
    'ip',
    {
      is: 'ether type ip',
      attributes: {
        ...ethernet,
        ...addresses('ip', 'ipv4'),
        protocol: { of: 'ip protocol', kind: 'protocol' },
        ...ports,
      },
    },
  ],
  [
    'ipv6',
    {
      is: 'ether type ip6',
      attributes: {
        ...ethernet,
        ...addresses('ip6', 'ipv6'),
        protocol: { of: 'meta l4proto', kind: 'protocol' },
        ...ports,
        ...icmp,
      },
    },
  ],
  ...transport('tcp', '6', ports),
  ...transport('udp', '17', ports),
  ...transport('udplite', '136', ports),
  ...transport('sctp', '132', ports),
  ...transport('icmp', '1', icmp),
  ...transport('igmp', '2'),
  ...transport('esp', '50'),
  ...transport('ah', '51'),
  ...transport('all', ''),
]);

const etherTypes: Readonly<Record<string, string>> = {
  ipv4: '0x0800',
  arp: '0x0806',
  rarp: '0x8035',
  ipv6: '0x86dd',
  vlan: '0x8100',
};
const transports: Readonly<Record<string, string>> = {
  ...{ tcp: '6', udp: '17', udplite: '136', esp: '50', ah: '51', icmp: '1', igmp: '2', sctp: '132', icmpv6: '58' },
};
/** Operations of ARP by libvirt's names, from 1. */
const opcodes = [
  ...['Request', 'Reply', 'Request_Reverse', 'Reply_Reverse', 'DRARP_Request', 'DRARP_Reply', 'DRARP_Error'],
  ...['InARP_Request', 'ARP_NAK'],
];
/** Attributes that say nothing of packets. */
const notes = new Set(['match', 'comment', 'state']);

const refused = (element: XmlElement, what: string): Error =>
  libvirtError('configUnsupported', 'nwfilter', `<${element.name}> in a rule: ${what}`);

/** A number, an address or a mask that nft takes as it is. @throws {LibvirtError} */
function operand(element: XmlElement, name: string, kind: Attribute['kind'], value: string): string {
  if (/^@\w+$/.test(value)) return value;
  const known = kind === 'protocol' ? (etherTypes[value] ?? transports[value]) : undefined;
  if (known !== undefined) return known;
  if (kind === 'opcode' && opcodes.includes(value)) return String(opcodes.indexOf(value) + 1);
  const pattern = { mac: /^[\da-f]{1,2}(:[\da-f]{1,2}){5}$/i, ipv4: /^\d+(\.\d+){3}$/, ipv6: /^[\da-f:.]*:[\da-f:.]*$/i };
  const fits = kind in pattern ? pattern[kind as keyof typeof pattern] : /^(0x[\da-f]+|\d+)$/i;
  if (!fits.test(value)) throw refused(element, `${name}='${value}' is no ${kind === 'opcode' ? 'operation' : kind}`);
  return value;
}

/** The address in raw bytes of a packet, as one number. */
const raw = (kind: Attribute['kind'], value: string): string =>
  kind === 'mac'
    ? `0x${value
        .split(':')
        .map((part) => part.padStart(2, '0'))
        .join('')}`
    : kind === 'ipv4' && !value.startsWith('@')
      ? `0x${value
          .split('.')
          .map((part) => Number(part).toString(16).padStart(2, '0'))
          .join('')}`
      : value;

/** The number of a mask of addresses by its length or its dotted text. */
const rawMask = (mask: string): string =>
  /^\d+$/.test(mask)
    ? `0x${((2n ** 32n - 1n) ^ ((1n << (32n - BigInt(mask))) - 1n)).toString(16).padStart(8, '0')}`
    : raw('ipv4', mask);

export interface Match {
  /** nft's text; empty where every packet matches. */
  readonly text: string;
  /** It is of a protocol above Ethernet, with connections. */
  readonly tracked: boolean;
}

/** @throws {LibvirtError} for a match that is not understood */
export function matchOf(element: XmlElement, resolve: Resolve): Match {
  const protocol = protocols.get(element.name);
  if (!protocol) throw refused(element, 'this protocol is not supported');
  const given = new Map(Object.entries(element.attributes).filter(([name]) => !notes.has(name)));
  const values = new Map([...given].map(([name, value]) => [name, resolve(value)]));
  const not = element.attributes['match'] === 'no' ? '!= ' : '';
  const done = new Set<string>();
  const parts = protocol.is === '' ? [] : [protocol.is];
  /** Ports need to know of which protocol. */
  let over = protocol.tracked ? (/(?:protocol|l4proto) (\d+)$/.exec(protocol.is)?.[1] ?? '') : '';
  for (const [name, { of, kind, mask, end }] of Object.entries(protocol.attributes)) {
    const value = values.get(name);
    for (const one of [name, mask, end]) if (one !== undefined) done.add(one);
    if (value === undefined) continue;
    const text = operand(element, name, kind, value);
    if (name === 'protocol') over = text;
    const word = kind === 'port' ? `${wordOf(element, over)} ${of}` : of;
    const [maskText, endText] = [mask && values.get(mask), end && values.get(end)];
    if (text.startsWith('@')) parts.push(setMatch(element, of, not, text));
    else if (of.startsWith('@nh')) {
      const number = BigInt(raw(kind, text));
      const less = maskText === undefined ? undefined : BigInt(rawMask(maskText));
      const wanted = less === undefined ? number : number & less;
      parts.push(`${of}${less === undefined ? '' : ` & 0x${less.toString(16)}`} ${not || '== '}0x${wanted.toString(16)}`);
    } else if (maskText !== undefined && kind === 'mac')
      parts.push(`${word} & ${operand(element, mask!, 'mac', maskText)} ${not || '== '}${text}`);
    else if (maskText !== undefined) {
      const prefix = /^\d+$/.test(maskText) ? maskText : prefixOf(element, maskText);
      parts.push(`${word} ${not}${text}/${prefix}`);
    } else if (endText !== undefined) parts.push(`${word} ${not}${text}-${operand(element, end!, 'number', endText)}`);
    else parts.push(`${word} ${not}${text}`);
  }
  const { state } = element.attributes;
  if (state !== undefined && state !== 'NONE') {
    if (!protocol.tracked || !/^(NEW|ESTABLISHED|RELATED|INVALID)(,(NEW|ESTABLISHED|RELATED|INVALID))*$/.test(state))
      throw refused(element, `state='${state}' is not supported`);
    parts.push(`ct state ${state.toLowerCase()}`);
  }
  const unknown = [...given.keys()].find((name) => !done.has(name));
  if (unknown !== undefined) throw refused(element, `the attribute '${unknown}' is not supported`);
  return { text: parts.join(' '), tracked: protocol.tracked === true };
}

/** A set of addresses is compared by words that know their type. */
function setMatch(element: XmlElement, of: string, not: string, set: string): string {
  if (of === '@nh,112,32' && element.name === 'arp') return `arp saddr ip ${not}${set}`;
  if (of === '@nh,192,32' && element.name === 'arp') return `arp daddr ip ${not}${set}`;
  if (of.startsWith('@nh')) throw refused(element, 'addresses that are to be learnt can be compared in IP and ARP only');
  return `${of} ${not}${set}`;
}

function wordOf(element: XmlElement, number: string): string {
  const found = Object.entries(transports).find(([, value]) => value === number)?.[0];
  if (found === undefined || !['tcp', 'udp', 'udplite', 'sctp'].includes(found)) {
    throw refused(element, 'ports need a protocol that has them: tcp, udp, udplite or sctp');
  }
  return found;
}

function prefixOf(element: XmlElement, mask: string): number {
  const number = mask.split('.').reduce((sum, part) => sum * 256n + BigInt(Number(part)), 0n);
  const length = number.toString(2).replaceAll('0', '').length;
  if (!/^\d+(\.\d+){3}$/.test(mask) || number !== ((2n ** 32n - 1n) ^ (2n ** BigInt(32 - length) - 1n)))
    throw refused(element, `'${mask}' is no mask of an IPv4 address`);
  return length;
}
