// Writes near, into and beside decoded code, as tier 0 sees them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CODE, rig, settle } from './testing.ts';

test('where a write changes the constants of instructions alone, their block is not decoded anew', () => {
  // mov ecx,3; L: mov [f+1],ecx; mov byte [f+8],8; call f; dec ecx; jnz L; hlt; f: add eax,0; add ebx,[rsp+16]; ret
  const { vcpu } = rig('off', 'b903000000890d12000000c6051200000008e805000000ffc975eaf40500000000035c2410c3');
  assert.equal(settle(vcpu), 'hlt');
  assert.equal(vcpu.get('rax'), 6n);
  // What the displacement of 8 leads to is the start of the program.
  assert.equal(vcpu.get('rbx'), 3n * 0x3b9n);
  assert.equal(vcpu.codeStats.invalidated, 0);
});

test('where a write changes how far a branch goes, it goes there', () => {
  // mov ecx,2; L: jmp A; A: add eax,1; mov byte [L+1],C-A; dec ecx; jnz L; C: hlt
  const { vcpu } = rig('off', 'b902000000eb0083c001c605f5ffffff0effc975f0f4');
  assert.equal(settle(vcpu), 'hlt');
  assert.deepEqual([vcpu.get('rax'), vcpu.get('rcx')], [1n, 1n]);
  assert.equal(vcpu.codeStats.invalidated, 0);
});

test('where a write makes other instructions, they run', () => {
  // mov ecx,2; L: call f; mov byte [f],BYTE; dec ecx; jnz L; hlt; f: add eax,1 (then sub eax,1); ret
  const other = rig('off', 'b902000000e80c000000c605050000002dffc975f0f40501000000c3').vcpu;
  assert.equal(settle(other), 'hlt');
  assert.equal(other.get('rax'), 0n);
  // The same with f: test eax,0x9090c001 (then nop; add eax,eax; nop; nop); ret
  const shorter = rig('off', 'b902000000e80c000000c6050500000090ffc975f0f4a901c09090c3').vcpu;
  shorter.set('rax', 2n);
  assert.equal(settle(shorter), 'hlt');
  assert.equal(shorter.get('rax'), 4n);
});

test('stores beside decoded code stay in WebAssembly, and those into its 64 bytes do not', () => {
  for (const [offset, least, most] of [[64, 0, 2], [4092, 0, 2], [60, 1000, 1002], [-4, 0, 2]] as const) {
    // mov ecx,1000; L: mov [rsi],ecx; dec ecx; jnz L; hlt
    const { vcpu } = rig('off', 'b9e8030000890effc975faf4');
    vcpu.set('rsi', BigInt(CODE + offset));
    assert.equal(settle(vcpu), 'hlt');
    const { codeWrite } = vcpu.counters.read();
    assert.ok(codeWrite >= least && codeWrite <= most, `${codeWrite} calls for stores at ${offset}`);
  }
}); // biome-ignore format: pairs

test('code that comes to lie where stores went unseen is met by the next store', () => {
  // mov ecx,100; L: mov [rsi],edi; dec ecx; jnz L; call rsi; out 0x80,al; mov [rsi],ebx; call rsi; out 0x80,al; hlt
  const { vcpu, out } = rig('off', 'b964000000893effc975faffd6e680891effd6e680f4');
  // edi: mov al,1; ret. ebx: inc eax; ret.
  for (const [r, v] of Object.entries({ rsi: CODE + 0x400, rdi: 0xc301b0, rbx: 0xc3c0ff })) vcpu.set(r, BigInt(v));
  assert.equal(settle(vcpu), 'hlt');
  assert.deepEqual(out, [1, 2]);
});

test('a call that is patched each time, with data beside it, costs no decoding; another instruction in its place runs', () => {
  // mov ecx,40; L: mov [f+1],ecx; mov [D],ecx; call f; dec ecx; jnz L; mov byte [f],SUB; call f; hlt; f: add eax,0; ret; D:
  const { vcpu } = rig(
    'off',
    'b928000000 890d1d000000 890d1c000000 e811000000 ffc9 75eb c605060000002d e801000000 f4 0500000000 c3 00000000',
  );
  assert.equal(settle(vcpu), 'hlt');
  assert.equal(vcpu.get('rax'), 820n - 1n);
  assert.equal(vcpu.codeStats.invalidated, 1);
});

test('a region that is left by a way that was new when it was translated is translated again', () => {
  // mov ecx,150000; mov edx,75000; L: cmp ecx,edx; jbe B; A: inc rax; dec ecx; jnz L; hlt; B: inc rbx; jmp A
  const { vcpu } = rig('hot', 'b9f0490200 baf8240100 39d1 7608 48ffc0 ffc9 75f5 f4 48ffc3 ebf3');
  assert.equal(settle(vcpu), 'hlt');
  assert.deepEqual([vcpu.get('rax'), vcpu.get('rbx')], [150_000n, 75_000n]);
  assert.equal(vcpu.regionStats.renewed, 1);
  assert.ok(vcpu.get('regionEntries') < 10_000n, `${vcpu.get('regionEntries')} entries`);
});

test('an interrupt that waits while IF is clear does not end regions', () => {
  // mov ecx,20000; L: inc rax; dec ecx; jnz L; hlt
  const { vcpu } = rig('always', 'b9204e0000 48ffc0 ffc9 75f9 f4', 'long', { pending: () => true });
  assert.equal(settle(vcpu), 'hlt');
  assert.equal(vcpu.get('rax'), 20_000n);
  assert.ok(vcpu.get('regionEntries') < 100n, `${vcpu.get('regionEntries')} entries`);
});

test('accesses that lie on two pages leave their region a few times only', () => {
  // mov ecx,2048; L: mov eax,[rsi]; add eax,[rsi+8]; mov edx,1000; M: dec edx; jnz M; dec ecx; jnz L; hlt
  const { vcpu } = rig('hot', 'b900080000 8b06 034608 bae8030000 ffca 75fc ffc9 75ee f4');
  vcpu.set('rsi', BigInt((Math.floor(CODE / 4096) + 4) * 4096 - 4));
  let rounds = 0;
  while (settle(vcpu) !== 'hlt') assert.ok(++rounds < 20, 'it does not end');
  assert.ok(vcpu.regionStats.renewed > 0);
  assert.ok(vcpu.get('regionEntries') < 1000n, `${vcpu.get('regionEntries')} entries`);
});

for (const regions of ['off', 'always', 'hot'] as const) {
  test(`regions ${regions}: writes to a page are seen whose code went, which became fast to write, and has code again`, () => {
    // mov edi,PAGE; call rdi; mov ecx,40; L: mov byte [rdi],0x90; dec ecx; jnz L; mov byte [rdi],0xb8; mov byte [rdi+1],2; call rdi; mov byte [rdi+1],3; call rdi; hlt
    const hex = 'bf00000200 ffd7 b928000000 c60790 ffc9 75f9 c607b8 c6470102 ffd7 c6470103 ffd7 f4';
    const { vcpu, bytes, layout } = rig(regions, hex);
    // mov eax,1; ret. The guest has not written it: no store has gone to its page when it runs first.
    bytes.set([0xb8, 1, 0, 0, 0, 0xc3], layout.ramBase + 0x20000);
    assert.equal(settle(vcpu), 'hlt');
    assert.equal(vcpu.get('rax'), 3n);
  });
}
