// Tap devices in a network namespace of their own, so that the host's network is left alone.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

const namespace = ['-r', '-n', '--'];
const able = spawnSync('unshare', [...namespace, 'ip', 'tuntap', 'add', 'dev', 'probe', 'mode', 'tap'], { timeout: 20_000 });
const skip = able.status === 0 ? false : 'no tap devices in a namespace of this user';

/** Runs a program in a new namespace; what it prints. */
const run = (program: string): string => {
  const directory = mkdtempSync(join(tmpdir(), 'tap-'));
  try {
    // A file, since the options of a program given by -e would go to its threads as well.
    const file = join(directory, 'program.mjs');
    writeFileSync(file, program.replaceAll("from './", `from '${import.meta.dirname}/`));
    return execFileSync('unshare', [...namespace, process.execPath, file], { encoding: 'utf8', timeout: 60_000 });
  } finally {
    rmSync(directory, { recursive: true });
  }
};

/** Makes tap0 with an address of the host's, asks for its MAC by ARP as a guest does, and prints what the host answers. */
const ask = (open: string): string => `
  import { execFileSync } from 'node:child_process';
  import { openTap } from './tap.ts';
  const ip = (...args) => execFileSync('ip', args);
  ${open}
  ip('addr', 'add', '10.9.0.1/24', 'dev', 'tap0');
  ip('link', 'set', 'tap0', 'address', '52:54:00:00:00:01', 'up');
  tap.receive = (frame) => {
    if (frame[12] === 8 && frame[13] === 6 && frame[21] === 2) {
      console.log(frame.length >= 42, Buffer.from(frame.subarray(22, 32)).toString('hex'));
      tap.close();
      clearTimeout(alive);
    }
  };
  const mac = [0x52, 0x54, 0, 0, 0, 2];
  const arp = [0, 1, 8, 0, 6, 4, 0, 1, ...mac, 10, 9, 0, 2, 0, 0, 0, 0, 0, 0, 10, 9, 0, 1];
  tap.send(new Uint8Array([255, 255, 255, 255, 255, 255, ...mac, 8, 6, ...arp]));
  // Nothing but this keeps the process alive.
  const alive = setTimeout(() => console.log('no answer'), 20_000);
`;

test('frames go to the host and come from it', { skip }, () => {
  assert.equal(run(ask(`const tap = openTap({ ifname: 'tap0' });`)).trim(), 'true 5254000000010a090001');
});

test('a descriptor whose frames have a header before them carries the same frames', { skip }, () => {
  const open = `
    import { openSync } from 'node:fs';
    import { libc } from './libc.ts';
    const fd = openSync('/dev/net/tun', 'r+');
    const request = new Uint8Array(40);
    request.set(Buffer.from('tap0'));
    new DataView(request.buffer).setUint16(16, 0x5002, true);
    if (libc().ioctl(fd, 0x400454ca, request) !== 0) throw new Error('TUNSETIFF');
    const tap = openTap({ fd });`;
  assert.equal(run(ask(open)).trim(), 'true 5254000000010a090001');
});

test('what is no tap device, in use, or has too long a name is told in one line', { skip }, () => {
  const told = run(`
    import { openTap } from './tap.ts';
    import { openSync } from 'node:fs';
    const kept = openTap({ ifname: 'tap0' });
    for (const o of [{ ifname: 'tap0' }, { ifname: 'x'.repeat(16) }, { fd: openSync('/dev/null', 'r+') }])
      try { openTap(o); console.log('opened'); } catch (error) { console.log(error.message); }
    kept.close();`);
  const lines = told.trim().split('\n');
  assert.match(lines[0]!, /\(tap0\): device in use$/);
  assert.match(lines[1]!, /names have up to 15 characters$/);
  assert.match(lines[2]!, /^descriptor \d+ is no tap device$/);
  assert.equal(lines.length, 3);
});
