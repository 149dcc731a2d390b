// What the daemon knows of each client: opened or not, read-only or not, who it is. libvirt "RPC protocol", "Access control".
import { libvirtError } from '../rpc/libvirt/errors.ts';
import type { Call, ServerConnection } from '../rpc/server.ts';
import type { ClientInfo } from './host.ts';

export interface Session {
  readonly client: ClientInfo;
  opened: boolean;
  readOnly: boolean;
  /** What must be done before `connectOpen`. */
  authentication: 'none' | 'sasl' | 'done';
  /** Name by SASL. */
  user: string | undefined;
  /** UUIDs of domains that end with this connection. */
  readonly autodestroy: Set<string>;
  wantsCloseMessage: boolean;
  /** To be run when the connection ends. */
  readonly onClose: Set<() => void>;
  /** An authentication in progress. */
  sasl: unknown;
}

/** Calls that come before `connectOpen`. */
const beforeOpen = /^(auth|connectOpen$|connectSupportsFeature$|connectClose$|connectSetIdentity$)/;

/** Calls that a read-only client may make: those that change nothing. */
const readOnlyCalls = new RegExp(
  [
    '^(auth|connect(Open|Close|Get|Supports|Is|List|NumOf|Compare|Baseline|Register|Unregister|SetIdentity|DomainEvent|NetworkEvent|StoragePoolEvent|NodeDeviceEvent|SecretEvent)',
    'domain(Lookup|GetState|GetInfo|GetXmlDesc|Get(?!Guest|Fsinfo|Time|Hostname)|Is|Has|MemoryStats|BlockStats|InterfaceStats|List)',
    'domainSnapshot(GetXmlDesc|Num|List|Lookup|Current|GetParent|IsCurrent|HasMetadata)|domainCheckpoint(GetXmlDesc|List|Lookup|GetParent)',
    'domainBackupGetXmlDesc',
    'node(Get|NumOf|List|DeviceLookup|DeviceGet|DeviceNumOf|DeviceList|DeviceIs)',
    'network(Lookup|Get|Is|List|PortLookup|PortGet)|interface(Lookup|Get|Is)|nwfilter(Lookup|Get)|nwfilterBinding(Lookup|Get)',
    'storagePool(Lookup|Get|Is|List|NumOf)|storageVol(Lookup|Get)|secretLookup|secretGetXmlDesc)',
  ].join('|'),
);

/** `virDomainCreate` of `domainCreate`. */
export const apiName = (procedure: string): string => {
  const name = procedure
    .replace(/Xml/g, 'XML')
    .replace(/Uuid/g, 'UUID')
    .replace(/Cpu(?!map)/g, 'CPU')
    .replace(/^nwfilter/, 'NWFilter');
  return `vir${name[0]!.toUpperCase()}${name.slice(1)}`;
};

export class Sessions {
  readonly #sessions = new Map<ServerConnection, Session>();

  add(connection: ServerConnection, session: Session): void {
    this.#sessions.set(connection, session);
  }
  remove(connection: ServerConnection): void {
    this.#sessions.delete(connection);
  }
  of(call: Pick<Call, 'connection'>): Session {
    return this.#sessions.get(call.connection)!;
  }
  get count(): number {
    return this.#sessions.size;
  }
  all(): readonly (readonly [ServerConnection, Session])[] {
    return [...this.#sessions];
  }
}

/** Throws for a call that this client may not make at this moment. */
export function admit(session: Session, name: string): void {
  if (session.authentication === 'sasl' && !/^(auth|connectClose$|connectSupportsFeature$)/.test(name)) {
    throw libvirtError('authFailed', 'rpc', 'authentication required');
  }
  if (!session.opened && !beforeOpen.test(name)) throw libvirtError('internalError', 'rpc', 'connection not open');
  if (session.readOnly && !readOnlyCalls.test(name)) {
    throw libvirtError('operationDenied', 'domain', `read only access prevents ${apiName(name)}`);
  }
}
