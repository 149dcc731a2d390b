// Memory slots: RAM-like pages outside of guest RAM (video memory, ROM, flash) and pages of the first MiB that are not plain RAM (PAM, the VGA window).
// Shaped like KVM's memory regions (Linux, Documentation/virt/kvm/api.rst, section 4.35).
import {
  LOW_PAGES,
  LowPage,
  PLUG_GRANULE,
  READ_ONLY,
  SLOT_TABLE_BYTES,
  SLOTS_MAX,
  Slot,
  SlotTable,
  slotAt,
} from '../bits/slot-table.ts';

const PAGE = 4096;

/** Where things lie that slots are made of; all host addresses are offsets in the buffer. */
export interface SlotMemory {
  readonly ramBase: number;
  readonly ramLow: number;
  readonly ramHigh: number;
  /** Bytes from `ramBase` on. */
  readonly guestBytes: number;
  /** See accel.ts. */
  readonly plugBase: number;
  readonly plugBytes: number;
  readonly plugMap: number;
  /** Memory for slots behind the RAM below 4 GiB: bytes from `ramBase + ramLow`. */
  readonly extraBytes: number;
  /** One byte for each page from `ramBase` on: how many vCPUs hold decoded code of it. */
  readonly codeMap: number;
  /** The table. */
  readonly slots: number;
}

/** One range of guest-physical addresses that can be mapped to bytes of the shared memory, moved, and taken away. With the board's lock held. */
export interface MemorySlot {
  /** `gpa` and `length` are multiples of 4,096, `host` the offset of the bytes. Writes to a read-only slot go to the bus. */
  map(gpa: number, length: number, host: number, readOnly?: boolean): void;
  unmap(): void;
}

/** A slot as it is mapped. */
export interface MappedSlot {
  readonly name: string;
  readonly gpa: number;
  readonly length: number;
  readonly host: number;
  readonly readOnly: boolean;
}

export class MemorySlots {
  readonly #o: SlotMemory;
  readonly #view: DataView;
  readonly #words: Int32Array;
  readonly #codeMap: Uint8Array;
  readonly #tellVcpus: () => void;
  readonly #bytes: Uint8Array;
  /** By number. */
  readonly #names: string[] = [];
  /** Derived at construction: slots and extra bytes that were given out. */
  #given = 0;
  #extra = 0;

  /** `changed` makes every vCPU look at the generations soon. */
  constructor(buffer: ArrayBufferLike, o: SlotMemory, changed: () => void) {
    this.#o = o;
    this.#view = new DataView(buffer, o.slots, SLOT_TABLE_BYTES);
    this.#words = new Int32Array(buffer, o.slots, SlotTable.entries / 4);
    this.#codeMap = new Uint8Array(buffer, o.codeMap, o.guestBytes / PAGE);
    this.#tellVcpus = changed;
    this.#bytes = new Uint8Array(buffer);
    if (o.plugBytes === 0) return;
    this.#words[SlotTable.plugMap / 4] = o.plugMap;
    this.#view.setBigInt64(SlotTable.plugSpan, BigInt(o.plugBase + o.plugBytes - 2 ** 32), true);
  }

  /** Bytes of the extra memory, from a multiple of 4,096; their offset. Every thread asks in the same order. Throws when there are too few. */
  alloc(name: string, bytes: number): number {
    const { ramBase, ramLow, extraBytes } = this.#o;
    const size = Math.ceil(bytes / PAGE) * PAGE;
    if (this.#extra + size > extraBytes)
      throw new Error(`Cannot give ${name} ${bytes} bytes: ${extraBytes - this.#extra} bytes are left for devices' memory`);
    const at = ramBase + ramLow + this.#extra;
    this.#extra += size;
    return at;
  }

  /** A slot that is not mapped. Every thread asks in the same order. */
  slot(name: string): MemorySlot {
    if (this.#given === SLOTS_MAX) throw new Error(`Cannot give ${name} a memory slot: all ${SLOTS_MAX} are taken`);
    const entry = SlotTable.entries + this.#given++ * Slot.bytes;
    const count = this.#given;
    this.#names.push(name);
    const set = (gpa: number, length: number, host: number): void => {
      const v = this.#view;
      const [oldLength, oldHost] = [Number(v.getBigInt64(entry + Slot.length, true)), v.getInt32(entry + Slot.host, true) >>> 0];
      if (oldLength === length && oldHost === host >>> 0 && Number(v.getBigInt64(entry + Slot.gpa, true)) === gpa) return;
      const held = oldLength > 0 && this.#holdsCode(oldHost & ~READ_ONLY, oldLength / PAGE);
      // A walk that reads the entry meanwhile is followed by the flush that this change asks for.
      v.setBigInt64(entry + Slot.length, 0n, true);
      v.setBigInt64(entry + Slot.gpa, BigInt(gpa), true);
      v.setInt32(entry + Slot.host, host | 0, true);
      v.setBigInt64(entry + Slot.length, BigInt(length), true);
      const counter = SlotTable.count / 4;
      if (Atomics.load(this.#words, counter) < count) Atomics.store(this.#words, counter, count);
      this.#tell(held);
    };
    return {
      map: (gpa, length, host, readOnly = false) => {
        if (gpa % PAGE !== 0 || length % PAGE !== 0 || host % PAGE !== 0 || !(length > 0))
          throw new Error(
            `Cannot map ${name} at 0x${gpa.toString(16)}, ${length} bytes: only whole pages of ${PAGE} bytes can be`,
          );
        set(gpa, length, readOnly ? host + READ_ONLY : host);
      },
      unmap: () => set(0, 0, 0),
    };
  }

  /**
   * Says what pages of the first MiB are: `ram`, nothing but the `bus`, or the bytes at an offset. Where pages are read-only, writes go
   * to the bus.
   */
  low(first: number, pages: number, what: 'ram' | 'bus' | number, readOnly = false): void {
    let changed = false;
    let held = false;
    for (let n = 0; n < pages; n++) {
      const page = first + n;
      if (!(page >= 0 && page < LOW_PAGES)) return;
      const at = what === 'ram' ? this.#o.ramBase + page * PAGE : typeof what === 'number' ? what + n * PAGE : 0;
      const value = what === 'bus' ? LowPage.bus : what === 'ram' && !readOnly ? LowPage.ram : at + (readOnly ? READ_ONLY : 0);
      const old = this.#words[page]!;
      if (old === (value | 0)) continue;
      changed = true;
      if (old !== LowPage.bus)
        held ||= this.#holdsCode(old === LowPage.ram ? this.#o.ramBase + page * PAGE : old & ~READ_ONLY, 1);
      this.#words[page] = value;
    }
    if (changed) this.#tell(held);
  }

  /** Slots that are mapped, by name. */
  mapped(): readonly MappedSlot[] {
    return this.#names.flatMap((name, n) => {
      const entry = SlotTable.entries + n * Slot.bytes;
      const length = Number(this.#view.getBigInt64(entry + Slot.length, true));
      const host = this.#view.getInt32(entry + Slot.host, true) >>> 0;
      const gpa = Number(this.#view.getBigInt64(entry + Slot.gpa, true));
      return length === 0 ? [] : [{ name, gpa, length, host: host - (host & READ_ONLY), readOnly: (host & READ_ONLY) !== 0 }];
    });
  }

  /** What a page of the first MiB is; SMRAM aside. */
  lowPage(page: number): 'ram' | 'read-only ram' | 'bus' {
    const value = this.#words[page]!;
    if (value === LowPage.ram) return 'ram';
    return (value & ~READ_ONLY) === this.#o.ramBase + page * PAGE ? 'read-only ram' : 'bus';
  }

  /** What `smram` was last told. */
  get smramState(): { readonly flags: number; readonly tseg: number } {
    return { flags: this.#words[SlotTable.smram / 4]!, tseg: this.#words[SlotTable.tseg / 4]! };
  }

  /** SMRAM: RAM that shows below 1 MiB (bits of `Smram`), and bytes at the end of low RAM that show in system management mode alone. */
  smram(flags: number, tseg: number): void {
    const words = this.#words;
    if (words[SlotTable.smram / 4] === flags && words[SlotTable.tseg / 4] === tseg) return;
    words[SlotTable.smram / 4] = flags;
    words[SlotTable.tseg / 4] = tseg;
    this.#tell(true);
  }

  /** The table was changed as a whole: vCPUs drop all that they know of pages, and code where `code` says so. */
  changed(code = true): void {
    this.#tell(code);
  }

  /** The bytes that the table has for a range within one page, read-only ones among them; `bus` and `ram` where it has none. */
  at(gpa: number, length: number): Uint8Array | 'bus' | 'ram' {
    const found = slotAt(this.#view, 0, gpa);
    if (found === LowPage.bus) return 'bus';
    if (found === 0) return 'ram';
    // The flag is the lowest bit of the page's place, to which an offset may have been added.
    const start = ((slotAt(this.#view, 0, gpa - (gpa % PAGE)) & ~READ_ONLY) >>> 0) + (gpa % PAGE);
    return this.#bytes.subarray(start, start + length);
  }

  /** Memory is plugged in, as module n of up to 256; `MemoryLayout.plugBase` and what follows there. */
  plug(gpa: number, length: number, n: number): void {
    this.#setPlugged(gpa, length, 1 + (n % 255));
    this.#tell(false);
  }
  /** It is gone. */
  unplug(gpa: number, length: number): void {
    this.#setPlugged(gpa, length, 0);
    this.#tell(true);
  }
  #setPlugged(gpa: number, length: number, entry: number): void {
    const first = this.#o.plugMap + (gpa - 2 ** 32) / PLUG_GRANULE;
    this.#bytes.fill(entry, first, first + length / PLUG_GRANULE);
    Atomics.add(this.#words, SlotTable.plugGeneration / 4, 1);
  }

  /** Everything as if there were no slots. */
  reset(): void {
    this.#words.fill(LowPage.ram, 0, LOW_PAGES);
    this.#words[SlotTable.smram / 4] = 0;
    this.#words[SlotTable.tseg / 4] = 0;
    for (let n = 0; n < SLOTS_MAX; n++) this.#view.setBigInt64(SlotTable.entries + n * Slot.bytes + Slot.length, 0n, true);
    this.#tell(true);
  }

  #holdsCode(host: number, pages: number): boolean {
    const first = ((host >>> 0) - this.#o.ramBase) / PAGE;
    return this.#codeMap.subarray(first, first + pages).some((vcpus) => vcpus !== 0);
  }

  #tell(code: boolean): void {
    if (code) Atomics.add(this.#words, SlotTable.codeGeneration / 4, 1);
    Atomics.add(this.#words, SlotTable.generation / 4, 1);
    this.#tellVcpus();
  }
}
