// The loop of a vCPU's thread: runs the guest in slices, serves timers, takes INIT and SIPI, sleeps while the vCPU is halted.

import type { MemoryLayout, Vcpu, VcpuBus } from '../accel/accel.ts';
import { kvmCpuid } from '../devices/kvm-pv.ts';
import { event, sipiVector } from '../devices/lapic.ts';
import { cpuModel } from '../isa/x86/cpu-model.ts';
import { type CpuDescription, keptCpuid } from '../isa/x86/cpuid.ts';
import { pmuKind } from '../isa/x86/pmu.ts';
import { Activity, kick } from '../isa/x86/state.ts';
import type { Board } from './board.ts';
import type { BoardEvent, MachineConfig } from './config.ts';
import { TSC_KHZ } from './config.ts';
import { physicalBitsOf } from './tables.ts';
import { arrangement } from './types/cpu.ts';

/** Instructions of one slice: short enough that timers are served every fraction of a millisecond. */
const SLICE = 50_000;
/** Longest sleep, in ms, before a halted vCPU looks again on its own. */
const LONGEST_SLEEP = 1000;
/** The same, in ms, for one that waits for a store: at first, and the more often it wakes for nothing, up to. */
const WAIT = { first: 0.05, longest: 1 } as const;

/** A function that makes vCPU n look at interrupts and requests soon; any thread may call it. */
export function kicker(memory: SharedArrayBuffer, layout: MemoryLayout): (cpu: number) => void {
  const words = new Int32Array(memory);
  return (cpu) => {
    Atomics.or(words, (layout.vcpuBase + cpu * layout.vcpuBytes + kick.offset) >> 2, 1);
  };
}

/** What CPUID tells of one vCPU. */
function describe(config: MachineConfig, index: number): CpuDescription {
  const [name, ...changes] = config.cpuModel.split(',');
  const kvm = config.paravirtual.length > 0 ? kvmCpuid(config.paravirtual)[1].eax : null;
  const whole = cpuModel(name, changes);
  // KVM's own is not offered.
  const model = config.accel === 'kvm' ? { ...whole, hyperv: undefined } : whole;
  const { hostVendor } = config;
  const named = hostVendor === undefined || changes.some((c) => c.startsWith('vendor='));
  return {
    model: {
      ...(named ? model : { ...model, vendor: hostVendor }),
      physicalBits: physicalBitsOf(config),
      // KVM's own counters are not offered to the guest.
      pmu: model.pmu && hostVendor === undefined,
    },
    topology: arrangement(config),
    index,
    tscKhz: config.tscKhz ?? TSC_KHZ,
    kvm,
  };
}

/** What the board says to vCPU `cpu` while it runs. */
export function vcpuBus(board: Board, cpu: number, random: () => bigint): VcpuBus {
  const { ports, lock, tsc, clock } = board;
  const mmio = board.mmio[cpu];
  const msrs = board.msrs[cpu];
  const lapic = board.lapics[cpu];
  const model = describe(board.config, cpu);
  const pmu = pmuKind(model.model);
  const cpuid = keptCpuid(model);
  return {
    portIn: (port, bytes) => ports.read(port, bytes),
    portOut: (port, bytes, value) => ports.write(port, bytes, value),
    calledPort: board.vmport?.port,
    callPort: (registers) => lock.run(() => board.vmport!.call(registers, model.model.features.has('x2apic'))),
    mmioRead: (gpa, bytes) => (bytes === 8 ? mmio.read64(gpa) : BigInt(mmio.read(gpa, bytes))),
    mmioWrite(gpa, bytes, value) {
      if (bytes === 8) mmio.write64(gpa, value);
      else mmio.write(gpa, bytes, Number(value & 0xffffffffn));
    },
    rdmsr: (msr) => msrs.read(msr),
    wrmsr: (msr, value) => msrs.write(msr, value),
    keepMsr: (msr, value) => board.pvs[cpu].keep(msr, value),
    cpuid(leaf, subleaf, state) {
      const [eax, ebx, ecx, edx] = cpuid(leaf, subleaf, state);
      // A local APIC that is off is not shown.
      return [eax, ebx, ecx, leaf === 1 && lapic.mode === 'off' ? edx & ~0x200 : edx];
    },
    hypercall(nr, args, cpl, long = true) {
      const { hyperv } = board;
      if (hyperv?.entered) return lock.run(() => hyperv.hypercall(nr, args[1]!, cpl, long));
      if (board.config.paravirtual.length === 0) return undefined;
      return lock.run(() => board.hypercall(nr, args[0], args[1], args[2], args[3], cpl, true, cpu));
    },
    tsc: () => tsc.tscAt(clock.now()),
    ticks: board.ticks,
    tscChanged: () =>
      lock.run(() => {
        lapic.timer.tscChanged();
        board.pvs[cpu].updateClock();
        if (cpu === 0) board.hyperv?.updateTime();
      }),
    features: model.model.features,
    ...(pmu ? { pmu } : {}),
    overflow: () => lock.run(() => lapic.overflow(pmu === 'intel')),
    random,
    get tpr() {
      return lapic.tpr;
    },
    set tpr(value) {
      lapic.tpr = value;
    },
    pending: () => lapic.pending(),
    takeUnhalt: () => board.pvs[cpu].takeUnhalt(),
    attention: () => lapic.s.events[0] !== 0,
    acknowledge: () => lock.run(() => (lapic.pending() ? lapic.acknowledge() : -1)),
    eoi: (vector) => lock.run(() => lapic.bus.eoi(vector)),
  };
}

/**
 * Runs the vCPU until the board's `stop` word is set. `plugged` is called, before the guest goes on, when something was changed while it
 * was held: devices, or the accelerator, for which it returns the vCPU to go on with.
 */
export function runVcpu(
  board: Board,
  first: Vcpu,
  cpu: number,
  shutdown: (e: BoardEvent) => void,
  plugged: () => Vcpu | undefined = () => undefined,
): void {
  const lapic = board.lapics[cpu];
  const { stop, pause, paused, looked, plugs, wake } = board.control;
  let vcpu = first;
  let known = Atomics.load(plugs, 0);
  vcpu = plugged() ?? vcpu;
  /** It waits for a SIPI, which an accelerator that keeps the local APICs takes itself. */
  const waits = (): boolean => !vcpu.startsItself && vcpu.get('activity') === BigInt(Activity.waitsForSipi);
  let waiting = waits();
  let patience: number = WAIT.first;
  while (Atomics.load(stop, 0) === 0) {
    let held = Atomics.load(pause, 0);
    if (held !== 0) {
      vcpu.publish();
      Atomics.add(paused, 0, 1);
      Atomics.notify(paused, 0);
      while (Atomics.load(stop, 0) === 0) {
        const word = Atomics.load(pause, 0);
        if (word === 0) break;
        if (word !== held) {
          held = word;
          vcpu.refresh();
          Atomics.add(looked, 0, 1);
          Atomics.notify(looked, 0);
        } else Atomics.wait(pause, 0, held, LONGEST_SLEEP);
      }
      Atomics.sub(paused, 0, 1);
      if (known !== Atomics.load(plugs, 0)) {
        known = Atomics.load(plugs, 0);
        const other = plugged();
        if (other) vcpu = other;
        else vcpu.sync();
      }
      // It was taken away.
      if (!board.cpus.has(cpu)) return;
      waiting = waits();
      continue;
    }
    const seen = Atomics.load(wake, cpu);
    const now = board.clock.now();
    if (lapic.next() <= now) board.lock.run(() => lapic.tick(now));
    if (cpu === 0 && board.timers.next() <= now) board.lock.run(() => board.timers.tick(now));
    const events = lapic.takeEvents();
    if (board.config.smm && events & event.smi) vcpu.smi();
    // INIT waits for the end of system management mode (SDM volume 3, 32.3.1).
    if (events & event.init && board.config.smm && vcpu.get('smm') !== 0n) vcpu.set('initPending', 1n);
    else if (events & event.init || (board.config.smm && vcpu.get('initPending') !== 0n && vcpu.get('smm') === 0n)) {
      board.lock.run(() => lapic.init());
      vcpu.init();
      waiting = cpu !== 0;
      if (waiting) vcpu.set('activity', BigInt(Activity.waitsForSipi));
    }
    if (events & event.nmi) vcpu.nmi();
    if (events & event.nmiAgain) vcpu.nmi();
    if (waiting && events & event.sipi) {
      const vector = sipiVector(events);
      vcpu.set('cs.selector', BigInt(vector << 8));
      vcpu.set('cs.base', BigInt(vector << 12));
      vcpu.set('rip', 0n);
      vcpu.set('activity', BigInt(Activity.running));
      vcpu.sync();
      waiting = false;
    }
    let longest: number = LONGEST_SLEEP;
    if (!waiting) {
      const next = Math.min(lapic.next(), cpu === 0 ? board.timers.next() : Number.POSITIVE_INFINITY);
      const exit = vcpu.run(SLICE, Math.max(0, next - board.clock.now()));
      if (exit === 'shutdown') {
        shutdown({ kind: 'shutdown' });
        return;
      }
      if (exit === 'debug') {
        // All vCPUs are held before anybody else looks.
        Atomics.store(pause, 0, 1);
        shutdown({ kind: 'debug', cpu });
      }
      if (exit !== 'wait') patience = WAIT.first;
      else patience = Math.min(patience * 2, WAIT.longest);
      if (exit !== 'hlt' && exit !== 'wait') continue;
      longest = exit === 'hlt' ? LONGEST_SLEEP : patience;
    }
    // Halted or waiting for SIPI: sleep until the next timer, or until somebody wakes us.
    if (Atomics.load(stop, 0) !== 0) return;
    const next = Math.min(lapic.next(), cpu === 0 ? board.timers.next() : Number.POSITIVE_INFINITY);
    const ms = Math.min(longest, (next - board.clock.now()) / 1e6);
    if (ms > 0) Atomics.wait(wake, cpu, seen, ms);
  }
}
