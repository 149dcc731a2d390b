// Privileged unit tests: images in the shape of KVM's unit tests, which print PASS and FAIL on the serial port and leave by isa-debug-exit.
// Each test of an image is one line of its output. With UNITS_EMULATOR=qemu-system-x86_64 the same images run there.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { program } from '../e2e/program.ts';
import { build, cannotBuild } from './build.ts';

const EMULATOR = process.env.UNITS_EMULATOR ?? 'nonroot-system-x86_64';
const MACHINE =
  '-nodefaults -device pc-testdev -device isa-debug-exit,iobase=0xf4,iosize=0x4 -display none -serial stdio -no-reboot';

/** Images with what their command lines add. */
const images: readonly (readonly [name: string, about: string, args: string])[] = [
  ['faults', 'exceptions: vectors, error codes, saved flags and addresses', '-cpu max'],
  ['debug', 'debug registers and single step', '-cpu max'],
  ['paging', 'rights of pages, protection keys, SMEP, SMAP, PCID, UMIP', '-cpu max'],
  ['paging', 'the same where the CPU model has none of these', '-cpu qemu64'],
  ['msr', 'model-specific registers and XCR0: what is kept, what is refused', '-cpu max'],
  ['apic', 'the local APIC: modes, IPIs, NMIs, priorities, timers', '-cpu max -smp 2'],
  ['litmus', 'memory order, locked operations and changing code between two vCPUs', '-cpu max -smp 2'],
];

const skip = cannotBuild();
for (const [name, about, args] of images) {
  test(`unit tests "${name}": ${about}`, { skip }, async () => {
    const r = await program(EMULATOR, [...`${MACHINE} ${args}`.split(' '), '-kernel', build(name)], { seconds: 120 });
    const lines = r.stdout.toString().split(/\r?\n/);
    assert.ok(
      lines.some((line) => line.startsWith('SUMMARY: ')),
      `the image did not come to its end\n${r.text}`,
    );
    assert.deepEqual(
      lines.filter((line) => line.startsWith('FAIL')),
      [],
      r.text,
    );
    assert.equal(r.code, 1, r.text);
  });
}
