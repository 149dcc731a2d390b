// `acpi-erst`: where the guest's firmware interface keeps error records over crashes, in a memory back-end. QEMU docs/specs/acpi_erst.rst.

import type { Doorbell } from '../../bus/doorbell.ts';
import { ERST_SLOT_LEAST, ERST_STORAGE_MOST, Erst } from '../../devices/erst.ts';
import { PciFunction, pci } from '../../devices/pci-function.ts';
import { type Device, deviceType, type IoServices, type IoSide } from '../device-type.ts';
import { named, uint32 } from '../properties.ts';
import { linearHandler } from './display.ts';

const REGISTERS = 16;

export const acpiErst = deviceType({
  name: 'acpi-erst',
  bus: 'PCI',
  category: 'Misc',
  description: 'ACPI Error Record Serialization Table (ERST) device',
  parents: ['pci-device', 'device'],
  hotplug: false,
  properties: {
    memdev: { ...named('memory back-end', 'ID of the memory back-end that keeps the records'), type: 'link<memory-backend>' },
    record_size: uint32(8192, 'bytes of a record in a storage that is new; one that is not has its own'),
  },
  /** The buffer for one record. */
  memory: (p) => Math.min(Math.max(p.record_size, ERST_SLOT_LEAST), ERST_STORAGE_MOST),
  build(ctx, p) {
    const { memdev } = p;
    if (memdev === undefined) throw new Error("'memdev' property is not set");
    const storage = ctx.memdev(memdev);
    if (!storage) throw new Error(`Cannot find memory back-end '${memdev}'`);
    const host = ctx.slots.alloc(`${ctx.name} exchange`, p.record_size);
    const exchange = new Uint8Array(ctx.buffer, host, p.record_size);
    const bell = ctx.doorbell('changed');
    const part: { range?: () => number } = {};
    const store = new Erst({
      ...{ arena: ctx.arena, name: ctx.name, storage, exchange, report: ctx.report },
      range: () => part.range?.() ?? 0,
      changed: () => bell.ring(),
    });
    const buffer = {
      ...{ index: 1, kind: 'mem32' as const, name: 'erst.exchange', size: exchange.length, handler: linearHandler(exchange) },
      memory: { slot: ctx.slots.slot(ctx.name), host },
    };
    const f = new PciFunction({
      ...{ arena: ctx.arena, name: ctx.name, vendor: 0x1b36, device: 0x0012, classCode: 0x00_ff00 },
      ...{ subsystemVendor: 0x1af4, subsystem: 0x1100 },
      bars: [{ index: 0, kind: 'mem32', name: 'acpi-erst', size: REGISTERS, handler: store.handler }, buffer],
    });
    part.range = () => f.barAddress(buffer);
    ctx.plug(f);
    return {
      reset() {
        f.reset();
        store.reset();
      },
      // OVMF reads the tables with decoding off: QEMU has made them before, while it was on.
      errorRecords: () => (f.read(pci.bar0, 4) & ~15) >>> 0,
      io: (services) => keeping(services, memdev, storage, store, bell),
    } satisfies Device;
  },
});

/** Puts the back-end's contents in, and writes to it what the guest changes: records first, then the header that names them. */
function keeping(
  { backends, lock, report }: IoServices,
  memdev: string,
  storage: Uint8Array,
  store: Erst,
  bell: Doorbell,
): IoSide {
  const backend = backends.memories.get(memdev);
  storage.set(backend.bytes);
  let done = Promise.resolve();
  const write = async (from: number, to: number): Promise<void> => {
    if (to > from) await backend.save?.(from, storage.slice(from, to));
  };
  const keep = (all = false): Promise<void> =>
    (done = done.then(async () => {
      const dirty = lock.run(() => store.takeDirty());
      const { from, to } = all ? { from: 0, to: storage.length } : (dirty ?? { from: 0, to: 0 });
      if (to === 0) return;
      const { headerBytes } = store;
      try {
        await write(Math.max(from, headerBytes), to);
        await write(0, headerBytes);
      } catch (error) {
        report('acpi-erst', `Cannot keep records: ${error instanceof Error ? error.message : String(error)}`);
      }
    }));
  bell.heard = () => void keep();
  return {
    drain: () => keep(),
    // A saved machine's storage came with its memory.
    resumed: () => void keep(true),
    close: () => keep(),
  };
}
