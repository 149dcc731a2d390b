// NMIs and their like beside interrupts and stores to devices.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CODE, rig } from './testing.ts';

test('an NMI that another vCPU sent before an interrupt is not overtaken by it', () => {
  // Both come while the vCPU looks.
  let sent = false;
  let acknowledged = 0;
  const pending = () => {
    sent = true;
    return true;
  };
  const acknowledge = () => {
    acknowledged++;
    return -1;
  };
  // nop; jmp $
  const { vcpu } = rig('off', '90ebfe', 'long', { pending, attention: () => sent, acknowledge });
  vcpu.set('sysFlags', 0x202n);
  assert.equal(vcpu.run(1000), 'interrupted');
  assert.equal(acknowledged, 0);
});

test('a store to a device that brings an NMI is the last instruction before it', () => {
  for (const regions of ['off', 'always'] as const) {
    let came = false;
    const mmioWrite = () => {
      came = true;
      vcpu.set('kick', 1n);
    };
    // nop; mov [0x2000000],eax; inc ebx; jmp $
    const { vcpu } = rig(regions, '9089042500000002ffc3ebfe', 'long', { mmioWrite, attention: () => came });
    for (let i = 0; i < 10 && !came; i++) assert.equal(vcpu.run(1000), 'interrupted');
    assert.deepEqual([came, vcpu.get('rbx'), vcpu.get('rip')], [true, 0n, BigInt(CODE + 8)]);
  }
});
