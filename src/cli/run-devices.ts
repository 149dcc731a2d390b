// What `nonroot run` gives a guest besides kernel and terminal: disks, network, folders. Read from the command line first, opened then.

import { isHttp } from '../disk/http/file.ts';
import { type DiskHost, formatOf, openDisk } from '../disk/open.ts';
import { openOverlay } from '../disk/overlay.ts';
import type { Session } from '../images/overlay.ts';
import { type Backends, noBackends } from '../machine/backends.ts';
import type { DeviceConfig } from '../machine/device-type.ts';
import { makeDrive } from '../machine/drives.ts';
import { parseHostForward } from '../net/user-options.ts';
import type { Arguments } from './args.ts';
import type { CliHost } from './host.ts';
import type { Grant } from './sandbox.ts';
import { ofImage } from './system-files.ts';

interface DiskChoice {
  readonly path: string;
  readonly format: 'raw' | 'qcow2' | undefined;
  readonly readOnly: boolean;
  /** Changes are thrown away at the end. */
  readonly snapshot: boolean;
}
interface ShareChoice {
  readonly path: string;
  /** Where the guest finds it. */
  readonly guest: string;
  readonly readOnly: boolean;
}
export interface DeviceChoices {
  readonly disks: readonly DiskChoice[];
  readonly cdrom: string | undefined;
  readonly net: boolean;
  /** `hostfwd=` rules. */
  readonly forwards: readonly string[];
  readonly shares: readonly ShareChoice[];
}
/** What was opened: devices and their back-ends, and what the guest is to be told. */
export interface GuestDevices {
  readonly devices: readonly DeviceConfig[];
  readonly backends: Backends;
  readonly session: Pick<Session, 'shares' | 'address'>;
  /** Gives all back; what was written is on the host's storage then. */
  close(): Promise<void>;
}

/** The user network's first address, which saves a command's guest from asking for it. */
const ADDRESS = { address: '10.0.2.15/24', gateway: '10.0.2.2', dns: '10.0.2.3' } as const;

function diskChoice(text: string): DiskChoice {
  const [path = '', ...items] = text.split(',');
  let format: DiskChoice['format'];
  let readOnly = false;
  let snapshot = false;
  for (const item of items) {
    if (item === 'ro') readOnly = true;
    else if (item === 'snapshot') snapshot = true;
    else if (item.startsWith('format=')) format = formatOf(item.slice(7));
    else throw new Error(`Cannot use --disk ${text}: "${item}" found; accepted are FILE, format=raw|qcow2, ro, snapshot`);
  }
  if (path === '') throw new Error(`Cannot use --disk ${text}: the file is missing`);
  if (isHttp(path) && !readOnly && !snapshot)
    throw new Error(
      `Cannot use --disk ${text}: a web server's disk is read-only; accepted are ro, snapshot, and a qcow2 image over it`,
    );
  return { path, format, readOnly, snapshot };
}

/** `[ADDRESS:]HOST:GUEST[/tcp|/udp]` as a `hostfwd=` rule. */
function forward(text: string): string {
  const found = /^(?:(\d+\.\d+\.\d+\.\d+):)?(\d+):(\d+)(?:\/(tcp|udp))?$/.exec(text);
  const rule = found && `${found[4] ?? 'tcp'}:${found[1] ?? '127.0.0.1'}:${found[2]}-:${found[3]}`;
  if (!rule)
    throw new Error(`Cannot use --publish ${text}: accepted are HOST:GUEST port numbers, as 8080:80 or 0.0.0.0:8080:80/udp`);
  parseHostForward(rule, Uint8Array.of(10, 0, 2, 15));
  return rule;
}

function shareChoice(text: string): ShareChoice {
  const readOnly = text.endsWith(':ro');
  const path = readOnly ? text.slice(0, -3) : text;
  const name = path.split('/').findLast((part) => part !== '' && part !== '.' && part !== '..') ?? 'share';
  if (path === '') throw new Error(`Cannot use --share ${text}: the folder is missing`);
  if (!/^[\w.@%+=-]+$/.test(name))
    throw new Error(
      `Cannot use --share ${text}: accepted are names of letters, digits and .@%+=-_, as the guest finds it at /mnt/NAME`,
    );
  return { path, guest: `/mnt/${name}`, readOnly };
}

/**
 * What the command line asks for.
 * @throws Error for what cannot be meant
 */
export function deviceChoices(args: Arguments): DeviceChoices {
  const forwards = args.all('--publish').map(forward);
  const net = args.get('--net') ?? (forwards.length > 0 ? 'user' : 'none');
  if (net !== 'none' && net !== 'user') throw new Error(`Cannot use --net ${net}: accepted are user and none`);
  if (net === 'none' && forwards.length > 0) throw new Error('Cannot use --publish with --net none: accepted is --net user');
  const shares = args.all('--share').map(shareChoice);
  for (const [n, { guest }] of shares.entries())
    if (shares.findIndex((s) => s.guest === guest) !== n)
      throw new Error(`Cannot share two folders as ${guest}: their names must differ`);
  return { disks: args.all('--disk').map(diskChoice), cdrom: args.get('--cdrom'), net: net === 'user', forwards, shares };
}

/** The files of the host that this opens, images' backing files included. */
export async function filesOfDevices(choices: DeviceChoices, host: DiskHost): Promise<Grant[]> {
  const grants: Grant[] = choices.shares.map(({ path, readOnly }) => ({ path, access: readOnly ? 'read' : 'folder' }));
  for (const { path, format, readOnly, snapshot } of choices.disks)
    for await (const grant of ofImage(host, path, format, readOnly || snapshot)) grants.push(grant);
  if (choices.cdrom !== undefined) grants.push({ path: choices.cdrom, access: 'read' });
  return grants;
}

/**
 * Opens it all. `command`: the guest runs one command and ends. `ours`: its initramfs is the image's.
 * @throws Error (rejects) with one line
 */
export async function openDevices(
  choices: DeviceChoices,
  host: CliHost,
  guest: { readonly command: boolean; readonly ours: boolean },
): Promise<GuestDevices> {
  const backends = noBackends();
  const devices: DeviceConfig[] = [];
  const closers: (() => Promise<void> | void)[] = [];
  const close = async (): Promise<void> => {
    for (const f of closers.splice(0).reverse()) await f();
  };
  const drive = async (id: string, d: DiskChoice): Promise<void> => {
    const open = await openDisk(host.disks, d.path, { format: d.format, readOnly: d.readOnly || d.snapshot });
    const device = d.snapshot ? await openOverlay(open.device, host.disks.codec, host.disks.temporary) : open.device;
    closers.push(() => device.close());
    backends.drives.add(id, makeDrive(id, device, { discard: true, readOnly: d.readOnly, onWriteError: 'report' }));
  };
  try {
    for (const [n, disk] of choices.disks.entries()) {
      await drive(`disk${n}`, disk);
      devices.push({ driver: 'virtio-blk-pci', drive: `disk${n}` });
    }
    if (choices.cdrom !== undefined) {
      await drive('cdrom', { path: choices.cdrom, format: 'raw', readOnly: true, snapshot: false });
      devices.push({ driver: 'virtio-scsi-pci', id: 'scsi' }, { driver: 'scsi-cd', bus: 'scsi.0', drive: 'cdrom' });
    }
    if (choices.net) {
      const net = await host.userNet(choices.forwards);
      closers.push(() => net.close());
      backends.netdevs.add('net', { kind: 'user', port: net.port });
      devices.push({ driver: 'virtio-net-pci', netdev: 'net' });
    }
    for (const [n, share] of choices.shares.entries()) {
      const folder = await host.folder(share.path, { readOnly: share.readOnly });
      closers.push(() => folder.close());
      backends.fsdevs.add(`share${n}`, folder);
      devices.push({ driver: 'virtio-fs-pci', fsdev: `share${n}`, tag: `share${n}` });
      // Kernels that the user brings may have the one or the other.
      if (!guest.ours) devices.push({ driver: 'virtio-9p-pci', fsdev: `share${n}`, mount_tag: `share${n}` });
    }
  } catch (error) {
    await close();
    throw error;
  }
  return {
    devices,
    backends,
    session: {
      shares: choices.shares.map((s, n) => ({ tag: `share${n}`, path: s.guest, readonly: s.readOnly })),
      ...(choices.net && guest.command ? { address: ADDRESS } : {}),
    },
    close,
  };
}
