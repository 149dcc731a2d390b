// The messages of RFB, the protocol of VNC: numbers, what clients send, what servers answer. RFC 6143; extensions as the community's rfbproto.rst describes them.

/** Encodings and pseudo-encodings that mean something here. */
export const Encoding = {
  raw: 0,
  hextile: 5,
  zlib: 6,
  tight: 7,
  zrle: 16,
  lastRect: -224,
  desktopSize: -223,
  cursor: -239,
  pointerChange: -257,
  extendedKey: -258,
  ledState: -261,
  desktopName: -307,
  extendedDesktopSize: -308,
  fence: -312,
  continuousUpdates: -313,
} as const;
/** What a fence asks for: an answer; that what came before it is done, and that what comes after it waits. */
export const Fence = { request: 0x8000_0000, blockBefore: 1, blockAfter: 2 } as const;
/** Bytes of a fence's own at most. */
const FENCE_MAX = 64;
/** Pseudo-encodings that carry a level: quality of JPEGs in `tight`, and compression. */
export const QUALITY_LOW = -32;
export const QUALITY_HIGH = -23;
export const COMPRESS_LOW = -256;
export const COMPRESS_HIGH = -247;

export const Security = { invalid: 0, none: 1, vnc: 2, veNCrypt: 19, sasl: 20 } as const;
/** What goes on under the TLS of VeNCrypt, anonymous or with certificates of X.509. rfbproto.rst, "VeNCrypt". */
export const VeNCrypt = {
  'tls-none': 257,
  'tls-vnc': 258,
  'x509-none': 260,
  'x509-vnc': 261,
  // As QEMU and gtk-vnc number them; rfbproto.rst has these two the other way round.
  'x509-sasl': 263,
  'tls-sasl': 264,
} as const;

export interface PixelFormat {
  /** 8, 16 or 32. */
  readonly bits: number;
  readonly depth: number;
  readonly bigEndian: boolean;
  readonly trueColour: boolean;
  readonly max: readonly [number, number, number];
  readonly shift: readonly [number, number, number];
}

/** What servers offer: 32 bits, 0x00RRGGBB, little-endian. */
export const serverFormat: PixelFormat = {
  bits: 32,
  depth: 24,
  bigEndian: false,
  trueColour: true,
  max: [255, 255, 255],
  shift: [16, 8, 0],
};

export type ClientMessage =
  | { readonly kind: 'pixelFormat'; readonly format: PixelFormat }
  | { readonly kind: 'encodings'; readonly list: readonly number[] }
  | {
      readonly kind: 'update';
      readonly incremental: boolean;
      readonly x: number;
      readonly y: number;
      readonly width: number;
      readonly height: number;
    }
  | { readonly kind: 'key'; readonly down: boolean; readonly keysym: number; /** Scan code set 1; E0 codes have bit 7. 0 where the client does not say. */ readonly number: number }
  | { readonly kind: 'pointer'; readonly buttons: number; readonly x: number; readonly y: number }
  | { readonly kind: 'desktopSize'; readonly width: number; readonly height: number }
  | { readonly kind: 'continuous'; readonly on: boolean; readonly x: number; readonly y: number; readonly width: number; readonly height: number }
  | { readonly kind: 'fence'; readonly flags: number; readonly payload: Uint8Array }
  | { readonly kind: 'ignored' }; // biome-ignore format: one line each

/** Encodings of one message that are looked at; a client names a few dozen. */
const ENCODINGS_MAX = 256;
const SCREENS_MAX = 16;

/** Bytes in the order of the network. */
const u16 = (b: Uint8Array, at: number): number => (b[at]! << 8) | b[at + 1]!;
const u32 = (b: Uint8Array, at: number): number => ((u16(b, at) << 16) | u16(b, at + 2)) >>> 0;

/**
 * Cuts what a client sends into messages. Nothing that a client can send makes it keep more than one message's head and what came
 * with the last `push`; cut text and over-long lists are skipped as they come.
 */
export class ClientMessages {
  #held: Uint8Array = new Uint8Array(0);
  /** Bytes that are still to be thrown away. */
  #skip = 0;

  push(bytes: Uint8Array): void {
    const rest = this.#skip < bytes.length ? bytes.subarray(this.#skip) : bytes.subarray(0, 0);
    this.#skip = Math.max(0, this.#skip - bytes.length);
    if (rest.length === 0) return;
    if (this.#held.length === 0) this.#held = rest;
    else {
      const joined = new Uint8Array(this.#held.length + rest.length);
      joined.set(this.#held);
      joined.set(rest, this.#held.length);
      this.#held = joined;
    }
  }

  /** Bytes that were not taken. */
  get waiting(): number {
    return this.#held.length;
  }

  /** Takes `n` bytes; undefined while there are fewer. */
  take(n: number): Uint8Array | undefined {
    if (this.#held.length < n) return undefined;
    const out = this.#held.subarray(0, n);
    this.#held = this.#held.subarray(n);
    return out;
  }

  /** The next message; undefined while it is not complete. Throws where no message begins so. */
  next(): ClientMessage | undefined {
    const b = this.#held;
    if (b.length === 0) return undefined;
    switch (b[0]) {
      case 0: {
        const m = this.take(20);
        return m && { kind: 'pixelFormat', format: readFormat(m.subarray(4)) };
      }
      case 2: {
        if (b.length < 4) return undefined;
        const count = u16(b, 2);
        const used = Math.min(count, ENCODINGS_MAX);
        const m = this.take(4 + 4 * used);
        if (m === undefined) return undefined;
        this.#drop(4 * (count - used));
        return { kind: 'encodings', list: Array.from({ length: used }, (_, i) => u32(m, 4 + 4 * i) | 0) };
      }
      case 3: {
        const m = this.take(10);
        return m && { kind: 'update', incremental: m[1] !== 0, x: u16(m, 2), y: u16(m, 4), width: u16(m, 6), height: u16(m, 8) };
      }
      case 4: {
        const m = this.take(8);
        return m && { kind: 'key', down: m[1] !== 0, keysym: u32(m, 4), number: 0 };
      }
      case 5: {
        const m = this.take(6);
        return m && { kind: 'pointer', buttons: m[1]!, x: u16(m, 2), y: u16(m, 4) };
      }
      case 6: {
        const m = this.take(8);
        if (m === undefined) return undefined;
        // An extended clipboard's length is negative.
        this.#drop(Math.abs(u32(m, 4) | 0));
        return { kind: 'ignored' };
      }
      case 150: {
        const m = this.take(10);
        return m && { kind: 'continuous', on: m[1] !== 0, x: u16(m, 2), y: u16(m, 4), width: u16(m, 6), height: u16(m, 8) };
      }
      case 248: {
        if (b.length < 9) return undefined;
        const length = b[8]!;
        if (length > FENCE_MAX) {
          this.take(9);
          this.#drop(length);
          return { kind: 'ignored' };
        }
        const m = this.take(9 + length);
        return m && { kind: 'fence', flags: u32(m, 4), payload: m.slice(9) };
      }
      case 250:
        return this.take(4) && { kind: 'ignored' };
      case 251: {
        if (b.length < 8) return undefined;
        const screens = b[6]!;
        const used = Math.min(screens, SCREENS_MAX);
        const m = this.take(8 + 16 * used);
        if (m === undefined) return undefined;
        this.#drop(16 * (screens - used));
        return { kind: 'desktopSize', width: u16(m, 2), height: u16(m, 4) };
      }
      case 255:
        return this.#qemu();
      default:
        throw new Error(`Cannot read an RFB message of type ${b[0]}: no client message begins so`);
    }
  }

  /** QEMU's own messages: extended keys, audio. */
  #qemu(): ClientMessage | undefined {
    const b = this.#held;
    if (b.length < 4) return undefined;
    if (b[1] === 0) {
      const m = this.take(12);
      if (m === undefined) return undefined;
      const code = u32(m, 8);
      const number = (code >>> 8 === 0xe0 ? code | 0x80 : code) & 0xff;
      return { kind: 'key', down: u16(m, 2) !== 0, keysym: u32(m, 4), number };
    }
    if (b[1] === 1) return this.take(u16(b, 2) === 2 ? 10 : 4) && { kind: 'ignored' };
    throw new Error(`Cannot read a QEMU client message of type ${b[1]}: 0 and 1 are known`);
  }

  #drop(n: number): void {
    const now = Math.min(n, this.#held.length);
    this.#held = this.#held.subarray(now);
    this.#skip = n - now;
  }
}

function readFormat(b: Uint8Array): PixelFormat {
  return {
    bits: b[0]!,
    depth: b[1]!,
    bigEndian: b[2] !== 0,
    trueColour: b[3] !== 0,
    max: [u16(b, 4), u16(b, 6), u16(b, 8)],
    shift: [b[10]!, b[11]!, b[12]!],
  };
}

/** Whether pixels can be made of it. */
export const isUsable = (f: PixelFormat): boolean =>
  (f.bits === 8 || f.bits === 16 || f.bits === 32) &&
  (!f.trueColour ||
    f.max.every((m, i) => m > 0 && (m & (m + 1)) === 0 && f.shift[i]! < f.bits && m * 2 ** f.shift[i]! < 2 ** f.bits));

// ── What servers say ──

/** Numbers one after the other, in the order of the network. */
export function message(...parts: readonly (readonly [1 | 2 | 4, number] | Uint8Array)[]): Uint8Array<ArrayBuffer> {
  const size = (p: (typeof parts)[number]): number => (p instanceof Uint8Array ? p.length : p[0]);
  const out = new Uint8Array(parts.reduce((n, p) => n + size(p), 0));
  let at = 0;
  for (const p of parts) {
    if (p instanceof Uint8Array) out.set(p, at);
    else for (let i = 0; i < p[0]; i++) out[at + i] = p[1] >>> (8 * (p[0] - 1 - i));
    at += size(p);
  }
  return out;
}

const text = (t: string): Uint8Array => new TextEncoder().encode(t);

export const formatBytes = (f: PixelFormat): Uint8Array =>
  message(
    [1, f.bits],
    [1, f.depth],
    [1, f.bigEndian ? 1 : 0],
    [1, f.trueColour ? 1 : 0],
    ...f.max.map((m) => [2, m] as const),
    ...f.shift.map((s) => [1, s] as const),
    new Uint8Array(3),
  );

export const serverInit = (width: number, height: number, name: string): Uint8Array =>
  message([2, width], [2, height], formatBytes(serverFormat), [4, text(name).length], text(name));

export const fence = (flags: number, payload: Uint8Array): Uint8Array =>
  message([1, 248], new Uint8Array(3), [4, flags], [1, payload.length], payload);
export const endOfContinuousUpdates = (): Uint8Array => Uint8Array.of(150);

/** The reason of a refusal. */
export const reason = (why: string): Uint8Array => message([4, text(why).length], text(why));

export const updateHeader = (rects: number): Uint8Array => message([1, 0], [1, 0], [2, rects]);
export const rectHeader = (x: number, y: number, width: number, height: number, encoding: number): Uint8Array =>
  message([2, x], [2, y], [2, width], [2, height], [4, encoding]);

/** The colour map of clients without true colour: 256 colours, three bits of red and green, two of blue. */
export function colourMap(): Uint8Array {
  const entries = Array.from({ length: 256 }, (_, i) =>
    [(i & 7) / 7, ((i >>> 3) & 7) / 7, (i >>> 6) / 3].map((v) => [2, Math.round(v * 0xffff)] as const),
  );
  return message([1, 1], [1, 0], [2, 0], [2, 256], ...entries.flat());
}
/** What such a client's pixels are. */
export const mappedFormat: PixelFormat = {
  bits: 8,
  depth: 8,
  bigEndian: false,
  trueColour: true,
  max: [7, 7, 3],
  shift: [0, 3, 6],
};
