// What a kind of device is to the machine: its name, its bus, its properties, and how one is built. `device-types.ts` is the table.

import type { Arena } from '../bits/arena.ts';
import type { Clock, Timed, WallClock } from '../bus/clock.ts';
import type { Doorbell } from '../bus/doorbell.ts';
import type { Report } from '../bus/events.ts';
import type { IrqLine, MsiSink } from '../bus/irq.ts';
import type { Lock } from '../bus/lock.ts';
import type { GuestMemory } from '../bus/memory.ts';
import type { MemorySlots } from '../bus/slots.ts';
import type { Handler, Mapper } from '../bus/space.ts';
import type { Dma } from '../devices/dma.ts';
import type { FwCfgFile } from '../devices/fw-cfg.ts';
import type { PciFunction } from '../devices/pci-function.ts';
import type { PciHost } from '../devices/pci-host.ts';
import type { VsockSockets } from '../devices/virtio/vsock-io.ts';
import type { Backends } from './backends.ts';
import type { AnyBus, Buses, BusKind } from './buses.ts';
import type { BoardEvent } from './config.ts';
import type { Notify } from './notices.ts';
import type { PropertyTable, Values } from './properties.ts';

/**
 * A device as `-device` and `device_add` have it: plain data, the same for every thread. `addr` is the place on a PCI bus (`5`, `5.1`,
 * hexadecimal); all else are properties of the type.
 */
export interface DeviceConfig {
  readonly driver: string;
  readonly id?: string;
  readonly bus?: string;
  readonly [property: string]: unknown;
}

/** A range of addresses that stays while the device is there. `mmio` is seen by all vCPUs. */
export interface Mappable {
  map(base: number, length: number, handler: Handler, name: string): void;
  movable(mapper: Mapper): void;
  /** To be called, on any thread, when what a mapper says has changed. */
  changed(): void;
}

/** What the board has for its devices. */
export interface BoardServices {
  /** vCPUs of the machine. */
  readonly cpus: number;
  /** Bytes of its RAM. */
  readonly ram: number;
  readonly memory: GuestMemory;
  readonly clock: Clock;
  readonly wall: WallClock;
  readonly lock: Lock;
  readonly report: Report;
  /** For memory that the guest reaches as fast as RAM; see `DeviceType.memory`. */
  readonly slots: MemorySlots;
  /** The machine's shared memory, in which slots' offsets count. */
  readonly buffer: ArrayBufferLike;
  /** ISA interrupt n, with PIC and I/O APIC behind it. Each call gives a source of its own where the bus shares lines. */
  isa(n: number): IrqLine;
  /** The DMA controllers; undefined on boards without them. */
  readonly dma: Dma | undefined;
  /** A byte of CMOS memory for the firmware, at a reset. With the board's lock held. */
  cmos(address: number, value: number): void;
  /** Sends a message-signalled interrupt. */
  readonly msi: MsiSink;
  /** To be called when a timer of the device became earlier. */
  retime(): void;
  /** To be called when a device's `bells` (bus/space.ts) are others. With the board's lock held. */
  bellsChanged(): void;
  /** Asks for a reset, power-off or exit of the machine. */
  event(e: BoardEvent): void;
  readonly notify: Notify;
  /** A file of fw_cfg that comes with a device; for devices without hot-plug. */
  firmwareFile(name: string, file: FwCfgFile): void;
  /** The PCI buses, for bridges. */
  readonly pci: PciHost;
  /** This is the I/O thread: what only one thread may do is done here. */
  readonly ioThread: boolean;
  /** Memory of a back-end by its id, which outlives the machine; undefined where the machine has no such. Its contents come on the I/O thread. */
  memdev(id: string): Uint8Array | undefined;
  /** An expansion ROM by its file name; undefined where the machine has it not. */
  rom(file: string): Uint8Array | undefined;
  /** Makes accelerators forget what they know of the page at a guest-physical address. */
  flushPage(gpa: number): void;
  /**
   * On vCPUs' threads: reads what the host has in its memory of a file, by the host's number of it, into pieces of shared memory. Bytes that were read, from
   * the beginning; less than the pieces' length where storage would have to be waited for.
   */
  readonly readNow?: ReadNow;
}
export type ReadNow = (fd: number, pieces: readonly Uint8Array[], offset: number) => number;

/** What a device is built with. All that it maps, adds and plugs here is taken back when it is removed. */
export interface DeviceContext<K extends BusKind = BusKind> extends BoardServices {
  /** For the device's state: a piece of shared memory of its own. */
  readonly arena: Arena;
  /** Unique and stable in the machine: the id, or the driver's name with a number. Names state in snapshots. */
  readonly name: string;
  readonly id: string | undefined;
  /** The object's path, for events. */
  readonly path: string;
  readonly bus: Buses[K];
  /** How many devices of this category were plugged before. */
  readonly ordinal: number;
  readonly ports: Mappable;
  readonly mmio: Mappable;
  /** Puts a PCI function at the device's place (`addr`, or the next free slot). */
  plug(f: PciFunction): void;
  addTimer(timed: Timed): void;
  doorbell(name?: string): Doorbell;
  /** A bus of the machine by its name; undefined where there is none of that kind. */
  findBus<B extends BusKind>(kind: B, name: string): Buses[B] | undefined;
  /** Adds a bus that the device provides, for devices that name it. */
  addBus(bus: AnyBus): void;
  /** Run at removal, last added first. */
  onRemove(undo: () => void): void;
}

/** What the I/O side of a device is built with, on the I/O thread. */
export interface IoServices {
  readonly backends: Backends;
  readonly lock: Lock;
  readonly memory: GuestMemory;
  readonly report: Report;
  readonly notify: Notify;
  /** Holds the machine, as a monitor's `stop`. */
  stop(): void;
  /** The host's entropy. */
  random(count: number): Promise<Uint8Array>;
  /** Gives a range of RAM back to the host: it reads as zeros afterwards, or as it did where the host keeps it. */
  release(gpa: number, length: number): void;
  /** Unix sockets, where the host has them. */
  readonly sockets?: VsockSockets;
  /** Milliseconds, monotonic. */
  now(): number;
  after(ms: number, action: () => void): { cancel(): void };
}
/** A property that monitors see beside those that the device was made with. */
export interface LiveProperty {
  readonly type: string;
  get(): unknown;
  /** Throws for values that are not accepted. */
  set?(value: unknown): void;
}
/** The part of a device that works with back-ends. */
export interface IoSide {
  /** Why its state cannot be saved or sent elsewhere at the moment; undefined where it can. */
  unsaved?(): string | undefined;
  /** Resolves when all that it needs of the host is there; rejects with one line. */
  readonly ready?: Promise<void>;
  readonly properties?: Readonly<Record<string, LiveProperty>>;
  /** Of a memory balloon: asks for the guest to have so many bytes, and tells how many it has. */
  readonly balloon?: { set(bytes: number): void; actual(): number };
  /** Resolves when nothing of the guest is under way any more: all that was begun is done. The machine's vCPUs are held. */
  drain?(): Promise<void>;
  /** The machine goes on after it was held. */
  resumed?(): void;
  /** At the machine's reset, with vCPUs stopped and the device's state reset: forgets what is under way. */
  reset?(): void;
  /** What of the device is in no arena, for saved machines: parts of up to 64 MiB. `restore` comes when memory and arenas are there. */
  readonly state?: {
    readonly version: number;
    save(): readonly Uint8Array[];
    /** Throws for what does not fit. */
    restore(parts: readonly Uint8Array[]): void;
  };
  /** The device goes. */
  close?(): void | Promise<void>;
}

/** One device, as one thread has it. */
export interface Device {
  /** Power-on state. With the board's lock held. The constructor touches no state: another thread may use it already. */
  reset(): void;
  /** Connects to back-ends; called once, on the I/O thread only. Throws where one is missing. */
  io?(services: IoServices): IoSide;
  /**
   * Names of firmware's device path, for `bootindex`: of a PCI function without its place, with that of what hangs on it behind a slash
   * (`ide`, `scsi/disk@0,0`); of other devices all from their bus on (`drive@0/disk@1`).
   */
  readonly bootNode?: string;
  /** Where the guest has put an ELF note that belongs into cores of its memory. */
  coreNote?(): { readonly gpa: number; readonly length: number } | undefined;
  /** Of a store of error records: where its registers are once they are decoded, 0 where they have no place. */
  errorRecords?(): number;
  /** Values of properties that were left to the device. */
  readonly chosen?: Readonly<Record<string, unknown>>;
  /** Of a network card: its address. */
  readonly mac?: readonly number[];
}

export interface DeviceType<K extends BusKind = BusKind, P extends PropertyTable = PropertyTable> {
  /** QEMU's name of the driver. */
  readonly name: string;
  readonly aliases?: readonly string[];
  readonly bus: K;
  readonly description: string;
  /** QEMU's category in `-device help`: `Storage`, `Network`, `Input`, `Display`, `Sound`, `Misc`, `Controller/Bridge/Hub`. */
  readonly category: 'Storage' | 'Network' | 'Input' | 'Display' | 'Misc' | 'Controller/Bridge/Hub' | 'USB' | 'CPU';
  /** Ancestors in QEMU's object model, nearest first: `virtio-pci`, `pci-device`. */
  readonly parents?: readonly string[];
  readonly properties: P;
  /** File of the expansion ROM that a PCI device has unless told otherwise. */
  readonly romFile?: string;
  /** The one that a network card has where the machine may boot from it. */
  readonly bootRom?: string;
  /** False where devices of this type come with the machine only; true by default. */
  readonly hotplug?: boolean;
  /** False for what users cannot make themselves. */
  readonly userCreatable?: boolean;
  /** Bytes that `build` takes by `ctx.slots.alloc`; only for types without hot-plug. */
  memory?(p: Values<P>): number;
  build(ctx: DeviceContext<K>, p: Values<P>): Device;
}

/** A row of the table of types: infers the properties' types for `build`. */
export const deviceType = <K extends BusKind, const P extends PropertyTable>(type: DeviceType<K, P>): AnyDeviceType =>
  type as unknown as AnyDeviceType;
/** A type whatever its bus and properties. */
export interface AnyDeviceType extends Omit<DeviceType, 'build' | 'memory'> {
  memory?(p: Values<PropertyTable>): number;
  build(ctx: DeviceContext, p: Values<PropertyTable>): Device;
}
