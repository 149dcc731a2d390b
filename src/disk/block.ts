// The block layer's two interfaces: the host's file below an image format and the disk above it, and the limits that both keep.

import type { DirectExtent } from './direct.ts';

/** A file of the host that holds an image. Offsets and sizes are bytes below 2^53; buffers may lie in shared memory. */
export interface ByteFile {
  /** What errors call it; a path where there is one. */
  readonly name: string;
  readonly readOnly: boolean;
  size(): Promise<number>;
  /** Bytes that the file takes on its storage; undefined where that cannot be known. */
  allocated(): Promise<number | undefined>;
  /** Fills `into`; what lies past the end of the file reads as zeros. */
  read(offset: number, into: Uint8Array): Promise<void>;
  /** The same for pieces that are one after another in the file, at one go; absent where the host cannot. */
  readPieces?(offset: number, into: readonly Uint8Array[]): Promise<void>;
  writePieces?(offset: number, from: readonly Uint8Array[]): Promise<void>;
  /** Writes all of `from`; the file grows as needed. Calls that do not overlap may run at the same time. */
  write(offset: number, from: Uint8Array): Promise<void>;
  /** Throws where so many more bytes of a disk would have no room; an image's tables still have. Absent where only writing shows it. */
  makeRoom?(bytes: number): void;
  /** Resolves when all that was written is on stable storage. */
  flush(): Promise<void>;
  truncate(size: number): Promise<void>;
  /** Gives the range's storage back; the size stays. True when the range now reads as zeros, false when nothing happened. */
  punch(offset: number, length: number): Promise<boolean>;
  /** Where the next bytes that are not a hole begin, at or after `offset`; the file's size when none follow. */
  nextData(offset: number): Promise<number>;
  /** Where the bytes that are no hole end, from `offset`, where they are such; `end` where they reach that far. Absent where it is not known. */
  nextHole?(offset: number, end: number): Promise<number>;
  /** The host's number of the file, for threads that read from it themselves, until `gone` is called; undefined where they may not. */
  direct?(gone: () => void): number | undefined;
  close(): Promise<void>;
}

/** What a range of a disk holds: bytes of its own, zeros without any, or whatever the backing file has. */
export type ExtentKind = 'data' | 'zero' | 'backing';

export interface Extent {
  readonly kind: ExtentKind;
  /** Bytes from the asked offset that are alike, at least 1 and at most the asked length. */
  readonly length: number;
}

/**
 * A disk: a fixed number of bytes. All ranges lie within `size`; others reject. Requests may overlap in time: each sees the
 * disk before or after another one, bytes of two writes to the same place at the same time may mix.
 */
export interface BlockDevice {
  readonly size: number;
  readonly readOnly: boolean;
  read(offset: number, into: Uint8Array): Promise<void>;
  write(offset: number, from: Uint8Array): Promise<void>;
  /** The same for pieces that are one after another on the disk, where that saves copies. */
  readPieces?(offset: number, into: readonly Uint8Array[]): Promise<void>;
  writePieces?(offset: number, from: readonly Uint8Array[]): Promise<void>;
  /** Resolves when every write that was done before is on stable storage. */
  flush(): Promise<void>;
  /** The range's contents are no longer needed: it reads as it did or as zeros afterwards. */
  discard(offset: number, length: number): Promise<void>;
  /** The range reads as zeros afterwards; takes no storage where the format can do that. */
  writeZeroes(offset: number, length: number): Promise<void>;
  /** What the range starts with. */
  extent(offset: number, length: number): Promise<Extent>;
  /**
   * Where bytes from `offset` on are in a file of the host, and as many around them as are known at once, until `gone` is called. `length` is
   * how many are of use. Undefined where they are in no file as they are, or what reads them must know of it.
   */
  direct?(offset: number, length: number, gone: () => void): Promise<DirectExtent | undefined>;
  /** Flushes and gives the files below back, those of backing files too. */
  close(): Promise<void>;
}

/** An image or a file that cannot be used, in words for its owner. */
export class DiskError extends Error {}

/** Throws unless `[offset, offset + length)` are whole bytes of a disk of `size` bytes. */
export function checkRange(what: string, offset: number, length: number, size: number): void {
  if (Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0 && offset <= size - length)
    return;
  throw new DiskError(`Cannot ${what} ${length} bytes at ${offset}: accepted are ranges within the disk's ${size} bytes`);
}

/** Bytes of pieces in all. */
export const piecesLength = (pieces: readonly Uint8Array[]): number => pieces.reduce((n, p) => n + p.length, 0);

/** Fills pieces that are one after another on the disk. */
/** The pieces of a part of what `pieces` are together. */
export function piecesRange(pieces: readonly Uint8Array[], from: number, length: number): Uint8Array[] {
  const out: Uint8Array[] = [];
  const end = from + length;
  let at = 0;
  for (const piece of pieces) {
    const next = at + piece.length;
    if (next > from && at < end) out.push(piece.subarray(Math.max(0, from - at), Math.min(piece.length, end - at)));
    at = next;
    if (at >= end) break;
  }
  return out;
}

export async function readPieces(device: BlockDevice, offset: number, into: readonly Uint8Array[]): Promise<void> {
  if (into.length === 1) return device.read(offset, into[0]!);
  if (device.readPieces) return device.readPieces(offset, into);
  const bytes = new Uint8Array(piecesLength(into));
  await device.read(offset, bytes);
  let at = 0;
  for (const piece of into) {
    piece.set(bytes.subarray(at, at + piece.length));
    at += piece.length;
  }
}

/** Writes pieces that are one after another on the disk. */
export async function writePieces(device: BlockDevice, offset: number, from: readonly Uint8Array[]): Promise<void> {
  if (from.length === 1) return device.write(offset, from[0]!);
  if (device.writePieces) return device.writePieces(offset, from);
  await device.write(offset, joinPieces(from));
}

/** All pieces as one, copied. */
export function joinPieces(pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(piecesLength(pieces));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

/** True when all bytes are zero. */
export function isZero(bytes: Uint8Array): boolean {
  let i = 0;
  const misaligned = bytes.byteOffset & 3;
  for (const head = Math.min(bytes.length, misaligned ? 4 - misaligned : 0); i < head; i++) if (bytes[i] !== 0) return false;
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset + i, (bytes.length - i) >>> 2);
  for (let w = 0; w < words.length; w++) if (words[w] !== 0) return false;
  for (i += words.length * 4; i < bytes.length; i++) if (bytes[i] !== 0) return false;
  return true;
}
