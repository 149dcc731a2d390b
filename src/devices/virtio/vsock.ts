// Sockets between guest and host: identity, configuration and the header of packets. Virtual I/O Device (VIRTIO) 1.2, section 5.10.
import type { VirtioModel } from './core.ts';

/** Queues. */
export const VsockQueue = { rx: 0, tx: 1, event: 2 } as const;
/** The host's address. */
export const HOST_CID = 2;
const FEATURE_STREAM = 1n;

/** `cid` is the guest's address, 3 to 0xfffffffe. */
export function vsockModel(cid: number): VirtioModel {
  const config = new Uint8Array(8);
  new DataView(config.buffer).setUint32(0, cid, true);
  return {
    id: 19,
    queues: [128, 128, 128],
    features: FEATURE_STREAM,
    config: { length: 8, read: (offset) => config[offset]! },
  };
}

/** Bytes of a header. */
export const VSOCK_HEADER = 44;
/** Most bytes that follow a header. */
export const VSOCK_PAYLOAD = 65536;
export const VsockOp = { request: 1, response: 2, reset: 3, shutdown: 4, data: 5, creditUpdate: 6, creditRequest: 7 } as const;
export const VSOCK_STREAM = 1;
/** Flags of a shutdown, as who sends it sees itself. */
export const VsockShutdown = { noReceive: 1, noSend: 2 } as const;
/** The event that all connections are gone. */
export const VSOCK_TRANSPORT_RESET = 0;

export interface VsockHeader {
  readonly sourceCid: bigint;
  readonly targetCid: bigint;
  readonly sourcePort: number;
  readonly targetPort: number;
  /** Bytes that follow. */
  readonly length: number;
  readonly type: number;
  readonly op: number;
  readonly flags: number;
  /** Bytes that the sender can keep, and how many it has passed on since the beginning, modulo 2³². */
  readonly bufferSize: number;
  readonly forwarded: number;
}

/** Of 44 bytes. */
export function readVsockHeader(bytes: Uint8Array): VsockHeader {
  const v = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return {
    sourceCid: v.getBigUint64(0, true),
    targetCid: v.getBigUint64(8, true),
    sourcePort: v.getUint32(16, true),
    targetPort: v.getUint32(20, true),
    length: v.getUint32(24, true),
    type: v.getUint16(28, true),
    op: v.getUint16(30, true),
    flags: v.getUint32(32, true),
    bufferSize: v.getUint32(36, true),
    forwarded: v.getUint32(40, true),
  };
}
export function writeVsockHeader(h: VsockHeader): Uint8Array {
  const bytes = new Uint8Array(VSOCK_HEADER);
  const v = new DataView(bytes.buffer);
  v.setBigUint64(0, h.sourceCid, true);
  v.setBigUint64(8, h.targetCid, true);
  v.setUint32(16, h.sourcePort, true);
  v.setUint32(20, h.targetPort, true);
  v.setUint32(24, h.length, true);
  v.setUint16(28, h.type, true);
  v.setUint16(30, h.op, true);
  v.setUint32(32, h.flags, true);
  v.setUint32(36, h.bufferSize, true);
  v.setUint32(40, h.forwarded, true);
  return bytes;
}
