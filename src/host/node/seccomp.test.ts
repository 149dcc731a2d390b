import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { keptByDefault, keptByNothing, type Sandbox } from '../../cli/sandbox.ts';
import { filterProgram, type Processor, refusals } from './seccomp.ts';

const PID = 4711;

/** The kernel's evaluation of classic BPF over struct seccomp_data, as far as filters use it. */
function evaluate(program: Uint8Array, arch: number, number: number, args: readonly bigint[] = []): number {
  const data = new DataView(new ArrayBuffer(64));
  data.setUint32(0, number, true);
  data.setUint32(4, arch, true);
  for (const [i, value] of args.entries()) data.setBigUint64(16 + 8 * i, value, true);
  const code = new DataView(program.buffer);
  let accumulator = 0;
  for (let pc = 0; ; pc++) {
    const op = code.getUint16(8 * pc, true);
    const [ifTrue, ifFalse] = [code.getUint8(8 * pc + 2), code.getUint8(8 * pc + 3)];
    const k = code.getUint32(8 * pc + 4, true);
    if (op === 0x20) accumulator = data.getUint32(k, true);
    else if (op === 0x15) pc += accumulator === k ? ifTrue : ifFalse;
    else if (op === 0x35) pc += accumulator >= k ? ifTrue : ifFalse;
    else if (op === 0x45) pc += (accumulator & k) !== 0 ? ifTrue : ifFalse;
    else if (op === 0x06) return k;
    else assert.fail(`instruction ${op.toString(16)}`);
  }
}
const ALLOW = 0x7fff0000;
const KILL = 0x80000000;
const errno = (n: number): number => 0x00050000 | n;
const audit = { x64: 0xc000003e, arm64: 0xc00000b7 } as const;

for (const [column, processor] of (['x64', 'arm64'] as const).entries()) {
  const run = (kept: Sandbox, number: number, ...args: bigint[]): number =>
    evaluate(filterProgram(refusals(kept, PID), processor), audit[processor], number, args);
  const numberOf = (name: string): number => refusals(keptByNothing, PID).find((r) => r.name === name)!.numbers[column]!;

  test(`on ${processor}, each refused call has its error, and calls between them go through`, () => {
    const list = refusals(keptByNothing, PID);
    const program = filterProgram(list, processor);
    const numbers = new Set(list.map((r) => r.numbers[column]));
    for (const { name, numbers: n, errno: e, when } of list) {
      if (n[column] !== null && !when) assert.equal(evaluate(program, audit[processor], n[column]!), errno(e), name);
    }
    for (let n = 0; n < 460; n++) if (!numbers.has(n)) assert.equal(evaluate(program, audit[processor], n), ALLOW, `call ${n}`);
  });

  test(`on ${processor}, arguments decide: threads, signals to itself, sockets, limits, the terminal`, () => {
    const clone = numberOf('clone');
    assert.equal(run(keptByNothing, clone, 0x3d0f00n), ALLOW);
    assert.equal(run(keptByNothing, clone, 17n), errno(1));
    // CLONE_VM and CLONE_VFORK: posix_spawn.
    assert.equal(run(keptByNothing, clone, 0x4111n), errno(1));
    assert.equal(run(keptByDefault(), clone, 17n), ALLOW);
    assert.equal(run(keptByNothing, numberOf('kill'), BigInt(PID), 9n), ALLOW);
    for (const pid of [0n, 1n, 0xffffffffn, 0xffffffffffffffffn])
      assert.equal(run(keptByNothing, numberOf('kill'), pid, 9n), errno(1));
    const socket = numberOf('socket');
    assert.equal(run(keptByNothing, socket, 1n), ALLOW);
    assert.equal(run(keptByNothing, socket, 2n), errno(1));
    assert.equal(run(keptByDefault(), socket, 2n), ALLOW);
    assert.equal(run(keptByDefault(), socket, 17n), errno(97));
    const limits = numberOf('prlimit64');
    assert.equal(run(keptByNothing, limits, 0n, 7n, 0n, 1n), ALLOW);
    for (const pointer of [1n, 0x100000000n, 0x7fff12345678n])
      assert.equal(run(keptByNothing, limits, 0n, 7n, pointer), errno(1));
    // The kernel looks at the low half of a request.
    assert.equal(run(keptByNothing, numberOf('ioctl'), 0n, 0x100005412n), errno(1));
    assert.equal(run(keptByNothing, numberOf('ioctl'), 0n, 0x5413n), ALLOW);
  });

  test(`on ${processor}, calls by another processor's numbers end the process`, () => {
    const program = filterProgram(refusals(keptByDefault(), PID), processor);
    for (const other of [0x40000003, audit[processor === 'x64' ? 'arm64' : 'x64'], 0])
      assert.equal(evaluate(program, other, 0), KILL);
  });
}

test('on x64, the numbers of the x32 ABI reach nothing', () => {
  const program = filterProgram(refusals(keptByDefault(), PID), 'x64');
  for (const n of [0x40000000, 0x40000039, 0xffffffff]) assert.equal(evaluate(program, audit.x64, n), errno(1));
});

test("`-sandbox on` alone refuses what QEMU's refuses, and a property more only adds", () => {
  const names = (kept: Sandbox): Set<string> => new Set(refusals(kept, PID).map((r) => r.name));
  const least = names({ ...keptByDefault(), obsolete: true });
  for (const name of ['reboot', 'mount', 'ptrace', 'kexec_load']) assert.ok(least.has(name), name);
  for (const name of ['fork', 'execve', 'setuid', 'setpriority', 'ustat']) assert.ok(!least.has(name), name);
  assert.ok(names({ ...keptByDefault(), elevatePrivileges: 'children' }).isSubsetOf(names(keptByDefault())));
  for (const key of ['obsolete', 'elevatePrivileges', 'spawn', 'resourceControl', 'network'] as const)
    assert.ok(least.isSubsetOf(names({ ...keptByDefault(), obsolete: true, [key]: false })), key);
});

const headers: Readonly<Record<Processor, string>> = {
  x64: '/usr/include/x86_64-linux-gnu/asm/unistd_64.h',
  arm64: '/usr/include/asm-generic/unistd.h',
};
for (const [column, processor] of (['x64', 'arm64'] as const).entries()) {
  const path = headers[processor];
  test(`numbers are those of the kernel's headers for ${processor}`, {
    skip: existsSync(path) ? false : `there is no ${path}`,
  }, () => {
    const known = new Map<string, number>();
    for (const [, name, number] of readFileSync(path, 'utf8').matchAll(/^#define __NR(?:3264)?_(\w+)\s+(\d+)/gm))
      if (!known.has(name!)) known.set(name!, Number(number));
    // `umount2` has another name in one of the lists; keptByNothing else differs.
    for (const { name, numbers } of refusals(keptByNothing, PID)) assert.equal(numbers[column], known.get(name) ?? null, name);
  });
}
