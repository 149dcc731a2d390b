// What is said where KVM cannot be had: one line each, with what to do.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { probeKvm } from '../../accel/kvm/probe.ts';
import { kvmHost } from './kvm-native.ts';
import { withoutKvm } from './kvm-testing.ts';

const linux = process.platform === 'linux' ? false : 'the lines are those of Linux';

/** What the probe says in a process of its own, after `before` was run there. */
function said(before: string): string {
  const url = (file: string): string => JSON.stringify(new URL(file, import.meta.url).href);
  const script = `${before}
    const { kvmHost } = await import(${url('./kvm-native.ts')});
    const { probeKvm } = await import(${url('../../accel/kvm/probe.ts')});
    try {
      const host = kvmHost();
      globalThis.after?.();
      console.log(probeKvm(host).why);
    } catch (error) {
      console.log(error.message);
    }`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  assert.equal(stderr, '');
  return stdout.trimEnd();
}

test('without the device, or with another one in its place, the probe says so in one line', { skip: linux }, () => {
  assert.deepEqual(probeKvm(kvmHost('/nonexistent/kvm')), {
    usable: false,
    why: 'Cannot open /nonexistent/kvm: there is no such device; load the module kvm_intel or kvm_amd, or use -accel dbt',
    tscKhz: 0,
    tscControl: false,
  });
  assert.equal(
    probeKvm(kvmHost('/dev/null')).why,
    'Cannot use KVM: the device does not answer as /dev/kvm does (error 25); use -accel dbt',
  );
});

test('without koffi for this platform the line names it', { skip: linux }, () => {
  const line = said(`
    import Module from 'node:module';
    const load = Module._resolveFilename;
    Module._resolveFilename = function (name, ...rest) {
      if (name.includes('koffi')) throw new Error('Cannot find the native Koffi module\\nand more');
      return load.call(this, name, ...rest);
    };`);
  assert.equal(
    line,
    `Cannot use KVM: the package koffi has no binary for ${process.platform} ${process.arch} (Cannot find the native Koffi module); use -accel dbt`,
  );
});

let closed: string | false = linux;
if (!closed && process.getuid?.() !== 0) closed = 'only root can become a user without permission';
closed ||= withoutKvm();
test('without permission the line says which group has it', { skip: closed }, () => {
  const line = said('globalThis.after = () => { process.setgroups([65534]); process.setgid(65534); process.setuid(65534); };');
  // Where everybody may use the device the probe goes on.
  if (!/^this \/dev\/kvm|^undefined/.test(line))
    assert.equal(line, 'Cannot open /dev/kvm: permission denied; add your user to the group kvm, or use -accel dbt');
});
