// What this engine's relaxed operations do: relaxed_madd rounds once where the processor has a fused multiply-add, else twice.

import { ModuleBuilder } from './module.ts';

/** f64x2.relaxed_madd of three splats, lane 0. */
// biome-ignore format: one instruction each
const CODE = [0, 0x20, 0, 0xfd, 0x14, 0x20, 1, 0xfd, 0x14, 0x20, 2, 0xfd, 0x14, 0xfd, 0x87, 0x02, 0xfd, 0x21, 0, 0x0b];

/** Whether relaxed_madd rounds once here: (1 + 2^-30)² − (1 + 2^-29) is then 2^-60. */
export function relaxedMaddIsFused(): boolean {
  const m = new ModuleBuilder(null, null);
  const f = m.declare('madd', { params: ['f64', 'f64', 'f64'], result: 'f64' });
  m.define(f, { code: Uint8Array.from(CODE), hints: [] });
  m.export('madd', f);
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(m.finish()));
  const x = 1 + 2 ** -30;
  return (exports.madd as (x: number, y: number, z: number) => number)(x, x, -1 - 2 ** -29) === 2 ** -60;
}
