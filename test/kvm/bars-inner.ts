// Runs inside the outer guest: boots the same guest by this project's emulator and by QEMU, both on the KVM that is real to them, in turn, and
// reads the same disk, after each was started once without running its guest: files are in memory then, and this project has decompressed the kernel. One line of JSON for each: who, seconds to the shell's prompt, MB/s by size of request. The argument is the round's number: the odd
// ones begin with QEMU.

import { consoleOf, end, LIMIT, monitor, startGuest, type Who } from './bars-guest.ts';

const ROUND = Number(process.argv[2] ?? 0);
const order: readonly Who[] = ROUND % 2 === 0 ? ['nonroot', 'qemu'] : ['qemu', 'nonroot'];

/** Request sizes, and how many are read: first without counting, so that neither is measured while it compiles or translates what it runs. */
const READS = [['4k', 2000], ['64k', 500]] as const; // biome-ignore format: pairs
const BEFORE = 500;

async function startOnce(who: Who): Promise<void> {
  const child = startGuest(who, 'kvm', ['-S'], true);
  const limit = Date.now() + LIMIT;
  while (Date.now() < limit && !/VM status/.test(await monitor('info status', /VM status/, LIMIT)))
    await new Promise((resolve) => setTimeout(resolve, 200));
  await end(child);
}

async function round(who: Who): Promise<void> {
  console.log('begins');
  const start = Date.now();
  const child = startGuest(who, 'kvm');
  const result: Record<string, number> = {};
  try {
    const { booted, read } = consoleOf(child);
    await booted(start + LIMIT);
    result['boot'] = (Date.now() - start) / 1000;
    console.log('booted');
    for (const [size, count] of READS) {
      await read(size, BEFORE, start + LIMIT);
      result[size] = await read(size, count, start + LIMIT);
    }
  } finally {
    await end(child);
  }
  console.log(`bar ${JSON.stringify({ who, ...result })}`);
}

for (const who of order) {
  await startOnce(who);
  await round(who).catch((error: Error) => console.log(`bar ${who} failed: ${error.message.replaceAll(/\s+/g, ' ')}`));
}
process.exit(0);
