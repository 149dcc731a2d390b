// `<domainsnapshot>` (libvirt 9.0, formatsnapshot).
import {
  attribute,
  type Codec,
  child,
  children,
  element,
  kept,
  leaf,
  oneOf,
  required,
  string,
  unsigned,
  type Value,
} from './codec.ts';
import { type Domain, domainElement, readDomain } from './domain.ts';
import { errorCode, internalError, unsupported, xmlError } from './errors.ts';
import { checkName } from './model/sizes.ts';
import { formatXml, parseRoot } from './xml.ts';

const states = [
  ...(['nostate', 'running', 'blocked', 'paused', 'shutdown', 'shutoff', 'crashed', 'pmsuspended', 'disk-snapshot'] as const),
] as const;
export type SnapshotState = (typeof states)[number];

const domain: Codec<Domain> = { name: 'domain', parse: readDomain, format: (value) => domainElement(value) };

const snapshotDisk = element('disk', {
  name: required('name', string),
  snapshot: attribute('snapshot', oneOf('no', 'internal', 'external', 'manual')),
  type: attribute('type', oneOf('file', 'block', 'network')),
  driver: child(element('driver', { type: attribute('type', string) })),
  source: child(
    element('source', {
      file: attribute('file', string),
      dev: attribute('dev', string),
      startupPolicy: attribute('startupPolicy', string),
    }),
  ),
});

const root = element('domainsnapshot', {
  name: leaf('name', string),
  description: leaf('description', string),
  state: leaf('state', oneOf(...states), {
    invalid: (text) => unsupported(`Invalid state '${text}' in domain snapshot XML`),
  }),
  parent: child(element('parent', { name: leaf('name', string) })),
  creationTime: leaf('creationTime', unsigned),
  memory: child(
    element('memory', { snapshot: attribute('snapshot', oneOf('no', 'internal', 'external')), file: attribute('file', string) }),
  ),
  disks: child(element('disks', { disks: children(snapshotDisk) })),
  domain: child(domain),
  inactiveDomain: kept('inactiveDomain'),
  cookie: kept('cookie'),
  active: leaf('active', string),
});

/** A snapshot; `creationTime` is in seconds since 1970. */
export type Snapshot = Value<typeof root>;

export interface SnapshotParse {
  /** The document describes a snapshot that is there (`VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE`), so its state and time are needed. */
  redefine?: boolean;
}

/** @throws DomainXmlError with libvirt's code and message. */
export function parseSnapshot(text: string, { redefine }: SnapshotParse = {}): Snapshot {
  const value = root.parse(parseRoot(text, 'domainsnapshot', 'domain_snapshot'));
  if (value.name !== undefined) checkName(value.name, errorCode.xml, 'snapshot name cannot be empty');
  if (redefine) {
    if (value.name === undefined) throw xmlError('a redefined snapshot must have a name');
    if (value.creationTime === undefined) throw internalError('missing creationTime from existing snapshot');
    if (value.state === undefined) throw xmlError('missing state from existing snapshot');
    value.memory ??= { snapshot: value.state === 'shutoff' || value.state === 'disk-snapshot' ? 'no' : 'internal' };
  }
  if (value.memory?.snapshot === 'external' && value.memory.file === undefined) {
    throw xmlError('external memory snapshots require a filename');
  }
  return value;
}

/** The snapshot's XML text as libvirt prints it. */
export const formatSnapshot = (snapshot: Snapshot): string => formatXml(root.format(snapshot));
