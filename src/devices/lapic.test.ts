import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../bits/arena.ts';
import { Ram } from '../bus/memory.ts';
import { ApicBus } from './apic-bus.ts';
import { Ioapic } from './ioapic.ts';
import { event, Lapic, sipiVector } from './lapic.ts';
import { saveLapicPage } from './lapic-page.ts';

/** Local APICs of `n` vCPUs, software-enabled, an I/O APIC, 1 ns = 2 TSC cycles, and a page of RAM. */
function board(n: number, ids?: readonly number[], features?: { x2apic: boolean; tscDeadline: boolean }) {
  const buffer = new SharedArrayBuffer(1 << 16);
  const arena = new Arena(buffer);
  const bus = new ApicBus();
  const time = { ns: 1000 };
  const kicks: number[] = [];
  const memory = new Ram(buffer, [{ gpa: 0, length: 4096, offset: 0xf000 }]);
  const lapics = Array.from(
    { length: n },
    (_, cpu) =>
      new Lapic({
        arena,
        bus,
        cpu,
        apicId: ids?.[cpu] ?? cpu,
        clock: { now: () => time.ns },
        tsc: { tscAt: (ns) => BigInt(ns) * 2n, nsAt: (tsc) => Number(tsc) / 2 },
        pic: { acknowledge: () => 0x08 },
        kick: (c) => kicks.push(c),
        memory,
        features,
      }),
  );
  const ioapic = new Ioapic({ arena, bus });
  ioapic.reset();
  for (const l of lapics) {
    l.reset();
    l.mmio.write(0xf0, 4, 0x1ff);
  }
  const program = (pin: number, high: number, low: number) => {
    for (const [i, v] of [low, high].entries()) {
      ioapic.mmio.write(0, 4, 0x10 + 2 * pin + i);
      ioapic.mmio.write(0x10, 4, v);
    }
  };
  const entry = (pin: number) => {
    ioapic.mmio.write(0, 4, 0x10 + 2 * pin);
    return ioapic.mmio.read(0x10, 4);
  };
  return { lapics, bus, time, kicks, ioapic, program, entry, memory, l: lapics[0]! };
}
const x2 = (l: Lapic) => {
  assert.equal(l.msrs.write(0x1b, l.msrs.read(0x1b)! | 0xc00n), true);
};
const taken = (lapics: readonly Lapic[]) => lapics.map((l) => (l.pending() ? l.acknowledge() : -1));

test('after reset the bootstrap processor and the page are where the manual says, and everything is masked', () => {
  const { lapics } = board(2);
  assert.equal(lapics[0]!.msrs.read(0x1b), 0xfee0_0900n);
  assert.equal(lapics[1]!.msrs.read(0x1b), 0xfee0_0800n);
  assert.equal(lapics[1]!.mmio.read(0x20, 4), 0x0100_0000);
  assert.equal(lapics[1]!.mmio.read(0x320, 4), 0x1_0000);
  const mapped: number[] = [];
  lapics[0]!.mapper((r) => mapped.push(r.base));
  assert.deepEqual(mapped, [0xfee0_0000]);
});

test('the highest vector comes first, and a vector waits for one of its own class in service', () => {
  const { l } = board(1);
  l.accept(0, 0x41, false);
  l.accept(0, 0x52, false);
  assert.equal(l.acknowledge(), 0x52);
  assert.equal(l.pending(), false);
  l.accept(0, 0x5f, false);
  assert.equal(l.pending(), false);
  l.accept(0, 0x60, false);
  assert.equal(l.acknowledge(), 0x60);
  assert.equal(l.mmio.read(0xa0, 4), 0x60);
  l.mmio.write(0xb0, 4, 0);
  assert.equal(l.pending(), false);
  l.mmio.write(0xb0, 4, 0);
  assert.equal(l.acknowledge(), 0x5f);
});

test('the task priority holds interrupts back, and lowering it kicks the vCPU', () => {
  const { l, kicks } = board(1);
  l.tpr = 5;
  l.accept(0, 0x55, false);
  assert.equal(l.pending(), false);
  kicks.length = 0;
  l.mmio.write(0x80, 4, 0x40);
  assert.deepEqual(kicks, [0]);
  assert.equal(l.tpr, 4);
  assert.equal(l.acknowledge(), 0x55);
});

test('a software-disabled APIC drops interrupts but takes NMI, INIT and SIPI', () => {
  const { l } = board(1);
  l.mmio.write(0xf0, 4, 0xff);
  assert.equal(l.accept(0, 0x55, false), false);
  l.accept(4, 0, false);
  l.accept(5, 0, false);
  l.accept(6, 0x9a, false);
  const e = l.takeEvents();
  assert.equal(e & 7, event.nmi | event.init);
  assert.equal(sipiVector(e), 0x9a);
  assert.equal(l.takeEvents(), 0);
  assert.equal(sipiVector(0), -1);
});

test('IPIs reach whom the shorthands name', () => {
  const { lapics, l } = board(3);
  const send = (low: number, high = 0) => {
    l.mmio.write(0x310, 4, high);
    l.mmio.write(0x300, 4, low);
    return taken(lapics);
  };
  assert.deepEqual(send(0x4_0041), [0x41, -1, -1]);
  for (const a of lapics) a.eoi();
  assert.deepEqual(send(0x8_0042), [0x42, 0x42, 0x42]);
  for (const a of lapics) a.eoi();
  assert.deepEqual(send(0xc_0043), [-1, 0x43, 0x43]);
  for (const a of lapics) a.eoi();
  assert.deepEqual(send(0x0044, 2 << 24), [-1, -1, 0x44]);
  for (const a of lapics) a.eoi();
  assert.deepEqual(send(0x0045, 0xff << 24), [0x45, 0x45, 0x45]);
});

test('INIT and SIPI start another processor', () => {
  const { lapics, l } = board(2);
  l.mmio.write(0x310, 4, 1 << 24);
  l.mmio.write(0x300, 4, 0xc500);
  assert.equal(lapics[1]!.takeEvents(), event.init);
  l.mmio.write(0x300, 4, 0x8500);
  assert.equal(lapics[1]!.takeEvents(), 0, 'a de-assert does nothing');
  l.mmio.write(0x300, 4, 0x4699);
  assert.equal(sipiVector(lapics[1]!.takeEvents()), 0x99);
  assert.equal(l.takeEvents(), 0);
});

test('logical destinations: flat, cluster and lowest priority', () => {
  const { lapics, bus } = board(4);
  for (const [i, a] of lapics.entries()) a.mmio.write(0xd0, 4, (1 << i) << 24);
  bus.send(0b1010, true, 0, 0x41, false);
  assert.deepEqual(taken(lapics), [-1, 0x41, -1, 0x41]);
  for (const a of lapics) a.eoi();
  for (const [i, a] of lapics.entries()) {
    a.mmio.write(0xe0, 4, 0);
    a.mmio.write(0xd0, 4, (((i >> 1) << 4) | (1 << (i & 1))) << 24);
  }
  bus.send(0x13, true, 0, 0x42, false);
  assert.deepEqual(taken(lapics), [-1, -1, 0x42, 0x42]);
  for (const a of lapics) a.eoi();
  lapics[2]!.tpr = 8;
  bus.send(0x13, true, 1, 0x43, false);
  assert.deepEqual(taken(lapics), [-1, -1, -1, 0x43]);
});

test('as an x2APIC: 32-bit IDs, cluster addressing, self IPI, and #GP for what is not there', () => {
  const { lapics, l } = board(3, [0, 17, 0x1_0003]);
  for (const a of lapics) x2(a);
  assert.equal(lapics[1]!.msrs.read(0x802), 17n);
  assert.equal(lapics[1]!.msrs.read(0x80d), 0x1_0002n);
  l.msrs.write(0x830, (0x1_0003n << 32n) | 0x41n);
  assert.deepEqual(taken(lapics), [-1, -1, 0x41]);
  l.msrs.write(0x830, (0x1_0002n << 32n) | 0x842n);
  assert.deepEqual(taken(lapics), [-1, 0x42, -1]);
  l.msrs.write(0x83f, 0x43n);
  assert.deepEqual(taken(lapics), [0x43, -1, -1]);
  assert.equal(l.msrs.write(0x80b, 0n), true);
  assert.equal(l.msrs.write(0x80b, 1n), false);
  assert.equal(l.msrs.write(0x802, 1n), false);
  assert.equal(l.msrs.read(0x80e), undefined);
  assert.equal(l.msrs.read(0x831), undefined);
  assert.equal(l.msrs.write(0x808, 0x100n), false);
  l.mapper(() => assert.fail('an x2APIC has no page'));
});

test('the base MSR refuses reserved bits and transitions that the manual does not have', () => {
  const { l } = board(1);
  assert.equal(l.msrs.write(0x1b, 0xfee0_0500n), false);
  assert.equal(l.msrs.write(0x1b, 0xfee0_0901n), false);
  assert.equal(l.msrs.write(0x1b, (1n << 46n) | 0x900n), false);
  assert.equal(l.msrs.read(0x802), undefined, 'no x2APIC registers as an xAPIC');
  x2(l);
  assert.equal(l.msrs.write(0x1b, 0xfee0_0900n), false);
  assert.equal(l.msrs.write(0x1b, 0xfee0_0100n), true);
  assert.equal(l.msrs.write(0x1b, 0xfee0_0d00n), false);
  assert.equal(l.msrs.write(0x1b, 0xfed0_0900n), true);
});

test('the one-shot timer counts down by its divisor, fires once, and counts nothing after', () => {
  const { l, time } = board(1);
  l.mmio.write(0x3e0, 4, 3);
  l.mmio.write(0x320, 4, 0x30);
  l.mmio.write(0x380, 4, 100);
  assert.equal(l.next(), 1000 + 1600);
  assert.equal(l.mmio.read(0x390, 4), 100);
  time.ns += 160;
  assert.equal(l.mmio.read(0x390, 4), 90);
  time.ns = 2600;
  l.tick(time.ns);
  assert.equal(l.acknowledge(), 0x30);
  assert.equal(l.next(), Number.POSITIVE_INFINITY);
  assert.equal(l.mmio.read(0x390, 4), 0);
});

test('the periodic timer keeps its phase when it is served late', () => {
  const { l, time } = board(1);
  l.mmio.write(0x3e0, 4, 0xb);
  l.mmio.write(0x320, 4, 0x2_0030);
  l.mmio.write(0x380, 4, 1_000_000);
  time.ns = 1000 + 3_400_000;
  l.tick(time.ns);
  assert.equal(l.next(), 1000 + 4_000_000);
  assert.equal(l.mmio.read(0x390, 4), 600_000);
  assert.equal(l.acknowledge(), 0x30);
});

test('a periodic timer of one nanosecond cannot keep the host busy', () => {
  const { l, time } = board(1);
  l.mmio.write(0x3e0, 4, 0xb);
  l.mmio.write(0x320, 4, 0x2_0030);
  l.mmio.write(0x380, 4, 1);
  time.ns = 1001;
  l.tick(time.ns);
  assert.ok(l.next() >= time.ns + 19_000);
});

test('the TSC deadline fires at its counter value and then reads zero', () => {
  const { l, time } = board(1);
  assert.equal(l.msrs.write(0x6e0, 5000n), true);
  assert.equal(l.msrs.read(0x6e0), 0n, 'ignored outside its mode');
  l.mmio.write(0x320, 4, 0x4_0031);
  l.msrs.write(0x6e0, 5000n);
  assert.equal(l.next(), 2500);
  assert.equal(l.msrs.read(0x6e0), 5000n);
  l.tick(2499);
  assert.equal(l.pending(), false);
  time.ns = 2500;
  l.tick(2500);
  assert.equal(l.acknowledge(), 0x31);
  assert.equal(l.msrs.read(0x6e0), 0n);
});

test('what CPUID does not offer is refused: x2APIC mode, the TSC deadline and its timer mode', () => {
  const { l } = board(1, undefined, { x2apic: false, tscDeadline: false });
  assert.equal(l.msrs.write(0x1b, 0xfee0_0d00n), false);
  assert.equal(l.msrs.read(0x1b), 0xfee0_0900n);
  assert.equal(l.msrs.read(0x6e0), undefined);
  assert.equal(l.msrs.write(0x6e0, 5000n), false);
  l.mmio.write(0x320, 4, 0x6_0031);
  assert.equal(l.mmio.read(0x320, 4), 0x2_0031);
});

test("what the guest reads and changes of its timer comes after the ends before, however late the host's timer is", () => {
  const { l, time } = board(1);
  l.mmio.write(0x3e0, 4, 0xb);
  l.mmio.write(0x320, 4, 0x4_0031);
  l.msrs.write(0x6e0, 5000n);
  time.ns = 2500;
  assert.equal(l.msrs.read(0x6e0), 0n, 'disarmed');
  assert.equal(l.acknowledge(), 0x31);
  l.eoi();
  // A deadline, a count and a mask that come after the end do not undo it.
  l.msrs.write(0x6e0, 6000n);
  time.ns = 3001;
  l.msrs.write(0x6e0, 0n);
  assert.equal(l.acknowledge(), 0x31);
  l.eoi();
  l.mmio.write(0x320, 4, 0x32);
  l.mmio.write(0x380, 4, 100);
  time.ns += 101;
  l.mmio.write(0x380, 4, 100);
  assert.equal(l.acknowledge(), 0x32);
  l.eoi();
  time.ns += 101;
  l.mmio.write(0x320, 4, 0x1_0032);
  assert.equal(l.acknowledge(), 0x32);
});

test('illegal vectors show up in ESR after a write to it, and fire the error vector', () => {
  const { l } = board(1);
  l.mmio.write(0x370, 4, 0x33);
  l.mmio.write(0x300, 4, 0x4_0005);
  assert.equal(l.mmio.read(0x280, 4), 0);
  l.mmio.write(0x280, 4, 0);
  assert.equal(l.mmio.read(0x280, 4), 0x20);
  assert.equal(l.acknowledge(), 0x33);
});

test('the virtual wire lets the 8259As through, also past an APIC that is off', () => {
  const { l } = board(1);
  l.mmio.write(0x350, 4, 0x700);
  l.lint(0, 1);
  assert.equal(l.pending(), true);
  assert.equal(l.acknowledge(), 8);
  l.mmio.write(0x350, 4, 0x1_0700);
  assert.equal(l.pending(), false);
  l.msrs.write(0x1b, 0xfee0_0100n);
  assert.equal(l.pending(), true);
  l.lint(0, 0);
  assert.equal(l.pending(), false);
});

test('LINT1 is the NMI where its vector says so', () => {
  const { l } = board(1);
  l.lint(1, 1);
  l.lint(1, 0);
  assert.equal(l.takeEvents(), 0, 'masked');
  l.mmio.write(0x360, 4, 0x400);
  l.lint(1, 1);
  assert.equal(l.takeEvents(), event.nmi);
});

test('a level interrupt of the I/O APIC comes again after EOI while the wire is high', () => {
  const { l, ioapic, program, entry } = board(1);
  program(11, 0, 0x8051);
  const wire = ioapic.pin(11);
  wire.set(1);
  assert.equal(entry(11) & 0x4000, 0x4000);
  assert.equal(l.acknowledge(), 0x51);
  wire.set(1);
  assert.equal(l.pending(), false);
  l.eoi();
  assert.equal(l.acknowledge(), 0x51);
  wire.set(0);
  l.eoi();
  assert.equal(l.pending(), false);
  assert.equal(entry(11), 0x8051);
});

test('with EOI broadcast suppressed the guest ends it by the I/O APIC register', () => {
  const { l, ioapic, program, entry } = board(1);
  l.mmio.write(0xf0, 4, 0x11ff);
  program(5, 0, 0x8051);
  ioapic.pin(5).set(1);
  l.acknowledge();
  ioapic.pin(5).set(0);
  l.eoi();
  assert.equal(entry(5) & 0x4000, 0x4000);
  ioapic.mmio.write(0x40, 4, 0x51);
  assert.equal(entry(5) & 0x4000, 0);
});

test('an edge comes once; masked edges are lost, a masked level comes on unmasking', () => {
  const { l, ioapic, program } = board(1);
  program(4, 0, 0x44);
  const wire = ioapic.pin(4);
  wire.set(1);
  wire.set(1);
  assert.equal(l.acknowledge(), 0x44);
  l.eoi();
  assert.equal(l.pending(), false);
  wire.set(0);
  program(4, 0, 0x1_0044);
  wire.set(1);
  program(4, 0, 0x44);
  assert.equal(l.pending(), false);
  program(6, 0, 0x1_8046);
  ioapic.pin(6).set(1);
  assert.equal(l.pending(), false);
  program(6, 0, 0x8046);
  assert.equal(l.acknowledge(), 0x46);
});

test('the I/O APIC says what it is, and ignores what it does not have', () => {
  const { ioapic, entry } = board(1);
  ioapic.mmio.write(0, 4, 1);
  assert.equal(ioapic.mmio.read(0x10, 4), 0x0017_0020);
  ioapic.mmio.write(0, 4, 0x80);
  ioapic.mmio.write(0x10, 4, 5);
  assert.equal(ioapic.mmio.read(0x10, 4), 0);
  assert.equal(entry(23), 0x1_0000);
});

test('MSIs go to the one they address, also beyond 255 with the extended destination', () => {
  const { lapics, bus } = board(3, [0, 1, 0x105]);
  x2(lapics[2]!);
  bus.deliverMsi(0xfee0_1000, 0x4061);
  assert.deepEqual(taken(lapics), [-1, 0x61, -1]);
  bus.deliverMsi(0xfee0_5020, 0x62);
  assert.deepEqual(taken(lapics), [-1, -1, 0x62]);
  bus.deliverMsi(0xfed0_1000, 0x63);
  bus.deliverMsi(0xfee0_0000, 0x05);
  assert.deepEqual(taken(lapics), [-1, -1, -1]);
});

test('the paravirtual EOI ends an interrupt by the guest clearing its word, unless another waits', () => {
  const { l, memory } = board(1);
  l.setPvEoi(0x100);
  l.accept(0, 0x50, false);
  l.acknowledge();
  assert.equal(memory.read8(0x100), 1);
  memory.write8(0x100, 0);
  assert.equal(l.pending(), false);
  assert.equal(l.mmio.read(0x120, 4), 0);
  l.accept(0, 0x50, false);
  l.acknowledge();
  l.accept(0, 0x40, false);
  assert.equal(l.pending(), false);
  assert.equal(memory.read8(0x100), 0, 'the offer is taken back');
  l.eoi();
  assert.equal(l.acknowledge(), 0x40);
});

test('who takes the registers over finds what the guest ended in its word ended, and no offer there', () => {
  const { l, memory } = board(1);
  const inService = () => new DataView(saveLapicPage(l).page.buffer).getUint32(0x120, true);
  l.setPvEoi(0x100);
  l.accept(0, 0x50, false);
  l.acknowledge();
  assert.equal(inService(), 1 << 16);
  assert.equal(memory.read8(0x100), 0, 'the guest ends it by the register');
  l.eoi();
  l.accept(0, 0x50, false);
  l.acknowledge();
  memory.write8(0x100, 0);
  assert.equal(inService(), 0);
});

test('an interrupt that the guest ended in its word stays ended when the word is given up, and an offer there is taken back', () => {
  const { l, memory } = board(1);
  l.setPvEoi(0x100);
  l.accept(0, 0x50, false);
  l.acknowledge();
  memory.write8(0x100, 0);
  l.setPvEoi(0);
  l.accept(0, 0x40, false);
  assert.equal(l.pending(), true);
  assert.equal(l.acknowledge(), 0x40);
  l.eoi();
  l.setPvEoi(0x100);
  l.accept(0, 0x50, false);
  l.acknowledge();
  l.setPvEoi(0);
  assert.equal(memory.read8(0x100), 0);
  l.accept(0, 0x40, false);
  assert.equal(l.pending(), false);
  l.eoi();
  assert.equal(l.pending(), true);
});

test('local APICs that are kept elsewhere know where a pin points that was masked while its interrupt is in service', () => {
  const { bus, ioapic, program, entry } = board(1);
  let known: readonly unknown[] = [];
  const sent: number[] = [];
  bus.remote = {
    msi: (_, data) => sent.push(data & 0xff) > 0,
    routes(pins) {
      known = pins;
    },
  };
  program(9, 0, 0x8049);
  program(10, 0, 0x1804a);
  assert.deepEqual([known[9], known[10]], [{ address: 0xfee0_0000, data: 0xc049 }, undefined]);
  ioapic.pin(9).set(1);
  assert.deepEqual(sent, [0x49]);
  // Masked, ended, unmasked, as a driver that serves it later does; the wire stays high.
  program(9, 0, 0x18049);
  assert.deepEqual(known[9], { address: 0xfee0_0000, data: 0xc049 });
  bus.eoi(0x49);
  assert.equal(entry(9), 0x18049);
  program(9, 0, 0x18049);
  assert.equal(known[9], undefined);
  program(9, 0, 0x8049);
  assert.deepEqual(sent, [0x49, 0x49]);
});

test('a timer that ends while its registers are read is either to come or has requested its interrupt, not both and not neither', () => {
  const ends = { before: 0, after: 0 };
  for (let due = 0; due < 200; due++) {
    const { l, time } = board(1);
    l.mmio.write(0x320, 4, 0x4_0041);
    l.msrs.write(0x6e0, BigInt(2 * (time.ns + 2 * due)));
    let ns = time.ns;
    Object.defineProperty(time, 'ns', { get: () => ns++ });
    const { page, deadline } = saveLapicPage(l);
    const requested = new DataView(page.buffer).getUint32(0x220, true) !== 0;
    assert.equal(deadline !== 0n, !requested, `due after ${2 * due} looks at the clock`);
    ends[requested ? 'before' : 'after']++;
    assert.equal(l.timer.deadline === 0n || time.ns <= 1000 + 2 * due, true, 'time goes on afterwards');
  }
  assert.ok(ends.before > 0 && ends.after > 0);
});
