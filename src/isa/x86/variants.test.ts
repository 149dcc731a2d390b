// Every variant of every row with its operands in a record, against the verifier of IR; verify.test.ts has them as constants.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { calleesOf, Library } from '../../accel/dbt/library.ts';
import type { Callee } from '../../ir/ir.ts';
import { verify } from '../../ir/verify.ts';
import { RecordEmit } from './record.ts';
import { allRows } from './rows/all.ts';
import { emitRow } from './static.ts';
import { buildTables } from './table.ts';
import { variantsOf } from './variants.ts';

const { rows } = buildTables(allRows);

test('every variant of every row builds well-formed IR from a record', () => {
  const callees = new Set<Callee>();
  let count = 0;
  for (const info of rows) {
    for (const v of variantsOf(info)) {
      const c = new RecordEmit(v);
      emitRow(c);
      const func = c.b.finish(`${info.row.opcode} ${info.row.asm}`, ['i32'], null);
      verify(func, { as: 'instruction' });
      for (const callee of calleesOf(func.body)) callees.add(callee);
      count++;
    }
  }
  assert.ok(count > rows.length, `${count} variants of ${rows.length} rows`);
  const library = new Library();
  const { subs } = library.closure(callees);
  for (const s of subs) verify(library.get(s), { as: 'subroutine', faults: s.faults });
  assert.ok(subs.length > 0);
});
