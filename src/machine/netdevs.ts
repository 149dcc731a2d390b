// Network back-ends of a machine: one user for each, and the addresses of cards that were given none.

import type { Backends, Netdev } from './backends.ts';

/** The netdev of that name, which now belongs to the device at `path`. @throws Error where it is missing or another device has it */
export function takeNetdev(backends: Backends, name: string, path: string): Netdev {
  const netdev = backends.netdevs.get(name);
  if (netdev.user !== undefined) throw new Error(`Cannot use netdev '${name}': another device uses it`);
  netdev.user = path;
  return netdev;
}

/** The address of the nth card without one: QEMU's. */
export const guestMac = (n: number): readonly number[] => [0x52, 0x54, 0x00, 0x12, 0x34, (0x56 + n) & 0xff];
