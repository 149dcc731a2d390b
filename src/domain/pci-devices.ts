// Which devices of a domain need a PCI address, in the order in which libvirt 9.0 assigns them, and what the chipset fixes.

import { type Domain, domainElement, readDomain } from './domain.ts';
import { boardOf } from './emulator.ts';
import { xmlError } from './errors.ts';
import { type DeviceInfo, type PciAddress, wantsPciAddress } from './model/common.ts';
import type { Controller, PciModel } from './model/controller.ts';
import { isVirtioNet } from './model/interface.ts';
import { busKinds, connect, PciSlots } from './pci.ts';

export const isExpress = (domain: Domain): boolean =>
  domain.devices.controllers.some((one) => one.type === 'pci' && one.model === 'pcie-root');

const at = (slot: number, fn = 0): PciAddress => ({ type: 'pci', domain: 0, bus: 0, slot, function: fn });

/** A device with a PCI address or in want of one, and what it needs of its bus. */
interface PciDevice {
  info: DeviceInfo;
  needs: number;
}

interface Needs {
  /** A virtio device of the given model. */
  virtio(model: string | undefined): number;
  express: number;
  conventional: number;
}

function needsOf(domain: Domain): Needs {
  const conventional = connect.pciDevice | connect.hotplug;
  const express = isExpress(domain) ? connect.pcieDevice | connect.hotplug : conventional;
  return {
    conventional,
    express,
    virtio: (model) => (model?.endsWith('-transitional') && !model.endsWith('non-transitional') ? conventional : express),
  };
}

/** ICH9's USB 2 controllers and the function that each has. */
const usb2Functions: Readonly<Record<string, number>> = { 'ich9-ehci1': 7, 'ich9-uhci1': 0, 'ich9-uhci2': 1, 'ich9-uhci3': 2 };
const isUsb2 = (one: Controller): boolean => one.type === 'usb' && usb2Functions[one.model ?? ''] !== undefined;

function controllerNeeds(one: Controller, needs: Needs): number {
  if (one.type === 'pci') return busKinds[one.model as PciModel].needs;
  if (one.type === 'usb') return one.model === 'qemu-xhci' || one.model === 'nec-xhci' ? needs.express : needs.conventional;
  if (one.type === 'virtio-serial') return needs.virtio(one.model);
  if (one.type === 'scsi' && one.model?.startsWith('virtio')) return needs.virtio(one.model);
  return needs.conventional;
}

const isPciController = (one: Controller): boolean =>
  (one.type === 'pci' && one.model !== 'pci-root' && one.model !== 'pcie-root') ||
  ['scsi', 'sata', 'ide', 'virtio-serial'].includes(one.type) ||
  (one.type === 'usb' && one.model !== 'none');

/** Every device that is on PCI, in the order of assignment: first the PCI controllers, last the virtio-iommu and vsock. */
function* pciDevices(domain: Domain): Generator<PciDevice> {
  const { devices } = domain;
  const needs = needsOf(domain);
  const on = (info: DeviceInfo): boolean => info.address === undefined || info.address.type === 'pci';
  const isBridge = (one: Controller): boolean => one.type === 'pci';
  const controllers = devices.controllers.filter(isPciController);
  for (const one of controllers.filter(isBridge)) yield { info: one, needs: controllerNeeds(one, needs) };
  for (const one of devices.filesystems) yield { info: one, needs: needs.virtio(one.model) };
  for (const one of devices.interfaces) {
    if (one.type === 'hostdev') yield { info: one, needs: needs.express };
    else if (isVirtioNet(one)) yield { info: one, needs: needs.virtio(one.model?.type) };
    else if (one.model?.type !== 'usb-net') {
      yield { info: one, needs: one.model?.type === 'e1000e' ? needs.express : needs.conventional };
    }
  }
  for (const one of devices.sounds) {
    if (!['sb16', 'pcspk', 'usb'].includes(one.model)) yield { info: one, needs: needs.conventional };
  }
  for (const one of controllers) if (!isBridge(one)) yield { info: one, needs: controllerNeeds(one, needs) };
  for (const one of devices.disks) {
    if (one.target?.bus === 'virtio' && on(one)) yield { info: one, needs: needs.virtio(one.model) };
  }
  for (const one of devices.hostdevs) {
    if (one.type === 'pci' || one.type === 'mdev' || one.type === 'scsi_host') yield { info: one, needs: needs.express };
  }
  for (const one of devices.memballoons) if (one.model.startsWith('virtio')) yield { info: one, needs: needs.virtio(one.model) };
  for (const one of devices.rngs) yield { info: one, needs: needs.virtio(one.model) };
  for (const one of devices.watchdogs) if (one.model === 'i6300esb') yield { info: one, needs: needs.conventional };
  for (const one of devices.videos) {
    const type = one.model?.type;
    if (type === 'none' || type === 'ramfb') continue;
    yield { info: one, needs: type === 'virtio' ? needs.express : needs.conventional };
  }
  for (const one of devices.shmems) yield { info: one, needs: needs.conventional };
  for (const one of devices.inputs) if (one.bus === 'virtio') yield { info: one, needs: needs.virtio(one.model) };
  for (const one of devices.serials) if (one.target?.type === 'pci-serial') yield { info: one, needs: needs.conventional };
  for (const one of devices.panics) if (one.model === 'pvpanic') yield { info: one, needs: needs.conventional };
  for (const one of devices.memories) if (one.model.startsWith('virtio')) yield { info: one, needs: needs.express };
  for (const one of devices.iommus) if (one.model === 'virtio') yield { info: one, needs: needs.express };
  for (const one of devices.vsocks) yield { info: one, needs: needs.virtio(one.model) };
}

/** The PCI function of an i440FX or Q35 chipset that a controller is; undefined for an ordinary device. */
function chipsetAddress(domain: Domain, one: Controller): PciAddress | undefined {
  if (one.index !== 0) return undefined;
  if (isExpress(domain)) return one.type === 'sata' ? at(0x1f, 2) : undefined;
  if (one.type === 'ide') return at(1, 1);
  if (one.type === 'usb' && (one.model === 'piix3-uhci' || one.model === undefined)) return at(1, 2);
  return undefined;
}

/** Fixes what the chipset fixes, and takes the addresses of its own functions. */
function reserveChipset(domain: Domain, slots: PciSlots): void {
  const { devices } = domain;
  if (boardOf(domain.os.type?.machine ?? '') === 'virt') return;
  const express = isExpress(domain);
  for (const one of devices.controllers) {
    const fixed = chipsetAddress(domain, one);
    if (!fixed) continue;
    if (wantsPciAddress(one)) {
      one.address = fixed;
      slots.reserve(fixed);
    } else if (!express && one.address?.type === 'pci' && (one.address.slot !== 1 || one.address.function !== fixed.function)) {
      const what = one.type === 'ide' ? 'Primary IDE controller' : 'PIIX3 USB controller at index 0';
      throw xmlError(`${what} must have PCI address 0:0:1.${fixed.function}`);
    }
  }
  if (express) {
    for (const number of [0, 3]) slots.reserve(at(0x1f, number));
    for (const one of devices.sounds) {
      if (one.model !== 'ich9' || !wantsPciAddress(one)) continue;
      if (slots.slotInUse(0, 0x1b)) continue;
      one.address = at(0x1b);
      slots.reserve(one.address);
    }
  } else {
    // PIIX3: function 0 is the ISA bridge, 3 the ACPI controller.
    for (const number of [0, 3]) slots.reserve(at(1, number));
  }
  const [primary] = devices.videos;
  const type = primary?.model?.type;
  if (primary && type !== 'none' && type !== 'ramfb' && wantsPciAddress(primary)) {
    const home = express ? 1 : 2;
    if (!slots.slotInUse(0, home)) {
      primary.address = at(home);
      slots.reserve(primary.address);
    }
  }
}

/** The companions of an ICH9 EHCI controller share its slot, each at its own function. */
function assignUsb2(domain: Domain, one: Controller, slots: PciSlots, needs: number): void {
  const sibling = domain.devices.controllers.find(
    (other) => other !== one && isUsb2(other) && other.index === one.index && !wantsPciAddress(other),
  );
  const number = usb2Functions[one.model!]!;
  if (sibling?.address?.type === 'pci') {
    one.address = { ...sibling.address, function: number };
    delete one.address.multifunction;
    slots.reserve(one.address);
    return;
  }
  const free = slots.assign(needs);
  slots.buses[free.bus]!.slots[free.slot]!.functions = 0;
  one.address = { ...free, function: number };
  slots.reserve(one.address);
}

function takeAll(domain: Domain, slots: PciSlots): void {
  // What the document gives comes first, so that nothing is assigned over it.
  for (const { info, needs } of pciDevices(domain)) {
    if (!wantsPciAddress(info) && info.address?.type === 'pci') slots.reserve(info.address, needs);
  }
  reserveChipset(domain, slots);
}

function assignRest(domain: Domain, slots: PciSlots): void {
  const { controllers } = domain.devices;
  for (const { info, needs } of pciDevices(domain)) {
    if (!wantsPciAddress(info)) continue;
    const usb2 = controllers.find((one) => one === info && isUsb2(one));
    if (usb2) assignUsb2(domain, usb2, slots, needs);
    else info.address = slots.assign(needs);
  }
}

/** The model of each bus: from its controller, or the usual one for the machine where the document has none. */
function busModels(domain: Domain): PciModel[] {
  const models: PciModel[] = [];
  for (const one of domain.devices.controllers) {
    if (one.type !== 'pci') continue;
    const index = one.index ?? 0;
    if (index < 0 || index > 255) throw xmlError(`Invalid value '${index}' for the index of a PCI controller: 0 to 255`);
    models[index] = one.model as PciModel;
  }
  const missing: PciModel = isExpress(domain) ? 'pcie-root-port' : 'pci-bridge';
  return Array.from(models, (model) => model ?? missing);
}

/** A slot with several functions in use: its function 0 says so. */
function markMultifunction(domain: Domain): void {
  const used = [...pciDevices(domain)].flatMap(({ info }) => (info.address?.type === 'pci' ? [info.address] : []));
  for (const one of used) {
    if (one.function !== 0 || one.multifunction !== undefined) continue;
    const shares = (other: PciAddress): boolean => other.bus === one.bus && other.slot === one.slot && other.function !== 0;
    if (used.some(shares)) one.multifunction = 'on';
  }
}

/** The properties of PCI controllers that follow from their index and address. */
function completeControllers(domain: Domain): void {
  const names: Partial<Record<PciModel, string>> = {
    ...{ 'pci-bridge': 'pci-bridge', 'pcie-root-port': 'pcie-root-port', 'pcie-to-pci-bridge': 'pcie-pci-bridge' },
    ...{ 'dmi-to-pci-bridge': 'i82801b11-bridge', 'pcie-switch-upstream-port': 'x3130-upstream' },
    ...{ 'pcie-switch-downstream-port': 'xio3130-downstream', 'pci-expander-bus': 'pxb', 'pcie-expander-bus': 'pxb-pcie' },
  };
  for (const one of domain.devices.controllers) {
    if (one.type !== 'pci' || one.model === 'pci-root' || one.model === 'pcie-root') continue;
    const model = one.model as PciModel;
    const name = names[model];
    if (name !== undefined) one.modelName ??= { name };
    const address = one.address?.type === 'pci' ? one.address : at(0);
    const index = one.index ?? 0;
    if (model === 'pci-bridge') one.target = { chassisNr: index, ...one.target };
    else if (model === 'pcie-root-port') {
      one.target = { chassis: index, port: address.slot * 8 + address.function, ...one.target };
    } else if (model === 'pcie-switch-downstream-port') one.target = { chassis: index, port: address.slot, ...one.target };
  }
}

/**
 * Gives the PCI devices of a running domain that have no address one on the buses that are there.
 * @throws DomainXmlError when there is no room.
 */
export function assignPlugged(domain: Domain): void {
  const slots = new PciSlots(busModels(domain), false);
  takeAll(domain, slots);
  assignRest(domain, slots);
}

/**
 * Gives every PCI device without an address one, and adds the controllers for that.
 * @throws DomainXmlError when addresses collide or there is no room.
 */
export function assignPciAddresses(domain: Domain): void {
  const { controllers } = domain.devices;
  const indexes = controllers.flatMap((one) => (one.type === 'pci' ? [one.index ?? 0] : []));
  const highest = Math.max(-1, ...indexes);
  const slots = new PciSlots(busModels(domain), true);
  const rehearsal = readDomain(domainElement(domain));
  takeAll(rehearsal, slots);
  const express = isExpress(domain);
  if (!express && slots.buses.length > 0) {
    const full = slots.buses.every((bus) => bus.slots.slice(busKinds[bus.model].minSlot).every((slot) => slot.functions !== 0));
    // Room for a bridge, which is itself a device, should one be needed.
    if (!full) slots.assign(connect.pciDevice | connect.hotplug);
  }
  assignRest(rehearsal, slots);
  // A new PCI Express machine gets one port more, for a device that is plugged in later.
  if (highest <= 0 && slots.buses.length > 1 && express) slots.assign(connect.pcieDevice | connect.hotplug);
  slots.buses.forEach((bus, index) => {
    if (index > 0 && !indexes.includes(index)) controllers.push({ type: 'pci', index, model: bus.model });
  });

  const final = new PciSlots(busModels(domain), false);
  takeAll(domain, final);
  assignRest(domain, final);
  markMultifunction(domain);
  completeControllers(domain);
}
