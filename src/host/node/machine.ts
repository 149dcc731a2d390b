// A machine in a Node process: the I/O thread's side. Starts a worker for each vCPU, loads the kernel, carries the serial ports' bytes,
// and carries out what the guest asks for: reset, power off, exit.

import { randomBytes } from 'node:crypto';
import { MessageChannel, type MessagePort, type Worker } from 'node:worker_threads';
import type { MemoryLayout } from '../../accel/accel.ts';
import { Counters, countersText } from '../../accel/dbt/counters.ts';
import { Area, alignRam, createMemory, layoutOf } from '../../accel/dbt/layout.ts';
import { codeNotifier } from '../../accel/dbt/mailbox.ts';
import { type ExitCount, ExitCounters, type ExitName } from '../../accel/kvm/counters.ts';
import type { BootState } from '../../firmware/target.ts';
import { type Backends, noBackends } from '../../machine/backends.ts';
import { type Board, buildBoard } from '../../machine/board.ts';
import type { BoardEvent, MachineConfig, MachineEvent } from '../../machine/config.ts';
import { presentAtStart } from '../../machine/cpus.ts';
import type { DeviceTree } from '../../machine/device-tree.ts';
import type { DeviceConfig, IoServices } from '../../machine/device-type.ts';
import { extraBytes } from '../../machine/extra.ts';
import type { FwCfgBlobs } from '../../machine/fw-cfg-items.ts';
import { hasIoapic2 } from '../../machine/microvm.ts';
import type { NoticeListener, Notify, ShutdownReason } from '../../machine/notices.ts';
import { connectPs2, connectVmMouse } from '../../machine/ps2-input.ts';
import type { LiveOptions, MachineEnd, MachineSetup, MachineStatus, RunningMachine } from '../../machine/running.ts';
import { type Manifest, putVcpu } from '../../machine/snapshot/state.ts';
import {
  type DirtyLog,
  firstManifest,
  loadMachine,
  memoryBytes,
  type StillMachine,
  saveLive,
  saveMachine,
  streamEnd,
  streamStart,
} from '../../machine/snapshot/stream.ts';
import { physicalBitsOf } from '../../machine/tables.ts';
import { kicker } from '../../machine/vcpu-loop.ts';
import { hostEpoch, machineClock, wallClock } from './clock.ts';
import { type NativeFiles, nativeFiles } from './file-native.ts';
import { type FrozenMemory, GuestMemory } from './frozen-memory.ts';
import { expel, KvmMachine } from './kvm-machine.ts';
import { FlashFiles, firmwareBlobs, type LoadGuestOptions, loadGuest, tellPlaces, wakeState } from './load-guest.ts';
import { endThreads } from './native-gate.ts';
import { connectStream, listenStream } from './net-stream.ts';
import { SerialPorts } from './serial-ports.ts';
import { vcpuRegisters } from './vcpu-state.ts';
import { type ThreadAhead, vcpuThread } from './vcpu-thread.ts';
import type { DeviceChange, FromVcpu, ToVcpu, VcpuWorkerData } from './vcpu-worker.ts';
import { zstd } from './zstd.ts';

const PAGE = 4096;
const LARGE_PAGE = 2 << 20;
/** Bytes of decoded code that a boot comes to. */
const RECORDS_SOON = 16 << 20;
/** ms between two looks at the clock of a guest that sleeps. */
const ALARM_MS = 250;
/**
 * ms that vCPUs have to stop in: where somebody ends the machine, who does not wait for one that cannot; else, as a guest that resets, which must
 * not die because its host is busy.
 */
const stopLimit = { asked: 10_000, own: 60_000 } as const;

/** A machine as it stood: all state but memory, as a stream without pages, and memory. */
export interface FrozenMachine {
  readonly state: Uint8Array;
  readonly memory: FrozenMemory;
}

/** Why vCPUs are stopped. */
type Stop = MachineEnd | { readonly kind: 'suspend' };

interface Switching {
  left: number;
  /** Why a vCPU could not be made; then all of them are where they were. */
  refused: string | undefined;
  readonly done: () => void;
}

async function* once<T>(value: T): AsyncGenerator<T> {
  yield value;
}

/** One machine. It runs from `start` until `ended` resolves. */
export class NodeMachine implements RunningMachine {
  readonly board: Board;
  readonly ended: Promise<MachineEnd>;
  readonly cpus: number;
  kernelLine = '';
  instructions = 0;
  /** Some registers of the vCPUs as they stopped. */
  readonly lastState: Readonly<Record<string, bigint>>[] = [];
  readonly #o: MachineSetup;
  readonly #layout: MemoryLayout;
  readonly #bytes: Uint8Array;
  /** Threads of vCPUs, by number; made when a vCPU first comes, and kept. */
  readonly #workers: (Worker | undefined)[] = [];
  readonly #changes: (MessagePort | undefined)[] = [];
  /** Devices that came and went, for threads that are made later. */
  readonly #changed: DeviceChange[] = [];
  readonly #epoch: bigint;
  readonly #blobs: FwCfgBlobs;
  /** The translator's compiled main module. */
  #module: WebAssembly.Module | undefined;
  readonly #threads: PromiseWithResolvers<number>[] = [];
  readonly #listeners = new Set<NoticeListener>();
  readonly #io: IoServices;
  readonly backends: Backends;
  readonly #serial: SerialPorts;
  readonly #flash: FlashFiles;
  #boot: BootState | null;
  #status: MachineStatus = 'prelaunch';
  /** The vCPUs stand before their first instruction. */
  #prepared = false;
  /** The I/O thread looks after ports and devices. */
  #serving = false;
  /** vCPUs in their loops. */
  readonly #running = new Set<number>();
  /** Why its vCPUs are being stopped, or were; a sleep alone is no end. */
  #why: Stop | null = null;
  #resolve!: (end: MachineEnd) => void;
  /** The reset under way was asked for from outside. */
  #asked = false;
  #quitReason: ShutdownReason = 'host-qmp-quit';
  /** Host time in ns at which the guest's clock was stopped. */
  #stoodStillAt = 0;
  readonly #hostClock: { now(): number };
  readonly #memory: WebAssembly.Memory;
  readonly #guest: GuestMemory;
  /** State that was loaded before the start. */
  #restored: { readonly clock: number; readonly vcpus: ReadonlyMap<number, Uint8Array> } | undefined;
  readonly #kvm: KvmMachine;
  /** vCPUs that were plugged into the running machine and are being made, by number. */
  readonly #coming = new Map<number, PromiseWithResolvers<void>>();
  /** Of a switch under way: vCPUs that have not said that they are over, and who waits for them. */
  #switching: Switching | undefined;
  /** vCPUs that have not yet brought the state that was put in to the kernel, and what to do then. */
  #reloading: { left: number; readonly deliver: () => void } | undefined;
  /** Local APICs of a restored machine are on their way to the kernel; the vCPUs are held. */
  #loading: Promise<void> | undefined;

  /**
   * Throws one clear line for a kernel or configuration that cannot be used.
   */
  constructor(o: MachineSetup, ahead?: ThreadAhead) {
    this.#o = o;
    const { config } = o;
    this.cpus = config.cpus;
    this.backends = o.backends ?? noBackends();
    this.ended = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    const room = layoutOf(config.memory, config.cpus, extraBytes(config), false, config.memoryHotplug?.bytes ?? 0);
    const end = room.plugBytes > 0 ? room.plugBase + room.plugBytes : room.ramHigh > 0 ? 2 ** 32 + room.ramHigh : 0;
    if (end > 2 ** physicalBitsOf(config))
      throw new Error(
        `Cannot give the guest ${(config.memory + room.plugBytes) / 2 ** 20} MiB of memory: its physical addresses have ${physicalBitsOf(config)} bits, accepted are ${room.ramLow / 2 ** 20} MiB, or a larger phys-bits=`,
      );
    const memory = allocate(room, config);
    this.#native = nativeFiles() ?? null;
    const layout = this.#native ? alignRam(room, this.#native.address(new Uint8Array(memory.buffer))) : room;
    this.#layout = layout;
    const epoch = hostEpoch();
    this.#bytes = new Uint8Array(memory.buffer);
    this.#hostClock = machineClock(epoch);
    const blobs = firmwareBlobs(o, layout.ramLow);
    this.#epoch = epoch;
    this.#blobs = blobs;
    this.#memory = memory;
    const { ramBase, guestBytes } = layout;
    this.#native?.preferLarge(this.#bytes.subarray(ramBase, ramBase + guestBytes));
    // What vCPUs have decoded, 16 MiB in a boot.
    if (config.accel !== 'kvm') this.#native?.preferLarge(this.#bytes.subarray(layout.vcpuBase, layout.devices));
    this.#guest = new GuestMemory(this.#bytes.subarray(ramBase, ramBase + guestBytes), o.shareable === true);
    this.#kvm = new KvmMachine({ config, memory: memory.buffer, layout, epoch, failed: (message) => this.#fail(message) });
    const kvm = config.accel === 'kvm' ? this.#kvm.open() : undefined;
    const present = presentAtStart(config);
    this.#kvm.makeVcpus(present);
    const flag = kicker(memory.buffer, layout);
    const tellCode = codeNotifier(memory.buffer, layout, config.cpus);
    for (let cpu = 0; cpu < config.cpus; cpu++) this.#threads.push(Promise.withResolvers());
    const startThreads = (from: number, to: number): void => {
      for (let cpu = from; cpu < to; cpu++) this.#thread(cpu, cpu === 0 ? ahead : undefined);
    };
    // Those that the first one need not wait for leave it the host's processors until the guest can begin.
    const atOnce = this.#kvm.keepsCalls ? 1 : present;
    startThreads(0, atOnce);
    try {
      this.board = buildBoard({
        config,
        buffer: memory.buffer,
        layout,
        thread: 0,
        clock: this.#hostClock,
        wall: wallClock,
        kick: (n) => (this.#kvm.thread?.kick ?? flag)(n),
        slotsChanged: () => this.#kvm.thread?.slotsChanged(),
        bellsMoved: (bells) => this.#kvm.bellsMoved(bells),
        remoteApics: kvm?.remoteApics,
        event: (event) => this.#event(event),
        notify: this.#notify,
        codeChanged: (page) => {
          if (!this.#kvm.active) tellCode(page);
        },
        report: o.report,
        blobs,
        clear: (gpa, length) => {
          const at = layout.ramHighBase - ramBase + gpa - 2 ** 32;
          this.#guest.clear(at, at + length);
          this.#bytes.fill(0, layout.dirtyMap + at / PAGE, layout.dirtyMap + (at + length) / PAGE);
        },
      });
      this.#kvm.connect(this.board);
      this.#serial = new SerialPorts({ board: this.board, output: o.serial, over: () => this.#status === 'ended' });
      this.#flash = new FlashFiles({ board: this.board, images: o.firmware?.flash ?? [], report: o.report });
      this.#io = {
        backends: this.backends,
        lock: this.board.lock,
        memory: this.board.memory,
        report: o.report,
        notify: this.#notify,
        stop: () => void this.pause(),
        release: (gpa, length) => this.#release(gpa, length),
        random: async (count) => randomBytes(count),
        sockets: {
          connect: (path, events) => connectStream({ path }, events),
          listen: (path, accept) => listenStream({ path }, accept),
        },
        now: () => performance.now(),
        after: (ms, action) => {
          const timer = setTimeout(action, ms);
          return { cancel: () => clearTimeout(timer) };
        },
      };
      if (this.board.keyboard) {
        connectPs2(this.board.keyboard, this.board.lock, this.backends.input);
        if (this.board.vmport) connectVmMouse(this.board.vmport.mouse, this.board.keyboard, this.board.lock, this.backends.input);
      }
      this.board.devices.connect(this.#io);
      this.#boot = o.restored ? null : this.#load();
      startThreads(atOnce, present);
    } catch (error) {
      void Promise.all([endThreads(this.#workers), this.#kvm.stopHearing()]).then(() => this.#kvm.close());
      throw error;
    }
  }

  get status(): MachineStatus {
    return this.#status;
  }

  // -- what the user asks

  async prepare(): Promise<void> {
    if (this.#status !== 'prelaunch' || this.#prepared) return;
    this.#prepared = true;
    this.#launch(true);
    this.#stoodStillAt = this.#hostClock.now();
    await this.#hold();
  }
  start(): void {
    if (this.#status !== 'prelaunch') return;
    if (this.#prepared) {
      this.#status = 'paused';
      this.#prepared = false;
      this.resume();
    } else {
      this.#launch();
      this.#giveSoon();
      this.#notify('RESUME', {});
    }
    if (this.#serving) return;
    this.#serving = true;
    this.#serial.start();
    void this.board.bells.serve(
      () => new Promise((resolve) => setImmediate(resolve)),
      (count) => this.#kvm.rang(count),
    );
  }
  async pause(): Promise<void> {
    if (this.#status !== 'running') return;
    this.#status = 'paused';
    await this.#loading;
    await this.#hold();
    this.#kvm.followClock();
    this.#stoodStillAt = this.#hostClock.now();
    this.#kvm.divert(this.clock());
    await Promise.all(this.devices.list().map((d) => d.io?.drain?.()));
    await this.#look();
    this.#notify('STOP', {});
  }
  /** Has the vCPUs, which are held, look at their local APICs again: one that was held before the others has got what they have sent since. */
  async #look(): Promise<void> {
    if (!this.#kvm.hasLocalApics) return;
    const { pause, looked } = this.board.control;
    Atomics.store(looked, 0, 0);
    const word = Atomics.load(pause, 0);
    // It may have been told to go on meanwhile.
    if (word === 0 || Atomics.compareExchange(pause, 0, word, word + 1) !== word) return;
    Atomics.notify(pause, 0);
    for (let n = 0; n < this.#running.size && !this.#why && Atomics.load(pause, 0) !== 0; n = Atomics.load(looked, 0)) {
      const wait = Atomics.waitAsync(looked, 0, n, 100);
      if (wait.async) await wait.value;
    }
    this.#kvm.looked();
  }
  /** Waits until all vCPUs stand still. */
  async #hold(): Promise<void> {
    const { pause, paused } = this.board.control;
    Atomics.store(pause, 0, 1);
    for (let n = 0; n < this.cpus; n++) this.board.wake(n);
    for (;;) {
      const held = Atomics.load(paused, 0);
      if (held >= this.#running.size || Atomics.load(pause, 0) === 0 || this.#why) break;
      const wait = Atomics.waitAsync(paused, 0, held, 100);
      if (wait.async) await wait.value;
    }
  }
  #letGo(): void {
    const { pause } = this.board.control;
    Atomics.store(pause, 0, 0);
    Atomics.notify(pause, 0);
  }
  resume(): void {
    if (this.#status === 'prelaunch') return this.start();
    if (this.#status !== 'paused') return;
    // Under a switch of the accelerator the vCPUs let the clock go on, once all are over.
    if (!this.#switching) {
      this.#kvm.undivert();
      const { skipped } = this.board.control;
      skipped[0] = skipped[0]! + this.#hostClock.now() - this.#stoodStillAt;
      this.#kvm.setClock();
      this.#kvm.setPit();
    }
    this.#status = 'running';
    // Where a reset is under way, it drops what was held.
    if (!this.#asked) for (const { io } of this.devices.list()) io?.resumed?.();
    if (!this.#loading) this.#letGo();
    this.#notify('RESUME', {});
  }
  reset(): void {
    this.#asked = true;
    if (this.#status === 'suspended') {
      clearInterval(this.#alarm);
      this.#status = 'running';
      this.#restart({ kind: 'reset' });
    } else if (this.#status === 'shutdown' || (this.#status === 'prelaunch' && !this.#prepared)) this.#restart({ kind: 'reset' });
    else this.#stop({ kind: 'reset' });
  }
  powerButton(): void {
    if (this.#status !== 'running' && this.#status !== 'paused') return;
    this.#notify('POWERDOWN', {});
    this.board.lock.run(() => this.board.powerButton());
  }
  quit(reason: ShutdownReason = 'host-qmp-quit'): void {
    this.#quitReason = reason;
    if (this.#status === 'prelaunch' || this.#status === 'shutdown' || this.#status === 'suspended') {
      clearInterval(this.#alarm);
      this.#why = { kind: 'quit' };
      void this.#finish();
    } else this.#stop({ kind: 'quit' });
  }
  input(n: number, bytes: Uint8Array): void {
    if (bytes.length === 0 || this.#status === 'ended') return;
    this.#serial.input(n, bytes);
  }
  vcpuState(cpu: number): DataView {
    const { vcpuBase, vcpuBytes } = this.#layout;
    return new DataView(this.#bytes.buffer, vcpuBase + cpu * vcpuBytes, vcpuBytes);
  }
  stateChanged(): void {
    Atomics.add(this.board.control.plugs, 0, 1);
  }
  readonly #debuggers = new Set<(cpu: number) => void>();
  onDebug(listener: (cpu: number) => void): () => void {
    this.#debuggers.add(listener);
    return () => this.#debuggers.delete(listener);
  }
  async #debugStop(cpu: number): Promise<void> {
    if (this.#status !== 'running') return;
    await this.pause();
    for (const listener of this.#debuggers) listener(cpu);
  }
  counters(cpu: number): string {
    const { vcpuBase, vcpuBytes } = this.#layout;
    return countersText(new Counters(this.#bytes.buffer, vcpuBase + cpu * vcpuBytes + Area.counters).read());
  }
  exits(cpu: number): Partial<Record<ExitName, ExitCount>> {
    const { vcpuBase, vcpuBytes } = this.#layout;
    return new ExitCounters(this.#bytes.buffer, vcpuBase + cpu * vcpuBytes + Area.exits).read();
  }
  registers(cpu: number): Readonly<Record<string, bigint>> {
    const { vcpuBase, vcpuBytes } = this.#layout;
    return vcpuRegisters(new DataView(this.#bytes.buffer, vcpuBase + cpu * vcpuBytes, vcpuBytes));
  }

  /** The host's numbers of the threads of the vCPUs that are there, by vCPU; never resolves where it has none. */
  async threads(): Promise<ReadonlyMap<number, number>> {
    const list = this.board.cpus.list();
    for (const cpu of list) this.#thread(cpu);
    return new Map(await Promise.all(list.map(async (cpu) => [cpu, await this.#threads[cpu]!.promise] as const)));
  }
  /** The thread of a vCPU, made when there is none. */
  #thread(cpu: number, ahead?: ThreadAhead): Worker {
    const known = this.#workers[cpu];
    if (known) return known;
    const { config } = this.#o;
    const { port1, port2 } = new MessageChannel();
    port1.unref();
    this.#changes[cpu] = port1;
    const memory = new MessageChannel();
    memory.port1.unref();
    memory.port1.postMessage(this.#memory);
    const data: VcpuWorkerData = {
      config,
      buffer: this.#memory.buffer as unknown as SharedArrayBuffer,
      memory: memory.port2,
      layout: this.#layout,
      cpu,
      epoch: this.#epoch,
      changes: port2,
      blobs: this.#blobs,
      kvm: this.#kvm.active ? this.#kvm.thread?.vm.share : undefined,
      alone: config.accel === 'kvm',
    };
    const worker = vcpuThread(data, [port2, memory.port2], ahead);
    worker.on('message', (m: FromVcpu) => this.#message(cpu, m));
    worker.on('error', (error) => this.#fail(error instanceof Error ? (error.stack ?? error.message) : String(error)));
    this.#workers[cpu] = worker;
    for (const change of this.#changed) port1.postMessage(change);
    if (this.#module) this.#send(worker, { kind: 'module', module: this.#module });
    return worker;
  }
  /** Lets a vCPU run: from a saved state, or as after power-on. */
  #startVcpu(cpu: number, state?: Uint8Array, made = false): void {
    const worker = this.#thread(cpu);
    this.#running.add(cpu);
    this.#send(
      worker,
      state ? { kind: 'restore', state } : { kind: 'start', boot: cpu === 0 ? this.#boot : null, first: cpu === 0, made },
    );
  }

  // -- devices

  get devices(): DeviceTree {
    return this.board.devices;
  }
  subscribe(listener: NoticeListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
  readonly #notify: Notify = (name, data) => {
    const at = Date.now();
    for (const listener of this.#listeners) listener(name, data, at);
  };
  /** Changes of devices, one after another. */
  #changing: Promise<unknown> = Promise.resolve();
  async hold<T>(action: () => T): Promise<T> {
    const done = this.#changing.then(async () => {
      const running = this.#status === 'running' && this.#running.size > 0;
      if (running) {
        await this.#hold();
        this.#kvm.takeChips(this.clock());
      }
      try {
        return action();
      } finally {
        if (running && this.#status === 'running') this.#letGo();
      }
    });
    this.#changing = done.catch(() => {});
    return done;
  }
  #change<T>(act: () => T): Promise<T> {
    const done = this.#changing.then(async () => {
      if (this.#status === 'ended') throw new Error('Cannot change devices: the machine has ended');
      const running = this.#status === 'running' && this.#running.size > 0;
      if (running) await this.#hold();
      try {
        return act();
      } finally {
        this.board.lock.run(() => this.board.placeBells());
        Atomics.add(this.board.control.plugs, 0, 1);
        if (running && this.#status === 'running') this.#letGo();
      }
    });
    this.#changing = done.catch(() => {});
    return done;
  }
  get #still(): StillMachine {
    return { board: this.board, buffer: this.#memory.buffer, layout: this.#layout, used: () => this.#guest.used() };
  }
  clock(): number {
    return this.#status === 'paused' ? this.#stoodStillAt - this.board.control.skipped[0]! : this.board.clock.now();
  }
  async *saveState(): AsyncGenerator<Uint8Array> {
    if (this.#status !== 'paused') throw new Error(`Cannot save a machine that is ${this.#status}: accepted is paused`);
    for await (const chunk of saveMachine(this.#still, zstd)) {
      yield chunk;
      if (this.#status !== 'paused') throw new Error('Cannot save a machine that goes on meanwhile');
    }
  }
  /** The machine, which must be held, for others to go on from; it goes on as before. */
  freeze(): FrozenMachine {
    if (this.#status !== 'paused') throw new Error(`Cannot freeze a machine that is ${this.#status}: accepted is paused`);
    const parts = [...streamStart(this.#still), ...streamEnd(this.#still)];
    return { state: Buffer.concat(parts), memory: this.#guest.freeze() };
  }
  /** Takes a frozen machine over; this one was made with `restored` and not started. */
  async thaw({ state, memory }: FrozenMachine): Promise<void> {
    if (this.#status !== 'prelaunch')
      throw new Error(`Cannot thaw into a machine that is ${this.#status}: accepted is not started`);
    this.board.reset();
    for (const { io } of this.devices.list()) io?.reset?.();
    this.#guest.take(memory);
    this.#restored = await loadMachine(this.#still, once(state), { packer: zstd });
  }
  async *liveState(o: LiveOptions): AsyncGenerator<Uint8Array> {
    if (this.#status !== 'running') {
      yield* this.saveState();
      return;
    }
    const log = await this.logDirty();
    yield* saveLive(this.#still, log, () => this.pause(), { ...o, now: () => performance.now() }, zstd);
  }
  /** Who notes which pages are written: pages that each has not been told of yet, in lists. */
  readonly #logs = new Set<(readonly number[])[]>();
  async logDirty(): Promise<DirtyLog> {
    const { layout, board } = this.#still;
    const map = this.#bytes.subarray(layout.dirtyMap, layout.dirtyMap + memoryBytes(this.#still) / PAGE);
    const CLEAN = 1;
    /** Tells all logs of the pages that were written; the first store to each is seen again. */
    const collect = (): void => {
      this.#kvm.thread?.takeDirty(map);
      const dirty: number[] = [];
      for (let page = map.indexOf(0); page >= 0; page = map.indexOf(0, page + 1)) {
        dirty.push(page);
        map[page] = CLEAN;
      }
      for (const log of this.#logs) log.push(dirty);
      board.lock.run(() => board.slots.changed(false));
    };
    const own: (readonly number[])[] = [];
    await this.hold(() => {
      if (this.#logs.size === 0) {
        map.fill(CLEAN);
        this.#kvm.thread?.logDirty(true);
      }
      collect();
      this.#logs.add(own);
    });
    return {
      take: () =>
        this.hold(() => {
          collect();
          const lists = own.splice(0);
          return lists.length === 1 ? [...lists[0]!] : [...new Set(lists.flat())].sort((a, b) => a - b);
        }),
      stop: () => {
        if (!this.#logs.delete(own) || this.#logs.size > 0) return;
        map.fill(0);
        this.#kvm.thread?.logDirty(false);
      },
    };
  }
  async checkState(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    this.#refuseUnfit(await firstManifest(this.#still, chunks));
  }
  /** Throws where what runs the vCPUs cannot have the state of a machine. */
  #refuseUnfit({ xcr0 = '1' }: Manifest): void {
    this.#kvm.refuseUnfit(xcr0);
  }
  async loadState(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    if (this.#status !== 'paused' && this.#status !== 'prelaunch')
      throw new Error(`Cannot restore into a machine that is ${this.#status}: accepted are paused and not started`);
    const begin = (saved: Manifest): void => {
      this.#refuseUnfit(saved);
      if (this.#status === 'prelaunch') this.board.reset();
      for (const { io } of this.devices.list()) io?.reset?.();
      this.#guest.clear();
    };
    const { clock, vcpus } = await loadMachine(this.#still, chunks, { packer: zstd, begin });
    const { skipped } = this.board.control;
    if (this.#status === 'paused') {
      skipped[0] = this.#stoodStillAt - clock;
      const view = new DataView(this.#memory.buffer);
      vcpus.forEach((state, n) => putVcpu(view, this.#layout.vcpuBase + n * this.#layout.vcpuBytes, state));
      const { switched, gate, plugs, tscBase } = this.board.control;
      if (this.#kvm.hasLocalApics) {
        this.#reloading?.deliver();
        this.#kvm.dropDiverted();
        this.#reloading = { left: this.#running.size, deliver: this.#kvm.keepMessages() };
        Atomics.store(switched, 0, 0);
        Atomics.store(gate, 0, 0);
        Atomics.store(tscBase, 0, 0n);
      }
      for (const port of this.#changes) port?.postMessage({ kind: 'reload' } satisfies DeviceChange);
      Atomics.add(plugs, 0, 1);
    } else this.#restored = { clock, vcpus };
  }
  get accel(): 'dbt' | 'kvm' {
    return this.#kvm.active ? 'kvm' : 'dbt';
  }
  async setAccel(accel: 'dbt' | 'kvm'): Promise<void> {
    if (accel === this.accel) return;
    if (accel === 'kvm' && hasIoapic2({ ...this.#o.config, accel: 'dbt' }))
      throw new Error('Cannot change the accelerator: the board has a second I/O APIC, accepted is -M microvm,ioapic2=off');
    if (this.#status !== 'running' && this.#status !== 'paused')
      throw new Error(`Cannot change the accelerator: the machine is ${this.#status}, accepted are running and paused`);
    const wasRunning = this.#status === 'running';
    if (wasRunning) await this.pause();
    const before = this.accel;
    let refused: string | undefined;
    try {
      const kvm = accel === 'kvm' ? this.#kvm.open() : undefined;
      this.#kvm.active = accel === 'kvm';
      this.#kvm.dropDiverted();
      const { lock, control } = this.board;
      lock.run(() => this.board.placeBells());
      const deliver = this.#kvm.keepMessages();
      const since = this.#stoodStillAt;
      Atomics.store(control.switched, 0, 0);
      Atomics.store(control.refused, 0, 0);
      Atomics.store(control.gate, 0, 0);
      Atomics.store(control.tscBase, 0, 0n);
      this.#changes.forEach((port, cpu) => {
        const away = !this.#running.has(cpu);
        port?.postMessage({ kind: 'accel', kvm: kvm?.vm.share, away, since } satisfies DeviceChange);
      });
      Atomics.add(control.plugs, 0, 1);
      const over = Promise.withResolvers<void>();
      const switching: Switching = { left: this.#running.size, refused: undefined, done: over.resolve };
      this.#switching = switching;
      this.resume();
      await over.promise;
      this.#switching = undefined;
      refused = switching.refused;
      if (refused !== undefined) {
        this.#kvm.active = before === 'kvm';
        // Those that do not run were told of a switch that has not been.
        const back = before === 'kvm' ? this.#kvm.thread?.vm.share : undefined;
        this.#changes.forEach((port, cpu) => {
          if (!this.#running.has(cpu)) port?.postMessage({ kind: 'accel', kvm: back, away: true } satisfies DeviceChange);
        });
      }
      deliver();
    } catch (error) {
      this.#kvm.active = before === 'kvm';
      this.#switching = undefined;
      if (wasRunning) this.resume();
      throw error;
    }
    if (!wasRunning) await this.pause();
    if (refused !== undefined) throw new Error(`Cannot change the accelerator: ${refused}; the machine goes on with ${before}`);
  }
  async deviceAdd(config: DeviceConfig): Promise<void> {
    const type = this.devices.type(config.driver);
    if (type.hotplug === false && this.#status !== 'prelaunch')
      throw new Error(`Device '${config.driver}' does not support hotplugging`);
    const coming: Promise<void>[] = [];
    const plugged = await this.#change(() => {
      const added = this.devices.plug(config, { io: this.#io });
      this.#tell({ kind: 'plug', config });
      // A vCPU waits for its SIPI; in a machine that was not started it comes with the others.
      if (this.#running.size === 0) return added;
      for (const cpu of this.board.cpus.list().filter((cpu) => !this.#running.has(cpu))) {
        const come = Promise.withResolvers<void>();
        this.#coming.set(cpu, come);
        coming.push(come.promise);
        this.#startVcpu(cpu);
      }
      return added;
    });
    try {
      await Promise.all([plugged.io?.ready, ...coming]);
    } catch (error) {
      await this.#remove(plugged.path);
      throw error;
    }
  }
  /** Has the threads of vCPUs do to their devices what was done here. */
  #tell(change: DeviceChange): void {
    this.#changed.push(change);
    for (const port of this.#changes) port?.postMessage(change);
  }
  async deviceDel(id: string): Promise<void> {
    const device = this.devices.find(id);
    if (!device) throw new Error(`Device '${id}' not found`);
    if (device.bus.hotplug === false || device.type.hotplug === false)
      throw new Error(`Device '${id}' cannot be removed: it does not support hotplugging`);
    if (device.bus.requestUnplug && (this.#status === 'running' || this.#status === 'paused')) device.bus.requestUnplug(device);
    else await this.#remove(device.path);
  }
  async #remove(path: string): Promise<void> {
    const gone = await this.#change(() => {
      if (!this.devices.find(path)) return [];
      const removed = this.devices.unplug(path);
      this.#tell({ kind: 'unplug', path });
      return removed;
    });
    for (const { io, id, path: at } of gone) {
      await io?.close?.();
      this.#notify('DEVICE_DELETED', id === undefined ? { path: at } : { device: id, path: at });
    }
  }
  #event(event: BoardEvent): void {
    if (event.kind === 'debug') void this.#debugStop(event.cpu);
    else if (event.kind === 'panic') this.#o.panicked?.(event.what);
    else if (event.kind === 'suspend') this.#stop(event);
    else if (event.kind === 'eject') void this.#remove(event.path).catch(() => {});
    else this.#stop(event);
  }

  /** Gives memory back to the host, where it can take it. */
  #release(gpa: number, length: number): void {
    const bytes = this.board.memory.slice(gpa, length);
    if (!bytes) return;
    this.#native?.release(bytes);
    this.board.memory.written(gpa, length);
  }
  readonly #native: NativeFiles | null;
  /** The guest's memory is as it was made: all zeros. */
  #fresh = true;

  // -- start, stop, start again

  /** Puts into memory what the machine starts with. */
  #load(): BootState | null {
    const { config, files, firmware } = this.#o;
    const fresh = this.#fresh;
    this.#fresh = false;
    const soon: LoadGuestOptions['soon'] = (parts) => void this.#soon.push(...parts);
    const { board } = this;
    const boot = loadGuest({ config, files, firmware, board, layout: this.#layout, memory: this.#bytes, fresh, soon });
    if (boot) this.kernelLine = boot.kernel;
    return boot;
  }
  /** Guest memory below 4 GiB that is likely to be used first. */
  readonly #soon: { readonly gpa: number; readonly length: number }[] = [];
  /**
   * Has the host give the pages that the first vCPU is about to touch while this thread has nothing else to do: a large one costs up to a millisecond, and
   * a boot touches forty.
   */
  #giveSoon(): void {
    const native = this.#native;
    if (!native || this.#soon.length === 0 || this.#kvm.active) return;
    const { vcpuBase, ramBase } = this.#layout;
    const records = { at: vcpuBase + Area.records, length: RECORDS_SOON };
    const parts = [records, ...this.#soon.map(({ gpa, length }) => ({ at: ramBase + gpa, length }))];
    this.#soon.length = 0;
    // A piece of each in turn.
    const pieces: Uint8Array[] = [];
    for (let done = 0; parts.some(({ length }) => done < length); done += LARGE_PAGE)
      for (const { at, length } of parts)
        if (done < length) pieces.push(this.#bytes.subarray(at + done, at + Math.min(done + LARGE_PAGE, length)));
    let n = 0;
    const next = (): void => {
      if (this.#status !== 'running' || n === pieces.length || !native.populate(pieces[n++]!)) return;
      setImmediate(next);
    };
    setImmediate(next);
  }
  #launch(held = false, wakes?: 'alarm' | 'other'): void {
    if (!held) this.#status = 'running';
    else Atomics.store(this.board.control.pause, 0, 1);
    const made = this.#kvm.keepsCalls;
    this.#kvm.touched();
    const restored = this.#restored;
    if (restored) {
      this.#restored = undefined;
      this.board.control.skipped[0] = this.#hostClock.now() - restored.clock;
      Atomics.store(this.board.control.tscBase, 0, 0n);
      this.#kvm.setClock();
      const deliver = this.#kvm.hasLocalApics ? this.#kvm.keepMessages() : undefined;
      if (deliver) Atomics.store(this.board.control.pause, 0, 1);
      for (const [cpu, state] of restored.vcpus) this.#startVcpu(cpu, state);
      for (const { io } of this.devices.list()) io?.resumed?.();
      if (!deliver) return;
      // Each vCPU brings its local APIC to the kernel. None runs before all are there: an interrupt for one that is not would be lost.
      this.#loading = this.#hold().then(() => {
        this.#kvm.giveChips();
        deliver();
        this.#loading = undefined;
        if (this.#status === 'running') this.#letGo();
      });
      return;
    }
    this.board.reset(wakes);
    tellPlaces({ config: this.#o.config, board: this.board, layout: this.#layout, memory: this.#bytes });
    if (held) Atomics.store(this.board.control.pause, 0, 1);
    this.#kvm.setClock();
    this.#kvm.giveChips();
    const cpus = this.board.cpus.list();
    // For a local APIC that is brought to the kernel later a SIPI would be lost: none runs before all are there.
    const wait = !made && !held && this.#kvm.hasLocalApics && cpus.length > 1;
    if (wait) Atomics.store(this.board.control.pause, 0, 1);
    for (const cpu of cpus) this.#startVcpu(cpu, undefined, made && cpu !== 0);
    if (!wait) return;
    this.#loading = this.#hold().then(() => {
      this.#loading = undefined;
      if (this.#status === 'running') this.#letGo();
    });
  }
  #send(worker: Worker, m: ToVcpu): void {
    worker.postMessage(m);
  }
  #message(cpu: number, m: FromVcpu): void {
    switch (m.kind) {
      case 'module':
        this.#module = m.module;
        this.#workers.forEach((w, n) => {
          if (w && n !== cpu) this.#send(w, m);
        });
        return;
      case 'event':
        return this.#event(m.event);
      case 'notice':
        return this.#notify(m.name, m.data);
      case 'report':
        return this.#o.report(m.device, m.message);
      case 'thread':
        return this.#threads[cpu]!.resolve(m.id);
      case 'switched':
        if (this.#switching && m.refused) this.#switching.refused = m.why ?? this.#switching.refused ?? '';
        if (this.#switching && --this.#switching.left === 0) this.#switching.done();
        return;
      case 'reloaded':
        if (!this.#reloading || --this.#reloading.left > 0) return;
        this.#reloading.deliver();
        this.#reloading = undefined;
        return;
      case 'begun':
        this.#coming.get(cpu)?.resolve();
        this.#coming.delete(cpu);
        return;
      case 'unmade': {
        const come = this.#coming.get(cpu);
        if (!come) return this.#fail(m.message);
        this.#coming.delete(cpu);
        this.#running.delete(cpu);
        come.reject(new Error(m.message));
        return;
      }
      case 'failed':
        return this.#fail(m.message);
      case 'stopped':
        this.instructions += m.instructions;
        this.lastState[cpu] = m.state;
        if (this.#o.config.trace.includes('tiers')) this.#o.report('tiers', `CPU#${cpu}\n${this.counters(cpu)}`);
        this.#running.delete(cpu);
        if (this.#running.size === 0) void this.#stopped();
        return;
    }
  }
  #fail(message: string): void {
    this.#why = { kind: 'failed', message };
    void this.#finish();
  }
  #stop(why: Stop): void {
    if (this.#status === 'ended' || this.#status === 'shutdown' || this.#why?.kind === 'failed') return;
    const first = this.#why === null;
    // The end that somebody asks for wins over what the guest does meanwhile.
    if (first || why.kind === 'quit') this.#why = why;
    if (!first && why.kind !== 'quit') return;
    clearTimeout(this.#limit);
    this.#limit = setTimeout(
      () => {
        if (this.#running.size === 0) return;
        this.#why = this.#why?.kind === 'quit' ? this.#why : { kind: 'failed', message: 'Cannot stop the vCPUs: no answer' };
        void this.#finish();
      },
      stopLimit[why.kind === 'quit' ? 'asked' : 'own'],
    ).unref();
    if (!first) return;
    expel(this.board, this.cpus);
  }
  #limit: NodeJS.Timeout | undefined;
  /** All vCPUs have left their loops. */
  async #stopped(): Promise<void> {
    clearTimeout(this.#limit);
    await this.#serial.drain();
    await Promise.all(this.devices.list().map((d) => d.io?.drain?.()));
    const why: Stop = this.#why ?? { kind: 'quit' };
    if (why.kind === 'reset' || why.kind === 'shutdown') {
      if (!this.#o.noReboot && (this.#o.mayRestart?.(why) ?? true)) return this.#restart(why);
    } else if (why.kind === 'suspend') {
      this.#why = null;
      this.#status = 'suspended';
      this.#notify('SUSPEND', {});
      this.#alarm = setInterval(() => {
        if (this.board.lock.run(() => this.board.alarmed())) this.#wake('alarm');
      }, ALARM_MS);
      return;
    } else if (why.kind === 'powerOff' && this.#o.noShutdown) {
      this.#why = null;
      this.#status = 'shutdown';
      this.#notify('SHUTDOWN', { guest: true, reason: 'guest-shutdown' });
      this.#notify('STOP', {});
      return;
    }
    await this.#finish();
  }
  #alarm: NodeJS.Timeout | undefined;
  wakeup(): void {
    this.#wake('other');
  }
  /** The guest goes on after a sleep: vCPUs and devices as after power-on, memory as it was. */
  #wake(by: 'alarm' | 'other'): void {
    if (this.#status !== 'suspended') return;
    clearInterval(this.#alarm);
    this.#notify('WAKEUP', {});
    const boot = this.#o.config.firmware ? null : wakeState({ layout: this.#layout, memory: this.#bytes });
    if (boot === undefined) {
      // Firmware would start anew.
      this.#status = 'running';
      return this.#restart({ kind: 'reset' });
    }
    this.#clear();
    this.#boot = boot;
    this.#launch(false, by);
    for (const { io } of this.devices.list()) io?.reset?.();
  }
  /** Forgets the vCPUs' state and what was decoded. */
  #clear(): void {
    const { guestBytes, vcpuBase, vcpuBytes, codeMap } = this.#layout;
    for (let cpu = 0; cpu < this.cpus; cpu++) {
      const at = vcpuBase + cpu * vcpuBytes;
      this.#bytes.fill(0, at, at + Area.records);
    }
    this.#bytes.fill(0, codeMap, codeMap + guestBytes / PAGE);
    this.#kvm.resetDiverted();
  }
  /** vCPUs and devices as after power-on. Memory keeps what the guest has left in it; what the machine starts with is loaded over it again. */
  #restart(why: MachineEvent): void {
    this.#why = null;
    Atomics.add(this.board.control.resets, 0, 1);
    this.#clear();
    this.#boot = this.#load();
    const asked = this.#asked;
    this.#asked = false;
    // A machine that was held stays so, until it is started again.
    if (this.#status === 'running') this.#launch();
    else {
      this.#status = 'prelaunch';
      this.#prepared = false;
      this.board.reset();
    }
    for (const { io } of this.devices.list()) io?.reset?.();
    this.#notify('RESET', { guest: !asked, reason: asked ? 'host-qmp-system-reset' : 'guest-reset' });
    this.#o.restarted?.(why);
  }
  async #finish(): Promise<void> {
    if (this.#status === 'ended') return;
    const why: MachineEnd = this.#why && this.#why.kind !== 'suspend' ? this.#why : { kind: 'quit' };
    const reason: Partial<Record<MachineEnd['kind'], ShutdownReason>> = {
      quit: this.#quitReason, powerOff: 'guest-shutdown', reset: 'guest-reset', shutdown: 'guest-reset', failed: 'host-error',
    }; // biome-ignore format: one object
    const told = reason[why.kind];
    if (told) this.#notify('SHUTDOWN', { guest: told.startsWith('guest'), reason: told });
    this.#status = 'ended';
    for (const come of this.#coming.values()) come.reject(new Error('Cannot add a vCPU: the machine has ended'));
    this.#coming.clear();
    this.board.bells.close();
    await this.#serial.drain();
    await this.#flash.save();
    await Promise.all(this.devices.list().map((d) => d.io?.close?.()));
    expel(this.board, this.cpus);
    await Promise.all([endThreads(this.#workers), this.#kvm.stopHearing()]);
    this.#kvm.close();
    this.#guest.close();
    this.#resolve(why);
  }
}

function allocate(layout: MemoryLayout, config: MachineConfig): WebAssembly.Memory {
  try {
    return createMemory(layout);
  } catch {
    throw new Error(
      `Cannot give the guest ${Math.ceil(config.memory / 2 ** 20)} MiB of memory: this host refuses to reserve ${layout.pages >> 4} MiB of address space; a smaller -m may be accepted`,
    );
  }
}
