// Values of the IR as the evaluator holds them, and how they lie in memory (WebAssembly core specification 2.0, section 2.3.1).

import type { Access, Type } from './ops.ts';

/**
 * One value by its type: i32 a number in -2^31…2^31-1, i64 a bigint in -2^63…2^63-1, f32 and f64 the bit pattern held as an
 * i32 and an i64 (so that the payload of a NaN survives every move), v128 sixteen bytes, lowest first, never written to.
 */
export type Datum = number | bigint | Uint8Array;

const scratch = new DataView(new ArrayBuffer(8));

/** The number that an f32 bit pattern stands for. */
export function f32Value(bits: number): number {
  scratch.setInt32(0, bits);
  return scratch.getFloat32(0);
}
/** The bit pattern of `value` rounded to f32; every NaN gives the canonical one. */
export function f32Bits(value: number): number {
  if (Number.isNaN(value)) return 0x7fc00000;
  scratch.setFloat32(0, value);
  return scratch.getInt32(0);
}
/** The number that an f64 bit pattern stands for. */
export function f64Value(bits: bigint): number {
  scratch.setBigInt64(0, bits);
  return scratch.getFloat64(0);
}
/** The bit pattern of `value`; every NaN gives the canonical one. */
export function f64Bits(value: number): bigint {
  if (Number.isNaN(value)) return 0x7ff8000000000000n;
  scratch.setFloat64(0, value);
  return scratch.getBigInt64(0);
}

/** Zero of type `type`. */
export function zeroOf(type: Type): Datum {
  if (type === 'v128') return new Uint8Array(16);
  return type === 'i64' || type === 'f64' ? 0n : 0;
}

/** Reads memory as `access` does. Throws a RangeError outside the view. */
export function readDatum(view: DataView, at: number, access: Access): Datum {
  switch (access.name) {
    case 'i32.8u':
      return view.getUint8(at);
    case 'i32.8s':
      return view.getInt8(at);
    case 'i32.16u':
      return view.getUint16(at, true);
    case 'i32.16s':
      return view.getInt16(at, true);
    case 'i32':
    case 'f32':
      return view.getInt32(at, true);
    case 'i64.8u':
      return BigInt(view.getUint8(at));
    case 'i64.8s':
      return BigInt(view.getInt8(at));
    case 'i64.16u':
      return BigInt(view.getUint16(at, true));
    case 'i64.16s':
      return BigInt(view.getInt16(at, true));
    case 'i64.32u':
      return BigInt(view.getUint32(at, true));
    case 'i64.32s':
      return BigInt(view.getInt32(at, true));
    case 'i64':
    case 'f64':
      return view.getBigInt64(at, true);
    case 'v128': {
      const bytes = new Uint8Array(16);
      for (let i = 0; i < 16; i++) bytes[i] = view.getUint8(at + i);
      return bytes;
    }
  }
}

/** Writes memory as `access` does, cutting the value to its bits. Throws a RangeError outside the view. */
export function writeDatum(view: DataView, at: number, access: Access, value: Datum): void {
  if (access.bits === 128) for (let i = 0; i < 16; i++) view.setUint8(at + i, (value as Uint8Array)[i]!);
  else if (access.bits === 64) view.setBigInt64(at, value as bigint, true);
  else {
    const cut = Number(BigInt.asIntN(32, BigInt(value as number | bigint)));
    if (access.bits === 8) view.setInt8(at, cut);
    else if (access.bits === 16) view.setInt16(at, cut, true);
    else view.setInt32(at, cut, true);
  }
}

/** True where both are the same bits. */
export function sameDatum(a: Datum, b: Datum): boolean {
  if (a instanceof Uint8Array) return b instanceof Uint8Array && a.every((x, i) => x === b[i]);
  return a === b;
}
