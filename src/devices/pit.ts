// The interval timer of a PC at 0x40, and port 0x61 with its gate, the speaker and the refresh bit. Intel 8254 datasheet (231164-005, September 1993).
import type { Arena } from '../bits/arena.ts';
import { struct, type View } from '../bits/struct.ts';
import type { Clock, Timed } from '../bus/clock.ts';
import type { IrqLine } from '../bus/irq.ts';
import type { AddressSpace } from '../bus/space.ts';

/** Input clock in Hz. */
export const pitHz = 1_193_182;
/** Ports of the counters, and that of the speaker. */
export const pitPorts = { base: 0x40, speaker: 0x61 } as const;
const nsPerTick = 1e9 / pitHz;

const channelFields = {
  /** Time of clock pulse 0 of the count, in ns. */
  start: 'f64',
  /** Time at which channel 0 has last driven its wire, in ns. */
  served: 'f64',
  /** Initial count in clock pulses, 1 to 65,536 (10,000 in BCD); 0 before the first one is written. */
  count: 'u32',
  /** Elements left of the count when the gate went low, for modes that it stops; in modes 1 and 5 the count that the next trigger loads. */
  frozen: 'u32',
  latch: 'u16',
  /** Bytes of the latched count still to read: 0 to 2. */
  latched: 'u8',
  status: 'u8',
  statusLatched: 'u8',
  mode: 'u8',
  bcd: 'u8',
  /** 1 low byte, 2 high byte, 3 low then high. */
  access: 'u8',
  low: 'u8',
  /** 1 when the next access is to the high byte. */
  readHigh: 'u8',
  writeHigh: 'u8',
  gate: 'u8',
  /** 1 while a count runs: written, and triggered where the mode needs that. */
  running: 'u8',
} as const;
const channelLayout = struct(channelFields);
type Channel = View<typeof channelFields>;

export const pitLayout = struct({ channels: [channelLayout, 3], speaker: 'u8' }, { name: 'pit', version: 1 });

const never = Number.POSITIVE_INFINITY;

export class Pit implements Timed {
  readonly s: View<typeof pitLayout.fields>;
  readonly #channels: readonly Channel[];
  readonly #remote: () => boolean;
  readonly #clock: Clock;
  readonly #irq: IrqLine;
  readonly #retime: () => void;

  /** `irq` is channel 0's output. While it is `remote`, another one counts in its place. */
  constructor(o: { arena: Arena; clock: Clock; irq: IrqLine; retime?: () => void; remote?: () => boolean }) {
    this.s = o.arena.alloc(pitLayout);
    this.#remote = o.remote ?? (() => false);
    this.#channels = this.s.channels;
    this.#clock = o.clock;
    this.#irq = o.irq;
    this.#retime = o.retime ?? (() => {});
  }

  /** The chip is undefined before its first control word; here all channels are in mode 3 and do not count. */
  reset(): void {
    for (const [n, c] of this.#channels.entries()) {
      c.start = 0;
      c.served = 0;
      c.count = 0;
      c.frozen = 0;
      c.latched = 0;
      c.statusLatched = 0;
      c.mode = 3;
      c.bcd = 0;
      c.access = 3;
      c.readHigh = 0;
      c.writeHigh = 0;
      c.gate = n === 2 ? 0 : 1;
      c.running = 0;
    }
    this.s.speaker = 0;
    this.#irq.set(0);
  }

  map(ports: AddressSpace): void {
    ports.map(
      pitPorts.base,
      4,
      {
        max: 1,
        read: (o) => (o === 3 ? 0xff : this.#read(this.#channels[o]!)),
        write: (o, _, v) => {
          // What was due before comes before, also where the host's timer is late.
          const now = this.#clock.now();
          if (!this.#remote()) this.tick(now);
          if (o === 3) this.#control(v, now);
          else this.#write(o, v, now);
        },
      },
      'pit',
    );
    ports.map(
      pitPorts.speaker,
      1,
      { max: 1, read: () => this.#readPort61(), write: (_, __, v) => this.#writePort61(v) },
      'pcspk',
    );
  }

  /** Level of a channel's output at this time. */
  output(n: number): 0 | 1 {
    return output(this.#channels[n]!, this.#clock.now());
  }

  /** What the speaker does: its frequency in Hz, 0 when silent. */
  get tone(): number {
    const c = this.#channels[2]!;
    return (this.s.speaker & 3) === 3 && c.running && c.count > 0 && c.mode === 3 ? pitHz / c.count : 0;
  }

  next(): number {
    if (this.#remote()) return never;
    const c = this.#channels[0]!;
    return nextEdge(c, c.served);
  }

  /** Drives channel 0's wire to where it should be now; several periods that were missed give one edge. */
  tick(now: number): void {
    const c = this.#channels[0]!;
    const edge = nextEdge(c, c.served);
    if (edge > now) return;
    const rises = output(c, edge) === 1 || nextEdge(c, edge) <= now;
    c.served = now;
    if (rises) {
      // The wire stays high until the next edge, however late this one is: a guest that is slow must not miss it.
      this.#irq.set(0);
      this.#irq.set(1);
    } else this.#irq.set(0);
  }

  #control(v: number, now: number): void {
    const select = v >>> 6;
    if (select === 3) {
      for (const [n, c] of this.#channels.entries()) {
        if ((v & (2 << n)) === 0) continue;
        if ((v & 0x20) === 0) this.#latch(c, now);
        if ((v & 0x10) === 0 && c.statusLatched === 0) {
          const unloaded = c.running === 0 || (triggered(c) && c.frozen !== c.count);
          c.status = (output(c, now) << 7) | (unloaded ? 0x40 : 0) | (c.access << 4) | (c.mode << 1) | c.bcd;
          c.statusLatched = 1;
        }
      }
      return;
    }
    const c = this.#channels[select]!;
    const access = (v >>> 4) & 3;
    if (access === 0) {
      this.#latch(c, now);
      return;
    }
    c.access = access;
    c.mode = (v >>> 1) & 7 & (v & 4 ? 3 : 7);
    c.bcd = v & 1;
    c.readHigh = 0;
    c.writeHigh = 0;
    c.latched = 0;
    c.count = 0;
    c.running = 0;
    this.#changed(select, now);
  }

  #latch(c: Channel, now: number): void {
    if (c.latched !== 0) return;
    c.latch = value(c, now);
    c.latched = c.access === 3 ? 2 : 1;
  }

  #write(n: number, v: number, now: number): void {
    const c = this.#channels[n]!;
    if (c.access === 3 && c.writeHigh === 0) {
      c.low = v;
      c.writeHigh = 1;
      // In mode 0 the first byte stops the count.
      if (c.mode === 0) {
        c.running = 0;
        this.#changed(n, now);
      }
      return;
    }
    const raw = c.access === 1 ? v : c.access === 2 ? v << 8 : (v << 8) | c.low;
    c.writeHigh = 0;
    this.#load(n, c.bcd ? fromBcd(raw) || 10_000 : raw || 0x1_0000, now);
  }

  #load(n: number, count: number, now: number): void {
    const c = this.#channels[n]!;
    c.frozen = count;
    // Modes 1 and 5 wait for the gate's rising edge.
    if (triggered(c) && c.running) return;
    // On the chip a running period ends before the new count takes over; here, and in QEMU, it begins at once.
    c.start = now;
    c.count = count;
    if (!triggered(c)) c.running = 1;
    this.#changed(n, now);
  }

  #read(c: Channel): number {
    if (c.statusLatched) {
      c.statusLatched = 0;
      return c.status;
    }
    if (c.latched > 0) {
      const high = c.access === 2 || (c.access === 3 && c.latched === 1);
      c.latched--;
      return high ? c.latch >>> 8 : c.latch & 0xff;
    }
    const v = value(c, this.#clock.now());
    const high = c.access === 2 || (c.access === 3 && c.readHigh === 1);
    if (c.access === 3) c.readHigh ^= 1;
    return high ? v >>> 8 : v & 0xff;
  }

  #setGate(n: number, level: 0 | 1): void {
    const c = this.#channels[n]!;
    if (c.gate === level) return;
    const now = this.#clock.now();
    if (level === 0 && !triggered(c)) c.frozen = remaining(c, now);
    c.gate = level;
    if (level === 1) {
      if (c.mode === 0 || c.mode === 4) c.start = now - (c.count - c.frozen) * nsPerTick;
      else {
        c.start = now;
        if (triggered(c)) c.count = c.frozen;
        if (c.count !== 0) c.running = 1;
      }
    }
    this.#changed(n, now);
  }

  /** Bit 4 toggles with each refresh (about 15 µs), bit 5 is channel 2's output. */
  #readPort61(): number {
    const now = this.#clock.now();
    return this.s.speaker | ((Math.floor(now / 15_085) & 1) << 4) | (output(this.#channels[2]!, now) << 5);
  }

  #writePort61(v: number): void {
    this.s.speaker = v & 15;
    this.#setGate(2, (v & 1) as 0 | 1);
  }

  /** The channel is another one since `now`, and what it does after that moment counts: a short count may end before this returns. */
  #changed(n: number, now: number): void {
    if (n !== 0) return;
    const c = this.#channels[0]!;
    c.served = now;
    // A control word raises the output in most modes; that edge is no tick, and is not passed on.
    if (output(c, now) === 0) this.#irq.set(0);
    this.#retime();
  }
}

/** The gate's rising edge begins the count. */
const triggered = (c: Channel): boolean => c.mode === 1 || c.mode === 5;

/** Clock pulses since the count began. */
const elapsed = (c: Channel, now: number): number => Math.floor(((now - c.start) * pitHz) / 1e9 + 1e-6);

/** Pulses left of the count in the counting modes; stands still while the gate is low. */
function remaining(c: Channel, now: number): number {
  if (c.count === 0) return 0;
  if (!c.running) return c.count;
  if (c.gate === 0 && !triggered(c)) return c.frozen;
  const ticks = elapsed(c, now);
  const modulus = c.bcd ? 10_000 : 0x1_0000;
  switch (c.mode) {
    case 2:
      return c.count - (ticks % c.count);
    case 3: {
      // Counts down by two, twice per period.
      const half = c.count - ((2 * (ticks % c.count)) % c.count);
      return half & ~1 || c.count;
    }
    default:
      return (((c.count - ticks) % modulus) + modulus) % modulus;
  }
}

/** The counting element as the chip reads it. */
function value(c: Channel, now: number): number {
  const n = remaining(c, now);
  return c.bcd ? toBcd(n % 10_000) : n & 0xffff;
}

function output(c: Channel, now: number): 0 | 1 {
  if (c.count === 0 || !c.running) return c.mode === 0 ? 0 : 1;
  const ticks = elapsed(c, now);
  const stopped = c.gate === 0;
  switch (c.mode) {
    case 0:
      return (stopped ? c.frozen === 0 : ticks >= c.count) ? 1 : 0;
    case 1:
      return ticks >= c.count ? 1 : 0;
    case 2:
      return stopped || ticks % c.count !== c.count - 1 ? 1 : 0;
    case 3:
      return stopped || ticks % c.count < (c.count + 1) >>> 1 ? 1 : 0;
    default:
      return ticks === c.count && !(stopped && c.mode === 4) ? 0 : 1;
  }
}

/** Time of the first change of a channel's output after `from`, in ns. */
function nextEdge(c: Channel, from: number): number {
  if (c.count === 0 || !c.running || (c.gate === 0 && !triggered(c))) return never;
  const ticks = elapsed(c, from);
  let at: number;
  switch (c.mode) {
    case 0:
    case 1:
      if (ticks >= c.count) return never;
      at = c.count;
      break;
    case 2:
      // Only the rising edge counts; the pulse before it is 838 ns long, too short to be served apart.
      at = ticks - (ticks % c.count) + c.count;
      break;
    case 3: {
      const begin = ticks - (ticks % c.count);
      const half = (c.count + 1) >>> 1;
      at = ticks % c.count < half ? begin + half : begin + c.count;
      break;
    }
    default:
      if (ticks > c.count) return never;
      at = ticks < c.count ? c.count : c.count + 1;
  }
  return c.start + at * nsPerTick;
}

const fromBcd = (v: number): number => (v & 15) + 10 * ((v >>> 4) & 15) + 100 * ((v >>> 8) & 15) + 1000 * ((v >>> 12) & 15);
const toBcd = (v: number): number =>
  (v % 10) | ((Math.floor(v / 10) % 10) << 4) | ((Math.floor(v / 100) % 10) << 8) | ((Math.floor(v / 1000) % 10) << 12);
