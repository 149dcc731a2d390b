// The client's end of QMP and of the guest agent's protocol. QEMU "QMP Protocol Specification"; qga/qapi-schema.json (QEMU 7.2).
import type { ByteDuplex, Timers } from '../transport.ts';
import { QmpError } from './error.ts';
import { isObject, type Json, JsonStream, jsonLine } from './json.ts';
import type { CommandArgs, CommandRet, Commands } from './table.ts';

export interface QmpEvent {
  readonly event: string;
  readonly data: { readonly [name: string]: Json };
  readonly timestamp: { readonly seconds: number; readonly microseconds: number };
}
interface Pending {
  resolve(value: Json): void;
  reject(error: Error): void;
}
type Arguments = { readonly [name: string]: Json | undefined };

const SPACE = 0x20;
/** Bytes of one answer: QEMU's longest, the schema, has a quarter of a megabyte. */
const maxAnswer = 64 * 1024 * 1024;

export class QmpClient {
  readonly closed: Promise<Error | undefined>;
  readonly #duplex: ByteDuplex;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #greeting = Promise.withResolvers<Json>();
  #id = 0;
  #open = true;
  #reason: Error | undefined;

  constructor(duplex: ByteDuplex) {
    this.#duplex = duplex;
    this.#greeting.promise.catch(() => {});
    this.closed = this.#run();
  }
  /**
   * Waits for the greeting and ends negotiation; must come before any other command. Returns what the greeting says of version and capabilities.
   * @throws {QmpError} what the server answers. @throws {Error} when the connection ends first.
   */
  async negotiate(enable: readonly string[] = []): Promise<Json> {
    const greeting = await this.#greeting.promise;
    await this.execute('qmp_capabilities', enable.length > 0 ? { enable } : undefined);
    return greeting;
  }
  /**
   * Any command, unchecked; `fd` goes with it. Commands may be sent before earlier ones are answered. @throws {QmpError} as `negotiate`.
   */
  execute(
    name: string,
    args?: Arguments,
    { oob = false, fd }: { readonly oob?: boolean; readonly fd?: number } = {},
  ): Promise<Json> {
    if (!this.#open) return Promise.reject(this.#lost());
    if (fd !== undefined) return this.#withFd(fd).then(() => this.execute(name, args, { oob }));
    const id = ++this.#id;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      const request = { [oob ? 'exec-oob' : 'execute']: name, ...(args === undefined ? {} : { arguments: args as Json }), id };
      void this.#write(jsonLine(request));
    });
  }
  /** A command of a table: its arguments are typed, its answer is checked. */
  async call<C extends Commands, K extends keyof C & string>(
    commands: C,
    name: K,
    args: CommandArgs<C[K]>,
  ): Promise<CommandRet<C[K]>> {
    const answer = await this.execute(name, args as Arguments);
    return commands[name]!.ret.check(answer, 'return') as CommandRet<C[K]>;
  }
  /** Calls `listener` for every event; returns how to stop. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
  close(reason?: Error): void {
    if (!this.#open) return;
    this.#open = false;
    this.#reason = reason;
    this.#duplex.close();
    for (const call of this.#pending.values()) call.reject(this.#lost());
    this.#pending.clear();
    this.#greeting.reject(this.#lost());
  }
  #lost(): Error {
    return new Error(`Cannot talk to the monitor: ${this.#reason?.message ?? 'the connection is closed'}`);
  }
  async #run(): Promise<Error | undefined> {
    const items = new JsonStream(maxAnswer);
    try {
      for await (const chunk of this.#duplex.input) {
        for (const item of items.push(chunk)) {
          if ('error' in item) throw new Error(item.error);
          this.#receive(item.value);
        }
        if (!this.#open) break;
      }
      this.close();
    } catch (error) {
      this.close(error as Error);
    }
    return this.#reason;
  }
  #receive(value: Json): void {
    if (!isObject(value)) throw new Error('an answer is no object');
    if (value['QMP'] !== undefined) this.#greeting.resolve(value['QMP']);
    else if (typeof value['event'] === 'string') {
      const timestamp = value['timestamp'] as QmpEvent['timestamp'];
      const data = isObject(value['data']) ? value['data'] : {};
      for (const listener of [...this.#listeners]) listener({ event: value['event'], data, timestamp });
    } else this.#answer(value);
  }
  #answer(value: { readonly [name: string]: Json }): void {
    const call = this.#pending.get(value['id'] as number);
    if (call === undefined) {
      // An error without our id answers bytes that the server could not read: none of ours, so the connection is out of step.
      throw new Error(errorOf(value)?.message ?? 'an answer has an id that no command has');
    }
    this.#pending.delete(value['id'] as number);
    const error = errorOf(value);
    if (error !== undefined) call.reject(error);
    else call.resolve(value['return'] ?? null);
  }
  /** Sends a descriptor ahead of the command that takes it, on a byte that means nothing between commands. */
  async #withFd(fd: number): Promise<void> {
    if (!this.#duplex.writeWithFds) throw new Error('Cannot pass a descriptor to the monitor: this connection takes none');
    await this.#duplex.writeWithFds(new Uint8Array(), [fd], SPACE);
  }
  async #write(bytes: Uint8Array): Promise<void> {
    try {
      await this.#duplex.write(bytes);
    } catch (error) {
      this.close(error as Error);
    }
  }
}

function errorOf(value: { readonly [name: string]: Json }): QmpError | undefined {
  const error = value['error'];
  if (!isObject(error)) return undefined;
  return new QmpError(String(error['desc'] ?? 'no description'), String(error['class'] ?? 'GenericError'));
}

/** Thrown when an agent does not answer in time: it does not run, or hangs. */
export class AgentTimeout extends Error {}

export interface AgentOptions {
  readonly timers: Timers;
  /** Of the synchronisation before each command, in ms (5000). */
  readonly syncTimeout?: number;
  /** First id to synchronise with; later ones count up. */
  readonly firstSync?: number;
}

/** A guest agent behind a channel that has no idea who listened before: each command synchronises first. Commands run one after the other. */
export class AgentClient {
  readonly closed: Promise<void>;
  readonly #duplex: ByteDuplex;
  readonly #options: AgentOptions;
  #sync: number;
  #last: Promise<unknown> = Promise.resolve();
  #waiting: ((value: Json | Error) => void) | undefined;
  #open = true;

  constructor(duplex: ByteDuplex, options: AgentOptions) {
    this.#duplex = duplex;
    this.#options = options;
    this.#sync = options.firstSync ?? 1;
    this.closed = this.#run();
  }
  /**
   * `timeout` in ms, `undefined` for none. With `silent` a command is taken as done when it was sent: guests that shut down do not answer.
   * @throws {QmpError} what the agent answers. @throws {AgentTimeout}
   */
  execute(
    name: string,
    args?: Arguments,
    { timeout, silent = false }: { readonly timeout?: number; readonly silent?: boolean } = {},
  ): Promise<Json> {
    const run = this.#last.then(() => this.#execute(name, args, timeout, silent));
    this.#last = run.catch(() => {});
    return run;
  }
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#duplex.close();
    this.#waiting?.(new Error('Cannot talk to the guest agent: the channel is closed'));
  }
  async #execute(name: string, args: Arguments | undefined, timeout: number | undefined, silent: boolean): Promise<Json> {
    await this.#synchronise();
    const line = jsonLine({ execute: name, ...(args === undefined ? {} : { arguments: args as Json }) });
    await this.#duplex.write(line);
    if (silent) return {};
    return returnOf(await this.#next(timeout, name, () => true));
  }
  /** Whatever came before, the agent's next answer is to us. */
  async #synchronise(): Promise<void> {
    const id = this.#sync++;
    const line = jsonLine({ execute: 'guest-sync-delimited', arguments: { id } });
    await this.#duplex.write(Uint8Array.of(0xff, ...line));
    await this.#next(this.#options.syncTimeout ?? 5000, 'guest-sync-delimited', (v) => isObject(v) && v['return'] === id);
  }
  async #next(timeout: number | undefined, name: string, accept: (value: Json) => boolean): Promise<Json> {
    if (!this.#open) throw new Error('Cannot talk to the guest agent: the channel is closed');
    const { promise, resolve, reject } = Promise.withResolvers<Json>();
    this.#waiting = (value) => {
      if (value instanceof Error) reject(value);
      else if (accept(value)) resolve(value);
    };
    const late = () => reject(new AgentTimeout(`Cannot execute ${name}: the guest agent has not answered within ${timeout} ms`));
    const cancel = timeout === undefined ? undefined : this.#options.timers.after(timeout, late);
    try {
      return await promise;
    } finally {
      cancel?.();
      this.#waiting = undefined;
    }
  }
  async #run(): Promise<void> {
    const items = new JsonStream();
    try {
      for await (const chunk of this.#duplex.input) {
        // What is no JSON was written to the channel by somebody else before; the synchronisation gets over it.
        for (const item of items.push(chunk)) if ('value' in item) this.#waiting?.(item.value);
        if (!this.#open) break;
      }
    } catch {
      // A channel that broke ends like one that was closed.
    } finally {
      this.close();
    }
  }
}

function returnOf(value: Json): Json {
  if (!isObject(value)) throw new Error('Cannot take the answer of the guest agent: it is no object');
  const error = errorOf(value);
  if (error !== undefined) throw error;
  return value['return'] ?? null;
}
