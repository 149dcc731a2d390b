// Server and client together, and each against packets made by hand.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RpcClient } from './client.ts';
import { errorBody, LibvirtError, libvirtError } from './libvirt/errors.ts';
import { qemu, remote } from './libvirt/programs.ts';
import { encodePacket, type Header, type Packet, PacketParser, programNumbers } from './packet.ts';
import { type Handlers, type ServeOptions, ServerConnection, service } from './server.ts';
import type { StreamItem } from './stream.ts';
import { duplexPair, manualTimers } from './testing.ts';
import type { ByteDuplex } from './transport.ts';
import { decode } from './xdr.ts';

type RemoteHandlers = Handlers<typeof remote.procedures>;
const dom = { name: 'a', uuid: '00112233-4455-6677-8899-aabbccddeeff', id: 1 };
const vol = { pool: 'p', name: 'v', key: '/p/v' };
const range = { vol, offset: 0n, length: 0n, flags: 0 };
/** Lets everything that is ready run. */
const settle = async (): Promise<void> => {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
};
const gate = (): { readonly opened: Promise<void>; open(): void } => {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { opened: promise, open: resolve };
};

function pair(handlers: RemoteHandlers, options: ServeOptions = {}, chunk?: number) {
  const [a, b] = duplexPair(chunk);
  const server = new ServerConnection(a, [service(remote, handlers), service(qemu, {})], options);
  const client = new RpcClient(b);
  return { server, client, api: client.bind(remote) };
}
/** A server, and the bare wire to it. */
function bare(handlers: RemoteHandlers, options: ServeOptions = {}) {
  const [a, wire] = duplexPair();
  const server = new ServerConnection(a, [service(remote, handlers)], options);
  const packets: Packet[] = [];
  void (async () => {
    const parser = new PacketParser();
    for await (const chunk of wire.input) {
      parser.push(chunk);
      for (let p = parser.next(); p !== undefined; p = parser.next()) packets.push(p);
    }
  })();
  const send = (over: Partial<Header>, body = new Uint8Array(0)): void => {
    const head: Header = { program: remote.number, version: 1, procedure: 59, type: 'call', serial: 1, status: 'ok' };
    void wire.write(encodePacket({ ...head, ...over }, (w) => w.raw(body)));
  };
  return { server, wire, packets, send };
}
const bytesOf = async (items: AsyncIterable<StreamItem>): Promise<Buffer> => {
  const parts: Uint8Array[] = [];
  for await (const item of items) if (item instanceof Uint8Array) parts.push(item);
  return Buffer.concat(parts);
};

test('calls run side by side and their replies come as they finish', async () => {
  const slow = gate();
  const { api, client } = pair({
    domainSave: async () => slow.opened,
    connectGetHostname: () => ({ hostname: 'h' }),
  });
  const order: string[] = [];
  const save = api.domainSave({ dom, to: '/x' }).then(() => order.push('save'));
  order.push((await api.connectGetHostname()).hostname);
  slow.open();
  await save;
  assert.deepEqual(order, ['h', 'save']);
  client.close();
});

test('packets of one byte at a time make the same calls', async () => {
  const { api, client } = pair({ domainLookupByName: ({ name }) => ({ dom: { ...dom, name } }) }, {}, 1);
  assert.deepEqual(await api.domainLookupByName({ name: 'größe' }), { dom: { ...dom, name: 'größe' } });
  client.close();
});

test("a handler's LibvirtError reaches the client whole; any other error is an internal one and reported", async () => {
  const reports: unknown[] = [];
  const { api, client } = pair(
    {
      domainCreate: () => {
        throw libvirtError('operationInvalid', 'qemu', 'domain is already running');
      },
      domainDestroy: () => {
        throw new Error('bug');
      },
      domainGetState: () => ({ state: 2 ** 40, reason: 0 }),
    },
    { report: (error, procedure) => reports.push([(error as Error).message, procedure]) },
  );
  const caught = async (call: Promise<unknown>): Promise<unknown> => {
    const error = await call.then(
      () => undefined,
      (e: LibvirtError) => e,
    );
    return error instanceof LibvirtError ? [error.code, error.domain, error.message] : error;
  };
  assert.deepEqual(await caught(api.domainCreate({ dom })), [
    55,
    10,
    'Requested operation is not valid: domain is already running',
  ]);
  assert.deepEqual(await caught(api.domainDestroy({ dom })), [1, 7, 'internal error: bug']);
  const range = 'Cannot encode state: 1099511627776, an integer from -2147483648 to 2147483647 accepted';
  assert.deepEqual(await caught(api.domainGetState({ dom, flags: 0 })), [1, 7, `internal error: ${range}`]);
  assert.deepEqual(reports, [
    ['bug', 'domainDestroy'],
    [range, 'domainGetState'],
  ]);
  client.close();
});

test("what the server does not know is answered with libvirt's own errors, and the connection goes on", async () => {
  const { send, packets, server } = bare({ connectGetHostname: () => ({ hostname: 'h' }), domainCreate: () => {} });
  send({ procedure: 9999, serial: 1 });
  send({ procedure: 3, serial: 2 });
  send({ program: 0x2000_8099, serial: 3 });
  send({ version: 2, serial: 4 });
  send({ procedure: 9, serial: 5 }, Uint8Array.of(0, 0, 0, 9, 1, 2, 3, 4));
  send({ procedure: 9, serial: 6, type: 'callWithFds' }, Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0));
  send({ serial: 7 });
  await settle();
  const answers = packets.map((p) => [p.serial, p.status === 'error' ? decode(errorBody, p.body).message : p.status]);
  assert.deepEqual(answers.sort(), [
    [1, 'unknown procedure: 9999'],
    [2, 'unknown procedure: 3'],
    [3, 'Cannot find program 536903833 version 1'],
    [4, 'Cannot find program 536903814 version 2'],
    [5, 'Unable to decode message payload: Cannot decode dom.name: length 9, but only 4 bytes are left'],
    [6, 'Unable to decode message payload: Cannot decode dom.uuid: 0 bytes are left, 16 needed'],
    [7, 'ok'],
  ]);
  const errors = packets.filter((p) => p.status === 'error').map((p) => decode(errorBody, p.body));
  assert.ok(errors.every((e) => e.is('rpc') && e.domain === 7));
  server.close();
});

test('file descriptors are refused without losing the packets that follow', async () => {
  const { wire, send, packets, server } = bare({ domainOpenGraphics: () => {}, connectGetHostname: () => ({ hostname: 'h' }) });
  const args = Buffer.concat([Buffer.from([0, 0, 0, 1]), Buffer.from('0000000161000000', 'hex'), Buffer.alloc(16 + 4 + 8)]);
  send({ procedure: 249, type: 'callWithFds', serial: 1 }, args);
  void wire.write(Uint8Array.of(0));
  send({ serial: 2 });
  await settle();
  const refused = packets.find((p) => p.serial === 1)!;
  assert.ok(decode(errorBody, refused.body).is('noSupport'));
  assert.equal(packets.find((p) => p.serial === 2)!.status, 'ok');
  server.close();
});

test('bytes that are no packet, and packets that a client does not send, end the connection with a reason', async () => {
  const broken = bare({});
  void broken.wire.write(new Uint8Array(28));
  assert.match((await broken.server.closed)!.message, /Cannot read packet: length 0/);
  const wrong = bare({});
  wrong.send({ type: 'reply' });
  assert.match((await wrong.server.closed)!.message, /type reply, calls and stream data accepted/);
});

test('only so many calls run at a time, more wait, and a client that goes on is held back', async () => {
  const gates = Array.from({ length: 12 }, gate);
  let running = 0;
  let most = 0;
  let started = 0;
  const [a, wire, load] = duplexPair();
  const server = new ServerConnection(
    a,
    [
      service(remote, {
        connectGetHostname: async () => {
          most = Math.max(most, ++running);
          await gates[started++]!.opened;
          running--;
          return { hostname: 'h' };
        },
      }),
    ],
    { maxCalls: 2, maxWaiting: 3 },
  );
  for (let serial = 1; serial <= 12; serial++) {
    void wire.write(
      encodePacket({ program: remote.number, version: 1, procedure: 59, type: 'call', serial, status: 'ok' }, () => {}),
    );
  }
  await settle();
  assert.deepEqual([running, load.waiting()], [2, 7]);
  for (const g of gates) {
    g.open();
    await settle();
  }
  assert.deepEqual([most, started, running], [2, 12, 0]);
  server.close();
});

test('a refusal by admit comes before the arguments are looked at', async () => {
  const { send, packets, server } = bare(
    { domainCreate: () => {} },
    {
      admit: (name, program) => {
        throw libvirtError('internalError', 'rpc', `${program} ${name}: connection not open`);
      },
    },
  );
  send({ procedure: 9 }, Uint8Array.of(1));
  await settle();
  assert.equal(decode(errorBody, packets[0]!.body).message, 'internal error: remote domainCreate: connection not open');
  server.close();
});

test('messages reach the listeners of their program and name until these stop', async () => {
  const { server, client } = pair({});
  const seen: string[] = [];
  const stop = client.on(remote, 'domainEventCallbackReboot', (m) => seen.push(`reboot ${m.msg.dom.name} ${m.callbackId}`));
  client.on(qemu, 'domainMonitorEvent', (m) => seen.push(`${m.event} ${m.details}`));
  server.notify(remote, 'domainEventCallbackReboot', { callbackId: 4, msg: { dom } });
  server.notify(remote, 'domainEventCallbackControlError', { callbackId: 4, msg: { dom } });
  server.notify(qemu, 'domainMonitorEvent', { callbackId: 1, dom, event: 'STOP', seconds: 1n, micros: 2, details: undefined });
  await settle();
  stop();
  server.notify(remote, 'domainEventCallbackReboot', { callbackId: 5, msg: { dom } });
  await settle();
  assert.deepEqual(seen, ['reboot a 4', 'STOP undefined']);
  client.close();
});

test('a download brings all bytes and holes, in packets of the size that old clients take, and is confirmed', async () => {
  const data = Buffer.alloc(700_000, 'abc');
  const { client } = pair({
    storageVolDownload: (_, call) =>
      call.stream(async (s) => {
        await s.write(data);
        await s.writeHole(1n << 40n);
      }),
  });
  const { stream } = await client.open(remote, 'storageVolDownload', range);
  const sizes: (number | bigint)[] = [];
  const parts: Uint8Array[] = [];
  for await (const item of stream) {
    sizes.push(item instanceof Uint8Array ? item.length : item.hole);
    if (item instanceof Uint8Array) parts.push(item);
  }
  assert.deepEqual(sizes, [262_120, 262_120, 175_760, 1n << 40n]);
  assert.ok(Buffer.concat(parts).equals(data));
  await stream.finish();
  client.close();
});

test('an upload is confirmed only after the server has worked on all of it', async () => {
  const done = gate();
  let got: Uint8Array = new Uint8Array(0);
  const { client } = pair({
    storageVolUpload: (_, call) =>
      call.stream(async (s) => {
        got = await bytesOf(s);
        await done.opened;
      }),
  });
  const { stream } = await client.open(remote, 'storageVolUpload', range);
  await stream.write(Buffer.from('hello '));
  await stream.write(Buffer.from('world'));
  let confirmed = false;
  const finished = stream.finish().then(() => {
    confirmed = true;
  });
  await settle();
  assert.deepEqual([Buffer.from(got).toString(), confirmed], ['hello world', false]);
  done.open();
  await finished;
  client.close();
});

test("a server's failure in a stream is thrown to the client that writes, and the next call works", async () => {
  const { client, api } = pair({
    storageVolUpload: (_, call) =>
      call.stream(async (s) => {
        for await (const _item of s) throw libvirtError('operationFailed', 'storage', 'disk full');
      }),
    connectGetHostname: () => ({ hostname: 'h' }),
  });
  const { stream } = await client.open(remote, 'storageVolUpload', range);
  await stream.write(Buffer.from('x'));
  await settle();
  await assert.rejects(stream.write(Buffer.from('y')), { message: 'operation failed: disk full', code: 9, domain: 18 });
  await assert.rejects(stream.finish(), { message: 'operation failed: disk full' });
  await assert.rejects(bytesOf(stream), LibvirtError);
  assert.deepEqual(await api.connectGetHostname(), { hostname: 'h' });
  client.close();
});

test('an abort is confirmed and ends what the server does with the stream', async () => {
  const ended = Promise.withResolvers<unknown>();
  const { client } = pair({
    domainOpenConsole: (_, call) =>
      call.stream(async (s) => {
        await s.write(Buffer.from('login: '));
        await bytesOf(s).catch(ended.resolve);
        await assert.rejects(s.write(Buffer.from('more')));
      }),
  });
  const { stream } = await client.open(remote, 'domainOpenConsole', { dom, device: undefined, flags: 0 });
  await stream.abort();
  assert.equal(((await ended.promise) as Error).message, 'stream aborted at client request');
  client.close();
});

test('a console goes both ways at once', async () => {
  const { client } = pair({
    domainOpenConsole: (_, call) =>
      call.stream(async (s) => {
        for await (const item of s)
          if (item instanceof Uint8Array) await s.write(Buffer.from(Buffer.from(item).toString().toUpperCase()));
      }),
  });
  const { stream } = await client.open(remote, 'domainOpenConsole', { dom, device: undefined, flags: 0 });
  const output = stream[Symbol.asyncIterator]();
  for (const word of ['one', 'two']) {
    await stream.write(Buffer.from(word));
    assert.equal(Buffer.from((await output.next()).value as Uint8Array).toString(), Buffer.from(word).toString().toUpperCase());
  }
  await stream.finish();
  client.close();
});

test('a stream whose call fails, or whose handler opens none, is an error of the call', async () => {
  const { client } = pair({
    storageVolDownload: () => {
      throw libvirtError('noStorageVol', 'storage', 'no such');
    },
    storageVolUpload: () => {},
  });
  await assert.rejects(client.open(remote, 'storageVolDownload', range), { code: 50 });
  await assert.rejects(client.open(remote, 'storageVolUpload', range), /its handler opened no stream/);
  await assert.rejects(client.open(remote, 'domainCreate', { dom }), /the procedure has none/);
  client.close();
});

test('a reader that waits holds the sender back instead of storing everything', async () => {
  let sent = 0;
  const [a, b, load] = duplexPair();
  const slow: ByteDuplex = {
    ...a,
    async write(bytes) {
      void a.write(bytes);
      sent += bytes.length;
      while (load.waiting() > 8) await new Promise((resolve) => setImmediate(resolve));
    },
  };
  const server = new ServerConnection(slow, [
    service(remote, {
      storageVolDownload: (_, call) =>
        call.stream(async (s) => {
          for (let i = 0; i < 200; i++) await s.write(new Uint8Array(262_120));
        }),
    }),
  ]);
  const client = new RpcClient(b);
  const { stream } = await client.open(remote, 'storageVolDownload', range);
  await settle();
  await settle();
  assert.ok(sent < 12_000_000, `${sent} bytes sent while nobody read`);
  let got = 0;
  for await (const item of stream) got += item instanceof Uint8Array ? item.length : 0;
  await stream.finish();
  assert.equal(got, 200 * 262_120);
  client.close();
  server.close();
});

test('a silent peer is pinged and, after as many misses as allowed, given up; a peer that answers is kept', async () => {
  const timers = manualTimers();
  const { server, packets, wire } = bare({});
  server.startKeepalive({ interval: 5, count: 2, timers });
  const isPing = (p: Packet): boolean => p.program === programNumbers.keepalive && p.procedure === 1;
  timers.advance(5000);
  await settle();
  assert.equal(packets.filter(isPing).length, 1);
  void wire.write(
    encodePacket(
      { program: programNumbers.keepalive, version: 1, procedure: 2, type: 'message', serial: 0, status: 'ok' },
      () => {},
    ),
  );
  await settle();
  for (let i = 0; i < 3; i++) {
    timers.advance(5000);
    await settle();
  }
  assert.equal(packets.filter(isPing).length, 3);
  timers.advance(5000);
  assert.equal((await server.closed)?.message, 'connection closed due to keepalive timeout');

  const two = pair({ connectSupportsFeature: () => ({ supported: true }) });
  two.client.startKeepalive({ interval: 1, count: 1, timers });
  for (let i = 0; i < 20; i++) {
    timers.advance(1000);
    await settle();
  }
  assert.deepEqual(await two.api.connectSupportsFeature({ feature: 10 }), { supported: true });
  two.client.close();
});

test('the end of the connection ends calls and streams at both ends', async () => {
  const ended = Promise.withResolvers<unknown>();
  const { client, server, api } = pair({
    domainSave: () => new Promise<void>(() => {}),
    domainOpenConsole: (_, call) => call.stream((s) => bytesOf(s).then(() => {}, ended.resolve)),
  });
  const { stream } = await client.open(remote, 'domainOpenConsole', { dom, device: undefined, flags: 0 });
  const save = assert.rejects(api.domainSave({ dom, to: '/x' }), { code: 1, message: 'internal error: client socket is closed' });
  server.close();
  await save;
  assert.equal(await client.closed, undefined);
  await assert.rejects(bytesOf(stream), /the connection was closed/);
  assert.match(String(await ended.promise), /the connection was closed/);
  await assert.rejects(api.connectGetHostname(), /client socket is closed/);
});

test('a stream whose connection ends before its call is answered ends as well', async () => {
  const work = gate();
  const ended = Promise.withResolvers<unknown>();
  const { client, server } = pair({
    domainOpenConsole: async (_, call) => {
      await work.opened;
      call.stream(async (s) => {
        await s.write(Buffer.from('login: ')).catch(ended.resolve);
      });
    },
  });
  const opened = assert.rejects(client.open(remote, 'domainOpenConsole', { dom, device: undefined, flags: 0 }));
  await settle();
  client.close();
  await server.closed;
  work.open();
  assert.match(String(await ended.promise), /the connection was closed/);
  await opened;
});

test('after CONNECT_CLOSE the server answers and closes', async () => {
  const { api, client } = pair({ connectClose: (_, call) => call.connection.closeWhenIdle() });
  await api.connectClose();
  assert.equal(await client.closed, undefined);
});

test('no packet makes the server throw: random ones are answered or end the connection', async () => {
  const seed = 77;
  let x = seed;
  const next = (below: number): number => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
  const handlers = Object.fromEntries(
    Object.keys(remote.procedures).map((name) => [
      name,
      () => {
        throw libvirtError('noSupport', 'qemu', name);
      },
    ]),
  ) as RemoteHandlers;
  const types = ['call', 'call', 'call', 'stream', 'message', 'callWithFds', 'streamHole'] as const;
  for (let round = 0; round < 150; round++) {
    const { send, server, packets } = bare(handlers);
    for (let i = 0; i < 10; i++) {
      const body = Uint8Array.from({ length: 4 * next(20) }, () => (next(3) === 0 ? next(256) : 0));
      send(
        { procedure: next(450), type: types[next(types.length)]!, serial: next(4), status: next(9) === 0 ? 'continue' : 'ok' },
        body,
      );
    }
    await settle();
    for (const packet of packets) assert.equal(packet.status, 'error', `seed ${seed}, round ${round}`);
    server.close();
    await server.closed;
  }
});
