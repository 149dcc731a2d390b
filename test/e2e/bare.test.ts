// Guests of a few bytes: what the machine itself does with its guest, without an operating system.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { multiboot, program } from './program.ts';

const EMULATOR = 'nonroot-system-x86_64';
const directory = mkdtempSync(join(tmpdir(), 'nonroot-e2e-'));
after(() => rmSync(directory, { recursive: true }));

/** A file with a guest of these instructions; its path. */
function guest(name: string, code: readonly number[]): string {
  const path = join(directory, name);
  writeFileSync(path, multiboot(code));
  return path;
}

/** mov al, byte; mov dx, port; out dx, al */
const out = (port: number, byte: number): number[] => [0xb0, byte, 0x66, 0xba, port & 0xff, port >> 8, 0xee];
const say = (text: string, port = 0x3f8): number[] => [...Buffer.from(text)].flatMap((byte) => out(port, byte));
const STOP = [0xfa, 0xf4]; // cli; hlt
const TRIPLE_FAULT = [0x0f, 0x0b]; // ud2, without an IDT

test('isa-debug-exit ends the emulator with the code (value << 1) | 1', async () => {
  const kernel = guest('exit', [...out(0xf4, 21), ...STOP]);
  const r = await program(EMULATOR, ['-kernel', kernel, '-device', 'isa-debug-exit,iobase=0xf4,iosize=4', '-display', 'none']);
  assert.equal(r.code, 43, r.text);
  assert.equal(r.stdout.length + r.stderr.length, 0, r.text);
});

test('serial ports go where the command line says, and everything that the guest sent is there at its end', async () => {
  const [second, pidfile] = [join(directory, 'com2'), join(directory, 'pid')];
  const kernel = guest('serial', [...say('first'), ...say('second', 0x2f8), ...out(0x501, 0), ...STOP]);
  const args = ['-kernel', kernel, '-serial', 'stdio', '-serial', `file:${second}`, '-device', 'isa-debug-exit'];
  const r = await program(EMULATOR, [...args, '-pidfile', pidfile]);
  assert.equal(r.code, 1, r.text);
  assert.equal(r.stdout.toString(), 'first', r.text);
  assert.equal(readFileSync(second, 'utf8'), 'second');
  assert.throws(() => readFileSync(pidfile), { code: 'ENOENT' });
});

test('-d bus names the accesses to nothing, and -D puts them into a file', async () => {
  const log = join(directory, 'log');
  const kernel = guest('nothing', [...out(0x9abc, 1), ...out(0x501, 2), ...STOP]);
  const r = await program(EMULATOR, ['-kernel', kernel, '-device', 'isa-debug-exit', '-d', 'bus', '-D', log]);
  assert.equal(r.code, 5, r.text);
  assert.match(readFileSync(log, 'utf8'), /^ports: write of nothing at 0x9abc$/m);
});

test('a triple fault resets the guest, or ends the emulator with -no-reboot', async () => {
  const faults = guest('fault', TRIPLE_FAULT);
  const ended = await program(EMULATOR, ['-kernel', faults, '-no-reboot']);
  assert.equal(ended.code, 0, ended.text);
  const chatty = guest('chatty', [...say('up '), ...TRIPLE_FAULT]);
  const again = await program(EMULATOR, ['-kernel', chatty, '-serial', 'stdio'], {
    signal: { after: 'up up up', name: 'SIGTERM' },
  });
  assert.equal(again.code, 0, again.text);
  assert.match(again.stderr, /terminating on SIGTERM/);
});

test('nonroot run reports a triple fault with exit code 1 and what the console showed', async () => {
  const kernel = guest('last-words', [...say('last words\n'), ...TRIPLE_FAULT]);
  const r = await program('nonroot', ['run', '--kernel', kernel]);
  assert.equal(r.code, 1, r.text);
  assert.match(r.stderr, /triple fault; its console's last lines:\n {2}last words\n/);
});

test('nonroot run --timeout ends a guest that hangs, with exit code 124', async () => {
  const r = await program('nonroot', ['run', '--kernel', guest('hang', [0xeb, 0xfe]), '--timeout', '0.5']);
  assert.equal(r.code, 124, r.text);
  assert.match(r.stderr, /^nonroot: timed out after 0\.5 s/);
});

test('the monitor on standard input holds the guest, shows its registers and ends it', async () => {
  const kernel = guest('loop', [0xb8, 0x78, 0x56, 0x34, 0x12, 0xeb, 0xfe]); // mov eax, 0x12345678; jmp $
  const input = 'info status\ncont\nstop\ninfo status\ninfo registers\nquit\n';
  const r = await program(EMULATOR, ['-kernel', kernel, '-S', '-monitor', 'stdio', '-serial', 'none'], { input });
  assert.equal(r.code, 0, r.text);
  const text = r.stdout.toString();
  assert.match(text, /VM status: paused \(prelaunch\)[\s\S]*VM status: paused\r?\n/);
  // Held before or after its first instruction: the boot loader's magic number, or its own.
  assert.match(text, /EAX=(2badb002|12345678) [\s\S]*EIP=001000(20|25) /);
});
