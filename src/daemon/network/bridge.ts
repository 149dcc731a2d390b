// A network as a bridge of the host with dnsmasq and nftables: what a privileged daemon may make. ip-link(8), dnsmasq(8), nft(8).
import { ipNumber } from '../../domain/addresses.ts';
import type { JsonObject } from '../../domain/command-line/arguments.ts';
import type { NetworkInterface } from '../../domain/model/interface.ts';
import { forwardMode, type Network } from '../../domain/network.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Daemon } from '../daemon.ts';
import type { ProcessId } from '../host.ts';

const bitsOf = (ip: Network['ips'][number]): number =>
  ip.prefix ?? (ip.netmask ? ipNumber(ip.netmask).toString(2).replaceAll('0', '').length : 24);

export class Bridge {
  readonly #daemon: Daemon;
  readonly #name: string;
  #dnsmasq: ProcessId | undefined;

  private constructor(daemon: Daemon, name: string) {
    this.#daemon = daemon;
    this.#name = name;
  }
  get #directory(): string {
    return `${this.#daemon.paths.lib}/dnsmasq`;
  }
  get #table(): string {
    return `nonroot_${this.#name}`;
  }
  /** Makes the bridge; undefined where this host does not allow it or lacks the programs. */
  static async create(daemon: Daemon, net: Network): Promise<Bridge | undefined> {
    const name = net.bridge?.name;
    const mode = forwardMode(net);
    if (!daemon.options.bridges || name === undefined || !['none', 'nat', 'route', 'open'].includes(mode)) return undefined;
    const bridge = new Bridge(daemon, name);
    try {
      await bridge.#make(net);
      return bridge;
    } catch (error) {
      await bridge.remove();
      daemon.host.log(`network ${net.name}: no bridge (${(error as Error).message}), in user mode instead`);
      return undefined;
    }
  }
  /** The bridge of a network that was active before this daemon. */
  static async find(daemon: Daemon, net: Network): Promise<Bridge | undefined> {
    const name = net.bridge?.name;
    if (!daemon.options.bridges || name === undefined) return undefined;
    const there = await daemon.host.facts.counters(name);
    if (there === undefined) return undefined;
    const bridge = new Bridge(daemon, name);
    bridge.#dnsmasq = daemon.host.processes.find(`${bridge.#directory}/${name}.conf`)[0];
    if (bridge.#dnsmasq === undefined) await bridge.#serve(net);
    return bridge;
  }
  async #run(program: string, ...args: readonly string[]): Promise<void> {
    const { code, err } = await this.#daemon.host.processes.run(program, args);
    if (code !== 0) throw new Error(`${program} ${args.join(' ')}: ${err.trim()}`);
  }
  async #make(net: Network): Promise<void> {
    await this.#run('ip', 'link', 'add', 'name', this.#name, 'type', 'bridge');
    if (net.mac?.address !== undefined) await this.#run('ip', 'link', 'set', 'dev', this.#name, 'address', net.mac.address);
    for (const ip of net.ips) await this.#run('ip', 'address', 'add', `${ip.address}/${bitsOf(ip)}`, 'dev', this.#name);
    await this.#run('ip', 'link', 'set', 'dev', this.#name, 'up');
    const mode = forwardMode(net);
    if (mode === 'nat' || mode === 'route') await this.#forward(net, mode);
    await this.#serve(net);
  }
  /** Lets packets through, and gives those that leave the host's address under `nat`. */
  async #forward(net: Network, mode: 'nat' | 'route'): Promise<void> {
    const ip = net.ips.find((one) => !one.address!.includes(':'));
    if (!ip) return;
    const subnet = `${ip.address}/${bitsOf(ip)}`;
    const own = `"${this.#name}"`;
    const lines = [
      `table inet ${this.#table} {`,
      'chain forward {',
      'type filter hook forward priority filter; policy accept;',
      `iifname ${own} oifname ${own} accept`,
      `oifname ${own} ${mode === 'nat' ? 'ct state established,related accept' : 'accept'}`,
      `iifname ${own} accept`,
      `oifname ${own} reject`,
      '}',
    ];
    if (mode === 'nat') {
      const rule = `ip saddr ${subnet} ip daddr != ${subnet} masquerade`;
      lines.push('chain post {', 'type nat hook postrouting priority srcnat;', rule, '}');
    }
    const rules = `${[...lines, '}'].join('\n')}\n`;
    const { code, err } = await this.#daemon.host.processes.run('nft', ['-f', '-'], rules);
    if (code !== 0) throw new Error(`nft: ${err.trim()}`);
    await this.#run('sysctl', '-q', '-w', 'net.ipv4.ip_forward=1');
  }
  /** Starts dnsmasq for addresses and names. */
  async #serve(net: Network): Promise<void> {
    const { files, processes } = this.#daemon.host;
    if (net.ips.length === 0) return;
    await files.makeDirectory(this.#directory, 0o755);
    await files.write(`${this.#directory}/${this.#name}.conf`, this.#configuration(net), 0o644);
    this.#dnsmasq = await processes.spawn({
      path: 'dnsmasq',
      args: ['--keep-in-foreground', `--conf-file=${this.#directory}/${this.#name}.conf`],
      environment: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
      log: `${this.#daemon.paths.log}/dnsmasq-${this.#name}.log`,
      directory: '/',
    });
    if (await processes.gone(this.#dnsmasq, 300)) throw new Error('dnsmasq ends at once');
  }
  #configuration(net: Network): string {
    const lines = ['strict-order', 'bind-dynamic', `interface=${this.#name}`, 'except-interface=lo', 'dhcp-no-override'];
    lines.push(`pid-file=${this.#directory}/${this.#name}.pid`, `dhcp-leasefile=${this.#directory}/${this.#name}.leases`);
    if (net.domain?.name !== undefined) lines.push(`domain=${net.domain.name}`, 'expand-hosts');
    if (forwardMode(net) === 'none') lines.push('dhcp-option=3', 'no-resolv');
    for (const ip of net.ips) {
      for (const range of ip.dhcp?.ranges ?? []) lines.push(`dhcp-range=${range.start},${range.end}`);
      if (ip.dhcp && ip.dhcp.ranges.length === 0) lines.push(`dhcp-range=${ip.address},static`);
      for (const one of ip.dhcp?.hosts ?? []) {
        lines.push(`dhcp-host=${[one.mac, one.ip, one.name].filter((part) => part !== undefined).join(',')}`);
      }
    }
    return `${lines.join('\n')}\n`;
  }
  /** The definition has changed while it is active. */
  async reload(net: Network): Promise<void> {
    await this.#stopDnsmasq();
    await this.#serve(net);
  }
  async #stopDnsmasq(): Promise<void> {
    if (this.#dnsmasq === undefined) return;
    this.#daemon.host.processes.kill(this.#dnsmasq, 'SIGTERM');
    await this.#daemon.host.processes.gone(this.#dnsmasq, 3000);
    this.#dnsmasq = undefined;
  }
  async remove(): Promise<void> {
    const { processes } = this.#daemon.host;
    await this.#stopDnsmasq();
    await processes.run('nft', ['delete', 'table', 'inet', this.#table]).catch(() => {});
    await processes.run('ip', ['link', 'delete', this.#name]).catch(() => {});
  }
  /** Leases that dnsmasq has given: expiry, MAC, address, name, client id. */
  async leases(): Promise<readonly (readonly string[])[]> {
    const text = (await this.#daemon.host.files.read(`${this.#directory}/${this.#name}.leases`)) ?? '';
    return text
      .split('\n')
      .map((line) => line.split(' '))
      .filter((words) => words.length >= 5);
  }
  /** A tap on a bridge for one card. @throws {LibvirtError} where the host does not allow it. */
  static async tap(daemon: Daemon, device: NetworkInterface, bridge: string): Promise<JsonObject> {
    const { processes, facts } = daemon.host;
    let number = 0;
    while ((await facts.counters(`vnet${number}`)) !== undefined) number++;
    const given = device.target?.dev;
    const name = given !== undefined && !given.startsWith('vnet') ? given : `vnet${number}`;
    const owner = daemon.options.user ? ['user', String(daemon.options.user.uid)] : [];
    for (const args of [
      ['tuntap', 'add', 'dev', name, 'mode', 'tap', ...owner],
      ['link', 'set', 'dev', name, 'master', bridge],
      ['link', 'set', 'dev', name, 'up'],
    ]) {
      const { code, err } = await processes.run('ip', args);
      if (code === 0) continue;
      await processes.run('ip', ['link', 'delete', name]);
      throw libvirtError('internalError', 'network', `Unable to create tap device ${name}: ${err.trim()}`);
    }
    device.target = { ...device.target, dev: name };
    return { type: 'tap', ifname: name, script: 'no', downscript: 'no' };
  }
  static async removeTap(daemon: Daemon, name: string): Promise<void> {
    await daemon.host.processes.run('ip', ['link', 'delete', name]).catch(() => {});
  }
}
