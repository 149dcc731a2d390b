import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { privateApt, systemApt } from './apt.ts';
import { readManifest, sha256, userCache } from './cache.ts';
import { openImage } from './fetch-image.ts';

const root = mkdtempSync(join(tmpdir(), 'nonroot-apt-'));
after(() => rmSync(root, { recursive: true }));

/** Runs with a PATH of two programs of our own in apt's place. */
async function withApt<T>(name: string, scripts: Readonly<Record<string, string>>, work: () => Promise<T>): Promise<T> {
  const bin = join(root, name);
  mkdirSync(bin);
  for (const [program, text] of Object.entries(scripts)) {
    writeFileSync(join(bin, program), `#!/bin/sh\nPATH=/usr/bin:/bin\n${text}`);
    chmodSync(join(bin, program), 0o755);
  }
  const before = process.env['PATH'];
  process.env['PATH'] = bin;
  try {
    return await work();
  } finally {
    process.env['PATH'] = before;
  }
}

const stanza = (version: string, body: string) =>
  `Package: busybox-static\nVersion: ${version}\nFilename: pool/b_${version}.deb\nSize: ${body.length}\nSHA256: ${sha256(body)}\n\n`;

test('a package is found and downloaded in the version asked for, with progress, and leaves nothing behind', async () => {
  const cache = { root: join(root, 'cache') };
  const show = `cat <<'END'\n${stanza('1.0', 'old')}${stanza('2.0', 'new')}END\n`;
  const get = `echo dlstatus:1:50.5:text >&3\nfor last; do :; done\n[ "$last" = busybox-static:amd64=2.0 ] || exit 3\nprintf new >busybox.deb\n`;
  await withApt('good', { 'apt-cache': show, 'apt-get': get }, async () => {
    const steps: unknown[] = [];
    const source = systemApt(cache, 'amd64', (step) => steps.push(step));
    const [entry] = await source.find('busybox-static');
    assert.equal(entry?.version, '2.0');
    assert.equal(Buffer.from(await source.get(entry)).toString(), 'new');
    assert.deepEqual(steps, [{ label: 'Fetching busybox-static 2.0', done: 50.5, total: 100 }]);
    await assert.rejects(source.get({ ...entry, version: '3.0' }), /Cannot download busybox-static 3.0: exit code 3/);
    await assert.rejects(source.get({ ...entry, sha256: sha256('x') }), /SHA-256/);
    assert.deepEqual(readdirSync(join(cache.root, 'tmp')), []);
  });
});

test('private lists are loaded once, into a directory that goes with the source', async () => {
  const cache = { root: join(root, 'private') };
  const get = `for a; do case $a in -oDir::State::lists=*) lists=\${a#*=};; esac; done
[ "$(cat "$lists/count" 2>/dev/null)" ] && exit 9
echo 1 >"$lists/count"; : >"$lists/x_Packages"; exit 100\n`;
  const show = `for a; do case $a in -oDir::State::lists=*) lists=\${a#*=};; esac; done\n[ -e "$lists/x_Packages" ] && cat <<'END'\n${stanza('1.0', 'x')}END\n`;
  await withApt('lists', { 'apt-cache': show, 'apt-get': get }, async () => {
    const source = privateApt(cache, 'i386');
    assert.equal((await source.find('busybox-static')).length, 1);
    assert.equal((await source.find('busybox-static')).length, 1);
    assert.equal(readdirSync(join(cache.root, 'tmp')).length, 1);
    await source.close();
    assert.deepEqual(readdirSync(join(cache.root, 'tmp')), []);
  });
  await withApt('no-lists', { 'apt-cache': '', 'apt-get': 'echo "E: no sources" >&2; exit 100' }, async () => {
    const source = privateApt(cache, 'i386');
    await assert.rejects(source.find('busybox-static'), /Cannot load package lists: no sources/);
    await source.close();
    assert.deepEqual(readdirSync(join(cache.root, 'tmp')), []);
  });
});

test('without apt the message names the other ways', async () => {
  await withApt('none', {}, async () => {
    await assert.rejects(
      openImage('debian-cloud', { cache: { root: join(root, 'none-cache') }, env: {} }),
      /no apt.*--kernel and --initrd.*NONROOT_MIRROR/,
    );
  });
});

test('when no source has the packages, every reason is told', async () => {
  await withApt('empty', { 'apt-cache': 'exit 100', 'apt-get': 'echo "E: no network" >&2; exit 100' }, async () => {
    await assert.rejects(
      openImage('debian-cloud', { cache: { root: join(root, 'empty-cache') }, env: {} }),
      /system's package lists: Cannot find package busybox-static\n.*private package lists: Cannot load package lists: no network\n/,
    );
  });
});

test("the default image is made of the packages that this machine's apt brings, into the cache that the user shares", async (t) => {
  if (!(await readManifest(userCache(), 'debian-cloud'))) {
    const trial = mkdtempSync(join(root, 'trial-'));
    const reached = spawnSync('apt-get', ['-oAPT::Sandbox::User=root', 'download', 'busybox-static'], {
      cwd: trial,
      encoding: 'utf8',
      timeout: 60_000,
    });
    if (reached.status !== 0)
      return t.skip(`apt reaches no packages here: ${reached.error?.message ?? reached.stderr.trim().split('\n').at(-1)}`);
  }
  const image = await openImage('debian-cloud');
  assert.match(image.manifest.packages[0]!.name, /^linux-image-[0-9].*-cloud-amd64$/);
  assert.deepEqual(Object.keys(image.manifest.files).sort(), ['busybox', 'kernel', 'modules']);
});
