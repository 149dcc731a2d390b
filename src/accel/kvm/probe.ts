// Whether KVM is worth using: it is opened, its capabilities are looked at, and a short program in ring 0 must give right results in a
// short time. A nested KVM may emulate ring 0, slowly and with gaps, while it looks like any other.

import { emptyBus, type VcpuBus } from '../accel.ts';
import { createMemory } from '../dbt/dbt.ts';
import { layoutOf } from '../dbt/layout.ts';
import { ioctls } from './abi.ts';
import { hostVendor } from './cpuid.ts';
import type { KvmHost } from './host.ts';
import { KvmRegions } from './regions.ts';
import { KvmVcpu } from './vcpu.ts';
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
}

const CODE = 0x1000;
const DATA = 0x6000;
/** What the first part leaves in EAX: 64 bits counted, and one more. */
const RESULT = 65;
/** Turns of the timed loop, two instructions each, and the longest that it may take. */
const TURNS = 1_000_000;
const LIMIT_MS = 60;
const u32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);
// pcmpeqd xmm1,xmm1; movq rax,xmm1; popcnt rbx,rax; mov esi,DATA; xor eax,eax; xor edx,edx; mov ecx,1; lock cmpxchg16b [rsi];
// mov eax,[rsi]; add eax,[rsi+8]; out 0x80,eax; mov ecx,TURNS; L: dec ecx; jnz L; out 0x81,eax; hlt
const program = [
  0x66, 0x0f, 0x76, 0xc9, 0x66, 0x48, 0x0f, 0x7e, 0xc8, 0xf3, 0x48, 0x0f, 0xb8, 0xd8, 0xbe, ...u32(DATA), 0x31, 0xc0, 0x31, 0xd2,
  0xb9, 1, 0, 0, 0, 0xf0, 0x48, 0x0f, 0xc7, 0x0e, 0x8b, 0x06, 0x03, 0x46, 0x08, 0xe7, 0x80, 0xb9, ...u32(TURNS), 0xff, 0xc9, 0x75,
  0xfc, 0xe7, 0x81, 0xf4,
]; // biome-ignore format: code

/** Probes the device. It takes some milliseconds where KVM is good, and little more than `LIMIT_MS` where it is slow. */
export function probeKvm(host: KvmHost): KvmProbe {
  let vm: KvmVm;
  try {
    vm = KvmVm.create(host, 'off');
  } catch (error) {
    return { usable: false, why: (error as Error).message, tscKhz: 0, tscControl: false };
  }
  let vcpu: KvmVcpu | undefined;
  const vendor = hostVendor(vm.supported);
  const known = { usable: true, ...(vendor === undefined ? {} : { vendor }) };
  let tsc = { ...known, tscKhz: 0, tscControl: false };
  try {
    const layout = layoutOf(1 << 20, 1);
    const memory = createMemory(layout);
    const buffer = memory.buffer as ArrayBufferLike as SharedArrayBuffer;
    new KvmRegions(vm, buffer, layout).update();
    let result = -1;
    let done = false;
    const bus: VcpuBus = {
      ...emptyBus(),
      portIn: () => 0,
      portOut: (port, _bytes, value) => {
        if (port === 0x80) result = value;
        else done = true;
      },
      mmioRead: () => 0n,
      cpuid: (leaf) => (leaf === 0x80000000 ? [leaf, 0, 0, 0] : leaf === 0x80000001 ? [0, 0, 0, 1 << 29] : [0, 0, 0, 0]),
    };
    vcpu = new KvmVcpu({ vm, memory: buffer, layout, index: 0, bus });
    const khz = host.ioctl(vcpu.fd, ioctls.getTscKhz.request, 0);
    tsc = { ...known, tscKhz: Math.max(0, khz), tscControl: vm.has('tscControl') > 0 };
    const bytes = new Uint8Array(buffer, layout.ramBase);
    longMode(bytes, vcpu);
    const end = performance.now() + LIMIT_MS;
    while (!done && performance.now() < end && vcpu.run(0, LIMIT_MS * 1e6) === 'interrupted');
    if (result >= 0 && result !== RESULT)
      return { ...tsc, why: `this /dev/kvm computes wrongly in ring 0 (${result} for ${RESULT})` };
    if (!done)
      return {
        ...tsc,
        why: `this /dev/kvm is slow in ring 0: less than ${Math.round((2 * TURNS) / LIMIT_MS / 1000)} million instructions a second`,
      };
    return { ...tsc, why: undefined };
  } catch (error) {
    return { ...tsc, why: `this /dev/kvm fails a short program in ring 0 (${(error as Error).message})` };
  } finally {
    vcpu?.close();
    vm.close();
  }
}

/** The program and page tables at the start of memory, and 64-bit mode with SSE. */
function longMode(bytes: Uint8Array, vcpu: KvmVcpu): void {
  const d = new DataView(bytes.buffer, bytes.byteOffset);
  d.setBigUint64(0x2000, 0x3003n, true);
  d.setBigUint64(0x3000, 0x4003n, true);
  d.setBigUint64(0x4000, 0x83n, true);
  bytes.set(program, CODE);
  for (const [name, selector, attr] of [['cs', 8, 0xa09b], ['ds', 16, 0xc093], ['es', 16, 0xc093], ['ss', 16, 0xc093]] as const) {
    vcpu.set(`${name}.selector`, BigInt(selector));
    vcpu.set(`${name}.base`, 0n);
    vcpu.set(`${name}.limit`, 0xffffffffn);
    vcpu.set(`${name}.attr`, BigInt(attr));
  } // biome-ignore format: pairs
  vcpu.set('cr3', 0x2000n);
  vcpu.set('cr4', 0x620n);
  vcpu.set('efer', 0x500n);
  vcpu.set('cr0', 0x80000013n);
  vcpu.set('rip', BigInt(CODE));
}
