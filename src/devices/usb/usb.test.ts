import assert from 'node:assert/strict';
import { test } from 'node:test';
import { descriptor } from './descriptors.ts';
import type { UsbFunction } from './device.ts';
import { Ehci } from './ehci.ts';
import { Hid } from './hid.ts';
import { HUB_PORTS, Hub } from './hub.ts';
import { Storage } from './storage.ts';
import { RAM, world, xhciWorld } from './testing.ts';
import { Uhci } from './uhci.ts';

const keyboard = (w: ReturnType<typeof world>, name = 'kbd') =>
  new Hid({ arena: w.arena, name, kind: 'keyboard', serial: '1', highSpeed: true, now: () => w.time.ns });

test('descriptors have their lengths, at every speed', () => {
  const w = world();
  const functions: UsbFunction[] = [
    keyboard(w),
    new Hub({ arena: w.arena, name: 'hub', serial: '1', path: '1' }),
    new Storage({ arena: w.arena, name: 'disk', serial: '1', luns: 1 }),
  ];
  for (const { description } of functions) {
    for (const speed of description.speeds) {
      const device = descriptor(description, speed, 1, 0)!;
      assert.deepEqual([device.length, device[0]], [18, 18]);
      const config = descriptor(description, speed, 2, 0)!;
      assert.equal(config[2]! | (config[3]! << 8), config.length);
      let at = 0;
      while (at < config.length) at += config[at]!;
      assert.equal(at, config.length);
      assert.equal(descriptor(description, speed, 3, 200), undefined);
    }
  }
});

test('a keyboard reports one change at a time, and all keys that are down', () => {
  const w = world();
  const hid = keyboard(w);
  hid.reset();
  for (const usage of [0xe1, 4, 5]) hid.key(usage, true);
  hid.key(4, false);
  const reports = [];
  for (let r = hid.in(1, 8); r instanceof Uint8Array; r = hid.in(1, 8)) reports.push([...r]);
  assert.deepEqual(reports, [
    [2, 0, 0, 0, 0, 0, 0, 0],
    [2, 0, 4, 0, 0, 0, 0, 0],
    [2, 0, 4, 5, 0, 0, 0, 0],
    [2, 0, 5, 0, 0, 0, 0, 0],
  ]);
  for (let k = 6; k < 14; k++) hid.key(k, true);
  let last: readonly number[] = [];
  for (let r = hid.in(1, 8); r instanceof Uint8Array; r = hid.in(1, 8)) last = [...r];
  assert.deepEqual(last, [2, 0, 1, 1, 1, 1, 1, 1], 'more than six keys roll over');
  // Asked to repeat its report, it does when the time has come.
  hid.control({ type: 0x21, request: 10, value: 0x0100, index: 0, length: 0 }, new Uint8Array(0));
  assert.equal(hid.in(1, 8), 'nak');
  w.time.ns += 5e6;
  assert.ok(hid.in(1, 8) instanceof Uint8Array);
});

test('movement adds up until it is read, buttons do not', () => {
  const w = world();
  const mouse = new Hid({ arena: w.arena, name: 'm', kind: 'mouse', serial: '1', highSpeed: false, now: () => 0 });
  mouse.reset();
  mouse.pointer(100, -3, 0, 0);
  mouse.pointer(100, 0, 1, 0);
  mouse.pointer(0, 0, 0, 1);
  const all = [];
  for (let r = mouse.in(1, 4); r instanceof Uint8Array; r = mouse.in(1, 4)) all.push([...new Int8Array(r)]);
  assert.deepEqual(all, [
    [0, 127, -3, 1],
    [0, 73, 0, 0],
    [1, 0, 0, 0],
  ]);
});

test('bulk-only transport: command, data, status; what is wrong stalls until it is reset', () => {
  const w = world();
  const disk = new Storage({ arena: w.arena, name: 'd', serial: '1', luns: 1 });
  disk.reset();
  const commands: [number, number[]][] = [];
  disk.backend = { execute: (epoch, _, cdb) => void commands.push([epoch, [...cdb]]) };
  const cbw = (expected: number, flags: number, cdb: number[]): Uint8Array => {
    const b = new Uint8Array(31);
    const v = new DataView(b.buffer);
    v.setUint32(0, 0x43425355, true);
    v.setUint32(4, 77, true);
    v.setUint32(8, expected, true);
    b.set([flags, 0, cdb.length, ...cdb], 12);
    return b;
  };
  assert.equal(disk.out(2, cbw(36, 0x80, [0x12, 0, 0, 0, 36, 0])), 'ack');
  assert.equal(disk.in(1, 512), 'nak');
  disk.finished(
    commands[0]![0],
    Uint8Array.from({ length: 20 }, (_, i) => i),
    20,
    true,
  );
  const filled = Uint8Array.from({ length: 36 }, (_, i) => (i < 20 ? i : 0));
  assert.deepEqual(disk.in(1, 512), filled, 'what is missing is zeros, and the residue tells');
  const csw = new DataView((disk.in(1, 512) as Uint8Array).slice().buffer);
  assert.deepEqual([csw.getUint32(4, true), csw.getUint32(8, true), csw.getUint8(12)], [77, 16, 0]);
  assert.equal(disk.out(2, new Uint8Array(31)), 'stall');
  assert.equal(disk.out(2, cbw(8, 0, [0x2a, 0, 0, 0, 0, 0])), 'ack');
  assert.equal(disk.out(2, new Uint8Array(8)), 'ack');
  const late = commands.at(-1)![0];
  disk.reset();
  assert.equal(disk.out(2, cbw(0, 0, [0])), 'ack');
  disk.finished(late, new Uint8Array(0), 0, true);
  assert.equal(disk.in(1, 13), 'nak', 'the end of a forgotten command ends no other');
});

test('a hub tells of its ports', () => {
  const w = world();
  const hub = new Hub({ arena: w.arena, name: 'hub', serial: '1', path: '2' });
  hub.reset();
  assert.equal(hub.in(1, 2), 'nak');
  w.plug(hub.ports[2]!, keyboard(w));
  assert.deepEqual(hub.in(1, 2), Uint8Array.of(8, 0));
  const set = (feature: number) => hub.control({ type: 0x23, request: 3, value: feature, index: 3, length: 0 });
  const status = () => [...(hub.control({ type: 0xa3, request: 0, value: 0, index: 3, length: 4 }) as Uint8Array)];
  assert.deepEqual(status(), [1, 1, 1, 0]);
  set(4);
  assert.deepEqual(status(), [3, 1, 0x11, 0]);
  assert.equal([...hub.enabled()].length, 1);
  assert.equal(hub.control({ type: 0xa3, request: 0, value: 0, index: HUB_PORTS + 1, length: 4 }), 'stall');
});

const OP = 0x40;
/** An xHCI with command ring at 0x1000, event ring at 0x2000, contexts from 0x4000 on. */
function running() {
  const x = xhciWorld();
  x.write(OP + 0x30, 0x3000);
  x.write(OP + 0x34, 0);
  x.write(OP + 0x18, 0x1001);
  x.write(OP + 0x1c, 0);
  x.memory.write32(0x2800, 0x2000);
  x.memory.write32(0x2808, 64);
  x.write(0x1028, 1);
  x.write(0x1038, 0x2000);
  x.write(0x1030, 0x2800);
  x.write(0x1034, 0);
  x.write(0x1020, 2);
  x.write(OP, 5);
  let commands = 0;
  let seen = 0;
  /** Events since the last look: type and completion code. */
  const events = (): [number, number, number][] => {
    const out: [number, number, number][] = [];
    for (; seen < 64 && x.memory.read32(0x2000 + seen * 16 + 12) & 1; seen++) {
      const at = 0x2000 + seen * 16;
      out.push([(x.memory.read32(at + 12) >>> 10) & 63, x.memory.read32(at + 8) >>> 24, x.memory.read32(at + 12) >>> 24]);
    }
    return out;
  };
  const command = (type: number, parameter = 0, more = 0) => {
    const at = 0x1000 + 16 * commands++;
    x.memory.write32(at, parameter);
    x.memory.write32(at + 4, 0);
    x.memory.write32(at + 8, 0);
    x.memory.write32(at + 12, ((type << 10) | more | 1) >>> 0);
    x.write(0x2000, 0);
    x.work();
    return events();
  };
  return { ...x, events, command };
}

test('xHCI: a device is found, addressed and asked for its descriptor', () => {
  const x = running();
  const kbd = keyboard(x);
  x.plug(x.xhci.ports[0]!, kbd);
  x.work();
  assert.deepEqual(x.events(), [[34, 1, 0]]);
  assert.equal(x.read(0x440 + 4 * 16) & 0x20001, 0x20001);
  x.write(0x440 + 4 * 16, 0x210);
  assert.equal(x.read(0x440 + 4 * 16) & 0x200003, 0x200003);
  x.work();
  x.events();
  assert.deepEqual(x.command(9), [[33, 1, 1]]);
  x.memory.write32(0x3008, 0x4000);
  // Input context: slot and endpoint 0, whose ring is at 0x6000.
  x.memory.write32(0x5004, 3);
  x.memory.write32(0x5020, (1 << 27) | (3 << 20));
  x.memory.write32(0x5024, 5 << 16);
  x.memory.write32(0x5044, (64 << 16) | (4 << 3));
  x.memory.write32(0x5048, 0x6001);
  assert.deepEqual(x.command(11, 0x5000, 1 << 24), [[33, 1, 1]]);
  assert.equal(x.memory.read32(0x400c) >>> 27, 2);
  const trb = (n: number, a: number, b: number, status: number, control: number) => {
    const at = 0x6000 + 16 * n;
    for (const [i, v] of [a, b, status, control].entries()) x.memory.write32(at + 4 * i, v >>> 0);
  };
  trb(0, 0x01000680, 18 << 16, 8, (2 << 10) | 0x40 | 1);
  trb(1, 0x7000, 0, 18, (3 << 10) | (1 << 16) | 1);
  trb(2, 0, 0, 0, (4 << 10) | 0x20 | 1);
  x.write(0x2004, 1);
  x.work();
  assert.deepEqual(x.events(), [[32, 1, 1]]);
  assert.equal(x.memory.read16(0x7008), 0x0627);
  // A request that it does not know stalls and halts the endpoint.
  trb(3, 0x000055c0, 0, 8, (2 << 10) | 0x40 | 1);
  trb(4, 0, 0, 0, (4 << 10) | (1 << 16) | 0x20 | 1);
  x.write(0x2004, 1);
  x.work();
  assert.deepEqual(x.events(), [[32, 6, 1]]);
  assert.equal(x.memory.read32(0x4020) & 7, 2);
  // It goes, and the port tells.
  x.xhci.ports[0]!.owner!.connected(false);
  x.work();
  assert.deepEqual(x.events(), [[34, 1, 0]]);
  assert.ok(x.messages.length > 0);
});

/** Numbers from a seed. */
function from(seed: number): (n: number) => number {
  let x = seed;
  return (n) => {
    x = (Math.imul(x, 1103515245) + 12345) >>> 0;
    return Math.floor(((x >>> 4) / 2 ** 28) * n);
  };
}
/** Fills memory with what looks like blocks, pointers and rings. */
function litter(memory: { write32(a: number, v: number): void }, random: (n: number) => number): void {
  for (let at = 0; at < 0x8000; at += 4) {
    const v =
      random(4) === 0 ? random(0x10000) * 16 : random(3) === 0 ? random(0x10000) : ((random(64) << 10) | random(1024)) >>> 0;
    memory.write32(at, (random(50) === 0 ? v * 65536 : v) >>> 0);
  }
}

test('xHCI: no ring, context or register of the guest stalls or breaks it', () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = from(seed);
    const x = running();
    x.plug(x.xhci.ports[0]!, keyboard(x));
    x.plug(x.xhci.ports[1]!, new Storage({ arena: x.arena, name: 'd', serial: '1', luns: 1 }));
    litter(x.memory, random);
    for (let i = 0; i < 200; i++) {
      const where = [OP + random(0x40), 0x440 + random(0x100), 0x1000 + random(0x220), 0x2000 + 4 * random(66)][random(4)]!;
      x.write(where & ~3, random(3) ? random(32) : random(0x10000) * 16);
      if (random(4) === 0) x.write(OP, 5);
      if (random(4) === 0) x.write(0x2000, 0);
      assert.ok(x.work(20) <= 20, `seed ${seed}`);
    }
  }
});

test('UHCI and EHCI: no schedule of the guest stalls or breaks them', () => {
  for (let seed = 1; seed <= 60; seed++) {
    const random = from(seed);
    const w = world();
    const o = { arena: w.arena, irq: () => {}, ring: () => {}, now: () => w.time.ns };
    const uhci = new Uhci({ ...o, name: 'uhci' });
    const ehci = new Ehci({ ...o, name: 'ehci' });
    const companion = new Uhci({ ...o, name: 'c', shared: { ports: ehci.ports.slice(0, 2), mine: (n) => ehci.left(n) } });
    ehci.addCompanion(0, companion);
    for (const c of [uhci, ehci, companion]) c.reset();
    w.plug(uhci.ports[0]!, keyboard(w, 'k1'));
    w.plug(ehci.ports[0]!, keyboard(w, 'k2'));
    w.plug(ehci.ports[3]!, new Storage({ arena: w.arena, name: 'd', serial: '1', luns: 1 }));
    litter(w.memory, random);
    for (let i = 0; i < 150; i++) {
      uhci.handler.write(random(32) & ~1, 2, random(2) ? random(16) : random(65536));
      companion.handler.write(random(32) & ~1, 2, random(65536));
      ehci.handler.write(0x20 + 4 * random(24), 4, random(2) ? random(256) : random(RAM));
      if (random(3) === 0) {
        uhci.handler.write(0, 2, 1);
        ehci.handler.write(0x20, 4, 0x31);
        ehci.handler.write(0x60, 4, 1);
      }
      w.time.ns += random(20) * 1e6;
      for (const c of [uhci, ehci, companion]) {
        const next = c.walk(w.memory);
        assert.ok(next === undefined || next > 0, `seed ${seed}`);
      }
    }
  }
});
