// AVX forms of the SSE instructions, derived from their rows: a VEX row runs the SSE row's `emit` once for each 128-bit half, with the
// destination read from VEX.vvvv where the instruction has three operands (Intel SDM volume 2, section 2.3; volume 1, chapter 14).

import type { Value } from '../../../ir/ir.ts';
import type { Emit, InsnEmit, Operand, VecAccess } from '../emit.ts';
import { insn, type Row, type RowOptions } from '../row.ts';
import { ymmHigh } from '../state.ts';
import { vexCrypto } from './crypto.ts';
import { highHalf, join, lowHalf, zeroVec } from './sse.ts';
import { sseCompareRows } from './sse-compare.ts';
import { sseConvertRows } from './sse-convert.ts';
import { sseFloatRows } from './sse-float.ts';
import { sseIntRows } from './sse-int.ts';
import { sseMoveRows } from './sse-move.ts';
import { sseShuffleRows } from './sse-shuffle.ts';
import { sseStringRows } from './sse-string.ts';

export const AVX: RowOptions = { fp: 'avx' };
/** The halves that an instruction works on. */
export const halvesOf = (c: InsnEmit): readonly (0 | 1)[] => (c.wide ? [0, 1] : [0]);
/** Writes one result for each half. */
export const writeAll = (c: InsnEmit, d: Operand, results: readonly Value[]): void =>
  c.writeHalves(d, results[0]!, results[1] ?? null);
/** All halves of a source, read before anything is written. */
export const readAll = (c: InsnEmit, s: Operand): Value[] => halvesOf(c).map((k) => c.readHalf(s, k));

/** The lowest lane of a vector as `access` gives it. */
export function lowPart(c: Emit, v: Value, access: VecAccess, lane = 0): Value {
  switch (access) {
    case 'v128':
      return v;
    case 'i64':
      return c.b.lane('i64x2.extract_lane', [lane], v);
    case 'f64':
      return c.b.lane('f64x2.extract_lane', [lane], v);
    case 'f32':
      return c.b.lane('f32x4.extract_lane', [lane], v);
    case 'i32.8u':
      return c.b.lane('i8x16.extract_lane_u', [lane], v);
    case 'i32.16u':
      return c.b.lane('i16x8.extract_lane_u', [lane], v);
    case 'i32':
      return c.b.lane('i32x4.extract_lane', [lane], v);
  }
}
const replace = { i64: 'i64x2', i32: 'i32x4', f64: 'f64x2', f32: 'f32x4' } as const;

/** How a row changes on its way to VEX. */
interface Form {
  /** The first source comes from VEX.vvvv. */
  readonly three: boolean;
  /** VEX.L must be 0, or is ignored. */
  readonly lanes?: 'one' | 'scalar';
  /** The source is one 128-bit count for both halves. */
  readonly count?: boolean;
  /** VEX.W where it counts. */
  readonly w?: string;
  /** Each half gives 64 bits, which make up one 128-bit result. */
  readonly narrow?: boolean;
  /** The upper half uses the immediate from this bit on. */
  readonly shift?: number;
}

const three: Form = { three: true };
const two: Form = { three: false };
/** By mnemonic; rows that match none have no derived form. */
const forms: readonly [RegExp, Form][] = [
  [/^(add|sub|mul|div|min|max)p[sd]$|^(and|andn|or|xor)p[sd]$/, three],
  [/^(add|sub|mul|div|min|max)s[sd]$/, { three: true, lanes: 'scalar' }],
  [/^(sqrt|rcp|rsqrt)p[sd]$/, two],
  [/^(sqrt|rcp|rsqrt|round)s[sd]$|^cvts(s2sd|d2ss)$|^cvtsi2s[sd]$/, { three: true, lanes: 'scalar' }],
  [/^(hadd|hsub|addsub|unpck[lh])p[sd]$/, three],
  [/^shufps$|^dpps$|^pblendw$|^palignr$|^pclmulqdq$/, three],
  [/^shufpd$|^blendpd$/, { three: true, shift: 2 }],
  [/^blendps$/, { three: true, shift: 4 }],
  [/^mpsadbw$/, { three: true, shift: 3 }],
  [/^dppd$|^insertps$|^pinsr[bwd]$/, { three: true, lanes: 'one' }],
  [/^roundp[sd]$|^cvt(dq2p[sd]|ps2dq|tps2dq|ps2pd)$/, two],
  [/^cvt(pd2ps|pd2dq|tpd2dq)$/, { three: false, narrow: true }],
  [/^pshufb$/, three],
  [/^aes(enc|dec)(last)?$/, three],
  [/^gf2p8affine/, { three: true, w: '.W1' }],
  [/^gf2p8mulb$/, { three: true, w: '.W0' }],
  [/^aes(imc|keygenassist)$/, { three: false, lanes: 'one' }],
  [/^pshuf(d|hw|lw)$|^pabs[bwd]$|^pmov[sz]x..$|^movs[lh]dup$/, two],
  [/^phminposuw$/, { three: false, lanes: 'one' }],
  [/^ps(ll|rl)[wdq]$|^psra[wd]$/, { three: true, count: true }],
  [/^p(?!blendv|test|hmin|cmp[ei]str|ext|ins|mov|shuf|abs|s[lr]l|sra|align|clmul)/, three],
];
/** Rows that read vector registers only, or write the low bits of memory: the same under VEX.128. */
const alike = /^(u?comis[sd]|cvtt?s[sd]2si|pextr[bwd]|extractps|ldmxcsr|stmxcsr|maskmovdqu|pcmp[ei]str[im])$/;

/** `66 REX.W 0F 38 17 /3r` as `VEX.66.0F38.W1 17 /3r`. */
function vexOpcode(opcode: string, lanes: string, wanted = ''): string {
  const words = opcode.split(' ');
  const prefix = words.shift()!;
  let w = wanted;
  if (words[0]!.startsWith('REX.W')) w = words.shift() === 'REX.W' ? '.W1' : '.W0';
  words.shift();
  const map = /^3[8A]$/.test(words[0]!) && words.length > 1 && /^[0-9A-F]{2}/.test(words[1]!) ? `0F${words.shift()}` : '0F';
  return `VEX.${lanes}${prefix}.${map}${w} ${words.join(' ')}`;
}

/** Source operand of half `k` of a row: whole halves, or as many bits of the source as a half needs. */
function sourceHalf(c: InsnEmit, s: Operand, k: 0 | 1, count: boolean): Operand['half'] {
  const readOnly = (): void => {
    throw new Error('Cannot write a source operand');
  };
  if (s.bits === 128) {
    const v = count ? c.readVec(s, 'v128') : c.readHalf(s, k);
    return { read: (access) => lowPart(c, v, access), write: readOnly };
  }
  const access: VecAccess = s.bits === 64 ? 'i64' : s.bits === 32 ? 'i32' : 'i32.16u';
  const bytes = s.bits / 8;
  const v = s.isMemory
    ? c.b.load(access, c.b.add(c.linear(s, 2 * bytes, false), c.b.i64(k * bytes)))
    : lowPart(c, c.readVec(s, 'v128'), access, k);
  return { read: () => v, write: readOnly };
}

function derive(row: Row, form: Form): Row {
  const [name, codes] = row.asm.split(' ') as [string, string];
  const [first, ...others] = codes.split(',').map((code) => code.replace('Wx', 'Wu'));
  const operands = [first, ...(form.three ? ['Hx'] : []), ...others].join(',');
  return insn(vexOpcode(row.opcode, form.lanes === 'one' ? '128.' : '', form.w), `v${name} ${operands}`, AVX, (c, ...all) => {
    const d = all[0]!;
    const h = form.three ? all[1]! : d;
    const rest = all.slice(form.three ? 2 : 1);
    const halves = form.lanes ? ([0] as const) : halvesOf(c);
    // Both halves of the source are read before anything is computed.
    const wide = halves.length > 1;
    const sources = wide ? halves.map((k) => sourceHalf(c, rest[0]!, k, form.count ?? false)) : [];
    const results = halves.map((k) => {
      let result: Value | undefined;
      const old = (): Value => c.readHalf(h, k);
      const target: Operand = {
        ...d,
        half: {
          read: (access) => lowPart(c, old(), access),
          write: (access, value, zero) => {
            if (access === 'v128') result = value;
            else {
              const lane = replace[access as keyof typeof replace];
              result = c.b.lane(`${lane}.replace_lane`, [0], zero ? zeroVec(c) : old(), value);
            }
          },
        },
      };
      const source: Operand = wide ? { ...rest[0]!, isMemory: false, half: sources[k]! } : rest[0]!;
      const tail = rest.slice(1).map((o): Operand => {
        if (!k || form.shift === undefined || o.from !== 'imm') return o;
        const imm = c.b.shru(c.imm(o), c.b.i32(form.shift));
        return { ...o, half: { ...sources[k]!, imm: () => imm } };
      });
      row.emit(c, target, source, ...tail);
      return result!;
    });
    if (form.narrow && wide) c.writeHalves(d, join(c, lowHalf(c, results[0]!), lowHalf(c, results[1]!)), null);
    else writeAll(c, d, results);
  });
}

function derived(row: Row): Row[] {
  if (row.options.fp !== 'sse' || row.asm.includes('Pq') || row.asm.includes('Nq') || row.asm.includes('Qq')) return [];
  const name = row.asm.split(' ')[0]!;
  if (/^ps.*Ux,Ib$/.test(row.asm)) return [];
  if (alike.test(name)) {
    const scalar = /^(u?comis|cvt)/.test(name);
    // Outside 64-bit mode VEX.W does not count.
    const narrow = sseStringRows.find((r) => r.asm === row.asm && !r.opcode.includes('REX.W')) ?? row;
    return [
      insn(vexOpcode(row.opcode, scalar ? '' : '128.'), `v${row.asm.replace('Wx', 'Wu')}`, AVX, (c, ...o) => {
        (c.long ? row : narrow).emit(c, ...o);
        if (name.startsWith('pcmp') && name.endsWith('m')) c.set(ymmHigh[0]!, zeroVec(c));
      }),
    ];
  }
  const form = forms.find(([pattern]) => pattern.test(name))?.[1];
  return form ? [derive(row, form)] : [];
}

// -- shifts by an immediate: the destination is VEX.vvvv

const shifts = sseIntRows
  .filter((row) => /^ps.* Ux,Ib$/.test(row.asm))
  .map((row) =>
    insn(vexOpcode(row.opcode, ''), `v${row.asm.split(' ')[0]} Hx,Ux,Ib`, AVX, (c, d, s, i) => {
      const results = readAll(c, s).map((v) => {
        let result: Value | undefined;
        const half = { read: () => v, write: (_: VecAccess, value: Value) => void (result = value) };
        row.emit(c, { ...s, half }, i);
        return result!;
      });
      writeAll(c, d, results);
    }),
  );

// -- moves

const whole = (c: InsnEmit, d: Operand, s: Operand): void => writeAll(c, d, readAll(c, s));
const both = (prefix: string, load: string, store: string, name: string, code: 'Wx' | 'Wu'): Row[] => [
  insn(`VEX.${prefix}.0F ${load}`, `${name} Vx,${code}`, AVX, whole),
  insn(`VEX.${prefix}.0F ${store}`, `${name} ${code},Vx`, AVX, whole),
];
/** The low 64 bits, zeros above. */
const low64 = (c: Emit, v: Value): Value => c.b.lane('i64x2.replace_lane', [0], zeroVec(c), v);
const low32 = (c: Emit, v: Value): Value => c.b.lane('i32x4.replace_lane', [0], zeroVec(c), v);
const withLow = (c: Emit, v: Value, low: Value): Value =>
  c.b.lane(`${low.type === 'i64' ? 'i64x2' : 'i32x4'}.replace_lane`, [0], v, low);
const withHigh = (c: Emit, v: Value, high: Value): Value => c.b.lane('i64x2.replace_lane', [1], v, high);

/** MOVSS and MOVSD: three registers, or memory alone. */
const scalarMoves = (prefix: string, name: string, memory: string, access: 'i32' | 'i64'): Row[] => [
  insn(`VEX.${prefix}.0F 10 /r`, `${name} Vx,Hx,Ux`, AVX, (c, d, h, s) =>
    c.writeHalves(d, withLow(c, c.readVec(h, 'v128'), c.readVec(s, access)), null),
  ),
  insn(`VEX.${prefix}.0F 11 /r`, `${name} Ux,Hx,Vx`, AVX, (c, d, h, s) =>
    c.writeHalves(d, withLow(c, c.readVec(h, 'v128'), c.readVec(s, access)), null),
  ),
  insn(`VEX.${prefix}.0F 10 /m`, `${name} Vx,${memory}`, AVX, (c, d, s) => {
    const v = c.read(s);
    c.writeHalves(d, access === 'i32' ? low32(c, v) : low64(c, v), null);
  }),
  insn(`VEX.${prefix}.0F 11 /m`, `${name} ${memory},Vx`, AVX, (c, d, s) => c.write(d, c.readVec(s, access))),
];
const halfMoves = (prefix: string, suffix: string): Row[] => [
  insn(`VEX.128.${prefix}.0F 12 /m`, `vmovl${suffix} Vx,Hx,Mq`, AVX, (c, d, h, s) => {
    const v = c.read(s);
    c.writeHalves(d, withLow(c, c.readVec(h, 'v128'), v), null);
  }),
  insn(`VEX.128.${prefix}.0F 13 /m`, `vmovl${suffix} Mq,Vx`, AVX, (c, d, s) => c.write(d, c.readVec(s, 'i64'))),
  insn(`VEX.128.${prefix}.0F 16 /m`, `vmovh${suffix} Vx,Hx,Mq`, AVX, (c, d, h, s) => {
    const v = c.read(s);
    c.writeHalves(d, withHigh(c, c.readVec(h, 'v128'), v), null);
  }),
  insn(`VEX.128.${prefix}.0F 17 /m`, `vmovh${suffix} Mq,Vx`, AVX, (c, d, s) => c.write(d, highHalf(c, c.readVec(s, 'v128')))),
];
const masks = (opcode: string, name: string, op: string, bits: number): Row =>
  insn(opcode, `${name} Gd,Ux`, AVX, (c, d, s) => {
    const parts = readAll(c, s).map((v, k) => c.b.shl(c.b.op(op, v), c.b.i32(k * bits)));
    c.write(d, parts.reduce((x, y) => c.b.or(x, y))); // biome-ignore format: one call
  });

const moveRows: readonly Row[] = [
  ...both('NP', '10', '11', 'vmovups', 'Wu'),
  ...both('66', '10', '11', 'vmovupd', 'Wu'),
  ...both('NP', '28', '29', 'vmovaps', 'Wx'),
  ...both('66', '28', '29', 'vmovapd', 'Wx'),
  ...both('66', '6F', '7F', 'vmovdqa', 'Wx'),
  ...both('F3', '6F', '7F', 'vmovdqu', 'Wu'),
  insn('VEX.F2.0F F0', 'vlddqu Vx,Mu', AVX, whole),
  insn('VEX.66.0F38 2A', 'vmovntdqa Vx,Mx', AVX, whole),
  insn('VEX.NP.0F 2B', 'vmovntps Mx,Vx', AVX, whole),
  insn('VEX.66.0F 2B', 'vmovntpd Mx,Vx', AVX, whole),
  insn('VEX.66.0F E7', 'vmovntdq Mx,Vx', AVX, whole),
  ...scalarMoves('F3', 'vmovss', 'Md', 'i32'),
  ...scalarMoves('F2', 'vmovsd', 'Mq', 'i64'),
  ...halfMoves('NP', 'ps'),
  ...halfMoves('66', 'pd'),
  insn('VEX.128.NP.0F 12 /r', 'vmovhlps Vx,Hx,Ux', AVX, (c, d, h, s) =>
    c.writeHalves(d, withLow(c, c.readVec(h, 'v128'), highHalf(c, c.readVec(s, 'v128'))), null),
  ),
  insn('VEX.128.NP.0F 16 /r', 'vmovlhps Vx,Hx,Ux', AVX, (c, d, h, s) =>
    c.writeHalves(d, withHigh(c, c.readVec(h, 'v128'), lowHalf(c, c.readVec(s, 'v128'))), null),
  ),
  insn('VEX.128.F3.0F 7E', 'vmovq Vx,Wq', AVX, (c, d, s) => c.writeHalves(d, low64(c, c.readVec(s, 'i64')), null)),
  insn('VEX.128.66.0F D6', 'vmovq Wq,Vx', AVX, (c, d, s) => {
    const v = c.readVec(s, 'i64');
    if (d.isMemory) c.writeVec(d, 'i64', v);
    else c.writeHalves(d, low64(c, v), null);
  }),
  insn('VEX.128.66.0F 6E', 'vmovd Vx,Ey', AVX, (c, d, s) => {
    const v = c.read(s);
    c.writeHalves(d, s.bits === 64 ? low64(c, v) : low32(c, v), null);
  }),
  insn('VEX.128.66.0F 7E', 'vmovd Ey,Vx', AVX, (c, d, s) => c.write(d, c.readVec(s, d.bits === 64 ? 'i64' : 'i32'))),
  insn('VEX.F2.0F 12', 'vmovddup Vx,Wu', AVX, (c, d, s) => {
    // The 128-bit form reads 64 bits of memory.
    const lows = c.wide ? readAll(c, s).map((v) => lowHalf(c, v)) : [c.readVec(s, 'i64')];
    writeAll(c, d, lows.map((v) => c.b.op('i64x2.splat', v))); // biome-ignore format: one call
  }),
  masks('VEX.NP.0F 50', 'vmovmskps', 'i32x4.bitmask', 4),
  masks('VEX.66.0F 50', 'vmovmskpd', 'i64x2.bitmask', 2),
  masks('VEX.66.0F D7', 'vpmovmskb', 'i8x16.bitmask', 16),
];

const sources = [sseMoveRows, sseCompareRows, sseConvertRows, sseFloatRows, sseIntRows, sseShuffleRows, sseStringRows, vexCrypto];
export const vexRows: readonly Row[] = [...sources.flat().flatMap(derived), ...shifts, ...moveRows];
