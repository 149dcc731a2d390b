// Parameters of a domain: disk throttles, network cards, pinning, I/O threads. libvirt 9.0's names and answers.
import type { Domain } from '../../domain/domain.ts';
import { formatBitmap } from '../../domain/numa.ts';
import { childNamed, elementsOf, newElement } from '../../domain/xml.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { TypedParam } from '../../rpc/libvirt/types.ts';
import { isObject } from '../../rpc/qmp/json.ts';
import type { Daemon, RemoteHandlers } from '../daemon.ts';
import { invalidArgument, operationInvalid, translateErrors } from '../errors.ts';
import { affects, queried } from './affect.ts';
import { findDisk } from './block-nodes.ts';
import type { Guest } from './guest.ts';
import { cputune } from './limits.ts';
import { saveStatus } from './status.ts';
import { applyIoTune, setTune, tuneParams } from './tune.ts';

const text = (field: string, value: string): TypedParam => ({ field, value: { type: 'string', value } });

const cpusOf = (map: Uint8Array): number[] =>
  Array.from({ length: map.length * 8 }, (_, cpu) => cpu).filter((cpu) => (map[cpu >> 3]! & (1 << (cpu & 7))) !== 0);
function mapOf(cpus: readonly number[], length: number): Uint8Array {
  const map = new Uint8Array(length);
  for (const cpu of cpus) if (cpu >> 3 < length) map[cpu >> 3]! |= 1 << (cpu & 7);
  return map;
}
const parseCpus = (list: string): number[] =>
  list.split(',').flatMap((part) => {
    const [from = 0, to = from] = part.split('-').map(Number);
    return Array.from({ length: to - from + 1 }, (_, i) => from + i);
  });

const pinOf = (domain: Domain, element: string, id: Readonly<Record<string, string>>): number[] | undefined => {
  const found =
    domain.cputune &&
    elementsOf(domain.cputune).find(
      (one) => one.name === element && Object.entries(id).every(([k, v]) => one.attributes[k] === v),
    );
  const set = found?.attributes['cpuset'];
  return set === undefined ? undefined : parseCpus(set);
};
function setPin(domain: Domain, element: string, id: Readonly<Record<string, string>>, cpus: readonly number[]): void {
  const rest = (domain.cputune ? elementsOf(domain.cputune) : []).filter(
    (one) => one.name !== element || !Object.entries(id).every(([k, v]) => one.attributes[k] === v),
  );
  domain.cputune = cputune([...rest, newElement(element, { ...id, cpuset: formatBitmap(cpus) })]);
}

export function tuneHandlers(daemon: Daemon): RemoteHandlers {
  const { guests, host } = daemon;
  const allCpus = (): number[] => host.facts.cpus.map((one) => one.id);
  const pin = async (
    guest: Guest,
    flags: number,
    map: Uint8Array,
    element: string,
    id: Record<string, string>,
    threads: () => number[],
  ) => {
    const cpus = cpusOf(map).filter((cpu) => allCpus().includes(cpu));
    if (cpus.length === 0) throw invalidArgument('Empty cpu list for pinning');
    const where = affects(guest, flags);
    if (where.live) {
      for (const thread of threads()) {
        if (!(await host.processes.setAffinity(thread, cpus)))
          throw operationInvalid(`cannot set CPU affinity on process ${thread}`);
      }
      setPin(guest.run!.domain, element, id, cpus);
      await saveStatus(host, daemon.paths.run, guest);
    }
    if (where.config) await guests.change(guest, (domain) => setPin(domain, element, id, cpus));
  };
  const iothreads = async (guest: Guest): Promise<{ id: number; thread: number }[]> => {
    const answer = await guest.qmp('query-iothreads');
    return (Array.isArray(answer) ? answer : []).flatMap((one) =>
      isObject(one) ? [{ id: Number(String(one['id']).replace('iothread', '')), thread: Number(one['thread-id']) }] : [],
    );
  };
  return translateErrors('qemu', {
    async domainSetBlockIoTune({ dom, disk: path, params, flags }) {
      const guest = guests.find(dom);
      const where = affects(guest, flags);
      await guest.lock.run('DomainSetBlockIoTune', async () => {
        if (where.live) {
          const disk = findDisk(guest.live().domain.devices.disks, path);
          const before = disk.iotune;
          setTune(disk, params);
          try {
            await applyIoTune(guest, disk);
          } catch (error) {
            if (before) disk.iotune = before;
            else delete disk.iotune;
            throw error;
          }
          const all = params.map((one) => ({ ...one, field: `blkdeviotune.${one.field}` }));
          daemon.events.domain(17, guest.ref, { params: [text('blkdeviotune.disk', disk.target?.dev ?? ''), ...all] });
          await saveStatus(host, daemon.paths.run, guest);
        }
        if (where.config) await guests.change(guest, (domain) => setTune(findDisk(domain.devices.disks, path), params));
      });
    },
    domainGetBlockIoTune({ dom, disk: path, nparams, flags }) {
      const domain = queried(guests.find(dom), flags & 3);
      const list = path === undefined ? [] : tuneParams(findDisk(domain.devices.disks, path));
      if (nparams === 0) return { params: [], nparams: 20 };
      return { params: list.slice(0, nparams), nparams: list.length };
    },
    domainGetInterfaceParameters({ dom, device, nparams, flags }) {
      const domain = queried(guests.find(dom), flags & 3);
      if (nparams === 0) return { params: [], nparams: bandwidthRows.length };
      const { bandwidth } = findCard(domain, device);
      const of = (row: string): number => {
        const [way = '', what = ''] = row.split('.');
        return Number((bandwidth && childNamed(bandwidth, way))?.attributes[what] ?? 0);
      };
      return {
        params: bandwidthRows.map((field) => ({ field, value: { type: 'uint' as const, value: of(field) } })),
        nparams: bandwidthRows.length,
      };
    },
    domainSetInterfaceParameters({ dom, device, flags }) {
      const guest = guests.find(dom);
      const where = affects(guest, flags);
      const card = findCard(where.live ? guest.live().domain : guest.config!, device);
      throw libvirtError(
        'configUnsupported',
        'qemu',
        `setting bandwidth on interfaces of type '${card.type}' is not implemented yet`,
      );
    },

    domainPinVcpu: async ({ dom, vcpu, cpumap }) => {
      const guest = guests.find(dom);
      await pin(guest, 1, cpumap, 'vcpupin', { vcpu: String(vcpu) }, () => [...threadOf(guest, vcpu)]);
    },
    domainPinVcpuFlags: async ({ dom, vcpu, cpumap, flags }) => {
      const guest = guests.find(dom);
      const { live } = affects(guest, flags);
      const { count, current = count } = (live ? guest.live().domain : guest.config!).vcpu;
      if (vcpu >= count) {
        throw invalidArgument(`vcpu ${vcpu} is out of range of ${live ? 'live' : 'persistent'} cpu count ${current}`);
      }
      await pin(guest, flags, cpumap, 'vcpupin', { vcpu: String(vcpu) }, () => [...threadOf(guest, vcpu)]);
    },
    domainGetVcpuPinInfo({ dom, maps, mapLength, flags }) {
      const domain = queried(guests.find(dom), flags & 3);
      const count = Math.min(maps, domain.vcpu.count);
      const cpumaps = new Uint8Array(count * mapLength);
      for (let i = 0; i < count; i++) {
        const cpus = pinOf(domain, 'vcpupin', { vcpu: String(i) }) ?? allCpus();
        cpumaps.set(mapOf(cpus, mapLength), i * mapLength);
      }
      return { cpumaps, num: count };
    },
    domainPinEmulator: async ({ dom, cpumap, flags }) => {
      const guest = guests.find(dom);
      await pin(guest, flags, cpumap, 'emulatorpin', {}, () => [guest.live().process.pid]);
    },
    domainGetEmulatorPinInfo({ dom, mapLength, flags }) {
      const domain = queried(guests.find(dom), flags & 3);
      return { cpumaps: mapOf(pinOf(domain, 'emulatorpin', {}) ?? allCpus(), mapLength), ret: 1 };
    },
    async domainGetIothreadInfo({ dom, flags }) {
      const guest = guests.find(dom);
      const domain = queried(guest, flags & 3);
      const length = Math.ceil(allCpus().length / 8);
      const live = guest.run?.domain === domain;
      const ids = live
        ? (await iothreads(guest)).map((one) => one.id)
        : Array.from({ length: domain.iothreads ?? 0 }, (_, i) => i + 1);
      const info = ids.map((id) => ({
        iothreadId: id,
        cpumap: mapOf(pinOf(domain, 'iothreadpin', { iothread: String(id) }) ?? allCpus(), length),
      }));
      return { info, ret: info.length };
    },
    async domainPinIothread({ dom, iothreadId, cpumap, flags }) {
      const guest = guests.find(dom);
      const known = guest.run ? await iothreads(guest) : [];
      await pin(guest, flags, cpumap, 'iothreadpin', { iothread: String(iothreadId) }, () =>
        known.flatMap((one) => (one.id === iothreadId ? [one.thread] : [])),
      );
      // A thread that is spoken of is listed from then on, and all others with it.
      if (affects(guest, flags).config) await guests.change(guest, listIothreads);
    },
    async domainAddIothread({ dom, iothreadId, flags }) {
      const guest = guests.find(dom);
      const where = affects(guest, flags);
      await guest.lock.run('DomainAddIOThread', async () => {
        if (where.live) {
          if ((await iothreads(guest)).some((one) => one.id === iothreadId)) {
            throw invalidArgument(`an IOThread is already using iothread_id '${iothreadId}'`);
          }
          await guest.qmp('object-add', { 'qom-type': 'iothread', id: `iothread${iothreadId}` });
          guest.run!.domain.iothreads = (guest.run!.domain.iothreads ?? 0) + 1;
        }
        if (where.config) {
          await guests.change(guest, (domain) => {
            if (iothreadId <= (domain.iothreads ?? 0))
              throw invalidArgument(`an IOThread is already using iothread_id '${iothreadId}'`);
            domain.iothreads = (domain.iothreads ?? 0) + 1;
          });
        }
      });
    },
    async domainDelIothread({ dom, iothreadId, flags }) {
      const guest = guests.find(dom);
      const where = affects(guest, flags);
      await guest.lock.run('DomainDelIOThread', async () => {
        if (where.live) {
          if (!(await iothreads(guest)).some((one) => one.id === iothreadId)) {
            throw invalidArgument(`cannot find IOThread '${iothreadId}' in iothreadids list`);
          }
          await guest.qmp('object-del', { id: `iothread${iothreadId}` });
          setIothreads(guest.run!.domain, (guest.run!.domain.iothreads ?? 1) - 1);
        }
        if (where.config) {
          await guests.change(guest, (domain) => {
            if (iothreadId > (domain.iothreads ?? 0))
              throw invalidArgument(`cannot find IOThread '${iothreadId}' in iothreadids list`);
            setIothreads(domain, (domain.iothreads ?? 1) - 1);
          });
        }
      });
    },
    async domainSetIothreadParams({ dom, iothreadId, params, flags }) {
      const guest = guests.find(dom);
      if (flags & 2) throw invalidArgument('unsupported flags (0x2) in function qemuDomainSetIOThreadParams');
      guest.live();
      await guest.lock.run('DomainSetIOThreadParams', async () => {
        if (!(await iothreads(guest)).some((one) => one.id === iothreadId)) {
          throw invalidArgument(`cannot find IOThread '${iothreadId}' in iothreadids`);
        }
        for (const { field, value } of params) {
          const property = polling[field];
          if (property === undefined) throw invalidArgument(`parameter '${field}' not supported`);
          const path = `/objects/iothread${iothreadId}`;
          await guest.qmp('qom-set', { path, property, value: Number(value.value) });
        }
      });
    },
  } satisfies RemoteHandlers);
}

/** Parameters of an I/O thread and the emulator's properties. */
const polling: Readonly<Record<string, string>> = {
  poll_max_ns: 'poll-max-ns',
  poll_grow: 'poll-grow',
  poll_shrink: 'poll-shrink',
  thread_pool_min: 'thread-pool-min',
  thread_pool_max: 'thread-pool-max',
};

const bandwidthRows = [
  ...['inbound.average', 'inbound.peak', 'inbound.burst', 'inbound.floor'],
  ...['outbound.average', 'outbound.peak', 'outbound.burst'],
];

function findCard(domain: Domain, device: string) {
  const card = domain.devices.interfaces.find((one) => one.target?.dev === device || one.mac?.address === device);
  if (!card) throw invalidArgument(`'${device}' is not a known interface`);
  return card;
}

function listIothreads(domain: Domain): void {
  const ids = Array.from({ length: domain.iothreads ?? 0 }, (_, i) => newElement('iothread', { id: String(i + 1) }));
  domain.iothreadids = newElement('iothreadids', {}, ids);
}

function setIothreads(domain: Domain, count: number): void {
  if (count > 0) domain.iothreads = count;
  else delete domain.iothreads;
}

function* threadOf(guest: Guest, vcpu: number): Generator<number> {
  const thread = guest.live().threads.get(vcpu);
  if (thread === undefined) throw invalidArgument(`vcpu ${vcpu} is not online`);
  yield thread;
}
