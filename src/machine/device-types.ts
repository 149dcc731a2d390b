// All kinds of devices that users can name: one list, from which building, help and the monitors' answers come. A bundle runs a module of types when
// one of them is asked for (tools/late.ts).

import type { AnyDeviceType } from './device-type.ts';
import { ich9Ahci } from './types/ahci.ts';
import { dimm } from './types/dimm.ts';
import { displays } from './types/display.ts';
import { gigabitCards } from './types/e1000.ts';
import { acpiErst } from './types/erst.ts';
import { floppyTypes } from './types/floppy.ts';
import { ideTypes } from './types/ide.ts';
import { isaDebugcon, isaDebugExit, pcTestdev } from './types/isa.ts';
import { nvmeType } from './types/nvme.ts';
import { panicTypes } from './types/panic.ts';
import { isaParallel } from './types/parallel.ts';
import { pciBridges } from './types/pci-bridge.ts';
import { rtl8139Type } from './types/rtl8139.ts';
import { scsiUnits, virtioScsi } from './types/scsi.ts';
import { isaSerial } from './types/serial.ts';
import { testDevices } from './types/test-devices.ts';
import { usbTypes } from './types/usb.ts';
import { virtio9p } from './types/virtio-9p.ts';
import { virtioBalloon } from './types/virtio-balloon.ts';
import { virtioBlk } from './types/virtio-blk.ts';
import { virtioFs } from './types/virtio-fs.ts';
import { virtioGpus } from './types/virtio-gpu.ts';
import { virtioInputs } from './types/virtio-input.ts';
import { virtioNet } from './types/virtio-net.ts';
import { virtioRng } from './types/virtio-rng.ts';
import { virtioSerial, virtioSerialPorts } from './types/virtio-serial.ts';
import { virtioVsock } from './types/virtio-vsock.ts';

/** Types, in the order of help, by what their names and aliases look like. */
const rows: readonly (readonly [names: RegExp, types: () => readonly AnyDeviceType[]])[] = [
  [/^(piix3-)?ide\b/, () => ideTypes],
  [/ahci$/, () => [ich9Ahci]],
  [/^nvme/, () => [nvmeType]],
  [/^pcie|^ioh|bridge$/, () => pciBridges],
  [/^isa-debug-exit$/, () => [isaDebugExit]],
  [/^isa-debugcon$/, () => [isaDebugcon]],
  [/^isa-serial$/, () => [isaSerial]],
  [/^isa-parallel$/, () => [isaParallel]],
  [/^isa-fdc$|^floppy/, () => floppyTypes],
  [/^pvpanic|^vmcoreinfo/, () => panicTypes],
  [/^acpi-erst$/, () => [acpiErst]],
  [/^pc-dimm$/, () => [dimm]],
  [/^pc-testdev$/, () => [pcTestdev]],
  [/^edu$|^pci-testdev$/, () => testDevices],
  [/vga$|^ramfb|^bochs/i, () => displays],
  [/^virtio-blk/, () => virtioBlk],
  [/^virtio-net/, () => virtioNet],
  [/^e1000/, () => gigabitCards],
  [/^rtl8139/, () => [rtl8139Type]],
  [/^virtio-rng/, () => virtioRng],
  [/^virtio-balloon/, () => virtioBalloon],
  [/^virtio-(gpu|vga)/, () => virtioGpus],
  [/^virtio-serial/, () => virtioSerial],
  [/^virtio-scsi/, () => virtioScsi],
  [/^scsi-/, () => scsiUnits],
  [/^virtio-9p/, () => virtio9p],
  [/^virtio-fs/, () => virtioFs],
  [/^virtio-vsock/, () => virtioVsock],
  [/^virtserialport$|^virtconsole$/, () => virtioSerialPorts],
  [/^virtio-(keyboard|mouse|tablet)/, () => virtioInputs],
  [/usb|xhci/, () => usbTypes],
];

export const allDeviceTypes = (): readonly AnyDeviceType[] => rows.flatMap(([, types]) => types());

/** The type of this name or alias. */
export function findDeviceType(driver: string): AnyDeviceType | undefined {
  for (const [names, types] of rows) {
    const type = names.test(driver) && types().find((t) => t.name === driver || t.aliases?.includes(driver));
    if (type) return type;
  }
  return undefined;
}
