// The life of a domain as clients change it: start, stop, pause, reboot, power. libvirt 9.0's rules and words.
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import { AgentTimeout } from '../../rpc/qmp/client.ts';
import type { Json } from '../../rpc/qmp/json.ts';
import type { Daemon } from '../daemon.ts';
import { notRunning, operationInvalid } from '../errors.ts';
import type { Session } from '../sessions.ts';
import type { Guest, Run } from './guest.ts';
import { type StartOptions, startGuest } from './launch.ts';
import { agentChannel, agentOf } from './monitor.ts';
import { restoreImage } from './save.ts';
import { pausedReason, state } from './states.ts';
import { stopRun } from './stop.ts';

export interface StartRequest {
  readonly paused?: boolean;
  readonly session?: Session | undefined;
  /** Throws a saved state away instead of going on from it. */
  readonly forceBoot?: boolean;
}

/** Starts a defined domain, from its saved state when it has one. */
export async function startDefined(daemon: Daemon, guest: Guest, request: StartRequest): Promise<void> {
  await guest.lock.run('DomainCreate', async () => {
    if (guest.active) throw operationInvalid('domain is already running');
    if (!guest.config) throw libvirtError('noDomain', 'qemu', `no domain with matching uuid '${guest.uuid}' (${guest.name})`);
    const path = daemon.guests.savePath(guest.name);
    if (guest.managedSave && request.forceBoot) await dropManagedSave(daemon, guest);
    if (guest.managedSave) {
      await restoreImage(daemon, path, { guest, paused: request.paused });
      await dropManagedSave(daemon, guest);
    } else await startGuest(daemon, guest, { ...(request.paused && { paused: true }) });
    if (request.session) request.session.autodestroy.add(guest.uuid);
  });
}

export async function dropManagedSave(daemon: Daemon, guest: Guest): Promise<void> {
  await daemon.host.files.remove(daemon.guests.savePath(guest.name));
  guest.managedSave = false;
}

/** Runs a document: a transient domain, or one run of a defined one. */
export async function createFromXml(daemon: Daemon, xml: string, options: StartOptions, session?: Session): Promise<Guest> {
  const domain = await daemon.guests.parse(xml);
  const same = daemon.guests.check(domain, true);
  const { Guest: GuestClass } = await import('./guest.ts');
  const guest = same ?? new GuestClass(domain.name, domain.uuid!, daemon.host.timers);
  daemon.guests.add(guest);
  try {
    await guest.lock.run('DomainCreateXML', () => startGuest(daemon, guest, { ...options, domain }));
  } catch (error) {
    if (!guest.persistent && !guest.active) daemon.guests.remove(guest);
    throw error;
  }
  if (session) session.autodestroy.add(guest.uuid);
  return guest;
}

export async function destroyGuest(daemon: Daemon, guest: Guest, graceful: boolean): Promise<void> {
  const run = guest.live();
  // A save or migration that is under way ends with the guest; it must not keep the lock for ever.
  await guest.job?.abort?.().catch(() => {});
  if (guest.lock.owner !== undefined && guest.job !== undefined) {
    await stopRun(daemon, guest, run, 'destroyed', graceful);
    return;
  }
  await guest.lock.run('DomainDestroy', async () => {
    if (guest.run !== run) throw notRunning();
    await stopRun(daemon, guest, run, 'destroyed', graceful);
  });
}

export async function suspendGuest(guest: Guest): Promise<void> {
  await guest.lock.run('DomainSuspend', async () => {
    const run = guest.live();
    if (guest.state === state.pmSuspended) throw operationInvalid('domain is pmsuspended');
    if (guest.state === state.paused) return;
    run.pauseReason = pausedReason.user;
    await guest.qmp('stop');
  });
}

export async function resumeGuest(guest: Guest): Promise<void> {
  await guest.lock.run('DomainResume', async () => {
    guest.live();
    if (guest.state === state.pmSuspended) throw operationInvalid('domain is pmsuspended');
    if (guest.state === state.running) throw operationInvalid('domain is already running');
    await guest.qmp('cont');
  });
}

/** libvirt's flags of shutdown and reboot. */
export const power = { acpi: 1, agent: 2, initctl: 4, signal: 8, paravirt: 16 } as const;

/** Whether a guest agent is there to be asked. */
const hasAgent = (run: Run): boolean => agentChannel(run) !== undefined && run.agentConnected;

export async function shutdownGuest(daemon: Daemon, guest: Guest, flags: number): Promise<void> {
  const run = guest.live();
  const byAgent = (flags & power.agent) !== 0 || (flags === 0 && hasAgent(run));
  run.rebooting = false;
  if (byAgent) {
    await agentCommand(daemon, guest, 'guest-shutdown', { mode: 'powerdown' }, { silent: true }).catch(async (error: unknown) => {
      if ((flags & power.acpi) === 0 && flags !== 0) throw error;
      await guest.qmp('system_powerdown');
    });
    return;
  }
  await guest.lock.run('DomainShutdown', () => guest.qmp('system_powerdown'));
}

export async function rebootGuest(daemon: Daemon, guest: Guest, flags: number): Promise<void> {
  const run = guest.live();
  const byAgent = (flags & power.agent) !== 0 || (flags === 0 && hasAgent(run));
  if (byAgent) {
    await agentCommand(daemon, guest, 'guest-shutdown', { mode: 'reboot' }, { silent: true });
    return;
  }
  run.rebooting = run.domain.onReboot !== 'destroy';
  await guest.lock.run('DomainReboot', () => guest.qmp('system_powerdown'));
}

export async function resetGuest(guest: Guest): Promise<void> {
  await guest.lock.run('DomainReset', () => guest.qmp('system_reset'));
}

/**
 * A command of the guest agent.
 * @throws {LibvirtError} 74 without a channel for it, 86 when nobody answers
 */
export async function agentCommand(
  daemon: Daemon,
  guest: Guest,
  name: string,
  args?: Readonly<Record<string, Json | undefined>>,
  options: { readonly silent?: boolean; readonly timeout?: number } = {},
): Promise<Json> {
  const run = guest.live();
  if (guest.state !== state.running) throw operationInvalid('domain is not running');
  if (agentChannel(run) === undefined) throw libvirtError('argumentUnsupported', 'qemu', 'QEMU guest agent is not configured');
  if (!run.agentConnected) {
    throw libvirtError('agentUnresponsive', 'qemu', 'QEMU guest agent is not connected');
  }
  try {
    const agent = await agentOf(daemon, run);
    return await agent!.execute(name, args, options);
  } catch (error) {
    if (error instanceof AgentTimeout) {
      throw libvirtError('agentUnresponsive', 'qemu', `guest agent command timed out`);
    }
    const detail = error instanceof Error ? error.message : String(error);
    throw libvirtError('internalError', 'qemu', `unable to execute QEMU agent command '${name}': ${detail}`);
  }
}
