// Every subroutine and every variant of every row is well-formed IR.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Callee, Stmt } from '../../ir/ir.ts';
import { verify } from '../../ir/verify.ts';
import type { Variant } from './bind.ts';
import { Insn } from './decode.ts';
import { Emit, type Size } from './emit.ts';
import { allRows } from './rows/all.ts';
import { emitRow, StaticEmit } from './static.ts';
import type { Sub } from './sub.ts';
import { buildTables, type RowInfo } from './table.ts';

function* variants(info: RowInfo): Generator<Variant> {
  const { options } = info.row;
  for (const long of [true, false]) {
    if (options.mode && (options.mode === 'long') !== long) continue;
    for (const size of [16, 32, 64] as const) {
      if (size === 64 && !long) continue;
      for (const addressSize of (long ? [32, 64] : [16, 32]) as Size[]) {
        for (const isMemory of [false, true]) {
          if (isMemory ? info.form === 'reg' || !info.hasModrm : info.form === 'mem') continue;
          for (const lock of options.lock && isMemory ? [false, true] : [false]) {
            for (const rep of options.rep ? ([0, 2, 3] as const) : ([0] as const)) {
              for (const flagsLive of [true, false]) {
                yield {
                  info,
                  size,
                  addressSize,
                  isMemory,
                  lock,
                  rep,
                  long,
                  flagsLive,
                  fpTrap: options.fp !== undefined,
                  wide: info.wide !== 0 && info.vex,
                  limited: options.near === true && !long,
                  flat: !long,
                };
              }
            }
          }
        }
      }
    }
  }
}

/** Every subroutine that statements call, and those that they call. */
function collect(statements: readonly Stmt[], found: Map<Callee, void>): void {
  for (const s of statements) {
    if (s.kind === 'if') {
      collect(s.then, found);
      collect(s.else, found);
    } else if (s.kind === 'loop' || s.kind === 'block') collect(s.body, found);
    else if ((s.kind === 'call' || s.kind === 'do') && !s.callee.host && !found.has(s.callee)) {
      found.set(s.callee);
      collect(check(s.callee as Sub), found);
    }
  }
}

function check(sub: Sub): readonly Stmt[] {
  const c = new Emit();
  sub.build(c, ...sub.params.map((type, i) => c.b.param(i, type)));
  const func = c.b.finish(sub.name, sub.params, sub.result);
  verify(func, { as: 'subroutine', faults: sub.faults });
  return func.body;
}

test('every variant of every row is well-formed, and so is every subroutine that it calls', () => {
  const subs = new Map<Callee, void>();
  let count = 0;
  for (const info of buildTables(allRows).rows) {
    for (const variant of variants(info)) {
      const insn = new Insn();
      if (info.vsib) insn.index = 0;
      Object.assign(insn, {
        row: info,
        length: 5,
        size: variant.size,
        addressSize: variant.addressSize,
        isMemory: variant.isMemory,
      });
      Object.assign(insn, { base: variant.isMemory ? 3 : -1, reg: 1, rm: 2, lock: variant.lock, rep: variant.rep });
      const c = new StaticEmit(variant, insn, 0);
      emitRow(c);
      const func = c.b.finish(info.row.asm, [], null);
      verify(func, { as: 'instruction' });
      collect(func.body, subs);
      count++;
    }
  }
  assert.ok(count > 5000 && subs.size > 100, `${count} variants, ${subs.size} subroutines`);
});

test('every exported subroutine is well-formed', async () => {
  const names = new Map<string, string>();
  for (const file of readdirSync(import.meta.dirname)) {
    if (!/^[a-z0-9-]+\.ts$/.test(file)) continue;
    for (const value of Object.values((await import(join(import.meta.dirname, file))) as Record<string, unknown>)) {
      if (typeof value !== 'object' || value === null || !('build' in value) || !('faults' in value)) continue;
      const sub = value as Sub;
      assert.ok(
        !names.has(sub.name) || names.get(sub.name) === file,
        `${sub.name} is declared in ${names.get(sub.name)} and ${file}`,
      );
      names.set(sub.name, file);
      check(sub);
    }
  }
  assert.ok(names.size > 50);
});
