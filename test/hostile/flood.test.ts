// Guests that write without end where the host writes down what they say: logs, consoles that nobody reads. The host's log stays small, its
// memory flat, and its monitor answers.

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { hasLandlock } from '../../src/host/node/confine.ts';
import { emulator, OURS } from '../emulator/process.ts';

const SECONDS = 2;

/** A ROM of 64 KiB whose code after reset is `code`, with relative jumps only. */
function rom(folder: string, code: readonly number[]): string {
  const bytes = Buffer.alloc(65536, 0xf4);
  // The reset vector has 16 bytes: a jump to the start of the ROM, where there is space.
  bytes.set([0xe9, 0x0d, 0x00], 0xfff0);
  bytes.set(code, 0);
  const path = join(folder, 'rom');
  writeFileSync(path, bytes);
  return path;
}

/** Lets the guest run, and gives the log's size, and the growth of the process's memory in bytes after the first second. */
async function flood(t: TestContext, code: readonly number[], args: readonly string[]): Promise<{ log: number; growth: number }> {
  const folder = mkdtempSync(join(tmpdir(), 'nonroot-flood-'));
  const log = join(folder, 'log');
  const serial = join(folder, 'serial');
  const { qmp, child } = await emulator(t, OURS, [
    ...['-M', 'pc', '-m', '16', '-display', 'none', '-nodefaults', '-bios', rom(folder, code), '-D', log],
    ...['-serial', `unix:${serial},server=on,wait=off`, ...args],
  ]);
  // After the emulator has been told to end: it may still write.
  t.after(() => rmSync(folder, { recursive: true, force: true, maxRetries: 20 }));
  // Somebody who listens and never reads.
  const idle = connect(serial);
  t.after(() => idle.destroy());
  idle.pause();
  const resident = (): number => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) * 1024;
  await sleep(1000);
  const before = resident();
  for (let i = 0; i < SECONDS; i++) {
    await sleep(1000);
    const asked = performance.now();
    const status = (await qmp.execute('query-status')) as { status: string };
    assert.equal(status.status, 'running');
    assert.ok(performance.now() - asked < 5000, 'the monitor takes longer than 5 s');
  }
  return { log: statSync(log).size, growth: resident() - before };
}

const skip = process.platform === 'linux' ? false : 'memory is read from /proc';
/** mov dx,0x3f8; mov al,'A'; l: out dx,al; jmp l */
const CONSOLE = [0xba, 0xf8, 0x03, 0xb0, 0x41, 0xee, 0xeb, 0xfd] as const;
const LOOP: Readonly<Record<string, { code: readonly number[]; args: readonly string[] }>> = {
  // mov dx,0x402; l: mov al,'A'; out dx,al; mov al,10; out dx,al; jmp l
  "its firmware's messages": {
    code: [0xba, 0x02, 0x04, 0xb0, 0x41, 0xee, 0xb0, 0x0a, 0xee, 0xeb, 0xf8],
    args: ['-d', 'firmware'],
  },
  // mov dx,0x999; l: in al,dx; out dx,al; jmp l
  'ports where nothing is': { code: [0xba, 0x99, 0x09, 0xec, 0xee, 0xeb, 0xfc], args: ['-d', 'bus,guest_errors'] },
  'a console that nobody reads': { code: CONSOLE, args: ['-d', 'guest_errors'] },
};
for (const [what, { code, args }] of Object.entries(LOOP)) {
  test(`a guest that floods ${what} fills neither log nor memory, and the monitor answers`, {
    skip,
    timeout: 60_000,
  }, async (t) => {
    const { log, growth } = await flood(t, code, args);
    t.diagnostic(`log ${log} bytes, memory ${growth >> 10} KiB more in ${SECONDS} s`);
    assert.ok(log < 2 << 20, `the log has ${log} bytes`);
    assert.ok(growth < 96 << 20, `${growth} bytes more are resident`);
  });
}

for (const [how, sandbox] of [
  ['', []],
  [', confined to its files', ['-sandbox', 'on,spawn=deny,files=deny']],
] as const) {
  test(`a console in a file and its log take the limit and no more${how}`, {
    skip: skip || (sandbox.length > 0 && !hasLandlock() && 'this kernel has no Landlock'),
    timeout: 60_000,
  }, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'nonroot-flood-'));
    const at = (name: string): string => join(folder, name);
    const LIMIT = 16384;
    await emulator(t, OURS, [
      ...['-M', 'pc', '-m', '16', '-display', 'none', '-nodefaults', '-bios', rom(folder, CONSOLE)],
      ...['-chardev', `file,id=c,path=${at('console')},logfile=${at('log')},max-size=16K,backups=2`, '-serial', 'chardev:c'],
      ...sandbox,
    ]);
    // After the emulator has been told to end: it may still write.
    t.after(() => rmSync(folder, { recursive: true, force: true, maxRetries: 20 }));
    const names = ['console', 'log'].flatMap((name) => [name, `${name}.0`, `${name}.1`]);
    const size = (name: string): number => statSync(at(name), { throwIfNoEntry: false })?.size ?? 0;
    const deadline = performance.now() + 30_000;
    let rolls = 0;
    for (let last = 0; rolls < 5 || size('console.1') < LIMIT || size('log.1') < LIMIT; ) {
      assert.ok(performance.now() < deadline, names.map((name) => `${name} ${size(name)}`).join(', '));
      for (const name of names) assert.ok(size(name) <= LIMIT, `${name} has ${size(name)} bytes`);
      const now = size('console');
      if (now < last) rolls++;
      last = now;
      await sleep(5);
    }
    assert.deepEqual(
      readdirSync(folder)
        .filter((name) => /^(console|log)/.test(name))
        .sort(),
      names.sort(),
    );
  });
}
