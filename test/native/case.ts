// A case for the comparison with the host CPU: a state, a few bytes of code, and the state afterwards; and their text form, one line
// of `name=value` words, in which failures are printed and golden cases kept.

/** Where code and data lie, in native.c as well. The last data page is read-only, what follows is not mapped. */
export const CODE = 0x1000_0000;
export const CODE_BYTES = 0x2000;
export const DATA = 0x2000_0000;
export const DATA_BYTES = 0x5000;
export const WRITABLE_BYTES = 0x4000;
/** Base of GS in 64-bit code. */
export const GS_BASE = 0x2000_1000;

/** Registers that instructions name, in encoding order. */
export const GPR = [
  'rax',
  'rcx',
  'rdx',
  'rbx',
  'rsp',
  'rbp',
  'rsi',
  'rdi',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
] as const;

const GPR_BYTES = 128;
/** A state's image: general registers, RIP, RFLAGS, then FXSAVE's image with the upper halves of the AVX registers behind it. */
export const STATE_BYTES = GPR_BYTES + 16 + 768;
const mask = (bits: number): bigint => (1n << BigInt(bits)) - 1n;

/** Where registers lie in a floating-point image, and how many of their 16 bytes count (Intel SDM volume 1, section 10.5.1). */
const FILES = {
  st: { at: 32, count: 8, bits: 80 },
  xmm: { at: 160, count: 16, bits: 128 },
  ymm: { at: 512, count: 16, bits: 128 },
};
/** x87 registers in stack order, and the lower and upper halves of the AVX registers. */
export type File = keyof typeof FILES;

/** Floating-point state as an image of it; `ftw` has a bit for each physical register in use. */
export class FpState {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }
  get fcw(): number {
    return this.view.getUint16(0, true);
  }
  set fcw(value: number) {
    this.view.setUint16(0, value, true);
  }
  get fsw(): number {
    return this.view.getUint16(2, true);
  }
  set fsw(value: number) {
    this.view.setUint16(2, value, true);
  }
  get ftw(): number {
    return this.bytes[4]!;
  }
  set ftw(value: number) {
    this.bytes[4] = value;
  }
  get mxcsr(): number {
    return this.view.getUint32(24, true);
  }
  set mxcsr(value: number) {
    this.view.setUint32(24, value, true);
  }
  /** Offset of a register in the image. */
  at(file: File, i: number): number {
    return FILES[file].at + i * 16;
  }
  get(file: File, i: number): bigint {
    const at = this.at(file, i);
    return (this.view.getBigUint64(at, true) | (this.view.getBigUint64(at + 8, true) << 64n)) & mask(FILES[file].bits);
  }
  set(file: File, i: number, value: bigint): void {
    const at = this.at(file, i);
    this.view.setBigUint64(at, value & mask(64), true);
    this.view.setBigUint64(at + 8, value >> 64n, true);
  }
  all(file: File): bigint[] {
    return Array.from({ length: FILES[file].count }, (_, i) => this.get(file, i));
  }
}

/** Registers, as one image of STATE_BYTES. */
export class State {
  readonly bytes: Uint8Array;
  readonly gpr: BigUint64Array;
  readonly fp: FpState;
  readonly #rest: DataView;
  /** `bytes`: an image at a multiple of eight in its buffer, which the state keeps; zeros unless given. */
  constructor(bytes = new Uint8Array(STATE_BYTES)) {
    this.bytes = bytes;
    this.gpr = new BigUint64Array(bytes.buffer, bytes.byteOffset, 16);
    this.#rest = new DataView(bytes.buffer, bytes.byteOffset + GPR_BYTES, 16);
    this.fp = new FpState(bytes.subarray(GPR_BYTES + 16));
  }
  get rip(): bigint {
    return this.#rest.getBigUint64(0, true);
  }
  set rip(value: bigint) {
    this.#rest.setBigUint64(0, value, true);
  }
  get flags(): number {
    return this.#rest.getUint32(8, true);
  }
  set flags(value: number) {
    this.#rest.setUint32(8, value, true);
  }
  copy(): State {
    return new State(this.bytes.slice());
  }
}

/**
 * 64-bit code, or compatibility mode: 32-bit code in flat segments, or 16-bit code whose segments are the code pages and 64 KiB from
 * the data pages on (addresses, `rip` included, are then offsets).
 */
export type Mode = 64 | 32 | 16;

export interface Case {
  readonly mode: Mode;
  readonly code: Uint8Array;
  readonly state: State;
  /** Eight bytes each at an offset in the data pages, over their pristine contents. At most 16. */
  readonly patches: readonly { readonly offset: number; readonly value: bigint }[];
}

/** How a case ended: `vector` 3 at the end of the code, the exception otherwise, or -1 for code that does not end. */
export interface Result {
  readonly vector: number;
  readonly error: number;
  /** Faulting address of a page fault. */
  readonly address: bigint;
  readonly state: State;
  /** Data that changed: offset of an aligned word of eight bytes, its new value. */
  readonly changes: ReadonlyMap<number, bigint>;
}

/** A state with everything zero, the stack pointer in the middle of the data, and the FPU after FNINIT. */
export function emptyState(mode: Mode = 64): State {
  const s = new State();
  s.gpr[4] = BigInt((mode === 16 ? 0 : DATA) + 0x2000);
  s.rip = BigInt(CODE - codeBase(mode));
  s.flags = 0x202;
  s.fp.fcw = 0x37f;
  s.fp.mxcsr = 0x1f80;
  return s;
}

/** The data pages before patches: a fixed noise. */
export function pristineData(): Uint8Array {
  const bytes = new Uint8Array(DATA_BYTES);
  let x = 0x2545f491;
  for (let i = 0; i < DATA_BYTES; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    bytes[i] = x >>> 11;
  }
  return bytes;
}

// -- text

type Fields = Map<string, string>;

const CONTROL = ['fcw', 'fsw', 'ftw', 'mxcsr'] as const;
const namesOf = (registers: number): string[] => {
  const numbered = (name: string, count: number): string[] => Array.from({ length: count }, (_, i) => `${name}${i}`);
  const vectors = [...numbered('xmm', registers), ...numbered('ymm', registers)];
  return [...GPR.slice(0, registers), 'rip', 'flags', ...CONTROL, ...numbered('st', 8), ...vectors];
};
const NAMES = { 64: namesOf(16), 32: namesOf(8), 16: namesOf(8) } as const;
/** Everything of a state, in the order of `NAMES`. */
function stateValues(s: State, mode: Mode): (bigint | number)[] {
  const registers = mode === 64 ? 16 : 8;
  const out: (bigint | number)[] = [];
  const bits = mask(mode === 64 ? 64 : 32);
  for (let i = 0; i < registers; i++) out.push(s.gpr[i]! & bits);
  out.push(s.rip, s.flags);
  for (const name of CONTROL) out.push(s.fp[name]);
  for (let i = 0; i < 8; i++) out.push(s.fp.get('st', i));
  for (const file of ['xmm', 'ymm'] as const) for (let i = 0; i < registers; i++) out.push(s.fp.get(file, i));
  return out;
}
/** What of a state differs from another one, by name, in hexadecimal; of the flags, those in `flags` count. */
function changed(before: State, after: State, mode: Mode, flags = -1): Fields {
  const old = stateValues(before, mode);
  const fields: Fields = new Map();
  const flagsAt = NAMES[mode].indexOf('flags');
  stateValues(after, mode).forEach((value, i) => {
    const [a, b] = i === flagsAt ? [Number(old[i]!) & flags, Number(value) & flags] : [old[i]!, value];
    if (a !== b) fields.set(NAMES[mode][i]!, b.toString(16));
  });
  return fields;
}

function assign(s: State, name: string, value: string): void {
  const n = BigInt(`0x${value}`);
  const index = (GPR as readonly string[]).indexOf(name);
  if (index >= 0) s.gpr[index] = n;
  else if (name === 'rip') s.rip = n;
  else if (name === 'flags') s.flags = Number(n);
  else if (name === 'fcw' || name === 'fsw' || name === 'ftw' || name === 'mxcsr') s.fp[name] = Number(n);
  else {
    const [, file, i] = /^(st|[xy]mm)(\d+)$/.exec(name) ?? [];
    if (!file) throw new Error(`Cannot read case: ${name} is not a register`);
    s.fp.set(file as File, Number(i), n);
  }
}

/** The case as one line: what differs from `emptyState`. */
export function formatCase(c: Case): string {
  const words = [`mode=${c.mode}`, `code=${Buffer.from(c.code).toString('hex')}`];
  for (const [name, value] of changed(emptyState(c.mode), c.state, c.mode)) words.push(`${name}=${value}`);
  for (const p of c.patches) words.push(`m${p.offset.toString(16)}=${p.value.toString(16)}`);
  return words.join(' ');
}

/** Reads what `formatCase` writes. Throws on words that it does not know. */
export function parseCase(text: string): Case {
  const words = text.trim().split(/\s+/);
  const mode = (Number(/^mode=(\d+)$/.exec(words[0]!)?.[1]) || 64) as Mode;
  const state = emptyState(mode);
  const patches: { offset: number; value: bigint }[] = [];
  let code = new Uint8Array();
  for (const word of words) {
    const [name, value] = word.split('=') as [string, string];
    if (name === 'mode') continue;
    if (name === 'code') code = Uint8Array.from(Buffer.from(value, 'hex'));
    else if (/^m[0-9a-f]+$/.test(name)) patches.push({ offset: Number.parseInt(name.slice(1), 16), value: BigInt(`0x${value}`) });
    else assign(state, name, value);
  }
  return { mode, code, state, patches };
}

/** Where a program's addresses end: the last page of its half is a gap. */
const KERNEL = (1n << 47n) - 0x1000n;
/** Where the code pages lie once more in 64-bit cases: up to the last page that a program may have, a page before the edge of the canonical addresses. */
export const EDGE = KERNEL - BigInt(CODE_BYTES);
/** Where an instruction pointer lies in the code pages, in bytes from their start; outside of them negative or too large. */
export const codePlace = (mode: Mode, rip: bigint): number =>
  mode === 64 && rip >= EDGE ? Number(rip - EDGE) : Number(rip) + codeBase(mode) - CODE;
/** Linear address of offset 0 in the code. */
export const codeBase = (mode: Mode): number => (mode === 16 ? CODE : 0);

/** RFLAGS that count: not RF, which the saved image of a fault has set. */
const FLAGS = 0x3effd7;

/**
 * What a case did, by name: how it ended, and every register and memory word that it changed. `undefinedFlags` are left out, and so
 * is what the host's kernel hides.
 */
export function effects(c: Case, r: Result, undefinedFlags: number): Fields {
  const out: Fields = new Map();
  out.set('vector', r.vector === -1 ? 'endless' : String(r.vector));
  if (r.vector === -1) return out;
  if (r.vector === 14) {
    out.set('address', r.address.toString(16));
    // Linux reports every fault beyond a program's addresses as one of protection.
    out.set('error', (r.address >= KERNEL ? r.error | 1 : r.error).toString(16));
  }
  for (const [name, value] of changed(c.state, r.state, c.mode, FLAGS & ~undefinedFlags)) out.set(name, value);
  for (const [offset, value] of r.changes) out.set(`m${offset.toString(16)}`, value.toString(16));
  return out;
}

/** Whether two results are the same to the last bit, but for `undefinedFlags`; where not, their effects may still be. */
export function alike(a: Result, b: Result, undefinedFlags: number): boolean {
  if (a.vector !== b.vector || a.changes.size !== b.changes.size) return false;
  if (a.vector === -1) return true;
  if (a.vector === 14 && (a.address !== b.address || a.error !== b.error)) return false;
  if (((a.state.flags ^ b.state.flags) & FLAGS & ~undefinedFlags) !== 0 || a.state.rip !== b.state.rip) return false;
  if (!sameBytes(a.state.bytes, b.state.bytes, 0, GPR_BYTES)) return false;
  const [x, y] = [a.state.fp, b.state.fp];
  if (x.fcw !== y.fcw || x.fsw !== y.fsw || x.ftw !== y.ftw || x.mxcsr !== y.mxcsr) return false;
  for (const { at, count } of Object.values(FILES)) if (!sameBytes(x.bytes, y.bytes, at, at + count * 16)) return false;
  for (const [offset, value] of a.changes) if (b.changes.get(offset) !== value) return false;
  return true;
}
const sameBytes = (a: Uint8Array, b: Uint8Array, from: number, to: number): boolean =>
  Buffer.compare(a.subarray(from, to), b.subarray(from, to)) === 0;

export const formatEffects = (e: Fields): string => [...e].map(([name, value]) => `${name}=${value}`).join(' ');

export const parseEffects = (text: string): Fields => new Map(text.split(' ').map((word) => word.split('=') as [string, string]));

/** Names whose effects differ, with both values; empty where the two agree. */
export function differences(expected: Fields, found: Fields): string[] {
  const names = new Set([...expected.keys(), ...found.keys()]);
  return [...names]
    .filter((n) => expected.get(n) !== found.get(n))
    .map((n) => `${n}: ${expected.get(n) ?? 'as before'}, found ${found.get(n) ?? 'as before'}`);
}
