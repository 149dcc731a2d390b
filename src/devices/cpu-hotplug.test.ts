import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CpuHotplug } from './cpu-hotplug.ts';
import { testBoard } from './testing.ts';

const BASE = 0xcd8;
function ports() {
  const board = testBoard();
  const present = new Set([0, 1]);
  const told: unknown[] = [];
  const device = new CpuHotplug({
    arena: board.arena,
    cpus: 3,
    present: (cpu) => present.has(cpu),
    gpe: (n) => told.push(['gpe', n]),
    eject: (cpu) => told.push(['eject', cpu]),
    ost: (cpu, event, status) => told.push(['ost', cpu, event, status]),
  });
  device.reset();
  device.map(board.ports, BASE);
  const select = (cpu: number): void => board.ports.write(BASE, 4, cpu);
  const command = (n: number): void => board.ports.write(BASE + 5, 1, n);
  const flags = (): number => board.ports.read(BASE + 4, 1);
  const data = (): number => board.ports.read(BASE + 8, 4);
  return { ...board, device, present, told, select, command, flags, data };
}

test('flags say which CPUs are there; a selector beyond the last reads as nothing', () => {
  const { select, flags, command, data } = ports();
  assert.deepEqual(
    [0, 1, 2, 3, 0xffff_ffff].map((n) => {
      select(n);
      return flags();
    }),
    [1, 1, 0, 0, 0],
  );
  select(2);
  command(3);
  assert.equal(data(), 2, 'its APIC id');
});

test('a CPU that came is found by the next-event command, from the selected one on, until its event is cleared', () => {
  const { ports: io, device, present, told, select, command, flags, data } = ports();
  present.add(2);
  device.plugged(2);
  assert.deepEqual(told, [['gpe', 2]]);
  select(1);
  command(0);
  assert.equal(data(), 2);
  assert.equal(flags(), 3);
  io.write(BASE + 4, 1, 2);
  assert.equal(flags(), 1);
});

test('a CPU is taken away when the guest ejects it, the first never; it reads as gone at once', () => {
  const { ports: io, device, told, select, command, flags, data } = ports();
  device.request(1);
  select(0);
  command(0);
  assert.equal(data(), 1);
  assert.equal(flags(), 5);
  io.write(BASE + 4, 1, 4);
  io.write(BASE + 4, 1, 8);
  assert.equal(flags(), 0);
  select(0);
  io.write(BASE + 4, 1, 8);
  select(2);
  io.write(BASE + 4, 1, 8);
  assert.deepEqual(told, [
    ['gpe', 2],
    ['eject', 1],
  ]);
});

test('what _OST reports is passed on', () => {
  const { ports: io, told, select, command } = ports();
  select(1);
  command(1);
  io.write(BASE + 8, 4, 3);
  command(2);
  io.write(BASE + 8, 4, 0x84);
  assert.deepEqual(told, [['ost', 1, 3, 0x84]]);
});
