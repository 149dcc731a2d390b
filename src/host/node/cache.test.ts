import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type Cache, cached, imageFile, readManifest, scratchDirectory, storeImage, userCache } from './cache.ts';

const root = mkdtempSync(join(tmpdir(), 'nonroot-cache-'));
after(() => rmSync(root, { recursive: true }));
const fresh = (name: string): Cache => ({ root: join(root, name) });
const image = { name: 'test', source: 'here', packages: [{ name: 'p', version: '1:2-3', sha256: 'x' }] };
const files = { kernel: Buffer.from('kernel'), busybox: Buffer.from('busybox') };

test('the cache lies where the XDG specification says', () => {
  assert.equal(userCache({ XDG_CACHE_HOME: '/x', HOME: '/h' }).root, '/x/nonroot');
  assert.equal(userCache({ XDG_CACHE_HOME: 'relative', HOME: '/h' }).root, '/h/.cache/nonroot');
  assert.equal(userCache({ HOME: '/h' }).root, '/h/.cache/nonroot');
});

test('a derived file is made once, also when asked for at once, and leaves nothing else behind', async () => {
  const cache = fresh('derived');
  let made = 0;
  const make = async () => Buffer.from(`text ${++made}`);
  const paths = await Promise.all([cached(cache, 'a-1.bin', make), cached(cache, 'a-1.bin', make)]);
  assert.equal(paths[0], paths[1]);
  assert.match(readFileSync(paths[0]!, 'utf8'), /^text [12]$/);
  const before = made;
  await cached(cache, 'a-1.bin', make);
  assert.equal(made, before);
  assert.deepEqual(readdirSync(join(cache.root, 'derived')), ['a-1.bin']);
});

test('a file whose making fails is not stored, and a key is not a path', async () => {
  const cache = fresh('failing');
  await assert.rejects(
    cached(cache, 'a', () => Promise.reject(new Error('no'))),
    /^Error: no$/,
  );
  assert.equal(readFileSync(await cached(cache, 'a', () => Buffer.from('yes')), 'utf8'), 'yes');
  for (const key of ['../a', 'a/b', '', '.hidden'])
    await assert.rejects(
      cached(cache, key, () => Buffer.from('')),
      /Cannot cache/,
    );
});

test('an image is found with its files after it was stored, by several at once too', async () => {
  const cache = fresh('image');
  assert.equal(await readManifest(cache, 'test'), undefined);
  await Promise.all([1, 2, 3, 4].map(() => storeImage(cache, image, files)));
  const manifest = await readManifest(cache, 'test');
  assert.deepEqual(manifest?.packages, image.packages);
  assert.equal(readFileSync(imageFile(cache, manifest!, 'kernel'), 'utf8'), 'kernel');
  assert.throws(() => imageFile(cache, manifest!, 'disk'), /has no disk, its files are kernel, busybox/);
  assert.deepEqual(readdirSync(join(cache.root, 'images', 'test')).sort(), [manifest!.key, 'manifest.json'].sort());
  assert.deepEqual(readdirSync(join(cache.root, 'tmp')), []);
});

test('an image with a missing or short file, or a broken manifest, is as good as none until it is stored again', async () => {
  const cache = fresh('damaged');
  const path = imageFile(cache, await storeImage(cache, image, files), 'kernel');
  const damage = [
    () => truncateSync(path, 3),
    () => rmSync(path),
    () => writeFileSync(join(cache.root, 'images/test/manifest.json'), '{"fo'),
  ];
  for (const hurt of damage) {
    hurt();
    assert.equal(await readManifest(cache, 'test'), undefined);
    await storeImage(cache, image, files);
    assert.ok(await readManifest(cache, 'test'));
    assert.equal(readFileSync(path, 'utf8'), 'kernel');
  }
});

test('what an interrupted run left behind goes after a day, not before', async () => {
  const cache = fresh('sweep');
  const left = await scratchDirectory(cache);
  await scratchDirectory(cache);
  assert.equal(readdirSync(join(cache.root, 'tmp')).length, 2);
  const old = Date.now() / 1000 - 25 * 3600;
  utimesSync(left, old, old);
  await scratchDirectory(cache);
  assert.equal(readdirSync(join(cache.root, 'tmp')).length, 2);
  assert.ok(!readdirSync(join(cache.root, 'tmp')).includes(left.slice(left.lastIndexOf('/') + 1)));
});
