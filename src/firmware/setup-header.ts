// The setup header of a Linux x86 kernel file: Linux Documentation/arch/x86/boot.rst (6.8), boot protocol 2.02 to 2.15,
// "The Real-Mode Kernel Header". Offsets are from the start of the file, which are also those in the zero page.

import { hex, size } from './target.ts';

/** Offsets of the header's fields. */
export const HDR = {
  setupSects: 0x1f1,
  syssize: 0x1f4,
  vidMode: 0x1fa,
  bootFlag: 0x1fe,
  jump: 0x200,
  magic: 0x202,
  version: 0x206,
  kernelVersion: 0x20e,
  typeOfLoader: 0x210,
  loadflags: 0x211,
  code32Start: 0x214,
  ramdiskImage: 0x218,
  ramdiskSize: 0x21c,
  heapEndPtr: 0x224,
  extLoaderVer: 0x226,
  extLoaderType: 0x227,
  cmdLinePtr: 0x228,
  initrdAddrMax: 0x22c,
  kernelAlignment: 0x230,
  relocatable: 0x234,
  minAlignment: 0x235,
  xloadflags: 0x236,
  cmdlineSize: 0x238,
  payloadOffset: 0x248,
  payloadLength: 0x24c,
  setupData: 0x250,
  prefAddress: 0x258,
  initSize: 0x260,
} as const;

export const LOADED_HIGH = 1;
/** Set by the kernel's own decompressor when it has chosen a random address. */
export const KASLR_FLAG = 2;
export const CAN_USE_HEAP = 0x80;
export const XLF_KERNEL_64 = 1;
export const XLF_CAN_BE_LOADED_ABOVE_4G = 2;

export interface SetupHeader {
  /** Boot protocol, 0x0202 to whatever the kernel has. */
  readonly version: number;
  /** The kernel's version string, as `6.1.0-18-amd64 (…) #1 SMP …`; empty when the file has none. */
  readonly kernelVersion: string;
  /** Bytes of real-mode code, boot sector included; the protected-mode code begins there. */
  readonly setupSize: number;
  /** Bytes of protected-mode code that are in the file. */
  readonly codeSize: number;
  /** The offset after the header's last field. */
  readonly headerEnd: number;
  readonly loadflags: number;
  readonly xloadflags: number;
  readonly code32Start: number;
  /** The last address that the initrd may use. */
  readonly initrdAddrMax: number;
  /** The longest command line, without its terminating zero. */
  readonly cmdlineSize: number;
  readonly relocatable: boolean;
  /** Where the kernel runs if it can, and how many bytes it needs there; 0 before protocol 2.10. */
  readonly prefAddress: number;
  readonly initSize: number;
  /** The compressed kernel's place in the file, from protocol 2.08. */
  readonly payload: { readonly offset: number; readonly length: number } | undefined;
}

const bad = (why: string): never => {
  throw new Error(`Cannot read bzImage: ${why}`);
};

/** True when `bytes` has the boot sector signature and "HdrS" of a Linux x86 kernel. */
export const isBzImage = (bytes: Uint8Array): boolean =>
  bytes.length >= 0x208 &&
  bytes[0x1fe] === 0x55 &&
  bytes[0x1ff] === 0xaa &&
  bytes[0x202] === 0x48 &&
  bytes[0x203] === 0x64 &&
  bytes[0x204] === 0x72 &&
  bytes[0x205] === 0x53;

const readVersionString = (bytes: Uint8Array, pointer: number, setupSize: number): string => {
  const start = pointer + 0x200;
  if (pointer === 0 || start >= setupSize) return '';
  const end = bytes.subarray(start, Math.min(start + 256, setupSize)).indexOf(0);
  return new TextDecoder('latin1').decode(bytes.slice(start, end < 0 ? start : start + end));
};

/**
 * Reads and validates the header; fields that the file's protocol version does not have get the protocol's defaults.
 * @throws when the file is no bzImage, is truncated, or has a protocol before 2.02 or a zImage's low load address
 */
export const parseSetupHeader = (bytes: Uint8Array): SetupHeader => {
  if (!isBzImage(bytes)) bad('no boot signature 0xAA55 at 0x1fe and "HdrS" at 0x202');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const version = view.getUint16(HDR.version, true);
  const text = `${version >> 8}.${String(version & 0xff).padStart(2, '0')}`;
  if (version < 0x202) bad(`boot protocol ${text}, accepted is 2.02 and newer`);
  const setupSize = ((bytes[HDR.setupSects] || 4) + 1) * 512;
  if (bytes.length <= setupSize) bad(`the file ends after ${size(bytes.length)}, inside its ${size(setupSize)} of setup code`);
  const headerEnd = HDR.magic + bytes[HDR.jump + 1]!;
  const needed =
    version >= 0x20a ? 0x264 : version >= 0x208 ? 0x250 : version >= 0x206 ? 0x23c : version >= 0x203 ? 0x230 : 0x22c;
  if (bytes.length < needed) bad(`the file ends after ${size(bytes.length)}, inside its header`);
  if (headerEnd < needed) bad(`the header ends at ${hex(headerEnd)}, protocol ${text} has fields up to ${hex(needed)}`);
  const loadflags = bytes[HDR.loadflags]!;
  if (!(loadflags & LOADED_HIGH)) bad('it is a zImage, which loads below 640 KiB; accepted are bzImage files');
  const codeSize = bytes.length - setupSize;
  // Before 2.04 syssize has 16 bits only, so it tells nothing about a bzImage; signed images have bytes behind it.
  const promised = version >= 0x204 ? view.getUint32(HDR.syssize, true) * 16 : 0;
  if (promised > codeSize + 15) bad(`the file is truncated: ${size(promised)} of kernel announced, ${size(codeSize)} are there`);
  const field = (since: number, offset: number, otherwise: number): number =>
    version >= since ? view.getUint32(offset, true) : otherwise;
  const payloadOffset = setupSize + field(0x208, HDR.payloadOffset, 0);
  const payloadLength = field(0x208, HDR.payloadLength, 0);
  if (payloadLength > 0 && payloadOffset + payloadLength > bytes.length) {
    bad(`its payload ends at ${hex(payloadOffset + payloadLength)}, the file at ${hex(bytes.length)}`);
  }
  const prefAddress = version >= 0x20a ? view.getBigUint64(HDR.prefAddress, true) : 0n;
  if (prefAddress >= 1n << 52n) bad(`its preferred address ${hex(prefAddress)} is no physical address`);
  return {
    version,
    kernelVersion: readVersionString(bytes, view.getUint16(HDR.kernelVersion, true), setupSize),
    setupSize,
    codeSize,
    headerEnd,
    loadflags,
    xloadflags: version >= 0x20c ? view.getUint16(HDR.xloadflags, true) : 0,
    code32Start: view.getUint32(HDR.code32Start, true),
    initrdAddrMax: field(0x203, HDR.initrdAddrMax, 0x37ff_ffff),
    cmdlineSize: field(0x206, HDR.cmdlineSize, 255),
    relocatable: version >= 0x205 && bytes[HDR.relocatable] !== 0,
    prefAddress: Number(prefAddress),
    initSize: field(0x20a, HDR.initSize, 0),
    payload: payloadLength >= 4 ? { offset: payloadOffset, length: payloadLength } : undefined,
  };
};
