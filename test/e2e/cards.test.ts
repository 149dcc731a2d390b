// Debian's kernel for PCs with devices that clouds have not: two network cards, a floppy disk, the parallel port, and what tells of a panic.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { EmulatorProcess } from './emulator.ts';
import { missing } from './program.ts';

const IMAGE = 'debian-amd64';
const SECTOR = 512;
const skip = await missing(IMAGE);
const md5 = (bytes: Uint8Array): string => createHash('md5').update(bytes).digest('hex');

describe("Debian's kernel for PCs", { skip, timeout: 300_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'nonroot-cards-'));
  const [floppy, printed] = [join(folder, 'floppy.img'), join(folder, 'printed')];
  const [disk, page] = [randomBytes(1_474_560), randomBytes(400_000)];
  const server = createServer((_, response) => response.end(page));
  let vm!: EmulatorProcess;

  before(async () => {
    writeFileSync(floppy, disk);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    vm = await EmulatorProcess.linux(
      folder,
      'vm',
      [
        ...[
          '-netdev',
          'user,id=a',
          '-device',
          'e1000e,netdev=a',
          '-netdev',
          'user,id=b,net=10.0.3.0/24',
          '-device',
          'rtl8139,netdev=b',
        ],
        ...['-drive', `if=none,id=fd,format=raw,file=${floppy}`, '-device', 'isa-fdc,id=fdc', '-device', 'floppy,drive=fd'],
        ...['-parallel', `file:${printed}`, '-device', 'pvpanic', '-device', 'pvpanic-pci', '-action', 'panic=none'],
      ],
      IMAGE,
    );
    await vm.shell();
  });
  after(async () => {
    await vm.quit();
    server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const fetchBoth = async (): Promise<void> => {
    const drivers = await vm.command('for d in eth0 eth1; do readlink /sys/class/net/$d/device/driver; done');
    const names = drivers.split(/\s+/).map((line) => line.slice(line.lastIndexOf('/') + 1));
    assert.deepEqual([...names].sort(), ['8139cp', 'e1000e'], drivers);
    const { port } = server.address() as AddressInfo;
    for (const [device, driver] of names.entries()) {
      const net = driver === 'e1000e' ? '10.0.2' : '10.0.3';
      // Every route and address anew: the first card has been leased one already.
      const up = `ip addr flush dev eth${device}; ip addr add ${net}.15/24 dev eth${device}; ip link set eth${device} up`;
      const sum = await vm.command(`${up}; wget -q -O - http://${net}.2:${port}/ | md5sum`);
      assert.equal(/[0-9a-f]{32}/.exec(sum)?.[0], md5(page), `${driver}: ${sum}`);
    }
  };
  test('fetches a file through an e1000e and through an rtl8139', fetchBoth);

  test('reads and writes a floppy disk', async () => {
    const sum = await vm.command('modprobe floppy; dd if=/dev/fd0 bs=18k count=20 2>/dev/null | md5sum');
    assert.equal(/[0-9a-f]{32}/.exec(sum)?.[0], md5(disk.subarray(0, 20 * 18 * 1024)), sum);
    await vm.command(`printf nonroot | dd of=/dev/fd0 bs=${SECTOR} seek=37 conv=sync 2>/dev/null; sync`);
    const written = readFileSync(floppy);
    assert.equal(written.toString('latin1', 37 * SECTOR, 37 * SECTOR + 8), 'nonroot\0');
    assert.ok(written.subarray(38 * SECTOR).equals(disk.subarray(38 * SECTOR)), 'what lies behind it stays');
  });

  test('prints on the parallel port', async () => {
    await vm.command('modprobe -a parport_pc lp; echo "a line on paper" >/dev/lp0');
    assert.equal(readFileSync(printed, 'latin1'), 'a line on paper\n');
  });

  test('tells of its panic by both devices', async () => {
    await vm.command('modprobe -a pvpanic_mmio pvpanic_pci');
    vm.child.stdin!.write('echo c >/proc/sysrq-trigger\n');
    await vm.until('two reports', () => (vm.events.filter((e) => e.event === 'GUEST_PANICKED').length >= 2 ? true : undefined));
  });

  test('starts again, and fetches the same', async () => {
    await vm.event('RESET');
    vm.console = '';
    await vm.shell();
    await fetchBoth();
  });
});
