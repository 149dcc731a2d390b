// The cache of images and derived files on disk: XDG Base Directory Specification 0.8, `$XDG_CACHE_HOME/nonroot`.
// Every file is written beside its place and renamed, so readers and other processes see all of it or nothing.

import { createHash, randomUUID } from 'node:crypto';
import { access, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';

/** A cache: the directory that it owns. It is made when something is first stored. */
export type Cache = { readonly root: string };

/** A file of an image. `path` is relative to the image's directory. */
export type CachedFile = { readonly path: string; readonly size: number; readonly sha256: string };

/** What the cache knows of an image: `images/NAME/manifest.json`. */
export type Manifest = {
  readonly format: 1;
  readonly name: string;
  /** Directory under `images/NAME`, from the versions and hashes of the packages. */
  readonly key: string;
  readonly files: Readonly<Record<string, CachedFile>>;
  readonly packages: readonly { readonly name: string; readonly version: string; readonly sha256: string }[];
  /** Where the packages came from. */
  readonly source: string;
  /** What was asked for, as one word: another wish needs another image. */
  readonly wish?: string;
  /** ISO 8601, UTC. */
  readonly date: string;
};

/** Temporary and superseded directories are kept this long: another process may still use them. Milliseconds. */
const GRACE = 24 * 3600 * 1000;

/** The user's cache. A relative XDG_CACHE_HOME is ignored, as the specification says. */
export function userCache(env: Readonly<Record<string, string | undefined>> = process.env): Cache {
  const base = env['XDG_CACHE_HOME'];
  return { root: join(base && isAbsolute(base) ? base : join(env['HOME'] || homedir(), '.cache'), 'nonroot') };
}

/** SHA-256, lower-case hexadecimal. */
export const sha256 = (...parts: readonly (Uint8Array | string)[]): string => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
};

/**
 * The path of a derived file, made by `make` when it is not in the cache. Processes that come at once may each make it; one wins.
 * @param key a file name of letters, digits, `.`, `_`, `+` and `-`; it must say everything that the contents depend on
 * @param write writes the file and flushes it; in one piece where it is left out
 * @throws Error (rejects) when the cache cannot be written, or `make` fails (nothing is stored then)
 */
export async function cached(
  cache: Cache,
  key: string,
  make: () => Uint8Array | Promise<Uint8Array>,
  write?: (path: string, data: Uint8Array) => void,
): Promise<string> {
  if (!/^\w[\w.+-]*$/.test(key)) throw new Error(`Cannot cache "${key}": accepted are letters, digits and ._+-`);
  const path = join(cache.root, 'derived', key);
  if (await exists(path)) return path;
  await replaceFile(path, await make(), write);
  return path;
}

/** A new private directory in the cache, for work that ends with a rename. The caller removes it. */
export async function scratchDirectory(cache: Cache): Promise<string> {
  const parent = join(cache.root, 'tmp');
  const path = join(parent, `${process.pid}-${randomUUID()}`);
  await makeDirectory(path);
  await sweep(parent);
  return path;
}

/** The manifest of an image whose files are all there with their sizes; undefined when it has to be fetched. */
export async function readManifest(cache: Cache, name: string): Promise<Manifest | undefined> {
  const directory = join(cache.root, 'images', name);
  try {
    const manifest = JSON.parse(await readFile(join(directory, 'manifest.json'), 'utf8')) as Manifest;
    return manifest.format === 1 && (await complete(join(directory, manifest.key), manifest)) ? manifest : undefined;
  } catch {
    // Missing, cut short, or of a version with other fields: it is fetched anew.
    return undefined;
  }
}

/** Path of one of an image's files. */
export function imageFile(cache: Cache, manifest: Manifest, file: string): string {
  const entry = manifest.files[file];
  if (!entry)
    throw new Error(
      `Cannot open image "${manifest.name}": it has no ${file}, its files are ${Object.keys(manifest.files).join(', ')}`,
    );
  return join(cache.root, 'images', manifest.name, manifest.key, entry.path);
}

/**
 * Stores an image and makes it the current one of its name.
 * @param files contents by name; the names become file names
 */
export async function storeImage(
  cache: Cache,
  image: Pick<Manifest, 'name' | 'packages' | 'source' | 'wish'>,
  files: Readonly<Record<string, Uint8Array>>,
): Promise<Manifest> {
  const hashes = Object.entries(files).map(([path, bytes]) => ({ path, size: bytes.length, sha256: sha256(bytes) }));
  const version = image.packages.map((entry) => entry.version.replace(/[^\w.+~-]/g, '_'))[0] ?? 'none';
  const key = `${version}-${sha256(JSON.stringify([image.packages, hashes])).slice(0, 16)}`;
  const directory = join(cache.root, 'images', image.name);
  const manifest: Manifest = {
    format: 1,
    name: image.name,
    key,
    files: Object.fromEntries(hashes.map((entry) => [entry.path, entry])),
    packages: image.packages.map(({ name, version, sha256 }) => ({ name, version, sha256 })),
    source: image.source,
    ...(image.wish === undefined ? {} : { wish: image.wish }),
    date: new Date().toISOString(),
  };
  const scratch = await scratchDirectory(cache);
  try {
    for (const [path, bytes] of Object.entries(files)) await writeFile(join(scratch, path), bytes, { flush: true });
    await makeDirectory(directory);
    const place = join(directory, key);
    // What is there under this key has the same contents, unless it was damaged, which is why somebody fetches again.
    if (!(await complete(place, manifest))) await rename(place, `${scratch}-old`).catch(() => {});
    await rename(scratch, place).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
    });
  } finally {
    await rm(scratch, { recursive: true, force: true });
    await rm(`${scratch}-old`, { recursive: true, force: true });
  }
  await replaceFile(join(directory, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  await sweep(directory, [key, 'manifest.json']);
  return manifest;
}

/** Writes a file as a whole: readers see the old contents or the new ones. Missing directories are made. */
export async function replaceFile<T extends Uint8Array | string>(
  path: string,
  data: T,
  write: (path: string, data: T) => Promise<void> | void = (to, what) => writeFile(to, what, { flush: true }),
): Promise<void> {
  await makeDirectory(dirname(path));
  const temporary = join(dirname(path), `.${process.pid}-${randomUUID()}.tmp`);
  try {
    await write(temporary, data);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw new Error(
      `Cannot write ${path}: ${error instanceof Error ? error.message : error}; XDG_CACHE_HOME names another place`,
    );
  }
}

async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new Error(`Cannot make ${path}: ${error instanceof Error ? error.message : error}; XDG_CACHE_HOME names another place`);
  }
}

/** Whether a directory holds all files of an image, by their sizes (hashing 20 MB at each start would be noticed). */
async function complete(directory: string, manifest: Manifest): Promise<boolean> {
  for (const file of Object.values(manifest.files)) {
    const size = await stat(join(directory, file.path)).then(
      (found) => found.size,
      () => -1,
    );
    if (size !== file.size) return false;
  }
  return true;
}

/** Removes what interrupted or older runs left behind. */
async function sweep(directory: string, keep: readonly string[] = []): Promise<void> {
  for (const name of await readdir(directory).catch(() => [])) {
    const path = join(directory, name);
    const age =
      Date.now() -
      (await stat(path).then(
        (found) => found.mtimeMs,
        () => Date.now(),
      ));
    if (!keep.includes(name) && age > GRACE) await rm(path, { recursive: true, force: true }).catch(() => {});
  }
}

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  );
