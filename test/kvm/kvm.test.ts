// The KVM accelerator on an AMD-V that QEMU emulates: six minutes on two idle cores. Skipped where QEMU or Debian's packages cannot be had.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { outerGuest, whyNot } from './outer.ts';

/** NONROOT_LONG_SECONDS gives a busy machine more. */
const SECONDS = Number(process.env['NONROOT_LONG_SECONDS'] ?? 560);

test('machines on a real KVM', { timeout: (SECONDS + 30) * 1000, skip: await whyNot() }, async (t) => {
  const lines: string[] = [];
  const script = 'node src/host/node/kvm.test.js; node test/kvm/inner.js\n';
  await outerGuest(script, (line) => lines.push(line), { seconds: SECONDS });
  const all = lines.join('\n');
  // The outer guest's own kernel, on AMD-V that QEMU 7.2 emulates, ends now and then (one run of five). That says nothing of this project.
  const died = lines.find((line) => /^\[ *\d+\.\d+\] (Kernel panic|BUG: )/.test(line));
  if (died !== undefined && !lines.some((line) => /^(not ok|✖) /.test(line))) {
    t.skip(`the outer guest's kernel, which QEMU emulates, ended: ${died}`);
    return;
  }
  assert.match(all, /OUTER-END/, `the outer guest did not come to its end:\n${all}`);
  const results = lines.filter((line) => /^(not )?ok /.test(line));
  const units = lines.filter((line) => /^[✔✖] /.test(line));
  assert.ok(results.length >= 5 && units.length >= 5, `too few results:\n${all}`);
  for (const line of [...units, ...results]) {
    await t.test(line.replace(/^(✔|✖|not ok|ok) /, '').split(/ \(|: /)[0]!, () => {
      assert.match(line, /^(✔|ok) /, all);
    });
  }
});
