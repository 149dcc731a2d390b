// What a completed definition must satisfy, with the messages of libvirt 9.0.
import type { Domain } from './domain.ts';
import { DomainXmlError, errorCode, internalError, unsupported, xmlError } from './errors.ts';
import { type Disk, diskSourceName, hasSource } from './model/disk.ts';
import { cellVcpuEnd } from './numa.ts';

/** As many as a guest could have disks for. */
const maxIothreads = 1024;

/** @throws DomainXmlError for the first thing that is wrong. `maxCpus` is the machine's limit. */
export function validateDomain(domain: Domain, maxCpus?: number): void {
  validateVcpus(domain, maxCpus);
  validateLifecycle(domain);
  for (const one of domain.devices.disks) validateDisk(one);
  validateTargets(domain.devices.disks);
  validateBootOrder(domain);
  validateControllers(domain);
  if ((domain.iothreads ?? 0) > maxIothreads) throw xmlError(`invalid iothreads count '${domain.iothreads}'`);
  if (domain.devices.memballoons.length > 1) throw internalError('only a single memory balloon device is supported');
}

/** Actions that the emulator has no means for. */
export function validateLifecycle({ onPoweroff, onReboot, onCrash }: Domain): void {
  const no = (detail: string) => unsupported(`qemu driver doesn't support ${detail}`);
  if ([onPoweroff, onReboot, onCrash].includes('rename-restart')) {
    throw no("the 'rename-restart' action for 'on_reboot'/'on_poweroff'/'on_crash'");
  }
  if (onPoweroff === 'preserve' || onReboot === 'preserve') throw no("the 'preserve' action for 'on_reboot'/'on_poweroff'");
  if (onReboot === 'destroy' && onPoweroff === 'restart') throw no("'onReboot' set to 'destroy and 'onPoweroff' set to 'reboot'");
}

function validateVcpus(domain: Domain, maxCpus: number | undefined): void {
  const { count, current } = domain.vcpu;
  if (count === 0) throw internalError('CPU IDs in <numa> exceed the <vcpu> count');
  if (current !== undefined && current > count) {
    throw unsupported('maximum vCPU count must not be less than current vCPU count');
  }
  if (current === 0) throw xmlError('current vCPU count must be at least 1');
  if (maxCpus !== undefined && count > maxCpus) {
    throw unsupported(`Maximum CPUs greater than specified machine type limit ${maxCpus}`);
  }
  if (cellVcpuEnd(domain.cpu?.numa?.cells ?? []) > count)
    throw internalError('Number of CPUs in <numa> exceeds the <vcpu> count');
  const topology = domain.cpu?.topology;
  if (topology) {
    const { sockets, dies, cores, threads } = topology;
    if (sockets * dies * cores * threads !== count) throw unsupported("CPU topology doesn't match maximum vcpu count");
  }
}

function validateDisk(one: Disk): void {
  const dev = one.target?.dev;
  if (!dev) {
    const name = diskSourceName(one);
    throw new DomainXmlError(errorCode.noTarget, name === undefined ? '' : ` ${name}`);
  }
  const removable = one.device === 'cdrom' || one.device === 'floppy';
  if (removable && one.target?.bus === 'virtio') throw unsupported(`disk type of '${dev}' does not support ejectable media`);
  if (!removable && !hasSource(one)) throw new DomainXmlError(errorCode.noSource, dev);
  if (one.device === 'floppy' && one.target?.bus !== 'fdc')
    throw xmlError(`Invalid bus type '${one.target?.bus}' for floppy disk`);
  if (one.device !== 'floppy' && one.target?.bus === 'fdc') throw xmlError("Invalid bus type 'fdc' for disk");
  if ((one.vendor ?? one.product) !== undefined && one.target?.bus !== 'scsi') {
    throw unsupported('Only scsi disk supports vendor and product');
  }
  if (one.geometry?.trans !== undefined && one.target?.bus !== 'ide') {
    throw unsupported(`CHS translation mode can only be set for 'ide' bus not '${one.target?.bus}'`);
  }
}

function validateTargets(disks: readonly Disk[]): void {
  const seen = new Map<string, Disk>();
  for (const one of disks) {
    const dev = one.target!.dev!;
    const other = seen.get(dev);
    if (other) {
      const names = [other, one].map((disk) => `'${diskSourceName(disk) ?? '(null)'}'`);
      throw xmlError(`target '${dev}' duplicated for disk sources ${names.join(' and ')}`);
    }
    seen.set(dev, one);
  }
}

function validateBootOrder(domain: Domain): void {
  const { disks, interfaces, hostdevs, redirdevs } = domain.devices;
  const seen = new Set<number>();
  for (const { boot } of [...disks, ...interfaces, ...hostdevs, ...redirdevs]) {
    if (boot?.order === undefined) continue;
    if (seen.has(boot.order)) throw unsupported(`boot order '${boot.order}' used for more than one device`);
    seen.add(boot.order);
  }
  if (seen.size > 0 && domain.os.boot.length > 0) {
    throw unsupported('per-device boot elements cannot be used together with os/boot elements');
  }
}

function validateControllers(domain: Domain): void {
  const { controllers } = domain.devices;
  if (controllers.some((one) => one.type === 'ide' && (one.index ?? 0) > 0)) {
    throw internalError('Only 1 IDE controller is supported');
  }
  if (controllers.some((one) => one.type === 'fdc' && (one.index ?? 0) > 0)) {
    throw internalError('Only 1 fdc controller is supported');
  }
  for (const one of controllers) {
    if (one.model?.endsWith('xhci') && (one.ports ?? 1) > 15) {
      throw unsupported(`'${one.model}' controller only supports up to '15' ports`);
    }
  }
  const seen = new Set<string>();
  for (const one of controllers) {
    // USB companions share their index by design; two whole controllers collide on their address.
    if (one.type === 'usb') continue;
    const key = `${one.type} ${one.index}`;
    if (seen.has(key)) throw xmlError(`Multiple '${one.type}' controllers with index '${one.index}'`);
    seen.add(key);
  }
}
