// A 16550A serial port. National Semiconductor PC16550D datasheet (TL/C/8652, June 1995), section 8.
import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { Report } from '../bus/events.ts';
import type { IrqLine } from '../bus/irq.ts';
import { registers, ro, rw } from '../bus/registers.ts';
import { Ring, ringLayout } from '../bus/ring.ts';
import type { AddressSpace, Handler } from '../bus/space.ts';

/** Where PCs have their serial ports: base port and ISA interrupt. */
export const comPorts = [
  { base: 0x3f8, irq: 4 },
  { base: 0x2f8, irq: 3 },
  { base: 0x3e8, irq: 4 },
  { base: 0x2e8, irq: 3 },
] as const;

export const uartLayout = struct(
  {
    ier: 'u8',
    fcr: 'u8',
    lcr: 'u8',
    mcr: 'u8',
    /** Overrun, as LSR's bit 1. */
    overrun: 'u8',
    /** The low half: deltas. The high half is derived: `modem`, or MCR in loopback. */
    deltas: 'u8',
    modem: 'u8',
    scratch: 'u8',
    divisor: 'u16',
    /** Receive FIFO: 16 deep, one in character mode. */
    rx: ['u8', 16],
    /** Error bits of LSR, per character. */
    rxErrors: ['u8', 16],
    rxHead: 'u8',
    rxCount: 'u8',
    /** The transmit interrupt waits: THR has become empty since IIR was last read with it as the cause. */
    threPending: 'u8',
    /** A character that waits here because the transmit ring was full; `holdingFull` is one of `Holding`. */
    holding: 'u8',
    holdingFull: 'u8',
    /** Level of the interrupt output. */
    irq: 'u8',
  },
  { name: 'uart', version: 1 },
);
type State = ViewOf<typeof uartLayout>;

const ier = { rx: 1, thre: 2, line: 4, modem: 8 } as const;
const lsr = { ready: 1, overrun: 2, breakIn: 0x10, thre: 0x20, empty: 0x40, fifoError: 0x80 } as const;
const mcr = { dtr: 1, rts: 2, out1: 4, out2: 8, loop: 0x10 } as const;
/** High half of MSR. */
const msr = { cts: 0x10, dsr: 0x20, ri: 0x40, dcd: 0x80 } as const;
const dlab = 0x80;
const fifoOn = 1;
const triggers = [1, 4, 8, 14] as const;
const ringSize = 4096;
const FIFO_BYTES = 16;
/** The transmitter: ready, with a character that waits for room in the ring, or busy since a whole FIFO would not fit. */
const Holding = { empty: 0, full: 1, busy: 2 } as const;

export interface UartOptions {
  readonly arena: Arena;
  /** Tells several apart in a snapshot: `0` for COM1. */
  readonly instance: string;
  readonly irq: IrqLine;
  readonly report?: Report;
}

/**
 * What the guest sends goes into `output`, which the I/O thread empties (its `signal` word wakes) and then calls `drained`;
 * nothing is dropped and nothing waits: while the ring has no room for a FIFO, LSR says that the transmitter is busy.
 */
export class Uart {
  readonly s: State;
  readonly handler: Handler;
  /** Bytes from the guest; the I/O thread reads. */
  readonly output: Ring;
  /** Bytes to the guest that the receive FIFO has no room for yet; written by `receive`. */
  readonly input: Ring;
  readonly #irq: IrqLine;

  constructor(o: UartOptions) {
    this.s = o.arena.alloc(uartLayout, o.instance);
    this.output = new Ring(o.arena.alloc(ringLayout(ringSize, { name: 'uart-output' }), o.instance));
    this.input = new Ring(o.arena.alloc(ringLayout(ringSize, { name: 'uart-input' }), o.instance));
    this.#irq = o.irq;
    this.handler = uartRegisters.bind(this, o.report);
  }

  /** Power-on state, with a terminal that is present and ready. */
  reset(): void {
    const s = this.s;
    s.ier = 0;
    s.fcr = 0;
    s.lcr = 0;
    s.mcr = 0;
    s.overrun = 0;
    s.deltas = 0;
    s.modem = msr.cts | msr.dsr | msr.dcd;
    s.scratch = 0;
    s.divisor = 12;
    s.rxHead = 0;
    s.rxCount = 0;
    s.threPending = 0;
    s.holdingFull = 0;
    s.irq = 0;
    this.#irq.set(0);
  }

  map(ports: AddressSpace, base: number): void {
    ports.map(base, 8, this.handler, 'serial');
  }

  // ── The I/O thread's side; with the board's lock held ──

  /** Bytes from outside; returns how many were taken. Call again with the rest when `input.signal` changes. */
  receive(bytes: Uint8Array): number {
    // In loopback the line is cut: the FIFO is left alone until it ends.
    const taken = this.input.write(bytes);
    if (taken > 0) this.#refill();
    return taken;
  }

  /** A break from outside: a zero character with the break bit. */
  receiveBreak(): void {
    this.#store(0, lsr.breakIn);
    this.#update();
  }

  /** The I/O thread has taken bytes out of `output`. */
  drained(): void {
    const s = this.s;
    if (s.holdingFull === Holding.empty || (s.holdingFull === Holding.full && !this.output.push(s.holding))) return;
    this.#sent();
    this.#update();
  }

  /** Modem inputs, as the bits 7:4 of MSR: DCD, RI, DSR, CTS. */
  setModem(lines: number): void {
    const before = this.modemStatus;
    this.s.modem = lines & 0xf0;
    this.#modemChanged(before);
  }

  /** DTR and RTS, as the guest drives them: bits 0 and 1. */
  get modemControl(): number {
    return this.s.mcr & (mcr.dtr | mcr.rts);
  }

  /** Line parameters as the guest has set them. `bits` counts data bits, `baud` is 0 for a divisor of 0. */
  get line(): {
    baud: number;
    bits: number;
    stop: number;
    parity: 'none' | 'odd' | 'even' | 'mark' | 'space';
    breaking: boolean;
  } {
    const { lcr, divisor } = this.s;
    const parities = ['odd', 'even', 'mark', 'space'] as const;
    return {
      baud: divisor === 0 ? 0 : Math.floor(115_200 / divisor),
      bits: 5 + (lcr & 3),
      stop: lcr & 4 ? 2 : 1,
      parity: lcr & 8 ? parities[(lcr >>> 4) & 3]! : 'none',
      breaking: (lcr & 0x40) !== 0,
    };
  }

  // ── Registers ──

  get dlab(): boolean {
    return (this.s.lcr & dlab) !== 0;
  }

  readReceiver(): number {
    const s = this.s;
    if (s.rxCount === 0) return 0;
    const byte = s.rx[s.rxHead]!;
    s.rxHead = (s.rxHead + 1) & 15;
    s.rxCount--;
    this.#refill();
    return byte;
  }

  transmit(byte: number): void {
    const s = this.s;
    if (s.ier & ier.thre && s.threPending) {
      // Writing THR takes the request back; the next one is an edge of its own.
      s.threPending = 0;
      this.#update();
    }
    if (s.mcr & mcr.loop) {
      this.#store(byte & (0xff >>> (3 - (s.lcr & 3))), 0);
      s.threPending = 1;
    } else if (s.holdingFull === Holding.full || !this.output.push(byte)) {
      // A guest that writes without asking LSR overwrites the holding register, as on the chip.
      s.holding = byte;
      s.holdingFull = Holding.full;
      s.threPending = 0;
    } else this.#sent();
    this.#update();
  }
  /** A character has gone into the ring. Who is told that the FIFO is empty may write all of it without asking again. */
  #sent(): void {
    this.s.holdingFull = this.#room ? Holding.empty : Holding.busy;
    this.s.threPending = this.#room ? 1 : 0;
  }
  get #room(): boolean {
    return !(this.s.fcr & fifoOn) || this.output.free >= FIFO_BYTES;
  }

  setIer(value: number): void {
    const before = this.s.ier;
    this.s.ier = value & 0xf;
    // Enabling the transmit interrupt with an empty THR raises it at once.
    if (value & ier.thre && !(before & ier.thre) && this.s.holdingFull === 0) this.s.threPending = 1;
    this.#update();
  }

  /** Reading IIR ends the transmit interrupt, if that is what it shows. */
  readIir(): number {
    const id = this.#cause();
    if (id === 2) {
      this.s.threPending = 0;
      this.#update();
    }
    return id | (this.s.fcr & fifoOn ? 0xc0 : 0);
  }

  setFcr(value: number): void {
    const s = this.s;
    const toggled = ((value ^ s.fcr) & fifoOn) !== 0;
    if (toggled || value & 2) {
      s.rxCount = 0;
    }
    if (toggled || value & 4) s.threPending = s.holdingFull === 0 ? 1 : 0;
    s.fcr = value & fifoOn ? value & 0xc9 : 0;
    if (s.holdingFull === Holding.empty && !this.#room) {
      s.holdingFull = Holding.busy;
      s.threPending = 0;
    }
    this.#refill();
  }

  setMcr(value: number): void {
    const before = this.modemStatus;
    this.s.mcr = value & 0x1f;
    this.#modemChanged(before);
    this.#refill();
  }

  readLsr(): number {
    const s = this.s;
    const errors = this.#errors();
    let value = errors | (s.rxCount > 0 ? lsr.ready : 0) | (s.holdingFull === 0 ? lsr.thre | lsr.empty : 0);
    if (s.fcr & fifoOn) for (let i = 0; i < s.rxCount; i++) if (s.rxErrors[(s.rxHead + i) & 15] !== 0) value |= lsr.fifoError;
    if (errors !== 0) {
      s.overrun = 0;
      s.rxErrors[s.rxHead] = 0;
      this.#update();
    }
    return value;
  }

  /** High half of MSR. In loopback the modem outputs are its inputs. */
  get modemStatus(): number {
    const { mcr: m, modem } = this.s;
    if (!(m & mcr.loop)) return modem;
    return (m & mcr.rts ? msr.cts : 0) | (m & mcr.dtr ? msr.dsr : 0) | (m & mcr.out1 ? msr.ri : 0) | (m & mcr.out2 ? msr.dcd : 0);
  }

  readMsr(): number {
    const value = this.modemStatus | this.s.deltas;
    if (this.s.deltas !== 0) {
      this.s.deltas = 0;
      this.#update();
    }
    return value;
  }

  // ── Inside ──

  /** Bits 4:1 of LSR: an overrun, and what is wrong with the character that is read next. */
  #errors(): number {
    return this.s.overrun | (this.s.rxCount > 0 ? this.s.rxErrors[this.s.rxHead]! : 0);
  }

  #modemChanged(before: number): void {
    const now = this.modemStatus;
    const changed = before ^ now;
    // RI has only a trailing edge.
    this.s.deltas |= ((changed >>> 4) & 0xb) | ((before & ~now & msr.ri) >>> 4);
    this.#update();
  }

  /** Bits 3:0 of IIR, in the chip's order of priority; 1 for none. */
  #cause(): number {
    const s = this.s;
    if (s.ier & ier.line && this.#errors() !== 0) return 6;
    if (s.ier & ier.rx && s.rxCount > 0) {
      if (!(s.fcr & fifoOn) || s.rxCount >= triggers[s.fcr >>> 6]!) return 4;
      // The line is infinitely fast, so the four characters' time of silence has passed.
      return 12;
    }
    if (s.ier & ier.thre && s.threPending !== 0 && s.holdingFull === 0) return 2;
    if (s.ier & ier.modem && s.deltas !== 0) return 0;
    return 1;
  }

  #store(byte: number, error: number): void {
    const s = this.s;
    const room = s.fcr & fifoOn ? 16 : 1;
    if (s.rxCount >= room) {
      s.overrun = lsr.overrun;
      // In character mode the new one takes the place of the old; a FIFO keeps what it has.
      if (room === 1) s.rx[s.rxHead] = byte;
      return;
    }
    s.rx[(s.rxHead + s.rxCount) & 15] = byte;
    s.rxErrors[(s.rxHead + s.rxCount) & 15] = error;
    s.rxCount++;
  }

  /** Moves waiting bytes into the FIFO as far as it has room, so that nothing from outside is ever overrun. */
  #refill(): void {
    const s = this.s;
    const room = s.fcr & fifoOn ? 16 : 1;
    while (!(s.mcr & mcr.loop) && s.rxCount < room && this.input.available > 0) this.#store(this.input.shift(), 0);
    this.#update();
  }

  /** OUT2 opens the wire to the interrupt controller on a PC. */
  #update(): void {
    const open = (this.s.mcr & mcr.out2) !== 0;
    const level = open && this.#cause() !== 1 ? 1 : 0;
    if (level === this.s.irq) return;
    this.s.irq = level;
    this.#irq.set(level);
  }
}

/** Offsets 0 to 7; 0 and 1 are the divisor while DLAB is set. */
export const uartRegisters = registers<Uart>(
  'uart',
  8,
  [
    rw(
      0,
      1,
      'RBR, THR, DLL',
      (d) => (d.dlab ? d.s.divisor & 0xff : d.readReceiver()),
      (d, v) => {
        if (d.dlab) d.s.divisor = (d.s.divisor & 0xff00) | v;
        else d.transmit(v);
      },
    ),
    rw(
      1,
      1,
      'IER, DLM',
      (d) => (d.dlab ? d.s.divisor >>> 8 : d.s.ier),
      (d, v) => {
        if (d.dlab) d.s.divisor = (d.s.divisor & 0xff) | (v << 8);
        else d.setIer(v);
      },
    ),
    rw(
      2,
      1,
      'IIR, FCR',
      (d) => d.readIir(),
      (d, v) => d.setFcr(v),
    ),
    rw(
      3,
      1,
      'LCR',
      (d) => d.s.lcr,
      (d, v) => {
        d.s.lcr = v;
      },
    ),
    rw(
      4,
      1,
      'MCR',
      (d) => d.s.mcr,
      (d, v) => d.setMcr(v),
    ),
    ro(5, 1, 'LSR', (d) => d.readLsr()),
    ro(6, 1, 'MSR', (d) => d.readMsr()),
    rw(
      7,
      1,
      'SCR',
      (d) => d.s.scratch,
      (d, v) => {
        d.s.scratch = v;
      },
    ),
  ],
  { max: 1 },
);
