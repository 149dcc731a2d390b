// What every machine's translator starts with, ready-made: beside the bundles of the programs (tools/bundle.ts). Threads that run from the
// sources make it themselves.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Prebuilt } from '../../accel/dbt/dbt.ts';

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
