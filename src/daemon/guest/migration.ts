// A running guest moves to another daemon: begin, prepare, perform, finish, confirm. libvirt's migration protocol, version 3, with parameters.
// The guest runs on the source until the destination has all of it; from then on it runs where `finish` has been, and nowhere twice.
import { completeDomain } from '../../domain/complete.ts';
import { type Domain, formatDomain, parseDomain } from '../../domain/domain.ts';
import type { RpcClient } from '../../rpc/client.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import { remote } from '../../rpc/libvirt/programs.ts';
import type { TypedParam } from '../../rpc/libvirt/types.ts';
import { paramsToRecord } from '../../rpc/libvirt/types.ts';
import { isObject } from '../../rpc/qmp/json.ts';
import { hostUuid } from '../capabilities.ts';
import type { Daemon } from '../daemon.ts';
import { operationInvalid } from '../errors.ts';
import { wait } from '../host.ts';
import { connectUri } from '../peer.ts';
import type { Session } from '../sessions.ts';
import { copyDomain, Guest, type Run } from './guest.ts';
import { startGuest } from './launch.ts';
import { endMirrors, makeMissing, mirrorDisks, movingDisks, readCookie, serveDisks, sizesOf } from './migration-storage.ts';
import { Tunnel, tunnelPath } from './migration-tunnel.ts';
import { jobDone, migrationEnd, migrationJob, migrationStats, operation, withoutRun } from './save.ts';
import { pausedReason, runningReason, shutoffReason, state } from './states.ts';
import { saveStatus } from './status.ts';
import { stopRun } from './stop.ts';

export const migrateFlag = {
  ...{
    live: 1,
    peer2peer: 2,
    tunnelled: 4,
    persistDest: 8,
    undefineSource: 16,
    paused: 32,
    nonSharedDisk: 64,
    nonSharedInc: 128,
  },
  ...{
    changeProtection: 256,
    unsafe: 512,
    offline: 1024,
    compressed: 2048,
    abortOnError: 4096,
    autoConverge: 8192,
    rdmaPinAll: 16384,
  },
  ...{ postcopy: 32768, tls: 65536, parallel: 131_072 },
} as const;

/** What this daemon does not do, by flag. */
const refused: readonly (readonly [number, string])[] = [[migrateFlag.rdmaPinAll, 'RDMA pinning is not supported']];

/** Ports on which guests arrive. */
const firstPort = 49_152;
const lastPort = 49_215;

export interface MigrateParams {
  readonly name: string | undefined;
  readonly xml: string | undefined;
  readonly persistentXml: string | undefined;
  readonly uri: string | undefined;
  readonly bandwidth: number;
  readonly listen: string | undefined;
  /** Targets of the disks that go along; absent for all that can. */
  readonly disks: readonly string[] | undefined;
  /** Where the destination serves them; absent for a free port. */
  readonly disksPort: number | undefined;
  /** The name in the destination's certificate; absent for its address. */
  readonly tlsName: string | undefined;
}

export function readParams(list: readonly TypedParam[]): MigrateParams {
  const given = paramsToRecord(list);
  const text = (name: string): string | undefined => (given[name] === undefined ? undefined : String(given[name]));
  const disks = list.filter((one) => one.field === 'migrate_disks').map((one) => String(one.value.value));
  return {
    name: text('destination_name'),
    xml: text('destination_xml'),
    persistentXml: text('persistent_xml'),
    uri: text('migrate_uri'),
    bandwidth: Number(given['bandwidth'] ?? 0),
    listen: text('listen_address'),
    disks: disks.length > 0 ? disks : undefined,
    disksPort: given['disks_port'] === undefined ? undefined : Number(given['disks_port']),
    tlsName: text('tls.destination'),
  };
}

export function checkMigrateFlags(flags: number): void {
  for (const [bit, detail] of refused) if ((flags & bit) !== 0) throw libvirtError('configUnsupported', 'qemu', detail);
  if ((flags & migrateFlag.offline) !== 0 && (flags & migrateFlag.persistDest) === 0) {
    throw operationInvalid('offline migration must be specified with the persistent flag set');
  }
  if ((flags & migrateFlag.postcopy) !== 0) {
    throw libvirtError('argumentUnsupported', 'qemu', "Migration option 'postcopy-ram' is not supported by source QEMU binary");
  }
  if ((flags & migrateFlag.tls) !== 0) {
    if ((flags & migrateFlag.tunnelled) !== 0)
      throw libvirtError('operationUnsupported', 'qemu', 'TLS for the memory does not go with a tunnel, which has its own');
  }
  if ((flags & migrateFlag.tunnelled) !== 0) {
    if ((flags & migrateFlag.peer2peer) === 0) {
      throw libvirtError('invalidArg', 'qemu', 'tunnelled migration is only possible peer to peer');
    }
    if ((flags & migrateFlag.offline) !== 0) throw operationInvalid('tunnelled offline migration does not make sense');
    if (withDisks(flags)) throw libvirtError('operationUnsupported', 'qemu', 'disks do not go along with a tunnelled migration');
  }
}

/** Whether disks go along. */
const withDisks = (flags: number): boolean => (flags & (migrateFlag.nonSharedDisk | migrateFlag.nonSharedInc)) !== 0;

/** The cookie says which host it comes from: a guest does not migrate to where it is. */
async function cookieOf(daemon: Daemon, guest: Guest, more = ''): Promise<Uint8Array> {
  const hostname = daemon.options.hostname ?? daemon.host.facts.hostname;
  const text = `<qemu-migration><name>${guest.name}</name><uuid>${guest.uuid}</uuid><hostname>${hostname}</hostname><hostuuid>${await hostUuid(daemon)}</hostuuid>${more}</qemu-migration>`;
  return new TextEncoder().encode(text);
}

/** Source: the document of what is to come. */
export async function begin(daemon: Daemon, guest: Guest, params: MigrateParams, flags: number) {
  checkMigrateFlags(flags);
  if (!guest.active && (flags & migrateFlag.offline) === 0) throw operationInvalid('domain is not running');
  if (guest.job) throw operationInvalid('another job is active');
  const run = guest.run;
  if (run && run.blockJobs.size > 0) throw operationInvalid('domain has an active block job');
  if (run && (flags & migrateFlag.unsafe) === 0) checkSafe(run.domain);
  const domain = params.xml === undefined ? withoutRun(copyDomain(guest.current)) : withoutRun(parseDomain(params.xml));
  const sizes = run && withDisks(flags) ? await sizesOf(guest, movingDisks(run.domain, params.disks)) : '';
  return { xml: formatDomain(domain, { secure: true }), cookieOut: await cookieOf(daemon, guest, sizes) };
}

/** A disk whose writes may be in the host's cache could be read stale at the other end. */
function checkSafe(domain: Domain): void {
  for (const disk of domain.devices.disks) {
    if (!disk.source || disk.readonly || disk.shareable) continue;
    const { cache } = disk.driver ?? {};
    if (cache === 'unsafe') {
      throw libvirtError(
        'migrateUnsafe',
        'qemu',
        'Migration may lead to data corruption if disks use cache other than none or directsync',
      );
    }
  }
}

/** Destination: the guest is there, and waits for its memory. Answers where it listens. */
export async function prepare(
  daemon: Daemon,
  params: MigrateParams,
  flags: number,
  cookie: Uint8Array,
  session: Session | undefined,
  tunnelled = false,
) {
  checkMigrateFlags(flags);
  if (tunnelled !== ((flags & migrateFlag.tunnelled) !== 0)) {
    throw libvirtError('internalError', 'qemu', 'a tunnelled migration is prepared with a stream, others without');
  }
  const said = new TextDecoder().decode(cookie);
  const from = /<hostuuid>([^<]*)<\/hostuuid>/.exec(said)?.[1];
  if (from !== undefined && from === (await hostUuid(daemon))) {
    throw libvirtError('internalError', 'qemu', `Attempt to migrate guest to the same host ${from}`);
  }
  if (params.xml === undefined) throw libvirtError('internalError', 'qemu', 'no domain XML passed');
  const parsed = withoutRun(parseDomain(params.xml));
  if (params.name !== undefined) parsed.name = params.name;
  const domain = completeDomain(parsed, await daemon.guests.context(parsed));
  const same = daemon.guests.check(domain, true);
  if ((flags & migrateFlag.offline) !== 0) return { uriOut: undefined, cookieOut: new Uint8Array(), incoming: '' };
  const guest = same ?? new Guest(domain.name, domain.uuid!, daemon.host.timers);
  daemon.guests.add(guest);
  const hostname = daemon.options.hostname ?? daemon.host.facts.hostname;
  const wanted = params.uri === undefined ? undefined : parseMigrateUri(params.uri);
  const port = wanted?.port ?? (await daemon.host.sockets.freePort(firstPort, lastPort, daemon.ports));
  if (port === undefined)
    throw libvirtError('internalError', 'qemu', "Unable to find an unused port in range 'migration' (49152-49215)");
  daemon.ports.add(port);
  const disks = withDisks(flags) ? movingDisks(domain, params.disks) : [];
  let made: readonly string[] = [];
  let diskPort: number | undefined;
  try {
    if (disks.length > 0) {
      made = await makeMissing(daemon, disks, readCookie(cookie));
      diskPort = params.disksPort ?? (await daemon.host.sockets.freePort(firstPort, lastPort, daemon.ports));
      if (diskPort === undefined)
        throw libvirtError('internalError', 'qemu', "Unable to find an unused port in range 'migration' (49152-49215)");
      daemon.ports.add(diskPort);
    }
    await guest.lock.run('DomainMigratePrepare', () =>
      startGuest(daemon, guest, {
        domain,
        hold: true,
        receive: async (_, run) => {
          const tls = (flags & migrateFlag.tls) !== 0 ? tlsObject : undefined;
          if (tls !== undefined) await useTls(daemon, guest, 'server');
          if (diskPort !== undefined) {
            const at = { host: params.listen ?? '0.0.0.0', port: diskPort, tls };
            await serveDisks(guest, movingDisks(run.domain, params.disks), at);
          }
          const at = tunnelled ? `unix:${tunnelPath(run)}` : `tcp:${params.listen ?? '0.0.0.0'}:${port}`;
          await guest.qmp('migrate-incoming', { uri: at });
        },
      }),
    );
  } catch (error) {
    if (!guest.persistent && !guest.active) daemon.guests.remove(guest);
    for (const path of made) await daemon.host.files.remove(path).catch(() => {});
    throw error;
  } finally {
    daemon.ports.delete(port);
    if (diskPort !== undefined) daemon.ports.delete(diskPort);
  }
  const run = guest.run!;
  guest.set(state.paused, pausedReason.migration, daemon.host.now());
  guest.incoming = { flags, finished: Promise.withResolvers<void>() };
  // Whoever prepared must finish: a guest that nobody asks for any more is not kept.
  session?.onClose.add(() => {
    if (guest.run === run && guest.incoming) {
      guest.incoming = undefined;
      void stopRun(daemon, guest, run, 'failed').catch(() => {});
    }
  });
  const uriOut =
    wanted === undefined ? `tcp:${hostname}:${port}` : wanted.port === undefined ? `${params.uri}:${port}` : undefined;
  return {
    uriOut,
    incoming: tunnelPath(run),
    cookieOut: diskPort === undefined ? new Uint8Array() : await cookieOf(daemon, guest, `<nbd port='${diskPort}'/>`),
  };
}

/** libvirt's name of the emulator's object. */
const tlsObject = 'objlibvirt_migrate_tls0';

/** Has the emulator send or take the memory over TLS. */
async function useTls(daemon: Daemon, guest: Guest, endpoint: 'client' | 'server', hostname = ''): Promise<void> {
  const creds = { dir: daemon.options.migrationTls, endpoint, 'verify-peer': true };
  await guest.qmp('object-add', { 'qom-type': 'tls-creds-x509', id: tlsObject, ...creds });
  await guest.qmp('migrate-set-parameters', { 'tls-creds': tlsObject, 'tls-hostname': hostname });
}
async function endTls(guest: Guest): Promise<void> {
  await guest.qmp('migrate-set-parameters', { 'tls-creds': '', 'tls-hostname': '' }).catch(() => {});
  await guest.qmp('object-del', { id: tlsObject }).catch(() => {});
}

/** `tcp://host:port` or `tcp:host:port`. */
export function parseMigrateUri(uri: string): { host: string; port: number | undefined } {
  const match = /^tcp:(?:\/\/)?(\[[^\]]+\]|[^:/]+)(?::(\d+))?\/?$/.exec(uri);
  if (!match) throw libvirtError('invalidArg', 'qemu', `unsupported scheme in migration URI: ${uri}`);
  return { host: match[1]!, port: match[2] === undefined ? undefined : Number(match[2]) };
}

/** Source: sends the guest. When it returns, the guest stands still here and is whole there. */
export async function perform(
  daemon: Daemon,
  guest: Guest,
  params: MigrateParams,
  flags: number,
  cookie: Uint8Array,
  session: Session | undefined,
  tunnel?: Tunnel,
): Promise<void> {
  if ((flags & migrateFlag.offline) !== 0) return;
  const run = guest.live();
  if (guest.job) throw operationInvalid('another job is active');
  const target = tunnel ? undefined : parseMigrateUri(params.uri ?? '');
  const wasRunning = guest.state === state.running;
  const job = migrationJob(run, operation.migrationOut, daemon.host.now());
  guest.job = job;
  const cancel = (): void => void run.monitor.execute('migrate_cancel').catch(() => {});
  session?.onClose.add(cancel);
  let mirrors: Awaited<ReturnType<typeof mirrorDisks>> = [];
  try {
    const disks = withDisks(flags) ? movingDisks(run.domain, params.disks) : [];
    const hostname = params.tlsName ?? target?.host ?? '';
    if ((flags & migrateFlag.tls) !== 0) await useTls(daemon, guest, 'client', hostname);
    if (disks.length > 0 && target) {
      const diskPort = readCookie(cookie).port;
      if (diskPort === undefined) throw libvirtError('operationFailed', 'qemu', 'the destination does not take disks');
      const shallow = (flags & migrateFlag.nonSharedInc) !== 0;
      const speed = BigInt(params.bandwidth) * 1_048_576n;
      const tls = (flags & migrateFlag.tls) !== 0 ? { creds: tlsObject, hostname } : undefined;
      mirrors = await mirrorDisks(daemon, guest, run, disks, { host: target.host, port: diskPort, shallow, speed, tls });
    }
    if ((flags & migrateFlag.live) === 0 && wasRunning) {
      run.pauseReason = pausedReason.migration;
      await guest.qmp('stop');
    }
    const on = (capability: string, wanted: boolean) => ({ capability, state: wanted });
    const capabilities = [on('auto-converge', (flags & migrateFlag.autoConverge) !== 0), on('pause-before-switchover', true)];
    await guest.qmp('migrate-set-capabilities', { capabilities: capabilities as never });
    const speed = params.bandwidth > 0 ? BigInt(params.bandwidth) : guest.migrationSpeed;
    const bytes = speed > 8_796_093_022_207n ? 9_223_372_036_853_727_232n : speed * 1_048_576n;
    await guest.qmp('migrate-set-parameters', { 'max-bandwidth': bytes, 'downtime-limit': guest.migrationDowntime });
    run.pauseReason = pausedReason.migration;
    await guest.qmp('migrate', { uri: target ? `tcp:${target.host}:${target.port}` : tunnel!.uri });
    const reached = await migrationEnd(daemon, guest, run, ['pre-switchover', 'completed']);
    // The guest stands still: what its disks still lack goes over now.
    await endMirrors(guest, mirrors, false);
    if (reached === 'pre-switchover') await guest.qmp('migrate-continue', { state: 'pre-switchover' });
    await migrationEnd(daemon, guest, run, ['completed']);
    guest.set(state.paused, pausedReason.migration, daemon.host.now());
    await saveStatus(daemon.host, daemon.paths.run, guest);
    jobDone(daemon, guest, job, migrationStats(await guest.qmp('query-migrate')).params);
  } catch (error) {
    await run.monitor.execute('migrate_cancel').catch(() => {});
    await endMirrors(guest, mirrors, true).catch(() => {});
    await resumeSource(daemon, guest, run, wasRunning);
    throw error;
  } finally {
    if ((flags & migrateFlag.tls) !== 0) await endTls(guest);
    session?.onClose.delete(cancel);
    guest.job = undefined;
  }
}

/** The guest goes on here: it did not get away. */
async function resumeSource(daemon: Daemon, guest: Guest, run: Run, wasRunning: boolean): Promise<void> {
  if (run.stopped) return;
  run.pauseReason = undefined;
  if (!wasRunning) return;
  for (let i = 0; i < 100; i++) {
    const info = await run.monitor.execute('query-migrate').catch(() => undefined);
    if (!isObject(info) || info['status'] !== 'cancelling') break;
    await wait(daemon.host, 20);
  }
  run.resumeReason = runningReason.migrationCanceled;
  await run.monitor.execute('cont').catch(() => {});
  guest.set(state.running, runningReason.migrationCanceled, daemon.host.now());
  await saveStatus(daemon.host, daemon.paths.run, guest);
}

/** Destination: the guest goes on here, or is dropped when the source says that it did not come. */
export async function finish(
  daemon: Daemon,
  name: string,
  params: MigrateParams,
  flags: number,
  cancelled: boolean,
): Promise<Guest> {
  if ((flags & migrateFlag.offline) !== 0) {
    if (params.xml === undefined) throw libvirtError('internalError', 'qemu', 'no domain XML passed');
    return daemon.guests.define(params.xml);
  }
  const guest = daemon.guests.byName(name);
  const run = guest?.run;
  if (!guest || !run || !guest.incoming) {
    throw libvirtError('noDomain', 'qemu', `no domain with matching name '${name}'`);
  }
  return guest.lock.run('DomainMigrateFinish', async () => {
    if (cancelled) {
      guest.incoming = undefined;
      await stopRun(daemon, guest, run, 'failed');
      throw libvirtError('migrateFinishOk', 'qemu', 'migration successfully aborted');
    }
    try {
      await migrationEnd(daemon, guest, run, ['completed']);
      if (withDisks(flags)) await guest.qmp('nbd-server-stop').catch(() => {});
      if ((flags & migrateFlag.tls) !== 0) await endTls(guest);
      if ((flags & migrateFlag.persistDest) !== 0) {
        const text = params.persistentXml ?? formatDomain(withoutRun(copyDomain(run.domain)), { secure: true });
        const known = guest.persistent;
        guest.config = await daemon.guests.parse(text);
        await daemon.guests.save(guest);
        daemon.guests.lifecycle(guest, known ? 'updated' : 'defined');
      }
      daemon.guests.lifecycle(guest, 'startedMigrated');
      if ((flags & migrateFlag.paused) === 0) {
        run.resumeReason = runningReason.migrated;
        await guest.qmp('cont');
        guest.set(state.running, runningReason.migrated, daemon.host.now());
      } else {
        guest.set(state.paused, pausedReason.user, daemon.host.now());
        daemon.guests.lifecycle(guest, 'paused');
      }
      guest.incoming = undefined;
      await saveStatus(daemon.host, daemon.paths.run, guest);
      return guest;
    } catch (error) {
      guest.incoming = undefined;
      await stopRun(daemon, guest, run, 'failed');
      throw error;
    }
  });
}

/** Source: the end. The guest is gone from here, or goes on here. */
export async function confirm(daemon: Daemon, guest: Guest, flags: number, cancelled: boolean, wasRunning = true): Promise<void> {
  const run = guest.run;
  if (cancelled) {
    if (run && guest.state === state.paused && guest.reason === pausedReason.migration)
      await resumeSource(daemon, guest, run, wasRunning);
    return;
  }
  if (run) await stopRun(daemon, guest, run, 'migrated');
  else guest.set(state.shutoff, shutoffReason.migrated, daemon.host.now());
  if ((flags & migrateFlag.undefineSource) !== 0 && guest.persistent) await daemon.guests.undefine(guest);
}

/** Has the other daemon prepare: with a stream to pump the memory into when it is to be tunnelled. */
async function prepareThere(
  daemon: Daemon,
  guest: Guest,
  peer: RpcClient,
  args: { readonly params: TypedParam[]; readonly cookieIn: Uint8Array; readonly flags: number },
) {
  if ((args.flags & migrateFlag.tunnelled) === 0) {
    return { ...(await peer.call(remote, 'domainMigratePrepare3Params', args)), tunnel: undefined };
  }
  const { ret, stream } = await peer.open(remote, 'domainMigratePrepareTunnel3Params', args);
  const tunnel = await Tunnel.open(daemon, guest.live(), stream);
  const finishTunnel = async (): Promise<void> => {
    await tunnel.done;
    await stream.finish();
  };
  return { uriOut: undefined, cookieOut: ret.cookieOut, tunnel: { tunnel, finish: finishTunnel } };
}

/** How long the source asks after the guest when the link broke in the last step, in ms. */
const askMs = 20_000;

/** Source, peer to peer: this daemon is the client of the other one. */
export async function performPeerToPeer(
  daemon: Daemon,
  guest: Guest,
  uri: string,
  params: MigrateParams,
  flags: number,
): Promise<void> {
  const wasRunning = guest.state === state.running;
  const begun = await begin(daemon, guest, params, flags);
  const peer = await connectPeer(daemon, uri);
  const name = params.name ?? guest.name;
  const list = (fields: Readonly<Record<string, string | undefined>>): TypedParam[] =>
    Object.entries(fields).flatMap(([field, value]) =>
      value === undefined ? [] : [{ field, value: { type: 'string', value } }],
    );
  try {
    const to = [
      ...list({ destination_xml: begun.xml, destination_name: params.name, migrate_uri: params.uri }),
      ...(params.disks ?? []).map((dev): TypedParam => ({ field: 'migrate_disks', value: { type: 'string', value: dev } })),
    ];
    const ready = await prepareThere(daemon, guest, peer, { params: to, cookieIn: begun.cookieOut, flags });
    const { tunnel } = ready;
    const where = ready.uriOut ?? params.uri;
    let failure: unknown;
    try {
      await perform(daemon, guest, { ...params, uri: where }, flags, ready.cookieOut, undefined, tunnel?.tunnel);
      await tunnel?.finish();
    } catch (error) {
      failure = error;
    }
    const ending = list({ destination_name: name, destination_xml: begun.xml, persistent_xml: params.persistentXml });
    const end = { params: ending, cookieIn: new Uint8Array(), flags, cancelled: failure !== undefined };
    tunnel?.tunnel.close();
    if (failure !== undefined) {
      await peer.call(remote, 'domainMigrateFinish3Params', end).catch(() => {});
      throw failure;
    }
    let arrived: boolean;
    let reason: unknown;
    try {
      await peer.call(remote, 'domainMigrateFinish3Params', end);
      arrived = true;
    } catch (error) {
      reason = error;
      arrived = await hasArrived(daemon, uri, guest.uuid, error);
    }
    await confirm(daemon, guest, flags, !arrived, wasRunning);
    if (!arrived) throw reason;
  } finally {
    peer.close();
  }
}

/** Whether the guest runs at the other end, after an answer got lost. @throws {LibvirtError} when nobody knows: it stays paused then */
async function hasArrived(daemon: Daemon, uri: string, uuid: string, reason: unknown): Promise<boolean> {
  const lost = reason instanceof Error && /closed|keepalive|socket/i.test(reason.message);
  if (!lost) return false;
  for (const end = daemon.host.now() + askMs; daemon.host.now() < end; await wait(daemon.host, 500)) {
    try {
      const peer = await connectPeer(daemon, uri);
      try {
        const { dom } = await peer.call(remote, 'domainLookupByUuid', { uuid });
        const { state: there } = await peer.call(remote, 'domainGetState', { dom, flags: 0 });
        return there === state.running;
      } catch (error) {
        if (error instanceof Error && 'is' in error) return false;
        throw error;
      } finally {
        peer.close();
      }
    } catch {
      // Not there yet.
    }
  }
  throw libvirtError(
    'operationFailed',
    'qemu',
    'the connection broke when the guest had been sent: it may run at the destination, and stays paused here',
  );
}

export async function connectPeer(daemon: Daemon, uri: string): Promise<RpcClient> {
  try {
    const peer = await connectUri(daemon.host.sockets, uri, '/run/libvirt/libvirt-sock', daemon.options.tls);
    const { interval, count } = daemon.options.keepalive;
    if (interval > 0) peer.startKeepalive({ interval, count, timers: daemon.host.timers });
    return peer;
  } catch (error) {
    throw libvirtError('operationFailed', 'qemu', `Failed to connect to remote libvirt URI ${uri}: ${(error as Error).message}`);
  }
}
