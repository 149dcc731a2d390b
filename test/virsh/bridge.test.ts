// Networks as bridges with dnsmasq and nftables, under a daemon of root in a network namespace of its own; a guest of ours gets its lease over a tap.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { remote } from '../../src/rpc/libvirt/programs.ts';
import { Client, GuestConsole, linuxFiles, linuxGuest, state, until, uuidOf } from './client.ts';
import { missing, ourEmulator, TestDaemon } from './daemon-process.ts';

/** A card may use its own MAC, the first address that it uses, and ARP and DHCP. */
const ownAddress = `<filter name='own-address'>
  <rule action='drop' direction='out' priority='-900'><mac match='no' srcmacaddr='$MAC'/></rule>
  <rule action='accept' direction='out' priority='-800'><ip srcipaddr='0.0.0.0' protocol='udp'/></rule>
  <rule action='accept' direction='out' priority='-700'><ip srcipaddr='$IP'/></rule>
  <rule action='accept' direction='out' priority='-600'><arp arpsrcmacaddr='$MAC' arpsrcipaddr='$IP'/></rule>
  <rule action='drop' direction='out' priority='1000'/></filter>`;

const inNamespace = ['unshare', '-n', '--'];
const able = (...words: readonly string[]): boolean =>
  spawnSync(inNamespace[0]!, [...inNamespace.slice(1), ...words]).status === 0;
const skip =
  process.getuid?.() !== 0
    ? 'only root makes bridges'
    : missing('dnsmasq', 'nft') ||
      (able('ip', 'link', 'add', 'name', 'probe', 'type', 'bridge') ? false : 'this host allows no bridge in a namespace') ||
      (able('nft', 'add', 'table', 'inet', 'probe') ? false : 'this host has no nftables') ||
      (able('ip', 'tuntap', 'add', 'dev', 'probe', 'mode', 'tap') ? false : 'this host has no tap devices');

describe('a network as a bridge', { skip, timeout: 300_000 }, () => {
  // The namespace lives as long as this process, and so longer than a daemon that is killed.
  const keeper = spawn('unshare', ['-n', '-m', 'sh', '-c', 'mount -t sysfs none /sys && exec sleep 600'], { stdio: 'ignore' });
  const enter = ['nsenter', '-t', String(keeper.pid), '-n', '-m', '--'];
  const daemon = new TestDaemon([], mkdtempSync(join(tmpdir(), 'nonrootd-')), enter);
  let client: Client;
  const connect = async (): Promise<void> => {
    await daemon.start();
    client = await Client.connect(daemon.uri);
  };
  /** A program among what the daemon sees; its output, or its error. */
  const there = (...words: readonly string[]): string => {
    const { stdout, stderr } = spawnSync(enter[0]!, [...enter.slice(1), ...words], { encoding: 'utf8' });
    return stdout + stderr;
  };
  const ownFilter = async () => (await client.rpc.call(remote, 'nwfilterLookupByName', { name: 'own-address' })).nwfilter;
  const find = async () => (await client.rpc.call(remote, 'networkLookupByName', { name: 'default' })).net;

  before(async () => {
    await until('there is a namespace', () => there('ls', '/sys/class/net').trim() === 'lo');
    await connect();
  });
  after(async () => {
    client?.close();
    await daemon.close();
    // What a test that failed has left: its bridge goes with the namespace.
    spawnSync('pkill', ['-f', `dnsmasq.*${daemon.directory}/`]);
    keeper.kill('SIGKILL');
  });

  test('gives a guest its address, and outlives the daemon', async (t) => {
    const files = await linuxFiles();
    if (typeof files === 'string') return t.skip(files);
    const net = await find();
    assert.deepEqual(
      await client.rpc.call(remote, 'networkIsActive', { net }),
      { active: false },
      'root says when a bridge is made',
    );
    await client.rpc.call(remote, 'networkCreate', { net });
    assert.match(there('ip', 'address', 'show', 'dev', 'virbr0'), /inet 192\.168\.122\.1\/24/);
    assert.match(there('nft', 'list', 'ruleset'), /ip saddr 192\.168\.122\.0\/24 ip daddr != 192\.168\.122\.0\/24 masquerade/);

    await client.rpc.call(remote, 'nwfilterDefineXml', { xml: ownAddress });
    const filter = `<filterref filter='own-address'/>`;
    const card = `<interface type='network'><mac address='52:54:00:11:22:33'/><source network='default'/><model type='virtio'/>${filter}</interface>`;
    const dom = await client.define(linuxGuest('one', uuidOf(1), files, card, ourEmulator));
    await client.rpc.call(remote, 'domainCreate', { dom });
    const console = await GuestConsole.open(client, dom);
    await console.expect(/nonroot:.*# /);
    await console.send(
      'udhcpc -q -n -i eth0 -s /etc/udhcpc >/dev/null 2>&1; ping -c 3 192.168.122.1 | grep -c ttl=; echo do""ne\n',
    );
    const [, pings] = await console.expect(/\n(\d+)\r?\n[^\n]*done/);
    assert.equal(pings, '3', console.text.slice(-500));

    const lease = async () => {
      const { leases } = await client.rpc.call(remote, 'networkGetDhcpLeases', {
        net,
        mac: undefined,
        needResults: true,
        flags: 0,
      });
      return leases.map(({ mac, ipAddr }) => [mac, ipAddr.replace(/\d+$/, 'N')]);
    };
    assert.deepEqual(await lease(), [['52:54:00:11:22:33', '192.168.122.N']]);

    // The filter has learnt the lease's address: another one gets nowhere, nor does another MAC.
    const ping = 'ping -c 2 -W 1 192.168.122.1 | grep -c ttl=';
    await console.send(
      `a=$(ip -o -4 addr show dev eth0 | awk '{print $4}'); ip addr flush dev eth0; ip addr add 192.168.122.77/24 dev eth0; x=$(${ping}); ` +
        `ip addr flush dev eth0; ip addr add $a dev eth0; y=$(${ping}); ` +
        `ip link set eth0 down; ip link set eth0 address 52:54:00:99:99:99; ip link set eth0 up; ip addr add $a dev eth0 2>/dev/null; z=$(${ping}); echo pings $x $y $z\n`,
    );
    const [, other, own, mac] = await console.expect(/pings (\d+) (\d+) (\d+)/);
    assert.deepEqual({ other, own, mac }, { other: '0', own: '2', mac: '0' }, console.text.slice(-800));
    await assert.rejects(client.rpc.call(remote, 'nwfilterUndefine', { nwfilter: await ownFilter() }), /nwfilter is in use/);
    const user = linuxGuest('two', uuidOf(2), files, `<interface type='user'>${filter}</interface>`, ourEmulator);
    await assert.rejects(
      client.rpc.call(remote, 'domainCreate', { dom: await client.define(user) }),
      /filterref is not supported for a network interface without a tap device: 'own-address' would filter nothing/,
    );

    await daemon.kill();
    client.close();
    await connect();
    assert.deepEqual(await client.rpc.call(remote, 'networkIsActive', { net }), { active: true });
    assert.deepEqual(await lease(), [['52:54:00:11:22:33', '192.168.122.N']]);
    assert.match(there('ip', 'link', 'show', 'master', 'virbr0'), /vnet0/);
    assert.match(there('nft', 'list', 'tables'), /table bridge nonroot_fw_vnet0/, daemon.said);
    assert.equal(await client.state('one'), state.running, daemon.said);
    await client.rpc.call(remote, 'domainDestroy', { dom });
    assert.equal(there('ip', 'link', 'show', 'master', 'virbr0'), '', "the card's tap went with the guest");
    await client.rpc.call(remote, 'networkDestroy', { net });
    assert.match(there('ip', 'link', 'show', 'dev', 'virbr0'), /does not exist/);
    assert.equal(there('nft', 'list', 'tables'), '');
    assert.equal(spawnSync('pgrep', ['-f', `dnsmasq.*${daemon.directory}`]).status, 1, 'no dnsmasq is left');
  });
});
