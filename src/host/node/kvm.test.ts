// KVM vCPUs on this machine's /dev/kvm, whatever kind it is: small programs, exits, kicks, state to and fro.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { after, before, type TestContext, test } from 'node:test';
import type { Vcpu, VcpuBus, VcpuExit } from '../../accel/accel.ts';
import { createMemory, layoutOf } from '../../accel/dbt/layout.ts';
import { block, deviceAttrLayout, ioctls } from '../../accel/kvm/abi.ts';
import { giveAllBack, holdingOf } from '../../accel/kvm/holdings.ts';
import { probeKvm } from '../../accel/kvm/probe.ts';
import { KvmRegions } from '../../accel/kvm/regions.ts';
import { KvmVcpu, makeVcpu } from '../../accel/kvm/vcpu.ts';
import { KvmVm } from '../../accel/kvm/vm.ts';
import type { PortRegisters } from '../../bus/port-registers.ts';
import type { PlacedBell } from '../../bus/space.ts';
import { cpuModel } from '../../isa/x86/cpu-model.ts';
import { cpuid } from '../../isa/x86/cpuid.ts';
import { Activity, kick } from '../../isa/x86/state.ts';
import type { Board } from '../../machine/board.ts';
import { kvmHost } from './kvm-native.ts';
import { withoutKvm } from './kvm-testing.ts';

const skip = withoutKvm();

const memory = 2 << 20;
const layout = layoutOf(memory, 1);
const wasm = new WebAssembly.Memory({ initial: layout.pages, maximum: layout.pages, shared: true });
const bytes = new Uint8Array(wasm.buffer);

/** A bus that notes what it is asked. Reads give the low bits of the address times 0x11. */
class Noting implements VcpuBus {
  log: string[] = [];
  tpr = 0;
  interrupts: number[] = [];
  portIn(port: number, n: number): number {
    this.log.push(`in ${port.toString(16)} ${n}`);
    return 0x5a;
  }
  portOut(port: number, n: number, value: number): void {
    this.log.push(`out ${port.toString(16)} ${n} ${value.toString(16)}`);
  }
  calledPort = 0x5658;
  callPort(r: PortRegisters): void {
    this.log.push(`call ${r.eax.toString(16)} ${r.ebx.toString(16)} ${r.ecx.toString(16)}`);
    [r.eax, r.ebx, r.edi] = [r.ebx + 1, 0xfedc_ba98, r.ecx];
  }
  mmioRead(gpa: number, n: number): bigint {
    this.log.push(`read ${gpa.toString(16)} ${n}`);
    return 0x1122334455667788n & ((1n << BigInt(8 * n)) - 1n);
  }
  mmioWrite(gpa: number, n: number, value: bigint): void {
    this.log.push(`write ${gpa.toString(16)} ${n} ${value.toString(16)}`);
  }
  rdmsr = () => undefined;
  wrmsr = () => false;
  cpuid = (leaf: number, subleaf: number, state: { cr4: bigint; xcr0: bigint }) =>
    cpuid(
      { model: cpuModel('max'), topology: { threads: 1, cores: 1, sockets: 1 }, index: 0, tscKhz: 1_000_000, kvm: null },
      leaf, subleaf, state,
    ); // biome-ignore format: one call
  hypercall = () => undefined;
  tsc = () => BigInt(Math.floor(performance.now() * 1e6));
  random = () => 4n;
  pending = () => this.interrupts.length > 0;
  takeUnhalt = () => false;
  acknowledge = () => this.interrupts.shift() ?? -1;
}

let vm: KvmVm;
let vcpu: KvmVcpu;
const bus = new Noting();
before(() => {
  if (skip) return;
  vm = KvmVm.create(kvmHost(), 'off', { bells: true, coalesced: { port: 0xcf8, size: 4 } });
  new KvmRegions(vm, wasm.buffer, layout).update();
  vcpu = new KvmVcpu({
    vm,
    memory: wasm.buffer,
    layout,
    index: 0,
    bus,
    coalesced(take) {
      for (let w = take(); w; w = take()) bus.portOut(w.port, w.size, w.value);
    },
  });
});
after(() => {
  vcpu?.close();
  vm?.close();
});

/** A machine whose local APICs alone are the kernel's; undefined, and the test skipped, where this KVM has none. */
function splitVm(t: TestContext): KvmVm | undefined {
  const split = KvmVm.create(kvmHost(), 'split');
  if (split.share.irqchip === 'split') return split;
  split.close();
  t.skip('this KVM has no local APIC for a board with other chips of its own');
  return undefined;
}

/** Puts real-mode code, given as hexadecimal bytes, at 0x1000, where the vCPU goes on. */
function place(code: string): void {
  bytes.set(Buffer.from(code.replaceAll(' ', ''), 'hex'), layout.ramBase + 0x1000);
  vcpu.reset();
  vcpu.set('cs.selector', 0n);
  vcpu.set('cs.base', 0n);
  vcpu.set('rip', 0x1000n);
  vcpu.sync();
  bus.log = [];
}
/** Runs such code up to its HLT. */
function real(code: string): string[] {
  place(code);
  for (let n = 0; n < 100; n++) if (vcpu.run(0, Number.POSITIVE_INFINITY) === 'hlt') return bus.log;
  throw new Error(`the program does not halt: ${bus.log.join(', ')}`);
}

test('port accesses of each width, and those of string instructions, reach the bus', { skip }, () => {
  // mov dx,0x3f8; mov eax,0x12345678; out dx,al; out dx,ax; out dx,eax; in al,0x71; out 0x80,al; mov si,0x1100; mov cx,3; rep outsb; hlt
  bytes.set([1, 2, 3], layout.ramBase + 0x1100);
  const log = real('baf803 66b878563412 ee ef 66ef e471 e680 be0011 b90300 f36e f4');
  assert.deepEqual(log, [
    'out 3f8 1 78',
    'out 3f8 2 5678',
    'out 3f8 4 12345678',
    'in 71 1',
    'out 80 1 5a',
    'out 3f8 1 1',
    'out 3f8 1 2',
    'out 3f8 1 3',
  ]);
});

test('a port that is called has the general registers, and what it leaves in them', { skip }, () => {
  // mov dx,0x5658; mov eax,0x564d5868; mov ebx,0x11223344; mov ecx,10; in eax,dx; mov ecx,ebx; mov ebx,0x77; in al,dx; mov esi,eax; out dx,al; hlt
  const log = real('ba5856 66b868584d56 66bb44332211 66b90a000000 66ed 6689d9 66bb77000000 ec 6689c6 ee f4');
  assert.deepEqual(log, ['call 564d5868 11223344 a', 'call 11223345 77 fedcba98', 'call 78 fedcba98 fedcba98']);
  const low = ['rax', 'rbx', 'rcx', 'rsi', 'rdi'].map((name) => vcpu.get(name) & 0xffff_ffffn);
  assert.deepEqual(low, [0xfedc_ba99n, 0xfedc_ba98n, 0xfedc_ba98n, 0x78n, 0xfedc_ba98n]);
});

test('writes to coalesced ports wait for the next exit, keep their order and their sizes, and are no exits', { skip }, (t) => {
  if (vm.share.coalesced === undefined) return t.skip('this kernel has no coalesced ports');
  const before = vcpu.exits.read().io?.exits ?? 0;
  // mov dx,0xcf8; mov eax,0x80001234; out dx,eax; mov dx,0xcf9; mov al,6; out dx,al; mov dx,0xcfc; in al,dx; mov dx,0xcfa; out dx,ax; hlt
  const log = real('baf80c 66b834120080 66ef baf90c b006 ee bafc0c ec bafa0c ef f4');
  assert.deepEqual(log, ['out cf8 4 80001234', 'out cf9 1 6', 'in cfc 1', 'out cfa 2 125a']);
  assert.equal((vcpu.exits.read().io?.exits ?? 0) - before, 1);
  // More than wait together: mov dx,0xcf8; mov cx,300; 1: mov ax,cx; out dx,ax; loop 1b; hlt
  const many = real('baf80c b92c01 89c8 ef e2fb f4');
  assert.deepEqual(
    many,
    Array.from({ length: 300 }, (_, n) => `out cf8 2 ${(300 - n).toString(16)}`),
  );
});

test('a write to a coalesced port does not wait for an exit that never comes', { skip }, () => {
  // mov dx,0xcf8; mov al,1; out dx,al; jmp $
  place('ba f8 0c  b0 01  ee  eb fe');
  for (let n = 0; n < 100 && bus.log.length === 0; n++) vcpu.run(0, Number.POSITIVE_INFINITY);
  assert.deepEqual(bus.log, ['out cf8 1 1']);
});

test('exits are counted by reason, and the time outside of the guest with them', { skip }, () => {
  const before = vcpu.exits.read();
  // out 0x80,al; out 0x80,al; in al,0x80; hlt
  real('e680 e680 e480 f4');
  const { io, hlt } = vcpu.exits.read();
  assert.equal(io!.exits - (before.io?.exits ?? 0), 3);
  assert.equal(hlt!.exits - (before.hlt?.exits ?? 0), 1);
  assert.ok(io!.ns > (before.io?.ns ?? 0));
});

test('what KVM cannot emulate ends in one line with the place and the bytes of the instruction', { skip }, () => {
  // mov ebx,0x300000; fld tbyte [ebx]: no emulator of KVM's loads an x87 register from where no RAM is.
  vcpu.reset();
  bytes.set(Buffer.from('66bb00003000 67db2b f4'.replaceAll(' ', ''), 'hex'), layout.ramBase + 0x1000);
  vcpu.set('cs.selector', 0n);
  vcpu.set('cs.base', 0n);
  vcpu.set('ds.limit', 0xffffffffn);
  vcpu.set('ds.attr', 0x8093n);
  vcpu.set('rip', 0x1000n);
  assert.throws(() => {
    for (let n = 0; n < 10 && vcpu.run(0, 1e8) !== 'hlt'; n++);
  }, /^Error: Cannot go on with a KVM vCPU: .* at rip 0x1006, instruction bytes 67 db 2b/);
});

/** Runs until something else than a kick or the timer. */
function exitOf(): string {
  for (let n = 0; n < 20; n++) {
    const exit = vcpu.run(0, 1e8);
    if (exit !== 'interrupted') return exit;
  }
  return 'interrupted';
}

test('a debugger outside of the guest has its breakpoints, watchpoints and steps', { skip }, async () => {
  const { GuestDebug } = await import('../../isa/x86/state.ts');
  // 1000: mov al,1; 1002: inc ax; 1003: mov [0x1200],al; 1006: int3; 1007: hlt
  bytes.set(Buffer.from('b001 40 a20012 cc f4'.replaceAll(' ', ''), 'hex'), layout.ramBase + 0x1000);
  vcpu.reset();
  vcpu.set('cs.selector', 0n);
  vcpu.set('cs.base', 0n);
  vcpu.set('rip', 0x1000n);
  vcpu.set('guestDebug', BigInt(GuestDebug.db | GuestDebug.step));
  const seen: bigint[] = [];
  for (let n = 0; n < 2; n++) {
    assert.equal(exitOf(), 'debug');
    seen.push(vcpu.get('rip'));
    vcpu.sync();
  }
  assert.deepEqual(seen, [0x1002n, 0x1003n], 'steps');
  // QEMU's emulated AMD-V takes no account of a DR7 that VMRUN loads, and INT3 does not leave its guests.
  const qemu = readFileSync('/proc/cpuinfo', 'latin1').includes('QEMU TCG');
  // A KVM that emulates ring 0 delivers INT3 to the guest, whatever was asked of it.
  if (!qemu && probeKvm(kvmHost()).why === undefined) {
    vcpu.set('guestDebug', BigInt(GuestDebug.bp));
    assert.equal(exitOf(), 'debug');
    assert.equal(vcpu.get('rip'), 0x1006n, 'INT3');
  }
  if (!qemu) {
    vcpu.set('rip', 0x1000n);
    vcpu.set('guestDebug', BigInt(GuestDebug.db | GuestDebug.registers));
    vcpu.set('dr0', 0x1002n);
    vcpu.set('dr7', 0x402n);
    assert.equal(exitOf(), 'debug');
    assert.deepEqual([vcpu.get('rip'), vcpu.get('dr6') & 0xfn], [0x1002n, 1n], 'DR0');
    vcpu.set('dr7', 0x400n);
  }
  vcpu.set('rip', 0x1007n);
  vcpu.set('guestDebug', 0n);
  assert.equal(exitOf(), 'hlt');
});

test('accesses outside RAM are MMIO, split into powers of two', { skip }, () => {
  // mov ax,0xd000... RAM is 2 MiB, so use 32-bit address 0x300004: mov ebx,0x300004; a32 mov [ebx],ax needs a big limit.
  vcpu.reset();
  bytes.set(Buffer.from('66bb04003000 67668903 67668b4b02 f4'.replaceAll(' ', ''), 'hex'), layout.ramBase + 0x1000);
  vcpu.set('cs.selector', 0n);
  vcpu.set('cs.base', 0n);
  vcpu.set('ds.limit', 0xffffffffn);
  vcpu.set('ds.attr', 0x8093n);
  vcpu.set('rax', 0xcafef00dn);
  vcpu.set('rip', 0x1000n);
  bus.log = [];
  for (let n = 0; n < 100 && vcpu.run(0, Number.POSITIVE_INFINITY) !== 'hlt'; n++);
  assert.deepEqual(bus.log.slice(0, 1), ['write 300004 4 cafef00d']);
  assert.ok(bus.log.length >= 2, bus.log.join(', '));
});

test('state that is put in comes back, and a register that the guest changes is seen', { skip }, () => {
  // inc eax; mov bl,[0x1200]; stc; hlt
  bytes[layout.ramBase + 0x1200] = 0x77;
  vcpu.reset();
  bytes.set(Buffer.from('6640 8a1e0012 f9 f4'.replaceAll(' ', ''), 'hex'), layout.ramBase + 0x1000);
  const given: Record<string, bigint> = {
    rax: 41n, r9: 0x123456789abcdef0n, 'cs.selector': 0n, 'cs.base': 0n, rip: 0x1000n, kernelGsBase: 0xffff888000000000n,
    lstar: 0xffffffff81000000n, star: 0x0023001000000000n, cr2: 0xdeadn, fpCw: 0x37fn, fpTop: 5n, fpValid: 0xe0n, mxcsr: 0x1fa0n,
    'r5.mant': 0x8000000000000000n, 'r5.exp': 0x3fffn, xmm3: 0x112233445566778899aabbccddeeff00n, pat: 0x0007010600070106n, dr0: 0x1234n,
  }; // biome-ignore format: a table
  for (const [name, value] of Object.entries(given)) vcpu.set(name, value);
  for (let n = 0; n < 100 && vcpu.run(0, Number.POSITIVE_INFINITY) !== 'hlt'; n++);
  for (const [name, value] of Object.entries(given)) {
    if (name === 'rax' || name === 'rip') continue;
    assert.equal(vcpu.get(name), value, name);
  }
  assert.equal(vcpu.get('rax'), 42n);
  assert.equal(vcpu.get('rbx') & 0xffn, 0x77n);
  assert.equal(vcpu.get('fC'), 1n);
  assert.equal(vcpu.get('rip'), 0x1008n);
});

test('an interrupt is injected once the guest lets it in, and wakes it from HLT', { skip }, () => {
  // IVT entry 0x20 -> 0000:1080: out 0x80,al; iret.   Main: mov sp,0x8000; mov al,7; nop; sti; hlt; out 0x81,al; cli; hlt
  bytes.set([0x80, 0x10, 0, 0], layout.ramBase + 0x20 * 4);
  bytes.set(Buffer.from('e680cf', 'hex'), layout.ramBase + 0x1080);
  bus.interrupts = [0x20];
  const log = real('bc0080 b007 90 fb f4 e681 fa f4');
  assert.deepEqual(log, ['out 80 1 7', 'out 81 1 7']);
  assert.deepEqual(bus.interrupts, []);
});

test('an interrupt of the 8259As that was given to a vCPU, which then did not run, is in its state: the local APIC in the kernel', { skip }, (t) => {
  const split = splitVm(t);
  if (!split) return;
  const own = new WebAssembly.Memory({ initial: layout.pages, maximum: layout.pages, shared: true });
  const ram = new Uint8Array(own.buffer, layout.ramBase);
  const words = new Int32Array(own.buffer);
  new KvmRegions(split, own.buffer, layout).update();
  const board = new Noting();
  const guest = new KvmVcpu({ vm: split, memory: own.buffer, layout, index: 0, bus: board });
  try {
    // Vector 0x20: iret.   Main: mov sp,0x8000; sti; L: hlt; inc word [0x1200]; jmp L
    ram.set([0x80, 0x10, 0, 0], 0x20 * 4);
    ram.set([0xcf], 0x1080);
    ram.set(Buffer.from('bc0080fbf4ff060012ebf9', 'hex'), 0x1000);
    for (const [name, value] of [['cs.selector', 0n], ['cs.base', 0n], ['rip', 0x1000n]] as const) guest.set(name, value);
    // It halts in the kernel, and would take an interrupt.
    for (let n = 0; n < 20; n++) assert.equal(guest.run(0, 1e7), 'interrupted');
    assert.deepEqual([guest.get('activity'), guest.get('inFlight'), guest.get('rip')], [1n, 0n, 0x1005n]);
    guest.sync();
    for (let n = 0; n < 5; n++) assert.equal(guest.run(0, 1e7), 'interrupted');
    board.interrupts = [0x20];
    Atomics.store(words, (layout.vcpuBase + kick.offset) >> 2, 1);
    assert.equal(guest.run(0, 1e7), 'interrupted');
    assert.deepEqual(board.interrupts, [], 'it was acknowledged');
    assert.deepEqual([guest.get('inFlight'), guest.get('activity')], [0x20n, 0n]);
    // The state goes back as if it had been elsewhere, and is asked for again before the guest runs: the guest takes it, once.
    guest.sync();
    guest.load();
    assert.deepEqual([guest.get('inFlight'), guest.get('activity')], [0x20n, 0n]);
    for (let n = 0; n < 20; n++) assert.equal(guest.run(0, 1e7), 'interrupted');
    assert.equal(ram[0x1200], 1);
    assert.deepEqual([guest.get('inFlight'), guest.get('rip')], [0n, 0x1005n]);
  } finally {
    guest.close();
    split.close();
  }
}); // biome-ignore format: titles in one line

test('an INIT and a SIPI that a vCPU is sent before its thread has come are kept: the local APIC in the kernel', { skip }, (t) => {
  const split = splitVm(t);
  if (!split) return;
  const two = layoutOf(memory, 2);
  const own = new WebAssembly.Memory({ initial: two.pages, maximum: two.pages, shared: true });
  const ram = new Uint8Array(own.buffer, two.ramBase);
  new KvmRegions(split, own.buffer, two).update();
  const held = [0, 1].map((n) => holdingOf(own.buffer, two, n));
  const fds = held.map((h, n) => makeVcpu(split, h, n));
  assert.deepEqual(held.map((h, n) => makeVcpu(split, h, n)), fds, 'once'); // biome-ignore format: one line
  try {
    // mov byte [0x7000],1; cli; hlt
    ram.set(Buffer.from('c606007001faf4', 'hex'), 0x8000);
    // The first vCPU brings its state, with which the kernel's table of local APICs comes to hold all.
    const page = new Uint8Array(1024);
    for (const name of ['getLapic', 'setLapic'] as const) assert.equal(split.host.ioctl(fds[0]!, ioctls[name].request, page), 0);
    assert.ok(split.signalMsi(0xfee0_1000, 0x4500) > 0, 'INIT');
    assert.ok(split.signalMsi(0xfee0_1000, 0x4608) > 0, 'SIPI, to 0x8000');
    // Its IA32_APIC_BASE: not of the first vCPU.
    const board = Object.assign(new Noting(), { rdmsr: (msr: number) => (msr === 0x1b ? 0xfee0_0800n : undefined) });
    const guest = new KvmVcpu({ vm: split, memory: own.buffer, layout: two, index: 1, bus: board });
    try {
      assert.equal(guest.fd, fds[1]);
      guest.set('activity', BigInt(Activity.waitsForSipi));
      guest.load(undefined, true);
      for (let n = 0; n < 20 && ram[0x7000] === 0; n++) assert.equal(guest.run(0, 1e7), 'interrupted');
      assert.equal(ram[0x7000], 1);
      assert.deepEqual([guest.get('cs.selector'), guest.get('rip')], [0x800n, 7n]);
    } finally {
      guest.close();
    }
  } finally {
    giveAllBack(split.host, own.buffer, two);
    split.close();
  }
}); // biome-ignore format: titles in one line

/**
 * A vCPU in real mode, at `code` in 0x1000, whose local APIC is the kernel's; `translate` executes in the translator's place the instruction that KVM cannot. It
 * is run until it says `until` on port 0x80.
 */
function assisted(t: TestContext, code: string, translate: (set: (name: string, value: bigint) => void, vm: KvmVm) => VcpuExit): string[] | undefined {
  const split = splitVm(t);
  if (!split) return undefined;
  const own = new WebAssembly.Memory({ initial: layout.pages, maximum: layout.pages, shared: true });
  const ram = new Uint8Array(own.buffer, layout.ramBase);
  new KvmRegions(split, own.buffer, layout).update();
  const board = new Noting();
  const page = (): Uint8Array => {
    const bytes = new Uint8Array(1024);
    assert.equal(split.host.ioctl(guest.fd, ioctls.getLapic.request, bytes), 0);
    return bytes;
  };
  const translator = { forget: () => {}, sync: () => {}, run: () => translate((name, value) => guest.set(name, value), split) };
  const guest: KvmVcpu = new KvmVcpu({
    ...{ vm: split, memory: own.buffer, layout, index: 0, bus: board },
    apic: { save: () => ({ page: page(), deadline: 0n }), load: () => {}, clear: () => {} },
    assist: () => translator as unknown as Vcpu & { forget(): void },
  });
  try {
    // Vector 2: out 0x82,al; jmp back by what the stack has.   Vector 0x30: out 0x83,al; the same. IRET may be what KVM cannot emulate.
    for (const [vector, at, port] of [[2, 0x1080, 0x82], [0x30, 0x10a0, 0x83]] as const) {
      ram.set([at & 0xff, at >> 8, 0, 0], 4 * vector);
      ram.set([0xe6, port, 0xca, 2, 0], at);
    }
    ram.set(Buffer.from(code.replaceAll(' ', ''), 'hex'), 0x1000);
    const places = { 'cs.selector': 0n, 'cs.base': 0n, 'ds.limit': 0xffffffffn, 'ds.attr': 0x8093n, rsp: 0x8000n, rip: 0x1000n };
    for (const [name, value] of Object.entries(places)) guest.set(name, value);
    for (let n = 0; n < 50 && !board.log.some((line) => line.startsWith('out 80')); n++) assert.equal(guest.run(0, 2e7), 'interrupted');
    return board.log;
  } finally {
    guest.close();
    giveAllBack(split.host, own.buffer, layout);
    split.close();
  }
} // biome-ignore format: lists in one line

test("the local APIC's mode and priority, and an NMI that came meanwhile, are there when the translator has executed what KVM cannot", { skip }, (t) => {
  // wrmsr 0x1b: x2APIC's mode; wrmsr 0x80f: on; wrmsr 0x808: priority 0x20; mov ebx,0x300000; fld tbyte [ebx]; rdmsr 0x808; out 0x80,eax
  const log = assisted(t, `66b91b000000 0f32 660d00040000 0f30  66b90f080000 66b8ff010000 6631d2 0f30  66b908080000 66b820000000 6631d2 0f30
    66bb00003000 67db2b  66b908080000 0f32 66e780 f4`.replaceAll(/\s/g, ''), (set, vm) => {
    set('rip', 0x1000n + 0x3bn);
    assert.ok(vm.signalMsi(0xfee0_0000, 0x400) > 0, 'NMI');
    return 'interrupted';
  });
  if (log) assert.deepEqual(log, ['out 82 1 20', 'out 80 4 20']);
}); // biome-ignore format: titles in one line

test('a vCPU that the translator has halted wakes: the local APIC in the kernel', { skip }, (t) => {
  // wrmsr 0x1b: x2APIC's mode; wrmsr 0x80f: on; sti; mov ebx,0x300000; fld tbyte [ebx]; out 0x80,al
  const log = assisted(t, '66b91b000000 0f32 660d00040000 0f30  66b90f080000 66b8ff010000 6631d2 0f30 fb 66bb00003000 67db2b b007 e680 f4', (set, vm) => {
    set('rip', 0x1000n + 0x2bn);
    set('activity', BigInt(Activity.halted));
    assert.ok(vm.signalMsi(0xfee0_0000, 0x30) > 0);
    return 'hlt';
  });
  if (log) assert.deepEqual(log, ['out 83 1 ff', 'out 80 1 7']);
}); // biome-ignore format: titles in one line

test('a program in long mode runs', { skip }, async () => {
  const { longMode } = await import('./kvm-testing.ts');
  longMode(
    bytes,
    layout.ramBase,
    (name, value) => vcpu.set(name, value),
    () => vcpu.reset(),
  );
  bus.log = [];
  for (let n = 0; n < 100 && vcpu.run(0, Number.POSITIVE_INFINITY) !== 'hlt'; n++);
  assert.deepEqual(bus.log, ['out 80 4 2a']);
  assert.equal(vcpu.get('r10'), 0x1_0000_0000n);
});

test('a loop without an exit is interrupted by another thread, by the timer, and by a flag that was set before', {
  skip,
}, async () => {
  // jmp $
  vcpu.reset();
  bytes.set([0xeb, 0xfe], layout.ramBase + 0x1000);
  vcpu.set('cs.selector', 0n);
  vcpu.set('cs.base', 0n);
  vcpu.set('rip', 0x1000n);
  const { Worker } = await import('node:worker_threads');
  const words = new Int32Array(wasm.buffer);
  const { hostThread, hostEntered } = await import('../../isa/x86/state.ts');
  for (let n = 0; n < 20; n++) {
    assert.equal(vcpu.run(0, 2e6), 'interrupted');
  }
  const tid = Atomics.load(words, (layout.vcpuBase + hostThread.offset) >> 2);
  /** Runs that have ended. */
  const seen = new Int32Array(new SharedArrayBuffer(4));
  const kicker = new Worker(
    new URL(
      `data:text/javascript,${encodeURIComponent(`
        import { parentPort, workerData } from 'node:worker_threads';
        const { kvmHost } = await import(workerData.module);
        const words = new Int32Array(workerData.buffer);
        const host = kvmHost();
        parentPort.postMessage('ready');
        for (let n = 0; n < 50; n++) {
          while (Atomics.load(workerData.seen, 0) < n || Atomics.load(words, workerData.entered) === 0);
          host.interrupt(workerData.tid);
        }`)}`,
    ),
    {
      workerData: {
        module: new URL('./kvm-native.ts', import.meta.url).href,
        buffer: wasm.buffer,
        tid,
        seen,
        entered: (layout.vcpuBase + hostEntered.offset) >> 2,
      },
    },
  );
  let ended = false;
  kicker.on('exit', () => {
    ended = true;
  });
  await new Promise((resolve) => kicker.once('message', resolve));
  const start = performance.now();
  for (let n = 0; n < 50; n++) {
    // Where a kick is lost, the timer ends the run.
    assert.equal(vcpu.run(0, 5e9), 'interrupted');
    assert.ok(performance.now() - start < 5000, `kick ${n} was lost`);
    Atomics.store(seen, 0, n + 1);
  }
  await new Promise<void>((resolve) => (ended ? resolve() : kicker.on('exit', () => resolve())));
  assert.equal(vcpu.get('rip'), 0x1000n);
});

test('a vCPU whose slots were emptied while it was elsewhere can be kicked once it is back', { skip }, async () => {
  const { hostThread } = await import('../../isa/x86/state.ts');
  const words = new Int32Array(wasm.buffer);
  const at = (layout.vcpuBase + hostThread.offset) >> 2;
  const thread = Atomics.load(words, at);
  assert.ok(thread > 0);
  Atomics.store(words, at, 0);
  vcpu.takeOver();
  assert.equal(Atomics.load(words, at), thread);
});

test('a time-stamp counter that was set back by less than a second is set back, and those of all vCPUs by the same', {
  skip,
}, (t) => {
  const khz = BigInt(vm.host.ioctl(vcpu.fd, ioctls.getTscKhz.request, 0));
  bus.tsc = () => (BigInt(Math.floor(performance.now() * 1e6)) * khz) / 1_000_000n;
  const base = new BigInt64Array(new SharedArrayBuffer(8));
  /** How far the kernel's counter is ahead of the bus's, in ms, once the slots have said `ms`. */
  const ahead = (ms: bigint): number => {
    vcpu.set('tscOffset', ms * khz);
    vcpu.sync();
    vcpu.load(base);
    vcpu.refresh();
    return Number(BigInt.asIntN(64, vcpu.get('tscOffset'))) / Number(khz);
  };
  const value = BigInt64Array.of(-1n);
  const { bytes: attr, view } = block(deviceAttrLayout);
  view.addr = vm.host.address(new Uint8Array(value.buffer));
  const done = [ioctls.setDeviceAttr, ioctls.getDeviceAttr].map((call) => vm.host.ioctl(vcpu.fd, call.request, attr));
  // The KVM of some nested hosts takes offsets and goes on as before.
  value[0] = 0n;
  vm.host.ioctl(vcpu.fd, ioctls.getDeviceAttr.request, attr);
  if (done.some((result) => result < 0) || value[0] !== -1n) return t.skip('this kernel keeps no offset of a vCPU');
  vcpu.reset();
  vcpu.load(base);
  const zero = ahead(0n);
  const near = (found: number, wanted: number): void => assert.ok(Math.abs(found - wanted) < 200, `${found} ms, not ${wanted}`);
  near(zero, 0);
  near(ahead(-500n), -500);
  near(ahead(400n), 400);
  const measured = base[0];
  ahead(0n);
  assert.equal(base[0], measured, 'what one vCPU has measured is for all');
});

test('a process ends that exits while its guest runs and never leaves', { skip }, () => {
  const here = (name: string): string =>
    new URL(`${name}${import.meta.url.slice(import.meta.url.lastIndexOf('.'))}`, import.meta.url).href;
  // Where the processor begins: mov dx,0x3f8; mov al,0x78; out dx,al; jmp $
  const program = `import(${JSON.stringify(here('./machine'))}).then(({ NodeMachine }) => {
    const rom = new Uint8Array(65536);
    rom.set([0xba, 0xf8, 3, 0xb0, 0x78, 0xee, 0xeb, 0xfe], 65536 - 16);
    const firmware = { rom: rom.length };
    const config = { cpus: 2, memory: 16 << 20, cpuModel: 'qemu64', paravirtual: [], rtcOffset: 0, trace: [], accel: 'kvm', firmware };
    const serial = () => setTimeout(() => process.exit(7), 300);
    new NodeMachine({ config, firmware: { rom }, serial, report: () => {} }).start();
  })`;
  const { status, stderr } = spawnSync(process.execPath, ['-e', program], {
    timeout: 60_000,
    killSignal: 'SIGKILL',
    encoding: 'utf8',
  });
  assert.equal(status, 7, stderr);
});

test('a machine without doorbells has no thread that waits for them', { skip }, async () => {
  const { NodeMachine } = await import('./machine.ts');
  const threads = (): number =>
    globSync('/proc/self/task/*/comm').filter((path) => readFileSync(path, 'utf8').startsWith('WorkerThread')).length;
  const others = threads();
  const rom = new Uint8Array(65536);
  // mov dx,0x3f8; mov al,0x78; out dx,al; jmp $
  rom.set([0xba, 0xf8, 3, 0xb0, 0x78, 0xee, 0xeb, 0xfe], 65536 - 16);
  const begun = Promise.withResolvers<void>();
  const machine = new NodeMachine({
    config: { cpus: 1, memory: 16 << 20, cpuModel: 'qemu64', paravirtual: [], rtcOffset: 0, trace: [], accel: 'kvm', firmware: { rom: rom.length } },
    firmware: { rom },
    serial: () => begun.resolve(),
    noReboot: true,
    report: () => {},
  }); // biome-ignore format: one object
  machine.start();
  await begun.promise;
  await new Promise((resolve) => setTimeout(resolve, 100));
  const made = threads() - others;
  machine.quit();
  await machine.ended;
  assert.equal(made, 1, 'the vCPU alone');
});

test('writes that only ring a doorbell end in the kernel, and a thread rings for them', { skip }, async () => {
  const { KvmDoorbells } = await import('../../accel/kvm/doorbells.ts');
  const { waitForDoorbells } = await import('./kvm-doorbells-thread.ts');
  const doorbells = new KvmDoorbells(vm, wasm.buffer, layout, 1);
  // Words of two doorbells that share a flag, as the queues of a device do.
  const word = (n: number): Int32Array => new Int32Array(wasm.buffer, layout.devices + 4 * n, 1);
  const words = (n: number) => ({ kicked: word(n), flag: word(4), rung: word(5) });
  const at = { space: 'ports', address: 0x210, offset: 0, size: 2 } as const;
  const bells: PlacedBell[] = [
    { ...at, match: 1, words: words(0) },
    { ...at, match: 2, words: words(1) },
    { space: 'mmio', address: 0x300004, offset: 0, size: 4, words: words(2) },
  ];
  assert.equal(doorbells.update(bells), false, 'nobody hears them');
  assert.equal(doorbells.count, 0);
  const end = waitForDoorbells({ vm, doorbells }, { memory: wasm.buffer, layout }, assert.fail);
  assert.equal(doorbells.update(bells), true);
  assert.equal(doorbells.count, 3);
  assert.equal(doorbells.update(bells), false, 'the kernel has them');
  const seen = (n: number): number => Atomics.load(word(n), 0);
  const rings = async (n: number): Promise<void> => {
    // The thread that waits is a new one: where all of this is emulated, it starts within seconds.
    const limit = performance.now() + 60_000;
    while (seen(n) === 0) {
      assert.ok(performance.now() < limit, `doorbell ${n} was not rung`);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  };
  try {
    // mov dx,0x210; mov ax,2; out dx,ax; mov al,7; out dx,ax; out dx,al; hlt: another value and another width leave the guest.
    assert.deepEqual(real('ba1002 b80200 ef b007 ef ee f4'), ['out 210 2 7', 'out 210 1 7']);
    await rings(1);
    await rings(5);
    assert.deepEqual([seen(0), seen(1), seen(2), seen(4)], [0, 1, 0, 1]);
    // mov ebx,0x300004; a32 mov [ebx],eax; hlt
    vcpu.reset();
    bytes.set(Buffer.from('66bb04003000 67668903 f4'.replaceAll(' ', ''), 'hex'), layout.ramBase + 0x1000);
    for (const [name, value] of [['cs.selector', 0n], ['cs.base', 0n], ['ds.limit', 0xffffffffn], ['ds.attr', 0x8093n], ['rip', 0x1000n]] as const)
      vcpu.set(name, value); // biome-ignore format: pairs
    bus.log = [];
    assert.equal(exitOf(), 'hlt');
    assert.deepEqual(bus.log, []);
    await rings(2);
    // Without an end: the thread that waits rings once until somebody has looked, and goes on.
    for (const n of [0, 1, 2, 4, 5]) Atomics.store(word(n), 0, 0);
    // mov cx,5000; mov dx,0x210; mov ax,1; L: out dx,ax; loop L; hlt
    assert.deepEqual(real('b98813 ba1002 b80100 ef e2fd f4'), []);
    await rings(0);
    // Those that are gone leave the guest again.
    doorbells.update([{ ...at, match: 1, words: words(0) }]);
    assert.equal(doorbells.count, 1);
    assert.deepEqual(real('ba1002 b80200 ef b80100 ef f4'), ['out 210 2 2']);
  } finally {
    await end();
  }
  assert.equal(doorbells.count, 0);
  assert.deepEqual(real('ba1002 b80100 ef f4'), ['out 210 2 1']);
});

test('the kernel rings doorbells once many were heard, and no others than there are then', { skip }, async (t) => {
  const { KvmMachine } = await import('./kvm-machine.ts');
  const layout = layoutOf(2 << 20, 1);
  const { buffer } = createMemory(layout);
  const config = { cpus: 1, memory: 2 << 20, cpuModel: 'qemu64', paravirtual: [], rtcOffset: 0, trace: [] };
  const machine = new KvmMachine({ config, memory: buffer as unknown as SharedArrayBuffer, layout, epoch: 0n, failed: assert.fail });
  const { doorbells } = machine.open();
  t.after(async () => {
    await machine.stopHearing();
    machine.close();
  });
  const word = (n: number): Int32Array => new Int32Array(buffer, layout.devices + 4 * n, 1);
  const words = { kicked: word(0), flag: word(1), rung: word(2) };
  let bells: PlacedBell[] = [{ space: 'ports', address: 0x210, offset: 0, size: 2, match: 1, words }];
  const placeBells = (): void => machine.bellsMoved(() => bells);
  machine.connect({ lock: { run: (work: () => void) => work() }, placeBells, apicBus: {}, control: {} } as unknown as Board);
  placeBells();
  machine.rang(15);
  assert.deepEqual([doorbells.heard, doorbells.count], [false, 0]);
  machine.rang(1);
  assert.deepEqual([doorbells.heard, doorbells.count], [true, 1]);
  bells = [];
  placeBells();
  assert.deepEqual([doorbells.heard, doorbells.count], [true, 0]);
}); // biome-ignore format: calls in one line

for (const kind of ['bitmap', 'ring'] as const) {
  test(`pages that the guest writes are told, each time they are taken: ${kind}`, { skip }, (t) => {
    const memory = 8 << 20;
    const own = layoutOf(memory, 1);
    const { buffer } = new WebAssembly.Memory({ initial: own.pages, maximum: own.pages, shared: true });
    const ram = new Uint8Array(buffer);
    const machine = KvmVm.create(kvmHost(), 'off', kind === 'ring' ? { dirtyRing: 1024 } : {});
    if (kind === 'ring' && machine.share.dirtyRing === undefined) t.skip('this kernel has no dirty rings');
    else {
      const regions = new KvmRegions(machine, buffer, own);
      regions.update();
      const written = (slot: number, page: number): void => regions.written(slot, page);
      const cpu = new KvmVcpu({ vm: machine, memory: buffer, layout: own, index: 0, bus, written });
      const map = ram.subarray(own.dirtyMap, own.dirtyMap + memory / 4096);
      const run = (from: number, to: number): void => {
        cpu.reset();
        for (const [name, value] of [['cs.selector', 0n], ['cs.base', 0n], ['ds.limit', 0xffffffffn], ['ds.attr', 0x8093n], ['rip', 0x1000n], ['rbx', BigInt(from)], ['rcx', BigInt(to)]] as const)
          cpu.set(name, value); // biome-ignore format: pairs
        for (let n = 0; n < 100; n++) if (cpu.run(0, Number.POSITIVE_INFINITY) === 'hlt') return;
        assert.fail('the program does not halt');
      };
      const take = (): number[] => {
        cpu.publish();
        regions.takeDirty(map);
        // The code's page may be told, too: KVM maps what is only read writable where it can, and then counts it as written.
        const pages = [...map.keys()].filter((page) => map[page] === 0 && page !== 1);
        map.fill(1);
        return pages;
      };
      // L: a32 mov [ebx],al; a32 mov [ebx],al; add ebx,0x1000; cmp ebx,ecx; jb L; hlt
      ram.set(Buffer.from('678803 678803 6681c300100000 6639cb 72ee f4'.replaceAll(' ', ''), 'hex'), own.ramBase + 0x1000);
      map.fill(1);
      regions.logDirty(true);
      run(0x17e000, 0x180000);
      assert.deepEqual(take(), [0x17e, 0x17f]);
      assert.deepEqual(take(), [], 'nothing was written since');
      run(0x17d000, 0x180000);
      assert.deepEqual(take(), [0x17d, 0x17e, 0x17f], 'noted anew');
      // More than a ring has, in all.
      for (let n = 0; n < 6; n++) {
        run(0x100000, 0x280000);
        assert.equal(take().length, 0x180);
      }
      // And at once, where KVM looks at its ring between two instructions; one that emulates ring 0 does so in batches, and loses some.
      if (probeKvm(kvmHost()).why === undefined) {
        const full = cpu.exits.read().dirtyRingFull?.exits ?? 0;
        run(0x100000, 0x700000);
        assert.equal(take().length, 0x600);
        assert.equal((cpu.exits.read().dirtyRingFull?.exits ?? 0) > full, kind === 'ring');
      }
      regions.logDirty(false);
      run(0x170000, 0x180000);
      assert.deepEqual(take(), []);
      cpu.close();
    }
    machine.close();
  });
}
