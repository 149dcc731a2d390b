// Near branches over the edge of the canonical addresses, as the tiers see them (Intel SDM volume 2, JMP, Jcc and CALL).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MIB, type Rig, rig, settle } from './testing.ts';

/** Where the handler of #GP lies, which writes 13 to port 0x80. */
const HANDLER = 0x30000;
const [TABLES, IDT, GDT, STACK] = [0x1000, 0x20000, 0x21000, 0x40000];

/** A vCPU under paging: 2 MiB one to one, and the pages of `map` (linear address: physical). */
function paged(
  regions: 'off' | 'always' | 'hot',
  code: Readonly<Record<number, string>>,
  map: readonly (readonly [bigint, number])[],
): Rig {
  const r = rig(regions, '');
  const { vcpu, bytes, layout } = r;
  const memory = new DataView(bytes.buffer, layout.ramBase);
  let next = TABLES + 0x1000;
  const enter = (linear: bigint, physical: number): void => {
    let table = TABLES;
    for (const shift of [39n, 30n, 21n, 12n]) {
      const at = table + Number((linear >> shift) & 511n) * 8;
      if (shift === 12n) memory.setBigUint64(at, BigInt(physical) | 3n, true);
      else if (memory.getBigUint64(at, true) === 0n) {
        memory.setBigUint64(at, BigInt(next) | 3n, true);
        next += 0x1000;
      }
      table = Number(memory.getBigUint64(at, true) & ~0xfffn);
    }
  };
  for (let p = 0; p < 2 * MIB; p += 0x1000) enter(BigInt(p), p);
  for (const [linear, physical] of map) enter(linear, physical);
  for (const [at, hex] of Object.entries({ ...code, [HANDLER]: 'b00d e680 f4' }))
    bytes.set(Buffer.from(hex.replaceAll(' ', ''), 'hex'), layout.ramBase + Number(at));
  memory.setBigUint64(GDT + 8, 0x00af9b000000ffffn, true);
  memory.setBigUint64(IDT + 13 * 16, 0x00038e0000080000n, true);
  const registers = {
    cr3: TABLES, cr4: 0x20, cr0: 0x80000001, 'idtr.base': IDT, 'idtr.limit': 0xfff, 'gdtr.base': GDT, 'gdtr.limit': 15, rsp: STACK, 'cs.selector': 8,
  }; // biome-ignore format: one line of values
  for (const [name, value] of Object.entries(registers)) vcpu.set(name, BigInt(value));
  vcpu.sync();
  return r;
}
/** RIP, RSP and error code of the frame that the handler has got. */
function frame({ vcpu, bytes, layout }: Rig): bigint[] {
  const memory = new DataView(bytes.buffer, layout.ramBase);
  const at = Number(vcpu.get('rsp'));
  return [8, 32, 0].map((offset) => memory.getBigInt64(at + offset, true));
}

for (const regions of ['off', 'always', 'hot'] as const) {
  const name = regions === 'off' ? 'tier 0' : `regions (${regions})`;
  const LAST = 0x7fff_ffff_f000n;
  const FIRST = -0x8000_0000_0000n;

  test(`${name}: a branch over the edge faults where it stands, in either direction, and a page is what its address makes it`, () => {
    // L: dec ecx; jnz L; mov al,1; out 0x80,al; jmp +0x1000
    const body = 'ffc9 75fc b001 e680 e9 00100000';
    // Behind it, where that is code: mov al,2; out 0x80,al; hlt
    const after = 'b002 e680 f4';
    const [page, next] = [0x60000, 0x61000];
    const near = 0x80000n;
    const r = paged(regions, { [page]: body, [next + 13]: after }, [[LAST, page], [near, page], [near + 0x1000n, next]]); // biome-ignore format: pairs
    const { vcpu, out } = r;
    for (const [rip, last] of [[near, 2], [LAST, 13], [near, 2], [LAST, 13], [near, 2]] as const) {
      for (const [register, value] of [['activity', 0n], ['rip', rip], ['rcx', 30_000n], ['rsp', BigInt(STACK)]] as const) vcpu.set(register, value);
      assert.equal(settle(vcpu), 'hlt');
      assert.deepEqual(out.splice(0), [1, last]);
      if (last === 13) assert.deepEqual(frame(r), [LAST + 8n, BigInt(STACK), 0n]);
    } // biome-ignore format: pairs

    // Downwards: jmp -0x20
    const down = paged(regions, { [page]: 'ebe0' }, [[FIRST, page]]);
    down.vcpu.set('rip', FIRST);
    assert.equal(settle(down.vcpu), 'hlt');
    assert.deepEqual([...down.out, ...frame(down)], [13, FIRST, BigInt(STACK), 0n]);
  });

  test(`${name}: a long branch is held against the edge from wherever it starts`, () => {
    // L: dec ecx; jnz L; call +0x7ff00000
    const body = 'ffc9 75fc e8 0000f07f';
    const [page, next] = [0x60000, 0x61000];
    const start = (1n << 47n) - 0x7ff00000n;
    const low = 0x4000_0000_0000n;
    const r = paged(regions, { [page]: body, [next + 9]: 'b002 e680 f4' }, [[start, page], [low, page], [low + 0x7ff00000n, next]]); // biome-ignore format: pairs
    for (const [rip, last] of [[low, 2], [start, 13], [low, 2], [start, 13]] as const) {
      for (const [register, value] of [['activity', 0n], ['rip', rip], ['rcx', 30_000n], ['rsp', BigInt(STACK)]] as const) r.vcpu.set(register, value);
      assert.equal(settle(r.vcpu), 'hlt');
      assert.deepEqual(r.out.splice(0), [last]);
      if (last === 13) assert.deepEqual(frame(r), [start + 4n, BigInt(STACK), 0n]);
    } // biome-ignore format: pairs
  });

  test(`${name}: a branch to another page goes where its own address leads`, () => {
    // One page at two addresses, with other pages behind each. mov ecx,30; M: call rsi; call rdi; dec ecx; jnz M; hlt; jmp +0xffb
    const [page, one, two] = [0x60000, 0x61000, 0x62000];
    const [a, b] = [0x4000_0000n, 0x5000_0000n];
    const { vcpu } = paged(
      regions,
      { [page]: 'e9 fb0f0000', [one]: '48ffc0 c3', [two]: '48ffc3 c3', 65536: 'b930000000 ffd6 ffd7 ffc9 75f8 f4' },
      [
        [a, page],
        [b, page],
        [a + 0x1000n, one],
        [b + 0x1000n, two],
      ],
    );
    for (const [register, value] of [['rsi', a], ['rdi', b]] as const) vcpu.set(register, value); // biome-ignore format: pairs
    assert.equal(settle(vcpu), 'hlt');
    assert.deepEqual([vcpu.get('rax'), vcpu.get('rbx')], [48n, 48n]);
  });
}
