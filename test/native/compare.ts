// Runs generated cases on the host and on the emulator's tiers, and makes the failures small.

import { alike, type Case, differences, effects, emptyState, formatCase, formatEffects, type Result } from './case.ts';
import type { Runner } from './evaluator.ts';
import { ALL } from './flags.ts';
import type { Generated, Generator } from './generate.ts';
import { excuses } from './known.ts';
import type { Native } from './native.ts';

export interface Failure {
  readonly runner: string;
  readonly generated: Generated;
  /** What the host did, of the case as generated. */
  readonly expected: Result;
  readonly differences: readonly string[];
}

/** The result of a case, or what the runner threw. */
function attempt(runner: Runner, c: Case): Result | Error {
  try {
    return runner.run(c);
  } catch (e) {
    return e as Error;
  }
}

/** How a runner's result differs from the host's, what `known` excuses left out. */
export function compareOne(c: Case, expected: Result, runner: Runner, undefinedFlags: number): string[] {
  const found = attempt(runner, c);
  if (found instanceof Error) return [`it throws: ${found.message.split('\n')[0]}`];
  const open = expected.vector === 3 || runner.flagsAtFaults ? undefinedFlags : ALL;
  if (alike(expected, found, open)) return [];
  const [host, ours] = [effects(c, expected, open), effects(c, found, open)];
  const excused = excuses(c, expected, found);
  return differences(host, ours).filter((d) => !excused.some((e) => e.test(nameOf(d))));
}

const nameOf = (difference: string): string => difference.split(':')[0]!;

/** Arithmetic flags that are undefined after what the host did: all that any instruction leaves undefined, where not all were run. */
function undefinedIn(generated: Generated, expected: Result): number {
  return expected.vector === 3 && !generated.jumps ? generated.undefinedFlags : generated.everUndefined;
}

/** Runs `count` cases from the generator on the host and every runner; gives the failures, at most `limit`. */
export function compareMany(
  native: Native,
  runners: readonly Runner[],
  generator: Generator,
  count: number,
  limit = Infinity,
): Failure[] {
  const failures: Failure[] = [];
  for (let done = 0; done < count && failures.length < limit; ) {
    const batch: Generated[] = [];
    for (; batch.length < 1000 && done < count; done++) batch.push(generator.next());
    const cases = batch.map((g) => g.case);
    const results = native.run(cases);
    for (const runner of runners) runner.prepare?.(cases);
    for (const [i, generated] of batch.entries()) {
      for (const runner of runners) {
        const found = compareOne(generated.case, results[i]!, runner, undefinedIn(generated, results[i]!));
        if (found.length > 0) failures.push({ runner: runner.name, generated, expected: results[i]!, differences: found });
      }
    }
  }
  return failures;
}

/** A failing case made small. */
interface Small {
  readonly case: Case;
  readonly undefinedFlags: number;
  readonly expected: Result;
  readonly differences: readonly string[];
}

/** The smallest case found that still fails in `runner` in one of the same names: fewer instructions, simpler values. */
export function minimise(native: Native, runner: Runner, failure: Failure): Small {
  const { generated } = failure;
  const names = new Set(failure.differences.map(nameOf));
  let best: Small = {
    case: generated.case,
    undefinedFlags: undefinedIn(generated, failure.expected),
    expected: failure.expected,
    differences: failure.differences,
  };
  const tryCase = (c: Case, atEnd = best.undefinedFlags): boolean => {
    const [expected] = native.run([c]);
    const undefinedFlags = expected!.vector === 3 && !generated.jumps ? atEnd : generated.everUndefined;
    const found = compareOne(c, expected!, runner, undefinedFlags);
    // A case that got stuck is no simpler one.
    if (!found.some((d) => names.has(nameOf(d))) || (expected!.vector === -1 && best.expected.vector !== -1)) return false;
    best = { case: c, undefinedFlags, expected: expected!, differences: found };
    return true;
  };
  const code = generated.case.code;
  let last = generated.ends.findIndex((end) =>
    tryCase({ ...generated.case, code: code.subarray(0, end.at) }, end.undefinedFlags),
  );
  if (last < 0) last = generated.ends.length - 1;
  // Then from the front, as long as the rest alone fails.
  for (let first = last; first > 0; first--) {
    if (tryCase({ ...best.case, code: code.subarray(generated.ends[first - 1]!.at, generated.ends[last]!.at) })) break;
  }
  simplify(() => best.case, tryCase);
  return best;
}

/** Puts simple values in place of all that do not matter. */
function simplify(current: () => Case, tryCase: (c: Case) => boolean): void {
  const empty = emptyState(current().mode);
  const withState = (change: (s: Case['state']) => void): void => {
    const state = current().state.copy();
    change(state);
    tryCase({ ...current(), state });
  };
  withState((s) => void (s.rip = empty.rip));
  withState((s) => void (s.flags = empty.flags));
  withState((s) => void Object.assign(s.fp, { fcw: empty.fp.fcw, fsw: 0, ftw: 0 }));
  withState((s) => void (s.fp.mxcsr = empty.fp.mxcsr));
  withState((s) => void s.gpr.fill(0n));
  withState((s) => void s.fp.bytes.fill(0, s.fp.at('st', 0), s.fp.at('st', 8)));
  withState((s) => void s.fp.bytes.fill(0, s.fp.at('xmm', 0), s.fp.at('xmm', 16)));
  for (let i = 0; i < 16; i++) {
    withState((s) => void (s.gpr[i] = empty.gpr[i]!));
    withState((s) => void s.fp.set('xmm', i, 0n));
    withState((s) => void s.fp.set('ymm', i, 0n));
    if (i < 8) withState((s) => void s.fp.set('st', i, 0n));
  }
  withState((s) => void (s.fp.fcw = empty.fp.fcw));
  withState((s) => void (s.fp.fsw = 0));
  withState((s) => void (s.fp.ftw = 0));
  for (let i = current().patches.length - 1; i >= 0; i--)
    tryCase({ ...current(), patches: current().patches.filter((_, k) => k !== i) });
}

/** A failure as the lines of a golden case and what goes wrong. */
export function report(native: Native, runner: Runner, failure: Failure): string {
  const small = minimise(native, runner, failure);
  const effect = formatEffects(effects(small.case, small.expected, small.undefinedFlags));
  const rows = failure.generated.rows.map((i) => `${i.row.opcode} ${i.row.asm}`).join('; ');
  const mask = small.undefinedFlags;
  return [
    `${runner.name}: ${rows}`,
    ...small.differences.slice(0, 6).map((d) => `  host ${d}`),
    `  ['${formatCase(small.case)}',`,
    `   '${effect.length > 800 ? `${effect.slice(0, 800)}…` : effect}'${mask ? `, 0x${mask.toString(16)}` : ''}],`,
  ].join('\n');
}
