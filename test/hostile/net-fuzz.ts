// A hostile guest at the user-mode network, seeded: frames of DHCP, DNS, ICMP, UDP and TCP, whole, damaged where it hurts, in pieces and in
// any order, with a host that answers, floods, refuses and goes away at any moment. Nothing may throw, what is kept stays bounded, and a
// guest that behaves is served afterwards.

import assert from 'node:assert/strict';
import { type Address, familyOf, parseAddress } from '../../src/net/address.ts';
import { put16, put32 } from '../../src/net/bytes.ts';
import { fold, pseudoSum, sum16 } from '../../src/net/checksum.ts';
import type { HostAddress, HostStream, HostUdp, StreamEvents, UdpEvents, UdpOptions } from '../../src/net/host.ts';
import { ownMac } from '../../src/net/link.ts';
import { FakeHost, TestGuest, VirtualClock } from '../../src/net/testing.ts';
import { createUserNet, type UserNet } from '../../src/net/user.ts';
import { parseUserNet } from '../../src/net/user-options.ts';
import { Random } from './asm.ts';

const ip = (text: string): Address => parseAddress(text)!;
const GUEST = [ip('10.0.2.15'), ip('fec0::5054:ff:fe12:3456')] as const;
const TARGETS = [
  '10.0.2.2',
  '10.0.2.3',
  '10.0.2.100',
  '93.184.216.34',
  '255.255.255.255',
  '127.0.0.1',
  'fec0::2',
  'ff02::2',
  '2001:db8::1',
];
const PROTOCOLS = [1, 6, 6, 6, 17, 17, 58, 0, 44, 255];
const MEMORY = 4 << 20;

/** A host whose sockets do what they like with the guest's: they answer in pieces, flood, end, reset and vanish. */
class UnfriendlyHost extends FakeHost {
  readonly #r: Random;
  constructor(clock: VirtualClock, r: Random) {
    super(clock, 1 + r.below(1 << 30));
    this.#r = r;
  }
  override connect(to: HostAddress, events: StreamEvents): HostStream {
    const r = this.#r;
    let open = true;
    let paused = false;
    const unwritten: number[] = [];
    const act = (): void => {
      if (!open) return;
      const n = r.below(10);
      if (n === 0) events.end();
      else if (n === 1) {
        open = false;
        events.closed(r.below(2) === 0 ? undefined : 'reset');
      } else if (n === 2) events.written(unwritten.splice(0).reduce((a, b) => a + b, 0));
      else if (!paused) events.data(new Uint8Array(1 + r.below(n === 3 ? 65_536 : 2_000)));
      this.after(r.below(300), act);
    };
    this.after(r.below(50), () => {
      if (!open) return;
      if (r.below(5) === 0) {
        open = false;
        events.closed('refused');
      } else {
        events.connected();
        this.after(r.below(50), act);
      }
    });
    const stream = super.connect(to, events);
    return {
      ...stream,
      write: (bytes) => void unwritten.push(bytes.length),
      reset: () => {
        open = false;
      },
      pause: () => {
        paused = true;
      },
      resume: () => {
        paused = false;
      },
    };
  }
  override udp(options: UdpOptions, events: UdpEvents): HostUdp {
    const socket = super.udp(options, events);
    return {
      ...socket,
      send: (bytes, address, port) => {
        for (let n = this.#r.below(3); n > 0; n--)
          this.after(this.#r.below(200), () => {
            const answer = bytes.slice(0, this.#r.below(8) === 0 ? this.#r.below(bytes.length + 1) : undefined);
            for (let m = this.#r.below(4); m > 0 && answer.length > 0; m--)
              answer[this.#r.below(answer.length)] = this.#r.below(256);
            events.message(answer, address, port);
          });
      },
    };
  }
}

/** What a part of a conversation looks like on the wire, from the layer above IP. */
class Writer {
  readonly #r: Random;
  /** Sequence and acknowledgement numbers of flows: mostly what the other side expects, as far as frames from it say. */
  readonly seen: { port: number; to: Address; toPort: number; seq: number; ack: number }[] = [];
  constructor(r: Random) {
    this.#r = r;
  }
  bytes(most: number): Uint8Array {
    const b = new Uint8Array(this.#r.below(most));
    this.#r.fill(b);
    return b;
  }
  udp(from: number, to: number, data: Uint8Array): Uint8Array {
    const b = new Uint8Array(8 + data.length);
    put16(b, 0, from);
    put16(b, 2, to);
    put16(b, 4, this.#r.below(20) === 0 ? this.#r.below(65_536) : b.length);
    b.set(data, 8);
    return b;
  }
  dhcp(): Uint8Array {
    const r = this.#r;
    const options: number[] = [53, 1, r.pick([1, 3, 3, 4, 7, 8, 0, 99])];
    for (let n = r.below(6); n > 0; n--) {
      const length = r.pick([0, 1, 4, 4, 6, 255, r.below(256)]);
      options.push(r.pick([50, 54, 55, 12, 61, 57, 52, 0, 255, r.below(256)]), length);
      for (let i = r.below(4) === 0 ? r.below(length + 1) : length; i > 0; i--) options.push(r.below(256));
    }
    const b = new Uint8Array(240 + options.length + 1);
    r.fill(b.subarray(0, 236));
    b.set([1, r.pick([1, 1, 6, 255]), r.pick([6, 6, 0, 16, 255])]);
    b.set([2, 0, 0, 0, 0, r.below(32)], 28);
    put32(b, 236, r.below(10) === 0 ? 0 : 0x6382_5363);
    b.set(options, 240);
    b[b.length - 1] = r.below(5) === 0 ? 7 : 255;
    return this.udp(68, 67, b);
  }
  dns(): Uint8Array {
    const r = this.#r;
    const name: number[] = [];
    for (let n = r.below(6); n > 0; n--) {
      // Compression pointers, to themselves too, and labels that are too long.
      if (r.below(6) === 0) name.push(0xc0 | r.below(4), r.below(64));
      const length = r.pick([1, 3, 63, 64, r.below(256)]);
      name.push(length, ...this.bytes(length + 1));
    }
    const b = Uint8Array.from([
      r.below(256),
      r.below(256),
      r.pick([1, 0x80, r.below(256)]),
      0,
      0,
      r.pick([1, 1, 0, 255]),
      0,
      0,
      0,
      0,
      0,
      r.below(3),
      ...name,
      0,
      0,
      r.pick([1, 28, 255]),
      0,
      1,
    ]);
    return this.udp(1024 + r.below(40), 53, b);
  }
  tcp(to: Address): Uint8Array {
    const r = this.#r;
    const old = r.below(4) === 0 || this.seen.length === 0 ? undefined : r.pick(this.seen);
    const flags = r.pick([0x02, 0x02, 0x10, 0x10, 0x18, 0x18, 0x11, 0x04, 0x14, 0x12, 0x00, 0x3f, r.below(256)]);
    const options: number[] = [];
    for (let n = r.below(4); n > 0; n--)
      options.push(
        ...r.pick([
          [1],
          [2, 4, r.below(256), r.below(256)],
          [3, 3, r.below(256)],
          [5, 10, ...this.bytes(9)],
          [r.below(256), r.below(40)],
          [8, 10],
          [0],
        ]),
      );
    while (options.length % 4 !== 0) options.push(0);
    const data = flags & 0x02 ? new Uint8Array(0) : this.bytes(r.below(3) === 0 ? 1400 : 20);
    const b = new Uint8Array(20 + Math.min(40, options.length) + data.length);
    put16(b, 0, old?.port ?? 2000 + r.below(60));
    put16(b, 2, old?.toPort ?? r.pick([80, 443, 0, 65_535]));
    const near = (v: number): number => (r.below(3) === 0 ? v + r.below(5000) - 2500 : v) >>> 0;
    put32(b, 4, near(old?.seq ?? r.u32()));
    put32(b, 8, near(old?.ack ?? r.u32()));
    b[12] = (r.below(12) === 0 ? r.below(16) : 5 + Math.min(40, options.length) / 4) << 4;
    b[13] = flags;
    put16(b, 14, r.pick([0, 1, 1000, 65_535]));
    put16(b, 18, r.below(1000));
    b.set(options.slice(0, 40), 20);
    b.set(data, 20 + Math.min(40, options.length));
    if (old && to.length === old.to.length) old.seq = (old.seq + data.length + (flags & 3 ? 1 : 0)) >>> 0;
    return b;
  }
  icmp(): Uint8Array {
    const b = new Uint8Array(8 + this.#r.below(1200));
    this.#r.fill(b);
    b[0] = this.#r.pick([8, 0, 3, 5, 128, 133, 135, 136, 134, b[0]!]);
    b[1] = 0;
    return b;
  }
}

/** Puts the checksum of the layer above IP right, where it has one. */
function sum(payload: Uint8Array, proto: number, from: Address, to: Address): void {
  const at = { 1: 2, 6: 16, 17: 6, 58: 2 }[proto];
  if (at === undefined || payload.length < at + 2) return;
  put16(payload, at, 0);
  const start = proto === 1 ? 0 : pseudoSum(from, to, proto, payload.length);
  put16(payload, at, fold(sum16(payload, 0, payload.length, start)) || 0xffff);
}

/** A frame from its payload; `damage` of the IP header is left to the caller. */
function frameOf(from: Address, to: Address, proto: number, payload: Uint8Array, r: Random): Uint8Array {
  const v4 = familyOf(to) === 4;
  const header = v4 ? 20 : 40;
  const f = new Uint8Array(14 + header + payload.length);
  f.set(ownMac(ip('10.0.2.2')), 0);
  f.set([0x52, 0x54, 0, 0x12, 0x34, 0x56], 6);
  put16(f, 12, v4 ? 0x0800 : 0x86dd);
  const b = f.subarray(14);
  if (v4) {
    b[0] = 0x45;
    put16(b, 2, Math.min(65_535, header + payload.length));
    put16(b, 4, r.below(64));
    // A piece of a datagram now and then.
    if (r.below(8) === 0) put16(b, 6, (r.below(2) << 13) | r.pick([0, 1, 2, 185, 8191]));
    b[8] = 64;
    b[9] = proto;
    b.set(from, 12);
    b.set(to, 16);
    put16(b, 10, fold(sum16(b, 0, 20)));
  } else {
    b[0] = 0x60;
    put16(b, 4, payload.length);
    b[6] = proto;
    b[7] = 255;
    b.set(from, 8);
    b.set(to, 24);
  }
  b.set(payload, header);
  return f;
}

/** One run. @throws AssertionError with the seed */
export async function fuzzNet(seed: number, frames: number): Promise<void> {
  const r = new Random(seed);
  const clock = new VirtualClock();
  const host = new UnfriendlyHost(clock, r);
  host.nameservers = [{ address: '192.0.2.1', port: 53 }];
  const restrict = r.below(5) === 0;
  const net: UserNet = createUserNet(parseUserNet(restrict ? [['restrict', 'on']] : []), host);
  const w = new Writer(r);
  let said = 0;
  net.receive = (frame) => {
    said++;
    // TCP frames from the host's side tell the numbers that go on with their flow.
    const b = frame.subarray(14);
    const v4 = b[0]! >>> 4 === 4;
    const t = b.subarray(v4 ? 20 : 40);
    if (b[v4 ? 9 : 6] !== 6 || t.length < 20) return;
    const view = new DataView(t.buffer, t.byteOffset);
    if (w.seen.length > 50) w.seen.shift();
    w.seen.push({
      port: view.getUint16(2),
      to: b.slice(v4 ? 12 : 8, v4 ? 16 : 24),
      toPort: view.getUint16(0),
      seq: view.getUint32(8),
      ack: (view.getUint32(4) + (t[13]! & 3 ? 1 : 0)) >>> 0,
    });
  };
  try {
    for (let n = 0; n < frames; n++) {
      const to = ip(r.pick(TARGETS));
      const from = r.below(20) === 0 ? (w.bytes(20).slice(0, 4) as Address) : GUEST[to.length === 4 ? 0 : 1];
      if (from.length !== to.length) continue;
      const kind = r.below(6);
      const [proto, payload] =
        kind === 0
          ? ([17, w.dhcp()] as const)
          : kind === 1
            ? ([17, w.dns()] as const)
            : kind <= 3
              ? ([6, w.tcp(to)] as const)
              : kind === 4
                ? ([to.length === 4 ? 1 : 58, w.icmp()] as const)
                : ([r.pick(PROTOCOLS), w.bytes(3000)] as const);
      if (r.below(16) !== 0) sum(payload, proto, from, to);
      const f = frameOf(from, to, proto, payload, r);
      for (let m = r.below(12) === 0 ? r.below(4) : 0; m > 0; m--) f[r.below(f.length)] = r.below(256);
      net.send(
        r.below(20) === 0 ? f.subarray(0, r.below(f.length + 1)) : f,
        r.below(10) === 0
          ? { checksumStart: r.below(80), checksumOffset: r.below(40), gsoSize: r.pick([0, 1, 100, 1460, 65_535]) }
          : undefined,
      );
      if (r.below(10) === 0) clock.run(r.below(r.below(50) === 0 ? 100_000 : 500));
      const c = net.counts();
      assert.ok(c.tcp <= 512 && c.udp <= 256 && c.dns <= 128 && c.memory <= MEMORY * 64, JSON.stringify(c));
      if (restrict) assert.equal(host.streams.length + host.sockets.length, 0, 'a restricted guest opened a socket');
    }
    clock.run(3_600_000);
    const left = net.counts();
    assert.ok(left.udp === 0 && left.dns === 0, `an hour later: ${JSON.stringify(left)}`);
    // Somebody who behaves is served: an echo comes back.
    const guest = new TestGuest(net, clock, GUEST, ip('10.0.2.2'));
    guest.record = true;
    const echo = Uint8Array.of(8, 0, 0, 0, 0, 1, 0, 1);
    guest.packet(ip('10.0.2.2'), 1, echo, 2);
    clock.run(50);
    assert.ok(
      guest.frames.some((f) => f[23] === 1 && f[34] === 0),
      'no answer to an echo request',
    );
    assert.ok(said > 0);
  } catch (error) {
    throw new Error(`net, seed ${seed}: ${error instanceof Error ? error.stack : error}`);
  } finally {
    net.close();
  }
  assert.equal(host.sockets.filter((s) => s.open).length, 0, `net, seed ${seed}: sockets stay open`);
}
