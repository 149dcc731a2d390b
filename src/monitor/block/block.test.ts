// The block graph and its jobs over real files, with a guest that goes on writing; qemu-img looks at the results where it is installed.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createQcow2 } from '../../disk/qcow2/create.ts';
import { Qcow2Image } from '../../disk/qcow2/image.ts';
import { nodeDiskHost } from '../../host/node/file.ts';
import { Registry } from '../../machine/backends.ts';
import type { Backend } from './backend.ts';
import { Bitmap } from './bitmap.ts';
import { backup, commitBelow, mirror, stream } from './copy-jobs.ts';
import { BlockGraph } from './graph.ts';
import { type Job, Jobs } from './jobs.ts';
import { type Limits, limitsFault, noLimits, Throttle } from './throttle.ts';

const SIZE = 8 << 20;
const folder = mkdtempSync(join(tmpdir(), 'nonroot-block-'));
after(() => rmSync(folder, { recursive: true }));
const host = nodeDiskHost();
const timers = {
  after(ms: number, run: () => void) {
    const timer = ms > 0 ? setTimeout(run, ms) : undefined;
    if (!timer) setImmediate(run);
    return () => clearTimeout(timer);
  },
};

interface Crossed {
  readonly node: string;
  readonly exceeded: number;
  readonly threshold: number;
}
interface Rig {
  readonly graph: BlockGraph;
  readonly jobs: Jobs;
  readonly events: string[];
  readonly crossed: Crossed[];
  /** The place of the guest's disk. */
  readonly guest: Backend;
  add(name: string, options: object): Promise<void>;
  file(name: string): string;
}
let serial = 0;
async function rig(): Promise<Rig> {
  const prefix = join(folder, `${serial++}-`);
  const crossed: Crossed[] = [];
  const graph = new BlockGraph({
    host,
    timers,
    clock: () => performance.now(),
    drives: new Registry('drive'),
    crossed: (node, exceeded, threshold) => crossed.push({ node, exceeded, threshold }),
  });
  const events: string[] = [];
  const jobs = new Jobs(timers, (name, data) => {
    const { status, device } = data as { status?: string; device?: string };
    events.push(status ?? `${name} ${device}`);
  });
  const file = (name: string): string => `${prefix}${name}`;
  const add = async (name: string, options: object): Promise<void> => {
    const path = file(`${name}.qcow2`);
    const made = await host.open(path, { readOnly: false, create: true });
    await createQcow2(made, { size: SIZE });
    await made.close();
    await graph.add({
      driver: 'qcow2',
      'node-name': name,
      file: { driver: 'file', filename: path, 'auto-read-only': true },
      backing: null,
      ...options,
    });
  };
  await add('base', {});
  const guest = graph.backends.find((b) => b.node?.name === 'base')!;
  guest.user = '/machine/peripheral/disk0';
  return { graph, jobs, events, crossed, guest, add, file };
}
/** A snapshot as `blockdev-snapshot` takes it. */
async function overlay(r: Rig, below: string, name: string): Promise<void> {
  await r.add(name, {});
  const [node, top] = [r.graph.get(below), r.graph.get(name)];
  await node.disk.drained(async () => {
    top.backing = node;
    r.graph.replace(node, top, [top]);
    return top.disk;
  });
}
const ended = async (job: Job): Promise<void> => {
  while (job.status !== 'concluded' && job.status !== 'null') await new Promise((resolve) => setTimeout(resolve, 2));
};
/** Random numbers that a seed makes again. */
const random = (seed: number) => (n: number) => {
  seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
  return Math.floor((seed / 2 ** 32) * n);
};
/** Writes blocks at random until told to stop; `model` is what the disk must hold then. */
function scribbler(r: Rig, model: Uint8Array, seed: number): { stop(): Promise<void> } {
  const next = random(seed);
  let on = true;
  const work = (async () => {
    while (on) {
      const length = 512 * (1 + next(40));
      const offset = 512 * next((SIZE - length) / 512);
      const bytes = new Uint8Array(length).fill(1 + next(255));
      if (next(8) === 0) {
        await r.guest.device!.writeZeroes(offset, length);
        model.fill(0, offset, offset + length);
      } else {
        await r.guest.device!.write(offset, bytes);
        model.set(bytes, offset);
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  return {
    stop() {
      on = false;
      return work;
    },
  };
}
async function contents(r: Rig, name?: string): Promise<Uint8Array> {
  const all = new Uint8Array(SIZE);
  await (name === undefined ? r.guest.device! : r.graph.get(name).disk).read(0, all);
  return all;
}
const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.from(a.buffer).equals(Buffer.from(b.buffer));
const qemuImg = spawnSync('qemu-img', ['--version']).status === 0;
function check(path: string): void {
  if (!qemuImg) return;
  const r = spawnSync('qemu-img', ['check', path], { encoding: 'utf8' });
  assert.equal(r.status, 0, `${path}: ${r.stdout}${r.stderr}`);
}

const READY = ['created', 'running', 'ready', 'BLOCK_JOB_READY job'];
const DONE = ['waiting', 'pending', 'BLOCK_JOB_COMPLETED job', 'concluded'];

test('a mirror follows a guest that writes, and the guest goes on with the copy', { timeout: 20_000 }, async () => {
  const r = await rig();
  const model = new Uint8Array(SIZE);
  const guest = scribbler(r, model, 1);
  await r.add('copy', {});
  const [source, target] = [r.graph.get('base'), r.graph.get('copy')];
  const job = r.jobs.start({
    id: 'job',
    type: 'mirror',
    autoDismiss: false,
    run: mirror({ graph: r.graph, source, target, nodes: undefined }),
  });
  while (!job.isReady) await new Promise((resolve) => setTimeout(resolve, 2));
  await new Promise((resolve) => setTimeout(resolve, 50));
  job.complete();
  await ended(job);
  assert.equal(r.guest.node?.name, 'copy');
  await new Promise((resolve) => setTimeout(resolve, 30));
  await guest.stop();
  assert.ok(same(await contents(r), model), 'the copy is the disk');
  assert.deepEqual(r.events, [...READY, ...DONE]);
  await r.graph.remove('base');
  await r.graph.closeAll();
  check(r.file('copy.qcow2'));
});

test('an overlay takes the guest’s writes, and its active commit gives them to the base', { timeout: 20_000 }, async () => {
  const r = await rig();
  const model = new Uint8Array(SIZE);
  const guest = scribbler(r, model, 2);
  await new Promise((resolve) => setTimeout(resolve, 30));
  await overlay(r, 'base', 'top');
  assert.equal(r.guest.node?.name, 'top');
  await new Promise((resolve) => setTimeout(resolve, 30));
  const [top, base] = [r.graph.get('top'), r.graph.get('base')];
  const job = r.jobs.start({
    id: 'job',
    type: 'commit',
    run: mirror({ graph: r.graph, source: top, target: base, nodes: [top] }),
  });
  while (!job.isReady) await new Promise((resolve) => setTimeout(resolve, 2));
  job.complete();
  await ended(job);
  assert.equal(r.guest.node?.name, 'base');
  await guest.stop();
  assert.ok(same(await contents(r), model));
  await r.graph.remove('top');
  await r.graph.closeAll();
  check(r.file('base.qcow2'));
});

test('an intermediate commit and a stream shorten the chain and leave the contents', { timeout: 20_000 }, async () => {
  const r = await rig();
  const model = new Uint8Array(SIZE);
  let guest = scribbler(r, model, 3);
  for (const [below, name] of [
    ['base', 'one'],
    ['one', 'two'],
    ['two', 'three'],
  ] as const) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    await overlay(r, below, name);
  }
  await r.graph.access(r.graph.get('base'), false);
  const [base, one, two, three] = ['base', 'one', 'two', 'three'].map((n) => r.graph.get(n));
  const commit = r.jobs.start({
    id: 'job',
    type: 'commit',
    run: commitBelow({ graph: r.graph, overlay: two!, top: one!, base: base! }),
  });
  await ended(commit);
  assert.equal(commit.error, undefined);
  assert.equal(two!.backing, base);
  await guest.stop();
  assert.ok(same(await contents(r), model), 'after the commit');
  guest = scribbler(r, model, 4);
  const pull = r.jobs.start({ id: 'pull', type: 'stream', run: stream({ graph: r.graph, node: three!, base: undefined }) });
  await ended(pull);
  assert.equal(pull.error, undefined);
  assert.equal(three!.backing, undefined);
  await guest.stop();
  assert.ok(same(await contents(r), model), 'after the stream');
  for (const name of ['two', 'one', 'base']) await r.graph.remove(name);
  await r.graph.closeAll();
  check(r.file('three.qcow2'));
});

test('a backup is of the moment at which it began, whatever the guest writes meanwhile', { timeout: 20_000 }, async () => {
  const r = await rig();
  const model = new Uint8Array(SIZE);
  const first = scribbler(r, model, 5);
  await new Promise((resolve) => setTimeout(resolve, 60));
  await first.stop();
  const then = model.slice();
  await r.add('target', {});
  const source = r.graph.get('base');
  const { run, clean } = backup({ graph: r.graph, source, target: r.graph.get('target'), sync: 'full' });
  const guest = scribbler(r, model, 6);
  const job = r.jobs.start({ id: 'job', type: 'backup', run: async (j) => void (await run(j)), clean: () => clean(false) });
  await ended(job);
  await guest.stop();
  assert.ok(same(await contents(r, 'target'), then), 'the copy');
  assert.ok(same(await contents(r), model), 'the disk');
  // What was written since a bitmap began makes an incremental copy.
  const bitmap = new Bitmap({ name: 'b', size: SIZE, granularity: 65536, persistent: false, enabled: true });
  source.bitmaps.set('b', bitmap);
  await r.guest.device!.write(3 << 20, new Uint8Array(1000).fill(7));
  model.fill(7, 3 << 20, (3 << 20) + 1000);
  assert.equal(bitmap.count, 65536);
  await r.add('increment', {});
  const more = backup({ graph: r.graph, source, target: r.graph.get('increment'), sync: 'incremental', bitmap });
  const second = r.jobs.start({
    id: 'job2',
    type: 'backup',
    run: async (j) => void (await more.run(j)),
    clean: () => more.clean(false),
  });
  await ended(second);
  const increment = await contents(r, 'increment');
  assert.ok(Buffer.from(increment.buffer, 3 << 20, 65536).equals(Buffer.from(model.buffer, 3 << 20, 65536)));
  assert.ok(increment.subarray(0, 3 << 20).every((b) => b === 0));
  await r.graph.closeAll();
  check(r.file('target.qcow2'));
});

test('a cancelled job leaves the guest where it was', { timeout: 20_000 }, async () => {
  const r = await rig();
  await r.add('copy', {});
  const [source, target] = [r.graph.get('base'), r.graph.get('copy')];
  const job = r.jobs.start({ id: 'job', type: 'mirror', run: mirror({ graph: r.graph, source, target, nodes: undefined }) });
  while (!job.isReady) await new Promise((resolve) => setTimeout(resolve, 2));
  job.pause();
  job.resume();
  job.cancel();
  await ended(job);
  assert.equal(r.guest.node?.name, 'base');
  assert.equal(source.disk.after.size, 1, 'nobody follows its writes any more');
  assert.deepEqual(r.events.slice(-4), ['aborting', 'BLOCK_JOB_CANCELLED job', 'concluded', 'null']);
  assert.throws(() => r.jobs.get('job'), /Job not found/);
  await r.graph.closeAll();
});

test('nodes in use cannot be removed, names are one for each, damaged options are refused', { timeout: 20_000 }, async () => {
  const r = await rig();
  await assert.rejects(r.graph.remove('base'), /is busy/);
  await assert.rejects(r.graph.add({ driver: 'null-co', 'node-name': 'base' }), /Duplicate nodes/);
  await assert.rejects(r.graph.add({ driver: 'null-co' }), /'node-name' must be specified/);
  await assert.rejects(r.graph.add({ driver: 'null-co', 'node-name': '1x' }), /Invalid node-name/);
  await assert.rejects(r.graph.add({ driver: 'qcow2', 'node-name': 'q', file: 'nothing' }), /Cannot find/);
  writeFileSync(r.file('raw'), 'no qcow2');
  await assert.rejects(r.graph.add({ driver: 'qcow2', 'node-name': 'q', file: { driver: 'file', filename: r.file('raw') } }));
  assert.throws(() => r.graph.backend('disk1'), /Device 'disk1' not found/);
  assert.equal(r.graph.backend('disk0'), r.guest);
  assert.equal(r.graph.backend('/machine/peripheral/disk0/virtio-backend'), r.guest);
  await r.graph.closeAll();
});

test('a node is opened anew for writing, with its bitmaps, and other changes of it are refused', {
  timeout: 20_000,
}, async () => {
  const r = await rig();
  await r.add('more', {});
  const bitmap = new Bitmap({ name: 'b', size: SIZE, granularity: 65536, persistent: true, enabled: true });
  r.graph.get('more').bitmaps.set('b', bitmap);
  const file = { driver: 'file', filename: r.file('more.qcow2'), 'auto-read-only': true };
  const options = { driver: 'qcow2', 'node-name': 'more', file };
  await r.graph.reopen({ ...options, 'read-only': true });
  const node = r.graph.get('more');
  assert.equal(node.readOnly, true);
  await assert.rejects(node.disk.write(0, new Uint8Array(512)));
  await r.graph.reopen(options);
  await node.disk.write(0, new Uint8Array(512));
  assert.equal(bitmap.count, 65536);
  await assert.rejects(r.graph.reopen({ ...options, driver: 'raw' }), /Cannot change the option 'driver'/);
  await assert.rejects(r.graph.reopen({ ...options, backing: 'base' }), /Cannot change the option 'backing'/);
  await assert.rejects(r.graph.reopen({ ...options, 'node-name': 'nobody' }), /Failed to find node/);
  await r.graph.closeAll();
  const again = await r.graph.host.open(file.filename, { readOnly: true });
  const image = await Qcow2Image.open(again, { codec: r.graph.host.codec });
  assert.deepEqual(
    image.bitmaps.map((b) => [b.name, b.bits[0]]),
    [['b', 1]],
  );
  await image.close();
});

/** A throttle whose clock only waiting moves. */
function throttled(): { readonly throttle: Throttle; readonly waits: (() => void)[]; readonly now: () => number } {
  let time = 0;
  const waits: (() => void)[] = [];
  const now = (): number => time;
  const after = (ms: number, run: () => void): (() => void) => {
    waits.push(() => {
      time += ms;
      run();
    });
    return () => {};
  };
  return { throttle: new Throttle({ after }, now), waits, now };
}

test('a limit lets through what it says, not more', async () => {
  const { throttle, waits, now } = throttled();
  throttle.set({ ...noLimits, iops: 100 });
  let done = 0;
  for (let i = 0; i < 211; i++) void throttle.wait('read', 4096).then(() => done++);
  for (let i = 0; i < 2000; i++) {
    await new Promise((resolve) => setImmediate(resolve));
    if (now() >= 1000) break;
    waits.shift()?.();
  }
  assert.ok(done >= 95 && done <= 115, `${done} of 100 a second, with a burst of 10`);
});

/** Requests of 4 KiB that get through in so many seconds of a clock that only waiting moves. */
async function through(limits: Partial<Limits>, seconds: number): Promise<number> {
  const { throttle, waits, now } = throttled();
  throttle.set({ ...noLimits, ...limits });
  let done = 0;
  for (let i = 0; i < 3000; i++) void throttle.wait('write', 4096).then(() => done++);
  while (now() < seconds * 1000) {
    await new Promise((resolve) => setImmediate(resolve));
    const next = waits.shift();
    if (next) next();
  }
  return done;
}
test('a burst lasts as long as is said, at its own rate', async () => {
  const burst = { iops: 100, iops_max: 500, iops_max_length: 2 };
  const short = await through(burst, 1);
  assert.ok(short >= 480 && short <= 580, `${short}, not 500 in the first second`);
  // The level rises by 400 a second, so 1,000 are full after 2.5 s; then it is 100 a second.
  const long = await through(burst, 6);
  assert.ok(long >= 1500 && long <= 1720, `${long}, not 1,000 + 600 in six seconds`);
});

test('limits that contradict each other are named', () => {
  const wrong: readonly (readonly [Partial<Limits>, RegExp])[] = [
    [{ bps: 1, bps_rd: 1 }, /at the same time/],
    [{ iops_size: 512 }, /requires an iops value/],
    [{ bps: -1 }, /within/],
    [{ iops: 100, iops_max: 50 }, /cannot be lower/],
    [{ iops_max: 50 }, /require corresponding/],
    [{ iops: 1, iops_max_length: 2 }, /without burst rate/],
    [{ iops: 1, iops_max: 2, iops_max_length: 0 }, /cannot be 0/],
  ];
  for (const [limits, text] of wrong) assert.match(limitsFault({ ...noLimits, ...limits }) ?? '', text);
  assert.equal(limitsFault({ ...noLimits, iops: 100, iops_max: 200, iops_max_length: 3, iops_size: 4096 }), undefined);
});

test('places of one group share its limits, and leave it', async () => {
  const r = await rig();
  await r.add('other', {});
  const other = r.graph.backends.find((b) => b.node?.name === 'other')!;
  r.graph.setLimits(r.guest, { ...noLimits, iops: 10, group: 'both' });
  r.graph.setLimits(other, { ...noLimits, iops: 20, group: 'both' });
  assert.equal(r.guest.throttle, other.throttle);
  assert.equal(r.guest.throttle.limits.iops, 20);
  r.graph.setLimits(other, { ...noLimits, iops: 30 });
  assert.deepEqual([r.guest.throttle.limits.iops, other.throttle.limits.iops], [20, 30]);
  await r.graph.closeAll();
});

test('a write beyond a threshold is told once, in the node that is watched', async () => {
  const r = await rig();
  const file = r.graph.get('base').file!;
  file.threshold.at = 400_000;
  r.graph.get('base').threshold.at = 1 << 20;
  for (let i = 0; i < 32; i++) await r.guest.device!.write(i << 16, new Uint8Array(1 << 16).fill(1));
  // The image's file grows with what is written: its own offsets count, not the disk's.
  const [below, above, ...more] = r.crossed;
  assert.deepEqual([below!.node, below!.threshold, more.length], [file.name, 400_000, 0]);
  assert.ok(below!.exceeded > 0 && below!.exceeded <= 1 << 17, `${below!.exceeded} bytes beyond`);
  assert.deepEqual(above, { node: 'base', exceeded: 1 << 16, threshold: 1 << 20 });
  assert.deepEqual([file.threshold.at, r.graph.get('base').threshold.at], [0, 0]);
  await r.graph.closeAll();
});

test('pieces of a guest’s memory reach the file below as they are, and are counted', async () => {
  const r = await rig();
  const path = r.file('raw');
  writeFileSync(path, new Uint8Array(1 << 16));
  await r.graph.add({ driver: 'raw', 'node-name': 'raw', file: { driver: 'file', filename: path, 'node-name': 'raw-file' } });
  const backend = r.graph.backends.find((b) => b.node?.name === 'raw')!;
  const { device, stats } = backend;
  /** Pieces that the node gets: the same arrays, so nothing was copied. */
  const got: Uint8Array[] = [];
  const { disk } = backend.node!;
  const [read, write] = [disk.readPieces.bind(disk), disk.writePieces.bind(disk)];
  disk.readPieces = (offset, into) => {
    got.push(...into);
    return read(offset, into);
  };
  disk.writePieces = (offset, from) => {
    got.push(...from);
    return write(offset, from);
  };
  const memory = new Uint8Array(new SharedArrayBuffer(4096));
  const out = [memory.subarray(0, 512).fill(1), memory.subarray(1024, 2048).fill(2)];
  await device!.writePieces!(512, out);
  const back = [memory.subarray(2048, 3072), memory.subarray(3584, 4096)];
  await device!.readPieces!(512, back);
  assert.ok([...out, ...back].every((piece, i) => piece === got[i]));
  assert.deepEqual([back[0]![511], back[0]![512], back[1]![511]], [1, 2, 2]);
  assert.deepEqual([stats.wr.bytes, stats.wr.operations, stats.rd.bytes, stats.highest], [1536, 1, 1536, 2048]);
  await r.graph.closeAll();
});
