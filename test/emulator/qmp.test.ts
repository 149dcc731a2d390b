// QMP of the emulator's process: the course of a machine, the probe of management programs, hostile input; and the same questions put to
// real QEMU, whose answers have the same members of the same types.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { isObject, type Json } from '../../src/rpc/qmp/json.ts';
import { multiboot } from '../e2e/program.ts';
import { emulator, noQemu, OURS, QEMU, type Running } from './process.ts';

const folder = mkdtempSync(join(tmpdir(), 'nonroot-emulator-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));
const kernel = join(folder, 'kernel');
/** jmp $ */
writeFileSync(kernel, multiboot([0xeb, 0xfe]));
/** Arguments of a machine with a disk of its own: both take the image's locks. */
let disks = 0;
const machine = (): string[] => {
  const disk = join(folder, `disk${disks++}.raw`);
  writeFileSync(disk, new Uint8Array(1 << 20));
  return [
    ...[
      '-nodefaults',
      '-display',
      'none',
      '-S',
      '-m',
      '32',
      '-smp',
      '2',
      '-name',
      'guest=g',
      '-uuid',
      'c7a5fdbd-0000-4a8e-9b1e-000000000017',
    ],
    ...['-machine', 'pc', '-accel', 'tcg', '-kernel', kernel],
    ...['-chardev', 'null,id=c0', '-device', 'isa-serial,chardev=c0,id=s0'],
    ...['-blockdev', `{"driver":"file","filename":"${disk}","node-name":"file0"}`],
    ...['-blockdev', '{"driver":"raw","file":"file0","node-name":"raw0"}'],
    ...['-device', '{"driver":"virtio-blk-pci","drive":"raw0","id":"disk0"}'],
    ...['-netdev', 'user,id=n0', '-device', 'virtio-net-pci,netdev=n0,id=net0'],
    ...['-object', 'iothread,id=io0'],
  ];
};

test('a machine runs, stops, is reset and ends as monitors say, and tells them of it', { timeout: 60_000 }, async (t) => {
  const e = await emulator(t, OURS, machine());
  assert.deepEqual(await e.qmp.execute('query-status'), { running: false, singlestep: false, status: 'prelaunch' });
  await e.qmp.execute('cont');
  await e.event('RESUME');
  await e.qmp.execute('stop');
  await e.event('STOP');
  assert.deepEqual(await e.qmp.execute('query-status'), { running: false, singlestep: false, status: 'paused' });
  await e.qmp.execute('cont');
  await assert.rejects(e.qmp.execute('system_wakeup'), /guest is not in suspended state/);
  await e.qmp.execute('system_reset');
  await e.event('RESET');
  const threads = (await e.qmp.execute('query-cpus-fast')) as { 'thread-id': number }[];
  for (const { 'thread-id': id } of threads) assert.ok(existsSync(`/proc/${e.child.pid}/task/${id}`), `thread ${id}`);
  await e.qmp.execute('quit');
  await e.event('SHUTDOWN');
  assert.deepEqual(e.events.at(-1)?.data, { guest: false, reason: 'host-qmp-quit' });
  assert.equal(await e.exited, 0);
});

test('a guest that says that it has crashed is paused, or its machine ends, as -action says', { timeout: 90_000 }, async (t) => {
  const crashing = join(folder, 'crashing');
  // mov dx,0x505; mov al,1; out dx,al; jmp $
  writeFileSync(crashing, multiboot([0x66, 0xba, 0x05, 0x05, 0xb0, 0x01, 0xee, 0xeb, 0xfe]));
  const args = ['-nodefaults', '-display', 'none', '-S', '-m', '32', '-kernel', crashing, '-device', 'pvpanic'];
  const start = async (program: string, action: string): Promise<Running> => {
    const e = await emulator(t, program, [...args, '-action', `panic=${action}`]);
    await e.qmp.execute('cont');
    await e.event('GUEST_PANICKED');
    return e;
  };
  for (const program of noQemu ? [OURS] : [OURS, QEMU]) {
    const e = await start(program, 'pause');
    await e.event('STOP');
    const told = e.events.filter(({ event }) => event === 'GUEST_PANICKED').map(({ data }) => data);
    assert.deepEqual(told, [{ action: 'pause' }]);
    assert.deepEqual(await e.qmp.execute('query-status'), { running: false, singlestep: false, status: 'guest-panicked' });
    await e.qmp.execute('quit');
    const ended = await start(program, 'exit-failure');
    await ended.event('SHUTDOWN');
    assert.deepEqual(ended.events.at(-1)?.data, { guest: true, reason: 'guest-panic' });
    assert.equal(await ended.exited, 1);
  }
});

test('SIGTERM ends it with a word to its monitors', { timeout: 60_000 }, async (t) => {
  const e = await emulator(t, OURS, machine());
  e.child.kill('SIGTERM');
  await e.event('SHUTDOWN');
  assert.deepEqual(e.events.at(-1)?.data, { guest: false, reason: 'host-signal' });
  assert.equal(await e.exited, 0);
});

test('a background start returns when its pid file is written and its socket listens', { timeout: 60_000 }, () => {
  const pidfile = join(folder, 'pid');
  const socket = join(folder, 'probe');
  const args = [
    '-S',
    '-no-user-config',
    '-nodefaults',
    '-nographic',
    '-machine',
    'none,accel=kvm:tcg',
    '-pidfile',
    pidfile,
    '-daemonize',
  ];
  const r = spawnSync(OURS, [...args, '-qmp', `unix:${socket},server=on,wait=off`], { encoding: 'utf8', timeout: 30_000 });
  assert.equal(r.status, 0, r.stderr);
  const pid = Number(readFileSync(pidfile, 'utf8'));
  assert.ok(existsSync(socket));
  process.kill(pid, 'SIGTERM');
  const bad = spawnSync(OURS, [...args, '-device', 'nothing'], { encoding: 'utf8', timeout: 30_000 });
  assert.equal(bad.status, 1);
  assert.match(bad.stderr, /-device nothing: not supported/);
});

test('memory is written to files, without what system management mode hides', { timeout: 120_000 }, async (t) => {
  const e = await emulator(t, OURS, ['-S', '-machine', 'pc,smm=on', '-m', '16', '-display', 'none', '-nodefaults']);
  const [core, low] = [join(folder, 'core'), join(folder, 'low')];
  await e.qmp.execute('dump-guest-memory', { paging: false, protocol: `file:${core}` });
  assert.equal(((await e.qmp.execute('query-dump')) as { status: string }).status, 'completed');
  const bytes = readFileSync(core);
  assert.equal(bytes.toString('latin1', 1, 4), 'ELF');
  assert.ok(bytes.length >= 16 << 20, `${bytes.length} bytes`);
  await e.qmp.execute('pmemsave', { val: 0, size: 1 << 20, filename: low });
  assert.equal(readFileSync(low).length, 1 << 20);
  await assert.rejects(e.qmp.execute('pmemsave', { val: 15 << 20, size: 2 << 20, filename: low }), /Invalid addr/);
  await e.qmp.execute('calc-dirty-rate', { 'calc-time': 1, 'sample-pages': 16_384 });
  e.child.kill();
});

/** What both must answer alike, with arguments. */
const questions: readonly (readonly [string, object?])[] = [
  ['query-status'],
  ['query-name'],
  ['query-uuid'],
  ['query-target'],
  ['query-kvm'],
  ['query-version'],
  ['query-chardev'],
  ['query-cpus-fast'],
  ['query-hotpluggable-cpus'],
  ['query-iothreads'],
  ['query-memory-size-summary'],
  ['query-memory-devices'],
  ['query-memdev'],
  ['query-named-block-nodes', { flat: true }],
  ['query-block'],
  ['query-blockstats'],
  ['query-jobs'],
  ['query-block-jobs'],
  ['query-dirty-rate'],
  ['query-stats-schemas'],
  ['query-dump'],
  ['query-fdsets'],
  ['query-migrate'],
  ['query-migrate-capabilities'],
  ['query-machines'],
  ['query-cpu-definitions'],
  ['query-current-machine'],
  ['query-pci'],
  ['qom-list', { path: '/machine/peripheral' }],
  ['qom-list-types', { implements: 'machine', abstract: true }],
  ['device-list-properties', { typename: 'virtio-blk-pci' }],
  ['query-command-line-options', { option: 'msg' }],
  ['human-monitor-command', { 'command-line': 'info status' }],
];

/** Members with the types of their values; of lists, those of all their elements. `?`: not in all of them. */
function shape(value: Json): Json {
  if (Array.isArray(value)) return value.length === 0 ? [] : [value.map(shape).reduce(merge)];
  if (isObject(value)) return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, shape(v)]));
  return value === null ? 'null' : typeof value === 'bigint' ? 'number' : typeof value;
}
function merge(a: Json, b: Json): Json {
  if (Array.isArray(a) && Array.isArray(b)) return a.length === 0 ? b : b.length === 0 ? a : [merge(a[0]!, b[0]!)];
  if (!isObject(a) || !isObject(b)) return a;
  return Object.fromEntries(
    [...new Set([...Object.keys(a), ...Object.keys(b)])].map((k) => [k, k in a ? (k in b ? merge(a[k]!, b[k]!) : a[k]!) : b[k]!]),
  );
}
/** Members that only one of them has where the same may be there or not, by what is asked. */
const optional: Readonly<Record<string, readonly string[]>> = {
  'query-pci': [
    'devices.regions.mem_type_64',
    'devices.regions.prefetch',
    'devices.pci_bridge',
    'devices.class_info.desc',
    'devices.irq',
  ],
  'query-machines': ['alias', 'is-default', 'default-cpu-type', 'default-ram-id'],
  'query-cpu-definitions': ['alias-of'],
  'query-memdev': ['reserve'],
  'device-list-properties': ['description', 'default-value'],
  'query-command-line-options': ['parameters.help'],
  'query-named-block-nodes': ['active'],
};
function differences(ours: Json, theirs: Json, at = ''): string[] {
  if (Array.isArray(ours) && Array.isArray(theirs))
    return ours.length && theirs.length ? differences(ours[0]!, theirs[0]!, at) : [];
  if (isObject(ours) && isObject(theirs)) {
    return [...new Set([...Object.keys(ours), ...Object.keys(theirs)])].flatMap((k) => {
      const path = at === '' ? k : `${at}.${k}`;
      if (!(k in ours)) return [`-${path}`];
      if (!(k in theirs)) return [`+${path}`];
      return differences(ours[k]!, theirs[k]!, path);
    });
  }
  return JSON.stringify(ours) === JSON.stringify(theirs) || at.endsWith('default-value')
    ? []
    : [`${at}: ${JSON.stringify(ours)} for ${JSON.stringify(theirs)}`];
}

test('how fast a guest changes its memory is measured by samples and by counting', { timeout: 60_000 }, async (t) => {
  // Adds 1 to a word of each page from 16 to 32 MiB, round and round: half of the memory is always dirty.
  const busy = join(folder, 'busy');
  const loop = [0xbf, 0, 0, 0, 1, 0xff, 7, 0x81, 0xc7, 0, 0x10, 0, 0, 0x81, 0xff, 0, 0, 0, 2, 0x72, 0xf0, 0xeb, 0xe9];
  writeFileSync(busy, multiboot(loop));
  const measure = async (e: Running, args: Record<string, Json>): Promise<number> => {
    await e.qmp.execute('calc-dirty-rate', { 'calc-time': 1, ...args });
    await assert.rejects(e.qmp.execute('calc-dirty-rate', { 'calc-time': 1 }), /already being measured/);
    for (;;) {
      const info = await e.qmp.execute('query-dirty-rate');
      assert.ok(isObject(info));
      if (info['status'] === 'measured') return Number(info['dirty-rate']);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  const args = ['-nodefaults', '-display', 'none', '-m', '32', '-machine', 'pc', '-accel', 'tcg', '-kernel', busy];
  const e = await emulator(t, OURS, args);
  // Let it get to its loop.
  await new Promise((resolve) => setTimeout(resolve, 500));
  const counted = await measure(e, { mode: 'dirty-bitmap' });
  assert.ok(counted >= 14 && counted <= 17, `${counted} MiB a second by counting: 16 in a little more than one`);
  const sampled = await measure(e, { 'sample-pages': 16384 });
  assert.ok(sampled >= 9 && sampled <= 23, `${sampled} MiB a second by samples: half of 32`);
  await e.qmp.execute('stop');
  assert.equal(await measure(e, { mode: 'dirty-bitmap' }), 0);
  const mistakes: readonly (readonly [Record<string, Json>, RegExp])[] = [
    [{ 'calc-time': 61 }, /calc-time is out of range\[1, 60\]\./],
    [{ 'calc-time': 1, 'sample-pages': 1 }, /sample-pages is out of range\[128, 16384\]\./],
    [{ 'calc-time': 1, mode: 'dirty-ring' }, /dirty-ring/],
  ];
  for (const [wrong, text] of mistakes) await assert.rejects(e.qmp.execute('calc-dirty-rate', wrong), text);
});

test('answers have the members and types of real QEMU’s', { skip: noQemu, timeout: 120_000 }, async (t) => {
  const [ours, theirs] = await Promise.all([emulator(t, OURS, machine()), emulator(t, QEMU, machine())]);
  for (const [command, args] of questions) {
    const ask = (e: typeof ours): Promise<Json> => e.qmp.execute(command, args as { readonly [name: string]: Json });
    const [a, b] = await Promise.all([ask(ours), ask(theirs)]);
    const may = optional[command] ?? [];
    const found = differences(shape(a), shape(b)).filter((d) => !may.includes(d.slice(1)));
    assert.deepEqual(
      found,
      [],
      `${command}: members that QEMU has (-) or has not (+)\n${JSON.stringify(a)}\n${JSON.stringify(b)}`,
    );
  }
});

test('mistakes are answered with QEMU’s classes and words', { skip: noQemu, timeout: 120_000 }, async (t) => {
  const [ours, theirs] = await Promise.all([emulator(t, OURS, machine()), emulator(t, QEMU, machine())]);
  const mistakes: readonly (readonly [string, object?])[] = [
    ['nonsense'],
    ['device_del', { id: 'x' }],
    ['netdev_del', { id: 'x' }],
    ['object-del', { id: 'x' }],
    ['set_link', { name: 'x', up: true }],
    ['blockdev-del', { 'node-name': 'x' }],
    ['qom-get', { path: '/nothing', property: 'x' }],
    ['qom-list', { path: '/nothing' }],
    ['job-cancel', { id: 'x' }],
    ['block-job-cancel', { device: 'x' }],
    ['getfd', { fdname: 'x' }],
    ['closefd', { fdname: 'x' }],
    ['balloon', { value: 1 }],
    ['device-list-properties', { typename: 'nothing' }],
    ['chardev-remove', { id: 'x' }],
    ['object-add', { 'qom-type': 'nothing', id: 'x' }],
    ['block-set-write-threshold', { 'node-name': 'x', 'write-threshold': 1 }],
    ['calc-dirty-rate', { 'calc-time': 61 }],
    ['calc-dirty-rate', { 'calc-time': 1, 'sample-pages': 1 }],
    [
      'block_set_io_throttle',
      {
        id: '/machine/peripheral/disk0/virtio-backend',
        bps: 0,
        bps_rd: 0,
        bps_wr: 0,
        iops: 100,
        iops_rd: 0,
        iops_wr: 0,
        iops_max: 50,
      },
    ],
    [
      'block_set_io_throttle',
      { id: '/machine/peripheral/disk0/virtio-backend', bps: 1, bps_rd: 1, bps_wr: 0, iops: 0, iops_rd: 0, iops_wr: 0 },
    ],
    [
      'block_set_io_throttle',
      {
        id: '/machine/peripheral/disk0/virtio-backend',
        bps: 0,
        bps_rd: 0,
        bps_wr: 0,
        iops: 0,
        iops_rd: 0,
        iops_wr: 0,
        iops_size: 512,
      },
    ],
    [
      'block_set_io_throttle',
      { id: '/machine/peripheral/disk0/virtio-backend', bps: -1, bps_rd: 0, bps_wr: 0, iops: 0, iops_rd: 0, iops_wr: 0 },
    ],
    [
      'block_set_io_throttle',
      {
        id: '/machine/peripheral/disk0/virtio-backend',
        bps: 9,
        bps_rd: 0,
        bps_wr: 0,
        iops: 0,
        iops_rd: 0,
        iops_wr: 0,
        bps_max_length: 2,
      },
    ],
  ];
  for (const [command, args] of mistakes) {
    const ask = (e: typeof ours) =>
      e.qmp.execute(command, args as { readonly [name: string]: Json }).then(
        () => 'accepted',
        (error: { class: string; message: string }) => `${error.class}: ${error.message}`,
      );
    const [a, b] = await Promise.all([ask(ours), ask(theirs)]);
    assert.equal(a, b, command);
  }
});

test('whatever comes to a monitor, the next one is served', { timeout: 120_000 }, async (t) => {
  const path = join(folder, 'fuzz');
  const e = await emulator(t, OURS, [
    ...machine(),
    '-chardev',
    `socket,id=m,path=${path},server=on,wait=off`,
    '-mon',
    'm,mode=control',
  ]);
  const seed = Number(process.env['SEED'] ?? 7);
  let state = seed;
  const next = (n: number): number => Math.floor(((state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0) / 2 ** 32) * n);
  const known = ((await e.qmp.execute('query-commands')) as { name: string }[])
    .map((c) => c.name)
    .filter((n) => !/quit|migrate|save|dump|screendump|add-fd/.test(n));
  const values = ['x', '', 0, -1, 1e18, 1.5, true, null, [], {}, { type: 'x' }, ['a'], 'raw0', '/machine'];
  const members = [
    'id',
    'device',
    'node-name',
    'path',
    'property',
    'driver',
    'type',
    'data',
    'actions',
    'options',
    'job-id',
    'command-line',
    'keys',
    'value',
    'name',
    'size',
  ];
  for (let round = 0; round < 20; round++) {
    const lines = Array.from({ length: 20 }, () => {
      const args = Object.fromEntries(
        Array.from({ length: next(4) }, () => [members[next(members.length)]!, values[next(values.length)]]),
      );
      const line = JSON.stringify({ execute: known[next(known.length)], arguments: args, id: next(5) });
      const cut = next(6) === 0 ? line.slice(0, next(line.length)) : line;
      return next(8) === 0 ? `${cut}\xff` : cut;
    });
    await new Promise<void>((resolve) => {
      const s = connect(path, () => {
        s.write('{"execute":"qmp_capabilities"}\n');
        for (const line of lines) s.write(Buffer.from(`${line}\n`, 'latin1'));
        setTimeout(() => s.destroy(), 60);
      });
      s.on('data', () => {});
      s.on('error', () => {});
      s.on('close', () => resolve());
    });
    assert.equal(e.child.exitCode, null, `seed ${seed}, round ${round}: it has ended\n${lines.join('\n')}\n${e.text()}`);
  }
  assert.ok(isObject(await e.qmp.execute('query-status')), `seed ${seed}`);
});

test('memory and values are shown as QEMU shows them', { timeout: 90_000, skip: noQemu }, async (t) => {
  const looks = [
    ...['/4xw', '/16xb', '/3xg', '/5dh', '/20ob', '/9uw', '/9dg', '/3oh', '', '/x', '/w', '/4cw', '/2c'].map(
      (f) => `xp ${f} 0x100000`,
    ),
    ...['x /9xw 0x100004', 'xp /2xw 0x90000000', 'xp /1xg 0xfffffffffffffff8', 'xp /2z 0'],
    ...['16', '010', '/d -1', '-1', '/u -1', '/o 8', '/o 0', '/c 65', '/c 10', '/x 0', '1+2*3', '8 - 2 & 3', '7%4', "'a'"].map(
      (v) => `p ${v}`,
    ),
    ...['x /12i 0x100020', 'xp/3i 0x100020', 'x/2i 0x90000000', 'info mem', 'info tlb', 'p /i 1'],
    ...['p 1/0', 'p $nothing', 'p 09', 'p 5 +'],
  ];
  const answers: string[][] = [];
  for (const which of [QEMU, OURS]) {
    const e = await emulator(t, which, machine());
    const hmp = async (line: string): Promise<string> =>
      String(await e.qmp.execute('human-monitor-command', { 'command-line': line })).trimEnd();
    await e.qmp.execute('cont');
    while (!/0x0*1badb002|0x[1-9a-f]/.test(await hmp('xp /4xw 0x100000'))) await new Promise((r) => setTimeout(r, 100));
    await e.qmp.execute('stop');
    answers.push([]);
    for (const line of looks) answers.at(-1)!.push(`${line}\n${await hmp(line)}`);
    await e.qmp.execute('quit');
  }
  assert.deepEqual(answers[1], answers[0]);
});
