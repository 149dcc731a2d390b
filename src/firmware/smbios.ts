// The SMBIOS structures that describe the guest, with a 64-bit entry point.
// DMTF DSP0134, System Management BIOS Reference Specification 3.5.0: sections 5.2.2 (entry point), 6.1.2–6.1.3 (structures
// and their strings) and 7 (types 0, 1, 3, 4, 16, 17, 19, 32, 127); UUID byte order: 7.2.1.

import { GIB4 } from './target.ts';

export interface SmbiosConfig {
  /** vCPU sockets; each has `coresPerSocket` cores with `threadsPerCore` threads. */
  readonly sockets: number;
  readonly coresPerSocket: number;
  readonly threadsPerCore: number;
  readonly cpuModel: string;
  readonly ramBelow4G: number;
  readonly ramAbove4G: number;
  /** Type 0 and type 1 strings; what is not given has a default or is left out. */
  readonly bios?: { readonly vendor?: string; readonly version?: string; readonly date?: string };
  readonly system?: {
    readonly manufacturer?: string;
    readonly product?: string;
    readonly version?: string;
    readonly serial?: string;
    /** Text form, `4c4c4544-…`; all zeros ("not set") when not given. */
    readonly uuid?: string;
    readonly sku?: string;
    readonly family?: string;
  };
}

/** One structure's formatted area, written field by field, with the strings that it names. */
interface Structure {
  byte(value: number): Structure;
  half(value: number): Structure;
  word(value: number): Structure;
  quad(value: number): Structure;
  raw(values: Iterable<number>): Structure;
  /** A string's number; 0 for none. */
  text(value: string | undefined): Structure;
  end(): Uint8Array;
}

const structure = (type: number, handle: number): Structure => {
  const bytes: number[] = [type, 0, handle & 0xff, handle >> 8];
  const strings: string[] = [];
  const self: Structure = {
    byte: (value: number) => self.raw([value & 0xff]),
    half: (value: number) => self.byte(value).byte(value >> 8),
    word: (value: number) => self.half(value & 0xffff).half(value >>> 16),
    quad: (value: number) => self.word(value % GIB4).word(Math.floor(value / GIB4)),
    raw: (values: Iterable<number>) => {
      bytes.push(...values);
      return self;
    },
    text: (value: string | undefined) => {
      if (!value) return self.byte(0);
      if (value.includes('\0')) throw new Error(`Cannot build SMBIOS type ${type}: a string has a NUL character`);
      strings.push(value);
      return self.byte(strings.length);
    },
    end: (): Uint8Array => {
      bytes[1] = bytes.length;
      const encoder = new TextEncoder();
      for (const value of strings) bytes.push(...encoder.encode(value), 0);
      bytes.push(0);
      if (strings.length === 0) bytes.push(0);
      return Uint8Array.from(bytes);
    },
  };
  return self;
};

const uuidBytes = (text: string | undefined): Uint8Array => {
  if (text === undefined) return new Uint8Array(16);
  const digits = text.replaceAll('-', '');
  if (!/^[0-9a-fA-F]{32}$/.test(digits)) {
    throw new Error(`Cannot build SMBIOS tables: UUID "${text}", accepted are 32 hex digits in groups of 8-4-4-4-12`);
  }
  const order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
  return Uint8Array.from(order, (i) => Number.parseInt(digits.slice(i * 2, i * 2 + 2), 16));
};

const KIB = 1024;
const MIB = 1024 * 1024;
const DEVICE_LIMIT = 0x7fff_ffff; // MiB in a memory device's extended size
const handles = {
  bios: 0x0000,
  system: 0x0100,
  chassis: 0x0300,
  cpu: 0x0400,
  array: 0x1000,
  device: 0x1100,
  mapped: 0x1300,
  boot: 0x2000,
  end: 0x7f00,
};

const biosInformation = (config: SmbiosConfig): Uint8Array =>
  structure(0, handles.bios)
    .text(config.bios?.vendor ?? 'Nonroot')
    .text(config.bios?.version ?? '1')
    .half(0xe800) // start segment
    .text(config.bios?.date ?? '01/01/2024')
    .byte(0) // 64 KiB of ROM
    .quad(0x08) // characteristics not supported
    .byte(1) // ACPI
    .byte(0x14) // targeted content distribution; virtual machine
    .byte(0)
    .byte(0)
    .byte(0xff)
    .byte(0xff)
    .end();

const systemInformation = ({ system = {} }: SmbiosConfig): Uint8Array =>
  structure(1, handles.system)
    .text(system.manufacturer ?? 'Nonroot')
    .text(system.product ?? 'Virtual Machine')
    .text(system.version)
    .text(system.serial)
    .raw(uuidBytes(system.uuid))
    .byte(6) // power switch
    .text(system.sku)
    .text(system.family)
    .end();

const chassis = ({ system = {} }: SmbiosConfig): Uint8Array =>
  structure(3, handles.chassis)
    .text(system.manufacturer ?? 'Nonroot')
    .byte(1) // other
    .text(system.version)
    .text(undefined)
    .text(undefined)
    .raw([3, 3, 3, 2]) // boot-up, power and thermal state safe; security unknown
    .word(0)
    .raw([0, 0, 0, 0]) // height, cords, elements
    .text(system.sku)
    .end();

const processor = (config: SmbiosConfig, socket: number): Uint8Array => {
  const cores = config.coresPerSocket;
  const threads = cores * config.threadsPerCore;
  const small = (n: number): number => (n > 255 ? 0xff : n);
  return structure(4, handles.cpu + socket)
    .text(`CPU ${socket}`)
    .byte(3) // central processor
    .byte(1) // family: other
    .text('Nonroot')
    .quad(0) // processor id
    .text(config.cpuModel)
    .byte(0) // voltage
    .half(0)
    .half(0) // speeds unknown
    .half(0)
    .byte(0x41) // populated, enabled
    .byte(1)
    .half(0xffff)
    .half(0xffff)
    .half(0xffff) // no cache structures
    .text(undefined)
    .text(undefined)
    .text(undefined)
    .byte(small(cores))
    .byte(small(cores))
    .byte(small(threads))
    .half(0x0004) // 64-bit capable
    .half(1) // family 2
    .half(cores)
    .half(cores)
    .half(threads)
    .end();
};

const memoryArray = (total: number): Uint8Array =>
  structure(16, handles.array)
    .byte(1) // other place
    .byte(3) // system memory
    .byte(6) // multi-bit ECC
    .word(Math.min(total / KIB, 0x8000_0000))
    .half(0xfffe)
    .half(1)
    .quad(total / KIB < 0x8000_0000 ? 0 : total)
    .end();

const memoryDevice = (total: number): Uint8Array => {
  const mib = Math.min(Math.floor(total / MIB), DEVICE_LIMIT);
  return structure(17, handles.device)
    .half(handles.array)
    .half(0xfffe)
    .half(0xffff)
    .half(0xffff) // widths unknown
    .half(Math.min(mib, 0x7fff))
    .byte(9) // DIMM
    .byte(0)
    .text('DIMM 0')
    .text(undefined)
    .byte(7) // RAM
    .half(2)
    .half(0)
    .text('Nonroot')
    .text(undefined)
    .text(undefined)
    .text(undefined)
    .byte(0)
    .word(mib < 0x7fff ? 0 : mib)
    .half(0)
    .half(0)
    .half(0)
    .half(0)
    .end();
};

const mappedAddress = (index: number, start: number, length: number): Uint8Array => {
  const last = start + length - 1;
  const fits = last < GIB4 * KIB;
  return structure(19, handles.mapped + index)
    .word(fits ? Math.floor(start / KIB) : 0xffff_ffff)
    .word(fits ? Math.floor(last / KIB) : 0xffff_ffff)
    .half(handles.array)
    .byte(1)
    .quad(fits ? 0 : start)
    .quad(fits ? 0 : last)
    .end();
};

export interface SmbiosImage {
  /** The structures; their address may be any below 4 GiB. */
  readonly tables: Uint8Array;
  /** The 64-bit entry point (24 bytes) for tables at `address`; to be placed at a multiple of 16 in 0xF0000–0xFFFFF. */
  readonly entryPoint: (address: number) => Uint8Array;
}

/** Types 0, 1, 3, 4 for each socket, 16, 17, 19 for each RAM range, 32 and 127. */
export const buildSmbios = (config: SmbiosConfig): SmbiosImage => {
  const total = config.ramBelow4G + config.ramAbove4G;
  const list = [
    biosInformation(config),
    systemInformation(config),
    chassis(config),
    ...Array.from({ length: config.sockets }, (_, i) => processor(config, i)),
    memoryArray(total),
    memoryDevice(total),
    mappedAddress(0, 0, config.ramBelow4G),
    ...(config.ramAbove4G > 0 ? [mappedAddress(1, GIB4, config.ramAbove4G)] : []),
    structure(32, handles.boot).raw([0, 0, 0, 0, 0, 0, 0]).end(),
    structure(127, handles.end).end(),
  ];
  const tables = new Uint8Array(list.reduce((sum, bytes) => sum + bytes.length, 0));
  let at = 0;
  for (const bytes of list) {
    tables.set(bytes, at);
    at += bytes.length;
  }
  return {
    tables,
    entryPoint: (address) => {
      const entry = new Uint8Array(24);
      const view = new DataView(entry.buffer);
      entry.set(new TextEncoder().encode('_SM3_'));
      entry[6] = 24;
      entry[7] = 3; // 3.5.0
      entry[8] = 5;
      entry[10] = 1;
      view.setUint32(12, tables.length, true);
      view.setBigUint64(16, BigInt(address), true);
      entry[5] = -entry.reduce((sum, byte) => sum + byte, 0) & 0xff;
      return entry;
    },
  };
};

/**
 * Entry point and tables as one block for guest address `base`, a multiple of 16 in 0xF0000–0xFFFFF.
 * @throws when the block is larger than `room`
 */
export const linkSmbios = (image: SmbiosImage, base: number, room: number): Uint8Array => {
  const bytes = new Uint8Array(32 + image.tables.length);
  if (bytes.length > room) throw new Error(`Cannot place SMBIOS tables: they have ${bytes.length} bytes, accepted are ${room}`);
  bytes.set(image.entryPoint(base + 32));
  bytes.set(image.tables, 32);
  return bytes;
};
