// What every machine's translator starts with, ready-made: beside the bundles of the programs (tools/bundle.ts). Threads that run from the
// sources make it themselves.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import type { Compile, Prebuilt } from '../../accel/dbt/dbt.ts';
import { nativeCode } from './native-code.ts';

/** The decoder's tables, the same for all memories. */
const TABLES = 'decoder.tables';
const nameOf = (wide: boolean): string => (wide ? 'translator-wide' : 'translator');

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
const nativePath = (which: 'main' | 'cold', folder: string): string => {
  const kind = process.execArgv.includes('--no-memory-protection-keys') ? 'unprotected' : 'plain';
  return join(folder, `${nameOf(false)}${which === 'cold' ? '-cold' : ''}.${kind}`);
};

/** V8's flags without which it optimises all functions at once: inlining asks for what the baseline tier has seen. */
const TIERING = ['liftoff', 'wasm-lazy-compilation', 'wasm-inlining', 'wasm-inlining-call-indirect'];

/** Writes V8's code of the modules in a folder, all of it optimised. The flags are those of a vCPU's thread. */
export function writeNative(folder: string): void {
  const native = nativeCode();
  const path = join(folder, nameOf(false));
  const modules = { main: `${path}.wasm`, cold: `${path}-cold.wasm` };
  for (const [which, name] of Object.entries(modules) as ['main' | 'cold', string][]) {
    const bytes = Uint8Array.from(readFileSync(name));
    for (const flag of TIERING) setFlagsFromString(`--no-${flag}`);
    const module = new WebAssembly.Module(bytes);
    for (const flag of TIERING) setFlagsFromString(`--${flag}`);
    const code = native?.save(module);
    if (code) writeFileSync(nativePath(which, folder), code);
  }
}

/** Compiles the modules, or takes what `writeNative` has left. */
export const compileNative: Compile = (bytes, which) => {
  try {
    const code = readFileSync(nativePath(which, import.meta.dirname));
    const module = nativeCode()?.load(bytes, code);
    if (module) return module;
  } catch {
    // There is none.
  }
  return new WebAssembly.Module(bytes);
};
