import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  array,
  arrayFixed,
  bool,
  type Codec,
  char,
  decode,
  double,
  encode,
  enumeration,
  flag,
  hyper,
  int,
  nothing,
  opaque,
  opaqueFixed,
  optional,
  string,
  struct,
  union,
  unsigned,
  unsignedHyper,
  XdrError,
} from './xdr.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const bytes = (text: string): Uint8Array => Buffer.from(text.replaceAll(' ', ''), 'hex');
/** A value and the bytes that RFC 4506 gives it. */
function both<T>(codec: Codec<T>, value: T, text: string): void {
  assert.equal(hex(encode(codec, value)), text.replaceAll(' ', ''));
  assert.deepEqual(decode(codec, bytes(text)), value);
}

test('every type has the bytes of the specification', () => {
  both(int, -2, 'fffffffe');
  both(unsigned, 0xffff_fffe, 'fffffffe');
  both(hyper, -2n, 'fffffffffffffffe');
  both(unsignedHyper, 0xffff_ffff_ffff_fffen, 'fffffffffffffffe');
  both(char, -1, 'ffffffff');
  both(bool, true, '00000001');
  both(double, -1.5, 'bff8000000000000');
  both(enumeration({ red: 2, blue: 5 }), 'blue', '00000005');
  both(opaqueFixed(3), Buffer.from([1, 2, 3]), '01020300');
  both(opaque(8), Buffer.from([1, 2, 3, 4, 5]), '00000005 0102030405000000');
  both(string(8), 'é!', '00000003 c3a92100');
  both(string(8), '\ufeffa', '00000004 efbbbf61');
  both(array(int, 4), [1, 2], '00000002 00000001 00000002');
  both(arrayFixed(int, 2), [1, 2], '00000001 00000002');
  both(optional(int), undefined, '00000000');
  both(optional(int), 7, '00000001 00000007');
  both(nothing, undefined, '');
  both(union({ a: [1, int], b: [7, string(9)] }), { type: 'b', value: 'x' }, '00000007 00000001 78000000');
  both(struct({ a: int, b: struct({ c: flag }) }), { a: 3, b: { c: true } }, '00000003 00000001');
});

test('any word but zero says that an optional value is there, as one client for Go sends it', () => {
  assert.equal(decode(optional(string(40)), bytes('01000000 00000001 78000000')), 'x');
  assert.equal(decode(flag, bytes('80000000')), true);
});

test('a writer keeps what was written while its buffer grows', () => {
  const long = Array.from({ length: 5000 }, (_, i) => i);
  assert.deepEqual(decode(array(int, 5000), encode(array(int, 5000), long)), long);
  const text = 'x'.repeat(100_000);
  assert.equal(decode(string(100_000), encode(string(100_000), text)), text);
  assert.deepEqual(
    decode(array(hyper, 999), encode(array(hyper, 999), long.slice(0, 999).map(BigInt))),
    long.slice(0, 999).map(BigInt),
  );
});

test('errors of both directions name the field by its path and say what is accepted', () => {
  const codec = struct({ dom: struct({ names: array(string(3), 4) }) });
  assert.throws(() => encode(codec, { dom: { names: ['a', 'toolong'] } }), {
    message: 'Cannot encode dom.names.1: 7 bytes, at most 3 accepted',
  });
  assert.throws(() => decode(codec, bytes('00000001 00000004 61616161')), {
    message: 'Cannot decode dom.names.0: length 4, at most 3 accepted',
  });
});

test('values outside of a type are not encoded', () => {
  const refused: [Codec<never>, unknown][] = [
    [int as Codec<never>, 0x8000_0000],
    [int as Codec<never>, 1.5],
    [unsigned as Codec<never>, -1],
    [hyper as Codec<never>, 1n << 63n],
    [hyper as Codec<never>, 5],
    [unsignedHyper as Codec<never>, -1n],
    [opaqueFixed(4) as Codec<never>, new Uint8Array(3)],
    [opaque(4) as Codec<never>, new Uint8Array(5)],
    [string(9) as Codec<never>, 'a\0b'],
    [array(int, 1) as Codec<never>, [1, 2]],
    [arrayFixed(int, 3) as Codec<never>, [1, 2]],
    [enumeration({ a: 1 }) as Codec<never>, 'b'],
    [union({ a: [1, int] }) as Codec<never>, { type: 'b', value: 1 }],
  ];
  for (const [codec, value] of refused)
    assert.throws(() => encode(codec, value as never), XdrError, `${codec.type} ${String(value)}`);
});

test('bytes that are no value are not decoded', () => {
  const refused: [Codec<unknown>, string][] = [
    [int, '000000'],
    [hyper, '00000000 000000'],
    [int, '00000000 00000000'],
    [opaque(8), '00000009 010203040506070809000000'],
    [opaque(8), '00000005 01020304'],
    [string(8), '00000003 61006200'],
    [array(int, 1_000_000), '000f4240 00000001'],
    [array(hyper, 9), '00000002 0000000000000001 00000000'],
    [enumeration({ a: 1 }), '00000002'],
    [union({ a: [1, int] }), '00000002 00000000'],
  ];
  for (const [codec, text] of refused) assert.throws(() => decode(codec, bytes(text)), XdrError, `${codec.type} ${text}`);
});
