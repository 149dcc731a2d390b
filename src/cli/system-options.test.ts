import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configOptions, expandConfigs } from './system-config.ts';
import { topologyOf } from './system-machine-options.ts';
import { parseSystem, systemOptions } from './system-options.ts';
import { Refused, rtcOffset, type Settings } from './system-settings.ts';

/** The settings of a command line, written as words; `-kernel k` is added, and `more`: no network card that is not asked for. */
function settings(line: string, more: readonly string[] = ['-nic', 'none']): Settings {
  const asked = parseSystem([...line.split(' ').filter((word) => word !== ''), '-kernel', 'k', ...more], '1.2.3');
  if (!('settings' in asked)) throw new Error(`Cannot read settings of "${line}": it asks for text`);
  return asked.settings;
}
/** Devices without the drives and the printer that QEMU's boards have in any case. */
const withoutUsual = ({ devices }: Settings): Settings['devices'] =>
  devices.filter((d) => !['ide1-cd0', 'ide2-cd0', 'floppy0'].includes(String(d['drive'])) && d['chardev'] !== 'parallel0');
const refusal = (line: string): string => {
  try {
    settings(line);
  } catch (error) {
    if (error instanceof Refused) return error.message;
    throw error;
  }
  return 'accepted';
};
const serial = (line: string): string[] => settings(line).serial;
const monitors = (line: string): string[] => settings(line).monitors.map((m) => `${m.chardev} ${m.mode}`);

test('the default devices are those of QEMU', () => {
  assert.deepEqual(serial(''), ['null']);
  assert.deepEqual(serial('-nographic'), ['mon:stdio']);
  assert.deepEqual(serial('-nographic -monitor none'), ['stdio']);
  assert.deepEqual(serial('-nodefaults'), []);
  assert.deepEqual(serial('-nographic -nodefaults'), []);
  assert.deepEqual(serial('-serial none -serial mon:stdio'), ['none', 'mon:stdio']);
  assert.deepEqual(monitors('-nographic -serial null'), ['compat_monitor0 readline']);
  assert.deepEqual(monitors('-nographic -serial mon:stdio'), ['serial0 readline']);
  const { memory, machine, cpu } = settings('');
  assert.deepEqual([memory, machine.name, cpu.cpuModel], [128 << 20, 'pc-i440fx-7.2', 'qemu64']);
  assert.deepEqual(withoutUsual(settings('-vga none -serial none -serial null')), [
    { driver: 'isa-serial', index: 1, chardev: 'serial1' },
  ]);
});

test('a CD-ROM drive, a floppy drive on pc, and a printer are there unless something stands in their place', () => {
  const usual = (line: string): string[] => {
    const s = settings(`-serial none -vga none ${line}`);
    return [...s.drives.map((d) => d.id), ...s.parallel.map((p) => `lpt ${p}`)];
  };
  assert.deepEqual(usual(''), ['ide1-cd0', 'floppy0', 'sd0', 'lpt null']);
  assert.deepEqual(usual('-M q35'), ['ide2-cd0', 'sd0', 'lpt null']);
  assert.deepEqual(usual('-M microvm'), ['sd0']);
  assert.deepEqual(usual('-nodefaults'), []);
  assert.deepEqual(usual('-parallel none'), ['ide1-cd0', 'floppy0', 'sd0', 'lpt none']);
  assert.deepEqual(usual('-chardev null,id=c -device isa-parallel,chardev=c'), ['ide1-cd0', 'floppy0', 'sd0']);
  assert.deepEqual(usual('-M q35 -cdrom f'), ['ide2-cd0', 'sd0', 'lpt null']);
  assert.deepEqual(usual('-M q35 -drive if=ide,bus=2,file=f'), ['ide2-hd0', 'sd0', 'lpt null']);
  assert.deepEqual(usual('-drive file=f,index=3'), ['ide1-hd1', 'ide1-cd0', 'floppy0', 'sd0', 'lpt null']);
  assert.deepEqual(usual('-device ide-cd -fda f'), ['floppy0', 'sd0', 'lpt null']);
  assert.deepEqual(usual('-global isa-fdc.fdtypeA=144 -hda f'), ['ide0-hd0', 'ide1-cd0', 'sd0', 'lpt null']);
});

test('the default network is that of QEMU: a user-mode network on the board’s card, before what -device adds', () => {
  const cards = (line: string): string[] =>
    withoutUsual(settings(`-serial none -vga none ${line}`, [])).map((d) =>
      [d.driver, ...(d['netdev'] ? [d['netdev']] : [])].join(' '),
    );
  assert.deepEqual(cards(''), ['e1000 nic0']);
  assert.deepEqual(cards('-M q35'), ['e1000e nic0']);
  // A card of -device is one more, as with QEMU.
  assert.deepEqual(cards('-M q35 -device e1000,addr=5'), ['e1000e nic0', 'e1000']);
  for (const line of ['-nodefaults', '-M microvm', '-nic none', '-net none', '-netdev user,id=n'])
    assert.deepEqual(cards(line), [], line);
  assert.deepEqual(cards('-M q35 -nic user -nic user,model=virtio'), ['e1000e nic0', 'virtio-net-pci nic1']);
  assert.deepEqual(cards('-net nic,model=e1000e,macaddr=52:54:00:00:00:09 -net user,name=u,restrict=on'), ['e1000e u']);
  assert.deepEqual(settings('', []).netdevs, [{ type: 'user', id: 'nic0' }]);
  assert.match(refusal('-net user -net user'), /^-net user: not supported; one card and one back-end/);
  assert.match(refusal('-net nic,vectors=2'), /^-net nic,vectors: not supported/);
});

test('standard input and output have one user', () => {
  for (const line of ['-serial stdio -serial mon:stdio', '-nographic -serial stdio', '-serial stdio -monitor stdio'])
    assert.match(refusal(line), /in use already/, line);
  assert.match(refusal('-serial null -serial null -serial null -serial null -serial null'), /there are four serial ports/);
});

test('-S needs a monitor to go on', () => {
  assert.match(refusal('-S'), /^-S: not supported without a monitor/);
  assert.equal(settings('-S -nographic').paused, true);
});

test('accelerators are listed as with QEMU: one that nobody has is refused, with tcg behind it not', () => {
  assert.match(refusal('-accel hvf'), /^-accel hvf: not supported/);
  assert.match(refusal('-M q35,accel=xen'), /^-accel xen: not supported/);
  assert.equal(refusal('-accel kvm'), 'accepted');
  assert.equal(refusal('-accel hvf -accel tcg'), 'accepted');
  assert.equal(refusal('-accel kvm -accel tcg'), 'accepted');
  assert.equal(refusal('-M accel=kvm:tcg'), 'accepted');
});

test('the arrangement of vCPUs follows from what is given', () => {
  const arrangement = (line: string): number[] => {
    const { cpus, maxcpus, sockets, cores, threads } = topologyOf(settings(line));
    return [cpus, maxcpus, sockets, cores, threads];
  };
  assert.deepEqual(arrangement(''), [1, 1, 1, 1, 1]);
  assert.deepEqual(arrangement('-smp 4'), [4, 4, 1, 4, 1]);
  assert.deepEqual(arrangement('-smp cores=2'), [2, 2, 1, 2, 1]);
  assert.deepEqual(arrangement('-smp 2,sockets=2,cores=1,threads=1'), [2, 2, 2, 1, 1]);
  assert.deepEqual(arrangement('-smp 8,cores=2,threads=2'), [8, 8, 2, 2, 2]);
  assert.match(refusal('-smp 4,sockets=1,cores=2,threads=1'), /^-smp: sockets \(1\).* != maxcpus \(4\)/);
  assert.match(refusal('-smp 65'), /^-smp 65: Cannot make "65" vCPUs/);
});

test('values reach the settings', () => {
  const s = settings(
    '-vga none -serial none -m size=1G -cpu max,-kvm -device isa-debug-exit,iobase=0xf4,iosize=4 -device pc-testdev -d bus,cpu -D l -machine q35,hpet=off -no-reboot -name guest=a,,b',
  );
  assert.equal(s.memory, 2 ** 30);
  assert.deepEqual([s.cpu.cpuModel, s.cpu.paravirtual], ['max', []]);
  assert.deepEqual(withoutUsual(s), [{ driver: 'isa-debug-exit', iobase: '0xf4', iosize: '4' }, { driver: 'pc-testdev' }]);
  assert.deepEqual([s.trace, s.log, s.hpet, s.noReboot, s.name], [['bus', 'cpu'], 'l', false, true, 'a,b']);
});

test('output files have a bound where one is given', () => {
  const limit = (text: string) => settings(`-chardev ${text},id=c`).chardevs.get('c')?.limit;
  assert.equal(limit('file,path=f'), undefined);
  assert.deepEqual(limit('file,path=f,max-size=2M'), { size: 2 ** 21, backups: 3 });
  assert.deepEqual(limit('pty,logfile=f,max-size=4096,backups=0'), { size: 4096, backups: 0 });
  assert.equal(
    refusal('-chardev null,id=c,max-size=2M'),
    '-chardev null: max-size=2097152: accepted with kind file, or logfile=',
  );
  assert.equal(refusal('-chardev file,id=c,path=f,backups=2'), '-chardev file: backups=2: accepted with max-size=');
  assert.equal(
    refusal('-chardev file,id=c,path=f,max-size=4095'),
    '-chardev file: max-size=4095: accepted are 4096 to 1099511627776 bytes, with K, M or G',
  );
  assert.equal(
    refusal('-chardev file,id=c,path=f,max-size=2X'),
    '-chardev file: max-size=2X: accepted are bytes, with K, M or G',
  );
});

test('what becomes of missed ticks, and whether the HPET sends messages', () => {
  assert.deepEqual(settings('').timers, {});
  assert.deepEqual(settings('-rtc driftfix=slew').timers, { rtcSlew: true });
  assert.deepEqual(settings('-global kvm-pit.lost_tick_policy=discard -global hpet.msi=on').timers, {
    pitDiscards: true,
    hpetMsi: true,
  });
  assert.deepEqual(settings('-global mc146818rtc.lost_tick_policy=slew').timers, { rtcSlew: true });
  assert.equal(
    refusal('-global mc146818rtc.lost_tick_policy=delay'),
    '-global mc146818rtc.lost_tick_policy=delay: not supported; accepted: discard, slew',
  );
  assert.equal(refusal('-global hpet.timers=4'), '-global hpet.timers=4: not supported; accepted: msi');
});

test('what is not supported is refused by name, down to properties', () => {
  assert.equal(refusal('-device vfio-pci,netdev=n'), '-device vfio-pci: not supported');
  assert.equal(refusal('-device isa-debug-exit,baud=b'), '-device isa-debug-exit baud: not supported');
  assert.equal(refusal('-machine q35,nvdimm=on'), '-machine nvdimm: not supported');
  assert.equal(refusal('-m 1G,slots=2'), '-m: slots specified but no max-size');
  assert.equal(refusal('-d exec'), '-d exec: not supported; -d help lists what is');
  assert.equal(refusal('-rtc base=utc,clock=vm'), '-rtc clock=vm: not supported; accepted: host');
});

test('folders are shared as with QEMU, and what is missing is said', () => {
  const [one, two] = settings(
    '-fsdev local,id=f,path=/srv/a,,b,security_model=mapped,fmode=0640,readonly -virtfs local,path=/srv,mount_tag=t,security_model=none,writeout=immediate,multidevs=forbid',
  ).fsdevs;
  assert.deepEqual([one!.id, one!.path, one!.options.readOnly], ['f', '/srv/a,b', true]);
  assert.deepEqual(one!.mapped, { store: 'xattr', fileMode: 0o640, folderMode: 0o700 });
  assert.deepEqual([two!.id, two!.mapped], ['t', undefined]);
  assert.deepEqual(two!.options, { readOnly: false, owners: 'try', writeThrough: true, oneDevice: true });
  const devices = withoutUsual(settings('-serial none -vga none -virtfs local,path=/srv,mount_tag=t,security_model=none,id=x'));
  assert.deepEqual(devices, [{ driver: 'virtio-9p-pci', fsdev: 'x', mount_tag: 't' }]);
  assert.match(refusal('-fsdev local,path=/,security_model=none'), /id is missing$/);
  assert.match(refusal('-fsdev local,id=f,security_model=none'), /path is missing$/);
  assert.match(refusal('-fsdev local,id=f,path=/'), /security_model is missing; accepted: passthrough, mapped-xattr/);
  assert.match(refusal('-fsdev local,id=f,path=/,security_model=all'), /^-fsdev security_model=all: not supported/);
  assert.match(refusal('-fsdev local,id=f,path=/,security_model=none,fmode=0600'), /fmode is only valid for mapped/);
  assert.match(
    refusal('-fsdev local,id=f,path=/,security_model=none,throttling.bps-total=1'),
    /^-fsdev throttling.bps-total=1: not/,
  );
  assert.match(refusal('-fsdev proxy,id=f,socket=s'), /^-fsdev proxy: not supported; accepted: local/);
  assert.match(refusal('-virtfs local,path=/,security_model=none'), /mount_tag is missing$/);
});

test('a microvm has its own options, no card and one serial port', () => {
  const s = settings(
    '-M microvm,pic=off,rtc=auto,isa-serial=off,auto-kernel-cmdline=off,x-option-roms=off,acpi=off -serial none -global virtio-mmio.force-legacy=off',
  );
  assert.deepEqual(s.microvm, { pic: false, rtc: true, isaSerial: false, autoKernelCommandLine: false, legacyTransports: false });
  assert.deepEqual(s.devices, []);
  assert.deepEqual(settings('-M microvm').serial, ['null']);
  assert.deepEqual(settings('-M microvm,isa-serial=off').serial, []);
  assert.match(
    refusal('-M q35,auto-kernel-cmdline=off'),
    /^-machine auto-kernel-cmdline: not supported with pc-q35-7.2; accepted with microvm/,
  );
  assert.match(refusal('-M pc,pic=off'), /^-machine pic: not supported with pc-i440fx-7.2/);
  assert.deepEqual(settings('-M pc,pit=off').microvm, { pit: false });
  assert.equal(settings('-M pc -machine kernel_irqchip=split').machineProperties.get('kernel-irqchip'), 'split');
  assert.match(refusal('-M microvm,pcie=on'), /^-machine pcie=on: not supported; accepted: off, auto/);
  assert.match(refusal('-M microvm -serial null -serial null'), /a microvm has one serial port/);
  assert.match(refusal('-M microvm -usb'), /^-usb: not supported with microvm/);
  assert.match(refusal('-M microvm,acpi=off -bios b'), /acpi=off: not supported with firmware/);
  assert.match(refusal('-global virtio-mmio.format_transport_address=off'), /not supported; accepted is force-legacy/);
});

test('there is one card unless another is named, and USB has what the board has', () => {
  const drivers = (line: string): string[] => withoutUsual(settings(`-serial none ${line}`)).map((d) => d.driver);
  assert.deepEqual(drivers(''), ['VGA']);
  assert.deepEqual(drivers('-vga virtio'), ['virtio-vga']);
  assert.deepEqual(drivers('-nodefaults'), []);
  assert.deepEqual(drivers('-device bochs-display'), ['bochs-display']);
  assert.deepEqual(drivers('-vga std -device bochs-display'), ['VGA', 'bochs-display']);
  assert.deepEqual(drivers('-vga none -usbdevice tablet'), ['piix3-usb-uhci', 'usb-tablet']);
  assert.equal(drivers('-M q35 -vga none -usb').length, 4);
  assert.equal(refusal('-vga qxl'), '-vga qxl: not supported; accepted: none, std, virtio');
  assert.equal(refusal('-display gtk'), '-display gtk: not supported; accepted: none, vnc=DISPLAY');
});

test('VNC servers listen where they are told', () => {
  const vnc = (line: string) => settings(line).vnc.map((v) => v.listen);
  assert.deepEqual(vnc('-vnc none'), []);
  assert.deepEqual(vnc('-vnc :3'), [{ kind: 'tcp', host: '', port: 5903 }]);
  assert.deepEqual(vnc('-vnc 127.0.0.1:0,to=99,websocket=5700,audiodev=a'), [
    { kind: 'tcp', host: '127.0.0.1', port: 5900, to: 5999, websocket: 5700 },
  ]);
  assert.deepEqual(vnc('-vnc [::1]:1,websocket -vnc unix:/tmp/v,id=b'), [
    { kind: 'tcp', host: '::1', port: 5901, websocket: 5701 },
    { kind: 'unix', path: '/tmp/v' },
  ]);
  assert.match(refusal('-vnc :1 -vnc :2,id=default'), /there is a server 'default' already/);
  assert.deepEqual(settings('-vnc :1 -vnc :2 -vnc :3,display=video0,head=1').vnc.map((v) => [v.id, v.display, v.head]), [['default', undefined, 0], ['vnc2', undefined, 0], ['vnc3', 'video0', 1]]); // biome-ignore format: one line
  assert.match(refusal('-vnc :1,head=16'), /accepted/);
  assert.match(refusal('-vnc :1,tls-authz=a'), /'tls-authz' provided but TLS is not enabled$/);
  assert.match(refusal('-vnc :1,sasl-authz=a'), /'sasl-authz' provided but SASL auth is not enabled$/);
  const [list] = settings(
    '-object authz-list,id=a,policy=deny,rules.0.match=f*,rules.0.format=glob,rules.0.policy=allow',
  ).objects;
  assert.deepEqual({ ...list }, { id: 'a', 'qom-type': 'authz-list', policy: 'deny', rules: [{ match: 'f*', format: 'glob', policy: 'allow' }] }); // biome-ignore format: one line
  assert.match(refusal('-vnc nowhere'), /accepted: HOST:DISPLAY, unix:PATH, none/);
  assert.match(refusal('-vnc :1,sasl=maybe'), /^-vnc sasl=maybe: not supported; accepted: on, off$/);
});

test('the clock begins at a date, at local time, or at UTC', () => {
  const now = new Date('2020-01-01T00:00:00Z');
  assert.equal(rtcOffset('utc', now), 0);
  assert.equal(rtcOffset('2020-01-01T00:01:00', now), 60);
  assert.equal(rtcOffset('2019-12-31', now), -86_400);
  assert.equal(rtcOffset('localtime', now), -60 * now.getTimezoneOffset());
  assert.throws(() => rtcOffset('2020-13-01', now), Refused);
});

test('every option is in the help, and none has a name twice', () => {
  const asked = parseSystem(['-help'], '1.2.3');
  assert.ok('text' in asked);
  const names = systemOptions.flatMap((o) => o.names);
  for (const name of names) assert.ok(asked.text.includes(`${name}`), name);
  assert.equal(new Set(names).size, names.length);
});

test('a file of options stands for them, and -set changes a device', async () => {
  const file = '# devices\n[device "d0"]\n  driver = "isa-debug-exit"\n  iobase = "0xf4"\n[memory]\n size = "64M"\n';
  const read = async (): Promise<Uint8Array> => new TextEncoder().encode(file);
  assert.deepEqual(await expandConfigs(['-S', '-readconfig', 'f'], systemOptions, read), [
    ...['-S', '-device', 'id=d0,driver=isa-debug-exit,iobase=0xf4', '-m', 'size=64M'],
  ]);
  assert.throws(() => configOptions('f', '[nothing]', systemOptions), /-readconfig f: line 1: \[nothing\] is not supported/);
  assert.throws(() => configOptions('f', 'x', systemOptions), /line 1: accepted are/);
  const devices = withoutUsual(settings('-serial none -vga none -device isa-debug-exit,id=d0 -set device.d0.iobase=0xf8'));
  assert.deepEqual(devices, [{ driver: 'isa-debug-exit', id: 'd0', iobase: '0xf8' }]);
  assert.match(refusal('-set device.x.y=1'), /there is no device 'x'/);
});

test('the dirty rings of KVM have a power of two of entries', () => {
  assert.equal(settings('').dirtyRing, 0);
  assert.equal(settings('-accel kvm,dirty-ring-size=4096').dirtyRing, 4096);
  assert.equal(settings('-accel kvm,dirty-ring-size=0').dirtyRing, 0);
  for (const size of ['1000', '512', '131072', '-1', 'x'])
    assert.equal(
      refusal(`-accel kvm,dirty-ring-size=${size}`),
      `-accel dirty-ring-size=${size}: accepted are 0 and powers of two from 1024 to 65536`,
    );
});

test('a memory back-end that a device names is neither RAM nor any other device’s', () => {
  const line = (more: string, object = 'size=64K') => `-M q35 -object memory-backend-file,id=m,mem-path=f,${object} ${more}`;
  assert.deepEqual(withoutUsual(settings(line('-device acpi-erst,memdev=m'))).at(-1), { driver: 'acpi-erst', memdev: 'm' });
  const refused: readonly (readonly [line: string, says: RegExp])[] = [
    [line('-device acpi-erst'), /^-device acpi-erst: 'memdev' property is not set$/],
    [line('-device acpi-erst,memdev=x'), /^-device acpi-erst: memdev=x: there is no memory back-end of that id$/],
    [line('-device acpi-erst,memdev=m -device acpi-erst,memdev=m'), /^-device acpi-erst: can't use already busy memdev: m$/],
    [line('-device acpi-erst,memdev=m -m 64 -machine memory-backend=m', 'size=64M'), /can't use already busy memdev: m$/],
    [line('-device acpi-erst,memdev=m -m 64 -numa node,memdev=m', 'size=64M'), /can't use already busy memdev: m$/],
    [line('-device acpi-erst,memdev=m', 'size=65M'), /it has 68157440 bytes, accepted are up to 67108864$/],
    [line('-device acpi-erst,memdev=m', 'size=64K,readonly=on'), /readonly=on is not supported, records are written to it$/],
  ];
  for (const [text, says] of refused) assert.match(refusal(text), says, text);
});

test('NUMA nodes are what -numa says, with the refusals of QEMU', () => {
  const line = (rows: string, more = '-m 256 -smp 4') =>
    `-M q35 ${more} -object memory-backend-ram,id=a,size=128M -object memory-backend-memfd,id=b,size=128M ${rows}`;
  const two = '-numa node,memdev=a -numa node,memdev=b';
  const of = (rows: string, more?: string) => settings(line(rows, more)).numaNodes;
  const MIB = 2 ** 20;
  assert.equal(settings('').numaNodes, undefined);
  assert.deepEqual(of(two, '-m 256 -smp 4,sockets=4'), { nodes: [128 * MIB, 128 * MIB], cpus: [0, 1, 0, 1] });
  assert.deepEqual(of('-numa node,nodeid=1,memdev=a,cpus=0,cpus=2-3 -numa node,nodeid=0,cpus=1,memdev=b')?.cpus, [1, 0, 1, 1]);
  assert.deepEqual(
    of(`${two} -numa cpu,node-id=1,socket-id=0 -numa cpu,node-id=0,socket-id=1`, '-m 256 -smp 4,sockets=2')?.cpus,
    [1, 1, 0, 0],
  );
  assert.deepEqual(of(`${two} -numa dist,src=0,dst=1,val=21`)?.distances, [10, 21, 21, 10]);
  const partial = settings(line('-numa node,memdev=a,cpus=0-2 -numa node,memdev=b'));
  assert.deepEqual(partial.warnings, [
    'CPU(s) not present in any NUMA nodes: CPU 3 [socket-id: 0, core-id: 3, thread-id: 0]; node 0 has them',
  ]);
  const refused: readonly (readonly [rows: string, says: RegExp])[] = [
    ['-numa node,memdev=a', /^total memory for NUMA nodes \(0x8000000\) should equal RAM size \(0x10000000\)$/],
    ['-numa node,mem=256M', /^-numa node,mem=256M: Parameter -numa node,mem is not supported by this machine type/],
    ['-numa node,mem=1,memdev=a', /should use either mem= or memdev=,mixing both is not allowed$/],
    ['-numa node,memdev=x', /^-numa node,memdev=x: memdev=x: there is no memory back-end of that id$/],
    ['-numa node,memdev=a -numa node,memdev=a', /^memory backend a can't be used multiple times\.$/],
    ['-numa node,memdev=a,nodeid=0 -numa node,memdev=b,nodeid=2', /^numa: Node ID missing: 1$/],
    ['-numa node,memdev=a,nodeid=0 -numa node,memdev=b,nodeid=0', /Duplicate NUMA nodeid: 0$/],
    ['-numa node,nodeid=200', /Max number of NUMA nodes reached: 200$/],
    ['-numa node,cpus=4', /CPU index \(4\) should be smaller than maxcpus \(4\)$/],
    ['-numa node,cpus=0-99999999999999', /CPU index \(4\) should be smaller than maxcpus \(4\)$/],
    ['-numa node,cpus=3-1', /Parameter 'cpus' expects a uint64 value or range$/],
    ['-numa node,cpus=0-1 -numa node,cpus=1', /CPU is already assigned to node-id: 0$/],
    ['-numa node,initiator=0', /HMAT\) is disabled/],
    ['-numa node,bogus=1', /Invalid parameter 'bogus'$/],
    [`${two} -numa dist,src=0,dst=5,val=20`, /Source\/Destination NUMA node is missing/],
    [`${two} -numa dist,src=0,dst=1,val=5`, /NUMA distance \(5\) is invalid, it shouldn't be less than 10\.$/],
    [`${two} -numa dist,src=0,dst=0,val=20`, /Local distance of node 0 should be 10\.$/],
    [`${two} -numa dist,src=0,dst=1`, /Parameter 'val' is missing$/],
    [`${two} -numa node -numa dist,src=0,dst=1,val=20`, /^The distance between node 0 and 2 is missing/],
    [
      `${two} -numa node -numa dist,src=0,dst=1,val=20 -numa dist,src=1,dst=0,val=30 -numa dist,src=0,dst=2,val=20 -numa dist,src=1,dst=2,val=20`,
      /^At least one asymmetrical pair of distances is given/,
    ],
    [`${two} -numa cpu,socket-id=0`, /Missing mandatory node-id property$/],
    [`${two} -numa cpu,node-id=2`, /Invalid node-id=2, NUMA node must be defined/],
    [`${two} -numa cpu,node-id=0,socket-id=7`, /no match found$/],
    [`${two} -numa cpu,node-id=0 -numa cpu,node-id=1,core-id=0`, /CPU is already assigned to node-id: 0$/],
    ['-numa hmat-lb,initiator=0', /accepted: node, dist, cpu$/],
  ];
  for (const [rows, says] of refused) assert.match(refusal(line(rows)), says, rows);
  assert.match(refusal(line(two, '-m 300')), /should equal RAM size \(0x12c00000\)$/);
  assert.match(refusal(line('-numa node,memdev=a', '-m 128 -machine memory-backend=a')), /are mutually exclusive$/);
  assert.match(refusal('-M microvm -kernel k -numa node'), /not supported with microvm; accepted with pc and q35$/);
});
