import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { nodeSockets } from '../host/node/net.ts';
import { parseAddress } from './address.ts';
import type { NetBackend } from './backend.ts';
import { concat } from './bytes.ts';
import { Hub, serveHub } from './hub.ts';
import { capture, pcapHeader } from './pcap.ts';
import { createDgramNet, createStreamNet, FrameReader, framed } from './socket.ts';
import { FakeHost, pattern, seeded, TestGuest, VirtualClock } from './testing.ts';
import { createUserNet } from './user.ts';
import { parseUserNet } from './user-options.ts';

const frame = (to: number, from: number, size = 60): Uint8Array => {
  const b = pattern(size, size);
  b.set([2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from]);
  if (to === 255) b.fill(255, 0, 6);
  return b;
};
const next = (net: NetBackend): Promise<number[]> => new Promise((r) => (net.receive = (f) => r([...f])));
const until = async (what: () => boolean): Promise<void> => {
  while (!what()) await new Promise((r) => setTimeout(r, 2));
};

test('a stream is cut into its frames wherever it was split, and is refused when it lies', () => {
  const random = seeded(3);
  const frames = Array.from({ length: 200 }, () => pattern(14 + Math.floor(random() * 3000), 1));
  const bytes = concat(...frames.map(framed));
  const got: Uint8Array[] = [];
  const reader = new FrameReader((f) => got.push(f.slice()));
  for (let at = 0; at < bytes.length; ) {
    const n = 1 + Math.floor(random() * 5000 * random());
    assert.equal(reader.push(bytes.subarray(at, at + n)), true);
    at += n;
  }
  assert.deepEqual(got, frames);
  assert.equal(new FrameReader(() => {}).push(Uint8Array.of(0, 2, 0, 0)), false);
  assert.equal(new FrameReader(() => assert.fail()).push(Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3)), true);
});

test('two ends of a stream exchange frames over TCP and unix sockets, and find each other again', {
  timeout: 10_000,
}, async (t) => {
  const host = nodeSockets([]);
  for (const unix of [false, true]) {
    const at = unix ? { path: join(tmpdir(), `nonroot-cable-${process.pid}`) } : { host: '127.0.0.1', port: 0 };
    const a = createStreamNet({ address: at, server: true }, host);
    t.after(() => a.close());
    const address = unix ? at : { host: '127.0.0.1', port: await a.ready };
    await a.ready;
    let b = createStreamNet({ address, server: false }, host);
    await until(() => a.connected && b.connected);
    const [toA, toB] = [next(a), next(b)];
    b.send(frame(1, 2, 1514));
    a.send(frame(2, 1, 65_550));
    assert.deepEqual([await toA, await toB], [[...frame(1, 2, 1514)], [...frame(2, 1, 65_550)]]);
    b.close();
    await until(() => !a.connected);
    b = createStreamNet({ address, server: false, reconnect: 20 }, host);
    t.after(() => b.close());
    const again = next(a);
    await until(() => a.connected && b.connected);
    b.send(frame(1, 2));
    assert.deepEqual(await again, [...frame(1, 2)]);
  }
});

test('frames go in datagrams to one other end', { timeout: 10_000 }, async (t) => {
  const host = nodeSockets([]);
  const probe = createDgramNet({ local: { host: '127.0.0.1', port: 0 }, remote: { host: '127.0.0.1', port: 9 } }, host);
  const port = await probe.ready;
  probe.close();
  const a = createDgramNet({ local: { host: '127.0.0.1', port: 0 }, remote: { host: '127.0.0.1', port } }, host);
  const b = createDgramNet({ local: { host: '127.0.0.1', port }, remote: { host: '127.0.0.1', port: await a.ready } }, host);
  t.after(() => [a, b].map((n) => n.close()));
  await b.ready;
  const got = next(b);
  a.send(frame(2, 1, 1514));
  assert.deepEqual(await got, [...frame(2, 1, 1514)]);
});

test('a switch learns where addresses are, forgets them, and sends what it does not know everywhere', () => {
  let now = 0;
  const hub = new Hub(() => now);
  const ports = [hub.port(), hub.port(), hub.port()];
  const got: string[] = [];
  for (const [i, p] of ports.entries()) p.receive = (f) => got.push(`${i}<${f[11]}`);
  const sent = (from: number, to: number): string[] => {
    got.length = 0;
    ports[from].send(frame(to, from + 10));
    return [...got];
  };
  assert.deepEqual(sent(0, 11), ['1<10', '2<10']);
  assert.deepEqual(sent(1, 10), ['0<11']);
  assert.deepEqual(sent(0, 11), ['1<10']);
  assert.deepEqual(sent(0, 255), ['1<10', '2<10']);
  now = 301_000;
  assert.deepEqual(sent(2, 11), ['0<12', '1<12']);
  ports[1].close();
  assert.deepEqual(sent(0, 11), ['2<10']);
  for (let i = 0; i < 5000; i++) ports[0].send(Uint8Array.of(2, 9, 9, 9, 9, 9, 2, 0, 1, i >> 8, i, 0, 8, 0));
  assert.equal(hub.size, 2);
});

test('two guests at a switch reach each other over its socket and the router beside it', { timeout: 10_000 }, async (t) => {
  const host = nodeSockets([]);
  const hub = new Hub(() => host.now());
  const user = createUserNet(parseUserNet([['restrict', 'on']]), host);
  t.after(() => user.close());
  hub.attach(user);
  const server = await serveHub(hub, { host: '127.0.0.1', port: 0 }, host);
  t.after(() => server.close());
  const nets = [1, 2].map(() => createStreamNet({ address: { host: '127.0.0.1', port: server.port }, server: false }, host));
  t.after(() => nets.map((n) => n.close()));
  await until(() => nets.every((n) => n.connected) && hub.size === 3);
  const heard = next(nets[1]);
  nets[0].send(frame(255, 1));
  assert.deepEqual(await heard, [...frame(255, 1)]);
  const guest = new TestGuest(nets[0], host, [parseAddress('10.0.2.15')!], parseAddress('10.0.2.2')!);
  const reset = guest.connect(parseAddress('10.0.2.2')!, 80);
  await until(() => reset.log.includes('reset'));
});

test('a capture is a pcap file of what passed', () => {
  const clock = new VirtualClock();
  const written: Uint8Array[] = [];
  const net = capture(createUserNet(parseUserNet(), new FakeHost(clock)), {
    write: (b) => written.push(b),
    seconds: () => 1_700_000_000.25,
    snaplen: 40,
  });
  const arp = new Uint8Array(42);
  arp.fill(255, 0, 6);
  arp.set([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 2, 15], 6);
  arp.set([10, 0, 2, 2], 38);
  let answers = 0;
  net.receive = () => answers++;
  net.send(arp);
  assert.equal(answers, 1);
  const file = Buffer.concat(written);
  assert.equal(file.subarray(0, 24).toString('hex'), 'd4c3b2a10200040000000000000000002800000001000000');
  assert.deepEqual(pcapHeader(40), new Uint8Array(file.subarray(0, 24)));
  assert.deepEqual(
    [0, 4, 8, 12].map((o) => file.readUInt32LE(24 + o)),
    [1_700_000_000, 250_000, 40, 42],
  );
  assert.equal(file.length, 24 + 2 * 56);
});
