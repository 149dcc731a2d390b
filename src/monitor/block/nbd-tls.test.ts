// NBD under TLS over TCP: our client and server with each other and with QEMU's, and who is not let in.

import assert from 'node:assert/strict';
import { execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { pack, Taker } from '../../disk/nbd/protocol.ts';
import { nodeDiskHost } from '../../host/node/file.ts';
import { makeCertificates, noOpenssl } from '../../host/node/tls-testing.ts';
import { Registry } from '../../machine/backends.ts';
import type { TlsCredentials } from '../tls.ts';
import { Exports } from './exports.ts';
import { BlockGraph } from './graph.ts';

const SIZE = 4 << 20;
const LIMIT = { timeout: 240_000, skip: noOpenssl };
const noQemu = noOpenssl || (spawnSync('qemu-nbd', ['--version']).status === 0 ? false : 'qemu-nbd is not installed');
const run = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), 'nonroot-nbd-tls-'));
const dir = noOpenssl ? '' : makeCertificates();
const stranger = noOpenssl ? '' : makeCertificates();
const ends: (() => unknown)[] = [];
after(async () => {
  for (const end of ends.reverse()) await end();
  for (const one of [folder, dir, stranger]) if (one) rmSync(one, { recursive: true });
});
const host = nodeDiskHost();
const timers = { after: (ms: number, f: () => void) => clearTimeout.bind(undefined, setTimeout(f, ms)) };
/** A graph whose clients have these certificates. */
function newGraph(of: string, verifyPeer = true): BlockGraph {
  const tls = (_: string, hostname: string | undefined): TlsCredentials => ({ dir: of, verifyPeer, hostname });
  const graph = new BlockGraph({ host, timers, clock: () => performance.now(), drives: new Registry('drive'), tls });
  ends.push(() => graph.closeAll());
  return graph;
}
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}
const pattern = Buffer.from(Uint8Array.from({ length: SIZE }, (_, i) => (i * 7 + (i >> 9)) & 255));
const nbd = (port: number, more: object = { 'tls-creds': 't' }) => ({
  driver: 'nbd',
  'node-name': 'disk',
  server: { type: 'inet', host: '127.0.0.1', port: String(port) },
  export: 'vda',
  ...more,
});
/** An export of a file under TLS. */
async function served(name: string, verifyPeer = true): Promise<{ readonly port: number; readonly path: string }> {
  const path = join(folder, name);
  writeFileSync(path, pattern);
  const graph = newGraph(dir);
  const node = await graph.add({ driver: 'file', 'node-name': 'disk', filename: path });
  const exports = new Exports(graph, () => {});
  const port = await freePort();
  await exports.start({ host: '127.0.0.1', port }, 0, { dir, verifyPeer });
  ends.push(() => exports.stop());
  await exports.add({ id: 'x', node, name: 'vda', description: '', writable: true });
  return { port, path };
}
async function compare(graph: BlockGraph, description: object): Promise<void> {
  const node = await graph.add(description as never);
  const all = new Uint8Array(SIZE);
  await node.disk.read(0, all);
  assert.ok(Buffer.from(all.buffer).equals(pattern));
  const piece = new Uint8Array(100_000).fill(0x5a);
  await node.disk.write(54_321, piece);
  await node.disk.flush();
  await node.disk.read(0, all);
  assert.deepEqual(Buffer.from(all.buffer).subarray(54_321, 154_321), Buffer.from(piece.buffer));
}

test('a disk is read and written under TLS, and its client is known by its certificate', LIMIT, async () => {
  const { port, path } = await served('own');
  await compare(newGraph(dir), nbd(port));
  assert.equal(readFileSync(path)[60_000], 0x5a);
  const refused = (graph: BlockGraph, more?: object): Promise<void> =>
    assert.rejects(
      graph.add(nbd(port, more) as never),
      (error: Error) => !error.message.includes('\n') && /Cannot open nbd:/.test(error.message),
    );
  await refused(newGraph(stranger));
  await refused(newGraph(stranger, false));
  await refused(newGraph(dir), { 'tls-creds': 't', 'tls-hostname': 'elsewhere' });
  await assert.rejects(newGraph(dir).add(nbd(port, {}) as never), /takes clients under TLS alone/);
  await assert.rejects(newGraph(dir).add(nbd(port, { 'tls-hostname': 'x' }) as never), /tls-hostname without tls-creds/);
  await newGraph(dir).add(nbd(port, { 'tls-creds': 't', 'tls-hostname': 'there' }) as never);
});

test('a client that says more before TLS than that it wants it is hung up on, and nothing is told without', LIMIT, async () => {
  const { port } = await served('ahead', false);
  const startTls = pack([8, 0x49484156454f5054n], [4, 5], [4, 0]);
  const list = pack([8, 0x49484156454f5054n], [4, 3], [4, 0]);
  const talk = async (bytes: Uint8Array) => {
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    const taker = new Taker({ input: socket, write: () => {}, close: () => {} });
    await taker.take(18);
    socket.write(pack([4, 3], bytes));
    return { socket, taker };
  };
  const asks = await talk(list);
  const answer = new DataView((await asks.taker.take(20)).buffer);
  assert.deepEqual([answer.getUint32(8), answer.getUint32(12)], [3, 0x80000005]);
  asks.socket.destroy();
  const ahead = await talk(pack(startTls, list));
  await assert.rejects(ahead.taker.take(1), /closed/);
  const silent = await talk(pack([8, 0x49484156454f5054n], [4, 1], [4, 3], new TextEncoder().encode('vda')));
  await assert.rejects(silent.taker.take(1), /closed/, 'no export for who does not ask for TLS');
});

test('qemu-nbd serves our client, and qemu-img reads from our server, under TLS', { ...LIMIT, skip: noQemu }, async () => {
  const path = join(folder, 'theirs');
  writeFileSync(path, pattern);
  const port = await freePort();
  const object = (end: string, of = dir): string => `tls-creds-x509,id=t,endpoint=${end},dir=${of},verify-peer=on`;
  const server = spawn(
    'qemu-nbd',
    [
      '--object',
      object('server'),
      '--tls-creds',
      't',
      '-b',
      '127.0.0.1',
      '-p',
      String(port),
      '-x',
      'vda',
      '-f',
      'raw',
      '-t',
      '-e',
      '4',
      path,
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  ends.push(() => server.kill('SIGKILL'));
  let said = '';
  server.stderr.on('data', (b: Buffer) => void (said += b));
  for (let n = 0; ; n++) {
    try {
      await compare(newGraph(dir), nbd(port));
      break;
    } catch (error) {
      if (n === 100 || !/ECONNREFUSED/.test(String(error))) throw new Error(`${error}\n${said}`);
      await sleep(200);
    }
  }
  await assert.rejects(newGraph(stranger).add(nbd(port) as never), /Cannot open nbd:/);
  const own = await served('for-qemu');
  const options = `driver=nbd,server.type=inet,server.host=127.0.0.1,server.port=${own.port},export=vda,tls-creds=t`;
  const copy = join(folder, 'copy');
  await run('qemu-img', ['convert', '--object', object('client'), '--image-opts', options, '-O', 'raw', copy]);
  assert.ok(readFileSync(copy).equals(pattern));
  await assert.rejects(run('qemu-img', ['info', '--object', object('client', stranger), '--image-opts', options]));
});
