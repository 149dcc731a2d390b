// IPv4 and IPv6 addresses: text and bytes, prefixes, kinds. RFC 4291, section 2.2 (text); RFC 5952 (canonical text); RFC 6890 (special addresses).
import { get16, get32, put16, put32 } from './bytes.ts';

/** 4 bytes (IPv4) or 16 (IPv6), in network order. */
export type Address = Uint8Array;
/** 6 bytes. */
export type Mac = Uint8Array;

export type Family = 4 | 6;
export const familyOf = (a: Address): Family => (a.length === 4 ? 4 : 6);

/** Four decimal numbers with dots; `undefined` where the text is anything else. */
export function parseIpv4(text: string): Address | undefined {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((p) => /^\d{1,3}$/.test(p) && Number(p) < 256)) return undefined;
  return Uint8Array.from(parts, Number);
}

/** Hexadecimal groups, `::` at most once, IPv4 in the last 32 bits allowed; no zone. `undefined` where the text is anything else. */
export function parseIpv6(text: string): Address | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const groups = (half: string, last: boolean): number[] | undefined => {
    if (half === '') return [];
    const out: number[] = [];
    const parts = half.split(':');
    for (const [i, p] of parts.entries()) {
      const v4 = last && i === parts.length - 1 ? parseIpv4(p) : undefined;
      if (v4 !== undefined) out.push(get16(v4, 0), get16(v4, 2));
      else if (/^[0-9a-f]{1,4}$/i.test(p)) out.push(Number.parseInt(p, 16));
      else return undefined;
    }
    return out;
  };
  const head = groups(halves[0], halves.length === 1);
  const tail = halves.length === 2 ? groups(halves[1], true) : [];
  if (head === undefined || tail === undefined) return undefined;
  const count = head.length + tail.length;
  if (halves.length === 1 ? count !== 8 : count > 7) return undefined;
  const a = new Uint8Array(16);
  for (const [i, g] of head.entries()) put16(a, 2 * i, g);
  for (const [i, g] of tail.entries()) put16(a, 16 - 2 * (tail.length - i), g);
  return a;
}

/** Either family; a zone (`fe80::1%eth0`) is dropped, and IPv4 in IPv6 (`::ffff:1.2.3.4`) becomes IPv4. */
export function parseAddress(text: string): Address | undefined {
  const a = parseIpv4(text) ?? parseIpv6(text.replace(/%.*$/, ''));
  return a !== undefined && isMapped(a) ? a.slice(12) : a;
}

export function formatAddress(a: Address): string {
  if (a.length === 4) return `${a[0]}.${a[1]}.${a[2]}.${a[3]}`;
  const groups = Array.from({ length: 8 }, (_, i) => get16(a, 2 * i));
  let best = 0;
  let at = -1;
  for (let i = 0; i < 8; i++) {
    let n = 0;
    while (i + n < 8 && groups[i + n] === 0) n++;
    if (n > best) [best, at] = [n, i];
  }
  const hex = (g: number[]): string => g.map((x) => x.toString(16)).join(':');
  return best < 2 ? hex(groups) : `${hex(groups.slice(0, at))}::${hex(groups.slice(at + best))}`;
}

export const formatMac = (m: Mac): string => Array.from(m, (x) => x.toString(16).padStart(2, '0')).join(':');

export const sameAddress = (a: Address, b: Address): boolean =>
  a.length === b.length && get32(a, 0) === get32(b, 0) && (a.length === 4 || a.every((x, i) => x === b[i]));

/** A map key of an address: equal keys, equal addresses. */
export const addressKey = (a: Address): string =>
  a.length === 4 ? String.fromCharCode(get16(a, 0), get16(a, 2)) : String.fromCharCode(...a);

/** A map key of two ends of a flow. */
export const flowKey = (a: Address, aPort: number, b: Address, bPort: number): string =>
  addressKey(a) + addressKey(b) + String.fromCharCode(aPort, bPort);

/** The first `length` bits, 0 to 32 or 128, are those of `network`. Addresses of another family are never inside. */
export function inPrefix(a: Address, network: Address, length: number): boolean {
  if (a.length !== network.length) return false;
  const whole = length >>> 3;
  for (let i = 0; i < whole; i++) if (a[i] !== network[i]) return false;
  const rest = length & 7;
  return rest === 0 || ((a[whole] ^ network[whole]) & (0xff00 >>> rest) & 0xff) === 0;
}

/** `network` with `host` added to its last 32 bits. */
export function hostAddress(network: Address, host: number): Address {
  const a = network.slice();
  put32(a, a.length - 4, get32(a, a.length - 4) + host);
  return a;
}

/** The address with all bits after the prefix cleared. */
export function networkOf(a: Address, length: number): Address {
  return a.map((x, i) => x & (0xff00 >>> Math.max(0, Math.min(8, length - 8 * i))) & 0xff);
}

/** IPv4 mask of a prefix length, as an unsigned number. */
export const maskOf = (length: number): number => (length === 0 ? 0 : (0xffff_ffff << (32 - length)) >>> 0);

const zeros = (a: Address, from: number, to: number): boolean => a.subarray(from, to).every((x) => x === 0);
const isMapped = (a: Address): boolean => a.length === 16 && zeros(a, 0, 10) && get16(a, 10) === 0xffff;

export const isLoopback = (a: Address): boolean => (a.length === 4 ? a[0] === 127 : zeros(a, 0, 15) && a[15] === 1);
export const isUnspecified = (a: Address): boolean => zeros(a, 0, a.length);
export const isMulticast = (a: Address): boolean => (a.length === 4 ? a[0] >= 224 && a[0] < 240 : a[0] === 0xff);
export const isLinkLocal = (a: Address): boolean =>
  a.length === 4 ? a[0] === 169 && a[1] === 254 : a[0] === 0xfe && (a[1] & 0xc0) === 0x80;

/**
 * Whether a packet for this address may leave for the host's network: global or private unicast. Loopback, "this network",
 * link-local (RFC 3927, section 2.7: never forwarded), multicast, reserved, site-local fec0::/10, and every IPv6 form that
 * hides an IPv4 address which the host would take apart again (::/96, mapped, translated) may not.
 */
export function isForwardable(a: Address): boolean {
  if (a.length === 4) return a[0] !== 0 && a[0] !== 127 && a[0] < 224 && !isLinkLocal(a);
  if (zeros(a, 0, 8)) return false;
  return !(a[0] === 0xfe && (a[1] & 0x80) !== 0) && a[0] !== 0xff;
}
