// Evaluates IR in plain TypeScript: the oracle of the WebAssembly backend, and the bench of instruction tests.
// It follows the text of ir.ts: values are computed where they are first used and last until the end of their list.

import { type Datum, f32Bits, f64Bits, readDatum, writeDatum, zeroOf } from './datum.ts';
import type { Callee, Func, Label, LeaveKind, RmwOp, Space, Stmt, Value } from './ir.ts';
import type { Access } from './ops.ts';
import { pureFunction } from './pure.ts';

/** Guest memory. Every access may leave a pending exception in the state; its value is then not used. */
export interface GuestMemory {
  /** Reads at linear address `addr` (signed 64 bits); with `forWrite` it demands write permission too. */
  load(access: Access, addr: bigint, space: Space, forWrite: boolean): Datum;
  /** Writes nothing unless all of `span` bytes from `addr` may be written. */
  store(access: Access, addr: bigint, value: Datum, space: Space, span: number): void;
  /** Gives the old value. */
  rmw(op: RmwOp, access: Access, addr: bigint, value: Datum): Datum;
  /** Writes `value` where memory holds `expected`; gives the old value. */
  cmpxchg(access: Access, addr: bigint, expected: Datum, value: Datum): Datum;
}

/** A function outside the IR. Floats pass as bit patterns, see `Datum`. */
export type HostFunction = (...args: Datum[]) => Datum | undefined;

export interface Surroundings {
  /** Host memory: state and everything that raw accesses reach; an address is an offset in it. */
  readonly memory: DataView;
  /** Address of the vCPU's state. */
  readonly env: number;
  /** Offset of the i32 slot, from `env`, that is not zero while an exception is pending. */
  readonly excOffset: number;
  readonly guest: GuestMemory;
  /** The body of a subroutine, or the host function of that name. */
  resolve(callee: Callee): Func | HostFunction;
  /** Statements after which evaluation gives up, 1,000,000 unless given. */
  readonly maxSteps?: number;
}

/** How a function was left. Falling off the end of an instruction is `next`, of a subroutine `return`. */
export interface Outcome {
  readonly how: LeaveKind;
  readonly value: Datum | null;
  readonly reason: number;
}

/** What a read-modify-write stores. */
export function combine(op: RmwOp, access: Access, old: Datum, value: Datum): Datum {
  if (op === 'xchg') return value;
  const a = BigInt(old as number | bigint);
  const b = BigInt(value as number | bigint);
  const r = op === 'add' ? a + b : op === 'sub' ? a - b : op === 'and' ? a & b : op === 'or' ? a | b : a ^ b;
  return access.type === 'i64' ? BigInt.asIntN(64, r) : Number(BigInt.asIntN(32, r));
}

/**
 * Runs `func` with `args` (without `env`). Throws where the IR is wrong: a value used outside its scope, a division that traps,
 * a way out that a subroutine does not have, or more than `maxSteps` statements.
 */
export function evaluate(func: Func, args: readonly Datum[], around: Surroundings): Outcome {
  const budget = { steps: around.maxSteps ?? 1_000_000 };
  const end = new Frame(func, args, around, budget).run();
  return end ?? { how: 'next', value: null, reason: 0 };
}

/** Thrown when a function runs longer than `maxSteps`. */
export class StepsExceeded extends Error {}

/** A branch on its way to its label, or the end of the function; undefined: go on with the next statement. */
type Signal = Label | Outcome | undefined;
const isOutcome = (s: Label | Outcome): s is Outcome => 'how' in s;
const FAULT: Outcome = { how: 'fault', value: null, reason: 0 };

class Frame {
  readonly #values: (Datum | undefined)[] = [];
  readonly #vars: (Datum | undefined)[] = [];
  readonly #func: Func;
  readonly #args: readonly Datum[];
  readonly #around: Surroundings;
  readonly #budget: { steps: number };
  /** Ids computed in the lists that run now, outer ones first; they are forgotten at the end of their list. */
  readonly #scope: number[] = [];

  constructor(func: Func, args: readonly Datum[], around: Surroundings, budget: { steps: number }) {
    this.#func = func;
    this.#args = args;
    this.#around = around;
    this.#budget = budget;
  }

  run(): Outcome | undefined {
    const end = this.#list(this.#func.body);
    if (end && !isOutcome(end)) throw new Error(`Cannot branch in ${this.#func.name}: label ${end.id} is not around the branch`);
    return end;
  }

  #list(statements: readonly Stmt[]): Signal {
    const scope = this.#scope;
    const outer = scope.length;
    let signal: Signal;
    for (let i = 0; i < statements.length && !signal; i++) signal = this.#statement(statements[i]!);
    for (let i = outer; i < scope.length; i++) this.#values[scope[i]!] = undefined;
    scope.length = outer;
    return signal;
  }

  #pending(): Signal {
    return this.#around.memory.getInt32(this.#around.env + this.#around.excOffset, true) !== 0 ? FAULT : undefined;
  }
  #define(id: number, value: Datum): void {
    this.#values[id] = value;
    this.#scope.push(id);
  }
  #address(v: Value, offset: number): number {
    const at = this.#value(v);
    return (typeof at === 'bigint' ? Number(BigInt.asUintN(32, at)) : (at as number) >>> 0) + offset;
  }

  #statement(s: Stmt): Signal {
    if (--this.#budget.steps < 0) throw new StepsExceeded(`Cannot evaluate ${this.#func.name}: it runs for too many steps`);
    const { memory, guest } = this.#around;
    switch (s.kind) {
      case 'get':
        this.#define(s.id, readDatum(memory, this.#around.env + s.slot.offset, s.slot.access));
        return;
      case 'set':
        writeDatum(memory, this.#around.env + s.slot.offset, s.slot.access, this.#value(s.value));
        return;
      case 'getvar':
        this.#define(s.id, this.#vars[s.variable.id] ?? zeroOf(s.type));
        return;
      case 'setvar':
        this.#vars[s.variable.id] = this.#value(s.value);
        return;
      case 'raw':
        this.#define(s.id, readDatum(memory, this.#address(s.ptr, s.offset), s.access));
        return;
      case 'setraw':
        writeDatum(memory, this.#address(s.ptr, s.offset), s.access, this.#value(s.value));
        return;
      case 'copy': {
        const bytes = new Uint8Array(memory.buffer, memory.byteOffset, memory.byteLength);
        const from = this.#address(s.from, 0);
        bytes.copyWithin(this.#address(s.to, 0), from, from + this.#address(s.length, 0));
        return;
      }
      case 'fill': {
        const bytes = new Uint8Array(memory.buffer, memory.byteOffset, memory.byteLength);
        const to = this.#address(s.to, 0);
        bytes.fill((this.#value(s.value) as number) & 0xff, to, to + this.#address(s.length, 0));
        return;
      }
      case 'load':
        this.#define(s.id, guest.load(s.access, this.#value(s.addr) as bigint, s.space, s.forWrite));
        return this.#pending();
      case 'store':
        guest.store(s.access, this.#value(s.addr) as bigint, this.#value(s.value), s.space, s.span);
        return this.#pending();
      case 'rmw':
        this.#define(s.id, guest.rmw(s.op, s.access, this.#value(s.addr) as bigint, this.#value(s.value)));
        return this.#pending();
      case 'cmpxchg':
        this.#define(s.id, guest.cmpxchg(s.access, this.#value(s.addr) as bigint, this.#value(s.expected), this.#value(s.value)));
        return this.#pending();
      case 'call': {
        const result = this.#call(s.callee, s.args);
        if (s.callee.faults && this.#pending()) return FAULT;
        if (result === undefined) throw new Error(`Cannot use the result of ${s.callee.name}: it ended without one`);
        this.#define(s.id, result);
        return;
      }
      case 'do':
        this.#call(s.callee, s.args);
        return s.callee.faults ? this.#pending() : undefined;
      case 'if':
        return this.#list(this.#value(s.cond) !== 0 ? s.then : s.else);
      case 'block': {
        const signal = this.#list(s.body);
        return signal === s.label ? undefined : signal;
      }
      case 'loop':
        for (;;) {
          const signal = this.#list(s.body);
          if (signal !== s.label) return signal;
        }
      case 'br':
        return s.cond === null || this.#value(s.cond) !== 0 ? s.label : undefined;
      case 'leave':
        if (s.how === 'fault') return FAULT;
        return { how: s.how, value: s.value && this.#value(s.value), reason: s.reason };
    }
  }

  #call(callee: Callee, args: readonly Value[]): Datum | undefined {
    const values = args.map((a) => this.#value(a));
    const target = this.#around.resolve(callee);
    if (typeof target === 'function') return target(...values);
    const end = new Frame(target, values, this.#around, this.#budget).run();
    if (end && end.how !== 'return' && end.how !== 'fault')
      throw new Error(`Cannot leave subroutine ${callee.name} by ${end.how}: only return and fault end it`);
    return end?.value ?? undefined;
  }

  #value(v: Value): Datum {
    switch (v.kind) {
      case 'const':
        if (v.type === 'f32') return f32Bits(v.value as number);
        if (v.type === 'f64') return f64Bits(v.value as number);
        return v.value;
      case 'env':
        return this.#around.env;
      case 'param':
        return this.#args[v.index]!;
      case 'pure': {
        const known = this.#values[v.id];
        if (known !== undefined) return known;
        const args: Datum[] = [];
        for (let i = 0; i < v.args.length; i++) args.push(this.#value(v.args[i]!));
        const result = pureFunction(v.op)(args, v.lanes);
        this.#define(v.id, result);
        return result;
      }
      case 'select': {
        const known = this.#values[v.id];
        if (known !== undefined) return known;
        // Both arms are computed, as the backend does: a trap in the one that is not taken is a mistake too.
        const [a, b] = [this.#value(v.args[0]!), this.#value(v.args[1]!)];
        const result = this.#value(v.cond) !== 0 ? a : b;
        this.#define(v.id, result);
        return result;
      }
      default: {
        const known = this.#values[v.id];
        if (known === undefined)
          throw new Error(`Cannot use value ${v.id} (${v.kind}) in ${this.#func.name}: it is not defined here`);
        return known;
      }
    }
  }
}
