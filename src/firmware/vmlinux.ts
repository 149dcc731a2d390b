// Entering an uncompressed Linux kernel (ELF vmlinux) directly, as its own decompressor would do it:
// Linux Documentation/arch/x86/boot.rst (6.8), "64-bit Boot Protocol", and the ELF header's physical entry point.
// No KASLR (the KASLR_FLAG in loadflags stays clear), so no relocation has to be applied; 4-level paging.

import { long64State, protected32State } from './boot-state.ts';
import { type ElfImage, loadElf, parseElf, physicalEntry } from './elf.ts';
import type { SetupHeader } from './setup-header.ts';
import type { BootState, ImageFile, LoadTarget } from './target.ts';
import { type LinuxOptions, rawHeader, writeZeroPage } from './zero-page.ts';

const KERNEL_HALF_64 = 0xffff_8000_0000_0000n;
const KERNEL_HALF_32 = 0x4000_0000n;

/** True for an ELF file linked like Linux: code in the kernel's half of the address space, loaded low. */
export const isVmlinux = (image: ElfImage): boolean => {
  const half = image.bits === 64 ? KERNEL_HALF_64 : KERNEL_HALF_32;
  const [first] = image.segments;
  return first !== undefined && first.virtual >= half && BigInt(first.physical) < first.virtual;
};

/**
 * Loads `vmlinux` (ELF64 for x86-64, ELF32 for i386) at its physical addresses and enters it with RSI at the zero page.
 * `bzImage` is the file that it was extracted from, with its header, for the zero page's copy.
 */
export const loadVmlinux = (
  target: LoadTarget,
  vmlinux: Uint8Array | ImageFile,
  options: LinuxOptions,
  bzImage?: { readonly file: Uint8Array; readonly header: SetupHeader },
): BootState => {
  const image = parseElf(vmlinux);
  const entry64 = image.bits === 64;
  const { end } = loadElf(target, vmlinux, image, 'kernel');
  const header = bzImage?.header ?? rawHeader;
  const kernelEnd = Math.max(end, header.prefAddress + header.initSize);
  const rsi = writeZeroPage(target, { header, file: bzImage?.file, kernelEnd, entry64 }, options);
  const what = `Linux ${header.kernelVersion.split(' ')[0] ?? ''}`.trim();
  const kernel = `${what}, uncompressed, ${entry64 ? '64' : '32'}-bit entry`;
  return entry64
    ? long64State(target, kernel, physicalEntry(image), { rsi })
    : protected32State(target, kernel, physicalEntry(image), { rsi });
};
