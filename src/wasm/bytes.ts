// A growing byte buffer with WebAssembly's variable-length integers (core specification 2.0, section 5.2).

export class Bytes {
  data = new Uint8Array(1024);
  length = 0;

  #room(n: number): void {
    if (this.length + n <= this.data.length) return;
    const bigger = new Uint8Array(Math.max(this.data.length * 2, this.length + n));
    bigger.set(this.data.subarray(0, this.length));
    this.data = bigger;
  }
  u8(value: number): void {
    if (this.length === this.data.length) this.#room(1);
    this.data[this.length++] = value;
  }
  /** Unsigned LEB128 of up to 32 bits. */
  uleb(value: number): void {
    value >>>= 0;
    while (value >= 0x80) {
      this.u8((value & 0x7f) | 0x80);
      value >>>= 7;
    }
    this.u8(value);
  }
  /** Signed LEB128 of 32 bits. */
  sleb(value: number): void {
    for (;;) {
      const byte = value & 0x7f;
      value >>= 7;
      if ((value === 0 && !(byte & 0x40)) || (value === -1 && byte & 0x40)) return this.u8(byte);
      this.u8(byte | 0x80);
    }
  }
  /** Signed LEB128 of 64 bits. */
  sleb64(value: bigint): void {
    if (value >= -0x40000000n && value < 0x40000000n) return this.sleb(Number(value));
    for (;;) {
      const byte = Number(value & 0x7fn);
      value >>= 7n;
      if ((value === 0n && !(byte & 0x40)) || (value === -1n && byte & 0x40)) return this.u8(byte);
      this.u8(byte | 0x80);
    }
  }
  f32(value: number): void {
    this.raw(new Uint8Array(new Float32Array([value]).buffer));
  }
  f64(value: number): void {
    this.raw(new Uint8Array(new Float64Array([value]).buffer));
  }
  raw(bytes: Uint8Array | readonly number[]): void {
    this.#room(bytes.length);
    this.data.set(bytes, this.length);
    this.length += bytes.length;
  }
  append(other: Bytes): void {
    this.raw(other.view());
  }
  name(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.uleb(bytes.length);
    this.raw(bytes);
  }
  view(): Uint8Array<ArrayBuffer> {
    return this.data.subarray(0, this.length);
  }
  reset(): void {
    this.length = 0;
  }
}
