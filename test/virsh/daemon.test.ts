// The daemon with real emulators: it is killed and comes back, clients misbehave, many guests run, events come in order.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { domainEventIds } from '../../src/rpc/libvirt/events.ts';
import { remote } from '../../src/rpc/libvirt/programs.ts';
import { Client, GuestConsole, idleGuest, linuxFiles, linuxGuest, makeDisk, state, until, uuidOf } from './client.ts';
import { missing, realEmulator, TestDaemon } from './daemon-process.ts';

const skip = missing(realEmulator, 'qemu-img');

describe('a daemon with QEMU', { skip, timeout: 600_000 }, () => {
  const daemon = new TestDaemon();
  let client: Client;
  before(async () => {
    await daemon.start();
    client = await Client.connect(daemon.uri);
  });
  after(async () => {
    client?.close();
    await daemon.close();
  });

  test('that is killed finds its guests again, and what became of them', async () => {
    const names = ['runs', 'paused', 'gone'];
    for (const [i, name] of names.entries()) {
      const dom = await client.define(idleGuest(name, uuidOf(i)));
      await client.start(dom, name === 'paused' ? 1 : 0);
    }
    const transient = idleGuest('transient', uuidOf(9));
    await client.rpc.call(remote, 'domainCreateXml', { xml: transient, flags: 0 });
    const before = daemon.emulators().length;
    assert.equal(before, 4);
    await daemon.kill();
    assert.equal(daemon.emulators().length, 4, 'guests outlive the daemon');
    const gone = daemon.emulators().find((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('guest=gone'));
    process.kill(gone!, 'SIGKILL');
    client.close();
    await daemon.start();
    client = await Client.connect(daemon.uri);
    assert.deepEqual(await client.names(1), ['paused', 'runs', 'transient']);
    assert.equal(await client.state('runs'), state.running);
    assert.equal(await client.state('paused'), state.paused);
    assert.equal(await client.state('gone'), state.shutoff);
    const dom = await client.find('paused');
    await client.rpc.call(remote, 'domainResume', { dom });
    assert.equal(await client.state('paused'), state.running);
    for (const name of ['runs', 'paused', 'transient'])
      await client.rpc.call(remote, 'domainDestroy', { dom: await client.find(name) });
    assert.deepEqual(await client.names(), ['gone', 'paused', 'runs']);
    for (const name of names) await client.rpc.call(remote, 'domainUndefine', { dom: await client.find(name) });
    assert.deepEqual(daemon.emulators(), []);
  });

  test('has its directory for itself', async () => {
    const second = new TestDaemon([], daemon.directory);
    await assert.rejects(second.start(), /another nonrootd uses/);
    assert.deepEqual(await client.names(), [], 'the first one still serves');
  });

  test('drops clients that send what is no packet, and serves the others', async () => {
    const send = async (bytes: Uint8Array): Promise<boolean> => {
      const socket = connect(daemon.socket);
      await once(socket, 'connect');
      const closed = new Promise<boolean>((resolve) => {
        socket.once('close', () => resolve(true));
        setTimeout(() => resolve(false), 5000).unref();
      });
      socket.on('error', () => {});
      socket.write(bytes);
      const result = await closed;
      socket.destroy();
      return result;
    };
    assert.ok(await send(Buffer.alloc(5000, 0xff)), 'a length of 4 GiB');
    assert.ok(await send(Buffer.from('GET / HTTP/1.1\r\n\r\n')), 'another protocol');
    assert.ok(await send(Buffer.from([0, 0, 0, 4])), 'a length that is too small');
    // Half a packet, and a client that leaves in the middle of it.
    const half = connect(daemon.socket);
    await once(half, 'connect');
    half.write(Buffer.from([0, 0, 1, 0, 0x20, 0, 0x80, 0x86]));
    assert.deepEqual(await client.names(), []);
    half.destroy();
    assert.deepEqual(await client.names(), []);
  });

  test('is not held up by a client that asks and never reads', async () => {
    const socket = connect(daemon.socket);
    await once(socket, 'connect');
    socket.on('error', () => {});
    const call = (procedure: number, body: number[], serial: number): Buffer => {
      const packet = Buffer.alloc(28 + body.length);
      packet.writeUInt32BE(packet.length, 0);
      for (const [i, word] of [0x2000_8086, 1, procedure, 0, serial, 0].entries()) packet.writeUInt32BE(word, 4 + 4 * i);
      packet.set(body, 28);
      return packet;
    };
    socket.write(call(66, [], 0));
    socket.write(call(1, [0, 0, 0, 0, 0, 0, 0, 0], 1));
    socket.pause();
    // Capabilities are some tens of kilobytes each; nobody takes them.
    for (let serial = 2; serial < 3000; serial++) socket.write(call(7, [], serial));
    for (let i = 0; i < 20; i++) assert.deepEqual(await client.names(), []);
    socket.destroy();
  });

  test('serves 200 clients at a time', async () => {
    const clients = await Promise.all(Array.from({ length: 200 }, () => Client.connect(daemon.uri)));
    const answers = await Promise.all(clients.map((one) => one.names()));
    assert.equal(answers.length, 200);
    for (const one of clients) one.close();
  });

  test('keeps 50 guests, 10 of which run', async () => {
    const doms = await Promise.all(Array.from({ length: 50 }, (_, i) => client.define(idleGuest(`many${i}`, uuidOf(100 + i)))));
    await Promise.all(doms.slice(0, 10).map((dom) => client.start(dom)));
    assert.equal((await client.names(1)).length, 10);
    assert.equal((await client.names()).length, 50);
    assert.equal(daemon.emulators().length, 10);
    const { records } = await client.rpc.call(remote, 'connectGetAllDomainStats', { doms: [], stats: 0, flags: 1 });
    assert.equal(records.length, 10);
    await Promise.all(doms.slice(0, 10).map((dom) => client.rpc.call(remote, 'domainDestroy', { dom })));
    await Promise.all(doms.map((dom) => client.rpc.call(remote, 'domainUndefine', { dom })));
    assert.deepEqual(await client.names(), []);
  });

  test('tells each change of a guest once and in order', async () => {
    const seen: string[] = [];
    const listener = await Client.connect(daemon.uri);
    listener.rpc.on(remote, 'domainEventCallbackLifecycle', ({ msg }) => seen.push(`${msg.event}.${msg.detail}`));
    await listener.rpc.call(remote, 'connectDomainEventCallbackRegisterAny', {
      eventId: domainEventIds.lifecycle,
      dom: undefined,
    });
    const dom = await client.define(idleGuest('told', uuidOf(200)));
    await client.start(dom);
    await client.rpc.call(remote, 'domainSuspend', { dom });
    await client.rpc.call(remote, 'domainResume', { dom });
    await client.rpc.call(remote, 'domainManagedSave', { dom, flags: 0 });
    await client.start(dom);
    await client.rpc.call(remote, 'domainDestroy', { dom });
    await client.rpc.call(remote, 'domainUndefine', { dom });
    await until('the last event', () => seen.at(-1) === '1.0');
    // As libvirtd tells it: defined; resumed, started; suspended; resumed; suspended, stopped (saved); started (restored),
    // resumed; shut down, stopped; undefined.
    assert.deepEqual(seen, ['0.0', '4.0', '2.0', '3.0', '4.0', '3.0', '5.4', '2.2', '4.2', '6.2', '5.1', '1.0']);
    listener.close();
  });

  test('ends a guest with the connection that asked for that', async () => {
    const owner = await Client.connect(daemon.uri);
    await owner.rpc.call(remote, 'domainCreateXml', { xml: idleGuest('short', uuidOf(201)), flags: 2 });
    assert.deepEqual(await client.names(), ['short']);
    owner.close();
    await until('the guest is gone', async () => (await client.names()).length === 0);
    assert.deepEqual(daemon.emulators(), []);
  });

  test('lets read-only clients look and not touch', async () => {
    const dom = await client.define(idleGuest('looked-at', uuidOf(202)));
    const reader = await Client.connect(`qemu+unix:///system?socket=${daemon.socket}-ro`);
    assert.deepEqual(await reader.names(), ['looked-at']);
    await assert.rejects(reader.start(dom), /operation forbidden: read only access prevents virDomainCreateWithFlags/);
    await assert.rejects(reader.define(idleGuest('x', uuidOf(203))), /read only access prevents virDomainDefineXMLFlags/);
    reader.close();
    await client.rpc.call(remote, 'domainUndefine', { dom });
  });

  test('shows a Linux guest on its console, plugs a disk in and out, and sees it power off', { timeout: 300_000 }, async (t) => {
    const files = await linuxFiles();
    if (typeof files === 'string') return t.skip(files);
    const [first, second] = ['a', 'b'].map((name) => join(daemon.directory, `${name}.qcow2`));
    makeDisk(first!, '16M');
    makeDisk(second!, '16M');
    const disk = (path: string, dev: string): string =>
      `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${path}'/><target dev='${dev}' bus='virtio'/></disk>`;
    const dom = await client.define(linuxGuest('linux', uuidOf(300), files, disk(first!, 'vda')));
    await client.start(dom);
    const console = await GuestConsole.open(client, dom);
    await console.expect(/nonroot:.*# /);
    await console.send('ls /sys/block; echo one$((1+1))\n');
    await console.expect(/vda[\s\S]*one2/);
    await client.rpc.call(remote, 'domainAttachDeviceFlags', { dom, xml: disk(second!, 'vdb'), flags: 1 });
    await console.send('sleep 1; ls /sys/block | tr "\\n" ,; echo two$((1+1))\n');
    await console.expect(/vda,vdb,two2/);
    await client.rpc.call(remote, 'domainDetachDeviceFlags', { dom, xml: disk(second!, 'vdb'), flags: 1 });
    const { xml } = await client.rpc.call(remote, 'domainGetXmlDesc', { dom, flags: 0 });
    assert.ok(!xml.includes("dev='vdb'"), xml);
    await console.send('poweroff -f\n');
    await until('the guest is off', async () => (await client.state('linux')) === state.shutoff);
    await client.rpc.call(remote, 'domainUndefine', { dom });
  });

  test('leaves nothing of a guest behind', () => {
    const lib = join(daemon.directory, 'state', 'run', 'qemu');
    assert.ok(existsSync(lib));
    assert.deepEqual(daemon.emulators(), []);
  });
});
