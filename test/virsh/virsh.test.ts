// The scenario of virsh operations against our daemon; the outcomes of real libvirtd 9.0 with QEMU 7.2 are in golden.json.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { missing, realEmulator, TestDaemon } from './daemon-process.ts';
import { operations } from './operations.ts';
import { difference, type Outcomes, runScenario } from './scenario.ts';

const skip = missing('virsh', 'qemu-img', realEmulator);
const golden = JSON.parse(readFileSync(new URL('golden.json', import.meta.url), 'utf8')) as Outcomes;

test('the scenario has an outcome of libvirtd for each operation', () => {
  assert.ok(operations.length >= 120);
  assert.deepEqual(
    operations.map((one) => one.name).filter((name) => golden[name] === undefined),
    [],
  );
});

test('virsh gets from nonrootd what it gets from libvirtd', { skip, timeout: 300_000 }, async () => {
  const daemon = new TestDaemon();
  try {
    await daemon.start();
    const outcomes = await runScenario({ uri: daemon.uri, emulator: realEmulator, directory: join(daemon.directory, 'files') });
    const wrong = operations.flatMap((operation) => {
      const text = difference(operation, outcomes[operation.name]!, golden[operation.name]!);
      return text === undefined ? [] : [`${operation.name}: ${text}`];
    });
    assert.deepEqual(wrong, [], daemon.said);
  } finally {
    await daemon.close();
  }
});
