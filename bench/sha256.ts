// busybox's sha256sum of 16 MiB: user code in a whole guest. Time from its start to its end, and how many of the guest's instructions
// a second that was.

import { execOverlay } from '../src/images/overlay.ts';
import { emulatorArguments, ourArguments, prepareGuest } from './guest.ts';
import { type Benchmark, watch } from './measure.ts';

const COMMAND =
  'dd if=/dev/zero of=/data bs=1M count=16 2>/dev/null; sha256sum /data >/dev/null; echo begin; sha256sum /data; echo end';
/** SHA-256 of 16 MiB of zeros. */
const RIGHT = '080acf35a507ac9849cfcba47dc2ad83e01b75663a516279c8b9d243b719643e';

export const sha256: Benchmark = {
  name: 'sha256',
  about: "busybox's sha256sum of 16 MiB in the guest, the second time",
  metrics: [
    { name: 'seconds', unit: 's', digits: 2 },
    { name: 'speed', unit: 'MIPS', digits: 0 },
  ],
  contestants: {
    nonroot: async () => {
      const guest = await prepareGuest(execOverlay({ command: COMMAND }));
      const process = watch(globalThis.process.execPath, ourArguments('guests/sha256.ts', guest));
      try {
        await process.said('}\n');
        const { ms, instructions, said } = JSON.parse(process.text) as { ms: number; instructions: number; said: string };
        if (!said.includes(RIGHT)) throw new Error(`Cannot accept the guest's sum: ${said}`);
        return { seconds: ms / 1000, speed: instructions / ms / 1000 };
      } finally {
        await process.stop();
        guest.remove();
      }
    },
    qemu: async () => {
      const guest = await prepareGuest(execOverlay({ command: COMMAND }));
      const process = watch('qemu-system-x86_64', emulatorArguments(guest, 1, 'qemu'));
      try {
        const begin = await process.said('begin\n');
        const end = await process.said('end\n');
        if (!process.text.includes(RIGHT)) throw new Error(`Cannot accept the guest's sum: ${process.text}`);
        return { seconds: (end - begin) / 1000 };
      } finally {
        await process.stop();
        guest.remove();
      }
    },
  },
};
