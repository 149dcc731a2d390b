// IDE controllers and drives: PIIX3's two channels, and disks and CD-ROMs for any bus of the kind `IDE`.

import { AtaDevice } from '../../devices/ata/device.ts';
import { IdeChannel } from '../../devices/ide.ts';
import { readsAtOnce } from '../../devices/ide-at-once.ts';
import { IdeIo } from '../../devices/ide-io.ts';
import { PciFunction } from '../../devices/pci-function.ts';
import type { Drive } from '../backends.ts';
import type { IdeUnit } from '../buses.ts';
import { type AnyDeviceType, deviceType, type IoServices } from '../device-type.ts';
import { DirectPlaces, DirectReader } from '../direct-reads.ts';
import { DriveStore, drivePolicy } from '../drive-store.ts';
import { takeDrive } from '../drives.ts';
import { bool, choice, int32, named, size, str, uint32, uint64, type Values } from '../properties.ts';

/** Ports and interrupts of the two channels of a PC. */
const channels = [
  { command: 0x1f0, control: 0x3f6, irq: 14 },
  { command: 0x170, control: 0x376, irq: 15 },
] as const;

/** The unit that is meant, or the first free one. */
export function freeUnit(units: readonly (IdeUnit | undefined)[], wanted: number | undefined): number {
  const at = wanted ?? units.indexOf(undefined);
  if (at < 0) throw new Error('Bus is full: all IDE units are in use');
  if (at >= units.length)
    throw new Error(`Can't create IDE unit ${at}, bus supports only ${units.length} unit${units.length === 1 ? '' : 's'}`);
  if (units[at]) throw new Error(`IDE unit ${at} is in use`);
  return at;
}
/** QEMU's serial number of the place `n`. */
export const serialOf = (n: number): string => `QM${String(n + 1).padStart(5, '0')}`;

const piix3Ide = deviceType({
  name: 'piix3-ide',
  bus: 'PCI',
  category: 'Storage',
  description: 'PIIX3 IDE: two channels with two drives each',
  parents: ['pci-ide', 'pci-device'],
  hotplug: false,
  userCreatable: false,
  properties: {},
  build(ctx) {
    const parts = channels.map((c, n) => {
      const bell = ctx.doorbell(String(n));
      const channel: IdeChannel = new IdeChannel({
        arena: ctx.arena,
        name: `${ctx.name}.${n}`,
        irq: ctx.isa(c.irq),
        ring: () => bell.ring(),
        atOnce: (what) => atOnce(what),
      });
      const units: (IdeUnit | undefined)[] = [undefined, undefined];
      const atOnce = readsAtOnce(channel, ctx.memory, (unit) => units[unit]?.direct);
      ctx.ports.map(c.command, 8, channel.commandBlock, 'ide');
      ctx.ports.map(c.control, 1, channel.controlBlock, 'ide');
      ctx.addBus({
        kind: 'IDE',
        name: `ide.${n}`,
        hotplug: false,
        ncq: false,
        hasRoom: () => units.includes(undefined),
        place: (wanted) => freeUnit(units, wanted),
        serial: (at) => serialOf(2 * n + at),
        attach(at, unit) {
          channel.add(at as 0 | 1, unit.ata);
          units[at] = unit;
          return { reset: () => channel.signature(at as 0 | 1), bootNode: `drive@${n}/disk@${at}` };
        },
      });
      return { channel, bell, units };
    });
    const f = new PciFunction({
      ...{ arena: ctx.arena, name: ctx.name, vendor: 0x8086, device: 0x7010, classCode: 0x01_0180 },
      ...{ subsystemVendor: 0x1af4, subsystem: 0x1100 },
      bars: [
        {
          index: 4,
          kind: 'io',
          name: 'piix-bmdma-container',
          size: 16,
          handler: {
            read: (offset, bytes) => parts[offset >> 3]!.channel.busMaster.read(offset & 7, bytes),
            write: (offset, bytes, value) => parts[offset >> 3]!.channel.busMaster.write(offset & 7, bytes, value),
          },
        },
      ],
    });
    // Timing registers, whose upper bits enable the channels.
    f.writable(0x40, [0xff, 0xff, 0xff, 0xff, 0xff]);
    f.writable(0x48, [0x0f]);
    f.preset(0x40, [0, 0x80, 0, 0x80]);
    ctx.plug(f);
    return {
      bootNode: 'ide',
      reset() {
        for (const { channel } of parts) channel.reset();
      },
      io(services) {
        const workers = parts.map(({ channel, bell, units }) => {
          const io = new IdeIo({
            channel,
            lock: services.lock,
            memory: services.memory,
            store: (unit) => units[unit]?.store(),
          });
          bell.heard = () => io.serve();
          return io;
        });
        return {
          async drain() {
            await Promise.all(
              workers.map((io, n) =>
                Promise.race([io.drain(), ...parts[n]!.units.map((u) => u?.held() ?? new Promise<void>(() => {}))]),
              ),
            );
          },
        };
      },
    };
  },
});

/** What all drives on IDE buses take. */
const driveProperties = {
  drive: named('drive', 'Node name or ID of a block device to use as a backend'),
  unit: uint32(0xffff_ffff, 'unit on the bus; the first free one when not given'),
  bootindex: int32(-1),
  serial: str(),
  ver: str(),
  model: str(),
  wwn: uint64(0),
  logical_block_size: size(512),
  physical_block_size: size(512),
  min_io_size: size(0),
  opt_io_size: size(0),
  discard_granularity: size(512),
  'write-cache': choice(['auto', 'on', 'off'], 'auto', 'OnOffAuto'),
  'share-rw': bool(false),
  backend_defaults: choice(['auto', 'on', 'off'], 'auto', 'OnOffAuto'),
  rerror: choice(['auto', 'report', 'ignore', 'stop'], 'auto', 'BlockdevOnError'),
  werror: choice(['auto', 'report', 'ignore', 'stop', 'enospc'], 'auto', 'BlockdevOnError'),
};

const ideDrive = (kind: 'disk' | 'cdrom') =>
  deviceType({
    name: kind === 'disk' ? 'ide-hd' : 'ide-cd',
    bus: 'IDE',
    category: 'Storage',
    description: kind === 'disk' ? 'IDE disk' : 'IDE CD-ROM',
    parents: ['ide-device', 'device'],
    hotplug: false,
    properties: driveProperties,
    build(ctx, p) {
      if (p.logical_block_size !== 512) throw new Error('logical_block_size must be 512 for IDE');
      let store: DriveStore | undefined;
      const at = ctx.bus.place(p.unit === 0xffff_ffff ? undefined : p.unit);
      const ata = new AtaDevice({
        arena: ctx.arena,
        name: ctx.name,
        kind,
        model: p.model ?? (kind === 'disk' ? 'QEMU HARDDISK' : 'QEMU DVD-ROM'),
        serial: p.serial ?? ctx.bus.serial(at),
        version: p.ver ?? '2.5+',
        discard: kind === 'disk',
        ncq: ctx.bus.ncq,
        ...(p.wwn === 0 ? {} : { wwn: BigInt(p.wwn) }),
        medium: () => store?.inserted,
        tray: (open) =>
          ctx.notify('DEVICE_TRAY_MOVED', { device: store?.drive.id ?? '', id: ctx.id ?? ctx.path, 'tray-open': open }),
      });
      const direct = new DirectReader(ctx);
      const unit: IdeUnit = {
        ata,
        direct: direct.able ? direct : undefined,
        store: () => (ata.packet?.s.trayOpen ? undefined : store?.inserted),
        held: () => store?.drained(new Promise<void>(() => {})) ?? new Promise<void>(() => {}),
      };
      const place = ctx.bus.attach(at, unit);
      return {
        bootNode: place.bootNode,
        reset() {
          ata.reset();
          if (p['write-cache'] === 'off') ata.s.writeCache = 0;
          place.reset();
        },
        io(services) {
          const drive = driveOf(services, p, ctx.path, kind);
          const places = drive && new DirectPlaces(direct.state, services.lock, drive);
          if (drive) store = new DriveStore(drive, services, drivePolicy(drive, p.rerror, p.werror), places);
          if (drive)
            drive.changed = () => {
              services.lock.run(() => ata.packet?.mediumChanged());
            };
          return {
            resumed: () => store?.resumed(),
            reset: () => store?.reset(),
            close() {
              if (!drive) return;
              places?.close();
              drive.user = undefined;
              drive.changed = undefined;
            },
          };
        },
      };
    },
  });

function driveOf(
  services: IoServices,
  p: Values<typeof driveProperties>,
  path: string,
  kind: 'disk' | 'cdrom',
): Drive | undefined {
  if (p.drive === undefined) {
    if (kind === 'disk') throw new Error('No drive specified');
    return undefined;
  }
  return takeDrive(services.backends, p.drive, path);
}

export const ideTypes: readonly AnyDeviceType[] = [piix3Ide, ideDrive('disk'), ideDrive('cdrom')];
