// The subroutines that code needs: built from their declarations once, with everything that they call.

import type { Callee, Func, Stmt, Value } from '../../ir/ir.ts';
import { Emit } from '../../isa/x86/emit.ts';
import * as st from '../../isa/x86/state.ts';
import type { Sub } from '../../isa/x86/sub.ts';

const FLAG_SLOTS = new Set([st.fZ, st.fN, st.fC, st.fO, st.fA].map((s) => s.offset));

/** Calls `visit` for every statement, inner ones included. */
export function walk(list: readonly Stmt[], visit: (s: Stmt) => void): void {
  for (const s of list) {
    visit(s);
    if (s.kind === 'if') {
      walk(s.then, visit);
      walk(s.else, visit);
    } else if (s.kind === 'loop' || s.kind === 'block') walk(s.body, visit);
  }
}

/** Every function that a piece of IR calls. */
export function calleesOf(list: readonly Stmt[]): Set<Callee> {
  const found = new Set<Callee>();
  walk(list, (s) => {
    if (s.kind === 'call' || s.kind === 'do') found.add(s.callee);
  });
  return found;
}

/** Whether an address is computed from the state pointer. */
function usesEnv(v: Value): boolean {
  if (v.kind === 'env') return true;
  return v.kind === 'pure' || v.kind === 'select' ? v.args.some(usesEnv) : false;
}

/** In a set of slot offsets: all of them. */
export const ANY_SLOT = -1;

/** Subroutines by name, built on demand. */
export class Library {
  readonly #functions = new Map<string, Func>();
  readonly #flags = new Map<string, boolean>();

  /** The IR of a subroutine. */
  get(s: Sub): Func {
    let f = this.#functions.get(s.name);
    if (!f) {
      const c = new Emit();
      s.build(c, ...s.params.map((type, i) => c.b.param(i, type)));
      f = c.b.finish(s.name, s.params, s.result);
      this.#functions.set(s.name, f);
    }
    return f;
  }
  /** All subroutines and host functions reachable from `roots`, each once; behind those that are `ready`, nothing is looked for. */
  closure(roots: Iterable<Callee>, ready: (s: Sub) => boolean = () => false): { subs: Sub[]; hosts: Callee[] } {
    const subs = new Map<string, Sub>();
    const hosts = new Map<string, Callee>();
    const queue = [...roots];
    for (let c = queue.pop(); c; c = queue.pop()) {
      if (c.host) hosts.set(c.name, c);
      else if (!subs.has(c.name)) {
        subs.set(c.name, c as Sub);
        if (!ready(c as Sub)) queue.push(...calleesOf(this.get(c as Sub).body));
      }
    }
    return { subs: [...subs.values()], hosts: [...hosts.values()] };
  }
  readonly #slots = new Map<string, ReadonlySet<number>>();
  /**
   * Offsets of the state's slots that a function, or one that it calls, reads or writes; indexed accesses count by the first slot. A host
   * function may look at everything: ANY_SLOT.
   */
  slotsOf(callee: Callee): ReadonlySet<number> {
    const known = this.#slots.get(callee.name);
    if (known) return known;
    const found = new Set<number>();
    this.#slots.set(callee.name, found);
    if (callee.host) found.add(ANY_SLOT);
    else {
      walk(this.get(callee as Sub).body, (s) => {
        if (s.kind === 'get' || s.kind === 'set') found.add(s.slot.offset);
        else if ((s.kind === 'raw' || s.kind === 'setraw') && usesEnv(s.ptr)) found.add(s.offset);
        else if (s.kind === 'call' || s.kind === 'do') for (const o of this.slotsOf(s.callee)) found.add(o);
      });
    }
    return found;
  }
  /** Whether a subroutine, or one that it calls, touches the arithmetic flags. */
  touchesFlags(callee: Callee): boolean {
    if (callee.host) return false;
    const known = this.#flags.get(callee.name);
    if (known !== undefined) return known;
    this.#flags.set(callee.name, false);
    let touches = false;
    const f = this.get(callee as Sub);
    walk(f.body, (s) => {
      if ((s.kind === 'get' || s.kind === 'set') && FLAG_SLOTS.has(s.slot.offset)) touches = true;
      if (s.kind === 'call' || s.kind === 'do') touches ||= this.touchesFlags(s.callee);
    });
    this.#flags.set(callee.name, touches);
    return touches;
  }
}
