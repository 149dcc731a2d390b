// Procedures of networks and their ports. libvirt 9.0's rules, answers and words.
import { formatNetwork, type Network } from '../../domain/network.ts';
import { formatXml, newElement } from '../../domain/xml.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Daemon, RemoteHandlers } from '../daemon.ts';
import { translateErrors } from '../errors.ts';
import { type FlagGroups, wanted } from '../guest/list-flags.ts';
import type { VirtualNetwork } from './networks.ts';
import { updateNetwork } from './update.ts';

const listGroups: FlagGroups<VirtualNetwork> = [
  [
    [1, (one) => one.live === undefined],
    [2, (one) => one.live !== undefined],
  ],
  [
    [4, (one) => one.config !== undefined],
    [8, (one) => one.config === undefined],
  ],
  [
    [16, (one) => one.autostart],
    [32, (one) => !one.autostart],
  ],
];

export function networkHandlers(daemon: Daemon): RemoteHandlers {
  const { networks } = daemon;
  const describe = (known: VirtualNetwork, inactive: boolean): string => {
    const shown: Network = inactive && known.config ? known.config : known.current;
    const connections = known.live && !inactive && known.ports.size > 0 ? { connections: known.ports.size } : {};
    return formatNetwork({ ...shown, ...connections });
  };
  const findPort = (ref: { readonly net: { readonly name: string; readonly uuid: string }; readonly uuid: string }) => {
    const known = networks.find(ref.net);
    const port = known.ports.get(ref.uuid);
    if (!port) throw libvirtError('noNetworkPort', 'network', `Network port with UUID ${ref.uuid} does not exist`);
    return { known, port };
  };
  return translateErrors('network', {
    connectNumOfNetworks: () => ({ num: networks.all.filter((one) => one.live).length }),
    connectListNetworks: ({ maxNames }) => ({
      names: networks.all.flatMap((one) => (one.live ? [one.name] : [])).slice(0, maxNames),
    }),
    connectNumOfDefinedNetworks: () => ({ num: networks.all.filter((one) => !one.live).length }),
    connectListDefinedNetworks: ({ maxNames }) => ({
      names: networks.all.flatMap((one) => (one.live ? [] : [one.name])).slice(0, maxNames),
    }),
    connectListAllNetworks({ needResults, flags }) {
      const found = networks.all.filter((one) => wanted(one, flags, listGroups));
      return { nets: needResults ? found.map((one) => one.ref) : [], ret: found.length };
    },
    networkLookupByName({ name }) {
      const found = networks.byName(name);
      if (!found) throw libvirtError('noNetwork', 'network', `no network with matching name '${name}'`);
      return { net: found.ref };
    },
    networkLookupByUuid({ uuid }) {
      const found = networks.byUuid(uuid);
      if (!found) throw libvirtError('noNetwork', 'network', `no network with matching uuid '${uuid}'`);
      return { net: found.ref };
    },
    networkDefineXml: async ({ xml }) => ({ net: (await networks.define(xml)).ref }),
    networkDefineXmlFlags: async ({ xml }) => ({ net: (await networks.define(xml)).ref }),
    networkCreateXml: async ({ xml }) => ({ net: (await networks.createXml(xml)).ref }),
    networkCreateXmlFlags: async ({ xml }) => ({ net: (await networks.createXml(xml)).ref }),
    networkCreate: async ({ net }) => networks.start(networks.find(net)),
    networkDestroy: async ({ net }) => networks.stop(networks.find(net)),
    networkUndefine: async ({ net }) => networks.undefine(networks.find(net)),
    networkGetXmlDesc: ({ net, flags }) => ({ xml: describe(networks.find(net), (flags & 1) === 1) }),
    networkGetAutostart: ({ net }) => ({ autostart: networks.find(net).autostart }),
    networkSetAutostart: async ({ net, autostart }) => networks.setAutostart(networks.find(net), autostart),
    networkGetBridgeName({ net }) {
      const known = networks.find(net);
      const name = known.current.bridge?.name;
      if (name === undefined) {
        throw libvirtError('internalError', 'network', `network '${known.name}' does not have a bridge name.`);
      }
      return { name };
    },
    networkIsActive: ({ net }) => ({ active: networks.find(net).live !== undefined }),
    networkIsPersistent: ({ net }) => ({ persistent: networks.find(net).config !== undefined }),
    async networkUpdate({ net, command, section, parentIndex, xml, flags }) {
      await updateNetwork(networks, networks.find(net), { command, section, parentIndex, xml, flags });
    },
    async networkGetDhcpLeases({ net, mac, needResults }) {
      const known = networks.find(net);
      const all = await networks.leases(known);
      const found = all.filter((one) => mac === undefined || one.mac.toLowerCase() === mac.toLowerCase());
      const leases = found.map((one) => ({
        iface: one.iface,
        expiryTime: one.expiry,
        type: one.ip.includes(':') ? 1 : 0,
        mac: one.mac,
        iaid: undefined,
        ipAddr: one.ip,
        prefix: one.prefix,
        hostname: one.hostname,
        clientId: one.clientId,
      }));
      return { leases: needResults ? leases : [], ret: leases.length };
    },
    networkListAllPorts({ net, needResults }) {
      const known = networks.find(net);
      if (!known.live) throw libvirtError('operationInvalid', 'network', `network '${known.name}' is not active`);
      const ports = [...known.ports.values()].map((port) => ({ net: known.ref, uuid: port.uuid }));
      return { ports: needResults ? ports : [], ret: ports.length };
    },
    networkPortLookupByUuid({ net, uuid }) {
      findPort({ net, uuid });
      return { port: { net: networks.find(net).ref, uuid } };
    },
    networkPortGetXmlDesc({ port: ref }) {
      const { port } = findPort(ref);
      const tree = newElement('networkport', {}, [
        newElement('uuid', {}, [port.uuid]),
        newElement('owner', {}, [newElement('name', {}, [port.guest])]),
        newElement('mac', { address: port.mac }),
      ]);
      return { xml: formatXml(tree) };
    },
  } satisfies RemoteHandlers);
}
