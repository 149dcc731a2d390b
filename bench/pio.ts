// What a port access costs under KVM that TypeScript serves, against the same loop in C (pio.c), in turn on this machine's /dev/kvm.
// The bar: at most 1.5 times. Usage: node bench/pio.ts [ROUNDS [EXITS]]; it needs gcc.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { emptyBus } from '../src/accel/accel.ts';
import { layoutOf } from '../src/accel/dbt/layout.ts';
import { KvmRegions } from '../src/accel/kvm/regions.ts';
import { KvmVcpu } from '../src/accel/kvm/vcpu.ts';
import { KvmVm } from '../src/accel/kvm/vm.ts';
import { kvmHost } from '../src/host/node/kvm-native.ts';
import { median } from './measure.ts';

const rounds = Number(process.argv[2] ?? 15);
const exits = Number(process.argv[3] ?? 20_000);
if (!(rounds >= 1 && exits >= 1)) throw new Error('Cannot measure: accepted are positive numbers of rounds and exits');

const folder = mkdtempSync(join(tmpdir(), 'nonroot-pio-'));
const program = join(folder, 'pio');
const built = spawnSync('gcc', ['-O2', '-o', program, new URL('pio.c', import.meta.url).pathname], { encoding: 'utf8' });
if (built.status !== 0) throw new Error(`Cannot build pio.c: ${built.error?.message ?? built.stderr}`);

const layout = layoutOf(2 << 20, 1);
const { buffer } = new WebAssembly.Memory({ initial: layout.pages, maximum: layout.pages, shared: true });
const bytes = new Uint8Array(buffer);
const vm = KvmVm.create(kvmHost(), 'off');
new KvmRegions(vm, buffer, layout).update();
let seen = 0;
const bus = { ...emptyBus(), portOut: () => void seen++ };
const vcpu = new KvmVcpu({ vm, memory: buffer, layout, index: 0, bus });
// mov ecx,exits; L: out 0x80,al; dec ecx; jnz L; hlt
const code = Buffer.from('66b900000000e680664975faf4', 'hex');
code.writeUInt32LE(exits, 2);
bytes.set(code, layout.ramBase + 0x1000);

/** Nanoseconds per exit. */
function ours(): number {
  vcpu.reset();
  vcpu.set('cs.selector', 0n);
  vcpu.set('cs.base', 0n);
  vcpu.set('rip', 0x1000n);
  seen = 0;
  const start = performance.now();
  while (vcpu.run(0, Number.POSITIVE_INFINITY) !== 'hlt');
  const ns = ((performance.now() - start) * 1e6) / exits;
  if (seen !== exits) throw new Error(`Cannot measure: ${seen} writes for ${exits}`);
  return ns;
}
function inC(): number {
  const { status, stdout, stderr } = spawnSync(program, [String(exits)], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`Cannot run pio.c: ${stderr}`);
  return Number(stdout);
}

ours();
const pairs = Array.from({ length: rounds }, (_, n) => {
  // Whoever comes first has a colder machine: take turns.
  if (n % 2 === 0) return { c: inC(), ts: ours() };
  const ts = ours();
  return { c: inC(), ts };
});
rmSync(folder, { recursive: true });
const row = (name: string, values: readonly number[]): string =>
  `${name}: ${median(values).toFixed(0)} ns (${Math.min(...values).toFixed(0)} to ${Math.max(...values).toFixed(0)})`;
console.log(row('TypeScript', pairs.map((p) => p.ts))); // biome-ignore format: one line
console.log(row('C', pairs.map((p) => p.c))); // biome-ignore format: one line
console.log(`ratio of the medians ${(median(pairs.map((p) => p.ts)) / median(pairs.map((p) => p.c))).toFixed(2)}, of the pairs ${median(pairs.map((p) => p.ts / p.c)).toFixed(2)}; the bar is 1.50`); // biome-ignore format: one line
process.exit();
