// Runs the programs of bin/ as a user's shell would, bounded in time, and describes what came of it.

import { spawn } from 'node:child_process';
import { dirname, join, resolve } from 'node:path';
import { openImage } from '../../src/host/node/fetch-image.ts';

const bin = join(dirname(dirname(import.meta.dirname)), 'bin');

/** What a program did. */
export interface Outcome {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
  /** All of it, for the message of an assertion that fails. */
  readonly text: string;
}

export interface RunOptions {
  /** Its standard input; /dev/null when left out. */
  readonly input?: string | Uint8Array;
  /** After so many seconds it is killed, and the code is null. */
  readonly seconds?: number;
  /** Once this was on its standard output, it gets the signal. */
  readonly signal?: { readonly after: string; readonly name: NodeJS.Signals };
  /** Once this was on its standard output, `act` is called, once. */
  readonly said?: { readonly text: string; act(): void };
}

/** Path of a program in bin/; an absolute path is itself. */
export const programPath = (name: string): string => resolve(bin, name);

/** Runs bin/`name`. */
export function program(name: string, args: readonly string[], o: RunOptions = {}): Promise<Outcome> {
  const child = spawn(programPath(name), args, { stdio: [o.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'] });
  const chunks: Record<'stdout' | 'stderr', Buffer[]> = { stdout: [], stderr: [] };
  let said = false;
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream]!.on('data', (bytes: Buffer) => {
      chunks[stream].push(bytes);
      if (o.signal && Buffer.concat(chunks.stdout).includes(o.signal.after)) child.kill(o.signal.name);
      if (o.said && !said && Buffer.concat(chunks.stdout).includes(o.said.text)) {
        said = true;
        o.said.act();
      }
    });
  }
  child.stdin?.on('error', () => {});
  child.stdin?.end(o.input);
  const limit = setTimeout(() => child.kill('SIGKILL'), (o.seconds ?? 30) * 1000);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      clearTimeout(limit);
      const stdout = Buffer.concat(chunks.stdout);
      const stderr = Buffer.concat(chunks.stderr).toString();
      const shown = stdout.length > 4000 ? `${stdout.toString().slice(-4000)} (its end)` : stdout.toString();
      const text = `${name} ${args.join(' ')}\nexit code ${code}\nstandard output:\n${shown}\nstandard error:\n${stderr}`;
      resolve({ code, stdout, stderr, text });
    });
  });
}

/** Why an image cannot be had here; false when it can. Fits node:test's `skip`. */
export async function missing(image: string): Promise<string | false> {
  try {
    await openImage(image);
    return false;
  } catch (error) {
    return `no image ${image}: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** A multiboot 1 kernel of these instructions, which start at 0x100020 in 32-bit protected mode (Multiboot 0.6.96, section 3.1.2). */
export function multiboot(code: readonly number[]): Uint8Array {
  const MAGIC = 0x1bad_b002;
  const ADDRESSES = 0x1_0000;
  const LOAD = 0x10_0000;
  const header = [MAGIC, ADDRESSES, -(MAGIC + ADDRESSES), LOAD, LOAD, 0, 0, LOAD + 32];
  return Uint8Array.from([...new Uint8Array(Uint32Array.from(header).buffer), ...code]);
}
