// VMware's backdoor: a port that is called with a command in ECX and answers in the general registers. Its commands are those of QEMU 7.2, which
// knows them from open-vm-tools, lib/include/backdoor_def.h.

import type { PortRegisters } from '../bus/port-registers.ts';
import type { AddressSpace } from '../bus/space.ts';
import { type VmMouse, vmmouseCommand } from './vmmouse.ts';

export const VMPORT = 0x5658;
export const VMPORT_MAGIC = 0x564d_5868;
const NONE = 0xffff_ffff;
const command = { version: 10, biosUuid: 19, memory: 20, hertz: 45, vcpu: 68 } as const;
/** ESX: what guests take for a product that has all of this. */
const VMX = { version: 6, type: 2 } as const;
const MEMORY_SIGN = 0x1177;
const VCPU_X2APIC = 8;

export interface VmportOptions {
  readonly ports: AddressSpace;
  /** Bytes of RAM. */
  readonly memory: number;
  /** 16 bytes, as in SMBIOS. */
  readonly uuid: Uint8Array;
  readonly mouse: VmMouse;
}

export class Vmport {
  readonly port = VMPORT;
  readonly mouse: VmMouse;
  readonly #o: VmportOptions;

  constructor(o: VmportOptions) {
    this.#o = o;
    this.mouse = o.mouse;
    // Whoever comes without a vCPU has no registers.
    o.ports.map(VMPORT, 1, { max: 4, read: () => NONE, write: () => {} }, 'vmport');
  }

  /** A vCPU, with x2APIC or not, reads or writes the port: EAX is what is read, or what it has then. With the board's lock held. */
  call(r: PortRegisters, x2apic: boolean): void {
    r.eax = r.eax === VMPORT_MAGIC ? this.#answer(r, x2apic) : NONE;
  }

  #answer(r: PortRegisters, x2apic: boolean): number {
    const { memory, uuid } = this.#o;
    switch (r.ecx & 0xff) {
      case command.version:
        r.ebx = VMPORT_MAGIC;
        r.ecx = VMX.type;
        return VMX.version;
      case command.biosUuid: {
        const words = new DataView(uuid.buffer, uuid.byteOffset);
        [r.ebx, r.ecx, r.edx] = [words.getUint32(4, true), words.getUint32(8, true), words.getUint32(12, true)];
        return words.getUint32(0, true);
      }
      case command.memory:
        r.ebx = MEMORY_SIGN;
        return memory % 2 ** 32;
      case command.hertz:
        // Frequencies are told by CPUID.
        r.ebx = NONE;
        return r.eax;
      case command.vcpu:
        return x2apic ? VCPU_X2APIC : 0;
      case vmmouseCommand.data:
      case vmmouseCommand.status:
      case vmmouseCommand.command:
        return this.#o.mouse.call(r);
      default:
        return NONE;
    }
  }
}
