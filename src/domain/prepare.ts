// A definition becomes what one run of the guest is: names, ports, socket paths, numbers of the block nodes (libvirt 9.0).
import { assignAliases } from './aliases.ts';
import type { Domain } from './domain.ts';
import { unsupported } from './errors.ts';
import { hasSource } from './model/disk.ts';

/** The files of a firmware that the host has. */
export interface Firmware {
  /** The code, read-only. */
  executable: string;
  /** The variables to start from. */
  template: string;
  /** Needs SMM. */
  secure: boolean;
}

export interface PrepareContext {
  id: number;
  /** Directory of the sockets of channels whose path the document leaves open. */
  channelDirectory: string;
  /** Address on which graphics listen when the document gives none. */
  listenAddress: string;
  /** The same for VNC, where it is another one. */
  vncAddress?: string | undefined;
  /** VNC listens on a socket in the guest's directory when the document gives no address. */
  vncSocket?: boolean | undefined;
  /** The guest's directory. */
  directory: string;
  /** A free TCP port for graphics of the given kind. */
  freePort(kind: 'vnc' | 'spice' | 'websocket'): number;
  /** The firmware for `<os firmware='efi'>`; undefined when the host has none. */
  firmware?(domain: Domain): Firmware | undefined;
  /** File of the guest's firmware variables. */
  nvramPath: string;
}

/**
 * Fills in, in place, what a start decides. The backing chains of disks should be in the document before, as `<backingStore>`.
 * @throws DomainXmlError when the firmware that the document asks for is not there.
 */
export function prepareDomain(domain: Domain, context: PrepareContext): Domain {
  domain.id = context.id;
  assignAliases(domain);
  chooseFirmware(domain, context);
  prepareGraphics(domain, context);
  for (const one of domain.devices.channels) {
    if (one.type !== 'unix' || one.sources.length > 0) continue;
    one.sources = [{ mode: 'bind', path: `${context.channelDirectory}/${one.target?.name ?? one.alias?.name}`, seclabels: [] }];
  }
  for (const one of [
    ...domain.devices.serials,
    ...domain.devices.parallels,
    ...domain.devices.consoles,
    ...domain.devices.channels,
  ]) {
    if (one.type === 'tcp') for (const source of one.sources) source.tls ??= 'no';
  }
  numberSources(domain);
  return domain;
}

function chooseFirmware(domain: Domain, context: PrepareContext): void {
  const { os } = domain;
  if (os.firmware === 'efi' && !os.loader) {
    const firmware = context.firmware?.(domain);
    if (!firmware) throw unsupported("Unable to find any firmware to satisfy 'efi'");
    os.loader = { readonly: 'yes', type: 'pflash', path: firmware.executable };
    if (firmware.secure) os.loader.secure = 'yes';
    os.nvram = { template: firmware.template, path: context.nvramPath, ...os.nvram };
  }
  if (os.loader?.type === 'pflash' && os.nvram) os.nvram.path ??= context.nvramPath;
}

function prepareGraphics(domain: Domain, context: PrepareContext): void {
  for (const one of domain.devices.graphics) {
    if (one.type !== 'vnc' && one.type !== 'spice') continue;
    const [listen] = one.listens;
    const inDirectory =
      one.type === 'vnc' && context.vncSocket === true && listen?.type === 'address' && listen.address === undefined;
    if (listen && inDirectory) listen.type = 'socket';
    if (listen?.type === 'socket') listen.socket ??= `${context.directory}/${one.type}.sock`;
    if (listen?.type === 'socket' || listen?.type === 'none') continue;
    if (listen) {
      listen.address ??= (one.type === 'vnc' ? context.vncAddress : undefined) ?? context.listenAddress;
      one.listen = listen.address;
    }
    if (one.port === undefined || one.port === -1) one.port = context.freePort(one.type);
    if (one.websocket === -1) one.websocket = context.freePort('websocket');
    if (one.tlsPort === -1) one.tlsPort = context.freePort('spice');
  }
}

/** Numbers every level of every backing chain, the last disk first: they are in the names of the block nodes. */
function numberSources(domain: Domain): void {
  let index = 0;
  for (const disk of domain.devices.disks.toReversed()) {
    index++;
    if (!hasSource(disk) || !disk.source) {
      // An empty drive: what will be in it has its own format.
      if (disk.driver) delete disk.driver.type;
      continue;
    }
    disk.source.index = index;
    if (disk.driver?.type === 'raw') disk.backingStore ??= {};
    for (let store = disk.backingStore; store?.type !== undefined; store = store.backingStore) store.index = ++index;
  }
}
