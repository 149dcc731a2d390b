// Reads that a serial ATA host controller carries out when they are issued, on the vCPU's thread: of the native queue, by DMA, and of packets.

import type { GuestMemory } from '../bus/memory.ts';
import { AHCI_SLOTS, type Ahci } from './ahci.ts';
import {
  type AhciCommand,
  accept,
  commandAt,
  ended,
  queued,
  queuedDone,
  queuedSectors,
  regionsOf,
  takes,
} from './ahci-command.ts';
import { SECTOR } from './ata/device.ts';
import type { Direct } from './direct.ts';
import type { Scatter } from './scatter.ts';
import { sizeOf } from './scsi/perform.ts';

/** Bytes that one issue reads at most: the board's lock is held meanwhile. */
const BYTES_MAX = 1 << 20;

/** What a command reads, and what is to be done when its bytes are in `scatter`. */
interface Read {
  readonly offset: number;
  readonly length: number;
  readonly done: (scatter: Scatter) => void;
}

/**
 * Carries out the commands in the slots `bits` of port `n`, which were just issued, as far as they are reads that the port's disk does.
 * True where nothing is left for the I/O thread. With the board's lock held.
 */
export function readsAtOnce(ahci: Ahci, memory: GuestMemory, directOf: (port: number) => Pick<Direct, 'read'> | undefined) {
  const readOf = (command: AhciCommand): Read | undefined => {
    const { device, task } = command;
    const { packet } = device;
    if (!command.isCommand) return undefined;
    if (task.command === queued.read) {
      if (!device.o.ncq || packet) return undefined;
      const done = (scatter: Scatter): void => {
        scatter.written();
        accept(command);
        queuedDone(ahci, memory, command, 0);
      };
      return { offset: task.lba * SECTOR, length: queuedSectors(command) * SECTOR, done };
    }
    if (packet) {
      const span = device.takesPacket(task) && command.packet ? packet.reads(command.packet) : undefined;
      const done = (scatter: Scatter): void => {
        packet.readDone();
        ended(ahci, memory, command, { moved: span!.length, count: 3, scatter, pio: (task.feature & 1) === 0 });
      };
      return span && { ...span, done };
    }
    const transfer = device.reads(task);
    const done = (scatter: Scatter): void =>
      ended(ahci, memory, command, { moved: transfer!.length, scatter, pio: !transfer!.dma });
    return transfer && { ...transfer, done };
  };
  return (n: number, bits: number): boolean => {
    const port = ahci.s.ports[n]!;
    const device = ahci.devices[n];
    const direct = directOf(n);
    // Behind a command that is under way and not queued, all wait.
    if (!direct || !device || !takes(port) || (port.ci & ~bits) !== 0) return false;
    let left = BYTES_MAX;
    for (let slot = 0; slot < AHCI_SLOTS; slot++) {
      if (!(bits & (1 << slot))) continue;
      const command = commandAt(ahci, memory, n, device, slot);
      const read = readOf(command);
      if (!read || read.length > left) return false;
      let to: Scatter | undefined;
      const pieces = (): readonly Uint8Array[] | undefined => {
        to = regionsOf(memory, command, read.length);
        return sizeOf(to.pieces) === read.length ? to.pieces : undefined;
      };
      if (!direct.read(read.offset, read.length, pieces)) return false;
      read.done(to!);
      left -= read.length;
    }
    return true;
  };
}
