// `nonroot run`: one guest, from the command line to its end, on this terminal.

import { GuestAgent, withAgent } from '../api/agent.ts';
import { joinPieces } from '../disk/block.ts';
import { catalog, defaultImage } from '../images/catalog.ts';
import { concatenate } from '../images/initramfs.ts';
import { execOverlay, type Session, sessionOverlay } from '../images/overlay.ts';
import type { MachineConfig } from '../machine/config.ts';
import { parseCpu, parseCpus, parseMemory, tscOf } from '../machine/options.ts';
import type { MachineEnd, RunningMachine } from '../machine/running.ts';
import { AUTO, chooseAccel } from './accel.ts';
import { type Arguments, describeOptions, type Option, parseArguments, UsageError } from './args.ts';
import { ConsoleWatch } from './console-watch.ts';
import { Control, PORT } from './control.ts';
import type { BootFiles, CliHost, TerminalSize } from './host.ts';
import { progressBar } from './progress.ts';
import { type DeviceChoices, deviceChoices, filesOfDevices, type GuestDevices, openDevices } from './run-devices.ts';
import {
  type DisplayChoice,
  type DisplayParts,
  displayChoice,
  displayParts,
  filesOfDisplay,
  showDisplay,
} from './run-display.ts';
import { type Grant, keptByNothing } from './sandbox.ts';
import { type ConsoleSession, openConsole } from './session.ts';

const NO_KEEP = 'images have no disk of their own; what a guest writes to --disk is kept';

/** What `nonroot run` understands. */
export const runOptions: readonly Option[] = [
  { names: ['--kernel'], value: 'FILE', help: 'boot this kernel: Linux bzImage or vmlinux, PVH ELF, or multiboot 1' },
  { names: ['--initrd'], value: 'FILE', help: "its initramfs; with IMAGE, in place of the image's" },
  {
    names: ['--append'],
    value: 'TEXT',
    help: "kernel command line; with IMAGE, added to the image's (default with --kernel: console=ttyS0 quiet panic=-1)",
  },
  { names: ['--memory', '-m'], value: 'SIZE', help: "the guest's memory in MiB, or with K, M, G (default 512)" },
  { names: ['--cpus'], value: 'N', help: 'number of vCPUs, 1 to 64 (default 1)' },
  { names: ['--cpu'], value: 'MODEL', help: 'CPU model and features, as max,-sse4.2 (default max)' },
  {
    names: ['--accel'],
    value: 'auto|dbt|kvm',
    help: 'what runs the vCPUs: the translator (dbt), the kernel (kvm), or KVM where it is good and else the translator (auto, default)',
  },
  {
    names: ['--exec'],
    value: 'COMMAND',
    help: "run COMMAND in the guest's shell, print its output only, exit with its code (0 when it ends the guest itself); a pipe or file on standard input is the command's; a guest that is no image's needs qemu-guest-agent",
  },
  { names: ['--timeout'], value: 'SECONDS', help: 'end the guest so many seconds after its start, with exit code 124' },
  {
    names: ['--disk'],
    value: 'FILE',
    help: 'a disk (/dev/vda, …), raw or qcow2; behind a comma format=raw|qcow2, ro, or snapshot, which throws changes away; may be repeated',
  },
  { names: ['--cdrom'], value: 'FILE', help: 'a CD-ROM (/dev/sr0) with this image' },
  {
    names: ['--net'],
    value: 'user|none',
    help: 'a network card with the host as its router, or none (default none, user with --publish)',
  },
  {
    names: ['--publish', '-p'],
    value: 'HOST:GUEST',
    help: "the host's port HOST is the guest's port GUEST; with an address before it, /tcp or /udp behind it; may be repeated",
  },
  {
    names: ['--share'],
    value: 'DIR[:ro]',
    help: "share a folder of the host, as /mnt/NAME in an image's guest (tags share0, …); may be repeated",
  },
  {
    names: ['--display'],
    value: 'none|web|vnc[=ADDR]',
    help: "show a display: on a page of this machine, or by VNC at HOST:DISPLAY or unix:PATH (default host 127.0.0.1, display the first that is free); an image's guest has a shell there, too (default none)",
  },
  {
    names: ['--confine'],
    help: "take from this process all of the host's files, programs and (without a network or a display) sockets that the command line does not name, for good; needs Linux with Landlock",
  },
  { names: ['--verbose', '-v'], help: "show the kernel's messages (with --exec on standard error) and what was started" },
  { names: ['--keep'], help: '', refused: NO_KEEP },
];

export const runHelp = (): string => `Usage: nonroot run [IMAGE] [OPTION...]

Runs a guest with its console on this terminal. IMAGE is one of
  ${catalog.map((row) => row.name).join(', ')}
(default ${defaultImage.name}), made from Debian packages when first used.

${describeOptions(runOptions)}

On a terminal: Ctrl-A x ends the guest, Ctrl-A c is the monitor, Ctrl-A h helps.
Exit codes: 0 done, 1 failed (also a kernel panic), 2 usage; with --exec the
command's; 124 after --timeout; 128 + N after signal N.
`;

const APPEND = 'console=ttyS0 quiet panic=-1';
/** A guest that says nothing for so long after its kernel's last words is dead. Milliseconds. */
const LAST_WORDS = 2000;
const SIGNAL_CODES = { SIGHUP: 129, SIGINT: 130, SIGPIPE: 141, SIGTERM: 143 } as const;
const EOT = Uint8Array.of(4);
/** Bytes of standard input that an agent takes with a command. */
const AGENT_INPUT = 16 << 20;

/** Runs a guest; the exit code. */
export async function run(argv: readonly string[], host: CliHost): Promise<number> {
  const args = parseArguments(runOptions, 1, argv);
  if (args.get('--help') !== undefined) {
    await host.out.write(runHelp());
    return 0;
  }
  const config = usage(() => readConfig(args));
  const choices = usage(() => deviceChoices(args));
  const display = usage(() => displayChoice(args.get('--display') ?? 'none'));
  const names = args.get('--accel') ?? 'auto';
  const { note, ...accel } = chooseAccel(names === 'auto' ? AUTO : [names], (trial) => host.kvm(trial));
  if (note !== undefined && args.get('--verbose') !== undefined) await host.err.write(`nonroot: using dbt: ${note}\n`);
  const timeout = args.get('--timeout');
  const seconds = timeout === undefined ? undefined : Number(timeout);
  if (seconds !== undefined && !(seconds > 0 && seconds < 2 ** 31 / 1000))
    throw new UsageError(`Cannot use --timeout ${timeout}: accepted are seconds, more than 0`);
  const name = args.words[0];
  if (name !== undefined && !catalog.some((row) => row.name === name))
    throw new UsageError(`Cannot find image "${name}": accepted are ${catalog.map((row) => row.name).join(', ')}`);
  const confined = args.get('--confine') !== undefined;
  if (confined) await host.prepareToConfine(() => grantsOf(args, choices, display, host));
  const files = await bootFiles(args, host, display !== undefined);
  const parts = display && (await displayParts(host));
  const command = args.get('--exec') !== undefined;
  const devices = await openDevices(choices, host, { command, ours: files.ours });
  // Without an image's initramfs a command is carried out by the guest's agent, where it has one.
  const agent = command && !files.ours ? new GuestAgent({ ...host, sleep: (ms) => sleep(host, ms) }) : undefined;
  const opened = agent ? withAgent(devices, agent) : devices;
  try {
    if (confined) host.confine({ ...keptByNothing, network: choices.net || display !== undefined });
    const full: MachineConfig = {
      ...config,
      ...accel,
      ...tscOf(config.tscKhz, accel.tscKhz),
      devices: [...(parts?.devices ?? []), ...opened.devices],
      ...(parts ? { firmware: parts.firmware.shape } : {}),
    };
    return await new Run(host, args, full, seconds, opened, display && parts && { choice: display, parts }, agent).run(files);
  } finally {
    await opened.close();
  }
}

/** What a confined guest's process is to reach; what has to be fetched for it, by other programs, is there afterwards. */
async function grantsOf(
  args: Arguments,
  choices: DeviceChoices,
  display: DisplayChoice | undefined,
  host: CliHost,
): Promise<Grant[]> {
  await bootFiles(args, host, display !== undefined);
  if (display) await displayParts(host);
  const named = ['--kernel', '--initrd'].map((name) => args.get(name)).filter((path) => path !== undefined);
  return [
    ...named.map((path): Grant => ({ path, access: 'read' })),
    ...(await filesOfDevices(choices, host.disks)),
    ...(display ? filesOfDisplay(display) : []),
    { path: '/dev/kvm', access: 'write' },
  ];
}

const sleep = (host: CliHost, ms: number): Promise<void> => new Promise((resolve) => void host.after(ms, resolve));

/** What the user wrote is at fault. */
function usage<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

function readConfig(args: Arguments): MachineConfig {
  const accel = args.get('--accel') ?? 'auto';
  if (accel !== 'auto' && accel !== 'dbt' && accel !== 'kvm') {
    throw new Error(`Cannot use --accel ${accel}: accepted are auto, dbt and kvm`);
  }
  const { cpuModel, paravirtual, tscKhz } = parseCpu(args.get('--cpu') ?? 'max');
  return {
    cpus: parseCpus(args.get('--cpus') ?? '1'),
    memory: parseMemory(args.get('--memory') ?? '512'),
    cpuModel,
    paravirtual,
    ...tscOf(tscKhz, undefined),
    rtcOffset: 0,
    trace: [],
  };
}

/** Kernel, initramfs and command line, from files and from an image, and whether the initramfs is an image's. */
async function bootFiles(args: Arguments, host: CliHost, display: boolean): Promise<BootFiles & { readonly ours: boolean }> {
  const [kernelPath, initrdPath] = [args.get('--kernel'), args.get('--initrd')];
  const kernel = kernelPath === undefined ? undefined : await host.readFile(kernelPath);
  const initrd = initrdPath === undefined ? undefined : await host.readFile(initrdPath);
  const wantsImage = kernel === undefined || args.words.length > 0 || (args.get('--exec') !== undefined && initrd === undefined);
  const bar = progressBar(host.bar);
  const image = wantsImage
    ? await host.image(args.words[0] ?? defaultImage.name, bar.report).finally(() => bar.end())
    : undefined;
  const given = args.get('--append');
  // The last console is the one of the kernel's and the guest's own words.
  const screen = (append: string): string => (display ? `console=tty0 ${append}` : append);
  const fromImage = kernel === undefined || args.words.length > 0;
  let append = fromImage ? [screen(image!.append), given ?? ''].join(' ').trim() : (given ?? screen(APPEND));
  if (args.get('--verbose') !== undefined) append = append.replace(/(^| )quiet(?= |$)/g, '').trim();
  return {
    kernel: kernel ?? image!.kernel,
    name: kernelPath ?? image!.name,
    vmlinux: kernel === undefined ? image?.vmlinux : undefined,
    initrd: initrd ?? image?.initrd,
    append,
    ours: initrd === undefined && image !== undefined,
  };
}

/** Why the host ended the guest. */
type Ending = { readonly code: number; readonly message?: string };

interface Display {
  readonly choice: DisplayChoice;
  readonly parts: DisplayParts;
}

class Run {
  readonly #host: CliHost;
  readonly #command: string | undefined;
  readonly #config: MachineConfig;
  readonly #opened: GuestDevices;
  readonly #display: Display | undefined;
  readonly #timeout: number | undefined;
  readonly #verbose: boolean;
  readonly #watch = new ConsoleWatch();
  readonly #control: Control;
  readonly #agent: GuestAgent | undefined;
  #machine: RunningMachine | undefined;
  #console: ConsoleSession | undefined;
  #ending: Ending | undefined;
  #ready = false;
  /** Input that came before the guest could take it. */
  #early: Uint8Array[] = [];
  #inputEnded = false;
  #lastWords: { cancel(): void } | undefined;

  constructor(
    host: CliHost,
    args: Arguments,
    config: MachineConfig,
    timeout: number | undefined,
    opened: GuestDevices,
    display: Display | undefined,
    agent: GuestAgent | undefined,
  ) {
    this.#host = host;
    this.#agent = agent;
    this.#display = display;
    this.#opened = opened;
    this.#command = args.get('--exec');
    this.#config = config;
    this.#timeout = timeout;
    this.#verbose = args.get('--verbose') !== undefined;
    this.#control = new Control({
      ready: () => this.#isReady(),
      exit: (code) => this.#end({ code }),
      send: (port, bytes) => this.#machine?.input(port, bytes),
    });
  }

  async run(files: BootFiles & { readonly ours: boolean }): Promise<number> {
    const host = this.#host;
    const interactive = this.#command === undefined;
    const overlay = this.#overlay(files.ours);
    const initrd = files.initrd && overlay ? concatenate([files.initrd, overlay]) : files.initrd;
    const started = host.now();
    host.onSignal((signal) => this.#end({ code: SIGNAL_CODES[signal] }));
    const machine = host.machine({
      config: this.#config,
      firmware: this.#display?.parts.firmware.images,
      backends: this.#opened.backends,
      files: {
        kernel: files.kernel,
        name: files.name,
        append: files.append,
        vmlinux: files.vmlinux,
        initrd,
      },
      serial: (port, bytes) => this.#serial(port, bytes),
      report: (device, message) => {
        if (this.#verbose) void host.err.write(`nonroot: ${device}: ${message}\n`);
      },
      noReboot: !interactive,
      mayRestart: (why) => why.kind === 'reset' && this.#watch.panic === undefined,
      restarted: () => {
        this.#watch.clear();
        this.#ready = false;
        this.#agent?.restarted();
      },
    });
    this.#machine = machine;
    const shown =
      this.#display &&
      (await showDisplay(this.#display.choice, host, machine.backends).catch(async (error: unknown) => {
        machine.quit();
        await machine.ended;
        throw error;
      }));
    if (this.#ending) machine.quit();
    if (this.#verbose) await host.err.write(`nonroot: ${machine.kernelLine || files.name}; command line: ${files.append}\n`);
    if (interactive) this.#openConsole(files.ours);
    else {
      const input = this.#openInput();
      if (this.#agent) void this.#byAgent(this.#agent, input);
    }
    const limit = this.#timeout === undefined ? undefined : host.after(this.#timeout * 1000, () => this.#timedOut());
    machine.start();
    const end = await machine.ended;
    limit?.cancel();
    this.#lastWords?.cancel();
    this.#console?.close();
    this.#agent?.end();
    shown?.close();
    if (this.#verbose) {
      const millions = Math.round(machine.instructions / 1e6);
      await host.err.write(
        `nonroot: ended after ${((host.now() - started) / 1000).toFixed(1)} s, ${millions} million instructions\n`,
      );
    }
    return this.#verdict(end);
  }

  #overlay(ours: boolean): Uint8Array | undefined {
    const size = this.#host.input.isTTY ? this.#host.size() : undefined;
    const session: Session = {
      rows: size?.rows,
      cols: size?.cols,
      term: this.#host.term,
      ...this.#opened.session,
      ...(this.#display ? { screen: true } : {}),
    };
    if (this.#command !== undefined) return execOverlay({ ...session, command: this.#command, stdin: !this.#host.input.isTTY });
    return ours ? sessionOverlay(session) : undefined;
  }

  // -- the guest's channels

  #serial(port: number, bytes: Uint8Array): void | Promise<void> {
    const { out, err } = this.#host;
    switch (port) {
      case PORT.console:
        this.#watch.feed(bytes);
        this.#watchEnd();
        if (this.#command === undefined) return out.write(bytes);
        return this.#verbose ? err.write(bytes) : undefined;
      case PORT.out:
        return this.#command === undefined ? undefined : out.write(bytes);
      case PORT.err:
        return this.#command === undefined ? undefined : err.write(bytes);
      case PORT.control:
        return this.#control.receive(bytes);
    }
  }
  #watchEnd(): void {
    this.#lastWords?.cancel();
    if (!this.#watch.stuck) return;
    this.#lastWords = this.#host.after(LAST_WORDS, () => this.#end(this.#panicked()));
  }

  // -- the user's channels

  #openConsole(ours: boolean): void {
    const host = this.#host;
    const held = ours && !host.input.isTTY;
    this.#ready = !held;
    this.#console = openConsole({
      host,
      machine: this.#machine!,
      send: (bytes) => {
        if (this.#ready) this.#machine?.input(PORT.console, bytes);
        else this.#early.push(bytes);
      },
      quit: () => this.#end({ code: 0 }),
      keys: true,
      resize: ours ? ({ rows, cols }: TerminalSize) => this.#control.resize(rows, cols) : undefined,
      end: () => {
        this.#inputEnded = true;
        if (host.input.isTTY) this.#end({ code: SIGNAL_CODES.SIGHUP });
        else if (ours && this.#ready) this.#endInput();
      },
    });
    if (host.input.isTTY && host.err.isTTY) void host.err.write('nonroot: starting; Ctrl-A x ends, Ctrl-A h helps\r\n');
  }
  /** A command's standard input: for the control channel at once, and all of it for an agent; undefined where it is too long. */
  #openInput(): Promise<Uint8Array | undefined> {
    if (this.#host.input.isTTY) return Promise.resolve(new Uint8Array(0));
    const kept: Uint8Array[] = [];
    let length = 0;
    return new Promise((resolve) => {
      this.#console = this.#host.input.open({
        input: (bytes) => {
          void this.#control.input(bytes);
          if (this.#agent && !this.#ready && (length += bytes.length) <= AGENT_INPUT) kept.push(bytes.slice());
        },
        end: () => {
          this.#control.end();
          resolve(length > AGENT_INPUT ? undefined : joinPieces(kept));
        },
      });
    });
  }
  /** The command, by the agent of a guest that has not our init. */
  async #byAgent(agent: GuestAgent, whole: Promise<Uint8Array | undefined>): Promise<void> {
    try {
      await agent.ready;
      if (this.#ready) return;
      const input = await whole;
      if (!input)
        throw new Error(`Cannot give the command its input: accepted are ${AGENT_INPUT} bytes where the guest's agent runs it`);
      const { code, stdout, stderr } = await agent.run(this.#command!, { input });
      await this.#host.out.write(stdout);
      await this.#host.err.write(stderr);
      await agent.settle().catch(() => {});
      this.#end({ code });
    } catch (error) {
      if (this.#machine?.status === 'ended') return;
      this.#end({ code: 1, message: error instanceof Error ? error.message : String(error) });
    }
  }
  #isReady(): void {
    this.#ready = true;
    if (this.#command !== undefined) return;
    for (const bytes of this.#early) this.#machine?.input(PORT.console, bytes);
    this.#early = [];
    if (this.#inputEnded) this.#endInput();
  }
  /** The end of a file as a terminal tells it; again and again, for each program of the guest that reads, up to its shell. */
  #endInput(): void {
    if (!this.#ready || this.#machine?.status === 'ended') return;
    this.#machine?.input(PORT.console, EOT);
    this.#host.after(300, () => this.#endInput());
  }

  // -- the end

  #end(ending: Ending): void {
    this.#ending ??= ending;
    this.#machine?.quit();
  }
  #timedOut(): void {
    this.#end({ code: 124, message: `timed out after ${this.#timeout} s${this.#lastLines()}` });
  }
  #panicked(): Ending {
    return { code: 1, message: `the guest's kernel panicked: ${this.#watch.panic}${this.#lastLines()}` };
  }
  /** What the console showed last, where the user has not seen it. */
  #lastLines(): string {
    const lines = this.#watch.tail(15);
    if (lines.length === 0) return '; its console showed nothing';
    if (this.#command === undefined && this.#host.out.isTTY) return '';
    return `; its console's last lines:\n${lines.map((line) => `  ${line}`).join('\n')}`;
  }
  async #verdict(end: MachineEnd): Promise<number> {
    const ending = this.#ending ?? this.#ended(end);
    if (ending.message) await this.#host.err.write(`nonroot: ${ending.message}\n`);
    return ending.code;
  }
  #ended(end: MachineEnd): Ending {
    switch (end.kind) {
      case 'failed':
        return { code: 1, message: `Cannot go on: ${end.message}` };
      case 'shutdown':
        return { code: 1, message: `the guest stopped with a triple fault${this.#lastLines()}` };
      case 'exit':
        return { code: end.code & 0xff };
      case 'reset':
      case 'powerOff':
      case 'quit':
        return this.#watch.panic === undefined ? { code: 0 } : this.#panicked();
    }
  }
}
