// What the host's processor says of itself: CPUID, which no system call reads, by the instruction itself in a page that koffi calls; the MSR
// and the clock that libvirt looks at besides, by cpuid(4)'s neighbour /dev/cpu/0/msr or by KVM (api.rst, KVM_GET_MSRS, KVM_GET_TSC_KHZ).

import { closeSync, openSync, readSync } from 'node:fs';
import type { CpuIdentity } from '../../daemon/host.ts';
import { loadKoffi } from './koffi.ts';
import { libc } from './libc.ts';

/** `void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t *registers)` by the System V calling convention. */
const routine = Uint8Array.of(
  ...[0x53], //                   push rbx
  ...[0x49, 0x89, 0xd0], //       mov r8, rdx
  ...[0x89, 0xf8], //             mov eax, edi
  ...[0x89, 0xf1], //             mov ecx, esi
  ...[0x0f, 0xa2], //             cpuid
  ...[0x41, 0x89, 0x00], //       mov [r8], eax
  ...[0x41, 0x89, 0x58, 0x04], // mov [r8+4], ebx
  ...[0x41, 0x89, 0x48, 0x08], // mov [r8+8], ecx
  ...[0x41, 0x89, 0x50, 0x0c], // mov [r8+12], edx
  ...[0x5b, 0xc3], //             pop rbx; ret
);
const PAGE = 4096;
const PROT_READ_WRITE = 3;
const PROT_READ_EXEC = 5;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const MAP_FAILED = 2n ** 64n - 1n;

const KVM_CREATE_VM = 0xae01;
const KVM_CHECK_EXTENSION = 0xae03;
const KVM_CREATE_VCPU = 0xae41;
const KVM_GET_TSC_KHZ = 0xaea3;
const KVM_GET_MSRS = 0xc008_ae88;
const KVM_CAP_TSC_CONTROL = 60;

interface Koffi {
  load(path: string): { func(signature: string): (...args: unknown[]) => unknown };
  address(value: unknown): bigint;
  view(pointer: unknown, length: number): ArrayBuffer;
  proto(result: string, args: readonly string[]): unknown;
  call(pointer: unknown, type: unknown, ...args: unknown[]): unknown;
}

/** Undefined where a page of our own cannot be executed. */
function cpuidInstruction(): CpuIdentity['cpuid'] | undefined {
  if (process.platform !== 'linux' || process.arch !== 'x64') return undefined;
  const koffi = loadKoffi<Koffi>();
  const c = koffi.load('libc.so.6');
  const mmap = c.func('void *mmap(uint64_t at, size_t length, int protection, int flags, int fd, int64_t offset)');
  const mprotect = c.func('int mprotect(void *at, size_t length, int protection)');
  const page = mmap(0n, PAGE, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0n);
  if (koffi.address(page) === MAP_FAILED) return undefined;
  new Uint8Array(koffi.view(page, PAGE)).set(routine);
  if (mprotect(page, PAGE, PROT_READ_EXEC) !== 0) return undefined;
  const type = koffi.proto('void', ['uint32_t', 'uint32_t', 'void *']);
  return (leaf, subleaf = 0) => {
    const registers = new Uint32Array(4);
    koffi.call(page, type, leaf, subleaf, new Uint8Array(registers.buffer));
    const [eax = 0, ebx = 0, ecx = 0, edx = 0] = registers;
    return { eax, ebx, ecx, edx };
  };
}

function withFile<T>(path: string, flags: string, use: (fd: number) => T | undefined): T | undefined {
  let fd: number;
  try {
    fd = openSync(path, flags);
  } catch {
    return undefined;
  }
  try {
    return use(fd);
  } catch {
    return undefined;
  } finally {
    closeSync(fd);
  }
}

function readMsr(index: number): bigint | undefined {
  const bytes = new DataView(new ArrayBuffer(24));
  const direct = withFile('/dev/cpu/0/msr', 'r', (fd) => readSync(fd, bytes, 0, 8, index) === 8 || undefined);
  if (direct) return bytes.getBigUint64(0, true);
  // struct kvm_msrs with one entry: their number, padding; index, padding, value.
  bytes.setUint32(0, 1, true);
  bytes.setUint32(8, index, true);
  const got = withFile('/dev/kvm', 'r+', (fd) => libc()?.ioctlResult(fd, KVM_GET_MSRS, new Uint8Array(bytes.buffer)));
  return got === 1 ? bytes.getBigUint64(16, true) : undefined;
}

/** The rate of the time-stamp counter that guests under KVM see, which a kernel has measured. */
const readTsc = (): CpuIdentity['tsc'] =>
  withFile('/dev/kvm', 'r+', (kvm) => {
    const c = libc();
    if (!c) return undefined;
    const vm = c.ioctlResult(kvm, KVM_CREATE_VM, 0);
    const vcpu = vm < 0 ? -1 : c.ioctlResult(vm, KVM_CREATE_VCPU, 0);
    const khz = vcpu < 0 ? -1 : c.ioctlResult(vcpu, KVM_GET_TSC_KHZ, 0);
    const scaling = c.ioctlResult(kvm, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) > 0;
    for (const fd of [vcpu, vm]) if (fd >= 0) c.close(fd);
    return khz > 0 ? { frequency: khz * 1000, scaling } : undefined;
  });

/** Undefined on processors that have no CPUID and on hosts that do not let programs ask. */
export function readCpuIdentity(): CpuIdentity | undefined {
  try {
    const cpuid = cpuidInstruction();
    if (!cpuid) return undefined;
    const tsc = readTsc();
    return { cpuid, msr: readMsr, ...(tsc && { tsc }) };
  } catch {
    return undefined;
  }
}
