// Reads WebAssembly modules back, as far as this project writes them (core specification 2.0, chapter 5; threads and SIMD proposals):
// what the prover of emitted code stands on.

/** A function signature by type codes. */
export interface WasmType {
  readonly params: readonly number[];
  readonly results: readonly number[];
}
/** One instruction: opcode (0xfcNN, 0xfdNNN and 0xfeNN with a prefix), immediates, and its place in the body. */
export interface WasmInsn {
  readonly op: number;
  readonly at: number;
  /** Local, function, type, label, block type, or lane. */
  readonly index: number;
  /** Constants of integers, and of vectors as 128 bits; of other types 0. */
  readonly value: bigint;
  /** Offset of a memory access. */
  readonly offset: number;
  /** Labels of br_table, the default last. */
  readonly labels?: readonly number[];
}
export interface WasmFunction {
  readonly type: WasmType;
  readonly locals: number;
  readonly code: readonly WasmInsn[];
}
export interface WasmModule {
  /** Its memory has 64-bit addresses. */
  readonly wide: boolean;
  readonly types: readonly WasmType[];
  /** Imported functions: they come first in the index space. */
  readonly imports: readonly { readonly name: string; readonly type: WasmType }[];
  readonly functions: readonly WasmFunction[];
  /** Function indices by name. */
  readonly exports: ReadonlyMap<string, number>;
  /** Names of functions by index, exported or not (section "name"). */
  readonly names: ReadonlyMap<number, string>;
}

class Reader {
  at: number;
  readonly #bytes: Uint8Array;
  constructor(bytes: Uint8Array, at = 0) {
    this.#bytes = bytes;
    this.at = at;
  }
  u8(): number {
    const b = this.#bytes[this.at++];
    if (b === undefined) throw new Error(`Cannot read module: it ends at ${this.at - 1}`);
    return b;
  }
  uleb(): number {
    return Number(this.leb(false));
  }
  leb(signed: boolean): bigint {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const b = this.u8();
      value |= BigInt(b & 0x7f) << shift;
      if (b & 0x80) continue;
      return signed && b & 0x40 ? value - (1n << (shift + 7n)) : value;
    }
  }
  name(): string {
    const length = this.uleb();
    this.at += length;
    return new TextDecoder().decode(this.#bytes.subarray(this.at - length, this.at));
  }
  list<T>(one: () => T): T[] {
    return Array.from({ length: this.uleb() }, one);
  }
}

/** @throws Error for what no module of this project has */
export function decodeModule(bytes: Uint8Array): WasmModule {
  const r = new Reader(bytes, 8);
  let types: WasmType[] = [];
  const imports: { name: string; type: WasmType }[] = [];
  let declared: number[] = [];
  const functions: WasmFunction[] = [];
  const exports = new Map<string, number>();
  const names = new Map<number, string>();
  let wide = false;
  while (r.at < bytes.length) {
    const id = r.u8();
    const end = r.uleb() + r.at;
    if (id === 1) {
      types = r.list(() => {
        if (r.u8() !== 0x60) throw new Error('Cannot read module: a type is no function');
        return { params: r.list(() => r.u8()), results: r.list(() => r.u8()) };
      });
    } else if (id === 2) {
      r.list(() => {
        r.name();
        const name = r.name();
        const kind = r.u8();
        if (kind === 0) imports.push({ name, type: types[r.uleb()]! });
        else if (kind === 1 || kind === 2) {
          if (kind === 1) r.u8();
          const flags = r.u8();
          if (kind === 2) wide = (flags & 4) !== 0;
          r.uleb();
          if (flags & 1) r.uleb();
        } else throw new Error(`Cannot read module: import of kind ${kind}`);
      });
    } else if (id === 3) declared = r.list(() => r.uleb());
    else if (id === 7) {
      r.list(() => {
        const name = r.name();
        const kind = r.u8();
        const index = r.uleb();
        if (kind === 0) exports.set(name, index);
      });
    } else if (id === 10) {
      r.list(() => {
        const stop = r.uleb() + r.at;
        const type = types[declared[functions.length]!]!;
        let locals = type.params.length;
        r.list(() => {
          locals += r.uleb();
          r.u8();
        });
        const code: WasmInsn[] = [];
        while (r.at < stop) code.push(instruction(r));
        functions.push({ type, locals, code });
      });
    } else if (id === 0) {
      if (r.name() === 'name' && r.u8() === 1) {
        r.uleb();
        r.list(() => names.set(r.uleb(), r.name()));
      }
    } else throw new Error(`Cannot read module: section ${id}`);
    r.at = end;
  }
  return { wide, types, imports, functions, exports, names };
}

function instruction(r: Reader): WasmInsn {
  const at = r.at;
  let op = r.u8();
  let [index, value, offset] = [0, 0n, 0];
  let labels: number[] | undefined;
  const memarg = (): void => {
    r.uleb();
    offset = r.uleb();
  };
  if (op >= 0xfc && op <= 0xfe) op = op * 0x1000 + r.uleb();
  if (op >= 0x28 && op <= 0x3e) memarg();
  else if (op >= 0xfe000) {
    if (op === 0xfe003) r.u8();
    else memarg();
  } else if (op >= 0xfd000) {
    const n = op - 0xfd000;
    if (n <= 11 || (n >= 84 && n <= 93)) memarg();
    if (n === 12) for (let i = 0n; i < 16n; i++) value |= BigInt(r.u8()) << (8n * i);
    if (n === 13) r.at += 16;
    if ((n >= 21 && n <= 34) || (n >= 84 && n <= 91)) index = r.u8();
  } else if (op >= 0xfc000) {
    const n = op - 0xfc000;
    if (n === 10) r.at += 2;
    else if (n === 11) r.at += 1;
    else if (n > 7) throw new Error(`Cannot read module: instruction 0xfc ${n}`);
  } else {
    switch (op) {
      case 0x02:
      case 0x03:
      case 0x04:
        index = Number(r.leb(true));
        break;
      case 0x0c:
      case 0x0d:
      case 0x10:
      case 0x12:
      case 0x20:
      case 0x21:
      case 0x22:
        index = r.uleb();
        break;
      case 0x0e:
        labels = [...r.list(() => r.uleb()), r.uleb()];
        break;
      case 0x11:
      case 0x13:
        index = r.uleb();
        r.uleb();
        break;
      case 0x1c:
        r.list(() => r.u8());
        break;
      case 0x41:
      case 0x42:
        value = r.leb(true);
        break;
      case 0x43:
        r.at += 4;
        break;
      case 0x44:
        r.at += 8;
        break;
      default: {
        const plain =
          op <= 0x01 || op === 0x05 || op === 0x0b || op === 0x0f || op === 0x1a || op === 0x1b || (op >= 0x45 && op <= 0xc4);
        if (!plain) throw new Error(`Cannot read module: instruction 0x${op.toString(16)} at ${at}`);
      }
    }
  }
  return { op, at, index, value, offset, ...(labels ? { labels } : {}) };
}

const UNARY_SIMD = new Set([
  ...[
    15, 16, 17, 18, 19, 20, 21, 22, 24, 25, 27, 29, 31, 33, 77, 83, 94, 95, 96, 97, 98, 99, 100, 103, 104, 105, 106, 116, 117,
    122,
  ],
  ...[
    124, 125, 126, 127, 128, 129, 131, 132, 135, 136, 137, 138, 148, 160, 161, 163, 164, 167, 168, 169, 170, 192, 193, 195, 196,
  ],
  ...[199, 200, 201, 202, 224, 225, 227, 236, 237, 239, 248, 249, 250, 251, 252, 253, 254, 255],
]);

/** What an instruction takes from the stack and puts there; memory accesses with the bytes that they touch. Undefined for control. */
export function effectOf(op: number): { readonly takes: number; readonly gives: number; readonly bytes?: number } | undefined {
  const load = (bytes: number): { takes: number; gives: number; bytes: number } => ({ takes: 1, gives: 1, bytes });
  const store = (bytes: number): { takes: number; gives: number; bytes: number } => ({ takes: 2, gives: 0, bytes });
  if (op >= 0x28 && op <= 0x35) return load([4, 8, 4, 8, 1, 1, 2, 2, 1, 1, 2, 2, 4, 4][op - 0x28]!);
  if (op >= 0x36 && op <= 0x3e) return store([4, 8, 4, 8, 1, 2, 1, 2, 4][op - 0x36]!);
  if (op >= 0x41 && op <= 0x44) return { takes: 0, gives: 1 };
  if (op >= 0x45 && op <= 0xc4) {
    const unary =
      op === 0x45 ||
      op === 0x50 ||
      (op >= 0x67 && op <= 0x69) ||
      (op >= 0x79 && op <= 0x7b) ||
      (op >= 0x8b && op <= 0x91) ||
      (op >= 0x99 && op <= 0x9f) ||
      op >= 0xa7;
    return { takes: unary ? 1 : 2, gives: 1 };
  }
  if (op >= 0xfe000) {
    const n = op - 0xfe000;
    const width = (k: number): number => [4, 8, 1, 2, 1, 2, 4][k % 7]!;
    if (n === 0) return { takes: 2, gives: 1, bytes: 4 };
    if (n === 1 || n === 2) return { takes: 3, gives: 1, bytes: n * 4 };
    if (n === 3) return { takes: 0, gives: 0 };
    if (n < 0x17) return load(width(n - 0x10));
    if (n < 0x1e) return store(width(n - 0x17));
    if (n < 0x48) return { takes: 2, gives: 1, bytes: width(n - 0x1e) };
    return { takes: 3, gives: 1, bytes: width(n - 0x48) };
  }
  if (op >= 0xfd000) {
    const n = op - 0xfd000;
    if (n <= 10) return load([16, 8, 8, 8, 8, 8, 8, 1, 2, 4, 8][n]!);
    if (n === 11) return store(16);
    if (n === 12) return { takes: 0, gives: 1 };
    if (n >= 84 && n <= 87) return { takes: 2, gives: 1, bytes: 1 << (n - 84) };
    if (n >= 88 && n <= 91) return { takes: 2, gives: 0, bytes: 1 << (n - 88) };
    if (n === 92 || n === 93) return load(n === 92 ? 4 : 8);
    // Selection of bits; of the relaxed ones, multiply and add, selection of lanes.
    if (n === 82 || (n >= 0x105 && n <= 0x10c) || n === 0x113) return { takes: 3, gives: 1 };
    return { takes: UNARY_SIMD.has(n) || (n >= 0x101 && n <= 0x104) ? 1 : 2, gives: 1 };
  }
  if (op >= 0xfc000) return op - 0xfc000 <= 7 ? { takes: 1, gives: 1 } : { takes: 3, gives: 0 };
  return undefined;
}
