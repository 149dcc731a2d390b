// Ports that USB devices are plugged into: those of controllers and of hubs.
import type { Speed } from './descriptors.ts';
import type { UsbDevice } from './device.ts';

/** What a port's owner is told. With the board's lock held. */
export interface PortOwner {
  /** The device is there, or not any more; called again with nothing new is harmless. */
  connected(there: boolean): void;
  /** Endpoint `n` (bit 7 for IN) of a device on this port, or behind it, may have news. */
  wake(device: UsbDevice, endpoint: number): void;
}

export class UsbPort {
  /** As `port=` of a device names it: `1`, or `1.2` behind a hub. */
  readonly path: string;
  readonly speeds: readonly Speed[];
  owner: PortOwner | undefined;
  #device: UsbDevice | undefined;

  constructor(path: string, speeds: readonly Speed[]) {
    this.path = path;
    this.speeds = speeds;
  }

  get device(): UsbDevice | undefined {
    return this.#device;
  }

  /** The fastest speed that both know; undefined where there is none. */
  fits(speeds: readonly Speed[]): Speed | undefined {
    return (['high', 'full', 'low'] as const).find((s) => this.speeds.includes(s) && speeds.includes(s));
  }

  /** Plugs a device in, on every thread; `connected` then tells the guest, once. Throws where it does not fit. */
  attach(device: UsbDevice): () => void {
    const { speeds } = device.fn.description;
    const speed = this.fits(speeds);
    if (this.#device !== undefined)
      throw new Error(`Cannot plug ${device.name} into USB port ${this.path}: ${this.#device.name} is there`);
    if (speed === undefined)
      throw new Error(
        `Cannot plug ${device.name} into USB port ${this.path}: it has ${speeds.join(', ')} speed, the port ${this.speeds.join(', ')}`,
      );
    this.#device = device;
    device.portSpeed = speed;
    device.wake = (endpoint) => this.owner?.wake(device, endpoint);
    return () => {
      this.#device = undefined;
      device.wake = () => {};
      this.owner?.connected(false);
    };
  }

  connected(): void {
    this.owner?.connected(true);
  }
}

/** The port that a device asks for, or the first free one on which it runs fastest. Throws where there is none. */
export function choosePort(
  ports: readonly UsbPort[],
  device: { readonly name: string; readonly speeds: readonly Speed[] },
  path: string | undefined,
  bus: string,
): UsbPort {
  if (path !== undefined) {
    const port = ports.find((p) => p.path === path);
    if (port === undefined) throw new Error(`Cannot plug ${device.name} into USB port ${path}: bus ${bus} has no such port`);
    return port;
  }
  for (const speed of ['high', 'full', 'low'] as const) {
    const port = ports.find((p) => p.device === undefined && p.fits(device.speeds) === speed);
    if (port !== undefined) return port;
  }
  throw new Error(`Cannot plug ${device.name} in: bus ${bus} has no free port that fits`);
}
