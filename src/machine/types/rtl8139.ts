// `rtl8139`: a Realtek RTL8139C+ network card over a netdev, which systems of around 2000 have drivers for.

import type { IrqLine } from '../../bus/irq.ts';
import { PciFunction } from '../../devices/pci-function.ts';
import { RTL8139 as ids, RTL8139_BAR, Rtl8139 } from '../../devices/rtl8139/controller.ts';
import { Rtl8139Io } from '../../devices/rtl8139/io.ts';
import { deviceType } from '../device-type.ts';
import { connectCard, guestMac } from '../netdevs.ts';
import { int32, macaddr, named } from '../properties.ts';

export const rtl8139Type = deviceType({
  name: 'rtl8139',
  bus: 'PCI',
  category: 'Network',
  description: '',
  parents: ['pci-device', 'device'],
  bootRom: 'efi-rtl8139.rom',
  properties: { netdev: named('netdev', 'ID of a netdev to use as a backend'), mac: macaddr(), bootindex: int32(-1) },
  build(ctx, p) {
    const bell = ctx.doorbell();
    const part: { irq?: IrqLine } = {};
    const mac = p.mac ?? guestMac(ctx.ordinal);
    const d = new Rtl8139({
      ...{ arena: ctx.arena, name: ctx.name, mac, clock: ctx.clock, report: ctx.report },
      ring: () => bell.ring(),
      wire: (level) => part.irq?.set(level),
    });
    const f = new PciFunction({
      ...{
        arena: ctx.arena,
        name: ctx.name,
        vendor: ids.vendor,
        device: ids.device,
        revision: ids.revision,
        classCode: 0x02_0000,
      },
      ...{ subsystemVendor: 0x1af4, subsystem: 0x1100, interruptPin: 1 as const },
      bars: [
        { index: 0, kind: 'io', name: 'rtl8139', size: RTL8139_BAR, handler: d.handler },
        { index: 1, kind: 'mem32', name: 'rtl8139', size: RTL8139_BAR, handler: d.handler },
      ],
    });
    part.irq = f.intx;
    ctx.plug(f);
    return {
      bootNode: 'ethernet/ethernet-phy@0',
      mac,
      reset() {
        f.reset();
        d.reset();
      },
      io: (services) =>
        connectCard(ctx, services, bell, p.netdev, d, (o) => new Rtl8139Io(d, { ...o, master: () => f.busMaster })),
    };
  },
});
