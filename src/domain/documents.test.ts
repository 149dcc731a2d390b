import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { completeDomain } from './complete.ts';
import { DomainXmlError } from './errors.ts';
import { completeNetwork, formatNetwork, parseNetwork } from './network.ts';
import { completeNwfilter, formatNwfilter, parseNwfilter } from './nwfilter.ts';
import { completeSecret, formatSecret, parseSecret, secretUsageId } from './secret.ts';
import { formatSnapshot, parseSnapshot } from './snapshot.ts';
import { completePool, formatPool, formatVolume, parsePool, parseVolume, volumeFormatOf } from './storage.ts';
import { recordedContext } from './testing.ts';
import { parseXml } from './xml.ts';

interface Recording {
  kind: string;
  input: string;
  output?: string;
  code?: number;
  message?: string;
}

const recordings = JSON.parse(readFileSync(new URL('golden/other.json', import.meta.url), 'utf8')) as Recording[];
const { random } = recordedContext;

const define: Record<string, (text: string) => string> = {
  network: (text) => formatNetwork(completeNetwork(parseNetwork(text), { random, freeBridge: () => 'virbr1' })),
  pool: (text) => formatPool(completePool(parsePool(text), random)),
  secret: (text) => formatSecret(completeSecret(parseSecret(text), random)),
  nwfilter: (text) => formatNwfilter(completeNwfilter(parseNwfilter(text), random)),
  snapshot: (text) => {
    const snapshot = parseSnapshot(text, { redefine: true });
    if (snapshot.domain) completeDomain(snapshot.domain, recordedContext);
    return formatSnapshot(snapshot);
  },
  volume: (text) => formatVolume(parseVolume(text)),
};

/** UUIDs, MAC addresses and bridge names that libvirt chose. */
const comparable = (xml: string, input: string): string => {
  let text = xml;
  if (!input.includes('<uuid>')) text = text.replace(/<uuid>.*<\/uuid>/, '<uuid>?</uuid>');
  if (!input.includes('<mac ')) text = text.replace(/<mac address='[^']*'/, "<mac address='?'");
  if (!input.includes('<bridge ')) text = text.replace(/<bridge name='[^']*'/, "<bridge name='?'");
  return text;
};

describe('a document of the kind', () => {
  for (const { kind, input, output, code, message } of recordings) {
    const name = /<name>([^<]*)/.exec(input)?.[1] ?? /name='([^']*)/.exec(input)?.[1] ?? input.slice(0, 60);
    const parse = define[kind]!;
    if (output === undefined) {
      test(`${kind} is refused: ${message?.split('\n')[0]}`, () => {
        assert.throws(
          () => parse(input),
          (error) => {
            assert.ok(error instanceof DomainXmlError);
            assert.equal(error.code, code);
            if (message?.startsWith('(')) assert.match(error.message, /^\(network_definition\):1: /);
            else assert.equal(error.message, message);
            return true;
          },
        );
      });
    } else {
      test(`${kind} that libvirt printed for ${name} is printed alike`, () => assert.equal(parse(output), output));
      if (kind === 'volume') continue;
      test(`${kind} ${name} is defined as libvirt defines it`, () =>
        assert.equal(comparable(parse(input), input), comparable(output, input)));
    }
  }
});

describe('a volume', () => {
  test('has its size in bytes from any unit, and its format', () => {
    const text = "<volume><name>v</name><capacity unit='MiB'>10</capacity><target><format type='qcow2'/></target></volume>";
    assert.equal(parseVolume(text).capacity, 10485760);
    assert.equal(volumeFormatOf(parseVolume(text)), 'qcow2');
    assert.equal(volumeFormatOf(parseVolume('<volume><name>v</name><capacity>1</capacity></volume>')), 'raw');
  });
});

describe('a secret', () => {
  test('is found by what it is for', () => {
    const text = "<secret><usage type='ceph'><name>client.admin</name></usage></secret>";
    assert.equal(secretUsageId(parseSecret(text)), 'client.admin');
  });
});

describe('unknown parts of other documents', () => {
  test('are kept', () => {
    for (const [kind, text] of [
      ['network', "<network><name>n</name><new x='1'/></network>"],
      ['pool', "<pool type='dir'><name>p</name><target><path>/p</path><new x='1'/></target></pool>"],
      ['volume', "<volume><name>v</name><capacity>1</capacity><new x='1'/></volume>"],
      ['secret', "<secret><usage type='ceph'><name>c</name><new x='1'/></usage></secret>"],
    ] as const) {
      const printed = define[kind]!(text);
      assert.ok(printed.includes("<new x='1'/>"), kind);
      assert.equal(parseXml(printed).name, kind);
    }
  });
});
