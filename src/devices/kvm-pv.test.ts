import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Ram } from '../bus/memory.ts';
import { ApicBus } from './apic-bus.ts';
import { kvmHypercalls } from './kvm-hypercalls.ts';
import { KvmPv, kvmAllFeatures, kvmCpuid, pvclockScale } from './kvm-pv.ts';
import { Lapic } from './lapic.ts';
import { testBoard } from './testing.ts';

const khz = 2_500_000;

function guest(features = kvmAllFeatures) {
  const board = testBoard();
  const memory = new Ram(new SharedArrayBuffer(8192), [{ gpa: 0, length: 8192, offset: 0 }]);
  const tsc = {
    tscAt: (ns: number) => BigInt(Math.round(ns * 2.5)) + 1_000_000n,
    nsAt: (t: bigint) => (Number(t) - 1_000_000) / 2.5,
  };
  const bus = new ApicBus();
  const kicks: number[] = [];
  const kick = (c: number) => kicks.push(c);
  const wall = { epochSeconds: () => 1_700_000_000.25 + board.time.ns / 1e9 };
  const cpus = [0, 1, 70].map((apicId, cpu) => {
    const lapic = new Lapic({ ...board, bus, cpu, apicId, tsc, kick, memory });
    lapic.reset();
    lapic.msrs.write(0x1b, lapic.msrs.read(0x1b)! | 0xc00n);
    lapic.msrs.write(0x80f, 0x1ffn);
    const pv = new KvmPv({ ...board, lapic, memory, wall, tsc, tscKhz: khz, features });
    pv.reset();
    return pv;
  });
  const call = kvmHypercalls({ ...board, cpus, memory, wall, kick });
  /** What a guest computes from its clock structure, in ns. */
  const guestTime = (at: number) => {
    let delta = tsc.tscAt(board.time.ns) - memory.read64(at + 8);
    const shift = (memory.read8(at + 28) << 24) >> 24;
    delta = shift >= 0 ? delta << BigInt(shift) : delta >> BigInt(-shift);
    return Number(((delta * BigInt(memory.read32(at + 24))) >> 32n) + memory.read64(at + 16));
  };
  return { ...board, memory, cpus, pv: cpus[0]!, call, kicks, guestTime };
}

test('CPUID spells KVMKVMKVM and lists the features', () => {
  const [id, features] = kvmCpuid(['clocksource2', 'pvEoi', 'clocksourceStable']);
  const le = (v: number) => String.fromCharCode(v & 0xff, (v >>> 8) & 0xff, (v >>> 16) & 0xff, v >>> 24);
  assert.equal(le(id!.ebx) + le(id!.ecx) + le(id!.edx), 'KVMKVMKVM\0\0\0');
  assert.equal(features!.eax, 0x0100_0048);
});

test('the clock structure gives the guest its time to within a few ns, at any frequency', () => {
  const { pv, memory, time, guestTime } = guest();
  assert.equal(pv.msrs.write(0x4b56_4d01, 0x101n), true);
  for (const ns of [1e9, 1e12, 3e15]) {
    time.ns = ns;
    assert.ok(Math.abs(guestTime(0x100) - ns) <= ns * 1e-9 + 2, `${guestTime(0x100)} at ${ns}`);
  }
  assert.equal(memory.read32(0x100) & 1, 0);
  assert.ok(memory.read32(0x100) > 0);
  assert.equal(memory.read8(0x100 + 29), 1);
  for (const k of [1, 500_000, 999_999, 1_000_000, 1_000_001, 2_500_000, 8_000_000]) {
    const { mul, shift } = pvclockScale(k);
    assert.ok(mul >= 2 ** 31 && mul < 2 ** 32, `${k} kHz: ${mul}`);
    assert.ok(Math.abs((2 ** shift * mul) / 2 ** 32 / (1e6 / k) - 1) < 1e-9, `${k} kHz`);
  }
});

test('all vCPUs read the same reference, so that their times agree', () => {
  const { cpus, memory, time } = guest();
  cpus[0]!.msrs.write(0x12, 0x101n);
  time.ns += 12_345_678;
  cpus[1]!.msrs.write(0x12, 0x201n);
  assert.equal(memory.read64(0x108), memory.read64(0x208));
  assert.equal(memory.read64(0x110), memory.read64(0x210));
});

test('the wall clock is the time at the zero of the system time', () => {
  const { pv, memory } = guest();
  pv.msrs.write(0x4b56_4d00, 0x300n);
  assert.equal(memory.read32(0x304), 1_700_000_000);
  assert.ok(Math.abs(memory.read32(0x308) - 250_000_000) < 1000);
  assert.equal(memory.read32(0x300) & 1, 0);
});

test('MSRs of features that are off, and reserved bits, are refused', () => {
  const { pv } = guest(['clocksource2']);
  assert.equal(pv.msrs.read(0x12), undefined);
  assert.equal(pv.msrs.write(0x4b56_4d04, 0x101n), false);
  assert.equal(pv.msrs.read(0x4b56_4d02), undefined, 'no asynchronous page faults');
  const all = guest().pv;
  assert.equal(all.msrs.write(0x4b56_4d03, 0x103n), false);
  assert.equal(all.msrs.write(0x4b56_4d04, 0x103n), false);
  assert.equal(all.msrs.write(0x4b56_4d05, 2n), false);
  assert.equal(all.hostPolls, true);
  all.msrs.write(0x4b56_4d05, 0n);
  assert.equal(all.hostPolls, false);
});

test('an interrupt ends by the word that MSR_KVM_EOI_EN names', () => {
  const { pv, memory } = guest();
  pv.msrs.write(0x4b56_4d04, 0x401n);
  pv.lapic.accept(0, 0x50, false);
  assert.equal(pv.lapic.acknowledge(), 0x50);
  assert.equal(memory.read8(0x400), 1);
});

test('steal time adds up, and a paused vCPU takes its TLB flush when it resumes', () => {
  const { pv, memory } = guest();
  assert.equal(pv.resumed(5), false, 'not enabled');
  pv.msrs.write(0x4b56_4d03, 0x501n);
  pv.paused();
  assert.equal(memory.read8(0x510), 1);
  memory.write8(0x510, 3);
  assert.equal(pv.resumed(1000), true);
  assert.equal(memory.read8(0x510), 0);
  assert.equal(pv.resumed(500), false);
  assert.equal(memory.read64(0x500), 1500n);
  assert.equal(memory.read32(0x508) & 1, 0);
});

test('a guest that comes from elsewhere is told once that all its pages are there, and after its acknowledgement where it was being told', () => {
  const { pv, memory } = guest();
  const [en, vector, ack] = [0x4b56_4d02, 0x4b56_4d06, 0x4b56_4d07];
  for (const [msr, value] of [
    [en, 0x604n],
    [en, 0x611n],
    [vector, 0x100n],
  ] as const)
    assert.equal(pv.msrs.write(msr, value), false);
  pv.takeOver();
  assert.equal(pv.lapic.pending(), false, 'not enabled');
  pv.msrs.write(vector, 0xf3n);
  pv.msrs.write(en, 0x609n);
  assert.equal(pv.msrs.read(en), 0x609n);
  pv.takeOver();
  assert.equal(memory.read32(0x604), 0xffff_ffff);
  assert.equal(pv.lapic.acknowledge(), 0xf3);
  // The guest has not looked yet when it is moved again.
  memory.write32(0x604, 7);
  pv.takeOver();
  assert.equal(memory.read32(0x604), 7);
  memory.write32(0x604, 0);
  pv.lapic.msrs.write(0x80b, 0n);
  assert.equal(pv.msrs.write(ack, 1n), true);
  assert.equal(memory.read32(0x604), 0xffff_ffff);
  assert.equal(pv.lapic.acknowledge(), 0xf3);
  memory.write32(0x604, 0);
  pv.msrs.write(ack, 1n);
  assert.equal(memory.read32(0x604), 0, 'once');
  const { pv: without } = guest(['asyncPf']);
  assert.equal(without.msrs.write(en, 0x609n), false);
  assert.equal(without.msrs.write(en, 0x601n), true);
  assert.equal(without.msrs.read(vector), undefined);
});

test('KICK_CPU ends the HLT of the vCPU that it names', () => {
  const { call, cpus, kicks } = guest();
  kicks.length = 0;
  assert.equal(call(5n, 0n, 70n, 0n, 0n, 0, true), 0n);
  assert.deepEqual(kicks, [2]);
  assert.equal(cpus[2]!.takeUnhalt(), true);
  assert.equal(cpus[2]!.takeUnhalt(), false);
});

test('SEND_IPI reaches the processors of its bitmap and counts them', () => {
  const { call, cpus } = guest();
  assert.equal(call(10n, 0b11n, 1n << 6n, 0n, 0x41n, 0, true), 3n);
  assert.deepEqual(
    cpus.map((c) => c.lapic.acknowledge()),
    [0x41, 0x41, 0x41],
  );
  assert.equal(call(10n, 1n, 0n, 1n, 0x442n, 0, true), 1n);
  assert.equal(cpus[1]!.lapic.takeEvents(), 1);
  assert.equal(call(10n, 1n, 0n, 0n, 0x4_0041n, 0, true), BigInt.asUintN(64, -22n));
});

test('the clock pairing gives wall clock and TSC of one moment', () => {
  const { call, memory } = guest();
  assert.equal(call(9n, 0x600n, 0n, 0n, 0n, 0, true), 0n);
  assert.equal(memory.read64(0x600), 1_700_000_001n);
  assert.equal(memory.read64(0x610), 2_501_000_000n);
  assert.equal(call(9n, 0x600n, 1n, 0n, 0n, 0, true), BigInt.asUintN(64, -95n));
  assert.equal(call(9n, 0x100_0000n, 0n, 0n, 0n, 0, true), BigInt.asUintN(64, -14n));
});

test('user mode may not call, and unknown calls say so', () => {
  const { call } = guest();
  assert.equal(call(1n, 0n, 0n, 0n, 0n, 3, true), BigInt.asUintN(64, -1n));
  assert.equal(call(1n, 0n, 0n, 0n, 0n, 0, true), 0n);
  assert.equal(call(99n, 0n, 0n, 0n, 0n, 0, true), BigInt.asUintN(64, -1000n));
  assert.equal(guest(['clocksource']).call(5n, 0n, 0n, 0n, 0n, 0, true), BigInt.asUintN(64, -1000n));
});
