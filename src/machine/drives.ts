// Drives of a machine: one user for each, and the making of one from an open image.

import type { BlockDevice } from '../disk/block.ts';
import type { Backends, Drive } from './backends.ts';

/** The drive of that name, which now belongs to the device at `path`. @throws Error where it is missing or another device has it */
export function takeDrive(backends: Backends, name: string, path: string): Drive {
  const drive = backends.drives.get(name);
  if (drive.user !== undefined) throw new Error(`Drive '${name}' is already in use by another block device`);
  drive.user = path;
  return drive;
}

/** What is said of a drive; the rest has QEMU's defaults. */
export type DriveOptions = Partial<Omit<Drive, 'id' | 'device' | 'user' | 'changed'>>;

export const makeDrive = (id: string, device: BlockDevice | undefined, o: DriveOptions = {}): Drive => ({
  readOnly: device?.readOnly ?? false,
  writeThrough: false,
  discard: false,
  ...o,
  id,
  device,
});
