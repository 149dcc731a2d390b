// Runs inside the outer guest: boots the guests that reads.ts was told, one after the other, and has each read its disk.

import { consoleOf, end, LIMIT, startGuest, type Who } from './bars-guest.ts';

const [seconds, ...guests] = process.argv.slice(2);
/** Sizes of requests, and how many at a time. The first of each are slow: all that serves them is translated. */
const READS = [['4k', 500], ['64k', 200]] as const; // biome-ignore format: pairs

for (const guest of guests) {
  const [who, irqchip] = guest.split(':') as [Who, string];
  const start = Date.now();
  const child = startGuest(who, `kvm,kernel-irqchip=${irqchip}`);
  try {
    const { booted, read } = consoleOf(child);
    await booted(start + LIMIT);
    console.log(`${guest} booted in ${((Date.now() - start) / 1000).toFixed(1)} s`);
    const rates: string[] = [];
    for (const begin = Date.now(); Date.now() < begin + Number(seconds) * 1000; )
      for (const [size, count] of READS) rates.push((await read(size, count, Date.now() + LIMIT)).toFixed(1));
    console.log(`${guest} was whole, MB/s: ${rates.join(' ')}`);
  } catch (error) {
    console.log(`${guest} failed: ${(error as Error).message.replaceAll(/\s+/g, ' ')}`);
  } finally {
    await end(child);
  }
}
process.exit(0);
