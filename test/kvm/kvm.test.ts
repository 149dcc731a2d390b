// The KVM accelerator on an AMD-V that QEMU emulates: eight to nine minutes on two idle cores. Skipped where QEMU or Debian's packages cannot be had.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { outerGuest, whyNot } from './outer.ts';

/** NONROOT_LONG_SECONDS gives a busy machine more. */
const SECONDS = Number(process.env['NONROOT_LONG_SECONDS'] ?? 580);
/** With less time than this, another outer guest is not worth its start. */
const LEAST_SECONDS = 450;
/** Three times as long as the longest check takes on idle cores; a guest in it that says nothing for so long stands still. */
const SILENT_SECONDS = SECONDS / 4;

/** Names of the checks that a run's lines tell of, with what was said. */
const checksOf = (lines: readonly string[]): Map<string, string> =>
  new Map(
    lines
      .filter((line) => /^([✔✖]|(not )?ok) /.test(line))
      .map((line) => [line.replace(/^(✔|✖|not ok|ok) /, '').split(/ \(|: /)[0]!, line]),
  );
const FAILED = /^(not ok|✖) /;

/**
 * A check that fails, or is not over, is asked for once more, in another outer guest: the emulated processor gives a guest the registers of the kernel around it now and then
 * (seen in an inner guest's state: RIP in the outer kernel's kvm_amd, RAX and CR3 behind the inner guest's memory), which ends neither kernel each time. What
 * fails twice fails.
 */
test('machines on a real KVM', { timeout: (2 * SECONDS + 30) * 1000, skip: await whyNot() }, async (t) => {
  const script = 'node src/host/node/kvm.test.js; node test/kvm/inner.js; node test/kvm/inner-processes.js\n';
  let end = Date.now() + SECONDS * 1000;
  let lines: string[];
  let why: string | undefined;
  let before: ReadonlyMap<string, string> | undefined;
  for (;;) {
    lines = [];
    why = await outerGuest(script, (line) => lines.push(line), { seconds: (end - Date.now()) / 1000, silent: SILENT_SECONDS });
    const failed = lines.filter((line) => FAILED.test(line));
    const silent = why?.startsWith('it said nothing');
    if ((failed.length > 0 || silent) && !before) {
      before = checksOf(lines);
      end = Date.now() + SECONDS * 1000;
      for (const line of failed) t.diagnostic(`asked for once more: ${line}`);
      if (silent) t.diagnostic(`asked for once more: what comes behind "${lines.at(-1)}" (${why})`);
      continue;
    }
    // The outer guest's own kernel ends, or stands still, now and then (outer.ts). That says nothing of this project: another one is asked.
    if (!why?.startsWith('its kernel') || failed.length > 0) break;
    t.diagnostic(`the outer guest, which QEMU emulates: ${why}`);
    if (end - Date.now() < LEAST_SECONDS * 1000) {
      t.skip(`the outer guest, which QEMU emulates: ${why}`);
      return;
    }
  }
  const all = lines.join('\n');
  assert.equal(why, undefined, `the outer guest: ${why}:\n${all}`);
  const checks = checksOf(lines);
  const units = [...checks.values()].filter((line) => /^[✔✖]/.test(line)).length;
  assert.ok(units >= 5 && checks.size - units >= 5, `too few results:\n${all}`);
  for (const [name, line] of checks) {
    const first = before?.get(name);
    await t.test(name, () => {
      assert.ok(!FAILED.test(line) || (first !== undefined && !FAILED.test(first)), all);
    });
  }
});
