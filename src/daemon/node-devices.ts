// Devices and network interfaces of the host, as it has them at this moment; they can be looked at, not changed.
import { formatNodeDevice, type NodeDevice } from '../domain/node-device.ts';
import { formatXml, newElement, parseRoot, type XmlElement } from '../domain/xml.ts';
import { libvirtError } from '../rpc/libvirt/errors.ts';
import { hostUuid } from './capabilities.ts';
import type { Daemon, RemoteHandlers } from './daemon.ts';
import { translateErrors } from './errors.ts';
import type { HostInterface } from './host.ts';

const safeName = (name: string): string => name.replace(/[^0-9a-zA-Z]/g, '_');

/** Bits of `connectListAllNodeDevices`, by the kind of capability. */
const kindBits: Readonly<Record<NodeDevice['capability']['type'], number>> = {
  system: 1,
  pci: 2,
  usb_device: 4,
  net: 16,
  storage: 256,
};

async function allDevices(daemon: Daemon): Promise<NodeDevice[]> {
  const { facts } = daemon.host;
  const computer: NodeDevice = {
    name: 'computer',
    capability: { type: 'system', hardware: { uuid: await hostUuid(daemon) }, firmware: {} },
  };
  const pci = (await facts.pci()).map((one): NodeDevice => {
    const [domain = '0', bus = '0', rest = '0.0'] = one.address.split(':');
    const [slot = '0', fn = '0'] = rest.split('.');
    return {
      name: `pci_${safeName(one.address)}`,
      path: `/sys/bus/pci/devices/${one.address}`,
      parent: 'computer',
      ...(one.driver !== undefined && { driver: one.driver }),
      capability: {
        type: 'pci',
        class: one.class,
        domain: Number.parseInt(domain, 16),
        bus: Number.parseInt(bus, 16),
        slot: Number.parseInt(slot, 16),
        function: Number.parseInt(fn, 16),
        product: { id: one.device },
        vendor: { id: one.vendor },
      },
    };
  });
  const nets = (await facts.interfaces()).map(
    (one): NodeDevice => ({
      name: `net_${one.name}_${safeName(one.mac)}`,
      path: `/sys/class/net/${one.name}`,
      parent: 'computer',
      capability: {
        type: 'net',
        interface: one.name,
        address: one.mac,
        link: { ...(one.speed !== undefined && { speed: one.speed }), state: one.up ? 'up' : 'down' },
        features: [],
        subtype: '80203',
      },
    }),
  );
  const disks = (await facts.disks()).map(
    (one): NodeDevice => ({
      name: `block_${safeName(one.name)}`,
      path: `/sys/block/${one.name}`,
      devnodes: [{ type: 'dev', path: `/dev/${one.name}` }],
      parent: 'computer',
      capability: {
        type: 'storage',
        block: `/dev/${one.name}`,
        driveType: 'disk',
        size: one.size,
        logicalBlockSize: one.sectorSize,
        blocks: Math.floor(one.size / one.sectorSize),
      },
    }),
  );
  return [computer, ...disks, ...nets, ...pci];
}

const text = (name: string, attributes: Record<string, string>): XmlElement => newElement(name, attributes);

function interfaceXml(one: HostInterface): string {
  const families = (['ipv4', 'ipv6'] as const).flatMap((family) => {
    const own = one.addresses.filter((a) => a.family === family);
    if (own.length === 0) return [];
    const ips = own.map((a) => text('ip', { address: a.address, prefix: String(a.prefix) }));
    return [newElement('protocol', { family }, ips)];
  });
  const speed: Record<string, string> = one.speed === undefined ? {} : { speed: String(one.speed) };
  return formatXml(
    newElement('interface', { type: 'ethernet', name: one.name }, [
      ...families,
      text('mtu', { size: String(one.mtu) }),
      text('link', { ...speed, state: one.up ? 'up' : 'down' }),
      text('mac', { address: one.mac }),
    ]),
  );
}

export function nodeDeviceHandlers(daemon: Daemon): RemoteHandlers {
  const { facts } = daemon.host;
  const find = async (name: string): Promise<NodeDevice> => {
    const found = (await allDevices(daemon)).find((one) => one.name === name);
    if (!found) throw libvirtError('noNodeDevice', 'nodedev', `no node device with matching name '${name}'`);
    return found;
  };
  const ofKind = async (cap: string | undefined): Promise<NodeDevice[]> =>
    (await allDevices(daemon)).filter((one) => cap === undefined || one.capability.type === cap);
  const findInterface = async (name: string): Promise<HostInterface> => {
    const found = (await facts.interfaces()).find((one) => one.name === name);
    if (!found) throw libvirtError('noInterface', 'interface', `couldn't find interface named '${name}'`);
    return found;
  };
  return {
    ...translateErrors('nodedev', {
      nodeNumOfDevices: async ({ cap }) => ({ num: (await ofKind(cap)).length }),
      nodeListDevices: async ({ cap, maxNames }) => ({ names: (await ofKind(cap)).slice(0, maxNames).map((one) => one.name) }),
      async connectListAllNodeDevices({ needResults, flags }) {
        const kinds = flags & 0x3fff_ffff;
        const found = (await allDevices(daemon)).filter((one) => kinds === 0 || (kindBits[one.capability.type] & kinds) !== 0);
        return { devices: needResults ? found.map(({ name }) => ({ name })) : [], ret: found.length };
      },
      nodeDeviceCreateXml({ xml }) {
        parseRoot(xml, 'device', 'node_device_definition');
        throw libvirtError('noSupport', 'nodedev', 'virNodeDeviceCreateXML');
      },
      nodeDeviceLookupByName: async ({ name }) => ({ dev: { name: (await find(name)).name } }),
      nodeDeviceGetXmlDesc: async ({ name }) => ({ xml: formatNodeDevice(await find(name)) }),
      nodeDeviceGetParent: async ({ name }) => ({ parent: (await find(name)).parent }),
      nodeDeviceNumOfCaps: async ({ name }) => {
        await find(name);
        return { num: 1 };
      },
      nodeDeviceListCaps: async ({ name }) => ({ names: [(await find(name)).capability.type] }),
      nodeDeviceGetAutostart: async ({ name }) => {
        await find(name);
        return { autostart: true };
      },
      nodeDeviceIsPersistent: async ({ name }) => {
        await find(name);
        return { persistent: true };
      },
      nodeDeviceIsActive: async ({ name }) => {
        await find(name);
        return { active: true };
      },
    } satisfies RemoteHandlers),
    ...translateErrors('interface', {
      connectNumOfInterfaces: async () => ({
        num: (await facts.interfaces()).filter((one) => one.up && one.name !== 'lo').length,
      }),
      connectListInterfaces: async ({ maxNames }) => ({
        names: (await facts.interfaces()).flatMap((one) => (one.up && one.name !== 'lo' ? [one.name] : [])).slice(0, maxNames),
      }),
      connectNumOfDefinedInterfaces: async () => ({ num: (await facts.interfaces()).filter((one) => !one.up).length }),
      connectListDefinedInterfaces: async ({ maxNames }) => ({
        names: (await facts.interfaces()).flatMap((one) => (one.up ? [] : [one.name])).slice(0, maxNames),
      }),
      async connectListAllInterfaces({ needResults, flags }) {
        const asked = flags & 3;
        const found = (await facts.interfaces()).filter((one) => asked === 0 || (one.up ? asked & 2 : asked & 1) !== 0);
        return { ifaces: needResults ? found.map(({ name, mac }) => ({ name, mac })) : [], ret: found.length };
      },
      interfaceLookupByName: async ({ name }) => {
        const { mac } = await findInterface(name);
        return { iface: { name, mac } };
      },
      interfaceLookupByMacString: async ({ mac }) => {
        const found = (await facts.interfaces()).filter((one) => one.mac === mac.toLowerCase());
        if (found.length === 0)
          throw libvirtError('noInterface', 'interface', `couldn't find interface with MAC address '${mac}'`);
        if (found.length > 1)
          throw libvirtError('multipleInterfaces', 'interface', `the MAC address '${mac}' matches multiple interfaces`);
        return { iface: { name: found[0]!.name, mac: found[0]!.mac } };
      },
      interfaceGetXmlDesc: async ({ iface }) => ({ xml: interfaceXml(await findInterface(iface.name)) }),
      interfaceIsActive: async ({ iface }) => ({ active: (await findInterface(iface.name)).up }),
    } satisfies RemoteHandlers),
  };
}
