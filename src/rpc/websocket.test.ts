import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { WebSocketServer } from './websocket.ts';

function socket() {
  const got: number[] = [];
  const sent: string[] = [];
  const ends: string[] = [];
  const ws = new WebSocketServer({
    sha1: (text) => createHash('sha1').update(text).digest('base64'),
    protocols: ['binary'],
    data: (bytes) => got.push(...bytes),
    send: (bytes) => sent.push(Buffer.from(bytes).toString('latin1')),
    end: (why) => ends.push(why),
  });
  return { ws, got, sent, ends };
}
const open = `GET /websockify HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: binary\r\n\r\n`;
const text = (t: string): Uint8Array => new TextEncoder().encode(t);
function masked(opcode: number, payload: number[], fin = 0x80): Uint8Array {
  const mask = [1, 2, 3, 4];
  return Uint8Array.from([fin | opcode, 0x80 | payload.length, ...mask, ...payload.map((b, i) => b ^ mask[i & 3]!)]);
}

test('the handshake is answered as RFC 6455 computes it', () => {
  const { ws, sent } = socket();
  ws.receive(text(open.slice(0, 50)));
  assert.equal(ws.open, false);
  ws.receive(text(open.slice(50)));
  assert.equal(ws.open, true);
  assert.match(
    sent[0]!,
    /^HTTP\/1.1 101 .*Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=\r\nSec-WebSocket-Protocol: binary/s,
  );
});

test('frames are unmasked as they come, pings answered, the end confirmed', () => {
  const { ws, got, sent, ends } = socket();
  ws.receive(text(open));
  const bytes = [...masked(2, [10, 20, 30], 0), ...masked(9, [7]), ...masked(0, [40])];
  for (const b of bytes) ws.receive(Uint8Array.of(b));
  assert.deepEqual(got, [10, 20, 30, 40]);
  assert.equal(sent[1], '\x8a\x01\x07');
  ws.receive(masked(8, [3, 0xe8]));
  assert.deepEqual([sent[2], ends], ['\x88\x02\x03\u00e8', ['the client closed']]);
});

test('what is no WebSocket, or breaks its rules, ends', () => {
  const plain = socket();
  plain.ws.receive(text('GET / HTTP/1.1\r\n\r\n'));
  assert.match(plain.sent[0]!, /^HTTP\/1.1 426/);
  const endless = socket();
  for (let i = 0; i < 40 && endless.ends.length === 0; i++) endless.ws.receive(new Uint8Array(1000).fill(65));
  assert.equal(endless.ends.length, 1);
  for (const bad of [
    [0x82, 1, 5],
    [0xc2, 0x80, 0, 0, 0, 0],
    [0x83, 0x80, 0, 0, 0, 0],
    [0x89, 0xfe, 1, 0, 0, 0, 0, 0],
  ]) {
    const s = socket();
    s.ws.receive(text(open));
    s.ws.receive(Uint8Array.from(bad));
    assert.equal(s.ends.length, 1, String(bad));
  }
});
