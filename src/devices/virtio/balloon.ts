// Memory balloon: configuration, page lists and statistics. Virtual I/O Device (VIRTIO) 1.2, section 5.5; defaults are QEMU 7.2's.
import { struct, type ViewOf } from '../../bits/struct.ts';
import type { Chain } from './chain.ts';
import type { VirtioCore, VirtioModel } from './core.ts';

export const BalloonFeature = {
  statistics: 1n << 1n,
  deflateOnOom: 1n << 2n,
  pagePoison: 1n << 4n,
  reporting: 1n << 5n,
} as const;

export const balloonLayout = struct(
  {
    /** Pages of 4 KiB that the guest is asked for, and that it says to have given. */
    wanted: 'u32',
    actual: 'u32',
    poison: 'u32',
  },
  { name: 'virtio-balloon', version: 1 },
);
export type BalloonState = ViewOf<typeof balloonLayout>;

const PAGE = 4096;
const INFLATE = 0;
const DEFLATE = 1;
const STATISTICS = 2;
const REPORTING = 3;

export interface BalloonOptions {
  readonly deflateOnOom: boolean;
  readonly reporting: boolean;
}

/** `changed` is called when the guest says how much it has given. */
export function balloonModel(s: BalloonState, o: BalloonOptions, changed: () => void): VirtioModel {
  const bytes = new DataView(new ArrayBuffer(16));
  const config = (): DataView => {
    bytes.setUint32(0, s.wanted, true);
    bytes.setUint32(4, s.actual, true);
    bytes.setUint32(12, s.poison, true);
    return bytes;
  };
  return {
    id: 5,
    queues: o.reporting ? [128, 128, 128, 32] : [128, 128, 128],
    features:
      BalloonFeature.statistics |
      BalloonFeature.pagePoison |
      (o.deflateOnOom ? BalloonFeature.deflateOnOom : 0n) |
      (o.reporting ? BalloonFeature.reporting : 0n),
    config: {
      length: 16,
      read: (offset) => config().getUint8(offset),
      write(offset, byte) {
        const view = config();
        view.setUint8(offset, byte);
        if (offset >= 4 && offset < 8) {
          s.actual = view.getUint32(4, true);
          if (offset === 7) changed();
        } else if (offset >= 12) s.poison = view.getUint32(12, true);
      },
    },
    statusChanged(status) {
      if (status === 0) s.actual = s.poison = 0;
    },
  };
}

/** Statistics by their tags (section 5.5.6.3). */
export const statisticNames = [
  'stat-swap-in',
  'stat-swap-out',
  'stat-major-faults',
  'stat-minor-faults',
  'stat-free-memory',
  'stat-total-memory',
  'stat-available-memory',
  'stat-disk-caches',
  'stat-htlb-pgalloc',
  'stat-htlb-pgfail',
] as const;

/** The I/O side. `release` gives a range of guest memory back to the host: it reads as zeros afterwards, or as it did. */
export class BalloonIo {
  /** What the guest told last, by tag, and when (seconds since 1970; 0 never). */
  readonly statistics: (bigint | undefined)[] = [];
  updated = 0;
  readonly #core: VirtioCore;
  readonly #s: BalloonState;
  readonly #release: (gpa: number, length: number) => void;
  readonly #seconds: () => number;
  /** The buffer of statistics, which the guest fills again when it is given back. */
  #buffer: Chain | undefined;

  constructor(
    core: VirtioCore,
    s: BalloonState,
    o: BalloonOptions,
    host: { release(gpa: number, length: number): void; seconds(): number },
  ) {
    this.#core = core;
    this.#s = s;
    this.#release = (gpa, length) => host.release(gpa, length);
    this.#seconds = () => host.seconds();
    core.serve(INFLATE, () => this.#pages(INFLATE));
    core.serve(DEFLATE, () => this.#pages(DEFLATE));
    core.serve(STATISTICS, () => this.#statistics());
    if (o.reporting) core.serve(REPORTING, () => this.#reported());
    core.onReset = () => this.reset();
  }
  reset(): void {
    if (this.#buffer) this.#core.give(STATISTICS, [[this.#buffer, 0]]);
    this.#buffer = undefined;
    this.statistics.length = 0;
  }
  /** Pages that the guest has given. */
  get actual(): number {
    return this.#s.actual;
  }
  /** Asks the guest for so many pages. */
  want(pages: number): void {
    this.#core.lock.run(() => {
      this.#s.wanted = pages;
      this.#core.configChanged();
    });
  }
  /** Asks for new statistics, where the guest has answered the last time. */
  ask(): void {
    const buffer = this.#buffer;
    this.#buffer = undefined;
    if (buffer) this.#core.give(STATISTICS, [[buffer, 0]]);
  }

  #pages(queue: number): void {
    for (let chains = this.#core.take(queue); chains.length > 0; chains = this.#core.take(queue)) {
      for (const chain of chains) {
        if (queue === INFLATE) this.#inflate(chain.out.bytes(0, Math.min(chain.out.length, 1 << 20)));
        this.#core.give(queue, [[chain, 0]]);
      }
    }
  }
  #inflate(list: Uint8Array): void {
    const view = new DataView(list.buffer, list.byteOffset, list.length & ~3);
    let start = 0;
    let length = 0;
    // Neighbours go together.
    for (let at = 0; at < view.byteLength; at += 4) {
      const gpa = view.getUint32(at, true) * PAGE;
      if (length > 0 && gpa === start + length) length += PAGE;
      else if (length > 0 && gpa === start - PAGE) {
        start = gpa;
        length += PAGE;
      } else {
        if (length > 0) this.#give(start, length);
        start = gpa;
        length = PAGE;
      }
    }
    if (length > 0) this.#give(start, length);
  }
  #give(gpa: number, length: number): void {
    if (this.#core.memory.slice(gpa, length)) this.#release(gpa, length);
    else if (length > PAGE) for (let at = 0; at < length; at += PAGE) this.#give(gpa + at, PAGE);
  }
  #statistics(): void {
    for (const chain of this.#core.take(STATISTICS)) {
      if (this.#buffer) this.#core.give(STATISTICS, [[this.#buffer, 0]]);
      this.#buffer = chain;
      const list = chain.out.bytes(0, Math.min(chain.out.length, 1024));
      const view = new DataView(list.buffer);
      for (let at = 0; at + 10 <= list.length; at += 10) {
        const tag = view.getUint16(at, true);
        if (tag < statisticNames.length) this.statistics[tag] = view.getBigUint64(at + 2, true);
      }
      this.updated = Math.floor(this.#seconds());
    }
  }
  /** Free pages: the host may have them until the guest writes to them. */
  #reported(): void {
    const poisoned = this.#core.has(BalloonFeature.pagePoison) && this.#s.poison !== 0;
    for (let chains = this.#core.take(REPORTING); chains.length > 0; chains = this.#core.take(REPORTING)) {
      for (const chain of chains) {
        if (!poisoned) chain.in.places((gpa, length) => this.#give(gpa, length));
        this.#core.give(REPORTING, [[chain, 0]]);
      }
    }
  }
}
