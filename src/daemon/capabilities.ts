// `capabilities` and `domcapabilities`: what this host and its emulators can do (libvirt 9.0, formatcaps and formatdomaincaps).
import { formatCapabilities, type GuestInfo, type HostInfo } from '../domain/capabilities.ts';
import { type DomainCapabilities, type Enums, formatDomainCapabilities } from '../domain/domain-capabilities.ts';
import { findMachine, type MachineInfo } from '../domain/emulator.ts';
import { libvirtError } from '../rpc/libvirt/errors.ts';
import { hypervisorModel, isX86, usableModels } from './cpus.ts';
import type { Daemon } from './daemon.ts';
import type { EmulatorProbe } from './emulators.ts';
import type { DaemonHost } from './host.ts';
import { SMALL_PAGE } from './node-memory.ts';

/** The UUID of this host: its firmware's, or one that was made up once and kept. */
export async function hostUuid(daemon: Daemon): Promise<string> {
  const { options, host, paths } = daemon;
  if (options.hostUuid !== undefined) return options.hostUuid;
  const fromFirmware = host.facts.uuid;
  if (fromFirmware !== undefined && !/^(0{8}|f{8})/.test(fromFirmware)) return fromFirmware;
  const path = `${paths.lib}/host-uuid`;
  const kept = await host.files.read(path);
  if (kept !== undefined) return kept.trim();
  const { randomUuid } = await import('../domain/emulator.ts');
  const made = randomUuid((length) => host.crypto.random(length));
  await host.files.write(path, `${made}\n`);
  return made;
}

async function hostModel(daemon: Daemon): Promise<{ readonly model?: string; readonly features: readonly string[] }> {
  if (!isX86(daemon.host.facts.arch)) return { features: [] };
  const decoded = await daemon.cpus.hostModel();
  return decoded ? { model: decoded.model, features: decoded.features.map((one) => one.name) } : { features: [] };
}

function hostCells({ facts }: DaemonHost): HostInfo['cells'] {
  const byId = new Map(facts.cpus.map((one) => [one.id, one]));
  return facts.cells().map(({ id, memory, hugePages, distances, cpus }) => {
    const huge = hugePages.reduce((sum, one) => sum + one.size * one.count, 0);
    return {
      id,
      memory,
      pages: [{ size: SMALL_PAGE, count: Math.floor((memory - huge) / SMALL_PAGE) }, ...hugePages],
      distances,
      cpus: cpus.flatMap((cpu) => byId.get(cpu) ?? []),
    };
  });
}

/** Emulators of a privileged daemon run as its `user`, whose the guest's files are meanwhile: libvirt's model `dac`. */
export function ownership(own: number, user: Daemon['options']['user']): HostInfo['securityModels'] {
  if (own !== 0) return [];
  const { uid, gid } = user ?? { uid: 0, gid: 0 };
  const label = `+${uid}:+${gid}`;
  return [{ model: 'dac', doi: '0', labels: ['kvm', 'qemu'].map((type) => ({ type, label })) }];
}

async function hostInfo(daemon: Daemon): Promise<HostInfo> {
  const { host } = daemon;
  const { cpu, topology, arch, caches, identity } = host.facts;
  const { vendor, signature } = await daemon.cpus.host();
  const cells = hostCells(host);
  const tsc = identity()?.tsc;
  return {
    uuid: await hostUuid(daemon),
    cpu: {
      arch,
      vendor: vendor ?? cpu.vendor,
      ...(cpu.microcode > 0 && { microcode: cpu.microcode }),
      signature: { family: cpu.family, model: cpu.model, stepping: cpu.stepping, ...signature },
      ...(tsc && { tsc }),
      topology,
      ...(cpu.addressBits > 0 && { physicalAddressBits: cpu.addressBits }),
      ...(await hostModel(daemon)),
      pageSizes: cells[0]?.pages.map((one) => one.size) ?? [],
    },
    powerManagement: [],
    iommu: false,
    migrationTransports: ['tcp', 'rdma'],
    cells,
    caches: caches(),
    securityModels: [{ model: 'none', doi: '0', labels: [] }, ...ownership(host.facts.uid, daemon.options.user)],
  };
}

const guestInfo = (probe: EmulatorProbe): GuestInfo => ({
  emulator: probe.info,
  wordSize: /64/.test(probe.info.arch) || probe.info.arch === 's390x' ? 64 : 32,
  domainTypes: probe.accelerators.includes('kvm') ? ['qemu', 'kvm'] : ['qemu'],
  pae: probe.info.arch === 'i686',
  acpi: probe.info.arch === 'x86_64' || probe.info.arch === 'i686',
});

export async function capabilitiesXml(daemon: Daemon): Promise<string> {
  const probes = await daemon.emulators.all();
  const seen = new Set<string>();
  const guests = probes.filter((one) => !seen.has(one.info.arch) && seen.add(one.info.arch)).map(guestInfo);
  return formatCapabilities(await hostInfo(daemon), guests);
}

/** The values whose device type the emulator has. */
const having = (probe: EmulatorProbe, rows: readonly (readonly [string, string | undefined])[]): string[] =>
  rows.flatMap(([value, type]) => (type === undefined || probe.types.includes(type) ? [value] : []));

function devicesOf(probe: EmulatorProbe): Readonly<Record<string, Enums | undefined>> {
  const has = (type: string): boolean => probe.types.includes(type);
  const virtio = ['virtio', 'virtio-transitional', 'virtio-non-transitional'];
  return {
    disk: {
      diskDevice: ['disk', 'cdrom', 'floppy', 'lun'],
      bus: having(probe, [
        ['ide', 'piix3-ide'],
        ['fdc', 'isa-fdc'],
        ['scsi', 'virtio-scsi-pci'],
        ['virtio', 'virtio-blk-pci'],
        ['usb', 'usb-storage'],
        ['sata', 'ich9-ahci'],
      ]),
      model: virtio,
    },
    graphics: {
      type: [
        ...(has('sdl') ? ['sdl'] : []),
        ...(probe.commands.includes('query-vnc') ? ['vnc'] : []),
        ...(probe.commands.includes('query-spice') ? ['spice'] : []),
        ...(has('egl-headless') ? ['egl-headless'] : []),
      ],
    },
    video: {
      modelType: having(probe, [
        ['vga', 'VGA'],
        ['cirrus', 'cirrus-vga'],
        ['vmvga', 'vmware-svga'],
        ['qxl', 'qxl'],
        ['virtio', 'virtio-gpu-pci'],
        ['none', undefined],
        ['bochs', 'bochs-display'],
        ['ramfb', 'ramfb'],
      ]),
    },
    hostdev: undefined,
    rng: has('virtio-rng-pci') ? { model: virtio, backendModel: ['random', 'egd', 'builtin'] } : undefined,
    filesystem: has('virtio-9p-pci') ? { driverType: ['path', 'handle'] } : undefined,
    tpm: undefined,
    redirdev: undefined,
    channel: { type: ['pty', 'unix'] },
  };
}

/** The emulator, machine and type that a client means, with defaults for what it leaves out. @throws LibvirtError */
export async function chooseEmulator(
  daemon: Daemon,
  emulator: string | undefined,
  arch: string | undefined,
  machineName: string | undefined,
  virtType: string | undefined,
): Promise<{ readonly probe: EmulatorProbe; readonly machine: MachineInfo; readonly type: 'qemu' | 'kvm' }> {
  if (virtType !== undefined && virtType !== 'qemu' && virtType !== 'kvm') {
    throw libvirtError('invalidArg', 'qemu', `unknown virttype: ${virtType}`);
  }
  const probes = emulator === undefined ? await daemon.emulators.all() : [await daemon.emulators.probe(emulator)];
  const wanted = arch ?? (emulator === undefined ? daemon.host.facts.arch : probes[0]!.info.arch);
  const probe = probes.find((one) => one.info.arch === wanted);
  if (!probe) {
    throw emulator === undefined
      ? libvirtError('configUnsupported', 'qemu', `unable to find any emulator to serve '${wanted}' architecture`)
      : libvirtError(
          'invalidArg',
          'qemu',
          `architecture from emulator '${probes[0]!.info.arch}' doesn't match given architecture '${wanted}'`,
        );
  }
  const { info } = probe;
  const machine = findMachine(info, machineName);
  if (!machine)
    throw libvirtError('invalidArg', 'qemu', `the machine '${machineName}' is not supported by emulator '${info.path}'`);
  const kvm = probe.accelerators.includes('kvm');
  const type = virtType ?? (kvm ? 'kvm' : 'qemu');
  if (type === 'kvm' && !kvm) {
    throw libvirtError('invalidArg', 'qemu', `KVM is not supported by '${info.path}' on this host`);
  }
  return { probe, machine, type };
}

export async function domainCapabilitiesXml(
  daemon: Daemon,
  ...given: readonly [emulator?: string, arch?: string, machine?: string, virtType?: string]
): Promise<string> {
  const [emulator, arch, machineName, virtType] = given;
  const { probe, machine, type } = await chooseEmulator(daemon, emulator, arch, machineName, virtType);
  const { info } = probe;
  const map = isX86(info.arch) ? await daemon.cpus.map() : undefined;
  const hostCpu = map && hypervisorModel(map, probe, type);
  const deprecated = new Set(
    (probe.cpus[type === 'kvm' ? 'kvm' : 'tcg']?.definitions ?? []).filter((one) => one.deprecated).map((one) => one.name),
  );
  const custom = usableModels(probe, type)
    .filter((one) => map === undefined || map.models.has(one.name))
    .map((one) => ({
      name: one.name,
      usable: !one.known ? ('unknown' as const) : one.blockers.length === 0 ? ('yes' as const) : ('no' as const),
      vendor: map?.models.get(one.name)?.vendor ?? 'unknown',
      ...(deprecated.has(one.name) && { deprecated: true }),
    }));
  const firmware = daemon.options.firmware;
  const yesNo = ['yes', 'no'];
  const onOff = ['on', 'off'];
  const answer: DomainCapabilities = {
    emulator: info.path,
    domainType: type,
    machine: machine.name,
    arch: info.arch,
    maxVcpus: machine.maxCpus,
    iothreads: probe.types.includes('iothread'),
    firmware: {
      kinds: firmware ? ['efi'] : [],
      loaders: firmware ? [firmware.executable] : [],
      enums: { type: ['rom', 'pflash'], readonly: yesNo, secure: ['no'] },
    },
    cpu: {
      ...(type === 'kvm' && { hostPassthrough: onOff }),
      maximum: onOff,
      ...(hostCpu && { hostModel: { ...hostCpu, fallback: 'forbid' as const } }),
      custom,
    },
    memoryBacking: { sourceType: ['file', 'anonymous', 'memfd'] },
    devices: devicesOf(probe),
    features: {
      gic: false,
      vmcoreinfo: probe.types.includes('vmcoreinfo'),
      genid: probe.types.includes('vmgenid'),
      backingStoreInput: true,
      backup: true,
      sev: false,
      sgx: false,
    },
  };
  return formatDomainCapabilities(answer);
}
