// Random cases of the images `random`, `gates` and `legacy/gates`, in ring 0: the tiers of the translator have to leave the same digests, and another emulator can be asked as well.

import { program } from '../e2e/program.ts';
import { build } from './build.ts';

/** Code, page tables that are held against a walk in C, model-specific registers; segments and gates of IA-32e mode, and of 32-bit kernels. */
export const systemKinds = ['code', 'pages', 'msr', 'gates', 'gates32'] as const;
export type SystemKind = (typeof systemKinds)[number];

const MACHINE = '-nodefaults -device isa-debug-exit,iobase=0xf4,iosize=0x4 -display none -serial stdio -no-reboot -cpu max';
/** SYSENTER in IA-32e mode is Intel's. */
const INTEL = ['-cpu', 'max,vendor=GenuineIntel'];
const IMAGES: Partial<Record<SystemKind, string>> = { gates: 'gates', gates32: 'legacy/gates' };
const OURS = 'nonroot-system-x86_64';
const EAGER = ['-accel', 'dbt,threshold=0'];
/** Cases of one run. */
const BATCH = 2000;
const SECONDS = 1200;
/** Another emulator may run for ever where ours finds a fault. */
const PEER_BATCH = 300;
const PEER_SECONDS = 6;

/** What the image prints, a line each; with other `seconds`, as far as it comes in them. */
async function run(
  kind: SystemKind,
  emulator: string,
  args: readonly string[],
  append: string,
  seconds = SECONDS,
): Promise<string[]> {
  const all = [
    ...MACHINE.split(' '),
    ...(kind === 'gates' ? INTEL : []),
    ...args,
    '-kernel',
    build(IMAGES[kind] ?? 'random'),
    '-append',
    append,
  ];
  const { stdout, text } = await program(emulator, all, { seconds });
  const lines = stdout.toString().split(/\r?\n/);
  if (seconds === SECONDS && !lines.some((line) => line.startsWith('SUMMARY: ')))
    throw new Error(`The image did not come to its end: ${append}\n${text}`);
  return lines;
}

/**
 * What differs between the tiers, or from `peer` (another emulator of QEMU's command line), or is wrong by itself: one line for each thing
 * found in `cases` cases from `seed`. QEMU differs where an instruction reads a device or is one that only it has (3DNow!), in the
 * exception of a stack that is not canonical, and in far returns by way of a stack above 4 GiB. In 32-bit kernels what it is known to do
 * otherwise (`excuses`) is left out.
 */
export async function fuzzSystem(kind: SystemKind, seed: number, cases: number, peer?: string): Promise<string[]> {
  const found: string[] = [];
  if (peer && kind === 'gates32') {
    for (let done = 0; done < cases; )
      done += await comparePeer(kind, seed + done, Math.min(PEER_BATCH, cases - done), peer, found);
    return found;
  }
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

/** Holds cases against `peer` up to where it ends or stands still; gives how many are done with. */
async function comparePeer(kind: SystemKind, seed: number, cases: number, peer: string, found: string[]): Promise<number> {
  const what = `${kind} plain seed=${seed} cases=${cases} each`;
  const ours = casesOf(await run(kind, OURS, [], what));
  const other = casesOf(await run(kind, peer, [], what, PEER_SECONDS));
  for (const [n, line] of ours) {
    const theirs = other.get(n);
    if (theirs === undefined) {
      if (!excuses.some(([, , known]) => known(look(line), undefined)))
        found.push(`${what}: ${line}\n  other: does not come to the end of this case`);
      return n - seed + 1;
    }
    if (digestOf(line) !== digestOf(theirs) && !excuses.some(([, , known]) => known(look(line), look(theirs))))
      found.push(`${what}: ${line}\n  other: ${theirs}`);
  }
  return cases;
}

const casesOf = (lines: readonly string[]): Map<number, string> =>
  new Map(
    lines.flatMap((line) => {
      const n = /^case (\w+): .* parts( \w+){12}$/.exec(line.trim())?.[1];
      return n === undefined ? [] : [[Number.parseInt(n, 16), line.trim()] as const];
    }),
  );

/** What a line shows of a case's end: `task` where it was a task that took the exception. */
interface End {
  readonly vector: number;
  readonly error: number;
  readonly flags: number;
  readonly task: boolean;
}
function look(line: string): End {
  const hex = (name: string): number => Number.parseInt(new RegExp(`${name} (\\w+)`).exec(line)![1]!, 16);
  return { vector: hex('vector'), error: hex('error'), flags: hex('flags'), task: line.includes('cs:eip 10000:') };
}
const VM = 0x20000;
const ID = 0x200000;
/** Where QEMU's translator (7.2) leaves the manuals in 32-bit kernels: what, the Intel SDM's section, and how the ends tell. */
const excuses: readonly (readonly [string, string, (ours: End, other: End | undefined) => boolean])[] = [
  [
    'limits, null selectors and types of data segments, and limits of CS in branches and returns, are not looked at',
    'volume 3, 5.3 and 5.4',
    (a) => (a.vector === 13 && a.error === 0) || a.vector === 12,
  ],
  [
    'nor whether a frame fits into the inner stack: no double fault',
    'volume 3, 6.12.1',
    (a, b) => a.vector === 8 && b?.vector !== 8,
  ],
  [
    'EXT is not set for what happens while an interrupt or an exception is delivered',
    'volume 3, 6.13',
    (a, b) => a.vector === b?.vector && a.error === (b.error | 1),
  ],
  [
    'a task gate to the LDT is #TS',
    'volume 2, INT n',
    (a, b) => a.vector === 13 && b?.vector === 10 && a.error === b.error && (a.error & 4) !== 0,
  ],
  [
    'a fault in a new task saves the address of the instruction that switched',
    'volume 3, 7.3',
    (a, b) => a.task && a.vector === b?.vector && a.error === b.error,
  ],
  ['ES of a new task is looked at before DS', 'volume 3, table 7-1', (a, b) => a.task && a.vector === 10 && b?.vector === 10],
  [
    'IRET looks at VM whatever the CPL',
    'volume 2, IRET',
    (a, b) => a.vector === 13 && (b === undefined || (~a.flags & b.flags & VM) !== 0),
  ],
  [
    'VM and ID outlive a switch to a 16-bit TSS',
    'volume 3, 7.6',
    (a, b) => b !== undefined && (~a.flags & b.flags & (VM | ID)) !== 0,
  ],
  ['the T bit of a TSS is not looked at', 'volume 3, 7.2.1', (a, b) => a.vector === 1 && b?.vector !== 1],
  ['IRET at CPL 3 pops as a supervisor', 'volume 3, 4.6', (a, b) => a.vector === 14 && (a.error & 4) !== 0 && b?.vector !== 14],
];

const digestOf = (line: string | undefined): string | undefined => /^case \w+: (\w+)/.exec(line ?? '')?.[1];
