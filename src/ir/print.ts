// The readable form of IR: one statement a line, values numbered in the order of their definition, pure values written where they are
// first needed. Two functions that mean the same operations in the same order print alike, whatever ids their nodes carry.

import type { Callee, Func, Label, Stmt, Value, Var } from './ir.ts';

/** `func` as text, ending in a newline. */
export function printFunc(func: Func): string {
  const printer = new Printer();
  const params = func.params.map((type, i) => `p${i}: ${type}`).join(', ');
  printer.list(func.body, 1);
  return `func ${func.name}(${params})${func.result ? `: ${func.result}` : ''} {\n${printer.lines.map((l) => `${l}\n`).join('')}}\n`;
}

/** Some statements as text, ending in a newline; nothing for an empty list. */
export function printStatements(statements: readonly Stmt[]): string {
  const printer = new Printer();
  printer.list(statements, 0);
  return printer.lines.map((l) => `${l}\n`).join('');
}

class Printer {
  readonly lines: string[] = [];
  readonly #values = new Map<number, string>();
  readonly #vars = new Map<number, string>();
  readonly #labels = new Map<number, string>();
  #depth = 0;
  #scope: number[] = [];
  #count = 0;

  list(statements: readonly Stmt[], depth: number): void {
    const [outerDepth, outerScope] = [this.#depth, this.#scope];
    this.#depth = depth;
    this.#scope = [];
    for (const s of statements) this.#statement(s);
    for (const id of this.#scope) this.#values.delete(id);
    this.#depth = outerDepth;
    this.#scope = outerScope;
  }

  #line(text: string): undefined {
    this.lines.push('  '.repeat(this.#depth) + text);
  }
  #define(id: number, text: string): string {
    const name = `v${this.#count++}`;
    this.#line(`${name} = ${text}`);
    this.#values.set(id, name);
    this.#scope.push(id);
    return name;
  }
  #number(names: Map<number, string>, prefix: string, of: Var | Label): string {
    let name = names.get(of.id);
    if (!name) names.set(of.id, (name = `${prefix}${names.size}`));
    return name;
  }
  #var = (v: Var): string => this.#number(this.#vars, 'x', v);
  #label = (l: Label): string => this.#number(this.#labels, l.kind === 'loop' ? 'loop' : 'block', l);
  #call = (callee: Callee, args: readonly Value[]): string =>
    `${callee.host ? 'host ' : ''}${callee.name}(${this.#all(args)})${callee.faults ? ' faults' : ''}`;
  #all = (args: readonly Value[]): string => args.map((a) => this.#value(a)).join(', ');

  #value(v: Value): string {
    switch (v.kind) {
      case 'env':
        return 'env';
      case 'param':
        return `p${v.index}`;
      case 'const':
        return constant(v.type, v.value);
      case 'pure': {
        const known = this.#values.get(v.id);
        if (known) return known;
        const lanes = v.lanes.length > 0 ? `[${v.lanes.join(' ')}]` : '';
        const args = this.#all(v.args);
        return this.#define(v.id, `${v.op.name}${lanes} ${args}`);
      }
      case 'select': {
        const known = this.#values.get(v.id);
        if (known) return known;
        const cond = this.#value(v.cond);
        const args = this.#all(v.args);
        return this.#define(v.id, `select ${cond} ? ${args.replace(', ', ' : ')}`);
      }
      default:
        return this.#values.get(v.id) ?? `undefined(${v.kind} ${v.id})`;
    }
  }

  #statement(s: Stmt): undefined {
    switch (s.kind) {
      case 'get':
        return void this.#define(s.id, `get ${s.slot.name}`);
      case 'set': {
        const value = this.#value(s.value);
        return this.#line(`set ${s.slot.name}, ${value}`);
      }
      case 'getvar':
        return void this.#define(s.id, `var ${this.#var(s.variable)}`);
      case 'setvar': {
        const value = this.#value(s.value);
        return this.#line(`${this.#var(s.variable)} := ${value}`);
      }
      case 'raw':
        return void this.#define(s.id, `raw ${s.access.name} ${this.#value(s.ptr)} + ${s.offset}`);
      case 'setraw': {
        const args = this.#all([s.ptr, s.value]).split(', ');
        return this.#line(`setraw ${s.access.name} ${args[0]} + ${s.offset}, ${args[1]}`);
      }
      case 'copy':
        return this.#line(`copy ${this.#all([s.to, s.from, s.length])}`);
      case 'fill':
        return this.#line(`fill ${this.#all([s.to, s.value, s.length])}`);
      case 'load':
        return void this.#define(
          s.id,
          `load ${s.access.name} ${this.#value(s.addr)}${space(s.space)}${s.forWrite ? ' for write' : ''}`,
        );
      case 'store':
        return this.#line(
          `store ${s.access.name} ${this.#all([s.addr, s.value])}${space(s.space)}${s.span > s.access.bits / 8 ? ` of ${s.span}` : ''}`,
        );
      case 'rmw':
        return void this.#define(s.id, `rmw.${s.op} ${s.access.name} ${this.#all([s.addr, s.value])}`);
      case 'cmpxchg':
        return void this.#define(s.id, `cmpxchg ${s.access.name} ${this.#all([s.addr, s.expected, s.value])}`);
      case 'call':
        return void this.#define(s.id, this.#call(s.callee, s.args));
      case 'do':
        return this.#line(this.#call(s.callee, s.args));
      case 'if': {
        const cond = this.#value(s.cond);
        this.#line(`if ${cond} {`);
        this.list(s.then, this.#depth + 1);
        if (s.else.length > 0) {
          this.#line('} else {');
          this.list(s.else, this.#depth + 1);
        }
        return this.#line('}');
      }
      case 'loop':
      case 'block':
        this.#line(`${this.#label(s.label)} {`);
        this.list(s.body, this.#depth + 1);
        return this.#line('}');
      case 'br': {
        const cond = s.cond ? ` if ${this.#value(s.cond)}` : '';
        return this.#line(`br ${this.#label(s.label)}${cond}`);
      }
      case 'leave': {
        const value = s.value ? ` ${this.#value(s.value)}` : '';
        return this.#line(`leave ${s.how}${value}${s.how === 'exit' || s.reason !== 0 ? ` #${s.reason}` : ''}`);
      }
    }
  }
}

const space = (s: string): string => (s === 'system' ? ' system' : '');

/** Integers in decimal up to 9,999, in hexadecimal above; floats by value, vectors as 16 bytes. */
function constant(type: string, value: number | bigint | Uint8Array): string {
  if (value instanceof Uint8Array) return `v128[${[...value].map((x) => x.toString(16).padStart(2, '0')).join(' ')}]`;
  if (type === 'f32' || type === 'f64') return `${type}:${Object.is(value, -0) ? '-0' : value}`;
  const text = value > 9999 ? `0x${value.toString(16)}` : value < -9999 ? `-0x${(-BigInt(value)).toString(16)}` : `${value}`;
  return type === 'i64' ? `${text}L` : text;
}
