import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import type { RunningMachine } from '../machine/running.ts';
import type { CliHost } from './host.ts';
import { openConsole } from './session.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

test('a key wakes a guest that sleeps, and does not reach it; so do Ctrl-A p and the monitor', async () => {
  let input: (bytes: Uint8Array) => void = () => {};
  const host = {
    out: { write: () => {} },
    input: {
      isTTY: true,
      open: (o: { input: typeof input }) => {
        input = o.input;
        return { close: () => {} };
      },
    },
  } as unknown as CliHost;
  const done: string[] = [];
  const machine = {
    status: 'suspended',
    wakeup: () => done.push('wakeup'),
    resume: () => done.push('resume'),
  };
  openConsole({
    host,
    machine: machine as unknown as RunningMachine,
    send: (sent) => done.push(new TextDecoder().decode(sent)),
    quit: () => done.push('quit'),
    keys: true,
  });
  input(bytes('a'));
  input(bytes('\x01p'));
  input(bytes('\x01c'));
  input(bytes('system_wakeup\r'));
  await setImmediate();
  input(bytes('\x01c'));
  machine.status = 'running';
  input(bytes('b'));
  assert.deepEqual(done, ['wakeup', 'wakeup', 'wakeup', 'b']);
});
