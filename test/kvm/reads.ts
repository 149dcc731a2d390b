// Do guests come to their end while they read a disk on the real KVM, and does it go by where the interrupt controllers are? `node test/kvm/reads.ts SECONDS
// WHO:IRQCHIP...`, such as `node test/kvm/reads.ts 15 nonroot:on qemu:on nonroot:split`, boots one guest after the other in one outer guest (outer.ts) and has
// each read for so long. It prints the outer QEMU's age and processor time, and a line for each guest; of one that stands still, what its threads are in.

import { DISK, emulators, outerGuest, whyNot } from './outer.ts';

/** Longest time of the outer guest, and without a word, in seconds. */
const SECONDS = 3600;
const SILENT = 400;

const guests = process.argv.slice(2);
const why = (await whyNot()) || (guests.length < 2 && 'how long and which guests is not said');
if (why) throw new Error(`Cannot look: ${why}`);
const start = Date.now();
const ended = await outerGuest(
  `${DISK}node test/kvm/reads-inner.js ${guests.join(' ')}\n`,
  (line, taken) => console.log(`${Math.round((Date.now() - start) / 1000)} s, ${taken().toFixed(0)} s: ${line}`),
  { seconds: SECONDS, silent: SILENT, more: await emulators() },
);
console.log(`the outer guest: ${ended ?? 'ended as it should'}`);
