// virtio over PCI, modern, transitional and legacy alone: capabilities, the common configuration, notifications, MSI-X. Virtual I/O Device (VIRTIO)
// 1.2, section 4.1; identities, BARs and offsets are QEMU 7.2's.
import type { Arena } from '../../bits/arena.ts';
import type { MsiSink } from '../../bus/irq.ts';
import { type Register, registers, ro, rw, wo } from '../../bus/registers.ts';
import type { Handler } from '../../bus/space.ts';
import { type Bar, PciFunction } from '../pci-function.ts';
import { Msix, msixBarSize } from '../pci-msix.ts';
import type { VirtioCore } from './core.ts';
import { NO_VECTOR } from './state.ts';

/** Which interfaces a function has. */
export type VirtioMode = 'transitional' | 'modern' | 'legacy';

export interface VirtioPciOptions {
  readonly arena: Arena;
  readonly name: string;
  readonly core: VirtioCore;
  readonly mode: VirtioMode;
  readonly classCode: number;
  /** 0: no MSI-X. */
  readonly vectors: number;
  readonly multifunction: boolean;
  readonly msi: MsiSink;
  readonly shape?: VirtioPciShape;
  /** Accelerators may take notifications in the device's place. */
  readonly ioeventfd?: boolean;
}

/** Where a function that is more than a virtio device has its BARs. */
export interface VirtioPciShape {
  readonly memoryBar: number;
  readonly msixBar: number;
  /** What stands before virtio's registers in their BAR, a multiple of 4,096 bytes. */
  readonly front: { readonly bytes: number; readonly handler: Handler };
  readonly bars: readonly Bar[];
}

const VENDOR = 0x1af4;
/** Transitional device IDs by the kind's number (section 4.1.2.1). */
const LEGACY_ID: Readonly<Record<number, number>> = {
  1: 0x1000,
  2: 0x1001,
  3: 0x1003,
  4: 0x1005,
  5: 0x1002,
  8: 0x1004,
  9: 0x1009,
};
/** BARs of a function that is nothing else. */
const usual: VirtioPciShape = {
  memoryBar: 4,
  msixBar: 1,
  front: { bytes: 0, handler: { read: () => 0, write: () => {} } },
  bars: [],
};
/** Where things lie in the BAR of virtio's registers. */
const At = { common: 0, isr: 0x1000, device: 0x2000, notify: 0x3000, size: 0x4000, each: 0x1000 } as const;
const NOTIFY_MULTIPLIER = 4;
/** A legacy queue's address is in pages of this size. */
const PAGE = 4096;

/** Halves of a 64-bit address that is kept as a number. */
const high = (a: number): number => Math.floor(a / 2 ** 32);
const low = (a: number): number => a % 2 ** 32;

const q = (c: VirtioCore) => c.selected?.s;
const halves = (offset: number, name: string, field: 'desc' | 'driver' | 'device'): Register<VirtioPci>[] => [
  rw(
    offset,
    4,
    `${name} low`,
    (d) => low(q(d.core)?.[field] ?? 0),
    (d, v) => d.setQueue((s) => (s[field] = high(s[field]) * 2 ** 32 + v)),
  ),
  rw(
    offset + 4,
    4,
    `${name} high`,
    (d) => high(q(d.core)?.[field] ?? 0),
    (d, v) => d.setQueue((s) => (s[field] = v * 2 ** 32 + low(s[field]))),
  ),
];

const common = registers<VirtioPci>('virtio common configuration', 0x40, [
  rw(0, 4, 'device_feature_select', (d) => d.core.s.deviceFeatureSelect, (d, v) => (d.core.s.deviceFeatureSelect = v)),
  ro(4, 4, 'device_feature', (d) => d.core.offered(d.core.s.deviceFeatureSelect)),
  rw(8, 4, 'driver_feature_select', (d) => d.core.s.driverFeatureSelect, (d, v) => (d.core.s.driverFeatureSelect = v)),
  rw(12, 4, 'driver_feature', (d) => d.core.s.accepted[d.core.s.driverFeatureSelect] ?? 0, (d, v) =>
    d.core.accept(d.core.s.driverFeatureSelect, v),
  ),
  rw(16, 2, 'config_msix_vector', (d) => d.core.s.configVector, (d, v) => (d.core.s.configVector = d.vector(v))),
  ro(18, 2, 'num_queues', (d) => d.core.queues.length),
  rw(20, 1, 'device_status', (d) => d.core.status, (d, v) => d.core.setStatus(v)),
  ro(21, 1, 'config_generation', (d) => d.core.s.configGeneration),
  rw(22, 2, 'queue_select', (d) => d.core.s.queueSelect, (d, v) => (d.core.s.queueSelect = v)),
  rw(24, 2, 'queue_size', (d) => q(d.core)?.size ?? 0, (d, v) => d.setQueueSize(v)),
  rw(26, 2, 'queue_msix_vector', (d) => q(d.core)?.vector ?? NO_VECTOR, (d, v) => {
    const s = q(d.core);
    if (s) s.vector = d.vector(v);
  }),
  rw(28, 2, 'queue_enable', (d) => q(d.core)?.enabled ?? 0, (d, v) => {
    const s = q(d.core);
    if (s && v === 1) s.enabled = 1;
  }),
  ro(30, 2, 'queue_notify_off', (d) => d.core.s.queueSelect),
  ...halves(32, 'queue_desc', 'desc'),
  ...halves(40, 'queue_driver', 'driver'),
  ...halves(48, 'queue_device', 'device'),
  ro(56, 2, 'queue_notify_data', (d) => d.core.s.queueSelect),
  rw(58, 2, 'queue_reset', () => 0, (d, v) => {
    if (v === 1 && d.core.selected) d.core.resetQueue(d.core.s.queueSelect);
  }),
]); // biome-ignore format: one row per register

/** The legacy interface's registers (section 4.1.4.10), without the vectors, which are there while MSI-X is on. */
const legacy = registers<VirtioPci>('virtio legacy', 20, [
  ro(0, 4, 'device features', (d) => d.core.offered(0, true)),
  rw(4, 4, 'guest features', (d) => d.core.s.accepted[0]!, (d, v) => d.core.accept(0, v, true)),
  rw(8, 4, 'queue address', (d) => (q(d.core)?.desc ?? 0) / PAGE, (d, v) => d.setLegacyQueue(v)),
  ro(12, 2, 'queue size', (d) => q(d.core)?.size ?? 0),
  rw(14, 2, 'queue select', (d) => d.core.s.queueSelect, (d, v) => (d.core.s.queueSelect = v)),
  wo(16, 2, 'queue notify', (d, v) => d.core.kick(v)),
  rw(18, 1, 'device status', (d) => d.core.status, (d, v) => d.setLegacyStatus(v)),
  ro(19, 1, 'isr status', (d) => d.core.takeIsr()),
]); // biome-ignore format: one row per register

export class VirtioPci {
  readonly core: VirtioCore;
  readonly f: PciFunction;
  readonly #msix: Msix | undefined;
  readonly #mode: VirtioMode;
  readonly #memory: Handler;
  #window = 0;
  readonly #start: number;
  readonly #memoryBar: number;
  readonly #ioeventfd: boolean;

  constructor(o: VirtioPciOptions) {
    const { core, arena, name } = o;
    this.core = core;
    this.#mode = o.mode;
    const { id } = core.model;
    this.#msix = o.vectors > 0 ? new Msix({ arena, name, vectors: o.vectors, send: o.msi }) : undefined;
    this.#ioeventfd = o.ioeventfd ?? true;
    this.#memory = this.#regions(common.bind(this));
    const old = o.mode !== 'modern';
    const modern = o.mode !== 'legacy';
    const { memoryBar, msixBar, front, bars } = o.shape ?? usual;
    const start = front.bytes;
    const handler: Handler =
      start === 0
        ? this.#memory
        : {
            read: (at, size) => (at < start ? front.handler.read(at, size) : this.#memory.read(at - start, size)),
            write: (at, size, v) => (at < start ? front.handler.write(at, size, v) : this.#memory.write(at - start, size, v)),
            bells: () => this.#memory.bells!().map((b) => ({ ...b, offset: b.offset + start })),
          };
    this.#start = start;
    this.#memoryBar = memoryBar;
    const ioSize = 2 ** Math.ceil(Math.log2(24 + core.model.config.length));
    this.f = new PciFunction({
      arena,
      name,
      vendor: VENDOR,
      device: old ? (LEGACY_ID[id] ?? 0x1040 + id) : 0x1040 + id,
      revision: old ? 0 : 1,
      classCode: o.classCode,
      subsystemVendor: VENDOR,
      subsystem: old ? id : 0x1100,
      interruptPin: 1,
      multifunction: o.multifunction,
      bars: [
        ...(old
          ? [{ index: 0, kind: 'io', name: 'virtio-pci', size: Math.max(32, ioSize), handler: this.#legacy() } as const]
          : []),
        ...bars,
        ...(this.#msix
          ? [
              {
                index: msixBar,
                kind: 'mem32',
                name: 'virtio-pci-msix',
                size: msixBarSize(o.vectors),
                handler: this.#msix.handler,
              } as const,
            ]
          : []),
        ...(modern
          ? [
              {
                index: memoryBar,
                kind: 'mem64',
                name: 'virtio-pci',
                size: start === 0 ? At.size : 2 * At.size,
                handler,
                prefetchable: true,
              } as const,
            ]
          : []),
      ],
    });
    const le32 = (v: number): number[] => [v & 0xff, (v >>> 8) & 0xff, (v >>> 16) & 0xff, v >>> 24];
    const capability = (type: number, offset: number, length: number, more: number[] = []): void => {
      this.f.addCapability(9, [16 + more.length, type, memoryBar, 0, 0, 0, ...le32(start + offset), ...le32(length), ...more]);
    };
    if (modern) {
      capability(1, At.common, At.each);
      capability(3, At.isr, At.each);
      capability(4, At.device, At.each);
      capability(2, At.notify, At.each, le32(NOTIFY_MULTIPLIER));
      // The window into the BAR for those who cannot map it: BAR, offset, length and data can be written.
      this.#window = this.f.addCapability(9, [20, 5, ...new Array(16).fill(0)], [
      0, 0, 0xff, 0, 0, 0, ...new Array(12).fill(0xff),
    ]); // biome-ignore format: bytes
      this.f.onWrite((offset, size) => this.#windowWrite(offset, size));
      this.f.onRead((offset, size) => this.#windowRead(offset, size));
    }
    this.#msix?.attach(this.f, msixBar);
    core.attach({
      queue: (v) => this.#interrupt(v),
      config: (v) => this.#interrupt(v),
      acknowledged: () => this.f.intx.set(0),
    });
  }

  reset(): void {
    this.f.reset();
    this.#msix?.reset();
    this.core.reset();
  }

  #interrupt(vector: number): void {
    if (this.#msix?.enabled) {
      if (vector !== NO_VECTOR) this.#msix.notify(vector);
    } else this.f.intx.set(1);
  }

  // -- registers

  vector(v: number): number {
    return v < (this.#msix?.vectors ?? 0) ? v : NO_VECTOR;
  }
  /** Changes the selected queue unless it is at work. */
  setQueue(change: (s: NonNullable<ReturnType<typeof q>>) => void): void {
    const s = q(this.core);
    if (s && s.enabled === 0) change(s);
  }
  setQueueSize(v: number): void {
    const most = this.core.model.queues[this.core.s.queueSelect] ?? 0;
    // Packed rings may have any size.
    if (v > 0 && v <= most && (this.core.kind.packed || (v & (v - 1)) === 0)) this.setQueue((s) => (s.size = v));
  }
  setLegacyQueue(page: number): void {
    if (page === 0 && q(this.core)) this.core.reset();
    else this.core.setLegacyQueue(page * PAGE, PAGE);
  }
  setLegacyStatus(v: number): void {
    this.core.setStatus(v, true);
  }

  #regions(commonMap: Handler): Handler {
    const { core } = this;
    return {
      read: (offset, size) => {
        const at = offset & 0xfff;
        switch (offset & 0xf000) {
          case At.common:
            return at < 0x40 ? commonMap.read(at, size) : 0;
          case At.isr:
            return at === 0 ? core.takeIsr() : 0;
          case At.device:
            return core.configRead(at, size);
          default:
            return 0;
        }
      },
      write: (offset, size, value) => {
        const at = offset & 0xfff;
        switch (offset & 0xf000) {
          case At.common:
            if (at < 0x40) commonMap.write(at, size, value);
            return;
          case At.device:
            core.configWrite(at, size, value);
            return;
          case At.notify:
            core.kick(Math.floor(at / NOTIFY_MULTIPLIER));
        }
      },
      bells: () => this.#bells().map(({ queue, words }) => ({ offset: At.notify + NOTIFY_MULTIPLIER * queue, size: 2, words })),
    };
  }

  #bells(): ReturnType<VirtioCore['bells']> {
    return this.#ioeventfd ? this.core.bells().filter(({ queue }) => queue < At.each / NOTIFY_MULTIPLIER) : [];
  }

  #legacy(): Handler {
    const { core } = this;
    const map = legacy.bind(this);
    const config = (): number => (this.#msix?.enabled ? 24 : 20);
    const s = core.s;
    return {
      read: (offset, size) => {
        if (offset + size <= 20) return map.read(offset, size);
        const at = offset - config();
        if (at >= 0) return core.configRead(at, size);
        return offset < 22 ? s.configVector : (q(core)?.vector ?? NO_VECTOR);
      },
      write: (offset, size, value) => {
        if (offset + size <= 20) return map.write(offset, size, value);
        const at = offset - config();
        if (at >= 0) return core.configWrite(at, size, value);
        const selected = q(core);
        if (offset < 22) s.configVector = this.vector(value & 0xffff);
        else if (selected) selected.vector = this.vector(value & 0xffff);
      },
      bells: () => this.#bells().map(({ queue, words }) => ({ offset: 16, size: 2, match: queue, words })),
    };
  }

  // -- the window of capability 5

  #windowAt(): { offset: number; size: number } | undefined {
    const f = this.f;
    const offset = f.read(this.#window + 8, 4) - this.#start;
    const size = f.read(this.#window + 12, 4);
    const fits = (size === 1 || size === 2 || size === 4) && offset >= 0 && offset % size === 0 && offset + size <= At.size;
    return f.read(this.#window + 4, 1) === this.#memoryBar && fits ? { offset, size } : undefined;
  }
  #windowWrite(offset: number, size: number): void {
    const data = this.#window + 16;
    const window = offset < data + 4 && offset + size > data ? this.#windowAt() : undefined;
    if (window) this.#memory.write(window.offset, window.size, this.f.read(data, window.size));
  }
  #windowRead(offset: number, size: number): void {
    const data = this.#window + 16;
    const window = offset < data + 4 && offset + size > data ? this.#windowAt() : undefined;
    if (window) this.f.poke(data, 4, this.#memory.read(window.offset, window.size));
  }

  get mode(): VirtioMode {
    return this.#mode;
  }
}
