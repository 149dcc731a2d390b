// The work of an xHCI controller on the I/O thread: commands, transfers and events over the guest's rings. eXtensible Host Controller Interface for Universal Serial Bus, revision 1.2, chapters 4 and 6.
//
// All that the guest has made is bounded: links of a ring, blocks of a transfer, work of one turn. What a device is not ready for stays on
// its ring and is tried again when the device has news.
import type { GuestMemory } from '../../bus/memory.ts';
import type { UsbDevice } from './device.ts';
import { Hub } from './hub.ts';
import type { Xhci } from './xhci.ts';
import {
  Code,
  ENDPOINTS,
  type EndpointState,
  EpState,
  EpType,
  INTERRUPTERS,
  SLOTS,
  type Slot,
  SlotState,
  Status,
  Trb,
  TrbFlag,
} from './xhci-state.ts';

interface TransferBlock {
  /** Where it lies. */
  readonly at: number;
  readonly parameterLow: number;
  readonly parameterHigh: number;
  readonly status: number;
  readonly control: number;
  readonly type: number;
}

/** A transfer was carried out; there is none or the device is not ready; the guest has to take events first. */
type Outcome = 'done' | 'idle' | 'full';

/** Blocks of one transfer, links between two blocks. */
const BLOCKS_MAX = 1024;
const LINKS_MAX = 32;
/** Bytes of one transfer: more than any device of ours has for one. */
const TRANSFER_MAX = 1 << 24;
/** Commands and transfers of one turn. */
const TURN = 64;
/** Entries of an event ring. */
const EVENTS_MIN = 16;
const EVENTS_MAX = 4096;

/** Where a slot's and an endpoint's contexts begin: 32 bytes each. */
const CONTEXT = 32;

export class XhciRings {
  readonly #x: Xhci;
  readonly #memory: GuestMemory;
  readonly #report: (message: string) => void;

  constructor(x: Xhci, memory: GuestMemory, report: (message: string) => void) {
    this.#x = x;
    this.#memory = memory;
    this.#report = report;
  }

  /** Does what doorbells and devices ask for. With the board's lock held. True when there is more to do. */
  work(): boolean {
    const { s } = this.#x;
    if (s.status & Status.halted) return false;
    let left = TURN;
    this.#tellPorts();
    const asked = Atomics.exchange(s.rung, 0, 0);
    if (asked & 2) this.#commandEvent(Code.ringStopped, s.ring, 0);
    while (s.ringOn && left > 0 && this.#command()) left--;
    for (let n = 1; n <= SLOTS && left > 0; n++) {
      const slot = s.slots[n]!;
      let rung = slot.on ? Atomics.exchange(slot.rung, 0, 0) : 0;
      for (let e = 1; rung !== 0 && e <= ENDPOINTS; e++) {
        const bit = (1 << e) | 0;
        if (!(rung & bit)) continue;
        rung &= ~bit;
        let outcome: Outcome = 'done';
        while (left > 0 && outcome === 'done') {
          outcome = this.#transfer(n, slot, e);
          left--;
        }
        // What is left over goes on in the next turn, or once the guest has taken events.
        if (outcome !== 'idle') {
          Atomics.or(slot.rung, 0, rung | bit);
          break;
        }
      }
    }
    return left === 0;
  }

  /** A device has news for an endpoint (bit 7 for IN). With the board's lock held. */
  wake(device: UsbDevice, endpoint: number): void {
    const { s, o } = this.#x;
    const index = (endpoint & 15) * 2 + (endpoint & 0x80 ? 1 : 0);
    for (let n = 1; n <= SLOTS; n++) {
      const slot = s.slots[n]!;
      if (!slot.on || slot.endpoints[index]?.on !== 1 || this.#device(slot) !== device) continue;
      Atomics.or(slot.rung, 0, (1 << index) | 0);
      o.bell.ring();
    }
  }

  /** The device of a slot: at its root port, or behind hubs by the route string. */
  #device(slot: Slot): UsbDevice | undefined {
    let device = this.#x.portNumbered(slot.port)?.device;
    for (let route = slot.route; route !== 0 && device !== undefined; route >>>= 4)
      device = device.fn instanceof Hub ? device.fn.ports[(route & 15) - 1]?.device : undefined;
    return device;
  }

  // ── Blocks ──

  #read(at: number): TransferBlock {
    const m = this.#memory;
    const control = m.read32(at + 12);
    return {
      at,
      parameterLow: m.read32(at) >>> 0,
      parameterHigh: m.read32(at + 4) >>> 0,
      status: m.read32(at + 8) >>> 0,
      control: control >>> 0,
      type: (control >>> 10) & 0x3f,
    };
  }

  /** The block at a ring's place, with links followed; undefined where the guest has not put one yet. Moves the place behind it. */
  #next(ring: { at: number; cycle: number }): TransferBlock | undefined {
    for (let links = 0; links < LINKS_MAX; links++) {
      const block = this.#read(ring.at);
      if ((block.control & TrbFlag.cycle) !== ring.cycle) return undefined;
      if (block.type !== Trb.link) {
        ring.at += 16;
        return block;
      }
      ring.at = address(block) - (address(block) % 16);
      if (block.control & TrbFlag.toggle) ring.cycle ^= 1;
    }
    this.#report('a ring has nothing but links');
    return undefined;
  }

  // ── Events, section 4.9.4 ──

  /** Puts an event on ring `n`. False where the guest has left no room. */
  #event(n: number, low: number, high: number, status: number, control: number): boolean {
    const i = this.#x.s.interrupters[n < INTERRUPTERS ? n : 0]!;
    if (i.size === 0 && !this.#open(n)) return false;
    if (!this.#room(n)) return false;
    const at = i.start + i.index * 16;
    const m = this.#memory;
    m.write32(at, low);
    m.write32(at + 4, high);
    m.write32(at + 8, status);
    // The cycle bit makes the event valid, so it comes last.
    m.write32(at + 12, control | i.cycle);
    if (++i.index === i.size) {
      i.index = 0;
      i.cycle ^= 1;
    }
    this.#x.raise(n);
    return true;
  }

  /** Reads the segment table of event ring `n`. */
  #open(n: number): boolean {
    const i = this.#x.s.interrupters[n]!;
    if (i.erstsz === 0 || i.erstba === 0) return false;
    const m = this.#memory;
    const start = (m.read32(i.erstba) >>> 0) + ((m.read32(i.erstba + 4) >>> 0) & 0xfffff) * 2 ** 32;
    const size = m.read32(i.erstba + 8) & 0xffff;
    if (size < EVENTS_MIN || size > EVENTS_MAX || start % 16 !== 0) {
      this.#report(`event ring ${n} has ${size} entries at 0x${start.toString(16)}`);
      return false;
    }
    i.start = start;
    i.size = size;
    i.index = 0;
    i.cycle = 1;
    return true;
  }

  /** Whether event ring `n` takes another two events: one place always stays free. */
  #room(n: number): boolean {
    const i = this.#x.s.interrupters[n < INTERRUPTERS ? n : 0]!;
    if (i.size === 0) return true;
    const seen = Math.floor((i.erdp - (i.erdp % 16) - i.start) / 16);
    // A place that is none of the ring's does not hold anything up.
    if (!(seen >= 0 && seen < i.size)) return true;
    const used = (i.index - seen + i.size) % i.size;
    return used + 2 < i.size;
  }

  #commandEvent(code: number, at: number, slot: number): void {
    this.#event(0, at % 2 ** 32, Math.floor(at / 2 ** 32), code << 24, (Trb.commandEvent << 10) | (slot << 24));
  }

  #tellPorts(): void {
    const { s } = this.#x;
    for (let n = 0; s.portNews !== 0 && n < this.#x.portCount; n++) {
      if (!(s.portNews & (1 << n))) continue;
      if (!this.#event(0, ((n + 1) << 24) >>> 0, 0, Code.success << 24, Trb.portEvent << 10)) return;
      s.portNews &= ~(1 << n);
      s.status |= Status.port;
    }
  }

  // ── Commands, section 4.6 ──

  /** Carries out the next command; false where there is none. */
  #command(): boolean {
    const { s } = this.#x;
    if (!this.#room(0)) return false;
    const ring = { at: s.ring, cycle: s.ringCycle };
    const block = this.#next(ring);
    s.ring = ring.at;
    s.ringCycle = ring.cycle;
    if (block === undefined) return false;
    let slotId = block.control >>> 24;
    const slot = slotId >= 1 && slotId <= SLOTS ? s.slots[slotId]! : undefined;
    const on = slot?.on === 1 ? slot : undefined;
    let code: number;
    switch (block.type) {
      case Trb.enableSlot: {
        slotId = s.slots.findIndex((x, n) => n > 0 && x.on === 0);
        code = slotId < 0 ? Code.noSlots : Code.success;
        if (slotId < 0) slotId = 0;
        else this.#enable(s.slots[slotId]!);
        break;
      }
      case Trb.disableSlot:
        code = on ? this.#disable(on) : Code.slotNotOn;
        break;
      case Trb.addressDevice:
        code = on ? this.#address(slotId, on, address(block), (block.control & TrbFlag.block) !== 0) : Code.slotNotOn;
        break;
      case Trb.configureEndpoint:
        code = on ? this.#configure(on, address(block), (block.control & TrbFlag.block) !== 0) : Code.slotNotOn;
        break;
      case Trb.evaluateContext:
        code = on ? this.#evaluate(on, address(block)) : Code.slotNotOn;
        break;
      case Trb.resetEndpoint:
        code = on ? this.#endpoint(on, block, [EpState.halted], (e) => this.#setState(e, EpState.stopped)) : Code.slotNotOn;
        break;
      case Trb.stopEndpoint:
        code = on
          ? this.#endpoint(on, block, [EpState.running], (e) => {
              this.#setState(e, EpState.stopped);
              this.#writeDequeue(e);
            })
          : Code.slotNotOn;
        break;
      case Trb.setDequeue:
        code = on
          ? this.#endpoint(on, block, [EpState.stopped, EpState.error], (e) => {
              const at = address(block);
              e.dequeue = at - (at % 16);
              e.cycle = at % 2;
              this.#writeDequeue(e);
            })
          : Code.slotNotOn;
        break;
      case Trb.resetDevice:
        code = on ? this.#resetDevice(on) : Code.slotNotOn;
        break;
      case Trb.noopCommand:
        code = Code.success;
        break;
      case Trb.necFirmware: {
        this.#event(0, block.at % 2 ** 32, Math.floor(block.at / 2 ** 32), (Code.success << 24) | 0x3020, 48 << 10);
        return true;
      }
      default:
        code = Code.trb;
    }
    this.#commandEvent(code, block.at, slotId);
    return true;
  }

  #enable(slot: Slot): void {
    slot.on = 1;
    slot.addressed = slot.port = slot.interrupter = 0;
    slot.route = 0;
    slot.context = 0;
    Atomics.store(slot.rung, 0, 0);
    for (const e of slot.endpoints) {
      e.on = 0;
      e.state = EpState.disabled;
    }
  }

  #disable(slot: Slot): number {
    for (const e of slot.endpoints) e.on = 0;
    slot.on = slot.addressed = 0;
    return Code.success;
  }

  /** An endpoint command: checked, then done in one of `states`. */
  #endpoint(slot: Slot, block: TransferBlock, states: readonly number[], act: (e: EndpointState) => void): number {
    const index = (block.control >>> 16) & 0x1f;
    const e = index > 0 ? slot.endpoints[index] : undefined;
    if (e === undefined) return Code.trb;
    if (!e.on) return Code.endpointNotOn;
    if (!states.includes(e.state)) return Code.contextState;
    act(e);
    return Code.success;
  }

  #setState(e: EndpointState, state: number): void {
    e.state = state;
    this.#memory.write32(e.context, (this.#memory.read32(e.context) & ~7) | state);
  }
  #writeDequeue(e: EndpointState): void {
    this.#memory.write32(e.context + 8, ((e.dequeue % 2 ** 32) + e.cycle) >>> 0);
    this.#memory.write32(e.context + 12, Math.floor(e.dequeue / 2 ** 32));
  }

  /** The place of a slot's output context. */
  #output(slotId: number): number {
    const m = this.#memory;
    const at = this.#x.s.dcbaap + 8 * slotId;
    const low = m.read32(at) >>> 0;
    return low - (low % 64) + ((m.read32(at + 4) >>> 0) & 0xfffff) * 2 ** 32;
  }

  #copy(from: number, to: number): void {
    for (let i = 0; i < CONTEXT; i += 4) this.#memory.write32(to + i, this.#memory.read32(from + i));
  }

  #address(slotId: number, slot: Slot, input: number, block: boolean): number {
    const m = this.#memory;
    const [drop, add] = [m.read32(input), m.read32(input + 4)];
    if (drop !== 0 || (add & 3) !== 3) return Code.trb;
    const slotContext = input + CONTEXT;
    const output = this.#output(slotId);
    slot.route = m.read32(slotContext) & 0xfffff;
    slot.port = (m.read32(slotContext + 4) >>> 16) & 0xff;
    slot.interrupter = Math.min(INTERRUPTERS - 1, m.read32(slotContext + 8) >>> 22);
    slot.context = output;
    const device = this.#device(slot);
    if (device === undefined) return Code.transaction;
    if (this.#x.s.slots.some((o) => o !== slot && o.on && o.addressed && this.#device(o) === device)) return Code.trb;
    this.#copy(slotContext, output);
    this.#copy(slotContext + CONTEXT, output + CONTEXT);
    slot.addressed = 1;
    const state = block ? SlotState.default : SlotState.addressed;
    if (!block) device.s.address = slotId;
    m.write32(output + 12, ((state << 27) | (block ? 0 : slotId)) >>> 0);
    this.#open1(slot, 1);
    return Code.success;
  }

  /** Takes endpoint `index` into use as its output context says. */
  #open1(slot: Slot, index: number): void {
    const m = this.#memory;
    const e = slot.endpoints[index]!;
    e.context = slot.context + CONTEXT * index;
    const type = m.read32(e.context + 4);
    const low = m.read32(e.context + 8) >>> 0;
    e.on = 1;
    e.type = (type >>> 3) & 7;
    e.maxPacket = type >>> 16;
    e.dequeue = low - (low % 16) + ((m.read32(e.context + 12) >>> 0) & 0xfffff) * 2 ** 32;
    e.cycle = low & 1;
    this.#setState(e, EpState.running);
  }

  #configure(slot: Slot, input: number, deconfigure: boolean): number {
    const m = this.#memory;
    if (!slot.addressed) return Code.contextState;
    const setSlot = (state: number, entries: number): void => {
      m.write32(slot.context, ((m.read32(slot.context) & 0x07ff_ffff) | (entries << 27)) >>> 0);
      m.write32(slot.context + 12, ((m.read32(slot.context + 12) & 0x07ff_ffff) | (state << 27)) >>> 0);
    };
    const close = (index: number): void => {
      const e = slot.endpoints[index]!;
      if (!e.on) return;
      this.#setState(e, EpState.disabled);
      e.on = 0;
    };
    if (deconfigure) {
      for (let i = 2; i <= ENDPOINTS; i++) close(i);
      setSlot(SlotState.addressed, 1);
      return Code.success;
    }
    const [drop, add] = [m.read32(input), m.read32(input + 4)];
    if (drop & 3 || (add & 3) !== 1) return Code.trb;
    if (m.read32(slot.context + 12) >>> 27 < SlotState.addressed) return Code.contextState;
    for (let i = 2; i <= ENDPOINTS; i++) {
      const bit = (1 << i) | 0;
      if (drop & bit) close(i);
      if (!(add & bit)) continue;
      close(i);
      this.#copy(input + CONTEXT * (i + 1), slot.context + CONTEXT * i);
      this.#open1(slot, i);
    }
    setSlot(SlotState.configured, m.read32(input + CONTEXT) >>> 27);
    return Code.success;
  }

  #evaluate(slot: Slot, input: number): number {
    const m = this.#memory;
    if (!slot.addressed) return Code.contextState;
    const [drop, add] = [m.read32(input), m.read32(input + 4)];
    if (drop !== 0 || add & ~3) return Code.trb;
    if (add & 1) {
      // Exit latency and interrupter.
      const [latency, target] = [m.read32(input + CONTEXT + 4) & 0xffff, m.read32(input + CONTEXT + 8) >>> 22];
      m.write32(slot.context + 4, ((m.read32(slot.context + 4) & 0xffff_0000) | latency) >>> 0);
      m.write32(slot.context + 8, ((m.read32(slot.context + 8) & 0x003f_ffff) | (target << 22)) >>> 0);
      slot.interrupter = Math.min(INTERRUPTERS - 1, target);
    }
    if (add & 2) {
      const packet = m.read32(input + 2 * CONTEXT + 4) & 0xffff_0000;
      m.write32(slot.context + CONTEXT + 4, ((m.read32(slot.context + CONTEXT + 4) & 0xffff) | packet) >>> 0);
      slot.endpoints[1]!.maxPacket = packet >>> 16;
    }
    return Code.success;
  }

  #resetDevice(slot: Slot): number {
    const m = this.#memory;
    if (!slot.addressed) return Code.contextState;
    for (let i = 2; i <= ENDPOINTS; i++) slot.endpoints[i]!.on = 0;
    this.#device(slot)?.reset();
    m.write32(slot.context, ((m.read32(slot.context) & 0x07ff_ffff) | (1 << 27)) >>> 0);
    m.write32(slot.context + 12, (SlotState.default << 27) >>> 0);
    return Code.success;
  }

  // ── Transfers, section 4.11 ──

  /** Carries out the next transfer of an endpoint. */
  #transfer(slotId: number, slot: Slot, index: number): Outcome {
    const e = slot.endpoints[index]!;
    if (!e.on || !slot.addressed) return 'idle';
    if (e.state === EpState.stopped) this.#setState(e, EpState.running);
    if (e.state !== EpState.running) return 'idle';
    if (!this.#room(slot.interrupter) || !this.#room(0)) return 'full';
    const ring = { at: e.dequeue, cycle: e.cycle };
    const blocks = this.#collect(ring, e.type === EpType.control);
    if (blocks === undefined) return 'idle';
    const result = this.#perform(slot, index, e, blocks);
    if (result === 'nak') return 'idle';
    e.dequeue = ring.at;
    e.cycle = ring.cycle;
    if (result.code === Code.stall || result.code === Code.transaction) this.#setState(e, EpState.halted);
    this.#tell(slotId, index, blocks, result);
    return 'done';
  }

  /** The blocks of the next transfer; undefined while they are not all there. */
  #collect(ring: { at: number; cycle: number }, control: boolean): readonly TransferBlock[] | undefined {
    const blocks: TransferBlock[] = [];
    let inControl = control;
    while (blocks.length < BLOCKS_MAX) {
      const block = this.#next(ring);
      if (block === undefined) return undefined;
      blocks.push(block);
      // A control transfer ends with its status stage, whatever is chained.
      if (block.type === Trb.status) inControl = false;
      else if (control && inControl && blocks.length === 1 && block.type !== Trb.setup) inControl = false;
      if (!inControl && !(block.control & TrbFlag.chain)) return blocks;
    }
    this.#report('a transfer has too many blocks');
    return blocks;
  }

  #perform(
    slot: Slot,
    index: number,
    e: EndpointState,
    blocks: readonly TransferBlock[],
  ): 'nak' | { readonly code: number; readonly moved: number } {
    const device = this.#device(slot);
    if (device === undefined) return { code: Code.transaction, moved: 0 };
    const room = blocks.reduce((n, b) => n + dataBytes(b), 0);
    if (room > TRANSFER_MAX || blocks.length >= BLOCKS_MAX) return { code: Code.trb, moved: 0 };
    if (e.type === EpType.control) return this.#control(device, blocks, room);
    const endpoint = index >>> 1;
    if (blocks.every((b) => b.type === Trb.noop)) return { code: Code.success, moved: 0 };
    if (index & 1) {
      const bytes = device.in(endpoint, room);
      if (bytes === 'nak') return 'nak';
      if (bytes === 'stall') return { code: Code.stall, moved: 0 };
      if (bytes === 'ack') return { code: Code.success, moved: 0 };
      this.#scatter(blocks, bytes);
      return { code: Code.success, moved: bytes.length };
    }
    const answer = device.out(endpoint, this.#gather(blocks, room));
    if (answer === 'nak') return 'nak';
    return answer === 'stall' ? { code: Code.stall, moved: 0 } : { code: Code.success, moved: room };
  }

  #control(
    device: UsbDevice,
    blocks: readonly TransferBlock[],
    room: number,
  ): 'nak' | { readonly code: number; readonly moved: number } {
    const first = blocks[0]!;
    if (first.type !== Trb.setup || blocks.at(-1) === first) return { code: Code.trb, moved: 0 };
    const setup = new Uint8Array(8);
    const view = new DataView(setup.buffer);
    view.setUint32(0, first.parameterLow, true);
    view.setUint32(4, first.parameterHigh, true);
    const toHost = (setup[0]! & 0x80) !== 0;
    const data = blocks.slice(1).filter((b) => b.type !== Trb.status && b.type !== Trb.eventData);
    const length = view.getUint16(6, true);
    // The guest's addresses are its controller's business.
    if (setup[0] === 0 && setup[1] === 5) return { code: Code.trb, moved: 0 };
    const answer = device.control(setup, toHost ? new Uint8Array(0) : this.#gather(data, Math.min(room, length)));
    if (answer === 'nak') return 'nak';
    if (answer === 'stall') return { code: Code.stall, moved: 0 };
    if (!toHost) return { code: Code.success, moved: Math.min(room, length) };
    const bytes = answer === 'ack' ? new Uint8Array(0) : answer.subarray(0, room);
    this.#scatter(data, bytes);
    return { code: Code.success, moved: bytes.length };
  }

  /** Bytes of the blocks' buffers. */
  #gather(blocks: readonly TransferBlock[], length: number): Uint8Array {
    const out = new Uint8Array(length);
    let at = 0;
    for (const b of blocks) {
      const n = Math.min(dataBytes(b), length - at);
      if (n <= 0) continue;
      if (b.control & TrbFlag.immediate) {
        for (let i = 0; i < Math.min(8, n); i++) out[at + i] = (i < 4 ? b.parameterLow : b.parameterHigh) >>> (8 * (i & 3));
      } else {
        const from = this.#memory.slice(address(b), n);
        if (from) out.set(from, at);
      }
      at += n;
    }
    return out;
  }

  #scatter(blocks: readonly TransferBlock[], bytes: Uint8Array): void {
    let at = 0;
    for (const b of blocks) {
      const n = Math.min(dataBytes(b), bytes.length - at);
      if (n <= 0) continue;
      const to = this.#memory.slice(address(b), n);
      if (to) {
        to.set(bytes.subarray(at, at + n));
        this.#memory.written(address(b), n);
      }
      at += n;
    }
  }

  /** Tells the guest of a transfer's blocks: those that ask for it, and where it ended early. */
  #tell(slotId: number, index: number, blocks: readonly TransferBlock[], result: { code: number; moved: number }): void {
    let left = result.moved;
    let told = false;
    let short = false;
    let moved = 0;
    for (const b of blocks) {
      const size = b.type === Trb.setup ? 8 : dataBytes(b);
      let part = 0;
      if (b.type === Trb.setup) part = 8;
      else if (b.type === Trb.status) {
        told = false;
        short = false;
      } else if (size > 0) {
        part = Math.min(size, left);
        if (part < size && result.code === Code.success) short = true;
        left -= part;
        moved += part;
      }
      const failed = result.code !== Code.success;
      const last = b === blocks.at(-1);
      const asks =
        b.control & TrbFlag.interrupt || (short && b.control & TrbFlag.shortPacket) || (failed && (left === 0 || last));
      if (!told && asks && !(failed && b.type === Trb.setup && !last)) {
        const code = failed ? result.code : short ? Code.shortPacket : Code.success;
        const event = b.type === Trb.eventData;
        const length = event ? moved & 0xff_ffff : (b.type === Trb.setup ? 0 : size) - (b.type === Trb.setup ? 0 : part);
        const [low, high] = event ? [b.parameterLow, b.parameterHigh] : [b.at % 2 ** 32, Math.floor(b.at / 2 ** 32)];
        const control = ((slotId << 24) | (index << 16) | (Trb.transferEvent << 10) | (event ? TrbFlag.eventData : 0)) >>> 0;
        this.#event(b.status >>> 22 < INTERRUPTERS ? b.status >>> 22 : 0, low, high, ((code << 24) | length) >>> 0, control);
        told = true;
        if (event) moved = 0;
        if (failed) return;
      }
      if (b.type === Trb.setup) told = false;
    }
  }
}

/** The address in a block's parameter; what has more than 52 bits leads nowhere. */
const address = (b: TransferBlock): number => b.parameterLow + (b.parameterHigh & 0xfffff) * 2 ** 32;
/** Bytes of a block's buffer. */
const dataBytes = (b: TransferBlock): number =>
  b.type === Trb.normal || b.type === Trb.data || b.type === Trb.isoch ? b.status & 0x1_ffff : 0;
