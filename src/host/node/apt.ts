// Packages through the machine's own apt, without root: apt-get(8), apt-cache(8), apt.conf(5).

import { spawn } from 'node:child_process';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { type Package, parsePackages } from '../../images/packages.ts';
import type { Report } from '../../images/report.ts';
import { type Cache, scratchDirectory } from './cache.ts';
import { verify } from './fetch.ts';

/** A place to get packages of one architecture from. */
export type PackageSource = {
  readonly label: string;
  /** Versions of a package, newest first; empty when it is not known here. */
  find(name: string): Promise<readonly Package[]>;
  /** The package file, checked against the index. Rejects when it cannot be had. */
  get(entry: Package): Promise<Uint8Array>;
  /** Gives back what the source holds on disk. */
  close(): Promise<void>;
};

/** What all calls have in common: no prompts, no drop of privileges (our directories are private), limited waiting. */
const COMMON = ['-oAPT::Sandbox::User=root', '-oAcquire::Languages=none', '-oAcquire::Retries=1', '-oAcquire::http::Timeout=30'];

/** Hooks and indexes of the system's configuration that have no business with private lists. */
const PRIVATE_CONFIGURATION = [
  ...['Pre-Invoke', 'Post-Invoke', 'Post-Invoke-Success'].map((hook) => `#clear APT::Update::${hook};`),
  '#clear APT::Architectures;',
  '#clear Dir::State::lists;',
  '#clear Acquire::IndexTargets::deb;',
  'Acquire::IndexTargets::deb::Packages { MetaKey "$(COMPONENT)/binary-$(ARCHITECTURE)/Packages"; flatMetaKey "Packages"; ShortDescription "Packages"; Description "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Packages"; flatDescription "$(RELEASE) Packages"; Optional "0"; };',
  '',
].join('\n');

/** apt with the lists that the system has; they may be missing, old, or of other architectures. */
export function systemApt(cache: Cache, arch: string, report?: Report): PackageSource {
  return aptSource(
    "apt with the system's package lists",
    cache,
    arch,
    async () => COMMON,
    async () => {},
    report,
  );
}

/** apt with the system's sources and lists of its own, which it loads for the given architecture when first asked. */
export function privateApt(cache: Cache, arch: string, report?: Report): PackageSource {
  let directory: string | undefined;
  let ready: Promise<readonly string[]> | undefined;
  const prepare = async () => {
    directory = await scratchDirectory(cache);
    const [state, lists, archives, status, config] = ['state', 'state/lists', 'cache/archives', 'status', 'apt.conf'].map(
      (name) => join(directory!, name),
    ) as [string, string, string, string, string];
    await mkdir(join(lists, 'partial'), { recursive: true });
    await mkdir(join(archives, 'partial'), { recursive: true });
    await writeFile(status, '');
    await writeFile(config, PRIVATE_CONFIGURATION);
    const options = [
      ...['-c', config, ...COMMON, `-oAPT::Architecture=${arch}`, `-oAPT::Architectures::=${arch}`],
      ...[
        `-oDir::State=${state}`,
        `-oDir::State::lists=${lists}`,
        `-oDir::State::status=${status}`,
        `-oDir::Cache=${join(directory, 'cache')}`,
      ],
    ];
    // One broken source among several makes apt fail; whether what we need is there is seen when it is looked for.
    const update = await run('apt-get', [...options, 'update'], directory, statusReport('Loading package lists', report));
    if ((await readdir(lists)).every((name) => !/_Packages/.test(name)))
      throw new Error(`Cannot load package lists: ${lastError(update)}`);
    return options;
  };
  return aptSource(
    'apt with private package lists',
    cache,
    arch,
    () => (ready ??= prepare()),
    async () => {
      await ready?.catch(() => {});
      if (directory) await rm(directory, { recursive: true, force: true });
    },
    report,
  );
}

function aptSource(
  label: string,
  cache: Cache,
  arch: string,
  options: () => Promise<readonly string[]>,
  close: () => Promise<void>,
  report?: Report,
): PackageSource {
  return {
    label,
    close,
    async find(name) {
      const { stdout } = await run('apt-cache', [...(await options()), 'show', `${name}:${arch}`], '/');
      return parsePackages(stdout, (other) => other === name).get(name) ?? [];
    },
    async get(entry) {
      const directory = await scratchDirectory(cache);
      try {
        const progress = statusReport(`Fetching ${entry.name} ${entry.version}`, report);
        const result = await run(
          'apt-get',
          [...(await options()), 'download', `${entry.name}:${arch}=${entry.version}`],
          directory,
          progress,
        );
        const file = (await readdir(directory)).find((name) => name.endsWith('.deb'));
        if (result.code !== 0 || !file) throw new Error(`Cannot download ${entry.name} ${entry.version}: ${lastError(result)}`);
        const bytes = await readFile(join(directory, file));
        verify(file, bytes, entry);
        return bytes;
      } finally {
        await rm(directory, { recursive: true, force: true });
      }
    },
  };
}

type Finished = { readonly code: number; readonly stdout: string; readonly stderr: string };

/** Runs a program of apt to its end. `status` gets the lines of apt's status descriptor. Rejects only when there is no apt. */
function run(command: string, args: readonly string[], cwd: string, status?: (line: string) => void): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, status ? ['-oAPT::Status-Fd=3', ...args] : args, {
      cwd,
      env: { ...process.env, LC_ALL: 'C.UTF-8', DEBIAN_FRONTEND: 'noninteractive' },
      stdio: ['ignore', 'pipe', 'pipe', status ? 'pipe' : 'ignore'],
    });
    const text = { stdout: '', stderr: '' };
    child.stdout?.setEncoding('utf8').on('data', (chunk: string) => (text.stdout += chunk));
    child.stderr?.setEncoding('utf8').on('data', (chunk: string) => (text.stderr += chunk));
    let rest = '';
    const statusPipe = child.stdio[3] as Readable | null | undefined;
    statusPipe?.setEncoding('utf8').on('data', (chunk: string) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop()!;
      for (const line of lines) status?.(line);
    });
    child.on('error', (error: NodeJS.ErrnoException) => {
      reject(error.code === 'ENOENT' ? new NoApt(command) : new Error(`Cannot run ${command}: ${error.message}`));
    });
    child.on('close', (code, signal) => resolve({ ...text, code: code ?? (signal ? 128 : 1) }));
  });
}

/** There is no apt on this machine. */
export class NoApt extends Error {
  constructor(command: string) {
    super(`Cannot run ${command}: there is none on this machine`);
  }
}

/** apt's lines `dlstatus:ITEM:PERCENT:TEXT` as steps of one label. */
function statusReport(label: string, report?: Report): (line: string) => void {
  return (line) => {
    const percent = /^dlstatus:[^:]*:([0-9.]+):/.exec(line)?.[1];
    if (percent !== undefined) report?.({ label, done: Number(percent), total: 100 });
  };
}

/** The last error that apt printed, in one line. */
function lastError(result: Finished): string {
  const lines = result.stderr.split('\n').filter((line) => line !== '');
  const errors = lines.filter((line) => line.startsWith('E:'));
  return (errors[0] ?? lines.at(-1) ?? `exit code ${result.code}`).replace(/^[EW]: /, '');
}
