// VNC under TLS: VeNCrypt with certificates and anonymous, and WebSocket's own.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { connect, type TLSSocket } from 'node:tls';
import { InputRouter } from '../../display/input.ts';
import { Screen } from '../../display/screen.ts';
import type { VncServerOptions } from '../../display/vnc.ts';
import { scramLine } from '../../rpc/scram.ts';
import { ScramClient } from '../../rpc/scram-testing.ts';
import { nodeDaemonHost } from './daemon-host.ts';
import { distinguishedName } from './tls-streams.ts';
import { makeCertificates, noOpenssl } from './tls-testing.ts';
import { des, startVnc } from './vnc.ts';

const LIMIT = { timeout: 120_000, skip: noOpenssl };
const dir = noOpenssl ? '' : makeCertificates();
after(() => {
  if (dir) rmSync(dir, { recursive: true });
});

async function serving(
  o: Partial<Pick<VncServerOptions, 'password' | 'sasl' | 'authorized'>> & {
    readonly verifyPeer?: boolean;
    readonly anonymous?: boolean;
  } = {},
) {
  const reports: string[] = [];
  const server = await startVnc({
    id: 'default',
    name: 'test',
    screen: new Screen(
      { name: 'test', draw: (surface) => surface.resize(64, 32) },
      { now: () => performance.now(), after: (ms, f) => clearTimeout.bind(undefined, setTimeout(f, ms)) },
    ),
    input: new InputRouter(),
    password: o.password ?? false,
    sasl: o.sasl,
    ...(o.authorized ? { authorized: o.authorized } : {}),
    tls: o.anonymous ? { dir: '', anonymous: true, verifyPeer: false } : { dir, verifyPeer: o.verifyPeer ?? false },
    share: 'allow-exclusive',
    listen: { kind: 'tcp', host: '127.0.0.1', port: 0, websocket: 0 },
    event: () => {},
    report: (text) => reports.push(text),
  });
  return { server, reports, ports: server.addresses.map((a) => Number(a.service)) };
}
/** So many bytes; rejects where the other side closes first. */
function take(socket: Socket, count: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const end = (): void => void socket.off('readable', look).off('end', failed).off('close', failed);
    const failed = (): void => {
      end();
      reject(new Error('closed'));
    };
    const look = (): void => {
      const bytes = socket.read(count) as Buffer | null;
      if (bytes?.length !== count) return;
      end();
      resolve(bytes);
    };
    if (socket.destroyed || socket.readableEnded) return failed();
    socket.on('readable', look).on('end', failed).on('close', failed);
    look();
  });
}
/** Up to the moment in which TLS begins, with what it is to be for. */
async function begin(port: number, subtype: number): Promise<Socket> {
  const socket = createConnection(port, '127.0.0.1');
  socket.on('error', () => {});
  await take(socket, 12);
  socket.write('RFB 003.008\n');
  assert.deepEqual([...(await take(socket, 2))], [1, 19]);
  socket.write(Buffer.of(19));
  assert.deepEqual([...(await take(socket, 2))], [0, 2]);
  socket.write(Buffer.of(0, 2));
  const offered = await take(socket, 6);
  assert.deepEqual([offered[0], offered[1]], [0, 1]);
  assert.equal(offered.readUInt32BE(2), subtype);
  const chosen = Buffer.alloc(4);
  chosen.writeUInt32BE(subtype);
  socket.write(chosen);
  assert.equal((await take(socket, 1))[0], 1);
  return socket;
}
const file = (name: string): Buffer => readFileSync(join(dir, name));
async function secured(socket: Socket, own = false): Promise<TLSSocket> {
  const keys = own ? { cert: file('client-cert.pem'), key: file('client-key.pem') } : {};
  const tls = connect({ socket, ca: file('ca-cert.pem'), servername: 'there', ...keys });
  tls.on('error', () => {});
  await once(tls, 'secureConnect');
  return tls;
}
async function picture(tls: Socket): Promise<void> {
  tls.write(Buffer.of(1));
  const init = await take(tls, 24);
  assert.deepEqual([init.readUInt16BE(0), init.readUInt16BE(2)], [64, 32]);
  await take(tls, init.readUInt32BE(20));
  tls.write(Buffer.of(3, 0, 0, 0, 0, 0, 0, 64, 0, 32));
  const head = await take(tls, 16);
  assert.deepEqual([head.readUInt16BE(2), head.readUInt16BE(8), head.readUInt16BE(10)], [1, 64, 32]);
  assert.equal((await take(tls, 64 * 32 * 4)).length, 8192);
}

test('a client sees the picture under TLS, and no one without', LIMIT, async (t) => {
  const { server, ports, reports } = await serving();
  t.after(() => server.close());
  assert.deepEqual([server.vnc.auth, server.vnc.vencrypt], ['vencrypt', 'x509-none']);
  const tls = await secured(await begin(ports[0]!, 260));
  assert.equal((await take(tls, 4)).readUInt32BE(0), 0);
  await picture(tls);
  tls.destroy();
  // A security type that was not offered, an old version, and one that goes ahead of TLS.
  const plain = createConnection(ports[0]!, '127.0.0.1').on('error', () => {});
  await take(plain, 12);
  plain.write('RFB 003.008\n');
  await take(plain, 2);
  plain.write(Buffer.of(1));
  assert.equal((await take(plain, 4)).readUInt32BE(0), 1);
  const old = createConnection(ports[0]!, '127.0.0.1').on('error', () => {});
  await take(old, 12);
  old.write('RFB 003.003\n');
  await assert.rejects(take(old, 1), /closed/);
  const ahead = createConnection(ports[0]!, '127.0.0.1').on('error', () => {});
  await take(ahead, 12);
  ahead.write('RFB 003.008\n');
  await take(ahead, 2);
  ahead.write(Buffer.of(19, 0, 2, 0, 0, 1, 4, 1));
  await assert.rejects(async () => {
    for (;;) await take(ahead, 1);
  }, /closed/);
  assert.ok(
    reports.some((line) => /the client did not wait for it/.test(line)),
    reports.join('\n'),
  );
});

test('the password is asked under TLS', LIMIT, async (t) => {
  const { server, ports } = await serving({ password: true });
  t.after(() => server.close());
  server.vnc.setPassword('secret');
  for (const [word, result] of [
    ['secret', 0],
    ['wrong', 1],
  ] as const) {
    const tls = await secured(await begin(ports[0]!, 261));
    const challenge = await take(tls, 16);
    const key = Buffer.alloc(8);
    for (const [i, byte] of [...Buffer.from(word)].entries())
      key[i] = Number.parseInt(byte.toString(2).padStart(8, '0').split('').reverse().join(''), 2);
    tls.write(des(key, challenge));
    assert.equal((await take(tls, 4)).readUInt32BE(0), result);
    if (result === 0) await picture(tls);
    tls.destroy();
  }
});

test('where clients are to be known, one without a certificate of the authority gets no further', LIMIT, async (t) => {
  const { server, ports, reports } = await serving({ verifyPeer: true });
  t.after(() => server.close());
  const tls = await secured(await begin(ports[0]!, 260), true);
  assert.equal((await take(tls, 4)).readUInt32BE(0), 0);
  tls.destroy();
  const stranger = await secured(await begin(ports[0]!, 260)).catch(() => undefined);
  if (stranger) await assert.rejects(take(stranger, 4), /closed/);
  assert.ok(
    reports.some((line) => /Cannot make TLS/.test(line)),
    reports.join('\n'),
  );
});

test('who has a certificate is named, and comes in only where that name may', LIMIT, async (t) => {
  // As QEMU 7.2 shows the certificate of this subject.
  assert.equal(
    distinguishedName('C=GB\nOU=x + O=Acme\\, Inc.\nL=Köln\nemailAddress=a@b.c\nUID=u1\nCN=fred \\"f\\" \\<a\\>\\;b=c#'),
    'C=GB,OU=x+O=Acme\\, Inc.,L=Köln,EMAIL=a@b.c,UID=u1,CN=fred \\"f\\" \\<a\\>\\;b=c#',
  );
  const asked: (string | undefined)[] = [];
  let may = true;
  const authorized = (_: string, name: string | undefined): boolean => {
    asked.push(name);
    return may;
  };
  const { server, ports, reports } = await serving({ verifyPeer: true, authorized });
  t.after(() => server.close());
  const name = 'CN=client';
  const keys = { ca: file('ca-cert.pem'), servername: 'there', cert: file('client-cert.pem'), key: file('client-key.pem') };
  const upgrade =
    'GET / HTTP/1.1\r\nHost: there\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n' +
    'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: binary\r\n\r\n';
  const web = async (): Promise<TLSSocket> => {
    const socket = connect({ port: ports[1]!, host: '127.0.0.1', ...keys });
    socket.on('error', () => {});
    await once(socket, 'secureConnect');
    socket.write(upgrade);
    let got = '';
    while (!got.endsWith('\r\n\r\n')) got += (await take(socket, 1)).toString();
    return socket;
  };
  const first = await secured(await begin(ports[0]!, 260), true);
  assert.equal((await take(first, 4)).readUInt32BE(0), 0);
  const second = await web();
  await take(second, 14);
  assert.deepEqual(server.vnc.clients().map((c) => c.x509_dname), [name, name]); // biome-ignore format: one line
  may = false;
  const third = await secured(await begin(ports[0]!, 260), true);
  await assert.rejects(take(third, 4), /closed/);
  await assert.rejects(take(await web(), 14), /closed/);
  assert.deepEqual(asked, [name, name, name, name]);
  assert.equal(reports.filter((line) => line.includes(`${name} is not authorized`)).length, 2, reports.join('\n'));
  for (const socket of [first, second]) socket.destroy();
});

test('SASL is asked under TLS, of users in a file that is read for each', LIMIT, async (t) => {
  const conf = mkdtempSync(join(tmpdir(), 'nonroot-sasl-'));
  const before = process.env['SASL_CONF_PATH'];
  process.env['SASL_CONF_PATH'] = conf;
  t.after(() => {
    if (before === undefined) delete process.env['SASL_CONF_PATH'];
    else process.env['SASL_CONF_PATH'] = before;
    rmSync(conf, { recursive: true });
  });
  await assert.rejects(serving({ sasl: true }), /^Error: Cannot ask VNC clients by SASL: no users_file: PATH in .*qemu\.conf/);
  writeFileSync(join(conf, 'qemu.conf'), `mech_list: scram-sha-256\nusers_file: ${join(conf, 'users')}\n`);
  await assert.rejects(serving({ sasl: true }), /^Error: Cannot read the users of SASL in .*users/);
  writeFileSync(join(conf, 'users'), '# nobody\n');
  const { server, ports, reports } = await serving({ sasl: true });
  t.after(() => server.close());
  assert.deepEqual([server.vnc.auth, server.vnc.vencrypt], ['vencrypt', 'x509-sasl']);
  const { crypto } = nodeDaemonHost(() => {});
  const line = await scramLine(crypto, 'fred', 'secret');
  for (const known of [true, false]) {
    writeFileSync(join(conf, 'users'), known ? `${line}\n` : '');
    const tls = await secured(await begin(ports[0]!, 263));
    const heard = async (): Promise<string> => (await take(tls, (await take(tls, 4)).readUInt32BE(0))).toString();
    const counted = (text: string): Buffer => {
      const bytes = Buffer.from(`\0\0\0\0${text}`);
      bytes.writeUInt32BE(bytes.length - 4);
      return bytes;
    };
    assert.equal(await heard(), 'SCRAM-SHA-256');
    const talk = new ScramClient(crypto, 'fred', 'secret', 'abc');
    tls.write(Buffer.concat([counted('SCRAM-SHA-256'), counted(`${talk.first}\0`)]));
    const { message, expected } = await talk.final((await heard()).slice(0, -1));
    assert.equal((await take(tls, 1))[0], 0);
    tls.write(counted(`${message}\0`));
    if (known) {
      assert.equal(await heard(), `${expected}\0`);
      assert.deepEqual([...(await take(tls, 5))], [1, 0, 0, 0, 0]);
      await picture(tls);
      assert.deepEqual(
        server.vnc.clients().map((c) => c.sasl_username),
        ['fred'],
      );
    } else await assert.rejects(take(tls, 4), /closed/);
    tls.destroy();
  }
  assert.ok(
    reports.some((text) => /SASL does not know it$/.test(text)),
    reports.join('\n'),
  );
});

for (const [kind, ciphers] of [
  ['Diffie-Hellman', 'ADH'],
  ['elliptic curves', 'AECDH'],
] as const) {
  test(`keys are agreed on without certificates: ${kind}`, { timeout: 120_000 }, async (t) => {
    const { server, ports, reports } = await serving({ anonymous: true, password: true });
    t.after(() => server.close());
    assert.equal(server.vnc.vencrypt, 'tls-vnc');
    server.vnc.setPassword('secret');
    const socket = await begin(ports[0]!, 258);
    const tls = connect({ socket, ciphers: `${ciphers}:@SECLEVEL=0`, maxVersion: 'TLSv1.2', rejectUnauthorized: false });
    tls.on('error', (error) => reports.push(error.message));
    await once(tls, 'secureConnect');
    assert.match(tls.getCipher().name, new RegExp(`^${ciphers}-`));
    assert.equal((await take(tls, 16)).length, 16, reports.join('\n'));
    tls.destroy();
  });
}

test('WebSocket is served under TLS of its own', LIMIT, async (t) => {
  const { server, ports } = await serving();
  t.after(() => server.close());
  const tls = connect({ port: ports[1]!, host: '127.0.0.1', ca: file('ca-cert.pem'), servername: 'there' });
  await once(tls, 'secureConnect');
  tls.write(
    'GET / HTTP/1.1\r\nHost: there\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n' +
      'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: binary\r\n\r\n',
  );
  let got = Buffer.alloc(0);
  while (!got.includes('RFB 003.008\n')) got = Buffer.concat([got, await take(tls, 1)]);
  assert.match(got.toString('latin1'), /^HTTP\/1\.1 101 /);
  tls.destroy();
});
