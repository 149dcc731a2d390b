// Graphics cards: QEMU's standard VGA as PCI and ISA card, as a second card, and its plain frame buffer.

import { struct } from '../../bits/struct.ts';
import { PciFunction } from '../../devices/pci-function.ts';
import { edid } from '../../devices/vga/edid.ts';
import { MMIO_BYTES, vgaMmio } from '../../devices/vga/mmio.ts';
import { drawLinear, drawVga } from '../../devices/vga/render.ts';
import { Vbe, vbeOn } from '../../devices/vga/state.ts';
import { Vga } from '../../devices/vga/vga.ts';
import type { DisplayDevice } from '../../display/screen.ts';
import { Screen } from '../../display/screen.ts';
import type { Surface } from '../../display/surface.ts';
import { type BoardServices, type Device, deviceType, type IoServices, type IoSide } from '../device-type.ts';
import { bool, size, uint32 } from '../properties.ts';

const MIB = 1 << 20;
/** Blinking: cursors change every 16 frames of 70 Hz, characters half as often. */
const BLINK_MS = 229;

const resolution = {
  xres: uint32(0, 'width of the preferred mode; 1280 where 0'),
  yres: uint32(0, 'height of the preferred mode; 800 where 0'),
};
const edidOf = (p: { edid: boolean; xres: number; yres: number }): Uint8Array =>
  p.edid
    ? edid({ width: p.xres || 1280, height: p.yres || 800, vendor: 'RHT', product: 0x1234, name: 'Nonroot Monitor' })
    : new Uint8Array(0);

/** Bytes of video memory: a power of two from 1 MiB (or what the card needs) to 256 MiB. */
const vramBytes = (mib: number): number => 2 ** Math.ceil(Math.log2(Math.min(256, Math.max(1, mib)))) * MIB;

interface Made {
  readonly vga: Vga;
  readonly host: number;
  readonly vram: Uint8Array;
}
export function makeVga(
  ctx: BoardServices & { arena: ConstructorParameters<typeof Vga>[0]['arena']; name: string },
  bytes: number,
  legacy: boolean,
): Made {
  const host = ctx.slots.alloc(`${ctx.name} vram`, bytes);
  const vram = new Uint8Array(ctx.buffer, host, bytes);
  return { vga: new Vga({ arena: ctx.arena, name: ctx.name, vram, host, ...(legacy ? { slots: ctx.slots } : {}) }), host, vram };
}

/** Video memory byte by byte, for accesses that do not go to the slot. */
export const linearHandler = (vram: Uint8Array) => ({
  read(offset: number, n: number): number {
    let value = 0;
    for (let i = 0; i < n; i++) value |= vram[offset + i]! << (8 * i);
    return value >>> 0;
  },
  write(offset: number, n: number, value: number): void {
    for (let i = 0; i < n; i++) vram[offset + i] = value >>> (8 * i);
  },
});

/** The I/O thread's side of a display: a screen among the machine's. */
export function showing(device: DisplayDevice): (services: IoServices) => IoSide {
  return ({ backends, now, after }) => {
    const screen = new Screen(device, { now, after: (ms, f) => { const t = after(ms, f); return () => t.cancel(); } }); // biome-ignore format: one line
    return { close: backends.displays.add(screen) };
  };
}

/** Draws what a VGA shows at `now` ms. */
export function paintVga(vga: Vga, surface: Surface, now: number): void {
  const phase = Math.floor(now / BLINK_MS);
  drawVga(vga, surface, { cursor: phase % 2 === 0, characters: phase % 4 < 2 });
}

function vgaDevice(name: string, vga: Vga, f?: PciFunction): Device {
  return {
    reset() {
      f?.reset();
      vga.reset();
    },
    io: showing({ name, draw: (surface, now) => paintVga(vga, surface, now) }),
  };
}

const pciCard = { vendor: 0x1234, device: 0x1111, revision: 2, subsystemVendor: 0x1af4, subsystem: 0x1100 } as const;

/** A card on PCI: memory in BAR 0, registers in BAR 2. */
const pciVga = (name: string, description: string, legacy: boolean) =>
  deviceType({
    name,
    bus: 'PCI',
    ...(legacy ? { romFile: 'vgabios-stdvga.bin' } : {}),
    category: 'Display',
    description,
    parents: ['pci-vga', 'pci-device'],
    hotplug: false,
    properties: {
      vgamem_mb: uint32(16, 'video memory in MiB'),
      mmio: bool(true),
      qemu_extended_regs: bool(true),
      edid: bool(true),
      'big-endian-framebuffer': bool(false),
      global_vmstate: bool(false),
      ...resolution,
    },
    memory: (p) => vramBytes(p.vgamem_mb),
    build(ctx, p) {
      const { vga, host, vram } = makeVga(ctx, vramBytes(p.vgamem_mb), legacy);
      if (legacy) {
        vga.map(ctx.ports);
        ctx.mmio.map(0xa0000, 0x20000, vga.window, 'vga-lowmem');
      }
      const f = new PciFunction({
        arena: ctx.arena,
        name: ctx.name,
        ...pciCard,
        classCode: legacy ? 0x030000 : 0x038000,
        bars: [
          { index: 0, kind: 'mem32', name: 'vga.vram', size: vram.length, prefetchable: true, handler: linearHandler(vram), memory: { slot: ctx.slots.slot(ctx.name), host } },
          ...(p.mmio ? [{ index: 2, kind: 'mem32', name: 'vga.mmio', size: MMIO_BYTES, handler: vgaMmio(vga, edidOf(p), true) } as const] : []),
        ],
      }); // biome-ignore format: one row for each BAR
      ctx.plug(f);
      return vgaDevice(ctx.name, vga, f);
    },
  });

const stdVga = pciVga('VGA', 'the standard VGA: Bochs VBE, text and all classic modes', true);
const secondaryVga = pciVga('secondary-vga', 'the standard VGA without legacy ports and memory', false);

const isaVga = deviceType({
  name: 'isa-vga',
  bus: 'ISA',
  category: 'Display',
  description: 'the standard VGA as an ISA card',
  hotplug: false,
  properties: { vgamem_mb: uint32(8, 'video memory in MiB') },
  memory: (p) => vramBytes(p.vgamem_mb),
  build(ctx, p) {
    const { vga } = makeVga(ctx, vramBytes(p.vgamem_mb), true);
    vga.map(ctx.ports);
    ctx.mmio.map(0xa0000, 0x20000, vga.window, 'vga-lowmem');
    return vgaDevice(ctx.name, vga);
  },
});

const bochsDisplay = deviceType({
  name: 'bochs-display',
  romFile: 'vgabios-bochs-display.bin',
  bus: 'PCI',
  category: 'Display',
  description: 'a frame buffer of 32 bits with the VBE registers and nothing else',
  parents: ['pci-device'],
  hotplug: false,
  properties: { vgamem: size(16 * MIB, 'video memory'), edid: bool(true), ...resolution },
  memory: (p) => vramBytes(p.vgamem / MIB),
  build(ctx, p) {
    const { vga, host, vram } = makeVga(ctx, vramBytes(p.vgamem / MIB), false);
    const f = new PciFunction({
      arena: ctx.arena,
      name: ctx.name,
      ...pciCard,
      classCode: 0x038000,
      bars: [
        { index: 0, kind: 'mem32', name: 'vga.vram', size: vram.length, prefetchable: true, handler: linearHandler(vram), memory: { slot: ctx.slots.slot(ctx.name), host } },
        { index: 2, kind: 'mem32', name: 'vga.mmio', size: MMIO_BYTES, handler: vgaMmio(vga, edidOf(p), false) },
      ],
    }); // biome-ignore format: one row for each BAR
    ctx.plug(f);
    const { s } = vga;
    return {
      reset() {
        f.reset();
        vga.reset();
      },
      io: showing({
        name: ctx.name,
        draw(surface) {
          if (!vbeOn(s)) return;
          const [width, height] = [s.vbe[Vbe.xres]!, s.vbe[Vbe.yres]!];
          drawLinear(vram, { width, height, start: s.vbeStart, line: s.vbeLine, bpp: s.vbe[Vbe.bpp]! }, surface);
        },
      }),
    };
  },
});

const ramfbLayout = struct({ config: ['u8', 28] }, { name: 'ramfb', version: 1 });
/** DRM_FORMAT_XRGB8888. */
const XR24 = 0x34325258;
const RAMFB_MAX = 16384;

const ramfb = deviceType({
  name: 'ramfb',
  bus: 'System',
  category: 'Display',
  description: "a frame buffer in the guest's RAM, which firmware announces by fw_cfg",
  hotplug: false,
  properties: {},
  build(ctx) {
    const { config } = ctx.arena.alloc(ramfbLayout, ctx.name);
    ctx.firmwareFile('etc/ramfb', { data: config, writable: true });
    const view = new DataView(config.buffer, config.byteOffset, config.byteLength);
    return {
      reset: () => void config.fill(0),
      io: (services) =>
        showing({
          name: ctx.name,
          draw(surface) {
            // Address, format, flags, width, height, bytes of a line; big-endian.
            const [format, width, height] = [view.getUint32(8), view.getUint32(16), view.getUint32(20)];
            const line = view.getUint32(24) || width * 4;
            if (format !== XR24 || width === 0 || height === 0 || width > RAMFB_MAX || height > RAMFB_MAX || line < width * 4)
              return;
            const gpa = Number(view.getBigUint64(0));
            const pixels = services.memory.slice(gpa, line * height);
            if (pixels && pixels.byteOffset % 4 === 0) drawLinear(pixels, { width, height, start: 0, line, bpp: 32 }, surface);
          },
        })(services),
    };
  },
});

export const displays = [ramfb, stdVga, secondaryVga, isaVga, bochsDisplay] as const;
