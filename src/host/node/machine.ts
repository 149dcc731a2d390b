// A machine in a Node process: the I/O thread's side. Starts a worker for each vCPU, loads the kernel, carries the serial ports' bytes,
// and carries out what the guest asks for: reset, power off, exit.

import { Worker } from 'node:worker_threads';
import { createMemory } from '../../accel/dbt/dbt.ts';
import { layoutOf } from '../../accel/dbt/layout.ts';
import { loadKernel } from '../../firmware/detect.ts';
import { ACPI_ADDRESS, ACPI_MAX_SIZE, SMBIOS_ADDRESS, SMBIOS_MAX_SIZE } from '../../firmware/layout.ts';
import type { BootState } from '../../firmware/target.ts';
import { type Board, buildBoard } from '../../machine/board.ts';
import type { MachineConfig, MachineEvent } from '../../machine/config.ts';
import { acpiTables, memoryMap, smbiosTables } from '../../machine/tables.ts';
import { kicker } from '../../machine/vcpu-loop.ts';
import { hostEpoch, machineClock, wallClock } from './clock.ts';
import { decompress } from './decompress.ts';
import type { FromVcpu, ToVcpu, VcpuWorkerData } from './vcpu-worker.ts';

/** What is loaded directly. */
export interface KernelFiles {
  readonly kernel: Uint8Array;
  readonly name: string;
  readonly initrd?: Uint8Array;
  readonly append: string;
  /** The kernel's decompressed ELF, where the caller has it already. */
  readonly vmlinux?: Uint8Array;
}

/** How a machine came to its end. */
export type MachineEnd = MachineEvent | { readonly kind: 'quit' } | { readonly kind: 'failed'; readonly message: string };

export interface MachineOptions {
  readonly config: MachineConfig;
  readonly files: KernelFiles;
  /** Bytes that the guest sends on serial port n (0–3). Give true when more can be taken at once. */
  readonly serial: (port: number, bytes: Uint8Array) => void;
  readonly report: (device: string, message: string) => void;
  /** A reset of the guest ends the machine instead of starting it again. */
  readonly noReboot: boolean;
}

/** One machine. It runs from `start` until `ended` resolves. */
export class NodeMachine {
  readonly board: Board;
  readonly ended: Promise<MachineEnd>;
  /** Line on the kernel that was loaded. */
  kernelLine = '';
  /** Instructions that the vCPUs retired, once it has ended. */
  instructions = 0;
  /** Registers of the vCPUs as they stopped. */
  readonly lastState: Readonly<Record<string, bigint>>[] = [];
  readonly #o: MachineOptions;
  readonly #workers: Worker[] = [];
  readonly #bytes: Uint8Array;
  readonly #ramBase: number;
  #boot: BootState;
  #running = 0;
  #why: MachineEnd | null = null;
  #resolve!: (end: MachineEnd) => void;
  #over = false;
  readonly #unsent: Uint8Array[][] = [[], [], [], []];

  /** Throws one clear line for a kernel or configuration that cannot be used. */
  constructor(o: MachineOptions) {
    this.#o = o;
    this.ended = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    const { config } = o;
    const layout = layoutOf(config.memory, config.cpus);
    const memory = createMemory(layout);
    const epoch = hostEpoch();
    this.#bytes = new Uint8Array(memory.buffer);
    this.#ramBase = layout.ramBase;
    for (let cpu = 0; cpu < config.cpus; cpu++) {
      const data: VcpuWorkerData = { config, memory, layout, cpu, epoch };
      const worker = new Worker(new URL('./vcpu-worker.ts', import.meta.url), { workerData: data });
      worker.on('message', (m: FromVcpu) => this.#message(cpu, m));
      worker.on('error', (error) => this.#fail(error instanceof Error ? (error.stack ?? error.message) : String(error)));
      this.#workers.push(worker);
    }
    this.board = buildBoard({
      config,
      buffer: memory.buffer,
      layout,
      thread: 0,
      clock: machineClock(epoch),
      wall: wallClock,
      kick: kicker(memory.buffer, layout),
      event: (event) => this.#event(event),
      report: o.report,
    });
    try {
      this.#boot = this.#load();
    } catch (error) {
      for (const w of this.#workers) void w.terminate();
      throw error;
    }
  }

  #load(): BootState {
    const { config, files } = this.#o;
    const low = Math.min(config.memory, 0x8000_0000);
    const above = config.memory - low;
    const target = {
      ramBelow4G: low,
      ramAbove4G: above,
      write: (gpa: number, bytes: Uint8Array): void => {
        const offset = gpa < low ? gpa : gpa - 2 ** 32 + low;
        this.#bytes.set(bytes, this.#ramBase + offset);
      },
    };
    target.write(ACPI_ADDRESS, acpiTables(config, ACPI_ADDRESS, ACPI_MAX_SIZE));
    target.write(SMBIOS_ADDRESS, smbiosTables(config, low, above, SMBIOS_ADDRESS, SMBIOS_MAX_SIZE));
    const boot = loadKernel(target, { ...files, rsdp: ACPI_ADDRESS, memoryMap: memoryMap(low, above), decompress });
    this.kernelLine = boot.kernel;
    return boot;
  }

  /** Starts the guest. */
  start(): void {
    this.board.reset();
    this.#running = this.#workers.length;
    this.#workers.forEach((w, cpu) => this.#send(w, { kind: 'start', boot: cpu === 0 ? this.#boot : null }));
    for (let n = 0; n < 4; n++) void this.#pump(n);
  }
  /** Ends the machine as `quit` of a monitor does. */
  quit(): void {
    this.#stop({ kind: 'quit' });
  }
  /** Gives bytes to serial port n. */
  input(n: number, bytes: Uint8Array): void {
    this.#unsent[n].push(bytes);
    this.#feed(n);
  }

  #send(worker: Worker, m: ToVcpu): void {
    worker.postMessage(m);
  }
  #message(cpu: number, m: FromVcpu): void {
    switch (m.kind) {
      case 'module':
        this.#workers.forEach((w, n) => {
          if (n !== cpu) this.#send(w, m);
        });
        return;
      case 'event':
        return this.#event(m.event);
      case 'report':
        return this.#o.report(m.device, m.message);
      case 'failed':
        return this.#fail(m.message);
      case 'stopped':
        this.instructions += m.instructions;
        this.lastState[cpu] = m.state;
        if (--this.#running === 0) this.#stopped();
        return;
    }
  }
  #event(e: MachineEvent): void {
    this.#stop(e);
  }
  #fail(message: string): void {
    this.#why = { kind: 'failed', message };
    void this.#finish();
  }
  #stop(why: MachineEnd): void {
    this.#why ??= why;
    Atomics.store(this.board.control.stop, 0, 1);
    for (let n = 0; n < this.#workers.length; n++) this.board.wake(n);
    // A vCPU that cannot stop (it should not happen) must not keep the user.
    setTimeout(() => void this.#finish(), 2000).unref();
  }
  /** All vCPUs have left their loops. */
  #stopped(): void {
    const why = this.#why;
    if (why && (why.kind === 'reset' || why.kind === 'shutdown') && !this.#o.noReboot) {
      this.#why = null;
      this.#bytes.fill(0, this.#ramBase, this.#ramBase + this.#o.config.memory);
      this.#boot = this.#load();
      this.board.reset();
      this.#running = this.#workers.length;
      this.#workers.forEach((w, cpu) => this.#send(w, { kind: 'start', boot: cpu === 0 ? this.#boot : null }));
      return;
    }
    void this.#finish();
  }
  async #finish(): Promise<void> {
    if (this.#over) return;
    this.#over = true;
    for (let n = 0; n < 4; n++) this.#drain(n);
    await Promise.all(this.#workers.map((w) => w.terminate()));
    this.#resolve(this.#why ?? { kind: 'quit' });
  }

  // -- serial ports

  #drain(n: number): void {
    const uart = this.board.uarts[n];
    while (uart.output.available > 0) {
      this.#o.serial(n, uart.output.read());
      this.board.lock.run(() => uart.drained());
    }
  }
  /** Carries the guest's output as it comes. */
  async #pump(n: number): Promise<void> {
    const { signal } = this.board.uarts[n].output;
    while (!this.#over) {
      const seen = Atomics.load(signal, 0);
      this.#drain(n);
      this.#feed(n);
      const wait = Atomics.waitAsync(signal, 0, seen, 100);
      if (wait.async) await wait.value;
    }
  }
  #feed(n: number): void {
    const queue = this.#unsent[n];
    const uart = this.board.uarts[n];
    while (queue.length > 0) {
      const taken = this.board.lock.run(() => uart.receive(queue[0]));
      if (taken < queue[0].length) {
        queue[0] = queue[0].subarray(taken);
        return;
      }
      queue.shift();
    }
  }
}
