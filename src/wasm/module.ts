// Assembles a WebAssembly module: types, imports, functions, exports, names (core specification 2.0, section 5.5).

import type { Type } from '../ir/ops.ts';
import { Bytes } from './bytes.ts';

const TYPE_CODES: Readonly<Record<Type, number>> = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b };
export const typeCode = (t: Type): number => TYPE_CODES[t];

export interface Signature {
  readonly params: readonly Type[];
  readonly result: Type | null;
}

/** Memory import: limits in 64 KiB pages. Addresses have 64 bits where it can hold more than 4 GiB: see `isWide`. */
export interface MemoryImport {
  readonly initial: number;
  readonly maximum: number;
}
/** Whether a memory of so many pages is one with 64-bit addresses (core specification 3.0, section 2.3.17). */
export const isWide = (pages: number): boolean => pages > 65536;

/** A branch that goes one way as a rule: the place of its instruction in the function's body. */
export interface BranchHint {
  readonly offset: number;
  readonly likely: boolean;
}

/** The code of a function: local declarations and instructions, without the size in front. */
export interface FunctionBody {
  readonly code: Uint8Array;
  readonly hints: readonly BranchHint[];
}

interface Body {
  readonly type: number;
  readonly name: string;
  body: FunctionBody | null;
}

export class ModuleBuilder {
  readonly #types: string[] = [];
  readonly #signatures: Signature[] = [];
  readonly #imports: { module: string; name: string; type: number }[] = [];
  readonly #bodies: Body[] = [];
  readonly #exports: { name: string; index: number }[] = [];
  readonly #memory: MemoryImport | null;
  readonly #table: number | null;

  /** `table` is the size of `env.table` (funcref), which never grows: V8 then knows it. The memory is `env.memory`, shared. */
  constructor(memory: MemoryImport | null, table: number | null) {
    this.#memory = memory;
    this.#table = table;
  }

  type(signature: Signature): number {
    const key = `${signature.params.join()}:${signature.result}`;
    let index = this.#types.indexOf(key);
    if (index < 0) {
      index = this.#types.push(key) - 1;
      this.#signatures.push(signature);
    }
    return index;
  }
  /** Imports a function; all imports come before the first `declare`. Gives its function index. */
  import(module: string, name: string, signature: Signature): number {
    if (this.#bodies.length > 0) throw new Error(`Cannot import ${name}: functions are declared already`);
    return this.#imports.push({ module, name, type: this.type(signature) }) - 1;
  }
  /** Declares a function whose code follows later. Gives its function index. */
  declare(name: string, signature: Signature): number {
    return this.#imports.length + this.#bodies.push({ type: this.type(signature), name, body: null }) - 1;
  }
  /** Sets the code (locals and instructions) of a declared function. */
  define(index: number, body: FunctionBody): void {
    this.#bodies[index - this.#imports.length].body = { code: body.code.slice(), hints: body.hints };
  }
  export(name: string, index: number): void {
    this.#exports.push({ name, index });
  }

  finish(): Uint8Array<ArrayBuffer> {
    const out = new Bytes();
    out.raw([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);
    const section = (id: number, fill: (b: Bytes) => void): void => {
      const b = new Bytes();
      fill(b);
      out.u8(id);
      out.uleb(b.length);
      out.append(b);
    };
    section(1, (b) => {
      b.uleb(this.#signatures.length);
      for (const s of this.#signatures) {
        b.u8(0x60);
        b.uleb(s.params.length);
        for (const p of s.params) b.u8(typeCode(p));
        b.uleb(s.result ? 1 : 0);
        if (s.result) b.u8(typeCode(s.result));
      }
    });
    section(2, (b) => {
      b.uleb(this.#imports.length + (this.#memory ? 1 : 0) + (this.#table === null ? 0 : 1));
      for (const i of this.#imports) {
        b.name(i.module);
        b.name(i.name);
        b.u8(0);
        b.uleb(i.type);
      }
      if (this.#memory) {
        b.name('env');
        b.name('memory');
        b.raw([2, isWide(this.#memory.maximum) ? 7 : 3]);
        b.uleb(this.#memory.initial);
        b.uleb(this.#memory.maximum);
      }
      if (this.#table !== null) {
        b.name('env');
        b.name('table');
        b.raw([1, 0x70, 1]);
        b.uleb(this.#table);
        b.uleb(this.#table);
      }
    });
    section(3, (b) => {
      b.uleb(this.#bodies.length);
      for (const f of this.#bodies) b.uleb(f.type);
    });
    section(7, (b) => {
      b.uleb(this.#exports.length);
      for (const e of this.#exports) {
        b.name(e.name);
        b.u8(0);
        b.uleb(e.index);
      }
    });
    // Branch hints (proposal "branch hinting", section metadata.code.branch_hint): what seldom runs stays out of the way of registers.
    const hinted = this.#bodies.flatMap((f, i) => (f.body && f.body.hints.length > 0 ? [{ index: i, hints: f.body.hints }] : []));
    if (hinted.length > 0) {
      section(0, (b) => {
        b.name('metadata.code.branch_hint');
        b.uleb(hinted.length);
        for (const { index, hints } of hinted) {
          b.uleb(this.#imports.length + index);
          b.uleb(hints.length);
          for (const { offset, likely } of hints) {
            b.uleb(offset);
            b.raw([1, likely ? 1 : 0]);
          }
        }
      });
    }
    section(10, (b) => {
      b.uleb(this.#bodies.length);
      for (const f of this.#bodies) {
        if (!f.body) throw new Error(`Cannot finish the module: function ${f.name} has no code`);
        b.uleb(f.body.code.length);
        b.raw(f.body.code);
      }
    });
    section(0, (b) => {
      b.name('name');
      const names = new Bytes();
      names.uleb(this.#bodies.length);
      this.#bodies.forEach((f, i) => {
        names.uleb(this.#imports.length + i);
        names.name(f.name);
      });
      b.u8(1);
      b.uleb(names.length);
      b.append(names);
    });
    return out.view();
  }
}
