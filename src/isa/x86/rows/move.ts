// Data movement of integer registers: MOV, extensions, exchange, stack, conditional moves, LEA, XADD, CMPXCHG (Intel SDM volume 2).

import type { Value } from '../../../ir/ir.ts';
import { accessOf, CONDITIONS, type InsnEmit, type Operand, type Size, typeOf } from '../emit.ts';
import { splitLock, splitUnlock } from '../memory.ts';
import { insn, type Row } from '../row.ts';
import * as st from '../state.ts';
import { R } from '../state.ts';

const mov = (c: InsnEmit, d: Operand, s: Operand): void => c.write(d, c.read(s));

const extend =
  (signed: boolean) =>
  (c: InsnEmit, d: Operand, s: Operand): void => {
    const b = c.b;
    const x = c.read(s);
    const from = s.bits as Size;
    if (!signed) return c.write(d, b.fit(typeOf(d.bits as Size), x));
    if (d.bits === 64) return c.write(d, c.signed64(x, from));
    c.write(d, c.truncate(c.signed32(b.wrap(x), from), d.bits as Size));
  };

const xchg = (c: InsnEmit, d: Operand, s: Operand): void => {
  const y = c.read(s);
  if (!d.isMemory) {
    const x = c.read(d);
    c.write(d, y);
    c.write(s, x);
    return;
  }
  // XCHG with memory is atomic with or without LOCK.
  const size = d.bits as Size;
  c.write(s, c.b.rmw('xchg', accessOf[size], c.linear(d, size / 8, true), y));
};

const xadd = (c: InsnEmit, d: Operand, s: Operand): void => {
  const b = c.b;
  const size = d.bits as Size;
  const y = c.read(s);
  if (d.isMemory && c.lock) {
    const x = b.rmw('add', accessOf[size], c.linear(d, size / 8, true), y);
    const r = c.truncate(b.add(x, y), size);
    c.write(s, x);
    return c.flagsAdd(size, x, y, r, b.ltu(r, x));
  }
  if (d.isMemory) {
    const [x, r] = c.update(d, (old) => c.truncate(b.add(old, y), size));
    c.write(s, x);
    return c.flagsAdd(size, x, y, r, b.ltu(r, x));
  }
  const x = c.read(d);
  const r = c.truncate(b.add(x, y), size);
  // With one register named twice the sum stays: the destination is written last.
  c.write(s, x);
  c.write(d, r);
  c.flagsAdd(size, x, y, r, b.ltu(r, x));
};

const cmpxchg = (c: InsnEmit, d: Operand, s: Operand): void => {
  const b = c.b;
  const size = d.bits as Size;
  const acc = c.reg(R.rax, size);
  const y = c.read(s);
  if (!d.isMemory) {
    const x = c.read(d);
    const same = b.eq(x, acc);
    b.if(
      same,
      () => c.write(d, y),
      () => c.setReg(R.rax, size, x),
    );
    return c.flagsSub(size, acc, x, c.truncate(b.sub(acc, x), size), b.ltu(acc, x));
  }
  const access = accessOf[size];
  const addr = c.linear(d, size / 8, true);
  const x = c.lock
    ? b.cmpxchg(access, addr, acc, y)
    : (() => {
        const old = b.load(access, addr, { forWrite: true });
        b.store(access, addr, b.select(b.eq(old, acc), y, old));
        return old;
      })();
  b.if(b.ne(x, acc), () => c.setReg(R.rax, size, x));
  c.flagsSub(size, acc, x, c.truncate(b.sub(acc, x), size), b.ltu(acc, x));
};

/** CMPXCHG8B. */
const cmpxchg8 = (c: InsnEmit, d: Operand): void => {
  const b = c.b;
  const pair = (high: number, low: number) => b.or(b.shl(b.extu(c.reg(high, 32)), b.i64(32)), b.extu(c.reg(low, 32)));
  const expected = pair(R.rdx, R.rax);
  const value = pair(R.rcx, R.rbx);
  const addr = c.linear(d, 8, true);
  const old = c.lock
    ? b.cmpxchg('i64', addr, expected, value)
    : (() => {
        const x = b.load('i64', addr, { forWrite: true });
        b.store('i64', addr, b.select(b.eq(x, expected), value, x));
        return x;
      })();
  const same = b.eq(old, expected);
  b.if(b.eqz(same), () => {
    c.setReg(R.rax, 32, b.wrap(old));
    c.setReg(R.rdx, 32, b.wrap(b.shru(old, b.i64(32))));
  });
  c.setZ(same);
};

/**
 * CMPXCHG16B. WebAssembly has no 128-bit atomic: the board's lock is held around it, so it is atomic against other CMPXCHG16B,
 * and its halves are exchanged one after the other for everything else.
 */
const cmpxchg16 = (c: InsnEmit, d: Operand): void => {
  const b = c.b;
  const addr = c.linear(d, 16, true);
  c.gpIf(b.ne(b.and(b.wrap(addr), b.i32(15)), b.i32(0)));
  const high = b.add(addr, b.i64(8));
  b.load('i64', addr, { forWrite: true });
  if (c.lock) c.do(splitLock);
  const [rax, rdx] = [c.reg(R.rax), c.reg(R.rdx)];
  const done = b.variable(b.i32(0));
  const [oldLow, oldHigh] = [b.variable(b.i64(0)), b.variable(b.i64(0))];
  const one = (expected: Value, at: Value, value: Value) => b.cmpxchg('i64', at, expected, value);
  // Take the low half with its new value, then the high half; put the low half back where the high one differs.
  const low = one(rax, addr, c.reg(R.rbx));
  b.setVar(oldLow, low);
  b.if(
    b.eq(low, rax),
    () => {
      const h = one(rdx, high, c.reg(R.rcx));
      b.setVar(oldHigh, h);
      b.if(
        b.eq(h, rdx),
        () => b.setVar(done, b.i32(1)),
        () => b.store('i64', addr, rax),
      );
    },
    () => b.setVar(oldHigh, b.load('i64', high)),
  );
  if (c.lock) c.do(splitUnlock);
  const same = b.getVar(done);
  b.if(b.eqz(same), () => {
    c.setReg(R.rax, 64, b.getVar(oldLow));
    c.setReg(R.rdx, 64, b.getVar(oldHigh));
  });
  c.setZ(same);
};

const push = (c: InsnEmit, s: Operand): void => {
  const v = c.read(s);
  c.push(v, c.size);
};
const pop = (c: InsnEmit, d: Operand): void => {
  const { value, done } = c.pop(c.size);
  if (d.isMemory) {
    c.write(d, value);
    done();
  } else {
    // POP to the stack pointer itself: the value wins.
    done();
    c.write(d, value);
  }
};

const pusha = (c: InsnEmit): void => {
  const size = c.size;
  const bytes = size / 8;
  for (let i = 0; i < 8; i++) c.store(c.stackAddress(c.stackPointer(-bytes * (i + 1)), bytes, true), size, c.reg(i, size));
  c.setStackPointer(c.stackPointer(-bytes * 8));
};
const popa = (c: InsnEmit): void => {
  const size = c.size;
  const bytes = size / 8;
  const values = Array.from({ length: 8 }, (_, i) => c.load(c.stackAddress(c.stackPointer(bytes * i), bytes, false), size));
  c.setStackPointer(c.stackPointer(bytes * 8));
  values.forEach((v, i) => {
    if (7 - i !== R.rsp) c.setReg(7 - i, size, v);
  });
};

const enter = (c: InsnEmit, alloc: Operand, levels: Operand): void => {
  const b = c.b;
  const size = c.size;
  const bytes = size / 8;
  const level = b.and(c.imm(levels), b.i32(31));
  const frameSize = c.imm(alloc);
  const mask = c.long ? b.i64(-1) : c.get(st.spMask);
  const start = b.and(c.reg(R.rsp), mask);
  const at = (sp: Value, write: boolean) => c.stackAddress(b.and(sp, mask), bytes, write);
  const sp = b.variable(b.sub(start, b.i64(bytes)));
  c.store(at(b.getVar(sp), true), size, c.reg(R.rbp, size));
  // The frame pointer has all of ESP where the stack has 16 bits.
  const frame = c.long ? b.getVar(sp) : b.or(b.and(c.reg(R.rsp), b.xor(mask, b.i64(0xffff_ffffn))), b.and(b.getVar(sp), mask));
  b.if(b.ne(level, b.i32(0)), () => {
    const i = b.variable(b.i32(1));
    const bp = b.variable(c.reg(R.rbp));
    b.loop((again) => {
      b.if(b.ltu(b.getVar(i), level), () => {
        b.setVar(bp, b.sub(b.getVar(bp), b.i64(bytes)));
        b.setVar(sp, b.sub(b.getVar(sp), b.i64(bytes)));
        // What is copied is read before its place is looked at.
        const pointer = c.load(at(b.getVar(bp), false), size);
        c.store(at(b.getVar(sp), true), size, pointer);
        b.setVar(i, b.add(b.getVar(i), b.i32(1)));
        b.br(again);
      });
    });
    b.setVar(sp, b.sub(b.getVar(sp), b.i64(bytes)));
    c.store(at(b.getVar(sp), true), size, size === 64 ? frame : c.truncate(b.wrap(frame), size));
  });
  const end = b.sub(b.getVar(sp), b.extu(frameSize));
  // ENTER checks that a push's size could be written at the new top of the stack.
  c.load(at(end, true), size, { forWrite: true });
  c.setReg(R.rbp, size, size === 64 ? frame : c.truncate(b.wrap(frame), size));
  c.setStackPointer(end);
};
const leave = (c: InsnEmit): void => {
  const b = c.b;
  const size = c.size;
  const bp = c.long ? c.reg(R.rbp) : b.and(c.reg(R.rbp), c.get(st.spMask));
  const value = c.load(c.stackAddress(bp, size / 8, false), size);
  c.setStackPointer(b.add(bp, b.i64(size / 8)));
  c.setReg(R.rbp, size, value);
};

const bswap = (c: InsnEmit, d: Operand): void => {
  const b = c.b;
  const x = c.read(d);
  if (d.bits === 32) {
    const r = b.or(b.and(b.rotl(x, b.i32(8)), b.i32(0x00ff00ff)), b.and(b.rotr(x, b.i32(8)), b.i32(0xff00ff00)));
    return c.write(d, r);
  }
  // BSWAP of 16 bits is undefined; CPUs give zero.
  if (d.bits === 16) return c.write(d, b.i32(0));
  const m8 = b.i64(0x00ff00ff00ff00ffn);
  const m16 = b.i64(0x0000ffff0000ffffn);
  const y = b.or(b.and(b.shru(x, b.i64(8)), m8), b.shl(b.and(x, m8), b.i64(8)));
  const z = b.or(b.and(b.shru(y, b.i64(16)), m16), b.shl(b.and(y, m16), b.i64(16)));
  c.write(d, b.rotl(z, b.i64(32)));
};

/** CBW, CWDE, CDQE. */
const cbw = (c: InsnEmit): void => {
  const size = c.size;
  const half = (size / 2) as Size;
  const x = c.reg(R.rax, half);
  c.setReg(R.rax, size, size === 64 ? c.b.exts(x) : c.truncate(c.signed32(x, half), size));
};
/** CWD, CDQ, CQO. */
const cwd = (c: InsnEmit): void => {
  const b = c.b;
  const size = c.size;
  const x = c.reg(R.rax, size);
  c.setReg(R.rdx, size, size === 64 ? b.shrs(x, b.i64(63)) : c.truncate(b.shrs(c.signed32(x, size), b.i32(31)), size));
};

const cmov =
  (code: number) =>
  (c: InsnEmit, d: Operand, s: Operand): void => {
    // The source is read, and the upper half of a 32-bit destination cleared, whatever the condition says.
    const x = c.read(s);
    c.write(d, c.b.select(c.cond(code), x, c.read(d)));
  };

const xlat = (c: InsnEmit): void => {
  const b = c.b;
  const sum = b.add(c.reg(R.rbx), b.extu(c.reg(R.rax, 8)));
  const offset = c.addressSize === 64 ? sum : b.and(sum, b.i64(c.addressSize === 32 ? 0xffffffff : 0xffff));
  c.setReg(R.rax, 8, c.load(c.linearData(offset, 1, false), 8));
};

/** MOVBE: the bytes reversed on the way. */
const movbe =
  (toMemory: boolean) =>
  (c: InsnEmit, d: Operand, s: Operand): void => {
    const b = c.b;
    const x = c.read(s);
    let r: Value = x;
    if (x.type === 'i64') {
      const swap = (v: Value, n: number, m: bigint) =>
        b.or(b.and(b.shru(v, b.i64(n)), b.i64(m)), b.shl(b.and(v, b.i64(m)), b.i64(n)));
      r = b.rotl(swap(swap(x, 8, 0x00ff00ff00ff00ffn), 16, 0x0000ffff0000ffffn), b.i64(32));
    } else if ((toMemory ? s : d).bits === 16) r = c.truncate(b.or(b.shru(x, b.i32(8)), b.shl(x, b.i32(8))), 16);
    else r = b.or(b.and(b.rotl(x, b.i32(8)), b.i32(0x00ff00ff)), b.and(b.rotr(x, b.i32(8)), b.i32(0xff00ff00)));
    c.write(d, r);
  };

const hex = (n: number): string => n.toString(16).toUpperCase();
const nothing = (): void => {};

export const moveRows: readonly Row[] = [
  insn('88', 'mov Eb,Gb', mov),
  insn('89', 'mov Ev,Gv', mov),
  insn('8A', 'mov Gb,Eb', mov),
  insn('8B', 'mov Gv,Ev', mov),
  insn('A0', 'mov AL,Ob', mov),
  insn('A1', 'mov rAX,Ov', mov),
  insn('A2', 'mov Ob,AL', mov),
  insn('A3', 'mov Ov,rAX', mov),
  insn('B0+r', 'mov Zb,Ib', mov),
  insn('B8+r', 'mov Zv,Iv', mov),
  insn('C6 /0', 'mov Eb,Ib', mov),
  insn('C7 /0', 'mov Ev,Iz', mov),
  insn('0F B6', 'movzx Gv,Eb', extend(false)),
  insn('0F B7', 'movzx Gv,Ew', extend(false)),
  insn('0F BE', 'movsx Gv,Eb', extend(true)),
  insn('0F BF', 'movsx Gv,Ew', extend(true)),
  insn('63', 'movsxd Gv,Ez', { mode: 'long' }, extend(true)),
  insn('8D', 'lea Gv,M', (c, d, s) => {
    const ea = c.effective(s);
    c.write(d, d.bits === 64 ? ea : c.truncate(c.b.wrap(ea), d.bits as Size));
  }),
  insn('86', 'xchg Eb,Gb', { lock: true }, xchg),
  insn('87', 'xchg Ev,Gv', { lock: true }, xchg),
  insn('90+r', 'xchg Zv,rAX', xchg),
  insn('0F C0', 'xadd Eb,Gb', { lock: true }, xadd),
  insn('0F C1', 'xadd Ev,Gv', { lock: true }, xadd),
  insn('0F B0', 'cmpxchg Eb,Gb', { lock: true }, cmpxchg),
  insn('0F B1', 'cmpxchg Ev,Gv', { lock: true }, cmpxchg),
  insn('REX.W0 0F C7 /1m', 'cmpxchg8b Mq', { lock: true }, cmpxchg8),
  insn('REX.W 0F C7 /1m', 'cmpxchg16b Mdq', { lock: true }, cmpxchg16),
  insn('50+r', 'push Zv', { size: 'd64' }, push),
  insn('58+r', 'pop Zv', { size: 'd64' }, pop),
  insn('FF /6', 'push Ev', { size: 'd64' }, push),
  insn('8F /0', 'pop Ev', { size: 'd64' }, pop),
  insn('68', 'push Iz', { size: 'd64' }, push),
  insn('6A', 'push Ibs', { size: 'd64' }, push),
  insn('60', 'pusha rAX', { mode: 'legacy' }, pusha),
  insn('61', 'popa rAX', { mode: 'legacy' }, popa),
  insn('C8', 'enter Iw,Ib', { size: 'd64' }, enter),
  insn('C9', 'leave', { size: 'd64' }, leave),
  insn('0F C8+r', 'bswap Zv', bswap),
  insn('98', 'cbw rAX', cbw),
  insn('99', 'cwd rAX', cwd),
  insn('D6', 'salc AL', { mode: 'legacy' }, (c, d) => c.write(d, c.truncate(c.b.neg(c.cf()), 8))),
  insn('D7', 'xlat', xlat),
  ...['NP', '66'].flatMap((prefix) => [
    insn(`${prefix} 0F 38 F0`, 'movbe Gv,Mv', movbe(false)),
    insn(`${prefix} 0F 38 F1`, 'movbe Mv,Gv', movbe(true)),
  ]),
  insn('0F 1F', 'nop Ev', nothing),
  ...[0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e].map((n) => insn(`0F ${hex(n)}`, 'nop Ev', nothing)),
  ...CONDITIONS.map((name, code) => insn(`0F 4${hex(code)}`, `cmov${name} Gv,Ev`, cmov(code))),
  ...CONDITIONS.map((name, code) => insn(`0F 9${hex(code)}`, `set${name} Eb`, (c, d) => c.write(d, c.cond(code)))),
];
