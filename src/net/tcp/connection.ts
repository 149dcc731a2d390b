// One TCP connection towards the guest: states, sequence checks, open and close in all orders. RFC 9293, sections 3.3.2, 3.5, 3.6, 3.10; RFC 5961 (blind attacks).
import type { NetClock } from '../host.ts';
import { Timer } from '../timer.ts';
import { Receiver } from './receiver.ts';
import { flag, type OutSegment, type Segment } from './segment.ts';
import { Sender } from './sender.ts';

export type TcpState =
  | 'synSent'
  | 'synReceived'
  | 'established'
  | 'finWait1'
  | 'finWait2'
  | 'closing'
  | 'timeWait'
  | 'closeWait'
  | 'lastAck'
  | 'closed';

/** What a connection tells its user. Calls come from inside of `input` and timers; the user may call any method from them. */
export interface TcpEvents {
  established(): void;
  /** There is something to `read`. */
  readable(): void;
  /** The guest sends no more; all before was readable. */
  ended(): void;
  /** The guest has taken data: there is room in the send buffer. */
  writable(): void;
  /** The last event. `done`: both directions were closed in order. Not called after one's own `abort`. */
  closed(why: 'done' | 'reset' | 'timeout'): void;
}

export interface TcpOptions {
  readonly clock: NetClock;
  /** Initial sequence number, 32 bits. */
  readonly iss: number;
  /** Largest segment that fits a frame to and from the guest. */
  readonly mss: number;
  /** Most bytes of payload that are sent at once: more than `mss` where the guest divides what it gets. */
  burst?(): number;
  /** Bytes that may be held for the host at this moment. */
  receiveLimit(): number;
  readonly events: TcpEvents;
  transmit(segment: OutSegment): void;
}

const scale = 5;
/** Twice the maximum segment lifetime, in ms. Nothing lives long on a cable without routers. */
const twoMsl = 10_000;
/** An acknowledgement of data waits at most this long, in ms, for more data (RFC 9293, section 3.8.6.3: at most 500). */
const ackDelay = 20;
/** Smallest segment size that a guest can ask for; smaller ones are only good for wasting the host's time. */
const leastMss = 64;
/** Answers per second to segments that do not fit. */
const maxChallenges = 10;
const two32 = 2 ** 32;

/** The position that is equal to `value` modulo 2^32 and nearest to `near`. */
export const unwrap = (value: number, near: number): number => near + ((value - (near % two32)) | 0);

/** How the guest's SYN limits us. */
interface Offer {
  readonly mss: number;
  readonly scale: number | undefined;
  readonly sack: boolean;
}
const offerOf = (s: Segment): Offer => ({ mss: s.mss ?? 536, scale: s.scale, sack: s.sackPermitted });

export class TcpConnection {
  readonly #o: TcpOptions;
  readonly #sender: Sender;
  #receiver: Receiver | undefined;
  #state: TcpState = 'synSent';
  #offer: Offer = { mss: 536, scale, sack: true };
  readonly #delayed: Timer;
  readonly #linger: Timer;
  #ackNow = false;
  #unacknowledged = 0;
  #endTold = false;
  #challenges = { since: Number.NEGATIVE_INFINITY, count: 0 };
  /** Our SYN is acknowledged. The state doesn't say so: the user may have ended the connection before. */
  #up = false;

  private constructor(options: TcpOptions) {
    this.#o = options;
    // Positions start above 2^32, so that none near them is negative.
    this.#sender = new Sender({
      clock: options.clock,
      iss: two32 + (options.iss >>> 0),
      transmit: (seq, length, fin) => this.#transmit(seq, length, fin),
      transmitSyn: () => this.#transmitSyn(),
      timedOut: () => {
        this.#reset();
        this.#close('timeout');
      },
    });
    this.#delayed = new Timer(options.clock, () => this.#acknowledge());
    this.#linger = new Timer(options.clock, () => this.#close('done'));
  }

  /** Opens a connection to the guest. */
  static open(options: TcpOptions): TcpConnection {
    const c = new TcpConnection(options);
    c.#transmitSyn();
    c.#sender.synSent();
    return c;
  }

  /** Answers the guest's SYN. */
  static accept(options: TcpOptions, syn: Segment): TcpConnection {
    const c = new TcpConnection(options);
    c.#takeSyn(syn);
    c.#state = 'synReceived';
    c.#transmitSyn();
    c.#sender.synSent();
    return c;
  }

  get state(): TcpState {
    return this.#state;
  }

  /** Whether this SYN may take the place of a connection in TIME-WAIT (RFC 9293, section 3.6.1). */
  yieldsTo(s: Segment): boolean {
    const syn = (s.flags & (flag.syn | flag.ack | flag.rst)) === flag.syn;
    return syn && this.#state === 'timeWait' && unwrap(s.seq, this.#receiver!.nxt) > this.#receiver!.nxt;
  }

  /** Bytes that wait for the guest. */
  get queued(): number {
    return this.#sender.ring.length;
  }

  /** Bytes of memory that the buffers take. */
  get memory(): number {
    return this.#sender.ring.capacity + (this.#receiver?.ring.capacity ?? 0);
  }

  /** Queues bytes for the guest; they are copied. Who sends looks at `queued`. */
  send(bytes: Uint8Array): void {
    if (this.#state === 'closed' || this.#sender.finWanted) return;
    this.#sender.ring.append(bytes);
    this.#sender.push();
  }

  /** Ends this direction after what is queued. */
  end(): void {
    if (this.#state === 'closed' || this.#sender.finWanted) return;
    if (this.#state === 'established' || this.#state === 'synReceived') this.#state = 'finWait1';
    else if (this.#state === 'closeWait') this.#state = 'lastAck';
    this.#sender.finish();
  }

  /** What the guest sent, in order, one new array; empty when there is nothing. `release` gives the window back. */
  read(): Uint8Array {
    return this.#receiver?.read() ?? new Uint8Array(0);
  }

  get readable(): number {
    return this.#receiver?.ring.length ?? 0;
  }

  /** The host has taken `count` bytes of what was read. */
  release(count: number): void {
    const r = this.#receiver;
    if (r === undefined) return;
    r.release(count);
    if (this.#state !== 'closed' && !r.ended && r.worthUpdate) this.#acknowledge();
  }

  /** Resets the connection. No event follows. */
  abort(): void {
    if (this.#state === 'closed') return;
    this.#reset();
    this.#drop();
  }

  /** Forgets the connection without a word to the guest. No event follows. */
  discard(): void {
    if (this.#state !== 'closed') this.#drop();
  }

  /** Takes a segment of the guest's for this connection. */
  input(s: Segment): void {
    if (this.#state === 'closed') return;
    if (this.#state === 'synSent') this.#inputSynSent(s);
    else this.#inputSynchronized(s);
  }

  #inputSynSent(s: Segment): void {
    const ack = unwrap(s.ack, this.#sender.una);
    const acks = (s.flags & flag.ack) !== 0;
    const good = acks && ack === this.#sender.una + 1;
    if (acks && !good) {
      if ((s.flags & flag.rst) === 0) this.#transmitBare(ack, 0, flag.rst);
      return;
    }
    if ((s.flags & flag.rst) !== 0) {
      if (good) this.#close('reset');
      return;
    }
    if ((s.flags & flag.syn) === 0) return;
    this.#takeSyn(s);
    if (good) {
      this.#establish(s, s.window);
      this.#acknowledge();
      return;
    }
    // Both sides open at once (RFC 9293, figure 8).
    this.#state = 'synReceived';
    this.#transmitSyn();
  }

  #inputSynchronized(s: Segment): void {
    const r = this.#receiver!;
    const seq = unwrap(s.seq, r.nxt);
    const end = seq + s.payload.length + (s.flags & flag.syn ? 1 : 0) + (s.flags & flag.fin ? 1 : 0);
    if (s.flags & flag.syn) {
      const repeated = !this.#up && seq === r.nxt - 1;
      if (s.flags & flag.rst) return;
      // Of a simultaneous open the other SYN comes with an ACK, which counts as one.
      if (!(repeated && s.flags & flag.ack)) return repeated ? this.#transmitSyn() : this.#challenge();
    } else {
      // In the window or at its edges; whatever is cut off is acknowledged again.
      const acceptable = end > seq ? end > r.nxt && seq < Math.max(r.edge, r.nxt + 1) : seq >= r.nxt && seq <= r.edge;
      if (s.flags & flag.rst) {
        if (seq === r.nxt) this.#close('reset');
        else if (acceptable) this.#challenge();
        return;
      }
      if (!acceptable) {
        if (this.#state === 'timeWait') this.#linger.set(twoMsl);
        // A segment that is all old may still carry news for the sender; one from nowhere may not.
        if (seq > r.edge || end < r.nxt - (1 << 24)) return this.#challenge();
        if (s.payload.length > 0) this.#ackNow = true;
        else this.#challenge();
      }
    }
    if ((s.flags & flag.ack) === 0) return;
    if (!this.#inputAck(s, seq)) return;
    if (end > seq && (s.flags & flag.syn) === 0) this.#inputData(s, seq);
    this.#sender.push();
    if (this.#ackNow) this.#acknowledge();
  }

  /** The ACK field. False where the segment ends here. */
  #inputAck(s: Segment, seq: number): boolean {
    const t = this.#sender;
    const ack = unwrap(s.ack, t.una);
    if (!this.#up) {
      if (ack !== t.una + 1) {
        this.#transmitBare(ack, 0, flag.rst);
        return false;
      }
      this.#establish(s, s.window * 2 ** (s.flags & flag.syn ? 0 : (this.#offer.scale ?? 0)));
      return this.#current !== 'closed';
    }
    if (ack > t.max || ack < t.una - (1 << 30)) {
      this.#challenge();
      return false;
    }
    t.alive();
    if (this.#offer.sack) for (const [from, to] of s.sack) t.sacked(unwrap(from, t.una), unwrap(to, t.una));
    const changed = ack >= t.una && t.setWindow(s.window * 2 ** (this.#offer.scale ?? 0), seq, ack);
    // Data beyond a gap move the window as well: with SACK a duplicate is told by what it reports (RFC 6675, section 2).
    const bare = s.payload.length === 0 && (s.flags & flag.fin) === 0;
    const through = t.acknowledge(ack, ack === t.una && bare && (!changed || s.sack.length > 0));
    if (t.finAcknowledged) {
      if (this.#state === 'finWait1') this.#state = 'finWait2';
      else if (this.#state === 'closing') this.#timeWait();
      else if (this.#state === 'lastAck') {
        this.#close('done');
        return false;
      }
    }
    if (through > 0) this.#o.events.writable();
    return this.#current !== 'closed';
  }

  #inputData(s: Segment, seq: number): void {
    const r = this.#receiver!;
    if (r.ended) {
      this.#ackNow = true;
      return;
    }
    const { inOrder, cut } = r.take(seq, s.payload, (s.flags & flag.fin) !== 0);
    this.#unacknowledged += s.payload.length;
    // At least every second full segment is acknowledged, and at once where the guest has nothing more to say for now.
    // Out of order: the acknowledgement must carry no data, or the guest doesn't count it as a duplicate.
    if (cut) this.#acknowledge();
    else if (r.ended || (s.flags & flag.psh) !== 0 || this.#unacknowledged >= 2 * this.#o.mss) this.#ackNow = true;
    else this.#delayed.set(ackDelay);
    if (!inOrder) return;
    if (r.ring.length > 0) this.#o.events.readable();
    if (this.#current === 'closed' || !r.ended || this.#endTold) return;
    this.#endTold = true;
    if (this.#state === 'established' || this.#state === 'synReceived') this.#state = 'closeWait';
    else if (this.#state === 'finWait1') this.#state = 'closing';
    else if (this.#state === 'finWait2') this.#timeWait();
    this.#o.events.ended();
  }

  /** The state, for after an event: TypeScript can't see that the user may have changed it. */
  get #current(): TcpState {
    return this.#state;
  }

  #takeSyn(s: Segment): void {
    this.#offer = offerOf(s);
    this.#receiver = new Receiver(
      two32 + s.seq + 1,
      this.#o.receiveLimit,
      this.#offer.scale === undefined ? 0 : scale,
      this.#o.mss,
    );
  }

  #establish(s: Segment, window: number): void {
    this.#up = true;
    if (this.#state === 'synSent' || this.#state === 'synReceived')
      this.#state = this.#sender.finWanted ? 'finWait1' : 'established';
    const mss = Math.max(leastMss, Math.min(this.#offer.mss, this.#o.mss));
    this.#sender.established(mss, window, unwrap(s.seq, this.#receiver!.nxt));
    this.#o.events.established();
    this.#sender.push();
  }

  #timeWait(): void {
    this.#state = 'timeWait';
    this.#linger.set(twoMsl);
  }

  #transmitSyn(): void {
    const window = this.#receiver?.window(true) ?? Math.min(0xffff, this.#o.receiveLimit());
    this.#o.transmit({
      seq: this.#sender.una,
      ack: this.#receiver?.nxt ?? 0,
      flags: flag.syn | (this.#receiver === undefined ? 0 : flag.ack),
      window,
      syn: { mss: this.#o.mss, scale: this.#offer.scale === undefined ? undefined : scale, sack: this.#offer.sack },
    });
  }

  #transmit(seq: number, length: number, fin: boolean): void {
    const { ring, una } = this.#sender;
    const last = seq + length >= una + ring.length;
    const payload = { length, copy: (target: Uint8Array, at: number) => ring.copy(seq - una, length, target, at) };
    const { mss } = this.#sender;
    const flags = flag.ack | (length > 0 && last ? flag.psh : 0) | (fin ? flag.fin : 0);
    this.#emit(seq, flags, payload, length > mss ? mss : undefined);
  }

  #acknowledge(): void {
    if (this.#state === 'closed') return;
    this.#emit(this.#sender.nxt, flag.ack);
  }

  #emit(seq: number, flags: number, payload?: OutSegment['payload'], segment?: number): void {
    const r = this.#receiver!;
    const sack = this.#offer.sack && r.hasGaps && payload === undefined ? r.sack() : undefined;
    this.#ackNow = false;
    this.#unacknowledged = 0;
    this.#delayed.clear();
    this.#o.transmit({ seq, ack: r.nxt, flags, window: r.window(), sack, payload, segment });
  }

  /** Answers a segment that does not fit. Rarely: two ends that disagree would answer each other for ever (RFC 5961, section 7). */
  #challenge(): void {
    const now = this.#o.clock.now();
    if (now - this.#challenges.since >= 1000) this.#challenges = { since: now, count: 0 };
    if (this.#challenges.count++ < maxChallenges) this.#acknowledge();
  }

  #transmitBare(seq: number, ack: number, flags: number): void {
    this.#o.transmit({ seq, ack, flags, window: 0 });
  }

  #reset(): void {
    if (this.#state === 'timeWait') return;
    this.#transmitBare(this.#sender.nxt, this.#receiver?.nxt ?? 0, flag.rst | (this.#receiver === undefined ? 0 : flag.ack));
  }

  #drop(): void {
    this.#state = 'closed';
    this.#sender.close();
    this.#delayed.close();
    this.#linger.close();
  }

  #close(why: 'done' | 'reset' | 'timeout'): void {
    this.#drop();
    this.#o.events.closed(why);
  }
}
