// The daemon with our own emulator, and `nonroot`'s commands over it: what every host can run, without libvirt or QEMU.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createQcow2 } from '../../src/disk/qcow2/create.ts';
import { nodeDiskHost } from '../../src/host/node/file.ts';
import { remote } from '../../src/rpc/libvirt/programs.ts';
import { Client, GuestConsole, idleGuest, linuxFiles, linuxGuest, state, until, uuidOf } from './client.ts';
import { ourEmulator, type Result, TestDaemon } from './daemon-process.ts';

describe('a daemon with our emulator', { timeout: 600_000 }, () => {
  const daemon = new TestDaemon();
  let client: Client;
  before(async () => {
    await daemon.start();
    client = await Client.connect(daemon.uri);
  });
  after(async () => {
    client?.close();
    await daemon.close();
  });
  const nonroot = (...args: string[]): Promise<Result> =>
    new Promise((resolve) => {
      const program = new URL('../../bin/nonroot.ts', import.meta.url).pathname;
      const env = { ...process.env, NONROOT_URI: daemon.uri };
      execFile(process.execPath, [program, ...args], { timeout: 120_000, env }, (error, out, err) => {
        resolve({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : -1, out: `${out}${err}`.trim() });
      });
    });
  const works = async (...args: string[]): Promise<string> => {
    const { code, out } = await nonroot(...args);
    assert.equal(code, 0, `nonroot ${args.join(' ')}: ${out}\n${daemon.said}`);
    return out;
  };

  test('says why an emulator refuses a guest, and nothing else', async () => {
    const xml = idleGuest('large', uuidOf(90), '', ourEmulator).replace('>32<', '>32768<');
    await assert.rejects(
      client.start(await client.define(xml)),
      /process exited while connecting to monitor: nonroot-system-x86_64: Cannot give the guest 32768 MiB of memory: at most 16\d\d\d MiB are accepted with 1 vCPUs$/,
    );
    await works('remove', 'large');
  });
  test('leads a guest through its life by commands', async () => {
    const disk = join(daemon.directory, 'd.qcow2');
    const file = await nodeDiskHost().open(disk, { readOnly: false, create: true });
    await createQcow2(file, { size: 16 << 20 });
    await file.close();
    await works(
      'create',
      'one',
      '--memory',
      '64',
      '--machine',
      'pc',
      '--disk',
      disk,
      '--network',
      'none',
      '--emulator',
      ourEmulator,
    );
    assert.match(await works('list', '--all'), /- +one +shut off +1 +64 MiB/);
    await works('start', 'one');
    assert.equal((JSON.parse(await works('list', '--json')) as { state: string }[])[0]?.state, 'running');
    await works('pause', 'one');
    assert.match(await works('info', 'one'), /state +paused/);
    await works('resume', 'one');
    await works('snapshot', 'one', 'before');
    assert.equal(await works('snapshots', 'one'), 'before');
    await works('save', 'one');
    assert.match(await works('info', 'one'), /saved +true/);
    await works('start', 'one');
    assert.equal(await client.state('one'), state.running);
    await daemon.kill();
    client.close();
    await daemon.start();
    client = await Client.connect(daemon.uri);
    assert.equal(await client.state('one'), state.running, 'it outlives the daemon');
    await works('stop', '--force', 'one');
    await works('remove', 'one');
    assert.deepEqual(await client.names(), []);
    assert.deepEqual(daemon.emulators(), []);
  });

  test('says what is wrong in one line', async () => {
    assert.deepEqual(await nonroot('start', 'nosuch'), {
      code: 1,
      out: "nonroot: Domain not found: no domain with matching name 'nosuch'",
    });
    const { code, out } = await nonroot('start');
    assert.equal(code, 2);
    assert.match(out, /NAME is missing/);
  });

  test('boots Linux and shows its console', async (t) => {
    const files = await linuxFiles();
    if (typeof files === 'string') return t.skip(files);
    const dom = await client.define(linuxGuest('linux', uuidOf(1), files, '', ourEmulator));
    await client.start(dom);
    const console = await GuestConsole.open(client, dom);
    await console.expect(/nonroot:.*# /, 240_000);
    await console.send('echo one$((1+1))\n');
    await console.expect(/one2/);
    await console.send('poweroff -f\n');
    await until('the guest is off', async () => (await client.state('linux')) === state.shutoff);
  });

  test('single vCPUs come and go, and are the same after a restore', async () => {
    const { rpc } = client;
    const xml = idleGuest('many', uuidOf(3), '', ourEmulator).replace('<os>', "<vcpu current='1'>4</vcpu><os>");
    const dom = await client.define(xml);
    const set = (cpumap: string, state: number, flags: number) =>
      rpc.call(remote, 'domainSetVcpu', { dom, cpumap, state, flags });
    /** Of each vCPU: on by the command line (`c`), added (`a`) or off (`-`), and the order of those that are on. */
    const shown = async (flags = 0): Promise<string> => {
      const { xml: text } = await rpc.call(remote, 'domainGetXmlDesc', { dom, flags });
      return [...text.matchAll(/<vcpu id='\d' enabled='(\w+)' hotpluggable='(\w+)'(?: order='(\d)')?/g)]
        .map(([, on, added, order = '']) => (on === 'no' ? '-' : added === 'yes' ? 'a' : 'c') + order)
        .join(' ');
    };
    await set('2', 1, 2);
    assert.equal(await shown(2), 'c - a -');
    await assert.rejects(set('0', 0, 2), /vCPU '0' can't be modified/);
    await assert.rejects(set('7', 1, 2), /vcpu 7 is not present in persistent config/);
    await client.start(dom);
    assert.equal(await shown(), 'c1 - a2 -');
    await set('3', 1, 1);
    await set('1', 1, 1);
    assert.equal(await shown(), 'c1 a4 a2 a3');
    await assert.rejects(set('1', 1, 1), /vcpu '1' is already in requested state/);
    await assert.rejects(set('0', 0, 1), /vcpu '0' can't be unplugged/);
    await rpc.call(remote, 'domainManagedSave', { dom, flags: 0 });
    await client.start(dom);
    assert.equal(await client.state('many'), state.running);
    assert.equal(await shown(), 'c1 a4 a2 a3', 'after a restore');
    assert.equal(await shown(2), 'c - a -');
    await works('stop', '--force', 'many');
    await works('remove', 'many');
  });

  test('refuses what the emulator has not, by its name', async () => {
    const dom = await client.define(idleGuest('odd', uuidOf(2), "<sound model='ac97'/>", ourEmulator));
    await assert.rejects(client.start(dom), /AC97: not supported/);
    assert.equal(await client.state('odd'), state.shutoff);
  });
});
