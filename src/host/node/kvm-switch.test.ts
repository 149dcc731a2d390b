// A running machine between the translator and this machine's /dev/kvm, whatever kind it is: to and fro, over a reset, and back where a
// vCPU cannot be made.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { ioctls } from '../../accel/kvm/abi.ts';
import type { MachineConfig } from '../../machine/config.ts';
import { kvmHost } from './kvm-native.ts';
import { withoutKvm } from './kvm-testing.ts';
import { NodeMachine } from './machine.ts';

const skip = withoutKvm();
const LIMIT = 60_000;

/** Where the guest counts. */
const COUNTER = 0x200000;

/** A multiboot kernel without an ELF around it (flags: addresses are given), at 1 MiB: it counts for ever. */
function kernel(): Uint8Array<ArrayBuffer> {
  const image = new Uint8Array(0x100);
  const d = new DataView(image.buffer);
  const [magic, flags, at] = [0x1badb002, 0x10000, 0x100000];
  [magic, flags, -(magic + flags), at, at, at + image.length, at + image.length, at + 0x40].forEach((word, n) =>
    d.setUint32(4 * n, word >>> 0, true),
  );
  // L: inc dword [COUNTER]; jmp L
  image.set(Buffer.from('ff0500002000ebf8', 'hex'), 0x40);
  return image;
}

/** What this process holds of KVM: descriptors of it, and mappings of vCPUs. */
function held(): string[] {
  const names = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return '';
    }
  });
  const maps = readFileSync('/proc/self/maps', 'latin1').split('\n');
  return [...names, ...maps].filter((line) => /kvm/.test(line) && !/\.node$|\.so/.test(line));
}

/** Takes vCPU 1 of every machine of this process on KVM; of how many that went. */
function takeVcpu1(): number {
  const host = kvmHost();
  let taken = 0;
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      if (readlinkSync(`/proc/self/fd/${fd}`) !== 'anon_inode:kvm-vm') continue;
      const vcpu = host.ioctl(Number(fd), ioctls.createVcpu.request, 1);
      if (vcpu < 0) continue;
      taken++;
      host.close(vcpu);
    } catch {
      // Closed since.
    }
  }
  return taken;
}

/** A machine with two vCPUs, the second of which waits for its start. */
function start(t: TestContext, more: Partial<MachineConfig> = {}) {
  const machine = new NodeMachine({
    config: {
      cpus: 2, memory: 16 << 20, cpuModel: 'max', paravirtual: [], rtcOffset: 0, trace: [], devices: [{ driver: 'virtio-rng-pci' }],
      ...more,
    },
    files: { kernel: kernel(), name: 'kernel', append: '' },
    serial: () => {},
    report: () => {},
    noReboot: false,
  }); // biome-ignore format: one object
  machine.start();
  t.after(async () => {
    machine.quit();
    assert.equal((await machine.ended).kind, 'quit');
  });
  /** The guest goes on: it is seen to count. */
  const goesOn = async (): Promise<void> => {
    const end = performance.now() + LIMIT;
    let last = machine.board.memory.read32(COUNTER);
    for (let changes = 0; changes < 5; ) {
      assert.ok(performance.now() < end, `the guest stands still under ${machine.accel}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
      const now = machine.board.memory.read32(COUNTER);
      if (now !== last) changes++;
      last = now;
    }
  };
  return { machine, goesOn };
}

test('a machine goes to KVM and back while it runs, and can be stopped there after a reset under the translator', { skip, timeout: 3 * LIMIT }, async (t) => {
  const { machine, goesOn } = start(t);
  await goesOn();
  for (const to of ['kvm', 'dbt', 'kvm', 'dbt'] as const) {
    await machine.setAccel(to);
    assert.equal(machine.accel, to);
    await goesOn();
  }
  const again = new Promise<void>((resolve) => machine.subscribe((name) => name === 'RESET' && resolve()));
  machine.reset();
  await again;
  await goesOn();
  await machine.setAccel('kvm');
  await goesOn();
}); // biome-ignore format: one call

test('where a vCPU cannot be made on KVM, all of them go on where they were', { skip, timeout: 3 * LIMIT }, async (t) => {
  const { machine, goesOn } = start(t);
  await goesOn();
  await machine.pause();
  // Between KVM's machine, which is made first, and the vCPUs, which have to be released for it: vCPU 1 is taken already.
  const device = machine.devices.list().find((d) => d.io?.resumed)!;
  const { io } = device;
  let taken = 0;
  device.io = {
    ...io,
    resumed() {
      taken += takeVcpu1();
      io!.resumed!();
    },
  };
  await assert.rejects(
    machine.setAccel('kvm'),
    /^Error: Cannot change the accelerator: Cannot make vCPU 1 on KVM: error 17; the machine goes on with dbt$/,
  );
  assert.ok(taken > 0);
  assert.deepEqual([machine.accel, machine.status], ['dbt', 'paused']);
  machine.resume();
  await goesOn();
});

test('a vCPU that cannot be made on KVM when it is plugged in is refused, and the machine goes on', { skip, timeout: 3 * LIMIT }, async (t) => {
  const { machine, goesOn } = start(t, { machine: 'q35', present: 1 });
  const second = { driver: 'max-x86_64-cpu', id: 'second', 'socket-id': 0, 'core-id': 1, 'thread-id': 0 };
  await machine.setAccel('kvm');
  await goesOn();
  assert.ok(takeVcpu1() > 0);
  await assert.rejects(machine.deviceAdd(second), /^Error: Cannot make vCPU 1 on KVM: error 17$/);
  assert.equal(machine.board.cpus.has(1), false);
  await goesOn();
  await machine.setAccel('dbt');
  await goesOn();
  await machine.deviceAdd(second);
  assert.equal(machine.board.cpus.has(1), true);
  await goesOn();
}); // biome-ignore format: one call

test('machines that have ended hold nothing of KVM', { skip, timeout: 3 * LIMIT }, async (t) => {
  const { machine, goesOn } = start(t);
  await machine.setAccel('kvm');
  await goesOn();
  assert.ok(held().length >= 4, held().join('\n'));
  machine.quit();
  await machine.ended;
  assert.deepEqual(held(), []);
});
