// The end of a run: the process is made to go, what it held is given back, the domain is shut off or forgotten.
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Daemon } from '../daemon.ts';
import { wait } from '../host.ts';
import { baseName } from '../paths.ts';
import type { Ending, Guest, Run } from './guest.ts';
import { removeLimits } from './limits.ts';
import { handBack } from './ownership.ts';
import { crashedReason, type Lifecycle, shutoffReason, state } from './states.ts';
import { statusPath } from './status.ts';

const endings: Readonly<Record<Ending, readonly [reason: number, event: Lifecycle]>> = {
  destroyed: [shutoffReason.destroyed, 'stoppedDestroyed'],
  saved: [shutoffReason.saved, 'stoppedSaved'],
  migrated: [shutoffReason.migrated, 'stoppedMigrated'],
  failed: [shutoffReason.failed, 'stoppedFailed'],
  fromSnapshot: [shutoffReason.fromSnapshot, 'stoppedFromSnapshot'],
  shutdown: [shutoffReason.shutdown, 'stoppedShutdown'],
  crashed: [shutoffReason.crashed, 'stoppedCrashed'],
};

const politeMs = 10_000;
const killMs = 20_000;
/** For what a process that is gone has still said. */
const lastWordsMs = 1000;

/**
 * Ends a run: SIGTERM, then SIGKILL unless `graceful`. Does nothing for a run that has ended.
 * @throws {LibvirtError} 38 when the process stays
 */
export async function stopRun(daemon: Daemon, guest: Guest, run: Run, ending: Ending, graceful = false): Promise<void> {
  const { processes } = daemon.host;
  run.ending = ending;
  processes.kill(run.process, 'SIGTERM');
  if (!(await processes.gone(run.process, politeMs))) {
    if (graceful) {
      run.ending = undefined;
      throw libvirtError(
        'systemError',
        'qemu',
        `Failed to terminate process ${run.process.pid} with SIGTERM: Device or resource busy`,
      );
    }
    processes.kill(run.process, 'SIGKILL');
    if (!(await processes.gone(run.process, killMs))) {
      throw libvirtError(
        'systemError',
        'qemu',
        `Failed to terminate process ${run.process.pid} with SIGKILL: Device or resource busy`,
      );
    }
  }
  // Its monitor may have told of the end, and that not have been read yet.
  await Promise.race([run.monitor.closed, wait(daemon.host, lastWordsMs)]);
  await finishRun(daemon, guest, run, ending);
}

/** The process is gone: cleans up after it, once for each run; whoever comes later waits for that. */
export function finishRun(daemon: Daemon, guest: Guest, run: Run, ending: Ending): Promise<void> {
  run.ended ??= cleanUp(daemon, guest, run, ending);
  return run.ended;
}

async function cleanUp(daemon: Daemon, guest: Guest, run: Run, ending: Ending): Promise<void> {
  run.stopped = true;
  const { host, paths } = daemon;
  run.monitor.close();
  run.agent?.close();
  for (const end of run.consoles.values()) end();
  for (const job of run.blockJobs.values()) job.done.resolve();
  for (const done of run.removals.values()) done(false);
  for (const port of run.ports) daemon.ports.delete(port);
  const { id } = run;
  guest.run = undefined;
  guest.job = undefined;
  guest.backup = undefined;
  const [reason, event] = endings[ending];
  if (ending === 'crashed' && run.domain.onCrash === 'preserve') guest.set(state.crashed, crashedReason.panicked, host.now());
  else guest.set(state.shutoff, reason, host.now());
  await daemon.networks.detachAll(guest, run.domain);
  await removeLimits(daemon, run);
  await handBack(daemon, run.owned, guest);
  await host.files.remove(statusPath(paths.run, guest.name));
  await host.files.removeTree(run.directory);
  await host.files.removeTree(`${paths.lib}/qemu/channel/target/${baseName(run.directory)}`);
  // A transient domain exists only while it runs.
  if (!guest.persistent) daemon.guests.remove(guest);
  daemon.guests.lifecycle(guest, event, ending === 'migrated' ? id : -1);
  daemon.guestStopped(guest);
}
