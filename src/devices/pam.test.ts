import assert from 'node:assert/strict';
import { test } from 'node:test';
import { applyPam } from './pam.ts';

function apply(registers: number[], rom?: { host: number; length: number }) {
  const pages = new Map<number, string>();
  const slots = {
    low(first: number, count: number, what: 'ram' | 'bus' | number, readOnly = false) {
      for (let i = 0; i < count; i++)
        pages.set(
          first + i,
          typeof what === 'number' ? `rom ${(what + i * 4096).toString(16)}` : readOnly ? `${what} read-only` : what,
        );
    },
  };
  applyPam(slots as unknown as Parameters<typeof applyPam>[0], (n) => registers[n]!, rom);
  return pages;
}

test('after reset the end of the ROM shows below 1 MiB', () => {
  const pages = apply([0, 0, 0, 0, 0, 0, 0], { host: 0x100_0000, length: 0x4_0000 });
  assert.equal(pages.size, 64);
  assert.equal(pages.get(0xff), 'rom 103f000');
  assert.equal(pages.get(0xe0), 'rom 1020000');
  assert.equal(pages.get(0xdf), 'bus');
});

test('areas become RAM, and RAM that cannot be written', () => {
  const pages = apply([0x30, 0x33, 0x11, 0, 0, 0, 0], { host: 0, length: 0x4_0000 });
  assert.equal(pages.get(0xf0), 'ram');
  assert.equal(pages.get(0xc0), 'ram');
  assert.equal(pages.get(0xc7), 'ram');
  assert.equal(pages.get(0xc8), 'ram read-only');
  assert.equal(pages.get(0xd0), 'bus');
});
