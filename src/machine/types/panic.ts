// By which a guest tells of its crashes: `pvpanic` and `pvpanic-pci`, one byte; `vmcoreinfo`, which says where its kernel's note for cores is
// (QEMU docs/specs/vmcoreinfo.rst).

import { struct } from '../../bits/struct.ts';
import type { Handler } from '../../bus/space.ts';
import { le } from '../../devices/fw-cfg.ts';
import { PciFunction } from '../../devices/pci-function.ts';
import { PVPANIC_PORT, pvpanic, pvpanicEvent } from '../../devices/pvpanic.ts';
import { type AnyDeviceType, type Device, type DeviceContext, deviceType } from '../device-type.ts';
import { uint8, uint16 } from '../properties.ts';

const events = uint8(3, 'events that are taken: 1 panicked, 2 crash loaded');

const saidLayout = struct({ said: 'u8' }, { name: 'pvpanic', version: 1 });
/** The register, and the I/O thread's part: a guest that says it without end is heard once in a turn. */
function register(ctx: DeviceContext, taken: number): { readonly handler: Handler; readonly device: Device } {
  const s = ctx.arena.alloc(saidLayout, ctx.name);
  const bell = ctx.doorbell('said');
  const handler = pvpanic(taken, (what) => {
    s.said |= pvpanicEvent[what];
    bell.ring();
  });
  const device: Device = {
    reset() {
      s.said = 0;
    },
    io() {
      bell.heard = () => {
        const { said } = s;
        s.said = 0;
        for (const what of ['panicked', 'crashLoaded'] as const)
          if (said & pvpanicEvent[what]) ctx.event({ kind: 'panic', what });
      };
      return {};
    },
  };
  return { handler, device };
}

const isa = deviceType({
  name: 'pvpanic',
  bus: 'ISA',
  category: 'Misc',
  description: '',
  parents: ['isa-device', 'device'],
  hotplug: false,
  properties: { ioport: uint16(PVPANIC_PORT), events },
  build(ctx, p) {
    const { handler, device } = register(ctx, p.events);
    ctx.ports.map(p.ioport, 1, handler, 'pvpanic');
    ctx.firmwareFile('etc/pvpanic-port', { data: le(p.ioport, 2) });
    return device;
  },
});

const PCI_BYTES = 16;
const onPci = deviceType({
  name: 'pvpanic-pci',
  bus: 'PCI',
  category: 'Misc',
  description: '',
  parents: ['pci-device', 'device'],
  properties: { events },
  build(ctx, p) {
    const { handler, device } = register(ctx, p.events);
    const f = new PciFunction({
      ...{ arena: ctx.arena, name: ctx.name, vendor: 0x1b36, device: 0x0011, revision: 1, classCode: 0x08_8000 },
      ...{ subsystemVendor: 0x1af4, subsystem: 0x1100 },
      bars: [
        {
          ...{ index: 0, kind: 'mem32' as const, size: PCI_BYTES },
          handler: {
            max: 1,
            read: (offset, size) => (offset < 2 ? handler.read(0, size) : 0),
            write: (offset, size, value) => {
              if (offset < 2) handler.write(0, size, value);
            },
          },
        },
      ],
    });
    ctx.plug(f);
    return {
      ...device,
      reset() {
        f.reset();
        device.reset();
      },
    };
  },
});

const coreLayout = struct({ bytes: ['u8', 16] }, { name: 'vmcoreinfo', version: 1 });
/** Formats of what is told: none, or an ELF note. */
const ELF = 1;

const vmcoreinfo = deviceType({
  name: 'vmcoreinfo',
  bus: 'System',
  category: 'Misc',
  description: '',
  parents: ['device'],
  hotplug: false,
  properties: {},
  build(ctx) {
    const { bytes } = ctx.arena.alloc(coreLayout, ctx.name);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    ctx.firmwareFile('etc/vmcoreinfo', { data: bytes, writable: true });
    return {
      reset() {
        bytes.fill(0);
        view.setUint16(0, ELF, true);
      },
      coreNote() {
        const length = view.getUint32(4, true);
        if (view.getUint16(2, true) !== ELF || length === 0) return undefined;
        return { gpa: Number(view.getBigUint64(8, true)), length };
      },
    };
  },
});

export const panicTypes: readonly AnyDeviceType[] = [isa, onPci, vmcoreinfo];
