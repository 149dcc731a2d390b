// What is written after -cpu, as QEMU and libvirt write it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { kvmAllFeatures } from '../devices/kvm-pv.ts';
import { parseCpu, tscOf } from './options.ts';

test('single features of the paravirtual interface are taken away and given by their names in QEMU', () => {
  assert.deepEqual(parseCpu('max').paravirtual, kvmAllFeatures);
  const without = parseCpu('max,kvmclock=off,kvm_pv_eoi=off,-kvm-pv-unhalt').paravirtual;
  assert.deepEqual(
    kvmAllFeatures.filter((f) => !without.includes(f)),
    ['clocksource', 'clocksource2', 'pvEoi', 'pvUnhalt'],
  );
  assert.deepEqual(parseCpu('max,kvmclock=off,kvmclock=on').paravirtual, kvmAllFeatures);
  assert.deepEqual(parseCpu('max,kvm=off,kvm-pv-eoi=on').paravirtual, []);
});

test('the frequency of the time-stamp counter is in hertz, and what a host cannot give is refused', () => {
  assert.equal(parseCpu('max').tscKhz, undefined);
  assert.equal(parseCpu('qemu64,tsc-frequency=1500000000').tscKhz, 1_500_000);
  assert.equal(parseCpu('qemu64,tsc-frequency=2.4G').tscKhz, 2_400_000);
  for (const bad of ['', '0', '5', 'fast', '1e9', '9999999999999'])
    assert.throws(
      () => parseCpu(`max,tsc-frequency=${bad}`),
      /^Error: Cannot set CPU property tsc-frequency=.*: accepted are hertz/,
    );
  assert.deepEqual(tscOf(undefined, undefined), {});
  assert.deepEqual(tscOf(1000, 1000), { tscKhz: 1000 });
  assert.deepEqual(tscOf(undefined, 1000), { tscKhz: 1000 });
  assert.throws(() => tscOf(2000, 1000), /^Error: Cannot set CPU property tsc-frequency=2000000: .* accepted is 1000000$/);
});

test('what libvirt writes for a Windows guest is taken, and what of it is not implemented is named', () => {
  const { missing, cpuModel } = parseCpu(
    'qemu64,hv-time=on,hv-relaxed=on,hv_vapic,hv-spinlocks=0x1fff,hv-vendor-id=someone,hv-synic=off,hv-crash',
  );
  assert.equal(cpuModel.split(',')[0], 'qemu64');
  assert.deepEqual(
    missing.filter((name) => name.startsWith('hv-')),
    ['hv-crash'],
  );
  assert.throws(() => parseCpu('max,hv-stimer=on,enforce'), /hv-stimer is not implemented/);
  assert.throws(() => parseCpu('max,hv-spinlocks=7'), /hv-spinlocks=7: accepted are 0xfff to 0xffffffff/);
  assert.throws(() => parseCpu('max,hv-nonsense=on'), /Cannot change CPU feature "\+hv-nonsense"/);
});
