// The thread that translates regions for one vCPU: takes the wishes that have gathered, makes one module of them and compiles it, so
// that the vCPU spends no time on it.

import { writeSync } from 'node:fs';
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { createEngine, regionMemory } from '../../accel/dbt/dbt.ts';
import { isWide } from '../../accel/dbt/layout.ts';
import { type RegionWish, type Translation, translate } from '../../accel/dbt/translate.ts';
import { tablesFor } from '../../isa/x86/absent.ts';
import { appendKept, type NewModule, type Uses, writeKept } from './kept-code.ts';
import { nativeCode } from './native-code.ts';
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
  /** Where regions are kept for later runs, and which of those that were kept are in use. */
  readonly keep?: { readonly path: string; readonly uses: Uses } | undefined;
}

/** Most regions of one module. */
const BATCH_MAX = 32;
/** Fewer new modules than this are not worth the time to write them; how long there must have been no wish for it at first, in ms. */
const FRESH_MIN = 8;
const QUIET_MS = 1000;
const PAUSE_MS = 2500;
const PAUSE_MAX_MS = 10_000;
/** Modules that V8 has not optimised yet are looked at again, this many at most. */
const WAITING_MAX = 512;

const { memory, pages, available, port, sent, features, keep } = workerData as RegionWorkerData;
const { tables, handlers, library } = createEngine(readPrebuilt(isWide(pages)));
const bytes = new Uint8Array(memory.buffer);
const translation: Translation = {
  tables: features ? tablesFor(tables, features) : tables,
  handlers,
  library,
  available: new Set(available),
  memory: regionMemory(pages),
};

/** Translates wishes into one module; where that throws, each for itself, so that one that cannot be translated keeps no other back. */
function serve(wishes: readonly RegionWish[]): void {
  try {
    const { batch, code, translated } = translate(translation, wishes, bytes);
    const module = code && new WebAssembly.Module(code);
    port.postMessage({ batch, module });
    if (keep && module) {
      made.push({ module, bytes: code, hosts: batch.hosts, imports: batch.imports, regions: translated() });
    }
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

/** What was made and is not kept yet: that V8 has not optimised it may be why. */
let made: NewModule[] = [];
let ended = false;
let timer: NodeJS.Timeout | undefined;
/** Without a quiet moment they are written after so many ms, and no sooner than then: each time later than the last, while the machine runs. */
let pause = PAUSE_MS;
let lastSave = performance.now();
/** How often something was kept in this run. */
let saves = 0;
/** Keeps what has been made for later runs: in the file as it is, but for the first time and the last. */
function save(last = false): void {
  clearTimeout(timer);
  timer = undefined;
  if (!keep || ended || (made.length < FRESH_MIN && !(last && saves > 1))) return;
  const native = nativeCode();
  if (!native) return;
  const added = saves > 0 && !last ? appendKept(keep.path, native, made, FRESH_MIN) : undefined;
  const done = added ?? writeKept(keep.path, native, made, keep.uses, last && saves > 1 ? 0 : FRESH_MIN);
  if (done.size > 0) saves++;
  made = made.filter((m) => !done.has(m)).slice(-WAITING_MAX);
  pause = Math.min(2 * pause, PAUSE_MAX_MS);
  lastSave = performance.now();
}

type Message = RegionWish | { readonly save: Int32Array<SharedArrayBuffer> };
port.on('message', (first: Message) => {
  const wishes: RegionWish[] = [];
  let asked: Int32Array<SharedArrayBuffer> | undefined;
  for (let m: Message | undefined = first; m; m = receiveMessageOnPort(port)?.message as Message | undefined) {
    if ('save' in m) asked = m.save;
    else wishes.push(m);
    if (wishes.length === BATCH_MAX) break;
  }
  if (wishes.length > 0) serve(wishes);
  if (asked) {
    save(true);
    // The machine may end at any moment.
    ended = true;
    Atomics.store(asked, 0, 1);
    Atomics.notify(asked, 0);
  } else if (keep) {
    clearTimeout(timer);
    const left = lastSave + pause - performance.now();
    if (left <= 0) save();
    else timer = setTimeout(() => save(), Math.max(QUIET_MS, pause > PAUSE_MS ? left : 0));
  }
});
