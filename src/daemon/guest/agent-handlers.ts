// What clients ask of a guest's agent: addresses, file systems, time, users, commands of their own. qga/qapi-schema.json (QEMU 7.2).

import { base64 } from '../../rpc/base64.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { TypedParam } from '../../rpc/libvirt/types.ts';
import { isObject, type Json } from '../../rpc/qmp/json.ts';
import type { Daemon, QemuHandlers, RemoteHandlers } from '../daemon.ts';
import { invalidArgument, operationInvalid, translateErrors } from '../errors.ts';
import type { Guest } from './guest.ts';
import { agentCommand } from './lifecycle.ts';

const list = (value: Json): readonly { readonly [name: string]: Json }[] => (Array.isArray(value) ? value.filter(isObject) : []);
const text = (value: Json | undefined): string => (value === undefined || value === null ? '' : String(value));

/** Sources of `domainInterfaceAddresses`. */
const source = { lease: 0, agent: 1, arp: 2 } as const;

interface Address {
  readonly type: number;
  readonly addr: string;
  readonly prefix: number;
}

async function agentAddresses(daemon: Daemon, guest: Guest) {
  const answer = list(await agentCommand(daemon, guest, 'guest-network-get-interfaces'));
  return answer.map((one) => ({
    name: text(one['name']),
    hwaddr: one['hardware-address'] === undefined ? undefined : text(one['hardware-address']),
    addrs: list(one['ip-addresses'] ?? []).map(
      (a): Address => ({
        type: a['ip-address-type'] === 'ipv6' ? 1 : 0,
        addr: text(a['ip-address']),
        prefix: Number(a['prefix'] ?? 0),
      }),
    ),
  }));
}

/** Information kinds of `domainGetGuestInfo`, with the agent's command and its parameters. */
const infoKinds: readonly (readonly [number, (daemon: Daemon, guest: Guest) => Promise<TypedParam[]>])[] = [
  [
    1,
    async (daemon, guest) => {
      const users = list(await agentCommand(daemon, guest, 'guest-get-users'));
      const row = (field: string, value: string): TypedParam => ({ field, value: { type: 'string', value } });
      return [
        { field: 'user.count', value: { type: 'uint', value: users.length } },
        ...users.flatMap((one, i) => [row(`user.${i}.name`, text(one['user'])), row(`user.${i}.domain`, text(one['domain']))]),
      ];
    },
  ],
  [
    2,
    async (daemon, guest) => {
      const os = await agentCommand(daemon, guest, 'guest-get-osinfo');
      if (!isObject(os)) return [];
      return Object.entries(os).map(([name, value]) => ({ field: `os.${name}`, value: { type: 'string', value: text(value) } }));
    },
  ],
  [
    4,
    async (daemon, guest) => {
      const zone = await agentCommand(daemon, guest, 'guest-get-timezone');
      if (!isObject(zone)) return [];
      return [
        { field: 'timezone.name', value: { type: 'string', value: text(zone['zone']) } },
        { field: 'timezone.offset', value: { type: 'int', value: Number(zone['offset'] ?? 0) } },
      ];
    },
  ],
  [
    8,
    async (daemon, guest) => {
      const answer = await agentCommand(daemon, guest, 'guest-get-host-name');
      return [{ field: 'hostname', value: { type: 'string', value: text(isObject(answer) ? answer['host-name'] : '') } }];
    },
  ],
];

export function agentHandlers(daemon: Daemon): RemoteHandlers {
  const { guests } = daemon;
  const ask = (guest: Guest, name: string, args?: Readonly<Record<string, Json | undefined>>): Promise<Json> =>
    agentCommand(daemon, guest, name, args, timeoutOf(guest));
  return translateErrors('qemu', {
    async domainInterfaceAddresses({ dom, source: from }) {
      const guest = guests.find(dom);
      guest.live();
      if (from === source.agent) return { ifaces: await agentAddresses(daemon, guest) };
      if (from !== source.lease) throw invalidArgument('Unknown IP address data source');
      const leases = await Promise.all(daemon.networks.all.map((net) => daemon.networks.leases(net)));
      const ifaces = guest.live().domain.devices.interfaces.flatMap((card) => {
        const own = leases.flat().filter((one) => one.mac === card.mac?.address);
        if (own.length === 0) return [];
        const addrs = own.map((one): Address => ({ type: one.ip.includes(':') ? 1 : 0, addr: one.ip, prefix: one.prefix }));
        return [{ name: card.target?.dev ?? card.alias?.name ?? '', hwaddr: card.mac?.address, addrs }];
      });
      return { ifaces };
    },
    async domainGetHostname({ dom, flags }) {
      const guest = guests.find(dom);
      guest.live();
      if ((flags & 1) === 1) {
        const macs = guest.live().domain.devices.interfaces.map((one) => one.mac?.address);
        const leases = (await Promise.all(daemon.networks.all.map((net) => daemon.networks.leases(net)))).flat();
        const found = leases.find((one) => one.hostname !== undefined && macs.includes(one.mac));
        if (found?.hostname !== undefined) return { hostname: found.hostname };
        throw libvirtError('noHostname', 'qemu', `no hostname found for domain ${guest.name}`);
      }
      const answer = await ask(guest, 'guest-get-host-name');
      return { hostname: text(isObject(answer) ? answer['host-name'] : '') };
    },
    async domainGetTime({ dom }) {
      const ns = BigInt((await ask(guests.find(dom), 'guest-get-time')) as number | bigint);
      return { seconds: ns / 1_000_000_000n, nseconds: Number(ns % 1_000_000_000n) };
    },
    async domainSetTime({ dom, seconds, nseconds, flags }) {
      const guest = guests.find(dom);
      guest.live();
      if ((flags & 1) === 1) await ask(guest, 'guest-set-time');
      else await ask(guest, 'guest-set-time', { time: seconds * 1_000_000_000n + BigInt(nseconds) });
      await guest.qmp('rtc-reset-reinjection').catch(() => {});
    },
    async domainGetFsinfo({ dom }) {
      const answer = list(await ask(guests.find(dom), 'guest-get-fsinfo'));
      const info = answer.map((one) => ({
        mountpoint: text(one['mountpoint']),
        name: text(one['name']),
        fstype: text(one['type']),
        devAliases: [],
      }));
      return { info, ret: info.length };
    },
    async domainFsfreeze({ dom, mountpoints }) {
      const guest = guests.find(dom);
      const only = mountpoints.length > 0;
      const count = await ask(
        guest,
        only ? 'guest-fsfreeze-freeze-list' : 'guest-fsfreeze-freeze',
        only ? { mountpoints } : undefined,
      );
      return { filesystems: Number(count) };
    },
    async domainFsthaw({ dom }) {
      return { filesystems: Number(await ask(guests.find(dom), 'guest-fsfreeze-thaw')) };
    },
    async domainFstrim({ dom, mountpoint, minimum }) {
      if (mountpoint !== undefined)
        throw libvirtError('argumentUnsupported', 'qemu', 'Specifying mount point is not supported for now');
      await ask(guests.find(dom), 'guest-fstrim', { minimum });
    },
    async domainSetUserPassword({ dom, user, password, flags }) {
      const encoded = base64(new TextEncoder().encode(password ?? ''));
      await ask(guests.find(dom), 'guest-set-user-password', {
        username: user ?? '',
        password: encoded,
        crypted: (flags & 1) === 1,
      });
    },
    async domainGetGuestInfo({ dom, types }) {
      const guest = guests.find(dom);
      guest.live();
      const params: TypedParam[] = [];
      for (const [bit, collect] of infoKinds) {
        if (types !== 0 && (types & bit) === 0) continue;
        try {
          params.push(...(await collect(daemon, guest)));
        } catch (error) {
          if (types !== 0) throw error;
        }
      }
      return { params };
    },
    async domainGetGuestVcpus({ dom }) {
      const cpus = list(await ask(guests.find(dom), 'guest-get-vcpus'));
      const ids = (test: (one: { readonly [name: string]: Json }) => boolean): string =>
        cpus
          .filter(test)
          .map((one) => text(one['logical-id']))
          .join(',');
      const row = (field: string, value: string): TypedParam => ({ field, value: { type: 'string', value } });
      return {
        params: [
          row(
            'vcpus',
            ids(() => true),
          ),
          row(
            'online',
            ids((one) => one['online'] === true),
          ),
          row(
            'offlinable',
            ids((one) => one['can-offline'] === true),
          ),
        ],
      };
    },
    domainAgentSetResponseTimeout({ dom, timeout }) {
      const guest = guests.find(dom);
      if (timeout < -2) throw invalidArgument(`guest agent timeout '${timeout}' is less than the minimum '-2'`);
      // Of a guest that is off it is the next run's, which begins with the default, as in libvirt.
      if (guest.run) guest.run.agentTimeout = timeout;
      return { result: 0 };
    },
    async domainAuthorizedSshKeysGet({ dom, user }) {
      const answer = await ask(guests.find(dom), 'guest-ssh-get-authorized-keys', { username: user });
      const keys = isObject(answer) && Array.isArray(answer['keys']) ? answer['keys'].map(String) : [];
      return { keys };
    },
    async domainAuthorizedSshKeysSet({ dom, user, keys, flags }) {
      const guest = guests.find(dom);
      if (flags & 2) await ask(guest, 'guest-ssh-remove-authorized-keys', { username: user, keys });
      else await ask(guest, 'guest-ssh-add-authorized-keys', { username: user, keys, reset: (flags & 1) === 0 });
    },
    async domainPmSuspendForDuration({ dom, target, duration }) {
      const guest = guests.find(dom);
      guest.live();
      if (duration !== 0n) throw libvirtError('argumentUnsupported', 'qemu', 'Duration not supported. Use 0 for now');
      const names = ['guest-suspend-ram', 'guest-suspend-disk', 'guest-suspend-hybrid'];
      const name = names[target];
      if (name === undefined) throw invalidArgument(`Unknown suspend target: ${target}`);
      await agentCommand(daemon, guest, name, undefined, { silent: true });
    },
  } satisfies RemoteHandlers);
}

const timeoutOf = (guest: Guest): { timeout?: number } => {
  const given = guest.run?.agentTimeout ?? -2;
  return given === -2 ? {} : { timeout: given === -1 ? 5000 : given * 1000 };
};

/** libvirt's special timeouts of an agent command. */
const blockForever = -2;
const standard = -1;

/** The procedures of QEMU's own program. */
export function qemuHandlers(daemon: Daemon): QemuHandlers {
  const { guests, events } = daemon;
  return translateErrors('qemu', {
    async domainMonitorCommand({ dom, cmd, flags }) {
      const guest = guests.find(dom);
      const run = guest.live();
      if ((flags & 1) === 1) return { result: String(await guest.qmp('human-monitor-command', { 'command-line': cmd })) };
      let given: Json;
      try {
        given = JSON.parse(cmd) as Json;
      } catch {
        throw libvirtError('internalError', 'qemu', `cannot parse json ${cmd}: parse error`);
      }
      if (!isObject(given) || typeof given['execute'] !== 'string')
        throw libvirtError('internalError', 'qemu', 'unable to execute QEMU command: no command');
      try {
        const args = isObject(given['arguments']) ? given['arguments'] : undefined;
        const answer = await run.monitor.execute(given['execute'], args);
        return { result: JSON.stringify({ return: answer, id: 'libvirt-1' }, plain) };
      } catch (error) {
        const { message, class: kind } = error as Error & { class?: string };
        return { result: JSON.stringify({ id: 'libvirt-1', error: { class: kind ?? 'GenericError', desc: message } }) };
      }
    },
    async domainAgentCommand({ dom, cmd, timeout }) {
      const guest = guests.find(dom);
      guest.live();
      let given: Json;
      try {
        given = JSON.parse(cmd) as Json;
      } catch {
        throw libvirtError('internalError', 'qemu', `cannot parse json ${cmd}: parse error`);
      }
      if (!isObject(given) || typeof given['execute'] !== 'string') throw operationInvalid('the agent command has no name');
      const args = isObject(given['arguments']) ? given['arguments'] : undefined;
      const limit = timeout === blockForever ? {} : { timeout: timeout === standard ? 5000 : Math.max(1, timeout * 1000) };
      const answer = await agentCommand(daemon, guest, given['execute'], args, limit);
      return { result: JSON.stringify({ return: answer }, plain) };
    },
    connectDomainMonitorEventRegister({ dom, event, flags }, call) {
      if (dom !== undefined) guests.find(dom);
      return events.register(call.connection, 'monitor', 0, dom?.uuid, patternOf(event, flags));
    },
    connectDomainMonitorEventDeregister: ({ callbackId }, call) => events.deregister(call.connection, 'monitor', callbackId),
    domainAttach() {
      throw libvirtError('noSupport', 'qemu', 'virDomainQemuAttach');
    },
  } satisfies QemuHandlers);
}

const plain = (_: string, value: unknown): unknown => (typeof value === 'bigint' ? Number(value) : value);

/** Flags: 1 the event's name is a pattern, 2 letters of either case. */
function patternOf(event: string | undefined, flags: number): RegExp | undefined {
  if (event === undefined) return undefined;
  const source = (flags & 1) === 1 ? event : `^${event.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`;
  try {
    return new RegExp(source, (flags & 2) === 2 ? 'i' : '');
  } catch {
    throw libvirtError('invalidArg', 'qemu', `failed to compile regex ${event}`);
  }
}
