// `nonroot run` with a disk, a CD-ROM, a network and a shared folder: one guest tries them all.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { program } from './program.ts';

const folder = mkdtempSync(join(tmpdir(), 'nonroot-devices-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string): string => join(folder, name);
const has = (tool: string): boolean => {
  try {
    execFileSync(tool, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
};
const md5 = (bytes: Uint8Array): string => createHash('md5').update(bytes).digest('hex');

test('a guest reads and writes its disk, its CD-ROM, a shared folder and the network', { timeout: 300_000 }, async () => {
  mkdirSync(at('share'));
  const data = randomBytes(3_000_000);
  writeFileSync(at('share/host'), data);
  const disk = randomBytes(1 << 20);
  writeFileSync(at('disk.raw'), disk);
  truncateSync(at('disk.raw'), 8 << 20);
  writeFileSync(at('cd.iso'), disk);
  const server = createServer((_, response) => response.end(data));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const script = [
    'head -c 1048576 /dev/vda | md5sum',
    'head -c 1048576 /dev/sr0 | md5sum',
    'md5sum </mnt/share/host',
    `wget -q -O - http://10.0.2.2:${port}/ | md5sum`,
    'cp /mnt/share/host /mnt/share/guest',
    'mkdir /mnt/share/d && mv /mnt/share/guest /mnt/share/d/copy',
    'dd if=/mnt/share/host of=/dev/vda bs=4k seek=512 2>/dev/null && sync',
    'echo done',
  ].join('\n');
  const args = ['run', '--exec', script, '--disk', `${at('disk.raw')},format=raw`, '--cdrom', at('cd.iso')];
  const r = await program('nonroot', [...args, '--share', at('share'), '--net', 'user', '--timeout', '280'], { seconds: 290 });
  server.close();
  const sums = [disk, disk, data, data].map((b) => `${md5(b)}  -`);
  assert.equal(r.stdout.toString(), [...sums, 'done', ''].join('\n'), r.stderr);
  assert.equal(r.code, 0);
  assert.ok(data.equals(readFileSync(at('share/d/copy'))), 'what the guest wrote into the folder');
  const written = readFileSync(at('disk.raw'));
  assert.ok(data.equals(written.subarray(2 << 20, (2 << 20) + data.length)), 'what the guest wrote to the disk');
  assert.ok(disk.equals(written.subarray(0, 1 << 20)));
});

test('a qcow2 image that a guest has written is clean, and a published port reaches the guest', {
  timeout: 300_000,
  skip: has('qemu-img') ? false : 'qemu-img is not installed',
}, async () => {
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', at('d.qcow2'), '64M']);
  const port = await freePort();
  // A client may come before the guest listens, or lose its connection: the server serves until a client thanks it.
  const script = [
    'dd if=/dev/urandom of=/dev/vda bs=64k seek=3 count=40 2>/dev/null; sync; echo written',
    'until echo from the guest | nc -l -p 80 | grep -q thanks; do :; done',
  ].join('\n');
  const listens = Promise.withResolvers<void>();
  let over = false;
  const running = program('nonroot', ['run', '--exec', script, '--disk', at('d.qcow2'), '-p', `${port}:80`, '--timeout', '280'], {
    seconds: 290,
    said: { text: 'written', act: listens.resolve },
  }).finally(() => {
    over = true;
    listens.resolve();
  });
  await listens.promise;
  let heard = '';
  while (heard === '' && !over) {
    heard = await hear(port);
    if (heard === '') await new Promise((resolve) => setTimeout(resolve, 200));
  }
  const r = await running;
  assert.equal(heard, 'from the guest\n', r.text);
  assert.equal(r.code, 0, r.stderr);
  execFileSync('qemu-img', ['check', '-q', at('d.qcow2')]);
});

/** A port of this host that nobody listens at. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** The line that a server at a port of this host says, for which it is thanked; empty when nobody is there. */
function hear(port: number): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const socket = connect(port, '127.0.0.1');
    socket.on('data', (bytes) => {
      text += bytes.toString();
      if (text.endsWith('\n')) socket.end('thanks\n');
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(text));
  });
}
