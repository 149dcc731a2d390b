// The check in front of floating-point instructions while CR0.EM, CR0.TS or a clear CR4.OSFXSR may forbid them
// (Intel SDM volume 3, sections 2.5 and 13.1).

import * as st from './state.ts';
import { X } from './state.ts';
import { sub } from './sub.ts';

const EM = 4;
const TS = 8;
const OSFXSR = 0x200;
const OSXSAVE = 1 << 18;

/** `unit`: a place in `units`. Raises #UD or #NM where the unit may not be used now. */
export const checkFpu = sub('checkFpu', ['i32'], null, { faults: true }, (c, unit) => {
  const b = c.b;
  const cr0 = b.wrap(c.get(st.cr0));
  const emulated = b.ne(b.and(cr0, b.i32(EM)), b.i32(0));
  // AVX does not ask for CR0.EM and CR4.OSFXSR.
  b.if(b.eq(unit, b.i32(3)), () => {
    const open = b.eq(b.and(b.wrap(c.get(st.xcr0)), b.i32(6)), b.i32(6));
    c.raiseIf(b.eqz(b.and(open, b.ne(b.and(b.wrap(c.get(st.cr4)), b.i32(OSXSAVE)), b.i32(0)))), X.ud);
    c.raiseIf(b.ne(b.and(cr0, b.i32(TS)), b.i32(0)), X.nm);
    b.ret();
  });
  b.if(
    b.eqz(unit),
    () => c.raiseIf(emulated, X.nm),
    () => c.raiseIf(emulated, X.ud),
  );
  b.if(b.eq(unit, b.i32(2)), () => c.raiseIf(b.eqz(b.and(b.wrap(c.get(st.cr4)), b.i32(OSFXSR))), X.ud));
  c.raiseIf(b.ne(b.and(cr0, b.i32(TS)), b.i32(0)), X.nm);
  b.ret();
});
