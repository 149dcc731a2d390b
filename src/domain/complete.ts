// A document becomes a definition: defaults, default devices and addresses as libvirt 9.0's QEMU driver fills them in.

import { completeCharacters } from './complete-characters.ts';
import { addDefaultDevices, completeDevices } from './complete-devices.ts';
import type { Domain } from './domain.ts';
import { boardOf, type DefineContext, type EmulatorInfo, findMachine, randomMac, randomUuid } from './emulator.ts';
import { DomainXmlError, errorCode, unsupported, xmlError } from './errors.ts';
import { completeVcpus } from './model/vcpus.ts';
import { completeCells } from './numa.ts';
import { assignPciAddresses } from './pci-devices.ts';
import { assignUsbAddresses } from './usb.ts';
import { validateDomain } from './validate.ts';
import { childNamed, newElement } from './xml.ts';

/** Architectures that libvirt knows and QEMU has. */
const architectures: readonly string[] = [
  ...['alpha', 'armv6l', 'armv7l', 'aarch64', 'i686', 'loongarch64', 'm68k', 'mips', 'mipsel', 'mips64', 'mips64el'],
  ...['ppc', 'ppc64', 'ppc64le', 'riscv32', 'riscv64', 's390', 's390x', 'sh4', 'sparc', 'sparc64', 'x86_64', 'xtensa'],
];

function chooseEmulator(domain: Domain, context: DefineContext): EmulatorInfo {
  const { emulators } = context;
  const path = domain.devices.emulator;
  const type = domain.os.type!;
  if (type.arch !== undefined && !architectures.includes(type.arch)) throw unsupported(`Unknown architecture ${type.arch}`);
  const byPath = emulators.find((one) => one.path === path && (type.arch === undefined || one.arch === type.arch));
  const arch = type.arch ?? byPath?.arch ?? context.arch ?? emulators[0]?.arch;
  if (path !== undefined && !byPath && !emulators.some((one) => one.path === path)) {
    throw new DomainXmlError(errorCode.system, `Cannot check QEMU binary ${path}: No such file or directory`);
  }
  const found = byPath ?? emulators.find((one) => one.arch === arch);
  if (!found) throw unsupported(`No emulator found for arch '${arch}'`);
  if (type.name !== 'hvm') throw unsupported(`Emulator '${path ?? found.path}' does not support os type '${type.name}'`);
  domain.devices.emulator ??= found.path;
  type.arch = found.arch;
  return found;
}

function completeMemory(domain: Domain): void {
  const cells = domain.cpu?.numa?.cells ?? [];
  const dimms = domain.devices.memories.reduce((sum, one) => sum + (one.target?.size ?? 0), 0);
  if (cells.length > 0) domain.memory = cells.reduce((sum, one) => sum + Number(one.memory), 0) + dimms;
  if (!domain.memory) {
    throw xmlError('Memory size must be specified via <memory> or in the <numa> configuration');
  }
  if (cells.length > 0 && dimms > 0 && domain.currentMemory === undefined) domain.currentMemory = domain.memory;
  domain.currentMemory = Math.min(domain.currentMemory || domain.memory, domain.memory);
  domain.devices.memories.forEach((one, index) => {
    one.address ??= { type: 'dimm', attributes: { slot: String(index) } };
  });
}

function completeCpu(domain: Domain, emulator: EmulatorInfo): void {
  const cpu = domain.cpu;
  if (!cpu || (cpu.mode === undefined && cpu.model?.name === undefined)) {
    domain.cpu = {
      ...cpu,
      mode: 'custom',
      match: 'exact',
      check: 'none',
      model: { fallback: 'forbid', name: emulator.defaultCpu },
      features: cpu?.features ?? [],
    };
    return;
  }
  if (cpu.mode === 'host-passthrough' || cpu.mode === 'maximum') {
    cpu.check ??= 'none';
    cpu.migratable ??= 'on';
  } else if (cpu.mode === 'host-model') cpu.check ??= 'partial';
  else cpu.check ??= domain.type === 'kvm' ? 'partial' : 'none';
}

/** The boot order of a domain that gives none anywhere: the first disk. */
function completeBoot(domain: Domain): void {
  const { devices, os } = domain;
  const ordered = [...devices.disks, ...devices.interfaces, ...devices.hostdevs, ...devices.redirdevs].some((one) => one.boot);
  if (os.boot.length === 0 && !ordered) os.boot.push({ dev: 'hd' });
}

/** The MAC address, model and port id of an interface that does not say. */
export function completeInterfaces(domain: Domain, context: Pick<DefineContext, 'random'>): void {
  for (const one of domain.devices.interfaces) {
    one.mac ??= { address: randomMac(context.random) };
    if (one.type !== 'hostdev') one.model ??= { type: 'rtl8139' };
    const port = one.virtualport;
    if (port?.attributes['type'] === 'openvswitch' && !childNamed(port, 'parameters')) {
      port.nodes = [newElement('parameters', { interfaceid: randomUuid(context.random) })];
    }
  }
}

/**
 * Makes a definition of a parsed document, in place: what it leaves open is filled in, devices that every machine has are added,
 * addresses are assigned. A definition that is completed already stays as it is.
 * @throws DomainXmlError naming what the domain cannot be.
 */
export function completeDomain(domain: Domain, context: DefineContext): Domain {
  const emulator = chooseEmulator(domain, context);
  const type = domain.os.type!;
  const machine = findMachine(emulator, type.machine);
  if (machine) type.machine = machine.name;
  const board = boardOf(type.machine ?? '');
  domain.uuid ??= randomUuid(context.random);
  completeMemory(domain);
  domain.clock ??= { offset: 'utc', timers: [] };
  completeBoot(domain);
  for (const one of domain.seclabels) if (one.type === 'none') one.model ??= 'none';
  completeVcpus(domain);
  completeCells(domain.cpu?.numa?.cells ?? [], domain.vcpu.count);
  completeCpu(domain, emulator);
  completeDevices(domain);
  addDefaultDevices(domain, board, emulator);
  completeCharacters(domain);
  completeInterfaces(domain, context);
  validateDomain(domain, machine?.maxCpus);
  assignPciAddresses(domain);
  assignUsbAddresses(domain);
  return domain;
}
