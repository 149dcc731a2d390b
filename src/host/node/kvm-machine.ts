// What a machine has of KVM, as its I/O thread holds it: the kernel's machine, made when it is first needed, and the interrupt controllers,
// messages, wires and clocks that go between it and the board when vCPUs move, stand still or go on.

import type { MemoryLayout } from '../../accel/accel.ts';
import { giveAllBack, holdingOf } from '../../accel/kvm/holdings.ts';
import { checkComponents, keptComponents } from '../../accel/kvm/state.ts';
import { alignTsc } from '../../accel/kvm/tsc.ts';
import { makeVcpu } from '../../accel/kvm/vcpu.ts';
import type { Msi } from '../../bus/irq.ts';
import type { PlacedBell } from '../../bus/space.ts';
import { CONFIG_ADDRESS } from '../../devices/pci-host.ts';
import { tsegBytes } from '../../devices/smram.ts';
import { type Board, EXTENDED_TSEG } from '../../machine/board.ts';
import { type MachineConfig, TSC_KHZ } from '../../machine/config.ts';
import { chipsToBoard, chipsToKernel, pitToKernel, pullWires } from './kvm-chips.ts';
import { waitForDoorbells } from './kvm-doorbells-thread.ts';
import { type KvmThread, kvmThread } from './kvm-thread.ts';

/**
 * Doorbells that the vCPUs ring themselves before the kernel does, for whom a thread has to wait: a disk that is read at the doorbell, and else rings a few
 * times in its life, does without.
 */
const RINGS = 16;

/** Has vCPUs leave their guests and their loops: a thread in KVM_RUN cannot be ended. */
export function expel({ control, wake }: Board, cpus: number): void {
  Atomics.store(control.stop, 0, 1);
  Atomics.notify(control.pause, 0);
  for (let n = 0; n < cpus; n++) wake(n);
}

export interface KvmMachineOptions {
  readonly config: MachineConfig;
  readonly memory: SharedArrayBuffer;
  readonly layout: MemoryLayout;
  /** Host time in ns at which the machine's clock begins. */
  readonly epoch: bigint;
  /** Told why the thread that waits for doorbells has ended, where it has failed. */
  readonly failed: (message: string) => void;
}

/** KVM's part of one machine. What is said of chips, messages and clocks does nothing while the translator runs the vCPUs. */
export class KvmMachine {
  /** The kernel runs the vCPUs. */
  active = false;
  readonly #o: KvmMachineOptions;
  #connected: Board | undefined;
  #thread: KvmThread | undefined;
  #untouched = false;
  #endDoorbells: (() => Promise<void>) | undefined;
  /** Messages that devices have sent since the machine was held, with the local APICs in the kernel. */
  #diverted: Msi[] | undefined;

  constructor(o: KvmMachineOptions) {
    this.#o = o;
  }
  /** The machine on KVM, once it has been there. */
  get thread(): KvmThread | undefined {
    return this.#thread;
  }
  /** KVM has the local APICs. */
  get hasLocalApics(): boolean {
    return this.active && this.#thread?.remoteApics !== undefined;
  }
  get #chips(): KvmThread['chips'] {
    return this.active ? this.#thread?.chips : undefined;
  }

  // -- from its making to its end

  /** Makes it when it is first needed; from here on the kernel is to run the vCPUs. Throws, with one line, where this host has no KVM. */
  open(): KvmThread {
    const { config, memory, layout } = this.#o;
    if (!this.#thread) {
      const { dirtyRing, machine, smm, timers } = config;
      // The translator has vCPUs in system management mode, and the local APICs with them.
      const irqchip = smm ? 'off' : (config.irqchip ?? (machine === 'microvm' ? 'split' : 'on'));
      // A kernel that looks for bridges everywhere writes and reads here eight thousand times.
      const coalesced = machine === 'microvm' ? undefined : CONFIG_ADDRESS;
      this.#thread = kvmThread(memory, layout, {
        ...{ irqchip, dirtyRing, coalesced, pitDiscards: timers?.pitDiscards },
        hiding: smm ? tsegBytes(config.extendedTseg ?? EXTENDED_TSEG) : undefined,
      });
      // A process that ends waits for its threads, and one in KVM_RUN has to be sent for.
      process.setMaxListeners(process.getMaxListeners() + 1).on('exit', this.#processEnds);
    }
    this.active = true;
    return this.#thread;
  }
  /** Makes the first `count` vCPUs in the kernel, before their threads, which would make them: there, one that cannot be made says why. */
  makeVcpus(count: number): void {
    const thread = this.#thread;
    if (!thread) return;
    const { memory, layout } = this.#o;
    const all = Array.from({ length: count }, (_, n) => makeVcpu(thread.vm, holdingOf(memory, layout, n), n));
    this.#untouched = all.every((fd) => fd > 0);
  }
  /** The vCPUs of `makeVcpus` never ran, and the kernel keeps an INIT or SIPI for one of them: the first one need not wait for the others' threads. */
  get keepsCalls(): boolean {
    return this.#untouched && this.hasLocalApics;
  }
  /** The vCPUs run from here on, and leave traces. */
  touched(): void {
    this.#untouched = false;
  }
  /** The board, which is made with what KVM has of it. */
  connect(board: Board): void {
    this.#connected = board;
  }
  get #board(): Board {
    if (!this.#connected) throw new Error('Cannot bring the board to KVM: it is not there yet');
    return this.#connected;
  }
  /** The I/O thread has heard `count` doorbells. Once it has heard many, the kernel rings those that it can. */
  rang(count: number): void {
    if (!this.active || this.#rings >= RINGS) return;
    this.#rings += count;
    const { lock, placeBells } = this.#board;
    if (this.#rings >= RINGS) lock.run(placeBells);
  }
  #rings = 0;
  /** Writes that only ring are elsewhere now. With the board's lock held. */
  bellsMoved(bells: () => readonly PlacedBell[]): void {
    const thread = this.#thread;
    if (!thread || this.#rings < RINGS) return;
    const placed = bells();
    // What is rung before that thread is there waits in the eventfds.
    if (placed.length > 0) {
      const { memory, layout, failed } = this.#o;
      this.#endDoorbells ??= waitForDoorbells(thread, { memory, layout }, failed);
    }
    thread.doorbells.update(placed);
  }
  /** Ends the thread that hears them. */
  async stopHearing(): Promise<void> {
    await this.#endDoorbells?.();
  }
  readonly #processEnds = (): void => {
    if (this.#connected) expel(this.#connected, this.#o.config.cpus);
  };
  /** Gives KVM's machine back. The threads that used it are gone. */
  close(): void {
    const thread = this.#thread;
    if (!thread) return;
    process.off('exit', this.#processEnds).setMaxListeners(process.getMaxListeners() - 1);
    // What still comes from devices goes nowhere.
    this.#thread = undefined;
    if (this.#connected) this.#connected.apicBus.remote = undefined;
    giveAllBack(thread.vm.host, this.#o.memory, this.#o.layout);
    thread.vm.close();
  }
  /** Throws where the processor cannot have these components of XSAVE (hexadecimal digits, as saved machines have them). */
  refuseUnfit(xcr0: string): void {
    if (this.active && this.#thread) checkComponents(BigInt(`0x${xcr0}`), keptComponents(this.#thread.vm.supported));
  }

  // -- clocks; the vCPUs are held

  /** The guest's time is the kernel's, where that runs it: their clocks go a little differently. */
  followClock(): void {
    if (!this.active) return;
    const board = this.#board;
    let best = { ahead: 0, window: Number.POSITIVE_INFINITY };
    for (let n = 0; n < 3; n++) {
      const before = board.clock.now();
      const kernel = this.#thread?.vm.getClock();
      if (kernel === undefined) return;
      const window = board.clock.now() - before;
      if (window < best.window) best = { ahead: before + window / 2 - kernel, window };
    }
    const { skipped } = board.control;
    skipped[0] = skipped[0]! + best.ahead;
  }
  /** The kernel's clock as the guest's is. */
  setClock(): void {
    if (this.active) this.#thread?.vm.setClock(this.#board.clock.now());
  }
  /** The kernel's PIT as the board's is: it has counted on there while the guest's clock stood still. */
  setPit(): void {
    if (this.#chips) pitToKernel(this.#board, this.#chips, this.#o.epoch);
  }

  // -- chips and messages; the vCPUs are held

  /** Has the board's chips be as the kernel's are, where it keeps them. `now` is the guest's time in ns. */
  takeChips(now: number): void {
    if (this.#chips) chipsToBoard(this.#board, this.#chips, this.#o.epoch, now);
  }
  /** Has the kernel's chips be as the board's are, where it keeps them. */
  giveChips(): void {
    if (this.#chips) chipsToKernel(this.#board, this.#chips, this.#o.epoch);
  }
  /**
   * From here on, what devices send goes to the board's interrupt controllers, which have the state of the kernel's: who saves the machine, or moves
   * it, finds it there. The kernel gets it when the machine goes on. `now` is the guest's time in ns.
   */
  divert(now: number): void {
    if (!this.hasLocalApics) return;
    this.takeChips(now);
    const { apicBus, lock } = this.#board;
    const diverted: Msi[] = [];
    this.#diverted = diverted;
    lock.run(() => {
      apicBus.remote = {
        msi(address, data) {
          diverted.push({ address, data });
          return apicBus.deliverHere(address, data);
        },
        routes: () => {},
      };
    });
  }
  /** The vCPUs have looked at their local APICs since `divert`: their counters agree from here on, and so do the board's local APICs. */
  looked(): void {
    const board = this.#board;
    const { memory, layout, config } = this.#o;
    alignTsc(memory, layout, board.cpus.list(), config.tscKhz ?? TSC_KHZ);
    if (this.#diverted) board.lock.run(() => board.apicsBack());
  }
  /** Devices send to the kernel again, which gets what they have sent since. */
  undivert(): void {
    const diverted = this.#diverted;
    if (!diverted) return;
    this.#diverted = undefined;
    const board = this.#board;
    const { apicBus, lock } = board;
    lock.run(() => {
      apicBus.remote = this.#thread?.remoteApics;
      if (this.#thread?.chips) pullWires(board, this.#thread.chips);
      for (const { address, data } of diverted) apicBus.deliverMsi(address, data);
    });
  }
  /** What devices have sent since `divert` is for nobody any more: other state takes its place, or the vCPUs move. */
  dropDiverted(): void {
    this.#diverted = undefined;
  }
  /** The same, and devices send to the kernel again: the machine is as after power-on. */
  resetDiverted(): void {
    if (!this.#diverted) return;
    this.dropDiverted();
    const board = this.#board;
    board.lock.run(() => {
      board.apicBus.remote = this.#thread?.remoteApics;
    });
  }
  /** Keeps messages to local APICs that move to the kernel or back, until what it returns is called: then they are all there. */
  keepMessages(): () => void {
    const board = this.#board;
    const { apicBus, lock } = board;
    const kept: Msi[] = [];
    lock.run(() => {
      apicBus.remote = { msi: (address, data) => kept.push({ address, data }) > 0, routes: () => {} };
    });
    return () =>
      lock.run(() => {
        apicBus.remote = this.active ? this.#thread?.remoteApics : undefined;
        // Wires that moved since the last vCPU took the chips over; or a timer that the board has now.
        if (this.#chips) pullWires(board, this.#chips);
        board.timers.changed();
        for (const { address, data } of kept) apicBus.deliverMsi(address, data);
      });
  }
}
