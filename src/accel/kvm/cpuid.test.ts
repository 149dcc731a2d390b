import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cpuModel } from '../../isa/x86/cpu-model.ts';
import { cpuid } from '../../isa/x86/cpuid.ts';
import { type CpuidEntry, guestCpuid, hostPhysicalBits, hostVendor, lackingFeatures } from './cpuid.ts';

const model = (leaf: number, subleaf: number) =>
  cpuid(
    { model: cpuModel('max'), topology: { threads: 1, cores: 2, sockets: 1 }, index: 0, tscKhz: 1_000_000, kvm: 0xffff },
    leaf, subleaf, { cr4: 0n, xcr0: 1n },
  ); // biome-ignore format: one call
const all = 0xffff_ffff;
/** A kernel that has everything but what is listed. */
const supported = (...lacks: readonly CpuidEntry[]): CpuidEntry[] => [
  ...lacks,
  ...[1, 0x80000001, 0x80000008, 0x40000001].map((leaf) => ({ leaf, values: [all, all, all, all] as const })),
  ...[7, 0xd].map((leaf) => ({ leaf, subleaf: 0, values: [all, all, all, all] as const })),
  { leaf: 0xd, subleaf: 1, values: [all, all, all, all] },
];
const at = (entries: readonly CpuidEntry[], leaf: number, subleaf = 0): readonly number[] =>
  entries.find((e) => e.leaf === leaf && (e.subleaf ?? 0) === subleaf)!.values.map((v) => v >>> 0);

test("features that the kernel lacks are taken from the guest's CPUID, and nothing is added", () => {
  const popcnt = 1 << 23;
  const table = guestCpuid(model, supported({ leaf: 1, values: [0, 0, all & ~popcnt, all] }), true);
  assert.equal(at(table, 1)[2], (model(1, 0)[2] & ~popcnt) >>> 0);
  assert.equal(at(table, 7)[1], model(7, 0)[1] >>> 0);
  assert.deepEqual(
    at(table, 0),
    [...model(0, 0)].map((v) => v >>> 0),
  );
});

test('features that the model has and the kernel lacks have names', () => {
  assert.deepEqual(lackingFeatures(model, guestCpuid(model, supported(), true)), []);
  const popcnt = 1 << 23;
  const pku = 1 << 3;
  const lacks = supported(
    { leaf: 1, values: [0, 0, all & ~popcnt, all] },
    { leaf: 7, subleaf: 0, values: [all, all, all & ~pku, all] },
  );
  assert.deepEqual(lackingFeatures(model, guestCpuid(model, lacks, true)), ['popcnt', 'pku']);
});

test('x2APIC and the deadline timer need the local APIC in the kernel', () => {
  const [x2apic, deadline] = [1 << 21, 1 << 24];
  assert.notEqual(at(guestCpuid(model, supported(), true), 1)[2]! & x2apic & model(1, 0)[2], 0);
  assert.equal(at(guestCpuid(model, supported(), false), 1)[2]! & (x2apic | deadline), 0);
});

test('leaves with subleaves have an entry for each, and the paravirtual interface is there', () => {
  const table = guestCpuid(model, supported(), true);
  assert.deepEqual(
    table.filter((e) => e.leaf === 0xd).map((e) => e.subleaf),
    // Two of the whole area, and one for each component beyond x87 and SSE: AVX and PKRU.
    [0, 1, 2, 9],
  );
  assert.equal(at(table, 0x40000001)[0], 0xffff);
});

test("the host's vendor is read from leaf 0, and unknown where that holds no text", () => {
  const leaf = (...values: [number, number, number, number]): CpuidEntry[] => [{ leaf: 0, values }];
  assert.equal(hostVendor(leaf(0xd, 0x68747541, 0x444d4163, 0x69746e65)), 'AuthenticAMD');
  assert.equal(hostVendor(leaf(0, 0, 0, 0)), undefined);
  assert.equal(hostVendor([]), undefined);
});

test("the width of the host's physical addresses is read from leaf 0x80000008", () => {
  assert.equal(hostPhysicalBits([{ leaf: 0x80000008, values: [0x3930, 0, 0, 0] }]), 48);
  assert.equal(hostPhysicalBits([{ leaf: 0x80000008, values: [0x3000, 0, 0, 0] }]), undefined);
  assert.equal(hostPhysicalBits([]), undefined);
});
