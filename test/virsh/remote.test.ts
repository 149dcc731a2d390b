// Clients from elsewhere: TCP on loopback, TLS with certificates, SASL's SCRAM, the list of who may come in; python3-libvirt and virt-install.
import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { connectUri } from '../../src/daemon/peer.ts';
import { nodeDaemonHost } from '../../src/host/node/daemon-host.ts';
import { nodeSockets } from '../../src/host/node/daemon-sockets.ts';
import { remote } from '../../src/rpc/libvirt/programs.ts';
import { scramLine } from '../../src/rpc/scram.ts';
import { makeDisk } from './client.ts';
import { missing, type Result, TestDaemon } from './daemon-process.ts';

const skip = spawnSync('openssl', ['version']).status === 0 ? false : 'openssl is not installed';
const noVirsh = missing('virsh');

const run = (program: string, args: readonly string[], cwd?: string): Promise<Result> =>
  new Promise((resolve) => {
    execFile(program, args, { timeout: 120_000, cwd, env: { ...process.env, LC_ALL: 'C' } }, (error, out, err) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
      resolve({ code, out: `${out}${err}`.trim() });
    });
  });

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** An authority, and certificates for the server and a client, as libvirt's `pkipath` has them. */
async function makeCertificates(directory: string): Promise<void> {
  mkdirSync(directory, { recursive: true });
  const openssl = async (...args: string[]): Promise<void> => {
    const { code, out } = await run('openssl', args, directory);
    assert.equal(code, 0, out);
  };
  const key = ['-newkey', 'rsa:2048', '-nodes'];
  await openssl(
    'req',
    '-x509',
    ...key,
    '-keyout',
    'cakey.pem',
    '-out',
    'cacert.pem',
    '-days',
    '2',
    '-subj',
    '/CN=test authority',
  );
  writeFileSync(join(directory, 'ext'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n');
  for (const who of ['server', 'client']) {
    await openssl('req', ...key, '-keyout', `${who}key.pem`, '-out', `${who}.csr`, '-subj', `/O=nonroot/CN=${who}`);
    const signed = ['-CA', 'cacert.pem', '-CAkey', 'cakey.pem', '-CAcreateserial', '-days', '2', '-extfile', 'ext'];
    await openssl('x509', '-req', '-in', `${who}.csr`, ...signed, '-out', `${who}cert.pem`);
  }
}

describe('a daemon that serves TCP and TLS', { skip, timeout: 400_000 }, () => {
  let daemon: TestDaemon;
  let [tcp, tls]: number[] = [];
  const start = async (settings: string): Promise<void> => {
    writeFileSync(join(daemon.directory, 'conf'), settings);
    await daemon.start();
  };
  const pki = (): string => join(daemon.directory, 'pki');
  const certificates = (): string =>
    `ca_file = "${pki()}/cacert.pem"\ncert_file = "${pki()}/servercert.pem"\nkey_file = "${pki()}/serverkey.pem"\n`;
  const tlsUri = (more = ''): string => `qemu+tls://localhost:${tls}/system?pkipath=${pki()}${more}`;
  const ours = (who: string) => ({
    ca: join(pki(), 'cacert.pem'),
    certificate: join(pki(), `${who}cert.pem`),
    key: join(pki(), `${who}key.pem`),
  });

  before(async () => {
    [tcp, tls] = [await freePort(), await freePort()];
    const scratch = new TestDaemon();
    daemon = new TestDaemon(
      ['--config', join(scratch.directory, 'conf'), '--listen', `tcp://127.0.0.1:${tcp},tls://127.0.0.1:${tls}`],
      scratch.directory,
    );
    await makeCertificates(pki());
    const line = await scramLine(nodeDaemonHost(() => {}).crypto, 'fred', 'sesame');
    writeFileSync(join(daemon.directory, 'users'), `${line}\n`);
  });
  after(() => daemon.close());

  test('takes those whose certificates its authority has signed and the list names', async () => {
    await start(`${certificates()}allow = [ "O=nonroot,CN=cl*" ]\nhostname = "far"\n`);
    const client = await connectUri(nodeSockets, `qemu+tls://localhost:${tls}/system`, '', ours('client'));
    assert.deepEqual(await client.call(remote, 'connectGetHostname'), { hostname: 'far' });
    assert.deepEqual(await client.call(remote, 'connectIsSecure'), { secure: true });
    client.close();
    await assert.rejects(
      connectUri(nodeSockets, `qemu+tls://localhost:${tls}/system`, '', ours('server')),
      /./,
      'a name that the list has not',
    );
    const plain = await connectUri(nodeSockets, `qemu+tcp://127.0.0.1:${tcp}/system`, '', undefined);
    assert.deepEqual(await plain.call(remote, 'connectIsSecure'), { secure: false });
    plain.close();
    if (noVirsh === false) assert.equal((await run('virsh', ['-c', tlsUri(), 'hostname'])).out, 'far');
    await daemon.kill();
  });

  test('asks for a name and password by SCRAM', { skip: noVirsh }, async () => {
    await start(
      `${certificates()}auth_tls = "sasl"\nusers_file = "${daemon.directory}/users"\nallow = [ "fred" ]\nhostname = "far"\n`,
    );
    const file = join(daemon.directory, 'auth.conf');
    const credentials = (password: string): void =>
      writeFileSync(file, `[credentials-x]\nauthname=fred\npassword=${password}\n[auth-libvirt-localhost]\ncredentials=x\n`);
    credentials('sesame');
    const good = await run('virsh', ['-c', tlsUri(`&authfile=${file}`), 'hostname']);
    assert.deepEqual(good, { code: 0, out: 'far' });
    credentials('wrong');
    const bad = await run('virsh', ['-c', tlsUri(`&authfile=${file}`), 'hostname']);
    assert.equal(bad.code, 1);
    assert.match(bad.out, /authentication failed/);
    await assert.rejects(
      connectUri(nodeSockets, `qemu+tls://localhost:${tls}/system`, '', ours('client')),
      /authentication required/,
    );
    await daemon.kill();
  });

  test('does not listen without TLS where others could come', async () => {
    const open = new TestDaemon(['--listen', `tcp://0.0.0.0:${tcp}`]);
    await assert.rejects(open.start(), /without TLS only loopback addresses are accepted/);
    await open.close();
  });
});

describe("libvirt's own tools", { timeout: 300_000 }, () => {
  const daemon = new TestDaemon();
  before(() => daemon.start());
  after(() => daemon.close());
  const python = '/usr/bin/python3';
  const noPython = spawnSync(python, ['-c', 'import libvirt']).status === 0 ? false : 'python3-libvirt is not installed';
  const noInstall = missing('virt-install', 'qemu-img');

  test('python3-libvirt goes through domains, streams, storage and events', { skip: noPython }, async () => {
    const script = new URL('client.py', import.meta.url).pathname;
    const { code, out } = await run(python, [script, daemon.uri, daemon.directory]);
    assert.equal(code, 0, `${out}\n${daemon.said}`);
    assert.match(out, /^all done$/m);
  });

  test('virt-install imports a disk and virt-xml changes it', { skip: noInstall }, async () => {
    const disk = join(daemon.directory, 'import.qcow2');
    makeDisk(disk, '64M');
    const common = ['--connect', daemon.uri];
    const what = ['--name', 'imported', '--memory', '64', '--import', '--disk', disk, '--network', 'none', '--graphics', 'vnc'];
    const how = ['--osinfo', 'detect=off,require=off', '--virt-type', 'qemu', '--noautoconsole'];
    const made = await run('virt-install', [...common, ...what, ...how]);
    assert.equal(made.code, 0, made.out);
    assert.match((await run('virsh', ['-c', daemon.uri, 'list'])).out, /imported +running/);
    await run('virsh', ['-c', daemon.uri, 'destroy', 'imported']);
    const changed = await run('virt-xml', [...common, 'imported', '--edit', '--memory', '96']);
    assert.equal(changed.code, 0, changed.out);
    assert.match((await run('virsh', ['-c', daemon.uri, 'dumpxml', 'imported'])).out, /98304/);
    assert.equal((await run('virsh', ['-c', daemon.uri, 'undefine', 'imported'])).code, 0);
  });
});
