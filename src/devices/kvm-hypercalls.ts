// KVM's hypercalls. Linux 6.1, Documentation/virt/kvm/x86/hypercalls.rst; error numbers as in include/uapi/linux/kvm_para.h.
import type { Clock, WallClock } from '../bus/clock.ts';
import type { GuestMemory } from '../bus/memory.ts';
import type { KvmPv } from './kvm-pv.ts';

export const kvmHypercall = { vapicPollIrq: 1, kickCpu: 5, clockPairing: 9, sendIpi: 10, schedYield: 11 } as const;
const error = { perm: -1n, fault: -14n, inval: -22n, nosys: -1000n, opNotSupp: -95n } as const;

export interface HypercallOptions {
  /** Of all vCPUs. */
  readonly cpus: readonly KvmPv[];
  readonly memory: GuestMemory;
  readonly clock: Clock;
  readonly wall: WallClock;
  readonly kick: (cpu: number) => void;
  /** Lets the thread of another vCPU run, where that is possible. */
  readonly yieldTo?: (cpu: number) => void;
}

/**
 * Executes VMCALL or VMMCALL: RAX is `nr`, RBX, RCX, RDX and RSI are `a0` to `a3`, of which a caller that is not in 64-bit
 * mode (`long` false) gives 32 bits. `from` is the vCPU that calls. Returns the new RAX, 64 bits unsigned. With the board's lock held.
 */
export type Hypercall = (
  nr: bigint,
  a0: bigint,
  a1: bigint,
  a2: bigint,
  a3: bigint,
  cpl: number,
  long: boolean,
  from?: number,
) => bigint;

export function kvmHypercalls(o: HypercallOptions): Hypercall {
  const byApicId = (id: bigint): KvmPv | undefined => o.cpus.find((c) => BigInt(c.lapic.id) === id);
  const features = o.cpus[0];

  const sendIpi = (low: bigint, high: bigint, min: bigint, icr: bigint, width: number): bigint => {
    // Physical destinations without a shorthand only.
    if (icr & 0xc_0800n) return error.inval;
    const mode = Number((icr >> 8n) & 7n);
    const vector = Number(icr & 0xffn);
    let reached = 0n;
    for (const c of o.cpus) {
      const bit = BigInt(c.lapic.id) - min;
      if (bit < 0n || bit >= 2n * BigInt(width)) continue;
      const set = bit < width ? (low >> bit) & 1n : (high >> (bit - BigInt(width))) & 1n;
      if (set && c.lapic.accept(mode, vector, false)) reached++;
    }
    return reached;
  };

  const clockPairing = (gpa: bigint, type: bigint, from: KvmPv): bigint => {
    if (type !== 0n) return error.opNotSupp;
    const at = Number(gpa);
    const bytes = o.memory.slice(at, 64);
    if (bytes === undefined) return error.fault;
    const now = o.clock.now();
    const wall = o.wall.epochSeconds();
    bytes.fill(0);
    o.memory.write64(at, BigInt(Math.floor(wall)));
    o.memory.write64(at + 8, BigInt(Math.floor((wall - Math.floor(wall)) * 1e9)));
    o.memory.write64(at + 16, BigInt.asUintN(64, from.tsc.tscAt(now)));
    return 0n;
  };

  const call: Hypercall = (nr, a0, a1, a2, a3, cpl, long, from = 0) => {
    if (cpl !== 0) return error.perm;
    switch (Number(nr)) {
      case kvmHypercall.vapicPollIrq:
        return 0n;
      case kvmHypercall.kickCpu: {
        if (!features?.has('pvUnhalt')) return error.nosys;
        const target = byApicId(a1);
        if (target !== undefined) {
          Atomics.store(target.s.unhalted, 0, 1);
          o.kick(target.lapic.cpu);
        }
        return 0n;
      }
      case kvmHypercall.clockPairing:
        return clockPairing(a0, a1, o.cpus[from]!);
      case kvmHypercall.sendIpi:
        return features?.has('sendIpi') ? sendIpi(a0, a1, a2, a3, long ? 64 : 32) : error.nosys;
      case kvmHypercall.schedYield: {
        if (!features?.has('schedYield')) return error.nosys;
        const target = byApicId(a0);
        if (target !== undefined) o.yieldTo?.(target.lapic.cpu);
        return 0n;
      }
      default:
        return error.nosys;
    }
  };
  return (...args) => BigInt.asUintN(64, call(...args));
}
