// INIT of the boot CPU by itself, in a ROM of its own: what stays, what is reset, and where it goes on.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { program } from '../e2e/program.ts';
import { cannotBuild } from './build.ts';

const QEMU = '/usr/bin/qemu-system-x86_64';
const MACHINE = '-M pc -nodefaults -display none -serial stdio -no-reboot -device isa-debug-exit,iobase=0xf4,iosize=4 -cpu max';
const directory = mkdtempSync(join(tmpdir(), 'nonroot-init-'));
after(() => rmSync(directory, { recursive: true }));

/** Path of the ROM of `init.S`. */
function rom(): string {
  const [object, image] = [join(directory, 'init.o'), join(directory, 'init.rom')];
  for (const [tool, args] of [
    ['cc', ['-c', '-m32', '-o', object, join(import.meta.dirname, 'init.S')]],
    ['ld', ['-m', 'elf_i386', '-Ttext=0', '-e', '0', '--oformat', 'binary', '-o', image, object]],
  ] as const) {
    const r = spawnSync(tool, args, { encoding: 'utf8' });
    if (r.status !== 0) throw new Error(`Cannot build init.S: ${r.stderr}`);
  }
  return image;
}

/** What the boot CPU finds behind its INIT, as the manual has it. */
const EXPECTED = {
  CR0: '00000010', CR4: '00000000', CR2: '00000000', DR0: '00000000', DR7: '00000400', EFER: '00000000',
  SYSENTER_ESP: '12345678', PAT: '00070106', STAR: '9ABCDEF0', MTRR: '00000C06', TSC: '00001000', APIC_BASE: 'FEE00900',
  FCW: '0000037B', FSW: '00003000', ST0: '40490FDB', MXCSR: '00009F80', XMM7: '600DF00D', SVR: '000000FF', TPR: '00000000', LDR: '00000000',
}; // biome-ignore format: a table
/** What QEMU's translator has otherwise: it resets caching (CR0.CD and NW, the MTRRs), and its counter cannot be written. */
const OTHER = ['CR0', 'MTRR', 'TSC'];

test('an INIT that the boot CPU sends itself starts it at the reset vector, with what INIT keeps', {
  skip: cannotBuild(),
}, async () => {
  const image = rom();
  const found = async (emulator: string, more: string): Promise<Record<string, string>> => {
    const r = await program(emulator, [...`${MACHINE} ${more}`.trim().split(' '), '-bios', image], { seconds: 60 });
    assert.equal(r.code, 1, r.text);
    return Object.fromEntries(
      r.stdout
        .toString()
        .trim()
        .split('\n')
        .map((line) => line.trim().split('=')),
    ) as Record<string, string>;
  };
  const own = await found('nonroot-system-x86_64', '');
  assert.deepEqual(own, EXPECTED);
  assert.deepEqual(await found('nonroot-system-x86_64', '-accel dbt,threshold=0'), EXPECTED);
  if (!existsSync(QEMU)) return;
  const other = await found(QEMU, '');
  for (const [name, value] of Object.entries(EXPECTED))
    if (!OTHER.includes(name)) assert.equal(other[name], value, `${name} under QEMU`);
});
