// Objects that users make with `-object` and object-add, as a table: their arguments, from which the schema, help and the object model
// follow. QEMU 7.2 "QEMU QMP Reference Manual", qapi/qom.json.

import { array, bool, enumeration, int, type Members, object, optional, str, union } from '../../rpc/qmp/schema.ts';
import type { PropertyInfo } from './types.ts';

export interface ObjectType {
  readonly parent: string;
  readonly members: Members;
  readonly properties: readonly PropertyInfo[];
}

/** Names of QOM's types by the labels of ours. */
const typeNames: Readonly<Record<string, string>> = { boolean: 'bool', integer: 'int' };
const row = (parent: string, members: Members): ObjectType => ({
  parent,
  members,
  properties: Object.entries(members).map(([name, member]) => {
    const { label } = 'optional' in member ? member.optional : member;
    return { name, type: typeNames[label] ?? label };
  }),
});

const memory = {
  dump: optional(bool),
  'host-nodes': optional(array(int)),
  merge: optional(bool),
  policy: optional(enumeration('HostMemPolicy', ['default', 'preferred', 'bind', 'interleave'])),
  prealloc: optional(bool),
  'prealloc-threads': optional(int),
  share: optional(bool),
  reserve: optional(bool),
  size: int,
  'x-use-canonical-path-for-ramblock-id': optional(bool),
} as const;
const loop = { 'aio-max-batch': optional(int), 'thread-pool-min': optional(int), 'thread-pool-max': optional(int) } as const;

const credentials = {
  'verify-peer': optional(bool),
  dir: optional(str),
  endpoint: optional(enumeration('QCryptoTLSCredsEndpoint', ['client', 'server'])),
  priority: optional(str),
  loaded: optional(bool),
} as const;

const authzPolicy = enumeration('QAuthZListPolicy', ['deny', 'allow']);
const authzRule = object('QAuthZListRule', {
  match: str,
  policy: authzPolicy,
  format: optional(enumeration('QAuthZListFormat', ['exact', 'glob'])),
});

const authzList = { policy: optional(authzPolicy), rules: optional(array(authzRule)) } as const;
/** What a file of `authz-list-file` holds. */
export const authzListFile = object('QAuthZListFile', authzList);

/** By `qom-type`. */
export const objectTypes: Readonly<Record<string, ObjectType>> = {
  'memory-backend-ram': row('memory-backend', memory),
  'memory-backend-file': row('memory-backend', {
    ...memory,
    align: optional(int),
    'discard-data': optional(bool),
    'mem-path': str,
    readonly: optional(bool),
  }),
  'memory-backend-memfd': row('memory-backend', {
    ...memory,
    hugetlb: optional(bool),
    hugetlbsize: optional(int),
    seal: optional(bool),
  }),
  'authz-list': row('authz', authzList),
  'authz-list-file': row('authz', { filename: str, refresh: optional(bool) }),
  'authz-simple': row('authz', { identity: str }),
  iothread: row('object', {
    ...loop,
    'poll-max-ns': optional(int),
    'poll-grow': optional(int),
    'poll-shrink': optional(int),
  }),
  'main-loop': row('object', loop),
  'rng-random': row('rng-backend', { opened: optional(bool), filename: optional(str) }),
  'rng-builtin': row('rng-backend', { opened: optional(bool) }),
  secret: row('secret_common', {
    loaded: optional(bool),
    format: optional(enumeration('QCryptoSecretFormat', ['raw', 'base64'])),
    keyid: optional(str),
    iv: optional(str),
    data: optional(str),
    file: optional(str),
  }),
  'tls-creds-anon': row('tls-creds', credentials),
  'tls-creds-x509': row('tls-creds', { ...credentials, 'sanity-check': optional(bool), passwordid: optional(str) }),
};

/** What object-add and `-object` take. */
export const objectOptions = union(
  'ObjectOptions',
  { id: str },
  'qom-type',
  Object.fromEntries(Object.entries(objectTypes).map(([name, { members }]) => [name, members])),
);
