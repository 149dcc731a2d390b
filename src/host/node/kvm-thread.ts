// A machine on KVM as one of its threads holds it: the attached machine, and what the board calls on it.

import { threadId } from 'node:worker_threads';
import type { MemoryLayout } from '../../accel/accel.ts';
import { KvmChips } from '../../accel/kvm/chips.ts';
import { KvmDoorbells } from '../../accel/kvm/doorbells.ts';
import { KvmRegions } from '../../accel/kvm/regions.ts';
import { type Irqchip, type KvmShare, KvmVm, type KvmVmOptions } from '../../accel/kvm/vm.ts';
import * as st from '../../isa/x86/state.ts';
import type { BoardOptions } from '../../machine/board.ts';
import { kicker } from '../../machine/vcpu-loop.ts';
import { kvmHost } from './kvm-native.ts';

export interface KvmThread {
  readonly vm: KvmVm;
  /** Makes a vCPU look up, wherever it is. */
  readonly kick: (cpu: number) => void;
  /** Brings the kernel's memory slots up to date. */
  readonly slotsChanged: () => void;
  /** Has the kernel note which pages the guest writes. */
  readonly logDirty: (on: boolean) => void;
  /** Told by vCPUs of pages that were written, where the machine has dirty rings. */
  readonly written: (slot: number, page: number) => void;
  /** Puts 0 into the map (a byte for each page from the start of RAM) for pages that were written since the last time. */
  readonly takeDirty: (map: Uint8Array) => void;
  /** Doorbells that the kernel rings. */
  readonly doorbells: KvmDoorbells;
  /** The board's other interrupt controllers and the PIT, where the kernel has them, too. */
  readonly chips: KvmChips | undefined;
  /** The local APICs, where the kernel has them. */
  readonly remoteApics: BoardOptions['remoteApics'];
}

/** Attaches this thread to the machine that `share` names, or makes a new one. */
export function kvmThread(
  memory: SharedArrayBuffer,
  layout: MemoryLayout,
  share: KvmShare | ({ readonly irqchip: Irqchip } & Pick<KvmVmOptions, 'dirtyRing' | 'coalesced' | 'pitDiscards' | 'hiding'>),
): KvmThread {
  const host = kvmHost();
  const vm = 'vm' in share ? KvmVm.attach(host, share) : KvmVm.create(host, share.irqchip, { ...share, bells: true });
  const regions = new KvmRegions(vm, memory, layout);
  if (!('vm' in share)) regions.update();
  const words = new Int32Array(memory);
  const flag = kicker(memory, layout);
  const word = (cpu: number, slot: { readonly offset: number }): number =>
    Atomics.load(words, (layout.vcpuBase + cpu * layout.vcpuBytes + slot.offset) >> 2);
  const chips = vm.share.irqchip === 'on' ? new KvmChips(vm) : undefined;
  const msi = (address: number, data: number): boolean => vm.signalMsi(address, data) > 0;
  return {
    vm,
    doorbells: new KvmDoorbells(vm, memory, layout, threadId + 1),
    kick(cpu) {
      flag(cpu);
      if (word(cpu, st.hostEntered) !== 0) host.interrupt(word(cpu, st.hostThread));
    },
    slotsChanged: () => regions.update(),
    logDirty: (on) => regions.logDirty(on),
    written: (slot, page) => regions.written(slot, page),
    takeDirty: (map) => regions.takeDirty(map),
    chips,
    remoteApics:
      vm.share.irqchip === 'off'
        ? undefined
        : { msi, routes: (pins) => chips || vm.setRoutes(pins), ...(chips ? { chips } : {}) },
  };
}
