// What an emulator can do, asked of the emulator itself over QMP and remembered until its file changes. QEMU "QMP Reference Manual".
import type { ExpandedCpu } from '../domain/cpu/map.ts';
import type { EmulatorInfo, MachineInfo } from '../domain/emulator.ts';
import { libvirtError } from '../rpc/libvirt/errors.ts';
import { QmpClient } from '../rpc/qmp/client.ts';
import { isObject, type Json } from '../rpc/qmp/json.ts';
import type { DaemonHost } from './host.ts';

export type Accelerator = 'kvm' | 'tcg';

export interface CpuDefinition {
  readonly name: string;
  readonly deprecated: boolean;
  /** Features that the accelerator lacks; undefined when the emulator does not say. */
  readonly unavailable?: readonly string[];
}

/** CPUs under one accelerator. */
export interface AcceleratorCpus {
  readonly definitions: readonly CpuDefinition[];
  /** The CPU with everything that it can give a guest; undefined when the emulator does not say. */
  readonly all?: ExpandedCpu & { readonly stepping: number };
}

/** All that a probe found; plain data, so that it can be kept in a file. */
export interface EmulatorProbe {
  readonly info: EmulatorInfo;
  readonly version: { readonly major: number; readonly minor: number; readonly micro: number };
  readonly package: string;
  readonly accelerators: readonly Accelerator[];
  /** By accelerator, for each that it has. */
  readonly cpus: Readonly<Partial<Record<Accelerator, AcceleratorCpus>>>;
  /** What models mean to it, whatever the accelerator has, newest first. */
  readonly models: Readonly<Record<string, ExpandedCpu>>;
  /** Names of all features of CPUs. */
  readonly features: readonly string[];
  /** Names of device types. */
  readonly types: readonly string[];
  readonly commands: readonly string[];
}

const probeMs = 30_000;
/** Changes with what a probe holds: files of other formats are not read. */
const format = 3;

const objects = (value: Json): readonly { readonly [name: string]: Json }[] =>
  Array.isArray(value) ? value.filter(isObject) : [];
const names = (value: Json): string[] => objects(value).map((one) => String(one['name']));

function machineOf(given: { readonly [name: string]: Json }): MachineInfo {
  return {
    name: String(given['name']),
    ...(given['alias'] !== undefined && { alias: String(given['alias']) }),
    maxCpus: Number(given['cpu-max'] ?? 1),
    ...(given['default-ram-id'] !== undefined && { ramId: String(given['default-ram-id']) }),
    ...(given['is-default'] === true && { isDefault: true }),
    ...(given['deprecated'] === true && { deprecated: true }),
  };
}

/** libvirt's order: the default first, aliases with their machine, then as the emulator lists them. */
function sortMachines(list: readonly MachineInfo[]): MachineInfo[] {
  const first = list.filter((one) => one.isDefault);
  return [...first, ...list.filter((one) => !one.isDefault && one.name !== 'none')];
}

const architectureNames: Readonly<Record<string, string>> = { i386: 'i686', arm: 'armv7l' };

/** Asks one command; `fallback` when the emulator does not have it. */
type Ask = (command: string, fallback: Json, args?: Readonly<Record<string, Json>>) => Promise<Json>;

function asker(qmp: QmpClient): Ask {
  return async (command, fallback, args) => {
    try {
      return await qmp.execute(command, args);
    } catch (error) {
      if (qmpClosed(error)) throw error;
      return fallback;
    }
  };
}

/** A model's properties by QEMU's one name for each, without aliases. */
async function expansion(
  ask: Ask,
  name: string,
  given: Readonly<Record<string, Json>> = {},
): Promise<Readonly<Record<string, Json>> | undefined> {
  const answer = await ask('query-cpu-model-expansion', {}, { type: 'static', model: { name, props: given } });
  const model = isObject(answer) ? answer['model'] : undefined;
  return isObject(model) && isObject(model['props']) ? model['props'] : undefined;
}

const expanded = (props: Readonly<Record<string, Json>>) => ({
  vendor: String(props['vendor'] ?? ''),
  family: Number(props['family'] ?? 0),
  model: Number(props['model'] ?? 0),
  stepping: Number(props['stepping'] ?? 0),
  features: Object.keys(props).filter((name) => props[name] === true),
});

async function cpusOf(ask: Ask, accelerator: Accelerator): Promise<AcceleratorCpus> {
  const definitions = objects(await ask('query-cpu-definitions', [])).map(
    (one): CpuDefinition => ({
      name: String(one['name']),
      deprecated: one['deprecated'] === true,
      ...(Array.isArray(one['unavailable-features']) && { unavailable: one['unavailable-features'].map(String) }),
    }),
  );
  // What a host has includes what keeps a guest from moving.
  const all = accelerator === 'kvm' ? await expansion(ask, 'host', { migratable: false }) : await expansion(ask, 'max');
  return { definitions, ...(all && { all: expanded(all) }) };
}

/** What is asked once, under the best accelerator. */
async function interview(qmp: QmpClient, path: string): Promise<EmulatorProbe> {
  const greeting = await qmp.negotiate();
  const ask = asker(qmp);
  const version = isObject(greeting) && isObject(greeting['version']) ? greeting['version'] : {};
  const number = isObject(version['qemu']) ? version['qemu'] : {};
  const target = await ask('query-target', { arch: 'x86_64' });
  const types = names(await ask('qom-list-types', []));
  const kvm = await ask('query-kvm', {});
  const machines = objects(await ask('query-machines', []));
  const standard = machines.find((one) => one['is-default'] === true) ?? machines[0];
  const cpuType = String(standard?.['default-cpu-type'] ?? 'qemu64-x86_64-cpu');
  const accelerators: Accelerator[] = isObject(kvm) && kvm['enabled'] === true ? ['kvm', 'tcg'] : ['tcg'];
  const cpus = await cpusOf(ask, accelerators[0]!);
  const models: Record<string, ExpandedCpu> = {};
  for (const { name } of cpus.definitions.filter(isModel)) {
    const props = await expansion(ask, name);
    if (!props) break;
    const { stepping: _, ...cpu } = expanded(props);
    models[name] = cpu;
  }
  const most = (await expansion(ask, 'max')) ?? {};
  const arch = isObject(target) ? String(target['arch']) : 'x86_64';
  return {
    info: {
      path,
      arch: architectureNames[arch] ?? arch,
      machines: sortMachines(machines.map(machineOf)),
      defaultCpu: cpuType.replace(/-[^-]+-cpu$/, ''),
      defaultVideo: types.includes('cirrus-vga') ? 'cirrus' : 'vga',
    },
    version: { major: Number(number['major'] ?? 0), minor: Number(number['minor'] ?? 0), micro: Number(number['micro'] ?? 0) },
    package: String(version['package'] ?? ''),
    accelerators,
    cpus: { [accelerators[0]!]: cpus },
    models,
    features: Object.keys(most).filter((name) => typeof most[name] === 'boolean'),
    types,
    commands: names(await ask('query-commands', [])),
  };
}

/** Models by the names that documents use: no versions, nothing that depends on the host. */
export const isModel = ({ name }: { readonly name: string }): boolean =>
  !['host', 'max', 'base'].includes(name) && !/-v\d+$/.test(name);

const qmpClosed = (error: unknown): boolean => error instanceof Error && error.message.startsWith('Cannot talk');

export class Emulators {
  readonly #host: DaemonHost;
  readonly #cache: string;
  readonly #candidates: readonly string[];
  readonly #probes = new Map<string, { readonly stamp: string; readonly probe: Promise<EmulatorProbe> }>();

  /** `candidates`: paths of emulators, the first that works is the default of its architecture. */
  constructor(host: DaemonHost, cache: string, candidates: readonly string[]) {
    this.#host = host;
    this.#cache = `${cache}/capabilities`;
    this.#candidates = candidates;
  }
  /** @throws {LibvirtError} when there is no such file or it is no emulator. */
  async probe(path: string): Promise<EmulatorProbe> {
    const status = await this.#host.files.status(path);
    if (status === undefined) {
      throw libvirtError('systemError', 'qemu', `Cannot check QEMU binary ${path}: No such file or directory`);
    }
    const stamp = `${status.modified} ${status.size}`;
    const known = this.#probes.get(path);
    if (known?.stamp === stamp) return known.probe;
    const probe = this.#load(path, stamp);
    this.#probes.set(path, { stamp, probe });
    probe.catch(() => this.#probes.delete(path));
    return probe;
  }
  /** All candidates that work. */
  async all(): Promise<EmulatorProbe[]> {
    const list: EmulatorProbe[] = [];
    for (const path of this.#candidates) {
      if ((await this.#host.files.status(path)) === undefined) continue;
      try {
        list.push(await this.probe(path));
      } catch (error) {
        this.#host.log(`${path}: ${(error as Error).message}`);
      }
    }
    return list;
  }
  /** What definitions are completed with; `path` is one more emulator that a document names. */
  async infos(path?: string): Promise<EmulatorInfo[]> {
    const list = (await this.all()).map((one) => one.info);
    if (path === undefined || list.some((one) => one.path === path)) return list;
    return [...list, (await this.probe(path)).info];
  }
  async #load(path: string, stamp: string): Promise<EmulatorProbe> {
    const key = this.#host.crypto.sha256(new TextEncoder().encode(path));
    const file = `${this.#cache}/${Array.from(key, (b) => b.toString(16).padStart(2, '0')).join('')}.json`;
    const kept = await this.#host.files.read(file);
    if (kept !== undefined) {
      const found = parseKept(kept);
      if (found?.stamp === stamp) return found.probe;
    }
    const probe = await this.#run(path);
    await this.#host.files.makeDirectory(this.#cache, 0o700);
    await this.#host.files.write(file, JSON.stringify({ format, stamp, probe }));
    return probe;
  }
  async #run(path: string): Promise<EmulatorProbe> {
    const probe = await this.#talk(path, 'kvm:tcg', (qmp) => interview(qmp, path));
    if (!probe.accelerators.includes('kvm')) return probe;
    const tcg = await this.#talk(path, 'tcg', async (qmp) => {
      await qmp.negotiate();
      return cpusOf(asker(qmp), 'tcg');
    });
    return { ...probe, cpus: { ...probe.cpus, tcg } };
  }
  async #talk<T>(path: string, accelerators: string, what: (qmp: QmpClient) => Promise<T>): Promise<T> {
    const machine = `none,accel=${accelerators}`;
    const args = ['-S', '-no-user-config', '-nodefaults', '-nographic', '-machine', machine, '-qmp', 'stdio'];
    const { duplex, ended } = this.#host.processes.pipe(path, args);
    const qmp = new QmpClient(duplex);
    const stop = this.#host.timers.after(probeMs, () => qmp.close(new Error('it does not answer')));
    try {
      return await what(qmp);
    } catch (error) {
      qmp.close();
      const said = (await ended).trim() || (error as Error).message;
      throw libvirtError('internalError', 'qemu', `Failed to probe QEMU binary with QMP: ${said}`);
    } finally {
      stop();
      qmp.close();
    }
  }
}

function parseKept(text: string): { stamp: string; probe: EmulatorProbe } | undefined {
  try {
    const kept = JSON.parse(text) as { format?: number; stamp: string; probe: EmulatorProbe };
    return kept.format === format ? kept : undefined;
  } catch {
    return undefined;
  }
}
