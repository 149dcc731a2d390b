// Reads that an IDE channel carries out when they are asked for, on the vCPU's thread: by PIO or bus master, of disks and of packets.

import type { GuestMemory } from '../bus/memory.ts';
import type { Direct } from './direct.ts';
import { action, bm, IDE_BUFFER, type IdeChannel } from './ide.ts';
import { regions } from './ide-io.ts';
import type { Scatter } from './scatter.ts';
import { sizeOf } from './scsi/perform.ts';

/** For `IdeChannelOptions.atOnce`; `directOf` gives the selected drive's bytes. What it begins, the I/O thread can go on with. With the board's lock held. */
export function readsAtOnce(channel: IdeChannel, memory: GuestMemory, directOf: (unit: number) => Direct | undefined) {
  const { s } = channel;
  /** The bus master was started. */
  const dma = (direct: Direct): boolean => {
    if (s.out || s.left === 0) return false;
    let to: { readonly scatter: Scatter; readonly ended: boolean } | undefined;
    const pieces = (): readonly Uint8Array[] | undefined => {
      to = regions(memory, s.bmTable, s.left);
      return sizeOf(to.scatter.pieces) === s.left ? to.scatter.pieces : undefined;
    };
    if (!direct.read(s.offset, s.left, pieces)) return false;
    to!.scatter.written();
    if (to!.ended) s.bmStatus &= ~bm.active;
    channel.complete();
    return true;
  };
  /** The next part goes to the buffer. */
  const refill = (direct: Direct): boolean => {
    const length = Math.min(s.left, IDE_BUFFER);
    if (s.out || length === 0 || !direct.read(s.offset, length, () => [s.buffer.subarray(0, length)])) return false;
    s.left -= length;
    s.offset += length;
    channel.beginIn(length, s.block);
    return true;
  };
  const begin = (
    direct: Direct,
    span: { readonly offset: number; readonly length: number } | undefined,
    o: { readonly dma: boolean; readonly block: number },
  ): boolean => {
    // Whether a medium has what is asked for is known here where its bytes are.
    if (!span || !direct.has(span.offset, span.length)) return false;
    Object.assign(s, { offset: span.offset, left: span.length, block: o.block, out: 0 });
    if (o.dma ? !channel.waitForDma() || dma(direct) : refill(direct)) return true;
    s.left = 0;
    return false;
  };
  return (what: number): boolean => {
    const { unit } = channel;
    const drive = channel.drives[unit];
    const direct = directOf(unit);
    if (!drive || !direct) return false;
    switch (what) {
      case action.command: {
        const task = channel.taskFile();
        if (drive.takesPacket(task)) {
          channel.beginPacket();
          return true;
        }
        const transfer = drive.reads(task);
        return transfer !== undefined && begin(direct, transfer, transfer);
      }
      case action.packet: {
        const block = channel.packetLimit(unit);
        const started =
          drive.packet && begin(direct, drive.packet.reads(s.buffer.slice(0, 12)), { dma: (s.feature[unit]! & 1) !== 0, block });
        if (started) drive.packet.readDone();
        return started === true;
      }
      case action.dma:
        return dma(direct);
      case action.refill:
        return refill(direct);
      default:
        return false;
    }
  };
}
