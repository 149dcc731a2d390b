// The daemon's small parts, each by itself: configuration, URIs, base 64, who may come in, one change at a time.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { formatBitmap } from '../domain/numa.ts';
import { nodeDaemonHost } from '../host/node/daemon-host.ts';
import { base64, fromBase64 } from '../rpc/base64.ts';
import { parseUsers, scramLine } from '../rpc/scram.ts';
import { manualTimers } from '../rpc/testing.ts';
import { isAllowed } from './auth.ts';
import { ownership } from './capabilities.ts';
import { parseConfig, parseListen } from './config.ts';
import { JobLock } from './guest/job-lock.ts';
import { keyNumber } from './guest/keys.ts';
import { wanted } from './guest/list-flags.ts';
import { parseMigrateUri } from './guest/migration.ts';
import { parseUri } from './peer.ts';
import { admit, apiName, type Session } from './sessions.ts';

describe('the configuration file', () => {
  test('has texts, numbers, lists over lines, and comments', () => {
    const settings = parseConfig(
      '# a comment\nauth_tls = "sasl"\nmax_clients = 20 # more\nallow = [\n "a", # one\n "b=c,d"\n]\n',
      'conf',
    );
    assert.deepEqual(
      [...settings],
      [
        ['auth_tls', 'sasl'],
        ['max_clients', 20],
        ['allow', ['a', 'b=c,d']],
      ],
    );
  });
  test('is refused with the line that is wrong', () => {
    assert.throws(() => parseConfig('\nnosuch = 1\n', 'conf'), /conf: line 2: nosuch is unknown, accepted are listen/);
    assert.throws(() => parseConfig('max_clients = "x"\n', 'conf'), /line 1: max_clients takes a number/);
    assert.throws(() => parseConfig('rubbish\n', 'conf'), /NAME = VALUE/);
  });
});

test('addresses to listen at have a transport, a host and a port', () => {
  assert.deepEqual(parseListen('tcp://127.0.0.1:1234'), { transport: 'tcp', host: '127.0.0.1', port: 1234 });
  assert.deepEqual(parseListen('tls://[::1]'), { transport: 'tls', host: '::1', port: 16_514 });
  assert.throws(() => parseListen('unix:///x'), /accepted are tcp:/);
});

test('URIs are read as libvirt writes them', () => {
  const unix = parseUri('qemu+unix:///system?socket=%2Ftmp%2Fa%20b');
  assert.deepEqual([unix.transport, unix.path, unix.query.get('socket')], ['unix', '/system', '/tmp/a b']);
  const tls = parseUri('qemu+tls://user@[::1]:99/session');
  assert.deepEqual([tls.transport, tls.host, tls.port, tls.path], ['tls', '::1', 99, '/session']);
  assert.equal(parseUri('qemu:///system').transport, 'unix');
  assert.throws(() => parseUri('test:///default'), /cannot use URI test/);
  assert.deepEqual(parseMigrateUri('tcp://host:1'), { host: 'host', port: 1 });
  assert.deepEqual(parseMigrateUri('tcp:[fe80::1]'), { host: '[fe80::1]', port: undefined });
  assert.throws(() => parseMigrateUri('rdma://host'), /unsupported scheme/);
});

test('base 64 goes there and back', () => {
  for (let length = 0; length < 20; length++) {
    const bytes = Uint8Array.from({ length }, (_, i) => (i * 67 + length) & 0xff);
    assert.equal(base64(bytes), Buffer.from(bytes).toString('base64'));
    assert.deepEqual(fromBase64(base64(bytes)), bytes);
  }
});

test('the list of who may come in takes patterns, and everybody when empty', () => {
  assert.ok(isAllowed([], 'anyone'));
  assert.ok(isAllowed(['O=org,CN=*'], 'O=org,CN=client'));
  assert.ok(!isAllowed(['O=org,CN=*'], 'O=other,CN=client'));
  assert.ok(!isAllowed(['a.c'], 'abc'));
});

test("a users file holds no password, and SCRAM's keys", async () => {
  const { crypto } = nodeDaemonHost(() => {});
  const line = await scramLine(crypto, 'fred', 'sesame');
  assert.ok(!line.includes('sesame'));
  const user = parseUsers(`# users\n${line}\nbroken\n`).get('fred');
  assert.equal(user?.iterations, 4096);
  assert.equal(fromBase64(user!.storedKey).length, 32);
});

describe('a domain', () => {
  test('is changed by one call at a time, in order', async () => {
    const timers = manualTimers();
    const lock = new JobLock(timers);
    const order: string[] = [];
    const gate = Promise.withResolvers<void>();
    const first = lock.run('first', async () => {
      await gate.promise;
      order.push('first');
    });
    const second = lock.run('second', async () => void order.push('second'));
    const third = lock.run('third', async () => void order.push('third'));
    assert.equal(lock.owner, 'first');
    gate.resolve();
    await Promise.all([first, second, third]);
    assert.deepEqual(order, ['first', 'second', 'third']);
    assert.equal(lock.owner, undefined);
  });
  test('whose change takes too long refuses those that wait', async () => {
    const timers = manualTimers();
    const lock = new JobLock(timers);
    const gate = Promise.withResolvers<void>();
    const first = lock.run('Save', () => gate.promise);
    const second = lock.run('second', async () => {});
    timers.advance(30_000);
    await assert.rejects(second, /Timed out during operation: cannot acquire state change lock .*Save/);
    gate.resolve();
    await first;
    await lock.run('third', async () => {});
  });
  test('of which a change fails can be changed again', async () => {
    const lock = new JobLock(manualTimers());
    await assert.rejects(
      lock.run('fails', () => Promise.reject(new Error('no'))),
      /no/,
    );
    assert.equal(await lock.run('works', async () => 1), 1);
  });
});

test('flags of lists choose within groups', () => {
  const groups = [
    [
      [1, (n: number) => n > 0],
      [2, (n: number) => n <= 0],
    ],
    [[4, (n: number) => n % 2 === 0]],
  ] as const;
  assert.ok(wanted(3, 0, groups));
  assert.ok(wanted(3, 1, groups));
  assert.ok(!wanted(3, 2, groups));
  assert.ok(wanted(3, 3, groups));
  assert.ok(!wanted(3, 5, groups));
  assert.ok(wanted(4, 5, groups));
});

test('keys have numbers in each set of codes', () => {
  assert.equal(keyNumber(0, 30), 30);
  assert.equal(keyNumber(0, 103), 0xc8);
  assert.equal(keyNumber(9, 0xc8), 0xc8);
  assert.throws(() => keyNumber(0, 500), /cannot translate keycode 500/);
  assert.throws(() => keyNumber(5, 1), /not supported/);
});

test('sets of CPUs are written short', () => {
  assert.equal(formatBitmap([0, 1, 2, 5, 7, 8]), '0-2,5,7-8');
  assert.equal(formatBitmap([3]), '3');
});

describe('a client', () => {
  const session = (changes: Partial<Session>): Session => ({
    client: { transport: 'unix', address: '', readOnly: false },
    opened: true,
    readOnly: false,
    authentication: 'none',
    user: undefined,
    autodestroy: new Set(),
    wantsCloseMessage: false,
    onClose: new Set(),
    sasl: undefined,
    ...changes,
  });
  test('opens before it asks', () => {
    assert.throws(() => admit(session({ opened: false }), 'domainLookupByName'), /connection not open/);
    admit(session({ opened: false }), 'connectSupportsFeature');
    admit(session({ opened: false }), 'authList');
  });
  test('says who it is before it opens, where that is asked', () => {
    assert.throws(() => admit(session({ opened: false, authentication: 'sasl' }), 'connectOpen'), /authentication required/);
    admit(session({ opened: false, authentication: 'sasl' }), 'authSaslStart');
    admit(session({ opened: false, authentication: 'done' }), 'connectOpen');
  });
  test('that is read-only changes nothing', () => {
    const reader = session({ readOnly: true });
    const looks = [
      'domainGetXmlDesc',
      'connectListAllDomains',
      'domainGetState',
      'storagePoolGetInfo',
      'networkGetXmlDesc',
      'nodeGetInfo',
    ];
    const changes = [
      'domainCreate',
      'domainDestroy',
      'domainSetMetadata',
      'storageVolDelete',
      'networkUpdate',
      'domainOpenConsole',
    ];
    for (const name of [...looks, 'domainSnapshotGetXmlDesc', 'connectDomainEventCallbackRegisterAny']) admit(reader, name);
    for (const name of [...changes, 'secretGetValue', 'domainMigratePerform3Params', 'domainSnapshotDelete', 'domainSave']) {
      assert.throws(() => admit(reader, name), new RegExp(`read only access prevents ${apiName(name)}`));
    }
    assert.equal(apiName('domainDefineXml'), 'virDomainDefineXML');
  });
});

test('the security model dac is there where the daemon is root’s, with the user of its emulators', () => {
  const labels = (label: string) => [{ model: 'dac', doi: '0', labels: ['kvm', 'qemu'].map((type) => ({ type, label })) }];
  assert.deepEqual(ownership(0, undefined), labels('+0:+0'));
  assert.deepEqual(ownership(0, { uid: 64055, gid: 108 }), labels('+64055:+108'));
  assert.deepEqual(ownership(1000, undefined), []);
});
