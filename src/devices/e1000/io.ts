// The I/O side of gigabit cards: frames between the driver's rings and a back-end. 8254x SDM, chapter 3; 82574 Data Sheet, chapter 7.

import { CardIo, type CardIoOptions } from '../card-io.ts';
import {
  accepts,
  type Card,
  ctrl,
  isBroadcast,
  isTagged,
  type Ring,
  rctl,
  type Steering,
  statistic,
  type TxContext,
  tctl,
} from './card.ts';
import { finish, insertChecksum, segments } from './offload.ts';

const DESCRIPTOR = 16;
/** Packets that are taken at one go with the lock held, and in one turn of the I/O thread. */
const BATCH = 32;
const TURN = 256;
/** Longest packet of the driver's: 64 KiB with headers. */
const LONGEST = 65_536 + 256;
/** Bytes of frames that wait for the driver's buffers. */
const WAITING = 1 << 20;
const SHORTEST = 60;
const ORDINARY = 1518;
const LARGEST = 16_384;
const CRC = 4;

const command = { end: 1, checksum: 4, segment: 4, report: 8, reportSent: 0x10, extended: 0x20, vlan: 0x40 } as const;
const done = 1;

export class E1000Io extends CardIo {
  readonly #e: Card;
  #epoch = -1;

  constructor(e: Card, o: CardIoOptions) {
    super(o);
    this.#e = e;
    e.connect();
  }
  /** The driver has moved a tail, or enabled one of the rings. */
  serve(): void {
    if (this.held) return;
    this.#forget();
    this.#retry();
    for (let taken = 0; taken < TURN; taken += BATCH) {
      const out = this.lock.run(() => this.#take());
      for (const frame of out.frames) this.port.send(frame);
      if (!out.more) return;
    }
    this.again();
  }

  /** What waited before a reset is of an earlier time. */
  #forget(): void {
    if (this.#epoch === this.#e.s.epoch) return;
    this.#epoch = this.#e.s.epoch;
    this.waiting = [];
    this.waitingBytes = 0;
  }

  // -- to the network; with the lock held

  #take(): { readonly frames: readonly Uint8Array[]; readonly more: boolean } {
    const { s } = this.#e;
    const frames: Uint8Array[] = [];
    if (!(s.tctl & tctl.enable) || !this.master()) return { frames, more: false };
    let more = false;
    for (const [queue, ring] of s.tx.entries()) {
      const count = ring.length / DESCRIPTOR;
      // A head or tail outside of the ring is the driver's mistake: the ring stands still.
      if (ring.head >= count || ring.tail >= count) continue;
      let packets = 0;
      let reported = false;
      for (let steps = 0; ring.head !== ring.tail && packets < BATCH && steps < count; packets++) {
        const next = this.#packet(queue, ring, frames);
        if (next === undefined) break;
        reported ||= next.report;
        ring.head = (ring.head + next.used) % count;
        steps += next.used;
      }
      if (packets > 0) this.#e.sent(queue, reported);
      more ||= packets === BATCH && ring.head !== ring.tail;
    }
    return { frames, more };
  }
  /** Takes a context, or a packet whose last descriptor is there; undefined where it is not. */
  #packet(queue: number, ring: Ring, frames: Uint8Array[]): { readonly used: number; readonly report: boolean } | undefined {
    const m = this.memory;
    const count = ring.length / DESCRIPTOR;
    const at = (n: number): number => baseOf(ring) + DESCRIPTOR * ((ring.head + n) % count);
    const waiting = (ring.tail - ring.head + count) % count;
    const first = at(0);
    const [low, high] = [m.read32(first + 8), m.read32(first + 12)];
    if (isExtended(low) && ((low >>> 20) & 15) === 0) {
      this.#context(queue, first, low, high);
      return { used: 1, report: this.#written(first, low) };
    }
    // The packet's descriptors: up to the one that says that it is the end.
    let used = 1;
    while (!((m.read32(at(used - 1) + 8) >>> 24) & command.end)) if (++used > waiting) return undefined;
    const parts: Uint8Array[] = [];
    let length = 0;
    for (let n = 0; n < used; n++) {
      const word = m.read32(at(n) + 8);
      const size = word & (isExtended(word) ? 0xf_ffff : 0xffff);
      const gpa = m.read32(at(n) + 4) * 2 ** 32 + m.read32(at(n));
      length += size;
      if (length > LONGEST) continue;
      parts.push(this.#bytes(gpa, size));
    }
    const last = m.read32(at(used - 1) + 8);
    if (length <= LONGEST) {
      const packet = { queue, low, high, last, lastHigh: m.read32(at(used - 1) + 12) };
      this.#send(joined(parts, length), packet, frames);
    }
    let report = false;
    for (let n = 0; n < used; n++) report = this.#written(at(n), m.read32(at(n) + 8)) || report;
    return { used, report };
  }
  /** A copy, so that the guest may change its memory while the frame is looked at; what is no RAM is zeros. */
  #bytes(gpa: number, size: number): Uint8Array {
    const out = new Uint8Array(size);
    for (let at = 0; at < size; ) {
      const n = Math.min(size - at, 4096 - ((gpa + at) % 4096));
      const from = this.memory.slice(gpa + at, n);
      if (from) out.set(from, at);
      at += n;
    }
    return out;
  }
  #context(queue: number, gpa: number, low: number, high: number): void {
    const m = this.memory;
    const [tcp, ipv4] = [1, 2];
    const dcmd = low >>> 24;
    const c = this.#e.s.context[2 * queue + (dcmd & command.segment ? 1 : 0)]!;
    const [ip, upper] = [m.read32(gpa), m.read32(gpa + 4)];
    Object.assign(c, {
      ipStart: ip & 0xff,
      ipOffset: (ip >>> 8) & 0xff,
      ipEnd: ip >>> 16,
      start: upper & 0xff,
      offset: (upper >>> 8) & 0xff,
      end: upper >>> 16,
      payload: low & 0xf_ffff,
      header: (high >>> 8) & 0xff,
      segment: high >>> 16,
      tcp: dcmd & tcp ? 1 : 0,
      ipv4: dcmd & ipv4 ? 1 : 0,
    });
  }
  /** Tells the driver that a descriptor is done, where it wants to know. */
  #written(gpa: number, word: number): boolean {
    if (!((word >>> 24) & (command.report | command.reportSent))) return false;
    this.memory.write32(gpa + 12, this.memory.read32(gpa + 12) | done);
    return true;
  }
  #send(packet: Uint8Array, { queue, low, high, last, lastHigh }: Described, frames: Uint8Array[]): void {
    const { s } = this.#e;
    const vlan = (last >>> 24) & command.vlan && s.ctrl & ctrl.vlan ? lastHigh >>> 16 : undefined;
    let ready: Iterable<Uint8Array> = [packet];
    if (isExtended(low)) {
      const [ip, tcp] = [1, 2];
      const wanted = { ip: ((high >>> 8) & ip) !== 0, tcp: ((high >>> 8) & tcp) !== 0 };
      const segmented = ((low >>> 24) & command.segment) !== 0;
      const c: TxContext = s.context[2 * queue + (segmented ? 1 : 0)]!;
      if (segmented) ready = segments(packet, c, wanted);
      else finish(packet, c, wanted);
    } else if ((last >>> 24) & command.checksum) insertChecksum(packet, (lastHigh >>> 8) & 0xff, (last >>> 16) & 0xff, 0);
    for (const one of ready) {
      if (one.length < 14 || one.length > LARGEST) continue;
      const frame = vlan === undefined ? one : tagged(one, s.vet, vlan);
      this.#count('tx', frame);
      if (s.cable) frames.push(frame);
    }
  }

  // -- from the network

  protected receive(frame: Uint8Array): void {
    const { s } = this.#e;
    if (frame.length > LARGEST || !s.cable) return;
    this.#forget();
    if (this.waiting.length === 0 && !this.held && this.lock.run(() => this.#put(frame))) return;
    if (!(s.rctl & rctl.enable) || this.waitingBytes + frame.length > WAITING) return;
    this.waiting.push(frame.slice());
    this.waitingBytes += frame.length;
  }
  #retry(): void {
    let count = 0;
    for (const frame of this.waiting) {
      if (!this.lock.run(() => this.#put(frame))) break;
      this.waitingBytes -= frame.length;
      count++;
    }
    this.waiting.splice(0, count);
  }
  /** Puts a frame into the driver's buffers, or drops one that it does not want; false when there are not enough of them. */
  #put(whole: Uint8Array): boolean {
    const { s } = this.#e;
    if (!(s.rctl & rctl.enable) || !this.master()) return true;
    const length = Math.max(SHORTEST, whole.length);
    if (length > ORDINARY + 4 - CRC && !(s.rctl & rctl.long)) return true;
    if (!accepts(this.#e, whole)) return true;
    const tag = s.ctrl & ctrl.vlan && isTagged(whole, s.vet) ? (whole[14]! << 8) | whole[15]! : undefined;
    const frame = new Uint8Array(length - (tag === undefined ? 0 : 4) + (s.rctl & rctl.stripCrc ? 0 : CRC));
    if (tag === undefined) frame.set(whole);
    else {
      frame.set(whole.subarray(0, 12));
      frame.set(whole.subarray(16), 12);
    }
    return this.#place(frame, tag, whole);
  }
  /** False when the ring has not enough buffers now, but may have them later. */
  #place(frame: Uint8Array, tag: number | undefined, whole: Uint8Array): boolean {
    const e = this.#e;
    const steering = e.steer(whole);
    const ring = e.s.rx[steering.queue]!;
    const { buffers } = e;
    const step = e.format === 'split' ? 2 * DESCRIPTOR : DESCRIPTOR;
    const count = Math.floor(ring.length / step);
    if (ring.head >= count || ring.tail >= count) return true;
    const free = (ring.tail - ring.head + count) % count;
    const size = buffers.reduce((sum, n) => sum + n, 0);
    const needed = size === 0 ? count : Math.ceil(frame.length / size);
    if (needed > free) {
      e.statistics.count(statistic.rxNoBuffer);
      e.overrun();
      // More than the ring ever has: it is lost.
      return needed >= count;
    }
    for (let n = 0, at = 0; n < needed; n++, at += size) {
      const gpa = baseOf(ring) + step * ring.head;
      this.#descriptor(gpa, frame.subarray(at, at + size), n === needed - 1, tag, steering);
      ring.head = (ring.head + 1) % count;
    }
    this.#count('rx', whole);
    e.received(steering.queue, free - needed <= count >>> (1 + ((e.s.rctl >>> 8) & 3)));
    return true;
  }
  /** Fills the buffers of a descriptor, and writes it back in the format that the driver wants. */
  #descriptor(gpa: number, part: Uint8Array, last: boolean, tag: number | undefined, steering: Steering): void {
    const m = this.memory;
    const [end, noChecksum, vlan] = [2, 4, 8];
    const status = done | (last ? end | noChecksum : 0) | (tag === undefined ? 0 : vlan);
    const { format, buffers } = this.#e;
    const places = buffers.map((_, n) => m.read32(gpa + 8 * n + 4) * 2 ** 32 + m.read32(gpa + 8 * n));
    const lengths = buffers.map((size, n) => {
      const from = buffers.slice(0, n).reduce((sum, x) => sum + x, 0);
      const piece = part.subarray(from, from + size);
      this.#copy(places[n]!, piece);
      return piece.length;
    });
    if (format === 'legacy') {
      m.write32(gpa + 8, part.length);
      m.write32(gpa + 12, (status | ((tag ?? 0) << 16)) >>> 0);
      return;
    }
    m.write32(gpa, steering.kind | (steering.queue << 8));
    m.write32(gpa + 4, steering.hash);
    m.write32(gpa + 12, (lengths[0]! | ((tag ?? 0) << 16)) >>> 0);
    if (format === 'split') {
      // Headers are not taken off.
      m.write32(gpa + 16, (lengths[1]! << 16) >>> 0);
      m.write32(gpa + 20, (lengths[2]! | (lengths[3]! << 16)) >>> 0);
    }
    // What tells that it is done comes last.
    m.write32(gpa + 8, status);
  }
  #copy(into: number, bytes: Uint8Array): void {
    const m = this.memory;
    for (let at = 0; at < bytes.length; ) {
      const n = Math.min(bytes.length - at, 4096 - ((into + at) % 4096));
      m.slice(into + at, n)?.set(bytes.subarray(at, at + n));
      m.written(into + at, n);
      at += n;
    }
  }

  #count(way: 'rx' | 'tx', frame: Uint8Array): void {
    const e = this.#e.statistics;
    const rx = way === 'rx';
    const octets = frame.length + CRC;
    e.count(rx ? statistic.rxGood : statistic.txGood);
    e.count(rx ? statistic.rxAll : statistic.txAll);
    e.count(rx ? statistic.rxOctets : statistic.txOctets, octets);
    e.count(rx ? statistic.rxAllOctets : statistic.txAllOctets, octets);
    if (isBroadcast(frame)) e.count(rx ? statistic.rxBroadcast : statistic.txBroadcast);
    else if (frame[0]! & 1) e.count(rx ? statistic.rxMulticast : statistic.txMulticast);
  }
}

/** The words of a packet's descriptors: the second half of the first and of the last one. */
interface Described {
  readonly queue: number;
  readonly low: number;
  readonly high: number;
  readonly last: number;
  readonly lastHigh: number;
}
const baseOf = (ring: Ring): number => ring.high * 2 ** 32 + ring.low;
const isExtended = (word: number): boolean => ((word >>> 24) & command.extended) !== 0;

function joined(parts: readonly Uint8Array[], length: number): Uint8Array {
  if (parts.length === 1) return parts[0]!;
  const out = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
function tagged(frame: Uint8Array, vet: number, tag: number): Uint8Array {
  const out = new Uint8Array(frame.length + 4);
  out.set(frame.subarray(0, 12));
  out.set([(vet >>> 8) & 0xff, vet & 0xff, tag >>> 8, tag & 0xff], 12);
  out.set(frame.subarray(12), 16);
  return out;
}
