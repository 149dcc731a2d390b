// `nonroot img`: disk images with qemu-img's commands, options and exit codes. "QEMU disk image utility" (docs/tools/qemu-img).

import { columns, UsageError } from './args.ts';
import {
  commitSyntax,
  compareSyntax,
  convertSyntax,
  imgCommit,
  imgCompare,
  imgConvert,
  imgRebase,
  imgResize,
  rebaseSyntax,
  resizeSyntax,
} from './img-copy.ts';
import { createSyntax, imgCreate } from './img-create.ts';
import type { ImgHost } from './img-host.ts';
import { checkSyntax, imgCheck, imgInfo, imgSnapshot, infoSyntax, snapshotSyntax } from './img-info.ts';
import { type ImgArguments, type ImgSyntax, parseImgArguments } from './img-options.ts';

interface ImgSubcommand {
  readonly usage: string;
  readonly help: string;
  readonly syntax: ImgSyntax;
  readonly run: (args: ImgArguments, host: ImgHost) => Promise<number>;
}

const subcommands: Readonly<Record<string, ImgSubcommand>> = {
  create: {
    usage: '[-q] [-f FMT] [-b BACKING_FILE -F FMT] [-u] [-o OPTIONS] FILENAME [SIZE]',
    help: 'make an image. Of -o: size, preallocation; for qcow2 backing_file, backing_fmt, cluster_size, compat, compression_type, lazy_refcounts, refcount_bits',
    syntax: createSyntax,
    run: imgCreate,
  },
  info: {
    usage: '[-f FMT] [--output=human|json] [--backing-chain] [-U] FILENAME',
    help: 'say what an image is',
    syntax: infoSyntax,
    run: imgInfo,
  },
  check: {
    usage: '[-q] [-f FMT] [--output=human|json] [-r leaks|all] [-U] FILENAME',
    help: 'find and repair errors: 0 none, 2 errors, 3 only leaks, 63 raw',
    syntax: checkSyntax,
    run: imgCheck,
  },
  convert: {
    usage:
      '[-c] [-p] [-q] [-n] [-f FMT] [-O FMT] [-B BACKING_FILE -F FMT] [-o OPTIONS] [-l SNAPSHOT] [-S SIZE] [-t CACHE] [-T CACHE] [-m N] [-W] [-U] [--target-is-zero] FILENAME OUTPUT_FILENAME',
    help: 'copy a disk to a new image',
    syntax: convertSyntax,
    run: imgConvert,
  },
  snapshot: {
    usage: '[-q] [-U] [-l | -a SNAPSHOT | -c SNAPSHOT | -d SNAPSHOT] FILENAME',
    help: 'list, apply, create or delete internal snapshots',
    syntax: snapshotSyntax,
    run: imgSnapshot,
  },
  resize: {
    usage: '[-q] [-f FMT] [--shrink] FILENAME [+|-]SIZE',
    help: 'change the size of the disk',
    syntax: resizeSyntax,
    run: imgResize,
  },
  commit: {
    usage: '[-q] [-f FMT] [-t CACHE] [-b BASE] [-d] [-p] FILENAME',
    help: 'write an image to its backing file and empty it',
    syntax: commitSyntax,
    run: imgCommit,
  },
  rebase: {
    usage: '[-q] [-f FMT] [-t CACHE] [-T CACHE] [-p] [-u] -b BACKING_FILE [-F FMT] FILENAME',
    help: 'put an image on another backing file',
    syntax: rebaseSyntax,
    run: imgRebase,
  },
  compare: {
    usage: '[-f FMT] [-F FMT] [-T CACHE] [-p] [-q] [-U] FILENAME1 FILENAME2',
    help: 'tell whether two disks have the same bytes: 0 yes, 1 no',
    syntax: compareSyntax,
    run: imgCompare,
  },
};

/** Commands of qemu-img that are known and missing. */
const missing = ['amend', 'bench', 'bitmap', 'dd', 'map', 'measure'];

const help = (): string => `Usage: nonroot img COMMAND [OPTION...] FILENAME...

Disk images, raw and qcow2, with qemu-img's commands, options and exit codes.

Commands:
${columns(Object.entries(subcommands).map(([name, { help: text }]) => [name, text] as const))}

  nonroot img COMMAND --help shows its options. Sizes take k, M, G, T and P.
`;

/**
 * Runs `nonroot img ARGS`; the exit code is qemu-img's for the same. Errors are written, not thrown.
 * @param argv the words after `img`
 */
export async function imgCommand(argv: readonly string[], host: ImgHost): Promise<number> {
  const [name, ...rest] = argv;
  try {
    if (name === undefined || name === '--help' || name === '-h') {
      await (name === undefined ? host.err : host.out).write(help());
      return name === undefined ? 1 : 0;
    }
    if (missing.includes(name)) throw new UsageError(`Cannot run "img ${name}": not supported`);
    const command = Object.hasOwn(subcommands, name) ? subcommands[name] : undefined;
    if (!command) throw new UsageError(`Cannot run "img ${name}": accepted are ${Object.keys(subcommands).join(', ')}`);
    const args = parseImgArguments(command.syntax, name === 'resize' ? sizeLast(rest) : rest);
    if (args.get('help') !== undefined) {
      await host.out.write(
        `Usage: nonroot img ${name} ${command.usage}\n\n${command.help[0]!.toUpperCase()}${command.help.slice(1)}.\n`,
      );
      return 0;
    }
    return await command.run(args, host);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const hint =
      error instanceof UsageError
        ? `; nonroot img ${name && Object.hasOwn(subcommands, name) ? `${name} ` : ''}--help says more`
        : '';
    await host.err.write(`nonroot img: ${message}${hint}\n`);
    return 1;
  }
}

/** The size of resize comes last and may begin with a minus. */
function sizeLast(argv: readonly string[]): readonly string[] {
  const last = argv.at(-1);
  return last !== undefined && /^-\d/.test(last) ? [...argv.slice(0, -1), '--', last] : argv;
}
