// QMP commands about the NBD server and its exports. QEMU 7.2, qapi/block-export.json.

import { QmpError } from '../../rpc/qmp/error.ts';
import { alternate, any, array, bool, enumeration, int, object, optional, str, union } from '../../rpc/qmp/schema.ts';
import { addressOf } from '../block/options.ts';
import { tlsCredentials } from '../tls.ts';
import { action, type QmpTable, query, unionAction } from './row.ts';

const address = union('SocketAddressLegacy', {}, 'type', {
  inet: { data: object('InetSocketAddress', { host: str, port: str }) },
  unix: { data: object('UnixSocketAddress', { path: str }) },
});
const mode = optional(enumeration('BlockExportRemoveMode', ['safe', 'hard']));
const exportOptions = union('BlockExportOptions', { id: str, 'node-name': str, writable: optional(bool) }, 'type', {
  nbd: {
    name: optional(str),
    description: optional(str),
    bitmaps: optional(
      array(alternate('BlockDirtyBitmapOrStr', { string: str, object: object('BlockDirtyBitmap', { node: str, name: str }) })),
    ),
  },
});

export const nbdCommands: QmpTable = {
  'nbd-server-start': action(
    { addr: address, 'tls-creds': optional(str), 'tls-authz': optional(str), 'max-connections': optional(int) },
    (e, o) => {
      if (o['tls-authz'] !== undefined) throw new QmpError("Parameter 'tls-authz' is not supported");
      const creds = o['tls-creds'];
      const tls = creds === undefined ? undefined : tlsCredentials(e.objects, creds, 'server');
      const { addr } = o;
      const at = addr.type === 'unix' ? { type: addr.type, ...addr.data } : { type: addr.type, ...addr.data };
      return e.exports.start(addressOf(at), o['max-connections'] ?? 0, tls);
    },
  ),
  'nbd-server-stop': action({}, (e) => e.exports.stop()),
  'nbd-server-add': action(
    { device: str, name: optional(str), description: optional(str), writable: optional(bool), bitmap: optional(str) },
    (e, o) => {
      const name = o.name ?? o.device;
      const node = e.blocks.nodeOf(o.device);
      const bitmaps = o.bitmap === undefined ? undefined : [o.bitmap];
      return e.exports.add({ id: name, node, name, description: o.description ?? '', writable: o.writable ?? false, bitmaps });
    },
  ),
  'nbd-server-remove': action({ name: str, mode }, (e, o) => e.exports.remove(o.name, o.mode === 'hard')),
  'block-export-add': unionAction(exportOptions, (e, o) =>
    e.exports.add({
      id: o.id,
      node: e.blocks.get(o['node-name']),
      name: o.name ?? o['node-name'],
      description: o.description ?? '',
      writable: o.writable ?? false,
      bitmaps: o.bitmaps,
    }),
  ),
  'block-export-del': action({ id: str, mode }, (e, o) => e.exports.remove(o.id, o.mode === 'hard')),
  'query-block-exports': query({}, array(any), (e) =>
    e.exports.list().map((x) => ({ id: x.id, type: 'nbd', 'node-name': x.node.name, 'shutting-down': false })),
  ),
};
