// The server for gdb: hostile packets, and real gdb where it is installed: registers, memory, breakpoints of all kinds, steps, commands.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { probeKvm } from '../../src/accel/kvm/probe.ts';
import { kvmHost } from '../../src/host/node/kvm-native.ts';
import { withoutKvm } from '../../src/host/node/kvm-testing.ts';
import { PacketReader, packet } from '../../src/monitor/gdb/packet.ts';
import { multiboot } from '../e2e/program.ts';
import { fuzzGdb } from '../hostile/gdb-fuzz.ts';
import { emulator, OURS } from './process.ts';

const folder = mkdtempSync(join(tmpdir(), 'nonroot-gdb-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));
const noGdb = spawnSync('gdb', ['--version']).status === 0 ? false : 'gdb is not installed';

const kernel = join(folder, 'kernel');
/** Counts in ECX and at 0x200000, and calls a function at 0x100038 each time. */
const loop = [
  ...[0xbc, 0, 0, 0x30, 0], // 20: mov esp,0x300000
  ...[0xb9, 0, 0, 0, 0], // 25: mov ecx,0
  0x41, // 2a: inc ecx
  ...[0x89, 0x0d, 0, 0, 0x20, 0], // 2b: mov [0x200000],ecx
  ...[0xe8, 2, 0, 0, 0], // 31: call 38
  ...[0xeb, 0xf2], // 36: jmp 2a
  0x90, // 38: nop
  0xc3, // 39: ret
]; // biome-ignore format: by instruction
writeFileSync(kernel, multiboot(loop));

/** A machine that waits for gdb at a unix socket. */
async function waiting(t: TestContext, more: readonly string[] = []) {
  const path = join(folder, `gdb${Math.floor(performance.now())}`);
  const args = [
    '-S',
    '-nodefaults',
    '-display',
    'none',
    '-m',
    '16',
    '-kernel',
    kernel,
    '-gdb',
    `unix:${path},server=on,wait=off`,
    ...more,
  ];
  return { ...(await emulator(t, OURS, args)), path };
}
/** What gdb prints for these commands. */
function gdb(path: string, commands: readonly string[]): Promise<string> {
  const script = join(folder, 'script');
  writeFileSync(script, ['set pagination off', 'set confirm off', `target remote ${path}`, ...commands, 'detach'].join('\n'));
  const child = spawn('gdb', ['-nx', '-batch', '-x', script], { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  for (const s of [child.stdout, child.stderr]) s.on('data', (b: Buffer) => (text += b.toString()));
  const limit = setTimeout(() => child.kill('SIGKILL'), 40_000);
  return new Promise((resolve) =>
    child.on('close', () => {
      clearTimeout(limit);
      resolve(text);
    }),
  );
}

test('gdb stops a machine exactly where it says, steps it, and reads and writes what it has', {
  skip: noGdb,
  timeout: 120_000,
}, async (t) => {
  const e = await waiting(t);
  const text = await gdb(e.path, [
    'printf "start %lx\\n", $rip',
    'break *0x100039',
    'continue',
    'printf "soft %lx %ld\\n", $rip, $rcx',
    'x/2bx 0x100038',
    'continue',
    'printf "again %lx %ld\\n", $rip, $rcx',
    'stepi',
    'printf "step %lx\\n", $rip',
    'delete',
    'hbreak *0x10002a',
    'continue',
    'printf "hard %lx %ld\\n", $rip, $rcx',
    'delete',
    'watch *(int*)0x200000',
    'continue',
    'printf "watch %lx %d\\n", $rip, *(int*)0x200000',
    'delete',
    'set var $rcx = 0x1000',
    'hbreak *0x100031',
    'continue',
    'printf "set %ld %d\\n", $rcx, *(int*)0x200000',
    'set {int}0x201000 = 0x12345678',
    'printf "memory %x\\n", *(int*)0x201000',
    'info threads',
    'monitor info status',
    'printf "cr0 %lx\\n", $cr0',
  ]);
  for (const line of [
    /start 100020$/m,
    /soft 100039 1$/m,
    /0x100038:\s+0x90\s+0xc3/,
    /again 100039 2$/m,
    /step 100036$/m,
    /hard 10002a 2$/m,
    /watch 100031 3$/m,
    /set 4097 4097$/m,
    /memory 12345678$/m,
    /\* 1 +Thread 1 /,
    /VM status: paused/,
    /cr0 11$/m,
  ])
    assert.match(text, line, text);
  // Let go, the guest runs on, with nothing left in its code.
  assert.deepEqual(await e.qmp.execute('query-status'), { running: true, singlestep: false, status: 'running' });
  assert.equal(
    await e.qmp.execute('human-monitor-command', { 'command-line': 'xp/2xb 0x100038' }),
    '0000000000100038: 0x90 0xc3\r\n',
  );
  assert.equal(
    await e.qmp.execute('human-monitor-command', { 'command-line': 'xp /2xb 0x100038' }),
    '0000000000100038: 0x90 0xc3\r\n',
  );
});

test("gdb steps a machine under this host's KVM, stops it where it says, and reads and writes what it has", {
  skip: noGdb || withoutKvm(),
  timeout: 120_000,
}, async (t) => {
  const e = await waiting(t, ['-accel', 'kvm']);
  // A KVM that emulates ring 0 gives INT3 to the guest, whatever was asked of it, and knows no watchpoints.
  const good = probeKvm(kvmHost()).why === undefined;
  const text = await gdb(e.path, [
    'printf "start %lx\\n", $rip',
    'stepi',
    'stepi',
    'stepi',
    'printf "steps %lx %ld\\n", $rip, $rcx',
    'set var $rcx = 0x1000',
    ...(good ? ['break *0x100039', 'continue', 'printf "soft %lx %ld\\n", $rip, $rcx', 'delete'] : []),
    'hbreak *0x100031',
    'continue',
    'printf "hard %lx %ld %d\\n", $rip, $rcx, *(int*)0x200000',
    'delete',
    ...(good ? ['watch *(int*)0x200000', 'continue', 'printf "watch %lx %d\\n", $rip, *(int*)0x200000', 'delete'] : []),
    'set {int}0x201000 = 0x12345678',
    'printf "memory %x\\n", *(int*)0x201000',
    'monitor info kvm',
    'printf "cr0 %lx\\n", $cr0',
  ]);
  const hard = good ? 4097 : 4096;
  for (const line of [
    /start 100020$/m,
    /steps 10002b 1$/m,
    ...(good ? [/soft 100039 4096$/m, new RegExp(`watch 100031 ${hard + 1}$`, 'm')] : []),
    new RegExp(`hard 100031 ${hard} ${hard}$`, 'm'),
    /memory 12345678$/m,
    /kvm support: enabled/,
    /cr0 11$/m,
  ])
    assert.match(text, line, text);
  assert.deepEqual(await e.qmp.execute('query-status'), { running: true, singlestep: false, status: 'running' });
});

test('packets come out as they went in, whatever lies between them', () => {
  const reader = new PacketReader();
  const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
  const stream = Uint8Array.from([0x2b, ...packet(bytes), 0x03, 0x41, ...packet('OK'), 0x2d]);
  const items = [...stream].flatMap((b) => [...reader.push(Uint8Array.of(b))]);
  assert.deepEqual(items, [
    { kind: 'ack' },
    { packet: bytes },
    { kind: 'interrupt' },
    { packet: new TextEncoder().encode('OK') },
    { kind: 'nak' },
  ]);
  assert.deepEqual([...new PacketReader().push(new TextEncoder().encode('$g#00'))], [{ kind: 'bad' }]);
});

test('whatever comes for gdb’s server, the machine lives and the next debugger is served', { timeout: 120_000 }, async (t) => {
  const e = await waiting(t);
  const died = (): string | undefined => (e.child.exitCode === null && e.child.signalCode === null ? undefined : e.text());
  await fuzzGdb(e.path, died, Number(process.env['SEED'] ?? 11), 32);
});
