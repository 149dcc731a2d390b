// `nonroot img info`, `check` and `snapshot`, with qemu-img's text, JSON and exit codes: "QEMU disk image utility", sections
// "info", "check" and "snapshot"; QMP reference, ImageInfo and ImageCheck.

import { backingPath, type OpenDisk, openDisk } from '../disk/open.ts';
import type { CheckResult } from '../disk/qcow2/check.ts';
import type { Qcow2Image } from '../disk/qcow2/image.ts';
import type { Snapshot } from '../disk/qcow2/snapshot-table.ts';
import { UsageError } from './args.ts';
import { formatArgument, type ImgHost, withDisk, wordsOf } from './img-host.ts';
import { type ImgArguments, type ImgSyntax, showSize } from './img-options.ts';

export const infoSyntax: ImgSyntax = { short: 'f:U', long: { output: true, 'backing-chain': false, 'force-share': false } };
export const checkSyntax: ImgSyntax = { short: 'f:r:qUT:', long: { output: true, repair: true, 'force-share': false } };
export const snapshotSyntax: ImgSyntax = { short: 'la:c:d:qU', long: { 'force-share': false } };

/** Exit codes of check beside 0 and 1. */
const CORRUPT = 2;
const LEAKS = 3;
const UNSUPPORTED = 63;

export const isShared = (args: ImgArguments): boolean => args.get('U') !== undefined || args.get('force-share') !== undefined;

function isJson(args: ImgArguments): boolean {
  const output = args.get('output') ?? 'human';
  if (output !== 'json' && output !== 'human') throw new UsageError(`Cannot use --output=${output}: accepted are human and json`);
  return output === 'json';
}

export async function imgInfo(args: ImgArguments, host: ImgHost): Promise<number> {
  const [path] = wordsOf(args, ['FILENAME']);
  const json = isJson(args);
  const chain = args.get('backing-chain') !== undefined;
  const open = { format: formatArgument(args, 'f'), readOnly: true, backing: chain, share: isShared(args), forCheck: true };
  return withDisk(host, path!, open, async (top) => {
    const disks: OpenDisk[] = [];
    for (let disk: OpenDisk | undefined = top; disk; disk = disk.backing) disks.push(disk);
    const infos = await Promise.all(disks.map((disk) => describe(disk, host)));
    if (json) await host.out.write(`${JSON.stringify(chain ? infos : infos[0], null, 4)}\n`);
    else await host.out.write(infos.map((info, i) => text(info, disks[i]!)).join('\n'));
    return 0;
  });
}

type Info = Record<string, unknown> & { readonly 'actual-size'?: number };

async function describe({ device, qcow2, format, path, file }: OpenDisk, host: ImgHost): Promise<Info> {
  const info = qcow2?.info;
  const allocated = await file.allocated();
  return {
    ...(qcow2 && qcow2.snapshots.length > 0 ? { snapshots: qcow2.snapshots.map(snapshotJson) } : {}),
    ...(info?.backingFormat === undefined ? {} : { 'backing-filename-format': info.backingFormat }),
    'virtual-size': device.size,
    filename: path,
    ...(info ? { 'cluster-size': info.clusterSize } : {}),
    format,
    ...(allocated === undefined ? {} : { 'actual-size': allocated }),
    ...(info
      ? {
          'format-specific': {
            type: 'qcow2',
            data: {
              compat: info.compat,
              'compression-type': info.compression,
              ...(info.compat === '0.10' ? {} : { 'lazy-refcounts': info.lazyRefcounts }),
              'refcount-bits': info.refcountBits,
              ...(info.compat === '0.10' ? {} : { corrupt: info.corrupt, 'extended-l2': false }),
            },
          },
        }
      : {}),
    ...(info?.backing === undefined
      ? {}
      : { 'full-backing-filename': backingPathOr(host, path, info.backing), 'backing-filename': info.backing }),
    'dirty-flag': info?.dirty ?? false,
  };
}

/** A name that cannot be opened is still shown. */
function backingPathOr(host: ImgHost, path: string, name: string): string {
  try {
    return backingPath(host.disks, path, name);
  } catch {
    return name;
  }
}

function snapshotJson(s: Snapshot): Record<string, unknown> {
  return {
    ...(s.icount === undefined ? {} : { icount: Number(s.icount) }),
    'vm-clock-nsec': Number(s.guestTime % 1_000_000_000n),
    name: s.name,
    'date-sec': s.seconds,
    'date-nsec': s.nanoseconds,
    'vm-clock-sec': Number(s.guestTime / 1_000_000_000n),
    id: s.id,
    'vm-state-size': s.vmStateSize,
  };
}

function text(info: Info, { device, qcow2, format, path }: OpenDisk): string {
  const lines = [
    `image: ${path}`,
    `file format: ${format}`,
    `virtual size: ${showSize(device.size)} (${device.size} bytes)`,
    `disk size: ${info['actual-size'] === undefined ? 'unavailable' : showSize(info['actual-size'])}`,
  ];
  if (!qcow2) return `${lines.join('\n')}\n`;
  const { clusterSize, backing, backingFormat, compat, compression, lazyRefcounts, refcountBits, corrupt, dirty } = qcow2.info;
  if (dirty) lines.push('cleanly shut down: no');
  lines.push(`cluster_size: ${clusterSize}`);
  if (backing !== undefined) {
    const full = info['full-backing-filename'];
    lines.push(`backing file: ${backing}${full === backing ? '' : ` (actual path: ${String(full)})`}`);
    if (backingFormat !== undefined) lines.push(`backing file format: ${backingFormat}`);
  }
  if (qcow2.snapshots.length > 0) lines.push(snapshotList(qcow2).trimEnd());
  lines.push('Format specific information:', `    compat: ${compat}`, `    compression type: ${compression}`);
  if (compat !== '0.10') lines.push(`    lazy refcounts: ${lazyRefcounts}`);
  lines.push(`    refcount bits: ${refcountBits}`);
  if (compat !== '0.10') lines.push(`    corrupt: ${corrupt}`, '    extended l2: false');
  return `${lines.join('\n')}\n`;
}

function snapshotList(image: Qcow2Image): string {
  const row = (id: string, tag: string, size: string, date: string, clock: string, icount: string): string =>
    `${id.padEnd(10)}${tag.padEnd(17)}${size.padStart(8)}${date.padStart(20)}${clock.padStart(13)}${icount.padStart(11)}\n`;
  const two = (n: number): string => String(n).padStart(2, '0');
  const rows = image.snapshots.map((s) => {
    const d = new Date(s.seconds * 1000);
    const date = `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
    const ms = Number(s.guestTime / 1_000_000n);
    const clock = `${two(Math.floor(ms / 3_600_000))}:${two(Math.floor(ms / 60_000) % 60)}:${two(Math.floor(ms / 1000) % 60)}.${String(ms % 1000).padStart(3, '0')}`;
    return row(s.id, s.name, showSize(s.vmStateSize), date, clock, s.icount === undefined ? '' : String(s.icount));
  });
  return `Snapshot list:\n${row('ID', 'TAG', 'VM SIZE', 'DATE', 'VM CLOCK', 'ICOUNT')}${rows.join('')}`;
}

export async function imgCheck(args: ImgArguments, host: ImgHost): Promise<number> {
  const [path] = wordsOf(args, ['FILENAME']);
  const json = isJson(args);
  const quiet = args.get('q') !== undefined;
  const repair = args.get('r') ?? args.get('repair');
  if (repair !== undefined && repair !== 'leaks' && repair !== 'all')
    throw new UsageError(`Cannot repair "${repair}": accepted are leaks and all`);
  const format = formatArgument(args, 'f');
  const disk = await openDisk(host.disks, path!, {
    format,
    readOnly: repair === undefined,
    backing: false,
    forCheck: true,
    share: isShared(args),
  });
  if (!disk.qcow2) {
    await disk.device.close();
    await host.err.write('nonroot img: This image format does not support checks\n');
    return UNSUPPORTED;
  }
  const image = disk.qcow2;
  const result = await image.check(repair).finally(() => image.close());
  if (json) await host.out.write(`${JSON.stringify(checkJson(path!, result), null, 4)}\n`);
  else {
    for (const line of result.lines) await host.err.write(`${line}\n`);
    if (!quiet) await host.out.write(checkText(result));
  }
  return result.corruptions > 0 ? CORRUPT : result.leaks > 0 ? LEAKS : 0;
}

function checkJson(path: string, r: CheckResult): Record<string, unknown> {
  const some = (name: string, value: number): Record<string, number> => (value === 0 ? {} : { [name]: value });
  return {
    'image-end-offset': r.imageEnd,
    'total-clusters': r.totalClusters,
    'check-errors': 0,
    ...some('corruptions', r.corruptions),
    ...some('leaks', r.leaks),
    ...some('corruptions-fixed', r.corruptionsFixed),
    ...some('leaks-fixed', r.leaksFixed),
    ...some('allocated-clusters', r.allocatedClusters),
    ...some('fragmented-clusters', r.fragmentedClusters),
    ...some('compressed-clusters', r.compressedClusters),
    filename: path,
    format: 'qcow2',
  };
}

function checkText(r: CheckResult): string {
  let out = '';
  if (r.corruptionsFixed > 0 || r.leaksFixed > 0)
    out += `The following inconsistencies were found and repaired:\n\n    ${r.leaksFixed} leaked clusters\n    ${r.corruptionsFixed} corruptions\n\nDouble checking the fixed image now...\n`;
  if (r.corruptions === 0 && r.leaks === 0) out += 'No errors were found on the image.\n';
  if (r.corruptions > 0)
    out += `\n${r.corruptions} errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n`;
  if (r.leaks > 0)
    out += `\n${r.leaks} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n`;
  const percent = (part: number, whole: number): string => ((part * 100) / whole).toFixed(2);
  if (r.totalClusters > 0 && r.allocatedClusters > 0)
    out += `${r.allocatedClusters}/${r.totalClusters} = ${percent(r.allocatedClusters, r.totalClusters)}% allocated, ${percent(r.fragmentedClusters, r.allocatedClusters)}% fragmented, ${percent(r.compressedClusters, r.allocatedClusters)}% compressed clusters\n`;
  return `${out}Image end offset: ${r.imageEnd}\n`;
}

export async function imgSnapshot(args: ImgArguments, host: ImgHost): Promise<number> {
  const [path] = wordsOf(args, ['FILENAME']);
  const actions = ['l', 'a', 'c', 'd'].filter((letter) => args.get(letter) !== undefined);
  if (actions.length > 1)
    throw new UsageError(`Cannot use -${actions[0]} and -${actions[1]} at once: accepted is one of -l, -a, -c, -d`);
  const action = actions[0] ?? 'l';
  const list = action === 'l';
  return withDisk(host, path!, { readOnly: list, backing: !list, share: isShared(args) }, async ({ qcow2 }) => {
    const name = args.get(action)!;
    if (!qcow2) throw new UsageError(`Cannot use snapshots of ${path}: raw images have none`);
    const now = Date.now();
    if (list) await host.out.write(qcow2.snapshots.length > 0 ? snapshotList(qcow2) : '');
    else if (action === 'c')
      await qcow2.createSnapshot({ name, seconds: Math.floor(now / 1000), nanoseconds: (now % 1000) * 1_000_000 });
    else if (action === 'a') await qcow2.applySnapshot(name);
    else await qcow2.deleteSnapshot(name);
    return 0;
  });
}
