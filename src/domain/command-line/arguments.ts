// The argument list under construction, and the descriptors that go with it.

import { aliasOf } from '../aliases.ts';
import type { Domain } from '../domain.ts';
import type { MachineInfo } from '../emulator.ts';
import { unsupported } from '../errors.ts';
import type { DeviceInfo } from '../model/common.ts';
import type { NetworkInterface } from '../model/interface.ts';

export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json | undefined };
export type JsonObject = { readonly [key: string]: Json | undefined };

/** A descriptor that the daemon opens and the emulator inherits under this number. */
export type InheritedFile =
  | { fd: number; kind: 'listen'; path: string; chardev: string }
  | { fd: number; kind: 'tap'; interface: NetworkInterface }
  | { fd: number; kind: 'vhost-vsock'; alias: string };

export interface CommandLine {
  args: string[];
  /** What `<qemu:env>` adds to the emulator's environment. */
  environment: Record<string, string>;
  files: InheritedFile[];
}

/** `vnc_…` of libvirtd's qemu.conf. */
export interface VncPolicy {
  /** TLS with the certificates of a directory, by QEMU's names; viewers may have to have one of the same authority. */
  readonly tls?: { readonly directory: string; readonly verify: boolean } | undefined;
  /** They say who they are by SASL, whose settings are in this directory; where Cyrus SASL has them for an empty one. */
  readonly sasl?: string | undefined;
  /** A password that all have who have none of their own. */
  readonly password?: string | undefined;
}

export interface CommandLineContext {
  machine: MachineInfo;
  /** The QMP socket on which the daemon will connect. */
  monitorPath: string;
  /** Unix sockets that listen are opened by the daemon and inherited; otherwise the emulator binds their paths. */
  passDescriptors: boolean;
  /** Number of the first inherited descriptor; 3 when absent. */
  firstDescriptor?: number;
  /** File of the key that secrets on the monitor are encrypted with; absent for none. */
  masterKey?: string;
  /** Directory of this guest's files, for file-backed RAM. */
  directory: string;
  /** Seconds since 1970, UTC; for a clock with an adjustment. */
  now: number;
  /** `-cpu` for `host-model`: what the host is called in the emulator's terms; `host` or `max` when absent. */
  hostModel?: string;
  /** Replaces the back-end of an interface, for hosts without taps; `undefined` leaves the usual one. */
  netdev?(device: NetworkInterface): JsonObject | undefined;
  /** Confines the emulator to the files of its command line, this folder, and what it is given. */
  reachable?: string;
  /** A bound on consoles in files, where the emulator has it: bytes of one, and how many are kept beside it. */
  consoles?: { readonly size: number; readonly backups: number };
  /** `-incoming`: `defer` to restore or receive a guest. */
  incoming?: string;
  /** What the daemon's configuration asks of viewers of VNC. */
  vnc?: VncPolicy;
  /** `-loadvm`: the internal snapshot to start from. */
  loadSnapshot?: string;
}

/** Doubles commas, as values in `key=value,…` options need. */
export const escapeCommas = (value: string): string => value.replaceAll(',', ',,');

/** Without the keys whose value is undefined. */
const withoutAbsent = (value: JsonObject): JsonObject =>
  Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined));

/** One emulator's command line; the parts add to it in order. */
export class Arguments {
  readonly args: string[] = [];
  readonly files: InheritedFile[] = [];
  readonly domain: Domain;
  readonly context: CommandLineContext;
  #nextDescriptor: number;

  constructor(domain: Domain, context: CommandLineContext) {
    this.domain = domain;
    this.context = context;
    this.#nextDescriptor = context.firstDescriptor ?? 3;
  }

  add(...words: string[]): void {
    this.args.push(...words);
  }

  json(option: string, value: JsonObject): void {
    this.args.push(option, JSON.stringify(withoutAbsent(value)));
  }

  device(value: JsonObject): void {
    this.json('-device', value);
  }

  object(value: JsonObject): void {
    this.json('-object', value);
  }

  listen(path: string, chardev: string): number {
    const fd = this.#nextDescriptor++;
    this.files.push({ fd, kind: 'listen', path, chardev });
    return fd;
  }

  tap(device: NetworkInterface): number {
    const fd = this.#nextDescriptor++;
    this.files.push({ fd, kind: 'tap', interface: device });
    return fd;
  }

  vhostVsock(alias: string): number {
    const fd = this.#nextDescriptor++;
    this.files.push({ fd, kind: 'vhost-vsock', alias });
    return fd;
  }

  /** The controller of a type by its index. @throws DomainXmlError when there is none. */
  controllerAlias(type: string, index: number): string {
    const found = this.domain.devices.controllers.find((one) => one.type === type && one.index === index && !one.master);
    if (!found) throw unsupported(`${type} controller ${index} does not exist`);
    return aliasOf(found);
  }

  /** Where a device is plugged in, as its properties `bus`, `addr` and the like. */
  place(info: DeviceInfo): JsonObject {
    const { address } = info;
    if (address?.type === 'pci') {
      const slot = `0x${address.slot.toString(16)}`;
      return {
        bus: this.controllerAlias('pci', address.bus),
        multifunction: address.multifunction === undefined ? undefined : address.multifunction === 'on',
        addr: address.function === 0 ? slot : `${slot}.0x${address.function.toString(16)}`,
      };
    }
    if (address?.type === 'usb') return { bus: `${this.controllerAlias('usb', address.bus)}.0`, port: address.port };
    if (address?.type === 'virtio-serial') {
      return { bus: `${this.controllerAlias('virtio-serial', address.controller)}.${address.bus}`, nr: address.port };
    }
    if (address?.type === 'ccid') return { bus: `${this.controllerAlias('ccid', address.controller)}.0` };
    return {};
  }

  /** The option ROM's properties. */
  rom(info: DeviceInfo): JsonObject {
    if (info.rom?.enabled === 'no') return { rombar: 0, romfile: '' };
    return { rombar: info.rom?.bar === undefined ? undefined : Number(info.rom.bar === 'on'), romfile: info.rom?.file };
  }
}

export const onOffValue = (value: 'on' | 'off' | undefined): boolean | undefined =>
  value === undefined ? undefined : value === 'on';

/** The driver's name for a virtio device of the given model: `virtio-net-pci-non-transitional`. */
export function virtioDriverName(base: string, model: string | undefined): string {
  const suffix = model?.startsWith('virtio-') ? model.slice('virtio'.length) : '';
  return `${base}-pci${suffix.endsWith('transitional') ? suffix : ''}`;
}

/** The options that every virtio device has. */
export const virtioProperties = (
  driver: { iommu?: 'on' | 'off'; ats?: 'on' | 'off'; packed?: 'on' | 'off'; pagePerVq?: 'on' | 'off' } = {},
): JsonObject => ({
  iommu_platform: onOffValue(driver.iommu),
  ats: onOffValue(driver.ats),
  packed: onOffValue(driver.packed),
  'page-per-vq': onOffValue(driver.pagePerVq),
});
