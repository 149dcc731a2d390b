// Emulators that run as another user: what a guest uses is that user's for as long as it runs.
import assert from 'node:assert/strict';
import { chmodSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Client, idleGuest, makeDisk, uuidOf } from './client.ts';
import { missing, realEmulator, TestDaemon } from './daemon-process.ts';

const skip = process.getuid?.() === 0 ? missing('virsh', 'qemu-img', realEmulator) : 'only root runs emulators as somebody else';

describe('a daemon of root whose emulators are nobody', { skip, timeout: 180_000 }, () => {
  const plain = new TestDaemon();
  const file = (name: string): string => join(plain.directory, name);
  writeFileSync(file('conf'), 'user = "nobody"\n');
  chmodSync(plain.directory, 0o755);
  const daemon = new TestDaemon(['--config', file('conf')], plain.directory);
  let client: Client;
  const owner = (name: string): number => statSync(file(name)).uid;

  before(async () => {
    await daemon.start();
    client = await Client.connect(daemon.uri);
    for (const name of ['a.qcow2', 'b.qcow2']) {
      makeDisk(file(name), '1M');
      chmodSync(file(name), 0o600);
    }
  });
  after(async () => {
    client?.close();
    await daemon.close();
  });

  test('hands disks over and takes them back, over a restart of the daemon as well', async () => {
    const disk = `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${file('a.qcow2')}'/><target dev='vda' bus='virtio'/></disk>`;
    await client.start(
      await client.define(idleGuest('lent', uuidOf(1), disk).replace('</os>', '</os><features><acpi/></features>')),
    );
    const [emulator] = daemon.emulators();
    assert.notEqual(statSync(`/proc/${emulator}`).uid, 0);
    assert.equal(owner('a.qcow2'), statSync(`/proc/${emulator}`).uid);
    const { code, out } = await daemon.virsh('attach-disk', 'lent', file('b.qcow2'), 'vdb', '--subdriver', 'qcow2', '--live');
    assert.equal(code, 0, out);
    assert.notEqual(owner('b.qcow2'), 0);
    await daemon.kill();
    client.close();
    await daemon.start();
    client = await Client.connect(daemon.uri);
    await daemon.virsh('destroy', 'lent');
    assert.deepEqual([owner('a.qcow2'), owner('b.qcow2')], [0, 0]);
  });
});
