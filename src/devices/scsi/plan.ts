// What a SCSI command comes to, as data: the target decides, whoever carries the command moves the bytes.

import type { Sense } from './sense.ts';

/** What is left to do for a command. Offsets and lengths are bytes of the medium. */
export type ScsiPlan =
  /** GOOD, nothing moves. */
  | { readonly kind: 'done' }
  /** CHECK CONDITION. */
  | { readonly kind: 'check'; readonly sense: Sense }
  /** `data` goes to the initiator, cut to the allocation length already. */
  | { readonly kind: 'in'; readonly data: Uint8Array }
  /** The medium's bytes go to the initiator. */
  | { readonly kind: 'read'; readonly offset: number; readonly length: number }
  /** The initiator's bytes go to the medium; with `force`, onto stable storage. */
  | { readonly kind: 'write'; readonly offset: number; readonly length: number; readonly force: boolean }
  /** The initiator's bytes are compared with the medium's. */
  | { readonly kind: 'compare'; readonly offset: number; readonly length: number }
  /** `length` bytes of parameters come from the initiator; `next` says what they come to. */
  | { readonly kind: 'out'; readonly length: number; readonly next: (data: Uint8Array) => ScsiPlan }
  /** One block from the initiator is written `length` bytes long; zeros take no storage where `discard`. */
  | {
      readonly kind: 'same';
      readonly offset: number;
      readonly length: number;
      readonly block: number;
      readonly discard: boolean;
    }
  | { readonly kind: 'flush' }
  | { readonly kind: 'discard'; readonly ranges: readonly (readonly [offset: number, length: number])[] };

export const done: ScsiPlan = { kind: 'done' };
export const check = (sense: Sense): ScsiPlan => ({ kind: 'check', sense });

/** A medium as plans see it; `undefined` where none is in the drive. */
export interface Medium {
  /** Bytes. */
  readonly size: number;
  readonly readOnly: boolean;
}

/** The drive that plans are carried out on: the block layer's device fits. */
export interface MediumStore extends Medium {
  read(offset: number, into: Uint8Array): Promise<void>;
  write(offset: number, from: Uint8Array): Promise<void>;
  flush(): Promise<void>;
  discard(offset: number, length: number): Promise<void>;
  writeZeroes(offset: number, length: number): Promise<void>;
}

// ── Fields of command blocks: big-endian ──

export const be16 = (b: Uint8Array, at: number): number => (b[at]! << 8) | b[at + 1]!;
export const be24 = (b: Uint8Array, at: number): number => (b[at]! << 16) | be16(b, at + 1);
export const be32 = (b: Uint8Array, at: number): number => ((be16(b, at) << 16) | be16(b, at + 2)) >>> 0;
/** Exact up to 2^53; above, no medium has such a place. */
export const be64 = (b: Uint8Array, at: number): number => be32(b, at) * 2 ** 32 + be32(b, at + 4);
/** `value` in `n` bytes. */
export const big = (value: number, n: number): number[] =>
  Array.from({ length: n }, (_, i) => Math.floor(value / 2 ** (8 * (n - 1 - i))) % 256);
/** Text in `n` bytes, filled up with blanks; what is no printable ASCII becomes `?`. */
export const text = (s: string, n: number): number[] =>
  Array.from(s.slice(0, n).padEnd(n), (c) => (c >= ' ' && c <= '~' ? c.charCodeAt(0) : 63));
