// The thread of one vCPU: builds its view of the board and its engine, then runs the guest whenever it is told to.

import { randomFillSync } from 'node:crypto';
import { openSync, readlinkSync, readSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import type { MemoryLayout } from '../../accel/accel.ts';
import type { Engine } from '../../accel/dbt/dbt.ts';
import type { KeptRegions } from '../../accel/dbt/kept.ts';
import { isWide } from '../../accel/dbt/layout.ts';
import { codeNotifier } from '../../accel/dbt/mailbox.ts';
import type { DbtVcpu } from '../../accel/dbt/vcpu.ts';
import { alignTsc } from '../../accel/kvm/tsc.ts';
import { KvmVcpu } from '../../accel/kvm/vcpu.ts';
import type { KvmShare } from '../../accel/kvm/vm.ts';
import { limited, TRACE_BURST } from '../../bus/events.ts';
import { loadLapicPage, saveLapicPage } from '../../devices/lapic-page.ts';
import type { BootState } from '../../firmware/target.ts';
import { Activity } from '../../isa/x86/state.ts';
import { buildBoard } from '../../machine/board.ts';
import { applyBootState, applyFirmwareState } from '../../machine/boot.ts';
import { type BoardEvent, type MachineConfig, TSC_KHZ } from '../../machine/config.ts';
import type { DeviceConfig } from '../../machine/device-type.ts';
import type { FwCfgBlobs } from '../../machine/fw-cfg-items.ts';
import type { NoticeData, NoticeName } from '../../machine/notices.ts';
import { putVcpu } from '../../machine/snapshot/state.ts';
import { kicker, runVcpu, vcpuBus } from '../../machine/vcpu-loop.ts';
import { machineClock, wallClock } from './clock.ts';
import { readNow } from './file-native.ts';
import type { Kept } from './kept-code.ts';
import { chipsToKernel, pullWires } from './kvm-chips.ts';
import { type KvmThread, kvmThread } from './kvm-thread.ts';
import { readPrebuilt } from './prebuilt.ts';
import type { RegionWorkerData } from './region-worker.ts';
import { extension, isBundle } from './sibling.ts';
import { VCPU_FLAGS } from './vcpu-flags.ts';

/** What a vCPU thread is started with. */
export interface VcpuWorkerData {
  readonly config: MachineConfig;
  /** The machine's memory. */
  readonly buffer: SharedArrayBuffer;
  /**
   * Has one message: the memory as the translator's modules take it. V8 counts all of it as this thread's from then on, and looks for garbage at once,
   * which a thread that has KVM need not wait for.
   */
  readonly memory: MessagePort;
  readonly layout: MemoryLayout;
  readonly cpu: number;
  readonly epoch: bigint;
  /** The machine on KVM, where it runs there. */
  readonly kvm?: KvmShare;
  /** Devices that are added or removed, in order (`DeviceChange`). Read only while the vCPU stands still. */
  readonly changes: MessagePort;
  readonly blobs: FwCfgBlobs;
  /** No other thread compiles the main module for this one. */
  readonly alone?: boolean;
}

/** What a thread is started with that is to wait for its machine, and what it makes ready for that. */
export interface Ahead {
  readonly ahead: 'translator' | 'modules';
  /** One word, which is 0 until the machine was sent. */
  readonly gate: Int32Array<SharedArrayBuffer>;
}

/** What happens to the machine while its vCPUs are held. */
export type DeviceChange =
  | { readonly kind: 'plug'; readonly config: DeviceConfig }
  | { readonly kind: 'unplug'; readonly path: string }
  /** The vCPU goes on with another accelerator: with KVM's machine where there is one. */
  | {
      readonly kind: 'accel';
      readonly kvm: KvmShare | undefined;
      /** It does not run: nobody waits for it. */
      readonly away?: boolean;
      /** The host's time at which the guest's clock was stopped, in ns. */
      readonly since?: number;
    }
  /** Memory and the state in the slots are others now. */
  | { readonly kind: 'reload' };

/** To the thread. */
export type ToVcpu =
  /** The compiled main module, from the thread that compiled it. */
  | { readonly kind: 'module'; readonly module: WebAssembly.Module }
  /** Run from this state, from the reset vector (the first vCPU without a state), or from SIPI. */
  | {
      readonly kind: 'start';
      readonly boot: BootState | null;
      readonly first: boolean;
      /** The vCPU is in the kernel as power-on leaves it, and others may have sent to it: they run already. */
      readonly made?: boolean;
    }
  /** Run from a saved state (`putVcpu`). */
  | { readonly kind: 'restore'; readonly state: Uint8Array };

/** From the thread. */
export type FromVcpu =
  | { readonly kind: 'module'; readonly module: WebAssembly.Module }
  | { readonly kind: 'event'; readonly event: BoardEvent }
  | { readonly kind: 'notice'; readonly name: NoticeName; readonly data: NoticeData[NoticeName] }
  | { readonly kind: 'report'; readonly device: string; readonly message: string }
  | { readonly kind: 'stopped'; readonly instructions: number; readonly state: Readonly<Record<string, bigint>> }
  /** The host's number of the thread. */
  | { readonly kind: 'thread'; readonly id: number }
  /** Over; or as before, where a vCPU could not be made: this one, where it says why. */
  | { readonly kind: 'switched'; readonly refused: boolean; readonly why?: string }
  /** The vCPU that was started has entered its loop; or it could not be made. */
  | { readonly kind: 'begun' }
  /** The local APIC is in the kernel again, with the state that was put in. */
  | { readonly kind: 'reloaded' }
  | { readonly kind: 'unmade'; readonly message: string }
  | { readonly kind: 'failed'; readonly message: string };

const port = parentPort!;
type Translator = typeof import('./translator.ts');
let loaded: Translator | undefined;
/** At once, since the guest that needs it may run already. */
function translator(): Translator {
  if (loaded) return loaded;
  // Bundles know the module by its name in the source.
  loaded = isBundle(import.meta.url)
    ? (require('./translator.ts') as Translator)
    : (createRequire(import.meta.url)(`./translator${extension(import.meta.url)}`) as Translator);
  for (const flag of VCPU_FLAGS) setFlagsFromString(flag);
  return loaded;
}
/** A thread that was started ahead of its machine makes itself ready first. */
const start = workerData as VcpuWorkerData | Ahead;
const ahead = 'ahead' in start;
const prepared = ahead && start.ahead === 'translator' ? prepare() : null;
function prepare(): ReturnType<Translator['prepareEngine']> {
  const { compileNative, prepareEngine } = translator();
  return prepareEngine(false, readPrebuilt(false), compileNative(false));
}
let kept: Kept | undefined;
/** Reads what earlier runs have left, as long as there is no machine. */
function readAhead(id: string | undefined, gate: Int32Array): void {
  const { Kept, likelyPath, nativeCode } = translator();
  const native = id === undefined ? undefined : nativeCode();
  const path = native && likelyPath(id!);
  if (path) kept = Kept.open(path, native);
  while (kept && Atomics.load(gate, 0) === 0) if (!kept.readAhead()) break;
}
if (ahead && prepared) readAhead(prepared.id, start.gate);
const given = ahead ? machineOf(start.gate) : start;
/** Waits for the machine. */
function machineOf(gate: Int32Array): VcpuWorkerData {
  Atomics.wait(gate, 0, 0);
  return receiveMessageOnPort(port)!.message as VcpuWorkerData;
}
const { config, buffer, memory, layout, cpu, epoch, changes, blobs, kvm: share, alone = false } = given;
/** Memory beyond 4 GiB takes other modules than those that were made ahead. */
const wide = isWide(layout.pages);
const ready = prepared && prepared.wide === wide ? prepared : null;
const send = (m: FromVcpu): void => port.postMessage(m);
const clock = machineClock(epoch);
/** What was asked for with -d, as much as a log takes. */
const traced = limited((device, message) => send({ kind: 'report', device, message }), clock, TRACE_BURST);
let kvm = share && kvmThread(buffer, layout, share);
/** KVM runs the vCPU, not only has run it. */
let underKvm = kvm !== undefined;
const flag = kicker(buffer, layout);
const tellCode = codeNotifier(buffer, layout, config.cpus);
try {
  send({ kind: 'thread', id: Number(basename(readlinkSync('/proc/thread-self'))) });
} catch {
  // Hosts without Linux's /proc have no numbers to tell.
}
const hostClock = machineClock(epoch);
const board = buildBoard({
  config,
  buffer,
  layout,
  thread: cpu + 1,
  clock,
  wall: wallClock,
  kick: (n) => (kvm?.kick ?? flag)(n),
  slotsChanged: () => kvm?.slotsChanged(),
  bellsMoved(bells) {
    if (kvm?.doorbells.heard) kvm.doorbells.update(bells());
  },
  remoteApics: kvm?.remoteApics,
  event: (event) => send({ kind: 'event', event }),
  notify: (name, data) => send({ kind: 'notice', name, data }),
  codeChanged: (page) => {
    if (!underKvm) tellCode(page);
  },
  report: (device, message) => send({ kind: 'report', device, message }),
  blobs,
  readNow,
});

/** Does to this thread's devices what was done to the I/O thread's. */
function plugged(): DbtVcpu | KvmVcpu | undefined {
  let other: DbtVcpu | KvmVcpu | undefined;
  for (let m = receiveMessageOnPort(changes); m !== undefined; m = receiveMessageOnPort(changes)) {
    const change = m.message as DeviceChange;
    if (change.kind === 'plug') board.devices.plug(change.config);
    else if (change.kind === 'unplug') board.devices.unplug(change.path);
    else if (change.kind === 'accel') other = switchTo(change.kvm, change.away ?? false, change.since ?? 0);
    else other = reload();
  }
  return other;
}

const pool = new BigUint64Array(64);
let left = 0;
/** The host's random numbers as a file: Node's `crypto` takes a boot 8 ms to load. */
let urandom: number | undefined;
function fill(): void {
  try {
    urandom ??= openSync('/dev/urandom', 'r');
    if (readSync(urandom, pool) === pool.byteLength) return;
  } catch {
    // Other hosts, and processes that may open no files.
  }
  randomFillSync(pool);
}
const random = (): bigint => {
  if (left === 0) {
    fill();
    left = pool.length;
  }
  return pool[--left];
};

const bus = vcpuBus(board, cpu, random);
const made = kvm || ready ? undefined : readPrebuilt(wide);
function newEngine(prebuilt: ReturnType<typeof readPrebuilt>): Engine {
  const { compileNative, createEngine } = translator();
  return createEngine(prebuilt, compileNative(wide));
}
const engine: Engine | null = kvm ? null : (ready?.engine ?? newEngine(made));
let vcpu: DbtVcpu | null = null;
let maker: ReturnType<Translator['regionMaker']> | null = null;
/** Regions of earlier runs of this vCPU, and where those of this one go, on a build that has a name. */
function keeping(): { readonly to: RegionWorkerData['keep']; readonly kept: KeptRegions | undefined } | undefined {
  const id = made?.id ?? ready?.id;
  if (id === undefined || wide || config.eager || config.translationCache === 'off') return undefined;
  const { Kept, keptPath, nativeCode, noUses } = translator();
  const native = nativeCode();
  if (!native) return undefined;
  const path = keptPath(id, cpu, bus.features);
  if (kept?.path !== path) {
    kept?.close();
    kept = Kept.open(path, native);
  }
  const uses = noUses();
  return {
    to: config.translationCache !== 'read' ? { path, uses, sound: kept?.sound ?? false } : undefined,
    kept: kept?.regions(uses),
  };
}
let received: WebAssembly.Memory | undefined;
function wasmMemory(): WebAssembly.Memory {
  received ??= receiveMessageOnPort(memory)!.message as WebAssembly.Memory;
  return received;
}
const make = (engine: Engine, module: WebAssembly.Module, continues = false): DbtVcpu => {
  maker?.close();
  const { createVm, DbtVcpu, REACH, regionMaker } = translator();
  const keep = keeping();
  maker = config.eager
    ? null
    : regionMaker(
        buffer,
        layout.vcpuBase + cpu * layout.vcpuBytes,
        layout.pages,
        module,
        bus.features,
        keep?.to,
        cpu === 0 && keep ? kept : undefined,
      );
  return new DbtVcpu(
    createVm(engine, wasmMemory(), layout, config.cpus, module, {
      ...(maker ? { maker } : { regions: 'always', reach: REACH.block }),
      features: bus.features,
      // Node's `performance` takes a thread 5 ms to load.
      now: () => hostClock.now() / 1e6,
      ...(keep?.kept ? { kept: keep.kept } : {}),
      trace: config.trace.includes('cpu') ? (text) => traced('cpu', text) : undefined,
    }),
    cpu,
    bus,
    continues,
  );
};

/** The translator's vCPU over the state as it is, for one that has run on KVM: made when it is first needed. */
let beside: DbtVcpu | undefined;
/** What it is made of, kept for the next one. */
let parts: { readonly engine: Engine; readonly module: WebAssembly.Module } | undefined;
function assistant(): DbtVcpu {
  if (beside) return beside;
  if (!parts) {
    const { compileNative, mainModule } = translator();
    const own = engine ?? newEngine(readPrebuilt(wide));
    parts = { engine: own, module: main ?? compileNative(wide)(mainModule(own, wide), 'main') };
  }
  beside = make(parts.engine, parts.module, true);
  return beside;
}

/** This vCPU on KVM. It stays over restarts of the machine and over switches, since KVM's machine does. */
let onKvm: KvmVcpu | undefined;
/** Why it could not be made. */
let unmade: unknown;
try {
  onKvm = kvm && kvmVcpu(kvm, false);
} catch (error) {
  unmade = error;
}
function kvmVcpu({ vm, written }: KvmThread, keep: boolean): KvmVcpu {
  const lapic = board.lapics[cpu]!;
  return new KvmVcpu({
    vm,
    memory: buffer,
    layout,
    index: cpu,
    bus,
    keep,
    tscKhz: config.tscKhz ?? TSC_KHZ,
    written,
    coalesced: (take) =>
      board.lock.run(() => {
        for (let write = take(); write; write = take()) {
          const { port, size, value } = write;
          const found = board.ports.find(port);
          found?.handler.write(port - found.base, size, value);
        }
      }),
    assist: assistant,
    apic: {
      save: () => board.lock.run(() => saveLapicPage(lapic)),
      load: (base, page, deadline) =>
        board.lock.run(() => {
          lapic.setBase(base);
          loadLapicPage(lapic, { page, deadline });
        }),
      clear: () => board.lock.run(() => lapic.init()),
    },
    trace: config.trace.includes('accel') ? (text) => traced('kvm', text) : undefined,
  });
}

/** Waits until all vCPUs that are there are here; the last one to come does something before they go on. */
function meet(last: () => void): void {
  const { switched, gate } = board.control;
  const all = board.cpus.list().length;
  const arrived = Atomics.add(switched, 0, 1) + 1;
  const meeting = Math.ceil(arrived / all);
  if (arrived === meeting * all) {
    last();
    Atomics.store(gate, 0, meeting);
    Atomics.notify(gate, 0);
  } else for (let n = Atomics.load(gate, 0); n < meeting; n = Atomics.load(gate, 0)) Atomics.wait(gate, 0, n, 1000);
}

/**
 * The vCPU, held and with its state in the slots, on another accelerator; back when all of them are there. To make one takes a while, for
 * which the guest's clock stands still: it does so since the host's time `since`. Where one of them cannot be made all stay where they were;
 * one that is `away` takes no part, and is missing (`unmade`) when it is to run.
 */
function switchTo(share: KvmShare | undefined, away: boolean, since: number): DbtVcpu | KvmVcpu | undefined {
  const before = running;
  const wasUnderKvm = underKvm;
  const { refused } = board.control;
  let next: DbtVcpu | KvmVcpu | undefined;
  let why: string | undefined;
  try {
    next = over(share);
    unmade = undefined;
  } catch (error) {
    unmade = error;
    underKvm = share !== undefined;
    why = error instanceof Error ? error.message : String(error);
    if (!away) Atomics.store(refused, 0, 1);
  }
  if (away) return next;
  const left = wasUnderKvm && !share;
  meet(() => {
    if (left) alignTsc(buffer, layout, board.cpus.list(), config.tscKhz ?? TSC_KHZ);
    const { skipped } = board.control;
    skipped[0] = skipped[0]! + hostClock.now() - since;
    if (Atomics.load(refused, 0) === 0 ? share : wasUnderKvm) kvm?.vm.setClock(board.clock.now());
  });
  const back = Atomics.load(refused, 0) !== 0;
  if (back || !next) {
    // Nothing has run on the other side: the state is where it was.
    unmade = undefined;
    next = before!;
    if (next instanceof KvmVcpu) next.takeOver();
    else {
      next.forget();
      next.sync();
    }
  }
  const toKvm = next instanceof KvmVcpu;
  underKvm = toKvm;
  board.apicBus.remote = toKvm ? kvm?.remoteApics : undefined;
  running = next;
  // Before any vCPU runs: an interrupt that the others or the board send must find the local APIC as it will be.
  if (next instanceof KvmVcpu) next.load(board.control.tscBase);
  else takeParts();
  meet(() => {
    if (left && !toKvm) board.lock.run(() => board.apicsBack());
    if (!toKvm || !kvm?.chips) return;
    if (back) board.lock.run(() => pullWires(board, kvm!.chips!));
    else chipsToKernel(board, kvm.chips, epoch);
  });
  send({ kind: 'switched', refused: back, ...(why === undefined ? {} : { why }) });
  return next;
}

/** The vCPU on the other accelerator, with its state in the slots. Throws where it cannot be made. */
function over(share: KvmShare | undefined): DbtVcpu | KvmVcpu {
  let next: DbtVcpu | KvmVcpu;
  if (share) {
    kvm ??= kvmThread(buffer, layout, share);
    if (!onKvm) {
      onKvm = kvmVcpu(kvm, true);
      // Once, and by one: the guest has read CPUID under the translator, which has all of the model.
      if (cpu === 0 && onKvm.lacking.length > 0)
        send({
          kind: 'report',
          device: 'kvm',
          message: `the guest was told of CPU features that this KVM has not: ${onKvm.lacking.join(', ')}; its programs end where they use them`,
        });
    }
    onKvm.check();
    if (board.hyperv)
      throw new Error(
        "Cannot run the guest on this KVM: it was offered Hyper-V's interface, which is the board's; accepted is a CPU model without hv-",
      );
    onKvm.takeOver();
    next = onKvm;
  } else {
    onKvm?.refresh();
    next = assistant();
    next.forget();
    next.sync();
  }
  underKvm = share !== undefined;
  board.apicBus.remote = share && kvm?.remoteApics;
  running = next;
  return next;
}

let main: WebAssembly.Module | null = null;
/** A start that came before the module. */
let early: Start | null = null;

if (engine && (cpu === 0 || alone)) {
  const { compileNative, mainModule } = translator();
  main = ready?.main ?? compileNative(wide)(made?.main ?? mainModule(engine, wide), 'main');
  if (cpu === 0 && config.cpus > 1) send({ kind: 'module', module: main });
  vcpu = make(engine, main);
}

/** The vCPU for a start; null while the translator's module is not there yet. */
function fresh(): DbtVcpu | KvmVcpu | null {
  // A machine that starts again has other code in its memory, and nothing in the vCPU's: it is made anew, with all that it has decoded.
  const wasBeside = beside !== undefined;
  beside = undefined;
  if (underKvm && onKvm) return onKvm;
  if (wasBeside) return assistant();
  if (!engine || !main) return null;
  const made = vcpu ?? make(engine, main);
  vcpu = null;
  return made;
}

type Start = ToVcpu & { kind: 'start' | 'restore' };
/** The vCPU that runs. */
let running: DbtVcpu | KvmVcpu | undefined;
/** Its slots and memory were changed from outside. */
function reloaded(): void {
  if (running instanceof KvmVcpu) running.takeOver();
  else {
    running?.forget();
    running?.sync();
    takeParts();
  }
}
/** What goes by the vCPU's counter, and its paravirtual interface, are the board's to serve, with the state as it is. */
function takeParts(): void {
  board.lock.run(() => {
    board.lapics[cpu]!.timer.tscChanged();
    board.pvs[cpu]!.takeOver();
  });
}

/** As `reloaded`; with the local APICs in the kernel, no vCPU goes on before all are there. */
function reload(): DbtVcpu | KvmVcpu | undefined {
  reloaded();
  if (!(running instanceof KvmVcpu) || !kvm?.remoteApics) return undefined;
  running.load(board.control.tscBase);
  const { chips } = kvm;
  meet(() => chips && chipsToKernel(board, chips, epoch));
  send({ kind: 'reloaded' });
  return running;
}

function run(m: Start): void {
  // What it was told while it did not run.
  const other = plugged();
  if (unmade !== undefined) {
    send({ kind: 'unmade', message: unmade instanceof Error ? unmade.message : String(unmade) });
    return;
  }
  const current = other ?? fresh();
  if (current === null) {
    early = m;
    return;
  }
  running = current;
  current.reset();
  if (m.kind === 'restore') {
    putVcpu(new DataView(buffer), layout.vcpuBase + cpu * layout.vcpuBytes, m.state);
    reloaded();
    if (current instanceof KvmVcpu) {
      current.check();
      current.load(board.control.tscBase);
    }
  } else {
    if (config.firmware === undefined) applyFirmwareState(current);
    if (m.boot) applyBootState(current, m.boot);
    if (!m.first) current.set('activity', BigInt(Activity.waitsForSipi));
    if (current instanceof KvmVcpu && kvm?.remoteApics) current.load(undefined, m.made);
  }
  send({ kind: 'begun' });
  runVcpu(board, current, cpu, (event) => send({ kind: 'event', event }), plugged);
  maker?.save();
  const state: Record<string, bigint> = {};
  for (const name of ['rip', 'rsp', 'cr0', 'cr2', 'cr3', 'cr4', 'cs.selector', 'rax', 'rbx', 'rcx', 'rdx'])
    state[name] = current.get(name);
  send({ kind: 'stopped', instructions: current.instructions, state });
}

port.on('message', (m: ToVcpu) => {
  try {
    if (m.kind === 'module') {
      main = m.module;
      if (engine) vcpu = make(engine, main);
      if (early) run(early);
      early = null;
    } else run(m);
  } catch (error) {
    send({ kind: 'failed', message: error instanceof Error ? (error.stack ?? error.message) : String(error) });
  }
});
