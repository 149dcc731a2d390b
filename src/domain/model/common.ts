// What many elements of a domain share: sizes with units, device addresses, aliases (libvirt 9.0, formatdomain "Device Addresses").
import {
  attribute,
  type Codec,
  child,
  element,
  type Field,
  hex,
  kept,
  type Model,
  onOff,
  positive,
  required,
  string,
  unsigned,
  yesNo,
} from '../codec.ts';
import { DomainXmlError, errorCode, unsupported, xmlError } from '../errors.ts';
import { newElement, textOf, type XmlElement } from '../xml.ts';

/** Bytes in a unit of `<memory unit='…'>`; powers of 1000 end in `B`, powers of 1024 in `iB` or a single letter. */
export function unitSize(unit: string): number {
  const match = /^(?:(b|bytes?)|([kmgtpe])(|b|ib))$/i.exec(unit);
  if (!match) throw new DomainXmlError(errorCode.invalidArgument, `unknown suffix '${unit}'`);
  if (match[1]) return 1;
  const power = 'kmgtpe'.indexOf(match[2]!.toLowerCase()) + 1;
  return (match[3]!.toLowerCase() === 'b' ? 1000 : 1024) ** power;
}

/** The size that an element's text and `unit` attribute give, in KiB, rounded up; `path` is for the message. */
export function sizeInKib(text: string, unit: string | undefined, path: string): number {
  if (!/^\s*\d+\s*$/.test(text)) throw xmlError(`Invalid value '${text}' for element or attribute '${path}'`);
  const kib = Math.ceil((Number(text) * unitSize(unit ?? 'KiB')) / 1024);
  if (!Number.isSafeInteger(kib)) throw xmlError(`Invalid value '${text}' for element or attribute '${path}'`);
  return kib;
}

/** An element with a size in KiB as its value, printed with `unit='KiB'`; other attributes are not kept. */
export function memoryField(name: string): Field<number | undefined> {
  return {
    take(source) {
      const found = source.children.find((one) => one.name === name);
      if (!found) return undefined;
      source.children = source.children.filter((one) => one.name !== name);
      return sizeInKib(textOf(found), found.attributes['unit'], `./${name}[1]`);
    },
    put(value, out) {
      if (value !== undefined) out.nodes.push(newElement(name, { unit: 'KiB' }, [String(value)]));
    },
  };
}

export interface PciAddress {
  type: 'pci';
  /** 0–0xffff, bus 0–0xff, slot 0–0x1f, function 0–7; all zero means "not yet assigned". */
  domain: number;
  bus: number;
  slot: number;
  function: number;
  multifunction?: 'on' | 'off';
}
export interface DriveAddress {
  type: 'drive';
  controller: number;
  bus: number;
  target: number;
  unit: number;
}
export interface VirtioSerialAddress {
  type: 'virtio-serial';
  controller: number;
  bus: number;
  /** Absent until assigned; 0 is reserved for the first console. */
  port?: number;
}
export interface CcidAddress {
  type: 'ccid';
  controller: number;
  slot: number;
}
export interface UsbAddress {
  type: 'usb';
  bus: number;
  /** `1`, or with hubs in between `1.2.3`; absent until assigned. */
  port?: string;
}
/** A kind of address that this code carries along and does not assign. */
export interface OtherAddress {
  type: 'dimm' | 'isa' | 'ccw' | 'virtio-mmio' | 'spapr-vio' | 'unassigned';
  attributes: Record<string, string>;
}
export type Address = PciAddress | DriveAddress | VirtioSerialAddress | CcidAddress | UsbAddress | OtherAddress;

const otherTypes: readonly string[] = ['dimm', 'isa', 'ccw', 'virtio-mmio', 'spapr-vio', 'unassigned'];

function number(tree: XmlElement, name: string, fallback = 0): number {
  const text = tree.attributes[name];
  if (text === undefined) return fallback;
  const value = unsigned.parse(text);
  if (value !== undefined) return value;
  throw xmlError(`Invalid value for attribute '${name}' in element 'address': '${text}'. ${unsigned.expected}`);
}

/** The PCI part of an `<address>` or of a host device's source. */
export function parsePci(tree: XmlElement): PciAddress {
  const address: PciAddress = {
    type: 'pci',
    domain: number(tree, 'domain'),
    bus: number(tree, 'bus'),
    slot: number(tree, 'slot'),
    function: number(tree, 'function'),
  };
  const limits = { domain: 0xffff, bus: 0xff, slot: 0x1f, function: 7 } as const;
  for (const [name, most] of Object.entries(limits)) {
    const value = address[name as keyof typeof limits];
    if (value > most) {
      throw xmlError(`Invalid PCI address ${name}='0x${value.toString(16)}', must be <= 0x${most.toString(16).toUpperCase()}`);
    }
  }
  const multifunction = tree.attributes['multifunction'];
  if (multifunction === 'on' || multifunction === 'off') address.multifunction = multifunction;
  else if (multifunction !== undefined) {
    throw xmlError(`Invalid value for attribute 'multifunction' in element 'address': '${multifunction}'.`);
  }
  return address;
}

/** The attributes of a PCI address as libvirt prints them. */
export function pciAttributes(address: PciAddress): Record<string, string> {
  return {
    domain: hex(4).format(address.domain),
    bus: hex(2).format(address.bus),
    slot: hex(2).format(address.slot),
    function: hex(1).format(address.function),
    ...(address.multifunction && { multifunction: address.multifunction }),
  };
}

const texts = (values: object): Record<string, string> =>
  Object.fromEntries(Object.entries(values).flatMap(([key, value]) => (value === undefined ? [] : [[key, String(value)]])));

const address: Codec<Address> = {
  name: 'address',
  parse(tree) {
    const type = tree.attributes['type'];
    const controller = number(tree, 'controller');
    switch (type) {
      case undefined:
        throw xmlError("Missing required attribute 'type' in element 'address'");
      case 'pci':
        return parsePci(tree);
      case 'drive':
        return { type, controller, bus: number(tree, 'bus'), target: number(tree, 'target'), unit: number(tree, 'unit') };
      case 'virtio-serial': {
        const given = tree.attributes['port'] !== undefined;
        return { type, controller, bus: number(tree, 'bus'), ...(given && { port: number(tree, 'port') }) };
      }
      case 'ccid':
        return { type, controller, slot: number(tree, 'slot') };
      case 'usb': {
        const port = tree.attributes['port'];
        if (port !== undefined && !/^\d+(\.\d+){0,3}$/.test(port)) throw xmlError(`Cannot parse <address> 'port' attribute`);
        return { type, bus: number(tree, 'bus'), ...(port !== undefined && { port }) };
      }
    }
    if (!otherTypes.includes(type)) throw unsupported(`unknown address type '${type}'`);
    const { type: _, ...attributes } = tree.attributes;
    return { type: type as OtherAddress['type'], attributes };
  },
  format(value) {
    if (value.type === 'pci') return newElement('address', { type: 'pci', ...pciAttributes(value) });
    if ('attributes' in value) return newElement('address', { type: value.type, ...value.attributes });
    return newElement('address', texts(value));
  },
};

/** Whether a PCI address is still to be assigned: none, or the empty `<address type='pci'/>`. */
export const wantsPciAddress = (info: DeviceInfo): boolean =>
  info.address === undefined ||
  (info.address.type === 'pci' && (info.address.domain | info.address.bus | info.address.slot) === 0);

const bootOrder = element('boot', {
  order: attribute('order', positive, {
    invalid: (text) =>
      text === '0'
        ? xmlError("Invalid value for attribute 'order' in element 'boot': Zero is not permitted")
        : xmlError(`Invalid value for attribute 'order' in element 'boot': '${text}'. Expected positive integer value`),
  }),
  loadparm: attribute('loadparm', string),
});

/** The fields that end nearly every device. */
export const deviceInfo = {
  boot: child(bootOrder),
  alias: child(element('alias', { name: required('name', string) })),
  master: child(element('master', { startport: required('startport', unsigned) })),
  rom: child(
    element('rom', { bar: attribute('bar', onOff), enabled: attribute('enabled', yesNo), file: attribute('file', string) }),
  ),
  acpi: kept('acpi'),
  address: child(address),
};
export type DeviceInfo = Model<typeof deviceInfo>;

/** The virtio options that any virtio device's `<driver>` may have. */
export const virtioOptions = {
  iommu: attribute('iommu', onOff),
  ats: attribute('ats', onOff),
  packed: attribute('packed', onOff),
  pagePerVq: attribute('page_per_vq', onOff),
};
export type VirtioOptions = Model<typeof virtioOptions>;

/** `<driver>` of a device that has only the virtio options. */
export const virtioDriver = element('driver', virtioOptions);
