// Integer arithmetic and logic, multiplication, division, decimal adjustment (Intel SDM volume 2; flags: volume 1, appendix A).

import type { Value } from '../../../ir/ir.ts';
import { type InsnEmit, type Operand, type Size, typeOf } from '../emit.ts';
import { insn, type Row } from '../row.ts';
import { R, X } from '../state.ts';
import { divide128, mulHighSigned, mulHighUnsigned } from '../wide.ts';

type Emit2 = (c: InsnEmit, d: Operand, s: Operand) => void;

/** A sum cut to `size`, and its carry, of operands that are zero-extended when narrower than 32 bits. */
function addition(c: InsnEmit, size: Size, x: Value, y: Value): { r: Value; carry: () => Value } {
  const b = c.b;
  const raw = b.add(x, y);
  if (size >= 32) return { r: raw, carry: () => b.ltu(raw, x) };
  return { r: c.truncate(raw, size), carry: () => b.shru(raw, b.i32(size)) };
}

const add: Emit2 = (c, d, s) => {
  const size = d.bits as Size;
  const y = c.read(s);
  const [x, r] = c.update(d, (x) => addition(c, size, x, y).r);
  c.flagsAdd(size, x, y, r, c.b.ltu(r, x));
};

const sub: Emit2 = (c, d, s) => {
  const size = d.bits as Size;
  const y = c.read(s);
  const [x, r] = c.update(d, (x) => c.truncate(c.b.sub(x, y), size));
  c.flagsSub(size, x, y, r, c.b.ltu(x, y));
};

const adc: Emit2 = (c, d, s) => {
  const b = c.b;
  const size = d.bits as Size;
  const y = c.read(s);
  const cin = c.cf();
  const wide = b.fit(typeOf(size), cin);
  const [x, r] = c.update(d, (x) => c.truncate(b.add(b.add(x, y), wide), size));
  // Carry out: the sum wrapped below x, or equals x although something was added with a carry in.
  c.flagsAdd(size, x, y, r, b.or(b.ltu(r, x), b.and(cin, b.eq(r, x))));
};

const sbb: Emit2 = (c, d, s) => {
  const b = c.b;
  const size = d.bits as Size;
  const y = c.read(s);
  const cin = c.cf();
  const wide = b.fit(typeOf(size), cin);
  const [x, r] = c.update(d, (x) => c.truncate(b.sub(b.sub(x, y), wide), size));
  c.flagsSub(size, x, y, r, b.or(b.ltu(x, y), b.and(cin, b.eq(x, y))));
};

const logic =
  (op: 'and' | 'or' | 'xor'): Emit2 =>
  (c, d, s) => {
    const y = c.read(s);
    const [, r] = c.update(d, (x) => c.b[op](x, y));
    c.flagsLogic(d.bits as Size, r);
  };

const cmp: Emit2 = (c, d, s) => {
  const size = d.bits as Size;
  const x = c.read(d);
  const y = c.read(s);
  c.flagsSub(size, x, y, c.truncate(c.b.sub(x, y), size), c.b.ltu(x, y));
};

const test: Emit2 = (c, d, s) => c.flagsLogic(d.bits as Size, c.b.and(c.read(d), c.read(s)));

const hex = (n: number): string => n.toString(16).padStart(2, '0').toUpperCase();

/** The six encodings of a two-operand operation in the first quarter of the one-byte map, and its immediate group. */
function family(name: string, n: number, emit: Emit2): Row[] {
  const at = n * 8;
  const lock = { lock: name !== 'cmp' };
  return [
    insn(hex(at), `${name} Eb,Gb`, lock, emit),
    insn(hex(at + 1), `${name} Ev,Gv`, lock, emit),
    insn(hex(at + 2), `${name} Gb,Eb`, emit),
    insn(hex(at + 3), `${name} Gv,Ev`, emit),
    insn(hex(at + 4), `${name} AL,Ib`, emit),
    insn(hex(at + 5), `${name} rAX,Iz`, emit),
    insn(`80 /${n}`, `${name} Eb,Ib`, lock, emit),
    insn(`81 /${n}`, `${name} Ev,Iz`, lock, emit),
    insn(`82 /${n}`, `${name} Eb,Ib`, { mode: 'legacy', ...lock }, emit),
    insn(`83 /${n}`, `${name} Ev,Ibs`, lock, emit),
  ];
}

const inc = (c: InsnEmit, d: Operand): void => {
  const size = d.bits as Size;
  const one = c.b.int(typeOf(size), 1);
  const [x, r] = c.update(d, (x) => c.truncate(c.b.add(x, one), size));
  const carry = c.cf();
  c.flagsAdd(size, x, one, r, carry);
};
const dec = (c: InsnEmit, d: Operand): void => {
  const size = d.bits as Size;
  const one = c.b.int(typeOf(size), 1);
  const [x, r] = c.update(d, (x) => c.truncate(c.b.sub(x, one), size));
  const carry = c.cf();
  c.flagsSub(size, x, one, r, carry);
};
const not = (c: InsnEmit, d: Operand): void => {
  c.update(d, (x) => c.truncate(c.b.not(x), d.bits as Size));
};
const neg = (c: InsnEmit, d: Operand): void => {
  const size = d.bits as Size;
  const zero = c.b.int(typeOf(size), 0);
  const [x, r] = c.update(d, (x) => c.truncate(c.b.sub(zero, x), size));
  c.flagsSub(size, zero, x, r, c.b.ne(x, zero));
};

/** CF and OF say whether the upper half of a product is significant; SF, ZF, AF, PF are undefined. */
function productFlags(c: InsnEmit, size: Size, low: Value, significant: Value): void {
  c.setZNP(size, low);
  c.setC(significant);
  c.setO(significant);
  c.setA(c.b.i32(0));
}

const mul =
  (signed: boolean) =>
  (c: InsnEmit, s: Operand): void => {
    const b = c.b;
    const size = s.bits as Size;
    const x = c.reg(R.rax, size);
    const y = c.read(s);
    if (size === 8) {
      const p = signed ? b.mul(c.signed32(x, 8), c.signed32(y, 8)) : b.mul(x, y);
      const r = c.truncate(p, 16);
      c.setReg(R.rax, 16, r);
      const low = c.truncate(r, 8);
      productFlags(c, 8, low, signed ? b.ne(c.signed32(low, 8), c.signed32(r, 16)) : b.ne(b.shru(r, b.i32(8)), b.i32(0)));
    } else if (size === 16) {
      const p = signed ? b.mul(c.signed32(x, 16), c.signed32(y, 16)) : b.mul(x, y);
      const low = c.truncate(p, 16);
      c.setReg(R.rax, 16, low);
      c.setReg(R.rdx, 16, b.shru(p, b.i32(16)));
      productFlags(c, 16, low, signed ? b.ne(c.signed32(low, 16), p) : b.ne(b.shru(p, b.i32(16)), b.i32(0)));
    } else if (size === 32) {
      const p = signed ? b.mul(b.exts(x), b.exts(y)) : b.mul(b.extu(x), b.extu(y));
      const low = b.wrap(p);
      c.setReg(R.rax, 32, low);
      c.setReg(R.rdx, 32, b.wrap(b.shru(p, b.i64(32))));
      productFlags(c, 32, low, b.ne(signed ? b.exts(low) : b.extu(low), p));
    } else {
      const low = b.mul(x, y);
      const high = signed ? mulHighSigned(c, x, y) : mulHighUnsigned(c, x, y);
      c.setReg(R.rax, 64, low);
      c.setReg(R.rdx, 64, high);
      productFlags(c, 64, low, b.ne(high, signed ? b.shrs(low, b.i64(63)) : b.i64(0)));
    }
  };

/** Two- and three-operand IMUL: the product cut to the operand's size. */
const imul = (c: InsnEmit, d: Operand, s: Operand, t: Operand): void => {
  const b = c.b;
  const size = d.bits as Size;
  const x = c.read(s);
  const y = c.read(t);
  if (size === 64) {
    const low = b.mul(x, y);
    c.write(d, low);
    if (c.flagsLive) productFlags(c, 64, low, b.ne(mulHighSigned(c, x, y), b.shrs(low, b.i64(63))));
  } else if (size === 32) {
    const p = b.mul(b.exts(x), b.exts(y));
    const low = b.wrap(p);
    c.write(d, low);
    productFlags(c, 32, low, b.ne(b.exts(low), p));
  } else {
    const p = b.mul(c.signed32(x, 16), c.signed32(y, 16));
    const low = c.truncate(p, 16);
    c.write(d, low);
    productFlags(c, 16, low, b.ne(c.signed32(low, 16), p));
  }
};

const div =
  (signed: boolean) =>
  (c: InsnEmit, s: Operand): void => {
    const b = c.b;
    const size = s.bits as Size;
    const y = c.read(s);
    c.raiseIf(b.eqz(y), X.de);
    if (size === 64) {
      // Quotient in the result, remainder in RDX; #DE on overflow.
      const low = c.reg(R.rax);
      const high = c.reg(R.rdx);
      // As a rule the dividend fits into 64 bits.
      const fits = signed ? b.and(b.eq(high, b.shrs(low, b.i64(63))), b.ne(y, b.i64(-1))) : b.eqz(high);
      b.if(
        fits,
        () => {
          const q = signed ? b.divs(low, y) : b.divu(low, y);
          c.setReg(R.rax, 64, q);
          c.setReg(R.rdx, 64, b.sub(low, b.mul(q, y)));
        },
        () => c.setReg(R.rax, 64, c.call(divide128, high, low, y, b.i32(signed ? 1 : 0))),
      );
      return;
    }
    const dividend =
      size === 8 ? b.extu(c.reg(R.rax, 16)) : b.or(b.shl(b.extu(c.reg(R.rdx, size)), b.i64(size)), b.extu(c.reg(R.rax, size)));
    let q: Value;
    let r: Value;
    if (signed) {
      const n = size === 8 ? c.signed64(b.wrap(dividend), 16) : size === 16 ? b.exts(b.wrap(dividend)) : dividend;
      const m = c.signed64(y, size);
      // The most negative dividend over -1 overflows, and must not reach the host's division.
      if (size === 32) c.raiseIf(b.and(b.eq(n, b.i64(-(2n ** 63n))), b.eq(m, b.i64(-1))), X.de);
      q = b.divs(n, m);
      r = b.sub(n, b.mul(q, m));
      c.raiseIf(b.ne(q, c.signed64(b.wrap(q), size)), X.de);
    } else {
      const m = b.extu(y);
      q = b.divu(dividend, m);
      r = b.sub(dividend, b.mul(q, m));
      c.raiseIf(b.ne(b.shru(q, b.i64(size)), b.i64(0)), X.de);
    }
    if (size === 8) c.setReg(R.rax, 16, b.or(b.and(b.wrap(q), b.i32(0xff)), b.shl(b.and(b.wrap(r), b.i32(0xff)), b.i32(8))));
    else {
      c.setReg(R.rax, size, b.wrap(q));
      c.setReg(R.rdx, size, b.wrap(r));
    }
  };

/** DAA and DAS. */
const decimal =
  (subtract: boolean) =>
  (c: InsnEmit): void => {
    const b = c.b;
    const al = c.reg(R.rax, 8);
    const cf = c.cf();
    const adjustLow = b.or(b.gtu(b.and(al, b.i32(15)), b.i32(9)), c.af());
    const adjustHigh = b.or(b.gtu(al, b.i32(0x99)), cf);
    const step = b.add(b.mul(adjustLow, b.i32(6)), b.mul(adjustHigh, b.i32(0x60)));
    const r = c.truncate(subtract ? b.sub(al, step) : b.add(al, step), 8);
    // The low adjustment alone can borrow or carry out as well.
    const lowCarry = subtract ? b.ltu(al, b.mul(adjustLow, b.i32(6))) : b.gtu(b.add(al, b.mul(adjustLow, b.i32(6))), b.i32(0xff));
    c.setReg(R.rax, 8, r);
    c.setZNP(8, r);
    c.setA(adjustLow);
    c.setC(b.or(adjustHigh, b.and(adjustLow, subtract ? lowCarry : b.and(lowCarry, adjustHigh))));
    c.setO(b.i32(0));
  };

/** AAA and AAS. */
const ascii =
  (subtract: boolean) =>
  (c: InsnEmit): void => {
    const b = c.b;
    const ax = c.reg(R.rax, 16);
    const adjust = b.or(b.gtu(b.and(ax, b.i32(15)), b.i32(9)), c.af());
    const step = b.mul(adjust, b.i32(0x106));
    const r = b.and(subtract ? b.sub(ax, step) : b.add(ax, step), b.i32(0xff0f));
    c.setReg(R.rax, 16, r);
    c.setZNP(8, c.truncate(r, 8));
    c.setO(b.i32(0));
    c.setA(adjust);
    c.setC(adjust);
  };

const aam = (c: InsnEmit, o: Operand): void => {
  const b = c.b;
  const n = c.imm(o);
  c.raiseIf(b.eqz(n), X.de);
  const al = c.reg(R.rax, 8);
  const r = b.remu(al, n);
  c.setReg(R.rax, 16, b.or(b.shl(b.divu(al, n), b.i32(8)), r));
  c.flagsLogic(8, r);
};
const aad = (c: InsnEmit, o: Operand): void => {
  const b = c.b;
  const ax = c.reg(R.rax, 16);
  const r = c.truncate(b.add(b.mul(b.shru(ax, b.i32(8)), c.imm(o)), ax), 8);
  c.setReg(R.rax, 16, r);
  c.flagsLogic(8, r);
};

/** ADCX and ADOX: an addition through one flag only. */
const addThrough =
  (flag: 'c' | 'o') =>
  (c: InsnEmit, d: Operand, s: Operand): void => {
    const b = c.b;
    const x = c.read(d);
    const y = c.read(s);
    const cin = flag === 'c' ? c.cf() : c.of();
    const r = b.add(b.add(x, y), b.fit(x.type, cin));
    const out = b.or(b.ltu(r, x), b.and(cin, b.eq(r, x)));
    c.write(d, r);
    if (flag === 'c') c.setC(out);
    else c.setO(out);
  };

const lock = { lock: true };

export const arithmeticRows: readonly Row[] = [
  ...family('add', 0, add),
  ...family('or', 1, logic('or')),
  ...family('adc', 2, adc),
  ...family('sbb', 3, sbb),
  ...family('and', 4, logic('and')),
  ...family('sub', 5, sub),
  ...family('xor', 6, logic('xor')),
  ...family('cmp', 7, cmp),
  insn('84', 'test Eb,Gb', test),
  insn('85', 'test Ev,Gv', test),
  insn('A8', 'test AL,Ib', test),
  insn('A9', 'test rAX,Iz', test),
  insn('F6 /0', 'test Eb,Ib', test),
  insn('F6 /1', 'test Eb,Ib', test),
  insn('F7 /0', 'test Ev,Iz', test),
  insn('F7 /1', 'test Ev,Iz', test),
  insn('F6 /2', 'not Eb', lock, not),
  insn('F7 /2', 'not Ev', lock, not),
  insn('F6 /3', 'neg Eb', lock, neg),
  insn('F7 /3', 'neg Ev', lock, neg),
  insn('F6 /4', 'mul Eb', mul(false)),
  insn('F7 /4', 'mul Ev', mul(false)),
  insn('F6 /5', 'imul Eb', mul(true)),
  insn('F7 /5', 'imul Ev', mul(true)),
  insn('F6 /6', 'div Eb', div(false)),
  insn('F7 /6', 'div Ev', div(false)),
  insn('F6 /7', 'idiv Eb', div(true)),
  insn('F7 /7', 'idiv Ev', div(true)),
  insn('0F AF', 'imul Gv,Ev', (c, d, s) => imul(c, d, d, s)),
  insn('69', 'imul Gv,Ev,Iz', imul),
  insn('6B', 'imul Gv,Ev,Ibs', imul),
  insn('FE /0', 'inc Eb', lock, inc),
  insn('FF /0', 'inc Ev', lock, inc),
  insn('FE /1', 'dec Eb', lock, dec),
  insn('FF /1', 'dec Ev', lock, dec),
  insn('40+r', 'inc Zv', { mode: 'legacy' }, inc),
  insn('48+r', 'dec Zv', { mode: 'legacy' }, dec),
  insn('27', 'daa', { mode: 'legacy' }, decimal(false)),
  insn('2F', 'das', { mode: 'legacy' }, decimal(true)),
  insn('37', 'aaa', { mode: 'legacy' }, ascii(false)),
  insn('3F', 'aas', { mode: 'legacy' }, ascii(true)),
  insn('D4', 'aam Ib', { mode: 'legacy' }, aam),
  insn('D5', 'aad Ib', { mode: 'legacy' }, aad),
  insn('66 0F 38 F6', 'adcx Gy,Ey', addThrough('c')),
  insn('F3 0F 38 F6', 'adox Gy,Ey', addThrough('o')),
];
