// A Linux kernel handed to the guest's firmware: the numbered fw_cfg items that SeaBIOS's option ROM and OVMF load it from. Linux
// Documentation/arch/x86/boot.rst; keys of QEMU's fw_cfg.

import { fwCfgKey, le } from '../devices/fw-cfg.ts';
import { CAN_USE_HEAP, HDR, parseSetupHeader } from '../firmware/setup-header.ts';
import { asFile } from '../firmware/target.ts';
import type { KernelFiles } from './running.ts';

/** Where the parts go in guest memory. */
const place = { setup: 0x1_0000, commandLine: 0x2_0000, kernel: 0x10_0000 } as const;
/** RAM below 4 GiB that firmware needs for its tables. */
const TABLES = 0x2_8000;
/** The fw_cfg file of the option ROM by which SeaBIOS starts the kernel, and its name in the boot order. */
export const linuxBootRom = {
  image: 'linuxboot_dma.bin',
  file: 'genroms/linuxboot_dma.bin',
  path: '/rom@genroms/linuxboot_dma.bin',
};

/**
 * The items for a kernel, its initramfs and command line.
 * @throws Error for what is no bzImage, and for an initramfs that does not fit
 */
export function kernelItems(files: KernelFiles, ramLow: number): ReadonlyMap<number, Uint8Array> {
  files.complete?.();
  const header = parseSetupHeader(files.kernel);
  const setup = files.kernel.slice(0, header.setupSize);
  const kernel = files.kernel.subarray(header.setupSize);
  const view = new DataView(setup.buffer);
  const commandLine = new TextEncoder().encode(`${files.append}\0`);
  view.setUint32(HDR.cmdLinePtr, place.commandLine, true);
  setup[HDR.typeOfLoader] = 0xb0;
  setup[HDR.loadflags] = setup[HDR.loadflags]! | CAN_USE_HEAP;
  view.setUint16(HDR.heapEndPtr, place.commandLine - place.setup - 0x200, true);
  const items = new Map<number, Uint8Array>([
    [fwCfgKey.commandLineAddress, le(place.commandLine, 4)],
    [fwCfgKey.commandLineSize, le(commandLine.length, 4)],
    [fwCfgKey.commandLineData, commandLine],
    [fwCfgKey.kernelAddress, le(place.kernel, 4)],
    [fwCfgKey.kernelSize, le(kernel.length, 4)],
    [fwCfgKey.kernelData, kernel],
    [fwCfgKey.setupAddress, le(place.setup, 4)],
    [fwCfgKey.setupSize, le(setup.length, 4)],
  ]);
  const initrd = files.initrd && asFile(files.initrd).bytes(0, files.initrd.length);
  if (initrd) {
    const last = Math.min(header.initrdAddrMax, ramLow - TABLES - 1);
    const address = Math.floor((last - initrd.length) / 4096) * 4096;
    if (address < place.kernel + kernel.length)
      throw new Error(
        `Cannot load initrd: it has ${initrd.length} bytes, the guest has too little RAM for it; give it more memory`,
      );
    view.setUint32(HDR.ramdiskImage, address, true);
    view.setUint32(HDR.ramdiskSize, initrd.length, true);
    items.set(fwCfgKey.initrdAddress, le(address, 4));
    items.set(fwCfgKey.initrdSize, le(initrd.length, 4));
    items.set(fwCfgKey.initrdData, initrd);
  }
  items.set(fwCfgKey.setupData, setup);
  return items;
}
