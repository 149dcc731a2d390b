// Guest memory as a monitor or debugger sees it through a vCPU's page tables: Intel SDM volume 3, chapter 4. Nothing is marked accessed,
// nothing is looked up in a device.

import { readRflags } from '../isa/x86/rflags.ts';
import * as st from '../isa/x86/state.ts';
import type { Board } from '../machine/board.ts';
import type { RunningMachine } from '../machine/running.ts';

const PAGE = 4096n;
const LA57 = 1n << 12n;

/** A slot of a vCPU's state, unsigned. */
export function readSlot(state: DataView, slot: { readonly offset: number; readonly access: { readonly bits: number } }): bigint {
  return slot.access.bits === 64 ? state.getBigUint64(slot.offset, true) : BigInt(state.getUint32(slot.offset, true));
}

/** Up to 8 bytes at a guest-physical address as a vCPU reads them: RAM, ROM, or a device. Undefined where nothing is. */
export function readPhysical(board: Board, cpu: number, gpa: number, length: number): Uint8Array | undefined {
  if (!Number.isSafeInteger(gpa)) return undefined;
  if ((gpa % 4096) + length > 4096) {
    const bytes = Array.from({ length }, (_, i) => readPhysical(board, cpu, gpa + i, 1)?.[0]);
    return bytes.every((b) => b !== undefined) ? Uint8Array.from(bytes) : undefined;
  }
  const slot = board.slots.at(gpa, length);
  if (typeof slot === 'object') return slot.slice();
  const ram = slot === 'ram' ? board.ram.slice(gpa, length) : undefined;
  if (ram) return ram.slice();
  const mmio = board.mmio[cpu]!;
  if (!mmio.find(gpa)) return undefined;
  const out = new DataView(new ArrayBuffer(8));
  if (length === 8) out.setBigUint64(0, mmio.read64(gpa), true);
  else out.setUint32(0, mmio.read(gpa, length), true);
  return new Uint8Array(out.buffer, 0, length);
}

export class VcpuMemory {
  readonly #machine: RunningMachine;
  readonly #cpu: number;

  constructor(machine: RunningMachine, cpu: number) {
    this.#machine = machine;
    this.#cpu = cpu;
  }
  /** The guest-physical address of a linear one; undefined where no page is mapped. */
  translate(linear: bigint): number | undefined {
    const state = this.#machine.vcpuState(this.#cpu);
    const { ram: memory } = this.#machine.board;
    const cr0 = readSlot(state, st.cr0);
    const cr4 = readSlot(state, st.cr4);
    const long = (readSlot(state, st.efer) & 0x400n) !== 0n;
    const address = long ? BigInt.asUintN(64, linear) : linear & 0xffff_ffffn;
    if ((cr0 & (1n << 31n)) === 0n) return Number(address);
    const pae = (cr4 & 0x20n) !== 0n;
    if (!pae) {
      const directory = BigInt(memory.read32(Number((readSlot(state, st.cr3) & 0xffff_f000n) + ((address >> 22n) << 2n))));
      if ((directory & 1n) === 0n) return undefined;
      if ((directory & 0x80n) !== 0n && (cr4 & 0x10n) !== 0n)
        return Number((directory & 0xffc0_0000n) | (((directory >> 13n) & 0xffn) << 32n) | (address & 0x3f_ffffn));
      const entry = BigInt(memory.read32(Number((directory & 0xffff_f000n) + (((address >> 12n) & 0x3ffn) << 2n))));
      return (entry & 1n) === 0n ? undefined : Number((entry & 0xffff_f000n) | (address & 0xfffn));
    }
    const levels = !long ? 3 : (cr4 & LA57) !== 0n ? 5 : 4;
    let table = readSlot(state, st.cr3) & (long ? 0xf_ffff_ffff_f000n : 0xffff_ffe0n);
    for (let level = levels; level >= 1; level--) {
      const shift = BigInt(12 + 9 * (level - 1));
      const mask = level === 3 && !long ? 3n : 0x1ffn;
      const entry = memory.read64(Number(table + (((address >> shift) & mask) << 3n)));
      if ((entry & 1n) === 0n) return undefined;
      const page = entry & 0xf_ffff_ffff_f000n;
      const last = level === 1 || (level <= 3 && (entry & 0x80n) !== 0n && !(level === 3 && !long));
      if (last) {
        const low = (1n << shift) - 1n;
        return Number((page & ~low) | (address & low));
      }
      table = page;
    }
    return undefined;
  }
  /** Bytes at a linear address, as many as are mapped to RAM in a row. */
  read(linear: bigint, length: number): Uint8Array {
    return this.#pieces(linear, length, (gpa, n) => this.#machine.board.ram.slice(gpa, n)?.slice());
  }
  /** Writes all bytes; false, with nothing written, where some are not mapped to RAM. */
  write(linear: bigint, bytes: Uint8Array): boolean {
    const { ram: memory } = this.#machine.board;
    if (this.read(linear, bytes.length).length < bytes.length) return false;
    let at = 0;
    this.#pieces(linear, bytes.length, (gpa, n) => {
      const into = memory.slice(gpa, n);
      into?.set(bytes.subarray(at, at + n));
      memory.written(gpa, n);
      at += n;
      return into;
    });
    return true;
  }
  #pieces(linear: bigint, length: number, take: (gpa: number, n: number) => Uint8Array | undefined): Uint8Array {
    const out = new Uint8Array(length);
    let done = 0;
    while (done < length) {
      const at = linear + BigInt(done);
      const gpa = this.translate(at);
      const n = Math.min(length - done, Number(PAGE - (BigInt.asUintN(64, at) % PAGE)));
      const piece = gpa === undefined ? undefined : take(gpa, n);
      if (!piece) break;
      out.set(piece, done);
      done += n;
    }
    return out.subarray(0, done);
  }
  get rflags(): bigint {
    return readRflags(this.#machine.vcpuState(this.#cpu), 0);
  }
}
