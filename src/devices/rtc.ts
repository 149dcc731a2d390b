// The real-time clock of a PC with its CMOS RAM, ports 0x70 and 0x71. Motorola MC146818A datasheet (1984); RAM layout as in the ICH9 datasheet (316972), section 13.6.
import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { Clock, Timed, WallClock } from '../bus/clock.ts';
import type { IrqLine } from '../bus/irq.ts';
import type { AddressSpace } from '../bus/space.ts';

export const rtcLayout = struct(
  {
    cmos: ['u8', 128],
    index: 'u8',
    /** Seconds that the guest's time is ahead of the wall clock. */
    offset: 'f64',
    /** Time in ns up to which interrupts have been served. */
    served: 'f64',
    /** Periodic interrupts that the guest has yet to get under `slew`, and those among them that followed a read of register C. */
    coalesced: 'u32',
    reinjected: 'u8',
  },
  { name: 'rtc', version: 2 },
);
type State = ViewOf<typeof rtcLayout>;

/** CMOS addresses. */
export const rtcPort = 0x70;

export const cmos = {
  statusA: 10,
  statusB: 11,
  statusC: 12,
  statusD: 13,
  shutdown: 15,
  baseLow: 0x15,
  extended: 0x17,
  extended2: 0x30,
  century: 0x32,
  above16: 0x34,
  above4g: 0x5b,
} as const;
const b = { dst: 1, hours24: 2, binary: 4, updateEnded: 0x10, alarm: 0x20, periodic: 0x40, set: 0x80 } as const;
const never = Number.POSITIVE_INFINITY;
/** UIP is set this long before an update, in ns; the datasheet's 244 µs. */
const warning = 244_000;
/** Two clocks that are read within this time, in ns, were read together. */
const heldUp = 20_000;
const timeFields = [0, 2, 4, 6, 7, 8, 9, cmos.century] as const;
/** At most so many missed interrupts follow reads of register C between two that are due, as QEMU's `driftfix=slew` has it. */
const mostReinjected = 20;
/** The first update comes this long after the divider's reset, in seconds (datasheet, "Divider control bits"). */
const afterDividerReset = 0.5;

export interface RtcOptions {
  readonly arena: Arena;
  readonly clock: Clock;
  readonly wall: WallClock;
  readonly irq: IrqLine;
  readonly retime?: () => void;
  /** Periodic interrupts that came due before the guest had taken the last one are made up for; else they are lost. */
  readonly slew?: boolean;
  /** Bytes of RAM below 4 GiB and above it. */
  readonly memory: { readonly below4g: number; readonly above4g: number };
}

export class Rtc implements Timed {
  readonly s: State;
  readonly #o: RtcOptions;

  constructor(o: RtcOptions) {
    this.#o = o;
    this.s = o.arena.alloc(rtcLayout);
  }

  /** Power-on: the battery has kept the time at the wall clock (UTC), plus `offset` seconds. */
  reset(offset = 0): void {
    const s = this.s;
    s.cmos.fill(0);
    s.index = 0;
    s.offset = offset;
    s.cmos[cmos.statusA] = 0x26;
    s.cmos[cmos.statusB] = b.hours24;
    s.cmos[cmos.statusD] = 0x80;
    const { below4g, above4g } = this.#o.memory;
    const put = (at: number, value: number, bytes: number) => {
      for (let i = 0; i < bytes; i++) s.cmos[at + i] = Math.floor(value / 2 ** (8 * i)) & 0xff;
    };
    put(cmos.baseLow, Math.min(640, below4g / 1024), 2);
    const extended = Math.min(0xffff, Math.max(0, below4g / 1024 - 1024));
    put(cmos.extended, extended, 2);
    put(cmos.extended2, extended, 2);
    put(cmos.above16, Math.min(0xffff, Math.max(0, below4g - 0x100_0000) / 0x1_0000), 2);
    put(cmos.above4g, Math.min(0xff_ffff, above4g / 0x1_0000), 3);
    s.served = this.#o.clock.now();
    s.coalesced = 0;
    s.reinjected = 0;
    this.#o.irq.set(0);
  }

  /** Bit 7 of port 0x70, the NMI mask of a PC, is not kept. */
  map(ports: AddressSpace): void {
    ports.map(
      rtcPort,
      2,
      {
        max: 1,
        read: (o) => (o === 0 ? 0xff : this.#read(this.s.index)),
        write: (o, _, v) => {
          if (o === 0) this.s.index = v & 0x7f;
          else this.#write(this.s.index, v);
        },
      },
      'rtc',
    );
  }

  /** A byte of CMOS RAM as the firmware of a board presets it. */
  preset(address: number, value: number): void {
    this.s.cmos[address & 0x7f] = value;
  }

  /** Guest time in seconds since 1970, with fractions; while the clock is stopped, the fractions alone mean something. */
  get seconds(): number {
    return this.#o.wall.epochSeconds() + this.s.offset;
  }

  /** `seconds` at a moment of the clock. Both are read together: where the thread is held up in between, again. */
  #secondsAt(moment: number): number {
    for (let tries = 3; ; tries--) {
      const before = this.#o.clock.now();
      const seconds = this.seconds;
      const after = this.#o.clock.now();
      if (after - before < heldUp || tries === 0) return seconds - ((before + after) / 2 - moment) / 1e9;
    }
  }

  next(): number {
    const B = this.s.cmos[cmos.statusB]!;
    const periodic = B & b.periodic ? this.#nextPeriod() : never;
    // The update and alarm flags are only worth a timer when they interrupt; reading register C finds them anyway.
    const second = !this.#stopped && B & (b.alarm | b.updateEnded) ? this.#nextSecond() : never;
    return Math.min(periodic, second);
  }

  tick(now: number): void {
    this.#serve(now);
    const B = this.s.cmos[cmos.statusB]!;
    const C = this.s.cmos[cmos.statusC]!;
    if ((B & C & 0x70) !== 0) {
      this.s.cmos[cmos.statusC] = C | 0x80;
      this.#o.irq.set(1);
    }
  }

  /** Whether the alarm has struck and is to be told: what ends a sleep. */
  get alarmed(): boolean {
    return (this.s.cmos[cmos.statusB]! & this.s.cmos[cmos.statusC]! & b.alarm) !== 0;
  }

  get #stopped(): boolean {
    return (this.s.cmos[cmos.statusB]! & b.set) !== 0 || (this.s.cmos[cmos.statusA]! & 0x60) === 0x60;
  }

  /** ns per periodic interrupt, 0 for none. */
  get #period(): number {
    const rate = this.s.cmos[cmos.statusA]! & 15;
    if (rate === 0) return 0;
    // Rates 1 and 2 repeat 8 and 9 with the 32,768 Hz time base.
    return 1e9 / (65_536 >>> (rate < 3 ? rate + 7 : rate));
  }

  #nextPeriod(): number {
    const period = this.#period;
    return period === 0 ? never : (Math.floor(this.s.served / period + 1e-9) + 1) * period;
  }

  /** Time in ns of the first update after `served`. */
  #nextSecond(): number {
    const then = this.#secondsAt(this.s.served);
    return this.s.served + Math.max(1, Math.ceil((Math.floor(then) + 1 - then) * 1e9));
  }

  /** Sets the flags of what has happened since `served`. */
  #serve(now: number): void {
    const s = this.s;
    if (now <= s.served) return;
    let flags = 0;
    if (this.#nextPeriod() <= now) {
      flags |= 0x40;
      if (this.#o.slew && s.cmos[cmos.statusB]! & b.periodic) this.#coalesce(now);
    }
    if (!this.#stopped) {
      const end = Math.floor(this.#secondsAt(now) + 1e-9);
      const begin = Math.floor(this.#secondsAt(s.served) + 1e-9);
      if (end > begin) flags |= 0x10;
      // A long pause looks at each second of one day at most, as no alarm is rarer.
      for (let t = Math.max(begin + 1, end - 86_399); t <= end; t++) {
        if (this.#alarmAt(t)) {
          flags |= 0x20;
          break;
        }
      }
    }
    s.served = now;
    s.cmos[cmos.statusC] = s.cmos[cmos.statusC]! | flags;
  }

  /** Counts the periods since `served` whose interrupts merge into one. */
  #coalesce(now: number): void {
    const s = this.s;
    const period = this.#period;
    const due = Math.round(Math.floor(now / period + 1e-9) - Math.floor(s.served / period + 1e-9));
    s.coalesced = Math.min(0xffff_ffff, s.coalesced + due - (s.cmos[cmos.statusC]! & 0x40 ? 0 : 1));
    if (s.reinjected >= mostReinjected) s.reinjected = 0;
  }

  /** True when the alarm registers match; 0xC0 and above match anything. */
  #alarmAt(t: number): boolean {
    const day = ((t % 86_400) + 86_400) % 86_400;
    const is = (address: number, value: number) => this.s.cmos[address]! >= 0xc0 || this.s.cmos[address] === value;
    return (
      is(1, this.#code(day % 60)) && is(3, this.#code(Math.floor(day / 60) % 60)) && is(5, this.#hour(Math.floor(day / 3600)))
    );
  }

  #read(address: number): number {
    const s = this.s;
    if ((timeFields as readonly number[]).includes(address)) return this.#field(address);
    const now = this.#o.clock.now();
    switch (address) {
      case cmos.statusA: {
        return s.cmos[address]! | (!this.#stopped && (1 - this.#fraction) * 1e9 <= warning ? 0x80 : 0);
      }
      case cmos.statusC: {
        this.#serve(now);
        const C = s.cmos[address]!;
        s.cmos[address] = 0;
        this.#o.irq.set(0);
        const B = s.cmos[cmos.statusB]!;
        if (s.coalesced > 0 && B & b.periodic && s.reinjected < mostReinjected) {
          s.coalesced--;
          s.reinjected++;
          s.cmos[address] = 0xc0;
          this.#o.irq.set(1);
        }
        const shown = C & 0x70;
        return shown | ((shown & B) !== 0 ? 0x80 : 0);
      }
      default:
        return s.cmos[address]!;
    }
  }

  #write(address: number, value: number): void {
    const s = this.s;
    if ((timeFields as readonly number[]).includes(address)) {
      this.#setField(address, value);
      return;
    }
    this.#serve(this.#o.clock.now());
    switch (address) {
      case cmos.statusA: {
        const reset = (A: number): boolean => (A & 0x60) === 0x60;
        if (reset(s.cmos[address]!) && !reset(value)) s.offset += afterDividerReset - this.#fraction;
        const before = this.#period;
        this.#change(address, value & 0x7f);
        const after = this.#period;
        s.coalesced = after === 0 ? 0 : Math.min(0xffff_ffff, Math.floor((s.coalesced * before) / after));
        break;
      }
      case cmos.statusB: {
        // SET ends what waits for an update.
        const B = value & b.set ? value & ~b.updateEnded : value;
        this.#change(address, B);
        if (!(B & b.periodic)) s.coalesced = 0;
        if ((B & s.cmos[cmos.statusC]! & 0x70) === 0) this.#o.irq.set(0);
        this.tick(this.#o.clock.now());
        break;
      }
      case cmos.statusC:
      case cmos.statusD:
        return;
      default:
        s.cmos[address] = value;
    }
    this.#o.retime?.();
  }

  get #fraction(): number {
    return this.seconds - Math.floor(this.seconds);
  }

  /** Writes register A or B. A clock that stops leaves its time in the registers, one that goes on takes it from there. */
  #change(address: number, value: number): void {
    const before = this.#stopped;
    if (!before) this.#store();
    this.s.cmos[address] = value;
    if (before && !this.#stopped) this.#load();
  }

  /** The time into its registers, in the guest's format. */
  #store(): void {
    for (const address of timeFields) this.s.cmos[address] = this.#field(address);
  }

  /** The time from its registers. The second goes on: SET keeps the divider running. */
  #load(): void {
    const at = (address: number): number => this.#decode(this.s.cmos[address]!);
    const d = new Date(0);
    d.setUTCFullYear(at(cmos.century) * 100 + at(9), at(8) - 1, at(7));
    d.setUTCHours(this.#decodeHour(this.s.cmos[4]!), at(2), at(0));
    this.s.offset = d.getTime() / 1000 + this.#fraction - this.#o.wall.epochSeconds();
  }

  /** A register of the time, in the guest's format. */
  #field(address: number): number {
    if (this.#stopped) return this.s.cmos[address]!;
    const d = new Date(Math.floor(this.seconds) * 1000);
    switch (address) {
      case 0:
        return this.#code(d.getUTCSeconds());
      case 2:
        return this.#code(d.getUTCMinutes());
      case 4:
        return this.#hour(d.getUTCHours());
      case 6:
        return this.#code(d.getUTCDay() + 1);
      case 7:
        return this.#code(d.getUTCDate());
      case 8:
        return this.#code(d.getUTCMonth() + 1);
      case 9:
        return this.#code(d.getUTCFullYear() % 100);
      default:
        return this.#code(Math.floor(d.getUTCFullYear() / 100));
    }
  }

  /** While the clock is stopped registers keep what is written; else the time follows, and the weekday follows from the date. */
  #setField(address: number, raw: number): void {
    const stopped = this.#stopped;
    if (!stopped) this.#store();
    this.s.cmos[address] = raw;
    if (stopped) return;
    this.#load();
    this.#o.retime?.();
  }

  #code(value: number): number {
    return this.s.cmos[cmos.statusB]! & b.binary ? value : (Math.floor(value / 10) << 4) | (value % 10);
  }

  #decode(raw: number): number {
    return this.s.cmos[cmos.statusB]! & b.binary ? raw : 10 * (raw >>> 4) + (raw & 15);
  }

  #hour(value: number): number {
    if (this.s.cmos[cmos.statusB]! & b.hours24) return this.#code(value);
    return this.#code(value % 12 || 12) | (value >= 12 ? 0x80 : 0);
  }

  #decodeHour(raw: number): number {
    if (this.s.cmos[cmos.statusB]! & b.hours24) return this.#decode(raw);
    return (this.#decode(raw & 0x7f) % 12) + (raw & 0x80 ? 12 : 0);
  }
}
