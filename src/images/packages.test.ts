import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compareVersions, followDependency, parseDepends, parsePackages } from './packages.ts';

const stanza = (name: string, version: string, more = '') =>
  `Package: ${name}\nVersion: ${version}\nDescription: about it\n and more: of it\n${more}Filename: pool/main/${name}_${version}.deb\nSize: 12\nSHA256: ${'0a'.repeat(32)}\n`;

test('versions are ordered as Debian Policy 5.6.12 says', () => {
  const ordered = [
    '0.9~rc1-1',
    '0.9-1',
    '0.9-1+b1',
    '1.0~',
    '1.0',
    '1.0a',
    '1.0+x',
    '1.0.1',
    '1.2-9',
    '1.2-10',
    '1.10-1',
    '1:0.1',
  ];
  for (const [index, version] of ordered.entries()) {
    assert.equal(compareVersions(version, version), 0);
    for (const later of ordered.slice(index + 1)) {
      assert.ok(compareVersions(version, later) < 0, `${version} is older than ${later}`);
      assert.ok(compareVersions(later, version) > 0, `${later} is newer than ${version}`);
    }
  }
});

test('an index gives the wanted packages, newest first; stanzas without a file are left out', () => {
  const other = stanza('linux-image-amd64', '6.1.90-1').replace('0a0a', '0b0b');
  const installed = 'Package: busybox-static\nStatus: install ok installed\nVersion: 9\n';
  const index = [
    stanza('linux-image-amd64', '6.1.8-1'),
    other,
    installed,
    stanza('unwanted', '1'),
    stanza('busybox-static', '1:1.35'),
  ].join('\n');
  const found = parsePackages(index, (name) => name !== 'unwanted');
  assert.deepEqual([...found.keys()].sort(), ['busybox-static', 'linux-image-amd64']);
  assert.deepEqual(
    found.get('linux-image-amd64')?.map((entry) => entry.version),
    ['6.1.90-1', '6.1.8-1'],
  );
  const [busybox] = found.get('busybox-static')!;
  assert.deepEqual(busybox, {
    name: 'busybox-static',
    version: '1:1.35',
    filename: 'pool/main/busybox-static_1:1.35.deb',
    size: 12,
    sha256: '0a'.repeat(32),
    depends: [],
  });
});

test('a meta package leads to the kernel of the day with its version', () => {
  const depends = 'Depends: kmod (>= 1) | other:any, linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n';
  const [meta] = parsePackages(stanza('linux-image-cloud-amd64', '6.1.192-2', depends)).get('linux-image-cloud-amd64')!;
  assert.deepEqual(meta!.depends[0], [{ name: 'kmod', relation: '>=', version: '1' }, { name: 'other' }]);
  assert.deepEqual(followDependency(meta!, /^linux-image-[0-9]/), {
    name: 'linux-image-6.1.0-56-cloud-amd64',
    relation: '=',
    version: '6.1.192-2',
  });
  assert.equal(followDependency(meta!, /^nothing/), undefined);
  assert.deepEqual(parseDepends(''), []);
});
