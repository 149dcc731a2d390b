// `virtio-gpu-pci` and, with a VGA for what comes before the driver, `virtio-vga`: 2D displays.

import { edid } from '../../devices/vga/edid.ts';
import { MMIO_BYTES, vgaMmio } from '../../devices/vga/mmio.ts';
import type { VirtioCore } from '../../devices/virtio/core.ts';
import { GpuIo, type GpuState, gpuLayout, gpuModel, wishSize } from '../../devices/virtio/gpu.ts';
import type { PointerShape, Surface } from '../../display/surface.ts';
import type { DeviceContext, IoServices, IoSide } from '../device-type.ts';
import { bool, size, uint32 } from '../properties.ts';
import { linearHandler, makeVga, paintVga, showing } from './display.ts';
import { virtioTypes } from './virtio.ts';

const properties = {
  max_outputs: uint32(1, 'outputs; there is one'),
  max_hostmem: size(256 << 20, 'bytes that the pictures of the guest may have'),
  edid: bool(true),
  xres: uint32(1280, 'width of the preferred mode'),
  yres: uint32(800, 'height of the preferred mode'),
};
type Properties = { max_outputs: number; max_hostmem: number; edid: boolean; xres: number; yres: number };

/** A picture that is kept between the guest's flushes and the display's looks. */
class Kept {
  #width = 0;
  #height = 0;
  #pixels = new Uint32Array(0);
  shape: PointerShape | undefined;
  /** Something is shown. */
  on = false;

  mode(to: { readonly width: number; readonly height: number } | undefined): void {
    this.on = to !== undefined;
    if (to === undefined || (to.width === this.#width && to.height === this.#height)) return;
    this.#width = to.width;
    this.#height = to.height;
    this.#pixels = new Uint32Array(to.width * to.height);
  }
  line(x: number, y: number, pixels: Uint32Array): void {
    this.#pixels.set(pixels, y * this.#width + x);
  }
  draw(surface: Surface): void {
    surface.resize(this.#width, this.#height);
    for (let y = 0; y < this.#height; y++) surface.span(0, y, this.#pixels, y * this.#width, this.#width);
  }
}

const monitor = (width: number, height: number): Uint8Array =>
  edid({ width, height, vendor: 'RHT', product: 0x1234, name: 'Nonroot Monitor' });

function gpuIo(
  name: string,
  core: VirtioCore,
  s: GpuState,
  p: Properties,
  services: IoServices,
  /** What is shown while the driver shows nothing. */
  otherwise?: (surface: Surface, now: number) => void,
): IoSide {
  const kept = new Kept();
  const gpu = new GpuIo({
    core,
    state: s,
    target: {
      mode: (to) => kept.mode(to),
      line: (x, y, pixels) => kept.line(x, y, pixels),
      cursor: (c) => {
        kept.shape = c && { width: 64, height: 64, ...c };
      },
    },
    edid: monitor,
    memory: p.max_hostmem,
    now: services.now,
    after: services.after,
  });
  let epoch = core.epoch;
  const screen = showing({
    name,
    draw(surface, now) {
      // A reset of the device takes its pictures away.
      if (epoch !== core.epoch) {
        epoch = core.epoch;
        if (!core.ready) gpu.reset();
      }
      if (kept.on) kept.draw(surface);
      else if (otherwise) otherwise(surface, now);
      else for (let y = 0; y < surface.height; y++) surface.line(y, new Uint32Array(surface.width));
    },
    pointer: () => kept.shape,
    wish(width, height) {
      if (!core.ready) return false;
      core.lock.run(() => wishSize(core, s, width, height));
      return true;
    },
  })(services);
  return {
    ...screen,
    reset: () => gpu.reset(),
    state: { version: 1, save: () => gpu.save(), restore: (parts) => gpu.restore(parts) },
  };
}

const checked = (p: Properties): void => {
  if (p.max_outputs !== 1) throw new Error(`Cannot make ${p.max_outputs} outputs: max_outputs accepts 1`);
};

const gpuPci = virtioTypes({
  name: 'virtio-gpu',
  aliases: ['virtio-gpu'],
  category: 'Display',
  description: 'a 2D display',
  classCode: 0x038000,
  vectors: () => 3,
  legacy: false,
  properties,
  parts(ctx, p) {
    checked(p);
    const s = ctx.arena.alloc(gpuLayout, ctx.name);
    return {
      model: gpuModel(s, p.edid),
      reset: () => resetState(s, p),
      io: (core, services) => gpuIo(ctx.name, core, s, p, services),
    };
  },
});

function resetState(s: GpuState, p: Properties): void {
  s.events = 0;
  s.width = p.xres;
  s.height = p.yres;
}

const VGA_BYTES = 8 << 20;

const vga = virtioTypes({
  name: 'virtio-vga',
  romFile: 'vgabios-virtio.bin',
  exactName: true,
  category: 'Display',
  description: 'a 2D display that is a VGA until its driver takes over',
  classCode: 0x030000,
  vectors: () => 3,
  legacy: false,
  hotplug: false,
  properties,
  memory: () => VGA_BYTES,
  parts(ctx: DeviceContext, p) {
    checked(p);
    const s = ctx.arena.alloc(gpuLayout, ctx.name);
    const { vga, host, vram } = makeVga(ctx, VGA_BYTES, true);
    vga.map(ctx.ports);
    ctx.mmio.map(0xa0000, 0x20000, vga.window, 'vga-lowmem');
    return {
      model: gpuModel(s, p.edid),
      shape: {
        memoryBar: 2,
        msixBar: 4,
        front: { bytes: MMIO_BYTES, handler: vgaMmio(vga, monitor(p.xres, p.yres), true) },
        bars: [
          {
            index: 0,
            kind: 'mem32',
            size: VGA_BYTES,
            prefetchable: true,
            handler: linearHandler(vram),
            memory: { slot: ctx.slots.slot(ctx.name), host },
          },
        ],
      },
      reset() {
        resetState(s, p);
        vga.reset();
      },
      io: (core, services) => gpuIo(ctx.name, core, s, p, services, (surface, now) => paintVga(vga, surface, now)),
    };
  },
});

export const virtioGpus = [...gpuPci, ...vga];
