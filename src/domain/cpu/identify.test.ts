// A processor's answers to CPUID through a small map of our own.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseXml } from '../xml.ts';
import { decodeCpu } from './cpu.ts';
import { type CpuSource, identifyCpu } from './identify.ts';
import { readMap } from './map.ts';

const files: Readonly<Record<string, string>> = {
  'index.xml': "<cpus><arch name='x86'><include filename='all.xml'/></arch></cpus>",
  'all.xml': `<cpus><vendor name='Intel' string='GenuineIntel'/>
    <feature name='fpu'><cpuid eax_in='0x01' edx='0x00000001'/></feature>
    <feature name='hypervisor'><cpuid eax_in='0x01' ecx='0x80000000'/></feature>
    <feature name='rtm'><cpuid eax_in='0x07' ecx_in='0x00' ebx='0x00000800'/></feature>
    <feature name='arch-capabilities'><cpuid eax_in='0x07' ecx_in='0x00' edx='0x20000000'/></feature>
    <feature name='later'><cpuid eax_in='0x07' ecx_in='0x01' eax='0x00000010'/></feature>
    <feature name='both'><cpuid eax_in='0x0d' ecx_in='0x01' eax='0x00000003'/></feature>
    <feature name='nx'><cpuid eax_in='0x80000001' edx='0x00100000'/></feature>
    <feature name='mds-no'><msr index='0x10a' edx='0x00000000' eax='0x00000020'/></feature>
    <feature name='high'><msr index='0x10a' edx='0x00000001' eax='0x00000000'/></feature>
    <feature name='nameless'/>
    <model name='first'><signature family='6' model='85' stepping='0-4'/><feature name='fpu'/></model>
    <model name='second'><signature family='6' model='85' stepping='5-7'/><feature name='fpu'/></model></cpus>`,
};
const map = await readMap('x86', (file) => Promise.resolve(parseXml(files[file]!, 'cpu_map')));

type Answer = readonly [eax: number, ebx: number, ecx: number, edx: number];
const intel: Answer = [13, 0x756e_6547, 0x6c65_746e, 0x4965_6e69];

/** Leaves by `leaf.subleaf` in hexadecimal; others answer with everything, as leaves that are not there may. */
function processor(leaves: Readonly<Record<string, Answer>>, msrs: Readonly<Record<number, bigint>> = {}): CpuSource {
  return {
    cpuid(leaf, subleaf = 0) {
      const [eax, ebx, ecx, edx] =
        leaves[`${leaf.toString(16)}.${subleaf}`] ??
        ({ '0.0': intel, '80000000.0': [0x8000_0001, 0, 0, 0] } as Record<string, Answer>)[`${leaf.toString(16)}.${subleaf}`] ??
        Array<number>(4).fill(0xffff_ffff);
      return { eax: eax!, ebx: ebx!, ecx: ecx!, edx: edx! };
    },
    msr: (index) => msrs[index],
  };
}
const nothing: Answer = [0, 0, 0, 0];
const model = (eax: number): Answer => [eax, 0, 0x8000_0000, 1];
const featuresOf = (source: CpuSource): string[] => [...identifyCpu(map, source).features].sort();

test('vendor, family, model, stepping and features are what CPUID says', () => {
  const source = processor({
    '1.0': model(0x0005_0654),
    '7.0': nothing,
    'd.1': [1, 0, 0, 0],
    '80000001.0': [0, 0, 0, 1 << 20],
  });
  const { vendor, signature } = identifyCpu(map, source);
  assert.equal(vendor, 'Intel');
  assert.deepEqual(signature, { family: 6, model: 85, stepping: 4 });
  assert.deepEqual(featuresOf(source), ['fpu', 'hypervisor', 'nx']);
});

test('all bits of a feature have to be there', () => {
  const has = (eax: number): boolean =>
    identifyCpu(map, processor({ '1.0': model(0), '7.0': nothing, 'd.1': [eax, 0, 0, 0] })).features.has('both');
  assert.deepEqual([has(1), has(2), has(3), has(7)], [false, false, true, true]);
});

test('leaves and subleaves beyond the last are not asked', () => {
  const old = processor({ '0.0': [1, ...(intel.slice(1) as [number, number, number])], '1.0': model(0), '80000000.0': nothing });
  assert.deepEqual(featuresOf(old), ['fpu', 'hypervisor']);
  const rest = { '1.0': model(0), 'd.1': nothing, '80000001.0': nothing };
  assert.deepEqual(featuresOf(processor({ ...rest, '7.0': nothing })), ['fpu', 'hypervisor']);
  assert.deepEqual(featuresOf(processor({ ...rest, '7.0': [1, 0, 0, 0] })), ['fpu', 'hypervisor', 'later']);
});

test('MSRs are read where CPUID says that they are there', () => {
  const rest = { '1.0': model(0), 'd.1': nothing, '80000001.0': nothing };
  const told = { ...rest, '7.0': [0, 0, 0, 0x2000_0000] as const };
  const value = { 266: 0x1_0000_0020n };
  assert.deepEqual(featuresOf(processor({ ...rest, '7.0': nothing }, value)), ['fpu', 'hypervisor']);
  assert.deepEqual(featuresOf(processor(told, value)), ['arch-capabilities', 'fpu', 'high', 'hypervisor', 'mds-no']);
  assert.deepEqual(featuresOf(processor(told)), ['arch-capabilities', 'fpu', 'hypervisor']);
});

test("Haswell's transactions do not count", () => {
  const has = (eax: number): boolean =>
    identifyCpu(map, processor({ '1.0': model(eax), '7.0': [0, 0x800, 0, 0] })).features.has('rtm');
  assert.equal(has(0x0003_06c3), false, 'model 60');
  assert.equal(has(0x0003_06f2), false, 'model 63, stepping 2');
  assert.equal(has(0x0003_06f4), true, 'model 63, stepping 4');
  assert.equal(has(0x0005_0654), true, 'model 85');
});

test('models of one family and model differ by their steppings', () => {
  const named = (eax: number): string | undefined =>
    decodeCpu(map, identifyCpu(map, processor({ '1.0': model(eax), '7.0': nothing })), { kind: 'host' })?.model;
  assert.equal(named(0x0005_0654), 'first');
  assert.equal(named(0x0005_0657), 'second');
});
