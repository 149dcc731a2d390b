// Options of `nonroot-system-x86_64` about character devices and what uses them: serial ports, monitors, gdb.

import { charKinds, charOptions, shortOptions } from '../chardev/options.ts';
import { optionMap } from '../monitor/keyval.ts';
import { validId } from '../monitor/qom/user-objects.ts';
import { does, isHelp, parameters, type SystemOption } from './system-option.ts';
import { oneOf, onOff, Refused, type Settings } from './system-settings.ts';

function chardev(s: Settings, text: string): string | undefined {
  if (isHelp(text)) return `Available chardev backend types: \n${charKinds.map((k) => `  ${k}\n`).join('')}`;
  const map = optionMap(text, 'backend');
  const kind = map.get('backend') ?? '';
  const id = map.get('id');
  map.delete('backend');
  map.delete('id');
  if (id === undefined) throw new Refused(`-chardev ${text}: id= is missing`);
  if (!validId(id)) throw new Refused(`-chardev ${text}: id=${id}: accepted are letters, digits, '-', '.', '_', a letter first`);
  addChardev(s, id, () => charOptions(kind, map));
  return undefined;
}

/** Adds a character device under an id that is free. */
export function addChardev(s: Settings, id: string, make: () => ReturnType<typeof charOptions>): void {
  if (s.chardevs.has(id)) throw new Refused(`-chardev id=${id}: there is one of that id already`);
  s.chardevs.set(id, make());
}

/**
 * The character device that a short form means, made where it is no `chardev:ID`.
 * @param id its name if it is made
 */
export function shortChardev(s: Settings, option: string, text: string, id: string): string {
  const named = /^(?:mon:)?chardev:(.*)$/.exec(text);
  if (named) {
    if (!s.chardevs.has(named[1]!)) throw new Refused(`${option} ${text}: there is no character device of that id`);
    return named[1]!;
  }
  addChardev(s, id, () => shortOptions(option, text));
  return id;
}

function mon(s: Settings, text: string): void {
  const map = optionMap(text, 'chardev');
  const mode = oneOf('-mon mode=', map.get('mode') ?? 'readline', ['readline', 'control']) as 'readline' | 'control';
  const id = map.get('chardev');
  if (id === undefined) throw new Refused(`-mon ${text}: chardev= is missing`);
  const pretty = map.get('pretty');
  if (pretty !== undefined && onOff('-mon pretty=', pretty)) throw new Refused('-mon pretty=on: not supported');
  for (const key of map.keys())
    if (!['mode', 'chardev', 'id', 'pretty'].includes(key)) throw new Refused(`-mon ${key}: not supported`);
  s.monitors.push({ chardev: id, mode });
}

export const charDeviceOptions: readonly SystemOption[] = [
  {
    names: ['-chardev'],
    value: 'KIND,id=ID[,PROPERTY=VALUE]',
    help: `a character device: ${charKinds.join(', ')}`,
    group: 'chardev',
    parameters: parameters({
      string: 'backend path host port fd localaddr localport logfile input-path',
      boolean: 'server wait telnet nodelay mux signal append logappend ipv4 ipv6 abstract tight',
      number: 'reconnect backups',
      size: 'size max-size',
    }),
    apply: chardev,
  },
  {
    names: ['-serial'],
    value: 'stdio|mon:stdio|pty|file:F|unix:PATH|tcp:HOST:PORT|null|none|…',
    help: 'connect a serial port, the first to the fourth as it is given again; mon: adds the monitor under Ctrl-A c',
    apply: does((s, v) => {
      if (s.serial.length === 4) throw new Refused(`-serial ${v}: there are four serial ports`);
      s.serial.push(v);
    }),
  },
  {
    names: ['-parallel'],
    value: 'file:F|pipe:F|unix:PATH|tcp:HOST:PORT|null|none|…',
    help: 'connect a parallel port with a printer, up to three',
    apply: does((s, v) => {
      if (s.parallel.length === 3) throw new Refused(`-parallel ${v}: there are three parallel ports`);
      s.parallel.push(v);
    }),
  },
  {
    names: ['-debugcon'],
    value: 'stdio|file:F|unix:PATH|tcp:HOST:PORT|null|none|…',
    help: "connect the firmware's debug console, port 0xE9 or what -global isa-debugcon.iobase= says",
    apply: does((s, v) => void s.debugcon.push(v)),
  },
  {
    names: ['-monitor'],
    value: 'stdio|pty|unix:PATH|tcp:HOST:PORT|none|…',
    help: 'where the monitor for people is',
    apply: does((s, v) => void s.monitor.push(v)),
  },
  {
    names: ['-qmp', '-qmp-pretty'],
    value: 'unix:PATH,server=on,wait=off|tcp:HOST:PORT|stdio|…',
    help: 'a monitor for programs (QMP)',
    apply: does((s, v) => void s.qmp.push({ text: v, pretty: false })),
  },
  {
    names: ['-mon'],
    value: '[chardev=]ID[,mode=readline|control]',
    help: 'a monitor on a character device',
    group: 'mon',
    parameters: parameters({ string: 'mode chardev', boolean: 'pretty' }),
    apply: does(mon),
  },
  {
    names: ['-gdb'],
    value: 'tcp:HOST:PORT|unix:PATH,server=on|chardev:ID|…',
    help: 'a server for gdb',
    apply: does((s, v) => {
      s.gdb = v;
    }),
  },
  {
    names: ['-s'],
    help: 'as -gdb tcp::1234',
    apply: does((s) => {
      s.gdb = 'tcp::1234';
    }),
  },
  {
    names: ['-nographic'],
    help: 'first serial port and monitor on this terminal, as -serial mon:stdio',
    apply: does((s) => {
      s.nographic = true;
    }),
  },
];
