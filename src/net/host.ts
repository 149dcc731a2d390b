// What the network back-ends use of the host: stream and datagram sockets, resolvers, a clock and entropy. Implemented in `host/`.

/** A place to connect to or to listen at: TCP by name or address, or a unix socket. */
export type HostAddress = { readonly host: string; readonly port: number } | { readonly path: string };

/** Why a stream ended or did not come up, as far as the other side is to be told. */
export type HostFailure = 'refused' | 'unreachable' | 'timeout' | 'reset' | 'other';

/** What a stream tells its user. Never called from inside one of the stream's own methods. */
export interface StreamEvents {
  /** The connection is up. Not called for a stream that was accepted. */
  connected(): void;
  /** Bytes from the other side; the receiver owns them. */
  data(bytes: Uint8Array): void;
  /** So many bytes of what `write` took have gone to the host. */
  written(count: number): void;
  /** The other side sends no more. */
  end(): void;
  /** The last event; without a failure where both directions were ended in order. Not called after one's own `reset`. */
  closed(failure: HostFailure | undefined): void;
}

/** A byte stream of the host. No method throws; writes after the end are dropped. */
export interface HostStream {
  /** Takes the bytes, which the caller touches no more. The caller bounds what is not `written`. */
  write(bytes: Uint8Array): void;
  /** Sends no more after what was written. The other direction stays open. */
  end(): void;
  /** Drops the connection with a reset where the host can send one. */
  reset(): void;
  /** Stops `data` and `end` events soon; the host's own window then fills. */
  pause(): void;
  resume(): void;
}

/** The other end of an accepted stream; empty and 0 for a unix socket. */
export interface StreamPeer {
  readonly address: string;
  readonly port: number;
}

export interface HostListener {
  /** The bound port, 0 for a unix socket. */
  readonly port: number;
  close(): void;
}

/** What a datagram socket tells its user. Never called from inside one of its own methods or `udp`. */
export interface UdpEvents {
  /** A datagram with its sender, a numeric address. */
  message(bytes: Uint8Array, address: string, port: number): void;
  /** The socket is bound to this port. */
  bound(port: number): void;
  /** The socket can't be bound or broke; it is closed. */
  failed(message: string): void;
}

/** A datagram socket. `send` never throws: what can't be sent is lost, as datagrams may be. */
export interface HostUdp {
  send(bytes: Uint8Array, address: string, port: number): void;
  close(): void;
}

export interface UdpOptions {
  readonly family: 4 | 6;
  /** Local address, numeric; every one where it is missing. */
  readonly address?: string;
  /** Local port; 0 or missing for any. */
  readonly port?: number;
  /** Group to join, for `-netdev socket,mcast=`. The port may then be shared with other processes. */
  readonly multicast?: string;
  /** Address of the host's interface that the group is joined at. */
  readonly interface?: string;
}

export interface NetClock {
  /** Monotonic time in ms. */
  now(): number;
  /** Calls `action` once after `ms`; the result cancels it. Does not by itself keep the process alive. */
  after(ms: number, action: () => void): () => void;
}

/** A file of the host, to read. */
export interface HostFile {
  /** Bytes. */
  readonly size: number;
  /** Bytes read, fewer at the end. */
  read(offset: number, into: Uint8Array): Promise<number>;
  close(): Promise<void>;
}

export interface HostSockets extends NetClock {
  /** The regular file of these names below a folder; undefined where there is none. Absent where the host has no files. */
  file?(root: string, names: readonly string[]): Promise<HostFile | undefined>;
  /** Opens a connection; the outcome comes as `connected` or `closed`. */
  connect(to: HostAddress, events: StreamEvents): HostStream;
  /**
   * Listens. Every accepted stream is paused until its first `resume`; `accept` returns its events, or `undefined` to reset it.
   * Rejects with `Cannot listen at …` where the host refuses.
   */
  listen(at: HostAddress, accept: (stream: HostStream, peer: StreamPeer) => StreamEvents | undefined): Promise<HostListener>;
  udp(options: UdpOptions, events: UdpEvents): HostUdp;
  /** The host's resolvers, best first, numeric; read again for each query, for they change. */
  resolvers(): readonly { readonly address: string; readonly port: number }[];
  /** `count` bytes that a guest can't predict. */
  random(count: number): Uint8Array;
}
