// The bars of the real KVM: boot and virtio-blk against QEMU on the same KVM, inside the outer guest (outer.ts). `node test/kvm/bars.ts [ROUNDS]`;
// it takes two minutes a round on idle cores, and as long on others at real-time priority (`chrt -r 10` before it). It prints each round, the medians, and
// their ratios. Beside seconds it tells a boot's processor time of the outer QEMU, which others on the host disturb less. Each round has an outer guest of its own, and another one where that ends before it (outer.ts).

import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type CpioEntry, file } from '../../src/images/cpio.ts';
import { APP, outerGuest, tree, whyNot } from './outer.ts';

const QEMU = '/usr/bin/qemu-system-x86_64';
/** What QEMU reads when it starts a kernel. */
const FIRMWARE = ['seabios/bios-256k.bin', 'qemu/linuxboot_dma.bin', 'qemu/kvmvapic.bin'];
/** Longest time of a round, and without a word, in seconds. */
const SECONDS = 900;
const SILENT = 200;
/** Outer guests of a round. */
const TRIES = 4;
/** Both emulators' disk: what the outer guest keeps of it in its memory can be read without waiting, which a file in tmpfs cannot. */
const DISK = 'truncate -s 64M /tmp/disk && modprobe loop && losetup /dev/loop0 /tmp/disk\n';

const rounds = Number(process.argv[2] ?? 3);
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

type Bar = Readonly<Record<string, number | string>>;
const results: Bar[] = [];
for (let round = 0; round < rounds; round++) {
  for (let n = 1; ; n++) {
    const found: Bar[] = [];
    let before = 0;
    let processor = 0;
    const why = await outerGuest(
      `${DISK}node test/kvm/bars-inner.js ${round}\n`,
      (line, taken) => {
        if (line === 'begins') before = taken();
        if (line === 'booted') processor = taken() - before;
        const bar = /^bar (\{.*\})$/.exec(line);
        const result = bar && { ...(JSON.parse(bar[1]!) as Bar), processor };
        console.log(result ? JSON.stringify(result) : line);
        if (result) found.push(result);
      },
      { seconds: SECONDS, silent: SILENT, more },
    );
    results.push(...found);
    if (why === undefined && found.length === 2) break;
    console.log(
      `${why === undefined ? 'a guest did not come to its end' : `the outer guest: ${why}`}${n < TRIES ? '; once more' : ''}`,
    );
    if (n === TRIES) throw new Error(`Cannot measure: ${TRIES} outer guests did not come to their end`);
  }
}
for (const bar of ['boot', 'processor', '4k', '64k']) {
  const median = (who: string): number => {
    const all = results.filter((r) => r['who'] === who).map((r) => Number(r[bar]));
    return all.toSorted((a, b) => a - b)[all.length >> 1] ?? Number.NaN;
  };
  const [ours, theirs] = [median('nonroot'), median('qemu')];
  console.log(`${bar}: ${ours.toFixed(2)} against ${theirs.toFixed(2)} of QEMU, ratio ${(ours / theirs).toFixed(2)}`);
}
