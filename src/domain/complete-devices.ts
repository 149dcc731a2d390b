// Default devices of a machine, default models, and the addresses that follow from a disk's target name (libvirt 9.0).
import type { Domain } from './domain.ts';
import type { Board, EmulatorInfo } from './emulator.ts';
import { xmlError } from './errors.ts';
import type { Controller, ControllerType } from './model/controller.ts';
import { type Disk, diskIndex } from './model/disk.ts';
import { normalisePorts, type Video } from './model/display.ts';

/** Disks of one bus stand together in the order of their names, buses in the order of their first disk. */
export function sortDisks(disks: Disk[]): Disk[] {
  const sorted: Disk[] = [];
  const place = (one: Disk): number => diskIndex(one.target?.dev ?? '') ?? -1;
  for (const one of disks) {
    const same = sorted.flatMap((other, index) => (other.target?.bus === one.target?.bus ? [index] : []));
    const before = same.find((index) => place(sorted[index]!) > place(one));
    sorted.splice(before ?? (same.at(-1) ?? sorted.length - 1) + 1, 0, one);
  }
  return sorted;
}

/** Controllers of one type stand together by index, the master of a USB group before its companions. */
function sortControllers(controllers: Controller[]): Controller[] {
  const sorted: Controller[] = [];
  for (const one of controllers) {
    const same = sorted.flatMap((other, index) => (other.type === one.type ? [index] : []));
    const after = (other: Controller): boolean => {
      const [mine, theirs] = [one.index ?? -1, other.index ?? -1];
      return theirs > mine || (theirs === mine && !one.master && other.master !== undefined);
    };
    const before = same.find((index) => after(sorted[index]!));
    sorted.splice(before ?? (same.at(-1) ?? sorted.length - 1) + 1, 0, one);
  }
  return sorted;
}

const busOfPrefix: Readonly<Record<string, NonNullable<NonNullable<Disk['target']>['bus']>>> = {
  ...{ hd: 'ide', sd: 'scsi', vd: 'virtio', fd: 'fdc', xv: 'xen' },
};

/** The properties of disks, inputs, graphics and videos that the document may leave open; sorts disks and controllers. */
export function completeDevices(domain: Domain): void {
  const { devices } = domain;
  for (const one of devices.disks) completeDisk(one);
  devices.disks = sortDisks(devices.disks);
  assignDriveAddresses(domain);
  devices.controllers = sortControllers(devices.controllers);
  for (const one of devices.controllers) {
    const group = one.master && devices.controllers.find((other) => other.type === one.type && !other.master);
    one.index ??= group?.index ?? freeIndex(devices.controllers, one.type);
  }
  for (const one of devices.graphics) normalisePorts(one);
  for (const one of devices.filesystems) if (one.driver?.type !== 'virtiofs') one.accessmode ??= 'passthrough';
  for (const one of devices.vsocks) {
    one.model ??= 'virtio';
    one.cid ??= { auto: 'yes' };
  }
  for (const one of devices.tpms) one.model ??= 'tpm-tis';
  for (const one of devices.panics) if (one.model === undefined || one.model === 'default') one.model = 'isa';
}

function completeDisk(one: Disk): void {
  const dev = one.target?.dev;
  one.driver ??= {};
  one.driver.name ??= 'qemu';
  one.driver.type ??= 'raw';
  if (one.device === 'cdrom') one.readonly = true;
  if (one.target && dev !== undefined) {
    one.target.bus ??= one.device === 'floppy' ? 'fdc' : (busOfPrefix[dev.slice(0, 2)] ?? 'ide');
  }
}

/** The first index that no controller of the type has. */
export const freeIndex = (controllers: Controller[], type: ControllerType): number => {
  const used = new Set(controllers.flatMap((one) => (one.type === type ? [one.index] : [])));
  let index = 0;
  while (used.has(index)) index++;
  return index;
};

/** Drives without an address get one by the number in their target name. */
function assignDriveAddresses(domain: Domain): void {
  for (const one of domain.devices.disks) assignDriveAddress(one);
}

/** Where a drive is on its controller, by the number in its target name. */
function assignDriveAddress(one: Disk): void {
  const bus = one.target?.bus;
  if (one.address !== undefined || bus === undefined || !['ide', 'scsi', 'sata', 'fdc'].includes(bus)) return;
  const dev = one.target?.dev ?? '';
  const index = diskIndex(dev);
  if (index === undefined) throw xmlError(`Unknown disk name '${dev}' and no address specified`);
  const on = (controller: number, channel: number, unit: number): void => {
    one.address = { type: 'drive', controller, bus: channel, target: 0, unit };
  };
  if (bus === 'ide') on(Math.floor(index / 4), Math.floor(index / 2) % 2, index % 2);
  else if (bus === 'scsi') on(Math.floor(index / 7), 0, index % 7);
  else if (bus === 'sata') on(Math.floor(index / 6), 0, index % 6);
  else on(Math.floor(index / 2), 0, index % 2);
}

const newController = (type: ControllerType, index: number, model?: string): Controller => ({
  type,
  index,
  ...(model !== undefined && { model }),
});

function ensureController(domain: Domain, type: ControllerType, index: number): void {
  const { controllers } = domain.devices;
  if (!controllers.some((one) => one.type === type && one.index === index)) controllers.push(newController(type, index));
}

/** More controllers of one type than any machine has room for. */
const maxControllers = 255;

/** The controllers that drives, ports and cards with an address stand on. */
function addControllersInUse(domain: Domain): void {
  const { devices } = domain;
  const upTo = (type: ControllerType, highest: number): void => {
    if (highest > maxControllers)
      throw xmlError(`${type} controller index ${highest} not supported, ${maxControllers} is the highest`);
    for (let index = 0; index <= highest; index++) ensureController(domain, type, index);
  };
  for (const bus of ['scsi', 'fdc', 'ide', 'sata'] as const) {
    const used = devices.disks.flatMap((one) =>
      one.target?.bus === bus && one.address?.type === 'drive' ? [one.address.controller] : [],
    );
    upTo(bus, Math.max(-1, ...used));
  }
  assignVirtioPorts(domain);
  devices.smartcards.forEach((one, index) => {
    one.address ??= { type: 'ccid', controller: 0, slot: index };
    if (one.address.type === 'ccid') upTo('ccid', one.address.controller);
  });
}

/** Virtio channels get the first free port; port 0 is the first console's. */
export function assignVirtioPorts(domain: Domain): void {
  const { channels, consoles, controllers } = domain.devices;
  const ported = channels.filter((one) => one.target?.type === 'virtio');
  if (ported.length === 0 && !consoles.some((one) => one.target?.type === 'virtio')) return;
  ensureController(domain, 'virtio-serial', 0);
  const used = new Set<string>();
  for (const one of [...ported, ...consoles]) {
    if (one.address?.type !== 'virtio-serial') continue;
    ensureController(domain, 'virtio-serial', one.address.controller);
    if (one.address.port !== undefined) used.add(`${one.address.controller}.${one.address.port}`);
  }
  for (const one of ported) {
    const given = one.address?.type === 'virtio-serial' ? one.address : undefined;
    if (given?.port !== undefined) continue;
    one.address = nextVirtioPort(controllers, used, given?.controller);
    used.add(`${one.address.controller}.${one.address.port}`);
    ensureController(domain, 'virtio-serial', one.address.controller);
  }
}

function nextVirtioPort(controllers: Controller[], used: Set<string>, wanted: number | undefined) {
  const buses = controllers.filter((one) => one.type === 'virtio-serial' && (wanted === undefined || one.index === wanted));
  for (const one of buses) {
    for (let port = 1; port < (one.ports ?? 31); port++) {
      if (!used.has(`${one.index}.${port}`)) return { type: 'virtio-serial' as const, controller: one.index ?? 0, bus: 0, port };
    }
  }
  return { type: 'virtio-serial' as const, controller: freeIndex(controllers, 'virtio-serial'), bus: 0, port: 1 };
}

/** Adds what every machine of this kind has, and the models that the document leaves open. */
export function addDefaultDevices(domain: Domain, board: Board, emulator: EmulatorInfo): void {
  const { devices } = domain;
  const hasController = (type: ControllerType, index?: number): boolean =>
    devices.controllers.some((one) => one.type === type && (index === undefined || one.index === index));
  const pci = board === 'pc' || board === 'q35' || board === 'virt';
  if (!hasController('usb') && pci) devices.controllers.push(newController('usb', 0));
  if (board === 'q35' && !hasController('sata', 0)) devices.controllers.push(newController('sata', 0));
  if (pci) addPciRoot(domain, board === 'pc' ? 'pci-root' : 'pcie-root');
  if (devices.memballoons.length === 0) devices.memballoons.push({ model: 'virtio' });
  addVideo(domain, emulator);
  addControllersInUse(domain);
  for (const one of devices.controllers) {
    if (one.type === 'usb') one.model ??= board === 'pc' ? 'piix3-uhci' : 'qemu-xhci';
    else if (one.type === 'scsi' && (one.model === undefined || one.model === 'auto')) one.model = 'lsilogic';
  }
  for (const type of ['mouse', 'keyboard'] as const) {
    if (board !== 'virt' && pci && !devices.inputs.some((one) => one.type === type && one.bus === 'ps2'))
      devices.inputs.push({ type, bus: 'ps2' });
  }
  addAudio(domain);
}

function addPciRoot(domain: Domain, model: 'pci-root' | 'pcie-root'): void {
  const { controllers } = domain.devices;
  const root = controllers.find((one) => one.type === 'pci' && one.index === 0);
  if (!root) controllers.push(newController('pci', 0, model));
  else if (root.model === undefined) root.model = model;
  else if (root.model !== model) {
    throw xmlError(
      `The PCI controller with index='0' must be model='${model}' for this machine type, but model='${root.model}' was found instead`,
    );
  }
  for (const one of controllers) {
    if (one.type === 'pci') one.model ??= model === 'pci-root' ? 'pci-bridge' : 'pcie-root-port';
  }
}

function addVideo(domain: Domain, emulator: EmulatorInfo): void {
  const { videos, graphics } = domain.devices;
  const visible = graphics.some((one) => one.type !== 'egl-headless');
  if (videos.length === 0 && visible) videos.push({ model: { type: emulator.defaultVideo } });
  for (const one of videos) completeVideo(one, emulator);
  const primary = videos.find((one) => one.model?.primary === 'yes') ?? videos[0];
  if (!primary?.model) return;
  if (primary.model.type !== 'none') primary.model.primary = 'yes';
  if (primary !== videos[0]) videos.unshift(...videos.splice(videos.indexOf(primary), 1));
}

/** Sizes are in KiB. */
function completeVideo(one: Video, emulator: EmulatorInfo): void {
  one.model ??= {};
  const { model } = one;
  if (model.type === undefined || model.type === 'default') model.type = emulator.defaultVideo;
  if (model.type === 'none') return;
  model.heads ??= 1;
  if (model.type === 'qxl') {
    model.ram ??= 65536;
    model.vram ??= 65536;
    model.vgamem ??= 16384;
  } else if (model.type === 'vga' || model.type === 'cirrus' || model.type === 'vmvga' || model.type === 'bochs') {
    model.vram ??= 16384;
  }
}

/** One audio back-end always, of the kind that the last of the graphics carries. */
function addAudio(domain: Domain): void {
  const { audios, graphics } = domain.devices;
  if (audios.length > 0) return;
  let type: 'none' | 'spice' | 'sdl' | 'dbus' = 'none';
  for (const one of graphics) {
    if (one.type === 'spice' || one.type === 'sdl' || one.type === 'dbus') type = one.type;
    else if (one.type === 'vnc') type = 'none';
  }
  audios.push({ id: 1, type });
}
