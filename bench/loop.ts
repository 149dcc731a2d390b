// The engine without a guest around it: a loop over registers whose flags are read once a round, in tier 0 and as a translated region.

import { bareVcpu } from './guests/engine.ts';
import type { Benchmark } from './measure.ts';

// add rax,rbx; xor rdx,rax; shr rdx,3; lea rsi,[rax+rdx*4]; mov rdi,rsi; dec rcx; jnz
const LOOP = Uint8Array.from(Buffer.from('4801d84831c248c1ea03488d34904889f748ffc975ea', 'hex'));
const ROUND = 7;

/** Millions of instructions a second over about one second, after a warm-up that lets V8 compile. */
function mips(regions: 'off' | 'hot'): number {
  const vcpu = bareVcpu(LOOP, regions);
  vcpu.set('rcx', 2n ** 62n);
  const warm = performance.now() + 1500;
  while (performance.now() < warm) vcpu.run(1_000_000);
  const [before, left] = [vcpu.instructions, vcpu.get('rcx')];
  const start = performance.now();
  while (performance.now() - start < 1000) vcpu.run(1_000_000);
  const ms = performance.now() - start;
  const rounds = Number(left - vcpu.get('rcx'));
  // The engine's own count must be the program's.
  const counted = vcpu.instructions - before;
  if (Math.abs(counted - rounds * ROUND) > ROUND * 2)
    throw new Error(`Cannot measure: ${counted} instructions counted in ${rounds} rounds of ${ROUND}`);
  return counted / ms / 1000;
}

export const loop: Benchmark = {
  name: 'loop',
  about: 'a loop of seven register instructions',
  metrics: [
    { name: 'tier0', unit: 'MIPS in tier 0', digits: 0 },
    { name: 'regions', unit: 'MIPS translated', digits: 0 },
  ],
  contestants: { nonroot: async () => ({ tier0: mips('off'), regions: mips('hot') }) },
};
