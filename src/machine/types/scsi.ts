// `virtio-scsi-pci`, and the devices of a SCSI bus: `scsi-hd`, `scsi-cd`. Names, properties and defaults are QEMU 7.2's.

import { ScsiTarget } from '../../devices/scsi/target.ts';
import { type ScsiHostOptions, scsiModel } from '../../devices/virtio/scsi.ts';
import { ScsiIo, type ScsiUnit, scsiReadAtOnce } from '../../devices/virtio/scsi-io.ts';
import type { ScsiBus } from '../buses.ts';
import { type AnyDeviceType, deviceType } from '../device-type.ts';
import { DirectPlaces, DirectReader } from '../direct-reads.ts';
import { DriveStore, drivePolicy } from '../drive-store.ts';
import { takeDrive } from '../drives.ts';
import { bool, choice, int32, named, size, str, uint16, uint32, uint64 } from '../properties.ts';
import { virtioTypes } from './virtio.ts';

const AUTO = 0xffff_ffff;

export const virtioScsi = virtioTypes({
  name: 'virtio-scsi',
  category: 'Storage',
  description: 'a SCSI bus',
  classCode: 0x01_0000,
  vectors: (model) => model.queues.length + 1,
  legacy: true,
  properties: {
    num_queues: uint32(AUTO, 'request queues; one for each vCPU when not given'),
    virtqueue_size: uint32(256),
    max_sectors: uint32(0xffff),
    cmd_per_lun: uint32(128),
    hotplug: bool(true),
    param_change: bool(true),
    iothread: named('iothread', 'accepted; all disks are served without stopping vCPUs'),
  },
  parts(ctx, p) {
    const options: ScsiHostOptions = {
      queues: p.num_queues === AUTO ? ctx.cpus : p.num_queues,
      queueSize: p.virtqueue_size,
      maxSectors: p.max_sectors,
      commandsPerLun: p.cmd_per_lun,
      hotplug: p.hotplug,
      change: p.param_change,
    };
    if (options.queues < 1 || options.queues > 1022)
      throw new Error(`Cannot make ${options.queues} queues: num_queues accepts 1 to 1022`);
    const { queueSize } = options;
    if (queueSize < 4 || queueSize > 1024 || (queueSize & (queueSize - 1)) !== 0)
      throw new Error(`Cannot use virtqueue_size=${queueSize}: accepted are powers of two from 4 to 1024`);
    const units: ScsiUnit[] = [];
    let io: ScsiIo | undefined;
    let directChanged = (): void => {};
    const bus: ScsiBus = {
      kind: 'SCSI',
      name: `${ctx.id ?? ctx.name}.0`,
      place(target, lun) {
        const taken = (t: number, l: number): boolean => units.some((u) => u.target === t && u.lun === l);
        let t = target ?? 0;
        if (target === undefined) while (taken(t, lun ?? 0)) t++;
        let l = lun ?? 0;
        if (lun === undefined && target !== undefined) while (taken(t, l)) l++;
        if (t > 255 || l > 16383) throw new Error(`bad scsi device id: ${t} or lun: ${l}`);
        if (taken(t, l)) throw new Error(`lun already used by another device: scsi-id ${t}, lun ${l}`);
        return { target: t, lun: l };
      },
      attach(unit) {
        units.push(unit);
        io?.plugged(unit, true);
        return () => {
          units.splice(units.indexOf(unit), 1);
          io?.plugged(unit, false);
        };
      },
      changed: (unit, asc, ascq) => io?.changed(unit, asc, ascq),
      directChanged: () => directChanged(),
    };
    ctx.addBus(bus);
    return {
      model: scsiModel(options, {
        atOnce: ctx.readNow && ((chain, queue) => scsiReadAtOnce(units, chain, queue)),
        servesAtOnce: () => units.some((u) => u.direct.some()),
      }),
      bootNode: 'scsi',
      io(core) {
        directChanged = () => core.atOnceChanged();
        io = new ScsiIo(core, options.queues, () => units);
        return { drain: () => Promise.race([io!.drain(), ...units.map((u) => u.held())]) };
      },
    };
  },
});

const properties = {
  drive: named('drive', 'Node name or ID of a block device to use as a backend'),
  bootindex: int32(-1),
  channel: uint32(0),
  'scsi-id': uint32(AUTO, 'target; the first free one when not given'),
  lun: uint32(AUTO),
  serial: str(),
  device_id: str(),
  vendor: str(),
  product: str(),
  ver: str(),
  wwn: uint64(0),
  port_wwn: uint64(0),
  port_index: uint16(0),
  removable: bool(false),
  dpofua: bool(false),
  rotation_rate: uint16(0),
  scsi_version: int32(5),
  max_io_size: uint64(0x7fff_ffff),
  max_unmap_size: uint64(0x4000_0000),
  logical_block_size: size(0),
  physical_block_size: size(0),
  min_io_size: size(0),
  opt_io_size: size(0),
  discard_granularity: size(0xffff_ffff),
  'write-cache': choice(['auto', 'on', 'off'], 'auto', 'OnOffAuto'),
  'share-rw': bool(false),
  rerror: choice(['auto', 'report', 'ignore', 'stop'], 'auto', 'BlockdevOnError'),
  werror: choice(['auto', 'report', 'ignore', 'stop', 'enospc'], 'auto', 'BlockdevOnError'),
};

const unitType = (kind: 'disk' | 'cdrom'): AnyDeviceType =>
  deviceType({
    name: kind === 'disk' ? 'scsi-hd' : 'scsi-cd',
    bus: 'SCSI',
    category: 'Storage',
    description: kind === 'disk' ? 'SCSI disk' : 'SCSI CD-ROM',
    parents: ['scsi-disk-base', 'scsi-device', 'device'],
    properties,
    build(ctx, p) {
      if (p.channel !== 0) throw new Error(`bad scsi channel id: ${p.channel}`);
      const blockSize = p.logical_block_size || (kind === 'disk' ? 512 : 2048);
      if (![512, 2048, 4096].includes(blockSize))
        throw new Error(`Cannot use logical_block_size=${blockSize}: accepted are 512, 2048, 4096`);
      const place = ctx.bus.place(p['scsi-id'] === AUTO ? undefined : p['scsi-id'], p.lun === AUTO ? undefined : p.lun);
      let store: DriveStore | undefined;
      const device = new ScsiTarget({
        arena: ctx.arena,
        name: ctx.name,
        kind,
        vendor: p.vendor ?? 'QEMU',
        product: p.product ?? (kind === 'disk' ? 'QEMU HARDDISK' : 'QEMU CD-ROM'),
        version: p.ver ?? '2.5+',
        serial: p.serial ?? p.device_id ?? '',
        blockSize,
        ...(p.removable ? { removable: true } : {}),
        ...(p.wwn === 0 ? {} : { wwn: BigInt(p.wwn) }),
        medium: () => store?.inserted,
        tray: (open) =>
          ctx.notify('DEVICE_TRAY_MOVED', { device: store?.drive.id ?? '', id: ctx.id ?? ctx.path, 'tray-open': open }),
      });
      const direct = new DirectReader(ctx);
      const unit: ScsiUnit = {
        direct,
        ...place,
        device,
        store: () => (device.s.trayOpen ? undefined : store?.inserted),
        held: () => store?.drained(new Promise<void>(() => {})) ?? new Promise<void>(() => {}),
      };
      ctx.onRemove(ctx.bus.attach(unit));
      return {
        bootNode: `channel@0/disk@${place.target.toString(16)},${place.lun.toString(16)}`,
        reset() {
          device.reset();
          if (p['write-cache'] === 'off') device.s.writeCache = 0;
        },
        io(services) {
          if (p.drive === undefined) {
            if (kind === 'disk') throw new Error('drive property not set');
            return {};
          }
          const drive = takeDrive(services.backends, p.drive, ctx.path);
          const places = new DirectPlaces(direct.state, services.lock, drive, () => ctx.bus.directChanged());
          store = new DriveStore(drive, services, drivePolicy(drive, p.rerror, p.werror), places);
          drive.changed = () => {
            services.lock.run(() => (kind === 'cdrom' ? device.mediumChanged() : device.capacityChanged()));
            if (kind === 'disk') ctx.bus.changed(unit, 0x2a, 0x09);
          };
          return {
            resumed: () => store?.resumed(),
            reset: () => store?.reset(),
            close() {
              places.close();
              drive.user = undefined;
              drive.changed = undefined;
            },
          };
        },
      };
    },
  });

export const scsiUnits: readonly AnyDeviceType[] = [unitType('disk'), unitType('cdrom')];
