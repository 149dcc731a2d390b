// The block graph of an emulator: nodes by name, the places where devices of the guest hold them, and changes of both while the guest
// runs. QEMU 7.2 "QEMU QMP Reference Manual", qapi/block-core.json.

import type { BlockDevice } from '../../disk/block.ts';
import { HttpFile } from '../../disk/http/file.ts';
import { NbdFile } from '../../disk/nbd/client.ts';
import { nbdUri } from '../../disk/nbd/protocol.ts';
import { ReconnectingFile } from '../../disk/nbd/reconnect.ts';
import { backingPath, type DiskHost, probe } from '../../disk/open.ts';
import { openOverlay } from '../../disk/overlay.ts';
import { Qcow2Image, readHeader } from '../../disk/qcow2/image.ts';
import { RawImage } from '../../disk/raw.ts';
import type { Drive, Registry } from '../../machine/backends.ts';
import { QmpError } from '../../rpc/qmp/error.ts';
import { isObject, type Json } from '../../rpc/qmp/json.ts';
import type { Timers } from '../../rpc/transport.ts';
import type { TlsCredentials } from '../tls.ts';
import { Backend, type BackendOptions } from './backend.ts';
import { Bitmap } from './bitmap.ts';
import { type BlockNode, borrowed, NodeDisk, SharedFile, WriteThreshold } from './node.ts';
import { addressOf, fileOptions, type NodeOptions, nodeOptions } from './options.ts';
import { type Limits, Throttle } from './throttle.ts';

export interface GraphOptions {
  readonly host: DiskHost;
  readonly timers: Timers;
  readonly clock: () => number;
  /** Where devices look for their drives. */
  readonly drives: Registry<Drive>;
  /** The text of a secret object by its id; throws where there is none. */
  readonly secret?: (id: string) => string;
  /** TLS credentials for a client by their id; throws where there are none. */
  readonly tls?: (id: string, hostname: string | undefined) => TlsCredentials;
  /** A write went beyond a node's threshold, by so many bytes. */
  readonly crossed?: (node: string, exceeded: number, threshold: number) => void;
}

type Built = Omit<BlockNode, 'name' | 'options' | 'implicit' | 'bitmaps' | 'threshold' | 'disk' | 'backing'> & {
  readonly device: BlockDevice;
  readonly backing: BlockNode | undefined;
};

export class BlockGraph {
  readonly #o: GraphOptions;
  readonly #nodes = new Map<string, BlockNode>();
  /** Places by the name under which devices find them. */
  readonly backends: Backend[] = [];
  #serial = 0;
  /** A node that something else than nodes and places holds: a job. */
  readonly holders = new Map<BlockNode, number>();

  constructor(o: GraphOptions) {
    this.#o = o;
  }
  get host(): DiskHost {
    return this.#o.host;
  }

  // -- nodes

  list(): readonly BlockNode[] {
    return [...this.#nodes.values()];
  }
  find(name: string): BlockNode | undefined {
    return this.#nodes.get(name);
  }
  /** @throws QmpError */
  get(name: string): BlockNode {
    const found = this.#nodes.get(name);
    if (!found) throw new QmpError(`Cannot find device='' nor node-name='${name}'`);
    return found;
  }
  /** Opens a node with what it is described over. Rejects with QmpError, with nothing left open. */
  async add(given: Json): Promise<BlockNode> {
    const options = nodeOptions(given);
    if (options['node-name'] === undefined) throw new QmpError("'node-name' must be specified for the root node");
    return this.#open(options, false, false);
  }
  async #open(options: NodeOptions, implicit: boolean, readOnly: boolean): Promise<BlockNode> {
    const name = options['node-name'] ?? `#block${String(this.#serial++).padStart(3, '0')}`;
    if (this.#nodes.has(name)) throw new QmpError(`Duplicate nodes with node-name='${name}'`);
    if (options['node-name'] !== undefined && !/^[A-Za-z][\w.-]{0,30}$/.test(name))
      throw new QmpError(`Invalid node-name: '${name}'`);
    const wanted = options['read-only'] ?? readOnly;
    const { device, ...built } = await this.#build(options, wanted).catch((error: unknown) => {
      throw error instanceof QmpError ? error : new QmpError(error instanceof Error ? error.message : String(error));
    });
    const threshold = this.#thresholdOf(name);
    const node: BlockNode = {
      ...built,
      name,
      options,
      implicit,
      disk: new NodeDisk(device, threshold),
      bitmaps: new Map(),
      threshold,
    };
    if (node.protocol) node.protocol.threshold = threshold;
    if (node.format instanceof Qcow2Image)
      for (const b of node.format.bitmaps) node.bitmaps.set(b.name, Bitmap.from(b, node.disk.size));
    this.#nodes.set(name, node);
    this.#place(node);
    if (this.dormant && !wanted && node.readOnly && node.file?.protocol) this.#sleep(node);
    return node;
  }
  #thresholdOf(name: string): WriteThreshold {
    return new WriteThreshold((exceeded, threshold) => this.#o.crossed?.(name, exceeded, threshold));
  }
  /** Whether images that are opened belong to another process still, whose guest is to come here: they are only read until then. */
  dormant = false;
  /** Nodes whose image is read only until `activate`. */
  readonly #sleeping = new Set<BlockNode>();
  #sleep(node: BlockNode): void {
    node.disk.dormant = true;
    this.#sleeping.add(node);
  }
  /** Leaves all images to another process, everything in their files. Rejects where one cannot be left. */
  async inactivate(): Promise<void> {
    for (const node of this.list()) {
      if (node.readOnly || !node.format || !node.file?.protocol) continue;
      await this.access(node, false, true);
      this.#sleep(node);
    }
  }
  /** Takes all images back, as they are now: the other process may have changed them. Rejects where one is in use. */
  async activate(): Promise<void> {
    this.dormant = false;
    for (const node of [...this.#sleeping]) await this.wake(node);
  }
  /** Takes one image back, if it was left. */
  async wake(node: BlockNode): Promise<void> {
    if (!this.#sleeping.has(node)) return;
    // What a snapshot has put below another image meanwhile stays as it is.
    const below = this.list().some((one) => one.backing === node);
    if (!below) await this.access(node, true);
    node.disk.dormant = false;
    this.#sleeping.delete(node);
    if (below || !(node.format instanceof Qcow2Image)) return;
    node.bitmaps.clear();
    for (const b of node.format.bitmaps) node.bitmaps.set(b.name, Bitmap.from(b, node.disk.size));
  }
  /** Has an image keep the node's persistent bitmaps. */
  #keepBitmaps(node: BlockNode): void {
    if (node.format instanceof Qcow2Image)
      node.format.keepBitmaps(() => [...node.bitmaps.values()].filter((b) => b.persistent).map((b) => b.stored()));
  }
  async #build(o: NodeOptions, readOnly: boolean): Promise<Built> {
    switch (o.driver) {
      case 'file':
      case 'host_device':
      case 'http':
      case 'https':
      case 'nbd': {
        const { name, host } = this.#protocol(o);
        const file = await SharedFile.open(name, host, {
          readOnly,
          auto: o['auto-read-only'] === true || this.dormant,
          sync: o.cache?.['no-flush'] !== true,
          share: o['force-share'] === true,
        });
        const device = await RawImage.open(file);
        return { device, filename: name, readOnly, file: undefined, backing: undefined, format: device, protocol: file };
      }
      case 'null-co': {
        const size = o.size ?? 2 ** 30;
        const device: BlockDevice = {
          size,
          readOnly,
          read: async (_, into) => void into.fill(0),
          write: async () => {},
          flush: async () => {},
          discard: async () => {},
          writeZeroes: async () => {},
          extent: async (_, length) => ({ kind: 'zero', length }),
          close: async () => {},
        };
        return {
          device,
          filename: 'null-co://',
          readOnly,
          file: undefined,
          backing: undefined,
          format: undefined,
          protocol: undefined,
        };
      }
      case 'raw': {
        if (o.offset !== undefined || o.size !== undefined) throw new QmpError('raw: offset and size are not supported');
        const below = await this.#child(o.file!, readOnly);
        const reads = readOnly || (this.dormant && below.protocol !== undefined);
        await below.protocol?.access(!reads);
        const device = below.protocol ? await RawImage.open(borrowed(below.protocol, reads), { readOnly: reads }) : below.disk;
        const format = device instanceof RawImage ? device : undefined;
        return {
          device,
          filename: below.filename,
          readOnly: reads,
          file: below,
          backing: undefined,
          format,
          protocol: undefined,
        };
      }
      case 'qcow2':
        return this.#qcow2(o, readOnly);
    }
    throw new QmpError(`Unknown driver '${o.driver}'`);
  }
  /** What a node of a protocol is called, and a host that opens it by that name. */
  #protocol(o: NodeOptions): { readonly name: string; readonly host: Pick<DiskHost, 'open'> } {
    const { host } = this.#o;
    if (o.driver === 'http' || o.driver === 'https') return this.#http(o);
    if (o.driver !== 'nbd') return { name: o.filename!, host };
    const { sockets } = host;
    if (!sockets) throw new QmpError('nbd: this host has no sockets');
    const [address, exported] = [addressOf(o.server!), o.export ?? ''];
    const { clock, timers } = this.#o;
    const [delay, openTimeout] = [1000 * (o['reconnect-delay'] ?? 0), 1000 * (o['open-timeout'] ?? 0)];
    const creds = o['tls-creds'];
    if (creds === undefined && o['tls-hostname'] !== undefined) throw new QmpError('tls-hostname without tls-creds');
    const tls = creds === undefined ? undefined : this.#o.tls?.(creds, o['tls-hostname']);
    const open = (how: { readonly readOnly: boolean }) => {
      const once = (): Promise<NbdFile> => NbdFile.open(sockets, address, exported, { readOnly: how.readOnly, tls });
      return delay === 0 && openTimeout === 0
        ? once()
        : ReconnectingFile.open(once, { delay, openTimeout, clock, after: (ms, run) => timers.after(ms, run) });
    };
    return { name: nbdUri(address, exported), host: { open: (_, how) => open(how) } };
  }
  #http(o: NodeOptions): { readonly name: string; readonly host: Pick<DiskHost, 'open'> } {
    const { http: client } = this.#o.host;
    const url = o.url!;
    if (!client) throw new QmpError(`${o.driver}: this host has no web client`);
    if (!url.toLowerCase().startsWith(`${o.driver}://`))
      throw new QmpError(`${o.driver} curl driver cannot handle the URL '${url}' (does not start with '${o.driver}://')`);
    for (const name of ['readahead', 'timeout'] as const)
      if ((o[name] ?? 1) <= 0 || (o[name] ?? 1) > 2 ** 20 * 64)
        throw new QmpError(`Cannot use ${name}=${o[name]}: accepted are 1 to 64 Mi`);
    if (o.cookie !== undefined && o['cookie-secret'] !== undefined)
      throw new QmpError('curl driver cannot handle both cookie and cookie secret');
    const secret = (id: string | undefined): string | undefined => (id === undefined ? undefined : this.#o.secret?.(id));
    const options = {
      url,
      readAhead: o.readahead,
      timeout: o.timeout,
      verify: o.sslverify,
      username: o.username,
      password: secret(o['password-secret']),
      cookie: o.cookie ?? secret(o['cookie-secret']),
    };
    return {
      name: url.replace(/^(https?:\/\/)[^/?#]*@/i, '$1'),
      host: { open: (_, how) => HttpFile.open(client, options, how) },
    };
  }
  async #qcow2(o: NodeOptions, wanted: boolean): Promise<Built> {
    const below = await this.#child(o.file!, wanted);
    const readOnly = wanted || this.dormant;
    if (!below.protocol) throw new QmpError(`qcow2: '${below.name}' is no file`);
    await below.protocol.access(!readOnly);
    const file = borrowed(below.protocol, readOnly);
    let backing: BlockNode | undefined;
    if (o.backing === undefined) {
      const header = await readHeader(file);
      if (header.backing !== undefined) {
        const path = backingPath(this.#o.host, below.filename, header.backing);
        const driver = header.backingFormat ?? 'raw';
        backing = await this.#open(nodeOptions({ driver, 'read-only': true, file: fileOptions(path) }), true, true);
      }
    } else if (typeof o.backing === 'string') backing = this.get(o.backing);
    else if (isObject(o.backing)) backing = await this.#open(nodeOptions(o.backing), true, true);
    // The image sees whatever the node has below it at the time.
    let node: { backing: BlockNode | undefined } | undefined;
    const view: BlockDevice = {
      get size() {
        return node?.backing?.disk.size ?? 0;
      },
      readOnly: true,
      read: (offset, into) => node!.backing!.disk.read(offset, into),
      write: () => Promise.reject(new Error('Cannot write a backing file')),
      flush: async () => {},
      discard: async () => {},
      writeZeroes: () => Promise.reject(new Error('Cannot write a backing file')),
      extent: (offset, length) => node!.backing!.disk.extent(offset, length),
      direct: async (offset, length, gone) => node?.backing?.disk.direct(offset, length, gone),
      close: async () => {},
    };
    const image = await Qcow2Image.open(file, { codec: this.#o.host.codec, readOnly, backing: view });
    const built: Built & { backing: BlockNode | undefined } = {
      device: image,
      filename: below.filename,
      readOnly,
      file: below,
      backing,
      format: image,
      protocol: undefined,
    };
    // `add` copies what is here into the node; the view follows the node by the image.
    this.#views.set(image, (n) => {
      node = n;
    });
    node = built;
    return built;
  }
  readonly #views = new WeakMap<object, (node: BlockNode) => void>();
  async #child(given: Json, readOnly: boolean): Promise<BlockNode> {
    if (typeof given === 'string') return this.get(given);
    return this.#open(nodeOptions(given), true, readOnly);
  }
  #place(node: BlockNode): void {
    if (node.format) this.#views.get(node.format)?.(node);
    this.#keepBitmaps(node);
    node.disk.after.add((offset, length) => {
      for (const bitmap of node.bitmaps.values()) if (bitmap.enabled && !bitmap.inconsistent) bitmap.mark(offset, length);
    });
    if (!node.implicit || node.file) this.newBackend(node.name, node, {});
  }
  /** Opens a format node anew, for writing or for reading only, with the file below it. Rejects where that cannot be. */
  async access(node: BlockNode, writable: boolean, release = false): Promise<void> {
    const { file } = node;
    if (node.readOnly === !writable || !file?.protocol) return;
    const { protocol } = file;
    await node.disk.drained(async () => {
      const view = node.format instanceof Qcow2Image ? node.format.backing : undefined;
      await node.format?.close();
      const open = async (readOnly: boolean): Promise<void> => {
        await protocol.access(!readOnly, release);
        const below = borrowed(protocol, readOnly);
        node.format =
          node.options.driver === 'qcow2'
            ? await Qcow2Image.open(below, { codec: this.#o.host.codec, readOnly, backing: view })
            : await RawImage.open(below, { readOnly });
        this.#keepBitmaps(node);
        node.disk.below = node.format;
        node.readOnly = readOnly;
      };
      try {
        await open(!writable);
      } catch (error) {
        await open(writable);
        throw new QmpError(error instanceof Error ? error.message : String(error));
      }
    });
  }
  /** Opens a node anew with other options: what can change is `read-only`. @throws QmpError (rejects) */
  async reopen(given: Json): Promise<void> {
    const o = nodeOptions(given);
    const name = o['node-name'];
    if (name === undefined) throw new QmpError('node-name not specified');
    const node = this.find(name);
    if (!node) throw new QmpError(`Failed to find node with node-name='${name}'`);
    const fixed = (option: string): never => {
      throw new QmpError(`Cannot change the option '${option}'`);
    };
    if (o.driver !== node.options.driver) fixed('driver');
    if (typeof o.file === 'string' && o.file !== node.file?.name) fixed('file');
    if (o.backing !== undefined && (o.backing === null ? undefined : o.backing) !== node.backing?.name) fixed('backing');
    const readOnly = o['read-only'] === true;
    if (readOnly === node.readOnly) return;
    if (!node.file?.protocol) return fixed('read-only');
    await this.access(node, !readOnly);
  }
  /** Names another backing file in an image's header. */
  async rename(node: BlockNode, name: string | undefined, format: string | undefined): Promise<void> {
    const before = node.readOnly;
    await this.access(node, true);
    const { format: image } = node;
    if (image instanceof Qcow2Image) await image.setBacking(name, format, image.backing);
    if (before) await this.access(node, false);
  }
  /** Who holds a node: nodes above it, places, jobs. */
  users(node: BlockNode): string[] {
    return [
      ...this.list()
        .filter((n) => n.file === node || n.backing === node)
        .map((n) => n.name),
      ...this.backends.filter((b) => b.node === node && b.user !== undefined).map((b) => b.user!),
      ...((this.holders.get(node) ?? 0) > 0 ? ['a block job'] : []),
    ];
  }
  /** Closes a node and those that were made with it. @throws QmpError (rejects) while it is in use */
  async remove(name: string): Promise<void> {
    const node = this.#nodes.get(name);
    if (!node) throw new QmpError(`Failed to find node with node-name='${name}'`);
    if (this.users(node).length > 0) throw new QmpError(`Node '${name}' is busy: node is used as ${this.users(node)[0]}`);
    await this.#close(node);
  }
  async #close(node: BlockNode): Promise<void> {
    this.#nodes.delete(node.name);
    for (const b of this.backends.filter((x) => x.node === node)) this.#dropBackend(b);
    if (node.protocol) {
      await node.protocol.close();
      if (!this.list().some((n) => n.protocol && n.filename === node.filename)) this.#o.host.forget?.(node.filename);
    } else await node.format?.close();
    const children = [node.file, node.backing];
    node.backing = undefined;
    for (const child of children) {
      if (!child) continue;
      if (child.implicit && this.users(child).length === 0) await this.#close(child);
      else if (child.protocol && this.users(child).length === 0) await child.protocol.access(false).catch(() => {});
    }
  }
  /** Everything that was written is on stable storage, and images have nothing left to write. Rejects with the first disk's error. */
  async flushAll(): Promise<void> {
    await Promise.all(
      this.list().map((n) =>
        n.format instanceof Qcow2Image ? n.disk.drained(() => (n.format as Qcow2Image).settle()) : n.disk.flush(),
      ),
    );
  }
  async closeAll(): Promise<void> {
    for (const node of this.list()) if (!node.protocol) await node.format?.close().catch(() => {});
    for (const node of this.list()) await node.protocol?.close().catch(() => {});
  }

  /** A name that no node has. */
  freshName(): string {
    let name: string;
    do name = `auto${this.#serial++}`;
    while (this.#nodes.has(name));
    return name;
  }
  /** Opens a file with its format, which is probed when it is not given. What a web server has is read-only, asked for or not. */
  async addFile(
    file: { readonly [name: string]: Json },
    format: string | undefined,
    readOnly: boolean,
    more: { readonly [name: string]: Json } = {},
  ): Promise<BlockNode> {
    let driver = format;
    readOnly ||= file['driver'] === 'http' || file['driver'] === 'https';
    if (driver === undefined) {
      const { name, host } = this.#protocol(nodeOptions(file));
      const probed = await host.open(name, { readOnly: true, share: true });
      try {
        driver = await probe(probed);
      } finally {
        await probed.close();
      }
    }
    return this.#open(
      nodeOptions({ driver, 'read-only': readOnly, file: { ...file, 'read-only': readOnly }, ...more }),
      true,
      readOnly,
    );
  }

  /** A node whose changes are lost with it, over a file that stays as it is: `#snapshot-ID`. */
  async addTemporary(file: { readonly [name: string]: Json }, format: string | undefined, id: string): Promise<BlockNode> {
    const base = await this.addFile(file, format, true);
    const name = `#snapshot-${id}`;
    const device = await openOverlay(base.disk, this.#o.host.codec, this.#o.host.temporary);
    const threshold = this.#thresholdOf(name);
    const node: BlockNode = {
      name,
      options: { driver: 'qcow2' },
      implicit: true,
      filename: base.filename,
      readOnly: false,
      disk: new NodeDisk(device, threshold),
      file: undefined,
      backing: base,
      format: device,
      protocol: undefined,
      bitmaps: new Map(),
      threshold,
    };
    this.#nodes.set(name, node);
    this.#place(node);
    return node;
  }

  // -- places

  /** Limits of a place, with those that share its group. */
  setLimits(backend: Backend, limits: Limits): void {
    const { timers, clock } = this.#o;
    const { group } = limits;
    const sharing = group === '' ? undefined : this.backends.find((b) => b !== backend && b.throttle.limits.group === group);
    if (sharing) backend.throttle = sharing.throttle;
    else if (this.backends.some((b) => b !== backend && b.throttle === backend.throttle))
      backend.throttle = new Throttle(timers, clock);
    backend.throttle.set(limits);
    for (const b of this.backends) if (b.throttle === backend.throttle) b.leases.takeBack();
  }
  newBackend(name: string, node: BlockNode | undefined, o: Partial<BackendOptions>): Backend {
    const backend = new Backend({
      id: '',
      node,
      readOnly: node?.readOnly ?? false,
      writeThrough: false,
      discard: node?.options.discard === 'unmap' || node?.file?.options.discard === 'unmap',
      detectZeroes: node?.options['detect-zeroes'] ?? 'off',
      timers: this.#o.timers,
      clock: this.#o.clock,
      ...o,
    });
    this.backends.push(backend);
    this.#o.drives.remove(name);
    this.#o.drives.add(name, backend);
    return backend;
  }
  #dropBackend(backend: Backend): void {
    this.backends.splice(this.backends.indexOf(backend), 1);
    for (const [name, drive] of this.#o.drives.entries()) if (drive === backend) this.#o.drives.remove(name);
  }
  /** Puts `to` where `from` was: below nodes (but those in `except`), and before devices. */
  replace(from: BlockNode, to: BlockNode, except: readonly BlockNode[] = []): void {
    for (const n of this.list()) if (n.backing === from && n !== to && !except.includes(n)) n.backing = to;
    for (const b of this.backends.filter((x) => x.node === from && x.user !== undefined)) {
      b.put(to, b.device?.size !== to.disk.size);
      // Who names the node that a device holds means that device's place; the other node gets a free one.
      const free = this.backends.find((x) => x !== b && x.node === to && x.user === undefined);
      if (free) this.#dropBackend(free);
      this.#o.drives.remove(to.name);
      this.#o.drives.add(to.name, b);
      this.#o.drives.remove(from.name);
      this.newBackend(from.name, from, {});
    }
  }
  /** A place by the id of a `-drive`, or by the device that has it: its id, its path, or a path below. @throws QmpError */
  backend(name: string): Backend {
    const found = this.backends.find(
      (b) =>
        (b.id !== '' && b.id === name) ||
        (b.user !== undefined && (b.user === name || b.user === `/machine/peripheral/${name}` || name.startsWith(`${b.user}/`))),
    );
    if (!found) throw new QmpError(`Device '${name}' not found`, 'DeviceNotFound');
    return found;
  }
  /** A node by its name, or the one in the place of that name. @throws QmpError */
  nodeOf(name: string): BlockNode {
    const node = this.find(name);
    if (node) return node;
    const found = this.backends.find((b) => b.id === name)?.node;
    if (!found) throw new QmpError(`Cannot find device='${name}' nor node-name='${name}'`);
    return found;
  }
  /** The node and those below it, top first. */
  chain(node: BlockNode): BlockNode[] {
    return [node, ...(node.backing ? this.chain(node.backing) : [])];
  }
}
