// What the cards of Intel's gigabit family have in common: rings, contexts, filters, statistics. What the I/O side (io.ts) needs of one.
// Intel 8254x Software Developer's Manual (8254x SDM), chapters 3 and 13; Intel 82574 Data Sheet, chapter 10.

import { struct, type ViewOf } from '../../bits/struct.ts';
import type { Report } from '../../bus/events.ts';
import { type Register, registers, ro, rw } from '../../bus/registers.ts';
import type { Handler } from '../../bus/space.ts';

export const ctrl = { masterOff: 1 << 2, reset: 1 << 26, vlan: 1 << 30 } as const;
export const rctl = {
  enable: 2,
  unicast: 8,
  multicast: 16,
  long: 32,
  broadcast: 1 << 15,
  vlanFilter: 1 << 18,
  stripCrc: 1 << 26,
} as const;
export const tctl = { enable: 2, padShort: 8 } as const;
/** CTRL after a reset but for what a card adds; STATUS' bit of a link that is up. */
export const LINK_UP = 2;

/** What a context descriptor has set: one for plain packets, one for those that are to be cut (section 3.3.6). */
export const contextLayout = struct({
  ipStart: 'u8',
  ipOffset: 'u8',
  ipEnd: 'u16',
  start: 'u8',
  offset: 'u8',
  end: 'u16',
  /** Bytes of payload after the header, of the header, and of one segment's payload. */
  payload: 'u32',
  header: 'u8',
  segment: 'u16',
  ipv4: 'u8',
  tcp: 'u8',
});
export type TxContext = ViewOf<typeof contextLayout>;
export const noContext: Readonly<TxContext> = {
  ...{ ipStart: 0, ipOffset: 0, ipEnd: 0, start: 0, offset: 0, end: 0, payload: 0, header: 0, segment: 0, ipv4: 0, tcp: 0 },
};

/** A ring of descriptors: where it is, its bytes, and the two places in it. */
export const ringLayout = struct({ low: 'u32', high: 'u32', length: 'u32', head: 'u32', tail: 'u32' });
export type Ring = ViewOf<typeof ringLayout>;
export const noRing: Readonly<Ring> = { low: 0, high: 0, length: 0, head: 0, tail: 0 };

/** The registers of a ring; `moved` is called when its tail has been written. */
export function ringRegisters<D>(offset: number, name: string, of: (d: D) => Ring, moved: (d: D) => void): Register<D>[] {
  const row = (at: number, what: string, field: keyof Ring, mask: number, then?: (d: D) => void): Register<D> =>
    rw<D>(
      offset + at,
      4,
      `${name}${what}`,
      (d) => of(d)[field],
      (d, v) => {
        of(d)[field] = v & mask;
        then?.(d);
      },
    );
  return [
    row(0, 'BAL', 'low', ~15),
    row(4, 'BAH', 'high', -1),
    row(8, 'LEN', 'length', 0xf_ff80),
    row(0x10, 'H', 'head', 0xffff),
    row(0x18, 'T', 'tail', 0xffff, moved),
  ];
}

/** One register for each word of an array. */
export const words = <D>(offset: number, count: number, name: string, of: (d: D) => Uint32Array): Register<D>[] =>
  Array.from({ length: count }, (_, n) =>
    rw<D>(
      offset + 4 * n,
      4,
      `${name}[${n}]`,
      (d) => of(d)[n]!,
      (d, v) => {
        of(d)[n] = v;
      },
    ),
  );

/** Statistics by their place behind 0x4000 (section 13.7). */
export const statistic = {
  missed: 0x10,
  rxGood: 0x74,
  rxBroadcast: 0x78,
  rxMulticast: 0x7c,
  txGood: 0x80,
  rxOctets: 0x88,
  txOctets: 0x90,
  rxNoBuffer: 0xa0,
  rxAllOctets: 0xc0,
  txAllOctets: 0xc8,
  rxAll: 0xd0,
  txAll: 0xd4,
  txMulticast: 0xf0,
  txBroadcast: 0xf4,
} as const;
const STATISTICS = 0x4000;
/** Counters of 64 bits by the place of their low word: reading the high one clears both. */
const WIDE: readonly number[] = [statistic.rxOctets, statistic.txOctets, statistic.rxAllOctets, statistic.txAllOctets];

/** The statistics, over 64 words of a card's state. Reading clears. */
export class Statistics {
  readonly #words: Uint32Array;

  constructor(words: Uint32Array) {
    this.#words = words;
  }
  take(at: number): number {
    const value = this.#words[at / 4]!;
    if (!WIDE.includes(at)) this.#words[at / 4] = 0;
    if (WIDE.includes(at - 4)) this.#words[at / 4 - 1] = 0;
    return value;
  }
  /** Adds to a counter, which stays at its end. */
  count(at: number, n = 1): void {
    const sum = this.#words[at / 4]! + n;
    if (WIDE.includes(at)) {
      this.#words[at / 4] = sum >>> 0;
      if (sum >= 2 ** 32) this.#words[at / 4 + 1] = this.#words[at / 4 + 1]! + 1;
    } else this.#words[at / 4] = Math.min(sum, 0xffff_ffff);
  }
}
export const statisticRegisters = <D extends { readonly statistics: Statistics }>(): Register<D>[] =>
  Array.from({ length: 64 }, (_, n) => ro<D>(STATISTICS + 4 * n, 4, `statistics[${n}]`, (d) => d.statistics.take(4 * n)));

/** How the card writes about what it has received: section 3.2.3; 82574 Data Sheet, sections 7.1.4 to 7.1.6. */
export type ReceiveFormat = 'legacy' | 'extended' | 'split';

/** Where a frame goes: a ring, and what hashing it has given. */
export interface Steering {
  readonly queue: number;
  readonly hash: number;
  /** Kind of the hash (82574 Data Sheet, table 7-10); 0 for none. */
  readonly kind: number;
}
export const unsteered: Steering = { queue: 0, hash: 0, kind: 0 };

/** A card as its I/O side sees it. Methods run with the board's lock held. */
export interface Card {
  readonly s: {
    readonly ctrl: number;
    readonly rctl: number;
    readonly tctl: number;
    readonly vet: number;
    readonly cable: number;
    readonly epoch: number;
    readonly tx: readonly Ring[];
    readonly rx: readonly Ring[];
    /** For each transmit ring two: plain, then for segmentation. */
    readonly context: readonly TxContext[];
    readonly addresses: Uint32Array;
    readonly multicast: Uint32Array;
    readonly vlans: Uint32Array;
  };
  readonly statistics: Statistics;
  readonly format: ReceiveFormat;
  /** Bytes of the buffers of a descriptor, in their order. */
  readonly buffers: readonly number[];
  steer(frame: Uint8Array): Steering;
  /** There is a network, before the guest runs. */
  connect(): void;
  /** Packets have gone from a ring; `reported`: the driver wanted to know of one of them. */
  sent(queue: number, reported: boolean): void;
  /** A frame is in the driver's buffers; `low`: few of them are left. */
  received(queue: number, low: boolean): void;
  /** A frame has found no buffer. */
  overrun(): void;
}

const LARGEST_BUFFER = 16_384;
/** Bytes of one receive buffer (section 13.4.22). */
export function bufferSize(value: number): number {
  const small = 2048 >>> ((value >>> 16) & 3);
  return (value >>> 25) & 1 ? Math.min(LARGEST_BUFFER, small * 16) : small;
}

export const isBroadcast = (frame: Uint8Array): boolean => frame.subarray(0, 6).every((b) => b === 0xff);
export const isTagged = (frame: Uint8Array, vet: number): boolean =>
  frame.length >= 18 && ((frame[12]! << 8) | frame[13]!) === (vet & 0xffff);

/** Whether the driver wants a frame (section 3.2.1). */
export function accepts({ s }: Pick<Card, 's'>, frame: Uint8Array): boolean {
  if (s.rctl & rctl.vlanFilter && isTagged(frame, s.vet)) {
    const vid = ((frame[14]! & 15) << 8) | frame[15]!;
    if (!(s.vlans[vid >>> 5]! & (1 << (vid & 31)))) return false;
  }
  const group = (frame[0]! & 1) !== 0;
  if (s.rctl & (group ? rctl.multicast : rctl.unicast)) return true;
  if (s.rctl & rctl.broadcast && isBroadcast(frame)) return true;
  const low = (frame[0]! | (frame[1]! << 8) | (frame[2]! << 16) | (frame[3]! << 24)) >>> 0;
  const high = frame[4]! | (frame[5]! << 8);
  for (let n = 0; n < 32; n += 2)
    if (s.addresses[n] === low && (s.addresses[n + 1]! & 0xffff) === high && s.addresses[n + 1]! >>> 31) return true;
  if (!group) return false;
  const shift = [4, 3, 2, 0][(s.rctl >>> 12) & 3]!;
  const hash = (high >>> shift) & 0xfff;
  return (s.multicast[hash >>> 5]! & (1 << (hash & 31))) !== 0;
}

/** IOADDR and IODATA, the ports by which registers below `bar` bytes are reached without memory space. `state` keeps the address. */
export function portWindow(o: {
  readonly name: string;
  readonly bytes: number;
  readonly bar: number;
  readonly state: { ioAddress: number };
  readonly handler: Handler;
  readonly report: Report | undefined;
}): Handler {
  const { state: s, handler, bar } = o;
  const ports = registers<{ ioAddress: number }>(o.name, o.bytes, [
    rw(0, 4, 'IOADDR', 'ioAddress'),
    rw(
      4,
      4,
      'IODATA',
      () => (s.ioAddress < bar - 3 ? handler.read(s.ioAddress & ~3, 4) : 0),
      (_, v) => {
        if (s.ioAddress < bar - 3) handler.write(s.ioAddress & ~3, 4, v);
      },
    ),
  ]);
  return ports.bind(s, o.report);
}
