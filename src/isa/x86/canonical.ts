// Canonical addresses: 48 bits wide, or 57 with 5-level paging (Intel SDM volume 1, section 3.3.7.1, and volume 3, section 4.5).

import type { Value } from '../../ir/ir.ts';
import type { Insn } from './decode.ts';
import type { Emit } from './emit.ts';
import * as st from './state.ts';
import { Ctx } from './state.ts';

/** Bit of CR4. */
const LA57 = 12;

const isExtended = (c: Emit, address: Value, wide: Value): Value => {
  const b = c.b;
  const unused = b.select(wide, b.i64(7), b.i64(16));
  return b.eq(b.shrs(b.shl(address, unused), unused), address);
};
const bit = (c: Emit, value: Value): Value => c.b.and(c.b.shru(value, c.b.i32(LA57)), c.b.i32(1));

/** log2 of the bytes from which a displacement of a near branch counts as long. */
const LONG_BRANCH = 24;
/** log2 of the bytes beside the edge of the canonical addresses in which no region begins: a long branch, and as far as a region reaches. */
const EDGE = LONG_BRANCH + 1;
/** What the page numbers (in units of the edge) of its last part are, of 48 and of 57 bits. */
const edges = [47, 56].map((bits) => 2n ** BigInt(bits - EDGE) - 1n);

/** Their upper halves. */
const edgesHigh = edges.map((edge) => Number(edge >> BigInt(32 - EDGE)));

/** Whether the displacement of a near branch is so long that its target may not be canonical from anywhere but beside the edge. */
export const isLongBranch = (insn: Insn): boolean =>
  insn.row.relative && (insn.immLow + (1 << LONG_BRANCH)) >>> 0 >= 2 << LONG_BRANCH;

/**
 * The bit of `ctx` under which 64-bit code at an address is decoded besides those of the vCPU: `Ctx.limited` beside the edge of the canonical
 * addresses, where any near branch may lead over it, else 0. Elsewhere only long ones may (`isLongBranch`), by the displacement alone.
 */
export function edgeContext(address: bigint): number {
  return edgeContextAt(Number(address & 0xffffffffn) | 0, Number(address >> 32n) | 0);
}
/** The same of an address in two halves, for who asks often. */
export function edgeContextAt(low: number, high: number): number {
  const sign = high >> 31;
  // All bits from the edge's on in the lower half are ones, or zeros below 0.
  if ((low ^ sign) >>> EDGE !== -1 >>> EDGE) return 0;
  return edgesHigh.includes(high ^ sign) ? Ctx.limited : 0;
}
/** The same in IR. */
export function edgeContextOf(c: Emit, address: Value): Value {
  const b = c.b;
  const n = b.xor(b.shrs(address, b.i64(EDGE)), b.shrs(address, b.i64(63)));
  const [near, far] = edges.map((edge) => b.eq(n, b.i64(edge)));
  return b.shl(b.or(near!, far!), b.i32(Math.log2(Ctx.limited)));
}

/** 1 where an i64 is a canonical address for accesses: of 57 bits while CR4.LA57 is set, else of 48. */
export const isCanonical = (c: Emit, address: Value): Value => isExtended(c, address, bit(c, c.b.wrap(c.get(st.cr4))));

/**
 * 1 where registers take an i64 as an address: the bases of segments and descriptor tables, and model-specific registers, take 57 bits
 * wherever the processor has 5-level paging, whether it is on or not; so does INVPCID.
 */
export const fitsBase = (c: Emit, address: Value): Value =>
  isExtended(c, address, c.b.xor(bit(c, c.get(st.cr4Absent)), c.b.i32(1)));
