// Intel's gigabit network cards over a netdev, which systems without virtio drivers have drivers for: `e1000` (82540EM), the default of
// `pc`, and `e1000e` (82574L), that of `q35`.

import type { IrqLine } from '../../bus/irq.ts';
import { DEVICE, E1000, E1000_BAR, SUBSYSTEM, VENDOR } from '../../devices/e1000/controller.ts';
import { E1000E_BAR, E1000E_DEVICE, E1000E_PORTS, E1000E_SUBSYSTEM, E1000e } from '../../devices/e1000/e1000e.ts';
import { VECTORS } from '../../devices/e1000/interrupts.ts';
import { E1000Io } from '../../devices/e1000/io.ts';
import { PciFunction } from '../../devices/pci-function.ts';
import { addMsi } from '../../devices/pci-msi.ts';
import { Msix } from '../../devices/pci-msix.ts';
import { addEndpointV1 } from '../../devices/pcie-port.ts';
import { deviceType } from '../device-type.ts';
import { connectCard, guestMac } from '../netdevs.ts';
import { bool, int32, macaddr, named, uint8, uint16 } from '../properties.ts';

const common = {
  netdev: named('netdev', 'ID of a netdev to use as a backend'),
  mac: macaddr(),
  bootindex: int32(-1),
};
const bootNode = 'ethernet/ethernet-phy@0';

const e1000 = deviceType({
  name: 'e1000',
  aliases: ['e1000-82540em'],
  bus: 'PCI',
  category: 'Network',
  description: 'Intel Gigabit Ethernet (82540EM)',
  parents: ['e1000-base', 'pci-device', 'device'],
  bootRom: 'efi-e1000.rom',
  properties: {
    ...common,
    autonegotiation: bool(true, 'accepted; negotiation ends at once'),
    mitigation: bool(true, 'accepted; interrupts of one turn of the I/O thread are one'),
  },
  build(ctx, p) {
    const bell = ctx.doorbell();
    const mac = p.mac ?? guestMac(ctx.ordinal);
    const wire: { irq?: IrqLine } = {};
    const e = new E1000({
      arena: ctx.arena,
      name: ctx.name,
      mac,
      ring: () => bell.ring(),
      wire: (level) => wire.irq?.set(level),
      report: ctx.report,
    });
    const f = new PciFunction({
      ...{ arena: ctx.arena, name: ctx.name, vendor: VENDOR, device: DEVICE, revision: 3, classCode: 0x02_0000 },
      ...{ subsystemVendor: 0x1af4, subsystem: SUBSYSTEM, interruptPin: 1 as const },
      bars: [
        { index: 0, kind: 'mem32', name: 'e1000-mmio', size: E1000_BAR, handler: e.handler },
        { index: 1, kind: 'io', name: 'e1000-io', size: 64, handler: e.portHandler },
      ],
    });
    wire.irq = f.intx;
    ctx.plug(f);
    return {
      bootNode,
      mac,
      reset() {
        f.reset();
        e.reset();
      },
      io: (services) => connectCard(ctx, services, bell, p.netdev, e, (o) => new E1000Io(e, { ...o, master: () => f.busMaster })),
    };
  },
});

/** Flash that was never written: nothing is decoded behind its BAR. */
const noFlash = { read: () => 0, write: () => {} };
/** Where an 82574's capabilities are, and the pending bits behind its BAR 3 (82574 Data Sheet, chapter 11). */
const place = { msix: 0xa0, power: 0xc8, msi: 0xd0, express: 0xe0, pending: 0x2000 } as const;
const FLASH = 0x2_0000;
const MSIX_BAR = 0x4000;

const e1000e = deviceType({
  name: 'e1000e',
  bus: 'PCI',
  category: 'Network',
  description: 'Intel 82574L GbE Controller',
  parents: ['pci-device', 'device'],
  bootRom: 'efi-e1000e.rom',
  properties: {
    ...common,
    'init-vet': bool(true, 'accepted; the type of VLAN tags is set'),
    subsys_ven: uint16(E1000E_SUBSYSTEM[0], 'PCI device Subsystem Vendor ID'),
    subsys: uint16(E1000E_SUBSYSTEM[1], 'PCI device Subsystem ID'),
    disable_vnet_hdr: uint8(0, 'accepted; there are no virtio headers'),
  },
  build(ctx, p) {
    const bell = ctx.doorbell();
    const mac = p.mac ?? guestMac(ctx.ordinal);
    const part: { f?: PciFunction; msi?: IrqLine } = {};
    const msix = new Msix({
      arena: ctx.arena,
      name: `${ctx.name}.msix`,
      vectors: VECTORS,
      send: ctx.msi,
      pending: place.pending,
    });
    const e = new E1000e({
      arena: ctx.arena,
      name: ctx.name,
      mac,
      ring: () => bell.ring(),
      interrupts: {
        mode: () => (msix.enabled ? 'msix' : (part.f?.read(place.msi + 2, 1) ?? 0) & 1 ? 'msi' : 'wire'),
        wire: (level) => part.msi?.set(level),
        msi: () => part.msi?.set(1),
        msix: (vector) => void (part.f?.busMaster && msix.notify(vector)),
      },
      report: ctx.report,
    });
    const f = new PciFunction({
      ...{ arena: ctx.arena, name: ctx.name, vendor: VENDOR, device: E1000E_DEVICE, revision: 0, classCode: 0x02_0000 },
      ...{ subsystemVendor: p.subsys_ven, subsystem: p.subsys, interruptPin: 1 as const },
      bars: [
        { index: 0, kind: 'mem32', name: 'e1000e-mmio', size: E1000E_BAR, handler: e.handler },
        { index: 1, kind: 'mem32', name: 'e1000e-flash', size: FLASH, handler: noFlash },
        { index: 2, kind: 'io', name: 'e1000e-io', size: E1000E_PORTS, handler: e.portHandler },
        { index: 3, kind: 'mem32', name: 'e1000e-msix', size: MSIX_BAR, handler: msix.handler },
      ],
    });
    f.startCapabilitiesAt(place.power);
    f.addCapability(1, [0x22, 0, 0, 0, 0, 0], [0, 0, 0x03, 0x1f]);
    f.clearable(place.power + 5, [0x80]);
    f.startCapabilitiesAt(place.msi);
    part.msi = addMsi(f, ctx.msi);
    addEndpointV1(f, place.express, ctx.bus.express && ctx.bus.root);
    f.startCapabilitiesAt(place.msix);
    msix.attach(f, 3);
    part.f = f;
    ctx.plug(f);
    return {
      bootNode,
      mac,
      reset() {
        f.reset();
        msix.reset();
        e.reset();
      },
      io: (services) => connectCard(ctx, services, bell, p.netdev, e, (o) => new E1000Io(e, { ...o, master: () => f.busMaster })),
    };
  },
});

export const gigabitCards = [e1000, e1000e];
