// Runs the daemon in this process, or starts one in the background: paths, configuration, listeners, signals.

import { spawn } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { DaemonSettings } from '../../cli/daemon.ts';
import { isLoopback, parseConfig, parseListen, type Setting } from '../../daemon/config.ts';
import { Daemon, type DaemonOptions } from '../../daemon/daemon.ts';
import { reasonOf } from '../../daemon/errors.ts';
import type { ClientInfo, Listener, TlsFiles } from '../../daemon/host.ts';
import { type Paths, privatePaths, readOnlySocketName, socketName, systemPaths, userPaths } from '../../daemon/paths.ts';
import { connectUri } from '../../daemon/peer.ts';
import type { RpcClient } from '../../rpc/client.ts';
import { hasLandlock } from './confine.ts';
import { nodeDaemonHost } from './daemon-host.ts';
import { nodeSockets } from './daemon-sockets.ts';
import { packageFile } from './package-file.ts';

interface Place {
  readonly paths: Paths;
  readonly sockets: readonly { readonly path: string; readonly readOnly: boolean }[];
  readonly system: boolean;
}

const isRoot = (): boolean => process.getuid?.() === 0;

function placeOf(settings: DaemonSettings): Place {
  const system = isRoot();
  const paths =
    settings.state === undefined ? (system ? systemPaths : userPaths(process.env)) : privatePaths(resolve(settings.state));
  const both = (directory: string) => [
    { path: join(directory, socketName), readOnly: false },
    ...(system ? [{ path: join(directory, readOnlySocketName), readOnly: true }] : []),
  ];
  const own =
    settings.socket === undefined
      ? both(paths.run)
      : [
          { path: resolve(settings.socket), readOnly: false },
          { path: `${resolve(settings.socket)}-ro`, readOnly: true },
        ];
  const libvirt = system ? '/run/libvirt' : join(process.env['XDG_RUNTIME_DIR'] ?? '/nonexistent', 'libvirt');
  return { paths, sockets: [...own, ...(settings.libvirtPaths ? both(libvirt) : [])], system };
}

/** The first of these programs that is there. */
const findProgram = (...paths: readonly string[]): string | undefined =>
  paths.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });

function findFirmware(): DaemonOptions['firmware'] {
  for (const suffix of ['_4M', '']) {
    const executable = `/usr/share/OVMF/OVMF_CODE${suffix}.fd`;
    const template = `/usr/share/OVMF/OVMF_VARS${suffix}.fd`;
    if (existsSync(executable) && existsSync(template)) return { executable, template, secure: false };
  }
  return undefined;
}

/** The user that emulators run as, by name or number in the password file. */
function userOf(name: string | undefined): { uid: number; gid: number } | undefined {
  if (name === undefined || name === 'root' || !isRoot()) return undefined;
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((one) => one.split(':'))
    .find(([login, , uid]) => login === name || uid === name);
  if (!line) throw new Error(`Cannot run emulators as ${name}: there is no such user`);
  return { uid: Number(line[2]), gid: Number(line[3]) };
}

/** Emulators of this package and of the host; the first is the default. */
const emulatorPaths = (): string[] => [
  join(dirname(packageFile(import.meta.dirname)), 'bin/nonroot-system-x86_64'),
  '/usr/bin/qemu-system-x86_64',
];

class Configuration {
  readonly #settings: ReadonlyMap<string, Setting>;
  constructor(settings: ReadonlyMap<string, Setting>) {
    this.#settings = settings;
  }
  text(name: string): string | undefined {
    return this.#settings.get(name) as string | undefined;
  }
  number(name: string, fallback: number): number {
    return (this.#settings.get(name) as number | undefined) ?? fallback;
  }
  within(name: string, fallback: number, fits: (n: number) => boolean, accepted: string): number {
    const given = this.number(name, fallback);
    if (!fits(given)) throw new Error(`Cannot use ${name} = ${given}: accepted are ${accepted}`);
    return given;
  }
  list(name: string): readonly string[] | undefined {
    return this.#settings.get(name) as readonly string[] | undefined;
  }
  oneOf<T extends string>(name: string, accepted: readonly T[], fallback: T): T {
    const given = this.text(name);
    if (given === undefined) return fallback;
    const found = accepted.find((one) => one === given);
    if (found === undefined) throw new Error(`Cannot use ${name} = "${given}": accepted are ${accepted.join(', ')}`);
    return found;
  }
}

function readConfig(settings: DaemonSettings, paths: Paths): Configuration {
  const path = settings.config ?? join(paths.config, 'nonrootd.conf');
  if (settings.config === undefined && !existsSync(path)) return new Configuration(new Map());
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new Error(`Cannot read ${path}: ${reasonOf(error)}`);
  }
  return new Configuration(parseConfig(text, path));
}

function tlsFiles(config: Configuration): TlsFiles {
  return {
    ca: config.text('ca_file') ?? '/etc/pki/CA/cacert.pem',
    certificate: config.text('cert_file') ?? '/etc/pki/libvirt/servercert.pem',
    key: config.text('key_file') ?? '/etc/pki/libvirt/private/serverkey.pem',
  };
}

/** `vnc_…`, as libvirtd's qemu.conf has them. @throws Error for directories that are not there */
function vncOf(config: Configuration): DaemonOptions['vnc'] {
  const directory = (name: string): string | undefined => {
    const path = config.text(name);
    if (path !== undefined && !existsSync(path)) throw new Error(`Cannot use ${name} = "${path}": there is no such directory`);
    return path;
  };
  const certificates = directory('vnc_tls_x509_cert_dir') ?? directory('default_tls_x509_cert_dir') ?? '/etc/pki/qemu';
  const sasl = directory('vnc_sasl_dir') ?? '';
  return {
    listen: config.text('vnc_listen'),
    socket: config.number('vnc_auto_unix_socket', 0) !== 0,
    ...(config.number('vnc_tls', 0) !== 0
      ? { tls: { directory: certificates, verify: config.number('vnc_tls_x509_verify', 0) !== 0 } }
      : {}),
    ...(config.number('vnc_sasl', 0) !== 0 ? { sasl } : {}),
    password: config.text('vnc_password'),
  };
}

function optionsOf(config: Configuration, place: Place, version: string): DaemonOptions {
  const root = isRoot();
  const networks = config.oneOf('networks', ['auto', 'user', 'bridge'], 'auto');
  const able = root && findProgram('/usr/sbin/dnsmasq') !== undefined && findProgram('/usr/sbin/nft') !== undefined;
  return {
    version,
    system: place.system,
    emulators: config.list('emulators') ?? emulatorPaths(),
    graphicsListen: config.text('graphics_listen') ?? '127.0.0.1',
    vnc: vncOf(config),
    firmware: findFirmware(),
    user: userOf(config.text('user')),
    setpriv: findProgram('/usr/bin/setpriv'),
    hostUuid: config.text('host_uuid'),
    hostname: config.text('hostname'),
    authentication: {
      tcp: config.oneOf('auth_tcp', ['none', 'sasl'], 'none'),
      tls: config.oneOf('auth_tls', ['none', 'sasl'], 'none'),
    },
    usersFile: config.text('users_file'),
    allow: config.list('allow') ?? [],
    keepalive: { interval: config.number('keepalive_interval', 5), count: config.number('keepalive_count', 5) },
    maxClients: config.number('max_clients', 5000),
    tls: tlsFiles(config),
    migrationTls: config.text('migrate_tls_x509_cert_dir') ?? '/etc/pki/qemu',
    backupTls: config.text('backup_tls_x509_cert_dir') ?? '/etc/pki/qemu',
    confine: config.number('confine_files', 1) !== 0 && hasLandlock(),
    consoles: {
      size: config.within('console_max_size', 2 ** 21, (n) => n === 0 || (n >= 4096 && n <= 2 ** 40), '0 and 4096 to 2^40'),
      backups: config.within('console_max_backups', 3, (n) => n <= 99, '0 to 99'),
    },
    bridges: networks === 'bridge' || (networks === 'auto' && able),
  };
}

/** Serves until a signal. @throws Error (rejects) with one line when it can't */
async function serve(settings: DaemonSettings, version: string): Promise<number> {
  const place = placeOf(settings);
  const config = readConfig(settings, place.paths);
  const log = (line: string): void => void process.stderr.write(`${new Date().toISOString()} ${line}\n`);
  const host = nodeDaemonHost(log);
  const daemon = new Daemon(host, place.paths, optionsOf(config, place, version));
  // One client's or guest's fault is not the others'.
  process.on('uncaughtException', (error) => log(`uncaught: ${error.stack ?? error.message}`));
  process.on('unhandledRejection', (error) => log(`unhandled: ${error instanceof Error ? error.stack : String(error)}`));
  // What can be seen to be wrong is said before anything is touched.
  const uris = [...settings.listen, ...(config.list('listen') ?? [])].map((uri) => ({ uri, ...parseListen(uri) }));
  for (const { uri, transport, host: address } of uris) {
    if (transport === 'tcp' && !isLoopback(address) && !settings.insecure) {
      throw new Error(`Cannot listen at ${uri}: without TLS only loopback addresses are accepted, unless --insecure is given`);
    }
  }
  await daemon.start();
  const listeners: Listener[] = [];
  const mode = (name: string, fallback: number): number => Number.parseInt(config.text(name) ?? '', 8) || fallback;
  for (const { path, readOnly } of place.sockets) {
    mkdirSync(dirname(path), { recursive: true });
    const client: ClientInfo = { transport: 'unix', address: path, readOnly };
    const bits = readOnly ? mode('unix_sock_ro_perms', place.system ? 0o666 : 0o600) : mode('unix_sock_rw_perms', 0o600);
    listeners.push(await host.sockets.listen(path, bits, (duplex) => daemon.accept(duplex, client)));
  }
  for (const { transport, host: address, port } of uris) {
    const accept = (duplex: Parameters<Daemon['accept']>[0], client: ClientInfo): void => daemon.accept(duplex, client);
    const listener = await host.sockets.listenTcp(address, port, accept, transport === 'tls' ? tlsFiles(config) : undefined);
    log(`listening at ${transport}://${address}:${listener.port}`);
    listeners.push(listener);
  }
  log(`serving at ${place.sockets.map((one) => one.path).join(', ')}`);
  void daemon.autostart();
  await new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, resolve);
  });
  for (const listener of listeners) listener.close();
  return 0;
}

/** What the daemon's own line about its end begins with. */
const programName = 'nonrootd';

/** How long a daemon in the background may take to serve, in ms. */
const startMs = 60_000;

async function background(settings: DaemonSettings, argv: readonly string[]): Promise<number> {
  const { paths, sockets } = placeOf(settings);
  mkdirSync(paths.log, { recursive: true });
  const path = join(paths.log, 'nonrootd.log');
  const log = openSync(path, 'a', 0o600);
  const begin = readFileSync(path, 'utf8').length;
  const program = process.argv[1]!;
  const words = [...(/nonroot(\.[tj]s)?$/.test(program) ? ['daemon'] : []), ...argv, '--foreground'];
  const child = spawn(process.execPath, [...process.execArgv, program, ...words], {
    detached: true,
    stdio: ['ignore', log, log],
  });
  const end = Date.now() + startMs;
  let code: number | undefined;
  child.once('exit', (status) => (code = status ?? 1));
  while (Date.now() < end && code === undefined) {
    const said = readFileSync(path, 'utf8').slice(begin);
    if (said.includes(' serving at ')) {
      child.unref();
      process.stdout.write(`${sockets[0]!.path}\n`);
      return 0;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const said = readFileSync(path, 'utf8').slice(begin).trim();
  const own = said.split('\n').findLast((line) => line.startsWith(`${programName}: `));
  throw new Error(own?.slice(programName.length + 2) ?? (said || 'Cannot start: the daemon does not serve'));
}

/** A client of the daemon that a URI, the environment or the user says. @throws Error (rejects) with one line */
export async function connectDaemon(uri: string | undefined): Promise<RpcClient> {
  const wanted = uri ?? process.env['NONROOT_URI'] ?? (isRoot() ? 'qemu:///system' : 'qemu:///session');
  const socket = join((isRoot() ? systemPaths : userPaths(process.env)).run, socketName);
  const home = process.env['HOME'] ?? '/';
  const pki = existsSync(`${home}/.pki/libvirt/clientcert.pem`)
    ? {
        ca: `${home}/.pki/CA/cacert.pem`,
        certificate: `${home}/.pki/libvirt/clientcert.pem`,
        key: `${home}/.pki/libvirt/clientkey.pem`,
      }
    : {
        ca: '/etc/pki/CA/cacert.pem',
        certificate: '/etc/pki/libvirt/clientcert.pem',
        key: '/etc/pki/libvirt/private/clientkey.pem',
      };
  try {
    return await connectUri(nodeSockets, wanted, socket, pki);
  } catch (error) {
    throw new Error(`Cannot connect to ${wanted}: ${reasonOf(error)}; \`nonroot daemon\` starts a daemon`);
  }
}

const verbs: Readonly<Record<string, string>> = { mkdir: 'make directory', unlink: 'replace', listen: 'listen at' };

/** One line for whoever started the daemon: which path, and what is wrong with it. */
function plainWords(error: unknown): string {
  const { code, syscall, path } = error as { code?: string; syscall?: string; path?: string };
  if (syscall === undefined || path === undefined) return error instanceof Error ? error.message : String(error);
  const verb = verbs[syscall] ?? syscall;
  const inTheWay = syscall === 'mkdir' && (code === 'EEXIST' || code === 'ENOTDIR');
  return `Cannot ${verb} ${path}: ${inTheWay ? 'a file that is no directory is in its way' : reasonOf(error)}`;
}

export async function runDaemon(settings: DaemonSettings, argv: readonly string[], version: string): Promise<number> {
  try {
    return await (settings.foreground ? serve(settings, version) : background(settings, argv));
  } catch (error) {
    throw new Error(plainWords(error));
  }
}
