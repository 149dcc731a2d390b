// From a definition to a running emulator: files, ports, command line, process, monitor (libvirt 9.0's order, QEMU 7.2's QMP).

import type { CommandLineContext } from '../../domain/command-line/arguments.ts';
import { commandLine } from '../../domain/command-line/command-line.ts';
import { highestNodeIndex } from '../../domain/command-line/plug.ts';
import type { Domain } from '../../domain/domain.ts';
import { findMachine } from '../../domain/emulator.ts';
import { addedVcpus } from '../../domain/model/vcpus.ts';
import { prepareDomain } from '../../domain/prepare.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import { QmpClient } from '../../rpc/qmp/client.ts';
import { isObject } from '../../rpc/qmp/json.ts';
import type { Daemon } from '../daemon.ts';
import { operationInvalid } from '../errors.ts';
import type { ProcessId } from '../host.ts';
import { wait } from '../host.ts';
import { findChains } from './chain.ts';
import { admitCommand, giveFiles } from './given-files.ts';
import { copyDomain, type Guest, type Run } from './guest.ts';
import { enabledEvents } from './limit-handlers.ts';
import { applyLimits, numberIn } from './limits.ts';
import { addVcpu, agentChannel, hotpluggable, listenToMonitor, readThreads, readVcpus } from './monitor.ts';
import { handBack, handOverDisk, handOverDomain, type Owned } from './ownership.ts';
import { type Lifecycle, pausedReason, runningReason, state } from './states.ts';
import { saveStatus, statusPath } from './status.ts';
import { stopRun } from './stop.ts';
import { applyIoTune } from './tune.ts';

export interface StartOptions {
  readonly paused?: boolean;
  /** The definition to run instead of the persistent one. */
  readonly domain?: Domain;
  /** The guest's memory comes from outside: `receive` brings it when the monitor is there. */
  readonly receive?: (guest: Guest, run: Run) => Promise<void>;
  readonly loadSnapshot?: string;
  readonly event?: Lifecycle;
  readonly reason?: number;
  /** Leaves the guest as it is after the start: for migration, which goes on later. */
  readonly hold?: boolean;
}

const monitorMs = 60_000;

/** The environment of an emulator: nothing of the daemon's own. */
function environmentOf(directory: string): Record<string, string> {
  return {
    LC_ALL: 'C',
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    HOME: directory,
    XDG_DATA_HOME: `${directory}/.local/share`,
    XDG_CACHE_HOME: `${directory}/.cache`,
    XDG_CONFIG_HOME: `${directory}/.config`,
  };
}

/** libvirt's name for a guest's directory: short enough for socket paths. */
const shortName = (id: number, name: string): string => `domain-${id}-${name.slice(0, 20)}`;

/** How many ports graphics of a domain ask for. */
const wantedPorts = (domain: Domain): number =>
  domain.devices.graphics.reduce((sum, one) => {
    const open = (port: number | undefined): number => (port === undefined || port === -1 ? 1 : 0);
    return sum + open(one.port) + (one.websocket === -1 ? 1 : 0) + (one.tlsPort === -1 ? 1 : 0);
  }, 0);

async function takePorts(daemon: Daemon, count: number): Promise<number[]> {
  const found: number[] = [];
  for (let i = 0; i < count; i++) {
    const port = await daemon.host.sockets.freePort(5900, 65535, daemon.ports);
    if (port === undefined) throw libvirtError('internalError', 'qemu', 'Unable to find an unused port in range');
    daemon.ports.add(port);
    found.push(port);
  }
  return found;
}

/** What a process wrote to its log from `from` on. */
async function logTail(daemon: Daemon, path: string, from: number): Promise<string> {
  const text = (await daemon.host.files.read(path)) ?? '';
  const tail = new TextEncoder().encode(text).subarray(from);
  const lines = new TextDecoder().decode(tail).trim().split('\n');
  // People read this in a dialog: an emulator that says why it ends says where its terminals are before.
  const reasons = lines.filter((line) => !/: char device redirected to /.test(line));
  return (reasons.length > 0 ? reasons : lines).map((line) => line.replace(/^\d{4}-\d\d-\d\dT[\d:.]+Z /, '')).join('\n');
}

/** The monitor, negotiated. An emulator that closes the connection and lives on was not ready yet. */
async function connectMonitor(
  daemon: Daemon,
  path: string,
  process: ProcessId,
  failed: () => Promise<Error>,
): Promise<QmpClient> {
  const end = daemon.host.now() + monitorMs;
  for (let pause = 5; ; pause = Math.min(pause * 2, 100)) {
    let monitor: QmpClient | undefined;
    const stop = daemon.host.timers.after(monitorMs, () => monitor?.close(new Error('it does not answer')));
    try {
      monitor = new QmpClient(await daemon.host.sockets.connect(path));
      await monitor.negotiate();
      return monitor;
    } catch {
      monitor?.close();
      if (!daemon.host.processes.alive(process)) throw await failed();
      if (daemon.host.now() > end) throw libvirtError('operationFailed', 'qemu', 'monitor socket did not show up');
    } finally {
      stop();
    }
    await wait(daemon.host, pause);
  }
}

/** The definition of the run with everything that the host decides. */
async function prepare(daemon: Daemon, domain: Domain, id: number, ports: readonly number[]): Promise<Domain> {
  const next = [...ports];
  await daemon.pools.resolveVolumes(domain);
  await findChains(daemon.host, domain);
  return prepareDomain(domain, {
    id,
    directory: `${daemon.paths.lib}/qemu/${shortName(id, domain.name)}`,
    channelDirectory: `${daemon.paths.lib}/qemu/channel/target/${shortName(id, domain.name)}`,
    listenAddress: daemon.options.graphicsListen,
    vncAddress: daemon.options.vnc.listen,
    vncSocket: daemon.options.vnc.socket,
    freePort: () => next.shift()!,
    firmware: () => daemon.options.firmware,
    nvramPath: daemon.guests.nvramPath(domain.name),
  });
}

/** A port may be taken by somebody else between its choice and the emulator's use of it. */
const portAttempts = 4;

/** Starts a guest. The caller holds the guest's lock. @throws {LibvirtError} when it can't run; nothing of it is left then. */
export async function startGuest(daemon: Daemon, guest: Guest, options: StartOptions = {}): Promise<void> {
  const domain = options.domain ?? guest.config!;
  for (let attempt = 1; ; attempt++) {
    try {
      return await tryStart(daemon, guest, options);
    } catch (error) {
      const taken = error instanceof Error && /EADDRINUSE|[Aa]ddress already in use/.test(error.message);
      if (!taken || guest.active || attempt >= portAttempts || wantedPorts(domain) === 0) throw error;
    }
  }
}

async function tryStart(daemon: Daemon, guest: Guest, options: StartOptions): Promise<void> {
  if (guest.active) throw operationInvalid('domain is already running');
  const { host, paths } = daemon;
  const { files } = host;
  const id = daemon.guests.nextId();
  const domain = copyDomain(options.domain ?? guest.config!);
  const emulator = await daemon.emulators.probe(domain.devices.emulator!);
  checkType(domain, emulator.accelerators);
  checkLimits(domain);
  const ports = await takePorts(daemon, wantedPorts(domain));
  const directory = `${paths.lib}/qemu/${shortName(id, guest.name)}`;
  const channels = `${paths.lib}/qemu/channel/target/${shortName(id, guest.name)}`;
  const log = `${paths.log}/qemu/${guest.name}.log`;
  const monitorPath = `${directory}/monitor.sock`;
  let process: ProcessId | undefined;
  const owned: Owned[] = [];
  try {
    await prepare(daemon, domain, id, ports);
    await daemon.networks.attachAll(guest, domain);
    await copyNvram(daemon, domain);
    for (const one of [directory, `${directory}/ram`, channels, `${paths.log}/qemu`]) await files.makeDirectory(one, 0o700);
    await files.write(`${directory}/master-key.aes`, host.crypto.random(32));
    if (daemon.options.user) await giveOwn(daemon, [directory, `${directory}/ram`, channels, `${directory}/master-key.aes`]);
    const context = await commandContext(daemon, domain, directory, monitorPath);
    const ours = emulator.commands.includes(admitCommand);
    const confined = daemon.options.confine && ours;
    const { consoles } = daemon.options;
    const { args, environment } = commandLine(domain, {
      ...context,
      ...(confined && { reachable: directory }),
      ...(ours && consoles.size > 0 && { consoles }),
      ...(options.receive && { incoming: 'defer' }),
      ...(options.loadSnapshot !== undefined && { loadSnapshot: options.loadSnapshot }),
    });
    const whole = { ...environmentOf(directory), ...environment };
    const before = await startLog(daemon, log, whole, domain.devices.emulator!, args);
    await handOverDomain(daemon, { owned }, domain);
    // A daemon that dies now finds this file, and by the directory's name the process.
    await files.write(statusPath(paths.run, guest.name), pendingStatus(guest, id, monitorPath, directory, domain, owned));
    process = await spawnEmulator(daemon, domain.devices.emulator!, args, whole, log, directory);
    const failed = async (): Promise<Error> => {
      const said = await logTail(daemon, log, before);
      return libvirtError('internalError', 'qemu', `process exited while connecting to monitor: ${said}`);
    };
    const monitor = await connectMonitor(daemon, monitorPath, process, failed);
    guest.run = newRun(daemon, id, domain, process, monitorPath, directory, monitor, ports, owned, confined);
    guest.set(state.paused, pausedReason.startingUp, host.now());
    guest.updated = false;
    listenToMonitor(daemon, guest, guest.run);
  } catch (error) {
    if (process !== undefined) {
      host.processes.kill(process, 'SIGKILL');
      await host.processes.gone(process, 10_000);
    }
    await daemon.networks.detachAll(guest, domain);
    for (const port of ports) daemon.ports.delete(port);
    await files.remove(statusPath(paths.run, guest.name));
    await files.removeTree(directory);
    await files.removeTree(channels);
    await handBack(daemon, owned, guest);
    throw error;
  }
  await bringUp(daemon, guest, guest.run, options);
}

/** Gives a guest's own files to the user that its emulator runs as. */
async function giveOwn(daemon: Daemon, paths: readonly string[]): Promise<void> {
  for (const path of paths) await daemon.host.files.change(path, daemon.options.user!);
}

/** The part of the start that talks to the emulator. A failure stops it. */
async function bringUp(daemon: Daemon, guest: Guest, run: Run, options: StartOptions): Promise<void> {
  try {
    await saveStatus(daemon.host, daemon.paths.run, guest);
    await guest.qmp('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
    await readTerminals(guest, run);
    if (addedVcpus(run.domain).length > 0) await addVcpus(guest, run);
    else await readThreads(guest, run);
    if (agentChannel(run) !== undefined) daemon.events.domain(18, guest.ref, { state: 2, reason: 1 });
    await applySettings(daemon, guest, run);
    await applyLimits(daemon, guest, run, run.domain);
    if (options.receive) await options.receive(guest, run);
    else {
      const balloon = run.domain.devices.memballoons.some((one) => one.model !== 'none');
      if (balloon) await run.monitor.execute('balloon', { value: (run.domain.currentMemory ?? 0) * 1024 }).catch(() => {});
    }
    if (options.hold) {
      await saveStatus(daemon.host, daemon.paths.run, guest);
      return;
    }
    // A guest that comes back has started before it goes on; one that boots goes on first, in libvirt's order.
    const comesBack = options.event !== undefined;
    if (comesBack) daemon.guests.lifecycle(guest, options.event);
    if (options.paused) guest.set(state.paused, pausedReason.user, daemon.host.now());
    else {
      const reason = options.reason ?? runningReason.booted;
      run.resumeReason = reason;
      await guest.qmp('cont');
      guest.set(state.running, reason, daemon.host.now());
    }
    if (!comesBack) daemon.guests.lifecycle(guest, 'booted');
    if (options.paused) daemon.guests.lifecycle(guest, comesBack ? 'suspendedRestored' : 'paused');
    await saveStatus(daemon.host, daemon.paths.run, guest);
  } catch (error) {
    await stopRun(daemon, guest, run, 'failed');
    throw error;
  }
}

export function newRun(
  daemon: Daemon,
  id: number,
  domain: Domain,
  process: ProcessId,
  monitorPath: string,
  directory: string,
  monitor: QmpClient,
  ports: readonly number[],
  owned: Owned[],
  confined: boolean,
): Run {
  const run: Run = {
    owned,
    confined,
    give: (command, args) => giveFiles(daemon, run, command, args),
    admit: (disk) => handOverDisk(daemon, { owned }, disk),
    id,
    domain,
    process,
    monitorPath,
    directory,
    monitor,
    threads: new Map(),
    ports,
    agent: undefined,
    agentConnected: false,
    agentTimeout: -2,
    blockJobs: new Map(),
    ending: undefined,
    poweredOff: false,
    rebooting: false,
    stopped: false,
    ended: undefined,
    pauseReason: undefined,
    resumeReason: undefined,
    removals: new Map(),
    consoles: new Map(),
    originalMemory: domain.currentMemory ?? domain.memory ?? 0,
    lastNode: highestNodeIndex(domain),
  };
  return run;
}

/** libvirt's limits of limits. */
function checkLimits(domain: Domain): void {
  const shares = numberIn(domain.cputune, 'shares');
  if (shares !== undefined && (shares < 2n || shares > 262_144n)) {
    throw libvirtError('configUnsupported', 'domain', "Value of cputune 'shares' must be in range [2, 262144]");
  }
  const [event] = enabledEvents(domain);
  if (event !== undefined) throw libvirtError('argumentUnsupported', 'qemu', `unable to enable host cpu perf event for ${event}`);
}

function checkType(domain: Domain, accelerators: readonly string[]): void {
  if (domain.type !== 'kvm' || accelerators.includes('kvm')) return;
  const detail = `Emulator '${domain.devices.emulator}' does not support virt type 'kvm'`;
  throw libvirtError('configUnsupported', 'domain', detail);
}

/** What a command line needs besides the domain; also for `domxml-to-native` and devices that are plugged in. */
export async function commandContext(
  daemon: Daemon,
  domain: Domain,
  directory: string,
  monitorPath: string,
): Promise<CommandLineContext> {
  const emulator = await daemon.emulators.probe(domain.devices.emulator!);
  const machine = findMachine(emulator.info, domain.os.type?.machine);
  if (machine === undefined) {
    const detail = `Emulator '${emulator.info.path}' does not support machine type '${domain.os.type?.machine}'`;
    throw libvirtError('configUnsupported', 'domain', detail);
  }
  return {
    machine,
    monitorPath,
    passDescriptors: false,
    masterKey: `${directory}/master-key.aes`,
    directory,
    now: Math.floor(daemon.host.now() / 1000),
    hostModel: domain.type === 'kvm' ? 'host' : 'max',
    netdev: (device) => daemon.networks.backend(device),
    vnc: daemon.options.vnc,
  };
}

async function copyNvram(daemon: Daemon, domain: Domain): Promise<void> {
  const { nvram, loader } = domain.os;
  if (loader?.type !== 'pflash' || nvram?.path === undefined) return;
  if ((await daemon.host.files.status(nvram.path)) !== undefined) return;
  const template = nvram.template ?? daemon.options.firmware?.template;
  if (template === undefined) {
    throw libvirtError('operationFailed', 'domain', `unable to find any master var store for loader: ${loader.path}`);
  }
  const source = await daemon.host.files.open(template, 'read');
  try {
    await daemon.host.files.write(nvram.path, await source.read(0, await source.size()));
  } finally {
    await source.close();
  }
}

/** Writes how the emulator is started into its log; the length of the log then. */
async function startLog(
  daemon: Daemon,
  path: string,
  environment: Readonly<Record<string, string>>,
  emulator: string,
  args: readonly string[],
): Promise<number> {
  const old = (await daemon.host.files.read(path)) ?? '';
  const quote = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);
  const lines: string[] = [];
  for (const [name, value] of Object.entries(environment)) lines.push(`${name}=${quote(value)}`);
  lines.push(emulator);
  for (let at = 0; at < args.length; at++) {
    const value = args[at + 1];
    const pair = args[at]!.startsWith('-') && value !== undefined && !value.startsWith('-');
    lines.push(pair ? `${args[at]} ${quote(value)}` : quote(args[at]!));
    if (pair) at++;
  }
  const stamp = new Date(daemon.host.now()).toISOString().replace('T', ' ').replace('Z', '+0000');
  const kept = old.length > maxLog ? old.slice(-maxLog / 2) : old;
  const text = `${kept}${stamp}: starting up nonroot\n${lines.join(' \\\n')}\n`;
  await daemon.host.files.write(path, text, 0o600);
  return new TextEncoder().encode(text).length;
}
/** Characters of a log that are kept from start to start. */
const maxLog = 2 * 1024 * 1024;

const pendingStatus = (
  guest: Guest,
  id: number,
  monitorPath: string,
  directory: string,
  domain: Domain,
  owned: readonly Owned[],
): string =>
  JSON.stringify({
    ...{ version: 1, name: guest.name, uuid: guest.uuid, id, monitorPath, directory, ports: [], state: 0, reason: 0 },
    ...{ persistent: guest.persistent, originalMemory: domain.memory ?? 0, domain: '', blockJobs: [], owned },
  });

async function spawnEmulator(
  daemon: Daemon,
  path: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
  log: string,
  directory: string,
): Promise<ProcessId> {
  const { host, options } = daemon;
  const setpriv = options.setpriv;
  const what = { environment, log, directory, ...(options.user && { user: options.user }) };
  try {
    if (setpriv === undefined) return await host.processes.spawn({ ...what, path, args });
    return await host.processes.spawn({ ...what, path: setpriv, args: ['--no-new-privs', '--', path, ...args] });
  } catch (error) {
    throw libvirtError('systemError', 'qemu', `Cannot execute ${path}: ${(error as Error).message}`);
  }
}

/** The terminals that the emulator has made, into the running definition. */
export async function readTerminals(guest: Guest, run: Run): Promise<void> {
  const answer = await guest.qmp('query-chardev');
  const paths = new Map<string, string>();
  for (const one of Array.isArray(answer) ? answer : []) {
    if (!isObject(one)) continue;
    const file = String(one['filename'] ?? '');
    if (file.startsWith('pty:')) paths.set(String(one['label']), file.slice('pty:'.length));
  }
  const { serials, consoles, parallels, channels } = run.domain.devices;
  for (const one of [...serials, ...parallels, ...channels, ...consoles]) {
    if (one.type !== 'pty') continue;
    const path = paths.get(`char${one.alias?.name}`);
    if (path === undefined) continue;
    one.sources = [{ path, seclabels: [] }];
  }
  for (const one of consoles) {
    const path = one.sources[0]?.path;
    if (one.type === 'pty' && path !== undefined) one.tty = path;
  }
  for (const one of channels) if (one.target?.type === 'virtio') one.target.state = 'disconnected';
}

/** Settings that have no place on the command line. */
/** The vCPUs that are not of the command line, before the guest runs or its state comes. */
async function addVcpus(guest: Guest, run: Run): Promise<void> {
  const all = await hotpluggable(guest);
  for (const { id } of addedVcpus(run.domain)) await addVcpu(guest, all, id);
  await readVcpus(guest, run);
}

async function applySettings(daemon: Daemon, guest: Guest, run: Run): Promise<void> {
  for (const one of run.domain.devices.interfaces) {
    if (one.link?.state === 'down') await guest.qmp('set_link', { name: one.alias!.name, up: false });
  }
  for (const disk of run.domain.devices.disks) if (disk.iotune) await applyIoTune(guest, disk);
  for (const one of run.domain.devices.graphics) {
    if (one.type !== 'vnc' && one.type !== 'spice') continue;
    const password = one.passwd ?? (one.type === 'vnc' ? daemon.options.vnc.password : undefined);
    if (password !== undefined) await guest.qmp('set_password', { protocol: one.type, password });
  }
  const balloon = run.domain.devices.memballoons.find((one) => one.model !== 'none');
  if (balloon?.stats) {
    const path = `/machine/peripheral/${balloon.alias?.name}`;
    await guest.qmp('qom-set', { path, property: 'guest-stats-polling-interval', value: balloon.stats.period });
  }
}
