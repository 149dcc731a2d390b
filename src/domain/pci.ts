// PCI addresses of a domain's devices, assigned as libvirt 9.0 does: a dry run finds how many buses are needed, a second one assigns (formatdomain "PCI addresses").
import { internalError, xmlError } from './errors.ts';
import type { PciAddress } from './model/common.ts';
import type { PciModel } from './model/controller.ts';

/** What a device needs of a slot, and what a bus offers; a device fits where all that it needs is offered. */
export const connect = {
  pciDevice: 1,
  pcieDevice: 2,
  rootPort: 4,
  pciBridge: 8,
  dmiBridge: 16,
  pcieBridge: 32,
  switchUpstream: 64,
  switchDownstream: 128,
  pciExpander: 256,
  pcieExpander: 512,
  hotplug: 1024,
} as const;

interface BusKind {
  /** What can be plugged into it. */
  offers: number;
  /** What it needs itself; 0 for the roots. */
  needs: number;
  minSlot: number;
  maxSlot: number;
}

const { pciDevice, pcieDevice, hotplug } = connect;
const pciExpanders = connect.pciExpander | connect.pciBridge;

export const busKinds: Readonly<Record<PciModel, BusKind>> = {
  'pci-root': { offers: pciDevice | pciExpanders | hotplug, needs: 0, minSlot: 1, maxSlot: 31 },
  'pci-bridge': { offers: pciDevice | connect.pciBridge | hotplug, needs: connect.pciBridge, minSlot: 1, maxSlot: 31 },
  'pci-expander-bus': { offers: pciDevice | connect.pciBridge, needs: connect.pciExpander, minSlot: 0, maxSlot: 31 },
  'pcie-root': {
    offers: pcieDevice | connect.rootPort | connect.dmiBridge | connect.pcieExpander,
    needs: 0,
    minSlot: 1,
    maxSlot: 31,
  },
  'dmi-to-pci-bridge': { offers: pciDevice | connect.pciBridge, needs: connect.dmiBridge, minSlot: 0, maxSlot: 31 },
  'pcie-to-pci-bridge': {
    offers: pciDevice | connect.pciBridge | hotplug,
    needs: connect.pcieBridge,
    minSlot: 1,
    maxSlot: 31,
  },
  'pcie-root-port': {
    offers: pcieDevice | connect.switchUpstream | connect.pcieBridge | hotplug,
    needs: connect.rootPort,
    minSlot: 0,
    maxSlot: 0,
  },
  'pcie-switch-upstream-port': { offers: connect.switchDownstream, needs: connect.switchUpstream, minSlot: 0, maxSlot: 31 },
  'pcie-switch-downstream-port': {
    offers: pcieDevice | connect.switchUpstream | connect.pcieBridge | hotplug,
    needs: connect.switchDownstream,
    minSlot: 0,
    maxSlot: 0,
  },
  'pcie-expander-bus': { offers: connect.rootPort | connect.dmiBridge, needs: connect.pcieExpander, minSlot: 0, maxSlot: 0 },
};

/** Ports of a root complex share a slot, eight to each. */
const sharesSlot = (needs: number): boolean => (needs & (connect.rootPort | connect.switchDownstream)) !== 0;

interface Slot {
  /** One bit for each function in use. */
  functions: number;
  /** Taken by ports that share it, so that more may follow. */
  shared: boolean;
}
interface Bus {
  model: PciModel;
  slots: Slot[];
}

const digits = (value: number, width: number): string => value.toString(16).padStart(width, '0');

/** `0000:00:1f.2`. */
export const pciName = (address: Omit<PciAddress, 'type'>): string =>
  `${digits(address.domain, 4)}:${digits(address.bus, 2)}:${digits(address.slot, 2)}.${address.function}`;

/** The buses of one domain and which of their addresses are in use. */
export class PciSlots {
  readonly buses: Bus[] = [];
  readonly #grow: boolean;

  /** With `grow`, buses are added when there is no room; otherwise that is an error. */
  constructor(models: readonly PciModel[], grow: boolean) {
    for (const model of models) this.#add(model);
    this.#grow = grow;
  }

  #add(model: PciModel): void {
    this.buses.push({ model, slots: Array.from({ length: 32 }, () => ({ functions: 0, shared: false })) });
  }

  slotInUse(bus: number, slot: number): boolean {
    return (this.buses[bus]?.slots[slot]?.functions ?? 0) !== 0;
  }

  /** Takes an address that the document gives or that the chipset fixes. @throws DomainXmlError when it is taken or not there. */
  reserve(address: PciAddress, needs = pciDevice | pcieDevice): void {
    const express = this.buses[0]?.model === 'pcie-root';
    while (this.#grow && address.bus >= this.buses.length) this.#add(express ? 'pcie-root-port' : 'pci-bridge');
    const bus = this.buses[address.bus];
    if (!bus) throw xmlError(this.buses.length === 0 ? 'No PCI buses available' : `Invalid PCI address ${pciName(address)}.`);
    const { minSlot, maxSlot } = busKinds[bus.model];
    if (address.slot < minSlot) {
      throw xmlError(`Invalid PCI address ${pciName(address)}. slot must be >= ${minSlot}`);
    }
    if (address.slot > maxSlot) {
      throw xmlError(`Invalid PCI address ${pciName(address)}. slot must be <= ${maxSlot}`);
    }
    const slot = bus.slots[address.slot]!;
    if (slot.functions & (1 << address.function)) {
      throw xmlError(`Attempted double use of PCI Address ${pciName(address)}`);
    }
    if (slot.functions === 0) slot.shared = sharesSlot(needs);
    slot.functions |= 1 << address.function;
  }

  /** Takes the first free address on a bus that offers all of `needs`. @throws DomainXmlError when there is none. */
  assign(needs: number): PciAddress {
    if (this.buses.length === 0) throw xmlError('No PCI buses available');
    for (;;) {
      const found = this.#find(needs);
      if (found) {
        this.reserve(found, needs);
        return found;
      }
      if (!this.#grow) throw internalError('No more available PCI slots');
      this.#growFor(needs);
    }
  }

  #find(needs: number): PciAddress | undefined {
    for (const [index, bus] of this.buses.entries()) {
      const { offers, minSlot, maxSlot } = busKinds[bus.model];
      if ((offers & needs) !== needs) continue;
      for (let slot = minSlot; slot <= maxSlot; slot++) {
        const { functions, shared } = bus.slots[slot]!;
        const last = sharesSlot(needs) && shared ? 8 : 1;
        for (let number = 0; number < last; number++) {
          if (!(functions & (1 << number)) && (number > 0 || functions === 0)) {
            return { type: 'pci', domain: 0, bus: index, slot, function: number };
          }
        }
      }
    }
    return undefined;
  }

  #growFor(needs: number): void {
    if (this.buses.length > 255) throw xmlError('Too many PCI buses: 256 is the most');
    const express = this.buses[0]!.model === 'pcie-root';
    if (!express && needs & (pciDevice | connect.pciBridge)) {
      this.#add('pci-bridge');
      // The first bridge has its room on the root bus; the next ones stand on the bus before.
      if (this.buses.length > 2) this.buses.at(-1)!.slots[1]!.functions = 1;
    } else if (express && needs & pciDevice) {
      // The bridge stands on a port of its own, which is taken at once so that no device gets it.
      this.#add('pcie-root-port');
      this.reserve({ type: 'pci', domain: 0, bus: this.buses.length - 1, slot: 0, function: 0 }, connect.pcieBridge);
      this.#add('pcie-to-pci-bridge');
    } else if (express && needs & (pcieDevice | connect.switchUpstream | connect.pcieBridge)) this.#add('pcie-root-port');
    else throw xmlError('a PCI slot is needed to connect a PCI controller, but none is available, and it cannot be added');
  }
}
