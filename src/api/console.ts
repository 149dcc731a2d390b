// A machine's console: bytes both ways, and what it has shown.

/** Characters that are kept for `text` and `until`. */
const KEPT = 1 << 20;

export class Console implements AsyncIterable<Uint8Array> {
  readonly #send: (bytes: Uint8Array) => void;
  readonly #decoder = new TextDecoder();
  #text = '';
  #ended = false;
  /** Whoever iterates: bytes that wait, and who waits for bytes. */
  readonly #readers = new Set<{ chunks: Uint8Array[]; wake: () => void }>();
  readonly #watchers = new Set<() => void>();

  constructor(send: (bytes: Uint8Array) => void) {
    this.#send = send;
  }
  /** The last that was shown, at most a million characters. */
  get text(): string {
    return this.#text;
  }
  write(data: string | Uint8Array): void {
    this.#send(typeof data === 'string' ? new TextEncoder().encode(data) : data);
  }
  /** Resolves with the text up to and with what matches, once it was shown. Rejects when the console ends before. */
  async until(pattern: RegExp): Promise<string> {
    for (;;) {
      const found = pattern.exec(this.#text);
      if (found) return this.#text.slice(0, found.index + found[0].length);
      if (this.#ended) throw new Error(`Cannot find ${pattern} on the console: the machine has ended`);
      await new Promise<void>((resolve) => this.#watchers.add(resolve));
    }
  }
  /** Bytes as they come, from now on. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    const reader = { chunks: [] as Uint8Array[], wake: (): void => {} };
    this.#readers.add(reader);
    try {
      for (;;) {
        yield* reader.chunks.splice(0);
        if (this.#ended && reader.chunks.length === 0) return;
        if (reader.chunks.length === 0) {
          await new Promise<void>((resolve) => {
            reader.wake = resolve;
          });
        }
      }
    } finally {
      this.#readers.delete(reader);
    }
  }

  /** For the machine: what the guest has sent. */
  receive(bytes: Uint8Array): void {
    this.#text = (this.#text + this.#decoder.decode(bytes)).slice(-KEPT);
    for (const reader of this.#readers) {
      reader.chunks.push(bytes);
      reader.wake();
    }
    this.#tell();
  }
  /** For the machine: nothing follows. */
  end(): void {
    this.#ended = true;
    for (const reader of this.#readers) reader.wake();
    this.#tell();
  }
  #tell(): void {
    for (const watcher of this.#watchers) watcher();
    this.#watchers.clear();
  }
}
