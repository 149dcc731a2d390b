// Machines of the API that run in a confined process, with a real guest: one boot for all of it.

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Machine } from './api.ts';
import { hasLandlock } from './confine.ts';
import { openImage } from './fetch-image.ts';

const skip = hasLandlock()
  ? await openImage('debian-cloud').then(
      () => false,
      (error: unknown) => (error as Error).message,
    )
  : 'the kernel has no Landlock';

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'nonroot-confined-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Processes of confined machines that this one has started. */
const children = (): string[] =>
  readdirSync('/proc/self/task')
    .flatMap((task) => readFileSync(`/proc/self/task/${task}/children`, 'latin1').trim().split(' '))
    .filter((pid) => pid !== '' && readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('confined-worker'));

test('a confined machine of the API', { skip, timeout: 240_000 }, async (t) => {
  const here = folder(t);
  const disk = join(here, 'disk.raw');
  writeFileSync(disk, Buffer.alloc(1 << 20, 'nonroot '));
  const vm = await Machine.create({ memory: 256, disks: [{ path: disk, format: 'raw', readOnly: true }], confine: true });
  t.after(() => vm.close());
  const failed = vm.ended.then((end) => assert.fail(`the machine ended: ${JSON.stringify(end)}\nconsole:\n${vm.console.text}`));
  failed.catch(() => {});
  await Promise.race([vm.ready, failed]);
  const [pid] = children();

  await t.test('runs in a process that is filtered and has no way back', () => {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1');
    assert.match(status, /^NoNewPrivs:\s1$/m);
    assert.match(status, /^Seccomp:\s2$/m);
  });
  await t.test('carries out commands, reads its disk, and tells what they give', async () => {
    const [one, two] = await Promise.all([vm.exec('head -c 7 /dev/vda; echo err >&2; exit 3'), vm.exec('echo two')]);
    assert.deepEqual(one, { code: 3, stdout: 'nonroot', stderr: 'err\n' });
    assert.equal(two.stdout, 'two\n');
    await assert.rejects(vm.exec('sleep 100', { timeout: 300 }), /within 300 ms/);
  });
  await t.test('has a console, and stands still while it is paused', async () => {
    vm.console.write('echo con""sole\r');
    assert.match(await vm.console.until(/console\r\n/), /console\r\n$/);
    await vm.pause();
    assert.equal(vm.status, 'paused');
    vm.resume();
    assert.equal((await vm.exec('echo on')).stdout, 'on\n');
    assert.equal(vm.status, 'running');
  });
  await t.test('has no snapshots, and says so', async () => {
    await assert.rejects(vm.snapshot(), /Cannot take a snapshot of a confined machine/);
    await assert.rejects(vm.fork(), /Cannot fork a confined machine/);
  });
  await t.test('ends with its process when it is closed', async () => {
    assert.deepEqual(await vm.close(), { kind: 'quit' });
    assert.deepEqual(children(), []);
    await assert.rejects(vm.exec('true'), /the machine has ended/);
  });
});

test('a confined machine that cannot be made says why in one line', {
  skip: !hasLandlock() && 'the kernel has no Landlock',
  timeout: 60_000,
}, async (t) => {
  const kernel = join(folder(t), 'kernel');
  await assert.rejects(Machine.create({ kernel, confine: true }), /^Error: Cannot read .*kernel: there is no such file$/);
  writeFileSync(kernel, 'no kernel');
  await assert.rejects(Machine.create({ kernel, confine: true }), /^Error: Cannot [^\n]*$/);
  assert.deepEqual(children(), []);
});

test('a process of a machine that dies ends the machine', {
  skip: !hasLandlock() && 'the kernel has no Landlock',
  timeout: 60_000,
}, async () => {
  // An endless loop in a multiboot kernel.
  const kernel = Buffer.alloc(8192);
  const words = [0x1badb002, 0x10000, -(0x1badb002 + 0x10000), 0x100000, 0x100000, 0x101000, 0x101000, 0x100020];
  for (const [n, word] of words.entries()) kernel.writeInt32LE(word | 0, 4 * n);
  kernel.set([0xeb, 0xfe], 0x20);
  const vm = await Machine.create({ kernel, memory: 16, confine: true });
  assert.equal(vm.status, 'running');
  process.kill(Number(children()[0]), 'SIGKILL');
  assert.match(JSON.stringify(await vm.ended), /"failed".*SIGKILL/);
  assert.equal(vm.status, 'ended');
});
