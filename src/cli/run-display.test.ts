import assert from 'node:assert/strict';
import { test } from 'node:test';
import { displayChoice } from './run-display.ts';

test('a display is a page, or VNC on this machine unless a host is named', () => {
  assert.equal(displayChoice('none'), undefined);
  assert.deepEqual(displayChoice('web'), { kind: 'web' });
  const vnc = (listen: object): object => ({ kind: 'vnc', listen });
  assert.deepEqual(displayChoice('vnc'), vnc({ kind: 'tcp', host: '127.0.0.1', port: 5900, to: 5999 }));
  assert.deepEqual(displayChoice('vnc=:3'), vnc({ kind: 'tcp', host: '127.0.0.1', port: 5903 }));
  assert.deepEqual(displayChoice('vnc=[::]:0'), vnc({ kind: 'tcp', host: '::', port: 5900 }));
  assert.deepEqual(displayChoice('vnc=unix:/tmp/a'), vnc({ kind: 'unix', path: '/tmp/a' }));
  for (const wrong of ['', 'gtk', 'vnc=', 'vnc=5900', 'vnc=unix:', 'vnc=:99999'])
    assert.throws(() => displayChoice(wrong), /^Error: Cannot use .*accepted are/);
});
