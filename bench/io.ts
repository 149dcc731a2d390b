// Throughput of virtio-blk and virtio-net, timed inside the guest: the same kernel, programs and devices on both emulators.

import { randomFillSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CHANNELS, execOverlay } from '../src/images/overlay.ts';
import { emulatorArguments, OUR_EMULATOR, prepareGuest } from './guest.ts';
import { type Benchmark, type Sample, watch } from './measure.ts';

const OUT = Number(CHANNELS.out.at(-1));
const MIB = 1 << 20;
/** Bytes of the disk, and of a file that is fetched and sent. */
const DISK = 128 * MIB;
const FILE = 64 * MIB;
const RANDOM_READS = 2000;

/** Each line: a word and seconds. Everything runs once before, so that the code is warm on both. */
const script = (port: number): string => `
t() { name=$1; shift; "$@" >/dev/null 2>&1; read a _ </proc/uptime; "$@" >/dev/null 2>&1; read b _ </proc/uptime; echo "$name $(awk "BEGIN{print $b-$a}")"; }
head -c ${FILE} /dev/zero >/tmp/file
t read dd if=/dev/vda of=/dev/null bs=1M iflag=direct
t small dd if=/dev/vda of=/dev/null bs=4k count=${RANDOM_READS} iflag=direct
t write dd if=/tmp/file of=/dev/vda bs=1M conv=fsync
t get wget -q -O /dev/null http://10.0.2.2:${port}/
t put wget -q -O /dev/null --post-file=/tmp/file http://10.0.2.2:${port}/
echo end
`;

/** A server that gives a file, and takes one. */
async function serve(): Promise<Server> {
  const file = randomFillSync(Buffer.alloc(FILE));
  const server = createServer((request, response) => {
    request.resume();
    request.on('end', () => response.end(request.method === 'POST' ? 'ok' : file));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

async function measure(program: string): Promise<Sample> {
  const folder = mkdtempSync(join(tmpdir(), 'nonroot-bench-io-'));
  const server = await serve();
  const { port } = server.address() as AddressInfo;
  writeFileSync(join(folder, 'disk'), randomFillSync(Buffer.alloc(DISK)));
  const guest = await prepareGuest(execOverlay({ command: script(port) }));
  const process = watch(program, [
    ...emulatorArguments(guest, OUT, program),
    ...[
      '-drive',
      `file=${join(folder, 'disk')},format=raw,if=virtio`,
      '-netdev',
      'user,id=n',
      '-device',
      'virtio-net-pci,netdev=n',
    ],
  ]);
  try {
    await process.said('end\n');
    const seconds = Object.fromEntries([...process.text.matchAll(/^(\w+) ([\d.]+)$/gm)].map(([, name, s]) => [name, Number(s)]));
    const rate = (name: string, bytes: number): number => bytes / MIB / seconds[name]!;
    return {
      read: rate('read', DISK),
      small: RANDOM_READS / 1000 / seconds['small']!,
      write: rate('write', FILE),
      get: rate('get', FILE),
      put: rate('put', FILE),
    };
  } finally {
    await process.stop();
    guest.remove();
    server.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

export const io: Benchmark = {
  name: 'io',
  about: 'virtio-blk and virtio-net from inside the guest; more is better',
  metrics: [
    { name: 'read', unit: 'MiB/s read', digits: 0 },
    { name: 'small', unit: 'thousand reads of 4 KiB/s', digits: 1 },
    { name: 'write', unit: 'MiB/s written and flushed', digits: 0 },
    { name: 'get', unit: 'MiB/s from the network', digits: 0 },
    { name: 'put', unit: 'MiB/s to the network', digits: 0 },
  ],
  contestants: { nonroot: () => measure(OUR_EMULATOR), qemu: () => measure('qemu-system-x86_64') },
};
