import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { formatDomain, parseDomain } from './domain.ts';
import { DomainXmlError } from './errors.ts';

const folder = new URL('golden/domains/', import.meta.url);

describe('a domain document', () => {
  for (const file of readdirSync(folder)) {
    if (!file.endsWith('.xml') || file.endsWith('.in.xml')) continue;
    test(`${file} is printed as libvirt prints it`, () => {
      const text = readFileSync(new URL(file, folder), 'utf8');
      assert.equal(formatDomain(parseDomain(text)), text);
    });
  }

  const wrap = (inner: string, attributes = ''): string =>
    `<domain type='qemu'${attributes}><name>x</name><memory>1024</memory><os><type>hvm</type></os>${inner}</domain>`;

  test('keeps elements and attributes that are not known, at every level', () => {
    const inner =
      "<novel a='1'><b>t</b></novel><devices><gadget x='y'/><disk type='file' future='1'><source file='/a' how='z'/><target dev='vda'/><later/></disk></devices>";
    const first = formatDomain(parseDomain(wrap(inner, " flavour='new'")));
    for (const part of ["flavour='new'", "<novel a='1'>", '<b>t</b>', "<gadget x='y'/>", "future='1'", "how='z'", '<later/>']) {
      assert.ok(first.includes(part), `${part} is lost`);
    }
    assert.equal(formatDomain(parseDomain(first)), first);
  });

  test('shows passwords only on request', () => {
    const domain = parseDomain(wrap("<devices><graphics type='vnc' passwd='secret'/></devices>"));
    assert.ok(!formatDomain(domain).includes('secret'));
    assert.ok(formatDomain(domain, { secure: true }).includes("passwd='secret'"));
    assert.equal(domain.devices.graphics[0]?.passwd, 'secret');
  });

  test('reads the QEMU namespace under any prefix and prints it as libvirt does', () => {
    const text = wrap(
      "<q:commandline><q:arg value='-x'/></q:commandline>",
      " xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'",
    );
    const domain = parseDomain(text);
    assert.deepEqual(
      domain.commandLine?.args.map((one) => one.value),
      ['-x'],
    );
    const printed = formatDomain(domain);
    assert.match(printed, /^<domain type='qemu' xmlns:qemu='http:\/\/libvirt.org\/schemas\/domain\/qemu\/1.0'>/);
    assert.equal(formatDomain(parseDomain(printed)), printed);
  });

  test('carries metadata with the prefixes that its root declares', () => {
    const printed = formatDomain(parseDomain(wrap('<metadata><a:m>1 &lt; 2</a:m></metadata>', " xmlns:a='urn:a'")));
    assert.ok(printed.includes('<a:m xmlns:a="urn:a">1 &lt; 2</a:m>'));
  });

  test('escapes what XML needs escaped', () => {
    const domain = parseDomain(wrap(''));
    domain.description = `a<b>&'"`;
    assert.ok(formatDomain(domain).includes('<description>a&lt;b&gt;&amp;&apos;&quot;</description>'));
    assert.equal(parseDomain(formatDomain(domain)).description, `a<b>&'"`);
  });

  test('is refused when it nests too deeply, declares entities or does not end', () => {
    const hostile = [
      `${'<a>'.repeat(5000)}${'</a>'.repeat(5000)}`,
      "<!DOCTYPE d [<!ENTITY e 'x'>]><domain>&e;</domain>",
      '<domain><name>',
      '<domain></name>',
      '\0',
    ];
    for (const text of hostile) {
      assert.throws(
        () => parseDomain(text),
        (error) => error instanceof DomainXmlError && error.code === 35,
      );
    }
  });

  test('gives memory in KiB from any unit', () => {
    const sizes = { '1 GiB': 1048576, '1 G': 1048576, '1 GB': 976563, '2048 b': 2, '1500 bytes': 2, '3 k': 3, '1 T': 1073741824 };
    for (const [size, kib] of Object.entries(sizes)) {
      const [value, unit] = size.split(' ');
      const text = `<domain type='qemu'><name>x</name><memory unit='${unit}'>${value}</memory><os><type>hvm</type></os></domain>`;
      assert.equal(parseDomain(text).memory, kib, size);
    }
  });
});
