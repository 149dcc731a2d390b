// A bare vCPU for tests.

import { emptyBus, type MemoryLayout, type VcpuBus, type VcpuExit } from '../accel.ts';
import { createEngine, createVm, mainModule } from './dbt.ts';
import { createMemory, layoutOf } from './layout.ts';
import { DbtVcpu } from './vcpu.ts';

export const MIB = 1 << 20;
export const engine = createEngine();
const main = new WebAssembly.Module(mainModule(engine));

/** Board of a test: nothing is there, port writes are noted. */
export function bus(out: number[]): VcpuBus {
  return { ...emptyBus(), portIn: () => 0xff, portOut: (_, __, value) => out.push(value) };
}

export interface Rig {
  readonly vcpu: DbtVcpu;
  readonly out: number[];
  readonly layout: MemoryLayout;
  readonly bytes: Uint8Array;
}

export const CODE = 0x10000;

const LONG = { 'cs.base': 0, 'cs.attr': 0xa09b, efer: 0x500, cr0: 1 };
/** Segments from 0 to 4 GiB; FS elsewhere. */
const FLAT = {
  'cs.base': 0,
  'cs.attr': 0xc09b,
  'cs.limit': 0xffffffff,
  ...Object.fromEntries(
    ['ds', 'es', 'ss', 'fs'].flatMap((s) => [
      [`${s}.attr`, 0xc093],
      [`${s}.limit`, 0xffffffff],
      [`${s}.base`, s === 'fs' ? 0x1f80 : 0],
    ]),
  ),
  cr0: 1,
};

/** A vCPU in 64-bit code or in 32-bit code with flat segments, without paging, the program at CODE, the stack below it. */
export function rig(
  regions: 'off' | 'always' | 'hot',
  hex: string,
  mode: 'long' | 'flat' = 'long',
  board: Partial<VcpuBus> = {},
): Rig {
  const layout = layoutOf(16 * MIB, 1);
  const memory = createMemory(layout);
  const vm = createVm(engine, memory, layout, 1, main, { regions });
  const out: number[] = [];
  const vcpu = new DbtVcpu(vm, 0, { ...bus(out), ...board });
  const bytes = new Uint8Array(memory.buffer);
  bytes.set(
    Uint8Array.from(hex.replaceAll(' ', '').match(/../g) ?? [], (byte) => Number.parseInt(byte, 16)),
    layout.ramBase + CODE,
  );
  const start = { ...(mode === 'long' ? LONG : FLAT), rip: CODE, rsp: CODE };
  for (const [name, value] of Object.entries(start)) vcpu.set(name, BigInt(value));
  vcpu.sync();
  return { vcpu, out, layout, bytes };
}

/** Runs on over interruptions, a hundred at most. */
export function settle(vcpu: DbtVcpu): VcpuExit {
  let exit: VcpuExit = 'interrupted';
  for (let i = 0; i < 100 && exit === 'interrupted'; i++) exit = vcpu.run(10_000);
  return exit;
}
