// Base 64. RFC 4648, section 4.

const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

export function base64(bytes: Uint8Array): string {
  let out = '';
  for (let i = 0; i < bytes.length; i += 3) {
    const [a = 0, b = 0, c = 0] = bytes.subarray(i, i + 3);
    const word = (a << 16) | (b << 8) | c;
    const part = [18, 12, 6, 0].map((shift) => digits[(word >> shift) & 63]).join('');
    out += part.slice(0, Math.min(3, bytes.length - i) + 1).padEnd(4, '=');
  }
  return out;
}

/** The bytes of base 64 text; what is no digit is passed over. */
export function fromBase64(text: string): Uint8Array {
  const values = [...text].map((c) => digits.indexOf(c)).filter((value) => value >= 0);
  const out = new Uint8Array(Math.floor((values.length * 6) / 8));
  let [word, bits, at] = [0, 0, 0];
  for (const value of values) {
    word = ((word << 6) | value) & 0xffff;
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    out[at++] = (word >> bits) & 0xff;
  }
  return out;
}
