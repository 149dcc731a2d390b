// What tests of devices share: a board of address spaces, a lock, a clock that they set, and wires that count.
import { Arena } from '../bits/arena.ts';
import type { IrqLine } from '../bus/irq.ts';
import { Lock, lockLayout } from '../bus/lock.ts';
import { AddressSpace, type BadAccess, spaceLayout } from '../bus/space.ts';

export interface Wire extends IrqLine {
  level: number;
  edges: number;
}

/** A wire that remembers its level and counts rising edges. */
export function wire(): Wire {
  return {
    level: 0,
    edges: 0,
    set(l) {
      if (l > this.level) this.edges++;
      this.level = l;
    },
  };
}

/** `time.ns` is the clock. */
export function testBoard(bytes = 1 << 20) {
  const arena = new Arena(new SharedArrayBuffer(bytes));
  const lock = new Lock(arena.alloc(lockLayout), 1);
  const bad: BadAccess[] = [];
  const space = (name: string, size: number) =>
    new AddressSpace({ name, size, lock, shared: arena.alloc(spaceLayout), trace: (b) => bad.push(b) });
  const ports = space('ports', 0x1_0000);
  const mmio = space('mmio', 2 ** 40);
  const time = { ns: 1e9 };
  return {
    arena,
    lock,
    ports,
    mmio,
    bad,
    time,
    clock: { now: () => time.ns },
    /** Writes bytes to one port. */
    out: (port: number, ...values: number[]) => {
      for (const v of values) ports.write(port, 1, v);
    },
    in: (port: number) => ports.read(port, 1),
  };
}
