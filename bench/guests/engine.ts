// The translator on the calling thread, without devices around it: a flat program in a small memory.

import { emptyBus } from '../../src/accel/accel.ts';
import { createEngine, createVm, mainModule } from '../../src/accel/dbt/dbt.ts';
import { createMemory, layoutOf } from '../../src/accel/dbt/layout.ts';
import { DbtVcpu } from '../../src/accel/dbt/vcpu.ts';

const START = 0x10000;

/** A vCPU in 64-bit mode without paging, about to run `code`; `regions` says whether hot code is translated. */
export function bareVcpu(code: Uint8Array, regions: 'off' | 'hot'): DbtVcpu {
  const engine = createEngine();
  const layout = layoutOf(16 << 20, 1);
  const memory = createMemory(layout);
  const vm = createVm(engine, memory, layout, 1, new WebAssembly.Module(mainModule(engine)), { regions });
  const vcpu = new DbtVcpu(vm, 0, emptyBus());
  new Uint8Array(memory.buffer).set(code, layout.ramBase + START);
  const state = { 'cs.selector': 0x10n, 'cs.base': 0n, 'cs.attr': 0xa09bn, efer: 0x500n, cr0: 1n, rip: BigInt(START) };
  for (const [name, value] of Object.entries(state)) vcpu.set(name, value);
  vcpu.sync();
  return vcpu;
}
