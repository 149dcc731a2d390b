// `nvme`: an NVMe controller with one namespace over a drive.

import type { IrqLine } from '../../bus/irq.ts';
import { readsAtOnce } from '../../devices/nvme/at-once.ts';
import { IO_QUEUES_MAX, NVME_BAR, Nvme } from '../../devices/nvme/controller.ts';
import { NvmeIo } from '../../devices/nvme/io.ts';
import { PciFunction } from '../../devices/pci-function.ts';
import { Msix, msixBarSize } from '../../devices/pci-msix.ts';
import { deviceType } from '../device-type.ts';
import { DirectPlaces, DirectReader } from '../direct-reads.ts';
import { DriveStore, drivePolicy } from '../drive-store.ts';
import { takeDrive } from '../drives.ts';
import { bool, choice, int32, named, size, str, uint8, uint16, uint32 } from '../properties.ts';

export const nvmeType = deviceType({
  name: 'nvme',
  bus: 'PCI',
  category: 'Storage',
  description: 'Non-Volatile Memory Express',
  parents: ['pci-device', 'device'],
  properties: {
    drive: named('drive', 'Node name or ID of a block device to use as a backend'),
    serial: str('serial number; must be given'),
    bootindex: int32(-1),
    max_ioqpairs: uint32(64),
    msix_qsize: uint16(65),
    mdts: uint8(7),
    logical_block_size: size(512),
    physical_block_size: size(512),
    min_io_size: size(0),
    opt_io_size: size(0),
    discard_granularity: size(0xffff_ffff),
    'write-cache': choice(['auto', 'on', 'off'], 'auto', 'OnOffAuto'),
    'share-rw': bool(false),
    rerror: choice(['auto', 'report', 'ignore', 'stop'], 'auto', 'BlockdevOnError'),
    werror: choice(['auto', 'report', 'ignore', 'stop', 'enospc'], 'auto', 'BlockdevOnError'),
  },
  build(ctx, p) {
    if (p.serial === undefined) throw new Error('serial property not set');
    const { serial } = p;
    const shift = Math.log2(p.logical_block_size);
    if (shift !== 9 && shift !== 12)
      throw new Error(`Cannot use logical_block_size=${p.logical_block_size}: accepted are 512 and 4096`);
    if (p.max_ioqpairs < 1 || p.max_ioqpairs > IO_QUEUES_MAX)
      throw new Error(`Cannot use max_ioqpairs=${p.max_ioqpairs}: accepted are 1 to ${IO_QUEUES_MAX}`);
    if (p.msix_qsize < 1 || p.msix_qsize > 2048) throw new Error(`Cannot use msix_qsize=${p.msix_qsize}: accepted are 1 to 2048`);
    if (p.mdts !== 7) throw new Error(`Cannot use mdts=${p.mdts}: accepted is 7`);
    const bell = ctx.doorbell();
    const msix = new Msix({ arena: ctx.arena, name: ctx.name, vectors: p.msix_qsize, send: ctx.msi });
    const wire: { irq?: IrqLine } = {};
    const direct = new DirectReader(ctx);
    const nvme: Nvme = new Nvme({
      arena: ctx.arena,
      name: ctx.name,
      ring: () => bell.ring(),
      atOnce: direct.able ? (queue) => atOnce(queue) : undefined,
      wire: (level) => wire.irq?.set(msix.enabled ? 0 : level),
      notify: (vector) => msix.notify(vector),
      report: ctx.report,
    });
    const atOnce = readsAtOnce({ nvme, memory: ctx.memory, blockShift: shift }, (...read) => direct.read(...read));
    const f = new PciFunction({
      ...{ arena: ctx.arena, name: ctx.name, vendor: 0x1b36, device: 0x0010, revision: 2, classCode: 0x01_0802 },
      ...{ subsystemVendor: 0x1af4, subsystem: 0x1100, interruptPin: 1 as const },
      bars: [
        { index: 0, kind: 'mem64', name: 'nvme-bar0', size: NVME_BAR, handler: nvme.handler },
        { index: 4, kind: 'mem32', name: 'nvme-msix', size: msixBarSize(p.msix_qsize), handler: msix.handler },
      ],
    });
    wire.irq = f.intx;
    msix.attach(f, 4);
    ctx.plug(f);
    let store: DriveStore | undefined;
    return {
      bootNode: 'pci1b36,10/namespace@1,0',
      reset() {
        f.reset();
        nvme.reset();
        msix.reset();
        if (p['write-cache'] === 'off') nvme.s.writeCache = 0;
      },
      io(services) {
        if (p.drive === undefined) throw new Error('drive property not set');
        const drive = takeDrive(services.backends, p.drive, ctx.path);
        const places = new DirectPlaces(direct.state, services.lock, drive);
        const over = new DriveStore(drive, services, drivePolicy(drive, p.rerror, p.werror), places);
        store = over;
        const io = new NvmeIo({
          ...{ nvme, lock: services.lock, memory: services.memory, vectors: p.msix_qsize, ioQueues: p.max_ioqpairs },
          store: () => store?.inserted,
          identity: { serial, model: 'QEMU NVMe Ctrl', firmware: '7.2.0', blockShift: shift },
        });
        bell.heard = () => io.serve();
        return {
          drain: () => over.drained(io.drain()),
          resumed: () => over.resumed(),
          reset: () => over.reset(),
          close() {
            places.close();
            drive.user = undefined;
          },
        };
      },
    };
  },
});
