// From a decoded instruction to its text, in the AT&T syntax that QEMU's monitor shows (Capstone's words). Mnemonics and operands are the rows' own;
// here is only what AT&T calls otherwise: suffixes of size, names of conversions and of far branches. GNU as manual, section "AT&T Syntax versus Intel Syntax".

import type { Insn } from './decode.ts';
import { bitsOf, type OperandSpec } from './operand.ts';
import type { RowInfo } from './table.ts';

const suffixes: Readonly<Record<number, string>> = { 8: 'b', 16: 'w', 32: 'l', 64: 'q' };
const suffix = (bits: number): string => suffixes[bits] ?? '';
const low = ['al', 'cl', 'dl', 'bl', 'spl', 'bpl', 'sil', 'dil'];
const high = ['ah', 'ch', 'dh', 'bh'];
const words = ['ax', 'cx', 'dx', 'bx', 'sp', 'bp', 'si', 'di'];
const segmentNames = ['es', 'cs', 'ss', 'ds', 'fs', 'gs'];

/** A general register's name. `rex`: the instruction has a REX prefix, which takes AH to BH away. */
function register(n: number, bits: number, rex: boolean): string {
  if (n >= 8) return `r${n}${bits === 64 ? '' : bits === 32 ? 'd' : bits === 16 ? 'w' : 'b'}`;
  if (bits === 8) return (!rex && n >= 4 ? high[n - 4] : low[n])!;
  return `${bits === 64 ? 'r' : bits === 32 ? 'e' : ''}${words[n]}`;
}

/** A number as Capstone writes it: decimal below 10. */
export function number(value: bigint): string {
  const size = value < 0n ? -value : value;
  return `${value < 0n ? '-' : ''}${size > 9n ? `0x${size.toString(16)}` : size}`;
}
/** The immediate with its sign. */
const signed = (insn: Insn, bits: number): bigint =>
  BigInt.asIntN(bits, (BigInt(insn.immHigh) << 32n) | BigInt(insn.immLow >>> 0));
/** Bytes that were widened and halves of 64 bits have their sign, as have those that count; bits have none. */
function immediate(s: OperandSpec, insn: Insn, bits: number): bigint {
  const { mnemonic } = insn.row;
  const value = signed(insn, bits);
  if (/^bt[scr]?$/.test(mnemonic) || (s.immWidth === 8 && !s.signed)) return value & 0xffn;
  const counts = s.signed && !/^(and|or|xor)$/.test(mnemonic) && (s.immWidth === 8 || bits === 64);
  return counts ? value : BigInt.asUintN(bits, value);
}

/** `%fs:8(%rax, %rcx, 4)`. */
function memory(insn: Insn, segment: boolean): string {
  const bits = insn.addressSize;
  const vector = insn.row.vsib;
  const name = (n: number): string => (n === 16 ? `%${bits === 64 ? 'r' : 'e'}ip` : `%${register(n, bits, true)}`);
  const { base, index } = insn;
  const prefix = segment && insn.override >= 0 ? `%${segmentNames[insn.override]}:` : '';
  // The decoder has made the stack pointer of POP the one after it.
  const popped = insn.isMemory && base === 4 && insn.row.mnemonic === 'pop' ? insn.size / 8 : 0;
  let disp = BigInt(insn.disp - popped);
  if (base < 0 && index < 0) {
    if (insn.row.specs.some((s) => s.from === 'moffs')) disp = (BigInt(insn.dispHigh >>> 0) << 32n) | BigInt(insn.disp >>> 0);
    else if (bits < 64) disp = BigInt.asUintN(bits, disp);
    return `${prefix}${number(disp)}`;
  }
  const place = `${base < 0 ? '' : name(base)}${index < 0 ? '' : `, ${vector ? `%${insn.wide ? 'y' : 'x'}mm${index}` : name(index)}${insn.scale > 0 ? `, ${1 << insn.scale}` : ''}`}`;
  return `${prefix}${disp === 0n ? '' : number(disp)}(${place})`;
}

/** Where a near branch goes. */
function target(insn: Insn, address: bigint): string {
  const to = address + BigInt(insn.length) + signed(insn, 64);
  return `0x${BigInt.asUintN(insn.size, to).toString(16)}`;
}

/** Bits of an operand under the instruction's size. */
const widthOf = (s: OperandSpec, insn: Insn): number => bitsOf(s.width, insn.size);

/** A VEX operand of 128 bits whatever VEX.L says: of scalars, the half that is taken out or put in, the count of a shift. */
const isNarrow = (s: OperandSpec, { mnemonic, vex }: RowInfo): boolean =>
  !vex || /^v(?!p|broadcast).*s[sd]$/.test(mnemonic) || (s.code === 'Wu' && /^v(insert|extract|ps[lr][lad][wdq])/.test(mnemonic));

function operand(s: OperandSpec, insn: Insn, address: bigint): string {
  const bits = widthOf(s, insn);
  const isMemory = insn.isMemory && (s.from === 'rm' || s.from === 'moffs');
  if (isMemory) return memory(insn, true);
  if (s.from === 'one') return '$1';
  if (s.from === 'rel') return target(insn, address);
  if (s.from === 'imm2') return `$${number(BigInt(insn.imm2))}`;
  const n = {
    rm: insn.rm,
    op: insn.rm,
    reg: insn.reg,
    vvvv: insn.vvvv,
    is4: (insn.immLow >> 4) & 15,
    fixed: s.fixed,
    imm: 0,
    moffs: 0,
  }[s.from];
  switch (s.cls) {
    case 'imm':
      return `$${number(immediate(s, insn, bits))}`;
    case 'gpr':
      return `%${register(n, bits, insn.rex !== 0)}`;
    case 'xmm':
      return `%${insn.wide && bits === 128 && !isNarrow(s, insn.row) ? 'y' : 'x'}mm${n}`;
    case 'mmx':
      return `%mm${n & 7}`;
    case 'seg':
      return `%${segmentNames[n & 7] ?? '?'}`;
    case 'control':
      return `%cr${n}`;
    case 'debug':
      return `%dr${n}`;
    case 'x87':
      return `%st(${n & 7})`;
    case 'mem':
      return `%${register(n, bits, true)}`;
  }
}

/** Rows whose AT&T names have nothing to do with ours; by operand size where it counts. */
const renamed: Readonly<Record<string, string | Readonly<Record<number, string>>>> = {
  cbw: { 16: 'cbtw', 32: 'cwtl', 64: 'cltq' },
  cwd: { 16: 'cwtd', 32: 'cltd', 64: 'cqto' },
  movsxd: 'movslq',
  xlat: 'xlatb',
  loopz: 'loope',
  loopnz: 'loopne',
  fwait: 'wait',
  salc: 'salc',
  sysret: { 32: 'sysretl', 64: 'sysretq' },
};
/** Mnemonics that get the suffix of the operand size though no operand tells it. */
const sizedBare = new Set(['pushf', 'popf', 'iret', 'ret', 'retf', 'enter', 'pusha', 'popa']);
/** Integer rows without a suffix. */
const bare =
  /^(set\w+|j\w+|loop\w*|prefetch\w*|clflush\w*|clwb|invlpg|invpcid|verr|verw|bound|cmpxchg(8|16)b|f?xsave\w*|f?xrstor\w*|ldmxcsr|stmxcsr|int\d?|aam|aad|pause|vldmxcsr|vstmxcsr|ud[01]|arpl|salc|nop)$/;
const INTEGER = new Set(['gpr', 'imm', 'mem', 'seg', 'control', 'debug']);

/** The letters of a string instruction's operands. */
const strings: Readonly<Record<string, readonly ('si' | 'di' | 'a' | 'dx')[]>> = {
  movs: ['si', 'di'],
  cmps: ['di', 'si'],
  stos: ['a', 'di'],
  lods: ['si', 'a'],
  scas: ['di', 'a'],
  ins: ['dx', 'di'],
  outs: ['si', 'dx'],
};

function stringText(name: string, bits: number, insn: Insn): string {
  const at = (n: number): string => `(%${register(n, insn.addressSize, true)})`;
  const parts = strings[name]!.map((part) => {
    if (part === 'si') return `${insn.override >= 0 ? `%${segmentNames[insn.override]}:` : ''}${at(6)}`;
    if (part === 'di') return insn.addressSize === 64 ? at(7) : `%es:${at(7)}`;
    return part === 'dx' ? '%dx' : `%${register(0, bits, true)}`;
  });
  return `${name}${suffix(bits)} ${parts.join(', ')}`;
}

/** Size of the operation as the operands tell it, 0 where none does. */
function sizeOf(specs: readonly OperandSpec[], insn: Insn): number {
  const told = specs.find((s) => s.cls === 'gpr' && s.from !== 'fixed') ?? specs.find((s) => s.cls === 'gpr' || s.cls === 'mem');
  if (told) return widthOf(told, insn);
  const imm = specs.find((s) => s.cls === 'imm');
  return imm ? widthOf(imm, insn) : 0;
}

const predicates = ['eq', 'lt', 'le', 'unord', 'neq', 'nlt', 'nle', 'ord'];

/** The x87's letters: `s`, `l` and `t` for 32, 64 and 80 bits, and for 16, 32 and 64 of an integer's. */
function x87Text(mnemonic: string, insn: Insn, operands: readonly string[]): string {
  const [first] = insn.row.specs;
  if (first === undefined || first.from === 'fixed')
    return operands.length === 0 ? mnemonic : `${mnemonic} ${operands.join(', ')}`;
  if (insn.isMemory) {
    const plain = /^f(b|n|x|ldcw|ldenv|rstor)/.test(mnemonic);
    const integer = mnemonic.startsWith('fi');
    const letters: Readonly<Record<number, string>> = integer ? { 16: 's', 32: 'l', 64: 'll' } : { 0: 't', 32: 's', 64: 'l' };
    return `${mnemonic}${plain ? '' : (letters[widthOf(first, insn)] ?? '')} ${operands[0]}`;
  }
  const { opcode } = insn.row;
  const other = opcode === 0xdc || opcode === 0xde;
  // AT&T's assemblers have had these two the wrong way round since the first one.
  const swapped = /^(fsub|fdiv)(r?)(p?)$/.exec(mnemonic);
  const name = other && swapped ? `${swapped[1]}${swapped[2] ? '' : 'r'}${swapped[3]}` : mnemonic;
  if (opcode === 0xdc && /^f(add|mul|sub|div)/.test(name)) return `${name} %st(0), ${operands[0]}`;
  return /^fcmov/.test(name) || (other && /^fcomp?$/.test(name)) ? `${name} ${operands[0]}, %st(0)` : `${name} ${operands[0]}`;
}

/** Mnemonic and operands, without a LOCK prefix. */
function text(insn: Insn, info: RowInfo, address: bigint): string {
  const { specs } = info;
  const mnemonic = info.mnemonic.replace(/^(j|set|cmov)(n?)z$/, '$1$2e');
  const { size } = insn;
  const [, string, letter] = /^(movs|cmps|stos|lods|scas|ins|outs)([bv])$/.exec(mnemonic) ?? [];
  if (string !== undefined)
    return stringText(string, letter === 'b' ? 8 : /^(in|out)s$/.test(string) ? Math.min(size, 32) : size, insn);
  const segment = /^(push|pop)\.(..)$/.exec(mnemonic);
  if (segment) return `${segment[1]}${suffix(size)} %${segment[2]}`;
  const operands = specs.map((s) => operand(s, insn, address)).reverse();
  const join = (name: string, list: readonly string[] = operands): string =>
    list.length === 0 ? name : `${name} ${list.join(', ')}`;
  if (info.row.options.fp === 'x87' && renamed[mnemonic] === undefined) return x87Text(mnemonic, insn, operands);
  if (mnemonic === 'vzero') return insn.wide ? 'vzeroall' : 'vzeroupper';
  const compare = /^(v?cmp)([ps][sd])$/.exec(mnemonic);
  if (compare && insn.immLow >>> 0 < 8) return join(`${compare[1]}${predicates[insn.immLow]}${compare[2]}`, operands.slice(1));
  if (/^v?cvtsi2s[sd]$/.test(mnemonic)) return join(`${mnemonic}${suffix(widthOf(specs.at(-1)!, insn))}`);
  if (mnemonic === 'mov' && info.span > 1 && size === 64) return join('movabsq');
  if (mnemonic === 'xchg' && info.span > 1) operands.reverse();
  if (mnemonic === 'movzx' || mnemonic === 'movsx')
    return join(`${mnemonic.slice(0, 4)}${suffix(widthOf(specs[1]!, insn))}${suffix(size)}`);
  if (mnemonic === 'callf' || mnemonic === 'jmpf') {
    const name = `l${mnemonic.slice(0, -1)}${suffix(size)}`;
    if (insn.isMemory) return `${name} *${memory(insn, true)}`;
    const offset = BigInt.asUintN(size, signed(insn, 64));
    return `${name} $${number(BigInt(insn.imm2 & 0xffff))}, $${number(offset)}`.replace(', ', ':');
  }
  if (mnemonic === 'jcxz') return join({ 16: 'jcxz', 32: 'jecxz', 64: 'jrcxz' }[insn.addressSize]!);
  if ((mnemonic === 'jmp' || mnemonic === 'call') && specs[0]!.from === 'rm') return `${mnemonic}${suffix(size)} *${operands[0]}`;
  if (mnemonic === 'call') return join(`${mnemonic}${suffix(insn.size)}`);
  if (mnemonic === 'retf') return join(`lret${suffix(size)}`);
  if (mnemonic === 'enter') return join('enter', [...operands].reverse());
  if (mnemonic === 'pusha' || mnemonic === 'popa') return `${mnemonic}${size === 16 ? 'w' : 'l'}`;
  if (sizedBare.has(mnemonic)) return join(`${mnemonic}${suffix(size)}`);
  const name = renamed[mnemonic];
  if (name !== undefined) return typeof name === 'string' ? join(name) : (name[size] ?? mnemonic);
  if (mnemonic === 'nop') return insn.isMemory ? join(`nop${suffix(size)}`) : 'nop';
  // IN and OUT move 32 bits at most; their port says nothing of it.
  if (mnemonic === 'in' || mnemonic === 'out') {
    const port = specs.findIndex((s) => s.code === 'DX' || s.code === 'Ib');
    const bits = Math.min(widthOf(specs[1 - port]!, insn), 32);
    const shown = [`%${register(0, bits, true)}`, operand(specs[port]!, insn, address)];
    return join(`${mnemonic}${suffix(bits)}`, mnemonic === 'in' ? shown.reverse() : shown);
  }
  if (/^s[gi]dt$|^l[gi]dt$/.test(mnemonic)) return join(`${mnemonic}${suffix(insn.addressSize === 64 ? 64 : size)}`);
  if (specs.some((s) => s.from === 'moffs') && insn.addressSize === 64) return join(`movabs${suffix(widthOf(specs[0]!, insn))}`);
  if (mnemonic === 'mov' && specs.some((s) => s.cls === 'seg')) {
    const bits = insn.isMemory ? 16 : size;
    const other = insn.isMemory ? memory(insn, true) : `%${register(insn.rm, bits, true)}`;
    const names = [`%${segmentNames[insn.reg & 7]}`, other];
    return join(`mov${suffix(bits)}`, specs[0]!.cls === 'seg' ? names.reverse() : names);
  }
  const integer = specs.length > 0 && specs.every((s) => INTEGER.has(s.cls));
  if (!integer || bare.test(mnemonic)) return join(mnemonic);
  return join(`${mnemonic}${suffix(sizeOf(specs, insn))}`);
}

/** The text of an instruction that was decoded at `address`: `addl $1, %eax`. */
export function instructionText(insn: Insn, address: bigint): string {
  const repeats = insn.row.row.options.rep && insn.rep !== 0;
  const compares = /^(cmps|scas)/.test(insn.row.mnemonic);
  const prefix = insn.lock ? 'lock ' : repeats ? (insn.rep === 2 ? 'repne ' : compares ? 'repe ' : 'rep ') : '';
  return `${prefix}${text(insn, insn.row, address)}`;
}
