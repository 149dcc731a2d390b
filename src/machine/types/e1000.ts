// `e1000`: an Intel 82540EM network card over a netdev, which systems without virtio drivers have drivers for.

import type { IrqLine } from '../../bus/irq.ts';
import { DEVICE, E1000, E1000_BAR, SUBSYSTEM, VENDOR } from '../../devices/e1000/controller.ts';
import { E1000Io } from '../../devices/e1000/io.ts';
import { PciFunction } from '../../devices/pci-function.ts';
import { deviceType } from '../device-type.ts';
import { guestMac, takeNetdev } from '../netdevs.ts';
import { bool, int32, macaddr, named } from '../properties.ts';

export const e1000Type = deviceType({
  name: 'e1000',
  aliases: ['e1000-82540em'],
  bus: 'PCI',
  category: 'Network',
  description: 'Intel Gigabit Ethernet (82540EM)',
  parents: ['e1000-base', 'pci-device', 'device'],
  properties: {
    netdev: named('netdev', 'ID of a netdev to use as a backend'),
    mac: macaddr(),
    bootindex: int32(-1),
    autonegotiation: bool(true, 'accepted; negotiation ends at once'),
    mitigation: bool(true, 'accepted; interrupts of one turn of the I/O thread are one'),
  },
  build(ctx, p) {
    const bell = ctx.doorbell();
    const wire: { irq?: IrqLine } = {};
    const e = new E1000({
      arena: ctx.arena,
      name: ctx.name,
      mac: p.mac ?? guestMac(ctx.ordinal),
      ring: () => bell.ring(),
      wire: (level) => wire.irq?.set(level),
      report: ctx.report,
    });
    const f = new PciFunction({
      ...{ arena: ctx.arena, name: ctx.name, vendor: VENDOR, device: DEVICE, revision: 3, classCode: 0x02_0000 },
      ...{ subsystemVendor: 0x1af4, subsystem: SUBSYSTEM, interruptPin: 1 as const },
      bars: [
        { index: 0, kind: 'mem32', size: E1000_BAR, handler: e.handler },
        { index: 1, kind: 'io', size: 64, handler: e.portHandler },
      ],
    });
    wire.irq = f.intx;
    ctx.plug(f);
    return {
      bootNode: 'ethernet/ethernet-phy@0',
      reset() {
        f.reset();
        e.reset();
      },
      io(services) {
        if (p.netdev === undefined) return {};
        const netdev = takeNetdev(services.backends, p.netdev, ctx.path);
        const { lock, memory } = services;
        const io = new E1000Io(e, { lock, memory, port: netdev.port, master: () => f.busMaster, again: () => bell.ring() });
        bell.heard = () => io.serve();
        netdev.setLink = (up) => lock.run(() => e.setCable(up));
        return {
          drain: async () => io.hold(),
          resumed: () => io.release(),
          close() {
            io.close();
            netdev.user = netdev.setLink = undefined;
          },
        };
      },
    };
  },
});
