// Procedures of storage pools and volumes. libvirt 9.0's rules, answers and words.
import { formatPool, parseVolume, poolTypes } from '../../domain/storage.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { StorageVol as VolumeRef } from '../../rpc/libvirt/types.ts';
import type { RpcStream } from '../../rpc/stream.ts';
import type { Daemon, RemoteHandlers } from '../daemon.ts';
import { checkFlags, systemError, translateErrors } from '../errors.ts';
import { type FlagGroups, wanted } from '../guest/list-flags.ts';
import { poolCapabilities } from './capabilities.ts';
import type { Pool } from './pools.ts';
import { copyVolume, inspect, makeVolume, resizeVolume, type VolumeEntry, volumeXml, wipeVolume } from './volumes.ts';

const typeBits: Readonly<Record<string, number>> = {
  ...{
    dir: 64,
    fs: 128,
    netfs: 256,
    logical: 512,
    disk: 1024,
    iscsi: 2048,
    scsi: 4096,
    mpath: 8192,
    rbd: 16_384,
    sheepdog: 32_768,
  },
  ...{ gluster: 65_536, zfs: 131_072, vstorage: 262_144, 'iscsi-direct': 524_288 },
};
const listGroups: FlagGroups<Pool> = [
  [
    [1, (one) => !one.active],
    [2, (one) => one.active],
  ],
  [
    [4, (one) => one.persistent],
    [8, (one) => !one.persistent],
  ],
  [
    [16, (one) => one.autostart],
    [32, (one) => !one.autostart],
  ],
  Object.entries(typeBits).map(([type, bit]) => [bit, (one: Pool) => one.definition.type === type] as const),
];

const kinds = { file: 0, block: 1, dir: 2 } as const;
const streamChunk = 256 * 1024 - 24;
const sparseFlag = 1;
/** What a sparse download leaves out: at least this many zero bytes. */
const holeBytes = 64 * 1024;

const refOf = (pool: Pool, one: VolumeEntry): VolumeRef => ({ pool: pool.name, name: one.name, key: one.path });

/** Sends a range of a file; runs of zeros by their count when the client takes that. */
async function download(
  daemon: Daemon,
  path: string,
  offset: number,
  length: number,
  sparse: boolean,
  stream: RpcStream,
): Promise<void> {
  const file = await daemon.host.files.open(path, 'read');
  try {
    const end = Math.min(await file.size(), length === 0 ? Number.POSITIVE_INFINITY : offset + length);
    let hole = 0n;
    for (let at = offset; at < end; ) {
      const bytes = await file.read(at, Math.min(sparse ? holeBytes : streamChunk, end - at));
      if (bytes.length === 0) break;
      at += bytes.length;
      if (sparse && bytes.every((byte) => byte === 0)) {
        hole += BigInt(bytes.length);
        continue;
      }
      if (hole > 0n) await stream.writeHole(hole);
      hole = 0n;
      await stream.write(bytes);
    }
    if (hole > 0n) await stream.writeHole(hole);
  } finally {
    await file.close();
  }
}

async function upload(daemon: Daemon, one: VolumeEntry, offset: number, length: number, stream: RpcStream): Promise<void> {
  const file = await daemon.host.files.open(one.path, 'write');
  try {
    const end = length === 0 ? Number.POSITIVE_INFINITY : offset + length;
    let at = offset;
    for await (const item of stream) {
      const size = item instanceof Uint8Array ? item.length : Number(item.hole);
      if (at + size > end) throw libvirtError('internalError', 'streams', 'the client sends more than it announced');
      if (item instanceof Uint8Array) await file.write(at, item);
      else if (one.kind === 'file') await zeroRange(file, at, size);
      at += size;
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

async function zeroRange(file: Awaited<ReturnType<Daemon['host']['files']['open']>>, at: number, size: number): Promise<void> {
  const end = await file.size();
  if (at + size >= end) {
    // The rest of the file: cut and grown again it is a hole.
    await file.truncate(Math.min(at, end));
    await file.truncate(at + size);
    return;
  }
  const zeros = new Uint8Array(Math.min(size, 1024 * 1024));
  for (let done = 0; done < size; done += zeros.length)
    await file.write(at + done, zeros.subarray(0, Math.min(zeros.length, size - done)));
}

export function storageHandlers(daemon: Daemon): RemoteHandlers {
  const { pools, host, events } = daemon;
  const findVolume = (ref: VolumeRef): { pool: Pool; volume: VolumeEntry } => {
    const pool = pools.byName(ref.pool);
    if (!pool) throw libvirtError('noStoragePool', 'storage', `no storage pool with matching name '${ref.pool}'`);
    if (!pool.active) throw libvirtError('operationInvalid', 'storage', `storage pool '${pool.name}' is not active`);
    const volume = pool.volumes.get(ref.name);
    if (!volume) {
      throw libvirtError('noStorageVol', 'storage', `no storage vol with matching name '${ref.name}'`);
    }
    return { pool, volume };
  };
  /** Looks at one volume anew. */
  const look = async (pool: Pool, name: string, path: string): Promise<VolumeEntry> => {
    const found = await inspect(host, path, name);
    if (!found) {
      pool.volumes.delete(name);
      throw libvirtError('noStorageVol', 'storage', `no storage vol with matching name '${name}'`);
    }
    pool.volumes.set(name, found);
    return found;
  };
  const fresh = async (ref: VolumeRef): Promise<{ pool: Pool; volume: VolumeEntry }> => {
    const { pool, volume } = findVolume(ref);
    const there = await host.files.status(volume.path);
    if (!there)
      throw systemError('storage', `cannot stat file '${volume.path}'`, Object.assign(new Error(''), { code: 'ENOENT' }));
    return { pool, volume: await look(pool, volume.name, volume.path) };
  };
  const create = async (pool: Pool, xml: string, flags: number, from?: VolumeEntry): Promise<VolumeRef> => {
    const wantedVolume = parseVolume(xml);
    const { name } = wantedVolume;
    if (pool.volumes.has(name)) throw libvirtError('storageVolExist', 'storage', `'${name}'`);
    if (from && wantedVolume.capacity < from.capacity) wantedVolume.capacity = from.capacity;
    const backend = pools.backend(pool);
    const path = backend.place(pool, name);
    pool.jobs++;
    try {
      if (backend.create) await backend.create(pool, name, wantedVolume.capacity);
      else
        await makeVolume(
          host,
          path,
          wantedVolume,
          (wantedVolume.allocation ?? wantedVolume.capacity) >= wantedVolume.capacity && (flags & 1) === 0 && !from,
        );
      if (from) {
        try {
          await copyVolume(host, from, path);
        } catch (error) {
          await host.files.remove(path);
          throw error;
        }
      }
    } finally {
      pool.jobs--;
    }
    const made = await look(pool, name, path);
    await pools.measure(pool);
    return refOf(pool, made);
  };
  const infoOf = (one: VolumeEntry, physical: boolean) => ({
    type: kinds[one.kind],
    capacity: BigInt(one.capacity),
    allocation: BigInt(physical ? one.physical : one.allocation),
  });
  const own = {
    connectNumOfStoragePools: () => ({ num: pools.all.filter((one) => one.active).length }),
    connectListStoragePools: ({ maxNames }) => ({
      names: pools.all.flatMap((one) => (one.active ? [one.name] : [])).slice(0, maxNames),
    }),
    connectNumOfDefinedStoragePools: () => ({ num: pools.all.filter((one) => !one.active).length }),
    connectListDefinedStoragePools: ({ maxNames }) => ({
      names: pools.all.flatMap((one) => (one.active ? [] : [one.name])).slice(0, maxNames),
    }),
    connectListAllStoragePools({ needResults, flags }) {
      const found = pools.all.filter((one) => wanted(one, flags, listGroups));
      return { pools: needResults ? found.map((one) => one.ref) : [], ret: found.length };
    },
    connectFindStoragePoolSources({ type }) {
      if (!(poolTypes as readonly string[]).includes(type))
        throw libvirtError('internalError', 'storage', `unknown storage pool type ${type}`);
      throw libvirtError('noSupport', 'storage', `pool type '${type}' does not support source discovery`);
    },
    connectGetStoragePoolCapabilities: () => ({ capabilities: poolCapabilities() }),
    storagePoolLookupByName({ name }) {
      const found = pools.byName(name);
      if (!found) throw libvirtError('noStoragePool', 'storage', `no storage pool with matching name '${name}'`);
      return { pool: found.ref };
    },
    storagePoolLookupByUuid({ uuid }) {
      const found = pools.byUuid(uuid);
      if (!found) throw libvirtError('noStoragePool', 'storage', `no storage pool with matching uuid '${uuid}'`);
      return { pool: found.ref };
    },
    storagePoolLookupByVolume: ({ vol }) => ({ pool: findVolume(vol).pool.ref }),
    storagePoolLookupByTargetPath({ path }) {
      const found = pools.all.find((one) => one.active && one.path === path.replace(/\/+$/, ''));
      if (!found) throw libvirtError('noStoragePool', 'storage', `no storage pool with matching target path '${path}'`);
      return { pool: found.ref };
    },
    storagePoolCreateXml: async ({ xml, flags }) => ({ pool: (await pools.createXml(xml, flags)).ref }),
    storagePoolDefineXml: async ({ xml }) => ({ pool: (await pools.define(xml)).ref }),
    storagePoolCreate: async ({ pool, flags }) => {
      const found = pools.find(pool);
      if (flags & 1 && !found.active) await pools.build(found, flags & 4 ? 1 : flags & 2 ? 2 : 0);
      await pools.start(found);
    },
    storagePoolBuild: async ({ pool, flags }) => pools.build(pools.find(pool), flags),
    storagePoolDestroy: async ({ pool }) => pools.stop(pools.find(pool)),
    storagePoolDelete: async ({ pool }) => pools.destroy(pools.find(pool)),
    storagePoolUndefine: async ({ pool }) => pools.undefine(pools.find(pool)),
    storagePoolRefresh: async ({ pool }) => {
      const found = pools.findActive(pool);
      await pools.refresh(found);
      events.poolRefreshed(found.ref);
    },
    storagePoolGetInfo({ pool }) {
      const found = pools.find(pool);
      const { capacity = 0, allocation = 0, available = 0 } = found.definition;
      const sizes = [capacity, allocation, available].map(BigInt) as [bigint, bigint, bigint];
      return { state: found.active ? 2 : 0, capacity: sizes[0], allocation: sizes[1], available: sizes[2] };
    },
    storagePoolGetXmlDesc: ({ pool }) => ({ xml: formatPool(pools.find(pool).definition) }),
    storagePoolGetAutostart: ({ pool }) => ({ autostart: pools.find(pool).autostart }),
    storagePoolSetAutostart: async ({ pool, autostart }) => pools.setAutostart(pools.find(pool), autostart),
    storagePoolIsActive: ({ pool }) => ({ active: pools.find(pool).active }),
    storagePoolIsPersistent: ({ pool }) => ({ persistent: pools.find(pool).persistent }),
    storagePoolNumOfVolumes: ({ pool }) => ({ num: pools.findActive(pool).volumes.size }),
    storagePoolListVolumes: ({ pool, maxNames }) => ({ names: [...pools.findActive(pool).volumes.keys()].slice(0, maxNames) }),
    storagePoolListAllVolumes({ pool, needResults }) {
      const found = pools.findActive(pool);
      const list = [...found.volumes.values()];
      return { vols: needResults ? list.map((one) => refOf(found, one)) : [], ret: list.length };
    },

    storageVolCreateXml: async ({ pool, xml, flags }) => ({ vol: await create(pools.findActive(pool), xml, flags) }),
    storageVolCreateXmlFrom: async ({ pool, xml, from, flags }) => {
      const { volume } = await fresh(from);
      return { vol: await create(pools.findActive(pool), xml, flags, volume) };
    },
    async storageVolDelete({ vol, flags }) {
      checkFlags('storageVolDelete', flags, 3);
      const { pool, volume } = findVolume(vol);
      const backend = pools.backend(pool);
      if (backend.delete) await backend.delete(pool, volume);
      else if (volume.kind === 'dir') await host.files.removeDirectory(volume.path);
      else await host.files.remove(volume.path);
      pool.volumes.delete(volume.name);
      await pools.measure(pool);
    },
    storageVolLookupByName({ pool, name }) {
      const found = pools.findActive(pool);
      const volume = found.volumes.get(name);
      if (!volume) throw libvirtError('noStorageVol', 'storage', `no storage vol with matching name '${name}'`);
      return { vol: refOf(found, volume) };
    },
    storageVolLookupByKey({ key }) {
      const found = pools.volumeByPath(key);
      if (!found) throw libvirtError('noStorageVol', 'storage', `no storage vol with matching key ${key}`);
      return { vol: refOf(found.pool, found.volume) };
    },
    storageVolLookupByPath({ path }) {
      const found = pools.volumeByPath(path.replace(/\/+/g, '/'));
      if (!found) throw libvirtError('noStorageVol', 'storage', `no storage vol with matching path '${path}'`);
      return { vol: refOf(found.pool, found.volume) };
    },
    storageVolGetInfo: async ({ vol }) => infoOf((await fresh(vol)).volume, false),
    storageVolGetInfoFlags: async ({ vol, flags }) => infoOf((await fresh(vol)).volume, (flags & 1) === 1),
    storageVolGetXmlDesc: async ({ vol }) => ({ xml: volumeXml((await fresh(vol)).volume) }),
    storageVolGetPath: ({ vol }) => ({ path: findVolume(vol).volume.path }),
    storageVolWipe: async ({ vol }) => wipeVolume(host, (await fresh(vol)).volume),
    async storageVolWipePattern({ vol, algorithm }) {
      const { pool, volume } = await fresh(vol);
      if (algorithm !== 0) throw libvirtError('invalidArg', 'storage', `wiping algorithm ${algorithm} not supported`);
      await wipeVolume(host, volume);
      await look(pool, volume.name, volume.path);
    },
    async storageVolResize({ vol, capacity, flags }) {
      checkFlags('storageVolResize', flags, 7);
      const { pool, volume } = await fresh(vol);
      const delta = (flags & 2) !== 0;
      const shrink = (flags & 4) !== 0;
      const size = delta ? volume.capacity + (shrink ? -1 : 1) * Number(capacity) : Number(capacity);
      if (size < volume.capacity && !shrink) {
        throw libvirtError(
          'invalidArg',
          'storage',
          "Can't shrink capacity below current capacity unless shrink flag explicitly specified",
        );
      }
      if (size < volume.allocation && volume.format === 'raw' && size < volume.capacity && !shrink) {
        throw libvirtError('invalidArg', 'storage', "can't shrink capacity below existing allocation");
      }
      const backend = pools.backend(pool);
      if (backend.resize) await backend.resize(pool, volume, size);
      else await resizeVolume(host, volume, size);
      await look(pool, volume.name, volume.path);
      await pools.measure(pool);
    },
    storageVolDownload({ vol, offset, length, flags }, call) {
      const { pool, volume } = findVolume(vol);
      call.stream(async (stream) => {
        pool.jobs++;
        try {
          await download(daemon, volume.path, Number(offset), Number(length), (flags & sparseFlag) !== 0, stream);
        } finally {
          pool.jobs--;
        }
      });
    },
    storageVolUpload({ vol, offset, length }, call) {
      const { pool, volume } = findVolume(vol);
      call.stream(async (stream) => {
        pool.jobs++;
        try {
          await upload(daemon, volume, Number(offset), Number(length), stream);
        } finally {
          pool.jobs--;
        }
        await look(pool, volume.name, volume.path).catch(() => {});
        events.poolRefreshed(pool.ref);
      });
    },
  } satisfies RemoteHandlers;
  return translateErrors('storage', own);
}
