// What a disk device of the guest is connected to: a place for a node, with counts of its requests and limits of their rate.
// QEMU 7.2 "QEMU QMP Reference Manual", query-blockstats, block_set_io_throttle.

import { type BlockDevice, piecesLength, readPieces, writePieces } from '../../disk/block.ts';
import { Leases } from '../../disk/direct.ts';
import type { Drive } from '../../machine/backends.ts';
import type { Timers } from '../../rpc/transport.ts';
import type { BlockNode } from './node.ts';
import { Throttle } from './throttle.ts';

export interface Counts {
  operations: number;
  bytes: number;
  ns: number;
  failed: number;
}
const counts = (): Counts => ({ operations: 0, bytes: 0, ns: 0, failed: 0 });

export interface BackendOptions {
  readonly id: string;
  readonly node: BlockNode | undefined;
  readonly readOnly: boolean;
  /** As `-drive media=cdrom` has it: `usb-storage` is a CD-ROM then. */
  readonly cdrom?: boolean;
  readonly writeThrough: boolean;
  readonly discard: boolean;
  readonly detectZeroes: 'off' | 'on' | 'unmap';
  readonly serial?: string | undefined;
  readonly onReadError?: 'report' | 'stop' | 'ignore' | undefined;
  readonly onWriteError?: 'report' | 'stop' | 'ignore' | 'enospc' | undefined;
  readonly timers: Timers;
  /** Milliseconds, monotonic. */
  readonly clock: () => number;
}

export class Backend implements Drive {
  readonly id: string;
  readOnly: boolean;
  readonly cdrom: boolean;
  readonly writeThrough: boolean;
  readonly discard: boolean;
  readonly detectZeroes: 'off' | 'on' | 'unmap';
  readonly serial?: string;
  readonly onReadError?: 'report' | 'stop' | 'ignore';
  readonly onWriteError?: 'report' | 'stop' | 'ignore' | 'enospc';
  readonly stats = { rd: counts(), wr: counts(), flush: counts(), unmap: counts(), highest: 0 };
  user?: string;
  changed?: () => void;
  settle?: () => void;
  readonly leases = new Leases();
  device: BlockDevice | undefined;
  trayOpen = false;
  /** The device has a tray, or is behind a virtio function: set with the device. */
  removable = false;
  virtio = false;
  /** Its own, or that of a group of places. */
  throttle: Throttle;
  readonly #clock: () => number;
  #node: BlockNode | undefined;

  constructor(o: BackendOptions) {
    this.id = o.id;
    this.readOnly = o.readOnly;
    this.cdrom = o.cdrom ?? false;
    this.writeThrough = o.writeThrough;
    this.discard = o.discard;
    this.detectZeroes = o.detectZeroes;
    if (o.serial !== undefined) this.serial = o.serial;
    if (o.onReadError !== undefined) this.onReadError = o.onReadError;
    if (o.onWriteError !== undefined) this.onWriteError = o.onWriteError;
    this.#clock = o.clock;
    this.throttle = new Throttle(o.timers, o.clock);
    this.#node = o.node;
    this.device = o.node ? this.#counted(o.node) : undefined;
  }
  get node(): BlockNode | undefined {
    return this.#node;
  }
  get nodeName(): string {
    return this.#node?.name ?? '';
  }
  /** Puts another node here, or takes the medium out; the device of the guest hears of it when `tell` is set. */
  put(node: BlockNode | undefined, tell = true): void {
    this.leases.takeBack();
    this.#node = node;
    this.device = node ? this.#counted(node) : undefined;
    if (tell) this.changed?.();
  }
  /** Reads that the device has carried out itself, by `direct`. */
  countReads(operations: number, bytes: number, ns: number): void {
    const { rd } = this.stats;
    rd.operations += operations;
    rd.bytes += bytes;
    rd.ns += ns;
  }
  #counted(node: BlockNode): BlockDevice {
    const { disk } = node;
    const { stats } = this;
    const run = async (
      into: Counts,
      kind: 'read' | 'write' | undefined,
      bytes: number,
      action: () => Promise<void>,
    ): Promise<void> => {
      if (kind) await this.throttle.wait(kind, bytes);
      const start = this.#clock();
      try {
        await action();
        into.operations++;
        into.bytes += bytes;
      } catch (error) {
        into.failed++;
        throw error;
      } finally {
        into.ns += Math.round((this.#clock() - start) * 1e6);
      }
    };
    const high = (end: number): void => {
      stats.highest = Math.max(stats.highest, end);
    };
    return {
      get size() {
        return disk.size;
      },
      readOnly: disk.readOnly,
      read: (offset, into) => run(stats.rd, 'read', into.length, () => disk.read(offset, into)),
      write: (offset, from) => {
        high(offset + from.length);
        return run(stats.wr, 'write', from.length, () => disk.write(offset, from));
      },
      readPieces: (offset, into) => run(stats.rd, 'read', piecesLength(into), () => readPieces(disk, offset, into)),
      writePieces: (offset, from) => {
        const length = piecesLength(from);
        high(offset + length);
        return run(stats.wr, 'write', length, () => writePieces(disk, offset, from));
      },
      flush: () => run(stats.flush, undefined, 0, () => disk.flush()),
      discard: (offset, length) => run(stats.unmap, undefined, length, () => disk.discard(offset, length)),
      writeZeroes: (offset, length) => {
        high(offset + length);
        return run(stats.wr, 'write', length, () => disk.writeZeroes(offset, length));
      },
      extent: (offset, length) => disk.extent(offset, length),
      direct: async (offset, length, gone) => {
        if (this.throttle.on) return undefined;
        this.leases.add(gone);
        return disk.direct(offset, length, gone);
      },
      close: async () => {},
    };
  }
}
