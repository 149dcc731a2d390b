// One door for every kernel file: recognises Linux bzImage, multiboot 1, PVH and vmlinux, loads it, and says how to enter it.
// Multiboot is tried before PVH and PVH before vmlinux, the order of QEMU; each format's manual is named in its file.

import { type BzImageOptions, loadBzImage } from './bzimage.ts';
import { buildE820, type MemoryRange } from './e820.ts';
import { isElf, parseElf } from './elf.ts';
import { findMultibootHeader, loadMultiboot, type MultibootModule } from './multiboot.ts';
import { loadPvh, pvhEntry } from './pvh.ts';
import { isBzImage } from './setup-header.ts';
import { asFile, type BootState, type ImageFile, type LoadTarget, size } from './target.ts';
import { isVmlinux, loadVmlinux } from './vmlinux.ts';

export interface KernelOptions extends Partial<Omit<BzImageOptions, 'initrd'>> {
  readonly kernel: Uint8Array;
  /** The kernel file's name: the first word of a multiboot kernel's command line. */
  readonly name?: string;
  /** The initrd of a Linux or PVH kernel; a multiboot kernel gets it as its only module when `modules` is not given. */
  readonly initrd?: Uint8Array | ImageFile;
  readonly modules?: readonly MultibootModule[];
  /** The guest's memory map; by default `buildE820` of the target. */
  readonly memoryMap?: readonly MemoryRange[];
}

const found = (bytes: Uint8Array): string => {
  const start = [...bytes.subarray(0, 8)].map((b) => b.toString(16).padStart(2, '0')).join(' ');
  if (bytes.length === 0) return 'an empty file';
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) return 'a gzip file (decompress it first)';
  if (bytes[0] === 0x4d && bytes[1] === 0x5a) return 'an EFI or DOS program without a Linux setup header';
  return `a file of ${size(bytes.length)} that begins with ${start}`;
};

/**
 * Loads `options.kernel` and all that it needs into `target`; returns the registers to start the first vCPU with.
 * @throws one line: what was found, what is accepted
 */
export const loadKernel = (target: LoadTarget, options: KernelOptions): BootState => {
  const { kernel, initrd } = options;
  const append = options.append ?? '';
  const memoryMap = options.memoryMap ?? buildE820(target);
  const linux = { ...options, append, initrd, memoryMap };
  if (isBzImage(kernel)) return loadBzImage(target, kernel, linux);
  options.complete?.();
  if (findMultibootHeader(kernel)) {
    const commandLine = [options.name ?? 'kernel', append].filter((s) => s !== '').join(' ');
    const modules = options.modules ?? (initrd ? [{ bytes: asFile(initrd).bytes(0, initrd.length), commandLine: 'initrd' }] : []);
    return loadMultiboot(target, kernel, { commandLine, modules, memoryMap });
  }
  if (isElf(kernel)) {
    const image = parseElf(kernel);
    if (pvhEntry(image) !== undefined) return loadPvh(target, kernel, image, linux);
    if (isVmlinux(image)) return loadVmlinux(target, kernel, linux);
    throw new Error(
      `Cannot load kernel: an ELF${image.bits} file without PVH note or multiboot header and not linked like Linux; ` +
        'accepted are Linux bzImage and vmlinux, PVH ELF and multiboot 1',
    );
  }
  throw new Error(`Cannot load kernel: ${found(kernel)}; accepted are Linux bzImage and vmlinux, PVH ELF and multiboot 1`);
};
