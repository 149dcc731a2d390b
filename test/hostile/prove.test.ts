// The prover of emitted WebAssembly, on what random programs become, and on the same code spoilt: it has to find each spoilt access.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Area, layoutOf } from '../../src/accel/dbt/layout.ts';
import { type Proof, prove } from '../../src/accel/dbt/prove.ts';
import { rig, settle } from '../../src/accel/dbt/testing.ts';
import { allRows } from '../../src/isa/x86/rows/all.ts';
import { buildTables } from '../../src/isa/x86/table.ts';
import { effectOf, type WasmInsn, type WasmModule } from '../../src/wasm/decode.ts';
import { Generator } from '../native/generate.ts';
import { Translator } from '../native/tier.ts';
import { hosts, watchRegions } from './proving.ts';

const SEED = 77;
const CASES = 400;

const modules: { readonly module: WasmModule; readonly proof: Proof }[] = [];
const failures: string[] = [];
const proven = { state: 0, guest: 0 };
watchRegions((module, proof) => {
  modules.push({ module, proof });
  for (const u of proof.unproven) failures.push(`${u.what}, function ${u.function} at ${u.at}`);
  proven.state += proof.proven.state;
  proven.guest += proof.proven.guest;
});

test(`no access of the regions of ${CASES} random programs (seed ${SEED}) leaves what it may touch`, (t) => {
  for (const name of ['tier2', 'tier2 wide'] as const) {
    const translator = new Translator(name);
    const generator = new Generator(buildTables(allRows), SEED, {});
    for (let i = 0; i < CASES; i++) translator.run(generator.next().case);
  }
  assert.deepEqual(failures, []);
  t.diagnostic(`${modules.length} modules: ${proven.state} accesses to the state, ${proven.guest} to guest memory`);
  for (const wide of [false, true]) assert.ok(modules.filter(({ module }) => module.wide === wide).length > CASES / 2);
  assert.ok(proven.guest > CASES);
});

test('regions are proven for the one vCPU that they are made for', () => {
  const { vcpuBase, vcpuBytes } = layoutOf(64 << 20, 2);
  for (const { module } of modules.slice(0, 20)) {
    const { unproven } = prove(module, hosts, undefined, vcpuBase + vcpuBytes);
    assert.ok(unproven.length > 0);
  }
});

/** The module with one instruction replaced. */
function spoilt(module: WasmModule, index: number, at: number, by: Partial<WasmInsn>): WasmModule {
  const functions = module.functions.map((f, i) =>
    i === index ? { ...f, code: f.code.map((insn, k) => (k === at ? { ...insn, ...by } : insn)) } : f,
  );
  return { ...module, functions };
}

/** How an instruction of a region can be spoilt so that something outside could be reached; undefined where it cannot. */
function spoil(module: WasmModule, code: readonly WasmInsn[], k: number): Partial<WasmInsn> | undefined {
  const { op, value, offset } = code[k]!;
  const before = code[k - 1];
  const next = code[k + 1]?.op;
  // A look at a cell that lets accesses run over the page's end; a look at the TLB that takes another page for the right one.
  if (op === 0x42 && next === 0x58 && value > 4000n) return { value: 4096n };
  if (op === 0x42 && next === 0x54 && value === 4096n) return { value: 8192n };
  // Its number in the TLB is not masked any more.
  if (op === 0x41 && next === 0x71 && value === 0xfff0n) return { value: 0xffffffn };
  // Stores into the TLB, and behind the area.
  if (op === 0x37 && effectOf(op)!.gives === 0 && before?.op === 0x20 && offset > 0 && offset < 256) return { offset: Area.tlbs };
  // The result of a look, which is an address and no comparison's nor a place in the table, is not asked about.
  const from = code[k - 2]?.op ?? 0;
  const place = from === 0x10 && module.imports[code[k - 2]!.index]?.name === 'chainMiss';
  if (op === 0x45 && before?.op === 0x22 && next === 0x04 && !(from >= 0x45 && from <= 0x66) && !place) return { op: 0x67 };
  // Another word than the addend of the TLB's entry.
  if (op === 0x28 && offset === 8 && next === 0x6a && code[k - 2]?.op === 0xa7) return { offset: 12 };
  return undefined;
}

test('code that is spoilt is not proven', () => {
  const kinds = new Map<string, number>();
  for (const { module, proof } of modules) {
    module.functions.forEach((f, i) => {
      f.code.forEach((insn, k) => {
        const by = proof.reached[i]!.has(insn.at) ? spoil(module, f.code, k) : undefined;
        const kind = by && `0x${insn.op.toString(16)} ${Object.keys(by)}`;
        if (!kind || (kinds.get(kind) ?? 0) >= 25) return;
        kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
        const { unproven } = prove(spoilt(module, i, k, by), hosts);
        assert.ok(unproven.length > 0, `${kind} at ${insn.at} of function ${i} goes unnoticed`);
      });
    });
  }
  assert.ok(kinds.size >= 4, `only ${[...kinds.keys()].join('; ')} were spoilt`);
});

test('an access beyond what was checked is not proven', () => {
  let tried = 0;
  for (const { module, proof } of modules.slice(0, 60)) {
    module.functions.forEach((f, i) => {
      f.code.forEach((insn, k) => {
        // Accesses to guest memory have small places in their group.
        if (
          effectOf(insn.op)?.bytes === undefined ||
          insn.offset > 64 ||
          insn.op === 0xfe003 ||
          tried >= 300 ||
          !proof.reached[i]!.has(insn.at)
        )
          return;
        tried++;
        const found = prove(spoilt(module, i, k, { offset: 0x7000_0000 }), hosts);
        assert.ok(found.unproven.length > 0, `an offset of 0x70000000 at ${insn.at} goes unnoticed`);
      });
    });
  }
  assert.ok(tried > 100);
});

test('accesses whose look is often not served, for they run over pages, go one by one then, and are proven', () => {
  // mov ecx,60000; L: mov [rdi],rcx; add [rdi+8],rcx; mov [rdi+16],rcx; add edi,40; and edi,0x80fff; dec ecx; jnz L; hlt
  const { vcpu, bytes, layout } = rig('always', 'b960ea000048890f48014f0848894f1083c72881e7ff0f0800ffc975e8f4');
  const expected = new DataView(new ArrayBuffer(8192));
  let at = 0;
  for (let n = 60000; n > 0; n--) {
    expected.setBigUint64(at, BigInt(n), true);
    expected.setBigUint64(at + 8, BigInt.asUintN(64, expected.getBigUint64(at + 8, true) + BigInt(n)), true);
    expected.setBigUint64(at + 16, BigInt(n), true);
    at = (at + 40) & 0xfff;
  }
  vcpu.set('rdi', 0x80000n);
  failures.length = 0;
  assert.equal(settle(vcpu), 'hlt');
  assert.ok(vcpu.regionStats.renewed > 0, 'the region was not translated anew');
  assert.deepEqual(failures, []);
  const place = layout.ramBase + 0x80000;
  assert.deepEqual(bytes.slice(place, place + 8192), new Uint8Array(expected.buffer));
});
