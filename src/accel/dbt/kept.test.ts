// Regions of an earlier run in a machine whose code is the same, is other code, or becomes it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createVm, mainModule, regionMemory } from './dbt.ts';
import type { KeptRegion, KeptRegions } from './kept.ts';
import { createMemory, layoutOf } from './layout.ts';
import { bus, CODE, engine, MIB, settle } from './testing.ts';
import { type RegionMaker, type RegionWish, type Translated, translate } from './translate.ts';
import { DbtVcpu } from './vcpu.ts';

const main = new WebAssembly.Module(mainModule(engine));
const available = new Set(WebAssembly.Module.exports(main).map((e) => e.name));

// mov ecx,N; again: add eax,3; call f (on the next page); dec ecx; jnz again; hlt
const LOOP = 'b9 00000000 83c003 e8 00000000 ffc9 75f4 f4';
// f: inc rdx; ret
const F = '48ffc2 c3';
const FAR = 0x1100;

interface Kept {
  readonly region: Translated;
  readonly module: WebAssembly.Module;
  readonly hosts: readonly string[];
  readonly imports: readonly string[];
}

/** A machine of `mib` MiB with the program at `at`, and what it translated. */
function machine(at: number, rounds: number, kept: readonly Kept[], mib = 16, code = LOOP) {
  const layout = layoutOf(mib * MIB, 1);
  const memory = createMemory(layout);
  const bytes = new Uint8Array(memory.buffer);
  const translation = { ...engine, available, memory: regionMemory(layout.pages), env: layout.vcpuBase };
  const made: Kept[] = [];
  const ready: ReturnType<RegionMaker['receive']>[] = [];
  const maker: RegionMaker = {
    wish(wish: RegionWish) {
      const { batch, code, translated } = translate(translation, [wish], bytes);
      const module = code && new WebAssembly.Module(code);
      ready.push({ batch, module });
      if (module) for (const region of translated()) made.push({ region, module, hosts: batch.hosts, imports: batch.imports });
    },
    receive: () => ready.shift(),
  };
  const list = kept.map(({ region }, module): KeptRegion => ({ ...region, module }));
  const regions: KeptRegions = {
    at: (ctx, entry) => list.filter((r) => r.ctx === ctx && r.entry === entry),
    takes: (index) => list.some((r) => r.index === index),
    module: (n) => kept[n],
    used: () => {},
  };
  const vm = createVm(engine, memory, layout, 1, main, { maker, kept: regions });
  const vcpu = new DbtVcpu(vm, 0, bus([]));
  const put = (place: number, hex: string): void =>
    bytes.set(
      Uint8Array.from(hex.replaceAll(' ', '').match(/../g)!, (b) => Number.parseInt(b, 16)),
      layout.ramBase + place,
    );
  const write = (): void => {
    put(at, code);
    put(at + FAR, F);
    const view = new DataView(memory.buffer, layout.ramBase);
    view.setInt32(at + 1, rounds, true);
    view.setInt32(at + 9, FAR - 13, true);
  };
  write();
  const start = { 'cs.base': 0, 'cs.attr': 0xa09b, efer: 0x500, cr0: 1, rip: at, rsp: at };
  const run = (): void => {
    for (const [name, value] of Object.entries(start)) vcpu.set(name, BigInt(value));
    for (const name of ['rax', 'rdx', 'activity']) vcpu.set(name, 0n);
    vcpu.sync();
    for (let exit = settle(vcpu); exit === 'interrupted'; ) exit = settle(vcpu);
  };
  const inRegions = (): number => Number(vcpu.get('inRegions'));
  return { vcpu, made, run, put, inRegions };
}

/** What a first run of many rounds leaves. */
function first(at = CODE): readonly Kept[] {
  const { vcpu, made, run } = machine(at, 3_000_000, []);
  run();
  assert.equal(vcpu.get('rax'), 9_000_000n);
  assert.ok(made.length > 0, 'nothing was translated');
  return made;
}

test('code that has not changed runs in its region from the first round on, at whatever page and in a machine of another size', () => {
  const kept = first();
  for (const [at, mib] of [
    [CODE, 16],
    [0x4_0000, 16],
    [0x20_0000, 64],
  ] as const) {
    const { vcpu, run } = machine(at, 1000, kept, mib);
    run();
    assert.deepEqual([vcpu.get('rax'), vcpu.get('rdx')], [3000n, 1000n]);
    assert.ok(vcpu.regionStats.kept > 0, 'none was taken');
    assert.equal(vcpu.regionStats.kept, vcpu.regionStats.made);
  }
});

test('a region is not taken where its code is another, on its own page or on one that it calls', () => {
  const kept = first();
  const own = machine(CODE, 1000, kept, 16, LOOP.replace('83c003', '83c005'));
  own.run();
  assert.equal(own.vcpu.get('rax'), 5000n);
  const called = machine(CODE, 1000, kept);
  // f: add rdx,2 … ret
  called.put(CODE + FAR, '4883c202 c3');
  called.run();
  assert.deepEqual([called.vcpu.get('rax'), called.vcpu.get('rdx')], [3000n, 2000n]);
});

test('a region that is in use goes when its code is written to, and comes back with it', () => {
  const kept = first();
  const m = machine(CODE, 1000, kept);
  m.run();
  const taken = m.vcpu.regionStats.kept;
  for (const [hex, step] of [
    ['83c007', 7n],
    ['83c003', 3n],
  ] as const) {
    m.put(CODE + 5, hex);
    m.vcpu.forget();
    m.run();
    assert.equal(m.vcpu.get('rax'), step * 1000n);
  }
  assert.ok(m.vcpu.regionStats.kept > taken, 'it was not taken again');
});

test('new regions keep off the places of kept ones while there are others', () => {
  const kept = first();
  const indices = new Set(kept.map(({ region }) => region.index));
  // The same program with other constants: nothing of it fits.
  const m = machine(CODE, 3_000_000, kept, 16, LOOP.replace('83c003', '83c005'));
  m.run();
  assert.equal(m.vcpu.get('rax'), 15_000_000n);
  assert.ok(m.made.length > 0);
  for (const { region } of m.made) assert.ok(!indices.has(region.index), `${region.index}`);
});
