// One device alone: the documents of attach, detach and update (libvirt 9.0, virDomainAttachDeviceFlags), and finding and placing it in a domain.
import { assignAliases } from './aliases.ts';
import { completeInterfaces } from './complete.ts';
import { assignVirtioPorts, completeDevices, freeIndex, sortDisks } from './complete-devices.ts';
import { type Devices, type Domain, devices } from './domain.ts';
import type { DefineContext } from './emulator.ts';
import { unsupported, xmlError } from './errors.ts';
import type { DeviceInfo } from './model/common.ts';
import { diskSourceName } from './model/disk.ts';
import { assignPlugged } from './pci-devices.ts';
import { assignUsbAddresses } from './usb.ts';
import { validateDomain } from './validate.ts';
import { childNamed, elementsOf, formatXml, newElement, parseXml } from './xml.ts';

/** The lists of devices to which one may be added, by the name of their element. */
const lists = {
  disk: 'disks',
  controller: 'controllers',
  filesystem: 'filesystems',
  interface: 'interfaces',
  serial: 'serials',
  parallel: 'parallels',
  console: 'consoles',
  channel: 'channels',
  input: 'inputs',
  graphics: 'graphics',
  sound: 'sounds',
  video: 'videos',
  hostdev: 'hostdevs',
  redirdev: 'redirdevs',
  hub: 'hubs',
  watchdog: 'watchdogs',
  memballoon: 'memballoons',
  rng: 'rngs',
  panic: 'panics',
  tpm: 'tpms',
  shmem: 'shmems',
  memory: 'memories',
  vsock: 'vsocks',
  iommu: 'iommus',
} as const satisfies Record<string, keyof Devices>;

export type DeviceElement = keyof typeof lists;
type ListName<E extends DeviceElement> = (typeof lists)[E];
type Item<E extends DeviceElement> = NonNullable<Devices[ListName<E>]>[number];

/** A device with the name of its element. */
export type Device = { [E in DeviceElement]: { element: E; value: Item<E> } }[DeviceElement];

const isDeviceElement = (name: string): name is DeviceElement => Object.hasOwn(lists, name);

/** The list of a domain that holds devices of the element's kind. */
const listOf = (domain: Domain, name: DeviceElement): DeviceInfo[] => domain.devices[lists[name]] as DeviceInfo[];

/** A device from its document. @throws DomainXmlError with libvirt's code and message. */
export function parseDevice(text: string): Device {
  const tree = parseXml(text, 'device_definition');
  if (!isDeviceElement(tree.name)) throw xmlError(`unknown device type '${tree.name}'`);
  const parsed = devices.parse(newElement('devices', {}, [tree]));
  return { element: tree.name, value: parsed[lists[tree.name]][0] } as Device;
}

/** The device's XML text as it stands in a domain. */
export function formatDevice(device: Device): string {
  const empty = devices.parse(newElement('devices'));
  const tree = devices.format({ ...empty, [lists[device.element]]: [device.value] });
  return formatXml(elementsOf(tree)[0]!);
}

/**
 * Gives a module of memory that is in the domain's list already a slot, and counts it.
 * @throws DomainXmlError where the domain has no room for it
 */
function addModule(domain: Domain, { value }: Extract<Device, { element: 'memory' }>): void {
  const { maxMemory } = domain;
  if (!maxMemory) throw unsupported("cannot use/hotplug a memory device when domain 'maxMemory' is not defined");
  const size = value.target?.size ?? 0;
  if ((domain.memory ?? 0) + size > maxMemory.kib) throw unsupported('memory device total size exceeds hotplug space');
  const slotOf = (one: DeviceInfo): number =>
    one.address && 'attributes' in one.address ? Number(one.address.attributes['slot'] ?? -1) : -1;
  const used = new Set(domain.devices.memories.filter((one) => one !== value).map(slotOf));
  if (value.address === undefined) {
    const slot = Array.from({ length: maxMemory.slots }, (_, n) => n).find((n) => !used.has(n));
    if (slot === undefined) throw unsupported('no free memory device slot available');
    value.address = { type: 'dimm', attributes: { slot: String(slot) } };
  }
  countModule(domain, size);
}

function countModule(domain: Domain, kib: number): void {
  const whole = domain.currentMemory === domain.memory;
  domain.memory = (domain.memory ?? 0) + kib;
  if (whole || (domain.currentMemory ?? 0) > domain.memory) domain.currentMemory = domain.memory;
}

/** Fills in what a device leaves open without touching the running ones. */
function completeAlone(domain: Domain, device: Device, random: DefineContext['random']): void {
  const { controllers } = domain.devices;
  if (device.element === 'controller') {
    device.value.index ??= freeIndex(controllers, device.value.type);
    if (device.value.type === 'scsi') device.value.model ??= 'lsilogic';
  }
  const empty = devices.parse(newElement('devices'));
  const alone: Domain = { ...domain, devices: { ...empty, [lists[device.element]]: [device.value] } };
  completeDevices(alone);
  completeInterfaces(alone, { random });
}

/**
 * Adds a device to a domain, in place: to a running one with a name and an address on the buses that it has,
 * to a definition without either, for `completeDomain` to fill in.
 * @throws DomainXmlError when it collides with what is there or has no room; the domain is then as before.
 */
export function attachDevice(domain: Domain, device: Device, live: boolean, random: DefineContext['random']): void {
  const before = { ...domain.devices };
  const memory = { memory: domain.memory, currentMemory: domain.currentMemory };
  const list = domain.devices[lists[device.element]] as DeviceInfo[];
  Object.assign(domain.devices, { [lists[device.element]]: [...list, device.value] });
  try {
    if (device.element === 'memory') addModule(domain, device);
    if (!live) {
      completeDevices(domain);
      validateDomain(domain);
      return;
    }
    completeAlone(domain, device, random);
    domain.devices.disks = sortDisks(domain.devices.disks);
    const known = domain.devices.controllers.length;
    assignVirtioPorts(domain);
    validateDomain(domain);
    if (domain.devices.controllers.length !== known) throw unsupported('no virtio-serial controller has a free port');
    assignPlugged(domain);
    const hubs = domain.devices.hubs.length;
    assignUsbAddresses(domain);
    if (domain.devices.hubs.length !== hubs) throw unsupported('No free USB ports');
    assignAliases(domain);
  } catch (error) {
    Object.assign(domain.devices, before);
    Object.assign(domain, memory);
    throw error;
  }
}

const sameAddress = (a: DeviceInfo, b: DeviceInfo): boolean => JSON.stringify(a.address) === JSON.stringify(b.address);

/** Whether `one` of the domain is the device that the document of a detach or update describes. */
function matches(one: DeviceInfo, wanted: Device): boolean {
  const { value } = wanted;
  if ('alias' in value && value.alias) return one.alias?.name === value.alias.name;
  switch (wanted.element) {
    case 'disk': {
      const disk = one as typeof wanted.value;
      const dev = wanted.value.target?.dev;
      return dev === undefined ? diskSourceName(disk) === diskSourceName(wanted.value) : disk.target?.dev === dev;
    }
    case 'interface': {
      const card = one as typeof wanted.value;
      if (wanted.value.mac && card.mac?.address !== wanted.value.mac.address) return false;
      return !wanted.value.address || sameAddress(card, wanted.value);
    }
    case 'controller': {
      const controller = one as typeof wanted.value;
      return controller.type === wanted.value.type && controller.index === (wanted.value.index ?? 0);
    }
    case 'graphics':
      return (one as typeof wanted.value).type === wanted.value.type;
    case 'channel': {
      const channel = one as typeof wanted.value;
      return channel.target?.type === wanted.value.target?.type && channel.target?.name === wanted.value.target?.name;
    }
    case 'hostdev': {
      const given = wanted.value.source && childNamed(wanted.value.source, 'address');
      const own = (one as typeof wanted.value).source;
      const there = own && childNamed(own, 'address');
      return JSON.stringify(given?.attributes) === JSON.stringify(there?.attributes);
    }
    default: {
      const info = value as DeviceInfo;
      if (info.address) return sameAddress(one, info);
      return comparable(wanted.element, one) === comparable(wanted.element, info);
    }
  }
}

/** A device's text without what a domain adds to it. */
function comparable(name: DeviceElement, info: DeviceInfo): string {
  const { alias: _, address: __, ...rest } = info;
  return formatDevice({ element: name, value: rest } as Device);
}

/** The device of the domain that a document describes: by alias, else by what identifies its kind. @throws DomainXmlError when it is not one device. */
export function findDevice(domain: Domain, wanted: Device): Device {
  const found = listOf(domain, wanted.element).filter((one) => matches(one, wanted));
  if (found.length === 0) throw unsupported(`device not found: no ${wanted.element} device matches`);
  if (found.length > 1) throw unsupported(`multiple ${wanted.element} devices match`);
  return { element: wanted.element, value: found[0] } as Device;
}

/** Takes a device that `findDevice` gave out of the domain, in place. */
export function detachDevice(domain: Domain, device: Device): void {
  const rest = listOf(domain, device.element).filter((one) => one !== device.value);
  Object.assign(domain.devices, { [lists[device.element]]: rest });
  if (device.element === 'memory') countModule(domain, -(device.value.target?.size ?? 0));
}

/** Puts another description in the place of a device that `findDevice` gave, in place. */
export function replaceDevice(domain: Domain, device: Device, value: Device): void {
  const changed = listOf(domain, device.element).map((one) => (one === device.value ? (value.value as DeviceInfo) : one));
  Object.assign(domain.devices, { [lists[device.element]]: changed });
}
