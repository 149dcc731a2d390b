import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { Ram } from '../../bus/memory.ts';
import { testBoard, wire } from '../testing.ts';
import { E1000E_BAR, E1000e } from './e1000e.ts';
import { cause } from './interrupts.ts';
import { E1000Io } from './io.ts';
import { toeplitz } from './rss.ts';

const RAM = 1 << 20;
const BASE = 0xf000_0000;
const TX = 0x1000;
const RX = 0x2000;
const MAC = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
/** The key of Microsoft's "Verifying the RSS Hash Calculation". */
const KEY = Uint8Array.from(
  '6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa'
    .match(/../g)!
    .map((h) => Number.parseInt(h, 16)),
);

/** A card whose frames and messages are kept, with receive rings of 8 descriptors in RAM. */
function rig() {
  const b = testBoard();
  const bytes = new Uint8Array(new SharedArrayBuffer(RAM));
  const memory = new Ram(bytes.buffer, [{ gpa: 0, length: RAM, offset: 0 }]);
  const view = new DataView(bytes.buffer);
  const irq = wire();
  const way: { mode: 'wire' | 'msi' | 'msix' } = { mode: 'wire' };
  const messages: string[] = [];
  const sent: Uint8Array[] = [];
  const port = { send: (f: Uint8Array) => void sent.push(f.slice()), receive: (_: Uint8Array): void => {} };
  let io: E1000Io | undefined;
  const ring = (): void => queueMicrotask(() => io?.serve());
  const e = new E1000e({
    ...{ arena: b.arena, name: 'e', mac: MAC, ring },
    interrupts: {
      mode: () => way.mode,
      wire: (l) => irq.set(l),
      msi: () => void messages.push('msi'),
      msix: (v) => void messages.push(`vector ${v}`),
    },
  });
  b.mmio.map(BASE, E1000E_BAR, e.handler, 'e1000e');
  b.lock.run(() => e.reset());
  io = new E1000Io(e, { lock: b.lock, memory, port, master: () => true, again: ring });
  const read = (at: number): number => b.mmio.read(BASE + at, 4);
  const write = (at: number, value: number): void => b.mmio.write(BASE + at, 4, value >>> 0);
  const settle = (): Promise<void> => new Promise((r) => setImmediate(r));
  for (const q of [0, 1]) {
    write(0x3800 + 0x100 * q, TX + 0x800 * q);
    write(0x3808 + 0x100 * q, 128);
    write(0x2800 + 0x100 * q, RX + 0x800 * q);
    write(0x2808 + 0x100 * q, 128);
  }
  return { b, bytes, view, irq, way, messages, sent, port, e, read, write, settle };
}
const frame = (n: number, to: readonly number[] = MAC): Uint8Array =>
  Uint8Array.from({ length: n }, (_, i) => (i < 6 ? to[i]! : i * 3));
/** As Linux's driver sets vectors up: one for each direction, one for all else, masked by being sent. */
function likeLinux(r: ReturnType<typeof rig>): void {
  r.way.mode = 'msix';
  r.write(0xe0, -1);
  r.write(0xe4, 0x800a_0908);
  r.write(0x18, (1 << 31) | (1 << 24));
  r.write(0xdc, cause.rxQueue[0]! | cause.txQueue[0]!);
  r.write(0xd0, cause.rxQueue[0]! | cause.txQueue[0]! | cause.other | cause.link | cause.rxOverrun);
  r.messages.length = 0;
}

test('the NVM is read word by word, its checksum is right, and the PHY has pages', () => {
  const { read, write } = rig();
  const words = Array.from({ length: 64 }, (_, n) => {
    write(0x14, (n << 2) | 1);
    assert.equal(read(0x14) & 3, 2, 'done');
    return read(0x14) >>> 16;
  });
  assert.deepEqual(words.slice(0, 3), [0x5452, 0x1200, 0x5634]);
  assert.equal(words.reduce((a, w) => a + w, 0) & 0xffff, 0xbaba);
  write(0x14, (64 << 2) | 1);
  assert.equal(read(0x14) & 2, 0, 'no such word');
  const phy = (n: number): number => {
    write(0x20, (2 << 26) | (1 << 21) | (n << 16));
    return read(0x20) & 0xffff;
  };
  const set = (n: number, value: number): void => write(0x20, (1 << 26) | (1 << 21) | (n << 16) | value);
  assert.deepEqual([phy(2), phy(3), phy(1)], [0x0141, 0x0cb1, 0x796d]);
  set(22, 2);
  assert.deepEqual([phy(21), phy(2)], [0x1046, 0x0141]);
  set(22, 0);
  assert.equal(phy(21), 0);
});

test('a frame fills extended descriptors, with its hash where the driver asks for it, and packet-split ones', () => {
  const { bytes, view, port, write, read } = rig();
  for (let n = 0; n < 8; n++) view.setUint32(RX + 16 * n, 0x1_0000 + 2048 * n, true);
  write(0x5008, 0x8000);
  write(0x100, 0x0400_8002);
  write(0x2818, 7);
  port.receive(frame(100));
  assert.deepEqual([view.getUint32(RX + 8, true), view.getUint16(RX + 12, true)], [7, 100]);
  assert.deepEqual(bytes.slice(0x1_0000, 0x1_0064), frame(100));
  // Two queues: the address and ports of Microsoft's first example, which hash to 0x51ccc178.
  for (let n = 0; n < 8; n++) view.setUint32(RX + 0x800 + 16 * n, 0x2_0000 + 2048 * n, true);
  write(0x2918, 7);
  new Uint8Array(KEY).forEach((_, i) => {
    if (i % 4 === 0) write(0x5c80 + i, new DataView(KEY.buffer, KEY.byteOffset).getUint32(i, true));
  });
  for (let n = 0; n < 32; n++) write(0x5c00 + 4 * n, 0x8080_8080);
  write(0x5818, 1 | (1 << 16));
  const tcp = frame(60);
  tcp.set([8, 0, 0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 6, 0, 0, 66, 9, 149, 187, 161, 142, 100, 80, 0x0a, 0xea, 0x06, 0xe6], 12);
  port.receive(tcp);
  assert.deepEqual([view.getUint32(RX + 0x800, true), view.getUint32(RX + 0x804, true)], [0x101, 0x51cc_c178]);
  assert.equal(read(0x2910), 1);
  write(0x5818, 0);
  // Header of 128 bytes, then 1 KiB each.
  write(0x2810, 0);
  write(0x2818, 3);
  write(0x2170, 0x0101_0101);
  for (let n = 0; n < 4; n++) view.setBigUint64(RX + 8 * n, BigInt(0x3_0000 + 0x1000 * n), true);
  write(0x100, 0x0400_8402);
  port.receive(frame(1400));
  assert.deepEqual([view.getUint32(RX + 8, true), view.getUint16(RX + 12, true)], [7, 128]);
  assert.deepEqual([16, 18, 20, 22].map((at) => view.getUint16(RX + at, true)), [0, 1024, 248, 0]); // biome-ignore format: one line
  assert.deepEqual(bytes.slice(0x3_1000, 0x3_1400), frame(1400).slice(128, 1152));
});

test('the hash is that of Microsoft’s examples', () => {
  const input = (...text: readonly string[]): Uint8Array => Uint8Array.from(text.flatMap((t) => t.split('.').map(Number)));
  assert.equal(toeplitz(KEY, input('66.9.149.187', '161.142.100.80')), 0x323e_8fc2);
  assert.equal(toeplitz(KEY, input('199.92.111.2', '65.69.140.83', '55.150', '18.131')), 0xc626_b0ea);
});

test('each direction has its vector, which masks itself when it is sent and comes again once it is unmasked', async () => {
  const r = rig();
  const { write, read, messages, view, port, settle, bytes, sent } = r;
  likeLinux(r);
  for (let n = 0; n < 8; n++) view.setUint32(RX + 16 * n, 0x1_0000 + 2048 * n, true);
  write(0x100, 0x0400_8002);
  write(0x2818, 7);
  port.receive(frame(100));
  port.receive(frame(100));
  assert.deepEqual(messages, ['vector 0'], 'the second one finds it masked');
  write(0xd0, cause.rxQueue[0]!);
  assert.deepEqual(messages, ['vector 0', 'vector 0']);
  bytes.set(frame(60), 0x8000);
  view.setUint32(TX, 0x8000, true);
  view.setUint32(TX + 8, 60 | (0x0b << 24), true);
  write(0x400, 2);
  write(0x3818, 1);
  await settle();
  assert.deepEqual([sent.length, messages.at(-1)], [1, 'vector 1']);
  messages.length = 0;
  r.b.lock.run(() => r.e.setCable(false));
  assert.deepEqual(messages, ['vector 2']);
  assert.equal(read(0xc0) & cause.link, cause.link);
  assert.equal(read(0xc8) & cause.link, 0, 'an asserted interrupt is cleared by reading it');
  write(0xd0, cause.other);
  assert.deepEqual(messages, ['vector 2'], 'it is over');
});

test('without MSI-X there is a wire or one message, and reading the causes takes them back', () => {
  const { read, write, irq, way, messages } = rig();
  write(0xd0, cause.link);
  write(0xc8, cause.link);
  assert.equal(irq.level, 1);
  assert.equal(read(0xc0) >>> 0, 0x8000_0004);
  assert.equal(irq.level, 0);
  way.mode = 'msi';
  write(0xc8, cause.link);
  write(0xc8, cause.link);
  assert.deepEqual([messages, irq.level], [['msi'], 0]);
  read(0xc0);
  write(0xc8, cause.link);
  assert.deepEqual(messages, ['msi', 'msi']);
});

test('both transmit queues send', async () => {
  const { bytes, view, sent, write, settle } = rig();
  for (const q of [0, 1]) {
    bytes.set(frame(60 + q), 0x8000 + 0x100 * q);
    view.setUint32(TX + 0x800 * q, 0x8000 + 0x100 * q, true);
    view.setUint32(TX + 0x800 * q + 8, (60 + q) | (0x0b << 24), true);
  }
  write(0x400, 2);
  write(0x3918, 1);
  write(0x3818, 1);
  await settle();
  assert.deepEqual(sent, [frame(60), frame(61)]);
});

test('whatever a guest writes into rings and registers, nothing throws or runs without end', async () => {
  const r = rig();
  const { bytes, port, write, read, settle, way } = r;
  let x = 54_321;
  const next = (n: number): number => {
    x = (Math.imul(x, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((x / 2 ** 32) * n);
  };
  const often = [0, 0x14, 0x18, 0x20, 0xc0, 0xc8, 0xd0, 0xdc, 0xe0, 0xe4, 0x100, 0x400, 0x2170, 0x5008, 0x5818];
  for (let q = 0; q < 2; q++) for (const at of [0, 8, 0x10, 0x18]) often.push(0x2800 + 0x100 * q + at, 0x3800 + 0x100 * q + at);
  for (let round = 0; round < 150; round++) {
    way.mode = (['wire', 'msi', 'msix'] as const)[next(3)]!;
    for (let i = 0; i < 256; i++) bytes[(next(2) ? TX : RX) + next(2) * 0x800 + (i & 127)] = next(256);
    for (let n = 0; n < 12; n++) {
      write(next(8) ? often[next(often.length)]! : 4 * next(E1000E_BAR / 4), next(3) === 0 ? next(2 ** 32) : next(256));
      read(4 * next(E1000E_BAR / 4));
    }
    if (next(3) === 0) {
      write(0x100, next(2) ? 0x0002_801e : 0x0002_841e);
      write(0x5008, 0x8000);
      write(0x400, 2);
      for (const at of [0x2804, 0x2904, 0x3804, 0x3904]) write(at, 0);
    }
    for (let n = next(6); n > 0; n--) port.receive(frame(14 + next(3000)));
    await settle();
  }
});

const qemu = 'qemu-system-x86_64';
const skip = spawnSync(qemu, ['--version']).status === 0 ? false : `${qemu} is not installed`;
test('registers after a reset, and the bits of them that can be written, are QEMU’s', { skip, timeout: 60_000 }, async () => {
  const { read, write } = rig();
  write(0, 1 << 26);
  const at = 0xfe00_0000;
  // What is not here: those whose reading or writing does something, and QEMU's memory behind registers that have no meaning.
  const doing = [0, 4, 0x20, 0xc0, 0xc8, 0xd0, 0xd8, 0x100, 0x400, 0x2818, 0x2918, 0x3818, 0x3918, 0x5b50];
  const places = [
    ...[0x00, 0x08, 0x10, 0x14, 0x18, 0x28, 0x2c, 0x30, 0x38, 0xc4, 0xdc, 0xe0, 0xe4, 0xe8, 0x170, 0x410, 0x458, 0xe00, 0xf00],
    ...[0xf08, 0xf10, 0x1000, 0x1008, 0x1010, 0x2160, 0x2168, 0x2170, 0x2800, 0x2804, 0x2808, 0x2810, 0x2820, 0x2828, 0x282c],
    ...[0x2900, 0x2908, 0x2c00, 0x2c08, 0x3800, 0x3808, 0x3810, 0x3828, 0x382c, 0x3840, 0x3928, 0x3940, 0x5000, 0x5008],
    ...[0x5200, 0x5400, 0x5404, 0x5478, 0x5600, 0x5800, 0x5808, 0x5818, 0x5820, 0x5828, 0x5838, 0x5840, 0x5860, 0x5880],
    ...[0x5b08, 0x5b10, 0x5b30, 0x5b64, 0x5b68, 0x5c00, 0x5c7c, 0x5c80, 0x5ca4, 0x5f00, 0xb600, 0xb634, 0xb638],
  ];
  const commands = ['outl 0xcf8 0x80002810', `outl 0xcfc ${at}`, 'outl 0xcf8 0x80002804', 'outw 0xcfc 7'];
  for (const p of places) {
    commands.push(`readl ${at + p}`);
    if (!doing.includes(p)) for (const v of [0xffff_ffff, 0]) commands.push(`writel ${at + p} ${v}`, `readl ${at + p}`);
  }
  const args =
    '-machine q35 -S -nodefaults -display none -qtest stdio -qtest-log /dev/null -netdev user,id=n -device e1000e,netdev=n,addr=5';
  const theirs: number[] = [];
  const child = spawn(qemu, args.split(' '), { stdio: ['pipe', 'pipe', 'ignore'] });
  child.stdin.write(`${commands.join('\n')}\n`);
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.startsWith('OK')) theirs.push(Number(line.slice(3) || 0));
    if (theirs.length === commands.length) break;
  }
  child.kill();
  const text = (p: number, v: number, after = ''): string => `0x${p.toString(16)}${after}: 0x${(v >>> 0).toString(16)}`;
  const [ours, qemus]: [string[], string[]] = [[], []];
  let n = 4;
  for (const p of places) {
    ours.push(text(p, read(p)));
    qemus.push(text(p, theirs[n++]!));
    if (doing.includes(p)) continue;
    for (const v of [0xffff_ffff, 0]) {
      write(p, v);
      n++;
      ours.push(text(p, read(p), ` after 0x${v.toString(16)}`));
      qemus.push(text(p, theirs[n++]!, ` after 0x${v.toString(16)}`));
    }
  }
  assert.deepEqual(ours, qemus);
});
