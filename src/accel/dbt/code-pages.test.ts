import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Pieces } from '../../isa/x86/memory.ts';
import * as st from '../../isa/x86/state.ts';
import { CodePages } from './code-pages.ts';
import { Area, createMemory, layoutOf } from './layout.ts';

const MIB = 1 << 20;

function pages(): {
  readonly vcpus: readonly CodePages[];
  pieces(vcpu: number, page: number): readonly [number, number] | undefined;
} {
  const layout = layoutOf(4 * MIB, 2);
  const buffer = createMemory(layout).buffer as ArrayBufferLike as SharedArrayBuffer;
  const view = new DataView(buffer);
  const env = (n: number): number => layout.vcpuBase + n * layout.vcpuBytes;
  return {
    vcpus: [0, 1].map((n) => new CodePages(buffer, layout, env(n))),
    pieces(vcpu, page) {
      const at = env(vcpu) + Area.pieces + (page & (st.PIECE_ENTRIES - 1)) * st.PIECE_ENTRY_BYTES;
      if (view.getInt32(at + Pieces.page, true) !== page + 1) return undefined;
      return [view.getInt32(at + Pieces.bits, true), view.getInt32(at + Pieces.bits + 4, true)];
    },
  };
}

test('the first vCPU that decodes code of a page is told so, and each of them whether others hold some', () => {
  const [a, b] = pages().vcpus as [CodePages, CodePages];
  assert.deepEqual([a.claim(7), a.claim(7), a.othersHold(7), b.othersHold(7)], [true, false, false, true]);
  assert.deepEqual([b.claim(7), a.othersHold(7), b.claim(8)], [false, true, true]);
  b.drop(7);
  b.drop(7);
  assert.deepEqual([a.othersHold(7), a.othersHold(8)], [false, true]);
  b.dropAll();
  assert.deepEqual([a.othersHold(8), a.claim(8)], [false, true]);
});

test('a page without code is given up after some writes, unless code comes meanwhile', () => {
  const [a, b] = pages().vcpus as [CodePages, CodePages];
  const writes = (): number => {
    for (let n = 1; ; n++) {
      a.written(3);
      if (!b.othersHold(3)) return n;
      assert.ok(n < 1000);
    }
  };
  a.claim(3);
  const some = writes();
  assert.ok(some > 1);
  a.claim(3);
  for (let n = 1; n < some; n++) a.written(3);
  assert.ok(b.othersHold(3));
  a.claim(3);
  assert.equal(writes(), some);
});

test('pieces are noted for a page, all of them where it shows at two addresses, and forgotten with it', () => {
  const { vcpus, pieces } = pages();
  const [a] = vcpus as [CodePages, CodePages];
  a.claim(5);
  a.note(5, 0x5000, 6, 1);
  assert.deepEqual([pieces(0, 5), pieces(1, 5)], [[6, 1], undefined]);
  a.note(5, 0x5000, 0, 0);
  assert.equal(pieces(0, 5), undefined);
  a.note(5, 0x9000, 1, 0);
  assert.deepEqual(pieces(0, 5), [-1, -1]);
  a.drop(5);
  assert.equal(pieces(0, 5), undefined);
  // A page that shares the entry does not take the other one's for its own.
  a.note(6, 0x6000, 2, 0);
  a.note(6 + st.PIECE_ENTRIES, 0x7000, 4, 0);
  assert.deepEqual([pieces(0, 6), pieces(0, 6 + st.PIECE_ENTRIES)], [undefined, [4, 0]]);
  a.drop(6);
  assert.deepEqual(pieces(0, 6 + st.PIECE_ENTRIES), [4, 0]);
  a.dropAll();
  assert.equal(pieces(0, 6 + st.PIECE_ENTRIES), undefined);
});
