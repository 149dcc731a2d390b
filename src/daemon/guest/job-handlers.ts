// Procedures of long operations: save, restore, dump, block jobs, backup, and what they report of themselves.
import { formatDomain, parseDomain } from '../../domain/domain.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Domain as DomainRef, TypedParam } from '../../rpc/libvirt/types.ts';
import { paramsToRecord } from '../../rpc/libvirt/types.ts';
import type { Daemon, RemoteHandlers } from '../daemon.ts';
import { checkFlags, invalidArgument, operationInvalid, translateErrors } from '../errors.ts';
import { beginBackup } from './backup.ts';
import { blockCommit, blockCopy, blockJobAbort, blockJobInfo, blockJobSpeed, blockPull, speedOf } from './block-jobs.ts';
import { findDisk, formatNode } from './block-nodes.ts';
import type { Guest } from './guest.ts';
import { dropManagedSave } from './lifecycle.ts';
import { migrationHandlers } from './migration-handlers.ts';
import { dumpGuest, readHeader, restoreImage, saveGuest, writeHeader } from './save.ts';
import { saveStatus } from './status.ts';

/** Flags of save and restore. */
/** By flags. */
const dirtyRateModes = ['page-sampling', 'dirty-bitmap', 'dirty-ring'] as const;

const saveFlag = { bypassCache: 1, running: 2, paused: 4 } as const;

const runningOf = (flags: number): boolean | undefined =>
  flags & saveFlag.running ? true : flags & saveFlag.paused ? false : undefined;

async function save(daemon: Daemon, guest: Guest, path: string, xml: string | undefined, flags: number): Promise<void> {
  checkFlags('qemuDomainSaveFlags', flags, 7);
  await guest.lock.run('DomainSave', () => saveGuest(daemon, guest, path, { xml, running: runningOf(flags) }));
}

async function managedSave(daemon: Daemon, guest: Guest, flags: number): Promise<void> {
  checkFlags('qemuDomainManagedSave', flags, 7);
  guest.live();
  if (!guest.persistent) throw operationInvalid('cannot do managed save for transient domain');
  await guest.lock.run('DomainManagedSave', () =>
    saveGuest(daemon, guest, daemon.guests.savePath(guest.name), { running: runningOf(flags) }),
  );
  guest.managedSave = true;
}

/** The document in a saved image, with secrets only on request. */
async function savedXml(daemon: Daemon, path: string, flags: number): Promise<string> {
  const { xml } = await readHeader(daemon, path);
  return formatDomain(parseDomain(xml), { secure: (flags & 1) === 1 });
}

async function defineSaved(daemon: Daemon, path: string, xml: string | undefined, flags: number): Promise<void> {
  const old = await readHeader(daemon, path);
  const before = parseDomain(old.xml);
  const after = xml === undefined ? before : parseDomain(xml);
  if (after.uuid !== before.uuid || after.name !== before.name) {
    throw libvirtError('configUnsupported', 'domain', `Target domain name ${after.name} does not match source ${before.name}`);
  }
  await writeHeader(daemon, path, formatDomain(after, { secure: true }), runningOf(flags));
}

const none = { type: 0, timeElapsed: 0n, timeRemaining: 0n, dataTotal: 0n, dataProcessed: 0n, dataRemaining: 0n };
const noMore = { memTotal: 0n, memProcessed: 0n, memRemaining: 0n, fileTotal: 0n, fileProcessed: 0n, fileRemaining: 0n };

/** libvirt's kind of a job whose end can't be told. */
const unbounded = 2;
const completedFlag = { completed: 1, keep: 2 } as const;

export function jobHandlers(daemon: Daemon): RemoteHandlers {
  const { guests, host } = daemon;
  const block = async (dom: DomainRef, name: string, action: (guest: Guest) => Promise<void>): Promise<void> => {
    const guest = guests.find(dom);
    await guest.lock.run(name, () => action(guest));
  };
  const own = {
    domainSave: async ({ dom, to }) => save(daemon, guests.find(dom), to, undefined, 0),
    domainSaveFlags: async ({ dom, to, xml, flags }) => save(daemon, guests.find(dom), to, xml, flags),
    async domainSaveParams({ dom, params, flags }) {
      const given = paramsToRecord(params);
      if (given['file'] === undefined) throw libvirtError('invalidArg', 'qemu', 'file is required');
      await save(daemon, guests.find(dom), String(given['file']), given['dxml'] as string | undefined, flags);
    },
    domainRestore: async ({ from }) => restoreImage(daemon, from, {}),
    domainRestoreFlags: async ({ from, xml, flags }) => {
      checkFlags('qemuDomainRestoreFlags', flags, 15);
      await restoreImage(daemon, from, { xml, running: runningOf(flags) });
    },
    async domainRestoreParams({ params, flags }) {
      const given = paramsToRecord(params);
      if (given['file'] === undefined) throw libvirtError('invalidArg', 'qemu', 'missing file parameter');
      await restoreImage(daemon, String(given['file']), { xml: given['dxml'] as string | undefined, running: runningOf(flags) });
    },
    domainSaveImageGetXmlDesc: async ({ file, flags }) => ({ xml: await savedXml(daemon, file, flags) }),
    domainSaveImageDefineXml: async ({ file, xml, flags }) => defineSaved(daemon, file, xml, flags),
    domainManagedSave: async ({ dom, flags }) => managedSave(daemon, guests.find(dom), flags),
    domainHasManagedSaveImage: ({ dom }) => ({ result: guests.find(dom).managedSave ? 1 : 0 }),
    domainManagedSaveRemove: async ({ dom }) => dropManagedSave(daemon, guests.find(dom)),
    async domainManagedSaveGetXmlDesc({ dom, flags }) {
      const guest = guests.find(dom);
      if (!guest.managedSave) throw operationInvalid('domain does not have managed save image');
      return { xml: await savedXml(daemon, guests.savePath(guest.name), flags) };
    },
    async domainManagedSaveDefineXml({ dom, xml, flags }) {
      const guest = guests.find(dom);
      if (!guest.managedSave) throw operationInvalid('domain does not have managed save image');
      await defineSaved(daemon, guests.savePath(guest.name), xml, flags);
    },
    domainCoreDump: async ({ dom, to, flags }) => dumpGuest(daemon, guests.find(dom), to, 0, flags),
    domainCoreDumpWithFormat: async ({ dom, to, format, flags }) => dumpGuest(daemon, guests.find(dom), to, format, flags),

    async domainGetJobInfo({ dom }) {
      const guest = guests.find(dom);
      guest.live();
      const { job } = guest;
      if (!job) return { ...none, ...noMore };
      const now = await job.progress().catch(() => ({ total: 0, remaining: 0, processed: 0 }));
      const [dataTotal, dataRemaining, dataProcessed] = [now.total, now.remaining, now.processed].map((n) =>
        BigInt(Math.floor(n)),
      );
      return {
        ...noMore,
        type: unbounded,
        timeElapsed: BigInt(host.now() - job.startedMs),
        timeRemaining: 0n,
        dataTotal: dataTotal!,
        dataProcessed: dataProcessed!,
        dataRemaining: dataRemaining!,
        memTotal: dataTotal!,
        memProcessed: dataProcessed!,
        memRemaining: dataRemaining!,
      };
    },
    async domainGetJobStats({ dom, flags }) {
      const guest = guests.find(dom);
      if (flags & completedFlag.completed) {
        const last = guest.lastJob;
        if ((flags & completedFlag.keep) === 0) guest.lastJob = undefined;
        return last ?? { type: 0, params: [] };
      }
      guest.live();
      const { job } = guest;
      if (!job) return { type: 0, params: [] };
      const now = await job.progress();
      const row = (field: string, value: number): TypedParam => ({
        field,
        value: { type: 'ullong', value: BigInt(Math.floor(value)) },
      });
      const base: TypedParam[] = [
        { field: 'operation', value: { type: 'int', value: job.operation } },
        row('time_elapsed', host.now() - job.startedMs),
      ];
      const rest = now.extra ?? [
        row('data_total', now.total),
        row('data_processed', now.processed),
        row('data_remaining', now.remaining),
      ];
      return { type: unbounded, params: [...base, ...rest] };
    },
    async domainAbortJob({ dom }) {
      const guest = guests.find(dom);
      guest.live();
      if (!guest.job) throw operationInvalid('no job is active on the domain');
      if (!guest.job.abort) throw operationInvalid('cannot abort memory-only dump');
      await guest.job.abort();
    },
    async domainAbortJobFlags({ dom }) {
      const guest = guests.find(dom);
      guest.live();
      if (!guest.job?.abort) throw operationInvalid('no job is active on the domain');
      await guest.job.abort();
    },

    async domainBlockResize({ dom, disk: path, size, flags }) {
      checkFlags('qemuDomainBlockResize', flags, 1);
      if (path === '') throw invalidArgument('empty path');
      await block(dom, 'DomainBlockResize', async (guest) => {
        const disk = findDisk(guest.live().domain.devices.disks, path);
        const bytes = (flags & 1) === 1 ? Number(size) : Number(size) * 1024;
        await guest.qmp('block_resize', { 'node-name': formatNode(disk.source!.index!), size: Math.ceil(bytes / 512) * 512 });
      });
    },
    domainBlockPull: ({ dom, path, bandwidth, flags }) =>
      block(dom, 'DomainBlockPull', (guest) => blockPull(daemon, guest, path, undefined, speedOf(bandwidth, (flags & 64) !== 0))),
    /** Without the copy flag it is a pull down to a base; with it, a copy to a file. */
    domainBlockRebase: ({ dom, path, base, bandwidth, flags }) =>
      block(dom, 'DomainBlockRebase', (guest) => {
        const bytes = (flags & 64) !== 0;
        if ((flags & 8) === 0) return blockPull(daemon, guest, path, base, speedOf(bandwidth, bytes));
        const format = (flags & 4) !== 0 ? "<driver type='raw'/>" : '';
        const escaped = (base ?? '').replace(/[&<>']/g, (c) => `&#${c.charCodeAt(0)};`);
        const xml = `<disk type='${(flags & 32) !== 0 ? 'block' : 'file'}'><source ${(flags & 32) !== 0 ? 'dev' : 'file'}='${escaped}'/>${format}</disk>`;
        const options = {
          xml,
          speed: speedOf(bandwidth, bytes),
          shallow: (flags & 1) !== 0,
          reuse: (flags & 2) !== 0,
          transient: false,
        };
        return blockCopy(daemon, guest, path, options);
      }),
    domainBlockCommit: ({ dom, disk: path, base, top, bandwidth, flags }) =>
      block(dom, 'DomainBlockCommit', (guest) =>
        blockCommit(daemon, guest, path, {
          base,
          top,
          speed: speedOf(bandwidth, (flags & 16) !== 0),
          active: (flags & 4) !== 0,
          shallow: (flags & 1) !== 0,
        }),
      ),
    domainBlockCopy: ({ dom, path, xml, params, flags }) =>
      block(dom, 'DomainBlockCopy', (guest) => {
        const given = paramsToRecord(params);
        return blockCopy(daemon, guest, path, {
          xml,
          speed: Number(given['bandwidth'] ?? 0),
          shallow: (flags & 1) !== 0,
          reuse: (flags & 2) !== 0,
          transient: (flags & 4) !== 0,
          granularity: Number(given['granularity'] ?? 0),
          bufSize: Number(given['buf-size'] ?? 0),
        });
      }),
    async domainBlockJobAbort({ dom, path, flags }) {
      checkFlags('qemuDomainBlockJobAbort', flags, 3);
      const guest = guests.find(dom);
      await blockJobAbort(daemon, guest, path, (flags & 2) !== 0, (flags & 1) !== 0);
      await saveStatus(host, daemon.paths.run, guest);
    },
    async domainGetBlockJobInfo({ dom, path, flags }) {
      const info = await blockJobInfo(guests.find(dom), path);
      if (!info) return { found: false, type: 0, bandwidth: 0n, cur: 0n, end: 0n };
      const bandwidth = (flags & 1) === 1 ? info.bandwidth : info.bandwidth / 1_048_576n;
      return { found: true, ...info, bandwidth };
    },
    domainBlockJobSetSpeed: async ({ dom, path, bandwidth, flags }) =>
      blockJobSpeed(guests.find(dom), path, speedOf(bandwidth, (flags & 1) === 1)),
    async domainSetBlockThreshold({ dom, dev, threshold }) {
      const guest = guests.find(dom);
      const target = dev.replace(/\[\d+\]$/, '');
      const disk = guest.live().domain.devices.disks.find((one) => one.target?.dev === target);
      if (!disk) throw invalidArgument(`failed to find disk '${dev}'`);
      const node = `libvirt-${disk.source?.index}-storage`;
      await guest.qmp('block-set-write-threshold', { 'node-name': node, 'write-threshold': threshold });
    },
    domainBackupBegin: async ({ dom, xml, checkpointXml, flags }) =>
      beginBackup(daemon, guests.find(dom), xml, checkpointXml, flags),
    domainBackupGetXmlDesc({ dom }) {
      const guest = guests.find(dom);
      if (guest.backup === undefined) throw libvirtError('noDomainBackup', 'qemu', 'no domain backup job present');
      return { xml: guest.backup.xml };
    },
    async domainBlockPeek({ dom, path, offset, size }) {
      const guest = guests.find(dom);
      const disk = findDisk(guest.current.devices.disks, path);
      const file = disk.source?.file ?? disk.source?.dev;
      if (file === undefined || disk.driver?.type !== 'raw')
        throw libvirtError('configUnsupported', 'qemu', "peeking is only supported for disk with 'raw' format");
      const open = await host.files.open(file, 'read');
      try {
        return { buffer: await open.read(Number(offset), size) };
      } finally {
        await open.close();
      }
    },
    async domainMemoryPeek({ dom, offset, size, flags }) {
      const guest = guests.find(dom);
      const run = guest.live();
      if (flags !== 1 && flags !== 2) throw invalidArgument('flags parameter must be VIR_MEMORY_VIRTUAL or VIR_MEMORY_PHYSICAL');
      const path = `${run.directory}/peek-${host.now()}`;
      const command = flags === 1 ? 'memsave' : 'pmemsave';
      try {
        await guest.qmp(command, { val: offset, size, filename: path });
        const file = await host.files.open(path, 'read');
        const buffer = await file.read(0, size).finally(() => file.close());
        return { buffer };
      } finally {
        await host.files.remove(path);
      }
    },
    async domainStartDirtyRateCalc({ dom, seconds, flags }) {
      checkFlags('qemuDomainStartDirtyRateCalc', flags, 3);
      if (seconds < 1 || seconds > 60)
        throw invalidArgument(`seconds=${seconds} is invalid, please choose value within [1, 60].`);
      const mode = dirtyRateModes[flags];
      if (mode === undefined)
        throw invalidArgument(
          "Flags 'VIR_DOMAIN_DIRTYRATE_MODE_DIRTY_BITMAP' and 'VIR_DOMAIN_DIRTYRATE_MODE_DIRTY_RING' in function 'qemuDomainStartDirtyRateCalc' are mutually exclusive",
        );
      await guests.find(dom).qmp('calc-dirty-rate', { 'calc-time': seconds, mode });
    },
  } satisfies RemoteHandlers;
  return { ...translateErrors('qemu', own), ...migrationHandlers(daemon) };
}
