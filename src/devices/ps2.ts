// What hangs on the two ports of the keyboard controller: a keyboard and a wheel mouse. IBM PS/2 Hardware Interface Technical Reference (1988), "Keyboard" and "Mouse"; wheel as in Microsoft's IntelliMouse.
import type { Arena } from '../bits/arena.ts';
import { struct, type View } from '../bits/struct.ts';
import { keyBytes } from './scancodes.ts';

const queueFields = { data: ['u8', 64], head: 'u8', count: 'u8' } as const;
const queueLayout = struct(queueFields);
type Queue = View<typeof queueFields>;

const push = (q: Queue, bytes: readonly number[]): boolean => {
  if (q.count + bytes.length > q.data.length) return false;
  for (const b of bytes) {
    q.data[(q.head + q.count) % q.data.length] = b;
    q.count++;
  }
  return true;
};
const shift = (q: Queue): number => {
  if (q.count === 0) return -1;
  const b = q.data[q.head]!;
  q.head = (q.head + 1) % q.data.length;
  q.count--;
  return b;
};
const clear = (q: Queue): void => {
  q.head = 0;
  q.count = 0;
};

/** A device on one port. With the board's lock held. */
export interface Ps2Device {
  /** A byte from the controller. */
  receive(byte: number): void;
  /** The next byte for the controller, -1 for none. */
  take(): number;
  /** True when `take` has a byte. */
  readonly waiting: boolean;
  reset(): void;
}

const ack = 0xfa;
const resend = 0xfe;
const passed = 0xaa;

export const keyboardLayout = struct(
  {
    queue: queueLayout,
    scanning: 'u8',
    set: 'u8',
    leds: 'u8',
    typematic: 'u8',
    /** Command that waits for its argument. */ command: 'u8',
    last: 'u8',
  },
  { name: 'ps2-keyboard', version: 1 },
);

export class Ps2Keyboard implements Ps2Device {
  readonly s: View<typeof keyboardLayout.fields>;

  constructor(arena: Arena) {
    this.s = arena.alloc(keyboardLayout);
  }

  reset(): void {
    clear(this.s.queue);
    this.s.leds = 0;
    this.s.command = 0;
    this.s.last = 0;
    this.#defaults();
    this.s.scanning = 1;
  }

  /** Scroll lock, num lock, caps lock: bits 0 to 2. */
  get leds(): number {
    return this.s.leds;
  }

  get waiting(): boolean {
    return this.s.queue.count > 0;
  }

  take(): number {
    const b = shift(this.s.queue);
    if (b >= 0 && b !== resend) this.s.last = b;
    return b;
  }

  /** A key (see `keyBytes`) goes down or up. False when the keyboard does not take it: it is off, or its buffer is full. */
  key(key: number, down: boolean): boolean {
    if (!this.s.scanning) return false;
    const bytes = keyBytes(key, down, this.s.set === 1 ? 1 : 2);
    // Room stays for the answers to commands.
    return bytes.length > 0 && this.s.queue.count + bytes.length <= 48 && push(this.s.queue, bytes);
  }

  receive(byte: number): void {
    const { s } = this;
    const command = s.command;
    s.command = 0;
    if (command !== 0 && byte < 0x80) {
      this.#argument(command, byte);
      return;
    }
    switch (byte) {
      case 0xff:
        clear(s.queue);
        this.#defaults();
        s.scanning = 1;
        s.leds = 0;
        push(s.queue, [ack, passed]);
        return;
      case 0xfe:
        push(s.queue, [s.last]);
        return;
      case 0xf6:
        this.#defaults();
        s.scanning = 1;
        break;
      case 0xf5:
        clear(s.queue);
        this.#defaults();
        s.scanning = 0;
        break;
      case 0xf4:
        clear(s.queue);
        s.scanning = 1;
        break;
      case 0xf2:
        push(s.queue, [ack, 0xab, 0x83]);
        return;
      case 0xee:
        push(s.queue, [0xee]);
        return;
      case 0xf3:
      case 0xf0:
      case 0xed:
        s.command = byte;
        break;
      // Key types of scan code set 3, which this keyboard does not have, take effect nowhere.
      case 0xf7:
      case 0xf8:
      case 0xf9:
      case 0xfa:
        break;
      default:
        push(s.queue, [resend]);
        return;
    }
    push(s.queue, [ack]);
  }

  #argument(command: number, byte: number): void {
    const { s } = this;
    if (command === 0xed) s.leds = byte & 7;
    else if (command === 0xf3) s.typematic = byte;
    else if (byte === 0) {
      push(s.queue, [ack, s.set]);
      return;
    } else if (byte === 1 || byte === 2) s.set = byte;
    else {
      push(s.queue, [resend]);
      return;
    }
    push(s.queue, [ack]);
  }

  #defaults(): void {
    this.s.set = 2;
    this.s.typematic = 0x2b;
  }
}

export const mouseLayout = struct(
  {
    queue: queueLayout,
    reporting: 'u8',
    remote: 'u8',
    wrap: 'u8',
    resolution: 'u8',
    rate: 'u8',
    scaling: 'u8',
    /** 0 plain, 3 with a wheel, 4 with a wheel and five buttons. */
    id: 'u8',
    /** How much of the sequences of sample rates that unlock the wheel has been seen. */
    knock: 'u8',
    command: 'u8',
    buttons: 'u8',
    sent: 'u8',
    dx: 'i32',
    dy: 'i32',
    dz: 'i32',
  },
  { name: 'ps2-mouse', version: 1 },
);

export class Ps2Mouse implements Ps2Device {
  readonly s: View<typeof mouseLayout.fields>;

  constructor(arena: Arena) {
    this.s = arena.alloc(mouseLayout);
  }

  reset(): void {
    clear(this.s.queue);
    this.s.command = 0;
    this.s.id = 0;
    this.s.knock = 0;
    this.s.wrap = 0;
    this.s.buttons = 0;
    this.#defaults();
  }

  get waiting(): boolean {
    return this.s.queue.count > 0;
  }

  take(): number {
    const b = shift(this.s.queue);
    if (this.s.queue.count === 0) this.#stream();
    return b;
  }

  /**
   * Movement right, down and of the wheel towards the user, in counts, and the buttons that are down: left 1, right 2,
   * middle 4, side 8, extra 16. What does not fit the buffer adds up. False when the guest does not listen.
   */
  move(dx: number, dy: number, dz: number, buttons: number): boolean {
    const { s } = this;
    s.buttons = buttons & 0x1f;
    if (!s.reporting && !s.remote) return false;
    s.dx += dx;
    s.dy -= dy;
    s.dz += dz;
    this.#stream();
    return true;
  }

  receive(byte: number): void {
    const { s } = this;
    if (s.wrap && byte !== 0xff && byte !== 0xec) {
      push(s.queue, [byte]);
      return;
    }
    const command = s.command;
    s.command = 0;
    if (command === 0xf3 && byte < 0xe6) {
      this.#sampleRate(byte);
      push(s.queue, [ack]);
      return;
    }
    if (command === 0xe8 && byte < 4) {
      s.resolution = byte;
      push(s.queue, [ack]);
      return;
    }
    // A command stops what was being sent.
    clear(s.queue);
    switch (byte) {
      case 0xff:
        this.reset();
        push(s.queue, [ack, passed, 0]);
        return;
      case 0xf6:
        this.#defaults();
        break;
      case 0xf5:
        s.reporting = 0;
        break;
      case 0xf4:
        s.reporting = 1;
        s.dx = 0;
        s.dy = 0;
        s.dz = 0;
        break;
      case 0xf3:
      case 0xe8:
        s.command = byte;
        break;
      case 0xf2:
        push(s.queue, [ack, s.id]);
        return;
      case 0xf0:
        s.remote = 1;
        break;
      case 0xee:
        s.wrap = 1;
        break;
      case 0xec:
        s.wrap = 0;
        break;
      case 0xeb:
        push(s.queue, [ack]);
        this.#packet();
        return;
      case 0xea:
        s.remote = 0;
        break;
      case 0xe9: {
        const b = s.buttons;
        const flags =
          (s.remote << 6) | (s.reporting << 5) | (s.scaling << 4) | ((b & 1) << 2) | ((b & 4) >>> 1) | ((b & 2) >>> 1);
        push(s.queue, [ack, flags, s.resolution, s.rate]);
        return;
      }
      case 0xe7:
        s.scaling = 1;
        break;
      case 0xe6:
        s.scaling = 0;
        break;
      default:
        push(s.queue, [resend]);
        return;
    }
    push(s.queue, [ack]);
  }

  #defaults(): void {
    const { s } = this;
    s.reporting = 0;
    s.remote = 0;
    s.resolution = 2;
    s.rate = 100;
    s.scaling = 0;
    s.sent = 0;
    s.dx = 0;
    s.dy = 0;
    s.dz = 0;
  }

  /** The rates 200, 100, 80 make it a wheel mouse, 200, 200, 80 one with five buttons. */
  #sampleRate(rate: number): void {
    const { s } = this;
    s.rate = rate;
    if (s.knock === 2 && rate === 80) s.id = 3;
    if (s.knock === 3 && rate === 80) s.id = 4;
    s.knock = rate === 200 ? (s.knock === 1 ? 3 : s.knock === 3 ? 3 : 1) : rate === 100 && s.knock === 1 ? 2 : 0;
  }

  /** In stream mode: sends packets while there is something to say and nothing else is being sent. */
  #stream(): void {
    const { s } = this;
    if (!s.reporting || s.remote || s.command !== 0) return;
    const wheel = s.id !== 0 && s.dz !== 0;
    if (s.queue.count === 0 && (s.dx !== 0 || s.dy !== 0 || wheel || s.buttons !== s.sent)) this.#packet();
  }

  #packet(): void {
    const { s } = this;
    const x = clamp(s.dx, -256, 255);
    const y = clamp(s.dy, -256, 255);
    const z = clamp(s.dz, s.id === 4 ? -8 : -128, s.id === 4 ? 7 : 127);
    s.dx -= x;
    s.dy -= y;
    s.dz = s.id === 0 ? 0 : s.dz - z;
    s.sent = s.buttons;
    const bytes = [8 | (s.buttons & 7) | (x < 0 ? 0x10 : 0) | (y < 0 ? 0x20 : 0), x & 0xff, y & 0xff];
    if (s.id === 3) bytes.push(z & 0xff);
    if (s.id === 4) bytes.push((z & 15) | ((s.buttons & 0x18) << 1));
    push(s.queue, bytes);
  }
}

const clamp = (v: number, low: number, high: number): number => Math.max(low, Math.min(high, v));
