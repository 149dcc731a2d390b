// The CPUs of this host and of its emulators in libvirt's words: one map of names, and what each of them has.
import { type CpuData, type DecodedCpu, decodeCpu, type UsableModel } from '../domain/cpu/cpu.ts';
import { identifyCpu } from '../domain/cpu/identify.ts';
import { type CpuMap, mapOfEmulator, readMap } from '../domain/cpu/map.ts';
import { parseXml } from '../domain/xml.ts';
import type { Daemon } from './daemon.ts';
import { type Accelerator, type EmulatorProbe, isModel } from './emulators.ts';

/** Where libvirt's client library keeps its map. */
const mapDirectory = '/usr/share/libvirt/cpu_map';

export const isX86 = (arch: string): boolean => arch === 'x86_64' || arch === 'i686';

export class Cpus {
  readonly #daemon: Daemon;
  #map: Promise<CpuMap> | undefined;

  constructor(daemon: Daemon) {
    this.#daemon = daemon;
  }
  /** libvirt's map where its client library is installed, otherwise what the first emulator says. */
  map(): Promise<CpuMap> {
    this.#map ??= this.#load();
    this.#map.catch(() => (this.#map = undefined));
    return this.#map;
  }
  async #load(): Promise<CpuMap> {
    const { host, emulators } = this.#daemon;
    if ((await host.files.status(`${mapDirectory}/index.xml`)) !== undefined) {
      try {
        return await readMap('x86', async (file) => {
          const text = await host.files.read(`${mapDirectory}/${file}`);
          if (text === undefined) throw new Error(`${file} is missing`);
          return parseXml(text, 'cpu_map');
        });
      } catch (error) {
        host.log(`${mapDirectory}: ${(error as Error).message}: CPU models are taken from the emulator`);
      }
    }
    const probe = (await emulators.all()).find((one) => isX86(one.info.arch));
    return mapOfEmulator(probe?.models ?? {}, probe?.features ?? []);
  }
  /** This host's CPU, by what it says of itself; by what its kernel says of it where that cannot be asked or the map has no bits. */
  async host(): Promise<CpuData> {
    const map = await this.map();
    const { facts } = this.#daemon.host;
    const identity = [...map.features.values()].some((one) => one.bits.length > 0) ? facts.identity() : undefined;
    if (identity) return identifyCpu(map, identity);
    const { vendor, family, model, flags } = facts.cpu;
    const features = new Set(flags.flatMap((flag) => map.featureName(flag) ?? []));
    // The kernel does not list what it has switched on for programs.
    if (features.has('xsave') && map.features.has('osxsave')) features.add('osxsave');
    return { ...(vendor !== '' && { vendor: map.vendorName(vendor) ?? vendor }), signature: { family, model }, features };
  }
  /** The model of this host's CPU, with what it has more. */
  async hostModel(): Promise<DecodedCpu | undefined> {
    return decodeCpu(await this.map(), await this.host(), { kind: 'host' });
  }
}

const acceleratorOf = (type: string): Accelerator => (type === 'kvm' ? 'kvm' : 'tcg');

/** Models that a guest of the type may name, with what keeps them from running as they are. */
export function usableModels(probe: EmulatorProbe, type: string): (UsableModel & { readonly known: boolean })[] {
  const definitions = probe.cpus[acceleratorOf(type)]?.definitions ?? [];
  return definitions
    .filter(isModel)
    .map(({ name, unavailable }) => ({ name, blockers: unavailable ?? [], known: unavailable !== undefined }));
}

/** The CPU that the emulator gives a guest whose `<cpu>` is the host's model; undefined when the emulator does not say. */
export function hypervisorModel(map: CpuMap, probe: EmulatorProbe, type: string): DecodedCpu | undefined {
  const all = probe.cpus[acceleratorOf(type)]?.all;
  if (!all) return undefined;
  const vendor = map.vendorName(all.vendor);
  const data: CpuData = {
    ...(vendor !== undefined && { vendor }),
    signature: { family: all.family, model: all.model },
    features: new Set(all.features.flatMap((name) => map.featureName(name) ?? [])),
  };
  return decodeCpu(map, data, { kind: 'guest', models: usableModels(probe, type) });
}
