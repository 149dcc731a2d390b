import assert from 'node:assert/strict';
import { isIP } from 'node:net';
import { test } from 'node:test';
import { formatAddress, hostAddress, inPrefix, isForwardable, networkOf, parseAddress, parseIpv4, parseIpv6 } from './address.ts';
import { fold, sum16 } from './checksum.ts';
import { seeded } from './testing.ts';

test('addresses are written as RFC 5952 wants them', () => {
  for (const [text, canonical] of [
    ['2001:0DB8:0:0:0:0:2:1', '2001:db8::2:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['::', '::'],
    ['1::', '1::'],
    ['::1.2.3.4', '::102:304'],
    ['::ffff:1.2.3.4', '1.2.3.4'],
    ['fe80::1%eth0', 'fe80::1'],
  ]) {
    assert.equal(formatAddress(parseAddress(text)!), canonical);
  }
});

test('what Node does not take for an address is none, and what it does is', () => {
  const random = seeded(5);
  const pieces = ['0', '1', 'ff', 'abcd', '12345', ':', '::', '.', '255', '256', '1.2.3.4', 'g'];
  for (let i = 0; i < 5000; i++) {
    const text = Array.from({ length: 1 + Math.floor(random() * 12) }, () => pieces[Math.floor(random() * pieces.length)]).join(
      random() < 0.7 ? '' : ':',
    );
    const zeros = text.split('.').some((p) => /^0\d/.test(p));
    if (!zeros) assert.equal(parseIpv4(text) !== undefined, isIP(text) === 4, text);
    assert.equal(parseIpv6(text) !== undefined, isIP(text) === 6, text);
  }
});

test('prefixes hold their addresses', () => {
  const net = parseAddress('10.0.2.0')!;
  assert.deepEqual(
    ['10.0.2.255', '10.0.3.0', '10.0.1.255'].map((a) => inPrefix(parseAddress(a)!, net, 24)),
    [true, false, false],
  );
  assert.deepEqual([inPrefix(parseAddress('10.0.3.1')!, net, 23), inPrefix(parseAddress('::1')!, net, 0)], [true, false]);
  assert.equal(formatAddress(networkOf(parseAddress('172.31.255.1')!, 12)), '172.16.0.0');
  assert.equal(formatAddress(hostAddress(parseAddress('fec0::')!, 2)), 'fec0::2');
});

test('only unicast addresses of real networks are forwarded', () => {
  const yes = ['8.8.8.8', '10.9.8.7', '192.168.1.1', '2001:db8::1', 'fd00::1', '64:ff9b::808:808'];
  const no = [
    '127.0.0.1',
    '0.1.2.3',
    '169.254.1.1',
    '224.0.0.1',
    '255.255.255.255',
    '::1',
    '::',
    '::7f00:1',
    'fe80::1',
    'fec0::1',
    'ff02::1',
  ];
  assert.deepEqual(
    [yes.map((a) => isForwardable(parseAddress(a)!)), no.map((a) => isForwardable(parseAddress(a)!))],
    [yes.map(() => true), no.map(() => false)],
  );
});

test("the checksum of RFC 1071's example is right, with odd lengths too", () => {
  const b = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
  assert.equal(fold(sum16(b, 0, 8)), 0xffff & ~0xddf2);
  assert.equal(fold(sum16(b, 0, 7)), 0xffff & ~0xdcfb);
});
