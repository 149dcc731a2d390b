// QMP commands about migration's settings. QEMU 7.2, qapi/migration.json.

import { QmpError } from '../../rpc/qmp/error.ts';
import { any, array, bool, enumeration, object, optional, str, uint64 } from '../../rpc/qmp/schema.ts';
import { deleteSnapshot, loadSnapshot, saveSnapshot } from '../machine-snapshots.ts';
import { action, type QmpTable, query } from './row.ts';

/** What can be switched; all but `events` say how a migration is done. */
export const migrationCapabilities = [
  'events',
  'pause-before-switchover',
  'auto-converge',
  'xbzrle',
  'zero-blocks',
  'compress',
  'postcopy-ram',
  'return-path',
  'multifd',
  'late-block-activate',
  'validate-uuid',
] as const;
const capability = enumeration('MigrationCapability', migrationCapabilities);
const status = object('MigrationCapabilityStatus', { capability, state: bool });

/** Parameters with QEMU's defaults, where they mean something here. */
export const migrationParameters = {
  'announce-initial': 50,
  'announce-max': 550,
  'announce-rounds': 5,
  'announce-step': 100,
  'max-bandwidth': 134217728,
  'downtime-limit': 300,
  'tls-creds': '',
  'tls-hostname': '',
  'tls-authz': '',
  'max-cpu-throttle': 99,
  'cpu-throttle-initial': 20,
  'cpu-throttle-increment': 10,
  'xbzrle-cache-size': 67108864,
} as const;
const parameterMembers = Object.fromEntries(
  Object.entries(migrationParameters).map(([name, v]) => [name, typeof v === 'string' ? optional(str) : optional(uint64)]),
);

/** Names under which dirty bitmaps would migrate; they do with the capability `dirty-bitmaps` only, which is not there. */
const bitmapMapping = array(
  object('BitmapMigrationNodeAlias', {
    'node-name': str,
    alias: str,
    bitmaps: array(
      object('BitmapMigrationBitmapAlias', {
        name: str,
        alias: str,
        transform: optional(object('BitmapMigrationBitmapAliasTransform', { persistent: optional(bool) })),
      }),
    ),
  }),
);

export const migrateCommands: QmpTable = {
  'query-migrate-capabilities': query({}, array(status), (e) =>
    migrationCapabilities.map((name) => ({ state: e.migration.capabilities.has(name), capability: name })),
  ),
  'migrate-set-capabilities': action({ capabilities: array(status) }, (e, { capabilities }) =>
    e.migration.setCapabilities(capabilities),
  ),
  'query-migrate-parameters': query({}, any, (e) => ({
    ...migrationParameters,
    ...e.migration.parameters,
    ...(e.migration.bitmapMapping && { 'block-bitmap-mapping': e.migration.bitmapMapping }),
  })),
  'migrate-set-parameters': action({ ...parameterMembers, 'block-bitmap-mapping': optional(bitmapMapping) }, (e, given) => {
    const { 'block-bitmap-mapping': mapping, ...numbers } = given;
    if (mapping) e.migration.bitmapMapping = mapping;
    // What is beyond 2^53 means no limit.
    for (const [name, v] of Object.entries(numbers))
      e.migration.parameters[name] = typeof v === 'bigint' ? Number(v) : (v as string);
  }),
  'query-migrate': query({}, any, (e) => e.migration.info()),
  migrate: action(
    {
      uri: str,
      blk: optional(bool),
      inc: optional(bool),
      detach: optional(bool),
      resume: optional(bool),
    },
    async (e, { uri, blk, inc, resume }) => {
      if (blk || inc) throw new QmpError('Block migration is not supported');
      if (resume) throw new QmpError('Cannot resume a migration: there is no postcopy');
      await e.migration.start(uri);
    },
  ),
  'migrate-incoming': action({ uri: str }, (e, { uri }) => e.takeIncoming(uri)),
  migrate_cancel: action({}, (e) => e.migration.cancel()),
  'snapshot-save': action({ 'job-id': str, tag: str, vmstate: str, devices: array(str) }, (e, a) => {
    e.jobs.start({ id: a['job-id'], type: 'snapshot-save', run: () => saveSnapshot(e, a.tag, a.vmstate, a.devices) });
  }),
  'snapshot-load': action({ 'job-id': str, tag: str, vmstate: str, devices: array(str) }, (e, a) => {
    e.jobs.start({ id: a['job-id'], type: 'snapshot-load', run: () => loadSnapshot(e, a.tag, a.vmstate, a.devices) });
  }),
  'snapshot-delete': action({ 'job-id': str, tag: str, devices: array(str) }, (e, a) => {
    e.jobs.start({ id: a['job-id'], type: 'snapshot-delete', run: () => deleteSnapshot(e, a.tag, a.devices) });
  }),
  'migrate-continue': action({ state: str }, (e, { state }) => e.migration.goOn(state)),
};
