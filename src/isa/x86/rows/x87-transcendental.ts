// x87 transcendental instructions (Intel SDM volume 2: F2XM1, FCOS, FPATAN, FPTAN, FSIN, FSINCOS, FYL2X, FYL2XP1).

import type { Value } from '../../../ir/ir.ts';
import type { Emit } from '../emit.ts';
import { BIAS, clean, constant, indefinite, isMax, parts, Sw, statusOf, TOP } from '../float80.ts';
import { insn, type Row } from '../row.ts';
import { fpSw } from '../state.ts';
import { type Sub, sub } from '../sub.ts';
import * as f80 from '../transcendental.ts';
import { finish, isFull, isValid, markValid, note, proceeds, pushOver, readSt, stackFault, wait, writeSt } from './x87-stack.ts';

const STACK_FAULT = Sw.ie | Sw.sf;

/** Sets C2 where `tooLarge` (i32) and ends the subroutine, else clears it. */
function range(c: Emit, tooLarge: Value): void {
  const { b } = c;
  const sw = b.and(c.get(fpSw), b.i32(~Sw.c2));
  c.set(fpSw, sw);
  b.if(tooLarge, () => {
    c.set(fpSw, b.or(sw, b.i32(Sw.c2)));
    b.ret();
  });
}

/** ST(0) = f(ST(0)). */
function unary(name: string, f: Sub, reduced: boolean): Sub {
  return sub(`x87.${name}`, [], null, {}, (c) => {
    const { b } = c;
    const zero = b.i32(0);
    const x = readSt(c, zero);
    if (reduced) range(c, b.and(isValid(c, zero), f80.isTooLarge(c, x)));
    const v = c.choose('v128', isValid(c, zero), () => c.call(f, x), () => indefinite(c, STACK_FAULT)); // biome-ignore format: one choice
    c.do(finish, zero, v, zero);
  });
}
/** ST(1) = f(ST(1), ST(0)), and pops. */
function popping(name: string, f: Sub): Sub {
  return sub(`x87.${name}`, [], null, {}, (c) => {
    const { b } = c;
    const [zero, one] = [b.i32(0), b.i32(1)];
    const ok = b.and(isValid(c, zero), isValid(c, one));
    const apply = (): Value => c.call(f, readSt(c, one), readSt(c, zero));
    const v = c.choose('v128', ok, apply, () => indefinite(c, STACK_FAULT));
    c.do(finish, one, v, one);
  });
}
/** ST(0) = f(ST(0)), then a push of g(the old ST(0)), whose status joins the first. */
function pushing(name: string, f: Sub, g: (c: Emit, x: Value, first: Value) => Value): Sub {
  return sub(`x87.${name}`, [], null, {}, (c) => {
    const { b } = c;
    const zero = b.i32(0);
    const x = readSt(c, zero);
    const missing = b.eqz(isValid(c, zero));
    const full = b.and(isFull(c), b.eqz(missing));
    b.if(b.or(missing, full), () => {
      c.set(fpSw, b.and(c.get(fpSw), b.i32(~Sw.c2)));
      b.if(stackFault(c, full), () => {
        writeSt(c, zero, indefinite(c, 0));
        markValid(c, zero);
        pushOver(c, indefinite(c, 0));
      });
      b.ret();
    });
    range(c, f80.isTooLarge(c, x));
    const first = c.call(f, x);
    const second = g(c, x, first);
    b.if(proceeds(c, b.or(statusOf(c, first), statusOf(c, second))), () => {
      writeSt(c, zero, clean(c, first));
      pushOver(c, clean(c, second));
    });
  });
}
/** What FPTAN pushes: 1, or the NaN that the tangent is. */
const oneOrNan = (c: Emit, _: Value, tangent: Value): Value =>
  c.b.select(isMax(c, parts(c, tangent)), tangent, constant(c, BIAS, TOP));

const subs = {
  f2xm1: unary('f2xm1', f80.exp2Minus1, false),
  fyl2x: popping('fyl2x', f80.yLog2x),
  fptan: pushing('fptan', f80.tan, oneOrNan),
  fpatan: popping('fpatan', f80.atan),
  fyl2xp1: popping('fyl2xp1', f80.yLog2xPlus1),
  fsincos: pushing('fsincos', f80.sin, (c, x) => c.call(f80.cos, x)),
  fsin: unary('fsin', f80.sin, true),
  fcos: unary('fcos', f80.cos, true),
} as const;

const row = (opcode: string, name: keyof typeof subs): Row =>
  insn(opcode, name, { fp: 'x87' }, (c) => {
    wait(c);
    note(c);
    c.do(subs[name]);
  });

export const x87TranscendentalRows: readonly Row[] = [
  row('D9 F0', 'f2xm1'),
  row('D9 F1', 'fyl2x'),
  row('D9 F2', 'fptan'),
  row('D9 F3', 'fpatan'),
  row('D9 F9', 'fyl2xp1'),
  row('D9 FB', 'fsincos'),
  row('D9 FE', 'fsin'),
  row('D9 FF', 'fcos'),
];
