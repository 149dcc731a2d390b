// QMP events by name, with their data. QEMU 7.2, "QEMU QMP Reference Manual"; qapi/run-state.json, qapi/block-core.json and others.

import { any, bool, enumeration, int, object, optional, str } from '../../rpc/qmp/schema.ts';

const shutdownCause = enumeration('ShutdownCause', [
  'none',
  'host-error',
  'host-qmp-quit',
  'host-qmp-system-reset',
  'host-signal',
  'host-ui',
  'guest-shutdown',
  'guest-reset',
  'guest-panic',
  'subsystem-reset',
  'snapshot-load',
]);
const jobStatus = enumeration('JobStatus', [
  'undefined',
  'created',
  'running',
  'paused',
  'ready',
  'standby',
  'waiting',
  'pending',
  'aborting',
  'concluded',
  'null',
]);
export const jobType = enumeration('JobType', [
  'commit',
  'stream',
  'mirror',
  'backup',
  'create',
  'amend',
  'snapshot-load',
  'snapshot-save',
  'snapshot-delete',
]);
const blockJob = { type: jobType, device: str, len: int, offset: int, speed: int };
const vncClient = object('VncClientInfo', {
  host: str,
  service: str,
  family: str,
  websocket: bool,
  x509_dname: optional(str),
  sasl_username: optional(str),
});
const vncServer = object('VncServerInfo', { host: str, service: str, family: str, websocket: bool, auth: optional(str) });
const empty = object('Empty', {});

export const qmpEvents = {
  SHUTDOWN: object('SHUTDOWN', { guest: bool, reason: shutdownCause }),
  POWERDOWN: empty,
  RESET: object('RESET', { guest: bool, reason: shutdownCause }),
  STOP: empty,
  RESUME: empty,
  SUSPEND: empty,
  SUSPEND_DISK: empty,
  WAKEUP: empty,
  WATCHDOG: object('WATCHDOG', {
    action: enumeration('WatchdogAction', ['reset', 'shutdown', 'poweroff', 'pause', 'debug', 'none', 'inject-nmi']),
  }),
  GUEST_PANICKED: object('GUEST_PANICKED', {
    action: enumeration('GuestPanicAction', ['pause', 'poweroff', 'run']),
    info: optional(any),
  }),
  GUEST_CRASHLOADED: object('GUEST_CRASHLOADED', {
    action: enumeration('GuestPanicAction', ['pause', 'poweroff', 'run']),
    info: optional(any),
  }),
  RTC_CHANGE: object('RTC_CHANGE', { offset: int, 'qom-path': str }),
  DEVICE_DELETED: object('DEVICE_DELETED', { device: optional(str), path: str }),
  DEVICE_UNPLUG_GUEST_ERROR: object('DEVICE_UNPLUG_GUEST_ERROR', { device: optional(str), path: str }),
  DEVICE_TRAY_MOVED: object('DEVICE_TRAY_MOVED', { device: str, id: str, 'tray-open': bool }),
  BALLOON_CHANGE: object('BALLOON_CHANGE', { actual: int }),
  VSERPORT_CHANGE: object('VSERPORT_CHANGE', { id: str, open: bool }),
  NIC_RX_FILTER_CHANGED: object('NIC_RX_FILTER_CHANGED', { name: optional(str), path: str }),
  ACPI_DEVICE_OST: object('ACPI_DEVICE_OST', { info: any }),
  BLOCK_EXPORT_DELETED: object('BLOCK_EXPORT_DELETED', { id: str }),
  BLOCK_IO_ERROR: object('BLOCK_IO_ERROR', {
    device: str,
    'node-name': optional(str),
    operation: enumeration('IoOperationType', ['read', 'write']),
    action: enumeration('BlockErrorAction', ['ignore', 'report', 'stop']),
    nospace: optional(bool),
    reason: str,
  }),
  BLOCK_WRITE_THRESHOLD: object('BLOCK_WRITE_THRESHOLD', { 'node-name': str, 'amount-exceeded': int, 'write-threshold': int }),
  JOB_STATUS_CHANGE: object('JOB_STATUS_CHANGE', { id: str, status: jobStatus }),
  BLOCK_JOB_READY: object('BLOCK_JOB_READY', blockJob),
  BLOCK_JOB_COMPLETED: object('BLOCK_JOB_COMPLETED', { ...blockJob, error: optional(str) }),
  BLOCK_JOB_CANCELLED: object('BLOCK_JOB_CANCELLED', blockJob),
  BLOCK_JOB_ERROR: object('BLOCK_JOB_ERROR', {
    device: str,
    operation: enumeration('IoOperationType', ['read', 'write']),
    action: enumeration('BlockErrorAction', ['ignore', 'report', 'stop']),
  }),
  BLOCK_JOB_PENDING: object('BLOCK_JOB_PENDING', { type: jobType, id: str }),
  MIGRATION: object('MIGRATION', { status: str }),
  MIGRATION_PASS: object('MIGRATION_PASS', { pass: int }),
  DUMP_COMPLETED: object('DUMP_COMPLETED', { result: any, error: optional(str) }),
  VNC_CONNECTED: object('VNC_CONNECTED', { server: vncServer, client: vncClient }),
  VNC_INITIALIZED: object('VNC_INITIALIZED', { server: vncServer, client: vncClient }),
  VNC_DISCONNECTED: object('VNC_DISCONNECTED', { server: vncServer, client: vncClient }),
  MEMORY_DEVICE_SIZE_CHANGE: object('MEMORY_DEVICE_SIZE_CHANGE', { id: optional(str), size: int, 'qom-path': str }),
  NETDEV_STREAM_CONNECTED: object('NETDEV_STREAM_CONNECTED', { 'netdev-id': str, addr: any }),
  NETDEV_STREAM_DISCONNECTED: object('NETDEV_STREAM_DISCONNECTED', { 'netdev-id': str }),
} as const;
export type QmpEvents = typeof qmpEvents;

/** Events that a monitor hears at most once in so many ms, by the member that tells them apart: the last one is sent when time is up. */
export const rateLimits: Readonly<Partial<Record<keyof QmpEvents, { readonly ms: number; readonly by?: string }>>> = {
  RTC_CHANGE: { ms: 1000 },
  WATCHDOG: { ms: 1000 },
  BALLOON_CHANGE: { ms: 1000 },
  VSERPORT_CHANGE: { ms: 1000, by: 'id' },
  MEMORY_DEVICE_SIZE_CHANGE: { ms: 1000, by: 'qom-path' },
};
