// The raw image format: the file's bytes are the disk's.

import { type BlockDevice, type ByteFile, checkRange, DiskError, type Extent, piecesLength } from './block.ts';
import type { DirectExtent } from './direct.ts';

const CHUNK = 1 << 20;

const SECTOR = 512;

/** A disk over a file: as large as the file when it is opened, with a last sector that is whole (as with QEMU); what the file lacks of it reads as zeros. */
export class RawImage implements BlockDevice {
  readonly file: ByteFile;
  readonly readOnly: boolean;
  #size: number;

  private constructor(file: ByteFile, size: number, readOnly: boolean) {
    this.file = file;
    this.#size = size;
    this.readOnly = readOnly;
  }

  static async open(file: ByteFile, options: { readonly readOnly?: boolean } = {}): Promise<RawImage> {
    return new RawImage(file, Math.ceil((await file.size()) / SECTOR) * SECTOR, options.readOnly === true || file.readOnly);
  }

  get size(): number {
    return this.#size;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    checkRange('read', offset, into.length, this.#size);
    await this.file.read(offset, into);
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    this.#writable('write', offset, from.length);
    await this.file.write(offset, from);
  }

  async readPieces(offset: number, into: readonly Uint8Array[]): Promise<void> {
    checkRange('read', offset, piecesLength(into), this.#size);
    if (this.file.readPieces) return this.file.readPieces(offset, into);
    for (const piece of into) {
      await this.file.read(offset, piece);
      offset += piece.length;
    }
  }

  async writePieces(offset: number, from: readonly Uint8Array[]): Promise<void> {
    this.#writable('write', offset, piecesLength(from));
    if (this.file.writePieces) return this.file.writePieces(offset, from);
    for (const piece of from) {
      await this.file.write(offset, piece);
      offset += piece.length;
    }
  }

  async flush(): Promise<void> {
    if (!this.readOnly) await this.file.flush();
  }

  async discard(offset: number, length: number): Promise<void> {
    this.#writable('discard', offset, length);
    if (length > 0) await this.file.punch(offset, length);
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    this.#writable('write zeros to', offset, length);
    if (length === 0 || (await this.file.punch(offset, length))) return;
    const zeros = new Uint8Array(Math.min(CHUNK, length));
    for (let done = 0; done < length; done += zeros.length)
      await this.file.write(offset + done, zeros.subarray(0, Math.min(zeros.length, length - done)));
  }

  async extent(offset: number, length: number): Promise<Extent> {
    checkRange('look at', offset, length, this.#size);
    const data = await this.file.nextData(offset);
    if (data > offset) return { kind: 'zero', length: Math.min(length, data - offset) };
    const end = (await this.file.nextHole?.(offset, offset + length)) ?? offset + length;
    // A sector that begins with data is data.
    return { kind: 'data', length: Math.max(1, Math.min(length, Math.ceil(end / SECTOR) * SECTOR - offset)) };
  }

  async direct(_offset: number, _length: number, gone: () => void): Promise<DirectExtent | undefined> {
    const fd = this.file.direct?.(gone);
    return fd === undefined ? undefined : { fd, at: 0, start: 0, length: this.#size };
  }

  /** New bytes read as zeros. */
  async resize(size: number): Promise<void> {
    this.#writable('resize', 0, 0);
    await this.file.truncate(size);
    this.#size = size;
  }

  async close(): Promise<void> {
    try {
      await this.flush();
    } finally {
      await this.file.close();
    }
  }

  #writable(what: string, offset: number, length: number): void {
    if (this.readOnly) throw new DiskError(`Cannot ${what} ${this.file.name}: it is open for reading only`);
    checkRange(what, offset, length, this.#size);
  }
}
