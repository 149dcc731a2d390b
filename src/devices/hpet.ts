// The high precision event timers at 0xFED0_0000: three timers, a 64-bit counter of 100 MHz. IA-PC HPET specification 1.0a (October 2004), section 2.3.
import type { Arena } from '../bits/arena.ts';
import { struct, type View } from '../bits/struct.ts';
import type { Clock, Timed } from '../bus/clock.ts';
import type { IrqLine, MsiSink } from '../bus/irq.ts';
import type { AddressSpace, Handler } from '../bus/space.ts';

export const hpetBase = 0xfed0_0000;
export const hpetBytes = 0x400;

const timerFields = {
  config: 'u32',
  fsbData: 'u32',
  fsbAddress: 'u32',
  /** The first match whose interrupt is still to come; what the guest reads is `#comparator`. */
  comparator: 'u64',
  period: 'u64',
  /** When its interrupt comes, in ns; `Infinity` for never. */
  due: 'f64',
} as const;
const timerLayout = struct(timerFields);
type Timer = View<typeof timerFields>;

export const hpetLayout = struct(
  {
    config: 'u32',
    status: 'u32',
    /** While it counts: counter minus clock in counts. While it stands: the counter. */
    counter: 'u64',
    timers: [timerLayout, 3],
  },
  { name: 'hpet', version: 1 },
);

/** ns and fs per count. */
const nsPerCount = 10;
const fsPerCount = 10_000_000;
/** Revision 1, three timers, 64 bits, legacy replacement; vendor 0x8086. */
const capabilities = 0x8086_a201;
/** Pins of the I/O APIC that a timer may go to: 2, 8 and 16 to 23; QEMU's `pc` has 2 alone. */
export const hpetRoutes = { q35: 0x00ff_0104, pc: 0x0000_0004 } as const;
const cfg = {
  level: 2,
  enable: 4,
  periodic: 8,
  periodicCapable: 0x10,
  size64: 0x20,
  valueSet: 0x40,
  mode32: 0x100,
  fsb: 0x4000,
  fsbCapable: 0x8000,
} as const;
const writable = cfg.level | cfg.enable | cfg.periodic | cfg.valueSet | cfg.mode32 | 0x3e00;
const enabled = 1;
const legacy = 2;
const never = Number.POSITIVE_INFINITY;
/** A periodic timer fires at most this often, in ns. */
const shortest = 20_000;
/** Periods that were missed come this many times as fast; none of more than so many counts (1 s) ago. */
const haste = 4;
const makesUp = 100_000_000n;

export interface HpetOptions {
  readonly arena: Arena;
  readonly clock: Clock;
  /** Pins that timers may go to, by bits; `hpetRoutes.q35` when left out. */
  readonly routes?: number;
  /** Timers can interrupt by messages. */
  readonly fsb?: boolean;
  /** Pin `n` of the I/O APIC, of those in `routes`. */
  readonly pin: (n: number) => IrqLine;
  /** Where timers 0 and 1 go with legacy replacement: the lines of ISA interrupts 0 and 8. */
  readonly legacy: readonly [IrqLine, IrqLine];
  /** Told where the chips that timers 0 and 1 replace are not behind `gate`. */
  readonly replaces?: (on: boolean) => void;
  readonly msi: MsiSink;
  readonly retime?: () => void;
}

export class Hpet implements Timed {
  readonly s: View<typeof hpetLayout.fields>;
  readonly handler: Handler;
  readonly #o: HpetOptions;
  readonly #pins: readonly (IrqLine | undefined)[];
  readonly #routes: number;
  readonly #writable: number;

  constructor(o: HpetOptions) {
    this.#o = o;
    this.s = o.arena.alloc(hpetLayout);
    const routes = o.routes ?? hpetRoutes.q35;
    this.#routes = routes;
    this.#writable = writable | (o.fsb ? cfg.fsb : 0);
    this.#pins = Array.from({ length: 32 }, (_, n) => ((routes >>> n) & 1 ? o.pin(n) : undefined));
    this.handler = {
      max: 8,
      read: (offset, size) => {
        const v = this.#read(offset & ~7);
        return Number((v >> BigInt(8 * (offset & 7))) & ((1n << BigInt(8 * size)) - 1n));
      },
      write: (offset, size, value) => {
        // Half registers; the specification has nothing narrower.
        if (size !== 4) return;
        const at = offset & ~7;
        const shift = BigInt(8 * (offset & 4));
        const old = this.#read(at);
        this.#write(at, (old & ~(0xffff_ffffn << shift)) | (BigInt(value) << shift), offset & 4 ? 'high' : 'low');
      },
      read64: (offset) => this.#read(offset & ~7),
      write64: (offset, value) => this.#write(offset & ~7, value, 'both'),
    };
  }

  reset(): void {
    this.s.config = 0;
    this.s.status = 0;
    this.s.counter = 0n;
    for (const t of this.s.timers) {
      t.config = cfg.periodicCapable | cfg.size64 | (this.#o.fsb ? cfg.fsbCapable : 0);
      t.fsbData = 0;
      t.fsbAddress = 0;
      t.comparator = 0xffff_ffff_ffff_ffffn;
      t.period = 0n;
      t.due = never;
    }
  }

  map(mmio: AddressSpace): void {
    mmio.map(hpetBase, hpetBytes, this.handler, 'hpet');
  }

  /** Legacy replacement is on. */
  get inPlace(): boolean {
    return (this.s.config & 3) === (enabled | legacy);
  }
  /** `line` for the PIT (interrupt 0) or the RTC (8): cut while legacy replacement is on. */
  gate(line: IrqLine): IrqLine {
    return {
      set: (level) => {
        if (level === 0 || (this.s.config & 3) !== (enabled | legacy)) line.set(level);
      },
    };
  }

  /** The main counter at this time. */
  get counter(): bigint {
    return this.#counterAt(this.#o.clock.now());
  }

  next(): number {
    const [a, b, c] = this.s.timers;
    return Math.min(a!.due, b!.due, c!.due);
  }

  tick(now: number): void {
    if (this.next() > now) return;
    for (const [n, t] of this.s.timers.entries()) {
      if (t.due > now) continue;
      if (t.config & cfg.periodic && t.period !== 0n) this.#advance(t, now);
      else this.#schedule(t, now, true);
      this.#fire(n, t);
    }
  }

  /**
   * The next match of a periodic timer. One that is served late makes up for the periods that it missed, several times as fast as they
   * come, since a guest counts them; after a long pause it leaves them out and keeps the phase.
   */
  #advance(t: Timer, now: number): void {
    const ns = Number(t.period) * nsPerCount;
    const missed = BigInt.asUintN(this.#width(t), this.#counterAt(now) - t.comparator);
    const skips = ns < shortest || missed > makesUp;
    const periods = skips ? missed / t.period + 1n : 1n;
    t.comparator = BigInt.asUintN(this.#width(t), t.comparator + periods * t.period);
    this.#schedule(t, now, false);
    t.due = Math.max(t.due, now + (ns < shortest ? shortest : ns / haste));
  }

  /**
   * The comparator at this time. That of a periodic timer goes on in the match itself (2.3.9.2.2), however late its interrupt is; without
   * interrupts, too (2.3.8, bit 2).
   */
  #comparator(t: Timer, now: number): bigint {
    const { comparator, period } = t;
    if (!(this.s.config & enabled) || !(t.config & cfg.periodic) || period === 0n) return comparator;
    const width = this.#width(t);
    const passed = BigInt.asUintN(width, this.#counterAt(now) - comparator);
    // What is more than that ahead of the counter is to come.
    if (passed > (t.config & cfg.enable ? makesUp : 1n << BigInt(width - 1))) return comparator;
    return BigInt.asUintN(width, comparator + (passed / period + 1n) * period);
  }

  /** Leaves out the interrupts that a timer still owes. */
  #settle(t: Timer, now: number): void {
    t.comparator = this.#comparator(t, now);
  }

  #countsAt(now: number): bigint {
    return BigInt(Math.floor(now / nsPerCount));
  }

  #counterAt(now: number): bigint {
    const { config, counter } = this.s;
    return config & enabled ? BigInt.asUintN(64, counter + this.#countsAt(now)) : counter;
  }

  #width(t: Timer): 32 | 64 {
    return t.config & cfg.mode32 ? 32 : 64;
  }

  /** Matches are in the counter's time: an access comes after those before it, also where the host's timer is late. */
  #read(at: number): bigint {
    const s = this.s;
    const now = this.#o.clock.now();
    this.tick(now);
    if (at === 0x00) return (BigInt(fsPerCount) << 32n) | BigInt(capabilities);
    if (at === 0x10) return BigInt(s.config);
    if (at === 0x20) return BigInt(s.status);
    if (at === 0xf0) return this.#counterAt(now);
    const t = s.timers[(at - 0x100) >> 5];
    if (at < 0x100 || t === undefined) return 0n;
    switch (at & 0x18) {
      case 0x00:
        return (BigInt(this.#routes) << 32n) | BigInt(t.config);
      case 0x08:
        return this.#comparator(t, now);
      case 0x10:
        return (BigInt(t.fsbAddress) << 32n) | BigInt(t.fsbData);
      default:
        return 0n;
    }
  }

  #write(at: number, value: bigint, part: 'low' | 'high' | 'both'): void {
    const s = this.s;
    const now = this.#o.clock.now();
    const low = Number(value & 0xffff_ffffn);
    this.tick(now);
    switch (at) {
      case 0x10:
        if (part !== 'high') this.#configure(low & 3, now);
        return;
      case 0x20:
        // A half write merges what a read gave: only the low half carries ones that clear.
        if (part !== 'high') for (const [n, t] of s.timers.entries()) if (low & (1 << n)) this.#lower(n, t);
        return;
      case 0xf0:
        for (const t of s.timers) this.#settle(t, now);
        s.counter = s.config & enabled ? BigInt.asUintN(64, value - this.#countsAt(now)) : value;
        this.#scheduleAll(now);
        return;
    }
    const n = (at - 0x100) >> 5;
    const t = s.timers[n];
    if (at < 0x100 || t === undefined) return;
    switch (at & 0x18) {
      case 0x00: {
        if (part === 'high') return;
        if (t.config & cfg.enable && !(low & cfg.enable)) this.#lower(n, t);
        const config = (t.config & ~this.#writable) | (low & this.#writable);
        if ((t.config ^ config) & (cfg.enable | cfg.periodic | cfg.mode32)) this.#settle(t, now);
        t.config = config;
        if (t.config & cfg.mode32) {
          t.comparator = BigInt.asUintN(32, t.comparator);
          t.period = BigInt.asUintN(32, t.period);
        }
        break;
      }
      case 0x08: {
        const v = BigInt.asUintN(this.#width(t), value);
        this.#settle(t, now);
        // Periodic: the first write after VAL_SET is the first time, any other the period.
        if (!(t.config & cfg.periodic) || t.config & cfg.valueSet) t.comparator = v;
        const low32 = part === 'high' ? t.period : v;
        const high32 = part === 'low' ? 0n : v;
        if (t.config & cfg.periodic) t.period = (low32 & 0xffff_ffffn) | (high32 & ~0xffff_ffffn);
        // Guests that write halves write the low one alone, or first.
        t.config &= ~cfg.valueSet;
        break;
      }
      case 0x10:
        t.fsbData = low;
        t.fsbAddress = Number(value >> 32n);
        return;
      default:
        return;
    }
    this.#schedule(t, now, false);
    this.#o.retime?.();
  }

  #configure(config: number, now: number): void {
    const s = this.s;
    const was = s.config & enabled;
    const counter = this.#counterAt(now);
    if ((s.config & 3) !== (config & 3)) this.#o.replaces?.((config & 3) === (enabled | legacy));
    const is = config & enabled;
    if (!is) for (const t of s.timers) this.#settle(t, now);
    s.config = config;
    if (is && !was) s.counter = BigInt.asUintN(64, counter - this.#countsAt(now));
    if (!is && was) {
      s.counter = counter;
      for (const [n, t] of s.timers.entries()) this.#line(n, t)?.set(0);
    }
    this.#scheduleAll(now);
  }

  #scheduleAll(now: number): void {
    for (const t of this.s.timers) this.#schedule(t, now, false);
    this.#o.retime?.();
  }

  /** Time of the next match, seen from `now`; with `after`, one that is later. */
  #schedule(t: Timer, now: number, after: boolean): void {
    t.due = never;
    if (!(this.s.config & enabled) || !(t.config & cfg.enable)) return;
    const width = this.#width(t);
    const counter = this.#counterAt(now);
    let counts = BigInt.asUintN(width, t.comparator - counter);
    const missed = (1n << BigInt(width)) - counts;
    if (t.config & cfg.periodic && t.period !== 0n && missed <= makesUp) counts = 0n;
    if (after && counts === 0n) counts = 1n << BigInt(width);
    // One shot of 32 bits: also when the counter wraps (2.3.9.2.1).
    if (width === 32 && !(t.config & cfg.periodic)) {
      const wrap = (1n << 32n) - BigInt.asUintN(32, counter);
      if (wrap < counts) counts = wrap;
    }
    // A match that has passed comes again when the counter has gone round; at 64 bits that is never.
    if (counts > 1n << 50n) return;
    t.due = Math.floor(now / nsPerCount) * nsPerCount + Number(counts) * nsPerCount;
  }

  #line(n: number, t: Timer): IrqLine | undefined {
    if (this.s.config & legacy && n < 2) return this.#o.legacy[n];
    return this.#pins[(t.config >>> 9) & 31];
  }

  #fire(n: number, t: Timer): void {
    if (t.config & cfg.fsb) {
      this.#o.msi(t.fsbAddress, t.fsbData);
      return;
    }
    const line = this.#line(n, t);
    if (t.config & cfg.level) {
      this.s.status |= 1 << n;
      line?.set(1);
    } else {
      line?.set(0);
      line?.set(1);
      line?.set(0);
    }
  }

  #lower(n: number, t: Timer): void {
    if ((this.s.status & (1 << n)) === 0) return;
    this.s.status &= ~(1 << n);
    this.#line(n, t)?.set(0);
  }
}
