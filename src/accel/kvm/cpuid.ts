// The CPUID table of a KVM vCPU: what the machine's CPU model says, less what this kernel and processor cannot give.
// Linux 6.1, Documentation/virt/kvm/api.rst, KVM_GET_SUPPORTED_CPUID and KVM_SET_CPUID2.

import { cpuFeatures, featurePlace } from '../../isa/x86/cpu-model.ts';
import { CPUID_HEADER, CPUID_SUBLEAF, cpuidEntryLayout, errno, ioctls } from './abi.ts';
import type { KvmHost } from './host.ts';

export type Leaf = readonly [eax: number, ebx: number, ecx: number, edx: number];
/** One answer: for every subleaf where `subleaf` is undefined. */
export interface CpuidEntry {
  readonly leaf: number;
  readonly subleaf?: number;
  readonly values: Leaf;
}

/** Leaves that depend on ECX, with the subleaves that may say something. Leaf 0xD has one for each component of XSAVE. */
const SUBLEAVES: Readonly<Record<number, number>> = { 4: 4, 7: 2, 11: 3, 13: 20, 31: 3, 2147483677: 4 };
/** Subleaves of 0xD from here on are components: those that say nothing are left out. */
const FIRST_COMPONENT = 2;
/** Feature words: EAX 0 to EDX 3, kept only where the kernel has the bit too. */
const FEATURES: readonly (readonly [leaf: number, subleaf: number, word: 0 | 1 | 2 | 3, kept: number])[] = [
  // Kept besides: x2APIC and the deadline timer (decided by the caller), OSXSAVE (follows CR4), hypervisor; HT.
  [1, 0, 2, 0x89200000 | 0], [1, 0, 3, 1 << 28], [7, 0, 1, 0], [7, 0, 2, 0], [7, 0, 3, 0], [0xd, 1, 0, 0],
  [0x80000001, 0, 2, 2], [0x80000001, 0, 3, 0], [0x80000008, 0, 1, 0],
]; // biome-ignore format: a table
const X2APIC = 1 << 21;
const TSC_DEADLINE = 1 << 24;

/** The entries of what the kernel supports. */
export function supportedCpuid(host: KvmHost, kvm: number): CpuidEntry[] {
  for (let count = 64; count <= 1024; count *= 2) {
    const bytes = new Uint8Array(CPUID_HEADER + count * cpuidEntryLayout.size);
    const header = new DataView(bytes.buffer);
    header.setUint32(0, count, true);
    const result = host.ioctl(kvm, ioctls.getSupportedCpuid.request, bytes);
    if (result === -7) continue; // E2BIG
    if (result < 0) throw new Error(`Cannot ask KVM which CPU features it supports: error ${-result}`);
    return Array.from({ length: header.getUint32(0, true) }, (_, n) => {
      const e = cpuidEntryLayout.view(bytes.buffer, CPUID_HEADER + n * cpuidEntryLayout.size);
      return {
        leaf: e.leaf,
        ...(e.flags & CPUID_SUBLEAF ? { subleaf: e.subleaf } : {}),
        values: [e.eax, e.ebx, e.ecx, e.edx],
      };
    });
  }
  throw new Error('Cannot ask KVM which CPU features it supports: more than 1024 entries');
}

/** The vendor that the host's processor names: leaf 0's EBX, EDX, ECX; undefined where the kernel does not say. */
export function hostVendor(supported: readonly CpuidEntry[]): string | undefined {
  const found = supported.find((e) => e.leaf === 0)?.values;
  if (!found) return undefined;
  const bytes = [found[1], found[3], found[2]].flatMap((word) => [0, 8, 16, 24].map((shift) => (word >>> shift) & 0xff));
  return bytes.every((b) => b >= 0x20 && b < 0x7f) ? String.fromCharCode(...bytes) : undefined;
}

/** Width of the physical addresses that a guest may have: leaf 0x80000008, where the kernel takes the paging of guests into account; undefined where it does not say. */
export function hostPhysicalBits(supported: readonly CpuidEntry[]): number | undefined {
  return (supported.find((e) => e.leaf === 0x80000008)?.values[0] ?? 0) & 0xff || undefined;
}

/**
 * The table of a vCPU. `model` answers as the machine's CPU model does. `kernelApic`: the local APIC is the kernel's, so x2APIC and its
 * deadline timer are there; `kvmFeatures`: leaf 0x40000001's bits are the kernel's where both have them.
 */
export function guestCpuid(
  model: (leaf: number, subleaf: number) => Leaf,
  supported: readonly CpuidEntry[],
  kernelApic: boolean,
): CpuidEntry[] {
  const entries: CpuidEntry[] = [];
  const range = (from: number): void => {
    const last = model(from, 0)[0] >>> 0;
    for (let leaf = from; leaf <= last; leaf++) {
      const subleaves = SUBLEAVES[leaf];
      if (subleaves === undefined) entries.push({ leaf, values: model(leaf, 0) });
      else {
        for (let s = 0; s < subleaves; s++) {
          const values = model(leaf, s);
          if (leaf !== 0xd || s < FIRST_COMPONENT || values[0] !== 0) entries.push({ leaf, subleaf: s, values });
        }
      }
    }
  };
  range(0);
  if (model(0x40000000, 0)[0] !== 0) range(0x40000000);
  range(0x80000000);
  return entries.map((e) => restrict(e, supported, kernelApic));
}

function restrict(e: CpuidEntry, supported: readonly CpuidEntry[], kernelApic: boolean): CpuidEntry {
  const values: [number, number, number, number] = [...e.values];
  for (const [leaf, subleaf, word, kept] of FEATURES) {
    if (leaf !== e.leaf || subleaf !== (e.subleaf ?? 0)) continue;
    const found = supported.find((s) => s.leaf === leaf && (s.subleaf ?? 0) === subleaf);
    values[word] &= (found?.values[word] ?? 0) | kept;
  }
  if (e.leaf === 1 && !kernelApic) values[2] &= ~(X2APIC | TSC_DEADLINE);
  if (e.leaf === 0xd && e.subleaf === 0) values[0] &= supported.find((s) => s.leaf === 0xd && !s.subleaf)?.values[0] ?? 1;
  if (e.leaf === 0x40000001) values[0] &= supported.find((s) => s.leaf === 0x40000001)?.values[0] ?? 0;
  return { ...e, values };
}

/** Features, by name, that the machine's CPU model has and a vCPU's table on this KVM (`guestCpuid`) has not. */
export function lackingFeatures(model: (leaf: number, subleaf: number) => Leaf, table: readonly CpuidEntry[]): string[] {
  return cpuFeatures.filter((name) => {
    const { word, bit } = featurePlace(name);
    const [where = '', register = ''] = word.split('.');
    const [leaf, subleaf] = where === 'd1' ? [0xd, 1] : [Number.parseInt(where, 16), 0];
    const n = ['eax', 'ebx', 'ecx', 'edx'].indexOf(register);
    const found = table.find((e) => e.leaf === leaf && (e.subleaf ?? 0) === subleaf);
    return ((model(leaf, subleaf)[n]! & ~(found?.values[n] ?? 0)) >>> bit) & 1;
  });
}

/** Gives a vCPU its table. */
export function setCpuid(host: KvmHost, vcpu: number, entries: readonly CpuidEntry[]): void {
  const bytes = new Uint8Array(CPUID_HEADER + entries.length * cpuidEntryLayout.size);
  new DataView(bytes.buffer).setUint32(0, entries.length, true);
  entries.forEach(({ leaf, subleaf, values }, n) => {
    const e = cpuidEntryLayout.view(bytes.buffer, CPUID_HEADER + n * cpuidEntryLayout.size);
    e.leaf = leaf;
    e.subleaf = subleaf ?? 0;
    e.flags = subleaf === undefined ? 0 : CPUID_SUBLEAF;
    [e.eax, e.ebx, e.ecx, e.edx] = values.map((v) => v >>> 0) as [number, number, number, number];
  });
  const result = host.ioctl(vcpu, ioctls.setCpuid2.request, bytes);
  if (result < 0) {
    throw new Error(
      `Cannot give a KVM vCPU its CPUID table: error ${-result}${-result === errno.EINVAL ? ', an entry is not accepted' : ''}`,
    );
  }
}
