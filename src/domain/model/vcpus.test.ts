// Single vCPUs: completion and errors as libvirtd 9.0 gives them, order of those that are added, lists of numbers.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addedVcpus, completeVcpus, parseVcpuSet, setVcpuStates, type VcpuState, vcpuStates } from './vcpus.ts';

const domain = (count: number, ...vcpu: Partial<VcpuState>[]) =>
  ({ vcpu: { count }, vcpus: { vcpu } }) as Parameters<typeof vcpuStates>[0];

test('without a list the first ones are on and of the command line', () => {
  const states = vcpuStates({ vcpu: { count: 3, current: 2 } });
  assert.deepEqual(
    states.map((one) => `${one.enabled} ${one.hotpluggable}`),
    ['yes no', 'yes no', 'no yes'],
  );
});

test('a list is completed, and says how many are on', () => {
  const one = domain(
    4,
    { id: 0, enabled: 'yes' },
    { id: 3, enabled: 'yes', hotpluggable: 'yes', order: 3 },
    { id: 1, enabled: 'yes', hotpluggable: 'yes', order: 9 },
  );
  completeVcpus(one);
  assert.equal(one.vcpu.current, 3);
  assert.equal(one.vcpus?.vcpu.length, 4);
  assert.deepEqual(
    addedVcpus(one).map(({ id }) => id),
    [3, 1],
    'in their order, not by number',
  );
  setVcpuStates(
    one,
    vcpuStates(one).map((state) => ({ ...state, enabled: 'yes' })),
  );
  assert.equal('current' in one.vcpu, false, 'all of them is no number');
});

test('what cannot be is refused', () => {
  assert.throws(() => completeVcpus(domain(2, { id: 0, enabled: 'no' })), /vcpu 0 can't be offline/);
  assert.throws(() => completeVcpus(domain(2, { id: 0, enabled: 'yes', hotpluggable: 'yes' })), /vcpu0 can't be hotpluggable/);
  assert.throws(() => completeVcpus(domain(2, { id: 9 })), /vcpu id '9' is out of range of maximum vcpu count/);
});

test('lists of numbers', () => {
  assert.deepEqual(parseVcpuSet('0-3,^2,7'), [0, 1, 3, 7]);
  for (const text of ['', 'x', '3-1', '1,', '-1', '1-']) assert.equal(parseVcpuSet(text), undefined, text);
});
