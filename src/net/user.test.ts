import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Address, formatAddress, parseAddress } from './address.ts';
import { concat, get16, get32, put16, put32 } from './bytes.ts';
import { fold, sum16 } from './checksum.ts';
import { routerLinkLocal } from './icmp.ts';
import { parseIpv4Packet, parseIpv6Packet, protocol, writeFragmentHeader, writeIp } from './ip.ts';
import { FakeHost, noTrouble, seeded, TestGuest, VirtualClock } from './testing.ts';
import { parseUdp } from './udp.ts';
import { createUserNet } from './user.ts';
import { parseUserNet } from './user-options.ts';

const ip = (text: string): Address => parseAddress(text)!;
const mac = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const [guest4, guest6] = [ip('10.0.2.15'), ip('fec0::5054:ff:fe12:3456')];
const gateway = ip('10.0.2.2');

function rig(pairs: [string, string][] = []) {
  const clock = new VirtualClock();
  const host = new FakeHost(clock);
  const net = createUserNet(parseUserNet(pairs), host);
  const guest = new TestGuest(net, clock, [guest4, guest6], gateway, noTrouble);
  guest.record = true;
  return { clock, host, net, guest };
}

/** ARP request of `sender` for `target`. */
function arp(sender: Address, target: Address): Uint8Array {
  const b = new Uint8Array(42);
  b.fill(255, 0, 6);
  b.set(mac, 6);
  b.set([8, 6, 0, 1, 8, 0, 6, 4, 0, 1], 12);
  b.set(mac, 22);
  b.set(sender, 28);
  b.set(target, 38);
  return b;
}

test('ARP is answered for the router, the nameserver and forwarded servers, and for nobody else', () => {
  const { net } = rig([['guestfwd', 'tcp:10.0.2.100:80-tcp:127.0.0.1:1']]);
  const answers: Uint8Array[] = [];
  net.receive = (f) => answers.push(f);
  for (const target of ['10.0.2.2', '10.0.2.3', '10.0.2.100']) {
    net.send(arp(guest4, ip(target)));
    const a = answers.pop()!;
    assert.deepEqual([...a.subarray(0, 6)], [...mac]);
    assert.equal(get16(a, 20), 2);
    assert.deepEqual([...a.subarray(22, 32)], [0x52, 0x55, ...ip(target), ...ip(target)]);
    assert.deepEqual([...a.subarray(38, 42)], [...guest4]);
  }
  for (const target of ['10.0.2.15', '10.0.2.16', '10.0.3.2']) net.send(arp(guest4, ip(target)));
  // A probe for a free address (RFC 5227) has no sender and is about a guest's address.
  net.send(arp(new Uint8Array(4), guest4));
  assert.equal(answers.length, 0);
});

/** A DHCP message with these options. */
function dhcp(options: number[], client: Uint8Array = mac, ciaddr: Address = new Uint8Array(4)): Uint8Array {
  const b = new Uint8Array(244 + options.length);
  b.set([1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
  b.set(ciaddr, 12);
  b.set(client, 28);
  put32(b, 236, 0x6382_5363);
  b.set([...options, 255], 240);
  return b;
}

/** Sends it as a client without an address does, and gives the reply's bytes and options. */
function ask(r: ReturnType<typeof rig>, message: Uint8Array) {
  r.guest.frames.length = 0;
  const udp = new Uint8Array(8 + message.length);
  put16(udp, 0, 68);
  put16(udp, 2, 67);
  put16(udp, 4, udp.length);
  udp.set(message, 8);
  r.guest.packet(ip('255.255.255.255'), protocol.udp, udp, 6, new Uint8Array(4));
  r.clock.run(5);
  const frame = r.guest.frames.at(-1);
  if (frame === undefined) return undefined;
  const d = parseUdp(parseIpv4Packet(frame.subarray(14))!)!;
  const options = new Map<number, number[]>();
  for (let at = 240; d.data[at] !== 255; at += 2 + d.data[at + 1])
    options.set(d.data[at], [...d.data.subarray(at + 2, at + 2 + d.data[at + 1])]);
  return { d, options, address: formatAddress(d.data.subarray(16, 20)), type: options.get(53)?.[0] };
}

test('a DHCP client gets its address, router, nameserver, names and boot file', () => {
  const r = rig([
    ['hostname', 'box'],
    ['domainname', 'example.org'],
    ['dnssearch', 'a.example.org'],
    ['dnssearch', 'b.example'],
    ['bootfile', '/pxelinux.0'],
    ['tftp-server-name', '10.1.1.1'],
  ]);
  const offer = ask(r, dhcp([53, 1, 1]))!;
  assert.deepEqual([offer.type, offer.address], [2, '10.0.2.15']);
  const ack = ask(r, dhcp([53, 1, 3, 54, 4, 10, 0, 2, 2, 50, 4, 10, 0, 2, 15]))!;
  assert.deepEqual([ack.type, ack.address, get32(ack.d.data, 4)], [5, '10.0.2.15', 0xdead_beef]);
  const text = (code: number): string => Buffer.from(ack.options.get(code)!).toString();
  assert.deepEqual(ack.options.get(1), [255, 255, 255, 0]);
  assert.deepEqual(
    [ack.options.get(3), ack.options.get(6), ack.options.get(54)],
    [
      [10, 0, 2, 2],
      [10, 0, 2, 3],
      [10, 0, 2, 2],
    ],
  );
  assert.deepEqual([text(12), text(15), text(66), text(67)], ['box', 'example.org', '10.1.1.1', '/pxelinux.0']);
  assert.equal(text(119), '\x01a\x07example\x03org\x00\x01b\x07example\x00');
  assert.equal(Buffer.from(ack.d.data.subarray(108, 119)).toString(), '/pxelinux.0');
});

test('DHCP clients get different addresses until the pool is full; a wrong request is refused; a released address is given again', () => {
  const r = rig();
  const client = (i: number): Uint8Array => Uint8Array.of(2, 0, 0, 0, 1, i);
  const addresses = Array.from({ length: 16 }, (_, i) => ask(r, dhcp([53, 1, 1], client(i)))!.address);
  assert.deepEqual(
    addresses,
    Array.from({ length: 16 }, (_, i) => `10.0.2.${15 + i}`),
  );
  assert.equal(ask(r, dhcp([53, 1, 1], client(16))), undefined);
  assert.equal(ask(r, dhcp([53, 1, 3, 50, 4, 10, 0, 2, 99], client(3)))!.type, 6);
  assert.equal(ask(r, dhcp([53, 1, 7], client(4))), undefined);
  assert.equal(ask(r, dhcp([53, 1, 1], client(16)))!.address, '10.0.2.19');
  r.clock.run(61_000);
  assert.equal(ask(r, dhcp([53, 1, 1], client(17)))!.type, 2, 'offers that nobody took are given away');
});

test('a restricted DHCP client gets no router and no nameserver', () => {
  const offer = ask(rig([['restrict', 'on']]), dhcp([53, 1, 1]))!;
  assert.deepEqual([offer.type, offer.options.has(3), offer.options.has(6)], [2, false, false]);
});

test('an old BOOTP client without options is answered', () => {
  const reply = ask(rig(), dhcp([]).subarray(0, 236))!;
  assert.deepEqual([reply.address, reply.type], ['10.0.2.15', undefined]);
});

function echo(v6: boolean): Uint8Array {
  return concat(Uint8Array.of(v6 ? 128 : 8, 0, 0, 0, 1, 2, 0, 3), Buffer.from('payload'));
}

test('the router answers echo requests for its own addresses and refuses others', () => {
  const { clock, guest } = rig();
  const last = () => parseIpv4Packet(guest.frames.at(-1)!.subarray(14))!;
  guest.packet(gateway, protocol.icmp, echo(false), 2);
  clock.run(5);
  assert.equal(last().payload[0], 0);
  assert.equal(fold(sum16(last().payload, 0, last().payload.length)), 0);
  assert.equal(Buffer.from(last().payload.subarray(8)).toString(), 'payload');
  guest.packet(ip('192.0.2.1'), protocol.icmp, echo(false), 2);
  clock.run(5);
  assert.deepEqual([last().payload[0], last().payload[1]], [3, 13]);
  guest.packet(ip('fec0::2'), protocol.icmpv6, echo(true), 2);
  clock.run(5);
  const v6 = parseIpv6Packet(guest.frames.at(-1)!.subarray(14))!;
  assert.deepEqual([v6.payload[0], formatAddress(v6.src), formatAddress(v6.dst)], [129, 'fec0::2', formatAddress(guest6)]);
});

test('a router solicitation is answered with prefix, MTU and nameserver', () => {
  const { clock, guest } = rig([['dnssearch', 'example.org']]);
  guest.packet(ip('ff02::2'), protocol.icmpv6, Uint8Array.of(133, 0, 0, 0, 0, 0, 0, 0), 2, ip('fe80::5054:ff:fe12:3456'));
  clock.run(5);
  const p = parseIpv6Packet(guest.frames.at(-1)!.subarray(14))!;
  assert.deepEqual(
    [p.payload[0], p.hopLimit, formatAddress(p.src), get16(p.payload, 6)],
    [134, 255, formatAddress(routerLinkLocal), 1800],
  );
  const options = new Map<number, Uint8Array>();
  for (let at = 16; at < p.payload.length; at += p.payload[at + 1] * 8)
    options.set(p.payload[at], p.payload.subarray(at, at + p.payload[at + 1] * 8));
  assert.deepEqual([options.get(3)![2], formatAddress(options.get(3)!.subarray(16))], [64, 'fec0::']);
  assert.equal(get32(options.get(5)!, 4), 1500);
  assert.equal(formatAddress(options.get(25)!.subarray(8)), 'fec0::3');
  assert.equal(Buffer.from(options.get(31)!.subarray(8, 21)).toString(), '\x07example\x03org\x00');
});

test('a neighbour solicitation is answered for the router only; a check for a free address of its own by all nodes', () => {
  const { clock, guest } = rig();
  const solicit = (target: string, from: Address): void => {
    const b = new Uint8Array(32);
    b[0] = 135;
    b.set(ip(target), 8);
    b.set([1, 1, ...mac], 24);
    guest.packet(ip('ff02::1:ff00:2'), protocol.icmpv6, b.subarray(0, from[0] === 0 ? 24 : 32), 2, from);
    clock.run(5);
  };
  const count = () => guest.frames.length;
  solicit('fe80::2', guest6);
  const p = parseIpv6Packet(guest.frames.at(-1)!.subarray(14))!;
  assert.deepEqual([p.payload[0], p.payload[4], [...p.payload.subarray(24, 32)]], [136, 0xe0, [2, 1, 0x52, 0x56, 0, 0, 0, 2]]);
  const before = count();
  solicit(formatAddress(guest6), new Uint8Array(16));
  assert.equal(count(), before);
  solicit('fec0::2', new Uint8Array(16));
  assert.equal(formatAddress(parseIpv6Packet(guest.frames.at(-1)!.subarray(14))!.dst), 'ff02::1');
});

test('a restricted guest opens no host socket, whatever it tries', () => {
  const { clock, host, guest, net } = rig([['restrict', 'on']]);
  for (const to of ['10.0.2.2', '10.0.2.3', '8.8.8.8', '127.0.0.1', '192.168.1.1', 'fec0::2', 'fec0::3', '2001:db8::1', '::1']) {
    for (const port of [1, 53, 80]) {
      guest.connect(ip(to), port);
      guest.datagram(ip(to), port, new Uint8Array(40));
    }
  }
  clock.run(100);
  assert.deepEqual([host.streams.length, host.sockets.length, net.counts().tcp], [0, 0, 0]);
});

test('no guest packet for loopback, link-local, multicast or hidden IPv4 addresses reaches the host', () => {
  const { clock, host, guest } = rig();
  const never = [
    '127.0.0.1',
    '127.1.2.3',
    '0.0.0.0',
    '169.254.169.254',
    '224.0.0.1',
    '255.255.255.255',
    '10.0.2.77',
    '240.0.0.1',
  ];
  const never6 = ['::1', '::', '::127.0.0.1', '::ffff:0:1', 'fe80::1', 'ff02::5', 'fec0::77', 'fec1::1'];
  const mapped = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 127, 0, 0, 1);
  for (const to of [...[...never, ...never6].map(ip), mapped]) {
    guest.connect(to, 80);
    guest.datagram(to, 80, new Uint8Array(4));
  }
  clock.run(100);
  assert.deepEqual([host.streams.length, host.sockets.length], [0, 0]);
  guest.connect(ip('192.0.2.7'), 80);
  guest.connect(gateway, 80);
  clock.run(5);
  assert.deepEqual(
    host.streams.map((s) => s.to),
    [
      { host: '192.0.2.7', port: 80 },
      { host: '127.0.0.1', port: 80 },
    ],
  );
});

test('a guest that opens more than it may loses what is longest unused', () => {
  const { clock, host, guest, net } = rig();
  for (let i = 0; i < 700; i++) {
    guest.connect(gateway, 1000 + i);
    guest.datagram(gateway, 9, new Uint8Array(4), 1000 + i);
    clock.run(1);
  }
  clock.run(50);
  assert.deepEqual([net.counts().tcp, net.counts().udp], [512, 256]);
  assert.equal(host.streams.filter((s) => s.log.includes('reset')).length, 700 - 512);
  assert.ok(host.streams[0].log.includes('reset') && !host.streams[699].log.includes('reset'));
  assert.equal(host.sockets.filter((s) => s.open).length, 256);
  clock.run(300_000);
  assert.equal(net.counts().udp, 0, 'mappings end when they are not used');
});

test('UDP answers come only from addresses that the guest has written to', () => {
  const { clock, host, guest } = rig();
  guest.datagram(ip('192.0.2.7'), 123, new Uint8Array(4));
  clock.run(5);
  const s = host.sockets[0];
  s.events.message(Uint8Array.of(1), '192.0.2.9', 123);
  s.events.message(Uint8Array.of(2), '192.0.2.7', 9999);
  clock.run(5);
  assert.deepEqual(
    guest.datagrams.map((d) => [formatAddress(d.src), d.srcPort, d.data[0]]),
    [['192.0.2.7', 9999, 2]],
  );
});

test('a query that no resolver answers goes to the next, and then fails', () => {
  const { clock, host, guest, net } = rig();
  host.nameservers = [
    { address: '192.0.2.53', port: 53 },
    { address: '192.0.2.54', port: 53 },
  ];
  guest.datagram(ip('10.0.2.3'), 53, Uint8Array.of(0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1));
  clock.run(3000);
  assert.deepEqual(
    host.sockets.map((s) => [s.sent[0].address, s.open]),
    [
      ['192.0.2.53', false],
      ['192.0.2.54', true],
    ],
  );
  clock.run(3000);
  assert.equal(guest.datagrams[0].data[3] & 15, 2);
  for (let i = 0; i < 500; i++)
    guest.datagram(ip('10.0.2.3'), 53, Uint8Array.of(i >> 8, i, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0), 2000 + i);
  clock.run(5);
  assert.equal(net.counts().dns, 128);
});

test('fragments make one datagram in any order; overlapping ones make none', () => {
  const { clock, host, guest, net } = rig();
  const body = new Uint8Array(8 + 3000);
  put16(body, 0, 5000);
  put16(body, 2, 9);
  put16(body, 4, body.length);
  const send = (id: number, v6: boolean, cuts: [number, number][]): void => {
    const [src, dst] = v6 ? [guest6, ip('fec0::2')] : [guest4, gateway];
    const whole = body.slice();
    put16(whole, 6, 0);
    const pseudo = sum16(src, 0, src.length, sum16(dst, 0, dst.length, 17 + whole.length));
    put16(whole, 6, fold(sum16(whole, 0, whole.length, pseudo)));
    for (const [from, to] of cuts) {
      const f = guest.link.frame(v6 ? 6 : 4, (v6 ? 8 : 0) + to - from);
      const fragment = { id, offset: from, more: to < whole.length };
      f.set([0x52, 0x55, 10, 0, 2, 2, ...mac, ...(v6 ? [0x86, 0xdd] : [8, 0])]);
      writeIp(f, 14, f.length - 14 - (v6 ? 40 : 20), { src, dst, protocol: 17, hopLimit: 64, fragment });
      if (v6) writeFragmentHeader(f, 54, 17, fragment);
      f.set(whole.subarray(from, to), v6 ? 62 : 34);
      net.send(f);
    }
  };
  send(1, false, [
    [2000, 3008],
    [0, 1000],
    [1000, 2000],
  ]);
  send(2, true, [
    [1000, 2000],
    [2000, 3008],
    [0, 1000],
  ]);
  send(3, false, [
    [0, 1000],
    [992, 2000],
    [2000, 3008],
  ]);
  clock.run(5);
  assert.deepEqual(
    host.sockets.flatMap((s) => s.sent.map((m) => [m.address, m.bytes.length])),
    [
      ['127.0.0.1', 3000],
      ['::1', 3000],
    ],
  );
});

test('random and damaged frames never throw, and what they leave is bounded', () => {
  for (const seed of [1, 2, 3]) {
    const { clock, host, guest, net } = rig(seed === 3 ? [['restrict', 'on']] : []);
    const random = seeded(seed);
    const int = (n: number): number => Math.floor(random() * n);
    const good: Uint8Array[] = [arp(guest4, gateway)];
    const spy = createUserNet(parseUserNet(), new FakeHost(clock));
    spy.send = (f) => good.push(f.slice());
    const source = new TestGuest(spy, clock, [guest4, guest6], gateway);
    source.connect(gateway, 80);
    source.connect(ip('fec0::2'), 80);
    source.datagram(gateway, 53, new Uint8Array(30));
    source.datagram(ip('10.0.2.3'), 53, new Uint8Array(30));
    source.datagram(ip('255.255.255.255'), 67, dhcp([53, 1, 1]));
    source.datagram(ip('fec0::2'), 7, new Uint8Array(3000));
    source.packet(gateway, protocol.icmp, echo(false), 2);
    source.packet(ip('ff02::2'), protocol.icmpv6, Uint8Array.of(133, 0, 0, 0, 0, 0, 0, 0), 2);
    clock.run(5);
    guest.record = false;
    for (let i = 0; i < 20_000; i++) {
      const f =
        random() < 0.1
          ? Uint8Array.from({ length: int(200) }, () => int(256))
          : good[int(good.length)].slice(0, random() < 0.2 ? int(200) : undefined);
      for (let n = int(4); n > 0; n--) if (f.length > 0) f[14 + int(Math.max(1, f.length - 14))] = int(256);
      // Half of the damaged IPv4 headers are made right again, so that what is behind them is reached.
      if (f.length >= 34 && f[12] === 8 && f[13] === 0 && random() < 0.5) {
        put16(f, 24, 0);
        put16(f, 24, fold(sum16(f, 14, Math.min(f.length, 14 + (f[14] & 15) * 4))));
      }
      net.send(f);
      if (i % 50 === 0) clock.run(int(2000));
    }
    const c = net.counts();
    assert.ok(c.tcp <= 512 && c.udp <= 256 && c.dns <= 128 && c.memory < 1 << 20, `seed ${seed}: ${JSON.stringify(c)}`);
    if (seed === 3) assert.equal(host.streams.length + host.sockets.length, 0);
    net.close();
    assert.equal(host.sockets.filter((s) => s.open).length, 0);
    spy.close();
  }
});

test('a guest that answers from inside of receive is served', () => {
  const { host, net, clock } = rig();
  let answers = 0;
  net.receive = () => {
    if (answers++ < 5) net.send(arp(guest4, gateway));
  };
  net.send(arp(guest4, gateway));
  assert.equal(answers, 1);
  clock.run(1);
  return new Promise<void>((resolve) => setTimeout(resolve, 5)).then(() => {
    assert.equal(answers, 6);
    assert.equal(host.streams.length, 0);
  });
});

test('the options mean what QEMU documents, and what is unknown is refused by name', () => {
  const o = parseUserNet([
    ['net', '192.168.76.0/24'],
    ['dhcpstart', '192.168.76.9'],
    ['hostfwd', 'tcp::2222-:22'],
    ['hostfwd', 'udp:127.0.0.1:53-192.168.76.20:5353'],
    ['ipv6', 'off'],
  ]);
  assert.deepEqual(
    [formatAddress(o.ipv4!.host), formatAddress(o.ipv4!.dns), o.ipv6],
    ['192.168.76.2', '192.168.76.3', undefined],
  );
  assert.deepEqual(
    o.hostForwards.map((f) => [f.protocol, f.host, formatAddress(f.guest), f.port]),
    [
      ['tcp', { host: '0.0.0.0', port: 2222 }, '192.168.76.9', 22],
      ['udp', { host: '127.0.0.1', port: 53 }, '192.168.76.20', 5353],
    ],
  );
  assert.equal(parseUserNet([['net', '10.1.0.0/255.255.0.0']]).ipv4!.prefix, 16);
  assert.deepEqual([parseUserNet([['ipv4', 'on']]).ipv6, parseUserNet([['ipv4', 'off']]).ipv4], [undefined, undefined]);
  const bad: [string, string][] = [
    ['smb', '/srv'],
    ['restrict', 'maybe'],
    ['net', '10.0.2.0/33'],
    ['host', '10.9.9.9'],
    ['dns', '10.0.2.2'],
    ['hostfwd', 'tcp::70000-:22'],
    ['hostfwd', 'sctp::7-:22'],
    ['guestfwd', 'tcp:10.0.2.100:80-cmd:cat'],
    ['guestfwd', 'tcp:1.2.3.4:80-tcp:127.0.0.1:1'],
    ['hostfwd', 'tcp::7-:0'],
  ];
  for (const pair of bad) assert.throws(() => parseUserNet([pair]), /^Error: Cannot /, pair.join('='));
});
