// Procedures about CPU models: comparing a CPU with this host's or a hypervisor's, and what several have in common.
import {
  BaselineError,
  baselineCpu,
  type Comparison,
  type CpuData,
  type CpuDescription,
  compareCpu,
  type DecodedCpu,
  dataOf,
  expandCpu,
  formatCpu,
  parseCpu,
} from '../domain/cpu/cpu.ts';
import type { CpuMap } from '../domain/cpu/map.ts';
import { libvirtError } from '../rpc/libvirt/errors.ts';
import { chooseEmulator } from './capabilities.ts';
import { hypervisorModel, isX86, usableModels } from './cpus.ts';
import type { Daemon, RemoteHandlers } from './daemon.ts';
import { checkFlags, translateErrors } from './errors.ts';

const compareFlags = { failIncompatible: 1, validate: 2 } as const;
const baselineFlags = { expand: 1, migratable: 2 } as const;
const answers = { incompatible: 0, identical: 1, superset: 2 } as const;
const archs = ['i686', 'x86_64'];

function answer(found: Comparison, flags: number): { result: number } {
  if (found.result === 'incompatible' && (flags & compareFlags.failIncompatible) !== 0) {
    throw libvirtError('cpuIncompatible', 'cpu', found.why);
  }
  return { result: answers[found.result] };
}

/** What a decoded CPU has. */
function dataOfDecoded(map: CpuMap, { model, vendor, features }: DecodedCpu): CpuData {
  const cpu = { model: { name: model }, features: features.map((one) => ({ ...one })) };
  return { ...dataOf(map, { kind: 'guest', cpu }), ...(vendor !== undefined && { vendor }) };
}

function parseCpus(texts: readonly string[], kind?: 'host'): CpuDescription[] {
  if (texts.length === 0) throw libvirtError('invalidArg', 'cpu', 'no CPUs given');
  const cpus = texts.map((text) => parseCpu(text, kind));
  cpus.forEach(({ cpu }, index) => {
    if (cpu.model?.name === undefined) throw libvirtError('invalidArg', 'cpu', `no CPU model specified at index ${index}`);
  });
  return cpus;
}

function baseline(...args: Parameters<typeof baselineCpu>): ReturnType<typeof baselineCpu> {
  try {
    return baselineCpu(...args);
  } catch (error) {
    throw error instanceof BaselineError ? libvirtError('operationFailed', 'cpu', error.message) : error;
  }
}

function finish(map: CpuMap, cpu: DecodedCpu, fallback: 'allow' | 'forbid', flags: number): { cpu: string } {
  const migratable = (flags & baselineFlags.migratable) !== 0;
  const expanded =
    (flags & baselineFlags.expand) === 0 ? cpu : expandCpu(map, cpu, (feature) => migratable && !feature.migratable);
  return { cpu: formatCpu(expanded, fallback) };
}

export function cpuHandlers(daemon: Daemon): RemoteHandlers {
  const { cpus } = daemon;
  return translateErrors('cpu', {
    async connectGetCpuModelNames({ arch, needResults }) {
      const ours = isX86(arch);
      if (!ours && !/^(aarch64|armv7l|ppc64|ppc64le|s390x)$/.test(arch)) {
        throw libvirtError('invalidArg', 'cpu', `cannot find architecture ${arch}`);
      }
      const models = ours ? [...(await cpus.map()).models.keys()] : [];
      return { models: needResults ? models : [], ret: models.length };
    },
    async connectCompareCpu({ xml, flags }) {
      checkFlags('qemuConnectCompareCPU', flags, 3);
      const wanted = parseCpu(xml);
      return answer(compareCpu(await cpus.map(), await cpus.host(), wanted, archs), flags);
    },
    async connectBaselineCpu({ cpus: texts, flags }) {
      checkFlags('qemuConnectBaselineCPU', flags, 3);
      const list = parseCpus(texts, 'host');
      const foreign = list.find(({ arch }) => !isX86(arch!));
      if (foreign) {
        throw libvirtError('noSupport', 'cpu', `cannot compute baseline CPU of ${foreign.arch} architecture`);
      }
      const map = await cpus.map();
      const { cpu, fixed } = baseline(map, list, { migratable: (flags & baselineFlags.migratable) !== 0 });
      return finish(map, cpu, fixed ? 'forbid' : 'allow', flags);
    },
    async connectCompareHypervisorCpu({ emulator, arch, machine, virtType, cpu, flags }) {
      checkFlags('qemuConnectCompareHypervisorCPU', flags, 3);
      const { probe, type } = await chooseEmulator(daemon, emulator, arch, machine, virtType);
      const wanted = parseCpu(cpu);
      const map = await cpus.map();
      const model = isX86(probe.info.arch) ? hypervisorModel(map, probe, type) : undefined;
      if (!model) {
        throw libvirtError(
          'operationUnsupported',
          'cpu',
          `QEMU '${probe.info.path}' does not support reporting CPU model for virttype '${type}'`,
        );
      }
      return answer(compareCpu(map, dataOfDecoded(map, model), wanted, archs), flags);
    },
    async connectBaselineHypervisorCpu({ emulator, arch, machine, virtType, cpus: texts, flags }) {
      checkFlags('qemuConnectBaselineHypervisorCPU', flags, 3);
      const { probe, type } = await chooseEmulator(daemon, emulator, arch, machine, virtType);
      const models = usableModels(probe, type);
      if (!isX86(probe.info.arch) || models.length === 0) {
        throw libvirtError(
          'operationUnsupported',
          'cpu',
          `QEMU '${probe.info.path}' does not support any CPU models for virttype '${type}'`,
        );
      }
      const list = parseCpus(texts);
      const map = await cpus.map();
      const migratable = (flags & baselineFlags.migratable) !== 0;
      const { cpu } = baseline(map, list, { models, known: probe.features, migratable });
      return finish(map, cpu, 'forbid', flags);
    },
  } satisfies RemoteHandlers);
}
