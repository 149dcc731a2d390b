// The KVM accelerator on an AMD-V that QEMU emulates: eight to nine minutes on two idle cores. Skipped where QEMU or Debian's packages cannot be had.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { outerGuest, whyNot } from './outer.ts';

/** NONROOT_LONG_SECONDS gives a busy machine more. */
const SECONDS = Number(process.env['NONROOT_LONG_SECONDS'] ?? 580);
/** With less time than this, another outer guest is not worth its start. */
const LEAST_SECONDS = 450;

test('machines on a real KVM', { timeout: (SECONDS + 30) * 1000, skip: await whyNot() }, async (t) => {
  const script = 'node src/host/node/kvm.test.js; node test/kvm/inner.js; node test/kvm/inner-processes.js\n';
  const end = Date.now() + SECONDS * 1000;
  let lines: string[];
  let why: string | undefined;
  for (;;) {
    lines = [];
    why = await outerGuest(script, (line) => lines.push(line), { seconds: (end - Date.now()) / 1000 });
    // The outer guest's own kernel ends, or stands still, now and then (outer.ts). That says nothing of this project: another one is asked.
    if (!why?.startsWith('its kernel') || lines.some((line) => /^(not ok|✖) /.test(line))) break;
    t.diagnostic(`the outer guest, which QEMU emulates: ${why}`);
    if (end - Date.now() < LEAST_SECONDS * 1000) {
      t.skip(`the outer guest, which QEMU emulates: ${why}`);
      return;
    }
  }
  const all = lines.join('\n');
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
