// What tests of both protocols share: two ends of a pipe in memory, and timers that a test runs by hand.
import type { ByteDuplex, Timers } from './transport.ts';

class Pipe implements AsyncIterable<Uint8Array> {
  readonly #chunks: Uint8Array[] = [];
  #ended = false;
  #wake: (() => void) | undefined;
  push(chunk: Uint8Array): void {
    this.#chunks.push(chunk.slice());
    this.#wake?.();
  }
  end(): void {
    this.#ended = true;
    this.#wake?.();
  }
  get waiting(): number {
    return this.#chunks.length;
  }
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) yield chunk;
      else if (this.#ended) return;
      else
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
    }
  }
}

/** Two ends; what one writes the other reads, cut into chunks of at most `chunk` bytes. `waiting` counts unread chunks. */
export function duplexPair(chunk = Number.POSITIVE_INFINITY): readonly [ByteDuplex, ByteDuplex, { waiting(): number }] {
  const pipes = [new Pipe(), new Pipe()] as const;
  const end = (input: Pipe, output: Pipe): ByteDuplex => ({
    input,
    write(bytes) {
      for (let at = 0; at < bytes.length; at += chunk) output.push(bytes.subarray(at, at + chunk));
    },
    close() {
      pipes[0].end();
      pipes[1].end();
    },
  });
  return [end(pipes[0], pipes[1]), end(pipes[1], pipes[0]), { waiting: () => pipes[0].waiting + pipes[1].waiting }];
}

/** Timers that fire when `advance` says so. */
export function manualTimers(): Timers & { advance(ms: number): void } {
  let now = 0;
  let timers: { at: number; run: () => void }[] = [];
  return {
    after(ms, run) {
      const timer = { at: now + ms, run };
      timers.push(timer);
      return () => {
        timers = timers.filter((t) => t !== timer);
      };
    },
    advance(ms) {
      now += ms;
      for (const timer of timers.filter((t) => t.at <= now)) {
        timers = timers.filter((t) => t !== timer);
        timer.run();
      }
    },
  };
}
