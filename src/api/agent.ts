// Commands in a guest that runs qemu-guest-agent, over its port of the virtio console: one JSON line each way.
// QEMU 7.2 "QEMU Guest Agent Protocol Reference". All that the guest says is hostile: lengths are bounded, types are looked at.

import type { Backends, CharBackend, CharFront } from '../machine/backends.ts';
import type { DeviceConfig } from '../machine/device-type.ts';
import { type CommandResult, joined } from './commands.ts';

/** What the agent finds its port by. */
const AGENT_PORT = 'org.qemu.guest_agent.0';
const CHARDEV = 'agent';

/** The longest line of the agent's: both outputs of a command, 16 MiB each at most, in base64. */
const LINE_MAX = 48 << 20;
/** ms between questions whether a command has ended, at first and at most. */
const POLL = { first: 20, most: 500 } as const;
/** ms until an agent that has its port open is asked again whether it is there. */
const SYNC_AGAIN = 5000;
/** What starts a script: in a session of its own where the guest can, so that it can be ended with all that it has started. */
const START = 'command -v setsid >/dev/null && exec setsid /bin/sh -c "$1"; exec /bin/sh -c "$1"';
/** Before the answer to `guest-sync-delimited`, and before a line whose reader may hold half of another one. */
const DELIMITER = 0xff;

export interface AgentHost {
  readonly base64: (bytes: Uint8Array) => string;
  readonly fromBase64: (text: string) => Uint8Array;
  readonly sleep: (ms: number) => Promise<void>;
}
export interface AgentRun {
  /** ms after which the script is ended, and the call rejects. */
  readonly timeout?: number | undefined;
  /** What it finds on its standard input. */
  readonly input?: Uint8Array | undefined;
}
interface Answer {
  readonly return?: unknown;
  readonly error?: unknown;
}

/** A script's state as `guest-exec-status` tells it; what is of another type counts as not there. */
function readStatus(value: unknown): { exited: boolean; code: number; out: string; err: string; cut: boolean } {
  const fields = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  const number = (name: string): number | undefined => (typeof fields[name] === 'number' ? fields[name] : undefined);
  const text = (name: string): string => (typeof fields[name] === 'string' ? fields[name] : '');
  const signal = number('signal');
  return {
    exited: fields['exited'] === true,
    code: number('exitcode') ?? (signal === undefined ? 255 : 128 + signal),
    out: text('out-data'),
    err: text('err-data'),
    cut: fields['out-truncated'] === true || fields['err-truncated'] === true,
  };
}

/** Devices with the agent's port behind them. */
export function withAgent<T extends { readonly devices: readonly DeviceConfig[]; readonly backends: Backends }>(
  opened: T,
  agent: GuestAgent,
): T {
  opened.backends.chardevs.add(CHARDEV, agent.backend);
  const port = { driver: 'virtserialport', bus: `${CHARDEV}.0`, chardev: CHARDEV, name: AGENT_PORT };
  return { ...opened, devices: [...opened.devices, { driver: 'virtio-serial-pci', id: CHARDEV }, port] };
}

export class GuestAgent {
  /** What is behind the guest's port. */
  readonly backend: CharBackend;
  readonly #host: AgentHost;
  #front: CharFront | undefined;
  #open = false;
  #ready = Promise.withResolvers<void>();
  #isReady = false;
  #ended = false;
  #busy = 0;
  #syncs = 0;
  /** Bytes of a line that has no end yet. */
  #line: Uint8Array[] = [];
  #length = 0;
  #waiting: { resolve(answer: Answer): void; reject(error: Error): void } | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(host: AgentHost) {
    this.#host = host;
    this.#ready.promise.catch(() => {});
    this.backend = {
      isOpen: true,
      connect: (front) => {
        this.#front = front;
      },
      disconnect: () => {
        this.#front = undefined;
      },
      write: (bytes) => this.#receive(bytes),
      guestOpened: (open) => this.#opened(open),
    };
  }
  /** Resolves when the guest's agent answers. Rejects when the machine has ended before. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }
  get busy(): boolean {
    return this.#busy > 0;
  }

  /**
   * Runs a shell script as the agent's user (root); one at a time, in the order of the calls. Rejects when the machine or the agent ends
   * before it, after `timeout` ms, and where the agent refuses.
   */
  run(script: string, o: AgentRun = {}): Promise<CommandResult> {
    this.#busy++;
    const result = this.#turn.then(async () => {
      await this.#ready.promise;
      return this.#exec(script, o);
    });
    this.#turn = result.then(
      () => void this.#busy--,
      () => void this.#busy--,
    );
    return result;
  }
  /** All that the guest has written is on its disks, and they are as after a clean end until it writes again. */
  async settle(): Promise<void> {
    await this.#ask('guest-fsfreeze-freeze').catch(() => this.run('sync'));
  }

  // -- for the machine

  restarted(): void {
    this.#opened(false);
  }
  end(): void {
    this.#ended = true;
    const error = new Error('Cannot finish the command: the machine has ended');
    this.#ready.reject(error);
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }

  // -- the port

  #opened(open: boolean): void {
    if (this.#open === open || this.#ended) return;
    this.#open = open;
    if (open) void this.#greet();
    else {
      this.#waiting?.reject(new Error("Cannot finish the command: the guest's agent has ended"));
      this.#waiting = undefined;
      if (!this.#isReady) return;
      this.#isReady = false;
      this.#ready = Promise.withResolvers();
      this.#ready.promise.catch(() => {});
    }
  }
  /** Asks until the agent answers: what answers late is not taken for the answer of a later question. */
  async #greet(): Promise<void> {
    while (this.#open && !this.#isReady && !this.#ended) {
      this.#send({ execute: 'guest-sync-delimited', arguments: { id: ++this.#syncs } }, true);
      await this.#host.sleep(SYNC_AGAIN);
    }
  }
  #send(command: object, delimited = false): void {
    const text = new TextEncoder().encode(`${JSON.stringify(command)}\n`);
    if (delimited) {
      const bytes = new Uint8Array(text.length + 1);
      bytes[0] = DELIMITER;
      bytes.set(text, 1);
      void this.#front?.receive(bytes);
    } else void this.#front?.receive(text);
  }
  #receive(bytes: Uint8Array): void {
    let from = 0;
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at];
      if (byte !== 0x0a && byte !== DELIMITER) continue;
      if (byte === 0x0a) {
        this.#keep(bytes.subarray(from, at));
        this.#said();
      }
      this.#line = [];
      this.#length = 0;
      from = at + 1;
    }
    this.#keep(bytes.subarray(from));
  }
  #keep(bytes: Uint8Array): void {
    this.#length += bytes.length;
    if (this.#length <= LINE_MAX) this.#line.push(bytes.slice());
    else this.#line = [];
  }
  #said(): void {
    if (this.#length > LINE_MAX) {
      this.#waiting?.reject(new Error(`Cannot finish the command: its output is longer than the ${LINE_MAX} bytes accepted`));
      this.#waiting = undefined;
      return;
    }
    let answer: Answer;
    try {
      answer = JSON.parse(new TextDecoder().decode(joined(this.#line))) as Answer;
    } catch {
      return;
    }
    if (typeof answer !== 'object' || answer === null) return;
    if (!this.#isReady) {
      if (answer.return !== this.#syncs || !this.#open) return;
      this.#isReady = true;
      this.#ready.resolve();
      return;
    }
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.resolve(answer);
  }

  // -- commands

  async #ask(execute: string, args: object = {}): Promise<unknown> {
    if (this.#ended) throw new Error('Cannot run a command: the machine has ended');
    const answer = await new Promise<Answer>((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#send({ execute, arguments: args });
    });
    if (answer.error === undefined) return answer.return;
    const { desc } = answer.error as { desc?: unknown };
    throw new Error(`Cannot run a command in the guest: its agent refuses ${execute} (${String(desc).slice(0, 200)})`);
  }
  async #start(script: string, input?: Uint8Array): Promise<number> {
    const started = (await this.#ask('guest-exec', {
      path: '/bin/sh',
      arg: ['-c', START, 'sh', script],
      'capture-output': true,
      ...(input && input.length > 0 ? { 'input-data': this.#host.base64(input) } : {}),
    })) as { pid?: unknown } | null | undefined;
    if (typeof started?.pid !== 'number')
      throw new Error('Cannot run a command in the guest: its agent gave no process for guest-exec');
    return started.pid;
  }
  async #exec(script: string, { timeout, input }: AgentRun): Promise<CommandResult> {
    const pid = await this.#start(script, input);
    let late = false;
    let over = false;
    if (timeout !== undefined)
      void this.#host.sleep(timeout).then(() => {
        late = !over;
      });
    let stopped = false;
    for (let pause: number = POLL.first; ; pause = Math.min(pause * 1.5, POLL.most)) {
      const status = readStatus(await this.#ask('guest-exec-status', { pid }));
      if (status.exited) {
        over = true;
        if (late) throw new Error(`Cannot finish the command within ${timeout} ms: it was ended`);
        if (status.cut) throw new Error("Cannot give the command's output whole: the guest's agent has cut it");
        const text = (data: string): string => new TextDecoder().decode(this.#host.fromBase64(data));
        return { code: status.code, stdout: text(status.out), stderr: text(status.err) };
      }
      if (late && !stopped) {
        stopped = true;
        await this.#start(`kill -KILL -${pid} 2>/dev/null || kill -KILL ${pid}`);
      }
      await this.#host.sleep(pause);
    }
  }
}
