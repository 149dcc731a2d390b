// Commands of a serial ATA host controller in guest memory: a slot's header, its table and regions, and where the device's answers go.
// Serial ATA AHCI Specification 1.3.1, chapter 4; Serial ATA 3.0, section 10.3 (FIS types). All with the board's lock held.

import type { GuestMemory } from '../bus/memory.ts';
import { type Ahci, type AhciPort, pxCmd, pxIs } from './ahci.ts';
import { type AtaDevice, ataStatus, type TaskFile } from './ata/device.ts';
import { Scatter } from './scatter.ts';

/** Type of a register FIS from the host. */
const H2D = 0x27;
const fis = {
  d2h: { at: 0x40, type: 0x34 },
  pioSetup: { at: 0x20, type: 0x5f },
  setBits: { at: 0x58, type: 0xa1 },
} as const;
const ATAPI = 0x20;
/** Commands of the native queue. */
export const queued = { read: 0x60, write: 0x61 } as const;

export interface AhciCommand {
  readonly n: number;
  readonly port: AhciPort;
  readonly device: AtaDevice;
  readonly slot: number;
  readonly epoch: number;
  /** Guest-physical addresses of the command's header and table. */
  readonly header: number;
  readonly table: number;
  /** Entries of the region table. */
  readonly regions: number;
  readonly task: TaskFile;
  readonly control: number;
  readonly isCommand: boolean;
  readonly packet: Uint8Array | undefined;
}

/** What a port takes commands by, where it takes any. */
export const takes = ({ cmd }: AhciPort): boolean => {
  const running = pxCmd.start | pxCmd.fisReceive;
  return (cmd & running) === running;
};

export function commandAt(ahci: Ahci, memory: GuestMemory, n: number, device: AtaDevice, slot: number): AhciCommand {
  const port = ahci.s.ports[n]!;
  const at = port.clbu * 2 ** 32 + port.clb + slot * 32;
  const word = memory.read32(at);
  const table = memory.read32(at + 12) * 2 ** 32 + ((memory.read32(at + 8) & ~0x7f) >>> 0);
  const byte = (i: number): number => memory.read8(table + i);
  return {
    ...{ n, port, device, slot, epoch: port.epoch, header: at, regions: word >>> 16 },
    table,
    isCommand: byte(0) === H2D && (byte(1) & 0x80) !== 0,
    control: byte(0) === H2D ? byte(15) : 0,
    task: {
      command: byte(2),
      feature: byte(3) | (byte(11) << 8),
      lba: (byte(4) | (byte(5) << 8) | (byte(6) << 16)) + (byte(8) | (byte(9) << 8) | (byte(10) << 16)) * 2 ** 24,
      count: byte(12) | (byte(13) << 8),
      device: byte(7),
    },
    packet: word & ATAPI ? Uint8Array.from({ length: 16 }, (_, i) => byte(0x40 + i)) : undefined,
  };
}

/** Guest memory of the first `wanted` bytes of a command's regions. */
export function regionsOf(memory: GuestMemory, command: AhciCommand, wanted: number): Scatter {
  const scatter = new Scatter(memory);
  let left = wanted;
  for (let i = 0; i < command.regions && left > 0; i++) {
    const at = command.table + 0x80 + 16 * i;
    const n = Math.min(left, (memory.read32(at + 12) & 0x3f_ffff) + 1);
    scatter.add(memory.read32(at + 4) * 2 ** 32 + memory.read32(at), n);
    left -= n;
  }
  return scatter;
}

/** Writes a FIS where the port receives them: its type, then `bytes`. */
function sendFis(
  memory: GuestMemory,
  port: AhciPort,
  { at, type }: (typeof fis)[keyof typeof fis],
  bytes: readonly number[],
): void {
  if (!(port.cmd & pxCmd.fisReceive)) return;
  const base = port.fbu * 2 ** 32 + port.fb + at;
  [type, ...bytes].forEach((byte, i) => memory.write8(base + i, byte));
}

/** The sectors of a command of the native queue. */
export const queuedSectors = ({ task }: AhciCommand): number => task.feature || 0x1_0000;

/** The slot is free again: the command is over, or in the native queue, where its tag stays. */
export function accept({ port, slot }: AhciCommand): void {
  port.ci = (port.ci & ~(1 << slot)) >>> 0;
  port.taken = (port.taken & ~(1 << slot)) >>> 0;
}

/** A command of the native queue is over; `error` is the error register. */
export function queuedDone(ahci: Ahci, memory: GuestMemory, { port, n, slot, task }: AhciCommand, error: number): void {
  const status = ataStatus.ready | (error ? ataStatus.error : 0);
  port.tfd = (error << 8) | status;
  const tag = task.count >> 3;
  const bit = tag === slot ? (1 << tag) >>> 0 : 0;
  if (!error) port.sact = (port.sact & ~bit) >>> 0;
  const bits = error ? 0 : bit;
  const bytes = [0, 8, 16, 24].map((by) => (bits >>> by) & 0xff);
  sendFis(memory, port, fis.setBits, [0x40, status & 0x77, error, ...bytes]);
  ahci.raise(n, error ? pxIs.setBits | pxIs.taskFile : pxIs.setBits);
}

/** How a command that is not queued ended. */
export interface AhciEnd {
  /** Bytes that moved, those to the guest by `scatter`, and whether by PIO. */
  readonly moved?: number;
  readonly scatter?: Scatter;
  readonly pio?: boolean;
  readonly error?: number;
  /** Registers that it leaves; as they were where not given. */
  readonly lba?: number | undefined;
  readonly count?: number | undefined;
  readonly signature?: boolean;
}

const { ready, seek, error: failed } = ataStatus;
export function ended(ahci: Ahci, memory: GuestMemory, command: AhciCommand, o: AhciEnd): void {
  const { moved = 0, error = 0, signature = false } = o;
  const { n, task, device } = command;
  o.scatter?.written();
  memory.write32(command.header + 4, moved);
  const wrong = error !== 0 && !(signature && error === 1);
  const status = ready | seek | (wrong ? failed : 0);
  const count = signature ? 1 : (o.count ?? task.count);
  if (o.pio && moved > 0) pioSetup(ahci, memory, command, moved, status);
  accept(command);
  registersOf(ahci, memory, command, {
    status: signature && device.packet && !wrong ? 0 : status,
    error,
    lba: signature ? device.signature : (o.lba ?? task.lba),
    count,
  });
  if (wrong) ahci.raise(n, pxIs.taskFile);
}

/** Sends registers of the device to the host. */
export function registersOf(
  ahci: Ahci,
  memory: GuestMemory,
  { port, n, task }: AhciCommand,
  o: { readonly status: number; readonly error: number; readonly lba: number; readonly count: number },
): void {
  port.tfd = (o.error << 8) | o.status;
  const at = (i: number): number => Math.floor(o.lba / 2 ** (8 * i)) & 0xff;
  sendFis(memory, port, fis.d2h, [
    ...[0x40, o.status, o.error, at(0), at(1), at(2), task.device, at(3), at(4), at(5), 0],
    ...[o.count & 0xff, (o.count >> 8) & 0xff, 0, 0, 0, 0, 0, 0],
  ]);
  ahci.raise(n, pxIs.d2h);
}

function pioSetup(ahci: Ahci, memory: GuestMemory, { port, n, task }: AhciCommand, bytes: number, status: number): void {
  const at = (i: number): number => Math.floor(task.lba / 2 ** (8 * i)) & 0xff;
  sendFis(memory, port, fis.pioSetup, [
    ...[0x60, status, 0, at(0), at(1), at(2), task.device, at(3), at(4), at(5), 0],
    ...[task.count & 0xff, (task.count >> 8) & 0xff, 0, status, bytes & 0xff, (bytes >> 8) & 0xff, 0, 0],
  ]);
  ahci.raise(n, pxIs.pioSetup);
}
