import assert from 'node:assert/strict';
import { test } from 'node:test';
import { moduleEntries, moduleName, readModuleInfo } from './modules.ts';
import { makeModule } from './testing.ts';

const ROOT = 'lib/modules/6.1/kernel/';
const files: Record<string, Uint8Array> = {
  [`${ROOT}virtio.ko`]: makeModule(['name=virtio', 'depends=']),
  [`${ROOT}virtio_ring.ko`]: makeModule(['name=virtio_ring', 'depends=virtio']),
  [`${ROOT}net/virtio-net.ko.xz`]: makeModule([
    'alias=virtio:d00000001v*',
    'depends=virtio,virtio_ring',
    'softdep=pre: crc32c post: extra',
  ]),
  [`${ROOT}extra.ko`]: makeModule(['depends=']),
  [`${ROOT}unused.ko`]: makeModule(['depends=']),
};

test('a driver brings what it needs, and tables by which modprobe finds it', async () => {
  const entries = await moduleEntries(Object.keys(files), ['virtio_net', 'not_in_this_kernel'], async (path) => files[path]!);
  const text = (name: string) => {
    const entry = entries.find((other) => other.path === `lib/modules/6.1/${name}`);
    return entry?.type === 'file' ? new TextDecoder().decode(entry.data) : undefined;
  };
  assert.deepEqual(
    entries.map((entry) => entry.path.slice('lib/modules/6.1/'.length)),
    ['kernel/extra.ko', 'kernel/virtio.ko', 'kernel/net/virtio-net.ko', 'kernel/virtio_ring.ko', 'modules.dep', 'modules.alias'],
  );
  // Loaded from the right: virtio first.
  assert.match(text('modules.dep')!, /^kernel\/net\/virtio-net\.ko: kernel\/virtio_ring\.ko kernel\/virtio\.ko$/m);
  assert.equal(text('modules.alias'), 'alias virtio:d00000001v* virtio_net\n');
});

test('modules that need each other do not hang the search', async () => {
  const circle: Record<string, Uint8Array> = {
    [`${ROOT}a.ko`]: makeModule(['depends=b']),
    [`${ROOT}b.ko`]: makeModule(['depends=a']),
  };
  const entries = await moduleEntries(Object.keys(circle), ['a'], async (path) => circle[path]!);
  assert.equal(entries.length, 4);
});

test('a kernel without any of the drivers gives no entries', async () => {
  assert.deepEqual(await moduleEntries(['boot/vmlinuz'], ['virtio_net'], () => Promise.reject(new Error('not asked'))), []);
});

test('files that are not modules are refused, whatever is cut off', () => {
  assert.throws(() => readModuleInfo(new Uint8Array(100)), /not a little-endian ELF file/);
  const good = makeModule(['depends=x']);
  for (let length = 0; length < good.length; length++)
    assert.throws(() => readModuleInfo(good.subarray(0, length)), /Cannot read kernel module/);
  assert.deepEqual(readModuleInfo(good).depends, ['x']);
  assert.equal(moduleName('kernel/virtio-rng.ko.zst'), 'virtio_rng');
});
