import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import { Arena } from '../bits/arena.ts';
import { struct } from '../bits/struct.ts';
import { Lock, lockLayout } from '../bus/lock.ts';
import { AddressSpace, spaceLayout } from '../bus/space.ts';
import { ApicBus } from './apic-bus.ts';
import { Ioapic } from './ioapic.ts';
import { Lapic } from './lapic.ts';
import { Uart } from './uart.ts';

const rounds = 500;

/** The same board on every thread: two vCPUs, COM1 on pin 4 of the I/O APIC. `cpu` is the caller's. */
function board(buffer: SharedArrayBuffer, cpu: number) {
  const arena = new Arena(buffer);
  const lock = new Lock(arena.alloc(lockLayout), cpu + 1);
  const kicks = arena.alloc(struct({ words: ['i32', 2] })).words;
  const ports = new AddressSpace({ name: 'ports', size: 0x1_0000, lock, shared: arena.alloc(spaceLayout) });
  const bus = new ApicBus();
  const kick = (n: number) => {
    Atomics.store(kicks, n, 1);
    Atomics.notify(kicks, n);
  };
  const clock = { now: () => 0 };
  const tsc = { tscAt: () => 0n, nsAt: () => 0 };
  const lapics = [0, 1].map((n) => new Lapic({ arena, bus, cpu: n, clock, tsc, kick }));
  const ioapic = new Ioapic({ arena, bus });
  const uart = new Uart({ arena, instance: '0', irq: ioapic.pin(4) });
  uart.map(ports, 0x3f8);
  const lapic = lapics[cpu]!;
  /** HLT: sleeps until there is an interrupt, and acknowledges it. */
  const interrupt = () => {
    while (!lapic.pending()) {
      if (Atomics.wait(kicks, cpu, 0, 10_000) === 'timed-out') throw new Error(`no interrupt on vCPU ${cpu}`);
      Atomics.store(kicks, cpu, 0);
    }
    return lock.run(() => {
      const vector = lapic.acknowledge();
      lapic.eoi();
      return vector;
    });
  };
  return { lock, ports, lapics, lapic, ioapic, uart, interrupt };
}

if (!isMainThread) {
  const { ports, lapic, lock, interrupt } = board(workerData as SharedArrayBuffer, 0);
  for (let i = 0; i < rounds; i++) {
    ports.write(0x3f8, 1, i & 0xff);
    lock.run(() => lapic.command(1 << 24, 0x0051));
    if (interrupt() !== 0x52) throw new Error('not the answer');
  }
} else {
  test('a vCPU writes to a serial port and interrupts another vCPU, thread to thread and back', async () => {
    const buffer = new SharedArrayBuffer(1 << 16);
    const { lock, ports, lapics, lapic, ioapic, uart, interrupt } = board(buffer, 1);
    for (const l of lapics) {
      l.reset();
      l.setSpurious(0x1ff);
    }
    ioapic.reset();
    uart.reset();
    // COM1's transmit interrupt goes to this vCPU as vector 0x44.
    ioapic.mmio.write(0, 4, 0x18);
    ioapic.mmio.write(0x10, 4, 0x44);
    ioapic.mmio.write(0, 4, 0x19);
    ioapic.mmio.write(0x10, 4, 1 << 24);
    ports.write(0x3fc, 1, 8);
    ports.write(0x3f9, 1, 2);
    ports.read(0x3fa, 1);
    assert.equal(interrupt(), 0x44);
    const worker = new Worker(new URL(import.meta.url), { workerData: buffer });
    const ended = new Promise((resolve, reject) => {
      worker.once('exit', resolve);
      worker.once('error', reject);
    });
    let sent = 0;
    for (let i = 0; i < rounds; i++) {
      const seen = new Set<number>();
      while (seen.size < 2) {
        const vector = interrupt();
        if (vector === 0x44) assert.equal(ports.read(0x3fa, 1), 2);
        seen.add(vector);
      }
      assert.deepEqual([...seen].sort(), [0x44, 0x51]);
      const bytes = uart.output.read();
      assert.deepEqual([...bytes], [i & 0xff]);
      sent += bytes.length;
      lock.run(() => lapic.command(0, 0x0052));
    }
    assert.equal(await ended, 0);
    assert.equal(sent, rounds);
  });
}
