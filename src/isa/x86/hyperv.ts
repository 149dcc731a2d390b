// Hyper-V's enlightenments as a CPU model offers them, and the CPUID leaves that tell of them. Hypervisor Top-Level Functional Specification 6.0b,
// chapter 2 (feature and interface discovery); names, defaults and bits of `-cpu` as QEMU has them (docs/system/i386/hyperv.rst).

/** What is implemented, with the bits of the leaves 0x4000_0003 and 0x4000_0004 (both EAX; `more` is EDX of the first). */
const bits = {
  relaxed: { advice: 1 << 5 },
  vapic: { access: 1 << 4 },
  time: { access: (1 << 1) | (1 << 9) },
  vpindex: { access: 1 << 6 },
  reset: { access: 1 << 7 },
  frequencies: { access: 1 << 11, more: 1 << 8 },
} as const satisfies Record<string, { readonly access?: number; readonly advice?: number; readonly more?: number }>;
export type HypervFeature = keyof typeof bits;

/** Hypercalls are there with any of it; a partition that changes while it runs is what Windows wants for CPUs that are plugged in. */
const HYPERCALLS = 1 << 5;
const DYNAMIC = 1 << 3;

export interface Hyperv {
  readonly features: ReadonlySet<HypervFeature>;
  /** Tries of a spinlock after which the guest says so; 0xffff_ffff for never. */
  readonly spinlocks: number;
  /** Up to twelve characters. */
  readonly vendor: string;
}

/** Names of what QEMU has beside that; they are known and not implemented. */
const OTHERS =
  /^(crash|runtime|synic|stimer|stimer-direct|reenlightenment|tlbflush|tlbflush-ext|tlbflush-direct|evmcs|ipi|avic|syndbg|xmm-input|emsr-bitmap|passthrough|enforce-cpuid|no-nonarch-coresharing|version-id-\w+)$/;

const isFeature = (name: string): name is HypervFeature => Object.hasOwn(bits, name);

/**
 * Takes `hv-NAME`, with a sign before it or `=VALUE` behind it, out of the changes of a CPU model.
 * @returns what is offered (undefined: nothing), what was asked for and is not implemented, and the changes that are others'
 * @throws Error for values that are not accepted
 */
export function hypervOf(changes: readonly string[]): {
  readonly hyperv: Hyperv | undefined;
  readonly missing: readonly string[];
  readonly rest: readonly string[];
} {
  const features = new Set<HypervFeature>();
  const missing: string[] = [];
  const rest: string[] = [];
  let spinlocks: number | undefined;
  let vendor: string | undefined;
  for (const change of changes) {
    const [, sign, name = '', value] = /^([+-]?)hv[-_]([\w-]+)(?:=(.*))?$/.exec(change) ?? [];
    const feature = name.replaceAll('_', '-');
    if (feature === 'spinlocks' && value !== undefined) {
      const n = Number(value);
      if (!(Number.isInteger(n) && n >= 0xfff && n <= 0xffff_ffff))
        throw new Error(`Cannot set CPU property hv-spinlocks=${value}: accepted are 0xfff to 0xffffffff`);
      spinlocks = n;
    } else if (feature === 'vendor-id' && value !== undefined) {
      if (value.length > 12) throw new Error(`Cannot set CPU property hv-vendor-id=${value}: accepted are up to 12 characters`);
      vendor = value;
    } else if (isFeature(feature) && value === undefined) {
      if (sign === '-') features.delete(feature);
      else features.add(feature);
    } else if (OTHERS.test(feature)) {
      if (sign !== '-') missing.push(`hv-${feature}`);
    } else rest.push(change);
  }
  const any = features.size > 0 || spinlocks !== undefined;
  return {
    hyperv: any ? { features, spinlocks: spinlocks ?? 0xffff_ffff, vendor: vendor ?? 'Microsoft Hv' } : undefined,
    missing,
    rest,
  };
}

/** EAX to EDX of the leaves 0x4000_0000 to 0x4000_0005, zeros elsewhere; `word` gives four characters of a text. */
export function hypervLeaf(
  { features, spinlocks, vendor }: Hyperv,
  leaf: number,
  word: (text: string, at: number) => number,
): readonly [number, number, number, number] {
  const sum = (of: 'access' | 'advice' | 'more'): number =>
    [...features].reduce((all, f) => all | ((bits[f] as { readonly [k in typeof of]?: number })[of] ?? 0), 0);
  switch (leaf) {
    case 0x4000_0000:
      return [0x4000_0005, word(vendor, 0), word(vendor, 4), word(vendor, 8)];
    case 0x4000_0001:
      return [word('Hv#1', 0), 0, 0, 0];
    case 0x4000_0002:
      // Build, and version 10.0.
      return [0x3839, 0x000a_0000, 0, 0];
    case 0x4000_0003:
      return [sum('access') | HYPERCALLS, 0, 0, sum('more') | DYNAMIC];
    case 0x4000_0004:
      return [sum('advice'), spinlocks, 0, 0];
    case 0x4000_0005:
      // Virtual processors.
      return [64, 0, 0, 0];
    default:
      return [0, 0, 0, 0];
  }
}
