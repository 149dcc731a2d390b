// libvirt's errors: codes, domains and levels as data, and the body that carries one. libvirt "Handling of errors" and virterror.h, 9.0.
import { int, mapped, optional, struct } from '../xdr.ts';
import { domain, network, text } from './types.ts';

/** Code: its number, what clients print without a detail, and with one (`%s`) where that is not `text: detail`. */
export const errorCodes = {
  internalError: [1, 'internal error'],
  noMemory: [2, 'out of memory'],
  noSupport: [3, 'this function is not supported by the connection driver'],
  unknownHost: [4, 'unknown host', 'unknown host %s'],
  noConnect: [5, 'no connection driver available', 'no connection driver available for %s'],
  invalidConn: [6, 'invalid connection pointer in', 'invalid connection pointer in %s'],
  invalidDomain: [7, 'invalid domain pointer in', 'invalid domain pointer in %s'],
  invalidArg: [8, 'invalid argument'],
  operationFailed: [9, 'operation failed'],
  getFailed: [10, 'GET operation failed'],
  postFailed: [11, 'POST operation failed'],
  httpError: [12, 'got unknown HTTP error code', 'got unknown HTTP error code %s'],
  sexprSerial: [13, 'failed to serialize S-Expr'],
  noXen: [14, 'could not use Xen hypervisor entry', 'could not use Xen hypervisor entry %s'],
  xenCall: [15, 'failed Xen syscall', 'failed Xen syscall %s'],
  osType: [16, 'unknown OS type', 'unknown OS type %s'],
  noKernel: [17, 'missing kernel information'],
  noRoot: [18, 'missing root device information', 'missing root device information in %s'],
  noSource: [19, 'missing source information for device', 'missing source information for device %s'],
  noTarget: [20, 'missing target information for device', 'missing target information for device %s'],
  noName: [21, 'missing name information', 'missing name information in %s'],
  noOs: [22, 'missing operating system information', 'missing operating system information for %s'],
  noDevice: [23, 'missing devices information', 'missing devices information for %s'],
  noXenstore: [24, 'could not connect to Xen Store', 'could not connect to Xen Store %s'],
  driverFull: [25, 'too many drivers registered', 'too many drivers registered in %s'],
  callFailed: [26, 'library call failed'],
  xmlError: [27, 'XML description is invalid or not well formed', 'XML error: %s'],
  domExist: [28, 'this domain exists already', 'domain %s exists already'],
  operationDenied: [29, 'operation forbidden for read only access', 'operation forbidden: %s'],
  openFailed: [30, 'failed to open configuration file', 'failed to open configuration file %s'],
  readFailed: [31, 'failed to read configuration file', 'failed to read configuration file %s'],
  parseFailed: [32, 'failed to parse configuration file', 'failed to parse configuration file %s'],
  confSyntax: [33, 'configuration file syntax error'],
  writeFailed: [34, 'failed to write configuration file'],
  xmlDetail: [35, 'parser error', '%s'],
  invalidNetwork: [36, 'invalid network pointer in', 'invalid network pointer in %s'],
  networkExist: [37, 'this network exists already', 'network %s exists already'],
  systemError: [38, 'system call error', '%s'],
  rpc: [39, 'RPC error', '%s'],
  gnutlsError: [40, 'GNUTLS call error', '%s'],
  noDomain: [42, 'Domain not found'],
  noNetwork: [43, 'Network not found'],
  invalidMac: [44, 'invalid MAC address'],
  authFailed: [45, 'authentication failed'],
  invalidStoragePool: [46, 'invalid storage pool pointer in', 'invalid storage pool pointer in %s'],
  invalidStorageVol: [47, 'invalid storage volume pointer in', 'invalid storage volume pointer in %s'],
  noStoragePool: [49, 'Storage pool not found'],
  noStorageVol: [50, 'Storage volume not found'],
  invalidNodeDevice: [52, 'invalid node device pointer', 'invalid node device pointer in %s'],
  noNodeDevice: [53, 'Node device not found'],
  noSecurityModel: [54, 'Security model not found'],
  operationInvalid: [55, 'Requested operation is not valid'],
  noInterface: [57, 'Interface not found'],
  invalidInterface: [58, 'invalid interface pointer in', 'invalid interface pointer in %s'],
  multipleInterfaces: [59, 'multiple matching interfaces found'],
  invalidNwfilter: [61, 'Invalid network filter'],
  noNwfilter: [62, 'Network filter not found'],
  buildFirewall: [63, 'Error while building firewall'],
  invalidSecret: [65, 'Invalid secret'],
  noSecret: [66, 'Secret not found'],
  configUnsupported: [67, 'unsupported configuration'],
  operationTimeout: [68, 'Timed out during operation'],
  migratePersistFailed: [69, 'Failed to make domain persistent after migration'],
  hookScriptFailed: [70, 'Hook script execution failed'],
  invalidDomainSnapshot: [71, 'Invalid domain snapshot'],
  noDomainSnapshot: [72, 'Domain snapshot not found'],
  invalidStream: [73, 'invalid stream pointer', 'invalid stream pointer in %s'],
  argumentUnsupported: [74, 'argument unsupported'],
  storageProbeFailed: [75, 'Storage pool probe failed'],
  storagePoolBuilt: [76, 'Storage pool already built'],
  snapshotRevertRisky: [77, 'revert requires force'],
  operationAborted: [78, 'operation aborted'],
  authCancelled: [79, 'authentication cancelled'],
  noDomainMetadata: [80, 'metadata not found'],
  migrateUnsafe: [81, 'Unsafe migration'],
  overflow: [82, 'numerical overflow'],
  blockCopyActive: [83, 'block copy still active'],
  operationUnsupported: [84, 'Operation not supported'],
  ssh: [85, 'SSH transport error'],
  agentUnresponsive: [86, 'Guest agent is not responding'],
  resourceBusy: [87, 'resource busy'],
  accessDenied: [88, 'access denied'],
  dbusService: [89, 'error from service'],
  storageVolExist: [90, 'this storage volume exists already', 'storage volume %s exists already'],
  cpuIncompatible: [91, 'the CPU is incompatible with host CPU'],
  xmlInvalidSchema: [92, 'XML document failed to validate against schema'],
  migrateFinishOk: [93, 'migration successfully aborted'],
  authUnavailable: [94, 'authentication unavailable'],
  noServer: [95, 'Server not found'],
  noClient: [96, 'Client not found'],
  agentUnsynced: [97, 'guest agent replied with wrong id to guest-sync command'],
  libssh: [98, 'libssh transport error'],
  deviceMissing: [99, 'device not found'],
  invalidNwfilterBinding: [100, 'Invalid network filter binding'],
  noNwfilterBinding: [101, 'Network filter binding not found'],
  invalidDomainCheckpoint: [102, 'Invalid domain checkpoint'],
  noDomainCheckpoint: [103, 'Domain checkpoint not found'],
  noDomainBackup: [104, 'Domain backup job id not found'],
  invalidNetworkPort: [105, 'Invalid network port pointer'],
  networkPortExist: [106, 'this network port exists already', 'network port %s exists already'],
  noNetworkPort: [107, 'network port not found'],
  noHostname: [108, 'no hostname found'],
  checkpointInconsistent: [109, 'checkpoint inconsistent'],
  multipleDomains: [110, 'multiple matching domains found'],
} as const satisfies Readonly<Record<string, readonly [number, string, string?]>>;
export type ErrorCode = keyof typeof errorCodes;

/** Parts of libvirt that errors come from. */
export const errorDomains = {
  none: 0,
  xen: 1,
  xend: 2,
  xenstore: 3,
  sexpr: 4,
  xml: 5,
  dom: 6,
  rpc: 7,
  proxy: 8,
  conf: 9,
  qemu: 10,
  net: 11,
  test: 12,
  remote: 13,
  openvz: 14,
  xenxm: 15,
  statsLinux: 16,
  lxc: 17,
  storage: 18,
  network: 19,
  domain: 20,
  uml: 21,
  nodedev: 22,
  xenInotify: 23,
  security: 24,
  vbox: 25,
  interface: 26,
  one: 27,
  esx: 28,
  phyp: 29,
  secret: 30,
  cpu: 31,
  xenapi: 32,
  nwfilter: 33,
  hook: 34,
  domainSnapshot: 35,
  audit: 36,
  sysinfo: 37,
  streams: 38,
  vmware: 39,
  event: 40,
  libxl: 41,
  locking: 42,
  hyperv: 43,
  capabilities: 44,
  uri: 45,
  auth: 46,
  dbus: 47,
  parallels: 48,
  device: 49,
  ssh: 50,
  lockspace: 51,
  initctl: 52,
  identity: 53,
  cgroup: 54,
  access: 55,
  systemd: 56,
  bhyve: 57,
  crypto: 58,
  firewall: 59,
  polkit: 60,
  thread: 61,
  admin: 62,
  logging: 63,
  xenxl: 64,
  perf: 65,
  libssh: 66,
  resctrl: 67,
  firewalld: 68,
  domainCheckpoint: 69,
  tpm: 70,
  bpf: 71,
  ch: 72,
} as const;
export type ErrorDomain = keyof typeof errorDomains;

const warning = 1;
const error = 2;

interface ErrorRest {
  /** Parameters of the message, as libvirt gives them; no client needs them. */
  readonly strings?: readonly (string | undefined)[];
  readonly ints?: readonly [number, number];
  readonly warning?: boolean;
}

/** An error that goes over the wire: thrown by a server's handler, rejected with by a client's call. */
export class LibvirtError extends Error {
  /** Number of `errorCodes`; one that this table does not know is kept. */
  readonly code: number;
  /** Number of `errorDomains`. */
  readonly domain: number;
  readonly rest: ErrorRest;

  constructor(code: number, from: number, message: string, rest: ErrorRest = {}) {
    super(message);
    this.code = code;
    this.domain = from;
    this.rest = rest;
  }
  is(code: ErrorCode): boolean {
    return this.code === errorCodes[code][0];
  }
}

/** `libvirtError('noDomain', 'qemu', "no domain with matching name 'x'")`: libvirt's words for the code, then the detail. */
export function libvirtError(code: ErrorCode, from: ErrorDomain, detail?: string): LibvirtError {
  const [number, alone, pattern = `${alone}: %s`] = errorCodes[code] as readonly [number, string, string?];
  const message = detail === undefined ? alone : pattern.replace('%s', () => detail);
  return new LibvirtError(number, errorDomains[from], message, { strings: [pattern, detail] });
}

/** The body of a reply or stream packet whose status is `error`. */
export const errorBody = mapped(
  struct({
    code: int,
    domain: int,
    message: optional(text),
    level: int,
    dom: optional(domain),
    str1: optional(text),
    str2: optional(text),
    str3: optional(text),
    int1: int,
    int2: int,
    net: optional(network),
  }),
  (e) =>
    new LibvirtError(e.code, e.domain, e.message ?? 'no message', {
      strings: [e.str1, e.str2, e.str3],
      ints: [e.int1, e.int2],
      warning: e.level === warning,
    }),
  (e: LibvirtError) => ({
    code: e.code,
    domain: e.domain,
    message: e.message,
    level: e.rest.warning ? warning : error,
    dom: undefined,
    str1: e.rest.strings?.[0],
    str2: e.rest.strings?.[1],
    str3: e.rest.strings?.[2],
    int1: e.rest.ints?.[0] ?? -1,
    int2: e.rest.ints?.[1] ?? -1,
    net: undefined,
  }),
);
