// A display from the guest's stores to screenshots and VNC, and keys on the way back: by a guest of a few bytes.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { multiboot, programPath } from './program.ts';

const [WIDTH, HEIGHT, COLOUR] = [320, 200, 0xff8040];
const LIMIT = 60_000;
const directory = mkdtempSync(join(tmpdir(), 'nonroot-display-'));
const at = (name: string): string => join(directory, name);

const le = (v: number, n: number): number[] => Array.from({ length: n }, (_, i) => Math.floor(v / 256 ** i) & 0xff);
/** mov dx, port; mov eax, value */
const load = (port: number, value: number): number[] => [0x66, 0xba, ...le(port, 2), 0xb8, ...le(value, 4)];
const out8 = (port: number, value: number): number[] => [...load(port, value), 0xee];
const out16 = (port: number, value: number): number[] => [...load(port, value), 0x66, 0xef];
const vbe = (index: number, value: number): number[] => [...out16(0x1ce, index), ...out16(0x1cf, value)];

/** Sets a mode of 32 bits, fills it with a colour, then shows each byte of the keyboard as the first pixel. */
const painter = [
  ...load(0xcf8, 0x80000000 | (2 << 11) | 0x10),
  0xef, // out dx, eax
  0x66, 0xba, ...le(0xcfc, 2), 0xed, // in eax, dx: BAR 0
  0x83, 0xe0, 0xf0, 0x89, 0xc3, // and eax, ~15; mov ebx, eax
  ...vbe(4, 0), ...vbe(1, WIDTH), ...vbe(2, HEIGHT), ...vbe(3, 32), ...vbe(4, 0x41),
  0x66, 0xba, ...le(0x3da, 2), 0xec, // in al, dx
  ...out8(0x3c0, 0x20),
  0x89, 0xdf, 0xb9, ...le(WIDTH * HEIGHT, 4), 0xb8, ...le(COLOUR, 4), 0xf3, 0xab, // mov edi, ebx; mov ecx; mov eax; rep stosd
  0xe4, 0x64, 0xa8, 0x01, 0x74, 0xfa, // again: in al, 0x64; test al, 1; jz again
  0x31, 0xc0, 0xe4, 0x60, 0x89, 0x03, // xor eax, eax; in al, 0x60; mov [ebx], eax
  0xeb, 0xf2, // jmp again
]; // biome-ignore format: by instructions

let child: ChildProcess | undefined;
let said = '';
/** Sends a command and gives its answer. */
let qmp: (execute: string, args?: object) => Promise<{ return?: unknown; error?: { desc: string } }>;
const events: string[] = [];

async function until<T>(what: string, look: () => T | undefined | Promise<T | undefined>): Promise<T> {
  const end = Date.now() + LIMIT;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    assert.ok(Date.now() < end, `${what} did not happen; the emulator said: ${said}`);
    await sleep(50);
  }
}
const connect = (path: string): Promise<Socket> =>
  until(`a connection to ${path}`, async () => {
    if (!existsSync(path)) return undefined;
    const socket = createConnection(path);
    return new Promise((resolve) => {
      socket.once('connect', () => resolve(socket));
      socket.once('error', () => resolve(undefined));
    });
  });

before(async () => {
  writeFileSync(at('guest'), multiboot(painter));
  const args = ['-M', 'q35', '-nodefaults', '-kernel', at('guest'), '-device', 'VGA,addr=2,vgamem_mb=4', '-display', 'none'];
  child = spawn(
    programPath('nonroot-system-x86_64'),
    [...args, '-qmp', `unix:${at('qmp')},server=on,wait=off`, '-vnc', `unix:${at('vnc')}`],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  for (const s of [child.stdout!, child.stderr!]) s.on('data', (b: Buffer) => (said += b));
  const socket = await connect(at('qmp'));
  let held = '';
  const waiting: ((m: { return?: unknown; error?: { desc: string } }) => void)[] = [];
  socket.on('data', (bytes: Buffer) => {
    held += bytes;
    for (let end = held.indexOf('\n'); end >= 0; end = held.indexOf('\n')) {
      const m = JSON.parse(held.slice(0, end)) as { return?: unknown; error?: { desc: string }; event?: string };
      held = held.slice(end + 1);
      if (m.event) events.push(m.event);
      else if (m.return !== undefined || m.error) waiting.shift()?.(m);
    }
  });
  qmp = (execute, args2 = {}) =>
    new Promise((resolve) => {
      waiting.push(resolve);
      socket.write(`${JSON.stringify({ execute, arguments: args2 })}\n`);
    });
  await qmp('qmp_capabilities');
});
after(() => {
  child?.kill('SIGKILL');
  rmSync(directory, { recursive: true });
});

/** The screen as a PPM: size, and a pixel by its place. */
async function screen(): Promise<{ size: string; pixel: (i: number) => number }> {
  const answer = await qmp('screendump', { filename: at('shot.ppm') });
  assert.deepEqual(answer, { return: {} });
  const file = readFileSync(at('shot.ppm'));
  const start = file.indexOf('255\n') + 4;
  return { size: file.subarray(3, start - 5).toString(), pixel: (i) => file.readUIntBE(start + 3 * i, 3) };
}

test('a screenshot shows what the guest stored into its frame buffer', async () => {
  const s = await until('the picture', async () => {
    const now = await screen();
    return now.size === `${WIDTH} ${HEIGHT}` && now.pixel(WIDTH * HEIGHT - 1) === COLOUR ? now : undefined;
  });
  assert.equal(s.pixel(WIDTH + 5), COLOUR);
  await qmp('screendump', { filename: at('shot.png'), format: 'png' });
  assert.equal(readFileSync(at('shot.png')).subarray(1, 4).toString(), 'PNG');
});

test('send-key reaches the keyboard controller', async () => {
  assert.deepEqual(await qmp('send-key', { keys: [{ type: 'qcode', data: 'a' }], 'hold-time': 10 }), { return: {} });
  await until('the break code of a', async () => ((await screen()).pixel(0) === 0x9e ? true : undefined));
  const wrong = await qmp('send-key', { keys: [{ type: 'qcode', data: 'nothing' }] });
  assert.ok(wrong.error, JSON.stringify(wrong));
});

test('a VNC client sees the same, and its keys arrive', async () => {
  const socket = await connect(at('vnc'));
  let got = Buffer.alloc(0);
  socket.on('data', (b: Buffer) => {
    got = Buffer.concat([got, b]);
  });
  const take = (n: number): Promise<Buffer> =>
    until(`${n} bytes from the server`, () => {
      if (got.length < n) return undefined;
      const bytes = got.subarray(0, n);
      got = got.subarray(n);
      return bytes;
    });
  assert.equal((await take(12)).toString(), 'RFB 003.008\n');
  socket.write('RFB 003.008\n');
  assert.deepEqual([...(await take(2))], [1, 1]);
  socket.write(Buffer.of(1));
  assert.equal((await take(4)).readUInt32BE(), 0);
  socket.write(Buffer.of(1));
  const init = await take(24);
  assert.deepEqual([init.readUInt16BE(0), init.readUInt16BE(2)], [WIDTH, HEIGHT]);
  await take(init.readUInt32BE(20));
  const ask = (incremental: number) =>
    socket.write(Buffer.of(3, incremental, 0, 0, 0, 0, ...[WIDTH, HEIGHT].flatMap((n) => [n >> 8, n & 255])));
  /** Pixels of the next update, by place. */
  const update = async (): Promise<Map<number, number>> => {
    const pixels = new Map<number, number>();
    for (let rects = (await take(4)).readUInt16BE(2); rects > 0; rects--) {
      const head = await take(12);
      const [x, y, w, h] = [0, 2, 4, 6].map((o) => head.readUInt16BE(o)) as [number, number, number, number];
      assert.equal(head.readInt32BE(8), 0);
      const data = await take(4 * w * h);
      for (let i = 0; i < w * h; i++) pixels.set((y + Math.floor(i / w)) * WIDTH + x + (i % w), data.readUInt32LE(4 * i));
    }
    return pixels;
  };
  ask(0);
  const first = await update();
  assert.deepEqual([first.size, first.get(WIDTH * HEIGHT - 1)], [WIDTH * HEIGHT, COLOUR]);
  assert.deepEqual(
    events.filter((e) => e.startsWith('VNC')),
    ['VNC_CONNECTED', 'VNC_INITIALIZED'],
  );
  // Key b goes down: one tile changes.
  ask(1);
  socket.write(Buffer.of(4, 1, 0, 0, 0, 0, 0, 0x62));
  const second = await update();
  assert.deepEqual([second.size, second.get(0)], [256, 0x30]);
  socket.destroy();
  await until('VNC_DISCONNECTED', () => (events.includes('VNC_DISCONNECTED') ? true : undefined));
});
