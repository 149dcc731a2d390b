// What people write about a machine, read into its configuration: sizes, numbers of vCPUs, CPU models. QEMU's spelling
// (QEMU 7.2, "System Emulation", section "Invocation").

import { VCPUS_MAX } from '../accel/accel.ts';
import { type KvmFeature, kvmAllFeatures } from '../devices/kvm-pv.ts';
import { cpuFeatures, cpuModel, cpuModels } from '../isa/x86/cpu-model.ts';

/** Entries that a dirty ring of KVM may have: powers of two within. */
export const dirtyRingEntries = { min: 1024, max: 65536 } as const;

const UNITS: Readonly<Record<string, number>> = { B: 0, K: 10, M: 20, G: 30, T: 40 };

/**
 * Bytes of a memory size: `512` (MiB), `512M`, `1.5G`; units B, K, M, G, T of either case. Rounded down to whole pages of 4 KiB.
 * @throws Error for anything else
 */
export function parseMemory(text: string): number {
  const found = /^(\d+(?:\.\d+)?)([bkmgt]?)$/i.exec(text);
  const bytes = found ? Number(found[1]) * 2 ** UNITS[(found[2] || 'M').toUpperCase()]! : 0;
  if (!found || !Number.isSafeInteger(Math.floor(bytes)) || bytes < 4096) {
    throw new Error(`Cannot use memory size "${text}": accepted are MiB, or a number with K, M, G or T, such as 512 or 2G`);
  }
  return Math.floor(bytes / 4096) * 4096;
}

/**
 * A count of vCPUs.
 * @throws Error for anything but 1 to VCPUS_MAX
 */
export function parseCpus(text: string): number {
  const n = Number(text);
  if (!/^\d+$/.test(text) || n < 1 || n > VCPUS_MAX)
    throw new Error(`Cannot make "${text}" vCPUs: accepted are 1 to ${VCPUS_MAX}`);
  return n;
}

/** A CPU as the configuration has it. */
export interface CpuChoice {
  /** As `MachineConfig.cpuModel`. */
  readonly cpuModel: string;
  readonly paravirtual: readonly KvmFeature[];
  /** Features that were asked for and are not implemented. */
  readonly missing: readonly string[];
}

/**
 * A CPU as QEMU writes it: `MODEL[,+feature][,-feature][,feature=on|off]`. The feature `kvm` is the paravirtual interface, on unless
 * taken away; with `enforce`, features that are not implemented are an error.
 * @throws Error for unknown models and features
 */
export function parseCpu(text: string): CpuChoice {
  const [name = '', ...given] = text.split(',');
  const changes: string[] = [];
  let kvm = true;
  let enforce = false;
  for (const item of given) {
    const property = /^([\w.-]+)=(on|off|yes|no|true|false)$/.exec(item);
    const change = property ? `${/^(on|yes|true)$/.test(property[2]!) ? '+' : '-'}${property[1]}` : item;
    if (change === 'enforce' || change === '+enforce') enforce = true;
    else if (/^[+-]?(check|enforce)$/.test(change)) continue;
    else if (change === '+kvm' || change === '-kvm') kvm = change === '+kvm';
    else changes.push(change);
  }
  const { missing } = cpuModel(name, changes);
  if (enforce && missing.length > 0) {
    throw new Error(`Cannot use CPU ${text}: ${missing.join(' ')} ${missing.length === 1 ? 'is' : 'are'} not implemented`);
  }
  return { cpuModel: [name, ...changes].join(','), paravirtual: kvm ? kvmAllFeatures : [], missing };
}

/** What `parseCpu` accepts: names of models and of features. */
export function cpuHelp(): { readonly models: readonly string[]; readonly features: readonly string[] } {
  return { models: cpuModels, features: [...cpuFeatures, 'kvm'] };
}
