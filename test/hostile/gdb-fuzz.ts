// Hostile debuggers, seeded: packets of every kind with arguments at their edges, cut, damaged and interleaved with interrupts, by several
// connections one after another at one emulator. It must live, and serve the next debugger in time.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { packet } from '../../src/monitor/gdb/packet.ts';
import { multiboot, programPath } from '../e2e/program.ts';
import { Random } from './asm.ts';

/** Beginnings of packets; those that end the machine are left out. */
const HEADS =
  '? g G p P m M X Z0, Z1, Z2, Z3, Z4, z0, z1, z2, c s C05; S05; vCont? vCont;c vCont;s: vCont; H Hg Hc T D q qC qRcmd, qAttached qfThreadInfo qsThreadInfo qXfer:features:read:target.xml: Q QStartNoAckMode Qqemu.PhyMemMode:1 Qqemu.PhyMemMode:0 vAttach qThreadExtraInfo, ! R vFile: _M B'.split(
    ' ',
  );
const LINES =
  'info registers|info mtree|info qtree|info lapic|info mem|info tlb|info pci|info irq|xp /16xb 0|x /4i 0x100020|x /999999xg 0xfffffffffffff000|p 1/0|p $rip+|info|info nothing|help|print|xp|x /zzzz|cpu 99|cpu -1|gpa2hva 0|i /1 0x3f8|o 0x80 1|sum 0 99999999|nmi|stop|\0|%s%n'.split(
    '|',
  );

function body(r: Random): Uint8Array {
  const hex = (n: number): string => {
    const bytes = new Uint8Array(n);
    r.fill(bytes);
    return Buffer.from(bytes).toString('hex');
  };
  const number = (): string =>
    r.pick(['0', '1', 'ffffffffffffffff', '100020', '7fffffffffffffff', r.edgy().toString(16), '-1', '', 'zz']);
  const tail = r.pick([
    () => '',
    number,
    () => `${number()},${number()}`,
    () => `${number()},${r.below(0x4001).toString(16)}`,
    () => `100020,${r.below(64).toString(16)}`,
    () => `${number()},4:${hex(4)}`,
    () => `${number()}=${hex(r.pick([0, 1, 4, 8, 16]))}`,
    () => hex(r.pick([0, 8, 164, 2000, 8192])),
    () => Buffer.from(r.pick(LINES)).toString('hex'),
    () => r.pick([':', ',', ';', '::', ';;', 's:1;c', 'c:-1', 's:p1.1']),
  ])();
  const out = new TextEncoder().encode(r.pick(HEADS) + tail);
  for (let n = r.below(8) === 0 ? r.below(3) : 0; n > 0 && out.length > 1; n--) out[1 + r.below(out.length - 1)] = r.below(256);
  return out;
}

/** What may not be sent: the machine's end is not what is looked for. */
const ends = (b: Uint8Array): boolean => b[0] === 0x6b || new TextDecoder('latin1').decode(b).startsWith('vKill');

function wire(r: Random): Uint8Array {
  const b = body(r);
  if (ends(b)) return Uint8Array.of(0x2b);
  const whole = packet(b);
  switch (r.below(14)) {
    case 0:
      return whole.subarray(0, r.below(whole.length));
    case 1:
      whole[whole.length - 1] = 0x7a;
      return whole;
    case 2:
      return Uint8Array.of(3);
    case 3:
      return Uint8Array.from({ length: r.below(60) }, () => r.pick([0x24, 0x23, 0x7d, 0x2a, 0x2d, 0x2b, r.below(256)]));
    default:
      return whole;
  }
}

/**
 * One run at the server behind a unix socket. `died` says whether the emulator has ended, and what it said.
 * @throws Error with the seed and what was sent
 */
export async function fuzzGdb(path: string, died: () => string | undefined, seed: number, rounds: number): Promise<void> {
  const r = new Random(seed);
  for (let round = 0; round < rounds; round++) {
    const sent: string[] = [];
    const context = (): string => `gdb, seed ${seed}, round ${round}\n${sent.join('\n')}`;
    await new Promise<void>((resolve) => {
      const s = connect(path, () => {
        for (let n = 4 + r.below(16); n > 0; n--) {
          const bytes = wire(r);
          sent.push(Buffer.from(bytes).toString('latin1').slice(0, 200));
          s.write(bytes);
        }
        setTimeout(() => s.destroy(), r.below(30));
      });
      s.on('data', () => {});
      s.on('error', () => {});
      s.on('close', () => resolve());
    });
    assert.equal(died(), undefined, context());
    if (round % 8 === 7 || round === rounds - 1)
      await served(path).catch((error: Error) => assert.fail(`${error.message}, ${died() ?? 'alive'}\n${context()}`));
  }
}

/** Rejects where a new debugger gets no answers. */
function served(path: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const s = connect(path, () => s.write(Buffer.concat([packet('qSupported'), packet('g')])));
  const timer = setTimeout(() => reject(new Error('the next debugger is not served')), 120_000);
  let text = '';
  s.on('data', (b) => {
    text += b.toString('latin1');
    // Registers of a vCPU in hexadecimal.
    if (/PacketSize=.*\$[\da-f]{300}/s.test(text)) resolve();
  });
  s.on('error', (error) => reject(new Error(`${error.message} after ${JSON.stringify(text.slice(0, 200))}`)));
  return promise.finally(() => {
    clearTimeout(timer);
    s.destroy();
  });
}

/** One run at an emulator of its own, whose guest counts in a loop. @throws Error with the seed and what was sent */
export async function fuzzGdbEmulator(seed: number, rounds: number): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'nonroot-gdb-fuzz-'));
  const [kernel, path] = [join(folder, 'kernel'), join(folder, 'gdb')];
  writeFileSync(kernel, multiboot([0x41, 0xeb, 0xfd])); // inc ecx; jmp back
  const args = ['-nodefaults', '-display', 'none', '-m', '16', '-smp', '2', '-kernel', kernel];
  const child = spawn(programPath('nonroot-system-x86_64'), [...args, '-gdb', `unix:${path},server=on,wait=off`]);
  let said = '';
  child.stderr.on('data', (b: Buffer) => {
    said += b.toString();
  });
  const died = (): string | undefined =>
    child.exitCode === null && child.signalCode === null ? undefined : `${child.exitCode ?? child.signalCode}: ${said}`;
  try {
    for (let n = 0; n < 2400 && !existsSync(path) && died() === undefined; n++) await sleep(50);
    await fuzzGdb(path, died, seed, rounds);
  } finally {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  }
}
