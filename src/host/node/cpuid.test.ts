// CPUID from a page of our own against what the kernel's cpuid(4) reads.
import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { test } from 'node:test';
import { readCpuIdentity } from './cpuid.ts';

const here = process.platform === 'linux' && process.arch === 'x64' ? false : 'CPUID is an instruction of x86';
/** Leaves whose answers do not depend on the CPU that is asked. */
const leaves = [[0], [7, 0], [0xd, 1], [0x8000_0000], [0x8000_0001], [0x8000_0008]] as const;

test('the processor says what /proc/cpuinfo says of it', { skip: here }, () => {
  const identity = readCpuIdentity();
  assert.ok(identity);
  const { ebx, ecx, edx } = identity.cpuid(0);
  const name = Buffer.from(new Uint32Array([ebx, edx, ecx]).buffer).toString('latin1');
  assert.equal(/^vendor_id\s*: (.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1], name);
  for (const value of Object.values(identity.cpuid(7, 0))) assert.ok(Number.isInteger(value) && value >= 0);
});

test('leaves and subleaves are those that the kernel reads', { skip: here }, (t) => {
  let fd: number;
  try {
    fd = openSync('/dev/cpu/0/cpuid', 'r');
  } catch {
    return t.skip('/dev/cpu/0/cpuid cannot be read');
  }
  try {
    const identity = readCpuIdentity()!;
    for (const [leaf, subleaf = 0] of leaves) {
      const bytes = Buffer.alloc(16);
      readSync(fd, bytes, 0, 16, (BigInt(subleaf) << 32n) | BigInt(leaf));
      const want = [0, 4, 8, 12].map((at) => bytes.readUInt32LE(at));
      const { eax, ebx, ecx, edx } = identity.cpuid(leaf, subleaf);
      assert.deepEqual([eax, ebx, ecx, edx], want, `leaf ${leaf.toString(16)}.${subleaf}`);
    }
  } finally {
    closeSync(fd);
  }
});
