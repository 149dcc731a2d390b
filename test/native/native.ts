// Builds and drives native.c, which runs cases on the host's CPU.

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { type Case, emptyState, type Mode, pristineData, type Result, State } from './case.ts';

const CASE_BYTES = 1280;
const RESULT_BYTES = 944;
const SIGVTALRM = 26;

/** Runs cases on the host. */
export interface Native {
  /** The modes that the kernel allows. */
  readonly modes: readonly Mode[];
  /** Gives one result for each case. Throws where the program itself breaks. */
  run(cases: readonly Case[]): Result[];
}

/** The runner, or in one sentence why this host has none. */
export function openNative(): Native | string {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return `the host is ${process.platform} on ${process.arch}, not Linux on x86-64`;
  const source = join(import.meta.dirname, 'native.c');
  const hash = createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 16);
  const directory = join(import.meta.dirname, '../../.cache/native');
  const program = join(directory, hash);
  if (!existsSync(program)) {
    mkdirSync(directory, { recursive: true });
    const fresh = `${program}.${process.pid}`;
    const cc = spawnSync('cc', ['-O1', '-o', fresh, source], { encoding: 'utf8' });
    if (cc.error) return 'there is no C compiler (cc)';
    if (cc.status !== 0) return `cc does not compile native.c: ${cc.stderr.split('\n')[0]}`;
    renameSync(fresh, program);
  }
  const native = { modes: [64] as Mode[], run: (cases: readonly Case[]) => runCases(program, cases) };
  const probe = spawnSync(program, { input: pristineData() });
  if (probe.status !== 0) return `native.c cannot set itself up here (status ${probe.status ?? probe.signal})`;
  for (const mode of [32, 16] as const) if (modeWorks(native, mode)) native.modes.push(mode);
  return native;
}

/** What the rows need of the processor, in Linux's names. */
const FEATURES = [
  'ssse3',
  'sse4_1',
  'sse4_2',
  'popcnt',
  'abm',
  'bmi1',
  'movbe',
  'adx',
  'cx16',
  'clflushopt',
  'clwb',
  'fxsr',
  '3dnowprefetch',
  'avx',
  'avx2',
  'fma',
  'bmi2',
  'f16c',
  'aes',
  'pclmulqdq',
  'sha_ni',
  'vaes',
  'vpclmulqdq',
];

/** What many processors lack, and the rows that need it: those are left out there. */
const OPTIONAL: Readonly<Record<string, RegExp>> = { gfni: /gf2p8/ };

const cpuInfo = (): string => readFileSync('/proc/cpuinfo', 'utf8');

/** The host's processor is AMD's: what processors do differently is listed in `known.ts`. */
export const hostIsAmd = process.platform === 'linux' && /^vendor_id\s*: AuthenticAMD$/m.test(cpuInfo());

const hostFlags = (): readonly string[] => /^flags\s*:(.*)$/m.exec(cpuInfo())?.[1]?.trim().split(' ') ?? [];
/** What of `OPTIONAL` this processor lacks. */
export const hostLacks: readonly string[] =
  process.platform === 'linux' ? Object.keys(OPTIONAL).filter((name) => !hostFlags().includes(name)) : [];
/** Whether it has what a row (by mnemonic) needs of that. */
export const hostHas = (mnemonic: string): boolean => !hostLacks.some((name) => OPTIONAL[name]!.test(mnemonic));

/** Why this processor is no measure for all rows, or null: where processors differ, the emulator follows Intel's, and AMD's differences are known. */
export function hostLimits(): string | null {
  if (!cpuInfo().includes('GenuineIntel') && !hostIsAmd) return "the processor is neither Intel's nor AMD's";
  const flags = hostFlags();
  const missing = FEATURES.filter((f) => !flags.includes(f));
  return missing.length > 0 ? `the processor lacks ${missing.join(', ')}` : null;
}

/** INC EAX or AX, which is a REX prefix in 64-bit code. */
function modeWorks(native: Native, mode: 32 | 16): boolean {
  const state = emptyState(mode);
  state.gpr[0] = 0xffffn;
  try {
    const [r] = native.run([{ mode, code: Uint8Array.of(0x40), state, patches: [] }]);
    return r!.vector === 3 && r!.state.gpr[0] === (mode === 32 ? 0x10000n : 0n);
  } catch {
    return false;
  }
}

/** Where a state's parts lie in a case and in a result: general registers with RIP and RFLAGS, and the floating-point image. */
const INTEGERS = 144;
const CASE_STATE = { integers: 352, fp: 512 };
const RESULT_STATE = { integers: 24, fp: 176 };

function encode(c: Case, bytes: Uint8Array, at: DataView): void {
  if (c.code.length > 64) throw new Error(`Cannot run case: ${c.code.length} bytes of code, 64 are accepted`);
  if (c.patches.length > 16) throw new Error(`Cannot run case: ${c.patches.length} patches, 16 are accepted`);
  at.setUint32(0, c.mode, true);
  at.setUint32(4, c.code.length, true);
  bytes.set(c.code, 16);
  at.setUint32(80, c.patches.length, true);
  c.patches.forEach((p, i) => {
    at.setUint32(88 + i * 16, p.offset, true);
    at.setBigUint64(96 + i * 16, p.value, true);
  });
  bytes.set(c.state.bytes.subarray(0, INTEGERS), CASE_STATE.integers);
  bytes.set(c.state.fp.bytes, CASE_STATE.fp);
}

function runCases(program: string, cases: readonly Case[]): Result[] {
  const pristine = pristineData();
  const input = new Uint8Array(pristine.length + cases.length * CASE_BYTES);
  input.set(pristine);
  cases.forEach((c, i) => {
    const at = pristine.length + i * CASE_BYTES;
    encode(c, input.subarray(at, at + CASE_BYTES), new DataView(input.buffer, at, CASE_BYTES));
  });
  const { stdout, status, signal } = spawnSync(program, { input, maxBuffer: 1 << 30 });
  const view = new DataView(stdout.buffer, stdout.byteOffset, stdout.length);
  const results: Result[] = [];
  for (let at = 0; at + RESULT_BYTES <= stdout.length; ) {
    const word = (offset: number): bigint => view.getBigUint64(at + offset, true);
    const changes = new Map<number, bigint>();
    const count = view.getUint32(at + 168, true);
    for (let i = 0; i < count; i++)
      changes.set(view.getUint32(at + RESULT_BYTES + i * 16, true), word(RESULT_BYTES + i * 16 + 8));
    const state = new State();
    state.bytes.set(stdout.subarray(at + RESULT_STATE.integers, at + RESULT_STATE.integers + INTEGERS));
    state.fp.bytes.set(stdout.subarray(at + RESULT_STATE.fp, at + RESULT_STATE.fp + state.fp.bytes.length));
    results.push({
      vector: view.getUint32(at, true) === SIGVTALRM ? -1 : view.getUint32(at + 4, true),
      error: view.getUint32(at + 8, true),
      address: word(16),
      state,
      changes,
    });
    at += RESULT_BYTES + count * 16;
  }
  if (results.length !== cases.length)
    throw new Error(
      `Cannot run cases on the host: native.c ended with ${status ?? signal} after ${results.length} of ${cases.length}`,
    );
  return results;
}
