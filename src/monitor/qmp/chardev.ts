// QMP commands about character devices and file descriptors. QEMU 7.2, qapi/char.json, qapi/misc.json (getfd, add-fd).

import { RingBackend } from '../../chardev/chardev.ts';
import { CharError, type CharOptions, charKinds, fileLimit, type SocketAddress } from '../../chardev/options.ts';
import { QmpError } from '../../rpc/qmp/error.ts';
import { array, bool, enumeration, int, object, optional, type SchemaValue, str, union } from '../../rpc/qmp/schema.ts';
import { action, type QmpTable, query } from './row.ts';

/** `max-size` and `backups` are ours: a bound on the device's output files. */
const common = {
  logfile: optional(str),
  logappend: optional(bool),
  'max-size': optional(int),
  backups: optional(int),
} as const;
const inet = {
  host: str,
  port: str,
  numeric: optional(bool),
  to: optional(int),
  ipv4: optional(bool),
  ipv6: optional(bool),
  'keep-alive': optional(bool),
  mptcp: optional(bool),
} as const;
const address = union('SocketAddressLegacy', {}, 'type', {
  inet: { data: object('InetSocketAddress', inet) },
  unix: { data: object('UnixSocketAddress', { path: str, abstract: optional(bool), tight: optional(bool) }) },
  fd: { data: object('String', { str }) },
});
const backend = union('ChardevBackend', {}, 'type', {
  file: { data: object('ChardevFile', { ...common, in: optional(str), out: str, append: optional(bool) }) },
  pipe: { data: object('ChardevHostdev', { ...common, device: str }) },
  socket: {
    data: object('ChardevSocket', {
      ...common,
      addr: address,
      server: optional(bool),
      wait: optional(bool),
      nodelay: optional(bool),
      telnet: optional(bool),
      reconnect: optional(int),
    }),
  },
  udp: { data: object('ChardevUdp', { ...common, remote: address, local: optional(address) }) },
  pty: { data: object('ChardevCommon', common) },
  null: { data: object('ChardevCommon', common) },
  stdio: { data: object('ChardevStdio', { ...common, signal: optional(bool) }) },
  ringbuf: { data: object('ChardevRingbuf', { ...common, size: optional(int) }) },
});

function socketAddress(a: SchemaValue<typeof address>): SocketAddress {
  switch (a.type) {
    case 'inet': {
      const { host, port, ipv4, ipv6 } = a.data;
      const family = ipv4 === ipv6 ? {} : { family: ipv4 ? (4 as const) : (6 as const) };
      return { kind: 'inet', host, port, ...family };
    }
    case 'unix':
      return { kind: 'unix', path: a.data.abstract ? `\0${a.data.path}` : a.data.path };
    case 'fd':
      return { kind: 'fd', fd: a.data.str };
  }
}

function options(b: SchemaValue<typeof backend>): CharOptions {
  const made = withoutLimit(b);
  try {
    return { ...made, ...fileLimit(b.type, made, b.data['max-size'], b.data.backups) };
  } catch (error) {
    throw error instanceof CharError ? new QmpError(error.message) : error;
  }
}

function withoutLimit(b: SchemaValue<typeof backend>): CharOptions {
  const { logfile, logappend } = b.data;
  const log = logfile === undefined ? {} : { log: { path: logfile, append: logappend ?? false } };
  switch (b.type) {
    case 'file':
      return { kind: 'file', path: b.data.out, append: b.data.append ?? false, input: b.data.in, ...log };
    case 'pipe':
      return { kind: 'pipe', path: b.data.device, ...log };
    case 'socket': {
      const { addr, server = true, wait = false, nodelay = false, telnet = false, reconnect = 0 } = b.data;
      if (wait && server)
        throw new QmpError("'wait' option is incompatible with hot-plugged socket servers here; wait for the client's event");
      return { kind: 'socket', address: socketAddress(addr), server, wait: false, nodelay, telnet, reconnect, ...log };
    }
    case 'udp': {
      const remote = socketAddress(b.data.remote);
      const local = b.data.local === undefined ? undefined : socketAddress(b.data.local);
      if (remote.kind !== 'inet' || (local && local.kind !== 'inet')) throw new QmpError('udp: accepted are inet addresses');
      return {
        kind: 'udp',
        host: remote.host,
        port: Number(remote.port),
        localHost: local?.host,
        localPort: Number(local?.port ?? 0),
        ...log,
      };
    }
    case 'pty':
    case 'null':
      return { kind: b.type, ...log };
    case 'stdio':
      return { kind: 'stdio', signal: b.data.signal ?? true, ...log };
    case 'ringbuf':
      return { kind: 'ringbuf', size: b.data.size ?? 65536, ...log };
  }
}

const encoding = enumeration('DataFormat', ['utf8', 'base64']);
const fdsetInfo = object('AddfdInfo', { 'fdset-id': int, fd: int });

export const chardevCommands: QmpTable = {
  'query-chardev': query({}, array(object('ChardevInfo', { label: str, filename: str, 'frontend-open': bool })), (e) =>
    e.chardevs.list().map((c) => ({ 'frontend-open': c.listening, filename: c.backend.filename, label: c.id })),
  ),
  'query-chardev-backends': query({}, array(object('ChardevBackendInfo', { name: str })), () =>
    charKinds.map((name) => ({ name })),
  ),
  'chardev-add': query({ id: str, backend }, object('ChardevReturn', { pty: optional(str) }), async (e, { id, backend: b }) => {
    const made = await e.chardevs.add(id, options(b));
    return b.type === 'pty' ? { pty: made.backend.filename.slice('pty:'.length) } : {};
  }),
  'chardev-remove': action({ id: str }, (e, { id }) => e.chardevs.remove(id)),
  'chardev-send-break': action({ id: str }, (e, { id }) => e.chardev(id).sendBreak()),
  'ringbuf-read': query({ device: str, size: int, format: optional(encoding) }, str, (e, { device, size, format }) => {
    const { backend: ring } = e.chardev(device);
    if (!(ring instanceof RingBackend)) throw new QmpError(`${device} is not a ringbuf device`);
    if (size <= 0) throw new QmpError('size must be greater than zero');
    const bytes = ring.read(size);
    return format === 'base64' ? e.host.base64.encode(bytes) : new TextDecoder().decode(bytes);
  }),
  'ringbuf-write': action({ device: str, data: str, format: optional(encoding) }, (e, { device, data, format }) => {
    const { backend: ring } = e.chardev(device);
    if (!(ring instanceof RingBackend)) throw new QmpError(`${device} is not a ringbuf device`);
    ring.write(format === 'base64' ? e.host.base64.decode(data) : new TextEncoder().encode(data));
  }),
  getfd: action({ fdname: str }, (e, { fdname }, session) => {
    if (/^\d/.test(fdname)) throw new QmpError("Parameter 'fdname' expects a name not starting with a digit");
    const fd = e.takeFd(session);
    const old = e.fds.get(fdname);
    if (old !== undefined) e.host.closeFd(old);
    e.fds.set(fdname, fd);
  }),
  closefd: action({ fdname: str }, (e, { fdname }) => {
    const fd = e.fds.get(fdname);
    if (fd === undefined) throw new QmpError(`File descriptor named '${fdname}' not found`);
    e.host.closeFd(fd);
    e.fds.delete(fdname);
  }),
  'add-fd': query({ 'fdset-id': optional(int), opaque: optional(str) }, fdsetInfo, (e, { 'fdset-id': id, opaque }, session) =>
    e.fdsets.add(e.takeFd(session), id, opaque),
  ),
  'remove-fd': action({ 'fdset-id': int, fd: optional(int) }, (e, { 'fdset-id': id, fd }) => {
    for (const gone of e.fdsets.remove(id, fd)) e.host.closeFd(gone);
  }),
  // Ours: a file for a process under `-sandbox files=deny`, by its path and a descriptor that came along.
  'nonroot-admit-file': action({ path: str, write: optional(bool) }, (e, { path, write }, session) =>
    e.host.admit(path, e.takeFd(session), write ?? false),
  ),
  'query-fdsets': query(
    {},
    array(object('FdsetInfo', { 'fdset-id': int, fds: array(object('FdsetFdInfo', { fd: int, opaque: optional(str) })) })),
    (e) => e.fdsets.list(),
  ),
};
