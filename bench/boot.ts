// Process start to userspace (the `ready` that /init writes to its control channel), and peak memory at that moment.

import { CHANNELS, sessionOverlay } from '../src/images/overlay.ts';
import { MEMORY_MIB, ourArguments, prepareGuest, qemuArguments } from './guest.ts';
import { type Benchmark, peakMemory, type Sample, watch } from './measure.ts';

const CONTROL_PORT = Number(CHANNELS.control.at(-1));

async function measure(program: string, args: readonly string[]): Promise<Sample> {
  const process = watch(program, args);
  try {
    const ms = await process.said('ready\n');
    return { seconds: ms / 1000, memory: peakMemory(process.child) };
  } finally {
    await process.stop();
  }
}

export const boot: Benchmark = {
  name: 'boot',
  about: `process start to userspace, ${MEMORY_MIB} MiB, one vCPU`,
  metrics: [
    { name: 'seconds', unit: 's', digits: 2 },
    { name: 'memory', unit: 'MiB peak', digits: 0 },
  ],
  contestants: {
    nonroot: async () => {
      const guest = await prepareGuest(sessionOverlay({}));
      return measure(process.execPath, ourArguments('guests/boot.ts', guest)).finally(guest.remove);
    },
    qemu: async () => {
      const guest = await prepareGuest(sessionOverlay({}));
      return measure('qemu-system-x86_64', qemuArguments(guest, CONTROL_PORT)).finally(guest.remove);
    },
  },
};
