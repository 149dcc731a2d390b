// USB controllers over a piece of guest memory, for tests: registers by their handlers, work when it is asked for.
import { Arena } from '../../bits/arena.ts';
import { bellsLayout, Doorbell, doorbellLayout } from '../../bus/doorbell.ts';
import { Ram } from '../../bus/memory.ts';
import { UsbDevice, type UsbFunction } from './device.ts';
import type { UsbPort } from './port.ts';
import { Xhci } from './xhci.ts';
import { XhciRings } from './xhci-rings.ts';

export const RAM = 1 << 20;

export function world() {
  const buffer = new SharedArrayBuffer(RAM + (2 << 20));
  const memory = new Ram(buffer, [{ gpa: 0, length: RAM, offset: 0 }]);
  const arena = new Arena(buffer, RAM);
  const bells = arena.alloc(bellsLayout);
  let names = 0;
  return {
    memory,
    arena,
    time: { ns: 0 },
    bell: () => new Doorbell(arena.alloc(doorbellLayout, `bell${names++}`), bells),
    /** Plugs a function in, as a machine's reset leaves it. */
    plug(port: UsbPort, fn: UsbFunction): UsbDevice {
      const device = new UsbDevice(arena, `device${names++}`, fn);
      port.attach(device);
      device.powerOn();
      port.connected();
      return device;
    },
  };
}

export function xhciWorld() {
  const w = world();
  const messages: number[] = [];
  const reports: string[] = [];
  const bell = w.bell();
  const xhci = new Xhci({
    arena: w.arena,
    name: 'xhci',
    p2: 4,
    p3: 4,
    bell,
    now: () => w.time.ns,
    message: (n) => {
      messages.push(n);
      return true;
    },
    intx: () => {},
  });
  const rings = new XhciRings(xhci, w.memory, (text) => reports.push(text));
  xhci.woken = (device, endpoint) => rings.wake(device, endpoint);
  xhci.reset();
  return {
    ...w,
    xhci,
    rings,
    messages,
    reports,
    read: (at: number) => xhci.handler.read(at, 4),
    write: (at: number, value: number) => xhci.handler.write(at, 4, value >>> 0),
    /** Works until nothing is left, at most `turns` times; how often it did. */
    work(turns = 100): number {
      let n = 1;
      while (rings.work() && n < turns) n++;
      return n;
    },
  };
}
