// The bytes of a machine's serial ports between the board and the host: output as it comes, input as the guest has room for it.

import type { Board } from '../../machine/board.ts';

const PORTS = [0, 1, 2, 3] as const;

export interface SerialPortsOptions {
  readonly board: Pick<Board, 'uarts' | 'lock'>;
  /** Takes what port `n` has sent; no more comes before it resolves. */
  readonly output: (n: number, bytes: Uint8Array) => void | Promise<void>;
  /** The machine has ended. */
  readonly over: () => boolean;
}

export class SerialPorts {
  readonly #o: SerialPortsOptions;
  readonly #unsent: Uint8Array[][] = PORTS.map(() => []);
  readonly #feeding: boolean[] = PORTS.map(() => false);
  readonly #carrying: Promise<void>[] = PORTS.map(() => Promise.resolve());

  constructor(o: SerialPortsOptions) {
    this.#o = o;
  }

  /** Carries the guest's output from now on. */
  start(): void {
    for (const n of PORTS) void this.#pump(n);
  }
  /** Keeps what the host sends to port `n` until the guest has taken it. */
  input(n: number, bytes: Uint8Array): void {
    this.#unsent[n]!.push(bytes);
    void this.#feed(n);
  }
  /** Carries what is there. */
  async drain(): Promise<void> {
    await Promise.all(PORTS.map((n) => this.#drain(n)));
  }

  /** Carries what is there, after whatever is being carried. */
  #drain(n: number): Promise<void> {
    const { board, output } = this.#o;
    return (this.#carrying[n] = this.#carrying[n]!.then(async () => {
      const uart = board.uarts[n]!;
      while (uart.output.available > 0) {
        const bytes = uart.output.read();
        board.lock.run(() => uart.drained());
        await output(n, bytes);
      }
    }));
  }
  async #pump(n: number): Promise<void> {
    const { signal } = this.#o.board.uarts[n]!.output;
    while (!this.#o.over()) {
      const seen = Atomics.load(signal, 0);
      await this.#drain(n);
      const wait = Atomics.waitAsync(signal, 0, seen, 100);
      if (wait.async) await wait.value;
    }
  }
  /** Carries input until none is left. */
  async #feed(n: number): Promise<void> {
    if (this.#feeding[n]) return;
    this.#feeding[n] = true;
    const queue = this.#unsent[n]!;
    const uart = this.#o.board.uarts[n]!;
    while (queue.length > 0 && !this.#o.over()) {
      const seen = Atomics.load(uart.input.signal, 0);
      const bytes = queue[0]!;
      const taken = this.#o.board.lock.run(() => uart.receive(bytes));
      if (taken === bytes.length) queue.shift();
      else {
        queue[0] = bytes.subarray(taken);
        const wait = Atomics.waitAsync(uart.input.signal, 0, seen, 20);
        if (taken === 0 && wait.async) await wait.value;
      }
    }
    this.#feeding[n] = false;
  }
}
