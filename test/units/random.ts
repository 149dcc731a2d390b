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
 * exception of a stack that is not canonical, and in far returns by way of a stack above 4 GiB. With segments and gates what it is known to do
 * otherwise (`excuses`) is left out.
 */
export async function fuzzSystem(kind: SystemKind, seed: number, cases: number, peer?: string): Promise<string[]> {
  const found: string[] = [];
  if (peer && (kind === 'gates' || kind === 'gates32')) {
    for (let done = 0; done < cases; done += PEER_BATCH)
      await comparePeer(kind, seed + done, Math.min(PEER_BATCH, cases - done), peer, found);
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

/** Holds cases against `peer`, which is started anew behind a case that it does not come to the end of. */
async function comparePeer(
  kind: keyof typeof excuses,
  seed: number,
  cases: number,
  peer: string,
  found: string[],
): Promise<void> {
  const command = (from: number, count: number): string => `${kind} plain seed=${from} cases=${count} each`;
  const asked = async (from: number, count: number): Promise<Map<number, string>> =>
    casesOf(await run(kind, peer, [], command(from, count), PEER_SECONDS));
  const excused = (ours: string, theirs: string | undefined): boolean => {
    const [a, b] = [look(ours), theirs === undefined ? undefined : look(theirs)];
    return excuses[kind].some(([, , known]) => known(a, b));
  };
  const end = seed + cases;
  let other = await asked(seed, cases);
  for (const [n, line] of casesOf(await run(kind, OURS, [], command(seed, cases)))) {
    let theirs = other.get(n);
    const missing = theirs === undefined;
    if (missing && !excused(line, undefined)) {
      // Alone it may have the time.
      theirs = (await asked(n, 1)).get(n);
      if (theirs === undefined) found.push(`${command(n, 1)}: ${line}\n  other: does not come to the end of this case`);
    }
    if (theirs !== undefined && digestOf(line) !== digestOf(theirs) && !excused(line, theirs))
      found.push(`${command(n, 1)}: ${line}\n  other: ${theirs}`);
    if (missing && n + 1 < end) other = await asked(n + 1, end - n - 1);
  }
}

const casesOf = (lines: readonly string[]): Map<number, string> =>
  new Map(
    lines.flatMap((line) => {
      const n = /^case (\w+): .* parts( \w+)+$/.exec(line.trim())?.[1];
      return n === undefined ? [] : [[Number.parseInt(n, 16), line.trim()] as const];
    }),
  );

/** What a line shows of a case and its end: `task` where it was a task that took the exception. */
interface End {
  readonly vector: number;
  readonly error: number;
  readonly flags: number;
  readonly task: boolean;
  /** CS and SS. */
  readonly cs: number;
  readonly ss: number;
  readonly ip: number;
  /** 64-bit code. */
  readonly long: boolean;
  /** The case's instructions, in hexadecimal. */
  readonly code: string;
  /** Digests of what it left behind. */
  readonly parts: readonly string[];
}
function look(line: string): End {
  const hex = (name: string): number => Number.parseInt(new RegExp(` ${name} (-?\\w+)`).exec(line)?.[1] ?? '', 16);
  const pair = (name: string): number[] =>
    new RegExp(` ${name} (\\w+):(\\w+)`)
      .exec(line)!
      .slice(1)
      .map((x) => Number.parseInt(x, 16));
  const wide = line.includes(' cs:rip ');
  const [cs, ip] = pair(wide ? 'cs:rip' : 'cs:eip');
  return {
    vector: wide ? Number(/vector (\S+)/.exec(line)![1]) : hex('vector'),
    error: hex('error'),
    flags: hex('flags'),
    task: line.includes('cs:eip 10000:'),
    cs: cs!,
    ss: pair(wide ? 'ss:rsp' : 'ss:esp')[0]!,
    ip: ip!,
    long: wide && (hex('rights') & LONG) !== 0,
    code: / code([ 0-9a-f]*) parts/.exec(line)![1]!,
    parts: / parts (.*)$/.exec(line)![1]!.split(' '),
  };
}
/** Which of the parts differ. */
const differing = (a: End, b: End): readonly number[] => a.parts.flatMap((x, n) => (x === b.parts[n] ? [] : [n]));
/** QEMU tells of the load where an operation that loads and stores faults. */
const sameError = (a: End, b: End): boolean => a.error === b.error || (a.vector === 14 && (a.error | 2) === (b.error | 2));
const sameEnd = (a: End, b: End): boolean =>
  a.vector === b.vector && sameError(a, b) && a.cs === b.cs && a.ip === b.ip && a.ss === b.ss;
/** RF apart, which QEMU sets in no frame. */
const sameFlags = (a: End, b: End): boolean => ((a.flags ^ b.flags) & ~RF) === 0;
const canonical = (ip: number): boolean => ip < 2 ** 47 || ip >= 2 ** 64 - 2 ** 47;
const STATUS = 0x8d5;
const RF = 0x10000;
const VM = 0x20000;
const VIRTUAL = 0x180000;
const ID = 0x200000;
const LONG = 0x200000;
/** Of `legacy/gates` those of the TSSs, from this one on; of `gates` segment registers, and what descriptors lie in. */
const TASKS = 7;
const SEGMENTS = 1;
const TABLES = [2, 3];

type Excuse = readonly [what: string, section: string, known: (ours: End, other: End | undefined) => boolean];
const EXT: Excuse = [
  'EXT is not set for what happens while an interrupt or an exception is delivered',
  'volume 3, 6.13',
  (a, b) => a.vector === b?.vector && a.error !== b.error && a.error === (b.error | 1),
];
/** Where QEMU's translator (7.2) leaves the manuals in IA-32e mode: what, the Intel SDM's section, and how the ends tell. */
const excuses64: readonly Excuse[] = [
  EXT,
  [
    'the error code of a gate has twice its number, and no EXT',
    'volume 3, 6.13',
    (a, b) => a.vector === b?.vector && (a.error & 6) === 2 && b.error === (((a.error >> 3) << 4) | 2),
  ],
  [
    'limits, null selectors and types of data segments are not looked at in compatibility mode',
    'volume 3, 5.3 and 5.4',
    (a, b) => !a.long && (a.vector === 13 || a.vector === 12) && a.error === 0 && (b === undefined || !sameEnd(a, b)),
  ],
  ['INT1 is undefined', 'volume 2, INT n', (a, b) => a.vector === 1 && b?.vector === 6 && a.ip === b.ip + 1],
  [
    'an interrupt stack without a change of privilege clears SS',
    'volume 2, INT n, intra-privilege-level interrupts',
    (a, b) =>
      b !== undefined &&
      sameEnd(a, { ...b, ss: a.ss }) &&
      sameFlags(a, b) &&
      b.ss === (a.cs & 3) &&
      differing(a, b).every((n) => TABLES.includes(n)),
  ],
  [
    'addresses that are not canonical are gone to, and limits of CS exceeded, by far transfers, gates and IRET',
    'volume 2, CALL, JMP, RET, IRET and INT n',
    (a, b) => a.vector === 13 && a.error === 0 && b !== undefined && (!canonical(b.ip) || (b.cs !== a.cs && !b.long)),
  ],
  [
    'an offset beyond the limit of CS has its selector as error code, behind the pushes of a call',
    'volume 2, CALL and JMP',
    (a, b) => a.vector === 13 && a.error === 0 && b !== undefined && sameEnd(a, { ...b, error: 0 }) && b.error > 3,
  ],
  [
    'SYSRET and IRET leave VIF and VIP alone',
    'volume 2, SYSRET and IRET',
    (a, b) => b !== undefined && / f 7| cf/.test(a.code) && sameEnd(a, b) && sameFlags({ ...a, flags: a.flags & ~VIRTUAL }, b),
  ],
  [
    'SYSCALL clears all status flags',
    'volume 2, SYSCALL',
    (a, b) =>
      b !== undefined && a.code.includes(' f 5') && sameEnd(a, b) && (b.flags & STATUS) === 0 && (a.flags & ~STATUS) === b.flags,
  ],
  [
    'IRET enters virtual-8086 mode, which IA-32e mode has not',
    'volume 2, IRET',
    (a, b) =>
      a.code.includes(' cf') &&
      (b === undefined
        ? a.vector === 13
        : (~a.flags & b.flags & VM) !== 0 || (a.vector === 13 && differing(a, b).includes(SEGMENTS))),
  ],
  [
    'interrupts that stay at CPL 3 push as a supervisor',
    'volume 3, 4.6',
    (a, b) => a.vector === 14 && b?.vector === 14 && (a.cs & 3) === 3 && a.error !== b.error && a.error === (b.error | 4),
  ],
  [
    'code segments do not become accessed',
    'volume 3, 3.4.5.1',
    (a, b) => b !== undefined && sameEnd(a, b) && sameFlags(a, b) && differing(a, b).every((n) => TABLES.includes(n)),
  ],
  ['LSS, LFS and LGS have no offsets of 64 bits', 'volume 2, LDS/LES/LFS/LGS/LSS', (a) => a.long && / 48 f b[245]/.test(a.code)],
  [
    'a null selector in TR is taken, and ends QEMU',
    'volume 2, LTR',
    (a, b) => b === undefined && a.vector === 13 && a.error === 0 && / f 0 d[89]/.test(a.code),
  ],
];
/** The same in 32-bit kernels. */
const excuses32: readonly Excuse[] = [
  [
    'limits, null selectors and types of data segments, and limits of CS in branches and returns, are not looked at',
    'volume 3, 5.3 and 5.4',
    (a, b) => ((a.vector === 13 && a.error === 0) || a.vector === 12) && (b === undefined || !sameEnd(a, b)),
  ],
  [
    'nor whether a frame fits into the inner stack: no double fault',
    'volume 3, 6.12.1',
    (a, b) => a.vector === 8 && b?.vector !== 8,
  ],
  EXT,
  [
    'a task gate to the LDT is #TS',
    'volume 2, INT n',
    (a, b) => a.vector === 13 && b?.vector === 10 && a.error === b.error && (a.error & 4) !== 0,
  ],
  [
    'a fault in a new task saves the address of the instruction that switched',
    'volume 3, 7.3',
    (a, b) => a.task && b !== undefined && sameEnd(a, b) && differing(a, b).every((n) => n >= TASKS),
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
const excuses = { gates: excuses64, gates32: excuses32 } as const;

const digestOf = (line: string | undefined): string | undefined => /^case \w+: (\w+)/.exec(line ?? '')?.[1];
