// SCSI host device: its configuration, and the forms of requests, answers and events. Virtual I/O Device (VIRTIO) 1.2, section 5.6;
// defaults are QEMU 7.2's.
import type { VirtioModel } from './core.ts';

export const ScsiFeature = { hotplug: 1n << 1n, change: 1n << 2n } as const;

export const CONTROL_QUEUE = 0;
export const EVENT_QUEUE = 1;
export const FIRST_REQUEST_QUEUE = 2;

export const CDB_BYTES = 32;
export const SENSE_BYTES = 96;
/** lun[8] id[8] attribute priority crn, then the command block. */
export const REQUEST_BYTES = 19 + CDB_BYTES;
/** sense length, residual, qualifier, status, response, then the sense data. */
export const RESPONSE_BYTES = 12 + SENSE_BYTES;

export const Response = { ok: 0, badTarget: 3, busy: 5, failure: 9, complete: 0, rejected: 11, incorrectLun: 12 } as const;

export interface ScsiHostOptions {
  readonly queues: number;
  readonly queueSize: number;
  readonly maxSectors: number;
  readonly commandsPerLun: number;
  readonly hotplug: boolean;
  readonly change: boolean;
}

export function scsiModel(o: ScsiHostOptions, direct?: Pick<VirtioModel, 'atOnce' | 'servesAtOnce'>): VirtioModel {
  const config = new DataView(new ArrayBuffer(36));
  for (const [n, value] of [o.queues, o.queueSize - 2, o.maxSectors, o.commandsPerLun, 16, SENSE_BYTES, CDB_BYTES].entries())
    config.setUint32(4 * n, value, true);
  config.setUint16(30, 255, true);
  config.setUint32(32, 16383, true);
  return {
    ...direct,
    id: 8,
    queues: new Array<number>(o.queues + 2).fill(o.queueSize),
    features: (o.hotplug ? ScsiFeature.hotplug : 0n) | (o.change ? ScsiFeature.change : 0n),
    // Drivers may write sizes of sense data and command blocks; others than these have no use.
    config: { length: config.byteLength, read: (offset) => config.getUint8(offset) },
  };
}

/** Target and logical unit of a LUN field; undefined for other forms than the one there is. */
export function parseLun(lun: Uint8Array): { readonly target: number; readonly lun: number } | undefined {
  if (lun[0] !== 1) return undefined;
  const form = lun[2]! >> 6;
  if (form > 1) return undefined;
  return { target: lun[1]!, lun: ((lun[2]! & 0x3f) << 8) | lun[3]! };
}
export const lunField = (target: number, lun: number): number[] => [1, target, 0x40 | (lun >> 8), lun & 0xff, 0, 0, 0, 0];

export function scsiResponse(o: {
  readonly response: number;
  readonly status?: number;
  readonly residual?: number;
  readonly sense?: Uint8Array;
}): Uint8Array {
  const bytes = new Uint8Array(RESPONSE_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, o.sense?.length ?? 0, true);
  view.setUint32(4, o.residual ?? 0, true);
  bytes[10] = o.status ?? 0;
  bytes[11] = o.response;
  if (o.sense) bytes.set(o.sense.subarray(0, SENSE_BYTES), 12);
  return bytes;
}

/** `event` 1: a unit came (reason 1) or went (2); 3: its parameters changed (sense code as reason). */
export function scsiEvent(event: number, lun: readonly number[], reason: number): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, event, true);
  bytes.set(lun, 4);
  view.setUint32(12, reason, true);
  return bytes;
}
