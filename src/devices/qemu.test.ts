// Random register accesses, made here and in QEMU over its qtest protocol, must read the same. Skipped where QEMU is not installed.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { ApicBus } from './apic-bus.ts';
import { Hpet } from './hpet.ts';
import { I8042 } from './i8042.ts';
import { Ioapic } from './ioapic.ts';
import { PcTestdev } from './pc-testdev.ts';
import { Pic } from './pic.ts';
import { eeproms, Smbus } from './smbus.ts';
import { testBoard, wire } from './testing.ts';

const program = 'qemu-system-x86_64';
const skip = spawnSync(program, ['--version']).status === 0 ? false : `${program} is not installed`;
const seed = Number(process.env['SEED'] ?? 1);

/** QEMU with its vCPU stopped, and our devices, behind one pair of access functions that compare. */
function both(t: TestContext) {
  t.diagnostic(`SEED=${seed}`);
  const args = '-machine q35 -S -nodefaults -display none -qtest stdio -qtest-log /dev/null -device pc-testdev'.split(' ');
  const qemu = spawn(program, args, { stdio: ['pipe', 'pipe', 'ignore'] });
  t.after(() => qemu.kill());
  const lines = createInterface({ input: qemu.stdout })[Symbol.asyncIterator]();
  const ask = async (command: string): Promise<number> => {
    qemu.stdin.write(`${command}\n`);
    for (;;) {
      const { value, done } = await lines.next();
      if (done) throw new Error(`QEMU ended at ${command}`);
      if (value.startsWith('OK')) return Number(value.slice(3) || 0);
    }
  };
  const board = testBoard();
  board.time.ns = 0;
  const pic = new Pic({ arena: board.arena, int: wire() });
  const ioapic = new Ioapic({ arena: board.arena, bus: new ApicBus() });
  const irq = (n: number) => ({
    set: (l: 0 | 1) => {
      pic.irq(n).set(l);
      ioapic.pin(n === 0 ? 2 : n).set(l);
    },
  });
  const irqs = Array.from({ length: 16 }, (_, n) => (n === 2 ? undefined : irq(n)));
  const testdev = new PcTestdev({ ...board, irqs, flushPage: () => {} });
  const keyboard = new I8042({ ...board, keyboardIrq: irq(1), auxIrq: irq(12), reset: () => {} });
  const hpet = new Hpet({ ...board, pin: () => wire(), legacy: [wire(), wire()], msi: () => {} });
  for (const d of [pic, ioapic, testdev, keyboard, hpet]) d.reset();
  pic.map(board.ports);
  keyboard.map(board.ports);
  hpet.map(board.mmio);
  testdev.map(board.ports, board.mmio);
  const smbusLine = wire();
  const smbus = new Smbus(board.arena, smbusLine);
  smbus.reset();
  board.ports.map(0xc000, 0x40, smbus.handler, 'pm-smbus');
  board.mmio.map(0xfec0_0000, 0x1000, ioapic.mmio, 'ioapic');
  const history: string[] = [];
  const compare = (what: string, theirs: number, ours: number, mask: number) => {
    history.push(`${what} is ${theirs.toString(16)}`);
    const message = () =>
      `${what}: QEMU ${theirs.toString(16)}, here ${ours.toString(16)}, after\n${history.slice(-70).join('\n')}`;
    if ((theirs & mask) !== (ours & mask)) assert.fail(message());
  };
  let state = seed;
  return {
    /** Below `n`. */
    random(n: number): number {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return Math.floor((state / 2 ** 32) * n);
    },
    smbusLine,
    /** Has QEMU's SMBus controller at the same place. */
    async mapSmbus() {
      for (const [at, value] of [
        [0x20, 0xc001],
        [0x04, 1],
      ] as const) {
        await ask(`outl ${0xcf8} ${(0x8000_fb00 | at) >>> 0}`);
        await ask(`outl ${0xcfc} ${value}`);
      }
    },
    /** Whether the interrupt of QEMU's SMBus controller is up. */
    async smbusInterrupts(): Promise<number> {
      await ask(`outl ${0xcf8} ${0x8000_fb04}`);
      return ((await ask(`inl ${0xcfc}`)) >> 19) & 1;
    },
    async out(port: number, value: number) {
      history.push(`outb ${port.toString(16)} ${value.toString(16)}`);
      await ask(`outb ${port} ${value}`);
      board.out(port, value);
    },
    async in(port: number, mask = 0xff) {
      compare(`inb ${port.toString(16)}`, await ask(`inb ${port}`), board.in(port), mask);
    },
    async write(address: number, value: number) {
      history.push(`writel ${address.toString(16)} ${value.toString(16)}`);
      await ask(`writel ${address} ${value}`);
      board.mmio.write(address, 4, value);
    },
    async read(address: number, mask = -1) {
      compare(`readl ${address.toString(16)}`, await ask(`readl ${address}`), board.mmio.read(address, 4), mask);
    },
  };
}

test('the 8259As do what QEMU does', { skip }, async (t) => {
  for (const second of [false, true]) {
    const q = both(t);
    for (const [base, vector, cascade] of [
      [0x20, 0x30, 4],
      [0xa0, 0x38, 2],
    ] as const) {
      for (const [port, value] of [
        [base, 0x11],
        [base + 1, vector],
        [base + 1, cascade],
        [base + 1, 1],
      ] as const)
        await q.out(port, value);
    }
    // QEMU keeps the wire between the two as an edge, so each chip is looked at by itself.
    const base = second ? 0xa0 : 0x20;
    const inputs = second ? [8, 9, 10, 11, 14, 15] : [0, 1, 3, 5, 6, 7];
    await q.out(second ? 0x4d1 : 0x4d0, q.random(256));
    for (let i = 0; i < 1500; i++) {
      const operations = [
        () => q.out(0x2000 + inputs[q.random(inputs.length)]!, q.random(2)),
        () => q.out(base + 1, q.random(256) & q.random(256)),
        () => q.out(base, (q.random(8) << 5) | q.random(8)),
        () => q.out(base, 0x0a | q.random(2)),
        async () => {
          await q.out(base, 0x0c);
          await q.in(base);
        },
        () => q.in(base),
        () => q.in(base + 1),
      ];
      await operations[q.random(operations.length)]!();
    }
  }
});

test('the I/O APIC does what QEMU does', { skip }, async (t) => {
  const q = both(t);
  const inputs = [0, 1, 3, 5, 6, 7, 8, 9, 10, 11, 14, 15];
  for (let i = 0; i < 2000; i++) {
    if (q.random(4) === 0) await q.out(0x2000 + inputs[q.random(inputs.length)]!, q.random(2));
    await q.write(0xfec0_0000, q.random(10) ? q.random(0x30) + 0x10 : q.random(3));
    // Masked, as there is no local APIC here; QEMU keeps reserved bits.
    if (q.random(2)) await q.write(0xfec0_0010, (q.random(2 ** 32) | 0x1_0000) >>> 0);
    else await q.read(0xfec0_0010, 0x1_ffff);
  }
});

test('the registers of the HPET do what those of QEMU do', { skip }, async (t) => {
  const q = both(t);
  const registers = [
    0,
    4,
    0x10,
    0x20,
    0xf0,
    0xf4,
    ...[0x100, 0x120, 0x140].flatMap((n) => [n, n + 4, n + 8, n + 0x10, n + 0x14]),
  ];
  for (let i = 0; i < 2000; i++) {
    const at = registers[q.random(registers.length)]!;
    // Stopped, as the clocks are not the same. QEMU's timers send no messages (bits 14 and 15).
    if (q.random(2)) await q.write(0xfed0_0000 + at, (q.random(2 ** 32) & (at === 0x10 ? 2 : -1)) >>> 0);
    else await q.read(0xfed0_0000 + at, at >= 0x100 && (at & 0x1f) === 0 ? ~0xc000 : -1);
  }
});

test('the keyboard controller and its devices answer what QEMU answers', { skip }, async (t) => {
  const q = both(t);
  const drain = async () => {
    for (let i = 0; i < 5; i++) {
      // QEMU's status shows bit 3 always.
      await q.in(0x64, 0xf7);
      await q.in(0x60);
    }
  };
  const command = async (...values: number[]) => {
    await q.out(0x64, values[0]!);
    for (const v of values.slice(1)) await q.out(0x60, v);
    await drain();
  };
  const keyboard = [0xed, 0xee, 0xf0, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xff];
  const mouse = [0xee, 0xf0, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xe8, 0xe6, 0xe7, 0xe9, 0xea];
  const arguments_: Readonly<Record<number, readonly number[]>> = {
    237: [0, 5],
    240: [0, 1, 2],
    243: [10, 20, 60],
    232: [0, 1, 2, 3],
  };
  await command(0xaa);
  await command(0x60, 0x47);
  // QEMU's mouse has no defaults before it is told to take them.
  await command(0xd4, 0xf6);
  for (let i = 0; i < 300; i++) {
    if (q.random(4) === 0) {
      const some = [0x20, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xad, 0xae, 0xd0];
      await command(some[q.random(some.length)]!);
      continue;
    }
    const aux = q.random(2) === 1;
    const from = aux ? mouse : keyboard;
    const send = async (v: number) => {
      if (aux) await q.out(0x64, 0xd4);
      await q.out(0x60, v);
      await drain();
    };
    const chosen = from[q.random(from.length)]!;
    await send(chosen);
    const choices = aux && chosen === 0xf0 ? undefined : arguments_[chosen];
    if (choices !== undefined) await send(choices[q.random(choices.length)]!);
    // Wrap mode echoes until it is left.
    if (aux && chosen === 0xee) {
      await send(0x55);
      await send(0xec);
    }
  }
});

test('SMBus and its EEPROMs do what QEMU does', { skip }, async (t) => {
  const q = both(t);
  await q.mapSmbus();
  const base = 0xc000;
  // Blocks are left out: QEMU's place in their buffer is its own.
  const I2C_READ = 6;
  for (let i = 0; i < 600; i++) {
    const kind = [0, 1, 2, 3, I2C_READ][q.random(5)]!;
    // Addresses: mostly those of EEPROMs, now and then nobody's.
    const chip = q.random(10) === 0 ? 0x30 : eeproms.first + q.random(2);
    await q.out(base, 0xff);
    await q.out(base + 4, (chip << 1) | q.random(2));
    await q.out(base + 3, q.random(4) * 8);
    await q.out(base + 5, q.random(256));
    await q.out(base + 6, q.random(4) * 8);
    await q.in(base + 2);
    const interrupts = q.random(2);
    await q.out(base + 2, 0x40 | (kind << 2) | interrupts);
    for (let n = 0; n < 8; n++) {
      assert.equal(q.smbusLine.level, await q.smbusInterrupts(), `the interrupt, round ${i}`);
      await q.in(base);
      await q.in(base + 5);
      await q.in(base + 6);
      if (kind === I2C_READ) {
        await q.in(base + 7);
        // The last byte is announced.
        if (n === 6) await q.out(base + 2, (kind << 2) | 0x20 | interrupts);
      }
      await q.out(base, 0x80);
    }
  }
});
