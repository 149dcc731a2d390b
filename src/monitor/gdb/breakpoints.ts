// Breakpoints and watchpoints of a debugger: INT3 in the guest's memory for software ones, DR0 to DR3 for the others; single steps by
// RFLAGS.TF. Code elsewhere runs as it always does. Intel SDM volume 3, sections 17.2 and 17.3.

import { readRflags, writeRflags } from '../../isa/x86/rflags.ts';
import * as st from '../../isa/x86/state.ts';
import { GuestDebug } from '../../isa/x86/state.ts';
import type { RunningMachine } from '../../machine/running.ts';
import { VcpuMemory } from '../guest-memory.ts';

/** gdb's numbers of the kinds. */
export const Break = { software: 0, hardware: 1, write: 2, read: 3, access: 4 } as const;

const INT3 = 0xcc;
const TF = 0x100n;
const BS = 0x4000n;
const PUSHF = 0x9c;
/** R/W of DR7 by gdb's kind; the processor has none for reads alone. */
const access: Readonly<Record<number, number>> = { 0: 0, 1: 0, 2: 1, 3: 3, 4: 3 };
const lengths: Readonly<Record<number, number>> = { 1: 0, 2: 1, 4: 3, 8: 2 };

interface Point {
  readonly kind: number;
  readonly address: bigint;
  readonly length: number;
}

export class Breakpoints {
  readonly #machine: RunningMachine;
  /** Bytes that INT3 stands for, by guest-physical address. */
  readonly #patches = new Map<number, { readonly byte: number; uses: number }>();
  readonly #soft = new Map<bigint, number>();
  readonly #hard: Point[] = [];
  /** What the guest had in DR0 to DR7, by vCPU, while they are ours. */
  #kept: (readonly bigint[])[] | undefined;
  /** The vCPU that makes one step. */
  #stepping: { readonly cpu: number; readonly pushf: boolean } | undefined;

  constructor(machine: RunningMachine) {
    this.#machine = machine;
  }

  /** Sets one, while the guest is held; false where it cannot be. */
  insert(cpu: number, kind: number, address: bigint, length: number): boolean {
    if (kind === Break.software) {
      if (this.#patch(cpu, address)) return true;
      // Not mapped yet, as a kernel that has not started: the processor can wait for the address.
    }
    const size = kind <= Break.hardware ? 1 : length;
    if (this.#hard.length === 4 || lengths[size] === undefined || address % BigInt(size) !== 0n) return false;
    this.#hard.push({ kind, address, length: size });
    this.apply();
    return true;
  }
  remove(kind: number, address: bigint, length: number): void {
    const gpa = this.#soft.get(address);
    if (kind === Break.software && gpa !== undefined) {
      this.#soft.delete(address);
      this.#unpatch(gpa);
      return;
    }
    const size = kind <= Break.hardware ? 1 : length;
    const at = this.#hard.findIndex((p) => p.kind === kind && p.address === address && p.length === size);
    if (at < 0) return;
    this.#hard.splice(at, 1);
    this.apply();
  }
  removeAll(): void {
    for (const gpa of this.#soft.values()) this.#unpatch(gpa);
    this.#soft.clear();
    this.#hard.length = 0;
    this.apply();
  }
  #patch(cpu: number, address: bigint): boolean {
    if (this.#soft.has(address)) return true;
    const gpa = new VcpuMemory(this.#machine, cpu).translate(address);
    const { ram: memory } = this.#machine.board;
    if (gpa === undefined || !memory.slice(gpa, 1)) return false;
    const there = this.#patches.get(gpa);
    if (there) there.uses++;
    else {
      this.#patches.set(gpa, { byte: memory.read8(gpa), uses: 1 });
      memory.write8(gpa, INT3);
    }
    this.#soft.set(address, gpa);
    this.apply();
    return true;
  }
  #unpatch(gpa: number): void {
    const patch = this.#patches.get(gpa);
    if (!patch || --patch.uses > 0) return;
    this.#patches.delete(gpa);
    // Where the guest has written over it meanwhile, that stays.
    if (this.#machine.board.ram.read8(gpa) === INT3) this.#machine.board.ram.write8(gpa, patch.byte);
    this.apply();
  }

  /** The guest has started again: its memory and registers are new. */
  afterReset(): void {
    const { ram: memory } = this.#machine.board;
    for (const [gpa, { uses }] of this.#patches) {
      this.#patches.set(gpa, { byte: memory.read8(gpa), uses });
      memory.write8(gpa, INT3);
    }
    this.#kept = undefined;
    this.#stepping = undefined;
    this.apply();
  }
  /** Puts what is set into the vCPUs. */
  apply(): void {
    const machine = this.#machine;
    const hard = this.#hard.length > 0;
    if (hard && !this.#kept)
      this.#kept = range(machine.cpus).map((n) => st.dr.map((slot) => machine.vcpuState(n).getBigUint64(slot.offset, true)));
    for (const n of range(machine.cpus)) {
      const state = machine.vcpuState(n);
      const step = this.#stepping?.cpu === n;
      const owned =
        (this.#soft.size > 0 ? GuestDebug.bp : 0) |
        (hard || step ? GuestDebug.db : 0) |
        (hard ? GuestDebug.registers : 0) |
        (step ? GuestDebug.step : 0);
      state.setUint32(st.guestDebug.offset, owned, true);
      if (hard) {
        let dr7 = 0x400n;
        this.#hard.forEach((p, i) => {
          state.setBigUint64(st.dr[i]!.offset, p.address, true);
          dr7 |= 2n << BigInt(2 * i);
          dr7 |= BigInt(access[p.kind]! | (lengths[p.length]! << 2)) << BigInt(16 + 4 * i);
        });
        state.setBigUint64(st.dr[7]!.offset, dr7, true);
      } else if (this.#kept) st.dr.forEach((slot, i) => state.setBigUint64(slot.offset, this.#kept![n]![i]!, true));
    }
    if (!hard) this.#kept = undefined;
    machine.stateChanged();
  }

  /** Lets a vCPU make one step when the guest goes on. */
  step(cpu: number): void {
    const state = this.#machine.vcpuState(cpu);
    const memory = new VcpuMemory(this.#machine, cpu);
    const code = memory.read(state.getBigUint64(st.rip.offset, true) + state.getBigUint64(st.segBase[st.S.cs]!.offset, true), 2);
    this.#stepping = { cpu, pushf: code[0] === PUSHF || (code[0] === 0x66 && code[1] === PUSHF) };
    writeRflags(state, 0, readRflags(state, 0) | TF);
    this.apply();
  }
  /** The guest is held again: takes the step's traces away. */
  stopped(): void {
    const step = this.#stepping;
    if (!step) return;
    this.#stepping = undefined;
    const state = this.#machine.vcpuState(step.cpu);
    writeRflags(state, 0, readRflags(state, 0) & ~TF);
    if (step.pushf) {
      const memory = new VcpuMemory(this.#machine, step.cpu);
      const sp = state.getBigUint64(st.gpr[st.R.rsp]!.offset, true) + state.getBigUint64(st.segBase[st.S.ss]!.offset, true) + 1n;
      const pushed = memory.read(sp, 1);
      if (pushed.length === 1) memory.write(sp, Uint8Array.of(pushed[0]! & ~1));
    }
    this.apply();
  }
  get isStepping(): boolean {
    return this.#stepping !== undefined;
  }
  /** Why a vCPU has stopped, as a stop reply tells it. */
  reason(cpu: number): string {
    const state = this.#machine.vcpuState(cpu);
    const dr6 = state.getBigUint64(st.dr[6]!.offset, true);
    const hit = this.#hard.findIndex((_, i) => (dr6 >> BigInt(i)) & 1n);
    state.setBigUint64(st.dr[6]!.offset, dr6 & ~(0xfn | BS), true);
    const point = this.#hard[hit];
    if (point && point.kind >= Break.write) {
      const name = point.kind === Break.write ? 'watch' : point.kind === Break.read ? 'rwatch' : 'awatch';
      return `${name}:${point.address.toString(16)};`;
    }
    const ip = state.getBigUint64(st.rip.offset, true);
    if (this.#soft.has(ip) || point?.kind === Break.software) return 'swbreak:;';
    return point ? 'hwbreak:;' : '';
  }
  /** Bytes of memory as they are without INT3 in them. */
  hide(cpu: number, address: bigint, bytes: Uint8Array): void {
    if (this.#patches.size === 0) return;
    const memory = new VcpuMemory(this.#machine, cpu);
    for (let i = 0; i < bytes.length; i++) {
      if (bytes[i] !== INT3) continue;
      const gpa = memory.translate(address + BigInt(i));
      const patch = gpa === undefined ? undefined : this.#patches.get(gpa);
      if (patch) bytes[i] = patch.byte;
    }
  }
}

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
