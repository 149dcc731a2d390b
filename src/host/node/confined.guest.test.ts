// Machines of the API that run in a confined process, with a real guest: one boot for all of it.

import assert from 'node:assert/strict';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
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

test('a confined machine of the API', { skip, timeout: 540_000 }, async (t) => {
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
  await t.test('forks into processes of their own, each with its own memory, and from a file', async () => {
    await vm.exec('echo before > /tmp/x');
    const snapshot = await vm.snapshot();
    t.after(() => snapshot.close());
    await vm.exec('echo after > /tmp/x');
    // Whoever has taken the machine's process over can still write to the file that it wrote the snapshot to.
    const later = openSync(`/proc/${pid}/fd/4`, 'r+');
    writeSync(later, Buffer.alloc(1 << 20, 0xff), 0, 1 << 20, 0);
    closeSync(later);
    const said = async (machine: Machine): Promise<string> => (await machine.exec('cat /tmp/x; head -c 7 /dev/vda')).stdout;
    const file = join(here, 'snapshot');
    await snapshot.save(file);
    const [fork, one, two] = [await vm.fork(), await Machine.restore(snapshot), await Machine.restore(file)];
    for (const machine of [fork, one, two]) t.after(() => machine.close());
    assert.equal(children().length, 4);
    let sealed = 0;
    for (const pid of children()) assert.match(readFileSync(`/proc/${pid}/status`, 'latin1'), /^Seccomp:\s2$/m);
    for (const other of children().filter((n) => n !== pid))
      for (const fd of readdirSync(`/proc/${other}/fd`).filter(
        (n) => readlinkSync(`/proc/${other}/fd/${n}`).includes('nonroot-snapshot') && n !== '4',
      )) {
        const memory = openSync(`/proc/${other}/fd/${fd}`, 'r+');
        assert.throws(() => writeSync(memory, 'x'), /EPERM/);
        closeSync(memory);
        sealed++;
      }
    assert.ok(sealed >= 2, `${sealed} processes go on from a sealed file`);
    await one.exec('echo one > /tmp/x');
    assert.deepEqual(
      await Promise.all([vm, fork, one, two].map(said)),
      ['after', 'after', 'one', 'before'].map((x) => `${x}\nnonroot`),
    );
    // Of a machine that has gone on from one.
    const again = await one.fork();
    t.after(() => again.close());
    assert.equal(await said(again), 'one\nnonroot');
    await assert.rejects(Promise.all([vm.exec('sleep 1'), vm.snapshot()]), /while a command of `exec` runs/);
    await Promise.all([fork, one, two, again].map((machine) => machine.close()));
    assert.equal(children().length, 1);
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
