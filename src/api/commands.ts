// Scripts that run in a guest of an image: the host's end of `run` and `done` on the control channel (images/init.sh.ts).

/** How a script ended: its exit code and what it wrote. */
export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Serial ports of the channels, as images/overlay.ts names them. */
const PORT = { out: 1, err: 2, control: 3 } as const;

/** Pieces one after another. */
export function joined(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

interface Waiting {
  readonly script: string;
  readonly timeout: number | undefined;
  readonly resolve: (result: CommandResult) => void;
  readonly reject: (error: Error) => void;
}

export class Commands {
  readonly #host: { readonly base64: (bytes: Uint8Array) => string; readonly sleep: (ms: number) => Promise<void> };
  readonly #send: (port: number, bytes: Uint8Array) => void;
  readonly #carried: () => Promise<void>;
  #ready = Promise.withResolvers<void>();
  #isReady = false;
  #ended = false;
  #line = '';
  #number = 0;
  readonly #queue: Waiting[] = [];
  #running: (Waiting & { readonly number: number; late: boolean }) | undefined;
  #output: Record<number, Uint8Array[]> = { [PORT.out]: [], [PORT.err]: [] };

  constructor(
    host: { readonly base64: (bytes: Uint8Array) => string; readonly sleep: (ms: number) => Promise<void> },
    send: (port: number, bytes: Uint8Array) => void,
    carried: () => Promise<void>,
  ) {
    this.#host = host;
    this.#send = send;
    this.#carried = carried;
    this.#ready.promise.catch(() => {});
  }
  get ready(): Promise<void> {
    return this.#ready.promise;
  }
  get busy(): boolean {
    return this.#running !== undefined || this.#queue.length > 0;
  }
  run(script: string, timeout: number | undefined): Promise<CommandResult> {
    return new Promise((resolve, reject) => {
      if (this.#ended) return reject(new Error('Cannot run a command: the machine has ended'));
      this.#queue.push({ script, timeout, resolve, reject });
      this.#next();
    });
  }

  // -- for the machine

  receive(port: number, bytes: Uint8Array): void {
    if (port !== PORT.control) {
      if (this.#running) this.#output[port]?.push(bytes);
      return;
    }
    for (const byte of bytes) {
      if (byte === 0x0a) {
        this.#said(this.#line);
        this.#line = '';
      } else if (this.#line.length < 100) this.#line += String.fromCharCode(byte);
    }
  }
  /** The guest goes on from a moment at which it took commands. */
  goOn(): void {
    // Numbers of the guest that this one was made from do not come back.
    this.#number = 1_000_000;
    this.#isReady = true;
    this.#ready.resolve();
  }
  restarted(): void {
    this.#isReady = false;
    this.#running?.reject(new Error('Cannot finish the command: the guest was reset'));
    this.#running = undefined;
    this.#ready = Promise.withResolvers<void>();
    this.#ready.promise.catch(() => {});
  }
  end(): void {
    this.#ended = true;
    const error = new Error('Cannot finish the command: the machine has ended');
    this.#ready.reject(error);
    for (const waiting of [this.#running, ...this.#queue.splice(0)]) waiting?.reject(error);
    this.#running = undefined;
  }

  // -- one after another

  #said(line: string): void {
    if (line === 'ready') {
      this.#isReady = true;
      this.#ready.resolve();
      this.#next();
    }
    const done = /^done (\d+) (\d{1,3})$/.exec(line);
    if (done && this.#running && Number(done[1]) === this.#running.number) void this.#finish(Number(done[2]));
  }
  async #finish(code: number): Promise<void> {
    await this.#carried();
    const ended = this.#running;
    if (!ended) return;
    this.#running = undefined;
    const text = (port: number): string => {
      return new TextDecoder().decode(joined(this.#output[port]!.splice(0)));
    };
    const result = { code, stdout: text(PORT.out), stderr: text(PORT.err) };
    if (ended.late) ended.reject(new Error(`Cannot finish the command within ${ended.timeout} ms: it was ended`));
    else ended.resolve(result);
    this.#next();
  }
  #next(): void {
    if (!this.#isReady || this.#running) return;
    const next = this.#queue.shift();
    if (!next) return;
    const running = { ...next, number: ++this.#number, late: false };
    this.#running = running;
    this.#output = { [PORT.out]: [], [PORT.err]: [] };
    const encoder = new TextEncoder();
    this.#send(PORT.control, encoder.encode(`run ${running.number} ${this.#host.base64(encoder.encode(next.script))}\n`));
    const { timeout } = running;
    if (timeout === undefined) return;
    void this.#host.sleep(timeout).then(() => {
      if (this.#running !== running) return;
      running.late = true;
      this.#send(PORT.control, encoder.encode('stop\n'));
    });
  }
}
