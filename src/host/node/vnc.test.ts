// VNC over real sockets: TCP and WebSocket, real zlib streams, and the password's cipher.
import assert from 'node:assert/strict';
import { createConnection } from 'node:net';
import { test } from 'node:test';
import { createInflate } from 'node:zlib';
import { InputRouter } from '../../display/input.ts';
import { Screen } from '../../display/screen.ts';
import { deflater, des, startVnc } from './vnc.ts';

test('DES is DES', () => {
  // FIPS 81's example.
  const key = Buffer.from('0123456789abcdef', 'hex');
  assert.equal(Buffer.from(des(key, Buffer.from('Now is t'))).toString('hex'), '3fa40e8a984d4815');
});

test('every piece of a stream can be read as soon as it was pushed', async () => {
  const inflate = createInflate();
  const out: Buffer[] = [];
  inflate.on('data', (b: Buffer) => out.push(b));
  const stream = deflater(6);
  for (let i = 0; i < 5; i++) {
    const piece = new Uint8Array(3000).fill(i);
    const packed = await stream.push(piece);
    await new Promise<void>((resolve) => inflate.write(packed, () => resolve()));
    const got = Buffer.concat(out.splice(0));
    assert.deepEqual([got.length, got[0], got[2999]], [3000, i, i]);
  }
  stream.close();
  await assert.rejects(stream.push(new Uint8Array(10)));
});

async function serving() {
  const screen = new Screen(
    { name: 'test', draw: (surface) => surface.resize(64, 32) },
    {
      now: () => performance.now(),
      after: (ms, f) => {
        const timer = setTimeout(f, ms);
        return () => clearTimeout(timer);
      },
    },
  );
  const events: string[] = [];
  const server = await startVnc({
    id: 'default',
    name: 'test',
    screen,
    input: new InputRouter(),
    password: false,
    share: 'allow-exclusive',
    listen: { kind: 'tcp', host: '127.0.0.1', port: 0, websocket: 0 },
    event: (name) => events.push(name),
    report: () => {},
  });
  return { server, screen, events };
}

/** Bytes that come in, by number. */
function collector() {
  let got = Buffer.alloc(0);
  let wanted: { n: number; resolve: (b: Buffer) => void } | undefined;
  const look = () => {
    if (!wanted || got.length < wanted.n) return;
    const { n, resolve } = wanted;
    wanted = undefined;
    const bytes = got.subarray(0, n);
    got = got.subarray(n);
    resolve(bytes);
  };
  return {
    push(b: Uint8Array) {
      got = Buffer.concat([got, b]);
      look();
    },
    take: (n: number) =>
      new Promise<Buffer>((resolve, reject) => {
        const limit = setTimeout(() => reject(new Error(`${n} bytes did not come; there are ${got.length}`)), 20_000);
        wanted = {
          n,
          resolve: (b) => {
            clearTimeout(limit);
            resolve(b);
          },
        };
        look();
      }),
  };
}

/** Shakes hands and asks for everything in zlib's encoding; the inflated pixels. */
async function firstPicture(io: { take(n: number): Promise<Buffer>; send(b: Uint8Array): void }): Promise<Buffer> {
  assert.equal((await io.take(12)).toString(), 'RFB 003.008\n');
  io.send(Buffer.from('RFB 003.008\n'));
  await io.take(2);
  io.send(Buffer.of(1));
  await io.take(4);
  io.send(Buffer.of(1));
  const init = await io.take(24);
  assert.deepEqual([init.readUInt16BE(0), init.readUInt16BE(2)], [64, 32]);
  await io.take(init.readUInt32BE(20));
  io.send(Buffer.of(2, 0, 0, 1, 0, 0, 0, 6));
  io.send(Buffer.of(3, 0, 0, 0, 0, 0, 0, 64, 0, 32));
  assert.equal((await io.take(4)).readUInt16BE(2), 1);
  const head = await io.take(16);
  assert.deepEqual([head.readUInt16BE(4), head.readUInt16BE(6), head.readInt32BE(8)], [64, 32, 6]);
  const packed = await io.take(head.readUInt32BE(12));
  const inflate = createInflate();
  const out: Buffer[] = [];
  inflate.on('data', (b: Buffer) => out.push(b));
  await new Promise<void>((resolve) => inflate.write(packed, () => resolve()));
  return Buffer.concat(out);
}

test('clients over TCP and over WebSocket see the same picture', async (t) => {
  const { server, screen, events } = await serving();
  t.after(() => server.close());
  screen.refresh();
  screen.surface.span(3, 2, Uint32Array.of(0x123456), 0, 1);
  const [tcp, web] = server.addresses;
  assert.deepEqual([tcp!.websocket, web!.websocket], [false, true]);

  const plain = collector();
  const socket = createConnection(Number(tcp!.service), '127.0.0.1');
  socket.on('data', (b: Buffer) => plain.push(b));
  const first = await firstPicture({ take: plain.take, send: (b) => socket.write(b) });
  assert.equal(first.readUInt32LE(4 * (2 * 64 + 3)), 0x123456);

  const framed = collector();
  const ws = new WebSocket(`ws://127.0.0.1:${web!.service}/websockify`, 'binary');
  ws.binaryType = 'arraybuffer';
  ws.onmessage = (e) => framed.push(new Uint8Array(e.data as ArrayBuffer));
  await new Promise((resolve, reject) => {
    ws.onopen = resolve;
    ws.onerror = () => reject(new Error('no WebSocket was opened'));
  });
  assert.equal(ws.protocol, 'binary');
  assert.deepEqual(await firstPicture({ take: framed.take, send: (b) => ws.send(b) }), first);
  assert.equal(server.vnc.clients().length, 2);
  const closed = new Promise((resolve) => socket.once('close', resolve));
  server.vnc.disconnectAll();
  await closed;
  assert.equal(server.vnc.clients().length, 0);
  assert.equal(events.filter((e) => e === 'VNC_DISCONNECTED').length, 2);
});

test('where it cannot listen it says so, and with `to` it takes the next port', async (t) => {
  const { server, screen } = await serving();
  t.after(() => server.close());
  const port = Number(server.addresses[0]!.service);
  const start = (to?: number) =>
    startVnc({
      ...{ id: 'b', name: 'b', screen, input: new InputRouter(), password: false, share: 'ignore' as const },
      listen: { kind: 'tcp', host: '127.0.0.1', port, ...(to === undefined ? {} : { to }) },
      event: () => {},
      report: () => {},
    });
  await assert.rejects(start(), /^Error: Cannot listen for VNC on 127\.0\.0\.1:\d+: .*EADDRINUSE/);
  const second = await start(port + 50);
  t.after(() => second.close());
  assert.ok(Number(second.addresses[0]!.service) > port);
});
