// 128-bit products and quotients for 64-bit MUL and DIV, which WebAssembly does not have (Intel SDM volume 2: MUL, IMUL, DIV, IDIV).

import type { Value } from '../../ir/ir.ts';
import type { Emit } from './emit.ts';
import { gpr, R, X } from './state.ts';
import { type Sub, sub } from './sub.ts';

const rdx = gpr[R.rdx];

/** Upper 64 bits of the unsigned product: short enough to stand where it is needed. */
export function mulHighUnsigned(c: Emit, x: Value, y: Value): Value {
  const b = c.b;
  const m32 = b.i64(0xffffffffn);
  const by32 = b.i64(32);
  const [xl, xh, yl, yh] = [b.and(x, m32), b.shru(x, by32), b.and(y, m32), b.shru(y, by32)];
  const mid = b.add(b.mul(xh, yl), b.shru(b.mul(xl, yl), by32));
  const mid2 = b.add(b.mul(xl, yh), b.and(mid, m32));
  return b.add(b.add(b.mul(xh, yh), b.shru(mid, by32)), b.shru(mid2, by32));
}

/** Upper 64 bits of the signed product. */
export function mulHighSigned(c: Emit, x: Value, y: Value): Value {
  const b = c.b;
  const s = b.i64(63);
  const high = mulHighUnsigned(c, x, y);
  return b.sub(b.sub(high, b.and(b.shrs(x, s), y)), b.and(b.shrs(y, s), x));
}

/** Unsigned (high:low) / divisor for high < divisor: gives the quotient, and leaves the remainder in RDX. */
const divideUnsigned: Sub = sub('divideUnsigned', ['i64', 'i64', 'i64'], 'i64', {}, (c, high, low, divisor) => {
  const b = c.b;
  b.if(b.eqz(high), () => {
    const q = b.divu(low, divisor);
    c.set(rdx, b.sub(low, b.mul(q, divisor)));
    b.ret(q);
  });
  // Long division in base 2^32 (Knuth volume 2, 4.3.1, algorithm D), the divisor normalised.
  const shift = b.clz(divisor);
  const m32 = b.i64(0xffffffffn);
  const by32 = b.i64(32);
  const v = b.shl(divisor, shift);
  const [vh, vl] = [b.shru(v, by32), b.and(v, m32)];
  const spill = b.select(b.eqz(shift), b.i64(0), b.shru(low, b.sub(b.i64(64), shift)));
  const uHigh = b.or(b.shl(high, shift), spill);
  const uLow = b.shl(low, shift);
  // One digit of the quotient from a remainder below v and the next 32 bits.
  const digit = (u: Value, next: Value): [Value, Value] => {
    const q = b.variable(b.divu(u, vh));
    const r = b.variable(b.remu(u, vh));
    b.block((done) => {
      b.loop((again) => {
        const [qv, rv] = [b.getVar(q), b.getVar(r)];
        const tooBig = b.or(b.geu(qv, b.i64(1n << 32n)), b.gtu(b.mul(qv, vl), b.or(b.shl(rv, by32), next)));
        b.br(done, b.eqz(tooBig));
        b.setVar(q, b.sub(qv, b.i64(1)));
        b.setVar(r, b.add(rv, vh));
        b.br(again, b.ltu(b.getVar(r), b.i64(1n << 32n)));
      });
    });
    const qv = b.getVar(q);
    return [qv, b.sub(b.or(b.shl(u, by32), next), b.mul(qv, v))];
  };
  const [q1, r1] = digit(uHigh, b.shru(uLow, by32));
  const [q0, r0] = digit(r1, b.and(uLow, m32));
  c.set(rdx, b.shru(r0, shift));
  b.ret(b.or(b.shl(q1, by32), q0));
});

/** 128-bit division of DIV and IDIV r/m64: the quotient; the remainder goes to RDX. #DE where the quotient does not fit. Divisor not 0. */
export const divide128: Sub = sub(
  'divide128',
  ['i64', 'i64', 'i64', 'i32'],
  'i64',
  { faults: true },
  (c, high, low, divisor, signed) => {
    const b = c.b;
    b.if(b.eqz(signed), () => {
      c.raiseIf(b.geu(high, divisor), X.de);
      b.ret(c.call(divideUnsigned, high, low, divisor));
    });
    const sign = b.lts(high, b.i64(0));
    const [hv, lv] = [b.variable(high), b.variable(low)];
    b.if(sign, () => {
      b.setVar(lv, b.neg(low));
      b.setVar(hv, b.sub(b.neg(high), b.extu(b.ne(low, b.i64(0)))));
    });
    const negative = b.lts(divisor, b.i64(0));
    const magnitude = b.select(negative, b.neg(divisor), divisor);
    c.raiseIf(b.geu(b.getVar(hv), magnitude), X.de);
    const before = c.get(rdx);
    const q = c.call(divideUnsigned, b.getVar(hv), b.getVar(lv), magnitude);
    const r = c.get(rdx);
    const flip = b.xor(sign, negative);
    // |q| may be at most 2^63 - 1, or 2^63 where the quotient is negative.
    b.if(b.gtu(q, b.add(b.i64((1n << 63n) - 1n), b.extu(flip))), () => {
      c.set(rdx, before);
      c.raise(X.de);
    });
    c.set(rdx, b.select(sign, b.neg(r), r));
    b.ret(b.select(flip, b.neg(q), q));
  },
);
