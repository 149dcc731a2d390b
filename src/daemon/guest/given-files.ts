// Files for emulators that are confined to those of their command line (`-sandbox files=deny`): what a command names later goes along
// as a descriptor, open for what the command needs and no more. Clients that speak to the monitor themselves get nothing.
import { isObject, type Json } from '../../rpc/qmp/json.ts';
import type { Daemon } from '../daemon.ts';
import { systemError } from '../errors.ts';
import type { FileMode } from '../host.ts';
import { levelsOf } from './block-nodes.ts';
import type { Run } from './guest.ts';

/** The command of ours that brings one; who has it can be confined. */
export const admitCommand = 'nonroot-admit-file';

/** The host's device behind which all taps are. */
const TUN = '/dev/net/tun';

type Arguments = Readonly<Record<string, Json | undefined>>;
interface Given {
  readonly path: string;
  readonly mode: FileMode;
}

const textOf = (value: Json | undefined): string | undefined => (typeof value === 'string' ? value : undefined);

/** Path of the file below a format node. */
async function fileBelow(run: Run, node: string): Promise<string | undefined> {
  const nodes = await run.monitor.execute('query-named-block-nodes', { flat: true });
  const found = (Array.isArray(nodes) ? nodes : []).find((one) => isObject(one) && one['node-name'] === node);
  return isObject(found) ? textOf(found['file']) : undefined;
}

/** What is written below these nodes. */
async function below(run: Run, ...nodes: readonly (Json | undefined)[]): Promise<Given[]> {
  const given: Given[] = [];
  for (const node of nodes) {
    const path = typeof node === 'string' ? await fileBelow(run, node) : undefined;
    if (path?.startsWith('/')) given.push({ path, mode: 'write' });
  }
  return given;
}

/** Nodes of files open for reading; what is over them says whether they are written. */
const hostDrivers: readonly (Json | undefined)[] = ['file', 'host_device', 'host_cdrom'];

const commands: Readonly<Record<string, (run: Run, args: Arguments) => Promise<Given[]> | Given[]>> = {
  'blockdev-add'(run, args) {
    const path = textOf(args['filename']);
    if (hostDrivers.includes(args['driver'])) return path === undefined ? [] : [{ path, mode: 'read' }];
    return args['read-only'] === true ? [] : below(run, args['file']);
  },
  // The base takes what is committed; the image over the top gets another one below it.
  'block-commit'(run, args) {
    const levels =
      run.domain.devices.disks.map(levelsOf).find((all) => all.some((l) => nodeOf(l.index) === args['top-node'])) ?? [];
    const top = levels.findIndex((l) => nodeOf(l.index) === args['top-node']);
    const over = levels[top - 1];
    return below(run, args['base-node'], args['top-node'], ...(over ? [nodeOf(over.index)] : []));
  },
  'dump-guest-memory'(_, args) {
    const path = /^file:(.*)$/s.exec(textOf(args['protocol']) ?? '')?.[1];
    return path === undefined ? [] : [{ path, mode: 'create' }];
  },
  'object-add'(_, args) {
    const path = textOf(args['filename']);
    if (path !== undefined) return [{ path, mode: 'read' }];
    if (args['qom-type'] !== 'tls-creds-x509') return [];
    const names = ['ca-cert', `${args['endpoint']}-cert`, `${args['endpoint']}-key`];
    return names.map((name) => ({ path: `${args['dir']}/${name}.pem`, mode: 'read' }));
  },
  netdev_add: (_, args) => (args['type'] === 'tap' && args['fd'] === undefined ? [{ path: TUN, mode: 'write' }] : []),
};
const nodeOf = (index: number): string => `libvirt-${index}-format`;

/**
 * Sends the emulator what this command will open. A file that is not there is left to the emulator's own words.
 * @throws {LibvirtError} when the daemon may not open it either
 */
export async function giveFiles(daemon: Daemon, run: Run, command: string, args: Arguments = {}): Promise<void> {
  if (!run.confined || !Object.hasOwn(commands, command)) return;
  for (const { path, mode } of await commands[command]!(run, args)) {
    if (mode !== 'create' && (await daemon.host.files.status(path)) === undefined) continue;
    const file = await daemon.host.files.descriptor(path, mode).catch((error: Error) => {
      throw systemError('qemu', `unable to open ${path}`, error);
    });
    try {
      const write = mode !== 'read';
      await run.monitor.execute(admitCommand, { path, ...(write && { write }) }, { fd: file.fd });
    } finally {
      file.close();
    }
  }
}
