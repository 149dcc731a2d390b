// A guest's memory in a file: save, restore, managed save, core dump. The file begins with the domain's document, so that it can be run again.
import { type Domain, formatDomain, parseDomain } from '../../domain/domain.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { TypedParam } from '../../rpc/libvirt/types.ts';
import { isObject, type Json } from '../../rpc/qmp/json.ts';
import type { ByteDuplex } from '../../rpc/transport.ts';
import type { Daemon } from '../daemon.ts';
import { operationInvalid, systemError } from '../errors.ts';
import type { OpenFile } from '../host.ts';
import { wait } from '../host.ts';
import { Guest, type Job, type Run } from './guest.ts';
import { startGuest } from './launch.ts';
import { pausedReason, runningReason, state } from './states.ts';
import { saveStatus } from './status.ts';
import { stopRun } from './stop.ts';

/** At the start of a file: 16 bytes that say it is whole, or that it is not yet; then four lengths and numbers. */
const magic = { whole: 'NonrootGuestSave', partial: 'NonrootGuestPart' } as const;
const version = 1;
const headerBytes = 64;

export interface SaveHeader {
  readonly xml: string;
  readonly running: boolean;
  /** Where the memory begins. */
  readonly offset: number;
}

const encoder = new TextEncoder();
const pageBytes = 4096;

/** Room for the document; a changed one may be longer. */
const roomFor = (bytes: number): number => Math.ceil((headerBytes + bytes + 8192) / pageBytes) * pageBytes;

function encodeHeader(text: keyof typeof magic, xml: Uint8Array, running: boolean, offset: number): Uint8Array {
  const bytes = new Uint8Array(headerBytes + xml.length);
  const view = new DataView(bytes.buffer);
  bytes.set(encoder.encode(magic[text]));
  view.setUint32(16, version, true);
  view.setUint32(20, xml.length, true);
  view.setUint32(24, running ? 1 : 0, true);
  view.setUint32(28, offset, true);
  bytes.set(xml, headerBytes);
  return bytes;
}

/** @throws {LibvirtError} for a file that is none, or is not whole */
export async function readHeader(daemon: Daemon, path: string): Promise<SaveHeader> {
  let file: OpenFile;
  try {
    file = await daemon.host.files.open(path, 'read');
  } catch (error) {
    throw systemError('qemu', `Failed to open file '${path}'`, error);
  }
  try {
    const head = await file.read(0, headerBytes);
    const view = new DataView(head.buffer, head.byteOffset, head.length);
    const name = new TextDecoder().decode(head.subarray(0, 16));
    if (name === magic.partial) throw libvirtError('operationFailed', 'qemu', 'save image is incomplete');
    if (head.length < headerBytes || name !== magic.whole)
      throw libvirtError('operationFailed', 'qemu', 'image magic is incorrect');
    if (view.getUint32(16, true) !== version) {
      throw libvirtError('operationFailed', 'qemu', `image version is not supported (${view.getUint32(16, true)} > ${version})`);
    }
    const length = view.getUint32(20, true);
    const offset = view.getUint32(28, true);
    if (headerBytes + length > offset) throw libvirtError('operationFailed', 'qemu', 'invalid header in save image');
    const xml = new TextDecoder().decode(await file.read(headerBytes, length));
    return { xml, running: view.getUint32(24, true) === 1, offset };
  } finally {
    await file.close();
  }
}

/** Replaces the document of a saved guest; `running` as it is when undefined. */
export async function writeHeader(daemon: Daemon, path: string, xml: string, running?: boolean): Promise<void> {
  const old = await readHeader(daemon, path);
  const bytes = encoder.encode(xml);
  if (headerBytes + bytes.length > old.offset) throw libvirtError('operationFailed', 'qemu', 'new xml too large to fit in file');
  const file = await daemon.host.files.open(path, 'write');
  try {
    await file.write(0, encodeHeader('whole', bytes, running ?? old.running, old.offset));
    await file.sync();
  } finally {
    await file.close();
  }
}

/** What `query-migrate` says, as typed parameters of job statistics. */
export function migrationStats(answer: Json): { total: number; remaining: number; processed: number; params: TypedParam[] } {
  const info = isObject(answer) ? answer : {};
  const ram = isObject(info['ram']) ? info['ram'] : {};
  const number = (value: Json | undefined): number => Number(value ?? 0);
  const [total, remaining, processed] = [number(ram['total']), number(ram['remaining']), number(ram['transferred'])];
  const row = (field: string, value: number): TypedParam => ({
    field,
    value: { type: 'ullong', value: BigInt(Math.max(0, Math.floor(value))) },
  });
  const params = [
    row('downtime', number(info['downtime'] ?? info['expected-downtime'])),
    row('setup_time', number(info['setup-time'])),
    row('data_total', total),
    row('data_processed', processed),
    row('data_remaining', remaining),
    row('memory_total', total),
    row('memory_processed', processed),
    row('memory_remaining', remaining),
    row('memory_bps', (number(ram['mbps']) * 1_000_000) / 8),
    row('memory_constant', number(ram['duplicate'])),
    row('memory_normal', number(ram['normal'])),
    row('memory_normal_bytes', number(ram['normal-bytes'])),
    row('memory_dirty_rate', number(ram['dirty-pages-rate'])),
    row('memory_iteration', number(ram['dirty-sync-count'])),
    row('memory_postcopy_requests', number(ram['postcopy-requests'])),
    row('memory_page_size', number(ram['page-size'] ?? pageBytes)),
  ];
  return { total, remaining, processed, params };
}

/** libvirt's numbers of operations that a job is. */
export const operation = {
  unknown: 0,
  start: 1,
  save: 2,
  restore: 3,
  migrationIn: 4,
  migrationOut: 5,
  snapshot: 6,
  snapshotRevert: 7,
  dump: 8,
  backup: 9,
  snapshotDelete: 10,
} as const;

export function migrationJob(run: Run, kind: number, now: number): Job {
  return {
    operation: kind,
    startedMs: now,
    abort: async () => {
      await run.monitor.execute('migrate_cancel');
    },
    progress: async () => {
      const { total, remaining, processed, params } = migrationStats(await run.monitor.execute('query-migrate'));
      return { total, remaining, processed, extra: params };
    },
  };
}

/** Resolves when a migration has ended well. @throws {LibvirtError} when it has not. */
export async function migrationEnd(daemon: Daemon, guest: Guest, run: Run, until: readonly string[]): Promise<string> {
  for (;;) {
    if (run.stopped) throw libvirtError('operationFailed', 'qemu', 'domain is no longer running');
    const info = await guest.qmp('query-migrate');
    const status = isObject(info) ? String(info['status'] ?? 'none') : 'none';
    if (until.includes(status)) return status;
    if (status === 'cancelled') throw libvirtError('operationAborted', 'qemu', 'job: canceled by client');
    if (status === 'failed') {
      const detail = isObject(info) && info['error-desc'] !== undefined ? String(info['error-desc']) : 'unexpectedly failed';
      throw libvirtError('operationFailed', 'qemu', `job: ${detail}`);
    }
    await wait(daemon.host, 20);
  }
}

/** What ends a job: the statistics for `domjobinfo --completed`, and the event. */
export function jobDone(daemon: Daemon, guest: Guest, job: Job, params: readonly TypedParam[]): void {
  const elapsed = BigInt(Math.max(1, daemon.host.now() - job.startedMs));
  const all: TypedParam[] = [
    { field: 'operation', value: { type: 'int', value: job.operation } },
    { field: 'time_elapsed', value: { type: 'ullong', value: elapsed } },
    ...params,
  ];
  guest.lastJob = { type: 3, params: all };
  daemon.events.domain(21, guest.ref, { params: all });
}

/** Streams what the emulator sends into a file from `offset` on. */
async function receiveInto(file: OpenFile, offset: number, duplex: ByteDuplex): Promise<void> {
  let at = offset;
  for await (const bytes of duplex.input) {
    await file.write(at, bytes);
    at += bytes.length;
  }
}

export interface SaveOptions {
  /** Replaces the document in the file. */
  readonly xml?: string | undefined;
  /** Whether it is to run after a restore: as it was when undefined. */
  readonly running?: boolean | undefined;
}

/** Saves a running guest's memory into a file and stops it. The caller holds the lock. */
export async function saveGuest(daemon: Daemon, guest: Guest, path: string, options: SaveOptions): Promise<void> {
  const run = guest.live();
  if (guest.job) throw operationInvalid('another job is active');
  const wasRunning = guest.state === state.running;
  const domain = options.xml === undefined ? run.domain : await sameGuest(daemon, guest, options.xml);
  const job = migrationJob(run, operation.save, daemon.host.now());
  guest.job = job;
  try {
    if (wasRunning) {
      run.pauseReason = pausedReason.save;
      await guest.qmp('stop');
    }
    await writeImage(daemon, guest, run, path, formatDomain(domain, { secure: true }), options.running ?? wasRunning);
    jobDone(daemon, guest, job, migrationStats(await guest.qmp('query-migrate')).params);
  } catch (error) {
    guest.job = undefined;
    if (wasRunning && !run.stopped) {
      run.resumeReason = runningReason.saveCanceled;
      await guest.qmp('cont').catch(() => {});
      await saveStatus(daemon.host, daemon.paths.run, guest);
    }
    throw error;
  }
  guest.job = undefined;
  await stopRun(daemon, guest, run, 'saved');
}

/** @throws {LibvirtError} for a document of another guest */
async function sameGuest(daemon: Daemon, guest: Guest, xml: string): Promise<Domain> {
  const domain = await daemon.guests.parse(xml);
  if (domain.uuid !== guest.uuid || domain.name !== guest.name) {
    throw libvirtError('configUnsupported', 'domain', `Target domain uuid ${domain.uuid} does not match source ${guest.uuid}`);
  }
  return domain;
}

/** The memory of a paused guest, with a document before it. The file has its name when it is whole, and never a half. */
export async function writeImage(
  daemon: Daemon,
  guest: Guest,
  run: Run,
  path: string,
  xml: string,
  running: boolean,
): Promise<void> {
  const { files, sockets } = daemon.host;
  const bytes = encoder.encode(xml);
  const offset = roomFor(bytes.length);
  const temporary = `${path}.part`;
  let file: OpenFile;
  try {
    file = await files.open(temporary, 'create');
  } catch (error) {
    throw systemError('qemu', `Failed to create file '${path}'`, error);
  }
  const socket = `${run.directory}/save.sock`;
  const stream = Promise.withResolvers<void>();
  stream.promise.catch(() => {});
  const listener = await sockets.listen(socket, 0o600, (duplex) => {
    receiveInto(file, offset, duplex).then(stream.resolve, (error: unknown) => {
      duplex.close();
      stream.reject(error);
    });
  });
  try {
    await file.write(0, encodeHeader('partial', bytes, running, offset));
    await guest.qmp('migrate-set-parameters', { 'max-bandwidth': 9_223_372_036_853_727_232n });
    await guest.qmp('migrate', { uri: `unix:${socket}` });
    await Promise.race([migrationEnd(daemon, guest, run, ['completed']), stream.promise.then(() => new Promise(() => {}))]);
    await stream.promise;
    await file.sync();
    await file.write(0, encodeHeader('whole', bytes, running, offset));
    await file.sync();
    await file.close();
    await files.rename(temporary, path);
  } catch (error) {
    await guest.qmp('migrate_cancel').catch(() => {});
    await file.close().catch(() => {});
    await files.remove(temporary);
    throw error instanceof Error && 'code' in error && String(error.code).startsWith('E')
      ? systemError('qemu', `Unable to write to '${path}'`, error)
      : error;
  } finally {
    listener.close();
    await files.remove(socket);
  }
}

export interface RestoreOptions {
  /** The defined domain whose saved state it is. */
  readonly guest?: Guest;
  readonly paused?: boolean | undefined;
  readonly running?: boolean | undefined;
  readonly xml?: string | undefined;
}

/** Lets a guest that waits for its memory have it from a file. */
export function memoryFrom(daemon: Daemon, path: string, offset: number): (guest: Guest, run: Run) => Promise<void> {
  return async (guest, run) => {
    const socket = `${run.directory}/restore.sock`;
    await guest.qmp('migrate-incoming', { uri: `unix:${socket}` });
    const duplex = await daemon.host.sockets.connect(socket);
    const file = await daemon.host.files.open(path, 'read');
    try {
      for (let at = offset; ; ) {
        const bytes = await file.read(at, 1024 * 1024);
        if (bytes.length === 0) break;
        await duplex.write(bytes);
        at += bytes.length;
      }
      duplex.close();
      await migrationEnd(daemon, guest, run, ['completed']);
    } finally {
      duplex.close();
      await file.close();
      await daemon.host.files.remove(socket);
    }
  };
}

/** Starts a guest from a file with its memory. */
export async function restoreImage(daemon: Daemon, path: string, options: RestoreOptions): Promise<void> {
  const header = await readHeader(daemon, path);
  const saved = parseDomain(options.xml ?? header.xml);
  const { completeDomain } = await import('../../domain/complete.ts');
  const domain = completeDomain(withoutRun(saved), await daemon.guests.context(saved));
  const paused = options.paused ?? (options.running === undefined ? !header.running : !options.running);
  const start = (guest: Guest): Promise<void> =>
    startGuest(daemon, guest, {
      domain,
      paused,
      event: 'startedRestored',
      reason: runningReason.restored,
      receive: memoryFrom(daemon, path, header.offset),
    });
  if (options.guest) {
    await start(options.guest);
    return;
  }
  const same = daemon.guests.check(domain, true);
  const guest = same ?? new Guest(domain.name, domain.uuid!, daemon.host.timers);
  daemon.guests.add(guest);
  try {
    await guest.lock.run('DomainRestore', () => start(guest));
  } catch (error) {
    if (!guest.persistent && !guest.active) daemon.guests.remove(guest);
    throw error;
  }
}

/** A running definition as one that can be started: without what the last start decided. */
export function withoutRun(domain: Domain): Domain {
  delete domain.id;
  delete domain.resource;
  const { devices } = domain;
  for (const list of Object.values(devices)) {
    if (!Array.isArray(list)) continue;
    for (const one of list as { alias?: { name: string } }[]) {
      if (one.alias && !one.alias.name.startsWith('ua-')) delete one.alias;
    }
  }
  for (const disk of devices.disks) {
    delete disk.source?.index;
    delete disk.backingStore;
    delete disk.mirror;
    if (disk.driver && disk.driver.type === undefined) disk.driver.type = 'raw';
  }
  for (const one of [...devices.serials, ...devices.parallels, ...devices.consoles, ...devices.channels]) {
    if (one.type === 'pty') one.sources = [];
  }
  for (const one of devices.consoles) delete one.tty;
  for (const one of devices.channels) {
    delete one.target?.state;
    if (one.type === 'unix' && one.sources[0]?.path?.includes('/channel/target/')) one.sources = [];
  }
  for (const one of devices.graphics) {
    if (one.autoport === 'yes') {
      one.port = -1;
      if (one.tlsPort !== undefined) one.tlsPort = -1;
    }
  }
  for (const one of devices.interfaces) {
    if (one.target?.dev?.startsWith('vnet')) delete one.target;
    if (one.type === 'network') {
      delete one.source?.portid;
      delete one.source?.bridge;
    }
  }
  domain.seclabels = domain.seclabels.filter((one) => one.type !== 'dynamic');
  return domain;
}

/** Formats of `domainCoreDumpWithFormat`, by libvirt's numbers. */
const dumpFormats = ['elf', 'kdump-zlib', 'kdump-lzo', 'kdump-snappy', 'win-dmp'] as const;

/** libvirt's flags of a core dump. */
const dumpFlag = { crash: 1, live: 2, bypassCache: 4, reset: 8, memoryOnly: 16 } as const;

/** Writes the guest's memory for debuggers. */
export async function dumpGuest(daemon: Daemon, guest: Guest, path: string, format: number, flags: number): Promise<void> {
  await guest.lock.run('DomainCoreDump', async () => {
    const run = guest.live();
    if (guest.job) throw operationInvalid('another job is active');
    const wasRunning = guest.state === state.running;
    const job: Job = {
      operation: operation.dump,
      startedMs: daemon.host.now(),
      progress: async () => {
        const info = await guest.qmp('query-dump');
        const [total, done] = isObject(info) ? [Number(info['total'] ?? 0), Number(info['completed'] ?? 0)] : [0, 0];
        return { total, remaining: total - done, processed: done };
      },
    };
    guest.job = job;
    try {
      if (wasRunning && (flags & dumpFlag.live) === 0) {
        run.pauseReason = pausedReason.dump;
        await guest.qmp('stop');
      }
      if (flags & dumpFlag.memoryOnly) await dumpMemory(daemon, guest, path, format);
      else {
        const xml = formatDomain(run.domain, { secure: true });
        if (guest.state === state.running) await guest.qmp('stop');
        await writeImage(daemon, guest, run, path, xml, wasRunning);
      }
      const { total, processed } = await job.progress();
      const row = (field: string, value: number): TypedParam => ({ field, value: { type: 'ullong', value: BigInt(value) } });
      jobDone(daemon, guest, job, [row('data_total', total), row('data_processed', processed), row('data_remaining', 0)]);
    } finally {
      guest.job = undefined;
      if (!run.stopped && (flags & dumpFlag.crash) === 0) {
        if (flags & dumpFlag.reset) await guest.qmp('system_reset');
        if (wasRunning) await guest.qmp('cont').catch(() => {});
      }
    }
    if (flags & dumpFlag.crash) await stopRun(daemon, guest, run, 'crashed');
  });
}

async function dumpMemory(daemon: Daemon, guest: Guest, path: string, format: number): Promise<void> {
  const name = dumpFormats[format];
  if (name === undefined) throw libvirtError('invalidArg', 'qemu', `unknown dumpformat '${format}'`);
  await guest.qmp('dump-guest-memory', {
    paging: false,
    protocol: `file:${path}`,
    detach: true,
    ...(format > 0 && { format: name }),
  });
  for (;;) {
    const info = await guest.qmp('query-dump');
    const status = isObject(info) ? info['status'] : undefined;
    if (status === 'completed') return;
    if (status === 'failed') throw libvirtError('operationFailed', 'qemu', 'memory-only dump failed');
    await wait(daemon.host, 20);
  }
}
