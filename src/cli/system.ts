// `nonroot-system-x86_64`: one machine with QEMU's command line, from its start to its end.

import type { Folder } from '../devices/ninep/folder.ts';
import type { ByteFile } from '../disk/block.ts';
import type { MachineConfig } from '../machine/config.ts';
import type { DeviceConfig } from '../machine/device-type.ts';
import { dimmSpace } from '../machine/dimms.ts';
import { flashOf } from '../machine/flash.ts';
import { tscOf } from '../machine/options.ts';
import type { FlashImage, KernelFiles, MachineEnd } from '../machine/running.ts';
import { onConnections } from '../monitor/chardevs.ts';
import { dimmsAsked, withPlace } from '../monitor/dimms.ts';
import { Emulator, type EmulatorConfig } from '../monitor/emulator.ts';
import { serveGdb } from '../monitor/gdb/stub.ts';
import { serveHmp } from '../monitor/hmp/readline.ts';
import { loadSnapshot } from '../monitor/machine-snapshots.ts';
import { qmpTable } from '../monitor/qmp/table.ts';
import { type AccelChoice, chooseAccel } from './accel.ts';
import type { SystemHost } from './host.ts';
import { optionInfos } from './system-complete.ts';
import { expandConfigs } from './system-config.ts';
import { openDrives } from './system-drive-options.ts';
import { filesOf } from './system-files.ts';
import { firmwareOf } from './system-firmware.ts';
import { openFsdev } from './system-fsdev-options.ts';
import { accelNames, topologyOf } from './system-machine-options.ts';
import { boardMemdevs, memdevsOf, openMemdevs } from './system-memdev-options.ts';
import { parseSystem, systemOptions } from './system-options.ts';
import { Refused, type Settings } from './system-settings.ts';

const PROGRAM = 'nonroot-system-x86_64';
/** Devices of the reports that `-d cpu` and `-d bus` ask for; all others are the guest's errors. */
const TRACERS: Readonly<Record<string, string>> = {
  cpu: 'cpu',
  ports: 'bus',
  mmio: 'bus',
  tiers: 'tiers',
  firmware: 'firmware',
  accel: 'kvm',
};

type Write = (data: Uint8Array | string) => void | Promise<void>;

/** Runs the command line (without the program's name); the exit code: 0, 1 for what failed, or what `isa-debug-exit` was told. */
export async function system(argv: readonly string[], host: SystemHost): Promise<number> {
  let settings: Settings | undefined;
  try {
    const asked = parseSystem(await expandConfigs(argv, systemOptions, host.readFile), host.version);
    if ('text' in asked) {
      await host.out.write(asked.text);
      return 0;
    }
    settings = asked.settings;
    if (settings.daemonize && !host.isDaemon) return await host.daemonize();
    if (settings.sandbox) {
      await host.prepareToConfine(settings.sandbox.files ? undefined : () => filesOf(asked.settings, argv, host));
    }
    return await run(settings, host);
  } catch (error) {
    await host.err.write(message(settings, error instanceof Error ? error.message : String(error)));
    return 1;
  }
}

/** A line for standard error, as `-msg` wants it. */
function message(s: Settings | undefined, text: string): string {
  const time = s?.message.timestamp ? `${new Date().toISOString().replace('Z', '000Z')} ` : '';
  const guest = s?.message.guestName && s.name !== undefined ? `${s.name} ` : '';
  return `${time}${guest}${PROGRAM}: ${text}\n`;
}

/** `kernel-irqchip=`. A microvm's own chips stay on its board. */
function irqchipOf(s: Settings): Pick<MachineConfig, 'irqchip'> {
  const asked = s.machineProperties.get('kernel-irqchip');
  if (asked === 'off' || asked === 'split') return { irqchip: asked };
  return asked === 'on' && s.machine.board !== 'microvm' ? { irqchip: 'on' } : {};
}

const machineConfig = (s: Settings): MachineConfig => {
  const { cpus, maxcpus, sockets, cores, threads } = topologyOf(s);
  return {
    ...(s.eager ? { eager: true } : {}),
    // A process that is confined to its files leaves nothing for others.
    ...(s.translationCache ? (s.sandbox?.files === false ? { translationCache: 'read' } : {}) : { translationCache: 'off' }),
    cpus: maxcpus,
    ...(cpus < maxcpus ? { present: cpus } : {}),
    topology: { sockets, cores, threads },
    memory: s.memory,
    ...(s.memoryHotplug ? { memoryHotplug: s.memoryHotplug } : {}),
    ...(s.numaNodes ? { numa: s.numaNodes } : {}),
    ...(s.machine.board === 'none' ? {} : { machine: s.machine.board }),
    cpuModel: s.cpu.cpuModel,
    paravirtual: s.cpu.paravirtual,
    devices: s.devices,
    memdevs: Object.fromEntries(memdevsOf(s).map((o) => [String(o['id']), Number(o['size'])])),
    hpet: s.hpet,
    timers: s.timers,
    ...(s.sleep === undefined ? {} : { sleep: s.sleep }),
    sata: s.machineProperties.get('sata') !== 'off',
    smbus: s.machineProperties.get('smbus') !== 'off',
    ...(s.machine.board === 'microvm' ? { microvm: s.microvm } : s.microvm.pit === false ? { microvm: { pit: false } } : {}),
    acpi: s.acpi,
    ...(['pc', 'q35'].includes(s.machine.board) ? { vmport: s.machineProperties.get('vmport') !== 'off' } : {}),
    serial: [],
    uuid: s.uuid,
    rtcOffset: s.rtcOffset,
    trace: s.trace,
    bootOrder: s.machineProperties.get('boot.order'),
    bootOnce: s.machineProperties.get('boot.once'),
    bootStrict: s.machineProperties.get('boot.strict') === 'on',
    rebootTimeout: s.rebootTimeout,
    bootMenu: s.bootMenu,
    ...(s.fwCfg.length > 0 ? { fwCfgFiles: true } : {}),
    ...(s.dirtyRing > 0 ? { dirtyRing: s.dirtyRing } : {}),
    ...irqchipOf(s),
    noGraphic: s.nographic || s.machineProperties.get('graphics') === 'off',
  };
};

/**
 * System management mode is there where `smm=on` or the firmware may use it, on boards that have it. Under KVM, whose local APICs are the board's then, it has to be asked for.
 */
function smmOf(
  s: Settings,
  { accel }: Pick<AccelChoice, 'accel'>,
  firmware: boolean,
): Pick<MachineConfig, 'smm' | 'extendedTseg'> {
  const asked = s.machineProperties.get('smm') ?? 'auto';
  const possible = s.machine.board === 'pc' || s.machine.board === 'q35';
  if (asked === 'on' && !possible)
    throw new Refused('-machine smm=on: not supported on other boards than pc and q35; accepted: off, auto');
  const chips = s.machineProperties.get('kernel-irqchip') ?? 'off';
  if (asked === 'on' && accel === 'kvm' && chips !== 'off')
    throw new Refused(`-accel kernel-irqchip=${chips}: not supported with -machine smm=on; accepted: off`);
  if (asked === 'off' || !possible || (asked === 'auto' && (!firmware || accel === 'kvm'))) {
    if (s.secureFlash) throw new Refused('-global cfi.pflash01.secure=on: only allowed with -machine smm=on');
    return {};
  }
  return { smm: true, ...(s.extendedTseg === undefined ? {} : { extendedTseg: s.extendedTseg }) };
}

/** Modules of memory get their size and place, one after another. */
function placeDimms(s: Settings, emulator: Emulator): void {
  const space = dimmSpace(machineConfig(s));
  const placed: DeviceConfig[] = [];
  for (const device of s.devices) {
    try {
      placed.push(withPlace(device, space, dimmsAsked(placed), (id) => emulator.memoryBackend(id)));
    } catch (error) {
      throw new Refused(`-device ${device.driver}: ${(error as Error).message}`);
    }
  }
  s.devices = placed;
}

/** The accelerator that `-accel` leads to; of names that QEMU has and we have not, another of the list takes the place. */
const accelOf = (s: Settings, host: SystemHost): AccelChoice => {
  const known = s.accel.filter((name) => accelNames.includes(name));
  return chooseAccel(known.length > 0 ? known : ['tcg'], (trial) => host.kvm(trial));
};

/** Accelerators by QEMU's names, for monitors: without a machine, what could be used counts. */
function qemuAccels(s: Settings, host: SystemHost, choice: AccelChoice): string[] {
  const kvm = choice.accel === 'kvm' || (s.machine.board === 'none' && host.kvm(false).usable);
  return kvm ? ['tcg', 'kvm'] : ['tcg'];
}

const emulatorConfig = (s: Settings, version: string, accel: string, accels: readonly string[]): EmulatorConfig => ({
  version,
  machine: s.machine,
  name: s.name,
  uuid: s.uuid,
  accel,
  accels,
  cpu: { model: s.cpu.cpuModel.split(',')[0]!, text: s.cpu.cpuModel },
  topology: topologyOf(s),
  memory: s.memory,
  ...(s.kernel === undefined ? {} : { kernel: { kernel: s.kernel, initrd: s.initrd, append: s.append } }),
  machineProperties: s.machineProperties,
  boardMemdevs: boardMemdevs(s),
  noShutdown: s.noShutdown,
  options: optionInfos(systemOptions),
});

async function run(s: Settings, host: SystemHost): Promise<number> {
  const say = (text: string): Promise<void> => host.err.write(message(s, text));
  if (s.cpu.missing.length > 0) await say(`warning: -cpu ${s.cpu.cpuModel}: not implemented: ${s.cpu.missing.join(' ')}`);
  for (const text of s.warnings) await say(`warning: ${text}`);
  const choice = accelOf(s, host);
  if (choice.note !== undefined && s.machine.board !== 'none') await say(`falling back to tcg: ${choice.note}`);
  const { hostPhysicalBits: wide } = choice;
  const { physicalBits } = s.cpu;
  if (wide !== undefined && physicalBits !== undefined && physicalBits !== wide)
    await say(`warning: Host physical bits (${wide}) does not match phys-bits property (${physicalBits})`);
  const log: Write = s.log === undefined ? (text) => host.err.write(text) : await host.writer(s.log);

  let idleEnd: () => void = () => {};
  const idle = new Promise<MachineEnd>((resolve) => {
    idleEnd = () => resolve({ kind: 'quit' });
  });
  const emulator = new Emulator({
    config: emulatorConfig(s, host.version, choice.accel === 'kvm' ? 'kvm' : 'tcg', qemuAccels(s, host, choice)),
    host: host.emulator({ log: (text) => void log(`${text}\n`), namedFd: (name) => emulator.fds.get(name) }),
    table: qmpTable,
    quit: idleEnd,
  });
  emulator.setActions({
    ...s.actions,
    ...(s.noShutdown ? { shutdown: 'pause' as const } : {}),
    ...(s.noReboot ? { reboot: 'shutdown' as const } : {}),
  });
  emulator.blocks.dormant = s.incoming !== undefined;
  const folders: Folder[] = [];
  let memories: readonly ByteFile[] = [];
  try {
    for (const object of s.objects) emulator.objects.add(object);
    for (const [id, options] of s.chardevs) {
      const { backend } = await emulator.chardevs.add(id, options);
      if (options.kind === 'pty') await say(`char device redirected to ${backend.filename.slice('pty:'.length)} (label ${id})`);
    }
    for (const netdev of s.netdevs) await emulator.netdevAdd(netdev);
    await openDrives(s, emulator);
    for (const fsdev of s.fsdevs) folders.push(await openFsdev(fsdev, host, emulator.backends));
    memories = await openMemdevs(s, host, emulator.backends);
    s.devices = s.devices.map((d) => emulator.withDrive(d));
    placeDimms(s, emulator);
    const images = s.machine.board === 'none' ? undefined : await machineImages(s, host, emulator);
    // Firmware may have had to be fetched, by other programs. Nothing of the guest has run, and nobody has been listened to.
    if (s.sandbox) host.confine(s.sandbox);
    if (images) emulator.use(makeMachine(s, host, emulator, choice, images, log));
    for (const device of emulator.machine?.devices.list() ?? []) await device.io?.ready;
    // Before monitors can say anything, as with QEMU.
    if (s.loadvm !== undefined) await loadSnapshot(emulator, s.loadvm);
    for (const { secretId, ...vnc } of s.vnc)
      await emulator.display.startVnc({
        ...vnc,
        secret: secretId === undefined ? undefined : emulator.secret(secretId, '-vnc password-secret'),
      });
    for (const { chardev, mode } of s.monitors) {
      const device = emulator.chardev(chardev);
      if (mode === 'control') onConnections(device, (connection) => emulator.attach(connection));
      else serveHmp(emulator, device);
    }
    if (s.gdbChardev !== undefined) serveGdb(emulator, emulator.chardev(s.gdbChardev));
    if (s.pidfile !== undefined) await host.writeFile(s.pidfile, `${host.pid}\n`);
    host.onSignal((signal) => {
      // A reader that is gone ends nothing, as in QEMU: the guest may have other work.
      if (signal === 'SIGPIPE') return;
      void say(`terminating on ${signal}`);
      emulator.quit('host-signal');
    });
    host.ready();
    if (s.incoming !== undefined) await emulator.awaitIncoming(s.incoming === 'defer' ? undefined : s.incoming, !s.paused);
    else if (!s.paused) emulator.cont();
    const end = await (emulator.machine?.ended ?? idle);
    // Monitors hear of the end before their connections go.
    await new Promise<void>((resolve) => void emulator.host.timers.after(0, resolve));
    return emulator.failed ? 1 : await exitCode(end, say);
  } catch (error) {
    emulator.machine?.quit();
    throw error;
  } finally {
    emulator.display.closeAll();
    emulator.chardevs.closeAll();
    for (const cable of emulator.cables.values()) cable.close();
    await emulator.blocks.closeAll();
    for (const folder of folders) await folder.close();
    for (const file of memories) await file.close();
    // A process that reaches given files only cannot take them out of their folders.
    if (s.pidfile !== undefined && s.sandbox?.files !== false) await host.removeFile(s.pidfile);
  }
}

/** Everything that a machine is started with. */
async function machineImages(s: Settings, host: SystemHost, emulator: Emulator) {
  const files = await kernelFiles(s, host);
  return { files, firmware: await firmwareOf(s, host, await flashNodes(s, emulator)) };
}

function makeMachine(
  s: Settings,
  host: SystemHost,
  emulator: Emulator,
  { note: _, ...choice }: AccelChoice,
  { files, firmware }: Awaited<ReturnType<typeof machineImages>>,
  log: Write,
) {
  return host.machine({
    config: {
      ...machineConfig(s),
      ...choice,
      ...tscOf(s.cpu.tscKhz, choice.tscKhz),
      ...smmOf(s, choice, firmware?.shape !== undefined),
      ...(firmware?.shape ? { firmware: firmware.shape } : {}),
    },
    ...(files ? { files } : {}),
    ...(firmware ? { firmware: firmware.images } : {}),
    serial: () => {},
    report: (device, text) => {
      if (s.trace.includes(TRACERS[device] ?? 'guest_errors')) void log(`${device}: ${text}\n`);
    },
    noReboot: s.noReboot,
    noShutdown: s.noShutdown,
    panicked: (what) => void emulator.guestPanicked(what),
    backends: emulator.backends,
  });
}

/** Flash chips that are nodes of the block graph: `-machine pflash0=NODE,pflash1=NODE`. */
async function flashNodes(s: Settings, { blocks }: Emulator): Promise<FlashImage[]> {
  const chips: FlashImage[] = [];
  for (const name of ['pflash0', 'pflash1']) {
    const node = s.machineProperties.get(name);
    if (node !== undefined) chips.push(await flashOf(node, blocks.get(node).disk));
  }
  return chips;
}

async function kernelFiles(s: Settings, host: SystemHost): Promise<KernelFiles | undefined> {
  if (s.kernel === undefined) return undefined;
  const kernel = await host.readKernel(s.kernel);
  const initrd = s.initrd === undefined ? undefined : await host.readInitrd(s.initrd);
  return { ...kernel, name: s.kernel, initrd, append: s.append ?? '' };
}

async function exitCode(end: MachineEnd, say: (text: string) => Promise<void>): Promise<number> {
  switch (end.kind) {
    case 'exit':
      return end.code & 0xff;
    case 'failed':
      await say(`Cannot go on: ${end.message}`);
      return 1;
    case 'reset':
    case 'shutdown':
    case 'powerOff':
    case 'quit':
      return 0;
  }
}
