// `nonroot`: the tool of people. Commands, their help, and exit codes: 0 done, 1 failed, 2 usage.

import { catalog } from '../images/catalog.ts';
import { columns, describeOptions, type Option, parseArguments, UsageError } from './args.ts';
import { daemonCommand } from './daemon.ts';
import { domainCommands } from './domains.ts';
import type { CliHost, ImageLine } from './host.ts';
import { imgCommand } from './img.ts';
import { progressBar } from './progress.ts';
import { run } from './run.ts';
import { webCommand } from './web.ts';

interface Command {
  readonly help: string;
  readonly run: (argv: readonly string[], host: CliHost) => Promise<number>;
}

const jsonOption: Option = { names: ['--json'], help: 'print JSON' };

const imagesHelp = (): string => `Usage: nonroot images [--json]

Lists the images that \`nonroot run\` and \`nonroot pull\` know, and which of them
are in the cache.

${describeOptions([jsonOption])}
`;

async function images(argv: readonly string[], host: CliHost): Promise<number> {
  const args = parseArguments([jsonOption], 0, argv);
  if (args.get('--help') !== undefined) return print(host, imagesHelp());
  const list = await host.images();
  if (args.get('--json') !== undefined) return print(host, `${JSON.stringify(list, null, 2)}\n`);
  const width = Math.max(...list.map((line) => line.name.length));
  const text = list.map((line) => `${line.name.padEnd(width)}  ${line.packages ? 'ready  ' : 'to pull'}  ${line.description}\n`);
  return print(host, text.join(''));
}

const pullHelp = (): string => `Usage: nonroot pull NAME [--json]

Fetches the packages of an image and makes it, also when it is in the cache
already. NAME is one of
  ${catalog.map((row) => row.name).join(', ')}

Packages come from this machine's apt, without root. NONROOT_MIRROR, the URL of
a Debian mirror, and NONROOT_SUITE (default bookworm) name another source.

${describeOptions([jsonOption])}
`;

async function pull(argv: readonly string[], host: CliHost): Promise<number> {
  const args = parseArguments([jsonOption], 1, argv);
  if (args.get('--help') !== undefined) return print(host, pullHelp());
  const [name] = args.words;
  const names = catalog.map((row) => row.name);
  if (name === undefined) throw new UsageError(`Cannot pull: NAME is missing, accepted are ${names.join(', ')}`);
  if (!names.includes(name)) throw new UsageError(`Cannot find image "${name}": accepted are ${names.join(', ')}`);
  const bar = progressBar(host.bar);
  const line = await host.pull(name, bar.report).finally(() => bar.end());
  return print(host, args.get('--json') === undefined ? `${describe(line)}\n` : `${JSON.stringify(line, null, 2)}\n`);
}

const describe = (line: ImageLine): string => `${line.name}: ${(line.packages ?? []).join(', ')}`;

async function print(host: CliHost, text: string): Promise<number> {
  await host.out.write(text);
  return 0;
}

const commands: Readonly<Record<string, Command>> = {
  run: { help: 'run a guest on this terminal', run },
  images: { help: 'list the images by name', run: images },
  pull: { help: 'fetch an image', run: pull },
  daemon: { help: 'manage guests for virsh and others, in the background', run: daemonCommand },
  ...domainCommands,
  web: { help: 'serve a page that manages guests', run: webCommand },
  img: { help: 'make, inspect and change disk images', run: imgCommand },
};

const help = (): string => `Usage: nonroot COMMAND [OPTION...]

Runs virtual machines without root, kernel module or native code.

Commands:
${columns(Object.entries(commands).map(([name, command]) => [name, command.help] as const))}

  nonroot COMMAND --help says more; nonroot --version prints the version.
  nonroot-system-x86_64 takes QEMU's command line.
`;

/** Runs the command line (without the program's name); the exit code. */
export async function nonroot(argv: readonly string[], host: CliHost): Promise<number> {
  const [name, ...rest] = argv;
  try {
    if (name === undefined) {
      await host.err.write(help());
      return 2;
    }
    if (name === '--help' || name === '-h' || (name === 'help' && rest.length === 0)) return await print(host, help());
    if (name === '--version') return await print(host, `nonroot ${host.version}\n`);
    const command = name === 'help' ? commands[rest[0]!] : commands[name];
    if (!command || !Object.hasOwn(commands, name === 'help' ? rest[0]! : name))
      throw new UsageError(
        `Cannot run command "${name === 'help' ? rest[0] : name}": accepted are ${Object.keys(commands).join(', ')}`,
      );
    return await command.run(name === 'help' ? ['--help'] : rest, host);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const hint =
      error instanceof UsageError ? `; nonroot ${name && Object.hasOwn(commands, name) ? `${name} ` : ''}--help says more` : '';
    await host.err.write(`nonroot: ${message}${hint}\n`);
    return error instanceof UsageError ? 2 : 1;
  }
}
