// vsock with Debian's driver: a program in the guest and unix sockets of the host, either way.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { openImage } from '../../src/host/node/fetch-image.ts';
import { file, writeCpio } from '../../src/images/cpio.ts';
import { EmulatorProcess } from './emulator.ts';
import { missing } from './program.ts';

const folder = mkdtempSync(join(tmpdir(), 'nonroot-vsock-'));
const processes: EmulatorProcess[] = [];
after(async () => {
  for (const e of processes) await e.quit();
  rmSync(folder, { recursive: true });
});
const source = new URL('vsock.c', import.meta.url).pathname;
const binary = join(folder, 'vsock');
const built = spawnSync('cc', ['-O1', '-static', '-o', binary, source], { encoding: 'utf8' });
const image = await missing('debian-cloud');
const skip = image || (built.status === 0 ? false : 'a C compiler with a static C library is not there');

/** Says it all on a unix socket; what came back, to its end. */
const exchange = (path: string, said: string): Promise<string> =>
  new Promise((resolve, reject) => {
    let heard = '';
    const socket = connect({ path, allowHalfOpen: true }, () => socket.end(said));
    socket.on('data', (bytes) => {
      heard += bytes.toString('latin1');
    });
    socket.on('end', () => resolve(heard));
    socket.on('error', reject);
  });

test('programs of guest and host reach each other by vsock', { skip, timeout: 120_000 }, async () => {
  const { initrd } = await openImage('debian-cloud');
  const whole = join(folder, 'initrd');
  const data = randomBytes(1 << 20);
  writeFileSync(
    whole,
    Buffer.concat([readFileSync(initrd), writeCpio([file('vsock', readFileSync(binary), 0o755), file('data', data)])]),
  );
  const path = join(folder, 'v');
  const echo = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket));
  await new Promise<void>((resolve) => echo.listen(`${path}_80`, resolve));
  const more = ['-initrd', whole, '-device', `virtio-vsock-pci,guest-cid=42,uds-path=${path}`];
  const e = await EmulatorProcess.linux(folder, 'vsock', more);
  processes.push(e);
  await e.shell();
  const sum = createHash('md5').update(data).digest('hex');
  assert.match(await e.command('/vsock c 80 </data | md5sum'), new RegExp(`${sum}  -`));
  assert.match(await e.command('/vsock c 81 </dev/null'), /connect: Connection reset by peer/);
  await e.command('(/vsock s 52 &) ; sleep 0.5');
  const said = 'shout '.repeat(20_000);
  assert.match(await exchange(path, 'CONNECT 52\nquietly'), /^OK \d+\nQUIETLY$/);
  assert.ok((await exchange(path, `CONNECT 52\n${said}`)).endsWith(said.toUpperCase()));
  assert.equal(await exchange(path, 'CONNECT 53\n').catch(() => ''), '');
  echo.close();
});
