// The server's end of QMP: one service with its commands and events, any number of sessions (monitors).
// QEMU "QMP Protocol Specification" (QEMU 7.2); errors in QEMU's words.
import type { ByteDuplex } from '../transport.ts';
import { QmpError } from './error.ts';
import { isObject, type Json, JsonStream, jsonLine } from './json.ts';
import { any, array, enumeration, int, object, optional, str } from './schema.ts';
import {
  type Command,
  type CommandArgs,
  type CommandRet,
  type Commands,
  command,
  type EventData,
  type Events,
  introspect,
} from './table.ts';

export interface QmpVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
  readonly package: string;
}
export interface Timestamp {
  readonly seconds: number;
  readonly microseconds: number;
}
export type QmpHandlers<C extends Commands> = {
  readonly [K in keyof C]?: (args: CommandArgs<C[K]>, session: QmpSession) => CommandRet<C[K]> | Promise<CommandRet<C[K]>>;
};
type Handler = (args: unknown, session: QmpSession) => unknown;

const versionInfo = object('VersionInfo', {
  qemu: object('VersionTriple', { major: int, minor: int, micro: int }),
  package: str,
});
/** The commands that every service has. */
export const protocolCommands = {
  qmp_capabilities: command({ enable: optional(array(enumeration('QMPCapability', ['oob']))) }),
  'query-version': command({}, versionInfo),
  'query-commands': command({}, array(object('CommandInfo', { name: str }))),
  'query-qmp-schema': command({}, array(any)),
} as const;

export interface QmpServiceOptions<C extends Commands, E extends Events> {
  readonly version: QmpVersion;
  readonly commands: C;
  /** Commands without a handler do not exist: they are neither listed nor found. */
  readonly handlers: NoInfer<QmpHandlers<C>>;
  readonly events: E;
  /** The wall clock, for events. */
  readonly now: () => Timestamp;
  /** Hears what a handler threw that is no QmpError. */
  readonly report?: (error: unknown, command: string) => void;
  /** A guest agent: no greeting, no negotiation, no events. */
  readonly agent?: boolean;
}

interface Row {
  readonly command: Command;
  readonly handler: Handler;
}

export class QmpService<C extends Commands = Commands, E extends Events = Events> {
  readonly options: QmpServiceOptions<C, E>;
  readonly rows: ReadonlyMap<string, Row>;
  readonly #sessions = new Set<QmpSession>();

  constructor(options: QmpServiceOptions<C, E>) {
    this.options = options;
    const rows = new Map<string, Row>();
    const add = (commands: Commands, handlers: Readonly<Record<string, Handler | undefined>>): void => {
      for (const [name, row] of Object.entries(commands)) {
        const handler = handlers[name];
        if (handler !== undefined) rows.set(name, { command: row, handler });
      }
    };
    if (!options.agent) add(protocolCommands, this.#protocol() as unknown as Readonly<Record<string, Handler>>);
    add(options.commands, options.handlers as unknown as Readonly<Record<string, Handler | undefined>>);
    this.rows = rows;
  }
  /** Serves one more monitor until its transport ends. */
  attach(duplex: ByteDuplex): QmpSession {
    const session = new QmpSession(duplex, this as unknown as QmpService);
    this.#sessions.add(session);
    void session.closed.then(() => this.#sessions.delete(session));
    return session;
  }
  /** Sends an event to every monitor that has negotiated. */
  emit<K extends keyof E & string>(name: K, ...data: keyof EventData<E[K]> extends never ? [] : [EventData<E[K]>]): void {
    const { seconds, microseconds } = this.options.now();
    const event = { timestamp: { seconds, microseconds }, event: name, ...(data.length > 0 ? { data: data[0] as Json } : {}) };
    for (const session of this.#sessions) session.event(event);
  }
  greeting(): Json {
    return { QMP: { version: this.#version(), capabilities: ['oob'] } };
  }
  #version() {
    const { package: name, ...qemu } = this.options.version;
    return { qemu: { micro: qemu.micro, minor: qemu.minor, major: qemu.major }, package: name };
  }
  #protocol(): QmpHandlers<typeof protocolCommands> {
    return {
      qmp_capabilities: ({ enable }, session) => {
        session.negotiate(enable?.includes('oob') ?? false);
        return {};
      },
      'query-version': () => this.#version(),
      'query-commands': () => [...this.rows.keys()].map((name) => ({ name })),
      'query-qmp-schema': () =>
        introspect(Object.fromEntries([...this.rows].map(([name, row]) => [name, row.command])), this.options.events),
    };
  }
}

/** Bytes that wait for a monitor that does not read before it is closed. */
const maxUnsent = 64 * 1024 * 1024;
/** Requests that may wait in one session before it is held back. */
const maxQueue = 8;

export class QmpSession {
  readonly closed: Promise<void>;
  readonly #duplex: ByteDuplex;
  readonly #service: QmpService;
  #negotiated: boolean;
  #oob = false;
  #last: Promise<void> = Promise.resolve();
  #queued = 0;
  #unsent = 0;
  #open = true;

  /** Made by `QmpService.attach`. */
  constructor(duplex: ByteDuplex, service: QmpService) {
    this.#duplex = duplex;
    this.#service = service;
    this.#negotiated = service.options.agent === true;
    this.closed = this.#run();
  }
  close(): void {
    this.#open = false;
    this.#duplex.close();
  }
  /** @throws {QmpError} when that was done before. */
  negotiate(oob: boolean): void {
    if (this.#negotiated) {
      throw new QmpError('Capabilities negotiation is already complete, command ignored', 'CommandNotFound');
    }
    this.#negotiated = true;
    this.#oob = oob;
  }
  event(event: Json): void {
    if (this.#negotiated && !this.#service.options.agent) void this.#send(event);
  }

  async #run(): Promise<void> {
    const items = new JsonStream();
    try {
      if (!this.#service.options.agent) await this.#send(this.#service.greeting());
      for await (const chunk of this.#duplex.input) {
        for (const item of items.push(chunk)) {
          if ('error' in item) this.#queue(() => this.#send({ error: { class: 'GenericError', desc: item.error } }));
          else if (this.#isOutOfBand(item.value)) void this.#request(item.value);
          else this.#queue(() => this.#request(item.value));
          if (this.#queued >= maxQueue) await this.#last;
          if (!this.#open) return;
        }
      }
      await this.#last;
    } catch {
      // A transport that broke ends the session like one that was closed.
    } finally {
      this.close();
    }
  }
  #queue(run: () => Promise<void>): void {
    this.#queued++;
    this.#last = this.#last.then(run).finally(() => {
      this.#queued--;
    });
  }
  #isOutOfBand(request: Json): boolean {
    if (!this.#oob || !isObject(request) || typeof request['exec-oob'] !== 'string') return false;
    return this.#service.rows.get(request['exec-oob'])?.command.oob === true;
  }
  async #request(request: Json): Promise<void> {
    const id: { readonly [name: string]: Json } = isObject(request) && request['id'] !== undefined ? { id: request['id'] } : {};
    let answer: Json;
    let mark = false;
    try {
      const { name, row, args } = this.#parse(request);
      mark = this.#service.options.agent === true && name === 'guest-sync-delimited';
      answer = { return: await this.#carryOut(name, row, args), ...id };
    } catch (error) {
      answer = { ...id, error: { class: (error as QmpError).class, desc: (error as QmpError).message } };
    }
    await this.#send(answer, mark);
  }
  #parse(request: Json): { name: string; row: Row; args: unknown } {
    if (!isObject(request)) throw new QmpError('QMP input must be a JSON object');
    for (const member of Object.keys(request)) {
      const known = ['execute', 'arguments', 'id', ...(this.#oob ? ['exec-oob'] : [])];
      if (!known.includes(member)) throw new QmpError(`QMP input member '${member}' is unexpected`);
    }
    const { execute, 'exec-oob': oob } = request;
    if (execute !== undefined && oob !== undefined) throw new QmpError("QMP input member 'exec-oob' clashes with 'execute'");
    const name = execute ?? oob;
    if (name === undefined) throw new QmpError("QMP input lacks member 'execute'");
    if (typeof name !== 'string')
      throw new QmpError(`QMP input member '${execute === undefined ? 'exec-oob' : 'execute'}' must be a string`);
    const args = request['arguments'] ?? {};
    if (!isObject(args)) throw new QmpError("QMP input member 'arguments' must be an object");
    if (!this.#negotiated && name !== 'qmp_capabilities') {
      throw new QmpError("Expecting capabilities negotiation with 'qmp_capabilities'", 'CommandNotFound');
    }
    if (this.#negotiated && name === 'qmp_capabilities') this.negotiate(false);
    const row = this.#service.rows.get(name);
    if (row === undefined) throw new QmpError(`The command ${name} has not been found`, 'CommandNotFound');
    if (oob !== undefined && !row.command.oob) throw new QmpError(`The command ${name} does not support OOB`);
    const checked = row.command.args.check(row.command.open ? onlyKnown(row.command, args) : args, '');
    return { name, row, args: row.command.open ? { ...args, ...checked } : checked };
  }
  async #carryOut(name: string, row: Row, args: unknown): Promise<Json> {
    try {
      return ((await row.handler(args, this)) as Json | undefined) ?? {};
    } catch (error) {
      if (error instanceof QmpError) throw error;
      this.#service.options.report?.(error, name);
      throw new QmpError(error instanceof Error ? error.message : String(error));
    }
  }
  async #send(value: Json, mark = false): Promise<void> {
    if (!this.#open) return;
    const line = jsonLine(value);
    const bytes = mark ? Uint8Array.of(0xff, ...line) : line;
    this.#unsent += bytes.length;
    if (this.#unsent > maxUnsent) return this.close();
    try {
      await this.#duplex.write(bytes);
    } catch {
      this.close();
    }
    this.#unsent -= bytes.length;
  }
}

const onlyKnown = (row: Command, args: { readonly [name: string]: Json }): Json =>
  Object.fromEntries(Object.entries(args).filter(([name]) => Object.hasOwn(row.args.members, name)));
