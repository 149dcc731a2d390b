import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { formatCapabilities, type GuestInfo, type HostInfo } from './capabilities.ts';
import { type CpuModel, type Enums, formatDomainCapabilities } from './domain-capabilities.ts';
import { formatNodeDevice, type NodeCapability, type NodeDevice } from './node-device.ts';
import { childNamed, elementsOf, parseXml, textOf, type XmlElement } from './xml.ts';

const folder = new URL('golden/other/', import.meta.url);
const recorded = (name: string): string => `${readFileSync(new URL(name, folder), 'utf8').trimEnd()}\n`;

/** Below, the facts of a recorded document are read out of it, and the printer has to make the document of them again. */
const at = (tree: XmlElement, ...path: string[]): XmlElement => {
  const found = path.reduce<XmlElement | undefined>((one, name) => one && childNamed(one, name), tree);
  assert.ok(found, path.join('/'));
  return found;
};
const all = (tree: XmlElement, name: string): XmlElement[] => elementsOf(tree).filter((one) => one.name === name);
const textAt = (tree: XmlElement, ...path: string[]): string => textOf(at(tree, ...path));
const optional = (tree: XmlElement, name: string): string | undefined => {
  const found = childNamed(tree, name);
  return found && textOf(found);
};
const numbers = (tree: XmlElement): Record<string, number> =>
  Object.fromEntries(Object.entries(tree.attributes).map(([key, value]) => [key, Number(value)]));

function hostOf(tree: XmlElement): HostInfo {
  const cpu = at(tree, 'cpu');
  const counter = at(cpu, 'counter').attributes;
  const signature = numbers(at(cpu, 'signature'));
  const topology = numbers(at(cpu, 'topology'));
  return {
    uuid: textAt(tree, 'uuid'),
    cpu: {
      arch: textAt(cpu, 'arch'),
      model: textAt(cpu, 'model'),
      vendor: textAt(cpu, 'vendor'),
      microcode: Number(at(cpu, 'microcode').attributes['version']),
      signature: { family: signature['family']!, model: signature['model']!, stepping: signature['stepping']! },
      tsc: { frequency: Number(counter['frequency']), scaling: counter['scaling'] === 'yes' },
      topology: {
        sockets: topology['sockets']!,
        dies: topology['dies']!,
        cores: topology['cores']!,
        threads: topology['threads']!,
      },
      physicalAddressBits: Number(at(cpu, 'maxphysaddr').attributes['bits']),
      features: all(cpu, 'feature').map((one) => one.attributes['name']!),
      pageSizes: all(cpu, 'pages').map((one) => Number(one.attributes['size'])),
    },
    powerManagement: elementsOf(at(tree, 'power_management')).map((one) => one.name),
    iommu: at(tree, 'iommu').attributes['support'] === 'yes',
    migrationTransports: elementsOf(at(tree, 'migration_features', 'uri_transports')).map(textOf),
    cells: elementsOf(at(tree, 'topology', 'cells')).map((cell) => ({
      id: Number(cell.attributes['id']),
      memory: Number(textAt(cell, 'memory')),
      pages: all(cell, 'pages').map((one) => ({ size: Number(one.attributes['size']), count: Number(textOf(one)) })),
      distances: elementsOf(at(cell, 'distances')).map((one) => ({
        id: Number(one.attributes['id']),
        value: Number(one.attributes['value']),
      })),
      cpus: elementsOf(at(cell, 'cpus')).map(({ attributes }) => ({
        id: Number(attributes['id']),
        socket: Number(attributes['socket_id']),
        die: Number(attributes['die_id']),
        core: Number(attributes['core_id']),
        siblings: attributes['siblings']!,
      })),
    })),
    caches: elementsOf(at(tree, 'cache')).map(({ attributes }) => ({
      id: Number(attributes['id']),
      level: Number(attributes['level']),
      type: attributes['type']!,
      size: Number(attributes['size']) * { KiB: 1, MiB: 1024, GiB: 1024 * 1024 }[attributes['unit']!]!,
      cpus: attributes['cpus']!,
    })),
    securityModels: all(tree, 'secmodel').map((one) => ({
      model: textAt(one, 'model'),
      doi: textAt(one, 'doi'),
      labels: all(one, 'baselabel').map((label) => ({ type: label.attributes['type']!, label: textOf(label) })),
    })),
  };
}

function guestOf(tree: XmlElement): GuestInfo {
  const arch = at(tree, 'arch');
  const machines = all(arch, 'machine');
  const named = machines.filter((one) => one.attributes['canonical'] === undefined);
  return {
    emulator: {
      path: textAt(arch, 'emulator'),
      arch: arch.attributes['name']!,
      machines: named.map((one) => {
        const alias = machines.find((other) => other.attributes['canonical'] === textOf(one));
        return {
          name: textOf(one),
          maxCpus: Number(one.attributes['maxCpus']),
          ...(alias && { alias: textOf(alias) }),
          ...(one.attributes['deprecated'] === 'yes' && { deprecated: true }),
        };
      }),
      defaultCpu: 'qemu64',
      defaultVideo: 'cirrus',
    },
    wordSize: textAt(arch, 'wordsize') === '32' ? 32 : 64,
    domainTypes: all(arch, 'domain').map((one) => (one.attributes['type'] === 'kvm' ? 'kvm' : 'qemu')),
    pae: childNamed(at(tree, 'features'), 'pae') !== undefined,
    acpi: childNamed(at(tree, 'features'), 'acpi') !== undefined,
  };
}

const enumsOf = (tree: XmlElement): Enums =>
  Object.fromEntries(all(tree, 'enum').map((one) => [one.attributes['name']!, elementsOf(one).map(textOf)]));

const isSupported = (tree: XmlElement): boolean => tree.attributes['supported'] === 'yes';

function modelsOf(custom: XmlElement): CpuModel[] {
  return all(custom, 'model').map((one) => {
    const name = textOf(one);
    const blockers = all(custom, 'blockers').find((other) => other.attributes['model'] === name);
    return {
      name,
      usable: one.attributes['usable'] as CpuModel['usable'],
      ...(one.attributes['vendor'] !== undefined && { vendor: one.attributes['vendor'] }),
      ...(one.attributes['deprecated'] === 'yes' && { deprecated: true }),
      ...(blockers && { blockers: elementsOf(blockers).map((feature) => feature.attributes['name']!) }),
    };
  });
}

describe('capabilities', () => {
  test('of the recording host are printed as libvirt prints them', () => {
    const want = recorded('capabilities.xml');
    const tree = parseXml(want);
    const guests = all(tree, 'guest').map(guestOf);
    assert.equal(formatCapabilities(hostOf(at(tree, 'host')), guests), want);
  });

  for (const name of ['domcaps-tcg.xml', 'domcaps-q35.xml']) {
    test(`of a domain in ${name} are printed as libvirt prints them`, () => {
      const want = recorded(name);
      const tree = parseXml(want);
      const [passthrough, maximum, hostModel, custom] = elementsOf(at(tree, 'cpu'));
      assert.ok(passthrough && maximum && hostModel && custom);
      assert.equal(isSupported(passthrough), false);
      const loader = at(tree, 'os', 'loader');
      const model = at(hostModel, 'model');
      const vendor = optional(hostModel, 'vendor');
      const printed = formatDomainCapabilities({
        emulator: textAt(tree, 'path'),
        domainType: 'qemu',
        machine: textAt(tree, 'machine'),
        arch: textAt(tree, 'arch'),
        maxVcpus: Number(at(tree, 'vcpu').attributes['max']),
        iothreads: true,
        firmware: {
          kinds: enumsOf(at(tree, 'os'))['firmware']!,
          loaders: all(loader, 'value').map(textOf),
          enums: enumsOf(loader),
        },
        cpu: {
          maximum: enumsOf(maximum)['maximumMigratable']!,
          hostModel: {
            model: textOf(model),
            fallback: model.attributes['fallback'] === 'allow' ? 'allow' : 'forbid',
            ...(vendor !== undefined && { vendor }),
            features: all(hostModel, 'feature').map(({ attributes }) => ({
              policy: attributes['policy']!,
              name: attributes['name']!,
            })),
          },
          custom: modelsOf(custom),
        },
        memoryBacking: enumsOf(at(tree, 'memoryBacking')),
        devices: Object.fromEntries(elementsOf(at(tree, 'devices')).map((one) => [one.name, enumsOf(one)])),
        features: Object.fromEntries(
          elementsOf(at(tree, 'features')).map((one) => [one.name, one.nodes.length > 0 ? enumsOf(one) : isSupported(one)]),
        ),
      });
      assert.equal(printed, want);
    });
  }
});

function capabilityOf(tree: XmlElement): NodeCapability {
  const number = (name: string): number => Number(textAt(tree, name));
  const identified = (name: string) => {
    const one = at(tree, name);
    return { id: Number(one.attributes['id']), ...(textOf(one) !== '' && { name: textOf(one) }) };
  };
  switch (tree.attributes['type']) {
    case 'system':
      return { type: 'system', hardware: { uuid: textAt(tree, 'hardware', 'uuid') }, firmware: {} };
    case 'net': {
      const link = at(tree, 'link').attributes;
      return {
        type: 'net',
        interface: textAt(tree, 'interface'),
        address: textAt(tree, 'address'),
        link: { speed: Number(link['speed']), state: link['state'] === 'up' ? 'up' : 'down' },
        features: all(tree, 'feature').map((one) => one.attributes['name']!),
        subtype: at(tree, 'capability').attributes['type']!,
      };
    }
    case 'storage':
      return {
        type: 'storage',
        block: textAt(tree, 'block'),
        driveType: textAt(tree, 'drive_type'),
        vendor: textAt(tree, 'vendor'),
        size: number('size'),
        logicalBlockSize: number('logical_block_size'),
        blocks: number('num_blocks'),
      };
    case 'pci':
      return {
        type: 'pci',
        class: number('class'),
        domain: number('domain'),
        bus: number('bus'),
        slot: number('slot'),
        function: number('function'),
        product: identified('product'),
        vendor: identified('vendor'),
        express: childNamed(tree, 'pci-express') !== undefined,
      };
    default:
      throw new Error(`Cannot read a capability: ${tree.attributes['type']}`);
  }
}

describe('a device of the host', () => {
  for (const file of readdirSync(folder)) {
    if (!file.startsWith('node-')) continue;
    test(`in ${file} is printed as libvirt prints it`, () => {
      const want = recorded(file);
      const tree = parseXml(want);
      const [path, parent] = [optional(tree, 'path'), optional(tree, 'parent')];
      const device: NodeDevice = {
        name: textAt(tree, 'name'),
        ...(path !== undefined && { path }),
        devnodes: all(tree, 'devnode').map((one) => ({ type: 'dev', path: textOf(one) })),
        ...(parent !== undefined && { parent }),
        capability: capabilityOf(at(tree, 'capability')),
      };
      assert.equal(formatNodeDevice(device), want);
    });
  }
});
