import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AUTO, chooseAccel, type KvmFinding } from './accel.ts';

const good: KvmFinding = {
  usable: true,
  why: undefined,
  tscKhz: 2_500_000,
  tscControl: true,
  vendor: 'GenuineIntel',
  physicalBits: 46,
};
const slow: KvmFinding = { ...good, why: 'this /dev/kvm is slow', tscControl: false };
const absent: KvmFinding = { usable: false, why: 'Cannot open /dev/kvm: permission denied', tscKhz: 0, tscControl: false };

test('auto takes KVM where it is good, and the translator with the reason where it is not', () => {
  assert.deepEqual(
    chooseAccel(AUTO, () => good),
    { accel: 'kvm', hostVendor: 'GenuineIntel', hostPhysicalBits: 46 },
  );
  assert.deepEqual(
    chooseAccel(AUTO, () => slow),
    { accel: 'dbt', note: 'this /dev/kvm is slow' },
  );
  assert.deepEqual(
    chooseAccel(AUTO, () => absent),
    { accel: 'dbt', note: 'Cannot open /dev/kvm: permission denied' },
  );
});

test('KVM that is asked for alone is used though it is slow, with its own frequency, and refused where it is not there', () => {
  assert.deepEqual(
    chooseAccel(['kvm'], () => slow),
    { accel: 'kvm', tscKhz: 2_500_000, hostVendor: 'GenuineIntel', hostPhysicalBits: 46 },
  );
  assert.throws(() => chooseAccel(['kvm'], () => absent), /permission denied/);
});

test('the translator comes first where it is named first, and KVM is not looked at', () => {
  assert.deepEqual(
    chooseAccel(['tcg', 'kvm'], () => assert.fail('probed')),
    { accel: 'dbt' },
  );
  assert.throws(() => chooseAccel(['hvf'], () => good), /accepted are dbt, tcg, kvm/);
});
