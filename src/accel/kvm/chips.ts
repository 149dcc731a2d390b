// The board's interrupt controllers and its timer in the kernel: the wires that lead to them, and their state. Linux 6.1,
// Documentation/virt/kvm/api.rst, KVM_CREATE_IRQCHIP, KVM_SET_GSI_ROUTING, KVM_IRQ_LINE, KVM_GET_IRQCHIP, KVM_GET_PIT2.

import { block, chipId, irqchipLayout, PIT_BYTES } from './abi.ts';
import type { KvmVm } from './vm.ts';

const PINS = 24;
/** Pins 1 to 23 of the I/O APIC are the global system interrupts of the same numbers; the 8259As' inputs begin here. */
const PIC_GSI = 32;
/** The kernel's timer pulls this one: input 0 of the 8259As and, as the board is wired, pin 2. */
const TIMER_GSI = 0;
const TIMER_PIN = 2;
/** Where the kernel's PIT keeps that the HPET stands in for it. */
const PIT_FLAGS = 72;
const PIT_HPET_LEGACY = 1;

const picWire = (gsi: number, n: number) => ({ gsi, chip: n < 8 ? chipId.pic : chipId.secondPic, pin: n & 7 });
/** All wires. Of two that lead to one input, acknowledgements are told to the last: the timer. */
export const wires: readonly { readonly gsi: number; readonly chip: number; readonly pin: number }[] = [
  ...Array.from({ length: PINS - 1 }, (_, n) => ({ gsi: n + 1, chip: chipId.ioapic, pin: n + 1 })),
  ...Array.from({ length: 16 }, (_, n) => picWire(PIC_GSI + n, n)),
  picWire(TIMER_GSI, 0),
  { gsi: TIMER_GSI, chip: chipId.ioapic, pin: TIMER_PIN },
];

/** States of the chips, as the kernel has them. */
export interface ChipStates {
  readonly pics: readonly [Uint8Array, Uint8Array];
  readonly ioapic: Uint8Array;
  readonly pit: Uint8Array;
}

/** The chips in the kernel of a machine that has them there (`irqchip: 'on'`). Any thread may call, with the board's lock held. */
export class KvmChips {
  readonly #vm: KvmVm;

  constructor(vm: KvmVm) {
    this.#vm = vm;
  }

  pic(n: number, level: 0 | 1): void {
    this.#vm.irqLine(PIC_GSI + n, level);
  }
  pin(n: number, level: 0 | 1): void {
    if (n > 0) this.#vm.irqLine(n, level);
  }
  cutTimer(cut: boolean): void {
    const pit = this.#pit();
    const d = new DataView(pit.buffer);
    const flags = d.getUint32(PIT_FLAGS, true);
    d.setUint32(PIT_FLAGS, cut ? flags | PIT_HPET_LEGACY : flags & ~PIT_HPET_LEGACY, true);
    this.#vm.call('setPit2', pit);
  }

  /** No vCPU runs. */
  save(): ChipStates {
    const get = (chip: number): Uint8Array => {
      const { bytes, view } = block(irqchipLayout);
      view.chip = chip;
      this.#vm.call('getIrqchip', bytes);
      return view.state.slice();
    };
    return { pics: [get(chipId.pic), get(chipId.secondPic)], ioapic: get(chipId.ioapic), pit: this.#pit() };
  }
  /** No vCPU runs. The wires are as they were: see `pic` and `pin`. */
  load({ pics, ioapic, pit }: ChipStates): void {
    const put = (chip: number, state: Uint8Array): void => {
      const { bytes, view } = block(irqchipLayout);
      view.chip = chip;
      view.state.set(state.subarray(0, view.state.length));
      this.#vm.call('setIrqchip', bytes);
    };
    put(chipId.pic, pics[0]);
    put(chipId.secondPic, pics[1]);
    put(chipId.ioapic, ioapic);
    this.#vm.call('setPit2', pit);
  }
  /** The timer alone. */
  loadPit(pit: Uint8Array): void {
    this.#vm.call('setPit2', pit);
  }
  #pit(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(PIT_BYTES);
    this.#vm.call('getPit2', bytes);
    return bytes;
  }
}
