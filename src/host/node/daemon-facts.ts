// What the daemon says of its host: CPU, memory, devices. proc(5), sysfs(5).

import { existsSync, readlinkSync } from 'node:fs';
import { arch, cpus, hostname, networkInterfaces } from 'node:os';
import type { CpuIdentity, CpuTimes, HostDisk, HostFacts, HostInterface, HostPci } from '../../daemon/host.ts';
import { readCpuIdentity } from './cpuid.ts';
import { caches, cells, cpuList, names, read, topologyOf } from './daemon-topology.ts';

function cpuFacts(): HostFacts['cpu'] {
  const lines = (read('/proc/cpuinfo') ?? '').split('\n\n')[0]!.split('\n');
  const value = (name: string): string =>
    lines
      .find((line) => line.startsWith(name))
      ?.split(':')[1]
      ?.trim() ?? '';
  const vendors: Readonly<Record<string, string>> = { GenuineIntel: 'Intel', AuthenticAMD: 'AMD' };
  return {
    vendor: vendors[value('vendor_id')] ?? value('vendor_id'),
    family: Number(value('cpu family')) || 0,
    model: Number(value('model\t')) || 0,
    stepping: Number(value('stepping')) || 0,
    microcode: Number(value('microcode')) || 0,
    mhz: Math.floor(Number(value('cpu MHz'))) || cpus()[0]?.speed || 0,
    flags: value('flags').split(' '),
    addressBits: Number(/(\d+) bits physical/.exec(value('address sizes'))?.[1] ?? 0),
  };
}

function cpuTimes(cpu?: number): CpuTimes | undefined {
  const name = cpu === undefined ? 'cpu' : `cpu${cpu}`;
  const line = read('/proc/stat')
    ?.split('\n')
    .find((one) => one.startsWith(`${name} `));
  if (line === undefined) return undefined;
  const [user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0] = line
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number);
  const ns = 10_000_000;
  return { user: (user + nice) * ns, kernel: (system + irq + softirq) * ns, idle: idle * ns, iowait: iowait * ns };
}

const memory = (): Record<string, number> =>
  Object.fromEntries(
    (read('/proc/meminfo') ?? '').split('\n').flatMap((line) => {
      const match = /^(\S+):\s+(\d+)/.exec(line);
      return match ? [[match[1]!, Number(match[2])]] : [];
    }),
  );

async function interfaces(): Promise<HostInterface[]> {
  const known = networkInterfaces();
  return names('/sys/class/net').map((name) => {
    const at = `/sys/class/net/${name}`;
    const speed = Number(read(`${at}/speed`));
    const addresses = (known[name] ?? []).map((one) => ({
      family: one.family === 'IPv4' ? ('ipv4' as const) : ('ipv6' as const),
      address: one.address,
      prefix: Number(one.cidr?.split('/')[1] ?? 0),
    }));
    return {
      name,
      mac: read(`${at}/address`) ?? '',
      up: (Number(read(`${at}/flags`)) & 1) === 1,
      mtu: Number(read(`${at}/mtu`) ?? 0),
      ...(speed > 0 && { speed }),
      addresses,
    };
  });
}

const disks = async (): Promise<HostDisk[]> =>
  names('/sys/block').flatMap((name) => {
    const size = Number(read(`/sys/block/${name}/size`) ?? 0) * 512;
    if (size === 0 || /^(loop|ram|zram)/.test(name)) return [];
    return [{ name, size, sectorSize: Number(read(`/sys/block/${name}/queue/logical_block_size`) ?? 512) }];
  });

const pci = async (): Promise<HostPci[]> =>
  names('/sys/bus/pci/devices').map((address) => {
    const at = `/sys/bus/pci/devices/${address}`;
    const driver = existsSync(`${at}/driver`) ? readlinkSync(`${at}/driver`).split('/').at(-1) : undefined;
    return {
      address,
      class: Number(read(`${at}/class`) ?? 0),
      vendor: Number(read(`${at}/vendor`) ?? 0),
      device: Number(read(`${at}/device`) ?? 0),
      ...(driver !== undefined && { driver }),
    };
  });

async function counters(device: string): Promise<number[] | undefined> {
  const at = `/sys/class/net/${device}/statistics`;
  if (device.includes('/') || !existsSync(at)) return undefined;
  const kinds = ['bytes', 'packets', 'errors', 'dropped'];
  return ['rx', 'tx'].flatMap((way) => kinds.map((kind) => Number(read(`${at}/${way}_${kind}`) ?? 0)));
}

const architectures: Readonly<Record<string, string>> = { x64: 'x86_64', arm64: 'aarch64', ia32: 'i686' };

export function nodeFacts(): HostFacts {
  const list = cpuList();
  let identity: { readonly found: CpuIdentity | undefined } | undefined;
  return {
    arch: architectures[arch()] ?? arch(),
    uid: process.getuid?.() ?? 0,
    hostname: hostname(),
    uuid: read('/sys/class/dmi/id/product_uuid')?.toLowerCase(),
    cpu: cpuFacts(),
    identity: () => (identity ??= { found: readCpuIdentity() }).found,
    topology: topologyOf(list),
    cpus: list,
    cells: () => cells(list, memory()),
    caches: () => caches(list),
    memory,
    cpuTimes,
    interfaces,
    disks,
    pci,
    counters,
  };
}
