// Ports for the USB devices of a domain, with hubs added where the controllers have too few (libvirt 9.0).
import type { Domain } from './domain.ts';
import { unsupported, xmlError } from './errors.ts';
import type { DeviceInfo, UsbAddress } from './model/common.ts';
import type { Controller } from './model/controller.ts';

const hubPorts = 8;

/** The ports of a controller's root hub. */
export function usbPorts(one: Controller): number {
  switch (one.model) {
    case 'ich9-ehci1':
      return 6;
    case 'ehci':
      return 6;
    case 'pci-ohci':
      return 3;
    case 'qemu-xhci':
    case 'nec-xhci':
      return one.ports ?? 4;
    default:
      return 2;
  }
}

/** What is plugged into USB, hubs apart, in the order of assignment. */
function usbDevices(domain: Domain): DeviceInfo[] {
  const { devices } = domain;
  return [
    ...devices.hostdevs.filter((one) => one.type === 'usb'),
    ...devices.disks.filter((one) => one.target?.bus === 'usb'),
    ...devices.controllers.filter((one) => one.type === 'ccid'),
    ...devices.inputs.filter((one) => one.bus === 'usb'),
    ...devices.sounds.filter((one) => one.model === 'usb'),
    ...devices.serials.filter((one) => one.target?.type === 'usb-serial'),
    ...devices.redirdevs,
  ];
}

/** The ports of one bus by name (`2`, `2.1`) with those in use. */
interface UsbBus {
  index: number;
  free: Map<string, boolean>;
}

const portsBelow = (prefix: string, count: number): [string, boolean][] =>
  Array.from({ length: count }, (_, i) => [`${prefix}${i + 1}`, true]);

function takePort(buses: UsbBus[], address: UsbAddress): void {
  const bus = buses.find((one) => one.index === address.bus);
  if (!bus) throw xmlError(`Missing USB bus ${address.bus}`);
  if (address.port === undefined) return;
  const free = bus.free.get(address.port);
  if (free === undefined) throw xmlError(`Invalid USB port ${address.port} on bus ${address.bus}`);
  if (!free) throw xmlError(`Duplicate USB address bus ${address.bus} port ${address.port}`);
  bus.free.set(address.port, false);
}

function nextPort(buses: UsbBus[], wanted: number | undefined): UsbAddress {
  // Ports nearest to the controller first.
  const depth = (port: string): number => port.split('.').length;
  for (const bus of buses) {
    if (wanted !== undefined && bus.index !== wanted) continue;
    const ports = [...bus.free].filter(([, free]) => free).map(([port]) => port);
    const [port] = ports.sort((a, b) => depth(a) - depth(b));
    if (port !== undefined) return { type: 'usb', bus: bus.index, port };
  }
  throw unsupported(
    buses.length === 0 ? 'USB is disabled for this domain, but USB devices are present in the domain XML' : 'No free USB ports',
  );
}

/**
 * Gives every USB device a bus and a port.
 * @throws DomainXmlError when USB is switched off, a port is used twice or does not exist.
 */
export function assignUsbAddresses(domain: Domain): void {
  const { controllers, hubs } = domain.devices;
  const buses: UsbBus[] = controllers
    .filter((one) => one.type === 'usb' && one.model !== 'none' && !one.master)
    .map((one) => ({ index: one.index ?? 0, free: new Map(portsBelow('', usbPorts(one))) }));
  const devices = usbDevices(domain);
  if (devices.length === 0 && hubs.length === 0) return;
  const rootPorts = buses.reduce((sum, bus) => sum + bus.free.size, 0);
  const ports = rootPorts + hubs.length * (hubPorts - 1);
  for (let missing = devices.length - ports; missing > 0 && rootPorts > 0; missing -= hubPorts - 1) hubs.push({ type: 'usb' });

  const place = (info: DeviceInfo): UsbAddress => {
    const given = info.address?.type === 'usb' ? info.address : undefined;
    if (given?.port !== undefined) return given;
    const address = nextPort(buses, given?.bus);
    info.address = address;
    takePort(buses, address);
    return address;
  };
  const addHub = (info: DeviceInfo): void => {
    const address = place(info);
    const bus = buses.find((one) => one.index === address.bus)!;
    for (const [port, free] of portsBelow(`${address.port}.`, hubPorts)) bus.free.set(port, free);
  };
  const hasPort = (info: DeviceInfo): boolean => info.address?.type === 'usb' && info.address.port !== undefined;
  for (const one of hubs.filter(hasPort)) {
    takePort(buses, one.address as UsbAddress);
    addHub(one);
  }
  for (const one of devices) if (hasPort(one)) takePort(buses, one.address as UsbAddress);
  for (const one of hubs) if (!hasPort(one)) addHub(one);
  for (const one of devices) place(one);
}
