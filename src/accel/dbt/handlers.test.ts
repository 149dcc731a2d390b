// All handlers that decoding can ask for, as WebAssembly.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Variant } from '../../isa/x86/bind.ts';
import { allRows } from '../../isa/x86/rows/all.ts';
import { buildTables } from '../../isa/x86/table.ts';
import { variantsOf } from '../../isa/x86/variants.ts';
import { REGION_FIRST } from './chain.ts';
import { Handlers, variantKey, variantName } from './handlers.ts';
import { calleesOf, Library } from './library.ts';
import { buildHandlers } from './tier0.ts';

const { rows } = buildTables(allRows);
const variants = rows.flatMap(variantsOf);
const memory = { initial: 1, maximum: 1 };

test('two variants never share a key or a name', () => {
  assert.equal(new Set(variants.map(variantKey)).size, variants.length);
  assert.equal(new Set(variants.map(variantName)).size, variants.length);
});

test('every variant of every row lowers to valid WebAssembly', () => {
  const library = new Library();
  const handlers = new Handlers(library);
  for (const v of variants) handlers.get(v);
  assert.ok(handlers.list.length <= REGION_FIRST, 'handlers reach into the places of regions');
  const { bytes } = buildHandlers(library, handlers.list, {}, memory);
  if (WebAssembly.validate(bytes)) return;
  // Name the first one that is not.
  for (const h of handlers.list) {
    const one = buildHandlers(library, [h], {}, memory);
    assert.ok(WebAssembly.validate(one.bytes), variantName(h.variant));
  }
  assert.fail('the module of all handlers is not valid');
});

test('flat segments cost no check, and matter to those alone that have a segment', () => {
  const handlers = new Handlers(new Library());
  const variant = (asm: string, isMemory: boolean): Variant => {
    return variants.find((v) => v.info.row.asm === asm && v.size === 32 && !v.long && v.isMemory === isMemory && v.flagsLive)!;
  };
  const calls = (v: Variant): readonly string[] => [...calleesOf(handlers.get(v).body)].map((c) => c.name);
  for (const [asm, isMemory] of [['mov Gv,Ev', true], ['push Zv', false], ['ret', false]] as const) {
    const v = variant(asm, isMemory);
    assert.ok(calls({ ...v, flat: false }).includes('segCheck'), asm);
    assert.ok(!calls({ ...v, flat: true }).includes('segCheck'), asm);
  }
  const mov = variant('mov Gv,Ev', false);
  assert.equal(handlers.get({ ...mov, flat: true }), handlers.get({ ...mov, flat: false }));
}); // biome-ignore format: pairs

test('a handler that writes no flags serves live and dead flags alike', () => {
  const handlers = new Handlers(new Library());
  const mov = variants.find((v) => v.info.row.asm === 'mov Ev,Gv' && v.flagsLive)!;
  assert.equal(handlers.get({ ...mov, flagsLive: false }), handlers.get(mov));
  const add = variants.find((v) => v.info.row.asm === 'add Ev,Gv' && v.flagsLive)!;
  assert.notEqual(handlers.get({ ...add, flagsLive: false }), handlers.get(add));
  assert.equal(handlers.get({ ...add, flagsLive: false }).writes, 0);
});
