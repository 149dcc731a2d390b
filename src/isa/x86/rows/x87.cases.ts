// Seeded states for comparing single x87 instructions with a real processor: every class of operand, every rounding and precision
// control, masked and unmasked exceptions, full and empty registers.

import type { X87State } from './x87.bench.ts';

/** The instructions by name: code with RSI as the base of a memory operand. */
export const x87Codes: Readonly<Record<string, readonly number[]>> = build();

function build(): Record<string, readonly number[]> {
  const codes: Record<string, readonly number[]> = {};
  ['fadd', 'fmul', 'fcom', 'fcomp', 'fsub', 'fsubr', 'fdiv', 'fdivr'].forEach((name, n) => {
    codes[`${name} st1`] = [0xd8, 0xc1 + 8 * n];
    codes[`${name} m32`] = [0xd8, 0x06 + 8 * n];
    codes[`${name} m64`] = [0xdc, 0x06 + 8 * n];
    codes[`${name} i32`] = [0xda, 0x06 + 8 * n];
    codes[`${name} i16`] = [0xde, 0x06 + 8 * n];
    codes[`DC /${n} st1`] = [0xdc, 0xc1 + 8 * n];
    if (n !== 3) codes[`DE /${n} st1`] = [0xde, 0xc1 + 8 * n];
  });
  const more = `fcompp DE D9|fucompp DA E9|fucom DD E1|fucomp DD E9|fcomi DB F1|fcomip DF F1|fucomi DB E9|fucomip DF E9|fchs D9 E0|fabs D9 E1
    ftst D9 E4|fxam D9 E5|fxtract D9 F4|fprem1 D9 F5|fprem D9 F8|fsqrt D9 FA|frndint D9 FC|fscale D9 FD|fdecstp D9 F6|fincstp D9 F7
    fnop D9 D0|fld1 D9 E8|fldl2t D9 E9|fldl2e D9 EA|fldpi D9 EB|fldlg2 D9 EC|fldln2 D9 ED|fldz D9 EE|fld D9 C1|fxch D9 C9|fst DD D1
    fstp DD D9|ffree DD C1|ffreep DF C1|fstp1 D9 D9|fstp8 DF D1|fxch7 DF C9|fld-m32 D9 06|fld-m64 DD 06|fld-m80 DB 2E|fbld DF 26
    fild16 DF 06|fild32 DB 06|fild64 DF 2E|fst32 D9 16|fstp32 D9 1E|fst64 DD 16|fstp64 DD 1E|fstp80 DB 3E|fbstp DF 36|fist16 DF 16
    fistp16 DF 1E|fist32 DB 16|fistp32 DB 1E|fistp64 DF 3E|fisttp16 DF 0E|fisttp32 DB 0E|fisttp64 DD 0E|fnclex DB E2|fninit DB E3
    fnstcw D9 3E|fnstsw DD 3E|fldcw D9 2E|emms 0F 77|fcmovb DA C1|fcmove DA C9|fcmovbe DA D1|fcmovu DA D9|fcmovnb DB C1|fcmovne DB C9
    fcmovnbe DB D1|fcmovnu DB D9`;
  for (const line of more.split(/[|\n]/)) {
    const [name, ...bytes] = line.trim().split(' ');
    codes[name] = bytes.map((x) => Number.parseInt(x, 16));
  }
  return codes;
}

const TOP = 1n << 63n;

/** `count` states for one instruction; the same for the same `seed`. */
export function x87Cases(seed: number, count: number): X87State[] {
  let state = BigInt(seed);
  // SplitMix64.
  const next = (): bigint => {
    state = BigInt.asUintN(64, state + 0x9e3779b97f4a7c15n);
    let z = state;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
    return z ^ (z >> 31n);
  };
  const below = (n: number): number => Number(next() % BigInt(n));
  const pick = <T>(list: readonly T[]): T => list[below(list.length)];
  const fraction = (): bigint => {
    const r = next() & (TOP - 1n);
    const n = BigInt(below(63));
    return pick([0n, TOP - 1n, r & (-1n << n), 1n << n, BigInt.asUintN(63, -1n << n), r >> n, r]);
  };
  let near = 16383;
  const exponent = (): number => {
    switch (below(8)) {
      case 0:
        return 0x7ffe - below(3);
      case 1:
        return 1 + below(70);
      case 2:
        return 16383 + pick([63, 62, 60, 31, 30, 15, 0, -1, -2]);
      case 3:
        return 16383 + pick([1023, -1022, -1023, -1050, -1074, -1075, 127, -126, -127, -149, -150]);
      case 4:
        return below(32767);
      case 5:
        near = 16383 - 70 + below(140);
        return near;
      default:
        return Math.min(0x7ffe, Math.max(1, near - 3 + below(7)));
    }
  };
  const value = (): [number, bigint] => {
    const sign = below(2) << 15;
    const quiet = 1n << 62n;
    switch (below(20)) {
      case 0:
        return [sign, 0n];
      case 1:
        return [sign | 0x7fff, TOP];
      case 2:
        return [sign | 0x7fff, TOP | quiet | (fraction() >> 1n)];
      case 3:
        return [sign | 0x7fff, TOP | (fraction() >> 1n) | 1n];
      case 4:
        return [sign, fraction()];
      case 5:
        return [sign, TOP | fraction()];
      case 6:
        return [sign | below(32768), below(3) === 0 ? fraction() : TOP];
      case 7:
        return [sign | 16383, TOP];
      default:
        return [sign | exponent(), TOP | fraction()];
    }
  };
  return Array.from({ length: count }, () => {
    const image = new Uint8Array(108);
    const view = new DataView(image.buffer);
    const top = below(8);
    const masks = below(3) ? 0x3f : below(64);
    view.setUint32(0, 0xffff0040 | masks | (below(4) << 10) | (pick([0, 2, 3, 3, 3]) << 8), true);
    const codes = (below(8) << 8) | (below(2) << 14);
    const sticky = below(2) ? (below(64) & masks) | (masks & 1 ? below(2) << 6 : 0) | codes : 0;
    view.setUint32(4, 0xffff0000 | (top << 11) | sticky, true);
    let tags = 0;
    for (let i = 0; i < 8; i++) {
      const often = i === top || i === ((top + 1) & 7);
      if (below(often ? 12 : 2) === 0) tags |= 3 << (2 * i);
    }
    if (below(4)) tags |= 3 << (2 * ((top + 7) & 7));
    view.setUint32(8, 0xffff0000 | tags, true);
    for (let i = 0; i < 8; i++) {
      const [e, m] = value();
      view.setBigUint64(28 + 10 * i, m, true);
      view.setUint16(36 + 10 * i, e, true);
    }
    const memory = new Uint8Array(16);
    const bytes = new DataView(memory.buffer);
    bytes.setBigUint64(0, next(), true);
    bytes.setBigUint64(8, next(), true);
    const [e, m] = value();
    switch (below(6)) {
      case 0:
        bytes.setFloat64(0, pick([0, -0, 1, -1, Infinity, -Infinity, 5e-324, 1e-310, 1.5, 3, Number.MAX_VALUE]), true);
        break;
      case 1:
        bytes.setFloat32(0, pick([0, -0, 1, -1, Infinity, -Infinity, 1e-45, 1e-40, 1.5, 3, 3e38]), true);
        break;
      case 2:
        bytes.setUint32(0, pick([0x7f800001, 0xff800001, 0x7fc00000, 1, 0x7fffff, 0, 0xffffffff, 0x80000000]), true);
        bytes.setUint32(4, pick([0x7ff00000, 0xfff00000, 0x7ff00001, 1, 0, 0x80000000, 0x3ff00000]), true);
        break;
      case 3:
        bytes.setBigUint64(0, m, true);
        bytes.setUint16(8, e, true);
        break;
      case 4:
        for (let i = 0; i < 9; i++) memory[i] = below(10) | (below(10) << 4);
        memory[9] = below(2) << 7;
        break;
      default:
        bytes.setBigInt64(0, BigInt.asIntN(64, next()) >> BigInt(below(64)), true);
    }
    return { image, memory, flags: below(0x1000) & 0x8d5 };
  });
}

/** 16 bits over what an instruction left: control, status and tag words, registers, memory, flags. */
export function checksum(after: X87State): number {
  let h = 0x811c9dc5;
  const eat = (bytes: Uint8Array): void => {
    for (const byte of bytes) h = Math.imul(h ^ byte, 0x01000193);
  };
  for (const at of [0, 4, 8]) eat(after.image.subarray(at, at + 2));
  eat(after.image.subarray(28));
  eat(after.memory);
  eat(Uint8Array.of(after.flags & 0xff, after.flags >> 8));
  return (h ^ (h >>> 16)) & 0xffff;
}
