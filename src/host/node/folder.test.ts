import assert from 'node:assert/strict';
import { lstat, mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { seeded } from '../../bits/testing.ts';
import { FuseServer } from '../../devices/fuse/server.ts';
import { Errno, type Folder, FolderError, type FolderNode } from '../../devices/ninep/folder.ts';
import { mappedFolder } from '../../devices/ninep/mapped.ts';
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
  const folder = await openFolder(path, { readOnly });
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
  const random = seeded(seed);
  const names = ['file', '..', 'out', 'up', 'inner', 'a', 'b', '', '/', '../secret', 'secret'];
  const { folder } = await shared('fuzz');
  const mapped = (store: 'xattr' | 'file') =>
    new NinepServer(mappedFolder(folder, { store, fileMode: 0o600, folderMode: 0o700 }));
  const servers = [new NinepServer(folder), mapped('xattr'), mapped('file')];
  const fuse = new FuseServer(folder);
  const types = Object.values(Type);
  for (let round = 0; round < 6000; round++) {
    const w = new MessageWriter().u32(0);
    if (round & 1) {
      w.u8(types[random(types.length)]!).u16(random(4));
      while (w.length < HEADER + 40) {
        if (random(3) === 0) w.text(names[random(names.length)]!);
        else if (random(2)) w.u32(random(5));
        else w.u16(random(3));
      }
      const answer = await servers[random(servers.length)]!.answer(w.result().slice(0, HEADER + random(60)));
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
  for (const server of servers) await server.reset();
  await fuse.reset();
  await folder.close();
  assert.equal(await readFile(join(base, 'fuzz', 'secret'), 'utf8'), 'secret');
  assert.deepEqual((await readdir(join(base, 'fuzz'))).sort(), ['secret', 'shared']);
});

/** A client's fixed part: asks, and says the error number of an answer. */
function client(server: NinepServer) {
  const ask = async (type: number, build: (w: MessageWriter) => void): Promise<{ errno: number; r: MessageReader }> => {
    const w = new MessageWriter().u32(0).u8(type).u16(1);
    build(w);
    const bytes = w.result();
    new DataView(bytes.buffer).setUint32(0, bytes.length, true);
    const answer = await server.answer(bytes);
    const r = new MessageReader(answer);
    return { errno: answer[4] === Type.error ? r.u32() : 0, r };
  };
  const clone = async (to: number, ...names: string[]): Promise<number> => {
    const { errno } = await ask(Type.walk, (w) => {
      w.u32(0).u32(to).u16(names.length);
      for (const name of names) w.text(name);
    });
    return errno;
  };
  const attach = async (uid: number): Promise<void> => {
    await ask(Type.version, (w) => w.u32(8192).text('9P2000.L'));
    assert.equal((await ask(Type.attach, (w) => w.u32(0).u32(0xffff_ffff).text('').text('').u32(uid))).errno, 0);
  };
  return { ask, clone, attach };
}
/** `getattr`: mode, uid, gid, rdev. */
async function attributes({ ask }: ReturnType<typeof client>, fid: number): Promise<[string, number, number, bigint]> {
  const { errno, r } = await ask(Type.getattr, (w) => w.u32(fid).u64(0x7ffn));
  assert.equal(errno, 0);
  r.u64();
  r.bytes(13);
  const [mode, uid, gid] = [r.u32(), r.u32(), r.u32()];
  r.u64();
  return [mode.toString(8), uid, gid, r.u64()];
}

test("owners, modes and kinds are kept apart, and the host's files stay plain", { skip }, async (t) => {
  for (const store of ['xattr', 'file'] as const) await t.test(store, (one) => keepsApart(store, one));
});
async function keepsApart(store: 'xattr' | 'file', t: TestContext): Promise<void> {
  const name = `mapped-${store}`;
  const { path, folder: inner, root } = await shared(name);
  const unsupported = await root.setAttribute('user.virtfs.test', Uint8Array.of(1)).then(
    () => false,
    () => true,
  );
  if (store === 'xattr' && unsupported) {
    t.skip(`${path} has no extended attributes`);
    return;
  }
  const folder = mappedFolder(inner, { store, fileMode: 0o600, folderMode: 0o700 });
  const server = new NinepServer(folder);
  const c = client(server);
  await c.attach(1000);
  assert.equal(await c.clone(1), 0);
  assert.equal((await c.ask(Type.lcreate, (w) => w.u32(1).text('made').u32(0o102).u32(0o104755).u32(50))).errno, 0);
  assert.deepEqual(await attributes(c, 1), ['104755', 1000, 50, 0n]);
  assert.equal((await c.ask(Type.symlink, (w) => w.u32(0).text('link').text('/etc/passwd').u32(50))).errno, 0);
  assert.equal((await c.ask(Type.mknod, (w) => w.u32(0).text('disk').u32(0o060660).u32(8).u32(1).u32(6))).errno, 0);
  assert.equal((await c.ask(Type.mkdir, (w) => w.u32(0).text('dir').u32(0o1777).u32(7))).errno, 0);
  for (const [fid, entry] of ['link', 'disk', 'dir'].entries()) assert.equal(await c.clone(2 + fid, entry), 0);
  assert.deepEqual(await attributes(c, 2), ['120777', 1000, 50, 0n]);
  assert.equal((await c.ask(Type.readlink, (w) => w.u32(2))).r.text(), '/etc/passwd');
  assert.deepEqual(await attributes(c, 3), ['60660', 1000, 6, 0x801n]);
  assert.deepEqual(await attributes(c, 4), ['41777', 1000, 7, 0n]);
  // A device is opened by nobody here; of a link nothing is reached.
  assert.equal((await c.ask(Type.lopen, (w) => w.u32(3).u32(2))).errno, Errno.EACCES);
  assert.equal((await c.ask(Type.lopen, (w) => w.u32(2).u32(0))).errno, Errno.ELOOP);
  for (const [file, mode] of [['made', 0o100600], ['link', 0o100600], ['disk', 0o100600], ['dir', 0o040700]] as const)
      assert.equal((await lstat(join(path, file))).mode, mode, file); // biome-ignore format: a table
  // A new owner and mode, a new name, and a second one.
  const change = (w: MessageWriter) => w.u32(1).u32(7).u32(0o640).u32(0).u32(9).u64(0n).u64(0n).u64(0n).u64(0n).u64(0n);
  assert.equal((await c.ask(Type.setattr, change)).errno, 0);
  assert.equal((await c.ask(Type.renameat, (w) => w.u32(0).text('made').u32(4).text('moved'))).errno, 0);
  assert.equal((await c.ask(Type.link, (w) => w.u32(0).u32(1).text('twice'))).errno, 0);
  for (const [fid, names] of [[5, ['dir', 'moved']], [6, ['twice']]] as const) {
      assert.equal(await c.clone(fid, ...names), 0);
      assert.deepEqual(await attributes(c, fid), ['100640', 0, 9, 0n]);
    } // biome-ignore format: a table
  // What replaces a file has its own attributes, not the old one's.
  assert.equal((await c.ask(Type.renameat, (w) => w.u32(0).text('file').u32(0).text('disk'))).errno, 0);
  assert.equal(await c.clone(7, 'disk'), 0);
  assert.equal((await attributes(c, 7))[0], (await lstat(join(path, 'disk'))).mode.toString(8));
  // The attributes' own files are out of reach, and in nobody's way.
  if (store === 'file') {
    assert.equal(await c.clone(8, '.virtfs_metadata'), Errno.EINVAL);
    assert.ok((await readdir(join(path, 'dir'))).includes('.virtfs_metadata'));
  }
  assert.ok(!(await (await folder.root()).entries()).some((e) => e.name.startsWith('.virtfs')));
  assert.equal((await c.ask(Type.unlinkat, (w) => w.u32(0).text('dir').u32(0x200))).errno, Errno.ENOTEMPTY);
  assert.equal((await c.ask(Type.unlinkat, (w) => w.u32(4).text('moved').u32(0))).errno, 0);
  assert.equal((await c.ask(Type.unlinkat, (w) => w.u32(0).text('dir').u32(0x200))).errno, 0);
  await server.reset();
  await folder.close();
}

test('passthrough gives files to whom they belong, or makes none', { skip }, async () => {
  const { path, folder: mine } = await shared('owners');
  await mine.close();
  const folder = await openFolder(path, { readOnly: false, owners: 'must' });
  const root = await folder.root();
  const [uid, gid] = [process.getuid!(), process.getgid!()];
  const mask = process.umask(0o077);
  try {
    const mine = await root.create('mine', 2, 0o664, { uid, gid });
    await mine.file.close();
    assert.equal((await mine.node.stat()).mode, 0o100664);
    const other = { uid: 12345, gid: 54321 };
    if (uid === 0) {
      const node = await root.makeFolder('theirs', 0o775, other);
      const link = await root.makeLink('their-link', '../secret', other);
      for (const n of [node, link]) assert.deepEqual([(await n.stat()).uid, (await n.stat()).gid], [12345, 54321]);
      assert.equal((await node.stat()).mode, 0o040775);
      assert.equal((await lstat(join(base, 'owners', 'secret'))).uid, 0);
    } else {
      await assert.rejects(root.create('theirs', 2, 0o600, other), errno(Errno.EPERM));
      assert.ok(!(await readdir(path)).includes('theirs'));
    }
    await assert.rejects(root.makeSpecial('sda', 0o060600, 0x800n, { uid, gid }), errno(Errno.EPERM));
  } finally {
    process.umask(mask);
  }
  await folder.close();
});

test('the servers know whether a guest has the folder mounted', { skip }, async () => {
  const { folder } = await shared('mounted');
  const fuse = new FuseServer(folder);
  const say = (op: number): Promise<unknown> => {
    const w = new MessageWriter().u32(56).u32(op).u64(1n).u64(1n).u32(0).u32(0).u32(0).u32(0);
    return fuse.answer(w.u32(7).u32(31).u32(0).u32(0).result().slice());
  };
  assert.equal(fuse.mounted, false);
  await say(26);
  assert.equal(fuse.mounted, true);
  await say(38);
  assert.equal(fuse.mounted, false);
  const ninep = new NinepServer(folder);
  const c = client(ninep);
  assert.equal(ninep.size, 0);
  await c.attach(0);
  assert.equal(ninep.size, 1);
  assert.equal((await c.ask(Type.clunk, (w) => w.u32(0))).errno, 0);
  assert.equal(ninep.size, 0);
  await folder.close();
});

test('of two requests that open one fid at a time, one has the file', { skip }, async () => {
  const { folder } = await shared('twice');
  const server = new NinepServer(folder);
  const c = client(server);
  await c.attach(0);
  assert.equal(await c.clone(1, 'file'), 0);
  const open = (): Promise<{ errno: number }> => c.ask(Type.lopen, (w) => w.u32(1).u32(0));
  const [one, other] = await Promise.all([open(), open()]);
  assert.deepEqual([one.errno, other.errno].sort(), [0, Errno.EBADF].sort());
  // A fid that goes while its file is opened takes the file with it.
  assert.equal(await c.clone(2, 'file'), 0);
  const [opened] = await Promise.all([c.ask(Type.lopen, (w) => w.u32(2).u32(0)), server.reset()]);
  assert.equal(opened.errno, Errno.EBADF);
  await folder.close();
});
