// Which row has an encoding that several claim.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Row } from './row.ts';
import { buildTables, type Tables } from './table.ts';

const row = (opcode: string, asm: string, options: Row['options'] = {}): Row => ({ opcode, asm, options, emit: () => {} });
/** The row of `0F 10` with a ModRM byte. */
function found(t: Tables, modrm: number, { long = true, w = 0, prefix = 0 } = {}): string | undefined {
  const entry = t.first[long ? 1 : 0][(4 + prefix) * 256 + 0x10]!;
  const index = entry < -1 ? t.second[-2 - entry]![w * 256 + modrm]! : entry;
  return t.rows[index]?.row.asm;
}

test('the more exact of two rows has what both claim: a prefix, a whole ModRM byte, its middle digit, its form, REX.W', () => {
  const t = buildTables([
    row('0F 10 /r', 'any Ev'),
    row('0F 10 /r', 'mem Md'),
    row('0F 10 /2', 'two Ev'),
    row('0F 10 D1', 'whole'),
    row('REX.W 0F 10 /3', 'wide Ev'),
    row('0F 10 /3', 'three Ev'),
    row('66 0F 10 /r', 'prefixed Ev'),
    row('0F 10 /4', 'old Ev', { mode: 'legacy' }),
  ]);
  assert.equal(found(t, 0xc0), 'any Ev');
  assert.equal(found(t, 0x00), 'mem Md');
  assert.equal(found(t, 0x10), 'two Ev');
  assert.equal(found(t, 0xd0), 'two Ev');
  assert.equal(found(t, 0xd1), 'whole');
  assert.equal(found(t, 0xd9), 'three Ev');
  assert.equal(found(t, 0xd9, { w: 1 }), 'wide Ev');
  assert.equal(found(t, 0xd1, { prefix: 1 }), 'prefixed Ev');
  assert.equal(found(t, 0xe0), 'any Ev');
  assert.equal(found(t, 0xe0, { long: false }), 'old Ev');
});

test('a register form has ModRM.mod 3; MOV of control and debug registers has every mod', () => {
  const t = (asm: string): Tables => buildTables([row('0F 10 /r', asm)]);
  for (const modrm of [0, 0x40, 0x80, 0xc0]) {
    assert.equal(found(t('x Rd,Gd'), modrm), modrm === 0xc0 ? 'x Rd,Gd' : undefined);
    for (const asm of ['x Rd,Dy', 'x Cy,Rd']) assert.equal(found(t(asm), modrm), asm);
  }
});

test('two equally exact rows may not claim one encoding, unless a more exact one has all that they share', () => {
  const clash = (...rows: Row[]): void =>
    assert.throws(() => buildTables(rows), /rows "[^"]+" x.* and "[^"]+" y.* claim one encoding/);
  clash(row('0F 10 /2', 'x Ev'), row('0F 10 /2', 'y Ev'));
  clash(row('0F 10 /r', 'x Md'), row('0F 10 /r', 'y Mq'));
  clash(row('REX.W 0F 10 /2', 'x Ev'), row('REX.W 0F 10 /2', 'y Ev'));
  clash(row('0F 10 /2', 'x Ev'), row('0F 10 /2', 'y Ev'), row('REX.W0 0F 10 /2', 'z Ev'));
  clash(row('0F 10 D1', 'x'), row('0F 10 D1', 'y'));
  for (const rows of [
    [row('0F 10 /2', 'x Ev'), row('0F 10 /3', 'y Ev')],
    [row('REX.W 0F 10 /2', 'x Ev'), row('REX.W0 0F 10 /2', 'y Ev')],
    [row('0F 10 /2', 'x Md'), row('0F 10 /2', 'y Rd')],
    [row('0F 10 /2', 'x Ev', { mode: 'long' }), row('0F 10 /2', 'y Ev', { mode: 'legacy' })],
    [row('0F 10 /2', 'x Ev'), row('0F 10 /2', 'y Ev'), row('REX.W 0F 10 /2', 'z Ev'), row('REX.W0 0F 10 /2', 'z Ev')],
  ])
    buildTables(rows);
});
