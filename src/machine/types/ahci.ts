// `ich9-ahci`: a serial ATA host controller with six ports, each an IDE bus of one drive.

import type { IrqLine } from '../../bus/irq.ts';
import { AHCI_BAR, AHCI_PORTS, Ahci, ahciIndexed } from '../../devices/ahci.ts';
import { readsAtOnce } from '../../devices/ahci-at-once.ts';
import { AhciIo } from '../../devices/ahci-io.ts';
import { PciFunction } from '../../devices/pci-function.ts';
import { addMsi } from '../../devices/pci-msi.ts';
import type { IdeUnit } from '../buses.ts';
import { deviceType } from '../device-type.ts';
import { freeUnit, serialOf } from './ide.ts';

export const ich9Ahci = deviceType({
  name: 'ich9-ahci',
  aliases: ['ahci'],
  bus: 'PCI',
  category: 'Storage',
  description: 'serial ATA host controller with six ports',
  parents: ['pci-device', 'device'],
  properties: {},
  build(ctx) {
    const bell = ctx.doorbell();
    let irq: IrqLine | undefined;
    const ahci: Ahci = new Ahci({
      arena: ctx.arena,
      name: ctx.name,
      irq: { set: (level) => irq?.set(level) },
      ring: () => bell.ring(),
      atOnce: (port, bits) => atOnce(port, bits),
      report: ctx.report,
    });
    const f = new PciFunction({
      ...{ arena: ctx.arena, name: ctx.name, vendor: 0x8086, device: 0x2922, revision: 2, classCode: 0x01_0601 },
      ...{ subsystemVendor: 0x1af4, subsystem: 0x1100, interruptPin: 1 as const },
      bars: [
        { index: 4, kind: 'io', name: 'ahci-idp', size: 32, handler: ahciIndexed(ahci) },
        { index: 5, kind: 'mem32', name: 'ahci', size: AHCI_BAR, handler: ahci.handler },
      ],
    });
    f.startCapabilitiesAt(0x80);
    irq = addMsi(f, ctx.msi);
    // Serial ATA capability: the index and data ports are in BAR 4, at 0x10.
    f.startCapabilitiesAt(0xa8);
    f.addCapability(0x12, [0x10, 0, 0x48, 0, 0, 0]);
    // The address map register: AHCI mode.
    f.preset(0x90, [0x40]);
    ctx.plug(f);
    const units: (IdeUnit | undefined)[] = new Array(AHCI_PORTS).fill(undefined);
    const atOnce = readsAtOnce(ahci, ctx.memory, (n) => units[n]?.direct);
    for (let n = 0; n < AHCI_PORTS; n++) {
      ctx.addBus({
        kind: 'IDE',
        name: `${ctx.id ?? 'ide'}.${n}`,
        hotplug: false,
        ncq: true,
        hasRoom: () => units[n] === undefined,
        place: (wanted) => freeUnit([units[n]], wanted),
        serial: () => serialOf(2 * n),
        attach(_, unit) {
          units[n] = unit;
          ahci.devices[n] = unit.ata;
          return { reset: () => ahci.link(n), bootNode: `drive@${n}/disk@0` };
        },
      });
    }
    return {
      bootNode: 'pci8086,2922',
      reset() {
        f.reset();
        ahci.reset();
      },
      io(services) {
        const io = new AhciIo({ ahci, lock: services.lock, memory: services.memory, store: (n) => units[n]?.store() });
        bell.heard = () => io.serve();
        return { drain: () => Promise.race([io.drain(), ...units.flatMap((u) => (u ? [u.held()] : []))]) };
      },
    };
  },
});
