// Proves every module of regions that is compiled in this thread from now on.

import { type Proof, prove } from '../../src/accel/dbt/prove.ts';
import { decodeModule, type WasmModule } from '../../src/wasm/decode.ts';

/** Imports of region modules that take no state: functions of the host. */
export const hosts: ReadonlySet<string> = new Set([
  'cas',
  'codeWrite',
  'cpuid',
  'hypercall',
  'manyMisses',
  'manyTargets',
  'mmioRead',
  'mmioWrite',
  'portIn',
  'portOut',
  'leaveSoon',
  'tscChanged',
  'random',
  'rdmsr',
  'rdpmc',
  'resolve',
  'stopSoon',
  'tprRead',
  'tprWrite',
  'tsc',
  'usesStack',
  'validateRegion',
  'watchChanged',
  'wrmsr',
]);

/** Has `see` called with each module of regions and its proof. */
export function watchRegions(see: (module: WasmModule, proof: Proof) => void): void {
  const original = WebAssembly.Module;
  WebAssembly.Module = new Proxy(original, {
    construct(target, [bytes]: [Uint8Array<ArrayBuffer>]) {
      const module = decodeModule(bytes);
      // Regions are exported by their places in the table; other modules are not made from whole programs of guests.
      if ([...module.exports.keys()].some((name) => /^r\d+$/.test(name))) see(module, prove(module, hosts));
      return new target(bytes);
    },
  });
}
