// The devices of a machine as one thread has them: finds bus and place, builds, removes, and knows names and paths.
// Every thread does the same in the same order, so all arrive at the same places of the shared memory.

import { Arena, type Section } from '../bits/arena.ts';
import type { Timers } from '../bus/clock.ts';
import { type Bells, doorbellLayout } from '../bus/doorbell.ts';
import type { AddressSpace } from '../bus/space.ts';
import type { PciFunction } from '../devices/pci-function.ts';
import { addEndpoint } from '../devices/pcie-port.ts';
import type { AnyBus } from './buses.ts';
import type {
  AnyDeviceType,
  BoardServices,
  Device,
  DeviceConfig,
  DeviceContext,
  IoServices,
  IoSide,
  Mappable,
} from './device-type.ts';
import { bool, type PropertyTable, readProperties, str, uint32, type Values } from './properties.ts';

/** The capability of PCI Express. */
const EXPRESS = 0x10;

/** Properties that the bus gives to each of its devices. */
export const busProperties: Readonly<Partial<Record<string, PropertyTable>>> = {
  PCI: {
    addr: str('Slot and optional function number, example: 06.0 or 06'),
    multifunction: bool(false),
    'acpi-index': uint32(0),
    rombar: uint32(1),
    romfile: str(),
  },
  'usb-bus': {
    port: str('port on the bus, as 2 or, behind a hub, 2.1'),
    serial: str('serial number'),
    'full-path': bool(true),
    'msos-desc': bool(true),
    attached: bool(true),
  },
};

/** A device that is there. */
export interface Plugged {
  readonly config: DeviceConfig;
  readonly type: AnyDeviceType;
  readonly id: string | undefined;
  /** `/machine/peripheral/ID`, `/machine/peripheral-anon/device[N]`. */
  readonly path: string;
  /** It came to a machine that was there. */
  readonly hotplugged: boolean;
  readonly name: string;
  readonly bus: AnyBus;
  /** Slot and function on a PCI bus. */
  readonly place: { readonly slot: number; readonly fn: number } | undefined;
  readonly values: Values<PropertyTable>;
  readonly device: Device;
  /** Of a device on PCI. */
  readonly f: PciFunction | undefined;
  readonly buses: readonly AnyBus[];
  /** Set on the I/O thread. */
  io: IoSide | undefined;
}
interface Entry extends Plugged {
  readonly arena: Arena;
  readonly undo: (() => void)[];
  buses: AnyBus[];
}

export interface DeviceTreeOptions {
  readonly services: BoardServices;
  /** Finds a type by its name or alias. */
  readonly type: (driver: string) => AnyDeviceType | undefined;
  readonly buffer: ArrayBufferLike;
  /** Shared memory for devices, bytes `start` to `end`. */
  readonly start: number;
  readonly end: number;
  readonly ports: readonly AddressSpace[];
  readonly mmio: readonly AddressSpace[];
  readonly timers: Timers;
  readonly bells: Bells;
}

export class DeviceTree {
  readonly #o: DeviceTreeOptions;
  readonly #buses: AnyBus[] = [];
  readonly #entries: Entry[] = [];
  #anonymous = 0;
  #serial = 0;
  readonly #counts = new Map<string, number>();

  constructor(o: DeviceTreeOptions) {
    this.#o = o;
  }

  // -- what is there

  /** A bus of the board itself. */
  addBus(bus: AnyBus): void {
    this.#buses.push(bus);
  }
  get buses(): readonly AnyBus[] {
    return this.#buses;
  }
  list(): readonly Plugged[] {
    return this.#entries;
  }
  /** By id, path or name. */
  find(name: string): Plugged | undefined {
    return this.#entries.find((e) => e.id === name || e.path === name) ?? this.#entries.find((e) => e.name === name);
  }
  /** Devices that sit on a device's buses, and those on theirs. */
  below(device: Plugged): readonly Plugged[] {
    return this.#entries.filter((e) => device.buses.includes(e.bus)).flatMap((e) => [e, ...this.below(e)]);
  }
  /** @throws Error for a driver that is not known */
  type(driver: string): AnyDeviceType {
    const type = this.#o.type(driver);
    if (!type) throw new Error(`'${driver}' is not a valid device model name`);
    return type;
  }

  // -- plugging

  /**
   * Builds a device. Throws, with nothing changed, for what cannot be used.
   * `reset` gives it its power-on state: once, by the thread that plugs first; `io`, on the I/O thread, connects it.
   * `ours` are devices that the board has whatever the configuration says.
   */
  plug(config: DeviceConfig, first?: { readonly io?: IoServices | undefined }, ours = false): Plugged {
    const { driver, id, bus: busName, ...given } = config;
    const type = this.type(driver);
    if (id !== undefined && this.#entries.some((e) => e.id === id)) throw new Error(`Duplicate device ID '${id}'`);
    const table = { ...busProperties[type.bus], ...type.properties };
    const values = readProperties(driver, table, given);
    const bus = this.#bus(type, busName);
    const anonymous = this.#anonymous;
    const path = ours
      ? `/machine/unattached/device[${this.#serial}]`
      : id === undefined
        ? `/machine/peripheral-anon/device[${anonymous}]`
        : `/machine/peripheral/${id}`;
    const name = id ?? `${type.name}#${this.#serial}`;
    const place = bus.kind === 'PCI' ? pciPlace(driver, bus, values['addr']) : undefined;
    const hole = this.#hole();
    const arena = new Arena(this.#o.buffer, hole.start, hole.end);
    const undo: (() => void)[] = [];
    const buses: AnyBus[] = [];
    const plugged: { f?: PciFunction } = {};
    const ordinal = this.#counts.get(type.category) ?? 0;
    const ctx = this.#context({
      ordinal,
      arena,
      name,
      id,
      path,
      bus,
      place,
      undo,
      buses,
      plugged,
      romFile: romFile(type, values),
      ownRom: [type.romFile, type.bootRom].includes(romFile(type, values)),
      removable: type.hotplug !== false,
      multifunction: values['multifunction'] === true,
    });
    let entry: Entry;
    try {
      const device = type.build(ctx, values);
      entry = {
        config,
        type,
        id,
        path,
        hotplugged: first !== undefined,
        name,
        bus,
        place,
        values,
        device,
        f: plugged.f,
        buses,
        io: undefined,
        arena,
        undo,
      };
      if (first) {
        this.#o.services.lock.run(() => device.reset());
        if (first.io) entry.io = device.io?.(first.io);
        if (bus.kind === 'PCI' && place) bus.plugged?.(place.slot);
        else if (bus.kind === 'CPU' || bus.kind === 'memory') bus.plugged(path);
      }
    } catch (error) {
      for (const f of undo.reverse()) f();
      throw error;
    }
    if (id === undefined && !ours) this.#anonymous++;
    this.#serial++;
    this.#counts.set(type.category, ordinal + 1);
    this.#entries.push(entry);
    return entry;
  }

  /** Takes a device away, with those on its buses. Throws where there is none of that name. */
  unplug(name: string): readonly Plugged[] {
    const entry = this.find(name) as Entry | undefined;
    if (!entry) throw new Error(`Device '${name}' not found`);
    const gone: Plugged[] = [];
    for (const below of this.#entries.filter((e) => entry.buses.includes(e.bus))) gone.push(...this.unplug(below.path));
    for (const f of entry.undo.reverse()) f();
    this.#entries.splice(this.#entries.indexOf(entry), 1);
    return [...gone, entry];
  }

  /** Power-on state of all. With the board's lock held. */
  reset(): void {
    for (const { device } of this.#entries) device.reset();
  }

  /** Connects all that are not yet; on the I/O thread. */
  connect(io: IoServices): void {
    for (const e of this.#entries) {
      try {
        e.io ??= e.device.io?.(io);
      } catch (error) {
        throw new Error(`-device ${e.config.driver}${e.id === undefined ? '' : `,id=${e.id}`}: ${(error as Error).message}`);
      }
    }
  }

  /** State of all devices; the machine stands still. */
  save(): Section[] {
    const parts = (e: Plugged): Section[] =>
      (e.io?.state?.save() ?? []).map((bytes, n) => ({ name: `${e.name}/io${n}`, version: e.io!.state!.version, bytes }));
    return this.#entries.flatMap((e) => [...e.arena.save(), ...parts(e)]);
  }
  /** Sections of this name may come back. */
  takes(name: string): boolean {
    return this.#entries.some((e) => e.io?.state !== undefined && name.startsWith(`${e.name}/io`));
  }
  /** Puts it back into the same devices; throws with nothing changed where a section does not suit. */
  restore(sections: readonly Section[]): void {
    for (const e of this.#entries) e.arena.check(sections);
    for (const e of this.#entries) e.arena.put(sections);
    for (const e of this.#entries) {
      if (!e.io?.state) continue;
      const parts = sections.filter((s) => s.name.startsWith(`${e.name}/io`));
      const { version } = e.io.state;
      if (parts[0]?.version !== version)
        throw new Error(`Cannot restore ${e.name}: version ${parts[0]?.version}, accepted is ${version}`);
      e.io.state.restore(parts.map((s) => s.bytes));
    }
  }

  // -- booting

  /** Firmware's paths of the devices with a `bootindex`, lowest first. Throws where two have the same. */
  bootPaths(): readonly string[] {
    const rows = this.#entries.flatMap((e) => {
      const index = e.values['bootindex'];
      return typeof index === 'number' && index >= 0 && e.device.bootNode !== undefined
        ? [{ index, path: this.#bootPath(e) }]
        : [];
    });
    rows.sort((a, b) => a.index - b.index);
    const twice = rows.find((r, i) => r.index === rows[i + 1]?.index);
    if (twice) throw new Error(`The bootindex ${twice.index} has already been used`);
    return rows.map((r) => r.path);
  }
  #bootPath(e: Plugged): string {
    const owner = this.#entries.find((o) => o.buses.includes(e.bus));
    const above = owner ? this.#bootPath(owner) : (e.bus.bootPath ?? '/pci@i0cf8');
    const [node, ...rest] = (e.device.bootNode ?? 'unknown').split('/');
    // The transport stands for the function that the device is on PCI.
    if (e.bus.kind === 'virtio-bus') return [above, ...rest].join('/');
    if (!e.place) return `${above}/${e.device.bootNode}`;
    const { slot, fn } = e.place;
    return [above, `${node}@${slot.toString(16)}${fn === 0 ? '' : `,${fn.toString(16)}`}`, ...rest].join('/');
  }

  // -- details

  #bus(type: AnyDeviceType, name: string | undefined): AnyBus {
    const known = [...this.#buses, ...this.#entries.flatMap((e) => e.buses)];
    if (name !== undefined) {
      const bus = known.find((b) => b.name === name);
      if (!bus) throw new Error(`Bus '${name}' not found`);
      if (bus.kind !== type.bus) throw new Error(`Device '${type.name}' can't go on ${bus.kind} bus '${name}'`);
      if (bus.hasRoom && !bus.hasRoom()) throw new Error(`Bus '${name}' is full`);
      return bus;
    }
    const fits = known.filter((b) => b.kind === type.bus);
    const bus = fits.find((b) => b.hasRoom?.() ?? true);
    if (!bus) {
      throw new Error(
        fits.length > 0 ? `Bus '${fits[0]!.name}' is full` : `No '${type.bus}' bus found for device '${type.name}'`,
      );
    }
    return bus;
  }

  /** The largest free piece of the devices' memory: what a removed device had is used again once the rest is smaller. */
  #hole(): { start: number; end: number } {
    const taken = this.#entries
      .map(({ arena }) => ({ start: arena.start, end: Math.ceil((arena.start + arena.used) / 64) * 64 }))
      .sort((a, b) => a.start - b.start);
    let best = { start: this.#o.start, end: this.#o.start };
    let at = this.#o.start;
    for (const t of [...taken, { start: this.#o.end, end: this.#o.end }]) {
      if (t.start - at > best.end - best.start) best = { start: at, end: t.start };
      at = Math.max(at, t.end);
    }
    return best;
  }

  #context(e: {
    ordinal: number;
    arena: Arena;
    name: string;
    id: string | undefined;
    path: string;
    bus: AnyBus;
    place: { slot: number; fn: number } | undefined;
    undo: (() => void)[];
    buses: AnyBus[];
    plugged: { f?: PciFunction };
    romFile: string | undefined;
    /** It is the type's own, not one that somebody chose. */
    ownRom: boolean;
    removable: boolean;
    multifunction: boolean;
  }): DeviceContext {
    const { services, bells, timers } = this.#o;
    const { arena, undo, bus, place } = e;
    const mappable = (spaces: readonly AddressSpace[]): Mappable => ({
      map(base, length, handler, name) {
        for (const s of spaces) {
          s.map(base, length, handler, name, bus.kind === 'PCI' ? 'pci' : undefined);
          undo.push(() => s.unmap(base));
        }
      },
      movable(mapper) {
        for (const s of spaces) {
          s.movable(mapper);
          undo.push(() => s.immovable(mapper));
        }
      },
      changed: () => spaces[0]!.changed(),
    });
    return {
      ...services,
      arena,
      name: e.name,
      id: e.id,
      path: e.path,
      ordinal: e.ordinal,
      bus,
      ports: mappable(this.#o.ports),
      mmio: mappable(this.#o.mmio),
      plug(f) {
        if (bus.kind !== 'PCI' || !place) throw new Error(`Cannot plug ${f.name} into ${bus.name}: it is no PCI bus`);
        const rom = e.romFile === undefined ? undefined : services.rom(e.romFile);
        if (rom) f.setRom(rom, e.ownRom);
        if (e.multifunction) f.setMultifunction();
        if (bus.express && !bus.root && f.classCode >>> 8 !== 0x0604 && !f.hasCapability(EXPRESS)) addEndpoint(f);
        e.plugged.f = f;
        undo.push(bus.add(f, place.slot, place.fn, e.path, e.removable));
      },
      addTimer(timed) {
        timers.add(timed);
        undo.push(() => timers.remove(timed));
      },
      doorbell(name = '') {
        const bell = bells.add(arena.alloc(doorbellLayout, name === '' ? e.name : `${e.name}.${name}`));
        undo.push(() => bells.remove(bell));
        return bell;
      },
      findBus: (kind, name) =>
        [...this.#buses, ...this.#entries.flatMap((x) => x.buses)].find((b) => b.kind === kind && b.name === name) as never,
      addBus: (b) => {
        e.buses.push(b);
      },
      onRemove: (f) => {
        undo.push(f);
      },
    };
  }
}

/** Slot and function of `addr`, hexadecimal (`5`, `0x5`, `5.1`) or, as a number, slot * 8 + function; the next free slot without. */
function pciPlace(
  driver: string,
  bus: { readonly name: string; freeSlot(): number },
  addr: unknown,
): { slot: number; fn: number } {
  if (addr === undefined) {
    const slot = bus.freeSlot();
    if (slot < 0) throw new Error(`PCI: no slot/function available for ${driver} on bus ${bus.name}, all in use or reserved`);
    return { slot, fn: 0 };
  }
  const found = /^(?:0x)?([\da-f]+)(?:\.(?:0x)?([0-7]))?$/i.exec(String(addr));
  const place = found && { slot: Number.parseInt(found[1]!, 16), fn: Number(found[2] ?? 0) };
  if (!place || place.slot > 31)
    throw new Error(
      `Cannot set property '${driver}.addr' to ${JSON.stringify(addr)}: accepted: SLOT or SLOT.FUNCTION up to 1f.7`,
    );
  return place;
}

/** The file of a device's expansion ROM: none where `rombar=0` or `romfile=` say so. */
export function romFile(type: AnyDeviceType, values: Readonly<Record<string, unknown>>): string | undefined {
  if (type.bus !== 'PCI' || values['rombar'] === 0) return undefined;
  const file = values['romfile'] ?? type.romFile;
  return typeof file === 'string' && file !== '' ? file : undefined;
}

/** A property as the device has it: what was given, the default, or what the device chose. */
export const propertyOf = ({ device, values }: Plugged, name: string): unknown =>
  device.chosen?.[name] ?? (name === 'mac' ? device.mac : undefined) ?? values[name];

/** For monitors: what `device-list-properties` and `-device X,help` tell. */
export const propertiesOf = (type: AnyDeviceType): PropertyTable => ({ ...busProperties[type.bus], ...type.properties });
