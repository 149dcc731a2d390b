// Plugging a device into a running guest: the QMP commands that do what the command line does at start (libvirt 9.0's sequences, QEMU 7.2's QMP).
import { aliasOf } from '../aliases.ts';
import type { Device } from '../device.ts';
import { type Devices, type Domain, devices } from '../domain.ts';
import { unsupported } from '../errors.ts';
import { newElement } from '../xml.ts';
import { Arguments, type CommandLineContext, type InheritedFile } from './arguments.ts';
import { addControllers, addFilesystems, addHostDevices, addInterface, addRandom, addWatchdogs } from './devices.ts';
import { addInputs } from './display.ts';
import { addModules } from './machine.ts';
import { addDisks } from './storage.ts';

/** A QMP command; `arguments` is JSON text, because it may hold a 64-bit number. */
export interface QmpStep {
  command: 'blockdev-add' | 'netdev_add' | 'object-add' | 'device_add';
  arguments: string;
  /** What takes it back, after the device is gone or when a later step fails. */
  undo?: { command: 'blockdev-del' | 'netdev_del' | 'object-del'; arguments: Record<string, string> };
}

export interface PlugPlan {
  steps: QmpStep[];
  /** The id for `device_del`. */
  id: string;
  /** Descriptors that the steps name; they go over the monitor with `getfd` under their number as name. */
  files: InheritedFile[];
}

/** Drives have two block nodes or more; the last that was added goes first. */
function step(option: string, text: string): QmpStep {
  const value = JSON.parse(text) as Record<string, string>;
  switch (option) {
    case '-blockdev': {
      const name = value['node-name'] ?? '';
      return { command: 'blockdev-add', arguments: text, undo: { command: 'blockdev-del', arguments: { 'node-name': name } } };
    }
    case '-netdev':
      return { command: 'netdev_add', arguments: text, undo: { command: 'netdev_del', arguments: { id: value['id'] ?? '' } } };
    case '-object':
      return { command: 'object-add', arguments: text, undo: { command: 'object-del', arguments: { id: value['id'] ?? '' } } };
    case '-device':
      return { command: 'device_add', arguments: text };
    default:
      throw unsupported(`a device that needs ${option} cannot be plugged in`);
  }
}

function add(to: Arguments, device: Device): void {
  switch (device.element) {
    case 'disk':
      return addDisks(to, () => device.value.boot?.order);
    case 'interface':
      return addInterface(to, device.value, device.value.boot?.order);
    case 'controller':
      return addControllers(to);
    case 'filesystem':
      return addFilesystems(to);
    case 'hostdev':
      return addHostDevices(to);
    case 'rng':
      return addRandom(to);
    case 'input':
      return addInputs(to);
    case 'watchdog':
      return addWatchdogs(to);
    case 'memory':
      return addModules(to);
    default:
      throw unsupported(`live attach of device '${device.element}' is not supported`);
  }
}

/**
 * The commands that plug in a device which `attachDevice` has placed in the running `domain`.
 * Disks need a free number for their block nodes in `source.index` (and in each backing store).
 * @throws DomainXmlError for a device that cannot be plugged in.
 */
export function plugPlan(domain: Domain, device: Device, context: CommandLineContext): PlugPlan {
  const { controllers } = domain.devices;
  const list: Partial<Record<Device['element'], keyof Devices>> = {
    ...{ disk: 'disks', interface: 'interfaces', filesystem: 'filesystems', hostdev: 'hostdevs', rng: 'rngs' },
    ...{ input: 'inputs', watchdog: 'watchdogs', memory: 'memories' },
  };
  const name = list[device.element];
  const alone: Devices = {
    ...devices.parse(newElement('devices')),
    controllers,
    ...(name !== undefined && { [name]: [device.value] }),
  };
  const to = new Arguments({ ...domain, devices: alone }, context);
  add(to, device);
  const id = aliasOf('alias' in device.value ? device.value : {});
  const steps: QmpStep[] = [];
  for (let at = 0; at < to.args.length; at += 2) {
    const [option, text] = [to.args[at]!, to.args[at + 1]!];
    // The watchdog's action is the machine's, not the device's.
    if (option === '-watchdog-action') continue;
    const next = step(option, text);
    const other = device.element === 'controller' && (JSON.parse(text) as { id?: string }).id !== id;
    if (!other) steps.push(next);
  }
  return { steps, id, files: to.files };
}

/** The highest number in the domain's block nodes; the next disk takes the one after it. */
export function highestNodeIndex(domain: Domain): number {
  let highest = 0;
  for (const disk of domain.devices.disks) {
    highest = Math.max(highest, disk.source?.index ?? 0);
    for (let store = disk.backingStore; store; store = store.backingStore) highest = Math.max(highest, store.index ?? 0);
  }
  return highest;
}
