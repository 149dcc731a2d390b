// Reads of a disk at the doorbell: the vCPUs' side, which reads, and the I/O side, which tells where.

import type { Arena } from '../bits/arena.ts';
import type { Clock } from '../bus/clock.ts';
import type { Lock } from '../bus/lock.ts';
import { addPlace, type Direct, type DirectState, directLayout, forgetPlaces, hasPlace, placeOf } from '../devices/direct.ts';
import type { Drive } from './backends.ts';
import type { ReadNow } from './device-type.ts';

/** How far ahead of a read it is asked where bytes are. */
const AHEAD = 32 << 20;
/** The largest read that is carried out at the doorbell: the board's lock is held meanwhile. */
export const AT_ONCE_BYTES = 1 << 20;

/** For a device's constructor on every thread; used on vCPUs' threads, with the board's lock held. */
export class DirectReader implements Direct {
  readonly state: DirectState;
  /** This thread reads itself. */
  readonly able: boolean;
  readonly #o: { readonly clock: Clock; readonly readNow?: ReadNow };

  constructor(o: { readonly arena: Arena; readonly clock: Clock; readonly readNow?: ReadNow }) {
    this.state = o.arena.alloc(directLayout);
    this.able = o.readNow !== undefined;
    this.#o = o;
  }
  some(): boolean {
    return hasPlace(this.state);
  }
  has(offset: number, length: number): boolean {
    return placeOf(this.state, offset, length) !== undefined;
  }
  read(offset: number, length: number, pieces: () => readonly Uint8Array[] | undefined): boolean {
    const { readNow, clock } = this.#o;
    const place = readNow && length <= AT_ONCE_BYTES ? placeOf(this.state, offset, length) : undefined;
    const into = place && pieces();
    if (!place || !into) return false;
    const start = clock.now();
    if (readNow!(place.fd, into, place.at + offset - place.start) !== length) return false;
    this.state.operations++;
    this.state.bytes += length;
    this.state.ns += Math.round(clock.now() - start);
    return true;
  }
}

/** On the I/O thread: places of the drive's bytes, until they are taken back. */
export class DirectPlaces {
  readonly #state: DirectState;
  readonly #lock: Lock;
  readonly #drive: Drive;
  readonly #changed: (() => void) | undefined;
  /** How often places were taken back. */
  #times = 0;

  /** `changed`: there is a first place, or none any more; with the board's lock held. */
  constructor(state: DirectState, lock: Lock, drive: Drive, changed?: () => void) {
    this.#state = state;
    this.#lock = lock;
    this.#drive = drive;
    this.#changed = changed;
    drive.settle = () => this.#settle();
  }
  /** Tells where the bytes of a read are, for the next one. */
  tell(offset: number, length: number): void {
    // Who knows not where they are serves the next read as well.
    void this.#tell(offset, length).catch(() => {});
  }
  close(): void {
    this.#gone();
    this.#settle();
    delete this.#drive.settle;
  }

  readonly #gone = (): void => {
    this.#times++;
    this.#change(() => forgetPlaces(this.#state));
  };
  #change(places: () => void): void {
    this.#lock.run(() => {
      const before = hasPlace(this.#state);
      places();
      if (hasPlace(this.#state) !== before) this.#changed?.();
    });
  }
  async #tell(offset: number, length: number): Promise<void> {
    const { device } = this.#drive;
    if (!device?.direct || this.#lock.run(() => placeOf(this.#state, offset, length))) return;
    const times = this.#times;
    const end = Math.min(device.size, offset + AHEAD);
    const extent = await device.direct(offset, end - offset, this.#gone);
    if (extent && times === this.#times && this.#drive.device === device) this.#change(() => addPlace(this.#state, extent));
  }
  /** Counts what was read at the doorbell. */
  #settle(): void {
    const d = this.#state;
    const { operations, bytes, ns } = this.#lock.run(() => {
      const seen = { operations: d.operations, bytes: d.bytes, ns: d.ns };
      d.operations = d.bytes = d.ns = 0;
      return seen;
    });
    this.#drive.countReads?.(operations, bytes, ns);
  }
}
