// A store of error records that outlives the machine: the device behind ACPI's error record serialization table. QEMU docs/specs/acpi_erst.rst;
// actions, operations and their status: ACPI Specification 6.4, sections 18.5.1.1 and 18.5.2; records: UEFI Specification 2.9, appendix N.

import type { Arena } from '../bits/arena.ts';
import { ERST_EXECUTE, erstAction, erstRegister } from '../bits/erst.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { Report } from '../bus/events.ts';
import { registers, rw } from '../bus/registers.ts';
import type { Handler } from '../bus/space.ts';

/** What the storage begins with; a map of 8 bytes for each slot follows. Little-endian. */
const header = { magic: 0, slotBytes: 8, records: 12, version: 16, reserved: 18, count: 20, map: 24 } as const;
const MAGIC = 0x524f_5453_5453_5245n;
const VERSION = 0x0100;
/** Of a record: its length, and its identifier. */
const record = { length: 20, identifier: 96, least: 128 } as const;
const status = { success: 0, noSpace: 1, failed: 3, empty: 4, notFound: 5 } as const;
/** Identifiers that name no record: any one, and the end of all. */
const ANY = 0n;
const END = 2n ** 64n - 1n;
/** Least bytes of a slot, and most of a storage. */
export const ERST_SLOT_LEAST = 4096;
export const ERST_STORAGE_MOST = 64 << 20;
/** Least and most microseconds that an operation takes. */
const TIMINGS = (100n << 32n) | 10n;

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/**
 * Looks at a storage's contents, and writes the header of one that is empty, with slots of `slotBytes`. The bytes of its slots.
 * @throws Error with one line for what is no storage
 */
export function openErstStorage(storage: Uint8Array, slotBytes: number): number {
  const v = viewOf(storage);
  const accepted = (bytes: number): void => {
    if (bytes < ERST_SLOT_LEAST || (bytes & (bytes - 1)) !== 0)
      throw new Error(`ERST record_size ${bytes} is invalid: accepted are powers of two from ${ERST_SLOT_LEAST}`);
    if (storage.length > ERST_STORAGE_MOST || storage.length % bytes !== 0 || storage.length < bytes)
      throw new Error(
        `ACPI ERST requires storage size be multiple of record size (${bytes >> 10}KiB), up to ${ERST_STORAGE_MOST >> 20} MiB: found are ${storage.length} bytes`,
      );
  };
  const headerEnd = (bytes: number): number => Math.ceil((header.map + 8 * (storage.length / bytes)) / bytes) * bytes;
  if (storage.length < ERST_SLOT_LEAST || v.getBigUint64(header.magic, true) === 0n) {
    accepted(slotBytes);
    v.setBigUint64(header.magic, MAGIC, true);
    v.setUint32(header.slotBytes, slotBytes, true);
    v.setUint32(header.records, headerEnd(slotBytes), true);
    v.setUint16(header.version, VERSION, true);
    v.setUint16(header.reserved, 0, true);
    return slotBytes;
  }
  const bytes = v.getUint32(header.slotBytes, true);
  const first = v.getUint32(header.records, true);
  const said = v.getBigUint64(header.magic, true) === MAGIC && v.getUint16(header.version, true) === VERSION;
  if (!said || v.getUint16(header.reserved, true) !== 0) throw new Error('ERST backend storage header is invalid');
  accepted(bytes);
  // The map has a place for each slot, before the first record.
  if (first % bytes !== 0 || first < headerEnd(bytes))
    throw new Error(`ERST backend storage header is invalid: records from byte ${first} on, accepted is ${headerEnd(bytes)}`);
  return bytes;
}

const layout = {
  operation: 'u8',
  status: 'u8',
  offset: 'u32',
  value: 'u32',
  valueHigh: 'u32',
  identifier: 'u64',
  next: 'u32',
  dirtyFrom: 'u32',
  dirtyTo: 'u32',
} as const;
export const erstLayout = struct(layout, { name: 'acpi-erst', version: 1 });

export interface ErstOptions {
  readonly arena: Arena;
  readonly name: string;
  /** The storage, whose header is there once `open` was called on some thread; and the buffer that the guest reads and writes records in, a slot's size. */
  readonly storage: Uint8Array;
  readonly exchange: Uint8Array;
  /** Where the guest has the exchange buffer. */
  readonly range: () => number;
  /** The storage has changed. */
  readonly changed: () => void;
  readonly report: Report;
}

export class Erst {
  readonly s: ViewOf<typeof erstLayout>;
  readonly handler: Handler;
  readonly #o: ErstOptions;
  readonly #storage: DataView;
  readonly #exchange: DataView;
  /** Slots, those of the header among them. */
  readonly #slots: number;

  constructor(o: ErstOptions) {
    this.#o = o;
    this.s = o.arena.alloc(erstLayout, o.name);
    this.#storage = viewOf(o.storage);
    this.#exchange = viewOf(o.exchange);
    this.#slots = o.storage.length / o.exchange.length;
    this.handler = map.bind(this, o.report);
  }

  reset(): void {
    const { s } = this;
    s.operation = s.offset = s.next = 0;
    s.status = status.success;
    s.identifier = ANY;
  }

  /** The changed range of slots, which is taken as kept; undefined for none. What else has changed is the header. With the board's lock held. */
  takeDirty(): { readonly from: number; readonly to: number } | undefined {
    const { dirtyFrom: from, dirtyTo: to } = this.s;
    if (to === 0) return undefined;
    this.s.dirtyFrom = this.s.dirtyTo = 0;
    return { from, to };
  }
  /** Bytes of the header. */
  get headerBytes(): number {
    return this.#first * this.#o.exchange.length;
  }

  get #value(): bigint {
    return (BigInt(this.s.valueHigh) << 32n) | BigInt(this.s.value);
  }
  set #value(value: bigint) {
    this.s.value = Number(value & 0xffff_ffffn);
    this.s.valueHigh = Number(value >> 32n);
  }

  /** Carries out an action; one that there is not does nothing. */
  act(action: number): void {
    const { s } = this;
    const a = erstAction;
    switch (action) {
      case a.beginWrite:
      case a.beginRead:
      case a.beginClear:
      case a.beginDummyWrite:
      case a.end:
        s.operation = action;
        return;
      case a.setOffset:
        s.offset = s.value;
        return;
      case a.execute:
        if ((s.value & 0xff) === ERST_EXECUTE) s.status = this.#execute();
        return;
      case a.checkBusy:
        this.#value = 0n;
        return;
      case a.getStatus:
        this.#value = BigInt(s.status);
        return;
      case a.getIdentifier:
        this.#value = this.#following();
        s.status = status.success;
        return;
      case a.setIdentifier:
        s.identifier = this.#value;
        return;
      case a.getCount:
        this.#value = BigInt(this.#count);
        return;
      case a.getRange:
        this.#value = BigInt(this.#o.range());
        return;
      case a.getRangeLength:
        this.#value = BigInt(this.#o.exchange.length);
        return;
      case a.getRangeAttributes:
        // The buffer is not the storage itself.
        this.#value = 0n;
        return;
      case a.getTimings:
        this.#value = TIMINGS;
        return;
    }
  }

  #execute(): number {
    const { s } = this;
    const a = erstAction;
    switch (s.operation) {
      case a.beginWrite:
        return this.#write();
      case a.beginRead:
        return this.#read();
      case a.beginClear:
        return this.#clear();
      default:
        return status.success;
    }
  }

  // -- the storage

  get #first(): number {
    return Math.min(this.#storage.getUint32(header.records, true) / this.#o.exchange.length, this.#slots);
  }
  get #count(): number {
    return this.#storage.getUint32(header.count, true);
  }
  #named(slot: number): bigint {
    return this.#storage.getBigUint64(header.map + 8 * slot, true);
  }
  #name(slot: number, identifier: bigint, more: 1 | 0 | -1): void {
    this.#storage.setBigUint64(header.map + 8 * slot, identifier, true);
    this.#storage.setUint32(header.count, Math.max(0, this.#count + more), true);
  }
  /** The first slot from `from` on of which `wanted` holds; 0 for none. */
  #find(wanted: (identifier: bigint) => boolean, from = this.#first): number {
    for (let slot = from; slot < this.#slots; slot++) if (wanted(this.#named(slot))) return slot;
    return 0;
  }
  #lookUp(identifier: bigint): number {
    return identifier === ANY ? 0 : this.#find((other) => other === identifier);
  }
  /** The identifier of the next record, round after round with the end in between. */
  #following(first = false): bigint {
    const { s } = this;
    const from = first ? this.#first : Math.max(s.next, this.#first);
    const slot = this.#count === 0 ? 0 : this.#find((identifier) => identifier !== ANY, from);
    s.next = slot === 0 ? 0 : slot + 1;
    return slot === 0 ? END : this.#named(slot);
  }
  /** The part of the exchange buffer that is a record's; undefined where none has room in it. */
  get #place(): Uint8Array | undefined {
    const { exchange } = this.#o;
    return this.s.offset > exchange.length - record.least ? undefined : exchange.subarray(this.s.offset);
  }
  #dirty(from: number, to: number): void {
    const { s } = this;
    s.dirtyFrom = s.dirtyTo === 0 ? from : Math.min(s.dirtyFrom, from);
    s.dirtyTo = Math.max(s.dirtyTo, to);
    this.#o.changed();
  }

  #write(): number {
    const place = this.#place;
    if (!place) return status.failed;
    // The guest may change the buffer meanwhile: each part counts as it was read once.
    const length = this.#exchange.getUint32(this.s.offset + record.length, true);
    const identifier = this.#exchange.getBigUint64(this.s.offset + record.identifier, true);
    if (length < record.least || length > place.length || identifier === ANY || identifier === END) return status.failed;
    const old = this.#lookUp(identifier);
    const slot = old || this.#find((other) => other === ANY);
    if (slot === 0) return status.noSpace;
    const { storage, exchange } = this.#o;
    const at = slot * exchange.length;
    storage.set(place.subarray(0, length), at);
    storage.fill(0xff, at + length, at + exchange.length);
    this.#name(slot, identifier, old ? 0 : 1);
    this.#dirty(at, at + exchange.length);
    return status.success;
  }

  #read(): number {
    const { s } = this;
    if (this.#count === 0) return status.empty;
    if (s.identifier === ANY) s.identifier = this.#following(true);
    const place = this.#place;
    if (s.identifier === END || !place) return status.failed;
    const slot = this.#lookUp(s.identifier);
    if (slot === 0) {
      s.identifier = this.#following(true);
      return status.notFound;
    }
    const at = slot * this.#o.exchange.length;
    const length = this.#storage.getUint32(at + record.length, true);
    if (length < record.least || length > place.length) return status.failed;
    place.set(this.#o.storage.subarray(at, at + length));
    return status.success;
  }

  #clear(): number {
    const { identifier } = this.s;
    if (identifier === ANY || identifier === END) return status.failed;
    const slot = this.#lookUp(identifier);
    if (slot === 0) return status.notFound;
    this.#name(slot, ANY, -1);
    // The record stays where it is; only the header says that it is gone.
    this.#dirty(0, this.headerBytes);
    return status.success;
  }
}

const map = registers<Erst>('acpi-erst', erstRegister.bytes, [
  rw(
    erstRegister.action,
    4,
    'action',
    () => 0,
    (d, v) => d.act(v),
    'zero',
  ),
  rw(
    erstRegister.action + 4,
    4,
    'action, high',
    () => 0,
    () => {},
  ),
  rw(
    erstRegister.value,
    4,
    'value',
    (d) => d.s.value,
    (d, v) => {
      d.s.value = v;
    },
  ),
  rw(
    erstRegister.value + 4,
    4,
    'value, high',
    (d) => d.s.valueHigh,
    (d, v) => {
      d.s.valueHigh = v;
    },
  ),
]);
