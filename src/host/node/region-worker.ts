// The thread that translates regions for one vCPU: takes the wishes that have gathered, makes one module of them and compiles it, so
// that the vCPU spends no time on it.

import { writeSync } from 'node:fs';
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { createEngine, regionMemory } from '../../accel/dbt/dbt.ts';
import { isWide } from '../../accel/dbt/layout.ts';
import { type RegionWish, type Translation, translate } from '../../accel/dbt/translate.ts';
import { tablesFor } from '../../isa/x86/absent.ts';
import { hostEpoch, machineClock } from './clock.ts';
import { appendKept, loadAhead, type ModulesAhead, type NewModule, type Uses, writeKept } from './kept-code.ts';
import { nativeCode } from './native-code.ts';
import { readPrebuilt } from './prebuilt.ts';

/** What the thread is started with. */
export interface RegionWorkerData {
  readonly memory: SharedArrayBuffer;
  /** Host address of the vCPU's state. */
  readonly env: number;
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
  /** Where regions are kept for later runs, which of those that were kept are in use, and whether more may be appended to that file. */
  readonly keep?: { readonly path: string; readonly uses: Uses; readonly sound: boolean } | undefined;
  /** Modules of earlier runs that the vCPU is about to need, and where they go (`LoadedModule`). */
  readonly ahead?: { readonly modules: ModulesAhead; readonly port: MessagePort } | undefined;
}

/** Most regions of one module. */
const BATCH_MAX = 32;
/** Fewer new modules than this are not worth the time to write them. */
const FRESH_MIN = 8;
/** How long new modules wait at most until they are kept, in ms: a machine may be killed soon. Longer each time, up to a bound. */
const PAUSE_MS = 1000;
const PAUSE_MAX_MS = 3000;
const PAUSE_GROWTH = 1.25;
/** After so many looks that found too little, the next one is for new modules only. */
const VAIN_MAX = 10;
/** Modules that V8 has not optimised yet are looked at again: this many at most, and not after so many looks. */
const WAITING_MAX = 128;
const WAIT_MAX = 64;

const { memory, env, pages, available, port, sent, features, keep, ahead } = workerData as RegionWorkerData;
const bytes = new Uint8Array(memory);
let translation: Translation | undefined;
/** Made when there is the first wish: what is kept is to be loaded before. */
function translator(): Translation {
  if (translation) return translation;
  const { tables, handlers, library } = createEngine(readPrebuilt(isWide(pages)));
  translation = {
    tables: features ? tablesFor(tables, features) : tables,
    handlers,
    library,
    available: new Set(available),
    memory: regionMemory(pages),
    env,
  };
  return translation;
}

/** Translates wishes into one module; where that throws, each for itself, so that one that cannot be translated keeps no other back. */
function serve(wishes: readonly RegionWish[]): void {
  try {
    const { batch, code, translated } = translate(translator(), wishes, bytes);
    const module = code && new WebAssembly.Module(code);
    port.postMessage({ batch, module });
    if (keep && module) {
      const fresh = { module, bytes: code, hosts: batch.hosts, imports: batch.imports, regions: translated() };
      vain = 0;
      made.push({ module: fresh, next: 0, wait: 1 });
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

/** What was made and is not kept yet: V8 may not have optimised it. Each is looked at again ever more seldom. */
let made: { readonly module: NewModule; next: number; wait: number }[] = [];
let ended = false;
let timer: NodeJS.Timeout | undefined;
let pause = PAUSE_MS;
const clock = machineClock(hostEpoch());
const nowMs = (): number => clock.now() / 1e6;
let lastSave = nowMs();
/** How often was looked, how often in vain since something was made; and whether this run has kept something. */
let looks = 0;
let vain = 0;
let kept = false;
/** Keeps what has been made for later runs: in the file as it is, but for the last time. */
function save(last = false): void {
  clearTimeout(timer);
  timer = undefined;
  if (!keep || ended) return;
  looks++;
  pause = Math.min(PAUSE_GROWTH * pause, PAUSE_MAX_MS);
  lastSave = nowMs();
  // What waits to be optimised may be the last for a while.
  if (made.length >= FRESH_MIN && vain++ < VAIN_MAX) timer = setTimeout(() => save(), pause);
  const due = made.filter(({ next }) => last || next <= looks);
  if (due.length < FRESH_MIN && !(last && kept)) return;
  const native = nativeCode();
  if (!native) return;
  const modules = due.map(({ module }) => module);
  const added = !last && (keep.sound || kept) ? appendKept(keep.path, native, modules, FRESH_MIN) : undefined;
  const done = added ?? writeKept(keep.path, native, modules, keep.uses, last && kept ? 0 : FRESH_MIN);
  kept ||= done.size > 0;
  if (done.size > 0) vain = 0;
  for (const m of due) {
    m.next = looks + m.wait;
    m.wait *= 2;
  }
  made = made.filter(({ module, wait }) => !done.has(module) && wait <= WAIT_MAX).slice(-WAITING_MAX);
}

/** Loads the modules of earlier runs, one between two wishes. */
function load({ modules, port: to }: NonNullable<RegionWorkerData['ahead']>): void {
  const native = nativeCode();
  if (!native) return;
  const loading = loadAhead(modules, native);
  const next = (): void => {
    const { value, done } = ended ? loading.return(undefined) : loading.next();
    if (done) return;
    if (value) to.postMessage(value);
    setImmediate(next);
  };
  next();
}
if (ahead) load(ahead);

type Message = RegionWish | { readonly save: Int32Array<SharedArrayBuffer> } | { readonly end: true };
port.on('message', (first: Message) => {
  const wishes: RegionWish[] = [];
  let asked: Int32Array<SharedArrayBuffer> | undefined;
  for (let m: Message | undefined = first; m; m = receiveMessageOnPort(port)?.message as Message | undefined) {
    if ('end' in m) {
      ended = true;
      clearTimeout(timer);
      return port.close();
    }
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
    const left = lastSave + pause - nowMs();
    if (left <= 0) save();
    else timer = setTimeout(() => save(), left);
  }
});
