// Process start to userspace (the `ready` that /init writes to its control channel), and peak memory at that moment.

import { CHANNELS, sessionOverlay } from '../src/images/overlay.ts';
import { emulatorArguments, MEMORY_MIB, OUR_EMULATOR, prepareGuest } from './guest.ts';
import { type Benchmark, peakMemory, type Sample, watch } from './measure.ts';

const CONTROL_PORT = Number(CHANNELS.control.at(-1));

async function measure(program: string): Promise<Sample> {
  const guest = await prepareGuest(sessionOverlay({}));
  const process = watch(program, emulatorArguments(guest, CONTROL_PORT, program));
  try {
    const ms = await process.said('ready\n');
    return { seconds: ms / 1000, memory: peakMemory(process.child) };
  } finally {
    await process.stop();
    guest.remove();
  }
}

export const boot: Benchmark = {
  name: 'boot',
  about: `process start to userspace, ${MEMORY_MIB} MiB, one vCPU`,
  metrics: [
    { name: 'seconds', unit: 's', digits: 2 },
    { name: 'memory', unit: 'MiB peak', digits: 0 },
  ],
  contestants: { nonroot: () => measure(OUR_EMULATOR), qemu: () => measure('qemu-system-x86_64') },
};
