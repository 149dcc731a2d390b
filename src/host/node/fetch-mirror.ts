// Packages from a Debian mirror by URL, for machines without apt: the Debian repository format (wiki.debian.org/DebianRepository/Format).

import type { Compression } from '../../images/deb.ts';
import { type Package, parsePackages, parseStanza } from '../../images/packages.ts';
import type { Report } from '../../images/report.ts';
import type { PackageSource } from './apt.ts';
import { fetchFile } from './fetch.ts';
import { decompressPackage } from './unxz.ts';

const INDEXES: readonly (readonly [string, Compression])[] = [
  ['Packages.xz', 'xz'],
  ['Packages.gz', 'gzip'],
];

/**
 * The section `main` of one suite. The index is checked against the suite's Release file, packages against the index; the
 * signature of Release is not checked, so the mirror (or the way to it) has to be trusted, as https: allows.
 * @param base URL under which `dists/` and `pool/` lie
 */
export function mirrorSource(base: string, suite: string, arch: string, report?: Report): PackageSource {
  if (!URL.canParse(base))
    throw new Error(`Cannot use mirror "${base}": NONROOT_MIRROR accepts a URL under which dists/ and pool/ lie`);
  const root = new URL(base.endsWith('/') ? base : `${base}/`);
  let index: Promise<string> | undefined;
  return {
    label: `mirror ${root.href}`,
    async find(name) {
      index ??= fetchIndex(root, suite, arch, report);
      return parsePackages(await index, (other) => other === name).get(name) ?? [];
    },
    get: (entry: Package) => fetchFile(new URL(entry.filename.split('/').map(encodeURIComponent).join('/'), root), entry, report),
    close: async () => {},
  };
}

async function fetchIndex(root: URL, suite: string, arch: string, report?: Report): Promise<string> {
  const folder = new URL(`dists/${suite}/`, root);
  const release = parseStanza(new TextDecoder().decode(await fetchFile(new URL('Release', folder), {}, report)));
  const sums = (release.get('sha256') ?? '').split('\n').map((line) => line.trim().split(/\s+/));
  for (const [file, format] of INDEXES) {
    const path = `main/binary-${arch}/${file}`;
    const [hash, size] = sums.find((entry) => entry[2] === path) ?? [];
    if (hash === undefined) continue;
    const bytes = await fetchFile(new URL(path, folder), { sha256: hash, size: Number(size) }, report);
    return new TextDecoder().decode(await decompressPackage(format, bytes));
  }
  throw new Error(`Cannot use suite "${suite}": its Release lists no main/binary-${arch}/Packages.xz or .gz`);
}
