// The default image in a machine of QEMU: what /init and the overlays promise, seen from the host's end of the serial ports.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { concatenate } from '../../images/initramfs.ts';
import { type ExecSession, execOverlay, sessionOverlay } from '../../images/overlay.ts';
import { readManifest, userCache } from './cache.ts';
import { openImage } from './fetch-image.ts';

const present =
  spawnSync('qemu-system-x86_64', ['-version']).status === 0 && (await readManifest(userCache(), 'debian-cloud')) !== undefined;
const skip = present ? false : 'needs qemu-system-x86_64, and the image debian-cloud in the cache';

/** The four serial ports of a running guest: console, output, errors, control. */
type Guest = { ports: readonly Socket[]; text: (port: number) => string; bytes: (port: number) => Buffer; ended: Promise<void> };

async function boot(t: TestContext, overlay: Uint8Array): Promise<Guest> {
  const directory = mkdtempSync(join(tmpdir(), 'nonroot-guest-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const image = await openImage('debian-cloud');
  const initrd = join(directory, 'initrd');
  writeFileSync(initrd, concatenate([readFileSync(image.initrd), overlay]));
  const received: Buffer[][] = [[], [], [], []];
  const connections = received.map(async (chunks, index) => {
    const server = createServer().listen(join(directory, `s${index}`));
    const socket = await new Promise<Socket>((resolve) => server.once('connection', resolve));
    server.close();
    return socket
      .on('data', (chunk) => chunks.push(typeof chunk === 'string' ? Buffer.from(chunk) : chunk))
      .on('error', () => {});
  });
  const serial = received.flatMap((_, index) => [
    '-chardev',
    `socket,id=s${index},path=${join(directory, `s${index}`)}`,
    '-serial',
    `chardev:s${index}`,
  ]);
  const machine = [
    '-M',
    'q35',
    '-accel',
    'tcg',
    '-m',
    '256',
    '-display',
    'none',
    '-no-reboot',
    '-nodefaults',
    '-device',
    'virtio-rng-pci',
  ];
  const kernel = ['-kernel', image.kernel, '-initrd', initrd, '-append', image.append];
  const child = spawn('qemu-system-x86_64', [...machine, ...serial, ...kernel], { stdio: ['ignore', 'ignore', 'inherit'] });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  t.after(() => child.kill('SIGKILL'));
  const bytes = (port: number) => Buffer.concat(received[port]!);
  return { ports: await Promise.all(connections), bytes, text: (port) => bytes(port).toString(), ended };
}

async function exec(t: TestContext, session: ExecSession) {
  const guest = await boot(t, execOverlay(session));
  await guest.ended;
  return { code: /^ready\nexit (\d+)\n$/.exec(guest.text(3))?.[1], out: guest.bytes(1), err: guest.text(2) };
}

/** Resolves when the condition holds; rejects after a minute in vain, with what the guest showed. */
async function until(condition: () => boolean, shown: () => string): Promise<void> {
  const end = performance.now() + 60_000;
  while (!condition()) {
    if (performance.now() > end)
      throw new Error(`Cannot wait any longer: the guest showed ${JSON.stringify(shown().slice(-2000))}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const limit = { skip, timeout: 120_000 };

test('a command gets its bytes out unharmed, its errors apart, and its exit code told', limit, async (t) => {
  const odd = `'"$\\\`\t*é`;
  const command = `
head -c 1048576 /dev/urandom >/tmp/x; cat /tmp/x
md5sum </tmp/x >&2
printf '%s' "${odd.replace(/["$\\`]/g, '\\$&')}" >&2
wc -c >&2
/bin/ls -d /lib/modules/*/kernel >&2
lsmod | grep -c '^virtio_rng' >&2
sleep 1000 &
exit 42`;
  const { code, out, err } = await exec(t, { command });
  assert.equal(code, '42');
  assert.equal(out.length, 1048576);
  const [sum, rest, modules, drivers] = err.split('\n');
  assert.equal(sum, `${createHash('md5').update(out).digest('hex')}  -`);
  assert.equal(rest, `${odd}0`);
  assert.match(modules!, /^\/lib\/modules\/6\S*\/kernel$/);
  assert.equal(drivers, '1');
});

test('a missing command is 127, and what poweroff says does not hide a code', limit, async (t) => {
  const { code, out, err } = await exec(t, { command: 'poweroff; /no/such/command' });
  assert.equal(code, '127');
  assert.equal(out.length, 0);
  assert.match(err, /\/no\/such\/command: not found/);
});

test('a command reads what the host sends, piece by piece, up to its end', limit, async (t) => {
  const guest = await boot(t, execOverlay({ command: 'md5sum', stdin: true }));
  const input = Buffer.from(Array.from({ length: 50_000 }, (_, index) => (index * 7919) >> 3));
  let sent = 0;
  let asked = 0;
  guest.ports[3]!.on('data', () => {
    for (const count = guest.text(3).split('stdin\n').length - 1; asked < count; asked++) {
      const piece = input.subarray(sent, sent + 16384);
      sent += piece.length;
      guest.ports[3]!.write(`stdin ${piece.length}\n`);
      guest.ports[1]!.write(piece);
    }
  });
  await guest.ended;
  assert.equal(guest.text(1), `${createHash('md5').update(input).digest('hex')}  -\n`);
  assert.match(guest.text(3), /exit 0\n$/);
});

test('a shell has the terminal: its size and changes of it, Ctrl-C, and the power when it ends', limit, async (t) => {
  const guest = await boot(t, sessionOverlay({ rows: 24, cols: 80, term: 'dumb' }));
  const [console, , , control] = guest.ports as [Socket, Socket, Socket, Socket];
  const type = async (text: string, answer: RegExp) => {
    const before = guest.text(0).length;
    console.write(text);
    await until(
      () => answer.test(guest.text(0).slice(before)),
      () => guest.text(0),
    );
  };
  await until(
    () => /nonroot:\/root# $/.test(guest.text(0).replace(/\x1b\[6n/g, '')),
    () => guest.text(0),
  );
  assert.equal(guest.text(3), 'ready\n');
  await type('stty size; echo $TERM\r', /\n24 80\r\ndumb\r\n/);
  await type('trap "stty size" WINCH; echo set\r', /\nset\r\n/);
  control.write('winsize 50 132\n');
  // The shell may draw its line anew for the new size anywhere in what is typed: only the line's end is certain.
  await type('sleep 1000\r', /\r\n/);
  // The command's start and the key may cross: the key is pressed until the prompt is there again.
  const before = guest.text(0).length;
  const press = setInterval(() => console.write('\x03'), 500);
  t.after(() => clearInterval(press));
  await until(
    () => guest.text(0).slice(before).includes('nonroot:/root# '),
    () => guest.text(0),
  );
  clearInterval(press);
  await type('stty size\r', /\n50 132\r\n/);
  const greetings = () => guest.text(0).split('built-in shell').length - 1;
  console.write('kill -9 $$\r');
  await until(
    () => greetings() === 2,
    () => guest.text(0),
  );
  await type('false\r', /# /);
  console.write('exit\r');
  await guest.ended;
  assert.match(guest.text(0), /Power down/);
});
