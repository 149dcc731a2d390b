// Procedures of a connection and its host: opening, capabilities, CPU models, the node's memory and times. libvirt 9.0's answers.
import { errorCodes, errorDomains, LibvirtError, libvirtError } from '../rpc/libvirt/errors.ts';
import type { TypedParam } from '../rpc/libvirt/types.ts';
import { capabilitiesXml, domainCapabilitiesXml } from './capabilities.ts';
import type { Daemon, RemoteHandlers } from './daemon.ts';
import { checkFlags, translateErrors } from './errors.ts';
import { commandLineOf } from './native.ts';
import { ALLOC_SET, allocatePages, cellsFrom, freePages } from './node-memory.ts';

const fdPassing = 8;
/** Answers of libvirtd 9.0 to `connectSupportsFeature`; descriptors are passed where the connection can. */
const features: Readonly<Record<number, boolean>> = {
  ...{ 1: false, 2: false, 3: true, 4: true, 5: false, 6: true, 7: true, 9: true, 10: true, 11: true, 12: true },
  ...{ 13: true, 14: true, 15: true, 16: true },
};

const number = (version: string): bigint => {
  const [major = 0, minor = 0, micro = 0] = version.split('.').map(Number);
  return BigInt(major * 1_000_000 + minor * 1000 + micro);
};

/** An invalid argument in libvirt's words that say so themselves. */
const plainInvalid = (detail: string): LibvirtError => new LibvirtError(errorCodes.invalidArg[0], errorDomains.none, detail);

/** The libvirt whose protocol and behaviour this is. */
const libvirtVersion = '9.0.0';

/** URIs by their last part: what this daemon is asked for and what it is. */
function checkUri(daemon: Daemon, name: string | undefined): void {
  if (name === undefined || name === '') return;
  const wanted = daemon.options.system ? ['qemu:///system', 'qemu:///embed'] : ['qemu:///session'];
  if (!name.startsWith('qemu')) {
    throw libvirtError('noConnect', 'none', `No connection for URI ${name}`);
  }
  const plain = name.replace(/\?.*$/, '').replace(/^qemu\+\w+:\/\/[^/]*/, 'qemu://');
  if (plain === 'qemu:///system' || plain === 'qemu:///session' || wanted.includes(plain)) return;
  throw libvirtError('internalError', 'qemu', `unexpected QEMU URI path '${plain.replace('qemu://', '')}', try qemu:///system`);
}

export function connectHandlers(daemon: Daemon): RemoteHandlers {
  const { host, options, sessions } = daemon;
  const { facts } = host;
  const hostname = options.hostname ?? facts.hostname;
  return translateErrors('qemu', {
    connectOpen({ name, flags }, call) {
      checkUri(daemon, name);
      const session = sessions.of(call);
      session.opened = true;
      session.readOnly ||= (flags & 1) === 1;
    },
    connectClose: (_, call) => call.connection.closeWhenIdle(),
    connectSupportsFeature({ feature }, call) {
      if (feature === 10 && options.keepalive.interval > 0) {
        call.connection.startKeepalive({ ...options.keepalive, timers: host.timers });
      }
      if (feature === fdPassing) return { supported: call.connection.passesFds };
      return { supported: features[feature] ?? false };
    },
    connectSetIdentity: () => {},
    connectGetType: () => ({ type: 'QEMU' }),
    async connectGetVersion() {
      const [first] = await daemon.emulators.all();
      if (!first) throw libvirtError('internalError', 'qemu', 'Cannot find suitable emulator for x86_64');
      const { major, minor, micro } = first.version;
      return { version: number(`${major}.${minor}.${micro}`) };
    },
    connectGetLibVersion: () => ({ version: number(libvirtVersion) }),
    connectGetHostname: () => ({ hostname }),
    connectGetUri: () => ({ uri: options.system ? 'qemu:///system' : 'qemu:///session' }),
    connectIsSecure(_, call) {
      return { secure: sessions.of(call).client.transport !== 'tcp' };
    },
    connectGetMaxVcpus({ type }) {
      const most: Readonly<Record<string, number>> = { qemu: 16, kvm: 255 };
      const found = type === undefined ? 16 : most[type];
      if (found === undefined) throw libvirtError('invalidArg', 'qemu', `unknown type '${type}'`);
      return { maxVcpus: found };
    },
    connectGetCapabilities: async () => ({ capabilities: await capabilitiesXml(daemon) }),
    connectGetDomainCapabilities: async ({ emulator, arch, machine, virtType }) => ({
      capabilities: await domainCapabilitiesXml(daemon, emulator, arch, machine, virtType),
    }),
    connectGetSysinfo() {
      throw libvirtError('configUnsupported', 'qemu', 'Host SMBIOS information is not available');
    },
    connectDomainXmlToNative: async ({ format, xml }) => ({ config: await commandLineOf(daemon, format, xml) }),

    nodeGetInfo() {
      const { sockets, cores, threads } = facts.topology;
      const cells = facts.cells();
      return {
        model: facts.arch,
        memory: BigInt(cells.reduce((sum, cell) => sum + cell.memory, 0)),
        cpus: facts.cpus.filter((one) => one.online).length,
        mhz: facts.cpu.mhz,
        nodes: cells.length,
        sockets,
        cores,
        threads,
      };
    },
    nodeGetCpuMap({ needMap, needOnline }) {
      const map = new Uint8Array(Math.ceil(facts.cpus.length / 8));
      const online = facts.cpus.filter((one) => one.online);
      for (const { id } of online) map[id >> 3]! |= 1 << (id & 7);
      return { cpumap: needMap ? map : new Uint8Array(), online: needOnline ? online.length : 0, ret: facts.cpus.length };
    },
    nodeGetCpuStats({ cpuNum, nparams }) {
      if (nparams === 0) return { params: [], nparams: 4 };
      const times = facts.cpuTimes(cpuNum < 0 ? undefined : cpuNum);
      if (!times) throw plainInvalid('Invalid cpuNum in virHostCPUGetStatsLinux');
      const list = (['kernel', 'user', 'idle', 'iowait'] as const).map((field) => ({ field, value: BigInt(times[field]) }));
      return { params: list, nparams: list.length };
    },
    nodeGetMemoryStats({ nparams, cellNum }) {
      const cells = facts.cells();
      if (cellNum >= cells.length) {
        throw plainInvalid(`cellNum in virHostMemGetStats must be less than or equal to ${cells.length - 1}`);
      }
      const cell = cells[cellNum];
      const memory = cell ? { MemTotal: cell.memory, MemFree: cell.free } : facts.memory();
      const rows = [
        ['total', 'MemTotal'],
        ['free', 'MemFree'],
        ['buffers', 'Buffers'],
        ['cached', 'Cached'],
      ] as const;
      const list = rows.slice(0, cellNum < 0 ? 4 : 2).map(([field, name]) => ({ field, value: BigInt(memory[name] ?? 0) }));
      return { params: nparams === 0 ? [] : list, nparams: list.length };
    },
    nodeGetFreeMemory: () => ({ freeMem: BigInt(facts.cells().reduce((sum, cell) => sum + cell.free, 0)) * 1024n }),
    nodeGetCellsFreeMemory({ startCell, maxCells }) {
      const cells = cellsFrom(host, startCell).slice(0, maxCells);
      return { cells: cells.map((cell) => BigInt(cell.free) * 1024n) };
    },
    nodeGetSecurityModel: () => ({ model: 'none', doi: '0' }),
    async nodeGetMemoryParameters({ nparams }) {
      const rows = [
        'pages_to_scan',
        'sleep_millisecs',
        'pages_shared',
        'pages_sharing',
        'pages_unshared',
        'pages_volatile',
        'full_scans',
        'merge_across_nodes',
      ];
      const found = await Promise.all(
        rows.map(async (name) => [name, await host.files.read(`/sys/kernel/mm/ksm/${name}`)] as const),
      );
      const params = found.flatMap(([name, text]): TypedParam[] => {
        if (text === undefined) return [];
        const wide = name.startsWith('pages_') && name !== 'pages_to_scan' ? true : name === 'full_scans';
        const value = wide
          ? { type: 'ullong' as const, value: BigInt(text.trim()) }
          : { type: 'uint' as const, value: Number(text) };
        return [{ field: `shm_${name}`, value }];
      });
      return { params: nparams === 0 ? [] : params, nparams: params.length };
    },
    async nodeAllocPages({ pageSizes, pageCounts, startCell, cellCount, flags }) {
      checkFlags('qemuNodeAllocPages', flags, ALLOC_SET);
      let done = 0;
      for (const cell of cellsFrom(host, startCell).slice(0, cellCount)) {
        for (const [at, size] of pageSizes.entries()) {
          await allocatePages(host, cell, size, Number(pageCounts[at] ?? 0n), (flags & ALLOC_SET) === 0);
          done++;
        }
      }
      return { ret: done };
    },
    nodeGetSevInfo() {
      throw libvirtError('operationUnsupported', 'qemu', 'QEMU does not support SEV guest');
    },
    nodeGetFreePages({ pages, startCell, cellCount }) {
      const cells = cellsFrom(host, startCell).slice(0, cellCount);
      return { counts: cells.flatMap((cell) => pages.map((size) => BigInt(freePages(cell, size)))) };
    },
  } satisfies RemoteHandlers);
}
