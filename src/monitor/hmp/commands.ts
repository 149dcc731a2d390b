// The commands of the monitor for people, as a table. QEMU 7.2 "System Emulation", section "QEMU Monitor".

import { charOptions } from '../../chardev/options.ts';
import type { Json } from '../../rpc/qmp/json.ts';
import type { Emulator } from '../emulator.ts';
import { startGdb } from '../gdb/start.ts';
import { optionMap } from '../keyval.ts';
import { deleteSnapshot, loadSnapshot, saveSnapshot } from '../machine-snapshots.ts';
import { netdevJson } from '../netdevs.ts';
import { objectOptions } from '../qom/objects.ts';
import { blockHmp } from './block.ts';
import { type HmpCommand, HmpError, need, splitWords } from './command.ts';
import { displayCommands } from './display.ts';
import { infos } from './info.ts';
import { memoryHmp } from './memory.ts';
import { migrateHmp } from './migrate.ts';

const onOff = (text: string): boolean => {
  if (text === 'on') return true;
  if (text === 'off') return false;
  throw new HmpError("Expected 'on' or 'off'");
};

export const commands: readonly HmpCommand[] = [
  { names: ['help', '?'], args: '[cmd]', help: 'show the help', run: (_, { words }) => helpText(words) },
  {
    names: ['info'],
    args: '[subcommand]',
    help: 'show various information about the system state',
    run(e, { words, text }) {
      const name = words[0];
      if (name === undefined) return helpText(['info']);
      const found = infos.find((i) => i.names.includes(name));
      if (!found) throw new HmpError(`unknown command: 'info ${name}'`);
      return found.run(e, { words: words.slice(1), text: text.slice(name.length).trim(), format: '', name });
    },
  },
  { names: ['stop', 's'], help: 'stop emulation', run: (e) => e.stop() },
  { names: ['cont', 'c'], help: 'resume emulation', run: (e) => e.contWithDisks() },
  { names: ['quit', 'q'], help: 'quit the emulator', run: (e) => e.quit('host-qmp-quit') },
  {
    names: ['savevm'],
    args: 'tag',
    help: 'save a VM snapshot; a snapshot of that tag is replaced',
    run: (e, { words }) => saveSnapshot(e, words[0]),
  },
  { names: ['loadvm'], args: 'tag', help: 'restore a VM snapshot', run: (e, args) => loadSnapshot(e, need(args, 0, 'name')) },
  { names: ['delvm'], args: 'tag', help: 'delete a VM snapshot', run: (e, args) => deleteSnapshot(e, need(args, 0, 'name')) },
  { names: ['system_reset'], help: 'reset the system', run: (e) => e.reset() },
  { names: ['system_wakeup'], help: 'wakeup guest from suspend', run: (e) => e.wakeup() },
  { names: ['system_powerdown'], help: 'send system power down event', run: (e) => e.powerdown() },
  {
    names: ['cpu'],
    args: 'index',
    help: 'set the default CPU',
    run(e, args) {
      const n = Number(need(args, 0, 'index'));
      if (!e.running.board.cpus.has(n) || n < 0) throw new HmpError('invalid CPU index');
      e.currentCpu = n;
    },
  },
  {
    names: ['device_add'],
    args: 'driver[,prop=value][,...]',
    help: 'add device, like -device on the command line',
    run: (e, args) => {
      const map = optionMap(args.text, 'driver');
      const driver = map.get('driver');
      if (driver === undefined) throw new HmpError("Parameter 'driver' is missing");
      return e.deviceAdd({ ...Object.fromEntries(map), driver });
    },
  },
  { names: ['device_del'], args: 'device', help: 'remove device', run: (e, args) => e.running.deviceDel(need(args, 0, 'id')) },
  {
    names: ['netdev_add'],
    args: '[user|socket|stream|dgram|tap],id=str[,prop=value][,...]',
    help: 'add host network device',
    run: (e, args) => e.netdevAdd(netdevJson(args.text)),
  },
  { names: ['netdev_del'], args: 'id', help: 'remove host network device', run: (e, args) => e.netdevDel(need(args, 0, 'id')) },
  {
    names: ['set_link'],
    args: 'name on|off',
    help: 'change the link status of a network adapter',
    run: (e, args) => e.setLink(need(args, 0, 'name'), onOff(need(args, 1, 'up'))),
  },
  {
    names: ['object_add'],
    args: '[qom-type=]type,id=str[,prop=value][,...]',
    help: 'create QOM object',
    run(e, args) {
      e.objects.add(
        objectOptions.coerce(Object.fromEntries(optionMap(args.text, 'qom-type'))) as { readonly [name: string]: Json },
      );
    },
  },
  { names: ['object_del'], args: 'id', help: 'destroy QOM object', run: (e, args) => e.objects.remove(need(args, 0, 'id')) },
  {
    names: ['chardev-add'],
    args: 'args',
    help: 'add chardev',
    async run(e, args) {
      const map = optionMap(args.text, 'backend');
      const [kind, id] = [map.get('backend') ?? '', map.get('id')];
      map.delete('backend');
      map.delete('id');
      if (id === undefined) throw new HmpError("Parameter 'id' is missing");
      await e.chardevs.add(id, charOptions(kind, map));
    },
  },
  { names: ['chardev-remove'], args: 'id', help: 'remove chardev', run: (e, args) => e.chardevs.remove(need(args, 0, 'id')) },
  {
    names: ['chardev-send-break'],
    args: 'id',
    help: 'send a break on chardev',
    run: (e, args) => e.chardev(need(args, 0, 'id')).sendBreak(),
  },
  {
    names: ['qom-list'],
    args: 'path',
    help: 'list QOM properties',
    run(e, { words }) {
      const node = e.tree.find(words[0] ?? '/');
      return [
        ...node.properties.map((p) => `${p.name} (${p.type})`),
        ...[...node.children].map(([name, child]) => `${name} (child<${child.type}>)`),
      ].join('\n');
    },
  },
  {
    names: ['qom-get'],
    args: 'path property',
    help: 'print QOM property',
    run: async (e, args) => JSON.stringify(await e.tree.property(need(args, 0, 'path'), need(args, 1, 'property')).get()),
  },
  {
    names: ['balloon'],
    args: 'target',
    help: 'request VM to change its memory allocation (in MB)',
    run: (e, args) => e.balloon().set(Number(need(args, 0, 'value')) * 2 ** 20),
  },
  ...displayCommands,
  ...memoryHmp,
  ...blockHmp,
  ...migrateHmp,
  {
    names: ['gdbserver'],
    args: '[device]',
    help: "start gdbserver on given device (default 'tcp::1234'), stop with 'none'",
    run: (e, { words }) => startGdb(e, words[0] ?? 'tcp::1234'),
  },
];

function helpText(words: readonly string[]): string {
  const line = (c: HmpCommand, prefix = ''): string =>
    `${prefix}${c.names.join('|')}${c.args === undefined ? '' : ` ${c.args}`} -- ${c.help}`;
  if (words[0] === 'info') return infos.map((i) => line(i, 'info ')).join('\n');
  const found = words[0] === undefined ? commands : commands.filter((c) => c.names.includes(words[0]!));
  return [...found]
    .sort((a, b) => (a.names[0]! < b.names[0]! ? -1 : 1))
    .map((c) => line(c))
    .join('\n');
}

/** Runs one line; the answer's lines end in `\r\n`, and it is empty where there is nothing to say. */
export async function runHmp(e: Emulator, line: string): Promise<string> {
  const trimmed = line.trim();
  if (trimmed === '') return '';
  let answer: string;
  try {
    const name = /^[^\s/]+/.exec(trimmed)?.[0] ?? '';
    const command = commands.find((c) => c.names.includes(name));
    if (!command) throw new HmpError(`unknown command: '${name}'`);
    // A format stands right behind the name, or behind a blank where the command takes one.
    const [, format = '', rest = ''] =
      (command.args?.startsWith('/') ? /^\s*\/(\S*)(.*)$/s : /^\/(\S*)(.*)$/s).exec(trimmed.slice(name.length)) ?? [];
    const text = (rest === '' && format === '' ? trimmed.slice(name.length) : rest).trim();
    answer = (await command.run(e, { name, words: splitWords(text), text, format })) ?? '';
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    answer = error instanceof HmpError ? text : `Error: ${text}`;
  }
  return answer === '' ? '' : `${answer.replaceAll('\n', '\r\n')}\r\n`;
}
