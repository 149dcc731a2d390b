// A connection to a daemon by its URI, as libvirt's clients write it; for the command line and for migration.
import { RpcClient } from '../rpc/client.ts';
import { libvirtError } from '../rpc/libvirt/errors.ts';
import { remote } from '../rpc/libvirt/programs.ts';
import type { Sockets, TlsFiles } from './host.ts';

const ports = { tcp: 16_509, tls: 16_514 } as const;

export interface ParsedUri {
  readonly transport: 'unix' | 'tcp' | 'tls';
  readonly host: string;
  readonly port: number | undefined;
  /** `/system` or `/session`. */
  readonly path: string;
  readonly query: ReadonlyMap<string, string>;
}

/** `qemu+tcp://host:port/system`, `qemu+unix:///system?socket=PATH`, `qemu:///system`. @throws {LibvirtError} for another form */
export function parseUri(uri: string): ParsedUri {
  const match = /^qemu(?:\+(tcp|tls|unix))?:\/\/(?:[^@/]*@)?(\[[^\]]+\]|[^:/]*)(?::(\d+))?(\/[^?]*)?(?:\?(.*))?$/.exec(uri);
  if (!match)
    throw libvirtError(
      'invalidArg',
      'uri',
      `cannot use URI ${uri}: accepted are qemu:///, qemu+unix:///, qemu+tcp://HOST/ and qemu+tls://HOST/`,
    );
  const [, given, host = '', port, path = '/system', query = ''] = match;
  const pairs = query.split(/[&;]/).filter((part) => part !== '');
  return {
    transport: (given as ParsedUri['transport'] | undefined) ?? (host === '' ? 'unix' : 'tls'),
    host: host.replace(/[[\]]/g, ''),
    port: port === undefined ? undefined : Number(port),
    path,
    query: new Map(pairs.map((part) => [part.split('=')[0]!, decodeURIComponent(part.split('=').slice(1).join('='))])),
  };
}

/** Connects and opens. `socket` is where a URI leads that names none. @throws what the socket or the daemon says */
export async function connectUri(sockets: Sockets, uri: string, socket: string, tls: TlsFiles | undefined): Promise<RpcClient> {
  const { transport, host, port, path, query } = parseUri(uri);
  const duplex =
    transport === 'unix'
      ? await sockets.connect(query.get('socket') ?? socket)
      : await sockets.connectTcp(host, port ?? ports[transport], transport === 'tls' ? tls : undefined);
  const peer = new RpcClient(duplex);
  try {
    await peer.call(remote, 'authList');
    await peer.call(remote, 'connectSupportsFeature', { feature: 10 });
    await peer.call(remote, 'connectOpen', { name: `qemu://${path}`, flags: 0 });
    return peer;
  } catch (error) {
    peer.close();
    throw error;
  }
}
