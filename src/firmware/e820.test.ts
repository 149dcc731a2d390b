import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildE820, E820_RAM, E820_RESERVED, encodeE820 } from './e820.ts';

test('the map of a PC has RAM around the VGA and BIOS area and above 4 GiB', () => {
  const map = buildE820({ ramBelow4G: 0x8000_0000, ramAbove4G: 0x4000_0000 });
  assert.deepEqual(
    map.map((r) => [r.start, r.start + r.size, r.type]),
    [
      [0, 0x9fc00, E820_RAM],
      [0x9fc00, 0xa0000, E820_RESERVED],
      [0xe0000, 0x100000, E820_RESERVED],
      [0x100000, 0x8000_0000, E820_RAM],
      [0x1_0000_0000, 0x1_4000_0000, E820_RAM],
    ],
  );
});

test('reserved ranges are cut out of RAM wherever they are', () => {
  const reserved = [
    { start: 0xb000_0000, size: 0x1000_0000, type: E820_RESERVED },
    { start: 0x200000, size: 0x1000, type: 3 },
    { start: 0x7ff_f000, size: 0x1000, type: 4 },
  ];
  const map = buildE820({ ramBelow4G: 0x800_0000, ramAbove4G: 0, reserved });
  assert.deepEqual(
    map.slice(3).map((r) => [r.start, r.start + r.size, r.type]),
    [
      [0x100000, 0x200000, 1],
      [0x200000, 0x201000, 3],
      [0x201000, 0x7ff_f000, 1],
      [0x7ff_f000, 0x800_0000, 4],
      [0xb000_0000, 0xc000_0000, 2],
    ],
  );
});

test('for any reservation, the map is sorted, free of overlaps and loses no RAM', () => {
  for (let start = 0; start < 0x40_0000; start += 0x1_8c00) {
    const reserved = [{ start, size: 0x5000, type: 2 }];
    if (start + 0x5000 > 0x9fc00 && start < 0x100000) continue;
    const map = buildE820({ ramBelow4G: 0x40_0000, ramAbove4G: 0x1000, reserved });
    for (const [i, r] of map.entries()) assert.ok(i === 0 || map[i - 1]!.start + map[i - 1]!.size <= r.start);
    const ram = map.filter((r) => r.type === E820_RAM).reduce((sum, r) => sum + r.size, 0);
    const lost = Math.min(0x40_0000, start + 0x5000) - start;
    assert.equal(ram, 0x9fc00 + 0x30_0000 + 0x1000 - lost, `reservation at 0x${start.toString(16)}`);
  }
});

test('overlapping reservations are refused', () => {
  const reserved = [{ start: 0xf0000, size: 0x1000, type: 3 }];
  assert.throws(
    () => buildE820({ ramBelow4G: 0x40_0000, ramAbove4G: 0, reserved }),
    /Cannot build the memory map: .*0xe0000 and 0xf0000 overlap/,
  );
});

test('records have 20 bytes: start, size, type', () => {
  const bytes = encodeE820([{ start: 0x1_2345_6789, size: 0x10, type: 2 }]);
  assert.deepEqual([...bytes], [0x89, 0x67, 0x45, 0x23, 1, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
});
