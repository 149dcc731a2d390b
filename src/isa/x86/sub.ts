// Subroutines: named pieces of x86 semantics that are compiled once and called by instructions and by each other.

import type { Callee, Value } from '../../ir/ir.ts';
import type { Type } from '../../ir/ops.ts';
import type { Emit } from './emit.ts';

/** A subroutine of IR: `build` receives the context and the parameter values, and ends in `c.b.ret(value)`. */
export interface Sub extends Callee {
  readonly host: false;
  readonly build: (c: Emit, ...params: Value[]) => void;
}

/** Declares a subroutine. With `faults` it may raise exceptions (`c.raise`, guest memory, other faulting subroutines). */
export function sub(
  name: string,
  params: readonly Type[],
  result: Type | null,
  options: { faults?: boolean },
  build: Sub['build'],
): Sub {
  return { name, params, result, faults: options.faults ?? false, host: false, build };
}

/** Declares a function that the host provides under this name: see `accel/dbt/host.ts`. 64-bit values pass as bigint. */
export function host(name: string, params: readonly Type[], result: Type | null, options: { faults?: boolean } = {}): Callee {
  return { name, params, result, faults: options.faults ?? false, host: true };
}
