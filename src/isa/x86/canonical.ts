// Canonical addresses: 48 bits wide, or 57 with 5-level paging (Intel SDM volume 1, section 3.3.7.1, and volume 3, section 4.5).

import type { Value } from '../../ir/ir.ts';
import type { Emit } from './emit.ts';
import * as st from './state.ts';

/** Bit of CR4. */
const LA57 = 12;

const isExtended = (c: Emit, address: Value, wide: Value): Value => {
  const b = c.b;
  const unused = b.select(wide, b.i64(7), b.i64(16));
  return b.eq(b.shrs(b.shl(address, unused), unused), address);
};
const bit = (c: Emit, value: Value): Value => c.b.and(c.b.shru(value, c.b.i32(LA57)), c.b.i32(1));

/** 1 where an i64 is a canonical address for accesses: of 57 bits while CR4.LA57 is set, else of 48. */
export const isCanonical = (c: Emit, address: Value): Value => isExtended(c, address, bit(c, c.b.wrap(c.get(st.cr4))));

/**
 * 1 where registers take an i64 as an address: the bases of segments and descriptor tables, and model-specific registers, take 57 bits
 * wherever the processor has 5-level paging, whether it is on or not; so does INVPCID.
 */
export const fitsBase = (c: Emit, address: Value): Value =>
  isExtended(c, address, c.b.xor(bit(c, c.get(st.cr4Absent)), c.b.i32(1)));
