// Storage pools: definitions as files, which of them are active, and the volumes in each (libvirt 9.0's storage driver).
import type { Domain } from '../../domain/domain.ts';
import { completePool, formatPool, parsePool, type StoragePool } from '../../domain/storage.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { StoragePool as PoolRef } from '../../rpc/libvirt/types.ts';
import type { Daemon } from '../daemon.ts';
import { systemError } from '../errors.ts';
import { backendOf, type PoolBackend } from './backends.ts';
import type { VolumeEntry } from './volumes.ts';

export class Pool {
  readonly name: string;
  readonly uuid: string;
  /** The definition, with sizes while it is active. */
  definition: StoragePool;
  persistent: boolean;
  active = false;
  autostart = false;
  readonly volumes = new Map<string, VolumeEntry>();
  /** Changes of volumes that are under way. */
  jobs = 0;

  constructor(definition: StoragePool, persistent: boolean) {
    this.name = definition.name;
    this.uuid = definition.uuid!;
    this.definition = definition;
    this.persistent = persistent;
  }
  get ref(): PoolRef {
    return { name: this.name, uuid: this.uuid };
  }
  get path(): string {
    return this.definition.target?.path ?? '';
  }
}

const invalid = (detail: string) => libvirtError('operationInvalid', 'storage', detail);

export class Pools {
  readonly #daemon: Daemon;
  readonly #byUuid = new Map<string, Pool>();

  constructor(daemon: Daemon) {
    this.#daemon = daemon;
  }
  get #directory(): string {
    return `${this.#daemon.paths.config}/storage`;
  }
  get #runDirectory(): string {
    return `${this.#daemon.paths.run}/storage`;
  }
  get all(): readonly Pool[] {
    return [...this.#byUuid.values()];
  }
  backend(pool: Pool): PoolBackend {
    return backendOf(this.#daemon, pool.definition.type);
  }
  async load(): Promise<void> {
    const { files } = this.#daemon.host;
    await files.makeDirectory(`${this.#directory}/autostart`, 0o700);
    await files.makeDirectory(this.#runDirectory, 0o700);
    const auto = new Set(await files.list(`${this.#directory}/autostart`));
    const read = async (path: string): Promise<StoragePool | undefined> => {
      try {
        return completePool(parsePool((await files.read(path)) ?? ''), (n) => this.#daemon.host.crypto.random(n));
      } catch (error) {
        this.#daemon.host.log(`Cannot load ${path}: ${(error as Error).message}`);
        return undefined;
      }
    };
    for (const file of await files.list(this.#directory)) {
      if (!file.endsWith('.xml')) continue;
      const definition = await read(`${this.#directory}/${file}`);
      if (!definition) continue;
      const pool = new Pool(definition, true);
      pool.autostart = auto.has(file);
      this.#byUuid.set(pool.uuid, pool);
    }
    for (const file of await files.list(this.#runDirectory)) {
      if (!file.endsWith('.xml')) continue;
      const definition = await read(`${this.#runDirectory}/${file}`);
      if (!definition) continue;
      const pool = this.#byUuid.get(definition.uuid!) ?? new Pool(definition, false);
      try {
        await this.refresh(pool);
        pool.active = true;
        this.#byUuid.set(pool.uuid, pool);
      } catch (error) {
        this.#daemon.host.log(`storage pool ${pool.name}: ${(error as Error).message}`);
        await files.remove(`${this.#runDirectory}/${file}`);
      }
    }
  }
  async autostart(): Promise<void> {
    for (const pool of this.all) {
      if (!pool.autostart || pool.active) continue;
      await this.start(pool).catch((error: unknown) =>
        this.#daemon.host.log(`storage pool ${pool.name}: ${(error as Error).message}`),
      );
    }
  }
  byName(name: string): Pool | undefined {
    return this.all.find((one) => one.name === name);
  }
  byUuid(uuid: string): Pool | undefined {
    return this.#byUuid.get(uuid);
  }
  /** @throws {LibvirtError} 49 */
  find(ref: PoolRef): Pool {
    const pool = this.#byUuid.get(ref.uuid);
    if (!pool) throw libvirtError('noStoragePool', 'storage', `no storage pool with matching uuid '${ref.uuid}' (${ref.name})`);
    return pool;
  }
  findActive(ref: PoolRef): Pool {
    const pool = this.find(ref);
    if (!pool.active) throw invalid(`storage pool '${pool.name}' is not active`);
    return pool;
  }
  #check(definition: StoragePool): Pool | undefined {
    const same = this.#byUuid.get(definition.uuid!);
    if (same && same.name !== definition.name) {
      throw libvirtError('operationFailed', 'storage', `pool '${same.name}' is already defined with uuid ${same.uuid}`);
    }
    const named = this.byName(definition.name);
    if (named && named.uuid !== definition.uuid) {
      throw libvirtError('operationFailed', 'storage', `pool '${definition.name}' already exists with uuid ${named.uuid}`);
    }
    const path = definition.target?.path;
    const other = this.all.find((one) => one !== same && one.path === path && one.definition.type === definition.type);
    if (path !== undefined && other && definition.type === 'dir') {
      throw libvirtError('operationFailed', 'storage', `Storage source conflict with pool: '${other.name}'`);
    }
    return same;
  }
  #parse(xml: string): StoragePool {
    const definition = completePool(parsePool(xml), (n) => this.#daemon.host.crypto.random(n));
    backendOf(this.#daemon, definition.type);
    return definition;
  }
  async define(xml: string): Promise<Pool> {
    const definition = this.#parse(xml);
    const same = this.#check(definition);
    await this.#daemon.host.files.write(`${this.#directory}/${definition.name}.xml`, formatPool(definition));
    const pool = same ?? new Pool(definition, true);
    if (same) {
      same.persistent = true;
      if (!same.active) same.definition = definition;
    }
    this.#byUuid.set(pool.uuid, pool);
    this.#daemon.events.pool(pool.ref, 0);
    return pool;
  }
  async createXml(xml: string, flags: number): Promise<Pool> {
    const definition = this.#parse(xml);
    const same = this.#check(definition);
    if (same?.active) throw invalid(`pool is already active as '${same.name}'`);
    const pool = same ?? new Pool(definition, false);
    if (flags & 1) await this.backend(pool).build(pool, flags & 4 ? 1 : 0);
    this.#byUuid.set(pool.uuid, pool);
    try {
      await this.start(pool);
    } catch (error) {
      if (!same) this.#byUuid.delete(pool.uuid);
      throw error;
    }
    return pool;
  }
  async start(pool: Pool): Promise<void> {
    if (pool.active) throw invalid(`storage pool '${pool.name}' is already active`);
    await this.backend(pool).start(pool);
    await this.refresh(pool);
    await this.#daemon.host.files.write(`${this.#runDirectory}/${pool.name}.xml`, formatPool(pool.definition));
    pool.active = true;
    this.#daemon.events.pool(pool.ref, 2);
  }
  async stop(pool: Pool): Promise<void> {
    if (!pool.active) throw invalid(`storage pool '${pool.name}' is not active`);
    if (pool.jobs > 0) throw libvirtError('internalError', 'storage', `pool '${pool.name}' has asynchronous jobs running.`);
    await this.backend(pool).stop(pool);
    await this.#daemon.host.files.remove(`${this.#runDirectory}/${pool.name}.xml`);
    pool.active = false;
    pool.volumes.clear();
    Object.assign(pool.definition, { capacity: 0, allocation: 0, available: 0 });
    if (!pool.persistent) this.#byUuid.delete(pool.uuid);
    this.#daemon.events.pool(pool.ref, 3);
  }
  async undefine(pool: Pool): Promise<void> {
    if (pool.active) throw invalid(`storage pool '${pool.name}' is still active`);
    const { files } = this.#daemon.host;
    await files.remove(`${this.#directory}/${pool.name}.xml`);
    await files.remove(`${this.#directory}/autostart/${pool.name}.xml`);
    this.#byUuid.delete(pool.uuid);
    this.#daemon.events.pool(pool.ref, 1);
  }
  async build(pool: Pool, flags: number): Promise<void> {
    if (pool.active) throw invalid(`storage pool '${pool.name}' is already active`);
    await this.backend(pool).build(pool, flags);
    this.#daemon.events.pool(pool.ref, 4);
  }
  async destroy(pool: Pool): Promise<void> {
    if (pool.active) throw invalid(`storage pool '${pool.name}' is still active`);
    try {
      await this.backend(pool).remove(pool);
    } catch (error) {
      throw systemError('storage', `failed to remove pool '${pool.path}'`, error);
    }
    this.#daemon.events.pool(pool.ref, 5);
  }
  /** Looks at the pool's storage anew. */
  async refresh(pool: Pool): Promise<void> {
    const found = await this.backend(pool).scan(pool);
    pool.volumes.clear();
    for (const one of found) pool.volumes.set(one.name, one);
    await this.measure(pool);
  }
  async measure(pool: Pool): Promise<void> {
    const { capacity, available } = await this.backend(pool).space(pool);
    Object.assign(pool.definition, { capacity, available, allocation: capacity - available });
  }
  async setAutostart(pool: Pool, on: boolean): Promise<void> {
    if (!pool.persistent) throw invalid('cannot set autostart for transient pool');
    const path = `${this.#directory}/autostart/${pool.name}.xml`;
    if (on) await this.#daemon.host.files.write(path, '');
    else await this.#daemon.host.files.remove(path);
    pool.autostart = on;
  }
  /** The pool and volume that a path or key names. */
  volumeByPath(path: string): { pool: Pool; volume: VolumeEntry } | undefined {
    for (const pool of this.all) {
      if (!pool.active) continue;
      for (const volume of pool.volumes.values()) if (volume.path === path) return { pool, volume };
    }
    return undefined;
  }
  /** Disks that name a volume get its file. @throws {LibvirtError} for one that is not there */
  async resolveVolumes(domain: Domain): Promise<void> {
    for (const disk of domain.devices.disks) {
      const { source } = disk;
      if (disk.type !== 'volume' || source?.pool === undefined) continue;
      const pool = this.byName(source.pool);
      if (!pool) throw libvirtError('noStoragePool', 'storage', `no storage pool with matching name '${source.pool}'`);
      if (!pool.active)
        throw libvirtError(
          'configUnsupported',
          'storage',
          `storage pool '${source.pool}' containing volume '${source.volume}' is not active`,
        );
      const volume = pool.volumes.get(source.volume ?? '');
      if (!volume) throw libvirtError('noStorageVol', 'storage', `no storage vol with matching name '${source.volume}'`);
      const { pool: _, volume: __, mode: ___, ...rest } = source;
      disk.type = volume.kind === 'block' ? 'block' : 'file';
      disk.source = { ...rest, ...(volume.kind === 'block' ? { dev: volume.path } : { file: volume.path }) };
    }
  }
}
