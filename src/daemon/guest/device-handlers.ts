// Procedures that change devices, vCPUs and memory of a domain, in the run and in the definition.
import { completeDomain } from '../../domain/complete.ts';
import type { Device } from '../../domain/device.ts';
import { findDevice } from '../../domain/device.ts';
import type { Domain } from '../../domain/domain.ts';
import { DomainXmlError } from '../../domain/errors.ts';
import { parseVcpuSet, setVcpuStates, vcpuStates } from '../../domain/model/vcpus.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Domain as DomainRef } from '../../rpc/libvirt/types.ts';
import { isObject } from '../../rpc/qmp/json.ts';
import type { Daemon, RemoteHandlers } from '../daemon.ts';
import { checkFlags, invalidArgument, operationInvalid, translateErrors } from '../errors.ts';
import { affects } from './affect.ts';
import {
  attachConfig,
  attachLive,
  detachConfig,
  detachLive,
  deviceByAlias,
  deviceOf,
  removeDevice,
  updateConfig,
  updateLive,
} from './devices.ts';
import type { Guest } from './guest.ts';
import { agentCommand } from './lifecycle.ts';
import { addVcpu, hotpluggable, readVcpus } from './monitor.ts';
import { saveStatus } from './status.ts';

/** libvirt's error 99 for a device that is not there. */
function missing<T>(find: () => T, wanted: Device): T {
  try {
    return find();
  } catch (error) {
    if (!(error instanceof DomainXmlError) || !error.message.includes('device not found')) throw error;
    const value = wanted.value as { target?: { dev?: string }; mac?: { address: string } };
    const detail =
      wanted.element === 'disk'
        ? `disk ${value.target?.dev} not found`
        : wanted.element === 'interface'
          ? `no device matching MAC address ${value.mac?.address} found`
          : `no matching ${wanted.element} device was found`;
    throw libvirtError(wanted.element === 'disk' ? 'operationFailed' : 'deviceMissing', 'qemu', detail);
  }
}

const maxMemoryFlag = 4;

async function setMemory(daemon: Daemon, guest: Guest, kib: number, flags: number): Promise<void> {
  const where = affects(guest, flags);
  if ((flags & maxMemoryFlag) !== 0) {
    if (where.live) throw operationInvalid('cannot resize the maximum memory on an active domain');
    await daemon.guests.change(guest, (domain) => {
      if ((domain.cpu?.numa?.cells.length ?? 0) > 0)
        throw operationInvalid('initial memory size of a domain with NUMA nodes cannot be modified with this API');
      domain.memory = kib;
      domain.currentMemory = Math.min(domain.currentMemory ?? kib, kib);
    });
    return;
  }
  const check = (domain: Domain): void => {
    if (kib > (domain.memory ?? 0)) throw invalidArgument('cannot set memory higher than max memory');
  };
  if (where.live) {
    const run = guest.live();
    check(run.domain);
    if (!run.domain.devices.memballoons.some((one) => one.model !== 'none')) {
      throw operationInvalid('Unable to change memory of active domain without the balloon device and guest OS balloon driver');
    }
    await guest.qmp('balloon', { value: kib * 1024 });
  }
  if (where.config) {
    await daemon.guests.change(guest, (domain) => {
      check(domain);
      domain.currentMemory = kib;
    });
  }
}

/** Flags of vCPU counts. */
const vcpuFlag = { maximum: 4, guest: 8, hotpluggable: 16 } as const;

/** Adds vCPUs to a running guest, or has it let go of those that were added, the last first. */
async function plugVcpus(daemon: Daemon, guest: Guest, count: number): Promise<void> {
  const run = guest.live();
  const all = await hotpluggable(guest);
  const there = (one: (typeof all)[number]): boolean => one['qom-path'] !== undefined;
  let have = all.filter(there).length;
  const few = (): Error =>
    operationInvalid('failed to find appropriate hotpluggable vcpus to reach the desired target vcpu count');
  try {
    for (const [index, one] of all.entries()) {
      if (have >= count) break;
      if (there(one)) continue;
      await addVcpu(guest, all, index);
      have++;
    }
    for (const one of all.toReversed()) {
      if (have <= count) break;
      // Those of the command line stay.
      const id = /^\/machine\/peripheral\/(.+)$/.exec(String(one['qom-path']))?.[1];
      if (id === undefined) continue;
      if (!(await removeDevice(daemon, guest, run, id))) {
        throw unplugTimeout();
      }
      have--;
    }
    if (have !== count) throw few();
  } finally {
    await readVcpus(guest, run);
  }
}

async function setVcpus(daemon: Daemon, guest: Guest, count: number, flags: number): Promise<void> {
  if (count === 0) throw invalidArgument('argument out of range: 0');
  if (flags & vcpuFlag.guest) {
    guest.live();
    const answer = await agentCommand(daemon, guest, 'guest-get-vcpus');
    const cpus = (Array.isArray(answer) ? answer : []).filter(isObject);
    const vcpus = cpus.map((one, i) => ({ 'logical-id': one['logical-id']!, online: i < count }));
    await agentCommand(daemon, guest, 'guest-set-vcpus', { vcpus });
    return;
  }
  const where = affects(guest, flags);
  if (flags & vcpuFlag.maximum) {
    if (where.live) throw invalidArgument('maximum vcpus can be modified only in the persistent definition');
    await daemon.guests.change(guest, async (domain) => {
      domain.vcpu.count = count;
      if (domain.vcpus) setVcpuStates(domain, vcpuStates({ ...domain, vcpus: { vcpu: domain.vcpus.vcpu.slice(0, count) } }));
      if (domain.vcpu.current !== undefined && domain.vcpu.current >= count) delete domain.vcpu.current;
      if (domain.cpu?.topology)
        throw libvirtError('configUnsupported', 'qemu', "CPU topology doesn't match the desired vcpu count");
      completeDomain(domain, await daemon.guests.context(domain));
    });
    return;
  }
  const check = (domain: Domain): void => {
    if (count > domain.vcpu.count) {
      const which = where.live ? 'live' : 'persistent';
      throw invalidArgument(
        `requested vcpus is greater than max allowable vcpus for the ${which} domain: ${count} > ${domain.vcpu.count}`,
      );
    }
  };
  if (where.live) {
    check(guest.live().domain);
    await plugVcpus(daemon, guest, count);
  }
  if (where.config) {
    await daemon.guests.change(guest, (domain) => {
      check(domain);
      if (domain.vcpus) {
        const states = vcpuStates(domain);
        let have = domain.vcpu.current ?? domain.vcpu.count;
        for (const one of states) {
          if (have >= count || one.enabled === 'yes') continue;
          Object.assign(one, { enabled: 'yes', hotpluggable: 'no' });
          have++;
        }
        for (const one of states.toReversed()) {
          if (have <= count || one.enabled === 'no') continue;
          Object.assign(one, { enabled: 'no', hotpluggable: 'yes' });
          have--;
        }
        for (const one of states) one.order = undefined;
        setVcpuStates(domain, states);
      } else if (count === domain.vcpu.count) delete domain.vcpu.current;
      else domain.vcpu.current = count;
    });
  }
}

/** One or several vCPUs by their numbers: virsh's `setvcpu`. */
async function setVcpu(daemon: Daemon, guest: Guest, map: string, on: boolean, flags: number): Promise<void> {
  const ids = parseVcpuSet(map);
  if (ids === undefined) throw invalidArgument(`Failed to parse bitmap '${map}'`);
  if (ids.length === 0) throw invalidArgument('no vcpus selected for modification');
  const where = affects(guest, flags);
  const wanted = on ? 'yes' : 'no';
  if (where.config) {
    const states = vcpuStates(guest.config!);
    checkPresent(ids, states.length, 'persistent');
    if (ids.includes(0)) throw invalidArgument("vCPU '0' can't be modified");
    const fixed = states.findLast((one) => one.enabled === 'yes' && one.hotpluggable === 'no' && !ids.includes(one.id));
    const before = ids.find((id) => id < (fixed?.id ?? 0));
    if (before !== undefined)
      throw invalidArgument(`vcpu '${before}' can't be modified as it is followed by non-hotpluggable online vcpus`);
  }
  if (where.live) {
    const run = guest.live();
    const states = vcpuStates(run.domain);
    checkPresent(ids, states.length, 'live');
    for (const id of ids) {
      if (states[id]!.enabled === wanted) throw invalidArgument(`vcpu '${id}' is already in requested state`);
      if (!on && states[id]!.hotpluggable === 'no') {
        throw libvirtError('operationUnsupported', 'qemu', `vcpu '${id}' can't be unplugged`);
      }
    }
    const all = await hotpluggable(guest);
    try {
      for (const id of ids) {
        if (on) await addVcpu(guest, all, id);
        else if (!(await removeDevice(daemon, guest, run, `vcpu${id}`))) throw unplugTimeout();
      }
    } finally {
      await readVcpus(guest, run);
    }
  }
  if (where.config) {
    await daemon.guests.change(guest, (domain) => {
      const states = vcpuStates(domain);
      for (const id of ids) Object.assign(states[id]!, { enabled: wanted, hotpluggable: 'yes' });
      for (const one of states) one.order = undefined;
      setVcpuStates(domain, states);
    });
  }
}
function checkPresent(ids: readonly number[], count: number, which: 'live' | 'persistent'): void {
  const beyond = ids.find((id) => id >= count);
  if (beyond !== undefined) throw invalidArgument(`vcpu ${beyond} is not present in ${which} config`);
}
const unplugTimeout = () =>
  libvirtError(
    'operationTimeout',
    'qemu',
    'vcpu unplug request timed out. Unplug result must be manually inspected in the domain',
  );

async function countVcpus(daemon: Daemon, guest: Guest, flags: number): Promise<number> {
  if (flags & vcpuFlag.guest) {
    guest.live();
    const answer = await agentCommand(daemon, guest, 'guest-get-vcpus');
    return (Array.isArray(answer) ? answer : []).filter((one) => isObject(one) && one['online'] === true).length;
  }
  const { live } = affects(guest, flags);
  const { vcpu } = live ? guest.run!.domain : guest.config!;
  return (flags & vcpuFlag.maximum) !== 0 ? vcpu.count : (vcpu.current ?? vcpu.count);
}

export function deviceHandlers(daemon: Daemon): RemoteHandlers {
  const { guests } = daemon;
  const random = (length: number): Uint8Array => daemon.host.crypto.random(length);
  /** Changes the definition by its document, then fills in what the change left open. */
  const changeConfig = (guest: Guest, edit: (domain: Domain) => void): Promise<void> =>
    guests.change(guest, async (domain) => {
      edit(domain);
      completeDomain(domain, await guests.context(domain));
    });
  const change = async (
    name: string,
    dom: DomainRef,
    flags: number,
    live: (guest: Guest) => Promise<void>,
    config: (domain: Domain) => void,
  ): Promise<void> => {
    const guest = guests.find(dom);
    const where = affects(guest, flags & 3);
    await guest.lock.run(name, async () => {
      // The definition is tried first: if it can't be, the guest is left alone.
      if (where.config && where.live) config(await copyOf(guest));
      if (where.live) {
        await live(guest);
        await saveStatus(daemon.host, daemon.paths.run, guest);
      }
      if (where.config) await changeConfig(guest, config);
    });
  };
  const copyOf = async (guest: Guest): Promise<Domain> => {
    const { copyDomain } = await import('./guest.ts');
    return copyDomain(guest.config!);
  };
  const attach = (dom: DomainRef, xml: string, flags: number): Promise<void> => {
    checkFlags('qemuDomainAttachDeviceFlags', flags, 3);
    return change(
      'DomainAttachDeviceFlags',
      dom,
      flags,
      (guest) => attachLive(daemon, guest, deviceOf(xml)),
      (domain) => attachConfig(domain, deviceOf(xml), random),
    );
  };
  const detach = (dom: DomainRef, xml: string, flags: number): Promise<void> => {
    checkFlags('qemuDomainDetachDeviceFlags', flags, 3);
    const wanted = deviceOf(xml);
    return change(
      'DomainDetachDeviceFlags',
      dom,
      flags,
      (guest) =>
        detachLive(
          daemon,
          guest,
          missing(() => findDevice(guest.live().domain, wanted), wanted),
        ),
      (domain) => missing(() => detachConfig(domain, deviceOf(xml)), wanted),
    );
  };
  return translateErrors('qemu', {
    domainAttachDevice: ({ dom, xml }) => attach(dom, xml, 1),
    domainAttachDeviceFlags: ({ dom, xml, flags }) => attach(dom, xml, flags),
    domainDetachDevice: ({ dom, xml }) => detach(dom, xml, 1),
    domainDetachDeviceFlags: ({ dom, xml, flags }) => detach(dom, xml, flags),
    async domainDetachDeviceAlias({ dom, alias, flags }) {
      await change(
        'DomainDetachDeviceAlias',
        dom,
        flags,
        (guest) => detachLive(daemon, guest, deviceByAlias(guest.live().domain, alias)),
        (domain) => detachConfig(domain, deviceByAlias(domain, alias)),
      );
    },
    domainUpdateDeviceFlags({ dom, xml, flags }) {
      checkFlags('qemuDomainUpdateDeviceFlags', flags, 7);
      const wanted = deviceOf(xml);
      return change(
        'DomainUpdateDeviceFlags',
        dom,
        flags,
        (guest) => missing(() => updateLive(daemon, guest, wanted, (flags & 4) !== 0), wanted),
        (domain) => missing(() => updateConfig(domain, deviceOf(xml)), wanted),
      );
    },
    domainGetMaxVcpus: ({ dom }) => {
      const guest = guests.find(dom);
      return { num: guest.current.vcpu.count };
    },
    domainSetVcpus: async ({ dom, vcpus }) => {
      const guest = guests.find(dom);
      await guest.lock.run('DomainSetVcpus', () => setVcpus(daemon, guest, vcpus, 1));
    },
    async domainSetVcpusFlags({ dom, vcpus, flags }) {
      checkFlags('qemuDomainSetVcpusFlags', flags, 0x1f);
      const guest = guests.find(dom);
      await guest.lock.run('DomainSetVcpusFlags', () => setVcpus(daemon, guest, vcpus, flags));
      await saveStatus(daemon.host, daemon.paths.run, guest);
    },
    async domainSetVcpu({ dom, cpumap, state, flags }) {
      checkFlags('qemuDomainSetVcpu', flags, 3);
      if (state !== 0 && state !== 1) throw invalidArgument(`unsupported state value ${state}`);
      const guest = guests.find(dom);
      await guest.lock.run('DomainSetVcpu', () => setVcpu(daemon, guest, cpumap, state === 1, flags));
    },
    domainGetVcpusFlags: async ({ dom, flags }) => ({ num: await countVcpus(daemon, guests.find(dom), flags) }),
    domainSetMaxMemory: async ({ dom, memory }) => setMemory(daemon, guests.find(dom), Number(memory), maxMemoryFlag),
    domainSetMemory: async ({ dom, memory }) => setMemory(daemon, guests.find(dom), Number(memory), 1),
    async domainSetMemoryFlags({ dom, memory, flags }) {
      checkFlags('qemuDomainSetMemoryFlags', flags, 7);
      const guest = guests.find(dom);
      await guest.lock.run('DomainSetMemoryFlags', () => setMemory(daemon, guest, Number(memory), flags));
    },
    async domainSetMemoryStatsPeriod({ dom, period, flags }) {
      const guest = guests.find(dom);
      const where = affects(guest, flags);
      const set = (domain: Domain): void => {
        const balloon = domain.devices.memballoons.find((one) => one.model !== 'none');
        if (!balloon) throw operationInvalid('No memory balloon device configured, can not set the collection period');
        if (period > 0) balloon.stats = { period };
        else delete balloon.stats;
      };
      if (where.live) {
        const run = guest.live();
        set(run.domain);
        const alias = run.domain.devices.memballoons[0]?.alias?.name;
        const path = `/machine/peripheral/${alias}`;
        await guest.qmp('qom-set', { path, property: 'guest-stats-polling-interval', value: period });
      }
      if (where.config) await guests.change(guest, set);
    },
  } satisfies RemoteHandlers);
}
