// CPU models and features over a small map of our own: what libvirt 9.0 answered for the same shapes is in test/virsh/golden.json.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseXml } from '../xml.ts';
import { baselineCpu, compareCpu, decodeCpu, expandCpu, formatCpu, parseCpu } from './cpu.ts';
import { mapOfEmulator, readMap } from './map.ts';

const files: Readonly<Record<string, string>> = {
  'index.xml':
    "<cpus><arch name='x86'><include filename='all.xml'/></arch><arch name='arm'><include filename='none.xml'/></arch></cpus>",
  'all.xml': `<cpus><vendor name='Acme' string='AcmeAcmeAcme'/><vendor name='Bolt' string='BoltBoltBolt'/>
    <feature name='fpu'/><feature name='mmx'/><feature name='sse4.1'><alias name='sse4-1' source='qemu'/></feature>
    <feature name='osxsave'/><feature name='clock' migratable='no'/><feature name='tsc-deadline'/><feature name='monitor'/>
    <model name='old'><feature name='fpu'/></model>
    <model name='acme1'><signature family='6' model='1'/><vendor name='Acme'/><feature name='fpu'/><feature name='mmx'/></model>
    <model name='acme2'><model name='acme1'/><signature family='6' model='2'/><feature name='sse4.1'/><feature name='monitor' removed='yes'/></model>
    <model name='bolt1'><decode host='off' guest='on'/><vendor name='Bolt'/><feature name='fpu'/><feature name='mmx'/></model></cpus>`,
};
const map = await readMap('x86', (file) => Promise.resolve(parseXml(files[file]!, 'cpu_map')));
const host = { vendor: 'Acme', features: new Set(['fpu', 'mmx', 'osxsave', 'clock']) };
const compare = (text: string) => compareCpu(map, host, parseCpu(text), ['x86_64']);
const why = (text: string): string => {
  const found = compare(text);
  return found.result === 'incompatible' ? found.why : found.result;
};

test('features are found by the names of QEMU and of Linux', () => {
  assert.equal(map.featureName('sse4-1'), 'sse4.1');
  assert.equal(map.featureName('sse4_1'), 'sse4.1');
  assert.equal(map.featureName('tsc_deadline_timer'), 'tsc-deadline');
  assert.equal(map.featureName('nonstop'), undefined);
});

test('a CPU is compared with a host by features, vendor and architecture', () => {
  assert.equal(why('<cpu><model>acme1</model></cpu>'), 'superset');
  const all = "<feature name='osxsave'/><feature name='clock' policy='optional'/>";
  assert.equal(why(`<cpu><model>acme1</model>${all}</cpu>`), 'identical');
  assert.equal(why('<cpu><model>acme2</model></cpu>'), 'Host CPU does not provide required features: sse4.1');
  assert.equal(
    why('<cpu><model>old</model><vendor>Bolt</vendor></cpu>'),
    'host CPU vendor does not match required CPU vendor Bolt',
  );
  assert.equal(why('<cpu><arch>s390x</arch><model>old</model></cpu>'), 'CPU arch s390x does not match host arch');
  assert.equal(
    why("<cpu><model>old</model><feature policy='forbid' name='mmx'/></cpu>"),
    'Host CPU provides forbidden features: mmx',
  );
  assert.match(
    why("<cpu match='strict'><model>old</model></cpu>"),
    /strictly match guest CPU: Extra features: mmx, osxsave, clock$/,
  );
  assert.equal(why("<cpu mode='host-model'/>"), 'superset');
  assert.throws(() => compare('<cpu><model>new</model></cpu>'), /Unknown CPU model new/);
  assert.throws(() => compare("<cpu><model>old</model><feature name='x'/></cpu>"), /Unknown CPU feature x/);
  assert.throws(() => compare('<cpu><arch>x86_64</arch></cpu>'), /Missing CPU model name/);
});

test('a host is named by a model of which it has everything, a guest by the nearest', () => {
  const decode = (features: string[], more: object = {}) =>
    decodeCpu(map, { vendor: 'Acme', features: new Set(features) }, { kind: 'guest', ...more });
  assert.deepEqual(decodeCpu(map, host, { kind: 'host' }), {
    model: 'acme1',
    vendor: 'Acme',
    features: ['osxsave', 'clock'].map((name) => ({ policy: 'require', name })),
  });
  assert.deepEqual(decode(['fpu', 'mmx', 'sse4.1', 'osxsave'])?.features, [{ policy: 'disable', name: 'monitor' }]);
  assert.equal(decode(['fpu', 'mmx', 'sse4.1'])?.model, 'acme2');
  assert.equal(decode(['fpu', 'mmx', 'sse4.1'], { models: [{ name: 'old', blockers: [] }] })?.model, 'old');
  assert.deepEqual(decode(['fpu', 'mmx', 'clock'], { migratable: true })?.features, []);
  const blocked = decode(['fpu', 'mmx'], { models: [{ name: 'acme1', blockers: ['mmx'] }] });
  assert.deepEqual(blocked?.features, [{ policy: 'disable', name: 'mmx' }]);
  const signed = decodeCpu(map, { signature: { family: 6, model: 2 }, features: new Set(['fpu', 'mmx']) }, { kind: 'guest' });
  assert.equal(signed?.model, 'acme2');
});

test('a baseline is what all have, of a vendor only when they agree', () => {
  const cpus = (...models: string[]) =>
    models.map((one) =>
      parseCpu(
        `<cpu><arch>x86_64</arch><model>${one}</model>${one.startsWith('acme') ? '<vendor>Acme</vendor>' : ''}</cpu>`,
        'host',
      ),
    );
  const of = (...models: string[]) => baselineCpu(map, cpus(...models), { migratable: false });
  assert.equal(
    formatCpu(of('acme2', 'acme1').cpu, 'allow'),
    "<cpu mode='custom' match='exact'>\n  <model fallback='allow'>acme1</model>\n  <vendor>Acme</vendor>\n</cpu>\n",
  );
  assert.deepEqual(of('acme2', 'old'), { cpu: { model: 'old', features: [] }, fixed: false });
  assert.equal(of('acme1').fixed, true);
  assert.throws(() => of('acme1', 'bolt1'), /CPU vendors do not match/);
  const expanded = expandCpu(map, of('acme2').cpu, () => false).features;
  assert.deepEqual(
    expanded.map((one) => `${one.policy} ${one.name}`),
    ['require fpu', 'require mmx', 'disable monitor', 'require sse4.1'],
  );
});

test('without libvirt, models are what the emulator says of them', () => {
  const made = mapOfEmulator(
    {
      EPYC: { vendor: 'AuthenticAMD', family: 23, model: 1, features: ['fpu', 'sse4a', 'hypervisor'] },
      qemu64: { vendor: 'AuthenticAMD', family: 15, model: 107, features: ['fpu', 'hypervisor'] },
    },
    ['fpu', 'sse4a', 'hypervisor'],
  );
  assert.deepEqual([...made.models.keys()], ['qemu64', 'EPYC']);
  const data = { vendor: 'AMD', features: new Set(['fpu', 'hypervisor']) };
  assert.deepEqual(decodeCpu(made, data, { kind: 'guest' }), {
    model: 'qemu64',
    vendor: 'AMD',
    features: [{ policy: 'require', name: 'hypervisor' }],
  });
  assert.equal(made.models.get('EPYC')?.vendor, 'AMD');
  assert.equal(made.models.get('qemu64')?.vendor, undefined);
});
