// The other side of a migration goes away; memory over TLS.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { stateStreams } from './state-streams.ts';
import { makeCertificates, noOpenssl } from './tls-testing.ts';

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

test('memory goes over TLS to who has the name and knows the authority, and to nobody else', {
  skip: noOpenssl,
  timeout: 60_000,
}, async () => {
  const [ours, others] = [makeCertificates(), makeCertificates()];
  const streams = stateStreams(() => undefined);
  /** What the other side has got, or why either side did not want to. */
  const send = async (hostname: string, clientDir: string): Promise<string> => {
    const path = join(ours, 'socket');
    rmSync(path, { force: true });
    const listening = Promise.withResolvers<void>();
    const taken = streams.source(`unix:${path}`, listening.resolve, { dir: ours, verifyPeer: true }).then(async (source) => {
      let size = 0;
      for await (const chunk of source) size += chunk.length;
      return `${size} bytes`;
    });
    taken.catch(listening.resolve);
    await listening.promise;
    try {
      const sink = await streams.sink(`unix:${path}`, { dir: clientDir, verifyPeer: true, hostname });
      await sink.write(CHUNK);
      await sink.end();
    } catch (error) {
      await taken.catch(() => {});
      return (error as Error).message;
    }
    return taken.catch((error: Error) => error.message);
  };
  try {
    assert.equal(await send('there', ours), `${CHUNK.length} bytes`);
    assert.match(await send('elsewhere', ours), /Cannot make TLS to unix:.*: .*elsewhere/);
    assert.match(await send('there', others), /Cannot make TLS to unix:.*certificate/);
    rmSync(join(ours, 'client-cert.pem'));
    assert.match(await send('there', ours), /Cannot (make TLS at|migrate)/, 'who has no certificate is not let in');
    await assert.rejects(
      streams.sink(`unix:${join(ours, 'socket')}`, { dir: join(ours, 'nowhere'), verifyPeer: true }),
      /Cannot connect|Unable to access credentials .*nowhere.ca-cert.pem/,
    );
    await assert.rejects(streams.sink('exec:cat', { dir: ours, verifyPeer: true }), /Cannot use TLS over exec:cat/);
  } finally {
    for (const dir of [ours, others]) rmSync(dir, { recursive: true });
  }
});
