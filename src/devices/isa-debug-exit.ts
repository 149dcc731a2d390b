// A port by which a guest ends the emulator with an exit code. QEMU 7.2, `-device isa-debug-exit`.
import type { AddressSpace } from '../bus/space.ts';

/** A write of `v` exits with `(v << 1) | 1`. `iobase` and `iosize` are QEMU's options, with its defaults. */
export function mapDebugExit(ports: AddressSpace, exit: (code: number) => void, iobase = 0x501, iosize = 2): void {
  ports.map(
    iobase,
    iosize,
    { read: (_, size) => (size === 4 ? 0xffff_ffff : (1 << (8 * size)) - 1), write: (_, __, v) => exit(((v << 1) | 1) >>> 0) },
    'isa-debug-exit',
  );
}
