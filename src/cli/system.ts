// `nonroot-system-x86_64`: one machine with QEMU's command line, from its start to its end.

import type { MachineConfig } from '../machine/config.ts';
import type { MachineEnd, RunningMachine } from '../machine/running.ts';
import type { CliHost } from './host.ts';
import { type ConsoleSession, openConsole } from './session.ts';
import { parseSystem } from './system-options.ts';
import type { Settings } from './system-settings.ts';

const PROGRAM = 'nonroot-system-x86_64';
/** Devices of the reports that `-d cpu` and `-d bus` ask for; all others are the guest's errors. */
const TRACERS: Readonly<Record<string, string>> = { cpu: 'cpu', ports: 'bus', mmio: 'bus' };

type Write = (data: Uint8Array | string) => void | Promise<void>;

/** Runs the command line (without the program's name); the exit code: 0, 1 for what failed, or what `isa-debug-exit` was told. */
export async function system(argv: readonly string[], host: CliHost): Promise<number> {
  let settings: Settings | undefined;
  try {
    const asked = parseSystem(argv, host.version);
    if ('text' in asked) {
      await host.out.write(asked.text);
      return 0;
    }
    settings = asked.settings;
    return await runMachine(settings, host);
  } catch (error) {
    await host.err.write(message(settings, error instanceof Error ? error.message : String(error)));
    return 1;
  }
}

/** A line for standard error, as `-msg` wants it. */
function message(s: Settings | undefined, text: string): string {
  const time = s?.message.timestamp ? `${new Date().toISOString().replace('Z', '000Z')} ` : '';
  const guest = s?.message.guestName && s.name !== undefined ? `${s.name} ` : '';
  return `${time}${guest}${PROGRAM}: ${text}\n`;
}

const machineConfig = (s: Settings): MachineConfig => ({
  cpus: s.cpus,
  memory: s.memory,
  cpuModel: s.cpu.cpuModel,
  paravirtual: s.cpu.paravirtual,
  devices: s.devices,
  hpet: s.hpet,
  serial: s.serial.flatMap((backend, n) => (backend.kind === 'none' ? [] : [n])),
  uuid: s.uuid,
  rtcOffset: s.rtcOffset,
  trace: s.trace,
});

async function runMachine(s: Settings, host: CliHost): Promise<number> {
  const kernel = await host.readFile(s.kernel!);
  const initrd = s.initrd === undefined ? undefined : await host.readFile(s.initrd);
  const say = (text: string): Promise<void> => host.err.write(message(s, text));
  if (s.cpu.missing.length > 0) await say(`warning: -cpu ${s.cpu.cpuModel}: not implemented: ${s.cpu.missing.join(' ')}`);
  const log: Write = s.log === undefined ? (text) => host.err.write(text) : await host.writer(s.log);
  const sinks = await Promise.all(s.serial.map((backend) => sink(backend, host)));

  const machine = host.machine({
    config: machineConfig(s),
    files: { kernel, name: s.kernel!, initrd, append: s.append ?? '' },
    serial: (port, bytes) => sinks[port]?.(bytes),
    report: (device, text) => {
      if (s.trace.includes(TRACERS[device] ?? 'guest_errors')) void log(`${device}: ${text}\n`);
    },
    noReboot: s.noReboot,
  });
  if (s.pidfile !== undefined) {
    await host.writeFile(s.pidfile, `${host.pid}\n`).catch((error: unknown) => {
      machine.quit();
      throw error;
    });
  }
  host.onSignal((signal) => {
    // A reader that is gone ends nothing, as in QEMU: the guest may have other work.
    if (signal === 'SIGPIPE') return;
    void say(`terminating on ${signal}`);
    machine.quit();
  });
  const session = openStdio(s, host, machine);
  if (!s.paused) machine.start();
  const end = await machine.ended;
  session?.close();
  if (s.pidfile !== undefined) await host.removeFile(s.pidfile);
  return exitCode(end, say);
}

async function sink(backend: Settings['serial'][number], host: CliHost): Promise<Write | undefined> {
  switch (backend.kind) {
    case 'stdio':
      return (bytes) => host.out.write(bytes);
    case 'file':
      return host.writer(backend.path);
    case 'null':
    case 'none':
      return undefined;
  }
}

/** Gives standard input to the serial port or monitor that has it. */
function openStdio(s: Settings, host: CliHost, machine: RunningMachine): ConsoleSession | undefined {
  const port = s.serial.findIndex((backend) => backend.kind === 'stdio');
  const backend = s.serial[port];
  if (port < 0 && s.monitor !== 'stdio') return undefined;
  return openConsole({
    host,
    machine,
    send: (bytes) => machine.input(port, bytes),
    quit: () => machine.quit(),
    keys: backend?.kind === 'stdio' && backend.monitor,
    monitorOnly: port < 0,
    // The end of a pipe ends nothing, as in QEMU; a terminal that is gone does.
    end: () => {
      if (host.input.isTTY) machine.quit();
    },
  });
}

async function exitCode(end: MachineEnd, say: (text: string) => Promise<void>): Promise<number> {
  switch (end.kind) {
    case 'exit':
      return end.code & 0xff;
    case 'failed':
      await say(`Cannot go on: ${end.message}`);
      return 1;
    case 'reset':
    case 'shutdown':
    case 'powerOff':
    case 'quit':
      return 0;
  }
}
