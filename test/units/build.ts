// Builds the test images of this folder with the host's C compiler: multiboot ELF files in the shape of KVM's unit tests.

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

const here = import.meta.dirname;
const FLAGS =
  '-O1 -mgeneral-regs-only -ffreestanding -fno-pic -no-pie -fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables -nostdlib -static -w -Wl,-n,--build-id=none,--no-warnings,-T';

/** Why images cannot be built here, or false. */
export const cannotBuild = (): string | false => {
  if (process.arch !== 'x64') return `the host's compiler makes code for ${process.arch}`;
  for (const tool of ['cc', 'objcopy']) if (spawnSync(tool, ['--version']).error) return `there is no ${tool}`;
  return false;
};

/** Path of the image of `name`.c; those in `legacy/` are 32-bit code. Throws what the compiler says. */
export function build(name: string): string {
  const source = join(here, `${name}.c`);
  const folder = dirname(source);
  const flags = [folder === here ? '-m64 -mno-red-zone' : '-m32', FLAGS].join(' ');
  const script = join(here, 'units.ld');
  const hash = createHash('sha256');
  for (const shared of new Set([here, folder]))
    for (const file of readdirSync(shared).sort())
      if (/\.(h|S)$/.test(file) || file === 'lib.c') hash.update(readFileSync(join(shared, file)));
  hash.update(readFileSync(script)).update(readFileSync(source)).update(flags);
  const directory = join(here, '../../.cache/units');
  const image = join(directory, `${basename(name)}-${hash.digest('hex').slice(0, 16)}`);
  if (existsSync(image)) return image;
  mkdirSync(directory, { recursive: true });
  const fresh = `${image}.${process.pid}`;
  const run = (program: string, args: readonly string[]): void => {
    const r = spawnSync(program, args, { cwd: folder, encoding: 'utf8' });
    if (r.status !== 0) throw new Error(`Cannot build ${name}: ${r.stderr}`);
  };
  run('cc', [...`${flags},${script}`.split(' '), '-o', fresh, 'start.S', 'lib.c', source]);
  // QEMU's loader takes 32-bit files only.
  run('objcopy', ['-O', 'elf32-i386', fresh]);
  renameSync(fresh, image);
  return image;
}
