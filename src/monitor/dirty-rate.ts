// How fast the guest changes its memory: `calc-dirty-rate`. QEMU 7.2, qapi/migration.json.

import { QmpError } from '../rpc/qmp/error.ts';
import type { Emulator } from './emulator.ts';

export const dirtyRateModes = ['page-sampling', 'dirty-ring', 'dirty-bitmap'] as const;
export type DirtyRateMode = (typeof dirtyRateModes)[number];

const PAGE = 4096;
const GIB = 2 ** 30;
const MIB = 2 ** 20;
/** Seconds. */
const calcTime = { min: 1, max: 60 } as const;
/** Pages for each GiB. */
const samplePages = { min: 128, max: 16384, default: 512 } as const;

/** A number that another content of the page most likely does not have. */
function sum(page: Uint8Array): number {
  const words = new Uint32Array(page.buffer, page.byteOffset, PAGE / 4);
  let h = 0x811c9dc5;
  for (let i = 0; i < words.length; i++) h = Math.imul(h ^ words[i]!, 0x01000193) ^ (h >>> 15);
  return h;
}

export class DirtyRate {
  readonly #e: Emulator;
  #status: 'unstarted' | 'measuring' | 'measured' = 'unstarted';
  #mode: DirtyRateMode = 'page-sampling';
  /** When it began, by the monotonic clock, and how long it takes; both in seconds. */
  #start = 0;
  #time = 0;
  #samples = 0;
  /** MiB a second; undefined where the measurement failed. */
  #rate: number | undefined;

  constructor(e: Emulator) {
    this.#e = e;
  }

  /** What `query-dirty-rate` tells. */
  info() {
    return {
      status: this.#status,
      'start-time': this.#start,
      'calc-time': this.#time,
      'sample-pages': this.#samples,
      mode: this.#mode,
      ...(this.#status === 'measured' && this.#rate !== undefined ? { 'dirty-rate': this.#rate } : {}),
    };
  }

  /** Begins to measure; `info` has the result after `seconds`. @throws QmpError */
  start(seconds: number, mode: DirtyRateMode = 'page-sampling', samples?: number): void {
    if (this.#status === 'measuring') throw new QmpError('the dirty rate is already being measured.');
    if (!(seconds >= calcTime.min && seconds <= calcTime.max))
      throw new QmpError(`calc-time is out of range[${calcTime.min}, ${calcTime.max}].`);
    if (samples !== undefined && mode !== 'page-sampling')
      throw new QmpError(`either sample-pages or dirty-rate mode ${mode} can be specified`);
    if (samples !== undefined && !(samples >= samplePages.min && samples <= samplePages.max))
      throw new QmpError(`sample-pages is out of range[${samplePages.min}, ${samplePages.max}].`);
    if (mode === 'dirty-ring') throw new QmpError('mode dirty-ring is not enabled, use other method instead.');
    const { machine } = this.#e;
    if (!machine) throw new QmpError('This machine has no memory');
    this.#mode = mode;
    this.#time = seconds;
    this.#samples = mode === 'page-sampling' ? (samples ?? samplePages.default) : 0;
    this.#start = Math.floor(this.#e.host.clock() / 1000);
    this.#rate = undefined;
    this.#status = 'measuring';
    void (mode === 'page-sampling' ? this.#sample() : this.#count())
      .then((rate) => {
        this.#rate = rate;
      })
      .catch((error: Error) => this.#e.host.log(`dirty rate: ${error.message}`))
      .finally(() => {
        this.#status = 'measured';
      });
  }
  /** Resolves when the time is over, with the ms that went by. */
  #wait(): Promise<number> {
    const { clock, timers } = this.#e.host;
    const start = clock();
    return new Promise((resolve) => void timers.after(this.#time * 1000, () => resolve(clock() - start)));
  }
  /** Looks at some pages, and again. */
  async #sample(): Promise<number> {
    // What only system management mode sees is written as well.
    const { ram: memory } = this.#e.running.board;
    const total = memory.ranges.reduce((sum, { length }) => sum + length, 0);
    const seen: (readonly [Uint8Array, number])[] = [];
    for (const { gpa, length } of memory.ranges)
      for (let n = Math.max(1, Math.floor((length * this.#samples) / GIB)); n > 0; n--) {
        const page = memory.slice(gpa + Math.floor(Math.random() * (length / PAGE)) * PAGE, PAGE)!;
        seen.push([page, sum(page)]);
      }
    const ms = await this.#wait();
    const changed = seen.filter(([page, before]) => sum(page) !== before).length;
    return Math.floor(((total / MIB) * changed * 1000) / seen.length / ms);
  }
  /** Counts the pages that are written. */
  async #count(): Promise<number> {
    const log = await this.#e.running.logDirty();
    try {
      const ms = await this.#wait();
      const { length } = await log.take();
      return Math.floor((length * PAGE * 1000) / MIB / ms);
    } finally {
      log.stop();
    }
  }
}
