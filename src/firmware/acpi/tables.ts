// The fixed ACPI tables, each as the bytes behind its common header, with the offsets of pointers left to the linker.
// ACPI Specification 6.4: FADT 5.2.9, FACS 5.2.10, MADT 5.2.12, SRAT 5.2.16, SLIT 5.2.17, XSDT 5.2.8; PCI Firmware Specification 3.3, section 4.1.2
// (MCFG); IA-PC HPET Specification 1.0a, section 3.2.4.

import { bytesOf, little } from './aml.ts';
import { type AcpiConfig, HPET_BASE, SCI, type Window } from './config.ts';

/** Offsets of the FADT's pointers, from the table's start. */
export const FADT_POINTERS = { facs: 36, dsdt: 40, xDsdt: 140 } as const;

/** Generic address structure (5.2.3.2) for I/O ports; `width` in bits. */
const ioAddress = (port: number, width: number, access: number): Uint8Array => bytesOf(1, width, 0, access, little(port, 8));

/** One for a byte in memory. */
const memoryAddress = (at: number): Uint8Array => bytesOf(0, 8, 0, 1, little(at, 8));

const HEADER = 36;

/** Revision 6.4 of the FADT without its header: 240 bytes. SMI command 0xB2, 2 enables and 3 disables ACPI; reset is 0xCF9 = 6. */
export const fadtBody = (config: AcpiConfig): Uint8Array => {
  const bytes = new Uint8Array(276 - HEADER);
  const view = new DataView(bytes.buffer);
  const at = (offset: number): number => offset - HEADER;
  const byte = (offset: number, value: number): void => view.setUint8(at(offset), value);
  const half = (offset: number, value: number): void => view.setUint16(at(offset), value, true);
  const word = (offset: number, value: number): void => view.setUint32(at(offset), value, true);
  const address = (offset: number, port: number, width: number, access: number): void =>
    bytes.set(ioAddress(port, width, access), at(offset));
  bytes.set(new TextEncoder().encode('NONROOT'), at(268));
  // Boot architecture: legacy devices, 8042, no VGA, no RTC.
  const architecture = (config.ps2 ? 2 : 0) | (config.vga ? 0 : 4) | (config.rtc ? 0 : 0x20);
  if (config.reduced) {
    const { registers, reset } = config.reduced;
    half(109, architecture);
    // Hardware-reduced, reset register.
    word(112, (1 << 20) | 0x400);
    bytes.set(memoryAddress(registers + 2), at(116));
    byte(128, reset);
    byte(131, 4);
    bytes.set(memoryAddress(registers), at(244));
    bytes.set(memoryAddress(registers + 1), at(256));
    return bytes;
  }
  const pm = config.pmBase ?? 0x600;
  const gpe = config.gpeBase ?? 0x620;
  half(46, SCI);
  word(48, 0xb2);
  byte(52, 2);
  byte(53, 3);
  word(56, pm);
  word(64, pm + 4);
  word(76, pm + 8);
  word(80, gpe);
  byte(88, 4);
  byte(89, 2);
  byte(91, 4);
  const gpeLength = config.gpeLength ?? 16;
  byte(92, gpeLength);
  half(96, 0xfff); // C2 and C3 not supported
  half(98, 0xfff);
  byte(108, config.rtc ? 0x32 : 0);
  half(109, 1 | architecture);
  // WBINVD, C1, no sleep button, reset register; the RTC's wake status is in fixed space where there is a sleep to wake from. The power button is the fixed one.
  word(112, 1 | 4 | 0x20 | (config.s3 === undefined ? 0x40 : 0) | 0x400);
  address(116, 0xcf9, 8, 1);
  byte(128, 6);
  byte(131, 4);
  address(148, pm, 32, 2);
  address(172, pm + 4, 16, 2);
  address(208, pm + 8, 32, 3);
  address(220, gpe, gpeLength * 8, 1);
  return bytes;
};

/** Where in the FACS the operating system writes the address at which it goes on after a sleep, in real mode: 4 bytes. */
export const FACS_VECTOR = 12;
/** The FACS, which has neither the common header nor a checksum; 64 bytes, aligned to 64. */
export const facs = (): Uint8Array => {
  const bytes = new Uint8Array(64);
  bytes.set(bytesOf(new TextEncoder().encode('FACS'), little(64, 4)));
  bytes[32] = 2;
  return bytes;
};

const ISA_LEVEL_HIGH = 0x0d;

/** Flags of a local APIC, section 5.2.12.2. */
export const MADT_ENABLED = 1;
const MADT_ONLINE_CAPABLE = 2;
/** The entry of one CPU. */
export const madtCpu = (uid: number, id: number, flags: number): Uint8Array =>
  id < 255 && uid < 255
    ? bytesOf(0, 8, uid, id, little(flags, 4))
    : bytesOf(9, 16, 0, 0, little(id, 4), little(flags, 4), little(uid, 4));

/** Local APICs (x2APIC entries for ids from 255 up), I/O APIC 0, the overrides of the timer and of level interrupts, LINT1 = NMI. */
export const madtBody = (config: AcpiConfig): Uint8Array => {
  const entries: Uint8Array[] = [];
  const small = config.cpus.every((id) => id < 255);
  for (const [uid, id] of config.cpus.entries())
    entries.push(madtCpu(uid, id, config.absent?.includes(uid) ? MADT_ONLINE_CAPABLE : MADT_ENABLED));
  entries.push(bytesOf(1, 12, 0, 0, little(0xfec0_0000, 4), little(0, 4)));
  if (config.secondIoapic) entries.push(bytesOf(1, 12, 1, 0, little(0xfec1_0000, 4), little(24, 4)));
  if (!config.reduced) entries.push(bytesOf(2, 10, 0, 0, little(2, 4), little(0, 2)));
  for (const line of config.reduced ? [] : [SCI, ...(config.levelIrqs ?? [])].sort((x, y) => x - y)) {
    entries.push(bytesOf(2, 10, 0, line, little(line, 4), little(ISA_LEVEL_HIGH, 2)));
  }
  entries.push(bytesOf(4, 6, 0xff, little(0, 2), 1));
  if (!small) entries.push(bytesOf(10, 12, little(0, 2), little(0xffff_ffff, 4), 1, 0, 0, 0));
  return bytesOf(little(0xfee0_0000, 4), little(config.reduced ? 0 : 1, 4), ...entries);
};

/** Three 64-bit-capable comparators as an Intel ICH's block has them. */
export const hpetBody = (): Uint8Array =>
  bytesOf(little(0x8086_a201, 4), bytesOf(0, 64, 0, 0, little(HPET_BASE, 8)), 0, little(0, 2), 0);

export const mcfgBody = (base: number): Uint8Array => bytesOf(little(0, 8), little(base, 8), little(0, 2), 0, 255, little(0, 4));

type Numa = NonNullable<AcpiConfig['numa']>;

/** Flags of a memory range, section 5.2.16.2. */
const SRAT_ENABLED = 1;
const SRAT_HOTPLUGGABLE = 2;

/**
 * CPUs, then memory; entries that are not enabled fill it up to two more than there are nodes, as with QEMU. Last the addresses at which memory
 * may be plugged in, which the last node has until a module tells of its own.
 */
export const sratBody = (cpus: readonly number[], { nodes, memory, cpus: domains }: Numa, hotplug?: Window): Uint8Array => {
  const entries = cpus.map((id, n) =>
    id < 255
      ? bytesOf(0, 16, domains[n]!, id, little(1, 4), 0, 0, 0, 0, little(0, 4))
      : bytesOf(2, 24, little(0, 2), little(domains[n]!, 4), little(id, 4), little(1, 4), little(0, 8)),
  );
  const range = (node: number, base: number, size: number, enabled: number): Uint8Array =>
    bytesOf(
      1,
      40,
      little(node, 4),
      little(0, 2),
      little(base, 8),
      little(size, 8),
      little(0, 4),
      little(enabled, 4),
      little(0, 8),
    );
  for (const { node, base, size } of memory) entries.push(range(node, base, size, SRAT_ENABLED));
  for (let n = memory.length; n < nodes + 2; n++) entries.push(range(0, 0, 0, 0));
  if (hotplug) entries.push(range(nodes - 1, hotplug.base, hotplug.size, SRAT_ENABLED | SRAT_HOTPLUGGABLE));
  return bytesOf(little(1, 4), little(0, 8), ...entries);
};

export const slitBody = (nodes: number, distances: readonly number[]): Uint8Array => bytesOf(little(nodes, 8), ...distances);
