// Virtual networks: definitions as files, which of them are active, and the back-end of each guest's card on them.
// Without privileges a network is a NAT of each card's own (the emulator's user mode), an isolated one a multicast group on loopback.
import { ipNumber } from '../../domain/addresses.ts';
import type { JsonObject } from '../../domain/command-line/arguments.ts';
import type { Domain } from '../../domain/domain.ts';
import { randomUuid } from '../../domain/emulator.ts';
import type { NetworkInterface } from '../../domain/model/interface.ts';
import { completeNetwork, formatNetwork, forwardMode, type Network, parseNetwork } from '../../domain/network.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Network as NetworkRef } from '../../rpc/libvirt/types.ts';
import type { Daemon } from '../daemon.ts';
import type { Guest } from '../guest/guest.ts';
import { Bridge } from './bridge.ts';

export interface Port {
  readonly uuid: string;
  readonly guest: string;
  readonly mac: string;
  readonly model: string;
  /** The address that the card gets by DHCP. */
  readonly ip: string | undefined;
}

export interface Lease {
  readonly iface: string;
  readonly mac: string;
  readonly ip: string;
  readonly prefix: number;
  /** Seconds since 1970. */
  readonly expiry: bigint;
  readonly hostname: string | undefined;
  readonly clientId: string | undefined;
}

export class VirtualNetwork {
  name: string;
  readonly uuid: string;
  config: Network | undefined;
  /** The definition while it is active. */
  live: Network | undefined;
  autostart = false;
  bridge: Bridge | undefined;
  readonly ports = new Map<string, Port>();

  constructor(name: string, uuid: string) {
    this.name = name;
    this.uuid = uuid;
  }
  get ref(): NetworkRef {
    return { name: this.name, uuid: this.uuid };
  }
  get current(): Network {
    return this.live ?? this.config!;
  }
}

/** What a new state directory begins with, as libvirt's packages have it: clients put a guest's card on it unless told otherwise. */
const defaultNetwork = `<network>
  <name>default</name>
  <forward mode='nat'/>
  <bridge name='virbr0' stp='on' delay='0'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'><dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip>
</network>`;

const networkError = (detail: string) => libvirtError('operationInvalid', 'network', detail);
const textOfIp = (value: bigint): string => [24n, 16n, 8n, 0n].map((shift) => String((value >> shift) & 255n)).join('.');

export class Networks {
  readonly #daemon: Daemon;
  readonly #byUuid = new Map<string, VirtualNetwork>();
  readonly #backends = new WeakMap<object, JsonObject>();

  constructor(daemon: Daemon) {
    this.#daemon = daemon;
  }
  get #directory(): string {
    return `${this.#daemon.paths.config}/qemu/networks`;
  }
  get #runDirectory(): string {
    return `${this.#daemon.paths.run}/network`;
  }
  get all(): readonly VirtualNetwork[] {
    return [...this.#byUuid.values()];
  }
  async load(): Promise<void> {
    const { files } = this.#daemon.host;
    const fresh = !(await files.list(`${this.#daemon.paths.config}/qemu`)).includes('networks');
    await files.makeDirectory(`${this.#directory}/autostart`, 0o700);
    await files.makeDirectory(this.#runDirectory, 0o700);
    const auto = new Set(await files.list(`${this.#directory}/autostart`));
    for (const file of await files.list(this.#directory)) {
      if (!file.endsWith('.xml')) continue;
      await this.#read(`${this.#directory}/${file}`, (net, known) => {
        known.config = net;
        known.autostart = auto.has(file);
      });
    }
    for (const file of await files.list(this.#runDirectory)) {
      if (!file.endsWith('.xml')) continue;
      await this.#read(`${this.#runDirectory}/${file}`, (net, known) => {
        known.live = net;
      });
    }
    for (const net of this.all) if (net.live) net.bridge = await Bridge.find(this.#daemon, net.live);
    // In user mode it costs the host nothing and starts by itself; a bridge is made when the administrator says so.
    if (fresh && this.all.length === 0) await this.setAutostart(await this.define(defaultNetwork), !this.#daemon.options.bridges);
  }
  async #read(path: string, use: (net: Network, known: VirtualNetwork) => void): Promise<void> {
    try {
      const net = parseNetwork((await this.#daemon.host.files.read(path)) ?? '');
      const known = this.#byUuid.get(net.uuid!) ?? new VirtualNetwork(net.name, net.uuid!);
      this.#byUuid.set(known.uuid, known);
      use(net, known);
    } catch (error) {
      this.#daemon.host.log(`Cannot load ${path}: ${(error as Error).message}`);
    }
  }
  async autostart(): Promise<void> {
    for (const net of this.all) {
      if (!net.autostart || net.live) continue;
      await this.start(net).catch((error: unknown) => this.#daemon.host.log(`network ${net.name}: ${(error as Error).message}`));
    }
  }
  byName(name: string): VirtualNetwork | undefined {
    return this.all.find((one) => one.name === name);
  }
  byUuid(uuid: string): VirtualNetwork | undefined {
    return this.#byUuid.get(uuid);
  }
  /** @throws {LibvirtError} 43 */
  find(ref: NetworkRef): VirtualNetwork {
    const found = this.#byUuid.get(ref.uuid);
    if (!found) throw libvirtError('noNetwork', 'network', `no network with matching uuid '${ref.uuid}' (${ref.name})`);
    return found;
  }
  parse(xml: string): Network {
    return completeNetwork(parseNetwork(xml), {
      random: (length) => this.#daemon.host.crypto.random(length),
      freeBridge: () => {
        const used = new Set(this.all.flatMap((one) => [one.config?.bridge?.name, one.live?.bridge?.name]));
        for (let i = 0; ; i++) if (!used.has(`virbr${i}`)) return `virbr${i}`;
      },
    });
  }
  #place(net: Network): VirtualNetwork {
    const same = this.#byUuid.get(net.uuid!);
    if (same && same.name !== net.name) {
      throw libvirtError('operationFailed', 'network', `network '${same.name}' is already defined with uuid ${same.uuid}`);
    }
    const named = this.byName(net.name);
    if (named && named.uuid !== net.uuid) {
      throw libvirtError('operationFailed', 'network', `network '${net.name}' already exists with uuid ${named.uuid}`);
    }
    const taken = this.all.find(
      (one) => one.uuid !== net.uuid && net.bridge?.name !== undefined && one.current.bridge?.name === net.bridge.name,
    );
    if (taken) throw libvirtError('operationFailed', 'network', `bridge name '${net.bridge?.name}' already in use.`);
    const found = same ?? new VirtualNetwork(net.name, net.uuid!);
    return found;
  }
  async define(xml: string): Promise<VirtualNetwork> {
    const net = this.parse(xml);
    const known = this.#place(net);
    await this.#daemon.host.files.write(`${this.#directory}/${net.name}.xml`, formatNetwork(net));
    known.config = net;
    this.#byUuid.set(known.uuid, known);
    this.#daemon.events.network(known.ref, 0);
    return known;
  }
  async createXml(xml: string): Promise<VirtualNetwork> {
    const net = this.parse(xml);
    const known = this.#place(net);
    if (known.live) throw networkError(`network is already active as '${known.name}'`);
    this.#byUuid.set(known.uuid, known);
    try {
      await this.#start(known, net);
    } catch (error) {
      if (!known.config) this.#byUuid.delete(known.uuid);
      throw error;
    }
    return known;
  }
  async start(known: VirtualNetwork): Promise<void> {
    if (known.live) throw networkError('network is already active');
    await this.#start(known, parseNetwork(formatNetwork(known.config!)));
  }
  async #start(known: VirtualNetwork, net: Network): Promise<void> {
    known.bridge = await Bridge.create(this.#daemon, net);
    await this.#daemon.host.files.write(`${this.#runDirectory}/${net.name}.xml`, formatNetwork(net));
    known.live = net;
    this.#daemon.events.network(known.ref, 2);
  }
  async stop(known: VirtualNetwork): Promise<void> {
    if (!known.live) throw networkError(`network '${known.name}' is not active`);
    await known.bridge?.remove();
    known.bridge = undefined;
    await this.#daemon.host.files.remove(`${this.#runDirectory}/${known.name}.xml`);
    known.live = undefined;
    known.ports.clear();
    if (!known.config) this.#byUuid.delete(known.uuid);
    this.#daemon.events.network(known.ref, 3);
  }
  async undefine(known: VirtualNetwork): Promise<void> {
    if (!known.config) throw networkError("can't undefine transient network");
    const { files } = this.#daemon.host;
    await files.remove(`${this.#directory}/${known.name}.xml`);
    await files.remove(`${this.#directory}/autostart/${known.name}.xml`);
    known.config = undefined;
    known.autostart = false;
    if (!known.live) this.#byUuid.delete(known.uuid);
    this.#daemon.events.network(known.ref, 1);
  }
  async setAutostart(known: VirtualNetwork, on: boolean): Promise<void> {
    if (!known.config) throw networkError('cannot set autostart for transient network');
    const path = `${this.#directory}/autostart/${known.name}.xml`;
    if (on) await this.#daemon.host.files.write(path, '');
    else await this.#daemon.host.files.remove(path);
    known.autostart = on;
  }
  /** Replaces the definitions of `networkUpdate`. */
  async replace(known: VirtualNetwork, config: Network | undefined, live: Network | undefined): Promise<void> {
    const { files } = this.#daemon.host;
    if (config) {
      await files.write(`${this.#directory}/${known.name}.xml`, formatNetwork(config));
      known.config = config;
    }
    if (live) {
      await files.write(`${this.#runDirectory}/${known.name}.xml`, formatNetwork(live));
      known.live = live;
      await known.bridge?.reload(live);
    }
  }

  /** Gives every card of a guest that starts its place on its network. @throws {LibvirtError} for a network that is not active. */
  async attachAll(guest: Guest, domain: Domain): Promise<void> {
    for (const device of domain.devices.interfaces) await this.attach(guest, device);
  }
  async attach(guest: Guest, device: NetworkInterface): Promise<void> {
    await this.#connect(guest, device);
    await this.#daemon.filters.bindCard(guest, device);
  }
  async #connect(guest: Guest, device: NetworkInterface): Promise<void> {
    if (device.type === 'bridge') {
      this.#backends.set(device, await Bridge.tap(this.#daemon, device, device.source?.bridge ?? ''));
      return;
    }
    if (device.type !== 'network') return;
    const name = device.source?.network ?? '';
    const known = this.byName(name);
    if (!known) throw libvirtError('noNetwork', 'network', `no network with matching name '${name}'`);
    if (!known.live) throw networkError(`network '${name}' is not active`);
    const uuid = device.source?.portid ?? randomUuid((length) => this.#daemon.host.crypto.random(length));
    device.source = { ...device.source!, portid: uuid };
    const mac = device.mac?.address ?? '';
    const port: Port = { uuid, guest: guest.name, mac, model: device.model?.type ?? '', ip: this.#addressFor(known, mac) };
    known.ports.set(uuid, port);
    this.#backends.set(device, await this.#backendOn(known, device, port));
  }
  /** Cards of a guest that runs already. */
  remember(guest: Guest, domain: Domain): void {
    for (const device of domain.devices.interfaces) {
      if (device.type !== 'network') continue;
      const known = this.byName(device.source?.network ?? '');
      const uuid = device.source?.portid;
      if (!known || uuid === undefined) continue;
      const mac = device.mac?.address ?? '';
      known.ports.set(uuid, { uuid, guest: guest.name, mac, model: device.model?.type ?? '', ip: this.#addressFor(known, mac) });
    }
  }
  async detachAll(guest: Guest, domain: Domain): Promise<void> {
    for (const device of domain.devices.interfaces) await this.detached(guest, device);
  }
  /** A card of a guest is gone. */
  async detached(_: Guest, device: object): Promise<void> {
    const card = device as NetworkInterface;
    if (card.source?.portid !== undefined) {
      this.byName(card.source.network ?? '')?.ports.delete(card.source.portid);
    }
    await this.#daemon.filters.unbindCard(card);
    if (card.target?.dev?.startsWith('vnet')) await Bridge.removeTap(this.#daemon, card.target.dev);
  }
  /** The addresses that cards on a network have by DHCP. */
  async leases(known: VirtualNetwork): Promise<Lease[]> {
    const ip = known.live?.ips.find((one) => one.dhcp);
    if (!ip) return [];
    const prefix = ip.prefix ?? (ip.netmask ? prefixOf(ip.netmask) : 24);
    const iface = known.live?.bridge?.name ?? '';
    if (known.bridge) {
      return (await known.bridge.leases()).map(([expiry = '0', mac = '', addr = '', hostname, clientId]) => ({
        iface,
        mac,
        ip: addr,
        prefix,
        expiry: BigInt(expiry),
        hostname: hostname === '*' ? undefined : hostname,
        clientId: clientId === '*' ? undefined : clientId,
      }));
    }
    // Each card's own NAT gives it the address that was chosen for it, for a day from when it asks.
    const expiry = BigInt(Math.floor(this.#daemon.host.now() / 1000) + 86_400);
    const named = new Map(ip.dhcp!.hosts.map((one) => [one.ip, one.name]));
    return [...known.ports.values()].flatMap((port) =>
      port.ip === undefined
        ? []
        : [{ iface, mac: port.mac, ip: port.ip, prefix, expiry, hostname: named.get(port.ip), clientId: undefined }],
    );
  }
  /** What `-netdev` gets instead of the usual; undefined for a card that needs nothing of us. */
  backend(device: NetworkInterface): JsonObject | undefined {
    return this.#backends.get(device);
  }
  async #backendOn(known: VirtualNetwork, device: NetworkInterface, port: Port): Promise<JsonObject> {
    const net = known.live!;
    if (known.bridge) return Bridge.tap(this.#daemon, device, net.bridge!.name!);
    const mode = forwardMode(net);
    if (mode === 'none') {
      // One group for each network: guests of one network on this host hear each other and nobody else.
      const hash = this.#daemon.host.crypto.sha256(new TextEncoder().encode(net.uuid!));
      return { type: 'socket', mcast: `239.${hash[0]}.${hash[1]}.${hash[2]}:${20000 + (hash[3]! << 4)}`, localaddr: '127.0.0.1' };
    }
    if (mode === 'nat' || mode === 'route' || mode === 'open') {
      const ip = net.ips.find((one) => !one.address!.includes(':'));
      if (!ip) return { type: 'user' };
      const bits = BigInt(ip.prefix ?? (ip.netmask ? prefixOf(ip.netmask) : 24));
      const mask = ((1n << bits) - 1n) << (32n - bits);
      const base = textOfIp(ipNumber(ip.address!) & mask);
      return {
        type: 'user',
        net: `${base}/${bits}`,
        host: ip.address,
        ...(port.ip !== undefined && { dhcpstart: port.ip }),
      };
    }
    if (mode === 'bridge' && net.bridge?.name !== undefined) return Bridge.tap(this.#daemon, device, net.bridge.name);
    throw libvirtError(
      'configUnsupported',
      'network',
      `network '${known.name}' with forward mode '${mode}' needs a privileged host`,
    );
  }
  /** The host entry's address, or the next one of the range that no card has. */
  #addressFor(known: VirtualNetwork, mac: string): string | undefined {
    const ip = known.live?.ips.find((one) => one.dhcp && !one.address!.includes(':'));
    if (!ip?.dhcp) return undefined;
    const fixed = ip.dhcp.hosts.find((one) => one.mac?.toLowerCase() === mac.toLowerCase())?.ip;
    if (fixed !== undefined) return fixed;
    const used = new Set([...known.ports.values()].flatMap((one) => (one.mac === mac ? [] : [one.ip])));
    for (const one of ip.dhcp.hosts) used.add(one.ip);
    for (const { start, end } of ip.dhcp.ranges) {
      for (let at = ipNumber(start!); at <= ipNumber(end!); at++) if (!used.has(textOfIp(at))) return textOfIp(at);
    }
    return undefined;
  }
}

const prefixOf = (mask: string): number => ipNumber(mask).toString(2).replaceAll('0', '').length;
