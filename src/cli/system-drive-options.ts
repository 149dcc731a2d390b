// Options of `nonroot-system-x86_64` about disks: nodes of the block graph, and `-drive` with its short forms, which are nodes, a place
// and a device in one (QEMU 7.2, "System Emulation", section "Invocation", "Block device options").

import { blockdevDrivers, blockdevOptions, fileOptions } from '../monitor/block/options.ts';
import { type Limits, limitNames, limitsFault, noLimits } from '../monitor/block/throttle.ts';
import type { Emulator } from '../monitor/emulator.ts';
import { optionMap, parseSize, structured } from '../monitor/keyval.ts';
import type { Json } from '../rpc/qmp/json.ts';
import { addDevice } from './system-device-options.ts';
import { does, isHelp, parameters, type SystemOption } from './system-option.ts';
import { integer, oneOf, onOff, Refused, type Settings } from './system-settings.ts';

type JsonObject = { readonly [name: string]: Json };

/** A `-drive`, read. */
export interface DriveSetting {
  readonly id: string;
  /** The node of its protocol, described. */
  readonly file: JsonObject | undefined;
  readonly format: string | undefined;
  readonly media: 'disk' | 'cdrom';
  readonly readOnly: boolean;
  readonly snapshot: boolean;
  readonly discard: boolean;
  readonly detectZeroes: 'off' | 'on' | 'unmap';
  readonly cache: { readonly writeThrough: boolean; readonly direct: boolean; readonly noFlush: boolean };
  readonly serial: string | undefined;
  readonly onReadError: 'report' | 'stop' | 'ignore' | undefined;
  readonly onWriteError: 'report' | 'stop' | 'ignore' | 'enospc' | undefined;
  readonly limits: Limits;
}

function blockdev(s: Settings, text: string): string | undefined {
  if (isHelp(text)) return `Supported block drivers: ${blockdevDrivers.join(' ')}\n`;
  const raw = structured('-blockdev', text, 'driver');
  const driver = String(raw['driver']);
  if (!blockdevDrivers.includes(driver))
    throw new Refused(`-blockdev ${driver}: not supported; accepted: ${blockdevDrivers.join(', ')}`);
  const node = text.startsWith('{') ? raw : (blockdevOptions.coerce(raw) as JsonObject);
  try {
    blockdevOptions.check(node, '');
  } catch (error) {
    throw new Refused(`-blockdev ${text}: ${(error as Error).message}`);
  }
  if (node['node-name'] === undefined) throw new Refused(`-blockdev ${text}: node-name= is missing`);
  s.blockdevs.push(node);
}

/** Cache modes by name: writeback, direct, no-flush. */
const caches: Readonly<Record<string, readonly [boolean, boolean, boolean]>> = {
  writeback: [true, false, false],
  none: [true, true, false],
  writethrough: [false, false, false],
  directsync: [false, true, false],
  unsafe: [true, false, true],
};

/** Reads one `-drive` and adds its device. */
function drive(s: Settings, map: Map<string, string>, text: string): void {
  const take = (name: string): string | undefined => {
    const value = map.get(name);
    map.delete(name);
    return value;
  };
  const flag = (name: string, otherwise: boolean): boolean => {
    const value = take(name);
    return value === undefined ? otherwise : onOff(`-drive ${name}=`, value);
  };
  const kind = oneOf('-drive if=', take('if') ?? 'ide', ['ide', 'virtio', 'none', 'scsi', 'floppy', 'pflash']);
  if (kind === 'pflash') {
    flash(s, map, text);
    return;
  }
  if (kind === 'scsi') throw new Refused('-drive if=scsi: not supported; accepted: ide, virtio, floppy, none');
  const media = oneOf('-drive media=', take('media') ?? 'disk', ['disk', 'cdrom']) as 'disk' | 'cdrom';
  const cache = take('cache') ?? 'writeback';
  const mode = caches[cache];
  if (!mode) throw new Refused(`-drive cache=${cache}: not supported; accepted: ${Object.keys(caches).join(', ')}`);
  const [writeback, direct, noFlush] = mode;
  const q35 = s.machine.board === 'q35';
  /** Drives on a bus: q35 has a port for each. */
  const units = kind === 'ide' && q35 ? 1 : 2;
  const index = take('index');
  const [bus, unit] = [take('bus'), take('unit')];
  const number =
    index !== undefined
      ? integer('-drive index=', index, 0, 255)
      : bus !== undefined
        ? units * Number(bus) + Number(unit ?? 0)
        : undefined;
  const at = number ?? freeIndex(s, kind, media);
  const id =
    take('id') ??
    `${kind === 'ide' ? `ide${Math.floor(at / units)}-${media === 'cdrom' ? 'cd' : 'hd'}${at % units}` : kind === 'none' ? `none${at}` : `${kind}${at}`}`;
  if (s.drives.some((d) => d.id === id)) throw new Refused(`-drive id=${id}: there is one of that id already`);
  oneOf('-drive aio=', take('aio') ?? 'threads', ['threads', 'native', 'io_uring']);
  if (flag('copy-on-read', false)) throw new Refused('-drive copy-on-read=on: not supported');
  const format = take('format') ?? take('driver');
  if (format !== undefined) oneOf('-drive format=', format, ['raw', 'qcow2']);
  const limits: Record<string, number | string> = { ...noLimits };
  for (const [ours, theirs] of limitNames.map(
    (n) =>
      [
        n,
        n
          .replace('_rd', '-read')
          .replace('_wr', '-write')
          .replace(/^(bps|iops)$/, '$1-total'),
      ] as const,
  )) {
    const value = take(`throttling.${theirs}`);
    if (value !== undefined) limits[ours] = parseSize(value) ?? 0;
    const burst = take(`throttling.${theirs}-max`);
    if (burst !== undefined) limits[`${ours}_max`] = parseSize(burst) ?? 0;
    const length = take(`throttling.${theirs}-max-length`);
    if (length !== undefined) limits[`${ours}_max_length`] = parseSize(length) ?? 0;
  }
  limits['iops_size'] = parseSize(take('throttling.iops-size') ?? '0') ?? 0;
  limits['group'] = take('throttling.group') ?? '';
  const fault = limitsFault(limits as unknown as Limits);
  if (fault !== undefined) throw new Refused(`-drive ${text}: ${fault}`);
  const setting: DriveSetting = {
    id,
    file: source(map, text),
    format,
    media,
    readOnly: flag('readonly', flag('read-only', media === 'cdrom')),
    snapshot: flag('snapshot', false),
    discard: ['unmap', 'on'].includes(take('discard') ?? 'ignore'),
    detectZeroes: oneOf('-drive detect-zeroes=', take('detect-zeroes') ?? 'off', ['off', 'on', 'unmap']) as 'off',
    cache: { writeThrough: !writeback, direct, noFlush },
    serial: take('serial'),
    onReadError: take('rerror') as 'report' | undefined,
    onWriteError: take('werror') as 'report' | undefined,
    limits: limits as unknown as Limits,
  };
  for (const name of map.keys()) throw new Refused(`-drive ${name}: not supported`);
  if (setting.file === undefined && media === 'disk' && kind !== 'floppy' && id !== CARD)
    throw new Refused(`-drive ${text}: file= is missing`);
  s.drives.push(setting);
  if (kind === 'virtio') addDevice(s, { driver: 'virtio-blk-pci', drive: id }, text);
  else if (kind === 'ide') {
    if (!hasIde(s))
      throw new Refused(`-drive ${text}: machine type does not support if=ide,bus=${Math.floor(at / units)},unit=${at % units}`);
    const driver = media === 'cdrom' ? 'ide-cd' : 'ide-hd';
    addDevice(s, { driver, bus: `ide.${Math.floor(at / units)}`, unit: at % units, drive: id }, text);
  } else if (kind === 'floppy') {
    if (at > 1) throw new Refused(`-drive ${text}: accepted are floppy drives 0 and 1`);
    if (q35 && !s.devices.some((d) => d.driver === 'isa-fdc')) addDevice(s, { driver: 'isa-fdc' }, text);
    addDevice(s, { driver: 'floppy', unit: at, drive: id }, text);
  }
  s.driveIndexes.add(`${kind}${at}`);
}
/** What a `-drive` is over: a file or a URL by its name, or `file.driver=` with that driver's options. */
function source(map: Map<string, string>, text: string): JsonObject | undefined {
  const name = map.get('file');
  map.delete('file');
  const parts = [...map].filter(([key]) => key.startsWith('file.'));
  if (parts.length === 0) return name === undefined ? undefined : fileOptions(name);
  if (name !== undefined) throw new Refused(`-drive ${text}: accepted is file= or file.driver=, not both`);
  for (const [key] of parts) map.delete(key);
  const words = parts.map(([key, value]) => `${key.slice(5)}=${value.replaceAll(',', ',,')}`).join(',');
  const given = structured('-drive', words, '');
  if (given['driver'] === undefined && typeof given['filename'] === 'string') return fileOptions(given['filename']);
  const node = blockdevOptions.coerce(given) as JsonObject;
  try {
    blockdevOptions.check(node, 'file');
  } catch (error) {
    throw new Refused(`-drive ${text}: ${(error as Error).message}`);
  }
  return node;
}
/** `-drive if=pflash`: a chip of flash, firmware first. */
function flash(s: Settings, map: Map<string, string>, text: string): void {
  const file = map.get('file');
  if (file === undefined) throw new Refused(`-drive ${text}: file= is missing`);
  for (const [name, value] of map) {
    if (name === 'format') oneOf('-drive if=pflash,format=', value, ['raw']);
    else if (!['file', 'unit', 'index', 'id', 'readonly', 'read-only'].includes(name))
      throw new Refused(`-drive if=pflash,${name}: not supported`);
  }
  const readOnly = map.get('readonly') ?? map.get('read-only');
  s.flash.push(file);
  if (readOnly !== undefined && onOff('-drive readonly=', readOnly)) s.readOnlyFlash.add(file);
}
function freeIndex(s: Settings, kind: string, media: 'disk' | 'cdrom'): number {
  let n = kind === 'ide' && media === 'cdrom' && !s.driveIndexes.has('ide2') ? 2 : 0;
  while (s.driveIndexes.has(`${kind}${n}`)) n++;
  return n;
}

/** An SD card that no board has a slot for: QEMU names it all the same. */
const CARD = 'sd0';
/** Devices of `-device` or `-global` that take the place of the usual CD-ROM drive. */
const drivesOfUsers = ['ide-cd', 'ide-hd', 'scsi-cd', 'scsi-hd'];

const hasIde = (s: Settings): boolean => s.machine.board !== 'q35' || s.machineProperties.get('sata') !== 'off';

/** Makes the devices of `-drive`s, once the machine is known, and the drives that QEMU's boards have without. */
export function addDrives(s: Settings): void {
  const named = new Set([...s.devices, ...s.globals].map((d) => d.driver));
  for (const text of s.driveTexts) drive(s, optionMap(text, 'file'), text);
  if (s.nodefaults || s.machine.board === 'none') return;
  const empty = (text: string): void => drive(s, optionMap(text, 'file'), text);
  const pc = s.machine.board === 'pc';
  if (pc || s.machine.board === 'q35') {
    const taken = s.driveIndexes.has('ide2') || drivesOfUsers.some((driver) => named.has(driver));
    // Without a controller there is the drive alone.
    if (!taken) empty(hasIde(s) ? 'if=ide,media=cdrom,index=2' : 'if=none,id=ide2-cd0,media=cdrom');
    if (pc && !s.driveIndexes.has('floppy0') && !named.has('floppy') && !named.has('isa-fdc')) empty('if=floppy,index=0');
  }
  empty(`if=none,id=${CARD}`);
}

/** Opens the nodes and places of a command line. */
export async function openDrives(s: Settings, e: Emulator): Promise<void> {
  for (const node of s.blockdevs) await e.blocks.add(node);
  for (const d of s.drives) {
    const temporary = d.snapshot || s.snapshot;
    if (d.file && temporary) await e.blocks.addTemporary(d.file, d.format, d.id);
    const node =
      d.file === undefined
        ? undefined
        : temporary
          ? e.blocks.get(`#snapshot-${d.id}`)
          : await e.blocks.addFile(
              { ...d.file, ...(d.cache.noFlush ? { cache: { 'no-flush': true } } : {}) },
              d.format,
              d.readOnly,
              d.discard ? { discard: 'unmap' } : {},
            );
    const backend = e.blocks.newBackend(d.id, node, {
      id: d.id,
      readOnly: d.readOnly || (node?.readOnly ?? false),
      cdrom: d.media === 'cdrom',
      writeThrough: d.cache.writeThrough,
      discard: d.discard,
      detectZeroes: d.detectZeroes,
      serial: d.serial,
      onReadError: d.onReadError,
      onWriteError: d.onWriteError,
    });
    e.blocks.setLimits(backend, d.limits);
  }
}

const short = (name: string, value: string, help: string, text: (v: string) => string): SystemOption => ({
  names: [name],
  value,
  help,
  apply: does((s, v) => void s.driveTexts.push(text(v.replaceAll(',', ',,')))),
});

export const driveOptions: readonly SystemOption[] = [
  {
    names: ['-blockdev'],
    value: 'DRIVER,node-name=NAME[,PROPERTY=VALUE]|JSON',
    help: `a node of the block graph: ${blockdevDrivers.join(', ')}`,
    group: 'blockdev',
    parameters: [],
    apply: blockdev,
  },
  {
    names: ['-drive'],
    value: '[file=F][,if=ide|virtio|floppy|none][,format=raw|qcow2][,media=disk|cdrom][,…]',
    help: 'a disk: its nodes, and its device unless if=none',
    group: 'drive',
    parameters: parameters({
      string: 'file if id format driver media cache discard detect-zeroes serial werror rerror aio',
      boolean: 'readonly snapshot copy-on-read',
      number: 'index bus unit',
    }),
    apply: does((s, v) => void s.driveTexts.push(v)),
  },
  ...['a', 'b', 'c', 'd'].map((letter, n) =>
    short(`-hd${letter}`, 'FILE', `IDE disk ${n}`, (v) => `file=${v},index=${n},media=disk`),
  ),
  ...['a', 'b'].map((letter, n) => short(`-fd${letter}`, 'FILE', `floppy disk ${n}`, (v) => `file=${v},if=floppy,index=${n}`)),
  short('-cdrom', 'FILE', 'IDE CD-ROM', (v) => `file=${v},index=2,media=cdrom`),
  {
    names: ['-snapshot'],
    help: "write to temporary files in place of the disks'",
    apply: does((s) => {
      s.snapshot = true;
    }),
  },
];
