// Coalesced ports: writes that the kernel keeps until a vCPU leaves the guest for another reason, so that a register that only says where the next
// access goes costs no exit. Linux 6.1, Documentation/virt/kvm/api.rst, KVM_REGISTER_COALESCED_MMIO.

import { struct } from '../../bits/struct.ts';
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

const layout = struct({ ...coalescedRingLayout.fields, writes: [coalescedWriteLayout, COALESCED_WRITES] });

/** The ring of a machine, by the run area of one of its vCPUs. Only with the board's lock held may writes be taken. */
export class CoalescedRing {
  readonly #s;

  constructor(area: ArrayBuffer, offset: number) {
    this.#s = layout.view(area, offset);
  }
  get empty(): boolean {
    return Atomics.load(this.#s.first, 0) === Atomics.load(this.#s.last, 0);
  }
  /** Takes the write that has waited longest. */
  take(): PortWrite | undefined {
    const { first, last, writes } = this.#s;
    const at = Atomics.load(first, 0);
    if (at === Atomics.load(last, 0)) return undefined;
    const { addr, len, data } = writes[at % COALESCED_WRITES]!;
    const size = len === 1 || len === 2 ? len : 4;
    const value = new DataView(data.buffer, data.byteOffset, 8);
    const write: PortWrite = {
      port: Number(addr),
      size,
      value: size === 1 ? value.getUint8(0) : size === 2 ? value.getUint16(0, true) : value.getUint32(0, true),
    };
    Atomics.store(first, 0, (at + 1) % COALESCED_WRITES);
    return write;
  }
}
