// `domxml-to-native`: the command line that a start would run, as text (libvirt 9.0's form).

import { commandLine } from '../domain/command-line/command-line.ts';
import { completeDomain } from '../domain/complete.ts';
import { type Domain, parseDomain } from '../domain/domain.ts';
import { prepareDomain } from '../domain/prepare.ts';
import { libvirtError } from '../rpc/libvirt/errors.ts';
import type { Daemon } from './daemon.ts';
import { findChains } from './guest/chain.ts';
import { commandContext } from './guest/launch.ts';

/** Every interface as a bare tap: where it would be plugged in is not decided before a start. */
function bareInterfaces(domain: Domain): void {
  domain.devices.interfaces = domain.devices.interfaces.map((one) => ({
    type: one.type === 'user' ? ('user' as const) : ('ethernet' as const),
    ips: [],
    routes: [],
    ...(one.mac && { mac: one.mac }),
    ...(one.model && { model: one.model }),
    ...(one.address && { address: one.address }),
  }));
}

const quote = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);

export async function commandLineOf(daemon: Daemon, format: string, xml: string): Promise<string> {
  if (format !== 'qemu-argv') throw libvirtError('invalidArg', 'qemu', `unsupported config type ${format}`);
  const parsed = parseDomain(xml);
  delete parsed.id;
  const domain = completeDomain(parsed, await daemon.guests.context(parsed));
  bareInterfaces(domain);
  await findChains(daemon.host, domain).catch(() => {});
  let port = 5900;
  const directory = `${daemon.paths.lib}/qemu/domain--1-${domain.name}`;
  prepareDomain(domain, {
    id: -1,
    directory,
    channelDirectory: `${daemon.paths.lib}/qemu/channel/target/domain--1-${domain.name}`,
    listenAddress: daemon.options.graphicsListen,
    vncAddress: daemon.options.vnc.listen,
    vncSocket: daemon.options.vnc.socket,
    freePort: () => port++,
    firmware: () => daemon.options.firmware,
    nvramPath: daemon.guests.nvramPath(domain.name),
  });
  const context = await commandContext(daemon, domain, directory, `${directory}/monitor.sock`);
  const { args, environment } = commandLine(domain, context);
  const home = `${daemon.paths.lib}/qemu/domain--1-${domain.name}`;
  const before = Object.entries({
    LC_ALL: 'C',
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    HOME: home,
    XDG_DATA_HOME: `${home}/.local/share`,
    XDG_CACHE_HOME: `${home}/.cache`,
    XDG_CONFIG_HOME: `${home}/.config`,
    ...environment,
  }).map(([name, value]) => `${name}=${quote(value)}`);
  const lines: string[] = [];
  for (let at = 0; at < args.length; at++) {
    const value = args[at + 1];
    const pair = value !== undefined && !value.startsWith('-');
    lines.push(pair ? `${args[at]} ${quote(value)}` : args[at]!);
    if (pair) at++;
  }
  return `${[...before, domain.devices.emulator!, ...lines].join(' \\\n')}\n`;
}
