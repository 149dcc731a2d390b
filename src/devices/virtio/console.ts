// Console device with many ports: configuration, control messages, which queue is whose.
// Virtual I/O Device (VIRTIO) 1.2, section 5.3; defaults are QEMU 7.2's (`virtio-serial-pci`).
import { struct, type ViewOf } from '../../bits/struct.ts';
import type { VirtioModel } from './core.ts';

export const ConsoleFeature = { size: 1n << 0n, multiport: 1n << 1n, emergencyWrite: 1n << 2n } as const;

const MAX_PORTS = 511;
export const consoleLayout = struct(
  {
    /** By port: the driver is ready for it; the guest has it open. */
    ready: ['u8', MAX_PORTS],
    open: ['u8', MAX_PORTS],
    /** The driver has said that it is ready for the device. */
    driverReady: 'u8',
  },
  { name: 'virtio-console', version: 1 },
);
export type ConsoleState = ViewOf<typeof consoleLayout>;

/** Queues of a port: what the guest receives, what it sends. The control queues are 2 and 3. */
export const portQueues = (port: number): { readonly receive: number; readonly transmit: number } => {
  const first = port === 0 ? 0 : 2 * port + 2;
  return { receive: first, transmit: first + 1 };
};
export const CONTROL_RECEIVE = 2;
export const CONTROL_TRANSMIT = 3;

export const Control = {
  deviceReady: 0,
  portAdd: 1,
  portRemove: 2,
  portReady: 3,
  consolePort: 4,
  resize: 5,
  portOpen: 6,
  portName: 7,
} as const;
export interface ControlMessage {
  readonly port: number;
  readonly event: number;
  readonly value: number;
}
export function encodeControl(m: ControlMessage, rest: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(8 + rest.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, m.port, true);
  view.setUint16(4, m.event, true);
  view.setUint16(6, m.value, true);
  bytes.set(rest, 8);
  return bytes;
}
export function decodeControl(bytes: Uint8Array): ControlMessage | undefined {
  if (bytes.length < 8) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return { port: view.getUint32(0, true), event: view.getUint16(4, true), value: view.getUint16(6, true) };
}

/** `ports` is 1 to 511. `emergency` gets bytes that a guest writes before it has a driver. */
export function consoleModel(s: ConsoleState, ports: number, emergency: ((byte: number) => void) | undefined): VirtioModel {
  if (!(ports >= 1 && ports <= MAX_PORTS)) throw new Error(`Cannot make ${ports} ports: max_ports accepts 1 to ${MAX_PORTS}`);
  const config = new DataView(new ArrayBuffer(12));
  config.setUint32(4, ports, true);
  return {
    id: 3,
    queues: new Array<number>(2 * (ports + 1)).fill(128).map((n, queue) => (queue === 2 || queue === 3 ? 32 : n)),
    features: (ports > 1 ? ConsoleFeature.multiport : 0n) | (emergency ? ConsoleFeature.emergencyWrite : 0n),
    config: {
      length: config.byteLength,
      read: (offset) => config.getUint8(offset),
      write: (offset, byte) => {
        if (offset === 8) emergency?.(byte);
      },
    },
    statusChanged(status) {
      if (status !== 0) return;
      s.ready.fill(0);
      s.open.fill(0);
      s.driverReady = 0;
    },
  };
}
