// Structured control flow of WebAssembly functions, for the prover of emitted code.

import type { WasmInsn } from '../../wasm/decode.ts';

export type Tree =
  | { readonly kind: 'plain'; readonly insn: WasmInsn }
  | { readonly kind: 'block' | 'loop'; readonly result: boolean; readonly body: readonly Tree[] }
  | { readonly kind: 'if'; readonly result: boolean; readonly then: readonly Tree[]; readonly else: readonly Tree[] };

/** Structured control flow of a function's code. */
export function treeOf(code: readonly WasmInsn[]): Tree[] {
  let at = 0;
  const sequence = (): Tree[] => {
    const list: Tree[] = [];
    for (; at < code.length; ) {
      const insn = code[at++]!;
      if (insn.op === 0x0b || insn.op === 0x05) {
        at--;
        return list;
      }
      if (insn.op >= 0x02 && insn.op <= 0x04) {
        const result = insn.index !== -64;
        const body = sequence();
        if (insn.op !== 0x04) list.push({ kind: insn.op === 0x03 ? 'loop' : 'block', result, body });
        else {
          let other: Tree[] = [];
          if (code[at]!.op === 0x05) {
            at++;
            other = sequence();
          }
          list.push({ kind: 'if', result, then: body, else: other });
        }
        at++;
      } else list.push({ kind: 'plain', insn });
    }
    return list;
  };
  return sequence();
}

/** Locals that code sets. */
export function setsOf(list: readonly Tree[], into = new Set<number>()): Set<number> {
  for (const t of list) {
    if (t.kind === 'plain') {
      if (t.insn.op === 0x21 || t.insn.op === 0x22) into.add(t.insn.index);
    } else if (t.kind === 'if') {
      setsOf(t.then, into);
      setsOf(t.else, into);
    } else setsOf(t.body, into);
  }
  return into;
}
