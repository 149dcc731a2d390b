// A temporary disk over one that stays as it is: what `-snapshot` gives a guest. Changes go to a qcow2 image in memory, or in a
// file that the caller removes.

import type { BlockDevice, ByteFile } from './block.ts';
import type { Codec } from './codec.ts';
import { type MemoryBudget, MemoryFile } from './memory-file.ts';
import { createQcow2 } from './qcow2/create.ts';
import { Qcow2Image } from './qcow2/image.ts';

/**
 * A disk that reads as `base` until it is written. Closing it closes `base`, which is never written.
 * @param budget memory that changes may take; without one as much as they need
 * @param file where changes go, emptied first; memory when not given
 */
export async function openOverlay(
  base: BlockDevice,
  codec: Codec,
  budget?: MemoryBudget,
  file: ByteFile = new MemoryFile('overlay', budget),
): Promise<Qcow2Image> {
  await createQcow2(file, { size: base.size });
  return Qcow2Image.open(file, { codec, backing: base });
}
