// USB descriptors from a short description of a device. Universal Serial Bus Specification 2.0, section 9.6.

export type Speed = 'low' | 'full' | 'high';
/** A value that may differ by speed. */
type BySpeed = number | { readonly full: number; readonly high: number };

export interface Endpoint {
  /** Number, with bit 7 for IN. */
  readonly address: number;
  readonly type: 'bulk' | 'interrupt';
  readonly maxPacket: BySpeed;
  /** As the speed counts it. */
  readonly interval?: BySpeed;
}
export interface Interface {
  readonly class: number;
  readonly subclass: number;
  readonly protocol: number;
  readonly string?: number;
  readonly endpoints: readonly Endpoint[];
  /** Descriptors of the class between interface and endpoints. */
  readonly extra?: readonly number[];
}
export interface Description {
  readonly vendor: number;
  readonly product: number;
  readonly release: number;
  readonly class?: number;
  readonly protocol?: BySpeed;
  /** Maker, product, serial number are the first three; more are for `string`. */
  readonly strings: readonly string[];
  /** mA, from the bus. */
  readonly power: number;
  readonly selfPowered?: boolean;
  readonly remoteWakeup?: boolean;
  readonly interfaces: readonly Interface[];
  readonly speeds: readonly Speed[];
}

const DEVICE = 1;
const CONFIGURATION = 2;
const STRING = 3;
const INTERFACE = 4;
const ENDPOINT = 5;
const QUALIFIER = 6;
const OTHER_SPEED = 7;

const le16 = (n: number): number[] => [n & 0xff, n >>> 8];
const at = (v: BySpeed | undefined, speed: Speed): number =>
  v === undefined ? 0 : typeof v === 'number' ? v : speed === 'high' ? v.high : v.full;

/** The descriptor of a type and index at a speed; undefined where there is none. */
export function descriptor(d: Description, speed: Speed, type: number, index: number): Uint8Array | undefined {
  const packet0 = speed === 'low' ? 8 : 64;
  const version = d.speeds.includes('high') ? 0x200 : 0x110;
  const named = (n: number): number => (d.strings[n] ? n + 1 : 0);
  switch (type) {
    case DEVICE:
      return Uint8Array.of(
        18, DEVICE, ...le16(version), d.class ?? 0, 0, at(d.protocol, speed), packet0, ...le16(d.vendor), ...le16(d.product),
        ...le16(d.release), named(0), named(1), named(2), 1,
      ); // biome-ignore format: by the fields
    case CONFIGURATION:
      return index === 0 ? configuration(d, speed, CONFIGURATION) : undefined;
    case STRING: {
      if (index === 0) return Uint8Array.of(4, STRING, 0x09, 0x04);
      const text = d.strings[index - 1];
      if (!text) return undefined;
      const units = [...text].flatMap((c) => le16(c.charCodeAt(0))).slice(0, 252);
      return Uint8Array.of(2 + units.length, STRING, ...units);
    }
    case QUALIFIER:
      if (!d.speeds.includes('high')) return undefined;
      return Uint8Array.of(10, QUALIFIER, ...le16(version), d.class ?? 0, 0, at(d.protocol, other(speed)), 64, 1, 0);
    case OTHER_SPEED:
      return d.speeds.includes('high') && index === 0 ? configuration(d, other(speed), OTHER_SPEED) : undefined;
    default:
      return undefined;
  }
}

const other = (speed: Speed): Speed => (speed === 'high' ? 'full' : 'high');

function configuration(d: Description, speed: Speed, type: number): Uint8Array {
  const parts = d.interfaces.flatMap((i, n) => [
    9, INTERFACE, n, 0, i.endpoints.length, i.class, i.subclass, i.protocol, i.string ?? 0,
    ...(i.extra ?? []),
    ...i.endpoints.flatMap((e) => [
      7, ENDPOINT, e.address, e.type === 'bulk' ? 2 : 3, ...le16(at(e.maxPacket, speed)), at(e.interval, speed),
    ]),
  ]); // biome-ignore format: by the fields
  const attributes = 0x80 | (d.selfPowered ? 0x40 : 0) | (d.remoteWakeup ? 0x20 : 0);
  return Uint8Array.of(9, type, ...le16(9 + parts.length), d.interfaces.length, 1, 0, attributes, d.power / 2, ...parts);
}
