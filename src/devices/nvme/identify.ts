// What Identify and Get Log Page tell. NVM Express Base Specification 1.4, sections 5.14 and 5.15.

export interface NvmeIdentity {
  readonly serial: string;
  readonly model: string;
  readonly firmware: string;
  /** log2 of the bytes of a block. */
  readonly blockShift: number;
  readonly blocks: number;
  readonly writeCache: boolean;
  readonly readOnly: boolean;
}

/** log2 of the pages that one command may move: 512 KiB. */
export const MDTS = 7;
/** Requests for asynchronous events that may wait. */
export const ASYNC_MAX = 4;
export const NSID = 1;
const EUI64 = 0x5254_0000_0000_0000n + BigInt(NSID);

const page = (): { bytes: Uint8Array; view: DataView; text: (at: number, s: string, length: number) => void } => {
  const bytes = new Uint8Array(4096);
  const text = (at: number, s: string, length: number): void => {
    const padded = s.slice(0, length).padEnd(length);
    for (let i = 0; i < length; i++) bytes[at + i] = padded.charCodeAt(i);
  };
  return { bytes, view: new DataView(bytes.buffer), text };
};

export function identifyController(o: NvmeIdentity): Uint8Array {
  const { bytes, view, text } = page();
  view.setUint16(0, 0x1b36, true);
  view.setUint16(2, 0x1af4, true);
  text(4, o.serial, 20);
  text(24, o.model, 40);
  text(64, o.firmware, 8);
  bytes[72] = 6;
  bytes.set([0x00, 0x54, 0x52], 73);
  bytes[77] = MDTS;
  view.setUint32(80, 0x0001_0400, true);
  // An I/O controller.
  bytes[111] = 1;
  bytes[258] = 3;
  bytes[259] = ASYNC_MAX - 1;
  // One firmware slot, read-only; SMART log by namespace, effects log, long log pages.
  bytes[260] = 0x03;
  bytes[261] = 0x07;
  view.setUint16(266, 343, true);
  view.setUint16(268, 373, true);
  bytes[512] = 0x66;
  bytes[513] = 0x44;
  view.setUint32(516, 1, true);
  // Compare, dataset management, write zeroes, timestamp.
  view.setUint16(520, 1 | 4 | 8 | 0x40, true);
  bytes[525] = 1;
  bytes.set(new TextEncoder().encode(`nqn.2019-08.org.qemu:${o.serial}`).subarray(0, 255), 768);
  // Power state 0: 25 W, 16 µs in, 4 µs out.
  view.setUint16(2048, 0x9c4, true);
  view.setUint32(2052, 0x10, true);
  view.setUint32(2056, 4, true);
  return bytes;
}

export function identifyNamespace(o: NvmeIdentity): Uint8Array {
  const { bytes, view } = page();
  for (const at of [0, 8, 16]) view.setBigUint64(at, BigInt(o.blocks), true);
  // Thin provisioned; preferred sizes are given.
  bytes[24] = 0x11;
  // Blocks that were deallocated read as zeros, Write Zeroes may deallocate.
  bytes[33] = 9;
  view.setUint16(64, 7, true);
  bytes[99] = o.readOnly ? 1 : 0;
  view.setBigUint64(120, EUI64, false);
  bytes[130] = o.blockShift;
  return bytes;
}

/** Namespaces above `above`. */
export function namespaceList(above: number): Uint8Array {
  const { bytes, view } = page();
  if (above < NSID) view.setUint32(0, NSID, true);
  return bytes;
}

/** Descriptors of a namespace's identity: EUI-64, command set. */
export function namespaceDescriptors(): Uint8Array {
  const { bytes, view } = page();
  bytes.set([1, 8]);
  view.setBigUint64(4, EUI64, false);
  bytes.set([4, 1], 12);
  return bytes;
}

/** SMART and health: 323 K, nothing wrong. */
export function smartLog(): Uint8Array {
  const bytes = new Uint8Array(512);
  const view = new DataView(bytes.buffer);
  view.setUint16(1, 323, true);
  bytes[3] = 100;
  bytes[4] = 10;
  return bytes;
}

export function firmwareLog(firmware: string): Uint8Array {
  const bytes = new Uint8Array(512);
  bytes[0] = 1;
  const padded = firmware.slice(0, 8).padEnd(8);
  for (let i = 0; i < 8; i++) bytes[8 + i] = padded.charCodeAt(i);
  return bytes;
}

/** Commands that are supported, and what they change. */
export function effectsLog(admin: Iterable<number>, io: Iterable<number>, writes: ReadonlySet<number>): Uint8Array {
  const { bytes, view } = page();
  for (const op of admin) view.setUint32(4 * op, 1, true);
  for (const op of io) view.setUint32(1024 + 4 * op, writes.has(op) ? 3 : 1, true);
  return bytes;
}
