// The firmware's debug console: a port that takes characters, as Bochs and QEMU have it (QEMU `isa-debugcon`).
import type { Arena } from '../bits/arena.ts';
import type { Report } from '../bus/events.ts';
import { Ring, ringLayout } from '../bus/ring.ts';
import type { AddressSpace } from '../bus/space.ts';

/** Where SeaBIOS and OVMF look for it. */
export const debugConsolePort = 0x402;
/** What a read gives, by which firmware knows that somebody listens. */
export const debugConsoleReadback = 0xe9;

/** Passes each character on; `readback` answers reads. */
export function mapDebugConsole(
  ports: Pick<AddressSpace, 'map'>,
  sink: (byte: number) => void,
  port: number = debugConsolePort,
  readback: number = debugConsoleReadback,
): void {
  ports.map(
    port,
    1,
    {
      max: 1,
      read: () => readback,
      write: (_, __, value) => sink(value),
    },
    'debug console',
  );
}

/** The port has no way to say that it is busy, so there is room for all that firmware says before somebody takes it. */
const RING = 65536;

/** One with a character device behind it. */
export class DebugConsole {
  /** What was written; its `signal` wakes who empties it. */
  readonly output: Ring;
  readonly #report: Report;

  constructor(o: { readonly arena: Arena; readonly name: string; readonly report: Report }) {
    this.output = new Ring(o.arena.alloc(ringLayout(RING, { name: 'debug-console-output' }), o.name));
    this.#report = o.report;
  }

  /** Takes a character; it is lost where nobody has taken the last 64 KiB. */
  write(byte: number): void {
    if (!this.output.push(byte)) this.#report('debug console', 'a character was lost: nobody takes them');
  }
}
