import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { completeDomain } from './complete.ts';
import { formatDomain, parseDomain } from './domain.ts';
import { DomainXmlError } from './errors.ts';
import { recordedContext } from './testing.ts';

const folder = new URL('golden/domains/', import.meta.url);
const read = (name: string): string => readFileSync(new URL(name, folder), 'utf8');
const names = readdirSync(folder).flatMap((file) => (file.endsWith('.in.xml') ? [file.slice(0, -'.in.xml'.length)] : []));

/** What is random in libvirt's answer, and what it drops and we keep. */
const comparable = (xml: string): string =>
  xml.replace(/interfaceid='[^']*'/, "interfaceid='?'").replace(/^ {2}<unknownthing a='1'\/>\n/m, '');

const document = (inner: string, devices = '', os = '<os><type>hvm</type></os>'): string =>
  `<domain type='qemu'><name>x</name><memory>65536</memory>${os}${inner}<devices>${devices}</devices></domain>`;
const define = (text: string) => completeDomain(parseDomain(text), recordedContext);

describe('a definition', () => {
  for (const name of names) {
    test(`of ${name} is what libvirt makes of the same document`, () => {
      assert.equal(comparable(formatDomain(define(read(`${name}.in.xml`)))), comparable(read(`${name}.xml`)));
    });
  }
  assert.ok(names.length >= 18);

  for (const name of names) {
    test(`of ${name} that is complete changes no more than its order`, () => {
      const once = formatDomain(define(read(`${name}.xml`)));
      assert.deepEqual(once.split('\n').sort(), read(`${name}.xml`).split('\n').sort());
      assert.equal(formatDomain(define(once)), once);
    });
  }

  test('gets a UUID and MAC addresses when it has none', () => {
    const domain = define(document('', "<interface type='user'/>"));
    assert.equal(domain.uuid, '07070707-0707-4707-8707-070707070707');
    assert.equal(domain.devices.interfaces[0]?.mac?.address, '52:54:00:07:07:07');
  });

  test('keeps a machine name that the emulator does not list', () => {
    const os = "<os><type machine='pc-i440fx-2.0'>hvm</type></os>";
    assert.equal(define(document('', '', os)).os.type?.machine, 'pc-i440fx-2.0');
  });

  test('uses the emulator of the architecture that it asks for', () => {
    const riscv = { ...recordedContext.emulators[0]!, path: '/usr/bin/qemu-system-riscv64', arch: 'riscv64' };
    const context = { ...recordedContext, emulators: [...recordedContext.emulators, riscv] };
    const os = "<os><type arch='riscv64' machine='virt'>hvm</type></os>";
    const domain = completeDomain(parseDomain(document('', "<console type='pty'/>", os)), context);
    assert.equal(domain.devices.emulator, riscv.path);
    assert.equal(domain.devices.serials[0]?.target?.model?.name, '16550a');
    assert.equal(domain.devices.controllers.filter((one) => one.model === 'pcie-root-port').length, 3);
    assert.deepEqual(domain.devices.inputs, []);
  });

  test('adds USB hubs when the controller has too few ports', () => {
    const domain = define(document('', "<input type='tablet' bus='usb'/>".repeat(4)));
    assert.equal(domain.devices.hubs.length, 1);
    const ports = domain.devices.inputs.flatMap((one) => (one.address?.type === 'usb' ? [one.address.port] : []));
    assert.deepEqual(ports, ['2', '1.1', '1.2', '1.3']);
  });

  test('puts a second bridge on the first when one bus is not enough', () => {
    const disks = Array.from({ length: 70 }, (_, i) => {
      const letters = i < 26 ? String.fromCharCode(97 + i) : String.fromCharCode(96 + Math.floor(i / 26), 97 + (i % 26));
      return `<disk type='file'><source file='/d${i}'/><target dev='vd${letters}'/></disk>`;
    });
    const domain = define(document('', disks.join('')));
    const places = domain.devices.disks.map((one) => JSON.stringify(one.address));
    assert.equal(new Set(places).size, 70);
    const bridges = domain.devices.controllers.filter((one) => one.model === 'pci-bridge');
    assert.deepEqual(
      bridges.map((one) => one.index),
      [1, 2],
    );
  });
});

interface Refusal {
  input: string;
  code: number;
  message: string;
}

describe('a document that libvirt refuses', () => {
  const refusals = JSON.parse(readFileSync(new URL('golden/errors.json', import.meta.url), 'utf8')) as Refusal[];
  assert.ok(refusals.length > 80);
  for (const { input, code, message } of refusals) {
    test(`is refused with error ${code}: ${message.split('\n')[0]}`, () => {
      assert.throws(
        () => define(input),
        (error) => {
          assert.ok(error instanceof DomainXmlError);
          assert.equal(error.code, code);
          // The parser's own words about text that is not XML differ.
          if (code === 35) assert.match(error.message, /^\(domain_definition\):1: /);
          else assert.equal(error.message, message);
          return true;
        },
      );
    });
  }
});
