// Linux's `boot_params` ("zero page"): Documentation/arch/x86/zero-page.rst and boot.rst (6.8), "32-bit Boot Protocol".

import { encodeE820, type MemoryRange } from './e820.ts';
import { SETUP_DATA_ADDRESS, ZERO_PAGE_ADDRESS } from './layout.ts';
import { createStrings, encodeString, placeHigh } from './placement.ts';
import { HDR, KASLR_FLAG, LOADED_HIGH, type SetupHeader, XLF_CAN_BE_LOADED_ABOVE_4G } from './setup-header.ts';
import { asFile, type ImageFile, type LoadTarget } from './target.ts';

/** What every way into a Linux kernel takes. */
export interface LinuxOptions {
  readonly append: string;
  readonly initrd?: Uint8Array | ImageFile;
  readonly memoryMap: readonly MemoryRange[];
  /** Guest-physical address of the RSDP. */
  readonly rsdp?: number;
  /** Seed for the guest's random number generator (setup_data type 9, kernels from 6.0), at most 4,080 bytes. */
  readonly rngSeed?: Uint8Array;
  /** True when an 80×25 VGA text display is there; otherwise the kernel is told that there is no screen. */
  readonly vgaText?: boolean;
}

const SETUP_RNG_SEED = 9;

const writeSetupData = (target: LoadTarget, seed: Uint8Array): number => {
  if (seed.length > 4080) throw new Error(`Cannot pass random seed: it has ${seed.length} bytes, accepted are 4080`);
  const bytes = new Uint8Array(16 + seed.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(8, SETUP_RNG_SEED, true);
  view.setUint32(12, seed.length, true);
  bytes.set(seed, 16);
  target.write(SETUP_DATA_ADDRESS, bytes);
  return SETUP_DATA_ADDRESS;
};

/** A header for a kernel that comes without one (raw vmlinux): protocol 2.15, no limits but those of the protocol. */
export const rawHeader: SetupHeader = {
  version: 0x20f,
  kernelVersion: '',
  setupSize: 0,
  codeSize: 0,
  headerEnd: 0x26c,
  loadflags: LOADED_HIGH,
  xloadflags: XLF_CAN_BE_LOADED_ABOVE_4G,
  code32Start: 0x100000,
  initrdAddrMax: 0x7fff_ffff,
  cmdlineSize: 2047,
  relocatable: false,
  prefAddress: 0,
  initSize: 0,
  payload: undefined,
};

const emptyHeader = (): Uint8Array => {
  const bytes = new Uint8Array(4096);
  const view = new DataView(bytes.buffer);
  view.setUint16(HDR.bootFlag, 0xaa55, true);
  view.setUint32(HDR.magic, 0x5372_6448, true);
  view.setUint16(HDR.version, rawHeader.version, true);
  bytes[HDR.loadflags] = LOADED_HIGH;
  view.setUint32(HDR.initrdAddrMax, rawHeader.initrdAddrMax, true);
  view.setUint32(HDR.kernelAlignment, 0x200000, true);
  view.setUint32(HDR.cmdlineSize, rawHeader.cmdlineSize, true);
  return bytes;
};

export interface LinuxPlacement {
  readonly header: SetupHeader;
  /** The file that `header` was read from; its header is copied into the zero page. */
  readonly file?: Uint8Array;
  /** The first byte after what the running kernel needs; initrds go above it. */
  readonly kernelEnd: number;
  /** True for the 64-bit entry, which can take an initrd above 4 GiB. */
  readonly entry64: boolean;
}

/**
 * Writes the initrd and the command line to where the header allows them, and fills in the header's loader fields in
 * `fields`, which holds a copy of the header at 0x1f1 (the zero page, or the real-mode code itself).
 */
export const fillLoaderFields = (
  target: LoadTarget,
  fields: Uint8Array,
  placement: LinuxPlacement,
  options: LinuxOptions,
): { initrd: number; commandLine: number } => {
  const { header } = placement;
  const view = new DataView(fields.buffer, fields.byteOffset, fields.length);
  const commandLine = createStrings(target).put(encodeString(options.append, header.cmdlineSize));
  fields[HDR.typeOfLoader] = 0xff;
  fields[HDR.loadflags] = header.loadflags & ~KASLR_FLAG;
  view.setUint16(HDR.vidMode, 0xffff, true);
  view.setUint32(HDR.code32Start, header.code32Start, true);
  view.setUint32(HDR.cmdLinePtr, commandLine, true);
  if (header.version >= 0x20a) view.setUint16(HDR.extLoaderVer, 0, true);
  let initrd = 0;
  if (options.initrd && options.initrd.length > 0) {
    const anywhere = placement.entry64 && (header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G) !== 0;
    const limit = anywhere ? 2 ** 52 : Math.min(header.initrdAddrMax + 1, 2 ** 32);
    initrd = placeHigh(options.memoryMap, options.initrd.length, placement.kernelEnd, limit, 'initrd');
    target.load(initrd, asFile(options.initrd), 0, options.initrd.length, false);
    view.setUint32(HDR.ramdiskImage, initrd % 2 ** 32, true);
    view.setUint32(HDR.ramdiskSize, options.initrd.length, true);
  }
  return { initrd, commandLine };
};

/** Writes zero page, command line and initrd; returns the zero page's address, for RSI. */
export const writeZeroPage = (target: LoadTarget, placement: LinuxPlacement, options: LinuxOptions): number => {
  const { header, file } = placement;
  const page = file ? new Uint8Array(4096) : emptyHeader();
  if (file) page.set(file.subarray(HDR.setupSects, Math.min(header.headerEnd, 0x290, file.length)), HDR.setupSects);
  const view = new DataView(page.buffer);
  const { initrd } = fillLoaderFields(target, page, placement, options);
  // Upper halves of the initrd's address and size.
  view.setUint32(0x0c0, Math.floor(initrd / 2 ** 32), true);
  view.setUint32(0x0c4, 0, true);
  view.setBigUint64(0x070, BigInt(options.rsdp ?? 0), true);
  if (options.rngSeed && header.version >= 0x209) {
    view.setBigUint64(HDR.setupData, BigInt(writeSetupData(target, options.rngSeed)), true);
  }
  const map = options.memoryMap;
  if (map.length > 128) throw new Error(`Cannot pass memory map to Linux: it has ${map.length} ranges, accepted are 128`);
  page[0x1e8] = map.length;
  page.set(encodeE820(map), 0x2d0);
  const fromOneMiB = map.find((r) => r.start === 0x100000 && r.type === 1)?.size ?? 0;
  view.setUint32(0x1e0, Math.min(Math.floor(fromOneMiB / 1024), 0xffff_ffff), true);
  if (options.vgaText) {
    page[0x006] = 3; // mode
    page[0x007] = 80; // columns
    page[0x00e] = 25; // lines
    page[0x00f] = 0x22; // VGA, colour
    view.setUint16(0x010, 16, true); // font height
  }
  target.write(ZERO_PAGE_ADDRESS, page);
  return ZERO_PAGE_ADDRESS;
};
