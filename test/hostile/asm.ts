// Machine code written by hand: hexadecimal text and little-endian numbers joined to bytes, and a seeded source of random numbers.

/** Text holds hexadecimal bytes, spaces between them or not; anything else is bytes already. */
export function asm(...parts: readonly (string | Uint8Array)[]): Uint8Array {
  const pieces = parts.map((p) => (typeof p === 'string' ? Uint8Array.from(Buffer.from(p.replaceAll(/\s+/g, ''), 'hex')) : p));
  const out = new Uint8Array(pieces.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of pieces) {
    out.set(p, at);
    at += p.length;
  }
  return out;
}

/** The low `bytes` bytes of a number, lowest first. */
export function le(value: number | bigint, bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => Number((BigInt(value) >> BigInt(8 * i)) & 0xffn));
}

/** `mov r32, value` by number of the register. */
export const mov32 = (register: number, value: number): Uint8Array => asm(le(0xb8 + register, 1), le(value, 4));
/** `mov r64, value` by number of the register, 0 to 7. */
export const mov64 = (register: number, value: bigint | number): Uint8Array => asm('48', le(0xb8 + register, 1), le(value, 8));
/** `mov ecx, msr; mov eax, low; mov edx, high; wrmsr`. */
export const wrmsr = (msr: number, value: bigint | number): Uint8Array =>
  asm(
    mov32(1, msr),
    mov32(0, Number(BigInt(value) & 0xffff_ffffn)),
    mov32(2, Number((BigInt(value) >> 32n) & 0xffff_ffffn)),
    '0f30',
  );

/** Random numbers that a seed determines (G. Marsaglia, "Xorshift RNGs", 2003). */
export class Random {
  #s: number;

  constructor(seed: number) {
    this.#s = Math.imul(seed + 1, 0x9e3779b1) | 1;
  }
  /** 32 bits, unsigned. */
  u32(): number {
    let s = this.#s;
    s ^= s << 13;
    s ^= s >>> 17;
    s ^= s << 5;
    this.#s = s;
    return Math.imul(s, 0x2545f491) >>> 0;
  }
  /** 0 to `n` - 1. */
  below(n: number): number {
    return Math.floor((this.u32() / 2 ** 32) * n);
  }
  /** 64 bits, unsigned. */
  u64(): bigint {
    return (BigInt(this.u32()) << 32n) | BigInt(this.u32());
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
  /** A number of 64 bits that is often at an edge. */
  edgy(): bigint {
    const n = this.u32();
    if (n & 1) return this.u64() >> BigInt(this.below(64));
    const near = (1n << BigInt(this.below(64))) + BigInt(this.below(17) - 8);
    return BigInt.asUintN(64, n & 2 ? near : -near);
  }
  fill(bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.u32() >>> 11;
  }
}
