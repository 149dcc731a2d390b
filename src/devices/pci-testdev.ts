// A PCI device that counts what a guest writes to it, for measuring accesses to memory and ports. QEMU docs/specs/pci-testdev.rst.
// Each BAR has three tests; the guest chooses one by its number, finds out of it where to write what, and reads how often it has.

import type { Arena } from '../bits/arena.ts';
import { struct } from '../bits/struct.ts';
import type { Handler } from '../bus/space.ts';

export const testdevBars = { memory: 4096, ports: 256 } as const;
/** Where writes count: the offset of each BAR's first test, one byte for each of them. */
const targets = { memory: 2048, ports: 128 } as const;
const names = { memory: 'mmio', ports: 'portio' } as const;
const tests = ['no-eventfd', 'wildcard-eventfd', 'datamatch-eventfd'] as const;
/** Of what is shown of a test. */
const header = { test: 0, width: 1, offset: 4, data: 8, count: 12, name: 16 } as const;
const WIDTH = 1;
const MATCHED = 0xfa;
const UNMATCHED = 0xce;
const NONE = 0xff;

export const testdevCounts = struct({ current: 'u8', counts: ['u32', 2 * tests.length] }, { name: 'pci-testdev', version: 1 });

/** The two BARs, which share what was chosen and counted. */
export function pciTestdev(arena: Arena, name: string) {
  const s = arena.alloc(testdevCounts, name);
  const describe = (kind: 'memory' | 'ports', test: number) => {
    const anything = tests[test] === 'wildcard-eventfd';
    return { offset: targets[kind] + test * WIDTH, anything, data: anything ? UNMATCHED : MATCHED };
  };
  const bar = (kind: 'memory' | 'ports', first: number): Handler => ({
    max: 4,
    read(offset, size) {
      if (s.current === NONE) return 0;
      // The chosen test shows in either BAR.
      const test = s.current % tests.length;
      const own = s.current < tests.length ? 'memory' : 'ports';
      const text = `${names[own]}-${tests[test]}`;
      const bytes = new Uint8Array(header.name + text.length + 1);
      const view = new DataView(bytes.buffer);
      const { offset: target, data } = describe(own, test);
      bytes[header.test] = test;
      bytes[header.width] = WIDTH;
      view.setUint32(header.offset, target, true);
      bytes[header.data] = data;
      view.setUint32(header.count, s.counts[s.current]!, true);
      for (let i = 0; i < text.length; i++) bytes[header.name + i] = text.charCodeAt(i);
      let value = 0;
      for (let i = 0; i < size; i++) value += (bytes[offset + i] ?? 0) * 2 ** (8 * i);
      return value;
    },
    write(offset, size, value) {
      if (offset === header.test) {
        s.current = NONE;
        if (value >= tests.length) return;
        s.current = first + value;
        s.counts[s.current] = 0;
        return;
      }
      if (s.current < first || s.current >= first + tests.length) return;
      const { offset: target, anything, data } = describe(kind, s.current - first);
      if (offset !== target || (!anything && (size !== WIDTH || value !== data))) return;
      s.counts[s.current] = s.counts[s.current]! + 1;
    },
  });
  return {
    memory: bar('memory', 0),
    ports: bar('ports', tests.length),
    reset(): void {
      s.current = NONE;
      s.counts.fill(0);
    },
  };
}
