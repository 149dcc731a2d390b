// All kinds of devices that users can name: one list, from which building, help and the monitors' answers come.

import type { AnyDeviceType } from './device-type.ts';
import { ich9Ahci } from './types/ahci.ts';
import { displays } from './types/display.ts';
import { gigabitCards } from './types/e1000.ts';
import { acpiErst } from './types/erst.ts';
import { floppyTypes } from './types/floppy.ts';
import { ideTypes } from './types/ide.ts';
import { isaDebugExit, pcTestdev } from './types/isa.ts';
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

export const deviceTypes: readonly AnyDeviceType[] = [
  ...ideTypes,
  ich9Ahci,
  nvmeType,
  ...pciBridges,
  isaDebugExit,
  isaSerial,
  isaParallel,
  ...floppyTypes,
  ...panicTypes,
  acpiErst,
  pcTestdev,
  ...testDevices,
  ...displays,
  ...virtioBlk,
  ...virtioNet,
  ...gigabitCards,
  rtl8139Type,
  ...virtioRng,
  ...virtioBalloon,
  ...virtioGpus,
  ...virtioSerial,
  ...virtioScsi,
  ...scsiUnits,
  ...virtio9p,
  ...virtioFs,
  ...virtioVsock,
  ...virtioSerialPorts,
  ...virtioInputs,
  ...usbTypes,
];
