// `nonroot img` beside qemu-img: the same commands give the same text, JSON, exit codes and disks.

import assert from 'node:assert/strict';
import { copyFileSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { nodeDiskHost, openFile } from '../host/node/file.ts';
import { inFolder, mustRun, seeded, tool, withoutTool } from '../host/node/file-testing.ts';
import { imgCommand } from './img.ts';
import { parseSize, showSize } from './img-options.ts';

const skip = withoutTool('qemu-img');

async function img(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  let out = '';
  let err = '';
  const code = await imgCommand(argv, {
    out: { isTTY: false, write: async (text) => void (out += String(text)) },
    err: { write: async (text) => void (err += String(text)) },
    disks: nodeDiskHost(),
  });
  return { code, out, err };
}

async function must(...argv: string[]): Promise<string> {
  const { code, out, err } = await img(...argv);
  assert.equal(code, 0, `img ${argv.join(' ')}: ${out}${err}`);
  return out;
}

/** A raw file of mixed data, runs and holes. */
function sample(path: string, size: number, seed: number): void {
  const random = seeded(seed);
  const bytes = new Uint8Array(size);
  for (let i = 0; i < 60; i++) {
    const at = random(size);
    const end = Math.min(size, at + random(60_000));
    if (i % 2) bytes.fill(random(256), at, end);
    else for (let j = at; j < end; j++) bytes[j] = random(256);
  }
  writeFileSync(path, bytes);
}

const identical = (a: string, b: string): void => assert.match(mustRun('qemu-img', 'compare', a, b), /identical/);

test('create makes the same header as qemu-img, for each set of options', { skip }, () =>
  inFolder(async (folder) => {
    const [ours, theirs] = [join(folder, 'ours'), join(folder, 'theirs')];
    const sets = [
      [],
      ['-o', 'cluster_size=512,refcount_bits=1'],
      ['-o', 'compat=0.10'],
      ['-o', 'preallocation=metadata,compat=1.1'],
      ['-o', 'lazy_refcounts=on,cluster_size=2M'],
      ['-o', 'compression_type=zstd,refcount_bits=64'],
    ];
    for (const set of sets) {
      const out = await must('create', '-f', 'qcow2', ...set, ours, '7777k');
      assert.equal(
        out.replaceAll(ours, 'X'),
        mustRun('qemu-img', 'create', '-f', 'qcow2', ...set, theirs, '7777k').replaceAll(theirs, 'X'),
      );
      mustRun('qemu-img', 'check', ours);
      const info = JSON.parse(mustRun('qemu-img', 'info', '--output=json', ours));
      const wanted = JSON.parse(mustRun('qemu-img', 'info', '--output=json', theirs));
      assert.deepEqual({ ...info, filename: '', 'actual-size': 0 }, { ...wanted, filename: '', 'actual-size': 0 });
    }
  }),
);

test('info prints what qemu-img prints, as text and as JSON', { skip }, () =>
  inFolder(async (folder) => {
    const at = (name: string): string => join(folder, name);
    mustRun('qemu-img', 'create', '-f', 'raw', at('base.raw'), '1536K');
    mustRun('qemu-img', 'create', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', at('top.qcow2'));
    mustRun('qemu-img', 'snapshot', '-c', 'a tag', at('top.qcow2'));
    mustRun('qemu-img', 'create', '-f', 'qcow2', '-o', 'compat=0.10', at('old.qcow2'), '3G');
    for (const args of [
      [at('base.raw'), '-f', 'raw'],
      [at('top.qcow2')],
      [at('old.qcow2')],
      ['--backing-chain', at('top.qcow2')],
    ]) {
      assert.equal(await must('info', ...args), mustRun('qemu-img', 'info', ...args));
      const json = ['info', '--output=json', ...args] as const;
      assert.deepEqual(JSON.parse(await must(...json)), JSON.parse(mustRun('qemu-img', ...json)));
    }
    assert.equal(await must('snapshot', '-l', at('top.qcow2')), mustRun('qemu-img', 'snapshot', '-l', at('top.qcow2')));
  }),
);

test('convert reads and writes every format and compression that qemu-img has of them', { skip }, () =>
  inFolder(async (folder) => {
    const at = (name: string): string => join(folder, name);
    sample(at('a.raw'), 3_000_320, 1);
    const made: string[][] = [
      ['-O', 'qcow2'],
      ['-O', 'qcow2', '-c'],
      ['-O', 'qcow2', '-c', '-o', 'compression_type=zstd'],
      ['-O', 'qcow2', '-c', '-o', 'cluster_size=512'],
      ['-O', 'qcow2', '-c', '-o', 'cluster_size=2M'],
      ['-O', 'qcow2', '-o', 'compat=0.10,preallocation=metadata'],
      ['-O', 'qcow2', '-o', 'preallocation=metadata'],
      ['-O', 'raw'],
    ];
    for (const args of made) {
      mustRun('qemu-img', 'convert', '-f', 'raw', ...args, at('a.raw'), at('theirs'));
      await must('convert', '-f', args[1]!, '-O', 'raw', at('theirs'), at('back.raw'));
      assert.ok(readFileSync(at('a.raw')).equals(readFileSync(at('back.raw'))), `reading ${args.join(' ')}`);
      await must('convert', '-f', 'raw', ...args, at('a.raw'), at('ours'));
      assert.match(
        mustRun('qemu-img', 'compare', '-f', 'raw', '-F', args[1]!, at('a.raw'), at('ours')),
        /identical/,
        args.join(' '),
      );
      if (args[1] === 'raw') continue;
      mustRun('qemu-img', 'check', at('ours'));
      assert.equal((await img('check', at('theirs'))).code, 0);
      assert.equal(await must('check', at('theirs')), mustRun('qemu-img', 'check', at('theirs')), args.join(' '));
    }
    const compressed = statSync(at('ours')).size;
    assert.ok(compressed > 0);
  }),
);

test('convert of a snapshot, onto a backing file and with -n gives the right disk', { skip }, () =>
  inFolder(async (folder) => {
    const at = (name: string): string => join(folder, name);
    sample(at('a.raw'), 1_000_448, 2);
    mustRun('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', at('a.raw'), at('a.qcow2'));
    mustRun('qemu-img', 'snapshot', '-c', 'one', at('a.qcow2'));
    sample(at('b.raw'), 1_000_448, 3);
    mustRun('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'qcow2', at('b.raw'), at('a.qcow2'));
    await must('convert', '-l', 'one', '-O', 'qcow2', at('a.qcow2'), at('one.qcow2'));
    identical(at('one.qcow2'), at('a.raw'));
    await must('convert', '-O', 'qcow2', '-B', 'a.raw', '-F', 'raw', at('a.qcow2'), at('delta.qcow2'));
    identical(at('delta.qcow2'), at('b.raw'));
    await must('convert', '-n', '-f', 'raw', '-O', 'qcow2', at('a.raw'), at('a.qcow2'));
    identical(at('a.qcow2'), at('a.raw'));
    mustRun('qemu-img', 'check', at('a.qcow2'));
  }),
);

test('compare tells where disks differ, with exit codes 0, 1 and 2', { skip }, () =>
  inFolder(async (folder) => {
    const at = (name: string): string => join(folder, name);
    sample(at('a.raw'), 500_000 - (500_000 % 512), 4);
    mustRun('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', at('a.raw'), at('a.qcow2'));
    const same = ['compare', '-f', 'raw', '-F', 'qcow2', at('a.raw'), at('a.qcow2')] as const;
    assert.deepEqual(await img(...same), { code: 0, out: mustRun('qemu-img', ...same), err: '' });
    const bytes = readFileSync(at('a.raw'));
    bytes[300_000]! ^= 1;
    writeFileSync(at('a.raw'), bytes);
    const other = await img(...same);
    assert.deepEqual([other.code, other.out], [1, 'Content mismatch at offset 300000!\n']);
    assert.equal((await img('compare', at('a.raw'), at('missing'))).code, 2);
  }),
);

test('snapshots that either tool takes are applied and deleted by the other', { skip }, () =>
  inFolder(async (folder) => {
    const at = (name: string): string => join(folder, name);
    sample(at('a.raw'), 900_096, 5);
    sample(at('b.raw'), 900_096, 6);
    mustRun('qemu-img', 'convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', 'cluster_size=4k', at('a.raw'), at('d.qcow2'));
    await must('snapshot', '-c', 'ours', at('d.qcow2'));
    mustRun('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'qcow2', at('b.raw'), at('d.qcow2'));
    mustRun('qemu-img', 'snapshot', '-c', 'theirs', at('d.qcow2'));
    mustRun('qemu-img', 'snapshot', '-a', 'ours', at('d.qcow2'));
    identical(at('d.qcow2'), at('a.raw'));
    await must('snapshot', '-a', 'theirs', at('d.qcow2'));
    identical(at('d.qcow2'), at('b.raw'));
    mustRun('qemu-img', 'check', at('d.qcow2'));
    await must('snapshot', '-d', 'ours', at('d.qcow2'));
    mustRun('qemu-img', 'check', at('d.qcow2'));
    mustRun('qemu-img', 'snapshot', '-d', 'theirs', at('d.qcow2'));
    mustRun('qemu-img', 'check', at('d.qcow2'));
    identical(at('d.qcow2'), at('b.raw'));
    assert.equal((await img('snapshot', '-a', 'nothing', at('d.qcow2'))).code, 1);
  }),
);

test('resize grows with zeros, and shrinks only with --shrink', { skip }, () =>
  inFolder(async (folder) => {
    const at = (name: string): string => join(folder, name);
    sample(at('a.raw'), 700_416, 7);
    copyFileSync(at('a.raw'), at('b.raw'));
    // The backing file is larger than the disk: what grows must not show it.
    writeFileSync(at('base.raw'), new Uint8Array(2_000_384).fill(9));
    mustRun('qemu-img', 'create', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', at('a.qcow2'), '700416');
    mustRun('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'qcow2', at('a.raw'), at('a.qcow2'));
    for (const size of ['+300000', '5M']) {
      await must('resize', at('a.qcow2'), size);
      await must('resize', '-f', 'raw', at('b.raw'), size);
      identical(at('a.qcow2'), at('b.raw'));
      mustRun('qemu-img', 'check', at('a.qcow2'));
    }
    assert.equal((await img('resize', at('a.qcow2'), '-4M')).code, 1);
    await must('resize', '--shrink', at('a.qcow2'), '-4M');
    await must('resize', '-f', 'raw', '--shrink', at('b.raw'), '-4M');
    identical(at('a.qcow2'), at('b.raw'));
    mustRun('qemu-img', 'check', at('a.qcow2'));
  }),
);

test('commit writes an overlay to its backing file, rebase keeps the contents', { skip }, () =>
  inFolder(async (folder) => {
    const at = (name: string): string => join(folder, name);
    sample(at('base.raw'), 800_256, 8);
    sample(at('other.raw'), 600_064, 9);
    sample(at('new.raw'), 900_096, 10);
    mustRun('qemu-img', 'create', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', at('top.qcow2'), '900096');
    mustRun('qemu-io', '-c', 'write -P 7 100k 90k', '-c', 'write -z 300k 200k', '-c', 'write -P 8 810000 80k', at('top.qcow2'));
    mustRun('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', at('top.qcow2'), at('wanted.raw'));
    await must('rebase', '-b', 'other.raw', '-F', 'raw', at('top.qcow2'));
    identical(at('top.qcow2'), at('wanted.raw'));
    await must('rebase', '-b', '', at('top.qcow2'));
    identical(at('top.qcow2'), at('wanted.raw'));
    await must('rebase', '-u', '-b', 'base.raw', '-F', 'raw', at('top.qcow2'));
    await must('commit', at('top.qcow2'));
    identical(at('base.raw'), at('wanted.raw'));
    identical(at('top.qcow2'), at('wanted.raw'));
    assert.doesNotMatch(mustRun('qemu-img', 'check', at('top.qcow2')), /allocated/);
  }),
);

test('check counts and repairs leaks and errors with the exit codes of qemu-img', { skip }, () =>
  inFolder(async (folder) => {
    const path = join(folder, 'd.qcow2');
    const poke = (at: number, ...values: number[]): void => {
      const bytes = readFileSync(path);
      bytes.set(values, at);
      writeFileSync(path, bytes);
    };
    const make = (): void => {
      mustRun('qemu-img', 'create', '-f', 'qcow2', path, '4M');
      mustRun('qemu-io', '-c', 'write -P 5 0 300k', path);
    };
    const both = async (...args: string[]): Promise<{ code: number; out: string }> => {
      const theirs = tool('qemu-img', 'check', ...args, path);
      const ours = await img('check', ...args, path);
      assert.deepEqual([ours.code, ours.out], [theirs.code, theirs.out], `${ours.err}${theirs.err}`);
      return ours;
    };
    make();
    assert.equal((await both()).code, 0);
    // Refcount block at 0x20000, 2 bytes each: a leak in cluster 10, a count that is too low for cluster 7.
    writeFileSync(path, new Uint8Array(65_536), { flag: 'a' });
    poke(0x20000 + 20, 0, 9);
    assert.equal((await both()).code, 3);
    assert.equal((await img('check', '-r', 'leaks', path)).code, 0);
    assert.equal((await both()).code, 0);
    poke(0x20000 + 14, 0, 0);
    const json = await img('check', '--output=json', path);
    assert.equal(json.code, 2);
    assert.equal(JSON.parse(json.out).corruptions, 2);
    assert.equal((await both()).code, 2);
    assert.match((await img('check', '-r', 'all', path)).out, /No errors were found/);
    assert.equal((await both()).code, 0);
    // The refcount table itself: gone.
    make();
    poke(0x10000, 0, 0, 0, 0, 0, 0, 0, 0);
    assert.equal((await img('check', path)).code, 2);
    assert.equal((await img('check', '-r', 'all', path)).code, 0);
    assert.equal(tool('qemu-img', 'check', path).code, 0);
    mustRun('qemu-io', '-c', 'read -P 5 0 300k', '-c', 'write -P 6 1M 1M', path);
    mustRun('qemu-img', 'check', path);
    writeFileSync(path, new Uint8Array(1024));
    assert.equal((await img('check', path)).code, 63);
    assert.equal((await img('check', join(folder, 'missing'))).code, 1);
  }),
);

test('an image that QEMU has open for writing cannot be opened', { skip: withoutTool('qemu-io') }, () =>
  inFolder(async (folder) => {
    const path = join(folder, 'd.qcow2');
    await must('create', '-q', '-f', 'qcow2', path, '1M');
    const file = await openFile(path, { readOnly: false });
    const { code, err } = tool('qemu-img', 'check', path);
    const again = await img('check', path);
    const shared = await img('info', '-U', path);
    await file.close();
    assert.deepEqual([code, again.code, shared.code], [1, 1, 0]);
    assert.match(err, /lock/);
    assert.match(again.err, /another process uses it/);
    mustRun('qemu-img', 'check', path);
  }),
);

test('what is wrong in a command line is said in one line, and makes no file', () =>
  inFolder(async (folder) => {
    const path = join(folder, 'new');
    const wrong = [
      ['create', '-f', 'vmdk', path, '1M'],
      ['create', '-f', 'qcow2', path],
      ['create', '-f', 'qcow2', path, '1M1'],
      ['create', '-f', 'qcow2', '-o', 'extended_l2=on', path, '1M'],
      ['create', '-f', 'qcow2', '-o', 'encrypt.format=luks', path, '1M'],
      ['create', '-f', 'qcow2', '-o', 'toString=1', path, '1M'],
      ['create', '-f', 'qcow2', '-b', 'missing', '-F', 'raw', path],
      ['create', '-x', path, '1M'],
      ['map', path],
      ['toString', path],
      ['info', '--output=xml', path],
    ];
    for (const argv of wrong) {
      const { code, out, err } = await img(...argv);
      assert.deepEqual([code, out], [1, ''], argv.join(' '));
      assert.match(err, /^nonroot img: Cannot .*: .*\n$/, argv.join(' '));
      assert.equal(existsSync(path), false, argv.join(' '));
    }
    assert.match(await must('convert', '--help'), /^Usage: nonroot img convert .*-O FMT/);
  }));

test('sizes are read and shown as qemu-img does', () => {
  assert.deepEqual(['512', '1k', '1.5G', '2b', '0x10', '3T'].map(parseSize), [512, 1024, 1_610_612_736, 2, 16, 3 * 2 ** 40]);
  for (const bad of ['', '1Z', '-1', '1e9', '9000P', 'k']) assert.throws(() => parseSize(bad), /Cannot use size/);
  assert.deepEqual([0, 1023, 1000 * 1024, 200704, 3145728, 1_610_612_736, 10 * 2 ** 40].map(showSize), [
    '0 B',
    '0.999 KiB',
    '0.977 MiB',
    '196 KiB',
    '3 MiB',
    '1.5 GiB',
    '10 TiB',
  ]);
});
