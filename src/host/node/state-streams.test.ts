// The other side of a migration goes away.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { stateStreams } from './state-streams.ts';

const CHUNK = new Uint8Array(4 << 20);

for (const [how, leave] of [
  ['ends the connection', (peer: Socket) => void peer.end()],
  ['resets it', (peer: Socket) => void peer.resetAndDestroy()],
] as const) {
  test(`a writer is told where the other side ${how} while it waits`, { timeout: 20_000 }, async () => {
    const server = createServer({ allowHalfOpen: true });
    try {
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      const arrived = once(server, 'connection') as Promise<[Socket]>;
      const { port } = server.address() as { port: number };
      const sink = await stateStreams(() => undefined).sink(`tcp:127.0.0.1:${port}`);
      const [peer] = await arrived;
      peer.on('error', () => {});
      const written = assert.rejects(async () => {
        for (;;) await sink.write(CHUNK);
      }, /^Error: Cannot migrate: /);
      await new Promise((resolve) => setTimeout(resolve, 200));
      leave(peer);
      // What waits is taken, so that only the end can be seen.
      peer.resume();
      await written;
      sink.destroy();
      peer.destroy();
    } finally {
      server.close();
    }
  });
}
