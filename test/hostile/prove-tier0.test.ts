// The prover on tier 0, its subroutines and the handlers of every instruction, in both widths of memory; on the same code with mistakes planted,
// each of which it has to find; and what it takes as given of records.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Cell } from '../../src/accel/dbt/cells.ts';
import { createEngine, mainModule } from '../../src/accel/dbt/dbt.ts';
import { Handlers, variantName } from '../../src/accel/dbt/handlers.ts';
import { WIDE_PAGES_MAX } from '../../src/accel/dbt/layout.ts';
import { Library } from '../../src/accel/dbt/library.ts';
import { type Proof, prove } from '../../src/accel/dbt/prove.ts';
import { buildHandlers } from '../../src/accel/dbt/tier0.ts';
import { Decode, decode, Insn } from '../../src/isa/x86/decode.ts';
import { RECORD_BYTES, Rec, recordPlaces, writeRecord } from '../../src/isa/x86/record.ts';
import { allRows } from '../../src/isa/x86/rows/all.ts';
import * as st from '../../src/isa/x86/state.ts';
import { Ctx } from '../../src/isa/x86/state.ts';
import { buildTables } from '../../src/isa/x86/table.ts';
import { variantsOf } from '../../src/isa/x86/variants.ts';
import { decodeModule, type WasmInsn, type WasmModule } from '../../src/wasm/decode.ts';
import { Random } from '../native/random.ts';
import { hosts } from './proving.ts';

const engine = createEngine();
const mains = [false, true].map((wide) => decodeModule(mainModule(engine, wide)));
const tables = buildTables(allRows);
const library = new Library();
const handlers = new Handlers(library);
for (const v of tables.rows.flatMap(variantsOf)) handlers.get(v);

const told = (proof: Proof): string[] =>
  proof.unproven.map((u) => {
    const handler = /^h(\d+)$/.exec(u.name);
    return `${handler ? variantName(handlers.list[Number(handler[1])]!.variant) : u.name} at ${u.at}: ${u.what}`;
  });

test('no access of tier 0 and its subroutines leaves what it may touch, in both widths of memory', (t) => {
  for (const main of mains) {
    const proof = prove(main, hosts);
    assert.deepEqual(told(proof), []);
    assert.ok(proof.proven.state > 10_000 && proof.proven.guest > 500);
    t.diagnostic(
      `${main.functions.length} functions: ${proof.proven.state} accesses to the state, ${proof.proven.guest} to guest memory`,
    );
  }
});

/** The module of every `step`th handler and of all subroutines that they call. */
function handlersModule(step: number, wide: boolean): WasmModule {
  const some = handlers.list.filter((h) => h.number % step === 0);
  return decodeModule(buildHandlers(library, some, {}, { initial: 1, maximum: wide ? WIDE_PAGES_MAX : 65536 }).bytes);
}
const narrow = handlersModule(7, false);

test('nor does any of the handlers of all instructions', (t) => {
  for (const [wide, module] of [[false, narrow], [true, handlersModule(19, true)]] as const) {
    const proof = prove(module, hosts);
    assert.deepEqual(told(proof), []);
    t.diagnostic(`${module.functions.length} functions${wide ? ', wide' : ''}: ${proof.proven.state} and ${proof.proven.guest} accesses`);
  } // biome-ignore format: pairs
});

/** A mistake: in which functions, how the instruction that has it is recognised, and what it becomes. */
interface Mistake {
  readonly what: string;
  readonly of: RegExp;
  readonly where: (code: readonly WasmInsn[], k: number) => boolean;
  readonly by: Partial<WasmInsn>;
}
const constant =
  (value: bigint, next: number) =>
  (code: readonly WasmInsn[], k: number): boolean =>
    (code[k]!.op === 0x41 || code[k]!.op === 0x42) && code[k]!.value === value && code[k + 1]?.op === next;
const op =
  (n: number, ...before: number[]) =>
  (code: readonly WasmInsn[], k: number): boolean =>
    code[k]!.op === n && before.every((b, i) => code[k - 1 - i]?.op === b);
const [AND32, AND64, LTU64, SUB32, SUB64] = [0x71, 0x83, 0x54, 0x6b, 0x7d];
const [OR32, XOR32, SHL32, SHRU32, REPLACE_LANE] = [0x72, 0x73, 0x74, 0x76, 0xfd01e];

const mistakes: readonly Mistake[] = [
  { what: 'the number of a TLB entry is not masked', of: /^(place|cellLook|tlbFill|flushPage)$/, where: constant(4095n, AND32), by: { value: -1n } },
  { what: 'the inline look into the TLB is not masked', of: /^run/, where: constant(0xfff0n, AND32), by: { value: -1n } },
  { what: 'another page of the TLB passes for the right one', of: /^(place|run)$/, where: constant(4096n, LTU64), by: { value: 8192n } },
  { what: 'the place in the jump cache is not masked', of: /^(lookup|chainMiss|find|flushPage)$/, where: constant(63n, AND32), by: { value: -1n } },
  { what: 'the place in the table of pieces is not masked', of: /^noteWrite$/, where: constant(1023n, AND32), by: { value: -1n } },
  { what: 'the place in the table of arrivals is not masked', of: /^run/, where: constant(8191n, AND32), by: { value: 0xffffffn } },
  { what: 'a slow access does not ask whether it goes over the page', of: /^(load|store|rmw|cmpxchg)Slow$/, where: constant(4096n, 0x20), by: { value: 8192n } },
  { what: 'more is read than the size says', of: /^readPlace$/, where: op(0x35), by: { op: 0x29 } },
  { what: 'more is written than the size says', of: /^writePlace$/, where: op(0x3e), by: { op: 0x37 } },
  { what: 'what is outside of RAM is taken for an address', of: /^(readPlace|writePlace|hostSpan)$/, where: op(0x53, 0x42), by: { op: 0x55 } },
  { what: 'a byte beyond the page of an access that crosses is read', of: /^(load|store)Crossing$/, where: constant(-4096n, AND64), by: { value: -1n } },
  { what: 'guest RAM is not held against its end', of: /^ramAddress$/, where: op(LTU64), by: { op: 0x56 } },
  { what: 'a memory slot is not held against its end', of: /^pageAddress$/, where: op(LTU64), by: { op: 0x56 } },
  { what: "the walk reads an entry of a table at a place that is not the entry's", of: /^walk$/, where: constant(3n, 0x86), by: { value: 0n } },
  { what: "a table's base is not cut to its page", of: /^walk$/, where: constant(0xffffffffff000n, AND64), by: { value: -1n } },
  { what: 'the addend of a new page is not what leads to it', of: /^tlbFill$/, where: op(SUB64), by: { op: 0x7c } },
  { what: 'a new page keeps bits below it', of: /^tlbFill$/, where: constant(-4096n, AND64), by: { value: -2048n } },
  { what: 'a store goes into the TLB instead of a register', of: /^run/, where: (code, k) => code[k]!.op === 0x37 && code[k]!.offset === 128, by: { offset: 8192 } },
  { what: 'a pointer in the state is set to something else', of: /^updateContext$/, where: (code, k) => code[k]!.op === 0x36 && code[k]!.offset === st.ctx.offset, by: { offset: st.tlb.offset } },
  { what: 'a table of the state is read from beyond its end', of: /^x87\.operand$/, where: (code, k) => constant(7n, AND32)(code, k) && code.slice(k, k + 6).some((x) => x.op === 0x6c), by: { value: 0xfffffffn } },
  { what: 'the number of a debug register is not checked', of: /^readDebug$/, where: constant(7n, 0x4b), by: { value: 0xffffffn } },
  { what: 'the line that is watched is not whole', of: /^h\d+$/, where: constant(-64n, AND64), by: { value: -32n } },
  { what: 'what is left of the page is not counted', of: /^(move|fill)Run/, where: constant(4095n, AND64), by: { value: 255n } },
  { what: 'the higher of two lengths is taken', of: /^(move|fill)Run/, where: (code, k) => op(LTU64)(code, k) && code[k + 1]?.op === 0x1b && code.slice(Math.max(0, k - 16), k).some((x) => x.value === 4095n), by: { op: 0x56 } },
  { what: 'as much is copied again as is there', of: /^fillRun/, where: (code, k) => op(SUB32)(code, k) && code.slice(k, k + 12).some((x) => x.op === 0xfc00a), by: { op: 0x6a } },
  { what: "a field of a record is taken for another's", of: /^h\d+$/, where: (code, k) => code[k]!.op === 0x2f && code[k]!.offset === Rec.rm, by: { op: 0x28, offset: Rec.disp } },
  { what: 'a handler goes on behind the next record', of: /^h\d+$/, where: (code, k) => constant(BigInt(RECORD_BYTES), 0x6a)(code, k) && k + 3 >= code.length, by: { value: 48n } },
  { what: 'a pointer to a record is one to anything', of: /^find$/, where: (code, k) => code[k]!.op === 0x28 && code[k]!.offset === 8, by: { offset: 4 } },
  { what: 'an empty entry has a tag that its number is looked for under', of: /^flush/, where: constant(2048n, XOR32), by: { value: 0n } },
  { what: 'the tag of an empty entry is where its addend is', of: /^flushAll$/, where: op(REPLACE_LANE), by: { index: 1 } },
  { what: "an entry's number is not that of its place", of: /^flush(All|NonGlobal|Page)$/, where: constant(4n, SHL32), by: { value: 3n } },
  { what: 'the number of an entry in the chain is not that of its place', of: /^flushNonGlobal$/, where: constant(4n, SHRU32), by: { value: 3n } },
  { what: 'the chain leads beside an entry', of: /^tlbFill$/, where: constant(8n, OR32), by: { value: 24n } },
  { what: 'an entry keeps half of its link', of: /^tlbFill$/, where: constant(-8n, AND32), by: { value: -32n } },
  { what: 'a link becomes flags', of: /^flushNonGlobal$/, where: constant(7n, AND32), by: { value: 31n } },
  { what: 'a walk fails without an exception', of: /^(walk|pageFault)$/, where: (code, k) => code[k]!.op === 0x36 && code[k]!.offset === st.exc.offset, by: { offset: st.excError.offset } },
  { what: 'no exception is taken for one', of: /^(walk|pageFault)$/, where: (code, k) => code[k]!.op === 0x41 && code[k + 1]?.op === 0x36 && code[k + 1]!.offset === st.exc.offset, by: { value: 0n } },
  { what: 'a walk that succeeds may look like one that fails', of: /^walk$/, where: constant(0xfffffffffffffn, AND64), by: { value: -1n } },
  { what: 'a walk that has not failed is taken for one that has', of: /^tlbFill$/, where: constant(-1n, 0x51), by: { value: -2n } },
  { what: 'a cell gets half of a page', of: /^cellLook$/, where: constant(-4096n, AND64), by: { value: -2048n } },
  { what: 'a cell gets a page that the entry may not hold', of: /^cellLook$/, where: constant(4096n, LTU64), by: { value: 8192n } },
  { what: "a cell gets what is not its page's addend", of: /^cellLook$/, where: (code, k) => code[k]!.op === 0x28 && code[k]!.offset === 8, by: { offset: 12 } },
  { what: 'a cell gets its key where its page is', of: /^cellLook$/, where: (code, k) => code[k]!.op === 0x37 && code[k]!.offset === Cell.key, by: { offset: Cell.page } },
  { what: 'a cell keeps its old addend', of: /^cellLook$/, where: (code, k) => code[k]!.op === 0x36 && code[k]!.offset === Cell.addend, by: { offset: Cell.misses } },
  { what: 'a cell keeps its old page', of: /^cellLook$/, where: (code, k) => code[k]!.op === 0x37 && code[k]!.offset === Cell.page, by: { offset: Cell.key } },
  { what: 'a cell gets a key from elsewhere', of: /^cellLook$/, where: (code, k) => code[k]!.op === 0x29 && code[k]!.offset === st.cellKey.offset, by: { offset: st.cr3.offset } },
  { what: 'a cell of the chain is taken for its flags', of: /^flushNonGlobal$/, where: constant(-2n, AND32), by: { value: -1n } },
]; // biome-ignore format: a table

/** Functions that a module exports, by name. */
const exported = new Map([...mains, narrow].map((module) => [module, [...module.exports]]));

test('mistakes in tier 0, its subroutines and handlers are found', (t) => {
  const missed: string[] = [];
  let planted = 0;
  for (const { what, of, where, by } of mistakes) {
    let here = 0;
    for (const [module, functions] of exported) {
      let inModule = 0;
      for (const [name, index] of functions) {
        if (!of.test(name) || inModule >= (name.startsWith('run') ? 1 : 4)) continue;
        const i = index - module.imports.length;
        const { code } = module.functions[i]!;
        const k = code.findIndex((_, n) => where(code, n));
        if (k < 0) continue;
        const spoilt = { ...module.functions[i]!, code: code.with(k, { ...code[k]!, ...by }) };
        const proof = prove({ ...module, functions: module.functions.with(i, spoilt) }, hosts, index);
        if (!proof.reached[0]!.has(code[k]!.at)) continue;
        inModule++;
        if (proof.unproven.length === 0) missed.push(`${what}: ${name} at ${code[k]!.at}`);
      }
      here += inModule;
    }
    planted += here;
    if (here === 0) missed.push(`${what}: nowhere to plant`);
  }
  assert.deepEqual(missed, []);
  t.diagnostic(`${planted} mistakes of ${mistakes.length} kinds`);
});

const CONTEXTS = [Ctx.long | Ctx.avx, Ctx.big | Ctx.protected | Ctx.avx, Ctx.protected, Ctx.big, 0];

test('records name no places in the state but those that the prover takes for granted', () => {
  const r = new Random(11);
  const insn = new Insn();
  const bytes = new Uint8Array(16);
  const words = new Int32Array(RECORD_BYTES / 4);
  const view = new DataView(words.buffer);
  const places = recordPlaces();
  let seen = 0;
  for (let n = 0; n < 200_000; n++) {
    for (let i = 0; i < bytes.length; i++) bytes[i] = r.below(256);
    const ctx = CONTEXTS[n % CONTEXTS.length]!;
    if (decode(tables, bytes, 0, bytes.length, ctx, insn) !== Decode.ok) continue;
    writeRecord(words, 0, insn, (ctx & Ctx.long) !== 0, r.below(4096), 1, 1, 0);
    seen++;
    for (const [field, known] of places)
      assert.ok(known.includes(view.getUint16(field, true)), `${insn.row.row.asm}: field ${field}`);
    assert.ok(view.getUint8(Rec.segment) < 8 && view.getUint8(Rec.number) < 16);
  }
  assert.ok(seen > 50_000);
});
