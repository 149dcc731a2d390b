import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tablesFor } from './absent.ts';
import { Decode, decode, Insn } from './decode.ts';
import { allRows } from './rows/all.ts';
import { Ctx } from './state.ts';
import { buildTables } from './table.ts';

test('instructions of a feature are undefined without it, and with it alone they are not', () => {
  const whole = buildTables(allRows);
  const out = new Insn();
  const decoded = (code: readonly number[], features: readonly string[]): number =>
    decode(tablesFor(whole, new Set(features)), Uint8Array.of(...code), 0, code.length, Ctx.protected | Ctx.big, out);
  for (const [feature, code] of [
    ['cx8', [0x0f, 0xc7, 0x08]],
    ['cmov', [0x0f, 0x42, 0xc0]],
    ['cmov', [0xda, 0xc0]],
    ['sep', [0x0f, 0x34]],
    ['sep', [0x0f, 0x35]],
    ['clflush', [0x0f, 0xae, 0x38]],
    ['fxsr', [0x0f, 0xae, 0x00]],
    ['fxsr', [0x0f, 0xae, 0x08]],
    ['sse', [0x0f, 0xae, 0xf8]],
    ['sse2', [0x0f, 0xae, 0xe8]],
    ['sse2', [0x0f, 0xae, 0xf0]],
    ['sse2', [0x0f, 0xc3, 0x00]],
  ] as const) {
    assert.equal(decoded(code, [feature]), Decode.ok, `${feature}: ${code}`);
    assert.equal(decoded(code, []), Decode.undefined, `${feature}: ${code}`);
  }
});
