// The file of kept regions: what is written is read, what cannot be trusted is not there.

import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { REGION_FIRST } from '../../accel/dbt/chain.ts';
import { REGIONS_MAX } from '../../accel/dbt/layout.ts';
import { REACH } from '../../accel/dbt/region.ts';
import type { Translated } from '../../accel/dbt/translate.ts';
import {
  appendKept,
  Kept,
  keptPath,
  type LoadedModule,
  likelyPath,
  loadAhead,
  type NewModule,
  noUses,
  writeKept,
} from './kept-code.ts';
import type { NativeCode } from './native-code.ts';

const root = mkdtempSync(join(tmpdir(), 'nonroot-kept-'));
after(() => rmSync(root, { recursive: true }));

/** Modules are what they were made of; each has "code" twice as long. */
const known = new Map<string, WebAssembly.Module>();
const cold = new Set<WebAssembly.Module>();
const native: NativeCode = {
  save: (module) => {
    const [name] = [...known].find(([, m]) => m === module)!;
    return cold.has(module) ? undefined : new Uint8Array(Buffer.from(name + name, 'latin1'));
  },
  load: (bytes, code) => {
    const name = Buffer.from(bytes).toString('latin1');
    return Buffer.from(code).toString('latin1') === name + name ? known.get(name) : undefined;
  },
};
function region(index: number, entry: number, code: readonly number[]): Translated {
  return {
    index: REGION_FIRST + index, ctx: 5, entry, reach: REACH.warm, grows: true, instructions: 7, stops: [3], sites: [[], [1]], cells: [[2, 4]],
    ranges: [[0, entry, entry + code.length]], code: Uint8Array.from(code),
  }; // biome-ignore format: one object
}
function made(name: string, ...regions: readonly Translated[]): NewModule {
  const module = known.get(name) ?? ({} as WebAssembly.Module);
  known.set(name, module);
  return { module, bytes: new Uint8Array(Buffer.from(name, 'latin1')), hosts: ['h'], imports: ['i', name], regions };
}

test('what is written is read again, by context and entry', () => {
  const path = keptPath('a', 0, undefined, root);
  assert.equal(Kept.open(path, native), undefined);
  const a = made('first', region(0, 16, [1, 2, 3]), region(1, 32, [4]));
  assert.deepEqual([...writeKept(path, native, [a], noUses())], [a]);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const regions = Kept.open(path, native)!.regions(noUses());
  assert.equal(regions.at(5, 48), undefined);
  assert.equal(regions.at(4, 16), undefined);
  const [found, ...more] = regions.at(5, 16)!;
  assert.deepEqual([found!.reach, found!.code, more.length], [REACH.warm, Uint8Array.of(1, 2, 3), 0]);
  assert.deepEqual({ ...found, module: undefined }, { ...a.regions[0], module: undefined });
  assert.deepEqual(regions.module(found!.module), { module: a.module, hosts: ['h'], imports: ['i', 'first'] });
  assert.deepEqual([regions.takes(REGION_FIRST + 1), regions.takes(REGION_FIRST + 2)], [true, false]);
});

test('later runs add to it, put what they used first, and take the place of what was there', () => {
  const path = keptPath('b', 0, new Set(['avx']), root);
  writeKept(
    path,
    native,
    [made('one', region(0, 16, [1])), made('two', region(1, 32, [2])), made('three', region(2, 48, [3]))],
    noUses(),
  );
  const uses = noUses();
  const before = Kept.open(path, native)!.regions(uses);
  before.used(before.at(5, 48)![0]!);
  before.used(before.at(5, 16)![0]!);
  // The second one again, elsewhere in the table; and a new one in the place of the first.
  const module = made('four', region(9, 32, [2]));
  writeKept(path, native, [module], uses);
  const kept = Kept.open(path, native)!;
  const now = kept.regions(noUses());
  assert.deepEqual(
    [now.at(5, 48), now.at(5, 16), now.at(5, 32)].map((l) => l!.map((r) => [r.module, r.index - REGION_FIRST])),
    [[[0, 2]], [[1, 0]], [[2, 9]]],
  );
  assert.deepEqual(now.module(2)!.module, module.module);
  assert.deepEqual([kept.readAhead(), kept.readAhead(), kept.readAhead(), kept.readAhead()], [true, true, true, false]);
  assert.equal(likelyPath('b', root), path);
  assert.equal(likelyPath('c', root), undefined);
  // Another vCPU's code is at other addresses.
  assert.notEqual(keptPath('b', 1, new Set(['avx']), root), path);
});

test('what is appended is found first, and one segment is made of all', () => {
  const path = keptPath('h', 0, undefined, root);
  assert.equal(appendKept(path, native, [made('none', region(0, 16, [1]))]), undefined, 'there is no file');
  writeKept(path, native, [made('A', region(0, 16, [1]), region(1, 32, [2]))], noUses());
  const added = [made('B', region(2, 16, [1])), made('C', region(1, 48, [3]))];
  assert.deepEqual([...appendKept(path, native, added)!], added);
  assert.deepEqual([...appendKept(path, native, [made('D', region(3, 64, [4]))], 2)!], [], 'fewer than are worth it');
  const places = (): unknown => {
    const kept = Kept.open(path, native)!;
    const now = kept.regions(noUses());
    let modules = 0;
    while (kept.readAhead()) modules++;
    const found = [16, 32, 48, 64].map((e) =>
      now.at(5, e)?.map((r) => [r.index - REGION_FIRST, now.module(r.module)?.imports[1]]),
    );
    return [modules, found];
  };
  // The second entry's place in the table is another one's now, and nothing is left of the first module.
  assert.deepEqual(places(), [2, [[[2, 'B']], undefined, [[1, 'C']], undefined]]);
  writeKept(path, native, [], noUses(), 0);
  assert.deepEqual(places(), [2, [[[2, 'B']], undefined, [[1, 'C']], undefined]]);
  // What was cut short is left out, and nothing is put behind it.
  const [size] = [statSync(path).size, appendKept(path, native, [made('E', region(4, 80, [5]))])];
  truncateSync(path, statSync(path).size - 1);
  assert.deepEqual(places(), [2, [[[2, 'B']], undefined, [[1, 'C']], undefined]]);
  assert.equal(appendKept(path, native, added), undefined);
  truncateSync(path, size);
  assert.deepEqual([...appendKept(path, native, added)!], added);
});

test('another thread loads what is likely to be used, in the order of use, but for what is there or damaged, and of that very file', () => {
  const path = keptPath('i', 0, undefined, root);
  const all = ['mA', 'mB', 'mC', 'mD'].map((name, i) => made(name, region(i, 16 * i, [i])));
  writeKept(path, native, all, noUses());
  const kept = Kept.open(path, native)!;
  const regions = kept.regions(noUses());
  kept.readAhead();
  const arrived: LoadedModule[] = [];
  const modules = kept.handOver(() => arrived.shift());
  assert.deepEqual(
    modules.places.map(({ number }) => number),
    [1, 2, 3],
  );
  // The vCPU needs the third one before the other thread comes to it, and the last one is damaged.
  assert.equal(regions.module(2)!.module, all[2]!.module);
  const bytes = readFileSync(path);
  bytes[bytes.indexOf('mD', modules.places[2]!.at)]! ^= 1;
  writeFileSync(path, bytes);
  const loaded = [...loadAhead(modules, native)];
  assert.deepEqual(loaded, [{ number: 1, module: all[1]!.module }, undefined]);
  // What has arrived is taken, wherever it comes from.
  const sent = {} as WebAssembly.Module;
  arrived.push({ number: 1, module: sent });
  assert.deepEqual(regions.module(1), { module: sent, hosts: ['h'], imports: ['i', 'mB'] });
  assert.deepEqual([...loadAhead(modules, native)], [], 'all have been begun with');
  modules.begun.fill(0);
  assert.deepEqual([...loadAhead({ ...modules, identity: 'other' }, native)], []);
});

test('modules that are not optimised wait', () => {
  const path = keptPath('d', 0, undefined, root);
  const [hot, later] = [made('hot', region(0, 16, [1])), made('later', region(1, 32, [2]))];
  cold.add(later.module);
  assert.deepEqual([...writeKept(path, native, [hot, later], noUses())], [hot]);
  cold.delete(later.module);
  assert.deepEqual([...writeKept(path, native, [later], noUses())], [later]);
  assert.equal(Kept.open(path, native)!.regions(noUses()).at(5, 16)!.length, 1);
});

test('a damaged file is as good as none, and is written anew', () => {
  const path = keptPath('e', 0, undefined, root);
  const write = (): ReadonlySet<NewModule> => writeKept(path, native, [made('whole', region(0, 16, [1, 2, 3]))], noUses());
  write();
  const good = readFileSync(path);
  for (let at = 0; at < good.length; at += 3) {
    const bad = Uint8Array.from(good);
    bad[at]! ^= 0x41;
    writeFileSync(path, bad);
    const regions = Kept.open(path, native)?.regions(noUses());
    const found = regions?.at(5, 16);
    // A module's own sum tells where only that is damaged.
    if (found) assert.equal(regions!.module(found[0]!.module), undefined, `byte ${at}`);
  }
  for (const length of [0, 3, 16, 40, good.length - 1]) {
    writeFileSync(path, good);
    truncateSync(path, length);
    const regions = Kept.open(path, native)?.regions(noUses());
    assert.ok(!regions?.at(5, 16) || regions.module(0) === undefined, `${length} bytes`);
    assert.equal(write().size, 1);
  }
  chmodSync(path, 0o622);
  assert.equal(Kept.open(path, native), undefined, 'others may write to it');
});

test('a file has as many regions as leave room for others, and there are a few files', () => {
  const path = keptPath('f', 0, undefined, root);
  const many = Array.from({ length: REGIONS_MAX }, (_, i) => region(i, i, [i & 255]));
  writeKept(path, native, [made('many', ...many)], noUses());
  const regions = Kept.open(path, native)!.regions(noUses());
  assert.equal(many.filter((r) => regions.takes(r.index)).length, (REGIONS_MAX * 3) / 4);
  for (let n = 0; n < 20; n++) {
    const other = keptPath(`g${n}`, 0, undefined, root);
    writeKept(other, native, [made('other', region(0, 16, [1]))], noUses());
    utimesSync(other, n, n);
  }
  assert.ok(readdirSync(dirname(path)).length <= 16);
  assert.ok(existsSync(path));
});

test('where it cannot be written nothing is said to be kept', () => {
  const file = join(root, 'file');
  writeFileSync(file, '');
  const path = keptPath('h', 0, undefined, file);
  assert.equal(writeKept(path, native, [made('lost', region(0, 16, [1]))], noUses()).size, 0);
});
