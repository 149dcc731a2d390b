// An emulator process with a serial console on standard input and output, driven over QMP.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { openImage } from '../../src/host/node/fetch-image.ts';
import { programPath } from './program.ts';

const OURS = 'nonroot-system-x86_64';
const LIMIT = 90_000;
/** Until there is a monitor: a process that ends before is noticed at once, one among many others may be slow. */
const START = 600_000;

interface Answer {
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
}
export interface QmpEvent {
  readonly event: string;
  readonly data?: Record<string, unknown>;
}

export class EmulatorProcess {
  readonly child: ChildProcess;
  readonly events: QmpEvent[] = [];
  readonly ended: Promise<number | null>;
  console = '';
  #said = '';
  #socket: Socket | undefined;
  readonly #waiting: ((answer: Answer) => void)[] = [];
  readonly #path: string;

  private constructor(path: string, args: readonly string[], program: string) {
    this.#path = path;
    this.child = spawn(programPath(program), [...args, '-qmp', `unix:${path},server=on,wait=off`]);
    this.child.stdout!.on('data', (bytes: Buffer) => {
      this.console += bytes.toString('latin1');
    });
    this.child.stderr!.on('data', (bytes: Buffer) => {
      this.#said += bytes.toString();
    });
    this.ended = once(this.child, 'exit').then(([code]) => code as number | null);
  }

  /** An image's kernel and busybox on a q35 board, with `more` on the command line; QMP is connected. Sockets are in `folder`. */
  static async linux(
    folder: string,
    name: string,
    more: readonly string[],
    imageName = 'debian-cloud',
    program = OURS,
  ): Promise<EmulatorProcess> {
    const image = await openImage(imageName);
    const machine = ['-M', 'q35', '-m', '256', '-cpu', 'max', '-nodefaults', '-display', 'none', '-serial', 'stdio'];
    const kernel = ['-kernel', image.kernel, '-initrd', image.initrd, '-append', image.append];
    return EmulatorProcess.start(folder, name, [...machine, ...kernel, ...more], program);
  }
  /** An emulator with this command line, whose console is on its standard input and output; QMP is connected. */
  static async start(folder: string, name: string, args: readonly string[], program = OURS): Promise<EmulatorProcess> {
    const e = new EmulatorProcess(join(folder, `${name}.qmp`), args, program);
    await e.#connect();
    await e.qmp('qmp_capabilities');
    return e;
  }

  async #connect(): Promise<void> {
    await this.until(
      'a QMP socket',
      async () => {
        const socket = createConnection(this.#path);
        this.#socket = socket;
        return new Promise<true | undefined>((resolve) => {
          socket.once('connect', () => resolve(true));
          socket.once('error', () => resolve(undefined));
        });
      },
      START,
    );
    let rest = '';
    this.#socket!.on('data', (bytes: Buffer) => {
      const lines = (rest + bytes.toString()).split('\n');
      rest = lines.pop()!;
      for (const line of lines) {
        const message = JSON.parse(line) as Answer & Partial<QmpEvent> & { QMP?: unknown };
        if (message.event !== undefined) this.events.push(message as QmpEvent);
        else if (message.QMP === undefined) this.#waiting.shift()?.(message);
      }
    });
    this.#socket!.on('error', () => {});
  }

  /** A command's result. Rejects where it fails. */
  async qmp(execute: string, args?: object): Promise<unknown> {
    const answer = await new Promise<Answer>((resolve) => {
      this.#waiting.push(resolve);
      this.#socket!.write(`${JSON.stringify({ execute, ...(args ? { arguments: args } : {}) })}\n`);
    });
    if (answer.error) throw new Error(`${execute}: ${answer.error.desc}${this.#shown()}`);
    return answer.return;
  }
  /** What it has written to its standard error. */
  get said(): string {
    return this.#said;
  }
  async status(): Promise<string> {
    return ((await this.qmp('query-status')) as { status: string }).status;
  }
  async hmp(line: string): Promise<string> {
    return String(await this.qmp('human-monitor-command', { 'command-line': line })).trim();
  }
  /** What `look` finds, once it finds something, within `limit` milliseconds. */
  async until<T>(what: string, look: () => T | undefined | Promise<T | undefined>, limit = LIMIT): Promise<T> {
    const end = Date.now() + limit;
    for (;;) {
      const found = await look();
      if (found !== undefined) return found;
      if (Date.now() > end || this.child.exitCode !== null) throw new Error(`${what} did not come${this.#shown()}`);
      await sleep(20);
    }
  }
  async event(name: string, status?: string, limit = LIMIT): Promise<void> {
    const there = (): boolean =>
      this.events.some((e) => e.event === name && (status === undefined || e.data?.['status'] === status));
    await this.until(`event ${name} ${status ?? ''}`, () => (there() ? true : undefined), limit);
  }
  async shell(limit = LIMIT): Promise<void> {
    await this.until('a shell', () => (/# /.test(this.console) ? true : undefined), limit);
  }
  /** Runs a command in the guest's shell; what it prints. */
  async command(text: string, limit = LIMIT): Promise<string> {
    this.console = '';
    this.child.stdin!.write(`${text}; echo E"ND"\n`);
    await this.until(`the end of ${text}`, () => (/END\r\n/.test(this.console) ? true : undefined), limit);
    // What is typed before the shell asks for it is shown twice.
    return this.console.slice(this.console.lastIndexOf('echo E"ND"') + 10, this.console.lastIndexOf('END')).trim();
  }
  async quit(): Promise<void> {
    if (this.child.exitCode === null) this.child.kill('SIGKILL');
    await this.ended;
  }
  #shown(): string {
    return `\nevents: ${JSON.stringify(this.events.slice(-8))}\nemulator: ${this.#said.slice(-1000)}\nconsole:\n${this.console.slice(-2000)}`;
  }
}
