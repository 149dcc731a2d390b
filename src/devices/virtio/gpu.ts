// GPU device, 2D only: resources with pixels, which a scanout shows. Virtual I/O Device (VIRTIO) 1.2, section 5.7.
import { struct, type ViewOf } from '../../bits/struct.ts';
import type { Chain } from './chain.ts';
import type { VirtioCore, VirtioModel } from './core.ts';

/** Most outputs of a device: places in what tells of them. */
export const OUTPUTS_MAX = 16;

export const gpuLayout = struct(
  {
    events: 'u32',
    /** Outputs that are connected, a bit for each. */
    connected: 'u32',
    /** Sizes that the guest is told it should show, and where a request of a display comes from. */
    width: ['u32', OUTPUTS_MAX],
    height: ['u32', OUTPUTS_MAX],
  },
  { name: 'virtio-gpu', version: 2 },
);
export type GpuState = ViewOf<typeof gpuLayout>;

const Feature = { edid: 1n << 1n } as const;
/** Event: the display changed. */
const DISPLAY_EVENT = 1;

const Command = {
  getDisplayInfo: 0x100,
  create2d: 0x101,
  unref: 0x102,
  setScanout: 0x103,
  flush: 0x104,
  transfer: 0x105,
  attachBacking: 0x106,
  detachBacking: 0x107,
  getEdid: 0x10a,
  updateCursor: 0x300,
  moveCursor: 0x301,
} as const;
const Answer = {
  ok: 0x1100,
  displayInfo: 0x1101,
  edid: 0x1104,
  unspecified: 0x1200,
  outOfMemory: 0x1201,
  badScanout: 0x1202,
  badResource: 0x1203,
  badParameter: 0x1205,
} as const;
const FENCE = 1;
const HEADER = 24;
const EDID_BYTES = 1024;
/** Resources beside the bytes that they may have in all. */
const RESOURCES_MAX = 4096;
/** Pieces of guest memory behind one resource, as QEMU has it. */
const BACKING_MAX = 16384;
const SIZE_MAX = 16384;
/** ms of work before others on the thread have their turn. */
const TURN_MS = 8;
const CURSOR_SIZE = 64;

/** Order of red, green and blue in a pixel's bytes, by the format's number. */
const formats: Readonly<Record<number, readonly [red: number, green: number, blue: number]>> = {
  1: [2, 1, 0],
  2: [2, 1, 0],
  3: [1, 2, 3],
  4: [1, 2, 3],
  67: [0, 1, 2],
  68: [3, 2, 1],
  121: [3, 2, 1],
  134: [0, 1, 2],
};

export function gpuModel(s: GpuState, edid: boolean, outputs = 1): VirtioModel {
  const word = (n: number): number => (n === 0 ? s.events : n === 2 ? outputs : 0);
  return {
    id: 16,
    queues: [64, 16],
    features: edid ? Feature.edid : 0n,
    config: {
      length: 16,
      read: (offset) => word(offset >>> 2) >>> (8 * (offset & 3)),
      write: (offset, byte) => {
        // events_clear: ones clear.
        if (offset >= 4 && offset < 8) s.events = (s.events & ~(byte << (8 * (offset - 4)))) >>> 0;
      },
    },
  };
}

/** The display of an output wishes a size: tells the guest, for which the output is connected then. With the board's lock held. */
export function wishSize(core: VirtioCore, s: GpuState, width: number, height: number, output = 0): void {
  s.width[output] = width;
  s.height[output] = height;
  s.connected |= 1 << output;
  s.events = (s.events | DISPLAY_EVENT) >>> 0;
  core.configChanged();
}

interface Piece {
  readonly gpa: number;
  readonly bytes: Uint8Array;
  /** Of its first byte in the backing. */
  readonly at: number;
}
interface Resource {
  readonly width: number;
  readonly height: number;
  readonly format: number;
  /** As they are in the guest's memory. */
  readonly bytes: Uint8Array;
  backing: readonly Piece[];
}
interface Rect {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** What the first part of a saved GPU says. */
interface SavedGpu {
  readonly resources: readonly {
    readonly id: number;
    readonly width: number;
    readonly height: number;
    readonly format: number;
    /** Guest-physical addresses and lengths. */
    readonly backing: readonly (readonly [gpa: number, length: number])[];
  }[];
  /** By output. */
  readonly scanouts: readonly (Scanout | null)[];
  readonly pointers: readonly (Pointer | null)[];
}
interface Scanout {
  readonly id: number;
  readonly rect: Rect;
}
interface Pointer {
  readonly id: number;
  readonly hotX: number;
  readonly hotY: number;
}

/** Where an output's pictures go. Pixels are 0x00RRGGBB. */
export interface GpuTarget {
  /** The scanout shows a picture of this size; `undefined`: nothing. */
  mode(size: { readonly width: number; readonly height: number } | undefined): void;
  line(x: number, y: number, pixels: Uint32Array): void;
  /** 0xAARRGGBB, 64 by 64; `undefined`: no pointer. */
  cursor(shape: { readonly hotX: number; readonly hotY: number; readonly pixels: Uint32Array } | undefined): void;
}

export interface GpuIoOptions {
  readonly core: VirtioCore;
  readonly state: GpuState;
  /** One for each output. */
  readonly targets: readonly GpuTarget[];
  /** The monitor's EDID for a preferred size. */
  readonly edid: (width: number, height: number) => Uint8Array;
  /** Bytes that resources may have. */
  readonly memory: number;
  readonly now: () => number;
  readonly after: (ms: number, action: () => void) => unknown;
}

/** The I/O side: carries commands out. */
export class GpuIo {
  readonly #o: GpuIoOptions;
  readonly #resources = new Map<number, Resource>();
  #used = 0;
  /** By output. */
  readonly #scanouts: (Scanout | undefined)[] = [];
  readonly #pointers: (Pointer | undefined)[] = [];

  constructor(o: GpuIoOptions) {
    this.#o = o;
    o.core.serve(0, () => this.#work());
    o.core.serve(1, () => this.#cursors());
  }

  /** Forgets everything, as after a reset of the device. */
  reset(): void {
    this.#resources.clear();
    this.#used = 0;
    for (const [n, target] of this.#o.targets.entries()) {
      this.#off(n);
      this.#pointers[n] = undefined;
      target.cursor(undefined);
    }
  }

  /** Resources, scanouts and pointers, for a saved machine: a JSON text that says what there is, then the resources' pixels. */
  save(): Uint8Array[] {
    const resources = [...this.#resources].map(([id, { width, height, format, backing }]) => ({
      ...{ id, width, height, format },
      backing: backing.map((p) => [p.gpa, p.bytes.length] as const),
    }));
    const by = <T>(list: readonly (T | undefined)[]): readonly (T | null)[] => this.#o.targets.map((_, n) => list[n] ?? null);
    const saved: SavedGpu = { resources, scanouts: by(this.#scanouts), pointers: by(this.#pointers) };
    return [new TextEncoder().encode(JSON.stringify(saved)), ...[...this.#resources.values()].map((r) => r.bytes.slice())];
  }
  /** Takes over what `save` gave, once the machine's memory is there. Throws, with everything forgotten, for what does not fit. */
  restore(parts: readonly Uint8Array[]): void {
    this.reset();
    const saved = JSON.parse(new TextDecoder().decode(parts[0])) as SavedGpu;
    try {
      for (const [n, { id, width, height, format, backing }] of saved.resources.entries()) {
        if (this.#create(id, format, width, height) !== Answer.ok) throw new Error(`its resource ${id} does not fit`);
        const resource = this.#resources.get(id)!;
        if (parts[n + 1]?.length !== resource.bytes.length) throw new Error(`the pixels of its resource ${id} are missing`);
        resource.bytes.set(parts[n + 1]!);
        let at = 0;
        resource.backing = backing.map(([gpa, length]) => {
          const bytes = this.#o.core.memory.slice(gpa, length);
          if (bytes === undefined) throw new Error(`memory at 0x${gpa.toString(16)} is not there`);
          const piece = { gpa, bytes, at };
          at += length;
          return piece;
        });
      }
      for (const [n, scanout] of saved.scanouts.entries())
        if (scanout && this.#setScanout(scanout.rect, n, scanout.id) !== Answer.ok) throw new Error('its scanout does not fit');
      for (const [n, pointer] of saved.pointers.entries()) if (pointer) this.#point(n, pointer);
    } catch (error) {
      this.reset();
      throw new Error(`Cannot restore virtio-gpu: ${(error as Error).message}`);
    }
  }

  #work(): void {
    const { core, now, after } = this.#o;
    const begin = now();
    for (;;) {
      const [chain] = core.take(0, 1);
      if (chain === undefined) return;
      core.give(0, [[chain, this.#command(chain)]]);
      if (now() - begin > TURN_MS) {
        after(0, () => this.#work());
        return;
      }
    }
  }

  #cursors(): void {
    const { core } = this.#o;
    for (let left = 64; left > 0; left--) {
      const [chain] = core.take(1, 1);
      if (chain === undefined) return;
      const request = new Words(chain.out.bytes(0, 56));
      if (request.u32(0) === Command.updateCursor) this.#cursor(request);
      core.give(1, [[chain, 0]]);
    }
    this.#o.after(0, () => this.#cursors());
  }

  /** Carries one command out; how many bytes of answer were written. */
  #command(chain: Chain): number {
    const request = new Words(chain.out.bytes(0, Math.min(chain.out.length, HEADER + 64)));
    const type = request.u32(0);
    const answer = this.#answer(type, request, chain);
    const bytes = typeof answer === 'number' ? new Uint8Array(HEADER) : answer.bytes;
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    view.setUint32(0, typeof answer === 'number' ? answer : answer.type, true);
    if (request.u32(4) & FENCE) {
      view.setUint32(4, FENCE, true);
      view.setUint32(8, request.u32(8), true);
      view.setUint32(12, request.u32(12), true);
      view.setUint32(16, request.u32(16), true);
    }
    return chain.in.write(0, bytes);
  }

  #answer(type: number, r: Words, chain: Chain): number | { readonly type: number; readonly bytes: Uint8Array } {
    switch (type) {
      case Command.getDisplayInfo:
        return { type: Answer.displayInfo, bytes: this.#displayInfo() };
      case Command.getEdid: {
        const output = r.u32(HEADER);
        if (output >= this.#o.targets.length) return Answer.badParameter;
        const bytes = new Uint8Array(HEADER + 8 + EDID_BYTES);
        const { width, height } = this.#o.state;
        const block = this.#o.edid(width[output]!, height[output]!);
        new DataView(bytes.buffer).setUint32(HEADER, block.length, true);
        bytes.set(block, HEADER + 8);
        return { type: Answer.edid, bytes };
      }
      case Command.create2d:
        return this.#create(r.u32(HEADER), r.u32(HEADER + 4), r.u32(HEADER + 8), r.u32(HEADER + 12));
      case Command.unref:
        return this.#unref(r.u32(HEADER));
      case Command.setScanout:
        return this.#setScanout(r.rect(HEADER), r.u32(HEADER + 16), r.u32(HEADER + 20));
      case Command.flush:
        return this.#flush(r.rect(HEADER), r.u32(HEADER + 16));
      case Command.transfer:
        return this.#transfer(r.rect(HEADER), r.u64(HEADER + 16), r.u32(HEADER + 24));
      case Command.attachBacking:
        return this.#attach(r.u32(HEADER), r.u32(HEADER + 4), chain);
      case Command.detachBacking: {
        const resource = this.#resources.get(r.u32(HEADER));
        if (resource === undefined) return Answer.badResource;
        resource.backing = [];
        return Answer.ok;
      }
      default:
        return Answer.unspecified;
    }
  }

  #displayInfo(): Uint8Array {
    const bytes = new Uint8Array(HEADER + 24 * OUTPUTS_MAX);
    const view = new DataView(bytes.buffer);
    const { width, height, connected } = this.#o.state;
    for (const n of this.#o.targets.keys()) {
      const at = HEADER + 24 * n;
      if (!(connected & (1 << n))) continue;
      view.setUint32(at + 8, width[n]!, true);
      view.setUint32(at + 12, height[n]!, true);
      view.setUint32(at + 16, 1, true);
    }
    return bytes;
  }

  #create(id: number, format: number, width: number, height: number): number {
    if (id === 0 || this.#resources.has(id)) return Answer.badResource;
    if (!(format in formats) || width === 0 || height === 0 || width > SIZE_MAX || height > SIZE_MAX) return Answer.badParameter;
    const bytes = width * height * 4;
    if (this.#used + bytes > this.#o.memory || this.#resources.size >= RESOURCES_MAX) return Answer.outOfMemory;
    this.#used += bytes;
    this.#resources.set(id, { width, height, format, bytes: new Uint8Array(bytes), backing: [] });
    return Answer.ok;
  }

  #unref(id: number): number {
    const resource = this.#resources.get(id);
    if (resource === undefined) return Answer.badResource;
    this.#used -= resource.bytes.length;
    this.#resources.delete(id);
    for (const n of this.#showing(id)) this.#off(n);
    return Answer.ok;
  }

  /** Outputs that show a resource. */
  #showing(id: number): number[] {
    return [...this.#o.targets.keys()].filter((n) => this.#scanouts[n]?.id === id);
  }
  #off(output: number): void {
    this.#scanouts[output] = undefined;
    this.#o.targets[output]!.mode(undefined);
  }

  #setScanout(rect: Rect, output: number, id: number): number {
    const target = this.#o.targets[output];
    if (target === undefined) return Answer.badScanout;
    if (id === 0) {
      this.#off(output);
      return Answer.ok;
    }
    const resource = this.#resources.get(id);
    if (resource === undefined) return Answer.badResource;
    if (!inside(rect, resource) || rect.width < 16 || rect.height < 16) return Answer.badParameter;
    // What outputs show is kept for each of them.
    const pixels = this.#scanouts.reduce((sum, s, n) => sum + (s && n !== output ? s.rect.width * s.rect.height : 0), 0);
    if (4 * (pixels + rect.width * rect.height) > this.#o.memory) return Answer.outOfMemory;
    this.#scanouts[output] = { id, rect };
    target.mode(rect);
    this.#show(resource, rect, output);
    return Answer.ok;
  }

  #flush(rect: Rect, id: number): number {
    const resource = this.#resources.get(id);
    if (resource === undefined) return Answer.badResource;
    if (!inside(rect, resource)) return Answer.badParameter;
    for (const n of this.#showing(id)) this.#show(resource, rect, n);
    return Answer.ok;
  }

  /** What of a rectangle of the resource that an output shows goes to its target. */
  #show(resource: Resource, r: Rect, output: number): void {
    const shown = this.#scanouts[output]!.rect;
    const [left, top] = [Math.max(r.x, shown.x), Math.max(r.y, shown.y)];
    const right = Math.min(r.x + r.width, shown.x + shown.width);
    const bottom = Math.min(r.y + r.height, shown.y + shown.height);
    if (left >= right) return;
    const pixels = new Uint32Array(right - left);
    for (let y = top; y < bottom; y++) {
      convert(resource, left, y, pixels);
      this.#o.targets[output]!.line(left - shown.x, y - shown.y, pixels);
    }
  }

  #transfer(rect: Rect, offset: number, id: number): number {
    const resource = this.#resources.get(id);
    if (resource === undefined) return Answer.badResource;
    if (!inside(rect, resource)) return Answer.badParameter;
    const stride = resource.width * 4;
    const whole = rect.x === 0 && rect.width === resource.width;
    const rows = whole ? 1 : rect.height;
    const length = rect.width * 4 * (whole ? rect.height : 1);
    for (let row = 0; row < rows; row++) {
      const to = (rect.y + row) * stride + rect.x * 4;
      copyFrom(resource.backing, offset + row * stride, resource.bytes.subarray(to, to + length));
    }
    return Answer.ok;
  }

  #attach(id: number, count: number, chain: Chain): number {
    const resource = this.#resources.get(id);
    if (resource === undefined) return Answer.badResource;
    if (resource.backing.length > 0) return Answer.unspecified;
    if (count > BACKING_MAX) return Answer.unspecified;
    const entries = new Words(chain.out.bytes(HEADER + 8, count * 16));
    if (entries.length < count * 16) return Answer.unspecified;
    const pieces: Piece[] = [];
    let at = 0;
    for (let i = 0; i < count; i++) {
      const length = entries.u32(16 * i + 8);
      const bytes = this.#o.core.memory.slice(entries.u64(16 * i), length);
      if (bytes === undefined) return Answer.unspecified;
      pieces.push({ gpa: entries.u64(16 * i), bytes, at });
      at += length;
    }
    resource.backing = pieces;
    return Answer.ok;
  }

  #cursor(r: Words): void {
    const [hotX, hotY] = [Math.min(CURSOR_SIZE - 1, r.u32(HEADER + 20)), Math.min(CURSOR_SIZE - 1, r.u32(HEADER + 24))];
    this.#point(r.u32(HEADER), { id: r.u32(HEADER + 16), hotX, hotY });
  }
  #point(output: number, pointer: Pointer): void {
    const { id, hotX, hotY } = pointer;
    const target = this.#o.targets[output];
    const resource = this.#resources.get(id);
    if (target === undefined) return;
    this.#pointers[output] = undefined;
    if (resource === undefined || resource.width !== CURSOR_SIZE || resource.height !== CURSOR_SIZE) {
      target.cursor(undefined);
      return;
    }
    const pixels = new Uint32Array(CURSOR_SIZE * CURSOR_SIZE);
    convert(resource, 0, 0, pixels);
    const alpha = formats[resource.format]![0] === 1 || formats[resource.format]![0] === 3 ? 0 : 3;
    for (let i = 0; i < pixels.length; i++) pixels[i] = (pixels[i]! | (resource.bytes[4 * i + alpha]! << 24)) >>> 0;
    this.#pointers[output] = pointer;
    target.cursor({ hotX, hotY, pixels });
  }
}

/** Little-endian numbers of a request; beyond its end all are 0. */
class Words {
  readonly #view: DataView;
  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }
  get length(): number {
    return this.#view.byteLength;
  }
  u32(at: number): number {
    return at + 4 <= this.#view.byteLength ? this.#view.getUint32(at, true) : 0;
  }
  u64(at: number): number {
    return this.u32(at) + this.u32(at + 4) * 2 ** 32;
  }
  rect(at: number): Rect {
    return { x: this.u32(at), y: this.u32(at + 4), width: this.u32(at + 8), height: this.u32(at + 12) };
  }
}

const inside = (r: Rect, o: { readonly width: number; readonly height: number }): boolean =>
  r.x + r.width <= o.width && r.y + r.height <= o.height;

/** Bytes from `offset` of a backing; where it has none they stay as they are. */
function copyFrom(backing: readonly Piece[], offset: number, to: Uint8Array): void {
  // The piece that holds the first byte.
  let low = 0;
  let high = backing.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (backing[middle]!.at <= offset) low = middle + 1;
    else high = middle;
  }
  let done = 0;
  for (let i = Math.max(0, low - 1); i < backing.length && done < to.length; i++) {
    const { bytes, at } = backing[i]!;
    const part = bytes.subarray(Math.max(0, offset + done - at), Math.max(0, offset + to.length - at));
    if (part.length === 0) continue;
    to.set(part, done);
    done += part.length;
  }
}

/** Pixels of a resource from (x, y) on, as 0x00RRGGBB. */
function convert(o: Resource, x: number, y: number, pixels: Uint32Array): void {
  const { bytes } = o;
  const [red, green, blue] = formats[o.format]!;
  let at = (y * o.width + x) * 4;
  if (blue === 0 && red === 2) {
    const words = new Uint32Array(bytes.buffer, at, pixels.length);
    for (let i = 0; i < pixels.length; i++) pixels[i] = words[i]! & 0xffffff;
    return;
  }
  for (let i = 0; i < pixels.length; i++, at += 4)
    pixels[i] = (bytes[at + red]! << 16) | (bytes[at + green]! << 8) | bytes[at + blue]!;
}
