// Rounds of savevm and loadvm, and of migration to a file, while the guest writes and checks its disks and its network; run by hand:
// `node test/e2e/soak.long.ts [ROUNDS]`. Each disk has a controller of its own; the guest compares what it reads with checksums that it
// keeps in memory, which go back with it.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { EmulatorProcess } from './emulator.ts';

const rounds = Number(process.argv[2] ?? 50);
const image = process.argv[3] ?? 'debian-cloud';
const folder = mkdtempSync(join(tmpdir(), 'nonroot-soak-'));
const body = Buffer.alloc(300_000, 'network load ');
const server = createServer((_, response) => void response.end(body)).listen(0, '127.0.0.1');
await once(server, 'listening');
const { port } = server.address() as AddressInfo;

const kinds: readonly (readonly [device: string, more: readonly string[]])[] = [
  ['virtio-blk-pci', []],
  ['nvme,serial=n', []],
  ['ide-hd,bus=ide.1', []],
];
const drives: string[] = [];
for (const [n, [device]] of kinds.entries()) {
  const path = join(folder, `disk${n}.qcow2`);
  assert.equal(spawnSync('qemu-img', ['create', '-q', '-f', 'qcow2', path, '64M']).status, 0);
  drives.push('-drive', `file=${path},if=none,id=d${n},format=qcow2`, '-device', `${device},drive=d${n}`);
}
const cd = join(folder, 'cd.iso');
writeFileSync(cd, Buffer.alloc(4 << 20, 'the CD-ROM is read again and again\n'));
drives.push('-drive', `file=${cd},if=none,id=cd,format=raw,media=cdrom`, '-device', 'ide-cd,bus=ide.2,drive=cd');
const net = ['-netdev', 'user,id=n', '-device', 'virtio-net-pci,netdev=n'];
const more = ['-smp', '2', ...drives, ...net];

/** Writes a disk with direct I/O and compares what comes back with the checksum in memory. */
const load = (disk: string): string =>
  `n=0; while true; do head -c 1048576 /dev/urandom > /tmp/a-${disk}; s=$(sha256sum < /tmp/a-${disk}); at=$((n % 60)); ` +
  `dd if=/tmp/a-${disk} of=/dev/${disk} bs=64k seek=$((at*16)) oflag=direct 2>/dev/null || echo W-${disk} >> /tmp/bad; sync; ` +
  `t=$(dd if=/dev/${disk} bs=64k skip=$((at*16)) count=16 iflag=direct 2>/dev/null | sha256sum); ` +
  `[ "$s" = "$t" ] || echo BAD-${disk}-$n >> /tmp/bad; n=$((n+1)); echo $n > /tmp/n-${disk}; done`;
const reader =
  `n=0; c=$(sha256sum < /dev/sr0); while true; do echo 3 > /proc/sys/vm/drop_caches; [ "$c" = "$(sha256sum < /dev/sr0)" ] || echo BAD-cd >> /tmp/bad; ` +
  `n=$((n+1)); echo $n > /tmp/n-cd; done`;
const fetcher =
  `n=0; f=0; while true; do if timeout 5 wget -q -O /tmp/w http://10.0.2.2:${port}/; then [ $(wc -c < /tmp/w) = ${body.length} ] || echo BAD-net >> /tmp/bad; ` +
  `n=$((n+1)); else f=$((f+1)); fi; echo $n $f > /tmp/n-net; done`;

try {
  let vm = await EmulatorProcess.linux(folder, 'first', more, image);
  await vm.shell();
  console.log(
    await vm.command('modprobe -a nvme ahci sd_mod sr_mod 2>/dev/null; sleep 2; ls /dev/vd? /dev/nvme?n1 /dev/sd? /dev/sr0'),
  );
  await vm.command(
    'ip link set eth0 up; udhcpc -i eth0 -q -n >/dev/null 2>&1; ip addr add 10.0.2.15/24 dev eth0 2>/dev/null; echo',
  );
  const disks = (await vm.command('cd /dev; echo vd? nvme?n1 sd?')).split(/\s+/).filter((d) => !/[?]/.test(d));
  for (const disk of disks) await vm.command(`(${load(disk)}) & true`);
  if (!/No such/.test(await vm.command('ls /dev/sr0'))) await vm.command(`(${reader}) & true`);
  await vm.command(`(${fetcher}) & true`);
  const look = async (what: string): Promise<void> => {
    const said = await vm.command(
      'cat /tmp/bad 2>/dev/null; head -n 9 /tmp/n-*; dmesg | grep -iE "error|timeout|reset|hung|fail" | tail -n 2 | cut -c1-80',
    );
    console.log(what, said.replace(/\s+/g, ' '));
    assert.doesNotMatch(said, /BAD|W-/);
  };
  await sleep(3000);
  await look('start');
  for (let round = 0; round < rounds; round++) {
    const t0 = performance.now();
    assert.equal(await vm.hmp(`savevm s${round % 2}`), '');
    const t1 = performance.now();
    await sleep(200 + ((round * 137) % 700));
    const t2 = performance.now();
    assert.equal(await vm.hmp(`loadvm s${round % 2}`), '');
    console.log(`round ${round}: savevm ${(t1 - t0).toFixed(0)} ms, loadvm ${(performance.now() - t2).toFixed(0)} ms`);
    await sleep(100 + ((round * 61) % 300));
    if (round % 5 === 4) await look(`round ${round}:`);
    await sleep(1500);
    if (round % 5 !== 4) continue;
    const file = join(folder, 'saved');
    vm.events.length = 0;
    await vm.qmp('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
    await vm.qmp('migrate', { uri: `exec:cat > ${file}`, detach: true });
    await vm.event('MIGRATION', 'completed');
    await vm.quit();
    vm = await EmulatorProcess.linux(folder, `next${round}`, [...more, '-incoming', `exec:cat ${file}`], image);
    await vm.until('running', async () => ((await vm.status()) === 'running' ? true : undefined));
    await sleep(500);
    await look(`moved by a file, round ${round}:`);
  }
  await vm.command('kill %1 %2 %3 %4 %5; sleep 1');
  await vm.qmp('quit');
  await vm.ended;
  for (const [n] of kinds.entries()) {
    const check = spawnSync('qemu-img', ['check', join(folder, `disk${n}.qcow2`)], { encoding: 'utf8' });
    assert.equal(check.status, 0, check.stdout + check.stderr);
  }
  console.log(`${rounds} rounds: all checksums right, images clean`);
} finally {
  server.close();
  rmSync(folder, { recursive: true });
}
process.exit(0);
