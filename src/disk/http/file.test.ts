// Disks over HTTP against a web server of this test that counts, breaks, changes and refuses.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import { createServer as createTls } from 'node:https';
import type { AddressInfo, Server } from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { nodeHttp } from '../../host/node/disk-http.ts';
import { nodeDiskHost } from '../../host/node/file.ts';
import { inFolder, seeded } from '../../host/node/file-testing.ts';
import { openDisk } from '../open.ts';
import { createQcow2 } from '../qcow2/create.ts';
import { HttpFile } from './file.ts';
import type { HttpOptions } from './protocol.ts';

const SIZE = (5 << 20) + 777;
const random = seeded(7);
const contents = Uint8Array.from({ length: SIZE }, () => random(256));
/** A request has its answer. */
const done = (_: unknown): true => true;
const servers: Server[] = [];
after(() => {
  for (const s of servers) s.close();
});

interface Web {
  readonly url: string;
  readonly ranges: string[];
  etag: string;
  bytes: Uint8Array;
  /** Looks at a request first; true when it has answered. */
  before: (request: IncomingMessage, response: ServerResponse) => boolean;
  most: number;
}

async function web(
  make: (listener: RequestListener) => Server & ReturnType<typeof createServer> = (l) => createServer(l),
): Promise<Web> {
  const made: Web = { url: '', ranges: [], etag: '"1"', bytes: contents, before: () => false, most: 0 };
  let now = 0;
  const server = make((request, response) => {
    made.most = Math.max(made.most, ++now);
    response.on('close', () => now--);
    made.ranges.push(request.headers.range ?? '');
    if (made.before(request, response)) return;
    const [, first = '0', last = ''] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    const end = Math.min(made.bytes.length, Number(last) + 1);
    response.writeHead(206, {
      'content-range': `bytes ${first}-${end - 1}/${made.bytes.length}`,
      'content-length': end - Number(first),
      etag: made.etag,
    });
    setTimeout(() => response.end(made.bytes.subarray(Number(first), end)), 5);
  });
  servers.push(server);
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  return Object.assign(made, { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/disk.img` });
}
const open = (url: string, o: Partial<HttpOptions> = {}): Promise<HttpFile> =>
  HttpFile.open(nodeHttp(), { url, ...o }, { readOnly: true });
async function bytes(file: { read(offset: number, into: Uint8Array): Promise<void> }, offset: number, length: number) {
  const into = new Uint8Array(length).fill(0xee);
  await file.read(offset, into);
  return into;
}
const same = (a: Uint8Array, b: Uint8Array): void => assert.equal(Buffer.compare(a, b), 0);

test('a disk over HTTP is read in ranges, ahead, once, and several at a time', { timeout: 30_000 }, async () => {
  const s = await web();
  const file = await open(s.url);
  assert.equal(await file.size(), SIZE);
  same(await bytes(file, 10, 1000), contents.subarray(10, 1010));
  assert.deepEqual(s.ranges, ['bytes=0-65535']);
  same(await bytes(file, 1 << 20, 4096), contents.subarray(1 << 20, (1 << 20) + 4096));
  same(
    await bytes(file, (1 << 20) + (256 << 10), 4096),
    contents.subarray((1 << 20) + (256 << 10), (1 << 20) + (256 << 10) + 4096),
  );
  assert.equal(s.ranges.length, 2, 'what was read ahead is there');
  const offsets = Array.from({ length: 60 }, () => random(SIZE - 50_000));
  const found = await Promise.all(offsets.map((at) => bytes(file, at, 50_000)));
  for (const [n, at] of offsets.entries()) same(found[n]!, contents.subarray(at, at + 50_000));
  const total = s.ranges.map((r) => /(\d+)-(\d+)/.exec(r)!).reduce((n, [, a, b]) => n + Number(b) + 1 - Number(a), 0);
  assert.ok(total < SIZE + (1 << 20), `each byte comes once, not ${total} in all`);
  assert.ok(s.most > 1 && s.most <= 8, `${s.most} at a time`);
  const whole = await bytes(file, 0, SIZE + 100);
  same(whole.subarray(0, SIZE), contents);
  assert.ok(whole.subarray(SIZE).every((b) => b === 0));
  await file.close();
});

test('broken connections, silence and busy servers are tried again', { timeout: 30_000 }, async () => {
  const s = await web();
  let n = 0;
  s.before = (request, response) => {
    n++;
    if (n % 4 === 1) return done(response.writeHead(503).end());
    if (n % 4 === 2) return done(response.socket!.destroy());
    if (n % 4 === 3 || !request.headers.range) return false;
    // The half of it, and then nothing.
    const [, first = '0', last = '0'] = /(\d+)-(\d+)/.exec(request.headers.range)!;
    const end = Math.min(SIZE, Number(last) + 1);
    response.writeHead(206, {
      'content-range': `bytes ${first}-${end - 1}/${SIZE}`,
      'content-length': end - Number(first),
      etag: s.etag,
    });
    response.write(contents.subarray(Number(first), Math.floor((Number(first) + end) / 2)), () => {
      if (n % 8 === 0) response.socket!.destroy();
    });
    return true;
  };
  const file = await open(s.url, { timeout: 0.3, readAhead: 1 << 20 });
  same(await bytes(file, 100, SIZE - 100), contents.subarray(100));
  await file.close();
  s.before = (_, response) => done(response.writeHead(500).end());
  await assert.rejects(open(s.url), /^Error: Cannot open .*: the server answered 500 Internal Server Error, 5 times$/);
});

test('a file that the server changes is an error from then on', { timeout: 30_000 }, async () => {
  const s = await web();
  const file = await open(s.url);
  await bytes(file, 0, 10);
  s.etag = '"2"';
  await assert.rejects(bytes(file, 2 << 20, 10), /the server changed it \(its ETag was "1" and is "2"\)/);
  await assert.rejects(bytes(file, 0, 10), /the server changed it/);
  const other = await open(s.url);
  s.bytes = contents.subarray(0, 3 << 20);
  await assert.rejects(bytes(other, 2 << 20, 10), /its size was 5243657 and is 3145728/);
});

test('servers that cannot serve a disk are refused in one line', { timeout: 30_000 }, async () => {
  const s = await web();
  const refused = async (before: Web['before'], says: RegExp, o: Partial<HttpOptions> = {}): Promise<void> => {
    s.before = before;
    await assert.rejects(open(s.url, o), says);
  };
  await refused(
    (_, r) => done(r.writeHead(200, { 'content-length': 5 }).end('hello')),
    /does not support 'range' \(byte ranges\)$/,
  );
  await refused((_, r) => done(r.writeHead(404).end()), /the server answered 404 Not Found$/);
  await refused((_, r) => done(r.writeHead(206, { 'content-range': 'bytes 0-9/*' }).end('0123456789')), /does not tell its size/);
  await refused((_, r) => done(r.writeHead(302, { location: s.url }).end()), /more than 10 redirections/);
  await refused((_, r) => done(r.writeHead(302, { location: 'file:///etc/passwd' }).end()), /redirected to file:/);
  await assert.rejects(HttpFile.open(nodeHttp(), { url: s.url }, { readOnly: false }), /a web server's files are read-only/);
});

test('login and cookie go to the server of the URL only', { timeout: 30_000 }, async () => {
  const [s, other] = [await web(), await web()];
  const seen: (string | undefined)[] = [];
  s.before = (q, r) => {
    seen.push(q.headers.authorization, q.headers.cookie);
    return done(r.writeHead(302, { location: other.url }).end());
  };
  other.before = (q) => {
    seen.push(q.headers.authorization, q.headers.cookie);
    return false;
  };
  const file = await open(s.url.replace('//', '//me:p%40ss@'), { cookie: 'a=b' });
  assert.equal(file.name, s.url);
  assert.deepEqual(seen, [`Basic ${Buffer.from('me:p@ss').toString('base64')}`, 'a=b', undefined, undefined]);
  await file.close();
});

const skip = spawnSync('openssl', ['version']).status === 0 ? false : 'openssl is not installed';
test('certificates are checked unless sslverify is off', { timeout: 30_000, skip }, () =>
  inFolder(async (folder) => {
    const [key, cert] = [join(folder, 'key'), join(folder, 'cert')];
    const made = [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-days',
      '2',
      '-subj',
      '/CN=x',
    ];
    assert.equal(spawnSync('openssl', [...made, '-keyout', key, '-out', cert]).status, 0);
    const s = await web((l) => createTls({ key: readFileSync(key), cert: readFileSync(cert) }, l) as never);
    const url = s.url.replace('http:', 'https:');
    await assert.rejects(open(url), /self-signed certificate/);
    const file = await open(url, { verify: false });
    same(await bytes(file, SIZE - 9, 9), contents.subarray(SIZE - 9));
    await file.close();
  }),
);

test('an image over a URL keeps changes here; an image from a server names no file of this host', { timeout: 30_000 }, () =>
  inFolder(async (folder) => {
    const s = await web();
    const host = nodeDiskHost();
    const path = join(folder, 'over.qcow2');
    const make = async (backing: string): Promise<void> => {
      const file = await host.open(path, { readOnly: false, create: true });
      await createQcow2(file, { size: SIZE - (SIZE % 512), backing, backingFormat: 'raw' });
      await file.close();
    };
    await make(s.url);
    const disk = await openDisk(host, path);
    await disk.device.write(70_000, Uint8Array.of(1, 2, 3));
    const read = await bytes(disk.device, 69_998, 7);
    assert.deepEqual([...read], [...contents.subarray(69_998, 70_000), 1, 2, 3, ...contents.subarray(70_003, 70_005)]);
    await disk.device.close();
    for (const [name, says] of [
      ['/etc/passwd', /accepted are URLs, and names beside it/],
      ['file:x', /accepted are URLs, and names beside it/],
    ] as const) {
      await make(name);
      s.bytes = readFileSync(path);
      await assert.rejects(openDisk(host, s.url, { readOnly: true }), says);
    }
    await make('base.raw');
    s.bytes = readFileSync(path);
    const asked: string[] = [];
    s.before = (q) => {
      asked.push(q.url!);
      return false;
    };
    const chained = await openDisk(host, s.url, { readOnly: true });
    await chained.device.close();
    assert.ok(asked.includes('/base.raw'), asked.join());
  }),
);
