// The guest's memory and vCPUs as an ELF core file: System V ABI, chapters 4 and 5 (ELF-64); Linux include/uapi/linux/elfcore.h in words
// (struct elf_prstatus of x86-64); QEMU's own note, which crash(8) reads CR3 from.

import { readRflags } from '../isa/x86/rflags.ts';
import * as st from '../isa/x86/state.ts';
import type { RunningMachine } from '../machine/running.ts';
import { QmpError } from '../rpc/qmp/error.ts';
import { readSlot } from './guest-memory.ts';
import type { StateSink } from './migration.ts';

export type DumpStatus = 'none' | 'active' | 'completed' | 'failed';

const HEADER = 64;
const PROGRAM = 56;
const PAGE = 4096;
const CHUNK = 1 << 20;
const PT_LOAD = 1;
const PT_NOTE = 4;
const NT_PRSTATUS = 1;
const PRSTATUS_BYTES = 336;
const PRSTATUS_PID = 32;
const PRSTATUS_REGISTERS = 112;

type Read = (slot: { readonly offset: number; readonly access: { readonly bits: number } }) => bigint;

/** A note: name, type and contents, each padded to four bytes. */
function note(name: string, type: number, data: Uint8Array): Uint8Array {
  const pad = (n: number): number => (n + 3) & ~3;
  const label = new TextEncoder().encode(`${name}\0`);
  const out = new Uint8Array(12 + pad(label.length) + pad(data.length));
  const view = new DataView(out.buffer);
  view.setUint32(0, label.length, true);
  view.setUint32(4, data.length, true);
  view.setUint32(8, type, true);
  out.set(label, 12);
  out.set(data, 12 + pad(label.length));
  return out;
}

/** Whether bytes are one note: a header whose sizes come to them. */
function isNote(b: Uint8Array): boolean {
  if (b.length < 12 || b.length % 4 !== 0) return false;
  const view = new DataView(b.buffer, b.byteOffset, b.length);
  const [name, data] = [view.getUint32(0, true), view.getUint32(4, true)];
  return 12 + Math.ceil(name / 4) * 4 + Math.ceil(data / 4) * 4 === b.length;
}

function prstatus(cpu: number, state: DataView, read: Read): Uint8Array {
  const out = new Uint8Array(PRSTATUS_BYTES);
  const view = new DataView(out.buffer);
  view.setUint32(PRSTATUS_PID, cpu + 1, true);
  const g = (name: keyof typeof st.R): bigint => read(st.gpr[st.R[name]]!);
  const seg = (n: number): bigint => read(st.segSelector[n]!);
  const { S } = st;
  const registers = [
    ...(
      ['r15', 'r14', 'r13', 'r12', 'rbp', 'rbx', 'r11', 'r10', 'r9', 'r8', 'rax', 'rcx', 'rdx', 'rsi', 'rdi', 'rax'] as const
    ).map(g),
    read(st.rip),
    seg(S.cs),
    readRflags(state, 0),
    g('rsp'),
    seg(S.ss),
    read(st.segBase[S.fs]!),
    read(st.segBase[S.gs]!),
    seg(S.ds),
    seg(S.es),
    seg(S.fs),
    seg(S.gs),
  ];
  registers.forEach((value, i) => view.setBigUint64(PRSTATUS_REGISTERS + 8 * i, value, true));
  return out;
}

function qemuState(state: DataView, read: Read): Uint8Array {
  const { S } = st;
  const names = [
    'rax',
    'rbx',
    'rcx',
    'rdx',
    'rsi',
    'rdi',
    'rsp',
    'rbp',
    'r8',
    'r9',
    'r10',
    'r11',
    'r12',
    'r13',
    'r14',
    'r15',
  ] as const;
  const words: bigint[] = [...names.map((n) => read(st.gpr[st.R[n]]!)), read(st.rip), readRflags(state, 0)];
  const segments = [S.cs, S.ds, S.es, S.fs, S.gs, S.ss, S.ldtr, S.tr];
  const size = 8 + 8 * words.length + 24 * (segments.length + 2) + 8 * 6;
  const out = new Uint8Array(size);
  const view = new DataView(out.buffer);
  view.setUint32(0, 1, true);
  view.setUint32(4, size, true);
  let at = 8;
  const put = (value: bigint): void => {
    view.setBigUint64(at, value, true);
    at += 8;
  };
  words.forEach(put);
  const segment = (selector: bigint, limit: bigint, flags: bigint, base: bigint): void => {
    put((limit << 32n) | selector);
    put(flags);
    put(base);
  };
  for (const n of segments)
    segment(read(st.segSelector[n]!), read(st.segLimit[n]!), (read(st.segAttr[n]!) & 0xffffn) << 8n, read(st.segBase[n]!));
  segment(0n, read(st.gdtLimit), 0n, read(st.gdtBase));
  segment(0n, read(st.idtLimit), 0n, read(st.idtBase));
  for (const value of [read(st.cr0), 0n, read(st.cr2), read(st.cr3), read(st.cr4), read(st.kernelGsBase)]) put(value);
  return out;
}

/** What is seen of a range outside system management mode: pages that are hidden then, and what is no RAM, read as zeros. */
export function visibleMemory({ memory }: RunningMachine['board'], gpa: number, length: number): Uint8Array {
  const whole = memory.slice(gpa, length);
  if (whole) return whole.slice();
  const out = new Uint8Array(length);
  for (let at = 0, n = 0; at < length; at += n) {
    n = Math.min(PAGE - ((gpa + at) % PAGE), length - at);
    const page = memory.slice(gpa + at, n);
    if (page) out.set(page, at);
  }
  return out;
}

/** Writes a core file of the guest, which is held, to `sink`. `progress` hears of bytes of memory. */
export async function writeCore(
  machine: RunningMachine,
  sink: StateSink,
  range: { readonly begin: number; readonly length: number } | undefined,
  progress: (done: number, total: number) => void,
): Promise<void> {
  const { memory } = machine.board;
  const end = range ? range.begin + range.length : Number.POSITIVE_INFINITY;
  const blocks = memory.ranges
    .map((r) => ({ start: Math.max(r.gpa, range?.begin ?? 0), end: Math.min(r.gpa + r.length, end) }))
    .filter((b) => b.end > b.start);
  if (blocks.length === 0) throw new QmpError('No guest memory in the range');
  const notes = machine.board.cpus.list().flatMap((cpu) => {
    const state = machine.vcpuState(cpu);
    const read: Read = (slot) => readSlot(state, slot);
    return [note('CORE', NT_PRSTATUS, prstatus(cpu, state, read)), note('QEMU', 0, qemuState(state, read))];
  });
  // The guest's kernel has prepared a note of its own; one that is no note, or not all in RAM, is left out.
  const told = machine.devices.list().flatMap(({ device }) => device.coreNote?.() ?? [])[0];
  const guest = told && told.length <= CHUNK ? memory.slice(told.gpa, told.length)?.slice() : undefined;
  if (guest && isNote(guest)) notes.push(guest);
  const noteBytes = notes.reduce((n, x) => n + x.length, 0);
  const headers = new Uint8Array(HEADER + PROGRAM * (1 + blocks.length));
  const view = new DataView(headers.buffer);
  headers.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 4, true);
  view.setUint16(18, 62, true);
  view.setUint32(20, 1, true);
  view.setBigUint64(32, BigInt(HEADER), true);
  view.setUint16(52, HEADER, true);
  view.setUint16(54, PROGRAM, true);
  view.setUint16(56, 1 + blocks.length, true);
  let offset = headers.length;
  const program = (n: number, type: number, address: number, size: number): void => {
    const at = HEADER + PROGRAM * n;
    view.setUint32(at, type, true);
    view.setBigUint64(at + 8, BigInt(offset), true);
    view.setBigUint64(at + 24, BigInt(address), true);
    view.setBigUint64(at + 32, BigInt(size), true);
    view.setBigUint64(at + 40, BigInt(size), true);
    offset += size;
  };
  program(0, PT_NOTE, 0, noteBytes);
  blocks.forEach((b, i) => program(i + 1, PT_LOAD, b.start, b.end - b.start));
  await sink.write(headers);
  for (const n of notes) await sink.write(n);
  const total = blocks.reduce((n, b) => n + b.end - b.start, 0);
  let done = 0;
  progress(0, total);
  for (const block of blocks) {
    for (let at = block.start; at < block.end; at += CHUNK) {
      const n = Math.min(CHUNK, block.end - at);
      await sink.write(visibleMemory(machine.board, at, n));
      progress((done += n), total);
    }
  }
}
