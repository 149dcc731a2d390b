import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Ram } from '../bus/memory.ts';
import { FwCfg, type FwCfgItems } from './fw-cfg.ts';
import { testBoard } from './testing.ts';

const RAM = 1 << 16;
function rig(files: FwCfgItems['files'] = new Map(), numbered: FwCfgItems['numbered'] = new Map()) {
  const b = testBoard();
  const bytes = new Uint8Array(new SharedArrayBuffer(RAM));
  const device = new FwCfg({ arena: b.arena, memory: new Ram(bytes.buffer, [{ gpa: 0, length: RAM, offset: 0 }]) });
  device.fill({ files, numbered });
  device.map(b.ports);
  device.reset();
  const view = new DataView(bytes.buffer);
  const swap = (v: number) => new DataView(Uint32Array.of(v).buffer).getUint32(0);
  return {
    ...{ b, bytes, view },
    item(key: number, length: number) {
      b.ports.write(0x510, 2, key);
      return Array.from({ length }, () => b.in(0x511));
    },
    /** An access by DMA that is described at 0x100; the control word that it leaves. */
    dma(control: number, length: number, address: number) {
      view.setUint32(0x100, control);
      view.setUint32(0x104, length);
      view.setBigUint64(0x108, BigInt(address));
      b.ports.write(0x518, 4, swap(0x100));
      return view.getUint32(0x100);
    },
  };
}
const text = (s: string) => new TextEncoder().encode(s);

test('the signature, the directory and files are read byte by byte', () => {
  const r = rig(
    new Map([
      ['etc/b', { data: text('two') }],
      ['etc/a', { data: () => text('first') }],
    ]),
    new Map([[5, Uint8Array.of(2, 0)]]),
  );
  assert.equal(String.fromCharCode(...r.item(0, 4)), 'QEMU');
  assert.deepEqual(r.item(1, 4), [3, 0, 0, 0]);
  assert.deepEqual(r.item(5, 3), [2, 0, 0]);
  const directory = r.item(0x19, 4 + 128);
  assert.deepEqual(directory.slice(0, 16), [0, 0, 0, 2, 0, 0, 0, 5, 0, 0x20, 0, 0, ...text('etc/')]);
  assert.equal(String.fromCharCode(...r.item(0x20, 5)), 'first');
  assert.deepEqual(r.item(0x21, 4), [...text('two'), 0]);
  assert.deepEqual(r.item(0x3fff, 2), [0, 0]);
  assert.equal(r.b.ports.read(0x514, 4), 0x554d_4551);
});

test('DMA selects, reads, skips and writes, and says what it cannot', () => {
  const shared = new Uint8Array(new SharedArrayBuffer(4));
  const r = rig(
    new Map([
      ['a', { data: text('0123456789') }],
      ['w', { data: shared, writable: true }],
    ]),
  );
  assert.equal(r.dma((0x20 << 16) | 8 | 2, 4, 0x800), 0);
  assert.equal(String.fromCharCode(...r.bytes.slice(0x800, 0x804)), '0123');
  assert.equal(r.dma(4, 2, 0), 0);
  assert.equal(r.dma(2, 6, 0x800), 0);
  assert.deepEqual([...r.bytes.slice(0x800, 0x806)], [...text('6789'), 0, 0]);
  assert.equal(r.dma((0x20 << 16) | 8 | 0x10, 4, 0x800), 1, 'a file that is not to be written');
  assert.equal(r.dma((0x21 << 16) | 8 | 0x10, 4, 0x800), 0);
  assert.deepEqual([...shared], [...text('6789')]);
  assert.equal(r.dma((0x20 << 16) | 8 | 2, 4, RAM - 2), 1, 'memory that is not there');
});

test('names that no file can have are refused', () => {
  assert.throws(() => rig(new Map([['x'.repeat(56), { data: text('') }]])), /Cannot name a fw_cfg file/);
});
