// Every instruction row of the project, found in the folder of rows.

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Row } from '../../src/isa/x86/row.ts';
import { pseudoRows } from '../../src/isa/x86/rows/pseudo.ts';

const isRow = (x: unknown): x is Row => typeof x === 'object' && x !== null && 'opcode' in x && 'emit' in x;

/** All rows, each once, without those that stand for no opcode. */
export async function allRows(): Promise<Row[]> {
  const folder = join(import.meta.dirname, '../../src/isa/x86/rows');
  const rows = new Set<Row>();
  for (const file of readdirSync(folder).sort()) {
    if (!/^[a-z0-9-]+\.ts$/.test(file)) continue;
    const module = (await import(join(folder, file))) as Record<string, unknown>;
    for (const value of Object.values(module)) if (Array.isArray(value)) for (const row of value) if (isRow(row)) rows.add(row);
  }
  for (const row of pseudoRows) rows.delete(row);
  return [...rows];
}
