import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import type { CommandLineContext } from './command-line/arguments.ts';
import { highestNodeIndex, plugPlan } from './command-line/plug.ts';
import { attachDevice, detachDevice, findDevice, formatDevice, parseDevice } from './device.ts';
import { type Domain, formatDomain, parseDomain } from './domain.ts';
import { DomainXmlError } from './errors.ts';
import { recordedContext, recordedEmulator } from './testing.ts';

const running = (name: string): Domain =>
  parseDomain(readFileSync(new URL(`golden/domains/${name}.live.xml`, import.meta.url), 'utf8'));
const { random } = recordedContext;
const context: CommandLineContext = {
  machine: recordedEmulator.machines[0]!,
  monitorPath: '/m',
  passDescriptors: true,
  directory: '/d',
  now: 0,
};
const disk = "<disk type='file'><driver name='qemu' type='qcow2'/><source file='/n'/><target dev='vdc' bus='virtio'/></disk>";

describe('a device that is plugged in', () => {
  test('gets a name and an address of its own', () => {
    const domain = running('live-pc');
    const device = parseDevice(disk);
    attachDevice(domain, device, true, random);
    assert.match(
      formatDevice(device),
      /<alias name='virtio-disk2'\/>\n {2}<address type='pci' domain='0x0000' bus='0x00' slot='0x0d'/,
    );
    const card = parseDevice("<interface type='user'><model type='virtio'/></interface>");
    attachDevice(domain, card, true, random);
    assert.match(formatDevice(card), /<mac address='52:54:00:07:07:07'\/>[\s\S]*<alias name='net6'\/>[\s\S]*slot='0x0e'/);
    assert.equal(formatDomain(parseDomain(formatDomain(domain))), formatDomain(domain));
  });

  test('takes the port that a PCI Express machine keeps free, and then there is no more', () => {
    const domain = running('live-q35');
    const first = parseDevice(disk);
    attachDevice(domain, first, true, random);
    assert.ok(formatDevice(first).includes("bus='0x06' slot='0x00'"));
    assert.deepEqual(
      domain.devices.disks.map((one) => one.target?.dev),
      ['sda', 'vdb', 'vdc'],
    );
    const before = formatDomain(domain);
    assert.throws(
      () => attachDevice(domain, parseDevice(disk.replace('vdc', 'vdd')), true, random),
      /No more available PCI slots/,
    );
    assert.equal(formatDomain(domain), before);
  });

  test('is refused when its target is taken, and the domain stays as it was', () => {
    const domain = running('live-pc');
    const before = formatDomain(domain);
    assert.throws(
      () => attachDevice(domain, parseDevice(disk.replace('vdc', 'vda')), true, random),
      (error) => error instanceof DomainXmlError && error.message.includes("target 'vda' duplicated"),
    );
    assert.equal(formatDomain(domain), before);
  });

  test('becomes QMP commands in the order in which the command line has its options', () => {
    const domain = running('live-pc');
    const device = parseDevice(disk);
    attachDevice(domain, device, true, random);
    assert.ok(device.element === 'disk' && device.value.source);
    device.value.source.index = highestNodeIndex(domain) + 1;
    const plan = plugPlan(domain, device, context);
    assert.deepEqual(
      plan.steps.map(({ command }) => command),
      ['blockdev-add', 'blockdev-add', 'device_add'],
    );
    assert.equal(plan.id, 'virtio-disk2');
    assert.deepEqual(plan.steps[1]?.undo, { command: 'blockdev-del', arguments: { 'node-name': 'libvirt-5-format' } });
    assert.equal(
      plan.steps[2]?.arguments,
      '{"driver":"virtio-blk-pci","bus":"pci.0","addr":"0xd","drive":"libvirt-5-format","id":"virtio-disk2"}',
    );
  });

  test('keeps a 64-bit WWN exact', () => {
    const domain = running('live-pc');
    const device = parseDevice(
      "<disk type='file'><source file='/n'/><target dev='sdq' bus='usb'/><wwn>5000c50015ea71ad</wwn></disk>",
    );
    attachDevice(domain, device, true, random);
    assert.ok(plugPlan(domain, device, context).steps.at(-1)?.arguments.includes('"wwn":5764824127192592813'));
  });

  test('is memory where the domain has room for it, with the first free slot', () => {
    const domain = running('live-pc');
    const module = (mib: number) =>
      parseDevice(`<memory model='dimm'><target><size unit='MiB'>${mib}</size><node>0</node></target></memory>`);
    assert.throws(() => attachDevice(domain, module(128), true, random), /'maxMemory' is not defined/);
    const start = domain.memory!;
    domain.maxMemory = { kib: start + (256 << 10), slots: 2 };
    const [first, second] = [module(128), module(64)];
    attachDevice(domain, first, true, random);
    attachDevice(domain, second, true, random);
    const { steps, id } = plugPlan(domain, second, context);
    assert.equal(id, 'dimm1');
    assert.deepEqual(
      steps.map(({ command, arguments: text }) => [command, JSON.parse(text)]),
      [
        ['object-add', { 'qom-type': 'memory-backend-ram', id: 'memdimm1', size: 64 << 20 }],
        ['device_add', { driver: 'pc-dimm', node: 0, memdev: 'memdimm1', id: 'dimm1', slot: 1 }],
      ],
    );
    assert.equal(domain.memory, start + (192 << 10));
    assert.throws(() => attachDevice(domain, module(64), true, random), /no free memory device slot/);
    detachDevice(domain, first);
    assert.throws(() => attachDevice(domain, module(512), true, random), /exceeds hotplug space/);
    assert.equal(domain.memory, start + (64 << 10));
    const third = module(64);
    attachDevice(domain, third, true, random);
    assert.match(formatDevice(third), /<address type='dimm' slot='0'\/>/);
  });

  test('is a controller without the others being plugged in again', () => {
    const domain = running('live-pc');
    const device = parseDevice("<controller type='scsi' model='virtio-scsi'/>");
    attachDevice(domain, device, true, random);
    const { steps, id } = plugPlan(domain, device, context);
    assert.equal(id, 'scsi0');
    assert.equal(steps.length, 1);
    assert.match(steps[0]!.arguments, /^\{"driver":"virtio-scsi-pci","id":"scsi0","bus":"pci.0"/);
  });
});

describe('a device of a domain', () => {
  test('is found by its target, MAC address, alias or place, and taken out', () => {
    const documents = [
      "<disk type='file' device='cdrom'><target dev='hda'/></disk>",
      "<interface type='user'><mac address='52:54:00:00:00:62'/></interface>",
      "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>",
      "<input type='tablet' bus='usb'><alias name='input0'/></input>",
      "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>",
    ];
    for (const text of documents) {
      const domain = running('live-pc');
      const found = findDevice(domain, parseDevice(text));
      const printed = formatDevice(found);
      const lines = formatDomain(domain).split('\n').length;
      detachDevice(domain, found);
      assert.equal(formatDomain(domain).split('\n').length, lines - printed.trimEnd().split('\n').length, text);
      assert.throws(() => findDevice(domain, parseDevice(text)), /device not found/);
    }
  });

  test('is refused when several match', () => {
    assert.throws(
      () => findDevice(running('live-pc'), parseDevice("<interface type='user'/>")),
      /multiple interface devices match/,
    );
  });

  test('is refused when its element is none', () => {
    assert.throws(() => parseDevice('<novel/>'), /unknown device type 'novel'/);
  });
});
