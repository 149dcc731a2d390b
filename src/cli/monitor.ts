// A small monitor for people: a subset of QEMU's HMP (QEMU 7.2, "QEMU Monitor") over one machine, with a line editor for a raw terminal.

import type { RunningMachine } from '../machine/running.ts';
import { columns } from './args.ts';

interface Command {
  readonly names: readonly string[];
  readonly help: string;
  readonly run: (machine: RunningMachine, argument: string, name: string) => string | Promise<string>;
}

const infos: Readonly<Record<string, { help: string; run: (machine: RunningMachine) => string | Promise<string> }>> = {
  status: {
    help: 'whether the guest runs',
    run: (m) => `VM status: ${m.status === 'running' || m.status === 'paused' ? m.status : `paused (${m.status})`}`,
  },
  cpus: {
    help: 'vCPUs and where they are',
    run: (m) => held(m, () => range(m.cpus, (n) => `  CPU #${n}: rip=0x${hex(m.registers(n)['rip']!, 16)}`)),
  },
  registers: { help: 'registers of all vCPUs', run: (m) => held(m, () => range(m.cpus, (n) => registerText(m, n))) },
};

/** Does something that has nothing to say. */
const silent =
  (action: (machine: RunningMachine) => void) =>
  (machine: RunningMachine): string => {
    action(machine);
    return '';
  };

const commands: readonly Command[] = [
  { names: ['help', '?'], help: 'show the commands', run: () => helpText() },
  {
    names: ['info'],
    help: `show something: ${Object.keys(infos).join(', ')}`,
    run: (m, what) =>
      infos[what.split(' ')[0]!]?.run(m) ??
      columns(Object.entries(infos).map(([name, { help }]) => [`info ${name}`, help] as const)),
  },
  { names: ['stop', 's'], help: 'hold the guest', run: (m) => m.pause().then(() => '') },
  { names: ['cont', 'c'], help: 'let the guest go on', run: silent((m) => m.resume()) },
  { names: ['system_reset'], help: 'press the reset button', run: silent((m) => m.reset()) },
  { names: ['system_powerdown'], help: 'press the power button', run: silent((m) => m.powerButton()) },
  { names: ['system_wakeup'], help: 'wake a guest that sleeps', run: silent((m) => m.wakeup()) },
  { names: ['quit', 'q'], help: 'end the machine at once', run: silent((m) => m.quit()) },
];

const helpText = (): string => columns(commands.map((c) => [c.names.join('|'), c.help] as const));
const hex = (value: bigint, digits: number): string => value.toString(16).padStart(digits, '0');
const range = (n: number, line: (n: number) => string): string => Array.from({ length: n }, (_, i) => line(i)).join('\n');

/** Does something while the guest stands still. */
async function held(machine: RunningMachine, action: () => string): Promise<string> {
  const runs = machine.status === 'running';
  if (runs) await machine.pause();
  const text = action();
  if (runs) machine.resume();
  return text;
}

function registerText(machine: RunningMachine, cpu: number): string {
  const r = machine.registers(cpu);
  const general = ['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp', 'rsp', ...Array.from({ length: 8 }, (_, i) => `r${i + 8}`)];
  const lines = [`CPU#${cpu}`];
  for (let i = 0; i < 16; i += 4) {
    lines.push(
      general
        .slice(i, i + 4)
        .map((name) => `${name.toUpperCase().padEnd(3)}=${hex(r[name]!, 16)}`)
        .join(' '),
    );
  }
  lines.push(`RIP=${hex(r['rip']!, 16)} RFL=${hex(r['rflags']!, 8)} CPL=${r['cpl']}`);
  for (const name of ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr']) {
    const [selector, base, limit, attr] = ['selector', 'base', 'limit', 'attr'].map((part) => r[`${name}.${part}`]!);
    const label = (name === 'ldtr' ? 'LDT' : name.toUpperCase()).padEnd(3);
    lines.push(`${label}=${hex(selector!, 4)} ${hex(base!, 16)} ${hex(limit!, 8)} ${hex((attr! & 0xffffn) << 8n, 8)}`);
  }
  for (const name of ['gdtr', 'idtr'])
    lines.push(`${name.slice(0, 3).toUpperCase()}=     ${hex(r[`${name}.base`]!, 16)} ${hex(r[`${name}.limit`]!, 8)}`);
  lines.push(
    ['cr0', 'cr2', 'cr3', 'cr4']
      .map((name) => `${name.toUpperCase()}=${hex(r[name]!, name === 'cr0' || name === 'cr4' ? 8 : 16)}`)
      .join(' '),
  );
  lines.push(['dr0', 'dr1', 'dr2', 'dr3'].map((name) => `${name.toUpperCase()}=${hex(r[name]!, 16)}`).join(' '));
  lines.push(`DR6=${hex(r['dr6']!, 16)} DR7=${hex(r['dr7']!, 16)} EFER=${hex(r['efer']!, 16)}`);
  return lines.join('\n');
}

/** Runs one line; the answer has no line end, and is empty where there is nothing to say. */
export async function monitorCommand(machine: RunningMachine, line: string): Promise<string> {
  const words = line.trim().split(/\s+/);
  const name = words[0]!;
  if (name === '') return '';
  const command = commands.find((c) => c.names.includes(name));
  if (!command) return `unknown command: '${name}'; help lists the commands`;
  return command.run(machine, words.slice(1).join(' '), name);
}

const PROMPT = '(nonroot) ';

/** The monitor on a terminal: takes keys, echoes, and answers. */
export class MonitorLine {
  readonly #machine: RunningMachine;
  readonly #write: (text: string) => void;
  #line = '';
  #work: Promise<void> = Promise.resolve();

  constructor(machine: RunningMachine, write: (text: string) => void) {
    this.#machine = machine;
    this.#write = write;
  }

  /** Shows the prompt. */
  open(): void {
    this.#line = '';
    this.#write(`\r\n${PROMPT}`);
  }
  /** Keys, as they come from a raw terminal. */
  input(bytes: Uint8Array): void {
    for (const byte of bytes) {
      if (byte === 0x0d || byte === 0x0a) {
        const line = this.#line;
        this.#line = '';
        this.#write('\r\n');
        this.#work = this.#work.then(() => this.#run(line));
      } else if (byte === 0x7f || byte === 0x08) {
        if (this.#line.length > 0) this.#write('\b \b');
        this.#line = this.#line.slice(0, -1);
      } else if (byte === 0x15 || byte === 0x03) {
        this.#line = '';
        this.#write(`\r\n${PROMPT}`);
      } else if (byte >= 0x20 && byte < 0x7f) {
        this.#line += String.fromCharCode(byte);
        this.#write(String.fromCharCode(byte));
      }
    }
  }
  async #run(line: string): Promise<void> {
    const answer = await monitorCommand(this.#machine, line);
    if (answer !== '') this.#write(`${answer.replaceAll('\n', '\r\n')}\r\n`);
    if (!/^\s*q(uit)?\b/.test(line)) this.#write(PROMPT);
  }
}
