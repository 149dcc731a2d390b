// SSE moves: aligned, unaligned, scalar, half, duplicated, masked and non-temporal (Intel SDM volume 2), and MXCSR.

import type { Value } from '../../../ir/ir.ts';
import type { InsnEmit, Operand } from '../emit.ts';
import { insn, type Row } from '../row.ts';
import { mxcsr, R } from '../state.ts';
import { sub } from '../sub.ts';
import { bytes, highHalf, lanes32, lowHalf, MMX, mmxCheck, mmxEnter, mmxWrite, SSE, shuffle } from './sse.ts';
import { MXCSR_MASK } from './sse-math.ts';

const whole = (c: InsnEmit, d: Operand, s: Operand): void => c.writeVec(d, 'v128', c.readVec(s, 'v128'));
/** A scalar: between registers the rest of the destination stays, from memory it becomes zero. */
const scalar =
  (type: 'i32' | 'i64') =>
  (c: InsnEmit, d: Operand, s: Operand): void =>
    c.writeVec(d, type, c.readVec(s, type), s.isMemory);
/** The low 64 bits, zeros above. */
const moveQuad = (c: InsnEmit, d: Operand, s: Operand): void => c.writeVec(d, 'i64', c.readVec(s, 'i64'), true);

/** Both directions of a move of whole registers. */
const moves = (prefix: string, load: string, store: string, name: string, memory: 'Wx' | 'Wu'): Row[] => [
  insn(`${prefix} 0F ${load}`, `${name} Vx,${memory}`, SSE, whole),
  insn(`${prefix} 0F ${store}`, `${name} ${memory},Vx`, SSE, whole),
];
/** Moves of one half of a register and 64 bits of memory. */
const halves = (prefix: string, suffix: string): Row[] => [
  insn(`${prefix} 0F 12`, `movl${suffix} Vx,Mq`, SSE, (c, d, s) => c.writeVec(d, 'i64', c.read(s))),
  insn(`${prefix} 0F 13`, `movl${suffix} Mq,Vx`, SSE, (c, d, s) => c.write(d, c.readVec(s, 'i64'))),
  insn(`${prefix} 0F 16`, `movh${suffix} Vx,Mq`, SSE, (c, d, s) => {
    const high = c.read(s);
    c.writeVec(d, 'v128', c.b.lane('i64x2.replace_lane', [1], c.readVec(d, 'v128'), high));
  }),
  insn(`${prefix} 0F 17`, `movh${suffix} Mq,Vx`, SSE, (c, d, s) => c.write(d, highHalf(c, c.readVec(s, 'v128')))),
];
/** Shuffles of one operand. */
const duplicate = (opcode: string, name: string, size: number, order: readonly number[]): Row =>
  insn(opcode, `${name} Vx,Wx`, SSE, (c, d, s) => {
    const x = c.readVec(s, 'v128');
    c.writeVec(d, 'v128', shuffle(c, bytes(size, order), x, x));
  });

/** (address, data, mask): stores the bytes whose mask byte has its sign bit set, lowest first. */
const maskedStore = sub('sse.masked_store', ['i64', 'v128', 'v128'], null, { faults: true }, (c, address, data, mask) => {
  const b = c.b;
  const chosen = b.op('i8x16.bitmask', mask);
  /** Runs `body` for the number of each byte that the mask names. */
  const forBytes = (body: (place: Value) => void): void => {
    const left = b.variable(chosen);
    b.loop((again) => {
      const bits = b.getVar(left);
      b.if(bits, () => {
        body(b.ctz(bits));
        b.setVar(left, b.and(bits, b.sub(bits, b.i32(1))));
        b.br(again);
      });
    });
  };
  // What cannot be written faults before anything is, where there may be two pages.
  b.if(b.gtu(b.and(b.wrap(address), b.i32(0xfff)), b.i32(0xff0)), () =>
    forBytes((place) => void b.load('i32.8u', b.add(address, b.extu(place)), { forWrite: true })),
  );
  forBytes((place) => {
    const value = b.lane('i8x16.extract_lane_u', [0], b.op('i8x16.swizzle', data, b.op('i8x16.splat', place)));
    b.store('i32.8u', b.add(address, b.extu(place)), value);
  });
  b.ret();
});
/** DS:rDI (or an override's segment), cut to the address size. */
function destination(c: InsnEmit, size: number): Value {
  const b = c.b;
  const rdi = c.reg(R.rdi);
  const offset = c.addressSize === 64 ? rdi : b.and(rdi, b.i64(c.addressSize === 32 ? 0xffffffff : 0xffff));
  return c.linearData(offset, size, true);
}

/** Moves of MMX registers. */
const mmxMoveRows: readonly Row[] = [
  insn('NP 0F 6E', 'movd Pq,Ey', MMX, (c, d, s) => {
    mmxCheck(c);
    mmxWrite(c, d, c.b.extu(c.read(s)));
  }),
  insn('NP 0F 7E', 'movd Ey,Pq', MMX, (c, d, s) => {
    mmxCheck(c);
    c.write(d, c.b.fit(d.bits === 64 ? 'i64' : 'i32', c.readVec(s, 'i64')));
    mmxEnter(c);
  }),
  ...(['Pq,Qq', 'Qq,Pq'] as const).map((operands) =>
    insn(`NP 0F ${operands[0] === 'P' ? '6F' : '7F'}`, `movq ${operands}`, MMX, (c, d, s) => {
      mmxCheck(c);
      mmxWrite(c, d, c.readVec(s, 'i64'));
    }),
  ),
  insn('NP 0F E7', 'movntq Mq,Pq', MMX, (c, d, s) => {
    mmxCheck(c);
    c.write(d, c.readVec(s, 'i64'));
    mmxEnter(c);
  }),
  insn('NP 0F D7', 'pmovmskb Gd,Nq', MMX, (c, d, s) => {
    mmxCheck(c);
    const x = c.b.lane('i64x2.replace_lane', [0], lanes32(c, 0), c.readVec(s, 'i64'));
    c.write(d, c.b.op('i8x16.bitmask', x));
    mmxEnter(c);
  }),
  insn('NP 0F F7', 'maskmovq Pq,Nq', MMX, (c, d, s) => {
    mmxCheck(c);
    const half = (o: Operand): Value => c.b.lane('i64x2.replace_lane', [0], lanes32(c, 0), c.readVec(o, 'i64'));
    c.do(maskedStore, destination(c, 8), half(d), half(s));
    mmxEnter(c);
  }),
];

export const sseMoveRows: readonly Row[] = [
  ...mmxMoveRows,
  ...moves('NP', '10', '11', 'movups', 'Wu'),
  ...moves('66', '10', '11', 'movupd', 'Wu'),
  ...moves('NP', '28', '29', 'movaps', 'Wx'),
  ...moves('66', '28', '29', 'movapd', 'Wx'),
  ...moves('66', '6F', '7F', 'movdqa', 'Wx'),
  ...moves('F3', '6F', '7F', 'movdqu', 'Wu'),
  insn('F2 0F F0', 'lddqu Vx,Mu', SSE, whole),
  insn('66 0F 38 2A', 'movntdqa Vx,Mx', SSE, whole),
  insn('NP 0F 2B', 'movntps Mx,Vx', SSE, whole),
  insn('66 0F 2B', 'movntpd Mx,Vx', SSE, whole),
  insn('66 0F E7', 'movntdq Mx,Vx', SSE, whole),
  insn('NP 0F C3', 'movnti My,Gy', (c, d, s) => c.write(d, c.read(s))),
  insn('F3 0F 10', 'movss Vx,Wd', SSE, scalar('i32')),
  insn('F3 0F 11', 'movss Wd,Vx', SSE, (c, d, s) => c.writeVec(d, 'i32', c.readVec(s, 'i32'))),
  insn('F2 0F 10', 'movsd Vx,Wq', SSE, scalar('i64')),
  insn('F2 0F 11', 'movsd Wq,Vx', SSE, (c, d, s) => c.writeVec(d, 'i64', c.readVec(s, 'i64'))),
  insn('F3 0F 7E', 'movq Vx,Wq', SSE, moveQuad),
  insn('66 0F D6', 'movq Wq,Vx', SSE, moveQuad),
  insn('66 0F 6E', 'movd Vx,Ey', SSE, (c, d, s) => c.writeVec(d, s.bits === 64 ? 'i64' : 'i32', c.read(s), true)),
  insn('66 0F 7E', 'movd Ey,Vx', SSE, (c, d, s) => c.write(d, c.readVec(s, d.bits === 64 ? 'i64' : 'i32'))),
  ...halves('NP', 'ps'),
  ...halves('66', 'pd'),
  insn('NP 0F 12', 'movhlps Vx,Ux', SSE, (c, d, s) => c.writeVec(d, 'i64', highHalf(c, c.readVec(s, 'v128')))),
  insn('NP 0F 16', 'movlhps Vx,Ux', SSE, (c, d, s) => {
    const low = c.readVec(s, 'i64');
    c.writeVec(d, 'v128', c.b.lane('i64x2.replace_lane', [1], c.readVec(d, 'v128'), low));
  }),
  duplicate('F3 0F 12', 'movsldup', 4, [0, 0, 2, 2]),
  duplicate('F3 0F 16', 'movshdup', 4, [1, 1, 3, 3]),
  insn('F2 0F 12', 'movddup Vx,Wq', SSE, (c, d, s) => c.writeVec(d, 'v128', c.b.op('i64x2.splat', c.readVec(s, 'i64')))),
  insn('NP 0F 50', 'movmskps Gd,Ux', SSE, (c, d, s) => c.write(d, c.b.op('i32x4.bitmask', c.readVec(s, 'v128')))),
  insn('66 0F 50', 'movmskpd Gd,Ux', SSE, (c, d, s) => c.write(d, c.b.op('i64x2.bitmask', c.readVec(s, 'v128')))),
  insn('66 0F D7', 'pmovmskb Gd,Ux', SSE, (c, d, s) => c.write(d, c.b.op('i8x16.bitmask', c.readVec(s, 'v128')))),
  insn('66 0F F7', 'maskmovdqu Vx,Ux', SSE, (c, d, s) =>
    c.do(maskedStore, destination(c, 16), c.readVec(d, 'v128'), c.readVec(s, 'v128')),
  ),
  insn('F3 0F D6', 'movq2dq Vx,Nq', SSE, (c, d, s) => {
    mmxCheck(c);
    mmxEnter(c);
    c.writeVec(d, 'i64', c.readVec(s, 'i64'), true);
  }),
  insn('F2 0F D6', 'movdq2q Pq,Ux', SSE, (c, d, s) => {
    mmxCheck(c);
    mmxWrite(c, d, lowHalf(c, c.readVec(s, 'v128')));
  }),
  insn('NP 0F AE /2m', 'ldmxcsr Md', SSE, (c, s) => {
    const b = c.b;
    const value = c.read(s);
    c.gpIf(b.and(value, b.i32(~MXCSR_MASK)));
    // The bit above MXCSR that asks for exact flags stays.
    c.set(mxcsr, b.or(b.and(c.get(mxcsr), b.i32(~MXCSR_MASK)), value));
  }),
  insn('NP 0F AE /3m', 'stmxcsr Md', SSE, (c, d) => c.write(d, c.b.and(c.get(mxcsr), c.b.i32(MXCSR_MASK)))),
];
