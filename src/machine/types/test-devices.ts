// Devices that guests and their drivers are tested with: `edu` and `pci-testdev`.

import { EDU_BYTES, Edu } from '../../devices/edu.ts';
import { PciFunction } from '../../devices/pci-function.ts';
import { addMsi } from '../../devices/pci-msi.ts';
import { pciTestdev, testdevBars } from '../../devices/pci-testdev.ts';
import { type AnyDeviceType, deviceType } from '../device-type.ts';
import { uint64 } from '../properties.ts';

const edu = deviceType({
  name: 'edu',
  bus: 'PCI',
  category: 'Misc',
  description: '',
  parents: ['pci-device', 'device'],
  properties: { dma_mask: uint64(0x0fff_ffff, 'addresses of DMA') },
  build(ctx, p) {
    const part: { f?: PciFunction } = {};
    const device = new Edu({
      ...{ arena: ctx.arena, name: `${ctx.name}.edu`, memory: ctx.memory, mask: BigInt(p.dma_mask), report: ctx.report },
      busMaster: () => part.f?.busMaster ?? false,
    });
    const f = new PciFunction({
      ...{ arena: ctx.arena, name: ctx.name, vendor: 0x1234, device: 0x11e8, revision: 0x10, classCode: 0x00_ff00 },
      ...{ subsystemVendor: 0x1af4, subsystem: 0x1100, interruptPin: 1 },
      bars: [{ index: 0, kind: 'mem32', size: EDU_BYTES, handler: device.handler }],
    });
    part.f = f;
    device.irq = addMsi(f, ctx.msi);
    ctx.plug(f);
    return {
      reset() {
        f.reset();
        device.reset();
      },
    };
  },
});

const testdev = deviceType({
  name: 'pci-testdev',
  bus: 'PCI',
  category: 'Misc',
  description: 'PCI Test Device',
  parents: ['pci-device', 'device'],
  properties: {},
  build(ctx) {
    const device = pciTestdev(ctx.arena, `${ctx.name}.test`);
    const f = new PciFunction({
      ...{ arena: ctx.arena, name: ctx.name, vendor: 0x1b36, device: 0x0005, revision: 0, classCode: 0x00_ff00 },
      ...{ subsystemVendor: 0x1af4, subsystem: 0x1100 },
      bars: [
        { index: 0, kind: 'mem32', size: testdevBars.memory, handler: device.memory },
        { index: 1, kind: 'io', size: testdevBars.ports, handler: device.ports },
      ],
    });
    ctx.plug(f);
    return {
      reset() {
        f.reset();
        device.reset();
      },
    };
  },
});

export const testDevices: readonly AnyDeviceType[] = [edu, testdev];
