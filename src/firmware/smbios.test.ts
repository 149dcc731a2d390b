import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildSmbios, linkSmbios, type SmbiosConfig } from './smbios.ts';

const config: SmbiosConfig = {
  sockets: 2,
  coresPerSocket: 2,
  threadsPerCore: 1,
  cpuModel: 'qemu64',
  ramBelow4G: 0x8000_0000,
  ramAbove4G: 0x1_0000_0000,
  system: { manufacturer: 'ACME', uuid: '00112233-4455-6677-8899-aabbccddeeff', serial: 'S-1' },
};
interface Structure {
  readonly type: number;
  readonly area: DataView;
  readonly strings: string[];
}

/** Reads the structures as section 6.1 says: formatted area, strings, an empty string. */
const structures = (tables: Uint8Array): Structure[] => {
  const list: Structure[] = [];
  for (let at = 0; at < tables.length; ) {
    const area = new DataView(tables.buffer, tables.byteOffset + at, tables[at + 1]!);
    const strings: string[] = [];
    let next = at + tables[at + 1]!;
    while (tables[next] !== 0) {
      const end = tables.indexOf(0, next);
      strings.push(new TextDecoder().decode(tables.slice(next, end)));
      next = end + 1;
    }
    next += strings.length === 0 ? 2 : 1;
    list.push({ type: tables[at]!, area, strings });
    at = next;
  }
  return list;
};

test('the entry point has a right checksum and points to the tables behind it', () => {
  const image = buildSmbios(config);
  const block = linkSmbios(image, 0xf0000, 0x10000);
  const view = new DataView(block.buffer);
  assert.equal(String.fromCharCode(...block.subarray(0, 5)), '_SM3_');
  assert.equal(block.subarray(0, 24).reduce((sum, byte) => sum + byte, 0) & 0xff, 0);
  assert.deepEqual(
    [block[6], block[7], view.getUint32(12, true), view.getBigUint64(16, true)],
    [24, 3, image.tables.length, 0xf0020n],
  );
  assert.deepEqual(block.subarray(32), image.tables);
  assert.throws(() => linkSmbios(image, 0xf0000, 100), /Cannot place SMBIOS tables/);
});

test('each structure that a guest expects is there, with the length of its version', () => {
  const list = structures(buildSmbios(config).tables);
  assert.deepEqual(
    list.map((s) => [s.type, s.area.byteLength]),
    [
      [0, 24],
      [1, 27],
      [3, 22],
      [4, 48],
      [4, 48],
      [16, 23],
      [17, 40],
      [19, 31],
      [19, 31],
      [32, 11],
      [127, 4],
    ],
  );
  const handles = list.map((s) => s.area.getUint16(2, true));
  assert.equal(new Set(handles).size, handles.length);
});

test('UUID, strings, cores and memory sizes are where the specification puts them', () => {
  const list = structures(buildSmbios(config).tables);
  const [system, processor, array, device, , high] = [1, 3, 5, 6, 7, 8].map((i) => list[i]!);
  assert.deepEqual(system!.strings, ['ACME', 'Virtual Machine', 'S-1']);
  assert.deepEqual(
    [4, 5, 6, 7].map((at) => system!.area.getUint8(at)),
    [1, 2, 0, 3],
  );
  const uuid = Array.from({ length: 16 }, (_, i) => system!.area.getUint8(8 + i));
  assert.deepEqual(uuid, [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]);
  assert.equal(processor!.strings[2], 'qemu64');
  assert.deepEqual([processor!.area.getUint8(0x23), processor!.area.getUint16(0x2a, true)], [2, 2]);
  assert.equal(array!.area.getUint32(7, true), 6 * 1024 * 1024);
  assert.equal(device!.area.getUint16(0x0c, true), 6144);
  assert.deepEqual([high!.area.getUint32(4, true), high!.area.getUint32(8, true)], [0x40_0000, 0x7f_ffff]);
});

test('a memory of 64 GiB uses the extended size', () => {
  const list = structures(buildSmbios({ ...config, ramAbove4G: 62 * 2 ** 30 }).tables);
  assert.deepEqual([list[6]!.area.getUint16(0x0c, true), list[6]!.area.getUint32(0x1c, true)], [0x7fff, 65536]);
});

test('a malformed UUID is refused', () => {
  assert.throws(() => buildSmbios({ ...config, system: { uuid: 'xyz' } }), /UUID "xyz", accepted are 32 hex digits/);
});
