// Whether KVM is worth using: it is opened, its capabilities are looked at, and a short program in ring 0 must give right results in a
// short time. A nested KVM may emulate ring 0, slowly and with gaps, while it looks like any other.

import {
  block,
  errno,
  exitReasons,
  ioctls,
  memoryRegionLayout,
  RUN_UNION,
  regsLayout,
  runIoLayout,
  runLayout,
  sregsLayout,
} from './abi.ts';
import { hostPhysicalBits, hostVendor, setCpuid } from './cpuid.ts';
import type { KvmHost } from './host.ts';
import { KvmVm } from './vm.ts';

export interface KvmProbe {
  /** A machine can be made. */
  readonly usable: boolean;
  /** Why KVM is not to be used; undefined where it is good. */
  readonly why: string | undefined;
  /** Frequency of the time-stamp counter that a guest sees, in kHz; 0 where it is not known. */
  readonly tscKhz: number;
  /** A guest may be given another frequency. */
  readonly tscControl: boolean;
  /** The processor's vendor, as CPUID names it. */
  readonly vendor?: string;
  /** Width of the physical addresses that a guest may have. */
  readonly physicalBits?: number;
}

const CODE = 0x1000;
const TABLES = 0x2000;
const DATA = 0x6000;
/** Bytes of the program's memory: all of the above. */
const MEMORY = 0x10000;
/** What the first part leaves in EAX: 64 bits counted, and one more. */
const RESULT = 65;
/** Turns of the timed loop, two instructions each, the longest that it may take, and how often it is tried: a busy host may hold it up. */
const TURNS = 5_000;
const LOOP_MS = 0.3;
const TRIES = 3;
/**
 * Longest time, in ms, from the first call to the last but those that give everything back, whatever the kernel and the guest do: a call after it is not made, and a
 * guest that is still inside is taken out by the thread's timer. Who waits for the answer has it within 200 ms.
 */
export const TRIAL_MS = 150;
/** Ports by which the program tells of its result, and of a loop that has ended. */
const TOLD = { result: 0x80, loop: 0x81 } as const;
const u32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);
// pcmpeqd xmm1,xmm1; movq rax,xmm1; popcnt rbx,rax; mov esi,DATA; xor eax,eax; xor edx,edx; mov ecx,1; lock cmpxchg16b [rsi];
// mov eax,[rsi]; add eax,[rsi+8]; out 0x80,eax; M: mov ecx,TURNS; L: dec ecx; jnz L; out 0x81,eax; jmp M
const program = [
  0x66, 0x0f, 0x76, 0xc9, 0x66, 0x48, 0x0f, 0x7e, 0xc8, 0xf3, 0x48, 0x0f, 0xb8, 0xd8, 0xbe, ...u32(DATA), 0x31, 0xc0, 0x31, 0xd2,
  0xb9, 1, 0, 0, 0, 0xf0, 0x48, 0x0f, 0xc7, 0x0e, 0x8b, 0x06, 0x03, 0x46, 0x08, 0xe7, TOLD.result, 0xb9, ...u32(TURNS), 0xff, 0xc9, 0x75,
  0xfc, 0xe7, TOLD.loop, 0xeb, 0xf3,
]; // biome-ignore format: code
/** CPUID of a processor that has 64-bit mode, and no more. */
const cpuid = [
  { leaf: 0, values: [0, 0, 0, 0] },
  { leaf: 0x80000000, values: [0x80000001, 0, 0, 0] },
  { leaf: 0x80000001, values: [0, 0, 0, 1 << 29] },
] as const;

/** The time of the trial is over. */
class Late extends Error {
  constructor() {
    super(`this /dev/kvm is slow: a short program in ring 0 was not over after ${TRIAL_MS} ms`);
  }
}

/** The same host until `end`, by `now`: no descriptor, ioctl or mapping after it. */
function until(host: KvmHost, end: number, now: () => number): KvmHost {
  const inTime = <A extends unknown[], R>(call: (...args: A) => R): ((...args: A) => R) => {
    return (...args) => {
      if (now() >= end) throw new Late();
      return call(...args);
    };
  };
  return { ...host, open: inTime(host.open), ioctl: inTime(host.ioctl), map: inTime(host.map) };
}

/**
 * Probes the device; without a `trial` it is not run, and good as far as is known. As few calls as do it, with a vCPU that is no part of a machine: whoever waits for the answer has not begun yet. Some
 * milliseconds of processor time where KVM is good, 10 to 30 where it is slow, and no more than `TRIAL_MS` by `now` (in ms) beside the one call that is under way then.
 */
export function probeKvm(whole: KvmHost, trial = true, now = (): number => performance.now()): KvmProbe {
  const end = trial ? now() + TRIAL_MS : Number.POSITIVE_INFINITY;
  const host = until(whole, end, now);
  let vm: KvmVm;
  try {
    vm = KvmVm.create(host, 'off');
  } catch (error) {
    return { usable: false, why: (error as Error).message, tscKhz: 0, tscControl: false };
  }
  const vendor = hostVendor(vm.supported);
  const physicalBits = hostPhysicalBits(vm.supported);
  const known = {
    usable: true,
    ...(vendor === undefined ? {} : { vendor }),
    ...(physicalBits === undefined ? {} : { physicalBits }),
  };
  let tsc = { ...known, tscKhz: 0, tscControl: false };
  let vcpu: ProbeVcpu | undefined;
  try {
    vcpu = new ProbeVcpu(vm, end, now);
    tsc = { ...known, tscKhz: Math.max(0, vcpu.ask('getTscKhz', 0)), tscControl: vm.has('tscControl') > 0 };
    if (!trial) return { ...tsc, why: undefined };
    // KVM uses it until the machine is closed.
    const memory = new WebAssembly.Memory({ initial: MEMORY >> 16, maximum: MEMORY >> 16 });
    const bytes = new Uint8Array(memory.buffer);
    const { bytes: region, view } = block(memoryRegionLayout);
    view.size = BigInt(bytes.length);
    view.hva = host.address(bytes);
    vm.call('setMemoryRegion', region);
    longMode(bytes, vcpu);
    return { ...tsc, why: verdict(vcpu, now) };
  } catch (error) {
    if (error instanceof Late) return { ...tsc, why: error.message };
    return { ...tsc, why: `this /dev/kvm fails a short program in ring 0 (${(error as Error).message})` };
  } finally {
    vcpu?.close();
    vm.close();
  }
}

/** Runs the program; why KVM is not to be used. */
function verdict(vcpu: ProbeVcpu, now: () => number): string | undefined {
  const first = vcpu.out();
  if (first.port !== TOLD.result || first.value !== RESULT)
    return `this /dev/kvm computes wrongly in ring 0 (${first.value} for ${RESULT})`;
  for (let n = 0; n < TRIES; n++) {
    const start = now();
    vcpu.out();
    if (now() - start <= LOOP_MS) return undefined;
  }
  return `this /dev/kvm is slow in ring 0: less than ${Math.round((2 * TURNS) / LOOP_MS / 1000)} million instructions a second`;
}

/** A vCPU that runs up to its next write to a port. */
class ProbeVcpu {
  readonly #vm: KvmVm;
  readonly #fd: number;
  readonly #area: ArrayBuffer;
  readonly #end: number;
  readonly #now: () => number;

  constructor(vm: KvmVm, end: number, now: () => number) {
    const { host, share } = vm;
    this.#vm = vm;
    this.#end = end;
    this.#now = now;
    this.#fd = vm.call('createVcpu', 0);
    try {
      this.#area = host.map(this.#fd, share.runBytes);
    } catch (error) {
      host.close(this.#fd);
      throw error;
    }
  }
  close(): void {
    const { host } = this.#vm;
    host.interruptIn(Number.POSITIVE_INFINITY);
    host.endThread();
    host.unmap(this.#area);
    host.close(this.#fd);
  }
  ask(name: keyof typeof ioctls, argument: number | Uint8Array): number {
    return this.#vm.host.ioctl(this.#fd, ioctls[name].request, argument);
  }
  call(name: keyof typeof ioctls, argument: number | Uint8Array): void {
    const result = this.ask(name, argument);
    if (result < 0) throw new Error(`Cannot ${name} of a KVM vCPU: error ${-result}`);
  }
  begin(): void {
    setCpuid(this.#vm.host, this.#fd, cpuid);
    this.call('setSignalMask', this.#vm.host.runMask());
    this.#vm.host.prepareThread();
  }

  /** The port and the value that the guest writes next. Throws `Late` where it does not in time. */
  out(): { readonly port: number; readonly value: number } {
    const { host } = this.#vm;
    const run = runLayout.view(this.#area, 0);
    for (;;) {
      host.interruptIn(Math.max(0, this.#end - this.#now()) * 1e6);
      const result = this.ask('run', 0);
      if (result === -errno.EINTR || result === -errno.EAGAIN) {
        host.clearInterrupt();
        continue;
      }
      if (result < 0) throw new Error(`it cannot be run: error ${-result}`);
      const reason = exitReasons[run.exitReason] ?? 'unknown';
      if (reason === 'intr') continue;
      if (reason === 'internalError') throw new Error('it cannot emulate an instruction');
      if (reason !== 'io') throw new Error(`the guest is left with reason ${run.exitReason}, ${reason}`);
      const { port, dataOffset } = runIoLayout.view(this.#area, RUN_UNION);
      return { port, value: new DataView(this.#area).getUint32(dataOffset, true) };
    }
  }
}

/** The program and page tables at the start of memory, and 64-bit mode with SSE. */
function longMode(bytes: Uint8Array, vcpu: ProbeVcpu): void {
  const d = new DataView(bytes.buffer, bytes.byteOffset);
  d.setBigUint64(TABLES, BigInt(TABLES + 0x1003), true);
  d.setBigUint64(TABLES + 0x1000, BigInt(TABLES + 0x2003), true);
  d.setBigUint64(TABLES + 0x2000, 0x83n, true);
  bytes.set(program, CODE);
  vcpu.begin();
  const { bytes: sregs, view: s } = block(sregsLayout);
  vcpu.call('getSregs', sregs);
  for (const [segment, selector, type] of [[s.cs, 8, 11], [s.ds, 16, 3], [s.es, 16, 3], [s.ss, 16, 3]] as const) {
    const l = segment === s.cs ? 1 : 0;
    Object.assign(segment, { base: 0n, limit: 0xffffffff, selector, type, present: 1, dpl: 0, db: 1 - l, s: 1, l, g: 1, unusable: 0 });
  } // biome-ignore format: lines
  // Intel's processors want a busy 64-bit TSS.
  s.tr.type = 11;
  s.cr3 = BigInt(TABLES);
  s.cr4 = 0x620n;
  s.efer = 0x500n;
  s.cr0 = 0x80000013n;
  vcpu.call('setSregs', sregs);
  const { bytes: regs, view: r } = block(regsLayout);
  r.rip = BigInt(CODE);
  r.rflags = 2n;
  vcpu.call('setRegs', regs);
}
