// What the protocols need of a transport and of time; the host implements both over sockets, pipes, WebSockets and timers.

export interface ByteDuplex {
  /**
   * Chunks in order, read one at a time, so that a reader that waits holds the sender back. Ends when the peer has closed,
   * throws when the transport broke. A chunk's memory belongs to the reader from then on.
   */
  readonly input: AsyncIterable<Uint8Array>;
  /** Takes all the bytes at once, in the order of the calls. Resolves when more are welcome, rejects when the transport broke. */
  write(bytes: Uint8Array): Promise<void> | void;
  /**
   * As `write`, then for each descriptor one byte, zero unless given, that carries it. The descriptors stay open at this end. Only where
   * the transport can pass descriptors.
   */
  writeWithFds?(bytes: Uint8Array, fds: readonly number[], carrier?: number): Promise<void>;
  /** Ends both directions after what was written; `input` ends too. May be called twice. */
  close(): void;
}

export interface Timers {
  /** Runs `run` once after `ms` milliseconds, unless the returned function is called before. */
  after(ms: number, run: () => void): () => void;
}
