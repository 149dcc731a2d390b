import assert from 'node:assert/strict';
import { test } from 'node:test';
import { consoleKeys } from './keys.ts';

/** Everything that the given pieces of input lead to, as words. */
function play(pieces: readonly string[], optional: readonly ('toggleMonitor' | 'togglePause' | 'snapshot')[] = []): string[] {
  const log: string[] = [];
  const keys = consoleKeys({
    send: (bytes) => log.push(`send ${JSON.stringify(Buffer.from(bytes).toString('latin1'))}`),
    quit: () => log.push('quit'),
    help: (lines) => log.push(`help ${lines.map((line) => line.slice(7, 8)).join('')}`),
    ...Object.fromEntries(optional.map((name) => [name, () => log.push(name)])),
  });
  for (const piece of pieces) keys(Buffer.from(piece, 'latin1'));
  return log;
}

test('input without the escape goes to the guest as it came', () => {
  assert.deepEqual(play(['ls\r', '\x03\xff']), ['send "ls\\r"', 'send "\\u0003ÿ"']);
});

test('Ctrl-A and a letter act, in the middle of a piece and split over two', () => {
  assert.deepEqual(play(['a\x01hb', 'c\x01', 'Xd']), ['send "a"', 'help hxa', 'send "b"', 'send "c"', 'quit']);
});

test('Ctrl-A Ctrl-A and Ctrl-A a send one Ctrl-A', () => {
  assert.deepEqual(play(['\x01\x01\x01a', '\x01', '\x01!']), ['send "\\u0001"', 'send "\\u0001"', 'send "\\u0001"', 'send "!"']);
});

test('keys without an action do not exist: they are swallowed and not in the help', () => {
  assert.deepEqual(play(['\x01c\x01p\x01sz\x01h']), ['send "z"', 'help hxa']);
  assert.deepEqual(play(['\x01c\x01p\x01s\x01h'], ['toggleMonitor', 'togglePause', 'snapshot']), [
    'toggleMonitor',
    'togglePause',
    'snapshot',
    'help hxcpsa',
  ]);
});

test('after the end nothing is sent any more', () => {
  assert.deepEqual(play(['\x01xrm -rf /\r', 'more']), ['quit']);
});
