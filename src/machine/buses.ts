// The buses that devices plug into, by QEMU's names of their kinds. A device type says which kind it needs; `bus=` or order finds one.

import type { IrqLine } from '../bus/irq.ts';
import type { Handler } from '../bus/space.ts';
import type { AtaDevice } from '../devices/ata/device.ts';
import type { Direct } from '../devices/direct.ts';
import type { PciFunction } from '../devices/pci-function.ts';
import type { MediumStore } from '../devices/scsi/plan.ts';
import type { Ehci } from '../devices/usb/ehci.ts';
import type { UsbPort } from '../devices/usb/port.ts';
import type { ConsoleIo } from '../devices/virtio/console-io.ts';
import type { ScsiUnit } from '../devices/virtio/scsi-io.ts';
import type { DimmWish } from './dimms.ts';
import type { DriveStore } from './drive-store.ts';
import type { VirtioPlace } from './microvm.ts';

/** What all buses have. */
interface Bus<K extends string> {
  readonly kind: K;
  /** Unique in the machine: `pcie.0`, `isa.0`, `scsi0.0`. */
  readonly name: string;
  /** Of a bus that is not behind a PCI host: its place in firmware's device paths. */
  readonly bootPath?: string;
  /** False for a bus whose devices come with the machine's start only; true by default. */
  readonly hotplug?: boolean;
  /**
   * Asks the guest to let go of a device of a running machine; the bus says by `DeviceContext.notify` or the machine's event `eject`
   * when it has. Absent where devices may leave at once.
   */
  readonly requestUnplug?: (device: { readonly path: string; readonly id: string | undefined }) => void;
  /** Whether another device fits, for the choice of a bus that was not named; it does where this is absent. */
  readonly hasRoom?: () => boolean;
}

/** A PCI or PCI Express bus. */
export interface PciBus extends Bus<'PCI'> {
  readonly express: boolean;
  /** The host bridge's own bus, not one behind a port. */
  readonly root: boolean;
  /**
   * Plugs a function of the device at `path` in; what it returns takes it out again. `removable` devices may leave a running machine.
   * Throws where the place is taken.
   */
  add(f: PciFunction, slot: number, fn: number, path?: string, removable?: boolean): () => void;
  /** A device was added to a slot of a machine that has started; on the I/O thread. */
  plugged?(slot: number): void;
  /** First free slot; -1 for none. */
  freeSlot(): number;
}
/** The low-pin-count or ISA bus: ports and interrupts come from the board. */
export type IsaBus = Bus<'ISA'>;
/** A virtio transport over MMIO, with room for one device. */
export interface VirtioBus extends Bus<'virtio-bus'> {
  readonly place: VirtioPlace;
  /** It has the legacy registers. */
  readonly legacy: boolean;
  readonly line: IrqLine;
  readonly used: boolean;
  /** Puts a device's registers into the transport's place; what it returns takes them out again. */
  attach(handler: Handler): () => void;
}
/** Devices that sit on no bus. */
export type SystemBus = Bus<'System'>;

/** A drive for an IDE bus. */
export interface IdeUnit {
  readonly ata: AtaDevice;
  /** What is in the drive; on the I/O thread. */
  store(): MediumStore | undefined;
  /** Resolves when a request of the drive is held by an error. */
  held(): Promise<void>;
  /** On vCPUs' threads that read at the doorbell. */
  readonly direct: Direct | undefined;
}
/** An IDE channel or a port of AHCI. */
export interface IdeBus extends Bus<'IDE'> {
  /** The native command queue is there. */
  readonly ncq: boolean;
  /** The unit that is meant, or the first free one. Throws where it is in use. */
  place(at: number | undefined): number;
  /** The serial number of a drive that was given none. */
  serial(at: number): string;
  /** Connects a drive. */
  attach(
    at: number,
    unit: IdeUnit,
  ): {
    /** To be called after the drive's own reset. */
    reset(): void;
    /** See `Device.bootNode`. */
    readonly bootNode: string;
  };
}

/** A SCSI bus: targets with logical units. */
export interface ScsiBus extends Bus<'SCSI'> {
  /** The place that is meant; what is left out is the first that is free. Throws where it is in use. */
  place(target: number | undefined, lun: number | undefined): { readonly target: number; readonly lun: number };
  /** Adds a unit; what it returns takes it away. */
  attach(unit: ScsiUnit): () => void;
  /** Tells the guest of a unit's change, by its sense code. */
  changed(unit: ScsiUnit, asc: number, ascq: number): void;
  /** Of a unit it is known now where its bytes are, or not any more. With the board's lock held. */
  directChanged(): void;
}

/** The ports of a virtio-serial controller. */
export interface VirtioSerialBus extends Bus<'virtio-serial-bus'> {
  /** Takes a port's number, the next free one when none is wanted. Throws where that cannot be. */
  take(wanted: number | undefined, console: boolean): number;
  release(port: number): void;
  /** The controller's I/O side; on the I/O thread, once it is connected. */
  io(): ConsoleIo | undefined;
}

/** A USB bus: the ports of a controller and of the hubs behind it. */
export interface UsbBus extends Bus<'usb-bus'> {
  readonly ports: readonly UsbPort[];
  /** A hub's ports come with it; the result takes them away. */
  addPorts(ports: readonly UsbPort[]): () => void;
  /** The controller, where companions may share its ports. */
  readonly ehci?: Ehci;
}
/** Where vCPUs go: as many places as the machine has possible ones. */
export interface CpuBus extends Bus<'CPU'> {
  /** vCPU n, as the device at `path`, is there; what it returns takes it away. Throws where it is there already. */
  add(cpu: number, path: string): () => void;
  /** The path of the device that vCPU n is; undefined for one of the board, or one that is not there. */
  path(cpu: number): string | undefined;
  /** A vCPU was added to a machine that has started; on the I/O thread. */
  plugged(path: string): void;
}
/** Where modules of memory go. */
export interface MemoryBus extends Bus<'memory'> {
  /** A module, as the device at `path`, is there; what it returns takes it away. Throws where there is no such place. */
  add(path: string, wish: DimmWish): () => void;
  /** A module was added to a machine that has started; on the I/O thread. */
  plugged(path: string): void;
}
/** The cable of a floppy disk controller. */
export interface FloppyBus extends Bus<'floppy-bus'> {
  /** The unit that is meant, or the first free one. Throws where it is in use or there is none. */
  place(unit: number | undefined): number;
  /** Connects a drive of a kind, by CMOS' number, 0 for what its disk asks for; on the I/O thread. */
  connect(unit: number, store: DriveStore | undefined, kind: number): void;
  /** There is another disk in a drive. */
  changed(unit: number): void;
}
/** Bus kinds; helpers of other buses add theirs here. */
export interface Buses {
  readonly PCI: PciBus;
  readonly ISA: IsaBus;
  readonly System: SystemBus;
  readonly 'virtio-bus': VirtioBus;
  readonly IDE: IdeBus;
  readonly 'usb-bus': UsbBus;
  readonly SCSI: ScsiBus;
  readonly 'floppy-bus': FloppyBus;
  readonly CPU: CpuBus;
  readonly memory: MemoryBus;
  readonly 'virtio-serial-bus': VirtioSerialBus;
}
export type BusKind = keyof Buses;
export type AnyBus = Buses[BusKind];
