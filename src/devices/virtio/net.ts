// Network device: features, configuration, the header of each packet, the control queue's commands and the receive filter.
// Virtual I/O Device (VIRTIO) 1.2, section 5.1; defaults are QEMU 7.2's.
import { struct, type ViewOf } from '../../bits/struct.ts';
import type { VirtioModel } from './core.ts';

export const NetFeature = {
  checksum: 1n << 0n,
  guestChecksum: 1n << 1n,
  ctrlGuestOffloads: 1n << 2n,
  mtu: 1n << 3n,
  mac: 1n << 5n,
  guestTso4: 1n << 7n,
  guestTso6: 1n << 8n,
  guestEcn: 1n << 9n,
  guestUfo: 1n << 10n,
  hostTso4: 1n << 11n,
  hostTso6: 1n << 12n,
  hostEcn: 1n << 13n,
  hostUfo: 1n << 14n,
  mergeable: 1n << 15n,
  status: 1n << 16n,
  ctrlQueue: 1n << 17n,
  ctrlRx: 1n << 18n,
  ctrlVlan: 1n << 19n,
  ctrlRxExtra: 1n << 20n,
  guestAnnounce: 1n << 21n,
  multiqueue: 1n << 22n,
  ctrlMac: 1n << 23n,
} as const;

const MACS = 64;
export const netLayout = struct(
  {
    mac: ['u8', 6],
    link: 'u8',
    /** The back-end takes and gives unsummed and large packets; what the I/O side found. */
    offload: 'u8',
    promiscuous: 'u8',
    allMulticast: 'u8',
    allUnicast: 'u8',
    noMulticast: 'u8',
    noUnicast: 'u8',
    noBroadcast: 'u8',
    unicastOverflow: 'u8',
    multicastOverflow: 'u8',
    unicast: 'u8',
    macs: 'u8',
    pairs: 'u16',
    /** Guest offloads that are on, of the feature bits. */
    guestOffloads: 'u32',
    table: ['u8', 6 * MACS],
    vlans: ['u32', 128],
  },
  { name: 'virtio-net', version: 1 },
);
export type NetState = ViewOf<typeof netLayout>;

export interface NetOptions {
  readonly mac: readonly number[];
  readonly pairs: number;
  readonly rxQueueSize: number;
  readonly txQueueSize: number;
  readonly mtu: number;
  /** Speed in Mbit/s, -1 unknown; duplex 0 half, 1 full, 0xff unknown. */
  readonly speed: number;
  readonly duplex: number;
  /** Feature bits that may be offered. */
  readonly features: bigint;
}

const OFFLOADS =
  NetFeature.checksum |
  NetFeature.guestChecksum |
  NetFeature.ctrlGuestOffloads |
  NetFeature.guestTso4 |
  NetFeature.guestTso6 |
  NetFeature.guestEcn |
  NetFeature.hostTso4 |
  NetFeature.hostTso6 |
  NetFeature.hostEcn;
const GUEST_OFFLOADS = NetFeature.guestChecksum | NetFeature.guestTso4 | NetFeature.guestTso6 | NetFeature.guestEcn;
const CONTROL_QUEUE = 64;

export function netModel(s: NetState, o: NetOptions): VirtioModel {
  const features = (): bigint => (s.offload ? o.features : o.features & ~OFFLOADS);
  const config = [
    ...o.mac,
    0,
    0,
    o.pairs & 0xff,
    o.pairs >>> 8,
    o.mtu & 0xff,
    o.mtu >>> 8,
    ...[0, 8, 16, 24].map((n) => (o.speed >> n) & 0xff),
    o.duplex,
  ];
  return {
    id: 1,
    queues: [...Array.from({ length: 2 * o.pairs }, (_, n) => (n & 1 ? o.txQueueSize : o.rxQueueSize)), CONTROL_QUEUE],
    get features() {
      return features();
    },
    // Legacy drivers are told that any GSO goes.
    get legacyFeatures() {
      return s.offload ? 1n << 6n : 0n;
    },
    config: {
      length: config.length,
      read: (offset) => (offset < 6 ? s.mac[offset]! : offset === 6 ? s.link : config[offset]!),
      // Legacy drivers set the address here.
      write: (offset, byte) => {
        if (offset < 6) s.mac[offset] = byte;
      },
    },
    statusChanged(status) {
      if (status !== 0) return;
      s.mac.set(o.mac);
      s.promiscuous = 1;
      s.allMulticast = s.allUnicast = s.noMulticast = s.noUnicast = s.noBroadcast = 0;
      s.unicastOverflow = s.multicastOverflow = s.unicast = s.macs = 0;
      s.pairs = 1;
      s.guestOffloads = Number(GUEST_OFFLOADS);
      s.vlans.fill(0);
    },
  };
}

// -- packets

/** The header before each packet; 10 bytes for legacy drivers without mergeable buffers, else 12. */
export const headerBytes = (features: bigint): number => ((features & ((1n << 32n) | NetFeature.mergeable)) !== 0n ? 12 : 10);

export const Gso = { none: 0, tcp4: 1, udp: 3, tcp6: 4, ecn: 0x80 } as const;
export interface NetHeader {
  readonly needsChecksum: boolean;
  readonly gso: number;
  readonly gsoSize: number;
  readonly checksumStart: number;
  readonly checksumOffset: number;
}

export function readNetHeader(b: Uint8Array): NetHeader {
  const u16 = (at: number): number => b[at]! | (b[at + 1]! << 8);
  return {
    needsChecksum: (b[0]! & 1) !== 0,
    gso: b[1]! & ~Gso.ecn,
    gsoSize: u16(4),
    checksumStart: u16(6),
    checksumOffset: u16(8),
  };
}
export function writeNetHeader(into: Uint8Array, h: NetHeader, headerLength: number): void {
  const u16 = (at: number, v: number): void => {
    into[at] = v & 0xff;
    into[at + 1] = v >>> 8;
  };
  into.fill(0);
  into[0] = h.needsChecksum ? 1 : 0;
  into[1] = h.gso;
  u16(2, headerLength);
  u16(4, h.gsoSize);
  u16(6, h.checksumStart);
  u16(8, h.checksumOffset);
}

/** Puts the checksum in that the driver left to the device (section 5.1.6.2). */
export function fillChecksum(frame: Uint8Array, start: number, offset: number): void {
  const at = start + offset;
  if (start >= frame.length || at + 2 > frame.length) return;
  let sum = 0;
  const even = frame.length - ((frame.length - start) & 1);
  for (let i = start; i < even; i += 2) sum += (frame[i]! << 8) | frame[i + 1]!;
  if (even !== frame.length) sum += frame[even]! << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 65536);
  const result = ~sum & 0xffff || 0xffff;
  frame[at] = result >>> 8;
  frame[at + 1] = result & 0xff;
}

/** Whether the driver wants a frame from the network. */
export function wanted(s: NetState, features: bigint, frame: Uint8Array): boolean {
  if (s.promiscuous) return true;
  if ((features & NetFeature.ctrlVlan) !== 0n && frame[12] === 0x81 && frame[13] === 0) {
    const vid = ((frame[14]! & 15) << 8) | frame[15]!;
    if ((s.vlans[vid >>> 5]! & (1 << (vid & 31))) === 0) return false;
  }
  const is = (from: Uint8Array, at: number): boolean => {
    for (let i = 0; i < 6; i++) if (from[at + i] !== frame[i]) return false;
    return true;
  };
  if (frame[0]! & 1) {
    if (
      frame[0] === 0xff &&
      frame[1] === 0xff &&
      frame[2] === 0xff &&
      frame[3] === 0xff &&
      frame[4] === 0xff &&
      frame[5] === 0xff
    )
      return !s.noBroadcast;
    if (s.noMulticast) return false;
    if (s.allMulticast || s.multicastOverflow) return true;
    for (let n = s.unicast; n < s.macs; n++) if (is(s.table, 6 * n)) return true;
    return false;
  }
  if (s.noUnicast) return false;
  if (s.allUnicast || s.unicastOverflow || is(s.mac, 0)) return true;
  for (let n = 0; n < s.unicast; n++) if (is(s.table, 6 * n)) return true;
  return false;
}

// -- control queue

const OK = 0;
const ERR = 1;

/** Carries out a command, its class and number first; the answer. With the board's lock held. `announced`: the link's news was heard. */
export function control(s: NetState, features: bigint, pairs: number, command: Uint8Array): number {
  const has = (f: bigint): boolean => (features & f) !== 0n;
  const data = command.subarray(2);
  const on = data.length === 1 ? (data[0] ? 1 : 0) : undefined;
  switch (command[0]) {
    case 0: {
      if (!has(NetFeature.ctrlRx) || on === undefined) return ERR;
      const fields = ['promiscuous', 'allMulticast', 'allUnicast', 'noMulticast', 'noUnicast', 'noBroadcast'] as const;
      const field = fields[command[1]!];
      if (!field || (command[1]! > 1 && !has(NetFeature.ctrlRxExtra))) return ERR;
      s[field] = on;
      return OK;
    }
    case 1:
      if (command[1] === 1) {
        if (!has(NetFeature.ctrlMac) || data.length !== 6) return ERR;
        s.mac.set(data);
        return OK;
      }
      return command[1] === 0 && has(NetFeature.ctrlRx) ? macTable(s, data) : ERR;
    case 2: {
      if (!has(NetFeature.ctrlVlan) || data.length !== 2 || command[1]! > 1) return ERR;
      const vid = data[0]! | (data[1]! << 8);
      if (vid > 4095) return ERR;
      const bit = 1 << (vid & 31);
      s.vlans[vid >>> 5] = command[1] === 0 ? s.vlans[vid >>> 5]! | bit : s.vlans[vid >>> 5]! & ~bit;
      return OK;
    }
    case 3:
      if (!has(NetFeature.guestAnnounce) || command[1] !== 0) return ERR;
      s.link &= ~2;
      return OK;
    case 4: {
      const wanted = data.length === 2 ? data[0]! | (data[1]! << 8) : 0;
      if (!has(NetFeature.multiqueue) || command[1] !== 0 || wanted < 1 || wanted > pairs) return ERR;
      s.pairs = wanted;
      return OK;
    }
    case 5: {
      if (!has(NetFeature.ctrlGuestOffloads) || command[1] !== 0 || data.length !== 8) return ERR;
      const bits = new DataView(data.buffer, data.byteOffset, 8).getBigUint64(0, true);
      if (bits & ~(GUEST_OFFLOADS & features)) return ERR;
      s.guestOffloads = Number(bits);
      return OK;
    }
    default:
      return ERR;
  }
}
/** Unicast addresses, then multicast ones, each list behind its number of entries. */
function macTable(s: NetState, data: Uint8Array): number {
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  if (data.length < 8) return ERR;
  const unicast = view.getUint32(0, true);
  const second = 4 + 6 * unicast;
  if (unicast > 65535 || second + 4 > data.length) return ERR;
  const multicast = view.getUint32(second, true);
  if (multicast > 65535 || second + 4 + 6 * multicast > data.length) return ERR;
  s.unicastOverflow = unicast > MACS ? 1 : 0;
  s.unicast = s.unicastOverflow ? 0 : unicast;
  s.table.set(data.subarray(4, 4 + 6 * s.unicast), 0);
  s.multicastOverflow = s.unicast + multicast > MACS ? 1 : 0;
  s.macs = s.unicast + (s.multicastOverflow ? 0 : multicast);
  s.table.set(data.subarray(second + 4, second + 4 + 6 * (s.macs - s.unicast)), 6 * s.unicast);
  return OK;
}
