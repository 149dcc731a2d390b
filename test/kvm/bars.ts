// The bars of the real KVM: boot and virtio-blk against QEMU on the same KVM, inside the outer guest (outer.ts). `node test/kvm/bars.ts [ROUNDS]`;
// it takes two minutes a round on idle cores. It prints each round, the medians, and their ratios.

import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type CpioEntry, file } from '../../src/images/cpio.ts';
import { APP, outerGuest, tree, whyNot } from './outer.ts';

const QEMU = '/usr/bin/qemu-system-x86_64';
/** What QEMU reads when it starts a kernel. */
const FIRMWARE = ['seabios/bios-256k.bin', 'qemu/linuxboot_dma.bin', 'qemu/kvmvapic.bin'];
const SECONDS = 3000;

const rounds = process.argv[2] ?? '3';
const why = await whyNot();
if (why) throw new Error(`Cannot measure: ${why}`);
const libraries = [...spawnSync('ldd', [QEMU], { encoding: 'utf8' }).stdout.matchAll(/(\/\S+)/g)].map((m) => m[1]!);
const more: CpioEntry[] = [];
for (const path of [QEMU, ...libraries, ...FIRMWARE.map((name) => `/usr/share/${name}`)])
  more.push(file(path.slice(1), await readFile(path), 0o755));

// The programs as they are installed: bundled.
const root = dirname(dirname(import.meta.dirname));
const bundled = spawnSync(process.execPath, [join(root, 'tools/bundle.ts')], { stdio: 'inherit' });
if (bundled.status !== 0) throw new Error('Cannot measure: the programs cannot be bundled');
more.push(...(await tree(join(root, 'dist'), `${APP}/dist`)).filter((e) => !e.path.endsWith('.map')));

const results: Record<string, number>[] = [];
await outerGuest(
  `node test/kvm/bars-inner.js ${rounds}\n`,
  (line) => {
    console.log(line);
    const found = /^bar (\{.*\})$/.exec(line);
    if (found) results.push(JSON.parse(found[1]!) as Record<string, number>);
  },
  { seconds: SECONDS, more },
);
for (const bar of ['boot', '4k', '64k']) {
  const median = (who: string): number => {
    const all = results.filter((r) => String(r['who']) === who).map((r) => r[bar]!);
    return all.toSorted((a, b) => a - b)[all.length >> 1] ?? Number.NaN;
  };
  const [ours, theirs] = [median('nonroot'), median('qemu')];
  console.log(`${bar}: ${ours.toFixed(2)} against ${theirs.toFixed(2)} of QEMU, ratio ${(ours / theirs).toFixed(2)}`);
}
