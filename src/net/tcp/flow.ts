// One guest connection and the host stream that it stands for: bytes, back-pressure and ends passed on in both directions.
import type { HostAddress, HostFailure, HostSockets, HostStream, StreamEvents } from '../host.ts';
import { TcpConnection, type TcpEvents } from './connection.ts';
import { flag, type OutSegment, type Segment } from './segment.ts';

export interface FlowOptions {
  readonly host: HostSockets;
  /** Initial sequence number, 32 bits. */
  readonly iss: number;
  readonly mss: number;
  /** Most bytes sent to the guest at once. */
  burst?(): number;
  /** Bytes that may be held for each direction at this moment. */
  limit(): number;
  transmit(segment: OutSegment): void;
  /** The connection is over on both sides. */
  gone(): void;
}

export class TcpFlow {
  readonly #o: FlowOptions;
  #connection: TcpConnection | undefined;
  #stream: HostStream | undefined;
  /** The guest's SYN while the host connects. */
  #syn: Segment | undefined;
  /** Bytes that the host's stream has taken and not yet written. */
  #writing = 0;
  #guestEnded = false;
  /** The stream was told of the guest's end. */
  #ended = false;
  #hostEnded = false;
  #paused = false;
  #dead = false;
  /** Time of the last segment or bytes, in ms of the host's clock. */
  used: number;

  constructor(options: FlowOptions) {
    this.#o = options;
    this.used = options.host.now();
  }

  /** In TIME-WAIT: nothing is lost with it. */
  get over(): boolean {
    return this.#connection?.state === 'timeWait';
  }

  get memory(): number {
    return (this.#connection?.memory ?? 0) + this.#writing;
  }

  yieldsTo(s: Segment): boolean {
    return this.#connection?.yieldsTo(s) ?? false;
  }

  /** The guest asked for `to`: it is answered when the host is connected. `failed` says what to tell the guest if it can't. */
  connect(syn: Segment, to: HostAddress, failed: (why: HostFailure) => void): void {
    this.#syn = { ...syn, payload: new Uint8Array(0) };
    this.#stream = this.#o.host.connect(to, this.#streamEvents(failed));
  }

  /** The host's client wants the guest: opens the guest's side, and takes the client's bytes when it is up. */
  serve(stream: HostStream): StreamEvents {
    this.#stream = stream;
    this.#connection = TcpConnection.open(this.#tcpOptions());
    return this.#streamEvents(() => {});
  }

  input(s: Segment): void {
    this.used = this.#o.host.now();
    if (this.#connection !== undefined) return this.#connection.input(s);
    // While the host connects the guest repeats its SYN, or gives up.
    const next = (this.#syn?.seq ?? 0) + 1;
    if (s.flags & flag.rst && s.seq === next >>> 0) this.#finish(true);
  }

  /** Resets both sides. */
  abort(): void {
    this.#connection?.abort();
    this.#finish(true);
  }

  /** Ends the host's side at once and tells the guest nothing. */
  drop(): void {
    if (this.#dead) return;
    this.#dead = true;
    this.#connection?.discard();
    this.#stream?.reset();
  }

  #finish(reset: boolean): void {
    if (this.#dead) return;
    this.#dead = true;
    if (reset) this.#stream?.reset();
    this.#o.gone();
  }

  #tcpOptions() {
    const events: TcpEvents = {
      established: () => this.#paused || this.#stream?.resume(),
      readable: () => this.#toHost(),
      ended: () => {
        this.#guestEnded = true;
        this.#toHost();
      },
      writable: () => this.#fromHost(),
      // Unless both sides are done in order the stream must not look as if they were.
      closed: (why) => this.#finish(why !== 'done'),
    };
    const { host, iss, mss, burst, limit, transmit } = this.#o;
    return { clock: host, iss, mss, ...(burst ? { burst } : {}), receiveLimit: limit, events, transmit };
  }

  /** One write at a time: what comes meanwhile gathers in the connection's ring, whose size the window bounds. */
  #toHost(): void {
    const c = this.#connection;
    if (c === undefined || this.#stream === undefined || this.#writing > 0) return;
    if (c.readable > 0) {
      const bytes = c.read();
      this.#writing = bytes.length;
      this.#stream.write(bytes);
    } else if (this.#guestEnded && !this.#ended) {
      this.#ended = true;
      this.#stream.end();
    }
  }

  #fromHost(): void {
    if (!this.#paused || this.#connection === undefined || this.#connection.queued > this.#o.limit() / 2) return;
    this.#paused = false;
    this.#stream?.resume();
  }

  #streamEvents(failed: (why: HostFailure) => void): StreamEvents {
    return {
      connected: () => {
        if (this.#dead || this.#syn === undefined) return;
        this.#connection = TcpConnection.accept(this.#tcpOptions(), this.#syn);
      },
      data: (bytes) => {
        const c = this.#connection;
        if (this.#dead || c === undefined) return;
        this.used = this.#o.host.now();
        c.send(bytes);
        if (c.queued < this.#o.limit() || this.#paused) return;
        this.#paused = true;
        this.#stream?.pause();
      },
      written: (count) => {
        this.#writing -= count;
        if (this.#dead) return;
        this.used = this.#o.host.now();
        this.#connection?.release(count);
        this.#toHost();
      },
      end: () => {
        this.#hostEnded = true;
        if (!this.#dead) this.#connection?.end();
      },
      closed: (failure) => {
        if (this.#dead) return;
        this.#stream = undefined;
        if (this.#connection === undefined) {
          failed(failure ?? 'other');
          this.#finish(false);
        } else if (failure !== undefined || !this.#hostEnded) this.abort();
      },
    };
  }
}
