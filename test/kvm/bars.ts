// The bars of the real KVM: boot and virtio-blk against QEMU on the same KVM, inside the outer guest (outer.ts). `node test/kvm/bars.ts [ROUNDS]`;
// it takes two minutes a round on idle cores, and as long on others at real-time priority (`chrt -r 10` before it). It prints each round, the medians, and
// their ratios. Beside seconds it tells a boot's processor time of the outer QEMU, which others on the host disturb less. Each round has an outer guest of its own, and another one where that ends before it (outer.ts).

import { DISK, emulators, outerGuest, whyNot } from './outer.ts';

/** Longest time of a round, and without a word, in seconds. */
const SECONDS = 900;
const SILENT = 200;
/** Outer guests of a round. */
const TRIES = 4;

const rounds = Number(process.argv[2] ?? 3);
const why = await whyNot();
if (why) throw new Error(`Cannot measure: ${why}`);
const more = await emulators();

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
