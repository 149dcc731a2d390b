// ELF executables, 32 and 64 bits, little-endian x86: header, program headers and notes, and loading by physical address.
// System V ABI, generic part, edition 4.1 with the 2013 draft, chapters 4 "Object Files" and 5 "Program Loading".

import { LOW_DATA_END } from './layout.ts';
import { checkRange, hex, type ImageFile, inMemory, type LoadTarget, size, writeZeros } from './target.ts';

export interface ElfSegment {
  /** Place in the file; [offset, offset + fileSize) lies inside it. */
  readonly offset: number;
  readonly fileSize: number;
  readonly memorySize: number;
  readonly physical: number;
  readonly virtual: bigint;
}

export interface ElfNote {
  readonly name: string;
  readonly type: number;
  readonly data: Uint8Array;
}

export interface ElfImage {
  readonly bits: 32 | 64;
  /** e_machine: 3 is i386, 62 is x86-64. */
  readonly machine: number;
  /** e_entry, as the file has it: a physical address in Linux's vmlinux, a virtual one elsewhere. */
  readonly entry: bigint;
  /** The PT_LOAD segments with memorySize > 0, in file order. */
  readonly segments: readonly ElfSegment[];
  readonly notes: readonly ElfNote[];
}

const PT_LOAD = 1;
const PT_NOTE = 4;
const machines: Readonly<Record<number, string>> = { 3: 'i386', 40: 'arm', 62: 'x86-64', 183: 'aarch64', 243: 'riscv' };

export const isElf = (bytes: Uint8Array): boolean =>
  bytes.length >= 4 && bytes[0] === 0x7f && bytes[1] === 0x45 && bytes[2] === 0x4c && bytes[3] === 0x46;

const bad = (why: string): never => {
  throw new Error(`Cannot read ELF file: ${why}`);
};

/** The field positions that differ between the two classes: ELF header, then program header. */
const layouts = {
  32: { entry: 24, phoff: 28, phentsize: 42, phnum: 44, min: 52, ph: 32, offset: 4, vaddr: 8, paddr: 12, filesz: 16, memsz: 20 },
  64: { entry: 24, phoff: 32, phentsize: 54, phnum: 56, min: 64, ph: 56, offset: 8, vaddr: 16, paddr: 24, filesz: 32, memsz: 40 },
} as const;

const align4 = (n: number): number => Math.ceil(n / 4) * 4;

const readNotes = (bytes: Uint8Array): ElfNote[] => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const notes: ElfNote[] = [];
  for (let at = 0; at + 12 <= bytes.length; ) {
    const nameSize = view.getUint32(at, true);
    const dataSize = view.getUint32(at + 4, true);
    const data = at + 12 + align4(nameSize);
    // Notes are a hint to loaders: a damaged list ends the reading, it does not make the file unusable.
    if (data + dataSize > bytes.length) break;
    const name = new TextDecoder('latin1').decode(bytes.subarray(at + 12, at + 12 + nameSize).slice());
    notes.push({
      name: name.replace(/\0.*$/s, ''),
      type: view.getUint32(at + 8, true),
      data: bytes.subarray(data, data + dataSize),
    });
    at = data + align4(dataSize);
  }
  return notes;
};

/**
 * Reads and validates headers; allocates nothing in proportion to the sizes that the file claims.
 * @throws on a file that is no x86 executable, that is truncated, or whose fields contradict each other
 */
export const parseElf = (file: Uint8Array | ImageFile): ElfImage => {
  const { length, bytes } = file instanceof Uint8Array ? inMemory(file) : file;
  const head = bytes(0, Math.min(length, layouts[64].min));
  if (!isElf(head)) bad('no ELF magic at its start');
  if (length < 20) bad(`it ends inside the header, after ${size(length)}`);
  const bits = head[4] === 1 ? 32 : head[4] === 2 ? 64 : bad(`class ${head[4]}, accepted are 1 (32 bits) and 2 (64 bits)`);
  if (head[5] !== 1) bad('it is big-endian, accepted is little-endian');
  const view = new DataView(head.buffer, head.byteOffset, head.length);
  const at = layouts[bits];
  if (length < at.min) bad(`it ends inside the header, after ${size(length)}`);
  const wordOf = (view: DataView, offset: number): bigint =>
    bits === 32 ? BigInt(view.getUint32(offset, true)) : view.getBigUint64(offset, true);
  const type = view.getUint16(16, true);
  if (type !== 2 && type !== 3) bad(`type ${type}, accepted are 2 (executable) and 3 (shared or position-independent)`);
  const machine = view.getUint16(18, true);
  if (machine !== 3 && machine !== 62)
    bad(`it is for ${machines[machine] ?? `machine ${machine}`}, accepted are i386 and x86-64`);
  const count = view.getUint16(at.phnum, true);
  const entrySize = view.getUint16(at.phentsize, true);
  const table = wordOf(view, at.phoff);
  if (count === 0) bad('it has no program headers');
  if (entrySize < at.ph) bad(`its program headers have ${entrySize} bytes each, at least ${at.ph} are needed`);
  if (table + BigInt(count * entrySize) > BigInt(length)) {
    bad(`its ${count} program headers at ${hex(table)} lie behind its end at ${hex(length)}`);
  }

  const entries = bytes(Number(table), Number(table) + count * entrySize);
  const headers = new DataView(entries.buffer, entries.byteOffset, entries.length);
  const word = (offset: number): bigint => wordOf(headers, offset);
  const segments: ElfSegment[] = [];
  const notes: ElfNote[] = [];
  for (let i = 0; i < count; i++) {
    const header = i * entrySize;
    const kind = headers.getUint32(header, true);
    if (kind !== PT_LOAD && kind !== PT_NOTE) continue;
    const offset = word(header + at.offset);
    const fileSize = word(header + at.filesz);
    const memorySize = word(header + at.memsz);
    const physical = word(header + at.paddr);
    if (offset + fileSize > BigInt(length)) {
      bad(`program header ${i} wants ${hex(fileSize)} bytes at ${hex(offset)}, the file ends at ${hex(length)}`);
    }
    if (kind === PT_NOTE) {
      for (const note of readNotes(bytes(Number(offset), Number(offset + fileSize)))) notes.push(note);
      continue;
    }
    if (fileSize > memorySize) bad(`program header ${i} has more bytes in the file (${fileSize}) than in memory (${memorySize})`);
    if (physical + memorySize > 1n << 52n) bad(`program header ${i} wants physical address ${hex(physical + memorySize)}`);
    if (memorySize === 0n) continue;
    segments.push({
      offset: Number(offset),
      fileSize: Number(fileSize),
      memorySize: Number(memorySize),
      physical: Number(physical),
      virtual: word(header + at.vaddr),
    });
  }
  if (segments.length === 0) bad('it has no segment to load');
  return { bits, machine, entry: wordOf(view, at.entry), segments, notes };
};

/**
 * Copies every segment to its physical address and clears what it has beyond its file bytes.
 * None may begin below `lowest`. Returns the lowest address used and the one after the last.
 * @throws when a segment does not fit in RAM, or when all together are larger than RAM (a hostile file)
 */
export const loadElf = (
  target: LoadTarget,
  file: Uint8Array | ImageFile,
  image: ElfImage,
  what: string,
  lowest = LOW_DATA_END,
): { start: number; end: number } => {
  const source = file instanceof Uint8Array ? inMemory(file) : file;
  const total = image.segments.reduce((sum, s) => sum + s.memorySize, 0);
  for (const segment of image.segments) checkRange(target, segment.physical, segment.memorySize, what, lowest);
  if (total > target.ramBelow4G + target.ramAbove4G) {
    throw new Error(`Cannot load ${what}: its segments have ${size(total)} together, more than the guest's RAM`);
  }
  const places = image.segments.map((s) => [s.physical, s.physical + s.memorySize] as const).sort(([a], [b]) => a - b);
  const zeroed = target.fresh === true && places.every(([start], n) => n === 0 || start >= places[n - 1]![1]);
  for (const segment of image.segments) {
    target.load(segment.physical, source, segment.offset, segment.offset + segment.fileSize, zeroed);
    if (!zeroed) writeZeros(target, segment.physical + segment.fileSize, segment.memorySize - segment.fileSize);
  }
  const ends = image.segments.map((s) => s.physical + s.memorySize);
  return { start: Math.min(...image.segments.map((s) => s.physical)), end: Math.max(...ends) };
};

/** The entry point as a physical address: translated through the segment that holds it virtually, or taken as it is. */
export const physicalEntry = (image: ElfImage): number => {
  const inside = (base: bigint, length: number): boolean => image.entry >= base && image.entry < base + BigInt(length);
  if (image.segments.some((s) => inside(BigInt(s.physical), s.memorySize))) return Number(image.entry);
  const holder = image.segments.find((s) => inside(s.virtual, s.memorySize));
  if (!holder) throw new Error(`Cannot boot ELF file: its entry point ${hex(image.entry)} is in none of its segments`);
  return holder.physical + Number(image.entry - holder.virtual);
};
