// Firmware in a machine's address space: ROM or flash that ends at 4 GiB, and its end below 1 MiB.

import type { Arena } from '../bits/arena.ts';
import type { Report } from '../bus/events.ts';
import type { MemorySlots } from '../bus/slots.ts';
import type { AddressSpace } from '../bus/space.ts';
import type { LowRom } from '../devices/pam.ts';
import { flashSector, Pflash } from '../devices/pflash.ts';

/** Sizes of the firmware's images, in bytes: what every thread must know. The I/O thread has the contents. */
export interface FirmwareShape {
  /** An image in ROM (`-bios`). */
  readonly rom?: number;
  /** Flash chips, the first one ends at 4 GiB, the next one where it begins. */
  readonly flash?: readonly { readonly bytes: number; readonly readOnly: boolean }[];
  /** Flash takes commands in system management mode alone: `secure` of cfi.pflash01. */
  readonly secure?: boolean;
  /** Expansion ROMs of PCI functions by file name; powers of two. */
  readonly roms?: Readonly<Record<string, number>>;
}

const GIB4 = 2 ** 32;
/** Most bytes of ROM and flash, above which they would meet the APICs' pages. */
const ROOM = 18 << 20;

/** Bytes of memory that the images take. Throws for sizes that cannot be mapped. */
export function firmwareBytes(shape: FirmwareShape): number {
  const sizes = [...(shape.rom === undefined ? [] : [shape.rom]), ...(shape.flash ?? []).map((f) => f.bytes)];
  const total = sizes.reduce((sum, n) => sum + n, 0);
  const roms = Object.values(shape.roms ?? {}).reduce((sum, n) => sum + Math.ceil(n / 4096) * 4096, 0);
  if (sizes.some((n) => n === 0 || n % flashSector !== 0) || total > ROOM)
    throw new Error(
      `Cannot map firmware of ${sizes.join(' and ')} bytes: accepted are multiples of 4 KiB, ${ROOM >> 20} MiB in all`,
    );
  return total + roms;
}

export interface Rom {
  readonly low: LowRom | undefined;
  /** Where the ROM's contents belong: a host address; 0 without ROM. */
  readonly host: number;
  readonly flash: readonly Pflash[];
  /** Contents of expansion ROMs by file name. */
  readonly roms: ReadonlyMap<string, Uint8Array>;
  /** Mappings after power-on. With the board's lock held. */
  reset(): void;
}

export function buildRom(o: {
  readonly shape: FirmwareShape | undefined;
  readonly arena: Arena;
  readonly buffer: ArrayBufferLike;
  readonly slots: MemorySlots;
  readonly mmio: readonly AddressSpace[];
  readonly report: Report;
  /** Flash contents changed. */
  readonly changed: () => void;
  /** Whether a vCPU is in system management mode. */
  readonly inSmm: (cpu: number) => boolean;
}): Rom {
  const { shape = {}, slots } = o;
  const size = shape.rom ?? 0;
  const host = size > 0 ? slots.alloc('bios', size) : 0;
  const slot = size > 0 ? slots.slot('bios') : undefined;
  let end = GIB4 - size;
  const flash = (shape.flash ?? []).map(({ bytes, readOnly }, n) => {
    const name = `pflash${n}`;
    end -= bytes;
    const chip = new Pflash({
      arena: o.arena,
      name,
      buffer: o.buffer,
      host: slots.alloc(name, bytes),
      length: bytes,
      base: end,
      slot: slots.slot(name),
      readOnly,
      changed: o.changed,
      report: o.report,
    });
    for (const [cpu, space] of o.mmio.entries())
      space.map(end, bytes, shape.secure ? chip.guarded(() => o.inSmm(cpu)) : chip.handler, name);
    return chip;
  });
  const first = flash[0];
  const roms = new Map(
    Object.entries(shape.roms ?? {}).map(([file, bytes]) => [file, new Uint8Array(o.buffer, slots.alloc(file, bytes), bytes)]),
  );
  return {
    low: size > 0 ? { host, length: size } : first && { host: first.host, length: first.length },
    host,
    flash,
    roms,
    reset() {
      slot?.map(GIB4 - size, size, host, true);
      for (const chip of flash) chip.reset();
    },
  };
}
