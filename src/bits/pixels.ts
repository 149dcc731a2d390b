// Pixels between whoever draws (display devices) and whoever shows them: 32 bits each, 0x00RRGGBB.

/** Takes a picture line by line. */
export interface PixelTarget {
  /** The size as it is. */
  readonly width: number;
  readonly height: number;
  /** The picture's size, before its first line; the same size as before changes nothing. */
  resize(width: number, height: number): void;
  /** Line `y` of `width` pixels; the array is only borrowed. */
  line(y: number, pixels: Uint32Array): void;
}
