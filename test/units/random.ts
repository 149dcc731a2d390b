// Random cases of the images `random` and `gates`, in ring 0: the tiers of the translator have to leave the same digests, and another emulator can be asked as well.

import { program } from '../e2e/program.ts';
import { build } from './build.ts';

/** Code, page tables that are held against a walk in C, model-specific registers; segments and gates of IA-32e mode. */
export const systemKinds = ['code', 'pages', 'msr', 'gates'] as const;
export type SystemKind = (typeof systemKinds)[number];

const MACHINE = '-nodefaults -device isa-debug-exit,iobase=0xf4,iosize=0x4 -display none -serial stdio -no-reboot -cpu max';
/** SYSENTER in IA-32e mode is Intel's. */
const INTEL = ['-cpu', 'max,vendor=GenuineIntel'];
const OURS = 'nonroot-system-x86_64';
const EAGER = ['-accel', 'dbt,threshold=0'];
/** Cases of one run. */
const BATCH = 2000;
const SECONDS = 1200;

/** What the image prints, a line each. */
async function run(kind: SystemKind, emulator: string, args: readonly string[], append: string): Promise<string[]> {
  const all = [
    ...MACHINE.split(' '),
    ...(kind === 'gates' ? INTEL : []),
    ...args,
    '-kernel',
    build(kind === 'gates' ? 'gates' : 'random'),
    '-append',
    append,
  ];
  const { stdout, text } = await program(emulator, all, { seconds: SECONDS });
  const lines = stdout.toString().split(/\r?\n/);
  if (!lines.some((line) => line.startsWith('SUMMARY: ')))
    throw new Error(`The image did not come to its end: ${append}\n${text}`);
  return lines;
}

/**
 * What differs between the tiers, or from `peer` (another emulator of QEMU's command line), or is wrong by itself: one line for each thing
 * found in `cases` cases from `seed`. QEMU differs where an instruction reads a device or is one that only it has (3DNow!), in the
 * exception of a stack that is not canonical, and in far returns by way of a stack above 4 GiB.
 */
export async function fuzzSystem(kind: SystemKind, seed: number, cases: number, peer?: string): Promise<string[]> {
  const found: string[] = [];
  for (let done = 0; done < cases; done += BATCH) {
    const what = `${kind}${peer ? ' plain' : ''} seed=${seed + done} cases=${Math.min(BATCH, cases - done)}`;
    const sides: readonly (readonly [string, readonly string[]])[] = [[OURS, []], peer ? [peer, []] : [OURS, EAGER]];
    const [ours, other] = await Promise.all(sides.map(([emulator, args]) => run(kind, emulator, args, what)));
    found.push(...ours!.filter((line) => /^ *wrong|^FAIL/.test(line)).map((line) => `${what}: ${line.trim()}`));
    if (ours!.join() === other!.join()) continue;
    const [a, b] = await Promise.all(sides.map(([emulator, args]) => run(kind, emulator, args, `${what} each`)));
    a!.forEach((line, n) => {
      if (line !== b![n] && digestOf(line) !== digestOf(b![n])) found.push(`${what}: ${line}\n  other: ${b![n]}`);
    });
  }
  return found;
}

const digestOf = (line: string | undefined): string | undefined => /^case \w+: (\w+)/.exec(line ?? '')?.[1];
