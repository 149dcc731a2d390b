// A node of the block graph: a file of the host, or an image format over one, with what has to hear of its writes.
// QEMU 7.2 "QEMU QMP Reference Manual", qapi/block-core.json.

import { type BlockDevice, type ByteFile, type Extent, piecesLength, readPieces, writePieces } from '../../disk/block.ts';
import { type DirectExtent, Leases } from '../../disk/direct.ts';
import type { DiskHost } from '../../disk/open.ts';
import type { Qcow2Image } from '../../disk/qcow2/image.ts';
import type { RawImage } from '../../disk/raw.ts';
import type { Bitmap } from './bitmap.ts';
import type { NodeOptions } from './options.ts';

export interface BlockNode {
  readonly name: string;
  readonly options: NodeOptions;
  /** Made with another node, not by a monitor, and closed with it. */
  readonly implicit: boolean;
  /** A path where there is one. */
  readonly filename: string;
  readOnly: boolean;
  readonly disk: NodeDisk;
  /** The node below, for formats. */
  readonly file: BlockNode | undefined;
  /** What unallocated clusters read as. */
  backing: BlockNode | undefined;
  format: Qcow2Image | RawImage | undefined;
  /** The host's file, for nodes of protocols. */
  readonly protocol: SharedFile | undefined;
  readonly bitmaps: Map<string, Bitmap>;
  readonly threshold: WriteThreshold;
}

/** A place in a node beyond which a write is told, once: storage that grows on demand is made larger in time. */
export class WriteThreshold {
  /** Bytes from the start; 0 for none. */
  at = 0;
  readonly #tell: (exceeded: number, threshold: number) => void;

  constructor(tell: (exceeded: number, threshold: number) => void) {
    this.#tell = tell;
  }
  /** A write ends there. */
  written(end: number): void {
    const { at } = this;
    if (at === 0 || end <= at) return;
    this.at = 0;
    this.#tell(end - at, at);
  }
}

type Range = (offset: number, length: number) => Promise<void> | void;

/** A node's disk: carries out requests, and tells those who follow its writes. */
export class NodeDisk implements BlockDevice {
  /** Waited for before a range changes: backups copy what was there. */
  readonly before = new Set<Range>();
  /** Told after a range has changed: dirty bitmaps, mirrors. */
  readonly after = new Set<Range>();
  /** The disk without its followers; changes when the node is opened anew. */
  below: BlockDevice;
  /** Requests under way, and whether new ones wait, and for whom. */
  #active = 0;
  #gate: Promise<NodeDisk> | undefined;
  #idle: (() => void)[] = [];

  readonly #threshold: WriteThreshold;
  readonly #leases = new Leases();

  constructor(below: BlockDevice, threshold: WriteThreshold) {
    this.below = below;
    this.#threshold = threshold;
  }
  get size(): number {
    return this.below.size;
  }
  /** Another process has the image: it is opened for reading until that one gives it up. A guest is told that it may write. */
  dormant = false;
  get readOnly(): boolean {
    return this.below.readOnly && !this.dormant;
  }
  /**
   * Runs `action` while no request is under way; those that come meanwhile wait, and are then carried out by the disk that it
   * returns, if any: the one that takes this one's place.
   */
  // biome-ignore lint/suspicious/noConfusingVoidType: most actions give nothing
  async drained(action: () => Promise<NodeDisk | void>): Promise<void> {
    while (this.#gate) await this.#gate;
    const gate = Promise.withResolvers<NodeDisk>();
    this.#gate = gate.promise;
    this.#leases.takeBack();
    let next: NodeDisk = this;
    try {
      if (this.#active > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
      next = (await action()) ?? this;
    } finally {
      this.#gate = undefined;
      gate.resolve(next);
    }
  }
  async #do<T>(action: (d: NodeDisk) => Promise<T>): Promise<T> {
    while (this.#gate) {
      const next = await this.#gate;
      if (next !== this) return next.#do(action);
    }
    this.#active++;
    try {
      return await action(this);
    } finally {
      if (--this.#active === 0) {
        const idle = this.#idle;
        this.#idle = [];
        for (const wake of idle) wake();
      }
    }
  }
  read(offset: number, into: Uint8Array): Promise<void> {
    return this.#do((d) => d.below.read(offset, into));
  }
  write(offset: number, from: Uint8Array): Promise<void> {
    this.#threshold.written(offset + from.length);
    return this.#change(offset, from.length, (d) => d.write(offset, from));
  }
  readPieces(offset: number, into: readonly Uint8Array[]): Promise<void> {
    return this.#do((d) => readPieces(d.below, offset, into));
  }
  writePieces(offset: number, from: readonly Uint8Array[]): Promise<void> {
    const length = piecesLength(from);
    this.#threshold.written(offset + length);
    return this.#change(offset, length, (d) => writePieces(d, offset, from));
  }
  discard(offset: number, length: number): Promise<void> {
    return this.#change(offset, length, (d) => d.discard(offset, length));
  }
  writeZeroes(offset: number, length: number): Promise<void> {
    this.#threshold.written(offset + length);
    return this.#change(offset, length, (d) => d.writeZeroes(offset, length));
  }
  #change(offset: number, length: number, action: (d: BlockDevice) => Promise<void>): Promise<void> {
    return this.#do(async (d) => {
      for (const hear of d.before) await hear(offset, length);
      try {
        await action(d.below);
      } finally {
        for (const hear of d.after) void hear(offset, length);
      }
    });
  }
  flush(): Promise<void> {
    return this.#do((d) => (d.readOnly ? Promise.resolve() : d.below.flush()));
  }
  extent(offset: number, length: number): Promise<Extent> {
    return this.below.extent(offset, length);
  }
  async direct(offset: number, length: number, gone: () => void): Promise<DirectExtent | undefined> {
    if (this.#gate || !this.below.direct) return undefined;
    this.#leases.add(gone);
    return this.below.direct(offset, length, gone);
  }
  /** Nodes are closed by the graph. */
  async close(): Promise<void> {}
}

/** A file that is open for reading until somebody needs to write: QEMU's `auto-read-only`. */
export class SharedFile implements ByteFile {
  readonly name: string;
  readonly #host: Pick<DiskHost, 'open'>;
  readonly #o: { readonly readOnly: boolean; readonly auto: boolean; readonly sync: boolean; readonly share: boolean };
  #file: ByteFile;

  private constructor(name: string, host: Pick<DiskHost, 'open'>, o: SharedFile['options'], file: ByteFile) {
    this.name = name;
    this.#host = host;
    this.#o = o;
    this.#file = file;
  }
  get options() {
    return this.#o;
  }
  static async open(
    name: string,
    host: Pick<DiskHost, 'open'>,
    o: { readonly readOnly: boolean; readonly auto: boolean; readonly sync: boolean; readonly share: boolean },
  ): Promise<SharedFile> {
    const readOnly = o.readOnly || o.auto;
    return new SharedFile(name, host, o, await host.open(name, { readOnly, sync: o.sync, share: o.share || readOnly }));
  }
  get readOnly(): boolean {
    return this.#file.readOnly;
  }
  /** Opens it anew for writing, or back for reading: only where that is said, or to `release` it to another process. Rejects where that cannot be. */
  async access(writable: boolean, release = false): Promise<void> {
    if (this.#file.readOnly !== writable) return;
    if (writable && this.#o.readOnly) throw new Error(`Cannot write ${this.name}: its node is read-only`);
    if (!writable && !this.#o.auto && !release) return;
    // Image locks of the two descriptors would exclude each other.
    await this.#file.close();
    const open = (readOnly: boolean): Promise<ByteFile> =>
      this.#host.open(this.name, { readOnly, sync: this.#o.sync, share: this.#o.share || readOnly });
    try {
      this.#file = await open(!writable);
    } catch (error) {
      this.#file = await open(writable);
      throw error;
    }
  }
  /** What formats write here. */
  threshold: WriteThreshold | undefined;
  size(): Promise<number> {
    return this.#file.size();
  }
  allocated(): Promise<number | undefined> {
    return this.#file.allocated();
  }
  read(offset: number, into: Uint8Array): Promise<void> {
    return this.#file.read(offset, into);
  }
  write(offset: number, from: Uint8Array): Promise<void> {
    this.threshold?.written(offset + from.length);
    return this.#file.write(offset, from);
  }
  async readPieces(offset: number, into: readonly Uint8Array[]): Promise<void> {
    if (this.#file.readPieces) return this.#file.readPieces(offset, into);
    for (const piece of into) {
      await this.#file.read(offset, piece);
      offset += piece.length;
    }
  }
  async writePieces(offset: number, from: readonly Uint8Array[]): Promise<void> {
    this.threshold?.written(offset + piecesLength(from));
    if (this.#file.writePieces) return this.#file.writePieces(offset, from);
    for (const piece of from) {
      await this.#file.write(offset, piece);
      offset += piece.length;
    }
  }
  flush(): Promise<void> {
    return this.#file.flush();
  }
  truncate(size: number): Promise<void> {
    return this.#file.truncate(size);
  }
  /** Ranges that were given back to the host, or could not be. */
  readonly discards = { ok: 0, failed: 0, bytes: 0 };
  async punch(offset: number, length: number): Promise<boolean> {
    const done = await this.#file.punch(offset, length);
    if (done) {
      this.discards.ok++;
      this.discards.bytes += length;
    } else this.discards.failed++;
    return done;
  }
  nextData(offset: number): Promise<number> {
    return this.#file.nextData(offset);
  }
  async nextHole(offset: number, end: number): Promise<number> {
    return (await this.#file.nextHole?.(offset, end)) ?? end;
  }
  direct(gone: () => void): number | undefined {
    return this.#file.direct?.(gone);
  }
  close(): Promise<void> {
    return this.#file.close();
  }
}

/** A format's view of the file below: closing it leaves the node open. */
export const borrowed = (file: ByteFile, readOnly: boolean): ByteFile => ({
  name: file.name,
  readOnly,
  size: () => file.size(),
  allocated: () => file.allocated(),
  read: (offset, into) => file.read(offset, into),
  write: (offset, from) => file.write(offset, from),
  ...(file.readPieces ? { readPieces: (offset, into) => file.readPieces!(offset, into) } : {}),
  ...(file.writePieces ? { writePieces: (offset, from) => file.writePieces!(offset, from) } : {}),
  flush: () => file.flush(),
  truncate: (size) => file.truncate(size),
  punch: (offset, length) => file.punch(offset, length),
  nextData: (offset) => file.nextData(offset),
  nextHole: async (offset, end) => (await file.nextHole?.(offset, end)) ?? end,
  direct: (gone) => file.direct?.(gone),
  close: async () => {},
});
