// Controllers, network cards and the smaller devices on the command line (as libvirt 9.0 composes them for QEMU 7.2).
import { aliasOf } from '../aliases.ts';
import { boardOf } from '../emulator.ts';
import { unsupported } from '../errors.ts';
import { parsePci } from '../model/common.ts';
import type { Controller } from '../model/controller.ts';
import { isVirtioNet, type NetworkInterface } from '../model/interface.ts';
import { pciName } from '../pci.ts';
import { childNamed } from '../xml.ts';
import { type Arguments, escapeCommas, type JsonObject, onOffValue, virtioDriverName, virtioProperties } from './arguments.ts';

const usbDrivers: Readonly<Record<string, string>> = {
  'piix3-uhci': 'piix3-usb-uhci',
  'piix4-uhci': 'piix4-usb-uhci',
  ehci: 'usb-ehci',
  'ich9-ehci1': 'ich9-usb-ehci1',
  'ich9-uhci1': 'ich9-usb-uhci1',
  'ich9-uhci2': 'ich9-usb-uhci2',
  'ich9-uhci3': 'ich9-usb-uhci3',
  'vt82c686b-uhci': 'vt82c686b-usb-uhci',
  'pci-ohci': 'pci-ohci',
  'nec-xhci': 'nec-usb-xhci',
  'qemu-xhci': 'qemu-xhci',
};

function usbController(to: Arguments, one: Controller): JsonObject {
  const driver = usbDrivers[one.model ?? ''];
  if (driver === undefined) throw unsupported(`USB controller model '${one.model}' is not supported`);
  if (one.master) {
    const masterbus = `${to.controllerAlias('usb', one.index ?? 0)}.0`;
    return { driver, masterbus, firstport: one.master.startport, ...to.place(one) };
  }
  const xhci = one.model?.endsWith('xhci') ? { p2: one.ports, p3: one.ports } : {};
  return { driver, ...xhci, id: aliasOf(one), ...to.place(one) };
}

function pciController(to: Arguments, one: Controller): JsonObject | undefined {
  const id = aliasOf(one);
  const { target } = one;
  switch (one.model) {
    case 'pci-root':
    case 'pcie-root':
      return undefined;
    case 'pci-bridge':
      return { driver: 'pci-bridge', chassis_nr: target?.chassisNr, id, ...to.place(one) };
    case 'pcie-root-port':
      return {
        driver: one.modelName?.name ?? 'pcie-root-port',
        port: target?.port,
        chassis: target?.chassis,
        id,
        hotplug: onOffValue(target?.hotplug),
        ...to.place(one),
      };
    case 'pcie-switch-downstream-port':
      return { driver: one.modelName?.name, port: target?.port, chassis: target?.chassis, id, ...to.place(one) };
    case 'pci-expander-bus':
    case 'pcie-expander-bus':
      return { driver: one.modelName?.name, bus_nr: target?.busNr, id, numa_node: target?.node, ...to.place(one) };
    default:
      return { driver: one.modelName?.name, id, ...to.place(one) };
  }
}

const scsiDrivers: Readonly<Record<string, string>> = {
  lsilogic: 'lsi',
  lsisas1068: 'mptsas1068',
  lsisas1078: 'megasas',
  vmpvscsi: 'pvscsi',
  am53c974: 'am53c974',
  dc390: 'dc-390',
};

function scsiController(to: Arguments, one: Controller): JsonObject {
  const { driver } = one;
  const virtio = one.model?.startsWith('virtio');
  const name = virtio
    ? virtioDriverName('virtio-scsi', one.model === 'virtio-scsi' ? 'virtio' : one.model)
    : scsiDrivers[one.model ?? ''];
  if (name === undefined) throw unsupported(`SCSI controller model '${one.model}' is not supported`);
  return {
    driver: name,
    iothread: driver?.iothread === undefined ? undefined : `iothread${driver.iothread}`,
    ...virtioProperties(driver),
    id: aliasOf(one),
    num_queues: driver?.queues,
    cmd_per_lun: driver?.cmdPerLun,
    max_sectors: driver?.maxSectors,
    ioeventfd: onOffValue(driver?.ioeventfd),
    ...to.place(one),
  };
}

function controllerDevice(to: Arguments, one: Controller): JsonObject | undefined {
  const board = boardOf(to.domain.os.type?.machine ?? '');
  const id = aliasOf(one);
  switch (one.type) {
    case 'pci':
      return pciController(to, one);
    case 'usb':
      return one.model === 'none' ? undefined : usbController(to, one);
    case 'scsi':
      return scsiController(to, one);
    case 'sata':
      return board === 'q35' && one.index === 0 ? undefined : { driver: 'ahci', id, ...to.place(one) };
    case 'ide':
      if (board === 'pc' && one.index === 0) return undefined;
      throw unsupported('IDE controllers are unsupported for this QEMU binary or machine type');
    case 'fdc':
      return board === 'q35' ? { driver: 'isa-fdc', id } : undefined;
    case 'virtio-serial': {
      const driver = virtioDriverName('virtio-serial', one.model);
      return {
        driver,
        ...virtioProperties(one.driver),
        id,
        max_ports: one.ports,
        vectors: one.vectors,
        ...to.place(one),
      };
    }
    case 'ccid':
      return { driver: 'usb-ccid', id, ...to.place(one) };
    case 'isa':
      return undefined;
    default:
      throw unsupported(`controller type '${one.type}' is not supported`);
  }
}

const controllerOrder = ['pci', 'usb', 'scsi', 'ide', 'sata', 'fdc', 'virtio-serial', 'ccid', 'xenbus', 'isa'] as const;

export function addControllers(to: Arguments): void {
  for (const type of controllerOrder) {
    for (const one of to.domain.devices.controllers) {
      if (one.type !== type) continue;
      const device = controllerDevice(to, one);
      if (device) to.device(device);
    }
  }
  for (const one of to.domain.devices.hubs) to.device({ driver: 'usb-hub', id: aliasOf(one), ...to.place(one) });
}

export function addIommu(to: Arguments): void {
  for (const one of to.domain.devices.iommus) {
    if (one.model !== 'intel') throw unsupported(`IOMMU device: '${one.model}' is not supported`);
    const { driver } = one;
    to.device({
      driver: 'intel-iommu',
      id: aliasOf(one),
      intremap: driver?.intremap,
      'caching-mode': onOffValue(driver?.cachingMode),
      eim: driver?.eim,
      'device-iotlb': onOffValue(driver?.iotlb),
      'aw-bits': driver?.awBits,
    });
  }
}

export function addFilesystems(to: Arguments): void {
  for (const one of to.domain.devices.filesystems) {
    if (one.type !== 'mount' || one.driver?.type === 'virtiofs')
      throw unsupported('only 9p file systems of type mount are supported');
    const alias = aliasOf(one);
    const parts = [
      'local',
      `security_model=${one.accessmode === 'squash' ? 'none' : (one.accessmode ?? 'passthrough')}`,
      ...(one.multidevs === undefined || one.multidevs === 'default' ? [] : [`multidevs=${one.multidevs}`]),
      ...(one.fmode === undefined ? [] : [`fmode=${one.fmode}`]),
      ...(one.dmode === undefined ? [] : [`dmode=${one.dmode}`]),
      `id=fsdev-${alias}`,
      `path=${escapeCommas(one.source?.dir ?? '')}`,
      ...(one.readonly ? ['readonly'] : []),
    ];
    to.add('-fsdev', parts.join(','));
    to.device({
      driver: virtioDriverName('virtio-9p', one.model),
      ...virtioProperties(one.driver),
      id: alias,
      fsdev: `fsdev-${alias}`,
      mount_tag: one.target?.dir,
      ...to.place(one),
    });
  }
}

/** The host's side of a network card, without its id; also what `netdev_add` takes. */
function netdev(to: Arguments, one: NetworkInterface): JsonObject {
  const replaced = to.context.netdev?.(one);
  if (replaced) return replaced;
  const { source } = one;
  const at = `${source?.address ?? ''}:${source?.port ?? ''}`;
  switch (one.type) {
    case 'user': {
      const v4 = one.ips.find((ip) => ip.family === 'ipv4');
      const v6 = one.ips.find((ip) => ip.family === 'ipv6');
      return {
        type: 'user',
        net: v4 && `${v4.address}/${v4.prefix ?? 24}`,
        'ipv6-prefix': v6?.address,
        'ipv6-prefixlen': v6?.prefix,
      };
    }
    case 'server':
      return { type: 'socket', listen: at };
    case 'client':
      return { type: 'socket', connect: at };
    case 'mcast':
      return { type: 'socket', mcast: at };
    case 'udp':
      return { type: 'socket', udp: at, localaddr: `${source?.local?.address ?? ''}:${source?.local?.port ?? ''}` };
    case 'network':
    case 'bridge':
    case 'ethernet':
    case 'direct':
      return { type: 'tap', fd: String(to.tap(one)) };
    default:
      throw unsupported(`interface type '${one.type}' is not supported`);
  }
}

/** Adds both sides of a network card; `bootIndex` is its place in the boot order, from 1. */
export function addInterface(to: Arguments, one: NetworkInterface, bootIndex?: number): void {
  const id = aliasOf(one);
  const { driver } = one;
  const virtio = isVirtioNet(one);
  const queues = driver?.queues ?? 1;
  to.json('-netdev', { ...netdev(to, one), id: `host${id}` });
  to.device({
    driver: virtio ? virtioDriverName('virtio-net', one.model?.type) : one.model?.type,
    ...(virtio && {
      ...virtioProperties(driver),
      tx: driver?.txmode === 'timer' ? 'timer' : driver?.txmode === 'iothread' ? 'bh' : undefined,
      ioeventfd: onOffValue(driver?.ioeventfd),
      event_idx: onOffValue(driver?.eventIdx),
      mq: queues > 1 ? true : undefined,
      vectors: queues > 1 ? 2 * queues + 2 : undefined,
      rx_queue_size: driver?.rxQueueSize,
      tx_queue_size: driver?.txQueueSize,
      host_mtu: one.mtu?.size,
    }),
    netdev: `host${id}`,
    id,
    mac: one.mac?.address,
    bootindex: bootIndex,
    ...to.place(one),
    ...to.rom(one),
  });
}

export function addHostDevices(to: Arguments): void {
  for (const one of to.domain.devices.hostdevs) {
    const id = aliasOf(one);
    const address = one.source && childNamed(one.source, 'address');
    if (one.type === 'usb') {
      const { bus, device } = address?.attributes ?? {};
      if (bus === undefined || device === undefined) throw unsupported('USB host device is missing bus/device information');
      const path = `/dev/bus/usb/${bus.padStart(3, '0')}/${device.padStart(3, '0')}`;
      to.device({ driver: 'usb-host', hostdevice: path, id, bootindex: one.boot?.order, ...to.place(one) });
    } else if (one.type === 'pci' && address) {
      const host = pciName(parsePci(address));
      to.device({ driver: 'vfio-pci', host, id, bootindex: one.boot?.order, ...to.place(one), ...to.rom(one) });
    } else throw unsupported(`host device type '${one.type}' is not supported`);
  }
}

export function addWatchdogs(to: Arguments): void {
  for (const one of to.domain.devices.watchdogs) {
    to.device({ driver: one.model, id: aliasOf(one), ...to.place(one) });
    // The daemon dumps, so the guest has to wait for it.
    to.add('-watchdog-action', one.action === 'dump' ? 'pause' : one.action);
  }
}

export function addBalloon(to: Arguments): void {
  for (const one of to.domain.devices.memballoons) {
    if (one.model === 'none') continue;
    if (one.model === 'xen')
      throw unsupported(`Memory balloon device type '${one.model}' is not supported by this version of qemu`);
    to.device({
      driver: virtioDriverName('virtio-balloon', one.model),
      ...virtioProperties(one.driver),
      id: aliasOf(one),
      'deflate-on-oom': onOffValue(one.autodeflate),
      'free-page-reporting': onOffValue(one.freePageReporting),
      ...to.place(one),
    });
  }
}

export function addRandom(to: Arguments): void {
  for (const one of to.domain.devices.rngs) {
    const id = aliasOf(one);
    const { backend, rate } = one;
    if (backend?.model === 'egd') throw unsupported('the egd back-end of random number generators is not supported');
    const random = backend?.model === 'random';
    const type = random ? 'rng-random' : 'rng-builtin';
    to.object({ 'qom-type': type, id: `obj${id}`, filename: random ? (backend.path ?? '/dev/urandom') : undefined });
    to.device({
      driver: virtioDriverName('virtio-rng', one.model),
      ...virtioProperties(one.driver),
      rng: `obj${id}`,
      id,
      'max-bytes': rate?.bytes,
      period: rate && (rate.period ?? 1000),
      ...to.place(one),
    });
  }
}

export function addPanics(to: Arguments): void {
  for (const one of to.domain.devices.panics) {
    const iobase = one.address && 'attributes' in one.address ? one.address.attributes['iobase'] : undefined;
    if (one.model === 'isa') to.device({ driver: 'pvpanic', ioport: iobase === undefined ? undefined : Number(iobase) });
    else if (one.model === 'pvpanic') to.device({ driver: 'pvpanic-pci', ...to.place(one) });
    else if (one.model !== 'hyperv') throw unsupported(`panic model '${one.model}' is not supported`);
  }
}

export function addVsocks(to: Arguments): void {
  for (const one of to.domain.devices.vsocks) {
    const id = aliasOf(one);
    to.device({
      driver: virtioDriverName('vhost-vsock', one.model),
      ...virtioProperties(one.driver),
      id,
      'guest-cid': one.cid?.address,
      vhostfd: String(to.vhostVsock(id)),
      ...to.place(one),
    });
  }
}

/** @throws DomainXmlError for the devices that are kept in documents and cannot be run. */
export function refuseUnsupported(to: Arguments): void {
  const { tpms, shmems, cryptos, leases } = to.domain.devices;
  if (tpms.length > 0) throw unsupported('TPM devices are not supported');
  if (shmems.length > 0) throw unsupported('shared memory devices are not supported');
  if (cryptos.length > 0) throw unsupported('crypto devices are not supported');
  if (leases.length > 0) throw unsupported('leases are not supported');
}
