import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { makeAr, makeModule, makeTar } from '../../images/testing.ts';
import { sha256 } from './cache.ts';
import { fetchFile } from './fetch.ts';
import { type ImageOptions, listImages, openImage, pullImage } from './fetch-image.ts';

const root = mkdtempSync(join(tmpdir(), 'nonroot-fetch-'));
after(() => rmSync(root, { recursive: true }));

async function serve(t: TestContext, listener: RequestListener): Promise<URL> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  t.after(() => server.close());
  return new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
}

test('a file is fetched with its progress, and held against size and hash', async (t) => {
  const body = Buffer.alloc(100_000, 'x');
  const url = await serve(t, (_, response) => response.end(body));
  const steps: number[] = [];
  const bytes = await fetchFile(new URL('a%20b', url), { size: body.length, sha256: sha256(body) }, ({ label, done, total }) => {
    assert.equal(label, 'Fetching a b');
    assert.equal(total, body.length);
    steps.push(done);
  });
  assert.deepEqual(Buffer.from(bytes), body);
  assert.equal(steps.at(-1), body.length);
  await assert.rejects(fetchFile(url, { sha256: sha256('other') }), /Cannot accept .*SHA-256 is .* the index says/);
  await assert.rejects(fetchFile(url, { size: 7 }), /more than the 7 bytes/);
  await assert.rejects(fetchFile(url, { size: body.length + 1 }), /100000 bytes, the index says 100001/);
});

test('broken connections and server errors are tried again, other answers are not', async (t) => {
  let asked = 0;
  const url = await serve(t, (request, response) => {
    asked++;
    if (request.url === '/missing') response.writeHead(404).end();
    else if (asked === 1) response.writeHead(503).end();
    else if (asked === 2) {
      response.writeHead(200, { 'content-length': '4' });
      response.write('ha');
      setTimeout(() => response.destroy(), 20);
    } else response.end('good');
  });
  assert.equal(Buffer.from(await fetchFile(url)).toString(), 'good');
  assert.equal(asked, 3);
  await assert.rejects(fetchFile(new URL('missing', url)), /Cannot fetch .*\/missing: 404/);
  assert.equal(asked, 4);
});

/** A mirror with a kernel (behind its meta package) and a busybox, as paths and their bytes. */
function makeMirror(version = '6.1-1'): Map<string, Uint8Array> {
  const deb = (tar: Uint8Array) => makeAr({ 'debian-binary': '2.0\n', 'data.tar.gz': gzipSync(tar) });
  const module = makeModule(['depends=', 'alias=virtio:d00000001v*']);
  const packages: Record<string, { deb: Uint8Array; depends?: string; version: string }> = {
    'linux-image-cloud-amd64': { deb: deb(makeTar()), depends: `linux-image-6.1-cloud-amd64 (= ${version})`, version },
    'linux-image-6.1-cloud-amd64': {
      deb: deb(
        makeTar(
          { name: './boot/vmlinuz-6.1', data: `kernel ${version}` },
          { name: './lib/modules/6.1/kernel/virtio_net.ko', data: module },
        ),
      ),
      version,
    },
    'busybox-static': { deb: deb(makeTar({ name: './bin/busybox', data: 'busybox', mode: '0000755' })), version: '1:1.35' },
  };
  const files = new Map<string, Uint8Array>();
  let index = '';
  for (const [name, { deb, depends, version }] of Object.entries(packages)) {
    const path = `pool/${name}_${version}.deb`;
    files.set(`/${path}`, deb);
    index += `Package: ${name}\nVersion: ${version}\n${depends ? `Depends: ${depends}\n` : ''}Filename: ${path}\nSize: ${deb.length}\nSHA256: ${sha256(deb)}\n\n`;
  }
  const list = gzipSync(index);
  files.set('/dists/test/main/binary-amd64/Packages.gz', list);
  files.set(
    '/dists/test/Release',
    Buffer.from(`Suite: test\nSHA256:\n ${sha256(list)} ${list.length} main/binary-amd64/Packages.gz\n`),
  );
  return files;
}

test('an image comes from a mirror once, then from the cache; a pull brings the new version', async (t) => {
  let files = makeMirror();
  let asked = 0;
  const url = await serve(t, (request, response) => {
    asked++;
    const body = files.get(decodeURIComponent(request.url!));
    if (body) response.end(body);
    else response.writeHead(404).end();
  });
  const options: ImageOptions = {
    cache: { root: join(root, 'mirror') },
    env: { NONROOT_MIRROR: url.href, NONROOT_SUITE: 'test' },
  };
  const image = await openImage('debian-cloud', options);
  assert.equal(Buffer.from(await fetchFile(new URL(`file://${image.kernel}`))).toString(), 'kernel 6.1-1');
  const initrd = Buffer.from(await fetchFile(new URL(`file://${image.initrd}`))).toString('latin1');
  for (const part of ['init\0', 'bin/busybox\0', 'lib/modules/6.1/kernel/virtio_net.ko\0'])
    assert.ok(initrd.includes(part), part);
  assert.deepEqual(
    image.manifest.packages.map((entry) => entry.version),
    ['6.1-1', '1:1.35'],
  );
  const before = asked;
  assert.deepEqual(await openImage('debian-cloud', options), image);
  assert.equal(asked, before);
  // One that was made for other drivers is made anew, or serves where that cannot be done.
  const note = join(root, 'mirror/images/debian-cloud/manifest.json');
  const asOther = (): void => writeFileSync(note, readFileSync(note, 'utf8').replace(/"wish": "\w+"/, '"wish": "other"'));
  asOther();
  assert.equal((await openImage('debian-cloud', options)).manifest.wish, image.manifest.wish);
  assert.ok(asked > before);
  asOther();
  files = new Map();
  assert.equal((await openImage('debian-cloud', options)).manifest.wish, 'other');
  files = makeMirror('6.1-2');
  assert.equal((await pullImage('debian-cloud', options)).manifest.packages[0]!.version, '6.1-2');
  assert.equal((await openImage('debian-cloud', options)).manifest.packages[0]!.version, '6.1-2');
  assert.deepEqual(
    (await listImages(options.cache)).map(({ manifest }) => manifest?.packages[0]?.version),
    ['6.1-2', undefined, undefined],
  );
  // A mirror that serves something else than its index says does not change what is there.
  files.set('/pool/busybox-static_1:1.35.deb', makeAr({}));
  await assert.rejects(pullImage('debian-cloud', options), /busybox-static_1:1.35.deb: 8 bytes, the index says/);
  assert.equal((await openImage('debian-cloud', options)).manifest.packages[0]!.version, '6.1-2');
});

test('a mirror whose index does not fit its Release is refused, and so is what is no URL', async (t) => {
  const files = makeMirror();
  files.set('/dists/test/main/binary-amd64/Packages.gz', gzipSync(''));
  const url = await serve(t, (request, response) => response.end(files.get(decodeURIComponent(request.url!))));
  const cache = { root: join(root, 'refused') };
  await assert.rejects(
    openImage('debian-cloud', { cache, env: { NONROOT_MIRROR: url.href, NONROOT_SUITE: 'test' } }),
    /Cannot accept Packages.gz/,
  );
  await assert.rejects(
    openImage('debian-i386', { cache, env: { NONROOT_MIRROR: url.href, NONROOT_SUITE: 'test' } }),
    /lists no main\/binary-i386/,
  );
  await assert.rejects(openImage('debian-cloud', { cache, env: { NONROOT_MIRROR: 'mirror' } }), /Cannot use mirror "mirror"/);
});
