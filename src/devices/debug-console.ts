// The firmware's debug console: a port that takes characters, as Bochs and QEMU have it (QEMU `isa-debugcon`).
import type { AddressSpace } from '../bus/space.ts';

export const debugConsolePort = 0x402;
/** What a read gives, by which firmware knows that somebody listens. */
const readback = 0xe9;

/** Passes each character on. */
export function mapDebugConsole(ports: AddressSpace, sink: (byte: number) => void, port: number = debugConsolePort): void {
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
