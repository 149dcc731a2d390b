// A hub of eight ports, USB 1.1. Universal Serial Bus Specification 2.0, chapter 11.
import type { Arena } from '../../bits/arena.ts';
import { struct, type ViewOf } from '../../bits/struct.ts';
import type { Description } from './descriptors.ts';
import type { Handshake, Setup, UsbDevice, UsbFunction } from './device.ts';
import { UsbPort } from './port.ts';

export const HUB_PORTS = 8;

export const hubLayout = struct({ status: ['u16', HUB_PORTS], change: ['u16', HUB_PORTS] }, { name: 'usb-hub', version: 1 });

/** Bits of a port's status, and of its changes. */
const Port = { connection: 1, enable: 2, suspend: 4, overCurrent: 8, reset: 0x10, power: 0x100, low: 0x200 } as const;
/** Features: the number of the bit, plus 16 for changes. */
const Feature = { enable: 1, suspend: 2, reset: 4, power: 8, changes: 16, lastChange: 20 } as const;
const HUB_DESCRIPTOR = 0x29;
const Request = { getStatus: 0, clearFeature: 1, setFeature: 3, getDescriptor: 6 } as const;

export class Hub implements UsbFunction {
  readonly s: ViewOf<typeof hubLayout>;
  readonly description: Description;
  readonly ports: readonly UsbPort[];
  /** Endpoint 1 may have news. Set by whoever plugs it in. */
  ready: () => void = () => {};
  /** A device behind it may have news. */
  passed: (device: UsbDevice, endpoint: number) => void = () => {};

  constructor(o: { arena: Arena; name: string; serial: string; path: string }) {
    this.s = o.arena.alloc(hubLayout, o.name);
    this.ports = Array.from({ length: HUB_PORTS }, (_, n) => new UsbPort(`${o.path}.${n + 1}`, ['low', 'full']));
    this.ports.forEach((port, n) => {
      port.owner = {
        connected: (there) => this.#connected(n, there),
        wake: (device, endpoint) => this.passed(device, endpoint),
      };
    });
    this.description = {
      vendor: 0x0409,
      product: 0x55aa,
      release: 0x0101,
      class: 9,
      strings: ['QEMU', 'QEMU USB Hub', o.serial],
      power: 0,
      selfPowered: true,
      remoteWakeup: true,
      speeds: ['full'],
      interfaces: [
        {
          class: 9,
          subclass: 0,
          protocol: 0,
          endpoints: [{ address: 0x81, type: 'interrupt', maxPacket: 1 + Math.ceil(HUB_PORTS / 8), interval: 0xff }],
        },
      ],
    };
  }

  reset(): void {
    for (const [n, port] of this.ports.entries()) {
      this.s.status[n] = Port.power | (port.device ? Port.connection : 0);
      this.s.change[n] = port.device ? Port.connection : 0;
    }
    this.ready();
  }

  #connected(n: number, there: boolean): void {
    const { status, change } = this.s;
    if (((status[n]! & Port.connection) !== 0) === there) return;
    status[n] = there ? status[n]! | Port.connection : status[n]! & ~(Port.connection | Port.enable | Port.low);
    change[n] = change[n]! | Port.connection;
    if (there && this.ports[n]!.device?.speed === 'low') status[n] = status[n]! | Port.low;
    this.ready();
  }

  /** The devices on ports that are enabled. */
  *enabled(): Generator<UsbDevice> {
    for (const [n, port] of this.ports.entries()) if (this.s.status[n]! & Port.enable && port.device) yield port.device;
  }

  in(n: number, max: number): Uint8Array | Handshake {
    if (n !== 1) return 'stall';
    let bits = 0;
    for (let p = 0; p < HUB_PORTS; p++) if (this.s.change[p] !== 0) bits |= 1 << (p + 1);
    return bits === 0 ? 'nak' : Uint8Array.of(bits & 0xff, bits >>> 8).subarray(0, max);
  }

  out(): Handshake {
    return 'stall';
  }

  control(r: Setup): Uint8Array | Handshake {
    const { status, change } = this.s;
    const toPort = (r.type & 0x1f) === 3;
    const n = (r.index & 0xff) - 1;
    if (toPort && !(n >= 0 && n < HUB_PORTS)) return 'stall';
    switch (r.request) {
      case Request.getStatus:
        if (!toPort) return new Uint8Array(4);
        return Uint8Array.of(status[n]! & 0xff, status[n]! >>> 8, change[n]! & 0xff, change[n]! >>> 8);
      case Request.getDescriptor:
        if (r.value >>> 8 !== HUB_DESCRIPTOR) return 'stall';
        // Power is not switched, no over-current protection; all devices can be removed.
        return Uint8Array.of(11, HUB_DESCRIPTOR, HUB_PORTS, 0x0a, 0, 1, 0, 0, 0, 0xff, 0xff);
      case Request.setFeature:
        if (toPort) this.#set(n, r.value);
        return 'ack';
      case Request.clearFeature:
        if (!toPort) return 'ack';
        if (r.value >= Feature.changes && r.value <= Feature.lastChange)
          change[n] = change[n]! & ~(1 << (r.value - Feature.changes));
        else if (r.value === Feature.enable || r.value === Feature.suspend) status[n] = status[n]! & ~(1 << r.value);
        return 'ack';
      default:
        return 'stall';
    }
  }

  #set(n: number, feature: number): void {
    const { status, change } = this.s;
    if (feature === Feature.suspend) status[n] = status[n]! | Port.suspend;
    else if (feature === Feature.reset) {
      const { device } = this.ports[n]!;
      change[n] = change[n]! | Port.reset;
      if (device) {
        device.reset();
        status[n] = status[n]! | Port.enable;
      }
      this.ready();
    }
  }
}
