// A running machine between the translator and this machine's /dev/kvm, whatever kind it is: to and fro, over a reset, and back where a
// vCPU cannot be made.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { ioctls } from '../../accel/kvm/abi.ts';
import { lvt } from '../../devices/lapic-state.ts';
import { xcr0 } from '../../isa/x86/state.ts';
import type { MachineConfig } from '../../machine/config.ts';
import { kvmHost } from './kvm-native.ts';
import { withoutKvm } from './kvm-testing.ts';
import { NodeMachine } from './machine.ts';

const skip = withoutKvm();
const LIMIT = 60_000;

/** Where the guest counts. */
const COUNTER = 0x200000;

/** A multiboot kernel without an ELF around it (flags: addresses are given), at 1 MiB: `code` at its offset 0x40, and what else there is. */
function kernel(code: string, more: Readonly<Record<number, string>> = {}): Uint8Array<ArrayBuffer> {
  const image = new Uint8Array(0x1000);
  const d = new DataView(image.buffer);
  const [magic, flags, at] = [0x1badb002, 0x10000, 0x100000];
  [magic, flags, -(magic + flags), at, at, at + image.length, at + image.length, at + 0x40].forEach((word, n) =>
    d.setUint32(4 * n, word >>> 0, true),
  );
  for (const [offset, bytes] of [[0x40, code], ...Object.entries(more)] as const)
    image.set(Buffer.from(bytes.replaceAll(/\s/g, ''), 'hex'), Number(offset));
  return image;
}

/** Counts for ever. L: inc dword [COUNTER]; jmp L */
const counting = kernel('ff0500002000 ebf8');

/** Flat segments and a stack: cli; lgdt [0x100480]; jmp 8:N; N: mov ax,16; mov ds,ax; mov es,ax; mov ss,ax; mov esp,0x300000; lidt [0x100488] */
const FLAT = 'fa 0f011580041000 ea4f0010000800 66b81000 8ed8 8ec0 8ed0 bc00003000 0f011d88041000';
/** The segments, the tables' sizes and places, and the gate of vector 0x20. */
const tables = (handler: string) => ({
  1024: '0000000000000000 ffff0000009bcf00 ffff00000093cf00',
  1152: '1700 00041000 0000 0701 00081000',
  2304: `${handler} 0800 008e 1000`,
});

/**
 * Counts interrupts of the PIT, a hundred a second, which come through the 8259As and LINT0 of the local APIC: all of the board's old chips
 * work together, wherever they are.
 */
const ticking = kernel(
  `${FLAT}
  // The 8259As: vectors 0x20 and 0x28, all masked but input 0
  b011e620e6a0 b020e621b028e6a1 b004e621b002e6a1 b001e621e6a1 b0fee621b0ffe6a1
  // The local APIC: on, LINT0 takes the 8259As' interrupts
  c705f000e0feff010000 c7055003e0fe00070000
  // The PIT: channel 0 in mode 2, 11,932 pulses; sti; L: hlt; jmp L
  b034e643 b09ce640b02ee640 fb f4 ebfd`.replaceAll(/\/\/.*/g, ''),
  {
    ...tables('c004'),
    // push eax; inc dword [COUNTER]; mov al,0x20; out 0x20,al; pop eax; iret
    1216: '50 ff0500002000 b020e620 58 cf',
  },
);

/** Where the guest below counts interrupts that came before their time. */
const EARLY = COUNTER + 4;
/**
 * Counts interrupts of the local APIC's timer, which goes by a time-stamp counter that the guest has set 2^40 ahead: each one sets the next deadline,
 * ten million further on.
 */
const deadlines = kernel(
  `${FLAT}
  // Both 8259As masked; the local APIC: on, timer by deadline, vector 0x20
  b0ffe621e6a1 c705f000e0feff010000 c7052003e0fe20000400
  // rdtsc; add edx,0x100; mov ecx,0x10; wrmsr; call A; sti; L: hlt; jmp L
  0f31 81c200010000 b910000000 0f30 e832000000 fb f4 ebfd
  // pusha; rdtsc; sub eax,[D]; sbb edx,[D+4]; jnc N; inc dword [EARLY]
  60 0f31 2b0508002000 1b150c002000 7306 ff0504002000
  // N: call A; mov dword [0xfee000b0],0; inc dword [COUNTER]; popa; iret
  e812000000 c705b000e0fe00000000 ff0500002000 61 cf
  // A: rdtsc; add eax,10000000; adc edx,0; mov [D],eax; mov [D+4],edx; mov ecx,0x6e0; wrmsr; ret
  0f31 0580969800 83d200 a308002000 89150c002000 b9e0060000 0f30 c3`.replaceAll(/\/\/.*/g, ''),
  tables('9700'),
);

/** Counts as `counting`, once it has sent vCPU 1 INIT and one SIPI with its first instructions; that one leaves its mark at 0x7000. */
const waking = kernel(
  `// mov dword [0x8000],0x700006c6; mov word [0x8004],0xf401: mov byte [0x7000],1; hlt
  c70500800000c6060070 66c7050480000001f4
  // The local APIC: on; INIT and SIPI to 0x8000 for all others; jmp L
  c705f000e0feff010000 c7050003e0fe00450c00 c7050003e0fe08460c00
  ff0500002000 ebf8`.replaceAll(/\/\/.*/g, ''),
);

/**
 * Interrupts itself by the APM port of a PIIX4 for ever. The handler, at 0x38000, counts at COUNTER, the program in EBX behind it. Memory tells what of the
 * registers came back otherwise: at COUNTER + 8.
 */
const managing = kernel(
  `// mov dword [0x38000],...: inc dword [COUNTER]; xor ebx,ebx; rsm
  c70500800300 6766ff05 c70504800300 00002000 c70508800300 6631db0f 66c7050c800300aa90
  // PCI configuration of function 1.3, register 0x5b: SMIs by APM
  66baf80c b8580b0080 ef 66baff0c ec 0c02 ee
  // xor ebx,ebx; L: inc ebx; mov ecx,ebx; mov al,0x55; out 0xb2,al; jmp M; M: cmp ecx,ebx; je N; inc dword [COUNTER+8]; N: mov [COUNTER+4],ebx; jmp L
  31db 43 89d9 b055 e6b2 eb00 39d9 7406 ff0508002000 891d04002000 ebe5`.replaceAll(/\/\/.*/g, ''),
);

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
function start(t: TestContext, more: Partial<MachineConfig> = {}, image = counting) {
  const machine = new NodeMachine({
    config: {
      cpus: 2, memory: 16 << 20, cpuModel: 'max', paravirtual: [], rtcOffset: 0, trace: [], devices: [{ driver: 'virtio-rng-pci' }],
      ...more,
    },
    files: { kernel: image, name: 'kernel', append: '' },
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

test('system management mode goes with a machine to KVM and back', { skip, timeout: 3 * LIMIT }, async (t) => {
  const { machine, goesOn } = start(t, { machine: 'pc', smm: true }, managing);
  const { memory } = machine.board;
  for (const to of ['dbt', 'kvm', 'dbt', 'kvm'] as const) {
    await machine.setAccel(to);
    await goesOn();
    const [interrupts, rounds, wrong] = await machine.hold(() => [0, 4, 8].map((at) => memory.read32(COUNTER + at)));
    assert.ok([0, 1].includes(interrupts! - rounds!), `${interrupts} interrupts in ${rounds} rounds under ${to}`);
    assert.equal(wrong, 0, `registers under ${to}`);
  }
});

for (const irqchip of ['on', 'split', 'off'] as const)
  test(`a vCPU that is called at once is there, and once more after a reset: kernel-irqchip=${irqchip}`, { skip, timeout: 3 * LIMIT }, async (t) => {
    const { machine, goesOn } = start(t, { accel: 'kvm', irqchip }, waking);
    for (let n = 0; n < 3; n++) {
      await goesOn();
      const end = performance.now() + LIMIT;
      while (machine.board.memory.read8(0x7000) !== 1) {
        assert.ok(performance.now() < end, 'the second vCPU does not run');
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      machine.board.lock.run(() => machine.board.memory.write8(0x7000, 0));
      const again = new Promise<void>((resolve) => machine.subscribe((name) => name === 'RESET' && resolve()));
      machine.reset();
      await again;
    }
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

test('a guest whose state KVM does not keep stays where it is, and the line says what it uses', { skip, timeout: 3 * LIMIT }, async (t) => {
  const { machine, goesOn } = start(t);
  await goesOn();
  await machine.pause();
  // A component that no processor has.
  machine.vcpuState(0).setBigUint64(xcr0.offset, (1n << 62n) | 7n, true);
  machine.stateChanged();
  await assert.rejects(
    machine.setAccel('kvm'),
    /^Error: Cannot change the accelerator: Cannot run the guest on this KVM: it uses state that KVM does not keep here \(.*\); accepted is a CPU model without it(, such as -cpu max,-.*)?; the machine goes on with dbt$/,
  );
  machine.resume();
  await goesOn();
}); // biome-ignore format: one call

test('a saved state that KVM does not keep is refused before anything of it is loaded, and the machine goes on', { skip, timeout: 3 * LIMIT }, async (t) => {
  const { machine, goesOn } = start(t);
  await goesOn();
  await machine.pause();
  const slot = machine.vcpuState(0);
  const own = slot.getBigUint64(xcr0.offset, true);
  slot.setBigUint64(xcr0.offset, (1n << 62n) | 7n, true);
  const parts: Uint8Array[] = [];
  for await (const part of machine.saveState()) parts.push(part.slice());
  const saved = (async function* () { yield* parts; });
  await machine.checkState(saved());
  slot.setBigUint64(xcr0.offset, own, true);
  machine.stateChanged();
  await machine.setAccel('kvm');
  machine.resume();
  await goesOn();
  const refused = /^Error: Cannot run the guest on this KVM: it uses state that KVM does not keep here /;
  await assert.rejects(machine.checkState(saved()), refused);
  await goesOn();
  await machine.pause();
  await assert.rejects(machine.loadState(saved()), refused);
  machine.resume();
  await goesOn();
}); // biome-ignore format: one call

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

for (const irqchip of ['on', 'split'] as const) {
  test(`timers go by the counter that the guest has set, over changes of the accelerator and pauses: kernel-irqchip=${irqchip}`, { skip, timeout: 6 * LIMIT }, async (t) => {
    const { machine, goesOn } = start(t, { irqchip }, deadlines);
    await goesOn();
    for (const to of ['kvm', 'dbt', 'kvm', 'dbt'] as const) {
      await machine.setAccel(to);
      await goesOn();
      await machine.pause();
      machine.resume();
      await goesOn();
      assert.equal(machine.board.memory.read32(EARLY), 0, `interrupts before their time under ${to}`);
    }
  });
} // biome-ignore format: titles in one line

for (const irqchip of ['on', 'split', 'off'] as const) {
  test(`interrupts of the board's old chips go on over changes of the accelerator, saved states and resets: kernel-irqchip=${irqchip}`, { skip, timeout: 6 * LIMIT }, async (t) => {
    const { machine, goesOn } = start(t, { irqchip }, ticking);
    await goesOn();
    for (const to of ['kvm', 'dbt', 'kvm'] as const) {
      await machine.setAccel(to);
      await goesOn();
    }
    assert.equal(machine.board.apicBus.remote?.chips !== undefined, irqchip === 'on');
    // What monitors show of the local APIC is the kernel's.
    const { lint0, svr } = await machine.hold(() => ({ lint0: machine.board.lapics[0]!.s.lvt[lvt.lint0], svr: machine.board.lapics[0]!.s.svr }));
    assert.deepEqual([lint0, svr], [0x700, 0x1ff]);
    await machine.pause();
    const parts: Uint8Array[] = [];
    for await (const part of machine.saveState()) parts.push(part.slice());
    // What the guest has set up is in what was saved, wherever the chips are.
    assert.deepEqual([machine.board.pic.chip(0).base, machine.board.pic.chip(0).imr], [0x20, 0xfe]);
    assert.deepEqual([machine.board.pit.s.channels[0]!.mode, machine.board.pit.s.channels[0]!.count], [2, 11932]);
    machine.resume();
    await goesOn();
    await machine.pause();
    await machine.loadState((async function* () { yield* parts; })());
    machine.resume();
    await goesOn();
    const again = new Promise<void>((resolve) => machine.subscribe((name) => name === 'RESET' && resolve()));
    machine.reset();
    await again;
    await goesOn();
  });
} // biome-ignore format: titles in one line
