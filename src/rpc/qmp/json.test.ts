import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Json, JsonError, type JsonItem, JsonStream, jsonLine, parseJson, printJson } from './json.ts';

const items = (stream: JsonStream, ...chunks: (string | Uint8Array)[]): JsonItem[] =>
  chunks.flatMap((c) => [...stream.push(typeof c === 'string' ? Buffer.from(c) : c)]);
const values = (...chunks: (string | Uint8Array)[]): (Json | undefined)[] =>
  items(new JsonStream(), ...chunks).map((i) => ('value' in i ? i.value : undefined));

test('values come out of a stream whole, whatever the chunks', () => {
  const text = '{"a": [1, "}\\"{", {"b": null}]}\r\n[] 5 "x" true\n{"é": -0.5}{}';
  const want: Json[] = [{ a: [1, '}"{', { b: null }] }, [], 5, 'x', true, { é: -0.5 }, {}];
  const bytes = Buffer.from(text);
  for (const size of [1, 2, 7, bytes.length]) {
    const stream = new JsonStream();
    const got: JsonItem[] = [];
    for (let at = 0; at < bytes.length; at += size) got.push(...stream.push(bytes.subarray(at, at + size)));
    assert.deepEqual(
      got,
      want.map((value) => ({ value })),
    );
  }
});

test('0xFF ends whatever was begun and starts anew', () => {
  assert.deepEqual(values('{"garbage": "', Uint8Array.of(0xff), '{"a": 1}'), [{ a: 1 }]);
  assert.deepEqual(values('{{{{[[', Uint8Array.of(0xff), '2 '), [2]);
});

test('integers are exact up to 64 bits', () => {
  assert.deepEqual(
    parseJson('[9007199254740991, 9007199254740993, 18446744073709551615, -9223372036854775808, 1e3, 18446744073709551616]'),
    [9007199254740991, 9007199254740993n, 18446744073709551615n, -9223372036854775808n, 1000, 2 ** 64],
  );
  assert.equal(printJson({ big: 18446744073709551615n }), '{"big": 18446744073709551615}');
});

test('strings may stand in single quotes and hold every escape', () => {
  assert.deepEqual(parseJson(`{'a': "it's", 'b': '\\'\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00'}`), {
    a: "it's",
    b: '\'"\\/\b\f\n\r\té😀',
  });
});

test("what is no JSON has QEMU's words", () => {
  const wrong: [string, string][] = [
    ['{"a":1,"a":2}', 'duplicate key'],
    ['{"a":foo}', "invalid keyword 'foo'"],
    ['{"a":1,}', 'expecting value'],
    ['{5:1}', 'key is not a string in object'],
    ['{"a" 1}', 'missing : in object pair'],
    ['{"a":1 "b":2}', 'expected separator in dict'],
    ['[1 2]', 'expected separator in list'],
    ['["\\x"]', 'invalid escape sequence in string'],
    ['["\\u12g4"]', 'invalid hex escape in string'],
    ['["\n"]', 'invalid character in string'],
    ['[01]', 'expected separator in list'],
    ['[-]', 'invalid number'],
    ['[]]', 'expecting end of input'],
    ['', 'expecting value'],
  ];
  for (const [text, words] of wrong) assert.throws(() => parseJson(text), new JsonError(`JSON parse error, ${words}`), text);
});

test('after an error the stream goes on with the next value', () => {
  const stream = new JsonStream();
  assert.deepEqual(items(stream, '{"a": foo}\n}\n{"b": 1}\n', Uint8Array.of(0x22, 0xc3, 0x28, 0x22), '{"c": 2}'), [
    { error: "JSON parse error, invalid keyword 'foo'" },
    { error: 'JSON parse error, expecting value' },
    { value: { b: 1 } },
    { error: 'JSON parse error, invalid UTF-8 sequence' },
    { value: { c: 2 } },
  ]);
});

test('values too long or too deep are refused once and skipped to the end of their line', () => {
  const long = new JsonStream(100);
  assert.deepEqual(items(long, `["${'x'.repeat(70)}`, `${'x'.repeat(70)}"]`, 'zzz\n{"a": 1}\n'), [
    { error: 'JSON token size limit exceeded' },
    { value: { a: 1 } },
  ]);
  assert.deepEqual(items(new JsonStream(), '['.repeat(5000), '\n', '3 '), [
    { error: 'JSON nesting depth limit exceeded' },
    { value: 3 },
  ]);
});

test('a member named __proto__ is a member', () => {
  const value = parseJson('{"__proto__": {"x": 1}}');
  assert.equal(Object.getPrototypeOf(value), Object.prototype);
  assert.deepEqual(Object.keys(value as object), ['__proto__']);
});

test('output is one line of ASCII that reads back as the same value', () => {
  const value = { s: 'é😀\n\u0001\u007f', n: [1, -1.5, true, null], o: {}, u: undefined as unknown as Json };
  const line = Buffer.from(jsonLine(value)).toString('latin1');
  assert.equal(line, '{"s": "\\u00E9\\uD83D\\uDE00\\n\\u0001\\u007F", "n": [1, -1.5, true, null], "o": {}}\r\n');
  assert.deepEqual(parseJson(line), { s: 'é😀\n\u0001\u007f', n: [1, -1.5, true, null], o: {} });
  assert.throws(() => printJson([Number.NaN]), /Cannot print number: NaN/);
});

test('random bytes never throw', () => {
  let x = 4242;
  const next = (below: number): number => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
  const alphabet = Buffer.from('{}[]:,"\'\\ \n01-.eutrfnals\u00e9\xff');
  for (let round = 0; round < 3000; round++) {
    const stream = new JsonStream(200);
    const bytes = Uint8Array.from({ length: next(60) }, () => alphabet[next(alphabet.length)]!);
    for (const item of stream.push(bytes)) assert.ok('value' in item || item.error.startsWith('JSON'), 'seed 4242');
  }
});
