// A PC's board: which chip sits where and how they are wired. Every thread of a machine builds its own copy over the shared
// device memory, in the same order, and so reaches the same state.

import type { MemoryLayout } from '../accel/accel.ts';
import { Arena, type Section } from '../bits/arena.ts';
import { PLUG_GRANULE, pluggedAt, SlotTable, smramHides } from '../bits/slot-table.ts';
import { struct } from '../bits/struct.ts';
import { type Clock, Timers, timersLayout, type WallClock } from '../bus/clock.ts';
import { Bells, bellsLayout, type Doorbell, doorbellLayout } from '../bus/doorbell.ts';
import { limited, type Report, TRACE_BURST } from '../bus/events.ts';
import { fanOut, type IrqLine, SharedLine } from '../bus/irq.ts';
import { Lock, lockLayout } from '../bus/lock.ts';
import { Ram, type RamRange } from '../bus/memory.ts';
import { MsrSpace } from '../bus/msr.ts';
import { MemorySlots } from '../bus/slots.ts';
import { AddressSpace, type PlacedBell, spaceLayout } from '../bus/space.ts';
import { AcpiPm } from '../devices/acpi-pm.ts';
import { ApicBus, delivery, type RemoteApics } from '../devices/apic-bus.ts';
import { mapDebugConsole } from '../devices/debug-console.ts';
import { Dma } from '../devices/dma.ts';
import { FwCfg, type FwCfgFile } from '../devices/fw-cfg.ts';
import { Ged, ged } from '../devices/ged.ts';
import { Hpet, hpetRoutes } from '../devices/hpet.ts';
import { HypervPv, hypervMsr } from '../devices/hyperv.ts';
import { I8042 } from '../devices/i8042.ts';
import { Ioapic, ioapicPins } from '../devices/ioapic.ts';
import { type Hypercall, kvmHypercalls } from '../devices/kvm-hypercalls.ts';
import { KvmPv, kvmMsr } from '../devices/kvm-pv.ts';
import { Lapic } from '../devices/lapic.ts';
import type { Tsc } from '../devices/lapic-timer.ts';
import type { PciHost } from '../devices/pci-host.ts';
import { Pic } from '../devices/pic.ts';
import { Pit } from '../devices/pit.ts';
import { ResetPorts } from '../devices/reset.ts';
import { Rtc } from '../devices/rtc.ts';
import { comPorts, Uart } from '../devices/uart.ts';
import { VmMouse } from '../devices/vmmouse.ts';
import { Vmport } from '../devices/vmport.ts';
import { smm, tscOffset } from '../isa/x86/state.ts';
import { boardChips, type Chip, ioapicPages } from './chip.ts';
import { boardDevicesOf, type Chipset, noChipset, pcChipset, q35Chipset } from './chipset.ts';
import { type BoardEvent, type MachineConfig, TSC_KHZ } from './config.ts';
import { buildCpus, type Cpus } from './cpus.ts';
import { DeviceTree } from './device-tree.ts';
import type { ReadNow } from './device-type.ts';
import { findDeviceType } from './device-types.ts';
import { buildDimms, type Dimms, setAside } from './dimms.ts';
import { cmosBytes, type FwCfgBlobs, fwCfgItems, uuidBytes } from './fw-cfg-items.ts';
import { hasIoapic2, microvmParts, virtioBuses } from './microvm.ts';
import type { Notify } from './notices.ts';
import { buildRom, type Rom } from './rom.ts';
import { type BoardFacts, featuresOf, hasHpet, hasSleep, modelOf, physicalBitsOf, reservedMemoryEnd } from './tables.ts';
import { cpuType } from './types/cpu.ts';

/** MiB of q35's extended TSEG. */
export const EXTENDED_TSEG = 16;
/** MMIO addresses reach to the end of the widest guest-physical space. */
const MMIO_SIZE = 2 ** 52;

/** Where CMOS memory says why a vCPU is at the reset vector, and that it wakes: what SeaBIOS takes from QEMU. */
const CMOS_SHUTDOWN = 0x0f;
const WAKES = 0xfe;

/** State of a board that belongs to no chip. */
const wiresLayout = struct({ com: ['u32', 2] }, { name: 'wires', version: 1 });
/** Requests to all threads: see `Board.control`. */
const controlLayout = struct({
  switched: ['i32', 1],
  refused: ['i32', 1],
  gate: ['i32', 1],
  stop: ['i32', 1],
  pause: ['i32', 1],
  paused: ['i32', 1],
  looked: ['i32', 1],
  plugs: ['i32', 1],
  resets: ['i32', 1],
  wake: ['i32', 64],
  skipped: ['f64', 1],
  tscBase: ['i64', 1],
});

export interface BoardOptions {
  readonly config: MachineConfig;
  readonly buffer: SharedArrayBuffer;
  readonly layout: MemoryLayout;
  /** This thread: 0 the I/O thread, n + 1 vCPU n. */
  readonly thread: number;
  readonly clock: Clock;
  readonly wall: WallClock;
  /** Sets the kick flag of a vCPU (and more, if the accelerator needs it). */
  readonly kick: (cpu: number) => void;
  readonly event: (e: BoardEvent) => void;
  /** Tells the monitors; from a vCPU's thread, by a message to the I/O thread. */
  readonly notify?: Notify;
  /** Tells the vCPUs that a page of RAM, by its number from `ramBase`, was written by a device. */
  readonly codeChanged?: (page: number) => void;
  readonly report: Report;
  /** What the host gives to the firmware. */
  readonly blobs?: FwCfgBlobs;
  /** The table of memory slots has changed; before the vCPUs are told. With the board's lock held, or while they stand still. */
  readonly slotsChanged?: () => void;
  /** Where writes that only ring are may have changed; `bells` lists them. With the board's lock held. */
  readonly bellsMoved?: (bells: () => readonly PlacedBell[]) => void;
  /** Local APICs that the accelerator keeps in place of the board's. */
  readonly remoteApics?: RemoteApics;
  /** Makes accelerators forget the page at a guest-physical address. */
  readonly flushPage?: (gpa: number) => void;
  /** See `BoardServices.readNow`. */
  readonly readNow?: ReadNow;
  /** On the I/O thread: zeroes memory that has gone, the machine being held. */
  readonly clear?: (gpa: number, length: number) => void;
}

/** The board as one thread sees it. */
export interface Board {
  readonly config: MachineConfig;
  readonly lock: Lock;
  readonly clock: Clock;
  readonly tsc: Tsc;
  /** The time-stamp counter now. */
  ticks(): number;
  /** RAM as devices reach it, and all of it, for who looks at the guest from outside. */
  readonly memory: Ram;
  readonly ram: Ram;
  /** RAM-like pages that are not guest RAM, and the pages of the first MiB. */
  readonly slots: MemorySlots;
  readonly ports: AddressSpace;
  /** Address spaces and MSRs by vCPU: each sees its own local APIC. */
  readonly mmio: readonly AddressSpace[];
  readonly msrs: readonly MsrSpace[];
  readonly lapics: readonly Lapic[];
  readonly ioapics: readonly Ioapic[];
  readonly pic: Pic;
  readonly pit: Pit;
  readonly hpet: Hpet;
  /** Which of the possible vCPUs are there. */
  readonly cpus: Cpus;
  /** Memory that was plugged in. */
  readonly dimms: Dimms;
  readonly apicBus: ApicBus;
  readonly pvs: readonly KvmPv[];
  /** Hyper-V's interface, where the CPU model offers it and the translator runs the guest. */
  readonly hyperv: HypervPv | undefined;
  readonly hypercall: Hypercall;
  /** Timers of the board; each vCPU serves its local APIC's itself, the first one these too. */
  readonly timers: Timers;
  readonly uarts: readonly Uart[];
  /** The chips that are not devices, in the order in which they were made. */
  readonly chips: readonly Chip[];
  /** VMware's backdoor with its mouse. */
  readonly vmport: Vmport | undefined;
  /** None where the board has no keyboard controller. */
  readonly keyboard: I8042 | undefined;
  /** Presses the power button. With the board's lock held. */
  powerButton(): void;
  /** Whether the RTC's alarm has struck, of a board whose vCPUs serve no timers: the guest sleeps. With the board's lock held. */
  alarmed(): boolean;
  readonly pci: PciHost;
  /** All devices beside the board's own chips. */
  readonly devices: DeviceTree;
  readonly bells: Bells;
  readonly rom: Rom;
  /** Rung when flash contents changed. */
  readonly flashBell: Doorbell;
  readonly facts: BoardFacts;
  /**
   * `stop`: word that ends the vCPUs' loops; `pause`: word that holds them while it is not 0, `paused`: how many are held; `looked`: how many of them have looked at their state again since `pause` got another value; `wake`: a word for each vCPU
   * to sleep on; `plugs`: how often devices were added or removed; `switched`: how often vCPUs have come to a meeting while they go over to another accelerator, `gate`: the meetings that are over, `refused`: 1 once a vCPU could not go over; `skipped`: ns that the guest's clock has stood still, changed only while all vCPUs are held;
   * `tscBase`: how far the board's time-stamp counter is ahead of what KVM's counts by, 0 where no vCPU has measured it yet.
   */
  readonly control: {
    readonly stop: Int32Array;
    readonly pause: Int32Array;
    readonly paused: Int32Array;
    readonly looked: Int32Array;
    readonly plugs: Int32Array;
    /** How often the machine was reset. */
    readonly resets: Int32Array;
    readonly switched: Int32Array;
    readonly refused: Int32Array;
    readonly gate: Int32Array;
    readonly wake: Int32Array;
    readonly skipped: Float64Array;
    readonly tscBase: BigInt64Array;
  };
  /** Tells `bellsMoved` where writes that only ring are. With the board's lock held. */
  placeBells(): void;
  /** Wakes a vCPU that sleeps, and makes a running one look up. */
  wake(cpu: number): void;
  /** State of all devices. The machine stands still. With the board's lock held. */
  save(): Section[];
  /** Puts it back into a board of the same make; throws, with nothing changed, where a section is missing, unknown or does not suit. */
  restore(sections: readonly Section[]): void;
  /** Local APICs and the chips before them are the board's again, with state that was elsewhere. With the board's lock held, and the vCPUs. */
  apicsBack(): void;
  /**
   * Power-on state of every device, or with `wakes` the one after a sleep, which the RTC's alarm has ended or something else: the RTC then keeps its memory.
   * Once per machine reset, on one thread, with all vCPUs stopped.
   */
  reset(wakes?: 'alarm' | 'other'): void;
}

/** RAM, with what is plugged in at the moment; pieces that lie together are one. */
function ramRanges(view: DataView, layout: MemoryLayout): readonly RamRange[] | (() => readonly RamRange[]) {
  const { ramHigh, ramHighBase, plugBase, plugBytes, slots } = layout;
  const low = { gpa: 0, length: layout.ramLow, offset: layout.ramBase };
  const high = ramHigh > 0 ? [{ gpa: 2 ** 32, length: ramHigh, offset: ramHighBase }] : [];
  if (plugBytes === 0) return [low, ...high];
  let seen: number | undefined;
  let ranges: RamRange[] = [];
  return () => {
    const generation = view.getInt32(slots + SlotTable.plugGeneration, true);
    if (generation === seen) return ranges;
    seen = generation;
    ranges = [low, ...high];
    for (let gpa = plugBase; gpa < plugBase + plugBytes; gpa += PLUG_GRANULE) {
      if (!pluggedAt(view, slots, gpa)) continue;
      const last = ranges.at(-1)!;
      if (last.gpa + last.length === gpa && gpa > 2 ** 32)
        ranges[ranges.length - 1] = { ...last, length: last.length + PLUG_GRANULE };
      else ranges.push({ gpa, length: PLUG_GRANULE, offset: ramHighBase + gpa - 2 ** 32 });
    }
    return ranges;
  };
}

export function buildBoard(o: BoardOptions): Board {
  const { config, layout, wall } = o;
  const arena = new Arena(o.buffer, layout.devices, layout.devices + layout.deviceBytes);
  const control = arena.alloc(controlLayout);
  const clock: Clock = { now: () => o.clock.now() - control.skipped[0]! };
  const lock = new Lock(arena.alloc(lockLayout), o.thread + 1);
  const report = limited(o.report, clock);
  const wake = (cpu: number): void => {
    o.kick(cpu);
    Atomics.add(control.wake, cpu, 1);
    Atomics.notify(control.wake, cpu);
  };
  const view = new DataView(o.buffer);
  const pages = layout.guestBytes / 4096;
  const ranges = ramRanges(view, layout);
  const watch = {
    base: layout.ramBase,
    codeMap: new Uint8Array(o.buffer, layout.codeMap, pages),
    dirtyMap: new Uint8Array(o.buffer, layout.dirtyMap, pages),
    codeChanged: o.codeChanged ?? (() => {}),
  };
  const ram = new Ram(o.buffer, ranges, watch);
  const memory = new Ram(o.buffer, ranges, watch, (from, to) => smramHides(view, layout.slots, layout.ramLow, from, to));
  const bells = new Bells(arena.alloc(bellsLayout));
  const slots = new MemorySlots(o.buffer, layout, () => {
    o.slotsChanged?.();
    for (let cpu = 0; cpu < config.cpus; cpu++) wake(cpu);
  });
  const tscKhz = config.tscKhz ?? TSC_KHZ;
  const tsc: Tsc = {
    tscAt: (ns) => BigInt(Math.floor((ns * tscKhz) / 1e6)),
    nsAt: (t) => Math.ceil((Number(t) * 1e6) / tscKhz),
  };
  const ticks = (): number => Math.floor((clock.now() * tscKhz) / 1e6);
  /** The counter of one vCPU, which its guest may set. */
  const ownTsc = (cpu: number): Tsc => {
    const at = layout.vcpuBase + cpu * layout.vcpuBytes + tscOffset.offset;
    const tscAt = (ns: number): bigint => BigInt.asUintN(64, tsc.tscAt(ns) + view.getBigUint64(at, true));
    return {
      tscAt,
      nsAt(t) {
        const now = clock.now();
        return tsc.nsAt(tsc.tscAt(now) + t - tscAt(now));
      },
    };
  };
  const timers = new Timers(arena.alloc(timersLayout));
  const retime = (): void => {
    timers.changed();
    wake(0);
  };
  const trace = config.trace.includes('bus')
    ? (a: { space: string; kind: string; address: number }) =>
        report(a.space, `${a.kind} of nothing at 0x${a.address.toString(16)}`)
    : undefined;
  const moved = o.bellsMoved && ((): void => placeBells());
  const ports = new AddressSpace({ name: 'ports', size: 0x10000, lock, shared: arena.alloc(spaceLayout), trace, moved });
  const mmioShared = arena.alloc(spaceLayout);
  const mmio = Array.from(
    { length: config.cpus },
    () => new AddressSpace({ name: 'mmio', size: MMIO_SIZE, lock, shared: mmioShared, trace, moved }),
  );
  const placeBells = (): void => o.bellsMoved?.(() => [...placed('ports', ports), ...placed('mmio', mmio[0])]);
  const onAll = (map: (space: AddressSpace) => void): void => mmio.forEach(map);

  // Interrupt controllers.
  const bus = new ApicBus(o.remoteApics);
  const ioapic = new Ioapic({ arena, bus, report });
  onAll((space) => space.map(ioapicPages[0], 0x1000, ioapic.mmio, 'ioapic'));
  const lapics: Lapic[] = [];
  const remoteChips = () => bus.remote?.chips;
  const pic = new Pic({ arena, int: { set: (level) => lapics[0]?.lint(0, level) }, remote: remoteChips });
  if (microvmParts(config)?.pic ?? true) pic.map(ports);
  const msrs = Array.from({ length: config.cpus }, () => new MsrSpace(lock));
  const offered = featuresOf(config);
  for (let cpu = 0; cpu < config.cpus; cpu++) {
    const lapic = new Lapic({
      arena,
      bus,
      cpu,
      clock,
      tsc: ownTsc(cpu),
      pic: cpu === 0 ? pic : undefined,
      memory,
      kick: wake,
      retime: () => wake(cpu),
      moved: () => mmio[cpu].changed(),
      report,
      physBits: physicalBitsOf(config),
      features: { x2apic: offered.has('x2apic'), tscDeadline: offered.has('tsc-deadline') },
    });
    lapics.push(lapic);
    msrs[cpu].map(0x1b, 0x1b, lapic.msrs);
    mmio[cpu].movable(lapic.mapper);
    msrs[cpu].map(0x6e0, 0x6e0, lapic.msrs);
    msrs[cpu].map(0x800, 0x83f, lapic.msrs);
  }
  const micro = microvmParts(config);
  const ioapic2 = hasIoapic2(config) ? new Ioapic({ arena, bus, report, instance: 'second' }) : undefined;
  if (ioapic2) onAll((space) => space.map(ioapicPages[1], 0x1000, ioapic2.mmio, 'ioapic'));
  const isa = (n: number): IrqLine =>
    micro?.pic === false ? ioapic.pin(n === 0 ? 2 : n) : fanOut(pic.irq(n), ioapic.pin(n === 0 ? 2 : n));
  /** Global system interrupt n. */
  const gsi = (n: number): IrqLine => (n < 16 ? isa(n) : n < ioapicPins ? ioapic.pin(n) : ioapic2!.pin(n - ioapicPins));

  // Timers and clocks.
  const hpet = new Hpet({
    arena,
    clock,
    routes: config.machine === 'pc' ? hpetRoutes.pc : hpetRoutes.q35,
    fsb: config.timers?.hpetMsi === true,
    pin: (n) => ioapic.pin(n),
    legacy: [isa(0), isa(8)],
    msi: bus.deliverMsi,
    retime,
    replaces: (on) => remoteChips()?.cutTimer(on),
  });
  if (hasHpet(config)) onAll((space) => hpet.map(space));
  const pit = new Pit({ arena, clock, irq: hpet.gate(isa(0)), retime, remote: () => remoteChips() !== undefined });
  if (config.microvm?.pit ?? true) pit.map(ports);
  const rtc = new Rtc({
    arena,
    clock,
    wall,
    irq: hpet.gate(isa(8)),
    retime,
    slew: config.timers?.rtcSlew === true,
    memory: { below4g: layout.ramLow, above4g: layout.ramHigh },
  });
  if (micro?.rtc ?? true) rtc.map(ports);

  // Serial ports: COM1 and COM3 share an interrupt, COM2 and COM4 as well.
  const wires = arena.alloc(wiresLayout);
  const com = [new SharedLine(wires.com, 0, isa(4)), new SharedLine(wires.com, 1, isa(3))];
  const uarts = comPorts.map((port, n) => {
    const uart = new Uart({ arena, instance: String(n), irq: com[n & 1].source(n), report });
    if (config.serial?.includes(n) ?? true) uart.map(ports, port.base);
    return uart;
  });

  const dma = config.machine === 'pc' || config.machine === 'q35' ? new Dma({ arena, memory }) : undefined;
  dma?.map(ports);

  // Resets, power, keyboard.
  const reset = (): void => o.event({ kind: 'reset' });
  const resetPorts = new ResetPorts({ arena, reset });
  if (!micro) resetPorts.map(ports);
  const acpi = new AcpiPm({
    arena,
    clock,
    sci: isa(9),
    retime,
    powerOff: () => o.event({ kind: 'powerOff' }),
    ...(hasSleep(config) ? { suspend: () => o.event({ kind: 'suspend' }) } : {}),
    report,
    ...(config.smm ? { smi: () => chipset.apm() } : {}),
  });
  if (!micro) acpi.map(ports, false);
  const keyboard = new I8042({ arena, keyboardIrq: isa(1), auxIrq: isa(12), reset });
  if (!micro) keyboard.map(ports);
  const vmport = config.vmport
    ? new Vmport({
        ...{ ports, memory: config.memory, uuid: uuidBytes(config.uuid) },
        mouse: new VmMouse({ arena, bell: bells.add(arena.alloc(doorbellLayout, 'vmmouse.doorbell')) }),
      })
    : undefined;
  const events = new Ged({ arena, line: ioapic.pin(ged.irq), powerOff: () => o.event({ kind: 'powerOff' }), reset });
  const hasGed = micro !== undefined && (config.acpi ?? true);
  if (hasGed) onAll((space) => events.map(space));

  // Firmware and chipset.
  const flashBell = bells.add(arena.alloc(doorbellLayout));
  const rom = buildRom({
    shape: config.firmware,
    arena,
    buffer: o.buffer,
    slots,
    mmio,
    report,
    changed: () => flashBell.ring(),
    inSmm: (cpu) => view.getInt32(layout.vcpuBase + cpu * layout.vcpuBytes + smm.offset, true) !== 0,
  });
  const firmware = config.firmware !== undefined;
  const chipset: Chipset = (micro ? noChipset : config.machine === 'pc' ? pcChipset : q35Chipset)({
    arena,
    ports,
    mmio,
    slots,
    acpi,
    resetControl: resetPorts.control,
    isa,
    pic: (n) => pic.irq(n),
    pin: (n) => ioapic.pin(n),
    rom: rom.low,
    firmware,
    smi: config.smm
      ? (all) => {
          const here = Math.max(0, o.thread - 1);
          for (const cpu of all ? cpus.list() : [here]) lapics[cpu]!.accept(delivery.smi, 0, false);
        }
      : undefined,
    extendedTseg: config.extendedTseg ?? EXTENDED_TSEG,
    ramLow: layout.ramLow,
    lock,
    eject: (paths) => {
      for (const path of paths) o.event({ kind: 'eject', path });
    },
    smbus: config.machine !== undefined && (config.smbus ?? true),
  });
  const { host } = chipset;
  const transports = micro ? virtioBuses(config, gsi, mmio) : [];
  const notify = o.notify ?? (() => {});
  const cpus = buildCpus({
    config,
    arena,
    ports,
    acpi,
    lapics,
    lock,
    event: o.event,
    notify,
    refuses: () => chipset.refusesCpus?.(),
    ioThread: o.thread === 0,
  });
  const dimms = buildDimms({
    config,
    arena,
    ports,
    acpi,
    lock,
    slots,
    event: o.event,
    notify,
    ioThread: o.thread === 0,
    clear: o.clear ?? (() => {}),
  });
  const facts = (): BoardFacts => {
    const hotplugSlots = chipset.hotplugSlots?.();
    const virtio = transports.filter((t) => t.used).map((t) => t.place);
    const stores = devices.list().flatMap(({ device }) => device.errorRecords?.() ?? []);
    return {
      ramLow: layout.ramLow,
      ramHigh: layout.ramHigh,
      ...(config.memoryHotplug ? { hotplugMemory: { base: layout.plugBase, size: setAside(config.memoryHotplug) } } : {}),
      virtio,
      cpus: cpus.list(),
      ...(hotplugSlots ? { hotplugSlots } : {}),
      ...(stores.length === 1 ? { errorRecords: stores[0] } : {}),
    };
  };
  const fwCfg = new FwCfg({ arena, memory, report });
  fwCfg.map(ports);
  // A debug console that was asked for has the port for itself.
  if (config.trace.includes('firmware') && !config.devices?.some((d) => d.driver === 'isa-debugcon')) {
    const trace = limited(o.report, clock, TRACE_BURST);
    mapDebugConsole(
      ports,
      lineSink((line) => trace('firmware', line)),
    );
  }

  // Paravirtual interface.
  const pvs = lapics.map(
    (lapic, cpu) => new KvmPv({ arena, lapic, memory, clock, wall, tsc: ownTsc(cpu), tscKhz, features: config.paravirtual }),
  );
  if (config.paravirtual.length > 0) {
    pvs.forEach((pv, cpu) => {
      msrs[cpu].map(kvmMsr.wallClockOld, kvmMsr.systemTimeOld, pv.msrs);
      msrs[cpu].map(kvmMsr.first, kvmMsr.last, pv.msrs);
    });
  }
  const { hyperv: offer, vendor } = modelOf(config);
  const hyperv =
    offer && config.accel !== 'kvm'
      ? new HypervPv({
          arena,
          lapics,
          tsc: ownTsc,
          tscKhz,
          clock,
          memory,
          features: offer.features,
          amd: vendor === 'AuthenticAMD',
          reset,
        })
      : undefined;
  hyperv?.msrs.forEach((handler, cpu) => void msrs[cpu]!.map(hypervMsr.first, hypervMsr.last, handler));
  const hypercall = kvmHypercalls({ cpus: pvs, memory, clock, wall, kick: wake });

  for (const timed of [pit, rtc, hpet, acpi]) timers.add(timed);

  // All else, in the order of the configuration.
  const memdevs = new Map(
    Object.entries(config.memdevs ?? {}).map(([id, bytes]) => [id, new Uint8Array(o.buffer, slots.alloc(id, bytes), bytes)]),
  );
  const deviceFiles = new Map<string, FwCfgFile>();
  const cpu = cpuType(config);
  const devices = new DeviceTree({
    services: {
      cpus: config.cpus,
      ram: config.memory,
      memory, slots, buffer: o.buffer, clock, wall, lock, report, isa, dma, cmos: (at, value) => rtc.preset(at, value), msi: bus.deliverMsi, retime, bellsChanged: placeBells, event: o.event,
      firmwareFile: (name, file) => void deviceFiles.set(name, file), pci: host, ioThread: o.thread === 0, rom: (file) => rom.roms.get(file), memdev: (id) => memdevs.get(id), notify, flushPage: o.flushPage ?? (() => {}), ...(o.readNow ? { readNow: o.readNow } : {}),
    },
    type: (driver) => (driver === cpu.name ? cpu : findDeviceType(driver)), buffer: o.buffer, start: arena.start + Math.ceil(arena.used / 64) * 64, end: arena.end, ports: [ports], mmio, timers, bells,
  }); // biome-ignore format: one object
  if (chipset.bus) devices.addBus(chipset.bus);
  for (const transport of transports) devices.addBus(transport);
  if (cpus.bus) devices.addBus(cpus.bus);
  if (dimms.bus) devices.addBus(dimms.bus);
  devices.addBus({ kind: 'ISA', name: 'isa.0' });
  devices.addBus({ kind: 'System', name: 'main-system-bus' });
  for (const device of boardDevicesOf(config)) devices.plug(device, undefined, true);
  for (const device of config.devices ?? []) devices.plug(device);
  const chips = boardChips(config, chipset.chips, transports);
  const items = fwCfgItems(config, () => ({ ...facts(), pmBase: chipset.pmBase() }), devices.bootPaths(), o.blobs ?? {});
  fwCfg.fill({ ...items, files: new Map([...items.files, ...deviceFiles, ...(chipset.files ?? [])]) });

  return {
    config, lock, clock, tsc, ticks, memory, ram, slots, ports, mmio, msrs, lapics, ioapics: ioapic2 ? [ioapic, ioapic2] : [ioapic], pic, pit, hpet, cpus, dimms, apicBus: bus, pvs, hyperv, hypercall, timers, uarts, chips, vmport, keyboard: micro ? undefined : keyboard, pci: chipset.host, devices, bells, rom, flashBell, control, wake, placeBells,
    get facts() {
      return facts();
    },
    alarmed() {
      rtc.tick(clock.now());
      return rtc.alarmed;
    },
    powerButton() {
      if (!micro) acpi.powerButton();
      else if (hasGed) events.powerButton();
    },
    reset(wakes) {
      lock.run(() => {
        slots.reset();
        slots.low(0xa0, 32, 'bus');
        for (const device of [ioapic, pic, hpet, pit, resetPorts, acpi, keyboard, ...(vmport ? [vmport.mouse] : []), events, ...(ioapic2 ? [ioapic2] : []), ...(dma ? [dma] : []), ...uarts, ...lapics, ...pvs, ...(hyperv ? [hyperv] : [])]) device.reset();
        // Its battery keeps the clock over a sleep.
        if (wakes === undefined) rtc.reset(config.rtcOffset);
        else rtc.preset(CMOS_SHUTDOWN, WAKES);
        if (wakes === undefined) for (const [address, value] of cmosBytes(cpus.list().length, (Atomics.load(control.resets, 0) === 0 ? config.bootOnce : undefined) ?? config.bootOrder ?? 'cad')) rtc.preset(address, value);
        rom.reset();
        fwCfg.reset();
        chipset.reset(wakes !== undefined);
        cpus.reset();
        dimms.reset();
        devices.reset();
        if (wakes) acpi.woken(wakes);
      });
      if (!firmware) {
        const high = Math.max(2 ** 38, reservedMemoryEnd(facts()) ?? 0);
        host.assign(
          { io: { start: 0xc000, end: 0x10000 }, mem32: { start: 0xc0000000, end: 0xfec00000 }, mem64: { start: high, end: high + 2 ** 38 } },
          chipset.interruptLine,
        );
      }
      Atomics.store(control.stop, 0, 0);
      Atomics.store(control.pause, 0, 0);
      Atomics.store(control.paused, 0, 0);
    },
    apicsBack() {
      for (const one of [ioapic, ...(ioapic2 ? [ioapic2] : []), pic]) one.restored();
      timers.changed();
    },
    save: () => [...arena.save(), ...devices.save()],
    restore(sections) {
      const names = new Set([...arena.save(), ...devices.save()].map((s) => s.name));
      const unknown = sections.find((s) => !names.has(s.name) && !devices.takes(s.name));
      if (unknown) throw new Error(`Cannot restore ${unknown.name}: this machine has no such device`);
      arena.check(sections);
      devices.restore(sections);
      arena.put(sections);
      chipset.restored?.();
      for (const space of [ports, ...mmio]) space.changed();
      timers.changed();
    },
  }; // biome-ignore format: one object
}

/** Writes to a space that only ring. */
const placed = (name: PlacedBell['space'], space: AddressSpace): PlacedBell[] =>
  space
    .regions()
    .flatMap(({ base, handler }) => (handler.bells?.() ?? []).map((b) => ({ ...b, space: name, address: base + b.offset })));

/** Collects characters to lines. */
function lineSink(line: (text: string) => void): (byte: number) => void {
  let text = '';
  return (byte) => {
    if (byte === 10 || text.length >= 1000) {
      line(text);
      text = '';
    } else if (byte !== 13) text += String.fromCharCode(byte);
  };
}
