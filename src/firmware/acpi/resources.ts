// Resource descriptors for _CRS: ACPI Specification 6.4, section 6.4 "Resource Data Types for ACPI".

import { type Aml, buffer, bytesOf, little } from './aml.ts';

export type Resource = Uint8Array;

/** `template([…])` is the buffer that _CRS returns: the descriptors and an end tag with checksum 0 ("not checked"). */
export const template = (...resources: readonly Resource[]): Aml => buffer(bytesOf(...resources, 0x79, 0));

/** An ISA interrupt, edge-triggered, active high, exclusive (6.4.2.1, two-byte mask form). */
export const irq = (line: number): Resource => bytesOf(0x22, little(1 << line, 2));

/** A DMA channel, 8 bits at a time, compatible timing (6.4.2.2). */
export const dma = (channel: number): Resource => bytesOf(0x2a, 1 << channel, 0);

/** Decoded I/O ports at one fixed place (6.4.2.5), 16-bit decode. */
export const io = (port: number, length: number): Resource => bytesOf(0x47, 1, little(port, 2), little(port, 2), 1, length);

/** A 32-bit fixed memory range (6.4.3.4), writable. */
export const memory32 = (base: number, length: number): Resource =>
  bytesOf(0x86, little(9, 2), 1, little(base, 4), little(length, 4));

/** One interrupt by GSI (6.4.3.6): consumer, level- or edge-triggered, active high, exclusive. */
export const interrupt = (gsi: number, trigger: 'level' | 'edge'): Resource =>
  bytesOf(0x89, little(6, 2), trigger === 'edge' ? 0x03 : 0x01, 1, little(gsi, 4));

const FIXED = 0x0c; // minimum and maximum fixed, positive decode, producer
const tags = { 2: 0x88, 4: 0x87, 8: 0x8a } as const;

/** An address space descriptor (6.4.3.5) for the window [first, last]; `kind` 0 is memory, 1 I/O, 2 bus numbers. */
const addressSpace = (width: 2 | 4 | 8, kind: 0 | 1 | 2, flags: number, first: bigint, last: bigint): Resource => {
  const numbers = [0n, first, last, 0n, last - first + 1n].map((n) => little(n, width));
  const body = bytesOf(kind, FIXED, flags, ...numbers);
  return bytesOf(tags[width], little(body.length, 2), body);
};

export const busWindow = (first: number, last: number): Resource => addressSpace(2, 2, 0, BigInt(first), BigInt(last));
/** An I/O window; both ISA and non-ISA ranges. */
export const ioWindow = (first: number, last: number): Resource => addressSpace(2, 1, 3, BigInt(first), BigInt(last));

/** A memory window, writable; with 32-bit fields where it fits. */
export const memoryWindow = (base: number, length: number, cacheable = false): Resource => {
  const last = BigInt(base) + BigInt(length) - 1n;
  return addressSpace(last < 1n << 32n ? 4 : 8, 0, cacheable ? 3 : 1, BigInt(base), last);
};
