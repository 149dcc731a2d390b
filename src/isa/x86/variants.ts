// Every variant of every row that decoding can give: for tests and generated documents, which must see all of them.

import type { Variant } from './bind.ts';
import type { Size } from './emit.ts';
import type { RowInfo } from './table.ts';

/** The variants of one row, each once, with its flags live and dead and with and without the floating-point check. */
export function variantsOf(info: RowInfo): Variant[] {
  const { options } = info.row;
  const moffs = info.specs.some((s) => s.from === 'moffs');
  const rm = info.specs.some((s) => s.from === 'rm') || info.hasModrm;
  const forms = moffs ? [true] : !rm || info.form === 'reg' ? [false] : info.form === 'mem' ? [true] : [false, true];
  const found: Variant[] = [];
  for (const long of [false, true]) {
    if (options.mode && (options.mode === 'long') !== long) continue;
    const sizes: Size[] = info.vex
      ? long
        ? [32, 64]
        : [32]
      : long
        ? options.size === 'f64'
          ? [64]
          : options.size === 'd64'
            ? [16, 64]
            : [16, 32, 64]
        : [16, 32];
    const addressSizes: Size[] = long ? [32, 64] : [16, 32];
    for (const size of sizes) {
      for (const addressSize of addressSizes) {
        for (const isMemory of forms) {
          for (const lock of options.lock && isMemory ? [false, true] : [false]) {
            for (const rep of options.rep ? ([0, 2, 3] as const) : ([0] as const)) {
              for (const fpTrap of options.fp ? [false, true] : [false]) {
                for (const flagsLive of [false, true]) {
                  for (const wide of info.vex && info.wide < 0 ? [false, true] : [info.wide === 1])
                    for (const flat of long ? [false] : [false, true])
                      for (const limited of (long ? info.relative : info.near) ? [false, true] : [false])
                        found.push({
                          info,
                          size,
                          addressSize,
                          isMemory,
                          lock,
                          rep,
                          long,
                          flagsLive,
                          fpTrap,
                          wide,
                          limited,
                          flat,
                        });
                }
              }
            }
          }
        }
      }
    }
  }
  return found;
}
