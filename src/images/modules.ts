// Kernel modules for an initramfs: which files a set of drivers needs, and the tables by which modprobe finds them.
// modules.dep(5), depmod(8), and ELF (System V gABI 4.1, chapter 4) for the .modinfo section.

import { type CpioEntry, file } from './cpio.ts';

/** A module file of a package: path relative to the root (`lib/modules/VERSION/kernel/….ko`), uncompressed bytes. */
export type ModuleFile = { readonly path: string; readonly data: Uint8Array };

/** What depmod reads of a module. */
export type ModuleInfo = {
  readonly depends: readonly string[];
  readonly aliases: readonly string[];
  readonly soft: readonly string[];
};

/** Canonical module name of a file: `virtio-rng.ko.xz` is `virtio_rng`. */
export const moduleName = (path: string): string =>
  path
    .slice(path.lastIndexOf('/') + 1)
    .replace(/\.ko(\.\w+)?$/, '')
    .replaceAll('-', '_');

/**
 * The .modinfo of a module.
 * @throws Error when the bytes are not a little-endian ELF file, or a table of it reaches outside of it
 */
export function readModuleInfo(bytes: Uint8Array): ModuleInfo {
  const depends: string[] = [];
  const aliases: string[] = [];
  const soft: string[] = [];
  for (const entry of section(bytes, '.modinfo').split('\0')) {
    const equals = entry.indexOf('=');
    const [key, value] = [entry.slice(0, equals), entry.slice(equals + 1)];
    if (key === 'depends')
      depends.push(
        ...value
          .split(',')
          .filter((name) => name !== '')
          .map(moduleName),
      );
    if (key === 'alias') aliases.push(value);
    if (key === 'softdep')
      soft.push(
        ...value
          .split(/\s+/)
          .filter((name) => name !== '' && !name.endsWith(':'))
          .map(moduleName),
      );
  }
  return { depends, aliases, soft };
}

/**
 * The files that the wanted drivers need, with modules.dep and modules.alias. Names that the kernel has not (built in, or left
 * out of its configuration) are skipped: one list of drivers serves kernels that are configured differently.
 * @param load bytes of a module by path, called once for each one that is taken
 */
export async function moduleEntries(
  paths: Iterable<string>,
  wanted: readonly string[],
  load: (path: string) => Promise<Uint8Array>,
): Promise<CpioEntry[]> {
  const byName = new Map<string, string>();
  for (const path of paths) if (/\.ko(\.\w+)?$/.test(path)) byName.set(moduleName(path), path);
  const taken = new Map<string, { path: string; info: ModuleInfo; data: Uint8Array }>();
  const queue = wanted.map(moduleName);
  for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
    const path = byName.get(name);
    if (path === undefined || taken.has(name)) continue;
    const data = await load(path);
    const info = readModuleInfo(data);
    taken.set(name, { path: path.replace(/\.ko\.\w+$/, '.ko'), info, data });
    queue.push(...info.depends, ...info.soft);
  }
  const root = [...taken.values()][0]?.path.match(/^.*?lib\/modules\/[^/]+\//)?.[0];
  if (root === undefined) return [];
  const names = [...taken.keys()].sort();
  const relative = (name: string) => taken.get(name)!.path.slice(root.length);
  const dependencies = names.map(
    (name) =>
      `${relative(name)}:${closure(name, taken)
        .map((other) => ` ${relative(other)}`)
        .join('')}\n`,
  );
  const aliases = names.flatMap((name) => taken.get(name)!.info.aliases.map((alias) => `alias ${alias} ${name}\n`));
  return [
    ...names.map((name) => file(taken.get(name)!.path, taken.get(name)!.data)),
    file(`${root}modules.dep`, dependencies.join('')),
    file(`${root}modules.alias`, aliases.join('')),
  ];
}

/** Everything that must be loaded before a module, as modules.dep lists it: each module left of what it needs (loaded from the right). */
function closure(name: string, taken: ReadonlyMap<string, { info: ModuleInfo }>): string[] {
  const seen = new Set([name]);
  const needed: string[] = [];
  const visit = (at: string) => {
    for (const other of taken.get(at)?.info.depends ?? []) {
      if (seen.has(other) || !taken.has(other)) continue;
      seen.add(other);
      visit(other);
      needed.push(other);
    }
  };
  visit(name);
  return needed.reverse();
}

/** Contents of an ELF section as Latin-1 text; empty when there is none. */
function section(bytes: Uint8Array, wanted: string): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 64 || view.getUint32(0) !== 0x7f454c46 || bytes[5] !== 1) {
    throw new Error('Cannot read kernel module: not a little-endian ELF file');
  }
  const wide = bytes[4] === 2;
  const word = (at: number) => (wide ? Number(view.getBigUint64(at, true)) : view.getUint32(at, true));
  const text = (from: number, to: number) => {
    if (to > bytes.length || to < from)
      throw new Error(`Cannot read kernel module: a section reaches to ${to}, the file has ${bytes.length} bytes`);
    let out = '';
    for (let i = from; i < to; i++) out += String.fromCharCode(bytes[i]!);
    return out;
  };
  const table = word(wide ? 0x28 : 0x20);
  const [stride, count, names] = [0, 2, 4].map((offset) => view.getUint16((wide ? 0x3a : 0x2e) + offset, true)) as [
    number,
    number,
    number,
  ];
  if (stride < (wide ? 64 : 40) || table + stride * count > bytes.length || names >= count)
    throw new Error('Cannot read kernel module: no section table');
  const header = (index: number) => {
    const at = table + index * stride;
    return { name: view.getUint32(at, true), offset: word(at + (wide ? 0x18 : 0x10)), size: word(at + (wide ? 0x20 : 0x14)) };
  };
  const strings = header(names);
  for (let index = 0; index < count; index++) {
    const { name, offset, size } = header(index);
    if (
      name + wanted.length < strings.size &&
      text(strings.offset + name, strings.offset + name + wanted.length + 1) === `${wanted}\0`
    ) {
      return text(offset, offset + size);
    }
  }
  return '';
}
