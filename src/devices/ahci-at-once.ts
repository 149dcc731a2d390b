// Reads of the native queue that a serial ATA host controller carries out when they are issued, on the vCPU's thread.

import type { GuestMemory } from '../bus/memory.ts';
import { AHCI_SLOTS, type Ahci } from './ahci.ts';
import { accept, commandAt, queued, queuedDone, queuedSectors, regionsOf, takes } from './ahci-command.ts';
import { SECTOR } from './ata/device.ts';
import type { Scatter } from './scatter.ts';
import { sizeOf } from './scsi/perform.ts';

/** Bytes that one issue reads at most: the board's lock is held meanwhile. */
const BYTES_MAX = 1 << 20;
type Read = (offset: number, length: number, pieces: () => readonly Uint8Array[] | undefined) => boolean;

/**
 * Carries out the commands in the slots `bits` of port `n`, which were just issued, as far as they are queued reads that the port's `read` does.
 * True where nothing is left for the I/O thread. With the board's lock held.
 */
export function readsAtOnce(ahci: Ahci, memory: GuestMemory, readerOf: (port: number) => Read | undefined) {
  return (n: number, bits: number): boolean => {
    const port = ahci.s.ports[n]!;
    const device = ahci.devices[n];
    const read = readerOf(n);
    // Behind a command that is not queued, all wait.
    if (!read || !device?.o.ncq || device.packet || !takes(port) || (port.ci & ~bits) !== 0) return false;
    let left = BYTES_MAX;
    for (let slot = 0; slot < AHCI_SLOTS; slot++) {
      if (!(bits & (1 << slot))) continue;
      const command = commandAt(ahci, memory, n, device, slot);
      const length = queuedSectors(command) * SECTOR;
      if (!command.isCommand || command.task.command !== queued.read || length > left) return false;
      let to: Scatter | undefined;
      const pieces = (): readonly Uint8Array[] | undefined => {
        to = regionsOf(memory, command, length);
        return sizeOf(to.pieces) === length ? to.pieces : undefined;
      };
      if (!read(command.task.lba * SECTOR, length, pieces)) return false;
      to!.written();
      accept(command);
      queuedDone(ahci, memory, command, 0);
      left -= length;
    }
    return true;
  };
}
