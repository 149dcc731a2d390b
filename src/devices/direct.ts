// Reads of a disk at the doorbell, on the vCPU's thread: what the host has in its memory costs less than the way to the I/O thread, the
// sleep of a halted vCPU and its interrupt. The I/O side says in shared memory where in files of the host which bytes of the disk are.
import { struct, type ViewOf } from '../bits/struct.ts';

const PLACES = 16;

/** `length` bytes of the disk from `start` on are in the file `fd` from `at` on; none where `length` is 0. */
const placeLayout = struct({ start: 'f64', length: 'f64', at: 'f64', fd: 'i32' });
/** Not saved: each process has its own files. Changed with the board's lock held. */
export const directLayout = struct({
  place: [placeLayout, PLACES],
  next: 'u32',
  /** What was read so since the I/O side looked last. */
  operations: 'f64',
  bytes: 'f64',
  ns: 'f64',
});
export type DirectState = ViewOf<typeof directLayout>;
type Place = { readonly start: number; readonly length: number; readonly at: number; readonly fd: number };

/** Where `length` bytes from `offset` on are. With the board's lock held. */
export function placeOf(s: DirectState, offset: number, length: number): Place | undefined {
  for (const p of s.place) if (offset >= p.start && offset + length <= p.start + p.length) return p;
  return undefined;
}
/** Whether any place is known. With the board's lock held. */
export function hasPlace(s: DirectState): boolean {
  for (const p of s.place) if (p.length > 0) return true;
  return false;
}
/** Adds a place, in turn for the one that was added first. With the board's lock held, as below. */
export function addPlace(s: DirectState, { start, length, at, fd }: Place): void {
  Object.assign(s.place[s.next % PLACES]!, { start, length, at, fd });
  s.next = (s.next + 1) % PLACES;
}
export function forgetPlaces(s: DirectState): void {
  for (const p of s.place) p.length = 0;
}

/** The vCPUs' side of a disk whose bytes can be read at the doorbell. With the board's lock held. */
export interface Direct {
  /** It is known where the bytes are, so the medium has them. */
  has(offset: number, length: number): boolean;
  /** It is known of any bytes. */
  some(): boolean;
  /** Fills the pieces, which have `length` bytes, with the disk's bytes from `offset` on; false where that is for the I/O thread to do. */
  read(offset: number, length: number, pieces: () => readonly Uint8Array[] | undefined): boolean;
}
