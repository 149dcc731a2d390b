// A whole board without vCPUs whose registers are read and written at random: ports, MMIO, PCI configuration, firmware configuration, with
// the devices' I/O sides at work on disks in memory and a network that answers with noise. Nothing may throw or hang.

import { layoutOf } from '../../src/accel/dbt/layout.ts';
import { ERST_EXECUTE, erstAction, erstRegister } from '../../src/bits/erst.ts';
import { openErstStorage } from '../../src/devices/erst.ts';
import { kvmAllFeatures } from '../../src/devices/kvm-pv.ts';
import { MemoryFile } from '../../src/disk/memory-file.ts';
import { RawImage } from '../../src/disk/raw.ts';
import { type Backends, noBackends } from '../../src/machine/backends.ts';
import { type Board, buildBoard } from '../../src/machine/board.ts';
import type { MachineConfig, MachineKind } from '../../src/machine/config.ts';
import type { DeviceConfig } from '../../src/machine/device-type.ts';
import { makeDrive } from '../../src/machine/drives.ts';
import { extraBytes } from '../../src/machine/extra.ts';
import { connectPs2 } from '../../src/machine/ps2-input.ts';
import { kicker } from '../../src/machine/vcpu-loop.ts';
import { Random } from './asm.ts';

const RAM = 8 << 20;
const DISK = 1 << 20;
/** Bytes of the store of error records. */
const RECORDS = 8 * 4096;
/** ms that what is under way may take to end. */
const DRAIN = 20_000;

/** Devices of every kind; `drive` and `netdev` are filled in. */
const common: readonly DeviceConfig[] = [
  { driver: 'VGA' },
  { driver: 'virtio-gpu-pci', max_outputs: 3 },
  { driver: 'virtio-blk-pci', drive: true },
  { driver: 'virtio-net-pci', netdev: true },
  { driver: 'e1000', netdev: true },
  { driver: 'e1000e', netdev: true },
  { driver: 'rtl8139', netdev: true },
  { driver: 'virtio-serial-pci' },
  { driver: 'virtio-rng-pci', rng: true },
  { driver: 'virtio-balloon-pci' },
  { driver: 'virtio-keyboard-pci' },
  { driver: 'virtio-scsi-pci', id: 'scsi' },
  { driver: 'scsi-hd', bus: 'scsi.0', drive: true },
  { driver: 'scsi-cd', bus: 'scsi.0', drive: true },
  { driver: 'nvme', serial: 'n', drive: true },
  { driver: 'ich9-ahci', id: 'sata' },
  { driver: 'ide-hd', bus: 'sata.0', drive: true },
  { driver: 'ide-cd', bus: 'sata.1', drive: true },
  { driver: 'qemu-xhci', id: 'xhci' },
  { driver: 'usb-tablet', bus: 'xhci.0' },
  { driver: 'usb-storage', bus: 'xhci.0', drive: true },
  { driver: 'usb-ehci', id: 'ehci' },
  { driver: 'usb-kbd', bus: 'ehci.0' },
  { driver: 'piix3-usb-uhci', id: 'uhci' },
  { driver: 'usb-hub', bus: 'uhci.0' },
  { driver: 'pci-bridge', id: 'bridge', chassis_nr: 1 },
  { driver: 'isa-debug-exit' },
  { driver: 'pvpanic' },
  { driver: 'pvpanic-pci' },
  { driver: 'edu' },
  { driver: 'pci-testdev' },
  { driver: 'vmcoreinfo' },
  { driver: 'acpi-erst', memdev: true, record_size: 4096 },
  { driver: 'isa-fdc' },
  { driver: 'floppy', drive: true },
];
const own: Readonly<Record<Exclude<MachineKind, 'microvm'>, readonly DeviceConfig[]>> = {
  pc: [{ driver: 'ide-cd', bus: 'ide.1', drive: true }],
  q35: [
    { driver: 'ide-hd', bus: 'ide.0', drive: true },
    { driver: 'pcie-root-port', id: 'port', chassis: 1 },
  ],
};

/** Connects what devices ask for. */
function connected(list: readonly DeviceConfig[], backends: Backends, random: Random): DeviceConfig[] {
  const noise = new Uint8Array(60);
  return list.map(({ drive, netdev, rng, memdev, ...config }, n) => {
    const name = `b${n}`;
    if (memdev) {
      const bytes = new Uint8Array(RECORDS);
      openErstStorage(bytes, 4096);
      backends.memories.add(name, { bytes, save: async () => {} });
      return { ...config, memdev: name } as DeviceConfig;
    }
    if (drive) {
      const file = new MemoryFile(name);
      void file.truncate(DISK);
      void RawImage.open(file).then((image) => backends.drives.add(name, makeDrive(name, image, { discard: true })));
      return { ...config, drive: name };
    }
    if (netdev) {
      const port = {
        receive: (_: Uint8Array): void => {},
        send(): void {
          random.fill(noise);
          port.receive(noise);
        },
        close(): void {},
      };
      backends.netdevs.add(name, { kind: 'noise', port });
      return { ...config, netdev: name };
    }
    if (rng) {
      backends.rngs.add(name, { bytes: async (count) => new Uint8Array(count) });
      return { ...config, rng: name };
    }
    return config as DeviceConfig;
  });
}

/** Room for modules of memory, and one of them. */
const memoryHotplug = { slots: 3, bytes: 8 << 20 };
const dimm: DeviceConfig = { driver: 'pc-dimm', id: 'dimm', slot: 1, size: 4 << 20 };

/** One board with its I/O sides, and what is done to it. */
export class BoardFuzz {
  readonly board: Board;
  readonly #random: Random;
  readonly #ram: DataView;
  readonly #pci: readonly number[];
  #ns = 1e6;

  private constructor(board: Board, random: Random, ram: DataView) {
    this.board = board;
    this.#random = random;
    this.#ram = ram;
    const found: number[] = [];
    for (let devfn = 0; devfn < 256; devfn++) if (this.#config(devfn << 8, 0) !== 0xffff_ffff) found.push(devfn << 8);
    this.#pci = found;
  }

  static async open(machine: 'pc' | 'q35', seed: number): Promise<BoardFuzz> {
    const random = new Random(seed);
    const backends = noBackends();
    const devices = connected([...common, ...own[machine]], backends, random);
    await new Promise((r) => setImmediate(r));
    const config: MachineConfig = {
      ...{ cpus: 1, memory: RAM, cpuModel: 'max', paravirtual: kvmAllFeatures, rtcOffset: 0, trace: [] },
      ...{
        machine,
        memoryHotplug,
        devices: [...devices, dimm],
        memdevs: Object.fromEntries(backends.memories.entries().map(([id]) => [id, RECORDS])),
      },
    };
    const layout = layoutOf(RAM, 1, extraBytes(config), false, memoryHotplug.bytes);
    const buffer = new SharedArrayBuffer(layout.pages * 65536);
    const cell: { fuzz?: BoardFuzz } = {};
    const clock = { now: () => cell.fuzz?.now() ?? 0 };
    const board = buildBoard({
      ...{ config, buffer, layout, thread: 0, clock, wall: { epochSeconds: () => 1.7e9 }, kick: kicker(buffer, layout) },
      ...{ event: () => {}, report: () => {} },
    });
    if (board.keyboard) connectPs2(board.keyboard, board.lock, backends.input);
    board.devices.connect({
      ...{
        backends,
        lock: board.lock,
        memory: board.memory,
        report: () => {},
        notify: () => {},
        stop: () => {},
        release: () => {},
      },
      random: async (count) => new Uint8Array(count),
      now: () => performance.now(),
      after: (ms, action) => {
        const timer = setTimeout(action, ms);
        return { cancel: () => clearTimeout(timer) };
      },
    });
    board.reset();
    cell.fuzz = new BoardFuzz(board, random, new DataView(buffer, layout.ramBase, RAM));
    return cell.fuzz;
  }

  now(): number {
    return (this.#ns += 500);
  }

  /** An address in guest memory, mostly; sometimes anything. */
  #value(): number {
    const r = this.#random;
    switch (r.below(5)) {
      case 0:
        return r.below(RAM >> 12) << 12;
      case 1:
        return r.below(RAM >> 4) << 4;
      case 2:
        return r.below(32);
      case 3:
        return 2 ** r.below(32);
      default:
        return Number(r.edgy() & 0xffff_ffffn);
    }
  }
  #config(address: number, register: number, size = 4, value?: number): number {
    const { ports } = this.board;
    ports.write(0xcf8, 4, (0x8000_0000 | address | (register & 0xfc)) >>> 0);
    const port = 0xcfc + (register & 3 & -size);
    if (value === undefined) return ports.read(port, size);
    ports.write(port, size, value);
    return 0;
  }

  /** An operation of the store of error records, mostly on records that are well-formed. */
  #records(): void {
    const r = this.#random;
    const mmio = this.board.mmio[0]!;
    const regions = mmio.regions();
    const registers = regions.find((region) => region.name === 'acpi-erst');
    const exchange = regions.find((region) => region.name === 'erst.exchange');
    if (!registers) return;
    const act = (action: number, value?: number): void => {
      if (value !== undefined) mmio.write(registers.base + erstRegister.value, 4, value);
      mmio.write(registers.base + erstRegister.action, 4, action);
    };
    if (exchange) {
      const word = (at: number, value: number): void => mmio.write(exchange.base + at, 4, value);
      word(20, r.below(4) ? 128 + r.below(512) : r.u32());
      word(96, r.below(16));
      word(100, 0);
    }
    act(erstAction.setOffset, r.below(4) ? 0 : this.#value());
    act(erstAction.setIdentifier, r.below(4) ? r.below(16) : this.#value());
    act(r.below(4));
    act(erstAction.execute, r.below(8) ? ERST_EXECUTE : this.#value());
    act(r.below(0x14));
  }

  /** One random access. */
  step(): void {
    const r = this.#random;
    const { ports, mmio } = this.board;
    const size = r.pick([1, 2, 4, 4]);
    const write = r.below(3) > 0;
    const value = size === 4 ? this.#value() : this.#value() % 2 ** (8 * size);
    if (r.below(20) === 0) return this.#records();
    switch (r.below(10)) {
      case 0:
      case 1: {
        const address = r.pick(this.#pci);
        const register = r.below(r.below(4) ? 0x60 : 0x100) & ~(size - 1);
        // Commands with memory, ports and bus mastering on keep devices within reach.
        if (register === 4 && write) this.#config(address, 4, 2, 7 | (r.below(2) << 10));
        // Base addresses stay mostly: what is not mapped is not tried.
        else
          this.#config(
            address,
            register,
            size,
            write && (register < 0x10 || register > 0x27 || r.below(16) === 0) ? value : undefined,
          );
        return;
      }
      case 2: {
        // Firmware configuration: a selector, its data, or a DMA request somewhere in memory.
        const what = r.below(4);
        if (what === 0) ports.write(0x510, 2, r.below(0x60) | (r.below(2) << 14) | (r.below(8) ? 0 : 0x8000));
        else if (what === 1) for (let n = r.below(64); n > 0; n--) ports.read(0x511, 1);
        else {
          const at = r.below(RAM >> 4) << 4;
          this.#ram.setUint32(at, (r.below(0x60) << 16) | r.below(64));
          this.#ram.setUint32(at + 4, this.#value());
          this.#ram.setUint32(at + 8, r.below(8) ? 0 : r.u32());
          this.#ram.setUint32(at + 12, this.#value());
          ports.write(0x514, 4, r.below(8) ? 0 : swap(r.u32()));
          ports.write(0x518, 4, swap(at));
        }
        return;
      }
      case 3: {
        // What rings and descriptors are read from.
        for (let n = 0; n < 16; n++) this.#ram.setUint32(r.below(RAM >> 2) << 2, this.#value(), true);
        return;
      }
      default: {
        const space = r.below(3) ? mmio[0]! : ports;
        const region = r.pick(space.regions());
        const at = region.base + (r.below(2) ? r.below(Math.min(region.length, 256)) : r.below(region.length));
        const aligned = at - (at % size);
        if (write) space.write(aligned, size, value);
        else space.read(aligned, size);
      }
    }
  }

  /** Lets the I/O sides and timers have their turn. */
  async turn(): Promise<void> {
    const { board } = this;
    board.bells.hear();
    this.#ns += this.#random.below(20_000_000);
    board.lock.run(() => board.timers.tick(this.#ns));
    await new Promise((r) => setImmediate(r));
  }

  /** Waits for what is under way; rejects where it does not end. */
  async drain(): Promise<void> {
    const { promise, reject } = Promise.withResolvers<never>();
    const late = setTimeout(() => reject(new Error('What devices had under way did not end')), DRAIN);
    try {
      for (const d of this.board.devices.list()) await Promise.race([d.io?.drain?.(), promise]);
    } finally {
      clearTimeout(late);
    }
  }
  async close(): Promise<void> {
    for (const d of this.board.devices.list()) await d.io?.close?.();
  }
}

const swap = (n: number): number => ((n >>> 24) | ((n >>> 8) & 0xff00) | ((n << 8) & 0xff_0000) | (n << 24)) >>> 0;

/** Runs `steps` accesses of a seed on a board. Rejects with the seed and the number of the step. */
export async function fuzzBoard(machine: 'pc' | 'q35', seed: number, steps: number): Promise<void> {
  const fuzz = await BoardFuzz.open(machine, seed);
  let n = 0;
  const failed = (error: unknown): never => {
    throw new Error(`${machine}, seed ${seed}, step ${n}: ${error instanceof Error ? error.stack : String(error)}`);
  };
  let rejected: unknown;
  const heard = (error: unknown): void => {
    rejected ??= error ?? new Error('rejected');
  };
  process.on('unhandledRejection', heard).on('uncaughtException', heard);
  try {
    for (; n < steps; n++) {
      const start = performance.now();
      const before = process.cpuUsage();
      fuzz.step();
      // A host that stands still for a while is no device that does.
      let took = performance.now() - start;
      if (took > 5000) took = (process.cpuUsage(before).user + process.cpuUsage(before).system) / 1000;
      if (took > 5000) throw new Error(`one access took ${took.toFixed(0)} ms of CPU time`);
      if (n % 20 === 0) await fuzz.turn();
      if (rejected !== undefined) throw rejected;
    }
    await fuzz.drain();
    if (rejected !== undefined) throw rejected;
  } catch (error) {
    failed(error);
  } finally {
    await fuzz.close();
    process.off('unhandledRejection', heard).off('uncaughtException', heard);
  }
}
