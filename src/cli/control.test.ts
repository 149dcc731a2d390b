import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Control } from './control.ts';

/** A control channel and the log of what it does; bytes for ports are shown as their text. */
function channel(): { control: Control; log: string[]; says: (text: string) => void } {
  const log: string[] = [];
  const control = new Control({
    ready: () => log.push('ready'),
    exit: (code) => log.push(`exit ${code}`),
    send: (port, bytes) => log.push(`${port}: ${bytes.length > 20 ? bytes.length : Buffer.from(bytes)}`),
  });
  return { control, log, says: (text) => control.receive(Buffer.from(text)) };
}

test('lines that come in pieces are read, and anything else is not', () => {
  const { log, says } = channel();
  says('rea');
  says('dy\nexit\nexit 1234\nnonsense\nexi');
  says('t 7\n');
  assert.deepEqual(log, ['ready', 'exit 7']);
});

test('input goes to the guest as it asks, in pieces of 2048 bytes, and its end as a piece of none', async () => {
  const { control, log, says } = channel();
  const sent = control.input(new Uint8Array(3000));
  assert.deepEqual(log, []);
  says('stdin\n');
  says('stdin\n');
  await sent;
  says('stdin\n');
  assert.deepEqual(log, ['3: stdin 2048\n', '1: 2048', '3: stdin 952\n', '1: 952']);
  control.end();
  assert.deepEqual(log.slice(4), ['3: stdin 0\n']);
});

test('a guest that sends a line without an end does not fill the host', () => {
  const { log, says } = channel();
  for (let i = 0; i < 1000; i++) says('x'.repeat(1000));
  says('\nready\n');
  assert.deepEqual(log, ['ready']);
});
