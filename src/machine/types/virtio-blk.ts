// `virtio-blk-pci`: a disk for the guest over a drive.

import { hasPlace } from '../../devices/direct.ts';
import {
  BLK_HEADER,
  type BlkOptions,
  type BlkRequest,
  type BlkState,
  BlkStatus,
  blkLayout,
  blkModel,
  blkRequest,
} from '../../devices/virtio/blk.ts';
import type { Chain } from '../../devices/virtio/chain.ts';
import type { VirtioCore } from '../../devices/virtio/core.ts';
import { isZero, readPieces, writePieces } from '../../disk/block.ts';
import type { Drive } from '../backends.ts';
import type { IoServices, IoSide } from '../device-type.ts';
import { AT_ONCE_BYTES, DirectPlaces, DirectReader } from '../direct-reads.ts';
import { takeDrive } from '../drives.ts';
import { bool, choice, int32, named, onOffAuto, size, str, uint16, uint32 } from '../properties.ts';
import { virtioTypes } from './virtio.ts';

const AUTO_QUEUES = 0xffff;

export const virtioBlk = virtioTypes({
  name: 'virtio-blk',
  category: 'Storage',
  description: 'a disk',
  classCode: 0x01_0000,
  vectors: (model) => model.queues.length + 1,
  legacy: true,
  properties: {
    drive: named('drive', 'Node name or ID of a block device to use as a backend'),
    serial: str(),
    bootindex: int32(-1),
    'num-queues': uint16(AUTO_QUEUES, 'request queues; one for each vCPU when not given'),
    'queue-size': uint16(256),
    'seg-max-adjust': bool(true),
    logical_block_size: size(512),
    physical_block_size: size(512),
    min_io_size: size(0),
    opt_io_size: size(0),
    discard_granularity: size(0xffff_ffff),
    'config-wce': bool(true),
    'write-cache': onOffAuto('auto'),
    'share-rw': bool(false),
    discard: bool(true),
    'write-zeroes': bool(true),
    'max-discard-sectors': uint32(0x3f_ffff),
    'max-write-zeroes-sectors': uint32(0x3f_ffff),
    'request-merging': bool(true),
    'report-discard-granularity': bool(true),
    rerror: choice(['auto', 'report', 'ignore', 'stop'], 'auto', 'BlockdevOnError'),
    werror: choice(['auto', 'report', 'ignore', 'stop', 'enospc'], 'auto', 'BlockdevOnError'),
    iothread: named('iothread', 'accepted; all disks are served without stopping vCPUs'),
  },
  parts(ctx, p) {
    const queues = p['num-queues'] === AUTO_QUEUES ? ctx.cpus : p['num-queues'];
    if (queues < 1 || queues > 1024) throw new Error(`Cannot make ${queues} queues: num-queues accepts 1 to 1024`);
    const queueSize = p['queue-size'];
    if (queueSize < 4 || queueSize > 1024 || (queueSize & (queueSize - 1)) !== 0)
      throw new Error(`Cannot use queue-size=${queueSize}: accepted are powers of two from 4 to 1024`);
    const blockSize = p.logical_block_size;
    for (const n of [blockSize, p.physical_block_size])
      if (n < 512 || n > 2 ** 21 || 2 ** Math.round(Math.log2(n)) !== n)
        throw new Error(`Cannot use a block size of ${n} bytes: accepted are powers of two from 512 to 2M`);
    const options: BlkOptions = {
      queues,
      queueSize,
      blockSize,
      physicalBlockSize: p.physical_block_size,
      minIo: p.min_io_size,
      optIo: p.opt_io_size,
      discard: p.discard,
      writeZeroes: p['write-zeroes'],
      configWce: p['config-wce'],
      writeCache: p['write-cache'] !== 'off',
      maxDiscardSectors: p['max-discard-sectors'],
      maxWriteZeroesSectors: p['max-write-zeroes-sectors'],
    };
    const s = ctx.arena.alloc(blkLayout, ctx.name);
    const direct = new DirectReader(ctx);
    const readAtOnce = (chain: Chain): number => {
      if (chain.in.length > AT_ONCE_BYTES + 1) return -1;
      const request = blkRequest(chain, s, options);
      if (request?.kind !== 'read' || request.length === 0) return -1;
      const { offset, length } = request;
      if (!direct.read(offset, length, () => chain.in.range(0, length))) return -1;
      chain.in.written(0, length);
      chain.in.write(length, Uint8Array.of(BlkStatus.ok));
      return length + 1;
    };
    return {
      model: blkModel(s, options, { atOnce: direct.able ? readAtOnce : undefined, servesAtOnce: () => hasPlace(direct.state) }),
      bootNode: 'scsi/disk@0,0',
      io(core, services) {
        if (p.drive === undefined) throw new Error('drive property not set');
        const drive = takeDrive(services.backends, p.drive, ctx.path);
        const places = new DirectPlaces(direct.state, core.lock, drive, () => core.atOnceChanged());
        return new BlkIo(core, s, places, options, drive, services, {
          serial: p.serial ?? drive.serial ?? '',
          onRead: p.rerror === 'auto' ? (drive.onReadError ?? 'report') : p.rerror,
          onWrite: p.werror === 'auto' ? (drive.onWriteError ?? 'enospc') : p.werror,
        });
      },
    };
  },
});

interface Policy {
  readonly serial: string;
  readonly onRead: 'report' | 'ignore' | 'stop';
  readonly onWrite: 'report' | 'ignore' | 'stop' | 'enospc';
}

/** The I/O side: carries requests to the drive. */
class BlkIo implements IoSide {
  readonly #core: VirtioCore;
  readonly #s: BlkState;
  readonly #places: DirectPlaces;
  readonly #o: BlkOptions;
  readonly #drive: Drive;
  readonly #services: IoServices;
  readonly #policy: Policy;
  /** Requests that failed while errors stop the machine: tried again when it goes on. */
  #held: { readonly again: () => void; readonly drop: () => void }[] = [];
  #active = 0;
  #idle: (() => void)[] = [];

  constructor(
    core: VirtioCore,
    s: BlkState,
    places: DirectPlaces,
    o: BlkOptions,
    drive: Drive,
    services: IoServices,
    policy: Policy,
  ) {
    this.#core = core;
    this.#s = s;
    this.#places = places;
    this.#o = o;
    this.#drive = drive;
    this.#services = services;
    this.#policy = policy;
    this.#look();
    drive.changed = () => {
      this.#look();
      core.lock.run(() => core.configChanged());
    };
    for (let n = 0; n < o.queues; n++) core.serve(n, () => this.#work(n));
  }
  #look(): void {
    this.#s.sectors = Math.floor((this.#drive.device?.size ?? 0) / 512);
    this.#s.readOnly = this.#drive.readOnly ? 1 : 0;
  }

  async drain(): Promise<void> {
    if (this.#active > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }
  resumed(): void {
    const held = this.#held;
    this.#held = [];
    for (const { again } of held) again();
  }
  reset(): void {
    // The guest has forgotten them: they are not carried out any more, and nothing is written into its memory.
    const held = this.#held;
    this.#held = [];
    for (const { drop } of held) drop();
  }
  async close(): Promise<void> {
    await this.drain();
    this.#places.close();
    this.#drive.user = undefined;
    this.#drive.changed = undefined;
  }

  #work(n: number): void {
    for (;;) {
      const chains = this.#core.take(n);
      for (const chain of chains) this.#begin(n, chain);
      if (chains.length === 0) return;
    }
  }
  #begin(n: number, chain: Chain): void {
    const request = blkRequest(chain, this.#s, this.#o);
    if (!request) {
      this.#core.give(n, [[chain, 0]]);
      this.#core.fail(n, 'a request without a header or a status');
      return;
    }
    this.#try(n, chain, request);
  }
  #try(n: number, chain: Chain, request: BlkRequest): void {
    this.#active++;
    this.#carry(chain, request).then(
      (written) => this.#done(n, chain, written, BlkStatus.ok),
      (error: unknown) => this.#failed(n, chain, request, error),
    );
  }
  #done(n: number, chain: Chain, written: number, status: number): void {
    chain.in.write(chain.in.length - 1, Uint8Array.of(status));
    this.#core.give(n, [[chain, written + 1]]);
    this.#rest();
  }
  #rest(): void {
    if (--this.#active > 0) return;
    const idle = this.#idle;
    this.#idle = [];
    for (const resolve of idle) resolve();
  }
  #failed(n: number, chain: Chain, request: BlkRequest, error: unknown): void {
    if (error instanceof Unsupported) return this.#done(n, chain, 0, error.status);
    const text = error instanceof Error ? error.message : String(error);
    const write = request.kind !== 'read';
    const nospace = /no space is left/.test(text);
    const policy = write ? this.#policy.onWrite : this.#policy.onRead;
    const action = policy === 'enospc' ? (nospace ? 'stop' : 'report') : policy;
    this.#services.report(this.#core.name, text);
    this.#services.notify('BLOCK_IO_ERROR', {
      device: this.#drive.id,
      ...(this.#drive.nodeName === undefined ? {} : { 'node-name': this.#drive.nodeName }),
      operation: write ? 'write' : 'read',
      action,
      nospace,
      reason: text,
    });
    if (action === 'stop') {
      this.#held.push({ again: () => this.#try(n, chain, request), drop: () => this.#core.give(n, [[chain, 0]]) });
      this.#rest();
      this.#services.stop();
    } else this.#done(n, chain, 0, action === 'ignore' ? BlkStatus.ok : BlkStatus.error);
  }

  /** Does a request; how many bytes of the chain it has written. */
  async #carry(chain: Chain, request: BlkRequest): Promise<number> {
    const { device } = this.#drive;
    if (request.kind === 'bad') throw new Unsupported(request.status);
    if (request.kind === 'id') {
      const id = new Uint8Array(20);
      for (let i = 0; i < id.length; i++) id[i] = this.#policy.serial.charCodeAt(i);
      return chain.in.write(0, id.subarray(0, chain.in.length - 1));
    }
    if (!device) throw new Error(`Cannot ${request.kind} ${this.#drive.id}: it has no medium`);
    switch (request.kind) {
      case 'read': {
        if (request.length === 0) return 0;
        await readPieces(device, request.offset, chain.in.range(0, request.length));
        chain.in.written(0, request.length);
        this.#places.tell(request.offset, request.length);
        return request.length;
      }
      case 'write': {
        if (request.length === 0) return 0;
        const pieces = chain.out.range(BLK_HEADER, request.length);
        const zero = this.#drive.detectZeroes !== undefined && this.#drive.detectZeroes !== 'off' && pieces.every(isZero);
        await (zero ? device.writeZeroes(request.offset, request.length) : writePieces(device, request.offset, pieces));
        if (!this.#s.writeBack || this.#drive.writeThrough) await device.flush();
        return 0;
      }
      case 'flush':
        await device.flush();
        return 0;
      case 'discard':
        if (this.#drive.discard) await device.discard(request.offset, request.length);
        return 0;
      case 'writeZeroes':
        await device.writeZeroes(request.offset, request.length);
        return 0;
    }
  }
}

/** A request that the device does not do. */
class Unsupported extends Error {
  readonly status: 1 | 2;
  constructor(status: 1 | 2) {
    super('unsupported request');
    this.status = status;
  }
}
