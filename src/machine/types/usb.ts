// USB: host controllers, keyboard, mouse, tablet, hub, and disks.

import type { Doorbell } from '../../bus/doorbell.ts';
import type { GuestMemory } from '../../bus/memory.ts';
import { PciFunction } from '../../devices/pci-function.ts';
import { Msix } from '../../devices/pci-msix.ts';
import { perform } from '../../devices/scsi/perform.ts';
import { ScsiTarget } from '../../devices/scsi/target.ts';
import { UsbDevice } from '../../devices/usb/device.ts';
import { EHCI_BYTES, EHCI_PORTS, Ehci } from '../../devices/usb/ehci.ts';
import { Hid, type HidKind } from '../../devices/usb/hid.ts';
import { Hub } from '../../devices/usb/hub.ts';
import { choosePort, type UsbPort } from '../../devices/usb/port.ts';
import { Storage } from '../../devices/usb/storage.ts';
import { UHCI_BYTES, Uhci } from '../../devices/usb/uhci.ts';
import { XHCI_BYTES, XHCI_MSIX, Xhci } from '../../devices/usb/xhci.ts';
import { XhciRings } from '../../devices/usb/xhci-rings.ts';
import { INTERRUPTERS, PORTS_MAX } from '../../devices/usb/xhci-state.ts';
import { ABSOLUTE_MAX, type Button, type InputDevice, type Seat } from '../../display/input.ts';
import type { UsbBus } from '../buses.ts';
import { type Device, type DeviceContext, deviceType, type IoServices, type IoSide } from '../device-type.ts';
import { DriveStore, drivePolicy } from '../drive-store.ts';
import { takeDrive } from '../drives.ts';
import { bool, choice, int32, named, onOffAuto, size, str, uint32, uint64 } from '../properties.ts';
import { seatOf, seatProperties } from './seat.ts';

/** A controller's bus. Hubs of the guest's devices add their ports. */
export function usbBus(name: string, ports: readonly UsbPort[]): UsbBus {
  const all: UsbPort[] = [...ports];
  return {
    kind: 'usb-bus',
    name,
    ports: all,
    hasRoom: () => all.some((p) => p.device === undefined),
    addPorts(more) {
      all.push(...more);
      return () => {
        for (const p of more) all.splice(all.indexOf(p), 1);
      };
    },
  };
}
/** QEMU's names of a controller's bus. */
export const usbBusName = (ctx: DeviceContext): string => (ctx.id === undefined ? 'usb-bus.0' : `${ctx.id}.0`);

// ── xHCI ──

const xhciType = (o: { name: string; description: string; vendor: number; device: number; revision: number }) =>
  deviceType({
    name: o.name,
    bus: 'PCI',
    category: 'USB',
    description: o.description,
    parents: ['base-xhci', 'pci-xhci', 'pci-device'],
    properties: {
      p2: uint32(4, 'USB 2 ports, 1 to 15'),
      p3: uint32(4, 'USB 3 ports, 0 to 15'),
      msi: onOffAuto('auto'),
      msix: onOffAuto('auto'),
      slots: uint32(64, 'accepted; there are 64'),
      intrs: uint32(16, 'accepted; there are 16'),
    },
    build(ctx, p) {
      if (p.p2 < 1 || p.p2 > 15 || p.p3 > 15 || p.p2 + p.p3 > PORTS_MAX)
        throw new Error(`Cannot make ${p.p2} USB 2 and ${p.p3} USB 3 ports: p2 accepts 1 to 15, p3 0 to 15`);
      const bell = ctx.doorbell();
      const msix =
        p.msix === 'off' ? undefined : new Msix({ arena: ctx.arena, name: ctx.name, vectors: INTERRUPTERS, send: ctx.msi });
      const xhci: Xhci = new Xhci({
        arena: ctx.arena,
        name: ctx.name,
        p2: p.p2,
        p3: p.p3,
        bell,
        now: () => ctx.clock.now(),
        message: (n) => msix?.notify(n) ?? false,
        intx: (level) => f.intx.set(level),
      });
      const f: PciFunction = new PciFunction({
        arena: ctx.arena,
        name: ctx.name,
        vendor: o.vendor,
        device: o.device,
        revision: o.revision,
        subsystemVendor: 0x1af4,
        subsystem: 0x1100,
        classCode: 0x0c0330,
        interruptPin: 1,
        bars: [
          {
            index: 0,
            kind: 'mem64',
            name: 'xhci',
            size: XHCI_BYTES,
            handler: {
              read: (at, n) => (at < XHCI_MSIX ? xhci.handler.read(at, n) : (msix?.handler.read(at - XHCI_MSIX, n) ?? 0)),
              write: (at, n, v) => (at < XHCI_MSIX ? xhci.handler.write(at, n, v) : msix?.handler.write(at - XHCI_MSIX, n, v)),
            },
          },
        ],
      });
      // Serial bus release number 3.0.
      f.preset(0x60, [0x30]);
      f.startCapabilitiesAt(0x90);
      msix?.attach(f, 0, XHCI_MSIX);
      ctx.plug(f);
      ctx.addBus(usbBus(usbBusName(ctx as DeviceContext), xhci.ports));
      return {
        reset() {
          f.reset();
          msix?.reset();
          xhci.reset();
        },
        io({ lock, memory, report, after }) {
          const rings = new XhciRings(xhci, memory, (message) => report(ctx.name, message));
          const work = (): void => {
            if (lock.run(() => rings.work())) after(0, work);
          };
          bell.heard = work;
          xhci.woken = (device, endpoint) => rings.wake(device, endpoint);
          return {};
        },
      };
    },
  });

// ── UHCI and EHCI ──

/** Walks a controller's schedule for as long as it says when the next walk is due. */
function walking(
  controller: { walk(memory: GuestMemory): number | undefined },
  bell: Doorbell,
  { lock, memory, after }: IoServices,
): IoSide {
  let waiting: { cancel(): void } | undefined;
  const walk = (): void => {
    waiting?.cancel();
    const next = lock.run(() => controller.walk(memory));
    waiting = next === undefined ? undefined : after(next, walk);
  };
  bell.heard = walk;
  return { close: () => waiting?.cancel() };
}

const uhciType = (name: string, vendorDevice: number, interruptPin: 1 | 2 | 3 | 4) =>
  deviceType({
    name,
    bus: 'PCI',
    category: 'USB',
    description: 'USB 1 controller',
    parents: ['pci-uhci-usb', 'pci-device'],
    properties: {
      masterbus: str('bus of the EHCI controller whose slow ports this one serves'),
      firstport: uint32(0, 'the first of them'),
      bandwidth: uint32(1280, 'accepted; bytes of a frame'),
      maxframes: uint32(128, 'accepted'),
    },
    build(ctx, p) {
      const bell = ctx.doorbell();
      const master = p.masterbus === undefined ? undefined : ctx.findBus('usb-bus', p.masterbus);
      const ehci = master?.ehci;
      if (p.masterbus !== undefined && ehci === undefined) throw new Error(`USB bus '${p.masterbus}' not found`);
      const ports = ehci?.ports.slice(p.firstport, p.firstport + 2);
      if (ports !== undefined && ports.length < 2)
        throw new Error(`firstport on masterbus: ${p.firstport} is not one of 0 to ${EHCI_PORTS - 2}`);
      const f: PciFunction = new PciFunction({
        arena: ctx.arena,
        name: ctx.name,
        vendor: 0x8086,
        device: vendorDevice,
        revision: name.startsWith('piix') ? 1 : 3,
        subsystemVendor: 0x1af4,
        subsystem: 0x1100,
        classCode: 0x0c0300,
        interruptPin,
        multifunction: (p as { multifunction?: boolean }).multifunction ?? false,
        bars: [
          {
            index: 4,
            kind: 'io',
            name: 'uhci',
            size: UHCI_BYTES,
            handler: { read: (at, n) => uhci.handler.read(at, n), write: (at, n, v) => uhci.handler.write(at, n, v) },
          },
        ],
      });
      const uhci: Uhci = new Uhci({
        arena: ctx.arena,
        name: ctx.name,
        irq: (level) => f.intx.set(level),
        ring: () => bell.ring(),
        now: () => ctx.clock.now(),
        ...(ehci && ports ? { shared: { ports, mine: (n) => ehci.left(p.firstport + n) } } : {}),
      });
      ehci?.addCompanion(p.firstport, uhci);
      // Serial bus release number 1.0; legacy support.
      f.preset(0x60, [0x10]);
      f.preset(0xc0, [0x00, 0x20]);
      f.writable(0xc0, [0xff, 0xff]);
      ctx.plug(f);
      if (ehci === undefined) ctx.addBus(usbBus(usbBusName(ctx as DeviceContext), uhci.ports));
      return {
        reset() {
          f.reset();
          uhci.reset();
        },
        io: (services) => walking(uhci, bell, services),
      };
    },
  });

const ehciType = (name: string, device: number) =>
  deviceType({
    name,
    bus: 'PCI',
    category: 'USB',
    description: 'USB 2 controller',
    parents: ['pci-ehci-usb', 'pci-device'],
    properties: { maxframes: uint32(128, 'accepted') },
    build(ctx, p) {
      const bell = ctx.doorbell();
      const f: PciFunction = new PciFunction({
        arena: ctx.arena,
        name: ctx.name,
        vendor: 0x8086,
        device,
        revision: name === 'usb-ehci' ? 0x10 : 3,
        subsystemVendor: 0x1af4,
        subsystem: 0x1100,
        classCode: 0x0c0320,
        interruptPin: 4,
        multifunction: (p as { multifunction?: boolean }).multifunction ?? false,
        bars: [
          {
            index: 0,
            kind: 'mem32',
            name: 'ehci',
            size: EHCI_BYTES,
            handler: { read: (at, n) => ehci.handler.read(at, n), write: (at, n, v) => ehci.handler.write(at, n, v) },
          },
        ],
      });
      const ehci: Ehci = new Ehci({
        arena: ctx.arena,
        name: ctx.name,
        irq: (level) => f.intx.set(level),
        ring: () => bell.ring(),
        now: () => ctx.clock.now(),
      });
      // Serial bus release number 2.0, frame length, port wake mask; ownership by the operating system (EECP 68h).
      f.preset(0x60, [0x20, 0x20, 0x7f, 0]);
      f.writable(0x61, [0x3f, 0x7f]);
      f.preset(0x68, [1, 0, 0, 0]);
      f.writable(0x6b, [1]);
      f.writable(0x6c, [0xff, 0xff, 0xff, 0xff]);
      ctx.plug(f);
      ctx.addBus({ ...usbBus(usbBusName(ctx as DeviceContext), ehci.ports), ehci });
      return {
        reset() {
          f.reset();
          ehci.reset();
        },
        io: (services) => walking(ehci, bell, services),
      };
    },
  });

// ── Devices ──

/** Plugs a function into its port: on every thread, taken back with the device. */
function plugIn(ctx: DeviceContext<'usb-bus'>, device: UsbDevice, path: string | undefined): UsbPort {
  const { speeds } = device.fn.description;
  const port = choosePort(ctx.bus.ports, { name: device.name, speeds }, path, ctx.bus.name);
  ctx.onRemove(port.attach(device));
  return port;
}
function plugged(device: UsbDevice, port: UsbPort, io: (services: IoServices) => IoSide): Device {
  return {
    reset() {
      device.powerOn();
      port.connected();
    },
    io,
  };
}

const buttonBits: Readonly<Partial<Record<Button, number>>> = { left: 1, right: 2, middle: 4, side: 8, extra: 16 };
const wheel: Readonly<Partial<Record<Button, number>>> = { 'wheel-up': 1, 'wheel-down': -1 };
const hidKinds: Readonly<Record<HidKind, { name: string; title: string; kinds: InputDevice['kinds']; serial: string }>> = {
  keyboard: { name: 'usb-kbd', title: 'QEMU USB Keyboard', kinds: ['key'], serial: '68284' },
  mouse: { name: 'usb-mouse', title: 'QEMU USB Mouse', kinds: ['relative'], serial: '89126' },
  tablet: { name: 'usb-tablet', title: 'QEMU USB Tablet', kinds: ['absolute'], serial: '28754' },
};

const hidType = (kind: HidKind) => {
  const { name, title, kinds, serial } = hidKinds[kind];
  return deviceType({
    name,
    bus: 'usb-bus',
    category: 'Input',
    description: title.replace('QEMU ', ''),
    parents: ['usb-hid', 'usb-device', 'device'],
    properties: {
      usb_version: uint32(2, '1 or 2'),
      ...seatProperties,
    },
    build(ctx, p) {
      if (p.usb_version !== 1 && p.usb_version !== 2)
        throw new Error(`Cannot make a device of USB ${p.usb_version}: usb_version accepts 1 and 2`);
      const given = p as typeof p & { port?: string; serial?: string };
      const hid = new Hid({
        arena: ctx.arena,
        name: ctx.name,
        kind,
        serial: given.serial ?? serial,
        highSpeed: p.usb_version === 2,
        now: () => ctx.clock.now(),
      });
      const device = new UsbDevice(ctx.arena, ctx.name, hid);
      const port = plugIn(ctx, device, given.port);
      return plugged(device, port, (services) => hidIo(hid, device, title, kinds, services, seatOf(p)));
    },
  });
};

function hidIo(
  hid: Hid,
  device: UsbDevice,
  name: string,
  kinds: InputDevice['kinds'],
  services: IoServices,
  seat: Seat | undefined,
): IoSide {
  const { lock, after, backends } = services;
  // Keyboards that are asked to repeat their reports do so as long as they are asked.
  let armed = false;
  const repeat = (): void => {
    armed = false;
    lock.run(() => hid.ready());
  };
  hid.ready = () => {
    device.wake(0x81);
    if (armed || hid.s.idle === 0) return;
    armed = true;
    after(Math.max(4, hid.due), repeat);
  };
  let held = 0;
  const remove = backends.input.add({
    name,
    kinds,
    seat,
    listening: () => device.s.configuration !== 0,
    ...(hid.kind === 'keyboard'
      ? { leds: () => ({ num: (hid.s.leds & 1) !== 0, caps: (hid.s.leds & 2) !== 0, scroll: (hid.s.leds & 4) !== 0 }) }
      : {}),
    take: (events) =>
      lock.run(() => {
        let [x, y, turns, news] = hid.kind === 'tablet' ? [hid.s.lastX, hid.s.lastY, 0, false] : [0, 0, 0, false];
        const flush = (): void => {
          if (!news) return;
          hid.pointer(x, y, turns, held);
          if (hid.kind === 'mouse') [x, y] = [0, 0];
          [turns, news] = [0, false];
        };
        for (const e of events) {
          if (e.kind === 'key') hid.key(e.key.usage, e.down);
          else if (e.kind === 'button') {
            if (e.down) turns += wheel[e.button] ?? 0;
            const bit = buttonBits[e.button] ?? 0;
            if (bit !== 0) flush();
            held = e.down ? held | bit : held & ~bit;
            news = true;
          } else {
            const value = e.kind === 'absolute' ? Math.max(0, Math.min(ABSOLUTE_MAX, e.value)) : e.value;
            const start = e.kind === 'absolute' ? 0 : e.axis === 'x' ? x : y;
            if (e.axis === 'x') x = start + value;
            else y = start + value;
            news = true;
          }
        }
        flush();
      }),
  });
  return { close: remove };
}

const usbHub = deviceType({
  name: 'usb-hub',
  bus: 'usb-bus',
  category: 'USB',
  description: 'hub of eight ports, USB 1.1',
  parents: ['usb-device', 'device'],
  properties: { ports: uint32(8, 'accepted; there are eight') },
  build(ctx, p) {
    const given = p as typeof p & { port?: string; serial?: string };
    // The hub's ports are named after the port that it sits on, which is chosen by what it is.
    const { path } = choosePort(ctx.bus.ports, { name: ctx.name, speeds: ['full'] }, given.port, ctx.bus.name);
    const hub = new Hub({ arena: ctx.arena, name: ctx.name, serial: given.serial ?? '314159', path });
    const device = new UsbDevice(ctx.arena, ctx.name, hub);
    const port = plugIn(ctx, device, path);
    hub.ready = () => device.wake(0x81);
    hub.passed = (other, endpoint) => port.owner?.wake(other, endpoint);
    ctx.onRemove(ctx.bus.addPorts(hub.ports));
    return plugged(device, port, () => ({}));
  },
});

const usbStorage = deviceType({
  name: 'usb-storage',
  bus: 'usb-bus',
  category: 'Storage',
  description: 'disk or CD-ROM on USB',
  parents: ['usb-storage-dev', 'usb-device', 'device'],
  properties: {
    drive: named('drive', 'Node name or ID of a block device to use as a backend'),
    removable: bool(false),
    bootindex: int32(-1),
    logical_block_size: size(512),
    physical_block_size: size(512),
    min_io_size: size(0),
    opt_io_size: size(0),
    discard_granularity: size(0),
    'write-cache': choice(['auto', 'on', 'off'], 'auto', 'OnOffAuto'),
    'share-rw': bool(false),
    rerror: choice(['auto', 'report', 'ignore', 'stop'], 'auto', 'BlockdevOnError'),
    werror: choice(['auto', 'report', 'ignore', 'stop', 'enospc'], 'auto', 'BlockdevOnError'),
    commandlog: bool(false),
    wwn: uint64(0),
    'x-cdrom': bool(false, 'a CD-ROM; a drive with media=cdrom sets it'),
  },
  build(ctx, p) {
    if (p.drive === undefined) throw new Error('drive property not set');
    const given = p as typeof p & { port?: string; serial?: string };
    const cdrom = p['x-cdrom'];
    let store: DriveStore | undefined;
    const serial = given.serial ?? '1';
    const storage = new Storage({ arena: ctx.arena, name: ctx.name, serial, luns: 1 });
    const target = new ScsiTarget({
      arena: ctx.arena,
      name: ctx.name,
      kind: cdrom ? 'cdrom' : 'disk',
      vendor: 'QEMU',
      product: cdrom ? 'QEMU CD-ROM' : 'QEMU HARDDISK',
      version: '2.5+',
      serial,
      blockSize: cdrom ? 2048 : p.logical_block_size,
      ...(cdrom ? {} : { removable: p.removable }),
      medium: () => store?.inserted,
      tray: (open) =>
        ctx.notify('DEVICE_TRAY_MOVED', { device: store?.drive.id ?? '', id: ctx.id ?? ctx.path, 'tray-open': open }),
    });
    const device = new UsbDevice(ctx.arena, ctx.name, storage);
    const port = plugIn(ctx, device, given.port);
    const made = plugged(device, port, (services) => {
      const drive = takeDrive(services.backends, p.drive!, ctx.path);
      store = new DriveStore(drive, services, drivePolicy(drive, p.rerror, p.werror));
      const { lock } = services;
      drive.changed = () => lock.run(() => target.mediumChanged());
      storage.ready = (endpoint) => device.wake(endpoint);
      let work: Promise<void> | undefined;
      storage.backend = {
        execute(epoch, lun, cdb, out, room) {
          const plan = target.plan(cdb, lun);
          const into = new Uint8Array(room);
          const run = async (): Promise<void> => {
            const result = await perform(plan, target.s.trayOpen ? undefined : store?.inserted, { in: [into], out: [out] });
            lock.run(() => {
              target.finish(result.sense);
              storage.finished(
                epoch,
                into.subarray(0, room === 0 ? 0 : result.transferred),
                result.transferred,
                result.status === 0,
              );
            });
          };
          work = run();
        },
      };
      return {
        drain: async () => store?.drained(work),
        resumed: () => store?.resumed(),
        reset: () => store?.reset(),
        close() {
          drive.user = undefined;
          drive.changed = undefined;
        },
      };
    });
    return {
      ...made,
      reset() {
        target.reset();
        made.reset();
      },
    };
  },
});

export const usbTypes = [
  xhciType({ name: 'qemu-xhci', description: 'USB 3 controller', vendor: 0x1b36, device: 0x000d, revision: 1 }),
  xhciType({ name: 'nec-usb-xhci', description: 'USB 3 controller (NEC)', vendor: 0x1033, device: 0x0194, revision: 3 }),
  uhciType('piix3-usb-uhci', 0x7020, 4),
  uhciType('piix4-usb-uhci', 0x7112, 4),
  uhciType('ich9-usb-uhci1', 0x2934, 1),
  uhciType('ich9-usb-uhci2', 0x2935, 2),
  uhciType('ich9-usb-uhci3', 0x2936, 3),
  uhciType('ich9-usb-uhci4', 0x2937, 1),
  uhciType('ich9-usb-uhci5', 0x2938, 2),
  uhciType('ich9-usb-uhci6', 0x2939, 3),
  ehciType('usb-ehci', 0x24cd),
  ehciType('ich9-usb-ehci1', 0x293a),
  ehciType('ich9-usb-ehci2', 0x293c),
  hidType('keyboard'),
  hidType('mouse'),
  hidType('tablet'),
  usbHub,
  usbStorage,
];
