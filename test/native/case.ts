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

/** Floating-point state: an x87 register is 80 bits, in stack order; `ftw` has a bit for each physical register in use. */
export interface FpState {
  fcw: number;
  fsw: number;
  ftw: number;
  mxcsr: number;
  readonly st: bigint[];
  readonly xmm: bigint[];
  /** Upper halves of the AVX registers. */
  readonly ymm: bigint[];
}

export interface State {
  readonly gpr: bigint[];
  rip: bigint;
  flags: number;
  readonly fp: FpState;
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
  const gpr = Array.from({ length: 16 }, () => 0n);
  gpr[4] = BigInt((mode === 16 ? 0 : DATA) + 0x2000);
  const fp = {
    fcw: 0x37f,
    fsw: 0,
    ftw: 0,
    mxcsr: 0x1f80,
    st: Array.from({ length: 8 }, () => 0n),
    xmm: Array.from({ length: 16 }, () => 0n),
    ymm: Array.from({ length: 16 }, () => 0n),
  };
  return { gpr, rip: BigInt(CODE - codeBase(mode)), flags: 0x202, fp };
}

export function copyState(s: State): State {
  return {
    gpr: [...s.gpr],
    rip: s.rip,
    flags: s.flags,
    fp: { ...s.fp, st: [...s.fp.st], xmm: [...s.fp.xmm], ymm: [...s.fp.ymm] },
  };
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

// -- FXSAVE images with the upper halves behind them (Intel SDM volume 1, section 10.5.1)

const mask = (bits: number): bigint => (1n << BigInt(bits)) - 1n;

export function writeFx(fp: FpState, image: DataView): void {
  image.setUint16(0, fp.fcw, true);
  image.setUint16(2, fp.fsw, true);
  image.setUint8(4, fp.ftw);
  image.setUint32(24, fp.mxcsr, true);
  const put = (at: number, value: bigint): void => {
    image.setBigUint64(at, value & mask(64), true);
    image.setBigUint64(at + 8, value >> 64n, true);
  };
  fp.st.forEach((value, i) => void put(32 + i * 16, value));
  fp.xmm.forEach((value, i) => void put(160 + i * 16, value));
  fp.ymm.forEach((value, i) => void put(512 + i * 16, value));
}

export function readFx(image: DataView): FpState {
  const get = (at: number, bits: number): bigint =>
    (image.getBigUint64(at, true) | (image.getBigUint64(at + 8, true) << 64n)) & mask(bits);
  return {
    fcw: image.getUint16(0, true),
    fsw: image.getUint16(2, true),
    ftw: image.getUint8(4),
    mxcsr: image.getUint32(24, true),
    st: Array.from({ length: 8 }, (_, i) => get(32 + i * 16, 80)),
    xmm: Array.from({ length: 16 }, (_, i) => get(160 + i * 16, 128)),
    ymm: Array.from({ length: 16 }, (_, i) => get(512 + i * 16, 128)),
  };
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
  for (let i = 0; i < 8; i++) out.push(s.fp.st[i]!);
  for (let i = 0; i < registers; i++) out.push(s.fp.xmm[i]!);
  for (let i = 0; i < registers; i++) out.push(s.fp.ymm[i]!);
  return out;
}
/** What of a state differs from another one, by name, in hexadecimal. */
function changed(before: State, after: State, mode: Mode): Fields {
  const old = stateValues(before, mode);
  const fields: Fields = new Map();
  stateValues(after, mode).forEach((value, i) => {
    if (value !== old[i]) fields.set(NAMES[mode][i]!, value.toString(16));
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
  else if (name.startsWith('st')) s.fp.st[Number(name.slice(2))] = n;
  else if (name.startsWith('xmm')) s.fp.xmm[Number(name.slice(3))] = n;
  else if (name.startsWith('ymm')) s.fp.ymm[Number(name.slice(3))] = n;
  else throw new Error(`Cannot read case: ${name} is not a register`);
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
  const flags = FLAGS & ~undefinedFlags;
  const before = { ...c.state, flags: c.state.flags & flags };
  for (const [name, value] of changed(before, { ...r.state, flags: r.state.flags & flags }, c.mode)) out.set(name, value);
  for (const [offset, value] of r.changes) out.set(`m${offset.toString(16)}`, value.toString(16));
  return out;
}

export const formatEffects = (e: Fields): string => [...e].map(([name, value]) => `${name}=${value}`).join(' ');

export const parseEffects = (text: string): Fields => new Map(text.split(' ').map((word) => word.split('=') as [string, string]));

/** Names whose effects differ, with both values; empty where the two agree. */
export function differences(expected: Fields, found: Fields): string[] {
  const names = new Set([...expected.keys(), ...found.keys()]);
  return [...names]
    .filter((n) => expected.get(n) !== found.get(n))
    .map((n) => `${n}: ${expected.get(n) ?? 'as before'}, found ${found.get(n) ?? 'as before'}`);
}
