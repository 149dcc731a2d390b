// Checks that IR is well formed: operand types as ops.ts has them, definitions before uses in an enclosing list, labels in
// scope, ways out that the function has, and nothing after an unconditional way out.

import type { Callee, Func, Label, LeaveKind, Stmt, Value, Var } from './ir.ts';
import type { Type } from './ops.ts';
import { printFunc } from './print.ts';

export interface VerifyOptions {
  /** `instruction`: every way out but `return`. `subroutine`: `return` and, where it faults, `fault`. Unset: any. */
  readonly as?: 'instruction' | 'subroutine';
  /** A subroutine that is declared to fault. */
  readonly faults?: boolean;
}

/**
 * Throws where `func` is not well formed; the message names the function and shows its text. A `return` must fit the function's result
 * everywhere it stands.
 */
export function verify(func: Func, options: VerifyOptions = {}): void {
  new Verifier(func, options).run();
}

class Verifier {
  readonly #func: Func;
  readonly #options: VerifyOptions;
  readonly #defined = new Set<number>();
  readonly #pure = new Set<number>();
  readonly #vars = new Map<number, Type>();
  readonly #labels = new Set<Label>();
  #scope: number[] = [];
  #pureScope: number[] = [];

  constructor(func: Func, options: VerifyOptions) {
    this.#func = func;
    this.#options = options;
  }

  run(): void {
    const ends = this.#list(this.#func.body);
    if (this.#func.result && this.#options.as === 'subroutine' && !ends)
      this.#fail(`it may end without its result of type ${this.#func.result}`);
  }

  #fail(why: string): never {
    const text = printFunc(this.#func).split('\n');
    const more = text.length > 40 ? `\n… ${text.length - 40} lines more` : '';
    throw new Error(`Cannot accept IR of ${this.#func.name}: ${why}\n${text.slice(0, 40).join('\n')}${more}`);
  }

  /** True where the end of the list is never reached. */
  #list(statements: readonly Stmt[]): boolean {
    const [outer, outerPure] = [this.#scope, this.#pureScope];
    this.#scope = [];
    this.#pureScope = [];
    let ended = false;
    for (const s of statements) {
      if (ended) this.#fail(`a ${s.kind} follows an unconditional way out`);
      ended = this.#statement(s);
    }
    for (const id of this.#scope) this.#defined.delete(id);
    for (const id of this.#pureScope) this.#pure.delete(id);
    this.#scope = outer;
    this.#pureScope = outerPure;
    return ended;
  }

  #define(id: number): boolean {
    this.#defined.add(id);
    this.#scope.push(id);
    return false;
  }

  /** Checks a use. */
  #use(v: Value, type: Type, what: string): void {
    if (v.type !== type) this.#fail(`${what} has type ${v.type}, ${type} is needed`);
    this.#value(v);
  }
  /** A host address: an i32, or an i64 where it may be beyond 4 GiB. */
  #address(v: Value, what: string): void {
    if (v.type !== 'i32' && v.type !== 'i64') this.#fail(`${what} has type ${v.type}, i32 or i64 is needed`);
    this.#value(v);
  }

  #value(v: Value): void {
    switch (v.kind) {
      case 'env':
        return;
      case 'const': {
        const fits =
          v.type === 'v128'
            ? v.value instanceof Uint8Array && v.value.length === 16
            : typeof v.value === (v.type === 'i64' ? 'bigint' : 'number');
        if (!fits) this.#fail(`constant ${v.value} is no ${v.type}`);
        return;
      }
      case 'param':
        if (this.#func.params[v.index] !== v.type)
          this.#fail(`parameter ${v.index} has type ${this.#func.params[v.index]}, not ${v.type}`);
        return;
      case 'pure': {
        if (this.#pure.has(v.id)) return;
        if (v.args.length !== v.op.args.length)
          this.#fail(`${v.op.name} has ${v.args.length} operands, ${v.op.args.length} are needed`);
        v.op.args.forEach((type, i) => void this.#use(v.args[i]!, type, `operand ${i} of ${v.op.name}`));
        if (v.type !== v.op.result) this.#fail(`${v.op.name} gives ${v.op.result}, not ${v.type}`);
        const limit = v.op.lanes === 16 ? 32 : v.op.lanes === 1 ? Number(/x(\d+)\./.exec(v.op.name)![1]) : 0;
        if (v.lanes.length !== v.op.lanes || v.lanes.some((l) => !(l >= 0 && l < limit))) {
          this.#fail(`${v.op.name} has lanes [${v.lanes}], ${v.op.lanes} below ${limit} are needed`);
        }
        this.#pure.add(v.id);
        this.#pureScope.push(v.id);
        return;
      }
      case 'select':
        if (this.#pure.has(v.id)) return;
        this.#use(v.cond, 'i32', 'the condition of a select');
        for (const a of v.args) this.#use(a, v.type, 'an operand of a select');
        this.#pure.add(v.id);
        this.#pureScope.push(v.id);
        return;
      default:
        if (!this.#defined.has(v.id)) this.#fail(`value ${v.id} (${v.kind}) is used where it is not defined`);
    }
  }

  #var(variable: Var): void {
    const known = this.#vars.get(variable.id);
    if (known && known !== variable.type) this.#fail(`variable ${variable.id} is ${known} and ${variable.type}`);
    this.#vars.set(variable.id, variable.type);
  }

  #call(callee: Callee, args: readonly Value[]): void {
    if (args.length !== callee.params.length)
      this.#fail(`${callee.name} gets ${args.length} arguments, ${callee.params.length} are needed`);
    callee.params.forEach((type, i) => void this.#use(args[i]!, type, `argument ${i} of ${callee.name}`));
    if (callee.faults && this.#options.as === 'subroutine' && !this.#options.faults)
      this.#fail(`it calls ${callee.name}, which faults, and is not declared to fault`);
  }

  #guest(what: string): void {
    if (this.#options.as === 'subroutine' && !this.#options.faults)
      this.#fail(`it has a ${what} of guest memory and is not declared to fault`);
  }

  #statement(s: Stmt): boolean {
    switch (s.kind) {
      case 'get':
        if (s.type !== s.slot.access.type) this.#fail(`slot ${s.slot.name} is ${s.slot.access.type}, read as ${s.type}`);
        return this.#define(s.id);
      case 'set':
        this.#use(s.value, s.slot.access.type, `the value for slot ${s.slot.name}`);
        return false;
      case 'getvar':
        this.#var(s.variable);
        return this.#define(s.id);
      case 'setvar':
        this.#var(s.variable);
        this.#use(s.value, s.variable.type, `the value for variable ${s.variable.id}`);
        return false;
      case 'raw':
        this.#address(s.ptr, 'the address of a raw read');
        return this.#define(s.id);
      case 'setraw':
        this.#address(s.ptr, 'the address of a raw write');
        this.#use(s.value, s.access.type, 'the value of a raw write');
        return false;
      case 'copy':
        for (const v of [s.to, s.from]) this.#address(v, 'an address of copy');
        this.#use(s.length, 'i32', 'the length of copy');
        return false;
      case 'fill':
        this.#address(s.to, 'the address of fill');
        for (const v of [s.value, s.length]) this.#use(v, 'i32', 'an operand of fill');
        return false;
      case 'load':
        this.#guest('load');
        this.#use(s.addr, 'i64', 'the address of a load');
        return this.#define(s.id);
      case 'store':
        this.#guest('store');
        this.#use(s.addr, 'i64', 'the address of a store');
        this.#use(s.value, s.access.type, 'the value of a store');
        if (s.span < s.access.bits / 8 || s.span > 4096)
          this.#fail(`store ${s.access.name} asks for ${s.span} bytes: those of the access at least, and a page at most`);
        return false;
      case 'rmw':
      case 'cmpxchg':
        this.#guest(s.kind);
        if (s.access.name.endsWith('s') || s.access.bits > 64)
          this.#fail(`${s.kind} has access ${s.access.name}, an unsigned one up to 64 bits is needed`);
        this.#use(s.addr, 'i64', `the address of a ${s.kind}`);
        this.#use(s.value, s.access.type, `the value of a ${s.kind}`);
        if (s.kind === 'cmpxchg') this.#use(s.expected, s.access.type, 'the expected value of a cmpxchg');
        return this.#define(s.id);
      case 'call':
        this.#call(s.callee, s.args);
        if (s.callee.result !== s.type) this.#fail(`${s.callee.name} gives ${s.callee.result}, not ${s.type}`);
        return this.#define(s.id);
      case 'do':
        this.#call(s.callee, s.args);
        return false;
      case 'if': {
        this.#use(s.cond, 'i32', 'the condition of an if');
        const then = this.#list(s.then);
        const otherwise = this.#list(s.else);
        return then && otherwise;
      }
      case 'loop':
      case 'block': {
        this.#labels.add(s.label);
        if (s.label.kind !== s.kind) this.#fail(`a ${s.kind} has the label of a ${s.label.kind}`);
        const ended = this.#list(s.body);
        this.#labels.delete(s.label);
        // A block's end is reached through its label.
        return s.kind === 'loop' && ended;
      }
      case 'br':
        if (!this.#labels.has(s.label)) this.#fail(`a branch goes to ${s.label.kind} ${s.label.id}, which is not around it`);
        if (s.cond) this.#use(s.cond, 'i32', 'the condition of a branch');
        return s.cond === null;
      case 'leave':
        this.#leave(s.how, s.value);
        return true;
    }
  }

  #leave(how: LeaveKind, value: Value | null): void {
    const { as, faults } = this.#options;
    if (as === 'instruction' && how === 'return') this.#fail('an instruction ends by return');
    if (as === 'subroutine' && how !== 'return' && !(how === 'fault' && faults))
      this.#fail(`a subroutine${faults ? '' : ' that does not fault'} ends by ${how}`);
    if (how === 'return') {
      if ((value?.type ?? null) !== this.#func.result)
        this.#fail(`it returns ${value?.type ?? 'nothing'}, its result is ${this.#func.result ?? 'nothing'}`);
    } else if (how === 'jump' && value?.type !== 'i64') this.#fail('a jump needs a target of type i64');
    if (value) this.#value(value);
  }
}
