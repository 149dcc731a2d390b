// The sending half of a TCP connection: what is in flight, when it is sent again, how fast.
// RFC 9293, sections 3.7 and 3.8; RFC 6298 (retransmission timer); RFC 8985, section 7 (tail loss probe); RFC 5681 and 6582 (congestion control, NewReno); RFC 6675 (holes by SACK).
import type { NetClock } from '../host.ts';
import { Timer } from '../timer.ts';
import { Ranges } from './ranges.ts';
import { ByteRing } from './ring.ts';

/** Retransmission time-outs in ms. The floor is below RFC 6298's second, as the cable is virtual. */
const rto = { first: 1000, least: 200, most: 60_000 } as const;
/** Least ms before the end of what is in flight is sent once more, and how long the guest may keep an acknowledgement of one segment. */
const tail = { least: 10, delayed: 40 } as const;
/** Time-outs in a row after which the guest counts as gone: R2 of RFC 9293, section 3.8.3, more than 100 s. */
const patience = { data: 10, open: 6 } as const;

export interface SenderOptions {
  readonly clock: NetClock;
  /** Initial sequence number. */
  readonly iss: number;
  /** Sends `length` bytes of data at position `seq`, or none; with a FIN after them. */
  transmit(seq: number, length: number, fin: boolean): void;
  /** Most bytes of `transmit` for data that is new; `mss` where it is less. */
  burst?(): number;
  /** Sends the SYN again. */
  transmitSyn(): void;
  /** Nothing was acknowledged for too long. */
  timedOut(): void;
}

/** Positions are sequence numbers that do not wrap; the SYN takes the first. */
export class Sender {
  readonly ring = new ByteRing();
  readonly #o: SenderOptions;
  readonly #timer: Timer;
  /** Oldest position not acknowledged, next to send, and the highest ever sent (exclusive). */
  una: number;
  nxt: number;
  max: number;
  /** Position of the FIN once it was sent. */
  #fin: number | undefined;
  #finWanted = false;
  /** Peer's limits: window in bytes (and the largest seen), segment size. */
  window = 0;
  #windowMax = 0;
  #wl1 = 0;
  #wl2 = 0;
  mss = 536;
  #open = false;

  #cwnd = 0;
  #ssthresh = Number.POSITIVE_INFINITY;
  #duplicates = 0;
  /** During fast recovery: `max` when it began, and how far holes have been filled. */
  #recover: number | undefined;
  #filled = 0;
  readonly #sacked = new Ranges(32);

  #rto: number = rto.first;
  #srtt: number | undefined;
  #rttvar = 0;
  #timed: { readonly seq: number; readonly at: number } | undefined;
  #failures = 0;
  #persisting = false;
  /** The timer is for a tail loss probe; one was sent since the last news of the guest. */
  #probing = false;
  #probed = false;

  constructor(options: SenderOptions) {
    this.#o = options;
    this.una = options.iss;
    this.nxt = options.iss + 1;
    this.max = this.nxt;
    this.#timer = new Timer(options.clock, () => this.#expired());
  }

  /** A FIN of ours is acknowledged. */
  get finAcknowledged(): boolean {
    return this.#fin !== undefined && this.una > this.#fin;
  }

  get finWanted(): boolean {
    return this.#finWanted;
  }

  /** The SYN went out: it is repeated until `established`. */
  synSent(): void {
    this.#timed = { seq: this.una, at: this.#o.clock.now() };
    this.#timer.set(this.#rto);
  }

  /** Our SYN is acknowledged; the peer takes segments of `mss` bytes. */
  established(mss: number, window: number, seq: number): void {
    this.mss = mss;
    this.#sample(this.una + 1);
    this.una++;
    this.#open = true;
    this.#failures = 0;
    this.#rto = Math.max(this.#rto, rto.least);
    this.#cwnd = Math.max(10 * mss, 2 * (this.#o.burst?.() ?? 0));
    this.setWindow(window, seq, this.una, true);
    this.#timer.clear();
  }

  /** Sends no more after what is in the ring. */
  finish(): void {
    this.#finWanted = true;
    this.push();
  }

  /** The peer's window in bytes, from a segment at `seq` that acknowledges `ack`; older segments change nothing. */
  setWindow(window: number, seq: number, ack: number, first = false): boolean {
    if (!first && (this.#wl1 > seq || (this.#wl1 === seq && this.#wl2 > ack))) return false;
    const changed = window !== this.window;
    this.#wl1 = seq;
    this.#wl2 = ack;
    this.window = window;
    this.#windowMax = Math.max(this.#windowMax, window);
    if (changed && this.#persisting && window > 0) {
      this.#persisting = false;
      this.#failures = 0;
      this.#timer.clear();
    }
    return changed;
  }

  /** What the peer holds beyond a gap. Positions outside of what is in flight are ignored. */
  sacked(from: number, to: number): void {
    if (from >= this.una && to <= this.max && from < to) this.#sacked.add(from, to);
  }

  /**
   * Takes an acknowledgement of everything below `ack`, `una` to `max`. `duplicate`: it carries no data and no new window.
   * Gives the number of data bytes that are through.
   */
  acknowledge(ack: number, duplicate: boolean): number {
    if (ack > this.una) return this.#advance(ack);
    if (duplicate && this.max > this.una && !this.#persisting) this.#duplicate();
    return 0;
  }

  /** Sends what the windows allow. */
  push(): void {
    if (!this.#open) return;
    const most = Math.max(1, Math.floor((this.#o.burst?.() ?? 0) / this.mss)) * this.mss;
    for (;;) {
      const unsent = this.#unsent;
      // Limited transmit (RFC 3042): new data after the first duplicates, so that a third may come.
      const extra = this.#recover === undefined ? Math.min(this.#duplicates, 2) * this.mss : 0;
      const usable = this.una + Math.min(this.window, this.#cwnd + extra) - this.nxt;
      let n = Math.max(0, Math.min(unsent, most, usable));
      // Several segments at once are whole ones, but at the end.
      if (n > this.mss && n < unsent) n -= n % this.mss;
      const fin = this.#finWanted && n === unsent && (this.#fin === undefined || this.nxt + n <= this.#fin);
      // Sender's side of silly window avoidance: short segments only at the end of the data, or half of the peer's buffer.
      const worth = n > 0 && (n >= this.mss || n === unsent || n >= this.#windowMax / 2);
      if (!worth && !(fin && unsent === 0)) break;
      this.#send(this.nxt, n, fin);
      this.nxt += n + (fin ? 1 : 0);
      this.max = Math.max(this.max, this.nxt);
    }
    if (!this.#timer.armed && (this.#unsent > 0 || this.max > this.una)) {
      // Nothing is in flight and the window is too small: probe, as its update may get lost.
      if (this.nxt === this.una) this.#persisting = true;
      this.#probing = false;
      this.#timer.set(this.#rto);
    }
  }

  close(): void {
    this.#open = false;
    this.#timer.close();
  }

  /** Data bytes from `nxt` on. */
  get #unsent(): number {
    return Math.max(0, this.una + this.ring.length - this.nxt);
  }

  #send(seq: number, length: number, fin: boolean): void {
    if (fin) this.#fin = seq + length;
    // Karn: only what was sent once is timed.
    if (this.#timed === undefined && seq >= this.max) this.#timed = { seq, at: this.#o.clock.now() };
    else if (this.#timed !== undefined && seq <= this.#timed.seq && seq < this.max) this.#timed = undefined;
    if (!this.#timer.armed) this.#arm();
    this.#o.transmit(seq, length, fin);
  }

  #advance(ack: number): number {
    this.#sample(ack);
    const through = Math.min(ack - this.una, this.ring.length);
    this.ring.drop(through);
    const acked = ack - this.una;
    this.una = ack;
    this.nxt = Math.max(this.nxt, ack);
    this.#sacked.advance(ack);
    this.#failures = 0;
    this.#persisting = false;
    if (this.#recover !== undefined && ack < this.#recover) {
      // A partial acknowledgement: the next hole was lost as well (RFC 6582, section 3.2).
      this.#cwnd = Math.max(this.mss, this.#cwnd - acked + this.mss);
      this.#fill();
    } else {
      if (this.#recover !== undefined) this.#cwnd = this.#ssthresh;
      else if (this.#cwnd < this.#ssthresh) this.#cwnd += acked;
      else this.#cwnd += Math.max(1, Math.floor((this.mss * this.mss) / this.#cwnd));
      this.#recover = undefined;
      this.#duplicates = 0;
    }
    this.#cwnd = Math.min(this.#cwnd, 1 << 24);
    this.#probed = false;
    if (this.max > this.una) this.#arm();
    else this.#timer.clear();
    return through;
  }

  /** Sets the timer for what is in flight. */
  #arm(): void {
    const { least, delayed } = tail;
    const quick = Math.max(least, 2 * (this.#srtt ?? this.#rto)) + (this.max - this.una <= this.mss ? delayed : 0);
    this.#probing = this.#open && !this.#probed && this.#failures === 0 && this.#recover === undefined && quick < this.#rto;
    this.#timer.set(this.#probing ? quick : this.#rto);
  }

  /** Sends the end of what is in flight once more: its acknowledgement may have been lost, or tells what was. */
  #probeTail(): void {
    this.#probing = false;
    this.#probed = true;
    this.#timed = undefined;
    this.#timer.set(this.#rto);
    const end = Math.min(this.max, this.una + this.ring.length);
    const from = Math.max(this.una, end - this.mss);
    this.#o.transmit(from, end - from, this.#fin === end);
  }

  #duplicate(): void {
    this.#duplicates++;
    if (this.#recover !== undefined) {
      this.#cwnd += this.mss;
      if (this.#sacked.highest > this.#filled) this.#fill();
      return;
    }
    // A guest that merges segments reports several in one duplicate (RFC 6675, section 5, step 4).
    // After a tail loss probe its own arrival beyond a gap is enough.
    const reported = this.#sacked.total;
    if (this.#duplicates < 3 && reported <= (this.#probed ? 0 : 2 * this.mss)) return;
    this.#ssthresh = Math.max((this.max - this.una) / 2, 2 * this.mss);
    this.#cwnd = this.#ssthresh + 3 * this.mss;
    this.#recover = this.max;
    this.#filled = this.una;
    this.#fill();
  }

  /** Sends the first hole again that was not filled in this recovery. */
  #fill(): void {
    const from = Math.max(this.una, this.#filled);
    const hole = this.#sacked.gap(from) ?? (from === this.una ? [from, from + this.mss] : undefined);
    if (hole === undefined) return;
    const data = this.una + this.ring.length;
    const n = Math.max(0, Math.min(hole[1] - hole[0], this.mss, data - hole[0]));
    const fin = this.#fin !== undefined && hole[0] + n === this.#fin;
    if (n === 0 && !fin) return;
    this.#send(hole[0], n, fin);
    this.#filled = hole[0] + n + (fin ? 1 : 0);
  }

  #sample(ack: number): void {
    if (this.#timed === undefined || ack <= this.#timed.seq) return;
    const r = this.#o.clock.now() - this.#timed.at;
    this.#timed = undefined;
    if (this.#srtt === undefined) {
      this.#srtt = r;
      this.#rttvar = r / 2;
    } else {
      this.#rttvar += (Math.abs(this.#srtt - r) - this.#rttvar) / 4;
      this.#srtt += (r - this.#srtt) / 8;
    }
    this.#rto = Math.min(rto.most, Math.max(rto.least, this.#srtt + 4 * this.#rttvar));
  }

  #expired(): void {
    if (this.#probing && this.window > 0 && this.max > this.una) return this.#probeTail();
    this.#probing = false;
    this.#failures++;
    if (this.#failures > (this.#open ? patience.data : patience.open)) return this.#o.timedOut();
    this.#rto = Math.min(rto.most, this.#rto * 2);
    this.#timed = undefined;
    if (!this.#open) {
      this.#timer.set(this.#rto);
      return this.#o.transmitSyn();
    }
    if (this.#persisting || this.window === 0) return this.#probe();
    this.#ssthresh = Math.max((this.max - this.una) / 2, 2 * this.mss);
    this.#cwnd = this.mss;
    this.#recover = undefined;
    this.#duplicates = 0;
    this.#sacked.clear();
    this.nxt = this.una;
    this.push();
    if (this.max > this.una && !this.#timer.armed) this.#timer.set(this.#rto);
  }

  /** One byte (or what a small window takes) beyond the window. A peer that answers is alive, however long it stays closed. */
  #probe(): void {
    this.#persisting = true;
    this.nxt = this.una;
    const n = Math.min(this.#unsent, this.mss, Math.max(1, this.window));
    const fin = this.#finWanted && n === this.#unsent;
    this.#timer.set(this.#rto);
    if (n === 0 && !fin) return;
    this.#o.transmit(this.una, n, fin);
    if (fin) this.#fin = this.una + n;
    this.max = Math.max(this.max, this.una + n + (fin ? 1 : 0));
  }

  /** The peer answered a probe, be it with a closed window. */
  alive(): void {
    if (this.#persisting) this.#failures = 0;
  }
}
