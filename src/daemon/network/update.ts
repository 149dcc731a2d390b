// `net-update`: one entry of a network's definition is added, changed or deleted. libvirt 9.0, virNetworkUpdate.
import { formatNetwork, type Network, parseNetwork } from '../../domain/network.ts';
import { childNamed, elementsOf, formatXml, newElement, parseXml, type XmlElement } from '../../domain/xml.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Networks, VirtualNetwork } from './networks.ts';

const command = { modify: 1, delete: 2, addLast: 3, addFirst: 4 } as const;

interface Section {
  /** Elements on the way from the root; `ip` stands for the one of the given index that has DHCP. */
  readonly path: readonly string[];
  readonly element: string;
  /** Whether two entries are about the same thing. */
  readonly same: (a: XmlElement, b: XmlElement) => boolean;
}
const attribute =
  (...names: string[]) =>
  (a: XmlElement, b: XmlElement): boolean =>
    names.some((name) => b.attributes[name] !== undefined && a.attributes[name] === b.attributes[name]);
const all =
  (...names: string[]) =>
  (a: XmlElement, b: XmlElement): boolean =>
    names.every((name) => a.attributes[name] === b.attributes[name]);

/** Sections by libvirt's numbers. */
const sections: Readonly<Record<number, Section>> = {
  4: { path: ['ip', 'dhcp'], element: 'host', same: attribute('mac', 'name', 'ip') },
  5: { path: ['ip', 'dhcp'], element: 'range', same: all('start', 'end') },
  7: { path: ['forward'], element: 'interface', same: all('dev') },
  9: { path: [], element: 'portgroup', same: all('name') },
  10: { path: ['dns'], element: 'host', same: attribute('ip') },
  11: { path: ['dns'], element: 'txt', same: all('name') },
  12: { path: ['dns'], element: 'srv', same: all('service', 'protocol') },
};
const sectionNames = [
  ...[
    'none',
    'bridge',
    'domain',
    'ip',
    'ip-dhcp-host',
    'ip-dhcp-range',
    'forward',
    'forward-interface',
    'forward-pf',
    'portgroup',
  ],
  ...['dns-host', 'dns-txt', 'dns-srv'],
];

export interface Update {
  readonly command: number;
  readonly section: number;
  readonly parentIndex: number;
  readonly xml: string;
  /** 1 live, 2 config. */
  readonly flags: number;
}

/** The element that holds the entries, made when it is not there. */
function holder(root: XmlElement, path: readonly string[], index: number, name: string): XmlElement {
  let at = root;
  for (const step of path) {
    const candidates = elementsOf(at).filter((one) => one.name === step);
    let next = candidates[0];
    if (step === 'ip') {
      next = index >= 0 ? candidates[index] : (candidates.find((one) => childNamed(one, 'dhcp')) ?? candidates[0]);
      if (!next) {
        const detail = `couldn't update dhcp host entry - no <ip> element found at index ${Math.max(0, index)} in network '${name}'`;
        throw libvirtError('operationInvalid', 'network', detail);
      }
    }
    if (!next) {
      next = newElement(step);
      at.nodes = [...elementsOf(at), next];
    }
    at = next;
  }
  return at;
}

function edit(network: Network, update: Update): Network {
  const section = sections[update.section];
  const name = sectionNames[update.section] ?? 'none';
  if (!section) throw libvirtError('noSupport', 'network', `can't update '${name}' section of network '${network.name}'`);
  const wanted = parseXml(update.xml, 'network_update_xml');
  if (wanted.name !== section.element) {
    throw libvirtError(
      'xmlError',
      'network',
      `unexpected element <${wanted.name}>, expecting <${section.element}>, while updating network '${network.name}'`,
    );
  }
  const root = parseXml(formatNetwork(network), 'network_definition');
  const list = holder(root, section.path, update.parentIndex, network.name);
  const entries = elementsOf(list);
  const found = entries.filter((one) => one.name === section.element && section.same(one, wanted));
  const missing = (): Error =>
    libvirtError('operationInvalid', 'network', `couldn't locate a matching ${name} entry in network '${network.name}'`);
  switch (update.command) {
    case command.addFirst:
    case command.addLast: {
      if (found.length > 0) {
        throw libvirtError(
          'operationInvalid',
          'network',
          `there is an existing ${name} entry in network '${network.name}' that matches "${formatXml(wanted).trim()}"`,
        );
      }
      list.nodes = update.command === command.addFirst ? [wanted, ...entries] : [...entries, wanted];
      break;
    }
    case command.modify:
      if (found.length === 0) throw missing();
      list.nodes = entries.map((one) => (one === found[0] ? wanted : one));
      break;
    case command.delete:
      if (found.length === 0) throw missing();
      list.nodes = entries.filter((one) => one !== found[0]);
      break;
    default:
      throw libvirtError('noSupport', 'network', `unrecognized network update command ${update.command}`);
  }
  return parseNetwork(formatXml(root));
}

export async function updateNetwork(networks: Networks, known: VirtualNetwork, update: Update): Promise<void> {
  const current = (update.flags & 3) === 0;
  const live = (update.flags & 1) !== 0 || (current && known.live !== undefined);
  const config = (update.flags & 2) !== 0 || (current && known.live === undefined);
  if (live && !known.live) throw libvirtError('operationInvalid', 'network', 'network is not running');
  if (config && !known.config)
    throw libvirtError('operationInvalid', 'network', "can't update persistent config of a transient network");
  await networks.replace(known, config ? edit(known.config!, update) : undefined, live ? edit(known.live!, update) : undefined);
}
