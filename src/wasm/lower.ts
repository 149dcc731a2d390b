// Lowers IR to the body of a WebAssembly function. What depends on the tier (how an instruction is left, which function a callee
// is) comes from a `Target`; guest memory accesses become an inline look-up in the software TLB with a call for the rest.

import type { Callee, Label, RmwOp, Stmt, Value, Var } from '../ir/ir.ts';
import type { Access, Type } from '../ir/ops.ts';
import { Bytes } from './bytes.ts';
import { type BranchHint, type FunctionBody, typeCode } from './module.ts';

/** Block type of a block without a result. */
const VOID = 0x40;

/** Slots and layout of the software TLB that memory accesses are lowered to (byte offsets from `env`). */
export interface TlbLayout {
  readonly current: number;
  readonly system: number;
  readonly entries: number;
  readonly pageBits: number;
  /** Offset of the pending-exception slot (i32, 0 for none). */
  readonly pending: number;
}

/** An access that is served by a look at a cell, its own or an earlier one of the same group: see `Cells`. */
export interface NearAccess {
  /** Local that holds the host address of the group's lowest byte. */
  readonly local: number;
  /** The access's place from there. */
  readonly offset: number;
  /** Where the look is not served, the local holds 0, and each access goes the slow way. */
  readonly soft: boolean;
  /**
   * Where the look is taken: the group's cell; whether it goes into the TLB; its lowest byte relative to this access, its bytes, whether one
   * of its accesses writes, and the word that tells a miss.
   */
  readonly look: {
    readonly cell: number;
    readonly inTlb: boolean;
    readonly lowest: number;
    readonly bytes: number;
    readonly write: boolean;
    readonly word: number;
  } | null;
}

/** Entries of the TLB that belong to single accesses or groups of accesses. Places are offsets from `env`. */
export interface Cells {
  /** Local (i64) with the key under which entries hold; its low bits, those of an offset in a page, are zero. */
  readonly key: number;
  /** Places in an entry: page and key (i64 each), addend (i32). */
  readonly page: number;
  readonly filled: number;
  readonly addend: number;
  /** How an access is served, or undefined where it has no cell. */
  near(s: Stmt): NearAccess | undefined;
  /** What serves a cell that misses: (address of the lowest byte, the look's word, cell) → host address or 0. */
  readonly miss: Callee;
  /** The same for a look into the TLB. */
  readonly tlbMiss: Callee;
  /** Emits the code for an access that is not served. */
  refused(lower: Lower): void;
}

/** What a tier decides. */
export interface Target {
  /** The state's host address, where code is for one vCPU: V8 has registers for what is not known only. Else it is the first parameter. */
  readonly env?: number;
  readonly cells?: Cells;
  readonly tlb: TlbLayout;
  /** The memory has addresses of 64 bits: see `Lower.memory`. */
  readonly wide: boolean;
  /** Function index of a callee. */
  callee(callee: Callee): number;
  /** The slow paths of guest accesses. */
  readonly slow: {
    readonly load: Callee;
    readonly store: Callee;
    /** Of 128 bits; a store also takes how many bytes must be writable. */
    readonly loadVector: Callee;
    readonly storeVector: Callee;
    readonly rmw: Callee;
    readonly cmpxchg: Callee;
  };
  /** False where accesses are to be calls of the slow path only (code that runs seldom). */
  readonly inlineMemory: boolean;
  /** Emits the code for a way out. */
  leave(lower: Lower, stmt: Stmt & { kind: 'leave' }): void;
  /** Emits the code that runs when an exception is pending. */
  fault(lower: Lower): void;
  /** The local that holds a slot of the state in this function, if one does (by the slot's offset). */
  local?(offset: number): number | undefined;
  /** Emits an arm of an `if` by `emit`. */
  arm?(list: readonly Stmt[], emit: () => void): void;
  /** Emits what must happen before a slot that may be in a local is read. */
  beforeGet?(lower: Lower, offset: number): void;
  /** Emits what must happen after a slot in a local was set. */
  afterSet?(lower: Lower, offset: number): void;
  /** Emits what must happen before a store that goes the slow way, and after it. */
  storing?(lower: Lower): void;
  stored?(lower: Lower): void;
  /** Emits what must happen before and after a call that may look at slots kept in locals. */
  beforeCall?(lower: Lower, callee: Callee): void;
  afterCall?(lower: Lower, callee: Callee): void;
}

// Atomic opcodes (threads proposal): [8, 16, 32 bits of i32, 64 bits of i64].
const ATOMIC: Readonly<Record<RmwOp | 'cmpxchg', readonly number[]>> = {
  add: [0x20, 0x21, 0x1e, 0x1f],
  sub: [0x27, 0x28, 0x25, 0x26],
  and: [0x2e, 0x2f, 0x2c, 0x2d],
  or: [0x35, 0x36, 0x33, 0x34],
  xor: [0x3c, 0x3d, 0x3a, 0x3b],
  xchg: [0x43, 0x44, 0x41, 0x42],
  cmpxchg: [0x4a, 0x4b, 0x48, 0x49],
};
export const RMW_NUMBER: Readonly<Record<RmwOp, number>> = { add: 0, sub: 1, and: 2, or: 3, xor: 4, xchg: 5 };
const atomicColumn = (bits: number): number => (bits === 8 ? 0 : bits === 16 ? 1 : bits === 32 ? 2 : 3);
const log2Bytes = (bits: number): number => (bits === 8 ? 0 : bits === 16 ? 1 : bits === 32 ? 2 : bits === 64 ? 3 : 4);

/** Bits of the `how` argument of the slow paths. */
const HOW_WRITE = 4;
const HOW_SYSTEM = 8;

const WRAP = 0xa7;
const EXTEND_U = 0xad;
/** Type of what a store takes from the stack; null for a load. */
function storedType(opcode: number): Type | null {
  if (opcode === 0x36 || opcode === 0x3a || opcode === 0x3b) return 'i32';
  if (opcode === 0x37 || (opcode >= 0x3c && opcode <= 0x3e)) return 'i64';
  if (opcode === 0x38) return 'f32';
  if (opcode === 0x39) return 'f64';
  return opcode === 0x1000b ? 'v128' : null;
}

const LOCAL_GET = 0x20;
const LOCAL_SET = 0x21;
const LOCAL_TEE = 0x22;

/** A local in use, and the value that it holds (-1: none that is looked up). */
interface Owned {
  readonly type: Type;
  readonly local: number;
  value: number;
}

/** The last part in which each value is named, by value id. */
function lastUses(parts: readonly { readonly code: readonly Stmt[]; readonly aside?: readonly Stmt[] }[]): Map<number, number> {
  const last = new Map<number, number>();
  parts.forEach(({ code, aside }, k) => {
    const value = (v: Value): void => {
      // What is inside a value was met with it.
      if (last.get(v.id) === k) return;
      last.set(v.id, k);
      if (v.kind === 'pure' || v.kind === 'select') v.args.forEach(value);
      if (v.kind === 'select') value(v.cond);
    };
    const list = (statements: readonly Stmt[]): void => {
      for (const s of statements) {
        switch (s.kind) {
          case 'get':
          case 'getvar':
            break;
          case 'raw':
            value(s.ptr);
            break;
          case 'setraw':
            value(s.ptr);
            value(s.value);
            break;
          case 'set':
          case 'setvar':
            value(s.value);
            break;
          case 'load':
            value(s.addr);
            break;
          case 'cmpxchg':
            value(s.expected);
            value(s.addr);
            value(s.value);
            break;
          case 'store':
          case 'rmw':
            value(s.addr);
            value(s.value);
            break;
          case 'call':
          case 'do':
            s.args.forEach(value);
            break;
          case 'copy':
            value(s.to);
            value(s.from);
            value(s.length);
            break;
          case 'fill':
            value(s.to);
            value(s.value);
            value(s.length);
            break;
          case 'if':
            value(s.cond);
            list(s.then);
            list(s.else);
            break;
          case 'loop':
          case 'block':
            list(s.body);
            break;
          case 'br':
            if (s.cond) value(s.cond);
            break;
          case 'leave':
            if (s.value) value(s.value);
            break;
          default:
            s satisfies never;
        }
      }
    };
    list(code);
    if (aside) list(aside);
  });
  return last;
}

/** Writes the code of one function. Local 0 is `env`; parameters follow. */
export class Lower {
  readonly out = new Bytes();
  readonly target: Target;
  readonly #paramBase: number;
  readonly #localTypes: Type[] = [];
  readonly #free = new Map<Type, number[]>();
  readonly #fixed: number;
  /** Local of each value in the current piece of IR, by value id, and the values to forget at the end of each scope. */
  #values = new Map<number, number>();
  #vars = new Map<number, number>();
  #scopes: number[][] = [];
  readonly #labels: (number | null)[] = [];
  #params: readonly number[] = [];

  /** `params` are the parameter types after `env`. */
  constructor(target: Target, params: readonly Type[]) {
    this.target = target;
    this.#paramBase = 1;
    this.#fixed = 1 + params.length;
    this.#params = params.map((_, i) => i + this.#paramBase);
  }

  // -- pieces of code that tiers write themselves

  readonly #hints: BranchHint[] = [];
  /** Notes how the branch that comes next goes as a rule. */
  #hint(likely: boolean): void {
    this.#hints.push({ offset: this.out.length, likely });
  }

  /** Enters a block, loop or if, for label depths; `label` is the IR label's id where there is one. */
  open(opcode: number, blockType = VOID, label: number | null = null, likely?: boolean): void {
    if (likely !== undefined) this.#hint(likely);
    this.out.u8(opcode);
    this.out.u8(blockType);
    this.#labels.push(label);
  }
  close(): void {
    this.out.u8(0x0b);
    this.#labels.pop();
  }
  /** Depth of nesting: record it where a block is opened, and give it to `brTo`. */
  get depth(): number {
    return this.#labels.length;
  }
  /** Branches to the block or loop that was opened when `depth` was `level`. */
  brTo(level: number, conditional = false, likely?: boolean): void {
    if (likely !== undefined) this.#hint(likely);
    this.out.u8(conditional ? 0x0d : 0x0c);
    this.out.uleb(this.#labels.length - 1 - level);
  }
  relative(level: number): number {
    return this.#labels.length - 1 - level;
  }
  op(...bytes: number[]): void {
    for (const b of bytes) this.out.u8(b);
  }
  i32(value: number): void {
    this.out.u8(0x41);
    this.out.sleb(value | 0);
  }
  i64(value: bigint): void {
    this.out.u8(0x42);
    this.out.sleb64(BigInt.asIntN(64, value));
  }
  /** Puts the state's host address on the stack. */
  env(): void {
    const { env } = this.target;
    if (env === undefined) this.localGet(0);
    else this.i32(env);
  }
  localGet(n: number): void {
    this.out.u8(LOCAL_GET);
    this.out.uleb(n);
  }
  localSet(n: number): void {
    this.out.u8(LOCAL_SET);
    this.out.uleb(n);
  }
  localTee(n: number): void {
    this.out.u8(LOCAL_TEE);
    this.out.uleb(n);
  }
  readonly #stored = new Map<Type, number>();
  /**
   * A load or store with its offset, for the i32 address on the stack (below the value that is stored). Where the memory is wide, the
   * address is widened in between: what belongs to vCPUs lies below 4 GiB.
   */
  memory(opcode: number, offset: number): void {
    if (this.target.wide) {
      const type = storedType(opcode);
      if (type === null) this.out.u8(EXTEND_U);
      else {
        let local = this.#stored.get(type);
        if (local === undefined) {
          local = this.local(type);
          this.#stored.set(type, local);
        }
        this.localSet(local);
        this.out.u8(EXTEND_U);
        this.localGet(local);
      }
    }
    this.#access(opcode, offset);
  }
  /** The same for an address that has the memory's own width. */
  #access(opcode: number, offset: number): void {
    if (opcode >= 0x10000) {
      this.out.u8(0xfd);
      this.out.uleb(opcode - 0x10000);
    } else this.out.u8(opcode);
    this.out.u8(0);
    this.out.uleb(offset);
  }
  /** Loads an i32 of the vCPU's state. */
  stateI32(offset: number): void {
    this.env();
    this.memory(0x28, offset);
  }
  call(callee: Callee): void {
    this.out.u8(0x10);
    this.out.uleb(this.target.callee(callee));
  }
  /** A new local that stays reserved. */
  local(type: Type): number {
    return this.#fixed + this.#localTypes.push(type) - 1;
  }

  #held: { readonly type: Type; readonly local: number }[] = [];
  /** A local that stays reserved to the end of the sequence that is being lowered. */
  hold(type: Type): number {
    const local = this.#acquire(type);
    this.#held.push({ type, local });
    return local;
  }

  // -- locals of one piece of IR

  #acquire(type: Type): number {
    const pool = this.#free.get(type);
    const n = pool?.pop();
    return n ?? this.local(type);
  }
  #owned: Owned[] = [];
  #temp(type: Type): number {
    const local = this.#acquire(type);
    this.#owned.push({ type, local, value: -1 });
    return local;
  }
  /**
   * Lowers a piece of IR whose values are not needed afterwards; its locals are used again by the next piece. `params` are the
   * locals that stand for the piece's parameters.
   */
  piece(body: readonly Stmt[], params: readonly number[] = this.#params): void {
    this.sequence([{ code: body, enter: () => {} }], params);
  }
  /** The same for a piece in parts: `enter` is called before each part's code; `aside` may be lowered on ways out of the part. */
  sequence(
    parts: readonly { readonly code: readonly Stmt[]; readonly aside?: readonly Stmt[]; readonly enter: () => void }[],
    params: readonly number[] = this.#params,
  ): void {
    this.#params = params;
    this.#values = new Map();
    this.#vars = new Map();
    this.#scopes = [[]];
    this.#owned = [];
    this.#held = [];
    const last = parts.length > 1 ? lastUses(parts) : undefined;
    parts.forEach(({ code, enter }, k) => {
      enter();
      this.statements(code);
      // A local is free again once no later part needs its value: many locals are dear at every join of control flow.
      if (last) this.#giveBack((value) => (last.get(value) ?? -1) > k);
    });
    this.#owned.push(...this.#held.map(({ type, local }) => ({ type, local, value: -1 })));
    this.#held = [];
    this.#giveBack(() => false);
  }
  /** Frees locals, but for those of values that are `needed`. */
  #giveBack(needed: (value: number) => boolean): void {
    const kept: Owned[] = [];
    for (const owned of this.#owned) {
      if (owned.value >= 0 && needed(owned.value)) {
        kept.push(owned);
        continue;
      }
      if (owned.value >= 0) this.#values.delete(owned.value);
      let pool = this.#free.get(owned.type);
      if (!pool) {
        pool = [];
        this.#free.set(owned.type, pool);
      }
      pool.push(owned.local);
    }
    this.#owned = kept;
  }
  /** Lowers a piece of IR in the middle of another one, whose values stay known. */
  nested(body: () => void): void {
    const saved = [this.#values, this.#vars, this.#scopes, this.#owned, this.#params, this.#held] as const;
    body();
    [this.#values, this.#vars, this.#scopes, this.#owned, this.#params, this.#held] = saved;
  }
  /** Number of locals so far. */
  get localCount(): number {
    return this.#localTypes.length;
  }
  /** The finished body: local declarations, code, end; and where branches are predictable. */
  finish(): FunctionBody {
    const b = new Bytes();
    const runs: { type: Type; count: number }[] = [];
    for (const type of this.#localTypes) {
      const last = runs[runs.length - 1];
      if (last?.type === type) last.count++;
      else runs.push({ type, count: 1 });
    }
    b.uleb(runs.length);
    for (const r of runs) {
      b.uleb(r.count);
      b.u8(typeCode(r.type));
    }
    const start = b.length;
    b.append(this.out);
    b.u8(0x0b);
    return { code: b.view(), hints: this.#hints.map(({ offset, likely }) => ({ offset: start + offset, likely })) };
  }

  // -- values

  /** Puts a value on the stack. */
  value(v: Value): void {
    const known = this.#values.get(v.id);
    if (known !== undefined) return this.localGet(known);
    switch (v.kind) {
      case 'const':
        return this.#constant(v);
      case 'env':
        return this.env();
      case 'param':
        return this.localGet(this.#params[v.index]);
      case 'pure':
        for (const a of v.args) this.value(a);
        this.#opcode(v.op.code);
        for (const lane of v.lanes) this.out.u8(lane);
        return this.#keep(v);
      case 'select':
        this.value(v.args[0]);
        this.value(v.args[1]);
        this.value(v.cond);
        if (v.type === 'v128') this.op(0x1c, 1, typeCode('v128'));
        else this.out.u8(0x1b);
        return this.#keep(v);
      default:
        throw new Error(`Cannot lower a ${v.kind} value that is used where its definition does not dominate`);
    }
  }
  #opcode(code: number): void {
    if (code >= 0x20000) {
      this.out.u8(0xfc);
      this.out.uleb(code - 0x20000);
    } else if (code >= 0x10000) {
      this.out.u8(0xfd);
      this.out.uleb(code - 0x10000);
    } else this.out.u8(code);
  }
  /** A pure value on the stack that is used again goes to a local, valid to the end of the scope. */
  #keep(v: Value): void {
    if (v.uses < 2) return;
    const n = this.#temp(v.type);
    this.localTee(n);
    this.#define(v, n);
  }
  #define(v: Value, local: number): void {
    const owned = this.#owned[this.#owned.length - 1];
    if (owned?.local === local) owned.value = v.id;
    this.#values.set(v.id, local);
    this.#scopes[this.#scopes.length - 1].push(v.id);
  }
  #constant(v: Value & { kind: 'const' }): void {
    if (v.type === 'i32') this.i32(v.value as number);
    else if (v.type === 'i64') this.i64(v.value as bigint);
    else if (v.type === 'f32') {
      this.out.u8(0x43);
      this.out.f32(v.value as number);
    } else if (v.type === 'f64') {
      this.out.u8(0x44);
      this.out.f64(v.value as number);
    } else {
      this.op(0xfd, 0x0c);
      this.out.raw(v.value as Uint8Array);
    }
  }
  /** A value in a local (its own, or a new one). */
  #inLocal(v: Value): number {
    const known = this.#values.get(v.id);
    if (known !== undefined) return known;
    if (v.kind === 'env') return 0;
    if (v.kind === 'param') return this.#params[v.index];
    this.value(v);
    const now = this.#values.get(v.id);
    if (now !== undefined) {
      this.out.u8(0x1a);
      return now;
    }
    const n = this.#temp(v.type);
    this.localSet(n);
    this.#define(v, n);
    return n;
  }

  /** Puts a host address, or a number of bytes, on the stack as the memory takes it. */
  #address(v: Value): void {
    this.value(v);
    if ((v.type === 'i64') !== this.target.wide) this.out.u8(this.target.wide ? EXTEND_U : WRAP);
  }

  // -- statements

  statements(list: readonly Stmt[]): void {
    for (const s of list) this.#statement(s);
  }
  /** Statements on a way out, in the middle of a piece. */
  aside(list: readonly Stmt[]): void {
    this.#scope(list);
  }
  #scope(list: readonly Stmt[]): void {
    this.#scopes.push([]);
    this.statements(list);
    for (const id of this.#scopes.pop()!) this.#values.delete(id);
  }
  #result(v: Value): void {
    if (v.uses === 0) return this.out.u8(0x1a);
    const n = this.#temp(v.type);
    this.localSet(n);
    this.#define(v, n);
  }
  #varLocal(v: Var): number {
    let n = this.#vars.get(v.id);
    if (n === undefined) {
      n = this.#temp(v.type);
      this.#vars.set(v.id, n);
    }
    return n;
  }
  #br(label: Label): void {
    for (let i = this.#labels.length - 1; i >= 0; i--) {
      if (this.#labels[i] === label.id) return this.out.uleb(this.#labels.length - 1 - i);
    }
    throw new Error(`Cannot branch to label ${label.id}: it is not in scope`);
  }

  #statement(s: Stmt): void {
    switch (s.kind) {
      case 'get': {
        if (s.uses === 0) return;
        this.target.beforeGet?.(this, s.slot.offset);
        const kept = this.target.local?.(s.slot.offset);
        if (kept !== undefined) this.localGet(kept);
        else {
          this.env();
          this.memory(s.slot.access.load, s.slot.offset);
        }
        return this.#result(s);
      }
      case 'raw':
        if (s.uses === 0) return;
        this.#address(s.ptr);
        this.#access(s.access.load, s.offset);
        return this.#result(s);
      case 'getvar':
        if (s.uses === 0) return;
        this.localGet(this.#varLocal(s.variable));
        return this.#result(s);
      case 'set': {
        const kept = this.target.local?.(s.slot.offset);
        if (kept !== undefined) {
          this.value(s.value);
          this.localSet(kept);
          return this.target.afterSet?.(this, s.slot.offset);
        }
        this.env();
        this.value(s.value);
        return this.memory(s.slot.access.store, s.slot.offset);
      }
      case 'setraw':
        this.#address(s.ptr);
        this.value(s.value);
        return this.#access(s.access.store, s.offset);
      case 'setvar':
        this.value(s.value);
        return this.localSet(this.#varLocal(s.variable));
      case 'copy':
        for (const v of [s.to, s.from, s.length]) this.#address(v);
        return this.op(0xfc, 10, 0, 0);
      case 'fill':
        this.#address(s.to);
        this.value(s.value);
        this.#address(s.length);
        return this.op(0xfc, 11, 0);
      case 'load':
        return this.#load(s);
      case 'store':
        return this.#store(s);
      case 'rmw':
      case 'cmpxchg':
        return this.#atomic(s);
      case 'call':
        this.target.beforeCall?.(this, s.callee);
        this.#arguments(s.callee, s.args);
        this.#result(s);
        this.target.afterCall?.(this, s.callee);
        return this.#check(s.callee);
      case 'do':
        this.target.beforeCall?.(this, s.callee);
        this.#arguments(s.callee, s.args);
        if (s.callee.result) this.out.u8(0x1a);
        this.target.afterCall?.(this, s.callee);
        return this.#check(s.callee);
      case 'if':
        this.value(s.cond);
        this.open(0x04);
        this.#arm(s.then);
        if (s.else.length > 0) {
          this.out.u8(0x05);
          this.#arm(s.else);
        }
        return this.close();
      case 'loop':
      case 'block':
        this.open(s.kind === 'loop' ? 0x03 : 0x02, VOID, s.label.id);
        this.#scope(s.body);
        return this.close();
      case 'br':
        if (s.cond) this.value(s.cond);
        this.out.u8(s.cond ? 0x0d : 0x0c);
        return this.#br(s.label);
      case 'leave':
        return this.target.leave(this, s);
      default:
        s satisfies never;
    }
  }
  #arm(list: readonly Stmt[]): void {
    const { arm } = this.target;
    if (arm) arm(list, () => this.#scope(list));
    else this.#scope(list);
  }
  #arguments(callee: Callee, args: readonly Value[]): void {
    if (args.length !== callee.params.length)
      throw new Error(`Cannot call ${callee.name} with ${args.length} arguments: it takes ${callee.params.length}`);
    if (!callee.host) this.env();
    for (const a of args) this.value(a);
    this.call(callee);
  }
  /** Unwinds where a call left an exception pending. */
  #check(callee: Callee): void {
    if (!callee.faults) return;
    this.checkPending();
  }
  /** Code that unwinds where an exception is pending. */
  checkPending(): void {
    this.stateI32(this.target.tlb.pending);
    this.open(0x04, VOID, null, false);
    this.target.fault(this);
    this.close();
  }

  // -- guest memory

  /** Puts the address of the TLB entry for the address in local `addr` into a local. */
  #entry(addr: number, system: boolean): number {
    const { tlb } = this.target;
    const entry = this.#temp('i32');
    const base = system ? undefined : this.target.local?.(tlb.current);
    if (base === undefined) this.stateI32(system ? tlb.system : tlb.current);
    else this.localGet(base);
    this.localGet(addr);
    // The entry's byte offset: page number modulo entries, times 16.
    this.out.u8(WRAP);
    this.i32(tlb.pageBits - 4);
    this.out.u8(0x76);
    this.i32((tlb.entries - 1) << 4);
    this.op(0x71, 0x6a);
    this.localTee(entry);
    return entry;
  }
  /** Last byte of an access, as i64. */
  #lastByte(addr: number, bytes: number): void {
    this.localGet(addr);
    if (bytes > 1) {
      this.i64(BigInt(bytes - 1));
      this.out.u8(0x7c);
    }
  }
  #readHit(addr: number, bytes: number, system: boolean): number {
    const entry = this.#entry(addr, system);
    this.memory(0x29, 0);
    this.#lastByte(addr, bytes);
    this.out.u8(0x85);
    this.i64(1n << BigInt(this.target.tlb.pageBits));
    this.out.u8(0x54);
    return entry;
  }
  #writeHit(addr: number, bytes: number, system: boolean): number {
    const entry = this.#entry(addr, system);
    this.memory(0x29, 0);
    this.#lastByte(addr, bytes);
    this.i64(-(1n << BigInt(this.target.tlb.pageBits)));
    this.op(0x83, 0x51);
    return entry;
  }
  /** Host address, as the memory takes it, of the guest address in `addr`, through a TLB entry that hits. */
  #hostAddress(addr: number, entry: number): void {
    this.localGet(addr);
    this.out.u8(WRAP);
    if (this.target.wide) this.out.u8(EXTEND_U);
    this.localGet(entry);
    this.memory(0x28, 8);
    this.#plusAddend();
  }
  /** Adds the addend on the stack to the low half of an address below it: bytes, or pages where the memory is wide. See isa/x86/tlb.ts. */
  #plusAddend(): void {
    if (!this.target.wide) return this.out.u8(0x6a);
    this.out.u8(0xac);
    this.i64(BigInt(this.target.tlb.pageBits));
    this.op(0x86, 0x7c);
  }
  #slowLoad(addr: number, access: Access, how: number): void {
    const { slow } = this.target;
    const vector = access.type === 'v128';
    this.env();
    this.localGet(addr);
    this.i32(vector ? how : log2Bytes(access.bits) | how);
    this.call(vector ? slow.loadVector : slow.load);
    if (!vector) this.#fromI64(access);
    this.checkPending();
  }
  #fromI64(access: Access): void {
    switch (access.name) {
      case 'i32.8s':
        return this.op(0xa7, 0xc0);
      case 'i32.16s':
        return this.op(0xa7, 0xc1);
      case 'i64.8s':
        return this.op(0xc2);
      case 'i64.16s':
        return this.op(0xc3);
      case 'i64.32s':
        return this.op(0xc4);
      case 'f64':
        return this.op(0xbf);
      case 'f32':
        return this.op(0xa7, 0xbe);
      default:
        if (access.type === 'i32') this.out.u8(0xa7);
    }
  }
  #toI64(type: Type): void {
    if (type === 'i32') this.out.u8(0xad);
    else if (type === 'f64') this.out.u8(0xbd);
    else if (type === 'f32') this.op(0xbc, 0xad);
  }

  /** Takes the look of an access's group, where it is the first one: from then on the group's local holds the host address. */
  #near(near: NearAccess, addr: number): void {
    const { look } = near;
    if (!look) return;
    const cells = this.target.cells!;
    let first = addr;
    if (look.lowest !== 0) {
      first = this.#temp('i64');
      this.localGet(addr);
      this.i64(BigInt(look.lowest));
      this.out.u8(0x7c);
      this.localSet(first);
    }
    const { wide } = this.target;
    const { inTlb } = look;
    let entry = -1;
    if (!inTlb) this.#cellHit(look.cell, first, look.bytes);
    else if (look.write) entry = this.#writeHit(first, look.bytes, false);
    else entry = this.#readHit(first, look.bytes, false);
    this.open(0x04, typeCode(this.addressType), null, true);
    if (inTlb) this.#hostAddress(first, entry);
    else this.#cellAddress(look.cell, first);
    this.out.u8(0x05);
    this.env();
    this.localGet(first);
    this.i32(look.word);
    this.i32(look.cell);
    this.call(inTlb ? cells.tlbMiss : cells.miss);
    if (!wide) this.out.u8(WRAP);
    this.localTee(near.local);
    this.out.u8(wide ? 0x50 : 0x45);
    this.open(0x04, VOID, null, false);
    if (near.soft) this.checkPending();
    else cells.refused(this);
    this.close();
    this.localGet(near.local);
    this.close();
    this.localSet(near.local);
  }
  /** Puts on the stack whether a cell holds the page of the address in `addr`, and `bytes` from there do not leave it. */
  #cellHit(cell: number, addr: number, bytes: number): void {
    const cells = this.target.cells!;
    this.env();
    this.memory(0x29, cell + cells.page);
    this.localGet(addr);
    this.out.u8(0x85);
    this.env();
    this.memory(0x29, cell + cells.filled);
    this.localGet(cells.key);
    // Neither has any of the low bits. An operand of an XOR would be loaded twice by V8 (decision 013).
    this.op(0x7d, 0x84);
    this.i64((1n << BigInt(this.target.tlb.pageBits)) - BigInt(bytes));
    this.out.u8(0x58);
  }
  #cellAddress(cell: number, addr: number): void {
    this.localGet(addr);
    this.out.u8(WRAP);
    if (this.target.wide) this.out.u8(EXTEND_U);
    this.env();
    this.memory(0x28, cell + this.target.cells!.addend);
    this.#plusAddend();
  }
  /** Type of a host address in guest RAM. */
  get addressType(): 'i32' | 'i64' {
    return this.target.wide ? 'i64' : 'i32';
  }
  /** Takes the address of a near access as a condition: 0 where it was not served. */
  #served(near: NearAccess): void {
    this.localGet(near.local);
    if (this.target.wide) {
      this.i64(0n);
      this.out.u8(0x52);
    }
  }

  #load(s: Stmt & { kind: 'load' }): void {
    const addr = this.#inLocal(s.addr);
    const how = (s.forWrite ? HOW_WRITE : 0) | (s.space === 'system' ? HOW_SYSTEM : 0);
    const near = this.target.cells?.near(s);
    if (near) {
      this.#near(near, addr);
      if (near.soft) {
        this.#served(near);
        this.open(0x04, typeCode(s.access.type), null, true);
      }
      this.localGet(near.local);
      this.#access(s.access.load, near.offset);
      if (near.soft) {
        this.out.u8(0x05);
        this.#slowLoad(addr, s.access, how);
        this.close();
      }
      return this.#result(s);
    }
    if (!this.target.inlineMemory) {
      this.#slowLoad(addr, s.access, how);
      return this.#result(s);
    }
    const bytes = s.access.bits / 8;
    const system = s.space === 'system';
    const entry = s.forWrite ? this.#writeHit(addr, bytes, system) : this.#readHit(addr, bytes, system);
    this.open(0x04, typeCode(s.access.type), null, true);
    this.#hostAddress(addr, entry);
    this.#access(s.access.load, 0);
    this.out.u8(0x05);
    this.#slowLoad(addr, s.access, how);
    this.close();
    this.#result(s);
  }

  #store(s: Stmt & { kind: 'store' }): void {
    const addr = this.#inLocal(s.addr);
    const value = this.#inLocal(s.value);
    const system = s.space === 'system';
    const how = HOW_WRITE | (system ? HOW_SYSTEM : 0);
    const near = this.target.cells?.near(s);
    if (near) {
      this.#near(near, addr);
      if (near.soft) {
        this.#served(near);
        this.open(0x04, VOID, null, true);
      }
      this.localGet(near.local);
      this.localGet(value);
      this.#access(s.access.store, near.offset);
      if (!near.soft) return;
      this.out.u8(0x05);
    } else if (this.target.inlineMemory) {
      const entry = this.#writeHit(addr, s.span, system);
      this.open(0x04, VOID, null, true);
      this.#hostAddress(addr, entry);
      this.localGet(value);
      this.#access(s.access.store, 0);
      this.out.u8(0x05);
    }
    this.target.storing?.(this);
    this.env();
    this.localGet(addr);
    this.localGet(value);
    if (s.access.type === 'v128') {
      this.i32(s.span);
      this.i32(how);
      this.call(this.target.slow.storeVector);
    } else {
      if (s.span > s.access.bits / 8) throw new Error(`Cannot lower a store of ${s.access.name} that asks for ${s.span} bytes`);
      this.#toI64(s.access.type);
      this.i32(log2Bytes(s.access.bits) | how);
      this.call(this.target.slow.store);
    }
    this.checkPending();
    this.target.stored?.(this);
    if (near || this.target.inlineMemory) this.close();
  }

  #atomic(s: Stmt & { kind: 'rmw' | 'cmpxchg' }): void {
    const addr = this.#inLocal(s.addr);
    const expected = s.kind === 'cmpxchg' ? this.#inLocal(s.expected) : -1;
    const value = this.#inLocal(s.value);
    const { bits, type } = s.access;
    const bytes = bits / 8;
    const entry = this.#writeHit(addr, bytes, false);
    if (bytes > 1) {
      this.localGet(addr);
      this.out.u8(0xa7);
      this.i32(bytes - 1);
      this.op(0x71, 0x45, 0x71);
    }
    this.open(0x04, typeCode(type), null, true);
    this.#hostAddress(addr, entry);
    if (s.kind === 'cmpxchg') this.localGet(expected);
    this.localGet(value);
    this.op(0xfe, ATOMIC[s.kind === 'cmpxchg' ? 'cmpxchg' : s.op][atomicColumn(bits)]);
    this.op(log2Bytes(bits), 0);
    this.out.u8(0x05);
    const how = log2Bytes(bits) | HOW_WRITE;
    this.target.storing?.(this);
    this.env();
    this.localGet(addr);
    if (s.kind === 'cmpxchg') {
      this.localGet(expected);
      this.#toI64(type);
    }
    this.localGet(value);
    this.#toI64(type);
    this.i32(s.kind === 'cmpxchg' ? how : how | (RMW_NUMBER[s.op] << 8));
    this.call(s.kind === 'cmpxchg' ? this.target.slow.cmpxchg : this.target.slow.rmw);
    if (type === 'i32') this.out.u8(0xa7);
    this.checkPending();
    this.target.stored?.(this);
    this.close();
    this.#result(s);
  }
}
