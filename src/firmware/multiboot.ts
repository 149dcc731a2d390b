// Multiboot 1 kernels: GNU Multiboot Specification, version 0.6.96, sections 3.1 "OS image format",
// 3.2 "Machine state" and 3.3 "Boot information format".

import { protected32State, realModeIdt } from './boot-state.ts';
import { E820_RAM, type MemoryRange } from './e820.ts';
import { loadElf, parseElf, physicalEntry } from './elf.ts';
import { INFO_ADDRESS, INFO_SIZE, LOW_DATA_END, STRINGS_ADDRESS, STRINGS_SIZE } from './layout.ts';
import { createArena, createStrings, encodeString, placeLow } from './placement.ts';
import { type BootState, checkRange, hex, type LoadTarget, writeZeros } from './target.ts';

const MAGIC = 0x1bad_b002;
const LOADER_MAGIC = 0x2bad_b002;
const SEARCH = 8192;
const ADDRESSES_VALID = 0x10000;
/** Required features: page-aligned modules, memory information, video (which a kernel must be able to do without). */
const KNOWN_REQUIRED = 0x7;

export interface MultibootHeader {
  /** Offset in the file. */
  readonly at: number;
  readonly flags: number;
  /** The "a.out kludge": where to load a file that is no ELF, when flag 16 is set. */
  readonly addresses?: {
    readonly header: number;
    readonly load: number;
    readonly loadEnd: number;
    readonly bssEnd: number;
    readonly entry: number;
  };
}

export interface MultibootModule {
  readonly bytes: Uint8Array;
  readonly commandLine: string;
}

/** Finds the header in the first 8 KiB; undefined when there is none with a right checksum. */
export const findMultibootHeader = (file: Uint8Array): MultibootHeader | undefined => {
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  for (let at = 0; at + 12 <= Math.min(file.length, SEARCH); at += 4) {
    if (view.getUint32(at, true) !== MAGIC) continue;
    const flags = view.getUint32(at + 4, true);
    if ((MAGIC + flags + view.getUint32(at + 8, true)) >>> 0 !== 0) continue;
    if (!(flags & ADDRESSES_VALID)) return { at, flags };
    if (at + 32 > file.length) return undefined;
    const word = (n: number): number => view.getUint32(at + n, true);
    return { at, flags, addresses: { header: word(12), load: word(16), loadEnd: word(20), bssEnd: word(24), entry: word(28) } };
  }
  return undefined;
};

/** The first byte that a kernel may use: behind the GDT; what it is told goes where it is not. */
const LOWEST = INFO_ADDRESS;

interface Loaded {
  readonly entry: number;
  /** Of the kernel with its bss: the first byte, and the one after the last. */
  readonly start: number;
  readonly end: number;
}

const loadByAddresses = (target: LoadTarget, file: Uint8Array, header: MultibootHeader): Loaded => {
  const { addresses, at } = header;
  if (!addresses) throw new Error('Cannot load multiboot kernel: its header has no load addresses');
  const bad = (why: string): never => {
    throw new Error(`Cannot load multiboot kernel: ${why}`);
  };
  const offset = at - (addresses.header - addresses.load);
  if (addresses.load > addresses.header || offset < 0) {
    bad(`its load address ${hex(addresses.load)} lies before the file, for a header at ${hex(addresses.header)}`);
  }
  const length = addresses.loadEnd === 0 ? file.length - offset : addresses.loadEnd - addresses.load;
  if (length <= 0 || offset + length > file.length) {
    bad(
      `its load end ${hex(addresses.loadEnd)} does not match the file, which ends at ${hex(addresses.load + file.length - offset)}`,
    );
  }
  const loaded = addresses.load + length;
  if (addresses.bssEnd !== 0 && addresses.bssEnd < loaded) {
    bad(`its bss ends at ${hex(addresses.bssEnd)}, before the loaded bytes do at ${hex(loaded)}`);
  }
  const end = Math.max(loaded, addresses.bssEnd);
  if (addresses.entry < addresses.load || addresses.entry >= loaded)
    bad(`its entry ${hex(addresses.entry)} is not in the loaded bytes`);
  checkRange(target, addresses.load, end - addresses.load, 'kernel', LOWEST);
  target.write(addresses.load, file.subarray(offset, offset + length));
  writeZeros(target, loaded, end - loaded);
  return { entry: addresses.entry, start: addresses.load, end };
};

const loadByElf = (target: LoadTarget, file: Uint8Array): Loaded => {
  const image = parseElf(file);
  return { entry: physicalEntry(image), ...loadElf(target, file, image, 'kernel', LOWEST) };
};

export interface MultibootOptions {
  /** The kernel's command line; by convention the first word is the kernel's name. */
  readonly commandLine: string;
  readonly modules: readonly MultibootModule[];
  readonly memoryMap: readonly MemoryRange[];
}

const encodeMap = (map: readonly MemoryRange[]): Uint8Array => {
  const bytes = new Uint8Array(map.length * 24);
  const view = new DataView(bytes.buffer);
  for (const [i, range] of map.entries()) {
    view.setUint32(i * 24, 20, true); // the size of what follows
    view.setBigUint64(i * 24 + 4, BigInt(range.start), true);
    view.setBigUint64(i * 24 + 12, BigInt(range.size), true);
    view.setUint32(i * 24 + 20, range.type, true);
  }
  return bytes;
};

/** KiB of RAM that begin at `start`, without a hole. */
const kibFrom = (map: readonly MemoryRange[], start: number): number =>
  Math.floor((map.find((r) => r.type === E820_RAM && r.start === start)?.size ?? 0) / 1024);

/**
 * Loads kernel and modules (page-aligned, above the kernel) and the information structure, to which EBX points:
 * in low memory, or behind a kernel that is there itself.
 */
export const loadMultiboot = (target: LoadTarget, file: Uint8Array, options: MultibootOptions): BootState => {
  const header = findMultibootHeader(file);
  if (!header) throw new Error(`Cannot load multiboot kernel: no header in the first ${SEARCH} bytes`);
  const unknown = header.flags & 0xffff & ~KNOWN_REQUIRED;
  if (unknown) throw new Error(`Cannot load multiboot kernel: it requires features ${hex(unknown)}, known are 0x7`);
  const { entry, start, end } = header.addresses ? loadByAddresses(target, file, header) : loadByElf(target, file);

  const modules = new Uint8Array(options.modules.length * 16);
  const moduleView = new DataView(modules.buffer);
  let next = end;
  const told = INFO_SIZE + STRINGS_SIZE;
  let infosAt = INFO_ADDRESS;
  let stringsAt = STRINGS_ADDRESS;
  if (start < LOW_DATA_END) {
    infosAt = placeLow(options.memoryMap, told, end, 'multiboot information');
    stringsAt = infosAt + INFO_SIZE;
    next = infosAt + told;
  }
  const infos = createArena(target, infosAt, INFO_SIZE, 'multiboot information');
  const strings = createStrings(target, stringsAt);
  for (const [i, module] of options.modules.entries()) {
    const at = placeLow(options.memoryMap, module.bytes.length, next, `module ${i}`);
    target.write(at, module.bytes);
    next = at + module.bytes.length;
    moduleView.setUint32(i * 16, at, true);
    moduleView.setUint32(i * 16 + 4, next, true);
    moduleView.setUint32(i * 16 + 8, strings.put(encodeString(module.commandLine, 4095)), true);
  }
  const map = encodeMap(options.memoryMap);
  const info = new Uint8Array(120);
  const view = new DataView(info.buffer);
  view.setUint32(0, 0x1 | 0x4 | 0x8 | 0x40 | 0x200, true); // memory, command line, modules, map, loader name
  view.setUint32(4, kibFrom(options.memoryMap, 0), true);
  view.setUint32(8, kibFrom(options.memoryMap, 0x100000), true);
  view.setUint32(16, strings.put(encodeString(options.commandLine, 4095)), true);
  view.setUint32(20, options.modules.length, true);
  view.setUint32(24, infos.put(modules), true);
  view.setUint32(44, map.length, true);
  view.setUint32(48, infos.put(map), true);
  view.setUint32(64, strings.put(encodeString('nonroot', 4095)), true);
  const state = protected32State(target, 'multiboot kernel', entry, { rax: LOADER_MAGIC, rbx: infos.put(info) });
  // A kernel that goes back to real mode finds what the BIOS had there.
  return { ...state, idt: realModeIdt };
};
