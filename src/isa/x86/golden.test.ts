// Twenty instructions from their bytes to IR and WebAssembly, in both operand bindings, against golden.txt. The twenty show what x86
// asks of a row: docs/decisions/001-how-an-x86-row-looks.md. After an intended change, look at what the new file says:
// UPDATE_GOLDEN=1 npm test -- golden

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { Handlers } from '../../accel/dbt/handlers.ts';
import { Library } from '../../accel/dbt/library.ts';
import { buildHandlers } from '../../accel/dbt/tier0.ts';
import type { Stmt } from '../../ir/ir.ts';
import { printStatements } from '../../ir/print.ts';
import { Decode, decode, Insn } from './decode.ts';
import { allRows } from './rows/all.ts';
import { Ctx } from './state.ts';
import { emitRow, StaticEmit, variantOf } from './static.ts';
import { buildTables } from './table.ts';

const LONG = Ctx.long | Ctx.protected | Ctx.user;
const PROTECTED = Ctx.protected | Ctx.big;

/** Context, bytes, and how an assembler writes them. */
const twenty: readonly [ctx: number, bytes: string, text: string][] = [
  [LONG, '48 01 d8', 'add rax,rbx'],
  [LONG, '01 44 8b 10', 'add [rbx+rcx*4+0x10],eax'],
  [LONG, 'f0 01 03', 'lock add [rbx],eax'],
  [LONG, '80 d1 05', 'adc cl,5'],
  [LONG, '20 e0', 'and al,ah'],
  [LONG, '48 83 f8 ff', 'cmp rax,-1'],
  [PROTECTED, '40', 'inc eax (32-bit code)'],
  [LONG, 'f7 f1', 'div ecx'],
  [LONG, '48 d3 e0', 'shl rax,cl'],
  [LONG, '48 0f a3 03', 'bt [rbx],rax'],
  [0, '8b 07', 'mov ax,[bx] (16-bit code)'],
  [LONG, '48 b8 88 77 66 55 44 33 22 11', 'mov rax,0x1122334455667788'],
  [LONG, '64 0f b6 07', 'movzx eax,byte fs:[rdi]'],
  [LONG, '48 8d 05 00 01 00 00', 'lea rax,[rip+0x100]'],
  [LONG, '8f 44 24 08', 'pop [rsp+8]'],
  [LONG, '74 fe', 'jz $'],
  [LONG, 'e8 00 01 00 00', 'call $+0x105'],
  [LONG, 'f3 a4', 'rep movsb'],
  [LONG, 'f0 48 0f b1 0b', 'lock cmpxchg [rbx],rcx'],
  [LONG, 'f2 0f 58 00', 'addsd xmm0,[rax]'],
];

const tables = buildTables(allRows);
const library = new Library();
const handlers = new Handlers(library);
/** Every subroutine counts as there already: the modules below hold the instruction alone. */
const available = new Proxy<Record<string, unknown>>({}, { has: () => true });

function moduleHash(handler: Parameters<typeof buildHandlers>[1][number]): string {
  const { bytes } = buildHandlers(library, [handler], available, { initial: 1, maximum: 1 });
  assert.ok(WebAssembly.validate(bytes), 'the module is valid');
  return createHash('sha256').update(bytes).digest('hex').slice(0, 16);
}

function golden(): string {
  const parts: string[] = [];
  for (const [ctx, bytes, text] of twenty) {
    const code = Uint8Array.from(Buffer.from(bytes.replaceAll(' ', ''), 'hex'));
    const insn = new Insn();
    assert.equal(decode(tables, code, 0, code.length, ctx, insn), Decode.ok, text);
    assert.equal(insn.length, code.length, text);
    const variant = variantOf(insn, ctx, true);
    const handler = handlers.get(variant);
    const c = new StaticEmit(variant, insn, 0x100);
    emitRow(c);
    const body: readonly Stmt[] = c.b.take();
    parts.push(
      `== ${bytes}: ${text}\nrow ${insn.row.row.opcode}: ${insn.row.row.asm}\n`,
      `-- from the record, wasm ${moduleHash({ ...handler, number: 0 })}\n${printStatements(handler.body)}`,
      `-- from constants, wasm ${moduleHash({ ...handler, number: 0, body })}\n${printStatements(body)}\n`,
    );
  }
  return parts.join('');
}

test('twenty instructions become the IR and the WebAssembly that golden.txt holds', () => {
  const file = new URL('golden.txt', import.meta.url);
  const now = golden();
  if (process.env['UPDATE_GOLDEN']) writeFileSync(file, now);
  const then = readFileSync(file, 'utf8');
  const why = 'where the change is intended: UPDATE_GOLDEN=1 npm test -- golden';
  const sections = (text: string): Map<string, string> => new Map(text.split(/^== /m).map((s) => [s.split('\n')[0], s]));
  const [old, fresh] = [sections(then), sections(now)];
  for (const [name, section] of fresh) assert.equal(section, old.get(name), why);
  assert.deepEqual([...fresh.keys()], [...old.keys()], why);
});

test('IR of the same bytes is the same each time', () => {
  assert.equal(golden(), golden());
});
