// The directory of internal snapshots: "Qcow2 Image File Format", section "Snapshots".

import { type ByteFile, DiskError } from '../block.ts';
import { type Header, MAX_L1_BYTES } from './header.ts';

const MAX_TABLE_BYTES = 64 << 20;
const MAX_EXTRA = 1024;
const FIXED = 40;

export interface Snapshot {
  readonly id: string;
  readonly name: string;
  readonly l1Offset: number;
  /** Entries. */
  readonly l1Size: number;
  /** When it was taken, from the Epoch. */
  readonly seconds: number;
  readonly nanoseconds: number;
  /** Time that the guest had run, in ns. */
  readonly guestTime: bigint;
  /** Bytes of VM state, 0 for none. */
  readonly vmStateSize: number;
  /** Of the disk in bytes; in old images, which do not say it, the present size. */
  readonly diskSize: number;
  /** Executed instructions; undefined when they were not counted. */
  readonly icount: bigint | undefined;
  /** Extra data that is not known here, kept. */
  readonly unknownExtra: Uint8Array;
}

/** Reads the table, and its length in bytes. */
export async function readSnapshots(file: ByteFile, header: Header): Promise<{ snapshots: Snapshot[]; bytes: number }> {
  const snapshots: Snapshot[] = [];
  const fixed = new Uint8Array(FIXED);
  const d = new DataView(fixed.buffer);
  let at = header.snapshotsOffset;
  const refuse = (found: string): never => {
    throw new DiskError(`Cannot open ${file.name}: its snapshot ${snapshots.length + 1} ${found}`);
  };
  for (let i = 0; i < header.snapshotCount; i++) {
    await file.read(at, fixed);
    const [idLength, nameLength, extraLength] = [d.getUint16(12), d.getUint16(14), d.getUint32(36)];
    if (extraLength > MAX_EXTRA) refuse(`has ${extraLength} bytes of extra data, accepted are at most ${MAX_EXTRA}`);
    const rest = new Uint8Array(extraLength + idLength + nameLength);
    await file.read(at + FIXED, rest);
    const extra = new DataView(rest.buffer, 0, extraLength);
    const l1Offset = d.getBigUint64(0);
    const l1Size = d.getUint32(8);
    if (l1Size * 8 > MAX_L1_BYTES) refuse(`has an L1 table of ${l1Size} entries, accepted are at most ${MAX_L1_BYTES / 8}`);
    if (l1Offset % BigInt(2 ** header.clusterBits) !== 0n || l1Offset > BigInt(Number.MAX_SAFE_INTEGER))
      refuse(`has its L1 table at ${l1Offset}, which is not a cluster's start`);
    const small = (value: bigint, what: string): number =>
      value > BigInt(Number.MAX_SAFE_INTEGER)
        ? refuse(`has a ${what} of ${value} bytes, accepted is less than 2^53`)
        : Number(value);
    const text = (from: number, length: number): string => new TextDecoder().decode(rest.subarray(from, from + length));
    const icount = extraLength >= 24 ? extra.getBigUint64(16) : undefined;
    snapshots.push({
      id: text(extraLength, idLength),
      name: text(extraLength + idLength, nameLength),
      l1Offset: Number(l1Offset),
      l1Size,
      seconds: d.getUint32(16),
      nanoseconds: d.getUint32(20),
      guestTime: d.getBigUint64(24),
      vmStateSize: extraLength >= 8 ? small(extra.getBigUint64(0), 'VM state') : d.getUint32(32),
      diskSize: extraLength >= 16 ? small(extra.getBigUint64(8), 'disk') : header.size,
      icount: icount === 0xffff_ffff_ffff_ffffn ? undefined : icount,
      unknownExtra: rest.slice(Math.min(24, extraLength), extraLength),
    });
    at += FIXED + rest.length;
    at = Math.ceil(at / 8) * 8;
    if (at - header.snapshotsOffset > MAX_TABLE_BYTES) refuse(`ends beyond the table's limit of ${MAX_TABLE_BYTES} bytes`);
  }
  return { snapshots, bytes: at - header.snapshotsOffset };
}

export function encodeSnapshots(snapshots: readonly Snapshot[]): Uint8Array {
  const parts = snapshots.map((s) => {
    const id = new TextEncoder().encode(s.id);
    const name = new TextEncoder().encode(s.name);
    if (id.length > 0xffff || name.length > 0xffff)
      throw new DiskError(`Cannot store a snapshot's name of ${name.length} bytes: accepted are at most 65535`);
    const extraLength = 24 + s.unknownExtra.length;
    const out = new Uint8Array(Math.ceil((FIXED + extraLength + id.length + name.length) / 8) * 8);
    const d = new DataView(out.buffer);
    d.setBigUint64(0, BigInt(s.l1Offset));
    d.setUint32(8, s.l1Size);
    d.setUint16(12, id.length);
    d.setUint16(14, name.length);
    d.setUint32(16, s.seconds);
    d.setUint32(20, s.nanoseconds);
    d.setBigUint64(24, s.guestTime);
    d.setUint32(32, s.vmStateSize > 0xffff_ffff ? 0 : s.vmStateSize);
    d.setUint32(36, extraLength);
    d.setBigUint64(40, BigInt(s.vmStateSize));
    d.setBigUint64(48, BigInt(s.diskSize));
    d.setBigUint64(56, s.icount ?? 0xffff_ffff_ffff_ffffn);
    out.set(s.unknownExtra, 64);
    out.set(id, FIXED + extraLength);
    out.set(name, FIXED + extraLength + id.length);
    return out;
  });
  const bytes = new Uint8Array(parts.reduce((sum, p) => sum + p.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
