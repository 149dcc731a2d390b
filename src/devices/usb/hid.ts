// Human interface devices: keyboard, mouse, tablet. USB Device Class Definition for Human Interface Devices 1.11; HID Usage Tables 1.12.
import type { Arena } from '../../bits/arena.ts';
import { struct, type ViewOf } from '../../bits/struct.ts';
import type { Description } from './descriptors.ts';
import type { Handshake, Setup, UsbFunction } from './device.ts';

const QUEUE = 32;

export const hidLayout = struct(
  {
    protocol: 'u8',
    /** In units of 4 ms; 0 for never. */
    idle: 'u8',
    leds: 'u8',
    /** Keyboard: modifiers and other keys that are down, as the last report told. */
    modifiers: 'u8',
    keys: ['u8', 16],
    head: 'u8',
    count: 'u8',
    /** Keyboard: usage, bit 8 for down. Pointers: see `PointerReport`. */
    queue: ['u16', QUEUE],
    /** Pointers: movement or position, wheel and buttons of each report that waits. */
    x: ['i32', QUEUE],
    y: ['i32', QUEUE],
    wheel: ['i32', QUEUE],
    buttons: 'u8',
    lastX: 'i32',
    lastY: 'i32',
    /** When a report was sent last, ns of the clock. */
    sent: 'f64',
  },
  { name: 'usb-hid', version: 1 },
);
export type HidState = ViewOf<typeof hidLayout>;

const HidRequest = { getReport: 1, getIdle: 2, getProtocol: 3, setReport: 9, setIdle: 10, setProtocol: 11 } as const;
const REPORT_DESCRIPTOR = 0x22;
const HID_DESCRIPTOR = 0x21;
/** Bytes of a report with as many keys as there is room for: all of them mean "too many". */
const ROLL_OVER = 1;

/** Report descriptors, section 6.2.2, by items. */
const keyboardReport = [
  0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, // Generic Desktop, Keyboard, Application
  0x75, 0x01, 0x95, 0x08, 0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, 0x15, 0x00, 0x25, 0x01, 0x81, 0x02, // modifiers
  0x95, 0x01, 0x75, 0x08, 0x81, 0x01, // reserved
  0x95, 0x05, 0x75, 0x01, 0x05, 0x08, 0x19, 0x01, 0x29, 0x05, 0x91, 0x02, // LEDs
  0x95, 0x01, 0x75, 0x03, 0x91, 0x01,
  0x95, 0x06, 0x75, 0x08, 0x15, 0x00, 0x25, 0xff, 0x05, 0x07, 0x19, 0x00, 0x29, 0xff, 0x81, 0x00, // keys
  0xc0,
] as const; // biome-ignore format: by items
const pointerReport = (axes: readonly number[]): readonly number[] => [
  0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00, // Generic Desktop, Mouse, Application, Pointer, Physical
  0x05, 0x09, 0x19, 0x01, 0x29, 0x05, 0x15, 0x00, 0x25, 0x01, 0x95, 0x05, 0x75, 0x01, 0x81, 0x02, // five buttons
  0x95, 0x01, 0x75, 0x03, 0x81, 0x01,
  ...axes,
  0x05, 0x01, 0x09, 0x38, 0x15, 0x81, 0x25, 0x7f, 0x35, 0x00, 0x45, 0x00, 0x75, 0x08, 0x95, 0x01, 0x81, 0x06, // wheel
  0xc0, 0xc0,
]; // biome-ignore format: by items
const mouseReport = pointerReport([
  0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x15, 0x81, 0x25, 0x7f, 0x75, 0x08, 0x95, 0x02, 0x81, 0x06,
]); // biome-ignore format: by items
const tabletReport = pointerReport([
  0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x15, 0x00, 0x26, 0xff, 0x7f, 0x35, 0x00, 0x46, 0xff, 0x7f, 0x75, 0x10, 0x95, 0x02, 0x81, 0x02,
]); // biome-ignore format: by items

export type HidKind = 'keyboard' | 'mouse' | 'tablet';
const kinds = {
  keyboard: { report: keyboardReport, subclass: 1, protocol: 1, product: 'QEMU USB Keyboard', packet: 8 },
  mouse: { report: mouseReport, subclass: 1, protocol: 2, product: 'QEMU USB Mouse', packet: 4 },
  tablet: { report: tabletReport, subclass: 0, protocol: 0, product: 'QEMU USB Tablet', packet: 8 },
} as const;

const clamp = (v: number, low: number, high: number): number => Math.max(low, Math.min(high, v));

export class Hid implements UsbFunction {
  readonly s: HidState;
  readonly kind: HidKind;
  readonly description: Description;
  readonly #now: () => number;
  /** There is a report for endpoint 1. Set by whoever plugs it in. */
  ready: () => void = () => {};

  /** `now` in ns; `highSpeed`: it can be fast (USB 2.0). */
  constructor(o: { arena: Arena; name: string; kind: HidKind; serial: string; highSpeed: boolean; now: () => number }) {
    this.s = o.arena.alloc(hidLayout, o.name);
    this.kind = o.kind;
    this.#now = o.now;
    const { report, subclass, protocol, product, packet } = kinds[o.kind];
    this.description = {
      vendor: 0x0627,
      product: 0x0001,
      release: 0,
      strings: ['QEMU', product, o.serial],
      power: 100,
      remoteWakeup: true,
      speeds: o.highSpeed ? ['full', 'high'] : ['full'],
      interfaces: [
        {
          class: 3,
          subclass,
          protocol,
          extra: [9, HID_DESCRIPTOR, 0x11, 0x01, 0, 1, REPORT_DESCRIPTOR, report.length & 0xff, report.length >>> 8],
          endpoints: [{ address: 0x81, type: 'interrupt', maxPacket: packet, interval: { full: 10, high: 7 } }],
        },
      ],
    };
  }

  reset(): void {
    const { s } = this;
    s.protocol = 1;
    s.idle = s.leds = s.modifiers = s.head = s.count = 0;
    s.keys.fill(0);
    s.buttons = 0;
    s.lastX = s.lastY = 0;
    s.sent = 0;
  }

  // ── From the display ──

  /** A key by its usage goes down or up. */
  key(usage: number, down: boolean): void {
    if (usage !== 0) this.#put(usage | (down ? 0x100 : 0), 0, 0, 0);
  }

  /** The pointer moves by, or for tablets is at, (x, y); buttons are bits: left, right, middle, side, extra. */
  pointer(x: number, y: number, wheel: number, buttons: number): void {
    const { s } = this;
    const last = (s.head + s.count + QUEUE - 1) % QUEUE;
    // Movement with the same buttons joins the report that waits.
    if (s.count > 0 && s.queue[last] === buttons) {
      s.x[last] = this.kind === 'mouse' ? s.x[last]! + x : x;
      s.y[last] = this.kind === 'mouse' ? s.y[last]! + y : y;
      s.wheel[last] = s.wheel[last]! + wheel;
      this.ready();
    } else this.#put(buttons, x, y, wheel);
  }

  #put(what: number, x: number, y: number, wheel: number): void {
    const { s } = this;
    // A full queue loses what comes: nobody reads it.
    if (s.count === QUEUE) return;
    const i = (s.head + s.count) % QUEUE;
    s.queue[i] = what;
    s.x[i] = x;
    s.y[i] = y;
    s.wheel[i] = wheel;
    s.count++;
    this.ready();
  }

  /** ms until a report is due that nothing but time asks for; `Infinity` for never. */
  get due(): number {
    const { s } = this;
    return s.idle === 0 ? Number.POSITIVE_INFINITY : Math.max(0, s.idle * 4 - (this.#now() - s.sent) / 1e6);
  }

  // ── From the host ──

  in(n: number, max: number): Uint8Array | Handshake {
    if (n !== 1) return 'stall';
    if (this.s.count === 0 && this.due > 0) return 'nak';
    this.s.sent = this.#now();
    return this.#report().subarray(0, max);
  }

  out(): Handshake {
    return 'stall';
  }

  control(r: Setup, data: Uint8Array): Uint8Array | Handshake {
    const { s } = this;
    const standard = (r.type & 0x60) === 0;
    if (standard) {
      // GET_DESCRIPTOR of the interface.
      const { report } = kinds[this.kind];
      if (r.value >>> 8 === REPORT_DESCRIPTOR) return Uint8Array.from(report);
      return r.value >>> 8 === HID_DESCRIPTOR ? Uint8Array.from(this.description.interfaces[0]!.extra!) : 'stall';
    }
    if ((r.type & 0x7f) !== 0x21) return 'stall';
    switch (r.request) {
      case HidRequest.getReport:
        return this.#report();
      case HidRequest.setReport:
        if (this.kind === 'keyboard' && data.length > 0) s.leds = data[0]! & 0x1f;
        return 'ack';
      case HidRequest.getIdle:
        return Uint8Array.of(s.idle);
      case HidRequest.setIdle:
        s.idle = r.value >>> 8;
        s.sent = this.#now();
        this.ready();
        return 'ack';
      case HidRequest.getProtocol:
        return Uint8Array.of(s.protocol);
      case HidRequest.setProtocol:
        s.protocol = r.value & 1;
        return 'ack';
      default:
        return 'stall';
    }
  }

  /** The next report; one without news says how things are. */
  #report(): Uint8Array {
    return this.kind === 'keyboard' ? this.#keys() : this.#pointerReport();
  }

  #keys(): Uint8Array {
    const { s } = this;
    if (s.count > 0) {
      const entry = s.queue[s.head]!;
      s.head = (s.head + 1) % QUEUE;
      s.count--;
      const [usage, down] = [entry & 0xff, (entry & 0x100) !== 0];
      if (usage >= 0xe0 && usage <= 0xe7) {
        const bit = 1 << (usage - 0xe0);
        s.modifiers = down ? s.modifiers | bit : s.modifiers & ~bit;
      } else {
        const at = s.keys.indexOf(usage);
        if (down && at < 0) {
          const free = s.keys.indexOf(0);
          if (free >= 0) s.keys[free] = usage;
        } else if (!down && at >= 0) {
          s.keys.copyWithin(at, at + 1);
          s.keys[s.keys.length - 1] = 0;
        }
      }
    }
    const held = [...s.keys].filter((k) => k !== 0);
    const shown = held.length > 6 ? new Array<number>(6).fill(ROLL_OVER) : [...held, 0, 0, 0, 0, 0, 0].slice(0, 6);
    return Uint8Array.of(s.modifiers, 0, ...shown);
  }

  #pointerReport(): Uint8Array {
    const { s } = this;
    const tablet = this.kind === 'tablet';
    let [x, y, wheel] = [tablet ? s.lastX : 0, tablet ? s.lastY : 0, 0];
    if (s.count > 0) {
      const i = s.head;
      s.buttons = s.queue[i]! & 0x1f;
      wheel = clamp(s.wheel[i]!, -127, 127);
      [x, y] = tablet ? [s.x[i]!, s.y[i]!] : [clamp(s.x[i]!, -127, 127), clamp(s.y[i]!, -127, 127)];
      s.wheel[i] = s.wheel[i]! - wheel;
      if (!tablet) {
        s.x[i] = s.x[i]! - x;
        s.y[i] = s.y[i]! - y;
      }
      // What does not fit one report stays for the next.
      if (s.wheel[i] === 0 && (tablet || (s.x[i] === 0 && s.y[i] === 0))) {
        s.head = (s.head + 1) % QUEUE;
        s.count--;
      }
      s.lastX = x;
      s.lastY = y;
    }
    return tablet
      ? Uint8Array.of(s.buttons, x & 0xff, (x >>> 8) & 0x7f, y & 0xff, (y >>> 8) & 0x7f, wheel)
      : Uint8Array.of(s.buttons, x, y, wheel);
  }
}
