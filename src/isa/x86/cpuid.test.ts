import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { cpuFeatures, cpuModel, featureBits, physicalBitsOn } from './cpu-model.ts';
import { apicIdOf, type CpuDescription, type CpuTopology, cpuid, keptCpuid } from './cpuid.ts';
import type { Row } from './row.ts';

const STATE = { cr4: 0n, xcr0: 3n };
const ONE: CpuTopology = { threads: 1, cores: 1, sockets: 1 };
const cpu = (model = 'max', more: Partial<CpuDescription> = {}, changes: string[] = []): CpuDescription => ({
  model: cpuModel(model, changes),
  topology: ONE,
  index: 0,
  tscKhz: 2_500_000,
  kvm: null,
  ...more,
});
const text = (...wordsOf: number[]): string =>
  String.fromCharCode(...new Uint8Array(Uint32Array.from(wordsOf).buffer)).replace(/\0+$/, '');

test('the vendor, the highest leaves and the name are there', () => {
  const [eax, ebx, ecx, edx] = cpuid(cpu(), 0, 0, STATE);
  assert.equal(eax, 0x1f);
  assert.equal(text(ebx, edx, ecx), 'AuthenticAMD');
  assert.equal(cpuid(cpu(), 0x80000000, 0, STATE)[0], 0x8000001e);
  const name = [2, 3, 4].flatMap((n) => [...cpuid(cpu('qemu64'), 0x80000000 + n, 0, STATE)]);
  assert.equal(text(...name), 'QEMU Virtual CPU version 2.5+');
});

test('the signature has family, model and stepping in their fields', () => {
  assert.equal(cpuid(cpu('qemu64'), 1, 0, STATE)[0], 0x60fb1);
  assert.equal(cpuid(cpu('qemu32'), 1, 0, STATE)[0], 0x663);
});

test('features are where the manuals put them', () => {
  const [, , ecx, edx] = cpuid(cpu('qemu64'), 1, 0, STATE);
  assert.equal(edx, 0x078bfbfd);
  assert.equal(ecx, 0x80002001);
  const extended = cpuid(cpu('qemu64'), 0x80000001, 0, STATE);
  assert.equal(extended[3], (0x20100800 | (0x078bfbfd & 0x0183f3ff)) >>> 0);
  assert.equal(extended[2], 1);
  assert.equal(featureBits(new Set(['smap', 'fsgsbase']), '7.ebx'), 0x100001);
  assert.equal(featureBits(new Set(['hypervisor']), '1.ecx'), 0x80000000);
  assert.deepEqual(cpuid(cpu(), 7, 1, STATE), [0, 0, 0, 0]);
});

test('features are added and removed by name, and what is not implemented is reported', () => {
  const m = cpuModel('qemu64', ['+pcid', '-cx16', '+sse4_1', '+avx512f', '+sse3']);
  assert.deepEqual(
    [m.features.has('pcid'), m.features.has('cx16'), m.features.has('sse4.1'), m.features.has('avx512f')],
    [true, false, true, false],
  );
  assert.deepEqual(m.missing, ['avx512f']);
  for (const name of ['qemu64', 'kvm64', 'x86-64-v3', 'max', 'IvyBridge', 'Opteron_G3'])
    assert.deepEqual(cpuModel(name).missing, [], name);
  assert.deepEqual(cpuModel('Haswell-noTSX').missing, []);
  assert.equal(cpuModel('max', ['vendor=GenuineIntel']).vendor, 'GenuineIntel');
  assert.throws(() => cpuModel('pentium'), /Cannot use CPU model pentium/);
  assert.throws(() => cpuModel('max', ['+warp']), /Cannot change CPU feature "\+warp"/);
  assert.throws(() => cpuModel('max', ['pcid']), /Cannot change CPU feature "pcid"/);
  assert.equal(new Set(cpuFeatures).size, cpuFeatures.length);
});

test('on a host that runs the guest itself, max and host have its width of physical addresses, others where they are told to', () => {
  const on = (host: number | undefined, name: string, ...changes: string[]): number =>
    physicalBitsOn(cpuModel(name, changes), host);
  for (const name of ['max', 'host']) {
    assert.equal(on(48, name), 48);
    assert.equal(on(39, name), 39);
    assert.equal(on(undefined, name), 40);
    assert.equal(on(48, name, 'host-phys-bits-limit=46'), 46);
    assert.equal(on(48, name, 'host-phys-bits-limit=50'), 48);
    assert.equal(on(48, name, 'host-phys-bits-limit=0'), 48);
    // As with QEMU.
    assert.equal(on(48, name, 'phys-bits=42'), 48);
    assert.equal(on(48, name, 'phys-bits=42', '-host-phys-bits'), 42);
    assert.equal(on(48, name, '-host-phys-bits'), 40);
    assert.equal(on(48, name, '-lm'), 36);
  }
  assert.equal(on(48, 'qemu64'), 40);
  assert.equal(on(48, 'qemu64', '+host-phys-bits'), 48);
  assert.equal(on(undefined, 'qemu64', '+host-phys-bits'), 40);
  assert.equal(on(48, 'EPYC', '+host-phys-bits', 'host-phys-bits-limit=43'), 43);
});

test('OSXSAVE follows CR4, and the size of the save area XCR0', () => {
  assert.equal((cpuid(cpu(), 1, 0, STATE)[2] >>> 27) & 1, 0);
  assert.equal((cpuid(cpu(), 1, 0, { cr4: 1n << 18n, xcr0: 3n })[2] >>> 27) & 1, 1);
  assert.equal((cpuid(cpu('qemu64'), 1, 0, { cr4: 1n << 18n, xcr0: 3n })[2] >>> 27) & 1, 0);
  assert.deepEqual(cpuid(cpu(), 0xd, 0, STATE), [0x207, 576, 2696, 0]);
  assert.deepEqual(cpuid(cpu(), 0xd, 0, { cr4: 1n << 18n, xcr0: 7n }), [0x207, 832, 2696, 0]);
  assert.deepEqual(cpuid(cpu('max', {}, ['-avx', '-pku']), 0xd, 0, STATE), [3, 576, 576, 0]);
  assert.deepEqual(cpuid(cpu(), 0xd, 1, { cr4: 1n << 18n, xcr0: 0x207n }), [15, 840, 0, 0]);
  assert.deepEqual(cpuid(cpu(), 0xd, 9, STATE), [8, 2688, 0, 0]);
  assert.deepEqual(cpuid(cpu('qemu64'), 0xd, 0, STATE), [0, 0, 0, 0]);
});

test('APIC identifiers have whole bit fields for thread, core and socket, and every leaf agrees with them', () => {
  const topology = { threads: 2, cores: 3, sockets: 2 };
  const ids = Array.from({ length: 12 }, (_, i) => apicIdOf(topology, i));
  assert.deepEqual(ids, [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]);
  const one = cpu('max', { topology, index: 9 });
  assert.equal(cpuid(one, 1, 0, STATE)[1], (11 << 24) | (8 << 16) | 0x800);
  assert.equal((cpuid(one, 1, 0, STATE)[3] >>> 28) & 1, 1);
  for (const leaf of [0xb, 0x1f]) {
    assert.deepEqual(cpuid(one, leaf, 0, STATE), [1, 2, 0x100, 11]);
    assert.deepEqual(cpuid(one, leaf, 1, STATE), [3, 6, 0x201, 11]);
    assert.deepEqual(cpuid(one, leaf, 2, STATE), [0, 0, 2, 11]);
  }
  assert.deepEqual(cpuid(one, 0x8000001e, 0, STATE), [11, 0x101, 1, 0]);
  assert.equal(cpuid(one, 0x80000008, 0, STATE)[2], 0x3005);
  assert.equal(cpuid(one, 0x80000001, 0, STATE)[2] & 2, 2);
});

test('the cache leaves multiply to the sizes of the others', () => {
  const sizes = [0, 1, 2, 3].map((i) => {
    const [, ebx, ecx] = cpuid(cpu(), 4, i, STATE);
    return ((ebx >>> 22) + 1) * ((ebx & 0xfff) + 1) * (ecx + 1);
  });
  assert.deepEqual(sizes, [32 << 10, 32 << 10, 2 << 20, 16 << 20]);
  assert.equal(cpuid(cpu(), 0x80000005, 0, STATE)[2] >>> 24, 32);
  assert.equal(cpuid(cpu(), 0x80000006, 0, STATE)[2] >>> 16, 2048);
  assert.equal((cpuid(cpu(), 0x80000006, 0, STATE)[3] >>> 18) * 512, 16384);
  assert.deepEqual(cpuid(cpu(), 4, 4, STATE), [0, 0, 0, 0]);
});

test('the hypervisor leaves name KVM where it is offered, and vanish with the feature', () => {
  const kvm = cpu('max', { kvm: 0x1000003 });
  const [top, ebx, ecx, edx] = cpuid(kvm, 0x40000000, 0, STATE);
  assert.equal(top, 0x40000010);
  assert.equal(text(ebx, ecx, edx), 'KVMKVMKVM');
  assert.equal(cpuid(kvm, 0x40000001, 0, STATE)[0], 0x1000003);
  assert.equal(cpuid(kvm, 0x40000010, 0, STATE)[0], 2_500_000);
  assert.notEqual(cpuid(cpu(), 0x40000000, 0, STATE)[1], ebx);
  assert.deepEqual(cpuid(cpu('max', {}, ['-hypervisor']), 0x40000000, 0, STATE), [0, 0, 0, 0]);
});

test('leaves end where the user says, and the topology, the name and the hint are told as asked', () => {
  const low = cpu('max', {}, ['level=4', 'xlevel=0x80000004']);
  assert.deepEqual([cpuid(low, 0, 0, STATE)[0], cpuid(low, 0x80000000, 0, STATE)[0]], [4, 0x80000004]);
  for (const leaf of [7, 0xd, 0x80000008])
    assert.deepEqual(cpuid(low, leaf, 0, STATE), [0, 0, 0, 0], `leaf ${leaf.toString(16)}`);
  assert.notEqual(cpuid(low, 4, 0, STATE)[0], 0);
  assert.notEqual(cpuid(low, 0x40000000, 0, STATE)[0], 0);
  assert.notEqual(cpuid(cpu(), 0xb, 0, STATE)[2], 0);
  assert.deepEqual(cpuid(cpu('max', {}, ['-cpuid-0xb']), 0xb, 0, STATE), [0, 0, 0, 0]);
  assert.notEqual(cpuid(cpu(), 0x40000000, 0, STATE)[1], 0);
  assert.deepEqual(cpuid(cpu('max', {}, ['-tcg-cpuid']), 0x40000000, 0, STATE), [0, 0, 0, 0]);
  assert.equal(cpuid(cpu('max', { kvm: 1 }, ['+kvm-hint-dedicated']), 0x40000001, 0, STATE)[3], 1);
  assert.equal(cpuid(cpu('max', { kvm: 1 }), 0x40000001, 0, STATE)[3], 0);
  assert.throws(() => cpuModel('max', ['level=0x100']), /Cannot set CPU property level=0x100: accepted are 0 to 31/);
});

test('the time-stamp frequency can be computed from leaf 0x15', () => {
  const [eax, ebx, ecx] = cpuid(cpu(), 0x15, 0, STATE);
  assert.equal((ecx * ebx) / eax, 2_500_000_000);
});

test('every instruction that the largest model offers has a row', async () => {
  const wanted: Record<string, string> = {
    cx8: 'cmpxchg8b', cx16: 'cmpxchg16b', sep: 'sysenter', syscall: 'syscall', cmov: 'cmovz', clflush: 'clflush', mmx: 'paddb', fxsr: 'fxsave', sse: 'addps',
    sse2: 'addpd', pni: 'addsubps', ssse3: 'pshufb', 'sse4.1': 'pblendw', 'sse4.2': 'crc32', movbe: 'movbe', popcnt: 'popcnt', xsave: 'xsave', rdrand: 'rdrand',
    fsgsbase: 'wrgsbase', invpcid: 'invpcid', rdseed: 'rdseed', adx: 'adox', smap: 'stac', clflushopt: 'clflushopt', clwb: 'clwb', rdpid: 'rdpid',
    xsaveopt: 'xsaveopt', xsavec: 'xsavec', xsaves: 'xsaves', xgetbv1: 'xgetbv', rdtscp: 'rdtscp', 'lahf-lm': 'lahf', abm: 'lzcnt', '3dnowprefetch': 'prefetchw',
    tsc: 'rdtsc', msr: 'rdmsr', avx: 'vaddps', avx2: 'vpaddb', fma: 'vfmadd132ps', f16c: 'vcvtph2ps', bmi1: 'andn', bmi2: 'pdep', aes: 'aesenc',
    pclmulqdq: 'pclmulqdq', 'sha-ni': 'sha1msg1', gfni: 'gf2p8mulb', vaes: 'vaesenc', vpclmulqdq: 'vpclmulqdq',
  }; // biome-ignore format: pairs
  const mnemonics = new Set<string>();
  const folder = new URL('./rows/', import.meta.url);
  for (const file of readdirSync(folder)) {
    if (!file.endsWith('.ts') || /test|bench/.test(file)) continue;
    const module = (await import(new URL(file, folder).href)) as Record<string, unknown>;
    for (const [name, value] of Object.entries(module)) {
      if (name.endsWith('Rows') && Array.isArray(value)) for (const row of value as Row[]) mnemonics.add(row.asm.split(' ')[0]!);
    }
  }
  const { features } = cpuModel('max');
  const lacking = Object.entries(wanted).filter(([feature, mnemonic]) => features.has(feature) && !mnemonics.has(mnemonic));
  assert.deepEqual(lacking, []);
  for (const unknown of ['avx512f', 'mpx', 'hle']) assert.equal(features.has(unknown), false);
});

test('answers that are kept follow CR4 and XCR0', () => {
  const ask = keptCpuid(cpu());
  const states = [STATE, { cr4: 1n << 18n, xcr0: 7n }, { cr4: (1n << 18n) | (1n << 22n), xcr0: 0x207n }, STATE];
  for (const state of states)
    for (const _ of [1, 2])
      for (const leaf of [0, 1, 4, 7, 0xd, 0x1f, 0x80000001, 0x8000001d, 0x12345])
        for (const subleaf of [0, 1, 2, 255, 256, 0xffffffff])
          assert.deepEqual(ask(leaf, subleaf, state), cpuid(cpu(), leaf, subleaf, state), `${leaf} ${subleaf}`);
});

test("Hyper-V's leaves come first where they are offered, and KVM's at the next hundred, as QEMU has them", () => {
  const changes = [
    'hv-relaxed',
    '+hv-vapic',
    'hv_spinlocks=0x1fff',
    'hv-time',
    'hv-vpindex',
    '+hv-reset',
    '-hv-reset',
    'hv-frequencies',
  ];
  const both = cpu('max', { kvm: 0x0100_7efb }, changes);
  const name = (leaf: number, of = both) => text(...cpuid(of, leaf, 0, STATE).slice(1));
  assert.equal(name(0x4000_0000), 'Microsoft Hv');
  assert.deepEqual(
    [0, 1, 2, 3, 4, 5].map((n) => cpuid(both, 0x4000_0000 + n, 0, STATE)[0]),
    [0x4000_0005, 0x3123_7648, 0x3839, 0xa72, 0x20, 64],
  );
  assert.deepEqual(cpuid(both, 0x4000_0003, 0, STATE)[3], 0x108);
  assert.equal(cpuid(both, 0x4000_0004, 0, STATE)[1], 0x1fff);
  assert.equal(name(0x4000_0100), 'KVMKVMKVM');
  assert.equal(cpuid(both, 0x4000_0100, 0, STATE)[0], 0x4000_0110);
  assert.equal(cpuid(both, 0x4000_0101, 0, STATE)[0], 0x0100_7efb);
  assert.equal(name(0x4000_0000, cpu('max', {}, ['hv-time', 'hv-vendor-id=someone'])), 'someone');
  assert.equal(name(0x4000_0100, cpu('max', {}, ['hv-time'])), '');
});
