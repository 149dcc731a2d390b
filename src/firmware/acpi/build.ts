// Assembles the ACPI tables into one relocatable image and places it: at a fixed address for direct kernel boot, or as
// the files and linker script that a PC BIOS takes from fw_cfg.
// ACPI Specification 6.4, sections 5.2.5 (RSDP) to 5.2.8 (XSDT); the script: the command records that SeaBIOS reads, src/fw/romfile_loader.h.

import { ascii, bytesOf, little } from './aml.ts';
import type { AcpiConfig } from './config.ts';
import { dsdtBody } from './dsdt.ts';
import { erstBody } from './erst.ts';
import { FADT_POINTERS, facs, fadtBody, hpetBody, madtBody, mcfgBody, slitBody, sratBody } from './tables.ts';

/** A field that holds an offset into the tables until they have an address. */
export interface Fixup {
  readonly at: number;
  readonly width: 4 | 8;
}

/** A byte that makes the sum of [start, start + length) zero. */
export interface Checksum {
  readonly at: number;
  readonly start: number;
  readonly length: number;
}

export interface AcpiImage {
  /** All tables but the RSDP; pointers are offsets, checksums are 0. Its address must be a multiple of 64. */
  readonly tables: Uint8Array;
  readonly fixups: readonly Fixup[];
  readonly checksums: readonly Checksum[];
  /** 36 bytes, revision 2; its pointer to the XSDT is an offset into `tables`, its checksums are 0. */
  readonly rsdp: Uint8Array;
  readonly rsdpFixups: readonly Fixup[];
  readonly rsdpChecksums: readonly Checksum[];
}

const OEM_ID = 'NONRT ';
const OEM_TABLE = 'NONROOT ';
const align = (n: number, to: number): number => Math.ceil(n / to) * to;

/** The tables that `config` asks for: FACS, DSDT, FADT, MADT, HPET, MCFG, SRAT, SLIT, ERST, XSDT and RSDT. */
export const buildAcpi = (config: AcpiConfig): AcpiImage => {
  if (config.cpus.length === 0) throw new Error('Cannot build ACPI tables: no CPUs given, accepted is 1 or more');
  const parts: { at: number; bytes: Uint8Array }[] = [];
  const fixups: Fixup[] = [];
  const checksums: Checksum[] = [];
  let end = 0;
  const place = (bytes: Uint8Array, to: number): number => {
    const at = align(end, to);
    parts.push({ at, bytes });
    end = at + bytes.length;
    return at;
  };
  const table = (signature: string, revision: number, body: Uint8Array): number => {
    const length = 36 + body.length;
    const header = bytesOf(
      ascii(signature),
      little(length, 4),
      revision,
      0,
      ascii(OEM_ID),
      ascii(OEM_TABLE),
      little(1, 4),
      ascii('NRT '),
      little(1, 4),
    );
    const at = place(bytesOf(header, body), 16);
    checksums.push({ at: at + 9, start: at, length });
    return at;
  };

  const facsAt = place(facs(), 64);
  const dsdtAt = table('DSDT', 2, dsdtBody(config));
  const fadtFields = fadtBody(config);
  const fadtView = new DataView(fadtFields.buffer);
  fadtView.setUint32(FADT_POINTERS.facs - 36, facsAt, true);
  fadtView.setUint32(FADT_POINTERS.dsdt - 36, dsdtAt, true);
  fadtView.setBigUint64(FADT_POINTERS.xDsdt - 36, BigInt(dsdtAt), true);
  const fadtAt = table('FACP', 6, fadtFields);
  fixups.push({ at: fadtAt + FADT_POINTERS.facs, width: 4 });
  fixups.push({ at: fadtAt + FADT_POINTERS.dsdt, width: 4 });
  fixups.push({ at: fadtAt + FADT_POINTERS.xDsdt, width: 8 });
  const listed = [fadtAt, table('APIC', 5, madtBody(config))];
  if (config.hpet) listed.push(table('HPET', 1, hpetBody()));
  if (config.pci?.mmconfig) listed.push(table('MCFG', 1, mcfgBody(config.pci.mmconfig.base)));
  const { numa } = config;
  if (numa) listed.push(table('SRAT', 1, sratBody(config.cpus, numa, config.memoryHotplug?.window)));
  if (numa?.distances) listed.push(table('SLIT', 1, slitBody(numa.nodes, numa.distances)));
  if (config.errorRecords !== undefined) listed.push(table('ERST', 1, erstBody(config.errorRecords)));
  const list = (signature: string, width: 4 | 8): number => {
    const at = table(signature, 1, bytesOf(...listed.map((entry) => little(entry, width))));
    for (const i of listed.keys()) fixups.push({ at: at + 36 + i * width, width });
    return at;
  };
  const xsdtAt = list('XSDT', 8);
  const rsdtAt = list('RSDT', 4);

  const tables = new Uint8Array(align(end, 16));
  for (const { at, bytes } of parts) tables.set(bytes, at);
  return {
    tables,
    fixups,
    checksums,
    rsdp: bytesOf(ascii('RSD PTR '), 0, ascii(OEM_ID), 2, little(rsdtAt, 4), little(36, 4), little(xsdtAt, 8), 0, 0, 0, 0),
    rsdpFixups: [
      { at: 16, width: 4 },
      { at: 24, width: 8 },
    ],
    rsdpChecksums: [
      { at: 8, start: 0, length: 20 },
      { at: 32, start: 0, length: 36 },
    ],
  };
};

const link = (bytes: Uint8Array, fixups: readonly Fixup[], checksums: readonly Checksum[], base: number): Uint8Array => {
  const out = bytes.slice();
  const view = new DataView(out.buffer);
  for (const { at, width } of fixups) {
    if (width === 4) view.setUint32(at, view.getUint32(at, true) + base, true);
    else view.setBigUint64(at, view.getBigUint64(at, true) + BigInt(base), true);
  }
  for (const { at, start, length } of checksums) {
    out[at] = 0;
    out[at] = -out.subarray(start, start + length).reduce((sum, byte) => sum + byte, 0) & 0xff;
  }
  return out;
};

/** Where the FACS lies in that block: it is the first table. */
export const FACS_PLACE = 64;
/**
 * RSDP and tables as one block for guest address `base`, a multiple of 64 below 4 GiB; the RSDP is its first bytes.
 * @throws when the block is larger than `room`
 */
export const linkAcpi = (image: AcpiImage, base: number, room: number): Uint8Array => {
  const bytes = new Uint8Array(64 + image.tables.length);
  if (bytes.length > room) throw new Error(`Cannot place ACPI tables: they have ${bytes.length} bytes, accepted are ${room}`);
  bytes.set(link(image.rsdp, image.rsdpFixups, image.rsdpChecksums, base + 64));
  bytes.set(link(image.tables, image.fixups, image.checksums, base + 64), 64);
  return bytes;
};

/** The fw_cfg files `etc/acpi/tables`, `etc/acpi/rsdp` and `etc/table-loader` for a BIOS or UEFI in the guest. */
export const acpiLoaderFiles = (image: AcpiImage): Readonly<Record<string, Uint8Array>> => {
  const tables = 'etc/acpi/tables';
  const rsdp = 'etc/acpi/rsdp';
  const file = (name: string): Uint8Array => bytesOf(ascii(name), new Uint8Array(56 - name.length));
  const command = (code: number, ...fields: Uint8Array[]): Uint8Array => {
    const bytes = new Uint8Array(128);
    bytes.set(bytesOf(little(code, 4), ...fields));
    return bytes;
  };
  const allocate = (name: string, alignment: number, zone: 1 | 2): Uint8Array =>
    command(1, file(name), little(alignment, 4), little(zone, 1));
  const pointer = (name: string, fixup: Fixup): Uint8Array =>
    command(2, file(name), file(tables), little(fixup.at, 4), little(fixup.width, 1));
  const checksum = (name: string, sum: Checksum): Uint8Array =>
    command(3, file(name), little(sum.at, 4), little(sum.start, 4), little(sum.length, 4));
  return {
    [tables]: image.tables,
    [rsdp]: image.rsdp,
    'etc/table-loader': bytesOf(
      allocate(tables, 64, 1),
      allocate(rsdp, 16, 2),
      ...image.fixups.map((fixup) => pointer(tables, fixup)),
      ...image.checksums.map((sum) => checksum(tables, sum)),
      ...image.rsdpFixups.map((fixup) => pointer(rsdp, fixup)),
      ...image.rsdpChecksums.map((sum) => checksum(rsdp, sum)),
    ),
  };
};
