// What every machine's translator starts with, ready-made: beside the bundles of the programs (tools/bundle.ts). Threads that run from the
// sources make it themselves.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import type { Compile, Prebuilt } from '../../accel/dbt/dbt.ts';
import { nativeCode } from './native-code.ts';

/** The decoder's tables, the same for all memories. */
const TABLES = 'decoder.tables';
const nameOf = (wide: boolean, which: 'main' | 'cold' = 'main'): string =>
  `${wide ? 'translator-wide' : 'translator'}${which === 'cold' ? '-cold' : ''}`;

/** Writes it to a folder. */
export function writePrebuilt(folder: string, { main, tables, cold: { bytes, ...cold }, ...data }: Prebuilt): void {
  const path = join(folder, nameOf(data.wide));
  writeFileSync(`${path}.wasm`, main);
  writeFileSync(`${path}-cold.wasm`, bytes);
  writeFileSync(join(folder, TABLES), tables);
  writeFileSync(`${path}.json`, JSON.stringify({ ...data, cold }));
}

/** Reads it, for memories up to 4 GiB or `wide` ones, from this file's folder; undefined where there is none. */
export function readPrebuilt(wide: boolean): Prebuilt | undefined {
  const path = join(import.meta.dirname, nameOf(wide));
  try {
    const data = JSON.parse(readFileSync(`${path}.json`, 'utf8')) as Prebuilt;
    const bytes = (name: string): Uint8Array<ArrayBuffer> => Uint8Array.from(readFileSync(name));
    const tables = new Int16Array(bytes(join(import.meta.dirname, TABLES)).buffer);
    return { ...data, tables, main: bytes(`${path}.wasm`), cold: { ...data.cold, bytes: bytes(`${path}-cold.wasm`) } };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Files with V8's code of the modules, beside them: it holds for the flags that V8 was started with. */
const nativePath = (wide: boolean, which: 'main' | 'cold', folder: string): string => {
  const kind = process.execArgv.includes('--no-memory-protection-keys') ? 'unprotected' : 'plain';
  return join(folder, `${nameOf(wide, which)}.${kind}`);
};

/** V8's flags without which it optimises all functions at once: inlining asks for what the baseline tier has seen. */
const TIERING = ['liftoff', 'wasm-inlining', 'wasm-inlining-call-indirect'];

/**
 * Writes V8's code of the modules in a folder, all of it optimised. The flags are those of a vCPU's thread, but for the time in which it compiles: in a
 * process that does nothing else, for V8 does not survive modules that were compiled under others.
 */
export function writeNative(folder: string): void {
  const native = nativeCode();
  for (const wide of [false, true])
    for (const which of ['main', 'cold'] as const) {
      const bytes = Uint8Array.from(readFileSync(join(folder, `${nameOf(wide, which)}.wasm`)));
      for (const flag of TIERING) setFlagsFromString(`--no-${flag}`);
      const module = new WebAssembly.Module(bytes);
      for (const flag of TIERING) setFlagsFromString(`--${flag}`);
      const code = native?.save(module);
      if (code) writeFileSync(nativePath(wide, which, folder), code);
    }
}

/** Compiles the modules, or takes what `writeNative` has left of them. */
export function compileNative(wide: boolean): Compile {
  const compile: Compile & { optimised: boolean } = (bytes, which) => {
    let module: WebAssembly.Module | undefined;
    try {
      module = nativeCode()?.load(bytes, readFileSync(nativePath(wide, which, import.meta.dirname)));
    } catch {
      // There is none.
    }
    compile.optimised = module !== undefined;
    return module ?? new WebAssembly.Module(bytes);
  };
  compile.optimised = false;
  return compile;
}
