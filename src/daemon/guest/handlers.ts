// Procedures of domains: look-up, definition, life cycle, what a domain is. The rest is in the tables that this one joins.
import { type Domain, formatDomain, parseDomain } from '../../domain/domain.ts';
import { validateLifecycle } from '../../domain/validate.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Daemon, RemoteHandlers } from '../daemon.ts';
import { checkFlags, operationInvalid, translateErrors } from '../errors.ts';
import { affects } from './affect.ts';
import { agentHandlers } from './agent-handlers.ts';
import { consoleHandlers } from './console-handlers.ts';
import { deviceHandlers } from './device-handlers.ts';
import { copyDomain, type Guest } from './guest.ts';
import { jobHandlers } from './job-handlers.ts';
import {
  createFromXml,
  destroyGuest,
  dropManagedSave,
  rebootGuest,
  resetGuest,
  resumeGuest,
  shutdownGuest,
  startDefined,
  suspendGuest,
} from './lifecycle.ts';
import { limitHandlers } from './limit-handlers.ts';
import { type FlagGroups, wanted } from './list-flags.ts';
import { metadataHandlers } from './metadata-handlers.ts';
import { withoutRun } from './save.ts';
import { snapshotHandlers } from './snapshot-handlers.ts';
import { state } from './states.ts';
import { cpuTimeOf } from './stats.ts';
import { statsHandlers } from './stats-handlers.ts';
import { saveStatus } from './status.ts';
import { tuneHandlers } from './tune-handlers.ts';

/** Flags of `domainGetXmlDesc`. */
const xmlFlag = { secure: 1, inactive: 2, updateCpu: 4, migratable: 8 } as const;
/** Flags of start. */
const startFlag = { paused: 1, autodestroy: 2, bypassCache: 4, forceBoot: 8, validate: 16, resetNvram: 32 } as const;
/** Flags of undefine. */
const undefineFlag = { managedSave: 1, snapshots: 2, nvram: 4, keepNvram: 8, checkpoints: 16 } as const;

/** Flags of `connectListAllDomains`, in groups of which one or none is set. */
const listGroups: FlagGroups<Guest> = [
  [
    [1, (g) => g.active],
    [2, (g) => !g.active],
  ],
  [
    [4, (g) => g.persistent],
    [8, (g) => !g.persistent],
  ],
  [
    [16, (g) => g.state === state.running],
    [32, (g) => g.state === state.paused],
    [64, (g) => g.state === state.shutoff],
    [128, (g) => ![state.running, state.paused, state.shutoff].includes(g.state as 1)],
  ],
  [
    [256, (g) => g.managedSave],
    [512, (g) => !g.managedSave],
  ],
  [
    [1024, (g) => g.autostart],
    [2048, (g) => !g.autostart],
  ],
  [
    [4096, (g) => g.snapshots.size > 0],
    [8192, (g) => g.snapshots.size === 0],
  ],
  [
    [16384, (g) => g.checkpoints.size > 0],
    [32768, (g) => g.checkpoints.size === 0],
  ],
];

function describe(guest: Guest, flags: number): Domain {
  const domain = (flags & xmlFlag.inactive) !== 0 && guest.config ? guest.config : guest.current;
  if ((flags & (xmlFlag.migratable | xmlFlag.inactive)) === 0 || !guest.active) return domain;
  if (guest.config && (flags & xmlFlag.inactive) !== 0) return domain;
  return withoutRun(parseDomain(formatDomain(domain, { secure: true })));
}

async function undefine(daemon: Daemon, guest: Guest, flags: number): Promise<void> {
  if (!guest.persistent) throw operationInvalid('cannot undefine transient domain');
  if (!guest.active && guest.snapshots.size > 0) {
    if ((flags & undefineFlag.snapshots) === 0) {
      throw operationInvalid(`cannot delete inactive domain with ${guest.snapshots.size} snapshots`);
    }
    for (const name of [...guest.snapshots.keys()]) {
      guest.snapshots.delete(name);
    }
    await daemon.host.files.removeTree(`${daemon.paths.lib}/qemu/snapshot/${guest.name}`);
  }
  if (!guest.active && guest.checkpoints.size > 0) {
    if ((flags & undefineFlag.checkpoints) === 0) {
      throw operationInvalid(`cannot delete inactive domain with ${guest.checkpoints.size} checkpoints`);
    }
    guest.checkpoints.clear();
    await daemon.host.files.removeTree(`${daemon.paths.lib}/qemu/checkpoint/${guest.name}`);
  }
  if (guest.managedSave) {
    if ((flags & undefineFlag.managedSave) === 0)
      throw operationInvalid('Refusing to undefine while domain managed save image exists');
    await dropManagedSave(daemon, guest);
  }
  const nvram = guest.config?.os.nvram?.path;
  if (!guest.active && nvram !== undefined && (await daemon.host.files.status(nvram)) !== undefined) {
    if (flags & undefineFlag.nvram) await daemon.host.files.remove(nvram);
    else if ((flags & undefineFlag.keepNvram) === 0) throw operationInvalid('cannot undefine domain with nvram');
  }
  await daemon.guests.undefine(guest);
}

export function guestHandlers(daemon: Daemon): RemoteHandlers {
  const { guests, sessions } = daemon;
  const all = (): readonly Guest[] => guests.all;
  const byOrder = (list: readonly Guest[]): Guest[] => [...list];
  const own = {
    connectNumOfDomains: () => ({ num: all().filter((one) => one.active).length }),
    connectListDomains: ({ maxIds }) => ({
      ids: all()
        .flatMap((one) => (one.active ? [one.id] : []))
        .slice(0, maxIds),
    }),
    connectNumOfDefinedDomains: () => ({ num: all().filter((one) => !one.active).length }),
    connectListDefinedDomains: ({ maxNames }) => ({
      names: all()
        .flatMap((one) => (one.active ? [] : [one.name]))
        .slice(0, maxNames),
    }),
    connectListAllDomains({ needResults, flags }) {
      const list = byOrder(all()).filter((one) => wanted(one, flags, listGroups));
      return { domains: needResults ? list.map((one) => one.ref) : [], ret: list.length };
    },
    domainLookupById({ id }) {
      const guest = guests.byId(id);
      if (!guest) throw libvirtError('noDomain', 'qemu', `no domain with matching id ${id}`);
      return { dom: guest.ref };
    },
    domainLookupByName({ name }) {
      const guest = guests.byName(name);
      if (!guest) throw libvirtError('noDomain', 'qemu', `no domain with matching name '${name}'`);
      return { dom: guest.ref };
    },
    domainLookupByUuid({ uuid }) {
      const guest = guests.byUuid(uuid);
      if (!guest) throw libvirtError('noDomain', 'qemu', `no domain with matching uuid '${uuid}'`);
      return { dom: guest.ref };
    },

    domainDefineXml: async ({ xml }) => ({ dom: (await guests.define(xml)).ref }),
    domainDefineXmlFlags: async ({ xml, flags }) => {
      checkFlags('qemuDomainDefineXMLFlags', flags, 1);
      return { dom: (await guests.define(xml)).ref };
    },
    domainUndefine: async ({ dom }) => undefine(daemon, guests.find(dom), 0),
    domainUndefineFlags: async ({ dom, flags }) => {
      checkFlags('qemuDomainUndefineFlags', flags, 0x1f);
      await undefine(daemon, guests.find(dom), flags);
    },
    domainCreate: async ({ dom }) => startDefined(daemon, guests.find(dom), {}),
    async domainCreateWithFlags({ dom, flags }, call) {
      checkFlags('qemuDomainCreateWithFlags', flags, 0x2f);
      const guest = guests.find(dom);
      await startDefined(daemon, guest, {
        paused: (flags & startFlag.paused) !== 0,
        forceBoot: (flags & startFlag.forceBoot) !== 0,
        session: flags & startFlag.autodestroy ? sessions.of(call) : undefined,
      });
      return { dom: guest.ref };
    },
    async domainCreateXml({ xml, flags }, call) {
      checkFlags('qemuDomainCreateXML', flags, 0x33);
      const session = flags & startFlag.autodestroy ? sessions.of(call) : undefined;
      const guest = await createFromXml(daemon, xml, { paused: (flags & startFlag.paused) !== 0 }, session);
      return { dom: guest.ref };
    },
    domainDestroy: async ({ dom }) => destroyGuest(daemon, guests.find(dom), false),
    domainDestroyFlags: async ({ dom, flags }) => {
      checkFlags('qemuDomainDestroyFlags', flags, 3);
      await destroyGuest(daemon, guests.find(dom), (flags & 1) !== 0);
    },
    domainShutdown: async ({ dom }) => shutdownGuest(daemon, guests.find(dom), 0),
    domainShutdownFlags: async ({ dom, flags }) => {
      checkFlags('qemuDomainShutdownFlags', flags, 3);
      await shutdownGuest(daemon, guests.find(dom), flags);
    },
    domainReboot: async ({ dom, flags }) => {
      checkFlags('qemuDomainReboot', flags, 3);
      await rebootGuest(daemon, guests.find(dom), flags);
    },
    domainReset: async ({ dom }) => resetGuest(guests.find(dom)),
    domainSuspend: async ({ dom }) => suspendGuest(guests.find(dom)),
    domainResume: async ({ dom }) => resumeGuest(guests.find(dom)),
    domainPmWakeup: async ({ dom }) => {
      const guest = guests.find(dom);
      guest.live();
      await guest.qmp('system_wakeup');
    },
    async domainRename({ dom, name }) {
      const guest = guests.find(dom);
      if (!guest.persistent) throw operationInvalid('cannot rename a transient domain');
      if (guest.active) throw operationInvalid('cannot rename active domain');
      if (guest.snapshots.size > 0) throw operationInvalid('cannot rename domain with snapshots');
      if (guest.checkpoints.size > 0) throw operationInvalid('cannot rename domain with checkpoints');
      if (guest.managedSave) throw operationInvalid("domain with a managed saved state can't be renamed");
      if (name === undefined || name === '' || name.includes('/')) {
        throw libvirtError('xmlError', 'domain', name ? `name ${name} cannot contain '/'` : 'missing name');
      }
      await guest.lock.run('DomainRename', () => guests.rename(guest, name));
      return { ret: 0 };
    },
    domainGetAutostart: ({ dom }) => ({ autostart: guests.find(dom).autostart }),
    domainSetAutostart: async ({ dom, autostart }) => guests.setAutostart(guests.find(dom), autostart),

    domainGetXmlDesc({ dom, flags }) {
      checkFlags('qemuDomainGetXMLDesc', flags, 15);
      return { xml: formatDomain(describe(guests.find(dom), flags), { secure: (flags & xmlFlag.secure) !== 0 }) };
    },
    domainGetInfo({ dom }) {
      const guest = guests.find(dom);
      const domain = guest.current;
      return {
        state: guest.state,
        maxMem: BigInt(domain.memory ?? 0),
        memory: BigInt(guest.active ? (domain.currentMemory ?? 0) : (domain.currentMemory ?? domain.memory ?? 0)),
        vcpus: domain.vcpu.current ?? domain.vcpu.count,
        cpuTime: BigInt(cpuTimeOf(daemon, guest)),
      };
    },
    domainGetState({ dom }) {
      const guest = guests.find(dom);
      return { state: guest.state, reason: guest.reason };
    },
    domainGetControlInfo({ dom }) {
      const guest = guests.find(dom);
      guest.live();
      return { state: guest.job ? 1 : 0, details: 0, stateTime: 0n };
    },
    domainGetOsType: ({ dom }) => ({ type: guests.find(dom).current.os.type!.name! }),
    domainGetMaxMemory: ({ dom }) => ({ memory: BigInt(guests.find(dom).current.memory ?? 0) }),
    domainIsActive: ({ dom }) => ({ active: guests.find(dom).active }),
    domainIsPersistent: ({ dom }) => ({ persistent: guests.find(dom).persistent }),
    domainIsUpdated: ({ dom }) => ({ updated: guests.find(dom).updated }),
    domainGetMessages: ({ dom }) => {
      guests.find(dom);
      return { msgs: [] };
    },
    domainGetSecurityLabel: ({ dom }) => {
      guests.find(dom);
      return { label: '', enforcing: false };
    },
    domainGetSecurityLabelList: ({ dom }) => {
      guests.find(dom);
      return { labels: [], ret: 0 };
    },
    domainSetLifecycleAction: async ({ dom, type, action, flags }) => {
      const guest = guests.find(dom);
      const names = ['destroy', 'restart', 'rename-restart', 'preserve', 'coredump-destroy', 'coredump-restart'] as const;
      const name = names[action];
      if (name === undefined) throw libvirtError('invalidArg', 'qemu', `Invalid lifecycle action ${action}`);
      const set = (domain: Domain): void => {
        if (type === 0) domain.onPoweroff = name as 'destroy';
        else if (type === 1) domain.onReboot = name as 'destroy';
        else domain.onCrash = name;
      };
      const where = affects(guest, flags);
      if (where.live) {
        const wanted = copyDomain(guest.live().domain);
        set(wanted);
        validateLifecycle(wanted);
        set(guest.live().domain);
        await saveStatus(daemon.host, daemon.paths.run, guest);
      }
      if (where.config) await guests.change(guest, set);
    },
  } satisfies RemoteHandlers;
  return {
    ...translateErrors('qemu', own),
    ...consoleHandlers(daemon),
    ...statsHandlers(daemon),
    ...metadataHandlers(daemon),
    ...jobHandlers(daemon),
    ...deviceHandlers(daemon),
    ...tuneHandlers(daemon),
    ...limitHandlers(daemon),
    ...agentHandlers(daemon),
    ...snapshotHandlers(daemon),
  };
}
