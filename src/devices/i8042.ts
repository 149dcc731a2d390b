// The keyboard controller of a PC, ports 0x60 and 0x64. IBM PS/2 Hardware Interface Technical Reference (1988), "Keyboard and Auxiliary Device Controller".
import type { Arena } from '../bits/arena.ts';
import { struct, type View } from '../bits/struct.ts';
import type { IrqLine } from '../bus/irq.ts';
import type { AddressSpace } from '../bus/space.ts';
import { Ps2Keyboard, Ps2Mouse } from './ps2.ts';
import { toSet1 } from './scancodes.ts';

export const i8042Layout = struct(
  {
    ram: ['u8', 32],
    /** Bit 0 of status: a byte waits in `data`; `source` tells whose it is. */
    full: 'u8',
    data: 'u8',
    source: 'u8',
    /** A byte of the controller that waits for the output buffer, and whether there is one. */
    reply: 'u8',
    replySource: 'u8',
    hasReply: 'u8',
    /** Command that waits for its argument, 0 for none. */
    command: 'u8',
    lastWasCommand: 'u8',
    output: 'u8',
    /** 0xF0 came from the keyboard: the next code is a break. */
    breakNext: 'u8',
  },
  { name: 'i8042', version: 1 },
);

/** Bits of the command byte, which is byte 0 of the RAM. */
const mode = { keyboardIrq: 1, auxIrq: 2, system: 4, keyboardOff: 0x10, auxOff: 0x20, translate: 0x40 } as const;
const source = { controller: 0, keyboard: 1, aux: 2 } as const;
const a20 = 2;
const notReset = 1;

export interface I8042Options {
  readonly arena: Arena;
  /** ISA interrupts 1 and 12. */
  readonly keyboardIrq: IrqLine;
  readonly auxIrq: IrqLine;
  readonly reset: () => void;
  readonly a20?: (open: boolean) => void;
}

export class I8042 {
  readonly s: View<typeof i8042Layout.fields>;
  readonly keyboard: Ps2Keyboard;
  readonly mouse: Ps2Mouse;
  readonly #o: I8042Options;

  constructor(o: I8042Options) {
    this.#o = o;
    this.s = o.arena.alloc(i8042Layout);
    this.keyboard = new Ps2Keyboard(o.arena);
    this.mouse = new Ps2Mouse(o.arena);
  }

  /** As firmware leaves it: both ports on, with interrupts and translation. */
  reset(): void {
    const s = this.s;
    s.ram.fill(0);
    s.ram[0] = mode.translate | mode.system | mode.auxIrq | mode.keyboardIrq;
    s.full = 0;
    s.hasReply = 0;
    s.command = 0;
    s.lastWasCommand = 0;
    s.output = 0xcf;
    s.breakNext = 0;
    this.keyboard.reset();
    this.mouse.reset();
    this.#drive();
  }

  map(ports: AddressSpace): void {
    const at = (o: 0 | 1) => ({
      max: 1 as const,
      read: () => (o === 0 ? this.#readData() : this.#status()),
      write: (_: number, __: number, v: number) => (o === 0 ? this.#writeData(v) : this.#command(v)),
    });
    ports.map(0x60, 1, at(0), 'i8042-data');
    ports.map(0x64, 1, at(1), 'i8042-cmd');
  }

  /** A key goes down or up; see `Ps2Keyboard.key`. */
  key(key: number, down: boolean): boolean {
    const taken = this.keyboard.key(key, down);
    this.#fill();
    return taken;
  }

  /** The mouse moves; see `Ps2Mouse.move`. */
  move(dx: number, dy: number, dz: number, buttons: number): boolean {
    const taken = this.mouse.move(dx, dy, dz, buttons);
    this.#fill();
    return taken;
  }

  #status(): number {
    const s = this.s;
    const aux = s.full && s.source === source.aux ? 0x20 : 0;
    return 0x10 | s.full | (s.ram[0]! & mode.system) | (s.lastWasCommand << 3) | aux;
  }

  #readData(): number {
    const s = this.s;
    const byte = s.data;
    if (s.full) {
      s.full = 0;
      this.#drive();
      this.#fill();
    }
    return byte;
  }

  #writeData(v: number): void {
    const s = this.s;
    const command = s.command;
    s.command = 0;
    s.lastWasCommand = 0;
    if (command >= 0x60 && command < 0x80) {
      s.ram[command & 31] = v;
      this.#drive();
    } else if (command === 0xd1) this.#setOutput(v);
    else if (command === 0xd2) this.#answer(v, source.keyboard);
    else if (command === 0xd3) this.#answer(v, source.aux);
    else if (command === 0xd4) {
      s.ram[0] = s.ram[0]! & ~mode.auxOff;
      this.mouse.receive(v);
    } else {
      // Writing to the keyboard opens its port.
      s.ram[0] = s.ram[0]! & ~mode.keyboardOff;
      this.keyboard.receive(v);
    }
    this.#fill();
  }

  #command(v: number): void {
    const s = this.s;
    s.command = 0;
    s.lastWasCommand = 1;
    if (v < 0x20) this.#answer(s.ram[v]!);
    else if (v < 0x40) this.#answer(s.ram[v & 31]!);
    else if (v >= 0x60 && v < 0x80) s.command = v;
    else if (v >= 0xf0) {
      if ((v & notReset) === 0) this.#o.reset();
    } else this.#named(v);
    this.#fill();
  }

  #named(v: number): void {
    const s = this.s;
    const set = (bit: number, on: boolean) => {
      s.ram[0] = on ? s.ram[0]! | bit : s.ram[0]! & ~bit;
    };
    switch (v) {
      case 0xa4: // No password is installed.
        this.#answer(0xf1);
        break;
      case 0xa7:
        set(mode.auxOff, true);
        break;
      case 0xa8:
        set(mode.auxOff, false);
        break;
      case 0xa9: // Both interface tests find nothing wrong.
      case 0xab:
        this.#answer(0);
        break;
      case 0xaa:
        set(mode.system, true);
        this.#answer(0x55);
        break;
      case 0xad:
        set(mode.keyboardOff, true);
        break;
      case 0xae:
        set(mode.keyboardOff, false);
        break;
      case 0xc0: // Keyboard not locked.
        this.#answer(0x80);
        break;
      case 0xd0:
        this.#answer(s.output | (s.full && s.source !== source.aux ? 0x10 : 0) | (s.full && s.source === source.aux ? 0x20 : 0));
        break;
      case 0xd1:
      case 0xd2:
      case 0xd3:
      case 0xd4:
        s.command = v;
        break;
      case 0xdd:
        this.#setOutput(s.output & ~a20);
        break;
      case 0xdf:
        this.#setOutput(s.output | a20);
        break;
      case 0xe0:
        this.#answer(0);
        break;
    }
  }

  #setOutput(v: number): void {
    const changed = v ^ this.s.output;
    this.s.output = (v & 0xcf) | notReset;
    if (changed & a20) this.#o.a20?.((v & a20) !== 0);
    if ((v & notReset) === 0) this.#o.reset();
  }

  #answer(byte: number, from: number = source.controller): void {
    this.s.reply = byte;
    this.s.replySource = from;
    this.s.hasReply = 1;
  }

  /** Puts the next byte into the output buffer when it is empty: the controller's own, the keyboard's, the mouse's. */
  #fill(): void {
    const s = this.s;
    while (!s.full) {
      if (s.hasReply) {
        s.hasReply = 0;
        this.#offer(s.reply, s.replySource);
      } else if (this.keyboard.waiting && !(s.ram[0]! & mode.keyboardOff)) this.#fromKeyboard(this.keyboard.take());
      else if (this.mouse.waiting && !(s.ram[0]! & mode.auxOff)) this.#offer(this.mouse.take(), source.aux);
      else return;
    }
  }

  /** With translation, the prefix of a break code becomes bit 7 of what follows. */
  #fromKeyboard(byte: number): void {
    const s = this.s;
    if (!(s.ram[0]! & mode.translate)) this.#offer(byte, source.keyboard);
    else if (byte === 0xf0) s.breakNext = 0x80;
    else {
      const broken = s.breakNext;
      s.breakNext = 0;
      this.#offer(toSet1(byte) | broken, source.keyboard);
    }
  }

  #offer(byte: number, from: number): void {
    this.s.data = byte;
    this.s.source = from;
    this.s.full = 1;
    this.#drive();
  }

  #drive(): void {
    const s = this.s;
    const m = s.ram[0]!;
    this.#o.keyboardIrq.set(s.full && s.source !== source.aux && m & mode.keyboardIrq ? 1 : 0);
    this.#o.auxIrq.set(s.full && s.source === source.aux && m & mode.auxIrq ? 1 : 0);
  }
}
