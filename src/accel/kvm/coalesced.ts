// Coalesced ports: writes that the kernel keeps until a vCPU leaves the guest for another reason, so that a register that only says where the next
// access goes costs no exit. Linux 6.1, Documentation/virt/kvm/api.rst, KVM_REGISTER_COALESCED_MMIO.

import { COALESCED_WRITES, coalescedRingLayout, coalescedWriteLayout } from './abi.ts';

/** Ports whose writes wait. */
export interface CoalescedPorts {
  readonly port: number;
  readonly size: number;
}
export interface PortWrite {
  readonly port: number;
  readonly size: 1 | 2 | 4;
  readonly value: number;
}

const { size: BYTES, offsets: at } = coalescedWriteLayout;

/** The ring of a machine, by the run area of one of its vCPUs. Only with the board's lock held may writes be taken. */
export class CoalescedRing {
  readonly #first: Uint32Array;
  readonly #last: Uint32Array;
  /** The writes, which are not worth an object each. */
  readonly #writes: DataView;

  constructor(area: ArrayBuffer, offset: number) {
    const { first, last } = coalescedRingLayout.view(area, offset);
    this.#first = first;
    this.#last = last;
    this.#writes = new DataView(area, offset + coalescedRingLayout.size, COALESCED_WRITES * BYTES);
  }
  get empty(): boolean {
    return Atomics.load(this.#first, 0) === Atomics.load(this.#last, 0);
  }
  /** Takes the write that has waited longest. */
  take(): PortWrite | undefined {
    const n = Atomics.load(this.#first, 0);
    if (n === Atomics.load(this.#last, 0)) return undefined;
    const d = this.#writes;
    const from = (n % COALESCED_WRITES) * BYTES;
    const len = d.getUint32(from + at.len, true);
    const size = len === 1 || len === 2 ? len : 4;
    const data = from + at.data;
    // Ports have 16 bits of the address.
    const port = d.getUint32(from + at.addr, true);
    const value = size === 1 ? d.getUint8(data) : size === 2 ? d.getUint16(data, true) : d.getUint32(data, true);
    Atomics.store(this.#first, 0, (n + 1) % COALESCED_WRITES);
    return { port, size, value };
  }
}
