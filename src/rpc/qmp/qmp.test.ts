// Server and client of QMP together, and both against what QEMU 7.2 said and says.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { duplexPair, manualTimers } from '../testing.ts';
import type { ByteDuplex } from '../transport.ts';
import { AgentClient, AgentTimeout, QmpClient, type QmpEvent } from './client.ts';
import { QmpError } from './error.ts';
import { type Json, JsonStream } from './json.ts';
import { alternate, any, array, bool, enumeration, int, int64, number, object, optional, str, uint64, union } from './schema.ts';
import { type QmpHandlers, QmpService, type QmpServiceOptions } from './server.ts';
import { command } from './table.ts';

const keyValue = union('KeyValue', {}, 'type', { number: { data: int }, qcode: { data: enumeration('QKeyCode', ['a', 'b']) } });
const blockRef = alternate('BlockdevRef', { string: str, object: object('BlockdevOptions', { 'node-name': str }) });
const commands = {
  balloon: command({ value: int64 }),
  'query-kvm': command({}, object('KvmInfo', { enabled: bool, present: bool })),
  'query-status': command({}, object('StatusInfo', { status: enumeration('RunState', ['running', 'paused']), running: bool })),
  'send-key': command({ keys: array(keyValue), 'hold-time': optional(int) }),
  set_link: command({ name: str, up: bool }),
  screendump: command({ filename: str, head: optional(int) }),
  'blockdev-add': command({
    driver: enumeration('BlockdevDriver', ['raw']),
    'node-name': optional(str),
    file: optional(blockRef),
  }),
  device_add: command({ driver: str, id: optional(str) }, undefined, { open: true, features: ['json-cli'] }),
  'migrate-pause': command({}, undefined, { oob: true }),
  wait: command({}),
  limits: command({ max: uint64, ratio: number }, object('Limits', { max: uint64, any })),
  missing: command({}),
} as const;
const events = {
  STOP: object('STOP', {}),
  RESET: object('RESET', { guest: bool, reason: str }),
} as const;
const version = { major: 7, minor: 2, micro: 22, package: 'test' };
const now = () => ({ seconds: 1_700_000_000, microseconds: 5 });

function build(handlers: QmpHandlers<typeof commands>, also: Partial<QmpServiceOptions<typeof commands, typeof events>> = {}) {
  const service = new QmpService({ version, commands, handlers, events, now, ...also });
  const [a, b] = duplexPair();
  return { service, session: service.attach(a), wire: b };
}
const settle = async (): Promise<void> => {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
};
/** Collects what a server says, as values. */
function listen(wire: ByteDuplex): Json[] {
  const heard: Json[] = [];
  void (async () => {
    const stream = new JsonStream();
    for await (const chunk of wire.input)
      for (const item of stream.push(chunk)) heard.push('value' in item ? item.value : item.error);
  })();
  return heard;
}

/** Requests, and QEMU 7.2's answers to them (recorded), where it has the same commands. */
const recorded: readonly [request: string, answer: Json][] = [
  [
    '{"execute":"query-status"}',
    { error: { class: 'CommandNotFound', desc: "Expecting capabilities negotiation with 'qmp_capabilities'" } },
  ],
  [
    '{"execute":"qmp_capabilities","arguments":{"x":1},"id":5}',
    { id: 5, error: { class: 'GenericError', desc: "Parameter 'x' is unexpected" } },
  ],
  ['{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}', { return: {} }],
  [
    '{"execute":"qmp_capabilities","id":{"a":[1,2]}}',
    {
      id: { a: [1, 2] },
      error: { class: 'CommandNotFound', desc: 'Capabilities negotiation is already complete, command ignored' },
    },
  ],
  [
    '{"execute":"nonsense","id":"x"}',
    { id: 'x', error: { class: 'CommandNotFound', desc: 'The command nonsense has not been found' } },
  ],
  ['{"execute":"query-status","extra":1}', { error: { class: 'GenericError', desc: "QMP input member 'extra' is unexpected" } }],
  ['[1,2]', { error: { class: 'GenericError', desc: 'QMP input must be a JSON object' } }],
  ['5', { error: { class: 'GenericError', desc: 'QMP input must be a JSON object' } }],
  ['{"execute":7}', { error: { class: 'GenericError', desc: "QMP input member 'execute' must be a string" } }],
  [
    '{"execute":"query-status","arguments":[]}',
    { error: { class: 'GenericError', desc: "QMP input member 'arguments' must be an object" } },
  ],
  [
    '{"execute":"query-status","arguments":{"foo":1}}',
    { error: { class: 'GenericError', desc: "Parameter 'foo' is unexpected" } },
  ],
  ['{"execute":"balloon"}', { error: { class: 'GenericError', desc: "Parameter 'value' is missing" } }],
  [
    '{"execute":"balloon","arguments":{"value":"x"}}',
    { error: { class: 'GenericError', desc: "Invalid parameter type for 'value', expected: integer" } },
  ],
  [
    '{"execute":"balloon","arguments":{"value":1.5}}',
    { error: { class: 'GenericError', desc: "Invalid parameter type for 'value', expected: integer" } },
  ],
  [
    '{"execute":"screendump","arguments":{"filename":true}}',
    { error: { class: 'GenericError', desc: "Invalid parameter type for 'filename', expected: string" } },
  ],
  [
    '{"execute":"send-key","arguments":{"keys":[{"type":"number"}]}}',
    { error: { class: 'GenericError', desc: "Parameter 'keys[0].data' is missing" } },
  ],
  [
    '{"execute":"send-key","arguments":{"keys":[{"type":"nix","data":1}]}}',
    { error: { class: 'GenericError', desc: "Parameter 'type' does not accept value 'nix'" } },
  ],
  [
    '{"execute":"send-key","arguments":{"keys":[{"type":"qcode","data":"nokey"}]}}',
    { error: { class: 'GenericError', desc: "Parameter 'data' does not accept value 'nokey'" } },
  ],
  [
    '{"execute":"send-key","arguments":{"keys":{}}}',
    { error: { class: 'GenericError', desc: "Invalid parameter type for 'keys', expected: array" } },
  ],
  [
    '{"execute":"send-key","arguments":{"keys":[7]}}',
    { error: { class: 'GenericError', desc: "Invalid parameter type for 'keys[0]', expected: object" } },
  ],
  [
    '{"execute":"set_link","arguments":{"name":"a","up":1}}',
    { error: { class: 'GenericError', desc: "Invalid parameter type for 'up', expected: boolean" } },
  ],
  ["{'execute':'query-kvm','id':'single'}", { return: { enabled: false, present: true }, id: 'single' }],
  [
    '{"execute":"query-kvm","execute":"query-kvm"}',
    { error: { class: 'GenericError', desc: 'JSON parse error, duplicate key' } },
  ],
  ['{"execute": foo}', { error: { class: 'GenericError', desc: "JSON parse error, invalid keyword 'foo'" } }],
  ['{"execute":"query-kvm",}', { error: { class: 'GenericError', desc: 'JSON parse error, expecting value' } }],
  ['}', { error: { class: 'GenericError', desc: 'JSON parse error, expecting value' } }],
  ['{"execute":"query-kvm","id":18446744073709551615}', { return: { enabled: false, present: true }, id: 18446744073709551615n }],
  [
    '{"exec-oob":"query-kvm","id":1}',
    { id: 1, error: { class: 'GenericError', desc: 'The command query-kvm does not support OOB' } },
  ],
  ['{"execute":"query-kvm","id":null}', { return: { enabled: false, present: true }, id: null }],
  [
    '{"execute":"blockdev-add","arguments":{"driver":"zzz","node-name":"a"}}',
    { error: { class: 'GenericError', desc: "Parameter 'driver' does not accept value 'zzz'" } },
  ],
  [
    '{"execute":"blockdev-add","arguments":{"driver":"raw","node-name":"a","file":5}}',
    { error: { class: 'GenericError', desc: "Invalid parameter type for 'file', expected: BlockdevRef" } },
  ],
];
const fine: QmpHandlers<typeof commands> = {
  balloon: () => ({}),
  'query-kvm': () => ({ enabled: false, present: true }),
  'query-status': () => ({ status: 'running', running: true }),
  'send-key': () => ({}),
  set_link: () => ({}),
  screendump: () => ({}),
  'blockdev-add': () => ({}),
};

test("requests right and wrong are answered in QEMU's words", async () => {
  const { wire, session } = build(fine);
  const heard = listen(wire);
  await settle();
  assert.deepEqual(heard.shift(), {
    QMP: { version: { qemu: { micro: 22, minor: 2, major: 7 }, package: 'test' }, capabilities: ['oob'] },
  });
  for (const [request, answer] of recorded) {
    await wire.write(Buffer.from(`${request}\r\n`));
    await settle();
    assert.deepEqual(heard.splice(0), [answer], request);
  }
  session.close();
});

test('typed commands go through client and server and their answers are checked', async () => {
  const { wire, session } = build({
    ...fine,
    limits: ({ max, ratio }) => ({ max: max + 1n, any: [ratio, 'x'] }),
    device_add: (args) => {
      assert.deepEqual(args, { driver: 'virtio-blk-pci', bus: 'pci.0', addr: '0x5' });
      return {};
    },
  });
  const client = new QmpClient(wire);
  await client.negotiate();
  assert.deepEqual(await client.call(commands, 'query-status', {}), { status: 'running', running: true });
  assert.deepEqual(await client.call(commands, 'limits', { max: (1n << 64n) - 2n, ratio: 2 }), {
    max: (1n << 64n) - 1n,
    any: [2, 'x'],
  });
  await client.execute('device_add', { driver: 'virtio-blk-pci', bus: 'pci.0', addr: '0x5' });
  const names = (await client.execute('query-commands')) as { name: string }[];
  assert.ok(names.some((c) => c.name === 'balloon') && !names.some((c) => c.name === 'missing'));
  await assert.rejects(client.execute('missing'), new QmpError('The command missing has not been found', 'CommandNotFound'));
  session.close();
  await assert.rejects(client.execute('query-kvm'), /the connection is closed/);
});

test('commands are answered in order, out-of-band ones at once', async () => {
  const gate = Promise.withResolvers<void>();
  const { wire, session } = build({
    wait: async () => {
      await gate.promise;
      return {};
    },
    'query-kvm': () => ({ enabled: true, present: true }),
    'migrate-pause': () => ({}),
  });
  const client = new QmpClient(wire);
  await client.negotiate(['oob']);
  const order: string[] = [];
  const calls = [
    client.execute('wait').then(() => order.push('wait')),
    client.execute('query-kvm').then(() => order.push('kvm')),
  ];
  await client.execute('migrate-pause', undefined, { oob: true });
  order.push('pause');
  gate.resolve();
  await Promise.all(calls);
  assert.deepEqual(order, ['pause', 'wait', 'kvm']);
  session.close();
});

test('a monitor that sends too many commands is not read any further until some are answered', async () => {
  const gate = Promise.withResolvers<void>();
  const handlers: QmpHandlers<typeof commands> = {
    wait: async () => {
      await gate.promise;
      return {};
    },
  };
  const [a, b, load] = duplexPair();
  const session = new QmpService({ version, commands, handlers, events, now }).attach(a);
  const heard = listen(b);
  await b.write(Buffer.from('{"execute":"qmp_capabilities"}'));
  for (let id = 0; id < 20; id++) await b.write(Buffer.from(`{"execute":"wait","id":${id}}`));
  await settle();
  assert.equal(load.waiting(), 12);
  gate.resolve();
  await settle();
  await settle();
  assert.deepEqual(
    heard.slice(2),
    Array.from({ length: 20 }, (_, id) => ({ return: {}, id })),
  );
  session.close();
});

test('events reach every monitor that has negotiated, with the time', async () => {
  const { service, wire } = build({});
  const [a, b] = duplexPair();
  const second = service.attach(a);
  const heard = listen(b);
  const client = new QmpClient(wire);
  const seen: QmpEvent[] = [];
  const stop = client.onEvent((e) => seen.push(e));
  await client.negotiate();
  service.emit('STOP');
  service.emit('RESET', { guest: false, reason: 'host-qmp-system-reset' });
  await settle();
  stop();
  service.emit('STOP');
  await settle();
  const timestamp = { seconds: 1_700_000_000, microseconds: 5 };
  assert.deepEqual(seen, [
    { event: 'STOP', data: {}, timestamp },
    { event: 'RESET', data: { guest: false, reason: 'host-qmp-system-reset' }, timestamp },
  ]);
  assert.equal(heard.length, 1, 'only the greeting before negotiation');
  client.close();
  second.close();
});

test('an error of a handler is the answer, with its class, and a bug is reported', async () => {
  const reports: string[] = [];
  const { wire, session } = build(
    {
      balloon: () => {
        throw new QmpError('No balloon device has been activated', 'DeviceNotActive');
      },
      wait: () => {
        throw new TypeError('bug');
      },
    },
    { report: (error, name) => reports.push(`${name}: ${error}`) },
  );
  const client = new QmpClient(wire);
  await client.negotiate();
  await assert.rejects(
    client.execute('balloon', { value: 1 }),
    new QmpError('No balloon device has been activated', 'DeviceNotActive'),
  );
  await assert.rejects(client.execute('wait'), new QmpError('bug'));
  assert.deepEqual(reports, ['wait: TypeError: bug']);
  session.close();
});

/** Follows every type of a schema's entries; returns the names that nothing describes. */
function undescribed(schema: readonly Json[]): string[] {
  const infos = schema as readonly Readonly<Record<string, Json>>[];
  const known = new Set(infos.map((i) => i['name']));
  const used = infos.flatMap((i) => [
    i['arg-type'],
    i['ret-type'],
    i['element-type'],
    ...(i['meta-type'] === 'enum' ? [] : ((i['members'] as { type: string }[] | undefined) ?? [])).map((m) => m.type),
    ...((i['variants'] as { type: string }[] | undefined) ?? []).map((v) => v.type),
  ]);
  return used.filter((name) => name !== undefined && !known.has(name)) as string[];
}

test('query-qmp-schema describes every type once, as QEMU does', async () => {
  const { wire, session } = build({ ...fine, 'migrate-pause': () => ({}), device_add: () => ({}) });
  const client = new QmpClient(wire);
  await client.negotiate();
  const schema = (await client.execute('query-qmp-schema')) as readonly Readonly<Record<string, Json>>[];
  assert.deepEqual(undescribed(schema), []);
  const find = (name: Json | undefined) => schema.filter((i) => i['name'] === name);
  assert.ok(schema.every((i) => find(i['name']).length === 1));
  const args = (name: string) => find(find(name)[0]!['arg-type'])[0]!;
  assert.deepEqual(args('screendump'), {
    name: args('screendump')['name'],
    'meta-type': 'object',
    members: [
      { name: 'filename', type: 'str' },
      { name: 'head', type: 'int', default: null },
    ],
  });
  assert.deepEqual(find('migrate-pause')[0]!['allow-oob'], true);
  assert.deepEqual(find('device_add')[0]!['features'], ['json-cli']);
  const keys = (args('send-key')['members'] as { type: string }[])[0]!.type;
  const key = find(find(keys)[0]!['element-type'])[0]!;
  assert.equal(key['tag'], 'type');
  assert.deepEqual(
    (key['variants'] as { case: string }[]).map((v) => v.case),
    ['number', 'qcode'],
  );
  assert.equal(find('STOP')[0]!['meta-type'], 'event');
  session.close();
});

test('an agent answers after whatever garbage was in the channel; a late answer is not taken for the next', async () => {
  const gate = Promise.withResolvers<void>();
  const agentCommands = {
    'guest-sync-delimited': command({ id: int }, int),
    'guest-ping': command({}),
    'guest-slow': command({}, str),
    'guest-get-time': command({}, int),
  } as const;
  const service = new QmpService({
    version,
    commands: agentCommands,
    events: {},
    now,
    agent: true,
    handlers: {
      'guest-sync-delimited': ({ id }) => id,
      'guest-ping': () => ({}),
      'guest-slow': async () => {
        await gate.promise;
        return 'late';
      },
      'guest-get-time': () => 12,
    },
  });
  const [a, b] = duplexPair();
  service.attach(a);
  await a.write(Buffer.from('{"return": "from before"} login: {{{['));
  await b.write(Buffer.from('{"execute": "half a com'));
  const timers = manualTimers();
  const agent = new AgentClient(b, { timers });
  assert.deepEqual(await agent.execute('guest-ping'), {});
  const slow = agent.execute('guest-slow', undefined, { timeout: 1000 });
  const failed = assert.rejects(slow, AgentTimeout);
  await settle();
  timers.advance(1000);
  await failed;
  const time = agent.execute('guest-get-time');
  await settle();
  gate.resolve();
  assert.equal(await time, 12);
  await assert.rejects(agent.execute('guest-nonsense'), { class: 'CommandNotFound' });
  agent.close();
  await assert.rejects(agent.execute('guest-ping'), /the channel is closed/);
});

const qemu = 'qemu-system-x86_64';
const noQemu = spawnSync(qemu, ['-version']).status === 0 ? false : `${qemu} is not installed`;

test('the client talks to a real QEMU', { skip: noQemu }, async () => {
  const child = spawn(qemu, ['-M', 'none', '-display', 'none', '-nodefaults', '-S', '-qmp', 'stdio'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const duplex: ByteDuplex = {
    input: child.stdout,
    write: (bytes) => void child.stdin.write(bytes),
    close: () => void child.kill(),
  };
  const client = new QmpClient(duplex);
  const seen: string[] = [];
  client.onEvent((e) => seen.push(e.event));
  const greeting = (await client.negotiate(['oob'])) as { version: { qemu: { major: number } } };
  assert.ok(greeting.version.qemu.major >= 4);
  assert.deepEqual(await client.call(commands, 'query-kvm', {}), await client.execute('query-kvm'));
  await client.execute('cont');
  assert.deepEqual(seen, ['RESUME']);
  const schema = (await client.execute('query-qmp-schema')) as Json[];
  assert.ok(schema.length > 500);
  assert.deepEqual(undescribed(schema), []);
  await assert.rejects(client.execute('device_add', { driver: 'zzz' }), { class: 'GenericError' });
  await client.execute('quit');
  await client.closed;
  client.close();
});
