// Receive-side scaling of the 82574: which of two queues a frame goes to. 82574 Data Sheet, section 7.1.2; the hash is Toeplitz's, as
// Microsoft's "RSS Hashing Types" and "Verifying the RSS Hash Calculation" have it.

import { type Steering, unsteered } from './card.ts';

/** MRQC: queues by RSS, and the kinds of packets that are hashed (section 10.2.6.8). */
const mrqc = { mask: 3, on: 1, tcp4: 1 << 16, ip4: 1 << 17, tcp6: 1 << 18, ip6: 1 << 20 } as const;
const kind = { tcp4: 1, ip4: 2, tcp6: 3, ip6: 5 } as const;
const TCP = 6;

/** The hash of `input` with a key of at least 4 bytes more. */
export function toeplitz(key: Uint8Array, input: Uint8Array): number {
  let hash = 0;
  let window = ((key[0]! << 24) | (key[1]! << 16) | (key[2]! << 8) | key[3]!) >>> 0;
  for (let i = 0; i < input.length; i++) {
    for (let bit = 7; bit >= 0; bit--) {
      if ((input[i]! >>> bit) & 1) hash ^= window;
      window = ((window << 1) | ((key[i + 4]! >>> bit) & 1)) >>> 0;
    }
  }
  return hash >>> 0;
}

export interface RssRegisters {
  readonly mrqc: number;
  /** 128 bytes: bit 7 is the queue. */
  readonly indirection: Uint8Array;
  /** 40 bytes. */
  readonly key: Uint8Array;
}

/** Where a frame goes. */
export function steer(r: RssRegisters, frame: Uint8Array): Steering {
  if ((r.mrqc & mrqc.mask) !== mrqc.on) return unsteered;
  const hashed = inputOf(r.mrqc, frame);
  if (hashed === undefined) return unsteered;
  const hash = toeplitz(r.key, hashed.input);
  return { queue: r.indirection[hash & 127]! >>> 7, hash, kind: hashed.kind };
}

/** What is hashed of a frame: addresses, and ports of TCP that is not in fragments. */
function inputOf(wanted: number, whole: Uint8Array): { readonly input: Uint8Array; readonly kind: number } | undefined {
  const tagged = whole[12] === 0x81 && whole[13] === 0;
  const type = ((whole[tagged ? 16 : 12] ?? 0) << 8) | (whole[tagged ? 17 : 13] ?? 0);
  const p = whole.subarray(tagged ? 18 : 14);
  if (type === 0x0800 && p.length >= 20 && p[0]! >>> 4 === 4) {
    const header = 4 * (p[0]! & 15);
    const whole4 = ((p[6]! & 0x3f) | p[7]!) === 0;
    if (wanted & mrqc.tcp4 && p[9] === TCP && whole4 && p.length >= header + 4)
      return { input: joined(p.subarray(12, 20), p.subarray(header, header + 4)), kind: kind.tcp4 };
    return wanted & mrqc.ip4 ? { input: p.subarray(12, 20), kind: kind.ip4 } : undefined;
  }
  if (type === 0x86dd && p.length >= 40 && p[0]! >>> 4 === 6) {
    if (wanted & mrqc.tcp6 && p[6] === TCP && p.length >= 44)
      return { input: joined(p.subarray(8, 40), p.subarray(40, 44)), kind: kind.tcp6 };
    return wanted & mrqc.ip6 ? { input: p.subarray(8, 40), kind: kind.ip6 } : undefined;
  }
  return undefined;
}
function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const out = new Uint8Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}
