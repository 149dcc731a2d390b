// Reads of a disk that are carried out on the vCPU's thread, at the doorbell: they see what was written, through every change of the images
// below, and are counted.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomFillSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { EmulatorProcess } from './emulator.ts';

const MIB = 1 << 20;
const SIZE = 4 * MIB;
const BLOCK = 4096;
/** libata uses the native queue no more. */
const NO_QUEUE = 'echo 1 >/sys/block/sda/device/queue_depth';
type Stats = { readonly stats: { readonly rd_operations: number; readonly rd_bytes: number } }[];

for (const [device, disk, limited, image, more = [], before = ''] of [
  ['virtio-blk-pci', '/dev/vda', '/machine/peripheral/disk/virtio-backend', 'debian-cloud'],
  ['nvme,serial=x', '/dev/nvme0n1', 'disk', 'debian-cloud'],
  ['ide-hd,bus=ide.0', '/dev/sda', 'disk', 'debian-amd64'],
  ['ide-hd,bus=ide.0', '/dev/sda', 'disk', 'debian-amd64', [], NO_QUEUE],
  ['ide-hd,bus=ide.0', '/dev/sda', 'disk', 'debian-amd64', ['-M', 'pc']],
  ['scsi-hd,bus=hba.0', '/dev/sda', 'disk', 'debian-amd64', ['-device', 'virtio-scsi-pci,id=hba']],
] as readonly (readonly [string, string, string, string, (readonly string[])?, string?])[])
  test(
    `a guest reads at the doorbell of ${device} what the images hold, over snapshots, commits and new media ${[...more, before].join(' ')}`.trim(),
    async () => {
      const folder = mkdtempSync(join(tmpdir(), 'nonroot-direct-'));
      const base = join(folder, 'base.raw');
      const top = join(folder, 'top.qcow2');
      const held = randomFillSync(Buffer.alloc(SIZE));
      writeFileSync(base, held);
      execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', base, top]);
      const drive = ['-blockdev', `driver=qcow2,node-name=top,file.driver=file,file.filename=${top}`];
      const vm = await EmulatorProcess.linux(folder, 'vm', [...drive, ...more, '-device', `${device},drive=top,id=disk`], image);
      try {
        await vm.shell();
        await vm.command(
          `modprobe -a nvme ahci ata_piix virtio_pci virtio_scsi sd_mod; for i in $(seq 100); do [ -b ${disk} ] && break; sleep 0.1; done; ${before || 'true'}`,
        );
        const operations = async (): Promise<number> => ((await vm.qmp('query-blockstats')) as Stats)[0]!.stats.rd_operations;
        /** The disk's sum as the guest sees it, past its own cache, in small pieces; it has to be what `held` is. */
        const compare = async (when: string): Promise<void> => {
          const before = await operations();
          const sum = await vm.command(`dd if=${disk} bs=${BLOCK} iflag=direct 2>/dev/null | sha256sum`);
          assert.equal(/[0-9a-f]{64}/.exec(sum)?.[0], createHash('sha256').update(held).digest('hex'), when);
          assert.ok((await operations()) - before >= SIZE / BLOCK, `${when}: every read was counted`);
        };
        const write = async (byte: number, block: number, count: number): Promise<void> => {
          held.fill(byte, block * BLOCK, (block + count) * BLOCK);
          const fill = `tr '\\0' '\\${byte.toString(8)}' </dev/zero`;
          await vm.command(
            `${fill} | dd of=${disk} bs=${BLOCK} seek=${block} count=${count} iflag=fullblock oflag=direct 2>/dev/null`,
          );
        };
        await compare('from the backing file');
        await write(0o101, 100, 40);
        await compare('with clusters of its own');
        const file = join(folder, 'next.qcow2');
        await vm.qmp('blockdev-snapshot-sync', { 'node-name': 'top', 'snapshot-file': file, 'snapshot-node-name': 'next' });
        await write(0o102, 120, 10);
        await compare('after a snapshot');
        await vm.qmp('block-commit', { 'job-id': 'j', device: 'next', 'base-node': 'top' });
        await vm.event('BLOCK_JOB_READY');
        await compare('while a commit follows');
        await write(0o103, 5, 3);
        await vm.qmp('block-job-complete', { device: 'j' });
        await vm.event('BLOCK_JOB_COMPLETED');
        await write(0o104, 900, 2);
        await compare('after the commit');
        await vm.qmp('block_set_io_throttle', {
          id: limited,
          bps: 0,
          bps_rd: 0,
          bps_wr: 0,
          iops: 1_000_000,
          iops_rd: 0,
          iops_wr: 0,
        });
        await compare('with a limit that is never reached');
        const text = await vm.qmp('human-monitor-command', { 'command-line': 'info blockstats' });
        assert.match(String(text), new RegExp(`rd_operations=${await operations()} `));
      } finally {
        await vm.quit();
        rmSync(folder, { recursive: true, force: true });
      }
    },
  );
