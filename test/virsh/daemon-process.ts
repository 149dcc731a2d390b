// A daemon of its own for a test: in its own directories, in the foreground, ended with the test and all its guests.
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const program = new URL('../../bin/nonrootd.ts', import.meta.url).pathname;
export const ourEmulator = new URL('../../bin/nonroot-system-x86_64', import.meta.url).pathname;
export const realEmulator = '/usr/bin/qemu-system-x86_64';

const runs = (name: string, ...args: string[]): boolean => spawnSync(name, args, { timeout: 20_000 }).status === 0;
/** Why tests with these programs can't run here; false when they can. */
export function missing(...programs: readonly string[]): string | false {
  const absent = programs.find((name) => !runs(name, '--version'));
  return absent === undefined ? false : `${absent} is not installed`;
}

export interface Result {
  readonly code: number;
  readonly out: string;
}

export class TestDaemon {
  readonly directory: string;
  readonly socket: string;
  readonly #args: readonly string[];
  /** What starts the program, such as `unshare -n`; it has to become it. */
  readonly #through: readonly string[];
  #process: ChildProcess | undefined;
  #said = '';

  constructor(
    args: readonly string[] = [],
    directory = mkdtempSync(join(tmpdir(), 'nonrootd-')),
    through: readonly string[] = [],
  ) {
    this.directory = directory;
    this.socket = join(directory, 'sock');
    this.#args = args;
    this.#through = through;
  }
  get uri(): string {
    return `qemu+unix:///system?socket=${this.socket}`;
  }
  get said(): string {
    return this.#said;
  }
  get pid(): number {
    return this.#process!.pid!;
  }
  /** Starts it and waits until it serves. @throws Error (rejects) with what it said */
  async start(): Promise<void> {
    const args = [program, '--socket', this.socket, '--state', join(this.directory, 'state'), '--foreground', ...this.#args];
    const [first = '', ...words] = [...this.#through, process.execPath, ...args];
    const child = spawn(first, words, { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#process = child;
    this.#said = '';
    child.stderr.on('data', (bytes: Buffer) => (this.#said += bytes.toString()));
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    for (let i = 0; !this.#said.includes(' serving at '); i++) {
      const over = await Promise.race([
        ended.then(() => true),
        new Promise<false>((resolve) => setTimeout(() => resolve(false), 50)),
      ]);
      if (over || i > 2400) throw new Error(`The daemon does not serve: ${this.#said}`);
    }
  }
  /** Ends it like a crash: nothing is put away. */
  async kill(): Promise<void> {
    const child = this.#process!;
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.kill('SIGKILL');
    await ended;
  }
  virsh(...args: readonly string[]): Promise<Result> {
    return new Promise((resolve) => {
      execFile(
        'virsh',
        ['-c', this.uri, ...args],
        { timeout: 60_000, env: { ...process.env, LC_ALL: 'C' } },
        (error, out, err) => {
          const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
          resolve({ code, out: `${out}${err}`.trim() });
        },
      );
    });
  }
  /** Emulators of this daemon's guests, by what /proc says. */
  emulators(): number[] {
    const state = join(this.directory, 'state');
    return readdirSync('/proc').flatMap((name) => {
      if (!/^\d+$/.test(name) || Number(name) === this.#process?.pid) return [];
      try {
        const words = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0');
        return words.some((word) => word.startsWith('guest=')) && words.some((word) => word.includes(state))
          ? [Number(name)]
          : [];
      } catch {
        return [];
      }
    });
  }
  /** Ends the daemon and its guests and removes its directory. */
  async close(): Promise<void> {
    if (this.#process?.exitCode === null && this.#process.signalCode === null) await this.kill();
    for (const pid of this.emulators()) process.kill(pid, 'SIGKILL');
    rmSync(this.directory, { recursive: true, force: true });
  }
}
