// Images by name: from the cache, else made of packages from the first source that has them, and stored.

import { readFile } from 'node:fs/promises';
import { catalog, findImage, type ImageRow } from '../../images/catalog.ts';
import { writeCpio } from '../../images/cpio.ts';
import { extractParts } from '../../images/image.ts';
import { buildInitramfs, initramfsEntries } from '../../images/initramfs.ts';
import { followDependency, type Package } from '../../images/packages.ts';
import type { Report } from '../../images/report.ts';
import { NoApt, type PackageSource, privateApt, systemApt } from './apt.ts';
import { type Cache, cached, imageFile, type Manifest, readManifest, sha256, storeImage, userCache } from './cache.ts';
import { mirrorSource } from './fetch-mirror.ts';
import { decompressPackage } from './unxz.ts';

/** An image that is ready to boot. */
export type Image = {
  readonly row: ImageRow;
  /** Path of the kernel as its package has it (a bzImage on a PC). */
  readonly kernel: string;
  /** Path of the initramfs; a session's overlay (images/overlay.ts) goes behind it. */
  readonly initrd: string;
  /** Kernel command line. */
  readonly append: string;
  readonly manifest: Manifest;
};

/** Where images are kept and how they are fetched; the user's cache and environment unless told. */
export type ImageOptions = {
  readonly cache?: Cache;
  readonly report?: Report;
  /** Read for NONROOT_MIRROR and NONROOT_SUITE. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Places to get packages from, in order; by default a mirror that the user named, else apt. */
  readonly sources?: (row: ImageRow) => readonly PackageSource[];
};

/**
 * An image by name. When the cache has it, nothing is run and nothing is fetched; one that was made for another list of drivers is made anew
 * where that can be done.
 * @throws Error (rejects) for an unknown name, or when no source has its packages
 */
export async function openImage(name: string, options: ImageOptions = {}): Promise<Image> {
  const row = findImage(name);
  const cache = options.cache ?? userCache();
  const kept = await readManifest(cache, name);
  if (kept?.wish === wishOf(row)) return assemble(row, cache, kept);
  try {
    return await assemble(row, cache, await fetchImage(row, cache, options));
  } catch (error) {
    // One that an earlier version of this program has made lacks drivers at the most.
    if (!kept) throw error;
    return assemble(row, cache, kept);
  }
}
/** What an image is made of, as one word. */
const wishOf = (row: ImageRow): string => sha256(JSON.stringify([row.kernel, row.busybox, row.modules])).slice(0, 16);

/**
 * Fetches an image even when the cache has it, and makes it the current one.
 * @throws Error (rejects) as openImage; what was there before stays
 */
export async function pullImage(name: string, options: ImageOptions = {}): Promise<Image> {
  const row = findImage(name);
  const cache = options.cache ?? userCache();
  return assemble(row, cache, await fetchImage(row, cache, options));
}

/** Every image of the catalog, with the manifest of those that are in the cache. */
export async function listImages(
  cache: Cache = userCache(),
): Promise<{ readonly row: ImageRow; readonly manifest?: Manifest }[]> {
  return Promise.all(
    catalog.map(async (row) => {
      const manifest = await readManifest(cache, row.name);
      return manifest ? { row, manifest } : { row };
    }),
  );
}

async function assemble(row: ImageRow, cache: Cache, manifest: Manifest): Promise<Image> {
  // Our own files may be newer than the image, so they are part of the key.
  const ours = sha256(writeCpio(initramfsEntries(new Uint8Array(0))));
  const key = sha256(ours, manifest.files['busybox']!.sha256, manifest.files['modules']!.sha256);
  const initrd = await cached(cache, `initrd-${key}.cpio`, async () => {
    const [busybox, modules] = await Promise.all(
      ['busybox', 'modules'].map((name) => readFile(imageFile(cache, manifest, name))),
    );
    return buildInitramfs(busybox!, modules!);
  });
  return { row, kernel: imageFile(cache, manifest, 'kernel'), initrd, append: row.append, manifest };
}

async function fetchImage(row: ImageRow, cache: Cache, options: ImageOptions): Promise<Manifest> {
  const failures: string[] = [];
  for (const source of options.sources?.(row) ?? packageSources(cache, options, row.arch)) {
    try {
      const { kernel, busybox, packages } = await fetchPackages(row, source);
      options.report?.({ label: `Unpacking ${row.name}`, done: 0 });
      const parts = await extractParts(row, { kernel, busybox }, decompressPackage);
      return await storeImage(cache, { name: row.name, packages, source: source.label, wish: wishOf(row) }, parts);
    } catch (error) {
      if (error instanceof NoApt) {
        throw new Error(
          `Cannot fetch image "${row.name}": there is no apt on this machine; give a kernel by --kernel and --initrd, or set NONROOT_MIRROR to the URL of a Debian mirror (and NONROOT_SUITE, default ${DEFAULT_SUITE})`,
        );
      }
      failures.push(`${source.label}: ${error instanceof Error ? error.message : error}`);
    } finally {
      await source.close();
    }
  }
  throw new Error(
    `Cannot fetch image "${row.name}":\n  ${failures.join('\n  ')}\nAccepted instead: --kernel and --initrd, or NONROOT_MIRROR set to the URL of a Debian mirror`,
  );
}

const DEFAULT_SUITE = 'bookworm';

/** Where packages of an architecture come from, in order: a mirror that the user named, else apt. */
export function packageSources(
  cache: Cache,
  { report, env = process.env }: ImageOptions,
  arch: string,
): readonly PackageSource[] {
  const mirror = env['NONROOT_MIRROR'];
  return mirror
    ? [mirrorSource(mirror, env['NONROOT_SUITE'] || DEFAULT_SUITE, arch, report)]
    : [systemApt(cache, arch, report), privateApt(cache, arch, report)];
}

async function fetchPackages(row: ImageRow, source: PackageSource) {
  const busybox = await newest(source, row.busybox);
  const kernel = await newest(source, row.kernel, /^linux-image-[0-9]/);
  return { kernel: kernel.bytes, busybox: busybox.bytes, packages: [kernel.entry, busybox.entry] };
}

/** The newest version of a package that can be had: an index may already name one that the mirror has not, or not any more. */
export async function newest(
  source: PackageSource,
  name: string,
  follow?: RegExp,
): Promise<{ entry: Package; bytes: Uint8Array }> {
  const versions = await source.find(name);
  if (versions.length === 0) throw new Error(`Cannot find package ${name}`);
  let failure: unknown;
  for (const version of versions) {
    const next = follow && followDependency(version, follow);
    const entry = next
      ? (await source.find(next.name)).find((other) => next.relation !== '=' || other.version === next.version)
      : version;
    try {
      if (!entry)
        throw new Error(`Cannot find package ${next?.name} ${next?.version ?? ''}, on which ${name} ${version.version} depends`);
      return { entry, bytes: await source.get(entry) };
    } catch (error) {
      failure ??= error;
    }
  }
  throw failure;
}
