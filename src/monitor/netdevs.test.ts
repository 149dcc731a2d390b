import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Cable } from './netdevs.ts';

test('a cable counts what goes through it as the guest sees it, and nothing while it is pulled', () => {
  const below = { receive: (_: Uint8Array): void => {}, send: (_: Uint8Array): void => {}, close: (): void => {} };
  const cable = new Cable('n', 'user', '', below);
  const got: number[] = [];
  cable.receive = (frame) => got.push(frame.length);
  cable.send(new Uint8Array(60));
  cable.send(new Uint8Array(100));
  below.receive(new Uint8Array(42));
  cable.up = false;
  cable.send(new Uint8Array(1000));
  below.receive(new Uint8Array(1000));
  assert.deepEqual(cable.counters, { 'rx-bytes': 42, 'rx-packets': 1, 'tx-bytes': 160, 'tx-packets': 2 });
  assert.deepEqual(got, [42]);
});
