// The EDID block of an emulated monitor: 128 bytes of identity and timings. VESA Enhanced Extended Display Identification Data Standard, release A, revision 2 (EDID 1.4).

export interface EdidOptions {
  /** Preferred mode in pixels. */
  readonly width: number;
  readonly height: number;
  /** Three capital letters. */
  readonly vendor: string;
  readonly product: number;
  /** At most 13 characters. */
  readonly name: string;
}

const REFRESH = 75;
/** Of the modelled panel: dots per inch. */
const DPI = 100;

/** Established timings (section 3.8) and the bit of bytes 35 to 37 that says them. */
const established: readonly (readonly [number, number, number, number])[] = [
  [640, 480, 35, 0x20],
  [800, 600, 35, 0x01],
  [1024, 768, 36, 0x08],
];
/** Standard timings (section 3.9), largest first. */
const standard: readonly (readonly [number, number])[] = [
  [2048, 1152],
  [1920, 1200],
  [1920, 1080],
  [1680, 1050],
  [1600, 1200],
  [1280, 1024],
  [1440, 900],
  [1280, 960],
];

const millimetres = (pixels: number): number => Math.round((pixels * 25.4) / DPI);

/** The block. */
export function edid(o: EdidOptions): Uint8Array {
  const out = new Uint8Array(128);
  const view = new DataView(out.buffer);
  out.set([0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
  const letters = [...o.vendor].map((c) => c.charCodeAt(0) - 64);
  view.setUint16(8, (letters[0]! << 10) | (letters[1]! << 5) | letters[2]!);
  view.setUint16(10, o.product, true);
  // No serial number, week 42 of 2014, EDID 1.4.
  out.set([42, 2014 - 1990, 1, 4], 16);
  // Digital, 8 bits per colour, DisplayPort; size in cm; gamma 2.2; RGB, sRGB is the default, the first timing is the native one.
  out.set([0xa5, Math.round(millimetres(o.width) / 10), Math.round(millimetres(o.height) / 10), 120, 0x06], 20);
  out.set([0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54], 25);
  for (const [width, height, byte, bit] of established) if (width <= o.width && height <= o.height) out[byte]! |= bit;
  out.fill(1, 38, 54);
  let at = 38;
  for (const [width, height] of standard) {
    if (at >= 54 || width > o.width || height > o.height) continue;
    const code = aspect(width, height);
    if (code < 0) continue;
    out[at] = width / 8 - 31;
    out[at + 1] = code << 6;
    at += 2;
  }
  detailed(view, 54, o.width, o.height);
  // Range limits: 50 to 125 Hz, 30 to 160 kHz, 600 MHz.
  descriptor(out, 72, 0xfd, [50, 125, 30, 160, 60, 0, 0x0a, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20]);
  const text = [...o.name].map((c) => c.charCodeAt(0)).slice(0, 13);
  descriptor(out, 90, 0xfc, text.length < 13 ? [...text, 0x0a, ...new Array<number>(12 - text.length).fill(0x20)] : text);
  descriptor(out, 108, 0x10, new Array<number>(13).fill(0));
  out[127] = -out.subarray(0, 127).reduce((sum, b) => sum + b, 0);
  return out;
}

function aspect(width: number, height: number): number {
  const ratios = [16 / 10, 4 / 3, 5 / 4, 16 / 9];
  return ratios.findIndex((r) => Math.abs(width / height - r) < 0.001);
}

function descriptor(out: Uint8Array, at: number, tag: number, data: readonly number[]): void {
  out.set([0, 0, 0, tag, 0, ...data], at);
}

/** A detailed timing (section 3.10.2) with the blanking that QEMU's monitors have. */
function detailed(view: DataView, at: number, width: number, height: number): void {
  const front = Math.floor((width * 25) / 100);
  const sync = Math.floor((width * 3) / 100);
  const blankX = Math.floor((width * 35) / 100);
  const [frontY, syncY, blankY] = [
    Math.floor((height * 5) / 1000),
    Math.floor((height * 5) / 1000),
    Math.floor((height * 35) / 1000),
  ];
  const clock = Math.floor((REFRESH * (width + blankX) * (height + blankY)) / 10000);
  view.setUint16(at, Math.min(0xffff, clock), true);
  const [w, h] = [millimetres(width), millimetres(height)];
  const bytes = [
    width & 0xff, blankX & 0xff, ((width >>> 8) << 4) | (blankX >>> 8),
    height & 0xff, blankY & 0xff, ((height >>> 8) << 4) | (blankY >>> 8),
    front & 0xff, sync & 0xff, ((frontY & 15) << 4) | (syncY & 15),
    ((front >>> 8) << 6) | ((sync >>> 8) << 4) | ((frontY >>> 4) << 2) | (syncY >>> 4),
    w & 0xff, h & 0xff, ((w >>> 8) << 4) | (h >>> 8), 0, 0, 0x18,
  ]; // biome-ignore format: by the standard's lines
  bytes.forEach((b, i) => view.setUint8(at + 2 + i, b));
}
