// A KVM virtual machine: its descriptor, memory slots and interrupt controllers in the kernel. One thread makes it; others attach to the
// descriptors, which are the process's. Linux 6.1, Documentation/virt/kvm/api.rst.

import {
  block,
  type CapName,
  cap,
  clockDataLayout,
  coalescedZoneLayout,
  dirtyGfnLayout,
  dirtyLogLayout,
  enableCapLayout,
  errno,
  type IoctlName,
  ioctls,
  irqLevelLayout,
  memoryRegionLayout,
  msiLayout,
  PIT_SPEAKER_DUMMY,
  pitConfigLayout,
  ROUTES_HEADER,
  regionFlag,
  reinjectControlLayout,
  routeLayout,
  routeType,
} from './abi.ts';
import { wires } from './chips.ts';
import type { CoalescedPorts } from './coalesced.ts';
import { type CpuidEntry, supportedCpuid } from './cpuid.ts';
import type { KvmHost } from './host.ts';

/** Where interrupt controllers are: all of them ours; the local APICs in the kernel and the rest ours; or all of them, and the PIT, in the kernel. */
export type Irqchip = 'off' | 'split' | 'on';

/** What other threads need to use the same machine: plain data. */
export interface KvmShare {
  readonly kvm: number;
  readonly vm: number;
  readonly irqchip: Irqchip;
  /** Bytes of each vCPU's run area. */
  readonly runBytes: number;
  /** The eventfds that a thread waits for (`KvmHost.waitSet`), where the kernel rings doorbells. */
  readonly waits?: number;
  /** Where in each vCPU's run area writes to coalesced ports wait (coalesced.ts), where there are such. */
  readonly coalesced?: number;
  /** Entries of each vCPU's dirty ring, where pages that are written are noted there and not in bitmaps. */
  readonly dirtyRing?: number;
  /** Bytes at the end of the RAM below 4 GiB that may be hidden while vCPUs run, in each of these sizes. */
  readonly hiding?: readonly number[];
}
/** What a machine may have beside. */
export interface KvmVmOptions {
  /** ioeventfds: see doorbells.ts. */
  readonly bells?: boolean;
  /** Ports that are coalesced where the kernel can. */
  readonly coalesced?: CoalescedPorts | undefined;
  /** Entries of the dirty rings: see dirty-ring.ts. Where the kernel has none, bitmaps take their place. */
  readonly dirtyRing?: number | undefined;
  /** The kernel's PIT loses interrupts that the guest has not taken in time; it gives them later when this is left out. */
  readonly pitDiscards?: boolean | undefined;
  /** As `KvmShare.hiding`. */
  readonly hiding?: readonly number[] | undefined;
}

const API_VERSION = 12;
const PAGE = 4096;
/** Four pages below the firmware that Intel's processors need for real mode, where nothing else lies. */
const TSS_ADDRESS = 0xfeff_d000;
const IDENTITY_MAP = 0xfeff_c000n;
const IOAPIC_PINS = 24n;
/** Capabilities without which nothing runs. */
const NEEDED: readonly CapName[] = [
  'userMemory',
  'extCpuid',
  'vcpuEvents',
  'xsave',
  'debugregs',
  'userNmi',
  'destroyMemoryRegionWorks',
];

/** What the kernel's own chips of the board take. */
const CHIPS: readonly CapName[] = ['irqchip', 'irqRouting', 'pit2', 'pitState2'];

export class KvmVm {
  readonly host: KvmHost;
  readonly share: KvmShare;
  readonly supported: readonly CpuidEntry[];

  private constructor(host: KvmHost, share: KvmShare) {
    this.host = host;
    this.share = share;
    this.supported = supportedCpuid(host, share.kvm);
  }

  /**
   * Opens the device and makes a machine without memory: see regions.ts.
   * @throws Error, one line, where the kernel has not what is needed
   */
  static create(host: KvmHost, irqchip: Irqchip, o: KvmVmOptions = {}): KvmVm {
    const kvm = host.open();
    /** Descriptors, of which none is left where anything fails. */
    const held = [kvm];
    try {
      const version = host.ioctl(kvm, ioctls.getApiVersion.request, 0);
      if (version < 0)
        throw new Error(`Cannot use KVM: the device does not answer as /dev/kvm does (error ${-version}); use -accel dbt`);
      if (version !== API_VERSION)
        throw new Error(`Cannot use /dev/kvm: its API version is ${version}, accepted is ${API_VERSION}`);
      const has = (name: CapName): number => host.ioctl(kvm, ioctls.checkExtension.request, cap[name]);
      const missing = NEEDED.filter((name) => has(name) <= 0);
      if (missing.length > 0) throw new Error(`Cannot use /dev/kvm: this kernel has no ${missing.join(', ')}`);
      let vm: number;
      // A signal may end it, as those of a profiler do.
      do vm = host.ioctl(kvm, ioctls.createVm.request, 0);
      while (vm === -errno.EINTR);
      if (vm < 0) throw new Error(`Cannot make a KVM machine: error ${-vm}`);
      held.unshift(vm);
      const messages = has('signalMsi') > 0;
      const whole = irqchip === 'on' && messages && CHIPS.every((name) => has(name) > 0);
      const split = irqchip !== 'off' && messages && has('splitIrqchip') > 0;
      const runBytes = host.ioctl(kvm, ioctls.getVcpuMmapSize.request, 0);
      const waits = o.bells && has('ioeventfd') > 0 ? host.waitSet() : -1;
      if (waits >= 0) held.unshift(waits);
      const ring = Math.min(o.dirtyRing ?? 0, Math.max(0, has('dirtyLogRing')) / dirtyGfnLayout.size);
      // The capability tells the page of the ring.
      const coalesced = o.coalesced && has('coalescedPio') > 0 ? has('coalescedMmio') : 0;
      const made = new KvmVm(host, {
        ...{ kvm, vm, irqchip: whole ? 'on' : split ? 'split' : 'off', runBytes },
        ...(waits < 0 ? {} : { waits }),
        ...(ring > 0 ? { dirtyRing: ring } : {}),
        ...(o.hiding ? { hiding: o.hiding } : {}),
        ...(coalesced > 0 ? { coalesced: coalesced * PAGE } : {}),
      });
      made.#setUp(o);
      return made;
    } catch (error) {
      for (const fd of held) host.close(fd);
      throw error;
    }
  }
  /** The same machine on another thread. */
  static attach(host: KvmHost, share: KvmShare): KvmVm {
    return new KvmVm(host, share);
  }

  /** Ends this process's hold of the machine, once no vCPU is left. */
  close(): void {
    if (this.share.waits !== undefined) this.host.close(this.share.waits);
    this.host.close(this.share.vm);
    this.host.close(this.share.kvm);
  }

  /** True where the kernel has it. */
  has(name: CapName): number {
    return this.host.ioctl(this.share.vm, ioctls.checkExtension.request, cap[name]);
  }

  /**
   * Sets memory slot `slot`: `size` bytes at guest-physical `gpa` from `bytes`, which must live as long as the slot; size 0 takes the
   * slot away. Other values of an existing slot than its flags need it taken away first.
   */
  setRegion(
    slot: number,
    gpa: number,
    bytes: Uint8Array | undefined,
    flags: { readonly logDirty?: boolean; readonly readonly?: boolean } = {},
  ): void {
    const { bytes: raw, view } = block(memoryRegionLayout);
    view.slot = slot;
    view.flags = (flags.logDirty ? regionFlag.logDirty : 0) | (flags.readonly ? regionFlag.readonly : 0);
    view.gpa = BigInt(gpa);
    view.size = BigInt(bytes?.length ?? 0);
    view.hva = bytes ? this.host.address(bytes) : 0n;
    this.call('setMemoryRegion', raw);
  }

  /** Pages of a region that were written since the last call, a bit each; they are noted anew from here on. */
  dirtyLog(slot: number, pages: number): Uint32Array {
    const bitmap = new Uint8Array(Math.ceil(pages / 64) * 8);
    const { bytes, view } = block(dirtyLogLayout);
    view.slot = slot;
    view.bitmap = this.host.address(bitmap);
    this.call('getDirtyLog', bytes);
    return new Uint32Array(bitmap.buffer);
  }

  /** Pages that were taken from dirty rings are noted anew from here on. */
  resetDirtyRings(): void {
    this.call('resetDirtyRings', 0);
  }

  /** A message-signalled interrupt to the local APICs in the kernel: how many took it, or a negative error. */
  signalMsi(address: number, data: number): number {
    const { bytes, view } = this.#msi;
    view.addressLow = address >>> 0;
    view.addressHigh = Math.floor(address / 2 ** 32);
    view.data = data;
    return this.host.ioctl(this.share.vm, ioctls.signalMsi.request, bytes);
  }
  readonly #msi = block(msiLayout);

  /** Sets the clock that kvm-clock shows, in ns. */
  setClock(ns: number): void {
    const { bytes, view } = block(clockDataLayout);
    view.clock = BigInt(Math.floor(ns));
    this.call('setClock', bytes);
  }

  /** The clock that kvm-clock shows, in ns; undefined where the kernel does not tell it. */
  getClock(): number | undefined {
    const { bytes, view } = block(clockDataLayout);
    return this.host.ioctl(this.share.vm, ioctls.getClock.request, bytes) < 0 ? undefined : Number(view.clock);
  }

  /**
   * Tells the kernel where I/O APIC pins point, as messages, so that it reports the end of their level-triggered interrupts.
   * A masked pin is `undefined`.
   */
  setRoutes(pins: readonly ({ readonly address: number; readonly data: number } | undefined)[]): void {
    this.#routing(
      pins.flatMap((p, gsi) => (p ? [{ gsi, type: routeType.msi, union: [p.address >>> 0, 0, p.data] as const }] : [])),
    );
  }
  /** Global system interrupts lead to inputs of the kernel's chips. */
  setWires(wires: readonly { readonly gsi: number; readonly chip: number; readonly pin: number }[]): void {
    this.#routing(wires.map(({ gsi, chip, pin }) => ({ gsi, type: routeType.irqchip, union: [chip, pin] })));
  }
  #routing(routes: readonly { readonly gsi: number; readonly type: number; readonly union: readonly number[] }[]): void {
    const bytes = new Uint8Array(ROUTES_HEADER + routes.length * routeLayout.size);
    new DataView(bytes.buffer).setUint32(0, routes.length, true);
    routes.forEach(({ gsi, type, union }, n) => {
      const e = routeLayout.view(bytes.buffer, ROUTES_HEADER + n * routeLayout.size);
      e.gsi = gsi;
      e.type = type;
      e.union.set(union);
    });
    this.call('setGsiRouting', bytes);
  }
  /** The level of a global system interrupt. */
  irqLine(gsi: number, level: 0 | 1): void {
    const { bytes, view } = this.#line;
    view.irq = gsi;
    view.level = level;
    this.call('irqLine', bytes);
  }
  readonly #line = block(irqLevelLayout);

  call(name: IoctlName, argument: number | bigint | Uint8Array): number {
    const result = this.host.ioctl(this.share.vm, ioctls[name].request, argument);
    if (result < 0)
      throw new Error(
        `Cannot ${name} of a KVM machine: error ${-result}${-result === errno.EINVAL ? ' (a value is not accepted)' : ''}`,
      );
    return result;
  }
  enable(name: CapName, ...args: bigint[]): void {
    const { bytes, view } = block(enableCapLayout);
    view.cap = cap[name];
    args.forEach((a, n) => {
      view.args[n] = a;
    });
    this.call('enableCap', bytes);
  }

  #setUp({ coalesced, pitDiscards }: KvmVmOptions): void {
    if (coalesced && this.share.coalesced !== undefined) {
      const { bytes, view } = block(coalescedZoneLayout);
      view.addr = BigInt(coalesced.port);
      view.size = coalesced.size;
      view.pio = 1;
      this.call('registerCoalesced', bytes);
    }
    // Only Intel's processors need these; others accept them.
    if (this.has('setIdentityMapAddr') > 0) this.call('setIdentityMapAddr', u64(IDENTITY_MAP));
    if (this.has('setTssAddr') > 0) this.call('setTssAddr', TSS_ADDRESS);
    // Before any vCPU is made.
    if (this.share.dirtyRing) this.enable('dirtyLogRing', BigInt(this.share.dirtyRing * dirtyGfnLayout.size));
    if (this.share.irqchip === 'on') {
      this.call('createIrqchip', 0);
      const { bytes, view } = block(pitConfigLayout);
      view.flags = PIT_SPEAKER_DUMMY;
      this.call('createPit2', bytes);
      if (pitDiscards && this.has('reinjectControl') > 0) this.call('reinjectControl', block(reinjectControlLayout).bytes);
      this.setWires(wires);
      if (this.has('x2apicApi') > 0) this.enable('x2apicApi', 3n);
    }
    if (this.share.irqchip === 'split') {
      this.enable('splitIrqchip', IOAPIC_PINS);
      // 32-bit destinations in messages and LAPIC state, and no quirk that takes 0xff for a broadcast.
      if (this.has('x2apicApi') > 0) this.enable('x2apicApi', 3n);
    }
  }
}

function u64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  return bytes;
}
