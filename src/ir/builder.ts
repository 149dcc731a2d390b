// Builds IR: one method per kind of node, arithmetic overloaded on the operand's type, constants folded on the way.

import type { Callee, Effectful, Func, Label, LeaveKind, RmwOp, Slot, Space, Stmt, Value, Var } from './ir.ts';
import { type AccessName, accesses, type PureOp, pureOp, type Type } from './ops.ts';

const OPS = {
  add: 'add', sub: 'sub', mul: 'mul', and: 'and', or: 'or', xor: 'xor', shl: 'shl', shru: 'shr_u', shrs: 'shr_s', rotl: 'rotl', rotr: 'rotr',
  divu: 'div_u', divs: 'div_s', remu: 'rem_u', rems: 'rem_s',
  eq: 'eq', ne: 'ne', ltu: 'lt_u', lts: 'lt_s', leu: 'le_u', les: 'le_s', gtu: 'gt_u', gts: 'gt_s', geu: 'ge_u', ges: 'ge_s',
  clz: 'clz', ctz: 'ctz', popcnt: 'popcnt', eqz: 'eqz',
} as const; // biome-ignore format: a table
type IntOp = keyof typeof OPS;

const intOps = Object.fromEntries(
  Object.entries(OPS).map(([key, name]) => [key, { i32: pureOp(`i32.${name}`), i64: pureOp(`i64.${name}`) }]),
) as Record<IntOp, { i32: PureOp; i64: PureOp }>;

const WRAP = pureOp('i32.wrap_i64');
const EXTU = pureOp('i64.extend_i32_u');
const EXTS = pureOp('i64.extend_i32_s');
const M64 = (1n << 64n) - 1n;
const none: readonly number[] = [];

/** Builds the statements of one function. Values may be used only where their definition dominates. */
export class Builder {
  #id = 0;
  #list: Stmt[] = [];
  #ended = false;
  readonly env: Value = { kind: 'env', id: this.#id++, type: 'i32', uses: 0 };

  // -- constants and parameters

  /** A 32-bit constant; any number is taken modulo 2^32. */
  i32(value: number): Value {
    return { kind: 'const', id: this.#id++, type: 'i32', value: value | 0, uses: 0 };
  }
  /** A 64-bit constant, taken modulo 2^64. */
  i64(value: number | bigint): Value {
    return { kind: 'const', id: this.#id++, type: 'i64', value: BigInt.asIntN(64, BigInt(value)), uses: 0 };
  }
  f32(value: number): Value {
    return { kind: 'const', id: this.#id++, type: 'f32', value, uses: 0 };
  }
  f64(value: number): Value {
    return { kind: 'const', id: this.#id++, type: 'f64', value, uses: 0 };
  }
  /** A 128-bit constant of 16 bytes, lowest first. */
  v128(bytes: Uint8Array | readonly number[]): Value {
    return { kind: 'const', id: this.#id++, type: 'v128', value: Uint8Array.from(bytes), uses: 0 };
  }
  /** A constant of integer type `type`. */
  int(type: Type, value: number | bigint): Value {
    return type === 'i64' ? this.i64(value) : this.i32(Number(BigInt.asIntN(32, BigInt(value))));
  }
  /** Parameter `index` of the function, not counting `env`. */
  param(index: number, type: Type): Value {
    return { kind: 'param', id: this.#id++, type, index, uses: 0 };
  }

  // -- pure operations

  /** Any pure operation by its WebAssembly name, without lane immediates. */
  op(name: string, ...args: Value[]): Value {
    return this.#pure(pureOp(name), args);
  }
  /** An operation with lane immediates: `lane('i32x4.extract_lane', [2], v)`, `lane('i8x16.shuffle', sixteen, a, b)`. */
  lane(name: string, lanes: readonly number[], ...args: Value[]): Value {
    for (const a of args) a.uses++;
    const op = pureOp(name);
    return { kind: 'pure', id: this.#id++, type: op.result, op, args, lanes, uses: 0 };
  }
  add = (a: Value, b: Value): Value => this.#int('add', a, b);
  sub = (a: Value, b: Value): Value => this.#int('sub', a, b);
  mul = (a: Value, b: Value): Value => this.#int('mul', a, b);
  and = (a: Value, b: Value): Value => this.#int('and', a, b);
  or = (a: Value, b: Value): Value => this.#int('or', a, b);
  xor = (a: Value, b: Value): Value => this.#int('xor', a, b);
  /** Shifts and rotates: the count has the operand's type and is taken modulo its width. */
  shl = (a: Value, n: Value): Value => this.#int('shl', a, n);
  shru = (a: Value, n: Value): Value => this.#int('shru', a, n);
  shrs = (a: Value, n: Value): Value => this.#int('shrs', a, n);
  rotl = (a: Value, n: Value): Value => this.#int('rotl', a, n);
  rotr = (a: Value, n: Value): Value => this.#int('rotr', a, n);
  /** Divisions trap the host on a zero divisor and on signed overflow: exclude both first. */
  divu = (a: Value, b: Value): Value => this.#int('divu', a, b);
  divs = (a: Value, b: Value): Value => this.#int('divs', a, b);
  remu = (a: Value, b: Value): Value => this.#int('remu', a, b);
  rems = (a: Value, b: Value): Value => this.#int('rems', a, b);
  /** Comparisons give an i32 of 0 or 1. */
  eq = (a: Value, b: Value): Value => this.#int('eq', a, b);
  ne = (a: Value, b: Value): Value => this.#int('ne', a, b);
  ltu = (a: Value, b: Value): Value => this.#int('ltu', a, b);
  lts = (a: Value, b: Value): Value => this.#int('lts', a, b);
  leu = (a: Value, b: Value): Value => this.#int('leu', a, b);
  les = (a: Value, b: Value): Value => this.#int('les', a, b);
  gtu = (a: Value, b: Value): Value => this.#int('gtu', a, b);
  gts = (a: Value, b: Value): Value => this.#int('gts', a, b);
  geu = (a: Value, b: Value): Value => this.#int('geu', a, b);
  ges = (a: Value, b: Value): Value => this.#int('ges', a, b);
  eqz = (a: Value): Value => this.#int('eqz', a);
  clz = (a: Value): Value => this.#int('clz', a);
  ctz = (a: Value): Value => this.#int('ctz', a);
  popcnt = (a: Value): Value => this.#int('popcnt', a);
  not(a: Value): Value {
    return this.xor(a, this.int(a.type, -1));
  }
  neg(a: Value): Value {
    return this.sub(this.int(a.type, 0), a);
  }
  /** Low 32 bits of an i64 (an i32 is passed through). */
  wrap(a: Value): Value {
    return a.type === 'i32' ? a : this.#pure(WRAP, [a]);
  }
  /** An i32 zero-extended to i64 (an i64 is passed through). */
  extu(a: Value): Value {
    return a.type === 'i64' ? a : this.#pure(EXTU, [a]);
  }
  /** An i32 sign-extended to i64 (an i64 is passed through). */
  exts(a: Value): Value {
    return a.type === 'i64' ? a : this.#pure(EXTS, [a]);
  }
  /** `value` as an integer of type `type`: zero-extended or truncated. */
  fit(type: Type, value: Value): Value {
    return type === 'i64' ? this.extu(value) : this.wrap(value);
  }
  /** `cond` (i32) not zero ? a : b. Both are computed. */
  select(cond: Value, a: Value, b: Value): Value {
    if (cond.kind === 'const') return cond.value !== 0 ? a : b;
    cond.uses++;
    a.uses++;
    b.uses++;
    return { kind: 'select', id: this.#id++, type: a.type, cond, args: [a, b], uses: 0 };
  }

  // -- guest state and host memory

  /** Reads a slot of the guest's state. */
  get(slot: Slot): Value {
    return this.#effect({ kind: 'get', id: this.#id++, type: slot.access.type, slot, uses: 0 });
  }
  /** Writes a slot of the guest's state. */
  set(slot: Slot, value: Value): void {
    value.uses++;
    this.#push({ kind: 'set', slot, value });
  }
  /**
   * Reads host memory at `ptr` plus `offset`: state, tables and decoded records by an i32, guest RAM by an i64 (which a memory of less than
   * 4 GiB cuts to 32 bits). Never guest-controlled.
   */
  raw(access: AccessName, ptr: Value, offset = 0): Value {
    ptr.uses++;
    return this.#effect({
      kind: 'raw',
      id: this.#id++,
      type: accesses[access].type,
      access: accesses[access],
      ptr,
      offset,
      uses: 0,
    });
  }
  /** Writes host memory at `ptr` plus `offset`: see `raw`. */
  setRaw(access: AccessName, ptr: Value, value: Value, offset = 0): void {
    ptr.uses++;
    value.uses++;
    this.#push({ kind: 'setraw', access: accesses[access], ptr, offset, value });
  }
  /** Copies `length` (i32) bytes of host memory, as if by an intermediate buffer. Addresses as in `raw`. */
  copy(to: Value, from: Value, length: Value): void {
    for (const v of [to, from, length]) v.uses++;
    this.#push({ kind: 'copy', to, from, length });
  }
  /** Fills `length` (i32) bytes of host memory with a byte (i32). The address is as in `raw`. */
  fill(to: Value, value: Value, length: Value): void {
    for (const v of [to, value, length]) v.uses++;
    this.#push({ kind: 'fill', to, value, length });
  }

  // -- guest memory

  /** Reads guest memory at the linear address `addr` (i64). `forWrite` demands write permission as well (read-modify-write). */
  load(access: AccessName, addr: Value, options: { space?: Space; forWrite?: boolean } = {}): Value {
    addr.uses++;
    const a = accesses[access];
    return this.#effect({
      kind: 'load', id: this.#id++, type: a.type, access: a, addr, space: options.space ?? 'current', forWrite: options.forWrite ?? false, uses: 0,
    }); // biome-ignore format: one node
  }
  /**
   * Writes guest memory at the linear address `addr` (i64). `span` is how many bytes from there must be writable before any is written, for
   * what is stored in parts; those of the access unless given.
   */
  store(access: AccessName, addr: Value, value: Value, options: { space?: Space; span?: number } = {}): void {
    addr.uses++;
    value.uses++;
    const a = accesses[access];
    this.#push({ kind: 'store', access: a, addr, value, space: options.space ?? 'current', span: options.span ?? a.bits / 8 });
  }
  /** Atomic read-modify-write of guest memory; gives the old value. `access` must be unsigned. */
  rmw(op: RmwOp, access: AccessName, addr: Value, value: Value): Value {
    addr.uses++;
    value.uses++;
    return this.#effect({
      kind: 'rmw',
      id: this.#id++,
      type: accesses[access].type,
      access: accesses[access],
      op,
      addr,
      value,
      uses: 0,
    });
  }
  /** Atomic compare-and-exchange of guest memory; gives the old value. */
  cmpxchg(access: AccessName, addr: Value, expected: Value, value: Value): Value {
    for (const v of [addr, expected, value]) v.uses++;
    return this.#effect({
      kind: 'cmpxchg',
      id: this.#id++,
      type: accesses[access].type,
      access: accesses[access],
      addr,
      expected,
      value,
      uses: 0,
    });
  }

  // -- calls

  /** Calls a function that gives a value. Where it may fault, a pending exception unwinds the caller. */
  call(callee: Callee, ...args: Value[]): Value {
    for (const a of args) a.uses++;
    if (!callee.result) throw new Error(`Cannot use the result of ${callee.name}: it has none`);
    return this.#effect({ kind: 'call', id: this.#id++, type: callee.result, callee, args, uses: 0 });
  }
  /** Calls a function for its effect. */
  do(callee: Callee, ...args: Value[]): void {
    for (const a of args) a.uses++;
    this.#push({ kind: 'do', callee, args });
  }

  // -- variables and control flow

  /** A mutable local, set to `initial`. */
  variable(initial: Value): Var {
    const variable: Var = { id: this.#id++, type: initial.type };
    this.setVar(variable, initial);
    return variable;
  }
  getVar(variable: Var): Value {
    return this.#effect({ kind: 'getvar', id: this.#id++, type: variable.type, variable, uses: 0 });
  }
  setVar(variable: Var, value: Value): void {
    value.uses++;
    this.#push({ kind: 'setvar', variable, value });
  }
  /** Runs `then` where `cond` (i32) is not zero, else `otherwise`. */
  if(cond: Value, then: () => void, otherwise?: () => void): void {
    if (cond.kind === 'const') {
      if (cond.value !== 0) then();
      else otherwise?.();
      return;
    }
    cond.uses++;
    const outer = this.#list;
    const endedBefore = this.#ended;
    const a = this.#inside(then);
    const thenEnded = this.#ended;
    this.#ended = endedBefore;
    const b = otherwise ? this.#inside(otherwise) : [];
    const elseEnded = otherwise ? this.#ended : false;
    this.#list = outer;
    this.#ended = endedBefore;
    this.#push({ kind: 'if', cond, then: a, else: b });
    if (thenEnded && elseEnded) this.#ended = true;
  }
  /** A value chosen by running one of two branches. */
  choose(type: Type, cond: Value, then: () => Value, otherwise: () => Value): Value {
    if (cond.kind === 'const') return cond.value !== 0 ? then() : otherwise();
    const result: Var = { id: this.#id++, type };
    this.if(
      cond,
      () => this.setVar(result, then()),
      () => this.setVar(result, otherwise()),
    );
    return this.getVar(result);
  }
  /** A loop: `br` to its label goes round again; reaching the end of the body leaves it. */
  loop(body: (again: Label) => void): void {
    this.#labelled('loop', body);
  }
  /** A block: `br` to its label goes to its end. */
  block(body: (end: Label) => void): void {
    this.#labelled('block', body);
  }
  /** Goes to a label, always or where `cond` is not zero. */
  br(label: Label, cond: Value | null = null): void {
    if (cond?.kind === 'const') {
      if (cond.value === 0) return;
      cond = null;
    }
    if (cond) cond.uses++;
    this.#push({ kind: 'br', label, cond });
    if (!cond) this.#ended = true;
  }
  /** Leaves the instruction or subroutine. */
  leave(how: LeaveKind, value: Value | null = null, reason = 0): void {
    if (value) value.uses++;
    this.#push({ kind: 'leave', how, value, reason });
    this.#ended = true;
  }
  /** Ends a subroutine with `value`. */
  ret(value: Value | null = null): void {
    this.leave('return', value);
  }
  /** True where the statements so far never reach this point. */
  get ended(): boolean {
    return this.#ended;
  }
  /** Appends ready statements (used to join separately built pieces). */
  append(statements: readonly Stmt[]): void {
    for (const s of statements) this.#push(s);
  }
  /** Statements for a way out that is taken seldom: they are built, but do not stand in the sequence. */
  aside(body: () => void): Stmt[] {
    const outer = this.#list;
    const ended = this.#ended;
    this.#ended = false;
    const list = this.#inside(body);
    this.#list = outer;
    this.#ended = ended;
    return list;
  }
  /** Takes the statements built so far and starts anew. */
  take(): Stmt[] {
    const list = this.#list;
    this.#list = [];
    this.#ended = false;
    return list;
  }
  finish(name: string, params: readonly Type[], result: Type | null): Func {
    return { name, params, result, body: this.take() };
  }

  // -- inside

  #inside(body: () => void): Stmt[] {
    const list: Stmt[] = [];
    this.#list = list;
    body();
    return list;
  }
  #labelled(kind: 'loop' | 'block', body: (label: Label) => void): void {
    const label: Label = { id: this.#id++, kind };
    const outer = this.#list;
    const ended = this.#ended;
    const inner = this.#inside(() => body(label));
    const innerEnded = this.#ended;
    this.#list = outer;
    this.#ended = ended;
    this.#push({ kind, label, body: inner });
    if (kind === 'loop' && innerEnded) this.#ended = true;
  }
  #push(s: Stmt): void {
    if (!this.#ended) this.#list.push(s);
  }
  #effect<T extends Effectful>(node: T): T {
    this.#push(node);
    return node;
  }
  #pure(op: PureOp, args: readonly Value[]): Value {
    const folded = this.#fold(op, args);
    if (folded) return folded;
    for (const a of args) a.uses++;
    return { kind: 'pure', id: this.#id++, type: op.result, op, args, lanes: none, uses: 0 };
  }
  #int(key: IntOp, a: Value, b?: Value): Value {
    if (a.type !== 'i32' && a.type !== 'i64') throw new Error(`Cannot ${key} a value of type ${a.type}: an i32 or i64 is needed`);
    if (b && b.type !== a.type) throw new Error(`Cannot ${key} ${a.type} and ${b.type}: the types must be equal`);
    const op = intOps[key][a.type];
    if (b?.kind === 'const') {
      const zero = a.type === 'i64' ? b.value === 0n : b.value === 0;
      if (zero) {
        if (
          key === 'add' ||
          key === 'sub' ||
          key === 'or' ||
          key === 'xor' ||
          key === 'shl' ||
          key === 'shru' ||
          key === 'shrs' ||
          key === 'rotl' ||
          key === 'rotr'
        )
          return a;
        if (key === 'and' || key === 'mul') return b;
      }
      const ones = a.type === 'i64' ? b.value === -1n : b.value === -1;
      if (ones && key === 'and') return a;
    } else if (b && a.kind === 'const' && op.commutes) return this.#int(key, b, a);
    return this.#pure(op, b ? [a, b] : [a]);
  }
  /** Folds what the translator meets: integer arithmetic on constants, extensions of constants, extension after extension. */
  #fold(op: PureOp, args: readonly Value[]): Value | null {
    const [a, b] = args;
    if (op === WRAP) {
      if (a.kind === 'const') return this.i32(Number(BigInt.asIntN(32, a.value as bigint)));
      if (a.kind === 'pure' && (a.op === EXTU || a.op === EXTS)) return a.args[0];
      return null;
    }
    if (a.kind !== 'const' || (b && b.kind !== 'const') || args.length > 2) return null;
    if (a.type === 'i32' && op.name.startsWith('i32.')) {
      const r = fold32(op.name.slice(4), a.value as number, (b?.value ?? 0) as number);
      return r === null ? null : this.i32(r);
    }
    if (op === EXTU) return this.i64(BigInt((a.value as number) >>> 0));
    if (op === EXTS) return this.i64(BigInt(a.value as number));
    if (a.type === 'i64' && op.name.startsWith('i64.')) {
      const r = fold64(op.name.slice(4), a.value as bigint, (b?.value ?? 0n) as bigint);
      return r === null ? null : op.result === 'i32' ? this.i32(Number(r)) : this.i64(r);
    }
    return null;
  }
}

function fold32(name: string, a: number, b: number): number | null {
  switch (name) {
    case 'add': return a + b;
    case 'sub': return a - b;
    case 'mul': return Math.imul(a, b);
    case 'and': return a & b;
    case 'or': return a | b;
    case 'xor': return a ^ b;
    case 'shl': return a << b;
    case 'shr_u': return a >>> b;
    case 'shr_s': return a >> b;
    case 'eq': return a === b ? 1 : 0;
    case 'ne': return a !== b ? 1 : 0;
    case 'eqz': return a === 0 ? 1 : 0;
    case 'lt_u': return a >>> 0 < b >>> 0 ? 1 : 0;
    case 'lt_s': return a < b ? 1 : 0;
    default: return null;
  } // biome-ignore format: a table
}

function fold64(name: string, a: bigint, b: bigint): bigint | null {
  switch (name) {
    case 'add': return a + b;
    case 'sub': return a - b;
    case 'mul': return a * b;
    case 'and': return a & b;
    case 'or': return a | b;
    case 'xor': return a ^ b;
    case 'shl': return a << (b & 63n);
    case 'shr_u': return (a & M64) >> (b & 63n);
    case 'shr_s': return a >> (b & 63n);
    case 'eq': return a === b ? 1n : 0n;
    case 'ne': return a !== b ? 1n : 0n;
    case 'eqz': return a === 0n ? 1n : 0n;
    case 'lt_u': return (a & M64) < (b & M64) ? 1n : 0n;
    case 'lt_s': return a < b ? 1n : 0n;
    default: return null;
  } // biome-ignore format: a table
}
