// The intermediate representation between guest instructions and WebAssembly: typed values, structured control flow,
// explicit guest state, explicit guest memory accesses, explicit ways out. It knows no instruction set.

import type { Access, PureOp, Type } from './ops.ts';

/** A piece of guest state at a fixed place in the vCPU's block of shared memory. */
export interface Slot {
  readonly name: string;
  /** Byte offset from the vCPU's state pointer (`env`). */
  readonly offset: number;
  readonly access: Access;
}

/** A mutable local of one function; it has no address. */
export interface Var {
  readonly id: number;
  readonly type: Type;
}

/** Target of a branch: the start of a loop, or the end of a block. */
export interface Label {
  readonly id: number;
  readonly kind: 'loop' | 'block';
}

/** Signature of a function that IR can call: a subroutine built from IR, or a host function (`host`). */
export interface Callee {
  readonly name: string;
  readonly params: readonly Type[];
  readonly result: Type | null;
  /** It may leave a pending exception in the state; the caller then unwinds. */
  readonly faults: boolean;
  readonly host: boolean;
}

/** Which translation a guest access uses: that of the current privilege, or the supervisor's (descriptor tables, TSS). */
export type Space = 'current' | 'system';

/** Operators of an atomic read-modify-write on guest memory. The value is the old one. */
export type RmwOp = 'add' | 'sub' | 'and' | 'or' | 'xor' | 'xchg';

/** A value: the result of one node. Nodes that are not pure also stand as statements, where they take effect. */
export type Value =
  | {
      readonly kind: 'const';
      readonly id: number;
      readonly type: Type;
      readonly value: number | bigint | Uint8Array;
      uses: number;
    }
  | {
      readonly kind: 'pure';
      readonly id: number;
      readonly type: Type;
      readonly op: PureOp;
      readonly args: readonly Value[];
      readonly lanes: readonly number[];
      uses: number;
    }
  | {
      readonly kind: 'select';
      readonly id: number;
      readonly type: Type;
      readonly cond: Value;
      readonly args: readonly Value[];
      uses: number;
    }
  | { readonly kind: 'env'; readonly id: number; readonly type: 'i32'; uses: number }
  | { readonly kind: 'param'; readonly id: number; readonly type: Type; readonly index: number; uses: number }
  | Effectful;

/** Values whose place among the statements matters. */
export type Effectful =
  | { readonly kind: 'getvar'; readonly id: number; readonly type: Type; readonly variable: Var; uses: number }
  | { readonly kind: 'get'; readonly id: number; readonly type: Type; readonly slot: Slot; uses: number }
  | {
      readonly kind: 'raw';
      readonly id: number;
      readonly type: Type;
      readonly access: Access;
      readonly ptr: Value;
      readonly offset: number;
      uses: number;
    }
  | {
      readonly kind: 'load';
      readonly id: number;
      readonly type: Type;
      readonly access: Access;
      readonly addr: Value;
      readonly space: Space;
      readonly forWrite: boolean;
      uses: number;
    }
  | {
      readonly kind: 'rmw';
      readonly id: number;
      readonly type: Type;
      readonly access: Access;
      readonly op: RmwOp;
      readonly addr: Value;
      readonly value: Value;
      uses: number;
    }
  | {
      readonly kind: 'cmpxchg';
      readonly id: number;
      readonly type: Type;
      readonly access: Access;
      readonly addr: Value;
      readonly expected: Value;
      readonly value: Value;
      uses: number;
    }
  | {
      readonly kind: 'call';
      readonly id: number;
      readonly type: Type;
      readonly callee: Callee;
      readonly args: readonly Value[];
      uses: number;
    };

/**
 * A way out of the instruction (or subroutine):
 * - `fault`: an exception is pending in the state; nothing of the instruction after this point happens
 * - `again`: nothing has happened yet; the most general form of the instruction is to run (translated code only)
 * - `next`: the instruction is complete, go on with the following one
 * - `repeat`: run this instruction again, after a look at pending interrupts
 * - `jump`: near transfer to the instruction pointer `value` (i64), unknown until it runs
 * - `branch`: near transfer to a target fixed at decoding: the context's branch operand
 * - `resync`: the instruction is complete and may have changed how code is fetched or translated: look everything up again
 * - `exit`: complete, and the host is to look at `reason`
 * - `return`: end of a subroutine, with `value`
 */
export type LeaveKind = 'fault' | 'again' | 'next' | 'repeat' | 'jump' | 'branch' | 'resync' | 'exit' | 'return';

export type Stmt =
  | Effectful
  | { readonly kind: 'set'; readonly slot: Slot; readonly value: Value }
  | { readonly kind: 'setvar'; readonly variable: Var; readonly value: Value }
  | { readonly kind: 'setraw'; readonly access: Access; readonly ptr: Value; readonly offset: number; readonly value: Value }
  /** `span`: bytes from `addr` that must all be writable before any is written, those of the access at least. */
  | {
      readonly kind: 'store';
      readonly access: Access;
      readonly addr: Value;
      readonly value: Value;
      readonly space: Space;
      readonly span: number;
    }
  | { readonly kind: 'do'; readonly callee: Callee; readonly args: readonly Value[] }
  | { readonly kind: 'copy'; readonly to: Value; readonly from: Value; readonly length: Value }
  | { readonly kind: 'fill'; readonly to: Value; readonly value: Value; readonly length: Value }
  | { readonly kind: 'if'; readonly cond: Value; readonly then: readonly Stmt[]; readonly else: readonly Stmt[] }
  | { readonly kind: 'loop' | 'block'; readonly label: Label; readonly body: readonly Stmt[] }
  | { readonly kind: 'br'; readonly label: Label; readonly cond: Value | null }
  | { readonly kind: 'leave'; readonly how: LeaveKind; readonly value: Value | null; readonly reason: number };

/** A function body in IR. Parameter 0 of the compiled function is always the state pointer `env`; `params` come after it. */
export interface Func {
  readonly name: string;
  readonly params: readonly Type[];
  readonly result: Type | null;
  readonly body: readonly Stmt[];
}
