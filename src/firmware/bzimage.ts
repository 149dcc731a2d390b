// Booting a Linux bzImage: Linux Documentation/arch/x86/boot.rst (6.8), boot protocols 2.02 to 2.15, by the 64-bit, the
// 32-bit or the 16-bit entry; with the payload decompressed beforehand when that is possible.

import { long64State, protected32State, real16State } from './boot-state.ts';
import { LOW_DATA_END, REAL_MODE_ADDRESS } from './layout.ts';
import { type Decompress, extractVmlinux } from './payload.ts';
import { CAN_USE_HEAP, HDR, parseSetupHeader, type SetupHeader, XLF_KERNEL_64 } from './setup-header.ts';
import { type BootMode, type BootState, checkRange, hex, type ImageFile, inMemory, type LoadTarget, size } from './target.ts';
import { loadVmlinux } from './vmlinux.ts';
import { fillLoaderFields, type LinuxOptions, writeZeroPage } from './zero-page.ts';

export interface BzImageOptions extends LinuxOptions {
  /** Which entry to take; the best that the kernel has when not given. `real16` needs a BIOS in the guest. */
  readonly entry?: BootMode;
  /** The result of `extractVmlinux`, when the caller has it already (from a cache). */
  readonly vmlinux?: ImageFile;
  /** Decompresses the payload on the host; without it, and without `vmlinux`, LZ4 only. */
  readonly decompress?: Decompress;
  /** Has all of the file there, where only its setup code was read: a `vmlinux` takes its place. */
  readonly complete?: () => void;
  /** True to leave decompression to the guest, always. */
  readonly inGuest?: boolean;
}

/** Below the end of its 64 KiB segment: where the real-mode code's heap ends and its stack begins. */
const HEAP_END = 0xe000;

const loadRealMode = (target: LoadTarget, file: Uint8Array, header: SetupHeader, options: BzImageOptions): BootState => {
  if (header.setupSize > 0x8000) {
    throw new Error(`Cannot load kernel: its setup code has ${size(header.setupSize)}, accepted are 32 KiB`);
  }
  const setup = file.slice(0, header.setupSize);
  fillLoaderFields(target, setup, { header, kernelEnd: header.code32Start + header.codeSize, entry64: false }, options);
  const view = new DataView(setup.buffer);
  setup[HDR.loadflags]! |= CAN_USE_HEAP;
  view.setUint16(HDR.heapEndPtr, HEAP_END - 0x200, true);
  target.write(REAL_MODE_ADDRESS, setup);
  const segment = REAL_MODE_ADDRESS / 16;
  return real16State(`Linux ${header.kernelVersion.split(' ')[0]}, 16-bit entry`, segment + 0x20, segment, HEAP_END);
};

const chooseEntry = (header: SetupHeader, wanted: BootMode | undefined): BootMode => {
  const has64 = (header.xloadflags & XLF_KERNEL_64) !== 0;
  if (wanted === 'long64' && !has64) {
    throw new Error('Cannot load kernel: it has no 64-bit entry (XLF_KERNEL_64), accepted are the 32-bit and 16-bit entries');
  }
  return wanted ?? (has64 ? 'long64' : 'protected32');
};

/**
 * Loads a bzImage and everything it needs.
 * @throws one line that says what was found and what is accepted: foreign or truncated file, too little RAM, command line
 * too long, initrd that does not fit, entry that the kernel does not have
 */
export const loadBzImage = (target: LoadTarget, file: Uint8Array, options: BzImageOptions): BootState => {
  const header = parseSetupHeader(file);
  const mode = chooseEntry(header, options.entry);
  // Not for a 64-bit kernel that is asked for by its 32-bit entry: only its own code leads from there to 64-bit mode.
  const direct = mode === 'long64' || (mode === 'protected32' && (header.xloadflags & XLF_KERNEL_64) === 0);
  if (direct && !options.inGuest) {
    if (!options.vmlinux) options.complete?.();
    const extracted = options.vmlinux ? undefined : extractVmlinux(file, options.decompress);
    const vmlinux = options.vmlinux ?? (extracted && inMemory(extracted));
    const elfClass = mode === 'long64' ? 2 : 1;
    if (vmlinux?.bytes(4, 5)[0] === elfClass) return loadVmlinux(target, vmlinux, options, { file, header });
  }
  options.complete?.();
  const load = header.code32Start;
  if (load < 0x100000) throw new Error(`Cannot load kernel: its load address is ${hex(load)}, accepted is 0x100000 and above`);
  // The decompressor needs init_size bytes from where the kernel will run, which is at or above the load address.
  const kernelEnd = Math.max(load + header.codeSize, Math.max(load, header.prefAddress) + header.initSize);
  checkRange(target, load, kernelEnd - load, 'kernel', LOW_DATA_END);
  target.write(load, file.subarray(header.setupSize));
  if (mode === 'real16') return loadRealMode(target, file, header, options);
  const rsi = writeZeroPage(target, { header, file, kernelEnd, entry64: mode === 'long64' }, options);
  const kernel = `Linux ${header.kernelVersion.split(' ')[0]}, compressed, ${mode === 'long64' ? '64' : '32'}-bit entry`;
  return mode === 'long64' ? long64State(target, kernel, load + 0x200, { rsi }) : protected32State(target, kernel, load, { rsi });
};
