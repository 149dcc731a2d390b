import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { FuseServer } from '../../devices/fuse/server.ts';
import { Errno, type Folder, FolderError, type FolderNode } from '../../devices/ninep/folder.ts';
import { HEADER, MessageReader, MessageWriter, Type } from '../../devices/ninep/message.ts';
import { NinepServer } from '../../devices/ninep/server.ts';
import { openFolder } from './folder.ts';

const skip = process.platform === 'linux' ? false : 'shared folders need /proc';
let base = '';
before(async () => {
  base = await mkdtemp(join(tmpdir(), 'nonroot-folder-'));
});
after(() => rm(base, { recursive: true, force: true }));

/** A folder with a file, a folder and links that lead out, beside a file that nobody may reach. */
async function shared(name: string, readOnly = false): Promise<{ path: string; folder: Folder; root: FolderNode }> {
  const path = join(base, name, 'shared');
  await mkdir(join(path, 'inner'), { recursive: true });
  await writeFile(join(base, name, 'secret'), 'secret');
  await writeFile(join(path, 'file'), 'hello');
  await symlink('../secret', join(path, 'out'));
  await symlink('..', join(path, 'up'));
  const folder = await openFolder(path, readOnly);
  return { path, folder, root: await folder.root() };
}
const errno = (expected: number) => (error: unknown) => error instanceof FolderError && error.errno === expected;

test('files are made, read, written, renamed and removed', { skip }, async () => {
  const { path, folder, root } = await shared('plain');
  const made = await root.create('new', 2, 0o640);
  assert.equal(await made.file.write(3, Uint8Array.of(97, 98)), 2);
  await made.file.close();
  assert.equal((await made.node.stat()).size, 5n);
  await root.rename('new', await root.child('inner'), 'moved');
  // Who has the node under its old name goes on with it.
  await made.node.change({ size: 4, mtime: 1000 });
  assert.deepEqual([...(await readFile(join(path, 'inner', 'moved')))], [0, 0, 0, 97]);
  assert.deepEqual((await root.entries()).map((e) => e.name).sort(), ['.', '..', 'file', 'inner', 'out', 'up']);
  await (await root.child('inner')).unlink('moved', false);
  await root.unlink('inner', true);
  assert.deepEqual((await readdir(path)).sort(), ['file', 'out', 'up']);
  await assert.rejects(root.child('inner'), errno(Errno.ENOENT));
  await folder.close();
});

test('no link, no `..` and no renamed folder leads out', { skip }, async () => {
  const { path, folder, root } = await shared('escape');
  const out = await root.child('out');
  assert.equal(await out.readLink(), '../secret');
  await assert.rejects(out.open(0), errno(Errno.ELOOP));
  await assert.rejects(out.change({ size: 0 }), errno(Errno.EOPNOTSUPP));
  await assert.rejects(root.create('out', 1 | 0o1000, 0o600), errno(Errno.ELOOP));
  const up = await root.child('up');
  await assert.rejects(up.child('secret'), errno(Errno.ENOTDIR));
  await assert.rejects(up.entries(), errno(Errno.ENOTDIR));
  assert.equal(root.parent, root);
  // Somebody puts a link in the place of a folder that is in use, or moves it away.
  const inner = await root.child('inner');
  await rename(join(path, 'inner'), join(base, 'escape', 'elsewhere'));
  await symlink('..', join(path, 'inner'));
  await assert.rejects(inner.child('secret'), errno(Errno.ENOENT));
  await assert.rejects((await root.child('inner')).child('secret'), errno(Errno.ENOTDIR));
  assert.equal(await readFile(join(base, 'escape', 'secret'), 'utf8'), 'secret');
  await folder.close();
});

test('a 9P client cannot walk out, nor write where it may only read', { skip }, async () => {
  const { folder } = await shared('ninep', true);
  const server = new NinepServer(folder);
  const ask = async (type: number, build: (w: MessageWriter) => void): Promise<{ type: number; r: MessageReader }> => {
    const w = new MessageWriter().u32(0).u8(type).u16(1);
    build(w);
    const bytes = w.result();
    new DataView(bytes.buffer).setUint32(0, bytes.length, true);
    const answer = await server.answer(bytes);
    return { type: answer[4]!, r: new MessageReader(answer) };
  };
  const error = async (answer: ReturnType<typeof ask>): Promise<number> => {
    const { type, r } = await answer;
    return type === Type.error ? r.u32() : 0;
  };
  const walk = (to: number, ...names: string[]) =>
    ask(Type.walk, (w) => {
      w.u32(0).u32(to).u16(names.length);
      for (const name of names) w.text(name);
    });
  await ask(Type.version, (w) => w.u32(8192).text('9P2000.L'));
  await ask(Type.attach, (w) => w.u32(0).u32(0xffff_ffff).text('').text('').u32(0));
  // `..` of the root is the root.
  assert.equal(await error(walk(1, '..', '..', 'file')), 0);
  // A walk that fails on its way makes no fid.
  await walk(2, '..', 'secret');
  assert.equal(await error(ask(Type.getattr, (w) => w.u32(2).u64(0n))), Errno.EBADF);
  for (const name of ['a/b', '/etc/passwd', '', '.', 'x'.repeat(300)]) assert.notEqual(await error(walk(3, name)), 0, name);
  assert.equal(await error(ask(Type.lopen, (w) => w.u32(1).u32(1))), Errno.EROFS);
  assert.equal(await error(ask(Type.unlinkat, (w) => w.u32(0).text('file').u32(0))), Errno.EROFS);
  assert.equal(await error(ask(Type.lopen, (w) => w.u32(1).u32(0))), 0);
  const { r } = await ask(Type.read, (w) => w.u32(1).u64(1n).u32(100));
  assert.deepEqual([...r.bytes(r.u32())], [...new TextEncoder().encode('ello')]);
  await server.reset();
  await folder.close();
});

test('whatever a guest sends to the file servers, they answer and write nothing outside', { skip }, async (t) => {
  const seed = Number(process.env['SEED'] ?? 1);
  t.diagnostic(`SEED=${seed}`);
  let state = seed;
  const random = (n: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
  const names = ['file', '..', 'out', 'up', 'inner', 'a', 'b', '', '/', '../secret', 'secret'];
  const { folder } = await shared('fuzz');
  const ninep = new NinepServer(folder);
  const fuse = new FuseServer(folder);
  const types = Object.values(Type);
  for (let round = 0; round < 1500; round++) {
    const w = new MessageWriter().u32(0);
    if (round & 1) {
      w.u8(types[random(types.length)]!).u16(random(4));
      while (w.length < HEADER + 40) {
        if (random(3) === 0) w.text(names[random(names.length)]!);
        else if (random(2)) w.u32(random(5));
        else w.u16(random(3));
      }
      const answer = await ninep.answer(w.result().slice(0, HEADER + random(60)));
      assert.ok(answer.length >= HEADER);
    } else {
      w.u32(random(50))
        .u64(1n)
        .u64(BigInt(random(5)))
        .u32(0)
        .u32(0)
        .u32(0)
        .u32(0);
      const texts = new TextEncoder().encode(`${names[random(names.length)]}\0${names[random(names.length)]}\0`);
      if (random(2)) w.bytes(new Uint8Array(8 * random(3)));
      if (random(3)) w.bytes(texts);
      else for (let n = random(30); n > 0; n--) w.u32(random(4));
      await fuse.answer(w.result().slice());
    }
  }
  await ninep.reset();
  await fuse.reset();
  await folder.close();
  assert.equal(await readFile(join(base, 'fuzz', 'secret'), 'utf8'), 'secret');
  assert.deepEqual((await readdir(join(base, 'fuzz'))).sort(), ['secret', 'shared']);
});
