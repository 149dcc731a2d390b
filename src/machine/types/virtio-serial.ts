// `virtio-serial-pci` with the devices of its bus: `virtserialport` and `virtconsole`.

import { consoleLayout, consoleModel } from '../../devices/virtio/console.ts';
import { ConsoleIo } from '../../devices/virtio/console-io.ts';
import type { VirtioSerialBus } from '../buses.ts';
import { type AnyDeviceType, type Device, type DeviceContext, deviceType } from '../device-type.ts';
import { bool, named, onOffAuto, str, uint32 } from '../properties.ts';
import { virtioTypes } from './virtio.ts';

export const virtioSerial = virtioTypes({
  name: 'virtio-serial',
  category: 'Input',
  description: 'a bus of serial ports and consoles',
  classCode: 0x07_8000,
  vectors: (model) => model.queues.length / 2,
  legacy: true,
  properties: { max_ports: uint32(31), 'emergency-write': onOffAuto('on') },
  parts(ctx, p) {
    const s = ctx.arena.alloc(consoleLayout, ctx.name);
    const ports = p.max_ports;
    const taken = new Set<number>();
    let io: ConsoleIo | undefined;
    const bus: VirtioSerialBus = {
      kind: 'virtio-serial-bus',
      name: `${ctx.id ?? ctx.name}.0`,
      take(wanted, console) {
        // Port 0 is a console's, as drivers without ports take it for one.
        let n = wanted ?? (console ? 0 : 1);
        if (wanted === undefined) while (taken.has(n)) n++;
        if (n >= ports) throw new Error(`Out-of-range port id specified, max. allowed: ${ports - 1}`);
        if (taken.has(n)) throw new Error(`A port already exists at id ${n}`);
        if (n === 0 && !console)
          throw new Error('Port number 0 on virtio-serial devices reserved for virtconsole devices for backward compatibility.');
        taken.add(n);
        return n;
      },
      release: (n) => taken.delete(n),
      io: () => io,
    };
    ctx.addBus(bus);
    return {
      model: consoleModel(s, ports, p['emergency-write'] === 'off' ? undefined : () => {}),
      io(core) {
        io = new ConsoleIo(core, s, ports);
        return { reset: () => io?.reset() };
      },
    };
  },
});

const portProperties = {
  chardev: named('chardev'),
  name: str('what the guest finds the port by'),
  nr: uint32(0xffff_ffff, 'number of the port'),
};

function port(
  ctx: DeviceContext<'virtio-serial-bus'>,
  p: { chardev: string | undefined; name: string | undefined; nr: number },
  console: boolean,
): Device {
  const { bus, id } = ctx;
  const n = bus.take(p.nr === 0xffff_ffff ? undefined : p.nr, console);
  ctx.onRemove(() => bus.release(n));
  return {
    reset: () => {},
    io(services) {
      const io = bus.io();
      if (!io) throw new Error(`Cannot use ${bus.name}: its controller is not connected`);
      const chardev = p.chardev === undefined ? undefined : services.backends.chardevs.get(p.chardev);
      let wait: (() => void)[] = [];
      io.add(n, {
        console,
        name: p.name,
        write: (bytes) => chardev?.write(bytes),
        opened: (open) => {
          chardev?.guestOpened?.(open);
          if (id !== undefined && !console) services.notify('VSERPORT_CHANGE', { id, open });
          const waiting = wait;
          wait = [];
          for (const go of waiting) go();
        },
      });
      chardev?.connect({
        // A port that the guest has not opened takes nothing yet.
        receive: async (bytes) => {
          while (!io.isOpen(n)) await new Promise<void>((resolve) => wait.push(resolve));
          await io.send(n, bytes);
        },
        opened: (open) => io.setOpen(n, open),
      });
      if (!console) chardev?.guestOpened?.(io.isOpen(n));
      io.setOpen(n, chardev?.isOpen ?? false);
      return {
        resumed: () => io.resumed(n),
        close: () => {
          chardev?.disconnect();
          io.remove(n);
        },
      };
    },
  };
}

export const virtioSerialPorts: readonly AnyDeviceType[] = [
  deviceType({
    name: 'virtserialport',
    bus: 'virtio-serial-bus',
    category: 'Input',
    description: 'a port by name, such as org.qemu.guest_agent.0',
    parents: ['virtio-serial-port', 'device'],
    properties: portProperties,
    build: (ctx, p) => port(ctx, p, false),
  }),
  deviceType({
    name: 'virtconsole',
    bus: 'virtio-serial-bus',
    category: 'Input',
    description: 'a console (hvc)',
    parents: ['virtio-serial-port', 'device'],
    properties: { ...portProperties, console: bool(true) },
    build: (ctx, p) => port(ctx, p, true),
  }),
];
