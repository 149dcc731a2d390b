import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tablesFor } from './absent.ts';
import { cpuModel } from './cpu-model.ts';
import { Decode, decode, Insn } from './decode.ts';
import { allRows } from './rows/all.ts';
import { Ctx } from './state.ts';
import { buildTables, type RowInfo } from './table.ts';

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
    ['mmx', [0x0f, 0xfc, 0xc0]],
    ['sse', [0x0f, 0x58, 0xc0]],
    ['sse', [0xf3, 0x0f, 0x10, 0xc0]],
    ['sse', [0x0f, 0x2a, 0xc0]],
    ['sse', [0x0f, 0xae, 0x10]],
    ['sse2', [0x66, 0x0f, 0x58, 0xc0]],
    ['sse2', [0xf2, 0x0f, 0x10, 0xc0]],
    ['sse2', [0xf3, 0x0f, 0x5a, 0xc0]],
    ['sse2', [0x0f, 0x5b, 0xc0]],
    ['sse2', [0x66, 0x0f, 0xfc, 0xc0]],
    ['sse2', [0x66, 0x0f, 0xc5, 0xc0, 0x00]],
    ['sse4.1', [0x66, 0x0f, 0x3a, 0x15, 0xc0, 0x00]],
  ] as const) {
    assert.equal(decoded(code, [feature]), Decode.ok, `${feature}: ${code}`);
    assert.equal(decoded(code, []), Decode.undefined, `${feature}: ${code}`);
  }
});

test('what SSE and SSE2 brought for MMX registers asks for both, and every row of these sets for one of the three', () => {
  const whole = buildTables(allRows);
  const out = new Insn();
  const there = (code: readonly number[], ...features: string[]): boolean =>
    decode(tablesFor(whole, new Set(features)), Uint8Array.of(...code), 0, code.length, Ctx.protected | Ctx.big, out) ===
    Decode.ok;
  const [pavgb, paddq, pshufb] = [[0x0f, 0xe0, 0xc0], [0x0f, 0xd4, 0xc0], [0x0f, 0x38, 0x00, 0xc0]]; // biome-ignore format: three codes
  for (const [code, brings] of [[pavgb, 'sse'], [pavgb, 'mmxext'], [paddq, 'sse2'], [pshufb, 'ssse3']] as const) {
    assert.ok(there(code, 'mmx', brings), brings);
    assert.ok(!there(code, 'mmx') && !there(code, brings), brings);
  } // biome-ignore format: pairs
  const kept = restrictedTo(new Set([...cpuModel('max').features].filter((f) => !['mmx', 'sse', 'sse2'].includes(f))));
  assert.deepEqual(
    kept.filter((r) => r.fp === 'mmx'),
    [],
  );
  // Those of later features: none of them has a form of SSE or SSE2.
  const later = new Set(kept.filter((r) => r.fp === 'sse').map((r) => r.mnemonic));
  for (const mnemonic of [
    'addps',
    'addpd',
    'paddb',
    'movd',
    'movq',
    'movdqa',
    'movss',
    'cvtsi2ss',
    'cvtdq2pd',
    'psrldq',
    'ldmxcsr',
    'emms',
  ])
    assert.ok(!later.has(mnemonic), mnemonic);
  for (const mnemonic of ['haddps', 'pshufb', 'ptest', 'pcmpgtq', 'aesenc', 'sha1nexte'])
    assert.ok(later.has(mnemonic), mnemonic);
});

/** The rows that a model with these features has. */
function restrictedTo(features: ReadonlySet<string>): RowInfo[] {
  const { rows, first, second } = tablesFor(buildTables(allRows), features);
  const used = new Set([...first, ...second].flatMap((table) => [...table]).filter((n) => n >= 0));
  return rows.filter((r) => used.has(r.index));
}

test('without AVX2, VAES and VPCLMULQDQ their 256-bit forms are undefined and the 128-bit ones are not', () => {
  const whole = buildTables(allRows);
  const max = cpuModel('max').features;
  const out = new Insn();
  const decoded = (code: readonly number[], without: string): boolean => {
    const features = new Set([...max].filter((f) => f !== without));
    return (
      decode(tablesFor(whole, features), Uint8Array.of(...code, 0), 0, code.length + 1, Ctx.protected | Ctx.long, out) ===
      Decode.ok
    );
  };
  for (const [feature, code] of [
    ['avx2', [0xc5, 0xf9, 0xfc, 0xc0]],
    ['avx2', [0xc5, 0xf9, 0x73, 0xd8]],
    ['avx2', [0xc4, 0xe3, 0x79, 0x42, 0xc0]],
    ['avx2', [0xc4, 0xe2, 0x79, 0x2a, 0x00]],
    ['vaes', [0xc4, 0xe2, 0x79, 0xdc, 0xc0]],
    ['vpclmulqdq', [0xc4, 0xe3, 0x79, 0x44, 0xc0]],
  ] as const) {
    // VEX.L: bit 2 of the prefix's last byte.
    const last = code[0] === 0xc5 ? 1 : 2;
    const wide = code.map((byte, n) => (n === last ? byte | 4 : byte));
    assert.ok(decoded(code, feature), `${feature}: ${code}`);
    assert.ok(decoded(wide, 'none') && !decoded(wide, feature), `${feature}: ${wide}`);
  }
  // Of the broadcasts, AVX has those from memory.
  assert.ok(decoded([0xc4, 0xe2, 0x79, 0x18, 0x00], 'avx2') && !decoded([0xc4, 0xe2, 0x79, 0x18, 0xc0], 'avx2'));
  for (const wide of [[0xc5, 0xfc, 0x58, 0xc0], [0xc4, 0xe2, 0x7d, 0x17, 0xc0], [0xc4, 0xe3, 0x7d, 0x04, 0xc0]]) assert.ok(decoded(wide, 'avx2'), `${wide}`); // biome-ignore format: a list
});

test('LAHF and SAHF of a model without them are undefined in 64-bit code alone', () => {
  const tables = tablesFor(buildTables(allRows), cpuModel('kvm64').features);
  for (const code of [0x9e, 0x9f]) {
    const result = (ctx: number): number => decode(tables, Uint8Array.of(code), 0, 1, ctx, new Insn());
    assert.equal(result(Ctx.protected | Ctx.long), Decode.undefined);
    assert.equal(result(Ctx.protected | Ctx.big), Decode.ok);
  }
});
