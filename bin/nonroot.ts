// `nonroot`: joins the commands to this Node process. Started by the launcher `bin/nonroot`, or by Node itself.

import { readFileSync } from 'node:fs';
import { nonroot } from '../src/cli/nonroot.ts';
import { nodeHost } from '../src/host/node/cli-host.ts';
import { packageFile } from './package-file.ts';

const { version } = JSON.parse(readFileSync(packageFile(import.meta.dirname), 'utf8')) as { version: string };
// Pipes are flushed before the process ends; workers and timers that are left do not keep it.
const code = await nonroot(process.argv.slice(2), nodeHost(version));
process.exitCode = code;
await Promise.all([process.stdout, process.stderr].map((s) => new Promise<void>((resolve) => s.write('', () => resolve()))));
process.exit(code);
