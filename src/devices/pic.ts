// The pair of interrupt controllers of a PC. Intel 8259A datasheet (231468-003, December 1988); ELCR as in the ICH9 datasheet (316972), section 13.4.
import type { Arena } from '../bits/arena.ts';
import { lowestBit } from '../bits/fields.ts';
import { struct, type View } from '../bits/struct.ts';
import type { IrqLine } from '../bus/irq.ts';
import type { AddressSpace, Handler } from '../bus/space.ts';
import type { RemoteChips } from './apic-bus.ts';

const chipFields = {
  /** Levels of the inputs. */
  lines: 'u8',
  irr: 'u8',
  imr: 'u8',
  isr: 'u8',
  /** Bits that are level-triggered: ELCR, or all by ICW1. */
  elcr: 'u8',
  levelAll: 'u8',
  /** Vector base: ICW2, bits 7:3. */
  base: 'u8',
  /** Which ICW comes next: 0 for none, 2, 3, 4. */
  icw: 'u8',
  needs4: 'u8',
  single: 'u8',
  autoEoi: 'u8',
  rotateAuto: 'u8',
  fullyNested: 'u8',
  specialMask: 'u8',
  readIsr: 'u8',
  poll: 'u8',
  /** Input with the highest priority. */
  top: 'u8',
  /** Level of the INT output. */
  output: 'u8',
} as const;
const chipLayout = struct(chipFields);
type Chip = View<typeof chipFields>;

export const picLayout = struct({ chips: [chipLayout, 2] }, { name: 'pic', version: 1 });

const cascade = 2;
/** Inputs that ELCR can make level-triggered. */
export const elcrWritable = [0xf8, 0xde] as const;
/** Ports of the first and the second chip, and of their edge and level control. */
export const picPorts = { base: [0x20, 0xa0], elcr: 0x4d0 } as const;

export class Pic {
  readonly s: View<typeof picLayout.fields>;
  readonly #remote: () => RemoteChips | undefined;
  readonly #master: Chip;
  readonly #slave: Chip;
  readonly #int: IrqLine;

  /** `int` is the pair's output: LINT0 of the local APICs. While there is a `remote` one, the wires lead there. */
  constructor(o: { arena: Arena; int: IrqLine; remote?: () => RemoteChips | undefined }) {
    this.s = o.arena.alloc(picLayout);
    this.#remote = o.remote ?? (() => undefined);
    const { chips } = this.s;
    this.#master = chips[0]!;
    this.#slave = chips[1]!;
    this.#int = o.int;
  }

  reset(): void {
    for (const c of [this.#master, this.#slave]) {
      this.#initialise(c);
      c.lines = 0;
      c.elcr = 0;
      c.levelAll = 0;
      c.base = 0;
      c.icw = 0;
      // The chip's state before ICW1 is undefined; masked is what is safe.
      c.imr = 0xff;
      c.output = 0;
    }
    this.#int.set(0);
  }

  /** Chip 0 or 1, to look at. */
  chip(n: number): Readonly<Chip> {
    return n === 0 ? this.#master : this.#slave;
  }

  map(ports: AddressSpace): void {
    ports.map(picPorts.base[0], 2, this.#ports(this.#master), 'pic');
    ports.map(picPorts.base[1], 2, this.#ports(this.#slave), 'pic');
    ports.map(
      picPorts.elcr,
      2,
      {
        max: 1,
        read: (o) => (o === 0 ? this.#master : this.#slave).elcr,
        write: (o, _, v) => {
          (o === 0 ? this.#master : this.#slave).elcr = v & elcrWritable[o]!;
          this.#settle();
        },
      },
      'elcr',
    );
  }

  /** The wire of ISA interrupt `n`, 0 to 15 without 2. */
  irq(n: number): IrqLine {
    if (n < 0 || n > 15 || n === cascade)
      throw new Error(`Cannot wire interrupt ${n} of the 8259As: they have 0 to 15 without 2`);
    const chip = n < 8 ? this.#master : this.#slave;
    return {
      set: (level) => {
        const remote = this.#remote();
        if (remote) {
          chip.lines = level ? chip.lines | (1 << (n & 7)) : chip.lines & ~(1 << (n & 7));
          remote.pic(n, level);
          return;
        }
        this.#line(chip, n & 7, level);
        this.#settle();
      },
    };
  }

  /** Its state was changed from outside (`s`). */
  restored(): void {
    this.#settle();
  }

  /** The interrupt acknowledge cycle: the vector, or that of the spurious input 7. */
  acknowledge(): number {
    const m = this.#master;
    const n = this.#highest(m);
    if (n < 0) return m.base | 7;
    this.#begin(m, n);
    let vector = m.base | n;
    if (n === cascade && m.single === 0) {
      const s = this.#slave;
      const k = this.#highest(s);
      if (k >= 0) this.#begin(s, k);
      vector = s.base | (k < 0 ? 7 : k);
    }
    this.#settle();
    return vector;
  }

  #ports(c: Chip): Handler {
    return {
      max: 1,
      read: (o) => this.#read(c, o),
      write: (o, _, v) => {
        if (o === 0) this.#command(c, v);
        else this.#data(c, v);
        this.#settle();
      },
    };
  }

  #read(c: Chip, offset: number): number {
    if (c.poll !== 0) {
      c.poll = 0;
      const n = this.#highest(c);
      if (n < 0) return 0;
      this.#begin(c, n);
      this.#settle();
      return 0x80 | n;
    }
    return offset === 1 ? c.imr : c.readIsr ? c.isr : c.irr;
  }

  #command(c: Chip, v: number): void {
    if (v & 0x10) {
      this.#initialise(c);
      c.levelAll = v & 8 ? 0xff : 0;
      c.single = v & 2 ? 1 : 0;
      c.needs4 = v & 1;
      c.icw = 2;
    } else if (v & 8) {
      if (v & 4) c.poll = 1;
      if (v & 2) c.readIsr = v & 1;
      if (v & 0x40) c.specialMask = v & 0x20 ? 1 : 0;
    } else this.#ocw2(c, v);
  }

  /** End of interrupt and rotation, figure 8 of the datasheet. */
  #ocw2(c: Chip, v: number): void {
    const n = v & 7;
    switch (v >>> 5) {
      case 1:
        this.#end(c, this.#inService(c), false);
        break;
      case 5:
        this.#end(c, this.#inService(c), true);
        break;
      case 3:
        this.#end(c, n, false);
        break;
      case 7:
        this.#end(c, n, true);
        break;
      case 6:
        c.top = (n + 1) & 7;
        break;
      case 4:
        c.rotateAuto = 1;
        break;
      case 0:
        c.rotateAuto = 0;
        break;
    }
  }

  #data(c: Chip, v: number): void {
    switch (c.icw) {
      case 2:
        c.base = v & 0xf8;
        c.icw = c.single ? (c.needs4 ? 4 : 0) : 3;
        break;
      case 3:
        // The wiring of the two is the board's.
        c.icw = c.needs4 ? 4 : 0;
        break;
      case 4:
        c.fullyNested = (v >>> 4) & 1;
        c.autoEoi = (v >>> 1) & 1;
        c.icw = 0;
        break;
      default:
        c.imr = v;
    }
  }

  /** What ICW1 does. Inputs that are high need a new edge. */
  #initialise(c: Chip): void {
    c.irr = 0;
    c.imr = 0;
    c.isr = 0;
    c.needs4 = 0;
    c.single = 0;
    c.autoEoi = 0;
    c.rotateAuto = 0;
    c.fullyNested = 0;
    c.specialMask = 0;
    c.readIsr = 0;
    c.poll = 0;
    c.top = 0;
  }

  #line(c: Chip, n: number, level: 0 | 1): void {
    const bit = 1 << n;
    const levelTriggered = ((c.elcr | c.levelAll) & bit) !== 0;
    if (level) {
      if (levelTriggered || (c.lines & bit) === 0) c.irr |= bit;
      c.lines |= bit;
    } else {
      c.lines &= ~bit;
      // The chip forgets an edge whose wire falls before the acknowledge. A guest that is held up must not lose it, so it stays.
      if (levelTriggered) c.irr &= ~bit;
    }
  }

  /** `mask` rotated so that the input with the highest priority is bit 0. */
  #byPriority(c: Chip, mask: number): number {
    return ((mask >>> c.top) | (mask << (8 - c.top))) & 0xff;
  }

  #inService(c: Chip): number {
    // In special mask mode a non-specific EOI passes over what is masked.
    const isr = c.specialMask ? c.isr & ~c.imr : c.isr;
    const p = lowestBit(this.#byPriority(c, isr));
    return p < 0 ? -1 : (p + c.top) & 7;
  }

  /** The input that may interrupt now, -1 for none. */
  #highest(c: Chip): number {
    const p = lowestBit(this.#byPriority(c, c.irr & ~c.imr));
    if (p < 0) return -1;
    let isr = c.specialMask ? c.isr & ~c.imr : c.isr;
    // In special fully nested mode the master lets further requests of the second chip through.
    if (c.fullyNested && c === this.#master) isr &= ~(1 << cascade);
    const busy = lowestBit(this.#byPriority(c, isr));
    return busy >= 0 && busy <= p ? -1 : (p + c.top) & 7;
  }

  #begin(c: Chip, n: number): void {
    const bit = 1 << n;
    if (((c.elcr | c.levelAll) & bit) === 0 && !(c === this.#master && n === cascade)) c.irr &= ~bit;
    if (c.autoEoi) {
      if (c.rotateAuto) c.top = (n + 1) & 7;
    } else c.isr |= bit;
  }

  #end(c: Chip, n: number, rotate: boolean): void {
    if (n < 0) return;
    c.isr &= ~(1 << n);
    if (rotate) c.top = (n + 1) & 7;
  }

  /** Puts the outputs right. The wire between the chips acts as a level: the master sees what the second one asks now. */
  #settle(): void {
    for (const c of [this.#master, this.#slave]) c.irr |= c.lines & (c.elcr | c.levelAll);
    const asks = this.#highest(this.#slave) >= 0 ? 1 : 0;
    this.#slave.output = asks;
    if (asks) this.#master.irr |= 1 << cascade;
    else this.#master.irr &= ~(1 << cascade);
    const out = this.#highest(this.#master) >= 0 ? 1 : 0;
    if (out !== this.#master.output) {
      this.#master.output = out;
      this.#int.set(out);
    }
  }
}
