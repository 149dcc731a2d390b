// FXSAVE, FXRSTOR and the XSAVE family over the components x87, SSE, AVX and PKRU (Intel SDM volume 1, sections 10.5 and 13.1 to 13.12).
// FCS and FDS are not kept and stored as zero (CPUID.7.0:EBX[13]); there are no supervisor components, so IA32_XSS is zero. The
// optimisation for unmodified state, which software cannot rely on, is not made; that for the initial state is.

import type { Value } from '../../../ir/ir.ts';
import { writePkru } from '../control.ts';
import type { Emit, InsnEmit, Operand } from '../emit.ts';
import { probeRead, probeWrite } from '../memory.ts';
import { insn, type Row, type RowOptions } from '../row.ts';
import {
  cpl, cr0, cr4, fpCw, fpDp, fpIp, fpOpcode, fpr, fpSw, fpTop, fpValid, mxcsr, pkru, R, X, xcr0, xmm, ymmHigh,
} from '../state.ts'; // biome-ignore format: one list
import { type Sub, sub } from '../sub.ts';
import { zeroVec } from './sse.ts';
import { MXCSR_MASK, MXCSR_RESET } from './sse-math.ts';
import { initialise, setControl, setStatus } from './x87-control.ts';
import { statusWord } from './x87-stack.ts';

/** Places in the area; of PKRU, where the format is the standard one. */
export const At = {
  cw: 0,
  sw: 2,
  tags: 4,
  opcode: 6,
  ip: 8,
  dp: 16,
  mxcsr: 24,
  mask: 28,
  st: 32,
  xmm: 160,
  header: 512,
  comp: 520,
  avx: 576,
  pkru: 2688,
} as const;
/** State components, bits of XCR0, XSTATE_BV and XCOMP_BV. */
const X87 = 1;
const SSE = 2;
const AVX = 4;
const PKRU = 0x200;
const AVX_BYTES = 256;
/** How an instruction was encoded: bits of the subroutines' parameter `how`. REX.W; 64-bit mode. */
const WIDE = 1;
const LONG = 2;
const COMPACT = 1n << 63n;

const at = (c: Emit, address: Value, offset: number): Value => c.b.add(address, c.b.i64(offset));
const has = (c: Emit, bits: Value, mask: number): Value => c.b.and(bits, c.b.i32(mask));

// -- the components

/** Host address of x87 register ST(i). */
function stAddress(c: Emit, i: number): Value {
  const b = c.b;
  const n = b.and(b.add(c.get(fpTop), b.i32(i)), b.i32(7));
  return b.add(b.env, b.mul(n, b.i32(fpr[1]!.mant.offset - fpr[0]!.mant.offset)));
}

/** (address, how): x87 state. */
const saveX87: Sub = sub('xsave.x87', ['i64', 'i32'], null, { faults: true }, (c, address, how) => {
  const b = c.b;
  b.store('i32.16u', at(c, address, At.cw), c.get(fpCw));
  b.store('i32.16u', at(c, address, At.sw), statusWord(c));
  b.store('i32.16u', at(c, address, At.tags), c.get(fpValid));
  b.store('i32.16u', at(c, address, At.opcode), c.get(fpOpcode));
  for (const [slot, place] of [[fpIp, At.ip], [fpDp, At.dp]] as const) {
    const pointer = c.get(slot);
    b.store('i64', at(c, address, place), b.select(has(c, how, WIDE), pointer, b.and(pointer, b.i64(0xffffffff))));
  } // biome-ignore format: pairs
  for (let i = 0; i < 8; i++) {
    const from = stAddress(c, i);
    b.store('i64', at(c, address, At.st + 16 * i), b.raw('i64', from, fpr[0]!.mant.offset));
    b.store('i64', at(c, address, At.st + 16 * i + 8), b.raw('i64.16u', from, fpr[0]!.exp.offset));
  }
  b.ret();
});
const loadX87: Sub = sub('xrstor.x87', ['i64', 'i32'], null, { faults: true }, (c, address, how) => {
  const b = c.b;
  const word = (place: number): Value => b.load('i32.16u', at(c, address, place));
  setControl(c, word(At.cw));
  setStatus(c, word(At.sw));
  c.set(fpValid, b.load('i32.8u', at(c, address, At.tags)));
  c.set(fpOpcode, b.and(word(At.opcode), b.i32(0x7ff)));
  for (const [slot, place] of [[fpIp, At.ip], [fpDp, At.dp]] as const) {
    const pointer = b.load('i64', at(c, address, place));
    c.set(slot, b.select(has(c, how, WIDE), pointer, b.and(pointer, b.i64(0xffffffff))));
  } // biome-ignore format: pairs
  for (let i = 0; i < 8; i++) {
    const to = stAddress(c, i);
    b.setRaw('i64', to, b.load('i64', at(c, address, At.st + 16 * i)), fpr[0]!.mant.offset);
    b.setRaw('i64', to, b.load('i64.16u', at(c, address, At.st + 16 * i + 8)), fpr[0]!.exp.offset);
  }
  b.ret();
});
const initX87: Sub = sub('xrstor.init_x87', [], null, {}, (c) => {
  c.do(initialise);
  for (const { mant, exp } of fpr) {
    c.set(mant, c.b.i64(0));
    c.set(exp, c.b.i64(0));
  }
  c.b.ret();
});

/** Sixteen vector registers, or eight outside 64-bit mode, from and to consecutive places. */
interface Bank {
  readonly save: Sub;
  readonly load: Sub;
  readonly init: Sub;
}
function bank(name: string, registers: typeof xmm, place: number): Bank {
  const eachOf = (c: Emit, how: Value, visit: (n: number) => void): void => {
    for (let n = 0; n < 8; n++) visit(n);
    c.b.if(has(c, how, LONG), () => {
      for (let n = 8; n < 16; n++) visit(n);
    });
    c.b.ret();
  };
  return {
    save: sub(`xsave.${name}`, ['i64', 'i32'], null, { faults: true }, (c, address, how) =>
      eachOf(c, how, (n) => c.b.store('v128', at(c, address, place + 16 * n), c.get(registers[n]!))),
    ),
    load: sub(`xrstor.${name}`, ['i64', 'i32'], null, { faults: true }, (c, address, how) =>
      eachOf(c, how, (n) => c.set(registers[n]!, c.b.load('v128', at(c, address, place + 16 * n)))),
    ),
    init: sub(`xrstor.init_${name}`, ['i32'], null, {}, (c, how) => eachOf(c, how, (n) => c.set(registers[n]!, zeroVec(c)))),
  };
}
const sseBank = bank('sse', xmm, At.xmm);
const avxBank = bank('avx', ymmHigh, At.avx);

const mxcsrValue = (c: Emit): Value => c.b.and(c.get(mxcsr), c.b.i32(MXCSR_MASK));
/** Keeps the bit above MXCSR that asks for exact flags. */
const setMxcsr = (c: Emit, value: Value): void => c.set(mxcsr, c.b.or(c.b.and(c.get(mxcsr), c.b.i32(~MXCSR_MASK)), value));
function saveMxcsr(c: Emit, address: Value): void {
  c.b.store('i32', at(c, address, At.mxcsr), mxcsrValue(c));
  c.b.store('i32', at(c, address, At.mask), c.b.i32(MXCSR_MASK));
}
/** MXCSR from the area; #GP(0) for reserved bits. */
function readMxcsr(c: Emit, address: Value): Value {
  const value = c.b.load('i32', at(c, address, At.mxcsr));
  c.gpIf(c.b.and(value, c.b.i32(~MXCSR_MASK)));
  return value;
}

/** XINUSE: the components that are not in their initial state (SDM volume 1, section 13.6); MXCSR does not count. */
export const stateInUse: Sub = sub('xsave.in_use', [], 'i32', {}, (c) => {
  const b = c.b;
  const any = (registers: typeof xmm): Value => registers.map((r) => c.get(r)).reduce((v, r) => b.op('v128.or', v, r));
  const words = [b.xor(c.get(fpCw), b.i32(0x37f)), ...[fpSw, fpTop, fpValid, fpOpcode].map((s) => c.get(s))];
  const wide = [fpIp, fpDp, ...fpr.flatMap((r) => [r.mant, r.exp])].map((s) => c.get(s));
  const x87 = b.or(b.extu(words.reduce((v, w) => b.or(v, w))), wide.reduce((v, w) => b.or(v, w))); // biome-ignore format: one value
  const sse = b.op('v128.any_true', any(xmm));
  const avx = b.op('v128.any_true', any(ymmHigh));
  const keys = b.ne(c.get(pkru), b.i32(0));
  const vectors = b.or(b.shl(sse, b.i32(1)), b.shl(avx, b.i32(2)));
  b.ret(b.or(b.or(b.ne(x87, b.i64(0)), vectors), b.shl(keys, b.i32(9))));
});

// -- FXSAVE and FXRSTOR

const fxsave: Sub = sub('fxsave', ['i64', 'i32'], null, { faults: true }, (c, address, how) => {
  const b = c.b;
  c.gpIf(b.wrap(b.and(address, b.i64(15))));
  c.do(probeWrite, address, b.i32(512), b.i32(0));
  c.do(saveX87, address, how);
  saveMxcsr(c, address);
  c.do(sseBank.save, address, how);
  b.ret();
});
const fxrstor: Sub = sub('fxrstor', ['i64', 'i32'], null, { faults: true }, (c, address, how) => {
  const b = c.b;
  c.gpIf(b.wrap(b.and(address, b.i64(15))));
  c.do(probeRead, address, b.i32(512), b.i32(0));
  setMxcsr(c, readMxcsr(c, address));
  c.do(loadX87, address, how);
  c.do(sseBank.load, address, how);
  b.ret();
});

// -- XSAVE and XRSTOR

/** (address, components to write, how, place of PKRU): the components, without header. */
const saveParts: Sub = sub(
  'xsave.parts',
  ['i64', 'i32', 'i32', 'i32'],
  null,
  { faults: true },
  (c, address, parts, how, keys) => {
    const b = c.b;
    b.if(has(c, parts, X87), () => c.do(saveX87, address, how));
    b.if(has(c, parts, SSE), () => c.do(sseBank.save, address, how));
    b.if(has(c, parts, AVX), () => c.do(avxBank.save, address, how));
    b.if(has(c, parts, PKRU), () => b.store('i64', b.add(address, b.extu(keys)), b.extu(c.get(pkru))));
    b.ret();
  },
);
/** Where PKRU lies in the compacted format of these components. */
const compactKeys = (c: Emit, layout: Value): Value =>
  c.b.select(has(c, layout, AVX), c.b.i32(At.avx + AVX_BYTES), c.b.i32(At.avx));
/** Bytes of an area with these components, PKRU at `keys`. */
const areaBytes = (c: Emit, parts: Value, keys: Value): Value => {
  const b = c.b;
  const rest = b.select(has(c, parts, AVX), b.i32(At.avx + AVX_BYTES), b.i32(At.avx));
  return b.select(has(c, parts, PKRU), b.add(keys, b.i32(8)), rest);
};

/** (address, requested components, how, optimise): XSAVE, or XSAVEOPT where `optimise` is 1. */
const xsave: Sub = sub('xsave', ['i64', 'i32', 'i32', 'i32'], null, { faults: true }, (c, address, wanted, how, optimise) => {
  const b = c.b;
  const keys = b.i32(At.pkru);
  c.do(probeWrite, address, areaBytes(c, wanted, keys), b.i32(0));
  const used = c.call(stateInUse);
  b.if(has(c, wanted, SSE | AVX), () => saveMxcsr(c, address));
  c.do(saveParts, address, b.and(wanted, b.select(optimise, used, b.i32(-1))), how, keys);
  const old = b.load('i64', at(c, address, At.header));
  const kept = b.and(old, b.not(b.extu(wanted)));
  b.store('i64', at(c, address, At.header), b.or(kept, b.extu(b.and(wanted, used))));
  b.ret();
});
/** (address, requested components, how): XSAVEC and XSAVES. */
const xsavec: Sub = sub('xsavec', ['i64', 'i32', 'i32'], null, { faults: true }, (c, address, wanted, how) => {
  const b = c.b;
  // Here an unusual MXCSR is SSE state in use.
  const unusual = b.shl(b.ne(mxcsrValue(c), b.i32(MXCSR_RESET)), b.i32(1));
  const parts = b.and(wanted, b.or(c.call(stateInUse), unusual));
  const keys = compactKeys(c, wanted);
  c.do(probeWrite, address, areaBytes(c, parts, keys), b.i32(0));
  b.if(has(c, parts, SSE), () => saveMxcsr(c, address));
  c.do(saveParts, address, parts, how, keys);
  b.store('i64', at(c, address, At.header), b.extu(parts));
  b.store('i64', at(c, address, At.comp), b.or(b.extu(wanted), b.i64(COMPACT)));
  b.ret();
});

/** (address, requested components, how, compact only): XRSTOR, or XRSTORS with 1. */
const xrstor: Sub = sub('xrstor', ['i64', 'i32', 'i32', 'i32'], null, { faults: true }, (c, address, wanted, how, strict) => {
  const b = c.b;
  const header = (i: number): Value => b.load('i64', at(c, address, At.header + 8 * i));
  const present = header(0);
  const comp = header(1);
  const enabled = c.get(xcr0);
  const compact = b.lts(comp, b.i64(0));
  const outside = (bits: Value, allowed: Value): Value => b.ne(b.and(bits, b.not(allowed)), b.i64(0));
  const mode = b.variable(b.i32(0));
  b.if(
    compact,
    () => {
      const layout = b.and(comp, b.i64(~COMPACT));
      c.gpIf(b.or(outside(layout, enabled), outside(present, layout)));
      const rest = [2, 3, 4, 5, 6, 7].map(header).reduce((v, w) => b.or(v, w));
      c.gpIf(b.ne(rest, b.i64(0)));
      b.if(b.and(wanted, b.wrap(b.and(present, b.i64(SSE)))), () => b.setVar(mode, readMxcsr(c, address)), () => b.setVar(mode, b.i32(MXCSR_RESET))); // biome-ignore format: one choice
    },
    () => {
      c.gpIf(strict);
      c.gpIf(b.or(outside(present, enabled), b.ne(b.or(comp, header(2)), b.i64(0))));
      b.if(has(c, wanted, SSE | AVX), () => b.setVar(mode, readMxcsr(c, address)));
    },
  );
  const parts = b.and(wanted, b.wrap(present));
  const keys = b.select(compact, compactKeys(c, b.wrap(comp)), b.i32(At.pkru));
  c.do(probeRead, address, areaBytes(c, parts, keys), b.i32(0));
  // The compacted format treats MXCSR as part of SSE, the standard one as needed by AVX as well.
  const withMxcsr = b.select(compact, b.i32(SSE), b.i32(SSE | AVX));
  b.if(b.and(wanted, withMxcsr), () => setMxcsr(c, b.getVar(mode)));
  const restore = (part: number, load: () => void, init: () => void): void =>
    b.if(has(c, wanted, part), () => b.if(has(c, parts, part), load, init));
  restore(X87, () => c.do(loadX87, address, how), () => c.do(initX87)); // biome-ignore format: one line each
  restore(SSE, () => c.do(sseBank.load, address, how), () => c.do(sseBank.init, how)); // biome-ignore format: one line each
  restore(AVX, () => c.do(avxBank.load, address, how), () => c.do(avxBank.init, how)); // biome-ignore format: one line each
  restore(PKRU, () => c.do(writePkru, b.load('i32', b.add(address, b.extu(keys)))), () => c.do(writePkru, b.i32(0))); // biome-ignore format: one line each
  b.ret();
});

// -- rows

const encoding = (c: InsnEmit, wide: boolean): Value => c.b.i32((wide ? WIDE : 0) | (c.long ? LONG : 0));
/** Both widths of one instruction. */
const pair = (opcode: string, name: string, options: RowOptions, build: (wide: boolean) => Row['emit']): Row[] => [
  insn(`NP ${opcode}`, `${name} M`, options, build(false)),
  insn(`NP REX.W ${opcode}`, `${name}64 M`, { ...options, mode: 'long' }, build(true)),
];
const fx = (opcode: string, name: string, target: Sub, write: boolean): Row[] =>
  pair(opcode, name, { fp: 'x87' }, (wide) => (c, m) => c.do(target, c.linear(m, 512, write), encoding(c, wide)));

/** What all of the XSAVE family checks first; gives the linear address. */
function enter(c: InsnEmit, m: Operand, write: boolean, supervisor: boolean): Value {
  const b = c.b;
  const osxsave = b.wrap(b.and(c.get(cr4), b.i64(1 << 18)));
  c.raiseIf(b.eqz(osxsave), X.ud);
  c.raiseIf(b.wrap(b.and(c.get(cr0), b.i64(8))), X.nm);
  if (supervisor) c.gpIf(c.get(cpl));
  const address = c.linear(m, At.avx, write);
  c.gpIf(b.wrap(b.and(address, b.i64(63))));
  return address;
}
/** Requested components: EAX over those enabled (all of them are in the low half). */
const requested = (c: InsnEmit): Value => c.b.and(c.reg(R.rax, 32), c.b.wrap(c.get(xcr0)));
const family = (opcode: string, name: string, target: Sub, flag: 0 | 1 | undefined, write: boolean, supervisor = false): Row[] =>
  pair(opcode, name, {}, (wide) => (c, m) => {
    const address = enter(c, m, write, supervisor);
    const last = flag === undefined ? [] : [c.b.i32(flag)];
    c.do(target, address, requested(c), encoding(c, wide), ...last);
  });

export const xsaveRows: readonly Row[] = [
  ...fx('0F AE /0m', 'fxsave', fxsave, true),
  ...fx('0F AE /1m', 'fxrstor', fxrstor, false),
  ...family('0F AE /4m', 'xsave', xsave, 0, true),
  ...family('0F AE /6m', 'xsaveopt', xsave, 1, true),
  ...family('0F C7 /4m', 'xsavec', xsavec, undefined, true),
  ...family('0F C7 /5m', 'xsaves', xsavec, undefined, true, true),
  ...family('0F AE /5m', 'xrstor', xrstor, 0, false),
  ...family('0F C7 /3m', 'xrstors', xrstor, 1, false, true),
];
