// Sessions of real clients (virsh and the Python binding, libvirt 9.0) with a real libvirtd 9.0, one packet a line: C from the
// client, S from the server.
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { RpcClient } from './client.ts';
import { errorBody, LibvirtError } from './libvirt/errors.ts';
import { qemu, remote } from './libvirt/programs.ts';
import { type Packet, PacketParser, programNumbers } from './packet.ts';
import { ServerConnection, type Service, service } from './server.ts';
import { duplexPair, manualTimers } from './testing.ts';
import type { ByteDuplex } from './transport.ts';
import { type Codec, decode, encode } from './xdr.ts';

interface Line {
  readonly from: 'C' | 'S';
  readonly hex: string;
  readonly packet: Packet;
}
const folder = `${import.meta.dirname}/testdata`;
const read = (file: string): Line[] =>
  readFileSync(`${folder}/${file}`, 'utf8')
    .trim()
    .split('\n')
    .map((line) => {
      const hex = line.slice(2);
      const parser = new PacketParser();
      parser.push(Buffer.from(hex, 'hex'));
      return { from: line[0] as 'C' | 'S', hex, packet: parser.next()! };
    });

/** The codec of a recorded packet's body; undefined for raw stream data. */
function codecOf({ packet }: Line): Codec<unknown> | undefined {
  const program = [remote, qemu].find((p) => p.number === packet.program);
  if (packet.type === 'stream' || program === undefined) return undefined;
  if (packet.status === 'error') return errorBody;
  if (packet.type === 'message') return program.messageOf.get(packet.procedure)!.row.body;
  const row = program.procedureOf.get(packet.procedure)!.row;
  return packet.type === 'call' ? row.args : row.ret;
}

test('every recorded body decodes by the table and encodes to the same bytes', () => {
  const procedures = new Set<number>();
  for (const file of globSync('*.hex', { cwd: folder })) {
    for (const line of read(file)) {
      const codec = codecOf(line);
      if (codec === undefined) continue;
      procedures.add(line.packet.procedure);
      const value = decode(codec, line.packet.body);
      assert.equal(Buffer.from(encode(codec, value)).toString('hex'), Buffer.from(line.packet.body).toString('hex'), file);
    }
  }
  assert.ok(procedures.size >= 25, `${procedures.size} procedures and messages seen`);
});

/** A server that answers each call with what the real one did, by procedure in the order of the recording. */
function replaying(lines: readonly Line[]): { services: Service[]; requests: string[] } {
  const answers = new Map<number, Packet[]>();
  for (const { from, packet } of lines) {
    if (from !== 'S' || packet.type !== 'reply') continue;
    answers.set(packet.procedure, [...(answers.get(packet.procedure) ?? []), packet]);
  }
  const requests: string[] = [];
  const handlers = Object.fromEntries(
    Object.entries(remote.procedures).map(([name, row]) => [
      name,
      () => {
        requests.push(name);
        const packet = answers.get(row.number)!.shift()!;
        if (packet.status === 'error') throw decode(errorBody, packet.body);
        return decode(row.ret as Codec<unknown>, packet.body);
      },
    ]),
  );
  return { services: [{ program: remote, handlers }], requests };
}

for (const file of ['virsh-list.hex', 'virsh-dominfo.hex', 'virsh-nosuch.hex']) {
  test(`the server answers ${file} byte by byte as libvirtd did`, async () => {
    const lines = read(file);
    const { services } = replaying(lines);
    const [server, wire] = duplexPair();
    const connection = new ServerConnection(server, services);
    const got: string[] = [];
    const parser = new PacketParser();
    const reader = wire.input[Symbol.asyncIterator]();
    for (const { from, hex } of lines) {
      if (from === 'C') {
        await wire.write(Buffer.from(hex, 'hex'));
        continue;
      }
      const chunk = (await reader.next()).value as Uint8Array;
      parser.push(chunk);
      got.push(Buffer.from(chunk).toString('hex'));
    }
    const want = lines.filter((l) => l.from === 'S').map((l) => l.hex);
    assert.deepEqual(got, want);
    connection.close();
  });
}

/** Plays the server's side of a recording and holds the client's packets against it. */
async function playServer(wire: ByteDuplex, lines: readonly Line[]): Promise<void> {
  const parser = new PacketParser();
  const reader = wire.input[Symbol.asyncIterator]();
  for (const { from, hex } of lines) {
    if (from === 'S') await wire.write(Buffer.from(hex, 'hex'));
    else {
      let packet = parser.next();
      while (packet === undefined) {
        const chunk = (await reader.next()).value as Uint8Array;
        assert.equal(Buffer.from(chunk).toString('hex'), hex);
        parser.push(chunk);
        packet = parser.next();
      }
    }
  }
}

test("the client's calls are virsh's, byte by byte, and it understands libvirtd's answers", async () => {
  const [end, wire] = duplexPair();
  const played = playServer(wire, read('virsh-list.hex'));
  const client = new RpcClient(end);
  const api = client.bind(remote);
  assert.deepEqual(await api.authList(), { types: ['none'] });
  assert.deepEqual(await api.connectSupportsFeature({ feature: 10 }), { supported: true });
  await api.connectOpen({ name: 'test:///default', flags: 0 });
  await api.connectSupportsFeature({ feature: 14 });
  await api.connectSupportsFeature({ feature: 15 });
  await api.connectRegisterCloseCallback();
  const { domains } = await api.connectListAllDomains({ needResults: true, flags: 3 });
  assert.deepEqual(domains, [{ name: 'test', uuid: '6695eb01-f6a4-8304-79aa-97f2502e193f', id: 1 }]);
  assert.deepEqual(await api.domainGetState({ dom: domains[0]!, flags: 0 }), { state: 1, reason: 0 });
  await api.connectUnregisterCloseCallback();
  await api.connectClose();
  await played;
  client.close();
});

test('a stream is aborted, and another, as the Python binding does it', async () => {
  const lines = read('py-abort.hex');
  const start = lines.findIndex((l) => l.packet.procedure === remote.procedures.storageVolDownload.number);
  const own = lines.slice(start).filter((l) => [208, 209].includes(l.packet.procedure));
  const data = own.find((l) => l.from === 'S' && l.packet.status === 'continue')!.packet.body;
  const services = [
    service(remote, {
      storageVolDownload: (_, call) =>
        call.stream(async (s) => {
          await s.write(data);
          await s.gone;
        }),
      storageVolUpload: (_, call) => call.stream((s) => s.gone),
    }),
  ];
  const [server, wire] = duplexPair();
  const connection = new ServerConnection(server, services);
  const answered: string[] = [];
  void (async () => {
    for await (const chunk of wire.input) answered.push(Buffer.from(chunk).toString('hex'));
  })();
  for (const { from, hex } of own) {
    if (from === 'C') await wire.write(Buffer.from(hex, 'hex'));
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.deepEqual(
    answered,
    own.filter((l) => l.from === 'S').map((l) => l.hex),
  );
  connection.close();
});

test("libvirtd's events and pings reach the client, which answers the pings", async () => {
  const lines = read('virsh-event.hex');
  const [end, wire] = duplexPair();
  const client = new RpcClient(end);
  client.startKeepalive({ interval: 5, count: 3, timers: manualTimers() });
  const events: unknown[] = [];
  client.on(remote, 'domainEventCallbackLifecycle', (body) => events.push([body.callbackId, body.msg.event, body.msg.detail]));
  for (const { from, hex, packet } of lines)
    if (from === 'S' && packet.type === 'message') await wire.write(Buffer.from(hex, 'hex'));
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(events, [
    [0, 3, 0],
    [0, 4, 0],
  ]);
  const pong = lines.find((l) => l.from === 'C' && l.packet.program === programNumbers.keepalive)!;
  const sent = (await wire.input[Symbol.asyncIterator]().next()).value as Uint8Array;
  assert.equal(Buffer.from(sent).toString('hex'), pong.hex);
  client.close();
});

test('an error of libvirtd is thrown with its code, domain and words', async () => {
  const line = read('virsh-nosuch.hex').find((l) => l.packet.status === 'error')!;
  const error = decode(errorBody, line.packet.body);
  assert.ok(error instanceof LibvirtError);
  assert.deepEqual([error.is('noDomain'), error.domain, error.message], [true, 12, 'Domain not found']);
});
