// What libvirtd 9.0 answers to definitions with NUMA cells, and the command lines that it makes of them.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cpu } from './model/system.ts';
import { cellDistances, completeCells, formatBitmap, parseBitmap, settleCells } from './numa.ts';
import { parseXml } from './xml.ts';

const cellsOf = (inner: string) => cpu.parse(parseXml(`<cpu><numa>${inner}</numa></cpu>`)).numa!.cells;
const first = "<cell id='0' cpus='0-1' memory='128' unit='MiB'";
const second = "<cell id='1' cpus='2-3' memory='128' unit='MiB'";

test('cells are put in order and their bitmaps in plain form', () => {
  const cells = cellsOf(`<cell id='1' cpus='2,3' memory='128' unit='MiB'/>${first}/>`);
  assert.deepEqual(
    cells.map(({ id, cpus, memory }) => [id, cpus, memory]),
    [
      [0, '0-1', '131072'],
      [1, '2-3', '131072'],
    ],
  );
});

test('vCPUs of no cell are the first one’s', () => {
  const cells = cellsOf(`${first}/><cell memory='128' unit='MiB'/>`);
  completeCells(cells, 4);
  assert.deepEqual(
    cells.map(({ cpus }) => cpus),
    ['0-3', undefined],
  );
});

test('a distance holds both ways unless the other way has its own', () => {
  const one = cellsOf(`${first}><distances><sibling id='1' value='21'/></distances></cell>${second}/>`);
  assert.deepEqual(
    cellDistances(one).map(({ val }) => val),
    [10, 21, 21, 10],
  );
  assert.deepEqual(one[1]!.distances!.siblings, [
    { id: 0, value: 21 },
    { id: 1, value: 10 },
  ]);
  const two = cellsOf(
    `${first}><distances><sibling id='0' value='10'/><sibling id='1' value='21'/></distances></cell>${second}><distances><sibling id='0' value='31'/></distances></cell>`,
  );
  assert.deepEqual(
    cellDistances(two).map(({ val }) => val),
    [10, 21, 31, 10],
  );
  assert.deepEqual(cellDistances(cellsOf(`${first}/>${second}/>`)), []);
});

const sibling = (text: string): string => `${first}><distances><sibling ${text}/></distances></cell>${second}/>`;
const refused: readonly (readonly [inner: string, says: string])[] = [
  [`${first}/><cell id='1' cpus='1-2' memory='1'/>`, 'unsupported configuration: NUMA cells 1 and 0 have overlapping vCPU ids'],
  [`${first}/>${first}/>`, "XML error: Duplicate NUMA cell info for cell id '0'"],
  [
    `${first}/><cell id='2' cpus='2-3' memory='1'/>`,
    "XML error: Exactly one 'cell' element per guest NUMA cell allowed, non-contiguous ranges or ranges not starting from 0 are not allowed",
  ],
  [`${first}/><cell id='1' cpus='x' memory='1'/>`, "invalid argument: Failed to parse bitmap 'x'"],
  [`${first}/><cell id='1' cpus='3-2' memory='1'/>`, "invalid argument: Failed to parse bitmap '3-2'"],
  [`${first}/><cell id='1' cpus='2-3'/>`, "XML error: missing element or attribute './@memory'"],
  [`${first} memAccess='foo'/>`, "XML error: Invalid value for attribute 'memAccess' in element 'cell': 'foo'."],
  [sibling("id='5' value='21'"), "XML error: 'sibling_id 5' does not refer to a valid cell within NUMA 'cell id 0'"],
  [sibling("id='1' value='5'"), "XML error: 'value 5' is invalid for 'sibling id 1' under NUMA 'cell id 0'"],
  [sibling("id='1' value='256'"), "XML error: 'value 256' is invalid for 'sibling id 1' under NUMA 'cell id 0'"],
  [sibling("id='0' value='20'"), "XML error: 'value 20' is invalid for 'sibling id 0' under NUMA 'cell id 0'"],
  [sibling("value='20'"), "XML error: Missing required attribute 'id' in element 'sibling'"],
  [sibling("id='1'"), "XML error: Missing required attribute 'value' in element 'sibling'"],
];
for (const [inner, says] of refused) test(`refused: ${says}`, () => assert.throws(() => cellsOf(inner), { message: says }));

test('bitmaps are bounded', () => {
  assert.equal(formatBitmap(parseBitmap('0-2,4,^1')), '0,2,4');
  assert.throws(() => parseBitmap('16384'), /Failed to parse bitmap/);
  assert.throws(() => parseBitmap('0,'.repeat(3000)), /Failed to parse bitmap/);
  assert.deepEqual(settleCells([]), []);
});
