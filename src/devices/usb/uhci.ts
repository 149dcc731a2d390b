// A UHCI host controller: full and low speed, driven by the guest's frame list. Intel, Universal Host Controller Interface Design Guide, revision 1.1.
//
// Registers are served on the thread that touches them; the schedule is walked on the I/O thread, several frames at a time, because a
// timer for each millisecond would cost more than what it serves.
import type { Arena } from '../../bits/arena.ts';
import { struct, type ViewOf } from '../../bits/struct.ts';
import type { GuestMemory } from '../../bus/memory.ts';
import { type Register, registers, ro, rw, w1c } from '../../bus/registers.ts';
import type { Handler } from '../../bus/space.ts';
import type { UsbDevice } from './device.ts';
import { Hub } from './hub.ts';
import { UsbPort } from './port.ts';

const PORTS = 2;
export const UHCI_BYTES = 32;

export const uhciLayout = struct(
  {
    command: 'u16',
    status: 'u16',
    interrupts: 'u16',
    frame: 'u16',
    base: 'u32',
    startOfFrame: 'u8',
    ports: ['u16', PORTS],
    /** Guest time in ns up to which frames have been served. */
    served: 'f64',
  },
  { name: 'uhci', version: 1 },
);

const Command = { run: 1, hostReset: 2, globalReset: 4, configured: 0x40 } as const;
const Status = { interrupt: 1, error: 2, resume: 4, hostError: 8, processError: 0x10, halted: 0x20 } as const;
const Enable = { timeout: 1, resume: 2, complete: 4, short: 8 } as const;
const Port = { connected: 1, connectChange: 2, enabled: 4, enableChange: 8, resume: 0x40, always: 0x80, low: 0x100, reset: 0x200, suspend: 0x1000 } as const; // biome-ignore format: bits
const portWritable = Port.enabled | Port.resume | Port.reset | Port.suspend;

/** Pointers of the schedule. */
const Link = { end: 1, queue: 2 } as const;
/** Control and status of a transfer descriptor, section 3.2. */
const Td = { bitstuff: 0x20000, nak: 0x80000, stall: 0x400000, active: 0x800000, interrupt: 0x1000000, isochronous: 0x2000000, low: 0x4000000, short: 0x20000000 } as const; // biome-ignore format: bits
const timeout = 0x40000;
const Pid = { in: 0x69, out: 0xe1, setup: 0x2d } as const;

const FRAME_NS = 1_000_000;
/** ms between two walks; frames of the time between are served at once, as far as they are not too many. */
const WALK_MS = 4;
const FRAMES_MAX = 16;
/** Links of one frame, and bytes of it: what full speed carries in a millisecond. */
const LINKS_MAX = 512;
const FRAME_BYTES = 1280;

export interface UhciOptions {
  readonly arena: Arena;
  readonly name: string;
  /** Ports that another controller shares with this one, and whether it leaves port `n` to this one. */
  readonly shared?: { readonly ports: readonly UsbPort[]; readonly mine: (n: number) => boolean };
  readonly irq: (level: 0 | 1) => void;
  /** Something changed for the I/O thread: the controller was started. */
  readonly ring: () => void;
  readonly now: () => number;
}

const map = registers<Uhci>('uhci', UHCI_BYTES, [
  rw(0, 2, 'USBCMD', (d) => d.s.command, (d, v) => d.writeCommand(v)),
  w1c(2, 2, 'USBSTS', (d) => d.s.status, (d, ones) => d.clearStatus(ones)),
  rw(4, 2, 'USBINTR', (d) => d.s.interrupts, (d, v) => {
    d.s.interrupts = v & 15;
    d.drive();
  }),
  rw(6, 2, 'FRNUM', (d) => d.frameNumber, (d, v) => {
    if (d.s.status & Status.halted) d.s.frame = v & 0x7ff;
  }),
  rw(8, 4, 'FRBASEADD', (d) => d.s.base, (d, v) => {
    d.s.base = (v & ~0xfff) >>> 0;
  }),
  rw(12, 1, 'SOFMOD', (d) => d.s.startOfFrame, (d, v) => {
    d.s.startOfFrame = v & 0x7f;
  }),
  ...Array.from({ length: PORTS }, (_, n): Register<Uhci> =>
    rw(16 + 2 * n, 2, `PORTSC${n + 1}`, (d) => d.s.ports[n]!, (d, v) => d.writePort(n, v)),
  ),
  ro(20, 4, 'no ports', () => 0xffffffff),
]); // biome-ignore format: one row per register

export class Uhci {
  readonly s: ViewOf<typeof uhciLayout>;
  readonly ports: readonly UsbPort[];
  readonly handler: Handler;
  readonly #o: UhciOptions;

  constructor(o: UhciOptions) {
    this.#o = o;
    this.s = o.arena.alloc(uhciLayout, o.name);
    this.ports = o.shared?.ports ?? Array.from({ length: PORTS }, (_, n) => new UsbPort(String(n + 1), ['low', 'full']));
    if (o.shared === undefined) {
      for (const [n, port] of this.ports.entries())
        port.owner = { connected: (there) => this.connected(n, there), wake: () => {} };
    }
    this.handler = map.bind(this);
  }

  reset(): void {
    const { s } = this;
    s.command = 0;
    s.status = Status.halted;
    s.interrupts = s.frame = 0;
    s.base = 0;
    s.startOfFrame = 64;
    for (let n = 0; n < PORTS; n++) {
      s.ports[n] = Port.always;
      const there = this.ports[n]?.device !== undefined;
      this.connected(n, there && (this.#o.shared?.mine(n) ?? true));
    }
    this.#o.irq(0);
  }

  // ── Ports ──

  /** The port's device is there for this controller, or not any more. */
  connected(n: number, there: boolean): void {
    const { s } = this;
    const was = s.ports[n]!;
    if (((was & Port.connected) !== 0) === there) return;
    const low = there && this.ports[n]!.device?.speed === 'low' ? Port.low : 0;
    s.ports[n] = there
      ? was | Port.connected | Port.connectChange | low
      : (was & ~(Port.connected | Port.enabled | Port.low)) | Port.connectChange | (was & Port.enabled ? Port.enableChange : 0);
    if (s.command & 8) this.#raise(Status.resume);
  }

  writePort(n: number, value: number): void {
    const { s } = this;
    const was = s.ports[n]!;
    const clear = value & (Port.connectChange | Port.enableChange);
    let now = ((was & ~portWritable & ~clear) | (value & portWritable)) & 0xffff;
    if (value & Port.reset && !(was & Port.reset)) this.ports[n]!.device?.reset();
    // Nothing can be enabled that is not there.
    if (!(now & Port.connected)) now &= ~Port.enabled;
    s.ports[n] = now;
  }

  /** The device of an address behind the enabled ports. */
  #find(address: number): UsbDevice | undefined {
    for (let n = 0; n < PORTS; n++) {
      const device = this.s.ports[n]! & Port.enabled ? this.ports[n]!.device : undefined;
      const found = device && below(device, address, 5);
      if (found) return found;
    }
    return undefined;
  }

  // ── Registers ──

  /** The frame that is up. */
  get frameNumber(): number {
    const { s } = this;
    if (s.status & Status.halted) return s.frame;
    return (s.frame + Math.floor(Math.max(0, this.#o.now() - s.served) / FRAME_NS)) & 0x7ff;
  }

  writeCommand(value: number): void {
    const { s } = this;
    if (value & Command.hostReset) {
      this.reset();
      return;
    }
    if (value & Command.globalReset) for (const p of this.ports) p.device?.reset();
    const starts = value & Command.run && s.status & Status.halted;
    s.command = value & 0xff;
    if (starts) {
      s.status &= ~Status.halted;
      s.served = this.#o.now();
      this.#o.ring();
    } else if (!(value & Command.run)) {
      s.frame = this.frameNumber;
      s.status |= Status.halted;
    }
  }

  clearStatus(bits: number): void {
    this.s.status &= ~(bits & ~Status.halted);
    this.drive();
  }

  #raise(bits: number): void {
    this.s.status |= bits;
    this.drive();
  }

  drive(): void {
    const { status, interrupts } = this.s;
    const level =
      (status & Status.interrupt && interrupts & (Enable.complete | Enable.short)) ||
      (status & Status.error && interrupts & Enable.timeout) ||
      (status & Status.resume && interrupts & Enable.resume) ||
      status & (Status.hostError | Status.processError);
    this.#o.irq(level ? 1 : 0);
  }

  // ── The schedule, on the I/O thread and with the board's lock held ──

  /** Serves the frames that are due; ms until the next ones, undefined while the controller stands still. */
  walk(memory: GuestMemory): number | undefined {
    const { s } = this;
    if (s.status & Status.halted) return undefined;
    const due = Math.floor((this.#o.now() - s.served) / FRAME_NS);
    // What was missed while the thread was busy is left out: frames without work go by like that.
    const skipped = Math.max(0, due - FRAMES_MAX);
    s.frame = (s.frame + skipped) & 0x7ff;
    s.served += skipped * FRAME_NS;
    for (let n = skipped; n < due && !(s.status & Status.halted); n++) {
      this.#frame(memory);
      s.frame = (s.frame + 1) & 0x7ff;
      s.served += FRAME_NS;
    }
    return WALK_MS;
  }

  #frame(memory: GuestMemory): void {
    let link = memory.read32(this.s.base + (this.s.frame & 0x3ff) * 4) >>> 0;
    let bytes = FRAME_BYTES;
    let queue = 0;
    const seen = new Set<number>();
    let done = false;
    for (let links = 0; links < LINKS_MAX && bytes > 0 && !(this.s.status & Status.halted); links++) {
      if (link & Link.end) {
        if (queue === 0) break;
        link = memory.read32(queue) >>> 0;
        queue = 0;
        continue;
      }
      const at = link - (link % 16);
      if (link & Link.queue) {
        // Queues that lead back to themselves go round once in a frame, unless something moved.
        if (seen.has(at)) {
          if (!done) break;
          done = false;
          seen.clear();
        }
        seen.add(at);
        queue = at;
        const element = memory.read32(at + 4) >>> 0;
        if (element & Link.end) {
          link = memory.read32(at) >>> 0;
          queue = 0;
        } else link = element;
        continue;
      }
      const outcome = this.#transfer(memory, at);
      const next = memory.read32(at) >>> 0;
      bytes -= outcome.bytes;
      if (outcome.kind === 'done') done = true;
      if (queue === 0) {
        link = next;
        continue;
      }
      if (outcome.kind === 'done') {
        // The queue goes on behind what is done: at once where depth comes first.
        memory.write32(queue + 4, next);
        if (next & 4 && !(next & Link.end) && !(next & Link.queue)) {
          link = next;
          continue;
        }
      }
      link = memory.read32(queue) >>> 0;
      queue = 0;
    }
  }

  /** One transfer descriptor: `done` when it was carried out and the queue moves on. */
  #transfer(memory: GuestMemory, at: number): { readonly kind: 'done' | 'stays'; readonly bytes: number } {
    const control = memory.read32(at + 4) >>> 0;
    if (!(control & Td.active)) return { kind: 'stays', bytes: 1 };
    const token = memory.read32(at + 8) >>> 0;
    const buffer = memory.read32(at + 12) >>> 0;
    const pid = token & 0xff;
    const size = ((token >>> 21) + 1) & 0x7ff;
    const endpoint = (token >>> 15) & 15;
    const device = this.#find((token >>> 8) & 0x7f);
    const finish = (status: number, actual: number, active: boolean): void => {
      const kept = control & ~(0x7ff | Td.active | Td.nak | Td.stall | Td.bitstuff | timeout | 0x300000);
      memory.write32(at + 4, (kept | status | ((actual - 1) & 0x7ff) | (active ? Td.active : 0)) >>> 0);
    };
    if (pid !== Pid.in && pid !== Pid.out && pid !== Pid.setup) {
      this.s.status |= Status.halted;
      this.#raise(Status.processError);
      return { kind: 'stays', bytes: 1 };
    }
    if (device === undefined) {
      finish(Td.stall | timeout, 0, false);
      this.#raise(Status.error | (control & Td.interrupt ? Status.interrupt : 0));
      return { kind: 'stays', bytes: 8 };
    }
    const answer = transact(device, memory, pid, endpoint, buffer, size);
    if (answer === 'nak') {
      finish(Td.nak, 0, true);
      return { kind: 'stays', bytes: 8 };
    }
    if (answer === 'stall') {
      finish(Td.stall, 0, false);
      this.#raise(Status.error | (control & Td.interrupt ? Status.interrupt : 0));
      return { kind: 'stays', bytes: 8 };
    }
    finish(0, answer, false);
    const short = pid === Pid.in && answer < size;
    if (short && control & Td.short) {
      // A short packet stops the queue for the driver to look.
      this.#raise(Status.interrupt);
      return { kind: 'stays', bytes: answer + 8 };
    }
    if (control & Td.interrupt) this.#raise(Status.interrupt);
    return { kind: 'done', bytes: answer + 8 };
  }
}

/** The device of an address: this one, or one behind it. */
export function below(device: UsbDevice, address: number, depth: number): UsbDevice | undefined {
  if (device.s.address === address) return device;
  if (!(device.fn instanceof Hub) || depth === 0) return undefined;
  for (const d of device.fn.enabled()) {
    const found = below(d, address, depth - 1);
    if (found) return found;
  }
  return undefined;
}

/** Carries one transaction out: bytes that moved, or how it ended without. */
function transact(
  device: UsbDevice,
  memory: GuestMemory,
  pid: number,
  endpoint: number,
  buffer: number,
  size: number,
): number | 'nak' | 'stall' {
  if (pid === Pid.in) {
    const bytes = device.in(endpoint, size);
    if (bytes === 'nak' || bytes === 'stall') return bytes;
    if (bytes === 'ack' || bytes.length === 0) return 0;
    const to = memory.slice(buffer, bytes.length);
    if (to) {
      to.set(bytes);
      memory.written(buffer, bytes.length);
    }
    return bytes.length;
  }
  const bytes = memory.slice(buffer, size)?.slice() ?? new Uint8Array(size);
  const answer = pid === Pid.setup ? device.setup(bytes.length === 8 ? bytes : new Uint8Array(8)) : device.out(endpoint, bytes);
  return answer === 'ack' ? size : answer;
}
