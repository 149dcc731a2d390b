// `nonroot img create` and the making of images for `convert`: "QEMU disk image utility", sections "create" and "Notes".

import { type ByteFile, DiskError } from '../disk/block.ts';
import { backingPath, type Format, formatOf, openDisk } from '../disk/open.ts';
import { createQcow2 } from '../disk/qcow2/create.ts';
import { UsageError } from './args.ts';
import { closing, type ImgHost, wordsOf } from './img-host.ts';
import { type ImgArguments, type ImgSyntax, parseList, parseSize } from './img-options.ts';

export const createSyntax: ImgSyntax = { short: 'f:b:F:uo:q' };

/** Options of -o by format; a text says why an option of QEMU's is refused. */
const OPTIONS: Readonly<Record<Format, Readonly<Record<string, true | string>>>> = {
  raw: { size: true, preallocation: true, nocow: 'not supported', extent_size_hint: 'not supported' },
  qcow2: {
    size: true,
    preallocation: true,
    backing_file: true,
    backing_fmt: true,
    cluster_size: true,
    compat: true,
    compression_type: true,
    lazy_refcounts: true,
    refcount_bits: true,
    extended_l2: true,
    nocow: 'not supported',
    data_file: 'external data files are not supported',
    data_file_raw: 'external data files are not supported',
    encryption: 'encryption is not supported',
  },
};
const PREALLOCATIONS: Readonly<Record<Format, readonly string[]>> = {
  raw: ['off', 'full'],
  qcow2: ['off', 'metadata', 'full'],
};

/** What is to be made. */
export interface Plan {
  readonly format: Format;
  readonly path: string;
  readonly size: number;
  readonly options: ReadonlyMap<string, string>;
}

/** Disks are whole sectors. */
export const roundSize = (size: number): number => Math.ceil(size / 512) * 512;

export async function imgCreate(args: ImgArguments, host: ImgHost): Promise<number> {
  const [path, sizeText] = args.words.length === 1 ? args.words : wordsOf(args, ['FILENAME', 'SIZE']);
  const format = formatOf(args.get('f') ?? 'raw');
  const options = parseList(args.all('o'));
  if (args.get('b') !== undefined) options.set('backing_file', args.get('b')!);
  if (args.get('F') !== undefined) options.set('backing_fmt', args.get('F')!);
  checkOptions(format, options);
  const backing = options.get('backing_file');
  if (backing !== undefined && !options.has('backing_fmt'))
    throw new UsageError('Cannot create image: a backing file needs its format, accepted are -F raw and -F qcow2');
  const text = sizeText ?? options.get('size');
  let size = text === undefined ? undefined : parseSize(text);
  if (backing !== undefined && args.get('u') === undefined) {
    const name = backingPath(host.disks, path!, backing);
    const below = await openDisk(host.disks, name, { format: formatOf(options.get('backing_fmt')!), readOnly: true });
    size ??= below.device.size;
    await below.device.close();
  }
  if (size === undefined) throw new UsageError('Cannot create image: its SIZE is missing');
  const plan = { format, path: path!, size, options };
  if (args.get('q') === undefined) await host.out.write(`${describePlan(plan)}\n`);
  await makeImage(plan, host);
  return 0;
}

/** @throws UsageError for options that the format has not */
export function checkOptions(format: Format, options: ReadonlyMap<string, string>): void {
  const known = OPTIONS[format];
  for (const name of options.keys()) {
    const state = Object.hasOwn(known, name)
      ? known[name]
      : name.startsWith('encrypt.')
        ? 'encryption is not supported'
        : undefined;
    const accepted = Object.keys(known).filter((n) => known[n] === true);
    if (state !== true)
      throw new UsageError(`Cannot use option ${name} for ${format}: ${state ?? `accepted are ${accepted.join(', ')}`}`);
  }
  if (isOn(options, 'extended_l2')) throw new UsageError('Cannot use option extended_l2: extended L2 entries are not supported');
  const preallocation = options.get('preallocation') ?? 'off';
  if (!PREALLOCATIONS[format].includes(preallocation))
    throw new UsageError(`Cannot use preallocation=${preallocation}: accepted are ${PREALLOCATIONS[format].join(', ')}`);
  if (preallocation !== 'off' && options.has('backing_file'))
    throw new UsageError('Cannot use preallocation with a backing file: accepted is one of them');
}

function isOn(options: ReadonlyMap<string, string>, name: string): boolean {
  const value = options.get(name) ?? 'off';
  if (value !== 'on' && value !== 'off') throw new UsageError(`Cannot use ${name}=${value}: accepted are on and off`);
  return value === 'on';
}

function versionOf(options: ReadonlyMap<string, string>): 2 | 3 {
  const compat = options.get('compat') ?? '1.1';
  if (compat === '0.10' || compat === 'v2') return 2;
  if (compat === '1.1' || compat === 'v3') return 3;
  throw new UsageError(`Cannot use compat=${compat}: accepted are 0.10 (v2) and 1.1 (v3)`);
}

function compressionOf(options: ReadonlyMap<string, string>): 'zlib' | 'zstd' {
  const type = options.get('compression_type') ?? 'zlib';
  if (type === 'zlib' || type === 'zstd') return type;
  throw new UsageError(`Cannot use compression_type=${type}: accepted are zlib and zstd`);
}

function describePlan({ format, path, size, options }: Plan): string {
  const parts = [`Formatting '${path}', fmt=${format}`];
  if (format === 'qcow2') {
    parts.push(`cluster_size=${parseSize(options.get('cluster_size') ?? '64k')}`, 'extended_l2=off');
    if (options.has('preallocation')) parts.push(`preallocation=${options.get('preallocation')}`);
    parts.push(`compression_type=${compressionOf(options)}`);
  }
  parts.push(`size=${size}`);
  if (format === 'qcow2') {
    if (options.has('compat')) parts.push(`compat=${options.get('compat')}`);
    if (options.has('backing_file'))
      parts.push(`backing_file=${options.get('backing_file')}`, `backing_fmt=${options.get('backing_fmt')}`);
    parts.push(
      `lazy_refcounts=${isOn(options, 'lazy_refcounts') ? 'on' : 'off'}`,
      `refcount_bits=${options.get('refcount_bits') ?? '16'}`,
    );
  } else if (options.has('preallocation')) parts.push(`preallocation=${options.get('preallocation')}`);
  return parts.join(' ');
}

/** Makes the image; what was in the file is lost. `checkOptions` has been called. */
export async function makeImage(plan: Plan, host: ImgHost): Promise<void> {
  const file = await host.disks.open(plan.path, { readOnly: false, create: true });
  try {
    await (plan.format === 'raw' ? makeRaw(file, plan) : makeQcow2(file, plan));
  } finally {
    await file.close();
  }
  const preallocation = plan.options.get('preallocation') ?? 'off';
  if (plan.format === 'raw' || preallocation === 'off') return;
  const disk = await openDisk(host.disks, plan.path, { format: 'qcow2' });
  await closing(disk.device, () =>
    preallocation === 'full'
      ? fillZeros(disk.device.size, (at, zeros) => disk.device.write(at, zeros))
      : disk.qcow2!.preallocate(),
  );
}

async function makeRaw(file: ByteFile, { size: asked, options }: Plan): Promise<void> {
  const size = roundSize(asked);
  await file.truncate(0);
  await file.truncate(size);
  if (options.get('preallocation') === 'full') await fillZeros(size, (at, zeros) => file.write(at, zeros));
  await file.flush();
}

async function makeQcow2(file: ByteFile, { size, options }: Plan): Promise<void> {
  const backing = options.get('backing_file');
  const bits = options.get('refcount_bits') ?? '16';
  if (!/^\d+$/.test(bits))
    throw new DiskError(`Cannot create image: refcount_bits is ${bits}, accepted are powers of two from 1 to 64`);
  await createQcow2(file, {
    size: roundSize(size),
    clusterSize: parseSize(options.get('cluster_size') ?? '64k'),
    version: versionOf(options),
    refcountBits: Number(bits),
    lazyRefcounts: isOn(options, 'lazy_refcounts'),
    compression: compressionOf(options),
    ...(backing ? { backing, backingFormat: formatOf(options.get('backing_fmt')!) } : {}),
  });
}

async function fillZeros(size: number, write: (at: number, zeros: Uint8Array) => Promise<void>): Promise<void> {
  const zeros = new Uint8Array(Math.min(size, 1 << 20));
  for (let at = 0; at < size; at += zeros.length) await write(at, zeros.subarray(0, Math.min(zeros.length, size - at)));
}
