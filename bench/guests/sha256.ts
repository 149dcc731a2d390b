// A whole machine on the calling thread, so that the engine's counter of instructions can be read between two lines of the guest.
// Runs until the guest has said `begin` and `end` on its second serial port, then prints milliseconds and instructions as JSON.
// Arguments: KERNEL INITRD APPEND

import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Vcpu } from '../../src/accel/accel.ts';
import { createEngine, createVm, mainModule } from '../../src/accel/dbt/dbt.ts';
import { createMemory, layoutOf } from '../../src/accel/dbt/layout.ts';
import { DbtVcpu } from '../../src/accel/dbt/vcpu.ts';
import { kvmAllFeatures } from '../../src/devices/kvm-pv.ts';
import { loadKernel } from '../../src/firmware/detect.ts';
import { ACPI_ADDRESS, ACPI_MAX_SIZE } from '../../src/firmware/layout.ts';
import type { ImageFile } from '../../src/firmware/target.ts';
import { hostEpoch, machineClock, wallClock } from '../../src/host/node/clock.ts';
import { decompress } from '../../src/host/node/decompress.ts';
import { buildBoard } from '../../src/machine/board.ts';
import { applyBootState } from '../../src/machine/boot.ts';
import type { MachineConfig } from '../../src/machine/config.ts';
import { acpiTables, memoryMap } from '../../src/machine/tables.ts';
import { kicker, runVcpu, vcpuBus } from '../../src/machine/vcpu-loop.ts';
import { MEMORY_MIB } from '../guest.ts';

const [kernel, initrd, append] = process.argv.slice(2);
const config: MachineConfig = {
  cpus: 1,
  memory: MEMORY_MIB << 20,
  cpuModel: 'max',
  paravirtual: kvmAllFeatures,
  rtcOffset: 0,
  trace: [],
};
const engine = createEngine();
const layout = layoutOf(config.memory, 1);
const memory = createMemory(layout);
const bytes = new Uint8Array(memory.buffer);
const target = {
  ramBelow4G: config.memory,
  ramAbove4G: 0,
  write: (gpa: number, data: Uint8Array): void => bytes.set(data, layout.ramBase + gpa),
  load: (gpa: number, file: ImageFile, start: number, end: number) => target.write(gpa, file.bytes(start, end)),
};
const board = buildBoard({
  config,
  buffer: memory.buffer,
  layout,
  thread: 0,
  clock: machineClock(hostEpoch()),
  wall: wallClock,
  kick: kicker(memory.buffer, layout),
  event: (event) => {
    throw new Error(`Cannot measure: the guest ended (${event.kind})`);
  },
  report: (device, message) => console.error(`[${device}] ${message}`),
});
target.write(ACPI_ADDRESS, acpiTables(config, board.facts, ACPI_ADDRESS, ACPI_MAX_SIZE));
const boot = loadKernel(target, {
  kernel: readFileSync(kernel),
  name: 'vmlinuz',
  initrd: readFileSync(initrd),
  append,
  rsdp: ACPI_ADDRESS,
  memoryMap: memoryMap(config, board.facts),
  decompress,
});
board.reset();
const vm = createVm(engine, memory, layout, 1, new WebAssembly.Module(mainModule(engine)));
const vcpu = new DbtVcpu(
  vm,
  0,
  vcpuBus(board, 0, () => randomBytes(8).readBigUInt64LE()),
);
applyBootState(vcpu, boot);

let said = '';
let begin: { at: number; count: number } | null = null;
function look(): void {
  for (const [n, uart] of board.uarts.entries()) {
    while (uart.output.available > 0) {
      const data = uart.output.read();
      if (n === 1) said += Buffer.from(data).toString('latin1');
      board.lock.run(() => uart.drained());
    }
  }
  if (begin === null && said.includes('begin\n')) begin = { at: performance.now(), count: vcpu.instructions };
  if (begin !== null && said.includes('end\n')) {
    const result = { ms: performance.now() - begin.at, instructions: vcpu.instructions - begin.count, said };
    console.log(JSON.stringify(result));
    Atomics.store(board.control.stop, 0, 1);
  }
}
const watched: Vcpu = {
  run: (slice) => {
    const exit = vcpu.run(slice);
    look();
    return exit;
  },
  nmi: () => vcpu.nmi(),
  smi: () => vcpu.smi(),
  get: (name) => vcpu.get(name),
  set: (name, value) => vcpu.set(name, value),
  sync: () => vcpu.sync(),
  publish: () => vcpu.publish(),
  refresh: () => vcpu.refresh(),
  startsItself: false,
  reset: () => vcpu.reset(),
  init: () => vcpu.init(),
  get instructions() {
    return vcpu.instructions;
  },
};
runVcpu(board, watched, 0, (event) => {
  throw new Error(`Cannot measure: the guest ended (${event.kind})`);
});
