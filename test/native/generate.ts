// Random cases made from the instruction rows themselves: legal prefixes, every addressing form, values at the edges.

import { bitsOf } from '../../src/isa/x86/operand.ts';
import type { RowInfo, Tables } from '../../src/isa/x86/table.ts';
import { type Case, CODE, CODE_BYTES, DATA, EDGE, emptyState, GS_BASE, type Mode, type State } from './case.ts';
import { ALL, readsFlags, undefinedAfter } from './flags.ts';
import { edgeExtended, edgeFloat, edgeInteger, edgeVector, putEdgeVector, Random } from './random.ts';

/** Rows that are not compared, and why. */
export const excluded: readonly [RegExp, string][] = [
  [/^(int3?|int1|into|syscall|sysret|sysenter|sysexit|iret)$/, 'they enter the kernel'],
  [/^(in|out|ins[bv]|outs[bv]|cli|sti|hlt|invd|wbinvd|invlpg|invpcid|lmsw|clts|lgdt|lidt|lldt|ltr|rdmsr|wrmsr|xsetbv|swapgs|clac|stac|mov[CD]y|vmcall|vmmcall|monitor|mwait)$/, 'they are privileged, and the emulated machine has no kernel'],
  [/^(sgdt|sidt|sldt|str|smsw|verr|verw|lar|lsl|push\...|pop\...|l[defgs]s|callf|jmpf|retf|[rw][dr][fg]sbase)$/, "they show or load the host's descriptor tables and bases"],
  [/^(rdtscp?|rdpmc|rdpid|cpuid|rdrand|rdseed|xgetbv|xsave.*|xrstor.*)$/, 'their result is that of one machine or moment'],
  [/^v?r(sqrt|cp)[ps]s$/, 'each processor has its own approximation'],
  [/^(fnstenv|fnsave|fxsave(64)?)$/, 'they store the pointers to the last x87 instruction, which the emulator keeps in part'],
]; // biome-ignore format: one line of mnemonics each

export interface Generated {
  readonly case: Case;
  /** Arithmetic flags that the SDM leaves undefined at the end. */
  readonly undefinedFlags: number;
  readonly rows: readonly RowInfo[];
  /** It has jumps, so that some instructions may not be run. */
  readonly jumps: boolean;
  /** Arithmetic flags that are undefined after any of its instructions. */
  readonly everUndefined: number;
  /** Where the code may be cut: after each instruction, with the flags undefined there. */
  readonly ends: readonly { readonly at: number; readonly undefinedFlags: number }[];
}

interface Piece {
  readonly bytes: number[];
  /** Bytes of a relative displacement at the end, or 0. */
  readonly relative: number;
  readonly patches: Case['patches'];
  readonly undefinedFlags: number;
}

export interface GeneratorOptions {
  /** Rows whose opcode and text match. */
  readonly pattern?: RegExp;
  /** All unless given. */
  readonly modes?: readonly Mode[];
  /** Iterations of a loop around every case; unless given, few cases have one, of few iterations. */
  readonly loop?: number;
  /** For an AMD processor: without what it decodes otherwise than Intel's. */
  readonly amd?: boolean;
  /** Whether the processor has what a row of this mnemonic needs; all of it unless given. */
  readonly has?: (mnemonic: string) => boolean;
}

export class Generator {
  readonly #r: Random;
  readonly #rows: Readonly<Record<Mode, readonly RowInfo[]>>;
  readonly #modes: readonly Mode[];
  readonly #loop: number | undefined;
  readonly #amd: boolean;

  /** Throws where `pattern` (on mnemonics and opcodes) leaves no row. */
  constructor(tables: Tables, seed: number, options: GeneratorOptions = {}) {
    this.#r = new Random(seed);
    const pattern = options.pattern ?? /./;
    this.#loop = options.loop;
    this.#amd = options.amd ?? false;
    const usable = tables.rows.filter(
      (i) =>
        i.row.opcode !== '' &&
        pattern.test(`${i.row.opcode} ${i.row.asm}`) &&
        !isExcluded(i) &&
        (options.has?.(i.mnemonic) ?? true),
    );
    const of = (mode: 'long' | 'legacy'): RowInfo[] => usable.filter((i) => (i.row.options.mode ?? mode) === mode);
    this.#rows = { 64: of('long'), 32: of('legacy'), 16: of('legacy') };
    this.#modes = (options.modes ?? ([64, 32, 16] as const)).filter((m) => this.#rows[m].length > 0);
    if (this.#modes.length === 0) throw new Error(`Cannot generate cases: no row that can be compared matches ${pattern}`);
  }

  /** The next case. */
  next(): Generated {
    const r = this.#r;
    const mode = this.#modes.includes(64) && r.chance(0.6) ? 64 : r.pick(this.#modes);
    const state = this.#state(mode);
    const count = r.chance(0.5) ? 1 : 1 + r.below(r.chance(0.3) ? 8 : 3);
    const code: number[] = [];
    const patches: Case['patches'][number][] = [];
    const rows: RowInfo[] = [];
    const ends: Generated['ends'][number][] = [];
    const jumps: { end: number; bytes: number }[] = [];
    /** An instruction that jumps by a register or by memory was there. */
    let leaps = false;
    let undefinedFlags = 0;
    if (r.chance(0.03)) state.rip += BigInt(0x1000 - 1 - r.below(12));
    else if (r.chance(0.01)) state.rip += BigInt(CODE_BYTES - 64);
    const edge = mode === 64 && r.chance(0.02);
    if (edge) state.rip += EDGE - BigInt(CODE);
    const iterations = this.#loop ?? (r.chance(0.06) ? 2 + r.below(8) : 0);
    const room = iterations ? 46 : 60;
    for (let tries = 0; rows.length < count && tries < 40; tries++) {
      const info = r.pick(this.#rows[mode]);
      // Behind a jump, what has run before may be any of the instructions.
      const open = leaps ? ALL : jumps.length > 0 ? ends.reduce((sum, end) => sum | end.undefinedFlags, 0) : undefinedFlags;
      if (open !== 0 && readsFlags(info.mnemonic)) continue;
      // Inexact results stand alone, lest their last bit decides more; POPF takes one image that is prepared for it.
      if ((rows.length > 0 || iterations) && (this.#alone(info) || info.mnemonic === 'popf')) continue;
      const piece = this.#piece(info, mode, state, code.length, open, rows.length === 0);
      if (!piece || code.length + piece.bytes.length > room || patches.length + piece.patches.length > 15) continue;
      code.push(...piece.bytes);
      if (piece.relative > 0) jumps.push({ end: code.length, bytes: piece.relative });
      else if (/^(jmp|call|ret)/.test(info.mnemonic)) leaps = true;
      patches.push(...piece.patches);
      undefinedFlags = piece.undefinedFlags;
      rows.push(info);
      ends.push({ at: code.length, undefinedFlags });
      if (this.#alone(info)) break;
    }
    // A leap may end in the middle of an instruction, where its bytes mean another one.
    const everUndefined = leaps ? ALL : ends.reduce((sum, end) => sum | end.undefinedFlags, 0);
    if (iterations) {
      code.push(...countDown(mode, Number(state.rip), code.length));
      patches.push({ offset: COUNTER, value: BigInt(iterations) });
      undefinedFlags = 0;
      ends.splice(0, ends.length, { at: code.length, undefinedFlags });
    }
    // Jumps go to a later instruction, to the end, or (into INT3) a little beyond.
    for (const jump of jumps) {
      const to = r.chance(0.2)
        ? code.length + r.below(3)
        : r.pick([code.length, ...ends.map((end) => end.at).filter((x) => x >= jump.end)]);
      let distance = to - jump.end;
      // Those beside the edge of the canonical addresses go over it as well.
      if (edge && jump.bytes === 4 && r.chance(0.5)) distance = Number(2n ** 47n - state.rip) - jump.end + r.below(64) - 32;
      for (let i = 0; i < jump.bytes; i++) code[jump.end - jump.bytes + i] = (distance >> (8 * i)) & 0xff;
    }
    return {
      case: { mode, code: Uint8Array.from(code), state, patches },
      undefinedFlags,
      rows,
      jumps: jumps.length > 0 || leaps,
      ends,
      everUndefined,
    };
  }

  /** What a processor may round or order in another way. */
  #alone(info: RowInfo): boolean {
    return isTranscendental(info) || (this.#amd && /^v?dpp[sd]$/.test(info.mnemonic));
  }

  // -- values

  /** An address in or near the data pages. */
  #target(align: number): number {
    const r = this.#r;
    const kind = r.below(20);
    let at = 0x100 + r.below(0x3e00);
    if (kind === 0) at = 0x1000 * (1 + r.below(3)) - 1 - r.below(16);
    if (kind === 1) at = 0x4000 - r.below(24);
    if (kind === 2) at = r.pick([0x4000 + r.below(0xf00), 0x5000 - r.below(24), 0x5000 + r.below(0x100), -r.below(24)]);
    return DATA + (r.chance(0.85) ? Math.floor(at / align) * align : at);
  }

  #state(mode: Mode): State {
    const r = this.#r;
    const s = emptyState(mode);
    for (let i = 0; i < 16; i++) {
      const pointer = [3, 4, 5, 6, 7, 12].includes(i) ? 0.85 : 0.1;
      const value = r.chance(pointer)
        ? BigInt(this.#target(16))
        : i === 1 && r.chance(0.6)
          ? BigInt(r.below(25))
          : edgeInteger(r);
      s.gpr[i] = mode === 64 ? value : i < 8 ? BigInt.asUintN(32, value) : 0n;
      // In 16-bit code pointers are offsets, and what lies above them does not matter.
      if (mode === 16 && value >> 16n === BigInt(DATA >> 16))
        s.gpr[i] = BigInt.asUintN(16, value) | (i !== 4 && r.chance(0.2) ? r.bits(16) << 16n : 0n);
    }
    s.flags = 0x202 | (r.u32() & 0x8d5) | (r.chance(0.2) ? 0x400 : 0) | (r.chance(0.1) ? 0x200000 : 0);
    const { fp } = s;
    for (let i = 0; i < 8; i++) fp.set('st', i, r.chance(0.1) ? r.bits(80) : edgeExtended(r));
    for (let i = 0; i < 16; i++) putEdgeVector(r, fp.view, fp.at('xmm', i));
    for (let i = 0; i < 16; i++) if (!r.chance(0.2)) putEdgeVector(r, fp.view, fp.at('ymm', i));
    if (r.chance(0.4)) fp.mxcsr = r.u32() & 0xffff;
    else if (r.chance(0.5)) fp.mxcsr = 0x1f80 | (r.u32() & 0x3f);
    fp.fcw = r.chance(0.5)
      ? 0x37f
      : 0x40 | (r.chance(0.6) ? 0x3f : r.u32() & 0x3f) | (r.pick([0, 2, 3]) << 8) | (r.below(4) << 10);
    fp.ftw = r.chance(0.6) ? 0xff : r.u32() & 0xff;
    fp.fsw = (r.below(8) << 11) | (r.chance(0.3) ? r.u32() & 0x4700 : 0);
    if (r.chance(0.1)) {
      fp.fsw |= r.u32() & 0x7f;
      if (fp.fsw & ~fp.fcw & 0x3f) fp.fsw |= 0x8080;
    }
    return s;
  }

  // -- one instruction

  #piece(info: RowInfo, mode: Mode, state: State, at: number, undefinedBefore: number, first: boolean): Piece | null {
    const r = this.#r;
    const long = mode === 64;
    const { vex } = info;
    const { options } = info.row;
    const prefixes: number[] = [];
    if (info.prefix > 0 && !vex) prefixes.push([0, 0x66, 0xf3, 0xf2][info.prefix]!);
    let wide = false;
    if (!vex && info.prefix !== 0 && info.prefix !== 1 && r.chance(info.sized ? 0.25 : 0.03) && !(info.prefix > 1 && !info.sized))
      wide = true;
    if (wide) prefixes.unshift(0x66);
    if (options.rep && r.chance(0.6)) prefixes.push(r.chance(0.6) ? 0xf3 : 0xf2);
    const rexW = info.rexW >= 0 ? info.rexW === 1 : r.chance(info.sized ? 0.45 : 0.08);
    let rex = (long || vex) && rexW ? 8 : 0;
    const short = !vex && (mode === 16) !== (wide || (info.prefix === 1 && info.sized));
    const size = long && (rex & 8 || options.size === 'f64') ? 64 : short ? 16 : long && options.size === 'd64' ? 64 : 32;
    if (info.mnemonic === 'bswap' && size === 16) return null;
    if (/^sh[lr]d$/.test(info.mnemonic) && size === 16 && info.specs.some((s) => s.code === 'CL')) return null;

    // What a repetition of zero times does to 32-bit registers in 64-bit code differs between processors.
    const repeated = prefixes.includes(0xf3) || prefixes.includes(0xf2);
    const addressWide = !r.chance(0.06) || (long && options.rep === true && repeated);
    if (!addressWide) prefixes.unshift(0x67);
    const addressSize = long ? (addressWide ? 64 : 32) : addressWide === (mode === 32) ? 32 : 16;
    let segment = 0;
    if (long && r.chance(0.04)) segment = 0x65;
    else if (r.chance(0.03)) segment = r.pick([0x2e, 0x36, 0x3e, 0x26]);
    if (segment) prefixes.unshift(segment);

    const opcode: number[] = vex ? [] : info.map === 0 ? [] : info.map === 1 ? [0x0f] : [0x0f, info.map === 2 ? 0x38 : 0x3a];
    let low = 0;
    if (info.span === 8) {
      low = r.below(8);
      if (long && r.chance(0.4)) rex |= 1;
    }
    opcode.push(info.opcode + low);

    const tail: number[] = [];
    const patches: { offset: number; value: bigint }[] = [];
    let ripRelative: number | null = null;
    let memory = info.specs.some((s) => s.from === 'moffs');
    if (info.modrm >= 0) tail.push(info.modrm);
    else if (info.hasModrm) {
      memory = info.form === 'mem' || (info.form === 'both' && r.chance(0.5));
      const reg = info.digit >= 0 ? info.digit : r.below(8);
      if (long && info.digit < 0 && r.chance(0.4)) rex |= 4;
      if (!memory) {
        if (long && r.chance(0.4)) rex |= 1;
        tail.push(0xc0 | (reg << 3) | r.below(8));
      } else {
        const target = this.#target(
          info.specs.some((s) => s.aligned) || info.mnemonic.startsWith('fx') || r.chance(0.3) ? 16 : r.pick([1, 2, 4, 8]),
        );
        const bias = segment === 0x65 ? GS_BASE : mode === 16 ? DATA : 0;
        const form = this.#address(reg, target - bias, addressSize, long, state);
        rex |= form.rex;
        ripRelative = form.relative ? target - bias : null;
        tail.push(...form.bytes);
        if (r.chance(0.75)) patches.push(...this.#values(target - DATA, info));
      }
    }
    if (info.specs.some((s) => s.from === 'moffs')) {
      const target = this.#target(8) - (mode === 16 ? DATA : 0);
      for (let i = 0; i < addressSize / 8; i++) tail.push(Number((BigInt(target) >> BigInt(i * 8)) & 0xffn));
    }
    if (info.mnemonic === 'popf') {
      // The machine of the evaluator does not look at AC.
      const sp = Number(state.gpr[4]! & 0xffffffffn) - (mode === 16 ? 0 : DATA);
      if (!first || state.gpr[4]! >> 32n !== 0n || sp < 0 || sp > 0x3ff0) return null;
      patches.push({ offset: sp, value: edgeInteger(r) & ~0x44000n });
    }
    const isShift = /^(ro[lr]|rc[lr]|sh[lr]d?|sa[lr])$/.test(info.mnemonic);
    let count: number | undefined;
    let relative = 0;
    for (const s of info.specs) {
      if (s.from === 'one') count = 1;
      if (s.from !== 'imm' && s.from !== 'imm2' && s.from !== 'rel' && s.from !== 'is4') continue;
      let bits = bitsOf(s.immWidth, size);
      if (s.from === 'rel' && s.immWidth === 'z' && long) bits = 32;
      if (s.from === 'rel') relative = bits / 8;
      let value = s.from === 'rel' ? 0n : edgeInteger(r);
      if (/^sh[lr]d$/.test(info.mnemonic) && size === 16) value &= 15n;
      if (isShift && s.immWidth === 8) count = Number(value & (size === 64 ? 63n : 31n));
      for (let i = 0; i < bits / 8; i++) tail.push(Number((value >> BigInt(i * 8)) & 0xffn));
    }
    // Byte registers 4 to 7 are SPL to DIL with any REX and AH to BH without.
    if (long && !vex && rex === 0 && r.chance(0.15)) rex = 0x40;
    if (options.lock && memory && r.chance(0.15)) prefixes.unshift(0xf0);
    // Prefixes that the row does not ask for: ignored, or an undefined opcode.
    if (r.chance(vex ? 0.01 : 0.03)) prefixes.unshift(r.pick(info.sized ? [0xf2, 0xf3, 0xf0] : [0x66, 0xf2, 0xf3, 0xf0]));
    // In 64-bit code AMD's processors take an operand size for near branches, Intel's do not (APM volume 3, section 1.2.2).
    if (long && this.#amd && /^(call|jmp|ret|j[a-z]+|loop\w*)$/.test(info.mnemonic)) {
      for (let i = prefixes.length; i-- > 0; ) if (prefixes[i] === 0x66) prefixes.splice(i, 1);
    }
    // LOOPZ and LOOPNZ take the repeat prefixes for their own condition there.
    if (this.#amd && /^loopn?z$/.test(info.mnemonic)) {
      for (let i = prefixes.length; i-- > 0; ) if (prefixes[i] === 0xf2 || prefixes[i] === 0xf3) prefixes.splice(i, 1);
    }
    const head = vex
      ? [...prefixes, ...this.#vexPrefix(info, rex, long), ...opcode]
      : [...prefixes, ...(long && rex ? [0x40 | rex] : []), ...opcode];
    if (ripRelative !== null) {
      const end = Number(state.rip) + at + head.length + tail.length;
      const disp = (ripRelative - end) | 0;
      for (let i = 0; i < 4; i++) tail[1 + i] = (disp >>> (i * 8)) & 0xff;
    }
    const bytes = [...head, ...tail];
    if (bytes.length > 15) return null;
    const next = state.rip + BigInt(at + bytes.length);
    if (first && r.chance(0.8)) this.#aim(info, mode, memory, rex, tail[0]!, state, patches, next);
    const operand = info.specs[0] ? bitsOf(info.specs[0].width, size) : size;
    // A repeated comparison may run zero times.
    const undefinedFlags =
      options.rep && undefinedBefore ? undefinedBefore : undefinedAfter(undefinedBefore, info.mnemonic, operand, count);
    return { bytes, patches, relative, undefinedFlags };
  }

  /** Two or three bytes, with L and VVVV as the row wants them, seldom otherwise. */
  #vexPrefix(info: RowInfo, rex: number, long: boolean): number[] {
    const r = this.#r;
    const l = info.wide >= 0 && !r.chance(0.01) ? info.wide : r.below(2);
    const register = info.vvvv ? r.below(long ? 16 : 8) : r.chance(0.01) ? r.below(8) : 0;
    const last = ((~register & 15) << 3) | (l << 2) | info.prefix;
    if (info.map === 1 && (rex & 11) === 0 && r.chance(0.8)) return [0xc5, (rex & 4 ? 0 : 0x80) | last];
    return [0xc4, (~(rex << 5) & 0xe0) | info.map, (rex & 8 ? 0x80 : 0) | last];
  }

  /** Makes an indirect branch or return go to the next instruction, bounds hold, and an FXSAVE image loadable. */
  #aim(
    info: RowInfo,
    mode: Mode,
    memory: boolean,
    rex: number,
    modrm: number,
    state: State,
    patches: { offset: number; value: bigint }[],
    next: bigint,
  ): void {
    const sp = Number(BigInt.asUintN(48, state.gpr[4]!)) - (mode === 16 ? 0 : DATA);
    if (info.mnemonic === 'ret' && sp >= 0 && sp < 0x4ff0) patches.push({ offset: sp, value: next });
    const first = patches[0];
    if (/^(jmp|call)$/.test(info.mnemonic) && info.form === 'both' && info.hasModrm) {
      if (!memory) state.gpr[(modrm & 7) | ((rex & 1) << 3)] = next;
      else if (first) patches[0] = { ...first, value: next };
    }
    if (info.mnemonic === 'bound' && first) patches[0] = { ...first, value: 0x7fffffff_80000000n };
    if (info.mnemonic.startsWith('fxrstor') && first) patches.push({ offset: (first.offset & ~15) + 24, value: 0xffff00001f80n });
  }

  /** ModRM, SIB and displacement that reach `target` from the initial register values, and the REX bits. */
  #address(
    reg: number,
    target: number,
    addressSize: number,
    long: boolean,
    state: State,
  ): { bytes: number[]; rex: number; relative: boolean } {
    const r = this.#r;
    const d32 = (d: number): number[] => [d & 0xff, (d >>> 8) & 0xff, (d >>> 16) & 0xff, d >>> 24];
    if (addressSize === 16) {
      const rm = r.below(8);
      const registers = [[3, 6], [3, 7], [5, 6], [5, 7], [6], [7], [5], [3]][rm]!; // biome-ignore format: ModRM.rm
      const plain = rm === 6 && r.chance(0.3);
      const sum = plain ? 0 : registers.reduce((total, n) => total + Number(state.gpr[n]! & 0xffffn), 0);
      const distance = (target - sum) & 0xffff;
      const near = distance < 0x80 || distance >= 0xff80;
      const mod = plain ? 0 : distance === 0 && rm !== 6 ? 0 : near && r.chance(0.8) ? 1 : 2;
      const bytes = [(mod << 6) | (reg << 3) | rm];
      if (mod > 0 || plain) bytes.push(distance & 0xff);
      if (mod === 2 || plain) bytes.push(distance >> 8);
      return { bytes, rex: 0, relative: false };
    }
    const kind = r.below(10);
    if (kind === 0) {
      // Displacement alone: relative to RIP in 64-bit code.
      if (long && r.chance(0.6)) return { bytes: [(reg << 3) | 5, 0, 0, 0, 0], rex: 0, relative: true };
      return { bytes: long ? [(reg << 3) | 4, 0x25, ...d32(target)] : [(reg << 3) | 5, ...d32(target)], rex: 0, relative: false };
    }
    const limit = long ? 16 : 8;
    // Bases whose distance to the target a displacement covers.
    const value = (n: number): number | null => {
      const v = BigInt.asIntN(64, state.gpr[n]!);
      return v >= -0x80000000n && v <= 0xffffffffn ? Number(v) : null;
    };
    const fits = (n: number): boolean => {
      const v = value(n);
      return v !== null && target - v >= -0x80000000 && target - v <= 0x7fffffff;
    };
    const candidates = [...Array(limit).keys()].filter(fits);
    if (candidates.length === 0)
      return { bytes: long ? [(reg << 3) | 4, 0x25, ...d32(target)] : [(reg << 3) | 5, ...d32(target)], rex: 0, relative: false };
    const base = r.pick(candidates);
    let distance = target - value(base)!;
    let rex = base >= 8 ? 1 : 0;
    let sib: number | null = null;
    let rm = base & 7;
    if (rm === 4 || kind < 5) {
      let index = r.below(limit);
      let scale = r.below(4);
      const scaled = index === 4 ? 0 : value(index);
      const rest = scaled === null ? null : distance - scaled * 2 ** scale;
      if (rest === null || rest < -0x80000000 || rest > 0x7fffffff) {
        index = 4;
        scale = 0;
      } else distance = rest;
      if (index >= 8) rex |= 2;
      sib = (scale << 6) | ((index & 7) << 3) | rm;
      rm = 4;
    }
    const short = distance >= -128 && distance < 128;
    const mod = distance === 0 && (base & 7) !== 5 && r.chance(0.7) ? 0 : short && r.chance(0.8) ? 1 : 2;
    const bytes = [(mod << 6) | (reg << 3) | rm];
    if (sib !== null) bytes.push(sib);
    if (mod === 1) bytes.push(distance & 0xff);
    if (mod === 2) bytes.push(...d32(distance));
    return { bytes, rex, relative: false };
  }

  /** Interesting contents for the memory operand of a row, at an offset in the data. */
  #values(offset: number, info: RowInfo): { offset: number; value: bigint }[] {
    const r = this.#r;
    if (offset < 0 || offset > 0x4fe0) return [];
    const both = (v: bigint): { offset: number; value: bigint }[] => [
      { offset, value: BigInt.asUintN(64, v) },
      { offset: offset + 8, value: v >> 64n },
    ];
    if (info.row.options.fp === 'avx')
      return [...both(edgeVector(r)), ...both(edgeVector(r)).map((x) => ({ ...x, offset: x.offset + 16 }))];
    if (info.row.options.fp === 'sse') return both(edgeVector(r));
    if (info.row.options.fp !== 'x87') return [{ offset, value: edgeInteger(r) }];
    switch (r.below(4)) {
      case 0:
        return [{ offset, value: edgeFloat(r, 32) | (r.bits(32) << 32n) }];
      case 1:
        return [{ offset, value: edgeFloat(r, 64) }];
      case 2:
        return [{ offset, value: edgeInteger(r) }];
      default:
        return both(info.mnemonic === 'fbld' ? decimal(r) : edgeExtended(r));
    }
  }
}

/** Offset in the data of the counter of a loop. */
const COUNTER = 0x78;

/** SUB of the counter in memory, and JNZ to the start of the code, which is `length` bytes long so far. */
function countDown(mode: Mode, rip: number, length: number): number[] {
  const address = mode === 64 ? DATA + COUNTER - (rip + length + 7) : mode === 32 ? DATA + COUNTER : COUNTER;
  const bytes = mode === 16 ? 2 : 4;
  const sub = [0x83, mode === 16 ? 0x2e : 0x2d, ...Array.from({ length: bytes }, (_, i) => (address >> (i * 8)) & 0xff), 1];
  return [...sub, 0x75, -(length + sub.length + 2) & 0xff];
}

/** A packed decimal number of 18 digits, now and then with digits that are none. */
function decimal(r: Random): bigint {
  let v = BigInt(r.below(2) << 7);
  for (let i = 0; i < 18; i++) v = (v << 4n) | BigInt(r.chance(0.99) ? r.below(10) : r.below(16));
  return v;
}

const isTranscendental = (info: RowInfo): boolean => /^(f2xm1|fyl2x|fyl2xp1|fptan|fpatan|fsin|fcos|fsincos)$/.test(info.mnemonic);

/** Why a row is left out, or undefined. */
export function isExcluded(info: RowInfo): string | undefined {
  const names = [
    info.mnemonic,
    `${info.mnemonic}${info.specs.find((s) => s.cls === 'control' || s.cls === 'debug')?.code ?? ''}`,
  ];
  if (info.specs.some((s) => s.cls === 'seg')) return "it shows or loads the host's segments";
  return excluded.find(([pattern]) => names.some((n) => pattern.test(n)))?.[1];
}
