// The options of `nonroot-system-x86_64` as a table, spelled as QEMU spells them (QEMU 7.2, "System Emulation", section "Invocation"):
// the parser and `-help` follow from it.

import { propertiesOf } from '../machine/device-tree.ts';
import type { DeviceConfig } from '../machine/device-type.ts';
import { deviceTypes } from '../machine/device-types.ts';
import { cpuHelp, parseCpu, parseCpus, parseMemory } from '../machine/options.ts';
import { readProperties } from '../machine/properties.ts';
import { columns } from './args.ts';
import { defaults, oneOf, onOff, properties, Refused, rtcOffset, type Settings, serialBackend } from './system-settings.ts';

interface SystemOption {
  readonly names: readonly string[];
  /** Placeholder of its value in the help; without it the option is a flag. */
  readonly value?: string;
  readonly help: string;
  /** Its effect. Text is printed in place of running anything. */
  readonly apply: (s: Settings, value: string) => string | undefined;
}

/** An option without text to print. */
const does =
  (effect: (s: Settings, value: string) => void) =>
  (s: Settings, value: string): undefined => {
    effect(s, value);
  };

const list = (title: string, rows: readonly (readonly [string, string])[]): string => `${title}:\n${columns(rows)}\n`;

const machines: readonly (readonly [string, string])[] = [['q35', 'PC with PCI Express, direct kernel boot (default)']];
const accels: readonly (readonly [string, string])[] = [
  ['dbt', 'binary translation, a thread for each vCPU (default)'],
  ['tcg', 'alias of dbt'],
];
/** Trace categories, for `-d`. */
const traces: readonly (readonly [string, string])[] = [
  ['bus', 'accesses to ports and addresses where nothing is'],
  ['cpu', 'undefined opcodes'],
  ['firmware', 'what the firmware writes to its debug console'],
  ['guest_errors', 'what devices find wrong with what the guest does'],
];
const names = (rows: readonly (readonly [string, string])[]): string[] => rows.map(([name]) => name);

/** Properties of a machine whose only accepted value is what this machine is. */
const fixed = { usb: 'off', vmport: 'off', smm: 'off', graphics: 'off', acpi: 'on' } as const;

function machine(s: Settings, text: string): string | undefined {
  if (text === 'help' || text === '?') return list('Supported machines', machines);
  properties('-machine', text, 'type', {
    type: (v) => oneOf('-machine ', v, names(machines)),
    accel: (v) => {
      s.accel = v.split(':');
    },
    hpet: (v) => {
      s.hpet = onOff('-machine hpet=', v);
    },
    ...Object.fromEntries(Object.entries(fixed).map(([key, only]) => [key, (v: string) => oneOf(`-machine ${key}=`, v, [only])])),
  });
}

function accel(s: Settings, text: string): string | undefined {
  if (text === 'help' || text === '?') return list('Accelerators', accels);
  properties('-accel', text, 'accel', {
    accel: (v) => s.accel.push(v),
    thread: (v) => oneOf('-accel thread=', v, ['multi']),
  });
}

function cpu(s: Settings, text: string): string | undefined {
  if (text === 'help' || text === '?') {
    const { models, features } = cpuHelp();
    return `Available CPUs:\n${models.map((m) => `  ${m}\n`).join('')}\nRecognized CPUID flags:\n${wrap(features)}\n`;
  }
  s.cpu = parseCpu(text);
}

/** Words in lines of at most 80 characters. */
function wrap(words: readonly string[]): string {
  const lines = [' '];
  for (const word of words) {
    if (lines.at(-1)!.length + 1 + word.length > 80) lines.push(' ');
    lines.push(`${lines.pop()} ${word}`);
  }
  return lines.join('\n');
}

/** `N`, or any of cpus, sockets, cores, threads and maxcpus that say the same: all vCPUs are cores of one socket. */
function smp(s: Settings, text: string): void {
  let cpus: number | undefined;
  let cores: number | undefined;
  let maxcpus: number | undefined;
  properties('-smp', text, 'cpus', {
    cpus: (v) => {
      cpus = parseCpus(v);
    },
    cores: (v) => {
      cores = parseCpus(v);
    },
    maxcpus: (v) => {
      maxcpus = parseCpus(v);
    },
    sockets: (v) => oneOf('-smp sockets=', v, ['1']),
    dies: (v) => oneOf('-smp dies=', v, ['1']),
    threads: (v) => oneOf('-smp threads=', v, ['1']),
  });
  s.cpus = cpus ?? cores ?? maxcpus ?? 1;
  if (cores !== undefined && cores !== s.cpus)
    throw new Refused(`-smp cores=${cores}: not supported with ${s.cpus} vCPUs, which are the cores of one socket`);
  if (maxcpus !== undefined && maxcpus !== s.cpus)
    throw new Refused(`-smp maxcpus=${maxcpus}: not supported with ${s.cpus} vCPUs; none can be added later`);
}

/** `DRIVER[,id=ID][,bus=BUS][,addr=ADDR][,property=value]…`, or JSON. */
function device(s: Settings, text: string): string | undefined {
  if (text === 'help' || text === '?') {
    return list(
      'Devices',
      deviceTypes.map((t) => [t.name, t.description] as const),
    );
  }
  const config = text.startsWith('{') ? jsonDevice(text) : listedDevice(text);
  const type = deviceTypes.find((t) => t.name === config.driver || t.aliases?.includes(config.driver));
  if (!type || type.userCreatable === false) throw new Refused(`-device ${config.driver}: not supported`);
  const table = propertiesOf(type);
  if ('help' in config || '?' in config) {
    return list(
      `${type.name} options`,
      Object.entries(table).map(([name, p]) => [`${name}=<${p.type}>`, p.description] as const),
    );
  }
  const { driver, id: _, bus: __, ...given } = config;
  for (const name of Object.keys(given))
    if (!Object.hasOwn(table, name)) throw new Refused(`-device ${driver} ${name}: not supported`);
  try {
    readProperties(driver, table, given);
  } catch (error) {
    throw new Refused(`-device ${text}: ${(error as Error).message}`);
  }
  s.devices.push(config);
}

function listedDevice(text: string): DeviceConfig {
  const given: Record<string, string> = {};
  text
    .replaceAll(',,', '\0')
    .split(',')
    .forEach((item, n) => {
      const equals = item.indexOf('=');
      const [key, value] =
        equals >= 0 ? [item.slice(0, equals), item.slice(equals + 1)] : n === 0 ? ['driver', item] : [item, 'on'];
      given[key] = value.replaceAll('\0', ',');
    });
  return { ...given, driver: given['driver'] ?? '' };
}
function jsonDevice(text: string): DeviceConfig {
  try {
    const given = JSON.parse(text) as Record<string, unknown>;
    if (typeof given['driver'] === 'string') return { ...given, driver: given['driver'] };
  } catch {
    // Said below.
  }
  throw new Refused(`-device ${text}: not a JSON object with a driver`);
}

function trace(s: Settings, text: string): string | undefined {
  if (text === 'help' || text === '?') return list('Log items (comma separated)', traces);
  s.trace = text.split(',');
  for (const name of s.trace) {
    if (!names(traces).includes(name)) throw new Refused(`-d ${name}: not supported; -d help lists what is`);
  }
}

/** Accepts what the machine is like anyway. */
const only = (option: string, accepted: readonly string[]) => does((_, v) => void oneOf(`${option} `, v, accepted));

/** Every option but -help and -version, which end the reading. */
export const systemOptions: readonly SystemOption[] = [
  { names: ['-M', '-machine'], value: 'q35[,accel=dbt][,hpet=on|off]', help: 'machine; -M help lists them', apply: machine },
  { names: ['-accel'], value: 'dbt|tcg[,thread=multi]', help: 'what runs the vCPUs', apply: accel },
  {
    names: ['-cpu'],
    value: 'MODEL[,+FEATURE][,-FEATURE]',
    help: 'CPU (default qemu64); -kvm hides the paravirtual interface; -cpu help lists models and features',
    apply: cpu,
  },
  { names: ['-smp'], value: 'N', help: 'number of vCPUs, 1 to 64 (default 1)', apply: does(smp) },
  {
    names: ['-m'],
    value: '[size=]SIZE',
    help: 'memory in MiB, or with K, M, G (default 128)',
    apply: does((s, text) =>
      properties('-m', text, 'size', {
        size: (v) => {
          s.memory = parseMemory(v);
        },
      }),
    ),
  },
  {
    names: ['-kernel'],
    value: 'FILE',
    help: 'kernel to boot: Linux bzImage or vmlinux, PVH ELF, multiboot 1',
    apply: does((s, v) => {
      s.kernel = v;
    }),
  },
  {
    names: ['-initrd'],
    value: 'FILE',
    help: "its initramfs, or a multiboot kernel's module",
    apply: does((s, v) => {
      s.initrd = v;
    }),
  },
  {
    names: ['-append'],
    value: 'TEXT',
    help: 'its command line',
    apply: does((s, v) => {
      s.append = v;
    }),
  },
  {
    names: ['-serial'],
    value: 'stdio|mon:stdio|file:F|null|none',
    help: 'connect a serial port, the first to the fourth as it is given again; mon: adds the monitor under Ctrl-A c',
    apply: does((s, v) => {
      if (s.serial.length === 4) throw new Refused(`-serial ${v}: there are four serial ports`);
      s.serial.push(serialBackend(v));
    }),
  },
  {
    names: ['-monitor'],
    value: 'stdio|none',
    help: 'where the monitor is',
    apply: does((s, v) => {
      s.monitor = oneOf('-monitor ', v, ['stdio', 'none']) as 'stdio' | 'none';
    }),
  },
  {
    names: ['-nographic'],
    help: 'first serial port and monitor on this terminal, as -serial mon:stdio',
    apply: does((s) => {
      s.nographic = true;
    }),
  },
  { names: ['-display'], value: 'none', help: 'no display (there is none)', apply: only('-display', ['none']) },
  { names: ['-vga'], value: 'none', help: 'no graphics card (there is none)', apply: only('-vga', ['none']) },
  { names: ['-parallel'], value: 'none', help: 'no parallel port (there is none)', apply: only('-parallel', ['none']) },
  { names: ['-nic', '-net'], value: 'none', help: 'no network card (there is none)', apply: only('-nic', ['none']) },
  {
    names: ['-nodefaults'],
    help: 'no serial port or monitor that was not asked for',
    apply: does((s) => {
      s.nodefaults = true;
    }),
  },
  { names: ['-no-user-config'], help: 'read no configuration files (there are none)', apply: does(() => {}) },
  {
    names: ['-no-reboot'],
    help: 'end when the guest resets',
    apply: does((s) => {
      s.noReboot = true;
    }),
  },
  {
    names: ['-S'],
    help: "wait for the monitor's cont",
    apply: does((s) => {
      s.paused = true;
    }),
  },
  { names: ['-device'], value: 'NAME[,PROPERTY=VALUE]', help: 'add a device; -device help lists them', apply: device },
  { names: ['-d'], value: 'ITEM,...', help: 'log these items; -d help lists them', apply: trace },
  {
    names: ['-D'],
    value: 'FILE',
    help: 'log to FILE in place of standard error',
    apply: does((s, v) => {
      s.log = v;
    }),
  },
  {
    names: ['-rtc'],
    value: 'base=utc|localtime|DATE',
    help: 'time of the clock (default utc)',
    apply: does((s, text) =>
      properties('-rtc', text, '', {
        base: (v) => {
          s.rtcOffset = rtcOffset(v);
        },
        clock: (v) => oneOf('-rtc clock=', v, ['host']),
        driftfix: (v) => oneOf('-rtc driftfix=', v, ['none']),
      }),
    ),
  },
  {
    names: ['-name'],
    value: '[guest=]NAME',
    help: "the guest's name, for -msg",
    apply: does((s, text) =>
      properties('-name', text, 'guest', {
        guest: (v) => {
          s.name = v;
        },
      }),
    ),
  },
  {
    names: ['-uuid'],
    value: 'UUID',
    help: "the machine's UUID",
    apply: does((s, v) => {
      if (!/^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(v))
        throw new Refused(`-uuid ${v}: accepted is the form 550e8400-e29b-41d4-a716-446655440000`);
      s.uuid = v;
    }),
  },
  {
    names: ['-pidfile'],
    value: 'FILE',
    help: "write the process's number to FILE while it runs",
    apply: does((s, v) => {
      s.pidfile = v;
    }),
  },
  {
    names: ['-msg'],
    value: '[timestamp=on|off][,guest-name=on|off]',
    help: 'how messages begin',
    apply: does((s, text) =>
      properties('-msg', text, '', {
        timestamp: (v) => {
          s.message.timestamp = onOff('-msg timestamp=', v);
        },
        'guest-name': (v) => {
          s.message.guestName = onOff('-msg guest-name=', v);
        },
      }),
    ),
  },
];

const helpText = (): string => `Usage: nonroot-system-x86_64 -kernel FILE [OPTION...]

Emulates a PC. Options have QEMU's spelling and meaning; what is not in this list
is refused. There is no display: without -nographic or -serial, what the guest
says goes nowhere.

${columns([
  ...systemOptions.map((o) => [o.value === undefined ? o.names.join(', ') : `${o.names.join(', ')} ${o.value}`, o.help] as const),
  ['-h, -help', 'show this help'],
  ['-version', 'show the version'],
])}

On this terminal (-nographic, -serial mon:stdio): Ctrl-A x ends, Ctrl-A c is the
monitor, Ctrl-A h helps.
`;

/** What a command line asks for: text, or a machine. */
export type Asked = { readonly text: string } | { readonly settings: Settings };

/**
 * Reads a command line. Options may begin with one or two hyphens.
 * @throws Refused for everything that is not supported, one line that begins with the option
 */
export function parseSystem(argv: readonly string[], version: string): Asked {
  const known = new Map(systemOptions.flatMap((o) => o.names.map((name) => [name, o] as const)));
  const settings = defaults();
  for (let i = 0; i < argv.length; i++) {
    const given = argv[i]!;
    if (!given.startsWith('-') || given === '-') throw new Refused(`${given}: not supported; disk images are not yet`);
    const name = given.startsWith('--') ? given.slice(1) : given;
    if (name === '-h' || name === '-help') return { text: helpText() };
    if (name === '-version') return { text: `Nonroot emulator version ${version}\n` };
    const option = known.get(name);
    if (!option) throw new Refused(`${name}: not supported`);
    let value = '';
    if (option.value !== undefined) {
      const next = argv[++i];
      if (next === undefined) throw new Refused(`${name}: its value ${option.value} is missing`);
      value = next;
    }
    const text = refusing(`${name} ${value}`.trim(), () => option.apply(settings, value));
    if (text !== undefined) return { text };
  }
  complete(settings);
  return { settings };
}

/** Errors of whoever reads a value, with the option before them. */
function refusing<T>(option: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof Refused) throw error;
    throw new Refused(`${option}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** Fills in what follows from the options together, as QEMU's "default devices" do, and refuses what does not fit together. */
function complete(s: Settings): void {
  if (s.accel.length > 0 && !s.accel.some((name) => names(accels).includes(name)))
    throw new Refused(`-accel ${s.accel.join(':')}: not supported; accepted: ${names(accels).join(', ')}`);
  if (s.kernel === undefined) {
    if (s.append !== undefined) throw new Refused('-append: only allowed with -kernel');
    if (s.initrd !== undefined) throw new Refused('-initrd: only allowed with -kernel');
    throw new Refused('-kernel is missing: there are no firmware and no disks to boot from yet');
  }
  const monitorFree = s.monitor === undefined && !s.nodefaults && !s.serial.some((b) => b.kind === 'stdio' && b.monitor);
  if (s.serial.length === 0 && !s.nodefaults)
    s.serial.push(s.nographic ? { kind: 'stdio', monitor: monitorFree } : { kind: 'null' });
  else if (s.nographic && monitorFree) s.monitor = 'stdio';
  const users = s.serial.filter((b) => b.kind === 'stdio').length + (s.monitor === 'stdio' ? 1 : 0);
  if (users > 1) throw new Refused('-serial stdio: standard input and output are in use already');
  if (s.paused && s.monitor !== 'stdio' && !s.serial.some((b) => b.kind === 'stdio' && b.monitor))
    throw new Refused('-S: not supported without a monitor (-monitor stdio or -serial mon:stdio)');
}
