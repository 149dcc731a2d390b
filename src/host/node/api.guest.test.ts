// The TypeScript API with a real guest: one boot for all of it.

import assert from 'node:assert/strict';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Machine } from './api.ts';
import { openImage } from './fetch-image.ts';

const skip = await openImage('debian-cloud').then(
  () => false,
  (error: unknown) => (error as Error).message,
);
const SECONDS = 240;
const machines: Machine[] = [];
const kept = (m: Machine): Machine => {
  machines.push(m);
  return m;
};
after(async () => {
  for (const m of machines) await m.close();
});

test('a machine of the API', { skip, timeout: SECONDS * 1000 }, async (t) => {
  const vm = kept(await Machine.create({ memory: 256 }));
  const shown = (): string => `\nconsole:\n${vm.console.text}`;
  await Promise.race([vm.ready, vm.ended.then((end) => assert.fail(`the machine ended: ${JSON.stringify(end)}${shown()}`))]);

  await t.test('runs scripts one after another, and tells their output and exit codes', async () => {
    const [one, two] = await Promise.all([
      vm.exec('echo out; echo err >&2; exit 3'),
      vm.exec('cat /proc/uptime | wc -w; echo "a b"'),
    ]);
    assert.deepEqual(one, { code: 3, stdout: 'out\n', stderr: 'err\n' });
    assert.deepEqual(two, { code: 0, stdout: '2\na b\n', stderr: '' });
    const long = await vm.exec('i=0; while [ $i -lt 3000 ]; do echo "line $i of many"; i=$((i+1)); done');
    assert.equal(long.stdout.split('\n').length, 3001);
    assert.ok(long.stdout.endsWith('line 2999 of many\n'));
  });

  await t.test('ends a script that takes too long, and takes the next one', async () => {
    await assert.rejects(vm.exec('sleep 100', { timeout: 300 }), /within 300 ms/);
    assert.equal((await vm.exec('echo still here')).stdout, 'still here\n');
  });

  await t.test('gives its console as text and as bytes', async () => {
    vm.console.write('echo con""sole\r');
    assert.match(await vm.console.until(/console\r\n/), /console\r\n$/);
  });

  await t.test('holds still while it is paused', async () => {
    const before = Number((await vm.exec('cut -d" " -f1 /proc/uptime')).stdout);
    await vm.pause();
    assert.equal(vm.status, 'paused');
    await new Promise((resolve) => setTimeout(resolve, 1500));
    vm.resume();
    const now = Number((await vm.exec('cut -d" " -f1 /proc/uptime')).stdout);
    assert.ok(now >= before, `time went back from ${before} to ${now}`);
  });

  await vm.exec('echo base > /tmp/who; head -c 3000000 /dev/urandom > /tmp/data; sha256sum /tmp/data > /tmp/sum');
  const check = 'sha256sum -c /tmp/sum >/dev/null && cat /tmp/who';
  await t.test('forks: both go on from the same moment, and neither sees what the other does', async () => {
    const fork = kept(await vm.fork());
    assert.equal((await fork.exec(`${check}; echo fork > /tmp/who`)).stdout, 'base\n');
    assert.equal((await vm.exec(check)).stdout, 'base\n');
    assert.equal((await fork.exec(check)).stdout, 'fork\n');
    await fork.close();
  });

  await t.test('is restored any number of times from a snapshot, in memory and from a file', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'nonroot-api-'));
    try {
      const snapshot = await vm.snapshot();
      const path = join(folder, 'snapshot');
      await snapshot.save(path);
      await vm.exec('echo later > /tmp/who');
      for (const from of [snapshot, path]) {
        const again = kept(await Machine.restore(from));
        // One from a file is forked as well: its memory is the file's, with what it has written since.
        const both = from === snapshot ? [again] : [again, kept(await again.fork())];
        for (const one of both) assert.equal((await one.exec(`${check}; echo changed > /tmp/who`)).stdout, 'base\n');
        for (const one of both) await one.close();
      }
      snapshot.close();
      const { blocks, size } = await stat(path);
      assert.ok(blocks * 512 < size, 'pages of zeros take no room');
      await assert.rejects(Machine.restore('/etc/hostname'), /no snapshot/);
    } finally {
      await rm(folder, { recursive: true });
    }
    assert.equal((await vm.exec('cat /tmp/who')).stdout, 'later\n');
  });

  await t.test('tells of its end', async () => {
    const ended = new Promise((resolve) => vm.on('exit', resolve));
    await assert.rejects(vm.exec('poweroff -f; sleep 10'), /has ended/);
    assert.deepEqual(await ended, { kind: 'powerOff' });
    await assert.rejects(vm.exec('true'), /has ended/);
  });
});

test('options that cannot be used are refused with one line', async () => {
  await assert.rejects(Machine.create({ memory: 'much' }), /Cannot use memory size "much"/);
  await assert.rejects(Machine.create({ disks: ['/nonexistent/disk'] }), /\/nonexistent\/disk/);
  await assert.rejects(Machine.create({ kernel: '/nonexistent/kernel' }), /nonexistent/);
});
