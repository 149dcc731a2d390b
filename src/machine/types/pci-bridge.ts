// Bridges to further PCI buses: root ports of PCI Express with a hot-plug slot, and conventional bridges.

import { PciFunction } from '../../devices/pci-function.ts';
import { addMsi } from '../../devices/pci-msi.ts';
import { addEndpoint, RootPort } from '../../devices/pcie-port.ts';
import { type AnyDeviceType, deviceType } from '../device-type.ts';
import { bool, choice, onOffAuto, size, str, uint8, uint16, uint32 } from '../properties.ts';

const SSVID = 0x0d;
const half = (v: number): number[] => [v & 0xff, v >>> 8];

/** What QEMU's bridges take and what makes no difference here. */
const reserves = {
  'bus-reserve': uint32(0xffff_ffff),
  'io-reserve': size(0),
  'mem-reserve': size(0),
  'pref32-reserve': size(0),
  'pref64-reserve': size(0),
};

interface PortIds {
  readonly name: string;
  readonly description: string;
  readonly vendor: number;
  readonly device: number;
}

const rootPort = ({ name, description, vendor, device }: PortIds): AnyDeviceType =>
  deviceType({
    name,
    bus: 'PCI',
    category: 'Controller/Bridge/Hub',
    description,
    parents: ['pcie-root-port-base', 'pcie-slot', 'pcie-port', 'pci-bridge', 'pci-device'],
    hotplug: false,
    properties: {
      ...reserves,
      port: uint8(0),
      chassis: uint8(0),
      slot: uint16(0),
      hotplug: bool(true),
      power_controller_present: bool(true),
      'native-hotplug': bool(true),
      'disable-acs': bool(false),
      'x-speed': choice(['2_5', '5', '8', '16'], '16', 'PCIELinkSpeed'),
      'x-width': choice(['1', '2', '4', '8', '12', '16', '32'], '32', 'PCIELinkWidth'),
    },
    build(ctx, p) {
      if (!ctx.bus.express) throw new Error(`Device '${name}' can't go on conventional bus '${ctx.bus.name}'`);
      const f = new PciFunction({
        ...{ arena: ctx.arena, name: ctx.name, vendor, device, classCode: 0x06_0400, bridge: true, interruptPin: 1 as const },
        multifunction: (p as { multifunction?: boolean }).multifunction ?? false,
      });
      f.addCapability(SSVID, [0, 0, ...half(0x1af4), ...half(0)]);
      const irq = addMsi(f, ctx.msi);
      const behind = ctx.pci.behind(f);
      ctx.onRemove(() => behind.close());
      const occupants = new Map<PciFunction, string>();
      const port = new RootPort({
        ...{ arena: ctx.arena, name: ctx.name, f, irq },
        ...{ port: p.port, slot: p.slot, hotplug: p.hotplug },
        occupied: () => occupants.size > 0,
        release: () => {
          for (const path of new Set(occupants.values())) ctx.event({ kind: 'eject', path });
        },
      });
      ctx.plug(f);
      ctx.addBus({
        kind: 'PCI',
        name: ctx.id ?? ctx.name,
        express: true,
        root: false,
        hotplug: p.hotplug,
        hasRoom: () => occupants.size === 0,
        add(g, slot, fn, path = '') {
          if (slot !== 0) throw new Error(`PCI: slot ${slot} is not valid for ${ctx.id ?? ctx.name}: a port has slot 0`);
          behind.add(g, slot, fn);
          occupants.set(g, path);
          return () => {
            behind.remove(g);
            occupants.delete(g);
            if (ctx.ioThread) ctx.lock.run(() => port.changed(false));
          };
        },
        freeSlot: () => (occupants.size === 0 ? 0 : -1),
        plugged: () => ctx.lock.run(() => port.changed(true)),
        requestUnplug({ path }) {
          if (!ctx.lock.run(() => port.press())) ctx.event({ kind: 'eject', path });
        },
      });
      return {
        bootNode: 'pci-bridge',
        reset: () => port.reset(),
      };
    },
  });

const conventional = (o: PortIds & { readonly express: boolean; readonly pin: 0 | 1 }): AnyDeviceType =>
  deviceType({
    name: o.name,
    bus: 'PCI',
    category: 'Controller/Bridge/Hub',
    description: o.description,
    parents: ['base-pci-bridge', 'pci-bridge', 'pci-device'],
    hotplug: false,
    properties: {
      ...reserves,
      chassis_nr: uint8(0),
      msi: onOffAuto('auto'),
      shpc: bool(false, 'standard hot-plug controller: there is none'),
      'x-config-reg-migration-enabled': str(),
    },
    build(ctx, p) {
      if (o.express && !ctx.bus.express) throw new Error(`Device '${o.name}' can't go on conventional bus '${ctx.bus.name}'`);
      if (p.shpc) throw new Error('shpc=on is not supported');
      const f = new PciFunction({
        ...{ arena: ctx.arena, name: ctx.name, vendor: o.vendor, device: o.device, classCode: 0x06_0400, bridge: true },
        ...{ interruptPin: o.pin, multifunction: (p as { multifunction?: boolean }).multifunction ?? false },
      });
      f.addCapability(SSVID, [0, 0, ...half(0x1af4), ...half(0)]);
      if (o.express) addEndpoint(f);
      const behind = ctx.pci.behind(f);
      ctx.onRemove(() => behind.close());
      ctx.plug(f);
      ctx.addBus({
        kind: 'PCI',
        name: ctx.id ?? ctx.name,
        express: false,
        root: false,
        // Without a hot-plug controller, devices come and go with the machine.
        hotplug: false,
        add(g, slot, fn) {
          behind.add(g, slot, fn);
          return () => behind.remove(g);
        },
        freeSlot: () => behind.freeSlot(1),
      });
      return { bootNode: 'pci-bridge', reset: () => {} };
    },
  });

export const pciBridges: readonly AnyDeviceType[] = [
  rootPort({ name: 'pcie-root-port', description: 'PCI Express root port', vendor: 0x1b36, device: 0x000c }),
  rootPort({ name: 'ioh3420', description: 'Intel IOH device id 3420 PCIE root port', vendor: 0x8086, device: 0x3420 }),
  conventional({
    name: 'pci-bridge',
    description: 'standard PCI bridge',
    vendor: 0x1b36,
    device: 0x0001,
    express: false,
    pin: 1,
  }),
  conventional({
    name: 'pcie-pci-bridge',
    description: 'bridge from PCI Express to PCI',
    vendor: 0x1b36,
    device: 0x000e,
    express: true,
    pin: 1,
  }),
  conventional({
    name: 'i82801b11-bridge',
    description: "bridge of Intel's 82801 to PCI",
    vendor: 0x8086,
    device: 0x244e,
    express: false,
    pin: 0,
  }),
];
