import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { test } from 'node:test';
import { openTerminal, type TerminalStreams } from './terminal.ts';

function fake(isTTY = true) {
  const raw: boolean[] = [];
  const killed: string[] = [];
  const input = Object.assign(new EventEmitter(), {
    isTTY,
    setRawMode: (on: boolean) => raw.push(on),
    resume: () => {},
    pause: () => {},
  });
  const output = Object.assign(new EventEmitter(), { isTTY, rows: 24, columns: 80 });
  const host = Object.assign(new EventEmitter(), { pid: 1, kill: (_pid: number, signal: string) => killed.push(signal) });
  const streams: TerminalStreams = { input, output, process: host };
  return { raw, killed, input, output, host, streams };
}

test('input and sizes arrive while the terminal is open, and every listener is gone afterwards', () => {
  const { raw, input, output, host, streams } = fake();
  const got: unknown[] = [];
  const terminal = openTerminal(
    { input: (bytes) => got.push(bytes), resize: (size) => got.push(size), end: () => got.push('end') },
    streams,
  );
  assert.deepEqual(terminal.size(), { rows: 24, cols: 80 });
  input.emit('data', Uint8Array.of(1));
  output.rows = 50;
  output.emit('resize');
  input.emit('end');
  assert.deepEqual(got, [Uint8Array.of(1), { rows: 50, cols: 80 }, 'end']);
  terminal.close();
  terminal.close();
  assert.deepEqual(raw, [true, false]);
  for (const emitter of [input, output, host]) assert.deepEqual(emitter.eventNames(), []);
});

test('ending signals give the terminal back first, and are raised again only when nobody else listens', () => {
  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT']) {
    const { raw, killed, host, streams } = fake();
    openTerminal({ input: () => {} }, streams);
    host.emit(signal);
    assert.deepEqual([raw, killed], [[true, false], [signal]]);
  }
  const { raw, killed, host, streams } = fake();
  host.on('SIGTERM', () => {});
  openTerminal({ input: () => {} }, streams);
  host.emit('SIGTERM');
  assert.deepEqual([raw, killed], [[true, false], []]);
});

test('stopping gives the terminal back, going on takes it again and asks for its size', () => {
  const { raw, killed, host, streams } = fake();
  openTerminal({ input: () => {} }, streams);
  for (let round = 0; round < 2; round++) {
    host.emit('SIGTSTP');
    host.emit('SIGCONT');
  }
  assert.deepEqual(killed, ['SIGTSTP', 'SIGWINCH', 'SIGTSTP', 'SIGWINCH']);
  assert.deepEqual(raw, [true, false, true, false, true]);
  host.emit('exit');
  assert.equal(raw.at(-1), false);
});

test('a pipe is never put into raw mode and has no size', () => {
  const { raw, streams } = fake(false);
  const terminal = openTerminal({ input: () => {} }, streams);
  assert.equal(terminal.size(), undefined);
  terminal.close();
  assert.deepEqual(raw, []);
});
