// The daemon: its parts, and the service that every client talks to.

import type { VncPolicy } from '../domain/command-line/arguments.ts';
import type { Firmware } from '../domain/prepare.ts';
import { libvirtError } from '../rpc/libvirt/errors.ts';
import { qemu, remote } from '../rpc/libvirt/programs.ts';
import { type Handlers, ServerConnection, type Service, service } from '../rpc/server.ts';
import type { ByteDuplex } from '../rpc/transport.ts';
import { authHandlers, isAllowed } from './auth.ts';
import { Cgroups } from './cgroups.ts';
import { connectHandlers } from './connect-handlers.ts';
import { cpuHandlers } from './cpu-handlers.ts';
import { Cpus } from './cpus.ts';
import { Emulators } from './emulators.ts';
import { eventHandlers } from './event-handlers.ts';
import { Events } from './events.ts';
import { Filters } from './filters.ts';
import { qemuHandlers } from './guest/agent-handlers.ts';
import { loadCheckpoints } from './guest/checkpoints.ts';
import type { Guest } from './guest/guest.ts';
import { Guests } from './guest/guests.ts';
import { guestHandlers } from './guest/handlers.ts';
import { destroyGuest } from './guest/lifecycle.ts';
import { findGuestsAgain } from './guest/recover.ts';
import { loadSnapshots } from './guest/snapshots.ts';
import type { ClientInfo, DaemonHost, TlsFiles } from './host.ts';
import { networkHandlers } from './network/handlers.ts';
import { Networks } from './network/networks.ts';
import { nodeDeviceHandlers } from './node-devices.ts';
import type { Paths } from './paths.ts';
import { Secrets } from './secrets.ts';
import { admit, apiName, type Session, Sessions } from './sessions.ts';
import { storageHandlers } from './storage/handlers.ts';
import { Pools } from './storage/pools.ts';

export type RemoteHandlers = Handlers<typeof remote.procedures>;
export type QemuHandlers = Handlers<typeof qemu.procedures>;

export interface DaemonOptions {
  /** Version of this package: `0.1.0`. */
  readonly version: string;
  /** Whether it serves `qemu:///system`; else `qemu:///session`. */
  readonly system: boolean;
  /** Paths of emulators; the first that works is the default. */
  readonly emulators: readonly string[];
  /** Address of displays when a document names none. */
  readonly graphicsListen: string;
  /**
   * What is asked of viewers of VNC; `listen`: the address of its displays, where it is another one than that of all; `socket`: they listen on a
   * socket in the guest's directory instead.
   */
  readonly vnc: VncPolicy & { readonly listen?: string | undefined; readonly socket?: boolean };
  readonly firmware: Firmware | undefined;
  /** User that emulators run as; the daemon's own when undefined. */
  readonly user?: { readonly uid: number; readonly gid: number } | undefined;
  /** The program that takes a process's way to more privileges, when the host has it. */
  readonly setpriv?: string | undefined;
  readonly hostUuid?: string | undefined;
  readonly hostname?: string | undefined;
  /** What a client must do over TCP and TLS before anything else. */
  readonly authentication: { readonly tcp: 'none' | 'sasl'; readonly tls: 'none' | 'sasl' };
  /** Name to SCRAM's salted secrets; see `users.ts`. */
  readonly usersFile?: string | undefined;
  /** Patterns of names (SASL) or distinguished names (TLS) that may come in; all when empty. */
  readonly allow: readonly string[];
  /** Seconds between pings of silent clients, and how many may stay unanswered. */
  readonly keepalive: { readonly interval: number; readonly count: number };
  readonly maxClients: number;
  /** Certificates, for connections to other daemons. */
  readonly tls?: TlsFiles | undefined;
  /** Certificates of emulators, by QEMU's names, for the memory of guests that migrate. */
  readonly migrationTls: string;
  readonly backupTls: string;
  /** Whether the host can confine emulators to the files that they are given. */
  readonly confine: boolean;
  /** Consoles in files have at most so many bytes, and so many files of them are kept beside: as virtlogd's `max_size` and `max_backups`; no bound where the size is 0. */
  readonly consoles: { readonly size: number; readonly backups: number };
  /** Networks as bridges of the host, where it allows that. */
  readonly bridges: boolean;
}

/** How long a client may take to authenticate and open, in ms. */
const openMs = 60_000;

export class Daemon {
  readonly host: DaemonHost;
  readonly paths: Paths;
  readonly options: DaemonOptions;
  readonly events = new Events();
  readonly sessions = new Sessions();
  readonly emulators: Emulators;
  readonly cpus: Cpus;
  readonly cgroups: Cgroups;
  readonly guests: Guests;
  readonly networks: Networks;
  readonly pools: Pools;
  readonly secrets: Secrets;
  readonly filters: Filters;
  /** TCP ports that displays of guests have. */
  readonly ports = new Set<number>();
  readonly #services: readonly Service[];

  constructor(host: DaemonHost, paths: Paths, options: DaemonOptions) {
    this.host = host;
    this.paths = paths;
    this.options = options;
    this.emulators = new Emulators(host, paths.cache, options.emulators);
    this.cpus = new Cpus(this);
    this.cgroups = new Cgroups(host);
    this.guests = new Guests(host, paths, this.emulators, this.events);
    this.networks = new Networks(this);
    this.pools = new Pools(this);
    this.secrets = new Secrets(this);
    this.filters = new Filters(this);
    const remoteHandlers: RemoteHandlers = {
      ...connectHandlers(this),
      ...cpuHandlers(this),
      ...eventHandlers(this),
      ...guestHandlers(this),
      ...storageHandlers(this),
      ...networkHandlers(this),
      ...this.secrets.handlers(),
      ...this.filters.handlers(),
      ...nodeDeviceHandlers(this),
      ...authHandlers(this),
    };
    this.#services = [service(remote, refuseOthers(remoteHandlers)), service(qemu, qemuHandlers(this))];
  }
  /**
   * Takes the directories for itself and finds again what was running.
   * @throws {Error} when another daemon has them
   */
  async start(): Promise<void> {
    const { files, sockets } = this.host;
    for (const directory of Object.values(this.paths)) await files.makeDirectory(directory, 0o755);
    await files.makeDirectory(`${this.paths.run}/qemu`, 0o700);
    await files.makeDirectory(`${this.paths.log}/qemu`, 0o700);
    const real = (await files.real(this.paths.run)) ?? this.paths.run;
    if (!(await sockets.claim(`nonrootd:${real}`))) {
      throw new Error(`Cannot start: another nonrootd uses ${real}`);
    }
    await this.pools.load();
    await this.secrets.load();
    await this.filters.load();
    await this.networks.load();
    await this.guests.load();
    for (const guest of this.guests.all) {
      await loadSnapshots(this, guest);
      await loadCheckpoints(this, guest);
    }
    await findGuestsAgain(this);
    await this.pools.autostart();
    await this.networks.autostart();
  }
  /** Starts what is to run by itself after the host's start. */
  async autostart(): Promise<void> {
    const { startDefined } = await import('./guest/lifecycle.ts');
    for (const guest of this.guests.all) {
      if (!guest.autostart || guest.active) continue;
      await startDefined(this, guest, {}).catch((error: unknown) => {
        this.host.log(`Cannot start domain ${guest.name}: ${(error as Error).message}`);
      });
    }
  }
  /** Serves one client until it goes. */
  accept(duplex: ByteDuplex, client: ClientInfo): void {
    if (this.sessions.count >= this.options.maxClients) {
      this.host.log(`Too many clients: ${client.address} is refused`);
      duplex.close();
      return;
    }
    const { tcp, tls } = this.options.authentication;
    if (client.transport === 'tls' && tls === 'none' && !isAllowed(this.options.allow, client.distinguishedName ?? '')) {
      this.host.log(`TLS client ${client.distinguishedName} from ${client.address} is not allowed`);
      duplex.close();
      return;
    }
    const needed = client.transport === 'tcp' ? tcp : client.transport === 'tls' ? tls : 'none';
    const session: Session = {
      client,
      opened: false,
      readOnly: client.readOnly,
      authentication: needed,
      user: undefined,
      autodestroy: new Set(),
      wantsCloseMessage: false,
      onClose: new Set(),
      sasl: undefined,
    };
    const connection = new ServerConnection(duplex, this.#services, {
      admit: (name) => admit(session, name),
      report: (error, procedure) => this.host.log(`${procedure}: ${error instanceof Error ? error.stack : String(error)}`),
    });
    this.sessions.add(connection, session);
    // Who connects and does not open would keep a place for ever.
    const late = this.host.timers.after(openMs, () => {
      if (!session.opened) connection.close(new Error('the client has not opened its connection in time'));
    });
    void connection.closed.then(() => {
      late();
      this.events.forget(connection);
      this.sessions.remove(connection);
      for (const run of session.onClose) run();
      for (const uuid of session.autodestroy) {
        const guest = this.guests.byUuid(uuid);
        if (guest?.active) void destroyGuest(this, guest, false).catch(() => {});
      }
    });
  }
  /** A guest has stopped: no connection takes it down any more. */
  guestStopped(guest: Guest): void {
    for (const [, session] of this.sessions.all()) session.autodestroy.delete(guest.uuid);
  }
}

/** What the table has and the daemon does not is refused as libvirt refuses it. */
function refuseOthers(handlers: RemoteHandlers): RemoteHandlers {
  const others = Object.keys(remote.procedures)
    .filter((name) => !(name in handlers))
    .map((name) => [
      name,
      () => {
        throw libvirtError('noSupport', 'none', apiName(name));
      },
    ]);
  return { ...handlers, ...(Object.fromEntries(others) as RemoteHandlers) };
}
