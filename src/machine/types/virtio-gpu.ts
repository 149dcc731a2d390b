// `virtio-gpu-pci` and, with a VGA for what comes before the driver, `virtio-vga`: 2D displays.

import { edid } from '../../devices/vga/edid.ts';
import { MMIO_BYTES, vgaMmio } from '../../devices/vga/mmio.ts';
import type { VirtioCore } from '../../devices/virtio/core.ts';
import { GpuIo, type GpuState, gpuLayout, gpuModel, OUTPUTS_MAX, wishSize } from '../../devices/virtio/gpu.ts';
import type { PointerShape, Surface } from '../../display/surface.ts';
import type { DeviceContext, IoServices, IoSide } from '../device-type.ts';
import { bool, size, uint32 } from '../properties.ts';
import { linearHandler, makeVga, paintVga, showing } from './display.ts';
import { virtioTypes } from './virtio.ts';

const properties = {
  max_outputs: uint32(1, `outputs, up to ${OUTPUTS_MAX}`),
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
    const { width, height } = to ?? { width: 0, height: 0 };
    if (width === this.#width && height === this.#height) return;
    this.#width = width;
    this.#height = height;
    this.#pixels = new Uint32Array(width * height);
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
  const kept = Array.from({ length: p.max_outputs }, () => new Kept());
  const gpu = new GpuIo({
    core,
    state: s,
    targets: kept.map((one) => ({
      mode: (to) => one.mode(to),
      line: (x, y, pixels) => one.line(x, y, pixels),
      cursor: (c) => {
        one.shape = c && { width: 64, height: 64, ...c };
      },
    })),
    edid: monitor,
    memory: p.max_hostmem,
    now: services.now,
    after: services.after,
  });
  let epoch = core.epoch;
  const wish = (output: number, width: number, height: number): boolean => {
    if (!core.ready) return false;
    core.lock.run(() => wishSize(core, s, width, height, output));
    return true;
  };
  const screens = kept.map((one, head) =>
    showing({
      name,
      head,
      draw(surface, now) {
        // A reset of the device takes its pictures away.
        if (epoch !== core.epoch) {
          epoch = core.epoch;
          if (!core.ready) gpu.reset();
        }
        if (one.on) one.draw(surface);
        else if (otherwise && head === 0) otherwise(surface, now);
        else for (let y = 0; y < surface.height; y++) surface.line(y, new Uint32Array(surface.width));
      },
      pointer: () => one.shape,
      wish: (width, height) => wish(head, width, height),
      // Whoever looks at an output is its monitor.
      looked() {
        if (!(s.connected & (1 << head))) wish(head, s.width[head]!, s.height[head]!);
      },
    })(services),
  );
  return {
    close() {
      for (const screen of screens) void screen.close?.();
    },
    reset: () => gpu.reset(),
    state: { version: 2, save: () => gpu.save(), restore: (parts) => gpu.restore(parts) },
  };
}

const checked = (p: Properties): void => {
  if (p.max_outputs < 1 || p.max_outputs > OUTPUTS_MAX)
    throw new Error(`Cannot make ${p.max_outputs} outputs: max_outputs accepts 1 to ${OUTPUTS_MAX}`);
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
      model: gpuModel(s, p.edid, p.max_outputs),
      reset: () => resetState(s, p),
      io: (core, services) => gpuIo(ctx.name, core, s, p, services),
    };
  },
});

function resetState(s: GpuState, p: Properties): void {
  s.events = 0;
  s.connected |= 1;
  s.width.fill(p.xres);
  s.height.fill(p.yres);
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
      model: gpuModel(s, p.edid, p.max_outputs),
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
