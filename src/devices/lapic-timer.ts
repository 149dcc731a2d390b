// The local APIC's timer: one-shot, periodic and TSC-deadline. Intel SDM volume 3A (order 253668), section 11.5.4. The bus runs at 1 GHz.
import type { Clock } from '../bus/clock.ts';
import { type LapicState, lvt } from './lapic-state.ts';

/** The vCPU's time-stamp counter as a function of the clock, and back. */
export interface Tsc {
  tscAt(ns: number): bigint;
  /** First time, in ns, at which the counter has reached `tsc`. */
  nsAt(tsc: bigint): number;
}

const never = Number.POSITIVE_INFINITY;
/** A periodic timer fires at most this often, in ns, so that a guest cannot keep the host busy with it. */
const shortest = 20_000;
const modeOf = (entry: number): number => (entry >>> 17) & 3;
const periodic = 1;
const tscDeadline = 2;

export class LapicTimer {
  readonly #s: LapicState;
  readonly #clock: Clock;
  readonly #tsc: Tsc;
  readonly #fire: () => void;
  /** The time, while it stands still. */
  #still: number | undefined;
  readonly #retime: () => void;

  constructor(s: LapicState, clock: Clock, tsc: Tsc, fire: () => void, retime: () => void) {
    this.#s = s;
    this.#clock = clock;
    this.#tsc = tsc;
    this.#fire = fire;
    this.#retime = retime;
  }

  get #now(): number {
    return this.#still ?? this.#clock.now();
  }

  /** Time stands still while `read` looks at more than one register: what ends meanwhile would be neither in those before nor in those after. With the board's lock held. */
  still<T>(read: () => T): T {
    this.#still = this.#clock.now();
    try {
      this.catchUp();
      return read();
    } finally {
      this.#still = undefined;
    }
  }

  reset(): void {
    this.#s.initialCount = 0;
    this.#s.divide = 0;
    this.#s.deadline = 0n;
    this.#s.expires = never;
  }

  /** ns per count. */
  get #divisor(): number {
    const code = ((this.#s.divide & 8) >>> 1) | (this.#s.divide & 3);
    return code === 7 ? 1 : 2 << code;
  }

  get #mode(): number {
    return modeOf(this.#s.lvt[lvt.timer]!);
  }

  get currentCount(): number {
    this.catchUp();
    const { expires, initialCount } = this.#s;
    if (expires === never || this.#mode === tscDeadline) return 0;
    const divisor = this.#divisor;
    const left = expires - this.#now;
    if (left > 0) return Math.min(initialCount, Math.ceil(left / divisor));
    if (this.#mode !== periodic) return 0;
    const period = initialCount * divisor;
    return Math.ceil((period - (-left % period)) / divisor);
  }

  setInitialCount(count: number): void {
    if (this.#mode === tscDeadline) return;
    this.catchUp();
    this.#s.initialCount = count;
    this.#start(count === 0 ? never : this.#clock.now() + count * this.#divisor);
  }

  setDivide(value: number): void {
    const left = this.currentCount;
    this.#s.divide = value & 0xb;
    if (this.#s.expires !== never && this.#mode !== tscDeadline) this.#start(this.#clock.now() + left * this.#divisor);
  }

  /** IA32_TSC_DEADLINE; reads 0 and ignores writes outside its mode. */
  get deadline(): bigint {
    this.catchUp();
    return this.#mode === tscDeadline ? this.#s.deadline : 0n;
  }
  set deadline(tsc: bigint) {
    if (this.#mode !== tscDeadline) return;
    this.catchUp();
    this.#s.deadline = tsc;
    this.#start(tsc === 0n ? never : this.#tsc.nsAt(tsc));
  }

  /** The local vector is about to change: entering and leaving the TSC-deadline mode disarms. */
  modeChanges(from: number, to: number): void {
    if ((modeOf(from) === tscDeadline) === (modeOf(to) === tscDeadline)) return;
    this.#s.initialCount = 0;
    this.#s.deadline = 0n;
    this.#s.expires = never;
  }

  /** The counter's relation to the clock changed (IA32_TSC written, state restored). */
  tscChanged(): void {
    if (this.#mode === tscDeadline && this.#s.deadline !== 0n) this.#start(this.#tsc.nsAt(this.#s.deadline));
  }

  /**
   * Takes over counts that another local APIC had. One shot that has come to 0 fires, as KVM_SET_LAPIC has it: whether its interrupt was
   * requested does not show, and one too many does no harm.
   */
  load(initial: number, current: number, divide: number): void {
    this.#s.divide = divide & 0xb;
    this.#s.initialCount = initial;
    this.#s.expires = never;
    if (this.#mode !== tscDeadline && initial !== 0) this.#start(this.#clock.now() + current * this.#divisor);
  }

  /** Whatever the guest asks for or changes comes after the ends before it, also where the host's timer is late. With the board's lock held. */
  catchUp(): void {
    this.tick(this.#now);
  }

  tick(now: number): void {
    const s = this.#s;
    if (now < s.expires) return;
    if (this.#mode === periodic && s.initialCount !== 0) {
      const period = s.initialCount * this.#divisor;
      const after = Math.max(now, s.expires + shortest - period);
      s.expires += (Math.floor((after - s.expires) / period) + 1) * period;
    } else {
      s.expires = never;
      s.deadline = 0n;
    }
    this.#fire();
  }

  #start(at: number): void {
    const earlier = at < this.#s.expires;
    this.#s.expires = at;
    if (earlier) this.#retime();
  }
}
