import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Ram } from '../bus/memory.ts';
import { ApicBus } from './apic-bus.ts';
import { HypervPv, hypervMsr } from './hyperv.ts';
import { Lapic } from './lapic.ts';
import { testBoard } from './testing.ts';

const khz = 2_500_000;
const all = ['relaxed', 'vapic', 'time', 'vpindex', 'reset', 'frequencies'] as const;

function guest(features: readonly (typeof all)[number][] = all, tscKhz = khz) {
  const board = testBoard();
  const memory = new Ram(new SharedArrayBuffer(16384), [{ gpa: 0, length: 16384, offset: 0 }]);
  const counter = { offset: 1_000_000n };
  const tsc = {
    tscAt: (ns: number) => BigInt.asUintN(64, BigInt(Math.round((ns * tscKhz) / 1e6)) + counter.offset),
    nsAt: () => 0,
  };
  const bus = new ApicBus();
  const lapics = [0, 1].map((cpu) => {
    const lapic = new Lapic({ ...board, bus, cpu, apicId: cpu, tsc, kick: () => {}, memory });
    lapic.reset();
    lapic.msrs.write(0x1b, lapic.msrs.read(0x1b)! | 0xc00n);
    lapic.msrs.write(0x80f, 0x1ffn);
    return lapic;
  });
  const resets: number[] = [];
  const pv = new HypervPv({
    ...board,
    lapics,
    memory,
    tsc: () => tsc,
    tscKhz,
    features: new Set(features),
    amd: true,
    reset: () => resets.push(1),
  });
  pv.reset();
  const read = (msr: number, cpu = 0) => pv.msrs[cpu]!.read(msr);
  const write = (msr: number, value: bigint, cpu = 0) => pv.msrs[cpu]!.write(msr, value);
  /** What a guest computes from the page of reference time. */
  const pageTime = (at: number) =>
    BigInt.asUintN(64, ((tsc.tscAt(board.time.ns) * memory.read64(at + 8)) >> 64n) + memory.read64(at + 16));
  return { ...board, memory, lapics, pv, read, write, pageTime, counter, resets };
}

test('the page of reference time says the same as the register, also after the counter was set', () => {
  const { read, write, pageTime, memory, time, counter, pv } = guest();
  time.ns = 5_000_000_000;
  assert.equal(write(hypervMsr.referenceTsc, 0x1001n), true);
  assert.equal(memory.read32(0x1000), 1);
  const agree = () => {
    const difference = Number(pageTime(0x1000) - read(hypervMsr.timeRefCount)!);
    assert.ok(Math.abs(difference) <= 1, `${difference} units apart at ${time.ns}`);
  };
  agree();
  time.ns = 3_600_000_000_000;
  agree();
  counter.offset = BigInt.asUintN(64, -9_000_000_000_000_000n);
  pv.updateTime();
  assert.equal(memory.read32(0x1000), 2);
  agree();
  assert.equal(read(hypervMsr.timeRefCount), 36_000_000_000n);
});

test('a counter too slow for the page sends the guest to the register', () => {
  const { write, memory } = guest(all, 5_000);
  assert.equal(write(hypervMsr.referenceTsc, 0x1001n), true);
  assert.equal(memory.read32(0x1000), 0);
});

test('the hypercall page comes once the guest has said who it is, and what is called there is answered', () => {
  const { write, read, memory, pv } = guest();
  write(hypervMsr.hypercall, 0x2001n);
  assert.equal(read(hypervMsr.hypercall), 0n);
  assert.equal(pv.entered, false);
  write(hypervMsr.guestOsId, 0x8100_0000_0000_0000n);
  write(hypervMsr.hypercall, 0x2001n);
  assert.equal(memory.read32(0x2000), 0xc3d9_010f);
  assert.equal(pv.entered, true);
  assert.equal(pv.hypercall(77n, 8n, 0, true), 0n);
  assert.equal(pv.hypercall(8n, 77n, 0, false), 0n);
  assert.equal(pv.hypercall(8n, 77n, 0, true), 2n);
  assert.equal(pv.hypercall(0n, 8n, 3, true), undefined);
  write(hypervMsr.guestOsId, 0n);
  assert.equal(read(hypervMsr.hypercall), 0x2000n);
});

test('the local APIC is reached by registers: an interrupt is sent, taken and ended', () => {
  const { write, read, lapics, memory } = guest();
  assert.equal(write(hypervMsr.tpr, 0x20n), true);
  assert.equal(lapics[0]!.ppr, 0x20);
  assert.equal(write(hypervMsr.tpr, 0x100n), false);
  write(hypervMsr.icr, (1n << 32n) | 0x4051n);
  assert.equal(read(hypervMsr.icr)! >> 32n, 1n);
  assert.equal(lapics[1]!.pending(), true);
  assert.equal(lapics[1]!.acknowledge(), 0x51);
  assert.equal(lapics[1]!.ppr, 0x50);
  assert.equal(write(hypervMsr.eoi, 0n, 1), true);
  assert.equal(lapics[1]!.ppr, 0);
  // The end of the next one may be left out, by the first word of the page.
  memory.write32(0x3000, 7);
  write(hypervMsr.vpAssistPage, 0x3001n, 1);
  assert.equal(memory.read32(0x3000), 0);
  write(hypervMsr.icr, (1n << 32n) | 0x4052n);
  assert.equal(lapics[1]!.acknowledge(), 0x52);
  assert.equal(memory.read32(0x3000), 1);
});

test('registers of what is not offered are not there', () => {
  const { read, write } = guest(['relaxed']);
  for (const msr of [
    0x4000_0002, 0x4000_0003, 0x4000_0020, 0x4000_0021, 0x4000_0022, 0x4000_0023, 0x4000_0070, 0x4000_0071, 0x4000_0072,
  ]) {
    assert.equal(read(msr), undefined, msr.toString(16));
    assert.equal(write(msr, 0n), false, msr.toString(16));
  }
  assert.equal(read(0x4000_0000), 0n);
});

test('each vCPU has its index, frequencies are in hertz, and the machine can be reset', () => {
  const { read, write, resets } = guest();
  assert.deepEqual([read(hypervMsr.vpIndex), read(hypervMsr.vpIndex, 1)], [0n, 1n]);
  assert.equal(write(hypervMsr.vpIndex, 1n), false);
  assert.equal(read(hypervMsr.tscFrequency), 2_500_000_000n);
  assert.equal(read(hypervMsr.apicFrequency), 1_000_000_000n);
  write(hypervMsr.reset, 1n);
  assert.deepEqual(resets, [1]);
});
