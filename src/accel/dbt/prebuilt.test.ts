// An engine made from plain data is the one that the data was taken from.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createEngine, mainModule, prebuild, prepareEngine } from './dbt.ts';

for (const wide of [false, true])
  test(`a prebuilt engine has the same handlers, pairs and modules, with their code made when it is asked for (${wide ? 'beyond' : 'up to'} 4 GiB)`, () => {
    const data = prebuild(wide);
    const again = JSON.parse(JSON.stringify({ handlers: data.handlers })) as Pick<typeof data, 'handlers'>;
    const engine = createEngine({ ...data, ...again });
    const { engine: whole } = prepareEngine(wide);
    const list = whole.handlers.list;
    assert.equal(engine.handlers.list.length, list.length);
    assert.ok(list.some((h) => h.second));
    const { first, second, nop } = whole.tables;
    assert.deepEqual([engine.tables.first, engine.tables.second, engine.tables.nop?.index], [first, second, nop?.index]);
    for (const [n, h] of list.entries()) {
      const { body, variant, second, ...rest } = engine.handlers.list[n];
      const { body: _, variant: of, second: other, ...same } = h;
      assert.deepEqual(rest, same);
      assert.deepEqual({ ...variant, info: variant.info.index }, { ...of, info: of.info.index });
      assert.equal(second?.number, other?.number);
      if (second) {
        const first = whole.handlers.list.find((x) => !x.second && x.variant.info.row === of.info.row && x.body === h.body)!;
        assert.equal(engine.handlers.pairOf(engine.handlers.list[first.number], second)?.number, n);
      }
      assert.equal(body.length, h.body.length);
    }
    assert.deepEqual([engine.hotCount, engine.legacyFrom], [whole.hotCount, whole.legacyFrom]);
    assert.deepEqual(mainModule(engine, wide), data.main);
    assert.equal(engine.cold!.handlers.length, whole.cold!.handlers.length);
    assert.deepEqual(engine.cold!.made.bytes, whole.cold!.made.bytes);
  });
