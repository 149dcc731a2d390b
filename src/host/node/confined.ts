// A machine in a process of its own that reaches nothing but the machine's files (`MachineOptions.confine`): the side of who made it. Rules of Landlock
// hold for a thread and what it starts, and a machine's threads share the process with the library's user: docs/decisions/021-confined-machines.md.

import { spawn } from 'node:child_process';
import { closeSync, ftruncateSync } from 'node:fs';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { CommandResult } from '../../api/commands.ts';
import { Console } from '../../api/console.ts';
import {
  type ApiHost,
  type Machine,
  type MachineEvents,
  type MachineOptions,
  memoryOf,
  refuseToFork,
  Snapshot,
} from '../../api/machine.ts';
import type { MachineEnd } from '../../machine/running.ts';
import { anonymousFile, fileOf, sealedCopy } from './frozen-memory.ts';
import type { FrozenMachine } from './machine.ts';
import { Descriptor, type FromMachine, type Method, receive, type SentFile, send } from './machine-channel.ts';
import { sibling } from './sibling.ts';
import { PART_MAX, readSnapshot } from './snapshot-file.ts';

/** A machine as users of the library have it, in whatever process. */
export interface AnyMachine extends Omit<Machine<FrozenMachine>, 'fork'> {
  fork(): Promise<AnyMachine>;
}

/** ms that the process has to end in once it was asked to. */
const END_MAX = 20_000;
/** Characters of its standard error that are told where it dies. */
const SAID_MAX = 2000;

const sent = (file: string | Uint8Array | undefined): SentFile | undefined =>
  file instanceof Uint8Array ? { base64: Buffer.from(file).toString('base64') } : file;
const statuses: readonly AnyMachine['status'][] = ['prelaunch', 'running', 'paused', 'suspended', 'shutdown', 'ended'];
const text = (value: unknown): string => (typeof value === 'string' ? value : '');
class ConfinedMachine implements AnyMachine {
  readonly console: Console;
  readonly ended: Promise<MachineEnd>;
  /** Resolves when the machine runs. */
  readonly made: Promise<void>;
  status: AnyMachine['status'] = 'prelaunch';
  accel: AnyMachine['accel'] = 'dbt';
  readonly #host: ApiHost<FrozenMachine>;
  readonly #options: MachineOptions;
  readonly #snapshots: number;
  #taking: Promise<unknown> = Promise.resolve();
  readonly #socket: Socket;
  readonly #kill: () => void;
  readonly #ready = Promise.withResolvers<void>();
  readonly #calls = new Map<number, PromiseWithResolvers<unknown>>();
  readonly #listeners: { [E in keyof MachineEvents]: Set<MachineEvents[E]> } = { exit: new Set(), reset: new Set() };
  #number = 0;

  constructor(host: ApiHost<FrozenMachine>, o: MachineOptions, frozen: FrozenMachine | undefined) {
    this.#host = host;
    this.#options = o;
    const { report, confine: _, kernel, initrd, ...rest } = o;
    const [k, i] = [sent(kernel), sent(initrd)];
    const options = { ...rest, ...(k !== undefined && { kernel: k }), ...(i !== undefined && { initrd: i }) };
    const program = fileURLToPath(sibling('confined-worker', import.meta.url));
    this.#snapshots = anonymousFile();
    // A file that this process has opened for reading, or a sealed one: who gets it cannot change what others go on from.
    const memory = frozen && fileOf(frozen.memory);
    if (frozen && !memory) throw new Error('Cannot go on in a confined process: the memory is in no file');
    const from = memory && {
      frozen: { state: Buffer.from(frozen!.state).toString('base64'), offset: memory.offset, length: frozen!.memory.length },
    };
    const names = [Descriptor.channel, Descriptor.snapshots, ...(memory ? [Descriptor.memory] : [])].map((fd) => `fd=${fd}`);
    const child = spawn(
      process.execPath,
      [...process.execArgv.filter((flag) => flag.startsWith('--no-memory-protection')), program, ...names],
      {
        stdio: ['ignore', 'ignore', 'pipe', 'pipe', this.#snapshots, ...(memory ? [memory.fd] : [])],
      },
    );
    this.#kill = () => child.kill('SIGKILL');
    const socket = child.stdio[3] as Socket;
    this.#socket = socket;
    let said = '';
    child.stderr!.on('data', (bytes: Buffer) => (said = (said + bytes.toString()).slice(-SAID_MAX)));
    this.console = new Console((bytes) => void send(socket, { kind: 'input', base64: Buffer.from(bytes).toString('base64') }));
    this.#ready.promise.catch(() => {});
    const made = Promise.withResolvers<void>();
    this.made = made.promise;
    const ended = Promise.withResolvers<MachineEnd>();
    this.ended = ended.promise;
    let end: MachineEnd | undefined;
    let failure: string | undefined;
    receive(socket, (heard) => {
      const message = heard as FromMachine;
      if (statuses.includes(message.status!)) this.status = message.status!;
      if (message.accel === 'dbt' || message.accel === 'kvm') this.accel = message.accel;
      switch (message.kind) {
        case 'hello':
          void send(socket, { kind: 'options', options, ...from });
          break;
        case 'made':
          made.resolve();
          break;
        case 'failed':
          failure = text(message.message);
          this.#kill();
          break;
        case 'ready':
          this.#ready.resolve();
          break;
        case 'reset':
          for (const listener of this.#listeners.reset) listener();
          break;
        case 'console':
          this.console.receive(Buffer.from(text(message.base64), 'base64'));
          break;
        case 'report':
          report?.(text(message.device), text(message.message));
          break;
        case 'answer': {
          const call = this.#calls.get(message.id);
          this.#calls.delete(message.id);
          if (message.error === undefined) call?.resolve(message.value);
          else call?.reject(new Error(text(message.error)));
          break;
        }
        case 'ended':
          end ??= message.end;
          break;
      }
    });
    child.on('error', (error) => made.reject(new Error(`Cannot start the process of a confined machine: ${error.message}`)));
    child.on('close', (code, signal) => {
      const died =
        `Cannot go on: the process of the machine ended (${signal ?? `exit code ${code}`}) ${said.trim().split('\n')[0]}`.trim();
      made.reject(new Error(failure ?? died));
      const why: MachineEnd = end ?? { kind: 'failed', message: died };
      this.status = 'ended';
      closeSync(this.#snapshots);
      this.console.end();
      const over = new Error('Cannot go on: the machine has ended');
      this.#ready.reject(over);
      for (const call of this.#calls.values()) call.reject(over);
      this.#calls.clear();
      for (const listener of this.#listeners.exit) listener(why);
      ended.resolve(why);
    });
  }

  #call(method: Method, ...args: unknown[]): Promise<unknown> {
    if (this.status === 'ended') return Promise.reject(new Error(`Cannot ${method}: the machine has ended`));
    const id = this.#number++;
    const answer = Promise.withResolvers<unknown>();
    this.#calls.set(id, answer);
    void send(this.#socket, { kind: 'call', id, method, args });
    return answer.promise;
  }
  get ready(): Promise<void> {
    return this.#ready.promise;
  }
  async exec(script: string, o: { readonly timeout?: number } = {}): Promise<CommandResult> {
    const { code, stdout, stderr } = (await this.#call('exec', script, o)) as CommandResult;
    return { code: Number(code), stdout: text(stdout), stderr: text(stderr) };
  }
  async setAccel(accel: 'dbt' | 'kvm'): Promise<void> {
    await this.#call('setAccel', accel);
  }
  async pause(): Promise<void> {
    await this.#call('pause');
  }
  resume(): void {
    this.#call('resume').catch(() => {});
  }
  reset(): void {
    this.#call('reset').catch(() => {});
  }
  powerButton(): void {
    this.#call('powerButton').catch(() => {});
  }
  /** One at a time: there is one file that the machine's process writes them to. */
  snapshot(): Promise<Snapshot<FrozenMachine>> {
    const taken = this.#taking.then(async () => {
      await this.#call('snapshot');
      try {
        // The other process can write to its file as it likes, also later.
        const copy = sealedCopy(this.#snapshots, memoryOf(this.#options) + PART_MAX);
        try {
          return new Snapshot(this.#host, readSnapshot(copy, 'the machine').frozen, this.#options);
        } catch (error) {
          closeSync(copy);
          throw error;
        }
      } finally {
        if (this.status !== 'ended') ftruncateSync(this.#snapshots, 0);
      }
    });
    this.#taking = taken.catch(() => {});
    return taken;
  }
  async fork(): Promise<AnyMachine> {
    refuseToFork(this.#options);
    const snapshot = await this.snapshot();
    try {
      return await createConfined(this.#host, this.#options, snapshot.frozen);
    } finally {
      snapshot.close();
    }
  }
  on<E extends keyof MachineEvents>(event: E, listener: MachineEvents[E]): void {
    this.#listeners[event].add(listener);
  }
  off<E extends keyof MachineEvents>(event: E, listener: MachineEvents[E]): void {
    this.#listeners[event].delete(listener);
  }
  async close(): Promise<MachineEnd> {
    const late = setTimeout(this.#kill, END_MAX);
    this.#call('close').catch(() => {});
    const end = await this.ended;
    clearTimeout(late);
    return end;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/**
 * A machine that runs in a confined process, and goes on from `frozen` where that is given.
 * @throws Error (rejects) in one line, also where the host cannot confine processes
 */
export async function createConfined(
  host: ApiHost<FrozenMachine>,
  o: MachineOptions,
  frozen?: FrozenMachine,
): Promise<AnyMachine> {
  const machine = new ConfinedMachine(host, o, frozen);
  await machine.made;
  return machine;
}
