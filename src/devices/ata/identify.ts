// What IDENTIFY DEVICE and IDENTIFY PACKET DEVICE tell. ATA8-ACS (T10/1699-D), sections 7.16 and 7.17; ATA/ATAPI-6, section 8.15.

import type { AtaOptions } from './device.ts';

/** Largest number of sectors in a block of READ MULTIPLE. */
export const MULTIPLE_MAX = 16;
/** Depth of the native command queue. */
export const QUEUE_DEPTH = 32;
const LBA28_MAX = 0x0fff_ffff;

export interface Geometry {
  readonly cylinders: number;
  readonly heads: number;
  readonly sectors: number;
}

/** Cylinders, heads and sectors as the BIOS of a PC assumes them. */
export function geometryOf(blocks: number): Geometry {
  return { cylinders: Math.max(2, Math.min(16383, Math.floor(blocks / (16 * 63)))), heads: 16, sectors: 63 };
}

/** Words of the identification, with its setters. */
class Words {
  readonly bytes = new Uint8Array(512);
  readonly #view = new DataView(this.bytes.buffer);

  set(word: number, value: number): this {
    this.#view.setUint16(word * 2, value, true);
    return this;
  }
  set32(word: number, value: number): this {
    this.#view.setUint32(word * 2, value >>> 0, true);
    return this;
  }
  /** Text with the bytes of each word swapped. */
  text(word: number, s: string, length: number): this {
    const padded = s.slice(0, length).padEnd(length);
    for (let i = 0; i < length; i++) this.bytes[word * 2 + (i ^ 1)] = padded.charCodeAt(i);
    return this;
  }
  done(): Uint8Array {
    // Integrity word: signature and checksum.
    this.bytes[510] = 0xa5;
    this.bytes[511] = -this.bytes.reduce((sum, byte) => sum + byte, 0);
    return this.bytes;
  }
}

/** What of a device's state the identification shows. */
export interface IdentifyState {
  readonly blocks: number;
  readonly multiple: number;
  readonly writeCache: boolean;
  /** Words 62, 63 and 88: the chosen modes are in their upper bytes. */
  readonly modes: readonly [number, number, number];
  /** The native command queue is there. */
  readonly ncq: boolean;
}

export function identifyDisk(o: AtaOptions, s: IdentifyState): Uint8Array {
  const { cylinders, heads, sectors } = geometryOf(s.blocks);
  const old = cylinders * heads * sectors;
  const w = new Words()
    .set(0, 0x40)
    .set(1, cylinders)
    .set(3, heads)
    .set(4, 512 * sectors)
    .set(5, 512)
    .set(6, sectors)
    .text(10, o.serial, 20)
    .set(20, 3)
    .set(21, 512)
    .set(22, 4)
    .text(23, o.version, 8)
    .text(27, o.model, 40)
    .set(47, 0x8000 | MULTIPLE_MAX)
    .set(48, 1)
    .set(49, 0xb00)
    .set(51, 0x200)
    .set(52, 0x200)
    .set(53, 7)
    .set(54, cylinders)
    .set(55, heads)
    .set(56, sectors)
    .set32(57, old)
    .set(59, s.multiple ? 0x100 | s.multiple : 0)
    .set32(60, Math.min(s.blocks, LBA28_MAX))
    .set(62, s.modes[0])
    .set(63, s.modes[1])
    .set(64, 3);
  for (let i = 65; i <= 68; i++) w.set(i, 120);
  if (o.discard) w.set(69, 0x4000).set(105, 8).set(169, 1);
  if (s.ncq)
    w.set(75, QUEUE_DEPTH - 1)
      .set(76, 0x106)
      .set(77, 0);
  w.set(80, 0xf0).set(81, 0x16);
  w.set(82, 0x4021).set(83, 0x7400);
  w.set(84, o.wwn === undefined ? 0x4000 : 0x4100);
  w.set(85, s.writeCache ? 0x4021 : 0x4001)
    .set(86, 0x3400)
    .set(87, o.wwn === undefined ? 0x4000 : 0x4100);
  w.set(88, s.modes[2]).set(93, 0x6001);
  w.set32(100, s.blocks % 2 ** 32).set32(102, Math.floor(s.blocks / 2 ** 32));
  if (o.wwn !== undefined) for (let i = 0; i < 4; i++) w.set(108 + i, Number((o.wwn >> BigInt(48 - 16 * i)) & 0xffffn));
  w.set(217, 0);
  return w.done();
}

export function identifyPacket(o: AtaOptions, s: IdentifyState): Uint8Array {
  const w = new Words()
    // A CD-ROM that is removable, 12 bytes of packet, DRQ within 50 µs.
    .set(0, 0x85c0)
    .text(10, o.serial, 20)
    .set(20, 3)
    .set(21, 512)
    .set(22, 4)
    .text(23, o.version, 8)
    .text(27, o.model, 40)
    .set(48, 1)
    .set(49, 0x300)
    .set(53, 7)
    .set(62, s.modes[0])
    .set(63, s.modes[1])
    .set(64, 3)
    .set(65, 0xb4)
    .set(66, 0xb4)
    .set(67, 0x12c)
    .set(68, 0xb4)
    .set(71, 30)
    .set(72, 30)
    .set(80, 0x1e);
  if (s.ncq) w.set(75, 0).set(76, 0x102);
  w.set(88, s.modes[2]).set(93, 0x6001);
  return w.done();
}
