// The I/O side of the e1000: frames between the driver's rings and a back-end. 8254x SDM, chapter 3.

import type { Lock } from '../../bus/lock.ts';
import type { GuestMemory } from '../../bus/memory.ts';
import { cause, ctrl, type E1000, rctl, statistic, type TxContext, tctl } from './controller.ts';
import { finish, insertChecksum, segments } from './offload.ts';

/** What carries the frames: `src/net/backend.ts` has more of it. Whole frames only. */
export interface FramePort {
  send(frame: Uint8Array): void;
  receive: (frame: Uint8Array) => void;
}

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

export class E1000Io {
  readonly #e: E1000;
  readonly #lock: Lock;
  readonly #memory: GuestMemory;
  readonly #port: FramePort;
  readonly #master: () => boolean;
  readonly #again: () => void;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #epoch = -1;
  #held = false;

  /** `master`: the guest lets the card use its memory. `again` has `serve` called once more, after others' turns. */
  constructor(e: E1000, o: { lock: Lock; memory: GuestMemory; port: FramePort; master: () => boolean; again: () => void }) {
    this.#e = e;
    this.#lock = o.lock;
    this.#memory = o.memory;
    this.#port = o.port;
    this.#master = o.master;
    this.#again = o.again;
    e.connect();
    o.port.receive = (frame) => this.#receive(frame);
  }
  close(): void {
    this.#port.receive = () => {};
  }
  /** The machine is held: guest memory stands still until `release`. */
  hold(): void {
    this.#held = true;
  }
  release(): void {
    this.#held = false;
    this.#again();
  }
  /** The driver has moved a tail, or enabled one of the rings. */
  serve(): void {
    if (this.#held) return;
    this.#forget();
    this.#retry();
    for (let taken = 0; taken < TURN; taken += BATCH) {
      const out = this.#lock.run(() => this.#take());
      for (const frame of out.frames) this.#port.send(frame);
      if (!out.more) return;
    }
    this.#again();
  }

  /** What waited before a reset is of an earlier time. */
  #forget(): void {
    if (this.#epoch === this.#e.s.epoch) return;
    this.#epoch = this.#e.s.epoch;
    this.#waiting = [];
    this.#waitingBytes = 0;
  }

  // -- to the network; with the lock held

  #take(): { readonly frames: readonly Uint8Array[]; readonly more: boolean } {
    const { s } = this.#e;
    const frames: Uint8Array[] = [];
    if (!(s.tctl & tctl.enable) || !this.#master()) return { frames, more: false };
    let causes = 0;
    let packets = 0;
    const ring = { base: s.tdbah * 2 ** 32 + s.tdbal, count: s.tdlen / DESCRIPTOR };
    // A head or tail outside of the ring is the driver's mistake: the ring stands still.
    if (s.tdh >= ring.count || s.tdt >= ring.count) return { frames, more: false };
    let steps = 0;
    while (s.tdh !== s.tdt && packets < BATCH && steps < ring.count) {
      const next = this.#packet(ring, frames);
      if (next === undefined) break;
      causes |= next.report ? cause.txWritten : 0;
      s.tdh = (s.tdh + next.used) % ring.count;
      steps += next.used;
      packets++;
    }
    if (packets > 0) this.#e.raise(causes | (s.tdh === s.tdt ? cause.txEmpty : 0));
    return { frames, more: packets === BATCH && s.tdh !== s.tdt };
  }
  /** Takes a context, or a packet whose last descriptor is there; undefined where it is not. */
  #packet(ring: Ring, frames: Uint8Array[]): { readonly used: number; readonly report: boolean } | undefined {
    const { s } = this.#e;
    const m = this.#memory;
    const at = (n: number): number => ring.base + DESCRIPTOR * ((s.tdh + n) % ring.count);
    const waiting = (s.tdt - s.tdh + ring.count) % ring.count;
    const first = at(0);
    const [low, high] = [m.read32(first + 8), m.read32(first + 12)];
    if (isExtended(low) && ((low >>> 20) & 15) === 0) {
      this.#context(first, low, high);
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
    if (length <= LONGEST) this.#send(joined(parts, length), low, high, last, m.read32(at(used - 1) + 12), frames);
    let report = false;
    for (let n = 0; n < used; n++) report = this.#written(at(n), m.read32(at(n) + 8)) || report;
    return { used, report };
  }
  /** A copy, so that the guest may change its memory while the frame is looked at; what is no RAM is zeros. */
  #bytes(gpa: number, size: number): Uint8Array {
    const out = new Uint8Array(size);
    for (let at = 0; at < size; ) {
      const n = Math.min(size - at, 4096 - ((gpa + at) % 4096));
      const from = this.#memory.slice(gpa + at, n);
      if (from) out.set(from, at);
      at += n;
    }
    return out;
  }
  #context(gpa: number, low: number, high: number): void {
    const m = this.#memory;
    const [tcp, ipv4] = [1, 2];
    const dcmd = low >>> 24;
    const c = this.#e.s.context[dcmd & command.segment ? 1 : 0]!;
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
    this.#memory.write32(gpa + 12, this.#memory.read32(gpa + 12) | done);
    return true;
  }
  #send(packet: Uint8Array, low: number, high: number, last: number, lastHigh: number, frames: Uint8Array[]): void {
    const { s } = this.#e;
    const vlan = (last >>> 24) & command.vlan && s.ctrl & ctrl.vlan ? lastHigh >>> 16 : undefined;
    let ready: Iterable<Uint8Array> = [packet];
    if (isExtended(low)) {
      const [ip, tcp] = [1, 2];
      const wanted = { ip: ((high >>> 8) & ip) !== 0, tcp: ((high >>> 8) & tcp) !== 0 };
      const segmented = ((low >>> 24) & command.segment) !== 0;
      const c: TxContext = s.context[segmented ? 1 : 0]!;
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

  #receive(frame: Uint8Array): void {
    const { s } = this.#e;
    if (frame.length > LARGEST || !s.cable) return;
    this.#forget();
    if (this.#waiting.length === 0 && !this.#held && this.#lock.run(() => this.#put(frame))) return;
    if (!(s.rctl & rctl.enable) || this.#waitingBytes + frame.length > WAITING) return;
    this.#waiting.push(frame.slice());
    this.#waitingBytes += frame.length;
  }
  #retry(): void {
    let count = 0;
    for (const frame of this.#waiting) {
      if (!this.#lock.run(() => this.#put(frame))) break;
      this.#waitingBytes -= frame.length;
      count++;
    }
    this.#waiting.splice(0, count);
  }
  /** Puts a frame into the driver's buffers, or drops one that it does not want; false when there are not enough of them. */
  #put(whole: Uint8Array): boolean {
    const { s } = this.#e;
    if (!(s.rctl & rctl.enable) || !this.#master()) return true;
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
    const size = bufferSize(s.rctl);
    const ring = { base: s.rdbah * 2 ** 32 + s.rdbal, count: s.rdlen / DESCRIPTOR };
    if (s.rdh >= ring.count || s.rdt >= ring.count) return true;
    const free = (s.rdt - s.rdh + ring.count) % ring.count;
    const needed = Math.ceil(frame.length / size);
    if (needed > free) {
      this.#e.count(statistic.rxNoBuffer);
      this.#e.raise(cause.rxOverrun);
      // More than the ring ever has: it is lost.
      return needed >= ring.count;
    }
    for (let n = 0, at = 0; n < needed; n++, at += size) {
      const part = frame.subarray(at, at + size);
      this.#descriptor(ring.base + DESCRIPTOR * s.rdh, part, n === needed - 1, tag);
      s.rdh = (s.rdh + 1) % ring.count;
    }
    this.#count('rx', whole);
    const low = ring.count >>> (1 + ((s.rctl >>> 8) & 3));
    this.#e.raise(cause.rxTimer | (free - needed <= low ? cause.rxLow : 0));
    return true;
  }
  #descriptor(gpa: number, part: Uint8Array, last: boolean, tag: number | undefined): void {
    const m = this.#memory;
    const [end, noChecksum, vlan] = [2, 4, 8];
    const into = m.read32(gpa + 4) * 2 ** 32 + m.read32(gpa);
    for (let at = 0; at < part.length; ) {
      const n = Math.min(part.length - at, 4096 - ((into + at) % 4096));
      m.slice(into + at, n)?.set(part.subarray(at, at + n));
      m.written(into + at, n);
      at += n;
    }
    m.write32(gpa + 8, part.length);
    const status = done | (last ? end | noChecksum : 0) | (tag === undefined ? 0 : vlan);
    m.write32(gpa + 12, (status | ((tag ?? 0) << 16)) >>> 0);
  }

  #count(way: 'rx' | 'tx', frame: Uint8Array): void {
    const e = this.#e;
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

interface Ring {
  readonly base: number;
  readonly count: number;
}
const isExtended = (word: number): boolean => ((word >>> 24) & command.extended) !== 0;
const isBroadcast = (frame: Uint8Array): boolean => frame.subarray(0, 6).every((b) => b === 0xff);
const isTagged = (frame: Uint8Array, vet: number): boolean =>
  frame.length >= 18 && ((frame[12]! << 8) | frame[13]!) === (vet & 0xffff);

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

/** Bytes of one receive buffer (section 13.4.22). */
export function bufferSize(value: number): number {
  const small = 2048 >>> ((value >>> 16) & 3);
  return (value >>> 25) & 1 ? Math.min(LARGEST, small * 16) : small;
}

/** Whether the driver wants a frame (section 3.2.1). */
export function accepts({ s }: E1000, frame: Uint8Array): boolean {
  if (s.rctl & rctl.vlanFilter && isTagged(frame, s.vet)) {
    const vid = ((frame[14]! & 15) << 8) | frame[15]!;
    if (!(s.vlans[vid >>> 5]! & (1 << (vid & 31)))) return false;
  }
  const group = (frame[0]! & 1) !== 0;
  if (s.rctl & (group ? rctl.multicast : rctl.unicast)) return true;
  if (s.rctl & rctl.broadcast && isBroadcast(frame)) return true;
  const low = (frame[0]! | (frame[1]! << 8) | (frame[2]! << 16) | (frame[3]! << 24)) >>> 0;
  const high = frame[4]! | (frame[5]! << 8);
  for (let n = 0; n < 32; n += 2)
    if (s.addresses[n] === low && (s.addresses[n + 1]! & 0xffff) === high && s.addresses[n + 1]! >>> 31) return true;
  if (!group) return false;
  const shift = [4, 3, 2, 0][(s.rctl >>> 12) & 3]!;
  const hash = (high >>> shift) & 0xfff;
  return (s.multicast[hash >>> 5]! & (1 << (hash & 31))) !== 0;
}
