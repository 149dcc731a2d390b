import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readAr } from './ar.ts';
import { readDeb } from './deb.ts';
import { makeAr, makeTar } from './testing.ts';

const never = () => Promise.reject(new Error('not compressed'));

test('ar members come with their names and exact sizes, odd ones too', () => {
  const members = readAr(makeAr({ 'one/': 'abc', two: '', three: 'xy' }));
  assert.deepEqual(
    members.map(({ name, data }) => [name, new TextDecoder().decode(data)]),
    [
      ['one', 'abc'],
      ['two', ''],
      ['three', 'xy'],
    ],
  );
});

test('damaged ar archives are refused', () => {
  const good = makeAr({ one: 'abcd' });
  assert.throws(() => readAr(new Uint8Array(5)), /no "!<arch>"/);
  assert.throws(() => readAr(good.subarray(0, good.length - 1)), /has size "4", 3 bytes are left/);
  assert.throws(() => readAr(good.subarray(0, 30)), /no member header at offset 8/);
});

test('a package gives the files of its data member, decompressed by what its name says', async () => {
  const tar = makeTar({ name: './boot/vmlinuz-1', data: 'kernel' });
  const asked: string[] = [];
  for (const [name, format] of Object.entries({ 'data.tar.xz': 'xz', 'data.tar.zst': 'zstd', 'data.tar.gz': 'gzip' })) {
    const deb = makeAr({ 'debian-binary': '2.0\n', 'control.tar.xz': '', [name]: 'packed' });
    const files = await readDeb(deb, (wanted, bytes) => {
      asked.push(`${wanted} ${new TextDecoder().decode(bytes)}`);
      return Promise.resolve(tar);
    });
    assert.equal(asked.at(-1), `${format} packed`);
    assert.deepEqual(
      files.map((entry) => entry.path),
      ['boot/vmlinuz-1'],
    );
  }
  const plain = await readDeb(makeAr({ 'debian-binary': '2.0\n', 'data.tar': tar }), never);
  assert.equal(plain.length, 1);
});

test('other formats are refused', async () => {
  await assert.rejects(readDeb(makeAr({ 'debian-binary': '3.0\n' }), never), /format "3.0", accepted is 2.x/);
  await assert.rejects(readDeb(makeAr({ 'debian-binary': '2.0\n', 'data.tar.lzma': '' }), never), /its data is "data.tar.lzma"/);
  await assert.rejects(readDeb(makeAr({ 'debian-binary': '2.0\n' }), never), /its data is "missing"/);
});
