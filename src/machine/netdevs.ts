// Network back-ends of a machine: one user for each, and the addresses of cards that were given none.

import type { Doorbell } from '../bus/doorbell.ts';
import type { Lock } from '../bus/lock.ts';
import type { GuestMemory } from '../bus/memory.ts';
import type { NetBackend } from '../net/backend.ts';
import type { Backends, Netdev } from './backends.ts';
import type { IoServices, IoSide } from './device-type.ts';

/** The netdev of that name, which now belongs to the device at `path`. @throws Error where it is missing or another device has it */
export function takeNetdev(backends: Backends, name: string, path: string): Netdev {
  const netdev = backends.netdevs.get(name);
  if (netdev.user !== undefined) throw new Error(`Cannot use netdev '${name}': another device uses it`);
  netdev.user = path;
  return netdev;
}

/** The address of the nth card without one: QEMU's. */
export const guestMac = (n: number): readonly number[] => [0x52, 0x54, 0x00, 0x12, 0x34, (0x56 + n) & 0xff];

/** What carries a card's frames, on the I/O thread. */
export interface CardIo {
  serve(): void;
  hold(): void;
  release(): void;
  close(): void;
}
/** Connects a card with its network by what `make` makes; nothing where it has none. */
export function connectCard(
  ctx: { readonly path: string },
  services: IoServices,
  bell: Doorbell,
  name: string | undefined,
  card: { setCable(up: boolean): void },
  make: (o: { lock: Lock; memory: GuestMemory; port: NetBackend; again: () => void }) => CardIo,
): IoSide {
  if (name === undefined) return {};
  const netdev = takeNetdev(services.backends, name, ctx.path);
  const { lock, memory } = services;
  const io = make({ lock, memory, port: netdev.port, again: () => bell.ring() });
  bell.heard = () => io.serve();
  netdev.setLink = (up) => lock.run(() => card.setCable(up));
  return {
    drain: async () => io.hold(),
    resumed: () => io.release(),
    reset: () => io.release(),
    close() {
      io.close();
      netdev.user = netdev.setLink = undefined;
    },
  };
}
