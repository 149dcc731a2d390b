// A virtqueue as the device sees it: takes chains of descriptors, gives them back as used, and says when the driver wants to know.
// Virtual I/O Device (VIRTIO) 1.2, sections 2.7 (split) and 2.8 (packed). All numbers in guest memory are hostile: every loop is bounded.
import type { GuestMemory } from '../../bus/memory.ts';
import { type Chain, MAX_PIECES, Pieces } from './chain.ts';
import type { QueueState } from './state.ts';

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const AVAIL = 0x80;
const USED = 0x8000;

/** What rings the driver agreed to. */
export interface RingKind {
  readonly packed: boolean;
  readonly eventIndex: boolean;
  readonly indirect: boolean;
}

/** An error of the driver's: the queue stops until a reset. */
export class RingError extends Error {}

const u16 = (n: number): number => n & 0xffff;

/** Whether moving an index from `before` to `now` passes `event` (section 2.7.10). */
const passes = (event: number, now: number, before: number): boolean => u16(now - event - 1) < u16(now - before);

export class Virtqueue {
  readonly s: QueueState;
  readonly #memory: GuestMemory;
  readonly #fence: Int32Array;

  constructor(state: QueueState, memory: GuestMemory, fence: Int32Array) {
    this.s = state;
    this.#memory = memory;
    this.#fence = fence;
  }

  /** Before the driver's set-up. */
  reset(size: number): void {
    const { s } = this;
    s.desc = s.driver = s.device = 0;
    s.size = size;
    s.enabled = 0;
    s.next = s.used = s.signalled = 0;
    s.wrap = s.usedWrap = 1;
    s.signalledValid = 0;
    Atomics.store(s.kicked, 0, 0);
  }

  /** The next chain; undefined when there is none. @throws RingError */
  take(kind: RingKind, epoch: number): Chain | undefined {
    if (this.s.enabled === 0 || this.s.size === 0) return undefined;
    return kind.packed ? this.#takePacked(kind, epoch) : this.#takeSplit(kind, epoch);
  }
  /** True when there is no chain to take. */
  empty(kind: RingKind): boolean {
    const { s } = this;
    if (s.enabled === 0 || s.size === 0) return true;
    if (kind.packed) return !this.#available(this.#memory.read16(s.desc + 16 * s.next + 14));
    return this.#memory.read16(s.driver + 2) === s.next;
  }
  /** Puts the chain that was taken last back, as if it had not been taken. */
  untake(kind: RingKind, chain: Chain): void {
    const { s } = this;
    if (!kind.packed) s.next = u16(s.next - 1);
    else if (s.next >= chain.slots) s.next -= chain.slots;
    else {
      s.next += s.size - chain.slots;
      s.wrap ^= 1;
    }
  }

  /** Asks the driver to notify when it adds a chain; true when one is there already. */
  listen(kind: RingKind): boolean {
    const { s } = this;
    if (s.enabled === 0) return false;
    if (kind.packed) this.#memory.write16(s.device + 2, 0);
    else if (kind.eventIndex) this.#memory.write16(s.device + 4 + 8 * s.size, s.next);
    else this.#memory.write16(s.device, 0);
    this.#barrier();
    return !this.empty(kind);
  }

  /**
   * Gives chains back, each with the bytes that were written. The driver sees all of them at once: a packet that fills several buffers
   * must not be seen in part (section 5.1.6.4).
   */
  give(kind: RingKind, done: readonly (readonly [Chain, number])[]): void {
    const { s } = this;
    const m = this.#memory;
    if (done.length === 0) return;
    if (!kind.packed) {
      for (const [n, [chain, written]] of done.entries()) {
        const at = s.device + 4 + 8 * ((s.used + n) % s.size);
        m.write32(at, chain.id);
        m.write32(at + 4, written);
      }
      this.#barrier();
      s.used = u16(s.used + done.length);
      m.write16(s.device + 2, s.used);
      return;
    }
    let first = () => {};
    for (const [n, [chain, written]] of done.entries()) {
      const at = s.desc + 16 * s.used;
      const flags = (s.usedWrap ? AVAIL | USED : 0) | (written > 0 ? WRITE : 0);
      m.write32(at + 8, written);
      m.write16(at + 12, chain.id);
      // The first one's flags make the rest visible, too: the driver reads in order.
      if (n === 0) first = () => m.write16(at + 14, flags);
      else m.write16(at + 14, flags);
      s.used += chain.slots;
      if (s.used >= s.size) {
        s.used -= s.size;
        s.usedWrap ^= 1;
        s.signalledValid = 0;
      }
    }
    this.#barrier();
    first();
  }

  /** Whether the driver wants an interrupt for what was given since the last call. */
  wantsInterrupt(kind: RingKind): boolean {
    const { s } = this;
    const m = this.#memory;
    this.#barrier();
    const before = s.signalled;
    const valid = s.signalledValid !== 0;
    s.signalled = s.used;
    s.signalledValid = 1;
    if (kind.packed) {
      const flags = m.read16(s.driver + 2);
      if (flags !== 2 || !kind.eventIndex) return flags !== 1;
      const offWrap = m.read16(s.driver);
      const event = (offWrap & 0x7fff) - (offWrap >>> 15 === s.usedWrap ? 0 : s.size);
      return !valid || passes(event, s.used, before);
    }
    if (!kind.eventIndex) return (m.read16(s.driver) & 1) === 0;
    return !valid || passes(m.read16(s.driver + 4 + 2 * s.size), s.used, before);
  }

  #barrier(): void {
    Atomics.add(this.#fence, 0, 0);
  }

  // -- split

  #takeSplit(kind: RingKind, epoch: number): Chain | undefined {
    const { s } = this;
    const m = this.#memory;
    const waiting = u16(m.read16(s.driver + 2) - s.next);
    if (waiting === 0) return undefined;
    if (waiting > s.size) throw new RingError(`${waiting} chains wait in a ring of ${s.size}`);
    this.#barrier();
    const head = m.read16(s.driver + 4 + 2 * (s.next % s.size));
    if (head >= s.size) throw new RingError(`descriptor ${head} of ${s.size}`);
    const chain = { out: new Pieces(m), in: new Pieces(m), id: head, slots: 1, epoch };
    let table = s.desc;
    let count = s.size;
    let index = head;
    let indirect = false;
    for (let left = s.size; ; left--) {
      if (left === 0) throw new RingError('a chain of descriptors without an end');
      const at = table + 16 * index;
      const flags = m.read16(at + 12);
      if (flags & INDIRECT) {
        if (!kind.indirect || indirect || flags & NEXT) throw new RingError('an indirect descriptor where none may be');
        const length = m.read32(at + 8);
        count = length / 16;
        if (!Number.isInteger(count) || count === 0 || count > MAX_PIECES)
          throw new RingError(`an indirect table of ${length} bytes`);
        table = Number(m.read64(at));
        indirect = true;
        index = 0;
        left = count + 1;
        continue;
      }
      this.#piece(chain, Number(m.read64(at)), m.read32(at + 8), flags);
      if (!(flags & NEXT)) break;
      index = m.read16(at + 14);
      if (index >= count) throw new RingError(`descriptor ${index} of ${count}`);
    }
    s.next = u16(s.next + 1);
    return chain;
  }

  #piece(chain: Chain, gpa: number, length: number, flags: number): void {
    if (length === 0) throw new RingError('a descriptor of no bytes');
    const pieces = flags & WRITE ? chain.in : chain.out;
    if (!(flags & WRITE) && chain.in.length > 0) throw new RingError('a readable descriptor behind a writable one');
    if (!pieces.add(gpa, length)) throw new RingError(`0x${gpa.toString(16)}+0x${length.toString(16)} is not RAM`);
    if (chain.in.length + chain.out.length > 0xffff_ffff) throw new RingError('a chain of 4 GiB');
  }

  // -- packed

  #available(flags: number): boolean {
    const { wrap } = this.s;
    return ((flags & AVAIL) !== 0) === (wrap !== 0) && ((flags & USED) !== 0) !== (wrap !== 0);
  }
  #takePacked(kind: RingKind, epoch: number): Chain | undefined {
    const { s } = this;
    const m = this.#memory;
    let index = s.next;
    if (!this.#available(m.read16(s.desc + 16 * index + 14))) return undefined;
    this.#barrier();
    const out = new Pieces(m);
    const into = new Pieces(m);
    const pieces = { out, in: into, id: 0, slots: 0, epoch };
    let slots = 0;
    let id = 0;
    for (;;) {
      if (slots === s.size) throw new RingError('a chain of descriptors without an end');
      const at = s.desc + 16 * index;
      const flags = m.read16(at + 14);
      id = m.read16(at + 12);
      slots++;
      if (++index === s.size) index = 0;
      if (flags & INDIRECT) {
        if (!kind.indirect || flags & NEXT || slots > 1) throw new RingError('an indirect descriptor where none may be');
        this.#packedTable(pieces, Number(m.read64(at)), m.read32(at + 8));
        break;
      }
      this.#piece(pieces, Number(m.read64(at)), m.read32(at + 8), flags);
      if (!(flags & NEXT)) break;
    }
    s.next += slots;
    if (s.next >= s.size) {
      s.next -= s.size;
      s.wrap ^= 1;
    }
    return { out, in: into, id, slots, epoch };
  }
  #packedTable(chain: Chain, table: number, length: number): void {
    const count = length / 16;
    if (!Number.isInteger(count) || count === 0 || count > MAX_PIECES)
      throw new RingError(`an indirect table of ${length} bytes`);
    for (let n = 0; n < count; n++) {
      const at = table + 16 * n;
      this.#piece(chain, Number(this.#memory.read64(at)), this.#memory.read32(at + 8), this.#memory.read16(at + 14));
    }
  }
}
