// What people write about a machine, read into its configuration: sizes, numbers of vCPUs, CPU models. QEMU's spelling
// (QEMU 7.2, "System Emulation", section "Invocation").

import { VCPUS_MAX } from '../accel/accel.ts';
import { type KvmFeature, kvmAllFeatures, kvmFeatureNames } from '../devices/kvm-pv.ts';
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
  /** Frequency of the time-stamp counter in kHz, where it was asked for. */
  readonly tscKhz?: number;
  /** Width of physical addresses, where it was asked for. */
  readonly physicalBits?: number;
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
  const offered = new Set(kvmAllFeatures);
  let kvm = true;
  let enforce = false;
  let tscKhz: number | undefined;
  for (const item of given) {
    const property = /^([\w.-]+)=(on|off|yes|no|true|false)$/.exec(item);
    const change = property ? `${/^(on|yes|true)$/.test(property[2]!) ? '+' : '-'}${property[1]}` : item;
    const [, sign, named = ''] = /^([+-])(.*)$/.exec(change.replaceAll('_', '-')) ?? [];
    const frequency = /^tsc[_-]frequency=(.*)$/.exec(item)?.[1];
    if (frequency !== undefined) tscKhz = parseFrequency(frequency);
    else if (kvmFeatureNames[named]) {
      for (const feature of kvmFeatureNames[named]) {
        if (sign === '+') offered.add(feature);
        else offered.delete(feature);
      }
    } else if (change === 'enforce' || change === '+enforce') enforce = true;
    else if (/^[+-]?(check|enforce)$/.test(change)) continue;
    else if (change === '+kvm' || change === '-kvm') kvm = change === '+kvm';
    else changes.push(change);
  }
  const { missing, ownWidth, physicalBits } = cpuModel(name, changes);
  if (enforce && missing.length > 0) {
    throw new Error(`Cannot use CPU ${text}: ${missing.join(' ')} ${missing.length === 1 ? 'is' : 'are'} not implemented`);
  }
  const paravirtual = kvm ? kvmAllFeatures.filter((feature) => offered.has(feature)) : [];
  return {
    cpuModel: [name, ...changes].join(','),
    paravirtual,
    missing,
    ...(tscKhz === undefined ? {} : { tscKhz }),
    ...(ownWidth ? { physicalBits } : {}),
  };
}

/** Hertz, a number with K, M or G for powers of 1000, as kHz. */
function parseFrequency(text: string): number {
  const found = /^(\d+(?:\.\d+)?)([kmg]?)$/i.exec(text);
  const hertz = found ? Number(found[1]) * ({ k: 1e3, m: 1e6, g: 1e9 }[found[2]!.toLowerCase()] ?? 1) : 0;
  if (!(hertz >= 1e6 && hertz <= 1e11))
    throw new Error(`Cannot set CPU property tsc-frequency=${text}: accepted are hertz from 1000000 to 100000000000`);
  return Math.round(hertz / 1000);
}

/**
 * The time-stamp counter of a machine, where one was asked for (kHz), on an accelerator that may have a fixed one.
 * @throws Error where both are said and differ
 */
export function tscOf(asked: number | undefined, fixed: number | undefined): { readonly tscKhz?: number } {
  if (asked !== undefined && fixed !== undefined && asked !== fixed)
    throw new Error(
      `Cannot set CPU property tsc-frequency=${asked * 1000}: this host's KVM cannot change it, accepted is ${fixed * 1000}`,
    );
  const tscKhz = asked ?? fixed;
  return tscKhz === undefined ? {} : { tscKhz };
}

/** What `parseCpu` accepts: names of models and of features. */
export function cpuHelp(): { readonly models: readonly string[]; readonly features: readonly string[] } {
  return { models: cpuModels, features: [...cpuFeatures, 'kvm', ...Object.keys(kvmFeatureNames), 'kvm-hint-dedicated'] };
}
