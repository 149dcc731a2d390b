import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { parseAddress } from '../../net/address.ts';
import { digest, GuestSocket, noTrouble, pattern, TestGuest, type Trouble } from '../../net/testing.ts';
import { createUserNet } from '../../net/user.ts';
import { parseUserNet } from '../../net/user-options.ts';
import { nodeSockets, parseResolver } from './net.ts';

const address = (text: string) => parseAddress(text)!;
const [guest4, guest6] = [address('10.0.2.15'), address('fec0::5054:ff:fe12:3456')];
const [gateway, gateway6, dns] = [address('10.0.2.2'), address('fec0::2'), address('10.0.2.3')];

async function rig(t: TestContext, pairs: [string, string][] = [], trouble: Trouble = noTrouble, resolvers: string[] = []) {
  const host = nodeSockets(resolvers);
  const net = createUserNet(parseUserNet(pairs), host);
  t.after(() => net.close());
  const guest = new TestGuest(net, host, [guest4, guest6], gateway, trouble, 4711);
  await net.ready;
  return { host, net, guest };
}

async function serve(t: TestContext, on: (s: Socket) => void, at = '127.0.0.1', allowHalfOpen = true): Promise<number> {
  const server: Server = createServer({ allowHalfOpen }, (s) => {
    s.on('error', () => {});
    on(s);
  });
  const sockets = new Set<Socket>();
  server.on('connection', (s) => sockets.add(s));
  server.listen(0, at);
  await once(server, 'listening');
  t.after(() => {
    server.close();
    for (const s of sockets) s.destroy();
  });
  return (server.address() as AddressInfo).port;
}

const happens = (s: GuestSocket, what: string): Promise<void> =>
  new Promise((resolve) => {
    const look = (): void => {
      if (s.log.includes(what)) resolve();
    };
    const before = s.onEvent;
    s.onEvent = (w) => {
      before(w);
      look();
    };
    look();
  });

/** Sends all of `data` with at most 256 KiB queued. */
function pump(s: GuestSocket, data: Uint8Array): void {
  let at = 0;
  const more = (): void => {
    while (at < data.length && s.connection.queued < 1 << 18) {
      s.connection.send(data.subarray(at, at + 50_000));
      at += 50_000;
    }
    if (at >= data.length) s.connection.end();
  };
  s.onWritable = more;
  more();
}

for (const [name, trouble] of [
  ['a clean cable', noTrouble],
  ['a cable that loses, repeats and reorders frames', { loss: 0.005, repeat: 0.005, reorder: 0.02 }],
] as const) {
  test(`10 MiB go both ways between guest and host over ${name}`, { timeout: 60_000 }, async (t) => {
    const size = 10 << 20;
    const { guest, net } = await rig(t, [], trouble);
    const [up, down] = [pattern(size, 1), pattern(size, 2)];
    const received: Uint8Array[] = [];
    let ended = false;
    const port = await serve(t, (s) => {
      s.on('data', (b: Buffer) => received.push(b));
      s.on('end', () => {
        ended = true;
      });
      s.end(down);
    });
    const s = guest.connect(gateway, port);
    await happens(s, 'established');
    pump(s, up);
    await happens(s, 'ended');
    while (!ended) await new Promise((r) => setTimeout(r, 5));
    assert.equal(s.bytes, size);
    assert.equal(digest(s.received), digest([down]));
    assert.equal(digest(received), digest([up]));
    assert.equal(guest.faults, 0);
    assert.ok(net.counts().memory < 4 << 20);
  });
}

test('a guest reaches the host over IPv6', { timeout: 20_000 }, async (t) => {
  const { guest } = await rig(t);
  const port = await serve(t, (s) => s.pipe(s), '::1');
  const s = guest.connect(gateway6, port);
  await happens(s, 'established');
  pump(s, pattern(300_000, 5));
  await happens(s, 'ended');
  assert.equal(digest(s.received), digest([pattern(300_000, 5)]));
  assert.equal(guest.faults, 0);
});

test('a port where nobody listens refuses the guest', { timeout: 20_000 }, async (t) => {
  const { guest, net } = await rig(t);
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  const s = guest.connect(gateway, port);
  await happens(s, 'reset');
  assert.deepEqual(s.log, ['reset']);
  assert.equal(net.counts().tcp, 0);
});

test('either side may end its direction first; the other goes on', { timeout: 20_000 }, async (t) => {
  const { guest } = await rig(t);
  const echoAtEnd = await serve(t, (s) => {
    const all: Buffer[] = [];
    s.on('data', (b: Buffer) => all.push(b));
    s.on('end', () => s.end(Buffer.concat(all)));
  });
  const first = guest.connect(gateway, echoAtEnd);
  await happens(first, 'established');
  pump(first, pattern(100_000, 6));
  await happens(first, 'ended');
  assert.equal(digest(first.received), digest([pattern(100_000, 6)]));

  let got = 0;
  let done: () => void = () => {};
  const finished = new Promise<void>((r) => (done = r));
  const endsAtOnce = await serve(t, (s) => {
    s.end('bye');
    s.on('data', (b: Buffer) => (got += b.length));
    s.on('end', () => done());
  });
  const second = guest.connect(gateway, endsAtOnce);
  await happens(second, 'ended');
  assert.equal(Buffer.concat(second.received).toString(), 'bye');
  pump(second, pattern(70_000, 7));
  await finished;
  assert.equal(got, 70_000);
  await happens(second, 'done');
});

test('a reset passes through in both directions', { timeout: 20_000 }, async (t) => {
  const { guest, net } = await rig(t);
  const errors: string[] = [];
  let accepted: () => void = () => {};
  const port = await serve(t, (s) => {
    s.on('error', (e: NodeJS.ErrnoException) => errors.push(e.code ?? ''));
    s.on('close', () => accepted());
    s.resume();
  });
  const closed = new Promise<void>((r) => (accepted = r));
  const s = guest.connect(gateway, port);
  await happens(s, 'established');
  s.connection.abort();
  await closed;
  assert.deepEqual(errors, ['ECONNRESET']);

  const resets = await serve(t, (x) => x.resetAndDestroy());
  const r = guest.connect(gateway, resets);
  await happens(r, 'reset');
  assert.equal(net.counts().tcp, 0);
});

test('a host that does not read closes the window, a guest that does not read stops the host', { timeout: 20_000 }, async (t) => {
  const { guest, net } = await rig(t);
  let host: Socket | undefined;
  const port = await serve(t, (s) => {
    host = s;
    s.pause();
    s.write(pattern(8 << 20, 8));
  });
  const s = guest.connect(gateway, port);
  s.reading = false;
  await happens(s, 'established');
  s.connection.send(pattern(8 << 20, 9));
  await new Promise((r) => setTimeout(r, 700));
  assert.ok(s.connection.readable <= 1 << 18);
  assert.ok(net.counts().memory < 3 << 20, `${net.counts().memory}`);
  assert.ok(s.connection.queued > 1 << 20, 'the guest still holds what the host has no room for');
  let got = 0;
  const all = new Promise<void>((r) => host!.on('data', (b: Buffer) => ((got += b.length) === 8 << 20 ? r() : undefined)));
  s.reading = true;
  s.read();
  host!.resume();
  await all;
  while (s.bytes < 8 << 20) await new Promise((r) => setTimeout(r, 5));
  assert.equal(digest(s.received), digest([pattern(8 << 20, 8)]));
});

test('UDP goes out and answers come back, as large as datagrams get', { timeout: 20_000 }, async (t) => {
  const { guest, net } = await rig(t);
  const server = createSocket('udp4');
  server.on('message', (b, from) => server.send(Buffer.concat([Buffer.from('re:'), b]), from.port, from.address));
  server.bind(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  for (const size of [0, 10, 1472, 1473, 9000, 60_000]) {
    const answer = new Promise<Uint8Array>((r) => (guest.onDatagram = (d) => r(d.data)));
    guest.datagram(gateway, server.address().port, pattern(size, 3));
    assert.equal(digest([await answer]), digest([Buffer.from('re:'), pattern(size, 3)]), `${size} bytes`);
  }
  assert.equal(net.counts().udp, 1);
  assert.deepEqual(guest.datagrams.at(-1)?.src, gateway);
});

test('the virtual nameserver passes queries on over UDP and TCP, and says so when there is no resolver', {
  timeout: 20_000,
}, async (t) => {
  const server = createSocket('udp4');
  server.on('message', (b, from) => {
    const answer = Buffer.from(b);
    answer[2] |= 0x80;
    // The first comes from the right place with the wrong identification: a guess of an attacker's.
    const forged = Buffer.from(answer);
    forged[0] ^= 0xff;
    server.send(forged, from.port, from.address);
    server.send(Buffer.concat([answer, Buffer.from('answer')]), from.port, from.address);
  });
  server.bind(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const tcpPort = await serve(t, (s) => s.pipe(s));
  const query = Uint8Array.of(0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 97, 0, 0, 1, 0, 1);

  const udp = await rig(t, [], noTrouble, [`127.0.0.1:${server.address().port}`]);
  const answer = new Promise<Uint8Array>((r) => (udp.guest.onDatagram = (d) => r(d.data)));
  udp.guest.datagram(dns, 53, query);
  const got = Buffer.from(await answer);
  assert.deepEqual([got.readUInt16BE(0), got[2] & 0x80, got.subarray(-6).toString()], [0x1234, 0x80, 'answer']);
  assert.equal(udp.net.counts().dns, 0);

  const tcp = await rig(t, [], noTrouble, [`127.0.0.1:${tcpPort}`]);
  const s = tcp.guest.connect(dns, 53);
  await happens(s, 'established');
  s.connection.send(query);
  s.connection.end();
  await happens(s, 'ended');
  assert.equal(digest(s.received), digest([query]));

  const none = await rig(t);
  const failure = new Promise<Uint8Array>((r) => (none.guest.onDatagram = (d) => r(d.data)));
  none.guest.datagram(dns, 53, query);
  assert.deepEqual([(await failure)[3] & 15, (await failure)[2] & 0x80], [2, 0x80]);
});

test('a TCP forward brings a host client to a guest server, and ends when it is removed', { timeout: 20_000 }, async (t) => {
  const { guest, net } = await rig(t);
  guest.accept = (port) => {
    if (port !== 22) return undefined;
    const s = new GuestSocket();
    s.onData = (b) => s.connection.send(b);
    s.onEvent = (what) => what === 'ended' && s.connection.end();
    return s;
  };
  const rule = { protocol: 'tcp', host: { host: '127.0.0.1', port: 0 }, guest: guest4, port: 22 } as const;
  const port = await net.addForward(rule);
  const client = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  const received: Buffer[] = [];
  client.on('data', (b: Buffer) => received.push(b));
  client.end(pattern(400_000, 4));
  await once(client, 'end');
  assert.equal(digest(received), digest([pattern(400_000, 4)]));
  assert.equal(net.removeForward(rule), true);
  assert.equal(net.removeForward(rule), false);
  const late = connect({ port, host: '127.0.0.1' });
  assert.equal((await once(late, 'error').then(([e]) => e as NodeJS.ErrnoException)).code, 'ECONNREFUSED');
});

test('a TCP forward to a guest port where nobody listens resets the client; a unix socket can be forwarded', {
  timeout: 20_000,
}, async (t) => {
  const path = join(tmpdir(), `nonroot-net-${process.pid}.sock`);
  const { guest, net } = await rig(t, [['hostfwd', `unix:${path}-:7`]]);
  guest.accept = (port) => {
    const s = new GuestSocket();
    s.onEvent = (what) => what === 'established' && (port === 7 ? s.connection.send(Buffer.from('hi')) : s.connection.abort());
    return s;
  };
  const port = await net.addForward({ protocol: 'tcp', host: { host: '127.0.0.1', port: 0 }, guest: guest4, port: 8 });
  const refused = connect({ port, host: '127.0.0.1' });
  const [error] = (await once(refused, 'error')) as [NodeJS.ErrnoException];
  assert.equal(error.code, 'ECONNRESET');
  const client = connect({ path });
  const [data] = (await once(client, 'data')) as [Buffer];
  assert.equal(data.toString(), 'hi');
  client.destroy();
});

test('a UDP forward keeps clients apart and answers each', { timeout: 20_000 }, async (t) => {
  const { guest, net } = await rig(t);
  const port = await net.addForward({ protocol: 'udp', host: { host: '127.0.0.1', port: 0 }, guest: guest4, port: 5353 });
  guest.onDatagram = (d) => guest.datagram(d.src, d.srcPort, Buffer.concat([Buffer.from('to '), d.data]), 5353);
  const clients = await Promise.all(
    ['one', 'two'].map(async (name) => {
      const c = createSocket('udp4');
      t.after(() => c.close());
      c.send(name, port, '127.0.0.1');
      const [b] = (await once(c, 'message')) as [Buffer];
      return b.toString();
    }),
  );
  assert.deepEqual(clients, ['to one', 'to two']);
  assert.equal(net.counts().udp, 0, 'answers go through the forward, not through a new socket');
});

test('restrict keeps the guest from the host, except for its forwards', { timeout: 20_000 }, async (t) => {
  let reached = 0;
  const port = await serve(t, (s) => {
    reached++;
    s.end('forwarded');
  });
  const { guest, net } = await rig(t, [
    ['restrict', 'on'],
    ['guestfwd', `tcp:10.0.2.100:80-tcp:127.0.0.1:${port}`],
  ]);
  const blocked = guest.connect(gateway, port);
  await happens(blocked, 'reset');
  assert.equal(reached, 0);
  const allowed = guest.connect(address('10.0.2.100'), 80);
  await happens(allowed, 'ended');
  assert.equal(Buffer.concat(allowed.received).toString(), 'forwarded');
  assert.deepEqual([reached, net.counts().udp], [1, 0]);
});

test('a forward that the host refuses is reported by its address', async (t) => {
  const port = await serve(t, () => {});
  const net = createUserNet(parseUserNet([['hostfwd', `tcp:127.0.0.1:${port}-:22`]]), nodeSockets([]));
  t.after(() => net.close());
  await assert.rejects(net.ready, new RegExp(`Cannot listen at 127.0.0.1:${port}: .*EADDRINUSE`));
});

test('resolvers are read in all the forms that Node lists them in', () => {
  assert.deepEqual(['1.2.3.4', '1.2.3.4:5', '::1', '[::1]:53'].map(parseResolver), [
    { address: '1.2.3.4', port: 53 },
    { address: '1.2.3.4', port: 5 },
    { address: '::1', port: 53 },
    { address: '::1', port: 53 },
  ]);
});

test('bytes of a stream that was ended leave after it is dropped, for a bounded time', { timeout: 20_000 }, async (t) => {
  const size = 24 << 20;
  const served: Socket[] = [];
  const port = await serve(t, (s) => void served.push(s.pause()));
  const host = nodeSockets([]);
  const ended = async (): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const events = { connected: resolve, data: () => {}, end: () => {}, written: () => {}, closed: () => {} };
    const stream = host.connect({ host: '127.0.0.1', port }, events);
    await promise;
    stream.write(new Uint8Array(size));
    stream.end();
    stream.reset();
  };
  await ended();
  const all = host.drained(10_000);
  let got = 0;
  while (served.length === 0) await new Promise((r) => setTimeout(r, 5));
  served[0]!.on('data', (b) => void (got += b.length)).resume();
  await all;
  await once(served[0]!, 'end');
  assert.equal(got, size);
  await ended();
  const start = performance.now();
  await host.drained(200);
  assert.ok(performance.now() - start >= 190, 'a reader that does not read is not waited for longer');
});
