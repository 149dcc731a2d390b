import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PortRegisters } from '../../bus/port-registers.ts';
import { REGION_FIRST } from './chain.ts';
import { alignRam, createMemory, layoutOf } from './layout.ts';
import { MAILBOX_BYTES, Mailbox, Request } from './mailbox.ts';
import { findRegion, REACH, type RegionSource } from './region.ts';
import { CODE, engine, MIB, rig, settle } from './testing.ts';
import { type RegionWish, translate } from './translate.ts';

for (const regions of ['off', 'always'] as const) {
  const name = regions === 'off' ? 'tier 0' : 'regions';

  test(`${name}: a nested loop counts right and retires what it ran`, () => {
    // mov ecx,10; outer: mov edx,5; inner: inc rax; dec edx; jnz inner; dec ecx; jnz outer; hlt
    const { vcpu } = rig(regions, 'b9 0a000000 ba 05000000 48ffc0 ffca 75f9 ffc9 75f0 f4');
    assert.equal(settle(vcpu), 'hlt');
    assert.equal(vcpu.get('rax'), 50n);
    assert.equal(vcpu.instructions, 1 + 10 * (1 + 15 + 2) + 1);
  });

  test(`${name}: a port that is called has the general registers, and what it leaves in them`, () => {
    const calls: number[][] = [];
    const callPort = (r: PortRegisters): void => {
      calls.push([r.eax, r.ebx, r.ecx]);
      [r.eax, r.ebx, r.edi] = [r.ebx + 1, 0xfedc_ba98, r.ecx];
    };
    // mov edx,0x5658; mov rbx,-1; mov ecx,3; loop: mov eax,9; in eax,dx; add esi,ebx; mov ebx,ecx; dec ecx; jnz loop; in al,dx; out dx,eax; hlt
    const code = 'ba 58560000 48c7c3 ffffffff b9 03000000 b8 09000000 ed 01de 89cb ffc9 75f2 ec ef f4';
    const { vcpu } = rig(regions, code, 'long', { calledPort: 0x5658, callPort });
    assert.equal(settle(vcpu), 'hlt');
    assert.deepEqual(calls, [
      [9, 0xffff_ffff, 3],
      [9, 3, 2],
      [9, 2, 1],
      [3, 1, 0],
      [2, 0xfedc_ba98, 0],
    ]);
    assert.equal(vcpu.get('rax'), 0xfedc_ba99n);
    assert.equal(vcpu.get('rbx'), 0xfedc_ba98n, 'the upper half is gone');
    assert.deepEqual([vcpu.get('rdi'), vcpu.get('rsi')], [0n, BigInt(3 * 0xfedc_ba98) & 0xffff_ffffn]);
  });

  test(`${name}: a store into the running loop takes effect at the next instruction`, () => {
    // mov ecx,3; loop: mov byte [rip+2],1 (the immediate of the next instruction); add eax,0; dec ecx; jnz loop; hlt
    const { vcpu } = rig(regions, 'b9 03000000 c605 02000000 01 83c0 00 ffc9 75f2 f4');
    assert.equal(settle(vcpu), 'hlt');
    assert.equal(vcpu.get('rax'), 3n);
  });

  test(`${name}: code that was decoded before is run as it is now`, () => {
    // call f; mov byte [f+1],7; call f; hlt … f: mov al,5; out 0x80,al; ret
    const { vcpu, out } = rig(regions, 'e8 0d000000 c605 07000000 07 e8 01000000 f4 b005 e680 c3');
    assert.equal(settle(vcpu), 'hlt');
    assert.deepEqual(out, [5, 7]);
  });

  test(`${name}: flags of a comparison reach a SETcc behind a branch, and LAHF`, () => {
    // mov eax,1; cmp eax,2; jg over; setl bl; lahf; over: hlt
    const { vcpu } = rig(regions, 'b8 01000000 83f802 7f04 0f9cc3 9f f4');
    assert.equal(settle(vcpu), 'hlt');
    assert.equal(vcpu.get('rbx') & 0xffn, 1n);
    // SF, AF, PF, CF of 1 - 2: 0x97.
    assert.equal((vcpu.get('rax') >> 8n) & 0xffn, 0x97n);
  });

  test(`${name}: REP MOVS and STOS of all sizes and lengths do what their elements would do one by one`, () => {
    const [from, to] = [0x40ff3, 0x60ffd];
    const value = 0x1122334455667788n;
    for (const [size, prefix] of [[1, ''], [2, '66'], [4, ''], [8, '48']] as const) {
      for (const count of [0, 1, 3, 4, 7, 100, 1024, 3000, 9000]) {
        // rep movs; mov rdi,r8; mov rcx,r9; rep stos; hlt
        const [movs, stos] = size === 1 ? ['a4', 'aa'] : ['a5', 'ab'];
        const { vcpu, bytes, layout } = rig(regions, `f3${prefix}${movs} 4c89c7 4c89c9 f3${prefix}${stos} f4`.replace(/f366/g, '66f3'));
        const length = size * count;
        const expected = bytes.slice(layout.ramBase + to - 8, layout.ramBase + to + length + 8);
        for (let i = 0; i < length; i++) {
          bytes[layout.ramBase + from + i] = (i * 7 + 1) & 255;
          expected[8 + i] = (i * 7 + 1) & 255;
        }
        const other = 0xa0ffb;
        const registers = { rsi: from, rdi: to, rcx: count, r8: other, r9: count };
        for (const [r, v] of Object.entries(registers)) vcpu.set(r, BigInt(v));
        vcpu.set('rax', value);
        assert.equal(settle(vcpu), 'hlt');
        assert.deepEqual(bytes.slice(layout.ramBase + to - 8, layout.ramBase + to + length + 8), expected, `movs ${size} ${count}`);
        const filled = bytes.subarray(layout.ramBase + other, layout.ramBase + other + length);
        assert.ok(filled.every((x, i) => x === Number((value >> BigInt(8 * (i % size))) & 255n)), `stos ${size} ${count}`);
        assert.equal(bytes[layout.ramBase + other + length], 0);
        assert.deepEqual(['rcx', 'rsi', 'rdi'].map((r) => Number(vcpu.get(r))), [0, from + length, other + length]);
      }
    }
  }); // biome-ignore format: long lists

  test(`${name}: REP MOVS of sides that overlap does what its elements would do one by one`, () => {
    const from = 0x40ff2;
    for (const [size, code] of [[1, 'f3a4'], [4, 'f3a5'], [8, 'f348a5']] as const) {
      for (const apart of [-4096, -9, -1, 1, 8, 13, 4096, 5000]) {
        for (const count of [5, 1200, 3000]) {
          const { vcpu, bytes, layout } = rig(regions, `${code} f4`);
          const at = layout.ramBase + from;
          for (let i = -8192; i < size * count + 8192; i++) bytes[at + i] = (i * 7 + (i >> 8)) & 255;
          const expected = bytes.slice(at - 8192, at + size * count + 8192);
          for (let i = 0; i < count; i++) {
            const element = expected.slice(8192 + i * size, 8192 + (i + 1) * size);
            expected.set(element, 8192 + apart + i * size);
          }
          for (const [r, v] of Object.entries({ rsi: from, rdi: from + apart, rcx: count })) vcpu.set(r, BigInt(v));
          assert.equal(settle(vcpu), 'hlt');
          assert.ok(Buffer.compare(bytes.subarray(at - 8192, at + size * count + 8192), expected) === 0, `${size} ${apart} ${count}`);
        }
      }
    }
  }); // biome-ignore format: long lists

  test(`${name}: REP MOVS over code that was run replaces it`, () => {
    // call f; lea rsi,[new]; lea rdi,[f]; mov ecx,5; rep movsb; call f; hlt; f: mov al,5; out 0x80,al; ret; new: mov al,7; out 0x80,al; ret
    const { vcpu, out } = rig(
      regions,
      'e8 1b000000 488d35 19000000 488d3d 0d000000 b9 05000000 f3a4 e8 01000000 f4 b005 e680 c3 b007 e680 c3',
    );
    assert.equal(settle(vcpu), 'hlt');
    assert.deepEqual(out, [5, 7]);
  });

  for (const [kind, bits] of [['', 0x63], ['global ', 0x163]] as const) // biome-ignore format: pairs
    test(`${name}: INVLPG reaches every access that has remembered the ${kind}page`, () => {
      // mov ecx,4; L: add rax,[rsi]; mov [rdi],r8; xchg r8,r9; invlpg [rsi]; dec ecx; jnz L; hlt
      const { vcpu, bytes, layout } = rig(regions, 'b9 04000000 480306 4c8907 4d87c8 0f013e ffc9 75f0 f4');
      const memory = new DataView(bytes.buffer);
      const put = (at: number, value: number): void => memory.setBigUint64(layout.ramBase + at, BigInt(value), true);
      const [table, page, other] = [0x4000, 0x80000, 0x81000];
      for (const [n, at] of [0x1000, 0x2000, 0x3000].entries()) put(at, (0x2000 + n * 0x1000) | 0x63);
      for (let n = 0; n < 512; n++) put(table + n * 8, (n * 4096) | bits);
      put(page, 1);
      put(other, 100);
      const registers = {
        rsi: page,
        rdi: table + (page / 4096) * 8,
        r8: other | bits,
        r9: page | bits,
        cr3: 0x1000,
        cr4: 0xa0,
        cr0: 0x80000001,
      };
      for (const [r, v] of Object.entries(registers)) vcpu.set(r, BigInt(v));
      vcpu.sync();
      assert.equal(settle(vcpu), 'hlt');
      assert.equal(vcpu.get('rax'), 202n);
    });

  test(`${name}: a CR3 write reaches every access that has remembered a page, unless the page is global`, () => {
    // mov ecx,40; L: add rax,[rsi]; add rax,[rdi]; mov cr3,r8; xchg r8,r9; dec ecx; jnz L; hlt
    const { vcpu, bytes, layout } = rig(regions, 'b92800000048030648030741 0f22d84d87c8ffc975eff4');
    const memory = new DataView(bytes.buffer);
    const put = (at: number, value: number): void => memory.setBigUint64(layout.ramBase + at, BigInt(value), true);
    const [page, other, global] = [0x80000, 0x81000, 0x82000];
    for (const root of [0x1000, 0x11000]) {
      const code = root + 0x3000;
      for (let n = 0; n < 3; n++) put(root + n * 0x1000, (root + (n + 1) * 0x1000) | 0x63);
      for (let n = 0; n < 512; n++) put(code + n * 8, (n * 4096) | 0x63);
    }
    put(0x14000 + (page / 4096) * 8, other | 0x63);
    for (const root of [0x4000, 0x14000]) put(root + (global / 4096) * 8, global | 0x163);
    put(page, 1);
    put(other, 100);
    put(global, 1000);
    const registers = { rsi: page, rdi: global, r8: 0x11000, r9: 0x1000, cr3: 0x1000, cr4: 0xa0, cr0: 0x80000001 };
    for (const [r, v] of Object.entries(registers)) vcpu.set(r, BigInt(v));
    vcpu.sync();
    assert.equal(settle(vcpu), 'hlt');
    assert.equal(vcpu.get('rax'), 20n * 101n + 40n * 1000n);
  });

  test(`${name}: a call to another page goes where that page is now, after INVLPG and after a CR3 write`, () => {
    // mov ecx,8; L: mov edx,3; M: call f; dec edx; jnz M; (one of both); xchg r8,r9; dec ecx; jnz L; hlt
    for (const [moved, back] of [
      // mov [rdi],r8; invlpg [rsi]
      ['4c8907 0f013e', 'e5'],
      // mov cr3,r8
      ['410f22d8', 'e7'],
    ] as const) {
      const { vcpu, bytes, layout } = rig(
        regions,
        `b908000000 ba03000000 e8f1ff0600 ffca 75f7 ${moved} 4d87c8 ffc9 75${back} f4`,
      );
      const memory = new DataView(bytes.buffer);
      const put = (at: number, value: number): void => memory.setBigUint64(layout.ramBase + at, BigInt(value), true);
      const [f, other] = [0x80000, 0x81000];
      for (const root of [0x1000, 0x21000]) {
        for (let n = 0; n < 3; n++) put(root + n * 0x1000, (root + (n + 1) * 0x1000) | 0x63);
        for (let n = 0; n < 512; n++) put(root + 0x3000 + n * 8, (n * 4096) | 0x63);
      }
      put(0x24000 + (f / 4096) * 8, other | 0x63);
      // add rax,1; ret. add rax,100; ret.
      for (const [at, by] of [[f, 1], [other, 100]] as const) bytes.set([0x48, 0x83, 0xc0, by, 0xc3], layout.ramBase + at); // biome-ignore format: pairs
      const byPage = { rsi: f, rdi: 0x4000 + (f / 4096) * 8, r8: other | 0x63, r9: f | 0x63 };
      const registers = {
        ...(moved.endsWith('3e') ? byPage : { r8: 0x21000, r9: 0x1000 }),
        cr3: 0x1000,
        cr4: 0x20,
        cr0: 0x80000001,
      };
      for (const [r, v] of Object.entries(registers)) vcpu.set(r, BigInt(v));
      vcpu.sync();
      assert.equal(settle(vcpu), 'hlt');
      assert.equal(vcpu.get('rax'), 4n * 3n * 101n);
    }
  });

  test(`${name}: IRET to a place where it often went before, but with TF set, single-steps`, () => {
    // mov ecx,3000; L: mov rax,rsp; push 0; push rax; push rdx; push 8; lea rax,[T]; push rax; iretq
    // T: cmp ecx,2; jne +5; mov edx,0x102; dec ecx; jnz L; hlt; #DB: mov al,1; out 0x80,al; hlt
    const { vcpu, out, bytes, layout } = rig(
      regions,
      'b9 b80b0000 4889e0 6a00 50 52 6a08 488d0503000000 50 48cf 83f902 7505 ba02010000 ffc9 75df f4 b001 e680 f4',
    );
    const memory = new DataView(bytes.buffer, layout.ramBase);
    memory.setBigUint64(0x70008, 0x00af9b000000ffffn, true);
    memory.setBigUint64(0x71010, 0x00018e0000080000n | BigInt((CODE + 39) & 0xffff), true);
    const registers = { rdx: 2, 'gdtr.base': 0x70000, 'gdtr.limit': 15, 'idtr.base': 0x71000, 'idtr.limit': 0x1f };
    for (const [r, v] of Object.entries(registers)) vcpu.set(r, BigInt(v));
    vcpu.sync();
    assert.equal(settle(vcpu), 'hlt');
    assert.deepEqual(out, [1]);
    assert.equal(vcpu.get('rcx'), 1n);
  });

  test(`${name}: a loop whose first access is not served by memory goes on`, () => {
    // mov ecx,3000; L: mov eax,[rsi]; add rbx,rax; dec ecx; jnz L; hlt
    const { vcpu } = rig(regions, 'b9 b80b0000 8b06 4801c3 ffc9 75f7 f4');
    vcpu.set('rsi', BigInt(64 * MIB));
    assert.equal(settle(vcpu), 'hlt');
    assert.equal(vcpu.get('rbx'), 3000n * 0xffffffffn);
  });

  test(`${name}: accesses that share a look may lie on two pages, and one access, too`, () => {
    // mov ecx,3000; L: mov rax,[rsi-8]; add rax,[rsi]; mov [rsi+8],rax; add [rsi-16],rax; inc word [rsi+4095]; dec ecx; jnz L; hlt
    const { vcpu, bytes, layout } = rig(regions, 'b9 b80b0000 488b46f8 480306 48894608 480146f0 66ff86ff0f0000 ffc9 75e6 f4');
    const memory = new DataView(bytes.buffer, layout.ramBase);
    vcpu.set('rsi', 0x80000n);
    memory.setBigUint64(0x80000 - 8, 5n, true);
    memory.setBigUint64(0x80000, 2n, true);
    assert.equal(settle(vcpu), 'hlt');
    const at = (offset: number): number => Number(memory.getBigUint64(0x80000 + offset, true));
    assert.deepEqual([-16, -8, 0, 8].map(at), [3000 * 7, 5, 2, 7]);
    assert.equal(memory.getUint16(0x80fff, true), 3000);
  });

  test(`${name}: an endless loop gives the thread back when its slice is over`, () => {
    const { vcpu } = rig(regions, 'ebfe');
    assert.equal(vcpu.run(10_000), 'interrupted');
    assert.equal(vcpu.get('rip'), BigInt(CODE));
  });

  test(`${name}: an exception without a descriptor table shuts the vCPU down`, () => {
    const { vcpu } = rig(regions, '0f0b');
    vcpu.set('idtr.limit', 0n);
    assert.equal(vcpu.run(10_000), 'shutdown');
  });
}

/** A page of code, and nothing around it; every branch has been taken. */
const onePage = (page: Uint8Array): RegionSource => ({
  ctx: 1,
  reach: REACH.hot,
  entry: 0,
  page: (n) => (n === 0 ? page : undefined),
  met: () => true,
  seen: () => [],
  stops: () => false,
});

test('a region keeps the loops of its page and leaves out what other pages hold', () => {
  const page = new Uint8Array(4096).fill(0x90);
  // 0: dec eax; jnz 0; jmp far beyond the page; 0x20 is not reached.
  page.set([0xff, 0xc8, 0x75, 0xfc, 0xe9, 0x00, 0x20, 0x00, 0x00]);
  const region = findRegion(engine.tables, engine.handlers, onePage(page));
  assert.ok(region);
  assert.equal(region.blocks.length, 2);
  assert.equal(region.entry.header, true);
  assert.deepEqual(
    region.ranges.map(([, start, end]) => end - start),
    [4, 5],
  );
});

test('a region ends where another one starts, but not in functions that it inlines, nor where a call comes back', () => {
  // 0: nop; call 0x10; 6: nop; 7: dec eax; jnz 0; nop; hlt. 0x10: nop; 0x11: nop; ret
  const page = new Uint8Array(4096).fill(0xf4);
  page.set([0x90, 0xe8, 0x0a, 0, 0, 0, 0x90, 0xff, 0xc8, 0x75, 0xf5, 0x90]);
  page.set([0x90, 0x90, 0xc3], 0x10);
  const places = (stops: readonly number[]): number[] | undefined =>
    findRegion(engine.tables, engine.handlers, { ...onePage(page), stops: (place) => stops.includes(place) })
      ?.blocks.map((b) => b.place)
      .sort((x, y) => x - y);
  assert.deepEqual(places([]), [0, 6, 11, 0x10]);
  assert.deepEqual(places([0, 6, 0x10, 0x11]), [0, 6, 11, 0x10]);
  assert.deepEqual(places([7, 11]), [0, 6, 0x10]);
});

test('functions of a few instructions are inlined one call deeper than others', () => {
  // 0: nop; call 0x10; hlt. 0x10: nop; call 0x20; ret. 0x20: mov eax,[rsp]; ret
  const page = new Uint8Array(4096).fill(0xf4);
  page.set([0x90, 0xe8, 0x0a, 0, 0, 0, 0xf4]);
  page.set([0x90, 0xe8, 0x0a, 0, 0, 0, 0xc3], 0x10);
  page.set([0x8b, 0x04, 0x24, 0xc3], 0x20);
  const region = findRegion(engine.tables, engine.handlers, { ...onePage(page), reach: REACH.warm });
  assert.ok(region?.blocks.some((b) => b.place === 0x20));
  // By themselves they are regions, too.
  assert.ok(findRegion(engine.tables, engine.handlers, { ...onePage(page), entry: 0x20 }));
});

test('a region that ends before it comes to what its computed jump goes to leaves there', () => {
  // 0: nop; nop; jmp rax, which has gone to 0x20 and 0x40
  const bytes = new Uint8Array(4096).fill(0x90);
  bytes.set([0x90, 0x90, 0xff, 0xe0]);
  const wish: RegionWish = {
    ...{ number: 0, index: REGION_FIRST, name: 'r', ctx: 1, entry: 0, pages: [[0, 0]], met: null, seen: [[2, [0x20, 0x40]]] },
    ...{ stops: [], hashed: [], apart: [], hopping: [], reach: { instructions: 3, inlined: 0, depth: 0 } },
  };
  const { tables, handlers, library } = engine;
  const memory = { initial: 1, maximum: 1 };
  const { batch, code } = translate({ tables, handlers, library, available: new Set(), memory, env: 0x10000 }, [wish], bytes);
  assert.deepEqual(batch.failed, []);
  assert.ok(new WebAssembly.Module(code!));
});

test('a loop with two entries is no header, so that its back edge leaves the region', () => {
  const page = new Uint8Array(4096).fill(0xf4);
  // 0: jz 6; 2: nop; 3: nop; jmp 7 … 6: nop; 7: dec eax; jnz 6 … (6 is entered from 0 and from 7, 7 from 3 and 6)
  page.set([0x74, 0x04, 0x90, 0x90, 0xeb, 0x01, 0x90, 0xff, 0xc8, 0x75, 0xfb]);
  const region = findRegion(engine.tables, engine.handlers, onePage(page));
  assert.ok(region);
  assert.equal(
    region.blocks.some((b) => b.header),
    false,
  );
});

test('a full mailbox turns into "everything", and a receiver that does not run holds nobody up', () => {
  const memory = new SharedArrayBuffer(MAILBOX_BYTES);
  const box = new Mailbox(memory, 0, () => {});
  const numbers = Array.from({ length: 600 }, (_, page) => box.post(Request.protect, page));
  assert.ok(numbers.every((n) => box.done(n)));
  box.setRunning(true);
  assert.equal(box.done(numbers[599]), false);
  let handled = 0;
  let everything = 0;
  box.drain(
    () => handled++,
    () => everything++,
  );
  assert.equal(handled, 512);
  assert.equal(everything, 1);
  assert.ok(numbers.every((n) => box.done(n)));
  assert.equal(box.waiting, false);
});

test('memory has 64-bit addresses where a machine needs more than 4 GiB of it, and all but RAM lies below', () => {
  for (const [mib, wide] of [
    [3900, false],
    [4096, true],
    [15_000, true],
  ] as const) {
    const layout = layoutOf(mib * MIB, 2, 16 * MIB);
    assert.equal(layout.pages > 65536, wide);
    assert.ok(layout.ramHighBase < 2 ** 32);
    assert.equal(createMemory(layout).buffer.byteLength, layout.pages * 65536);
  }
  assert.throws(
    () => layoutOf(1024 * MIB, 200),
    /^Error: Cannot give the guest 200 vCPUs with 1024 MiB of memory: a vCPU takes \d+ MiB of 4 GiB/,
  );
});

test("guest RAM lies where its large pages are the host's, wherever the memory is", () => {
  for (const mib of [64, 3000])
    for (const address of [0x7f00_0000_0000n, 0x7f00_0001_0000n, 0x7f12_3456_7000n]) {
      const room = layoutOf(mib * MIB, 2, 17 * MIB + 4096);
      const layout = alignRam(room, address);
      for (const base of layout.ramHigh > 0 ? [layout.ramBase, layout.ramHighBase] : [layout.ramBase])
        assert.equal((address + BigInt(base)) % BigInt(2 * MIB), 0n);
      assert.ok(layout.ramBase >= room.ramBase);
      assert.equal(layout.ramHighBase, layout.ramBase + layout.ramLow + layout.extraBytes);
      assert.ok(layout.ramHighBase + layout.ramHigh <= layout.pages * 65536);
    }
});

test('a machine that does not fit into one memory is refused with what fits', () => {
  const refused = (mib: number, cpus: number): string => {
    try {
      layoutOf(mib * MIB, cpus, 16 * MIB);
      return '';
    } catch (error) {
      return (error as Error).message;
    }
  };
  for (const cpus of [1, 4])
    for (const asked of [16_384, 32_768, 262_144]) {
      const said = /^Cannot give the guest (\d+) MiB of memory: at most (\d+) MiB are accepted with \d vCPUs$/.exec(
        refused(asked, cpus),
      );
      assert.equal(Number(said?.[1]), asked);
      assert.equal(refused(Number(said![2]), cpus), '', 'what is said to be accepted is');
      assert.notEqual(refused(Number(said![2]) + 1, cpus), '', 'and no more');
    }
});
