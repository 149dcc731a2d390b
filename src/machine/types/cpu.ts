// A vCPU as a device: what `device_add` brings to a machine with room for more (`-smp 1,maxcpus=2`), at a socket, core and thread.

import type { MachineConfig } from '../config.ts';
import { type AnyDeviceType, deviceType } from '../device-type.ts';
import { type Property, str } from '../properties.ts';

/** QEMU's name of the type of a CPU model's vCPUs is the model's with this behind it. */
export const CPU_SUFFIX = '-x86_64-cpu';
/** The name of a machine's type of vCPUs. */
export const cpuTypeName = (config: MachineConfig): string => `${config.cpuModel.split(',')[0]}${CPU_SUFFIX}`;

/** How a machine's possible vCPUs are arranged. */
export const arrangement = (
  config: Pick<MachineConfig, 'topology' | 'cpus'>,
): { readonly sockets: number; readonly cores: number; readonly threads: number } =>
  config.topology ?? { threads: 1, cores: config.cpus, sockets: 1 };

/** Socket, core and thread of vCPU n, threads counted first; its node where there are nodes. */
export function cpuPlace(
  config: Pick<MachineConfig, 'topology' | 'cpus' | 'numa'>,
  n: number,
): Readonly<Record<'socket-id' | 'core-id' | 'thread-id', number>> & { readonly 'node-id'?: number } {
  const { cores, threads } = arrangement(config);
  return {
    'socket-id': Math.floor(n / (cores * threads)),
    'core-id': Math.floor(n / threads) % cores,
    'thread-id': n % threads,
    ...(config.numa ? { 'node-id': config.numa.cpus[n]! } : {}),
  };
}

/** A number of the topology; undefined where it was not given. */
const id: Property<number | undefined> = {
  type: 'int32',
  description: '',
  default: undefined,
  accepted: 'a number from 0',
  parse: (v) => {
    const n = typeof v === 'string' && /^\d+$/.test(v) ? Number(v) : v;
    return typeof n === 'number' && Number.isInteger(n) && n >= 0 ? n : undefined;
  },
};

/** The type of vCPUs that the machine takes. */
export const cpuType = (config: MachineConfig): AnyDeviceType => {
  const { sockets, cores, threads } = arrangement(config);
  return deviceType({
    name: cpuTypeName(config),
    bus: 'CPU',
    description: 'vCPU',
    category: 'CPU',
    parents: ['x86_64-cpu', 'cpu', 'device'],
    properties: { 'socket-id': id, 'die-id': id, 'core-id': id, 'thread-id': id, 'node-id': id, 'apic-id': str() },
    build(ctx, p) {
      const at = (name: 'socket-id' | 'core-id' | 'thread-id', count: number): number => {
        const n = p[name];
        if (n === undefined) throw new Error(`CPU ${name} is not set`);
        if (n >= count) throw new Error(`Invalid CPU ${name}: ${n} must be in range 0:${count - 1}`);
        return n;
      };
      if ((p['die-id'] ?? 0) !== 0) throw new Error(`Invalid CPU die-id: ${p['die-id']} must be in range 0:0`);
      const socket = at('socket-id', sockets);
      const core = at('core-id', cores);
      const cpu = (socket * cores + core) * threads + at('thread-id', threads);
      const node = config.numa?.cpus[cpu] ?? 0;
      if ((p['node-id'] ?? node) !== node)
        throw new Error(`node-id=${p['node-id']} must match numa node specified with -numa option: ${node}`);
      ctx.onRemove(ctx.bus.add(cpu, ctx.path));
      return { reset: () => {} };
    },
  });
};
