// NBD in both directions over unix sockets: our client and server with each other, and with qemu-nbd and qemu-io where they are installed.

import assert from 'node:assert/strict';
import { execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import { nodeDiskHost } from '../../host/node/file.ts';
import { Registry } from '../../machine/backends.ts';
import { Exports } from './exports.ts';
import { BlockGraph } from './graph.ts';
import { fileOptions } from './options.ts';

const SIZE = 12 << 20;
const folder = mkdtempSync(join(tmpdir(), 'nonroot-nbd-'));
/** What is open where a test ends early: it would keep the process. */
const servers: Exports[] = [];
const graphs: BlockGraph[] = [];
after(async () => {
  for (const one of servers) {
    try {
      one.stop();
    } catch {
      // It was stopped by its test.
    }
  }
  for (const one of graphs) await one.closeAll();
  rmSync(folder, { recursive: true });
});
const host = nodeDiskHost();
const timers = { after: (ms: number, run: () => void) => clearTimeout.bind(undefined, setTimeout(run, ms)) };
const newGraph = (): BlockGraph => {
  const graph = new BlockGraph({ host, timers, clock: () => performance.now(), drives: new Registry('drive') });
  graphs.push(graph);
  return graph;
};
const run = promisify(execFile);
const skip = spawnSync('qemu-nbd', ['--version']).status === 0 ? false : 'qemu-nbd is not installed';
const pattern = (n: number): Uint8Array => Uint8Array.from({ length: n }, (_, i) => (i * 7 + (i >> 9)) & 255);

async function served(name: string, writable: boolean) {
  const path = join(folder, `${name}.raw`);
  const bytes = new Uint8Array(SIZE);
  bytes.set(pattern(1 << 20), 3 << 20);
  writeFileSync(path, '');
  truncateSync(path, SIZE);
  const fd = openSync(path, 'r+');
  writeSync(fd, bytes, 3 << 20, 1 << 20, 3 << 20);
  closeSync(fd);
  const graph = newGraph();
  const node = await graph.add({ driver: 'file', 'node-name': 'disk', filename: path });
  const deleted: string[] = [];
  const exports = new Exports(graph, (id) => deleted.push(id));
  servers.push(exports);
  const socket = join(folder, `${name}.sock`);
  await exports.start({ path: socket }, 0);
  await exports.add({ id: 'x', node, name: 'vda', description: 'a disk', writable });
  return { path, bytes, graph, exports, deleted, uri: `nbd+unix:///vda?socket=${socket}` };
}

test('a disk over NBD reads, writes, zeroes and tells its holes', { timeout: 120_000 }, async () => {
  const s = await served('own', true);
  const graph = newGraph();
  const node = await graph.addFile(fileOptions(s.uri), undefined, false);
  assert.equal(node.disk.size, SIZE);
  const all = new Uint8Array(SIZE);
  await node.disk.read(0, all);
  assert.ok(Buffer.from(all.buffer).equals(Buffer.from(s.bytes.buffer)));
  const piece = pattern(9 << 20).reverse();
  await node.disk.write(12345, piece);
  await node.disk.writeZeroes(1 << 20, 1 << 20);
  await node.disk.flush();
  s.bytes.set(piece, 12345);
  s.bytes.fill(0, 1 << 20, 2 << 20);
  assert.ok(readFileSync(s.path).equals(Buffer.from(s.bytes.buffer)));
  assert.deepEqual(await node.disk.extent(0, 4096), { kind: 'zero', length: 4096 });
  assert.deepEqual(await node.disk.extent(3 << 20, 4096), { kind: 'data', length: 4096 });
  assert.throws(() => s.exports.remove('x', false), /still in use/);
  s.exports.remove('x', true);
  await assert.rejects(node.disk.read(0, new Uint8Array(512)), /Cannot use nbd\+unix:.*: /);
  await assert.rejects(newGraph().addFile(fileOptions(s.uri), 'raw', false), /the server has no export 'vda'/);
  assert.deepEqual(s.deleted, ['x']);
  s.exports.stop();
  await assert.rejects(newGraph().addFile(fileOptions(s.uri), 'raw', false), /^QmpError: Cannot open nbd\+unix:|Cannot open nbd/);
  await graph.closeAll();
  await s.graph.closeAll();
});

test('an export that is read-only refuses writers', { timeout: 120_000 }, async () => {
  const s = await served('ro', false);
  await assert.rejects(newGraph().addFile(fileOptions(s.uri), 'raw', false), /the export is read-only/);
  const graph = newGraph();
  const node = await graph.addFile(fileOptions(s.uri), 'raw', true);
  await node.disk.read(0, new Uint8Array(512));
  await graph.closeAll();
  s.exports.stop();
  await s.graph.closeAll();
});

test('names that are no NBD address are refused in one line', () => {
  for (const name of ['nbd:', 'nbd://', 'nbd://h:0/x', 'nbd://h:99999/x', 'nbd+unix:///x', 'nbd://h/%zz'])
    assert.throws(() => fileOptions(name), /accepted are nbd:\/\/HOST/, name);
  assert.deepEqual(fileOptions('nbd://[::1]/a'), {
    driver: 'nbd',
    server: { type: 'inet', host: '::1', port: '10809' },
    export: 'a',
  });
});

test('qemu-img and qemu-io use an export of ours', { timeout: 120_000, skip }, async () => {
  const s = await served('theirs', true);
  const copy = join(folder, 'copy.raw');
  await run('qemu-img', ['convert', '-O', 'raw', s.uri, copy]);
  assert.ok(readFileSync(copy).equals(Buffer.from(s.bytes.buffer)));
  const map = JSON.parse((await run('qemu-img', ['map', '--output=json', s.uri])).stdout) as { start: number; zero: boolean }[];
  assert.deepEqual(
    map.map((m) => [m.start >> 20, m.zero]),
    [
      [0, true],
      [3, false],
      [4, true],
    ],
  );
  const { stdout } = await run('qemu-io', ['-f', 'raw', s.uri, '-c', 'write -P 7 5M 64k', '-c', 'write -z 3M 64k', '-c', 'discard 4M 1M', '-c', 'read -P 7 5M 64k', '-c', 'flush']); // biome-ignore format: one line
  assert.doesNotMatch(stdout, /fail|error/i);
  s.bytes.fill(7, 5 << 20, (5 << 20) + 65536).fill(0, 3 << 20, (3 << 20) + 65536);
  assert.ok(readFileSync(s.path).equals(Buffer.from(s.bytes.buffer)));
  assert.match(
    (await run('qemu-nbd', ['--list', '-k', join(folder, 'theirs.sock')])).stdout,
    /export: 'vda'\s+description: a disk/,
  );
  s.exports.stop();
  await s.graph.closeAll();
});

test('a node over an export of qemu-nbd reads, writes and sees holes', { timeout: 120_000, skip }, async () => {
  const [path, socket] = [join(folder, 'q.raw'), join(folder, 'q.sock')];
  const bytes = new Uint8Array(SIZE);
  bytes.set(pattern(1 << 20), 3 << 20);
  writeFileSync(path, '');
  spawnSync('qemu-img', ['create', '-f', 'raw', path, String(SIZE)]);
  const child = spawn('qemu-nbd', ['-f', 'raw', '-x', 'vda', '-k', socket, path], { stdio: 'ignore' });
  const ended = once(child, 'exit');
  try {
    for (let n = 0; n < 500 && !existsSync(socket); n++) await new Promise((resolve) => setTimeout(resolve, 20));
    const graph = newGraph();
    const node = await graph.addFile(fileOptions(`nbd+unix:///vda?socket=${socket}`), 'raw', false);
    await node.disk.write(3 << 20, bytes.subarray(3 << 20, 4 << 20));
    await node.disk.flush();
    const all = new Uint8Array(SIZE);
    await node.disk.read(0, all);
    assert.ok(Buffer.from(all.buffer).equals(Buffer.from(bytes.buffer)));
    // qemu-img allocates the first block of a raw file.
    assert.deepEqual(await node.disk.extent(1 << 20, SIZE - (1 << 20)), { kind: 'zero', length: 2 << 20 });
    await graph.closeAll();
    await ended;
    assert.ok(readFileSync(path).equals(Buffer.from(bytes.buffer)));
  } finally {
    child.kill();
  }
});

test('a connection that breaks is made again; requests wait for it for as long as reconnect-delay says', {
  timeout: 60_000,
}, async () => {
  const s = await served('again', true);
  const graph = newGraph();
  const server = { type: 'unix', path: join(folder, 'again.sock') };
  const node = await graph.add({ driver: 'nbd', 'node-name': 'n', server, export: 'vda', 'reconnect-delay': 30 });
  const into = new Uint8Array(4096);
  await node.disk.read(3 << 20, into);
  // The server goes, with what is under way, and comes back.
  s.exports.stop();
  const waiting = node.disk.write(0, pattern(512));
  await new Promise((r) => setTimeout(r, 300));
  const again = new Exports(s.graph, () => {});
  servers.push(again);
  await again.start({ path: server.path }, 0);
  await again.add({ id: 'y', node: s.graph.get('disk'), name: 'vda', description: 'a disk', writable: true });
  await waiting;
  await node.disk.read(0, into);
  assert.deepEqual(into.slice(0, 512), pattern(512));
  again.stop();
  const short = await assertFails(() =>
    newGraph().add({ driver: 'nbd', 'node-name': 'n', server, export: 'vda', 'open-timeout': 1 }),
  );
  assert.ok(short >= 500, `it was tried for ${short} ms`);
  await graph.closeAll();
  await s.graph.closeAll();
});
/** ms until something fails. */
async function assertFails(action: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await assert.rejects(action);
  return performance.now() - start;
}

test('holes between data are told, of files and over NBD', { timeout: 60_000 }, async () => {
  const s = await served('holes', false);
  const kinds = async (disk: { extent(offset: number, length: number): Promise<{ kind: string; length: number }> }) => {
    const found: string[] = [];
    for (let at = 0; at < SIZE; ) {
      const { kind, length } = await disk.extent(at, SIZE - at);
      found.push(`${kind} ${length >> 20}`);
      at += length;
    }
    return found;
  };
  assert.deepEqual(await kinds(s.graph.get('disk').disk), ['zero 3', 'data 1', 'zero 8']);
  const node = await newGraph().addFile(fileOptions(s.uri), undefined, true);
  assert.deepEqual(await kinds(node.disk), ['zero 3', 'data 1', 'zero 8']);
});
