// What `nonroot img` needs of the host, and what its commands share: opening, closing, progress.

import type { BlockDevice } from '../disk/block.ts';
import type { Progress } from '../disk/copy.ts';
import { type DiskHost, formatOf, type OpenDisk, type OpenOptions, openDisk } from '../disk/open.ts';
import { UsageError } from './args.ts';
import type { Output } from './host.ts';
import type { ImgArguments } from './img-options.ts';

export interface ImgHost {
  readonly out: Pick<Output, 'write' | 'isTTY'>;
  readonly err: Pick<Output, 'write'>;
  readonly disks: DiskHost;
}

/** Exactly `count` words. */
export function wordsOf(args: ImgArguments, names: readonly string[]): readonly string[] {
  if (args.words.length > names.length)
    throw new UsageError(`Cannot use "${args.words[names.length]}": accepted are ${names.join(' ')}`);
  const missing = names[args.words.length];
  if (missing !== undefined) throw new UsageError(`Cannot go on: ${missing} is missing`);
  return args.words;
}

/** The value of -f or the like. */
export function formatArgument(args: ImgArguments, letter: string): OpenOptions['format'] {
  const name = args.get(letter);
  return name === undefined ? undefined : formatOf(name);
}

const CACHE_MODES = ['none', 'writeback', 'writethrough', 'directsync', 'unsafe'];

/** Whether the cache mode of -t waits for the storage. The page cache is always used. */
export function syncArgument(args: ImgArguments, standard: string): boolean {
  const mode = args.get('t') ?? standard;
  for (const m of [mode, args.get('T')])
    if (m !== undefined && !CACHE_MODES.includes(m))
      throw new UsageError(`Cannot use cache mode ${m}: accepted are ${CACHE_MODES.join(', ')}`);
  return mode !== 'unsafe';
}

/** Opens an image, hands it to `use`, and closes it and those below it. */
export async function withDisk<T>(
  host: ImgHost,
  path: string,
  options: OpenOptions,
  use: (disk: OpenDisk) => Promise<T>,
): Promise<T> {
  const disk = await openDisk(host.disks, path, options);
  return closing(disk.device, () => use(disk));
}

/** Closes the disk after `use`. An error of `use` comes before one of closing. */
export async function closing<T>(device: BlockDevice, use: () => Promise<T>): Promise<T> {
  let result: T;
  try {
    result = await use();
  } catch (error) {
    await device.close().catch(() => {});
    throw error;
  }
  await device.close();
  return result;
}

/** A line of percent for -p. Text is written when the number of hundredths has changed by 100 or more. */
export function progressLine(
  host: ImgHost,
  args: ImgArguments,
): { readonly report: Progress; readonly end: () => Promise<void> } {
  if (args.get('p') === undefined) return { report: () => {}, end: async () => {} };
  let shown = -1;
  const show = (percent: number): void => {
    if (percent - shown < 1 && percent < 100) return;
    shown = percent;
    void host.out.write(`    (${percent.toFixed(2)}/100%)\r`);
  };
  show(0);
  return {
    report: (done, total) => show(total === 0 ? 100 : (done / total) * 100),
    end: async () => {
      if (shown < 100) show(100);
      await host.out.write('\n');
    },
  };
}
