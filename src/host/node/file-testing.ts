// What the tests of disks share: folders that vanish, seeded numbers, qemu-img and qemu-io as oracles, files that fail.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ByteFile } from '../../disk/block.ts';

/** Runs `test` with a new folder, which is removed afterwards. */
export async function inFolder(test: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'nonroot-disk-'));
  try {
    await test(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** False, or why tests against QEMU's tools are skipped. */
export function withoutTool(tool: 'qemu-img' | 'qemu-io'): string | false {
  return spawnSync(tool, ['--version']).status === 0 ? false : `${tool} is not installed`;
}

export interface ToolResult {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export function tool(name: 'qemu-img' | 'qemu-io', ...args: readonly string[]): ToolResult {
  const { status, stdout, stderr } = spawnSync(name, args, { encoding: 'utf8' });
  return { code: status ?? -1, out: stdout, err: stderr };
}

/** As `tool`, and throws when it fails. */
export function mustRun(name: 'qemu-img' | 'qemu-io', ...args: readonly string[]): string {
  const { code, out, err } = tool(name, ...args);
  if (code !== 0) throw new Error(`${name} ${args.join(' ')} ended with ${code}: ${out}${err}`);
  return out;
}

/** Random numbers that follow from a seed (xorshift32): an integer from 0 to below `below`. */
export function seeded(seed: number): (below: number) => number {
  let x = (seed * 2654435761) >>> 0 || 1;
  return (below) => {
    x ^= x << 13;
    x >>>= 0;
    x ^= x >>> 17;
    x ^= x << 5;
    x >>>= 0;
    return x % below;
  };
}

/** A file whose writes stop: the first `writes` changes reach `file`, every later one fails and changes nothing. */
export function dyingFile(file: ByteFile, writes: number): ByteFile & { readonly dead: boolean; readonly done: number } {
  let done = 0;
  const change = async <T>(action: () => Promise<T>): Promise<T> => {
    if (done >= writes) throw new Error('the power is off');
    done++;
    return action();
  };
  return {
    name: file.name,
    readOnly: file.readOnly,
    get dead() {
      return done >= writes;
    },
    get done() {
      return done;
    },
    size: () => file.size(),
    allocated: () => file.allocated(),
    read: (offset, into) => file.read(offset, into),
    write: (offset, from) => change(() => file.write(offset, from)),
    flush: async () => {
      if (done >= writes) throw new Error('the power is off');
    },
    truncate: (size) => change(() => file.truncate(size)),
    punch: (offset, length) => change(() => file.punch(offset, length)),
    nextData: (offset) => file.nextData(offset),
    close: () => file.close(),
  };
}
