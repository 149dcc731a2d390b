import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type X87State, x87Bench } from './x87.bench.ts';
import { checksum, x87Cases, x87Codes } from './x87.cases.ts';
import { x87Golden } from './x87.golden.ts';
import { x87Rows } from './x87.ts';
import { transcendentalGolden } from './x87-transcendental.golden.ts';

const bench = x87Bench(x87Rows);
const hex = (text: string): Uint8Array => Uint8Array.from(text.trim().split(/\s+/), (x) => Number.parseInt(x, 16));

/** A state with ST(0), ST(1), … as `exponent:significand` in hex; the other registers are empty. */
function stateOf(values: readonly string[], options: { cw?: number; sw?: number; memory?: Uint8Array } = {}): X87State {
  const image = new Uint8Array(108);
  const view = new DataView(image.buffer);
  const top = (8 - values.length) & 7;
  view.setUint16(0, options.cw ?? 0x37f, true);
  view.setUint16(4, (options.sw ?? 0) | (top << 11), true);
  let tags = 0xffff;
  values.forEach((value, i) => {
    const [e, m] = value.split(':');
    view.setUint16(36 + 10 * i, Number.parseInt(e, 16), true);
    view.setBigUint64(28 + 10 * i, BigInt(`0x${m}`), true);
    tags &= ~(3 << (2 * ((top + i) & 7)));
  });
  view.setUint16(8, tags, true);
  return { image, memory: options.memory ?? new Uint8Array(128), flags: 2 };
}
const view = (image: Uint8Array): DataView => new DataView(image.buffer, image.byteOffset, image.byteLength);
const st = (s: X87State, i: number): string => {
  const v = view(s.image);
  return `${v
    .getUint16(36 + 10 * i, true)
    .toString(16)
    .padStart(4, '0')}:${v
    .getBigUint64(28 + 10 * i, true)
    .toString(16)
    .padStart(16, '0')}`;
};
const sw = (s: X87State): number => view(s.image).getUint16(4, true);
const run = (code: string, state: X87State, cr0?: bigint) => bench.run(hex(code), state, cr0);
const ONE = '3fff:8000000000000000';
const TWO = '4000:8000000000000000';
const ZERO = '0000:0000000000000000';

test('every instruction leaves what a real processor leaves, for seeded states of all kinds', () => {
  const lines = x87Golden.trim().split('\n');
  assert.equal(lines.length, Object.keys(x87Codes).length);
  lines.forEach((line, index) => {
    const [name, sums] = line.split(': ');
    x87Cases(index + 1, sums.length / 4).forEach((before, k) => {
      const after = bench.run(Uint8Array.from(x87Codes[name]), before);
      const expected = Number.parseInt(sums.slice(4 * k, 4 * k + 4), 16);
      assert.equal(checksum(after), expected, `${name}, seed ${index + 1}, case ${k}: ${st(before, 0)} ${st(before, 1)}`);
    });
  });
});

test('transcendental instructions give the correctly rounded result', () => {
  const codes: Record<string, string> = { fsin: 'd9 fe', fcos: 'd9 ff', fptan: 'd9 f2', f2xm1: 'd9 f0', fpatan: 'd9 f3', fyl2x: 'd9 f1', fyl2xp1: 'd9 f9' }; // biome-ignore format: a table
  for (const line of transcendentalGolden.trim().split('\n')) {
    const [name, x, y, result] = line.split(' ');
    const after = run(codes[name], stateOf([x, y]));
    assert.equal(st(after, name === 'fptan' ? 1 : 0), result, line);
    if (name === 'fptan') assert.equal(st(after, 0), ONE);
    assert.equal(sw(after) & 0x20, 0x20, `${line}: PE`);
  }
});

test('FSIN, FCOS, FSINCOS and FPTAN leave arguments from 2^63 on alone and set C2', () => {
  for (const code of ['d9 fe', 'd9 ff', 'd9 fb', 'd9 f2']) {
    const after = run(code, stateOf(['403e:8000000000000000']));
    assert.equal(st(after, 0), '403e:8000000000000000');
    assert.equal(sw(after), 0x3c00);
    assert.equal(sw(run(code, stateOf(['403d:ffffffffffffffff'], { sw: 0x400 }))) & 0x400, 0);
  }
});

test('transcendental instructions answer infinities, zeros and negative logarithms as the manual says', () => {
  const INF = '7fff:8000000000000000';
  const MINUS_INF = 'ffff:8000000000000000';
  const NAN = 'ffff:c000000000000000';
  const half = (s: string): string => `${s}:c90fdaa22168c235`;
  const rows: readonly [string, string, string, string, number][] = [
    ['d9 f1', ZERO, ONE, MINUS_INF, 4], // y * log2(0): ZE
    ['d9 f1', ZERO, ZERO, NAN, 1],
    ['d9 f1', `bfff:8000000000000000`, ONE, NAN, 1],
    ['d9 f1', ONE, INF, NAN, 1],
    ['d9 f1', ONE, `c000:8000000000000000`, '8000:0000000000000000', 0],
    ['d9 f1', INF, `c000:8000000000000000`, MINUS_INF, 0],
    ['d9 f1', '4002:8000000000000000', TWO, '4001:c000000000000000', 0x20], // 2 * log2(8) = 6
    ['d9 f9', ZERO, INF, NAN, 1],
    ['d9 f9', '8000:0000000000000000', ONE, '8000:0000000000000000', 0],
    ['d9 f3', ZERO, ZERO, ZERO, 0],
    ['d9 f3', '8000:0000000000000000', ZERO, half('4000'), 0x20],
    ['d9 f3', ZERO, ONE, half('3fff'), 0x20],
    ['d9 f3', INF, INF, half('3ffe'), 0x20],
    ['d9 f3', MINUS_INF, INF, '4000:96cbe3f9990e91a8', 0x20],
    ['d9 fe', INF, ONE, NAN, 1],
    ['d9 f0', MINUS_INF, ONE, 'bfff:8000000000000000', 0],
    ['d9 f0', 'bfff:8000000000000000', ONE, 'bffe:8000000000000000', 0x20],
  ];
  for (const [code, x, y, result, flags] of rows) {
    const after = run(code, stateOf([x, y]));
    assert.equal(st(after, 0), result, `${code} ${x} ${y}`);
    assert.equal(sw(after) & 0x7f, flags, `${code} ${x} ${y}: exceptions`);
  }
});

test('a pending unmasked exception raises #MF at the next waiting instruction only, and not without CR0.NE', () => {
  const pending = stateOf([ONE, ZERO], { cw: 0x37b, sw: 0x8084 });
  for (const code of ['d8 c1', 'd9 e0', '9b', 'd9 fe', 'd9 06', 'd9 2e', '0f 77', 'd9 26', 'dd 26']) {
    const after = run(code, pending);
    assert.equal(after.vector, 16, code);
    assert.deepEqual(after.image.subarray(28), pending.image.subarray(28), code);
    assert.notEqual(run(code, pending, 0x80000013n).vector, 16, `${code} without NE`);
  }
  for (const code of ['db e2', 'db e3', 'd9 3e', 'dd 3e', 'df e0', 'd9 36', 'dd 36'])
    assert.equal(run(code, pending).vector, -1, code);
});

test('FWAIT raises #NM only with both CR0.MP and CR0.TS', () => {
  assert.equal(run('9b', stateOf([]), 0x8000003bn).vector, 7);
  assert.equal(run('9b', stateOf([]), 0x80000039n).vector, -1);
});

test('FLDCW unmasks a recorded exception and FNCLEX forgets it', () => {
  const after = run('d9 2e', stateOf([], { sw: 4, memory: hex('7b 03') }));
  assert.equal(sw(after), 0x8084);
  assert.equal(sw(run('db e2', after)), 0);
});

test('FNSTENV stores the environment in the formats of 32 and 16 bits and masks all exceptions', () => {
  const before = stateOf([ONE, ZERO, '7fff:8000000000000000'], { cw: 0x340, sw: 0x4000 });
  const wide = run('d9 36', before);
  assert.deepEqual([...wide.memory.subarray(0, 12)], [...hex('40 03 ff ff 00 68 ff ff ff 93 ff ff')]);
  assert.deepEqual([...wide.memory.subarray(24, 29)], [...hex('00 00 ff ff 00')]);
  assert.equal(view(wide.image).getUint16(0, true), 0x37f);
  const narrow = run('66 d9 36', before);
  assert.deepEqual([...narrow.memory.subarray(0, 16)], [...hex('40 03 00 68 ff 93 00 00 00 00 00 00 00 00 00 00')]);
});

test('FNSAVE and FRSTOR carry the whole state, in the protected and the real-mode format', () => {
  const before = stateOf([ONE, '8000:0000000000000000', 'c003:abcdef0123456789'], { cw: 0xb7f, sw: 0x4532 });
  for (const [prefix, cr0, bytes] of [
    ['', 0x80000033n, 108],
    ['66 ', 0x80000033n, 94],
    ['', 0x32n, 108],
    ['66 ', 0x32n, 94],
  ] as const) {
    const saved = run(`${prefix}dd 36`, before, cr0);
    assert.equal(view(saved.image).getUint16(0, true), 0x37f);
    assert.equal(sw(saved), 0);
    assert.equal(view(saved.image).getUint16(8, true), 0xffff);
    const loaded = run(`${prefix}dd 26`, { ...saved, image: saved.image }, cr0);
    assert.equal(view(loaded.image).getUint16(0, true), 0xb7f);
    assert.equal(sw(loaded), 0x4532 | (5 << 11));
    assert.deepEqual(loaded.image.subarray(28), before.image.subarray(28), `${prefix} ${cr0}`);
    assert.equal(saved.memory[bytes], 0);
  }
});

test('a memory operand that faults leaves the whole state as it was', () => {
  const memory = new Uint8Array(1);
  for (const code of [
    'd8 06',
    'd9 06',
    'd9 1e',
    'db 3e',
    'df 36',
    'df 3e',
    'db 2e',
    'd9 36',
    'dd 36',
    'dd 26',
    'd9 26',
    'd9 2e',
  ]) {
    const before = stateOf([ONE, TWO], { memory });
    const after = run(code, before);
    assert.equal(after.vector, 14, code);
    assert.deepEqual(after.image.subarray(28), before.image.subarray(28), code);
    assert.equal(sw(after), sw(before), code);
    assert.equal(view(after.image).getUint16(0, true), 0x37f, code);
    assert.equal(after.memory[0], 0, code);
  }
});

test('a ten-byte store across a boundary that faults writes none of its bytes', () => {
  const after = run('db 3e', stateOf(['3fff:ffffffffffffffff'], { memory: new Uint8Array(9) }));
  assert.equal(after.vector, 14);
  assert.ok(after.memory.every((x) => x === 0));
});
