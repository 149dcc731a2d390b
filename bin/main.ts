// What the programs in bin/ share: one command line over this Node process, to its exit code.

import { readFileSync } from 'node:fs';
import { packageFile } from '../src/host/node/package-file.ts';

/** Runs `program` with this process's arguments and ends the process with the code that it returns. */
export async function main<H>(
  program: (argv: readonly string[], host: H) => Promise<number>,
  host: (version: string) => H,
): Promise<never> {
  // Where nothing is left that could still happen, Node would end in silence and as if all were well.
  process.once('beforeExit', () => {
    process.stderr.write(
      'nonroot: Cannot go on: the program waits for something that will not come; this is a mistake in Nonroot\n',
    );
    process.exit(1);
  });
  const { version } = JSON.parse(readFileSync(packageFile(import.meta.dirname), 'utf8')) as { version: string };
  const code = await program(process.argv.slice(2), host(version));
  process.exitCode = code;
  // Pipes are flushed before the process ends; workers and timers that are left do not keep it.
  await Promise.all([process.stdout, process.stderr].map((s) => new Promise<void>((resolve) => s.write('', () => resolve()))));
  process.exit(code);
}
