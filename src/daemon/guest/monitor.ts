// What a running guest tells through its monitor: events become states, changes of the running definition, and libvirt's events.
// QEMU "QMP Reference Manual", events (QEMU 7.2).

import { type Device, detachDevice } from '../../domain/device.ts';
import type { Domain } from '../../domain/domain.ts';
import type { Channel } from '../../domain/model/character.ts';
import { setVcpuStates, type VcpuState, vcpuStates } from '../../domain/model/vcpus.ts';
import { AgentClient, type QmpEvent } from '../../rpc/qmp/client.ts';
import { isObject, type Json } from '../../rpc/qmp/json.ts';
import type { Daemon } from '../daemon.ts';
import { blockJobEvent } from './block-jobs.ts';
import type { Ending, Guest, Run } from './guest.ts';
import { pausedReason, runningReason, shutdownReason, state } from './states.ts';
import { saveStatus } from './status.ts';
import { finishRun, stopRun } from './stop.ts';

type Data = QmpEvent['data'];
type Handler = (daemon: Daemon, guest: Guest, run: Run, data: Data) => void | Promise<void>;

/** How long a process may take to end after its monitor is gone. */
const endMs = 15_000;

/** The channel behind which the guest agent is. */
export const agentChannel = (run: Run): Channel | undefined =>
  run.domain.devices.channels.find((one) => one.target?.type === 'virtio' && one.target.name === 'org.qemu.guest_agent.0');

/** Threads of the vCPUs, which also says how many there are. */
export async function readThreads(guest: Guest, run: Run): Promise<void> {
  const answer = await guest.qmp('query-cpus-fast');
  const threads = new Map<number, number>();
  for (const one of Array.isArray(answer) ? answer : []) {
    if (isObject(one)) threads.set(Number(one['cpu-index']), Number(one['thread-id']));
  }
  run.threads = threads;
}

/** What a guest's emulator tells of its possible vCPUs, in their order. */
export async function hotpluggable(guest: Guest): Promise<readonly { readonly [name: string]: Json }[]> {
  const answer = await guest.qmp('query-hotpluggable-cpus');
  return (Array.isArray(answer) ? answer : []).filter(isObject).toReversed();
}
/** Reads which vCPUs a running guest has. */
export async function readVcpus(guest: Guest, run: Run): Promise<void> {
  const all = await hotpluggable(guest);
  const { domain } = run;
  const count = all.filter((one) => one['qom-path'] !== undefined).length;
  const isAdded = (one: (typeof all)[number]): boolean => String(one['qom-path']).startsWith('/machine/peripheral/');
  if (all.length === domain.vcpu.count && (domain.vcpus || all.some(isAdded))) {
    const states = vcpuStates(domain);
    for (const [id, one] of all.entries()) {
      const state = states[id]!;
      state.enabled = one['qom-path'] === undefined ? 'no' : 'yes';
      state.hotpluggable = one['qom-path'] === undefined || isAdded(one) ? 'yes' : 'no';
    }
    // Those of the command line came first, then the others as they were added.
    const place = (one: VcpuState): number =>
      one.hotpluggable === 'no' ? one.id : (one.order ?? states.length) + 2 * states.length;
    const on = states.filter((one) => one.enabled === 'yes').sort((a, b) => place(a) - place(b) || a.id - b.id);
    for (const one of states) one.order = one.enabled === 'yes' ? on.indexOf(one) + 1 : undefined;
    setVcpuStates(domain, states);
  } else if (count === domain.vcpu.count) delete domain.vcpu.current;
  else domain.vcpu.current = count;
  await readThreads(guest, run);
}
/** Adds one of a guest's possible vCPUs. */
export async function addVcpu(guest: Guest, all: Awaited<ReturnType<typeof hotpluggable>>, id: number): Promise<void> {
  const one = all[id] ?? {};
  const props = isObject(one['props']) ? one['props'] : {};
  await guest.qmp('device_add', { driver: one['type'] ?? '', id: `vcpu${id}`, ...props });
}

const diskOf = (run: Run, data: Data): Domain['devices']['disks'][number] | undefined => {
  const device = String(data['id'] ?? data['device'] ?? '');
  const path = String(data['qom-path'] ?? '');
  const node = String(data['node-name'] ?? '');
  return run.domain.devices.disks.find((one) => {
    const alias = one.alias?.name;
    return (
      (alias !== undefined && (device === alias || device === `drive-${alias}` || path.includes(`/${alias}`))) ||
      (node !== '' && one.source?.index !== undefined && node === `libvirt-${one.source.index}-format`)
    );
  });
};

async function guestPoweredOff(daemon: Daemon, guest: Guest, run: Run): Promise<void> {
  if (run.rebooting || run.domain.onPoweroff === 'restart') {
    run.rebooting = false;
    run.poweredOff = false;
    run.resumeReason = runningReason.booted;
    await guest.qmp('system_reset');
    await guest.qmp('cont');
    return;
  }
  await stopRun(daemon, guest, run, 'shutdown');
}

const handlers: Readonly<Record<string, Handler>> = {
  STOP(daemon, guest, run) {
    const reason = run.pauseReason;
    run.pauseReason = undefined;
    if (guest.state !== state.running) return;
    guest.set(state.paused, reason ?? pausedReason.unknown, daemon.host.now());
    daemon.guests.lifecycle(guest, reason === pausedReason.ioError ? 'suspendedIoError' : 'paused');
  },
  RESUME(daemon, guest, run) {
    const reason = run.resumeReason ?? runningReason.unpaused;
    run.resumeReason = undefined;
    if (guest.state === state.running) return;
    guest.set(state.running, reason, daemon.host.now());
    const back = reason === runningReason.restored || reason === runningReason.fromSnapshot;
    const event = back ? 'resumedFromSnapshot' : reason === runningReason.migrated ? 'resumedMigrated' : 'unpaused';
    daemon.guests.lifecycle(guest, event);
  },
  async SHUTDOWN(daemon, guest, run, data) {
    if (run.poweredOff) return;
    run.poweredOff = true;
    const byGuest = data['guest'] === true;
    if (data['reason'] === 'host-signal' && run.ending === undefined) run.ending = 'shutdown';
    const quiet = run.ending === 'saved' || run.ending === 'migrated' || run.ending === 'fromSnapshot' || run.ending === 'failed';
    if (!run.rebooting && !quiet) {
      guest.set(state.shutdown, shutdownReason.unknown, daemon.host.now());
      daemon.guests.lifecycle(guest, byGuest ? 'shutdownGuest' : 'shutdownHost');
    }
    if (byGuest) await guestPoweredOff(daemon, guest, run);
  },
  async RESET(daemon, guest, run, data) {
    daemon.events.domain(1, guest.ref);
    if (data['guest'] === true && run.domain.onReboot === 'destroy') await stopRun(daemon, guest, run, 'destroyed');
  },
  DEVICE_DELETED(daemon, guest, run, data) {
    const alias = data['device'] === undefined ? undefined : String(data['device']);
    if (alias === undefined) return;
    const waiting = run.removals.get(alias);
    if (waiting) waiting(true);
    // A vCPU that the guest let go of late.
    else if (/^vcpu\d+$/.test(alias))
      void readVcpus(guest, run)
        .then(() => saveStatus(daemon.host, daemon.paths.run, guest))
        .catch(() => {});
    else dropDevice(daemon, guest, run, alias);
  },
  DEVICE_UNPLUG_GUEST_ERROR(daemon, guest, run, data) {
    const alias = String(data['device'] ?? '');
    run.removals.get(alias)?.(false);
    daemon.events.domain(22, guest.ref, { devAlias: alias });
  },
  DEVICE_TRAY_MOVED(daemon, guest, run, data) {
    const disk = diskOf(run, data);
    if (!disk?.target) return;
    const open = data['tray-open'] === true;
    if (open) disk.target.tray = 'open';
    else delete disk.target.tray;
    daemon.events.domain(10, guest.ref, { devAlias: disk.alias?.name ?? '', reason: open ? 0 : 1 });
  },
  BALLOON_CHANGE(daemon, guest, run, data) {
    const kib = Math.floor(Number(data['actual']) / 1024);
    run.domain.currentMemory = kib;
    daemon.events.domain(13, guest.ref, { actual: BigInt(kib) });
  },
  VSERPORT_CHANGE(daemon, guest, run, data) {
    const open = data['open'] === true;
    const channel = run.domain.devices.channels.find((one) => one.alias?.name === data['id']);
    if (channel?.target?.type === 'virtio') channel.target.state = open ? 'connected' : 'disconnected';
    if (channel === undefined || channel !== agentChannel(run)) return;
    run.agentConnected = open;
    if (!open) {
      run.agent?.close();
      run.agent = undefined;
    }
    daemon.events.domain(18, guest.ref, { state: open ? 1 : 2, reason: 2 });
  },
  BLOCK_IO_ERROR(daemon, guest, run, data) {
    const disk = diskOf(run, data);
    const actions: Readonly<Record<string, number>> = { ignore: 0, stop: 1, report: 2 };
    const action = actions[String(data['action'])] ?? 0;
    const fields = { srcPath: disk?.source?.file ?? '', devAlias: disk?.alias?.name ?? '', action };
    daemon.events.domain(4, guest.ref, fields);
    const reason = data['nospace'] === true ? 'enospc' : '';
    daemon.events.domain(6, guest.ref, { ...fields, reason });
    if (action === 1) {
      if (guest.state === state.running) run.pauseReason = pausedReason.ioError;
      else if (guest.state === state.paused) guest.set(state.paused, pausedReason.ioError, daemon.host.now());
    }
  },
  MIGRATION_PASS(daemon, guest, _, data) {
    daemon.events.domain(20, guest.ref, { iteration: Number(data['pass'] ?? 0) });
  },
  async GUEST_PANICKED(daemon, guest, run, data) {
    daemon.guests.lifecycle(guest, 'panicked');
    const action = run.domain.onCrash ?? 'destroy';
    if (action === 'restart' || action === 'coredump-restart') {
      run.poweredOff = false;
      run.rebooting = true;
      return;
    }
    if (action === 'preserve') guest.set(state.crashed, 1, daemon.host.now());
    else if (data['action'] !== 'run') await stopRun(daemon, guest, run, 'crashed');
  },
  WATCHDOG(daemon, guest, _, data) {
    const actions = ['none', 'pause', 'reset', 'poweroff', 'shutdown', 'debug', 'inject-nmi'];
    daemon.events.domain(3, guest.ref, { action: Math.max(0, actions.indexOf(String(data['action']))) });
  },
  RTC_CHANGE(daemon, guest, run, data) {
    const offset = Number(data['offset'] ?? 0);
    if (run.domain.clock?.offset === 'variable') run.domain.clock.adjustment = String(offset);
    daemon.events.domain(2, guest.ref, { offset: BigInt(offset) });
  },
  VNC_CONNECTED: (daemon, guest, _, data) => graphics(daemon, guest, 0, data),
  VNC_INITIALIZED: (daemon, guest, _, data) => graphics(daemon, guest, 1, data),
  VNC_DISCONNECTED: (daemon, guest, _, data) => graphics(daemon, guest, 2, data),
  SUSPEND(daemon, guest) {
    guest.set(state.pmSuspended, 0, daemon.host.now());
    daemon.guests.lifecycle(guest, 'pmSuspended');
    daemon.events.domain(12, guest.ref, { reason: 0 });
  },
  SUSPEND_DISK(daemon, guest) {
    daemon.guests.lifecycle(guest, 'pmSuspendedDisk');
    daemon.events.domain(14, guest.ref, { reason: 0 });
  },
  WAKEUP(daemon, guest) {
    guest.set(state.running, runningReason.wakeup, daemon.host.now());
    daemon.guests.lifecycle(guest, 'wakeup');
    daemon.events.domain(11, guest.ref, { reason: 0 });
  },
  BLOCK_WRITE_THRESHOLD(daemon, guest, run, data) {
    const disk = diskOf(run, data);
    const number = (name: string): bigint => BigInt(Number(data[name] ?? 0));
    daemon.events.domain(24, guest.ref, {
      dev: disk?.target?.dev ?? '',
      path: disk?.source?.file,
      threshold: number('write-threshold'),
      excess: number('amount-exceeded'),
    });
  },
  JOB_STATUS_CHANGE: (daemon, guest, run, data) => blockJobEvent(daemon, guest, run, String(data['id']), String(data['status'])),
};

function graphics(daemon: Daemon, guest: Guest, phase: number, data: Data): void {
  const end = (value: Json | undefined) => {
    const given = isObject(value) ? value : {};
    const family = given['family'] === 'ipv6' ? 1 : given['family'] === 'unix' ? 2 : 0;
    return { family, node: String(given['host'] ?? ''), service: String(given['service'] ?? '') };
  };
  const server = isObject(data['server']) ? data['server'] : {};
  daemon.events.domain(5, guest.ref, {
    phase,
    local: end(data['server']),
    remote: end(data['client']),
    authScheme: String(server['auth'] ?? ''),
    subject: [],
  });
}

/** Takes a device that the guest or the emulator has let go out of the running definition. */
export function dropDevice(daemon: Daemon, guest: Guest, run: Run, alias: string): void {
  for (const list of Object.values(run.domain.devices)) {
    if (!Array.isArray(list)) continue;
    const value = list.find((one: unknown) => (one as { alias?: { name: string } }).alias?.name === alias);
    if (value === undefined) continue;
    const element = elementOf(run.domain, list);
    if (element === undefined) continue;
    detachDevice(run.domain, { element, value } as Device);
    void daemon.networks.detached(guest, value as object);
    daemon.events.domain(15, guest.ref, { devAlias: alias });
    void saveStatus(daemon.host, daemon.paths.run, guest);
    return;
  }
}

/** The element name of a list of devices. */
function elementOf(domain: Domain, list: unknown): Device['element'] | undefined {
  const names: Readonly<Record<string, Device['element']>> = {
    ...{ disks: 'disk', controllers: 'controller', interfaces: 'interface', inputs: 'input', rngs: 'rng', hostdevs: 'hostdev' },
    ...{ filesystems: 'filesystem', watchdogs: 'watchdog', channels: 'channel', memories: 'memory', redirdevs: 'redirdev' },
  };
  const found = Object.entries(domain.devices).find(([, one]) => one === list);
  return found && names[found[0]];
}

/** Follows a guest's monitor until its end. */
export function listenToMonitor(daemon: Daemon, guest: Guest, run: Run): void {
  const report = (error: unknown): void => daemon.host.log(`domain ${guest.name}: ${(error as Error).message}`);
  run.monitor.onEvent((event) => {
    const { seconds, microseconds } = event.timestamp ?? { seconds: 0, microseconds: 0 };
    const details = Object.keys(event.data).length > 0 ? JSON.stringify(event.data, plainBigints) : undefined;
    daemon.events.monitor(guest.ref, event.event, Number(seconds), Number(microseconds), details);
    const handler = handlers[event.event];
    if (handler === undefined || run.stopped) return;
    const before = guest.state;
    try {
      void Promise.resolve(handler(daemon, guest, run, event.data)).catch(report);
    } catch (error) {
      report(error);
    }
    if (guest.state !== before) void saveStatus(daemon.host, daemon.paths.run, guest).catch(report);
  });
  void run.monitor.closed.then(() => monitorGone(daemon, guest, run).catch(report));
}

const plainBigints = (_: string, value: unknown): unknown => (typeof value === 'bigint' ? Number(value) : value);

/** The connection is gone: the process has ended, or will have to. */
async function monitorGone(daemon: Daemon, guest: Guest, run: Run): Promise<void> {
  if (run.stopped) return;
  const { processes } = daemon.host;
  if (!(await processes.gone(run.process, endMs))) processes.kill(run.process, 'SIGKILL');
  await processes.gone(run.process, endMs);
  const ending: Ending = run.ending ?? (run.poweredOff ? 'shutdown' : 'failed');
  await finishRun(daemon, guest, run, ending);
}

/** The guest agent, connected when it is first needed. @throws {LibvirtError} 86 when nobody answers there. */
export async function agentOf(daemon: Daemon, run: Run): Promise<AgentClient | undefined> {
  if (run.agent) return run.agent;
  const path = agentChannel(run)?.sources[0]?.path;
  if (path === undefined) return undefined;
  const agent = new AgentClient(await daemon.host.sockets.connect(path), {
    timers: daemon.host.timers,
    firstSync: daemon.host.now() % 1e9,
  });
  run.agent = agent;
  void agent.closed.then(() => {
    if (run.agent === agent) run.agent = undefined;
  });
  return agent;
}
