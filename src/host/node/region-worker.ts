// The thread that translates regions for one vCPU: takes the wishes that have gathered, makes one module of them and compiles it, so
// that the vCPU spends no time on it.

import { writeSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { createEngine } from '../../accel/dbt/dbt.ts';
import { isWide } from '../../accel/dbt/layout.ts';
import { type RegionWish, type Translation, translate } from '../../accel/dbt/translate.ts';
import { tablesFor } from '../../isa/x86/absent.ts';
import { readPrebuilt } from './prebuilt.ts';

/** What the thread is started with. */
export interface RegionWorkerData {
  readonly memory: WebAssembly.Memory;
  /** WebAssembly pages of the memory. */
  readonly pages: number;
  /** Subroutines that the main module exports. */
  readonly available: readonly string[];
  /** Wishes come here, modules go here. */
  readonly port: MessagePort;
  /** Features of the CPU model, by name: all where it is not said. */
  readonly features: ReadonlySet<string> | undefined;
  /** One word that counts the modules that were sent. */
  readonly sent: Int32Array<SharedArrayBuffer>;
}

/** Most regions of one module. */
const BATCH_MAX = 32;

const { memory, pages, available, port, sent, features } = workerData as RegionWorkerData;
const { tables, handlers, library } = createEngine(readPrebuilt(isWide(pages)));
const bytes = new Uint8Array(memory.buffer);
const translation: Translation = {
  tables: features ? tablesFor(tables, features) : tables,
  handlers,
  library,
  available: new Set(available),
  memory: { initial: pages, maximum: pages },
};

/** Compiles all functions now: V8 leaves that to their first call otherwise. The flag is the process's; it is set for no longer than it takes. */
function compile(code: Uint8Array<ArrayBuffer>): WebAssembly.Module {
  setFlagsFromString('--no-wasm-lazy-compilation');
  try {
    return new WebAssembly.Module(code);
  } finally {
    setFlagsFromString('--wasm-lazy-compilation');
  }
}

/** Translates wishes into one module; where that throws, each for itself, so that one that cannot be translated keeps no other back. */
function serve(wishes: readonly RegionWish[]): void {
  try {
    const { batch, code } = translate(translation, wishes, bytes);
    port.postMessage({ batch, module: code && compile(code) });
  } catch (error) {
    if (wishes.length > 1) {
      for (const wish of wishes) serve([wish]);
      return;
    }
    if (process.env['NONROOT_TIERS']) writeSync(2, `${wishes[0].name} ${(error as Error).stack}\n`);
    const failed = wishes.map((w): [number, number] => [w.number, w.index]);
    port.postMessage({ batch: { regions: [], failed, hosts: [], imports: [] }, module: null });
  }
  Atomics.add(sent, 0, 1);
}

port.on('message', (first: RegionWish) => {
  const wishes = [first];
  for (let next = receiveMessageOnPort(port); next && wishes.length < BATCH_MAX; next = receiveMessageOnPort(port))
    wishes.push(next.message as RegionWish);
  serve(wishes);
});
