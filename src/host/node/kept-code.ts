// The file of regions that earlier runs of this program have left (accel/dbt/kept.ts), with V8's machine code (native-code.ts): one for each build of
// the program, kind of processor and CPU model. It is read while the machine starts, modules when they are first needed. The thread that translates
// writes it anew, whole, when it has new ones and time; files of others than this user, or that others may write to, are left alone.

import { createHash, randomUUID } from 'node:crypto';
import { closeSync, fstatSync, mkdirSync, openSync, readdirSync, readSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { crc32 } from 'node:zlib';
import type { KeptModule, KeptRegion, KeptRegions } from '../../accel/dbt/kept.ts';
import { REGIONS_MAX } from '../../accel/dbt/layout.ts';
import { REACH } from '../../accel/dbt/region.ts';
import type { Translated } from '../../accel/dbt/translate.ts';
import { userCache } from './cache.ts';
import type { NativeCode } from './native-code.ts';

/** Most regions and bytes of a file: those that were not used for longest go. New regions need places in the table, too. */
const REGIONS_KEPT = (REGIONS_MAX * 3) / 4;
const BYTES_KEPT = 64 << 20;
/** Files: those that were not written for longest go. */
const FILES_KEPT = 8;
/** A module is kept once V8 has optimised most of it: bytes of machine code for one of WebAssembly. */
const OPTIMISED = 0.8;

const MAGIC = 0x314b524e;
/** Magic number, bytes of the description, bytes of the regions' code, CRC-32 of both. */
const HEAD_BYTES = 16;

/** A module in the file: where it is, its WebAssembly and machine code, their CRC-32. */
interface StoredModule {
  readonly at: number;
  readonly bytes: number;
  readonly native: number;
  readonly crc: number;
  readonly hosts: readonly string[];
  readonly imports: readonly string[];
}
type StoredRegion = Omit<KeptRegion, 'reach' | 'code'> & {
  readonly reach: keyof typeof REACH;
  /** Bytes of its code. */
  readonly length: number;
  /** When it was last used, in days since 1970. */
  readonly day: number;
};
interface Description {
  readonly modules: readonly StoredModule[];
  readonly regions: readonly StoredRegion[];
}

/** What a run adds. */
export interface NewModule {
  readonly module: WebAssembly.Module;
  readonly bytes: Uint8Array;
  readonly hosts: readonly string[];
  readonly imports: readonly string[];
  readonly regions: readonly Translated[];
}

/** The file for code that depends on these words. */
export function keptPath(words: readonly string[], root = userCache().root): string {
  const hash = createHash('sha256').update(JSON.stringify(words)).digest('hex');
  return join(root, 'regions', `${hash.slice(0, 32)}.bin`);
}

/** An open file whose description has been read. */
class KeptFile {
  readonly description: Description;
  /** The code of its regions, in their order. */
  readonly codes: readonly Uint8Array[];
  readonly #fd: number;

  /** Undefined where there is none that can be trusted. */
  static open(path: string): KeptFile | undefined {
    let fd: number;
    try {
      fd = openSync(path, 'r');
    } catch {
      return undefined;
    }
    try {
      const { uid, mode, size } = fstatSync(fd);
      if (uid !== process.getuid?.() || (mode & 0o022) !== 0) throw new Error('it is not this user’s alone');
      return new KeptFile(fd, size);
    } catch {
      closeSync(fd);
      return undefined;
    }
  }
  private constructor(fd: number, size: number) {
    this.#fd = fd;
    const head = this.#read(0, HEAD_BYTES);
    const view = new DataView(head.buffer);
    const [magic, text, code, crc] = [0, 4, 8, 12].map((at) => view.getUint32(at, true));
    if (magic !== MAGIC || HEAD_BYTES + text! + code! > size) throw new Error('it is no such file');
    const both = this.#read(HEAD_BYTES, text! + code!);
    if (crc32(both) !== crc) throw new Error('it is damaged');
    this.description = JSON.parse(Buffer.from(both.buffer, 0, text).toString('utf8')) as Description;
    let at = text!;
    this.codes = this.description.regions.map(({ length }) => both.subarray(at, (at += length)));
  }
  #read(at: number, length: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const n = readSync(this.#fd, bytes, done, length - done, at + done);
      if (n === 0) throw new Error('it is cut short');
      done += n;
    }
    return bytes;
  }
  /** A module's WebAssembly and machine code; undefined where they are damaged. */
  parts({ at, bytes, native, crc }: StoredModule): readonly [Uint8Array, Uint8Array] | undefined {
    try {
      const both = this.#read(at, bytes + native);
      return crc32(both) === crc ? [both.subarray(0, bytes), both.subarray(bytes)] : undefined;
    } catch {
      return undefined;
    }
  }
  close(): void {
    closeSync(this.#fd);
  }
}

/**
 * The regions in a file; undefined where there is none. `used` has a byte for each place in the table, from the first region's on, which is set
 * when the region is used.
 */
export function openKept(path: string, native: NativeCode, first: number, used: Uint8Array): KeptRegions | undefined {
  const file = KeptFile.open(path);
  if (!file) return undefined;
  const { modules, regions } = file.description;
  const byEntry = new Map<number, KeptRegion[]>();
  const taken = new Set<number>();
  const key = (ctx: number, entry: number): number => ctx * 4096 + entry;
  regions.forEach(({ reach, length: _, day: __, ...region }, i) => {
    const kept: KeptRegion = { ...region, reach: REACH[reach], code: file.codes[i]! };
    taken.add(region.index);
    const list = byEntry.get(key(region.ctx, region.entry));
    if (list) list.push(kept);
    else byEntry.set(key(region.ctx, region.entry), [kept]);
  });
  return {
    at: (ctx, entry) => byEntry.get(key(ctx, entry)),
    takes: (index) => taken.has(index),
    module(number): KeptModule | undefined {
      const stored = modules[number];
      const parts = stored && file.parts(stored);
      const module = parts && native.load(...parts);
      return module && { module, hosts: stored.hosts, imports: stored.imports };
    },
    used: ({ index }) => Atomics.store(used, index - first, 1),
  };
}

/** What tells two regions apart, but for how much of the code they have: what comes later takes the place of what was there. */
function nameOf({ ctx, entry, ranges }: Pick<KeptRegion, 'ctx' | 'entry' | 'ranges'>, code: Uint8Array): string {
  let at = 0;
  for (const [n, from, to] of ranges) {
    if (n === 0 && from <= entry && entry < to)
      return `${ctx} ${entry} ${Buffer.from(code.subarray(at + entry - from, at + Math.min(entry + 48, to) - from)).toString('latin1')}`;
    at += to - from;
  }
  return `${ctx} ${entry}`;
}

/** Adds what is new to a file; `used` as in `openKept`. How many regions it has then; 0 where it could not be written. */
export function writeKept(path: string, native: NativeCode, made: readonly NewModule[], first: number, used: Uint8Array): number {
  const today = Math.floor(Date.now() / 86_400_000);
  interface Entry {
    readonly region: Omit<StoredRegion, 'module'>;
    readonly code: Uint8Array;
    readonly module: Module;
  }
  interface Module {
    readonly hosts: readonly string[];
    readonly imports: readonly string[];
    readonly parts: readonly [Uint8Array, Uint8Array];
  }
  const byName = new Map<string, Entry>();
  for (const { module, bytes, hosts, imports, regions } of made) {
    const code = native.save(module);
    if (!code || code.length < bytes.length * OPTIMISED) continue;
    const kept: Module = { hosts, imports, parts: [bytes, code] };
    for (const { code: guest, reach, ...region } of regions) {
      const name = (Object.keys(REACH) as (keyof typeof REACH)[]).find((k) => REACH[k].instructions === reach.instructions)!;
      const stored = { ...region, reach: name, length: guest.length, day: today };
      byName.set(nameOf(region, guest), { region: stored, code: guest, module: kept });
    }
  }
  const taken = new Set([...byName.values()].map(({ region }) => region.index));
  const before = KeptFile.open(path);
  const modules = new Map<number, Module | undefined>();
  before?.description.regions.forEach((region, i) => {
    const code = before.codes[i]!;
    const name = nameOf(region, code);
    if (byName.has(name) || taken.has(region.index)) return;
    const stored = before.description.modules[region.module]!;
    if (!modules.has(region.module)) {
      const parts = before.parts(stored);
      modules.set(region.module, parts && { hosts: stored.hosts, imports: stored.imports, parts });
    }
    const module = modules.get(region.module);
    const day = Atomics.load(used, region.index - first) === 1 ? today : region.day;
    if (module) byName.set(name, { region: { ...region, day }, code, module });
  });
  before?.close();
  // Newest first, in as much as they say.
  const all = [...byName.values()].sort((a, b) => b.region.day - a.region.day);
  const entries: Entry[] = [];
  const numbers = new Map<Module, number>();
  let size = 0;
  for (const entry of all) {
    const { module } = entry;
    const more = numbers.has(module) ? 0 : module.parts[0].length + module.parts[1].length;
    if (entries.length >= REGIONS_KEPT || size + more > BYTES_KEPT) break;
    size += more;
    if (more > 0) numbers.set(module, numbers.size);
    entries.push(entry);
  }
  return entries.length > 0 && store(path, entries, [...numbers.keys()], numbers) ? entries.length : 0;
}

function store<M extends { readonly hosts: readonly string[]; readonly imports: readonly string[]; readonly parts: readonly [Uint8Array, Uint8Array] }>(
  path: string,
  entries: readonly { readonly region: Omit<StoredRegion, 'module'>; readonly code: Uint8Array; readonly module: M }[],
  modules: readonly M[],
  numbers: ReadonlyMap<M, number>,
): boolean {
  const code = Buffer.concat(entries.map((e) => e.code));
  const blobs = modules.map(({ parts }) => Buffer.concat(parts));
  const describe = (start: number): Buffer => {
    let at = start;
    const description: Description = {
      modules: modules.map(({ hosts, imports, parts }, i) => {
        const module = { at, bytes: parts[0].length, native: parts[1].length, crc: crc32(blobs[i]!), hosts, imports };
        at += blobs[i]!.length;
        return module;
      }),
      regions: entries.map(({ region, module }) => ({ ...region, module: numbers.get(module)! })),
    };
    return Buffer.from(JSON.stringify(description));
  };
  // Room for the offsets to become longer.
  const start = HEAD_BYTES + describe(0).length + modules.length * 10 + code.length;
  const text = describe(start);
  const padded = Buffer.concat([text, Buffer.alloc(start - HEAD_BYTES - code.length - text.length, ' ')]);
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt32LE(MAGIC, 0);
  head.writeUInt32LE(padded.length, 4);
  head.writeUInt32LE(code.length, 8);
  head.writeUInt32LE(crc32(code, crc32(padded)), 12);
  const temporary = join(dirname(path), `.${basename(path)}-${randomUUID()}`);
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    writeFileSync(temporary, Buffer.concat([head, padded, code, ...blobs]), { mode: 0o600 });
    renameSync(temporary, path);
    sweep(dirname(path));
    return true;
  } catch {
    rmSync(temporary, { force: true });
    return false;
  }
}

/** Removes the files that were not written for longest. */
function sweep(folder: string): void {
  const files = readdirSync(folder).map((name) => ({ name, time: statSync(join(folder, name)).mtimeMs }));
  files.sort((a, b) => b.time - a.time);
  for (const { name } of files.slice(FILES_KEPT)) rmSync(join(folder, name), { force: true });
}
