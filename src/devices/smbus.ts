// The SMBus host controller of PIIX4 and ICH9 with nothing on its bus: every transaction ends in a device error.
// Intel ICH9 datasheet (316972), section 22.2.
import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import { registers, ro, rw, w1c } from '../bus/registers.ts';
import type { Handler } from '../bus/space.ts';
import { PciFunction } from './pci-function.ts';
import type { PciHost } from './pci-host.ts';

export const smbusLayout = struct(
  { status: 'u8', control: 'u8', command: 'u8', address: 'u8', data: ['u8', 2] },
  { name: 'smbus', version: 1 },
);
const status = { deviceError: 4 } as const;
const start = 0x40;

export class Smbus {
  readonly s: ViewOf<typeof smbusLayout>;
  readonly handler: Handler;

  constructor(arena: Arena) {
    this.s = arena.alloc(smbusLayout);
    this.handler = smbusRegisters.bind(this);
  }

  reset(): void {
    Object.assign(this.s, { status: 0, control: 0, command: 0, address: 0 });
    this.s.data.fill(0);
  }
}

/** ICH9's function, 8086:2930 at 1f.3. */
export function ich9Smbus(arena: Arena, host: PciHost): { readonly f: PciFunction; reset(): void } {
  const smbus = new Smbus(arena);
  const f = new PciFunction({
    ...{ arena, name: 'ich9-smbus', vendor: 0x8086, device: 0x2930, revision: 2, classCode: 0x0c_0500, multifunction: true },
    ...{ subsystemVendor: 0x1af4, subsystem: 0x1100, interruptPin: 1 as const },
    bars: [{ index: 4, kind: 'io', name: 'pm-smbus', size: 0x40, handler: smbus.handler }],
  });
  // Host configuration.
  f.writable(0x40, [0x1f]);
  host.add(f, 31, 3);
  return { f, reset: () => smbus.reset() };
}

/** Offsets from SMBBASE. */
export const smbusRegisters = registers<Smbus>('smbus', 0x40, [
  w1c(
    0,
    1,
    'HST_STS',
    (d) => d.s.status,
    (d, v) => {
      d.s.status &= ~v;
    },
  ),
  rw(
    2,
    1,
    'HST_CNT',
    (d) => d.s.control & ~start,
    (d, v) => {
      d.s.control = v;
      if (v & start) d.s.status |= status.deviceError;
    },
  ),
  rw(
    3,
    1,
    'HST_CMD',
    (d) => d.s.command,
    (d, v) => {
      d.s.command = v;
    },
  ),
  rw(
    4,
    1,
    'XMIT_SLVA',
    (d) => d.s.address,
    (d, v) => {
      d.s.address = v;
    },
  ),
  ...[0, 1].map((i) =>
    rw<Smbus>(
      5 + i,
      1,
      `HST_D${i}`,
      (d) => d.s.data[i]!,
      (d, v) => {
        d.s.data[i] = v;
      },
    ),
  ),
  ro(7, 1, 'HOST_BLOCK_DB', () => 0),
]);
