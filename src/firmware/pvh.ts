// PVH direct boot: Xen docs/misc/pvh.pandoc ("x86/HVM direct boot ABI") and xen/include/public/arch-x86/hvm/start_info.h.

import { protected32State } from './boot-state.ts';
import type { MemoryRange } from './e820.ts';
import { type ElfImage, loadElf } from './elf.ts';
import { INFO_ADDRESS, INFO_SIZE } from './layout.ts';
import { createArena, createStrings, encodeString, placeHigh } from './placement.ts';
import { asFile, type BootState, hex, type ImageFile, type LoadTarget } from './target.ts';

const XEN_ELFNOTE_PHYS32_ENTRY = 18;
const START_MAGIC = 0x336e_c578;

/** The 32-bit entry point that a file's Xen note names; undefined when it has none, so that it is no PVH kernel. */
export const pvhEntry = (image: ElfImage): number | undefined => {
  const note = image.notes.find((n) => n.name === 'Xen' && n.type === XEN_ELFNOTE_PHYS32_ENTRY);
  if (!note || (note.data.length !== 4 && note.data.length !== 8)) return undefined;
  const view = new DataView(note.data.buffer, note.data.byteOffset, note.data.length);
  const entry = note.data.length === 4 ? BigInt(view.getUint32(0, true)) : view.getBigUint64(0, true);
  if (entry >= 1n << 32n) throw new Error(`Cannot boot PVH kernel: its entry is at ${hex(entry)}, it must be below 4 GiB`);
  return Number(entry);
};

export interface PvhOptions {
  readonly append: string;
  readonly initrd?: Uint8Array | ImageFile;
  readonly memoryMap: readonly MemoryRange[];
  readonly rsdp?: number;
}

/** Loads the ELF file and `hvm_start_info` with memory map, command line and the initrd as module 0; EBX points to it. */
export const loadPvh = (target: LoadTarget, file: Uint8Array, image: ElfImage, options: PvhOptions): BootState => {
  const entry = pvhEntry(image);
  if (entry === undefined) throw new Error('Cannot boot PVH kernel: the file has no Xen note with a PHYS32_ENTRY');
  const { end } = loadElf(target, file, image, 'kernel');
  const strings = createStrings(target);
  const infos = createArena(target, INFO_ADDRESS, INFO_SIZE, 'PVH start information');

  const map = new Uint8Array(options.memoryMap.length * 24);
  const mapView = new DataView(map.buffer);
  for (const [i, range] of options.memoryMap.entries()) {
    mapView.setBigUint64(i * 24, BigInt(range.start), true);
    mapView.setBigUint64(i * 24 + 8, BigInt(range.size), true);
    mapView.setUint32(i * 24 + 16, range.type, true);
  }

  let modules = 0;
  if (options.initrd && options.initrd.length > 0) {
    const at = placeHigh(options.memoryMap, options.initrd.length, end, 2 ** 32, 'initrd');
    target.load(at, asFile(options.initrd), 0, options.initrd.length, false);
    const entryBytes = new Uint8Array(32);
    const view = new DataView(entryBytes.buffer);
    view.setBigUint64(0, BigInt(at), true);
    view.setBigUint64(8, BigInt(options.initrd.length), true);
    modules = infos.put(entryBytes);
  }

  const start = new Uint8Array(56);
  const view = new DataView(start.buffer);
  view.setUint32(0, START_MAGIC, true);
  view.setUint32(4, 1, true);
  view.setUint32(12, modules ? 1 : 0, true);
  view.setBigUint64(16, BigInt(modules), true);
  view.setBigUint64(24, BigInt(strings.put(encodeString(options.append, 4095))), true);
  view.setBigUint64(32, BigInt(options.rsdp ?? 0), true);
  view.setBigUint64(40, BigInt(infos.put(map)), true);
  view.setUint32(48, options.memoryMap.length, true);
  return protected32State(target, `PVH kernel, ELF${image.bits}`, entry, { rbx: infos.put(start) });
};
