// What CPUID answers, as a pure function of the model, the machine's topology and a little guest state (Intel SDM volume 2, CPUID;
// AMD APM volume 3, appendix E; the hypervisor leaves as Linux's Documentation/virt/kvm/x86/cpuid.rst has them).

import { type CpuModel, featureBits, LAST_BASIC, LAST_EXTENDED } from './cpu-model.ts';
import { hypervLeaf } from './hyperv.ts';
import { PMU_LEAF, pmuKind } from './pmu.ts';
import { MONITOR_LINE } from './rows/monitor.ts';

/** Threads of one core, cores of one socket, sockets of the machine: at least 1 each. */
export interface CpuTopology {
  readonly threads: number;
  readonly cores: number;
  readonly sockets: number;
}

/** One vCPU's description. */
export interface CpuDescription {
  readonly model: CpuModel;
  readonly topology: CpuTopology;
  /** Number of the vCPU, from 0: see `apicIdOf`. */
  readonly index: number;
  /** Frequency of the time-stamp counter in kHz. */
  readonly tscKhz: number;
  /** Feature bits of leaf 0x40000001 where the KVM interface is offered, else null. */
  readonly kvm: number | null;
}

/** Guest state that some leaves show. */
export interface CpuidState {
  readonly cr4: bigint;
  readonly xcr0: bigint;
}

export type CpuidResult = readonly [eax: number, ebx: number, ecx: number, edx: number];

const NOTHING: CpuidResult = [0, 0, 0, 0];
/** Leaf 0x40000001 EDX: KVM_HINTS_REALTIME. */
const HINT_DEDICATED = 1;
const OSXSAVE = 27;
const PDCM = 15;
const HT = 28;
const CR4_OSXSAVE = 18n;
const OSPKE = 4;
const CR4_PKE = 22n;
const APIC_BUS_KHZ = 1_000_000;
const CACHE_LINE = 64;

const bitsFor = (count: number): number => (count <= 1 ? 0 : 32 - Math.clz32(count - 1));
const threadBits = (t: CpuTopology): number => bitsFor(t.threads);
const packageBits = (t: CpuTopology): number => threadBits(t) + bitsFor(t.cores);

/** The APIC identifier of vCPU number `index`: thread, core and socket numbers side by side in fields of whole bits. */
export function apicIdOf(t: CpuTopology, index: number): number {
  const thread = index % t.threads;
  const core = Math.floor(index / t.threads) % t.cores;
  const socket = Math.floor(index / (t.threads * t.cores));
  return (socket << packageBits(t)) | (core << threadBits(t)) | thread;
}

/** Four bytes of text from `at`, lowest first; zero after its end. */
function word(text: string, at: number): number {
  let v = 0;
  for (let i = 3; i >= 0; i--) v = (v << 8) | (text.charCodeAt(at + i) || 0);
  return v >>> 0;
}

interface Cache {
  /** 1 data, 2 instructions, 3 both. */
  readonly type: 1 | 2 | 3;
  readonly level: 1 | 2 | 3;
  readonly kib: number;
  readonly ways: number;
  /** It belongs to a core, or to a whole socket. */
  readonly shared: boolean;
}
const caches: readonly Cache[] = [
  { type: 1, level: 1, kib: 32, ways: 8, shared: false },
  { type: 2, level: 1, kib: 32, ways: 8, shared: false },
  { type: 3, level: 2, kib: 2048, ways: 8, shared: false },
  { type: 3, level: 3, kib: 16384, ways: 16, shared: true },
];

/** Leaves 4 (Intel, with cores in EAX 31–26) and 0x8000001D (AMD). */
function cacheLeaf(t: CpuTopology, subleaf: number, withCores: boolean): CpuidResult {
  const c = caches[subleaf];
  if (!c) return NOTHING;
  const sharing = c.shared ? 1 << packageBits(t) : 1 << threadBits(t);
  const cores = withCores ? (1 << (packageBits(t) - threadBits(t))) - 1 : 0;
  const eax = c.type | (c.level << 5) | (1 << 8) | ((sharing - 1) << 14) | (cores << 26);
  const sets = (c.kib * 1024) / (CACHE_LINE * c.ways);
  return [eax, (CACHE_LINE - 1) | ((c.ways - 1) << 22), sets - 1, 0];
}

/** Leaves 0xB and 0x1F. */
function topologyLeaf(t: CpuTopology, subleaf: number, apicId: number): CpuidResult {
  if (subleaf === 0) return [threadBits(t), t.threads, 0x100, apicId];
  if (subleaf === 1) return [packageBits(t), t.threads * t.cores, 0x201, apicId];
  return [0, 0, subleaf & 0xff, apicId];
}

/** XSAVE components beyond the legacy area and header: bit, bytes, place in the standard format, feature. */
const components = [
  { bit: 2, bytes: 256, at: 576, feature: 'avx' },
  { bit: 9, bytes: 8, at: 2688, feature: 'pku' },
] as const;
const LEGACY_AREA = 576;

function xsaveLeaf(model: CpuModel, subleaf: number, xcr0: bigint): CpuidResult {
  if (!model.features.has('xsave')) return NOTHING;
  const offered = components.filter((c) => model.features.has(c.feature));
  const all = offered.reduce((bits, c) => bits | (1 << c.bit), 3);
  const inside = (bits: number): typeof offered => offered.filter((c) => (bits >>> c.bit) & 1);
  const standard = (bits: number): number => inside(bits).reduce((end, c) => Math.max(end, c.at + c.bytes), LEGACY_AREA);
  const compacted = (bits: number): number => inside(bits).reduce((end, c) => end + c.bytes, LEGACY_AREA);
  if (subleaf === 0) return [all, standard(Number(xcr0)), standard(all), 0];
  if (subleaf === 1) return [featureBits(model.features, 'd1.eax'), compacted(Number(xcr0)), 0, 0];
  const found = offered.find((c) => c.bit === subleaf);
  return found ? [found.bytes, found.at, 0, 0] : NOTHING;
}

function signature({ family, model, stepping }: CpuModel): number {
  const base = Math.min(family, 15);
  return stepping | ((model & 15) << 4) | (base << 8) | ((model >> 4) << 16) | ((family - base) << 20);
}

function basicLeaf(cpu: CpuDescription, leaf: number, subleaf: number, state: CpuidState): CpuidResult {
  const { model, topology: t } = cpu;
  const features = model.features;
  const apicId = apicIdOf(t, cpu.index);
  const siblings = 1 << packageBits(t);
  switch (leaf) {
    case 0:
      return [model.level ?? LAST_BASIC, word(model.vendor, 0), word(model.vendor, 8), word(model.vendor, 4)];
    case 1: {
      const ebx = (apicId << 24) | (Math.min(siblings, 255) << 16) | ((CACHE_LINE / 8) << 8);
      const enabled = features.has('xsave') && (state.cr4 >> CR4_OSXSAVE) & 1n ? 1 << OSXSAVE : 0;
      const counters = pmuKind(model) === 'intel' ? 1 << PDCM : 0;
      const several = siblings > 1 ? 1 << HT : 0;
      return [
        signature(model),
        ebx,
        featureBits(features, '1.ecx') | enabled | counters,
        featureBits(features, '1.edx') | several,
      ];
    }
    case 2:
      // Descriptors of the caches of leaf 4: 16 MiB, 32 KiB, 32 KiB, 2 MiB.
      return [1, 0, 0x4d, 0x2c307d];
    case 4:
      return cacheLeaf(t, subleaf, true);
    case 5:
      // Lines of MONITOR; interrupts end MWAIT even with IF clear; one kind of C1.
      return features.has('monitor') ? [MONITOR_LINE, MONITOR_LINE, 3, 0x10] : NOTHING;
    case 6:
      return [featureBits(features, '6.eax'), 0, 0, 0];
    case 7:
      if (subleaf !== 0) return NOTHING;
      return [
        0,
        featureBits(features, '7.ebx'),
        featureBits(features, '7.ecx') | (features.has('pku') && (state.cr4 >> CR4_PKE) & 1n ? 1 << OSPKE : 0),
        featureBits(features, '7.edx'),
      ];
    case 0xa:
      return pmuKind(model) === 'intel' ? PMU_LEAF : NOTHING;
    case 0xb:
    case 0x1f:
      if (model.withoutTopology) return NOTHING;
      return topologyLeaf(t, subleaf, apicId);
    case 0xd:
      return xsaveLeaf(model, subleaf, state.xcr0);
    case 0x15:
      // Counter = crystal of 1 MHz * EBX / EAX.
      return [1000, cpu.tscKhz, 1_000_000, 0];
    default:
      return NOTHING;
  }
}

function hypervisorLeaf(cpu: CpuDescription, leaf: number): CpuidResult {
  const { hyperv } = cpu.model;
  if (!cpu.model.features.has('hypervisor')) return NOTHING;
  // Another interface than Hyper-V's comes behind it, where guests look for it at every 0x100th leaf.
  const base = hyperv ? 0x40000100 : 0x40000000;
  if (hyperv && leaf < base) return hypervLeaf(hyperv, leaf, word);
  if (cpu.kvm === null && (cpu.model.withoutName || hyperv)) return NOTHING;
  const name = cpu.kvm === null ? 'NonrootDBT' : 'KVMKVMKVM';
  switch (leaf - base + 0x40000000) {
    case 0x40000000:
      return [base + 0x10, word(name, 0), word(name, 4), word(name, 8)];
    case 0x40000001:
      return [cpu.kvm ?? 0, 0, 0, cpu.kvm !== null && cpu.model.dedicated ? HINT_DEDICATED : 0];
    case 0x40000010:
      return [cpu.tscKhz, APIC_BUS_KHZ, 0, 0];
    default:
      return NOTHING;
  }
}

/** Bits of leaf 1 EDX that AMD repeats in leaf 0x80000001 EDX. */
const REPEATED = 0x0183f3ff;

function extendedLeaf(cpu: CpuDescription, leaf: number, subleaf: number): CpuidResult {
  const { model, topology: t } = cpu;
  const features = model.features;
  const apicId = apicIdOf(t, cpu.index);
  const threads = t.threads * t.cores;
  switch (leaf) {
    case 0x80000000:
      return [model.xlevel ?? LAST_EXTENDED, word(model.vendor, 0), word(model.vendor, 8), word(model.vendor, 4)];
    case 0x80000001: {
      const several = threads > 1 ? 2 : 0;
      const repeated = featureBits(features, '1.edx') & REPEATED;
      return [
        signature(model),
        0,
        featureBits(features, '80000001.ecx') | several,
        featureBits(features, '80000001.edx') | repeated,
      ];
    }
    case 0x80000002:
    case 0x80000003:
    case 0x80000004: {
      const at = (leaf - 0x80000002) * 16;
      return [word(model.brand, at), word(model.brand, at + 4), word(model.brand, at + 8), word(model.brand, at + 12)];
    }
    case 0x80000005: {
      // TLBs of 255 entries, then L1: KiB, ways, lines per tag, line.
      const l1 = (32 << 24) | (8 << 16) | (1 << 8) | CACHE_LINE;
      return [0x01ff01ff, 0x01ff01ff, l1, l1];
    }
    case 0x80000006:
      // L2: KiB and ways code 6 (8); L3: 512 KiB units and ways code 8 (16).
      return [0, 0, (2048 << 16) | (6 << 12) | (1 << 8) | CACHE_LINE, (32 << 18) | (8 << 12) | (1 << 8) | CACHE_LINE];
    case 0x80000007:
      return [0, 0, 0, featureBits(features, '80000007.edx')];
    case 0x80000008: {
      const linear = !features.has('lm') ? 32 : features.has('la57') ? 57 : 48;
      return [
        model.physicalBits | (linear << 8),
        featureBits(features, '80000008.ebx'),
        (threads - 1) | (packageBits(t) << 12),
        0,
      ];
    }
    case 0x8000001d:
      return features.has('topoext') ? cacheLeaf(t, subleaf, false) : NOTHING;
    case 0x8000001e: {
      if (!features.has('topoext')) return NOTHING;
      const core = (apicId >> threadBits(t)) & ((1 << (packageBits(t) - threadBits(t))) - 1);
      return [apicId, core | ((t.threads - 1) << 8), apicId >> packageBits(t), 0];
    }
    default:
      return NOTHING;
  }
}

/** EAX, EBX, ECX, EDX (unsigned 32 bits each) of a leaf; zeros where there is none. */
export function cpuid(cpu: CpuDescription, leaf: number, subleaf: number, state: CpuidState): CpuidResult {
  const { level = LAST_BASIC, xlevel = LAST_EXTENDED } = cpu.model;
  if (leaf > xlevel || (leaf > level && leaf < 0x40000000)) return NOTHING;
  const result =
    leaf >= 0x80000000
      ? extendedLeaf(cpu, leaf, subleaf)
      : leaf >= 0x40000000 && leaf <= 0x4fffffff
        ? hypervisorLeaf(cpu, leaf)
        : basicLeaf(cpu, leaf, subleaf, state);
  return result.map((v) => v >>> 0) as unknown as CpuidResult;
}

/** Most answers that `keptCpuid` keeps; and their subleaves are below this. */
const KEPT_MAX = 256;
const SUBLEAVES = 256;
/** The same for one vCPU that asks again and again (UEFI firmware does): its answers are kept while the state is as it was. */
export function keptCpuid(cpu: CpuDescription): (leaf: number, subleaf: number, state: CpuidState) => CpuidResult {
  const kept = new Map<number, CpuidResult>();
  let cr4 = 0n;
  let xcr0 = 0n;
  return (leaf, subleaf, state) => {
    if (subleaf >= SUBLEAVES) return cpuid(cpu, leaf, subleaf, state);
    if (state.cr4 !== cr4 || state.xcr0 !== xcr0 || kept.size >= KEPT_MAX) {
      kept.clear();
      ({ cr4, xcr0 } = state);
    }
    const key = leaf * SUBLEAVES + subleaf;
    let result = kept.get(key);
    if (!result) {
      result = cpuid(cpu, leaf, subleaf, state);
      kept.set(key, result);
    }
    return result;
  };
}
