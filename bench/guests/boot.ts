// A machine as `nonroot run` makes it, with the control channel (the fourth serial port) on the standard output.
// Arguments: KERNEL INITRD APPEND

import { readFileSync } from 'node:fs';
import { kvmAllFeatures } from '../../src/devices/kvm-pv.ts';
import { NodeMachine } from '../../src/host/node/machine.ts';
import { MEMORY_MIB } from '../guest.ts';

const [kernel, initrd, append] = process.argv.slice(2);
const machine = new NodeMachine({
  config: { cpus: 1, memory: MEMORY_MIB << 20, cpuModel: 'max', paravirtual: kvmAllFeatures, rtcOffset: 0, trace: [] },
  files: { kernel: readFileSync(kernel), name: 'vmlinuz', initrd: readFileSync(initrd), append },
  serial: (port, bytes) => {
    if (port === 3) process.stdout.write(bytes);
  },
  report: (device, message) => console.error(`[${device}] ${message}`),
  noReboot: true,
});
machine.start();
await machine.ended;
