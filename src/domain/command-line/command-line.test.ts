import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { completeDomain } from '../complete.ts';
import { type Domain, formatDomain, parseDomain } from '../domain.ts';
import { findMachine } from '../emulator.ts';
import { DomainXmlError } from '../errors.ts';
import { type PrepareContext, prepareDomain } from '../prepare.ts';
import { recordedContext, recordedEmulator } from '../testing.ts';
import type { CommandLineContext } from './arguments.ts';
import { commandLine } from './command-line.ts';

const folder = new URL('../golden/domains/', import.meta.url);
const read = (name: string): string => readFileSync(new URL(name, folder), 'utf8');
const names = readdirSync(folder).flatMap((file) => (file.endsWith('.args') ? [file.slice(0, -'.args'.length)] : []));
const liveIds: Readonly<Record<string, number>> = { 'live-pc': 1, 'live-q35': 2 };

function contexts(name: string, domain: Domain): { prepare: PrepareContext; command: CommandLineContext } {
  const id = liveIds[name];
  const directory = `/var/lib/libvirt/qemu/domain-${id ?? -1}-${name}`;
  const prepare: PrepareContext = {
    id: id ?? -1,
    channelDirectory: `/var/lib/libvirt/qemu/channel/target/domain-${id ?? -1}-${name}`,
    directory: `/var/lib/libvirt/qemu/domain-${id ?? -1}-${name}`,
    listenAddress: '127.0.0.1',
    freePort: (kind) => (kind === 'vnc' ? 5900 : 5901),
    firmware: () => ({
      executable: '/usr/share/OVMF/OVMF_CODE_4M.ms.fd',
      template: '/usr/share/OVMF/OVMF_VARS_4M.ms.fd',
      secure: true,
    }),
    nvramPath: `/var/lib/libvirt/qemu/nvram/${name}_VARS.fd`,
  };
  const command: CommandLineContext = {
    machine: findMachine(recordedEmulator, domain.os.type?.machine)!,
    monitorPath: `${directory}/monitor.sock`,
    passDescriptors: id !== undefined,
    masterKey: `${directory}/master-key.aes`,
    directory,
    // cpu-q35 was recorded at this moment.
    now: Date.UTC(2026, 10, 23, 4, 14, 2) / 1000,
    // What libvirt's CPU data base made of the recording host.
    hostModel: /^(kvm64,.*),hv-crash$/m.exec(read(`${name}.args`))?.[1] ?? 'host',
  };
  return { prepare, command };
}

/** `domxml-to-native` makes a bare tap of every interface. */
function bareInterfaces(domain: Domain): void {
  domain.devices.interfaces = domain.devices.interfaces.map(({ mac, model, address }) => ({
    type: 'ethernet' as const,
    ips: [],
    routes: [],
    ...(mac && { mac }),
    ...(model && { model }),
    ...(address && { address }),
  }));
}

/** The numbers of descriptors are the daemon's choice. */
const comparable = (args: readonly string[]): string[] =>
  args.map((arg) => arg.replace(/\bfd=\d+/, 'fd=?').replace(/"(vhost)?fd":"-?\d+"/, '"$1fd":"?"'));

/** The definition as it is at start: with passwords, and with the backing chains that the daemon finds. */
function liveDefinition(name: string): Domain {
  const domain = completeDomain(parseDomain(read(`${name}.in.xml`)), recordedContext);
  const running = parseDomain(read(`${name}.live.xml`));
  domain.devices.disks.forEach((disk, index) => {
    const found = running.devices.disks[index]?.backingStore;
    if (disk.driver?.type === 'qcow2' && found) disk.backingStore = found;
  });
  return domain;
}

describe('the command line', () => {
  for (const name of names) {
    test(`of ${name} is the one that libvirt writes`, () => {
      const live = liveIds[name] !== undefined;
      const domain = live ? liveDefinition(name) : parseDomain(read(`${name}.xml`));
      if (!live) bareInterfaces(domain);
      const { prepare, command } = contexts(name, domain);
      const { args } = commandLine(prepareDomain(domain, prepare), command);
      assert.deepEqual(comparable(args), comparable(read(`${name}.args`).trimEnd().split('\n')));
    });
  }
  assert.ok(names.length >= 18);

  for (const name of Object.keys(liveIds)) {
    test(`of ${name} goes with the running domain that libvirt shows`, () => {
      const domain = liveDefinition(name);
      prepareDomain(domain, contexts(name, domain).prepare);
      // The host's part: terminals, security labels, cgroups, the balloon's size, and the CPU as the emulator reports it.
      const want = parseDomain(read(`${name}.live.xml`));
      delete want.resource;
      if (domain.currentMemory !== undefined) want.currentMemory = domain.currentMemory;
      want.seclabels = [];
      if (domain.cpu) want.cpu = domain.cpu;
      for (const one of [...want.devices.serials, ...want.devices.consoles]) if (one.type === 'pty') one.sources = [];
      for (const one of want.devices.consoles) delete one.tty;
      for (const one of want.devices.channels) if (one.target) delete one.target.state;
      assert.equal(formatDomain(domain), formatDomain(want));
    });
  }

  const simple = (devices: string, inner = ''): Domain =>
    completeDomain(
      parseDomain(
        `<domain type='qemu'><name>a,b</name><memory>65536</memory><os><type>hvm</type></os>${inner}<devices>${devices}</devices></domain>`,
      ),
      recordedContext,
    );
  const compose = (domain: Domain, changes: Partial<CommandLineContext> = {}) => {
    const { prepare, command } = contexts('min-pc', domain);
    return commandLine(prepareDomain(domain, prepare), { ...command, ...changes });
  };

  test('has VNC on a socket in the directory of the guest where nothing else is said, or without a path', () => {
    const option = (inner: string, vncSocket: boolean): string | undefined => {
      const domain = simple(`<graphics type='vnc' port='5901'>${inner}</graphics>`);
      const { prepare, command } = contexts('min-pc', domain);
      const { args } = commandLine(prepareDomain(domain, { ...prepare, directory: '/lib/g', vncSocket }), command);
      return args[args.indexOf('-vnc') + 1]?.split(',')[0];
    };
    assert.equal(option('', true), 'vnc=unix:/lib/g/vnc.sock');
    assert.equal(option('', false), '127.0.0.1:1');
    assert.equal(option("<listen type='address' address='::1'/>", true), '[::1]:1');
    assert.equal(option("<listen type='socket'/>", false), 'vnc=unix:/lib/g/vnc.sock');
    assert.equal(option("<listen type='socket' socket='/own'/>", true), 'vnc=unix:/own');
  });

  test('asks viewers of VNC for what the daemon is configured to ask: certificates, SASL, a password, as libvirtd 9.0 does', () => {
    const domain = (inner: string): Domain => simple(`<graphics type='vnc' ${inner}</graphics>`);
    const vnc = { tls: { directory: '/pki', verify: true }, sasl: '/sasl', password: 'XYZ12345' };
    const tcp = domain("port='5901' websocket='5701' sharePolicy='ignore'>");
    const { prepare, command } = contexts('min-pc', tcp);
    const { args, environment } = commandLine(prepareDomain(tcp, { ...prepare, vncAddress: '0.0.0.0' }), { ...command, vnc });
    const at = args.indexOf('-vnc');
    assert.deepEqual(args.slice(at - 2, at + 2), [
      '-object',
      '{"qom-type":"tls-creds-x509","id":"vnc-tls-creds0","dir":"/pki","endpoint":"server","verify-peer":true}',
      '-vnc',
      '0.0.0.0:1,websocket=5701,share=ignore,password=on,tls-creds=vnc-tls-creds0,sasl=on,audiodev=audio1',
    ]);
    assert.deepEqual(environment, { SASL_CONF_PATH: '/sasl' });
    const socket = compose(domain("><listen type='socket' socket='/s'/>"), { vnc: { sasl: '' } });
    assert.ok(socket.args.includes('vnc=unix:/s,sasl=on,audiodev=audio1'));
    assert.deepEqual([socket.environment, compose(simple(''), { vnc }).environment], [{}, {}]);
  });

  test('doubles commas in names and paths', () => {
    const { args } = compose(simple("<serial type='file'><source path='/a,b'/></serial>"));
    assert.ok(args.includes('guest=a,,b,debug-threads=on'));
    assert.ok(args.includes('file,id=charserial0,path=/a,,b'));
  });

  test('numbers the descriptors that the daemon opens in the order of their use', () => {
    const devices =
      "<serial type='unix'><source mode='bind' path='/s'/></serial><interface type='bridge'><source bridge='br0'/></interface>";
    const { args, files } = compose(simple(devices), { passDescriptors: true, firstDescriptor: 5 });
    assert.deepEqual(
      files.map(({ fd, kind }) => [fd, kind]),
      [
        [5, 'listen'],
        [6, 'tap'],
        [7, 'listen'],
      ],
    );
    assert.ok(args.includes('socket,id=charmonitor,fd=5,server=on,wait=off'));
    assert.ok(args.includes('{"type":"tap","fd":"6","id":"hostnet0"}'));
    assert.ok(args.includes('socket,id=charserial0,fd=7,server=on,wait=off'));
  });

  test('takes another back-end for an interface from the daemon', () => {
    const domain = simple("<interface type='network'><source network='default'/></interface>");
    const { args, files } = compose(domain, { netdev: () => ({ type: 'stream', server: false }) });
    assert.ok(args.includes('{"type":"stream","server":false,"id":"hostnet0"}'));
    assert.equal(files.length, 0);
  });

  test('passes -incoming and -loadvm on', () => {
    const { args } = compose(simple(''), { incoming: 'defer', loadSnapshot: 's1' });
    assert.equal(args[args.indexOf('-incoming') + 1], 'defer');
    assert.equal(args[args.indexOf('-loadvm') + 1], 's1');
  });

  test('bounds consoles in files where the emulator can', () => {
    const domain = () =>
      simple("<serial type='file'><source path='/c'/></serial><serial type='pty'><log file='/l'/></serial><serial type='null'/>");
    const limits = (args: readonly string[]): string[] => args.filter((one) => /id=charserial/.test(one));
    assert.deepEqual(limits(compose(domain(), { consoles: { size: 2 ** 21, backups: 3 } }).args), [
      'file,id=charserial0,path=/c,max-size=2097152,backups=3',
      'pty,id=charserial1,logfile=/l,logappend=off,max-size=2097152,backups=3',
      'null,id=charserial2',
    ]);
    assert.ok(!limits(compose(domain()).args).join().includes('max-size'));
  });

  test('asks for the width of physical addresses', () => {
    const cpu = (width: string): string | undefined => {
      const { args } = compose(simple('', `<cpu mode='custom' match='exact'><model>qemu64</model><maxphysaddr ${width}/></cpu>`));
      return args[args.indexOf('-cpu') + 1];
    };
    assert.equal(cpu("mode='emulate' bits='36'"), 'qemu64,phys-bits=36');
    assert.equal(cpu("mode='passthrough'"), 'qemu64,host-phys-bits=on');
  });

  test('is the same for the same domain', () => {
    const text = read('many-q35.xml');
    const [first, second] = [0, 1].map(() => compose(parseDomain(text)).args);
    assert.deepEqual(first, second);
  });

  test('is refused for what cannot be run, naming it', () => {
    const refused: [string, string, RegExp][] = [
      ["<tpm model='tpm-tis'><backend type='emulator'/></tpm>", '', /TPM devices are not supported/],
      ["<disk type='volume'><source pool='p' volume='v'/><target dev='vda'/></disk>", '', /volume 'v' of pool 'p'/],
      ["<disk type='network'><source protocol='rbd' name='x'/><target dev='vda'/></disk>", '', /protocol 'rbd'/],
      ['', "<cpu mode='host-passthrough'/>", /CPU mode 'host-passthrough' for x86_64 qemu domain/],
      ['', '<memoryBacking><hugepages/></memoryBacking>', /hugepages/],
    ];
    for (const [devices, inner, message] of refused) {
      const domain = simple(devices, inner);
      assert.throws(
        () => compose(domain),
        (error) => error instanceof DomainXmlError && message.test(error.message),
      );
    }
  });
});
