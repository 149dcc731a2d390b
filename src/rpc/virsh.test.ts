// A real virsh against our server, over a unix socket.
import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { libvirtError } from './libvirt/errors.ts';
import { qemu, remote } from './libvirt/programs.ts';
import type { TypedParam } from './libvirt/types.ts';
import { ServerConnection, service } from './server.ts';
import type { ByteDuplex } from './transport.ts';

const skip = spawnSync('virsh', ['--version']).status === 0 ? false : 'virsh is not installed';
const folder = mkdtempSync(join(tmpdir(), 'rpc-'));
const path = join(folder, 'sock');
const running = { name: 'alpha', uuid: '11111111-2222-3333-4444-555555555555', id: 1 };
const off = { name: 'beta', uuid: 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee', id: -1 };
const data = Buffer.alloc(600_000, 'nonroot');
let uploaded: Buffer = Buffer.alloc(0);

const overSocket = (socket: Socket): ByteDuplex => ({
  input: socket,
  async write(bytes) {
    if (!socket.write(bytes)) await once(socket, 'drain');
  },
  close: () => void socket.end(),
});
const param = (field: string, value: TypedParam['value']): TypedParam => ({ field, value });

const services = [
  service(remote, {
    authList: () => ({ types: ['none'] }),
    connectSupportsFeature: ({ feature }) => ({ supported: [10, 14, 15].includes(feature) }),
    connectOpen: () => {},
    connectClose: (_, call) => call.connection.closeWhenIdle(),
    connectRegisterCloseCallback: () => {},
    connectUnregisterCloseCallback: () => {},
    connectGetHostname: () => ({ hostname: 'höst' }),
    connectListAllDomains: () => ({ domains: [running, off], ret: 2 }),
    domainLookupByName({ name }) {
      if (name === 'alpha') return { dom: running };
      throw libvirtError('noDomain', 'qemu', `no domain with matching name '${name}'`);
    },
    domainGetState: ({ dom }) => ({ state: dom.id < 0 ? 5 : 1, reason: 1 }),
    domainSuspend: () => {
      throw libvirtError('operationInvalid', 'domain', 'domain is not running');
    },
    connectGetAllDomainStats: () => ({
      records: [
        {
          dom: running,
          params: [
            param('a.int', { type: 'int', value: -1 }),
            param('a.ullong', { type: 'ullong', value: (1n << 64n) - 1n }),
            param('a.bool', { type: 'boolean', value: true }),
            param('a.double', { type: 'double', value: 0.5 }),
            param('a.string', { type: 'string', value: 'text' }),
          ],
        },
      ],
    }),
    connectDomainEventCallbackRegisterAny(_, call) {
      const msg = { dom: running, event: 3, detail: 0 };
      setTimeout(() => call.connection.notify(remote, 'domainEventCallbackLifecycle', { callbackId: 1, msg }), 50);
      return { callbackId: 1 };
    },
    connectDomainEventCallbackDeregisterAny: () => {},
    storagePoolLookupByName: ({ name }) => ({ pool: { name, uuid: running.uuid } }),
    storagePoolIsActive: () => ({ active: true }),
    storageVolLookupByName: ({ pool, name }) => ({ vol: { pool: pool.name, name, key: name } }),
    storageVolDownload: (_, call) => call.stream((s) => s.write(data)),
    storageVolUpload: (_, call) =>
      call.stream(async (s) => {
        const parts: Uint8Array[] = [];
        for await (const item of s) if (item instanceof Uint8Array) parts.push(item);
        uploaded = Buffer.concat(parts);
      }),
  }),
  service(qemu, { domainMonitorCommand: ({ dom, cmd, flags }) => ({ result: `${dom.name}: ${cmd} ${flags}` }) }),
];
const server = createServer((socket) => new ServerConnection(overSocket(socket), services));
before(async () => {
  server.listen(path);
  await once(server, 'listening');
});
after(() => {
  server.close();
  rmSync(folder, { recursive: true });
});

/** Exit code, and both outputs without their blank lines. */
function virsh(...args: string[]): Promise<{ code: number; out: string[] }> {
  const uri = `qemu+unix:///system?socket=${path}`;
  return new Promise((resolve) => {
    execFile(
      'virsh',
      ['-q', '-c', uri, ...args],
      { timeout: 20_000, env: { ...process.env, LC_ALL: 'C' } },
      (error, stdout, stderr) => {
        const out = `${stdout}${stderr}`.split('\n').filter((line) => line.trim() !== '');
        resolve({
          code: error === null ? 0 : ((error.code as number | undefined) ?? -1),
          out: out.map((l) => l.trim().replace(/\s+/g, ' ')),
        });
      },
    );
  });
}

test('virsh lists domains and their states', { skip }, async () => {
  assert.deepEqual(await virsh('list', '--all'), { code: 0, out: ['1 alpha running', '- beta shut off'] });
});

test('virsh prints our errors as it prints those of libvirtd', { skip }, async () => {
  assert.deepEqual(await virsh('suspend', 'alpha'), {
    code: 1,
    out: ["error: Failed to suspend domain 'alpha'", 'error: Requested operation is not valid: domain is not running'],
  });
  assert.deepEqual((await virsh('domstate', 'nosuch')).out, ["error: failed to get domain 'nosuch'"]);
  assert.deepEqual((await virsh('nodeinfo')).out.at(-1), 'error: unknown procedure: 6');
});

test('virsh prints typed parameters of every kind', { skip }, async () => {
  assert.deepEqual((await virsh('domstats', 'alpha')).out, [
    "Domain: 'alpha'",
    'a.int=-1',
    'a.ullong=18446744073709551615',
    'a.bool=yes',
    'a.double=0.500000',
    'a.string=text',
  ]);
});

test('virsh waits for an event and gets it', { skip }, async () => {
  // virsh's own threads race: the one that took the event may still hold its domain when the other one disconnects.
  const { out } = await virsh('event', 'alpha', 'lifecycle', '--timeout', '10');
  const told = out.filter((line) => line !== 'error: One or more references were leaked after disconnect from the hypervisor');
  assert.deepEqual(told, ["event 'lifecycle' for domain 'alpha': Suspended Paused", 'events received: 1']);
});

test('virsh downloads and uploads a volume', { skip }, async () => {
  const file = join(folder, 'volume');
  assert.deepEqual(await virsh('vol-download', '--pool', 'p', 'v', file), { code: 0, out: [] });
  assert.ok(readFileSync(file).equals(data));
  assert.deepEqual(await virsh('vol-upload', '--pool', 'p', 'v', file), { code: 0, out: [] });
  assert.ok(uploaded.equals(data));
});

test("virsh speaks qemu's program", { skip }, async () => {
  assert.deepEqual((await virsh('qemu-monitor-command', 'alpha', '--hmp', 'info')).out, ['alpha: info 1']);
});
