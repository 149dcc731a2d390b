// The choice between WebAssembly's floating point and the exact one, and the settlement of exceptions (Intel SDM volume 1, sections 10.2.3
// and 11.5).
//
// Fast path: MXCSR has its usual control bits (all exceptions masked, round to nearest, no DAZ, no FTZ) and the result is no NaN;
// the sticky exception flags of MXCSR are then not kept. Anything else runs softfloat*.ts and is exact. With bit 31 of the slot
// `mxcsr` set (no guest can set it) every operation takes the exact path, and MXCSR's flags are exact as well.

import type { Value } from '../../../ir/ir.ts';
import type { Type } from '../../../ir/ops.ts';
import type { Emit } from '../emit.ts';
import type { Width } from '../softfloat-core.ts';
import { cr4, mxcsr, sseFlags, X } from '../state.ts';
import { type Sub, sub } from '../sub.ts';
import { zeroVec } from './sse.ts';

/** Bit of the slot `mxcsr` that asks for exact flags. */
export const MXCSR_EXACT = 0x8000_0000;
/** Bits that a guest may write: no reserved bit of MXCSR is supported. */
export const MXCSR_MASK = 0xffff;
/** MXCSR after reset. */
export const MXCSR_RESET = 0x1f80;

/** 1 where MXCSR has its usual control bits. */
export function isFast(c: Emit): Value {
  const b = c.b;
  return b.eq(b.and(c.get(mxcsr), b.i32((MXCSR_EXACT | 0xffc0) >>> 0)), b.i32(MXCSR_RESET));
}

/**
 * `fast()` under the usual MXCSR where `ok` (i32, default always) holds for its result, else `slow()`.
 */
export function guarded(c: Emit, type: Type, fast: () => Value, slow: () => Value, ok?: (r: Value) => Value): Value {
  const b = c.b;
  if (!ok) return c.choose(type, isFast(c), fast, slow);
  const zero = type === 'v128' ? zeroVec(c) : type === 'f32' ? b.f32(0) : type === 'f64' ? b.f64(0) : b.int(type, 0);
  const result = b.variable(zero);
  b.block((end) => {
    b.if(isFast(c), () => {
      const r = fast();
      b.setVar(result, r);
      b.br(end, ok(r));
    });
    b.setVar(result, slow());
  });
  return b.getVar(result);
}
/** For `guarded`: no lane is a NaN. */
export const noNan =
  (c: Emit, shape: 'f32' | 'f64' | 'f32x4' | 'f64x2') =>
  (r: Value): Value =>
    shape.length === 3 ? c.b.op(`${shape}.eq`, r, r) : c.b.eqz(c.b.op('v128.any_true', c.b.op(`${shape}.ne`, r, r)));

/**
 * Ends an exact operation: flags found go to MXCSR, unmasked ones raise #XM (#UD without CR4.OSXMMEXCPT). Unmasked exceptions
 * found before computing (IE, DE, ZE) keep those found after it from being reported (SDM volume 1, section 11.5.3).
 */
export const sseFinish: Sub = sub('sse.finish', [], null, { faults: true }, (c) => {
  const b = c.b;
  const found = c.get(sseFlags);
  const control = c.get(mxcsr);
  const unmasked = b.and(found, b.not(b.shru(control, b.i32(7))));
  const report = b.select(b.and(unmasked, b.i32(7)), b.and(found, b.i32(7)), found);
  c.set(mxcsr, b.or(control, report));
  b.if(b.and(unmasked, b.i32(0x3f)), () => {
    b.if(b.wrap(b.and(c.get(cr4), b.i64(0x400))), () => c.raise(X.xm));
    c.ud();
  });
  b.ret();
});

/** Declares an exact operation of one instruction: `compute` calls softfloat with the mode; flags are cleared before, settled after. */
export function exact(
  name: string,
  params: readonly Type[],
  result: Type | null,
  compute: (c: Emit, mode: Value, ...args: Value[]) => Value | null,
): Sub {
  return sub(`sse.${name}`, params, result, { faults: true }, (c, ...args) => {
    c.set(sseFlags, c.b.i32(0));
    const r = compute(c, c.get(mxcsr), ...args);
    c.do(sseFinish);
    c.b.ret(r);
  });
}

/** Shapes of packed floats: lanes, type of a lane, and how its bits are taken out and put in as i64. */
export const shapes = {
  32: { name: 'f32x4', count: 4, type: 'f32' },
  64: { name: 'f64x2', count: 2, type: 'f64' },
} as const;
/** Lane `i` as a bit pattern in i64. */
export function laneBits(c: Emit, width: 32 | 64, i: number, x: Value): Value {
  return width === 64 ? c.b.lane('i64x2.extract_lane', [i], x) : c.b.extu(c.b.lane('i32x4.extract_lane', [i], x));
}
/** `x` with the bit pattern `value` (i64) in lane `i`. */
export function withLane(c: Emit, width: 32 | 64, i: number, x: Value, value: Value): Value {
  if (width === 64) return c.b.lane('i64x2.replace_lane', [i], x, value);
  return c.b.lane('i32x4.replace_lane', [i], x, c.b.wrap(value));
}
/** A float's bits as i64, and back. */
export const bitsOf = (c: Emit, x: Value): Value =>
  x.type === 'f64' ? c.b.op('i64.reinterpret_f64', x) : c.b.extu(c.b.op('i32.reinterpret_f32', x));
export const floatOf = (c: Emit, width: 32 | 64, bits: Value): Value =>
  width === 64 ? c.b.op('f64.reinterpret_i64', bits) : c.b.op('f32.reinterpret_i32', c.b.wrap(bits));

export type ByWidth<T> = Readonly<Record<Width, T>>;
export const widths: readonly Width[] = [32, 64];
export const forWidths = <T>(make: (w: Width) => T): ByWidth<T> => ({ 32: make(32), 64: make(64) });

/** Mandatory prefix, suffix of the mnemonic and operands of the four forms of one instruction. */
export const packedForm: ByWidth<{ prefix: string; suffix: string }> = {
  32: { prefix: 'NP', suffix: 'ps' },
  64: { prefix: '66', suffix: 'pd' },
};
export const scalarForm: ByWidth<{ prefix: string; suffix: string; source: string }> = {
  32: { prefix: 'F3', suffix: 'ss', source: 'Wd' },
  64: { prefix: 'F2', suffix: 'sd', source: 'Wq' },
};

/** The exact subroutines of one operation. */
export interface Exact {
  readonly scalar: ByWidth<Sub>;
  readonly packed: ByWidth<Sub>;
}
