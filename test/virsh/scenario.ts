// Runs the scenario of operations.ts with the installed virsh against one daemon, and compares what came out.
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { documents, images, type Operation, operations } from './operations.ts';

export interface Outcome {
  readonly code: number;
  readonly out: string;
}
export type Outcomes = Readonly<Record<string, Outcome>>;

export interface Target {
  /** A connection URI. */
  readonly uri: string;
  readonly emulator: string;
  /** An empty directory for this run. */
  readonly directory: string;
}

const words = (command: string): string[] =>
  [...command.matchAll(/"((?:[^"\\]|\\.)*)"|(\{".*\})|(\S+)/g)].map((m) => m[1] ?? m[2] ?? m[3]!);

export function prepare({ directory, emulator }: Target): void {
  mkdirSync(directory, { recursive: true });
  for (const [name, text] of Object.entries(documents)) {
    writeFileSync(join(directory, name), text.replaceAll('{dir}', directory).replaceAll('{emulator}', emulator));
  }
  for (const [name, size] of images) {
    const path = join(directory, name);
    if (size === 'raw') writeFileSync(path, Buffer.alloc(1024 * 1024));
    else execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', path, size]);
  }
}

/** What differs between two runs for reasons that are nobody's: places, numbers of terminals, the host's security labels. */
function normalise(text: string, target: Target): string {
  return (
    text
      .replaceAll(target.directory, '{dir}')
      .replaceAll(target.emulator, '{emulator}')
      .replace(/\/dev\/pts\/\d+/g, '/dev/pts/N')
      .replace(/path='[^']*\/channel\/target\/[^']*\//g, "path='{channels}/")
      .replace(/<domain type='qemu' id='\d+'>/g, "<domain type='qemu' id='N'>")
      .replace(/ {2}<resource>[\s\S]*?<\/resource>\n/g, '')
      .replace(/ {2}<seclabel[\s\S]*?<\/seclabel>\n/g, '')
      .replace(
        /(<cpu mode='custom' match='exact' check=)'(?:none|full)'>([\s\S]*?)<\/cpu>/g,
        (_, start: string) => `${start}'N'>…</cpu>`,
      )
      .replace(/pc-(i440fx|q35)-\d+\.\d+/g, 'pc-$1-N')
      .replace(/port='59\d\d'/g, "port='59NN'")
      .replace(/Messages: .*\n(?: +.*\n)*/g, '')
      .replace(/\b(?!1{8}|2{8}|3{8}|4{8})[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/g, 'UUID')
      .replace(/^ \d+ +(\S)/gm, ' N $1')
      // Columns are as wide as what is in them; documents are not tables.
      .replace(/^(?! *[<>]).*$/gm, (line) => line.replace(/-{3,}/g, '---').replace(/ {2,}/g, '  '))
      .replace(/^\s*\n/gm, '')
      .replace(/[ \t]+$/gm, '')
      .trim()
  );
}

/** Numbers, and the width of columns that they give. */
const shape = (text: string): string =>
  text
    .replace(/\d+(\.\d+)?/g, '0')
    .replace(/(KiB|MiB|GiB|bytes)/g, 'B')
    .replace(/[ \t]+/g, ' ')
    .replace(/-{3,}/g, '---');

/** Why two outcomes of an operation differ; undefined when they agree as much as they should. */
export function difference(operation: Operation, got: Outcome, want: Outcome): string | undefined {
  if (got.code !== want.code) return `exit code ${got.code}, expected ${want.code}: ${got.out}`;
  if (operation.as === 'code') return undefined;
  const [a, b] = operation.as === 'shape' ? [shape(got.out), shape(want.out)] : [got.out, want.out];
  if (a === b) return undefined;
  const [left, right] = [a.split('\n'), b.split('\n')];
  const at = left.findIndex((line, i) => line !== right[i]);
  const line = at < 0 ? left.length : at;
  return `line ${line + 1}: '${left[line] ?? ''}', expected '${right[line] ?? ''}'`;
}

function virsh(target: Target, command: string): Promise<Outcome> {
  const args = ['-c', target.uri, ...words(command.replaceAll('{dir}', target.directory))];
  return new Promise((resolve) => {
    execFile(
      'virsh',
      args,
      { timeout: 60_000, env: { ...process.env, LC_ALL: 'C', VISUAL: 'true', EDITOR: 'true' } },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
        resolve({ code, out: normalise(`${stdout}${stderr}`, target) });
      },
    );
  });
}

export async function runScenario(target: Target, each?: (operation: Operation, outcome: Outcome) => void): Promise<Outcomes> {
  prepare(target);
  // A new nonrootd has the network that libvirt's packages bring; the scenario begins without any.
  for (const command of ['net-destroy default', 'net-undefine default']) await virsh(target, command);
  const outcomes: Record<string, Outcome> = {};
  for (const operation of operations) {
    const outcome = await virsh(target, operation.command);
    outcomes[operation.name] = outcome;
    each?.(operation, outcome);
  }
  return outcomes;
}
