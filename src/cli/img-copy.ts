// `nonroot img convert`, `compare`, `resize`, `commit` and `rebase`: "QEMU disk image utility", the sections of these names.

import { DiskError } from '../disk/block.ts';
import { commitTo, copyCompressed, copyDifferences, copyDisk, firstDifference, keepContents } from '../disk/copy.ts';
import { backingPath, formatOf, type OpenDisk, openDisk } from '../disk/open.ts';
import { RawImage } from '../disk/raw.ts';
import { UsageError } from './args.ts';
import { checkOptions, makeImage, roundSize } from './img-create.ts';
import { formatArgument, type ImgHost, progressLine, syncArgument, withDisk, wordsOf } from './img-host.ts';
import { isShared } from './img-info.ts';
import { type ImgArguments, type ImgSyntax, parseList, parseSize } from './img-options.ts';

export const convertSyntax: ImgSyntax = {
  short: 'f:O:o:B:F:cpqnS:l:t:T:m:WU',
  long: { 'target-is-zero': false, 'force-share': false },
};
export const compareSyntax: ImgSyntax = { short: 'f:F:T:pqU', long: { 'force-share': false } };
export const resizeSyntax: ImgSyntax = { short: 'f:q', long: { shrink: false, preallocation: true } };
export const commitSyntax: ImgSyntax = { short: 'f:t:b:dpq' };
export const rebaseSyntax: ImgSyntax = { short: 'f:t:T:b:F:upqU', long: { 'force-share': false } };

export async function imgConvert(args: ImgArguments, host: ImgHost): Promise<number> {
  const [from, to] = wordsOf(args, ['FILENAME', 'OUTPUT_FILENAME']) as readonly [string, string];
  const format = formatOf(args.get('O') ?? 'raw');
  const fresh = args.get('n') === undefined;
  const compress = args.get('c') !== undefined;
  if (compress && format !== 'qcow2') throw new UsageError(`Cannot compress ${format}: accepted is -O qcow2`);
  const options = parseList(args.all('o'));
  if (args.get('B') !== undefined) options.set('backing_file', args.get('B')!);
  if (args.get('F') !== undefined) options.set('backing_fmt', args.get('F')!);
  checkOptions(format, options);
  const hasBacking = options.has('backing_file');
  if (hasBacking && !options.has('backing_fmt'))
    throw new UsageError('Cannot convert: a backing file needs its format, accepted are -F raw and -F qcow2');
  if (hasBacking && compress) throw new UsageError('Cannot use -c with -B: accepted is one of them');
  const sync = syncArgument(args, 'unsafe');
  const sparse = args.get('S') === undefined ? 4096 : parseSize(args.get('S')!);
  if (sparse % 512 !== 0) throw new UsageError(`Cannot use -S ${sparse}: accepted are multiples of 512`);
  const progress = progressLine(host, args);
  const source = {
    format: formatArgument(args, 'f'),
    readOnly: true,
    share: isShared(args),
    snapshot: snapshotName(args.get('l')),
  };
  return withDisk(host, from, source, async ({ device }) => {
    if (fresh) await makeImage({ format, path: to, size: roundSize(device.size), options }, host);
    return withDisk(host, to, { format, sync }, async (target) => {
      if (target.device.size < device.size)
        throw new DiskError(`Cannot convert to ${to}: it has ${target.device.size} bytes, accepted are at least ${device.size}`);
      const below = target.backing?.device;
      if (compress) await copyCompressed(device, target.qcow2!, progress.report);
      else if (below && hasBacking) await copyDifferences(device, below, target.device, progress.report);
      else {
        const targetIsZero = fresh ? below === undefined : args.get('target-is-zero') !== undefined;
        await copyDisk(device, target.device, { sparse, targetIsZero, progress: progress.report });
      }
      await progress.end();
      return 0;
    });
  });
}

/** `NAME`, `snapshot.id=ID` or `snapshot.name=NAME`. */
function snapshotName(text: string | undefined): string | undefined {
  if (!text?.includes('=')) return text;
  const list = parseList([text]);
  return list.get('snapshot.id') ?? list.get('snapshot.name') ?? text;
}

/** Exit codes: 0 equal, 1 different, 2 cannot open or read. */
export async function imgCompare(args: ImgArguments, host: ImgHost): Promise<number> {
  const [left, right] = wordsOf(args, ['FILENAME1', 'FILENAME2']) as readonly [string, string];
  const quiet = args.get('q') !== undefined;
  const progress = progressLine(host, args);
  const open = (letter: string) => ({ format: formatArgument(args, letter), readOnly: true, share: isShared(args) });
  try {
    return await withDisk(host, left, open('f'), (a) =>
      withDisk(host, right, open('F'), async (b) => {
        if (a.device.size !== b.device.size && !quiet) await host.out.write('Warning: Image size mismatch!\n');
        const at = await firstDifference(a.device, b.device, progress.report);
        await progress.end();
        const text = at === undefined ? 'Images are identical.' : `Content mismatch at offset ${at}!`;
        if (!quiet) await host.out.write(`${text}\n`);
        return at === undefined ? 0 : 1;
      }),
    );
  } catch (error) {
    if (!(error instanceof DiskError)) throw error;
    await host.err.write(`nonroot img: ${error.message}\n`);
    return 2;
  }
}

export async function imgResize(args: ImgArguments, host: ImgHost): Promise<number> {
  const [path, text] = wordsOf(args, ['FILENAME', '[+|-]SIZE']) as readonly [string, string];
  const preallocation = args.get('preallocation') ?? 'off';
  if (preallocation !== 'off') throw new UsageError(`Cannot use --preallocation=${preallocation}: accepted is off`);
  const sign = /^[+-]/.exec(text)?.[0];
  const amount = parseSize(sign ? text.slice(1) : text);
  return withDisk(host, path, { format: formatArgument(args, 'f') }, async ({ device, qcow2 }) => {
    const size = roundSize(sign === '+' ? device.size + amount : sign === '-' ? device.size - amount : amount);
    if (size <= 0) throw new UsageError(`Cannot resize ${path} to ${size} bytes: accepted are sizes above 0`);
    if (size < device.size && args.get('shrink') === undefined)
      throw new DiskError(
        `Cannot shrink ${path} from ${device.size} to ${size} bytes: what is beyond would be lost, accepted with --shrink`,
      );
    if (qcow2) await qcow2.resize(size);
    else if (device instanceof RawImage) await device.resize(size);
    if (args.get('q') === undefined) await host.out.write('Image resized.\n');
    return 0;
  });
}

export async function imgCommit(args: ImgArguments, host: ImgHost): Promise<number> {
  const [path] = wordsOf(args, ['FILENAME']);
  const progress = progressLine(host, args);
  const open = { format: formatArgument(args, 'f'), writableBacking: true, sync: syncArgument(args, 'writeback') };
  return withDisk(host, path!, open, async (top) => {
    const { qcow2, backing } = top;
    if (!qcow2 || !backing) throw new DiskError(`Cannot commit ${path}: it has no backing file`);
    const base = args.get('b');
    if (base !== undefined && (await host.disks.identity(base)) !== (await host.disks.identity(backing.path)))
      throw new DiskError(`Cannot commit ${path} to ${base}: accepted is the image directly below, ${backing.path}`);
    if (backing.device.size < qcow2.size) await resizeDisk(backing, qcow2.size);
    await commitTo(qcow2, backing.device, progress.report);
    if (args.get('d') === undefined) await qcow2.empty();
    await progress.end();
    if (args.get('q') === undefined) await host.out.write('Image committed.\n');
    return 0;
  });
}

async function resizeDisk({ qcow2, device }: OpenDisk, size: number): Promise<void> {
  if (qcow2) await qcow2.resize(size);
  else if (device instanceof RawImage) await device.resize(size);
}

export async function imgRebase(args: ImgArguments, host: ImgHost): Promise<number> {
  const [path] = wordsOf(args, ['FILENAME']);
  const name = args.get('b');
  if (name === undefined) throw new UsageError('Cannot rebase: the new backing file -b is missing; "" is none');
  const format = args.get('F');
  if (name !== '' && format === undefined)
    throw new UsageError('Cannot rebase: a backing file needs its format, accepted are -F raw and -F qcow2');
  const checked = name === '' ? undefined : formatOf(format!);
  const unsafe = args.get('u') !== undefined;
  const progress = progressLine(host, args);
  const open = { format: formatArgument(args, 'f'), backing: !unsafe, sync: syncArgument(args, 'writeback') };
  return withDisk(host, path!, open, async ({ qcow2, backing, path: top }) => {
    if (!qcow2) throw new DiskError(`Cannot rebase ${path}: raw images have no backing file`);
    const next =
      unsafe || name === ''
        ? undefined
        : await openDisk(host.disks, backingPath(host.disks, top, name), { format: checked, readOnly: true });
    const change = (): Promise<void> => qcow2.setBacking(name || undefined, checked, next?.device);
    if (unsafe) await change();
    else {
      await keepContents(qcow2, backing?.device, next?.device, progress.report).catch(async (error: unknown) => {
        await next?.device.close();
        throw error;
      });
      await change();
    }
    await progress.end();
    return 0;
  });
}
