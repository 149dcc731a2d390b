// The commands of the page over a daemon's guests, and their samples: a client of libvirt's RPC.

import { domainDocument, memoryOf } from '../../cli/domain-document.ts';
import { parseDomain } from '../../domain/domain.ts';
import type { RpcClient } from '../../rpc/client.ts';
import { remote } from '../../rpc/libvirt/programs.ts';
import { type Domain, paramsToRecord } from '../../rpc/libvirt/types.ts';
import { type ActionName, type Answers, actions, type CommandArgs, type CommandName, type GuestSample } from '../../web/api.ts';

/** A document of libvirt's without the state of the running guest. */
const inactive = 2;
/** Managed save, snapshots' and checkpoints' documents, and firmware variables go with a guest. */
const undefineAll = 1 | 2 | 4 | 16;

const domainOf = async (client: RpcClient, uuid: string): Promise<Domain> => {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(uuid)) throw new Error('Cannot find guest: its uuid is not one');
  return (await client.call(remote, 'domainLookupByUuid', { uuid })).dom;
};

const acts: Readonly<Record<ActionName, (client: RpcClient, dom: Domain) => Promise<unknown>>> = {
  start: (client, dom) => client.call(remote, 'domainCreateWithFlags', { dom, flags: 0 }),
  resume: (client, dom) => client.call(remote, 'domainResume', { dom }),
  pause: (client, dom) => client.call(remote, 'domainSuspend', { dom }),
  shutdown: (client, dom) => client.call(remote, 'domainShutdownFlags', { dom, flags: 0 }),
  reboot: (client, dom) => client.call(remote, 'domainReboot', { dom, flags: 0 }),
  reset: (client, dom) => client.call(remote, 'domainReset', { dom, flags: 0 }),
  destroy: (client, dom) => client.call(remote, 'domainDestroyFlags', { dom, flags: 0 }),
  remove: (client, dom) => client.call(remote, 'domainUndefineFlags', { dom, flags: undefineAll }),
};

const given = (text: string | undefined): string | undefined =>
  text === undefined || text.trim() === '' ? undefined : text.trim();

async function create(client: RpcClient, args: CommandArgs<'create'>): Promise<{ uuid: string }> {
  if (!Number.isInteger(args.cpus) || args.cpus < 1) throw new Error(`Cannot use ${args.cpus} CPUs: accepted are numbers from 1`);
  const disk = given(args.disk);
  const xml = domainDocument({
    name: args.name.trim(),
    memory: memoryOf(args.memory),
    cpus: args.cpus,
    machine: args.machine,
    emulator: undefined,
    disks: disk === undefined ? [] : [{ path: disk, format: disk.endsWith('.qcow2') ? 'qcow2' : 'raw' }],
    cdrom: given(args.cdrom),
    kernel: given(args.kernel),
    initrd: given(args.initrd),
    append: given(args.append),
    network: args.network,
    graphics: args.display === true,
  });
  const { dom } = await client.call(remote, 'domainDefineXmlFlags', { xml, flags: 0 });
  if (args.start) {
    await client.call(remote, 'domainCreateWithFlags', { dom, flags: 0 }).catch((error: Error) => {
      throw new Error(`${dom.name} is defined, but does not start: ${error.message}`);
    });
  }
  return { uuid: dom.uuid };
}

const escaped = (text: string): string => text.replace(/[&<>]/g, (c) => `&#${c.charCodeAt(0)};`);

async function snapshots(client: RpcClient, uuid: string): Promise<Answers['snapshots']> {
  const dom = await domainOf(client, uuid);
  const { snapshots: found } = await client.call(remote, 'domainListAllSnapshots', { dom, needResults: true, flags: 0 });
  return Promise.all(
    found.map(async (snap) => {
      const [{ xml }, { current }] = await Promise.all([
        client.call(remote, 'domainSnapshotGetXmlDesc', { snap, flags: 0 }),
        client.call(remote, 'domainSnapshotIsCurrent', { snap, flags: 0 }),
      ]);
      const created = /<creationTime>(\d+)<\/creationTime>/.exec(xml)?.[1];
      return { name: snap.name, current, created: created === undefined ? null : Number(created) };
    }),
  );
}

type Handlers = { readonly [N in CommandName]: (client: RpcClient, args: CommandArgs<N>) => Promise<Answers[N]> };

const handlers: Handlers = {
  async host(client) {
    const [{ hostname }, { version }, { nets }] = await Promise.all([
      client.call(remote, 'connectGetHostname'),
      client.call(remote, 'connectGetLibVersion'),
      client.call(remote, 'connectListAllNetworks', { needResults: true, flags: 0 }),
    ]);
    const n = Number(version);
    return {
      hostname,
      version: `${Math.floor(n / 1e6)}.${Math.floor(n / 1e3) % 1e3}.${n % 1e3}`,
      networks: nets.map((net) => net.name),
    };
  },
  async act(client, { uuid, action }) {
    if (!Object.hasOwn(acts, action))
      throw new Error(`Cannot do "${action.slice(0, 40)}": accepted are ${Object.keys(actions).join(', ')}`);
    await acts[action as ActionName](client, await domainOf(client, uuid));
    return null;
  },
  async guest(client, { uuid }) {
    const dom = await domainOf(client, uuid);
    const [{ persistent }, { autostart }, { result }, live] = await Promise.all([
      client.call(remote, 'domainIsPersistent', { dom }),
      client.call(remote, 'domainGetAutostart', { dom }).catch(() => ({ autostart: false })),
      client.call(remote, 'domainHasManagedSaveImage', { dom, flags: 0 }),
      client.call(remote, 'domainGetXmlDesc', { dom, flags: 0 }),
    ]);
    const config = persistent ? await client.call(remote, 'domainGetXmlDesc', { dom, flags: inactive }) : live;
    const vnc = parseDomain(live.xml).devices.graphics.some((one) => one.type === 'vnc');
    return { persistent, autostart, saved: result === 1, live: live.xml, config: config.xml, display: vnc ? 'vnc' : 'none' };
  },
  create,
  define: async (client, { xml }) => ({ uuid: (await client.call(remote, 'domainDefineXmlFlags', { xml, flags: 0 })).dom.uuid }),
  snapshots: (client, { uuid }) => snapshots(client, uuid),
  async snapshotCreate(client, { uuid, name }) {
    const label = name.trim() === '' ? '' : `<name>${escaped(name.trim())}</name>`;
    const xml = `<domainsnapshot>${label}</domainsnapshot>`;
    await client.call(remote, 'domainSnapshotCreateXml', { dom: await domainOf(client, uuid), xml, flags: 0 });
    return null;
  },
  async snapshotRevert(client, { uuid, name }) {
    await client.call(remote, 'domainRevertToSnapshot', { snap: { name, dom: await domainOf(client, uuid) }, flags: 0 });
    return null;
  },
  async snapshotDelete(client, { uuid, name }) {
    await client.call(remote, 'domainSnapshotDelete', { snap: { name, dom: await domainOf(client, uuid) }, flags: 0 });
    return null;
  },
};

/** Carries out a command. @throws what the daemon answers */
export const command = <N extends CommandName>(client: RpcClient, name: N, args: CommandArgs<N>): Promise<Answers[N]> =>
  handlers[name](client, args);

/** All guests with their counters. */
export async function samples(client: RpcClient): Promise<GuestSample[]> {
  const { records } = await client.call(remote, 'connectGetAllDomainStats', { doms: [], stats: 0, flags: 0 });
  return records
    .map(({ dom, params }) => {
      const stats = paramsToRecord(params);
      const number = (field: string): number => Number(stats[field] ?? 0);
      const sum = (pattern: RegExp): number | null => {
        const found = Object.entries(stats).filter(([field]) => pattern.test(field));
        return found.length === 0 ? null : found.reduce((all, [, value]) => all + Number(value), 0);
      };
      return {
        name: dom.name,
        uuid: dom.uuid,
        id: dom.id < 0 ? null : dom.id,
        state: number('state.state'),
        cpus: number('vcpu.current'),
        cpuTime: number('cpu.time'),
        memory: number('balloon.current'),
        memoryMax: number('balloon.maximum'),
        disk: sum(/^block\.\d+\.(rd|wr)\.bytes$/),
        network: sum(/^net\.\d+\.(rx|tx)\.bytes$/),
      };
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

export interface DisplayPlace {
  readonly host: string;
  readonly port: number;
  readonly socket: string | undefined;
}
/** Where a running guest's VNC server is; `daemonHost` is the daemon's machine. @throws Error with one line where there is none */
export async function displayOf(client: RpcClient, uuid: string, daemonHost: string): Promise<DisplayPlace> {
  const dom = await domainOf(client, uuid);
  const { xml } = await client.call(remote, 'domainGetXmlDesc', { dom, flags: 0 });
  const vnc = parseDomain(xml).devices.graphics.find((one) => one.type === 'vnc');
  if (vnc === undefined) throw new Error(`Cannot show ${dom.name}: it has no VNC display`);
  const listen = vnc.listens?.[0];
  const socket = vnc.socket ?? listen?.socket;
  if (socket === undefined && (vnc.port === undefined || vnc.port <= 0))
    throw new Error(`Cannot show ${dom.name}: it does not run`);
  const address = vnc.listen ?? listen?.address ?? '127.0.0.1';
  return { host: /^(0\.0\.0\.0|::|127\..*|::1|localhost)$/.test(address) ? daemonHost : address, port: vnc.port ?? 0, socket };
}

/** Opens the first console of a guest. */
export async function openConsole(client: RpcClient, uuid: string) {
  const dom = await domainOf(client, uuid);
  // Taken from whoever has it: a reload of the page must not wait for its own forerunner.
  return (await client.open(remote, 'domainOpenConsole', { dom, device: undefined, flags: 1 })).stream;
}
