// What a board tells its firmware through fw_cfg. QEMU "QEMU Firmware Configuration (fw_cfg) Device"; files and keys as SeaBIOS
// (src/fw/paravirt.c) and OVMF (OvmfPkg/Library/PlatformInitLib) read them.

import { acpiPm } from '../devices/acpi-pm.ts';
import { type FwCfgData, type FwCfgFile, type FwCfgItems, fwCfgKey, le } from '../devices/fw-cfg.ts';
import { acpiLoaderFiles } from '../firmware/acpi/build.ts';
import { E820_RAM, E820_RESERVED, encodeE820, type MemoryRange } from '../firmware/e820.ts';
import type { MachineConfig } from './config.ts';
import { linuxBootRom } from './kernel-items.ts';
import { acpiImage, type BoardFacts, hasSleep, reservedMemoryEnd, smbiosImage } from './tables.ts';

/** Bytes that come from the host: files by their fw_cfg names, and numbered items of a kernel. In shared memory where they are large. */
export interface FwCfgBlobs {
  readonly files?: ReadonlyMap<string, Uint8Array>;
  readonly numbered?: ReadonlyMap<number, Uint8Array>;
}

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);
const pad = (bytes: Uint8Array, to: number): Uint8Array => {
  const out = new Uint8Array(Math.ceil(bytes.length / to) * to);
  out.set(bytes);
  return out;
};

/** RAM as firmware finds it: what it takes for itself it reserves itself. */
function e820({ ramLow, ramHigh }: BoardFacts): readonly MemoryRange[] {
  return [
    // The pages that KVM keeps for itself on real hardware, as QEMU reserves them.
    { start: 0xfeff_c000, size: 0x4000, type: E820_RESERVED },
    { start: 0, size: ramLow, type: E820_RAM },
    ...(ramHigh > 0 ? [{ start: 2 ** 32, size: ramHigh, type: E820_RAM }] : []),
  ];
}

/** S3, S4 and S5 of `etc/system-states`: bit 7 says that it is there, the rest is its SLP_TYP. */
const systemStates = (config: MachineConfig): Uint8Array =>
  Uint8Array.of(128, 0, 0, (hasSleep(config) ? 128 : 0) | acpiPm.s3, 2, 128 | acpiPm.s5);

/** The 64-bit entry point of SMBIOS tables, for firmware that puts them into place itself. */
function smbiosFiles(config: MachineConfig, facts: BoardFacts): readonly (readonly [string, FwCfgData])[] {
  const image = smbiosImage(config, facts);
  return [
    ['etc/smbios/smbios-anchor', image.entryPoint(0)],
    ['etc/smbios/smbios-tables', image.tables],
  ];
}

/** `facts` are asked anew when the guest reads the tables. */
export function fwCfgItems(
  config: MachineConfig,
  facts: () => BoardFacts,
  bootOrder: readonly string[],
  blobs: FwCfgBlobs,
): FwCfgItems {
  const here = facts();
  const acpi = (name: string, to: number) => () => pad(acpiLoaderFiles(acpiImage(config, facts()))[name]!, to);
  const menu = config.bootMenu;
  const numbered = new Map<number, FwCfgData>([
    [fwCfgKey.uuid, uuidBytes(config.uuid)],
    [fwCfgKey.ramSize, le(here.ramLow + here.ramHigh, 8)],
    [fwCfgKey.noGraphic, le(config.noGraphic ? 1 : 0, 2)],
    [fwCfgKey.cpus, () => le(facts().cpus?.length ?? config.cpus, 2)],
    [fwCfgKey.maxCpus, le(config.cpus, 2)],
    [fwCfgKey.numa, numaItem(config)],
    [fwCfgKey.bootMenu, le(menu?.on ? 1 : 0, 2)],
    [fwCfgKey.bootDevice, ascii(`${(config.bootOrder ?? 'cad')[0]}\0`)],
    [fwCfgKey.irq0Override, le(1, 4)],
    ...(blobs.numbered ?? []),
  ]);
  const files = new Map<string, FwCfgFile>();
  const add = (name: string, data: FwCfgData): void => {
    files.set(name, { data });
  };
  add('etc/e820', encodeE820(e820(here)));
  const reserved = reservedMemoryEnd(here);
  if (reserved !== undefined) add('etc/reserved-memory-end', le(reserved, 8));
  add('etc/system-states', systemStates(config));
  add('etc/acpi/tables', acpi('etc/acpi/tables', 0x1000));
  add('etc/acpi/rsdp', acpi('etc/acpi/rsdp', 1));
  add('etc/table-loader', acpi('etc/table-loader', 0x1000));
  for (const [name, data] of smbiosFiles(config, here)) add(name, data);
  // A kernel that was given comes before all disks.
  const order = blobs.files?.has(linuxBootRom.file) ? [linuxBootRom.path, ...bootOrder] : bootOrder;
  const ended = config.bootStrict && order.length > 0 ? [...order, 'HALT'] : order;
  add('bootorder', ended.length === 0 ? new Uint8Array(0) : ascii(`${ended.join('\n')}\0`));
  add('etc/boot-fail-wait', le(config.rebootTimeout ?? -1, 4));
  if (menu?.timeout !== undefined) add('etc/boot-menu-wait', le(menu.timeout, 2));
  for (const [name, data] of blobs.files ?? []) add(name, data);
  return { numbered, files };
}

/** Quad words: number of nodes, node of each possible vCPU, bytes of each node. */
function numaItem({ cpus, numa }: MachineConfig): Uint8Array {
  const words = [numa?.nodes.length ?? 0, ...(numa?.cpus ?? new Array<number>(cpus).fill(0)), ...(numa?.nodes ?? [])];
  return new Uint8Array(BigUint64Array.from(words, BigInt).buffer);
}

/** Big-endian, as text has it. */
export function uuidBytes(uuid: string | undefined): Uint8Array {
  const digits = (uuid ?? '').replaceAll('-', '').padEnd(32, '0');
  return Uint8Array.from({ length: 16 }, (_, i) => Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16));
}

/** CMOS bytes that firmware reads, by address; `order` is letters of drives. */
export function cmosBytes(cpus: number, order: string): readonly (readonly [address: number, value: number])[] {
  const code = (at: number): number => ({ a: 1, c: 2, d: 3, n: 4 })[order[at] ?? ''] ?? 0;
  return [
    // Equipment: coprocessor and PS/2 mouse.
    [0x14, 0x06],
    [0x38, code(2) << 4],
    [0x3d, (code(1) << 4) | code(0)],
    [0x5f, cpus - 1],
  ];
}
