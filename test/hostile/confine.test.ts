// What a confined emulator cannot do any more, tried in real processes: with system calls of its own, and through its monitor.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { keptByDefault, type Sandbox } from '../../src/cli/sandbox.ts';
import { openFile } from '../../src/host/node/file.ts';
import { programPath } from '../e2e/program.ts';
import { emulator, OURS } from '../emulator/process.ts';

const skip = process.platform !== 'linux' || process.arch !== 'x64' ? 'the attempts have numbers of Linux on x86-64' : false;
/** Landlock has a file in securityfs only where that is mounted; its version is asked for by the emulator. */
const noLandlock = /^landlock|[,"]landlock/m.test(readKernelList()) ? false : 'this kernel has no Landlock';
function readKernelList(): string {
  for (const path of ['/sys/kernel/security/lsm', '/proc/kallsyms']) {
    if (!existsSync(path)) continue;
    const text = readFileSync(path, 'utf8');
    if (path.endsWith('lsm')) return text;
    return text.includes('landlock_restrict_self') ? 'landlock' : '';
  }
  return '';
}

type Attempts = Readonly<Record<string, number>>;
async function attempts(kept: Sandbox): Promise<Readonly<Record<'main' | 'earlier' | 'later', Attempts>>> {
  const program = join(import.meta.dirname, 'confined.ts');
  const { stdout } = await promisify(execFile)(process.execPath, [program, JSON.stringify(kept)], { timeout: 30_000 });
  return JSON.parse(stdout) as Readonly<Record<'main' | 'earlier' | 'later', Attempts>>;
}

const EPERM = 1;
const ENOSYS = 38;
const EAFNOSUPPORT = 97;

test('no thread of a confined process forks, executes, changes who it is or reaches others', {
  skip,
  timeout: 60_000,
}, async () => {
  const found = await attempts({
    obsolete: false,
    elevatePrivileges: false,
    spawn: false,
    resourceControl: false,
    network: false,
    files: true,
  });
  for (const [thread, results] of Object.entries(found)) {
    const { getpid, kill_self, prlimit64, socket_unix, clone3, io_uring_setup, socket_packet, personality, ...refused } = results;
    assert.deepEqual(
      { getpid, kill_self, prlimit64, socket_unix },
      { getpid: 0, kill_self: 0, prlimit64: 0, socket_unix: 0 },
      thread,
    );
    assert.deepEqual(
      { clone3, io_uring_setup, personality },
      { clone3: ENOSYS, io_uring_setup: ENOSYS, personality: ENOSYS },
      thread,
    );
    assert.equal(socket_packet, EAFNOSUPPORT);
    for (const [name, errno] of Object.entries(refused)) assert.equal(errno, EPERM, `${name} on the thread ${thread}`);
  }
});

test('what is not denied still works', { skip, timeout: 60_000 }, async () => {
  const { main } = await attempts({ ...keptByDefault(), spawn: false });
  assert.equal(main['setpriority'], 0);
  assert.equal(main['socket_inet'], 0);
  assert.equal(main['fork'], EPERM);
});

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'nonroot-confine-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}
const bare = ['-M', 'none', '-display', 'none', '-nodefaults'];

test('under spawn=deny a monitor gets no command run', { skip, timeout: 60_000 }, async (t) => {
  const { qmp } = await emulator(t, OURS, ['-M', 'pc', '-S', '-display', 'none', '-nodefaults', '-sandbox', 'on,spawn=deny']);
  await qmp.execute('cont');
  const there = join(folder(t), 'there');
  await assert.rejects(qmp.execute('migrate', { uri: `exec:touch ${there}` }), /spawn=deny/);
  assert.ok(!existsSync(there));
});

test('under files=deny the files of the command line are reached, and no others', {
  skip: skip || noLandlock,
  timeout: 60_000,
}, async (t) => {
  const [here, elsewhere] = [folder(t), folder(t)];
  const [given, backing, other, log] = [
    join(here, 'given.raw'),
    join(here, 'backing.raw'),
    join(here, 'other.raw'),
    join(here, 'log'),
  ];
  for (const path of [given, backing, other, join(elsewhere, 'x')]) writeFileSync(path, Buffer.alloc(65536));
  const { qmp } = await emulator(t, OURS, [
    ...bare,
    ...['-blockdev', `driver=file,filename=${given},node-name=given`],
    ...['-chardev', `file,id=c,path=${log}`, '-chardev', `socket,id=s,path=${join(elsewhere, 's')},server=on,wait=off`],
    ...['-sandbox', 'on,spawn=deny,files=deny'],
  ]);
  assert.ok(existsSync(join(elsewhere, 's')));
  const add = (filename: string, node: string): Promise<unknown> =>
    qmp.execute('blockdev-add', { driver: 'file', filename, 'node-name': node, 'read-only': true });
  await add(given, 'again');
  for (const path of [backing, other, join(elsewhere, 'x'), '/etc/passwd', `${here}/../../etc/passwd`])
    await assert.rejects(add(path, 'no'), /permission denied/, path);
  // Neither new files, nor sockets where none was named.
  await assert.rejects(qmp.execute('chardev-add', { id: 'n', backend: { type: 'file', data: { out: join(here, 'new') } } }));
  await assert.rejects(
    qmp.execute('chardev-add', {
      id: 'm',
      backend: { type: 'socket', data: { addr: { type: 'unix', data: { path: join(here, 'new') } }, server: true, wait: false } },
    }),
  );
  assert.ok(!existsSync(join(here, 'new')));
  assert.equal(((await qmp.execute('query-named-block-nodes')) as unknown[]).length, 2);
});

test('a disk of the command line is out of reach once it is detached, and so is what is below it', {
  skip: skip || noLandlock,
  timeout: 120_000,
}, async (t) => {
  const here = folder(t);
  const [raw, base, disk, shared] = ['raw.raw', 'base.raw', 'disk.qcow2', 'shared.qcow2'].map((name) => join(here, name));
  for (const path of [raw, base]) writeFileSync(path!, Buffer.alloc(65536));
  for (const path of [disk, shared])
    await promisify(execFile)(programPath('nonroot'), ['img', 'create', '-f', 'qcow2', '-F', 'raw', '-b', base!, path!]);
  const { qmp, child } = await emulator(t, OURS, [
    ...bare,
    ...['-blockdev', `driver=file,filename=${raw},node-name=protocol`],
    ...['-blockdev', 'driver=raw,file=protocol,node-name=raw'],
    ...['-blockdev', `driver=qcow2,node-name=disk,file.driver=file,file.filename=${disk}`],
    ...['-blockdev', `driver=qcow2,node-name=shared,read-only=on,file.driver=file,file.filename=${shared}`],
    ...['-sandbox', 'on,spawn=deny,files=deny'],
  ]);
  const held = (path: string): number =>
    readdirSync(`/proc/${child.pid}/fd`).filter((fd) => {
      try {
        return readlinkSync(`/proc/${child.pid}/fd/${fd}`) === path;
      } catch {
        return false;
      }
    }).length;
  const add = (filename: string): Promise<unknown> =>
    qmp.execute('blockdev-add', { driver: 'file', filename, 'node-name': 'again', 'read-only': true });
  const gone = async (path: string): Promise<void> => {
    assert.equal(held(path), 0, path);
    await assert.rejects(add(path), /permission denied/, path);
  };
  // As long as a node of a file is there, it may be opened once more.
  await add(raw!);
  for (const name of ['again', 'raw']) await qmp.execute('blockdev-del', { 'node-name': name });
  assert.ok(held(raw!) > 0);
  await qmp.execute('blockdev-del', { 'node-name': 'protocol' });
  await gone(raw!);
  await qmp.execute('blockdev-del', { 'node-name': 'disk' });
  await gone(disk!);
  assert.ok(held(base!) > 0, 'the other disk is over it');
  await qmp.execute('blockdev-del', { 'node-name': 'shared' });
  await gone(shared!);
  await gone(base!);
});

test('a file that a monitor brings as a descriptor is reached, for what it was opened, and no other', {
  skip: skip || noLandlock,
  timeout: 120_000,
}, async (t) => {
  const here = folder(t);
  const [image, other] = [join(here, 'image.raw'), join(here, 'other.raw')];
  for (const path of [image, other]) writeFileSync(path, Buffer.alloc(65536));
  const { qmp, child } = await emulator(t, OURS, [...bare, '-sandbox', 'on,spawn=deny,files=deny']);
  const held = (): number => {
    const descriptors = `/proc/${child.pid}/fd`;
    const linked = (fd: string): string => {
      try {
        return readlinkSync(join(descriptors, fd));
      } catch {
        return '';
      }
    };
    return readdirSync(descriptors).filter((fd) => linked(fd) === image).length;
  };
  const add = (filename: string, node: string, readOnly: boolean): Promise<unknown> =>
    qmp.execute('blockdev-add', { driver: 'file', filename, 'node-name': node, 'read-only': readOnly });
  const admit = async (path: string, write: boolean): Promise<void> => {
    const fd = openSync(path, write ? 'r+' : 'r');
    try {
      await qmp.execute('nonroot-admit-file', { path, write }, { fd });
    } finally {
      closeSync(fd);
    }
  };
  await assert.rejects(add(image, 'a', true), /permission denied/);
  await assert.rejects(qmp.execute('nonroot-admit-file', { path: '/etc/passwd' }), /No file descriptor supplied/);
  for (let n = 0; n < 3; n++) {
    await admit(image, false);
    await add(image, 'a', true);
    await assert.rejects(add(image, 'b', false), /permission denied/, 'for reading only');
    await add(image, 'b', true);
    await qmp.execute('blockdev-del', { 'node-name': 'a' });
    assert.equal(held(), 1, 'while a node of it is left');
    await qmp.execute('blockdev-del', { 'node-name': 'b' });
    assert.equal(held(), 0, 'with its last node it is gone');
    await assert.rejects(add(image, 'a', true), /permission denied/);
  }
  await admit(image, true);
  await add(image, 'w', false);
  await assert.rejects(add(image, 'v', false), /uses it/, 'one writer');
  await assert.rejects(openFile(image, { readOnly: false }), /another process uses it/);
  await qmp.execute('blockdev-del', { 'node-name': 'w' });
  await (await openFile(image, { readOnly: false })).close();
  for (const path of [other, '/etc/passwd', '/etc/shadow', `${image}/../other.raw`, '/proc/self/fd/../../1/environ'])
    await assert.rejects(add(path, 'x', true), /permission denied|no such file|not a directory/, path);
  // What else opens files by name.
  for (const [command, args] of [
    ['pmemsave', { val: 0, size: 4096, filename: join(here, 'memory') }],
    ['screendump', { filename: join(here, 'screen') }],
    ['dump-guest-memory', { paging: false, protocol: `file:${join(here, 'core')}` }],
    ['object-add', { 'qom-type': 'secret', id: 's', file: '/etc/shadow' }],
    ['chardev-add', { id: 'p', backend: { type: 'file', data: { out: '/dev/null', in: '/etc/passwd' } } }],
    ['migrate', { uri: `file:${join(here, 'state')}` }],
    ['human-monitor-command', { 'command-line': `drive_add 0 if=none,file=/etc/passwd,id=h` }],
  ] as const)
    await qmp.execute(command, args as never).catch(() => {});
  const nodes = (await qmp.execute('query-named-block-nodes')) as readonly { file: string }[];
  assert.deepEqual(
    nodes.filter((node) => node.file.startsWith('/etc')),
    [],
  );
  assert.deepEqual(readdirSync(here).sort(), ['image.raw', 'other.raw']);
});

test('a mark of confinement that does not hold is refused', { skip, timeout: 60_000 }, async () => {
  const run = promisify(execFile)(OURS, [...bare, '-sandbox', 'on,files=deny'], {
    env: { ...process.env, NONROOT_CONFINED: 'files' },
    timeout: 30_000,
  });
  await assert.rejects(run, (e: { stderr: string }) => {
    assert.match(e.stderr, /^nonroot-system-x86_64: Cannot confine the process \(files\): .* is not confined\n$/);
    return true;
  });
});

/** Tried when the process ends, by a module that Node loads first. */
const TRIES = `
import { readFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { isMainThread } from 'node:worker_threads';
const tries = { passwd: () => readFileSync('/etc/passwd'), given: () => readFileSync(process.env.GIVEN), run: () => { const { error } = spawnSync('/bin/true'); if (error) throw error; } };
if (isMainThread) process.on('exit', () => {
  for (const [name, f] of Object.entries(tries)) { let how = 'done'; try { f(); } catch (e) { how = e.code; } console.error(name, how); }
});`;

test('`nonroot run --confine` reaches its disk, with what is below it, and its folder, and nothing else', {
  skip: skip || noLandlock,
  timeout: 300_000,
}, async (t) => {
  const here = folder(t);
  const [shared, outside, hook] = [join(here, 'shared'), join(here, 'outside'), join(here, 'shared', 'tries.mjs')];
  for (const path of [shared, outside]) mkdirSync(path);
  writeFileSync(hook, TRIES);
  writeFileSync(join(shared, 'hello'), 'from the host\n');
  writeFileSync(join(outside, 'base.raw'), Buffer.from('base of the disk'.padEnd(65536)));
  const disk = join(outside, 'disk.qcow2');
  const nonroot = programPath('nonroot');
  await promisify(execFile)(nonroot, ['img', 'create', '-f', 'qcow2', '-F', 'raw', '-b', join(outside, 'base.raw'), disk]);
  const script = 'head -c 16 /dev/vda; echo; cat /mnt/shared/hello; echo kept | dd of=/dev/vda conv=fsync 2>/dev/null';
  const args = ['run', '--confine', '--disk', disk, '--share', `${shared}:ro`, '--exec', script];
  for (const confined of [true, false]) {
    const env = { ...process.env, NODE_OPTIONS: `--import file://${hook}`, GIVEN: disk };
    const child = promisify(execFile)(nonroot, confined ? args : args.filter((a) => a !== '--confine'), {
      env,
      timeout: 120_000,
    });
    child.child.stdin?.end();
    const { stdout, stderr } = await child;
    assert.equal(stdout, `${confined ? 'base of the disk' : 'kept\nof the disk'}\nfrom the host\n`);
    assert.deepEqual(
      stderr.trim().split('\n'),
      confined ? ['passwd EACCES', 'given done', 'run EPERM'] : ['passwd done', 'given done', 'run done'],
    );
  }
});
