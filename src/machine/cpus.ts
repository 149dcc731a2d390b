// Which of a machine's possible vCPUs are there, and the bus that brings and takes them: devices of `types/cpu.ts`, told to the guest by ACPI.

import type { Arena } from '../bits/arena.ts';
import type { Lock } from '../bus/lock.ts';
import type { AddressSpace } from '../bus/space.ts';
import type { AcpiPm } from '../devices/acpi-pm.ts';
import { CpuHotplug, cpuHotplug } from '../devices/cpu-hotplug.ts';
import type { Lapic } from '../devices/lapic.ts';
import type { CpuBus } from './buses.ts';
import type { BoardEvent, MachineConfig } from './config.ts';
import type { Notify } from './notices.ts';

/** The vCPUs of a board as one thread sees them: all threads agree while the machine is held. */
export interface Cpus {
  /** Absent on a board whose kind was not named. */
  readonly bus?: CpuBus;
  has(cpu: number): boolean;
  /** Those that are there, in order. */
  list(): readonly number[];
  /** Power-on state. With the board's lock held. */
  reset(): void;
}

export interface CpusOptions {
  readonly config: MachineConfig;
  readonly arena: Arena;
  readonly ports: AddressSpace;
  readonly acpi: AcpiPm;
  readonly lapics: readonly Lapic[];
  readonly lock: Lock;
  readonly event: (e: BoardEvent) => void;
  readonly notify: Notify;
  /** Why no vCPU can be added now. */
  readonly refuses: () => string | undefined;
  /** This is the I/O thread, the one that changes shared state. */
  readonly ioThread: boolean;
}

/** vCPUs that are there from the start. */
export const presentAtStart = (config: MachineConfig): number => config.present ?? config.cpus;
/** The ports of CPU hot-plug; a machine whose vCPUs are all there from the start has none. */
export const cpuPorts = ({ machine, cpus, present }: MachineConfig): number | undefined =>
  machine === undefined || machine === 'microvm' || cpus === (present ?? cpus) ? undefined : cpuHotplug.base[machine];

export function buildCpus(o: CpusOptions): Cpus {
  const { config, lock } = o;
  const first = presentAtStart(config);
  /** Paths of those that were added. */
  const paths = new Map<number, string>();
  const has = (cpu: number): boolean => cpu < first || paths.has(cpu);
  const list = (): readonly number[] => Array.from({ length: config.cpus }, (_, n) => n).filter(has);
  if (config.machine === undefined || config.machine === 'microvm') return { has, list, reset: () => {} };
  const numberOf = (path: string): number | undefined => [...paths].find(([, p]) => p === path)?.[0];
  const base = cpuPorts(config);
  const hotplug =
    base === undefined
      ? undefined
      : new CpuHotplug({
          arena: o.arena,
          cpus: config.cpus,
          present: has,
          gpe: (n) => o.acpi.gpe(n),
          eject: (cpu) => {
            const path = paths.get(cpu);
            if (path !== undefined) o.event({ kind: 'eject', path });
          },
          ost: (cpu, source, status) => {
            const id = paths.get(cpu)?.split('/machine/peripheral/')[1];
            o.notify('ACPI_DEVICE_OST', {
              info: { ...(id === undefined ? {} : { device: id }), slot: String(cpu), 'slot-type': 'CPU', source, status },
            });
          },
        });
  if (base !== undefined) hotplug?.map(o.ports, base);
  const bus: CpuBus = {
    kind: 'CPU',
    name: 'cpus',
    add(cpu, path) {
      const reason = o.ioThread ? o.refuses() : undefined;
      if (reason !== undefined) throw new Error(`Cannot add CPU[${cpu}]: ${reason}`);
      if (has(cpu)) throw new Error(`CPU[${cpu}] with APIC ID ${cpu} exists`);
      paths.set(cpu, path);
      return () => {
        paths.delete(cpu);
        if (!o.ioThread) return;
        // The local APIC goes with it: nothing is delivered there.
        lock.run(() => {
          o.lapics[cpu]?.reset();
          hotplug?.gone(cpu);
        });
      };
    },
    path: (cpu) => paths.get(cpu),
    plugged(path) {
      const cpu = numberOf(path);
      if (cpu === undefined) return;
      lock.run(() => {
        o.lapics[cpu]?.reset();
        hotplug?.plugged(cpu);
      });
    },
    requestUnplug({ path }) {
      const cpu = numberOf(path);
      if (cpu !== undefined) lock.run(() => hotplug?.request(cpu));
    },
  };
  return { bus, has, list, reset: () => hotplug?.reset() };
}
