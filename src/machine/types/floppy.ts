// Floppy disks: `isa-fdc`, the controller, and `floppy`, a drive on its cable.

import { DRIVES, Fdc, fdcPort } from '../../devices/fdc.ts';
import { FdcIo, floppyFormat } from '../../devices/fdc-io.ts';
import type { FloppyBus } from '../buses.ts';
import { type AnyDeviceType, deviceType } from '../device-type.ts';
import { DriveStore, drivePolicy } from '../drive-store.ts';
import { takeDrive } from '../drives.ts';
import { bool, choice, int32, named, size, uint32 } from '../properties.ts';

const UNSET = 0xffff_ffff;
/** CMOS' numbers of kinds of drives; 0 for what the disk asks for. */
const kinds = { '144': 4, '288': 5, '120': 2, none: 0, auto: 0 } as const;
const driveKind = (value: keyof typeof kinds) =>
  choice(['144', '288', '120', 'none', 'auto'], value, 'FdcDriveType', 'FDC drive type, 144/288/120/none/auto');
/** Registers of CMOS memory: the kinds of both drives, and what equipment there is. */
const cmos = { floppies: 0x10, equipment: 0x14 } as const;
const MOUSE_AND_FPU = 0x06;

const fdc = deviceType({
  name: 'isa-fdc',
  bus: 'ISA',
  category: 'Storage',
  description: 'virtual floppy controller',
  parents: ['isa-device', 'device'],
  hotplug: false,
  properties: {
    iobase: uint32(fdcPort),
    irq: uint32(6),
    dma: uint32(2),
    fdtypeA: driveKind('auto'),
    fdtypeB: driveKind('auto'),
    fallback: driveKind('288'),
    bootindexA: int32(-1),
    bootindexB: int32(-1),
  },
  build(ctx, p) {
    const { dma } = ctx;
    if (!dma || p.dma > 3) throw new Error(`isa-fdc: there is no DMA channel ${p.dma} for it`);
    const bell = ctx.doorbell();
    const chip = new Fdc({ arena: ctx.arena, name: ctx.name, irq: ctx.isa(p.irq), ring: () => bell.ring(), report: ctx.report });
    ctx.ports.map(p.iobase + 1, 5, chip.handler, 'fdc');
    ctx.ports.map(p.iobase + 7, 1, chip.rateHandler, 'fdc');
    const stores: (DriveStore | undefined)[] = [];
    const wanted: number[] = [];
    const taken = new Set<number>();
    const insert = (unit: number): void => {
      const medium = stores[unit]?.inserted;
      const format = medium && floppyFormat(medium.size);
      const d = chip.s.drives[unit]!;
      d.kind = wanted[unit]! || format?.kind || d.kind || kinds[p.fallback] || kinds['288'];
      chip.insert(unit, format && { ...format, readOnly: medium.readOnly });
    };
    const bus: FloppyBus = {
      kind: 'floppy-bus',
      name: `${ctx.id ?? 'floppy-bus'}.0`,
      hotplug: false,
      place(unit) {
        const n = unit ?? [0, 1].find((x) => !taken.has(x));
        if (n === undefined || n >= DRIVES)
          throw new Error(`Can't create floppy unit ${n ?? DRIVES}, bus supports only ${DRIVES} units`);
        if (taken.has(n)) throw new Error(`Floppy unit ${n} is in use`);
        taken.add(n);
        return n;
      },
      connect(unit, store, kind) {
        stores[unit] = store;
        wanted[unit] = kind || kinds[unit === 0 ? p.fdtypeA : p.fdtypeB];
        insert(unit);
      },
      changed: insert,
    };
    ctx.addBus(bus);
    return {
      bootNode: `isa@${ctx.pci.functions().some((x) => x.slot === 0x1f) ? '1f' : '1'}/fdc@0${p.iobase.toString(16)}`,
      reset() {
        chip.reset();
        const [a, b] = chip.s.drives.map((d) => d.kind);
        ctx.cmos(cmos.floppies, (a! << 4) | b!);
        const count = [a, b].filter((kind) => kind !== 0).length;
        ctx.cmos(cmos.equipment, MOUSE_AND_FPU | (count > 0 ? 1 | ((count - 1) << 6) : 0));
      },
      io(services) {
        const io = new FdcIo(chip, {
          lock: services.lock,
          dma: dma.channel(p.dma as 0 | 1 | 2 | 3),
          disk: (n) => stores[n]?.inserted,
        });
        bell.heard = () => io.serve();
        return { drain: () => io.drain() };
      },
    };
  },
});

const floppy = deviceType({
  name: 'floppy',
  bus: 'floppy-bus',
  category: 'Storage',
  description: 'virtual floppy drive',
  parents: ['device'],
  hotplug: false,
  properties: {
    unit: uint32(UNSET, 'unit on the bus; the first free one when not given'),
    drive: named('drive', 'Node name or ID of a block device to use as a backend'),
    'drive-type': driveKind('auto'),
    bootindex: int32(-1),
    logical_block_size: size(512),
    physical_block_size: size(512),
    min_io_size: size(0),
    opt_io_size: size(0),
    discard_granularity: size(UNSET),
    'write-cache': choice(['auto', 'on', 'off'], 'auto', 'OnOffAuto'),
    'share-rw': bool(false),
    backend_defaults: choice(['auto', 'on', 'off'], 'auto', 'OnOffAuto'),
  },
  build(ctx, p) {
    const unit = ctx.bus.place(p.unit === UNSET ? undefined : p.unit);
    return {
      bootNode: `floppy@${unit}`,
      reset: () => {},
      io(services) {
        const drive = p.drive === undefined ? undefined : takeDrive(services.backends, p.drive, ctx.path);
        const store = drive && new DriveStore(drive, services, drivePolicy(drive));
        services.lock.run(() => ctx.bus.connect(unit, store, kinds[p['drive-type']]));
        if (drive) drive.changed = () => services.lock.run(() => ctx.bus.changed(unit));
        return {
          resumed: () => store?.resumed(),
          reset: () => store?.reset(),
          close() {
            if (drive) drive.user = drive.changed = undefined;
          },
        };
      },
    };
  },
});

export const floppyTypes: readonly AnyDeviceType[] = [fdc, floppy];
