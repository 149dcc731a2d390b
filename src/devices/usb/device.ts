// A USB device on a port: its default control pipe with the standard requests; what it is beyond that is a `UsbFunction`. Universal Serial Bus Specification 2.0, chapters 8 and 9.
import type { Arena } from '../../bits/arena.ts';
import { struct, type ViewOf } from '../../bits/struct.ts';
import { type Description, descriptor, type Speed } from './descriptors.ts';

/** How a transaction ends that brings no bytes: done, not now (the host tries again), never. */
export type Handshake = 'ack' | 'nak' | 'stall';

export interface Setup {
  /** Bit 7: to the host; bits 5 and 6: standard, class, vendor; bits 0 to 4: device, interface, endpoint, other. */
  readonly type: number;
  readonly request: number;
  readonly value: number;
  readonly index: number;
  readonly length: number;
}

/** What a device does. Called with the board's lock held, on the I/O thread; never throws for what a guest does. */
export interface UsbFunction {
  readonly description: Description;
  /** State after a bus reset. */
  reset(): void;
  /** Requests beyond the standard ones: bytes for the host, or the end of one that has none; `data` came from the host. */
  control(setup: Setup, data: Uint8Array): Uint8Array | Handshake;
  /** At most `max` bytes of endpoint `n` for the host. */
  in(n: number, max: number): Uint8Array | Handshake;
  /** Bytes of the host for endpoint `n`: all of them are taken, or none. */
  out(n: number, bytes: Uint8Array): Handshake;
}

const BUFFER = 4096;
const speeds: readonly Speed[] = ['low', 'full', 'high'];
const Stage = { idle: 0, in: 1, out: 2, status: 3 } as const;

export const usbLayout = struct(
  {
    address: 'u8',
    configuration: 'u8',
    remoteWakeup: 'u8',
    /** Where a controller has chosen a speed: its place in `speeds` plus one. */
    speed: 'u8',
    stage: 'u8',
    /** Endpoints that are halted: OUT from bit 0, IN from bit 16. */
    halted: 'u32',
    setup: ['u8', 8],
    length: 'u16',
    done: 'u16',
    buffer: ['u8', BUFFER],
  },
  { name: 'usb', version: 1 },
);

const Request = {
  getStatus: 0,
  clearFeature: 1,
  setFeature: 3,
  setAddress: 5,
  getDescriptor: 6,
  getConfiguration: 8,
  setConfiguration: 9,
  getInterface: 10,
  setInterface: 11,
} as const;
const HALT = 0;
const WAKEUP = 1;

export const isIn = (s: Setup): boolean => (s.type & 0x80) !== 0;
export function readSetup(b: Uint8Array): Setup {
  const u16 = (at: number): number => b[at]! | (b[at + 1]! << 8);
  return { type: b[0]!, request: b[1]!, value: u16(2), index: u16(4), length: u16(6) };
}

const haltBit = (endpoint: number): number => (1 << ((endpoint & 15) + (endpoint & 0x80 ? 16 : 0))) >>> 0;

export class UsbDevice {
  readonly s: ViewOf<typeof usbLayout>;
  readonly name: string;
  readonly fn: UsbFunction;
  /** The best speed of the port that it is plugged into; set by the bus, on every thread. */
  portSpeed: Speed = 'full';
  /** Tells the controller that an endpoint (bit 7 for IN) that said "not now" may have news; set by the bus. */
  wake: (endpoint: number) => void = () => {};

  constructor(arena: Arena, name: string, fn: UsbFunction) {
    this.s = arena.alloc(usbLayout, name);
    this.name = name;
    this.fn = fn;
  }

  /** The speed at which it runs. */
  get speed(): Speed {
    return speeds[this.s.speed - 1] ?? this.portSpeed;
  }
  set speed(speed: Speed) {
    this.s.speed = speeds.indexOf(speed) + 1;
  }

  /** As it is plugged in. */
  powerOn(): void {
    this.s.speed = 0;
    this.reset();
  }

  /** A bus reset: no address, not configured. */
  reset(): void {
    const { s } = this;
    s.address = s.configuration = s.remoteWakeup = s.stage = 0;
    s.halted = s.length = s.done = 0;
    this.fn.reset();
  }

  // ── Transactions ──

  /** A SETUP transaction: always taken. */
  setup(bytes: Uint8Array): Handshake {
    const { s } = this;
    s.setup.set(bytes.subarray(0, 8));
    const setup = readSetup(s.setup);
    s.done = 0;
    s.length = 0;
    if (!isIn(setup)) {
      if (setup.length > BUFFER) return this.#failed();
      s.length = setup.length;
      s.stage = setup.length > 0 ? Stage.out : Stage.status;
      return 'ack';
    }
    const answer = this.#request(setup, new Uint8Array(0));
    if (answer === 'stall' || answer === 'nak') return this.#failed();
    const data = answer === 'ack' ? new Uint8Array(0) : answer.subarray(0, Math.min(setup.length, BUFFER));
    s.buffer.set(data);
    s.length = data.length;
    s.stage = Stage.in;
    return 'ack';
  }

  /** An IN transaction for at most `max` bytes. */
  in(n: number, max: number): Uint8Array | Handshake {
    const { s } = this;
    if (n !== 0) return s.halted & haltBit(n | 0x80) ? 'stall' : s.configuration === 0 ? 'nak' : this.fn.in(n, max);
    if (s.stage === Stage.in) {
      const bytes = s.buffer.slice(s.done, Math.min(s.length, s.done + max));
      s.done += bytes.length;
      return bytes;
    }
    if (s.stage !== Stage.status) return 'stall';
    // The status of a request without data to the host: it is carried out now.
    const answer = this.#request(readSetup(s.setup), s.buffer.slice(0, s.length));
    if (answer === 'nak') return 'nak';
    s.stage = Stage.idle;
    return answer === 'stall' ? 'stall' : new Uint8Array(0);
  }

  /** An OUT transaction. */
  out(n: number, bytes: Uint8Array): Handshake {
    const { s } = this;
    if (n !== 0) return s.halted & haltBit(n) ? 'stall' : s.configuration === 0 ? 'nak' : this.fn.out(n, bytes);
    if (s.stage === Stage.out) {
      const part = bytes.subarray(0, s.length - s.done);
      s.buffer.set(part, s.done);
      s.done += part.length;
      if (s.done === s.length) s.stage = Stage.status;
      return 'ack';
    }
    // The status of a request with data to the host.
    if (s.stage === Stage.in) {
      s.stage = Stage.idle;
      return 'ack';
    }
    return 'stall';
  }

  /** A whole control transfer, for controllers that do not deal in transactions. */
  control(bytes: Uint8Array, data: Uint8Array): Uint8Array | Handshake {
    const setup = readSetup(bytes);
    const answer = this.#request(setup, isIn(setup) ? new Uint8Array(0) : data);
    return answer instanceof Uint8Array ? answer.subarray(0, setup.length) : answer;
  }

  #failed(): Handshake {
    // The stall is for the stages that follow.
    this.s.stage = Stage.idle;
    return 'ack';
  }

  // ── Standard requests, section 9.4 ──

  #request(r: Setup, data: Uint8Array): Uint8Array | Handshake {
    if ((r.type & 0x60) !== 0) return this.fn.control(r, data);
    const { s, fn } = this;
    const recipient = r.type & 0x1f;
    switch (r.request) {
      case Request.getStatus: {
        const device = (fn.description.selfPowered ? 1 : 0) | (s.remoteWakeup << 1);
        const status = recipient === 0 ? device : recipient === 2 && s.halted & haltBit(r.index) ? 1 : 0;
        return Uint8Array.of(status, 0);
      }
      case Request.clearFeature:
      case Request.setFeature: {
        const set = r.request === Request.setFeature;
        if (recipient === 0 && r.value === WAKEUP) s.remoteWakeup = set ? 1 : 0;
        else if (recipient === 2 && r.value === HALT) {
          const bit = haltBit(r.index);
          s.halted = (set ? s.halted | bit : s.halted & ~bit) >>> 0;
        } else return 'stall';
        return 'ack';
      }
      case Request.setAddress:
        s.address = r.value & 0x7f;
        return 'ack';
      case Request.getDescriptor:
        if (recipient !== 0) return fn.control(r, data);
        return descriptor(fn.description, this.speed, r.value >>> 8, r.value & 0xff) ?? 'stall';
      case Request.getConfiguration:
        return Uint8Array.of(s.configuration);
      case Request.setConfiguration:
        if (r.value > 1) return 'stall';
        s.configuration = r.value;
        s.halted = 0;
        return 'ack';
      case Request.getInterface:
        return r.index < fn.description.interfaces.length ? Uint8Array.of(0) : 'stall';
      case Request.setInterface:
        return r.index < fn.description.interfaces.length && r.value === 0 ? 'ack' : 'stall';
      default:
        return 'stall';
    }
  }
}
