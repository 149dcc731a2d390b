// Flash contents that lie on a disk image: read when the machine is made, written back as the guest changes them.

import type { BlockDevice } from '../disk/block.ts';
import type { FlashImage } from './running.ts';

/** Largest image of a flash chip. */
const MAX = 16 << 20;
const PAGE = 4096;

/**
 * The contents of a flash chip. A device that is read-only, or `readOnly`, gives a chip that cannot be programmed.
 * @throws Error (rejects) for sizes that no chip has
 */
export async function flashOf(name: string, device: BlockDevice, readOnly = device.readOnly): Promise<FlashImage> {
  const { size } = device;
  if (size === 0 || size > MAX || size % PAGE !== 0)
    throw new Error(`Cannot use ${name} as flash: it has ${size} bytes, accepted are multiples of 4 KiB up to ${MAX >> 20} MiB`);
  const bytes = new Uint8Array(size);
  await device.read(0, bytes);
  if (readOnly) return { bytes };
  return {
    bytes,
    async save(offset, changed) {
      await device.write(offset, changed);
      await device.flush();
    },
  };
}
