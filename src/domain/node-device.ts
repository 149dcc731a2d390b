// `<device>`: a device of the host (libvirt 9.0, formatnode).
import { formatXml, newElement, type XmlElement } from './xml.ts';

export interface SystemCapability {
  type: 'system';
  product?: string;
  hardware: { vendor?: string; version?: string; serial?: string; uuid: string };
  firmware: { vendor?: string; version?: string; releaseDate?: string };
}
export interface NetCapability {
  type: 'net';
  interface: string;
  address?: string;
  /** Speed in Mbit/s. */
  link?: { speed?: number; state: 'up' | 'down' | 'unknown' };
  /** Offloads: `rx`, `tx`, `sg`, `tso`, … */
  features: readonly string[];
  /** `80203` wired, `80211` wireless. */
  subtype?: string;
}
export interface StorageCapability {
  type: 'storage';
  block: string;
  bus?: string;
  driveType?: string;
  model?: string;
  vendor?: string;
  serial?: string;
  /** In bytes; blocks in `logicalBlockSize`. */
  size: number;
  logicalBlockSize?: number;
  blocks?: number;
}
export interface PciCapability {
  type: 'pci';
  /** 24 bits: class, subclass, interface. */
  class?: number;
  domain: number;
  bus: number;
  slot: number;
  function: number;
  product: { id: number; name?: string };
  vendor: { id: number; name?: string };
  iommuGroup?: number;
  express?: boolean;
}
export interface UsbCapability {
  type: 'usb_device';
  bus: number;
  device: number;
  product: { id: number; name?: string };
  vendor: { id: number; name?: string };
}
export type NodeCapability = SystemCapability | NetCapability | StorageCapability | PciCapability | UsbCapability;

export interface NodeDevice {
  name: string;
  /** In sysfs. */
  path?: string;
  devnodes?: readonly { type: 'dev' | 'link'; path: string }[];
  parent?: string;
  driver?: string;
  capability: NodeCapability;
}

const text = (name: string, value: string | number | undefined): XmlElement[] =>
  value === undefined ? [] : [newElement(name, {}, [String(value)])];
const hex4 = (value: number): string => `0x${value.toString(16).padStart(4, '0')}`;
const identified = (name: string, given: { id: number; name?: string }): XmlElement =>
  newElement(name, { id: hex4(given.id) }, given.name === undefined ? [] : [given.name]);

/** A group that libvirt prints open even when it is empty. */
function group(name: string, nodes: XmlElement[]): XmlElement {
  return newElement(name, {}, nodes.length > 0 ? nodes : ['\n    ']);
}

function capabilityNodes(given: NodeCapability): XmlElement[] {
  switch (given.type) {
    case 'system': {
      const { hardware, firmware } = given;
      return [
        ...text('product', given.product),
        group('hardware', [
          ...text('vendor', hardware.vendor),
          ...text('version', hardware.version),
          ...text('serial', hardware.serial),
          ...text('uuid', hardware.uuid),
        ]),
        group('firmware', [
          ...text('vendor', firmware.vendor),
          ...text('version', firmware.version),
          ...text('release_date', firmware.releaseDate),
        ]),
      ];
    }
    case 'net': {
      const { link } = given;
      const speed: Record<string, string> = link?.speed === undefined ? {} : { speed: String(link.speed) };
      return [
        ...text('interface', given.interface),
        ...text('address', given.address),
        ...(link ? [newElement('link', { ...speed, state: link.state })] : []),
        ...given.features.map((name) => newElement('feature', { name })),
        ...(given.subtype === undefined ? [] : [newElement('capability', { type: given.subtype })]),
      ];
    }
    case 'storage':
      return [
        ...text('block', given.block),
        ...text('bus', given.bus),
        ...text('drive_type', given.driveType),
        ...text('model', given.model),
        ...text('vendor', given.vendor),
        ...text('serial', given.serial),
        ...text('size', given.size),
        ...text('logical_block_size', given.logicalBlockSize),
        ...text('num_blocks', given.blocks),
      ];
    case 'pci':
      return [
        ...(given.class === undefined ? [] : text('class', `0x${given.class.toString(16).padStart(6, '0')}`)),
        ...text('domain', given.domain),
        ...text('bus', given.bus),
        ...text('slot', given.slot),
        ...text('function', given.function),
        identified('product', given.product),
        identified('vendor', given.vendor),
        ...(given.iommuGroup === undefined ? [] : [newElement('iommuGroup', { number: String(given.iommuGroup) })]),
        ...(given.express ? [newElement('pci-express')] : []),
      ];
    case 'usb_device':
      return [
        ...text('bus', given.bus),
        ...text('device', given.device),
        identified('product', given.product),
        identified('vendor', given.vendor),
      ];
  }
}

/** The device's XML text as libvirt prints it. */
export function formatNodeDevice(device: NodeDevice): string {
  return formatXml(
    newElement('device', {}, [
      ...text('name', device.name),
      ...text('path', device.path),
      ...(device.devnodes ?? []).map(({ type, path }) => newElement('devnode', { type }, [path])),
      ...text('parent', device.parent),
      ...(device.driver === undefined ? [] : [newElement('driver', {}, text('name', device.driver))]),
      newElement('capability', { type: device.capability.type }, capabilityNodes(device.capability)),
    ]),
  );
}
