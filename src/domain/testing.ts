// What the tests of this folder share: the emulator on which the recordings were made.
import type { DefineContext, EmulatorInfo } from './emulator.ts';

export const recordedEmulator: EmulatorInfo = {
  path: '/usr/bin/qemu-system-x86_64',
  arch: 'x86_64',
  machines: [
    { name: 'pc-i440fx-7.2', alias: 'pc', maxCpus: 255, ramId: 'pc.ram', isDefault: true },
    { name: 'pc-q35-7.2', alias: 'q35', maxCpus: 288, ramId: 'pc.ram' },
  ],
  defaultCpu: 'qemu64',
  defaultVideo: 'cirrus',
};

/** Random bytes that are all 7. */
export const recordedContext: DefineContext = {
  emulators: [recordedEmulator],
  random: (length) => new Uint8Array(length).fill(7),
};
