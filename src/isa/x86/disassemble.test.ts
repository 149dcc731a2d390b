import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Decode, decode, Insn } from './decode.ts';
import { disassembled } from './disassemble.golden.ts';
import { instructionText } from './disassemble.ts';
import { allRows } from './rows/all.ts';
import { Ctx } from './state.ts';
import { buildTables } from './table.ts';

const tables = buildTables(allRows);
const modes: Readonly<Record<string, number>> = {
  16: Ctx.protected,
  32: Ctx.protected | Ctx.big,
  64: Ctx.protected | Ctx.big | Ctx.long,
};

function text(mode: string, bytes: Uint8Array): string | undefined {
  const insn = new Insn();
  return decode(tables, bytes, 0, bytes.length, modes[mode]!, insn) === Decode.ok ? instructionText(insn, 0x1000n) : undefined;
}

test('instructions read as Capstone writes them', () => {
  for (const line of disassembled.trim().split('\n')) {
    const [, mode, hex, wanted] = /^(\d+) (\w+) {2}(.*)$/.exec(line)!;
    assert.equal(text(mode!, Buffer.from(hex!, 'hex')), wanted, line);
  }
});

test('each row has a text in every mode, with no operand left out', () => {
  for (const { row, map, vex, prefix, opcode, digit, modrm, specs, mnemonic } of tables.rows) {
    if (row.opcode === '' || vex) continue;
    const lead = [[], [0x66], [0xf3], [0xf2]][Math.max(prefix, 0)]!;
    const last = modrm >= 0 ? modrm : (Math.max(0, digit) << 3) | 0x41;
    for (const mod of [0, 0x80])
      for (const mode of Object.keys(modes)) {
        const map0f = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]][map]!;
        const bytes = Uint8Array.from([...lead, ...map0f, opcode, last | (modrm >= 0 ? 0 : mod), 1, 2, 3, 4, 5, 6, 7, 8]);
        const said = text(mode, bytes);
        if (said === undefined) continue;
        assert.match(said, /^[a-z][\w ]*( .+)?$/, row.asm);
        assert.doesNotMatch(said, /undefined|NaN|\?/, row.asm);
        if (specs.length > 1 && opcode !== 0x90 && !/^(callf|jmpf)/.test(mnemonic))
          assert.match(said, /,/, `${row.opcode} ${row.asm}: ${said}`);
      }
  }
});
