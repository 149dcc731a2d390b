// `nonroot list`, `create`, `start`, `console` and the other commands over a daemon's domains: a client of libvirt's RPC.

import type { RpcClient } from '../rpc/client.ts';
import { domainEventIds } from '../rpc/libvirt/events.ts';
import { remote } from '../rpc/libvirt/programs.ts';
import { type Domain, paramsToRecord } from '../rpc/libvirt/types.ts';
import { type Arguments, describeOptions, type Option, parseArguments, UsageError } from './args.ts';
import { domainDocument, memoryOf, type NewDisk } from './domain-document.ts';
import type { CliHost } from './host.ts';

const states = ['no state', 'running', 'idle', 'paused', 'in shutdown', 'shut off', 'crashed', 'suspended'];

const connectOption: Option = {
  names: ['--connect', '-c'],
  value: 'URI',
  help: 'the daemon, as qemu+unix:///system?socket=PATH, qemu+tcp://HOST/system or qemu+tls://HOST/system (default: $NONROOT_URI, else the usual socket)',
};
const jsonOption: Option = { names: ['--json'], help: 'print JSON' };

interface Context {
  readonly args: Arguments;
  readonly client: RpcClient;
  readonly host: CliHost;
  /** The words of the command line by their names. */
  readonly word: (name: string) => string;
}

interface DomainCommand {
  readonly help: string;
  readonly words: readonly string[];
  readonly options?: readonly Option[];
  readonly more?: string;
  readonly run: (context: Context) => Promise<number>;
}

const find = async ({ client, word }: Context): Promise<Domain> =>
  (await client.call(remote, 'domainLookupByName', { name: word('NAME') })).dom;
const say = async (host: CliHost, text: string): Promise<number> => {
  await host.out.write(text);
  return 0;
};

async function describe(client: RpcClient, dom: Domain) {
  const [info, { state }, { persistent }, { autostart }, { result }] = await Promise.all([
    client.call(remote, 'domainGetInfo', { dom }),
    client.call(remote, 'domainGetState', { dom, flags: 0 }),
    client.call(remote, 'domainIsPersistent', { dom }),
    client.call(remote, 'domainGetAutostart', { dom }),
    client.call(remote, 'domainHasManagedSaveImage', { dom, flags: 0 }),
  ]);
  return {
    name: dom.name,
    uuid: dom.uuid,
    id: dom.id < 0 ? null : dom.id,
    state: states[state] ?? String(state),
    memoryKib: Number(info.memory),
    maxMemoryKib: Number(info.maxMem),
    cpus: info.vcpus,
    cpuSeconds: Number(info.cpuTime) / 1e9,
    persistent,
    autostart,
    saved: result === 1,
  };
}

async function list({ client, host, args }: Context): Promise<number> {
  const flags = args.get('--all') === undefined ? 1 : 3;
  const { domains } = await client.call(remote, 'connectListAllDomains', { needResults: true, flags });
  const rows = await Promise.all(domains.map((dom) => describe(client, dom)));
  if (args.get('--json') !== undefined) return say(host, `${JSON.stringify(rows, null, 2)}\n`);
  const header = ['ID', 'NAME', 'STATE', 'CPUS', 'MEMORY'];
  const cells = rows.map((row) => [
    String(row.id ?? '-'),
    row.name,
    row.state,
    String(row.cpus),
    `${Math.round(row.memoryKib / 1024)} MiB`,
  ]);
  const widths = header.map((title, i) => Math.max(title.length, ...cells.map((row) => row[i]!.length)));
  const line = (row: readonly string[]): string =>
    `${row
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd()}\n`;
  return say(host, [header, ...cells].map(line).join(''));
}

async function info(context: Context): Promise<number> {
  const { client, host, args } = context;
  const row = await describe(client, await find(context));
  if (args.get('--json') !== undefined) return say(host, `${JSON.stringify(row, null, 2)}\n`);
  const lines = Object.entries(row).map(([name, value]) => `${name.padEnd(14)}${value ?? '-'}\n`);
  return say(host, lines.join(''));
}

function disksOf(context: Context): NewDisk[] {
  return context.args.all('--disk').map((one) => {
    const [path = '', ...settings] = one.split(',');
    const format = settings.map((s) => /^format=(raw|qcow2)$/.exec(s)?.[1]).find((f) => f !== undefined);
    return {
      path: context.host.absolute(path),
      format: (format ?? (path.endsWith('.qcow2') ? 'qcow2' : 'raw')) as NewDisk['format'],
    };
  });
}

async function create(context: Context): Promise<number> {
  const { args, client, host, word } = context;
  const path = (name: string): string | undefined => {
    const given = args.get(name);
    return given === undefined ? undefined : host.absolute(given);
  };
  const cpus = Number(args.get('--cpus') ?? '1');
  if (!Number.isInteger(cpus) || cpus < 1)
    throw new UsageError(`Cannot use --cpus ${args.get('--cpus')}: accepted are numbers from 1`);
  const file = args.get('--xml');
  const xml =
    file === undefined
      ? domainDocument({
          name: word('NAME'),
          memory: memoryOf(args.get('--memory') ?? '512M'),
          cpus,
          machine: args.get('--machine') ?? 'q35',
          emulator: path('--emulator'),
          disks: disksOf(context),
          cdrom: path('--cdrom'),
          kernel: path('--kernel'),
          initrd: path('--initrd'),
          append: args.get('--append'),
          network: args.get('--network') ?? 'user',
          graphics: args.get('--display') === 'vnc',
        })
      : new TextDecoder().decode(await host.readFile(file));
  const { dom } = await client.call(remote, 'domainDefineXmlFlags', { xml, flags: 0 });
  if (args.get('--start') !== undefined) await client.call(remote, 'domainCreateWithFlags', { dom, flags: 0 });
  return say(host, `${dom.name}\n`);
}

/** Ctrl-]. */
const escapeByte = 0x1d;

async function consoleOf(context: Context): Promise<number> {
  const { client, host, args } = context;
  const dom = await find(context);
  const flags = args.get('--force') === undefined ? 2 : 1;
  const { stream } = await client.open(remote, 'domainOpenConsole', { dom, device: args.get('--device'), flags });
  if (host.input.isTTY) await host.err.write(`Connected to ${dom.name}. Ctrl-] ends the connection.\r\n`);
  const left = Promise.withResolvers<void>();
  const input = host.input.open({
    input: (bytes) => {
      const at = host.input.isTTY ? bytes.indexOf(escapeByte) : -1;
      const wanted = at < 0 ? bytes : bytes.subarray(0, at);
      if (wanted.length > 0) stream.write(wanted).catch(() => left.resolve());
      if (at >= 0) left.resolve();
    },
  });
  host.onSignal(() => left.resolve());
  const shown = (async () => {
    for await (const item of stream) if (item instanceof Uint8Array) await host.out.write(item);
  })();
  try {
    await Promise.race([shown, left.promise]);
  } finally {
    input.close();
    await stream.abort().catch(() => {});
  }
  return 0;
}

async function snapshots(context: Context): Promise<number> {
  const { client, host } = context;
  const dom = await find(context);
  const { snapshots: found } = await client.call(remote, 'domainListAllSnapshots', { dom, needResults: true, flags: 0 });
  return say(host, found.map((one) => `${one.name}\n`).join(''));
}

async function stats(context: Context): Promise<number> {
  const { client, host, args } = context;
  const doms = context.args.words.length > 0 ? [await find(context)] : [];
  const { records } = await client.call(remote, 'connectGetAllDomainStats', { doms, stats: 0, flags: 0 });
  const plain = records.map(({ dom, params }) => ({ name: dom.name, ...paramsToRecord(params) }));
  const text = (value: unknown): unknown => (typeof value === 'bigint' ? Number(value) : value);
  if (args.get('--json') !== undefined) return say(host, `${JSON.stringify(plain, (_, value) => text(value), 2)}\n`);
  return say(
    host,
    plain
      .map((one) =>
        Object.entries(one)
          .map(([name, value]) => `${name}=${value}\n`)
          .join(''),
      )
      .join('\n'),
  );
}

const lifecycleWords = [
  'defined',
  'undefined',
  'started',
  'suspended',
  'resumed',
  'stopped',
  'shutdown',
  'pmsuspended',
  'crashed',
];

async function events({ client, host }: Context): Promise<number> {
  const over = Promise.withResolvers<void>();
  client.on(remote, 'domainEventCallbackLifecycle', ({ msg }) => {
    void host.out.write(`${msg.dom.name} ${lifecycleWords[msg.event] ?? msg.event}\n`);
  });
  await client.call(remote, 'connectDomainEventCallbackRegisterAny', { eventId: domainEventIds.lifecycle, dom: undefined });
  host.onSignal(() => over.resolve());
  await Promise.race([over.promise, client.closed]);
  return 0;
}

const name = ['NAME'] as const;
/** A command that is one call about one domain. */
const simple = (
  help: string,
  run: (client: RpcClient, dom: Domain, args: Arguments) => Promise<unknown>,
  options: readonly Option[] = [],
): DomainCommand => ({
  help,
  words: name,
  options,
  run: async (context) => {
    await run(context.client, await find(context), context.args);
    return 0;
  },
});

const table: Readonly<Record<string, DomainCommand>> = {
  list: {
    help: 'list the guests of the daemon',
    words: [],
    options: [{ names: ['--all', '-a'], help: 'those that do not run too' }, jsonOption],
    run: list,
  },
  info: { help: 'say what a guest is and uses', words: name, options: [jsonOption], run: info },
  create: {
    help: 'define a guest, and start it with --start',
    words: name,
    options: [
      { names: ['--memory', '-m'], value: 'SIZE', help: 'memory, as 512M or 2G (default 512M)' },
      { names: ['--cpus'], value: 'N', help: 'virtual CPUs (default 1)' },
      { names: ['--disk'], value: 'FILE', help: 'disk image, as FILE[,format=raw|qcow2]; may be given several times' },
      { names: ['--cdrom'], value: 'FILE', help: 'CD-ROM image, booted first' },
      { names: ['--kernel'], value: 'FILE', help: 'Linux kernel to boot' },
      { names: ['--initrd'], value: 'FILE', help: 'its initial RAM disk' },
      { names: ['--append'], value: 'TEXT', help: 'its command line' },
      { names: ['--network'], value: 'NET', help: 'user, none or the name of a network (default user)' },
      { names: ['--display'], value: 'KIND', help: 'none or vnc (default none)' },
      { names: ['--machine'], value: 'NAME', help: 'q35 or pc (default q35)' },
      { names: ['--emulator'], value: 'FILE', help: "the emulator (default: the daemon's)" },
      { names: ['--xml'], value: 'FILE', help: "libvirt's domain document instead of the options above" },
      { names: ['--start'], help: 'start it at once' },
    ],
    run: create,
  },
  start: simple(
    'start a guest, from its saved state if it has one',
    (client, dom, args) =>
      client.call(remote, 'domainCreateWithFlags', { dom, flags: args.get('--paused') === undefined ? 0 : 1 }),
    [{ names: ['--paused'], help: 'leave it paused' }],
  ),
  stop: simple(
    'ask a guest to power off, or end it with --force',
    (client, dom, args) =>
      args.get('--force') === undefined
        ? client.call(remote, 'domainShutdownFlags', { dom, flags: 0 })
        : client.call(remote, 'domainDestroyFlags', { dom, flags: 0 }),
    [{ names: ['--force', '-f'], help: 'end it at once' }],
  ),
  reboot: simple(
    'ask a guest to reboot, or reset it with --force',
    (client, dom, args) =>
      client.call(remote, args.get('--force') === undefined ? 'domainReboot' : 'domainReset', { dom, flags: 0 }),
    [{ names: ['--force', '-f'], help: 'reset it at once' }],
  ),
  pause: simple('stop the clock of a guest', (client, dom) => client.call(remote, 'domainSuspend', { dom })),
  resume: simple('let a paused guest go on', (client, dom) => client.call(remote, 'domainResume', { dom })),
  save: simple('save the memory of a guest and end it; `start` goes on from there', (client, dom) =>
    client.call(remote, 'domainManagedSave', { dom, flags: 0 }),
  ),
  remove: simple('forget a guest; its disks stay', (client, dom) =>
    // Managed save, snapshots' and checkpoints' documents, and firmware variables go with it.
    client.call(remote, 'domainUndefineFlags', { dom, flags: 1 | 2 | 4 | 16 }),
  ),
  autostart: simple(
    'start a guest with the daemon, or not with --off',
    (client, dom, args) => client.call(remote, 'domainSetAutostart', { dom, autostart: args.get('--off') === undefined }),
    [{ names: ['--off'], help: 'do not start it any more' }],
  ),
  console: {
    help: "connect this terminal to a guest's console",
    words: name,
    options: [
      { names: ['--device'], value: 'ALIAS', help: 'the port, as serial0 (default: the first console)' },
      { names: ['--force', '-f'], help: 'take it from whoever has it' },
    ],
    more: 'Ctrl-] ends the connection; the guest goes on.',
    run: consoleOf,
  },
  xml: {
    help: "print a guest's document",
    words: name,
    run: async (context) =>
      say(context.host, (await context.client.call(remote, 'domainGetXmlDesc', { dom: await find(context), flags: 0 })).xml),
  },
  snapshot: {
    help: 'take a snapshot of a guest',
    words: ['NAME', 'SNAPSHOT'],
    run: async (context) => {
      const text = context.word('SNAPSHOT').replace(/[&<>]/g, (c) => `&#${c.charCodeAt(0)};`);
      const xml = `<domainsnapshot><name>${text}</name></domainsnapshot>`;
      await context.client.call(remote, 'domainSnapshotCreateXml', { dom: await find(context), xml, flags: 0 });
      return 0;
    },
  },
  snapshots: { help: 'list the snapshots of a guest', words: name, run: snapshots },
  revert: {
    help: 'take a guest back to a snapshot',
    words: ['NAME', 'SNAPSHOT'],
    run: async (context) => {
      const snap = { name: context.word('SNAPSHOT'), dom: await find(context) };
      await context.client.call(remote, 'domainRevertToSnapshot', { snap, flags: 0 });
      return 0;
    },
  },
  migrate: {
    help: 'move a running guest to another daemon',
    words: ['NAME', 'URI'],
    run: async (context) => {
      // Live, peer to peer, persistent there, undefined here.
      const flags = 1 | 2 | 8 | 16;
      await context.client.call(remote, 'domainMigratePerform3Params', {
        dom: await find(context),
        dconnUri: context.word('URI'),
        params: [],
        cookieIn: new Uint8Array(),
        flags,
      });
      return 0;
    },
  },
  stats: { help: 'print statistics of guests that run', words: ['[NAME]'], options: [jsonOption], run: stats },
  events: { help: 'print what happens to guests, until Ctrl-C', words: [], run: events },
};

function usage(command: string, { words, options = [], help, more }: DomainCommand): string {
  const tail = more === undefined ? '' : `\n${more}\n`;
  const text = `${help[0]!.toUpperCase()}${help.slice(1)}.`;
  return `Usage: nonroot ${[command, ...words].join(' ')} [OPTION...]\n\n${text}\n\n${describeOptions([...options, connectOption])}\n${tail}`;
}

async function run(command: string, row: DomainCommand, argv: readonly string[], host: CliHost): Promise<number> {
  const args = parseArguments([...(row.options ?? []), connectOption], row.words.length, argv);
  if (args.get('--help') !== undefined) return say(host, usage(command, row));
  const needed = row.words.filter((word) => !word.startsWith('['));
  const absent = needed[args.words.length];
  if (absent !== undefined) throw new UsageError(`Cannot ${command}: ${absent} is missing`);
  const client = await host.libvirt(args.get('--connect'));
  try {
    return await row.run({
      args,
      client,
      host,
      word: (word) => args.words[row.words.findIndex((one) => one.replace(/[[\]]/g, '') === word)]!,
    });
  } finally {
    await client.call(remote, 'connectClose').catch(() => {});
    client.close();
  }
}

/** The commands by their names, for `nonroot`. */
export const domainCommands: Readonly<
  Record<string, { readonly help: string; readonly run: (argv: readonly string[], host: CliHost) => Promise<number> }>
> = Object.fromEntries(
  Object.entries(table).map(([command, row]) => [
    command,
    { help: row.help, run: (argv: readonly string[], host: CliHost) => run(command, row, argv, host) },
  ]),
);
