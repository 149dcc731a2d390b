// A daemon that starts finds the guests that run: by their status files, their processes and their monitors.

import { highestNodeIndex } from '../../domain/command-line/plug.ts';
import { parseDomain } from '../../domain/domain.ts';
import { QmpClient } from '../../rpc/qmp/client.ts';
import { isObject } from '../../rpc/qmp/json.ts';
import type { Daemon } from '../daemon.ts';
import { resumeBackup } from './backup.ts';
import { resumeJobs } from './block-job-ends.ts';
import { blockJobEvent } from './block-jobs.ts';
import { Guest, type Run } from './guest.ts';
import { newRun } from './launch.ts';
import { removeLimits } from './limits.ts';
import { listenToMonitor, readThreads } from './monitor.ts';
import { handBack } from './ownership.ts';
import { pausedReason, runningReason, type State, state } from './states.ts';
import { parseStatus, type Status, statusPath } from './status.ts';
import { finishRun } from './stop.ts';

const connectMs = 60_000;

/** Finds every guest that has a status file; what does not run any more is cleaned up. */
export async function findGuestsAgain(daemon: Daemon): Promise<void> {
  const directory = `${daemon.paths.run}/qemu`;
  const found = (await daemon.host.files.list(directory)).filter((name) => name.endsWith('.json'));
  await Promise.all(
    found.map(async (file) => {
      const status = parseStatus((await daemon.host.files.read(`${directory}/${file}`)) ?? '');
      if (status === undefined) return daemon.host.files.remove(`${directory}/${file}`);
      daemon.guests.usedId(status.id);
      try {
        return await findAgain(daemon, status);
      } catch (error) {
        daemon.host.log(`domain ${status.name}: ${(error as Error).message}`);
        return dropLeftovers(daemon, status);
      }
    }),
  );
}

/** A start that was not finished, or a guest that ended meanwhile. */
async function dropLeftovers(daemon: Daemon, status: Status): Promise<void> {
  const { processes, files } = daemon.host;
  for (const one of status.process ? [status.process] : processes.find(`${status.directory}/`)) {
    processes.kill(one, 'SIGKILL');
    await processes.gone(one, 10_000);
  }
  await files.remove(statusPath(daemon.paths.run, status.name));
  await files.removeTree(status.directory);
  await removeLimits(daemon, status);
  await handBack(daemon, status.owned ?? [], daemon.guests.byUuid(status.uuid));
}

async function findAgain(daemon: Daemon, status: Status): Promise<void> {
  const { host } = daemon;
  const process = status.process;
  if (process === undefined || status.domain === '') return dropLeftovers(daemon, status);
  const known = daemon.guests.byUuid(status.uuid);
  const guest = known ?? new Guest(status.name, status.uuid, host.timers);
  const domain = parseDomain(status.domain);
  if (!host.processes.alive(process)) {
    guest.set(state.shutoff, 0, host.now());
    await daemon.networks.detachAll(guest, domain);
    return dropLeftovers(daemon, status);
  }
  const monitor = new QmpClient(await host.sockets.connect(status.monitorPath));
  const stop = host.timers.after(connectMs, () => monitor.close(new Error('the monitor does not answer')));
  try {
    await monitor.negotiate();
  } finally {
    stop();
  }
  const owned = [...(status.owned ?? [])];
  const { monitorPath, directory, ports, confined = false } = status;
  const run = newRun(daemon, status.id, domain, process, monitorPath, directory, monitor, ports, owned, confined);
  guest.run = run;
  for (const port of status.ports) daemon.ports.add(port);
  daemon.guests.add(guest);
  daemon.networks.remember(guest, domain);
  run.lastNode = highestNodeIndex(domain);
  guest.set(status.state as State, status.reason, host.now());
  listenToMonitor(daemon, guest, run);
  await catchUp(daemon, guest, run);
  if (run.stopped) return;
  guest.backup = status.backup;
  await resumeJobs(guest, run, status.blockJobs, (id, word) => blockJobEvent(daemon, guest, run, id, word));
  if (status.backup) await resumeBackup(daemon, guest, run, status.backup);
}

/** What happened while nobody listened. */
async function catchUp(daemon: Daemon, guest: Guest, run: Run): Promise<void> {
  const now = daemon.host.now();
  const answer = await guest.qmp('query-status');
  const word = isObject(answer) ? String(answer['status']) : '';
  if (word === 'shutdown') {
    run.poweredOff = true;
    daemon.host.processes.kill(run.process, 'SIGTERM');
    if (!(await daemon.host.processes.gone(run.process, 10_000))) daemon.host.processes.kill(run.process, 'SIGKILL');
    await daemon.host.processes.gone(run.process, 10_000);
    await finishRun(daemon, guest, run, 'shutdown');
    return;
  }
  await readThreads(guest, run);
  await readDevices(guest, run);
  const going = isObject(answer) && answer['running'] === true;
  if (going && guest.state !== state.running) guest.set(state.running, runningReason.unknown, now);
  // A save or migration that the last daemon did not finish is given up; the guest goes on.
  const interrupted =
    guest.state === state.paused &&
    [pausedReason.save, pausedReason.migration, pausedReason.dump, pausedReason.snapshot, pausedReason.startingUp].includes(
      guest.reason as 3,
    );
  if (!going && (guest.state === state.running || interrupted)) {
    await guest.qmp('migrate_cancel').catch(() => {});
    if (interrupted || word === 'postmigrate') await guest.qmp('cont').catch(() => {});
    else if (guest.state === state.running) guest.set(state.paused, pausedReason.unknown, now);
  }
  // The balloon may have moved.
  if (run.domain.devices.memballoons.some((one) => one.model !== 'none')) {
    const balloon = await run.monitor.execute('query-balloon').catch(() => undefined);
    if (isObject(balloon)) run.domain.currentMemory = Math.floor(Number(balloon['actual']) / 1024);
  }
}

/** Devices that went away, and channels that opened, while nobody listened. */
async function readDevices(guest: Guest, run: Run): Promise<void> {
  const list = await guest.qmp('qom-list', { path: '/machine/peripheral' });
  const there = new Set((Array.isArray(list) ? list : []).flatMap((one) => (isObject(one) ? [String(one['name'])] : [])));
  const { disks, interfaces, channels } = run.domain.devices;
  const stays = (one: { alias?: { name: string } }): boolean => one.alias === undefined || there.has(one.alias.name);
  if (there.size > 0) {
    run.domain.devices.disks = disks.filter((one) => one.target?.bus === 'fdc' || stays(one));
    run.domain.devices.interfaces = interfaces.filter(stays);
  }
  const answer = await guest.qmp('query-chardev');
  for (const one of channels) {
    if (one.target?.type !== 'virtio') continue;
    const found = (Array.isArray(answer) ? answer : []).find((c) => isObject(c) && c['label'] === `char${one.alias?.name}`);
    const open = isObject(found) && found['frontend-open'] === true;
    one.target.state = open ? 'connected' : 'disconnected';
    if (one.target.name === 'org.qemu.guest_agent.0') run.agentConnected = open;
  }
}
