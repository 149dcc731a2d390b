// Guests that mean harm on the real machine, with its threads: whatever the guest does, `quit` ends it and every vCPU answers.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { kvmAllFeatures } from '../../src/devices/kvm-pv.ts';
import { NodeMachine } from '../../src/host/node/machine.ts';
import { asm, le, mov32 } from './asm.ts';

const LOAD = 0x100000;
const ENTRY = LOAD + 0x1000;
const IDT = LOAD + 0x2000;
const HANDLER = LOAD + 0x3000;
const LAPIC = 0xfee0_0000;

/** A multiboot kernel: code, a GDT and an IDT that sends everything to `handler`. */
function kernel(code: Uint8Array, handler: Uint8Array, gate = HANDLER): Uint8Array {
  const file = new Uint8Array(0x5000);
  const view = new DataView(file.buffer);
  const flags = 0x10000;
  const header = [0x1bad_b002, flags, -(0x1bad_b002 + flags), LOAD, LOAD, 0, 0, ENTRY];
  for (const [n, word] of header.entries()) view.setUint32(n * 4, word, true);
  // lidt [LOAD + 0x100]; lgdt [LOAD + 0x108]; 'R' on COM1
  file.set(
    asm('0f011d', le(LOAD + 0x100, 4), '0f0115', le(LOAD + 0x108, 4), mov32(4, LOAD + 0x5000), '66baf803 b052 ee', code),
    0x1000,
  );
  file.set(asm(le(0x7ff, 2), le(IDT, 4)), 0x100);
  file.set(asm(le(0x1f, 2), le(LOAD + 0x110, 4)), 0x108);
  file.set(asm(le(0, 8), le(0x00cf_9b00_0000_ffffn, 8), le(0x00cf_9b00_0000_ffffn, 8), le(0x00cf_9300_0000_ffffn, 8)), 0x110);
  for (let v = 0; v < 256; v++) {
    const low = BigInt(gate) & 0xffffn;
    const high = (BigInt(gate) >> 16n) << 48n;
    view.setBigUint64(0x2000 + v * 8, low | (8n << 16n) | (0x8e00n << 32n) | high, true);
  }
  file.set(handler, 0x3000);
  return file;
}

const poke = (gpa: number, value: number): Uint8Array => asm('c705', le(gpa, 4), le(value, 4));
const on = poke(LAPIC + 0xf0, 0x1ff);
const hlt = asm('f4ebfd');
/** Starts the second vCPU at 0x8000 in real mode, where it says 'A' on COM1 and runs `code`, which is copied from behind this code. */
function second(code: Uint8Array): Uint8Array {
  const all = asm('baf803 b041 ee', code);
  const copy = asm('e800000000 5e 83c612', mov32(7, 0x8000), mov32(1, all.length), 'f3a4 eb', le(all.length, 1), all);
  return asm(copy, on, poke(LAPIC + 0x310, 0x0100_0000), poke(LAPIC + 0x300, 0x4500), poke(LAPIC + 0x300, 0x4608));
}
/** 6: inc byte cs:[0x36]; inc byte cs:[0x101]; jmp 0x35; …; 0x35: mov al, imm (at 0x36); jmp 6 */
const changing = asm('2efe063600 2efe060101 eb23', new Uint8Array(0x23), 'b000 ebcd');

interface Case {
  readonly name: string;
  readonly code: Uint8Array;
  readonly handler?: Uint8Array;
  readonly gate?: number;
  readonly cpus?: number;
}
const cases: readonly Case[] = [
  { name: 'loops with interrupts off', code: asm('fa ebfe') },
  { name: 'halts with interrupts off', code: asm('fa f4 ebfd') },
  { name: 'meets an undefined instruction in the handler of undefined instructions', code: asm('0f0b'), handler: asm(mov32(4, LOAD + 0x5000), '0f0b') },
  { name: 'has code, stack and handlers outside RAM', code: asm(mov32(4, 0xd800_0000), mov32(0, 0xd000_0000), 'ffe0'), gate: 0xd000_0000 },
  { name: 'moves MMIO to MMIO for ever', code: asm(mov32(1, -1), mov32(6, LAPIC), mov32(7, 0xfed0_0000), 'f3a4 ebed') },
  { name: 'fills a hole for ever', code: asm(mov32(1, -1), mov32(7, 0x4000_0000), 'f3ab ebf2') },
  { name: 'takes timer interrupts as fast as they come', code: asm(on, poke(LAPIC + 0x3e0, 0xb), poke(LAPIC + 0x320, 0x2_0040), poke(LAPIC + 0x380, 1), 'fb ebfe'), handler: asm(poke(LAPIC + 0xb0, 0), 'cf') },
  { name: 'floods the serial port', code: asm('ee ebfd') },
  { name: 'resets itself without an end', code: asm('66baf90c b006 ee ebfd') },
  { name: 'changes the code that it runs', code: asm('ff05', le(ENTRY + 0x100, 4), mov32(0, ENTRY + 0x100), 'ffe0', new Uint8Array(0x100 - 0x20 - 13).fill(0x90), new Uint8Array(16).fill(0x90)), handler: asm(mov32(4, LOAD + 0x5000), mov32(0, ENTRY), 'ffe0') },
  { name: 'sends itself INIT', code: asm(on, poke(LAPIC + 0x300, 0x4500), 'ebfe') },
  { name: 'leaves a second vCPU in a loop', cpus: 2, code: asm(second(asm('faebfe')), hlt) },
  { name: 'has a second vCPU that halts with interrupts off', cpus: 2, code: asm(second(asm('faf4ebfd')), 'ebfe') },
  {
    name: "has two vCPUs that change each other's code",
    cpus: 2,
    // 0x8100: mov al, imm; ret. The first vCPU: l: inc byte [0x8036]; mov eax, 0x8100; call eax; jmp l
    code: asm(poke(0x8100, 0x00c3_00b0), second(changing), 'fe0536800000', mov32(0, 0x8100), 'ffd0 ebf1'),
    handler: asm('fa f4 ebfd'),
  },
]; // biome-ignore format: a table

for (const c of cases) {
  test(`a guest that ${c.name} is ended by quit`, { timeout: 30_000 }, async () => {
    const cpus = c.cpus ?? 1;
    let seen = (): void => {};
    const started = new Promise<void>((resolve) => {
      seen = resolve;
    });
    const machine = new NodeMachine({
      config: { cpus, memory: 16 << 20, cpuModel: 'max', paravirtual: kvmAllFeatures, rtcOffset: 0, trace: [] },
      files: { kernel: kernel(c.code, c.handler ?? hlt, c.gate), name: 'kernel', append: '' },
      serial: (_, bytes) => {
        // The last of them to run says so.
        if (bytes.includes((cpus === 2 ? 'A' : 'R').charCodeAt(0))) seen();
      },
      report: () => {},
      noReboot: false,
    });
    machine.start();
    await started;
    await new Promise((resolve) => setTimeout(resolve, 100));
    machine.quit();
    const end = await machine.ended;
    assert.deepEqual(end, { kind: 'quit' });
    assert.equal(machine.lastState.filter(Boolean).length, cpus, 'a vCPU did not answer');
  });
}
