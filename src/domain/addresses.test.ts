import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ipNumber, isIp, prefixOfMask } from './addresses.ts';

test('IPv4 and IPv6 addresses have their value', () => {
  assert.equal(ipNumber('192.168.122.1'), 0xc0a87a01n);
  assert.equal(ipNumber('::'), 0n);
  assert.equal(ipNumber('::1'), 1n);
  assert.equal(ipNumber('2001:db8::ff'), 0x20010db80000000000000000000000ffn);
  assert.equal(ipNumber('::ffff:10.0.0.1'), 0xffff0a000001n);
  assert.equal(ipNumber('1:2:3:4:5:6:7:8'), 0x00010002000300040005000600070008n);
});

test('what is not an address is none', () => {
  for (const text of [
    '',
    '1.2.3',
    '256.1.1.1',
    '1.2.3.4.5',
    ':',
    ':::',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '12345::',
    'g::',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7::8',
  ]) {
    assert.equal(isIp(text), false, text);
  }
});

test('a netmask has the length of its prefix', () => {
  assert.equal(prefixOfMask('255.255.255.0'), 24);
  assert.equal(prefixOfMask('0.0.0.0'), 0);
  assert.equal(prefixOfMask('255.255.255.255'), 32);
});
