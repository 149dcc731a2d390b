import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { extractFirmware, firmwarePackage } from '../../images/firmware.ts';
import { makeAr, makeTar } from '../../images/testing.ts';
import { readFirmware } from './fetch-firmware.ts';

test('images are known by the package that has them', () => {
  assert.equal(firmwarePackage('bios-256k.bin')?.name, 'seabios');
  assert.equal(firmwarePackage('OVMF_CODE_4M.fd')?.name, 'ovmf');
  assert.equal(firmwarePackage('efi-virtio.rom')?.name, 'ipxe-qemu');
  assert.equal(firmwarePackage('passwd'), undefined);
});

test('a package gives its images and the links to them, and nothing else', async () => {
  const data = makeTar(
    { name: 'usr/share/OVMF/OVMF_CODE.secboot.fd', data: 'code' },
    { name: 'usr/share/OVMF/OVMF_CODE.ms.fd', type: '2', link: 'OVMF_CODE.secboot.fd' },
    { name: 'usr/share/OVMF/readme', data: 'no' },
    { name: 'etc/OVMF.fd', data: 'no' },
  );
  const bytes = makeAr({ 'debian-binary': '2.0\n', 'control.tar': '', 'data.tar': data });
  const images = await extractFirmware(firmwarePackage('OVMF.fd')!, bytes, async (_, packed) => packed);
  assert.deepEqual(Object.keys(images).sort(), ['OVMF_CODE.ms.fd', 'OVMF_CODE.secboot.fd']);
});

test('an image is taken from the folders that the user names first', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'nonroot-firmware-'));
  t.after(() => rm(folder, { recursive: true }));
  await mkdir(join(folder, 'own'));
  await writeFile(join(folder, 'own', 'bios-256k.bin'), 'mine');
  assert.equal(Buffer.from(await readFirmware('bios-256k.bin', [join(folder, 'own')])).toString(), 'mine');
  await assert.rejects(readFirmware(join(folder, 'none.bin')), /Cannot read firmware .*none.bin: there is no such file/);
  await assert.rejects(readFirmware('none.bin', [folder]), /Cannot find firmware none.bin/);
});
