// A port by which a guest ends the emulator with an exit code. QEMU 7.2, `-device isa-debug-exit`.
import type { Handler } from '../bus/space.ts';

/** A write of `v` exits with `(v << 1) | 1`. */
export const debugExit = (exit: (code: number) => void): Handler => ({
  read: (_, size) => (size === 4 ? 0xffff_ffff : (1 << (8 * size)) - 1),
  write: (_, __, v) => exit(((v << 1) | 1) >>> 0),
});
