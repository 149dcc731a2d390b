// Shifts, rotates, bit tests and bit scans (Intel SDM volume 2).

import type { Value } from '../../../ir/ir.ts';
import { accessOf, type InsnEmit, type Operand, type Size, typeOf } from '../emit.ts';
import { insn, type Row } from '../row.ts';
import * as st from '../state.ts';

/** The count of a shift: masked to 5 bits, or 6 for 64-bit operands, as an i32. */
const countOf = (c: InsnEmit, size: Size, s: Operand): Value => c.b.and(c.read(s), c.b.i32(size === 64 ? 63 : 31));

/** Flags of a shift: nothing changes for a count of 0. */
function whenCounted(c: InsnEmit, count: Value, flags: () => void): void {
  if (c.flagsLive) c.b.if(c.b.ne(count, c.b.i32(0)), flags);
}

const shl = (c: InsnEmit, d: Operand, s: Operand): void => {
  const b = c.b;
  const size = d.bits as Size;
  const n = countOf(c, size, s);
  const wide = b.fit(typeOf(size), n);
  const [x, r] = c.update(d, (x) => c.truncate(b.shl(x, wide), size));
  whenCounted(c, n, () => {
    c.setZNP(size, r);
    // The last bit shifted out; for 8 and 16 bits it may lie beyond bit 31 only when it is 0.
    const carry =
      size >= 32
        ? b.and(b.wrap(b.shru(x, b.fit(typeOf(size), b.sub(b.i32(size), n)))), b.i32(1))
        : b.and(b.shru(b.shl(x, n), b.i32(size)), b.i32(1));
    c.setC(carry);
    c.setO(b.xor(carry, c.signBit(r, size)));
    c.setA(b.i32(0));
  });
};

const shr = (c: InsnEmit, d: Operand, s: Operand): void => {
  const b = c.b;
  const size = d.bits as Size;
  const n = countOf(c, size, s);
  const t = typeOf(size);
  const wide = b.fit(t, n);
  const [x, r] = c.update(d, (x) => b.shru(x, wide));
  whenCounted(c, n, () => {
    c.setZNP(size, r);
    c.setC(b.and(b.wrap(b.shru(x, b.sub(wide, b.int(t, 1)))), b.i32(1)));
    c.setO(c.signBit(x, size));
    c.setA(b.i32(0));
  });
};

const sar = (c: InsnEmit, d: Operand, s: Operand): void => {
  const b = c.b;
  const size = d.bits as Size;
  const n = countOf(c, size, s);
  const t = typeOf(size);
  const wide = b.fit(t, n);
  const extend = (x: Value): Value => (size === 64 ? x : c.signed32(x, size));
  const [x, r] = c.update(d, (x) => c.truncate(b.shrs(extend(x), wide), size));
  whenCounted(c, n, () => {
    c.setZNP(size, r);
    c.setC(b.and(b.wrap(b.shrs(extend(x), b.sub(wide, b.int(t, 1)))), b.i32(1)));
    c.setO(b.i32(0));
    c.setA(b.i32(0));
  });
};

/** ROL and ROR: 8- and 16-bit operands are repeated across 32 bits, so that the host's rotate does it. */
const rotate =
  (left: boolean) =>
  (c: InsnEmit, d: Operand, s: Operand): void => {
    const b = c.b;
    const size = d.bits as Size;
    const n = countOf(c, size, s);
    const wide = b.fit(typeOf(size), n);
    const spread = (x: Value): Value => (size === 8 ? b.mul(x, b.i32(0x01010101)) : size === 16 ? b.mul(x, b.i32(0x10001)) : x);
    const [, r] = c.update(d, (x) => c.truncate(left ? b.rotl(spread(x), wide) : b.rotr(spread(x), wide), size));
    whenCounted(c, n, () => {
      const top = c.signBit(r, size);
      const low = b.and(b.wrap(r), b.i32(1));
      if (left) {
        c.setC(low);
        c.setO(b.xor(top, low));
      } else {
        c.setC(top);
        const next = size === 64 ? b.and(b.wrap(b.shru(r, b.i64(62))), b.i32(1)) : b.and(b.shru(r, b.i32(size - 2)), b.i32(1));
        c.setO(b.xor(top, next));
      }
    });
  };

/** RCL and RCR: rotation through CF, of size + 1 bits. */
const rotateCarry =
  (left: boolean) =>
  (c: InsnEmit, d: Operand, s: Operand): void => {
    const b = c.b;
    const size = d.bits as Size;
    let n = countOf(c, size, s);
    if (size < 32) n = b.remu(n, b.i32(size + 1));
    const cf = c.cf();
    if (size < 64) {
      // Up to 33 bits fit an i64.
      const wide = b.extu(n);
      const back = b.extu(b.sub(b.i32(size + 1), n));
      const whole = (x: Value): Value => b.or(b.extu(x), b.shl(b.extu(cf), b.i64(size)));
      const turn = (x: Value): Value => {
        const w = whole(x);
        const mask = b.i64((1n << BigInt(size + 1)) - 1n);
        return b.and(left ? b.or(b.shl(w, wide), b.shru(w, back)) : b.or(b.shru(w, wide), b.shl(w, back)), mask);
      };
      const [x, r] = c.update(d, (x) => c.truncate(b.wrap(turn(x)), size));
      if (!c.flagsLive) return;
      const carry = b.wrap(b.shru(turn(x), b.i64(size)));
      const shifted = b.ne(n, b.i32(0));
      c.setC(b.select(shifted, carry, cf));
      whenCounted(c, n, () => {
        const top = c.signBit(r, size);
        c.setO(b.xor(top, left ? carry : b.and(b.shru(r, b.i32(size - 2)), b.i32(1))));
      });
      return;
    }
    const wide = b.extu(n);
    const one = b.i64(1);
    const back = b.sub(b.i64(64), wide);
    // The bits that come round skip the place of CF; a shift by 64 (count 0 or 1) must give 0.
    const turn = (x: Value): Value => {
      const c64 = b.extu(cf);
      const around = left ? b.shru(b.shru(x, one), back) : b.shl(b.shl(x, one), back);
      const moved = left ? b.shl(x, wide) : b.shru(x, wide);
      const inserted = left ? b.shl(c64, b.sub(wide, one)) : b.shl(c64, back);
      return b.select(b.eqz(n), x, b.or(b.or(moved, around), inserted));
    };
    const [x, r] = c.update(d, turn);
    whenCounted(c, n, () => {
      const carry = b.and(b.wrap(left ? b.shru(x, back) : b.shru(x, b.sub(wide, one))), b.i32(1));
      c.setC(carry);
      const top = c.signBit(r, 64);
      c.setO(b.xor(top, left ? carry : b.and(b.wrap(b.shru(r, b.i64(62))), b.i32(1))));
    });
  };

/** SHLD and SHRD. A 16-bit count above 16 is undefined; the host's CPUs rotate on, as here. */
const double =
  (left: boolean) =>
  (c: InsnEmit, d: Operand, s: Operand, k: Operand): void => {
    const b = c.b;
    const size = d.bits as Size;
    const n = countOf(c, size, k);
    const y = c.read(s);
    let carryOf: (x: Value) => Value;
    let turn: (x: Value) => Value;
    if (size === 16) {
      const wide = b.extu(n);
      const triple = (x: Value): Value => {
        const [lx, ly] = [b.extu(x), b.extu(y)];
        return left
          ? b.or(b.or(b.shl(lx, b.i64(32)), b.shl(ly, b.i64(16))), lx)
          : b.or(b.or(b.shl(lx, b.i64(32)), b.shl(ly, b.i64(16))), lx);
      };
      turn = (x) => c.truncate(b.wrap(left ? b.shru(b.shl(triple(x), wide), b.i64(32)) : b.shru(triple(x), wide)), 16);
      carryOf = (x) =>
        b.and(b.wrap(left ? b.shru(b.shl(triple(x), wide), b.i64(48)) : b.shru(triple(x), b.sub(wide, b.i64(1)))), b.i32(1));
    } else {
      const t = typeOf(size);
      const wide = b.fit(t, n);
      const back = b.sub(b.int(t, size), wide);
      turn = (x) => b.select(b.eqz(n), x, left ? b.or(b.shl(x, wide), b.shru(y, back)) : b.or(b.shru(x, wide), b.shl(y, back)));
      carryOf = (x) => b.and(b.wrap(left ? b.shru(x, back) : b.shru(x, b.sub(wide, b.int(t, 1)))), b.i32(1));
    }
    const [x, r] = c.update(d, turn);
    whenCounted(c, n, () => {
      c.setZNP(size, r);
      c.setC(carryOf(x));
      c.setO(b.xor(c.signBit(x, size), c.signBit(r, size)));
      c.setA(b.i32(0));
    });
  };

type BitOp = 'bt' | 'bts' | 'btr' | 'btc';

function changeBit(c: InsnEmit, op: BitOp, x: Value, mask: Value): Value {
  const b = c.b;
  if (op === 'bts') return b.or(x, mask);
  if (op === 'btr') return b.and(x, b.not(mask));
  return b.xor(x, mask);
}

/** BT, BTS, BTR, BTC: with a register as bit offset a memory operand is a bit string that reaches in both directions. */
const bit =
  (op: BitOp) =>
  (c: InsnEmit, d: Operand, s: Operand): void => {
    const b = c.b;
    const size = d.bits as Size;
    const t = typeOf(size);
    const offset = c.read(s);
    const n = b.and(offset, b.int(t, size - 1));
    const mask = b.shl(b.int(t, 1), n);
    const flag = (x: Value): void => c.setC(b.and(b.wrap(b.shru(x, n)), b.i32(1)));
    if (!d.isMemory || s.from === 'imm') {
      if (op === 'bt') return flag(c.read(d));
      const [x] = c.update(d, (x) => c.truncate(changeBit(c, op, x, mask), size));
      return flag(x);
    }
    const words = size === 64 ? b.shrs(offset, b.i64(6)) : b.exts(b.shrs(c.signed32(offset, size), b.i32(size === 32 ? 5 : 4)));
    const addr = c.linear(d, size / 8, op !== 'bt', b.mul(words, b.i64(size / 8)));
    const access = accessOf[size];
    if (op === 'bt') return flag(b.load(access, addr));
    if (!c.lock) {
      const x = b.load(access, addr, { forWrite: true });
      b.store(access, addr, changeBit(c, op, x, mask));
      return flag(x);
    }
    const old =
      op === 'bts'
        ? b.rmw('or', access, addr, mask)
        : op === 'btr'
          ? b.rmw('and', access, addr, c.truncate(b.not(mask), size))
          : b.rmw('xor', access, addr, mask);
    flag(old);
  };

/** BSF and BSR: a zero source sets ZF and leaves the destination as it was. */
const scan =
  (reverse: boolean) =>
  (c: InsnEmit, d: Operand, s: Operand): void => {
    const b = c.b;
    const size = d.bits as Size;
    const x = c.read(s);
    const zero = b.eqz(x);
    const r = reverse ? b.xor(b.clz(x), b.int(x.type, size === 64 ? 63 : 31)) : b.ctz(x);
    b.if(b.eqz(zero), () => c.write(d, r));
    c.setZ(zero);
  };

/** TZCNT and LZCNT. */
const count =
  (leading: boolean) =>
  (c: InsnEmit, d: Operand, s: Operand): void => {
    const b = c.b;
    const size = d.bits as Size;
    const x = c.read(s);
    const narrow = size === 16;
    const r = leading ? (narrow ? b.sub(b.clz(x), b.i32(16)) : b.clz(x)) : b.ctz(narrow ? b.or(x, b.i32(0x10000)) : x);
    c.write(d, r);
    c.setC(b.eqz(x));
    c.setZ(b.eqz(r));
  };

const popcnt = (c: InsnEmit, d: Operand, s: Operand): void => {
  const r = c.b.popcnt(c.read(s));
  c.write(d, r);
  c.flagsLogic(d.bits as Size, r);
  // PF and SF are cleared whatever the result is.
  if (c.flagsLive) c.set(st.fN, c.b.i64(1));
};

const groups: [string, number, (c: InsnEmit, d: Operand, s: Operand) => void][] = [
  ['rol', 0, rotate(true)],
  ['ror', 1, rotate(false)],
  ['rcl', 2, rotateCarry(true)],
  ['rcr', 3, rotateCarry(false)],
  ['shl', 4, shl],
  ['shr', 5, shr],
  ['sal', 6, shl],
  ['sar', 7, sar],
];

export const shiftRows: readonly Row[] = [
  ...groups.flatMap(([name, n, emit]) => [
    insn(`C0 /${n}`, `${name} Eb,Ib`, emit),
    insn(`C1 /${n}`, `${name} Ev,Ib`, emit),
    insn(`D0 /${n}`, `${name} Eb,1`, emit),
    insn(`D1 /${n}`, `${name} Ev,1`, emit),
    insn(`D2 /${n}`, `${name} Eb,CL`, emit),
    insn(`D3 /${n}`, `${name} Ev,CL`, emit),
  ]),
  insn('0F A4', 'shld Ev,Gv,Ib', double(true)),
  insn('0F A5', 'shld Ev,Gv,CL', double(true)),
  insn('0F AC', 'shrd Ev,Gv,Ib', double(false)),
  insn('0F AD', 'shrd Ev,Gv,CL', double(false)),
  insn('0F A3', 'bt Ev,Gv', bit('bt')),
  insn('0F AB', 'bts Ev,Gv', { lock: true }, bit('bts')),
  insn('0F B3', 'btr Ev,Gv', { lock: true }, bit('btr')),
  insn('0F BB', 'btc Ev,Gv', { lock: true }, bit('btc')),
  insn('0F BA /4', 'bt Ev,Ibs', bit('bt')),
  insn('0F BA /5', 'bts Ev,Ibs', { lock: true }, bit('bts')),
  insn('0F BA /6', 'btr Ev,Ibs', { lock: true }, bit('btr')),
  insn('0F BA /7', 'btc Ev,Ibs', { lock: true }, bit('btc')),
  insn('0F BC', 'bsf Gv,Ev', scan(false)),
  insn('0F BD', 'bsr Gv,Ev', scan(true)),
  insn('F3 0F BC', 'tzcnt Gv,Ev', count(false)),
  insn('F3 0F BD', 'lzcnt Gv,Ev', count(true)),
  insn('F3 0F B8', 'popcnt Gv,Ev', popcnt),
];
