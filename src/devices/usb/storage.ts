// A disk or CD-ROM on USB: bulk-only transport around SCSI commands. USB Mass Storage Class, Bulk-Only Transport 1.0.
import type { Arena } from '../../bits/arena.ts';
import { struct, type ViewOf } from '../../bits/struct.ts';
import type { Description } from './descriptors.ts';
import type { Handshake, Setup, UsbFunction } from './device.ts';

const Phase = { command: 0, dataOut: 1, dataIn: 2, status: 3, busy: 4 } as const;
const CBW = 0x43425355;
const CSW = 0x53425355;
const Status = { passed: 0, failed: 1, phase: 2 } as const;
/** Bytes of one command's data at most: more than any driver asks for at once. */
const DATA_MAX = 1 << 24;

export const storageLayout = struct(
  {
    phase: 'u8',
    status: 'u8',
    lun: 'u8',
    tag: 'u32',
    /** Bytes that the host expects, and how many it has had or given. */
    expected: 'u32',
    done: 'u32',
    residue: 'u32',
    cdb: ['u8', 16],
    cdbLength: 'u8',
    toHost: 'u8',
    /** Counts commands and resets: what ends late belongs to none. */
    epoch: 'u32',
  },
  { name: 'usb-storage', version: 1 },
);
export type StorageState = ViewOf<typeof storageLayout>;

/** Carries out commands; the result comes later, by `Storage.finished`. */
export interface StorageBackend {
  /** `out` is what the host sent with it; `room`: bytes that it takes at most. `finished` is told of `epoch`. */
  execute(epoch: number, lun: number, cdb: Uint8Array, out: Uint8Array, room: number): void;
}

export class Storage implements UsbFunction {
  readonly s: StorageState;
  readonly description: Description;
  backend: StorageBackend | undefined;
  /** Endpoint (bit 7 for IN) may have news. Set by whoever plugs it in. */
  ready: (endpoint: number) => void = () => {};
  /** What the host sent, or is to get; on the I/O thread only. */
  #data: Uint8Array = new Uint8Array(0);
  readonly #luns: number;

  constructor(o: { arena: Arena; name: string; serial: string; luns: number }) {
    this.s = o.arena.alloc(storageLayout, o.name);
    this.#luns = o.luns;
    this.description = {
      vendor: 0x46f4,
      product: 0x0001,
      release: 0,
      strings: ['QEMU', 'QEMU USB HARDDRIVE', o.serial],
      power: 0,
      selfPowered: true,
      speeds: ['full', 'high'],
      interfaces: [
        {
          class: 8,
          subclass: 6,
          protocol: 0x50,
          endpoints: [
            { address: 0x81, type: 'bulk', maxPacket: { full: 64, high: 512 } },
            { address: 0x02, type: 'bulk', maxPacket: { full: 64, high: 512 } },
          ],
        },
      ],
    };
  }

  reset(): void {
    const { s } = this;
    s.phase = Phase.command;
    s.status = s.lun = s.cdbLength = s.toHost = 0;
    s.tag = s.expected = s.done = s.residue = 0;
    s.epoch = (s.epoch + 1) >>> 0;
    this.#data = new Uint8Array(0);
  }

  control(r: Setup): Uint8Array | Handshake {
    if ((r.type & 0x60) !== 0x20) return 'stall';
    // Get Max LUN; Bulk-Only Mass Storage Reset.
    if (r.request === 0xfe) return Uint8Array.of(this.#luns - 1);
    if (r.request !== 0xff) return 'stall';
    this.reset();
    return 'ack';
  }

  out(n: number, bytes: Uint8Array): Handshake {
    if (n !== 2) return 'stall';
    const { s } = this;
    switch (s.phase) {
      case Phase.command:
        return this.#command(bytes);
      case Phase.dataOut: {
        const part = bytes.subarray(0, s.expected - s.done);
        this.#data.set(part, s.done);
        s.done += part.length;
        if (s.done === s.expected) this.#execute();
        return 'ack';
      }
      case Phase.busy:
        return 'nak';
      default:
        return 'stall';
    }
  }

  in(n: number, max: number): Uint8Array | Handshake {
    if (n !== 1) return 'stall';
    const { s } = this;
    switch (s.phase) {
      case Phase.busy:
      case Phase.dataOut:
        return 'nak';
      case Phase.dataIn: {
        const bytes = this.#data.slice(s.done, s.done + max);
        s.done += bytes.length;
        // A short packet ends the data as well.
        if (s.done === s.expected || bytes.length < max) s.phase = Phase.status;
        return bytes;
      }
      case Phase.status: {
        const csw = new Uint8Array(13);
        const view = new DataView(csw.buffer);
        view.setUint32(0, CSW, true);
        view.setUint32(4, s.tag, true);
        view.setUint32(8, s.residue, true);
        csw[12] = s.status;
        s.phase = Phase.command;
        this.#data = new Uint8Array(0);
        return csw.subarray(0, max);
      }
      default:
        return 'nak';
    }
  }

  #command(b: Uint8Array): Handshake {
    const { s } = this;
    const view = new DataView(b.buffer, b.byteOffset, b.length);
    const length = b[14]! & 0x1f;
    if (b.length !== 31 || view.getUint32(0, true) !== CBW || length === 0 || length > 16) return 'stall';
    const expected = view.getUint32(8, true);
    if (expected > DATA_MAX) return 'stall';
    s.tag = view.getUint32(4, true);
    s.expected = expected;
    s.toHost = b[12]! >>> 7;
    s.lun = b[13]! & 15;
    s.cdb.fill(0);
    s.cdb.set(b.subarray(15, 15 + length));
    s.cdbLength = length;
    s.done = 0;
    if (expected > 0 && s.toHost === 0) {
      this.#data = new Uint8Array(expected);
      s.phase = Phase.dataOut;
    } else this.#execute();
    return 'ack';
  }

  #execute(): void {
    const { s } = this;
    s.phase = Phase.busy;
    s.epoch = (s.epoch + 1) >>> 0;
    const out = s.toHost ? new Uint8Array(0) : this.#data;
    if (this.backend === undefined || s.lun >= this.#luns) this.finished(s.epoch, new Uint8Array(0), 0, false);
    else this.backend.execute(s.epoch, s.lun, s.cdb.slice(0, s.cdbLength), out, s.toHost ? s.expected : 0);
  }

  /** The command is done: `data` for the host, or how many bytes of its data were used. With the board's lock held. */
  finished(epoch: number, data: Uint8Array, used: number, good: boolean): void {
    const { s } = this;
    if (s.phase !== Phase.busy || s.epoch !== epoch) return;
    s.status = good ? Status.passed : Status.failed;
    s.done = 0;
    const toHost = data.subarray(0, s.expected);
    s.residue = s.expected - (s.toHost ? toHost.length : Math.min(s.expected, used));
    // Less than the host expects is filled up with zeros, as QEMU does it (Bulk-Only Transport 1.0, section 6.7.2): SeaBIOS knows no short packets of xHCI.
    this.#data = new Uint8Array(s.toHost ? s.expected : 0);
    this.#data.set(toHost.subarray(0, this.#data.length));
    s.phase = s.toHost && s.expected > 0 ? Phase.dataIn : Phase.status;
    this.ready(0x81);
    this.ready(0x02);
  }
}
