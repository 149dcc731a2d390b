// The file of regions that earlier runs of this program have left (accel/dbt/kept.ts), with V8's machine code (native-code.ts): one for each translator,
// set of V8's flags and CPU model. It is one or several segments: what a later one has takes the place of what was there. Regions are in the order in
// which they were used last, those of the last segment first; modules are read ahead, or when they are first needed. The thread that translates appends
// what is new, and makes one segment of all when the machine ends, when there are too many, or where a file is not sound. Files of others than this user,
// or that others may write to, are left alone.

import { randomUUID } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { cachedDataVersionTag } from 'node:v8';
import { crc32 } from 'node:zlib';
import { REGION_FIRST } from '../../accel/dbt/chain.ts';
import type { KeptModule, KeptRegion, KeptRegions } from '../../accel/dbt/kept.ts';
import { REGIONS_MAX } from '../../accel/dbt/layout.ts';
import { REACH } from '../../accel/dbt/region.ts';
import type { Translated } from '../../accel/dbt/translate.ts';
import { userCache } from './cache.ts';
import type { NativeCode } from './native-code.ts';

/** Most regions and bytes of a file: those that were not used for longest go. New regions need places in the table, too. */
const REGIONS_KEPT = (REGIONS_MAX * 3) / 4;
const BYTES_KEPT = 16 << 20;
/** Files: those that were not used for longest go. */
const FILES_KEPT = 16;
/** A file of more segments is written anew. */
const SEGMENTS_MAX = 64;
/** Most bytes of modules that another thread loads before they are asked for. */
const AHEAD_BYTES = 8 << 20;
/** A module is kept once V8 has optimised most of it: bytes of machine code for one of WebAssembly. */
const OPTIMISED = 0.8;

const DAY = 86_400_000;

const MAGIC = 0x324b524e;
/** A segment's head: magic number; bytes of its description, of its regions' code and of its modules; CRC-32 of all that is not modules. */
const HEAD_BYTES = 20;

/** A module: where it is behind its segment's regions, its WebAssembly and machine code, their CRC-32. */
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

const FOLDER = 'regions';
/** A name of 16 digits for words: in a vCPU's thread, where Node's `crypto` would take 8 ms of a start. Nobody else writes to the folder. */
function hashOf(words: readonly string[]): string {
  let [a, b] = [0x811c9dc5, 0x9747b28c];
  for (const c of Buffer.from(JSON.stringify(words))) {
    a = Math.imul(a ^ c, 0x01000193);
    b = Math.imul(b ^ c, 0x85ebca6b);
    b ^= b >>> 15;
  }
  return [a, b].map((half) => (half >>> 0).toString(16).padStart(8, '0')).join('');
}

/**
 * The file for code that a translator (`id`) has made for a vCPU (0, 1, ...), under V8 and its flags as they are now, for CPUs with these features (all
 * where it is not said).
 */
export function keptPath(id: string, cpu: number, features: ReadonlySet<string> | undefined, root = userCache().root): string {
  return join(root, FOLDER, `${prefixOf(id, cpu)}${hashOf(features ? [...features].sort() : ['all'])}.bin`);
}
const prefixOf = (id: string, cpu: number): string => `${hashOf([id, String(cpu), String(cachedDataVersionTag())])}-`;

/** The file for the first vCPU that was used last, whatever CPU model it is for: it is likely to be the next one's. */
export function likelyPath(id: string, root = userCache().root): string | undefined {
  try {
    const files = newest(join(root, FOLDER)).filter(({ name }) => name.startsWith(prefixOf(id, 0)));
    return files[0] && join(root, FOLDER, files[0].name);
  } catch {
    return undefined;
  }
}
/** Says that a file is in use: the one that is not goes first. */
function touch(path: string): void {
  try {
    utimesSync(path, new Date(), new Date());
  } catch {
    // A cache that is only read.
  }
}
/** Files of a folder, those that were used last first. */
function newest(folder: string): { readonly name: string; readonly time: number }[] {
  const files = readdirSync(folder).map((name) => ({ name, time: statSync(join(folder, name)).mtimeMs }));
  return files.sort((a, b) => b.time - a.time);
}

/** An open file whose descriptions have been read, as one. */
class KeptFile implements Description {
  readonly modules: StoredModule[] = [];
  readonly regions: StoredRegion[] = [];
  /** The code of its regions, in their order. */
  readonly codes: Uint8Array[] = [];
  /** Nothing but sound segments: more may be appended. */
  readonly sound: boolean;
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
      return new KeptFile(fd, sizeOf(fd));
    } catch {
      closeSync(fd);
      return undefined;
    }
  }
  private constructor(fd: number, size: number) {
    this.#fd = fd;
    const found: { readonly description: Description; readonly codes: readonly Uint8Array[] }[] = [];
    let at = 0;
    while (at < size) {
      // What comes behind a segment that was cut short or is damaged counts for nothing.
      const segment = this.#segment(at, size);
      if (!segment) break;
      found.push(segment);
      at = segment.end;
    }
    this.sound = at === size;
    if (found.length === 0) throw new Error('it is no such file');
    const [names, indexes] = [new Set<string>(), new Set<number>()];
    for (const { description, codes } of found.reverse()) {
      const first = this.modules.length;
      this.modules.push(...description.modules);
      description.regions.forEach((region, i) => {
        const name = nameOf(region, codes[i]!);
        if (names.has(name) || indexes.has(region.index) || this.regions.length >= REGIONS_KEPT) return;
        names.add(name);
        indexes.add(region.index);
        this.regions.push({ ...region, module: first + region.module });
        this.codes.push(codes[i]!);
      });
    }
  }
  #segment(start: number, size: number): { description: Description; codes: Uint8Array[]; end: number } | undefined {
    if (start + HEAD_BYTES > size) return undefined;
    const { magic, text, code, modules, crc } = headOf(readFrom(this.#fd, start, HEAD_BYTES));
    const behind = start + HEAD_BYTES + text + code;
    if (magic !== MAGIC || behind + modules > size) return undefined;
    const both = readFrom(this.#fd, start + HEAD_BYTES, text + code);
    if (crc32(both) !== crc) return undefined;
    const said = JSON.parse(Buffer.from(both.buffer, 0, text).toString('utf8')) as Description;
    let at = text;
    const codes = said.regions.map(({ length }) => both.subarray(at, (at += length)));
    const description = { regions: said.regions, modules: said.modules.map((m) => ({ ...m, at: behind + m.at })) };
    return { description, codes, end: behind + modules };
  }
  /** A module's WebAssembly and machine code, in `room` where that is given; undefined where they are damaged. */
  parts(place: Place, room?: Room): readonly [Uint8Array, Uint8Array] | undefined {
    return partsOf(this.#fd, place, room);
  }
  /** What tells it from any other file. */
  get identity(): string {
    return identityOf(this.#fd);
  }
  close(): void {
    closeSync(this.#fd);
  }
}

/** Where a module is in a file. */
type Place = Pick<StoredModule, 'at' | 'bytes' | 'native' | 'crc'>;

/** Bytes that one module after the other is read into: new ones for each cost their pages, and V8's collector what they come to. */
class Room {
  #bytes = new Uint8Array(256 << 10);

  take(length: number): Uint8Array<ArrayBuffer> {
    if (length > this.#bytes.length) this.#bytes = new Uint8Array(2 * length);
    return this.#bytes.subarray(0, length);
  }
}

function partsOf(fd: number, { at, bytes, native, crc }: Place, room?: Room): readonly [Uint8Array, Uint8Array] | undefined {
  try {
    const both = readFrom(fd, at, bytes + native, room);
    return crc32(both) === crc ? [both.subarray(0, bytes), both.subarray(bytes)] : undefined;
  } catch {
    return undefined;
  }
}

/** Files are replaced by others or appended to: what was in one of this name stays where it is. */
function identityOf(fd: number): string {
  const { dev, ino } = fstatSync(fd);
  return `${dev} ${ino}`;
}

/** Bytes of an open file. Throws where it is not this user's alone. */
function sizeOf(fd: number): number {
  const { uid, mode, size } = fstatSync(fd);
  if (uid !== process.getuid?.() || (mode & 0o022) !== 0) throw new Error('it is not this user’s alone');
  return size;
}

interface Head {
  readonly magic: number;
  readonly text: number;
  readonly code: number;
  readonly modules: number;
  readonly crc: number;
}
function headOf(bytes: Uint8Array<ArrayBuffer>): Head {
  const [magic, text, code, modules, crc] = new Uint32Array(bytes.buffer, 0, HEAD_BYTES / 4) as unknown as number[];
  return { magic: magic!, text: text!, code: code!, modules: modules!, crc: crc! };
}
function readFrom(fd: number, at: number, length: number, room?: Room): Uint8Array<ArrayBuffer> {
  const bytes = room?.take(length) ?? new Uint8Array(length);
  for (let done = 0; done < length; ) {
    const n = readSync(fd, bytes, done, length - done, at + done);
    if (n === 0) throw new Error('it is cut short');
    done += n;
  }
  return bytes;
}

/** What a machine notes of the regions that it uses, by place in the table from the first one's on: when they were used first, from 1 on; 0: not yet. */
export type Uses = Int32Array<SharedArrayBuffer>;
export const noUses = (): Uses => new Int32Array(new SharedArrayBuffer(4 * REGIONS_MAX));

/** Modules of a file for another thread to load before they are asked for. */
export interface ModulesAhead {
  readonly path: string;
  readonly identity: string;
  /** With their numbers, those first that were used first. */
  readonly places: readonly (Place & { readonly number: number })[];
  /** By number: 1 once one of the threads has begun to load it. */
  readonly begun: Int32Array<SharedArrayBuffer>;
}
export interface LoadedModule {
  readonly number: number;
  readonly module: WebAssembly.Module;
}

/** Loads them, one at each step; those that the other thread has begun with, and damaged ones, are left out. */
export function* loadAhead(
  { path, identity, places, begun }: ModulesAhead,
  native: NativeCode,
): Generator<LoadedModule | undefined> {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    return;
  }
  try {
    if (identityOf(fd) !== identity) return;
    const room = new Room();
    for (const place of places) {
      if (Atomics.exchange(begun, place.number, 1) !== 0) continue;
      const parts = partsOf(fd, place, room);
      const module = parts && native.load(...parts);
      yield module && { number: place.number, module };
    }
  } finally {
    closeSync(fd);
  }
}

/** The regions of a file. */
export class Kept {
  readonly path: string;
  readonly #file: KeptFile;
  readonly #native: NativeCode;
  readonly #modules: (KeptModule | undefined)[] = [];
  /** Modules that have regions, in the order of the regions; how many of them were read ahead. */
  readonly #order: readonly number[];
  #ahead = 0;
  readonly #room = new Room();
  #begun: Int32Array<SharedArrayBuffer> | undefined;
  #receive: () => LoadedModule | undefined = () => undefined;

  /** Undefined where there is no such file. */
  static open(path: string, native: NativeCode): Kept | undefined {
    const file = KeptFile.open(path);
    if (file) touch(path);
    return file && new Kept(path, file, native);
  }
  private constructor(path: string, file: KeptFile, native: NativeCode) {
    this.path = path;
    this.#file = file;
    this.#native = native;
    this.#order = [...new Set(file.regions.map((r) => r.module))];
  }
  /** Whether more may be appended to it. */
  get sound(): boolean {
    return this.#file.sound;
  }
  /** Reads one more module ahead; false where all are there. */
  readAhead(): boolean {
    const number = this.#order[this.#ahead++];
    if (number !== undefined) this.#module(number);
    return number !== undefined;
  }
  /** The modules that are not there yet, for another thread to load, as many as are likely to be used; from then on `receive` is asked for them. */
  handOver(receive: () => LoadedModule | undefined): ModulesAhead {
    const places: (Place & { number: number })[] = [];
    let size = 0;
    for (const number of this.#order.slice(this.#ahead)) {
      if (number in this.#modules) continue;
      const { at, bytes, native, crc } = this.#file.modules[number]!;
      if ((size += bytes + native) > AHEAD_BYTES) break;
      places.push({ number, at, bytes, native, crc });
    }
    this.#receive = receive;
    this.#begun = new Int32Array(new SharedArrayBuffer(4 * Math.max(1, this.#file.modules.length)));
    return { path: this.path, identity: this.#file.identity, places, begun: this.#begun };
  }
  #module(number: number): KeptModule | undefined {
    if (number in this.#modules) return this.#modules[number];
    for (let loaded = this.#receive(); loaded; loaded = this.#receive()) {
      const { hosts, imports } = this.#file.modules[loaded.number]!;
      this.#modules[loaded.number] ??= { module: loaded.module, hosts, imports };
    }
    if (number in this.#modules) return this.#modules[number];
    // The other thread may be at it: V8 makes one module of both.
    if (this.#begun) Atomics.store(this.#begun, number, 1);
    const stored = this.#file.modules[number];
    const parts = stored && this.#file.parts(stored, this.#room);
    const module = parts && this.#native.load(...parts);
    this.#modules[number] = module && { module, hosts: stored.hosts, imports: stored.imports };
    return this.#modules[number];
  }
  /** For a vCPU that notes what it uses. */
  regions(uses: Uses): KeptRegions {
    const byEntry = new Map<number, KeptRegion[]>();
    const taken = new Set<number>();
    const key = (ctx: number, entry: number): number => ctx * 4096 + entry;
    this.#file.regions.forEach(({ reach, length: _, day: __, ...region }, i) => {
      const kept: KeptRegion = { ...region, reach: REACH[reach], code: this.#file.codes[i]! };
      taken.add(region.index);
      const list = byEntry.get(key(region.ctx, region.entry));
      if (list) list.push(kept);
      else byEntry.set(key(region.ctx, region.entry), [kept]);
    });
    let order = 0;
    return {
      at: (ctx, entry) => byEntry.get(key(ctx, entry)),
      takes: (index) => taken.has(index),
      module: (number) => this.#module(number),
      used({ index }) {
        if (uses[index - REGION_FIRST] === 0) Atomics.store(uses, index - REGION_FIRST, ++order);
      },
    };
  }
  close(): void {
    this.#file.close();
  }
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

/** A module as it will be in the file. */
interface Module {
  readonly hosts: readonly string[];
  readonly imports: readonly string[];
  readonly parts: readonly [Uint8Array, Uint8Array];
}
interface Entry {
  readonly region: Omit<StoredRegion, 'module'>;
  readonly code: Uint8Array;
  readonly module: Module;
  /** When it was used in this run: in the file's order. */
  readonly order: number;
}

/** What of this can be kept now, by name: V8 has optimised it. `done` takes its modules. */
function ready(native: NativeCode, made: readonly NewModule[], done: Set<NewModule>): Map<string, Entry> {
  const day = Math.floor(Date.now() / DAY);
  const byName = new Map<string, Entry>();
  for (const m of made) {
    const { module, bytes, hosts, imports, regions } = m;
    const code = native.save(module);
    if (!code || code.length < bytes.length * OPTIMISED) continue;
    done.add(m);
    const kept: Module = { hosts, imports, parts: [bytes, code] };
    for (const { code: guest, reach, ...region } of regions) {
      const name = (Object.keys(REACH) as (keyof typeof REACH)[]).find((k) => REACH[k].instructions === reach.instructions)!;
      const stored = { ...region, reach: name, length: guest.length, day };
      byName.set(nameOf(region, guest), { region: stored, code: guest, module: kept, order: REGIONS_MAX + done.size });
    }
  }
  return byName;
}

/**
 * Adds what is new to a file, makes one segment of all, and puts what was used (`uses`) before what was not. Gives the modules that are in the file
 * now: others have not been optimised yet; none where it could not be written, or where fewer than `least` would be new.
 */
export function writeKept(
  path: string,
  native: NativeCode,
  made: readonly NewModule[],
  uses: Uses,
  least = 1,
): ReadonlySet<NewModule> {
  const today = Math.floor(Date.now() / DAY);
  const done = new Set<NewModule>();
  const byName = ready(native, made, done);
  if (done.size < least) return new Set();
  const taken = new Set([...byName.values()].map(({ region }) => region.index));
  const before = KeptFile.open(path);
  const modules = new Map<number, Module | undefined>();
  before?.regions.forEach((region, i) => {
    const code = before.codes[i]!;
    const name = nameOf(region, code);
    if (byName.has(name) || taken.has(region.index)) return;
    const stored = before.modules[region.module]!;
    if (!modules.has(region.module)) {
      const parts = before.parts(stored);
      modules.set(region.module, parts && { hosts: stored.hosts, imports: stored.imports, parts });
    }
    const module = modules.get(region.module);
    const used = Atomics.load(uses, region.index - REGION_FIRST);
    const day = used > 0 ? today : region.day;
    if (module) byName.set(name, { region: { ...region, day }, code, module, order: used || 2 * REGIONS_MAX + i });
  });
  before?.close();
  const all = [...byName.values()].sort((a, b) => b.region.day - a.region.day || a.order - b.order);
  const entries: Entry[] = [];
  const counted = new Set<Module>();
  let size = 0;
  for (const entry of all) {
    const { module } = entry;
    const more = counted.has(module) ? 0 : module.parts[0].length + module.parts[1].length;
    if (entries.length >= REGIONS_KEPT || size + more > BYTES_KEPT) break;
    size += more;
    counted.add(module);
    entries.push(entry);
  }
  return entries.length > 0 && store(path, segmentOf(entries)) ? done : new Set();
}

/** Appends what is new to a file; what it gives is as with `writeKept`. Undefined where the file has to be written anew. */
export function appendKept(
  path: string,
  native: NativeCode,
  made: readonly NewModule[],
  least = 1,
): ReadonlySet<NewModule> | undefined {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_APPEND);
  } catch {
    return undefined;
  }
  try {
    const size = sizeOf(fd);
    if (size > BYTES_KEPT) return undefined;
    // Behind what was cut short nothing would be found.
    let segments = 0;
    for (let at = 0; at < size; segments++) {
      const { magic, text, code, modules } = headOf(readFrom(fd, at, HEAD_BYTES));
      at += HEAD_BYTES + text + code + modules;
      if (magic !== MAGIC || at > size) return undefined;
    }
    if (segments >= SEGMENTS_MAX) return undefined;
    const done = new Set<NewModule>();
    const entries = [...ready(native, made, done).values()];
    if (done.size < least || entries.length === 0) return new Set();
    const bytes = segmentOf(entries);
    return writeSync(fd, bytes) === bytes.length ? done : undefined;
  } catch {
    return undefined;
  } finally {
    closeSync(fd);
  }
}

function segmentOf(entries: readonly Entry[]): Buffer {
  const modules = [...new Set(entries.map((e) => e.module))];
  const numbers = new Map(modules.map((module, i) => [module, i]));
  const blobs = modules.map(({ parts }) => Buffer.concat(parts));
  const code = Buffer.concat(entries.map((e) => e.code));
  let at = 0;
  const description: Description = {
    modules: modules.map(({ hosts, imports, parts }, i) => {
      const module = { at, bytes: parts[0].length, native: parts[1].length, crc: crc32(blobs[i]!), hosts, imports };
      at += blobs[i]!.length;
      return module;
    }),
    regions: entries.map(({ region, module }) => ({ ...region, module: numbers.get(module)! })),
  };
  const text = Buffer.from(JSON.stringify(description));
  const head = Uint32Array.of(MAGIC, text.length, code.length, at, crc32(code, crc32(text)));
  return Buffer.concat([new Uint8Array(head.buffer), text, code, ...blobs]);
}

/** Writes the file: whether it could be done. */
function store(path: string, bytes: Uint8Array): boolean {
  const temporary = join(dirname(path), `.${basename(path)}-${randomUUID()}`);
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    writeFileSync(temporary, bytes, { mode: 0o600 });
    // Where a file is replaced by renaming, ext4 waits until the new one is on the disk.
    rmSync(path, { force: true });
    renameSync(temporary, path);
    sweep(dirname(path));
    return true;
  } catch {
    try {
      rmSync(temporary, { force: true });
    } catch {
      // There is no such folder.
    }
    return false;
  }
}

/** Removes the files that were not used for longest. */
function sweep(folder: string): void {
  for (const { name } of newest(folder).slice(FILES_KEPT)) rmSync(join(folder, name), { force: true });
}
