// How a kind of virtio device becomes device types: `virtio-X-pci` with its transitional and non-transitional variants, and
// `virtio-X-device` for a transport over MMIO. Names, properties and defaults are QEMU 7.2's.

import { VirtioCore, type VirtioModel } from '../../devices/virtio/core.ts';
import { VirtioMmio } from '../../devices/virtio/mmio.ts';
import { VirtioPci, type VirtioPciShape } from '../../devices/virtio/pci.ts';
import type { AnyDeviceType, Device, DeviceContext, DeviceType, IoServices, IoSide } from '../device-type.ts';
import { deviceType } from '../device-type.ts';
import { bool, onOffAuto, type PropertyTable, uint32, type Values } from '../properties.ts';

/** Properties of all virtio devices. */
const common = {
  indirect_desc: bool(true),
  event_idx: bool(true),
  notify_on_empty: bool(true),
  any_layout: bool(true),
  packed: bool(false),
  queue_reset: bool(true),
};
const UNSPECIFIED = 0xffff_ffff;
const pciProperties = {
  'disable-legacy': onOffAuto('auto'),
  'disable-modern': bool(false),
  vectors: uint32(UNSPECIFIED, 'MSI-X vectors; as many as the device has use for when not given'),
  ioeventfd: bool(true),
};

/** A device of the kind, without its transport. */
export interface VirtioParts {
  readonly model: VirtioModel;
  /** BARs beside virtio's own. */
  readonly shape?: VirtioPciShape;
  /** Power-on state beyond the common one. With the board's lock held. */
  reset?(): void;
  /** The I/O side. */
  io?(core: VirtioCore, services: IoServices): IoSide;
  /** See `Device.bootNode`. */
  readonly bootNode?: string;
  readonly mac?: readonly number[];
  /** Once the core is there: buses and doorbells. */
  built?(core: VirtioCore): void;
}

export interface VirtioKind<P extends PropertyTable> {
  /** `virtio-rng`. */
  readonly name: string;
  /** The type is called that, without `-pci`. */
  readonly exactName?: boolean;
  readonly hotplug?: boolean;
  /** As `DeviceType.memory`. */
  readonly memory?: (p: Values<P>) => number;
  /** As `DeviceType.romFile`. */
  readonly romFile?: string;
  readonly bootRom?: string;
  readonly aliases?: readonly string[];
  readonly category: DeviceType['category'];
  readonly description: string;
  readonly classCode: number;
  /** MSI-X vectors when they are not given. */
  readonly vectors: (model: VirtioModel) => number;
  /** There are legacy drivers for it; without, there is no transitional variant. */
  readonly legacy: boolean;
  readonly properties: P;
  parts(ctx: DeviceContext, p: Values<P>): VirtioParts;
}

/** The I/O side, which takes nothing of the guest while the machine is held. */
function standing(core: VirtioCore, io: IoSide): IoSide {
  return {
    ...io,
    async drain() {
      core.hold();
      await io.drain?.();
    },
    resumed() {
      core.release();
      io.resumed?.();
    },
    reset() {
      core.release();
      io.reset?.();
    },
    ...(io.close ? { close: () => io.close!() } : {}),
  };
}

/** All device types of a kind. */
export function virtioTypes<const P extends PropertyTable>(kind: VirtioKind<P>): AnyDeviceType[] {
  const coreOf = (ctx: DeviceContext, parts: VirtioParts, options: Values<typeof common>): VirtioCore =>
    new VirtioCore({
      arena: ctx.arena,
      name: ctx.name,
      model: parts.model,
      options,
      memory: ctx.memory,
      lock: ctx.lock,
      bell: ctx.doorbell(),
      report: ctx.report,
      bellsChanged: ctx.bellsChanged,
    });
  /** The device with its transport. */
  const whole = (parts: VirtioParts, core: VirtioCore, transport: { reset(): void }): Device => {
    parts.built?.(core);
    return {
      ...(parts.bootNode === undefined ? {} : { bootNode: parts.bootNode }),
      ...(parts.mac === undefined ? {} : { mac: parts.mac }),
      reset: () => {
        parts.reset?.();
        transport.reset();
      },
      ...(parts.io ? { io: (services: IoServices) => standing(core, parts.io!(core, services)) } : {}),
    };
  };
  const buildMmio = (ctx: DeviceContext<'virtio-bus'>, p: Values<PropertyTable>): Device => {
    const parts = kind.parts(ctx as DeviceContext, p as Values<P>);
    const core = coreOf(ctx as DeviceContext, parts, p as Values<typeof common>);
    const { line, legacy } = ctx.bus;
    const mmio = new VirtioMmio({ arena: ctx.arena, name: ctx.name, core, line, legacy });
    ctx.onRemove(ctx.bus.attach(mmio.handler));
    return whole(parts, core, mmio);
  };
  const build = (ctx: DeviceContext<'PCI'>, p: Values<PropertyTable>, variant: 'auto' | 'transitional' | 'modern') => {
    const parts = kind.parts(ctx as DeviceContext, p as Values<P>);
    const values = p as Values<typeof common & typeof pciProperties>;
    const core = coreOf(ctx as DeviceContext, parts, values);
    const behindPort = ctx.bus.express && !ctx.bus.root;
    const old = values['disable-legacy'] === 'auto' ? !behindPort : values['disable-legacy'] === 'off';
    const transitional = kind.legacy && (variant === 'transitional' || (variant === 'auto' && old));
    // Kinds that have no legacy interface have the other one whatever is said.
    const modern = !kind.legacy || !values['disable-modern'];
    if (!modern && variant !== 'auto')
      throw new Error(
        `Cannot make a ${variant === 'modern' ? 'non-' : ''}transitional ${kind.name}: disable-modern=on was given`,
      );
    if (!modern && !transitional)
      throw new Error(
        'device cannot work as neither modern nor legacy mode is enabled: accepted is disable-modern=off or disable-legacy=off',
      );
    const pci = new VirtioPci({
      arena: ctx.arena,
      name: ctx.name,
      core,
      mode: !modern ? 'legacy' : transitional ? 'transitional' : 'modern',
      classCode: kind.classCode,
      vectors: values.vectors === UNSPECIFIED ? kind.vectors(parts.model) : values.vectors,
      multifunction: (p as { multifunction?: boolean }).multifunction ?? false,
      msi: ctx.msi,
      ioeventfd: values.ioeventfd,
      ...(parts.shape ? { shape: parts.shape } : {}),
    });
    ctx.plug(pci.f);
    return whole(parts, core, pci);
  };
  const variant = (suffix: string, which: 'auto' | 'transitional' | 'modern'): AnyDeviceType =>
    deviceType({
      name: kind.exactName ? kind.name : `${kind.name}-pci${suffix}`,
      ...(kind.hotplug === undefined ? {} : { hotplug: kind.hotplug }),
      ...(kind.memory ? { memory: (p: Values<PropertyTable>) => kind.memory!(p as Values<P>) } : {}),
      ...(kind.romFile === undefined ? {} : { romFile: kind.romFile }),
      ...(kind.bootRom === undefined ? {} : { bootRom: kind.bootRom }),
      ...(which === 'auto' && kind.aliases ? { aliases: kind.aliases } : {}),
      bus: 'PCI',
      category: kind.category,
      description: kind.description,
      parents: [`${kind.name}-pci-base`, 'virtio-pci', 'pci-device'],
      properties: { ...common, ...pciProperties, ...kind.properties } as PropertyTable,
      build: (ctx, p) => build(ctx, p, which),
    });
  const mmio = (): AnyDeviceType =>
    deviceType({
      name: `${kind.name}-device`,
      hotplug: false,
      ...(kind.memory ? { memory: (p: Values<PropertyTable>) => kind.memory!(p as Values<P>) } : {}),
      bus: 'virtio-bus',
      category: kind.category,
      description: kind.description,
      parents: ['virtio-device'],
      properties: { ...common, ...kind.properties } as PropertyTable,
      build: (ctx, p) => buildMmio(ctx, p),
    });
  if (kind.exactName) return [variant('', 'auto')];
  return kind.legacy
    ? [mmio(), variant('', 'auto'), variant('-transitional', 'transitional'), variant('-non-transitional', 'modern')]
    : [mmio(), variant('', 'auto')];
}
