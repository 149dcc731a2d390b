// Which files the command line of `nonroot-system-x86_64` names, for `-sandbox files=deny`: what is granted, and nothing else is reached.

import { backupsOf, type CharOptions } from '../chardev/options.ts';
import { isHttp } from '../disk/http/file.ts';
import { type DiskHost, type OpenDisk, openDisk } from '../disk/open.ts';
import type { Json } from '../rpc/qmp/json.ts';
import type { SystemHost } from './host.ts';
import type { Access, Grant } from './sandbox.ts';
import { memdevsOf } from './system-memdev-options.ts';
import type { Settings } from './system-settings.ts';

export const socketAt = (path: string): Grant => ({ path, access: 'socket' });

function* ofCharacters(o: CharOptions): Generator<Grant> {
  const outputs = [...(o.log ? [o.log.path] : []), ...(o.kind === 'file' ? [o.path] : [])];
  for (const path of outputs.flatMap((one) => [one, ...backupsOf(one, o.limit)])) yield { path, access: 'create' };
  switch (o.kind) {
    case 'file':
      if (o.input !== undefined) yield { path: o.input, access: 'read' };
      return;
    case 'pipe':
      for (const path of [o.path, `${o.path}.in`, `${o.path}.out`]) yield { path, access: 'write' };
      return;
    case 'pty':
      for (const path of ['/dev/ptmx', '/dev/pts']) yield { path, access: 'write' };
      return;
    case 'socket':
      if (o.address.kind === 'unix' && o.server) yield socketAt(o.address.path);
      return;
    default:
      return;
  }
}

/** The strings under these names, at any depth. */
function* strings(value: Json, names: readonly string[]): Generator<string> {
  if (value === null || typeof value !== 'object') return;
  for (const [name, below] of Object.entries(value)) {
    if (typeof below === 'string' && names.includes(name)) yield below;
    yield* strings(below as Json, names);
  }
}

/** An image's file, and those that it names as its backing files, read only. What cannot be opened is refused later, by name. */
export async function* ofImage(
  host: DiskHost,
  path: string,
  format: string | undefined,
  readOnly: boolean,
): AsyncGenerator<Grant> {
  if (!isHttp(path)) yield { path, access: readOnly ? 'read' : 'write' };
  if (format === 'raw') return;
  let disk: OpenDisk;
  try {
    disk = await openDisk(host, path, { readOnly: true, share: true });
  } catch {
    return;
  }
  for (let below = disk.backing; below; below = below.backing)
    if (!isHttp(below.path)) yield { path: below.path, access: 'read' };
  await disk.device.close();
}

/** Images by what the command line says of them. A node's file may be a raw image: then its header, which the guest writes, means nothing. */
async function* ofDisks(s: Settings, host: DiskHost): AsyncGenerator<Grant> {
  for (const d of s.drives) {
    const path = d.file?.['filename'] ?? d.file?.['url'];
    if (typeof path === 'string') yield* ofImage(host, path, d.format, d.readOnly || d.snapshot || s.snapshot);
  }
  const withHeaders = new Set(s.blockdevs.filter((n) => n['driver'] === 'qcow2').map((n) => n['file']));
  // What only read-only nodes are over is not written.
  const above = new Set(s.blockdevs.map((n) => n['file']));
  const written = new Set(s.blockdevs.filter((n) => n['read-only'] !== true).map((n) => n['file']));
  for (const node of s.blockdevs) {
    const hasHeader = node['driver'] === 'qcow2' || withHeaders.has(node['node-name'] as Json);
    const readOnly =
      node['read-only'] === true || (above.has(node['node-name'] as Json) && !written.has(node['node-name'] as Json));
    for (const path of strings(node, ['filename'])) yield* ofImage(host, path, hasHeader ? undefined : 'raw', readOnly);
  }
}

/** What a machine of these settings needs, the program's own files aside. `argv` as it was given, before configuration files were read. */
export async function filesOf(
  s: Settings,
  argv: readonly string[],
  { disks: host, saslFiles }: Pick<SystemHost, 'disks' | 'saslFiles'>,
): Promise<Grant[]> {
  const grants: Grant[] = [];
  const add = (access: Access, ...paths: readonly (string | undefined)[]): void => {
    for (const path of paths) if (path !== undefined) grants.push({ path, access });
  };
  add('read', s.kernel, s.initrd, s.bios, ...s.firmwareFolders, ...s.fwCfg.map((f) => f.file));
  argv.forEach((word, i) => {
    if (/^--?readconfig$/.test(word)) add('read', argv[i + 1]);
  });
  for (const path of s.flash) add(s.readOnlyFlash.has(path) ? 'read' : 'write', path);
  add('create', s.log, s.pidfile);
  add('folder', s.sandbox?.folder);
  for (const options of s.chardevs.values()) grants.push(...ofCharacters(options));
  for (const object of s.objects) add('read', ...strings(object, ['filename', 'file', 'dir']));
  // A device's memory is made where it is missing.
  const memdevs = memdevsOf(s);
  for (const object of s.objects) add(memdevs.includes(object) ? 'create' : 'write', ...strings(object, ['mem-path']));
  for (const netdev of s.netdevs) {
    for (const path of strings(netdev, ['path'])) grants.push(socketAt(path));
    if (typeof netdev['tftp'] === 'string') add('read', netdev['tftp']);
    if (netdev['type'] === 'tap') add('write', '/dev/net/tun');
  }
  for (const { path, options } of s.fsdevs) add(options.readOnly ? 'read' : 'folder', path);
  for (const path of s.devices.flatMap((d) => (typeof d['uds-path'] === 'string' ? [d['uds-path']] : [])))
    grants.push(socketAt(path));
  if (s.vnc.some((one) => one.sasl)) add('read', ...saslFiles());
  for (const { listen } of s.vnc) if (listen?.kind === 'unix') grants.push(socketAt(listen.path));
  const incoming = /^(unix|file):(.*)$/s.exec(s.incoming ?? '');
  if (incoming) grants.push(incoming[1] === 'unix' ? socketAt(incoming[2]!) : { path: incoming[2]!, access: 'read' });
  if (s.accel.includes('kvm')) add('write', '/dev/kvm');
  // What is detached later is to be out of reach then.
  for await (const grant of ofDisks(s, host)) grants.push({ ...grant, held: true });
  return grants;
}
