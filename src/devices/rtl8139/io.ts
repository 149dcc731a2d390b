// The I/O side of the RTL8139C+: frames between a back-end and the driver's buffers, in the form of the RTL8139C (four transmit
// descriptors and one ring of bytes) or by rings of descriptors. RTL8139C+ data sheet, chapters 5, 7 and 9.

import { CardIo, type CardIoOptions } from '../card-io.ts';
import { noContext } from '../e1000/card.ts';
import { finish, segments } from '../e1000/offload.ts';
import { cause, command, cplus, type Rtl8139, rcr, tsd } from './controller.ts';

/** Descriptors of a ring; packets and descriptors in one turn of the I/O thread. */
const RING = 64;
const TURN = 256;
const DESCRIPTOR = 16;
const LONGEST = 65_536;
const MOST = 1518;
const SHORTEST = 60;
const CRC = 4;
/** Bytes of frames that wait for the driver's buffers. */
const WAITING = 1 << 20;
const OWN = 0x8000_0000;
const END = 0x4000_0000;
const FIRST = 0x2000_0000;
const LAST = 0x1000_0000;
/** Of a transmit descriptor of C+ (section 9.3.1). */
const wanted = { large: 1 << 27, ip: 1 << 18, udp: 1 << 17, tcp: 1 << 16, vlan: 1 << 17 } as const;

export class Rtl8139Io extends CardIo {
  readonly #d: Rtl8139;
  /** Pieces of a packet whose last descriptor has not come. */
  #parts: Uint8Array[] = [];
  #epoch = -1;

  constructor(d: Rtl8139, o: CardIoOptions) {
    super(o);
    this.#d = d;
    d.connect();
  }
  /** The driver has something to send, or has made room. */
  serve(): void {
    if (this.held) return;
    this.#forget();
    let count = 0;
    for (const frame of this.waiting) {
      if (!this.lock.run(() => this.#put(frame))) break;
      this.waitingBytes -= frame.length;
      count++;
    }
    this.waiting.splice(0, count);
    const frames: Uint8Array[] = [];
    const more = this.lock.run(() => this.#take(frames));
    for (const frame of frames) this.port.send(frame);
    if (more) this.again();
  }
  #forget(): void {
    if (this.#epoch === this.#d.s.epoch) return;
    this.#epoch = this.#d.s.epoch;
    this.waiting = [];
    this.#parts = [];
    this.waitingBytes = 0;
  }

  // -- to the network; with the lock held

  #take(frames: Uint8Array[]): boolean {
    const { s } = this.#d;
    if (!(s.command & command.transmit) || !this.master()) return false;
    if (!(s.cplus & cplus.transmit)) {
      // In their order, each once the driver has given it.
      for (let n = 0; n < 4 && !(s.txStatus[s.txNext]! & tsd.own); n++) {
        const at = s.txNext;
        this.#send(this.#bytes(s.txAddress[at]!, s.txStatus[at]! & tsd.size), frames);
        s.txStatus[at] = s.txStatus[at]! | tsd.own | tsd.ok;
        s.txNext = (at + 1) % 4;
        this.#d.raise(cause.txOk);
      }
      return false;
    }
    let more = false;
    for (const [bit, ring, name] of [[0x80, 2, 'txPriorityAt'], [0x40, 0, 'txAt']] as const) {
      if (!(s.polls & bit)) continue;
      let steps = 0;
      while (steps < TURN && this.#descriptor(s.txAddress[ring + 1]! * 2 ** 32 + s.txAddress[ring]!, name, frames)) steps++;
      if (steps === TURN) more = true;
      else s.polls &= ~bit;
    }
    return more;
  } // biome-ignore format: pairs
  /** Takes one descriptor of a ring; false where it is the driver's. */
  #descriptor(base: number, name: 'txAt' | 'txPriorityAt', frames: Uint8Array[]): boolean {
    const { s } = this.#d;
    const m = this.memory;
    const gpa = base + DESCRIPTOR * (s[name] % RING);
    const [word, tag] = [m.read32(gpa), m.read32(gpa + 4)];
    // Where nothing can be written back, a ring would never end.
    if (!(word & OWN) || m.slice(gpa, DESCRIPTOR) === undefined) {
      this.#d.raise(cause.txNone);
      return false;
    }
    s[name] = word & END ? 0 : (s[name] + 1) % RING;
    if (word & FIRST) this.#parts = [];
    this.#parts.push(this.#bytes(m.read32(gpa + 12) * 2 ** 32 + m.read32(gpa + 8), word & 0xffff));
    const length = this.#parts.reduce((sum, p) => sum + p.length, 0);
    m.write32(gpa, (word & ~OWN) >>> 0);
    if (length > LONGEST) this.#parts = [];
    else if (word & LAST) {
      this.#packet(joined(this.#parts, length), word, tag, frames);
      this.#parts = [];
      this.#d.raise(cause.txOk);
    }
    return true;
  }
  /** A packet with what the driver has left to the card: checksums, segments of TCP, a tag. */
  #packet(packet: Uint8Array, word: number, tag: number, frames: Uint8Array[]): void {
    const large = (word & wanted.large) !== 0;
    const want = { ip: large || (word & wanted.ip) !== 0, tcp: large || (word & (wanted.udp | wanted.tcp)) !== 0 };
    let ready: Iterable<Uint8Array> = [packet];
    if ((want.ip || want.tcp) && packet.length >= 34 && packet[12] === 8 && packet[13] === 0 && packet[14]! >>> 4 === 4) {
      const start = 14 + 4 * (packet[14]! & 15);
      const tcp = packet[23] === 6;
      const c = {
        ...noContext,
        ...{
          ipStart: 14,
          ipOffset: 24,
          ipEnd: start - 1,
          start,
          offset: start + (tcp ? 16 : 6),
          end: 0,
          ipv4: 1,
          tcp: tcp ? 1 : 0,
        },
        ...{ header: start + (tcp ? 4 * ((packet[start + 12] ?? 0) >>> 4) : 8), segment: (word >>> 16) & 0x7ff },
      };
      // The card sums the pseudo-header, too.
      const has = packet.length >= c.offset + 2;
      if (want.ip) packet.set([0, 0], 24);
      if (want.tcp && has) {
        const length = large ? 0 : ((packet[16]! << 8) | packet[17]!) - (start - 14);
        let sum = packet[23]! + length;
        for (let i = 26; i < 34; i += 2) sum += (packet[i]! << 8) | packet[i + 1]!;
        while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
        packet.set([sum >>> 8, sum & 0xff], c.offset);
      }
      if (large) ready = segments(packet, c, want);
      else finish(packet, c, { ip: want.ip, tcp: want.tcp && has });
    }
    for (const one of ready) this.#send(tag & wanted.vlan ? tagged(one, tag & 0xffff) : one, frames);
  }
  #send(frame: Uint8Array, frames: Uint8Array[]): void {
    const loopback = ((this.#d.s.tcr >>> 17) & 3) === 3;
    if (frame.length < 14 || loopback || !this.#d.s.cable) return;
    frames.push(frame);
  }
  /** A copy; what is no RAM is zeros. */
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

  // -- from the network

  protected receive(frame: Uint8Array): void {
    const { s } = this.#d;
    if (frame.length > MOST || frame.length < 14 || !s.cable) return;
    this.#forget();
    if (this.waiting.length === 0 && !this.held && this.lock.run(() => this.#put(frame))) return;
    if (!(s.command & command.receive) || this.waitingBytes + frame.length > WAITING) return;
    this.waiting.push(frame.slice());
    this.waitingBytes += frame.length;
  }
  /** Puts a frame into the driver's buffers, or drops one that it does not want; false when there is no room. */
  #put(frame: Uint8Array): boolean {
    const { s } = this.#d;
    if (!(s.command & command.receive) || !this.master()) return true;
    const kind = this.#kind(frame);
    if (kind === undefined) return true;
    return this.#d.receivesByRing ? this.#byRing(frame, kind) : this.#byBytes(frame, kind);
  }
  /** How a frame is addressed, as status has it: broadcast, to us, multicast; undefined where it is not wanted. */
  #kind(frame: Uint8Array): number | undefined {
    const { s } = this.#d;
    const [broadcast, us, multicast] = [1, 2, 4];
    if (frame.subarray(0, 6).every((b) => b === 0xff)) return s.rcr & (rcr.broadcast | rcr.all) ? broadcast : undefined;
    if (frame[0]! & 1) {
      const hash = crc32(frame.subarray(0, 6)) >>> 26;
      const wants = s.rcr & rcr.all || (s.rcr & rcr.multicast && s.multicast[hash >>> 3]! & (1 << (hash & 7)));
      return wants ? multicast : undefined;
    }
    const ours = frame.subarray(0, 6).every((b, n) => b === s.id[n]);
    return s.rcr & rcr.all || (ours && s.rcr & rcr.unicast) ? (ours ? us : 0) : undefined;
  }
  /** A status word, the length and the frame, one behind the other in the ring. */
  #byBytes(frame: Uint8Array, kind: number): boolean {
    const { s } = this.#d;
    const size = this.#d.ringSize;
    const length = Math.max(SHORTEST, frame.length) + CRC;
    const needed = (4 + length + 3) & ~3;
    const used = (s.cbr - (s.capr % size) + size) % size;
    if (size - used <= needed) {
      this.#d.raise(cause.rxOverflow);
      s.missed = (s.missed + 1) & 0xff_ffff;
      return false;
    }
    const packet = new Uint8Array(4 + length);
    packet.set([1, kind & 1 ? 0x20 : kind & 2 ? 0x40 : kind & 4 ? 0x80 : 0, length & 0xff, length >>> 8]);
    packet.set(frame, 4);
    // Past the end goes on behind it where the driver has room there, else at the start.
    const first = s.rcr & rcr.noWrap ? packet.length : Math.min(packet.length, size - s.cbr);
    this.#copy(s.rxBuffer + s.cbr, packet.subarray(0, first));
    this.#copy(s.rxBuffer, packet.subarray(first));
    s.cbr = (s.cbr + needed) % size;
    this.#d.raise(cause.rxOk);
    return true;
  }
  #byRing(whole: Uint8Array, kind: number): boolean {
    const { s } = this.#d;
    const m = this.memory;
    const gpa = s.rxRing[1]! * 2 ** 32 + s.rxRing[0]! + DESCRIPTOR * (s.rxAt % RING);
    const word = m.read32(gpa);
    const strip = (s.cplus & cplus.vlan) !== 0 && whole.length >= 18 && whole[12] === 0x81 && whole[13] === 0;
    const frame = strip ? joined([whole.subarray(0, 12), whole.subarray(16)], whole.length - 4) : whole;
    const length = Math.max(SHORTEST, frame.length) + CRC;
    if (!(word & OWN) || length > (word & 0x1fff)) {
      this.#d.raise(cause.rxOverflow);
      s.missed = (s.missed + 1) & 0xff_ffff;
      return (word & OWN) !== 0;
    }
    const padded = new Uint8Array(length);
    padded.set(frame);
    this.#copy(m.read32(gpa + 12) * 2 ** 32 + m.read32(gpa + 8), padded);
    const available = 1 << 16;
    m.write32(gpa + 4, strip ? (available | (whole[15]! << 8) | whole[14]!) >>> 0 : 0);
    const [multicast, us, broadcast] = [1 << 26, 1 << 25, 1 << 24];
    const how = (kind & 1 ? broadcast : 0) | (kind & 2 ? us : 0) | (kind & 4 ? multicast : 0);
    m.write32(gpa, ((word & END) | FIRST | LAST | how | length) >>> 0);
    s.rxAt = word & END ? 0 : (s.rxAt + 1) % RING;
    this.#d.raise(cause.rxOk);
    return true;
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
}

/** The Ethernet checksum of an address, highest bit first (IEEE 802.3, section 3.2.9). */
export function crc32(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes)
    for (let bit = 0, b = byte; bit < 8; bit++, b >>>= 1) crc = ((crc << 1) ^ (((crc >>> 31) ^ b) & 1 ? 0x04c1_1db7 : 0)) >>> 0;
  return crc;
}
function joined(parts: readonly Uint8Array[], length: number): Uint8Array {
  const out = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
/** The tag is in the descriptor with its bytes turned round. */
function tagged(frame: Uint8Array, tag: number): Uint8Array {
  return joined([frame.subarray(0, 12), Uint8Array.of(0x81, 0, tag & 0xff, tag >>> 8), frame.subarray(12)], frame.length + 4);
}
