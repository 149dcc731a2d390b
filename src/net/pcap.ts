// Captures of frames in the pcap format. draft-ietf-opsawg-pcap (2024), sections 4 and 5; QEMU 7.2 system manual, `-object filter-dump`.
import type { NetBackend } from './backend.ts';

/** The file's header, little-endian, microseconds, Ethernet. `snaplen`: bytes of each frame that are kept. */
export function pcapHeader(snaplen = 65_536): Uint8Array {
  const d = new DataView(new ArrayBuffer(24));
  d.setUint32(0, 0xa1b2_c3d4, true);
  d.setUint16(4, 2, true);
  d.setUint16(6, 4, true);
  d.setUint32(16, snaplen, true);
  d.setUint32(20, 1, true);
  return new Uint8Array(d.buffer);
}

/** One frame with its time, seconds since 1970. */
export function pcapRecord(frame: Uint8Array, seconds: number, snaplen = 65_536): Uint8Array {
  const kept = Math.min(frame.length, snaplen);
  const b = new Uint8Array(16 + kept);
  const d = new DataView(b.buffer);
  const micros = Math.floor(seconds * 1e6);
  d.setUint32(0, Math.floor(micros / 1e6), true);
  d.setUint32(4, micros % 1e6, true);
  d.setUint32(8, kept, true);
  d.setUint32(12, frame.length, true);
  b.set(frame.subarray(0, kept), 16);
  return b;
}

export interface CaptureOptions {
  /** Takes the file's bytes, header first. */
  write(bytes: Uint8Array): void;
  /** Wall-clock time in seconds since 1970. */
  seconds(): number;
  /** Bytes of each frame that are kept; 65536 where it is missing. */
  readonly snaplen?: number;
  /** Which frames: from the guest (`tx`), to it (`rx`), or both. */
  readonly queue?: 'rx' | 'tx' | 'all';
}

/** `backend` with a capture of what passes. */
export function capture(backend: NetBackend, options: CaptureOptions): NetBackend {
  const { write, seconds, snaplen = 65_536, queue = 'all' } = options;
  write(pcapHeader(snaplen));
  const net: NetBackend = {
    receive: () => {},
    send(frame) {
      if (queue !== 'rx') write(pcapRecord(frame, seconds(), snaplen));
      backend.send(frame);
    },
    close: () => backend.close(),
  };
  backend.receive = (frame) => {
    if (queue !== 'tx') write(pcapRecord(frame, seconds(), snaplen));
    net.receive(frame);
  };
  return net;
}
