// The picture that a display device shows, and what of it has changed since somebody last looked.
import type { PixelTarget } from '../bits/pixels.ts';

export interface Rect {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** Who wants to know of changes. */
export interface SurfaceWatcher {
  resized(width: number, height: number): void;
  /** These pixels may have changed. */
  changed(x: number, y: number, width: number, height: number): void;
}

/** What the pointer looks like where the guest leaves it to the display. Pixels are 0xAARRGGBB. */
export interface PointerShape {
  readonly width: number;
  readonly height: number;
  readonly hotX: number;
  readonly hotY: number;
  readonly pixels: Uint32Array;
}

export class Surface implements PixelTarget {
  width = 640;
  height = 480;
  /** Row by row, 0x00RRGGBB. */
  pixels = new Uint32Array(640 * 480);
  readonly #watchers = new Set<SurfaceWatcher>();

  watch(w: SurfaceWatcher): () => void {
    this.#watchers.add(w);
    return () => this.#watchers.delete(w);
  }

  resize(width: number, height: number): void {
    if (width === this.width && height === this.height) return;
    this.width = width;
    this.height = height;
    this.pixels = new Uint32Array(width * height);
    for (const w of this.#watchers) w.resized(width, height);
  }

  line(y: number, pixels: Uint32Array): void {
    this.span(0, y, pixels, 0, this.width);
  }

  /** `count` pixels of `from`, beginning at `at`, go to (x, y); all of them must fit. */
  span(x: number, y: number, from: Uint32Array, at: number, count: number): void {
    const to = this.pixels;
    const start = y * this.width + x;
    let first = 0;
    while (first < count && to[start + first] === from[at + first]) first++;
    if (first === count) return;
    let last = count - 1;
    while (to[start + last] === from[at + last]) last--;
    to.set(from.subarray(at + first, at + last + 1), start + first);
    for (const w of this.#watchers) w.changed(x + first, y, last - first + 1, 1);
  }
}

const TILE = 16;

/** Which tiles of 16 by 16 pixels have changed. */
export class Damage {
  #columns = 0;
  #rows = 0;
  #width = 0;
  #height = 0;
  #tiles = new Uint8Array(0);
  #any = false;

  constructor(width: number, height: number) {
    this.resize(width, height);
  }

  /** Everything has changed. */
  resize(width: number, height: number): void {
    this.#width = width;
    this.#height = height;
    this.#columns = Math.ceil(width / TILE);
    this.#rows = Math.ceil(height / TILE);
    this.#tiles = new Uint8Array(this.#columns * this.#rows).fill(1);
    this.#any = this.#tiles.length > 0;
  }

  get any(): boolean {
    return this.#any;
  }

  /** Marks a rectangle; what lies outside the picture is left out. */
  add(x: number, y: number, width: number, height: number): void {
    const [left, top] = [Math.max(0, x), Math.max(0, y)];
    const [right, bottom] = [Math.min(this.#width, x + width), Math.min(this.#height, y + height)];
    if (left >= right || top >= bottom) return;
    const [c0, c1] = [Math.floor(left / TILE), Math.ceil(right / TILE)];
    for (let r = Math.floor(top / TILE); r < Math.ceil(bottom / TILE); r++)
      this.#tiles.fill(1, r * this.#columns + c0, r * this.#columns + c1);
    this.#any = true;
  }

  /**
   * Changed rectangles within `area`, each at most `maxArea` pixels, until they have `total`; they count as unchanged from now on.
   */
  take(area: Rect, maxArea = Number.POSITIVE_INFINITY, total = Number.POSITIVE_INFINITY): Rect[] {
    let left = total;
    const out: Rect[] = [];
    const tiles = this.#tiles;
    const columns = this.#columns;
    const [c0, r0] = [Math.floor(Math.max(0, area.x) / TILE), Math.floor(Math.max(0, area.y) / TILE)];
    const c1 = Math.min(columns, Math.ceil((area.x + area.width) / TILE));
    const r1 = Math.min(this.#rows, Math.ceil((area.y + area.height) / TILE));
    const maxTiles = Math.max(1, Math.floor(maxArea / (TILE * TILE)));
    for (let r = r0; r < r1; r++) {
      for (let c = c0; c < c1; c++) {
        if (!tiles[r * columns + c]) continue;
        let wide = 1;
        while (c + wide < c1 && wide < maxTiles && tiles[r * columns + c + wide]) wide++;
        let high = 1;
        const full = (row: number): boolean => {
          for (let i = 0; i < wide; i++) if (!tiles[row * columns + c + i]) return false;
          return true;
        };
        while (r + high < r1 && (high + 1) * wide <= maxTiles && full(r + high)) high++;
        for (let i = 0; i < high; i++) tiles.fill(0, (r + i) * columns + c, (r + i) * columns + c + wide);
        const [x, y] = [c * TILE, r * TILE];
        out.push({ x, y, width: Math.min(wide * TILE, this.#width - x), height: Math.min(high * TILE, this.#height - y) });
        left -= wide * high * TILE * TILE;
        if (left <= 0) return out;
      }
    }
    this.#any = tiles.includes(1);
    return out;
  }
}
