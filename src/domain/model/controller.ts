// `<controller>` and `<hub>` (libvirt 9.0, formatdomain "Controllers").
import {
  attribute,
  child,
  element,
  hex,
  integer,
  kept,
  leaf,
  oneOf,
  onOff,
  positive,
  refine,
  required,
  string,
  unsigned,
  type Value,
  withDefault,
} from '../codec.ts';
import { unsupported } from '../errors.ts';
import { deviceInfo, virtioOptions } from './common.ts';

const controllerTypes = ['ide', 'fdc', 'scsi', 'sata', 'virtio-serial', 'ccid', 'usb', 'pci', 'xenbus', 'isa'] as const;
export type ControllerType = (typeof controllerTypes)[number];

export const pciModels = [
  ...(['pci-root', 'pcie-root', 'pci-bridge', 'dmi-to-pci-bridge', 'pcie-to-pci-bridge', 'pcie-root-port'] as const),
  ...(['pcie-switch-upstream-port', 'pcie-switch-downstream-port', 'pci-expander-bus', 'pcie-expander-bus'] as const),
] as const;
export type PciModel = (typeof pciModels)[number];

const usbModels: readonly string[] = [
  ...['piix3-uhci', 'piix4-uhci', 'ehci', 'ich9-ehci1', 'ich9-uhci1', 'ich9-uhci2', 'ich9-uhci3', 'vt82c686b-uhci'],
  ...['pci-ohci', 'nec-xhci', 'qusb1', 'qusb2', 'qemu-xhci', 'none'],
];
const scsiModels: readonly string[] = [
  ...['auto', 'buslogic', 'lsilogic', 'lsisas1068', 'vmpvscsi', 'ibmvscsi', 'virtio-scsi', 'lsisas1078'],
  ...['virtio-transitional', 'virtio-non-transitional', 'ncr53c90', 'dc390', 'am53c974'],
];
const virtioModels: readonly string[] = ['virtio', 'virtio-transitional', 'virtio-non-transitional'];
const models: Partial<Record<ControllerType, readonly string[]>> = {
  pci: pciModels,
  usb: usbModels,
  scsi: scsiModels,
  ide: ['piix3', 'piix4', 'ich6'],
  'virtio-serial': virtioModels,
  isa: [],
};

export const controller = refine(
  element('controller', {
    type: withDefault(attribute('type', oneOf(...controllerTypes)), 'ide' as const),
    index: attribute('index', integer),
    model: attribute('model', string),
    ports: attribute('ports', unsigned),
    vectors: attribute('vectors', unsigned),
    modelName: child(element('model', { name: required('name', string) })),
    driver: child(
      element('driver', {
        queues: attribute('queues', positive),
        cmdPerLun: attribute('cmd_per_lun', unsigned),
        maxSectors: attribute('max_sectors', unsigned),
        ioeventfd: attribute('ioeventfd', onOff),
        iothread: attribute('iothread', positive),
        ...virtioOptions,
      }),
    ),
    target: child(
      element('target', {
        chassisNr: attribute('chassisNr', unsigned),
        chassis: attribute('chassis', unsigned),
        port: attribute('port', hex(1)),
        busNr: attribute('busNr', unsigned),
        index: attribute('index', unsigned),
        hotplug: attribute('hotplug', onOff),
        node: leaf('node', unsigned),
      }),
    ),
    pcihole64: kept('pcihole64'),
    ...deviceInfo,
  }),
  (value) => {
    const known = models[value.type];
    if (value.model !== undefined && known && !known.includes(value.model)) {
      throw unsupported(`Unknown model type '${value.model}'`);
    }
    return value;
  },
);
export type Controller = Value<typeof controller>;

export const hub = element('hub', { type: required('type', oneOf('usb')), ...deviceInfo });
export type Hub = Value<typeof hub>;
