// The KVM accelerator on an AMD-V that QEMU emulates: six minutes on two idle cores. Skipped where QEMU or Debian's packages cannot be had.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { outerGuest, whyNot } from './outer.ts';

/** NONROOT_LONG_SECONDS gives a busy machine more. */
const SECONDS = Number(process.env['NONROOT_LONG_SECONDS'] ?? 560);

test('machines on a real KVM', { timeout: (SECONDS + 30) * 1000, skip: await whyNot() }, async (t) => {
  const lines: string[] = [];
  const script = 'node src/host/node/kvm.test.js; node test/kvm/inner.js\n';
  const why = await outerGuest(script, (line) => lines.push(line), { seconds: SECONDS });
  const all = lines.join('\n');
  // The outer guest's own kernel ends, or stands still, now and then (outer.ts). That says nothing of this project.
  if (why?.startsWith('its kernel') && !lines.some((line) => /^(not ok|✖) /.test(line))) {
    t.skip(`the outer guest, which QEMU emulates: ${why}`);
    return;
  }
  assert.equal(why, undefined, `the outer guest: ${why}:\n${all}`);
  const results = lines.filter((line) => /^(not )?ok /.test(line));
  const units = lines.filter((line) => /^[✔✖] /.test(line));
  assert.ok(results.length >= 5 && units.length >= 5, `too few results:\n${all}`);
  for (const line of [...units, ...results]) {
    await t.test(line.replace(/^(✔|✖|not ok|ok) /, '').split(/ \(|: /)[0]!, () => {
      assert.match(line, /^(✔|ok) /, all);
    });
  }
});
