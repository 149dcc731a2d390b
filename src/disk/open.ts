// Opens images with their backing files: probing as QEMU does, names relative to the image that holds them, no loops.
// QEMU "Qcow2 Image File Format", sections "Header" and "String header extensions".

import { type BlockDevice, type ByteFile, DiskError } from './block.ts';
import type { Codec } from './codec.ts';
import { isHttp } from './http/file.ts';
import type { HttpClient } from './http/protocol.ts';
import type { MemoryBudget } from './memory-file.ts';
import type { NbdSockets } from './nbd/protocol.ts';
import { isQcow2 } from './qcow2/header.ts';
import { Qcow2Image, readHeader } from './qcow2/image.ts';
import { RawImage } from './raw.ts';

export interface FileOptions {
  readonly readOnly: boolean;
  readonly create?: boolean;
  readonly sync?: boolean | undefined;
  readonly share?: boolean | undefined;
}

/** What opening images needs of the host. */
export interface DiskHost {
  readonly codec: Codec;
  /** Memory for temporary disks; without one as much as they need. */
  readonly temporary?: MemoryBudget;
  /** Where the host has sockets: disks of other machines. */
  readonly sockets?: NbdSockets;
  /** Where the host has a web client: disks behind URLs. */
  readonly http?: HttpClient;
  /**
   * Opens a file, or what is behind a URL, for one writer or many readers, across processes. `create` makes it where it is missing; `sync: false` has
   * `flush` not wait for the storage; `share` reads what another process may be writing. Rejects with one line.
   */
  open(path: string, options: FileOptions): Promise<ByteFile>;
  /** A block node of this file was removed: what the host keeps to open it again can go, if no other node is of it. */
  forget?(path: string): void;
  /** `name` as seen from the folder of the image `from`. */
  resolve(from: string, name: string): string;
  /** The same for two names of one file. */
  identity(path: string): Promise<string>;
}

export type Format = 'raw' | 'qcow2';
export const formats: readonly Format[] = ['raw', 'qcow2'];

export interface OpenOptions {
  /** Probed when not given. */
  readonly format?: Format | undefined;
  readonly readOnly?: boolean;
  /** False leaves backing files closed: unallocated clusters read as zeros. */
  readonly backing?: boolean;
  /** The image directly below is opened for writing too, for `commit`. */
  readonly writableBacking?: boolean;
  /** Opens the disk as this snapshot kept it, for reading. */
  readonly snapshot?: string | undefined;
  /** Opens what is damaged, for `check`. */
  readonly forCheck?: boolean;
  /** Reads what another process may be writing at this moment. */
  readonly share?: boolean;
  /** False makes `flush` write to the host without waiting for its storage. */
  readonly sync?: boolean | undefined;
}

/** An open image. `device` is the same as `qcow2` or the raw disk. */
export interface OpenDisk {
  readonly device: BlockDevice;
  readonly qcow2: Qcow2Image | undefined;
  readonly format: Format;
  readonly path: string;
  readonly file: ByteFile;
  /** The image below, opened for reading. */
  readonly backing: OpenDisk | undefined;
}

const MAX_DEPTH = 100;

/** Formats that are recognised to be refused: offset of the magic, its bytes. */
const foreign: readonly (readonly [name: string, offset: number, magic: string])[] = [
  ['vmdk', 0, 'KDMV'],
  ['qed', 0, 'QED\0'],
  ['vhdx', 0, 'vhdxfile'],
  ['vpc', 0, 'conectix'],
  ['luks', 0, 'LUKS\xba\xbe'],
  ['vdi', 0x40, '\x7f\x10\xda\xbe'],
  ['parallels', 0, 'WithoutFreeSpace'],
];

/** The format of a file by its first bytes; what begins like nothing known is raw. */
export async function probe(file: ByteFile): Promise<Format> {
  const start = new Uint8Array(512);
  await file.read(0, start);
  if (isQcow2(start)) {
    const version = new DataView(start.buffer).getUint32(4);
    if (version === 1)
      throw new DiskError(`Cannot open ${file.name}: its format is qcow (version 1), accepted are ${formats.join(', ')}`);
    return 'qcow2';
  }
  for (const [name, offset, magic] of foreign) {
    if ([...magic].every((c, i) => start[offset + i] === c.charCodeAt(0)))
      throw new DiskError(`Cannot open ${file.name}: its format is ${name}, accepted are ${formats.join(', ')}`);
  }
  return 'raw';
}

/**
 * A format by its name.
 * @throws DiskError for others than raw and qcow2
 */
export function formatOf(name: string): Format {
  const format = formats.find((f) => f === name);
  if (format) return format;
  throw new DiskError(`Cannot use format ${name}: accepted are ${formats.join(', ')}`);
}

/**
 * A backing file's name as a path of the host, `file:` taken off, or as a URL. Images that come from a web server name others there,
 * not files of this host.
 */
export function backingPath(host: DiskHost, image: string, name: string): string {
  if (isHttp(name)) return name;
  const plain = name.startsWith('file:') ? name.slice(5) : name;
  if (/^[^/]*:/.test(plain))
    throw new DiskError(`Cannot open backing file ${name} of ${image}: accepted are names of local files and URLs of HTTP(S)`);
  if (isHttp(image)) {
    if (plain !== name || plain.startsWith('/'))
      throw new DiskError(`Cannot open backing file ${name} of ${image}: accepted are URLs, and names beside it`);
    return image.replace(/[?#].*$/, '').replace(/[^/]*$/, plain);
  }
  return host.resolve(image, plain);
}

/**
 * Opens an image and the chain below it.
 * @throws DiskError (rejects) for images that cannot be used and for chains that loop
 */
export function openDisk(host: DiskHost, path: string, options: OpenOptions = {}): Promise<OpenDisk> {
  return openChain(host, path, options, []);
}

async function openChain(host: DiskHost, path: string, options: OpenOptions, above: readonly string[]): Promise<OpenDisk> {
  const readOnly = options.readOnly === true;
  const file = await host.open(path, { readOnly, sync: options.sync, share: options.share });
  let below: OpenDisk | undefined;
  try {
    const identity = await host.identity(path);
    if (above.includes(identity)) throw new DiskError(`Cannot open ${path}: it is its own backing file`);
    if (above.length >= MAX_DEPTH)
      throw new DiskError(`Cannot open ${path}: it is below ${MAX_DEPTH} images, accepted are fewer`);
    const format = options.format ?? (await probe(file));
    if (format === 'raw') {
      const device = await RawImage.open(file, { readOnly });
      if (options.snapshot !== undefined) throw new DiskError(`Cannot open a snapshot of ${path}: raw images have none`);
      return { device, qcow2: undefined, format, path, file, backing: undefined };
    }
    const header = await readHeader(file);
    if (header.backing !== undefined && options.backing !== false) {
      const name = backingPath(host, path, header.backing);
      const backingFormat = header.backingFormat === undefined ? undefined : formatOf(header.backingFormat);
      const lower = {
        format: backingFormat,
        readOnly: options.writableBacking !== true,
        share: options.share === true,
        sync: options.sync,
      };
      below = await openChain(host, name, lower, [...above, identity]).catch((error: unknown) => {
        throw new DiskError(`Cannot open backing file of ${path}: ${error instanceof Error ? error.message : String(error)}`);
      });
    }
    const qcow2 = await Qcow2Image.open(file, {
      codec: host.codec,
      readOnly,
      backing: below?.device,
      forCheck: options.forCheck === true,
      snapshot: options.snapshot,
    });
    return { device: qcow2, qcow2, format, path, file, backing: below };
  } catch (error) {
    await below?.device.close().catch(() => {});
    await file.close().catch(() => {});
    throw error;
  }
}
