// The emulator's NBD server and what it exports. QEMU 7.2 "QEMU QMP Reference Manual", qapi/block-export.json.

import type { NbdAddress, NbdStream, NbdTls } from '../../disk/nbd/protocol.ts';
import { type NbdExport, serveNbd } from '../../disk/nbd/server.ts';
import { QmpError } from '../../rpc/qmp/error.ts';
import type { Bitmap } from './bitmap.ts';
import type { BlockGraph } from './graph.ts';
import type { BlockNode } from './node.ts';

interface Export extends NbdExport {
  readonly id: string;
  readonly node: BlockNode;
  readonly bitmaps: readonly Bitmap[];
  readonly clients: Set<NbdStream>;
}
/** A bitmap of a node, or of one below the exported one. */
export type BitmapName = string | { readonly node: string; readonly name: string };

export class Exports {
  readonly #graph: BlockGraph;
  readonly #deleted: (id: string) => void;
  readonly #list: Export[] = [];
  readonly #clients = new Set<NbdStream>();
  #stop: (() => void) | undefined;

  constructor(graph: BlockGraph, deleted: (id: string) => void) {
    this.#graph = graph;
    this.#deleted = deleted;
  }
  list(): readonly Export[] {
    return this.#list;
  }
  /** Listens; at most `most` clients at once, 0 for any number. @throws QmpError (rejects) */
  async start(at: NbdAddress, most: number, tls?: NbdTls): Promise<void> {
    if (this.#stop) throw new QmpError('NBD server already running');
    const { sockets } = this.#graph.host;
    if (!sockets) throw new QmpError('This host has no sockets');
    const { secure: secured } = sockets;
    if (tls && !secured) throw new QmpError('This host has no TLS');
    this.#stop = () => {};
    try {
      this.#stop = await sockets.listen(at, (stream) => {
        if (most > 0 && this.#clients.size >= most) return stream.close();
        this.#clients.add(stream);
        const gone = (one: NbdStream): void => {
          this.#clients.delete(one);
          for (const e of this.#list) e.clients.delete(one);
        };
        // Under TLS the connection is another stream.
        let now = stream;
        const secure = async (plain: NbdStream): Promise<NbdStream> => {
          now = await secured!(plain, 'server', tls!);
          if (!this.#clients.has(plain)) now.close();
          gone(plain);
          this.#clients.add(now);
          return now;
        };
        const chosen = (e: NbdExport): void => void (e as Export).clients.add(now);
        void serveNbd(stream, () => this.#list, chosen, tls && secure).then(() => gone(now));
      });
    } catch (error) {
      this.#stop = undefined;
      throw new QmpError(`Cannot listen: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  /** Ends the server with its exports and clients. @throws QmpError */
  stop(): void {
    if (!this.#stop) throw new QmpError('NBD server not running');
    this.#stop();
    this.#stop = undefined;
    for (const e of [...this.#list]) this.#drop(e);
    for (const stream of this.#clients) stream.close();
  }
  /** @throws QmpError (rejects) */
  async add(o: {
    readonly id: string;
    readonly node: BlockNode;
    readonly name: string;
    readonly description: string;
    readonly writable: boolean;
    readonly bitmaps?: readonly BitmapName[] | undefined;
  }): Promise<void> {
    if (!this.#stop) throw new QmpError('NBD server not running');
    if (this.#list.some((e) => e.id === o.id)) throw new QmpError(`Block export id '${o.id}' is already in use`);
    if (this.#list.some((e) => e.name === o.name)) throw new QmpError(`NBD server already has export named '${o.name}'`);
    const { node } = o;
    if (o.writable) {
      // Disks that come along with a guest are written before it has come.
      await this.#graph.wake(node);
      if (node.protocol) await node.protocol.access(true);
      if (node.readOnly) throw new QmpError(`Block node '${node.name}' is read-only`);
    }
    const bitmaps = (o.bitmaps ?? []).map((b) => this.#bitmap(node, b, o.writable));
    const { holders } = this.#graph;
    holders.set(node, (holders.get(node) ?? 0) + 1);
    for (const b of bitmaps) b.busy = true;
    this.#list.push({ ...o, bitmaps, disk: node.disk, clients: new Set() });
  }
  #bitmap(node: BlockNode, wanted: BitmapName, writable: boolean): Bitmap {
    const [nodes, name] =
      typeof wanted === 'string' ? [this.#graph.chain(node), wanted] : [[this.#graph.nodeOf(wanted.node)], wanted.name];
    const found = nodes.map((n) => n.bitmaps.get(name)).find((b) => b !== undefined);
    if (!found) throw new QmpError(`Bitmap '${name}' is not found`);
    if (found.busy) throw new QmpError(`Bitmap '${name}' is currently in use by another operation and cannot be used`);
    if (found.inconsistent) throw new QmpError(`Bitmap '${name}' is inconsistent and cannot be used`);
    if (!writable && !node.readOnly && node.bitmaps.get(name) === found && found.enabled)
      throw new QmpError(`Enabled bitmap '${name}' incompatible with readonly export`);
    return found;
  }
  /** Ends an export; with clients only where `hard` is set. @throws QmpError */
  remove(id: string, hard: boolean): void {
    const found = this.#list.find((e) => e.id === id);
    if (!found) throw new QmpError(`Export '${id}' is not found`, 'GenericError');
    if (!hard && found.clients.size > 0) throw new QmpError(`export '${id}' still in use`);
    this.#drop(found);
  }
  #drop(e: Export): void {
    this.#list.splice(this.#list.indexOf(e), 1);
    for (const stream of e.clients) stream.close();
    for (const b of e.bitmaps) b.busy = false;
    const { holders } = this.#graph;
    holders.set(e.node, (holders.get(e.node) ?? 1) - 1);
    this.#deleted(e.id);
  }
}
