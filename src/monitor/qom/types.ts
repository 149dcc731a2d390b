// QEMU's object model as far as it is seen from outside: types with their parents and properties, made from our own tables of devices,
// machines, CPU models and objects. QEMU 7.2 "QEMU QMP Reference Manual", qapi/qom.json.

import { cpuFeatures, cpuModels } from '../../isa/x86/cpu-model.ts';
import { machineTypes } from '../../machine/machine-types.ts';
import { CPU_SUFFIX } from '../../machine/types/cpu.ts';
import { objectTypes } from './objects.ts';

export interface PropertyInfo {
  readonly name: string;
  /** QOM's name of its type: `bool`, `uint32`, `str`. */
  readonly type: string;
  readonly description?: string | undefined;
  readonly 'default-value'?: unknown;
}
export interface TypeInfo {
  readonly name: string;
  readonly parent?: string | undefined;
  readonly abstract?: boolean;
  readonly properties: readonly PropertyInfo[];
}

const abstract = (name: string, parent?: string, properties: readonly PropertyInfo[] = []): TypeInfo => ({
  name,
  parent,
  abstract: true,
  properties,
});

const property = (name: string, type: string, description?: string): PropertyInfo => ({ name, type, description });

/** What `-machine` takes besides the type; the booleans are what `qom-list-properties` is asked for. */
export const machineProperties: readonly PropertyInfo[] = [
  property('type', 'string'),
  property('accel', 'string'),
  property('kernel', 'string', 'Linux kernel image file'),
  property('initrd', 'string', 'Linux initial ramdisk file'),
  property('append', 'string', 'Linux kernel command line'),
  property('firmware', 'string', 'Firmware image'),
  property('memory-backend', 'string', 'Set RAM backend; valid value is ID of hostmem based backend'),
  property('smp', 'SMPConfiguration', 'CPU topology'),
  property('boot', 'BootConfiguration', 'Boot configuration'),
  property('memory', 'MemorySizeConfiguration', 'Memory size configuration'),
  property('graphics', 'bool', 'Set on/off to enable/disable graphics emulation'),
  property('usb', 'bool', 'Set on/off to enable/disable usb'),
  property('dump-guest-core', 'bool', 'Include guest memory in a core dump'),
  property('mem-merge', 'bool', 'Enable/disable memory merge support'),
];
const pcProperties: readonly PropertyInfo[] = [
  property('hpet', 'bool'),
  property('acpi', 'OnOffAuto', 'Enable ACPI'),
  property('smm', 'OnOffAuto', 'Enable SMM'),
  property('vmport', 'OnOffAuto', 'Enable vmport'),
];

const microvmProperties: readonly PropertyInfo[] = [
  property('pic', 'OnOffAuto', 'Enable i8259 PIC'),
  property('pit', 'OnOffAuto', 'Enable i8254 PIT'),
  property('rtc', 'OnOffAuto', 'Enable MC146818 RTC'),
  property('pcie', 'OnOffAuto', 'Enable PCIe'),
  property('ioapic2', 'OnOffAuto', 'Enable second IO-APIC'),
  property('isa-serial', 'bool', 'Set off to disable the instantiation an ISA serial port'),
  property('x-option-roms', 'bool', 'Set off to disable loading option ROMs'),
  property('auto-kernel-cmdline', 'bool', 'Set off to disable adding virtio-mmio devices to the kernel cmdline'),
];

/** Ancestors that devices name, nearest to the root first. */
const bases: readonly TypeInfo[] = [
  abstract('object', undefined, [property('type', 'string')]),
  abstract('device', 'object', [
    property('realized', 'bool'),
    property('hotplugged', 'bool'),
    property('hotpluggable', 'bool'),
    property('parent_bus', 'link<bus>'),
  ]),
  abstract('bus', 'object'),
  abstract('machine', 'object', machineProperties),
  abstract('x86-machine', 'machine', pcProperties),
  abstract('generic-pc-machine', 'x86-machine'),
  abstract('cpu', 'device'),
  abstract(
    'x86_64-cpu',
    'cpu',
    cpuFeatures.map((name) => property(name, 'bool')),
  ),
  abstract('accel', 'object'),
  abstract('sys-bus-device', 'device'),
  abstract('pci-device', 'device'),
  abstract('memory-backend', 'object'),
  abstract('rng-backend', 'object'),
  abstract('secret_common', 'object'),
  abstract('tls-creds', 'object'),
  { name: 'container', parent: 'object', properties: [] },
  { name: 'irq', parent: 'object', properties: [] },
  { name: 'memory-region', parent: 'object', properties: [] },
];

/** What a device type tells of itself. */
export interface DeviceInfo {
  readonly name: string;
  /** Ancestors, nearest first. */
  readonly parents: readonly string[];
  readonly properties: readonly PropertyInfo[];
}

export { CPU_SUFFIX };

/** All types of one emulator. */
export class TypeTable {
  readonly #types = new Map<string, TypeInfo>();
  readonly #devices = new Set<string>();

  /** `accels`: what this process can use. */
  constructor(accels: readonly string[], devices: readonly DeviceInfo[]) {
    const add = (type: TypeInfo): void => {
      if (!this.#types.has(type.name)) this.#types.set(type.name, type);
    };
    bases.forEach(add);
    for (const m of machineTypes)
      add({
        name: `${m.name}-machine`,
        parent: m.board === 'none' ? 'machine' : m.board === 'microvm' ? 'x86-machine' : 'generic-pc-machine',
        properties: m.board === 'microvm' ? microvmProperties : [],
      });
    for (const model of cpuModels) add({ name: `${model}${CPU_SUFFIX}`, parent: 'x86_64-cpu', properties: [] });
    for (const accel of accels) add({ name: `${accel}-accel`, parent: 'accel', properties: [] });
    for (const [name, o] of Object.entries(objectTypes)) add({ name, parent: o.parent, properties: o.properties });
    for (const device of devices) {
      const line = [...device.parents, 'device'];
      line.forEach((parent, n) => {
        if (parent !== 'device') add(abstract(parent, line[n + 1]));
      });
      add({ name: device.name, parent: line[0], properties: device.properties });
      this.#devices.add(device.name);
    }
  }
  list(): readonly TypeInfo[] {
    return [...this.#types.values()];
  }
  find(name: string): TypeInfo | undefined {
    return this.#types.get(name);
  }
  isDevice(name: string): boolean {
    return this.#devices.has(name) || name.endsWith(CPU_SUFFIX);
  }
  /** Whether `name` is `ancestor` or descends from it. */
  is(name: string, ancestor: string): boolean {
    for (let at: string | undefined = name; at !== undefined; at = this.#types.get(at)?.parent) if (at === ancestor) return true;
    return false;
  }
  /** A type's own properties and those of its ancestors. */
  properties(name: string): readonly PropertyInfo[] {
    const all = new Map<string, PropertyInfo>();
    for (let at = this.#types.get(name); at; at = at.parent === undefined ? undefined : this.#types.get(at.parent))
      for (const p of at.properties) if (!all.has(p.name)) all.set(p.name, p);
    return [...all.values()];
  }
}
