// What the programs in bin/ share: one command line over this Node process, to its exit code.

import { readFileSync } from 'node:fs';
import type { CliHost } from '../src/cli/host.ts';
import { nodeHost } from '../src/host/node/cli-host.ts';
import { packageFile } from './package-file.ts';

/** Runs `program` with this process's arguments and ends the process with the code that it returns. */
export async function main(program: (argv: readonly string[], host: CliHost) => Promise<number>): Promise<never> {
  const { version } = JSON.parse(readFileSync(packageFile(import.meta.dirname), 'utf8')) as { version: string };
  const code = await program(process.argv.slice(2), nodeHost(version));
  process.exitCode = code;
  // Pipes are flushed before the process ends; workers and timers that are left do not keep it.
  await Promise.all([process.stdout, process.stderr].map((s) => new Promise<void>((resolve) => s.write('', () => resolve()))));
  process.exit(code);
}
