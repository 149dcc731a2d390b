// virtio over MMIO: one transport of 512 bytes, with the current registers (version 2) or the legacy ones (version 1). Virtual I/O
// Device (VIRTIO) 1.2, sections 4.2.2 and 4.2.4; which one, and what an empty transport says, is QEMU 7.2's `virtio-mmio`.
import type { Arena } from '../../bits/arena.ts';
import { struct, type ViewOf } from '../../bits/struct.ts';
import type { IrqLine } from '../../bus/irq.ts';
import { type Register, registers, ro, rw, wo } from '../../bus/registers.ts';
import type { Handler } from '../../bus/space.ts';
import type { VirtioCore } from './core.ts';

/** Bytes of a transport; the device's configuration is the rest from `CONFIG` on. */
export const virtioMmioSize = 0x200;
const CONFIG = 0x100;
const NOTIFY = 0x50;

/** "virt", and QEMU's number of its vendor. */
const MAGIC = 0x7472_6976;
const VENDOR = 0x554d_4551;
/** There is no shared memory region of that number. */
const NO_REGION = 0xffff_ffff;

const mmioLayout = struct(
  {
    /** Of the legacy interface: bytes of the guest's pages, and how the used ring is aligned. */
    pageSize: 'u32',
    align: 'u32',
  },
  { name: 'virtio-mmio', version: 1 },
);

/** Halves of a 64-bit address that is kept as a number. */
const high = (a: number): number => Math.floor(a / 2 ** 32);
const low = (a: number): number => a % 2 ** 32;

const identity = (version: number): Register<VirtioMmio>[] => [
  ro(0x00, 4, 'MagicValue', () => MAGIC),
  ro(0x04, 4, 'Version', () => version),
  ro(0x08, 4, 'DeviceID', (d) => d.core.model.id),
  ro(0x0c, 4, 'VendorID', () => VENDOR),
];
const shared: Register<VirtioMmio>[] = [
  wo(0x14, 4, 'DeviceFeaturesSel', (d, v) => (d.core.s.deviceFeatureSelect = v)),
  wo(0x24, 4, 'DriverFeaturesSel', (d, v) => (d.core.s.driverFeatureSelect = v)),
  wo(0x30, 4, 'QueueSel', (d, v) => (d.core.s.queueSelect = Math.min(v, 0xffff))),
  ro(0x34, 4, 'QueueNumMax', (d) => d.mostEntries),
  wo(NOTIFY, 4, 'QueueNotify', (d, v) => d.core.kick(v)),
  ro(0x60, 4, 'InterruptStatus', (d) => Atomics.load(d.core.s.isr, 0)),
  wo(0x64, 4, 'InterruptACK', (d, v) => d.core.clearIsr(v)),
]; // biome-ignore format: one row per register
const address = (offset: number, name: string, field: 'desc' | 'driver' | 'device'): Register<VirtioMmio>[] => [
  wo(offset, 4, `${name}Low`, (d, v) => d.setQueue((s) => (s[field] = high(s[field]) * 2 ** 32 + v))),
  wo(offset + 4, 4, `${name}High`, (d, v) => d.setQueue((s) => (s[field] = v * 2 ** 32 + low(s[field])))),
]; // biome-ignore format: one row per register

/** Section 4.2.2. */
const current = registers<VirtioMmio>('virtio-mmio', CONFIG, [
  ...identity(2),
  ro(0x10, 4, 'DeviceFeatures', (d) => d.core.offered(d.core.s.deviceFeatureSelect)),
  wo(0x20, 4, 'DriverFeatures', (d, v) => d.core.accept(d.core.s.driverFeatureSelect, v)),
  ...shared,
  wo(0x38, 4, 'QueueNum', (d, v) => d.setQueueSize(v)),
  rw(0x44, 4, 'QueueReady', (d) => d.core.selected?.s.enabled ?? 0, (d, v) => d.enableQueue(v)),
  rw(0x70, 4, 'Status', (d) => d.core.status, (d, v) => d.core.setStatus(v & 0xff)),
  ...address(0x80, 'QueueDesc', 'desc'),
  ...address(0x90, 'QueueDriver', 'driver'),
  ...address(0xa0, 'QueueDevice', 'device'),
  wo(0xac, 4, 'SHMSel', () => {}),
  ro(0xb0, 4, 'SHMLenLow', () => NO_REGION),
  ro(0xb4, 4, 'SHMLenHigh', () => NO_REGION),
  ro(0xb8, 4, 'SHMBaseLow', () => NO_REGION),
  ro(0xbc, 4, 'SHMBaseHigh', () => NO_REGION),
  rw(0xc0, 4, 'QueueReset', () => 0, (d, v) => {
    if (v === 1 && d.core.selected) d.core.resetQueue(d.core.s.queueSelect);
  }),
  ro(0xfc, 4, 'ConfigGeneration', (d) => d.core.s.configGeneration),
]); // biome-ignore format: one row per register

/** Section 4.2.4. */
const legacy = registers<VirtioMmio>('virtio-mmio legacy', CONFIG, [
  ...identity(1),
  ro(0x10, 4, 'HostFeatures', (d) => (d.core.s.deviceFeatureSelect === 0 ? d.core.offered(0, true) : 0)),
  wo(0x20, 4, 'GuestFeatures', (d, v) => {
    if (d.core.s.driverFeatureSelect === 0) d.core.accept(0, v, true);
  }),
  ...shared,
  wo(0x28, 4, 'GuestPageSize', (d, v) => (d.s.pageSize = v)),
  wo(0x38, 4, 'QueueNum', (d, v) => d.setQueueSize(v)),
  wo(0x3c, 4, 'QueueAlign', (d, v) => (d.s.align = v)),
  rw(0x40, 4, 'QueuePFN', (d) => d.page, (d, v) => d.setPage(v)),
  rw(0x70, 4, 'Status', (d) => d.core.status, (d, v) => d.core.setStatus(v & 0xff, true)),
]); // biome-ignore format: one row per register

/** What a transport without a device says. */
export const emptyVirtioMmio = (isLegacy: boolean): Handler => ({
  read: (offset) => (offset === 0 ? MAGIC : offset === 4 ? (isLegacy ? 1 : 2) : offset === 0x0c ? VENDOR : 0),
  write: () => {},
});

const powerOfTwo = (v: number): boolean => v > 0 && (v & (v - 1)) === 0;

export class VirtioMmio {
  readonly core: VirtioCore;
  readonly s: ViewOf<typeof mmioLayout>;
  readonly handler: Handler;

  constructor(o: { arena: Arena; name: string; core: VirtioCore; line: IrqLine; legacy: boolean }) {
    const { core, line } = o;
    this.core = core;
    this.s = o.arena.alloc(mmioLayout, o.name);
    const map = (o.legacy ? legacy : current).bind(this);
    this.handler = {
      read: (offset, size) => {
        if (offset >= CONFIG) return core.configRead(offset - CONFIG, size);
        // Registers have 32 bits and no parts.
        return size === 4 ? map.read(offset, size) : 0;
      },
      write: (offset, size, value) => {
        if (offset >= CONFIG) core.configWrite(offset - CONFIG, size, value);
        else if (size === 4) map.write(offset, size, value);
      },
      bells: () => core.bells().map(({ queue, words }) => ({ offset: NOTIFY, size: 4, match: queue, words })),
    };
    core.attach({ queue: () => line.set(1), config: () => line.set(1), acknowledged: () => line.set(0) });
  }
  /** Power-on state. With the board's lock held. */
  reset(): void {
    this.s.pageSize = 0;
    this.s.align = 4096;
    this.core.reset();
  }

  // -- registers

  get mostEntries(): number {
    const { core } = this;
    return core.selected ? (core.model.queues[core.s.queueSelect] ?? 0) : 0;
  }
  /** Changes the selected queue unless it is at work. */
  setQueue(change: (s: NonNullable<VirtioCore['selected']>['s']) => void): void {
    const s = this.core.selected?.s;
    if (s && s.enabled === 0) change(s);
  }
  setQueueSize(v: number): void {
    if (v > 0 && v <= this.mostEntries && (this.core.kind.packed || powerOfTwo(v))) this.setQueue((s) => (s.size = v));
  }
  enableQueue(v: number): void {
    const s = this.core.selected?.s;
    if (!s) return;
    if (v === 1) s.enabled = 1;
    else if (v === 0) this.core.resetQueue(this.core.s.queueSelect);
  }
  /** The legacy interface's place of the selected queue, in pages; 0 for none. */
  get page(): number {
    const { pageSize } = this.s;
    return pageSize === 0 ? 0 : Math.floor((this.core.selected?.s.desc ?? 0) / pageSize);
  }
  setPage(page: number): void {
    const { pageSize, align } = this.s;
    if (page === 0) this.core.reset();
    else if (powerOfTwo(pageSize) && powerOfTwo(align)) this.core.setLegacyQueue(page * pageSize, align);
  }
}
