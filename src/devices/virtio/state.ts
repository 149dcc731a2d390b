// The state of a virtio device that every kind has, in shared memory. Virtual I/O Device (VIRTIO) 1.2, chapters 2 and 4.
import { type Layout, struct, type ViewOf } from '../../bits/struct.ts';

/** Feature bits that are not of one kind of device (sections 6 and 6.3; `notifyOnEmpty` and `anyLayout` are of the legacy interface). */
export const Feature = {
  notifyOnEmpty: 1n << 24n,
  anyLayout: 1n << 27n,
  indirect: 1n << 28n,
  eventIndex: 1n << 29n,
  version1: 1n << 32n,
  packed: 1n << 34n,
  ringReset: 1n << 40n,
} as const;

/** Bits of the status register (section 2.1). */
export const Status = { acknowledge: 1, driver: 2, driverOk: 4, featuresOk: 8, needsReset: 0x40, failed: 0x80 } as const;

/** No MSI-X vector. */
export const NO_VECTOR = 0xffff;

export const queueLayout = struct({
  /** Addresses of the three areas; of the descriptors, of what the driver writes, of what the device writes. */
  desc: 'f64',
  driver: 'f64',
  device: 'f64',
  size: 'u16',
  vector: 'u16',
  enabled: 'u8',
  /** Packed rings: wrap counters of the next descriptor and of the next used one. */
  wrap: 'u8',
  usedWrap: 'u8',
  /** `signalled` means something: an interrupt was considered since the ring began. */
  signalledValid: 'u8',
  /** Next entry of the available ring, or next descriptor of a packed ring. */
  next: 'u16',
  /** Next entry of the used ring, or of used descriptors of a packed ring. */
  used: 'u16',
  /** `used` when an interrupt was last considered. */
  signalled: 'u16',
  /** The driver has notified and nobody has looked yet. */
  kicked: ['i32', 1],
});
export type QueueState = ViewOf<typeof queueLayout>;

const fields = (queues: number) =>
  ({
    status: 'u8',
    configGeneration: 'u8',
    configVector: 'u16',
    queueSelect: 'u16',
    deviceFeatureSelect: 'u32',
    driverFeatureSelect: 'u32',
    /** What the driver has accepted, low word first. */
    accepted: ['u32', 2],
    /** Interrupt status: bit 0 queues, bit 1 configuration. */
    isr: ['i32', 1],
    /** How often the device was reset: requests of an earlier time are not answered. */
    epoch: ['i32', 1],
    /** Requests that the I/O side has taken and not given back. */
    inFlight: ['i32', 1],
    /** For full fences. */
    fence: ['i32', 1],
    queue: [queueLayout, queues],
  }) as const;

type StateFields = ReturnType<typeof fields>;
export type VirtioState = ViewOf<Layout<StateFields>>;
export const virtioLayout = (queues: number): Layout<StateFields> => struct(fields(queues), { name: 'virtio', version: 1 });
