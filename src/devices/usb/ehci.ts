// An EHCI host controller: high speed, with companions for what is slower. Enhanced Host Controller Interface Specification for Universal Serial Bus, revision 1.0.
//
// Registers are served on the thread that touches them; the schedules are walked on the I/O thread.
import type { Arena } from '../../bits/arena.ts';
import { struct, type ViewOf } from '../../bits/struct.ts';
import type { GuestMemory } from '../../bus/memory.ts';
import { type Register, registers, ro, rw, w1c } from '../../bus/registers.ts';
import type { Handler } from '../../bus/space.ts';
import type { UsbDevice } from './device.ts';
import { UsbPort } from './port.ts';
import { below, type Uhci } from './uhci.ts';

export const EHCI_PORTS = 6;
export const EHCI_BYTES = 0x1000;
const OPERATIONAL = 0x20;

export const ehciLayout = struct(
  {
    command: 'u32',
    status: 'u32',
    interrupts: 'u32',
    frame: 'u32',
    segment: 'u32',
    periodic: 'u32',
    async: 'u32',
    configured: 'u32',
    ports: ['u32', EHCI_PORTS],
    served: 'f64',
  },
  { name: 'ehci', version: 1 },
);

const Command = { run: 1, reset: 2, periodic: 0x10, async: 0x20, advance: 0x40 } as const;
const Status = { interrupt: 1, error: 2, port: 4, rollover: 8, hostError: 0x10, advance: 0x20, halted: 0x1000, periodic: 0x4000, async: 0x8000 } as const; // biome-ignore format: bits
const Port = { connected: 1, connectChange: 2, enabled: 4, enableChange: 8, resume: 0x40, suspend: 0x80, reset: 0x100, lineK: 0x400, power: 0x1000, owner: 0x2000, wake: 0x700000 } as const; // biome-ignore format: bits

/** Token of a transfer descriptor, section 3.5.3. */
const Token = { error: 0x78, active: 0x80, halted: 0x40, babble: 0x10, transaction: 8, complete: 0x8000, toggle: 0x80000000 } as const; // biome-ignore format: bits
const pids = ['out', 'in', 'setup'] as const;
const END = 1;
const Kind = { queue: 1 } as const;
const HEAD = 0x8000;

const MICROFRAMES = 8;
const FRAME_NS = 1_000_000;
const WALK_MS = 4;
const FRAMES_MAX = 16;
const QUEUES_MAX = 128;
const LINKS_MAX = 256;
/** Descriptors of one queue at one visit, and bytes of one descriptor. */
const DESCRIPTORS_MAX = 32;
const BYTES_MAX = 5 * 4096;

export interface EhciOptions {
  readonly arena: Arena;
  readonly name: string;
  readonly irq: (level: 0 | 1) => void;
  readonly ring: () => void;
  readonly now: () => number;
}

const map = registers<Ehci>('ehci', EHCI_BYTES, [
  ro(0, 1, 'CAPLENGTH', () => OPERATIONAL),
  ro(2, 2, 'HCIVERSION', () => 0x0100),
  ro(4, 4, 'HCSPARAMS', (d) => d.structure),
  ro(8, 4, 'HCCPARAMS', () => 0x6880),
  rw(0x20, 4, 'USBCMD', (d) => d.s.command, (d, v) => d.writeCommand(v)),
  w1c(0x24, 4, 'USBSTS', (d) => d.s.status, (d, ones) => d.clearStatus(ones)),
  rw(0x28, 4, 'USBINTR', (d) => d.s.interrupts, (d, v) => {
    d.s.interrupts = v & 0x3f;
    d.drive();
  }),
  rw(0x2c, 4, 'FRINDEX', (d) => d.frameIndex, (d, v) => {
    if (d.s.status & Status.halted) d.s.frame = v & 0x3ff8;
  }),
  ro(0x30, 4, 'CTRLDSSEGMENT', () => 0),
  rw(0x34, 4, 'PERIODICLISTBASE', (d) => d.s.periodic, (d, v) => {
    d.s.periodic = (v & ~0xfff) >>> 0;
  }),
  rw(0x38, 4, 'ASYNCLISTADDR', (d) => d.s.async, (d, v) => {
    d.s.async = (v & ~0x1f) >>> 0;
  }),
  rw(0x60, 4, 'CONFIGFLAG', (d) => d.s.configured, (d, v) => d.configure(v & 1)),
  ...Array.from({ length: EHCI_PORTS }, (_, n): Register<Ehci> =>
    rw(0x64 + 4 * n, 4, `PORTSC${n + 1}`, (d) => d.s.ports[n]!, (d, v) => d.writePort(n, v)),
  ),
]); // biome-ignore format: one row per register

export class Ehci {
  readonly s: ViewOf<typeof ehciLayout>;
  readonly ports: readonly UsbPort[];
  readonly handler: Handler;
  readonly #o: EhciOptions;
  /** Who gets a port that this one leaves, by port. */
  readonly #companions: ({ readonly uhci: Uhci; readonly n: number } | undefined)[] = new Array(EHCI_PORTS).fill(undefined);

  constructor(o: EhciOptions) {
    this.#o = o;
    this.s = o.arena.alloc(ehciLayout, o.name);
    this.ports = Array.from({ length: EHCI_PORTS }, (_, n) => new UsbPort(String(n + 1), ['low', 'full', 'high']));
    this.ports.forEach((port, n) => {
      port.owner = { connected: (there) => this.#connected(n, there), wake: () => o.ring() };
    });
    this.handler = map.bind(this);
  }

  /** A companion takes the ports from `first` on; on every thread. */
  addCompanion(first: number, uhci: Uhci): void {
    uhci.ports.forEach((_, n) => {
      this.#companions[first + n] = { uhci, n };
    });
  }

  get structure(): number {
    const controllers = new Set(this.#companions.filter((c) => c !== undefined).map((c) => c.uhci)).size;
    return EHCI_PORTS | (controllers > 0 ? (controllers << 12) | (2 << 8) : 0);
  }

  reset(): void {
    const { s } = this;
    s.command = 0x80000;
    s.status = Status.halted;
    s.interrupts = s.frame = s.segment = s.periodic = s.async = s.configured = 0;
    for (let n = 0; n < EHCI_PORTS; n++) {
      s.ports[n] = Port.power | (this.#companions[n] ? Port.owner : 0);
      this.#connected(n, this.ports[n]!.device !== undefined);
    }
    this.#o.irq(0);
  }

  // ── Ports ──

  /** Port `n` is a companion's. */
  left(n: number): boolean {
    return this.#companions[n] !== undefined && (this.s.ports[n]! & Port.owner) !== 0;
  }

  #connected(n: number, there: boolean): void {
    const device = this.ports[n]!.device;
    const companion = this.#companions[n];
    if (companion && this.left(n)) {
      if (device) device.speed = device.fn.description.speeds.includes('full') ? 'full' : 'low';
      companion.uhci.connected(companion.n, there);
      return;
    }
    if (device) device.speed = this.ports[n]!.fits(device.fn.description.speeds) ?? 'full';
    const { s } = this;
    const was = s.ports[n]!;
    if (((was & Port.connected) !== 0) === there) return;
    s.ports[n] = there
      ? was | Port.connected | Port.connectChange | (device?.speed === 'low' ? Port.lineK : 0)
      : (was & ~(Port.connected | Port.enabled | Port.lineK)) | Port.connectChange | (was & Port.enabled ? Port.enableChange : 0);
    this.#raise(Status.port);
  }

  /** Gives a port to its companion, or takes it back. */
  #own(n: number, companions: boolean): void {
    const companion = this.#companions[n];
    if (!companion || companions === this.left(n)) return;
    const { device } = this.ports[n]!;
    if (device) {
      device.reset();
      this.#connected(n, false);
    }
    this.s.ports[n] = companions ? this.s.ports[n]! | Port.owner : this.s.ports[n]! & ~Port.owner;
    if (device) this.#connected(n, true);
  }

  configure(on: number): void {
    const { s } = this;
    if (s.configured === on) return;
    s.configured = on;
    for (let n = 0; n < EHCI_PORTS; n++) this.#own(n, on === 0);
  }

  writePort(n: number, value: number): void {
    const { s } = this;
    this.#own(n, (value & Port.owner) !== 0);
    const was = s.ports[n]!;
    let now = was & ~(value & (Port.connectChange | Port.enableChange));
    if (!(value & Port.enabled)) now &= ~Port.enabled;
    now =
      (now & ~(Port.suspend | Port.resume | Port.reset | Port.wake)) |
      (value & (Port.suspend | Port.resume | Port.reset | Port.wake));
    const { device } = this.ports[n]!;
    if (value & Port.reset && !(was & Port.reset)) now &= ~Port.enabled;
    else if (was & Port.reset && !(value & Port.reset) && device && !this.left(n)) {
      device.reset();
      now &= ~Port.connectChange;
      // What is not fast stays off: its driver gives the port to the companion.
      if (device.speed === 'high') now |= Port.enabled;
    }
    if (was & Port.resume && !(value & Port.resume)) now &= ~(Port.suspend | Port.resume);
    s.ports[n] = now >>> 0;
  }

  #find(address: number): UsbDevice | undefined {
    for (let n = 0; n < EHCI_PORTS; n++) {
      const device = this.s.ports[n]! & Port.enabled ? this.ports[n]!.device : undefined;
      const found = device && below(device, address, 5);
      if (found) return found;
    }
    return undefined;
  }

  // ── Registers ──

  get frameIndex(): number {
    const { s } = this;
    if (s.status & Status.halted) return s.frame;
    const frames = Math.floor(Math.max(0, this.#o.now() - s.served) / (FRAME_NS / MICROFRAMES));
    return (s.frame + frames) & 0x3fff;
  }

  writeCommand(value: number): void {
    const { s } = this;
    if (value & Command.reset) {
      this.reset();
      return;
    }
    const starts = value & Command.run && s.status & Status.halted;
    // A doorbell that rang is answered by the walk.
    s.command = (value & 0xff_0fff) | (s.command & Command.advance);
    if (starts) {
      s.status &= ~Status.halted;
      s.served = this.#o.now();
    } else if (!(value & Command.run)) s.status |= Status.halted;
    this.#follow();
    this.#o.ring();
  }

  /** The schedules are on as soon as they are asked for, and off likewise. */
  #follow(): void {
    const { s } = this;
    const runs = !(s.status & Status.halted);
    s.status &= ~(Status.periodic | Status.async);
    if (runs && s.command & Command.periodic) s.status |= Status.periodic;
    if (runs && s.command & Command.async) s.status |= Status.async;
  }

  clearStatus(bits: number): void {
    this.s.status &= ~(bits & 0x3f);
    this.drive();
  }

  #raise(bits: number): void {
    this.s.status |= bits;
    this.drive();
  }

  drive(): void {
    this.#o.irq(this.s.status & this.s.interrupts & 0x3f ? 1 : 0);
  }

  // ── Schedules, on the I/O thread and with the board's lock held ──

  /** Serves what is due; ms until the next walk, undefined while there is nothing to walk. */
  walk(memory: GuestMemory): number | undefined {
    const { s } = this;
    if (s.status & Status.halted) return undefined;
    const due = Math.floor((this.#o.now() - s.served) / FRAME_NS);
    const before = s.frame;
    s.frame = (s.frame + MICROFRAMES * due) & 0x3fff;
    s.served += due * FRAME_NS;
    if (s.frame < before) this.#raise(Status.rollover);
    if (s.command & Command.periodic) {
      const frames = Math.min(due, FRAMES_MAX);
      for (let n = 0; n < frames; n++) this.#frame(memory, ((s.frame >>> 3) - frames + n) & 0x3ff);
    }
    if (s.command & Command.async) this.#async(memory);
    if (s.command & Command.advance) {
      s.command &= ~Command.advance;
      this.#raise(Status.advance);
    }
    return s.command & (Command.periodic | Command.async) ? WALK_MS : undefined;
  }

  #frame(memory: GuestMemory, frame: number): void {
    let link = memory.read32(this.s.periodic + 4 * frame) >>> 0;
    for (let links = 0; links < LINKS_MAX && !(link & END); links++) {
      const at = link - (link % 32);
      if ((link >>> 1) % 4 === Kind.queue) this.#queue(memory, at);
      // Isochronous descriptors are passed by: no device here has such endpoints.
      link = memory.read32(at) >>> 0;
    }
  }

  #async(memory: GuestMemory): void {
    let at = this.s.async;
    let heads = 0;
    for (let n = 0; n < QUEUES_MAX; n++) {
      if (memory.read32(at + 4) & HEAD && ++heads === 2) return;
      this.#queue(memory, at);
      const link = memory.read32(at) >>> 0;
      if (link & END || (link >>> 1) % 4 !== Kind.queue) return;
      at = link - (link % 32);
      if (at === this.s.async) return;
    }
  }

  /** Serves one queue head, section 4.10. */
  #queue(memory: GuestMemory, at: number): void {
    for (let n = 0; n < DESCRIPTORS_MAX; n++) {
      let token = memory.read32(at + 0x18) >>> 0;
      if (token & Token.halted) return;
      if (!(token & Token.active)) {
        if (!this.#fetch(memory, at, token)) return;
        token = memory.read32(at + 0x18) >>> 0;
      }
      if (!this.#execute(memory, at, token)) return;
    }
  }

  /** Takes the next descriptor into the queue head; false where there is none. */
  #fetch(memory: GuestMemory, at: number, token: number): boolean {
    const characteristics = memory.read32(at + 4) >>> 0;
    const short = ((token >>> 16) & 0x7fff) !== 0;
    const alternate = memory.read32(at + 0x14) >>> 0;
    let next = memory.read32(at + 0x10) >>> 0;
    if (short && !(alternate & END)) next = alternate;
    if (next & END) return false;
    const qtd = next - (next % 32);
    const fresh = memory.read32(qtd + 8) >>> 0;
    if (!(fresh & Token.active)) return false;
    memory.write32(at + 0x0c, qtd);
    memory.write32(at + 0x10, memory.read32(qtd));
    memory.write32(at + 0x14, memory.read32(qtd + 4));
    // The toggle is the queue's own unless the descriptors carry it.
    const toggle = characteristics & 0x4000 ? fresh & Token.toggle : token & Token.toggle;
    memory.write32(at + 0x18, ((fresh & ~Token.toggle) | toggle) >>> 0);
    for (let i = 0; i < 5; i++) memory.write32(at + 0x1c + 4 * i, memory.read32(qtd + 12 + 4 * i));
    return true;
  }

  /** Carries the descriptor in a queue head out; false where the queue is left for now. */
  #execute(memory: GuestMemory, at: number, token: number): boolean {
    const characteristics = memory.read32(at + 4) >>> 0;
    const qtd = memory.read32(at + 0x0c) >>> 0;
    const device = this.#find(characteristics & 0x7f);
    const endpoint = (characteristics >>> 8) & 15;
    const total = Math.min(BYTES_MAX, (token >>> 16) & 0x7fff);
    const pid = pids[(token >>> 8) & 3];
    const finish = (bits: number, left: number, toggle: number): void => {
      const done = ((token & ~(0x7fff_0000 | Token.toggle | 0xff)) | bits | (left << 16) | toggle) >>> 0;
      memory.write32(at + 0x18, done);
      memory.write32(qtd - (qtd % 32) + 8, done);
    };
    if (device === undefined || pid === undefined) {
      finish(Token.halted | Token.transaction, total, token & Token.toggle);
      this.#raise(Status.error | (token & Token.complete ? Status.interrupt : 0));
      return false;
    }
    const moved = this.#transact(memory, at, device, endpoint, pid, total, token);
    if (moved === 'nak') return false;
    if (moved === 'stall') {
      finish(Token.halted, total, token & Token.toggle);
      this.#raise(Status.error | (token & Token.complete ? Status.interrupt : 0));
      return false;
    }
    const packet = Math.max(1, (characteristics >>> 16) & 0x7ff);
    const packets = Math.max(1, Math.ceil(moved / packet));
    finish(0, total - moved, packets % 2 === 1 ? (~token & Token.toggle) >>> 0 : token & Token.toggle);
    if (token & Token.complete || (pid === 'in' && moved < total)) this.#raise(Status.interrupt);
    return true;
  }

  #transact(
    memory: GuestMemory,
    at: number,
    device: UsbDevice,
    endpoint: number,
    pid: (typeof pids)[number],
    total: number,
    token: number,
  ): number | 'nak' | 'stall' {
    /** Pieces of the five pages from the current offset on. */
    const pieces = (length: number, use: (gpa: number, from: number, n: number) => void): void => {
      let page = (token >>> 12) & 7;
      let offset = memory.read32(at + 0x1c) & 0xfff;
      for (let done = 0; done < length && page < 5; page++, offset = 0) {
        const n = Math.min(length - done, 4096 - offset);
        use((memory.read32(at + 0x1c + 4 * page) & ~0xfff) >>> 0, done, n);
        done += n;
      }
    };
    const first = memory.read32(at + 0x1c) & 0xfff;
    const start = (from: number): number => (from === 0 ? first : 0);
    if (pid === 'in') {
      const bytes = device.in(endpoint, total);
      if (bytes === 'nak' || bytes === 'stall') return bytes;
      if (bytes === 'ack') return 0;
      pieces(bytes.length, (page, from, n) => {
        const gpa = page + start(from);
        const to = memory.slice(gpa, n);
        if (!to) return;
        to.set(bytes.subarray(from, from + n));
        memory.written(gpa, n);
      });
      return bytes.length;
    }
    const bytes = new Uint8Array(total);
    pieces(total, (page, from, n) => {
      const source = memory.slice(page + start(from), n);
      if (source) bytes.set(source, from);
    });
    const answer = pid === 'setup' ? device.setup(total === 8 ? bytes : new Uint8Array(8)) : device.out(endpoint, bytes);
    return answer === 'ack' ? total : answer;
  }
}
