// What the loaders write to (guest RAM) and what they hand back (the first vCPU's registers at entry).
// Segment fields follow the Intel SDM, volume 3A, section 3.4.5 "Segment Descriptors" (order number 325384-083).

/** A file that a loader reads: in memory, or read where it is needed. */
export interface ImageFile {
  readonly length: number;
  /** Bytes from `start` up to `end`. */
  bytes(start: number, end: number): Uint8Array;
  /** Copies bytes from `start` on to `place`, which they fill; what is known to be zeros may be left out where `zeroed` says that zeros are there. */
  copy(start: number, place: Uint8Array, zeroed?: boolean): void;
  /** Nothing more is read. */
  close?(): void;
}

export const inMemory = (bytes: Uint8Array): ImageFile => ({
  length: bytes.length,
  bytes: (start, end) => bytes.subarray(start, end),
  copy: (start, place) => place.set(bytes.subarray(start, start + place.length)),
});
export const asFile = (what: Uint8Array | ImageFile): ImageFile => (what instanceof Uint8Array ? inMemory(what) : what);

/** Guest RAM as a loader sees it: RAM at [0, ramBelow4G) and, when `ramAbove4G` > 0, at [4 GiB, 4 GiB + ramAbove4G). */
export interface LoadTarget {
  /** Bytes of RAM from address 0; a whole number of 4 KiB pages, at most 4 GiB. */
  readonly ramBelow4G: number;
  /** Bytes of RAM from 4 GiB up. */
  readonly ramAbove4G: number;
  /** Copies `bytes` to guest-physical address `gpa`; the loaders only write inside the ranges above. */
  write(gpa: number, bytes: Uint8Array): void;
  /** Has bytes of `file` from `start` up to `end` at guest-physical address `gpa`, where `zeroed` says that nothing but zeros is. */
  load(gpa: number, file: ImageFile, start: number, end: number, zeroed: boolean): void;
  /** RAM is as it was made: all zeros. */
  readonly fresh?: boolean;
}

/** One segment register with its cached descriptor; `limit` is in bytes, inclusive, already scaled by `g`. */
export interface SegmentState {
  readonly selector: number;
  readonly base: number;
  readonly limit: number;
  /** The 4-bit type field, accessed and busy bits included. */
  readonly type: number;
  readonly present: 0 | 1;
  readonly dpl: 0 | 1 | 2 | 3;
  /** 1 for code and data, 0 for system segments (LDT, TSS). */
  readonly s: 0 | 1;
  readonly db: 0 | 1;
  readonly l: 0 | 1;
  readonly g: 0 | 1;
}

export interface TableRegister {
  readonly base: number;
  readonly limit: number;
}

export type BootMode = 'long64' | 'protected32' | 'real16';

/** Everything that the board sets in the first vCPU before its first instruction; registers not named here are 0. */
export interface BootState {
  readonly mode: BootMode;
  /** One line on what was loaded, for the log. */
  readonly kernel: string;
  readonly rip: number;
  readonly rflags: number;
  readonly rax: number;
  readonly rbx: number;
  readonly rcx: number;
  readonly rdx: number;
  readonly rsi: number;
  readonly rdi: number;
  readonly rbp: number;
  readonly rsp: number;
  readonly cs: SegmentState;
  readonly ds: SegmentState;
  readonly es: SegmentState;
  readonly fs: SegmentState;
  readonly gs: SegmentState;
  readonly ss: SegmentState;
  readonly tr: SegmentState;
  readonly ldt: SegmentState;
  readonly gdt: TableRegister;
  readonly idt: TableRegister;
  readonly cr0: number;
  readonly cr3: number;
  readonly cr4: number;
  readonly efer: number;
}

export const GIB4 = 0x1_0000_0000;

export const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

/** A byte count in the unit that people read: `512 KiB`, `14.3 MiB`. */
export const size = (bytes: number): string =>
  bytes < 1024 ? `${bytes} bytes` : bytes < 1 << 20 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/**
 * Throws unless [start, start + length) lies in RAM that a kernel may occupy: above the loader's own tables
 * (`LOW_DATA_END`), outside the VGA and BIOS hole (0xA0000–0xFFFFF), inside one of the two RAM ranges.
 */
export const checkRange = (target: LoadTarget, start: number, length: number, what: string, lowest: number): void => {
  const end = start + length;
  const refuse = (why: string): never => {
    throw new Error(`Cannot load ${what}: it needs ${hex(start)}–${hex(end - 1)}, ${why}`);
  };
  if (length === 0) return;
  if (start < lowest) refuse(`addresses below ${hex(lowest)} are used by the loader`);
  if (start < 0x100000 && end > 0xa0000) refuse('0xa0000–0xfffff is the VGA and BIOS area');
  const inLow = end <= target.ramBelow4G;
  const inHigh = start >= GIB4 && end <= GIB4 + target.ramAbove4G;
  if (inLow || inHigh) return;
  const high = target.ramAbove4G > 0 ? ` and ${size(target.ramAbove4G)} from 4 GiB` : '';
  refuse(`the guest has ${size(target.ramBelow4G)} of RAM from 0${high}; give it more memory`);
};

/** Writes `length` zero bytes from `gpa`, in pieces, so that the size asked for is never allocated. */
export const writeZeros = (target: LoadTarget, gpa: number, length: number): void => {
  const piece = new Uint8Array(Math.min(length, 1 << 16));
  for (let done = 0; done < length; done += piece.length) {
    target.write(gpa + done, piece.subarray(0, Math.min(piece.length, length - done)));
  }
};
